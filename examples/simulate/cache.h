/*
 * A prefix cache of blocks, least recently used first out, children before their parents (chains are touched from their tail). Blocks in use are
 * pinned and never leave. How many there may be is the caller's affair: it calls sim_cache_shrink().
 *
 * Used for a worker's HBM, its host tier, and a router's belief about a worker. O(1) per block.
 */
#ifndef SIM_CACHE_H
#define SIM_CACHE_H

#include "chooser.h"

typedef struct sim_block { uint32_t id, pins, newer, older, next; } sim_block;

typedef struct sim_cache {
    sim_block *blocks;  /* [0] is the list's head */
    uint32_t  *table;   /* by id: a number in blocks, chained by next; 0: none */
    uint32_t   mask, made, cap, first_free;
    uint32_t   count;   /* blocks in it */
    uint32_t   pinned;  /* of these */
    int        failed;  /* out of memory */
} sim_cache;

int  sim_cache_init(sim_cache *c);
void sim_cache_free(sim_cache *c);
uint32_t sim_cache_match(const sim_cache *c, const uint32_t *ids, uint32_t n);          /* leading blocks that are there */
uint32_t sim_cache_unpinned(const sim_cache *c, const uint32_t *ids, uint32_t n);       /* of n blocks that are there: how many nobody pins */
void sim_cache_touch(sim_cache *c, const uint32_t *ids, uint32_t n);                    /* n that are there */
void sim_cache_pin(sim_cache *c, const uint32_t *ids, uint32_t n);                      /* n that are there */
void sim_cache_unpin(sim_cache *c, const uint32_t *ids, uint32_t n);
uint32_t sim_cache_store(sim_cache *c, const uint32_t *ids, uint32_t n);                /* those missing among n are added; all are touched; added ones returned */
uint32_t sim_cache_shrink(sim_cache *c, uint32_t most);                                 /* evicts until count <= most or all are pinned; evicted ones */

#endif
