/* The bound below all policies: by hand, and never above what random schedules of several workers reach. */
#include "bound.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

enum { PROMPTS = 12, ROUNDS = 3000 };

static void one_prompt_is_computed_by_one_worker(void **state)
{
    const double at[] = {3}, work[] = {2};
    sim_bound    b;
    (void)state;
    assert_int_equal(sim_bound_work(at, work, 1, 4, .5, &b), 0);
    assert_float_equal(b.mean, 2.5, 1e-9);
    assert_float_equal(b.longest, 2.5, 1e-9);
}

static void one_worker_shortest_first(void **state)
{
    const double at[] = {0, 0, 0, 1}, work[] = {4, 2, 1, .5}; /* ends 1; 1.5 from 1; 3.5; 7.5 */
    sim_bound    b;
    (void)state;
    assert_int_equal(sim_bound_work(at, work, 4, 1, 0, &b), 0);
    assert_float_equal(b.mean, (1 + .5 + 3.5 + 7.5) / 4, 1e-9);
    assert_float_equal(b.longest, 7, 1e-9); /* in order of arrival: 4, 6, 7, 6.5 */
}

static void many_workers_are_no_single_fast_one(void **state)
{
    const double at[] = {0, 0, 0, 0}, work[] = {1, 1, 1, 1}; /* two workers: 1, 1, 2, 2; one of twice the speed .5, 1, 1.5, 2 */
    sim_bound    b;
    (void)state;
    assert_int_equal(sim_bound_work(at, work, 4, 2, 0, &b), 0);
    assert_float_equal(b.mean, 1.5, 1e-9); /* mean times of service .25, .75, 1.25, 1.75, and half the work */
}

static void no_schedule_is_better(void **state)
{
    uint64_t random = 1;
    double   closest = INFINITY;
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        double    at[PROMPTS], work[PROMPTS], free_at[4] = {0}, sum = 0, longest = 0, t = 0, good = 0;
        int       workers = 1 + round % 4, done[PROMPTS] = {0}, shortest = round % 3;
        sim_bound b;
        for (int i = 0; i < PROMPTS; i++) {
            at[i] = t += sim_uniform(&random) * .5;
            work[i] = .05 + pow(sim_uniform(&random), 4) * 8;
        }
        for (int k = 0; k < PROMPTS; k++) { /* list schedules: by size, by arrival, at random */
            int w = 0, best = -1;
            for (int i = 1; i < workers; i++) w = free_at[i] < free_at[w] ? i : w;
            double now = free_at[w];
            for (int pass = 0; best < 0; pass++) {
                for (int i = 0; i < PROMPTS; i++)
                    if (!done[i] && at[i] <= now &&
                        (best < 0 || (shortest == 0 && work[i] < work[best]) || (shortest == 2 && sim_uniform(&random) < .5)))
                        best = i;
                if (best < 0) {
                    assert_int_equal(pass, 0);
                    now = INFINITY;
                    for (int i = 0; i < PROMPTS; i++) now = !done[i] ? fmin(now, at[i]) : now;
                }
            }
            done[best] = 1;
            free_at[w] = now + work[best];
            sum += free_at[w] - at[best];
            longest = fmax(longest, free_at[w] - at[best]);
            good += free_at[w] - at[best] <= SIM_BOUND_SLO;
        }
        assert_int_equal(sim_bound_work(at, work, PROMPTS, workers, 0, &b), 0);
        assert_true(b.mean <= sum / PROMPTS + 1e-9);
        assert_true(b.longest <= longest + 1e-9 && b.p99 <= longest + 1e-6);
        assert_true(b.goodput >= good / PROMPTS - 1e-9);
        closest = fmin(closest, sum / PROMPTS / b.mean);
    }
    assert_true(closest < 1.05); /* and it says something */
}

/* Whether all of `set` are computed within x in order of arrival, which is best. */
static int in_time(const double *at, const double *work, int n, unsigned set, double speed, double x)
{
    double t = 0;
    for (int i = 0; i < n; i++)
        if (set >> i & 1) {
            t = fmax(t, at[i]) + work[i] / speed;
            if (t > at[i] + x) return 0;
        }
    return 1;
}

