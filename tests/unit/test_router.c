/* The router as a whole, through its public API: routing, books, leases, holding, health. */
#include "fleet.h"

static void routes_and_gives_back(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 2, 1);
    assert_int_equal(fleet_route(&f, 1000, 1, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_SEND);
    assert_int_equal(d.mode, PDR_MODE_PD);
    assert_true(d.room >= 1 && d.room <= INT64_MAX);
    assert_string_equal(d.decode_host, "10.0.1.1");
    assert_string_equal(d.bootstrap_host, d.prefill_host);
    assert_int_equal(d.bootstrap_port, 8998);
    assert_int_equal(d.prompt_tokens, 1000);
    assert_int_equal(fleet_target(&f, d.prefill).prefill_requests, 1);
    assert_int_equal(fleet_target(&f, d.decode).decode_requests, 1);
    assert_int_equal(fleet_stats(&f).rooms_live, 1);
    assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_PREFILL, f.now), PDR_OK);
    assert_int_equal(fleet_target(&f, d.prefill).prefill_requests, 0);
    assert_int_equal(fleet_target(&f, d.decode).decode_requests, 1);
    assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now), PDR_OK);
    assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now), PDR_E_NOT_FOUND);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    assert_int_equal(fleet_stats(&f).rooms_live, 0);
    fleet_close(&f);
}

static void whole_body_is_routed_and_rewritten(void **state)
{
    (void)state;
    static const char body[] = "{\"model\": \"/models/Qwen3-32B\",\n \"bootstrap\\u005froom\": 5, \"messages\": [{\"role\": \"user\", "
                               "\"content\": \"你好,这是一个测试\"}], \"max_tokens\": 50 }";
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_prompt   p;
    pdr_error    err;
    char         out[1024], want[256];
    size_t       need;
    fleet        f;
    fleet_open(&f, &c, 2, 1);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&err, sizeof err);
    pdr_request q = fleet_request(&f);
    if (pdr_route(f.r, body, sizeof body - 1, &q, &p, &d, &err)) fail_msg("%s", err.message);
    assert_int_equal(pdr_rewrite(&d, &p, PDR_LEG_PREFILL, body, sizeof body - 1, out, sizeof out - 1, &need), PDR_OK);
    out[need] = 0;
    snprintf(want, sizeof want, "\"bootstrap_room\":%llu", (unsigned long long)d.room);
    assert_non_null(strstr(out, want));
    assert_null(strstr(out, "u005f"));
    assert_non_null(strstr(out, "你好,这是一个测试"));
    fleet_close(&f);
}

static void second_turn_goes_where_the_prefix_is(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision first, d;
    fleet        f;
    fleet_open(&f, &c, 4, 2);
    for (uint32_t s = 0; s < 20; s++) {
        f.now += SECOND;
        assert_int_equal(fleet_route(&f, 2560, s, 0, &first), PDR_OK);
        pdr_booking_done(f.r, first.booking, PDR_DONE_ALL, f.now);
        assert_int_equal(first.matched_tokens, 0);
        f.now += SECOND;
        assert_int_equal(fleet_route(&f, 5120, s, 0, &d), PDR_OK);
        assert_int_equal(d.prefill, first.prefill);
        assert_int_equal(d.matched_tokens, 2560);
        pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    }
    fleet_close(&f);
}

static void idle_fleet_is_used_evenly(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    uint32_t     count[64] = {0};
    fleet_open(&f, &c, 4, 3);
    for (uint32_t s = 0; s < 120; s++) {
        f.now += SECOND;
        assert_int_equal(fleet_route(&f, 1000, s, 0, &d), PDR_OK);
        count[d.prefill]++;
        count[d.decode]++;
        pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    }
    for (int i = 0; i < 4; i++) assert_int_equal(count[f.prefill[i]], 30);
    for (int i = 0; i < 3; i++) assert_int_equal(count[f.decode[i]], 40);
    fleet_close(&f);
}

static void a_burst_does_not_herd(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    c.hold = PDR_HOLD_OFF;
    fleet_open(&f, &c, 4, 2);
    for (uint32_t s = 0; s < 40; s++) assert_int_equal(fleet_route(&f, 4000, s, 0, &d), PDR_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(fleet_target(&f, f.prefill[i]).prefill_requests, 10);
    for (int i = 0; i < 2; i++) assert_int_equal(fleet_target(&f, f.decode[i]).decode_requests, 20);
    fleet_close(&f);
}

static void rooms_of_batches_and_dp_ranks(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e;
    pdr_decision d;
    fleet        f;
    uint64_t     hashes[8];
    fleet_open(&f, &c, 0, 1);
    pdr_init_struct(&e, sizeof e);
    strcpy(e.name, "dp");
    strcpy(e.host, "10.9.9.9");
    e.port = 8000;
    e.role = PDR_ROLE_PREFILL;
    e.dp_size = 4;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
    uint32_t seen = 0;
    for (int k = 0; k < 16; k++) {
        pdr_prompt  p = fleet_prompt(1000, (uint32_t)k, 0, hashes, 7);
        pdr_request q = fleet_request(&f);
        p.batch = 5;
        p.flags |= PDR_PROMPT_BATCH;
        pdr_init_struct(&d, sizeof d);
        assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, NULL), PDR_OK);
        assert_int_equal(d.batch, 5);
        assert_true(d.prefill_rank < 4);
        seen |= 1u << d.prefill_rank;
        for (uint32_t i = 0; i < 5; i++) {
            assert_int_equal(pdr_decision_room(&d, i) % 4, d.prefill_rank);
            for (uint32_t j = 0; j < i; j++) assert_int_not_equal(pdr_decision_room(&d, i), pdr_decision_room(&d, j));
        }
        assert_int_equal(fleet_stats(&f).rooms_live, 5);
        pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    }
    assert_int_equal(seen, 15);
    fleet_close(&f);
}

