/*
 * Registry: endpoints, their targets (DP ranks), the books' per-target sums, and the lists of candidates.
 *
 * Everything is plain data in the block, reached through a pdr_registry (pointers of this process, made per call). All functions are called
 * with the router's lock held. Costs: reading a target is one or two cache lines; finding an endpoint, putting and removing one cost the same however many there are;
 * the candidate lists are rebuilt, O(targets), when an endpoint is put, removed, drained, or its health changes: once for all that is put or removed in one call.
 * An endpoint's slot is its id; a removed one's slot is free again when its last booking has ended.
 */
#ifndef PDR_REGISTRY_H
#define PDR_REGISTRY_H

#include "board.h"
#include "board_near.h"
#include "lookup.h"
#include "patience.h"
#include "places.h"

#include "pdroute/pdroute.h"

#define PDR_NO_GROUP UINT32_MAX

enum { PDR_GUARD_NONE = 0, PDR_GUARD_BREAKER = 1, PDR_GUARD_PAUSE = 2 /* it asked for a pause (429, 503 with Retry-After) */ };

/* A target: what a choice reads. Line 0 for prefill, line 1 for decode; kept apart from what is only shown. */
typedef struct pdr_target {
    /* line 0 */
    uint64_t work_us;        /* predicted prefill time of the bookings in prefill here */
    uint64_t since_ns;       /* when the present head of that work began */
    uint64_t tokens;         /* uncached tokens of those bookings */
    uint64_t foreign_us;     /* prefill work that the engine reported beyond ours, at foreign_ns */
    uint64_t foreign_ns;
    uint64_t open_until_ns;  /* breaker: no requests before this */
    uint32_t requests;       /* bookings in prefill here */
    uint32_t slowness_q10;   /* 1024: as the pool, 2048: twice as slow */
    uint32_t endpoint;
    uint32_t last_pick;      /* tie-break: the longest unpicked goes first */
    /* line 1 */
    uint64_t d_tokens;       /* context tokens of the bookings that decode (or will) here */
    uint64_t kv_capacity;    /* tokens, 0 unknown */
    uint64_t d_foreign_tokens;
    uint32_t d_requests;
    uint32_t d_foreign_requests;
    uint32_t max_running;    /* 0 unknown */
    uint32_t rank;           /* PDR_NONE without DP */
    uint32_t host, rack, zone; /* group numbers, PDR_NO_GROUP unknown */
    uint32_t d_last_pick;
    uint32_t dp_size;
    uint32_t guarded;        /* PDR_GUARD_*: open_until_ns is set: look at it */
} __attribute__((aligned(64))) pdr_target;

/* What is only counted and shown. */
typedef struct pdr_target_info {
    pdr_load report;         /* the last one, merged */
    uint64_t report_ns;      /* 0: never */
    uint64_t legs, failures, cached_tokens, prompt_tokens;
    uint64_t foreign_tokens, foreign_requests, d_foreign_requests, d_foreign_tokens; /* beyond ours, in the last report */
    uint64_t learnt_ns;      /* when its slowness was last measured, 0: never */
    uint64_t took_us, expected_us; /* of its recent prompts, older ones fading */
    uint64_t cache_blocks;   /* learnt: prefix blocks that it really keeps, 0: as is written down (kv_capacity), or endless */
    uint16_t measurements;   /* of its slowness, since it is known */
    uint16_t own;            /* 1: some of them of our own prompts, which tell more than the engine's counters */
    uint32_t measured_q10;   /* slowness as its prompts showed; pdr_target.slowness_q10 is what choices use */
    pdr_patience patience;   /* how long it may be silent */
} pdr_target_info;

enum { PDR_DRAIN_OPERATOR = 1, PDR_DRAIN_DOCUMENT = 2 };
enum { PDR_SLOT_FREE = 0, PDR_SLOT_USED = 1, PDR_SLOT_LEAVING = 2 /* removed, bookings not yet ended */ };

typedef struct pdr_endpoint_rec {
    uint32_t     slot;       /* PDR_SLOT_*; written last when used, first when freed */
    uint32_t     draining;   /* PDR_DRAIN_* */
    uint32_t     down;       /* by health */
    uint32_t     failures;   /* in a row */
    uint32_t     first_target, targets;
    uint32_t     bookings;   /* legs of live bookings */
    uint32_t     name_hash;
    uint32_t     group[3], group_hash[3]; /* topology: host, rack, zone; PDR_NO_GROUP */
    uint32_t     openings;   /* times in a row that its breaker opened */
    uint64_t     opened_ns;  /* the last time, 0: it has answered since */
    uint32_t     window, outcomes; /* breaker.h: the last outcomes, and how many are known */
    uint32_t     suspect_with; /* 1 + the partner with which it was last suspected and since when it has not been cleared; 0: none */
    uint64_t     alive_ns;   /* when it last gave what only one that works can: a computed prompt, the first byte of an answer */
    uint32_t     slow;       /* its present answers take much longer than others' */
    uint32_t     refused;    /* its last failure was a refused connection: trying it costs next to nothing */
    uint32_t     address_hash;
    pdr_endpoint e;
} pdr_endpoint_rec;

