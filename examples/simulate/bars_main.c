/* simulate-bars: does the default policy hold what it must, against every other gateway's best setting? bars.h. */
#include "bars.h"
#include "report.h"

#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRACES = 3, SCREEN_LIMIT = 5000 };

struct program {
    const char *traces, *ours, *ours_settings, *local_settings, *only, *report, *json, *missed;
    size_t      seeds, limit;
    int         quick;
    const bars_regime *now; /* the one that is being run */
    bars_plan   plan;
    sim_trace   trace[TRACES];
    const char *trace_file[TRACES];
    size_t      trace_n;
    double     *rate; /* of each regime */
    bars_list   list;
};

static const char usage[] =
    "simulate-bars --traces DIR [options]\n"
    "Runs the default policy and every other gateway's policies over the regimes of docs/simulate.md; prints a table (regime, ours, best peer, which, with\n"
    "what setting) and the bars. Exit 1 if a bar does not hold, 2 if it could not run.\n"
    "  --traces DIR      where conversation_trace.jsonl, AzureLLMInferenceTrace_conv.csv and weka_agentic_250.rle.jsonl.gz are\n"
    "  --seeds N         (5)\n"
    "  --quick           three regimes, two seeds, the first 5,000 requests, few settings: minutes become seconds, and nothing is proved\n"
    "  --only TEXT       regimes whose name contains it; told one after the other, and the JSON is written anew after each\n"
    "  --ours NAME[:settings]   the policy that is ours (pdroute: the library)\n"
    "  --ours-local SETTINGS    its settings for the comparisons with decode-only on both sides (pdroute: alone=1)\n"
    "  --report FILE     the page with all regimes    --json FILE   the bars as JSON\n"
    "  --missed FILE     the bars that do not hold as a table in Markdown: ours, the best peer and its setting, what no policy could be below; anew after each regime\n"
    "  --threads N       (one per processor)          --quiet       no progress\n";

static int say(const char *what) { return fprintf(stderr, "simulate-bars: %s\n", what), -1; }

static int wanted(const struct program *p, const bars_regime *g) { return (!p->quick || g->quick) && (!p->only || strstr(g->name, p->only)); }

/* A trace is read once; NULL with a message. */
static const sim_trace *trace_of(struct program *p, const bars_regime *g)
{
    char path[4096], why[256] = "";
    for (size_t i = 0; i < p->trace_n; i++)
        if (!strcmp(p->trace_file[i], g->file)) return &p->trace[i];
    snprintf(path, sizeof path, "%s/%s", p->traces, g->file);
    if (p->trace_n == TRACES || sim_trace_read(&p->trace[p->trace_n], path, g->window, why, sizeof why)) {
        fprintf(stderr, "simulate-bars: %s: %s\n", path, why);
        return NULL;
    }
    p->trace_file[p->trace_n] = g->file;
    return &p->trace[p->trace_n++];
}

static int go(struct program *p)
{
    char why[256];
    return bars_go(&p->plan, why, sizeof why) ? say(why) : 0;
}

/* The rate at which the reference offers the wanted part of what the prefill workers can do: a few steps of proportion. */
static int find_rates(struct program *p)
{
    for (int round = 0; round < 4; round++) {
        size_t first = p->plan.n;
        for (size_t i = 0; i < bars_regimes_n; i++) {
            const bars_regime *g = &bars_regimes[i];
            sim_options        o;
            bars_run          *r;
            if (g != p->now || !(g->load > 0)) continue;
            bars_options(g, p->rate[i], p->limit, &o);
            if (!(r = bars_add(&p->plan, g, trace_of(p, g), "reference-immediate", "", 1, &o))) return say("out of memory");
            r->tag = "calibration";
        }
        if (go(p)) return -1;
        for (size_t k = first; k < p->plan.n; k++) {
            const bars_run *r = &p->plan.run[k];
            p->rate[r->regime - bars_regimes] *= r->regime->load / r->work;
        }
    }
    return 0;
}

static bars_run *add(struct program *p, const bars_regime *g, const char *policy, const char *settings, uint64_t seed, const char *tag, const sim_options *change)
{
    sim_options o;
    bars_run   *r;
    bars_options(g, p->rate[g - bars_regimes], p->limit, &o);
    r = bars_add(&p->plan, g, trace_of(p, g), policy, settings, seed, change ? change : &o);
    if (!r) abort();
    r->tag = tag;
    return r;
}

