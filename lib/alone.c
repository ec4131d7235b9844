#include "alone.h"

/* What the pair, or waiting for one, costs all. */
static uint64_t pair_us(const pdr_view *v, uint64_t ahead_us, const pdr_choice *pair)
{
    if (pair->decode == PDR_NONE) return UINT64_MAX;
    uint32_t          worker = pair->mode == PDR_MODE_PD ? pair->prefill : pair->decode;
    pdr_prefill_terms x = pdr_prefill_terms_of(&v->targets[worker], v->rates, v->job, v->depth[worker], v->mean_queue_q10, v->now_ns);
    return pair->cost + PDR_AND_THOSE_WHO_COME * ahead_us + (PDR_AND_THOSE_WHO_COME - 1) * x.price; /* once it is in the cost */
}

pdr_alone_terms pdr_alone_terms_of(const pdr_view *v, uint32_t target)
{
    const pdr_target *t = &v->targets[target];
    pdr_alone_terms   a = {.prefill = pdr_prefill_terms_of(t, v->rates, v->job, v->depth[target], 0, v->now_ns), .decode = pdr_decode_us(t, v->rates, v->job)};
    uint64_t          longer = pdr_prefill_us(v->rates, a.prefill.uncached, a.prefill.matched) - v->rates->base_us; /* its steps go anyway: they are longer by that */
    a.prefill.price = longer * ((uint64_t)t->d_requests + t->d_foreign_requests);
    a.cost = a.prefill.wait + a.prefill.work + a.prefill.price + a.decode;
    return a;
}

int pdr_alone_choose(const pdr_registry *g, const pdr_view *v, uint64_t ahead_us, pdr_choice *pair)
{
    uint64_t least = pair_us(v, ahead_us, pair), possible = 0;
    uint32_t best = PDR_NONE;
    for (uint32_t i = 0; i < g->head->decode_n; i++) {
        const pdr_target *t = &v->targets[g->decode[i]];
        if (!pdr_serves_alone(&g->endpoints[t->endpoint]) || pdr_barred(t, v->job, v->now_ns) != PDR_BARRED_NO) continue;
        uint64_t us = pdr_alone_terms_of(v, g->decode[i]).cost;
        possible++;
        if (us > least || (us == least && (best == PDR_NONE || t->d_last_pick >= v->targets[best].d_last_pick))) continue;
        least = us;
        best = g->decode[i];
    }
    if (best == PDR_NONE) return 0;
    uint64_t decode = pdr_decode_us(&v->targets[best], v->rates, v->job);
    *pair = (pdr_choice){.mode = PDR_MODE_SINGLE, .prefill = PDR_NONE, .decode = best, .alone = 1, .pairs = pair->pairs + possible,
                         .prefill_cost = least - decode, .decode_cost = decode, .cost = least};
    return 1;
}
