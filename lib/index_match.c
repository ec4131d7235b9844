#include "index_parts.h"

#include <string.h>

enum { BATCH = 16 }; /* segments whose memory is fetched at once */
#define PENDING UINT32_MAX

/* The ids that hold the chain up to here. */
typedef struct walk {
    const pdr_index *ix;
    uint16_t *depth;
    uint32_t words; /* in at[]; 0: nobody, unless `one` */
    uint32_t kept;  /* in kept_at[] */
    uint16_t one;   /* a single id, or PDR_NO_ID */
    uint8_t began, spaced; /* spaced: of the chain only samples are looked at */
    uint32_t *holders; /* who is to be told, or NULL */
    uint32_t holding;
    uint16_t at[PDR_MAX_WORDS], kept_at[PDR_MAX_WORDS]; /* words of active[] and keep[] that are not 0 */
    uint64_t active[PDR_MAX_WORDS], keep[PDR_MAX_WORDS];
} walk;

static void begin_walk(walk *w, const pdr_index *ix, uint16_t *depth, uint32_t *holders)
{
    w->ix = ix;
    w->depth = depth;
    w->words = w->kept = 0;
    w->one = PDR_NO_ID;
    w->began = w->spaced = 0;
    w->holders = holders;
    w->holding = 0;
    memset(w->active, 0, ix->words * sizeof *w->active);
    memset(w->keep, 0, ix->words * sizeof *w->keep);
}

static int alive(const walk *w)
{
    return w->one != PDR_NO_ID || w->words || !w->began;
}