typedef struct pdr_registry_head {
    uint32_t max_endpoints, max_targets;
    uint32_t endpoints, targets;        /* in use */
    uint32_t prefill_n, decode_n, single_n; /* lengths of the candidate lists */
    uint32_t hosts, racks, zones;       /* group numbers given out, at most max_endpoints each */
    uint32_t pick;                      /* sequence for last_pick */
    uint32_t high;                      /* endpoints[] beyond this are free */
    uint32_t grouping;                  /* an endpoint is new or elsewhere: pdr_registry_relist() numbers the groups anew */
    uint32_t idle;                      /* listed targets with nothing in prefill by our books */
    uint32_t foreseen;                  /* 1: prefills answer late, and what prompts take is known: their end is foreseen */
    uint64_t through_ns;                /* no target that is busy is through before this, as foreseen: a lower bound */
    uint32_t alone_n;                   /* of the decode list: may also do a request alone */
    uint32_t relists;                   /* times that the lists were made anew */
    pdr_board_head board;
    uint32_t plain;                     /* plain: choices compare everything (tests) */
    uint32_t crowd_q10;                 /* all that prefill servers have over what is ours, as reports say, times 1024; 0 as 1024: nobody else's (home.h) */
    uint32_t free_from;                 /* no record before this is free */
    pdr_places places;                  /* of targets: taken[] */
    uint64_t near_looks;                /* times that somebody looked for a decode near a prefill */
    uint32_t updating;                  /* 1 + the id whose record is being replaced by `update`; 0: none */
    pdr_endpoint update;
} pdr_registry_head;

typedef struct pdr_registry {
    pdr_registry_head *head;
    pdr_endpoint_rec  *endpoints;
    pdr_target        *targets;
    pdr_target_info   *infos;
    uint8_t           *taken;           /* per target: in use */
    uint32_t          *prefill, *decode, *single; /* candidate lists: target numbers, by endpoint */
    uint32_t          *listed;          /* per target: 1 if it computes prompts and is in a list */
    void              *lookups;         /* by name, by address, and of groups: pdr_registry_lookups_size() bytes */
    pdr_board          board;
    pdr_near           near;
} pdr_registry;

uint64_t pdr_registry_lookups_size(uint32_t max_endpoints);
void pdr_registry_init(const pdr_registry *g, uint32_t max_endpoints, uint32_t max_targets);
/*
 * Adds or updates; *id. For what pdr_registry_validate() has let pass, with its name. bootstrap_port 0 stays "the pool's". The caller calls pdr_registry_relist()
 * after the last of several; until then it has no topology.
 */
int  pdr_registry_put(const pdr_registry *g, const pdr_endpoint *e, uint32_t *id, pdr_error *err);
/* The record that has this address under another name, the first of several; PDR_NONE. pdr_registry_put() does not look: a document may swap addresses. */
uint32_t pdr_registry_clash(const pdr_registry *g, const pdr_endpoint *e);
/* PDR_E_INVALID with a sentence if no such endpoint can be. */
int  pdr_registry_validate(const pdr_endpoint *e, pdr_error *err);
/* "host:port" where there is no name. */
void pdr_registry_default_name(pdr_endpoint *e);
int  pdr_registry_find(const pdr_registry *g, const char *name, uint32_t *id);
/* What is ours, times all that the prefill servers have over it: what waits for the same servers as our requests, or how long a time our work takes there. */
static inline uint64_t pdr_crowded(const pdr_registry_head *h, uint64_t ours) { return __builtin_expect(h->crowd_q10 > 1024, 0) ? ours * h->crowd_q10 >> 10 : ours; }
/* A decode server that may also do a request alone (PDR_ENDPOINT_ALONE). */
static inline uint32_t pdr_serves_alone(const pdr_endpoint_rec *rec) { return rec->e.role == PDR_ROLE_DECODE && rec->e.flags & PDR_ENDPOINT_ALONE ? 1 : 0; }
/* NULL unless `id` is in use and not removed. */
pdr_endpoint_rec *pdr_registry_at(const pdr_registry *g, uint32_t id);
/* The caller calls pdr_registry_relist() after the last of several. */
void pdr_registry_remove(const pdr_registry *g, uint32_t id);
/* Frees the slot of a removed endpoint without bookings. */
void pdr_registry_reap(const pdr_registry *g, uint32_t id);
/* Groups, where one may have changed, and lists from the endpoints: after any change. O(endpoints + targets). */
void pdr_registry_relist(const pdr_registry *g);
/* A record half replaced, high mark, targets taken and what finds records; groups with the next relist; bookings and lists are made anew later. */
void pdr_registry_repair(const pdr_registry *g);
uint32_t pdr_registry_state(const pdr_endpoint_rec *rec, const pdr_target *t, uint64_t now_ns); /* PDR_STATE_* */

/* What must hold for everything else here, repair included, to be safe on memory that may hold anything. As pdr_registry_check(). */
int pdr_registry_bounds(const pdr_registry *g, char *why, size_t cap);
/* First invariant that does not hold, as a sentence in why; 0 if all hold. */
int pdr_registry_check(const pdr_registry *g, char *why, size_t cap);

#endif
