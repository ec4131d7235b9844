/*
 * Passes over the queue: who is released, where to, in what order. docs/scheduling.md has the reasons.
 *
 * Held requests are looked at in the queue's order. Each gets the pair of least cost, where work that this pass has planned for at a target counts as
 * wait. It goes if its target has nothing outstanding and nothing is planned there before it; else its work is planned there and it stays: a request that
 * waits for its holder blocks nobody. Into a step opened in this very pass further small ones are batched: when m requests are in it, one more delays them by
 * its own time beyond the fixed part, and saves the fixed part for itself, everybody behind it, and as many again who come meanwhile. Where other gateways send, too, their
 * requests share the step.
 */
#include "router_record.h"
#include "router_replay.h"

#include <string.h>

/*
 * Requests looked at in a row without one that goes: fewer in a large fleet, where each look compares more servers; and few where no server is left that has nothing to do, only steps that were
 * opened in this pass: what still goes into those is small, and small ones come first (under policies that are no expected time anybody may be next).
 */
enum { LOOK_MOST = 64, LOOK_LEAST = 4, LOOK_SERVERS = 4096, LOOK_INTO_STEPS = 4 };

void pdr_refuse_held(pdr_books *b, pdr_booking *k, int code)
{
    uint32_t slot = k->held;
    if (!b->passing) pdr_record_removed(b, pdr_booking_id(&b->ledger, k), code);
    k->refusal = code;
    k->ready_ns = b->now_ns;
    /* the state first: a kill behind it leaves a refusal that its owner will hear of, never a ticket that is gone */
    __atomic_store_n(&k->state, (uint32_t)PDR_BOOKING_REFUSED, __ATOMIC_RELEASE);
    k->held = PDR_NONE;
    pdr_hold_remove(&b->hold, slot);
    pdr_booking_announce(&b->ledger, k);
    if (code == PDR_E_EXPIRED)
        b->r->stats.expired++;
    else
        b->r->stats.refused_no_pair++;
}

void pdr_give_back(pdr_books *b, pdr_booking *k)
{
    uint32_t slot = k->held;
    int      held = k->state == PDR_BOOKING_HELD;
    if (held && slot != PDR_NONE) pdr_record_removed(b, pdr_booking_id(&b->ledger, k), PDR_OK);
    pdr_booking_free(&b->ledger, k, b->now_ns);
    if (held && slot != PDR_NONE) pdr_hold_remove(&b->hold, slot);
}

uint64_t pdr_ageing_us(const pdr_books *b)
{
    uint64_t us = b->r->config.hold_ageing_ms * 1000ull;
    if (!us) us = PDR_AND_THOSE_WHO_COME * (b->passing && b->apart ? (pdr_crowded(b->registry.head, b->hold.head->size_us) + b->waits.sum_us) / b->registry.head->prefill_n : pdr_backlog_us(b));
    return us ? us : 1;
}

/* Fills depth[], which is all zero before. */
static void match_sample(pdr_books *b, const pdr_held *s)
{
    b->home = PDR_NONE;
    if (s->samples && (s->blocks >= 2 * s->samples || pdr_index_may_know(b->index, s->sample[0]))) { /* mostly not */
        b->holding = pdr_index_match_sample(b->index, s->sample, s->samples, s->blocks, b->depth, b->holders);
        for (uint32_t i = 0; i < b->holding; i++) {
            uint32_t w = b->holders[i];
            if (b->registry.listed[w]) b->depth[w] = (uint16_t)pdr_held_depth(s, b->depth[w]);
        }
    }
    if (__builtin_expect(s->home != PDR_NONE, 0)) pdr_expect_home(b, s);
}

static void forget_match(pdr_books *b)
{
    for (uint32_t i = 0; i < b->holding; i++) b->depth[b->holders[i]] = 0;
    b->holding = 0;
}

