/* Public entry points: leases, time, routing, tickets. */
#include "router_decide.h"
#include "router_record.h"

#include <string.h>

enum { HASHES_ON_STACK = 4096, UNTAKEN_S = 5, UNHEARD_S = 60, SECOND_NS = 1000000000 };

/* ---- leases and time */

int pdr_lease_open(pdr_router *r, const char *name, uint64_t now_ns, uint32_t *lease, pdr_error *err)
{
    pdr_books b;
    if (!lease) return pdr_fail(err, PDR_E_INVALID, "lease is NULL");
    int code = pdr_books_lock(&b, r, now_ns);
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    code = pdr_lease_new(&b.ledger, name, b.now_ns, lease);
    if (code) pdr_fail(err, code, "the table of leases is full (max_leases %u)", r->config.max_leases);
    return pdr_books_unlock(&b, code, err);
}

int pdr_lease_renew(pdr_router *r, uint32_t lease, uint64_t now_ns)
{
    pdr_books b;
    int       code = pdr_books_lock(&b, r, now_ns);
    if (code) return code;
    pdr_lease *s = pdr_lease_at(&b.ledger, lease, NULL);
    if (s) s->beat_ns = b.now_ns;
    return pdr_books_unlock(&b, s ? PDR_OK : PDR_E_LEASE, NULL);
}

static void end_lease(pdr_books *b, uint32_t slot)
{
    while (b->ledger.leases[slot].first != PDR_NONE) pdr_give_back(b, &b->ledger.bookings[b->ledger.leases[slot].first]);
    pdr_lease_end(&b->ledger, slot);
}

int pdr_lease_break(pdr_router *r, uint32_t lease, uint64_t now_ns)
{
    pdr_books b;
    uint32_t  slot;
    int       code = pdr_books_lock(&b, r, now_ns);
    if (code) return code;
    if (pdr_lease_at(&b.ledger, lease, &slot)) {
        end_lease(&b, slot);
        pdr_release_held(&b);
    } else {
        code = PDR_E_LEASE;
    }
    return pdr_books_unlock(&b, code, NULL);
}

static void expire_held(pdr_books *b)
{
    for (uint32_t i = 0; i < b->hold.head->high; i++) {
        const pdr_held *s = &b->hold.slots[i];
        if (s->booking && s->deadline_ns <= b->now_ns) pdr_refuse_held(b, pdr_booking_at(&b->ledger, s->booking), PDR_E_EXPIRED);
    }
}

/*
 * A released place that its owner does not fetch blocks a worker. If the owner has been told, it has forgotten it. If not, its process is stopped, or could not have the lock, and will look
 * when it goes on: until then its ticket says that it is to ask anew, and costs nobody anything but a booking's memory.
 */
static int untaken(pdr_books *b, const pdr_booking *k)
{
    const int refused = k->state == PDR_BOOKING_REFUSED;
    if (!refused && k->state != PDR_BOOKING_READY) return 0;
    return k->ready_ns + (refused && !k->told ? UNHEARD_S : UNTAKEN_S) * (uint64_t)SECOND_NS < b->now_ns;
}

static void expire_untaken(pdr_books *b)
{
    for (uint32_t i = 0; i < b->r->config.max_leases && b->ledger.head->announced; i++) {
        const pdr_lease *s = &b->ledger.leases[i];
        if (!s->open) continue;
        for (uint32_t k = s->first, next; k != PDR_NONE; k = next) {
            pdr_booking *booking = &b->ledger.bookings[k];
            next = booking->next;
            if (!untaken(b, booking)) continue;
            if (booking->state == PDR_BOOKING_READY && !booking->told)
                pdr_booking_withdraw(&b->ledger, booking, PDR_E_NOT_FOUND, b->now_ns);
            else
                pdr_give_back(b, booking);
        }
    }
}

