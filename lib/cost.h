/*
 * The arithmetic of expected time, in integer microseconds: what every policy, the books and pdr_explain share. Pure functions.
 *
 * Prefill: T(u, m) = base + u*linear + u*(m + u/2)*quadratic + m*reload for u uncached tokens behind m cached ones. Form and priors: Qwen3-32B bf16 TP2
 * on H100 (a published measurement of 15.9k tokens/s for 8,192-token chunks; docs/scheduling.md). The four are learnt (fit.h); a target that is slower or faster than the pool multiplies its work.
 * Wait: the predicted work booked there, drained by elapsed time; a worker that is overdue is expected to be so for as long again
 * (a stuck worker looks worse with every moment). Price: what the work costs those behind it, T * mean queue, less at a slow target (pdr_price_at).
 */
#ifndef PDR_COST_H
#define PDR_COST_H

#include "registry.h"

enum { PDR_COST_TOKENS_MAX = 1 << 20, PDR_OVERDUE_MAX_US = 600000000 };

/*
 * Where there is a queue about as much arrives as is served: while the backlog is served, as much again comes. So who is behind a prompt is not only who is held now, and
 * who goes before it not either.
 */
enum { PDR_AND_THOSE_WHO_COME = 2 };

/* What a choice must know about a request. */
typedef struct pdr_job {
    uint64_t prompt_tokens;
    uint64_t output_tokens;       /* expected */
    uint64_t block_millitokens;   /* tokens per prefix block, times 1000 */
    uint64_t answer_tokens;       /* asked for at most, over the batch; 0: not said */
    uint32_t api, samples, batch, excluded;
    uint32_t streamed, reserved;
    uint32_t exclude[8];
} pdr_job;

typedef struct pdr_rates {
    uint64_t base_us, linear_ns, quadratic_fs;
    uint64_t decode_us_per_request, decode_ps_per_token;
    uint64_t kv_bytes_per_token, transfer_latency_us;
    uint64_t mbps_host, mbps_rack, mbps_zone, mbps_far;
    uint64_t reload_ns; /* per cached token: it may have to come back from a slower tier. Learnt, 0 at first */
} pdr_rates;

static inline uint64_t pdr_prefill_us(const pdr_rates *k, uint64_t uncached, uint64_t cached)
{
    uint64_t u = uncached < PDR_COST_TOKENS_MAX ? uncached : PDR_COST_TOKENS_MAX;
    uint64_t m = cached < PDR_COST_TOKENS_MAX ? cached : PDR_COST_TOKENS_MAX;
    return k->base_us + (u * k->linear_ns + m * k->reload_ns) / 1000 + u * (m + u / 2) / 1000 * k->quadratic_fs / 1000000;
}

static inline uint64_t pdr_scale_q10(uint64_t us, uint32_t q10) { return us * q10 >> 10; }

/*
 * The price at a target that is slower than the pool. Those who are held lose as much by T there as anywhere: it is the same part of what all can do. Those who wait for a target of their own are
 * fewer there, by its slowness, for it is chosen where it is free. Halfway between the two. (Never more for being slow: else nobody would ever wait for such a target.) Only where it is clear (three eighths):
 * what is less may be a measurement that is wrong, and then the price brings too much there.
 */
enum { PDR_CLEARLY_SLOW_Q10 = 1408 };
static inline uint64_t pdr_price_at(uint64_t price, uint32_t slowness_q10)
{
    return __builtin_expect(slowness_q10 < PDR_CLEARLY_SLOW_Q10, 1) ? price : (price + (price << 10) / slowness_q10) / 2;
}

/* Speeds that differ by less than an eighth are one speed: measurements are not better than that, and noise must not decide. */
static inline int pdr_same_speed(uint64_t a_q10, uint64_t b_q10) { return (a_q10 > b_q10 ? a_q10 - b_q10 : b_q10 - a_q10) * 8 < b_q10; }

static inline uint64_t pdr_elapsed_us(uint64_t now_ns, uint64_t since_ns) { return now_ns > since_ns ? (now_ns - since_ns) / 1000 : 0; }

