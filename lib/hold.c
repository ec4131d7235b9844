#include "hold.h"

#include "rng.h"

#include <stdio.h>
#include <string.h>

enum { STEPS_PER_OCTAVE = 8, STEP_BITS = 3, SIZE_LEAST = 64, BUCKETS_LEAST = 64, FAIR_LEAST = 64 /* 1/16 */, FAIR_ALL = 1024, OLD_PART = 8 };
#define PDR_FAIR_HALF_NS 30000000000ull
#define TIME_MOST_US     (1ull << 32) /* 71 minutes */
#define TURN_OVERDUE_MOST (1ull << 61)

uint32_t pdr_hold_buckets(uint32_t max)
{
    uint32_t n = BUCKETS_LEAST;
    while (n < max && n < 1u << 30) n <<= 1;
    return n;
}

void pdr_hold_init(const pdr_hold *h, uint32_t max)
{
    memset(h->head, 0, sizeof *h->head);
    h->head->max = max;
    h->head->buckets = pdr_hold_buckets(max);
    for (uint32_t i = 0; i < max; i++) h->slots[i].booking = 0;
    pdr_hold_rebuild(h);
}

/* ---- lanes */

/* Number of the size step: eight to an octave, by the bits behind the first. */
static uint32_t step_of(uint64_t size_us)
{
    uint64_t v = size_us < SIZE_LEAST ? SIZE_LEAST : size_us < TIME_MOST_US ? size_us : TIME_MOST_US;
    uint32_t top = 63 - (uint32_t)__builtin_clzll(v);
    return top << STEP_BITS | (uint32_t)(v >> (top - STEP_BITS) & (STEPS_PER_OCTAVE - 1));
}

/* The least size of a step. */
static uint64_t size_of_step(uint32_t step)
{
    uint32_t top = step >> STEP_BITS;
    return 1ull << top | (uint64_t)(step & (STEPS_PER_OCTAVE - 1)) << (top - STEP_BITS);
}

static uint32_t inverse_of(uint32_t step) { return (uint32_t)((1ull << 31) / size_of_step(step)); }

static uint32_t account_of(uint64_t tenant) { return (uint32_t)(tenant ? pdr_mix64(tenant) % (PDR_TENANTS - 1) + 1 : 0); }

static uint32_t *bucket_of(const pdr_hold *h, int64_t priority, uint32_t account, uint32_t step)
{
    return &h->bucket[pdr_mix64((uint64_t)priority * 0x9E3779B97F4A7C15u ^ (uint64_t)account << 32 ^ step) & (h->head->buckets - 1)];
}

static uint32_t lane_for(const pdr_hold *h, const pdr_held *s)
{
    uint32_t account = account_of(s->tenant), step = step_of(s->size_us), *bucket = bucket_of(h, s->priority, account, step);
    for (uint32_t i = *bucket; i != PDR_NONE; i = h->lanes[i].chained)
        if (h->lanes[i].priority == s->priority && h->lanes[i].account == account && h->lanes[i].step == step) return i;
    uint32_t  at = h->head->lane_free; /* as many lanes as slots: there is one */
    pdr_lane *l = &h->lanes[at];
    h->head->lane_free = l->chained;
    *l = (pdr_lane){.priority = s->priority, .account = account, .step = step, .first = PDR_NONE, .last = PDR_NONE, .chained = *bucket,
                    .place = h->head->lanes, .cursor = PDR_NONE, .inverse = inverse_of(step)};
    *bucket = at;
    h->first.inverse[h->head->lanes] = l->inverse;
    h->active[h->head->lanes++] = at;
    h->head->unlike += s->priority != 0;
    return at;
}

