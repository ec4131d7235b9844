/*
 * The choice of a (prefill, decode) pair: the exact minimum of prefill cost + transfer + decode cost over all pairs, in O(P + D + groups).
 *
 * The sum separates but for the transfer, and that depends on a prefill only through its distance tier to the decode server (same host, rack, zone, or
 * farther). So the best prefill of each host, rack, zone and of all is kept, and each decode compares at most four sums. Servers that
 * do both alone are candidates as well. Ties: the pair whose two members together were not picked for the longest time, then the lowest numbers.
 *
 * Works in scratch memory of the block (two costs per target, three positions per endpoint), under the lock. About 5 ns per candidate.
 */
#ifndef PDR_PAIR_H
#define PDR_PAIR_H

#include "policy.h"

typedef struct pdr_scratch {
    uint64_t *prefill_cost, *decode_cost; /* [max_targets]; pair.c turns them into keys in place */
    uint32_t *best_host, *best_rack, *best_zone; /* [max_endpoints]: position in the prefill list, PDR_NONE */
} pdr_scratch;

enum { PDR_TIER_HOST = 0, PDR_TIER_RACK = 1, PDR_TIER_ZONE = 2, PDR_TIER_FAR = 3 };

typedef struct pdr_choice {
    uint32_t mode;              /* PDR_MODE_* */
    uint32_t alone;             /* a decode server does it alone (alone.h): it is sent at once */
    uint32_t prefill, decode;   /* target numbers; prefill PDR_NONE in PDR_MODE_SINGLE */
    uint64_t prefill_cost, decode_cost, transfer_us, cost;
    uint64_t pairs;             /* possible ones */
    uint64_t retry_ns;          /* with no pair: when a breaker lets somebody in again, 0 unknown */
} pdr_choice;

int pdr_tier(const pdr_target *p, const pdr_target *d);
uint64_t pdr_tier_us(const pdr_rates *k, int tier, uint64_t tokens);
/* PDR_BARRED_*: why a target cannot be used for this job now. */
uint32_t pdr_barred(const pdr_target *t, const pdr_job *job, uint64_t now_ns);

/*
 * Keys: a cost in the upper bits and, in the lower 18, how recently the candidate was picked, so that one comparison decides both and of equal
 * costs the one that rested longest wins. Sums of a prefill key, a decode key and a shifted transfer time are keys of pairs: three times 2^44 µs fit.
 */
enum { PDR_TIE_BITS = 18, PDR_TIE_MOST = 65535 };
#define PDR_KEY_COST_MOST (1ull << 44)

static inline uint64_t pdr_key(uint64_t cost, uint32_t rested)
{
    return (cost < PDR_KEY_COST_MOST ? cost : PDR_KEY_COST_MOST) << PDR_TIE_BITS | (rested < PDR_TIE_MOST ? PDR_TIE_MOST - rested : 0);
}

static inline uint64_t pdr_key_of(uint64_t cost, uint32_t last_pick, uint32_t now) { return pdr_key(cost, now - last_pick); /* picks count up and may wrap */ }

/* Whether the prefill of a pair can be found by itself under this policy: transfers decide nothing (waits.h), or only how near a decode is (waits_near.h), and no server does both. 0: no. */
enum { PDR_APART_EVERYWHERE = 1, PDR_APART_NEAR = 2 };
int pdr_pair_apart(const pdr_registry *g, const pdr_policy *policy);
/* The rest of the choice where it was found so: as pdr_pair_choose() for a job without exclusions. `possible`: prefills that are not barred. */
int pdr_pair_with(const pdr_registry *g, const pdr_view *view, uint32_t prefill, uint64_t prefill_cost, uint32_t possible, pdr_choice *out);

/*
 * `view` carries targets, depth, job, rates, time and numbers; lists come from the registry. PDR_OK, or PDR_E_NO_PAIR. `single_only`: no
 * pair may be used (the job is not one for PD); `any_single`: every server may serve it alone (API other than generation).
 */
int pdr_pair_choose(const pdr_registry *g, const pdr_policy *policy, const pdr_view *view, const pdr_scratch *s, int single_only,
                    int any_single, pdr_choice *out);

#endif