static void without_a_pair_it_says_why(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_error    err;
    uint64_t     hashes[8];
    fleet        f;
    pdr_init_struct(&err, sizeof err);
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(pdr_ready(f.r, f.now), 1);
    pdr_endpoint_health(f.r, f.decode[0], 0, f.now, NULL);
    assert_int_equal(pdr_ready(f.r, f.now), 0);
    pdr_prompt  p = fleet_prompt(900, 0, 0, hashes, 7);
    pdr_request q = fleet_request(&f);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, &err), PDR_E_NO_PAIR);
    assert_string_equal(err.message, "no decode server is up");
    assert_true(d.retry_after_ms > 0);
    pdr_endpoint_health(f.r, f.decode[0], 1, f.now, NULL);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, &err), PDR_OK);
    pdr_endpoint_drain(f.r, f.prefill[0], 1, NULL);
    assert_int_equal(fleet_route(&f, 900, 1, 0, &d), PDR_E_NO_PAIR);
    q.lease = 999;
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, &err), PDR_E_LEASE);
    fleet_close(&f);
}

static void several_samples_are_refused_with_pd(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    uint64_t     hashes[8];
    fleet        f;
    pdr_error    err;
    fleet_open(&f, &c, 1, 1);
    static const char *const bodies[] = {"{\"messages\":[{\"role\":\"user\",\"n\":3}],\n\"n\": 2}", "{\"text\":\"a\",\n\"sampling_params\":{\"n\": 2}}"};
    for (int i = 0; i < 2; i++) { /* the place of n is told */
        pdr_request asked = fleet_request(&f);
        asked.api = i ? PDR_API_GENERATE : PDR_API_CHAT;
        pdr_init_struct(&d, sizeof d);
        pdr_init_struct(&err, sizeof err);
        assert_int_equal(pdr_route(f.r, bodies[i], strlen(bodies[i]), &asked, NULL, &d, &err), PDR_E_UNSUPPORTED);
        assert_int_equal(err.offset, strstr(bodies[i], "2}") - bodies[i]);
        assert_int_equal(err.line, 2);
    }
    pdr_prompt  p = fleet_prompt(900, 0, 0, hashes, 7);
    pdr_request q = fleet_request(&f);
    p.samples = 2;
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, NULL), PDR_E_UNSUPPORTED);
    uint32_t both = fleet_add(&f, "u0", "10.0.2.1", 8000, PDR_ROLE_BOTH);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, NULL), PDR_OK); /* one that does both alone can */
    assert_int_equal(d.mode, PDR_MODE_SINGLE);
    assert_int_equal(d.decode, both);
    assert_int_equal(d.prefill, PDR_NONE);
    assert_int_equal(d.room, 0);
    fleet_close(&f);
}

