/* Regimes, and many runs over all processors. */
#include "bars.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONVERSATION "conversation_trace.jsonl"
#define AZURE        "AzureLLMInferenceTrace_conv.csv"
#define WEKA         "weka_agentic_250.rle.jsonl.gz"
#define NO           NAN

/* name, trace, load, rate, P, D, host, window, quick, then: ahead of immediate, goodput, ahead of queue peers, with decode-only, p99, transient */
const bars_regime bars_regimes[] = {
    {"conversation 6P3D x1", CONVERSATION, 0, 1, 6, 3, 1, 131072, 1, -.03, NO, -.02, -.02, .15, 0},
    {"conversation 6P5D x2", CONVERSATION, 0, 2, 6, 5, 1, 131072, 1, .35, .12, .05, .05, .15, 0},
    {"conversation 6P4D x1.5, HBM only", CONVERSATION, 0, 1.5, 6, 4, 0, 131072, 1, .35, .12, -.02, .05, .15, 0},
    {"conversation 24P16D x8", CONVERSATION, 0, 8, 24, 16, 1, 131072, 0, .15, NO, .05, .05, .15, 0},
    {"agentic 4P14D", WEKA, 0, 1, 4, 14, 1, 200000, 0, .05, NO, -.02, .30, .15, 0},
    {"agentic 3P14D", WEKA, 0, 1, 3, 14, 1, 200000, 0, .05, NO, .10, .30, .15, 0},
    {"Azure 2P4D x3.5", AZURE, 0, 3.5, 2, 4, 1, 131072, 1, -.03, NO, -.10, -.10, .15, 1},
    {"agentic 3P14D, 50 %", WEKA, .5, 0, 3, 14, 1, 200000, 0, -.03, NO, -.02, -.02, .15, 0},
    {"agentic 3P14D, 80 %", WEKA, .8, 0, 3, 14, 1, 200000, 0, .05, NO, -.02, -.02, .15, 0},
    {"agentic 3P14D, 95 %", WEKA, .95, 0, 3, 14, 1, 200000, 0, .05, NO, -.02, -.02, .15, 0},
    {"Azure 2P4D, 50 %", AZURE, .5, 0, 2, 4, 1, 131072, 0, -.03, NO, -.02, -.02, .15, 0},
    {"Azure 2P4D, 80 %", AZURE, .8, 0, 2, 4, 1, 131072, 0, -.03, NO, -.10, -.10, .15, 1},
    {"Azure 2P4D, 95 %", AZURE, .95, 0, 2, 4, 1, 131072, 0, -.03, NO, -.10, -.10, .15, 1},
};
const size_t bars_regimes_n = sizeof bars_regimes / sizeof *bars_regimes;

void bars_options(const bars_regime *g, double rate, size_t limit, sim_options *o)
{
    sim_options_default(o);
    o->prefills = g->prefills;
    o->decodes = g->decodes;
    o->scaling.rate = rate;
    o->scaling.limit = limit;
    if (!g->host) o->host_tokens = o->decode_host_tokens = 0;
}

bars_run *bars_add(bars_plan *p, const bars_regime *g, const sim_trace *t, const char *policy, const char *settings, uint64_t seed, const sim_options *o)
{
    bars_run *r;
    if (p->n == p->cap) {
        size_t    cap = p->cap ? p->cap * 2 : 256;
        bars_run *more = realloc(p->run, cap * sizeof *more);
        if (!more) return NULL;
        p->run = more;
        p->cap = cap;
    }
    r = &p->run[p->n++];
    memset(r, 0, sizeof *r);
    r->regime = g;
    r->trace = t;
    r->policy = policy;
    r->settings = settings;
    r->tag = "";
    r->seed = seed;
    r->options = *o;
    return r;
}

/* ---- running */

/* Prefill work of what arrived while the trace sends, over what the workers could do in that time. */
static double offered(const bars_run *r, const sim_result *x)
{
    double    span = r->trace->span / r->options.scaling.rate, sum = 0;
    sim_costs c;
    sim_options_costs(&r->options, r->trace->block, &c);
    for (size_t i = 0; i < x->n; i++) {
        const sim_job *j = &x->jobs[i];
        if (j->arrived >= 0 && (double)j->arrived <= span * 1e9) sum += sim_prompt_seconds(&c, j->q.in - j->cached, j->cached);
    }
    return span > 0 ? sum / (span * r->options.prefills) : NAN;
}

static void one(bars_run *r)
{
    static const char *const path[BARS_FIGURES] = {"ttft.mean", "ttft.p99", "ttft.max", "held.max", "tpot.mean", "goodput.2s_50ms", "hit.fraction",
                                                   "refused", "finished", "requests"};
    const sim_chooser *c = sim_chooser_named(r->policy);
    sim_result         x;
    if (!c) {
        snprintf(r->why, sizeof r->why, "there is no policy '%s'", r->policy);
        r->failed = 1;
    } else if (sim_run(r->trace, &r->options, c, r->settings, r->seed, NULL, &x)) {
        snprintf(r->why, sizeof r->why, "%s: %s %s, seed %llu: %s", r->regime->name, r->policy, r->settings, (unsigned long long)r->seed, x.why);
        r->failed = 1;
    } else {
        r->json = sim_result_json(&x, &r->options, r->trace, r->policy, r->settings, r->seed);
        for (int i = 0; r->json && i < BARS_FIGURES; i++) r->figure[i] = sim_number(r->json, path[i]);
        r->work = offered(r, &x);
        if (!r->json) r->failed = 1, snprintf(r->why, sizeof r->why, "out of memory");
        if (!r->keep) cJSON_Delete(r->json), r->json = NULL;
        sim_result_free(&x);
    }
}

struct crew {
    bars_plan      *plan;
    size_t          next, finished;
    pthread_mutex_t lock;
};

static void *work(void *arg)
{
    struct crew *c = arg;
    for (;;) {
        size_t i, n;
        pthread_mutex_lock(&c->lock);
        i = c->next < c->plan->n ? c->next++ : SIZE_MAX;
        pthread_mutex_unlock(&c->lock);
        if (i == SIZE_MAX) return NULL;
        one(&c->plan->run[i]);
        pthread_mutex_lock(&c->lock);
        n = ++c->finished;
        if (!c->plan->quiet && isatty(STDERR_FILENO))
            fprintf(stderr, "\r%zu of %zu runs  %-40.40s", n, c->plan->n, c->plan->run[i].regime->name);
        pthread_mutex_unlock(&c->lock);
    }
}

int bars_go(bars_plan *p, char *why, size_t cap)
{
    struct crew c = {p, p->done, p->done, PTHREAD_MUTEX_INITIALIZER};
    pthread_t   thread[64];
    unsigned    n = 0;
    while (n + 1 < p->threads && n < 64 && !pthread_create(&thread[n], NULL, work, &c)) n++;
    work(&c);
    while (n) pthread_join(thread[--n], NULL);
    if (!p->quiet && isatty(STDERR_FILENO)) fprintf(stderr, "\r%60s\r", "");
    for (; p->done < p->n; p->done++)
        if (p->run[p->done].failed) {
            snprintf(why, cap, "%s", p->run[p->done].why);
            return -1;
        }
    return 0;
}

void bars_free(bars_plan *p)
{
    for (size_t i = 0; i < p->n; i++) cJSON_Delete(p->run[i].json);
    free(p->run);
    memset(p, 0, sizeof *p);
}
