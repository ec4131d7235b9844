#include "router_decide.h"

#include "alone.h"
#include "engine.h"
#include "rng.h"

#include <string.h>

#define PROMPT_TOKENS_MAX (1ull << 32)
enum { COME_AGAIN_MS = 1000 };

static uint64_t text_tokens(const pdr_books *b, uint64_t bytes) { return bytes * b->r->learnt.tokens_per_byte_q20 >> 20; }

static void make_job(const pdr_books *b, const pdr_prompt *p, const pdr_request *q, pdr_job *job)
{
    uint64_t mean_output = b->r->learnt.output_tokens_q10 >> 10;
    memset(job, 0, offsetof(pdr_job, exclude));
    job->prompt_tokens = p->prompt_tokens ? p->prompt_tokens : text_tokens(b, p->prompt_bytes);
    if (!job->prompt_tokens) job->prompt_tokens = 1;
    if (job->prompt_tokens > PROMPT_TOKENS_MAX) job->prompt_tokens = PROMPT_TOKENS_MAX; /* sums and products of it stay in 64 bits */
    if (p->flags & PDR_PROMPT_TOKENS)
        job->block_millitokens = b->r->config.block_bytes / 4 * 1000u;
    else
        job->block_millitokens = text_tokens(b, b->r->config.block_bytes * 1000u);
    job->output_tokens = p->max_tokens && p->max_tokens < mean_output ? p->max_tokens : mean_output;
    job->answer_tokens = p->max_tokens;
    job->streamed = (p->flags & PDR_PROMPT_STREAM) != 0;
    job->api = q->api ? q->api : p->api;
    job->samples = p->samples;
    job->batch = p->batch > 1 ? p->batch : 0;
    job->excluded = q->excluded;
    memcpy(job->exclude, q->exclude, q->excluded * sizeof *q->exclude);
}

int pdr_ask_make(const pdr_books *b, const pdr_prompt *prompt, const uint64_t *hashes, size_t n, const pdr_request *request, pdr_ask *out,
                 pdr_error *err)
{
    int code = pdr_struct_in(&out->request, sizeof out->request, request, err);
    if (code) return code;
    if (!pdr_struct_ok(prompt, offsetof(pdr_prompt, object)))
        return pdr_fail(err, PDR_E_INVALID, "a prompt is needed, as pdr_scan makes it");
    if (out->request.excluded > sizeof out->request.exclude / sizeof *out->request.exclude)
        return pdr_fail(err, PDR_E_INVALID, "%u excluded endpoints are more than there is room for", out->request.excluded);
    out->prompt = prompt;
    out->hashes = hashes;
    out->n = hashes ? n : 0;
    if (out->n > b->r->config.max_blocks) out->n = b->r->config.max_blocks;
    make_job(b, prompt, &out->request, &out->job);
    if (__builtin_add_overflow(prompt->priority, (int64_t)out->request.priority, &out->priority)) /* clients may ask for any */
        out->priority = out->request.priority > 0 ? INT64_MAX : INT64_MIN;
    out->any_single = out->job.api == PDR_API_OTHER;
    code = out->any_single ? PDR_OK : pdr_engine_check(b->r->config.engine, PDR_MODE_PD, prompt, err);
    out->single_only = code != PDR_OK;
    if (code && !b->registry.head->single_n && !b->registry.head->alone_n) return code;
    return pdr_engine_check(b->r->config.engine, PDR_MODE_SINGLE, prompt, err);
}

/* Requests held or in prefill per prefill target, times 1024. */
uint64_t pdr_mean_queue_q10(const pdr_books *b)
{
    uint64_t servers = (uint64_t)b->registry.head->prefill_n + b->registry.head->single_n;
    return pdr_crowded(b->registry.head, ((uint64_t)b->ledger.head->in_prefill + b->hold.head->held) << 10) / (servers ? servers : 1);
}

uint64_t pdr_mean_held_q10(const pdr_books *b)
{
    uint64_t servers = (uint64_t)b->registry.head->prefill_n + b->registry.head->single_n;
    return pdr_crowded(b->registry.head, (uint64_t)b->hold.head->held << 10) / (servers ? servers : 1);
}

