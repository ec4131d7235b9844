#include "board.h"

#include "registry.h"

#include <stdio.h>
#include <string.h>

enum { AS_THE_POOL = 1024 };
#define WORK_MOST_US (1ull << 50) /* beyond it a server is odd: its end would not fit */

static uint32_t words_of(uint32_t n) { return (n + 63) / 64; }
static uint32_t groups_of(uint32_t n) { return (n + PDR_BOARD_GROUP - 1) / PDR_BOARD_GROUP; }

uint64_t pdr_board_size(uint32_t targets)
{
    return ((uint64_t)targets * 5 + (uint64_t)words_of(targets) * 2 + (uint64_t)groups_of(targets) * (PDR_BOARD_GROUP + 5)) * sizeof(uint64_t) +
           ((uint64_t)targets * 3 + (uint64_t)groups_of(targets) * PDR_BOARD_GROUP * 2) * sizeof(uint32_t) + ((uint64_t)groups_of(targets) * sizeof(uint16_t) + 7) / 8 * 8;
}

void pdr_board_open(pdr_board *b, void *at, uint32_t targets)
{
    uint32_t words = words_of(targets), groups = groups_of(targets);
    b->end = at;
    b->odd = b->end + targets;
    b->over_us = b->odd + words;
    b->room = (int64_t *)(b->over_us + targets);
    b->guarded = (uint64_t *)(b->room + targets);
    b->others = b->guarded + words;
    b->through = b->others + targets;
    b->step_us.v = b->through + targets;
    b->step_us.least = b->step_us.v + groups * PDR_BOARD_GROUP;
    b->least_over = b->step_us.least + groups;
    b->most_over = b->least_over + groups;
    b->least_room = (int64_t *)(b->most_over + groups);
    b->most_room = b->least_room + groups;
    b->place = (uint32_t *)(void *)(b->most_room + groups);
    b->slow = b->place + targets;
    b->ours = b->slow + targets;
    b->picked = b->ours + targets;
    b->d_picked = b->picked + groups * PDR_BOARD_GROUP;
    b->step_us.mask = (uint16_t *)(void *)(b->d_picked + groups * PDR_BOARD_GROUP);
}

static inline void set_bit(uint64_t *bits, uint32_t at, int on)
{
    uint64_t bit = 1ull << at % 64;
    bits[at / 64] = on ? bits[at / 64] | bit : bits[at / 64] & ~bit;
}

/* What the board has of one server. */
typedef struct prefill_line { uint64_t end, through; int odd; } prefill_line;
typedef struct decode_line { uint64_t step, over; int64_t room; } decode_line;

static inline prefill_line prefill_of(const pdr_target *t)
{
    prefill_line x = {t->requests ? pdr_board_time(t->since_ns, t->work_us) : 0, t->requests == 1 ? t->since_ns + t->work_us * 1000u : UINT64_MAX, 0};
    x.odd = (t->guarded | (uint32_t)(t->foreign_us != 0)) || (t->requests && (!x.end || t->work_us >= WORK_MOST_US));
    return x;
}

/* As pdr_decode_us() takes it apart. */
static inline decode_line decode_of(const pdr_board_head *h, const pdr_target *t)
{
    uint64_t    requests = (uint64_t)t->d_requests + t->d_foreign_requests, tokens = t->d_tokens + t->d_foreign_tokens;
    decode_line x = {requests * h->us_per_request + tokens / 1000 * h->ps_per_token / 1000, 0, INT64_MAX};
    if (x.step > PDR_BOARD_STEP_MOST) x.step = PDR_BOARD_STEP_MOST;
    if (t->max_running && requests >= t->max_running) x.over = (requests - t->max_running + 1) * 100000;
    if (t->kv_capacity && (t->kv_capacity <= tokens || t->kv_capacity - tokens < INT64_MAX)) x.room = (int64_t)(t->kv_capacity - tokens);
    return x;
}