/* Every peer setting once, on the first requests of the first seed. */
static int screen(struct program *p)
{
    for (size_t i = 0; i < bars_regimes_n; i++) {
        const bars_regime *g = &bars_regimes[i];
        if (g != p->now) continue;
        for (size_t k = 0; k < peer_grid_n; k++) {
            sim_options o;
            bars_options(g, p->rate[i], p->limit ? p->limit : 0, &o);
            if (trace_of(p, g)->closed && !o.scaling.limit) o.scaling.limit = SCREEN_LIMIT; /* these are long */
            if ((peer_grid[k].kind & PEER_REFERENCE) || (p->quick && !peer_grid[k].common)) continue;
            add(p, g, peer_grid[k].policy, peer_grid[k].settings, 1, "screen", &o);
        }
    }
    return go(p);
}

/* All seeds for the best few settings of each kind, and for one of every policy so that the report has all. */
static void add_chosen(struct program *p, const bars_regime *g)
{
    char taken[512] = {0};
    if (peer_grid_n > sizeof taken) abort();
    static const struct { unsigned kind; int local; } kinds[] = {{PEER_IMMEDIATE, 0}, {PEER_QUEUE, 0}, {PEER_IMMEDIATE, 1}, {PEER_QUEUE, 1}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int more = 0; more < BARS_MORE; more++) {
            size_t best = peer_grid_n;
            double least = INFINITY;
            for (size_t i = 0; i < peer_grid_n; i++) {
                bars_cell c;
                if (taken[i] || !(peer_grid[i].kind & kinds[k].kind) || peer_grid[i].local != kinds[k].local) continue;
                c = bars_cell_of(&p->plan, g, peer_grid[i].policy, peer_grid[i].settings, "screen");
                if (c.seeds && c.mean[BARS_TTFT] < least) least = c.mean[BARS_TTFT], best = i;
            }
            if (best < peer_grid_n) taken[best] = 1;
        }
    for (size_t i = 0; i < peer_grid_n; i++) /* the best of each policy */
        if (!peer_grid[i].local) {
            size_t best = i;
            double least = INFINITY;
            int    has = 0;
            if (i && !strcmp(peer_grid[i].policy, peer_grid[i - 1].policy)) continue;
            for (size_t k = i; k < peer_grid_n; k++) {
                bars_cell c;
                if (strcmp(peer_grid[k].policy, peer_grid[i].policy) || peer_grid[k].local) continue;
                has |= taken[k];
                c = bars_cell_of(&p->plan, g, peer_grid[k].policy, peer_grid[k].settings, "screen");
                if (c.seeds && c.mean[BARS_TTFT] < least) least = c.mean[BARS_TTFT], best = k;
            }
            if (!has) taken[best] = 1;
        }
    for (size_t i = 0; i < peer_grid_n; i++)
        for (uint64_t seed = 1; (taken[i] || (peer_grid[i].kind == PEER_REFERENCE && peer_grid[i].common)) && seed <= p->seeds; seed++)
            add(p, g, peer_grid[i].policy, peer_grid[i].settings, seed, "", NULL)->keep = p->report != NULL;
    for (uint64_t seed = 1; seed <= p->seeds; seed++) {
        add(p, g, p->ours, p->ours_settings, seed, "", NULL)->keep = p->report != NULL;
        if (strcmp(p->ours_settings, p->local_settings)) add(p, g, p->ours, p->local_settings, seed, "", NULL)->keep = p->report != NULL;
    }
}

/* ---- what goes wrong, many gateways, capacity: all at conversation 6P5D x2 */

static const bars_regime *knee(void) { return &bars_regimes[1]; }

#define EVEN "the capacity that is left, evenly spread"
struct variation { const char *tag; double wrong; uint32_t slow, stalled, gateways, own; };
static const struct variation variations[] = {
    {"costs x 0.7", .7, SIM_NONE, SIM_NONE, 1, 0}, {"costs x 1.3", 1.3, SIM_NONE, SIM_NONE, 1, 0}, {"one worker at half speed", 1, 0, SIM_NONE, 1, 0},
    {"one worker stalled for 5 s", 1, SIM_NONE, 0, 1, 0}, {"8 gateways, one block", 1, SIM_NONE, SIM_NONE, 8, 0}, {"8 gateways, 8 blocks", 1, SIM_NONE, SIM_NONE, 8, 1},
};

