/* lib/pair.c and the policies: the joint choice against brute force, topology, ties, baselines. */
#include "fleet.h"

#include "breaker.h"
#include "pair.h"
#include "rng.h"
#include "waits_near.h"

enum { MAX = 40 };

typedef struct world {
    pdr_registry_head head;
    pdr_endpoint_rec  endpoints[MAX];
    pdr_target        targets[MAX];
    pdr_target_info   infos[MAX];
    uint8_t           taken[MAX];
    uint32_t          prefill[MAX], decode[MAX], single[MAX], listed[MAX];
    uint64_t          prefill_cost[MAX], decode_cost[MAX];
    uint32_t          host[MAX], rack[MAX], zone[MAX];
    uint16_t          depth[MAX];
    uint64_t          board[64 * MAX], lookups[8 * MAX], near[64 * MAX];
    pdr_registry      g;
    pdr_scratch       s;
    pdr_rates         rates;
    pdr_job           job;
    pdr_view          view;
} world;

static uint64_t seed, drawn;
static uint64_t draw(uint64_t n) { return pdr_random_at(seed, ++drawn) % n; }

static void make_world(world *w, int topology)
{
    memset(w, 0, sizeof *w);
    w->g = (pdr_registry){&w->head, w->endpoints, w->targets, w->infos, w->taken, w->prefill, w->decode, w->single, w->listed, .board = {0}};
    pdr_board_open(&w->g.board, w->board, MAX);
    assert_true(pdr_registry_lookups_size(MAX) <= sizeof w->lookups);
    w->g.lookups = w->lookups;
    assert_true(pdr_near_size(MAX, MAX) <= sizeof w->near);
    pdr_near_open(&w->g.near, w->near, MAX);
    w->s = (pdr_scratch){w->prefill_cost, w->decode_cost, w->host, w->rack, w->zone};
    w->rates = (pdr_rates){10000, 55100, 1760000, 50, 48900, 262144, 5000, 200000, 50000, 25000, 12500, 0};
    pdr_registry_init(&w->g, MAX, MAX);
    uint32_t n = 2 + (uint32_t)draw(MAX - 2);
    for (uint32_t i = 0; i < n; i++) {
        pdr_endpoint e;
        uint32_t     id;
        pdr_init_struct(&e, sizeof e);
        snprintf(e.name, sizeof e.name, "e%u", i);
        snprintf(e.host, sizeof e.host, "10.1.0.%u", i + 1);
        e.port = 8000;
        e.role = draw(9) ? 1 + (uint32_t)draw(2) : PDR_ROLE_BOTH;
        if (topology && draw(5)) snprintf(e.topology_host, sizeof e.topology_host, "h%u", (unsigned)draw(6));
        if (topology && draw(5)) snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", (unsigned)draw(4));
        if (topology && draw(5)) snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", (unsigned)draw(3));
        assert_int_equal(pdr_registry_put(&w->g, &e, &id, NULL), PDR_OK);
        pdr_target *t = &w->targets[id];
        t->requests = (uint32_t)draw(4);
        t->work_us = t->requests * draw(400000);
        t->since_ns = 1000 * SECOND - draw(300 * MS);
        t->d_requests = (uint32_t)draw(50);
        t->d_tokens = t->d_requests * draw(9000);
        t->kv_capacity = draw(2) ? 200000 : 0;
        t->slowness_q10 = 512 + (uint32_t)draw(2048);
        pdr_breaker_open_until(&w->g, id, PDR_GUARD_BREAKER, draw(8) ? 0 : 1001 * SECOND);
        w->depth[id] = (uint16_t)draw(60);
    }
    pdr_registry_relist(&w->g);
    w->job = (pdr_job){.prompt_tokens = 1 + draw(30000), .output_tokens = 300, .block_millitokens = 128000, .excluded = 1, .exclude = {(uint32_t)draw(MAX)}};
    w->view = (pdr_view){.targets = w->targets, .depth = w->depth, .job = &w->job, .rates = &w->rates, .now_ns = 1000 * SECOND, .mean_queue_q10 = draw(5000), .random = draw(UINT64_MAX)};
}

