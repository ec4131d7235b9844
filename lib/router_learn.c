/* What is learnt from how requests went: what prompts take, who is slow, how much a cache keeps, tokens per byte, length of answers. */
#include "router_decide.h"

enum { LEARN_MIN_TOKENS = 64, SLOWNESS_LEAST = 16, SLOWNESS_MOST = 65535, OUTPUT_MOST = 1 << 20, LEARN_MOST_BYTES = 1 << 16 };
enum { FIT_KNOWN = 8 /* samples before servers are compared by it */, RECENT = 32, MEASURED_LEAST = 6, RELOAD_BYTES_PER_US = 40000 /* nominal, for scale only */ };
enum { REST_S = 30, CACHE_LEAST = 64 };
/* Where others send too a prompt often takes longer than it is, behind prompts that no report has told of yet, and never shorter: more than a sixteenth longer counts as that. */
enum { CROWD_LATE = 16 };

static uint64_t beyond(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }
static uint64_t in_range(uint64_t v, uint64_t least, uint64_t most) { return v < least ? least : v > most ? most : v; }

/* An eighth of the way to a sample that is at most four times off: outliers move it little, steady change within some ten samples. */
static uint64_t approach(uint64_t present, uint64_t sample)
{
    sample = in_range(sample, present / 4, present * 4);
    return sample > present ? present + (sample - present + 7) / 8 : present - (present - sample) / 8;
}

/* ---- what prompts take */

/* The four parts of the prior (the last at its nominal price). */
static void parts(const pdr_config *c, uint64_t uncached, uint64_t cached, uint64_t term[PDR_FIT_TERMS])
{
    uint64_t u = uncached < PDR_COST_TOKENS_MAX ? uncached : PDR_COST_TOKENS_MAX, m = cached < PDR_COST_TOKENS_MAX ? cached : PDR_COST_TOKENS_MAX;
    term[0] = c->prefill_base_us;
    term[1] = u * c->prefill_ns_per_token / 1000;
    term[2] = u * (m + u / 2) / 1000 * c->prefill_fs_per_token2 / 1000000;
    term[3] = m * c->kv_bytes_per_token / RELOAD_BYTES_PER_US;
}

static void take_fit(pdr_books *b)
{
    const pdr_config *c = &b->r->config;
    const uint64_t   *x = b->r->learnt.fit.x;
    pdr_rates        *k = &b->r->rates;
    k->base_us = c->prefill_base_us * x[0] / PDR_FIT_ONE;
    k->linear_ns = c->prefill_ns_per_token * x[1] / PDR_FIT_ONE;
    k->quadratic_fs = c->prefill_fs_per_token2 * x[2] / PDR_FIT_ONE;
    k->reload_ns = (uint64_t)c->kv_bytes_per_token * 1000 / RELOAD_BYTES_PER_US * x[3] / PDR_FIT_ONE;
    /* After a few samples one slow cached prompt can look as if a cached token took longer than a computed one. Nobody would go to a cache any more, and nothing would ever show that it is not so. */
    uint64_t most = k->linear_ns - k->linear_ns / 8;
    if (k->reload_ns > most) k->reload_ns = most;
}

/*
 * Speeds that differ little are one speed: measurements are not better than that, and their noise must not decide. A server leaves the pool's speed at a
 * quarter off, and comes back within an eighth.
 */
static uint32_t settled(uint32_t measured, uint32_t used)
{
    uint32_t off = measured > PDR_AS_THE_POOL ? measured - PDR_AS_THE_POOL : PDR_AS_THE_POOL - measured;
    if (off * 8 < PDR_AS_THE_POOL || (used == PDR_AS_THE_POOL && off * 4 < PDR_AS_THE_POOL)) return PDR_AS_THE_POOL;
    return used != PDR_AS_THE_POOL && pdr_same_speed(measured, used) ? used : measured;
}

void pdr_measured(pdr_books *b, uint32_t target, uint64_t expected_us, uint64_t took_us)
{
    pdr_target      *t = &b->registry.targets[target];
    pdr_target_info *i = &b->registry.infos[target];
    if (!expected_us) return;
    i->expected_us += expected_us - i->expected_us / RECENT;
    i->took_us += in_range(took_us, expected_us / 8, expected_us * 8) - i->took_us / RECENT;
    i->learnt_ns = b->now_ns;
    if (i->measurements < MEASURED_LEAST) i->measurements++;
    if (i->measurements < MEASURED_LEAST) return;
    i->measured_q10 = (uint32_t)in_range(i->took_us * PDR_AS_THE_POOL / (i->expected_us ? i->expected_us : 1), SLOWNESS_LEAST, SLOWNESS_MOST);
    t->slowness_q10 = settled(i->measured_q10, t->slowness_q10);
    pdr_board_renew(&b->registry, target);
}

