/*
 * The prefix index from inside; for lib/index*.c only. index.h says what the index promises, this says how it lies in
 * memory.
 *
 *   target ──> id ──> its shares, by recency ──> run of up to 16 blocks <── slot <── bucket <── hash
 *
 * - Table: a block's hash finds its slot; buckets of one cache line with six slots. A slot keeps 48 bits of the hash,
 * how far it lies from its home (together with the home that is the whole hash, see pdr_index_key), and `ref`: run,
 * offset.
 * - Run: consecutive blocks of a chain that never cross a position divisible by 16. Because hashes are chained, the
 * block at offset o proves the blocks at 0..o of its run, so a chain is matched with one look-up for each run, not for
 * each block. A run's blocks 0..len-1 are always all in the table.
 * - Share: what one id holds of a run, as a mask. Each run has room for one; further ones come from a pool (`extra`)
 * and are found by (run, id) through a hash chain. Shares of one id form a list by recency: head newest, a chain's root
 * before its tail.
 * - Runs with three shares and more have a set: words of 64 ids that hold all of the run. Extras that are not in the
 * set (partial ones, or when no set could be had) are in the run's list. So all holders of a run are: its own share,
 * its list, its set.
 * - Id: what shares carry in place of the target. Clearing a target gives it a fresh id; the shares of the old one are
 *   reclaimed by later calls, and the bits of the old one in sets count for nothing since `held` lacks it.
 *
 * Ground truth, from which pdr_index_repair rebuilds all else: bucket keys and refs; start, len and live of runs; id
 * and mask of shares, run of extras; ids and capacities of targets. Each is published by one store, in an order that
 * leaves at worst a block or share too few (PDR_PUBLISH).
 */
#ifndef PDR_INDEX_PARTS_H
#define PDR_INDEX_PARTS_H

#include "index.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define PDR_NIL UINT32_MAX
enum {
    PDR_RUN = 16,   /* blocks per run at most */
    PDR_SLOTS = 6,  /* per bucket */
    PDR_REACH = 16, /* buckets in which a block may lie */
    PDR_NO_ID = 0xffff,
    PDR_SET_WORDS = 6,    /* words of ids per set piece */
    PDR_MAX_WORDS = 1024, /* of 64 ids */
    PDR_SPARE = 0xfffe,   /* first word of a piece that no run has */
    PDR_SET_FROM = 3      /* shares from which on a run has a set */
};

#define PDR_PUBLISH(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)

typedef struct pdr_bucket {
    uint32_t lo[PDR_SLOTS];
    uint16_t hi[PDR_SLOTS];
    uint32_t ref[PDR_SLOTS]; /* run * PDR_RUN + offset + 1; 0: free */
    uint8_t far[3];          /* four bits per slot: probes from home */
    uint8_t over;            /* blocks that probed past this bucket; 255 stays */
} pdr_bucket;

typedef struct pdr_share {
    uint32_t prev, next; /* of the id's list */
    uint16_t id;         /* PDR_NO_ID: free */
    uint16_t mask;       /* of the run's blocks */
} pdr_share;

typedef struct pdr_run {
    pdr_share share; /* a free run's next is the next free one */
    uint16_t start;
    uint8_t len, live;
    uint32_t set;  /* first piece, or PDR_NIL */
    uint32_t list; /* first extra that is not in the set, or PDR_NIL */
    uint16_t shares;
    uint8_t seen; /* repair and check */
    uint8_t pad;
} pdr_run;

typedef struct pdr_extra {
    pdr_share share; /* a free extra's next is the next free one */
    uint32_t run, list_prev, list_next, hash_next;
    uint8_t listed, seen, pad[2];
} pdr_extra;

typedef struct pdr_set {
    uint64_t bits[PDR_SET_WORDS];
    uint16_t word[PDR_SET_WORDS]; /* which 64 ids; PDR_NO_ID: unused */
    uint32_t next;
} pdr_set;

typedef struct pdr_id {
    uint32_t newest, oldest; /* shares */
    uint32_t count;          /* blocks */
    uint32_t next;           /* in the queue of cleared ids or in the list of free ones */
} pdr_id;

typedef struct pdr_target {
    uint64_t capacity;
    uint32_t id, pad;
} pdr_target;

struct pdr_index {
    uint64_t size, entries;
    uint32_t targets, ids, words, buckets, runs, extras, heads, sets, roots, dirty;
    uint64_t at_targets, at_ids, at_owner, at_straight, at_held, at_roots, at_heads, at_buckets, at_runs, at_slots,
        at_extras, at_sets;
    uint64_t pairs, evictions;
    uint32_t blocks, free_run, free_runs, free_extra, free_extras, free_set, free_id, cleared_first, cleared_last, hand;
};

#define PDR_INDEX_ARRAY(name, type, at)                                                                                \
    static inline type *name(const pdr_index *ix)                                                                      \
    {                                                                                                                  \
        return (type *)((uintptr_t)ix + ix->at);                                                                       \
    }
