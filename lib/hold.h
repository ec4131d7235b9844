/*
 * The queue of held requests (the router may hold a request while every suitable worker is busy).
 *
 * A bounded table in the block. What is kept of a request is what a later choice needs: its job, its size (prefill time on the best worker at
 * arrival), deadline, priority, and a sample of its prefix chain: up to PDR_HELD_SAMPLES hashes, evenly spaced, so that matching it again costs the same
 * for every prompt and is exact to 1/64 of its length. Order: higher priority first; within one priority descending (1 + age/W) / size, shortest
 * first with ageing (the order, not late binding, is where holding gains; docs/scheduling.md). W: see pdr_hold_order().
 *
 * Costs: add and remove O(1); order O(held) per pass for the first few. Called with the router's lock held. A slot's `booking` is the truth:
 * written last, cleared first; pdr_hold_rebuild() makes the free list anew.
 */
#ifndef PDR_HOLD_H
#define PDR_HOLD_H

#include "cost.h"

enum { PDR_HELD_SAMPLES = 64, PDR_HELD_WINDOW = 16 /* requests looked at per pass */ };

typedef struct pdr_held {
    uint64_t booking;        /* id; 0: free */
    uint64_t enqueued_ns, deadline_ns;
    uint64_t size_us;        /* prefill time on the best worker */
    uint64_t sequence;       /* in order of arrival */
    uint64_t looked;         /* the pass in which it was looked at */
    int64_t  priority;
    uint32_t next;           /* free list */
    uint32_t samples;        /* sample i is the last of the chain's first pdr_held_depth(i + 1) blocks */
    uint32_t blocks;         /* of the whole chain */
    uint32_t single_only;    /* not one for a pair */
    pdr_job  job;
    uint64_t sample[PDR_HELD_SAMPLES];
} pdr_held;

typedef struct pdr_hold_head {
    uint32_t max, held, free_first, high; /* slots beyond high are free */
    uint64_t size_us;        /* sum over the held */
    uint64_t sequence;       /* of the last that came */
    uint64_t pass;           /* passes so far */
} pdr_hold_head;

typedef struct pdr_hold {
    pdr_hold_head *head;
    pdr_held      *slots;
} pdr_hold;

void pdr_hold_init(const pdr_hold *h, uint32_t max);
/* A slot for a request, PDR_NONE when full. `hashes` is its chain; booking is set by pdr_hold_commit(). */
uint32_t pdr_hold_add(const pdr_hold *h, const pdr_job *job, const uint64_t *hashes, size_t n);
void     pdr_hold_commit(const pdr_hold *h, uint32_t slot, uint64_t booking);
void     pdr_hold_remove(const pdr_hold *h, uint32_t slot);
/*
 * The first (at most cap) in order at now_ns that were not looked at in this pass into out[], their number returned. ageing_us: W, the wait that doubles a request's urgency.
 * Ties: who came first.
 */
uint32_t pdr_hold_order(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns, uint32_t *out, uint32_t cap);
/* A pass begins; this one has been looked at in it, and is now of that size. */
void pdr_hold_pass(const pdr_hold *h);
void pdr_hold_looked(const pdr_hold *h, uint32_t slot, uint64_t size_us);
/* Leading blocks for a match depth over the samples. */
uint32_t pdr_held_depth(const pdr_held *s, uint32_t sample_depth);
void     pdr_hold_rebuild(const pdr_hold *h);
int      pdr_hold_check(const pdr_hold *h, char *why, size_t cap);

#endif
