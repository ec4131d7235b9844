/*
 * Public entry points of the exchange: the pure machine (exchange.h) does the thinking, here its effects go into the books: bookings, breakers, and
 * what is learnt about servers and requests.
 */
#include "exchange.h"
#include "router_decide.h"
#include "router_record.h"

#include <string.h>

enum { LEARN_MIN_TOKENS = 64, SLOWNESS_LEAST = 16, SLOWNESS_MOST = 65535, OUTPUT_MOST = 1 << 20, LEARN_MOST_BYTES = 1 << 16 };

static pdr_exchange_rules rules_of(const pdr_config *c)
{
    return (pdr_exchange_rules){.retry_max = c->retry_max,
                                .first_byte_timeout_ns = c->first_byte_timeout_ms * 1000000ull,
                                .total_timeout_ns = c->total_timeout_ms * 1000000ull};
}

/* An eighth of the way to a sample that is at most four times off: outliers move it little, steady change within some ten samples. */
static uint64_t approach(uint64_t present, uint64_t sample)
{
    if (sample > present * 4) sample = present * 4;
    if (sample < present / 4) sample = present / 4;
    return sample > present ? present + (sample - present + 7) / 8 : present - (present - sample) / 8;
}

static uint64_t in_range(uint64_t v, uint64_t least, uint64_t most) { return v < least ? least : v > most ? most : v; }

/* How long the prompt took against what the prior says. Only from a target that had nothing else to do: queueing is not slowness. */
static void learn_slowness(pdr_books *b, const pdr_booking *k, uint64_t took_us)
{
    if (!k->alone || k->prefill == PDR_NONE || k->uncached_tokens < LEARN_MIN_TOKENS || !took_us) return;
    pdr_target *t = &b->registry.targets[k->prefill];
    if (t->requests > 1) return; /* others joined meanwhile and may have shared its steps */
    uint64_t prior = pdr_prefill_us(&b->r->rates, k->uncached_tokens, k->matched_tokens), sample = took_us * 1024 / (prior ? prior : 1);
    pdr_target_info *i = &b->registry.infos[k->prefill];
    i->measured_q10 = (uint32_t)in_range(approach(i->measured_q10, sample), SLOWNESS_LEAST, SLOWNESS_MOST);
    i->learnt_ns = b->now_ns;
    i->measurements++;
    if (!pdr_same_speed(i->measured_q10, t->slowness_q10)) t->slowness_q10 = i->measured_q10;
    b->r->learnt.slowness_q10 = in_range(approach(b->r->learnt.slowness_q10, sample), SLOWNESS_LEAST, SLOWNESS_MOST);
}

/* The engine's own cached_tokens against our belief: who keeps forgetting gets a smaller share of the index, who keeps its word a larger one. */
static void learn_cache(pdr_books *b, pdr_booking *k, uint64_t cached)
{
    if (k->prefill == PDR_NONE || k->cache_learnt) return; /* both legs report the same number */
    k->cache_learnt = 1;
    pdr_target_info *info = &b->registry.infos[k->prefill];
    uint64_t         slack = 2 * (uint64_t)b->r->config.block_bytes;
    uint32_t         before = info->belief_q10;
    info->cached_tokens += cached;
    b->r->stats.cached_tokens_reported += cached;
    if (cached + slack < k->matched_tokens)
        info->belief_q10 = before > 64 ? before - before / 16 : before;
    else if (k->matched_tokens)
        info->belief_q10 = before < 1022 ? before + 2 : 1024;
    if (info->belief_q10 != before) pdr_fit_capacity(b, k->prefill);
}

static void learn_usage(pdr_books *b, const pdr_booking *k, const pdr_exchange_leg *leg)
{
    pdr_learnt *l = &b->r->learnt;
    if (leg->prompt_tokens && k->prompt_bytes) { /* long prompts count for more: in short ones the chat template is most of it */
        uint64_t bytes = k->prompt_bytes < LEARN_MOST_BYTES ? k->prompt_bytes : LEARN_MOST_BYTES;
        l->tokens = l->tokens - l->tokens / 32 + leg->prompt_tokens * bytes / k->prompt_bytes;
        l->bytes = l->bytes - l->bytes / 32 + bytes;
        l->tokens_per_byte_q20 = in_range((l->tokens << 20) / l->bytes, 1 << 14, 2 << 20); /* 1/64 .. 2 */
    }
    if (leg->completion_tokens && leg->completion_tokens < OUTPUT_MOST)
        l->output_tokens_q10 = approach(l->output_tokens_q10, leg->completion_tokens << 10);
    if (k->prefill != PDR_NONE) b->registry.infos[k->prefill].prompt_tokens += leg->prompt_tokens;
    b->r->stats.prompt_tokens_reported += leg->prompt_tokens;
}

