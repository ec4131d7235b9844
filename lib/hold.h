/*
 * The queue of held requests (the router may hold a request while every suitable worker is busy).
 *
 * A bounded table in the block. What is kept of a request is what a later choice needs: its job, its size (prefill time where most of it is cached),
 * deadline, priority, tenant, and a sample of its prefix chain: up to PDR_HELD_SAMPLES hashes, evenly spaced, so that matching it again costs the same for every
 * prompt and is exact to 1/64 of its length.
 *
 * Order: higher priority first. Within one priority whoever has waited for half of what he may wait, the oldest first, as long as such requests had no more than an eighth of all work lately; then descending
 * (W + age) / size * fairness: shortest first with ageing (docs/scheduling.md). Sizes count in steps of an eighth of an octave (9 %). Fairness: 1, or less for a
 * tenant that was served more than its share lately, down to 1/16.
 *
 * Requests of one priority, tenant and size step stand in a lane, first come first served, so only the lanes' heads need to be compared: a pass ranks them once, O(lanes), in
 * practice some hundred however many are held (turns.h, where nobody has a priority and there is one tenant), and then finds each next one by groups of sixteen, O(16 + lanes / 16); add and remove O(1). Tenants share 256 accounts by
 * their hash. Called with the router's lock held. A slot's `booking` is the truth: written last, cleared first; pdr_hold_rebuild() makes everything else anew.
 */
#ifndef PDR_HOLD_H
#define PDR_HOLD_H

#include "cost.h"
#include "least.h"
#include "turns.h"

enum {
    PDR_HELD_SAMPLES = 64,
    PDR_TENANTS = 256,
    PDR_OF_ALL = PDR_TENANTS, /* accounts behind those of the tenants: of everybody, and of whoever had waited for half of his time */
    PDR_OF_OLD,
    PDR_ACCOUNTS
};

typedef struct pdr_held {
    uint64_t booking;        /* id; 0: free */
    uint64_t enqueued_ns, deadline_ns;
    uint64_t size_us;        /* prefill time on the best worker */
    uint64_t sequence;       /* in order of arrival */
    int64_t  priority;
    uint64_t tenant;         /* 0: nobody's */
    uint32_t next, prev;     /* in the lane; next: free list */
    uint32_t lane;
    uint32_t samples;        /* sample i is the last of the chain's first pdr_held_depth(i + 1) blocks */
    uint32_t blocks;         /* of the whole chain */
    uint32_t single_only;    /* not one for a pair */
    uint32_t home, reserved; /* home: target, PDR_NONE */
    pdr_job  job;
    uint64_t sample[PDR_HELD_SAMPLES];
} pdr_held;

typedef struct pdr_lane {
    int64_t  priority;
    uint64_t head_ns, head_half_ns; /* of the first: when it came, and when half of its time is over */
    uint64_t head_sequence;
    uint64_t work_us;        /* sizes of all in it */
    uint32_t inverse;        /* 2^31 / size */
    uint32_t step;           /* of size */
    uint32_t account;        /* of the tenant */
    uint32_t first, last, held;
    uint32_t chained;        /* next with this hash */
    uint32_t place;          /* in active[] */
    uint64_t pass;           /* the pass in which cursor counts */
    uint32_t cursor, pad;    /* first not looked at; PDR_NONE: all were */
} __attribute__((aligned(64))) pdr_lane;

typedef struct pdr_account {
    uint64_t served_us, served_ns; /* halves every PDR_FAIR_HALF_NS */
    uint32_t held, fairness_q10;
} pdr_account;

typedef struct pdr_hold_head {
    uint32_t max, held, free_first, high; /* slots beyond high are free */
    uint64_t size_us;        /* sum over the held */
    uint64_t sequence;       /* of the last that came */
    uint64_t pass;           /* passes so far */
    uint64_t plans;          /* 1 + the relists of the registry with which the last pass left nothing planned at any server; 0: there may be something */
    uint64_t ranked;         /* the pass whose lanes are ranked: 0 none */
    uint32_t ranks, looked_at; /* lanes ranked, all of one priority; the slot that pdr_hold_next() gave last */
    uint32_t lanes, lane_free, tenants, buckets; /* active ones; free list; accounts with held requests; power of two */
    uint64_t unlike;         /* lanes in use of another priority than 0 */
    uint32_t wide, behind;   /* pdr_least_is_wide(), where the last pass was begun; the lane, by its place in turn[], of which one was looked at and the next one's turn is not known: PDR_NONE */
    uint64_t longest_us;     /* that anybody has waited so far */
    uint32_t old_first, reserved; /* in this pass: whoever has waited for half of his time goes first */
    pdr_account account[PDR_ACCOUNTS];
} pdr_hold_head;

