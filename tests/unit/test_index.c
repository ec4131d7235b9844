/* lib/index*.c against a naive model, at its limits, and after being killed. */
#include "index.h"
#include "index_model.h"
#include "index_parts.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

static model m;
static uint64_t hashes[MODEL_CHAIN];
static uint32_t nodes[MODEL_CHAIN];
static uint16_t depth[MODEL_TARGETS];
static uint64_t seed;

static uint32_t below(uint32_t n)
{
    seed = model_mix(seed);
    return (uint32_t)((seed >> 32) * n >> 32);
}

static pdr_index *fresh(uint64_t entries, uint32_t targets)
{
    size_t size = pdr_index_size(entries, targets);
    pdr_index *ix = aligned_alloc(64, size);
    assert_non_null(ix);
    assert_int_equal(size % 64, 0);
    memset(ix, 0xa5, size);
    pdr_index_init(ix, entries, targets);
    model_init(&m, targets);
    return ix;
}

static void check(const pdr_index *ix)
{
    char why[160] = "";
    if (pdr_index_check(ix, why, sizeof why)) fail_msg("%s", why);
}

/* A chain that shares a random part with an old one and goes on at random; small alphabets make more sharing. */
static uint32_t random_chain(uint32_t alphabet, uint32_t longest)
{
    uint32_t at = below(m.nodes), keep = below(m.node[at].depth + 1);
    while (m.node[at].depth > keep) at = m.node[at].parent;
    if (below(4) == 0) keep = longest;
    for (uint32_t want = keep + below(longest - keep + 1); m.node[at].depth < want;) {
        uint32_t next = model_step(&m, at, below(16) ? 0 : below(alphabet));
        if (!next) break;
        at = next;
    }
    return model_chain(&m, at, hashes, nodes);
}

static uint32_t holds(const pdr_index *ix, uint32_t t, uint32_t node)
{
    uint32_t holders[MODEL_TARGETS];
    memset(depth, 0, sizeof depth);
    pdr_index_match_sample(ix, &m.node[node].hash, 1, m.node[node].depth, depth, holders);
    return depth[t];
}

static void compare(const pdr_index *ix, uint32_t n)
{
    uint64_t sum = 0;
    pdr_index_match(ix, hashes, n, depth);
    for (uint32_t t = 0; t < m.targets; t++) {
        uint32_t want = model_depth(&m, t, nodes, n);
        if (depth[t] != want) fail_msg("target %u: depth %u, not %u", t, depth[t], want);
        assert_int_equal(pdr_index_count(ix, t), m.count[t]);
        sum += m.count[t];
    }
    assert_int_equal(pdr_index_entries(ix), sum);
}

static void random_operation(pdr_index *ix)
{
    uint32_t t = below(m.targets), n = random_chain(3, 70), from, op = below(100);
    if (op < 45) {
        pdr_index_store(ix, t, hashes, n);
        for (uint32_t i = 0; i < n; i++) model_set(&m, t, nodes[i], 1);
    } else if (op < 65) {
        from = below(n + 1);
        pdr_index_extend(ix, t, from, hashes + from, n - from);
        for (uint32_t i = from; i < n; i++) model_set(&m, t, nodes[i], 1);
    } else if (op < 96) {
        from = below(2) ? below(n + 1) : n - below((n < 9 ? n : 9) + 1);
        n -= below(3) ? 0 : below(n - from + 1);
        pdr_index_remove(ix, t, hashes + from, n - from);
        for (uint32_t i = from; i < n; i++) model_set(&m, t, nodes[i], 0);
    } else {
        pdr_index_clear(ix, t);
        model_clear(&m, t);
    }
}

static void differential(uint32_t targets, uint32_t steps, uint64_t first_seed)
{
    pdr_index *ix = fresh(100000, targets);
    seed = first_seed;
    for (uint32_t i = 0; i < steps; i++) {
        if (m.nodes > MODEL_NODES - 200) { /* a new trie; the old chains go with their targets */
            for (uint32_t t = 0; t < targets; t++) pdr_index_clear(ix, t);
            model_init(&m, targets);
            m.node[0].hash = i;
        }
        random_operation(ix);
        check(ix);
        compare(ix, random_chain(3, 70));
    }
    assert_int_equal(pdr_index_evictions(ix), 0);
    free(ix);
}

