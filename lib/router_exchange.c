/*
 * Public entry points of the exchange: the pure machine (exchange.h) does the thinking, here its effects go into the books: bookings, breakers, and
 * what is learnt about servers and requests.
 */
#include "exchange.h"
#include "router_decide.h"
#include "router_record.h"

#include <string.h>

enum { OUTLIER_KNOWN = 32, OUTLIER_FACTOR = 8, OUTLIER_LEAST_US = 1000000 };
enum { PAUSE_UNSAID_MS = 100, PAUSE_MOST_MS = 30000 };
#define LATE_MOST_US (1ull << 40)

/*
 * Retries have a budget: when everything fails, trying everything three times is what makes it worse. Read without the lock: a race lets one more through.
 */
static int may_retry(const pdr_router *r)
{
    return r->config.retry_budget_permille == UINT32_MAX || __atomic_load_n(&r->retry_credit, __ATOMIC_RELAXED) >= 1000;
}

static pdr_exchange_rules rules_of(const pdr_router *r)
{
    const pdr_config *c = &r->config;
    return (pdr_exchange_rules){.retry_max = c->retry_max,
                                .retry_denied = !may_retry(r),
                                .first_byte_timeout_ns = c->first_byte_timeout_ms * 1000000ull,
                                .total_timeout_ns = c->total_timeout_ms * 1000000ull};
}

/* An eighth of the way to a sample that is at most four times off: outliers move it little, steady change within some ten samples. */
static uint64_t approach(uint64_t present, uint64_t sample)
{
    if (sample > present * 4) sample = present * 4;
    if (sample < present / 4) sample = present / 4;
    return sample > present ? present + (sample - present + 7) / 8 : present - (present - sample) / 8;
}

static uint64_t in_range(uint64_t v, uint64_t least, uint64_t most) { return v < least ? least : v > most ? most : v; }

/* First bytes against predictions: bounds of silence follow from them, and who takes many times longer than the pool. */
static void learn_lateness(pdr_books *b, const pdr_booking *k, uint64_t took_us)
{
    if (k->prefill == PDR_NONE) return;
    pdr_learnt       *l = &b->r->learnt;
    uint64_t          predicted = k->wait_us + k->work_us + k->transfer_us; /* at the speed learnt of this server, and at that of all */
    uint64_t          usual = k->wait_us + pdr_prefill_us(&b->r->rates, k->uncached_tokens, k->matched_tokens);
    uint64_t          late = took_us < LATE_MOST_US ? (took_us << 10) / (usual ? usual : 1) : LATE_MOST_US;
    pdr_endpoint_rec *rec = &b->registry.endpoints[b->registry.targets[k->prefill].endpoint];
    rec->slow = l->patience.late_n >= OUTLIER_KNOWN && took_us >= OUTLIER_LEAST_US && late > OUTLIER_FACTOR * (l->late_q10 > 1024 ? l->late_q10 : 1024);
    l->late_q10 = in_range(approach(l->late_q10, late), 16, UINT32_MAX);
    pdr_patience_late(&b->registry.infos[k->prefill].patience, predicted, took_us);
    if (!rec->slow) pdr_patience_late(&l->patience, predicted, took_us); /* one bad server makes the pool no more patient */
}

/* Decode's answer to its end: time per token, and the longest silence. */
static void learn_pace(pdr_books *b, const pdr_booking *k, const pdr_exchange_effects *fx)
{
    const pdr_exchange_leg *d = &fx->leg[PDR_LEG_DECODE];
    pdr_patience           *p = &b->registry.infos[k->decode].patience, *pool = &b->r->learnt.patience;
    if (k->prefill == PDR_NONE || d->verdict != PDR_VERDICT_GOOD || d->status >= 300) return;
    p->overruns = 0;
    if (d->usage && d->completion_tokens) {
        pdr_patience_tokens(p, d->completion_tokens, fx->answer_us);
        pdr_patience_tokens(pool, d->completion_tokens, fx->answer_us);
    }
    if (fx->longest_gap_ms && k->streamed) {
        pdr_patience_gap(p, fx->longest_gap_ms * 1000ull);
        pdr_patience_gap(pool, fx->longest_gap_ms * 1000ull);
    }
}

