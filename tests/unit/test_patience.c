/* lib/patience.c: what is learnt of silences, and the bounds that follow. */
#include "patience.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define S 1000000ull /* microseconds */
static const pdr_patience_limits limits = {5 * S, 300 * S, 10 * S, 300 * S};
static const pdr_patience        nothing;

static pdr_silence bounds(const pdr_patience *p, const pdr_patience *pool, uint64_t predicted_us)
{
    return pdr_patience_bounds(p, p, pool, &limits, predicted_us, 1, 0, 0);
}

static pdr_patience after(unsigned n, uint64_t predicted_us, uint64_t took_us)
{
    pdr_patience p = {0};
    for (unsigned i = 0; i < n; i++) pdr_patience_late(&p, predicted_us, took_us);
    return p;
}

static void nothing_known_means_the_limits(void **state)
{
    (void)state;
    pdr_patience p = after(PDR_PATIENCE_KNOWN - 1, S, S);
    assert_int_equal(bounds(&p, &nothing, S).first_byte_us, 300 * S);
    assert_int_equal(bounds(&p, &nothing, S).idle_us, 300 * S);
    pdr_patience_late(&p, S, S);
    assert_int_equal(bounds(&p, &nothing, 2 * S).first_byte_us, 8 * S);
}

static void a_hang_is_noticed_in_seconds_and_a_long_prompt_is_not_killed(void **state)
{
    (void)state;
    pdr_patience p = after(20, 50000, 60000); /* short prompts, a little slower than predicted */
    assert_int_equal(bounds(&p, &nothing, 50000).first_byte_us, 5 * S);
    uint64_t of_200k = bounds(&p, &nothing, 46 * S).first_byte_us; /* 200,000 tokens at the prior's speed */
    assert_in_range(of_200k, 180 * S, 300 * S);
    p = after(20, 50000, 5000); /* much quicker than predicted: that says nothing about long prompts */
    assert_int_equal(bounds(&p, &nothing, 46 * S).first_byte_us, 184 * S);
    p = after(20, S, 10 * S); /* slow: a queue that nobody reports */
    assert_int_equal(bounds(&p, &nothing, S).first_byte_us, 40 * S);
    assert_int_equal(bounds(&p, &nothing, 20 * S).first_byte_us, 300 * S);
}

static void the_worst_counts_at_once_and_fades(void **state)
{
    (void)state;
    pdr_patience p = after(20, 10 * S, 10 * S);
    pdr_patience_late(&p, 10 * S, 50 * S);
    assert_int_equal(bounds(&p, &nothing, 10 * S).first_byte_us, 200 * S);
    for (int i = 0; i < 100; i++) pdr_patience_late(&p, 10 * S, 10 * S);
    assert_in_range(bounds(&p, &nothing, 10 * S).first_byte_us, 40 * S, 43 * S);
}

static void the_pool_speaks_for_the_unknown(void **state)
{
    (void)state;
    pdr_patience pool = after(20, S, 2 * S);
    assert_int_equal(bounds(&nothing, &pool, S).first_byte_us, 8 * S);
    pdr_patience own = after(PDR_PATIENCE_KNOWN, S, 5 * S);
    assert_int_equal(bounds(&own, &pool, S).first_byte_us, 20 * S);
}

static void a_passed_bound_doubles_twice_at_most(void **state)
{
    (void)state;
    pdr_patience p = after(20, S, 2 * S);
    uint64_t     want[] = {8, 16, 32, 32, 32};
    for (int i = 0; i < 5; i++) {
        assert_int_equal(bounds(&p, &nothing, S).first_byte_us, want[i] * S);
        pdr_patience_overran(&p);
    }
    pdr_patience_late(&p, S, 2 * S); /* it answers in time */
    assert_int_equal(bounds(&p, &nothing, S).first_byte_us, 8 * S);
}