static void drop_lane(const pdr_hold *h, uint32_t at)
{
    pdr_lane *l = &h->lanes[at];
    uint32_t *p = bucket_of(h, l->priority, l->account, l->step);
    while (*p != at) p = &h->lanes[*p].chained;
    *p = l->chained;
    uint32_t moved = h->active[--h->head->lanes];
    h->active[l->place] = moved;
    h->lanes[moved].place = l->place;
    h->first.came[l->place] = h->first.came[h->head->lanes];
    h->first.half[l->place] = h->first.half[h->head->lanes];
    h->first.inverse[l->place] = h->first.inverse[h->head->lanes];
    h->head->unlike -= l->priority != 0;
    l->chained = h->head->lane_free;
    h->head->lane_free = at;
}

static uint64_t half_ns_of(const pdr_held *s) { return s->deadline_ns > s->enqueued_ns ? s->enqueued_ns + (s->deadline_ns - s->enqueued_ns) / 2 : s->enqueued_ns; }

int pdr_held_is_old(const pdr_held *s, uint64_t now_ns) { return half_ns_of(s) <= now_ns; }

static void show_head(const pdr_hold *h, pdr_lane *l)
{
    const pdr_held *s = &h->slots[l->first];
    l->head_ns = s->enqueued_ns;
    l->head_sequence = s->sequence;
    l->head_half_ns = half_ns_of(s);
    h->first.came[l->place] = pdr_board_time(l->head_ns, 0);
    h->first.half[l->place] = l->head_half_ns;
}

static void join(const pdr_hold *h, uint32_t slot)
{
    pdr_held *s = &h->slots[slot];
    s->lane = lane_for(h, s);
    pdr_lane *l = &h->lanes[s->lane];
    s->prev = l->last;
    s->next = PDR_NONE;
    if (l->last != PDR_NONE)
        h->slots[l->last].next = slot;
    else
        l->first = slot;
    l->last = slot;
    l->work_us += s->size_us;
    if (!l->held++) show_head(h, l);
    h->head->ranked = 0;
    if (!h->head->account[l->account].held++) h->head->tenants++;
    h->head->held++;
    h->head->size_us += s->size_us;
    if (slot >= h->head->high) h->head->high = slot + 1;
}

static void leave(const pdr_hold *h, uint32_t slot)
{
    const pdr_held *s = &h->slots[slot];
    pdr_lane       *l = &h->lanes[s->lane];
    if (l->cursor == slot) l->cursor = s->next;
    if (slot != h->head->looked_at) h->head->ranked = 0; /* the heap may know it */
    if (s->prev != PDR_NONE)
        h->slots[s->prev].next = s->next;
    else
        l->first = s->next;
    if (s->next != PDR_NONE)
        h->slots[s->next].prev = s->prev;
    else
        l->last = s->prev;
    l->work_us -= s->size_us;
    h->head->held--;
    h->head->size_us -= s->size_us;
    if (!--h->head->account[l->account].held && --h->head->tenants < 2) h->head->ranked = 0; /* fairness ends in the middle of a pass */
    if (--l->held)
        show_head(h, l);
    else
        drop_lane(h, s->lane);
}

/* ---- slots */

uint32_t pdr_hold_add(const pdr_hold *h, const pdr_job *job, const uint64_t *hashes, size_t n)
{
    uint32_t at = h->head->free_first;
    if (at == PDR_NONE) return PDR_NONE;
    pdr_held *s = &h->slots[at];
    uint32_t  next = s->next;
    memset(s, 0, offsetof(pdr_held, sample));
    s->job = *job;
    s->home = PDR_NONE;
    s->sequence = ++h->head->sequence;
    s->blocks = (uint32_t)n;
    s->samples = n < PDR_HELD_SAMPLES ? (uint32_t)n : PDR_HELD_SAMPLES;
    for (uint32_t i = 0; i < s->samples; i++) s->sample[i] = hashes[pdr_held_depth(s, i + 1) - 1];
    h->head->free_first = next;
    return at;
}

void pdr_hold_commit(const pdr_hold *h, uint32_t slot, uint64_t booking)
{
    __atomic_store_n(&h->slots[slot].booking, booking, __ATOMIC_RELEASE);
    join(h, slot);
}