static void overran(pdr_books *b, const pdr_booking *k, uint32_t legs)
{
    b->r->stats.timeouts++;
    if (legs & 1u << PDR_LEG_PREFILL && k->prefill != PDR_NONE) pdr_patience_overran(&b->registry.infos[k->prefill].patience);
    if (legs & 1u << PDR_LEG_DECODE && k->decode != PDR_NONE) pdr_patience_overran(&b->registry.infos[k->decode].patience);
}

static int same_server(const pdr_books *b, const pdr_exchange_leg *leg, uint32_t target)
{
    return target != PDR_NONE && b->registry.targets[target].endpoint == leg->endpoint;
}

static void count_failure(pdr_books *b, const pdr_booking *k, uint32_t target, uint32_t kind)
{
    const pdr_config *c = &b->r->config;
    pdr_breaker_rules rules = {c->breaker_failures, c->breaker_error_permille, c->breaker_open_ms * 1000000ull};
    b->r->stats.breakers_opened += (uint64_t)pdr_breaker_failure(&b->registry, target, kind, &rules, k->booked_ns, b->now_ns);
}

/* 429, or 503 with Retry-After: it is left alone for as long as it asks, within reason. */
static void pause_target(const pdr_books *b, uint32_t target, uint64_t retry_after_ms)
{
    const pdr_target *t = &b->registry.targets[target];
    uint64_t          rest = retry_after_ms ? retry_after_ms : PAUSE_UNSAID_MS;
    if (rest > PAUSE_MOST_MS) rest = PAUSE_MOST_MS;
    if (t->open_until_ns < b->now_ns + rest * 1000000) pdr_breaker_open_until(&b->registry, target, PDR_GUARD_PAUSE, b->now_ns + rest * 1000000);
}

static void apply_verdict(pdr_books *b, const pdr_booking *k, const pdr_exchange_leg *leg, uint32_t target)
{
    if (!same_server(b, leg, target)) return;
    if (leg->answered) pdr_breaker_close(&b->registry, target); /* one that always dies after its first bytes still adds up */
    if (leg->answered || leg->verdict == PDR_VERDICT_GOOD) pdr_breaker_alive(&b->registry, target, b->now_ns);
    if (leg->verdict == PDR_VERDICT_GOOD) {
        pdr_endpoint_rec *rec = &b->registry.endpoints[leg->endpoint];
        pdr_breaker_success(&b->registry, target);
        if (rec->slow) count_failure(b, k, target, PDR_FAILURE_SLOW);
        rec->slow = 0;
    }
    if (leg->verdict == PDR_VERDICT_FAILED)
        count_failure(b, k, target, leg->failure == PDR_FAIL_CONNECT ? PDR_FAILURE_REFUSED : PDR_FAILURE_PLAIN);
    if (leg->verdict == PDR_VERDICT_BUSY) pause_target(b, target, leg->retry_after_ms);
}

/* Returns which leg is to blame, where both were suspected and one of them is known to work; else PDR_NONE. */
static uint32_t apply_verdicts(pdr_books *b, const pdr_booking *k, const pdr_exchange_leg leg[2])
{
    uint32_t target[2] = {k->mode == PDR_MODE_PD ? k->prefill : PDR_NONE, k->decode};
    uint32_t kind[2] = {PDR_FAILURE_DOUBTFUL, PDR_FAILURE_DOUBTFUL};
    int      suspected[2];
    for (int i = 0; i < 2; i++) {
        apply_verdict(b, k, &leg[i], target[i]);
        suspected[i] = leg[i].verdict == PDR_VERDICT_SUSPECT && same_server(b, &leg[i], target[i]);
    }
    if (suspected[0] && suspected[1]) pdr_breaker_suspect(&b->registry, target[0], target[1], k->booked_ns, kind);
    for (int i = 0; i < 2; i++)
        if (suspected[i] && kind[i]) count_failure(b, k, target[i], kind[i]);
    return !kind[0] ? PDR_LEG_DECODE : !kind[1] ? PDR_LEG_PREFILL : PDR_NONE;
}

