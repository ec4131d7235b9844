#include "index_parts.h"

void pdr_room_reclaim(pdr_index *ix, uint32_t n)
{
    while (n && ix->cleared_first != PDR_NIL) {
        pdr_id *id = &pdr_ids_of(ix)[ix->cleared_first];
        if (id->oldest != PDR_NIL) {
            pdr_share_drop(ix, id->oldest);
            n--;
            continue;
        }
        uint32_t at = ix->cleared_first;
        ix->cleared_first = id->next;
        if (ix->cleared_first == PDR_NIL) ix->cleared_last = PDR_NIL;
        id->next = ix->free_id;
        ix->free_id = at;
    }
}

static void evict_oldest(pdr_index *ix, uint32_t id)
{
    uint32_t share = pdr_ids_of(ix)[id].oldest;
    ix->evictions += (uint64_t)__builtin_popcount(pdr_share_at(ix, share)->mask);
    pdr_share_drop(ix, share);
}

/*
 * Whoever holds most of: the id that needs room, and the next eight in turn that hold anything. What the id has stored
 * in this very call
 * (`fresh` blocks) does not count: it is taken only when there is nothing else.
 */
static uint32_t pick_victim(pdr_index *ix, uint16_t id, uint32_t fresh)
{
    const uint64_t *held = pdr_held_of(ix);
    const pdr_id *ids = pdr_ids_of(ix);
    uint32_t most = ids[id].count > fresh ? ids[id].count - fresh : 0, best = most ? id : PDR_NIL, at = ix->hand;
    uint64_t word = held[at >> 6] & (~0ull << (at & 63));
    for (uint32_t seen = 0, words = 0; seen < 8 && words <= ix->words;) {
        if (!word) {
            at = (at >> 6) + 1 < ix->words ? ((at >> 6) + 1) * 64 : 0;
            word = held[at >> 6];
            words++;
            continue;
        }
        uint32_t next = (at & ~63u) + (uint32_t)__builtin_ctzll(word);
        word &= word - 1;
        seen++;
        ix->hand = next + 1 < ix->ids ? next + 1 : 0;
        if (next != id && ids[next].count > most) most = ids[next].count, best = next;
    }
    return best;
}

int pdr_room_make(pdr_index *ix, uint16_t id, uint32_t blocks, uint32_t fresh)
{
    for (int i = 0; i < 4096; i++) {
        if (ix->blocks + blocks <= ix->entries && ix->free_runs >= 2 * blocks && ix->free_extras >= blocks) return 1;
        if (ix->cleared_first != PDR_NIL) {
            pdr_room_reclaim(ix, 1);
            continue;
        }
        uint32_t victim = pick_victim(ix, id, fresh);
        if (victim == PDR_NIL) return 0;
        evict_oldest(ix, victim);
    }
    return 0;
}

void pdr_room_keep_capacity(pdr_index *ix, uint32_t target)
{
    const pdr_target *t = &pdr_targets_of(ix)[target];
    const pdr_id *id = &pdr_ids_of(ix)[t->id];
    while (t->capacity && id->count > t->capacity) {
        uint64_t excess = id->count - t->capacity;
        uint32_t share = id->oldest;
        uint16_t mask = pdr_share_at(ix, share)->mask, bits = mask;
        if ((uint64_t)__builtin_popcount(mask) > excess)
            for (bits = 0; excess--;) bits |= (uint16_t)(1u << (31 - __builtin_clz((unsigned)(mask & ~bits))));
        ix->evictions += (uint64_t)__builtin_popcount(bits);
        pdr_share_take(ix, share, bits);
    }
}
