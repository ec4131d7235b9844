#include "index.h"

#include <string.h>

/* A plain table of (target, block) entries, linear probing over a bounded window. */
typedef struct entry {
    uint64_t hash;
    uint32_t target, live;
} entry;

struct pdr_index {
    uint64_t n, used;
    uint32_t targets, pad;
    entry    entries[];
};

enum { WINDOW = 64 };

uint64_t pdr_index_size(uint64_t entries, uint32_t targets)
{
    (void)targets;
    return sizeof(pdr_index) + (entries + WINDOW) * sizeof(entry);
}

void pdr_index_init(pdr_index *ix, uint64_t entries, uint32_t targets)
{
    memset(ix, 0, pdr_index_size(entries, targets));
    ix->n = entries;
    ix->targets = targets;
}

static entry *find(pdr_index *ix, uint32_t target, uint64_t hash, int make)
{
    entry *e = &ix->entries[(hash + target * 77ull) % ix->n];
    for (int i = 0; i < WINDOW; i++, e++) {
        if (e->live && e->hash == hash && e->target == target) return e;
        if (!e->live) return make ? e : NULL;
    }
    return NULL;
}

void pdr_index_match(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth)
{
    for (uint32_t t = 0; t < ix->targets; t++)
        for (depth[t] = 0; depth[t] < n && find((pdr_index *)(uintptr_t)ix, t, hashes[depth[t]], 0);) depth[t]++;
}

void pdr_index_store(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        entry *e = find(ix, target, hashes[i], 1);
        if (e && !e->live) *e = (entry){hashes[i], target, 1}, ix->used++;
    }
}

void pdr_index_extend(pdr_index *ix, uint32_t target, uint32_t from, const uint64_t *hashes, size_t n)
{
    (void)from;
    pdr_index_store(ix, target, hashes, n);
}

void pdr_index_remove(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        entry *e = find(ix, target, hashes[i], 0);
        if (e) e->target = UINT32_MAX, ix->used--;
    }
}

void pdr_index_clear(pdr_index *ix, uint32_t target)
{
    for (uint64_t i = 0; i < ix->n + WINDOW; i++)
        if (ix->entries[i].live && ix->entries[i].target == target) ix->entries[i].target = UINT32_MAX, ix->used--;
}

uint64_t pdr_index_count(const pdr_index *ix, uint32_t target)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < ix->n + WINDOW; i++) n += ix->entries[i].live && ix->entries[i].target == target;
    return n;
}

void     pdr_index_set_capacity(pdr_index *ix, uint32_t target, uint64_t blocks) { (void)ix, (void)target, (void)blocks; }
uint64_t pdr_index_capacity(const pdr_index *ix, uint32_t target) { return (void)target, ix->n; }
uint64_t pdr_index_entries(const pdr_index *ix) { return ix->used; }
uint64_t pdr_index_evictions(const pdr_index *ix) { return (void)ix, 0; }
void     pdr_index_repair(pdr_index *ix) { (void)ix; }
int      pdr_index_check(const pdr_index *ix, char *why, size_t cap) { return (void)ix, (void)why, (void)cap, 0; }
