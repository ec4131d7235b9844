#include "bound.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one preemptive server */

enum order { SHORTEST_REMAINING, SMALLEST, FIRST_COME };

struct server {
    const double *at, *work;
    double       *left, *key; /* of each prompt */
    size_t       *heap, waiting;
};

static void push(struct server *s, size_t job)
{
    size_t i = s->waiting++;
    for (; i && s->key[job] < s->key[s->heap[(i - 1) / 2]]; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = job;
}

static void pop(struct server *s)
{
    size_t job = s->heap[--s->waiting], i = 0;
    for (size_t k = 1; k < s->waiting; k = 2 * i + 1) {
        if (k + 1 < s->waiting && s->key[s->heap[k + 1]] < s->key[s->heap[k]]) k++;
        if (s->key[s->heap[k]] >= s->key[job]) break;
        s->heap[i] = s->heap[k];
        i = k;
    }
    s->heap[i] = job;
}

/* Serves all; sums of times from release to end, and to the mean time of being served; the longest to the end. */
static void serve(struct server *s, size_t n, double speed, enum order order, double *ends, double *middles, double *longest)
{
    double t = 0;
    *ends = *middles = *longest = 0;
    s->waiting = 0;
    for (size_t next = 0; next < n || s->waiting;) {
        if (!s->waiting && t < s->at[next]) t = s->at[next];
        for (; next < n && s->at[next] <= t; next++) {
            s->left[next] = s->work[next];
            s->key[next] = order == FIRST_COME ? (double)next : s->work[next];
            push(s, next);
        }
        size_t job = s->heap[0];
        double done = t + s->left[job] / speed, until = next < n && s->at[next] < done ? s->at[next] : done;
        *middles += speed * (until - t) * ((until + t) / 2 - s->at[job]) / s->work[job];
        s->left[job] -= speed * (until - t);
        t = until;
        if (until >= done) {
            *ends += t - s->at[job];
            *longest = fmax(*longest, t - s->at[job]);
            pop(s);
        } else if (order == SHORTEST_REMAINING) {
            s->key[job] = s->left[job]; /* it is the least, and becomes less: the heap stays one */
        }
    }
}

/* ---- how many must be late */

struct line {
    size_t *job, n; /* kept of the present busy period, in order of arrival */
    double *ends;   /* of each */
};

/* Without which of the line's the last ends soonest: all behind it move up, but none before it has come. Then it is taken out. */
static void give_up(struct line *l, const double *at, const double *work, double speed, double free_at)
{
    double behind = 0, later = -INFINITY, least = INFINITY; /* work behind the one that is looked at; the latest end that it has without those before */
    size_t which = l->n - 1;
    for (size_t i = l->n; i-- > 0;) {
        double own = work[l->job[i]] / speed, before = i ? l->ends[i - 1] : free_at, end = fmax(before + behind, later);
        if (end < least) least = end, which = i;
        behind += own;
        later = fmax(later, at[l->job[i]] + behind);
    }
    memmove(l->job + which, l->job + which + 1, (l->n - which - 1) * sizeof *l->job);
    l->n--;
    for (size_t i = which; i < l->n; i++) l->ends[i] = fmax(i ? l->ends[i - 1] : free_at, at[l->job[i]]) + work[l->job[i]] / speed;
}

size_t sim_bound_late(const double *at, const double *work, const char *take, size_t n, double speed, double x)
{
    struct line l = {calloc(n + 1, sizeof(size_t)), 0, calloc(n + 1, sizeof(double))};
    double      free_at = 0; /* before the line */
    size_t      late = 0;
    if (!l.job || !l.ends) late = SIZE_MAX;
    for (size_t i = 0; i < n && late != SIZE_MAX; i++) {
        double last = l.n ? l.ends[l.n - 1] : free_at;
        if (!take[i]) continue;
        if (last <= at[i]) l.n = 0, free_at = last; /* idle before it: who was before it makes nobody late any more */
        l.job[l.n] = i;
        l.ends[l.n] = fmax(last, at[i]) + work[i] / speed;
        l.n++;
        if (l.ends[l.n - 1] <= at[i] + x) continue;
        give_up(&l, at, work, speed, free_at);
        late++;
    }
    free(l.job);
    free(l.ends);
    return late;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The 99th percentile and the goodput at most; `longest` is enough for all. -1: no memory. */
static int quantiles(const double *at, const double *work, size_t n, double speed, double fixed, double longest, sim_bound *out)
{
    size_t  may = n - (size_t)ceil(.99 * (double)n), slow = 0, late;
    double  low = 0, high = longest, *sorted = malloc((n + 1) * sizeof *sorted);
    char   *take = malloc(n + 1);
    int     bad = !sorted || !take;
    if (!bad) {
        memcpy(sorted, work, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, ascending);
        memset(take, 1, n);
        for (int i = 0; i < 24; i++) {
            double x = (low + high) / 2;
            late = sim_bound_late(at, work, take, n, speed, x);
            bad |= late == SIZE_MAX;
            if (late <= may) high = x;
            else low = x;
        }
        out->p99 = fmax(low, sorted[n - 1 - may] + fixed);
        for (size_t i = 0; i < n; i++) slow += !(take[i] = work[i] + fixed <= SIM_BOUND_SLO);
        late = sim_bound_late(at, work, take, n, speed, SIM_BOUND_SLO);
        bad |= late == SIZE_MAX;
        out->goodput = 1 - (double)(slow + late) / (double)n;
    }
    free(sorted);
    free(take);
    return bad ? -1 : 0;
}

int sim_bound_work(const double *at, const double *work, size_t n, double speed, double fixed, sim_bound *out)
{
    struct server s = {.at = at, .work = work, .left = calloc(n + 1, sizeof(double)), .key = calloc(n + 1, sizeof(double)), .heap = calloc(n + 1, sizeof(size_t))};
    double        ends, middles, longest, unused, own = 0, most = 0;
    int           bad = !s.left || !s.key || !s.heap || !n;
    if (!bad) {
        for (size_t i = 0; i < n; i++) own += work[i], most = fmax(most, work[i]);
        serve(&s, n, speed, SHORTEST_REMAINING, &ends, &unused, &longest);
        out->mean = fmax(ends, own + (double)n * fixed) / (double)n;
        serve(&s, n, speed, SMALLEST, &ends, &middles, &longest);
        out->mean = fmax(out->mean, (middles + own / 2) / (double)n);
        serve(&s, n, speed, FIRST_COME, &ends, &unused, &longest);
        out->longest = fmax(longest, most + fixed);
        out->tpot = 0;
        bad = quantiles(at, work, n, speed, fixed, longest, out);
    }
    free(s.left);
    free(s.key);
    free(s.heap);
    return bad ? -1 : 0;
}

/* ---- what a run's prompts need at least */

struct seen {
    uint8_t *flag;
    size_t   n;
};

static int see(struct seen *s, const uint32_t *blocks, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (blocks[i] >= s->n) {
            size_t   more = (size_t)blocks[i] * 2 + 1024;
            uint8_t *p = realloc(s->flag, more);
            if (!p) return -1;
            memset(p + s->n, 0, more - s->n);
            s->flag = p;
            s->n = more;
        }
        s->flag[blocks[i]] = 1;
    }
    return 0;
}

static double cached(const struct seen *s, const sim_arrival *a, uint32_t block)
{
    uint32_t k = 0;
    while (k < a->n && a->blocks[k] < s->n && s->flag[a->blocks[k]]) k++;
    return fmin((double)k * block, a->in - 1.);
}

/* ---- a closed loop: who arrives when depends on the policy, so only what each request takes by itself bounds */

/* Blocks that another session has too: they may be cached, whoever came first. */
enum { OF_NOBODY, OF_ONE, OF_SEVERAL };

static int mark_shared(const sim_schedule *s, struct seen *shared, uint32_t **first)
{
    for (size_t i = 0; i < s->n; i++) {
        const sim_arrival *a = &s->arrivals[i];
        size_t             had = shared->n;
        for (uint32_t k = 0; k < a->n; k++) {
            uint32_t block = a->blocks[k];
            if (block >= shared->n && see(shared, &block, 1)) return -1;
            if (shared->n > had) {
                uint32_t *more = realloc(*first, shared->n * sizeof **first);
                if (!more) return -1;
                *first = more;
                shared->flag[block] = OF_NOBODY;
                had = shared->n;
            }
            if (shared->flag[block] == OF_NOBODY)
                shared->flag[block] = OF_ONE, (*first)[block] = a->session;
            else if ((*first)[block] != a->session)
                shared->flag[block] = OF_SEVERAL;
        }
    }
    return 0;
}

/* Work of each request, with everything cached that its session or any other may have computed before. */
static int work_alone(const sim_schedule *s, const sim_costs *c, int local, double *work)
{
    struct seen shared = {0}, own = {0};
    uint32_t   *first = NULL;
    int         bad = mark_shared(s, &shared, &first);
    for (size_t i = 0; !bad && i < shared.n; i++) {
        uint32_t block = (uint32_t)i;
        if (shared.flag[i] == OF_SEVERAL) bad = see(&own, &block, 1);
    }
    for (size_t head = 0; !bad && head < s->n; head++) {
        if (s->arrivals[head].at == SIM_LATER) continue;
        for (size_t i = head; !bad && i != SIM_NONE; i = s->arrivals[i].next) { /* what is its session's alone no other asks for */
            const sim_arrival *a = &s->arrivals[i];
            double             m = cached(&own, a, s->block);
            work[i] = sim_chunk_seconds(c, a->in - m, m);
            bad = see(&own, a->blocks, a->n) || (local && a->follow_n && see(&own, a->follow, a->follow_n));
        }
    }
    free(shared.flag);
    free(own.flag);
    free(first);
    return bad;
}

int sim_bound_alone(double *work, size_t n, double fixed, sim_bound *out)
{
    size_t may = n - (size_t)ceil(.99 * (double)n), slow = 0;
    double sum = 0;
    if (!n) return -1;
    qsort(work, n, sizeof *work, ascending);
    for (size_t i = 0; i < n; i++) sum += work[i], slow += work[i] + fixed > SIM_BOUND_SLO;
    *out = (sim_bound){.mean = sum / (double)n + fixed, .longest = work[n - 1] + fixed, .p99 = work[n - 1 - may] + fixed, .goodput = 1 - (double)slow / (double)n};
    return 0;
}

/*
 * The same with steps' fixed parts: a step has at most batch_tokens of a prompt or of many, so each token carries at least that part of one. Replaces work[]. No prompt is known to be alone in its steps then,
 * so what each takes alone is left to the bound without this; of every figure the better one holds.
 */
static int bound_of_steps(const double *at, double *work, const double *tokens, size_t n, double speed, const sim_costs *c, sim_bound *out)
{
    sim_bound b;
    for (size_t i = 0; i < n; i++) work[i] += tokens[i] * c->prefill_base / c->batch_tokens;
    if (sim_bound_work(at, work, n, speed, 0, &b)) return -1;
    out->mean = fmax(out->mean, b.mean);
    out->longest = fmax(out->longest, b.longest);
    out->p99 = fmax(out->p99, b.p99);
    out->goodput = fmin(out->goodput, b.goodput);
    return 0;
}

int sim_bound_of(const sim_trace *t, const sim_options *o, uint64_t seed, int local, sim_bound *out)
{
    sim_scaling  scaling = o->scaling;
    sim_schedule s;
    sim_costs    c;
    struct seen  seen = {0};
    double      *at, *work, *tokens, tpot = 0, answers = 0, speed = o->prefills + (local ? o->decodes : 0);
    int          bad = 0;
    scaling.seed = seed;
    if (sim_schedule_make(&s, t, &scaling)) return -1;
    sim_options_costs(o, t->block, &c);
    if (o->slow < o->prefills || (local && o->slow < o->prefills + o->decodes)) speed += o->slow_speed - 1;
    at = calloc(s.n + 1, sizeof *at);
    work = calloc(s.n + 1, sizeof *work);
    tokens = calloc(s.n + 1, sizeof *tokens);
    bad = !at || !work || !tokens;
    for (size_t i = 0; !bad && i < s.n; i++)
        if (s.arrivals[i].out > 1) tpot += sim_decode_seconds(&c, 1, s.arrivals[i].in) * 1e3, answers++;
    if (!bad && t->closed) bad = work_alone(&s, &c, local, work) || sim_bound_alone(work, s.n, c.prefill_base, out);
    for (size_t i = 0; !bad && !t->closed && i < s.n; i++) {
        const sim_arrival *a = &s.arrivals[i];
        double             m = cached(&seen, a, t->block);
        at[i] = (double)a->at * 1e-9;
        tokens[i] = a->in - m;
        work[i] = sim_chunk_seconds(&c, a->in - m, m);
        bad = see(&seen, a->blocks, a->n) || (local && a->follow_n && see(&seen, a->follow, a->follow_n));
    }
    if (!bad && !t->closed) bad = sim_bound_work(at, work, s.n, speed, c.prefill_base, out) || (!local && bound_of_steps(at, work, tokens, s.n, speed, &c, out));
    if (!bad) out->tpot = answers > 0 ? tpot / answers : 0;
    free(at);
    free(work);
    free(tokens);
    free(seen.flag);
    sim_schedule_free(&s);
    return bad;
}
