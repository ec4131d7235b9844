/* What is compared, and what must hold. */
#include "bars.h"
#include "bound.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double bars_half_width(const double *v, size_t n)
{
    static const double t[] = {0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10};
    double              mean = 0, square = 0;
    if (n < 2 || n > BARS_SEEDS_MAX) return NAN;
    for (size_t i = 0; i < n; i++) mean += v[i] / (double)n;
    for (size_t i = 0; i < n; i++) square += (v[i] - mean) * (v[i] - mean);
    return t[n - 1] * sqrt(square / (double)(n - 1) / (double)n);
}

bars_cell bars_cell_of(const bars_plan *p, const bars_regime *g, const char *policy, const char *settings, const char *tag)
{
    bars_cell c = {.policy = policy, .settings = settings};
    uint64_t  seen = 0; /* seeds: a run that two comparisons asked for counts once */
    for (size_t i = 0; i < p->done; i++) {
        const bars_run *r = &p->run[i];
        if (r->regime != g || strcmp(r->policy, policy) || strcmp(r->settings, settings) || strcmp(r->tag, tag) || c.seeds == BARS_SEEDS_MAX) continue;
        if (seen >> r->seed % 64 & 1) continue;
        seen |= (uint64_t)1 << r->seed % 64;
        for (int k = 0; k < BARS_FIGURES; k++) {
            c.value[k][c.seeds] = r->figure[k];
            c.mean[k] += r->figure[k];
        }
        c.seeds++;
    }
    for (int k = 0; k < BARS_FIGURES; k++) c.mean[k] /= c.seeds ? (double)c.seeds : NAN;
    return c;
}

bars_cell bars_best(const bars_plan *p, const bars_regime *g, unsigned kind, int local, size_t seeds, const char *tag)
{
    bars_cell best = {0};
    for (size_t i = 0; i < peer_grid_n; i++) {
        const peer_setting *s = &peer_grid[i];
        bars_cell           c;
        if (!(s->kind & kind) || s->local != local) continue;
        c = bars_cell_of(p, g, s->policy, s->settings, tag);
        if (c.seeds >= seeds && c.seeds && (!best.seeds || c.mean[BARS_TTFT] < best.mean[BARS_TTFT])) best = c;
    }
    return best;
}

void bars_say(bars_list *l, double value, double half, double limit, const char *form, ...)
{
    va_list   a;
    bars_bar *more = realloc(l->bar, (l->n + 1) * sizeof *more), *b;
    if (!more) abort();
    l->bar = more;
    b = &l->bar[l->n++];
    va_start(a, form);
    vsnprintf(b->text, sizeof b->text, form, a);
    va_end(a);
    b->value = value;
    b->half = half;
    b->bound = b->ours = b->other = NAN;
    b->peer[0] = 0;
    b->limit = limit;
    b->held = value <= limit; /* an unknown value has not held */
    if (!b->held) l->failed++;
}

void bars_beside(bars_list *l, double ours, double other, const bars_cell *peer)
{
    bars_bar *b = &l->bar[l->n - 1];
    b->ours = ours;
    b->other = other;
    if (peer->seeds) snprintf(b->peer, sizeof b->peer, "%s%s%s", peer->policy, *peer->settings ? ":" : "", peer->settings);
}

/* A figure, or that there is none. */
static void put_figure(FILE *f, double v) { fprintf(f, isnan(v) ? " – |" : " %.3f |", v); }

int bars_write_missed(const bars_list *l, const char *file)
{
    FILE *f = fopen(file, "w");
    if (!f) return -1;
    fputs("| missed bar | value | at most | no policy below | ours | best peer | which, with what setting |\n|---|---|---|---|---|---|---|\n", f);
    for (size_t i = 0; i < l->n; i++) {
        const bars_bar *b = &l->bar[i];
        if (b->held) continue;
        fprintf(f, "| %s |", b->text);
        put_figure(f, b->value);
        put_figure(f, b->limit);
        put_figure(f, b->bound);
        put_figure(f, b->ours);
        put_figure(f, b->other);
        fprintf(f, " %s%s%s |\n", *b->peer ? "`" : "", *b->peer ? b->peer : "–", *b->peer ? "`" : "");
    }
    int bad = ferror(f);
    return fclose(f) || bad ? -1 : 0;
}

void bars_bound(bars_list *l, const bars_plan *p, const bars_regime *g, const char *policy, const char *settings, const char *tag, int local, int figure, double over)
{
    double   sum = 0;
    size_t   n = 0;
    uint64_t seen = 0; /* seeds, as in bars_cell_of() */
    if (l->bar[l->n - 1].held) return; /* only said where a bar is missed */
    for (size_t i = 0; i < p->done; i++) {
        const bars_run *r = &p->run[i];
        sim_bound       b;
        if (r->regime != g || strcmp(r->policy, policy) || strcmp(r->settings, settings) || strcmp(r->tag, tag) || seen >> r->seed % 64 & 1) continue;
        if (sim_bound_of(r->trace, &r->options, r->seed, local, &b)) return;
        seen |= (uint64_t)1 << r->seed % 64;
        sum += figure == BARS_LONGEST ? b.longest : figure == BARS_P99 ? b.p99 : figure == BARS_TPOT ? b.tpot : figure == BARS_GOODPUT ? b.goodput : b.mean;
        n++;
    }
    if (n) l->bar[l->n - 1].bound = figure == BARS_GOODPUT ? over - sum / (double)n : sum / (double)n / over;
}

