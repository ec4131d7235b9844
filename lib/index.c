#include "index.h"

#include "index_parts.h"

#include <string.h>

/* ---- making, counting */

uint64_t pdr_index_size(uint64_t entries, uint32_t targets)
{
    pdr_index ix;
    pdr_index_lay_out(&ix, entries, targets);
    return ix.size;
}

void pdr_index_init(pdr_index *ix, uint64_t entries, uint32_t targets)
{
    memset(ix, 0, sizeof *ix);
    pdr_index_lay_out(ix, entries, targets);
    memset((char *)ix + ix->at_targets, 0, ix->size - ix->at_targets);
    for (uint32_t i = 0; i < targets; i++) pdr_targets_of(ix)[i].id = i;
    for (uint32_t i = 0; i < ix->runs; i++) pdr_runs_of(ix)[i].share.id = PDR_NO_ID;
    for (uint32_t i = 0; i < ix->extras; i++) pdr_extras_of(ix)[i].share.id = PDR_NO_ID;
    PDR_PUBLISH(ix->dirty, 1u);
    pdr_index_repair(ix);
}

uint64_t pdr_index_capacity(const pdr_index *ix, uint32_t target)
{
    return target < ix->targets ? pdr_targets_of(ix)[target].capacity : 0;
}

uint64_t pdr_index_count(const pdr_index *ix, uint32_t target)
{
    return target < ix->targets ? pdr_ids_of(ix)[pdr_targets_of(ix)[target].id].count : 0;
}

uint64_t pdr_index_entries(const pdr_index *ix)
{
    return ix->pairs;
}
uint64_t pdr_index_evictions(const pdr_index *ix)
{
    return ix->evictions;
}

enum { RECLAIM = 4, /* shares of cleared targets per 16 blocks stored */
       AHEAD = 16 /* segments whose memory is fetched at once */ };

/* ---- changing. `dirty` stands while anything but the ground truth may be half done. */

static void begin(pdr_index *ix)
{
    __atomic_store_n(&ix->dirty, 1u, __ATOMIC_RELAXED);
    /* The compiler's order is enough: a process that is killed has made all its stores up to some instruction, and none after it. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void end(pdr_index *ix)
{
    PDR_PUBLISH(ix->dirty, 0u);
}

typedef struct storing {
    pdr_index *ix;
    uint16_t id;
    uint32_t newest;      /* share touched last: the next one goes behind it */
    uint32_t run, offset; /* of the block before, or run PDR_NIL */
    int adding;           /* the block before was new: what follows will be, too */
} storing;

static void look_up(const pdr_index *ix, const uint64_t *hashes, uint32_t n, pdr_key *keys)
{
    for (uint32_t i = 0; i < n; i++) keys[i] = pdr_index_key(ix, hashes[i]);
}

/* The first and the last, which is all that a segment needs of which all is in one run: look_up_rest() has the others. */
static void look_up_ends(const pdr_index *ix, const uint64_t *hashes, uint32_t n, pdr_key *keys)
{
    if (!n) return;
    keys[0] = pdr_index_key(ix, hashes[0]);
    if (n > 1) keys[n - 1] = pdr_index_key(ix, hashes[n - 1]);
}

static void look_up_rest(const pdr_index *ix, const uint64_t *hashes, uint32_t n, pdr_key *keys)
{
    if (n > 2) look_up(ix, hashes + 1, n - 2, keys + 1);
}

static void fetch(const pdr_index *ix, const pdr_key *keys, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) __builtin_prefetch(&pdr_buckets_of(ix)[keys[i].bucket], 1);
}

static uint32_t segment_end(uint32_t at, uint32_t end_at)
{
    uint32_t end = at - at % PDR_RUN + PDR_RUN;
    return end < end_at ? end : end_at;
}

/*
 * What the next segments need, so that memory is waited for once and not for every segment. Of blocks that are in a run already only the first and the last are
 * looked up; of new ones all, which is left to when it is known that they are.
 */
static void fetch_segments(const pdr_index *ix, uint16_t id, const uint64_t *hashes, uint32_t from, uint32_t end_at)
{
    pdr_key last[AHEAD];
    uint32_t n = 0;
    for (uint32_t at = from, end; at < end_at && n < AHEAD; at = end) {
        end = segment_end(at, end_at);
        __builtin_prefetch(&pdr_buckets_of(ix)[pdr_index_key(ix, hashes[at - from]).bucket], 1);
        last[n] = pdr_index_key(ix, hashes[end - 1 - from]);
        __builtin_prefetch(&pdr_buckets_of(ix)[last[n++].bucket], 1);
    }
    for (uint32_t i = 0, ref; i < n && n > 1; i++) {
        if (!(ref = pdr_table_find(ix, last[i]))) continue;
        __builtin_prefetch(&pdr_runs_of(ix)[pdr_ref_run(ref)], 1);
        __builtin_prefetch(pdr_extra_head(ix, pdr_ref_run(ref), id));
    }
}

