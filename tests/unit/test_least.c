/* The least of sixteen, who rested longest, and the sweep over ends of work: what AVX2 says against the portable code, and both against a plain loop. */
#include "cost.h"
#include "least.h"
#include "rng.h"
#include "turns.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { ROUNDS = 20000 };

static uint64_t drawn;
static uint64_t draw(uint64_t n) { return pdr_random_at(5, ++drawn) % n; }

static void test_least(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t v[PDR_LEAST_OF], range = 1ull << draw(64), least = UINT64_MAX, mask = 0;
        for (int i = 0; i < PDR_LEAST_OF; i++) {
            v[i] = draw(8) ? draw(range) & INT64_MAX : PDR_LEAST_NOBODY;
            least = v[i] < least ? v[i] : least;
        }
        for (int i = 0; i < PDR_LEAST_OF; i++) mask |= (uint64_t)(v[i] == least) << i;
        for (int wide = 0; wide <= pdr_least_is_wide(); wide++) {
            pdr_least x = pdr_least_of(v, wide);
            assert_int_equal(x.value, least);
            assert_int_equal(x.mask, mask);
            uint64_t most = draw(4) ? v[draw(PDR_LEAST_OF)] : draw(range) & INT64_MAX;
            uint32_t below = pdr_below(v, most, wide);
            for (int i = 0; i < PDR_LEAST_OF; i++) assert_int_equal(below >> i & 1, v[i] <= most);
            assert_int_equal(below >> PDR_LEAST_OF, 0);
        }
    }
}

static void test_rested(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t last[PDR_LEAST_OF], now = (uint32_t)draw(1ull << 32), mask = (uint32_t)draw(1 << PDR_LEAST_OF), range = 1u << draw(32), best = PDR_LEAST_OF, longest = 0;
        for (uint32_t i = 0; i < PDR_LEAST_OF; i++) last[i] = now - (uint32_t)draw(range);
        if (round % 64 == 0) mask = 0; /* nobody */
        for (uint32_t i = 0; i < PDR_LEAST_OF; i++) {
            uint32_t since = now - last[i] < 65535 ? now - last[i] : 65535;
            if (!(mask >> i & 1) || (best < PDR_LEAST_OF && since <= longest)) continue;
            best = i;
            longest = since;
        }
        for (int wide = 0; wide <= pdr_least_is_wide(); wide++) {
            pdr_rested x = pdr_rested_of(last, now, 65535, mask, wide);
            assert_int_equal(x.at, best);
            assert_int_equal(x.since, longest);
        }
    }
}

/* The board's waits are those of the targets, at all times. */
static void test_waits(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS / 10; round++) {
        pdr_target t[37];
        uint64_t   end[37], us[2][37], sum = 0, now = 1 + draw(1ull << (20 + draw(41)));
        uint32_t   n = 1 + (uint32_t)draw(37);
        for (uint32_t i = 0; i < n; i++) {
            t[i] = (pdr_target){.requests = (uint32_t)draw(3), .work_us = draw(3) ? draw(1ull << draw(40)) : now / 1000, .since_ns = now - draw(draw(2) ? now : 3000 < now ? 3000 : now)};
            if (!draw(4)) t[i].work_us = (now - t[i].since_ns) / 1000 + draw(3); /* just at its end */
            end[i] = t[i].requests ? pdr_board_time(t[i].since_ns, t[i].work_us) : 0;
            if (t[i].requests && !end[i]) t[i].requests = 0; /* that one would be odd */
            sum += pdr_wait_us(&t[i], now);
        }
        for (int wide = 0; wide <= pdr_least_is_wide(); wide++) {
            assert_int_equal(pdr_board_waits(end, n, pdr_board_time(now, 0), PDR_OVERDUE_MAX_US, us[wide], wide), sum);
            for (uint32_t i = 0; i < n; i++) assert_int_equal(us[wide][i], pdr_wait_us(&t[i], now));
        }
    }
}

/* Lanes' turns, by the formula written out with divisions. */
static void test_turns(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS / 10; round++) {
        uint64_t       came[48] = {0}, half[48] = {0}, inverse[48] = {0}, turn[48], least[3], ns[48], now_ns = 1 + draw(1ull << (10 + draw(51)));
        uint32_t       n = 1 + (uint32_t)draw(48);
        uint16_t       mask[3];
        pdr_lane_turns t = {came, half, inverse};
        pdr_groups     groups = {turn, least, mask};
        pdr_turns_now  now = {draw(1ull << draw(34)) & 0xFFFFFFFF, 1ull << 32, now_ns, pdr_board_time(now_ns, 0)};
        if (!draw(8)) now.ageing_us = 1ull << 32;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t back = draw(1ull << draw(61));
            ns[i] = draw(8) ? now_ns - (back < now_ns ? back : now_ns) : now_ns + draw(5000);
            came[i] = pdr_board_time(ns[i], 0);
            half[i] = draw(3) ? now_ns + draw(3) - 1 : draw(1ull << 62);
            inverse[i] = draw(1ull << draw(32));
        }
        for (int wide = 0; wide <= pdr_least_is_wide(); wide++) {
            pdr_turns_of(&t, n, &now, &groups, wide);
            for (uint32_t i = 0; i < n; i++) {
                uint64_t age = pdr_elapsed_us(now_ns, ns[i]), urgency = (now.ageing_us + (age < 1ull << 32 ? age : 1ull << 32)) * inverse[i] >> 8;
                assert_int_equal(turn[i], half[i] <= now_ns ? half[i] : PDR_LEAST_NOBODY - 1 - urgency);
            }
            for (uint32_t i = n; i % PDR_LEAST_OF; i++) assert_int_equal(turn[i], PDR_LEAST_NOBODY);
            for (uint32_t group = 0; group * PDR_LEAST_OF < n; group++) {
                pdr_least x = pdr_least_portable(turn + group * PDR_LEAST_OF);
                assert_int_equal(least[group], x.value);
                assert_int_equal(mask[group], x.mask);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_least), cmocka_unit_test(test_rested), cmocka_unit_test(test_waits), cmocka_unit_test(test_turns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