static void equals_the_model(void **state)
{
    (void)state;
    differential(1, 1500, 1);
    differential(2, 1500, 2);
    differential(5, 2000, 3);
    differential(40, 2500, 4);
    differential(300, 1500, 5);
}

static void sampled_match_equals_the_model(void **state)
{
    (void)state;
    pdr_index *ix = fresh(100000, 20);
    uint64_t sample[MODEL_CHAIN], partial = 0;
    uint32_t sample_nodes[MODEL_CHAIN], holders[MODEL_TARGETS];
    seed = 77;
    for (int i = 0; i < 1500 && m.nodes < MODEL_NODES - 200; i++) {
        random_operation(ix);
        uint32_t n = random_chain(3, 70), k = !n || !below(3) ? n : 1 + below(n);
        for (uint32_t j = 0; j < k; j++) {
            uint32_t at = (j + 1) * n / k - 1;
            sample[j] = hashes[at], sample_nodes[j] = nodes[at];
        }
        memset(depth, 0, sizeof depth);
        uint32_t holding = pdr_index_match_sample(ix, sample, k, n, depth, holders), some = 0;
        for (uint32_t t = 0; t < 20; t++) {
            uint32_t want = model_depth(&m, t, sample_nodes, k);
            assert_int_equal(depth[t], want);
            some += want > 0;
            partial += want > 0 && want < k;
        }
        assert_int_equal(holding, some);
        for (uint32_t j = 0; j < holding; j++) {
            assert_true(depth[holders[j]] > 0);
            for (uint32_t l = 0; l < j; l++) assert_int_not_equal(holders[l], holders[j]);
        }
    }
    assert_true(partial > 1000);
    free(ix);
}

/* Chains are known up to 65,535 blocks, also where each block is a sample. */
static void longer_than_a_depth_counts(void **state)
{
    (void)state;
    enum { LONG = 70000, LESS = 40000, AT_MOST = 65535 };
    static uint64_t chain[LONG];
    uint32_t        holders[MODEL_TARGETS];
    pdr_index      *ix = fresh(200000, 3);
    for (uint32_t i = 0; i < LONG; i++) chain[i] = model_mix(i + 1);
    assert_int_equal(pdr_index_match_sample(ix, chain, 0, 0, depth, holders), 0);
    assert_int_equal(pdr_index_match_sample(ix, chain, LONG, LONG, depth, holders), 0);
    pdr_index_store(ix, 0, chain, LONG);
    pdr_index_store(ix, 1, chain, LESS);
    check(ix);
    for (uint32_t n = AT_MOST; n <= LONG; n += LONG - AT_MOST) {
        memset(depth, 0, sizeof depth);
        pdr_index_match(ix, chain, n, depth);
        assert_int_equal(depth[0], AT_MOST);
        assert_int_equal(depth[1], LESS);
        assert_int_equal(depth[2], 0);
        memset(depth, 0, sizeof depth);
        assert_int_equal(pdr_index_match_sample(ix, chain, n, n, depth, holders), 2);
        assert_int_equal(depth[0], AT_MOST);
        assert_int_equal(depth[1], LESS);
        assert_int_equal(depth[2], 0);
    }
    pdr_index_remove(ix, 0, chain + LESS, AT_MOST - LESS);
    for (uint32_t i = LESS + 100; i < LONG; i++) chain[i] = model_mix(LONG + i + 1); /* goes another way from there */
    pdr_index_extend(ix, 1, LESS, chain + LESS, LONG - LESS);
    check(ix);
    memset(depth, 0, sizeof depth);
    assert_int_equal(pdr_index_match_sample(ix, chain, LONG, LONG, depth, holders), 2);
    assert_int_equal(depth[0], LESS);
    assert_int_equal(depth[1], AT_MOST);
    free(ix);
}

/* Bounded in every way at once: what is said to be held was stored and not removed, nothing is counted twice, no more
 * than allowed. */