/* What engines said too long ago counts no more: only our own books do. */
static void forget_stale_reports(pdr_books *b)
{
    uint64_t stale_ns = b->r->config.metrics_stale_ms * 1000000ull;
    for (uint32_t i = 0; i < b->r->config.max_targets; i++) {
        pdr_target *t = &b->registry.targets[i];
        if (!b->registry.taken[i] || b->registry.infos[i].report_ns + stale_ns > b->now_ns) continue;
        t->foreign_us = t->d_foreign_tokens = 0;
        t->d_foreign_requests = 0;
        pdr_board_renew(&b->registry, i);
    }
}

/* What owners wanted to write while a stopped process had the lock. */
static void settle_owed(pdr_books *b)
{
    pdr_booking *k;
    uint32_t     slot = 0, what;
    while ((k = pdr_ledger_owed(&b->ledger, &slot, &what))) {
        const uint64_t id = pdr_booking_id(&b->ledger, k);
        if (what & PDR_OWED_PREFILLED) {
            pdr_booking_prefilled(&b->ledger, k, b->now_ns);
            pdr_record_ended(b, id, PDR_ENDED_PREFILL, 0, 0, 0);
        }
        if (!(what & PDR_OWED_BACK)) continue;
        pdr_give_back(b, k);
        if (what & PDR_OWED_DONE) pdr_record_ended(b, id, PDR_ENDED_ALL, 0, 0, 0);
        b->r->stats.cancelled += (what & PDR_OWED_CANCELLED) != 0;
        b->r->stats.finished += (what & PDR_OWED_ANSWERED) != 0;
        b->r->stats.failed += (what & PDR_OWED_FAILED) != 0;
    }
}

int pdr_owe(pdr_router *r, uint64_t booking, uint32_t what, int code)
{
    pdr_books b;
    if (code != PDR_E_BUSY) return code;
    pdr_books_open(&b, r);
    pdr_booking_owe(&b.ledger, booking, what);
    return PDR_OK;
}

int pdr_tick(pdr_router *r, uint64_t now_ns)
{
    pdr_books b;
    int       code = pdr_books_lock(&b, r, now_ns);
    if (code) return code;
    for (uint32_t i = 0; i < r->config.max_leases; i++) {
        const pdr_lease *s = &b.ledger.leases[i];
        if (!s->open || s->beat_ns + r->config.lease_ttl_ms * 1000000ull >= b.now_ns) continue;
        end_lease(&b, i);
        r->stats.leases_expired++;
    }
    settle_owed(&b);
    forget_stale_reports(&b);
    pdr_relax_speeds(&b);
    if (b.hold.head->held) expire_held(&b);
    if (b.ledger.head->announced) expire_untaken(&b);
    pdr_release_held(&b);
    return pdr_books_unlock(&b, code, NULL);
}

/* ---- routing */

static int hold(pdr_books *b, const pdr_ask *a, uint32_t lease, pdr_booking **out, pdr_decision *refusal, pdr_error *err)
{
    pdr_terms terms = pdr_terms_of(b, a);
    if (pdr_admit(b, &terms, &refusal->retry_after_ms)) {
        b->r->stats.refused_queue_full++;
        return pdr_fail(err, PDR_E_QUEUE_FULL, "all workers are busy and %u requests are held already", b->hold.head->held);
    }
    uint32_t slot = pdr_hold_add(&b->hold, &a->job, a->hashes, a->n);
    pdr_booking *k = pdr_booking_new(&b->ledger, lease);
    if (!k) {
        pdr_hold_remove(&b->hold, slot);
        return pdr_fail(err, PDR_E_FULL, "the table of bookings is full (max_bookings %u)", b->r->config.max_bookings);
    }
    pdr_held *s = &b->hold.slots[slot];
    s->enqueued_ns = k->enqueued_ns = b->now_ns;
    s->deadline_ns = terms.deadline_ns;
    s->priority = terms.priority;
    s->size_us = terms.size_us;
    s->single_only = a->single_only ? 1 : 0;
    s->home = b->home;
    s->tenant = a->request.tenant;
    k->prompt_bytes = a->prompt->flags & PDR_PROMPT_TOKENS ? 0 : a->prompt->prompt_bytes;
    k->prompt_tokens = a->job.prompt_tokens;
    k->held = slot;
    pdr_hold_commit(&b->hold, slot, pdr_booking_id(&b->ledger, k));
    *out = k;
    return PDR_OK;
}