PDR_INDEX_ARRAY(pdr_targets_of, pdr_target, at_targets)
PDR_INDEX_ARRAY(pdr_ids_of, pdr_id, at_ids)
PDR_INDEX_ARRAY(pdr_owner_of, uint16_t, at_owner) /* target of an id, or PDR_NO_ID */
PDR_INDEX_ARRAY(pdr_straight_of, uint8_t,
                at_straight) /* 1: these 64 ids, if they have targets, have those of their own number */
PDR_INDEX_ARRAY(pdr_held_of, uint64_t, at_held)   /* bit per id: has a target and holds something */
PDR_INDEX_ARRAY(pdr_roots_of, uint8_t, at_roots)  /* counting filter of the blocks at position 0 */
PDR_INDEX_ARRAY(pdr_heads_of, uint32_t, at_heads) /* of extras by (run, id) */
PDR_INDEX_ARRAY(pdr_buckets_of, pdr_bucket, at_buckets)
PDR_INDEX_ARRAY(pdr_runs_of, pdr_run, at_runs)
PDR_INDEX_ARRAY(pdr_slots_of, uint32_t, at_slots) /* PDR_RUN per run: where its blocks are */
PDR_INDEX_ARRAY(pdr_extras_of, pdr_extra, at_extras)
PDR_INDEX_ARRAY(pdr_sets_of, pdr_set, at_sets)

/* ---- table (index_table.c) */

typedef struct pdr_key {
    uint32_t bucket, lo;
    uint16_t hi;
} pdr_key;

__extension__ typedef unsigned __int128 pdr_u128;

/*
 * The mix is a bijection. Of the 128-bit product with the number of buckets the upper half is the home; hashes with the
 * same home differ in the lower half by the number of buckets at least, so its upper 48 bits tell them apart from 2^16
 * buckets on (some 350,000 entries); below that, 48 bits plus the home's remain.
 */
static inline pdr_key pdr_index_key(const pdr_index *ix, uint64_t hash)
{
    hash ^= hash >> 32;
    hash *= 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
    pdr_u128 product = (pdr_u128)hash * ix->buckets;
    uint64_t rest = (uint64_t)product;
    return (pdr_key){(uint32_t)(product >> 64), (uint32_t)(rest >> 16), (uint16_t)(rest >> 48)};
}

/*
 * The bucket so many probes (`far`) from a key's home. The second one is the home's neighbour, which is in the same
 * page; the later ones lie a distance of the key's own from each other, so that keys with full buckets in common part.
 * There is an even number of buckets.
 */
static inline uint32_t pdr_index_probe(const pdr_index *ix, uint32_t home, uint32_t lo, uint32_t far)
{
    if (far < 2) return home ^ far;
    uint64_t stride = 1 + ((uint64_t)lo * (ix->buckets - 1) >> 32);
    return (uint32_t)((home + (far - 1) * stride) % ix->buckets);
}

static inline uint32_t pdr_far_get(const pdr_bucket *b, uint32_t j)
{
    return (uint32_t)b->far[j >> 1] >> (j & 1) * 4 & 15u;
}

static inline uint8_t *pdr_root_cell(const pdr_index *ix, uint32_t home, uint16_t hi)
{
    return pdr_roots_of(ix) + ((home * 0x9e3779b1u ^ hi * 0x85ebca6bu) >> 8 & (ix->roots - 1));
}

/* Looks into the buckets after the first. */
uint32_t pdr_table_find_far(const pdr_index *ix, pdr_key k);

/* Slots of a bucket whose `lo` is this, as bits; they may be free or differ in `hi`. */
static inline uint32_t pdr_bucket_candidates(const pdr_bucket *b, uint32_t lo)
{
#ifdef __SSE2__
    const __m128i want = _mm_set1_epi32((int)lo),
                  *from = (const __m128i *)(const void *)b; /* the second one reads some of hi[], too */
    int first = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(_mm_loadu_si128(from), want)));
    int second = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(_mm_loadu_si128(from + 1), want)));
    return (uint32_t)(first | (second & 3) << 4);
#else
    uint32_t bits = 0;
    for (uint32_t j = 0; j < PDR_SLOTS; j++) bits |= (uint32_t)(b->lo[j] == lo) << j;
    return bits;
#endif
}

/* Looks into one bucket only: the slot of the block that lies so far from its home, or PDR_SLOTS. */
static inline uint32_t pdr_bucket_find(const pdr_bucket *b, pdr_key k, uint32_t far)
{
    for (uint32_t bits = pdr_bucket_candidates(b, k.lo); bits; bits &= bits - 1) {
        uint32_t j = (uint32_t)__builtin_ctz(bits);
        if (b->hi[j] == k.hi && b->ref[j] && pdr_far_get(b, j) == far) return j;
    }
    return PDR_SLOTS;
}