static void touch(storing *s, uint32_t share, int linked)
{
    if (share == s->newest) return;
    if (linked) pdr_lru_unlink(s->ix, share);
    pdr_lru_link(s->ix, share, s->newest);
    s->newest = share;
}

/* The chain's blocks keys[0..] that are in a run from `offset` on: last offset. */
static uint32_t last_in_run(const pdr_index *ix, uint32_t ref, uint32_t offset, uint32_t last, const pdr_key *keys)
{
    if (last > offset && pdr_table_find(ix, keys[last - offset]) == ref + last - offset) return last;
    uint32_t at = offset;
    while (at < last && pdr_table_find(ix, keys[at + 1 - offset]) == ref + at + 1 - offset) at++;
    return at;
}

/* Takes a share in the blocks that are in a run already; returns how many, 0 if the run lies elsewhere in its chain. */
static uint32_t store_known(storing *s, uint32_t ref, uint32_t position, const pdr_key *keys, uint32_t n)
{
    pdr_index *ix = s->ix;
    uint32_t at = pdr_ref_run(ref), offset = pdr_ref_offset(ref);
    pdr_run *run = &pdr_runs_of(ix)[at];
    if (run->start + offset != position) return 0;
    uint32_t last = run->len - 1u < offset + n - 1 ? run->len - 1u : offset + n - 1;
    last = last_in_run(ix, ref, offset, last, keys);
    uint32_t done = last + 1 - offset;
    /* Where chains part for the first time the run is split, so that each half is held as a whole. */
    if (last + 1u < run->len && done < n && run->shares == 1 && run->share.mask & ((2u << last) - 1) &&
        !pdr_table_find(ix, keys[done]))
        pdr_run_split(ix, at, last + 1);
    uint32_t share = pdr_run_share(ix, at, s->id);
    int linked = share != PDR_NIL;
    if (!linked) share = pdr_share_make(ix, at, s->id);
    pdr_share_add(ix, share, (uint16_t)(((2u << last) - 1) & ~((1u << offset) - 1)));
    touch(s, share, linked);
    s->run = at;
    s->offset = last;
    return done;
}

/*
 * Adds blocks that are not known, up to the next that is; returns how many. They follow the block before in its run, if
 * that ends there, or begin a new one. A run with a set of those that hold all of it cannot grow.
 */
static uint32_t store_new(storing *s, uint32_t position, const pdr_key *keys, uint32_t n)
{
    pdr_index *ix = s->ix;
    pdr_run *run = s->run == PDR_NIL ? NULL : &pdr_runs_of(ix)[s->run];
    int grow = run && position % PDR_RUN && run->set == PDR_NIL && s->offset + 1u == run->len;
    uint32_t at = grow ? s->run : pdr_run_make(ix, position), done = 0;
    run = &pdr_runs_of(ix)[at];
    uint32_t from = run->len;
    uint32_t *slots = pdr_slots_of(ix) + (size_t)at * PDR_RUN;
    do {
        uint32_t slot = pdr_table_add(ix, keys[done], pdr_ref(at, from + done), position + done == 0);
        if (slot == PDR_NIL) break;
        slots[from + done] = slot;
        done++;
    } while (done < n && !pdr_table_find(ix, keys[done]));
    if (!done) {
        if (!grow) pdr_run_free(ix, at);
        return 0;
    }
    PDR_PUBLISH(run->len, (uint8_t)(from + done));
    uint32_t share = grow ? s->newest : pdr_share_make(ix, at, s->id);
    pdr_share_add(ix, share, (uint16_t)(((1u << done) - 1) << from));
    touch(s, share, grow);
    s->run = at;
    s->offset = from + done - 1;
    return done;
}

/* Of the keys the first and the last are there; 1 if no more were needed. */
static int store_at_once(storing *s, uint32_t position, const pdr_key *keys, uint32_t n)
{
    uint32_t ref = s->adding ? 0 : pdr_table_find(s->ix, keys[0]);
    if (!ref || pdr_table_find(s->ix, keys[n - 1]) != ref + n - 1 || pdr_ref_run(ref) != pdr_ref_run(ref + n - 1)) return 0;
    return store_known(s, ref, position, keys, n) == n;
}

static int store_segment(storing *s, uint32_t position, const pdr_key *keys, uint32_t n)
{
    for (uint32_t i = 0, done; i < n; i += done) {
        uint32_t ref = pdr_table_find(s->ix, keys[i]);
        if (!ref && !s->adding) fetch(s->ix, keys + i, n - i);
        s->adding = !ref;
        done = ref ? store_known(s, ref, position + i, keys + i, n - i) : store_new(s, position + i, keys + i, n - i);
        if (!done) return 0;
    }
    return 1;
}