/* When the one request in prefill at a target should have been computed. */
static inline uint64_t pdr_through_ns(const pdr_target *t) { return t->since_ns + t->work_us * 1000u; }

/*
 * Whether a request may be sent to a target: it has none, or (`foreseen`) the one it has should have been computed by now and only its answer is still to come, which
 * some engines give when the KV cache has gone. One only: should the foresight be wrong, one request stands in the engine's queue too early, not a row of them.
 */
static inline int pdr_open_for(const pdr_target *t, uint32_t foreseen, uint64_t now_ns)
{
    return !t->requests || (foreseen && t->requests == 1 && pdr_through_ns(t) <= now_ns);
}

static inline uint64_t pdr_wait_us(const pdr_target *t, uint64_t now_ns)
{
    uint64_t wait = 0;
    if (t->requests) {
        uint64_t elapsed = pdr_elapsed_us(now_ns, t->since_ns);
        wait = elapsed <= t->work_us ? t->work_us - elapsed : elapsed - t->work_us;
        if (__builtin_expect(wait > PDR_OVERDUE_MAX_US, 0)) wait = PDR_OVERDUE_MAX_US;
    }
    if (__builtin_expect(t->foreign_us != 0, 0)) {
        uint64_t elapsed = pdr_elapsed_us(now_ns, t->foreign_ns);
        if (elapsed < t->foreign_us) wait += t->foreign_us - elapsed;
    }
    return wait;
}

/* Tokens of the request that `depth` leading blocks stand for; the last token is always computed. */
static inline uint64_t pdr_matched_tokens(const pdr_job *job, uint64_t depth)
{
    uint64_t matched = depth * job->block_millitokens / 1000;
    if (matched < job->prompt_tokens) return matched;
    return job->prompt_tokens ? job->prompt_tokens - 1 : 0;
}

typedef struct pdr_prefill_terms { uint64_t matched, uncached, wait, work, price; } pdr_prefill_terms;

/* `mean_queue_q10`: requests in prefill or held, per prefill target, times 1024. */
static inline pdr_prefill_terms pdr_prefill_terms_of(const pdr_target *t, const pdr_rates *k, const pdr_job *job, uint64_t depth,
                                                     uint64_t mean_queue_q10, uint64_t now_ns)
{
    pdr_prefill_terms x;
    x.matched = pdr_matched_tokens(job, depth);
    x.uncached = job->prompt_tokens - x.matched;
    x.wait = pdr_wait_us(t, now_ns);
    uint64_t pool = pdr_prefill_us(k, x.uncached, x.matched);
    x.work = pdr_scale_q10(pool, t->slowness_q10);
    x.price = pdr_price_at(pool * mean_queue_q10 >> 10, t->slowness_q10);
    return x;
}

/*
 * What decoding there costs: each output token's step is longer by what already runs (or is promised, requests still in prefill included: leaving
 * them out is ruinous with long contexts). Beyond the KV memory or the running limit the request queues: a token of KV
 * frees up about every 100 µs on a loaded worker.
 */
static inline uint64_t pdr_decode_us(const pdr_target *t, const pdr_rates *k, const pdr_job *job)
{
    uint64_t requests = (uint64_t)t->d_requests + t->d_foreign_requests, tokens = t->d_tokens + t->d_foreign_tokens;
    uint64_t us = job->output_tokens * (requests * k->decode_us_per_request + tokens / 1000 * k->decode_ps_per_token / 1000);
    uint64_t need = tokens + job->prompt_tokens + job->output_tokens;
    if (t->kv_capacity && need > t->kv_capacity) us += (need - t->kv_capacity) * 100;
    if (t->max_running && requests >= t->max_running) us += (requests - t->max_running + 1) * 100000;
    return us;
}

static inline uint64_t pdr_transfer_us(const pdr_rates *k, uint64_t tokens, uint64_t mbps)
{
    return k->transfer_latency_us + tokens * k->kv_bytes_per_token / mbps; /* bytes / (MB/s) = µs */
}

#endif
