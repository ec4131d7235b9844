/*
 * The policy the library's default started from, written down a second time and without the library: what the real one is compared with.
 *
 *   T_jw  = a + b u + c u (m + u/2) + reload            u uncached tokens of j behind m matched ones on prefill worker w
 *   place   argmin_w V_w + T_jw (1 + N/P)               V_w backlog booked and planned; N requests held or in prefill, P workers
 *
 * reference-immediate sends to that place on arrival. reference-held keeps requests, and on each arrival and completion goes through them in
 * descending (1 + age/W) / T_j, T_j = min_w T_jw, W = (backlog + held work) / P: released if its place has nothing outstanding and nothing planned ahead
 * of it, else planned there. Into a step that was opened in this pass a further request is batched if it fits the engine's budget and
 * m (T_j - a) < (a + RTT) (1 + Q/P), m requests in the step, Q held behind it. Decode: fewest booked prompt tokens, prompts in prefill included.
 *
 * Settings: order=size|fcfs, batch=1|0, local=0|1|2: decode-only never / if it ends sooner there with the harm to those running priced in / if it ends
 * sooner and at most local_tokens are uncached.
 */
#include "peer_view.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct waiting {
    const sim_request *q;
    double             size; /* T_j when it was last matched */
    double             key;
};

struct reference {
    struct peer_view view;
    int              hold, fcfs, batch, local;
    double           local_tokens;
    struct waiting  *held;
    size_t           n, cap;
    double           held_work;
    /* one pass, per prefill worker */
    double          *backlog, *planned;
    uint32_t        *step_requests;
    double          *step_tokens;
};

static void destroy(void *self)
{
    struct reference *s = self;
    peer_view_close(&s->view);
    free(s->held);
    free(s->backlog);
    free(s->planned);
    free(s->step_requests);
    free(s->step_tokens);
    free(s);
}

static void *create(sim_gateway *g, const char *settings, int hold, char *why, size_t cap)
{
    static const char *const keys[] = {"local", "local_tokens", "order", "batch", NULL}, *const immediate_keys[] = {"local", "local_tokens", NULL};
    char                     order[8] = "size";
    struct reference        *s;
    uint32_t                 p;
    if (sim_settings_known(settings, hold ? keys : immediate_keys, why, cap) || !(s = calloc(1, sizeof *s))) return NULL;
    if (peer_view_open(&s->view, g, "", why, cap)) {
        free(s);
        return NULL;
    }
    p = s->view.prefills;
    s->hold = hold;
    sim_setting_text(settings, "order", order, sizeof order);
    s->fcfs = !strcmp(order, "fcfs");
    s->batch = sim_setting(settings, "batch", 1) != 0;
    s->local = (int)sim_setting(settings, "local", 0);
    s->local_tokens = sim_setting(settings, "local_tokens", 4096);
    s->backlog = calloc(p, sizeof *s->backlog);
    s->planned = calloc(p, sizeof *s->planned);
    s->step_requests = calloc(p, sizeof *s->step_requests);
    s->step_tokens = calloc(p, sizeof *s->step_tokens);
    if (s->backlog && s->planned && s->step_requests && s->step_tokens && (s->fcfs || !strcmp(order, "size"))) return s;
    snprintf(why, cap, "order=%s: size and fcfs are known", order);
    destroy(s);
    return NULL;
}

static void *create_held(sim_gateway *g, const char *settings, char *why, size_t cap) { return create(g, settings, 1, why, cap); }
static void *create_immediate(sim_gateway *g, const char *settings, char *why, size_t cap) { return create(g, settings, 0, why, cap); }

/* Fills the view's rows with T_jw, reload of matched tokens included where there is a host tier; returns the least of them. */
static double sizes(struct reference *s, const sim_request *q)
{
    const sim_costs *k = sim_costs_of(s->view.gateway);
    double           reload = k->cache_tokens > k->kv_tokens ? k->reload_token : 0, least = INFINITY;
    peer_view_of(&s->view, q);
    for (uint32_t i = 0; i < s->view.prefills; i++) {
        s->view.rows[i].work_s += reload * s->view.rows[i].matched;
        least = fmin(least, s->view.rows[i].work_s);
    }
    return least;
}