typedef struct pdr_hold {
    pdr_hold_head *head;
    pdr_held      *slots;
    pdr_lane      *lanes;    /* max */
    pdr_lane_turns first;    /* of each lane in use, by its place in active[] */
    pdr_groups     turn;     /* of each lane that is ranked when its next one is due, the least first; PDR_LEAST_NOBODY: all were looked at */
    uint32_t      *ranked;   /* max: numbers of the lanes of turn[] */
    uint32_t      *active;   /* max: numbers of lanes in use */
    uint32_t      *bucket;   /* buckets */
} pdr_hold;

uint32_t pdr_hold_buckets(uint32_t max);
/* Groups of sixteen turns. */
static inline uint32_t pdr_hold_groups(uint32_t max) { return (max + PDR_LEAST_OF - 1) / PDR_LEAST_OF; }
void     pdr_hold_init(const pdr_hold *h, uint32_t max);
/* A slot for a request, PDR_NONE when full. `hashes` is its chain; times, size, priority and tenant are set by the caller before pdr_hold_commit(). */
uint32_t pdr_hold_add(const pdr_hold *h, const pdr_job *job, const uint64_t *hashes, size_t n);
void     pdr_hold_commit(const pdr_hold *h, uint32_t slot, uint64_t booking);
void     pdr_hold_remove(const pdr_hold *h, uint32_t slot);
/* A tenant was served, from the queue or past it; `old`: with somebody who had waited for half of his time. */
void     pdr_hold_charge(const pdr_hold *h, uint64_t tenant, uint64_t work_us, uint64_t now_ns, int old);
/* Whether half of its time is over. */
int      pdr_held_is_old(const pdr_held *s, uint64_t now_ns);
/* Somebody has waited so long. */
void     pdr_hold_waited(const pdr_hold *h, uint64_t us);
/* A pass begins. */
void     pdr_hold_pass(const pdr_hold *h, uint64_t now_ns);
/* The next in order that was not looked at in this pass, PDR_NONE: none. ageing_us: W, the wait that doubles a request's urgency; it and the time are the same all through a pass. */
uint32_t pdr_hold_next(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns);
/* Work that is served before a request of that size and priority which comes now, as far as the queue knows, if it were all of one tenant. */
uint64_t pdr_hold_ahead_us(const pdr_hold *h, uint64_t size_us, int64_t priority);
/*
 * The same for a tenant: what others have held counts by their shares and his. In half of the time that it may wait the servers do half_us; after that it goes before all of those who had more
 * than their shares, if he had not. O(tenants + lanes); changes nothing.
 */
uint64_t pdr_hold_ahead_of_us(const pdr_hold *h, uint64_t size_us, int64_t priority, uint64_t tenant, uint64_t half_us, uint64_t now_ns);
/*
 * How many go before a request, and their sizes: as pdr_hold_next() would give them in the pass that was begun last. `s` is a slot, or one that is in no slot (a tenant of whom nothing
 * is held counts as one who had no more than his share). O(held). Between requests of different deadlines in one lane the order is that of their arrival.
 */
typedef struct pdr_standing { uint32_t place; uint64_t ahead_us; } pdr_standing;
pdr_standing pdr_hold_standing(const pdr_hold *h, const pdr_held *s, uint64_t ageing_us, uint64_t now_ns);
/* How long the oldest has waited. */
uint64_t pdr_hold_oldest_us(const pdr_hold *h, uint64_t now_ns);
/* Leading blocks for a match depth over the samples. */
uint32_t pdr_held_depth(const pdr_held *s, uint32_t sample_depth);
void     pdr_hold_rebuild(const pdr_hold *h);
int      pdr_hold_check(const pdr_hold *h, char *why, size_t cap);

#endif