static void removal_waits_for_what_is_in_flight(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d, other;
    fleet        f;
    fleet_open(&f, &c, 1, 2);
    assert_int_equal(fleet_route(&f, 900, 0, 0, &d), PDR_OK);
    assert_int_equal(pdr_endpoint_remove(f.r, d.decode, NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_get(f.r, d.decode, NULL, NULL), PDR_E_NOT_FOUND);
    assert_int_equal(fleet_stats(&f).endpoints, 2);
    uint32_t fresh = fleet_add(&f, "fresh", "10.0.3.1", 8000, PDR_ROLE_DECODE);
    assert_int_not_equal(fresh, d.decode); /* the slot is still in use */
    f.now += SECOND;
    assert_int_equal(fleet_route(&f, 900, 1, PDR_REQUEST_NO_HOLD, &other), PDR_OK);
    assert_int_not_equal(other.decode, d.decode);
    pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    assert_int_equal(fleet_add(&f, "again", "10.0.3.2", 8000, PDR_ROLE_DECODE), d.decode);
    fleet_close(&f);
}

static void leases_give_back_what_a_dead_process_had(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    uint32_t     dead;
    fleet_open(&f, &c, 2, 1);
    assert_int_equal(pdr_lease_open(f.r, "dead", f.now, &dead, NULL), PDR_OK);
    uint32_t alive = f.lease;
    f.lease = dead;
    for (uint32_t s = 0; s < 5; s++) assert_int_equal(fleet_route(&f, 900, s, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    f.lease = alive;
    assert_int_equal(fleet_route(&f, 900, 9, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    assert_int_equal(fleet_stats(&f).bookings, 6);
    f.now += 6 * SECOND;
    pdr_lease_renew(f.r, alive, f.now);
    f.now += 6 * SECOND;
    pdr_tick(f.r, f.now);
    assert_int_equal(fleet_stats(&f).bookings, 1);
    assert_int_equal(fleet_stats(&f).leases_expired, 1);
    assert_int_equal(pdr_lease_renew(f.r, dead, f.now), PDR_E_LEASE);
    assert_int_equal(pdr_lease_break(f.r, alive, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    fleet_close(&f);
}

/* ---- holding */

static uint64_t held(fleet *f, uint64_t tokens, uint32_t s)
{
    pdr_decision d;
    assert_int_equal(fleet_route(f, tokens, s, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD);
    return d.booking;
}

static void held_requests_go_shortest_first(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision busy, d;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &busy), PDR_OK);
    assert_int_equal(busy.outcome, PDR_SEND);
    uint64_t large = held(&f, 16000, 2), small = held(&f, 2000, 3), middle = held(&f, 8000, 4);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_ticket_take(f.r, small, NULL, 0, f.now, &d, NULL), PDR_E_AGAIN);
    size_t   n = 4;
    uint64_t tickets[4];
    uint32_t wake[4];
    assert_int_equal(pdr_wakeups(f.r, wake, &n), PDR_OK);
    assert_int_equal(n, 0);
    uint64_t order[3] = {small, middle, large};
    uint64_t running = busy.booking;
    for (int i = 0; i < 3; i++) {
        f.now += 500 * MS;
        pdr_booking_done(f.r, running, PDR_DONE_PREFILL, f.now);
        n = 4;
        assert_int_equal(pdr_wakeups(f.r, wake, &n), PDR_OK);
        assert_int_equal(n, 1);
        assert_int_equal(wake[0], f.lease);
        n = 4;
        assert_int_equal(pdr_released(f.r, f.lease, tickets, &n), PDR_OK);
        assert_int_equal(n, 1);
        assert_int_equal(tickets[0], order[i]);
        n = 4;
        pdr_released(f.r, f.lease, tickets, &n); /* told once */
        assert_int_equal(n, 0);
        assert_int_equal(pdr_ticket_take(f.r, order[i], NULL, 0, f.now, &d, NULL), PDR_OK);
        assert_int_equal(d.outcome, PDR_SEND);
        assert_int_equal(d.booking, order[i]);
        assert_true(d.room != 0);
        running = order[i];
    }
    assert_int_equal(fleet_stats(&f).held_now, 0);
    fleet_close(&f);
}

static void waiting_makes_urgent(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision busy;
    fleet        f;
    size_t       n = 1;
    uint64_t     ticket;
    c.hold_ageing_ms = 100;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &busy), PDR_OK);
    uint64_t large = held(&f, 8000, 2);
    f.now += 5 * SECOND;
    held(&f, 2000, 3); /* a quarter of the size, but the large one has waited for 50 times the ageing time */
    pdr_booking_done(f.r, busy.booking, PDR_DONE_ALL, f.now);
    pdr_released(f.r, f.lease, &ticket, &n);
    assert_int_equal(n, 1);
    assert_int_equal(ticket, large);
    fleet_close(&f);
}

/* One goes when nothing is outstanding; with it, into the same step, go those for which the step's fixed part is worth more than their own time. */
static void small_requests_share_a_step(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d, first;
    uint64_t     tickets[32];
    size_t       n = 32;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 1000, 99, 0, &first), PDR_OK);
    assert_int_equal(first.outcome, PDR_SEND);
    for (uint32_t s = 0; s < 20; s++) {
        assert_int_equal(fleet_route(&f, 1000, s, 0, &d), PDR_OK);
        assert_int_equal(d.outcome, PDR_HELD);
    }
    pdr_booking_done(f.r, first.booking, PDR_DONE_PREFILL, f.now);
    assert_int_equal(pdr_released(f.r, f.lease, tickets, &n), PDR_OK);
    assert_in_range(n, 6, 8); /* m * 56 ms < 2 * 10 ms * (1 + 20) */
    fleet_close(&f);
    c.hold_window_tokens = 2500;
    fleet_open(&f, &c, 1, 1);
    fleet_route(&f, 1000, 99, 0, &first);
    for (uint32_t s = 0; s < 20; s++) fleet_route(&f, 1000, s, 0, &d);
    pdr_booking_done(f.r, first.booking, PDR_DONE_PREFILL, f.now);
    pdr_released(f.r, f.lease, tickets, &n);
    assert_int_equal(n, 2); /* no more fit into a step */
    fleet_close(&f);
}

static void holding_ends_within_its_bounds(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision busy, d;
    pdr_error    err;
    fleet        f;
    c.max_held = 3;
    fleet_open(&f, &c, 1, 1);
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &busy), PDR_OK);
    uint64_t a = held(&f, 8000, 2), b = held(&f, 8000, 3), gone = held(&f, 8000, 4);
    assert_int_equal(fleet_route(&f, 8000, 5, 0, &d), PDR_E_QUEUE_FULL);
    assert_true(d.retry_after_ms > 0);
    assert_int_equal(fleet_route(&f, 8000, 6, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    pdr_ticket_cancel(f.r, gone, f.now); /* its client left */
    assert_int_equal(pdr_ticket_cancel(f.r, gone, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).held_now, 2);
    f.now += 61 * SECOND;
    pdr_lease_renew(f.r, f.lease, f.now);
    pdr_tick(f.r, f.now);
    assert_int_equal(pdr_ticket_take(f.r, a, NULL, 0, f.now, &d, &err), PDR_E_EXPIRED);
    assert_int_equal(pdr_ticket_take(f.r, a, NULL, 0, f.now, &d, &err), PDR_E_NOT_FOUND);
    f.now += 50 * SECOND; /* b's owner does not ask: it may be stopped, and hears of it later */
    pdr_lease_renew(f.r, f.lease, f.now);
    pdr_tick(f.r, f.now);
    assert_int_equal(fleet_stats(&f).bookings, 3);
    f.now += 11 * SECOND; /* never */
    pdr_lease_renew(f.r, f.lease, f.now);
    pdr_tick(f.r, f.now);
    assert_int_equal(pdr_ticket_take(f.r, b, NULL, 0, f.now, &d, &err), PDR_E_NOT_FOUND);
    assert_int_equal(fleet_stats(&f).bookings, 2);
    fleet_close(&f);
}

static void held_requests_hear_when_the_pool_is_gone(void **state)
{
    (void)state;
    for (int decode = 0; decode < 2; decode++) { /* without either side there is no pair */
        pdr_config   c = fleet_config();
        pdr_decision busy, d;
        pdr_error    err;
        fleet        f;
        fleet_open(&f, &c, 1, 1);
        pdr_init_struct(&err, sizeof err);
        pdr_init_struct(&d, sizeof d);
        assert_int_equal(fleet_route(&f, 8000, 1, 0, &busy), PDR_OK);
        uint64_t a = held(&f, 8000, 2);
        pdr_endpoint_health(f.r, decode ? f.decode[0] : f.prefill[0], 0, f.now, NULL);
        assert_int_equal(pdr_ticket_take(f.r, a, NULL, 0, f.now, &d, &err), PDR_E_NO_PAIR);
        fleet_close(&f);
    }
}

static void priority_goes_first(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision busy, d;
    uint64_t     hashes[64], ticket;
    size_t       n = 1;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &busy), PDR_OK);
    held(&f, 2000, 2);
    pdr_prompt  p = fleet_prompt(8000, 3, 0, hashes, 62);
    pdr_request q = fleet_request(&f);
    q.priority = 1;
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 62, &q, &d, NULL), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD);
    pdr_booking_done(f.r, busy.booking, PDR_DONE_ALL, f.now);
    pdr_released(f.r, f.lease, &ticket, &n);
    assert_int_equal(ticket, d.booking);
    fleet_close(&f);
}

