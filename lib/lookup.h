/*
 * Lookup: numbers of records found by a hash of what is in them, without walking the table.
 *
 * Plain data in the block, chained both ways, so that linking, unlinking and finding cost the same whatever the table's size; the hash is the caller's, as is the
 * comparison. All of it follows from the records: it is made anew after a death inside a call. On memory that may hold anything every step stays
 * inside the table and a walk ends; what it finds then may be wrong, which pdr_lookup_check() tells.
 */
#ifndef PDR_LOOKUP_H
#define PDR_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

#define PDR_LOOKUP_END UINT32_MAX

typedef struct pdr_lookup {
    uint32_t *bucket, *next, *prev; /* the first by bucket; by record, prev being PDR_LOOKUP_END at the first */
    uint32_t  max, mask;
} pdr_lookup;

/* Bytes for so many records, a multiple of 4. */
uint64_t   pdr_lookup_size(uint32_t max);
pdr_lookup pdr_lookup_at(void *at, uint32_t max);
void       pdr_lookup_clear(const pdr_lookup *l);
void       pdr_lookup_link(const pdr_lookup *l, uint32_t id, uint32_t hash);
/* `hash` as it was linked with. */
void       pdr_lookup_unlink(const pdr_lookup *l, uint32_t id, uint32_t hash);

static inline uint32_t pdr_lookup_bucket(const pdr_lookup *l, uint32_t hash) { return (hash * 2654435769u >> 7 ^ hash) & l->mask; }

/* Whoever may have this hash: for (uint32_t left = l.max, i = pdr_lookup_first(&l, hash); i < l.max && left; i = l.next[i], left--) */
static inline uint32_t pdr_lookup_first(const pdr_lookup *l, uint32_t hash) { return l->bucket[pdr_lookup_bucket(l, hash)]; }

/* How many are linked; PDR_LOOKUP_END if the chains are no chains, or the hash of one of them leads elsewhere (hash_of: of a record, `table` handed through). */
uint32_t pdr_lookup_check(const pdr_lookup *l, uint32_t (*hash_of)(const void *table, uint32_t id), const void *table);

#endif
