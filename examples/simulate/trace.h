/*
 * Requests to be replayed. A trace is read or made once and never changed; a run makes its own schedule of it (sim_schedule: renamed copies, rate,
 * jitter, seed), which shares nothing that changes.
 *
 * Open loop: a request arrives at its time. Closed loop (agents): the first of a session arrives at its time, each further one `think` after the
 * answer before it is complete.
 */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include "chooser.h"
#include "tenants.h"

typedef struct sim_entry {
    double   at;        /* seconds: of the trace, or since its session's begin */
    double   think;     /* closed loop: seconds after the answer before */
    uint32_t session;
    uint32_t in, out;   /* tokens */
    uint32_t first, n;  /* its blocks in ids[] */
    uint32_t tenant;    /* row of the trace's tenants; SIM_NONE: the trace has none */
    uint32_t thread;    /* conversation: of the session, or of the request that it goes on from */
    uint32_t follow, follow_n; /* blocks that its prompt and answer together fill, as a later request shows; 0: unknown */
} sim_entry;

typedef struct sim_trace {
    char       name[64];
    uint32_t   block;    /* tokens per block */
    uint32_t   closed;   /* 1: closed loop */
    size_t     n;
    sim_entry *entries;  /* open loop: by time; closed loop: by session, then order */
    size_t     ids_n;
    uint32_t  *ids;      /* block ids, dense from 0 */
    uint32_t   id_count; /* largest + 1 */
    uint32_t   sessions;
    sim_tenants tenants; /* as the trace has them; n 0: none */
    double     span;     /* seconds from the first to the last arrival; closed loop: base gap between session starts times sessions */
    double     grid;     /* seconds: arrivals lie on this grid (jitter spreads them over it); 0: none */
    size_t     dropped;  /* requests left out: longer than the window */
    uint64_t  *raw;      /* private: ids as read, until sim_trace_finish() */
    size_t     cap, raw_cap;
} sim_trace;

/* Reads FILE by its content: Mooncake jsonl, Azure csv, Weka run-length jsonl, a file of `pdroutectl record`; .gz of each. window: longer prompts are left out (0: none are).
 * 0, or -1 with a sentence in why. */
int  sim_trace_read(sim_trace *t, const char *path, uint32_t window, char *why, size_t cap);
/* The same for a file of recorded decisions in memory (trace_record.c), without sim_trace_finish(). */
int  sim_trace_read_record(sim_trace *t, const void *file, size_t len, uint32_t window, char *why, size_t cap);
/* "synthetic:KIND[,n=…,seed=…,rate=…]", deterministic: see trace_make.c. */
int  sim_trace_make(sim_trace *t, const char *spec, char *why, size_t cap);
/* "NAME=N,…": these tenants' requests get that priority. 0, or -1 with a sentence. */
int  sim_trace_prioritise(sim_trace *t, const char *text, char *why, size_t cap);
void sim_trace_free(sim_trace *t);
/* Hit of an infinite cache that all share, in tokens; total prompt tokens in *total. */
double sim_trace_ideal(const sim_trace *t, double *total);

/* For makers and readers: room for one more entry / id; NULL without memory. Then sim_trace_finish(): dense ids, follow-ups, order, span. */
sim_entry *sim_trace_add(sim_trace *t);
int        sim_trace_id(sim_trace *t, uint64_t id);
int        sim_trace_finish(sim_trace *t);

/* One run's arrivals. */
typedef struct sim_arrival {
    sim_ns   at;       /* closed loop: of a session's first; else SIM_LATER */
    sim_ns   think;
    uint32_t session;  /* renamed */
    uint32_t in, out, n, follow_n;
    uint32_t tenant;   /* row; SIM_NONE */
    const uint32_t *blocks, *follow; /* follow: blocks that the prompt and its answer fill */
    uint32_t next;     /* closed loop: the session's next request; SIM_NONE */
} sim_arrival;
#define SIM_LATER INT64_MAX

typedef struct sim_schedule {
    size_t       n;
    sim_arrival *arrivals; /* open loop: by time */
    uint32_t    *ids;      /* renamed; NULL: the trace's */
    uint32_t     block, closed;
} sim_schedule;

typedef struct sim_scaling {
    double   rate;    /* 2: twice as fast */
    uint32_t copies;  /* renamed copies of the trace, each moved by up to a minute (at most a tenth of the span); agents' sessions start at random anyway */
    double   jitter;  /* seconds, uniform; < 0: the trace's own grid */
    uint64_t seed;
    size_t   limit;   /* first requests only; 0: all */
    const sim_tenants *tenants; /* requests are dealt to these; NULL: as the trace has them */
    uint32_t shuffle; /* 1: arrivals are drawn anew as a Poisson process of the trace's rate, order of requests shuffled */
} sim_scaling;
int  sim_schedule_make(sim_schedule *s, const sim_trace *t, const sim_scaling *scaling);
void sim_schedule_free(sim_schedule *s);

/* splitmix64, the laboratory's only source of chance */
static inline uint64_t sim_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}
static inline double sim_uniform(uint64_t *state) { return (double)(sim_next(state) >> 11) * 0x1p-53; } /* [0, 1) */

#endif