static int release(pdr_books *b, pdr_booking *k, uint32_t slot, const pdr_choice *choice, uint64_t work_us)
{
    const pdr_job *job = &b->hold.slots[slot].job; /* nobody writes there before it has left */
    uint64_t       tenant = b->hold.slots[slot].tenant;
    int            old = pdr_held_is_old(&b->hold.slots[slot], b->now_ns);
    pdr_log_entry *record = pdr_log_begin(b, job, choice);
    k->ready_ns = b->now_ns;
    if (pdr_book(b, k, job, choice, NULL, 0, PDR_BOOKING_READY)) return -1; /* stays held: no rooms left, which its deadline will tell */
    k->held = PDR_NONE; /* not before: a kill in pdr_book leaves it held */
    pdr_hold_remove(&b->hold, slot);
    pdr_hold_charge(&b->hold, tenant, work_us, b->now_ns, old);
    pdr_hold_waited(&b->hold, pdr_elapsed_us(b->now_ns, k->enqueued_ns));
    pdr_booking_announce(&b->ledger, k);
    b->r->stats.released++;
    pdr_log_end(b, record, k, PDR_SEND, pdr_lease_id(&b->ledger, k->lease), 0);
    return 0;
}

/* The time of the fixed part of a step at this target. */
static uint64_t base_us(const pdr_books *b, const pdr_target *t) { return pdr_scale_q10(b->r->rates.base_us, t->slowness_q10); }

static inline int gate_open(const pdr_books *b, uint32_t target)
{
    return pdr_open_for(&b->registry.targets[target], b->registry.head->foreseen, b->now_ns);
}

/* Whether a request may be sent to this target in this pass. */
static inline int takes(const pdr_books *b, uint32_t w, const pdr_prefill_terms *x)
{
    const pdr_target *t = &b->registry.targets[w];
    const pdr_step   *step = &b->steps[w];
    if (b->planned_us[w]) return 0;
    if (!step->requests) return gate_open(b, w);
    uint64_t base = base_us(b, t), more = x->work > base ? x->work - base : 0;
    if (step->tokens + x->uncached > b->r->config.hold_window_tokens) return 0;
    uint64_t loss = more * step->requests, gain = PDR_AND_THOSE_WHO_COME * (base + (base * b->queue_q10 >> 10)), crowd = b->registry.head->crowd_q10;
    if (__builtin_expect(crowd > 2 * PDR_CROWD_ALONE, 0)) { /* half of the others' requests are in that step, half in the one before it: they lose as well, and pay most of the fixed part */
        loss = loss * (crowd / 2) / PDR_CROWD_ALONE;
        gain = gain * PDR_CROWD_ALONE / (crowd / 2);
    }
    return loss < gain;
}

/* Targets that something could still go to in this pass; *through_ns: when the next of the others should be through. */
static uint32_t count_open(const pdr_books *b, const uint32_t *list, uint32_t n, uint64_t *through_ns)
{
    uint32_t open = 0, foreseen = b->registry.head->foreseen;
    for (uint32_t i = 0; i < n; i++) {
        const pdr_target *t = &b->registry.targets[list[i]];
        if (pdr_open_for(t, foreseen, b->now_ns)) {
            open += t->open_until_ns <= b->now_ns;
            if (t->requests) *through_ns = 0;
        } else if (t->requests == 1 && pdr_through_ns(t) < *through_ns) {
            *through_ns = pdr_through_ns(t);
        }
    }
    return open;
}

/* The same of those that are busy, by the board: how many are through as foreseen. */
static uint32_t count_late(const pdr_books *b, uint64_t *through_ns)
{
    const uint64_t *through = b->registry.board.through, now = b->now_ns;
    uint64_t        next = UINT64_MAX;
    uint32_t        open = 0, late = 0;
    for (uint32_t i = 0, n = b->registry.head->prefill_n; i < n; i++) {
        if (__builtin_expect(through[i] > now, 1)) {
            next = through[i] < next ? through[i] : next;
            continue;
        }
        open += b->registry.targets[b->registry.prefill[i]].open_until_ns <= now;
        late++;
    }
    *through_ns = late ? 0 : next;
    return open;
}

