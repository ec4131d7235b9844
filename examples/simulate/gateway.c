/* A router's books and index, and what a policy may ask and do: the functions of chooser.h. */
#include "run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static sim_job *job_of(const sim_gateway *g, const sim_request *q) { return &g->world->cluster.jobs[q->id]; }

int sim_gateway_init(sim_world *w, sim_gateway *g, uint32_t number, const sim_chooser *chooser, const char *settings, uint64_t seed)
{
    sim_cluster *c = &w->cluster;
    uint32_t     n = c->prefills + c->decodes;
    *g = (sim_gateway){.world = w, .chooser = chooser, .number = number, .believed = c->costs, .random = seed * 1000003 + number, .record_of = SIM_NONE};
    g->processes = w->o->own_books ? 1 : w->o->gateways;
    g->believed.prefill_base *= w->o->wrong;
    g->believed.prefill_token *= w->o->wrong;
    g->believed.prefill_pair *= w->o->wrong;
    g->believed.step_base *= w->o->wrong_step;
    g->believed.step_request *= w->o->wrong_step;
    g->believed.step_token *= w->o->wrong_step;
    g->index_blocks = (uint32_t)(c->costs.cache_tokens / c->block);
    g->workers = calloc(n + 1u, sizeof *g->workers);
    if (!chooser->own_books) g->index = calloc(n + 1u, sizeof *g->index);
    if (!g->workers || (!chooser->own_books && !g->index)) return -1;
    for (uint32_t i = 0; i < n; i++) {
        g->workers[i].prefill = i < c->prefills;
        g->workers[i].load.at = -1;
        sim_place(c, i, &g->workers[i].host, &g->workers[i].rack, &g->workers[i].zone);
        if (g->index && sim_cache_init(&g->index[i])) return -1;
    }
    g->self = chooser->create(g, settings, w->why, sizeof w->why);
    return g->self ? 0 : -1;
}

void sim_gateway_free(sim_gateway *g)
{
    if (g->self && g->chooser->destroy) g->chooser->destroy(g->self);
    for (uint32_t i = 0; g->index && g->world && i < g->world->cluster.prefills + g->world->cluster.decodes; i++) sim_cache_free(&g->index[i]);
    free(g->index);
    free(g->workers);
    cJSON_Delete(g->record);
}

/* ---- asking */

sim_ns           sim_now(const sim_gateway *g) { return g->world->cluster.now; }
const sim_costs *sim_costs_of(const sim_gateway *g) { return &g->believed; }
uint32_t         sim_gateways(const sim_gateway *g) { return g->processes; }
uint64_t         sim_random(sim_gateway *g) { return sim_next(&g->random); }
double           sim_mean_output(const sim_gateway *g) { return (g->output_sum + 300 * 8) / (g->outputs + 8); }

const sim_worker *sim_workers(const sim_gateway *g, uint32_t *prefills, uint32_t *decodes)
{
    *prefills = g->world->cluster.prefills;
    *decodes = g->world->cluster.decodes;
    return g->workers;
}

static uint32_t believed_tokens(sim_gateway *g, const sim_request *q, uint32_t worker)
{
    if (!g->index) return 0;
    uint64_t tokens = (uint64_t)sim_cache_match(&g->index[worker], q->blocks, q->n) * g->world->cluster.block;
    return tokens < q->in ? (uint32_t)tokens : q->in - 1;
}

void sim_match(sim_gateway *g, const sim_request *q, uint32_t *tokens)
{
    for (uint32_t i = 0; i < g->world->cluster.prefills + g->world->cluster.decodes; i++) tokens[i] = believed_tokens(g, q, i);
}

double sim_prefill_seconds(const sim_gateway *g, uint32_t uncached, uint32_t cached) { return sim_prompt_seconds(&g->believed, uncached, cached); }

double sim_transfer_seconds(const sim_gateway *g, uint32_t prefill, uint32_t decode, uint32_t tokens)
{
    return g->believed.transfer_latency + tokens * g->believed.transfer_token[sim_tier(&g->world->cluster, prefill, decode)];
}

double sim_step_seconds(const sim_gateway *g, uint32_t requests, uint64_t context_tokens)
{
    return sim_decode_seconds(&g->believed, requests, (double)context_tokens);
}

