#include "peer_formulas.h"

#include <math.h>
#include <stddef.h>

uint32_t peer_random(uint64_t *state, uint32_t n)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (uint32_t)((z >> 32) * n >> 32);
}

/* Least cost; then least `second` (may be NULL), then the least recently used, then the first. */
static uint32_t least(const struct peer_case *c, const double *cost, const double *second)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < c->n; i++) {
        double d = cost[i] - cost[best];
        if (isinf(cost[i]) && isinf(cost[best])) d = 0;
        if (d == 0 && second) d = second[i] - second[best];
        if (d < 0 || (d == 0 && c->w[i].turn < c->w[best].turn)) best = i;
    }
    return best;
}

uint32_t peer_least_requests(const struct peer_case *c, double *cost)
{
    for (uint32_t i = 0; i < c->n; i++) cost[i] = c->w[i].requests;
    return least(c, cost, NULL);
}

uint32_t peer_least_tokens(const struct peer_case *c, double *cost)
{
    for (uint32_t i = 0; i < c->n; i++) cost[i] = c->w[i].pending;
    return least(c, cost, NULL);
}

uint32_t peer_power_of_two(const struct peer_case *c, double *cost)
{
    uint32_t a = peer_random(c->random, c->n), b = c->n > 1 ? peer_random(c->random, c->n - 1) : 0;
    if (c->n > 1 && b >= a) b++;
    for (uint32_t i = 0; i < c->n; i++) cost[i] = i == a || i == b ? c->w[i].requests : INFINITY;
    return c->w[b].requests < c->w[a].requests ? b : a;
}

uint32_t peer_any(const struct peer_case *c, double *cost)
{
    uint32_t w = peer_random(c->random, c->n);
    for (uint32_t i = 0; i < c->n; i++) cost[i] = i != w;
    return w;
}

static void range(const struct peer_case *c, double *lo, double *hi)
{
    *lo = INFINITY, *hi = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        *lo = fmin(*lo, c->w[i].requests);
        *hi = fmax(*hi, c->w[i].requests);
    }
}

uint32_t peer_cache_aware(const struct peer_case *c, double threshold, double abs, double rel, double *cost)
{
    double   lo, hi;
    uint32_t best = 0;
    range(c, &lo, &hi);
    if (hi - lo > abs && hi > rel * lo) return peer_least_requests(c, cost);
    for (uint32_t i = 1; i < c->n; i++) {
        double d = c->w[i].matched - c->w[best].matched;
        if (d == 0) d = c->w[best].requests - c->w[i].requests;
        if (d > 0 || (d == 0 && c->w[i].turn < c->w[best].turn)) best = i;
    }
    if (c->prompt <= 0 || c->w[best].matched / c->prompt <= threshold) return peer_least_requests(c, cost);
    for (uint32_t i = 0; i < c->n; i++) cost[i] = -c->w[i].matched / c->prompt;
    return best;
}

uint32_t peer_dynamo(const struct peer_case *c, double credit, double *cost)
{
    for (uint32_t i = 0; i < c->n; i++) cost[i] = fmax(c->w[i].pending + c->prompt - credit * c->w[i].matched, 0);
    return least(c, cost, NULL);
}

int peer_dynamo_busy(const struct peer_worker *w, uint32_t n, double threshold, double batch)
{
    for (uint32_t i = 0; i < n; i++)
        if (w[i].pending <= threshold * batch) return 0;
    return 1;
}

double peer_wspt_key(double prompt, double best_matched) { return 1 / fmax(prompt - best_matched, 1); }

uint32_t peer_blend(const struct peer_case *c, double prefix, double queue, double kv, double *cost)
{
    double lo, hi;
    range(c, &lo, &hi);
    for (uint32_t i = 0; i < c->n; i++) {
        const struct peer_worker *w = &c->w[i];
        double                    p = c->prompt > 0 ? w->matched / c->prompt : 0, q = hi > lo ? (hi - w->requests) / (hi - lo) : 1;
        cost[i] = -(prefix * p + queue * q + kv * (1 - w->kv_used));
    }
    return least(c, cost, NULL);
}

uint32_t peer_sticky(const struct peer_case *c, double match, double tau, double *cost)
{
    uint32_t all, near = PEER_NOBODY;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct peer_worker *w = &c->w[i];
        cost[i] = w->pending + c->prompt - w->matched;
        if (w->matched < match * c->prompt) continue;
        if (near == PEER_NOBODY || cost[i] < cost[near] || (cost[i] == cost[near] && w->turn < c->w[near].turn)) near = i;
    }
    all = least(c, cost, NULL);
    return near != PEER_NOBODY && cost[near] - cost[all] <= tau ? near : all;
}

uint32_t peer_lmetric(const struct peer_case *c, double *cost)
{
    for (uint32_t i = 0; i < c->n; i++) {
        const struct peer_worker *w = &c->w[i];
        cost[i] = (w->pending + c->prompt - w->matched) * (w->requests + 1);
    }
    return least(c, cost, NULL);
}

uint32_t peer_aibrix(const struct peer_case *c, double spread, double *cost)
{
    double   lo, hi, sum = 0, squares = 0, limit;
    uint32_t best = PEER_NOBODY;
    range(c, &lo, &hi);
    if (hi - lo > spread) return peer_least_requests(c, cost);
    for (uint32_t i = 0; i < c->n; i++) sum += c->w[i].requests, squares += c->w[i].requests * c->w[i].requests;
    sum /= c->n, squares /= c->n;
    limit = sum + sqrt(fmax(squares - sum * sum, 0)) + 1e-6; /* rounding must bar nobody */
    for (uint32_t i = 0; i < c->n; i++) {
        const struct peer_worker *w = &c->w[i];
        if (w->matched <= 0 || w->requests > limit) continue;
        if (best != PEER_NOBODY) {
            double d = w->matched - c->w[best].matched;
            if (d == 0) d = c->w[best].requests - w->requests;
            if (d < 0 || (d == 0 && w->turn >= c->w[best].turn)) continue;
        }
        best = i;
    }
    if (best == PEER_NOBODY) return peer_least_requests(c, cost);
    for (uint32_t i = 0; i < c->n; i++) cost[i] = c->w[i].requests > limit ? INFINITY : -c->w[i].matched;
    return best;
}

uint32_t peer_seconds(const struct peer_case *c, double price, double *cost)
{
    for (uint32_t i = 0; i < c->n; i++) cost[i] = c->w[i].wait_s + c->w[i].work_s * (1 + price);
    return least(c, cost, NULL);
}
