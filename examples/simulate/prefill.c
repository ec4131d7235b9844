/* Prefill workers: see cluster.h. */
#include "cluster.h"

#include <math.h>

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Blocks of a prompt that are in HBM, and those behind them that the host tier has. */
static uint32_t look(const sim_prefill *p, const sim_request *q, uint32_t *host)
{
    uint32_t hbm = sim_cache_match(&p->hbm, q->blocks, q->n);
    *host = sim_cache_match(&p->host, q->blocks + hbm, q->n - hbm);
    return hbm;
}

static uint32_t cached_tokens(const sim_cluster *c, const sim_request *q, uint32_t blocks)
{
    uint64_t tokens = (uint64_t)blocks * c->block;
    return tokens < q->in ? (uint32_t)tokens : q->in - 1;
}

void sim_prefill_take(sim_cluster *c, uint32_t n)
{
    sim_job     *job = &c->jobs[n];
    sim_prefill *p = &c->p[job->prefill];
    uint32_t     host, hbm = look(p, &job->q, &host);
    job->state = SIM_QUEUED;
    job->queued_uncached = job->q.in - cached_tokens(c, &job->q, hbm + host);
    p->queued_tokens += job->queued_uncached;
    p->at_work++;
    sim_queue_put(c, &p->queue, n);
    if (p->busy || p->starting) return;
    p->starting = 1;
    sim_events_put(c->events, c->now, SIM_EV_PREFILL_START, job->prefill, 0);
}

/* Service begins, if its whole prompt has room: what is there is pinned, what the host tier has is loaded, the rest is reserved. */
static int begin(sim_cluster *c, sim_prefill *p, sim_job *job)
{
    const sim_request *q = &job->q;
    uint32_t           host, hbm = look(p, q, &host), hit = hbm + host;
    uint32_t           needed = q->n - hbm + sim_cache_unpinned(&p->hbm, q->blocks, hbm);
    if (p->hbm.pinned + p->private_blocks + needed > p->cap_blocks) return 0;
    sim_cache_pin(&p->hbm, q->blocks, hbm);
    sim_cache_shrink(&p->hbm, p->cap_blocks - p->private_blocks - (q->n - hbm));
    if (host) {
        sim_cache_store(&p->hbm, q->blocks + hbm, host);
        sim_cache_pin(&p->hbm, q->blocks + hbm, host);
    }
    sim_cache_touch(&p->host, q->blocks, hit);
    job->pins = hit;
    job->private_blocks = q->n - hit;
    p->private_blocks += job->private_blocks;
    job->cached = cached_tokens(c, q, hit);
    job->computed = 0;
    job->reloaded_tokens += (uint64_t)host * c->block;
    job->reload = (double)((uint64_t)host * c->block) * c->costs.reload_token;
    job->prefill_began = c->now;
    job->state = SIM_COMPUTING;
    p->queued_tokens -= job->queued_uncached;
    job->queued_uncached = q->in - job->cached; /* what it really is, from now on */
    p->queued_tokens += job->queued_uncached;
    return 1;
}

/* A chunk of a prompt for the step in the making: its seconds. */
static double add_chunk(sim_cluster *c, sim_prefill *p, uint32_t n, uint32_t *budget)
{
    sim_job *job = &c->jobs[n];
    uint32_t left = job->q.in - job->cached - job->computed, tokens = least(left, *budget);
    double   seconds = sim_chunk_seconds(&c->costs, tokens, (double)job->cached + job->computed) + job->reload;
    job->reload = 0;
    p->step_job[p->step_n] = n;
    p->step_tokens[p->step_n++] = tokens;
    *budget -= tokens;
    p->partial = tokens < left ? n : SIM_NONE;
    return seconds;
}

void sim_prefill_start(sim_cluster *c, uint32_t worker)
{
    sim_prefill *p = &c->p[worker];
    uint32_t     budget = c->costs.batch_tokens;
    double       seconds = c->costs.prefill_base;
    p->starting = 0;
    if (p->busy) return;
    p->step_n = 0;
    if (p->partial != SIM_NONE) seconds += add_chunk(c, p, p->partial, &budget);
    while (budget && p->step_n < SIM_STEP_MOST && p->queue.n && begin(c, p, &c->jobs[p->queue.first]))
        seconds += add_chunk(c, p, sim_queue_take(c, &p->queue), &budget);
    if (!p->step_n) return;
    p->busy = 1;
    sim_ns end = sim_ends(c, worker, c->now, seconds / p->speed * sim_noise(c));
    p->busy_seconds += (double)(end - c->now) * 1e-9;
    sim_events_put(c->events, end, SIM_EV_PREFILL_STEP, worker, 0);
}

static void finish_prompt(sim_cluster *c, sim_prefill *p, uint32_t n)
{
    sim_job           *job = &c->jobs[n];
    const sim_request *q = &job->q;
    p->private_blocks -= job->private_blocks; /* they become blocks that everybody sees, or double ones that go */
    sim_cache_store(&p->hbm, q->blocks, q->n);
    sim_cache_pin(&p->hbm, q->blocks + job->pins, q->n - job->pins);
    job->pins = q->n;
    job->private_blocks = 0;
    if (c->host_blocks) {
        sim_cache_store(&p->host, q->blocks, q->n);
        sim_cache_shrink(&p->host, c->host_blocks);
    }
    p->queued_tokens -= job->queued_uncached;
    p->prefilled_tokens += q->in - job->cached;
    p->at_work--;
    job->state = SIM_HANDOVER;
    job->prefill_ended = c->now;
    c->prompt_done(c->who, job);
    if (job->decode != SIM_NONE) sim_decode_take(c, n);
}

void sim_prefill_end(sim_cluster *c, uint32_t worker)
{
    sim_prefill *p = &c->p[worker];
    p->busy = 0;
    for (uint32_t i = 0; i < p->step_n; i++) {
        sim_job *job = &c->jobs[p->step_job[i]];
        job->computed += p->step_tokens[i];
        if (job->cached + job->computed >= job->q.in) finish_prompt(c, p, p->step_job[i]);
    }
    p->step_n = 0;
    c->failed |= p->hbm.failed | p->host.failed;
    if (p->starting) return;
    p->starting = 1;
    sim_events_put(c->events, c->now, SIM_EV_PREFILL_START, worker, 0);
}

void sim_prefill_unpin(sim_cluster *c, uint32_t n)
{
    sim_job     *job = &c->jobs[n];
    sim_prefill *p = &c->p[job->prefill];
    sim_cache_unpin(&p->hbm, job->q.blocks, job->pins);
    job->pins = 0;
    if (p->busy || p->starting || !p->queue.n) return; /* its head may have waited for room */
    p->starting = 1;
    sim_events_put(c->events, c->now, SIM_EV_PREFILL_START, job->prefill, 0);
}

void sim_prefill_load(const sim_cluster *c, uint32_t worker, sim_load *out)
{
    const sim_prefill *p = &c->p[worker];
    uint64_t           done = 0;
    for (uint32_t i = 0; i < p->step_n; i++) done += c->jobs[p->step_job[i]].computed;
    *out = (sim_load){.at = c->now,
                      .running = p->step_n,
                      .waiting = p->at_work - p->step_n,
                      .waiting_tokens = p->queued_tokens - done,
                      .kv_used = (uint64_t)(p->hbm.pinned + p->private_blocks) * c->block,
                      .kv_capacity = c->costs.kv_tokens,
                      .prefilled_tokens = p->prefilled_tokens,
                      .prefill_busy_us = (uint64_t)llround(p->busy_seconds * 1e6)};
}