const char *sim_tenant_of(const sim_gateway *g, const sim_request *q, int32_t *priority)
{
    *priority = q->tenant == SIM_NONE ? 0 : g->world->tenants->v[q->tenant].priority;
    return q->tenant == SIM_NONE ? "" : g->world->tenants->v[q->tenant].name;
}

/* ---- books */

static void learn_blocks(sim_gateway *g, uint32_t worker, const uint32_t *blocks, uint32_t n)
{
    if (!g->index) return;
    sim_cache_store(&g->index[worker], blocks, n);
    sim_cache_shrink(&g->index[worker], g->index_blocks);
    g->world->cluster.failed |= g->index[worker].failed;
}

static void book_prefill(sim_gateway *g, sim_job *job, uint32_t worker, int sign)
{
    sim_worker *w = &g->workers[worker];
    if (sign > 0 && !w->prefill_requests) w->prefill_since = sim_now(g);
    if (sign < 0) w->prefill_since = sim_now(g);
    w->prefill_requests += (uint32_t)sign;
    w->prefill_tokens += (uint64_t)(int64_t)sign * job->believed_uncached;
    w->prefill_prompt_tokens += (uint64_t)(int64_t)sign * job->q.in;
    w->prefill_seconds += sign * job->believed_seconds;
    if (!w->prefill_requests) w->prefill_seconds = 0; /* no dust */
}

static void book_decode(sim_gateway *g, sim_job *job, int sign, int arrived)
{
    sim_worker *w = &g->workers[job->decode];
    if (arrived) {
        w->decode_arrived_requests += (uint32_t)sign;
        w->decode_arrived_tokens += (uint64_t)(int64_t)sign * job->q.in;
    } else {
        w->decode_requests += (uint32_t)sign;
        w->decode_tokens += (uint64_t)(int64_t)sign * job->q.in;
    }
}

void sim_gateway_heard_prefill(sim_gateway *g, sim_job *job)
{
    uint32_t worker = job->prefill == SIM_NONE ? job->decode : job->prefill;
    book_prefill(g, job, worker, -1);
    job->heard_prefill = sim_now(g);
    if (job->decode != SIM_NONE) book_decode(g, job, 1, 1);
    if (g->chooser->usage) g->chooser->usage(g->self, &job->q, job->cached);
    if (g->chooser->prefill_done) g->chooser->prefill_done(g->self, &job->q, worker);
}

void sim_gateway_heard_done(sim_gateway *g, sim_job *job)
{
    book_decode(g, job, -1, 0);
    book_decode(g, job, -1, 1);
    g->output_sum += job->a->out;
    g->outputs++;
    if (g->chooser->decode_done) g->chooser->decode_done(g->self, &job->q, job->decode, job->a->out);
}

void sim_gateway_scraped(sim_gateway *g, uint32_t worker, const sim_load *load)
{
    g->workers[worker].load = *load;
    if (g->chooser->scraped) g->chooser->scraped(g->self, worker, load);
}

/* ---- doing */

int sim_recording(const sim_gateway *g) { return g->world->decisions != NULL; }

static cJSON *record_of(sim_gateway *g, const sim_request *q)
{
    if (g->record && g->record_of == q->id) return g->record;
    cJSON_Delete(g->record);
    g->record = cJSON_CreateObject();
    g->record_of = q->id;
    cJSON_AddNumberToObject(g->record, "id", q->id);
    cJSON_AddArrayToObject(g->record, "candidates");
    return g->record;
}

void sim_candidate(sim_gateway *g, const sim_request *q, uint32_t worker, int chosen, double cost, const sim_term *terms, uint32_t n)
{
    if (!sim_recording(g)) return;
    cJSON *c = cJSON_CreateObject(), *t = cJSON_CreateObject();
    cJSON_AddNumberToObject(c, "worker", worker);
    cJSON_AddStringToObject(c, "role", g->workers[worker].prefill ? "prefill" : "decode");
    cJSON_AddBoolToObject(c, "chosen", chosen);
    cJSON_AddNumberToObject(c, "cost", cost);
    for (uint32_t i = 0; i < n; i++) cJSON_AddNumberToObject(t, terms[i].name, terms[i].value);
    cJSON_AddItemToObject(c, "terms", t);
    cJSON_AddItemToArray(cJSON_GetObjectItem(record_of(g, q), "candidates"), c);
}

void sim_note(sim_gateway *g, const sim_request *q, const char *text)
{
    if (sim_recording(g)) cJSON_AddStringToObject(record_of(g, q), "note", text);
}

