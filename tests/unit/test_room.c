/* lib/room.c: the bijection, and draws by several processes at once. */
#include "room.h"

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

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static void every_small_permutation_is_one(void **state)
{
    (void)state;
    for (uint32_t bits = 8; bits <= 20; bits += 3) {
        size_t n = (size_t)1 << bits;
        unsigned char *seen = malloc(n);
        for (uint64_t key = 0; key < 5; key++) {
            memset(seen, 0, n);
            for (uint64_t x = 0; x < n; x++) {
                uint64_t y = pdr_room_permute(key * 0x9e3779b97f4a7c15u, x, bits);
                assert_true(y < n);
                assert_false(seen[y]);
                seen[y] = 1;
                assert_int_equal(pdr_room_unpermute(key * 0x9e3779b97f4a7c15u, y, bits), x);
            }
        }
        free(seen);
    }
}

static void inverse_undoes_the_whole_width(void **state)
{
    (void)state;
    const uint64_t mask = (UINT64_C(1) << 63) - 1;
    uint64_t s = 88172645463325252u;
    for (int i = 0; i < 200000; i++) {
        uint64_t key = next_random(&s), x = i < 2 ? (uint64_t)i * mask : next_random(&s) & mask;
        uint64_t y = pdr_room_at(key, x);
        assert_true(y <= mask);
        assert_int_equal(pdr_room_unpermute(key, y, 63), x);
        assert_int_equal(pdr_room_at(key, pdr_room_unpermute(key, x, 63)), x);
    }
}

/* Flipping any bit of the counter, or of the key, flips every bit of the room in about half of the cases. */
static void small_changes_spread(void **state)
{
    (void)state;
    enum { SAMPLES = 4096 };
    for (int of_key = 0; of_key < 2; of_key++) {
        for (uint32_t in = 0; in < (of_key ? 64u : 63u); in++) {
            uint32_t flips[63] = {0};
            for (uint64_t c = 0; c < SAMPLES; c++) {
                uint64_t flip = UINT64_C(1) << in;
                uint64_t d = pdr_room_at(77, c) ^ (of_key ? pdr_room_at(77 ^ flip, c) : pdr_room_at(77, c ^ flip));
                for (uint32_t b = 0; b < 63; b++) flips[b] += (uint32_t)(d >> b & 1);
            }
            /* mean 2048, standard deviation 32: 8000 cells within 6 of them */
            for (uint32_t b = 0; b < 63; b++) assert_in_range(flips[b], 2048 - 6 * 32, 2048 + 6 * 32);
        }
    }
}

/* Rooms of consecutive counters are spread evenly over residues and over the range. */
static void counters_spread_evenly(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    static const uint32_t moduli[] = {2, 3, 7, 8, 64, 1000, 1024};
    for (size_t m = 0; m <= sizeof moduli / sizeof *moduli; m++) {
        uint32_t cells = m < sizeof moduli / sizeof *moduli ? moduli[m] : 256;
        uint32_t count[1024] = {0};
        double expect = (double)N / cells, chi = 0;
        for (uint64_t c = 0; c < N; c++) {
            uint64_t room = pdr_room_at(3, c);
            count[m < sizeof moduli / sizeof *moduli ? room % cells : room >> 55]++;
        }
        for (uint32_t i = 0; i < cells; i++) chi += (count[i] - expect) * (count[i] - expect) / expect;
        /* mean cells-1, variance 2(cells-1): within 6 standard deviations, and not too even either */
        double df = cells - 1, d = chi - df;
        assert_true(d * d < 36 * 2 * df + 36);
    }
}

