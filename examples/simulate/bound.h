/*
 * How low any policy could get, on the arrivals of one run: a relaxation of the cluster of which every run of it is a feasible, worse schedule.
 *
 * All workers that compute prompts are one server with the speed of all together, which may leave a prompt and come back at no cost; steps have no fixed part; there is one cache,
 * endless, free to read, and whoever arrives first computes what he shares with later ones (who serves a later one first only moves that work: what the later one computed counts
 * for the earlier). Nothing waits for transfer, decode, network or knowledge; sizes are known. In that model the means below cannot be undercut:
 *   - shortest remaining work first is optimal for the mean of one preemptive server;
 *   - no prompt is computed faster than by one worker alone, so it ends at least half its own work behind the mean time at which it is computed; the sum of those mean times is least,
 *     on one server of the joint speed, with the smallest prompt first (Goemans and others, "Single machine scheduling with release dates", 2002);
 *   - alone, a prompt takes its own work and one step's fixed part.
 * `mean` is the largest of the three. `longest`: first come, first served has the least longest time of one server; or the longest prompt alone.
 *
 * With decode-only every decode worker counts as a prefill worker as well, and answers are cached from the arrival of their prompt on: true, and far from what is possible.
 * Open loop only: where arrivals wait for answers they depend on the policy. O(n log n).
 */
#ifndef SIM_BOUND_H
#define SIM_BOUND_H

#include "run.h"

typedef struct sim_bound { double mean, longest; } sim_bound; /* time to first token, s */

/* 0; -1 if there is none (a closed loop) or no memory. local: decode workers may compute prompts. */
int sim_bound_of(const sim_trace *t, const sim_options *o, uint64_t seed, int local, sim_bound *out);

/* The same for given work: n prompts, released at at[] (not falling), work[] seconds on one worker, `speed` workers. */
int sim_bound_work(const double *at, const double *work, size_t n, double speed, double fixed, sim_bound *out);

#endif
