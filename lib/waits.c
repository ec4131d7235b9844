#include "waits.h"

uint32_t pdr_wait_groups(uint32_t targets) { return (targets + PDR_WAIT_GROUP - 1) / PDR_WAIT_GROUP; }

static inline int barred(const pdr_target *t, uint64_t now_ns) { return __builtin_expect(t->open_until_ns > now_ns, 0) && t->guarded; }

void pdr_waits_begin(pdr_waits *w, const pdr_registry *g, uint64_t now_ns)
{
    const pdr_target *const targets = g->targets;
    const uint32_t *const   list = g->prefill;
    uint64_t *const         us = w->us;
    uint32_t *const         at = w->at;
    const uint32_t          n = g->head->prefill_n;
    uint64_t                sum = 0;
    w->possible = n;
    w->idle = g->head->idle; /* here no others are listed */
    w->decode = w->touched_n = 0;
    for (uint32_t i = 0, group = 0; i < n; group++) {
        uint64_t least = PDR_WAIT_BARRED;
        uint32_t slow = UINT32_MAX, end = n - i < PDR_WAIT_GROUP ? n : i + PDR_WAIT_GROUP;
        for (; i < end; i++) {
            const pdr_target *t = &targets[list[i]];
            uint64_t          wait = pdr_wait_us(t, now_ns);
            sum += wait;
            at[list[i]] = i;
            us[i] = wait;
            if (barred(t, now_ns)) {
                us[i] = PDR_WAIT_BARRED;
                w->possible--;
                w->idle -= !t->requests;
                continue;
            }
            least = wait < least ? wait : least;
            slow = t->slowness_q10 < slow ? t->slowness_q10 : slow;
        }
        w->least[group] = least;
        w->slow[group] = slow;
    }
    w->sum_us = sum;
}

static void change(pdr_waits *w, const pdr_registry *g, uint32_t at, uint64_t us)
{
    uint32_t group = at / PDR_WAIT_GROUP, i = group * PDR_WAIT_GROUP, end = i + PDR_WAIT_GROUP;
    uint64_t was = w->us[at], least = PDR_WAIT_BARRED;
    w->us[at] = us;
    if (us <= w->least[group]) {
        w->least[group] = us;
    } else if (was == w->least[group]) {
        if (end > g->head->prefill_n) end = g->head->prefill_n;
        for (; i < end; i++) least = w->us[i] < least ? w->us[i] : least;
        w->least[group] = least;
    }
}

void pdr_waits_renew(pdr_waits *w, const pdr_registry *g, uint32_t target, uint64_t planned_us, uint64_t now_ns)
{
    const pdr_target *t = &g->targets[target];
    uint32_t          at = w->at[target];
    int               was = w->us[at] != PDR_WAIT_BARRED, is = !barred(t, now_ns);
    w->possible = w->possible + (uint32_t)is - (uint32_t)was;
    if (is && t->slowness_q10 < w->slow[at / PDR_WAIT_GROUP]) w->slow[at / PDR_WAIT_GROUP] = t->slowness_q10;
    change(w, g, at, is ? pdr_wait_us(t, now_ns) + planned_us : PDR_WAIT_BARRED);
}

void pdr_waits_plan(pdr_waits *w, const pdr_registry *g, uint32_t target, uint64_t us)
{
    uint32_t at = w->at[target];
    if (w->us[at] != PDR_WAIT_BARRED) change(w, g, at, w->us[at] + us);
}

int pdr_waits_decode(pdr_waits *w, const pdr_registry *g, uint64_t now_ns)
{
    while (w->decode < g->head->decode_n && barred(&g->targets[g->decode[w->decode]], now_ns)) w->decode++;
    return w->decode < g->head->decode_n;
}

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

pdr_wait_best pdr_waits_best(const pdr_waits *w, const pdr_registry *g, const pdr_view *v, const uint32_t *holders, uint32_t holding)
{
    const pdr_job    *job = v->job;
    const uint64_t    mean = v->mean_queue_q10, *us = w->us;
    const uint32_t    pick = g->head->pick, n = g->head->prefill_n;
    const uint32_t   *list = g->prefill;
    const pdr_target *targets = g->targets;
    found             f = {UINT64_MAX, UINT64_MAX, PDR_NONE};
    uint64_t          pool = 0, price = 0;
    for (uint32_t i = 0, last = 0; i < holding; i++) {
        uint32_t target = holders[i], at, depth = v->depth[target];
        if (!g->listed[target] || us[at = w->at[target]] == PDR_WAIT_BARRED) continue;
        if (depth != last) { /* holders often hold the same */
            uint64_t matched = pdr_matched_tokens(job, depth);
            pool = pdr_prefill_us(v->rates, job->prompt_tokens - matched, matched);
            price = pool * mean >> 10;
            last = depth;
        }
        offer(&f, &targets[target], us[at] + pdr_scale_q10(pool, targets[target].slowness_q10) + price, at, pick);
    }
    const uint64_t cold = pdr_prefill_us(v->rates, job->prompt_tokens, 0), cold_price = cold * mean >> 10;
    for (uint32_t i = 0, group = 0; i < n; i = ++group * PDR_WAIT_GROUP) {
        uint64_t least = w->least[group];
        if (least == PDR_WAIT_BARRED) continue;
        least += pdr_scale_q10(cold, w->slow[group]) + cold_price;
        if ((least < PDR_KEY_COST_MOST ? least : PDR_KEY_COST_MOST) > f.cost) continue;
        uint32_t end = n - i < PDR_WAIT_GROUP ? n : i + PDR_WAIT_GROUP;
        uint64_t more = least - w->least[group], most = most_us(f.cost, more);
        for (; i < end; i++) {
            if (us[i] > most || v->depth[list[i]]) continue;
            offer(&f, &targets[list[i]], us[i] + pdr_scale_q10(cold, targets[list[i]].slowness_q10) + cold_price, i, pick);
            most = most_us(f.cost, more);
        }
    }
    pdr_wait_best best = {.target = PDR_NONE};
    if (f.at == PDR_NONE) return best;
    best.target = list[f.at];
    best.cost = f.cost;
    best.terms.matched = pdr_matched_tokens(job, v->depth[best.target]);
    best.terms.uncached = job->prompt_tokens - best.terms.matched;
    pool = best.terms.matched ? pdr_prefill_us(v->rates, best.terms.uncached, best.terms.matched) : cold;
    best.terms.work = pdr_scale_q10(pool, targets[best.target].slowness_q10);
    return best;
}
