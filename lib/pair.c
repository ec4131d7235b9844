#include "pair.h"

#include "least.h"

#include <string.h>

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

#define KEY_BARRED UINT64_MAX

/* One side, priced: how many candidates are possible, and the position of the best, PDR_NONE if none. */
typedef struct pdr_side {
    uint32_t possible, best;
} pdr_side;

/* Turns the costs of one list into keys and bars what cannot be used. */
static inline pdr_side price(const pdr_view *base, const pdr_registry *g, const uint32_t *list, uint32_t n, const pdr_policy *policy,
                             int decode, uint64_t *key, uint64_t *retry_ns)
{
    pdr_view v = *base;
    v.list = list;
    v.n = n;
    if (!n) return (pdr_side){0, PDR_NONE};
    (decode ? policy->decode : policy->prefill)(&v, key);
    const pdr_target *targets = v.targets;
    const uint32_t    excluded = v.job->excluded, now = g->head->pick;
    uint64_t          least = KEY_BARRED;
    uint32_t          best = PDR_NONE, barred = 0;
    for (uint32_t i = 0; i < n; i++) {
        const pdr_target *t = &targets[list[i]];
        if (__builtin_expect(t->guarded | excluded, 0) && pdr_barred(t, v.job, v.now_ns) != PDR_BARRED_NO) {
            key[i] = KEY_BARRED;
            barred++;
            if (t->open_until_ns > v.now_ns && (!*retry_ns || t->open_until_ns < *retry_ns)) *retry_ns = t->open_until_ns;
            continue;
        }
        uint64_t k = pdr_key_of(key[i], decode ? t->d_last_pick : t->last_pick, now);
        key[i] = k;
        best = k < least ? i : best;
        least = k < least ? k : least;
    }
    return (pdr_side){n - barred, best};
}

typedef struct pdr_best {
    uint64_t key;
    uint32_t p, d;    /* list positions */
    int      tier;
    uint64_t by_tier[4]; /* transfer time of this prompt as a key, nearest first, never falling */
} pdr_best;

static inline void consider(pdr_best *best, const pdr_scratch *s, uint32_t p, uint32_t d, int tier)
{
    if (p == PDR_NONE) return;
    uint64_t key = s->prefill_cost[p] + s->decode_cost[d] + best->by_tier[tier];
    if (key >= best->key) return;
    best->key = key;
    best->p = p;
    best->d = d;
    best->tier = tier;
}

static inline void keep_best(uint32_t *best, uint32_t i, const uint64_t *key)
{
    if (*best == PDR_NONE || key[i] < key[*best]) *best = i;
}

/*
 * A candidate from a group is priced as if it were just as near as the group says; where it is nearer it is in the nearer group as well, so the
 * minimum over the groups is exact.
 */
static void join_topology(const pdr_registry *g, const pdr_scratch *s, pdr_best *best)
{
    const pdr_registry_head *h = g->head;
    uint32_t                 all = PDR_NONE, nowhere = PDR_NONE; /* nowhere: those without a zone, in reach of every zone */
    memset(s->best_host, 0xFF, h->hosts * sizeof *s->best_host);
    memset(s->best_rack, 0xFF, h->racks * sizeof *s->best_rack);
    memset(s->best_zone, 0xFF, h->zones * sizeof *s->best_zone);
    for (uint32_t i = 0; i < h->prefill_n; i++) {
        if (s->prefill_cost[i] == KEY_BARRED) continue;
        const pdr_target *t = &g->targets[g->prefill[i]];
        keep_best(&all, i, s->prefill_cost);
        if (t->host != PDR_NO_GROUP) keep_best(&s->best_host[t->host], i, s->prefill_cost);
        if (t->rack != PDR_NO_GROUP) keep_best(&s->best_rack[t->rack], i, s->prefill_cost);
        keep_best(t->zone != PDR_NO_GROUP ? &s->best_zone[t->zone] : &nowhere, i, s->prefill_cost);
    }
    for (uint32_t i = 0; i < h->decode_n; i++) {
        if (s->decode_cost[i] == KEY_BARRED) continue;
        const pdr_target *t = &g->targets[g->decode[i]];
        if (t->host != PDR_NO_GROUP) consider(best, s, s->best_host[t->host], i, PDR_TIER_HOST);
        if (t->rack != PDR_NO_GROUP) consider(best, s, s->best_rack[t->rack], i, PDR_TIER_RACK);
        if (t->zone != PDR_NO_GROUP) {
            consider(best, s, s->best_zone[t->zone], i, PDR_TIER_ZONE);
            consider(best, s, nowhere, i, PDR_TIER_ZONE);
            consider(best, s, all, i, PDR_TIER_FAR);
        } else {
            consider(best, s, all, i, PDR_TIER_ZONE);
        }
    }
}