/* The block's ref, 0 if it is not there. */
static inline uint32_t pdr_table_find(const pdr_index *ix, pdr_key k)
{
    const pdr_bucket *b = &pdr_buckets_of(ix)[k.bucket];
    uint32_t j = pdr_bucket_find(b, k, 0);
    if (j < PDR_SLOTS) return b->ref[j];
    return b->over ? pdr_table_find_far(ix, k) : 0;
}

static inline uint32_t pdr_ref_run(uint32_t ref)
{
    return (ref - 1) / PDR_RUN;
}
static inline uint32_t pdr_ref_offset(uint32_t ref)
{
    return (ref - 1) % PDR_RUN;
}
static inline uint32_t pdr_ref(uint32_t run, uint32_t offset)
{
    return run * PDR_RUN + offset + 1;
}

/* Adds a block that is not there; PDR_NIL if all its buckets are full and nothing in the first can move (with good
 * hashes, never). `root`: it is at position 0. */
uint32_t pdr_table_add(pdr_index *ix, pdr_key k, uint32_t ref, int root);
void pdr_table_drop(pdr_index *ix, uint32_t slot, int root);
/* Home of what lies in a slot. */
uint32_t pdr_table_home(const pdr_index *ix, uint32_t slot);
/* Counts a slot's block in `over` of the buckets it passed (repair). */
void pdr_table_count_over(pdr_index *ix, uint32_t slot);
/* Sizes and offsets for so many entries and targets. */
void pdr_index_lay_out(pdr_index *ix, uint64_t entries, uint32_t targets);

/* ---- runs and shares (index_runs.c) */

static inline pdr_share *pdr_share_at(const pdr_index *ix, uint32_t share)
{
    return share < ix->runs ? &pdr_runs_of(ix)[share].share : &pdr_extras_of(ix)[share - ix->runs].share;
}

static inline uint32_t pdr_share_run(const pdr_index *ix, uint32_t share)
{
    return share < ix->runs ? share : pdr_extras_of(ix)[share - ix->runs].run;
}

static inline uint16_t pdr_full_mask(const pdr_run *run)
{
    return (uint16_t)((1u << run->len) - 1);
}

uint32_t *pdr_extra_head(const pdr_index *ix, uint32_t run, uint16_t id);
/* The id's share of a run, or PDR_NIL. */
uint32_t pdr_run_share(const pdr_index *ix, uint32_t run, uint16_t id);
int pdr_set_has(const pdr_index *ix, const pdr_run *run, uint16_t id);

/* A new run without blocks or shares. There must be a free one. */
uint32_t pdr_run_make(pdr_index *ix, uint32_t start);
void pdr_run_free(pdr_index *ix, uint32_t run);
/* Cuts off blocks from the end that nobody holds; for runs with one share, in its own place. */
void pdr_run_trim(pdr_index *ix, uint32_t run);
/* Splits a run with one share before `offset`. Some block before must be held; that the one just before is, the caller
 * sees to. There must be a free run. */
void pdr_run_split(pdr_index *ix, uint32_t run, uint32_t offset);
/* A new share with nothing in its mask, not yet in any list. There must be a free extra. */
uint32_t pdr_share_make(pdr_index *ix, uint32_t run, uint16_t id);
void pdr_share_add(pdr_index *ix, uint32_t share, uint16_t bits);
/* Takes bits of its mask away; the share goes with its last one, and the run with its last share. */
void pdr_share_take(pdr_index *ix, uint32_t share, uint16_t bits);
void pdr_share_drop(pdr_index *ix, uint32_t share);
void pdr_lru_unlink(pdr_index *ix, uint32_t share);
/* Puts a share behind another one of its id's list, PDR_NIL: as the newest. */
void pdr_lru_link(pdr_index *ix, uint32_t share, uint32_t behind);
/* Adds to the count of an id (n may be negative). */
void pdr_id_count(pdr_index *ix, uint16_t id, int32_t n);
/* Finds out whether 64 ids are straight. */
void pdr_id_straighten(pdr_index *ix, uint32_t word);
/* For repair: puts an extra where it belongs (list or set), gives a run its set, moves a lone extra to the run's own
 * place. */
void pdr_extra_place(pdr_index *ix, uint32_t extra);
void pdr_run_make_set(pdr_index *ix, uint32_t run);
void pdr_run_settle(pdr_index *ix, uint32_t run);

/* ---- room (index_room.c) */

/* Drops up to n shares of cleared targets. */
void pdr_room_reclaim(pdr_index *ix, uint32_t n);
/* Makes room for so many blocks (at most PDR_RUN) of an id, each in a run of its own, after `fresh` in the same call; 0
 * if there is none to be had. */
int pdr_room_make(pdr_index *ix, uint16_t id, uint32_t blocks, uint32_t fresh);
/* Evicts from the id, oldest first, until its target's capacity is kept. */
void pdr_room_keep_capacity(pdr_index *ix, uint32_t target);

#endif