static void a_held_request_waits_for_its_prefix_and_blocks_nobody(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d, again;
    fleet        f;
    fleet_open(&f, &c, 2, 1);
    assert_int_equal(fleet_route(&f, 30000, 1, 0, &d), PDR_OK); /* 30k tokens now cached at one of the two */
    uint32_t holder = d.prefill;
    pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    f.now += SECOND;
    do { /* keep the holder busy with something else */
        assert_int_equal(fleet_route(&f, 8000, (uint32_t)(f.now / SECOND), 0, &again), PDR_OK);
        if (again.prefill != holder) pdr_booking_done(f.r, again.booking, PDR_DONE_ALL, f.now);
        f.now += SECOND;
    } while (again.prefill != holder);
    f.now -= SECOND; /* (time does not go back for the router) */
    assert_int_equal(fleet_route(&f, 30200, 1, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD); /* its prefix is worth the wait */
    pdr_decision other;
    assert_int_equal(fleet_route(&f, 4000, 77, 0, &other), PDR_OK);
    assert_int_equal(other.outcome, PDR_SEND); /* and the other worker is free for others */
    assert_int_not_equal(other.prefill, holder);
    f.now += SECOND;
    pdr_booking_done(f.r, again.booking, PDR_DONE_PREFILL, f.now);
    uint64_t ticket = d.booking;
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_ticket_take(f.r, ticket, NULL, 0, f.now, &d, NULL), PDR_OK);
    assert_int_equal(d.prefill, holder);
    assert_true(d.matched_tokens > 29000);
    fleet_close(&f);
}

/* ---- reports */

static void reported_load_counts_until_it_is_stale(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_load     load;
    fleet        f;
    fleet_open(&f, &c, 2, 2);
    pdr_init_struct(&load, sizeof load);
    load.have = PDR_LOAD_WAITING_TOKENS | PDR_LOAD_RUNNING | PDR_LOAD_KV_USED;
    load.waiting_tokens = 100000; /* somebody else keeps the first of each kind busy */
    load.running = 50;
    load.kv_used = 150000;
    for (int i = 0; i < 2; i++) { /* once may be the moment between an end and our hearing of it */
        assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, NULL), PDR_OK);
        assert_int_equal(pdr_load_put(f.r, f.decode[0], 0, &load, f.now, NULL), PDR_OK);
    }
    for (uint32_t s = 0; s < 6; s++) {
        assert_int_equal(fleet_route(&f, 1000, s, 0, &d), PDR_OK);
        assert_int_equal(d.prefill, f.prefill[1]);
        assert_int_equal(d.decode, f.decode[1]);
        pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    }
    f.now += 6 * SECOND;
    pdr_lease_renew(f.r, f.lease, f.now);
    pdr_tick(f.r, f.now);
    int seen = 0;
    for (uint32_t s = 10; s < 14; s++) {
        assert_int_equal(fleet_route(&f, 1000, s, 0, &d), PDR_OK);
        seen |= d.prefill == f.prefill[0];
        pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    }
    assert_true(seen);
    fleet_close(&f);
}

/* ---- the exchange on the books */