static void choose_single(const pdr_registry *g, const pdr_policy *policy, const pdr_view *v, const pdr_scratch *s, const uint32_t *list,
                          uint32_t n, int decode_only, pdr_choice *out)
{
    uint32_t best = PDR_NONE, possible = price(v, g, list, n, policy, 1, s->decode_cost, &out->retry_ns).possible;
    if (!possible) return;
    if (!decode_only) price(v, g, list, n, policy, 0, s->prefill_cost, &out->retry_ns);
    out->pairs += possible;
    for (uint32_t i = 0; i < n; i++) {
        if (s->decode_cost[i] == KEY_BARRED) continue;
        if (!decode_only) s->decode_cost[i] += s->prefill_cost[i];
        keep_best(&best, i, s->decode_cost);
    }
    uint64_t cost = s->decode_cost[best] >> PDR_TIE_BITS;
    if (cost >= out->cost) return;
    out->mode = PDR_MODE_SINGLE;
    out->prefill = PDR_NONE;
    out->decode = list[best];
    out->prefill_cost = decode_only ? 0 : s->prefill_cost[best] >> PDR_TIE_BITS;
    out->decode_cost = cost - out->prefill_cost;
    out->transfer_us = 0;
    out->cost = cost;
}

static void choose_pair(const pdr_registry *g, const pdr_policy *policy, const pdr_view *v, const pdr_scratch *s, pdr_choice *out)
{
    pdr_best best = {.key = UINT64_MAX};
    pdr_side p = price(v, g, g->prefill, g->head->prefill_n, policy, 0, s->prefill_cost, &out->retry_ns);
    pdr_side d = price(v, g, g->decode, g->head->decode_n, policy, 1, s->decode_cost, &out->retry_ns);
    out->pairs = (uint64_t)p.possible * d.possible;
    if (!out->pairs) return;
    for (int tier = 0; tier < 4; tier++) {
        uint64_t us = pdr_tier_us(v->rates, tier, v->job->prompt_tokens);
        best.by_tier[tier] = (us < PDR_KEY_COST_MOST ? us : PDR_KEY_COST_MOST) << PDR_TIE_BITS;
    }
    if (!policy->topology || (!g->head->hosts && !g->head->racks && !g->head->zones))
        consider(&best, s, p.best, d.best, PDR_TIER_ZONE); /* every transfer costs the same */
    else
        join_topology(g, s, &best);
    out->mode = PDR_MODE_PD;
    out->prefill = g->prefill[best.p];
    out->decode = g->decode[best.d];
    out->prefill_cost = s->prefill_cost[best.p] >> PDR_TIE_BITS;
    out->decode_cost = s->decode_cost[best.d] >> PDR_TIE_BITS;
    out->transfer_us = best.by_tier[best.tier] >> PDR_TIE_BITS;
    out->cost = out->prefill_cost + out->decode_cost + out->transfer_us;
}

int pdr_pair_apart(const pdr_registry *g, const pdr_policy *policy)
{
    const pdr_registry_head *h = g->head;
    if (policy != &pdr_policy_default || h->single_n) return 0;
    return pdr_near_known(g) ? PDR_APART_NEAR : PDR_APART_EVERYWHERE;
}

/* The cheapest decode, found by groups; how many are barred is only counted. */
typedef struct pdr_decode_found {
    uint64_t cost, key;
    uint32_t at, barred;
} pdr_decode_found;

/* What decoding costs there, as pdr_decode_us(): by the board. */
static inline uint64_t decode_us(uint64_t output, int64_t need, uint64_t step, uint64_t over, int64_t room)
{
    return output * step + over + (need > room ? (uint64_t)(need - room) * 100 : 0);
}

/* Bits of a group's servers with a guard; some may be beyond the last. */
static inline uint64_t guarded_in(const pdr_board *b, uint32_t group)
{
    uint32_t at = group * PDR_BOARD_GROUP;
    return b->guarded[at / 64] >> at % 64 & ((1u << PDR_BOARD_GROUP) - 1);
}

/* Of those of a group with the same cost the one that rested longest. */
static inline void look_at_level(pdr_decode_found *f, const pdr_registry *g, uint32_t at, uint64_t cost, uint32_t mask, int wide)
{
    pdr_rested x = pdr_rested_of(g->board.d_picked + at, g->head->pick, PDR_TIE_MOST, mask, wide);
    uint64_t   key = pdr_key(cost, x.since);
    if (key >= f->key) return; /* groups come in order */
    *f = (pdr_decode_found){cost, key, at + x.at, f->barred};
}

