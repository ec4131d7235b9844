#include "ledger.h"

#include "cost.h"

#include <stdio.h>
#include <string.h>

enum { SLOT_BITS = 24, LEASE_BITS = 16 /* max_leases is at most 65535 */, OWED_BITS = 8 /* beside an id of 56 */ };

void pdr_ledger_init(const pdr_ledger *l, uint32_t max_bookings, uint32_t max_leases, uint64_t salt)
{
    memset(l->head, 0, sizeof *l->head);
    l->head->max_bookings = max_bookings;
    l->head->max_leases = max_leases;
    memset(l->leases, 0, max_leases * sizeof *l->leases);
    for (uint32_t i = 0; i < max_leases; i++) l->leases[i].generation = (uint32_t)(salt >> 32) & ((1u << (32 - LEASE_BITS)) - 1);
    for (uint32_t i = 0; i < max_bookings; i++) {
        l->bookings[i].state = PDR_BOOKING_FREE;
        l->bookings[i].generation = (uint32_t)salt;
    }
    pdr_ledger_rebuild(l);
}

/* ---- leases */

uint32_t pdr_lease_id(const pdr_ledger *l, uint32_t slot) { return l->leases[slot].generation << LEASE_BITS | slot; }

pdr_lease *pdr_lease_at(const pdr_ledger *l, uint32_t lease, uint32_t *slot)
{
    uint32_t i = lease & ((1u << LEASE_BITS) - 1);
    if (i >= l->head->max_leases || !l->leases[i].open || pdr_lease_id(l, i) != lease) return NULL;
    if (slot) *slot = i;
    return &l->leases[i];
}

int pdr_lease_new(const pdr_ledger *l, const char *name, uint64_t now_ns, uint32_t *lease)
{
    for (uint32_t i = 0; i < l->head->max_leases; i++) {
        pdr_lease *s = &l->leases[i];
        if (s->open) continue;
        uint32_t generation = (s->generation + 1) & ((1u << (32 - LEASE_BITS)) - 1);
        s->generation = generation ? generation : 1; /* at no instant an older one: ids never come again soon */
        memset(&s->open, 0, sizeof *s - offsetof(pdr_lease, open));
        s->first = PDR_NONE;
        s->beat_ns = now_ns;
        snprintf(s->name, sizeof s->name, "%s", name ? name : "");
        __atomic_store_n(&s->open, 1u, __ATOMIC_RELEASE);
        l->head->leases++;
        *lease = pdr_lease_id(l, i);
        return PDR_OK;
    }
    return PDR_E_FULL;
}

void pdr_lease_woken(const pdr_ledger *l, pdr_lease *s)
{
    if (!s->wake) return;
    s->wake = 0;
    __atomic_fetch_sub(&l->head->wakes, 1u, __ATOMIC_RELAXED);
}

void pdr_lease_end(const pdr_ledger *l, uint32_t slot)
{
    pdr_lease *s = &l->leases[slot];
    pdr_lease_woken(l, s);
    s->open = 0;
    l->head->leases--;
}

/* ---- bookings */

uint64_t pdr_booking_id(const pdr_ledger *l, const pdr_booking *b)
{
    return (uint64_t)b->generation << SLOT_BITS | (uint64_t)(b - l->bookings);
}

pdr_booking *pdr_booking_at(const pdr_ledger *l, uint64_t id)
{
    uint64_t slot = id & ((1u << SLOT_BITS) - 1);
    if (slot >= l->head->max_bookings) return NULL;
    pdr_booking *b = &l->bookings[slot];
    return b->state != PDR_BOOKING_FREE && pdr_booking_id(l, b) == id ? b : NULL;
}

