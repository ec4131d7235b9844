#include "pair.h"

static int known_equal(uint32_t a, uint32_t b) { return a == b && a != PDR_NO_GROUP; }

/* Unknown topology counts as one zone: then every pair costs the same and topology decides nothing. */
int pdr_tier(const pdr_target *p, const pdr_target *d)
{
    if (known_equal(p->host, d->host)) return PDR_TIER_HOST;
    if (known_equal(p->rack, d->rack)) return PDR_TIER_RACK;
    if (p->zone == d->zone || p->zone == PDR_NO_GROUP || d->zone == PDR_NO_GROUP) return PDR_TIER_ZONE;
    return PDR_TIER_FAR;
}

uint64_t pdr_tier_us(const pdr_rates *k, int tier, uint64_t tokens)
{
    uint64_t mbps = tier == PDR_TIER_HOST ? k->mbps_host : tier == PDR_TIER_RACK ? k->mbps_rack : tier == PDR_TIER_ZONE ? k->mbps_zone : k->mbps_far;
    return pdr_transfer_us(k, tokens, mbps);
}

uint32_t pdr_barred(const pdr_target *t, const pdr_job *job, uint64_t now_ns)
{
    if (t->open_until_ns > now_ns) return PDR_BARRED_BREAKER;
    for (uint32_t i = 0; i < job->excluded; i++)
        if (job->exclude[i] == t->endpoint) return PDR_BARRED_EXCLUDED;
    return PDR_BARRED_NO;
}


/* Fills the costs of one list and bars what cannot be used. Returns how many are possible. */
static uint32_t price(const pdr_view *base, const uint32_t *list, uint32_t n, void (*score)(const pdr_view *, uint64_t *), uint64_t *cost,
                      uint64_t *retry_ns)
{
    pdr_view v = *base;
    uint32_t possible = 0;
    v.list = list;
    v.n = n;
    if (!n) return 0;
    score(&v, cost);
    for (uint32_t i = 0; i < n; i++) {
        const pdr_target *t = &v.targets[list[i]];
        if (__builtin_expect(pdr_barred(t, v.job, v.now_ns) != PDR_BARRED_NO, 0)) {
            cost[i] = PDR_COST_BARRED;
            if (t->open_until_ns > v.now_ns && (!*retry_ns || t->open_until_ns < *retry_ns)) *retry_ns = t->open_until_ns;
            continue;
        }
        if (cost[i] > PDR_COST_MAX) cost[i] = PDR_COST_MAX;
        possible++;
    }
    return possible;
}

/* Picks count up and may wrap; the difference to the present pick number is the age. */
static int older(uint32_t a, uint32_t b, uint32_t now) { return now - a > now - b; }

static void keep_best(uint32_t *best, uint32_t i, const uint64_t *cost, const pdr_registry *g)
{
    uint32_t b = *best;
    if (b == PDR_NONE || cost[i] < cost[b] ||
        (cost[i] == cost[b] && older(g->targets[g->prefill[i]].last_pick, g->targets[g->prefill[b]].last_pick, g->head->pick)))
        *best = i;
}

typedef struct pdr_best {
    uint64_t cost;
    uint32_t p, d;       /* list positions */
    uint64_t transfer;
    uint64_t by_tier[4]; /* transfer time of this prompt, nearest first, never falling */
} pdr_best;

static void consider(pdr_best *best, uint32_t p, uint32_t d, const pdr_registry *g, const pdr_scratch *s)
{
    if (p == PDR_NONE) return;
    uint64_t sum = s->prefill_cost[p] + s->decode_cost[d];
    if (sum + best->by_tier[PDR_TIER_HOST] > best->cost) return; /* not even side by side */
    const pdr_target *tp = &g->targets[g->prefill[p]], *td = &g->targets[g->decode[d]];
    uint64_t          transfer = best->by_tier[pdr_tier(tp, td)], cost = sum + transfer;
    if (cost > best->cost) return;
    if (cost == best->cost) {
        uint32_t bp = g->targets[g->prefill[best->p]].last_pick, bd = g->targets[g->decode[best->d]].d_last_pick, now = g->head->pick;
        if (older(bp, tp->last_pick, now)) return;
        if (bp == tp->last_pick && !older(td->d_last_pick, bd, now)) return;
    }
    best->cost = cost;
    best->p = p;
    best->d = d;
    best->transfer = transfer;
}

/* Without any topology every transfer costs the same: the best of each side. */
static void join_flat(const pdr_registry *g, const pdr_scratch *s, pdr_best *best)
{
    uint32_t p = PDR_NONE, d = PDR_NONE;
    for (uint32_t i = 0; i < g->head->prefill_n; i++)
        if (s->prefill_cost[i] != PDR_COST_BARRED) keep_best(&p, i, s->prefill_cost, g);
    for (uint32_t i = 0; i < g->head->decode_n; i++) {
        if (s->decode_cost[i] == PDR_COST_BARRED) continue;
        if (d == PDR_NONE || s->decode_cost[i] < s->decode_cost[d] ||
            (s->decode_cost[i] == s->decode_cost[d] &&
             older(g->targets[g->decode[i]].d_last_pick, g->targets[g->decode[d]].d_last_pick, g->head->pick)))
            d = i;
    }
    if (p != PDR_NONE && d != PDR_NONE) consider(best, p, d, g, s);
}

