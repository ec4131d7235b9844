/*
 * The prefix index under the work by which others were measured (CPU time): 64 workers, 16-token blocks, sequences of
 * 256 blocks of which the first 32 are common to all. Worker w holds ceil(N/64/256) sequences; block i of the common
 * part is splitmix64(i), of sequence s of worker w splitmix64(w << 48 | s << 16 | i | 1 << 63); hashes chain by
 * XXH3(previous || block). Stored in events of 16 blocks, for s, for w; 512 queries each of hit (256 of 256 held by one
 * worker, 32 by all), shared (32 of 256) and miss; removed are blocks 128–255 of sequence 0 of every worker. Answers
 * are verified. Hashes are made before the clock starts.
 *
 * Prints JSON lines {"name","ns","allocs","note"}; store, remove and restore (whole known chains) per block.
 *   bench_index [--quick]      quick: fewer rounds
 *   bench_index --once NAME    all once at 115k entries (the instructions are those of 1M), says how many calls NAME (hit256, store, remove) are
 */
#include "index.h"

#include "allocs.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { WORKERS = 64, BLOCKS = 256, COMMON = 32, EVENT = 16, QUERIES = 512, MOST_ROUNDS = 7 };

static int         rounds = MOST_ROUNDS;
static const char *once = ""; /* what alone is counted */