void pdr_hold_remove(const pdr_hold *h, uint32_t slot)
{
    pdr_held *s = &h->slots[slot];
    if (s->booking) {
        __atomic_store_n(&s->booking, 0, __ATOMIC_RELEASE);
        leave(h, slot);
    }
    s->next = h->head->free_first;
    h->head->free_first = slot;
    while (h->head->high && !h->slots[h->head->high - 1].booking) h->head->high--;
}

/* At the same moments for all accounts, or shares would depend on when each was first charged. */
static uint64_t halves_of(const pdr_account *a, uint64_t now_ns) { return now_ns > a->served_ns ? now_ns / PDR_FAIR_HALF_NS - a->served_ns / PDR_FAIR_HALF_NS : 0; }

static uint64_t faded(const pdr_account *a, uint64_t now_ns)
{
    uint64_t halves = halves_of(a, now_ns);
    return halves < 64 ? a->served_us >> halves : 0;
}

static void fade(pdr_account *a, uint64_t now_ns)
{
    if (!halves_of(a, now_ns)) return;
    a->served_us = faded(a, now_ns);
    a->served_ns = now_ns;
}

/* Of one of so many tenants that were served `sum` together. Squared: it has to outweigh ages. */
static uint32_t fairness_of(uint64_t served_us, uint64_t tenants, uint64_t sum)
{
    uint64_t over = sum ? served_us * tenants * 1024 / sum : 0; /* 1024: just its share */
    uint32_t q10 = over <= 1024 ? FAIR_ALL : (uint32_t)(1024ull * 1024 * 1024 / over / over);
    return q10 < FAIR_LEAST ? FAIR_LEAST : q10;
}

void pdr_hold_waited(const pdr_hold *h, uint64_t us)
{
    if (us > h->head->longest_us) h->head->longest_us = us;
}

static void charge(pdr_account *a, uint64_t work_us, uint64_t now_ns)
{
    if (!a->served_ns) a->served_ns = now_ns;
    fade(a, now_ns);
    a->served_us += work_us < TIME_MOST_US ? work_us : TIME_MOST_US;
}

void pdr_hold_charge(const pdr_hold *h, uint64_t tenant, uint64_t work_us, uint64_t now_ns, int old)
{
    charge(&h->head->account[account_of(tenant)], work_us, now_ns);
    charge(&h->head->account[PDR_OF_ALL], work_us, now_ns);
    if (old) charge(&h->head->account[PDR_OF_OLD], work_us, now_ns);
}

/* ---- order */

void pdr_hold_pass(const pdr_hold *h, uint64_t now_ns)
{
    uint64_t sum = 0;
    h->head->pass++;
    h->head->ranked = 0;
    h->head->looked_at = PDR_NONE;
    h->head->wide = (uint32_t)pdr_least_is_wide();
    h->head->old_first = faded(&h->head->account[PDR_OF_OLD], now_ns) * OLD_PART <= faded(&h->head->account[PDR_OF_ALL], now_ns);
    if (h->head->tenants < 2) return; /* one tenant alone is always treated fairly */
    for (uint32_t i = 0; i < PDR_TENANTS; i++) {
        if (!h->head->account[i].held) continue;
        fade(&h->head->account[i], now_ns);
        sum += h->head->account[i].served_us;
    }
    for (uint32_t i = 0; i < PDR_TENANTS; i++) {
        pdr_account *a = &h->head->account[i];
        if (a->held) a->fairness_q10 = fairness_of(a->served_us, h->head->tenants, sum);
    }
}

typedef struct pdr_rank { int64_t priority; uint64_t overdue_ns, urgency, sequence; } pdr_rank;

static uint64_t capped(uint64_t us) { return us < TIME_MOST_US ? us : TIME_MOST_US; }

/* What is the same for all in a ranking. */
typedef struct pdr_order { uint64_t ageing_us, now_ns; int fair; } pdr_order;

static pdr_order order_of(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns) { return (pdr_order){capped(ageing_us), now_ns, h->head->tenants > 1}; }