static void bounded(uint32_t targets, uint64_t entries, uint32_t capacity, uint32_t steps, int only_stores)
{
    pdr_index *ix = fresh(entries, targets);
    seed = 1000 + targets;
    for (uint32_t t = 0; t < targets; t++) pdr_index_set_capacity(ix, t, t % 2 ? capacity : 0);
    for (uint32_t i = 0; i < steps && m.nodes < MODEL_NODES - 200; i++) {
        uint32_t t = below(targets), n;
        if (only_stores) {
            n = random_chain(4, 60);
            pdr_index_store(ix, t, hashes, n);
            for (uint32_t j = 0; j < n; j++) model_set(&m, t, nodes[j], 1);
            pdr_index_match(ix, hashes, n, depth);
            /* Recency is by run: of a target with a capacity, a run's other tail may stay in place of the end of this
             * chain. */
            if (t % 2 && capacity)
                assert_true(depth[t] + 16u > (n < capacity ? n : capacity));
            else
                assert_int_equal(depth[t], n);
        } else {
            random_operation(ix);
        }
        check(ix);
        n = random_chain(4, 60);
        pdr_index_match(ix, hashes, n, depth);
        for (t = 0; t < targets; t++) {
            assert_true(depth[t] <= model_depth(&m, t, nodes, n));
            if (t % 2 && capacity) assert_true(pdr_index_count(ix, t) <= capacity);
        }
        if (i % 50) continue;
        for (t = 0; t < targets; t++) {
            uint64_t count = 0;
            for (uint32_t node = 1; node < m.nodes; node++) {
                uint32_t has = holds(ix, t, node);
                count += has;
                assert_true(has <= m.has[t][node]);
                /* tails go before what they hang on */
                if (only_stores && has && m.node[node].parent) assert_int_equal(holds(ix, t, m.node[node].parent), 1);
            }
            assert_int_equal(count, pdr_index_count(ix, t));
        }
    }
    assert_true(pdr_index_evictions(ix) > 0);
    free(ix);
}

static void bounds_are_kept(void **state)
{
    (void)state;
    bounded(4, 100000, 90, 1500, 1);
    bounded(4, 100000, 90, 1500, 0);
    bounded(3, 200, 0, 1500, 1);
    bounded(8, 300, 50, 1500, 0);
    bounded(30, 400, 61, 800, 1);
}

static void same_calls_make_the_same_state(void **state)
{
    (void)state;
    pdr_index *ix[2];
    for (int i = 0; i < 2; i++) {
        ix[i] = fresh(500, 6);
        seed = 9;
        for (uint32_t t = 0; t < 6; t++) pdr_index_set_capacity(ix[i], t, 100);
        for (int k = 0; k < 800 && m.nodes < MODEL_NODES - 200; k++) random_operation(ix[i]);
    }
    assert_memory_equal(ix[0], ix[1], pdr_index_size(500, 6));
    free(ix[0]);
    free(ix[1]);
}

/* The region moves to another address: offsets only. */
static void it_can_lie_anywhere(void **state)
{
    (void)state;
    pdr_index *ix = fresh(5000, 6);
    seed = 10;
    for (int i = 0; i < 300; i++) random_operation(ix);
    size_t size = pdr_index_size(5000, 6);
    pdr_index *moved = aligned_alloc(64, size);
    memcpy(moved, ix, size);
    memset(ix, 0, size);
    free(ix);
    for (int i = 0; i < 300; i++) {
        random_operation(moved);
        check(moved);
        compare(moved, random_chain(3, 70));
    }
    free(moved);
}

static void store_chain(pdr_index *ix, uint32_t t, uint64_t name, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) hashes[i] = model_mix(name << 32 | i);
    pdr_index_store(ix, t, hashes, n);
}

static uint32_t depth_of(const pdr_index *ix, uint32_t t, uint64_t name, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) hashes[i] = model_mix(name << 32 | i);
    pdr_index_match(ix, hashes, n, depth);
    return depth[t];
}

