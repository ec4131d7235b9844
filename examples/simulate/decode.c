/* Decode workers: see cluster.h. */
#include "cluster.h"

#include <math.h>

enum { STRETCH_MOST = 256 /* steps foreseen at once; room for them is made in advance */ };

static sim_decode *worker_of(const sim_cluster *c, const sim_job *job) { return &c->d[job->decode - c->prefills]; }
static uint64_t    context_of(const sim_job *job) { return (uint64_t)job->q.in + job->generated; }
static uint64_t    room(const sim_cluster *c, const sim_decode *d)
{
    uint64_t taken = (uint64_t)d->hbm.pinned * c->block + d->private_tokens;
    return taken < c->costs.kv_tokens ? c->costs.kv_tokens - taken : 0;
}

/* Evicts cached blocks until `more` private tokens fit beside what is there. */
static void make_room(const sim_cluster *c, sim_decode *d, uint64_t more)
{
    uint64_t taken = d->private_tokens + more;
    sim_cache_shrink(&d->hbm, taken < c->costs.kv_tokens ? (uint32_t)((c->costs.kv_tokens - taken) / c->block) : 0);
}

static void start_soon(sim_cluster *c, sim_decode *d)
{
    if (d->busy || d->starting) return;
    d->starting = 1;
    sim_events_put(c->events, c->now, SIM_EV_DECODE_START, (uint32_t)(d - c->d), 0);
}

/* ---- admission */

static uint32_t whole_blocks(const sim_cluster *c, const sim_job *job, uint32_t blocks)
{
    uint64_t most = ((uint64_t)job->q.in - 1) / c->block; /* the last token is always computed or sent */
    return blocks < most ? blocks : (uint32_t)most;
}

static void begin_transfer(sim_cluster *c, sim_job *job, uint64_t tokens)
{
    sim_prefill *p = &c->p[job->prefill];
    double       seconds = c->costs.transfer_latency + (double)tokens * c->costs.transfer_token[sim_tier(c, job->prefill, job->decode)];
    sim_ns       begin = p->sender_free > c->now ? p->sender_free : c->now;
    p->sender_free = begin + (sim_ns)llround(seconds * 1e9);
    p->transferring_seconds += seconds;
    job->state = SIM_TRANSFER;
    job->transferred_tokens += tokens;
    sim_events_put(c->events, p->sender_free, SIM_EV_TRANSFERRED, job->q.id, 0);
}

static void begin_local(sim_cluster *c, sim_decode *d, sim_job *job, uint32_t hit_blocks, uint32_t host_blocks)
{
    job->state = SIM_LOCAL;
    job->local_past = (hit_blocks + host_blocks) * c->block;
    job->local_left = (uint32_t)(context_of(job) - job->local_past);
    job->reload = (double)((uint64_t)host_blocks * c->block) * c->costs.reload_token;
    job->reloaded_tokens += (uint64_t)host_blocks * c->block;
    if (job->prefill == SIM_NONE && job->prefill_began < 0) {
        job->prefill_began = c->now;
        job->cached = job->local_past;
    }
    sim_queue_put(c, &d->local, job->q.id);
    start_soon(c, d);
}

/* The head of the queue gets a place, if its context has room; else it waits, and all behind it. */
static int admit(sim_cluster *c, sim_decode *d)
{
    sim_job           *job = &c->jobs[d->queue.first];
    const sim_request *q = &job->q;
    int                local = job->prefill == SIM_NONE || job->generated; /* decode-only, or thrown out before */
    uint32_t           hbm = whole_blocks(c, job, sim_cache_match(&d->hbm, q->blocks, q->n)), host = 0;
    uint64_t           mine = context_of(job) - (uint64_t)hbm * c->block;
    if (d->slots >= c->costs.max_running) return 0;
    if (mine + (uint64_t)sim_cache_unpinned(&d->hbm, q->blocks, hbm) * c->block > room(c, d)) return 0;
    if (local && c->decode_host_blocks) {
        host = whole_blocks(c, job, hbm + sim_cache_match(&d->host, q->blocks + hbm, q->n - hbm)) - hbm;
        sim_cache_touch(&d->host, q->blocks, hbm + host);
    }
    sim_queue_take(c, &d->queue);
    sim_cache_pin(&d->hbm, q->blocks, hbm);
    make_room(c, d, mine);
    job->d_pins = hbm;
    job->d_private = (uint32_t)mine;
    d->private_tokens += mine;
    d->slots++;
    job->admitted_order = ++d->admissions;
    if (job->admitted < 0) job->admitted = c->now;
    if (local)
        begin_local(c, d, job, hbm, host);
    else
        begin_transfer(c, job, q->in - (uint64_t)hbm * c->block);
    return 1;
}