/* Returns as apply_verdicts(). */
static uint32_t apply_effects(pdr_books *b, const pdr_exchange_effects *fx)
{
    uint32_t     guilty;
    pdr_booking *k = fx->booking ? pdr_booking_at(&b->ledger, fx->booking) : NULL;
    if (fx->result == PDR_RESULT_ANSWERED) b->r->stats.finished++;
    if (fx->result == PDR_RESULT_FAILED) b->r->stats.failed++;
    b->r->stats.retries_refused += fx->retry_denied;
    if (fx->retry == 1 && b->r->config.retry_budget_permille != UINT32_MAX) b->r->retry_credit -= b->r->retry_credit < 1000 ? b->r->retry_credit : 1000;
    if (!k) return PDR_NONE; /* its lease ended meanwhile: given back already */
    const pdr_exchange_leg *p = &fx->leg[PDR_LEG_PREFILL], *d = &fx->leg[PDR_LEG_DECODE];
    if (fx->prefill_done) pdr_learn_answer(b, k, 1);
    if (d->answered) pdr_learn_answer(b, k, 0);
    if (fx->prefill_done) {
        if (same_server(b, p, k->prefill)) pdr_breaker_alive(&b->registry, k->prefill, b->now_ns);
        pdr_learn_prefill(b, k, fx->prefill_us);
        if (k->mode == PDR_MODE_PD || k->streamed) learn_lateness(b, k, fx->prefill_us);
        pdr_booking_prefilled(&b->ledger, k, b->now_ns);
        pdr_record_ended(b, fx->booking, PDR_ENDED_PREFILL, fx->prefill_us, 0, 0);
    }
    if (fx->overran) overran(b, k, fx->overran);
    guilty = apply_verdicts(b, k, fx->leg);
    if (d->verdict) learn_pace(b, k, fx);
    if (p->usage) pdr_learn_usage(b, k, p->prompt_tokens, p->cached_tokens, 0, 0);
    if (d->usage) pdr_learn_usage(b, k, d->prompt_tokens, d->cached_tokens, d->completion_tokens, 1);
    if (d->usage) pdr_record_ended(b, fx->booking, PDR_ENDED_USAGE, d->prompt_tokens, d->completion_tokens, d->cached_tokens);
    if (fx->release && d->verdict == PDR_VERDICT_GOOD) pdr_learn_without_usage(b, k);
    if (fx->release) pdr_give_back(b, k);
    if (fx->prefill_done || fx->release) pdr_release_held(b);
    return guilty;
}

/* True if there is anything for the books: most events (heads, bytes sent) need no lock. */
static int any_effect(const pdr_exchange_effects *fx)
{
    const pdr_exchange_leg *p = &fx->leg[0], *d = &fx->leg[1];
    return fx->prefill_done || fx->release || fx->result || p->verdict || d->verdict || p->answered || d->answered || p->usage || d->usage;
}

/* Of a step that could not be written because the lock is not to be had: what must not be forgotten. What would have been learnt is. */
static uint32_t owed(const pdr_exchange_effects *fx)
{
    return (fx->prefill_done ? PDR_OWED_PREFILLED : 0u) | (fx->release ? PDR_OWED_BACK : 0u) | (fx->result == PDR_RESULT_ANSWERED ? PDR_OWED_ANSWERED : 0u) |
           (fx->result == PDR_RESULT_FAILED ? PDR_OWED_FAILED : 0u);
}

/*
 * Carries a step out on the books and on the caller's exchange. Clients and legs do not wait for a process that is stopped with the lock: then the exchange goes on, and the
 * next tick settles what is owed. A block that was lost has no books to keep: the exchange goes on without, so that requests under way end as they would.
 */