/*
 * A policy that is no expected time says nothing about waiting: it chooses among those that can take the request now, if there are any. Else one busy
 * server that happens to be next would stop everybody.
 */
#define NOT_NOW (1ull << 40) /* above all costs of such policies */
static uint32_t plan_around_busy(pdr_books *b, const pdr_job *job, const uint32_t *list, uint32_t n)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t w = list[i];
        int      take, was = b->planned_us[w] >= NOT_NOW;
        b->planned_us[w] = NOT_NOW;
        if (was && !b->steps[w].requests) continue; /* busy, and so for the whole pass */
        b->planned_us[w] = 0;
        if (__builtin_expect(b->steps[w].requests, 0)) {
            pdr_prefill_terms x = pdr_prefill_terms_of(&b->registry.targets[w], &b->r->rates, job, b->depth[w], 0, b->now_ns);
            take = takes(b, w, &x);
        } else {
            take = gate_open(b, w);
        }
        b->planned_us[w] = take ? 0 : NOT_NOW;
        taken += (uint32_t)take;
    }
    return taken;
}

static void touch(pdr_books *b, uint32_t w)
{
    if (b->apart && !b->planned_us[w] && !b->steps[w].requests) b->waits.touched[b->waits.touched_n++] = w;
}

static void booked_into_step(pdr_books *b, uint32_t w, const pdr_prefill_terms *x)
{
    touch(b, w);
    if (!b->steps[w].requests++ && b->free) b->free--;
    b->steps[w].tokens += x->uncached < UINT32_MAX / 2 ? (uint32_t)x->uncached : UINT32_MAX / 2;
}

/* It waits for that target: what it costs there counts for those behind it. */
static uint32_t stays(pdr_books *b, uint32_t w, const pdr_prefill_terms *x)
{
    if (b->last) return PDR_SERVED_WAITS; /* nobody is looked at behind it */
    if (!b->planned_us[w] && (b->steps[w].requests || gate_open(b, w)) && b->open) {
        b->open--;
        if (!b->steps[w].requests && b->free) b->free--;
    }
    touch(b, w);
    b->planned_us[w] += x->work;
    if (b->apart) pdr_waits_plan(&b->waits, &b->registry, w, x->work);
    return PDR_SERVED_WAITS;
}

/* It goes there, if it is taken; else it waits for that target. */
static uint32_t go_or_stay(pdr_books *b, uint32_t slot, const pdr_choice *choice, uint32_t w, const pdr_prefill_terms *x)
{
    if (!takes(b, w, x) || release(b, pdr_booking_at(&b->ledger, b->hold.slots[slot].booking), slot, choice, x->work)) return stays(b, w, x);
    booked_into_step(b, w, x);
    b->paired = 0;
    b->waits.decodes = 0; /* the decode that had been barred for a time may be so again, until it has answered */
    if (b->apart) pdr_waits_renew(&b->waits, &b->registry, w, 0, b->now_ns); /* nothing is planned where somebody goes */
    return PDR_SERVED_RELEASED;
}

/* The same where it matters how near a decode is. */
static uint32_t serve_near(pdr_books *b, uint32_t slot, const pdr_view *v, pdr_choice *choice)
{
    pdr_near_best near;
    pdr_wait_best best = pdr_near_choose(&b->waits, &b->registry, v, b->holders, b->holding, &near);
    if (best.target == PDR_NONE) return PDR_NONE;
    int stay = !takes(b, best.target, &best.terms);
    if (!stay || b->telling) pdr_near_pair(&near, b->waits.possible, choice);
    if (stay) return stays(b, best.target, &best.terms);
    return go_or_stay(b, slot, choice, best.target, &best.terms);
}