static pdr_decision started(fleet *f, pdr_exchange *x, uint64_t tokens, uint32_t s)
{
    pdr_decision d;
    pdr_action   act[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    assert_int_equal(fleet_route(f, tokens, s, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    pdr_init_struct(x, sizeof *x);
    assert_int_equal(pdr_exchange_begin(f->r, x, &d, f->lease, f->now, act, &n), PDR_OK);
    assert_int_equal(n, 2);
    return d;
}

static size_t event(fleet *f, pdr_exchange *x, uint32_t type, int leg, uint32_t status, uint32_t detail, pdr_action *act)
{
    pdr_event ev;
    size_t    n = PDR_MAX_ACTIONS;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = (uint32_t)leg;
    ev.status = status;
    ev.detail = detail;
    ev.attempt = x->attempt;
    ev.now_ns = f->now;
    assert_int_equal(pdr_exchange_event(f->r, x, &ev, act, &n), PDR_OK);
    return n;
}

static void answer(fleet *f, pdr_exchange *x, uint64_t prefill_us)
{
    pdr_action act[PDR_MAX_ACTIONS];
    f->now += prefill_us * 1000;
    for (int leg = 0; leg < 2; leg++) {
        event(f, x, PDR_EV_HEAD, leg, 200, 0, act);
        event(f, x, PDR_EV_BODY, leg, 0, 0, act);
        event(f, x, PDR_EV_END, leg, 0, 0, act);
    }
}

/* The same with usage. */
static void answer_with_usage(fleet *f, pdr_exchange *x, uint64_t prompt, uint64_t cached)
{
    pdr_action act[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    pdr_event  ev = {.struct_size = sizeof ev, .type = PDR_EV_END, .leg = PDR_LEG_DECODE, .usage = 1, .prompt_tokens = prompt,
                     .cached_tokens = cached, .completion_tokens = 10};
    f->now += 300 * MS;
    for (int leg = 0; leg < 2; leg++) {
        event(f, x, PDR_EV_HEAD, leg, 200, 0, act);
        event(f, x, PDR_EV_BODY, leg, 0, 0, act);
    }
    event(f, x, PDR_EV_END, PDR_LEG_PREFILL, 0, 0, act);
    ev.attempt = x->attempt;
    ev.now_ns = f->now;
    assert_int_equal(pdr_exchange_event(f->r, x, &ev, act, &n), PDR_OK);
}

/*
 * Engines whose usage has no cached_tokens (SGLang's default) say nothing about their cache: what is believed of it stays. Who has reported some before
 * and now reports none has lost it.
 */
static void silence_about_the_cache_is_no_statement(void **state)
{
    (void)state;
    for (int reports = 0; reports < 2; reports++) {
        pdr_config   c = fleet_config();
        pdr_exchange x;
        fleet        f;
        uint64_t     believed = 0;
        fleet_open(&f, &c, 1, 1);
        for (uint32_t round = 0; round < 3; round++)
            for (uint32_t s = 0; s < 4; s++) {
                pdr_decision d = started(&f, &x, 7900, s);
                if (round == 1 && !reports) assert_true(d.matched_tokens > 7000);
                if (round == 2) believed += d.matched_tokens;
                answer_with_usage(&f, &x, 7900, reports && round == 1 && s == 0 ? d.matched_tokens : 0);
            }
        if (reports)
            assert_true(believed < 4 * 7000);
        else
            assert_true(believed > 4 * 7000);
        fleet_close(&f);
    }
}

/* A KV capacity that is written down bounds what the index keeps for that server, until its answers tell otherwise. */
static void a_configured_cache_counts(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e;
    pdr_exchange x;
    fleet        f;
    uint64_t     hashes[1000], holds;
    size_t       matched;
    fleet_open(&f, &c, 1, 1);
    for (uint64_t i = 0; i < 1000; i++) hashes[i] = (i + 1) * 0x9E3779B97F4A7C15u;
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_endpoint_get(f.r, f.prefill[0], &e, NULL), PDR_OK);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 0); /* endless for all we know */
    assert_int_equal(pdr_prefix_store(f.r, f.prefill[0], 0, hashes, 1000), PDR_OK);
    e.kv_capacity = 64000; /* 500 blocks of 512 bytes at 4 bytes per token: at once, of what is held too */
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 500);
    holds = fleet_target(&f, f.prefill[0]).prefix_blocks;
    assert_true(holds <= 500 && holds > 400);
    for (uint32_t s = 0; s < 12; s++) { /* answers that confirm what is believed move nothing */
        pdr_decision d = started(&f, &x, 7900, s % 4);
        answer_with_usage(&f, &x, 7900, d.matched_tokens);
    }
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 500);
    pdr_decision d = started(&f, &x, 7900, 98); /* more cached than there is: not believed */
    answer_with_usage(&f, &x, 7900, 7901);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 500);
    d = started(&f, &x, 7900, 99); /* it has more than was believed: an eighth more */
    answer_with_usage(&f, &x, 7900, d.matched_tokens + 7000);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 563);
    e.kv_capacity = 128; /* a change of what is written down counts, and a very small one is a few blocks */
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 64);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, hashes, 1000, &matched), PDR_OK);
    assert_true(matched <= 64);
    e.kv_capacity = 0;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefix_capacity, 0);
    assert_int_equal(pdr_endpoint_get(f.r, f.decode[0], &e, NULL), PDR_OK);
    e.kv_capacity = 64000; /* of one that only decodes no answer would tell otherwise: no bound */
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
    assert_int_equal(fleet_target(&f, f.decode[0]).prefix_capacity, 0);
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    fleet_close(&f);
}

/* The second prompt of all, most of it cached, takes much longer than it should. No server is chosen ever after for what it has not. */
static void one_slow_cached_prompt_makes_no_cache_worthless(void **state)
{
    (void)state;
    static const uint64_t late_ms[] = {10, 20, 40, 80, 160, 1000};
    for (size_t i = 0; i < sizeof late_ms / sizeof *late_ms; i++) {
        for (uint64_t first_ms = 5; first_ms <= 80; first_ms *= 2) {
            pdr_config   c = fleet_config();
            pdr_exchange x;
            fleet        f;
            fleet_open(&f, &c, 4, 2);
            uint32_t where = started(&f, &x, 1100, 1).prefill;
            answer(&f, &x, first_ms * 1000 + 10800); /* and the way of its KV cache */
            assert_int_equal(started(&f, &x, 1115, 1).prefill, where);
            answer(&f, &x, late_ms[i] * 1000 + 10800);
            for (int turn = 0; turn < 4; turn++) {
                pdr_decision d = started(&f, &x, 1130, 1);
                if (d.prefill != where || d.matched_tokens < 1000)
                    fail_msg("first %d ms, second %d ms: the next goes elsewhere", (int)first_ms, (int)late_ms[i]);
                answer(&f, &x, 6000 + 10900);
            }
            fleet_close(&f);
        }
    }
}

