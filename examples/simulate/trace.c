#include "trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building */

static int grow(void **p, size_t *cap, size_t n, size_t size)
{
    if (n < *cap) return 0;
    size_t more = *cap ? *cap * 2 : 1024;
    void  *q = realloc(*p, more * size);
    if (!q) return -1;
    *p = q;
    *cap = more;
    return 0;
}

sim_entry *sim_trace_add(sim_trace *t)
{
    void *p = t->entries;
    if (grow(&p, &t->cap, t->n, sizeof *t->entries)) return NULL;
    t->entries = p;
    sim_entry *e = &t->entries[t->n++];
    memset(e, 0, sizeof *e);
    e->first = (uint32_t)t->ids_n;
    e->tenant = SIM_NONE;
    return e;
}

int sim_trace_id(sim_trace *t, uint64_t id)
{
    void *p = t->raw;
    if (grow(&p, &t->raw_cap, t->ids_n, sizeof *t->raw)) return -1;
    t->raw = p;
    t->raw[t->ids_n++] = id;
    return 0;
}

/* Open addressing over the raw ids; a slot is 1 + the dense number. */
static int make_dense(sim_trace *t)
{
    size_t cap = 16;
    while (cap < t->ids_n * 2) cap *= 2;
    uint32_t *slot = calloc(cap, sizeof *slot);
    uint64_t *key = malloc(cap * sizeof *key);
    t->ids = malloc((t->ids_n + 1) * sizeof *t->ids);
    if (!slot || !key || !t->ids) {
        free(slot);
        free(key);
        return -1;
    }
    for (size_t i = 0; i < t->ids_n; i++) {
        uint64_t state = t->raw[i];
        size_t   at = sim_next(&state) & (cap - 1);
        while (slot[at] && key[at] != t->raw[i]) at = (at + 1) & (cap - 1);
        if (!slot[at]) {
            slot[at] = ++t->id_count;
            key[at] = t->raw[i];
        }
        t->ids[i] = slot[at] - 1;
    }
    free(slot);
    free(key);
    free(t->raw);
    t->raw = NULL;
    return 0;
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/*
 * Which blocks does an answer fill? A later prompt that begins with all full blocks of this one and is at least as long as prompt and answer together
 * continues it (the most recent such pair; one-block prefixes prove nothing in an open loop, where everybody may share the first block).
 */
static int find_follow_ups(sim_trace *t)
{
    uint32_t *last = malloc(((size_t)t->id_count + 1) * sizeof *last); /* last full block -> entry */
    if (!last) return -1;
    memset(last, 255, ((size_t)t->id_count + 1) * sizeof *last);
    for (uint32_t k = 0; k < t->n; k++) {
        sim_entry *e = &t->entries[k];
        for (uint32_t i = e->n; i-- > 0;) {
            uint32_t id = t->ids[e->first + i], j = last[id];
            if (j == SIM_NONE) continue;
            sim_entry *before = &t->entries[j];
            if (before->in / t->block != i + 1 || (uint64_t)before->in + before->out > e->in) continue;
            if (!t->closed) e->thread = before->thread;
            before->follow = e->first;
            before->follow_n = least((before->in + before->out) / t->block, e->n);
            last[id] = SIM_NONE;
            break;
        }
        uint32_t full = e->in / t->block;
        if (full > (t->closed ? 0u : 1u) && full <= e->n) last[t->ids[e->first + full - 1]] = k;
    }
    free(last);
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const sim_entry *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

int sim_trace_finish(sim_trace *t)
{
    if (t->n >= UINT32_MAX || t->ids_n >= UINT32_MAX) return -1;
    if (make_dense(t)) return -1;
    if (!t->closed) qsort(t->entries, t->n, sizeof *t->entries, by_time);
    uint32_t sessions = 0;
    for (size_t i = 0; i < t->n; i++) {
        t->entries[i].thread = t->entries[i].session;
        if (t->entries[i].session >= sessions) sessions = t->entries[i].session + 1;
    }
    t->sessions = sessions;
    if (t->tenants.n) { /* where some say a tenant or a priority, the others are nobody's, of priority 0 */
        for (size_t i = 0; i < t->n; i++)
            if (t->entries[i].tenant == SIM_NONE && (t->entries[i].tenant = sim_tenants_row(&t->tenants, "", 0, 0)) == SIM_NONE) return -1;
    }
    if (!t->closed && t->n) {
        double begin = t->entries[0].at;
        for (size_t i = 0; i < t->n; i++) t->entries[i].at -= begin;
        t->span = t->entries[t->n - 1].at;
    }
    return find_follow_ups(t);
}

int sim_trace_prioritise(sim_trace *t, const char *text, char *why, size_t cap)
{
    uint32_t *became = malloc(((size_t)t->tenants.n + 1) * sizeof *became);
    int       bad = became ? sim_tenants_prioritise(&t->tenants, text, became, why, cap) : -1;
    if (!became) snprintf(why, cap, "out of memory");
    for (size_t i = 0; !bad && i < t->n; i++)
        if (t->entries[i].tenant != SIM_NONE) t->entries[i].tenant = became[t->entries[i].tenant];
    free(became);
    return bad;
}

void sim_trace_free(sim_trace *t)
{
    sim_tenants_free(&t->tenants);
    free(t->entries);
    free(t->ids);
    free(t->raw);
    memset(t, 0, sizeof *t);
}

double sim_trace_ideal(const sim_trace *t, double *total)
{
    unsigned char *seen = calloc((size_t)t->id_count + 1, 1);
    double         hit = 0, sum = 0;
    if (!seen) return 0;
    for (size_t k = 0; k < t->n; k++) {
        const sim_entry *e = &t->entries[k];
        uint32_t         depth = 0;
        while (depth < e->n && seen[t->ids[e->first + depth]]) depth++;
        for (uint32_t i = 0; i < e->n; i++) seen[t->ids[e->first + i]] = 1;
        uint64_t tokens = (uint64_t)depth * t->block;
        hit += (double)(tokens < e->in ? tokens : e->in - 1);
        sum += e->in;
        for (uint32_t i = 0; i < e->follow_n; i++) seen[t->ids[e->follow + i]] = 1;
    }
    free(seen);
    *total = sum;
    return hit;
}

/* ---- a run's schedule */

static sim_ns to_ns(double seconds) { return (sim_ns)llround(seconds * 1e9); }

static int arrival_by_time(const void *a, const void *b)
{
    const sim_arrival *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    if (x->session != y->session) return x->session < y->session ? -1 : 1;
    return x->blocks < y->blocks ? -1 : x->blocks > y->blocks;
}

/* A Poisson process of the same rate, requests in random order. */
static void draw_anew(sim_arrival *a, size_t n, double rate, uint64_t *random)
{
    double at = 0;
    for (size_t i = n; i > 1; i--) {
        size_t      j = sim_next(random) % i;
        sim_arrival x = a[i - 1];
        a[i - 1] = a[j];
        a[j] = x;
    }
    for (size_t i = 0; i < n; i++) a[i].at = to_ns(at += -log(1 - sim_uniform(random)) / rate);
}

/* Session starts as a Poisson process, sessions in random order; the rest of each session follows its first. */
static int start_sessions(sim_schedule *s, const sim_trace *t, const sim_scaling *x, uint64_t *random)
{
    size_t    n = (size_t)t->sessions * x->copies;
    double   *start = malloc((n + 1) * sizeof *start), at = 0;
    uint32_t *order = malloc((n + 1) * sizeof *order);
    double    gap = t->span / (t->sessions ? t->sessions : 1) / x->rate / x->copies;
    if (!start || !order) {
        free(start);
        free(order);
        return -1;
    }
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t   j = sim_next(random) % i;
        uint32_t k = order[i - 1];
        order[i - 1] = order[j];
        order[j] = k;
    }
    for (size_t i = 0; i < n; i++) start[order[i]] = at += -log(1 - sim_uniform(random)) * gap;
    for (size_t i = 0; i < s->n; i++) {
        sim_arrival *a = &s->arrivals[i];
        int          first = !i || s->arrivals[i - 1].session != a->session;
        a->at = first ? to_ns(start[a->session]) : SIM_LATER;
        a->next = i + 1 < s->n && s->arrivals[i + 1].session == a->session ? (uint32_t)i + 1 : SIM_NONE;
    }
    free(start);
    free(order);
    return 0;
}

int sim_schedule_make(sim_schedule *s, const sim_trace *t, const sim_scaling *x)
{
    uint64_t random = x->seed * 0x9E3779B97F4A7C15u + 1;
    size_t   each = x->limit && x->limit < t->n ? x->limit : t->n;
    double   jitter = x->jitter < 0 ? t->grid : x->jitter, move = fmin(60, t->span / 10);
    memset(s, 0, sizeof *s);
    s->block = t->block;
    s->closed = t->closed;
    s->n = each * x->copies;
    s->arrivals = calloc(s->n + 1, sizeof *s->arrivals);
    if (x->copies > 1) s->ids = malloc((t->ids_n * x->copies + 1) * sizeof *s->ids);
    if (!s->arrivals || (x->copies > 1 && !s->ids) || s->n >= UINT32_MAX) return -1;
    for (uint32_t c = 0; c < x->copies; c++) {
        const uint32_t *ids = t->ids;
        double          moved = c ? sim_uniform(&random) * move : 0;
        if (s->ids) {
            uint32_t *copy = s->ids + t->ids_n * c;
            for (size_t i = 0; i < t->ids_n; i++) copy[i] = t->ids[i] + c * t->id_count;
            ids = copy;
        }
        for (size_t i = 0; i < each; i++) {
            const sim_entry *e = &t->entries[i];
            double           at = e->at + moved + (t->closed || x->shuffle ? 0 : sim_uniform(&random) * jitter);
            s->arrivals[each * c + i] = (sim_arrival){.at = to_ns(at / x->rate), .think = to_ns(e->think), .in = e->in, .out = e->out ? e->out : 1,
                .session = e->session + c * t->sessions, .n = e->n, .blocks = ids + e->first, .follow_n = e->follow_n,
                .follow = ids + e->follow, .next = SIM_NONE,
                .tenant = x->tenants ? sim_tenants_draw(x->tenants, x->seed, e->thread + (uint64_t)c * t->sessions) : e->tenant};
        }
    }
    if (t->closed) return start_sessions(s, t, x, &random);
    if (x->shuffle) draw_anew(s->arrivals, s->n, (double)t->n / (t->span > 0 ? t->span : 1) * x->rate * x->copies, &random);
    qsort(s->arrivals, s->n, sizeof *s->arrivals, arrival_by_time);
    return 0;
}

void sim_schedule_free(sim_schedule *s)
{
    free(s->arrivals);
    free(s->ids);
    memset(s, 0, sizeof *s);
}