static void add_worker(cJSON *r, const char *name, uint32_t worker)
{
    if (worker == SIM_NONE)
        cJSON_AddNullToObject(r, name);
    else
        cJSON_AddNumberToObject(r, name, worker);
}

static void write_record(sim_gateway *g, const sim_job *job)
{
    if (!sim_recording(g)) return;
    cJSON *r = record_of(g, &job->q), *all = cJSON_DetachItemFromObject(r, "candidates");
    cJSON_AddNumberToObject(r, "t", (double)sim_now(g) * 1e-9);
    cJSON_AddNumberToObject(r, "in", job->q.in);
    if (job->q.tenant != SIM_NONE) {
        int32_t priority;
        cJSON_AddStringToObject(r, "tenant", sim_tenant_of(g, &job->q, &priority));
        cJSON_AddNumberToObject(r, "priority", priority);
    }
    cJSON_AddNumberToObject(r, "held", (double)(sim_now(g) - job->arrived) * 1e-9);
    add_worker(r, "prefill", job->prefill);
    add_worker(r, "decode", job->decode);
    cJSON_AddItemToObject(r, "candidates", all);
    char *text = cJSON_PrintUnformatted(r);
    if (text) fprintf(g->world->decisions, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(g->record);
    g->record = NULL;
}

void sim_send(sim_gateway *g, const sim_request *q, uint32_t prefill, uint32_t decode)
{
    sim_world   *w = g->world;
    sim_cluster *c = &w->cluster;
    sim_job     *job = job_of(g, q);
    uint32_t     worker = prefill == SIM_NONE ? decode : prefill;
    if (job->sent >= 0 || job->state == SIM_REFUSED || worker >= c->prefills + c->decodes || (prefill != SIM_NONE && prefill >= c->prefills) ||
        (decode != SIM_NONE && decode < c->prefills)) {
        snprintf(w->why, sizeof w->why, "%s sent request %u twice or to a worker that is none", g->chooser->name, q->id);
        c->failed = 1;
        return;
    }
    uint32_t cached = believed_tokens(g, q, worker);
    job->prefill = prefill;
    job->decode = decode;
    job->sent = c->now;
    job->believed_uncached = g->index ? q->in - cached : 0;
    job->believed_seconds = g->index ? sim_prefill_seconds(g, q->in - cached, cached) : 0;
    book_prefill(g, job, worker, 1);
    if (decode != SIM_NONE) book_decode(g, job, 1, 0);
    learn_blocks(g, worker, q->blocks, q->n);
    if (decode != SIM_NONE && decode != worker) learn_blocks(g, decode, q->blocks, q->n);
    write_record(g, job);
    sim_events_put(c->events, c->now + (sim_ns)llround(c->costs.delay * 1e9), prefill == SIM_NONE ? SIM_EV_AT_DECODE : SIM_EV_AT_PREFILL, q->id, 0);
}

void sim_bind(sim_gateway *g, const sim_request *q, uint32_t decode)
{
    sim_cluster *c = &g->world->cluster;
    sim_job     *job = job_of(g, q);
    if (job->decode != SIM_NONE || job->prefill == SIM_NONE || decode < c->prefills || decode >= c->prefills + c->decodes) {
        snprintf(g->world->why, sizeof g->world->why, "%s bound request %u twice or to no decode worker", g->chooser->name, q->id);
        c->failed = 1;
        return;
    }
    job->decode = decode;
    book_decode(g, job, 1, 0);
    if (job->heard_prefill >= 0) book_decode(g, job, 1, 1);
    learn_blocks(g, decode, q->blocks, q->n);
    if (job->state == SIM_HANDOVER) sim_events_put(c->events, c->now + (sim_ns)llround(c->costs.delay * 1e9), SIM_EV_AT_DECODE, q->id, 0);
}

void sim_refuse(sim_gateway *g, const sim_request *q, double retry_after)
{
    sim_job *job = job_of(g, q);
    (void)retry_after;
    if (job->sent >= 0 || job->state == SIM_REFUSED) return;
    job->state = SIM_REFUSED;
    job->ended = g->world->cluster.now;
    g->world->left--;
    sim_world_next(g->world, job);
}

void sim_wake(sim_gateway *g, sim_ns at)
{
    sim_events_put(&g->world->events, at > sim_now(g) ? at : sim_now(g), SIM_EV_WAKE, g->number, 0);
}