/* overdue_ns: when half of its time was over, if it is; UINT64_MAX else. */
static inline pdr_rank rank(const pdr_hold *h, const pdr_order *o, const pdr_lane *l, uint64_t came_ns, uint64_t half_ns, uint64_t sequence)
{
    uint64_t t = o->ageing_us + capped(pdr_elapsed_us(o->now_ns, came_ns)), urgency = t * l->inverse >> 8, overdue = half_ns <= o->now_ns && h->head->old_first ? half_ns : UINT64_MAX;
    if (o->fair) {
        const pdr_account *a = &h->head->account[l->account];
        const uint32_t     fairness = a->held ? a->fairness_q10 : (uint32_t)FAIR_ALL;
        urgency = urgency / 1024 * fairness;
        if (fairness < FAIR_ALL) overdue = UINT64_MAX; /* else a flood that has stood for half of its time goes before everybody who comes */
    }
    return (pdr_rank){l->priority, overdue, urgency, sequence};
}

static inline int before(const pdr_rank *a, const pdr_rank *b)
{
    if (a->priority != b->priority) return a->priority > b->priority;
    if (a->overdue_ns != b->overdue_ns) return a->overdue_ns < b->overdue_ns;
    if (a->urgency != b->urgency) return a->urgency > b->urgency;
    return a->sequence < b->sequence;
}

static pdr_rank rank_as(const pdr_hold *h, const pdr_order *o, const pdr_lane *l, const pdr_held *s)
{
    return rank(h, o, l, s->enqueued_ns, half_ns_of(s), s->sequence);
}

static pdr_rank rank_of(const pdr_hold *h, const pdr_order *o, const pdr_lane *l, uint32_t slot) { return rank_as(h, o, l, &h->slots[slot]); }

/* A number that is less for whoever is before another of the same priority; equal ones are compared in full. */
static inline uint64_t turn_of(const pdr_rank *r)
{
    if (r->overdue_ns < TURN_OVERDUE_MOST) return r->overdue_ns;
    return r->overdue_ns != UINT64_MAX ? TURN_OVERDUE_MOST : PDR_LEAST_NOBODY - 1 - r->urgency; /* urgencies are less than 2^58 */
}

static pdr_rank rank_in_lane(const pdr_hold *h, const pdr_order *o, const pdr_lane *l)
{
    if (l->pass == h->head->pass) return rank_of(h, o, l, l->cursor);
    return rank(h, o, l, l->head_ns, l->head_half_ns, l->head_sequence);
}

/* The same for all lanes at once, where nobody was looked at in this pass, nobody has a priority, and one tenant has all. */
static uint32_t rank_all(const pdr_hold *h, const pdr_order *o, int wide)
{
    const pdr_turns_now now = {o->ageing_us, TIME_MOST_US, h->head->old_first ? o->now_ns : 0, pdr_board_time(o->now_ns, 0)};
    const uint32_t      n = h->head->lanes;
    pdr_turns_of(&h->first, n, &now, &h->turn, wide);
    memcpy(h->ranked, h->active, n * sizeof *h->ranked);
    return n;
}

/* Lane by lane: those of the highest priority with somebody who was not looked at in this pass. */
static uint32_t rank_each(const pdr_hold *h, const pdr_order *o)
{
    const uint64_t  pass = h->head->pass;
    const uint32_t  lanes = h->head->lanes, *active = h->active;
    uint64_t *const turn = h->turn.v;
    uint32_t *const ranked = h->ranked;
    int64_t         priority = INT64_MIN;
    uint32_t        n = 0;
    for (uint32_t i = 0; i < lanes; i++) {
        const pdr_lane *l = &h->lanes[active[i]];
        if (l->priority < priority || (l->pass == pass && l->cursor == PDR_NONE)) continue;
        if (l->priority > priority) {
            priority = l->priority;
            n = 0;
        }
        pdr_rank r = rank_in_lane(h, o, l);
        turn[n] = turn_of(&r);
        ranked[n++] = active[i];
    }
    for (uint32_t i = 0; i < n / PDR_LEAST_OF; i++) pdr_groups_renew(&h->turn, i, (int)h->head->wide);
    if (n % PDR_LEAST_OF) pdr_turns_end(&h->turn, n, (int)h->head->wide);
    return n;
}

