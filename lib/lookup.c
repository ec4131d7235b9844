#include "lookup.h"

#include <string.h>

static uint32_t buckets_of(uint32_t max)
{
    uint32_t n = 1;
    while (n < max) n <<= 1;
    return n;
}

uint64_t pdr_lookup_size(uint32_t max) { return ((uint64_t)buckets_of(max) + 2 * (uint64_t)max) * sizeof(uint32_t); }

pdr_lookup pdr_lookup_at(void *at, uint32_t max)
{
    uint32_t   n = buckets_of(max);
    pdr_lookup l = {at, NULL, NULL, max, n - 1};
    l.next = l.bucket + n;
    l.prev = l.next + max;
    return l;
}

void pdr_lookup_clear(const pdr_lookup *l) { memset(l->bucket, 0xFF, ((size_t)l->mask + 1) * sizeof *l->bucket); }

void pdr_lookup_link(const pdr_lookup *l, uint32_t id, uint32_t hash)
{
    uint32_t *first = &l->bucket[pdr_lookup_bucket(l, hash)];
    l->next[id] = *first;
    l->prev[id] = PDR_LOOKUP_END;
    if (*first < l->max) l->prev[*first] = id;
    *first = id;
}

void pdr_lookup_unlink(const pdr_lookup *l, uint32_t id, uint32_t hash)
{
    uint32_t next = l->next[id], prev = l->prev[id];
    if (prev < l->max)
        l->next[prev] = next;
    else
        l->bucket[pdr_lookup_bucket(l, hash)] = next;
    if (next < l->max) l->prev[next] = prev;
}

uint32_t pdr_lookup_check(const pdr_lookup *l, uint32_t (*hash_of)(const void *table, uint32_t id), const void *table)
{
    uint32_t n = 0;
    for (uint32_t b = 0; b <= l->mask; b++) {
        uint32_t before = PDR_LOOKUP_END;
        for (uint32_t i = l->bucket[b]; i != PDR_LOOKUP_END; before = i, i = l->next[i])
            if (i >= l->max || n++ >= l->max || l->prev[i] != before || pdr_lookup_bucket(l, hash_of(table, i)) != b) return PDR_LOOKUP_END;
    }
    return n;
}