/* Retries get their allowance of a second; and what was not measured for long may have recovered, and is not found out as long as nothing is sent there: halfway to the pool's speed. */
void pdr_relax_speeds(pdr_books *b)
{
    if (b->now_ns < b->r->learnt.relaxed_ns + 1000000000u) return;
    b->r->learnt.relaxed_ns = b->now_ns;
    if (b->r->retry_credit < PDR_RETRY_RESERVE) b->r->retry_credit += PDR_RETRY_PER_SECOND;
    for (uint32_t i = 0; i < b->r->config.max_targets; i++) {
        pdr_target_info *info = &b->registry.infos[i];
        pdr_target      *t = &b->registry.targets[i];
        if (!b->registry.taken[i] || t->slowness_q10 == PDR_AS_THE_POOL || info->learnt_ns + REST_S * 1000000000ull > b->now_ns) continue;
        info->learnt_ns = b->now_ns;
        info->took_us = (info->took_us + info->expected_us) / 2;
        info->measured_q10 = (info->measured_q10 + PDR_AS_THE_POOL) / 2;
        t->slowness_q10 = settled(info->measured_q10, t->slowness_q10);
        pdr_board_renew(&b->registry, i);
    }
}

uint32_t pdr_speed_permille(const pdr_books *b, const pdr_target *t)
{
    uint64_t term[PDR_FIT_TERMS], now;
    parts(&b->r->config, 4096, 0, term);
    now = pdr_scale_q10(pdr_prefill_us(&b->r->rates, 4096, 0), t->slowness_q10);
    return (uint32_t)((term[0] + term[1] + term[2]) * 1000 / (now ? now : 1));
}

/* Only a prompt that was alone there from its begin to its end tells what it takes: queueing is not slowness. */
void pdr_learn_prefill(pdr_books *b, pdr_booking *k, uint64_t took_us)
{
    k->took_us = took_us > 2 * k->lag_us ? took_us - k->lag_us : (took_us + 1) / 2; /* at least half of it was computing */
    if (k->alone && k->wait_us) k->took_us = k->took_us > k->wait_us ? k->took_us - k->wait_us : 0; /* behind others' prompts, as reported */
    k->learnable = k->alone && k->prefill != PDR_NONE && k->took_us && b->registry.targets[k->prefill].requests == 1 && !k->batch;
}

/*
 * Some engines' prefill answers when the prompt is computed, others' when its KV cache has gone (SGLang's). Then the first token follows at once; else the transfer lies
 * in between. Only streams show it; until enough of them have been seen, which may be never, the engine protocol's own word counts.
 */
static void foresee(pdr_books *b)
{
    pdr_learnt *l = &b->r->learnt;
    if (l->answer_gaps >= FIT_KNOWN) l->late = l->answer_gap_us < l->answer_transfer_us;
    b->registry.head->foreseen = l->fit.samples >= FIT_KNOWN && l->late;
}

void pdr_learn_answer(pdr_books *b, pdr_booking *k, int prefill)
{
    pdr_learnt *l = &b->r->learnt;
    if (prefill && !k->answered_ns) {
        k->answered_ns = b->now_ns;
        return;
    }
    if (prefill || k->mode != PDR_MODE_PD || !k->streamed || k->gap_learnt) return;
    uint64_t gap = k->answered_ns ? pdr_elapsed_us(b->now_ns, k->answered_ns) : 0; /* 0: the token came first */
    k->gap_learnt = 1;
    l->answer_gap_us += in_range(gap, 0, 4 * k->transfer_us) - l->answer_gap_us / RECENT;
    l->answer_transfer_us += k->transfer_us - l->answer_transfer_us / RECENT;
    l->answer_gaps++;
    foresee(b);
}

static void learn_speed(pdr_books *b, pdr_booking *k, uint64_t prompt_tokens, uint64_t cached)
{
    uint64_t term[PDR_FIT_TERMS], took = k->took_us, expected;
    uint32_t slowness = b->registry.targets[k->prefill].slowness_q10;
    if (!k->learnable || cached >= prompt_tokens || prompt_tokens - cached < LEARN_MIN_TOKENS) return;
    k->learnable = 0;
    parts(&b->r->config, prompt_tokens - cached, cached, term);
    expected = pdr_fit_us(&b->r->learnt.fit, term);
    /* where most of the time may be that of a slower tier, which some prompts need and some do not, a long one is no sign of a slow server; nor beside others' work, of which reports say too little */
    uint64_t reload = term[3] * b->r->learnt.fit.x[3] / PDR_FIT_ONE;
    int      crowd = b->registry.head->crowd_q10 > PDR_CROWD_ALONE;
    if (b->r->learnt.fit.samples >= FIT_KNOWN && reload * 4 < expected) {
        b->registry.infos[k->prefill].own = 1;
        if (!crowd) pdr_measured(b, k->prefill, expected, took);
    }
    if (b->registry.endpoints[b->registry.targets[k->prefill].endpoint].e.role == PDR_ROLE_DECODE) return; /* between steps of decode: it says how slow prompts are there, not what they are */
    took = took * PDR_AS_THE_POOL / (slowness ? slowness : 1);
    if (crowd) took = in_range(took, k->wait_us ? expected - expected / CROWD_LATE : 0, expected + expected / CROWD_LATE);
    pdr_fit_add(&b->r->learnt.fit, term, took);
    take_fit(b);
    foresee(b);
}

