/*
 * How low any policy could get, on the arrivals of one run: a relaxation of the cluster of which every run of it is a feasible, worse schedule.
 *
 * All workers that compute prompts are one server with the speed of all together, which may leave a prompt and come back at no cost; of a step's fixed part each token carries what it carries in a full step, and with decode-only nothing; there is one cache,
 * endless, free to read, and whoever arrives first computes what he shares with later ones (who serves a later one first only moves that work: what the later one computed counts
 * for the earlier). Nothing waits for transfer, decode, network or knowledge; sizes are known. In that model the means below cannot be undercut:
 *   - shortest remaining work first is optimal for the mean of one preemptive server;
 *   - no prompt is computed faster than by one worker alone, so it ends at least half its own work behind the mean time at which it is computed; the sum of those mean times is least,
 *     on one server of the joint speed, with the smallest prompt first (Goemans and others, "Single machine scheduling with release dates", 2002);
 *   - alone, a prompt takes its own work and one step's fixed part.
 * `mean` is the largest of the three. `longest`: first come, first served has the least longest time of one server; or the longest prompt alone.
 *
 * `p99` and `goodput`: how many prompts must be given up so that all others are computed within x? On one server of the joint speed, where who came first also must be ready first, the least number is
 * found exactly (Kise, Ibaraki and Mine, "A solvable case of the one-machine scheduling problem with ready and due times", 1978): in order of arrival, and whenever one is late, that prompt is given up without
 * which the work ends soonest. p99 is the least x for which a hundredth is enough, or that part's time alone; goodput counts who is computed within 2 s (in time alone as well), if all decode were in time.
 * `tpot`: each request alone on a decode server.
 *
 * With decode-only every decode worker counts as a prefill worker as well, and answers are cached from the arrival of their prompt on: true, and far from what is possible.
 *
 * Where arrivals wait for answers (a closed loop) they depend on the policy, and who delays whom bounds nothing. There it is what each request takes alone on an idle server, with all cached that its own
 * session has computed before and all that any other session asks for at any time. O(n log n).
 */
#ifndef SIM_BOUND_H
#define SIM_BOUND_H

#include "run.h"

typedef struct sim_bound { double mean, longest, p99, goodput /* at most */, tpot /* ms; 0 from sim_bound_work() */; } sim_bound; /* time to first token, s */

#define SIM_BOUND_SLO 2 /* s */

/* 0; -1: no memory. local: decode workers may compute prompts. */
int sim_bound_of(const sim_trace *t, const sim_options *o, uint64_t seed, int local, sim_bound *out);

/* The least number of prompts that are not computed within x on a server of that speed, from those with take[] != 0; SIZE_MAX: no memory. O(n) and, for each that is given up, the busy period. */
size_t sim_bound_late(const double *at, const double *work, const char *take, size_t n, double speed, double x);

/* The same as sim_bound_of() for given work: n prompts, released at at[] (not falling), work[] seconds on one worker, `speed` workers. */
int sim_bound_work(const double *at, const double *work, size_t n, double speed, double fixed, sim_bound *out);

/* Each by itself: a closed loop's. Sorts work[]. */
int sim_bound_alone(double *work, size_t n, double fixed, sim_bound *out);

#endif
