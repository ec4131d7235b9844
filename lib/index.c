#include "index.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* One (target, block) pair; linear probing by hash and target, deletion by shifting back. */
typedef struct entry {
    uint64_t hash;
    uint32_t used_target; /* target + 1, 0: free */
    uint32_t position;    /* of the block in its chain */
    uint64_t stamp;       /* of the call that last touched it */
    uint64_t epoch;       /* of the target; others are stale */
} entry;

typedef struct target {
    uint64_t epoch, capacity, count;
} target;

struct pdr_index {
    uint64_t entries, slots, live, filled, evictions, clock;
    uint32_t targets;
    _Atomic uint32_t dirty;
    uint32_t hand, pad;
};

static target *targets_of(const pdr_index *ix) { return (target *)((uintptr_t)ix + 128); }
static entry *table_of(const pdr_index *ix) { return (entry *)(targets_of(ix) + ix->targets); }

static uint64_t slots_for(uint64_t entries) { return entries + entries / 2 + 8; }

uint64_t pdr_index_size(uint64_t entries, uint32_t targets)
{
    return 128 + targets * sizeof(target) + slots_for(entries) * sizeof(entry);
}

void pdr_index_init(pdr_index *ix, uint64_t entries, uint32_t targets)
{
    memset(ix, 0, pdr_index_size(entries, targets));
    ix->entries = entries;
    ix->slots = slots_for(entries);
    ix->targets = targets;
}

