#include "index_parts.h"

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}
static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t place(uint64_t *size, uint64_t bytes)
{
    uint64_t at = *size;
    *size = (at + bytes + 63) & ~(uint64_t)63;
    return at;
}

/*
 * Four fifths of the slots are used when the index is full: then two buckets in five are full, and all sixteen of a
 * block once in some 10^6; then another block moves. Pools are for runs of 13 blocks on average and one further holder
 * for nearly each, from 4,096 entries down for single blocks; what does not fit is evicted earlier.
 */
void pdr_index_lay_out(pdr_index *ix, uint64_t entries, uint32_t targets)
{
    uint64_t size = 0;
    entries = most(entries, 64);
    ix->entries = entries;
    ix->targets = targets;
    ix->ids = targets + (uint32_t)least(targets, 65535u - targets);
    ix->words = (ix->ids + 63) / 64;
    ix->buckets = (uint32_t)(entries * 10 / (8 * PDR_SLOTS)) / 2 * 2 + PDR_REACH + 2;
    ix->runs = (uint32_t)most((entries + 12) / 13, least(entries, 4096)) + 2 * PDR_RUN;
    ix->extras = (uint32_t)most((entries + 19) / 20, least(entries, 4096)) + PDR_RUN;
    ix->heads = ix->extras;
    ix->sets = ix->extras / 4 + 1;
    ix->roots = 1024;
    while (ix->roots < 65536 && ix->roots < entries / 16) ix->roots *= 2;
    place(&size, sizeof *ix);
    ix->at_targets = place(&size, targets * sizeof(pdr_target));
    ix->at_ids = place(&size, ix->ids * sizeof(pdr_id));
    ix->at_owner = place(&size, ix->ids * sizeof(uint16_t));
    ix->at_straight = place(&size, ix->words);
    ix->at_held = place(&size, ix->words * sizeof(uint64_t));
    ix->at_roots = place(&size, ix->roots);
    ix->at_heads = place(&size, ix->heads * sizeof(uint32_t));
    ix->at_buckets = place(&size, ix->buckets * sizeof(pdr_bucket));
    ix->at_runs = place(&size, ix->runs * sizeof(pdr_run));
    ix->at_slots = place(&size, (uint64_t)ix->runs * PDR_RUN * sizeof(uint32_t));
    ix->at_extras = place(&size, ix->extras * sizeof(pdr_extra));
    ix->at_sets = place(&size, ix->sets * sizeof(pdr_set));
    ix->size = size;
}

static void far_set(pdr_bucket *b, uint32_t j, uint32_t far)
{
    uint32_t shift = (j & 1) * 4;
    b->far[j >> 1] = (uint8_t)((b->far[j >> 1] & ~(15u << shift)) | far << shift);
}

uint32_t pdr_table_find_far(const pdr_index *ix, pdr_key k)
{
    for (uint32_t far = 1; far < PDR_REACH; far++) {
        const pdr_bucket *b = &pdr_buckets_of(ix)[pdr_index_probe(ix, k.bucket, k.lo, far)];
        uint32_t j = pdr_bucket_find(b, k, far);
        if (j < PDR_SLOTS) return b->ref[j];
        if (!b->over) return 0;
    }
    return 0;
}

uint32_t pdr_table_home(const pdr_index *ix, uint32_t slot)
{
    const pdr_bucket *b = &pdr_buckets_of(ix)[slot / PDR_SLOTS];
    uint32_t at = slot / PDR_SLOTS, j = slot % PDR_SLOTS, far = pdr_far_get(b, j);
    if (far < 2) return at ^ far;
    uint64_t back = ix->buckets - (1 + ((uint64_t)b->lo[j] * (ix->buckets - 1) >> 32));
    return (uint32_t)((at + (far - 1) * back) % ix->buckets);
}