static uint64_t one_cost(const world *w, void (*score)(const pdr_view *, uint64_t *), uint32_t target)
{
    pdr_view v = w->view;
    uint64_t cost;
    v.list = &target;
    v.n = 1;
    if (pdr_barred(&w->targets[target], &w->job, v.now_ns)) return PDR_COST_BARRED;
    score(&v, &cost);
    return cost;
}

/* Every pair and every single server, one by one. */
static uint64_t brute_force(const world *w, uint64_t *pairs)
{
    const pdr_policy *policy = &pdr_policy_default;
    uint64_t          best = UINT64_MAX;
    *pairs = 0;
    for (uint32_t i = 0; i < w->head.prefill_n; i++)
        for (uint32_t k = 0; k < w->head.decode_n; k++) {
            uint64_t p = one_cost(w, policy->prefill, w->prefill[i]), d = one_cost(w, policy->decode, w->decode[k]);
            if (p == PDR_COST_BARRED || d == PDR_COST_BARRED) continue;
            ++*pairs;
            uint64_t x = pdr_tier_us(&w->rates, pdr_tier(&w->targets[w->prefill[i]], &w->targets[w->decode[k]]), w->job.prompt_tokens);
            if (p + d + x < best) best = p + d + x;
        }
    for (uint32_t i = 0; i < w->head.single_n; i++) {
        uint64_t p = one_cost(w, policy->prefill, w->single[i]), d = one_cost(w, policy->decode, w->single[i]);
        if (p == PDR_COST_BARRED) continue;
        ++*pairs;
        if (p + d < best) best = p + d;
    }
    return best;
}

static void joint_choice_is_the_exact_minimum(void **state)
{
    (void)state;
    static world w;
    pdr_choice   c;
    int          with_topology = 0, none = 0, single = 0;
    for (int round = 0; round < 20000; round++) {
        seed = 1000 + (uint64_t)round;
        drawn = 0;
        make_world(&w, round % 2);
        uint64_t pairs, want = brute_force(&w, &pairs);
        int      code = pdr_pair_choose(&w.g, &pdr_policy_default, &w.view, &w.s, 0, 0, &c);
        if (want == UINT64_MAX) {
            assert_int_equal(code, PDR_E_NO_PAIR);
            none++;
            continue;
        }
        assert_int_equal(code, PDR_OK);
        assert_int_equal(c.cost, want);
        assert_int_equal(c.pairs, pairs);
        assert_int_equal(c.cost, c.prefill_cost + c.decode_cost + c.transfer_us);
        assert_int_equal(pdr_barred(&w.targets[c.decode], &w.job, w.view.now_ns), PDR_BARRED_NO);
        if (c.mode == PDR_MODE_SINGLE) {
            single++;
            continue;
        }
        assert_int_equal(pdr_barred(&w.targets[c.prefill], &w.job, w.view.now_ns), PDR_BARRED_NO);
        with_topology += c.transfer_us != pdr_tier_us(&w.rates, PDR_TIER_ZONE, w.job.prompt_tokens);
    }
    assert_true(with_topology > 1000); /* the interesting cases were met */
    assert_true(none > 10 && single > 100);
}

/* Servers whose prices are beyond what bounds of groups hold for. */
static void make_odd(world *w)
{
    uint64_t odd = draw(3) ? 1 + draw(4) : 50; /* of how many one is out of bounds */
    int      full = odd == 1 && draw(2);       /* all are over their KV cache by more than the board's bounds, though no step is long */
    if (full) w->rates.decode_ps_per_token = w->head.board.ps_per_token = 0;
    for (uint32_t i = 0; i < MAX; i++) {
        pdr_target *t = &w->targets[i];
        t->d_last_pick = (uint32_t)draw(20);
        t->max_running = draw(3) ? 0 : 1 + (uint32_t)draw(60);
        if (draw(odd)) continue;
        if (!full && draw(2)) t->d_foreign_requests = UINT32_MAX - (uint32_t)draw(1000); /* a step beyond the most that the board holds */
        else t->d_foreign_tokens = 1ull << (full ? 51 + draw(10) : 40 + draw(14)); /* and so far over the KV cache */
        if (full || draw(2)) t->kv_capacity = 200000;
    }
}

