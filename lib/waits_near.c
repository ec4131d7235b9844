#include "waits_near.h"

#define NOBODY PDR_LEAST_NOBODY

static uint64_t capped(uint64_t us) { return us < PDR_KEY_COST_MOST ? us : PDR_KEY_COST_MOST; }

/* What decoding costs at one server, as pdr_decode_us(); NOBODY: it is barred. */
static uint64_t member_us(const pdr_near_look *l, uint32_t i)
{
    const pdr_board *b = &l->g->board;
    const uint64_t   step = b->step_us.v[i];
    if (__builtin_expect(b->guarded[i / 64] >> i % 64 & 1, 0) && l->g->targets[l->g->decode[i]].open_until_ns > l->v->now_ns) return NOBODY;
    if (step >= PDR_BOARD_STEP_MOST) return capped(pdr_decode_us(&l->g->targets[l->g->decode[i]], l->v->rates, l->v->job));
    return capped(l->output * step + b->over_us[i] + (l->need > b->room[i] ? (uint64_t)(l->need - b->room[i]) * 100 : 0));
}

static inline uint32_t member_of(const pdr_near_look *l, uint32_t group, uint32_t k)
{
    return group == pdr_near_all(&l->g->near) ? k : l->g->near.members[l->g->near.groups[group].first + k];
}

static __attribute__((noinline)) uint64_t ask_members(const pdr_near_look *l, uint32_t group)
{
    pdr_near_group *x = &l->g->near.groups[group];
    if (x->stale) pdr_near_renew(l->g, group);
    if (l->within <= x->room) return capped(l->output * x->step);
    if (x->look == l->nth) return x->cost;
    x->cost = NOBODY;
    for (uint32_t k = 0; k < x->n; k++) {
        uint64_t us = member_us(l, member_of(l, group, k));
        x->cost = us < x->cost ? us : x->cost;
    }
    x->look = l->nth;
    return x->cost;
}

/* The least decode cost in a group; NOBODY: there is nobody. */
static inline uint64_t group_us(const pdr_near_look *l, uint32_t group)
{
    const pdr_near_group *x = &l->g->near.groups[group];
    return __builtin_expect(l->within <= x->room, 1) ? capped(l->output * x->step) : ask_members(l, group);
}

