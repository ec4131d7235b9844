/*
 * One run: a schedule of arrivals, a cluster, and one or more instances of a policy, in virtual time; what comes out is in sim_result.
 */
#ifndef SIM_RUN_H
#define SIM_RUN_H

#include "cluster.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct sim_options {
    const sim_model *model;
    uint32_t prefills, decodes, gateways, own_books, racks, local_chunk, max_running, batch_tokens;
    uint32_t hear_transfer; /* 1: prefill's answer comes when the KV has gone, as SGLang's does; 0: when the prompt is computed */
    uint32_t slow, stalled; /* worker numbers; SIM_NONE */
    uint64_t kv_tokens, host_tokens, decode_host_tokens; /* kv 0: the model's; host 0: none */
    double   reload_bytes, bandwidth[4], latency, delay, scrape, wrong, wrong_step, noise, slow_speed, stall_at, stall_seconds, warm_up;
    sim_scaling scaling;
    sim_tenants tenants; /* that requests are dealt to; n 0: as the trace has them */
} sim_options;

void sim_options_default(sim_options *o);
static inline const sim_tenants *sim_tenants_in(const sim_options *o, const sim_trace *t) { return o->tenants.n ? &o->tenants : &t->tenants; }
void sim_options_costs(const sim_options *o, uint32_t block, sim_costs *out); /* the engines' true ones */

/* What is measured of one request. Times in seconds; NaN: never. */
typedef struct sim_result {
    size_t   n;
    sim_job *jobs;
    uint64_t preempted;
    double   seconds;       /* virtual */
    double   wall;
    double   prefill_busy[3], decode_load[3]; /* mean, CoV, max over workers: fraction busy; KV tokens */
    double   prefill_time, decode_running;
    uint32_t prefills, decodes;
    char     why[160];
} sim_result;

/* 0, or -1 with result->why. decisions: NULL, or where each decision is written as a line of JSON. */
int  sim_run(const sim_trace *t, const sim_options *o, const sim_chooser *chooser, const char *settings, uint64_t seed, FILE *decisions, sim_result *out);
void sim_result_free(sim_result *r);

/* measure.c: the "runs" entry of docs/simulate.md */
cJSON *sim_result_json(const sim_result *r, const sim_options *o, const sim_trace *t, const char *policy, const char *settings, uint64_t seed);
/* measure.c: "summary" over the runs of each policy */
cJSON *sim_summary_json(const cJSON *runs);
double sim_number(const cJSON *o, const char *path); /* "ttft.mean"; NaN: not there */

/* ---- inside a run (run.c, gateway.c) */

typedef struct sim_record sim_record;

struct sim_gateway {
    struct sim_world *world;
    const sim_chooser *chooser;
    void      *self;
    uint32_t   number, processes;
    sim_worker *workers;
    sim_cache *index;      /* per worker; NULL: the policy keeps its own */
    uint32_t   index_blocks;
    sim_costs  believed;
    uint64_t   random;
    double     output_sum, outputs;
    cJSON     *record;     /* of the request being decided */
    uint32_t   record_of;
};

typedef struct sim_world {
    const sim_options *o;
    sim_schedule  schedule;
    const sim_tenants *tenants;
    sim_cluster   cluster;
    sim_events    events;
    sim_gateway  *gateways;
    uint32_t      gateway_n;
    uint32_t      left;    /* requests neither finished nor refused */
    FILE         *decisions;
    char          why[160];
} sim_world;

int  sim_gateway_init(sim_world *w, sim_gateway *g, uint32_t number, const sim_chooser *chooser, const char *settings, uint64_t seed);
void sim_gateway_free(sim_gateway *g);
void sim_gateway_heard_prefill(sim_gateway *g, sim_job *job);
void sim_gateway_heard_done(sim_gateway *g, sim_job *job);
void sim_gateway_scraped(sim_gateway *g, uint32_t worker, const sim_load *load);
void sim_world_next(sim_world *w, const sim_job *job); /* closed loop: this one is over, the session goes on */

#endif