static void renew_prefill(const pdr_registry *g, uint32_t at, const pdr_target *t)
{
    pdr_board_head *h = &g->head->board;
    prefill_line    x = prefill_of(t);
    g->board.end[at] = x.end;
    g->board.through[at] = x.through;
    g->board.picked[at] = t->last_pick;
    set_bit(g->board.odd, at, x.odd);
    if (__builtin_expect(g->board.slow[at] == t->slowness_q10, 1)) return;
    h->uneven -= g->board.slow[at] != AS_THE_POOL;
    h->uneven += t->slowness_q10 != AS_THE_POOL;
    g->board.slow[at] = t->slowness_q10;
}

static void group_limits(const pdr_registry *g, uint32_t group)
{
    const pdr_board *b = &g->board;
    uint32_t         at = group * PDR_BOARD_GROUP, end = g->head->decode_n - at < PDR_BOARD_GROUP ? g->head->decode_n : at + PDR_BOARD_GROUP;
    uint64_t         over = UINT64_MAX, most_over = 0;
    int64_t          room = INT64_MAX, most_room = INT64_MIN;
    for (; at < end; at++) {
        over = b->over_us[at] < over ? b->over_us[at] : over;
        most_over = b->over_us[at] > most_over ? b->over_us[at] : most_over;
        room = b->room[at] < room ? b->room[at] : room;
        most_room = b->room[at] > most_room ? b->room[at] : most_room;
    }
    b->least_over[group] = over;
    b->most_over[group] = most_over;
    b->least_room[group] = room;
    b->most_room[group] = most_room;
}

static void change_step(const pdr_board *b, uint32_t at, uint64_t step)
{
    const pdr_groups *s = &b->step_us;
    uint32_t          group = at / PDR_BOARD_GROUP;
    uint16_t          bit = (uint16_t)(1u << at % PDR_BOARD_GROUP);
    s->v[at] = step;
    if (step < s->least[group]) {
        s->least[group] = step;
        s->mask[group] = bit;
    } else if (step == s->least[group]) {
        s->mask[group] |= bit;
    } else if (s->mask[group] & bit) { /* one of the least goes from there; if it was the last the others are looked at */
        s->mask[group] = (uint16_t)(s->mask[group] & ~bit);
        if (!s->mask[group]) pdr_groups_renew(s, group, pdr_least_is_wide());
    }
}

static void renew_decode(const pdr_registry *g, uint32_t at, uint32_t target)
{
    const pdr_board  *b = &g->board;
    pdr_board_head   *h = &g->head->board;
    const pdr_target *t = &g->targets[target];
    decode_line       x = decode_of(h, t);
    uint64_t          others = g->infos[target].d_foreign_requests, was = b->step_us.v[at];
    const int         guard = t->guarded != 0, only_step = b->over_us[at] == x.over && b->room[at] == x.room && (b->guarded[at / 64] >> at % 64 & 1) == (uint64_t)guard;
    change_step(b, at, x.step);
    h->ours += (uint64_t)t->d_requests - b->ours[at];
    h->others += others - b->others[at];
    b->ours[at] = t->d_requests;
    b->d_picked[at] = t->d_last_pick;
    b->others[at] = others;
    if (__builtin_expect(only_step, 1)) {
        pdr_near_step(g, t, was, x.step);
        return;
    }
    pdr_near_stale(g, t);
    set_bit(b->guarded, at, guard);
    b->over_us[at] = x.over;
    b->room[at] = x.room;
    group_limits(g, at / PDR_BOARD_GROUP);
}

void pdr_board_renew(const pdr_registry *g, uint32_t target)
{
    uint32_t at = g->board.place[target];
    if (at < g->head->prefill_n && g->prefill[at] == target)
        renew_prefill(g, at, &g->targets[target]);
    else if (at < g->head->decode_n && g->decode[at] == target)
        renew_decode(g, at, target);
}