void pdr_index_extend(pdr_index *ix, uint32_t target, uint32_t from, const uint64_t *hashes, size_t n)
{
    if (target >= ix->targets || from > 65535) return;
    uint32_t end_at = n < 65535 - from ? from + (uint32_t)n : 65535;
    storing s = {ix, (uint16_t)pdr_targets_of(ix)[target].id, PDR_NIL, PDR_NIL, 0, 0};
    pdr_key keys[PDR_RUN];
    if (end_at == from) return;
    begin(ix);
    for (uint32_t at = from, next, segments = 0; at < end_at; at = next, segments++) {
        next = segment_end(at, end_at);
        uint32_t count = next - at;
        const uint64_t *own = hashes + (at - from);
        if (segments % AHEAD == 0) fetch_segments(ix, s.id, own, at, end_at);
        look_up_ends(ix, own, count, keys);
        pdr_room_reclaim(ix, RECLAIM);
        if (!pdr_room_make(ix, s.id, count, at - from)) break;
        /* Making room may have moved the last share. If it is gone, the chain fills the whole index: the rest would not
         * be found. */
        if (s.run != PDR_NIL && (s.newest = pdr_run_share(ix, s.run, s.id)) == PDR_NIL) break;
        if (!store_at_once(&s, at, keys, count)) {
            look_up_rest(ix, own, count, keys);
            if (s.adding) fetch(ix, keys, count);
            if (!store_segment(&s, at, keys, count)) break;
        }
    }
    pdr_room_keep_capacity(ix, target);
    end(ix);
}

void pdr_index_store(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n)
{
    pdr_index_extend(ix, target, 0, hashes, n);
}

/* Takes away neighbouring blocks of one run at once, from refs[0] on; returns how many. */
static uint32_t remove_some(pdr_index *ix, uint16_t id, const uint32_t *refs, uint32_t n)
{
    uint32_t run = pdr_ref_run(refs[0]), done = 0, share;
    uint16_t bits = 0;
    if (!refs[0]) return 1;
    for (; done < n && refs[done] && pdr_ref_run(refs[done]) == run; done++)
        bits |= (uint16_t)(1u << pdr_ref_offset(refs[done]));
    /* What was just removed may have freed the run; then nobody holds it. */
    share = pdr_run_share(ix, run, id);
    if (share != PDR_NIL) pdr_share_take(ix, share, bits);
    return done;
}

void pdr_index_remove(pdr_index *ix, uint32_t target, const uint64_t *hashes, size_t n)
{
    if (target >= ix->targets || !n) return;
    uint16_t id = (uint16_t)pdr_targets_of(ix)[target].id;
    pdr_key keys[PDR_RUN];
    uint32_t refs[PDR_RUN];
    begin(ix);
    for (size_t at = 0; at < n; at += PDR_RUN) {
        uint32_t count = n - at < PDR_RUN ? (uint32_t)(n - at) : PDR_RUN, last = PDR_NIL;
        look_up(ix, hashes + at, count, keys);
        fetch(ix, keys, count);
        for (uint32_t i = 0; i < count; i++) {
            refs[i] = pdr_table_find(ix, keys[i]);
            if (!refs[i] || pdr_ref_run(refs[i]) == last) continue;
            last = pdr_ref_run(refs[i]);
            __builtin_prefetch(&pdr_runs_of(ix)[last], 1);
            __builtin_prefetch(&pdr_slots_of(ix)[(size_t)last * PDR_RUN]);
        }
        for (uint32_t i = 0; i < count;) i += remove_some(ix, id, refs + i, count - i);
    }
    end(ix);
}

void pdr_index_clear(pdr_index *ix, uint32_t target)
{
    if (target >= ix->targets || !pdr_index_count(ix, target)) return;
    pdr_target *t = &pdr_targets_of(ix)[target];
    uint32_t old = t->id;
    pdr_id *ids = pdr_ids_of(ix);
    begin(ix);
    if (ix->free_id == PDR_NIL && ix->cleared_first != PDR_NIL) {
        uint32_t first = ix->cleared_first;
        while (ix->cleared_first == first) pdr_room_reclaim(ix, 1);
    }
    if (ix->free_id == PDR_NIL) {
        while (ids[old].oldest != PDR_NIL) pdr_share_drop(ix, ids[old].oldest);
    } else {
        uint32_t fresh = ix->free_id;
        ix->free_id = ids[fresh].next;
        pdr_owner_of(ix)[fresh] = (uint16_t)target;
        PDR_PUBLISH(t->id, fresh);
        pdr_owner_of(ix)[old] = PDR_NO_ID;
        pdr_held_of(ix)[old >> 6] &= ~(1ull << (old & 63));
        pdr_id_straighten(ix, old >> 6);
        pdr_id_straighten(ix, fresh >> 6);
        ix->pairs -= ids[old].count;
        ids[old].next = PDR_NIL;
        if (ix->cleared_last == PDR_NIL)
            ix->cleared_first = old;
        else
            ids[ix->cleared_last].next = old;
        ix->cleared_last = old;
    }
    end(ix);
}

void pdr_index_set_capacity(pdr_index *ix, uint32_t target, uint64_t blocks)
{
    if (target >= ix->targets || pdr_targets_of(ix)[target].capacity == blocks) return;
    begin(ix);
    PDR_PUBLISH(pdr_targets_of(ix)[target].capacity, blocks);
    pdr_room_keep_capacity(ix, target);
    end(ix);
}
