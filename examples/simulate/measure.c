/* What a run's requests amount to: the numbers of docs/simulate.md. */
#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BINS = 100 };

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double mean_of(const sim_values *x)
{
    double sum = 0;
    for (size_t i = 0; i < x->n; i++) sum += x->v[i];
    return x->n ? sum / (double)x->n : 0;
}

/* Nearest rank over sorted values. */
static double quantile(const sim_values *x, double q)
{
    if (!x->n) return 0;
    double rank = ceil(q * (double)x->n);
    return x->v[rank < 1 ? 0 : rank > (double)x->n ? x->n - 1 : (size_t)rank - 1];
}

/* Nine significant digits: enough, and the same text everywhere. */
void sim_put(cJSON *o, const char *name, double v)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", isfinite(v) ? v : 0);
    cJSON_AddItemToObject(o, name, cJSON_CreateNumber(strtod(text, NULL)));
}

void sim_put_spread(cJSON *o, const char *name, sim_values *x)
{
    cJSON *s = cJSON_AddObjectToObject(o, name);
    qsort(x->v, x->n, sizeof *x->v, ascending);
    sim_put(s, "mean", mean_of(x));
    sim_put(s, "p50", quantile(x, .5));
    sim_put(s, "p90", quantile(x, .9));
    sim_put(s, "p99", quantile(x, .99));
    sim_put(s, "max", quantile(x, 1));
}

static void put_quantiles(cJSON *o, const char *name, const sim_values *x)
{
    cJSON *a = cJSON_AddArrayToObject(o, name);
    for (int i = 0; i <= 100; i++) {
        char text[32];
        snprintf(text, sizeof text, "%.6g", i ? quantile(x, i / 100.) : x->n ? x->v[0] : 0);
        cJSON_AddItemToArray(a, cJSON_CreateNumber(strtod(text, NULL)));
    }
}

static double seconds_between(sim_ns from, sim_ns to) { return (double)(to - from) * 1e-9; }
/* Seconds per further token, 0 for an answer of one token: transfer and admission are in it. */
static double tpot_of(const sim_job *j) { return j->generated > 1 ? seconds_between(j->prefill_ended, j->ended) / (j->generated - 1) : 0; }

void sim_count(const sim_job *j, const sim_costs *c, double delay, sim_counts *k)
{
    k->requests++;
    k->preempted += j->preempted;
    k->prompt += j->q.in;
    if (j->state != SIM_FINISHED) {
        k->refused++;
        return;
    }
    double ttft = sim_ttft(j) + delay, tpot = tpot_of(j), scaled = 1 + 3 * sim_prompt_seconds(c, j->q.in, 0);
    k->finished++;
    k->decode_only += j->prefill == SIM_NONE;
    k->good[0] += ttft <= 2 && tpot <= .050;
    k->good[1] += ttft <= 1 && tpot <= .025;
    k->good[2] += ttft <= 5 && tpot <= .100;
    k->good[3] += ttft <= scaled && tpot <= .050;
    k->cached += j->cached;
    k->believed_cached += j->q.in - j->believed_uncached;
    k->host += (double)j->reloaded_tokens;
    k->transferred += (double)j->transferred_tokens;
}

static void put_series(cJSON *run, const sim_result *r, double delay)
{
    double arrived[BINS] = {0}, ttft[BINS] = {0}, done[BINS] = {0}, held[BINS] = {0}, queued[BINS] = {0}, bin = r->seconds / BINS;
    cJSON *series = cJSON_AddArrayToObject(run, "series");
    for (size_t i = 0; i < r->n && bin > 0; i++) {
        const sim_job *j = &r->jobs[i];
        int            at = (int)((double)j->arrived * 1e-9 / bin);
        if (j->arrived < 0) continue;
        at = at < BINS ? at : BINS - 1;
        arrived[at]++;
        if (j->state != SIM_FINISHED) continue;
        done[at]++;
        ttft[at] += sim_ttft(j) + delay;
        for (int b = at; b < BINS; b++) { /* seconds that it spent held, or queued at a worker, in each bin */
            double from = fmax(b * bin, (double)j->arrived * 1e-9), to = fmin((b + 1) * bin, (double)j->prefill_ended * 1e-9), sent = (double)j->sent * 1e-9;
            double began = (double)j->prefill_began * 1e-9;
            if (to <= from) break;
            held[b] += fmax(0, fmin(to, sent) - from);
            queued[b] += fmax(0, fmin(to, began) - fmax(from, sent));
        }
    }
    for (int b = 0; b < BINS; b++) {
        cJSON *o = cJSON_CreateObject();
        sim_put(o, "t", b * bin);
        sim_put(o, "arrived", arrived[b]);
        sim_put(o, "ttft_mean", done[b] > 0 ? ttft[b] / done[b] : 0);
        sim_put(o, "held", bin > 0 ? held[b] / bin : 0);
        sim_put(o, "prefill_queued", bin > 0 ? queued[b] / bin : 0);
        cJSON_AddItemToArray(series, o);
    }
}