static void least_recent_goes_first_from_its_tail(void **state)
{
    (void)state;
    pdr_index *ix = fresh(10000, 2);
    pdr_index_set_capacity(ix, 0, 100);
    assert_int_equal(pdr_index_capacity(ix, 0), 100);
    store_chain(ix, 0, 1, 40);
    store_chain(ix, 0, 2, 40);
    store_chain(ix, 1, 1, 40);
    store_chain(ix, 0, 1, 40); /* used again: chain 2 is the oldest now */
    store_chain(ix, 0, 3, 33);
    assert_int_equal(depth_of(ix, 0, 1, 40), 40);
    assert_int_equal(depth_of(ix, 0, 2, 40), 27);
    assert_int_equal(depth_of(ix, 0, 3, 33), 33);
    store_chain(ix, 0, 4, 30); /* the rest of chain 2, then the tail of chain 1 */
    assert_int_equal(depth_of(ix, 0, 2, 40), 0);
    assert_int_equal(depth_of(ix, 0, 1, 40), 37);
    assert_int_equal(depth_of(ix, 1, 1, 40), 40);
    store_chain(ix, 0, 5, 150); /* longer than the capacity: its beginning */
    assert_int_equal(depth_of(ix, 0, 5, 150), 100);
    assert_int_equal(depth_of(ix, 0, 4, 30), 0);
    pdr_index_set_capacity(ix, 0, 17);
    assert_int_equal(pdr_index_count(ix, 0), 17);
    assert_int_equal(depth_of(ix, 0, 5, 150), 17);
    assert_int_equal(pdr_index_evictions(ix), 40 + 3 + 37 + 33 + 30 + 50 + 83);
    check(ix);
    free(ix);
}

static void a_full_table_takes_from_who_has_most(void **state)
{
    (void)state;
    pdr_index *ix = fresh(4000, 4);
    for (uint64_t i = 0; i < 50; i++) store_chain(ix, 0, 100 + i, 64);
    store_chain(ix, 1, 1, 64);
    for (uint64_t i = 0; i < 200; i++) {
        store_chain(ix, 2, 1000 + i, 64);
        assert_int_equal(depth_of(ix, 2, 1000 + i, 64), 64);
        assert_true(pdr_index_entries(ix) <= 4000);
    }
    assert_int_equal(depth_of(ix, 1, 1, 64), 64);
    assert_true(pdr_index_count(ix, 0) > 1500);
    assert_true(pdr_index_count(ix, 2) > 1500);
    for (uint64_t i = 0; i < 8; i++) assert_int_equal(depth_of(ix, 2, 1199 - i, 64), 64);
    store_chain(ix, 3, 5000, 200);
    assert_int_equal(depth_of(ix, 3, 5000, 200), 200);
    check(ix);
    free(ix);
}

/* More single-block runs than there are runs: evicted, never refused. */
static void short_chains_are_bounded_too(void **state)
{
    (void)state;
    pdr_index *ix = fresh(100000, 2);
    for (uint64_t i = 0; i < 30000; i++) {
        store_chain(ix, 0, i, 1);
        if (i % 1000 == 0) assert_int_equal(depth_of(ix, 0, i, 1), 1);
    }
    assert_true(pdr_index_entries(ix) > 7000);
    assert_true(pdr_index_evictions(ix) > 0);
    check(ix);
    free(ix);
}

static void clear_is_constant_work(void **state)
{
    (void)state;
    pdr_index *ix = fresh(100000, 3);
    for (uint64_t i = 0; i < 100; i++) store_chain(ix, 0, i, 200), store_chain(ix, 1, i, 200);
    uint32_t free_runs = ix->free_runs, free_extras = ix->free_extras, blocks = ix->blocks;
    pdr_index_clear(ix, 0);
    assert_true(ix->free_runs == free_runs && ix->free_extras == free_extras && ix->blocks == blocks);
    assert_int_equal(pdr_index_count(ix, 0), 0);
    assert_int_equal(pdr_index_entries(ix), 100 * 200);
    assert_int_equal(depth_of(ix, 0, 7, 200), 0);
    assert_int_equal(depth_of(ix, 1, 7, 200), 200);
    check(ix);
    store_chain(ix, 0, 7, 30);
    assert_int_equal(depth_of(ix, 0, 7, 200), 30);
    for (int i = 0; i < 1000; i++) pdr_index_clear(ix, 0), store_chain(ix, 0, 8, 20); /* ids come round again */
    assert_int_equal(depth_of(ix, 0, 7, 200), 0);
    assert_int_equal(depth_of(ix, 0, 8, 20), 20);
    assert_int_equal(ix->cleared_first == PDR_NIL || pdr_ids_of(ix)[ix->cleared_first].next == PDR_NIL, 1);
    check(ix);
    free(ix);
}

