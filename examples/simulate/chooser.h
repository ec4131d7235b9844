/*
 * The seam between the laboratory and whatever chooses workers: a table of functions per policy (sim_chooser) over what a router may honestly
 * know (sim_gateway). The laboratory keeps the books for the policy: it books at sim_send() and takes off when the router hears of a completion,
 * one network delay after it happened. Nobody sees the engines' queues, caches or the answers' lengths in advance.
 *
 * One instance of a policy is one router. With several gateways on one block there is one instance that all share; with gateways of their own
 * each has an instance and books of its own, and `requests` reach one of them at random.
 *
 * A policy of the laboratory is one file chooser_*.c with one or more `const sim_chooser` and a row in choosers.c. Not thread-safe: an instance lives in one run, and
 * runs are parallel, so a policy has no globals that change.
 */
#ifndef SIM_CHOOSER_H
#define SIM_CHOOSER_H

#include <stddef.h>
#include <stdint.h>

typedef int64_t sim_ns; /* virtual time since the run's begin */

#define SIM_NONE UINT32_MAX
#define SIM_SECOND 1000000000ll

/* A request as a router sees it. Lives as long as the run. `slot` is the policy's own (0 at first). */
typedef struct sim_request {
    uint32_t        id;      /* 0, 1, … in order of arrival in the trace */
    uint32_t        session; /* conversation or agent; a number per session */
    uint32_t        gateway; /* the process that received it: 0 … sim_gateways() - 1; all one instance if they share their books */
    uint32_t        in;      /* prompt tokens */
    uint32_t        tenant;  /* who pays, and how urgent it is: a row, sim_tenant_of(); SIM_NONE: neither is known */
    uint32_t        n;       /* ceil(in / block) prefix blocks */
    const uint32_t *blocks;  /* each stands for itself and everything before it */
    sim_ns          arrived; /* at the gateway */
    uint64_t        slot;
} sim_request;

/* What an engine reports about itself when it is scraped. */
typedef struct sim_load {
    sim_ns   at;               /* when it was true; < 0: never scraped */
    uint32_t running, waiting; /* requests: in the running batch (prefill: in the present step); queued */
    uint64_t waiting_tokens;   /* prefill: uncached tokens queued or being computed, as a fresh look at its cache says */
    uint64_t kv_used, kv_capacity; /* tokens; used: pinned and private, without what could be evicted */
    uint64_t prefilled_tokens; /* cumulative: uncached tokens computed */
    uint64_t prefill_busy_us;  /* cumulative: time that took */
} sim_load;

/* A worker in the router's books. "believed": by the router's own index when the request was booked. */
typedef struct sim_worker {
    uint32_t prefill;          /* 1: a prefill worker, 0: a decode worker */
    uint32_t host, rack, zone; /* equal numbers mean the same place */
    /* booked there and not yet heard to be done */
    uint32_t prefill_requests; /* prompts (also those of decode-only requests on a decode worker) */
    uint64_t prefill_tokens;   /* their uncached tokens, believed */
    uint64_t prefill_prompt_tokens;
    double   prefill_seconds;  /* their prefill time, believed */
    sim_ns   prefill_since;    /* when the oldest of them began to count: booking, or the completion before it */
    uint32_t decode_requests;  /* promised there and not finished, those still in prefill included */
    uint64_t decode_tokens;    /* their prompt tokens */
    uint32_t decode_arrived_requests; /* of those, the ones whose prefill is known to be done */
    uint64_t decode_arrived_tokens;
    sim_load load;             /* last scrape */
} sim_worker;

/* Engine constants as the router believes them: right, or wrong by what `--wrong` says. Seconds. */
typedef struct sim_costs {
    double   prefill_base, prefill_token, prefill_pair; /* T(u,m) = base + u*token + u*(m + u/2)*pair */
    double   step_base, step_request, step_token;       /* decode step = base + B*request + context tokens*token */
    double   reload_token;                              /* host tier to HBM */
    double   transfer_latency, transfer_token[4];       /* same host, rack, zone, far */
    double   delay;                                     /* network, one way */
    uint32_t block;                                     /* tokens */
    uint32_t batch_tokens;                              /* budget of a prefill step */
    uint32_t max_running;                               /* sequences on a decode worker */
    uint64_t kv_tokens;                                 /* HBM, per worker */
    uint64_t cache_tokens;                              /* HBM or host tier, whichever is larger */
} sim_costs;

typedef struct sim_gateway sim_gateway;

/* ---- what a policy may ask */

