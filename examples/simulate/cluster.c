#include "cluster.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int init_prefill(const sim_cluster *c, sim_prefill *p)
{
    p->queue = (sim_queue){SIM_NONE, SIM_NONE, 0};
    p->partial = SIM_NONE;
    p->speed = 1;
    p->cap_blocks = (uint32_t)(c->costs.kv_tokens / c->block);
    return sim_cache_init(&p->hbm) | sim_cache_init(&p->host);
}

static int init_decode(const sim_cluster *c, sim_decode *d)
{
    d->queue = d->ready = d->local = (sim_queue){SIM_NONE, SIM_NONE, 0};
    d->local_job = SIM_NONE;
    d->speed = 1;
    d->running = malloc((c->costs.max_running + 1u) * sizeof *d->running);
    return sim_cache_init(&d->hbm) | sim_cache_init(&d->host) | (d->running ? 0 : -1);
}

int sim_cluster_init(sim_cluster *c)
{
    int bad = 0;
    c->p = calloc(c->prefills + 1u, sizeof *c->p);
    c->d = calloc(c->decodes + 1u, sizeof *c->d);
    if (!c->p || !c->d) return -1;
    for (uint32_t i = 0; i < c->prefills; i++) bad |= init_prefill(c, &c->p[i]);
    for (uint32_t i = 0; i < c->decodes; i++) bad |= init_decode(c, &c->d[i]);
    return bad ? -1 : 0;
}

void sim_cluster_free(sim_cluster *c)
{
    for (uint32_t i = 0; c->p && i < c->prefills; i++) {
        sim_cache_free(&c->p[i].hbm);
        sim_cache_free(&c->p[i].host);
    }
    for (uint32_t i = 0; c->d && i < c->decodes; i++) {
        sim_cache_free(&c->d[i].hbm);
        sim_cache_free(&c->d[i].host);
        free(c->d[i].running);
    }
    free(c->p);
    free(c->d);
    c->p = NULL;
    c->d = NULL;
}

/* ---- queues through jobs */

void sim_queue_put(sim_cluster *c, sim_queue *q, uint32_t job)
{
    c->jobs[job].next = SIM_NONE;
    if (q->first == SIM_NONE)
        q->first = job;
    else
        c->jobs[q->last].next = job;
    q->last = job;
    q->n++;
}

void sim_queue_put_first(sim_cluster *c, sim_queue *q, uint32_t job)
{
    c->jobs[job].next = q->first;
    if (q->first == SIM_NONE) q->last = job;
    q->first = job;
    q->n++;
}

uint32_t sim_queue_take(sim_cluster *c, sim_queue *q)
{
    uint32_t job = q->first;
    if (job == SIM_NONE) return job;
    q->first = c->jobs[job].next;
    if (q->first == SIM_NONE) q->last = SIM_NONE;
    q->n--;
    return job;
}

/* ---- time and place */

static double normal(uint64_t *r) { return sqrt(-2 * log(1 - sim_uniform(r))) * cos(6.283185307179586 * sim_uniform(r)); }

double sim_noise(sim_cluster *c)
{
    return c->noise > 0 ? exp(c->noise * normal(&c->random) - c->noise * c->noise / 2) : 1;
}

sim_ns sim_ends(const sim_cluster *c, uint32_t worker, sim_ns begin, double seconds)
{
    sim_ns end = begin + (sim_ns)llround(seconds * 1e9);
    if (worker == c->stalled && begin < c->stall_to && end > c->stall_from)
        end += c->stall_to - (begin > c->stall_from ? begin : c->stall_from);
    return end > c->now ? end : c->now + 1;
}

/* Without racks nothing is known about anybody's place. With racks: workers are dealt round, each a host of its own, two racks a zone. */
void sim_place(const sim_cluster *c, uint32_t worker, uint32_t *host, uint32_t *rack, uint32_t *zone)
{
    *host = worker;
    *rack = c->racks ? (worker < c->prefills ? worker : worker - c->prefills) % c->racks : 0;
    *zone = c->racks ? *rack / 2 : 0;
}

int sim_tier(const sim_cluster *c, uint32_t prefill, uint32_t decode)
{
    uint32_t ph, pr, pz, dh, dr, dz;
    sim_place(c, prefill, &ph, &pr, &pz);
    sim_place(c, decode, &dh, &dr, &dz);
    return ph == dh ? SIM_TIER_HOST : !c->racks ? SIM_TIER_ZONE : pr == dr ? SIM_TIER_RACK : pz == dz ? SIM_TIER_ZONE : SIM_TIER_FAR;
}
