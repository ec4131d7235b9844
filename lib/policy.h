/*
 * A policy is one file with pure functions over a read-only view: one number per candidate, lower is better, PDR_COST_BARRED never. How the two
 * sides are joined (transfer, topology) and which candidates are possible at all is not its business (pair.h).
 * Ties are broken by the caller: the candidate that was not picked for the longest time.
 */
#ifndef PDR_POLICY_H
#define PDR_POLICY_H

#include "cost.h"

#define PDR_COST_BARRED UINT64_MAX
#define PDR_COST_MAX    (UINT64_MAX / 8) /* sums of a few costs never overflow */

typedef struct pdr_view {
    const pdr_target *targets;
    const uint32_t   *list;       /* candidates: target numbers */
    uint32_t          n;
    uint32_t          sequence;   /* decisions made so far */
    const uint16_t   *depth;      /* per target: leading blocks it holds; NULL on the decode side */
    const uint64_t   *planned_us; /* per target: work that held requests are planned for, may be NULL */
    const pdr_job    *job;
    const pdr_rates  *rates;
    uint64_t          now_ns;
    uint64_t          mean_queue_q10;
    uint64_t          random;     /* fresh for each decision */
} pdr_view;

typedef struct pdr_policy {
    const char *name;
    int         topology; /* its costs are microseconds: transfer time may be added to them */
    void (*prefill)(const pdr_view *v, uint64_t *cost); /* cost[i] for v->list[i] */
    void (*decode)(const pdr_view *v, uint64_t *cost);
} pdr_policy;

extern const pdr_policy pdr_policy_default, pdr_policy_round_robin, pdr_policy_random, pdr_policy_least_tokens,
    pdr_policy_power_of_two;

/* By PDR_POLICY_*; NULL if unknown. */
const pdr_policy *pdr_policy_of(uint32_t number);

#endif