/* Where it goes: the least of backlog + planned + T (1 + price); the least recently used of equal ones. */
static uint32_t place(struct reference *s, double price)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < s->view.prefills; i++) {
        s->view.cost[i] = s->backlog[i] + s->planned[i] + s->view.rows[i].work_s * (1 + price);
        if (s->view.cost[i] < s->view.cost[best] || (s->view.cost[i] == s->view.cost[best] && s->view.turns[i] < s->view.turns[best])) best = i;
    }
    return best;
}

/* Backlogs at the begin of a pass; returns their sum, requests in prefill in *in_prefill. */
static double begin_pass(struct reference *s, double *in_prefill)
{
    double sum = 0;
    *in_prefill = 0;
    peer_view_load(&s->view);
    for (uint32_t i = 0; i < s->view.prefills; i++) {
        s->backlog[i] = s->view.rows[i].wait_s;
        s->planned[i] = 0;
        s->step_requests[i] = 0;
        s->step_tokens[i] = 0;
        sum += s->backlog[i];
        *in_prefill += s->view.rows[i].requests;
    }
    return sum;
}

/* The decode worker that would have the whole request done soonest, if that beats `remote` seconds: by rule 1 or 2 above. */
static uint32_t local(const struct reference *s, const sim_request *q, double remote)
{
    const struct peer_view *v = &s->view;
    const sim_worker       *w = peer_view_books(v);
    const sim_costs        *k = sim_costs_of(v->gateway);
    double                  least = remote, reload = k->cache_tokens > k->kv_tokens ? k->reload_token : 0;
    uint32_t                best = SIM_NONE;
    if (!s->local) return SIM_NONE;
    for (uint32_t d = v->prefills; d < v->prefills + v->decodes; d++) {
        uint32_t m = v->matched[d], u = q->in - m;
        double   compute = sim_prefill_seconds(v->gateway, u, m), t;
        if (s->local == 2 && u > s->local_tokens) continue;
        t = reload * m + compute + ceil(u / 512.) * sim_step_seconds(v->gateway, w[d].decode_arrived_requests, w[d].decode_arrived_tokens);
        t += peer_view_wait(v, d);
        if (s->local == 1) t += w[d].decode_arrived_requests * compute;
        if (t < least) least = t, best = d;
    }
    return best;
}

static void send(struct reference *s, const sim_request *q, uint32_t w)
{
    if (w != SIM_NONE) peer_view_send(&s->view, q, w);
}

/* Heap of the held requests, the most urgent first; equal: who came first. */
static int before(const struct waiting *a, const struct waiting *b) { return a->key != b->key ? a->key > b->key : a->q->id < b->q->id; }

static void sift(struct waiting *h, size_t n, size_t i)
{
    struct waiting x = h[i];
    for (size_t k; (k = i * 2 + 1) < n; i = k) {
        if (k + 1 < n && before(&h[k + 1], &h[k])) k++;
        if (!before(&h[k], &x)) break;
        h[i] = h[k];
    }
    h[i] = x;
}

/* Whether a request of this size may join a step with m requests. */
static int joins(const struct reference *s, double size, uint32_t m)
{
    const sim_costs *k = sim_costs_of(s->view.gateway);
    double           q = (double)(s->n - 1) / s->view.prefills;
    return s->batch && m && m * (size - k->prefill_base) < (k->prefill_base + 2 * k->delay) * (1 + q);
}

/* Places one held request; 1 if it was sent. */
static int consider(struct reference *s, struct waiting *x, double price)
{
    const sim_costs *k = sim_costs_of(s->view.gateway);
    uint32_t         w;
    double           work, uncached;
    x->size = sizes(s, x->q);
    w = place(s, price);
    work = s->view.rows[w].work_s;
    uncached = x->q->in - s->view.rows[w].matched;
    if (s->step_requests[w]) {
        if (s->planned[w] > 0 || s->step_tokens[w] + uncached > k->batch_tokens || !joins(s, work, s->step_requests[w])) {
            s->planned[w] += work;
            return 0;
        }
        work -= k->prefill_base;
    } else if (s->view.rows[w].requests > 0 || s->planned[w] > 0) {
        s->planned[w] += work;
        return 0;
    }
    s->step_requests[w]++;
    s->step_tokens[w] += uncached;
    s->backlog[w] += work;
    send(s, x->q, w);
    return 1;
}