pdr_view pdr_view_of(const pdr_books *b, const pdr_job *job)
{
    pdr_view v = {.targets = b->registry.targets,
                  .sequence = b->registry.head->pick,
                  .depth = b->depth,
                  .job = job,
                  .rates = &b->r->rates,
                  .now_ns = b->now_ns,
                  .mean_queue_q10 = pdr_mean_queue_q10(b),
                  .random = pdr_random_at(b->r->config.seed, b->r->random)};
    return v;
}

uint64_t pdr_backlog_us(const pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    uint64_t                 work = pdr_crowded(h, b->hold.head->size_us), servers = (uint64_t)h->prefill_n + h->single_n;
    for (uint32_t i = 0; i < h->prefill_n; i++) work += pdr_wait_us(&b->registry.targets[b->registry.prefill[i]], b->now_ns);
    for (uint32_t i = 0; i < h->single_n; i++) work += pdr_wait_us(&b->registry.targets[b->registry.single[i]], b->now_ns);
    return work / (servers ? servers : 1);
}

/* Work that is served before such a request comes to its turn, by all servers together. */
static uint64_t ahead_us_of(const pdr_books *b, uint64_t size_us, int64_t priority)
{
    return pdr_crowded(b->registry.head, pdr_hold_ahead_us(&b->hold, size_us, priority));
}

uint64_t pdr_backlog_ms(const pdr_books *b) { return pdr_backlog_us(b) / 1000; }

static uint64_t at_least(uint64_t ms, uint64_t least) { return ms < least ? least : ms; }

static const char *missing(const pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    if (!h->endpoints) return "no endpoints are registered";
    if (!h->prefill_n && !h->decode_n && !h->single_n) return "all endpoints are down or draining";
    if (!h->prefill_n) return "no prefill server is up";
    if (!h->decode_n) return "no decode server is up";
    return "every prefill or every decode server has just failed or was excluded";
}

/* Of some role every server has asked for a pause. */
static int all_pause_in(const pdr_books *b, const uint32_t *list, uint32_t n)
{
    uint32_t pauses = 0;
    for (uint32_t i = 0; i < n; i++) {
        const pdr_target *t = &b->registry.targets[list[i]];
        pauses += t->guarded == PDR_GUARD_PAUSE && t->open_until_ns > b->now_ns;
    }
    return n && pauses == n;
}

static int all_pause(const pdr_books *b)
{
    const pdr_registry *g = &b->registry;
    return all_pause_in(b, g->prefill, g->head->prefill_n) || all_pause_in(b, g->decode, g->head->decode_n) ||
           all_pause_in(b, g->single, g->head->single_n);
}

static int relent(const pdr_books *b, const pdr_job *job)
{
    const pdr_registry      *g = &b->registry;
    const pdr_registry_head *h = g->head;
    int                      n = pdr_breaker_relent(g, g->prefill, h->prefill_n, job->exclude, job->excluded, b->now_ns);
    n += pdr_breaker_relent(g, g->decode, h->decode_n, job->exclude, job->excluded, b->now_ns);
    return n + pdr_breaker_relent(g, g->single, h->single_n, job->exclude, job->excluded, b->now_ns);
}

/* The depths are filled. More is expected at home than the index knows. */
static void expect_home(pdr_books *b, uint32_t home, size_t blocks)
{
    b->home = home;
    if (home == PDR_NONE) return;
    b->home_depth = b->depth[home];
    b->depth[home] = pdr_home_depth(&b->r->learnt.homes, b->depth[home], blocks);
}

/* Whether homes count: others send to these servers, and the engines say what was cached. */
static int homes_count(const pdr_books *b) { return b->registry.head->crowd_q10 > PDR_CROWD_ALONE && b->r->stats.cached_tokens_reported; }

void pdr_expect_home(pdr_books *b, const pdr_held *s)
{
    uint32_t home = s->home, was;
    if (!homes_count(b) || home >= b->r->config.max_targets || !b->registry.listed[home]) return;
    was = b->depth[home];
    expect_home(b, home, s->blocks);
    if (!was && b->depth[home]) b->holders[b->holding++] = home;
}