static inline uint64_t less(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* Decode and transfer for one prefill. A group prices a server as if it were only as near as the group says; where it is nearer it is in the nearer group as well. */
static __attribute__((noinline)) uint64_t ask_rest(const pdr_near_look *l, const pdr_target *t)
{
    const pdr_near *n = &l->g->near;
    uint64_t        us = l->all + l->by_tier[t->zone == PDR_NO_GROUP ? PDR_TIER_ZONE : PDR_TIER_FAR];
    if (t->zone != PDR_NO_GROUP) us = less(us, less(group_us(l, pdr_near_zone(n, t->zone)), l->nowhere) + l->by_tier[PDR_TIER_ZONE]);
    if (t->rack != PDR_NO_GROUP) us = less(us, group_us(l, pdr_near_rack(n, t->rack)) + l->by_tier[PDR_TIER_RACK]);
    if (t->host != PDR_NO_GROUP) us = less(us, group_us(l, t->host) + l->by_tier[PDR_TIER_HOST]);
    return us;
}

/* The same where all places are known and have room: products only. A sum that needs no cap is the least one without caps, too. */
static inline uint64_t rest_us(const pdr_near_look *l, const pdr_target *t)
{
    if (__builtin_expect((t->zone == PDR_NO_GROUP) | (t->rack == PDR_NO_GROUP) | (t->host == PDR_NO_GROUP), 0)) return ask_rest(l, t);
    const pdr_near_group *host = l->hosts + t->host, *rack = l->racks + t->rack, *zone = l->zones + t->zone;
    if (__builtin_expect((l->within > host->room) | (l->within > rack->room) | (l->within > zone->room), 0)) return ask_rest(l, t);
    uint64_t us = less(l->output * host->step + l->by_tier[PDR_TIER_HOST], l->output * rack->step + l->by_tier[PDR_TIER_RACK]);
    us = less(us, l->output * zone->step + l->by_tier[PDR_TIER_ZONE]);
    us = less(us, l->elsewhere);
    return __builtin_expect(us < PDR_KEY_COST_MOST, 1) ? us : ask_rest(l, t);
}

static void begin_look(pdr_near_look *l, const pdr_registry *g, const pdr_view *v)
{
    const uint64_t tokens = v->job->prompt_tokens, output = v->job->output_tokens, mbps[4] = {v->rates->mbps_host, v->rates->mbps_rack, v->rates->mbps_zone, v->rates->mbps_far};
    l->g = g;
    l->v = v;
    l->nth = ++g->head->near_looks;
    l->output = output;
    l->need = (int64_t)(tokens + output);
    l->within = output < 1u << 24 ? l->need : INT64_MAX; /* products of more could wrap */
    for (int tier = 0; tier < 4; tier++) l->by_tier[tier] = tier && mbps[tier] == mbps[tier - 1] ? l->by_tier[tier - 1] : capped(pdr_transfer_us(v->rates, tokens, mbps[tier]));
    l->all = group_us(l, pdr_near_all(&g->near));
    l->nowhere = group_us(l, pdr_near_nowhere(&g->near));
    l->least = l->all + l->by_tier[PDR_TIER_HOST];
    l->elsewhere = less(l->all + l->by_tier[PDR_TIER_FAR], l->nowhere + l->by_tier[PDR_TIER_ZONE]);
    l->hosts = g->near.groups;
    l->racks = l->hosts + pdr_near_rack(&g->near, 0);
    l->zones = l->hosts + pdr_near_zone(&g->near, 0);
}

/* Which decode of those that make up the least cost, and its tie bits. */
typedef struct tied { uint64_t tie; uint32_t decode, order; } tied;

static void look_in(const pdr_near_look *l, tied *best, uint32_t group, uint64_t us, const pdr_target *p)
{
    const pdr_registry   *g = l->g;
    const pdr_near_group *x = &g->near.groups[group];
    const int             by_step = l->within <= x->room && l->output; /* then only those with the least step cost the least */
    for (uint32_t k = 0, n = x->n; k < n; k++) {
        uint32_t i = member_of(l, group, k), order = 0;
        if (by_step ? g->board.step_us.v[i] != x->step && us < PDR_KEY_COST_MOST : member_us(l, i) != us) continue;
        uint64_t tie = pdr_key_of(0, g->board.d_picked[i], g->head->pick);
        if (tie > best->tie) continue;
        if (group == pdr_near_all(&g->near))
            order = p->zone != PDR_NO_GROUP ? 4 : g->targets[g->decode[i]].zone != PDR_NO_GROUP ? 3 : 2;
        else if (group >= g->near.stride)
            order = group < 2 * g->near.stride ? 1 : 2;
        if (tie == best->tie && (i > best->decode || (i == best->decode && order > best->order))) continue;
        *best = (tied){tie, i, order};
    }
}

static tied tell_apart(const pdr_near_look *l, uint32_t at, uint64_t rest)
{
    const pdr_near   *n = &l->g->near;
    const pdr_target *p = &l->g->targets[l->g->prefill[at]];
    tied              best = {UINT64_MAX, PDR_NONE, 0};
    struct { uint32_t group; int tier; } look[5];
    uint32_t looks = 0;
    if (p->host != PDR_NO_GROUP) look[looks].group = p->host, look[looks++].tier = PDR_TIER_HOST;
    if (p->rack != PDR_NO_GROUP) look[looks].group = pdr_near_rack(n, p->rack), look[looks++].tier = PDR_TIER_RACK;
    if (p->zone != PDR_NO_GROUP) {
        look[looks].group = pdr_near_zone(n, p->zone), look[looks++].tier = PDR_TIER_ZONE;
        look[looks].group = pdr_near_nowhere(n), look[looks++].tier = PDR_TIER_ZONE;
    }
    look[looks].group = pdr_near_all(n), look[looks++].tier = p->zone == PDR_NO_GROUP ? PDR_TIER_ZONE : PDR_TIER_FAR;
    for (uint32_t i = 0; i < looks; i++) {
        uint64_t us = group_us(l, look[i].group);
        if (us != NOBODY && us + l->by_tier[look[i].tier] == rest) look_in(l, &best, look[i].group, us, p);
    }
    best.tie += pdr_key_of(0, l->g->board.picked[at], l->g->head->pick);
    return best;
}

static void know(pdr_near_best *f)
{
    if (f->known) return;
    tied x = tell_apart(&f->look, f->at, f->total - f->prefill_us);
    f->tie = x.tie;
    f->decode = x.decode;
    f->order = x.order;
    f->known = 1;
}

static void compare_equal(pdr_near_best *f, uint64_t us, uint32_t at)
{
    if (at == f->at) return;
    know(f);
    tied x = tell_apart(&f->look, at, f->total - us);
    if (x.tie != f->tie ? x.tie > f->tie : x.decode != f->decode ? x.decode > f->decode : x.order != f->order ? x.order > f->order : at > f->at) return;
    f->prefill_us = us;
    f->at = at;
    f->tie = x.tie;
    f->decode = x.decode;
    f->order = x.order;
}

static inline void offer(pdr_near_best *f, uint64_t us, uint32_t at)
{
    us = capped(us);
    if (us + f->look.least > f->total) return;
    uint64_t total = us + rest_us(&f->look, &f->look.g->targets[f->look.g->prefill[at]]);
    if (total > f->total) return;
    if (__builtin_expect(total == f->total, 0)) {
        compare_equal(f, us, at);
        return;
    }
    f->total = total;
    f->prefill_us = us;
    f->at = at;
    f->known = 0;
}

/* With a longer wait it costs more than the best, if the rest is `more` at least. */
static inline uint64_t most_us(const pdr_near_best *f, uint64_t more)
{
    if (__builtin_expect(f->total >= PDR_KEY_COST_MOST, 0)) return PDR_WAIT_BARRED - 1; /* costs are capped */
    return f->total >= more ? f->total - more : 0;
}

static void offer_holders(pdr_near_best *f, const pdr_waits *w, const uint32_t *holders, uint32_t holding)
{
    const pdr_registry *g = f->look.g;
    const pdr_view     *v = f->look.v;
    uint64_t            pool = 0, price = 0;
    for (uint32_t i = 0, last = 0; i < holding; i++) {
        uint32_t target = holders[i], at, depth = v->depth[target], slow = g->targets[target].slowness_q10;
        if (!g->listed[target] || w->us.v[at = g->board.place[target]] == PDR_WAIT_BARRED) continue;
        if (depth != last) { /* holders often hold the same */
            uint64_t matched = pdr_matched_tokens(v->job, depth);
            pool = pdr_prefill_us(v->rates, v->job->prompt_tokens - matched, matched);
            price = pool * v->mean_queue_q10 >> 10;
            last = depth;
        }
        offer(f, w->us.v[at] + pdr_scale_q10(pool, slow) + pdr_price_at(price, slow), at);
    }
}

/* Of those who hold nothing of it, one group. `more`: the rest there at least. */
static void offer_group(pdr_near_best *f, const pdr_waits *w, uint32_t group, uint64_t cold, uint64_t price, uint64_t more)
{
    const pdr_registry *g = f->look.g;
    const uint16_t     *depth = f->look.v->depth;
    const uint64_t     *us = w->us.v;
    const uint32_t     *list = g->prefill, from = group * PDR_WAIT_GROUP;
    uint64_t            most = most_us(f, more), total = f->total;
    for (uint32_t mask = pdr_below(us + from, most, w->wide); mask; mask &= mask - 1) { /* who is barred or not there is above */
        uint32_t i = from + (uint32_t)__builtin_ctz(mask);
        if (us[i] > most || depth[list[i]]) continue;
        uint32_t slow = g->board.slow[i];
        offer(f, us[i] + (w->even ? cold + price : pdr_scale_q10(cold, slow) + pdr_price_at(price, slow)), i);
        if (f->total == total) continue;
        total = f->total;
        most = most_us(f, more);
    }
}

static void offer_groups(pdr_near_best *f, const pdr_waits *w, uint64_t cold)
{
    const uint64_t *least = w->us.least, price = cold * f->look.v->mean_queue_q10 >> 10, even = cold + price + f->look.least;
    const uint32_t  groups = pdr_wait_groups(f->look.g->head->prefill_n);
    uint64_t        most = most_us(f, even);
    for (uint32_t group = 0; group < groups; group++) {
        uint64_t more = even;
        if (!w->even) {
            more = pdr_scale_q10(cold, w->slow[group] & 0xFFFF) + pdr_price_at(price, w->slow[group] >> 16) + f->look.least;
            most = most_us(f, more);
        }
        if (least[group] > most) continue; /* all barred, too */
        offer_group(f, w, group, cold, price, more);
        most = most_us(f, even);
    }
}

pdr_wait_best pdr_near_choose(pdr_waits *w, const pdr_registry *g, const pdr_view *v, const uint32_t *holders, uint32_t holding, pdr_near_best *f)
{
    const pdr_job *job = v->job;
    const uint64_t cold = pdr_prefill_us(v->rates, job->prompt_tokens, 0);
    pdr_wait_best  best = {.target = PDR_NONE};
    begin_look(&f->look, g, v);
    f->total = UINT64_MAX;
    f->at = PDR_NONE;
    if (f->look.all == NOBODY) return best;
    if (w->even && pdr_waits_first(w, g) != PDR_NONE && !v->depth[g->prefill[w->first]]) /* a good one first, then few others may be better */
        offer(f, w->us.v[w->first] + cold + (cold * v->mean_queue_q10 >> 10), w->first);
    offer_holders(f, w, holders, holding);
    offer_groups(f, w, cold);
    if (f->at == PDR_NONE) return best;
    best.target = g->prefill[f->at];
    best.cost = f->prefill_us;
    best.terms.matched = pdr_matched_tokens(job, v->depth[best.target]);
    best.terms.uncached = job->prompt_tokens - best.terms.matched;
    uint64_t pool = best.terms.matched ? pdr_prefill_us(v->rates, best.terms.uncached, best.terms.matched) : cold;
    best.terms.work = pdr_scale_q10(pool, g->targets[best.target].slowness_q10);
    return best;
}

void pdr_near_pair(pdr_near_best *f, uint32_t possible, pdr_choice *out)
{
    const pdr_near_look *l = &f->look;
    const pdr_registry  *g = l->g;
    const uint32_t       n = g->head->decode_n;
    uint32_t             barred = 0;
    know(f);
    for (uint32_t i = pdr_bits_next(g->board.guarded, 0, n); i < n; i = pdr_bits_next(g->board.guarded, i + 1, n)) barred += g->targets[g->decode[i]].open_until_ns > l->v->now_ns;
    *out = (pdr_choice){.mode = PDR_MODE_PD, .prefill = g->prefill[f->at], .decode = g->decode[f->decode], .prefill_cost = f->prefill_us, .cost = f->total};
    out->pairs = (uint64_t)possible * (n - barred);
    out->decode_cost = member_us(l, f->decode);
    out->transfer_us = f->total - f->prefill_us - out->decode_cost;
}
