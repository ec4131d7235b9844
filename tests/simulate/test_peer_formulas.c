/* The formulas of other gateways, each with cases worked out by hand from the sources named in peer_formulas.h. */
#include "peer_formulas.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static uint64_t random_state = 1;
static double   cost[8];

static struct peer_case on(const struct peer_worker *w, uint32_t n, double prompt)
{
    return (struct peer_case){w, n, prompt, &random_state};
}

static void load_only(void **state)
{
    const struct peer_worker w[] = {{.requests = 3, .pending = 100}, {.requests = 1, .pending = 9000}, {.requests = 2, .pending = 50}};
    struct peer_case         c = on(w, 3, 1000);
    (void)state;
    assert_int_equal(peer_least_requests(&c, cost), 1);
    assert_int_equal(peer_least_tokens(&c, cost), 2);
    assert_float_equal(cost[1], 9000, 0);
}

static void ties_go_to_the_least_recently_used(void **state)
{
    const struct peer_worker w[] = {{.turn = 7}, {.turn = 3}, {.turn = 5}};
    struct peer_case         c = on(w, 3, 1000);
    (void)state;
    assert_int_equal(peer_least_requests(&c, cost), 1);
    assert_int_equal(peer_dynamo(&c, 1, cost), 1);
    assert_int_equal(peer_lmetric(&c, cost), 1);
    assert_int_equal(peer_blend(&c, 3, 2, 2, cost), 1);
}

static void two_choices(void **state)
{
    struct peer_worker w[4] = {{.requests = 4}, {.requests = 1}, {.requests = 2}, {.requests = 3}};
    struct peer_case   c = on(w, 4, 1);
    int                seen[4] = {0};
    (void)state;
    for (int i = 0; i < 6000; i++) {
        uint32_t x = peer_power_of_two(&c, cost), looked = 0;
        for (int k = 0; k < 4; k++)
            if (!isinf(cost[k])) looked++, assert_true(w[x].requests <= w[k].requests);
        assert_int_equal(looked, 2);
        seen[x]++;
    }
    assert_int_equal(seen[0], 0); /* the most loaded never wins */
    assert_in_range(seen[1], 2800, 3200); /* in half of the pairs */
    assert_in_range(seen[2], 1800, 2200);
    assert_in_range(seen[3], 850, 1150);
    c.n = 1;
    assert_int_equal(peer_power_of_two(&c, cost), 0);
}

static void anybody(void **state)
{
    struct peer_worker w[4] = {{0}};
    struct peer_case   c = on(w, 4, 1);
    int                seen[4] = {0};
    (void)state;
    for (int i = 0; i < 8000; i++) seen[peer_any(&c, cost)]++;
    for (int k = 0; k < 4; k++) assert_in_range(seen[k], 1850, 2150);
}

/* cache_threshold .5, abs 32, rel 1.1: the library's defaults. */
static void cache_aware(void **state)
{
    struct peer_worker w[] = {{.requests = 33, .matched = 800}, {.requests = 1, .matched = 0}, {.requests = 2, .matched = 800}};
    struct peer_case   c = on(w, 3, 1000);
    (void)state;
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.1, cost), 2); /* 33 - 1 is not more than 32: the match, the less loaded holder */
    assert_float_equal(cost[2], -.8, 1e-9);
    w[0].requests = 34; /* 33 > 32 and 34 > 1.1: everybody goes to the least loaded */
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.1, cost), 1);
    w[0].requests = 340, w[1].requests = 307, w[2].requests = 320; /* 33 > 32, 340 > 337.7 */
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.1, cost), 1);
    w[1].requests = 310, w[0].requests = 341; /* 31: not imbalanced */
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.1, cost), 2);
    w[0].requests = 343, w[1].requests = 310; /* 33 > 32, and 343 > 341 */
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.2, cost), 2); /* but not more than 372 */
    w[0].matched = w[2].matched = 500; /* exactly the threshold is not enough */
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.2, cost), 1);
    w[2].matched = 501;
    assert_int_equal(peer_cache_aware(&c, .5, 32, 1.2, cost), 2);
}

static void dynamo(void **state)
{
    const struct peer_worker w[] = {{.pending = 3000, .matched = 2000}, {.pending = 0, .matched = 0}};
    struct peer_case         c = on(w, 2, 4000);
    (void)state;
    assert_int_equal(peer_dynamo(&c, 1, cost), 1); /* 3000 + 4000 - 2000 against 4000 */
    assert_float_equal(cost[0], 5000, 0);
    assert_float_equal(cost[1], 4000, 0);
    assert_int_equal(peer_dynamo(&c, 1.5, cost), 0); /* 4000 each: the first of the never used */
    assert_int_equal(peer_dynamo(&c, 2, cost), 0);
    assert_float_equal(cost[0], 3000, 0);
    peer_dynamo(&c, 4, cost);
    assert_float_equal(cost[0], 0, 0); /* never negative */
}

static void dynamo_queue(void **state)
{
    struct peer_worker w[] = {{.pending = 4096}, {.pending = 4097}};
    (void)state;
    assert_int_equal(peer_dynamo_busy(w, 2, .5, 8192), 0); /* at the threshold is not busy */
    w[0].pending = 4097;
    assert_int_equal(peer_dynamo_busy(w, 2, .5, 8192), 1);
    assert_int_equal(peer_dynamo_busy(w, 2, 2, 8192), 0);
    w[0].pending = 0;
    assert_int_equal(peer_dynamo_busy(w, 2, 0, 8192), 0); /* threshold 0: an idle worker takes one */
    w[0].pending = 1;
    assert_int_equal(peer_dynamo_busy(w, 2, 0, 8192), 1);
    assert_true(peer_wspt_key(10000, 9500) > peer_wspt_key(600, 0));
    assert_true(peer_wspt_key(10000, 0) < peer_wspt_key(600, 0));
    assert_float_equal(peer_wspt_key(100, 100), 1, 0); /* at least one token */
}