/* Prices beyond what bounds of groups hold for: the cheapest decode, found by groups, is that of all pairs compared. */
static void bounds_hold_or_are_not_used(void **state)
{
    (void)state;
    static world w;
    pdr_choice   c, x;
    uint32_t     met[5] = {0}, none = 0;
    for (int round = 0; round < 20000; round++) {
        seed = 900000 + (uint64_t)round;
        drawn = 0;
        make_world(&w, 0);
        w.head.board.us_per_request = w.rates.decode_us_per_request;
        w.head.board.ps_per_token = w.rates.decode_ps_per_token;
        make_odd(&w);
        w.head.pick = 20;
        pdr_registry_relist(&w.g);
        w.head.single_n = 0;
        w.job.excluded = 0;
        const uint64_t outputs[5] = {0, 1 + draw(3000), (1 << 24) - 1, (1 << 24) + draw(3), 1ull << (25 + draw(15))};
        uint32_t       kind = (uint32_t)draw(5), possible = 0;
        w.job.output_tokens = outputs[kind];
        int code = pdr_pair_choose(&w.g, &pdr_policy_default, &w.view, &w.s, 0, 0, &c);
        for (uint32_t i = 0; i < w.head.prefill_n; i++) possible += !pdr_barred(&w.targets[w.prefill[i]], &w.job, w.view.now_ns);
        assert_int_equal(pdr_pair_with(&w.g, &w.view, c.prefill, c.prefill_cost, possible, &x), code);
        assert_int_equal(x.pairs, c.pairs);
        assert_int_equal(x.decode, c.decode);
        if (code) {
            none++;
            continue;
        }
        assert_int_equal(x.decode_cost, c.decode_cost);
        assert_int_equal(x.transfer_us, c.transfer_us);
        assert_int_equal(x.cost, c.cost);
        met[kind]++;
    }
    assert_true(none > 10);
    for (int i = 0; i < 5; i++) assert_true(met[i] > 2000);
}

