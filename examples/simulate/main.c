/* simulate: replays a trace under one or more policies, in parallel over policies and seeds, and prints a table or JSON. docs/simulate.md. */
#include "peer_grid.h"
#include "run.h"

#include <getopt.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POLICIES_MOST = 256, TENANTS_SHOWN = 24, NAME_SHOWN = 24 };

typedef struct task {
    const sim_chooser *chooser;
    const char        *settings;
    uint64_t           seed;
    cJSON             *result;
    char               why[200];
} task;

typedef struct program {
    sim_options o;
    sim_trace   trace;
    const char *trace_name, *json, *decisions, *tenants;
    char       *policy[POLICIES_MOST]; /* "name" or "name:key=value,…" */
    size_t      policies, seeds, threads;
    uint64_t    first_seed;
    char       *priority;              /* all that --priority said */
    uint32_t    window;
    int         quiet;
    task       *tasks;
    size_t      n, next, done;
    pthread_mutex_t lock;
} program;

/* ---- options */

typedef struct option_row { const char *name, *value, *about; } option_row;
static const option_row rows[] = {
    {"trace", "FILE", "a trace (Mooncake jsonl, Azure csv, Weka run-length jsonl, a file of pdroutectl record; .gz), or synthetic:chat|tools|lengths|agents[,n=…,seed=…,rate=…]"},
    {"policy", "NAME[:key=value,…]", "may be repeated; 'all': the library, every other policy with its usual settings; 'grid': with all settings that bars tries"},
    {"prefill", "N", "prefill workers (6)"},
    {"decode", "N", "decode workers (5)"},
    {"rate", "X", "how much faster than the trace (1)"},
    {"copies", "N", "renamed copies of the trace at once (1)"},
    {"seeds", "N", "runs per policy, with seeds first-seed, … (1)"},
    {"first-seed", "N", "(1)"},
    {"jitter", "S", "arrivals are spread over so many seconds of the trace; default: the trace's own grid, 0: raw"},
    {"shuffle", "", "arrivals drawn anew as a Poisson process, requests in random order"},
    {"tenants", "N|NAME=SHARE,…", "requests are dealt to these, by conversation; default: as the trace has them. Then all figures also by tenant"},
    {"priority", "NAME=N,…", "of these tenants' requests: higher goes first (0)"},
    {"limit", "N", "only the first N requests"},
    {"window", "N", "longer prompts are left out (131072); 0: none"},
    {"warm-up", "S", "requests that arrive before are not measured (0)"},
    {"model", "NAME", "qwen32b or llama70b (qwen32b)"},
    {"kv", "N", "tokens of KV memory per worker (the model's: 270000)"},
    {"host", "N", "tokens in the host tier of a worker (3000000); 0: none"},
    {"decode-host", "N", "the same on decode workers (as --host)"},
    {"reload", "GB/S", "host tier to HBM (40)"},
    {"bandwidth", "GB/S", "KV transfer within a zone (50)"},
    {"racks", "N", "workers are dealt to so many racks, two a zone; 0: no topology (0)"},
    {"delay", "MS", "network, one way (1)"},
    {"scrape", "S", "seconds between load reports (1); 0: none"},
    {"gateways", "N", "gateway processes (1)"},
    {"books", "shared|own", "one block for all gateways, or one each (shared)"},
    {"hear", "prompt|transfer", "prefill's answer comes when the prompt is computed, or when its KV has gone (prompt)"},
    {"batch", "N", "tokens of a prefill step (8192)"},
    {"running", "N", "most sequences of a decode worker (256)"},
    {"chunk", "N", "prompt tokens per step on decode workers (512)"},
    {"wrong", "X", "prefill costs as routers believe them, times X (1)"},
    {"wrong-step", "X", "the same for decode steps (1)"},
    {"noise", "SIGMA", "spread of step times, lognormal (0)"},
    {"slow", "WORKER[,X]", "this worker (prefill first) secretly runs at X of its speed (0.5)"},
    {"stall", "WORKER,AT,SECONDS", "this worker does nothing for so long"},
    {"threads", "N", "runs at once (one per core)"},
    {"json", "FILE", "results; - is standard output"},
    {"decisions", "PREFIX", "every decision of the first seed, one file a policy: PREFIX.policy.seed.jsonl"},
    {"quiet", "", "no progress bar, no table"},
    {"list", "", "the policies"},
    {"help", "", ""},
};

