/*
 * Decode servers that may also do a request alone (PDR_ENDPOINT_ALONE): whether this one is better off there than with a pair, or in the queue for one.
 *
 * Both ways are priced by what they cost everybody, a delay counting the same whosever it is:
 *
 *   pair    its cost as the policy has it, twice the work held that goes before it, and once more the price: as many as are before and behind it come meanwhile
 *   alone   wait + work there + decode, and the prompt's time but for a step's fixed part for each request that decodes there: its steps are longer by that
 *
 * Decided at arrival only: who is held is not looked at again, and the passes over the queue cost what they did. O(decode servers), and nothing at all
 * where no server has the flag.
 */
#ifndef PDR_ALONE_H
#define PDR_ALONE_H

#include "pair.h"

/* What doing it alone costs at a target; the sum of all is compared. */
typedef struct pdr_alone_terms {
    pdr_prefill_terms prefill; /* price: what the requests that decode there lose by it */
    uint64_t          decode, cost;
} pdr_alone_terms;
pdr_alone_terms pdr_alone_terms_of(const pdr_view *view, uint32_t target);

/* `pair`: what pdr_pair_choose() found; decode PDR_NONE: nothing. ahead_us: work held that goes before it, per prefill server. Replaces *pair if alone is better: 1, else 0. */
int pdr_alone_choose(const pdr_registry *g, const pdr_view *view, uint64_t ahead_us, pdr_choice *pair);

#endif