static void many_targets_share(void **state)
{
    (void)state;
    pdr_index *ix = fresh(1000000, 3000);
    uint16_t *deep = calloc(3000, sizeof *deep);
    for (uint32_t t = 0; t < 3000; t += 1 + t % 3) store_chain(ix, t, 1, 20 + t % 7 * 15);
    check(ix);
    for (uint32_t i = 0; i < 130; i++) hashes[i] = model_mix(1ull << 32 | i);
    pdr_index_match(ix, hashes, 130, deep);
    uint32_t next = 0;
    for (uint32_t t = 0; t < 3000; t++) {
        assert_int_equal(deep[t], t == next ? 20 + t % 7 * 15 : 0);
        if (t == next) next += 1 + t % 3;
    }
    for (uint32_t t = 0; t < 3000; t += 7) pdr_index_remove(ix, t, hashes + 3, 1);
    check(ix);
    pdr_index_match(ix, hashes, 130, deep);
    for (uint32_t t = 0; t < 3000; t += 7) assert_true(deep[t] == 3 || deep[t] == 0);
    free(deep);
    free(ix);
}

static void ids_at_the_limit(void **state)
{
    (void)state;
    pdr_index *ix = fresh(10000, 65535); /* no spare ids at all */
    uint16_t *deep = calloc(65535, sizeof *deep);
    store_chain(ix, 65534, 1, 50);
    store_chain(ix, 0, 1, 40);
    pdr_index_clear(ix, 65534);
    pdr_index_store(ix, 65534, hashes, 10);
    for (uint32_t i = 0; i < 50; i++) hashes[i] = model_mix(1ull << 32 | i);
    pdr_index_match(ix, hashes, 50, deep);
    assert_int_equal(deep[0], 40);
    assert_int_equal(deep[65534], 10);
    assert_int_equal(deep[1], 0);
    check(ix);
    pdr_index_store(ix, 65535, hashes, 10); /* not a target: ignored */
    pdr_index_remove(ix, 65535, hashes, 10);
    pdr_index_clear(ix, 65535);
    assert_int_equal(pdr_index_entries(ix), 50);
    free(deep);
    free(ix);
}

static void a_hash_at_two_positions_is_not_overcounted(void **state)
{
    (void)state;
    pdr_index *ix = fresh(1000, 1);
    uint64_t a[] = {1, 2, 3}, b[] = {9, 1, 2};
    pdr_index_store(ix, 0, a, 3);
    pdr_index_store(ix, 0, b, 3);
    pdr_index_match(ix, b, 3, depth);
    assert_int_equal(depth[0], 1);
    pdr_index_match(ix, a + 1, 2, depth);
    assert_int_equal(depth[0], 0);
    check(ix);
    free(ix);
}

static void check_names_what_is_broken(void **state)
{
    (void)state;
    pdr_index *ix = fresh(2000, 8);
    size_t size = pdr_index_size(2000, 8);
    seed = 5;
    for (int i = 0; i < 300; i++) random_operation(ix);
    pdr_index *copy = aligned_alloc(64, size);
    char why[160];
    int found = 0;
    for (int i = 0; i < 3000;
         i++) { /* whatever is in the memory, check() and repair() come back, and repair() makes it right */
        memcpy(copy, ix, size);
        uint64_t at = ix->at_targets + (uint64_t)below((uint32_t)(size - ix->at_targets));
        ((uint8_t *)copy)[at] ^= (uint8_t)(1 + below(255));
        found += pdr_index_check(copy, why, sizeof why) != 0;
        if (i % 10) continue;
        copy->dirty = 1;
        pdr_index_repair(copy);
        check(copy);
    }
    assert_true(found > 100);
    free(copy);
    free(ix);
}