static void blend(void **state)
{
    struct peer_worker w[] = {{.requests = 4, .matched = 1000}, {.requests = 0, .matched = 0}, {.requests = 2, .matched = 600}};
    struct peer_case   c = on(w, 3, 1000);
    (void)state;
    assert_int_equal(peer_blend(&c, 3, 2, 0, cost), 0); /* 3 + 0, 0 + 2, 1.8 + 1 */
    assert_float_equal(cost[0], -3, 1e-9);
    assert_float_equal(cost[1], -2, 1e-9);
    assert_float_equal(cost[2], -2.8, 1e-9);
    assert_int_equal(peer_blend(&c, 2, 3, 0, cost), 1); /* 2, 3, 1.2 + 1.5 */
    w[0].kv_used = .9, w[1].kv_used = .1, w[2].kv_used = .1;
    assert_int_equal(peer_blend(&c, 3, 2, 2, cost), 2); /* 3.2, 3.8, 4.6 */
    w[0].requests = w[1].requests = w[2].requests = 5;
    peer_blend(&c, 3, 2, 0, cost);
    assert_float_equal(cost[1], -2, 1e-9); /* all equal: the full queue score for everybody */
}

static void sticky(void **state)
{
    struct peer_worker w[] = {{.pending = 60000, .matched = 900}, {.pending = 50000, .matched = 800}, {.pending = 0, .matched = 799}};
    struct peer_case   c = on(w, 3, 1000);
    (void)state;
    assert_int_equal(peer_sticky(&c, .8, 60000, cost), 1); /* 50200 against 201: within tau */
    assert_int_equal(peer_sticky(&c, .8, 49000, cost), 2); /* released */
    assert_int_equal(peer_sticky(&c, .8, 49999, cost), 1); /* exactly tau stays */
    w[0].matched = w[1].matched = 0;
    assert_int_equal(peer_sticky(&c, .8, 1e9, cost), 2); /* nobody near enough: all of them */
}

static void lmetric(void **state)
{
    struct peer_worker w[] = {{.pending = 1000, .requests = 1, .matched = 500}, {.pending = 0, .requests = 0, .matched = 0}};
    struct peer_case   c = on(w, 2, 1000);
    (void)state;
    assert_int_equal(peer_lmetric(&c, cost), 1);
    assert_float_equal(cost[0], 3000, 0); /* (1000 + 500) * 2 */
    assert_float_equal(cost[1], 1000, 0);
    w[0].pending = 0, w[0].matched = 1000, w[0].requests = 50; /* a full hit with nothing pending costs nothing, however many run */
    assert_int_equal(peer_lmetric(&c, cost), 0);
}

static void aibrix(void **state)
{
    struct peer_worker w[] = {{.requests = 9, .matched = 900}, {.requests = 1, .matched = 0}, {.requests = 2, .matched = 300},
                              {.requests = 3, .matched = 300}};
    struct peer_case   c = on(w, 4, 1000);
    (void)state;
    /* spread 8 is not more than 8; mean 3.75, deviation 3.11: at most 6.86, so the best holder is out */
    assert_int_equal(peer_aibrix(&c, 8, cost), 2);
    assert_true(isinf(cost[0]));
    w[0].requests = 6; /* mean 3, deviation 1.87 */
    assert_int_equal(peer_aibrix(&c, 8, cost), 2);
    w[0].requests = 4; /* mean 2.5, deviation 1.118: 3.6 */
    assert_int_equal(peer_aibrix(&c, 8, cost), 2);
    w[0].requests = 3; /* mean 2.25, deviation .83: 3.08 */
    assert_int_equal(peer_aibrix(&c, 8, cost), 0);
    w[0].requests = 10; /* gate */
    assert_int_equal(peer_aibrix(&c, 8, cost), 1);
    for (int i = 0; i < 4; i++) w[i].matched = 0, w[i].requests = 3;
    w[3].requests = 2;
    assert_int_equal(peer_aibrix(&c, 8, cost), 3); /* no match: fewest requests */
    for (int i = 0; i < 4; i++) w[i].matched = 10, w[i].requests = 3, w[i].turn = (uint64_t)(9 - i);
    assert_int_equal(peer_aibrix(&c, 8, cost), 3); /* all alike */
}

static void seconds(void **state)
{
    const struct peer_worker w[] = {{.wait_s = 1, .work_s = .5}, {.wait_s = 0, .work_s = 1.4}};
    struct peer_case         c = on(w, 2, 1000);
    (void)state;
    assert_int_equal(peer_seconds(&c, 0, cost), 1);  /* 1.5 against 1.4 */
    assert_int_equal(peer_seconds(&c, .5, cost), 0); /* 1.75 against 2.1: saved work counts more */
    assert_float_equal(cost[1], 2.1, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_only), cmocka_unit_test(ties_go_to_the_least_recently_used), cmocka_unit_test(two_choices),
        cmocka_unit_test(anybody), cmocka_unit_test(cache_aware), cmocka_unit_test(dynamo), cmocka_unit_test(dynamo_queue),
        cmocka_unit_test(blend), cmocka_unit_test(sticky), cmocka_unit_test(lmetric), cmocka_unit_test(aibrix), cmocka_unit_test(seconds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
