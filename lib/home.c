#include "home.h"

#include "rng.h"

/* The priors: one request; a quarter of some 64 prompts, all gone home. */
enum { CROWD_FADES = 256, CROWD_PRIOR = 1, HOME_FADES = 256, TOKENS_PRIOR = 64 * 4096, FOUND_PRIOR = TOKENS_PRIOR / 4, TOKENS_MOST = 1 << 20 };

void pdr_crowd_add(pdr_crowd *c, uint64_t ours, uint64_t others)
{
    c->ours += ((ours < TOKENS_MOST ? ours : TOKENS_MOST) << 10) - c->ours / CROWD_FADES;
    c->others += ((others < TOKENS_MOST ? others : TOKENS_MOST) << 10) - c->others / CROWD_FADES;
}

uint32_t pdr_crowd_q10(const pdr_crowd *c)
{
    uint64_t ours = c->ours + (CROWD_PRIOR << 10), q10 = ((ours + c->others) << 10) / ours;
    if (q10 * 4 < PDR_CROWD_ALONE * 5) return PDR_CROWD_ALONE;
    return (uint32_t)(q10 < PDR_CROWD_MOST ? q10 : PDR_CROWD_MOST);
}

void pdr_homes_init(pdr_homes *h) { *h = (pdr_homes){TOKENS_PRIOR, TOKENS_PRIOR, TOKENS_PRIOR, FOUND_PRIOR}; }

static void fade_in(uint64_t *sum, uint64_t more) { *sum += more - *sum / HOME_FADES; }

void pdr_homes_sent(pdr_homes *h, uint64_t unknown, int home)
{
    unknown = unknown < TOKENS_MOST ? unknown : TOKENS_MOST;
    fade_in(&h->asked, unknown);
    fade_in(&h->went, home ? unknown : 0);
}

void pdr_homes_found(pdr_homes *h, uint64_t unknown, uint64_t found)
{
    unknown = unknown < TOKENS_MOST ? unknown : TOKENS_MOST;
    fade_in(&h->unknown, unknown);
    fade_in(&h->found, found < unknown ? found : unknown);
}

/* The part of what is unknown that would be found there if all went home, times 1024. */
static uint64_t worth_q10(const pdr_homes *h)
{
    uint64_t found = h->unknown ? (h->found << 10) / h->unknown : 0, q10 = h->went ? found * h->asked / h->went : 0;
    return q10 < 1024 ? q10 : 1024;
}

uint16_t pdr_home_depth(const pdr_homes *h, uint16_t depth, size_t n)
{
    uint64_t q10 = 2 * worth_q10(h);
    if (n > UINT16_MAX) n = UINT16_MAX;
    if (n <= depth) return depth;
    return (uint16_t)(depth + ((q10 < 1024 ? q10 : 1024) * (n - depth) >> 10));
}

/* Blocks that two servers hold at least. */
static uint32_t shared_by_two(const uint16_t *depth, const uint32_t *list, uint32_t n)
{
    uint32_t most = 0, second = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t d = depth[list[i]];
        second = d > most ? most : d > second ? d : second;
        most = d > most ? d : most;
    }
    return second;
}

uint32_t pdr_home_of(const pdr_registry *g, const uint16_t *depth, const uint64_t *hashes, size_t n)
{
    const uint32_t *list = g->prefill, servers = g->head->prefill_n;
    uint32_t        shared = shared_by_two(depth, list, servers), home = PDR_NONE;
    uint64_t        best = 0;
    if (servers < 2 || shared >= n) return PDR_NONE;
    for (uint32_t i = 0; i < servers; i++) {
        const pdr_target *t = &g->targets[list[i]];
        uint64_t          rank = pdr_mix64(hashes[shared] ^ pdr_mix64((uint64_t)g->endpoints[t->endpoint].name_hash << 32 | t->rank));
        if (home != PDR_NONE && rank <= best) continue;
        best = rank;
        home = list[i];
    }
    return home;
}