void pdr_booking_owe(const pdr_ledger *l, uint64_t id, uint32_t what)
{
    pdr_booking *b = pdr_booking_at(l, id);
    if (!b) return;
    uint64_t was = __atomic_load_n(&b->owed, __ATOMIC_RELAXED), now;
    do { /* who has the lock may be taking an earlier note off */
        now = id << OWED_BITS | what | (was >> OWED_BITS == id ? was & ((1u << OWED_BITS) - 1) : 0);
    } while (!__atomic_compare_exchange_n(&b->owed, &was, now, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
    __atomic_store_n(&l->head->owed, 1u, __ATOMIC_RELEASE);
}

pdr_booking *pdr_ledger_owed(const pdr_ledger *l, uint32_t *slot, uint32_t *what)
{
    if (!*slot && (!__atomic_load_n(&l->head->owed, __ATOMIC_RELAXED) || !__atomic_exchange_n(&l->head->owed, 0u, __ATOMIC_ACQ_REL))) return NULL;
    while (*slot < l->head->max_bookings) {
        pdr_booking *b = &l->bookings[(*slot)++];
        uint64_t     owed = __atomic_load_n(&b->owed, __ATOMIC_RELAXED) ? __atomic_exchange_n(&b->owed, 0, __ATOMIC_ACQUIRE) : 0;
        *what = (uint32_t)(owed & ((1u << OWED_BITS) - 1));
        if (owed && b->state != PDR_BOOKING_FREE && owed >> OWED_BITS == pdr_booking_id(l, b)) return b;
    }
    return NULL;
}

static void link_to_lease(const pdr_ledger *l, pdr_booking *b)
{
    pdr_lease *s = &l->leases[b->lease];
    uint32_t   at = (uint32_t)(b - l->bookings);
    b->prev = PDR_NONE;
    b->next = s->first;
    if (s->first != PDR_NONE) l->bookings[s->first].prev = at;
    s->first = at;
    s->bookings++;
}

static void unlink_from_lease(const pdr_ledger *l, pdr_booking *b)
{
    pdr_lease *s = &l->leases[b->lease];
    if (b->prev != PDR_NONE)
        l->bookings[b->prev].next = b->next;
    else
        s->first = b->next;
    if (b->next != PDR_NONE) l->bookings[b->next].prev = b->prev;
    s->bookings--;
}

pdr_booking *pdr_booking_new(const pdr_ledger *l, uint32_t lease_slot)
{
    uint32_t at = l->head->free_first;
    if (at == PDR_NONE) return NULL;
    pdr_booking *b = &l->bookings[at];
    uint32_t     generation = b->generation + 1, next = b->next;
    b->generation = generation ? generation : 1; /* at no instant an older one: ids never come again soon */
    memset(&b->next, 0, sizeof *b - offsetof(pdr_booking, next));
    b->lease = lease_slot;
    b->prefill = b->decode = b->held = PDR_NONE;
    l->head->free_first = next;
    l->head->bookings++;
    link_to_lease(l, b);
    __atomic_store_n(&b->state, PDR_BOOKING_HELD, __ATOMIC_RELEASE);
    return b;
}

static int in_prefill(const pdr_booking *b) { return b->state == PDR_BOOKING_PREFILL || b->state == PDR_BOOKING_READY; }
static int placed(const pdr_booking *b) { return in_prefill(b) || b->state == PDR_BOOKING_DECODE; }

static int announced(const pdr_booking *b) { return b->state == PDR_BOOKING_READY || b->state == PDR_BOOKING_REFUSED; }

/* What a charged record adds to its targets, endpoints and counts. */
static void add_sums(const pdr_ledger *l, const pdr_booking *b)
{
    if (in_prefill(b)) {
        l->head->in_prefill += !b->aside;
        if (b->prefill != PDR_NONE) {
            pdr_target *t = &l->registry->targets[b->prefill];
            t->work_us += b->work_us;
            t->tokens += b->uncached_tokens;
            if (!t->requests++) l->registry->head->idle -= l->registry->listed[b->prefill];
        }
    }
    l->head->rooms += b->room ? (b->batch ? b->batch : 1) : 0;
    if (b->prefill != PDR_NONE && b->prefill != b->decode) l->registry->endpoints[l->registry->targets[b->prefill].endpoint].bookings++;
    if (b->decode != PDR_NONE) {
        pdr_target *t = &l->registry->targets[b->decode];
        t->d_tokens += b->context_tokens;
        t->d_requests++;
        l->registry->endpoints[t->endpoint].bookings++;
    }
}

/* Of those that are busy one will be through at this time. */
static void through_at(const pdr_ledger *l, const pdr_target *t)
{
    uint64_t at = pdr_through_ns(t);
    if (t->requests == 1 && at < l->registry->head->through_ns) l->registry->head->through_ns = at;
}

void pdr_booking_charge(const pdr_ledger *l, pdr_booking *b, uint32_t state, uint64_t now_ns)
{
    b->booked_ns = now_ns;
    if (b->prefill != PDR_NONE && !l->registry->targets[b->prefill].requests) {
        l->registry->targets[b->prefill].since_ns = now_ns;
        b->alone = 1;
    }
    __atomic_store_n(&b->state, state, __ATOMIC_RELEASE);
    add_sums(l, b);
    if (b->prefill != PDR_NONE) {
        through_at(l, &l->registry->targets[b->prefill]);
        pdr_board_renew(l->registry, b->prefill);
    }
    if (b->decode != PDR_NONE && b->decode != b->prefill) pdr_board_renew(l->registry, b->decode);
}

static void leave_prefill(const pdr_ledger *l, pdr_booking *b, uint64_t now_ns)
{
    l->head->in_prefill -= !b->aside;
    if (b->prefill == PDR_NONE) return;
    pdr_target *t = &l->registry->targets[b->prefill];
    t->work_us -= b->work_us;
    t->tokens -= b->uncached_tokens;
    if (!--t->requests) l->registry->head->idle += l->registry->listed[b->prefill];
    uint64_t lag_ns = b->lag_us * 1000u, ended = now_ns > lag_ns ? now_ns - lag_ns : 0; /* who is behind it has been computed since */
    t->since_ns = !t->requests ? now_ns : ended > t->since_ns ? ended : t->since_ns;
    through_at(l, t);
    pdr_board_renew(l->registry, b->prefill);
}

void pdr_booking_move(const pdr_ledger *l, pdr_booking *b, uint32_t decode)
{
    uint32_t    from = b->decode, left;
    pdr_target *targets = l->registry->targets;
    if (!placed(b) || from == PDR_NONE || from == decode) return;
    left = targets[from].endpoint;
    if (b->prefill != PDR_NONE && b->prefill != from) l->registry->endpoints[targets[b->prefill].endpoint].bookings--;
    l->registry->endpoints[left].bookings--;
    targets[from].d_tokens -= b->context_tokens;
    targets[from].d_requests--;
    b->decode = decode;
    targets[decode].d_tokens += b->context_tokens;
    targets[decode].d_requests++;
    if (b->prefill != PDR_NONE && b->prefill != decode) l->registry->endpoints[targets[b->prefill].endpoint].bookings++;
    l->registry->endpoints[targets[decode].endpoint].bookings++;
    pdr_board_renew(l->registry, from);
    pdr_board_renew(l->registry, decode);
    pdr_registry_reap(l->registry, left);
}

void pdr_booking_prefilled(const pdr_ledger *l, pdr_booking *b, uint64_t now_ns)
{
    if (b->state != PDR_BOOKING_PREFILL) return; /* what was not fetched was not sent */
    __atomic_store_n(&b->state, PDR_BOOKING_DECODE, __ATOMIC_RELEASE);
    leave_prefill(l, b, now_ns);
}

/* What was booked of one that was placed. Its endpoints in out[], to be reaped when the booking names them no more. */
static void uncharge(const pdr_ledger *l, pdr_booking *b, int was_prefill, uint64_t now_ns, uint32_t out[2])
{
    if (was_prefill) leave_prefill(l, b, now_ns);
    l->head->rooms -= b->room ? (b->batch ? b->batch : 1) : 0;
    if (b->prefill != PDR_NONE && b->prefill != b->decode) {
        out[0] = l->registry->targets[b->prefill].endpoint;
        l->registry->endpoints[out[0]].bookings--;
    }
    if (b->decode != PDR_NONE) {
        pdr_target *t = &l->registry->targets[b->decode];
        t->d_tokens -= b->context_tokens;
        t->d_requests--;
        pdr_board_renew(l->registry, b->decode);
        out[1] = t->endpoint;
        l->registry->endpoints[out[1]].bookings--;
    }
}

static void reap(const pdr_ledger *l, const uint32_t endpoints[2])
{
    if (endpoints[0] != PDR_NONE) pdr_registry_reap(l->registry, endpoints[0]);
    if (endpoints[1] != PDR_NONE && endpoints[1] != endpoints[0]) pdr_registry_reap(l->registry, endpoints[1]);
}

void pdr_booking_free(const pdr_ledger *l, pdr_booking *b, uint64_t now_ns)
{
    uint32_t endpoints[2] = {PDR_NONE, PDR_NONE};
    int      was_placed = placed(b), was_prefill = in_prefill(b);
    pdr_booking_told(l, b);
    if (announced(b)) l->head->announced--;
    __atomic_store_n(&b->state, PDR_BOOKING_FREE, __ATOMIC_RELEASE);
    if (was_placed) uncharge(l, b, was_prefill, now_ns, endpoints);
    unlink_from_lease(l, b);
    l->head->bookings--;
    b->next = l->head->free_first;
    l->head->free_first = (uint32_t)(b - l->bookings);
    reap(l, endpoints);
}

void pdr_booking_withdraw(const pdr_ledger *l, pdr_booking *b, int code, uint64_t now_ns)
{
    uint32_t endpoints[2] = {PDR_NONE, PDR_NONE};
    b->refusal = code;
    b->ready_ns = now_ns;
    __atomic_store_n(&b->state, (uint32_t)PDR_BOOKING_REFUSED, __ATOMIC_RELEASE);
    uncharge(l, b, 1, now_ns, endpoints);
    b->prefill = b->decode = PDR_NONE;
    b->room = 0;
    reap(l, endpoints);
}

void pdr_booking_announce(const pdr_ledger *l, pdr_booking *b)
{
    pdr_lease *s = &l->leases[b->lease];
    b->told = 0;
    s->released++;
    l->head->announced++;
    if (!s->wake) {
        s->wake = 1;
        __atomic_fetch_add(&l->head->wakes, 1u, __ATOMIC_RELEASE);
    }
}

void pdr_booking_told(const pdr_ledger *l, pdr_booking *b)
{
    if (!announced(b) || b->told) return;
    b->told = 1;
    l->leases[b->lease].released--;
}

void pdr_booking_taken(const pdr_ledger *l, pdr_booking *b)
{
    pdr_booking_told(l, b);
    l->head->announced--;
    __atomic_store_n(&b->state, PDR_BOOKING_PREFILL, __ATOMIC_RELEASE);
}

/* ---- rebuilding and checking */

static void clear_sums(const pdr_ledger *l)
{
    const pdr_registry *g = l->registry;
    for (uint32_t i = 0; i < g->head->max_targets; i++) {
        pdr_target *t = &g->targets[i];
        t->work_us = t->tokens = t->d_tokens = 0;
        t->requests = t->d_requests = 0;
    }
    for (uint32_t i = 0; i < g->head->max_endpoints; i++) g->endpoints[i].bookings = 0;
    g->head->idle = 0;
    g->head->through_ns = 0;
    for (uint32_t i = 0; i < g->head->max_targets; i++) g->head->idle += g->listed[i];
    for (uint32_t i = 0; i < l->head->max_leases; i++) {
        l->leases[i].first = PDR_NONE;
        l->leases[i].bookings = l->leases[i].released = l->leases[i].wake = 0;
    }
    l->head->bookings = l->head->in_prefill = l->head->leases = l->head->announced = 0;
    __atomic_store_n(&l->head->wakes, 0u, __ATOMIC_RELAXED);
    l->head->rooms = 0;
    l->head->free_first = PDR_NONE;
}

/* A record half written when its process died: points nowhere sensible. Such a one is dropped. */
static int sound(const pdr_ledger *l, const pdr_booking *b)
{
    uint32_t targets = l->registry->head->max_targets;
    if (b->state > PDR_BOOKING_REFUSED || b->lease >= l->head->max_leases || !l->leases[b->lease].open) return 0;
    if (b->prefill != PDR_NONE && (b->prefill >= targets || !l->registry->taken[b->prefill])) return 0;
    if (b->decode != PDR_NONE && (b->decode >= targets || !l->registry->taken[b->decode])) return 0;
    return 1;
}

void pdr_ledger_rebuild(const pdr_ledger *l)
{
    clear_sums(l);
    l->head->owed = 1; /* who died may have been about to look for it */
    for (uint32_t i = 0; i < l->head->max_leases; i++) l->head->leases += l->leases[i].open ? 1 : 0;
    for (uint32_t i = l->head->max_bookings; i-- > 0;) {
        pdr_booking *b = &l->bookings[i];
        if (!placed(b)) { /* it was about to be placed, but was not; or its place was about to be given back, and is */
            b->prefill = b->decode = PDR_NONE;
            b->room = 0;
            b->alone = 0;
        }
        if (b->state != PDR_BOOKING_FREE && !sound(l, b)) b->state = PDR_BOOKING_FREE;
        if (b->state == PDR_BOOKING_FREE) {
            b->next = l->head->free_first;
            l->head->free_first = i;
            continue;
        }
        l->head->bookings++;
        link_to_lease(l, b);
        if (placed(b)) add_sums(l, b);
        if (announced(b)) pdr_booking_announce(l, b);
    }
}

/* One number that stands for a target's five sums: a linear mix, so that it can be added up booking by booking. */
static uint64_t mix(uint64_t work, uint64_t tokens, uint64_t requests, uint64_t d_tokens, uint64_t d_requests)
{
    return work + tokens * 0x9E3779B97F4A7C15u + requests * 0xBF58476D1CE4E5B9u + d_tokens * 0x94D049BB133111EBu +
           d_requests * 0xD6E8FEB86659FD93u;
}

static int check_sums(const pdr_ledger *l, uint64_t *scratch, char *why, size_t cap)
{
    const pdr_registry *g = l->registry;
    memset(scratch, 0, g->head->max_targets * sizeof *scratch);
    for (uint32_t k = 0; k < l->head->max_bookings; k++) {
        const pdr_booking *b = &l->bookings[k];
        if (in_prefill(b) && b->prefill != PDR_NONE) scratch[b->prefill] += mix(b->work_us, b->uncached_tokens, 1, 0, 0);
        if (placed(b) && b->decode != PDR_NONE) scratch[b->decode] += mix(0, 0, 0, b->context_tokens, 1);
    }
    for (uint32_t i = 0; i < g->head->max_targets; i++) {
        const pdr_target *t = &g->targets[i];
        if (g->taken[i] && mix(t->work_us, t->tokens, t->requests, t->d_tokens, t->d_requests) != scratch[i])
            return snprintf(why, cap, "target %u: its sums (%u in prefill, %u in decode) are not those of its bookings", i, t->requests,
                            t->d_requests);
    }
    return 0;
}

static int check_lease(const pdr_ledger *l, uint32_t slot, uint32_t *linked, char *why, size_t cap)
{
    const pdr_lease *s = &l->leases[slot];
    uint32_t         n = 0, prev = PDR_NONE, untold = 0;
    if (!s->open) return s->bookings ? snprintf(why, cap, "lease %u: closed with %u bookings", slot, s->bookings) : 0;
    for (uint32_t i = s->first; i != PDR_NONE; prev = i, i = l->bookings[i].next) {
        if (i >= l->head->max_bookings || n++ > l->head->max_bookings) return snprintf(why, cap, "lease %u: its list is broken", slot);
        const pdr_booking *b = &l->bookings[i];
        if (b->state == PDR_BOOKING_FREE || b->lease != slot || b->prev != prev)
            return snprintf(why, cap, "lease %u: booking %u does not belong in its list", slot, i);
        untold += announced(b) && !b->told;
    }
    if (n != s->bookings) return snprintf(why, cap, "lease %u: %u bookings listed, %u counted", slot, n, s->bookings);
    if (untold != s->released) return snprintf(why, cap, "lease %u: %u are released and not told, %u counted", slot, untold, s->released);
    *linked += n;
    return 0;
}

int pdr_ledger_check(const pdr_ledger *l, uint64_t *scratch, char *why, size_t cap)
{
    uint32_t used = 0, prefill = 0, linked = 0, free_n = 0, open = 0, announced_n = 0;
    uint64_t rooms = 0;
    int      bad;
    for (uint32_t i = 0; i < l->head->max_bookings; i++) {
        const pdr_booking *b = &l->bookings[i];
        if (b->state == PDR_BOOKING_FREE) continue;
        if (!sound(l, b)) return snprintf(why, cap, "booking %u: not sound (state %u)", i, b->state);
        used++;
        prefill += in_prefill(b) && !b->aside ? 1 : 0;
        announced_n += announced(b) ? 1 : 0;
        if (placed(b) && b->room) rooms += b->batch ? b->batch : 1;
    }
    for (uint32_t i = l->head->free_first; i != PDR_NONE && free_n <= l->head->max_bookings; i = l->bookings[i].next) {
        if (i >= l->head->max_bookings || l->bookings[i].state != PDR_BOOKING_FREE) return snprintf(why, cap, "free list: booking %u is not free", i);
        free_n++;
    }
    for (uint32_t i = 0; i < l->head->max_leases; i++) {
        open += l->leases[i].open ? 1 : 0;
        if ((bad = check_lease(l, i, &linked, why, cap))) return bad;
    }
    if (used != l->head->bookings || linked != used || free_n != l->head->max_bookings - used || open != l->head->leases ||
        prefill != l->head->in_prefill || rooms != l->head->rooms)
        return snprintf(why, cap, "ledger: counts differ (used %u/%u, linked %u, free %u, leases %u/%u, in prefill %u/%u, rooms %llu/%llu)", used,
                        l->head->bookings, linked, free_n, open, l->head->leases, prefill, l->head->in_prefill, (unsigned long long)rooms,
                        (unsigned long long)l->head->rooms);
    if (announced_n != l->head->announced)
        return snprintf(why, cap, "ledger: %u are released or refused, %u counted", announced_n, l->head->announced);
    return check_sums(l, scratch, why, cap);
}
