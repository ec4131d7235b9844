#include "patience.h"

enum { FACTOR = 4, GAP_FACTOR = 8, STEPS_OF_GAP = 1000, PRIOR_TOKEN_US = 50000, OVERRUNS_MOST = 2, MEASURED_TOKENS_LEAST = 8 };

static uint64_t clamp(uint64_t v, uint64_t least, uint64_t most)
{
    if (v > most) return most;
    return v < least ? (least < most ? least : most) : v;
}

static void learn(uint32_t *worst, uint32_t *n, uint64_t sample)
{
    uint32_t s = (uint32_t)clamp(sample, 1, UINT32_MAX / 2);
    *worst = s > *worst ? s : *worst - (*worst - s) / 16;
    if (*n < UINT32_MAX) ++*n;
}

/* Faster than predicted is no promise for longer prompts: the ratio never counts for less than 1. */
void pdr_patience_late(pdr_patience *p, uint64_t predicted_us, uint64_t took_us)
{
    if (took_us > UINT64_MAX >> 10) return;
    learn(&p->late_q10, &p->late_n, (took_us << 10) / (predicted_us ? predicted_us : 1));
    p->overruns = 0;
}

void pdr_patience_gap(pdr_patience *p, uint64_t gap_us) { learn(&p->gap_us, &p->gap_n, gap_us); }

void pdr_patience_tokens(pdr_patience *p, uint64_t tokens, uint64_t took_us)
{
    if (tokens >= MEASURED_TOKENS_LEAST) learn(&p->token_us, &p->token_n, took_us / tokens);
}

void pdr_patience_overran(pdr_patience *p)
{
    if (p->overruns < OVERRUNS_MOST) p->overruns++;
}

static uint64_t product(uint64_t a, uint64_t b)
{
    uint64_t r;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

static uint64_t first_byte_us(const pdr_patience *p, const pdr_patience *pool, const pdr_patience_limits *l, uint64_t predicted_us)
{
    const pdr_patience *known = p->late_n >= PDR_PATIENCE_KNOWN ? p : pool;
    if (known->late_n < PDR_PATIENCE_KNOWN) return l->first_byte_most_us;
    uint64_t late = known->late_q10 > 1024 ? known->late_q10 : 1024;
    uint64_t us = clamp(product(product(predicted_us, late) >> 10, FACTOR), l->first_byte_least_us, l->first_byte_most_us);
    return clamp(us << (p->overruns & 3), 0, l->first_byte_most_us);
}

static uint64_t token_us(const pdr_patience *p, const pdr_patience *pool)
{
    const pdr_patience *known = p->token_n >= PDR_PATIENCE_KNOWN ? p : pool;
    return known->token_n >= PDR_PATIENCE_KNOWN ? known->token_us : PRIOR_TOKEN_US;
}

static uint64_t idle_us(const pdr_patience *p, const pdr_patience *pool, const pdr_patience_limits *l)
{
    const pdr_patience *gaps = p->gap_n >= PDR_PATIENCE_KNOWN ? p : pool, *steps = p->token_n >= PDR_PATIENCE_KNOWN ? p : pool;
    uint64_t            us = l->idle_most_us;
    if (gaps->gap_n >= PDR_PATIENCE_KNOWN)
        us = (uint64_t)gaps->gap_us * GAP_FACTOR;
    else if (steps->token_n >= PDR_PATIENCE_KNOWN)
        us = (uint64_t)steps->token_us * STEPS_OF_GAP;
    us = clamp(us, l->idle_least_us, l->idle_most_us);
    return clamp(us << (p->overruns & 3), 0, l->idle_most_us);
}

pdr_silence pdr_patience_bounds(const pdr_patience *prefill, const pdr_patience *decode, const pdr_patience *pool, const pdr_patience_limits *limits,
                                uint64_t predicted_us, int streamed, uint64_t tokens, int alone)
{
    pdr_silence s;
    s.first_byte_us = first_byte_us(prefill, pool, limits, predicted_us);
    s.idle_us = idle_us(decode, pool, limits);
    s.answer_us = s.idle_us;
    if (!streamed) {
        uint64_t whole = product(product(tokens ? tokens : PDR_PATIENCE_TOKENS, token_us(decode, pool)), FACTOR);
        s.answer_us = whole > UINT64_MAX - s.idle_us ? UINT64_MAX : whole + s.idle_us;
        if (alone) s.first_byte_us = s.answer_us > UINT64_MAX - s.first_byte_us ? UINT64_MAX : s.first_byte_us + s.answer_us;
    }
    return s;
}