/* One group: its costs, up to PDR_KEY_COST_MOST; who is barred costs PDR_LEAST_NOBODY. Those with the least of them, if they are no dearer than what was found, are compared by their keys. */
static void look_at_group(pdr_decode_found *f, const pdr_registry *g, const pdr_view *v, uint32_t group, int wide)
{
    const pdr_board *b = &g->board;
    const uint32_t   at = group * PDR_BOARD_GROUP, n = g->head->decode_n - at < PDR_BOARD_GROUP ? g->head->decode_n - at : PDR_BOARD_GROUP;
    const uint64_t   output = v->job->output_tokens, *step = b->step_us.v + at, *over = b->over_us + at;
    const int64_t   *room = b->room + at, need = (int64_t)(v->job->prompt_tokens + output);
    uint64_t         cost[PDR_BOARD_GROUP];
    for (uint32_t i = 0; i < n; i++) {
        uint64_t us = step[i] < PDR_BOARD_STEP_MOST ? decode_us(output, need, step[i], over[i], room[i]) : pdr_decode_us(&g->targets[g->decode[at + i]], v->rates, v->job);
        cost[i] = us < PDR_KEY_COST_MOST ? us : PDR_KEY_COST_MOST;
    }
    for (uint32_t i = n; i < PDR_BOARD_GROUP; i++) cost[i] = PDR_LEAST_NOBODY;
    for (uint64_t bits = guarded_in(b, group); bits; bits &= bits - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(bits);
        if (i < n && g->targets[g->decode[at + i]].open_until_ns > v->now_ns) cost[i] = PDR_LEAST_NOBODY;
    }
    pdr_least x = pdr_least_of(cost, wide);
    if (x.value > f->cost || x.value == PDR_LEAST_NOBODY) return; /* keys are greater too */
    look_at_level(f, g, at, x.value, (uint32_t)x.mask, wide);
}

static pdr_decode_found find_decode(const pdr_registry *g, const pdr_view *v)
{
    const pdr_board *b = &g->board;
    const uint32_t   n = g->head->decode_n;
    const int        wide = pdr_least_is_wide();
    const uint64_t   output = v->job->output_tokens;
    const int64_t    need = (int64_t)(v->job->prompt_tokens + output);
    const int        bounded = output && output < 1u << 24; /* else products of it could wrap, and a bound of a wrapped number is none; with none all cost the same */
    pdr_decode_found f = {UINT64_MAX, UINT64_MAX, PDR_NONE, 0};
    for (uint32_t i = pdr_bits_next(b->guarded, 0, n); i < n; i = pdr_bits_next(b->guarded, i + 1, n)) f.barred += g->targets[g->decode[i]].open_until_ns > v->now_ns;
    for (uint32_t group = 0; group * PDR_BOARD_GROUP < n; group++) {
        uint64_t step = b->step_us.least[group];
        if (!bounded || step >= PDR_BOARD_STEP_MOST || b->most_room[group] < -(1ll << 50)) {
            look_at_group(&f, g, v, group, wide);
            continue;
        }
        uint64_t least = decode_us(output, need, step, b->least_over[group], b->most_room[group]);
        if ((least < PDR_KEY_COST_MOST ? least : PDR_KEY_COST_MOST) > f.cost) continue;
        /* without limits in reach the least step is the least cost */
        if (!b->most_over[group] && need <= b->least_room[group] && least < PDR_KEY_COST_MOST && !guarded_in(b, group))
            look_at_level(&f, g, group * PDR_BOARD_GROUP, least, b->step_us.mask[group], wide);
        else
            look_at_group(&f, g, v, group, wide);
    }
    return f;
}

int pdr_pair_with(const pdr_registry *g, const pdr_view *v, uint32_t prefill, uint64_t prefill_cost, uint32_t possible, pdr_choice *out)
{
    pdr_decode_found d = find_decode(g, v);
    *out = (pdr_choice){.mode = PDR_MODE_PD, .prefill = prefill, .decode = PDR_NONE, .prefill_cost = prefill_cost, .cost = UINT64_MAX};
    out->pairs = (uint64_t)possible * (g->head->decode_n - d.barred);
    if (!out->pairs || d.at == PDR_NONE) return PDR_E_NO_PAIR;
    uint64_t us = pdr_tier_us(v->rates, PDR_TIER_ZONE, v->job->prompt_tokens);
    out->decode = g->decode[d.at];
    out->decode_cost = d.cost;
    out->transfer_us = us < PDR_KEY_COST_MOST ? us : PDR_KEY_COST_MOST;
    out->cost = out->prefill_cost + out->decode_cost + out->transfer_us;
    return PDR_OK;
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
