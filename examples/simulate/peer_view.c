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
    if (v->turns && v->rows && v->cost && v->matched) return 0;
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
    memset(v, 0, sizeof *v);
}

/* Booked seconds less what has passed since the oldest began: the work in front of a new request. */
static double booked_wait(const sim_worker *w, sim_ns now)
{
    if (!w->prefill_requests) return 0;
    return fmax(w->prefill_seconds - (double)(now - w->prefill_since) / SIM_SECOND, 0);
}

static void load_of(const struct peer_view *v, const sim_worker *w, struct peer_worker *row)
{
    const sim_load *l = &w->load;
    row->kv_used = l->kv_capacity ? (double)l->kv_used / (double)l->kv_capacity : 0;
    row->requests = v->scrape ? (double)(l->running + l->waiting) : (double)w->prefill_requests;
    row->pending = v->scrape ? (double)l->waiting_tokens : (double)w->prefill_tokens;
    row->wait_s = v->scrape ? sim_prefill_seconds(v->gateway, (uint32_t)l->waiting_tokens, 0) * (l->waiting_tokens > 0)
                            : booked_wait(w, sim_now(v->gateway));
}

void peer_view_load(struct peer_view *v)
{
    const sim_worker *w = sim_workers(v->gateway, NULL, NULL);
    for (uint32_t i = 0; i < v->prefills; i++) {
        load_of(v, &w[i], &v->rows[i]);
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
    const sim_worker *w = sim_workers(v->gateway, NULL, NULL);
    uint32_t          best = v->prefills;
    for (uint32_t d = v->prefills + 1; d < v->prefills + v->decodes; d++)
        if (w[d].decode_tokens < w[best].decode_tokens ||
            (w[d].decode_tokens == w[best].decode_tokens && w[d].decode_requests < w[best].decode_requests))
            best = d;
    return best;
}

uint32_t peer_view_local(const struct peer_view *v, const sim_request *q)
{
    const sim_worker *w = sim_workers(v->gateway, NULL, NULL);
    uint32_t          best = SIM_NONE;
    double            least = INFINITY;
    if (v->local <= 0) return SIM_NONE;
    for (uint32_t d = v->prefills; d < v->prefills + v->decodes; d++) {
        uint32_t uncached = q->in - v->matched[d];
        double   s;
        if (uncached > v->local || uncached > v->local_ratio * q->in) continue;
        s = sim_prefill_seconds(v->gateway, uncached, v->matched[d]) + booked_wait(&w[d], sim_now(v->gateway)) +
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
    const sim_worker *w = sim_workers(v->gateway, NULL, NULL);
    for (uint32_t d = v->prefills; d < v->prefills + v->decodes; d++) {
        const sim_term terms[] = {{"matched tokens", v->matched[d]}, {"requests", w[d].decode_requests},
                                  {"of those arrived", w[d].decode_arrived_requests}};
        sim_candidate(v->gateway, q, d, d == choice, (double)w[d].decode_tokens, terms, sizeof terms / sizeof *terms);
    }
}

void peer_view_send(struct peer_view *v, const sim_request *q, uint32_t choice)
{
    uint32_t d = peer_view_local(v, q);
    if (d != SIM_NONE) choice = SIM_NONE;
    else d = peer_view_decode(v);
    if (sim_recording(v->gateway)) {
        record_prefill(v, q, choice);
        record_decode(v, q, d);
    }
    if (choice != SIM_NONE) v->turns[choice] = ++v->turn;
    sim_send(v->gateway, q, choice, d);
}
