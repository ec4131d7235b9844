/* The fit of what prompts take: found within 200 prompts, whatever the prior; outliers; nothing negative. */
#include "fit.h"
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static uint64_t drawn;
static uint64_t draw(uint64_t n) { return pdr_random_at(7, ++drawn) % n; }

/* Prior: 10 ms + 55.1 us u + 1.76 ns u (m + u/2); a cached token's nominal reload 6.55 us. */
static void parts(uint64_t u, uint64_t m, uint64_t t[PDR_FIT_TERMS])
{
    t[0] = 10000;
    t[1] = u * 55100 / 1000;
    t[2] = u * (m + u / 2) / 1000 * 1760000 / 1000000;
    t[3] = m * 6553 / 1000;
}

/* What an engine takes whose four numbers are so many percent of the prior's. */
static uint64_t takes(const uint64_t t[PDR_FIT_TERMS], const uint64_t percent[PDR_FIT_TERMS])
{
    uint64_t us = 0;
    for (int i = 0; i < PDR_FIT_TERMS; i++) us += t[i] * percent[i] / 100;
    return us;
}

static void prompt(uint64_t *u, uint64_t *m)
{
    *u = 64 + draw(draw(3) ? 3000 : 30000);
    *m = draw(2) ? draw(60000) : 0;
}

/* Mean error in percent of the next 200 prompts. */
static uint64_t error_of(const pdr_fit *f, const uint64_t percent[PDR_FIT_TERMS])
{
    uint64_t sum = 0;
    for (int i = 0; i < 200; i++) {
        uint64_t t[PDR_FIT_TERMS], u, m;
        prompt(&u, &m);
        parts(u, m, t);
        uint64_t is = takes(t, percent), said = pdr_fit_us(f, t);
        sum += (is > said ? is - said : said - is) * 100 / is;
    }
    return sum / 200;
}

static void teach(pdr_fit *f, const uint64_t percent[PDR_FIT_TERMS], int n, uint64_t noise_percent, int outlier_every)
{
    for (int i = 0; i < n; i++) {
        uint64_t t[PDR_FIT_TERMS], u, m;
        prompt(&u, &m);
        parts(u, m, t);
        uint64_t us = takes(t, percent);
        if (noise_percent) us = us * (100 - noise_percent + draw(2 * noise_percent + 1)) / 100;
        if (outlier_every && i % outlier_every == 3) us *= 30;
        pdr_fit_add(f, t, us);
    }
}

static void the_prior_counts_at_first(void **state)
{
    (void)state;
    pdr_fit  f;
    uint64_t as_said[4] = {100, 100, 100, 0};
    pdr_fit_init(&f);
    assert_int_equal(error_of(&f, as_said), 0);
    teach(&f, as_said, 300, 20, 0);
    assert_in_range(error_of(&f, as_said), 0, 4);
}

static void every_engine_is_known_after_200_prompts(void **state)
{
    (void)state;
    static const uint64_t engines[][4] = {{130, 130, 130, 0}, {70, 70, 70, 0}, {10, 10, 10, 0}, {1000, 1000, 1000, 0}, {333, 63, 895, 0}, {100, 100, 100, 100},
                                          {20, 300, 50, 40}, {500, 20, 20, 0}};
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        pdr_fit f;
        pdr_fit_init(&f);
        teach(&f, engines[i], 10, 10, 0);
        assert_in_range(error_of(&f, engines[i]), 0, 45); /* roughly right at once */
        teach(&f, engines[i], 190, 10, 0);
        assert_in_range(error_of(&f, engines[i]), 0, 8);
    }
}

static void outliers_move_it_little(void **state)
{
    (void)state;
    pdr_fit  f;
    uint64_t engine[4] = {150, 150, 150, 0};
    pdr_fit_init(&f);
    teach(&f, engine, 200, 10, 0);
    teach(&f, engine, 200, 10, 20); /* each twentieth takes thirty times as long */
    assert_in_range(error_of(&f, engine), 0, 12);
}

static void it_follows_a_change(void **state)
{
    (void)state;
    pdr_fit  f;
    uint64_t before[4] = {100, 100, 100, 0}, after[4] = {200, 200, 200, 0};
    pdr_fit_init(&f);
    teach(&f, before, 500, 5, 0);
    teach(&f, after, 600, 5, 0);
    assert_in_range(error_of(&f, after), 0, 10);
}

static void strange_samples_are_survived(void **state)
{
    (void)state;
    pdr_fit  f;
    uint64_t none[4] = {0, 0, 0, 0}, huge[4] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    pdr_fit_init(&f);
    pdr_fit_add(&f, none, 1000);
    for (int i = 0; i < 100; i++) pdr_fit_add(&f, huge, i % 2 ? 0 : UINT64_MAX);
    for (int i = 0; i < PDR_FIT_TERMS; i++) assert_true(f.x[i] <= 64ull * PDR_FIT_ONE);
    uint64_t t[4];
    parts(1000, 0, t);
    assert_true(pdr_fit_us(&f, t) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_prior_counts_at_first),     cmocka_unit_test(every_engine_is_known_after_200_prompts),
        cmocka_unit_test(outliers_move_it_little),       cmocka_unit_test(it_follows_a_change),
        cmocka_unit_test(strange_samples_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