static int send_now(pdr_books *b, const pdr_ask *a, uint32_t lease, const pdr_choice *choice, pdr_booking **out, pdr_error *err)
{
    pdr_booking *k = pdr_booking_new(&b->ledger, lease);
    if (!k) return pdr_fail(err, PDR_E_FULL, "the table of bookings is full (max_bookings %u)", b->r->config.max_bookings);
    k->prompt_bytes = a->prompt->flags & PDR_PROMPT_TOKENS ? 0 : a->prompt->prompt_bytes;
    int code = pdr_book(b, k, &a->job, choice, a->hashes, a->n, PDR_BOOKING_PREFILL);
    if (code) {
        pdr_booking_free(&b->ledger, k, b->now_ns);
        return pdr_fail(err, code, "no bootstrap room can be allocated");
    }
    pdr_hold_charge(&b->hold, a->request.tenant, k->work_us, b->now_ns, 0);
    *out = k;
    return PDR_OK;
}

/* The locked part: `d` has the caller's struct_size saved elsewhere and is filled in whole. */
static int decide_locked(pdr_books *b, pdr_ask *a, pdr_decision *d, pdr_error *err)
{
    uint32_t     lease = 0;
    pdr_choice   choice;
    pdr_booking *k = NULL;
    int          dry = (a->request.flags & PDR_REQUEST_DRY) != 0;
    pdr_lease   *owner = pdr_lease_at(&b->ledger, a->request.lease, &lease);
    if (!owner && !dry) return pdr_fail(err, PDR_E_LEASE, "lease %u is unknown or has expired", a->request.lease);
    int code = pdr_decide(b, a, &choice, &d->retry_after_ms, err);
    if (dry) {
        if (!code) pdr_decision_dry(b, a, &choice, d);
        return code;
    }
    owner->beat_ns = b->now_ns;
    pdr_log_entry *record = pdr_log_begin(b, &a->job, code ? NULL : &choice);
    pdr_pen        pen;
    int            recording = pdr_recording(b);
    if (recording) pdr_record_ask(b, a, &pen);
    uint32_t       outcome = PDR_SEND;
    if (code) {
        b->r->stats.refused_no_pair++;
    } else if (pdr_must_wait(b, a, &choice)) {
        outcome = PDR_HELD;
        code = hold(b, a, lease, &k, d, err);
        if (!code) b->r->stats.held++;
    } else {
        code = send_now(b, a, lease, &choice, &k, err);
    }
    if (!code) b->r->stats.routed++;
    if (!a->request.excluded && b->r->retry_credit < PDR_RETRY_RESERVE) b->r->retry_credit += b->r->config.retry_budget_permille;
    if (!code && a->request.excluded) b->r->stats.retried++;
    pdr_log_end(b, record, k, code ? (uint32_t)code : outcome, a->request.lease, a->request.excluded);
    if (recording) pdr_record_decided(b, &pen, &choice, code ? code : (int)outcome, k);
    if (code) return code;
    if (outcome == PDR_HELD) {
        pdr_release_held(b); /* it may be its turn at once */
        if (k->state == PDR_BOOKING_READY) {
            pdr_booking_taken(&b->ledger, k);
            pdr_remember(b, k, a->hashes, a->n);
            outcome = PDR_SEND;
        } else if (k->state == PDR_BOOKING_REFUSED) {
            pdr_give_back(b, k);
            return pdr_fail(err, PDR_E_NO_PAIR, "no pair is usable");
        }
    }
    if (outcome == PDR_SEND) {
        pdr_decision_of(b, k, d);
    } else {
        d->outcome = PDR_HELD;
        d->booking = pdr_booking_id(&b->ledger, k);
        d->prompt_tokens = k->prompt_tokens;
        d->prefill = d->decode = d->prefill_rank = d->decode_rank = PDR_NONE;
    }
    return PDR_OK;
}