/* 1 while some worker could still be sent something in this pass. */
static int open_somewhere(const struct reference *s, const uint32_t *in_prefill)
{
    for (uint32_t i = 0; i < s->view.prefills; i++)
        if (!(s->planned[i] > 0) && (s->step_requests[i] ? s->batch : !in_prefill[i])) return 1;
    return 0;
}

static void pass(struct reference *s)
{
    const sim_worker *w = peer_view_books(&s->view);
    double            in_prefill, sum = begin_pass(s, &in_prefill), price, wait;
    uint32_t          busy[PEER_WORKERS_MAX];
    size_t            n = s->n;
    sim_ns            now = sim_now(s->view.gateway);
    if (!n) return;
    for (uint32_t i = 0; i < s->view.prefills; i++) busy[i] = w[i].prefill_requests;
    if (!open_somewhere(s, busy)) return;
    price = (in_prefill + (double)n) / s->view.prefills;
    wait = fmax((sum + s->held_work) / s->view.prefills, 1e-6);
    for (size_t i = 0; i < n; i++) {
        double age = (double)(now - s->held[i].q->arrived) / SIM_SECOND;
        s->held[i].key = s->fcfs ? age : (1 + age / wait) / s->held[i].size;
    }
    for (size_t i = n / 2; i-- > 0;) sift(s->held, n, i);
    /* taken off the heap's front to its back, where those that stay are kept */
    size_t left = n, kept = n;
    while (left && open_somewhere(s, busy)) {
        struct waiting x = s->held[0];
        double         before_size = x.size;
        int            sent;
        s->held[0] = s->held[--left];
        if (left) sift(s->held, left, 0);
        sent = consider(s, &x, price);
        if (sent) {
            s->held_work -= before_size;
            s->n--;
        } else {
            s->held_work += x.size - before_size;
            s->held[--kept] = x;
        }
    }
    memmove(s->held + left, s->held + kept, (n - kept) * sizeof *s->held);
    if (!s->n) s->held_work = 0;
}

static void hold(struct reference *s, const sim_request *q, double size)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 256;
        s->held = realloc(s->held, s->cap * sizeof *s->held);
        if (!s->held) abort();
    }
    s->held[s->n++] = (struct waiting){q, size, 0};
    s->held_work += size;
}

/* Seconds a new request of this size would wait for the held ones in front of it. */
static double queue_ahead(const struct reference *s, double size)
{
    double sum = 0;
    if (s->local)
        for (size_t i = 0; i < s->n; i++)
            if (s->fcfs || s->held[i].size <= size) sum += s->held[i].size;
    return sum / s->view.prefills;
}

static void arrive(void *self, const sim_request *q)
{
    struct reference *s = self;
    double            in_prefill, size, price;
    uint32_t          w, d;
    begin_pass(s, &in_prefill);
    size = sizes(s, q);
    price = (in_prefill + (double)s->n + s->hold) / s->view.prefills;
    w = place(s, price);
    d = local(s, q, s->backlog[w] + s->view.rows[w].work_s + queue_ahead(s, size));
    if (d != SIM_NONE) {
        peer_view_send_local(&s->view, q, d);
    } else if (s->hold) {
        hold(s, q, size);
        pass(s);
    } else {
        send(s, q, w);
    }
}

static void prefill_done(void *self, const sim_request *q, uint32_t worker)
{
    struct reference *s = self;
    peer_view_done(&s->view, q, worker);
    pass(s);
}

const sim_chooser sim_reference_immediate = {
    .name = "reference-immediate",
    .settings = "local=0,local_tokens=4096",
    .about = "seconds with the mean queue's price, sent at once; not the library's code",
    .create = create_immediate, .destroy = destroy, .arrive = arrive, .prefill_done = prefill_done,
};
const sim_chooser sim_reference_held = {
    .name = "reference-held",
    .settings = "local=0,local_tokens=4096,order=size,batch=1",
    .about = "held in the router, by size with ageing, placed by the mean queue's price; not the library's code",
    .create = create_held, .destroy = destroy, .arrive = arrive, .prefill_done = prefill_done,
};
