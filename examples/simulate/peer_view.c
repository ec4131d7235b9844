#include "peer_view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int peer_view_open(struct peer_view *v, sim_gateway *g, const char *settings, char *why, size_t cap)
{
    char view[16] = "ledger";
    memset(v, 0, sizeof *v);
    v->gateway = g;
    sim_workers(g, &v->prefills, &v->decodes);
    sim_setting_text(settings, "view", view, sizeof view);
    if (strcmp(view, "ledger") && strcmp(view, "scrape")) {
        snprintf(why, cap, "view=%s: ledger and scrape are known", view);
        return -1;
    }
    if (v->prefills < 1 || v->prefills > PEER_WORKERS_MAX) {
        snprintf(why, cap, "%u prefill workers: 1 to %d can be chosen from", v->prefills, PEER_WORKERS_MAX);
        return -1;
    }
    v->scrape = !strcmp(view, "scrape");
    v->local = sim_setting(settings, "local", 0);
    v->local_ratio = sim_setting(settings, "local_ratio", 1);
    v->random = sim_random(g);
    v->turns = calloc(v->prefills, sizeof *v->turns);
    v->rows = calloc(v->prefills, sizeof *v->rows);
    v->cost = calloc(v->prefills, sizeof *v->cost);
    v->matched = calloc((size_t)v->prefills + v->decodes, sizeof *v->matched);
    v->lines = calloc((size_t)v->prefills + v->decodes, sizeof *v->lines);
    if (v->lines && v->turns && v->rows && v->cost && v->matched) return 0;
    snprintf(why, cap, "out of memory");
    peer_view_close(v);
    return -1;
}

void peer_view_close(struct peer_view *v)
{
    free(v->turns);
    free(v->rows);
    free(v->cost);
    free(v->matched);
    for (uint32_t i = 0; v->lines && i < v->prefills + v->decodes; i++) free(v->lines[i].sent);
    free(v->lines);
    memset(v, 0, sizeof *v);
}

static void line_put(struct peer_line *l, uint32_t id, double seconds, sim_ns now)
{
    if (l->first == l->end) l->first = l->end = 0, l->since = now, l->sum = 0;
    if (l->end == l->cap) {
        if (l->first > l->cap / 2) {
            memmove(l->sent, l->sent + l->first, (l->end - l->first) * sizeof *l->sent);
            l->end -= l->first;
            l->first = 0;
        } else if (!(l->sent = realloc(l->sent, (l->cap = l->cap ? l->cap * 2 : 64) * sizeof *l->sent))) {
            abort();
        }
    }
    l->sent[l->end++] = (struct peer_sent){id, seconds};
    l->sum += seconds;
}

static void line_take(struct peer_line *l, uint32_t id, sim_ns now)
{
    size_t i = l->first;
    while (i < l->end && l->sent[i].id != id) i++;
    if (i == l->end) return;
    l->sum -= l->sent[i].seconds;
    memmove(l->sent + l->first + 1, l->sent + l->first, (i - l->first) * sizeof *l->sent);
    l->first++;
    l->since = now;
}

double peer_view_wait(const struct peer_view *v, uint32_t worker)
{
    const struct peer_line *l = &v->lines[worker];
    double                  begun;
    if (l->first == l->end) return 0;
    begun = (double)(sim_now(v->gateway) - l->since) / SIM_SECOND;
    return fmax(l->sum - fmin(begun, l->sent[l->first].seconds), 0);
}

void peer_view_done(struct peer_view *v, const sim_request *q, uint32_t worker) { line_take(&v->lines[worker], q->id, sim_now(v->gateway)); }

static void load_of(const struct peer_view *v, const sim_worker *w, uint32_t worker, struct peer_worker *row)
{
    const sim_load *l = &w->load;
    row->kv_used = l->kv_capacity ? (double)l->kv_used / (double)l->kv_capacity : 0;
    row->requests = v->scrape ? (double)(l->running + l->waiting) : (double)w->prefill_requests;
    row->pending = v->scrape ? (double)l->waiting_tokens : (double)w->prefill_tokens;
    row->wait_s = v->scrape ? sim_prefill_seconds(v->gateway, (uint32_t)l->waiting_tokens, 0) * (l->waiting_tokens > 0)
                            : peer_view_wait(v, worker);
}