static __attribute__((noinline)) void rank_lanes(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns)
{
    const pdr_order o = order_of(h, ageing_us, now_ns);
    const int       wide = (int)h->head->wide, alike = !o.fair && !h->head->unlike && h->head->looked_at == PDR_NONE && now_ns < TURN_OVERDUE_MOST;
    uint32_t        n = alike ? rank_all(h, &o, wide) : rank_each(h, &o);
    h->head->ranks = n;
    h->head->ranked = h->head->pass;
    h->head->behind = PDR_NONE;
}

/* Of those whose turn is in the same instant, the first in full. */
static __attribute__((noinline)) uint32_t first_of_level(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns, uint32_t group)
{
    const pdr_order o = order_of(h, ageing_us, now_ns);
    const uint32_t groups = pdr_hold_groups(h->head->ranks);
    const uint64_t least = h->turn.least[group];
    uint32_t       best = PDR_NONE;
    pdr_rank       first = {0, 0, 0, 0};
    for (; group < groups; group++) {
        if (h->turn.least[group] != least) continue;
        for (uint32_t mask = h->turn.mask[group]; mask; mask &= mask - 1) {
            uint32_t at = group * PDR_LEAST_OF + (uint32_t)__builtin_ctz(mask);
            pdr_rank r = rank_in_lane(h, &o, &h->lanes[h->ranked[at]]);
            if (best != PDR_NONE && before(&first, &r)) continue;
            best = at;
            first = r;
        }
    }
    return best;
}

/* Which of the ranked is next; PDR_NONE: all were looked at. */
static inline uint32_t first_turn(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns)
{
    int level;
    if (!h->head->ranks) return PDR_NONE;
    uint32_t group = pdr_groups_first(&h->turn, pdr_hold_groups(h->head->ranks), &level);
    if (h->turn.least[group] == PDR_LEAST_NOBODY) return PDR_NONE;
    if (__builtin_expect(level, 0)) return first_of_level(h, ageing_us, now_ns, group);
    return group * PDR_LEAST_OF + (uint32_t)__builtin_ctz(h->turn.mask[group]);
}

/* One of the ranked was looked at: when is the one behind it due? Asked only when somebody else is looked at, for the last look of a pass it is not known. */
static __attribute__((noinline)) void next_in_lane(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns, uint32_t at)
{
    const pdr_lane *l = &h->lanes[h->ranked[at]];
    uint64_t        turn = PDR_LEAST_NOBODY;
    if (l->cursor != PDR_NONE) {
        const pdr_order o = order_of(h, ageing_us, now_ns);
        pdr_rank        r = rank_of(h, &o, l, l->cursor);
        turn = turn_of(&r);
    }
    h->turn.v[at] = turn;
    pdr_groups_renew(&h->turn, at / PDR_LEAST_OF, (int)h->head->wide);
}

uint32_t pdr_hold_next(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns)
{
    pdr_hold_head *d = h->head;
    uint32_t       at = PDR_NONE;
    if (d->ranked == d->pass) {
        if (d->behind != PDR_NONE) next_in_lane(h, ageing_us, now_ns, d->behind);
        at = first_turn(h, ageing_us, now_ns);
    }
    if (at == PDR_NONE) { /* for the first time, after a change, or those of the next priority */
        rank_lanes(h, ageing_us, now_ns);
        at = first_turn(h, ageing_us, now_ns);
        if (at == PDR_NONE) return PDR_NONE;
    }
    pdr_lane *l = &h->lanes[h->ranked[at]];
    uint32_t  slot = l->pass == d->pass ? l->cursor : l->first;
    l->pass = d->pass;
    l->cursor = h->slots[slot].next;
    d->behind = at;
    d->looked_at = slot;
    return slot;
}