sim_ns            sim_now(const sim_gateway *g);
const sim_costs  *sim_costs_of(const sim_gateway *g);
/* All workers: first the prefill workers 0 .. prefills-1, then the decode workers. */
const sim_worker *sim_workers(const sim_gateway *g, uint32_t *prefills, uint32_t *decodes);
/* Leading tokens of the request that each worker is believed to hold, clipped to in - 1: tokens[prefills + decodes]. The index is exact, kept by what
 * was sent (blocks in flight included), least recently used first out at cache_tokens per worker. */
void              sim_match(sim_gateway *g, const sim_request *q, uint32_t *tokens);
double            sim_prefill_seconds(const sim_gateway *g, uint32_t uncached, uint32_t cached); /* T(u, m) */
double            sim_transfer_seconds(const sim_gateway *g, uint32_t prefill, uint32_t decode, uint32_t tokens);
double            sim_step_seconds(const sim_gateway *g, uint32_t requests, uint64_t context_tokens);
double            sim_mean_output(const sim_gateway *g); /* running mean of answers seen; 300 at first */
uint64_t          sim_random(sim_gateway *g);            /* of this run's seed */
/* The name of a request's tenant ("" nobody in particular) and its priority, which is 0 where nobody said one. */
const char       *sim_tenant_of(const sim_gateway *g, const sim_request *q, int32_t *priority);
uint32_t          sim_gateways(const sim_gateway *g);    /* processes that share this instance */

/* ---- what a policy may do; from any of its functions */

/* Sends now. prefill SIM_NONE: the decode worker alone does all. decode SIM_NONE: bound later by sim_bind() (protocols that allow it: not SGLang's). */
void sim_send(sim_gateway *g, const sim_request *q, uint32_t prefill, uint32_t decode);
void sim_bind(sim_gateway *g, const sim_request *q, uint32_t decode);
/* Refuses for good: counted, never served. retry_after in seconds, 0: not said. */
void sim_refuse(sim_gateway *g, const sim_request *q, double retry_after);
/* Calls tick at that time, once; several may be pending. */
void sim_wake(sim_gateway *g, sim_ns at);

/* One candidate's terms, kept for the report when `--decisions` asks for them (sim_recording()); call before sim_send() of the same request. Names are
 * literals; at most SIM_TERMS. `chosen` 1: of the pair; `cost` is what was minimised. */
enum { SIM_TERMS = 6 };
typedef struct sim_term { const char *name; double value; } sim_term;
int  sim_recording(const sim_gateway *g);
void sim_candidate(sim_gateway *g, const sim_request *q, uint32_t worker, int chosen, double cost, const sim_term *terms, uint32_t n);
void sim_note(sim_gateway *g, const sim_request *q, const char *text); /* "held: …" and the like; copied */

/* ---- a policy */

typedef struct sim_chooser {
    const char *name;     /* as --policy takes it, and in the result */
    const char *settings; /* one line: "abs=32 rel=1.1", the defaults; NULL: none */
    const char *about;    /* one sentence, with the source of its formula */
    uint32_t    late;     /* 1: binds decode workers later */
    uint32_t    own_books; /* 1: keeps its own index: never calls sim_match(), and what is "believed" stays 0 */
    /* settings: "key=value,key=value" or ""; NULL and a sentence in `why` if they are bad. Should use sim_setting(). */
    void *(*create)(sim_gateway *g, const char *settings, char *why, size_t cap);
    void (*destroy)(void *self);
    void (*arrive)(void *self, const sim_request *q);
    /* heard now; the books are already without it. Any may be NULL. */
    void (*prefill_done)(void *self, const sim_request *q, uint32_t worker);
    void (*decode_done)(void *self, const sim_request *q, uint32_t worker, uint32_t output_tokens);
    void (*scraped)(void *self, uint32_t worker, const sim_load *load);
    void (*tick)(void *self);
    /* For drivers of real routers, which see what a gateway sees on the wire: before prefill_done, the cached tokens that the engine counted;
     * and decode's first byte. */
    void (*usage)(void *self, const sim_request *q, uint32_t cached_tokens);
    void (*first_byte)(void *self, const sim_request *q);
} sim_chooser;

/* Reads "key=value,…": the number for key, or otherwise; sim_setting_text copies text. sim_settings_known: 0 if every key is in the list (ended by
 * NULL), else -1 with a sentence. */
double sim_setting(const char *settings, const char *key, double otherwise);
int    sim_setting_text(const char *settings, const char *key, char *out, size_t cap);
int    sim_settings_known(const char *settings, const char *const *keys, char *why, size_t cap);

/* By name; NULL. In order of the table: sim_chooser_at(0), … NULL at the end. */
const sim_chooser *sim_chooser_named(const char *name);
const sim_chooser *sim_chooser_at(size_t i);

#endif