void peer_view_load(struct peer_view *v)
{
    const sim_worker *w = peer_view_books(v);
    for (uint32_t i = 0; i < v->prefills; i++) {
        load_of(v, &w[i], i, &v->rows[i]);
        v->rows[i].turn = v->turns[i];
    }
}

struct peer_case peer_view_of(struct peer_view *v, const sim_request *q)
{
    sim_match(v->gateway, q, v->matched);
    peer_view_load(v);
    for (uint32_t i = 0; i < v->prefills; i++) {
        v->rows[i].matched = v->matched[i];
        v->rows[i].work_s = sim_prefill_seconds(v->gateway, q->in - v->matched[i], v->matched[i]);
    }
    return (struct peer_case){v->rows, v->prefills, q->in, &v->random};
}

uint32_t peer_view_decode(const struct peer_view *v)
{
    const sim_worker *w = peer_view_books(v);
    uint32_t          best = v->prefills;
    for (uint32_t d = v->prefills + 1; d < v->prefills + v->decodes; d++)
        if (w[d].decode_tokens < w[best].decode_tokens ||
            (w[d].decode_tokens == w[best].decode_tokens && w[d].decode_requests < w[best].decode_requests))
            best = d;
    return best;
}

uint32_t peer_view_local(const struct peer_view *v, const sim_request *q)
{
    const sim_worker *w = peer_view_books(v);
    uint32_t          best = SIM_NONE;
    double            least = INFINITY;
    if (v->local <= 0) return SIM_NONE;
    for (uint32_t d = v->prefills; d < v->prefills + v->decodes; d++) {
        uint32_t uncached = q->in - v->matched[d];
        double   s;
        if (uncached > v->local || uncached > v->local_ratio * q->in) continue;
        s = sim_prefill_seconds(v->gateway, uncached, v->matched[d]) + peer_view_wait(v, d) +
            sim_step_seconds(v->gateway, w[d].decode_requests, w[d].decode_tokens);
        if (s < least) least = s, best = d;
    }
    return best;
}

static void record_prefill(const struct peer_view *v, const sim_request *q, uint32_t choice)
{
    for (uint32_t i = 0; i < v->prefills; i++) {
        const struct peer_worker *r = &v->rows[i];
        const sim_term terms[] = {{"matched tokens", r->matched}, {"uncached tokens", q->in - r->matched}, {"requests", r->requests},
                                  {"pending tokens", r->pending}, {"wait s", r->wait_s}, {"work s", r->work_s}};
        sim_candidate(v->gateway, q, i, i == choice, v->cost[i], terms, sizeof terms / sizeof *terms);
    }
}

static void record_decode(const struct peer_view *v, const sim_request *q, uint32_t choice)
{
    const sim_worker *w = peer_view_books(v);
    for (uint32_t d = v->prefills; d < v->prefills + v->decodes; d++) {
        const sim_term terms[] = {{"matched tokens", v->matched[d]}, {"requests", w[d].decode_requests},
                                  {"of those arrived", w[d].decode_arrived_requests}};
        sim_candidate(v->gateway, q, d, d == choice, (double)w[d].decode_tokens, terms, sizeof terms / sizeof *terms);
    }
}

void peer_view_send_local(struct peer_view *v, const sim_request *q, uint32_t decode)
{
    line_put(&v->lines[decode], q->id, sim_prefill_seconds(v->gateway, q->in - v->matched[decode], v->matched[decode]), sim_now(v->gateway));
    if (sim_recording(v->gateway)) {
        record_prefill(v, q, SIM_NONE);
        record_decode(v, q, decode);
    }
    sim_send(v->gateway, q, SIM_NONE, decode);
}

void peer_view_send(struct peer_view *v, const sim_request *q, uint32_t choice)
{
    uint32_t d = peer_view_local(v, q);
    if (d != SIM_NONE) {
        peer_view_send_local(v, q, d);
        return;
    }
    d = peer_view_decode(v);
    if (sim_recording(v->gateway)) {
        record_prefill(v, q, choice);
        record_decode(v, q, d);
    }
    v->turns[choice] = ++v->turn;
    line_put(&v->lines[choice], q->id, sim_prefill_seconds(v->gateway, q->in - v->matched[choice], v->matched[choice]), sim_now(v->gateway));
    sim_send(v->gateway, q, choice, d);
}
