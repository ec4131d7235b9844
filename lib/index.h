/*
 * The prefix index: which target holds which leading blocks of a prompt. It lies in one piece of memory, knows offsets
 * only, and never allocates. All calls are made under the router's lock.
 *
 * Blocks are named by hashes that are chained: a block's hash commits to all blocks before it. Equal hashes are taken
 * for equal blocks: among n blocks some two differ nonetheless with probability n^2 / 2^65, 3 in 10^8 for a million.
 * (Below some 300,000 entries the table keeps 48 bits and the bucket's number, which is much the same for so few.)
 * Hashes need not look random, but no two blocks may have the same one at different positions; such a block is only
 * known at the first.
 *
 * What it promises
 *  - match() never counts too much: it answers exactly the leading blocks that are recorded, also when blocks before
 *    others have been removed or evicted; those behind count again when what was missing is stored again.
 *  - store() never fails. What is just stored is found, up to the target's capacity and the index's size.
 *  - A target with a capacity loses what it has not used for longest, of a chain the tail first. Recency is kept for up
 *    to 16 blocks together, so the part of them that is not on a used chain may stay as long as the part that is. Blocks
 *    added by extend() do not refresh those before them.
 *  - `entries` bounds the distinct blocks; (target, block) pairs may be more where blocks are shared. Short chains fill
 *    other pools earlier: there is room for entries / 13 groups of up to 16 neighbouring blocks. When one is full, blocks
 *    are evicted for all alike: from who holds most of the storing target and the next eight in turn, its least recently
 *    used, not counting what the call itself has stored. One call evicts at most 4,096 groups for 16 blocks; a chain for
 *    which that is not enough (it is larger than all of the index, or all else is shared by thousands) keeps its
 *    beginning.
 *  - The same calls make the same state on every machine of the same byte order.
 *  - After the death of a process in the middle of a call, pdr_index_repair() makes everything consistent again: it
 *    drops what that call had half written, at worst the rest of its blocks and one group of 16, and never leaves a block
 *    recorded that was not stored.
 *
 * Costs for n blocks (tests/bench/bench_index.c): match O(n / 16 + holders of the first block), some 16 + 2n/16 cache
 * lines, fetched together; store and remove O(n); clear O(1) while no more than `targets` cleared sets (at 65,535
 * targets: fewer) wait to be reclaimed by stores, then one of them is reclaimed at once; set_capacity O(what it
 * evicts); repair O(1) if no call was cut short, else O(size); check O(size). Some 23 bytes per entry and 50 bytes per
 * target.
 */
#ifndef PDR_INDEX_H
#define PDR_INDEX_H

#include <stddef.h>
#include <stdint.h>

typedef struct pdr_index pdr_index; /* the start of its region in the block */

/* Bytes for so many entries (at least 64 are taken; at most 2^30) and targets (1 to 65,535). */
uint64_t pdr_index_size(uint64_t entries, uint32_t targets);
/* The region begins at a multiple of 64; what is in it does not matter. */
void pdr_index_init(pdr_index *ix, uint64_t entries, uint32_t targets);
/* depth[t] for every target t < targets: leading blocks of the chain that t holds. Zeroes first. At most 65,535 blocks.
 */
void pdr_index_match(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth);
/* The same; holders[] (room for all targets) gets those with a depth, in no order, the result is how many. */
uint32_t pdr_index_match_holders(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth, uint32_t *holders);
/* The same for n of a chain's blocks, evenly spaced: sample i is block (i + 1) * blocks / n - 1, n <= blocks. depth[t] is how many of them t holds before
 * the first that it does not hold; holders[] and the result as above. depth[] is all zero before: who calls it again
 * clears those of the holders. */
uint32_t pdr_index_match_sample(const pdr_index *ix, const uint64_t *hashes, size_t n, size_t blocks, uint16_t *depth, uint32_t *holders);
/* Whether there can be anybody who holds something of a chain with this first block: no is certain. */
int pdr_index_may_know(const pdr_index *ix, uint64_t first);
/* The target holds the leading n blocks of this chain: adds what is missing, refreshes the recency of all. */
void pdr_index_store(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n);
/* A continuation: blocks [from, from + n) of a chain whose first `from` blocks were stored before (engine events with a
 * parent). */
void pdr_index_extend(pdr_index *ix, uint32_t target, uint32_t from, const uint64_t *hashes, size_t n);
/* Forgets these blocks (anywhere in a chain) at the target. */
void pdr_index_remove(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n);
void pdr_index_clear(pdr_index *ix, uint32_t target);                         /* O(1) */
void pdr_index_set_capacity(pdr_index *ix, uint32_t target, uint64_t blocks); /* 0: no limit of its own */
uint64_t pdr_index_capacity(const pdr_index *ix, uint32_t target);
uint64_t pdr_index_count(const pdr_index *ix, uint32_t target); /* blocks held */
uint64_t pdr_index_entries(const pdr_index *ix);                /* (target, block) entries in use */
uint64_t pdr_index_evictions(const pdr_index *ix);
/* Whether its sizes are those: before anything else is believed of memory that another process wrote. O(1). */
int pdr_index_fits(const pdr_index *ix, uint64_t entries, uint32_t targets);
/* To be called after the lock was taken over from a process that died. */
void pdr_index_repair(pdr_index *ix);
/* 0 if all invariants hold, else -1 and why. Safe whatever the memory holds behind the sizes in front. */
int pdr_index_check(const pdr_index *ix, char *why, size_t cap);

#endif