void pdr_board_fill(const pdr_registry *g)
{
    const pdr_board *b = &g->board;
    pdr_board_head  *h = &g->head->board;
    h->uneven = 0;
    h->ours = h->others = 0;
    for (uint32_t i = 0; i < g->head->prefill_n; i++) {
        b->place[g->prefill[i]] = i;
        b->slow[i] = AS_THE_POOL;
        renew_prefill(g, i, &g->targets[g->prefill[i]]);
    }
    for (uint32_t i = 0; i < g->head->decode_n; i++) {
        const pdr_target *t = &g->targets[g->decode[i]];
        decode_line       x = decode_of(h, t);
        b->place[g->decode[i]] = i;
        b->step_us.v[i] = x.step;
        b->over_us[i] = x.over;
        b->room[i] = x.room;
        set_bit(b->guarded, i, t->guarded != 0);
        b->d_picked[i] = t->d_last_pick;
        h->ours += b->ours[i] = t->d_requests;
        h->others += b->others[i] = g->infos[g->decode[i]].d_foreign_requests;
    }
    for (uint32_t i = g->head->decode_n; i % PDR_BOARD_GROUP; i++) b->step_us.v[i] = PDR_LEAST_NOBODY;
    for (uint32_t i = 0; i < groups_of(g->head->decode_n); i++) {
        pdr_groups_renew(&b->step_us, i, pdr_least_is_wide());
        group_limits(g, i);
    }
}

uint64_t pdr_board_waits_portable(const uint64_t *end, uint32_t n, uint64_t now, uint64_t most_us, uint64_t *us)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += us[i] = pdr_board_wait_us(end[i], now, most_us);
    return sum;
}

#if !defined(__x86_64__)
uint64_t pdr_board_waits_avx2(const uint64_t *end, uint32_t n, uint64_t now, uint64_t most_us, uint64_t *us)
{
    return pdr_board_waits_portable(end, n, now, most_us, us); /* never called */
}
#endif

int pdr_board_check(const pdr_registry *g, char *why, size_t cap)
{
    const pdr_board      *b = &g->board;
    const pdr_board_head *h = &g->head->board;
    uint64_t              ours = 0, others = 0;
    uint32_t              uneven = 0;
    for (uint32_t i = 0; i < g->head->prefill_n; i++) {
        const pdr_target *t = &g->targets[g->prefill[i]];
        prefill_line      x = prefill_of(t);
        uneven += t->slowness_q10 != AS_THE_POOL;
        if (b->place[g->prefill[i]] != i || b->end[i] != x.end || (b->odd[i / 64] >> i % 64 & 1) != (uint64_t)x.odd || b->slow[i] != t->slowness_q10 || b->through[i] != x.through || b->picked[i] != t->last_pick)
            return snprintf(why, cap, "board: what it has of prefill target %u is not what that one has", g->prefill[i]);
    }
    for (uint32_t i = 0; i < g->head->decode_n; i++) {
        const pdr_target *t = &g->targets[g->decode[i]];
        decode_line       x = decode_of(h, t);
        uint64_t          foreign = g->infos[g->decode[i]].d_foreign_requests;
        uint32_t          group = i / PDR_BOARD_GROUP;
        ours += t->d_requests;
        others += foreign;
        if (b->place[g->decode[i]] != i || b->step_us.v[i] != x.step || b->over_us[i] != x.over || b->room[i] != x.room || b->ours[i] != t->d_requests || b->d_picked[i] != t->d_last_pick ||
            b->others[i] != foreign || (b->guarded[i / 64] >> i % 64 & 1) != (uint64_t)(t->guarded != 0))
            return snprintf(why, cap, "board: what it has of decode target %u is not what that one has", g->decode[i]);
        int least = x.step == b->step_us.least[group], marked = b->step_us.mask[group] >> i % PDR_BOARD_GROUP & 1;
        if (x.step < b->step_us.least[group] || least != marked || b->least_over[group] > x.over || b->most_over[group] < x.over ||
            b->least_room[group] > x.room || b->most_room[group] < x.room)
            return snprintf(why, cap, "board: group %u of the decodes does not bound target %u", group, g->decode[i]);
    }
    if (h->ours != ours || h->others != others || h->uneven != uneven)
        return snprintf(why, cap, "board: sums %llu, %llu, %u do not match %llu, %llu, %u", (unsigned long long)h->ours, (unsigned long long)h->others, h->uneven,
                        (unsigned long long)ours, (unsigned long long)others, uneven);
    return 0;
}