static void silence_within_an_answer(void **state)
{
    (void)state;
    pdr_patience p = {0};
    for (int i = 0; i < 20; i++) pdr_patience_tokens(&p, 100, 100 * 30000);
    assert_int_equal(bounds(&p, &nothing, S).idle_us, 30 * S); /* a thousand steps */
    for (int i = 0; i < 20; i++) pdr_patience_gap(&p, 200000);
    assert_int_equal(bounds(&p, &nothing, S).idle_us, 10 * S); /* measured: 1.6 s, so the lower limit */
    pdr_patience_gap(&p, 4 * S);
    assert_int_equal(bounds(&p, &nothing, S).idle_us, 32 * S);
    pdr_patience_gap(&p, 400 * S);
    assert_int_equal(bounds(&p, &nothing, S).idle_us, 300 * S);
    pdr_patience q = {0};
    for (int i = 0; i < 20; i++) pdr_patience_tokens(&q, 7, S); /* too few tokens to tell */
    assert_int_equal(q.token_n, 0);
}

static void whole_answers_take_their_tokens_time(void **state)
{
    (void)state;
    pdr_patience p = after(20, S, S);
    for (int i = 0; i < 20; i++) pdr_patience_tokens(&p, 100, 100 * 20000);
    for (int i = 0; i < 20; i++) pdr_patience_gap(&p, 20000);
    pdr_silence s = pdr_patience_bounds(&p, &p, &nothing, &limits, S, 0, 1000, 0);
    assert_int_equal(s.first_byte_us, 5 * S);
    assert_int_equal(s.answer_us, 4 * 1000 * 20000 + 10 * S);
    s = pdr_patience_bounds(&p, &p, &nothing, &limits, S, 0, 0, 0); /* nobody said how long */
    assert_int_equal(s.answer_us, 4ull * PDR_PATIENCE_TOKENS * 20000 + 10 * S);
    s = pdr_patience_bounds(&p, &p, &nothing, &limits, S, 0, 1000, 1); /* one server: its first byte is the end */
    assert_int_equal(s.first_byte_us, 5 * S + 4 * 1000 * 20000 + 10 * S);
    s = pdr_patience_bounds(&p, &p, &nothing, &limits, S, 1, 1000, 1);
    assert_int_equal(s.first_byte_us, 5 * S);
}

static void limits_are_limits(void **state)
{
    (void)state;
    pdr_patience              p = after(20, 1, UINT64_MAX / 2000);
    const pdr_patience_limits fixed = {300 * S, 300 * S, 7 * S, 7 * S}, crossed = {9 * S, 4 * S, 9 * S, 4 * S};
    pdr_silence               s = pdr_patience_bounds(&p, &p, &nothing, &fixed, UINT64_MAX, 1, 0, 0);
    assert_int_equal(s.first_byte_us, 300 * S);
    assert_int_equal(s.idle_us, 7 * S);
    p = after(20, S, S);
    s = pdr_patience_bounds(&p, &p, &nothing, &crossed, 1, 1, 0, 0); /* the upper one counts */
    assert_int_equal(s.first_byte_us, 4 * S);
    assert_int_equal(s.idle_us, 4 * S);
    s = pdr_patience_bounds(&p, &p, &nothing, &limits, UINT64_MAX, 0, UINT64_MAX, 1);
    assert_true(s.answer_us == UINT64_MAX && s.first_byte_us == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known_means_the_limits),
        cmocka_unit_test(a_hang_is_noticed_in_seconds_and_a_long_prompt_is_not_killed),
        cmocka_unit_test(the_worst_counts_at_once_and_fades),
        cmocka_unit_test(the_pool_speaks_for_the_unknown),
        cmocka_unit_test(a_passed_bound_doubles_twice_at_most),
        cmocka_unit_test(silence_within_an_answer),
        cmocka_unit_test(whole_answers_take_their_tokens_time),
        cmocka_unit_test(limits_are_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
