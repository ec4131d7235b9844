/* What a run's requests amount to, tenant by tenant. */
#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct part { /* of one tenant */
    sim_counts k;
    sim_values ttft, wait;
    double     work;
} part;

static int counts(const sim_job *j, const sim_options *o) { return j->arrived >= 0 && (double)j->arrived * 1e-9 >= o->warm_up && j->q.tenant != SIM_NONE; }

/* From the arrival until the prompt's service begins, held in the router or queued at a worker alike, or until it is refused. */
static double wait_of(const sim_job *j) { return (double)((j->state == SIM_FINISHED ? j->prefill_began : j->ended) - j->arrived) * 1e-9; }

static void add(part *p, const sim_job *j, const sim_options *o, const sim_costs *c)
{
    sim_count(j, c, o->delay, &p->k);
    p->wait.v[p->wait.n++] = wait_of(j);
    if (j->state != SIM_FINISHED) return;
    p->ttft.v[p->ttft.n++] = sim_ttft(j) + o->delay;
    p->work += sim_prompt_seconds(c, j->q.in - j->cached, j->cached);
}

static void put_part(cJSON *list, const sim_tenant *who, part *p, double all)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", who->name);
    sim_put(o, "priority", who->priority);
    sim_put(o, "requests", (double)p->k.requests);
    sim_put(o, "finished", (double)p->k.finished);
    sim_put(o, "refused", (double)p->k.refused);
    sim_put_spread(o, "ttft", &p->ttft);
    sim_put_spread(o, "wait", &p->wait);
    sim_put_goodput(o, &p->k);
    sim_put(o, "work", all > 0 ? p->work / all : 0);
    cJSON_AddItemToArray(list, o);
}

void sim_put_tenants(cJSON *run, const sim_result *r, const sim_options *o, const sim_tenants *tenants, const sim_costs *c)
{
    if (!tenants->n) return;
    part   *parts = calloc(tenants->n, sizeof *parts);
    size_t *n = calloc(tenants->n + 1u, sizeof *n), at = 0;
    double *v = malloc((2 * r->n + 1) * sizeof *v), all = 0;
    cJSON  *list = cJSON_AddArrayToObject(run, "tenants");
    for (size_t i = 0; parts && n && v && i < r->n; i++)
        if (counts(&r->jobs[i], o)) n[r->jobs[i].q.tenant]++;
    for (uint32_t i = 0; parts && n && v && i < tenants->n; at += n[i++]) parts[i].ttft.v = v + at, parts[i].wait.v = v + r->n + at;
    for (size_t i = 0; parts && n && v && i < r->n; i++)
        if (counts(&r->jobs[i], o)) add(&parts[r->jobs[i].q.tenant], &r->jobs[i], o, c);
    for (uint32_t i = 0; parts && n && v && i < tenants->n; i++) all += parts[i].work;
    for (uint32_t i = 0; parts && n && v && i < tenants->n; i++) put_part(list, &tenants->v[i], &parts[i], all);
    free(parts);
    free(n);
    free(v);
}

/* ---- over seeds */

void sim_put_tenants_summary(cJSON *entry, const cJSON *first)
{
    static const char *const rows[][2] = {{"requests", "requests"}, {"refused", "refused"}, {"ttft_mean", "ttft.mean"}, {"ttft_p50", "ttft.p50"}, {"ttft_p99", "ttft.p99"},
        {"ttft_max", "ttft.max"}, {"wait_max", "wait.max"}, {"goodput_2s_50ms", "goodput.2s_50ms"}, {"goodput_scaled_50ms", "goodput.scaled_50ms"}, {"work", "work"}};
    const cJSON *one, *tenants = cJSON_GetObjectItemCaseSensitive(first, "tenants");
    size_t       runs = 0;
    if (!cJSON_IsArray(tenants)) return;
    for (const cJSON *x = first; x; x = x->next) runs++;
    double       *v = malloc((runs + 1) * sizeof *v);
    const cJSON **at = malloc((runs + 1) * sizeof *at); /* the same tenant in each run that is like the first */
    cJSON        *list = cJSON_AddArrayToObject(entry, "tenants");
    size_t        n = 0;
    for (const cJSON *x = first; at && x; x = x->next)
        if (sim_same_policy(x, first)) at[n++] = cJSON_GetObjectItemCaseSensitive(x, "tenants")->child;
    cJSON_ArrayForEach(one, tenants)
    {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", cJSON_GetObjectItem(one, "name")->valuestring);
        sim_put(o, "priority", sim_number(one, "priority"));
        for (size_t i = 0; v && at && i < sizeof rows / sizeof *rows; i++) {
            for (size_t k = 0; k < n; k++) v[k] = sim_number(at[k], rows[i][1]);
            sim_put_interval(o, rows[i][0], v, n);
        }
        cJSON_AddItemToArray(list, o);
        for (size_t k = 0; at && k < n; k++) at[k] = at[k]->next;
    }
    free(v);
    free(at);
}