uint64_t pdr_hold_ahead_us(const pdr_hold *h, uint64_t size_us, int64_t priority)
{
    uint64_t work = 0;
    uint32_t step = step_of(size_us);
    for (uint32_t i = 0; i < h->head->lanes; i++) {
        const pdr_lane *l = &h->lanes[h->active[i]];
        if (l->priority > priority || (l->priority == priority && l->step <= step)) work += l->work_us;
    }
    return work;
}

uint64_t pdr_hold_ahead_of_us(const pdr_hold *h, uint64_t size_us, int64_t priority, uint64_t tenant, uint64_t half_us, uint64_t now_ns)
{
    const uint32_t     own = account_of(tenant), step = step_of(size_us), inverse = inverse_of(step);
    const pdr_account *accounts = h->head->account;
    const uint32_t     tenants = h->head->tenants + !accounts[own].held;
    uint64_t           sum = 0, work = 0, theirs = 0;
    if (tenants < 2) return pdr_hold_ahead_us(h, size_us, priority);
    for (uint32_t i = 0; i < PDR_TENANTS; i++) sum += accounts[i].held || i == own ? faded(&accounts[i], now_ns) : 0;
    const uint64_t mine = fairness_of(faded(&accounts[own], now_ns), tenants, sum);
    for (uint32_t i = 0; i < h->head->lanes; i++) {
        const pdr_lane *l = &h->lanes[h->active[i]];
        const uint64_t  other = l->account == own ? mine : fairness_of(faded(&accounts[l->account], now_ns), tenants, sum);
        if (l->priority < priority || (l->priority == priority && (other == mine ? l->step > step : l->inverse * other < inverse * mine))) continue;
        if (l->priority == priority && mine == FAIR_ALL && other < FAIR_ALL)
            theirs += l->work_us;
        else
            work += l->work_us;
    }
    return work + (theirs < half_us ? theirs : half_us);
}

uint64_t pdr_hold_oldest_us(const pdr_hold *h, uint64_t now_ns)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < h->head->lanes; i++) {
        uint64_t us = pdr_elapsed_us(now_ns, h->lanes[h->active[i]].head_ns);
        if (us > most) most = us;
    }
    return most;
}

pdr_standing pdr_hold_standing(const pdr_hold *h, const pdr_held *s, uint64_t ageing_us, uint64_t now_ns)
{
    pdr_standing out = {0, 0};
    pdr_lane     own = {.priority = s->priority, .account = account_of(s->tenant), .step = step_of(s->size_us)};
    own.inverse = inverse_of(own.step);
    const pdr_order order = order_of(h, ageing_us, now_ns);
    pdr_rank        mine = rank_as(h, &order, &own, s);
    for (uint32_t i = 0; i < h->head->high; i++) {
        const pdr_held *o = &h->slots[i];
        if (!o->booking || o == s) continue;
        const pdr_lane *l = &h->lanes[o->lane];
        int             first = o->sequence < s->sequence; /* within a lane */
        if (l->priority != own.priority || l->account != own.account || l->step != own.step) {
            pdr_rank r = rank_as(h, &order, l, o);
            first = before(&r, &mine);
        }
        out.place += (uint32_t)first;
        out.ahead_us += first ? o->size_us : 0;
    }
    return out;
}

uint32_t pdr_held_depth(const pdr_held *s, uint32_t sample_depth)
{
    return s->samples ? (uint32_t)((uint64_t)sample_depth * s->blocks / s->samples) : 0;
}

/* ---- after a death */

/* Sifts down in a heap of slots, the latest that came on top. */
static void sift(const pdr_hold *h, uint32_t *heap, uint32_t n, uint32_t i)
{
    uint32_t x = heap[i];
    for (uint32_t k; (k = i * 2 + 1) < n; i = k) {
        if (k + 1 < n && h->slots[heap[k + 1]].sequence > h->slots[heap[k]].sequence) k++;
        if (h->slots[heap[k]].sequence <= h->slots[x].sequence) break;
        heap[i] = heap[k];
    }
    heap[i] = x;
}