/* What is read before the struct is taken in whole, at whatever size it has. */
static int check_request(const pdr_request *q, pdr_error *err)
{
    if (!q) return pdr_fail(err, PDR_E_INVALID, "request is NULL");
    return pdr_struct_ok(q, offsetof(pdr_request, deadline_ns)) ? PDR_OK : pdr_fail(err, PDR_E_VERSION, "the request's struct_size is not set");
}

int pdr_route_prompt(pdr_router *r, const pdr_prompt *prompt, const uint64_t *hashes, size_t n, const pdr_request *request,
                     pdr_decision *out, pdr_error *err)
{
    pdr_books    b;
    pdr_ask      ask;
    pdr_decision own;
    int          code;
    if (!pdr_struct_ok(out, sizeof(uint32_t))) return pdr_fail(err, PDR_E_INVALID, "the decision's struct_size is not set");
    if ((code = check_request(request, err))) return code;
    pdr_decision *const d = out->struct_size == sizeof own ? out : &own; /* the caller's struct is ours: nothing to copy */
    memset(d, 0, offsetof(pdr_decision, prefill_host));
    d->first_byte_us = d->answer_us = d->idle_us = 0;
    d->struct_size = sizeof own;
    d->prefill_host[0] = d->decode_host[0] = d->bootstrap_host[0] = 0;
    code = pdr_books_lock(&b, r, request->now_ns);
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    code = pdr_ask_make(&b, prompt, hashes, n, request, &ask, err);
    if (!code) code = decide_locked(&b, &ask, d, err);
    code = pdr_books_unlock(&b, code, err);
    if (d != out) pdr_struct_out(out, d, sizeof *d, NULL);
    return code;
}

static void limits_of(const pdr_router *r, pdr_limits *limits)
{
    *limits = (pdr_limits){sizeof *limits, r->config.block_bytes, r->config.max_blocks, r->config.max_depth, r->config.max_batch, 0, r->config.max_body};
}

int pdr_route(pdr_router *r, const char *body, size_t len, const pdr_request *request, pdr_prompt *prompt, pdr_decision *out, pdr_error *err)
{
    uint64_t   hashes[HASHES_ON_STACK];
    pdr_prompt own;
    pdr_limits limits;
    int        code;
    if (!r) return pdr_fail(err, PDR_E_INVALID, "router is NULL");
    if ((code = check_request(request, err))) return code;
    if (prompt && !pdr_struct_ok(prompt, offsetof(pdr_prompt, object))) return pdr_fail(err, PDR_E_VERSION, "the prompt's struct_size is not set");
    limits_of(r, &limits);
    if (!prompt) {
        own.struct_size = sizeof own;
        prompt = &own;
    }
    size_t cap = limits.max_blocks < HASHES_ON_STACK ? limits.max_blocks : HASHES_ON_STACK;
    code = pdr_scan(body, len, request->api, &limits, prompt, hashes, cap, err);
    if (code) return code;
    return pdr_route_prompt(r, prompt, hashes, prompt->blocks, request, out, err);
}

/* ---- tickets */

int pdr_ticket_take(pdr_router *r, uint64_t ticket, const uint64_t *hashes, size_t n, uint64_t now_ns, pdr_decision *out, pdr_error *err)
{
    pdr_books    b;
    pdr_decision d;
    if (!pdr_struct_ok(out, sizeof(uint32_t))) return pdr_fail(err, PDR_E_INVALID, "the decision's struct_size is not set");
    int code = pdr_books_lock(&b, r, now_ns);
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    pdr_booking *k = pdr_booking_at(&b.ledger, ticket);
    memset(&d, 0, sizeof d);
    if (!k) {
        code = pdr_fail(err, PDR_E_NOT_FOUND, "no such ticket");
    } else if (k->state == PDR_BOOKING_HELD) {
        code = pdr_fail(err, PDR_E_AGAIN, "still held");
    } else if (k->state == PDR_BOOKING_REFUSED) {
        code = pdr_fail(err, k->refusal, "%s", pdr_strerror(k->refusal));
        d.retry_after_ms = pdr_backlog_ms(&b) + 1;
        pdr_give_back(&b, k);
    } else if (k->state == PDR_BOOKING_READY) {
        pdr_booking_taken(&b.ledger, k);
        pdr_remember(&b, k, hashes, n < r->config.max_blocks ? n : r->config.max_blocks);
        pdr_decision_of(&b, k, &d);
    } else {
        code = pdr_fail(err, PDR_E_NOT_FOUND, "the ticket was taken before");
    }
    code = pdr_books_unlock(&b, code, err);
    pdr_struct_out(out, &d, sizeof d, NULL);
    return code;
}

