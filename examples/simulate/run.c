/* The loop of a run, and its options. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STUCK_S = 86400 /* virtual seconds without anything but scrapes and ticks: it will not end */ };

void sim_options_default(sim_options *o)
{
    *o = (sim_options){.model = sim_model_named("qwen32b"), .prefills = 6, .decodes = 5, .gateways = 1, .local_chunk = 512, .max_running = 256,
                       .batch_tokens = 8192, .slow = SIM_NONE, .stalled = SIM_NONE, .host_tokens = 3000000, .decode_host_tokens = 3000000,
                       .reload_bytes = 40e9, .bandwidth = {200e9, 50e9, 50e9, 12.5e9}, .latency = 5e-3, .delay = 1e-3, .scrape = 1, .wrong = 1,
                       .wrong_step = 1, .slow_speed = .5, .scaling = {.rate = 1, .copies = 1, .jitter = -1, .seed = 1}};
}

void sim_options_costs(const sim_options *o, uint32_t block, sim_costs *c)
{
    const sim_model *m = o->model;
    *c = (sim_costs){.prefill_base = m->prefill_base, .prefill_token = m->prefill_token, .prefill_pair = m->prefill_pair, .step_base = m->step_base,
                     .step_request = m->step_request, .step_token = m->step_token, .reload_token = m->kv_bytes / o->reload_bytes,
                     .transfer_latency = o->latency, .delay = o->delay, .block = block, .batch_tokens = o->batch_tokens, .max_running = o->max_running,
                     .kv_tokens = o->kv_tokens ? o->kv_tokens : m->kv_tokens};
    for (int i = 0; i < 4; i++) c->transfer_token[i] = m->kv_bytes / o->bandwidth[i];
    c->cache_tokens = o->host_tokens > c->kv_tokens ? o->host_tokens : c->kv_tokens;
}

static sim_ns delay_of(const sim_world *w) { return (sim_ns)llround(w->o->delay * 1e9); }

/* ---- what the cluster tells */

static void prompt_done(void *who, sim_job *job)
{
    sim_world *w = who;
    if (!w->o->hear_transfer || job->prefill == SIM_NONE || job->decode == SIM_NONE)
        sim_events_put(&w->events, w->cluster.now + delay_of(w), SIM_EV_HEARD_PREFILL, job->q.id, 0);
}

static void first_byte(void *who, sim_job *job)
{
    sim_world *w = who;
    if (w->o->hear_transfer && job->prefill != SIM_NONE)
        sim_events_put(&w->events, w->cluster.now + delay_of(w), SIM_EV_HEARD_PREFILL, job->q.id, 0);
    sim_events_put(&w->events, w->cluster.now + delay_of(w), SIM_EV_HEARD_FIRST, job->q.id, 0);
}

static void finished(void *who, sim_job *job)
{
    sim_world *w = who;
    w->left--;
    sim_events_put(&w->events, w->cluster.now + delay_of(w), SIM_EV_HEARD_DONE, job->q.id, 0);
}

void sim_world_next(sim_world *w, const sim_job *job)
{
    if (job->a->next == SIM_NONE) return;
    const sim_arrival *a = &w->schedule.arrivals[job->a->next];
    sim_events_put(&w->events, w->cluster.now + a->think, SIM_EV_ARRIVE, job->a->next, 0);
}

/* ---- the loop */

static sim_gateway *gateway_of(sim_world *w, const sim_job *job) { return &w->gateways[job->instance]; }

static void arrive(sim_world *w, uint32_t n)
{
    sim_job *job = &w->cluster.jobs[n];
    job->arrived = job->q.arrived = w->cluster.now;
    gateway_of(w, job)->chooser->arrive(gateway_of(w, job)->self, &job->q);
}

static void scrape(sim_world *w, uint32_t worker)
{
    sim_load load;
    if (worker < w->cluster.prefills)
        sim_prefill_load(&w->cluster, worker, &load);
    else
        sim_decode_load(&w->cluster, worker - w->cluster.prefills, &load);
    for (uint32_t i = 0; i < w->gateway_n; i++) sim_gateway_scraped(&w->gateways[i], worker, &load);
    if (w->left) sim_events_put(&w->events, w->cluster.now + (sim_ns)llround(w->o->scrape * 1e9), SIM_EV_SCRAPE, worker, 0);
}