static void admit_all(sim_cluster *c, sim_decode *d)
{
    while (d->queue.n && admit(c, d)) {}
    c->failed |= d->hbm.failed | d->host.failed;
}

void sim_decode_take(sim_cluster *c, uint32_t n)
{
    sim_job    *job = &c->jobs[n];
    sim_decode *d = worker_of(c, job);
    if (job->prefill == SIM_NONE) {
        job->state = SIM_QUEUED;
        d->prompts++;
    }
    sim_queue_put(c, &d->queue, n);
    admit_all(c, d);
}

/* ---- the end of a sequence */

static void keep(sim_cluster *c, sim_decode *d, const sim_job *job)
{
    const uint32_t *blocks = job->a->follow_n ? job->a->follow : job->q.blocks;
    uint32_t        n = job->a->follow_n ? job->a->follow_n : job->q.n;
    sim_cache_store(&d->hbm, blocks, n);
    make_room(c, d, 0);
    if (!c->decode_host_blocks) return;
    sim_cache_store(&d->host, blocks, n);
    sim_cache_shrink(&d->host, c->decode_host_blocks);
}

static void give_up_place(sim_cluster *c, sim_decode *d, sim_job *job)
{
    sim_cache_unpin(&d->hbm, job->q.blocks, job->d_pins);
    d->private_tokens -= job->d_private;
    job->d_pins = job->d_private = 0;
    d->slots--;
    (void)c;
}

static void finish(sim_cluster *c, sim_decode *d, sim_job *job)
{
    give_up_place(c, d, job);
    keep(c, d, job);
    job->state = SIM_FINISHED;
    job->ended = c->now;
    c->finished(c->who, job);
}

/* ---- stretches of steps */

/* Virtual seconds until the end of the j-th step of the stretch. */
static double after_steps(const sim_decode *d, uint32_t j) { return d->first * j + d->rise * ((double)j * (j - 1.) / 2); }

static void count_time(sim_cluster *c, sim_decode *d)
{
    double seconds = (double)(c->now - d->counted) * 1e-9;
    d->running_seconds += seconds * d->running_n;
    d->token_seconds += seconds * (double)(d->context + d->private_tokens);
    d->counted = c->now;
}

static void join_ready(sim_cluster *c, sim_decode *d)
{
    for (uint32_t n; (n = sim_queue_take(c, &d->ready)) != SIM_NONE;) {
        sim_job *job = &c->jobs[n];
        if (job->generated >= job->a->out) { /* its first token was its last */
            finish(c, d, job);
            continue;
        }
        job->state = SIM_RUNNING;
        d->running[d->running_n++] = n;
        d->context += context_of(job);
    }
}

static void throw_out(sim_cluster *c, sim_decode *d)
{
    uint32_t at = 0;
    for (uint32_t i = 1; i < d->running_n; i++)
        if (c->jobs[d->running[i]].admitted_order > c->jobs[d->running[at]].admitted_order) at = i;
    uint32_t n = d->running[at];
    sim_job *job = &c->jobs[n];
    d->context -= context_of(job);
    d->running[at] = d->running[--d->running_n];
    give_up_place(c, d, job);
    job->state = SIM_HANDOVER;
    job->preempted++;
    c->preempted++;
    sim_queue_put_first(c, &d->queue, n);
}

static uint32_t fewest_left(const sim_cluster *c, const sim_decode *d)
{
    uint32_t left = STRETCH_MOST;
    for (uint32_t i = 0; i < d->running_n; i++) {
        const sim_job *job = &c->jobs[d->running[i]];
        if (job->a->out - job->generated < left) left = job->a->out - job->generated;
    }
    return left;
}

static void schedule_end(sim_cluster *c, sim_decode *d)
{
    uint32_t worker = (uint32_t)(d - c->d);
    sim_ns   end = sim_ends(c, c->prefills + worker, d->began, after_steps(d, d->steps));
    d->generation++;
    sim_events_put(c->events, end, SIM_EV_DECODE_STEP, worker, d->generation);
}

