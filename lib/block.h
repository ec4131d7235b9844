/*
 * The block: where everything lies in it, and how one process sees it.
 *
 * The header at offset 0 carries magic, layout version, sizes, a digest of the configuration and the boot identity, and is checked before anything else is
 * believed. Regions follow at offsets computed from the resolved configuration alone, 64-byte aligned; no pointer is stored anywhere. pdr_books are the
 * pointers of this process, made per call (a few additions). pdr_books_lock() takes the lock, and if its last holder died inside, repairs first.
 */
#ifndef PDR_BLOCK_H
#define PDR_BLOCK_H

#include "apply.h"
#include "breaker.h"
#include "err.h"
#include "fit.h"
#include "hold.h"
#include "home.h"
#include "index.h"
#include "ledger.h"
#include "lock.h"
#include "log.h"
#include "pair.h"
#include "room.h"
#include "tape.h"
#include "waits_near.h"

#include <setjmp.h>

#define PDR_LAYOUT_VERSION 18

/* What is learnt about requests in general; what is learnt about a server is in its target. */
typedef struct pdr_learnt {
    uint64_t tokens_per_byte_q20; /* prompt tokens per canonical byte: tokens / bytes below */
    uint64_t tokens, bytes;       /* of recent prompts, older ones fading; the prior counts as PDR_PRIOR_BYTES */
    uint64_t output_tokens_q10;   /* mean answer */
    pdr_fit  fit;                 /* what prompts take */
    uint64_t relaxed_ns;          /* when servers were last moved towards the pool */
    uint64_t answer_gap_us, answer_transfer_us; /* from prefill's answer to the first token, and the transfers of the same: fading sums */
    uint64_t answer_gaps;         /* how many */
    uint64_t late;                /* 1: prefill answers when its KV cache has gone, as far as is known */
    uint64_t late_q10;            /* mean of first bytes against their predictions, for outliers */
    pdr_patience patience;        /* of the pool: for servers that are not known yet */
    pdr_crowd crowd;              /* who else sends to these servers */
    pdr_homes homes;              /* what was found at homes */
} pdr_learnt;

enum { PDR_PRIOR_BYTES = 8192, PDR_RETRY_RESERVE = 100000, PDR_RETRY_PER_SECOND = 10000 /* thousandths */ };

struct pdr_router {
    char       magic[8];
    uint32_t   layout, header_bytes;
    uint64_t   size, digest, boot;
    uint32_t   ready, recording;  /* ready: initialised to the end; recording: somebody reads the tape */
    pdr_config config;
    uint64_t   offset[24];        /* PDR_REGION_* */
    pdr_lock   lock __attribute__((aligned(64)));
    uint64_t   clock_ns;          /* the latest time seen */
    uint64_t   random;            /* number of random draws */
    uint64_t   retry_credit;      /* thousandths of retries that may still be made */
    pdr_learnt learnt;
    pdr_stats  stats;             /* counters only; gauges are filled in on request */
    pdr_pool   pool;
    pdr_rates  rates;
    struct pdr_room_state room __attribute__((aligned(64)));
};

enum {
    PDR_REGION_REGISTRY, PDR_REGION_ENDPOINTS, PDR_REGION_TARGETS, PDR_REGION_INFOS, PDR_REGION_TAKEN, PDR_REGION_LISTS,
    PDR_REGION_LEDGER, PDR_REGION_LEASES, PDR_REGION_BOOKINGS, PDR_REGION_HOLD, PDR_REGION_HELD, PDR_REGION_LOG, PDR_REGION_RECORDS,
    PDR_REGION_SCRATCH, PDR_REGION_INDEX, PDR_REGION_TAPE, PDR_REGION_FRAMES, PDR_REGION_SHADOW, PDR_REGION_LANES, PDR_REGION_WAITS, PDR_REGION_BOARD, PDR_REGION_LOOKUPS, PDR_REGION_NEAR, PDR_REGION_END
};

/* What the last frame on the tape left its reader with. */
enum { PDR_GLOBALS = 24 };
typedef struct pdr_shadow {
    uint64_t   globals[PDR_GLOBALS];
    pdr_target targets[]; /* max_targets */
} pdr_shadow;

/* A prefill step that the pass under way has opened at a target. */
typedef struct pdr_step { uint32_t requests, tokens; } pdr_step;

/* The block as this process sees it. */
typedef struct pdr_books {
    pdr_router  *r;
    pdr_registry registry;
    pdr_ledger   ledger;
    pdr_hold     hold;
    pdr_log      log;
    pdr_index   *index;
    pdr_scratch  scratch;
    uint16_t    *depth;      /* scratch, per target */
    uint64_t    *planned_us; /* scratch, per target */
    uint64_t     now_ns;
    pdr_tape     tape;
    pdr_shadow  *shadow;
    struct pdr_step *steps;  /* scratch, per target */
    uint64_t     mean_q10;   /* of the pass under way: requests held or in prefill per prefill target, times 1024; a release changes nothing of it */
    uint64_t     queue_q10;  /* of the pass under way: held requests per prefill target, times 1024 */
    uint32_t     open, free; /* targets that something could still go to in this pass; those of them that it has sent nothing yet */
    uint32_t     apart;      /* in this pass the prefill can be found by itself: `waits` is filled. PDR_APART_* */
    pdr_waits    waits;      /* of the pass under way */
    uint32_t    *holders, holding; /* scratch: the targets with a depth, of the request that is looked at; how many, PDR_NONE: not known */
    uint32_t     home, home_depth; /* of the request whose depths are in depth[]: the target where more is expected than the index knows, and what it knows there; PDR_NONE */
    int          paired;     /* of the pass under way: since the last release there was a pair for a request that excludes nobody */
    int          last;       /* of the pass under way: the one that is looked at is the last, if it stays */
    int          passing;    /* a pass over the queue is under way */
    int          telling;    /* it is recorded: every look has its whole choice (the reader may go meanwhile: r->recording does not say it) */
    struct pdr_replay *replay; /* this block belongs to a replay: depths come from the file (router_replay.c) */
    struct pdr_books  *outer;  /* the call of this thread that this one is inside of, on another block */
    jmp_buf      escape;       /* where pdr_router_escape() leads */
    volatile int locked;       /* the lock is this call's; a signal handler of the thread reads it */
} pdr_books;

/* Pointers for a block whose header was checked. b->ledger points into b: a pdr_books is not copied. */
void pdr_books_open(pdr_books *b, pdr_router *r);
/* The same for what only a pass over the queue needs. */
void pdr_books_open_pass(pdr_books *b);
/*
 * Opens and locks. now_ns 0: the latest time seen. Time never goes back: an older now_ns counts as the latest one seen.
 * PDR_E_INVALID (r NULL or not a ready block), PDR_E_BUSY, PDR_E_BLOCK_CORRUPT: also a second time, out of anything up to the unlock, if the block's memory
 * goes meanwhile (pdr_router_escape). So the function that locks also unlocks, and what it must free it holds before it locks.
 */
#define pdr_books_lock(b, r, now_ns) (_setjmp((b)->escape) ? PDR_E_BLOCK_CORRUPT : pdr_books_take(b, r, now_ns))
int  pdr_books_take(pdr_books *b, pdr_router *r, uint64_t now_ns);
/* Gives `code`, or PDR_E_BLOCK_CORRUPT if the block was lost while the caller was inside: what it found there is nothing then. */
int  pdr_books_unlock(pdr_books *b, int code, pdr_error *err);

#endif
