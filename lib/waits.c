#include "waits.h"

uint32_t pdr_wait_groups(uint32_t targets) { return (targets + PDR_WAIT_GROUP - 1) / PDR_WAIT_GROUP; }

static inline int barred(const pdr_target *t, uint64_t now_ns) { return __builtin_expect(t->open_until_ns > now_ns, 0) && t->guarded; }

/* Those of whom the end of their work does not say all; the groups' least is found again. */
static void begin_odd(pdr_waits *w, const pdr_registry *g, uint64_t now_ns)
{
    const uint32_t n = g->head->prefill_n;
    for (uint32_t i = pdr_bits_next(g->board.odd, 0, n); i < n; i = pdr_bits_next(g->board.odd, i + 1, n)) {
        const pdr_target *t = &g->targets[g->prefill[i]];
        uint64_t          wait = pdr_wait_us(t, now_ns);
        w->sum_us += wait - w->us.v[i];
        w->us.v[i] = wait;
        if (barred(t, now_ns)) {
            w->us.v[i] = PDR_WAIT_BARRED;
            w->possible--;
            w->idle -= !t->requests;
        }
        pdr_groups_renew(&w->us, i / PDR_WAIT_GROUP, w->wide);
    }
}

static void begin_uneven(pdr_waits *w, const pdr_registry *g)
{
    const uint32_t n = g->head->prefill_n, *slow = g->board.slow;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *at = &w->slow[i / PDR_WAIT_GROUP];
        if (i % PDR_WAIT_GROUP == 0)
            *at = slow[i] | slow[i] << 16;
        else
            *at = (slow[i] < (*at & 0xFFFF) ? slow[i] : *at & 0xFFFF) | (slow[i] > *at >> 16 ? slow[i] : *at >> 16) << 16;
    }
}

void pdr_waits_begin(pdr_waits *w, const pdr_registry *g, uint64_t now_ns)
{
    uint64_t *const us = w->us.v;
    const uint32_t  n = g->head->prefill_n;
    w->possible = n;
    w->idle = g->head->idle; /* here no others are listed */
    w->decode = w->decodes = w->touched_n = 0;
    w->first = PDR_NONE;
    w->even = !g->head->board.uneven;
    w->wide = pdr_least_is_wide();
    w->sum_us = pdr_board_waits(g->board.end, n, pdr_board_time(now_ns, 0), PDR_OVERDUE_MAX_US, us, w->wide);
    for (uint32_t i = n; i % PDR_WAIT_GROUP; i++) us[i] = PDR_WAIT_BARRED;
    for (uint32_t group = 0; group < pdr_wait_groups(n); group++) pdr_groups_renew(&w->us, group, w->wide);
    begin_odd(w, g, now_ns);
    if (!w->even) begin_uneven(w, g);
}

void pdr_waits_renew(pdr_waits *w, const pdr_registry *g, uint32_t target, uint64_t planned_us, uint64_t now_ns)
{
    const pdr_target *t = &g->targets[target];
    uint32_t          at = g->board.place[target];
    int               was = w->us.v[at] != PDR_WAIT_BARRED, is = !barred(t, now_ns);
    w->possible = w->possible + (uint32_t)is - (uint32_t)was;
    w->first = PDR_NONE; /* a pick changes who rested longest */
    pdr_waits_change(w, at, pdr_wait_us(t, now_ns) + planned_us);
    if (is) return;
    w->us.v[at] = PDR_WAIT_BARRED;
    pdr_groups_renew(&w->us, at / PDR_WAIT_GROUP, w->wide);
}

int pdr_waits_decode_after(pdr_waits *w, const pdr_registry *g, uint64_t now_ns)
{
    while (w->decode < g->head->decode_n && barred(&g->targets[g->decode[w->decode]], now_ns)) w->decode++;
    return (int)(w->decodes = w->decode < g->head->decode_n);
}

/* Of those with the same least wait who rested longest. */
static uint32_t first_of_level(const pdr_waits *w, const pdr_registry *g, uint32_t group)
{
    const uint32_t groups = pdr_wait_groups(g->head->prefill_n), pick = g->head->pick;
    const uint64_t least = w->us.least[group];
    uint32_t       best = PDR_NONE, rested = 0;
    for (; group < groups; group++) {
        if (w->us.least[group] != least) continue;
        pdr_rested x = pdr_rested_of(g->board.picked + group * PDR_WAIT_GROUP, pick, PDR_TIE_MOST, w->us.mask[group], w->wide);
        if (best != PDR_NONE && x.since <= rested) continue;
        best = group * PDR_WAIT_GROUP + x.at;
        rested = x.since;
    }
    return best;
}

/* Where all speeds are equal: who has the least wait, of equal ones who rested longest. Kept until a change may matter. PDR_NONE: all are barred. */
static inline uint32_t find_first(const pdr_waits *w, const pdr_registry *g)
{
    int      level;
    uint32_t group = pdr_groups_first(&w->us, pdr_wait_groups(g->head->prefill_n), &level);
    if (w->us.least[group] == PDR_WAIT_BARRED) return PDR_NONE;
    return level ? first_of_level(w, g, group) : group * PDR_WAIT_GROUP + (uint32_t)__builtin_ctz(w->us.mask[group]);
}

uint32_t pdr_waits_find(const pdr_waits *w, const pdr_registry *g) { return find_first(w, g); }

