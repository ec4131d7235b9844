/*
 * Dynamo's KV router with its admission queue (lib/kv-router/src/scheduling/{queue,policy}.rs): while every prefill worker has more than
 * threshold * batch tokens pending, requests are parked; then the first in order (fcfs, or wspt: fewest uncached tokens on arrival) is sent where the formula says.
 * There is no ageing: under overload wspt starves long prompts.
 *
 * A parked request is matched again when it is sent (Dynamo's newer overlap refresh). O(log parked) per arrival and release beside the formula.
 */
#include "peer_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parked {
    double             key; /* higher goes first */
    const sim_request *q;
};

struct dynamo_queue {
    struct peer_view view;
    double           credit, threshold;
    int              wspt;
    struct parked   *heap;
    size_t           n, cap;
};

static void destroy(void *self)
{
    struct dynamo_queue *s = self;
    peer_view_close(&s->view);
    free(s->heap);
    free(s);
}

static void *create(sim_gateway *g, const char *settings, char *why, size_t cap)
{
    static const char *const keys[] = {PEER_VIEW_KEYS, "credit", "threshold", "order", NULL};
    char                     order[8] = "wspt";
    struct dynamo_queue     *s;
    if (sim_settings_known(settings, keys, why, cap)) return NULL;
    sim_setting_text(settings, "order", order, sizeof order);
    if (strcmp(order, "fcfs") && strcmp(order, "wspt")) {
        snprintf(why, cap, "order=%s: fcfs and wspt are known", order);
        return NULL;
    }
    if (!(s = calloc(1, sizeof *s))) return NULL;
    if (peer_view_open(&s->view, g, settings, why, cap)) {
        free(s);
        return NULL;
    }
    s->credit = sim_setting(settings, "credit", 2);
    s->threshold = sim_setting(settings, "threshold", 0);
    s->wspt = !strcmp(order, "wspt");
    return s;
}

/* Who goes first; equal keys: who came first. */
static int before(const struct parked *a, const struct parked *b)
{
    if (a->key != b->key) return a->key > b->key;
    return a->q->arrived != b->q->arrived ? a->q->arrived < b->q->arrived : a->q->id < b->q->id;
}

static void push(struct dynamo_queue *s, struct parked x)
{
    size_t i = s->n;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 256;
        s->heap = realloc(s->heap, s->cap * sizeof *s->heap);
        if (!s->heap) abort();
    }
    for (s->n++; i && before(&x, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = x;
}

static const sim_request *pop(struct dynamo_queue *s)
{
    const sim_request *first = s->heap[0].q;
    struct parked      x = s->heap[--s->n];
    size_t             i = 0;
    for (size_t k = 1; k < s->n; k = i * 2 + 1) {
        if (k + 1 < s->n && before(&s->heap[k + 1], &s->heap[k])) k++;
        if (!before(&s->heap[k], &x)) break;
        s->heap[i] = s->heap[k];
        i = k;
    }
    s->heap[i] = x;
    return first;
}

static int busy(struct dynamo_queue *s)
{
    peer_view_load(&s->view);
    return peer_dynamo_busy(s->view.rows, s->view.prefills, s->threshold, sim_costs_of(s->view.gateway)->batch_tokens);
}

static void send(struct dynamo_queue *s, const sim_request *q)
{
    struct peer_case c = peer_view_of(&s->view, q);
    peer_view_send(&s->view, q, peer_dynamo(&c, s->credit, s->view.cost));
}

static void arrive(void *self, const sim_request *q)
{
    struct dynamo_queue *s = self;
    double               best = 0;
    struct peer_case     c = peer_view_of(&s->view, q);
    if (peer_view_local(&s->view, q) != SIM_NONE || (!s->n && !busy(s))) {
        send(s, q);
        return;
    }
    for (uint32_t i = 0; i < c.n; i++)
        if (c.w[i].matched > best) best = c.w[i].matched;
    if (sim_recording(s->view.gateway)) sim_note(s->view.gateway, q, "parked: every worker is busy");
    push(s, (struct parked){s->wspt ? peer_wspt_key(q->in, best) : 0, q});
}

static void prefill_done(void *self, const sim_request *q, uint32_t worker)
{
    struct dynamo_queue *s = self;
    peer_view_done(&s->view, q, worker);
    while (s->n && !busy(s)) send(s, pop(s));
}

const sim_chooser sim_dynamo_queue = {
    .name = "dynamo-queue",
    .settings = "credit=2,threshold=0,order=wspt",
    .about = "NVIDIA Dynamo's KV router with its queue: parked while all workers are above the threshold, then fcfs or wspt",
    .create = create,
    .destroy = destroy,
    .arrive = arrive,
    .prefill_done = prefill_done,
};
