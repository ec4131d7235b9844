#include "breaker.h"

enum { WINDOW = 32, WINDOW_LEAST = 16 };
#define OPEN_MOST_NS 30000000000u

void pdr_breaker_open_until(const pdr_registry *g, uint32_t target, uint32_t guard, uint64_t until_ns)
{
    pdr_target *t = &g->targets[target];
    t->open_until_ns = until_ns;
    t->guarded = until_ns ? guard : PDR_GUARD_NONE;
    pdr_board_renew(g, target);
}

static void note(pdr_endpoint_rec *rec, uint32_t failed)
{
    rec->window = rec->window << 1 | failed;
    if (rec->outcomes < WINDOW) rec->outcomes++;
}

void pdr_breaker_close(const pdr_registry *g, uint32_t target)
{
    pdr_endpoint_rec *rec = &g->endpoints[g->targets[target].endpoint];
    rec->opened_ns = 0;
    for (uint32_t i = 0; i < rec->targets; i++) {
        uint32_t t = rec->first_target + i;
        if (g->targets[t].guarded == PDR_GUARD_BREAKER) pdr_breaker_open_until(g, t, PDR_GUARD_NONE, 0);
    }
}

void pdr_breaker_success(const pdr_registry *g, uint32_t target)
{
    pdr_endpoint_rec *rec = &g->endpoints[g->targets[target].endpoint];
    rec->failures = rec->openings = rec->suspect_with = rec->refused = 0;
    note(rec, 0);
    pdr_breaker_close(g, target);
}

void pdr_breaker_alive(const pdr_registry *g, uint32_t target, uint64_t now_ns)
{
    pdr_endpoint_rec *rec = &g->endpoints[g->targets[target].endpoint];
    if (rec->alive_ns < now_ns) rec->alive_ns = now_ns;
}

/* Also while it is half open: until it has answered it serves nobody. */
static int out(const pdr_registry *g, const pdr_endpoint_rec *rec) { return g->targets[rec->first_target].guarded == PDR_GUARD_BREAKER; }

/* Whether at most half of the role would be out with this one, or another one of it has worked while this one did not. */
static int others_remain(const pdr_registry *g, const pdr_endpoint_rec *self, uint32_t kind, uint64_t sent_ns)
{
    uint32_t all = 0, gone = 1, work = 0;
    for (uint32_t i = 0; i < g->head->high; i++) {
        const pdr_endpoint_rec *rec = &g->endpoints[i];
        if (rec->slot != PDR_SLOT_USED || rec->down || rec->draining || rec->e.role != self->e.role) continue;
        all++;
        int is_out = out(g, rec);
        gone += rec != self && is_out;
        work += rec != self && !is_out && !rec->failures && rec->alive_ns > sent_ns;
    }
    return gone * 2 <= all || (work && kind != PDR_FAILURE_SLOW);
}

static int too_many(const pdr_endpoint_rec *rec, const pdr_breaker_rules *rules)
{
    uint32_t known = rec->outcomes < WINDOW ? (1u << rec->outcomes) - 1 : UINT32_MAX;
    if (rules->error_permille == UINT32_MAX || rec->outcomes < WINDOW_LEAST) return 0;
    return (uint32_t)__builtin_popcount(rec->window & known) * 1000 >= rules->error_permille * rec->outcomes;
}