static void zero_is_skipped_and_the_end_is_an_error(void **state)
{
    (void)state;
    struct pdr_room_state s = {.key = 42};
    uint64_t room, first, zero_at = pdr_room_unpermute(42, 0, 63);
    s.counter = zero_at - 1;
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 2, &room, &first), PDR_OK);
    assert_int_equal(first, zero_at - 1);
    assert_int_equal(s.counter, zero_at + 2);
    s.counter = zero_at;
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 1, &room, &first), PDR_OK);
    assert_int_equal(first, zero_at + 1);
    assert_int_equal(room, pdr_room_at(42, zero_at + 1));
    s.counter = (UINT64_C(1) << 63) - 2;
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 2, &room, &first), PDR_OK);
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 1, &room, &first), PDR_E_FULL);
    assert_int_equal(pdr_room_alloc(&s, 8, 3, 1, &room, &first), PDR_E_FULL);
    s.counter = (UINT64_C(1) << 63) - 1; /* one is left, and two are asked for: none is taken */
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 2, &room, &first), PDR_E_FULL);
    assert_int_equal(s.counter, (UINT64_C(1) << 63) - 1);
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 1, &room, &first), PDR_OK);
}

/* Draws of one room for servers of one rank take one counter each, in order. */
static void one_room_takes_one_counter(void **state)
{
    struct pdr_room_state s;
    (void)state;
    pdr_room_init(&s, 3);
    for (uint32_t i = 0; i < 100; i++) {
        uint64_t room, number, before = s.counter;
        assert_int_equal(pdr_room_alloc(&s, i % 2, i % 3 ? PDR_NONE : 0, 1, &room, &number), PDR_OK);
        assert_int_equal(number, before);
        assert_int_equal(room, pdr_room_at(s.key, number));
        assert_int_equal(s.counter, before + 1);
    }
}

static void arguments_beyond_limits(void **state)
{
    (void)state;
    struct pdr_room_state s;
    uint64_t room = 5, first = 6;
    pdr_room_init(&s, 1);
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 0, &room, &first), PDR_E_INVALID);
    assert_int_equal(pdr_room_alloc(&s, 0, PDR_NONE, 65536, &room, &first), PDR_E_INVALID);
    assert_int_equal(pdr_room_alloc(&s, 1025, 0, 1, &room, &first), PDR_E_INVALID);
    assert_int_equal(pdr_room_alloc(&s, 4, 4, 1, &room, &first), PDR_E_INVALID);
    assert_int_equal(pdr_room_alloc(&s, 0, 1, 1, &room, &first), PDR_E_INVALID);
    assert_int_equal(s.counter, 0);
    assert_int_equal(room, 5);
    assert_int_equal(first, 6);
    assert_int_equal(pdr_room_alloc(&s, 0, 0, 1, &room, &first), PDR_OK);
    assert_int_equal(pdr_room_alloc(&s, 1024, 1023, 65535, &room, &first), PDR_OK); /* the largest draw there is */
    assert_int_equal(room % 1024, 1023);
}

/* The way that is taken under contention only. */
static void reserved_counters_suffice_and_stay_apart(void **state)
{
    (void)state;
    struct pdr_room_state s;
    uint64_t room, first, end = 0;
    pdr_room_init(&s, 11);
    for (uint32_t i = 0; i < 20000; i++) {
        static const uint32_t sizes[] = {1, 2, 3, 8, 64};
        uint32_t size = i % 1000 ? sizes[i % 5] : PDR_ROOM_MAX_DP, count = i % 997 ? 1 + i % 3 : 300, rank = i % size;
        struct pdr_room_walk w;
        pdr_room_walk_begin(&w, s.key, 0, size, size > 1 ? rank : PDR_NONE);
        assert_int_equal(pdr_room_reserve(&s, &w, count, &room, &first), PDR_OK);
        assert_true(first >= end && w.counter <= s.counter);
        assert_int_equal(room, pdr_room_at(s.key, first));
        assert_int_equal(room % size, rank);
        end = s.counter;
    }
    s.counter = (UINT64_C(1) << 63) - 3;
    struct pdr_room_walk w;
    pdr_room_walk_begin(&w, s.key, 0, 1, PDR_NONE);
    assert_int_equal(pdr_room_reserve(&s, &w, 5, &room, &first), PDR_E_FULL);
}