static void print_help(FILE *to)
{
    fprintf(to, "usage: simulate --trace FILE --policy NAME … [options]\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) fprintf(to, "  --%-11s %-20s %s\n", rows[i].name, rows[i].value, rows[i].about);
}

static void print_policies(void)
{
    for (size_t i = 0; sim_chooser_at(i); i++) {
        const sim_chooser *c = sim_chooser_at(i);
        printf("%-18s %s%s%s%s\n", c->name, c->about, c->settings ? " [" : "", c->settings ? c->settings : "", c->settings ? "]" : "");
    }
}

static int say(const char *sentence, const char *what)
{
    fprintf(stderr, "simulate: %s%s\n", sentence, what);
    return -1;
}

static int add_policy(program *p, const char *text)
{
    if (!strcmp(text, "all") || !strcmp(text, "grid")) {
        if (add_policy(p, "pdroute")) return -1;
        for (size_t i = 0; i < peer_grid_n; i++) {
            char one[128];
            if (!strcmp(text, "all") && !peer_grid[i].common) continue;
            snprintf(one, sizeof one, "%s%s%s", peer_grid[i].policy, *peer_grid[i].settings ? ":" : "", peer_grid[i].settings);
            if (add_policy(p, one)) return -1;
        }
        return 0;
    }
    if (p->policies == POLICIES_MOST) return say("too many policies", "");
    char *copy = strdup(text);
    if (!copy) return say("out of memory", "");
    p->policy[p->policies++] = copy;
    return 0;
}

static int take_number(const char *name, const char *text, double least, double most, double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (end != text && !*end && *out >= least && *out <= most) return 0;
    fprintf(stderr, "simulate: --%s must be a number from %g to %g, not '%s'\n", name, least, most, text);
    return -1;
}

static int take_count(const char *name, const char *text, double least, double most, uint32_t *out)
{
    double v;
    if (take_number(name, text, least, most, &v)) return -1;
    *out = (uint32_t)v;
    return 0;
}

static int take_worker_list(const char *text, uint32_t *worker, double *a, double *b)
{
    char *end;
    *worker = (uint32_t)strtoul(text, &end, 10);
    if (end == text) return say("a worker's number is needed, not ", text);
    if (*end == ',') *a = strtod(end + 1, &end);
    if (b && *end == ',') *b = strtod(end + 1, &end);
    return *end ? say("not understood: ", text) : 0;
}

/* Lists of several --priority are one. */
static int add_priority(program *p, const char *text)
{
    size_t n = p->priority ? strlen(p->priority) : 0;
    char  *all = realloc(p->priority, n + strlen(text) + 2);
    if (!all) return say("out of memory", "");
    snprintf(all + n, strlen(text) + 2, "%s%s", n ? "," : "", text);
    p->priority = all;
    return 0;
}

static int ask_tenants(program *p, const char *text)
{
    char why[200];
    p->tenants = text;
    if (!sim_tenants_ask(&p->o.tenants, text, why, sizeof why)) return 0;
    fprintf(stderr, "simulate: --tenants: %s\n", why);
    return -1;
}

/* Once the trace is known: its tenants, or those of --tenants. */
static int prioritise(program *p)
{
    uint32_t became[SIM_TENANTS_MOST];
    char     why[200];
    if (!p->priority) return 0;
    if (!(p->o.tenants.n ? sim_tenants_prioritise(&p->o.tenants, p->priority, became, why, sizeof why) : sim_trace_prioritise(&p->trace, p->priority, why, sizeof why))) return 0;
    fprintf(stderr, "simulate: --priority: %s\n", why);
    return -1;
}

static int take(program *p, const char *name, const char *v)
{
    sim_options *o = &p->o;
    double       x;
    uint32_t     n;
    if (!strcmp(name, "trace")) return p->trace_name = v, 0;
    if (!strcmp(name, "policy")) return add_policy(p, v);
    if (!strcmp(name, "json")) return p->json = v, 0;
    if (!strcmp(name, "tenants")) return ask_tenants(p, v);
    if (!strcmp(name, "priority")) return add_priority(p, v);
    if (!strcmp(name, "decisions")) return p->decisions = v, 0;
    if (!strcmp(name, "quiet")) return p->quiet = 1, 0;
    if (!strcmp(name, "shuffle")) return o->scaling.shuffle = 1, 0;
    if (!strcmp(name, "prefill")) return take_count(name, v, 1, 16384, &o->prefills);
    if (!strcmp(name, "decode")) return take_count(name, v, 1, 16384, &o->decodes);
    if (!strcmp(name, "copies")) return take_count(name, v, 1, 4096, &o->scaling.copies);
    if (!strcmp(name, "gateways")) return take_count(name, v, 1, 256, &o->gateways);
    if (!strcmp(name, "racks")) return take_count(name, v, 0, 4096, &o->racks);
    if (!strcmp(name, "window")) return take_count(name, v, 0, 1e8, &p->window);
    if (!strcmp(name, "batch")) return take_count(name, v, 64, 1e6, &o->batch_tokens);
    if (!strcmp(name, "running")) return take_count(name, v, 1, 65536, &o->max_running);
    if (!strcmp(name, "chunk")) return take_count(name, v, 1, 1e6, &o->local_chunk);
    if (!strcmp(name, "rate")) return take_number(name, v, 1e-6, 1e6, &o->scaling.rate);
    if (!strcmp(name, "jitter")) return take_number(name, v, 0, 1e6, &o->scaling.jitter);
    if (!strcmp(name, "warm-up")) return take_number(name, v, 0, 1e9, &o->warm_up);
    if (!strcmp(name, "scrape")) return take_number(name, v, 0, 1e6, &o->scrape);
    if (!strcmp(name, "wrong")) return take_number(name, v, 1e-3, 1e3, &o->wrong);
    if (!strcmp(name, "wrong-step")) return take_number(name, v, 1e-3, 1e3, &o->wrong_step);
    if (!strcmp(name, "noise")) return take_number(name, v, 0, 3, &o->noise);
    if (!strcmp(name, "slow")) return take_worker_list(v, &o->slow, &o->slow_speed, NULL) || !(o->slow_speed > 0) ? say("--slow WORKER[,SPEED]", "") : 0;
    if (!strcmp(name, "stall")) return take_worker_list(v, &o->stalled, &o->stall_at, &o->stall_seconds);
    if (!strcmp(name, "model")) return (o->model = sim_model_named(v)) ? 0 : say("unknown model ", v);
    if (!strcmp(name, "books")) return o->own_books = !strcmp(v, "own"), !strcmp(v, "own") || !strcmp(v, "shared") ? 0 : say("--books shared or own, not ", v);
    if (!strcmp(name, "hear")) return o->hear_transfer = !strcmp(v, "transfer"), !strcmp(v, "transfer") || !strcmp(v, "prompt") ? 0 : say("--hear prompt or transfer, not ", v);
    if (!strcmp(name, "limit") || !strcmp(name, "seeds") || !strcmp(name, "threads") || !strcmp(name, "first-seed")) {
        if (take_count(name, v, name[0] == 'l' || name[0] == 'f' ? 0 : 1, 1e9, &n)) return -1;
        *(name[0] == 'l' ? &o->scaling.limit : name[0] == 's' ? &p->seeds : name[0] == 't' ? &p->threads : &p->first_seed) = n;
        return 0;
    }
    if (take_number(name, v, 0, 1e12, &x)) return -1;
    if (!strcmp(name, "kv")) return o->kv_tokens = (uint64_t)x, 0;
    if (!strcmp(name, "host")) return o->host_tokens = (uint64_t)x, 0;
    if (!strcmp(name, "decode-host")) return o->decode_host_tokens = (uint64_t)x, 0;
    if (!strcmp(name, "delay")) return o->delay = x / 1e3, 0;
    if (!strcmp(name, "reload")) return o->reload_bytes = x * 1e9, x > 0 ? 0 : say("--reload must be above 0", "");
    if (!strcmp(name, "bandwidth")) return o->bandwidth[SIM_TIER_RACK] = o->bandwidth[SIM_TIER_ZONE] = x * 1e9, x > 0 ? 0 : say("--bandwidth must be above 0", "");
    return say("unknown option --", name);
}

static int read_options(program *p, int argc, char **argv)
{
    struct option longs[sizeof rows / sizeof *rows + 1];
    int           which, got, host_said = 0;
    memset(longs, 0, sizeof longs);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        longs[i] = (struct option){rows[i].name, *rows[i].value ? required_argument : no_argument, NULL, 0};
    while ((got = getopt_long(argc, argv, "h", longs, &which)) != -1) {
        if (got == '?') return -1;
        const char *name = got == 'h' ? "help" : rows[which].name;
        if (!strcmp(name, "help")) {
            print_help(stdout);
            exit(0);
        }
        if (!strcmp(name, "list")) {
            print_policies();
            exit(0);
        }
        host_said |= !strcmp(name, "decode-host");
        if (take(p, name, optarg)) return -1;
    }
    if (!host_said) p->o.decode_host_tokens = p->o.host_tokens;
    if (optind < argc) return say("not an option: ", argv[optind]);
    if (!p->trace_name || !p->policies) {
        print_help(stderr);
        return -1;
    }
    return 0;
}

/* ---- running */

static void show_progress(const program *p)
{
    if (p->quiet || !isatty(2)) return;
    int width = 40, full = (int)((size_t)width * p->done / p->n);
    fprintf(stderr, "\r[%.*s%*s] %zu/%zu%s", full, "########################################", width - full, "", p->done, p->n, p->done == p->n ? "\n" : "");
}

static int decisions_wanted(const program *p, const task *t) { return p->decisions && t->seed == p->first_seed; }

static FILE *open_decisions(const program *p, const task *t, char *name, size_t cap)
{
    if (!decisions_wanted(p, t)) return NULL;
    int n = snprintf(name, cap, "%s.%s%s%s.%llu.jsonl", p->decisions, t->chooser->name, *t->settings ? ":" : "", t->settings, (unsigned long long)t->seed);
    for (size_t i = strlen(p->decisions); n > 0 && i < (size_t)n && i < cap; i++)
        if (name[i] == '/') name[i] = '_';
    return fopen(name, "w");
}

static void work_on(program *p, task *t)
{
    sim_result r;
    char       name[512];
    FILE      *decisions = open_decisions(p, t, name, sizeof name);
    if (decisions_wanted(p, t) && !decisions) {
        snprintf(t->why, sizeof t->why, "cannot write its decisions");
        return;
    }
    if (sim_run(&p->trace, &p->o, t->chooser, t->settings, t->seed, decisions, &r))
        snprintf(t->why, sizeof t->why, "%s", r.why);
    else
        t->result = sim_result_json(&r, &p->o, &p->trace, t->chooser->name, t->settings, t->seed);
    sim_result_free(&r);
    if (decisions && t->result) cJSON_AddStringToObject(t->result, "decisions", name);
    if (decisions && fclose(decisions)) snprintf(t->why, sizeof t->why, "cannot write its decisions");
}

static void *worker(void *arg)
{
    program *p = arg;
    pthread_mutex_lock(&p->lock);
    while (p->next < p->n) {
        task *t = &p->tasks[p->next++];
        pthread_mutex_unlock(&p->lock);
        work_on(p, t);
        pthread_mutex_lock(&p->lock);
        p->done++;
        show_progress(p);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int make_tasks(program *p)
{
    p->n = p->policies * p->seeds;
    p->tasks = calloc(p->n, sizeof *p->tasks);
    if (!p->tasks) return say("out of memory", "");
    for (size_t i = 0; i < p->n; i++) {
        char *text = p->policy[i / p->seeds], *colon = strchr(text, ':');
        char  name[64];
        snprintf(name, sizeof name, "%.*s", (int)(colon ? (size_t)(colon - text) : strlen(text)), text);
        p->tasks[i] = (task){.chooser = sim_chooser_named(name), .settings = colon ? colon + 1 : "", .seed = p->first_seed + i % p->seeds};
        if (!p->tasks[i].chooser) return say("no such policy (--list): ", name);
    }
    return 0;
}

static int run_all(program *p)
{
    pthread_t threads[256];
    long      cores = sysconf(_SC_NPROCESSORS_ONLN);
    size_t    n = p->threads ? p->threads : cores > 0 ? (size_t)cores : 1, started = 0;
    int       bad = 0;
    if (n > p->n) n = p->n;
    if (n > 256) n = 256;
    pthread_mutex_init(&p->lock, NULL);
    for (; started + 1 < n; started++)
        if (pthread_create(&threads[started], NULL, worker, p)) break;
    worker(p);
    for (size_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < p->n; i++) {
        if (!p->tasks[i].why[0]) continue;
        fprintf(stderr, "simulate: %s %s seed %llu: %s\n", p->tasks[i].chooser->name, p->tasks[i].settings, (unsigned long long)p->tasks[i].seed, p->tasks[i].why);
        bad = -1;
    }
    return bad;
}

/* ---- results */

static cJSON *arguments(const program *p)
{
    const sim_options *o = &p->o;
    cJSON             *a = cJSON_CreateObject();
    const struct { const char *name; double v; } numbers[] = {
        {"prefill", o->prefills}, {"decode", o->decodes}, {"rate", o->scaling.rate}, {"copies", o->scaling.copies}, {"seeds", (double)p->seeds},
        {"first_seed", (double)p->first_seed}, {"jitter", o->scaling.jitter < 0 ? p->trace.grid : o->scaling.jitter}, {"shuffle", o->scaling.shuffle},
        {"limit", (double)o->scaling.limit}, {"window", p->window}, {"warm_up", o->warm_up}, {"kv", (double)(o->kv_tokens ? o->kv_tokens : o->model->kv_tokens)},
        {"host", (double)o->host_tokens}, {"decode_host", (double)o->decode_host_tokens}, {"reload", o->reload_bytes / 1e9}, {"bandwidth", o->bandwidth[SIM_TIER_ZONE] / 1e9},
        {"racks", o->racks}, {"delay", o->delay * 1e3}, {"scrape", o->scrape}, {"gateways", o->gateways}, {"batch", o->batch_tokens}, {"running", o->max_running},
        {"chunk", o->local_chunk}, {"wrong", o->wrong}, {"wrong_step", o->wrong_step}, {"noise", o->noise}, {"slow", o->slow == SIM_NONE ? -1. : o->slow},
        {"slow_speed", o->slow_speed}, {"stall", o->stalled == SIM_NONE ? -1. : o->stalled}, {"stall_at", o->stall_at}, {"stall_seconds", o->stall_seconds}};
    cJSON_AddStringToObject(a, "trace", p->trace_name);
    cJSON_AddStringToObject(a, "model", o->model->name);
    if (p->tenants) cJSON_AddStringToObject(a, "tenants", p->tenants);
    if (p->priority) cJSON_AddStringToObject(a, "priority", p->priority);
    cJSON_AddStringToObject(a, "books", o->own_books ? "own" : "shared");
    cJSON_AddStringToObject(a, "hear", o->hear_transfer ? "transfer" : "prompt");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) cJSON_AddNumberToObject(a, numbers[i].name, numbers[i].v);
    return a;
}

static int write_json(const program *p, const cJSON *all)
{
    char *text = cJSON_PrintUnformatted(all);
    FILE *f = !strcmp(p->json, "-") ? stdout : fopen(p->json, "w");
    int   bad = !text || !f || fprintf(f, "%s\n", text) < 0;
    if (f && f != stdout && fclose(f)) bad = 1;
    cJSON_free(text);
    return bad ? say("cannot write ", p->json) : 0;
}

static void print_table(const cJSON *summary)
{
    const cJSON *s;
    printf("%-44s %5s %8s %7s %7s %7s %7s %7s %8s %7s %8s %6s %6s %6s %7s %7s\n", "policy", "seeds", "TTFT s", "+-95%", "p50", "p90", "p99", "max", "TPOT ms", "good2s", "goodscal", "hit", "ideal",
           "CoV", "TB", "refused");
    cJSON_ArrayForEach(s, summary) {
        char        name[64];
        const char *settings = cJSON_GetObjectItem(s, "settings")->valuestring;
        snprintf(name, sizeof name, "%s%s%s", cJSON_GetObjectItem(s, "policy")->valuestring, *settings ? ":" : "", settings);
        printf("%-44s %5.0f %8.3f %7.3f %7.3f %7.3f %7.2f %7.1f %8.2f %7.3f %8.3f %6.3f %6.3f %6.3f %7.3f %7.1f\n", name, sim_number(s, "seeds"), sim_number(s, "ttft_mean.mean"),
               sim_number(s, "ttft_mean.high") - sim_number(s, "ttft_mean.mean"), sim_number(s, "ttft_p50.mean"), sim_number(s, "ttft_p90.mean"), sim_number(s, "ttft_p99.mean"),
               sim_number(s, "ttft_max.mean"), sim_number(s, "tpot_mean.mean"), sim_number(s, "goodput_2s_50ms.mean"), sim_number(s, "goodput_scaled_50ms.mean"), sim_number(s, "hit.mean"),
               sim_number(s, "hit_of_ideal.mean"), sim_number(s, "prefill_cov.mean"), sim_number(s, "bytes_transferred.mean") / 1e12, sim_number(s, "refused.mean"));
    }
}

/* Names come from traces: what would steer a terminal is not printed, and what is too long for its column is cut. */
static void print_name(const char *text)
{
    const unsigned char *p = (const unsigned char *)(*text ? text : "-");
    int                  shown = 0;
    for (; *p && shown < NAME_SHOWN; shown++) {
        int bad = *p < 32 || *p == 127 || (*p == 0xC2 && p[1] < 0xA0); /* C0, DEL, C1 */
        if (bad)
            putchar('?');
        else
            putchar(*p);
        for (p++; (*p & 0xC0) == 0x80; p++)
            if (!bad) putchar(*p);
    }
    printf("%*s", NAME_SHOWN - shown, "");
}

/* Of each policy the first few. */
static void print_tenants(const cJSON *summary)
{
    const cJSON *s, *t;
    cJSON_ArrayForEach(s, summary) {
        const cJSON *tenants = cJSON_GetObjectItemCaseSensitive(s, "tenants");
        const char  *settings = cJSON_GetObjectItem(s, "settings")->valuestring;
        int          n = cJSON_GetArraySize(tenants), left = TENANTS_SHOWN;
        if (!n) continue;
        printf("\n%s%s%s\n  %-24s %8s %9s %8s %7s %7s %7s %7s %9s %7s %8s %7s %7s\n", cJSON_GetObjectItem(s, "policy")->valuestring, *settings ? ":" : "", settings, "tenant", "priority", "requests",
               "TTFT s", "+-95%", "p50", "p99", "max", "wait max", "good2s", "goodscal", "work", "refused");
        cJSON_ArrayForEach(t, tenants) {
            if (left-- <= 0) break;
            printf("  ");
            print_name(cJSON_GetObjectItem(t, "name")->valuestring);
            printf(" %8.0f %9.1f %8.3f %7.3f %7.3f %7.2f %7.1f %9.1f %7.3f %8.3f %7.3f %7.1f\n", sim_number(t, "priority"), sim_number(t, "requests.mean"), sim_number(t, "ttft_mean.mean"),
                   sim_number(t, "ttft_mean.high") - sim_number(t, "ttft_mean.mean"), sim_number(t, "ttft_p50.mean"), sim_number(t, "ttft_p99.mean"), sim_number(t, "ttft_max.mean"),
                   sim_number(t, "wait_max.mean"), sim_number(t, "goodput_2s_50ms.mean"), sim_number(t, "goodput_scaled_50ms.mean"), sim_number(t, "work.mean"), sim_number(t, "refused.mean"));
        }
        if (n > TENANTS_SHOWN) printf("  and %d more: --json has them\n", n - TENANTS_SHOWN);
    }
}

static int report(program *p)
{
    double  total = 1, ideal = sim_trace_ideal(&p->trace, &total);
    cJSON  *all = cJSON_CreateObject(), *trace = cJSON_CreateObject(), *runs = cJSON_CreateArray();
    int     code = 0;
    for (size_t i = 0; i < p->n; i++)
        if (p->tasks[i].result) cJSON_AddItemToArray(runs, p->tasks[i].result);
    cJSON_AddStringToObject(all, "schema", "pdroute.simulate/1");
    cJSON_AddItemToObject(all, "arguments", arguments(p));
    cJSON_AddStringToObject(trace, "name", p->trace.name);
    cJSON_AddNumberToObject(trace, "requests", (double)p->trace.n);
    cJSON_AddNumberToObject(trace, "dropped", (double)p->trace.dropped);
    cJSON_AddNumberToObject(trace, "prompt_tokens", total);
    cJSON_AddNumberToObject(trace, "ideal_hit", total > 0 ? ideal / total : 0);
    cJSON_AddItemToObject(all, "trace", trace);
    cJSON_AddItemToObject(all, "runs", runs);
    cJSON *summary = sim_summary_json(runs);
    cJSON_AddItemToObject(all, "summary", summary);
    if (!p->quiet && (!p->json || strcmp(p->json, "-"))) {
        print_table(summary);
        print_tenants(summary);
    }
    if (p->json) code = write_json(p, all);
    cJSON_Delete(all);
    return code;
}

int main(int argc, char **argv)
{
    program p = {.seeds = 1, .first_seed = 1, .window = 131072};
    char    why[200] = "";
    sim_options_default(&p.o);
    if (read_options(&p, argc, argv)) return 2;
    int bad = strncmp(p.trace_name, "synthetic:", 10) ? sim_trace_read(&p.trace, p.trace_name, p.window, why, sizeof why)
                                                     : sim_trace_make(&p.trace, p.trace_name, why, sizeof why);
    if (bad) {
        fprintf(stderr, "simulate: %s: %s\n", p.trace_name, why);
        return 1;
    }
    if (prioritise(&p) || make_tasks(&p)) return 2;
    int code = run_all(&p) ? 1 : 0;
    if (report(&p)) code = 1;
    free(p.tasks);
    for (size_t i = 0; i < p.policies; i++) free(p.policy[i]);
    sim_trace_free(&p.trace);
    sim_tenants_free(&p.o.tenants);
    free(p.priority);
    return code;
}
