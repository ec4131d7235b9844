/*
 * The bars: what the default policy must hold against every other gateway's, regime by regime. bars_main.c has the options and the output, bars_run.c the
 * regimes and the running of many runs, bars_check.c what is compared.
 *
 * A peer's setting is found by trying the whole peer_grid.h on the first seed; the best few of each kind are then run with all seeds, and the
 * best of those by mean TTFT is "the best peer". Ours has one setting. Runs are parallel over processors; results do not depend on their order.
 */
#ifndef SIMULATE_BARS_H
#define SIMULATE_BARS_H

#include "peer_grid.h"
#include "run.h"

enum { BARS_SEEDS_MAX = 19, BARS_MORE = 4 /* settings of a kind that get all seeds */ };

/* What is read off a run; all but the last three are paths of sim_number(). */
enum { BARS_TTFT, BARS_P99, BARS_LONGEST, BARS_HELD, BARS_TPOT, BARS_GOODPUT, BARS_HIT, BARS_REFUSED, BARS_FINISHED, BARS_REQUESTS, BARS_FIGURES };

typedef struct bars_regime {
    const char *name, *file; /* file: in the folder of traces */
    double      load;        /* > 0: part of the saturation, from which the rate follows; 0: rate is given */
    double      rate;
    uint32_t    prefills, decodes;
    int         host;        /* 1: 3 M tokens of host memory a worker; 0: HBM only */
    uint32_t    window;      /* longest prompt */
    int         quick;       /* also in quick runs */
    /* what must hold here: parts by which ours is below (TTFT) or above (goodput); < 0: may be behind */
    double      ahead_immediate, goodput_more, ahead_queue, ahead_local, behind_p99;
    int         transient;   /* longest wait at most half of the queue peer's */
} bars_regime;

typedef struct bars_run {
    const bars_regime *regime;
    const sim_trace   *trace;
    const char        *policy, *settings;
    const peer_setting *peer;  /* NULL: ours */
    const char        *tag;    /* which variation of the options; "" : none */
    uint64_t           seed;
    sim_options        options;
    int                keep;   /* keep the JSON for the report */
    double             figure[BARS_FIGURES];
    cJSON             *json;
    double             work;   /* prefill seconds of what arrived in the trace's span, over the capacity in it */
    int                failed;
    char               why[200];
} bars_run;

typedef struct bars_plan {
    bars_run *run;
    size_t    n, cap, done; /* run[0 .. done) are finished */
    unsigned  threads;
    int       quiet;
} bars_plan;

extern const bars_regime bars_regimes[];
extern const size_t      bars_regimes_n;

/* Options of a regime at a rate. */
void bars_options(const bars_regime *g, double rate, size_t limit, sim_options *out);
/* A further run at the end of the plan; NULL without memory. Pointers into the plan hold only until the next. */
bars_run *bars_add(bars_plan *p, const bars_regime *g, const sim_trace *t, const char *policy, const char *settings, uint64_t seed, const sim_options *o);
/* Runs what is not done. 0, or -1 with the sentence of the first run that failed in why. */
int  bars_go(bars_plan *p, char *why, size_t cap);
void bars_free(bars_plan *p);

/* A policy with one setting over its seeds. */
typedef struct bars_cell {
    const char *policy, *settings;
    size_t      seeds;
    double      mean[BARS_FIGURES];
    double      value[BARS_FIGURES][BARS_SEEDS_MAX];
} bars_cell;

/* Collects the runs of a policy, setting and tag in a regime; seeds 0: there are none. */
bars_cell bars_cell_of(const bars_plan *p, const bars_regime *g, const char *policy, const char *settings, const char *tag);
/* Half the width of the 95 % interval of a mean of n values (Student's t). */
double    bars_half_width(const double *v, size_t n);
/* The best peer of a kind (PEER_*) with or without decode-only by mean TTFT, of those with `seeds` seeds; seeds 0 in the answer: none. */
bars_cell bars_best(const bars_plan *p, const bars_regime *g, unsigned kind, int local, size_t seeds, const char *tag);

/* One line of the verdict. */
typedef struct bars_bar {
    char   text[192];
    double value, limit; /* held if value <= limit */
    double half;         /* of the value's 95 % interval; NaN: not known */
    double bound;        /* what no policy could be below (bound.h); NaN: not known */
    int    held;
    char   peer[128];    /* who it is compared with, and its setting; empty: nobody */
    double ours, other;  /* the two figures themselves; NaN: none */
} bars_bar;

typedef struct bars_list {
    bars_bar *bar;
    size_t    n, failed;
} bars_list;

/* value <= limit, said in a sentence. */
void bars_say(bars_list *l, double value, double half, double limit, const char *form, ...) __attribute__((format(printf, 5, 6)));
/* Whom the last bar said compares with: the figures themselves. */
void bars_beside(bars_list *l, double ours, double other, const bars_cell *peer);
/* The bars that do not hold as rows of a Markdown table: value, limit, ours, the best peer's figure, who that is and with what setting, and what no policy could be below. -1: not written. */
int  bars_write_missed(const bars_list *l, const char *file);
/* How low any policy could get in the last bar said: the bound (BARS_TTFT: on the mean; _LONGEST, _P99, _TPOT) of our runs with this tag, over what the bar divides by;
 * BARS_GOODPUT: `over` less the bound. */
void bars_bound(bars_list *l, const bars_plan *p, const bars_regime *g, const char *policy, const char *settings, const char *tag, int local, int figure, double over);
/* The same of a capacity: what it is below `over` at least; the highest rate, in steps of a tenth, at which the bound's goodput is `goodput`. One seed. */
void bars_bound_capacity(bars_list *l, const sim_trace *t, const bars_regime *g, size_t limit, double goodput, double over);
/* The comparisons of one regime. */
void bars_check_regime(bars_list *l, const bars_plan *p, const bars_regime *g, const bars_cell *ours, const bars_cell *ours_local, size_t seeds);

#endif