/* A request has failed at just these two, it could not be told through whom, and neither has worked since. */
static int suspects(const pdr_registry *g, const pdr_choice *c)
{
    uint32_t p = g->targets[c->prefill].endpoint, d = g->targets[c->decode].endpoint;
    return __builtin_expect(g->endpoints[p].suspect_with != 0, 0) && g->endpoints[p].suspect_with == d + 1 && g->endpoints[d].suspect_with == p + 1;
}

/* A server that was out and is to be tried, by a request that has failed before: others may do that. */
static int tries_again(const pdr_registry *g, const pdr_ask *a, const pdr_choice *c)
{
    if (!a->request.excluded) return 0;
    return g->targets[c->decode].guarded == PDR_GUARD_BREAKER || g->targets[c->prefill].guarded == PDR_GUARD_BREAKER;
}

/* A pair: one server that does all has no other half to be in doubt about, and who has to queue has none yet. */
static int doubtful(const pdr_registry *g, const pdr_ask *a, const pdr_choice *c)
{
    return c->mode == PDR_MODE_PD && c->prefill != PDR_NONE && (suspects(g, c) || tries_again(g, a, c));
}

/*
 * Another pair than one in doubt, if there is one. Without that, servers that are chosen in step (as many of each role, equal loads) fail in step for ever
 * where one prefill and one decode work and never meet; and a request may meet one broken server after the other.
 */
static void choose_other(pdr_books *b, pdr_ask *a, pdr_choice *choice)
{
    enum { TRIES = 4, MOST = sizeof a->job.exclude / sizeof *a->job.exclude };
    const pdr_target *targets = b->registry.targets;
    const pdr_job     job = a->job;
    pdr_choice        other[TRIES];
    uint64_t          retry_ms;
    for (int i = 0; i < TRIES; i++) { /* without its decode; without its prefill; then of what was found so without the other half */
        const pdr_choice *found = i < 2 ? choice : &other[i - 2];
        a->job = job;
        if (job.excluded + (i < 2 ? 1 : 2) > MOST) break;
        if (i >= 2) a->job.exclude[a->job.excluded++] = targets[i == 2 ? choice->decode : choice->prefill].endpoint;
        if (found->mode == PDR_MODE_PD) a->job.exclude[a->job.excluded++] = targets[i == 0 || i == 3 ? found->decode : found->prefill].endpoint;
        other[i] = (pdr_choice){.mode = PDR_MODE_SINGLE};
        if (found->mode != PDR_MODE_PD || pdr_decide_matched(b, a, &other[i], &retry_ms, NULL) || other[i].mode != PDR_MODE_PD) {
            other[i].mode = PDR_MODE_SINGLE;
            continue;
        }
        if (doubtful(&b->registry, a, &other[i])) continue;
        *choice = other[i];
        return;
    }
    a->job = job;
}

int pdr_decide(pdr_books *b, pdr_ask *a, pdr_choice *choice, uint64_t *retry_ms, pdr_error *err)
{
    pdr_books_open_pass(b);
    b->holding = pdr_index_match_holders(b->index, a->hashes, a->n, b->depth, b->holders);
    b->home = PDR_NONE;
    if (__builtin_expect(homes_count(b), 0) && a->n && !a->any_single) {
        uint32_t home = pdr_home_of(&b->registry, b->depth, a->hashes, a->n), was = home == PDR_NONE || b->depth[home];
        expect_home(b, home, a->n);
        if (!was && b->depth[home]) b->holders[b->holding++] = home;
    }
    int code = pdr_decide_matched(b, a, choice, retry_ms, err);
    if (code == PDR_E_NO_PAIR && relent(b, &a->job)) code = pdr_decide_matched(b, a, choice, retry_ms, err);
    if (!code && doubtful(&b->registry, a, choice) && !pdr_must_wait(b, a, choice)) choose_other(b, a, choice);
    return code;
}

/* Whether one of the decode servers that may does it alone, instead of this choice. */
static int consider_alone(const pdr_books *b, const pdr_ask *a, const pdr_view *v, pdr_choice *choice)
{
    uint32_t servers = b->registry.head->prefill_n + b->registry.head->single_n;
    if (a->any_single || !pdr_policy_of(b->r->config.policy)->topology) return 0;
    uint64_t ahead = b->hold.head->held ? ahead_us_of(b, pdr_least_work(b, &a->job), a->priority) : 0;
    return pdr_alone_choose(&b->registry, v, ahead / (servers ? servers : 1), choice);
}

