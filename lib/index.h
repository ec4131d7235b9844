#ifndef PDR_INDEX_H
#define PDR_INDEX_H

#include <stddef.h>
#include <stdint.h>

typedef struct pdr_index pdr_index; /* the start of its region in the block */

uint64_t pdr_index_size(uint64_t entries, uint32_t targets);
void     pdr_index_init(pdr_index *ix, uint64_t entries, uint32_t targets);
/* depth[t] for every target t < targets: leading blocks of the chain that t holds. Zeroes first. */
void     pdr_index_match(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth);
/* The same for some blocks of a chain in order, not all: depth[t] is how many of them t holds before the first that it does not hold. */
void     pdr_index_match_sample(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth);
/* The target holds the leading n blocks of this chain: adds what is missing, refreshes the recency of all. */
void     pdr_index_store(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n);
/* A continuation: blocks [from, from + n) of a chain whose first `from` blocks were stored before (engine events with a parent). */
void     pdr_index_extend(pdr_index *ix, uint32_t target, uint32_t from, const uint64_t *hashes, size_t n);
/* Forgets these blocks (anywhere in a chain) at the target. */
void     pdr_index_remove(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n);
void     pdr_index_clear(pdr_index *ix, uint32_t target); /* O(1) */
void     pdr_index_set_capacity(pdr_index *ix, uint32_t target, uint64_t blocks); /* 0: no limit of its own */
uint64_t pdr_index_capacity(const pdr_index *ix, uint32_t target);
uint64_t pdr_index_count(const pdr_index *ix, uint32_t target); /* blocks held */
uint64_t pdr_index_entries(const pdr_index *ix);                /* (target, block) entries in use */
uint64_t pdr_index_evictions(const pdr_index *ix);
void     pdr_index_repair(pdr_index *ix);
int      pdr_index_check(const pdr_index *ix, char *why, size_t cap); /* 0: all invariants hold */

#endif
