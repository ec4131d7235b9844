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

static void prefill(const pdr_view *v, uint64_t *cost)
{
    uint64_t cold = pdr_prefill_us(v->rates, v->job->prompt_tokens, 0); /* most targets hold nothing of a prompt */
    for (uint32_t i = 0; i < v->n; i++) {
        uint32_t          w = v->list[i];
        const pdr_target *t = &v->targets[w];
        uint64_t          wait, work;
        if (!v->depth[w]) {
            wait = pdr_wait_us(t, v->now_ns);
            work = pdr_scale_q10(cold, t->slowness_q10);
            work += work * v->mean_queue_q10 >> 10;
        } else {
            pdr_prefill_terms x = pdr_prefill_terms_of(t, v->rates, v->job, v->depth[w], v->mean_queue_q10, v->now_ns);
            wait = x.wait;
            work = x.work + x.price;
        }
        cost[i] = wait + work + (v->planned_us ? v->planned_us[w] : 0);
    }
}

static void decode(const pdr_view *v, uint64_t *cost)
{
    for (uint32_t i = 0; i < v->n; i++) cost[i] = pdr_decode_us(&v->targets[v->list[i]], v->rates, v->job);
}

const pdr_policy pdr_policy_default = {"default", 1, prefill, decode};