static void apply_verdict(pdr_books *b, const pdr_booking *k, const pdr_exchange_leg *leg, uint32_t target)
{
    const pdr_config *c = &b->r->config;
    uint64_t          open_ns = c->breaker_open_ms * 1000000ull;
    if (target == PDR_NONE || b->registry.targets[target].endpoint != leg->endpoint) return;
    if (leg->answered) pdr_registry_reopen(&b->registry, target); /* one that always dies after its first bytes still adds up */
    if (leg->verdict == PDR_VERDICT_GOOD) pdr_registry_success(&b->registry, target);
    if (leg->verdict == PDR_VERDICT_FAILED)
        pdr_registry_failure(&b->registry, target, leg->failure == PDR_FAIL_CONNECT, c->breaker_failures, open_ns, k->booked_ns, b->now_ns);
    if (leg->verdict == PDR_VERDICT_SUSPECT) /* counts, but alone never takes anybody out */
        pdr_registry_failure(&b->registry, target, 0, c->breaker_failures * 4, open_ns, k->booked_ns, b->now_ns);
    if (leg->verdict == PDR_VERDICT_BUSY) {
        uint64_t rest = leg->retry_after_ms ? leg->retry_after_ms : 100, now = b->now_ns;
        pdr_target *t = &b->registry.targets[target];
        if (rest > c->breaker_open_ms) rest = c->breaker_open_ms;
        if (t->open_until_ns < now + rest * 1000000) pdr_registry_open_until(t, now + rest * 1000000);
    }
}

static void apply_effects(pdr_books *b, const pdr_exchange_effects *fx)
{
    pdr_booking *k = fx->booking ? pdr_booking_at(&b->ledger, fx->booking) : NULL;
    if (fx->result == PDR_RESULT_ANSWERED) b->r->stats.finished++;
    if (fx->result == PDR_RESULT_FAILED) b->r->stats.failed++;
    if (!k) return; /* its lease ended meanwhile: given back already */
    const pdr_exchange_leg *p = &fx->leg[PDR_LEG_PREFILL], *d = &fx->leg[PDR_LEG_DECODE];
    if (fx->prefill_done) {
        learn_slowness(b, k, fx->prefill_us);
        pdr_booking_prefilled(&b->ledger, k, b->now_ns);
        pdr_record_ended(b, fx->booking, PDR_ENDED_PREFILL, fx->prefill_us, 0, 0);
    }
    apply_verdict(b, k, p, k->mode == PDR_MODE_PD ? k->prefill : PDR_NONE);
    apply_verdict(b, k, d, k->decode);
    if (d->usage) learn_usage(b, k, d);
    if (d->usage) pdr_record_ended(b, fx->booking, PDR_ENDED_USAGE, d->prompt_tokens, d->completion_tokens, d->cached_tokens);
    if (p->usage || d->usage) learn_cache(b, k, p->usage ? p->cached_tokens : d->cached_tokens);
    if (fx->release) pdr_give_back(b, k);
    if (fx->prefill_done || fx->release) pdr_release_held(b);
}

/* True if there is anything for the books: most events (heads, bytes sent) need no lock. */
static int any_effect(const pdr_exchange_effects *fx)
{
    const pdr_exchange_leg *p = &fx->leg[0], *d = &fx->leg[1];
    return fx->prefill_done || fx->release || fx->result || p->verdict || d->verdict || p->answered || d->answered || p->usage || d->usage;
}

/*
 * Carries a step out on the books and only then on the caller's exchange: if the lock cannot be had (PDR_E_BUSY) nothing has changed, and the
 * host may report the event again.
 */
static int commit(pdr_router *r, pdr_exchange *x, const pdr_exchange *stepped, const pdr_exchange_effects *fx, uint64_t now_ns)
{
    pdr_books b;
    if (any_effect(fx)) {
        int code = pdr_books_lock(&b, r, now_ns);
        if (code) return code;
        apply_effects(&b, fx);
        pdr_books_unlock(&b);
    }
    *x = *stepped;
    return PDR_OK;
}

int pdr_exchange_begin(pdr_router *r, pdr_exchange *x, const pdr_decision *d, uint32_t lease, uint64_t now_ns, pdr_action *out, size_t *n)
{
    pdr_exchange_effects fx;
    if (!r || !x) return PDR_E_INVALID;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    pdr_exchange_rules rules = rules_of(&r->config);
    pdr_exchange       y = *x;
    int                code = pdr_exchange_start(&y, d, lease, &rules, now_ns, out, n, &fx);
    return code ? code : commit(r, x, &y, &fx, now_ns);
}

int pdr_exchange_event(pdr_router *r, pdr_exchange *x, const pdr_event *ev, pdr_action *out, size_t *n)
{
    pdr_exchange_effects fx;
    if (!r || !x || !ev) return PDR_E_INVALID;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    pdr_exchange_rules rules = rules_of(&r->config);
    pdr_exchange       y = *x;
    int                code = pdr_exchange_step(&y, ev, &rules, out, n, &fx);
    return code ? code : commit(r, x, &y, &fx, pdr_struct_ok(ev, offsetof(pdr_event, retry_after_ms)) ? ev->now_ns : 0);
}

int pdr_exchange_rerouted(pdr_router *r, pdr_exchange *x, const pdr_decision *d, int code, uint64_t now_ns, pdr_action *out, size_t *n)
{
    pdr_exchange_effects fx;
    if (!r || !x) return PDR_E_INVALID;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    pdr_exchange_rules rules = rules_of(&r->config);
    pdr_exchange       y = *x;
    int                bad = pdr_exchange_reroute(&y, d, code, &rules, now_ns, out, n, &fx);
    return bad ? bad : commit(r, x, &y, &fx, now_ns);
}