static uint64_t splitmix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void make_chain(uint64_t w, uint64_t s, uint32_t common, uint64_t *out)
{
    uint64_t pair[2] = {0, 0};
    for (uint64_t i = 0; i < BLOCKS; i++) {
        pair[1] = i < common ? splitmix64(i) : splitmix64(w << 48 | s << 16 | i | 1ull << 63);
        out[i] = pair[0] = XXH3_64bits(pair, sizeof pair);
    }
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench_index: wrong answer: %s\n", what);
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

static void flush_caches(void)
{
    static uint8_t other[32 << 20];
    static volatile uint8_t sink;
    for (size_t i = 0; i < sizeof other; i += 64) sink = (uint8_t)(sink + ++other[i]);
}

/*
 * Median over rounds of the mean of 512 queries. `cold`: other memory is read between rounds, so that nothing of the
 * index is in the cache. A query's hashes are, as they are when they have just been made: they are copied first, and
 * the time of copying alone is taken off (not for a miss, which reads only the first).
 */
static double time_queries(const pdr_index *ix, uint64_t (*chains)[BLOCKS], const uint16_t *want_owner, uint16_t common,
                           int cold)
{
    double results[MOST_ROUNDS];
    uint64_t hashes[BLOCKS];
    int copy = common > 0;
    uint16_t depth[WORKERS];
    uint64_t wrong = 0;
    for (int round = 0; round < rounds; round++) {
        if (cold) flush_caches();
        double start = cpu_ns();
        for (uint32_t q = 0; q < QUERIES; q++) {
            if (copy) memcpy(hashes, chains[q], sizeof hashes);
            __asm__ volatile("" : : "r"(hashes) : "memory");
        }
        double copying = cpu_ns() - start;
        if (cold) flush_caches();
        start = cpu_ns();
        for (uint32_t q = 0; q < QUERIES; q++) {
            if (copy) memcpy(hashes, chains[q], sizeof hashes);
            __asm__ volatile("" : : "r"(hashes) : "memory");
            pdr_index_match(ix, copy ? hashes : chains[q], BLOCKS, depth);
            wrong += depth[want_owner[q]] != (common == COMMON + 1 ? BLOCKS : common);
        }
        results[round] = (cpu_ns() - start - copying) / QUERIES;
        for (uint32_t q = 0; q < QUERIES; q++) {
            pdr_index_match(ix, chains[q], BLOCKS, depth);
            for (uint32_t w = 0; w < WORKERS; w++)
                wrong += depth[w] != (common != COMMON + 1 ? common : w == want_owner[q] ? BLOCKS : COMMON);
        }
    }
    if (wrong) fail("depth");
    return median(results, (size_t)rounds);
}

static void row(const char *name, const char *size, double ns, unsigned long allocated, double calls, const char *note)
{
    printf("{\"name\":\"index/%s/%s\",\"ns\":%.1f,\"allocs\":%.2f,\"note\":\"%s\"}\n", name, size, ns, (double)allocated / calls, note);
    fflush(stdout);
}

/* Functions of their own, so that the instructions inside can be counted: what is stored, found, removed, and nothing of the set-up. */
__attribute__((noinline)) static void store_events(pdr_index *ix, uint64_t (*chains)[BLOCKS], uint64_t total)
{
    for (uint64_t i = 0; i < total; i++)
        for (uint32_t at = 0; at < BLOCKS; at += EVENT)
            pdr_index_extend(ix, (uint32_t)(i % WORKERS), at, chains[i] + at, EVENT);
}

__attribute__((noinline)) static void match_queries(const pdr_index *ix, uint64_t (*queries)[BLOCKS], uint16_t *depth)
{
    for (uint32_t q = 0; q < QUERIES; q++) pdr_index_match(ix, queries[q], BLOCKS, depth);
}

__attribute__((noinline)) static void remove_events(pdr_index *ix, uint64_t (*chains)[BLOCKS])
{
    for (uint32_t w = 0; w < WORKERS; w++)
        for (uint32_t at = BLOCKS / 2; at < BLOCKS; at += EVENT) pdr_index_remove(ix, w, chains[w] + at, EVENT);
}

static void run(uint64_t n, const char *label)
{
    uint64_t sequences = (n + WORKERS * BLOCKS - 1) / (WORKERS * BLOCKS), total = sequences * WORKERS;
    uint64_t pairs = WORKERS * (COMMON + sequences * (BLOCKS - COMMON));
    uint64_t(*chains)[BLOCKS] = malloc(total * sizeof *chains), (*queries)[BLOCKS] = malloc(QUERIES * sizeof *queries);
    uint16_t owners[QUERIES], depth[WORKERS];
    size_t size = pdr_index_size(pairs, WORKERS);
    pdr_index *ix = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (!chains || !queries || ix == MAP_FAILED) exit(1);
    for (uint64_t i = 0; i < total; i++) make_chain(i % WORKERS, i / WORKERS, COMMON, chains[i]);
    pdr_index_init(ix, pairs, WORKERS);
    char note[64];
    snprintf(note, sizeof note, "%" PRIu64 " entries, 64 targets", pairs);

    unsigned long before = allocations;
    double start = cpu_ns();
    store_events(ix, chains, total);
    double store = (cpu_ns() - start) / (double)(total * BLOCKS);
    unsigned long stored = allocations - before;
    if (pdr_index_entries(ix) != pairs || pdr_index_evictions(ix))
        fprintf(stderr, "%" PRIu64 " of %" PRIu64 " entries, %" PRIu64 " evicted\n", pdr_index_entries(ix), pairs,
                pdr_index_evictions(ix)),
            fail("entries");

    for (uint64_t q = 0; q < QUERIES; q++) {
        uint64_t i = splitmix64(q) % total;
        owners[q] = (uint16_t)(i % WORKERS);
        memcpy(queries[q], chains[i], sizeof *chains);
    }
    if (*once) {
        match_queries(ix, queries, depth);
        if (depth[owners[QUERIES - 1]] != BLOCKS) fail("depth");
        remove_events(ix, chains);
        if (pdr_index_entries(ix) != pairs - WORKERS * BLOCKS / 2) fail("removed entries");
        printf("{\"name\":\"%s\",\"calls\":%" PRIu64 "}\n", once,
               !strcmp(once, "store") ? total * BLOCKS : !strcmp(once, "remove") ? (uint64_t)WORKERS * BLOCKS / 2 : QUERIES);
        exit(0);
    }
    double hit[2], shared[2], miss[2];
    before = allocations;
    for (int cold = 0; cold < 2; cold++) hit[cold] = time_queries(ix, queries, owners, COMMON + 1, cold);
    unsigned long matched = allocations - before;
    for (uint64_t q = 0; q < QUERIES; q++) make_chain(q % WORKERS, 1u << 20 | q, COMMON, queries[q]);
    before = allocations;
    for (int cold = 0; cold < 2; cold++) shared[cold] = time_queries(ix, queries, owners, COMMON, cold);
    unsigned long shared_allocs = allocations - before;
    for (uint64_t q = 0; q < QUERIES; q++) make_chain(q % WORKERS, 1u << 20 | q, 0, queries[q]);
    before = allocations;
    for (int cold = 0; cold < 2; cold++) miss[cold] = time_queries(ix, queries, owners, 0, cold);
    unsigned long missed = allocations - before;

    before = allocations;
    start = cpu_ns();
    remove_events(ix, chains);
    double removal = (cpu_ns() - start) / (WORKERS * BLOCKS / 2);
    unsigned long removed = allocations - before;
    if (pdr_index_entries(ix) != pairs - WORKERS * BLOCKS / 2) fail("removed entries");

    before = allocations;
    start = cpu_ns();
    for (uint64_t i = 0; i < total; i++) pdr_index_store(ix, (uint32_t)(i % WORKERS), chains[i], BLOCKS);
    double again = (cpu_ns() - start) / (double)(total * BLOCKS);
    unsigned long restored = allocations - before;
    char why[128];
    if (pdr_index_check(ix, why, sizeof why)) fail(why);
    double queried = 2.0 * rounds * QUERIES;
    row("hit256", label, hit[0], matched, queried, note);
    row("hit256/cold", label, hit[1], matched, queried, "caches flushed between rounds of 512 queries");
    row("shared32", label, shared[0], shared_allocs, queried, note);
    row("shared32/cold", label, shared[1], shared_allocs, queried, "caches flushed between rounds of 512 queries");
    row("miss", label, miss[0], missed, queried, note);
    row("miss/cold", label, miss[1], missed, queried, "caches flushed between rounds of 512 queries");
    row("store", label, store, stored, (double)(total * BLOCKS), note);
    row("remove", label, removal, removed, WORKERS * BLOCKS / 2, note);
    row("restore", label, again, restored, (double)(total * BLOCKS), "whole chains that are known, per block");
    row("bytes", label, (double)size / (double)pairs, 0, 1, "bytes per entry, not nanoseconds");
    munmap(ix, size);
    free(chains);
    free(queries);
}

/* One chain of 256 blocks in the cache, held by one, every eighth or every one of many targets. */
static void run_wide(uint32_t targets)
{
    uint64_t entries = (1u << 20) + (uint64_t)targets * BLOCKS * 3 / 2;
    pdr_index *ix = aligned_alloc(64, pdr_index_size(entries, targets));
    uint16_t *depth = calloc(targets, sizeof *depth);
    uint64_t chain[BLOCKS];
    if (!ix || !depth) exit(1);
    pdr_index_init(ix, entries, targets);
    static const char *const who[] = {"one", "eighth", "all"};
    char name[32], label[16];
    snprintf(label, sizeof label, "%" PRIu32, targets);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t every = i == 0 ? targets : i == 1 ? 8 : 1, times = rounds < MOST_ROUNDS ? 200 : 2000;
        make_chain(i, 0, 0, chain);
        for (uint32_t t = 0; t < targets; t += every) pdr_index_store(ix, t, chain, BLOCKS);
        unsigned long before = allocations;
        double start = cpu_ns();
        for (uint32_t k = 0; k < times; k++) pdr_index_match(ix, chain, BLOCKS, depth);
        double ns = (cpu_ns() - start) / times;
        snprintf(name, sizeof name, "wide/%s", who[i]);
        row(name, label, ns, allocations - before, times, "256 of 256 held by that share of so many targets");
        for (uint32_t t = 0; t < targets; t++)
            if (depth[t] != (t % every ? 0 : BLOCKS)) fail("wide depth");
    }
    free(ix);
    free(depth);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--once")) once = argv[2];
    else if (argc > 1 && !strcmp(argv[1], "--quick")) rounds = 1;
    run(100000, "115k");
    run(1000000, "1M");
    run_wide(64), run_wide(1024), run_wide(16384);
    return 0;
}