/* The least number of late ones is that of all subsets. */
static void late_ones_are_counted_exactly(void **state)
{
    enum { FEW = 10 };
    uint64_t random = 7;
    size_t   some = 0, idle = 0;
    char     take[FEW];
    (void)state;
    memset(take, 1, sizeof take);
    for (int round = 0; round < 2000; round++) {
        double at[FEW], work[FEW], t = 0, x = .2 + sim_uniform(&random) * 3, speed = 1 + round % 3;
        int    most = 0;
        for (int i = 0; i < FEW; i++) {
            at[i] = t += sim_uniform(&random) * (round % 2 ? .5 : 1.5);
            work[i] = .05 + pow(sim_uniform(&random), 3) * 4;
        }
        for (unsigned set = 0; set < 1u << FEW; set++)
            if (__builtin_popcount(set) > most && in_time(at, work, FEW, set, speed, x)) most = __builtin_popcount(set);
        assert_int_equal(sim_bound_late(at, work, take, FEW, speed, x), FEW - most);
        some += most < FEW;
        idle += most == FEW;
    }
    assert_true(some > 500 && idle > 100);
}

static void ninety_nine_of_a_hundred(void **state)
{
    double    at[200], work[200];
    sim_bound b;
    (void)state;
    for (int i = 0; i < 200; i++) at[i] = i * 10., work[i] = i < 2 ? 40 : i < 4 ? 3 : 1; /* two may be late: each other is alone */
    assert_int_equal(sim_bound_work(at, work, 200, 1, 0, &b), 0);
    assert_float_equal(b.p99, 3, 1e-6);
    assert_float_equal(b.goodput, .98, 1e-9); /* four are longer than 2 s themselves */
    for (int i = 0; i < 200; i++) at[i] = 0, work[i] = .1; /* all at once */
    assert_int_equal(sim_bound_work(at, work, 200, 1, 0, &b), 0);
    assert_float_equal(b.p99, 19.8, 1e-3);
    assert_float_equal(b.goodput, .1, .006);
    assert_true(b.p99 <= b.longest && b.mean <= b.p99);
}

static void more_workers_are_no_worse(void **state)
{
    sim_trace   t = {0};
    sim_options o;
    sim_bound   once, twice;
    char        why[256];
    (void)state;
    sim_options_default(&o);
    assert_int_equal(sim_trace_make(&t, "synthetic:chat,n=400", why, sizeof why), 0);
    o.prefills = 2;
    assert_int_equal(sim_bound_of(&t, &o, 1, 0, &twice), 0);
    assert_int_equal(sim_bound_of(&t, &o, 1, 1, &once), 0);
    assert_true(once.mean > 0 && once.mean <= twice.mean && once.longest <= twice.longest && once.p99 <= twice.p99 && once.goodput >= twice.goodput); /* more may compute */
    assert_true(once.tpot > 0 && once.tpot == twice.tpot);
    sim_trace_free(&t);
}

/* In steps of 128 tokens most of the time is the fixed part: the bound knows, and no run is below it. With decode-only there are no such steps. */
static void steps_have_a_fixed_part(void **state)
{
    static const char *const policy[] = {"reference-held", "round_robin", "pdroute"};
    sim_trace   t = {0};
    sim_options o;
    sim_bound   large, small, local, local_large;
    char        why[256];
    double      least = INFINITY;
    (void)state;
    sim_options_default(&o);
    assert_int_equal(sim_trace_make(&t, "synthetic:chat,n=400", why, sizeof why), 0);
    o.prefills = 3;
    o.scaling.rate = 4;
    assert_int_equal(sim_bound_of(&t, &o, 1, 0, &large), 0);
    assert_int_equal(sim_bound_of(&t, &o, 1, 1, &local_large), 0);
    o.batch_tokens = 128;
    assert_int_equal(sim_bound_of(&t, &o, 1, 0, &small), 0);
    assert_int_equal(sim_bound_of(&t, &o, 1, 1, &local), 0);
    assert_memory_equal(&local, &local_large, sizeof local);
    for (size_t i = 0; i < sizeof policy / sizeof *policy; i++) {
        sim_result x;
        assert_int_equal(sim_run(&t, &o, sim_chooser_named(policy[i]), "", 1, NULL, &x), 0);
        cJSON *j = sim_result_json(&x, &o, &t, policy[i], "", 1);
        assert_true(sim_number(j, "ttft.mean") >= small.mean && sim_number(j, "ttft.p99") >= small.p99 && sim_number(j, "ttft.max") >= small.longest);
        assert_true(sim_number(j, "goodput.2s_50ms") <= small.goodput);
        least = fmin(least, sim_number(j, "ttft.mean"));
        cJSON_Delete(j);
        sim_result_free(&x);
    }
    print_message("bound %.3f s in large steps, %.3f s in small ones, least %.3f s\n", large.mean, small.mean, least);
    assert_true(small.mean > 1.5 * large.mean && small.longest > 1.5 * large.longest);
    sim_trace_free(&t);
}