/* The best so far. */
typedef struct found {
    uint64_t cost, key;
    uint32_t at;
} found;

static inline void offer(found *f, const pdr_target *t, uint64_t us, uint32_t at, uint32_t pick)
{
    us = us < PDR_KEY_COST_MOST ? us : PDR_KEY_COST_MOST;
    if (us > f->cost) return; /* its key is greater too */
    uint64_t key = pdr_key_of(us, t->last_pick, pick);
    if (key > f->key || (key == f->key && at > f->at)) return;
    *f = (found){us, key, at};
}

/* With a longer wait it costs more than `cost`, if the rest is `more` at least. */
static inline uint64_t most_us(uint64_t cost, uint64_t more) { return cost < PDR_KEY_COST_MOST ? cost - more : PDR_WAIT_BARRED - 1; }

/* Of those who hold nothing of it, priced group by group. */
static void offer_groups(found *f, const pdr_waits *w, const pdr_registry *g, const pdr_view *v, uint64_t cold, uint64_t price)
{
    const uint64_t   *us = w->us.v;
    const uint32_t    pick = g->head->pick, n = g->head->prefill_n;
    const uint32_t   *list = g->prefill;
    const pdr_target *targets = g->targets;
    for (uint32_t i = 0, group = 0; i < n; i = ++group * PDR_WAIT_GROUP) {
        uint64_t least = w->us.least[group];
        if (least == PDR_WAIT_BARRED) continue;
        least += w->even ? cold + price : pdr_scale_q10(cold, w->slow[group] & 0xFFFF) + pdr_price_at(price, w->slow[group] >> 16);
        if ((least < PDR_KEY_COST_MOST ? least : PDR_KEY_COST_MOST) > f->cost) continue;
        uint32_t end = n - i < PDR_WAIT_GROUP ? n : i + PDR_WAIT_GROUP;
        uint64_t more = least - w->us.least[group], most = most_us(f->cost, more);
        for (; i < end; i++) {
            if (us[i] > most || v->depth[list[i]]) continue;
            const pdr_target *t = &targets[list[i]];
            offer(f, t, us[i] + pdr_scale_q10(cold, t->slowness_q10) + pdr_price_at(price, t->slowness_q10), i, pick);
            most = most_us(f->cost, more);
        }
    }
}

/*
 * The same where all have the speed of the pool: then it is the one with the least wait, whatever the prompt. If that one holds some of it and is no dearer for that, it was offered
 * before and nobody who holds nothing is better. 0: the groups must be looked at.
 */
static int offer_first(found *f, pdr_waits *w, const pdr_registry *g, const pdr_view *v, uint64_t cold, uint64_t price)
{
    if (!w->even) return 0;
    if (w->first == PDR_NONE && (w->first = find_first(w, g)) == PDR_NONE) return 1;
    uint32_t target = g->prefill[w->first], depth = v->depth[target];
    uint64_t us = w->us.v[w->first] + cold + price;
    if (us >= PDR_KEY_COST_MOST) return 0;
    if (!depth) {
        offer(f, &g->targets[target], us, w->first, g->head->pick);
        return 1;
    }
    uint64_t matched = pdr_matched_tokens(v->job, depth), pool = pdr_prefill_us(v->rates, v->job->prompt_tokens - matched, matched);
    return pool <= cold;
}

pdr_wait_best pdr_waits_best(pdr_waits *w, const pdr_registry *g, const pdr_view *v, const uint32_t *holders, uint32_t holding)
{
    const pdr_job    *job = v->job;
    const uint64_t    mean = v->mean_queue_q10, *us = w->us.v;
    const uint32_t    pick = g->head->pick;
    const pdr_target *targets = g->targets;
    found             f = {UINT64_MAX, UINT64_MAX, PDR_NONE};
    uint64_t          pool = 0, price = 0;
    for (uint32_t i = 0, last = 0; i < holding; i++) {
        uint32_t target = holders[i], at, depth = v->depth[target];
        if (!g->listed[target] || us[at = g->board.place[target]] == PDR_WAIT_BARRED) continue;
        if (depth != last) { /* holders often hold the same */
            uint64_t matched = pdr_matched_tokens(job, depth);
            pool = pdr_prefill_us(v->rates, job->prompt_tokens - matched, matched);
            price = pool * mean >> 10;
            last = depth;
        }
        offer(&f, &targets[target], us[at] + pdr_scale_q10(pool, targets[target].slowness_q10) + pdr_price_at(price, targets[target].slowness_q10), at, pick);
    }
    const uint64_t cold = pdr_prefill_us(v->rates, job->prompt_tokens, 0), cold_price = cold * mean >> 10;
    if (!offer_first(&f, w, g, v, cold, cold_price)) offer_groups(&f, w, g, v, cold, cold_price);
    pdr_wait_best best = {.target = PDR_NONE};
    if (f.at == PDR_NONE) return best;
    best.target = g->prefill[f.at];
    best.cost = f.cost;
    best.terms.matched = pdr_matched_tokens(job, v->depth[best.target]);
    best.terms.uncached = job->prompt_tokens - best.terms.matched;
    pool = best.terms.matched ? pdr_prefill_us(v->rates, best.terms.uncached, best.terms.matched) : cold;
    best.terms.work = pdr_scale_q10(pool, targets[best.target].slowness_q10);
    return best;
}