static void a_slow_server_is_found_out(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_exchange x;
    fleet        f;
    fleet_open(&f, &c, 2, 1);
    int to_slow = 0;
    for (uint32_t s = 0; s < 200; s++) {
        pdr_decision d = started(&f, &x, 4000, s);
        uint64_t     usual = 240000, way = 26000; /* what the prior says for 4,000 tokens, and for their KV cache's way, after which prefill answers */
        to_slow += s >= 100 && d.prefill == f.prefill[0];
        answer(&f, &x, (d.prefill == f.prefill[0] ? usual * 2 : usual) + way);
    }
    assert_in_range(fleet_target(&f, f.prefill[0]).speed_permille, 450, 900); /* known well enough not to be chosen */
    assert_in_range(fleet_target(&f, f.prefill[1]).speed_permille, 950, 1100);
    assert_int_equal(to_slow, 0); /* one after another: the fast one is always free */
    assert_int_equal(fleet_stats(&f).finished, 200);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    fleet_close(&f);
}

/* The prior fits nobody: all servers are ten times as fast. The first to be measured must not draw everything to itself. */
static void an_unmeasured_server_is_taken_for_one_of_the_pool(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_exchange x;
    fleet        f;
    uint32_t     count[64] = {0};
    fleet_open(&f, &c, 4, 1);
    for (uint32_t s = 0; s < 200; s++) {
        pdr_decision d = started(&f, &x, 4000, s);
        if (s >= 100) count[d.prefill]++;
        answer(&f, &x, 24000);
        f.now += 200 * MS;
        pdr_lease_renew(f.r, f.lease, f.now);
        pdr_tick(f.r, f.now);
    }
    for (int i = 0; i < 4; i++) assert_in_range(count[f.prefill[i]], 5, 60);
    fleet_close(&f);
}

static void a_refused_connect_takes_a_server_out_and_a_success_brings_it_back(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_action   act[PDR_MAX_ACTIONS];
    pdr_exchange x;
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 2, 1);
    d = started(&f, &x, 1000, 1);
    uint32_t bad = d.prefill;
    size_t   n = event(&f, &x, PDR_EV_FAILED, PDR_LEG_PREFILL, 0, PDR_FAIL_CONNECT, act);
    assert_true(n >= 2);
    assert_int_equal(act[n - 1].type, PDR_ACT_ROUTE);
    assert_int_equal(fleet_stats(&f).bookings, 0); /* the first pair is given back already */
    for (uint32_t s = 2; s < 8; s++) {
        assert_int_equal(fleet_route(&f, 1000, s, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
        assert_int_not_equal(d.prefill, bad);
    }
    n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_rerouted(f.r, &x, &d, PDR_OK, f.now, act, &n), PDR_OK);
    assert_int_equal(x.attempt, 1);
    pdr_lease_break(f.r, f.lease, f.now);
    f.now += 1100 * MS; /* half open: one request may try */
    assert_int_equal(pdr_lease_open(f.r, "again", f.now, &f.lease, NULL), PDR_OK);
    int tries = 0;
    for (uint32_t s = 20; s < 30; s++) {
        d = started(&f, &x, 1000, s);
        tries += d.prefill == bad;
        if (d.prefill == bad) break;
    }
    assert_int_equal(tries, 1);
    pdr_exchange trial = x;
    for (uint32_t s = 30; s < 34; s++) {
        d = started(&f, &x, 1000, s);
        assert_int_not_equal(d.prefill, bad); /* the others wait for what becomes of it */
    }
    answer(&f, &trial, 100000);
    assert_int_equal(fleet_target(&f, bad).state, PDR_STATE_READY);
    assert_int_equal(fleet_target(&f, bad).failures, 0);
    fleet_close(&f);
}

static void usage_teaches_tokens_per_byte(void **state)
{
    (void)state;
    static char  body[9000];
    pdr_config   c = fleet_config();
    pdr_action   act[PDR_MAX_ACTIONS];
    pdr_decision d;
    pdr_exchange x;
    pdr_event    ev;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    strcpy(body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(body + strlen(body), 'x', 8000);
    strcat(body, "\"}]}");
    for (int i = 0; i < 30; i++) {
        pdr_request q = fleet_request(&f);
        size_t      n = PDR_MAX_ACTIONS;
        pdr_init_struct(&d, sizeof d);
        assert_int_equal(pdr_route(f.r, body, strlen(body), &q, NULL, &d, NULL), PDR_OK);
        pdr_init_struct(&x, sizeof x);
        pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, act, &n);
        for (int leg = 0; leg < 2; leg++) {
            event(&f, &x, PDR_EV_HEAD, leg, 200, 0, act);
            event(&f, &x, PDR_EV_BODY, leg, 0, 0, act);
            pdr_init_struct(&ev, sizeof ev);
            ev.type = PDR_EV_END;
            ev.leg = (uint32_t)leg;
            ev.now_ns = f.now;
            ev.usage = 1;
            ev.prompt_tokens = 4000; /* a tokenizer of two bytes a token */
            ev.completion_tokens = 20;
            n = PDR_MAX_ACTIONS;
            pdr_exchange_event(f.r, &x, &ev, act, &n);
        }
    }
    assert_in_range(d.prompt_tokens, 3900, 4100);
    assert_int_equal(fleet_stats(&f).prompt_tokens_reported, 30 * 4000);
    /* counts that no prompt can have, of a server that is broken, teach nothing: what was learnt is for all servers */
    static const uint64_t absurd[][2] = {{UINT64_MAX, 0}, {1 << 28, 0}, {4000, UINT64_MAX}, {4000, 4001}, {0, 1}};
    for (size_t i = 0; i < sizeof absurd / sizeof *absurd; i++) {
        d = started(&f, &x, 8000, 7);
        answer_with_usage(&f, &x, absurd[i][0], absurd[i][1]);
    }
    pdr_request q = fleet_request(&f);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_route(f.r, body, strlen(body), &q, NULL, &d, NULL), PDR_OK);
    assert_in_range(d.prompt_tokens, 3900, 4100);
    assert_int_equal(fleet_stats(&f).prompt_tokens_reported, 30 * 4000);
    assert_int_equal(fleet_stats(&f).cached_tokens_reported, 0);
    fleet_close(&f);
}