enum { MANY_IDLE = 8 /* an eighth: where many cost the same, pricing all is cheaper than telling them apart by near decodes */ };

/* As pdr_pair_choose(), if the prefill can be found by itself (waits.h); 0: all pairs are to be compared. */
static int choose_apart(pdr_books *b, const pdr_ask *a, const pdr_view *v, const pdr_policy *policy, pdr_choice *choice)
{
    const pdr_registry_head *h = b->registry.head;
    if (b->holding == PDR_NONE || h->plain || a->single_only || a->any_single || a->job.excluded || !h->prefill_n || b->now_ns >= PDR_BOARD_MOST_NS) return 0;
    int apart = pdr_pair_apart(&b->registry, policy);
    if (!apart || (apart == PDR_APART_NEAR && h->idle * MANY_IDLE > h->prefill_n)) return 0;
    pdr_waits_begin(&b->waits, &b->registry, b->now_ns);
    if (apart == PDR_APART_NEAR) {
        pdr_near_best near;
        if (pdr_near_choose(&b->waits, &b->registry, v, b->holders, b->holding, &near).target == PDR_NONE) return 0;
        pdr_near_pair(&near, b->waits.possible, choice);
        return 1;
    }
    pdr_wait_best best = pdr_waits_best(&b->waits, &b->registry, v, b->holders, b->holding);
    return best.target != PDR_NONE && !pdr_pair_with(&b->registry, v, best.target, best.cost, b->waits.possible, choice);
}

int pdr_decide_matched(pdr_books *b, const pdr_ask *a, pdr_choice *choice, uint64_t *retry_ms, pdr_error *err)
{
    if (pdr_must_queue(b, a)) {
        *choice = (pdr_choice){.prefill = PDR_NONE, .decode = PDR_NONE, .cost = UINT64_MAX};
        return PDR_OK;
    }
    pdr_view          v = pdr_view_of(b, &a->job);
    const pdr_policy *policy = pdr_policy_of(b->r->config.policy);
    int               code = PDR_OK;
    if (!choose_apart(b, a, &v, policy, choice)) code = pdr_pair_choose(&b->registry, policy, &v, &b->scratch, a->single_only, a->any_single, choice);
    if (b->registry.head->alone_n && consider_alone(b, a, &v, choice)) return PDR_OK;
    if (!code) return PDR_OK;
    *retry_ms = COME_AGAIN_MS;
    if (choice->retry_ns > b->now_ns) *retry_ms = at_least((choice->retry_ns - b->now_ns + 999999) / 1000000, 1);
    if (*retry_ms > COME_AGAIN_MS && !all_pause(b)) *retry_ms = COME_AGAIN_MS; /* breakers relent sooner than they say */
    return pdr_fail(err, code, "%s", missing(b));
}

int pdr_gate_open(const pdr_books *b, uint32_t target)
{
    return pdr_open_for(&b->registry.targets[target], b->registry.head->foreseen, b->now_ns);
}

int pdr_all_busy(const pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    return !h->idle && !(h->foreseen && h->through_ns <= b->now_ns);
}

uint64_t pdr_least_work(const pdr_books *b, const pdr_job *job)
{
    const pdr_registry_head *h = b->registry.head;
    uint32_t                 most = 0;
    if (b->holding != PDR_NONE) {
        for (uint32_t i = 0; i < b->holding; i++) {
            uint32_t w = b->holders[i];
            most = b->registry.listed[w] && b->depth[w] > most ? b->depth[w] : most;
        }
        uint64_t matched = pdr_matched_tokens(job, most);
        return pdr_prefill_us(&b->r->rates, job->prompt_tokens - matched, matched);
    }
    for (uint32_t i = 0; i < h->prefill_n; i++) most = b->depth[b->registry.prefill[i]] > most ? b->depth[b->registry.prefill[i]] : most;
    for (uint32_t i = 0; i < h->single_n; i++) most = b->depth[b->registry.single[i]] > most ? b->depth[b->registry.single[i]] : most;
    uint64_t m = pdr_matched_tokens(job, most);
    return pdr_prefill_us(&b->r->rates, job->prompt_tokens - m, m);
}

