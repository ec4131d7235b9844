/* Inside the measuring (measure.c, measure_tenants.c): spreads of values, what counts of one request, and how numbers are written. */
#ifndef SIM_MEASURE_H
#define SIM_MEASURE_H

#include "run.h"

typedef struct sim_values { double *v; size_t n; } sim_values;

typedef struct sim_counts { size_t requests, finished, refused, decode_only, preempted; double good[4], prompt, cached, believed_cached, host, transferred; } sim_counts;

/* Seconds from the arrival until the prompt is computed, without the network's way. */
static inline double sim_ttft(const sim_job *j) { return (double)(j->prefill_ended - j->arrived) * 1e-9; }

void   sim_put(cJSON *o, const char *name, double v);                            /* nine significant digits: the same text everywhere */
void   sim_put_spread(cJSON *o, const char *name, sim_values *x);                /* mean, p50, p90, p99, max; sorts */
void   sim_put_goodput(cJSON *o, const sim_counts *k);
void   sim_put_interval(cJSON *o, const char *name, const double *v, size_t n);  /* mean, sd, low, high over seeds */
void   sim_count(const sim_job *j, const sim_costs *c, double delay, sim_counts *k);
int    sim_same_policy(const cJSON *a, const cJSON *b);                           /* of two runs */

/* "tenants" of a run, and of a summary's entry over the runs that are like `first`; nothing where there are none. */
void sim_put_tenants(cJSON *run, const sim_result *r, const sim_options *o, const sim_tenants *tenants, const sim_costs *c);
void sim_put_tenants_summary(cJSON *entry, const cJSON *first);

#endif