static void join_topology(const pdr_registry *g, const pdr_scratch *s, pdr_best *best)
{
    const pdr_registry_head *h = g->head;
    uint32_t                 all = PDR_NONE;
    for (uint32_t i = 0; i < h->hosts; i++) s->best_host[i] = PDR_NONE;
    for (uint32_t i = 0; i < h->racks; i++) s->best_rack[i] = PDR_NONE;
    for (uint32_t i = 0; i < h->zones; i++) s->best_zone[i] = PDR_NONE;
    /* a prefill without a zone is in reach of every zone, so it competes in each: its own group, number h->zones */
    uint32_t nowhere = PDR_NONE;
    for (uint32_t i = 0; i < h->prefill_n; i++) {
        if (s->prefill_cost[i] == PDR_COST_BARRED) continue;
        const pdr_target *t = &g->targets[g->prefill[i]];
        keep_best(&all, i, s->prefill_cost, g);
        if (t->host != PDR_NO_GROUP) keep_best(&s->best_host[t->host], i, s->prefill_cost, g);
        if (t->rack != PDR_NO_GROUP) keep_best(&s->best_rack[t->rack], i, s->prefill_cost, g);
        keep_best(t->zone != PDR_NO_GROUP ? &s->best_zone[t->zone] : &nowhere, i, s->prefill_cost, g);
    }
    for (uint32_t i = 0; i < h->decode_n; i++) {
        if (s->decode_cost[i] == PDR_COST_BARRED) continue;
        const pdr_target *t = &g->targets[g->decode[i]];
        if (t->host != PDR_NO_GROUP) consider(best, s->best_host[t->host], i, g, s);
        if (t->rack != PDR_NO_GROUP) consider(best, s->best_rack[t->rack], i, g, s);
        if (t->zone != PDR_NO_GROUP) consider(best, s->best_zone[t->zone], i, g, s);
        consider(best, nowhere, i, g, s);
        consider(best, all, i, g, s);
    }
}

static void choose_single(const pdr_registry *g, const pdr_policy *policy, const pdr_view *v, const pdr_scratch *s, const uint32_t *list,
                          uint32_t n, int decode_only, pdr_choice *out)
{
    uint32_t best = PDR_NONE, possible;
    possible = price(v, list, n, policy->decode, s->decode_cost, &out->retry_ns);
    if (!possible) return;
    if (!decode_only) price(v, list, n, policy->prefill, s->prefill_cost, &out->retry_ns);
    out->pairs += possible;
    for (uint32_t i = 0; i < n; i++) {
        if (s->decode_cost[i] == PDR_COST_BARRED) continue;
        if (!decode_only) s->decode_cost[i] += s->prefill_cost[i];
        if (best == PDR_NONE || s->decode_cost[i] < s->decode_cost[best] ||
            (s->decode_cost[i] == s->decode_cost[best] &&
             older(g->targets[list[i]].d_last_pick, g->targets[list[best]].d_last_pick, g->head->pick)))
            best = i;
    }
    if (s->decode_cost[best] >= out->cost) return;
    out->mode = PDR_MODE_SINGLE;
    out->prefill = PDR_NONE;
    out->decode = list[best];
    out->prefill_cost = decode_only ? 0 : s->prefill_cost[best];
    out->decode_cost = s->decode_cost[best] - out->prefill_cost;
    out->transfer_us = 0;
    out->cost = s->decode_cost[best];
}

static void choose_pair(const pdr_registry *g, const pdr_policy *policy, const pdr_view *v, const pdr_scratch *s, pdr_choice *out)
{
    pdr_best best = {.cost = UINT64_MAX};
    uint64_t p = price(v, g->prefill, g->head->prefill_n, policy->prefill, s->prefill_cost, &out->retry_ns);
    uint64_t d = price(v, g->decode, g->head->decode_n, policy->decode, s->decode_cost, &out->retry_ns);
    out->pairs = p * d;
    if (!p || !d) return;
    for (int tier = 0; tier < 4; tier++) best.by_tier[tier] = pdr_tier_us(v->rates, tier, v->job->prompt_tokens);
    if (!policy->topology || (!g->head->hosts && !g->head->racks && !g->head->zones))
        join_flat(g, s, &best);
    else
        join_topology(g, s, &best);
    out->mode = PDR_MODE_PD;
    out->prefill = g->prefill[best.p];
    out->decode = g->decode[best.d];
    out->prefill_cost = s->prefill_cost[best.p];
    out->decode_cost = s->decode_cost[best.d];
    out->transfer_us = best.transfer;
    out->cost = best.cost;
}

int pdr_pair_choose(const pdr_registry *g, const pdr_policy *policy, const pdr_view *view, const pdr_scratch *s, int single_only,
                    int any_single, pdr_choice *out)
{
    *out = (pdr_choice){.prefill = PDR_NONE, .decode = PDR_NONE, .cost = UINT64_MAX};
    if (!single_only && !any_single) choose_pair(g, policy, view, s, out);
    choose_single(g, policy, view, s, g->single, g->head->single_n, any_single, out);
    if (any_single) choose_single(g, policy, view, s, g->decode, g->head->decode_n, 1, out);
    if (any_single && out->decode == PDR_NONE) choose_single(g, policy, view, s, g->prefill, g->head->prefill_n, 1, out);
    return out->decode == PDR_NONE ? PDR_E_NO_PAIR : PDR_OK;
}