static void handle(sim_world *w, const sim_event *e)
{
    sim_cluster *c = &w->cluster;
    sim_job     *job = e->type <= SIM_EV_AT_DECODE || e->type == SIM_EV_TRANSFERRED || (e->type >= SIM_EV_HEARD_PREFILL && e->type <= SIM_EV_HEARD_DONE) ? &c->jobs[e->a] : NULL;
    switch (e->type) {
    case SIM_EV_ARRIVE: arrive(w, e->a); break;
    case SIM_EV_AT_PREFILL: sim_prefill_take(c, e->a); break;
    case SIM_EV_AT_DECODE: sim_decode_take(c, e->a); break;
    case SIM_EV_PREFILL_START: sim_prefill_start(c, e->a); break;
    case SIM_EV_PREFILL_STEP: sim_prefill_end(c, e->a); break;
    case SIM_EV_TRANSFERRED: sim_decode_transferred(c, e->a); break;
    case SIM_EV_DECODE_START: sim_decode_start(c, e->a); break;
    case SIM_EV_DECODE_STEP: sim_decode_step(c, e->a, e->b); break;
    case SIM_EV_HEARD_PREFILL: sim_gateway_heard_prefill(gateway_of(w, job), job); break;
    case SIM_EV_HEARD_FIRST:
        if (gateway_of(w, job)->chooser->first_byte) gateway_of(w, job)->chooser->first_byte(gateway_of(w, job)->self, &job->q);
        break;
    case SIM_EV_HEARD_DONE:
        sim_gateway_heard_done(gateway_of(w, job), job);
        sim_world_next(w, job);
        break;
    case SIM_EV_SCRAPE: scrape(w, e->a); break;
    case SIM_EV_WAKE:
        if (w->left && w->gateways[e->a].chooser->tick) w->gateways[e->a].chooser->tick(w->gateways[e->a].self);
        break;
    }
}

static int prepare(sim_world *w, const sim_trace *t, const sim_options *o, const sim_chooser *chooser, const char *settings, uint64_t seed)
{
    sim_cluster *c = &w->cluster;
    sim_scaling  scaling = o->scaling;
    uint64_t     random = seed ^ 0x5EED;
    scaling.seed = seed;
    w->tenants = sim_tenants_in(o, t);
    scaling.tenants = o->tenants.n ? w->tenants : NULL;
    w->o = o;
    if (sim_schedule_make(&w->schedule, t, &scaling)) return -1;
    sim_options_costs(o, t->block, &c->costs);
    c->prefills = o->prefills;
    c->decodes = o->decodes;
    c->block = t->block;
    c->kv_bytes = o->model->kv_bytes;
    c->local_chunk = o->local_chunk;
    c->host_blocks = (uint32_t)(o->host_tokens / t->block);
    c->decode_host_blocks = (uint32_t)(o->decode_host_tokens / t->block);
    c->racks = o->racks;
    c->noise = o->noise;
    c->random = seed ^ 0xC1;
    c->stalled = o->stalled;
    c->stall_from = (sim_ns)(o->stall_at * 1e9);
    c->stall_to = c->stall_from + (sim_ns)(o->stall_seconds * 1e9);
    c->events = &w->events;
    c->prompt_done = prompt_done;
    c->first_byte = first_byte;
    c->finished = finished;
    c->who = w;
    c->jobs = calloc(w->schedule.n + 1, sizeof *c->jobs);
    if (!c->jobs || sim_cluster_init(c)) return -1;
    if (o->slow < c->prefills) c->p[o->slow].speed = o->slow_speed;
    if (o->slow != SIM_NONE && o->slow >= c->prefills && o->slow < c->prefills + c->decodes) c->d[o->slow - c->prefills].speed = o->slow_speed;
    w->gateway_n = o->own_books ? o->gateways : 1;
    w->gateways = calloc(w->gateway_n, sizeof *w->gateways);
    if (!w->gateways) return -1;
    for (uint32_t i = 0; i < w->schedule.n; i++) {
        const sim_arrival *a = &w->schedule.arrivals[i];
        sim_job           *j = &c->jobs[i];
        uint32_t           g = (uint32_t)(sim_next(&random) % o->gateways);
        if ((uint64_t)a->n * t->block > c->costs.kv_tokens || a->in + (uint64_t)a->out > c->costs.kv_tokens) {
            snprintf(w->why, sizeof w->why, "a request of %u + %u tokens is larger than a worker's KV memory", a->in, a->out);
            return -1;
        }
        j->a = a;
        j->q = (sim_request){.id = i, .session = a->session, .gateway = g, .in = a->in, .n = a->n, .blocks = a->blocks, .tenant = a->tenant};
        j->instance = o->own_books ? g : 0;
        j->prefill = j->decode = j->next = SIM_NONE;
        j->arrived = j->sent = j->prefill_began = j->prefill_ended = j->heard_prefill = j->admitted = j->first_byte = j->ended = -1;
        if (a->at != SIM_LATER) sim_events_put(&w->events, a->at, SIM_EV_ARRIVE, i, 0);
    }
    w->left = (uint32_t)w->schedule.n;
    for (uint32_t i = 0; i < w->gateway_n; i++)
        if (sim_gateway_init(w, &w->gateways[i], i, chooser, settings, seed)) return -1;
    if (o->scrape > 0) /* not all at once */
        for (uint32_t i = 0; i < c->prefills + c->decodes; i++)
            sim_events_put(&w->events, (sim_ns)(o->scrape * 1e9 * i / (c->prefills + c->decodes)), SIM_EV_SCRAPE, i, 0);
    return 0;
}

