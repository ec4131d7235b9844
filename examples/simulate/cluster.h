/*
 * The cluster: prefill and decode workers in virtual time.
 *
 * Prefill: first come, first served; steps of up to batch_tokens (8,192) over the requests at the head, long prompts in chunks. The cache hit is evaluated
 * when a request's service begins; what only the host tier holds is loaded first, and its time charged to the step. The whole prompt is kept in HBM from then until it has been
 * transferred (pinned); without room the head waits, and everybody behind it.
 * Hand-over: the decode worker admits first come, first served when the prompt (without what it holds itself) fits in HBM: input only, output is not reserved. Then the
 * sender transfers one request after another, at the bandwidth of the way between the two.
 * Decode: a step for all running sequences; at most max_running. Without room for a step's tokens the last admitted sequence is thrown out
 * (LIFO), goes to the head of the queue and computes its context again. Prompts computed here (decode-only, thrown out ones) go in chunks of local_chunk (512) beside the running
 * sequences. A finished sequence's blocks, answer included, stay in the cache.
 *
 * Times of a run of equal steps follow from a closed form, so events are as many as changes, not as steps.
 */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "cache.h"
#include "events.h"
#include "model.h"
#include "trace.h"

typedef enum sim_state {
    SIM_WAITING = 0, /* at the gateway or on its way */
    SIM_QUEUED,      /* at prefill */
    SIM_COMPUTING,
    SIM_HANDOVER,    /* computed, waiting for decode to admit it */
    SIM_TRANSFER,
    SIM_READY,       /* joins the batch at the next step */
    SIM_LOCAL,       /* computing its prompt on the decode worker */
    SIM_RUNNING,
    SIM_FINISHED,
    SIM_REFUSED
} sim_state;

/* One request's life. Times < 0: not yet. */
typedef struct sim_job {
    sim_request        q;
    const sim_arrival *a;
    sim_state          state;
    uint32_t           prefill, decode; /* decode: worker number behind the prefill workers; SIM_NONE */
    uint32_t           instance;        /* whose books it is in */
    uint32_t           next;            /* in a queue; SIM_NONE */
    /* the router's belief when it booked */
    uint32_t believed_uncached, booked;
    double   believed_seconds;
    /* prefill */
    uint32_t cached, computed; /* tokens */
    uint32_t queued_uncached;
    double   reload;           /* seconds still to be charged */
    uint32_t private_blocks, pins;
    /* decode */
    uint32_t d_pins, d_private; /* blocks, tokens */
    uint32_t generated, local_left, local_past, admitted_order;
    uint64_t reloaded_tokens, transferred_tokens;
    uint32_t preempted;
    sim_ns   arrived, sent, prefill_began, prefill_ended, heard_prefill, admitted, first_byte, ended;
} sim_job;

typedef struct sim_queue { uint32_t first, last, n; } sim_queue;

enum { SIM_STEP_MOST = 512 /* prompts in one prefill step */ };

typedef struct sim_prefill {
    sim_queue queue;
    sim_cache hbm, host;
    uint32_t  cap_blocks, private_blocks;
    uint32_t  busy, starting, partial; /* partial: a prompt of which chunks are left; SIM_NONE */
    uint32_t  step_n;
    uint32_t  step_job[SIM_STEP_MOST], step_tokens[SIM_STEP_MOST];
    sim_ns    sender_free;
    double    speed, busy_seconds, transferring_seconds;
    uint64_t  queued_tokens;   /* uncached, as seen when they came */
    uint64_t  prefilled_tokens;
    uint32_t  at_work;         /* requests queued or in service */
} sim_prefill;

typedef struct sim_decode {
    sim_queue queue, ready, local;
    sim_cache hbm, host;
    uint64_t  private_tokens;
    uint32_t  slots;           /* admitted: transferring, ready, local, running */
    uint32_t  starting, busy;
    uint32_t *running, running_n;
    uint64_t  context;         /* tokens of the running */
    uint32_t  admissions;
    /* the present stretch of equal steps */
    sim_ns   began;
    double   first, rise;      /* seconds of its first step; what each further one takes more */
    uint32_t steps, local_job, local_tokens;
    uint64_t generation;
    double   speed, token_seconds, running_seconds;
    sim_ns   counted;          /* up to where the two sums go */
    uint32_t prompts;          /* decode-only prompts queued or computing */
    uint64_t prefilled_tokens;
    double   prefill_busy;
} sim_decode;

typedef struct sim_cluster {
    sim_costs   costs;
    double      kv_bytes;
    uint32_t    prefills, decodes, local_chunk, host_blocks, decode_host_blocks, block;
    uint32_t    racks;         /* 0: one zone, everybody on a host and rack of his own */
    double      noise;         /* spread of a step's duration, lognormal */
    uint64_t    random;
    sim_ns      stall_from, stall_to; /* stalled: worker does nothing then */
    uint32_t    stalled;       /* worker; SIM_NONE */
    sim_prefill *p;
    sim_decode  *d;
    sim_job     *jobs;
    sim_events  *events;
    sim_ns       now;
    int          failed;
    uint64_t     preempted;
    /* told when a prompt is computed, and when a request is finished */
    void (*prompt_done)(void *who, sim_job *job);
    void (*first_byte)(void *who, sim_job *job);
    void (*finished)(void *who, sim_job *job);
    void *who;
} sim_cluster;

int  sim_cluster_init(sim_cluster *c); /* from costs, prefills, decodes, local_chunk, host blocks, block, racks */
void sim_cluster_free(sim_cluster *c);

void sim_prefill_take(sim_cluster *c, uint32_t job);      /* a request reaches its prefill worker */
void sim_prefill_start(sim_cluster *c, uint32_t worker);
void sim_prefill_end(sim_cluster *c, uint32_t worker);
void sim_prefill_unpin(sim_cluster *c, uint32_t job);     /* its KV has gone */
void sim_prefill_load(const sim_cluster *c, uint32_t worker, sim_load *out);

void sim_decode_take(sim_cluster *c, uint32_t job);       /* a computed prompt, or a decode-only request, asks for room */
void sim_decode_transferred(sim_cluster *c, uint32_t job);
void sim_decode_start(sim_cluster *c, uint32_t worker);
void sim_decode_step(sim_cluster *c, uint32_t worker, uint64_t generation);
void sim_decode_load(const sim_cluster *c, uint32_t worker, sim_load *out);

/* for both kinds */
void   sim_queue_put(sim_cluster *c, sim_queue *q, uint32_t job);
void   sim_queue_put_first(sim_cluster *c, sim_queue *q, uint32_t job);
uint32_t sim_queue_take(sim_cluster *c, sim_queue *q);    /* SIM_NONE: empty */
double sim_noise(sim_cluster *c);                         /* a factor for one piece of work */
sim_ns sim_ends(const sim_cluster *c, uint32_t worker, sim_ns begin, double seconds); /* when work ends, a stall counted in; after now */
int    sim_tier(const sim_cluster *c, uint32_t prefill, uint32_t decode);
void   sim_place(const sim_cluster *c, uint32_t worker, uint32_t *host, uint32_t *rack, uint32_t *zone);

#endif