void sim_put_goodput(cJSON *o, const sim_counts *k)
{
    static const char *const slo[] = {"2s_50ms", "1s_25ms", "5s_100ms", "scaled_50ms"};
    cJSON                   *goodput = cJSON_AddObjectToObject(o, "goodput");
    for (int i = 0; i < 4; i++) sim_put(goodput, slo[i], k->good[i] / (k->requests ? (double)k->requests : 1));
}

static void put_counts(cJSON *run, const sim_counts *k, const sim_options *o, double ideal)
{
    double prompt = k->prompt > 0 ? k->prompt : 1;
    sim_put(run, "requests", (double)k->requests);
    sim_put(run, "finished", (double)k->finished);
    sim_put(run, "refused", (double)k->refused);
    sim_put(run, "decode_only", (double)k->decode_only);
    sim_put(run, "preempted", (double)k->preempted);
    sim_put_goodput(run, k);
    cJSON *hit = cJSON_AddObjectToObject(run, "hit");
    sim_put(hit, "fraction", k->cached / prompt);
    sim_put(hit, "of_ideal", ideal > 0 ? k->cached / prompt / ideal : 0);
    sim_put(hit, "believed", k->believed_cached / prompt);
    sim_put(hit, "hbm_tokens", k->cached > k->host ? k->cached - k->host : 0);
    sim_put(hit, "host_tokens", k->host);
    cJSON *bytes = cJSON_AddObjectToObject(run, "bytes");
    sim_put(bytes, "transferred", k->transferred * o->model->kv_bytes);
    sim_put(bytes, "reloaded", k->host * o->model->kv_bytes);
}

cJSON *sim_result_json(const sim_result *r, const sim_options *o, const sim_trace *t, const char *policy, const char *settings, uint64_t seed)
{
    cJSON    *run = cJSON_CreateObject();
    double   *v = malloc((4 * r->n + 4) * sizeof *v), total = 1, ideal = sim_trace_ideal(t, &total);
    sim_values ttft = {v, 0}, first = {v + r->n + 1, 0}, tpot = {v + 2 * r->n + 2, 0}, held = {v + 3 * r->n + 3, 0};
    sim_costs c;
    sim_counts k = {0};
    if (!v || !run) {
        free(v);
        return run;
    }
    sim_options_costs(o, t->block, &c);
    for (size_t i = 0; i < r->n; i++) {
        const sim_job *j = &r->jobs[i];
        if ((double)j->arrived * 1e-9 < o->warm_up) continue;
        sim_count(j, &c, o->delay, &k);
        if (j->state != SIM_FINISHED) continue;
        ttft.v[ttft.n++] = sim_ttft(j) + o->delay;
        first.v[first.n++] = seconds_between(j->arrived, j->first_byte) + o->delay;
        if (j->generated > 1) tpot.v[tpot.n++] = tpot_of(j) * 1e3;
        held.v[held.n++] = seconds_between(j->arrived, j->sent);
    }
    cJSON_AddStringToObject(run, "policy", policy);
    cJSON_AddStringToObject(run, "settings", settings);
    sim_put(run, "seed", (double)seed);
    put_counts(run, &k, o, ideal / (total > 0 ? total : 1));
    sim_put(run, "seconds", r->seconds);
    sim_put_spread(run, "ttft", &ttft);
    sim_put_spread(run, "first_byte", &first);
    sim_put_spread(run, "tpot", &tpot);
    sim_put_spread(run, "held", &held);
    cJSON *load = cJSON_AddObjectToObject(run, "load");
    sim_put(load, "prefill_cov", r->prefill_busy[1]);
    sim_put(load, "decode_cov", r->decode_load[1]);
    sim_put(load, "prefill_busy", r->prefill_busy[0]);
    sim_put(load, "decode_running", r->decode_running);
    sim_put(load, "decode_tokens", r->decode_load[0]);
    put_quantiles(run, "ttft_quantiles", &ttft);
    put_quantiles(run, "tpot_quantiles", &tpot);
    put_series(run, r, o->delay);
    sim_put_tenants(run, r, o, sim_tenants_in(o, t), &c);
    free(v);
    return run;
}