static int holds(const pdr_books *b, const pdr_ask *a)
{
    return b->r->config.hold != PDR_HOLD_OFF && !a->any_single && !(a->request.flags & (PDR_REQUEST_NO_HOLD | PDR_REQUEST_DRY));
}

pdr_terms pdr_terms_of(const pdr_books *b, const pdr_ask *a)
{
    uint64_t  longest = b->now_ns + b->r->config.hold_max_wait_ms * 1000000ull, asked = a->request.deadline_ns;
    pdr_terms t = {.deadline_ns = asked && asked < longest ? asked : longest, .size_us = pdr_least_work(b, &a->job), .priority = a->priority, .tenant = a->request.tenant};
    return t;
}

int pdr_admit(const pdr_books *b, const pdr_terms *t, uint64_t *retry_ms)
{
    uint64_t servers = (uint64_t)b->registry.head->prefill_n + b->registry.head->single_n, may_us = pdr_elapsed_us(t->deadline_ns, b->now_ns);
    if (b->hold.head->free_first == PDR_NONE) {
        *retry_ms = pdr_backlog_ms(b) + 1;
        return PDR_E_QUEUE_FULL;
    }
    if (!servers || pdr_crowded(b->registry.head, b->hold.head->size_us) / servers <= may_us) return PDR_OK; /* everybody is served in time */
    uint64_t half_us = may_us < UINT64_MAX / 2 / servers ? may_us * servers / 2 : UINT64_MAX;
    uint64_t ahead_us = pdr_crowded(b->registry.head, pdr_hold_ahead_of_us(&b->hold, t->size_us, t->priority, t->tenant, half_us, b->now_ns)) / servers;
    if (ahead_us <= may_us) return PDR_OK;
    *retry_ms = (ahead_us - may_us) / 1000 + 1;
    return PDR_E_QUEUE_FULL;
}

int pdr_must_queue(const pdr_books *b, const pdr_ask *a)
{
    const pdr_registry_head *h = b->registry.head;
    if (!b->hold.head->held || !pdr_all_busy(b) || !holds(b, a) || a->job.excluded) return 0;
    return !a->single_only && h->prefill_n && h->decode_n && !h->single_n && !h->alone_n;
}

int pdr_must_wait(const pdr_books *b, const pdr_ask *a, const pdr_choice *choice)
{
    if (!holds(b, a) || choice->alone) return 0;
    if (b->hold.head->held) return 1;
    return !pdr_gate_open(b, choice->mode == PDR_MODE_PD ? choice->prefill : choice->decode);
}

/* What a target is guarded against begins anew when a request is let in: a breaker that has run out lets in one, the others wait for what becomes of it. */
static void let_in(const pdr_books *b, uint32_t target)
{
    const pdr_target *t = &b->registry.targets[target];
    if (t->guarded == PDR_GUARD_BREAKER) {
        b->registry.endpoints[t->endpoint].opened_ns = b->now_ns; /* it is being tried: what was sent before tells nothing new */
        pdr_breaker_open_until(&b->registry, target, PDR_GUARD_BREAKER, b->now_ns + b->r->config.breaker_open_ms * 1000000ull);
    } else {
        pdr_breaker_open_until(&b->registry, target, PDR_GUARD_NONE, 0);
    }
}

void pdr_remember(pdr_books *b, const pdr_booking *k, const uint64_t *hashes, size_t n)
{
    if (!n || !hashes || k->prefill == PDR_NONE) return;
    pdr_index_store(b->index, k->prefill, hashes, n);
    if (k->decode != k->prefill && b->registry.head->alone_n && pdr_serves_alone(&b->registry.endpoints[b->registry.targets[k->decode].endpoint]))
        pdr_index_store(b->index, k->decode, hashes, n); /* it gets the prompt's KV cache, and may serve the next turn */
}