/* As serve_all(), from the prefill side; a decode is looked for only once it may go, or where a recording tells of it. PDR_SERVED_*, or PDR_NONE: all pairs are to be compared. */
static uint32_t serve_apart(pdr_books *b, uint32_t slot, pdr_view *v, pdr_choice *choice)
{
    const pdr_held *s = &b->hold.slots[slot];
    if (s->single_only | s->job.excluded || !pdr_waits_decode(&b->waits, &b->registry, b->now_ns)) return PDR_NONE;
    v->job = &s->job;
    pdr_wait_best best;
    if (b->apart == PDR_APART_NEAR) return serve_near(b, slot, v, choice);
    if (b->holding || !pdr_waits_cold(&b->waits, &b->registry, v, &best)) best = pdr_waits_best(&b->waits, &b->registry, v, b->holders, b->holding);
    if (best.target == PDR_NONE) return PDR_NONE;
    int stay = !takes(b, best.target, &best.terms);
    if ((!stay || b->telling) && pdr_pair_with(&b->registry, v, best.target, best.cost, b->waits.possible, choice)) return PDR_NONE;
    if (stay) return stays(b, best.target, &best.terms);
    return go_or_stay(b, slot, choice, best.target, &best.terms);
}

static uint32_t serve_all(pdr_books *b, uint32_t slot, pdr_choice *choice)
{
    const pdr_held   *s = &b->hold.slots[slot];
    const pdr_policy *policy = pdr_policy_of(b->r->config.policy);
    pdr_view          v = pdr_view_of(b, &s->job);
    v.planned_us = b->planned_us;
    const int         plain = s->single_only || s->job.excluded || b->telling || b->replay || b->registry.head->plain;
    if (!policy->topology) {
        uint32_t taken = plan_around_busy(b, &s->job, b->registry.prefill, b->registry.head->prefill_n);
        taken += plan_around_busy(b, &s->job, b->registry.single, b->registry.head->single_n);
        if (!taken && b->paired && !plain) return PDR_SERVED_WAITS; /* whoever is chosen cannot take it, and nothing is planned by it */
    }
    if (pdr_pair_choose(&b->registry, policy, &v, &b->scratch, (int)s->single_only, 0, choice)) {
        if (choice->retry_ns) return PDR_SERVED_WAITS;
        pdr_refuse_held(b, pdr_booking_at(&b->ledger, s->booking), PDR_E_NO_PAIR);
        b->mean_q10 = pdr_mean_queue_q10(b);
        return PDR_SERVED_REFUSED;
    }
    b->paired = !plain;
    uint32_t          w = choice->mode == PDR_MODE_PD ? choice->prefill : choice->decode;
    pdr_prefill_terms x = pdr_prefill_terms_of(&b->registry.targets[w], &b->r->rates, &s->job, b->depth[w], 0, b->now_ns);
    return go_or_stay(b, slot, choice, w, &x);
}

/* One held request's turn: released, refused, or planned for where it waits. PDR_SERVED_*. *v is the pass's. */
static uint32_t serve(pdr_books *b, uint32_t slot, pdr_view *v, pdr_choice *choice)
{
    if (b->replay)
        pdr_replay_match(b, slot);
    else
        match_sample(b, &b->hold.slots[slot]);
    uint32_t served = b->apart ? serve_apart(b, slot, v, choice) : PDR_NONE;
    return served == PDR_NONE ? serve_all(b, slot, choice) : served;
}

/*
 * Nothing is planned when a pass begins. A pass with `waits` takes back what it has planned when it ends; behind others, and behind one whose process died in it, all is cleared.
 */
static void clear_plans(const pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    for (uint32_t i = 0; i < h->prefill_n; i++) b->planned_us[b->registry.prefill[i]] = 0, b->steps[b->registry.prefill[i]] = (pdr_step){0, 0};
    for (uint32_t i = 0; i < h->single_n; i++) b->planned_us[b->registry.single[i]] = 0, b->steps[b->registry.single[i]] = (pdr_step){0, 0};
}

static void take_plans_back(const pdr_books *b)
{
    for (uint32_t i = 0; i < b->waits.touched_n; i++) {
        b->planned_us[b->waits.touched[i]] = 0;
        b->steps[b->waits.touched[i]] = (pdr_step){0, 0};
    }
    b->hold.head->plans = b->registry.head->relists + 1;
}