/* The library has its own priors; only with this setting do they follow the wrong costs. */
static const char *settings_of(const struct program *p, const struct variation *v)
{
    static char text[160];
    if (v->wrong == 1 || strcmp(p->ours, "pdroute")) return p->ours_settings;
    snprintf(text, sizeof text, "%s%scosts=believed", p->ours_settings, *p->ours_settings ? "," : "");
    return text;
}

static void add_variations(struct program *p)
{
    for (size_t i = 0; i < sizeof variations / sizeof *variations; i++) {
        const struct variation *v = &variations[i];
        sim_options             o;
        bars_options(knee(), p->rate[1], p->limit, &o);
        o.wrong = o.wrong_step = v->wrong;
        o.slow = v->slow;
        o.stalled = v->stalled;
        o.stall_at = 200;
        o.stall_seconds = 5;
        o.gateways = v->gateways;
        o.own_books = v->own;
        for (uint64_t seed = 1; seed <= p->seeds; seed++) {
            add(p, knee(), p->ours, settings_of(p, v), seed, v->tag, &o);
            if (v->slow != SIM_NONE) { /* what is left of the fleet's capacity, evenly spread */
                sim_options even = o;
                even.slow = SIM_NONE;
                even.scaling.rate *= o.prefills / (o.prefills - 1 + o.slow_speed);
                add(p, knee(), p->ours, settings_of(p, v), seed, EVEN, &even);
            }
            for (size_t k = 0; v->own && k < peer_grid_n; k++)
                if (peer_grid[k].common && peer_grid[k].kind != PEER_REFERENCE && !peer_grid[k].local) add(p, knee(), peer_grid[k].policy, peer_grid[k].settings, seed, v->tag, &o);
        }
    }
}

static void check_variations(struct program *p)
{
    bars_cell ours = bars_cell_of(&p->plan, knee(), p->ours, p->ours_settings, ""), even = bars_cell_of(&p->plan, knee(), p->ours, p->ours_settings, EVEN), own, peer[2];
    for (size_t i = 0; i < sizeof variations / sizeof *variations; i++) {
        const struct variation *v = &variations[i];
        bars_cell               c = bars_cell_of(&p->plan, knee(), p->ours, settings_of(p, v), v->tag);
        double                  limit = v->wrong != 1 ? 1.05 : v->slow != SIM_NONE ? 1.4 : 1.03, part[BARS_SEEDS_MAX];
        if (v->own || v->stalled != SIM_NONE) continue;
        for (size_t k = 0; k < c.seeds; k++) part[k] = c.value[BARS_TTFT][k] / ours.value[BARS_TTFT][k];
        if (v->slow != SIM_NONE)
            bars_say(&p->list, c.mean[BARS_TTFT] / ours.mean[BARS_TTFT], bars_half_width(part, c.seeds), limit,
                     "%s, %s: mean TTFT over the undisturbed (equal workers with together the same capacity: %.2f)", knee()->name, v->tag,
                     even.mean[BARS_TTFT] / ours.mean[BARS_TTFT]);
        else
            bars_say(&p->list, c.mean[BARS_TTFT] / ours.mean[BARS_TTFT], bars_half_width(part, c.seeds), limit, "%s, %s: mean TTFT over the undisturbed", knee()->name, v->tag);
        bars_bound(&p->list, &p->plan, knee(), p->ours, settings_of(p, v), v->tag, 0, BARS_TTFT, ours.mean[BARS_TTFT]);
    }
    own = bars_cell_of(&p->plan, knee(), p->ours, p->ours_settings, "one worker stalled for 5 s");
    for (size_t k = 1; k < own.seeds; k++) own.value[BARS_HELD][0] = fmax(own.value[BARS_HELD][0], own.value[BARS_HELD][k]);
    bars_say(&p->list, own.value[BARS_HELD][0], NAN, 60, "%s, one worker stalled for 5 s: longest held, s (deadline 60)", knee()->name);
    own = bars_cell_of(&p->plan, knee(), p->ours, p->ours_settings, "8 gateways, 8 blocks");
    peer[0] = bars_best(&p->plan, knee(), PEER_IMMEDIATE, 0, p->seeds, "8 gateways, 8 blocks");
    peer[1] = bars_best(&p->plan, knee(), PEER_QUEUE, 0, p->seeds, "8 gateways, 8 blocks");
    if (peer[1].seeds && peer[1].mean[BARS_TTFT] < peer[0].mean[BARS_TTFT]) peer[0] = peer[1];
    bars_say(&p->list, own.mean[BARS_TTFT] / peer[0].mean[BARS_TTFT], NAN, 1, "%s, 8 gateways, 8 blocks: mean TTFT over the best peer's (%s %s)", knee()->name, peer[0].policy,
             peer[0].settings);
    bars_beside(&p->list, own.mean[BARS_TTFT], peer[0].mean[BARS_TTFT], &peer[0]);
    bars_bound(&p->list, &p->plan, knee(), p->ours, p->ours_settings, "8 gateways, 8 blocks", 0, BARS_TTFT, peer[0].mean[BARS_TTFT]);
}