/* Counts a block in the buckets that it probed before `far`, from `first` on, or takes it out of them. */
static void count_over(pdr_index *ix, uint32_t home, uint32_t lo, uint32_t first, uint32_t far, int n)
{
    for (; first < far; first++) {
        uint8_t *over = &pdr_buckets_of(ix)[pdr_index_probe(ix, home, lo, first)].over;
        if (*over < 255) *over = (uint8_t)(*over + n);
    }
}

static uint32_t free_slot(const pdr_index *ix, uint32_t at)
{
    const pdr_bucket *b = &pdr_buckets_of(ix)[at];
    for (uint32_t j = 0; j < PDR_SLOTS; j++)
        if (!b->ref[j]) return at * PDR_SLOTS + j;
    return PDR_NIL;
}

static void fill_slot(pdr_index *ix, uint32_t slot, uint32_t lo, uint16_t hi, uint32_t far, uint32_t ref)
{
    pdr_bucket *b = &pdr_buckets_of(ix)[slot / PDR_SLOTS];
    uint32_t j = slot % PDR_SLOTS;
    b->lo[j] = lo;
    b->hi[j] = hi;
    far_set(b, j, far);
    PDR_PUBLISH(b->ref[j], ref);
}

/* Moves a block of a full bucket on to a later one of its own, and returns its slot. */
static uint32_t make_slot(pdr_index *ix, uint32_t bucket)
{
    pdr_bucket *b = &pdr_buckets_of(ix)[bucket];
    for (uint32_t j = 0; j < PDR_SLOTS; j++) {
        uint32_t was = pdr_far_get(b, j), lo = b->lo[j], home = pdr_table_home(ix, bucket * PDR_SLOTS + j);
        for (uint32_t far = was + 1; far < PDR_REACH; far++) {
            uint32_t slot = free_slot(ix, pdr_index_probe(ix, home, lo, far));
            if (slot == PDR_NIL) continue;
            fill_slot(ix, slot, lo, b->hi[j], far, b->ref[j]);
            pdr_slots_of(ix)[b->ref[j] - 1] = slot;
            count_over(ix, home, lo, was, far, 1);
            PDR_PUBLISH(b->ref[j], 0u);
            return bucket * PDR_SLOTS + j;
        }
    }
    return PDR_NIL;
}

uint32_t pdr_table_add(pdr_index *ix, pdr_key k, uint32_t ref, int root)
{
    uint32_t far = 0, slot = free_slot(ix, k.bucket);
    while (slot == PDR_NIL && ++far < PDR_REACH) slot = free_slot(ix, pdr_index_probe(ix, k.bucket, k.lo, far));
    if (slot == PDR_NIL) {
        far = 0;
        slot = make_slot(ix, k.bucket);
        if (slot == PDR_NIL) return PDR_NIL;
    }
    fill_slot(ix, slot, k.lo, k.hi, far, ref);
    count_over(ix, k.bucket, k.lo, 0, far, 1);
    ix->blocks++;
    if (root) {
        uint8_t *cell = pdr_root_cell(ix, k.bucket, k.hi);
        if (*cell < 255) ++*cell;
    }
    return slot;
}

void pdr_table_count_over(pdr_index *ix, uint32_t slot)
{
    const pdr_bucket *b = &pdr_buckets_of(ix)[slot / PDR_SLOTS];
    uint32_t j = slot % PDR_SLOTS;
    count_over(ix, pdr_table_home(ix, slot), b->lo[j], 0, pdr_far_get(b, j), 1);
}

void pdr_table_drop(pdr_index *ix, uint32_t slot, int root)
{
    pdr_bucket *b = &pdr_buckets_of(ix)[slot / PDR_SLOTS];
    uint32_t j = slot % PDR_SLOTS, far = pdr_far_get(b, j), home = slot / PDR_SLOTS;
    if (far) home = pdr_table_home(ix, slot);
    PDR_PUBLISH(b->ref[j], 0u);
    ix->blocks--;
    count_over(ix, home, b->lo[j], 0, far, -1);
    if (root) {
        uint8_t *cell = pdr_root_cell(ix, home, b->hi[j]);
        if (*cell < 255) --*cell;
    }
}
