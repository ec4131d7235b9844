/*
 * Four simple policies, as baselines and for those who want them: they look at no prefix.
 *   round_robin   the n-th decision takes the n-th candidate; both sides count for themselves so that pairs do not correlate
 *   random        uniform, from the decision's random number
 *   least_tokens  fewest tokens outstanding there (uncached prompt tokens in prefill; context tokens in decode)
 *   power_of_two  of two random candidates the one with fewer requests
 * For held requests, planned_us puts those that are busy behind all others.
 */
#include "policy.h"
#include "rng.h"

static void put_off_busy(const pdr_view *v, uint64_t *cost)
{
    for (uint32_t i = 0; v->planned_us && i < v->n; i++) cost[i] += v->planned_us[v->list[i]];
}

static void rotate(const pdr_view *v, uint64_t *cost, uint32_t start)
{
    for (uint32_t i = 0; i < v->n; i++) cost[i] = (i + v->n - start % v->n) % v->n;
}
static void rotate_prefill(const pdr_view *v, uint64_t *cost)
{
    rotate(v, cost, v->sequence);
    put_off_busy(v, cost);
}
/* one step further after each round of n, so that with equal numbers every prefill meets every decode */
static void rotate_decode(const pdr_view *v, uint64_t *cost) { rotate(v, cost, v->sequence + (v->n ? v->sequence / v->n : 0)); }

static void shuffle(const pdr_view *v, uint64_t *cost, uint64_t side)
{
    for (uint32_t i = 0; i < v->n; i++) cost[i] = pdr_random_at(v->random ^ side, i) >> 32;
}
static void shuffle_prefill(const pdr_view *v, uint64_t *cost)
{
    shuffle(v, cost, 0);
    put_off_busy(v, cost);
}
static void shuffle_decode(const pdr_view *v, uint64_t *cost) { shuffle(v, cost, 0xDEC0DE); }

static void fewest_prefill_tokens(const pdr_view *v, uint64_t *cost)
{
    for (uint32_t i = 0; i < v->n; i++) cost[i] = v->targets[v->list[i]].tokens;
    put_off_busy(v, cost);
}
static void fewest_decode_tokens(const pdr_view *v, uint64_t *cost)
{
    for (uint32_t i = 0; i < v->n; i++) cost[i] = v->targets[v->list[i]].d_tokens + v->targets[v->list[i]].d_foreign_tokens;
}

enum { NOT_DRAWN = 1 << 30 };
/* Those not drawn come after the two that were, in the same order: they count when both drawn ones are barred. */
static void two(const pdr_view *v, uint64_t *cost, uint64_t side, int decode)
{
    uint64_t a = pdr_random_at(v->random ^ side, 1) % v->n, b = v->n > 1 ? pdr_random_at(v->random ^ side, 2) % (v->n - 1) : 0;
    if (b >= a) b++;
    for (uint32_t i = 0; i < v->n; i++) {
        const pdr_target *t = &v->targets[v->list[i]];
        cost[i] = (decode ? t->d_requests : t->requests) + (i == a || i == b ? 0u : (uint32_t)NOT_DRAWN);
    }
}
static void two_prefill(const pdr_view *v, uint64_t *cost)
{
    two(v, cost, 0, 0);
    put_off_busy(v, cost);
}
static void two_decode(const pdr_view *v, uint64_t *cost) { two(v, cost, 0xDEC0DE, 1); }

const pdr_policy pdr_policy_round_robin = {"round_robin", 0, rotate_prefill, rotate_decode};
const pdr_policy pdr_policy_random = {"random", 0, shuffle_prefill, shuffle_decode};
const pdr_policy pdr_policy_least_tokens = {"least_tokens", 0, fewest_prefill_tokens, fewest_decode_tokens};
const pdr_policy pdr_policy_power_of_two = {"power_of_two", 0, two_prefill, two_decode};