/* Found by the fuzzer of damaged blocks: the list of spare pieces led into a run's set, and the next run to need one took it. */
static void a_set_is_not_spare_as_well(void **state)
{
    (void)state;
    char why[160];
    pdr_index *ix = fresh(2000, 8);
    for (uint32_t t = 0; t < 6; t++) store_chain(ix, t, 1, 16);
    check(ix);
    uint32_t used = PDR_NIL, spare = ix->free_set;
    for (uint32_t i = 0; i < ix->runs && used == PDR_NIL; i++)
        if (pdr_runs_of(ix)[i].live) used = pdr_runs_of(ix)[i].set;
    assert_true(used < ix->sets && spare < ix->sets);
    ix->free_set = used;
    assert_int_not_equal(pdr_index_check(ix, why, sizeof why), 0);
    ix->free_set = spare;
    check(ix);
    uint32_t next = pdr_sets_of(ix)[spare].next;
    pdr_sets_of(ix)[spare].next = PDR_NIL; /* some are lost */
    assert_int_not_equal(pdr_index_check(ix, why, sizeof why), 0);
    pdr_sets_of(ix)[spare].next = spare; /* no end */
    assert_int_not_equal(pdr_index_check(ix, why, sizeof why), 0);
    pdr_sets_of(ix)[spare].next = next;
    for (uint32_t t = 0; t < 6; t++) pdr_index_remove(ix, t, hashes, 16);
    check(ix); /* the piece is spare again */
    free(ix);
}

/* Two runs with the same holders and one set for both: every count is right, and what changes for one would change for the other. */
static void a_set_is_one_runs(void **state)
{
    (void)state;
    char why[160];
    pdr_index *ix = fresh(2000, 8);
    uint32_t with[2], n = 0;
    for (uint32_t t = 0; t < 6; t++) store_chain(ix, t, 1, 16), store_chain(ix, t, 2, 16);
    check(ix);
    for (uint32_t i = 0; i < ix->runs && n < 2; i++)
        if (pdr_runs_of(ix)[i].live && pdr_runs_of(ix)[i].set != PDR_NIL) with[n++] = i;
    assert_int_equal(n, 2);
    uint32_t own = pdr_runs_of(ix)[with[1]].set;
    pdr_runs_of(ix)[with[1]].set = pdr_runs_of(ix)[with[0]].set;
    assert_int_not_equal(pdr_index_check(ix, why, sizeof why), 0);
    assert_non_null(strstr(why, "two places"));
    pdr_runs_of(ix)[with[1]].set = own;
    check(ix);
    free(ix);
}

/* ---- killed in the middle */

typedef struct shared {
    uint8_t ever[MODEL_TARGETS][MODEL_NODES]; /* set before a store that it is part of */
    uint64_t calls;
} shared;

static void work_until_killed(pdr_index *ix, shared *sh, int clears)
{
    for (;;) {
        uint32_t t = below(m.targets), at = below(m.nodes), op = below(100);
        uint32_t n = model_chain(&m, at, hashes, nodes), from = below(n + 1);
        __atomic_store_n(&sh->calls, sh->calls + 1, __ATOMIC_RELAXED);
        if (op < 60) {
            from = op < 40 ? 0 : from;
            for (uint32_t i = from; i < n; i++) __atomic_store_n(&sh->ever[t][nodes[i]], 1, __ATOMIC_RELAXED);
            pdr_index_extend(ix, t, from, hashes + from, n - from);
        } else if (op < 98 || !clears) {
            pdr_index_remove(ix, t, hashes + from, n - from);
        } else {
            pdr_index_clear(ix, t);
        }
    }
}