/* The highest rate, in steps of a tenth, with goodput of at least .80; ours, and the defaults of the others. */
static int capacity(struct program *p)
{
    static const struct { const char *policy, *settings; } who[] = {{NULL, NULL}, {"sglang", ""}, {"dynamo", ""}, {"llmd-sticky", ""}, {"llmd-blend", ""}, {"dynamo-queue", "credit=2,threshold=0,order=wspt"}};
    enum { RATES = 17, FIRST = 12 };
    static char tag[RATES][8];
    double      best[sizeof who / sizeof *who] = {0};
    for (int i = 0; i < RATES; i++) {
        snprintf(tag[i], sizeof tag[i], "x%.1f", (FIRST + i) / 10.);
        for (size_t k = 0; k < sizeof who / sizeof *who; k++)
            for (uint64_t seed = 1; seed <= (k ? 1 : p->seeds); seed++) {
                sim_options o;
                bars_options(knee(), (FIRST + i) / 10., p->limit, &o);
                add(p, knee(), k ? who[k].policy : p->ours, k ? who[k].settings : p->ours_settings, seed, tag[i], &o);
            }
    }
    if (go(p)) return -1;
    printf("\nHighest rate with goodput of at least .80 (TTFT 2 s, TPOT 50 ms), conversation 6P5D:\n");
    for (size_t k = 0; k < sizeof who / sizeof *who; k++) {
        for (int i = 0; i < RATES; i++) {
            bars_cell c = bars_cell_of(&p->plan, knee(), k ? who[k].policy : p->ours, k ? who[k].settings : p->ours_settings, tag[i]);
            if (!(c.mean[BARS_GOODPUT] >= .8)) break;
            best[k] = (FIRST + i) / 10.;
        }
        printf("  %-16s %-34s x%.1f\n", k ? who[k].policy : p->ours, k ? who[k].settings : p->ours_settings, best[k]);
    }
    bars_say(&p->list, 2.3 - best[0], NAN, 0, "%s: capacity at goodput .80 below x2.3 by", knee()->name);
    bars_bound_capacity(&p->list, trace_of(p, knee()), knee(), p->limit, .8, 2.3);
    return 0;
}

/* ---- output */

static void row(const bars_cell *c, const char *kind)
{
    double half = bars_half_width(c->value[BARS_TTFT], c->seeds);
    char   name[96];
    if (!c->seeds) return;
    snprintf(name, sizeof name, "%s %s", c->policy, c->settings);
    printf("  %-22s %7.3f %7.3f %7.2f %8.1f %7.1f %8.3f %6.1f%%  %s\n", kind, c->mean[BARS_TTFT], half, c->mean[BARS_P99], c->mean[BARS_LONGEST], c->mean[BARS_TPOT],
           c->mean[BARS_GOODPUT], 100 * c->mean[BARS_HIT], name);
}

static void table(struct program *p, const bars_regime *g)
{
    bars_cell ours = bars_cell_of(&p->plan, g, p->ours, p->ours_settings, ""), local = bars_cell_of(&p->plan, g, p->ours, p->local_settings, "");
    bars_cell c;
    printf("\n%s (rate %.3g, %zu seeds)\n  %-22s %7s %7s %7s %8s %7s %8s %7s  %s\n", g->name, p->rate[g - bars_regimes], ours.seeds, "", "TTFT s", "±95%", "p99", "longest", "TPOT ms",
           "goodput", "cached", "policy and setting");
    row(&ours, "ours");
    if (strcmp(p->ours_settings, p->local_settings)) row(&local, "ours, decode-only");
    c = bars_best(&p->plan, g, PEER_IMMEDIATE, 0, p->seeds, "");
    row(&c, "best immediate");
    c = bars_best(&p->plan, g, PEER_QUEUE, 0, p->seeds, "");
    row(&c, "best with queue");
    c = bars_best(&p->plan, g, PEER_IMMEDIATE, 1, p->seeds, "");
    row(&c, "  immediate, dec.-only");
    c = bars_best(&p->plan, g, PEER_QUEUE, 1, p->seeds, "");
    row(&c, "  queue, decode-only");
    c = bars_best(&p->plan, g, PEER_REFERENCE, 0, p->seeds, "");
    row(&c, "reference");
    bars_check_regime(&p->list, &p->plan, g, &ours, &local, p->seeds);
}