void pdr_learn_without_usage(pdr_books *b, pdr_booking *k)
{
    if (k->learnable) learn_speed(b, k, k->prompt_tokens, k->matched_tokens);
}

/* ---- how much a cache keeps */

/* Blocks that a target's cache keeps by what is written down of its server; 0: nothing is, or it only decodes, and no answer would tell otherwise. */
static uint64_t configured_blocks(const pdr_books *b, uint32_t target)
{
    const pdr_endpoint *e = &b->registry.endpoints[b->registry.targets[target].endpoint].e;
    uint64_t            tokens = e->role & PDR_ROLE_PREFILL ? e->kv_capacity : 0, block, blocks;
    if (!tokens) return 0;
    block = b->r->config.block_bytes * b->r->learnt.tokens_per_byte_q20 >> 20;
    blocks = tokens / (block ? block : 1);
    return blocks > CACHE_LEAST ? blocks : CACHE_LEAST;
}

void pdr_fit_capacity(pdr_books *b, uint32_t target)
{
    uint64_t learnt = b->registry.infos[target].cache_blocks;
    pdr_index_set_capacity(b->index, target, learnt ? learnt : configured_blocks(b, target));
}

/*
 * The engine's own cached_tokens against our belief. A cache is as large as is written down, or endless, until it has forgotten something that we believed it had:
 * then it keeps at most what we believed, less a sixteenth for each further miss; who keeps his word gets a little back (not beyond what is written down), who has
 * more than we believed an eighth. A capacity that is only reported is no bound: behind the memory that engines report they may have slower tiers.
 */
static void learn_cache(pdr_books *b, const pdr_booking *k, uint64_t cached)
{
    pdr_target_info *i = &b->registry.infos[k->prefill];
    uint64_t         block = k->prompt_bytes ? b->r->config.block_bytes * b->r->learnt.tokens_per_byte_q20 >> 20 : b->r->config.block_bytes / 4, slack = 2 * block,
                     configured = configured_blocks(b, k->prefill), learnt = i->cache_blocks, before = learnt ? learnt : configured,
                     holds = pdr_index_count(b->index, k->prefill);
    i->cached_tokens += cached;
    b->r->stats.cached_tokens_reported += cached;
    if (cached + slack < k->matched_tokens && k->alone) {
        uint64_t most = before && before < holds ? before : holds;
        i->cache_blocks = most - most / 16 > CACHE_LEAST ? most - most / 16 : CACHE_LEAST;
    } else if (before && cached > k->matched_tokens + slack) {
        i->cache_blocks = before + before / 8 + 1;
    } else if (learnt && (!configured || learnt < configured) && k->matched_tokens > slack) {
        i->cache_blocks = learnt + learnt / 256 + 1;
    }
    if (i->cache_blocks != learnt) pdr_fit_capacity(b, k->prefill);
}

/* ---- usage */

/*
 * SGLang says nothing of its cache in OpenAI's usage without --enable-cache-report, and even with it leaves zero out (its usage_processor.py). So zero is an
 * answer only of a server that has reported a cached token before; of others what we believe stands.
 */

void pdr_learn_usage(pdr_books *b, pdr_booking *k, uint64_t prompt_tokens, uint64_t cached, uint64_t completion_tokens, int decode)
{
    pdr_learnt *l = &b->r->learnt;
    if (k->prefill != PDR_NONE && !k->cache_learnt) { /* both legs report the same numbers */
        k->cache_learnt = 1;
        if (cached || b->registry.infos[k->prefill].cached_tokens) {
            if (k->at_home) pdr_homes_found(&l->homes, beyond(prompt_tokens, k->matched_tokens), beyond(cached, k->matched_tokens));
            learn_cache(b, k, cached);
            learn_speed(b, k, prompt_tokens, cached);
        } else {
            learn_speed(b, k, prompt_tokens, k->matched_tokens);
        }
    }
    if (!decode) return;
    if (prompt_tokens && k->prompt_bytes) { /* long prompts count for more: in short ones the chat template is most of it */
        uint64_t bytes = k->prompt_bytes < LEARN_MOST_BYTES ? k->prompt_bytes : LEARN_MOST_BYTES;
        l->tokens = l->tokens - l->tokens / 32 + prompt_tokens * bytes / k->prompt_bytes;
        l->bytes = l->bytes - l->bytes / 32 + bytes;
        l->tokens_per_byte_q20 = in_range((l->tokens << 20) / l->bytes, 1 << 14, 2 << 20); /* 1/64 .. 2 */
    }
    if (completion_tokens && completion_tokens < OUTPUT_MOST) l->output_tokens_q10 = approach(l->output_tokens_q10, completion_tokens << 10);
    if (k->prefill != PDR_NONE) b->registry.infos[k->prefill].prompt_tokens += prompt_tokens;
    b->r->stats.prompt_tokens_reported += prompt_tokens;
}