void bars_bound_capacity(bars_list *l, const sim_trace *t, const bars_regime *g, size_t limit, double goodput, double over)
{
    double rate = 0;
    if (l->bar[l->n - 1].held) return;
    for (int tenths = 10; tenths <= 100; tenths++) {
        sim_options o;
        sim_bound   b;
        bars_options(g, tenths / 10., limit, &o);
        if (sim_bound_of(t, &o, 1, 0, &b)) return;
        if (b.goodput < goodput) break;
        rate = tenths / 10.;
    }
    l->bar[l->n - 1].bound = over - rate;
}

/* Ours over another's, with the interval of the ratio over paired seeds. */
static void ratio(bars_list *l, const bars_cell *ours, const bars_cell *other, int figure, double limit, const char *text, const char *name)
{
    double v[BARS_SEEDS_MAX];
    size_t n = ours->seeds < other->seeds ? ours->seeds : other->seeds;
    for (size_t i = 0; i < n; i++) v[i] = ours->value[figure][i] / other->value[figure][i];
    bars_say(l, ours->mean[figure] / other->mean[figure], bars_half_width(v, n), limit, "%s: %s", name, text);
    bars_beside(l, ours->mean[figure], other->mean[figure], other);
}

/* Of all peers of a kind that ran with all seeds the one whose mean of a figure is least (sign 1) or most (-1). */
static bars_cell least(const bars_plan *p, const bars_regime *g, unsigned kind, int figure, int sign, size_t seeds)
{
    bars_cell best = {0};
    for (size_t i = 0; i < peer_grid_n; i++) {
        const peer_setting *s = &peer_grid[i];
        bars_cell           c;
        if (!(s->kind & kind) || s->local) continue;
        c = bars_cell_of(p, g, s->policy, s->settings, "");
        if (c.seeds >= seeds && (!best.seeds || !(sign * c.mean[figure] >= sign * best.mean[figure]))) best = c;
    }
    if (!best.seeds) best.mean[figure] = NAN;
    return best;
}

void bars_check_regime(bars_list *l, const bars_plan *p, const bars_regime *g, const bars_cell *ours, const bars_cell *ours_local, size_t seeds)
{
    bars_cell immediate = bars_best(p, g, PEER_IMMEDIATE, 0, seeds, ""), queue = bars_best(p, g, PEER_QUEUE, 0, seeds, "");
    bars_cell local = bars_best(p, g, PEER_QUEUE, 1, seeds, "");
    ratio(l, ours, &immediate, BARS_TTFT, 1 - g->ahead_immediate, "mean TTFT over the best immediate peer's", g->name);
    bars_bound(l, p, g, ours->policy, ours->settings, "", 0, BARS_TTFT, immediate.mean[BARS_TTFT]);
    if (!isnan(g->goodput_more)) {
        bars_cell best = least(p, g, PEER_IMMEDIATE, BARS_GOODPUT, -1, seeds);
        bars_say(l, best.mean[BARS_GOODPUT] - ours->mean[BARS_GOODPUT], NAN, -g->goodput_more, "%s: goodput behind the best immediate peer's", g->name);
        bars_beside(l, ours->mean[BARS_GOODPUT], best.mean[BARS_GOODPUT], &best);
        bars_bound(l, p, g, ours->policy, ours->settings, "", 0, BARS_GOODPUT, best.mean[BARS_GOODPUT]);
    }
    ratio(l, ours, &queue, BARS_TTFT, 1 - g->ahead_queue, "mean TTFT over the best queue peer's", g->name);
    bars_bound(l, p, g, ours->policy, ours->settings, "", 0, BARS_TTFT, queue.mean[BARS_TTFT]);
    if (g->transient) {
        ratio(l, ours, &queue, BARS_LONGEST, .5, "longest TTFT over the best queue peer's", g->name);
        bars_bound(l, p, g, ours->policy, ours->settings, "", 0, BARS_LONGEST, queue.mean[BARS_LONGEST]);
    }
    if (ours_local->seeds && local.seeds) {
        ratio(l, ours_local, &local, BARS_TTFT, 1 - g->ahead_local, "the same, decode-only on both sides", g->name);
        bars_bound(l, p, g, ours_local->policy, ours_local->settings, "", 1, BARS_TTFT, local.mean[BARS_TTFT]);
    }
    bars_say(l, ours->mean[BARS_P99] / immediate.mean[BARS_P99], NAN, 1 + g->behind_p99, "%s: p99 over the best immediate peer's", g->name);
    bars_beside(l, ours->mean[BARS_P99], immediate.mean[BARS_P99], &immediate);
    bars_bound(l, p, g, ours->policy, ours->settings, "", 0, BARS_P99, immediate.mean[BARS_P99]);
    bars_cell tpot = least(p, g, PEER_IMMEDIATE | PEER_QUEUE, BARS_TPOT, 1, seeds);
    bars_say(l, ours->mean[BARS_TPOT] / tpot.mean[BARS_TPOT], NAN, 1.05, "%s: mean TPOT over the best peer's", g->name);
    bars_beside(l, ours->mean[BARS_TPOT], tpot.mean[BARS_TPOT], &tpot);
    bars_bound(l, p, g, ours->policy, ours->settings, "", 0, BARS_TPOT, tpot.mean[BARS_TPOT]);
    bars_say(l, ours->mean[BARS_REFUSED], NAN, 0, "%s: requests refused", g->name);
}