static void each_alone(void **state)
{
    double    work[] = {3, .5, 1.9, 1};
    sim_bound b;
    (void)state;
    assert_int_equal(sim_bound_alone(work, 4, .1, &b), 0);
    assert_float_equal(b.mean, 1.7, 1e-9);
    assert_float_equal(b.longest, 3.1, 1e-9);
    assert_float_equal(b.p99, 3.1, 1e-9);
    assert_float_equal(b.goodput, .75, 1e-9); /* 2.0 is in time */
}

/* Agents wait for their answers: whatever the policy and however idle the cluster, no run is below what each request takes alone, and an idle one comes near it. */
static void a_closed_loop_has_what_each_takes_alone(void **state)
{
    static const char *const policy[] = {"reference-held", "reference-immediate", "round_robin", "pdroute"};
    sim_trace   t = {0};
    sim_options o;
    sim_bound   b, local;
    char        why[256];
    double      least = INFINITY;
    (void)state;
    sim_options_default(&o);
    assert_int_equal(sim_trace_make(&t, "synthetic:agents,n=600", why, sizeof why), 0);
    assert_true(t.closed);
    assert_int_equal(sim_bound_of(&t, &o, 1, 0, &b), 0);
    assert_int_equal(sim_bound_of(&t, &o, 1, 1, &local), 0);
    assert_true(b.mean > 0 && local.mean <= b.mean && local.tpot == b.tpot && b.p99 <= b.longest);
    for (size_t i = 0; i < sizeof policy / sizeof *policy; i++)
        for (uint64_t seed = 1; seed <= 2; seed++) {
            sim_result x;
            assert_int_equal(sim_run(&t, &o, sim_chooser_named(policy[i]), "", seed, NULL, &x), 0);
            cJSON *j = sim_result_json(&x, &o, &t, policy[i], "", seed);
            assert_true(sim_number(j, "ttft.mean") >= b.mean && sim_number(j, "ttft.p99") >= b.p99 && sim_number(j, "ttft.max") >= b.longest);
            assert_true(sim_number(j, "tpot.mean") >= b.tpot && sim_number(j, "goodput.2s_50ms") <= b.goodput);
            least = fmin(least, sim_number(j, "ttft.mean"));
            cJSON_Delete(j);
            sim_result_free(&x);
        }
    print_message("bound %.3f s, least %.3f s\n", b.mean, least);
    assert_true(least < 2 * b.mean); /* it bounds something */
    sim_trace_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_prompt_is_computed_by_one_worker), cmocka_unit_test(one_worker_shortest_first),
        cmocka_unit_test(many_workers_are_no_single_fast_one),  cmocka_unit_test(no_schedule_is_better),
        cmocka_unit_test(late_ones_are_counted_exactly),        cmocka_unit_test(ninety_nine_of_a_hundred),
        cmocka_unit_test(more_workers_are_no_worse),            cmocka_unit_test(each_alone),
        cmocka_unit_test(steps_have_a_fixed_part),
        cmocka_unit_test(a_closed_loop_has_what_each_takes_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