/* ---- seeing */

static void explains_what_it_would_do(void **state)
{
    (void)state;
    pdr_config    c = fleet_config();
    pdr_candidate cand[8];
    pdr_decision  d, real;
    uint64_t      hashes[64];
    size_t        n = 8;
    fleet         f;
    fleet_open(&f, &c, 3, 2);
    pdr_endpoint_health(f.r, f.prefill[2], 0, f.now, NULL);
    pdr_prompt  p = fleet_prompt(8000, 3, 0, hashes, 62);
    pdr_request q = fleet_request(&f);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&real, sizeof real);
    assert_int_equal(pdr_explain(f.r, &p, hashes, 62, &q, &d, cand, &n, NULL), PDR_OK);
    assert_int_equal(n, 5);
    assert_int_equal(cand[2].barred, PDR_BARRED_DOWN);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 62, &q, &real, NULL), PDR_OK);
    assert_int_equal(real.prefill, d.prefill);
    assert_int_equal(real.decode, d.decode);
    assert_int_equal(real.cost_us, d.cost_us);
    for (size_t i = 0; i < n; i++)
        if (cand[i].chosen) assert_int_equal(cand[i].endpoint, cand[i].role == PDR_ROLE_PREFILL ? d.prefill : d.decode);
    n = 2;
    assert_int_equal(pdr_explain(f.r, &p, hashes, 62, &q, &d, cand, &n, NULL), PDR_E_NOSPACE);
    assert_int_equal(n, 5);
    fleet_close(&f);
}

/* The place in the queue: of those that wait in the order they are released in, and of one that would come. */
static void says_where_a_request_stands(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d, busy;
    pdr_place    place, guest;
    uint64_t     hashes[64], ticket[5], ahead = 0;
    size_t       n;
    fleet        f;
    c.hold_max_wait_ms = 60000;
    fleet_open(&f, &c, 1, 1);
    pdr_init_struct(&place, sizeof place);
    pdr_init_struct(&guest, sizeof guest);
    pdr_prompt  p = fleet_prompt(4000, 9, 0, hashes, 31);
    pdr_request q = fleet_request(&f);
    assert_int_equal(pdr_explain_place(f.r, &p, hashes, 31, &q, &guest, NULL), PDR_OK);
    assert_int_equal(guest.outcome, PDR_SEND);
    assert_int_equal(guest.place + guest.held + guest.size_us + guest.left_us, 0);
    assert_int_equal(fleet_route(&f, 9000, 0, 0, &busy), PDR_OK);
    for (uint32_t i = 0; i < 5; i++) { /* each larger than the one before */
        f.now += 10 * MS;
        assert_int_equal(fleet_route(&f, 2000 + 3000 * i, i + 1, 0, &d), PDR_OK);
        assert_int_equal(d.outcome, PDR_HELD);
        ticket[i] = d.booking;
    }
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(pdr_ticket_place(f.r, ticket[i], f.now, &place, NULL), PDR_OK);
        assert_int_equal(place.outcome, PDR_HELD);
        assert_int_equal(place.place, i);
        assert_int_equal(place.held, 5);
        assert_int_equal(place.ahead_us, ahead);
        assert_int_equal(place.waited_us, (4 - i) * 10000);
        assert_int_equal(place.left_us, 60000000 - place.waited_us);
        ahead += place.size_us;
    }
    q.now_ns = f.now;
    assert_int_equal(pdr_explain_place(f.r, &p, hashes, 31, &q, &guest, NULL), PDR_OK);
    assert_int_equal(guest.outcome, PDR_HELD);
    assert_int_equal(guest.place, 1); /* behind 2,000 tokens, before 5,000 */
    assert_int_equal(guest.held, 5);
    assert_int_equal(guest.waited_us, 0);
    q.priority = 1;
    assert_int_equal(pdr_explain_place(f.r, &p, hashes, 31, &q, &guest, NULL), PDR_OK);
    assert_int_equal(guest.place, 0);
    assert_int_equal(guest.priority, 1);
    q.priority = -1;
    q.deadline_ns = f.now + MS;
    assert_int_equal(pdr_explain_place(f.r, &p, hashes, 31, &q, &guest, NULL), PDR_OK);
    assert_int_equal(guest.outcome, PDR_E_QUEUE_FULL); /* what is served before takes longer than it may wait */
    assert_true(guest.retry_after_ms > 0);
    q.flags = PDR_REQUEST_NO_HOLD;
    assert_int_equal(pdr_explain_place(f.r, &p, hashes, 31, &q, &guest, NULL), PDR_OK);
    assert_int_equal(guest.outcome, PDR_SEND);
    assert_int_equal(fleet_stats(&f).held_now, 5); /* nothing was decided */
    assert_int_equal(pdr_booking_done(f.r, busy.booking, PDR_DONE_ALL, f.now), PDR_OK);
    uint64_t told[8];
    n = 8;
    assert_int_equal(pdr_released(f.r, f.lease, told, &n), PDR_OK);
    assert_int_equal(told[0], ticket[0]); /* who was said to be next */
    assert_int_equal(pdr_ticket_place(f.r, ticket[0], f.now, &place, NULL), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_ticket_place(f.r, 12345, f.now, &place, NULL), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_ticket_place(f.r, busy.booking, f.now, &place, NULL), PDR_E_NOT_FOUND);
    fleet_close(&f);
}