static void leave_word(walk *w, uint32_t word, uint64_t bits, uint32_t depth)
{
    const uint16_t *owner = pdr_owner_of(w->ix) + word * 64;
    if (w->holders) {
        for (uint64_t left = depth ? bits : 0; left; left &= left - 1) w->holders[w->holding++] = owner[__builtin_ctzll(left)];
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (pdr_straight_of(w->ix)[word]) { /* four targets at a time: a bit becomes 16 */
        const uint64_t ones = 0x0001000100010001u, spread = 0x0000200040008001u, value = ones * depth;
        for (uint16_t *to = w->depth + word * 64; bits; bits >>= 4, to += 4) {
            uint64_t mask = ((bits & 15) * spread & ones) * 0xffff, was;
            memcpy(&was, to, sizeof was);
            was = (was & ~mask) | (value & mask);
            memcpy(to, &was, sizeof was);
        }
        return;
    }
#endif
    for (; bits; bits &= bits - 1) w->depth[owner[__builtin_ctzll(bits)]] = (uint16_t)depth;
}

/* All that are left leave at this depth. */
static void leave_all(walk *w, uint32_t depth)
{
    if (w->one != PDR_NO_ID) {
        uint16_t target = pdr_owner_of(w->ix)[w->one];
        w->depth[target] = (uint16_t)depth;
        if (w->holders && depth) w->holders[w->holding++] = target;
    }
    for (uint32_t i = 0; i < w->words; i++) leave_word(w, w->at[i], w->active[w->at[i]], depth);
    w->one = PDR_NO_ID;
    w->words = 0;
    w->began = 1;
}

static uint32_t leading(const walk *w, uint16_t mask)
{
    return w->spaced ? 0 : (uint32_t)__builtin_ctz(~(uint32_t)mask);
}

static void keep_bits(walk *w, uint32_t word, uint64_t bits)
{
    if (!w->keep[word]) w->kept_at[w->kept++] = (uint16_t)word;
    w->keep[word] |= bits;
}

/* A holder that is not in the set: stays if it holds all that is needed, else leaves where its part ends. */
static void offer(walk *w, const pdr_share *h, uint32_t need, uint32_t base)
{
    if (h->id == PDR_NO_ID) return;
    uint32_t word = h->id >> 6;
    uint64_t bit = 1ull << (h->id & 63);
    if ((h->mask & need) == need) {
        keep_bits(w, word, bit);
    } else if (!w->began) {
        if (pdr_held_of(w->ix)[word] & bit) leave_word(w, word, bit, base + leading(w, h->mask));
    } else if (w->active[word] & bit) {
        leave_word(w, word, bit, base + leading(w, h->mask));
        w->active[word] &= ~bit;
    }
}

static uint16_t mask_of(const pdr_index *ix, uint32_t at, uint16_t id)
{
    const pdr_run *run = &pdr_runs_of(ix)[at];
    if (run->share.id == id) return run->share.mask;
    if (run->shares == 1) return 0;
    if (pdr_set_has(ix, run, id)) return pdr_full_mask(run);
    uint32_t share = pdr_run_share(ix, at, id);
    return share == PDR_NIL ? 0 : pdr_share_at(ix, share)->mask;
}

static void begin_with_kept(walk *w)
{
    const uint64_t *held = pdr_held_of(w->ix);
    for (uint32_t i = 0; i < w->kept; i++) {
        uint32_t word = w->kept_at[i];
        w->active[word] = w->keep[word] & held[word];
        w->keep[word] = 0;
        if (w->active[word]) w->at[w->words++] = (uint16_t)word;
    }
    w->began = 1;
}

static void stay_with_kept(walk *w, uint32_t base)
{
    uint32_t words = 0;
    for (uint32_t i = 0; i < w->words; i++) {
        uint32_t word = w->at[i];
        uint64_t was = w->active[word], stay = was & w->keep[word];
        leave_word(w, word, was ^ stay, base);
        w->active[word] = stay;
        if (stay) w->at[words++] = (uint16_t)word;
    }
    w->words = words;
    for (uint32_t i = 0; i < w->kept; i++) w->keep[w->kept_at[i]] = 0;
}

/* 1 if nobody leaves at a run, as far as its set and its own share can tell: the common case within a prefix that many
 * have. */
static int all_stay(const walk *w, const pdr_run *run, uint32_t need)
{
    uint32_t own_word = run->share.id >> 6, covered = 0;
    uint64_t own_bit = (run->share.mask & need) == need ? 1ull << (run->share.id & 63) : 0;
    for (uint32_t s = run->set; s != PDR_NIL; s = pdr_sets_of(w->ix)[s].next) {
        const pdr_set *set = &pdr_sets_of(w->ix)[s];
        for (uint32_t i = 0; i < PDR_SET_WORDS; i++) {
            if (set->word[i] == PDR_NO_ID) continue;
            uint64_t active = w->active[set->word[i]];
            if (active & ~(set->bits[i] | (set->word[i] == own_word ? own_bit : 0))) return 0;
            covered += active != 0;
        }
    }
    return covered == w->words;
}

/* The chain passes through the blocks `need` of a run; those of its holders that lack one leave. */
static void pass(walk *w, uint32_t at, uint32_t need, uint32_t base)
{
    const pdr_index *ix = w->ix;
    const pdr_run *run = &pdr_runs_of(ix)[at];
    if (w->one != PDR_NO_ID) {
        uint16_t mask = run->share.id == w->one ? run->share.mask : mask_of(ix, at, w->one);
        if ((mask & need) != need) leave_all(w, base + leading(w, mask));
        return;
    }
    if (w->began && all_stay(w, run, need)) return;
    w->kept = 0;
    offer(w, &run->share, need, base);
    if (run->shares > 1) {
        for (uint32_t x = run->list; x != PDR_NIL; x = pdr_extras_of(ix)[x].list_next)
            offer(w, &pdr_extras_of(ix)[x].share, need, base);
        for (uint32_t s = run->set; s != PDR_NIL; s = pdr_sets_of(ix)[s].next) {
            const pdr_set *set = &pdr_sets_of(ix)[s];
            for (uint32_t i = 0; i < PDR_SET_WORDS; i++)
                if (set->word[i] != PDR_NO_ID) keep_bits(w, set->word[i], set->bits[i]);
        }
    }
    if (w->began)
        stay_with_kept(w, base);
    else
        begin_with_kept(w);
    if (w->words != 1) return;
    uint64_t bits = w->active[w->at[0]];
    if (bits & (bits - 1)) return;
    w->one = (uint16_t)(w->at[0] * 64 + __builtin_ctzll(bits));
    w->words = 0;
}

/* ---- the runs on the chain's way through a segment */

typedef struct path {
    uint32_t steps;
    uint32_t ref[PDR_RUN]; /* deepest first: the last block of a run that is on the way */
} path;

static uint32_t ref_at(const pdr_index *ix, const uint64_t *hashes, uint32_t position)
{
    return pdr_table_find(ix, pdr_index_key(ix, hashes[position]));
}

/* A block stored at another position or across segments is not of this chain (a misuse, but no reason to overcount). */
static int fits(const pdr_index *ix, uint32_t ref, uint32_t position, uint32_t low)
{
    if (!ref) return 0;
    uint32_t start = pdr_runs_of(ix)[pdr_ref_run(ref)].start;
    return start >= low && start + pdr_ref_offset(ref) == position;
}

/*
 * Positions [low, high] of a segment, `ref` of the last one. Goes up from the deepest block that is known, one look-up
 * for each run. If that is not the last, any block will do that is there while the next is not: nobody's leading run
 * goes past it, and all before it are looked at. Returns where the leading run of blocks ends.
 */
static uint32_t find_path(const pdr_index *ix, const uint64_t *hashes, uint32_t low, uint32_t high, uint32_t ref,
                          path *p)
{
    uint32_t end = high + 1, at = high;
    p->steps = 0;
    for (;;) {
        if (fits(ix, ref, at, low)) {
            p->ref[p->steps++] = ref;
            uint32_t start = at - pdr_ref_offset(ref);
            if (start == low) return end;
            at = start - 1;
        } else {
            p->steps = 0;
            if (at == low || !fits(ix, ref_at(ix, hashes, low), low, low)) return low;
            uint32_t there = low;
            while (at - there > 1) {
                uint32_t middle = (there + at) / 2;
                if (fits(ix, ref_at(ix, hashes, middle), middle, low))
                    there = middle;
                else
                    at = middle;
            }
            at = there;
            end = at + 1;
        }
        ref = ref_at(ix, hashes, at);
    }
}

static void pass_path(walk *w, const path *p)
{
    for (uint32_t i = p->steps; i-- > 0 && alive(w);) {
        uint32_t run = pdr_ref_run(p->ref[i]), offset = pdr_ref_offset(p->ref[i]);
        pass(w, run, (2u << offset) - 1, pdr_runs_of(w->ix)[run].start);
    }
}

/* ---- the last blocks of many segments at once, so that memory is waited for once and not for every segment */

static uint32_t last_of(uint32_t segment, uint32_t n)
{
    uint32_t last = segment * PDR_RUN + PDR_RUN - 1;
    return last < n ? last : n - 1;
}

static uint32_t fetch_buckets(const pdr_index *ix, const uint64_t *hashes, uint32_t n, uint32_t segment, pdr_key *keys)
{
    uint32_t left = (n + PDR_RUN - 1) / PDR_RUN - segment, count = left < BATCH ? left : BATCH;
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = pdr_index_key(ix, hashes[last_of(segment + i, n)]);
        __builtin_prefetch(&pdr_buckets_of(ix)[keys[i].bucket]);
    }
    return count;
}

