/*
 * What other gateways compute, as pure functions: one decision of each published policy over a snapshot of the prefill workers.
 *
 * A formula sees what its gateway would see, writes its own figure of merit for every worker into cost[] (lower is better; the unit is the
 * formula's: tokens, seconds, requests, a negated score) and returns the worker it chooses. No state, no clock; random numbers come from the
 * caller's generator. Where a gateway breaks ties by chance, the least recently used worker is taken (`turn`), so that a run can be repeated.
 *
 * The formulas follow the sources named beside each function, as read in August and September 2026. Load is exact and undelayed
 * if the caller's is: that is kinder to the peers than their own polling. O(n) each, no allocation.
 */
#ifndef SIMULATE_PEER_FORMULAS_H
#define SIMULATE_PEER_FORMULAS_H

#include <stdint.h>

enum { PEER_WORKERS_MAX = 4096, PEER_NOBODY = UINT32_MAX };

/* One prefill worker as the formulas see it. */
struct peer_worker {
    double   requests;  /* in flight there: waiting or in prefill */
    double   pending;   /* uncached prompt tokens of those that are still to be computed */
    double   wait_s;    /* seconds until all of them are computed */
    double   matched;   /* leading tokens of this request's prompt that are cached there */
    double   work_s;    /* seconds to compute the rest of this request's prompt there, alone */
    double   kv_used;   /* part of its KV memory that is in use, 0 to 1 */
    uint64_t turn;      /* when it was last chosen: any number that grows */
};

struct peer_case {
    const struct peer_worker *w;
    uint32_t                  n;      /* at least 1, at most PEER_WORKERS_MAX */
    double                    prompt; /* tokens of the request */
    uint64_t                 *random; /* state of the caller's generator */
};

/* A uniform number below n; advances the generator (SplitMix64). */
uint32_t peer_random(uint64_t *state, uint32_t n);

/* Fewest requests; fewest uncached tokens pending. */
uint32_t peer_least_requests(const struct peer_case *c, double *cost);
uint32_t peer_least_tokens(const struct peer_case *c, double *cost);
/* Two different workers at random, the one with fewer requests (smg policies/power_of_two.rs). Others cost infinity. */
uint32_t peer_power_of_two(const struct peer_case *c, double *cost);
/* Anybody. cost: 0 for the chosen one, 1 for others. */
uint32_t peer_any(const struct peer_case *c, double *cost);

/*
 * SGLang / smg cache_aware (policies/cache_aware.rs): if max - min > abs and max > rel * min (requests), fewest requests, whatever is cached;
 * else the longest match if it is more than `threshold` of the prompt; else fewest requests. cost: requests, or minus the matched part.
 */
uint32_t peer_cache_aware(const struct peer_case *c, double threshold, double abs, double rel, double *cost);

/*
 * NVIDIA Dynamo (lib/kv-router/src/scheduling/selector): least max(pending + prompt - credit * matched, 0), in tokens. The decode terms are
 * zero on a prefill router. Credit 1 is the default.
 */
uint32_t peer_dynamo(const struct peer_case *c, double credit, double *cost);
/* Dynamo's admission gate (scheduling/queue.rs): 1 if every worker has more than threshold * batch tokens pending, so requests are parked. */
int      peer_dynamo_busy(const struct peer_worker *w, uint32_t n, double threshold, double batch);
/* Dynamo's WSPT order (scheduling/policy.rs, Smith's rule), fixed on arrival: higher goes first. */
double   peer_wspt_key(double prompt, double best_matched);

/*
 * llm-d / GAIE endpoint picker: weighted sum of scores in [0, 1], highest wins. prefix: matched part of the prompt; queue: (max - requests) /
 * (max - min), 1 if all are equal; kv: 1 - kv_used.
 */
uint32_t peer_blend(const struct peer_case *c, double prefix, double queue, double kv, double *cost);
/*
 * llm-d sticky until saturated (prefixcacheaffinity filter, token load scorer): of the workers that match at least `match` of the prompt the
 * one with the fewest tokens pending + own uncached; all workers if none matches or if that one has more than tau tokens more than the best.
 */
uint32_t peer_sticky(const struct peer_case *c, double match, double tau, double *cost);

/* LMetric (arXiv 2603.15202): least (pending + own uncached) * (requests + 1). */
uint32_t peer_lmetric(const struct peer_case *c, double *cost);

/*
 * AIBrix prefix_cache.go: max - min > `spread` requests: fewest requests. Else the longest match, then fewest requests, among the workers with at most
 * mean + one standard deviation requests and any match; else fewest requests.
 */
uint32_t peer_aibrix(const struct peer_case *c, double spread, double *cost);

/* Seconds to the first token: wait + own work, times (1 + price) for the work. Mooncake's conductor without remote fetching: price 0. */
uint32_t peer_seconds(const struct peer_case *c, double price, double *cost);

#endif
