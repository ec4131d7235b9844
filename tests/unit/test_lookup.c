/* lib/lookup.c and places.c against tables that are walked: found is who is there, the first run that fits is the first; and what damage does to them. */
#include "lookup.h"
#include "places.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX = 97, TOTAL = 2500 };

static uint64_t drawn;
static uint32_t draw(uint32_t n) { return (uint32_t)(pdr_random_at(7, ++drawn) % n); }

static uint32_t hashes[MAX];
static uint8_t  linked[MAX];
static uint32_t hash_of(const void *table, uint32_t id) { return ((const uint32_t *)table)[id]; }

static int finds(const pdr_lookup *l, uint32_t id)
{
    uint32_t found = 0;
    for (uint32_t left = l->max, i = pdr_lookup_first(l, hashes[id]); i < l->max && left; i = l->next[i], left--) found += i == id;
    return (int)found;
}

static void who_is_linked_is_found(void **state)
{
    uint32_t  *memory = malloc(pdr_lookup_size(MAX));
    pdr_lookup l = pdr_lookup_at(memory, MAX);
    uint32_t   n = 0;
    (void)state;
    assert_int_equal((char *)(l.prev + MAX) - (char *)memory, pdr_lookup_size(MAX));
    memset(memory, 0x5A, pdr_lookup_size(MAX)); /* as a block may be before it is cleared */
    pdr_lookup_clear(&l);
    for (int step = 0; step < 20000; step++) {
        uint32_t id = draw(MAX);
        if (linked[id]) {
            pdr_lookup_unlink(&l, id, hashes[id]);
        } else {
            hashes[id] = draw(2) ? draw(5) : (uint32_t)pdr_random_at(3, id); /* many of one hash, too */
            pdr_lookup_link(&l, id, hashes[id]);
        }
        n += linked[id] ? UINT32_MAX : 1u;
        linked[id] = !linked[id];
        assert_int_equal(pdr_lookup_check(&l, hash_of, hashes), n);
        for (uint32_t i = 0; i < MAX; i++)
            if (finds(&l, i) != linked[i]) fail_msg("step %d: %u is found %d times, linked %d", step, i, finds(&l, i), linked[i]);
    }
    free(memory);
}

/* Any word of it may be anything: a walk ends, links go nowhere else, the check tells. */
static void damage_is_told_and_harms_nobody(void **state)
{
    uint32_t   words = (uint32_t)(pdr_lookup_size(MAX) / sizeof(uint32_t)), told = 0;
    uint32_t  *memory = malloc(pdr_lookup_size(MAX) + 8), *good = malloc(pdr_lookup_size(MAX));
    pdr_lookup l = pdr_lookup_at(memory, MAX);
    (void)state;
    memory[words] = memory[words + 1] = 0xDEAD;
    pdr_lookup_clear(&l);
    for (uint32_t i = 0; i < MAX; i++) pdr_lookup_link(&l, i, hashes[i] = draw(MAX));
    memcpy(good, memory, pdr_lookup_size(MAX));
    for (uint32_t w = 0; w < words; w++) {
        static const uint32_t wrong[] = {0, 5, MAX - 1, MAX, UINT32_MAX, 1u << 31};
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            memcpy(memory, good, pdr_lookup_size(MAX));
            if (memory[w] == wrong[k]) continue;
            memory[w] = wrong[k];
            assert_int_not_equal(pdr_lookup_check(&l, hash_of, hashes), MAX); /* no chains, or fewer than there should be */
            told++;
            for (uint32_t i = 0; i < MAX; i++) (void)finds(&l, i);
            for (uint32_t i = 0; i < MAX; i++) pdr_lookup_unlink(&l, i, hashes[i]);
            for (uint32_t i = 0; i < MAX; i++) pdr_lookup_link(&l, i, hashes[i]);
            assert_true(memory[words] == 0xDEAD && memory[words + 1] == 0xDEAD);
        }
    }
    assert_true(told > words);
    free(memory);
    free(good);
}

static uint32_t first_fit(const uint8_t *taken, uint32_t n)
{
    for (uint32_t at = 0, run = 0; at < TOTAL; at++) {
        run = taken[at] ? 0 : run + 1;
        if (run == n) return at + 1 - n;
    }
    return TOTAL;
}

static void the_first_run_that_fits(void **state)
{
    static uint8_t  taken[TOTAL];
    static uint32_t first[4000], length[4000];
    pdr_places      p = {{0}};
    uint32_t        n = 0, full = 0;
    (void)state;
    for (int step = 0; step < 30000; step++) {
        uint32_t want = draw(3) ? 1 + draw(9) : 1u << draw(11), at;
        if (draw(step / 3000 % 2 ? 3 : 2) && n < 4000) { /* filling and emptying in turn */
            at = pdr_places_find(&p, taken, TOTAL, want);
            if (at != first_fit(taken, want)) fail_msg("step %d: %u in a row at %u, not %u", step, want, at, first_fit(taken, want));
            if (at < TOTAL) {
                pdr_places_take(&p, taken, at, want);
                first[n] = at;
                length[n++] = want;
            } else {
                full++;
            }
        } else if (n) {
            at = draw(n);
            pdr_places_give(&p, taken, first[at], length[at]);
            first[at] = first[--n];
            length[at] = length[n];
        }
        assert_true(pdr_places_check(&p, taken, TOTAL));
    }
    assert_true(full > 100);
    /* a memory that is wrong is told, and leads nowhere else */
    memset(taken, 0, sizeof taken);
    for (int i = 0; i < PDR_PLACES_SIZES; i++) {
        pdr_places wrong = {{0}};
        wrong.from[i] = 1;
        assert_false(pdr_places_check(&wrong, taken, TOTAL));
        wrong.from[i] = UINT32_MAX;
        assert_false(pdr_places_check(&wrong, taken, TOTAL));
        assert_int_equal(pdr_places_find(&wrong, taken, TOTAL, 1u << i), TOTAL);
    }
}

/* A table filled from empty is walked once, whatever is taken: the marks are read, not more often than twice each. */
static void filling_is_one_walk(void **state)
{
    static uint8_t taken[TOTAL];
    (void)state;
    for (uint32_t n = 1; n <= 1024; n *= 2) {
        pdr_places p = {{0}};
        uint32_t   at, most = 0;
        memset(taken, 0, sizeof taken);
        while ((at = pdr_places_find(&p, taken, TOTAL, n)) < TOTAL) {
            assert_int_equal(at, most);
            pdr_places_take(&p, taken, at, n);
            most += n;
            for (int i = 0; i < PDR_PLACES_SIZES; i++)
                if (1u << i == n) assert_int_equal(p.from[i], most); /* where the next look begins */
        }
        assert_int_equal(most, TOTAL / n * n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_linked_is_found),
        cmocka_unit_test(damage_is_told_and_harms_nobody),
        cmocka_unit_test(the_first_run_that_fits),
        cmocka_unit_test(filling_is_one_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