/* Their refs, up to the first that is not there: the chain ends in its segment. Fetches their runs, and where that
 * segment begins. */
static uint32_t look_up(const pdr_index *ix, const uint64_t *firsts, const pdr_key *keys, uint32_t count,
                        uint32_t *refs)
{
    for (uint32_t i = 0; i < count; i++) {
        const pdr_bucket *b = &pdr_buckets_of(ix)[keys[i].bucket];
        uint32_t j = pdr_bucket_find(b, keys[i], 0);
        if (j < PDR_SLOTS) {
            refs[i] = b->ref[j];
            __builtin_prefetch(&pdr_runs_of(ix)[pdr_ref_run(refs[i])]);
        } else if (b->over) {
            refs[i] = PENDING;
            __builtin_prefetch(&pdr_buckets_of(ix)[pdr_index_probe(ix, keys[i].bucket, keys[i].lo, 1)]);
        } else {
            refs[i] = 0;
            count = i + 1;
            __builtin_prefetch(&pdr_buckets_of(ix)[pdr_index_key(ix, firsts[i * PDR_RUN]).bucket]);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (refs[i] != PENDING) continue;
        refs[i] = pdr_table_find_far(ix, keys[i]);
        if (refs[i])
            __builtin_prefetch(&pdr_runs_of(ix)[pdr_ref_run(refs[i])]);
        else
            count = i + 1;
    }
    return count;
}

static void fetch_set(const pdr_index *ix, uint32_t ref)
{
    uint32_t set = ref ? pdr_runs_of(ix)[pdr_ref_run(ref)].set : PDR_NIL;
    if (set != PDR_NIL) __builtin_prefetch(&pdr_sets_of(ix)[set]);
}

/* One segment, `ref` of its last block; returns where the leading run of blocks ends. */
static uint32_t match_segment(walk *w, const uint64_t *hashes, uint32_t low, uint32_t high, uint32_t ref)
{
    const pdr_index *ix = w->ix;
    if (ref && pdr_ref_offset(ref) == high - low) {
        const pdr_run *run = &pdr_runs_of(ix)[pdr_ref_run(ref)];
        if (run->start == low) { /* one run is all there is; mostly with one holder */
            uint32_t need = (2u << (high - low)) - 1;
            if (w->one == PDR_NO_ID || run->share.id != w->one || (run->share.mask & need) != need)
                pass(w, pdr_ref_run(ref), need, low);
            return high + 1;
        }
    }
    path p;
    uint32_t end = find_path(ix, hashes, low, high, ref, &p);
    pass_path(w, &p);
    return end;
}

static void match_segments(walk *w, const uint64_t *hashes, uint32_t n)
{
    pdr_key keys[BATCH];
    uint32_t refs[BATCH], end = 0;
    for (uint32_t segment = 0, fetched = fetch_buckets(w->ix, hashes, n, 0, keys); end < n && alive(w);) {
        uint32_t count = look_up(w->ix, hashes + segment * PDR_RUN, keys, fetched, refs);
        segment += fetched;
        fetched = segment * PDR_RUN < n ? fetch_buckets(w->ix, hashes, n, segment, keys) : 0;
        for (uint32_t i = 0; i < count && end < n && alive(w); i++) {
            if (i + 1 < count) fetch_set(w->ix, refs[i + 1]);
            uint32_t low = end, high = low + PDR_RUN - 1 < n ? low + PDR_RUN - 1 : n - 1;
            end = match_segment(w, hashes, low, high, refs[i]);
            if (end <= high) n = end;
        }
    }
    leave_all(w, n);
}

int pdr_index_may_know(const pdr_index *ix, uint64_t first)
{
    pdr_key key = pdr_index_key(ix, first);
    return *pdr_root_cell(ix, key.bucket, key.hi) != 0;
}

uint32_t pdr_index_match_holders(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth, uint32_t *holders)
{
    walk w;
    memset(depth, 0, ix->targets * sizeof *depth);
    if (!n || !pdr_index_may_know(ix, hashes[0])) return 0;
    begin_walk(&w, ix, depth, holders);
    match_segments(&w, hashes, n < 65535 ? (uint32_t)n : 65535);
    return w.holding;
}

void pdr_index_match(const pdr_index *ix, const uint64_t *hashes, size_t n, uint16_t *depth) { pdr_index_match_holders(ix, hashes, n, depth, NULL); }

/* ---- samples */

/* Nobody leaves at these blocks of a run, as far as can be told at once. */
static int stay(const walk *w, uint32_t at, uint32_t need)
{
    const pdr_run *run = &pdr_runs_of(w->ix)[at];
    if (w->one == PDR_NO_ID) return w->began && all_stay(w, run, need);
    uint16_t mask = run->share.id == w->one ? run->share.mask : mask_of(w->ix, at, w->one);
    return (mask & need) == need;
}

/* Samples [i, end), which are these blocks of one run. */
static void pass_run(walk *w, uint32_t run, uint32_t need, uint32_t i, uint32_t end)
{
    for (; i < end && alive(w) && !stay(w, run, need); i++, need &= need - 1) pass(w, run, need & (0u - need), i);
}

/* Samples [i, end), each by itself; returns where the leading run of those that are there ends. */
static uint32_t pass_each(walk *w, const uint64_t *hashes, uint32_t i, uint32_t end)
{
    for (; i < end && alive(w); i++) {
        uint32_t ref = ref_at(w->ix, hashes, i);
        if (!ref) break;
        pass(w, pdr_ref_run(ref), 1u << pdr_ref_offset(ref), i);
    }
    return i;
}

/* Evenly spaced samples: `block` is one more than the block that the next one is, over / samples what it is beyond that. */
typedef struct spread {
    uint64_t step, rest, over, block;
    uint32_t samples;
} spread;

/* Those from sample i on that lie in one segment. */
typedef struct stretch {
    uint64_t first, last, offsets; /* blocks; a bit for each, in the segment */
    uint32_t end;                  /* the sample behind */
} stretch;

static stretch next_stretch(spread *s, uint32_t i)
{
    stretch x = {.first = s->block - 1, .last = s->block - 1, .end = i};
    uint64_t high = x.first | (PDR_RUN - 1);
    if (s->step == 1 && !s->rest) { /* every block is one */
        uint64_t n = high - x.first + 1 < s->samples - i ? high - x.first + 1 : s->samples - i;
        x.offsets = ((1ull << n) - 1) << (x.first & (PDR_RUN - 1));
        x.last = x.first + n - 1;
        x.end = i + (uint32_t)n;
        s->block += n;
        return x;
    }
    do {
        x.last = s->block - 1;
        x.offsets |= 1ull << (x.last & (PDR_RUN - 1));
        x.end++;
        s->block += s->step;
        s->over += s->rest;
        if (s->over >= s->samples) s->over -= s->samples, s->block++;
    } while (x.end < s->samples && s->block - 1 <= high);
    return x;
}

uint32_t pdr_index_match_sample(const pdr_index *ix, const uint64_t *hashes, size_t n, size_t blocks, uint16_t *depth, uint32_t *holders)
{
    walk w;
    uint32_t i = 0;
    if (!n) return 0;
    if (blocks < 2 * n && !pdr_index_may_know(ix, hashes[0])) return 0; /* the first sample is the first block */
    begin_walk(&w, ix, depth, holders);
    if (blocks == n && n < 65535) {
        match_segments(&w, hashes, (uint32_t)n);
        return w.holding;
    }
    w.spaced = 1;
    spread s = {.step = blocks / n, .rest = blocks % n, .over = blocks % n, .block = blocks / n, .samples = n < 65535 ? (uint32_t)n : 65535};
    while (i < s.samples && alive(&w)) {
        stretch  x = next_stretch(&s, i);
        uint32_t ref = ref_at(ix, hashes, x.end - 1), run = ref ? pdr_ref_run(ref) : 0, start = ref ? pdr_runs_of(ix)[run].start : 0;
        if (ref && start <= x.first && start + pdr_ref_offset(ref) == x.last) { /* the last proves the others */
            pass_run(&w, run, (uint32_t)(x.offsets >> (start & (PDR_RUN - 1))), i, x.end);
            i = x.end;
        } else {
            i = pass_each(&w, hashes, i, x.end);
            if (i < x.end) break;
        }
    }
    leave_all(&w, i);
    return w.holding;
}