static void print_bars(const struct program *p, size_t first)
{
    printf("\n%-8s %8s %7s %9s  %s\n", "", "value", "±95%", "at most", "bar");
    for (size_t i = first; i < p->list.n; i++) {
        const bars_bar *b = &p->list.bar[i];
        char            half[16] = "";
        if (!isnan(b->half)) snprintf(half, sizeof half, "%.3f", b->half);
        printf("%-8s %8.3f %7s %9.3f  %s\n", b->held ? "holds" : "FAILS", b->value, half, b->limit, b->text);
        if (!b->held && !isnan(b->bound)) printf("%8s %8.3f %17s  no policy can be below\n", "", b->bound, "");
        if (!b->held && isnan(b->bound)) printf("%8s %8s %17s  how far any policy could get is not known\n", "", "", "");
    }
}

static cJSON *document(struct program *p, const bars_regime *g)
{
    cJSON *d = cJSON_CreateObject(), *a = cJSON_AddObjectToObject(d, "arguments"), *t = cJSON_AddObjectToObject(d, "trace"), *runs = cJSON_AddArrayToObject(d, "runs");
    double total = 0, ideal = sim_trace_ideal(trace_of(p, g), &total);
    cJSON_AddStringToObject(d, "schema", "pdroute.simulate/1");
    cJSON_AddStringToObject(d, "title", g->name);
    cJSON_AddNumberToObject(a, "prefill", g->prefills);
    cJSON_AddNumberToObject(a, "decode", g->decodes);
    cJSON_AddNumberToObject(a, "rate", p->rate[g - bars_regimes]);
    cJSON_AddNumberToObject(a, "seeds", (double)p->seeds);
    cJSON_AddStringToObject(t, "name", trace_of(p, g)->name);
    cJSON_AddNumberToObject(t, "requests", (double)trace_of(p, g)->n);
    cJSON_AddNumberToObject(t, "prompt_tokens", total);
    cJSON_AddNumberToObject(t, "ideal_hit", total > 0 ? ideal / total : 0);
    for (size_t i = 0; i < p->plan.done; i++) {
        bars_run *r = &p->plan.run[i];
        if (r->regime != g || !r->json) continue;
        cJSON_AddItemToArray(runs, r->json);
        r->json = NULL;
    }
    return d;
}

static int write_report(struct program *p)
{
    char  *text[32] = {0}, why[256];
    size_t n = 0;
    int    bad;
    for (size_t i = 0; i < bars_regimes_n && n < 32; i++)
        if (wanted(p, &bars_regimes[i])) {
            cJSON *d = document(p, &bars_regimes[i]);
            text[n++] = cJSON_PrintUnformatted(d);
            cJSON_Delete(d);
        }
    bad = sim_report_write(p->report, (const char *const *)text, n, NULL, 0, why, sizeof why);
    while (n) cJSON_free(text[--n]);
    return bad ? say(why) : 0;
}

static int write_json(const struct program *p)
{
    cJSON *all = cJSON_CreateArray();
    char  *text;
    FILE  *f = fopen(p->json, "w");
    int    bad = !f;
    for (size_t i = 0; i < p->list.n; i++) {
        const bars_bar *b = &p->list.bar[i];
        cJSON          *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "bar", b->text);
        cJSON_AddNumberToObject(o, "value", b->value);
        cJSON_AddNumberToObject(o, "half_width", b->half);
        cJSON_AddNumberToObject(o, "limit", b->limit);
        cJSON_AddBoolToObject(o, "held", b->held);
        if (!b->held) cJSON_AddNumberToObject(o, "bound", b->bound); /* null: not known */
        cJSON_AddItemToArray(all, o);
    }
    text = cJSON_Print(all);
    if (f && text && fputs(text, f) < 0) bad = 1;
    if (f && fclose(f)) bad = 1;
    cJSON_free(text);
    cJSON_Delete(all);
    return bad ? say("the JSON could not be written") : 0;
}

