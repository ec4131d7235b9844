/*
 * Waits: how long each prefill server has work, as one pass over the queue sees it, so that a look at a held request need not compare all of them.
 *
 * Filled from the board once per pass, and for each choice of an arrival: O(P), some 4 instructions per server with AVX2, 12 without; renewed for the one server that a release or a plan of
 * the pass changes. Groups of PDR_WAIT_GROUP servers keep their least wait. So a look prices those who hold some of its prompt; of the others, where all have the pool's speed, the one with the least
 * wait, found in O(P / 16) and kept; else, as they have the least and the most slowness of each group too, only the groups that could be better. It is exact: it names the target that
 * pdr_pair_choose() would take as prefill under the default policy for a job without exclusions, where transfers decide nothing and no server does both (pdr_pair_apart).
 *
 * Works in scratch memory of the block, under the lock; nothing of it outlives a pass or a choice.
 */
#ifndef PDR_WAITS_H
#define PDR_WAITS_H

#include "least.h"
#include "pair.h"

enum { PDR_WAIT_GROUP = PDR_LEAST_OF };
#define PDR_WAIT_BARRED PDR_LEAST_NOBODY

typedef struct pdr_waits {
    /* scratch */
    pdr_groups us;           /* by position in the prefill list: wait and what is planned there; PDR_WAIT_BARRED: not to be used */
    uint32_t *slow;          /* per group: the least slowness_q10, and shifted by 16 the most; only where speeds differ */
    uint32_t *touched;       /* where the pass has planned or opened something: each once */
    /* of the pass */
    uint32_t touched_n;
    uint64_t sum_us;         /* of all waits, nothing planned, barred ones included */
    uint32_t possible, idle; /* not barred; idle: of those, with nothing in prefill by our books */
    int      wide;           /* pdr_least_is_wide() */
    uint32_t even;           /* all have the speed of the pool */
    uint32_t first;          /* then: the position of the least us; PDR_NONE: not known */
    uint32_t decode;         /* first decode in its list that may be possible */
    uint32_t decodes;        /* 1: it is, as long as nothing is released */
} pdr_waits;

typedef struct pdr_wait_best {
    uint32_t          target; /* PDR_NONE: all are barred */
    uint64_t          cost;   /* as pdr_choice.prefill_cost */
    pdr_prefill_terms terms;  /* matched, uncached and work only */
} pdr_wait_best;

uint32_t pdr_wait_groups(uint32_t targets);
/* Begins a pass: all of the above; planned_us[] and steps[] are the caller's to clear. */
void pdr_waits_begin(pdr_waits *w, const pdr_registry *g, uint64_t now_ns);
/* The target's own bookings or what is planned there (planned_us) changed. */
void pdr_waits_renew(pdr_waits *w, const pdr_registry *g, uint32_t target, uint64_t planned_us, uint64_t now_ns);
static inline void pdr_waits_change(pdr_waits *w, uint32_t at, uint64_t us)
{
    if (at == w->first || us <= w->us.v[at]) w->first = PDR_NONE;
    w->us.v[at] = us < PDR_WAIT_BARRED ? us : PDR_WAIT_BARRED - 1;
    pdr_groups_renew(&w->us, at / PDR_WAIT_GROUP, w->wide);
}

/* More is planned there. */
static inline void pdr_waits_plan(pdr_waits *w, const pdr_registry *g, uint32_t target, uint64_t us)
{
    uint32_t at = g->board.place[target];
    if (w->us.v[at] != PDR_WAIT_BARRED) pdr_waits_change(w, at, w->us.v[at] + us);
}
/* Some decode target may be used. */
int pdr_waits_decode_after(pdr_waits *w, const pdr_registry *g, uint64_t now_ns);
static inline int pdr_waits_decode(pdr_waits *w, const pdr_registry *g, uint64_t now_ns)
{
    return w->decodes || pdr_waits_decode_after(w, g, now_ns);
}
/* Where all have one speed: position of the least wait, of equal ones who rested longest. PDR_NONE: all are barred. */
uint32_t pdr_waits_find(const pdr_waits *w, const pdr_registry *g);
static inline uint32_t pdr_waits_first(pdr_waits *w, const pdr_registry *g)
{
    if (w->first == PDR_NONE) w->first = pdr_waits_find(w, g);
    return w->first;
}
/* Where v->job is prefilled best if nobody holds any of it; 0: pdr_waits_best() is to be asked. */
static inline int pdr_waits_cold(pdr_waits *w, const pdr_registry *g, const pdr_view *v, pdr_wait_best *best)
{
    const uint64_t tokens = v->job->prompt_tokens, cold = pdr_prefill_us(v->rates, tokens, 0);
    if (!w->even || pdr_waits_first(w, g) == PDR_NONE) return 0;
    best->cost = w->us.v[w->first] + cold + (cold * v->mean_queue_q10 >> 10);
    best->target = g->prefill[w->first];
    best->terms.matched = 0;
    best->terms.uncached = tokens;
    best->terms.work = cold;
    return best->cost < PDR_KEY_COST_MOST;
}
/* Where v->job is prefilled best. `holders`: those with a v->depth. */
pdr_wait_best pdr_waits_best(pdr_waits *w, const pdr_registry *g, const pdr_view *v, const uint32_t *holders, uint32_t holding);

#endif