int pdr_book(pdr_books *b, pdr_booking *k, const pdr_job *job, const pdr_choice *choice, const uint64_t *hashes, size_t n, uint32_t state)
{
    pdr_registry_head *h = b->registry.head;
    uint32_t           worker = choice->mode == PDR_MODE_PD ? choice->prefill : choice->decode; /* who computes the prompt */
    pdr_target        *w = &b->registry.targets[worker];
    pdr_prefill_terms  x = pdr_prefill_terms_of(w, &b->r->rates, job, b->depth[worker], 0, b->now_ns);
    if (choice->mode == PDR_MODE_PD) {
        int code = pdr_room_alloc(&b->r->room, w->dp_size, w->rank, job->batch ? job->batch : 1, &k->room, &k->room_counter);
        if (code) return code;
    }
    k->prefill = job->api == PDR_API_OTHER ? PDR_NONE : worker;
    k->decode = choice->decode;
    k->mode = choice->mode;
    k->aside = choice->alone;
    k->batch = choice->mode == PDR_MODE_PD ? job->batch : 0;
    k->candidates = choice->pairs > UINT32_MAX ? UINT32_MAX : (uint32_t)choice->pairs;
    k->work_us = x.work;
    uint64_t known = worker == b->home ? pdr_matched_tokens(job, b->home_depth) : x.matched;
    k->at_home = worker == b->home;
    if (b->home != PDR_NONE && choice->mode == PDR_MODE_PD) pdr_homes_sent(&b->r->learnt.homes, job->prompt_tokens - pdr_matched_tokens(job, b->home_depth), (int)k->at_home);
    k->uncached_tokens = job->prompt_tokens - known;
    k->lag_us = choice->mode == PDR_MODE_PD && b->r->learnt.late ? choice->transfer_us : 0;
    k->context_tokens = job->prompt_tokens + job->output_tokens;
    k->answer_tokens = job->answer_tokens;
    k->streamed = job->streamed;
    k->prompt_tokens = job->prompt_tokens;
    k->matched_tokens = known;
    k->wait_us = x.wait;
    k->transfer_us = choice->transfer_us;
    k->decode_us = choice->decode_cost;
    k->cost_us = choice->cost;
    h->pick++;
    w->last_pick = h->pick;
    b->registry.targets[choice->decode].d_last_pick = h->pick;
    b->r->random++;
    if (k->prefill != PDR_NONE) b->registry.infos[k->prefill].legs++;
    if (k->decode != k->prefill) b->registry.infos[k->decode].legs++;
    pdr_target *d = &b->registry.targets[choice->decode];
    if (w->guarded) let_in(b, worker);
    if (d != w && d->guarded) let_in(b, choice->decode);
    pdr_booking_charge(&b->ledger, k, state, b->now_ns);
    pdr_remember(b, k, hashes, n);
    b->r->stats.prompt_tokens += k->prompt_tokens;
    b->r->stats.matched_tokens += k->matched_tokens;
    return PDR_OK;
}

/* both are char[256], terminated */
static void copy_host(char *to, const char *from) { memcpy(to, from, 256); }

/* How long the exchange may wait for what. Paths that generate nothing have only the configuration's limits. */
static void set_patience(const pdr_books *b, const pdr_booking *k, pdr_decision *out)
{
    const pdr_config   *c = &b->r->config;
    pdr_patience_limits limits = {c->first_byte_least_ms * 1000ull, c->first_byte_timeout_ms * 1000ull, c->idle_least_ms * 1000ull,
                                  c->idle_timeout_ms * 1000ull};
    out->first_byte_us = out->answer_us = 0;
    out->idle_us = limits.idle_most_us;
    if (k->prefill == PDR_NONE) return;
    pdr_silence s = pdr_patience_bounds(&b->registry.infos[k->prefill].patience, &b->registry.infos[k->decode].patience, &b->r->learnt.patience,
                                        &limits, k->wait_us + k->work_us + k->transfer_us, (int)k->streamed, k->answer_tokens,
                                        k->mode == PDR_MODE_SINGLE);
    out->first_byte_us = s.first_byte_us;
    out->answer_us = s.answer_us;
    out->idle_us = s.idle_us;
}