/* Where topology is known: the pair found from the side of prefills, by places, is that of all pairs compared, ties and prices out of all bounds included. */
static void near_choices_are_those_of_all_pairs(void **state)
{
    (void)state;
    static world    w;
    static uint64_t us[MAX], least[MAX];
    static uint32_t slow[MAX], touched[MAX], holders[MAX];
    static uint16_t mask[MAX];
    pdr_choice      c, x;
    uint32_t        far = 0, host = 0, none = 0, tied = 0;
    for (int round = 0; round < 20000; round++) {
        pdr_waits     waits = {.us = {us, least, mask}, .slow = slow, .touched = touched};
        pdr_near_best near;
        uint32_t      holding = 0, alike = round % 3 == 0;
        seed = 1900000 + (uint64_t)round;
        drawn = 0;
        make_world(&w, 1);
        w.head.board.us_per_request = w.rates.decode_us_per_request;
        w.head.board.ps_per_token = w.rates.decode_ps_per_token;
        if (draw(2)) make_odd(&w);
        if (draw(4) == 0) w.rates.mbps_host = w.rates.mbps_rack = w.rates.mbps_zone = w.rates.mbps_far = 50000;
        for (uint32_t i = 0; i < MAX; i++) {
            pdr_target *t = &w.targets[i];
            t->last_pick = (uint32_t)draw(4);
            t->d_last_pick = (uint32_t)draw(4);
            if (draw(2)) t->slowness_q10 = 1024;
            if (alike) t->requests = t->d_requests = 0, t->d_tokens = t->d_foreign_tokens = t->d_foreign_requests = t->max_running = 0, t->slowness_q10 = 1024; /* nothing but ties */
            else if (!draw(200)) t->work_us = 1ull << (44 + draw(4)), t->requests = 1;
            if (draw(3)) w.depth[i] = 0;
        }
        w.head.pick = 4;
        pdr_registry_relist(&w.g);
        w.head.single_n = 0;
        w.job.excluded = 0;
        if (draw(3) == 0) w.job.output_tokens = draw(2) ? draw(2) : 1ull << (20 + draw(20));
        if (!pdr_near_known(&w.g) || !w.head.prefill_n || !w.head.decode_n) continue;
        for (uint32_t i = 0; i < w.head.prefill_n; i++)
            if (w.depth[w.prefill[i]]) holders[holding++] = w.prefill[i];
        int code = pdr_pair_choose(&w.g, &pdr_policy_default, &w.view, &w.s, 0, 0, &c);
        pdr_waits_begin(&waits, &w.g, w.view.now_ns);
        pdr_wait_best best = pdr_near_choose(&waits, &w.g, &w.view, holders, holding, &near);
        if (code) {
            assert_int_equal(best.target, PDR_NONE);
            none++;
            continue;
        }
        pdr_near_pair(&near, waits.possible, &x);
        assert_int_equal(best.target, c.prefill);
        assert_int_equal(best.cost, c.prefill_cost);
        assert_int_equal(x.prefill, c.prefill);
        assert_int_equal(x.decode, c.decode);
        assert_int_equal(x.prefill_cost, c.prefill_cost);
        assert_int_equal(x.decode_cost, c.decode_cost);
        assert_int_equal(x.transfer_us, c.transfer_us);
        assert_int_equal(x.cost, c.cost);
        assert_int_equal(x.pairs, c.pairs);
        int tier = pdr_tier(&w.targets[c.prefill], &w.targets[c.decode]);
        far += tier == PDR_TIER_FAR;
        host += tier == PDR_TIER_HOST;
        tied += alike;
    }
    print_message("%u far, %u on one host, %u among equals, %u none\n", far, host, tied, none);
    assert_true(far > 200 && host > 1000 && tied > 2000 && none > 10);
}

static void group_numbers_are_reused(void **state)
{
    (void)state;
    static world w;
    pdr_endpoint e;
    uint32_t     id, first = 0;
    make_world(&w, 0);
    pdr_registry_init(&w.g, MAX, MAX);
    for (uint32_t round = 0; round < 10 * MAX; round++) { /* a pod that comes back on another machine every time */
        pdr_init_struct(&e, sizeof e);
        strcpy(e.name, "wanderer");
        strcpy(e.host, "10.0.0.1");
        e.port = 80;
        e.role = PDR_ROLE_PREFILL;
        snprintf(e.topology_host, sizeof e.topology_host, "machine%u", round);
        assert_int_equal(pdr_registry_put(&w.g, &e, &id, NULL), PDR_OK);
        strcpy(e.name, "neighbour");
        strcpy(e.host, "10.0.0.2");
        assert_int_equal(pdr_registry_put(&w.g, &e, &first, NULL), PDR_OK);
        pdr_registry_relist(&w.g);
        assert_true(w.targets[id].host < MAX && w.head.hosts <= MAX);
        assert_int_equal(w.targets[id].host, w.targets[first].host);
    }
}