int pdr_ticket_cancel(pdr_router *r, uint64_t ticket, uint64_t now_ns)
{
    pdr_books b;
    int       code = pdr_books_lock(&b, r, now_ns);
    if (code) return pdr_owe(r, ticket, PDR_OWED_BACK | PDR_OWED_CANCELLED, code);
    pdr_booking *k = pdr_booking_at(&b.ledger, ticket);
    if (k) {
        pdr_give_back(&b, k);
        b.r->stats.cancelled++;
        pdr_release_held(&b);
    }
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_released(pdr_router *r, uint32_t lease, uint64_t *tickets, size_t *n)
{
    pdr_books b;
    uint32_t  slot;
    size_t    cap = n ? *n : 0;
    if (!n || (!tickets && cap)) return PDR_E_INVALID;
    *n = 0;
    int code = pdr_books_lock(&b, r, 0);
    if (code) return code;
    pdr_lease *s = pdr_lease_at(&b.ledger, lease, &slot);
    if (!s) {
        code = PDR_E_LEASE;
    } else {
        for (uint32_t i = s->first; i != PDR_NONE && s->released && *n < cap; i = b.ledger.bookings[i].next) {
            pdr_booking *k = &b.ledger.bookings[i];
            if ((k->state != PDR_BOOKING_READY && k->state != PDR_BOOKING_REFUSED) || k->told) continue;
            pdr_booking_told(&b.ledger, k);
            tickets[(*n)++] = pdr_booking_id(&b.ledger, k);
        }
        if (!s->released) pdr_lease_woken(&b.ledger, s);
    }
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_wakeups(pdr_router *r, uint32_t *leases, size_t *n)
{
    pdr_books b;
    size_t    cap = n ? *n : 0;
    if (!r || !n || (!leases && cap)) return PDR_E_INVALID;
    *n = 0;
    const pdr_ledger_head *head = (const pdr_ledger_head *)(const void *)((const char *)r + r->offset[PDR_REGION_LEDGER]);
    if (!__atomic_load_n(&head->wakes, __ATOMIC_ACQUIRE)) return PDR_OK;
    int code = pdr_books_lock(&b, r, 0);
    if (code) return code;
    for (uint32_t i = 0; i < r->config.max_leases && *n < cap; i++) {
        pdr_lease *s = &b.ledger.leases[i];
        if (!s->open || !s->wake) continue;
        pdr_lease_woken(&b.ledger, s);
        leases[(*n)++] = pdr_lease_id(&b.ledger, i);
    }
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_booking_done(pdr_router *r, uint64_t booking, uint32_t what, uint64_t now_ns)
{
    pdr_books b;
    if (what != PDR_DONE_PREFILL && what != PDR_DONE_ALL) return PDR_E_INVALID;
    int code = pdr_books_lock(&b, r, now_ns);
    if (code) return pdr_owe(r, booking, what == PDR_DONE_PREFILL ? PDR_OWED_PREFILLED : PDR_OWED_BACK | PDR_OWED_DONE, code);
    pdr_booking *k = pdr_booking_at(&b.ledger, booking);
    if (!k) {
        code = PDR_E_NOT_FOUND;
    } else {
        if (what == PDR_DONE_PREFILL)
            pdr_booking_prefilled(&b.ledger, k, b.now_ns);
        else
            pdr_give_back(&b, k);
        pdr_record_ended(&b, booking, what == PDR_DONE_PREFILL ? PDR_ENDED_PREFILL : PDR_ENDED_ALL, 0, 0, 0);
        pdr_release_held(&b);
    }
    return pdr_books_unlock(&b, code, NULL);
}
