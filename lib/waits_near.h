/*
 * Where topology is known: the pair of least cost for one request, without pricing every server.
 *
 * What decoding and the transfer cost depends on a prefill only through its host, rack and zone, and the least of each is kept (board_near.h). So a prefill's whole cost is its wait, work and
 * price, and the least of five sums; and those whose wait alone is too long, which waits.h knows by groups of sixteen, are not looked at. Exact: it names the pair that pdr_pair_choose() would take
 * under the default policy for a job without exclusions where no server does both, ties included: of equal costs the pair that rested longest together, then the first decode, the nearer prefill, the first.
 *
 * O(P / 16 + prefills that may be best), some 30 instructions for each of those; equal costs are told apart by the members of the decodes' groups. Under the lock; pdr_waits as in waits.h.
 */
#ifndef PDR_WAITS_NEAR_H
#define PDR_WAITS_NEAR_H

#include "waits.h"

/* What is the same for all prefills in one look. */
typedef struct pdr_near_look {
    const pdr_registry *g;
    const pdr_view     *v;
    uint64_t by_tier[4];  /* transfer times, never falling */
    uint64_t all, nowhere; /* the cheapest decode; of those without a zone */
    uint64_t elsewhere;   /* one of them with its transfer, for a prefill that has a zone */
    const pdr_near_group *hosts, *racks, *zones;
    uint64_t least;       /* decode and transfer cost that at least */
    uint64_t nth, output;
    int64_t  need;        /* tokens */
    int64_t  within;      /* with so much room in a group its least step is its least cost: need; or INT64_MAX, more than there ever is */
} pdr_near_look;

typedef struct pdr_near_best {
    pdr_near_look look;
    uint64_t total, prefill_us;
    uint32_t at;          /* position of the prefill; PDR_NONE: there is no pair */
    uint32_t known;       /* the rest is known */
    uint32_t decode, order; /* its position; how near: 0 host, 1 rack, 2 zone, 3 the prefill has none, 4 far */
    uint64_t tie;
} pdr_near_best;

/* The prefill of the best pair, as pdr_waits_best(). *v and *g stay while *best is used. */
pdr_wait_best pdr_near_choose(pdr_waits *w, const pdr_registry *g, const pdr_view *v, const uint32_t *holders, uint32_t holding, pdr_near_best *best);
/* The whole choice, as pdr_pair_with(). `possible`: prefills that are not barred. */
void          pdr_near_pair(pdr_near_best *best, uint32_t possible, pdr_choice *out);

#endif