static void begin_pass(pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    pdr_books_open_pass(b);
    b->queue_q10 = pdr_mean_held_q10(b);
    b->mean_q10 = pdr_mean_queue_q10(b);
    b->apart = 0;
    if (!b->replay && !h->plain && h->prefill_n && b->now_ns < PDR_BOARD_MOST_NS) b->apart = (uint32_t)pdr_pair_apart(&b->registry, pdr_policy_of(b->r->config.policy));
    if (!b->apart || b->hold.head->plans != b->registry.head->relists + 1) clear_plans(b);
    b->hold.head->plans = 0;
    if (b->apart) pdr_waits_begin(&b->waits, &b->registry, b->now_ns);
    if (b->apart && !h->foreseen) { /* through_ns, which counts only then, stays the lower bound that it is */
        b->open = b->waits.idle;
        return;
    }
    if (b->apart) {
        b->open = b->waits.idle + count_late(b, &b->registry.head->through_ns);
        return;
    }
    uint64_t through_ns = UINT64_MAX;
    b->open = count_open(b, b->registry.prefill, h->prefill_n, &through_ns) + count_open(b, b->registry.single, h->single_n, &through_ns);
    if (h->foreseen) b->registry.head->through_ns = through_ns; /* as above: or what a pass leaves would depend on how it looked */
}

/* There is no pair at all, and no server that does both. */
static int nobody_left(const pdr_registry_head *h) { return !h->single_n && (!h->prefill_n || !h->decode_n); }

/* Nobody could go, unless there is nobody to go to: then held requests are told. */
static int nothing_to_do(const pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    return !b->hold.head->held || (pdr_all_busy(b) && !nobody_left(h));
}

void pdr_release_held(pdr_books *b)
{
    pdr_pen  pen;
    int      recording = pdr_recording(b), nobody = nobody_left(b->registry.head), told = recording || b->replay;
    if (__builtin_expect(nothing_to_do(b), 1)) return;
    begin_pass(b);
    if (!b->open && !nobody) {
        if (b->apart) take_plans_back(b);
        return;
    }
    if (recording) pdr_record_pass(b, &pen);
    b->passing = 1;
    b->paired = 0;
    b->telling = recording;
    b->holding = 0;
    memset(b->depth, 0, b->r->config.max_targets * sizeof *b->depth);
    uint64_t ageing = pdr_ageing_us(b);
    pdr_hold_pass(&b->hold, b->now_ns);
    uint32_t servers = b->registry.head->prefill_n + b->registry.head->single_n, most = servers ? LOOK_SERVERS / servers : LOOK_MOST;
    most = most > LOOK_MOST ? LOOK_MOST : most < LOOK_LEAST ? LOOK_LEAST : most;
    b->free = b->open;
    pdr_view       v = {.depth = b->depth, .rates = &b->r->rates, .now_ns = b->now_ns, .mean_queue_q10 = b->mean_q10};
    const uint32_t into_steps = !nobody && pdr_policy_of(b->r->config.policy)->topology ? LOOK_INTO_STEPS : most;
    for (uint32_t looked = 0, end = b->free ? most : into_steps; looked < end && (b->open || nobody); end = b->free ? most : into_steps) {
        pdr_choice choice;
        uint32_t   slot = pdr_hold_next(&b->hold, ageing, b->now_ns);
        if (slot == PDR_NONE) break;
        uint64_t ticket = told ? b->hold.slots[slot].booking : 0;
        b->last = looked + 1 >= end; /* free does not grow, and into_steps is not more */
        uint32_t result = serve(b, slot, &v, &choice);
        if (recording) pdr_record_served(b, &pen, ticket, &choice, result);
        if (b->replay) pdr_replay_served(b, slot, ticket, &choice, result);
        forget_match(b);
        if (result == PDR_SERVED_REFUSED) v.mean_queue_q10 = b->mean_q10;
        looked = result == PDR_SERVED_WAITS ? looked + 1 : 0;
    }
    b->passing = 0;
    if (b->apart) take_plans_back(b);
    if (recording) pdr_record_passed(b, &pen);
}