static void keeps_a_log_of_decisions(void **state)
{
    (void)state;
    pdr_config     c = fleet_config();
    pdr_log_record rec;
    pdr_decision   d;
    uint64_t       cursor = 0, lost = 0;
    fleet          f;
    c.log_entries = 8;
    fleet_open(&f, &c, 3, 2);
    pdr_init_struct(&rec, sizeof rec);
    assert_int_equal(pdr_log_read(f.r, &cursor, &rec, &lost), PDR_E_NOT_FOUND);
    assert_int_equal(fleet_route(&f, 1000, 1, 0, &d), PDR_OK);
    assert_int_equal(pdr_log_read(f.r, &cursor, &rec, &lost), PDR_OK);
    assert_int_equal(rec.number, 1);
    assert_int_equal(rec.prefill, d.prefill);
    assert_int_equal(rec.room, d.room);
    assert_int_equal(rec.candidates, 5);
    assert_int_equal(rec.candidate[0].endpoint, d.prefill);
    assert_int_equal(rec.candidate[0].chosen, 1);
    assert_int_equal(rec.candidate[1].endpoint, d.decode);
    for (uint32_t s = 0; s < 20; s++) fleet_route(&f, 100, s, PDR_REQUEST_NO_HOLD, &d);
    assert_int_equal(pdr_log_read(f.r, &cursor, &rec, &lost), PDR_OK);
    assert_int_equal(rec.number, 14);
    assert_int_equal(lost, 12);
    fleet_close(&f);
}

static void status_texts_are_whole_at_any_size(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    size_t     need, need2;
    char      *text, *part;
    fleet_open(&f, &c, 3, 2);
    for (int form = 0; form < 2; form++) {
        int (*render)(pdr_router *, uint64_t, char *, size_t, size_t *) = form ? pdr_status_prometheus : pdr_status_json;
        render(f.r, f.now, NULL, 0, &need);
        text = calloc(1, need + 1);
        part = calloc(1, need + 1);
        assert_int_equal(render(f.r, f.now, text, need, &need2), PDR_OK);
        assert_int_equal(need, need2);
        assert_int_equal(strlen(text), need);
        assert_int_equal(render(f.r, f.now, part, need / 2, &need2), PDR_E_NOSPACE);
        assert_memory_equal(text, part, need / 2);
        free(text);
        free(part);
    }
    fleet_close(&f);
}

/* A gateway applies its file at every start: endpoints without names included, nothing changes the second time. */
static void the_same_document_again_changes_nothing(void **state)
{
    (void)state;
    const char       text[] = "{\"endpoints\":[{\"role\":\"prefill\",\"host\":\"10.0.0.1\",\"port\":1},{\"role\":\"decode\",\"host\":\"10.0.0.2\",\"port\":2}]}";
    pdr_config       c = fleet_config();
    pdr_apply_report report;
    pdr_error        err;
    fleet            f;
    fleet_open(&f, &c, 0, 0);
    pdr_init_struct(&err, sizeof err);
    for (uint32_t round = 0; round < 3; round++) {
        uint32_t flags = round == 2 ? PDR_APPLY_PRUNE : 0;
        pdr_init_struct(&report, sizeof report);
        assert_int_equal(pdr_apply_json(f.r, text, sizeof text - 1, flags, f.now, &report, &err), PDR_OK);
        assert_int_equal(report.added, round ? 0 : 2);
        assert_int_equal(report.unchanged, round ? 2 : 0);
        assert_int_equal(report.removed, 0);
    }
    assert_int_equal(pdr_router_check(f.r, &err), PDR_OK);
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_and_gives_back),
        cmocka_unit_test(whole_body_is_routed_and_rewritten),
        cmocka_unit_test(second_turn_goes_where_the_prefix_is),
        cmocka_unit_test(idle_fleet_is_used_evenly),
        cmocka_unit_test(a_burst_does_not_herd),
        cmocka_unit_test(rooms_of_batches_and_dp_ranks),
        cmocka_unit_test(without_a_pair_it_says_why),
        cmocka_unit_test(several_samples_are_refused_with_pd),
        cmocka_unit_test(removal_waits_for_what_is_in_flight),
        cmocka_unit_test(leases_give_back_what_a_dead_process_had),
        cmocka_unit_test(held_requests_go_shortest_first),
        cmocka_unit_test(waiting_makes_urgent),
        cmocka_unit_test(small_requests_share_a_step),
        cmocka_unit_test(holding_ends_within_its_bounds),
        cmocka_unit_test(held_requests_hear_when_the_pool_is_gone),
        cmocka_unit_test(priority_goes_first),
        cmocka_unit_test(a_held_request_waits_for_its_prefix_and_blocks_nobody),
        cmocka_unit_test(reported_load_counts_until_it_is_stale),
        cmocka_unit_test(silence_about_the_cache_is_no_statement),
        cmocka_unit_test(a_configured_cache_counts),
        cmocka_unit_test(one_slow_cached_prompt_makes_no_cache_worthless),
        cmocka_unit_test(a_slow_server_is_found_out),
        cmocka_unit_test(an_unmeasured_server_is_taken_for_one_of_the_pool),
        cmocka_unit_test(a_refused_connect_takes_a_server_out_and_a_success_brings_it_back),
        cmocka_unit_test(usage_teaches_tokens_per_byte),
        cmocka_unit_test(explains_what_it_would_do),
        cmocka_unit_test(says_where_a_request_stands),
        cmocka_unit_test(keeps_a_log_of_decisions),
        cmocka_unit_test(status_texts_are_whole_at_any_size),
        cmocka_unit_test(the_same_document_again_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