static void a_near_prefill_wins_if_it_pays(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    fleet        f;
    pdr_decision d;
    fleet_open(&f, &c, 0, 0);
    for (int i = 0; i < 4; i++) {
        pdr_endpoint e;
        pdr_init_struct(&e, sizeof e);
        snprintf(e.name, sizeof e.name, "%c%d", i < 2 ? 'p' : 'd', i % 2);
        snprintf(e.host, sizeof e.host, "10.0.0.%d", i + 1);
        snprintf(e.topology_zone, sizeof e.topology_zone, "zone%d", i % 2);
        e.port = 8000;
        e.role = i < 2 ? PDR_ROLE_PREFILL : PDR_ROLE_DECODE;
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
    }
    for (uint32_t s = 0; s < 10; s++) {
        pdr_endpoint p, q;
        f.now += SECOND;
        assert_int_equal(fleet_route(&f, 8000, s, 0, &d), PDR_OK);
        pdr_init_struct(&p, sizeof p);
        pdr_init_struct(&q, sizeof q);
        pdr_endpoint_get(f.r, d.prefill, &p, NULL);
        pdr_endpoint_get(f.r, d.decode, &q, NULL);
        assert_string_equal(p.topology_zone, q.topology_zone);
        pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    }
    fleet_close(&f);
}

static void baselines_do_what_their_names_say(void **state)
{
    (void)state;
    for (uint32_t policy = PDR_POLICY_ROUND_ROBIN; policy <= PDR_POLICY_POWER_OF_TWO; policy++) {
        pdr_config   c = fleet_config();
        fleet        f;
        pdr_decision d;
        uint32_t     count[64] = {0}, pairs[64][64] = {{0}}, met = 0;
        c.policy = policy;
        c.hold = PDR_HOLD_OFF;
        fleet_open(&f, &c, 4, 4);
        for (uint32_t s = 0; s < 400; s++) {
            assert_int_equal(fleet_route(&f, 1000, s % 7, 0, &d), PDR_OK);
            count[d.prefill]++;
            count[d.decode]++;
            pairs[d.prefill][d.decode]++;
        }
        for (int p = 0; p < 4; p++)
            for (int q = 0; q < 4; q++) met += pairs[f.prefill[p]][f.decode[q]] > 0;
        for (int i = 0; i < 4; i++) {
            if (policy == PDR_POLICY_RANDOM) { /* mean 100, deviation 8.7 */
                assert_in_range(count[f.prefill[i]], 60, 140);
                assert_in_range(count[f.decode[i]], 60, 140);
            } else if (policy == PDR_POLICY_POWER_OF_TWO) {
                assert_in_range(count[f.prefill[i]], 95, 105);
            } else {
                assert_int_equal(count[f.prefill[i]], 100);
                assert_int_equal(count[f.decode[i]], 100);
            }
        }
        if (policy == PDR_POLICY_ROUND_ROBIN || policy == PDR_POLICY_RANDOM) assert_int_equal(met, 16);
        fleet_close(&f);
    }
}

static void same_calls_same_decisions(void **state)
{
    (void)state;
    for (uint32_t policy = PDR_POLICY_DEFAULT; policy <= PDR_POLICY_POWER_OF_TWO; policy++) {
        pdr_config   c = fleet_config();
        fleet        a, b;
        pdr_decision x, y;
        c.policy = policy;
        fleet_open(&a, &c, 6, 5);
        fleet_open(&b, &c, 6, 5);
        for (uint32_t s = 0; s < 300; s++) {
            a.now = b.now += 20 * MS;
            int code = fleet_route(&a, 500 + s * 37 % 9000, s % 11, PDR_REQUEST_NO_HOLD, &x);
            assert_int_equal(fleet_route(&b, 500 + s * 37 % 9000, s % 11, PDR_REQUEST_NO_HOLD, &y), code);
            assert_memory_equal(&x, &y, sizeof x);
            if (s % 3 == 0) pdr_booking_done(a.r, x.booking, PDR_DONE_ALL, a.now), pdr_booking_done(b.r, y.booking, PDR_DONE_ALL, b.now);
        }
        fleet_close(&a);
        fleet_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(joint_choice_is_the_exact_minimum),
        cmocka_unit_test(bounds_hold_or_are_not_used), cmocka_unit_test(near_choices_are_those_of_all_pairs),
        cmocka_unit_test(group_numbers_are_reused),
        cmocka_unit_test(a_near_prefill_wins_if_it_pays),
        cmocka_unit_test(baselines_do_what_their_names_say),
        cmocka_unit_test(same_calls_same_decisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
