#include "registry.h"

#include <stdio.h>
#include <string.h>

enum { KINDS = 3 /* host, rack, zone or none */ };

uint64_t pdr_near_size(uint32_t endpoints, uint32_t targets) { return (3ull * endpoints + 2) * sizeof(pdr_near_group) + (uint64_t)targets * KINDS * sizeof(uint32_t); }

void pdr_near_open(pdr_near *n, void *at, uint32_t endpoints)
{
    n->groups = at;
    n->members = (uint32_t *)(void *)(n->groups + 3ull * endpoints + 2);
    n->stride = endpoints;
}

int pdr_near_known(const pdr_registry *g) { return (g->head->hosts | g->head->racks | g->head->zones) != 0; }

/* The group of a decode server by a kind of place; PDR_NONE: in none. */
static uint32_t group_of(const pdr_near *n, const pdr_target *t, int kind)
{
    uint32_t place = kind == 0 ? t->host : kind == 1 ? t->rack : t->zone;
    if (place < n->stride) return (uint32_t)kind * n->stride + place;
    return kind == 2 ? pdr_near_nowhere(n) : PDR_NONE;
}

void pdr_near_fill(const pdr_registry *g)
{
    const pdr_near          *n = &g->near;
    const pdr_registry_head *h = g->head;
    if (!pdr_near_known(g)) return;
    for (uint32_t i = 0; i <= pdr_near_all(n); i++) n->groups[i] = (pdr_near_group){.room = INT64_MIN, .stale = PDR_NEAR_STALE_ALL};
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint32_t i = 0; i < h->decode_n; i++) {
            uint32_t group = group_of(n, &g->targets[g->decode[i]], kind);
            if (group != PDR_NONE) n->groups[group].n++;
        }
        uint32_t at = (uint32_t)kind * h->max_targets, from = (uint32_t)kind * n->stride, to = kind == 2 ? pdr_near_nowhere(n) + 1 : from + n->stride;
        for (uint32_t i = from; i < to; i++) {
            n->groups[i].first = at;
            at += n->groups[i].n;
            n->groups[i].n = 0;
        }
        for (uint32_t i = 0; i < h->decode_n; i++) {
            uint32_t group = group_of(n, &g->targets[g->decode[i]], kind);
            if (group == PDR_NONE) continue;
            pdr_near_group *x = &n->groups[group];
            n->members[x->first + x->n++] = i;
        }
    }
    n->groups[pdr_near_all(n)].n = h->decode_n;
}

static inline void stale(pdr_near_group *x)
{
    x->room = INT64_MIN;
    x->stale = PDR_NEAR_STALE_ALL;
}

static inline void step_changed(pdr_near_group *x, uint64_t was, uint64_t is)
{
    if (x->stale) return; /* then the least is found again anyway */
    if (is <= x->step) {
        x->step = is;
    } else if (was <= x->step) {
        x->room = INT64_MIN;
        x->stale = PDR_NEAR_STALE_STEP;
    }
}

void pdr_near_step(const pdr_registry *g, const pdr_target *t, uint64_t was, uint64_t is)
{
    const pdr_near *n = &g->near;
    if (was == is || !pdr_near_known(g)) return;
    if (t->host < n->stride) step_changed(&n->groups[t->host], was, is);
    if (t->rack < n->stride) step_changed(&n->groups[pdr_near_rack(n, t->rack)], was, is);
    step_changed(&n->groups[t->zone < n->stride ? pdr_near_zone(n, t->zone) : pdr_near_nowhere(n)], was, is);
    step_changed(&n->groups[pdr_near_all(n)], was, is);
}

void pdr_near_stale(const pdr_registry *g, const pdr_target *t)
{
    const pdr_near *n = &g->near;
    if (!pdr_near_known(g)) return;
    if (t->host < n->stride) stale(&n->groups[t->host]);
    if (t->rack < n->stride) stale(&n->groups[pdr_near_rack(n, t->rack)]);
    stale(&n->groups[t->zone < n->stride ? pdr_near_zone(n, t->zone) : pdr_near_nowhere(n)]);
    stale(&n->groups[pdr_near_all(n)]);
}

void pdr_near_renew(const pdr_registry *g, uint32_t group)
{
    const pdr_board *b = &g->board;
    pdr_near_group  *x = &g->near.groups[group];
    const uint32_t  *member = g->near.members + x->first;
    uint64_t         step = PDR_BOARD_STEP_MOST, odd = 0;
    int64_t          room = INT64_MAX - 1;
    if (x->stale == PDR_NEAR_STALE_STEP && group != pdr_near_all(&g->near)) {
        for (uint32_t k = 0, n = x->n; k < n; k++) step = b->step_us.v[member[k]] < step ? b->step_us.v[member[k]] : step;
        odd = x->odd;
        room = x->roomy;
    } else if (group == pdr_near_all(&g->near)) {
        for (uint32_t i = 0, k = 0; i < x->n; i += PDR_BOARD_GROUP, k++) {
            step = b->step_us.least[k] < step ? b->step_us.least[k] : step;
            room = b->least_room[k] < room ? b->least_room[k] : room;
            odd |= b->most_over[k];
        }
        odd |= pdr_bits_next(b->guarded, 0, x->n) < x->n;
    } else {
        for (uint32_t k = 0, n = x->n; k < n; k++) {
            uint32_t i = member[k];
            step = b->step_us.v[i] < step ? b->step_us.v[i] : step;
            room = b->room[i] < room ? b->room[i] : room;
            odd |= b->over_us[i] | (b->guarded[i / 64] >> i % 64 & 1);
        }
    }
    x->odd = odd || step >= PDR_BOARD_STEP_MOST;
    x->step = step;
    x->roomy = room;
    x->room = x->odd || !x->n ? INT64_MIN : room;
    x->stale = 0;
}

int pdr_near_check(const pdr_registry *g, char *why, size_t cap)
{
    const pdr_near *n = &g->near;
    if (!pdr_near_known(g)) return 0;
    for (int kind = 0; kind < KINDS; kind++) {
        for (uint32_t i = 0; i < g->head->decode_n; i++) {
            uint32_t group = group_of(n, &g->targets[g->decode[i]], kind), found = 0;
            if (group == PDR_NONE) continue;
            const pdr_near_group *x = &n->groups[group], *all = &n->groups[pdr_near_all(n)];
            if (x->n > g->head->decode_n || x->first > KINDS * g->head->max_targets - x->n) return snprintf(why, cap, "near: group %u is beyond the list", group);
            for (uint32_t k = 0; k < x->n; k++) found += n->members[x->first + k] == i;
            if (found != 1) return snprintf(why, cap, "near: decode %u is %u times in group %u", i, found, group);
            int odd = g->board.over_us[i] || (g->board.guarded[i / 64] >> i % 64 & 1);
            for (const pdr_near_group *y = x;; y = all) {
                if (!y->stale && (y->step > g->board.step_us.v[i] || y->room > g->board.room[i] || y->odd < (uint32_t)odd))
                    return snprintf(why, cap, "near: group %u does not bound decode %u", (uint32_t)(y - n->groups), i);
                if (y == all) break;
            }
        }
    }
    return 0;
}