void pdr_hold_rebuild(const pdr_hold *h)
{
    pdr_hold_head *d = h->head;
    uint32_t      *order = h->active, n = 0; /* as long as no lane is in use */
    d->held = d->high = d->lanes = d->tenants = d->ranks = 0;
    d->ranked = 0;
    d->looked_at = PDR_NONE;
    d->size_us = d->unlike = 0;
    d->free_first = d->lane_free = PDR_NONE;
    for (uint32_t i = 0; i < PDR_TENANTS; i++) d->account[i].held = 0;
    for (uint32_t i = 0; i < d->buckets; i++) h->bucket[i] = PDR_NONE;
    for (uint32_t i = d->max; i-- > 0;) {
        h->lanes[i].chained = d->lane_free;
        d->lane_free = i;
        if (h->slots[i].booking) {
            order[n++] = i;
            continue;
        }
        h->slots[i].next = d->free_first;
        d->free_first = i;
    }
    for (uint32_t i = n / 2; i-- > 0;) sift(h, order, n, i);
    for (uint32_t left = n; left-- > 0;) { /* in place: the latest to the end */
        uint32_t latest = order[0];
        order[0] = order[left];
        if (left) sift(h, order, left, 0);
        order[left] = latest;
    }
    for (uint32_t i = 0; i < n; i++) { /* a lane's number is written to active[] at most where order was read already */
        uint32_t slot = order[i];
        join(h, slot);
    }
}

int pdr_hold_check(const pdr_hold *h, char *why, size_t cap)
{
    uint32_t held = 0, free_n = 0, laned = 0;
    uint64_t size = 0, unlike = 0;
    for (uint32_t i = 0; i < h->head->max; i++) {
        const pdr_held *s = &h->slots[i];
        if (!s->booking) continue;
        held++;
        size += s->size_us;
        if (i >= h->head->high) return snprintf(why, cap, "queue: slot %u is used beyond the high mark", i);
        if (s->samples > PDR_HELD_SAMPLES) return snprintf(why, cap, "queue: slot %u has %u samples", i, s->samples);
        if (s->lane >= h->head->max || h->lanes[s->lane].priority != s->priority) return snprintf(why, cap, "queue: slot %u is in no lane of its own", i);
    }
    if (h->head->lanes > h->head->max) return snprintf(why, cap, "queue: %u lanes", h->head->lanes);
    for (uint32_t i = 0; i < h->head->lanes; i++) {
        uint32_t at = h->active[i], n = 0, prev = PDR_NONE;
        if (at >= h->head->max || h->lanes[at].place != i) return snprintf(why, cap, "queue: lane %u is not in its place", at);
        const pdr_lane *l = &h->lanes[at];
        unlike += l->priority != 0;
        if (h->first.came[i] != pdr_board_time(l->head_ns, 0) || h->first.half[i] != l->head_half_ns || h->first.inverse[i] != l->inverse)
            return snprintf(why, cap, "queue: what is ranked of lane %u is not what it has", at);
        for (uint32_t k = h->lanes[at].first; k != PDR_NONE; prev = k, k = h->slots[k].next)
            if (k >= h->head->max || !h->slots[k].booking || h->slots[k].lane != at || h->slots[k].prev != prev || ++n > h->lanes[at].held)
                return snprintf(why, cap, "queue: lane %u is broken at slot %u", at, k);
        if (!n || n != h->lanes[at].held || h->lanes[at].last != prev) return snprintf(why, cap, "queue: lane %u has %u, %u counted", at, n, h->lanes[at].held);
        laned += n;
    }
    for (uint32_t i = h->head->free_first; i != PDR_NONE && free_n <= h->head->max; i = h->slots[i].next) {
        if (i >= h->head->max || h->slots[i].booking) return snprintf(why, cap, "queue: free slot %u is in use", i);
        free_n++;
    }
    if (held != h->head->held || laned != held || size != h->head->size_us || unlike != h->head->unlike || free_n != h->head->max - held)
        return snprintf(why, cap, "queue: %u held, %u in lanes and %u free of %u; counted %u", held, laned, free_n, h->head->max, h->head->held);
    return 0;
}