void sim_decode_start(sim_cluster *c, uint32_t worker)
{
    sim_decode *d = &c->d[worker];
    d->starting = 0;
    if (d->busy) return;
    count_time(c, d);
    join_ready(c, d);
    admit_all(c, d);
    while (d->running_n > 1 && room(c, d) < d->running_n) throw_out(c, d);
    if (!d->running_n && !d->local.n) return;
    d->steps = fewest_left(c, d);
    if (d->running_n && room(c, d) / d->running_n < d->steps) d->steps = (uint32_t)(room(c, d) / d->running_n);
    if (!d->steps) d->steps = 1;
    d->first = sim_decode_seconds(&c->costs, d->running_n, (double)d->context);
    d->rise = d->running_n * c->costs.step_token;
    d->local_job = d->local.first;
    if (d->local_job != SIM_NONE) {
        sim_job *job = &c->jobs[d->local_job];
        double   chunk;
        d->local_tokens = job->local_left < c->local_chunk ? job->local_left : c->local_chunk;
        chunk = sim_chunk_seconds(&c->costs, d->local_tokens, job->local_past) + job->reload;
        d->first += chunk;
        d->prefill_busy += chunk;
        job->reload = 0;
        d->steps = 1;
    }
    double factor = sim_noise(c) / d->speed;
    d->first *= factor;
    d->rise *= factor;
    make_room(c, d, (uint64_t)d->steps * d->running_n);
    d->busy = 1;
    d->began = c->now;
    schedule_end(c, d);
}

static void advance_local(sim_cluster *c, sim_decode *d)
{
    sim_job *job = &c->jobs[d->local_job];
    job->local_left -= d->local_tokens;
    job->local_past += d->local_tokens;
    d->prefilled_tokens += d->local_tokens;
    d->local_job = SIM_NONE;
    if (job->local_left) return;
    sim_queue_take(c, &d->local);
    if (job->prefill == SIM_NONE && job->prefill_ended < 0) {
        d->prompts--;
        job->generated = 1;
        job->d_private++;
        d->private_tokens++;
        job->prefill_ended = job->first_byte = c->now;
        c->prompt_done(c->who, job);
        c->first_byte(c->who, job);
    }
    job->state = SIM_READY;
    sim_queue_put(c, &d->ready, job->q.id);
}

void sim_decode_step(sim_cluster *c, uint32_t worker, uint64_t generation)
{
    sim_decode *d = &c->d[worker];
    if (generation != d->generation || !d->busy) return;
    count_time(c, d);
    d->busy = 0;
    uint32_t kept = 0, n = d->running_n;
    d->context = 0;
    for (uint32_t i = 0; i < n; i++) {
        sim_job *job = &c->jobs[d->running[i]];
        job->generated += d->steps;
        job->d_private += d->steps;
        d->private_tokens += d->steps;
        if (job->generated >= job->a->out) {
            finish(c, d, job);
            continue;
        }
        d->running[kept++] = d->running[i];
        d->context += context_of(job);
    }
    d->running_n = kept;
    if (d->local_job != SIM_NONE) advance_local(c, d);
    start_soon(c, d);
}

/* A transfer has come: it joins at the end of the step under way. */
void sim_decode_transferred(sim_cluster *c, uint32_t n)
{
    sim_job    *job = &c->jobs[n];
    sim_decode *d = worker_of(c, job);
    sim_prefill_unpin(c, n);
    job->state = SIM_READY;
    job->generated = 1; /* prefill made the first token */
    job->d_private++;
    d->private_tokens++;
    job->first_byte = c->now;
    c->first_byte(c->who, job);
    sim_queue_put(c, &d->ready, n);
    start_soon(c, d);
    if (!d->busy || d->steps < 2) return;
    double   passed = (double)(c->now - d->began) * 1e-9;
    uint32_t low = 1, high = d->steps;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (after_steps(d, middle) >= passed) high = middle;
        else low = middle + 1;
    }
    if (low == d->steps) return;
    d->steps = low;
    schedule_end(c, d);
}

void sim_decode_load(const sim_cluster *c, uint32_t worker, sim_load *out)
{
    const sim_decode *d = &c->d[worker];
    uint64_t          waiting = 0;
    for (uint32_t n = d->local.first; n != SIM_NONE; n = c->jobs[n].next) waiting += c->jobs[n].local_left;
    *out = (sim_load){.at = c->now,
                      .running = d->running_n,
                      .waiting = d->queue.n + d->slots - d->running_n,
                      .waiting_tokens = waiting,
                      .kv_used = (uint64_t)d->hbm.pinned * c->block + d->private_tokens,
                      .kv_capacity = c->costs.kv_tokens,
                      .prefilled_tokens = d->prefilled_tokens,
                      .prefill_busy_us = (uint64_t)llround(d->prefill_busy * 1e6)};
}