static void seeds_give_other_rooms(void **state)
{
    (void)state;
    struct pdr_room_state a, b;
    pdr_room_init(&a, 1);
    pdr_room_init(&b, 2);
    assert_int_not_equal(a.key, b.key);
    for (uint64_t c = 0; c < 1000; c++) assert_int_not_equal(pdr_room_at(a.key, c), pdr_room_at(b.key, c));
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Shared by the processes below: each writes the rooms it drew into its own part. */
struct arena {
    struct pdr_room_state rooms;
    volatile uint64_t drawn[8];
    volatile uint32_t misaligned;
    uint64_t room[];
};

static void draw(struct arena *a, uint32_t process, uint64_t *out, uint64_t want, uint64_t seed)
{
    static const uint32_t dp[] = {0, 1, 2, 4, 8, 3}, batch[] = {1, 1, 1, 2, 7, 64};
    uint64_t n = 0, room, first;
    while (n < want) {
        uint32_t size = dp[next_random(&seed) % 6], count = batch[next_random(&seed) % 6];
        uint32_t rank = size ? (uint32_t)(next_random(&seed) % size) : PDR_NONE;
        struct pdr_room_walk w;
        if (count > want - n) count = (uint32_t)(want - n);
        if (pdr_room_alloc(&a->rooms, size, rank, count, &room, &first) != PDR_OK) _exit(2);
        pdr_room_walk_begin(&w, a->rooms.key, first, size, rank);
        for (uint32_t i = 0; i < count; i++) {
            uint64_t r = pdr_room_walk_next(&w);
            if ((!i && r != room) || !r || r >> 63 || (size && r % size != rank)) a->misaligned = 1;
            out[n++] = r;
        }
        a->drawn[process] = n;
    }
}

static void no_duplicate_from_several_processes(void **state)
{
    (void)state;
    enum { PROCESSES = 4, EACH = 2500000 };
    size_t bytes = sizeof(struct arena) + (size_t)PROCESSES * EACH * sizeof(uint64_t);
    struct arena *a = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child[PROCESSES];
    uint64_t n = 0;
    assert_ptr_not_equal(a, MAP_FAILED);
    pdr_room_init(&a->rooms, 7);
    for (uint32_t p = 0; p < PROCESSES; p++) {
        child[p] = fork();
        assert_true(child[p] >= 0);
        if (!child[p]) {
            draw(a, p, a->room + (size_t)p * EACH, EACH, p + 1);
            _exit(0);
        }
    }
    for (uint32_t p = 0; p < PROCESSES; p++) {
        int status;
        assert_int_equal(waitpid(child[p], &status, 0), child[p]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        n += a->drawn[p];
    }
    assert_int_equal(n, PROCESSES * EACH);
    assert_int_equal(a->misaligned, 0);
    qsort(a->room, n, sizeof *a->room, by_value);
    for (uint64_t i = 1; i < n; i++) assert_true(a->room[i - 1] < a->room[i]);
    munmap(a, bytes);
}

/* Processes are killed at any instant; what they and their successors drew is still distinct. */
static void killed_processes_cause_no_reuse(void **state)
{
    (void)state;
    enum { ROUNDS = 40, EACH = 100000 };
    size_t bytes = sizeof(struct arena) + (size_t)ROUNDS * 2 * EACH * sizeof(uint64_t);
    struct arena *a = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t *all, n = 0;
    uint32_t killed = 0;
    assert_ptr_not_equal(a, MAP_FAILED);
    all = malloc((size_t)ROUNDS * 2 * EACH * sizeof *all);
    pdr_room_init(&a->rooms, 8);
    for (uint32_t r = 0; r < ROUNDS; r++) {
        pid_t child[2];
        for (uint32_t p = 0; p < 2; p++) {
            a->drawn[p] = 0;
            child[p] = fork();
            assert_true(child[p] >= 0);
            if (!child[p]) {
                draw(a, p, a->room + (size_t)(r * 2 + p) * EACH, EACH, r * 2 + p + 1);
                _exit(0);
            }
        }
        while (!a->drawn[0]) nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        nanosleep(&(struct timespec){.tv_nsec = 1000 + (long)r * 40000}, NULL);
        kill(child[0], SIGKILL);
        for (uint32_t p = 0; p < 2; p++) {
            int status;
            assert_int_equal(waitpid(child[p], &status, 0), child[p]);
            killed += WIFSIGNALED(status);
            memcpy(all + n, a->room + (size_t)(r * 2 + p) * EACH, a->drawn[p] * sizeof *all);
            n += a->drawn[p];
        }
    }
    assert_true(killed >= ROUNDS / 2);
    assert_int_equal(a->misaligned, 0);
    qsort(all, n, sizeof *all, by_value);
    for (uint64_t i = 1; i < n; i++) assert_true(all[i - 1] < all[i]);
    free(all);
    munmap(a, bytes);
}

/* Known answers, from the description in lib/room.c computed in Python (whose first SplitMix64 of 0 is the published 0xe220a8397b1dcdaf): what a decision's key and counter mean is the same
 * in every process and on every machine, since legs work out further rooms from them. */
static void rooms_follow_from_key_and_counter(void **state)
{
    static const struct { uint64_t key, counter, room; } known[] = {
        {UINT64_C(0x0), UINT64_C(0x0), UINT64_C(0x3c0288a7d1abbea3)},
        {UINT64_C(0x0), UINT64_C(0x1), UINT64_C(0x40df34603a4ee634)},
        {UINT64_C(0x0), UINT64_C(0x2), UINT64_C(0x48c563799b378388)},
        {UINT64_C(0x0), UINT64_C(0x4000000000000000), UINT64_C(0x816b5a21ec293b1)},
        {UINT64_C(0x1), UINT64_C(0x0), UINT64_C(0x65e40425d9167d39)},
        {UINT64_C(0x1), UINT64_C(0x1), UINT64_C(0x6d58dcf3fa161b0)},
        {UINT64_C(0x1), UINT64_C(0x2), UINT64_C(0x69a21f53a1a59d77)},
        {UINT64_C(0x1), UINT64_C(0x4000000000000000), UINT64_C(0x11c91cce60a3be6b)},
        {UINT64_C(0x123456789abcdef0), UINT64_C(0x0), UINT64_C(0x10eb04cf8920543a)},
        {UINT64_C(0x123456789abcdef0), UINT64_C(0x1), UINT64_C(0x563db16ae2cd158f)},
        {UINT64_C(0x123456789abcdef0), UINT64_C(0x2), UINT64_C(0x4a55d8bec3521968)},
        {UINT64_C(0x123456789abcdef0), UINT64_C(0x4000000000000000), UINT64_C(0x3d5ef6466c07a5d6)},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct pdr_room_walk w;
        pdr_room_walk_begin(&w, known[i].key, known[i].counter, 0, PDR_NONE);
        assert_true(pdr_room_walk_next(&w) == known[i].room);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rooms_follow_from_key_and_counter),
        cmocka_unit_test(every_small_permutation_is_one),
        cmocka_unit_test(inverse_undoes_the_whole_width),
        cmocka_unit_test(small_changes_spread),
        cmocka_unit_test(counters_spread_evenly),
        cmocka_unit_test(zero_is_skipped_and_the_end_is_an_error),
        cmocka_unit_test(one_room_takes_one_counter),
        cmocka_unit_test(arguments_beyond_limits),
        cmocka_unit_test(reserved_counters_suffice_and_stay_apart),
        cmocka_unit_test(seeds_give_other_rooms),
        cmocka_unit_test(no_duplicate_from_several_processes),
        cmocka_unit_test(killed_processes_cause_no_reuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
