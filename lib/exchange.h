/*
 * The failure machine of one request: events of its legs and its client in, actions out. Pure: no I/O, no clock, no
 * router. What the router must note in its books comes out as effects, so that the machine can be explored exhaustively
 * (tests/unit/test_exchange.c does) and the books stay in one place. docs/exchange.md has the tables and the reasons.
 *
 * Promises, whatever the order of events, repeated, late and impossible ones included:
 *  - every booking is released exactly once; FINISH comes exactly once and last;
 *  - a leg that was sent has ended, failed or been cancelled before FINISH;
 *  - no retry once the client has got a byte; never two answers;
 *  - one verdict per leg and attempt at most, none because a client left;
 *  - whatever is awaited has a deadline.
 *
 * Cost: constant, no allocation; about 400 bytes of stack.
 */
#ifndef PDR_EXCHANGE_H
#define PDR_EXCHANGE_H

#include "pdroute/pdroute.h"

/*
 * What distinguishes engine protocols here: pdr_engine.shape names one of three rows, and the machine asks the row.
 * A leg not in `at_once` is sent when the other one has ended well.
 */
typedef struct pdr_exchange_shape {
    uint32_t legs;         /* bit PDR_LEG_*: exists */
    uint32_t at_once;      /* bit PDR_LEG_*: sent when the attempt begins */
    uint32_t keep_prefill; /* the prefill answer's body is needed for the decode request: no DRAIN */
    uint32_t reserved;
} pdr_exchange_shape;

extern const pdr_exchange_shape pdr_shape_concurrent;    /* SGLang, Mooncake push: both at once */
extern const pdr_exchange_shape pdr_shape_prefill_first; /* vLLM NIXL, TensorRT-LLM: decode after prefill's answer */
extern const pdr_exchange_shape pdr_shape_single;        /* one server does all */
const pdr_exchange_shape *pdr_exchange_shape_of(uint32_t engine, uint32_t mode);

typedef struct pdr_exchange_rules {
    uint32_t                  retry_max;             /* further pairs; UINT32_MAX: none, as in pdr_config */
    uint32_t                  retry_denied;          /* 1: but now there is no budget for them */
    uint64_t                  first_byte_timeout_ns; /* 0: none; the decision's own bound counts where it is shorter */
    uint64_t                  total_timeout_ns;      /* 0: none */
    uint64_t                  drain_timeout_ns;      /* of prefill; 0: 30 s, or first_byte_timeout_ns if shorter */
    const pdr_exchange_shape *shape;                 /* NULL: by the decision; the same in every call of an exchange */
} pdr_exchange_rules;

#define PDR_EXCHANGE_STALE_MAX 2 /* free retries for kept-alive connections that were closed meanwhile */

/* What an attempt says about an endpoint. */
enum {
    PDR_VERDICT_NONE = 0,
    PDR_VERDICT_GOOD = 1,    /* answered to the end, or with a 4xx of its own */
    PDR_VERDICT_BUSY = 2,    /* 429, or 503 with Retry-After: back-pressure, no fault */
    PDR_VERDICT_SUSPECT = 3, /* it or its partner failed, it cannot be told which: count it lightly */
    PDR_VERDICT_FAILED = 4
};
typedef struct pdr_exchange_leg {
    uint32_t endpoint;       /* PDR_NONE: this leg does not exist; nothing below is set */
    uint32_t verdict;        /* PDR_VERDICT_* */
    uint32_t failure;        /* PDR_FAIL_*, 0: the status says it */
    uint32_t status;         /* HTTP status, 0: none seen */
    uint64_t retry_after_ms; /* with PDR_VERDICT_BUSY */
    uint32_t answered;       /* 1: first byte of a good answer came just now (closes a half-open breaker) */
    uint32_t usage;          /* 1: the three below were reported by this leg, which ended well */
    uint64_t prompt_tokens, cached_tokens, completion_tokens;
} pdr_exchange_leg;

enum { PDR_RESULT_NONE = 0 /* goes on */, PDR_RESULT_ANSWERED = 1 /* a worker's answer was relayed to its end */,
       PDR_RESULT_FAILED = 2 /* answered by the gateway, or aborted */, PDR_RESULT_GONE = 3 /* the client left */ };

/*
 * What the router does to its books for one call, in this order, before it gives the actions to the host: prefill_done,
 * the legs' verdicts and usage, release, result.
 */
typedef struct pdr_exchange_effects {
    uint64_t         booking;        /* whose */
    uint32_t         prefill_done;   /* 1: its prompt is computed. At most once, not after release */
    uint32_t         release;        /* 1: free it and its rooms. Exactly once per booking */
    uint32_t         retry;          /* 1: a new pair is asked for; 2: for a stale connection, which costs no budget */
    uint32_t         result;         /* PDR_RESULT_*, set once, with FINISH */
    uint64_t         prefill_us;     /* with prefill_done: from sending to the first sign that the prompt is computed */
    uint64_t         first_token_us; /* from sending to decode's first byte, 0: not in this call */
    uint64_t         answer_us;      /* with decode's good end: since the prompt was computed, and its longest silence if the host measured it */
    uint32_t         longest_gap_ms;
    uint32_t         overran;        /* bit per leg: its silence passed a learnt bound */
    uint32_t         retry_denied;   /* 1: a retry was due, but for the budget */
    pdr_exchange_leg leg[2];
} pdr_exchange_effects;

/*
 * The three calls. *n in: capacity of out; out: number of actions. Errors change nothing: PDR_E_INVALID (arguments,
 * outcome not PDR_SEND, event type unknown is *not* an error), PDR_E_VERSION (struct_size), PDR_E_NOSPACE. `fx` is
 * overwritten. [pure]
 */
int pdr_exchange_start(pdr_exchange *x, const pdr_decision *d, uint32_t lease, const pdr_exchange_rules *rules,
                       uint64_t now_ns, pdr_action *out, size_t *n, pdr_exchange_effects *fx);
int pdr_exchange_step(pdr_exchange *x, const pdr_event *ev, const pdr_exchange_rules *rules, pdr_action *out, size_t *n,
                      pdr_exchange_effects *fx);
/*
 * After PDR_ACT_ROUTE. code PDR_OK with a decision; else a PDR_E_* code, and of `d` (may be NULL) only retry_after_ms
 * is read. May answer with PDR_ACT_ROUTE again, with fewer exclusions. A decision that comes too late (the client left
 * meanwhile) is released by the effects.
 */
int pdr_exchange_reroute(pdr_exchange *x, const pdr_decision *d, int code, const pdr_exchange_rules *rules,
                         uint64_t now_ns, pdr_action *out, size_t *n, pdr_exchange_effects *fx);

/* After a step that suspected both servers and asks for another pair: only this leg's is to be avoided, the other one is known to work. [pure] */
void pdr_exchange_blame(pdr_exchange *x, uint32_t leg);

#endif
