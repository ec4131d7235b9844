/*
 * The default policy: expected time with its price.
 *
 *   prefill(w) = wait_w + work_jw * (1 + N / P)         N requests held or in prefill, P prefill targets
 *   decode(w)  = output * step longer by what runs there + queueing beyond its KV memory
 *
 * work counts only the tokens that w does not hold, so cached prefixes and load are weighed in one unit, microseconds; multiplying the work by the mean queue
 * charges a request for the time it takes from everybody behind it, which keeps reuse high under load (a pure own-time cost erodes it) without any
 * constant to tune. Stale data: waits are our own bookings drained by elapsed time; reports only add work that is not ours.
 */
#include "policy.h"

/* The loops work on copies of what does not change: the compiler cannot know that cost[] is not part of it. */

static void prefill(const pdr_view *v, uint64_t *cost)
{
    const pdr_job     job = *v->job;
    const pdr_rates   rates = *v->rates;
    const pdr_target *targets = v->targets;
    const uint32_t   *list = v->list;
    const uint16_t   *depth = v->depth;
    const uint64_t   *planned = v->planned_us;
    const uint64_t    now = v->now_ns, queue = v->mean_queue_q10, cold = pdr_prefill_us(&rates, job.prompt_tokens, 0), price = cold * queue >> 10;
    for (uint32_t i = 0, n = v->n; i < n; i++) {
        uint32_t          w = list[i];
        const pdr_target *t = &targets[w];
        uint64_t          us;
        if (!depth[w]) { /* most targets hold nothing of a prompt */
            uint64_t work = pdr_scale_q10(cold, t->slowness_q10);
            us = pdr_wait_us(t, now) + work + pdr_price_at(price, t->slowness_q10);
        } else {
            pdr_prefill_terms x = pdr_prefill_terms_of(t, &rates, &job, depth[w], queue, now);
            us = x.wait + x.work + x.price;
        }
        cost[i] = us + (planned ? planned[w] : 0);
    }
}

static void decode(const pdr_view *v, uint64_t *cost)
{
    const pdr_job     job = *v->job;
    const pdr_rates   rates = *v->rates;
    const pdr_target *targets = v->targets;
    const uint32_t   *list = v->list;
    for (uint32_t i = 0, n = v->n; i < n; i++) cost[i] = pdr_decode_us(&targets[list[i]], &rates, &job);
}

const pdr_policy pdr_policy_default = {"default", 1, prefill, decode};