/* ---- over seeds */

double sim_number(const cJSON *o, const char *path)
{
    char name[64];
    while (o && *path) {
        size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        o = cJSON_GetObjectItemCaseSensitive(o, name);
        path += n + (path[n] == '.');
    }
    return cJSON_IsNumber(o) ? o->valuedouble : NAN;
}

/* Student's t, two-sided 95 %, by degrees of freedom. */
static double student(size_t df)
{
    static const double t[] = {0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086};
    return df < sizeof t / sizeof *t ? t[df] : 1.96;
}

int sim_same_policy(const cJSON *a, const cJSON *b)
{
    return !strcmp(cJSON_GetObjectItem(a, "policy")->valuestring, cJSON_GetObjectItem(b, "policy")->valuestring) &&
           !strcmp(cJSON_GetObjectItem(a, "settings")->valuestring, cJSON_GetObjectItem(b, "settings")->valuestring);
}

void sim_put_interval(cJSON *out, const char *name, const double *v, size_t n)
{
    double sum = 0, square = 0;
    for (size_t i = 0; i < n; i++) sum += v[i];
    double mean = n ? sum / (double)n : 0;
    for (size_t i = 0; i < n; i++) square += (v[i] - mean) * (v[i] - mean);
    double sd = n > 1 ? sqrt(square / (double)(n - 1)) : 0, half = n > 1 ? student(n - 1) * sd / sqrt((double)n) : 0;
    cJSON *o = cJSON_AddObjectToObject(out, name);
    sim_put(o, "mean", mean);
    sim_put(o, "sd", sd);
    sim_put(o, "low", mean - half);
    sim_put(o, "high", mean + half);
}

cJSON *sim_summary_json(const cJSON *runs)
{
    static const char *const rows[][2] = {{"ttft_mean", "ttft.mean"}, {"ttft_p50", "ttft.p50"}, {"ttft_p90", "ttft.p90"}, {"ttft_p99", "ttft.p99"},
        {"ttft_max", "ttft.max"}, {"first_byte_mean", "first_byte.mean"}, {"tpot_mean", "tpot.mean"}, {"tpot_p99", "tpot.p99"}, {"held_max", "held.max"},
        {"goodput_2s_50ms", "goodput.2s_50ms"}, {"goodput_1s_25ms", "goodput.1s_25ms"}, {"goodput_5s_100ms", "goodput.5s_100ms"},
        {"goodput_scaled_50ms", "goodput.scaled_50ms"}, {"hit", "hit.fraction"}, {"hit_of_ideal", "hit.of_ideal"}, {"prefill_cov", "load.prefill_cov"},
        {"decode_cov", "load.decode_cov"}, {"prefill_busy", "load.prefill_busy"}, {"bytes_transferred", "bytes.transferred"},
        {"refused", "refused"}, {"preempted", "preempted"}, {"decode_only", "decode_only"}};
    cJSON       *summary = cJSON_CreateArray();
    double      *v = malloc(((size_t)cJSON_GetArraySize(runs) + 1) * sizeof *v);
    const cJSON *r, *before;
    cJSON_ArrayForEach(r, runs) {
        size_t seeds = 0, n = 0;
        for (before = runs->child; before != r && !sim_same_policy(before, r);) before = before->next;
        if (before != r) continue;
        for (const cJSON *x = r; x; x = x->next) seeds += (size_t)sim_same_policy(x, r);
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "policy", cJSON_GetObjectItem(r, "policy")->valuestring);
        cJSON_AddStringToObject(o, "settings", cJSON_GetObjectItem(r, "settings")->valuestring);
        sim_put(o, "seeds", (double)seeds);
        for (size_t i = 0; v && i < sizeof rows / sizeof *rows; i++, n = 0) {
            for (const cJSON *x = r; x; x = x->next)
                if (sim_same_policy(x, r)) v[n++] = sim_number(x, rows[i][1]);
            sim_put_interval(o, rows[i][0], v, n);
        }
        sim_put_tenants_summary(o, r);
        cJSON_AddItemToArray(summary, o);
    }
    free(v);
    return summary;
}