static uint64_t home(const pdr_index *ix, uint64_t hash, uint32_t t)
{
    uint64_t x = (hash ^ ((uint64_t)t * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
    return (x ^ x >> 32) % ix->slots;
}

/* Slot of the pair, or the free one where it would go. */
static uint64_t find(const pdr_index *ix, uint32_t t, uint64_t hash)
{
    const entry *e = table_of(ix);
    uint64_t     i = home(ix, hash, t);
    while (e[i].used_target && (e[i].used_target != t + 1 || e[i].hash != hash)) i = i + 1 == ix->slots ? 0 : i + 1;
    return i;
}

static int holds(const pdr_index *ix, uint32_t t, uint64_t hash)
{
    const entry *e = table_of(ix) + find(ix, t, hash);
    return e->used_target && e->epoch == targets_of(ix)[t].epoch;
}

static void take_out(pdr_index *ix, uint64_t i)
{
    entry  *e = table_of(ix);
    target *t = targets_of(ix) + e[i].used_target - 1;
    if (e[i].epoch == t->epoch) t->count--, ix->live--;
    ix->filled--;
    for (uint64_t j = i;;) {
        j = j + 1 == ix->slots ? 0 : j + 1;
        if (!e[j].used_target) break;
        uint64_t h = home(ix, e[j].hash, e[j].used_target - 1);
        if (i <= j ? i < h && h <= j : i < h || h <= j) continue;
        e[i] = e[j];
        i = j;
    }
    memset(&e[i], 0, sizeof *e);
}

/* Least recently used of one target, of equals the deepest; stale ones first. */
static int evict_from(pdr_index *ix, uint32_t t)
{
    entry   *e = table_of(ix);
    uint64_t best = UINT64_MAX;
    for (uint64_t i = 0; i < ix->slots; i++) {
        if (e[i].used_target != t + 1) continue;
        if (e[i].epoch != targets_of(ix)[t].epoch) {
            take_out(ix, i);
            return 1;
        }
        if (best == UINT64_MAX || e[i].stamp < e[best].stamp ||
            (e[i].stamp == e[best].stamp && e[i].position > e[best].position))
            best = i;
    }
    if (best == UINT64_MAX) return 0;
    take_out(ix, best);
    ix->evictions++;
    return 1;
}

static void begin(pdr_index *ix) { atomic_store(&ix->dirty, 1); }
static void end(pdr_index *ix) { atomic_store(&ix->dirty, 0); }

void pdr_index_match(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth)
{
    memset(depth, 0, ix->targets * sizeof *depth);
    for (uint32_t t = 0; t < ix->targets; t++) {
        if (!targets_of(ix)[t].count) continue;
        while (depth[t] < n && holds(ix, t, hashes[depth[t]])) depth[t]++;
    }
}

void pdr_index_extend(pdr_index *ix, uint32_t t, uint32_t from, const uint64_t *hashes, size_t n)
{
    if (t >= ix->targets) return;
    begin(ix);
    target *to = targets_of(ix) + t;
    ix->clock++;
    for (size_t k = 0; k < n; k++) {
        entry *e = table_of(ix) + find(ix, t, hashes[k]);
        if (!e->used_target) {
            while (ix->filled >= ix->entries) {
                while (!evict_from(ix, ix->hand)) ix->hand = (ix->hand + 1) % ix->targets;
                ix->hand = (ix->hand + 1) % ix->targets;
            }
            e = table_of(ix) + find(ix, t, hashes[k]);
            e->hash = hashes[k];
            e->used_target = t + 1;
            ix->filled++;
            e->epoch = to->epoch - 1;
        }
        if (e->epoch != to->epoch) to->count++, ix->live++;
        e->epoch = to->epoch;
        e->position = from + (uint32_t)k;
        e->stamp = ix->clock;
    }
    while (to->capacity && to->count > to->capacity) evict_from(ix, t);
    end(ix);
}

void pdr_index_store(pdr_index *ix, uint32_t t, const uint64_t *hashes, size_t n)
{
    pdr_index_extend(ix, t, 0, hashes, n);
}

void pdr_index_remove(pdr_index *ix, uint32_t t, const uint64_t *hashes, size_t n)
{
    if (t >= ix->targets) return;
    begin(ix);
    for (size_t k = 0; k < n; k++) {
        uint64_t i = find(ix, t, hashes[k]);
        if (table_of(ix)[i].used_target) take_out(ix, i);
    }
    end(ix);
}

void pdr_index_clear(pdr_index *ix, uint32_t t)
{
    if (t >= ix->targets) return;
    begin(ix);
    ix->live -= targets_of(ix)[t].count;
    targets_of(ix)[t].count = 0;
    targets_of(ix)[t].epoch++;
    end(ix);
}

void pdr_index_set_capacity(pdr_index *ix, uint32_t t, uint64_t blocks)
{
    if (t >= ix->targets) return;
    begin(ix);
    target *to = targets_of(ix) + t;
    to->capacity = blocks;
    while (blocks && to->count > blocks) evict_from(ix, t);
    end(ix);
}

uint64_t pdr_index_capacity(const pdr_index *ix, uint32_t t) { return t < ix->targets ? targets_of(ix)[t].capacity : 0; }
uint64_t pdr_index_count(const pdr_index *ix, uint32_t t) { return t < ix->targets ? targets_of(ix)[t].count : 0; }
uint64_t pdr_index_entries(const pdr_index *ix) { return ix->live; }
uint64_t pdr_index_evictions(const pdr_index *ix) { return ix->evictions; }

void pdr_index_repair(pdr_index *ix)
{
    if (!atomic_load(&ix->dirty)) return;
    uint64_t evictions = ix->evictions;
    for (uint32_t t = 0; t < ix->targets; t++) targets_of(ix)[t].count = 0, targets_of(ix)[t].epoch++;
    memset(table_of(ix), 0, ix->slots * sizeof(entry));
    ix->live = ix->filled = 0;
    ix->evictions = evictions;
    end(ix);
}

int pdr_index_check(const pdr_index *ix, char *why, size_t cap)
{
    uint64_t live = 0, filled = 0;
    for (uint64_t i = 0; i < ix->slots; i++) {
        const entry *e = table_of(ix) + i;
        if (!e->used_target) continue;
        filled++;
        live += e->used_target <= ix->targets && e->epoch == targets_of(ix)[e->used_target - 1].epoch;
        if (e->used_target > ix->targets || find(ix, e->used_target - 1, e->hash) != i) {
            snprintf(why, cap, "prefix index: entry %llu cannot be found", (unsigned long long)i);
            return -1;
        }
    }
    if (live != ix->live || filled != ix->filled) {
        snprintf(why, cap, "prefix index: counted entries differ from the count");
        return -1;
    }
    return 0;
}
