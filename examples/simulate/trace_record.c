/*
 * Reader of what `pdroutectl record` wrote: a running gateway's requests as a trace, through the library's public replay interface.
 *
 * Each recorded arrival is a request, with its time, its block hashes (which requests that share a prefix have in common) and the lengths that its answer's usage named;
 * where none did, those that the router expected. Tenants are recorded as hashes: their names here are those, in hexadecimal. The block of the trace is the mean number of tokens per hash. What the hashes do not cover (the last part of a block,
 * or a prompt longer than the router hashes) is shared with nobody. Limits: a retry is recorded as an arrival of its own; arrivals are an open loop.
 */
#include "trace.h"

#include "pdroute/pdroute.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { ANSWER_MOST = 100000000 };

typedef struct usage {
    uint64_t ticket;
    size_t   entry; /* SIZE_MAX: these are an answer's lengths */
    uint64_t in, out;
} usage;

typedef struct record {
    sim_trace  *t;
    pdr_replay *replay;
    usage      *usage; /* arrivals and answers, then by ticket */
    size_t      n, cap;
    uint64_t   *hash;
    size_t      hash_cap;
    double      tokens, blocks; /* sums over the requests */
} record;

static int say(char *why, size_t cap, const char *sentence)
{
    snprintf(why, cap, "%s", sentence);
    return -1;
}

static int note(record *r, usage u)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 1024;
        usage *more = realloc(r->usage, cap * sizeof *more);
        if (!more) return -1;
        r->usage = more;
        r->cap = cap;
    }
    r->usage[r->n++] = u;
    return 0;
}

/* As it was told to the router; nobody and no priority in the whole file: the trace has no tenants. */
static int take_tenant(record *r, sim_entry *e, const pdr_replay_step *s)
{
    char    name[24];
    int64_t n = s->priority < INT32_MIN ? INT32_MIN : s->priority > INT32_MAX ? INT32_MAX : s->priority;
    if (!s->tenant && !n) return 0;
    int len = s->tenant ? snprintf(name, sizeof name, "%016" PRIx64, s->tenant) : 0;
    e->tenant = sim_tenants_row(&r->t->tenants, name, (size_t)len, (int32_t)n);
    return e->tenant == SIM_NONE ? -1 : 0;
}

static int add_arrival(record *r, const pdr_replay_step *s)
{
    size_t     n = r->hash_cap;
    sim_entry *e;
    int        code;
    while ((code = pdr_replay_hashes(r->replay, r->hash, &n)) == PDR_E_NOSPACE) {
        uint64_t *more = realloc(r->hash, n * sizeof *more);
        if (!more) return -1;
        r->hash = more;
        r->hash_cap = n;
    }
    if (code) n = 0;
    if (!(e = sim_trace_add(r->t))) return -1;
    e->at = (double)s->time_ns * 1e-9;
    e->session = (uint32_t)r->t->n - 1;
    e->in = (uint32_t)(s->prompt_tokens < ANSWER_MOST ? s->prompt_tokens : ANSWER_MOST);
    e->out = (uint32_t)(s->output_tokens < ANSWER_MOST ? s->output_tokens : ANSWER_MOST);
    e->n = (uint32_t)n;
    if (take_tenant(r, e, s)) return -1;
    if (s->block_millitokens) {
        r->tokens += (double)s->prompt_tokens;
        r->blocks += (double)s->prompt_tokens * 1000 / (double)s->block_millitokens;
    }
    for (size_t i = 0; i < n; i++)
        if (sim_trace_id(r->t, r->hash[i])) return -1;
    return s->ticket ? note(r, (usage){s->ticket, r->t->n - 1, 0, 0}) : 0;
}

static int by_ticket(const void *a, const void *b)
{
    const usage *x = a, *y = b;
    if (x->ticket != y->ticket) return x->ticket < y->ticket ? -1 : 1;
    return x->entry > y->entry ? -1 : x->entry < y->entry; /* answers before the arrival */
}

/* What the answers said. Both legs report; the longer answer is decode's. */
static void take_usage(record *r)
{
    uint64_t in = 0, out = 0;
    double   expected = r->tokens;
    qsort(r->usage, r->n, sizeof *r->usage, by_ticket);
    for (size_t i = 0; i < r->n; i++) {
        const usage *u = &r->usage[i];
        if (i && r->usage[i - 1].ticket != u->ticket) in = out = 0;
        if (u->entry == SIZE_MAX) {
            in = u->in > in ? u->in : in;
            out = u->out > out ? u->out : out;
            continue;
        }
        sim_entry *e = &r->t->entries[u->entry];
        if (in && in < ANSWER_MOST) {
            r->tokens += (double)in - (double)e->in;
            e->in = (uint32_t)in;
        }
        if (out && out < ANSWER_MOST) e->out = (uint32_t)out;
    }
    if (!(r->tokens > 0)) r->tokens = expected;
}

/* Ids again, so that each request has as many as its prompt has blocks: some less, or some that nobody shares. */
static int fit_blocks(record *r, uint32_t window)
{
    sim_trace *t = r->t, old = *t;
    uint64_t   fresh = (uint64_t)1 << 63;
    int        bad = 0;
    t->block = r->blocks > 0 && r->tokens / r->blocks >= 1 ? (uint32_t)(r->tokens / r->blocks + .5) : 128;
    t->entries = NULL;
    t->raw = NULL;
    t->n = t->cap = t->ids_n = t->raw_cap = 0;
    for (size_t k = 0; k < old.n && !bad; k++) {
        const sim_entry *from = &old.entries[k];
        sim_entry       *e;
        if (window && from->in > window) {
            t->dropped++;
            continue;
        }
        if (!(e = sim_trace_add(t))) {
            bad = -1;
            break;
        }
        e->at = from->at;
        e->session = (uint32_t)t->n - 1;
        e->in = from->in ? from->in : 1;
        e->out = from->out;
        e->tenant = from->tenant;
        e->n = (e->in + t->block - 1) / t->block;
        for (uint32_t i = 0; i < e->n && !bad; i++) bad = sim_trace_id(t, i < from->n ? old.raw[from->first + i] : fresh++);
    }
    free(old.entries);
    free(old.raw);
    return bad;
}

int sim_trace_read_record(sim_trace *t, const void *file, size_t len, uint32_t window, char *why, size_t cap)
{
    record          r = {.t = t};
    pdr_error       err;
    pdr_replay_step s;
    int             code, bad = 0;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&s, sizeof s);
    if (pdr_replay_open(file, len, PDR_REPLAY_PARTIAL, &r.replay, &err)) return say(why, cap, err.message);
    while (!bad && !(code = pdr_replay_next(r.replay, PDR_NONE, &s, &err))) {
        if (s.kind == PDR_REPLAY_ROUTED) bad = add_arrival(&r, &s);
        if (s.kind == PDR_REPLAY_USAGE) bad = note(&r, (usage){s.ticket, SIZE_MAX, s.prompt_tokens, s.output_tokens});
    }
    pdr_replay_close(r.replay);
    if (!bad && code != PDR_E_NOT_FOUND) {
        bad = say(why, cap, err.message);
    } else if (!bad) {
        if (r.n) take_usage(&r);
        bad = fit_blocks(&r, window) ? say(why, cap, "out of memory") : 0;
    } else {
        bad = say(why, cap, "out of memory");
    }
    free(r.usage);
    free(r.hash);
    return bad;
}