/* Regime by regime, so that what is finished is told and written while the next is running. */
static int run_regime(struct program *p, const bars_regime *g)
{
    size_t first = p->list.n;
    p->now = g;
    if (find_rates(p) || screen(p)) return -1;
    add_chosen(p, g);
    if (g == knee()) add_variations(p);
    if (go(p)) return -1;
    table(p, g);
    if (g == knee()) {
        check_variations(p);
        if (!p->quick && capacity(p)) return -1;
    }
    print_bars(p, first);
    fflush(stdout);
    if (p->missed && bars_write_missed(&p->list, p->missed)) return say("the table of missed bars could not be written");
    return p->json ? write_json(p) : 0;
}

static int run(struct program *p)
{
    for (size_t i = 0; i < bars_regimes_n; i++) {
        p->rate[i] = bars_regimes[i].load > 0 ? 1 : bars_regimes[i].rate;
        if (wanted(p, &bars_regimes[i]) && !trace_of(p, &bars_regimes[i])) return -1;
    }
    for (size_t i = 0; i < bars_regimes_n; i++)
        if (wanted(p, &bars_regimes[i]) && run_regime(p, &bars_regimes[i])) return -1;
    printf("\n%zu of %zu bars hold\n", p->list.n - p->list.failed, p->list.n);
    return p->report ? write_report(p) : 0;
}

static int options(struct program *p, int argc, char **argv)
{
    static const struct option longs[] = {
        {"traces", 1, 0, 't'}, {"seeds", 1, 0, 's'}, {"quick", 0, 0, 'q'}, {"only", 1, 0, 'o'}, {"ours", 1, 0, 'u'}, {"ours-local", 1, 0, 'l'},
        {"report", 1, 0, 'r'}, {"json", 1, 0, 'j'}, {"missed", 1, 0, 'm'}, {"threads", 1, 0, 'T'}, {"quiet", 0, 0, 'Q'}, {"help", 0, 0, 'h'}, {0, 0, 0, 0}};
    static char ours[128];
    int         o;
    while ((o = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        if (o == 't') p->traces = optarg;
        else if (o == 's') p->seeds = strtoul(optarg, NULL, 10);
        else if (o == 'q') p->quick = 1;
        else if (o == 'o') p->only = optarg;
        else if (o == 'r') p->report = optarg;
        else if (o == 'j') p->json = optarg;
        else if (o == 'm') p->missed = optarg;
        else if (o == 'l') p->local_settings = optarg;
        else if (o == 'T') p->plan.threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (o == 'Q') p->plan.quiet = 1;
        else if (o == 'u') {
            char *colon;
            snprintf(ours, sizeof ours, "%s", optarg);
            if ((colon = strchr(ours, ':'))) *colon++ = 0;
            p->ours = ours;
            p->ours_settings = colon ? colon : "";
        } else {
            fputs(usage, o == 'h' ? stdout : stderr);
            exit(o == 'h' ? 0 : 2);
        }
    }
    if (!p->seeds) p->seeds = p->quick ? 2 : 5;
    if (p->quick) p->limit = 5000;
    if (!p->local_settings) p->local_settings = !strcmp(p->ours, "pdroute") && !*p->ours_settings ? "alone=1" : p->ours_settings;
    if (!p->traces || optind < argc || p->seeds > BARS_SEEDS_MAX) return fputs(usage, stderr), -1;
    return sim_chooser_named(p->ours) ? 0 : say("--ours: there is no such policy");
}

int main(int argc, char **argv)
{
    struct program p = {.ours = "pdroute", .ours_settings = ""};
    long           cores = sysconf(_SC_NPROCESSORS_ONLN);
    int            bad;
    p.plan.threads = cores > 0 ? (unsigned)cores : 1;
    if (options(&p, argc, argv)) return 2;
    p.rate = calloc(bars_regimes_n, sizeof *p.rate);
    bad = p.rate ? run(&p) : say("out of memory");
    bars_free(&p.plan);
    for (size_t i = 0; i < p.trace_n; i++) sim_trace_free(&p.trace[i]);
    free(p.list.bar);
    free(p.rate);
    return bad ? 2 : p.list.failed ? 1 : 0;
}