static void spread(const double *v, uint32_t n, double out[3])
{
    double sum = 0, square = 0, most = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += v[i];
        most = fmax(most, v[i]);
    }
    for (uint32_t i = 0; i < n; i++) square += (v[i] - sum / n) * (v[i] - sum / n);
    out[0] = sum / n;
    out[1] = sum > 0 ? sqrt(square / n) / (sum / n) : 0;
    out[2] = most;
}

static void sum_up(sim_world *w, sim_result *r)
{
    sim_cluster *c = &w->cluster;
    double      *v = calloc((size_t)c->prefills + c->decodes, sizeof *v), seconds = (double)c->now * 1e-9;
    r->n = w->schedule.n;
    r->preempted = c->preempted;
    r->seconds = seconds;
    r->prefills = c->prefills;
    r->decodes = c->decodes;
    if (!v || seconds <= 0) {
        free(v);
        return;
    }
    for (uint32_t i = 0; i < c->prefills; i++) v[i] = c->p[i].busy_seconds / seconds;
    spread(v, c->prefills, r->prefill_busy);
    for (uint32_t i = 0; i < c->decodes; i++) {
        v[i] = c->d[i].token_seconds / seconds;
        r->decode_running += c->d[i].running_seconds / seconds / c->decodes;
    }
    spread(v, c->decodes, r->decode_load);
    free(v);
}

int sim_run(const sim_trace *t, const sim_options *o, const sim_chooser *chooser, const char *settings, uint64_t seed, FILE *decisions, sim_result *out)
{
    sim_world       w = {.decisions = decisions};
    sim_event       e;
    struct timespec began, ended;
    sim_ns          moved = 0;
    memset(out, 0, sizeof *out);
    clock_gettime(CLOCK_MONOTONIC, &began);
    int bad = prepare(&w, t, o, chooser, settings, seed);
    if (bad && !w.why[0]) snprintf(w.why, sizeof w.why, "out of memory");
    while (!bad && w.left && sim_events_take(&w.events, &e)) {
        w.cluster.now = e.at;
        if (e.type != SIM_EV_SCRAPE && e.type != SIM_EV_WAKE) moved = e.at;
        if (e.at - moved > STUCK_S * SIM_SECOND) break;
        handle(&w, &e);
        if (w.cluster.failed) {
            bad = -1;
            if (!w.why[0]) snprintf(w.why, sizeof w.why, "out of memory");
        }
    }
    if (!bad && w.left) {
        snprintf(w.why, sizeof w.why, "%u requests never came to an end (%s)", w.left, w.events.failed ? "out of memory" : "nothing happens any more");
        bad = -1;
    }
    if (!bad) sum_up(&w, out);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    out->wall = (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) * 1e-9;
    memcpy(out->why, w.why, sizeof out->why);
    for (uint32_t i = 0; w.gateways && i < w.gateway_n; i++) sim_gateway_free(&w.gateways[i]);
    free(w.gateways);
    sim_cluster_free(&w.cluster);
    sim_events_free(&w.events);
    if (bad)
        free(w.cluster.jobs);
    else
        out->jobs = w.cluster.jobs;
    for (size_t i = 0; !bad && i < out->n; i++) { /* a result outlives its schedule */
        out->jobs[i].generated = out->jobs[i].a->out;
        out->jobs[i].a = NULL;
        out->jobs[i].q.blocks = NULL;
    }
    sim_schedule_free(&w.schedule);
    return bad;
}

void sim_result_free(sim_result *r)
{
    free(r->jobs);
    r->jobs = NULL;
}