static void kill_and_repair(pdr_index *ix, shared *sh, int clears, int *cut_short)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) work_until_killed(ix, sh, clears);
    struct timespec pause = {0, 300000 + (long)below(1500000)};
    nanosleep(&pause, NULL);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    *cut_short += ix->dirty != 0;
    uint64_t before = ix->pairs;
    pdr_index_repair(ix);
    check(ix);
    if (!clears)
        assert_true(pdr_index_entries(ix) + 150 > before); /* one call's blocks at most, and a run cut in two */
    for (int k = 0; k < 20; k++) {
        uint32_t n = model_chain(&m, below(m.nodes), hashes, nodes);
        pdr_index_match(ix, hashes, n, depth);
        for (uint32_t t = 0; t < m.targets; t++)
            for (uint32_t i = 0; i < depth[t]; i++) assert_true(sh->ever[t][nodes[i]]);
    }
}

static void survives_being_killed(void **state)
{
    (void)state;
    size_t size = pdr_index_size(1500, 10);
    pdr_index *ix = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int cut_short = 0;
    assert_true(ix != MAP_FAILED && sh != MAP_FAILED);
    pdr_index_init(ix, 1500, 10);
    model_init(&m, 10);
    seed = 11;
    while (m.nodes < 3000) random_chain(4, 70);
    for (uint32_t t = 0; t < 4; t++) pdr_index_set_capacity(ix, t, 150);
    for (int i = 0; i < 300; i++) {
        seed = (uint64_t)i;
        kill_and_repair(ix, sh, i % 2, &cut_short);
    }
    assert_true(cut_short >= 10); /* else it was not tested; how many depends on the load of the machine */
    assert_true(sh->calls > 100);
    munmap(ix, size);
    munmap(sh, sizeof *sh);
}

static void repair_keeps_all_when_nothing_was_cut(void **state)
{
    (void)state;
    pdr_index *ix = fresh(3000, 10);
    seed = 12;
    for (uint32_t t = 0; t < 10; t += 2) pdr_index_set_capacity(ix, t, 200);
    for (int i = 0; i < 400 && m.nodes < MODEL_NODES - 200; i++) random_operation(ix);
    uint32_t oldest[10];
    for (uint32_t t = 0; t < 10; t++) oldest[t] = pdr_ids_of(ix)[pdr_targets_of(ix)[t].id].oldest;
    uint8_t *had = calloc(10, m.nodes);
    for (uint32_t t = 0; t < 10; t++)
        for (uint32_t node = 1; node < m.nodes; node++) had[t * m.nodes + node] = (uint8_t)holds(ix, t, node);
    uint64_t entries = pdr_index_entries(ix);
    ix->dirty = 1;
    pdr_index_repair(ix);
    check(ix);
    assert_int_equal(pdr_index_entries(ix), entries);
    for (uint32_t t = 0; t < 10; t++) {
        assert_int_equal(pdr_ids_of(ix)[pdr_targets_of(ix)[t].id].oldest, oldest[t]); /* recency, too */
        for (uint32_t node = 1; node < m.nodes; node++) assert_int_equal(holds(ix, t, node), had[t * m.nodes + node]);
    }
    free(had);
    free(ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_model),
        cmocka_unit_test(sampled_match_equals_the_model),
        cmocka_unit_test(longer_than_a_depth_counts),
        cmocka_unit_test(bounds_are_kept),
        cmocka_unit_test(same_calls_make_the_same_state),
        cmocka_unit_test(it_can_lie_anywhere),
        cmocka_unit_test(least_recent_goes_first_from_its_tail),
        cmocka_unit_test(a_full_table_takes_from_who_has_most),
        cmocka_unit_test(short_chains_are_bounded_too),
        cmocka_unit_test(clear_is_constant_work),
        cmocka_unit_test(many_targets_share),
        cmocka_unit_test(ids_at_the_limit),
        cmocka_unit_test(a_hash_at_two_positions_is_not_overcounted),
        cmocka_unit_test(check_names_what_is_broken),
        cmocka_unit_test(a_set_is_not_spare_as_well),
        cmocka_unit_test(a_set_is_one_runs),
        cmocka_unit_test(survives_being_killed),
        cmocka_unit_test(repair_keeps_all_when_nothing_was_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