int pdr_breaker_failure(const pdr_registry *g, uint32_t target, uint32_t kind, const pdr_breaker_rules *rules, uint64_t sent_ns, uint64_t now_ns)
{
    pdr_target       *t = &g->targets[target];
    pdr_endpoint_rec *rec = &g->endpoints[t->endpoint];
    uint64_t          open_ns = rules->open_ns, threshold = rules->failures;
    if (kind == PDR_FAILURE_SLOW) {
        threshold = UINT64_MAX;
    } else {
        rec->refused = kind == PDR_FAILURE_REFUSED;
        rec->failures++;
        g->infos[target].failures++;
    }
    if (kind == PDR_FAILURE_DOUBTFUL)
        threshold *= 4;
    else
        note(rec, 1);
    int immediate = kind == PDR_FAILURE_REFUSED || kind == PDR_FAILURE_PINNED;
    if (!immediate && rec->failures < threshold && !too_many(rec, rules)) return 0;
    if (rec->opened_ns && sent_ns < rec->opened_ns) return 0;
    if (kind != PDR_FAILURE_REFUSED && !others_remain(g, rec, kind, sent_ns)) return 0;
    for (uint32_t i = 0; i < rec->openings && open_ns < OPEN_MOST_NS; i++) open_ns *= 2;
    if (open_ns > OPEN_MOST_NS) open_ns = OPEN_MOST_NS;
    rec->openings++;
    rec->opened_ns = now_ns;
    rec->outcomes = rec->window = 0; /* when it is back it is judged by what it does then */
    for (uint32_t i = 0; i < rec->targets; i++) pdr_breaker_open_until(g, rec->first_target + i, PDR_GUARD_BREAKER, now_ns + open_ns);
    return 1;
}

void pdr_breaker_suspect(const pdr_registry *g, uint32_t prefill, uint32_t decode, uint64_t sent_ns, uint32_t kind[2])
{
    uint32_t          id[2] = {g->targets[prefill].endpoint, g->targets[decode].endpoint};
    pdr_endpoint_rec *rec[2] = {&g->endpoints[id[0]], &g->endpoints[id[1]]};
    uint32_t          with[2] = {rec[0]->suspect_with, rec[1]->suspect_with};
    int               works[2] = {rec[0]->alive_ns > sent_ns, rec[1]->alive_ns > sent_ns};
    if (works[0] != works[1]) {
        int other = works[0]; /* prefill works: it is decode, and the other way round */
        kind[!other] = 0;
        kind[other] = with[other] ? PDR_FAILURE_PINNED : PDR_FAILURE_DOUBTFUL;
        rec[other]->suspect_with = id[!other] + 1;
        return;
    }
    for (int i = 0; i < 2; i++) {
        uint32_t partner = id[!i] + 1;
        int      pinned = with[i] && (with[i] != partner || !with[!i]);
        kind[i] = pinned ? PDR_FAILURE_PINNED : PDR_FAILURE_DOUBTFUL;
        rec[i]->suspect_with = partner;
    }
    if (kind[0] == kind[1]) { /* both, or none: it still cannot be told */
        kind[0] = kind[1] = PDR_FAILURE_DOUBTFUL;
        return;
    }
    rec[kind[0] == PDR_FAILURE_PINNED]->suspect_with = 0; /* the other one is cleared */
}

static int listed(const uint32_t *list, uint32_t n, uint32_t endpoint)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == endpoint) return 1;
    return 0;
}

int pdr_breaker_relent(const pdr_registry *g, const uint32_t *list, uint32_t n, const uint32_t *exclude, uint32_t excluded, uint64_t now_ns)
{
    pdr_endpoint_rec *oldest = NULL;
    for (uint32_t i = 0; i < n; i++) {
        const pdr_target *t = &g->targets[list[i]];
        pdr_endpoint_rec *rec = &g->endpoints[t->endpoint];
        if (listed(exclude, excluded, t->endpoint)) continue;
        if (t->open_until_ns <= now_ns) return 0; /* somebody is there */
        if (t->guarded != PDR_GUARD_BREAKER) continue;
        uint64_t rest = !rec->refused ? PDR_BREAKER_RELENT_NS : excluded ? 0 : PDR_BREAKER_REFUSED_NS;
        if (rec->opened_ns + rest <= now_ns && (!oldest || rec->opened_ns < oldest->opened_ns)) oldest = rec;
    }
    if (!oldest) return 0;
    oldest->opened_ns = now_ns; /* so that a burst sends one */
    for (uint32_t i = 0; i < oldest->targets; i++) pdr_breaker_open_until(g, oldest->first_target + i, PDR_GUARD_BREAKER, now_ns);
    return 1;
}