static int commit(pdr_router *r, pdr_exchange *x, pdr_exchange *stepped, const pdr_exchange_effects *fx, uint64_t now_ns)
{
    pdr_books b;
    if (any_effect(fx)) {
        int code = pdr_books_lock(&b, r, now_ns);
        if (code == PDR_E_BUSY) code = pdr_owe(r, fx->booking, owed(fx), code);
        else if (code && code != PDR_E_BLOCK_CORRUPT) return code;
        else if (!code) {
            uint32_t guilty = apply_effects(&b, fx);
            if (fx->retry && guilty != PDR_NONE) pdr_exchange_blame(stepped, guilty);
            pdr_books_unlock(&b, PDR_OK, NULL);
        }
    }
    *x = *stepped;
    return PDR_OK;
}

int pdr_exchange_begin(pdr_router *r, pdr_exchange *x, const pdr_decision *d, uint32_t lease, uint64_t now_ns, pdr_action *out, size_t *n)
{
    pdr_exchange_effects fx;
    if (!r || !x) return PDR_E_INVALID;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    pdr_exchange_rules rules = rules_of(r);
    pdr_exchange       y = *x;
    int                code = pdr_exchange_start(&y, d, lease, &rules, now_ns, out, n, &fx);
    return code ? code : commit(r, x, &y, &fx, now_ns);
}

/* The target of a decode endpoint that has least to do, PDR_NONE: there is no such endpoint. */
static uint32_t least_target(const pdr_registry *g, uint32_t id)
{
    const pdr_endpoint_rec *rec = pdr_registry_at(g, id);
    uint32_t                best = PDR_NONE;
    if (!rec || !(rec->e.role & PDR_ROLE_DECODE)) return PDR_NONE;
    for (uint32_t i = rec->first_target; i < rec->first_target + rec->targets; i++)
        if (best == PDR_NONE || g->targets[i].d_tokens < g->targets[best].d_tokens) best = i;
    return best;
}

/* A data plane chose another decode server than was named: what is booked there moves, and what the answer shows is that one's. */
static int served(pdr_router *r, pdr_exchange *x, const pdr_event *ev, size_t *n)
{
    pdr_books    b;
    pdr_booking *k;
    uint32_t     target;
    if (!n) return PDR_E_INVALID;
    *n = 0;
    if (ev->leg != PDR_LEG_DECODE || ev->attempt != x->attempt || !x->booking) return PDR_OK;
    int code = pdr_books_lock(&b, r, ev->now_ns);
    if (code == PDR_E_BUSY) x->decode = PDR_NONE; /* its place stays where it is; what the answer shows is nobody's */
    if (code) return code == PDR_E_BLOCK_CORRUPT || code == PDR_E_BUSY ? PDR_OK : code;
    k = pdr_booking_at(&b.ledger, x->booking);
    target = least_target(&b.registry, ev->detail);
    if (k && target != PDR_NONE) pdr_booking_move(&b.ledger, k, target);
    pdr_release_held(&b);
    pdr_books_unlock(&b, PDR_OK, NULL);
    x->decode = target == PDR_NONE ? PDR_NONE : ev->detail;
    return PDR_OK;
}

int pdr_exchange_event(pdr_router *r, pdr_exchange *x, const pdr_event *ev, pdr_action *out, size_t *n)
{
    pdr_exchange_effects fx;
    if (!r || !x || !ev) return PDR_E_INVALID;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    const int whole = pdr_struct_ok(ev, offsetof(pdr_event, retry_after_ms));
    if (whole && ev->type == PDR_EV_SERVED) return served(r, x, ev, n);
    pdr_exchange_rules rules = rules_of(r);
    pdr_exchange       y = *x;
    int                code = pdr_exchange_step(&y, ev, &rules, out, n, &fx);
    return code ? code : commit(r, x, &y, &fx, whole ? ev->now_ns : 0);
}

int pdr_exchange_rerouted(pdr_router *r, pdr_exchange *x, const pdr_decision *d, int code, uint64_t now_ns, pdr_action *out, size_t *n)
{
    pdr_exchange_effects fx;
    if (!r || !x) return PDR_E_INVALID;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    pdr_exchange_rules rules = rules_of(r);
    pdr_exchange       y = *x;
    int                bad = pdr_exchange_reroute(&y, d, code, &rules, now_ns, out, n, &fx);
    return bad ? bad : commit(r, x, &y, &fx, now_ns);
}