void pdr_decision_of(const pdr_books *b, const pdr_booking *k, pdr_decision *out)
{
    const pdr_target   *d = &b->registry.targets[k->decode];
    const pdr_endpoint *e = &b->registry.endpoints[d->endpoint].e;
    memset(out, 0, offsetof(pdr_decision, prefill_host));
    out->prefill_host[0] = out->bootstrap_host[0] = 0;
    out->struct_size = sizeof *out;
    out->outcome = PDR_SEND;
    out->booking = pdr_booking_id(&b->ledger, k);
    out->mode = k->mode;
    out->batch = k->batch;
    out->engine = b->r->config.engine;
    out->candidates = k->candidates;
    out->prompt_tokens = k->prompt_tokens;
    out->matched_tokens = k->matched_tokens;
    out->wait_us = k->wait_us;
    out->prefill_us = k->work_us;
    out->transfer_us = k->transfer_us;
    out->decode_us = k->decode_us;
    out->cost_us = k->cost_us;
    out->decode = d->endpoint;
    out->decode_rank = d->rank;
    out->decode_port = e->port;
    out->decode_flags = e->flags;
    copy_host(out->decode_host, e->host);
    set_patience(b, k, out);
    out->prefill = out->prefill_rank = PDR_NONE;
    if (k->mode != PDR_MODE_PD) return;
    const pdr_target *p = &b->registry.targets[k->prefill];
    e = &b->registry.endpoints[p->endpoint].e;
    out->prefill = p->endpoint;
    out->prefill_rank = p->rank;
    out->prefill_dp_size = p->dp_size;
    out->prefill_port = e->port;
    out->prefill_flags = e->flags;
    if (!(e->flags & PDR_ENDPOINT_NULL_BOOTSTRAP_PORT))
        out->bootstrap_port = e->bootstrap_port      ? e->bootstrap_port
                              : b->r->pool.bootstrap_port ? b->r->pool.bootstrap_port
                                                          : b->r->config.bootstrap_port;
    out->room = k->room;
    out->room_key = b->r->room.key;
    out->room_counter = k->room_counter;
    copy_host(out->prefill_host, e->host);
    copy_host(out->bootstrap_host, e->bootstrap_host[0] ? e->bootstrap_host : e->host);
}

void pdr_decision_dry(const pdr_books *b, const pdr_ask *a, const pdr_choice *choice, pdr_decision *d)
{
    uint32_t          w = choice->mode == PDR_MODE_PD ? choice->prefill : choice->decode;
    pdr_prefill_terms x = pdr_prefill_terms_of(&b->registry.targets[w], &b->r->rates, &a->job, b->depth[w], 0, b->now_ns);
    pdr_booking       k = {.mode = choice->mode, .prefill = w, .decode = choice->decode, .batch = a->job.batch, .candidates = (uint32_t)choice->pairs,
                           .prompt_tokens = a->job.prompt_tokens, .matched_tokens = x.matched, .answer_tokens = a->job.answer_tokens,
                           .streamed = a->job.streamed, .wait_us = x.wait, .work_us = x.work,
                           .transfer_us = choice->transfer_us, .decode_us = choice->decode_cost, .cost_us = choice->cost};
    pdr_decision_of(b, &k, d);
    d->booking = 0;
}

void pdr_candidate_of(const pdr_books *b, pdr_candidate *c, uint32_t target, uint32_t role, const pdr_job *job, uint64_t mean_queue)
{
    const pdr_target *t = &b->registry.targets[target];
    *c = (pdr_candidate){.endpoint = t->endpoint, .rank = t->rank, .role = role, .barred = pdr_barred(t, job, b->now_ns)};
    if (role == PDR_ROLE_DECODE) {
        c->wait_us = pdr_decode_us(t, &b->r->rates, job);
    } else {
        pdr_prefill_terms x = pdr_prefill_terms_of(t, &b->r->rates, job, b->depth[target], mean_queue, b->now_ns);
        c->matched_tokens = x.matched;
        c->uncached_tokens = x.uncached;
        c->wait_us = x.wait;
        c->work_us = x.work;
        c->price_us = x.price;
    }
    c->cost_us = c->wait_us + c->work_us + c->price_us;
}
