/* Clocks that are not what they should be: calls whose time lies a day behind others', a day that passes between two calls, one process a day ahead of all. */
#include "fleet.h"

#include <string.h>

#define DAY (86399 * SECOND) /* a second less: a lease may be given a whole one */
#define DAY_MS 86400000u

typedef struct pair { fleet f; pdr_decision busy, held; pdr_exchange x; } pair;

static pdr_action act[PDR_MAX_ACTIONS];

/* One pair, a request under way on it and one that waits for it. */
static void begin(pair *p, uint32_t lease_ttl_ms)
{
    pdr_config c = fleet_config();
    size_t     n = PDR_MAX_ACTIONS;
    memset(p, 0, sizeof *p);
    c.lease_ttl_ms = lease_ttl_ms;
    fleet_open(&p->f, &c, 1, 1);
    assert_int_equal(fleet_route(&p->f, 8000, 1, 0, &p->busy), PDR_OK);
    assert_int_equal(p->busy.outcome, PDR_SEND);
    pdr_init_struct(&p->x, sizeof p->x);
    assert_int_equal(pdr_exchange_begin(p->f.r, &p->x, &p->busy, p->f.lease, p->f.now, act, &n), PDR_OK);
    assert_int_equal(fleet_route(&p->f, 8000, 2, 0, &p->held), PDR_OK);
    assert_int_equal(p->held.outcome, PDR_HELD);
}

static int take(pair *p, pdr_decision *d)
{
    pdr_init_struct(d, sizeof *d);
    return pdr_ticket_take(p->f.r, p->held.booking, NULL, 0, p->f.now, d, NULL);
}

/* The answer of the request under way, whole. */
static void answer(pair *p)
{
    for (uint32_t leg = 0; leg < 2; leg++) {
        fleet_tell(&p->f, &p->x, PDR_EV_HEAD, leg);
        fleet_tell(&p->f, &p->x, PDR_EV_BODY, leg);
    }
    fleet_tell(&p->f, &p->x, PDR_EV_END, PDR_LEG_PREFILL);
    fleet_tell(&p->f, &p->x, PDR_EV_END, PDR_LEG_DECODE);
}

static void give_back(pair *p, const pdr_decision *d)
{
    assert_int_equal(pdr_booking_done(p->f.r, d->booking, PDR_DONE_ALL, p->f.now), PDR_OK);
    pdr_stats s = fleet_stats(&p->f);
    assert_int_equal(s.bookings, 0);
    assert_int_equal(s.rooms_live, 0);
    assert_int_equal(s.held_now, 0);
    fleet_close(&p->f);
}

/* As much as a gateway asks of the router while nothing happens, and all of it without an effect. */
static void nothing_is_due(pair *p)
{
    pdr_decision d;
    pdr_event    tick = {.struct_size = sizeof tick, .type = PDR_EV_TICK, .now_ns = p->f.now};
    size_t       n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_tick(p->f.r, p->f.now), PDR_OK);
    assert_int_equal(pdr_lease_renew(p->f.r, p->f.lease, p->f.now), PDR_OK);
    assert_int_equal(take(p, &d), PDR_E_AGAIN);
    assert_int_equal(pdr_exchange_event(p->f.r, &p->x, &tick, act, &n), PDR_OK);
    assert_int_equal(n, 0);
    pdr_stats s = fleet_stats(&p->f);
    assert_int_equal(s.bookings, 2);
    assert_int_equal(s.rooms_live, 1); /* the held one has none yet */
    assert_int_equal(s.held_now, 1);
    assert_int_equal(s.leases_expired, 0);
    assert_int_equal(s.expired, 0);
    assert_int_equal(s.timeouts, 0);
    assert_int_equal(pdr_ready(p->f.r, p->f.now), 1);
    assert_int_equal(pdr_router_check(p->f.r, NULL), PDR_OK);
}

/* A clock that goes back changes nothing before its time, and is counted. */
static void a_day_back(void **state)
{
    (void)state;
    pair         p;
    pdr_decision d;
    begin(&p, 10000);
    p.f.now -= 900 * SECOND; /* nearly all of the test's clock */
    nothing_is_due(&p);
    assert_true(fleet_stats(&p.f).clock_backwards >= 3);
    assert_int_equal(fleet_route(&p.f, 8000, 3, PDR_REQUEST_NO_HOLD, &d), PDR_OK); /* requests are decided */
    assert_true(d.room != p.busy.room);
    assert_int_equal(pdr_booking_done(p.f.r, d.booking, PDR_DONE_ALL, p.f.now), PDR_OK);
    answer(&p);
    assert_int_equal(take(&p, &d), PDR_OK); /* and what a held one waits for lets it go */
    give_back(&p, &d);
}

/* The same, and the clock is right again: the held one is refused at its time by the right clock, not later. */
static void back_and_right_again(void **state)
{
    (void)state;
    pair         p;
    pdr_decision d;
    begin(&p, 100000);
    for (uint64_t second = 1; second < 60; second++) {
        p.f.now = 1000 * SECOND + second * SECOND;
        nothing_is_due(&p);
        p.f.now = second * SECOND;
        nothing_is_due(&p);
    }
    p.f.now = 1000 * SECOND + 60 * SECOND + MS;
    assert_int_equal(pdr_tick(p.f.r, p.f.now), PDR_OK);
    assert_int_equal(take(&p, &d), PDR_E_EXPIRED);
    give_back(&p, &p.busy);
}

/* A day is gone for everybody, as on a machine that was stopped: what is due is done, once and for all, and the first request is decided as ever. */
static void a_day_forward(void **state)
{
    (void)state;
    pair         p;
    pdr_decision d;
    uint64_t     ticket;
    uint32_t     lease;
    size_t       n = 1;
    for (int kept = 0; kept < 2; kept++) {
        begin(&p, kept ? DAY_MS : 10000);
        p.f.now += DAY;
        assert_int_equal(pdr_tick(p.f.r, p.f.now), PDR_OK);
        assert_int_equal(fleet_stats(&p.f).clock_backwards, 0);
        if (kept) { /* its process lives: it is woken, and told why */
            assert_int_equal(pdr_wakeups(p.f.r, &lease, &n), PDR_OK);
            assert_int_equal(n, 1);
            assert_int_equal(lease, p.f.lease);
            assert_int_equal(pdr_released(p.f.r, p.f.lease, &ticket, &n), PDR_OK);
            assert_int_equal(n, 1);
            assert_true(ticket == p.held.booking);
            assert_int_equal(take(&p, &d), PDR_E_EXPIRED);
            assert_int_equal(fleet_stats(&p.f).bookings, 1); /* the one under way is not anybody's to end but its exchange's */
            assert_int_equal(fleet_stats(&p.f).rooms_live, 1);
            pdr_event tick = {.struct_size = sizeof tick, .type = PDR_EV_TICK, .now_ns = p.f.now};
            n = PDR_MAX_ACTIONS;
            assert_int_equal(pdr_exchange_event(p.f.r, &p.x, &tick, act, &n), PDR_OK);
            assert_true(n > 0 && act[n - 1].type == PDR_ACT_ROUTE); /* silent for longer than anybody bears */
            for (int asked = 0; act[n - 1].type == PDR_ACT_ROUTE; asked++) { /* with fewer exclusions, then no more */
                assert_true(asked < 3);
                n = PDR_MAX_ACTIONS;
                assert_int_equal(pdr_exchange_rerouted(p.f.r, &p.x, NULL, PDR_E_NO_PAIR, p.f.now, act, &n), PDR_OK);
                assert_true(n > 0);
            }
            assert_true(n > 1 && act[n - 2].type == PDR_ACT_RESPOND && act[n - 1].type == PDR_ACT_FINISH);
        } else { /* it did not renew its lease: that is over, and what it had is given back */
            assert_int_equal(pdr_lease_renew(p.f.r, p.f.lease, p.f.now), PDR_E_LEASE);
            assert_int_equal(take(&p, &d), PDR_E_NOT_FOUND); /* to be routed anew */
            answer(&p);                                       /* the answer comes all the same, and does no harm */
            assert_int_equal(pdr_lease_open(p.f.r, "anew", p.f.now, &p.f.lease, NULL), PDR_OK);
        }
        assert_int_equal(fleet_stats(&p.f).bookings, 0);
        assert_int_equal(pdr_ready(p.f.r, p.f.now), 1);
        assert_int_equal(fleet_route(&p.f, 8000, 2, 0, &d), PDR_OK);
        assert_int_equal(d.outcome, PDR_SEND);
        assert_true(d.room != p.busy.room && d.booking != p.busy.booking);
        give_back(&p, &d);
    }
}

/* One call a day ahead of all others, which go on as before: the block's clock stands. Nothing that is there is lost, and answers let held requests go. */
static void one_is_ahead(void **state)
{
    (void)state;
    pair         p;
    pdr_decision d;
    uint32_t     other;
    begin(&p, DAY_MS);
    assert_int_equal(pdr_lease_open(p.f.r, "ahead", p.f.now + DAY / 2, &other, NULL), PDR_OK);
    for (int i = 0; i < 5; i++) {
        pdr_event tick = {.struct_size = sizeof tick, .type = PDR_EV_TICK};
        size_t    n = PDR_MAX_ACTIONS;
        tick.now_ns = p.f.now += SECOND;
        assert_int_equal(pdr_tick(p.f.r, p.f.now), PDR_OK);
        assert_int_equal(pdr_exchange_event(p.f.r, &p.x, &tick, act, &n), PDR_OK); /* an exchange goes by its own process's clock */
        assert_int_equal(n, 0);
        assert_int_equal(fleet_stats(&p.f).rooms_live, 1);
    }
    assert_true(fleet_stats(&p.f).clock_backwards >= 5);
    assert_int_equal(take(&p, &d), PDR_E_EXPIRED); /* by the clock that is ahead its time is over: refused, not forgotten */
    assert_int_equal(fleet_route(&p.f, 8000, 2, 0, &p.held), PDR_OK);
    assert_int_equal(p.held.outcome, PDR_HELD);
    assert_int_equal(take(&p, &d), PDR_E_AGAIN);
    answer(&p);
    assert_int_equal(take(&p, &d), PDR_OK);
    assert_true(d.room && d.room != p.busy.room);
    give_back(&p, &d);
}

/* An endpoint that was taken out comes back after its time by the right clock, whatever others say before; a day later it is asked as after a second. */
static void breakers(void **state)
{
    (void)state;
    for (int back = 0; back < 2; back++) {
        pair         p;
        pdr_decision d;
        begin(&p, DAY_MS);
        assert_int_equal(pdr_ticket_cancel(p.f.r, p.held.booking, p.f.now), PDR_OK);
        answer(&p);
        for (int i = 0; i < 3; i++) { /* three failures in a row of the only pair's prefill */
            pdr_exchange x;
            size_t       n = PDR_MAX_ACTIONS;
            pdr_event    ev = {.struct_size = sizeof ev, .type = PDR_EV_FAILED, .leg = PDR_LEG_PREFILL, .detail = PDR_FAIL_CONNECT, .now_ns = p.f.now};
            if (fleet_route(&p.f, 800, 9, PDR_REQUEST_NO_HOLD, &d)) break;
            pdr_init_struct(&x, sizeof x);
            assert_int_equal(pdr_exchange_begin(p.f.r, &x, &d, p.f.lease, p.f.now, act, &n), PDR_OK);
            n = PDR_MAX_ACTIONS;
            assert_int_equal(pdr_exchange_event(p.f.r, &x, &ev, act, &n), PDR_OK);
            n = PDR_MAX_ACTIONS;
            assert_int_equal(pdr_exchange_rerouted(p.f.r, &x, NULL, PDR_E_NO_PAIR, p.f.now, act, &n), PDR_OK);
        }
        assert_true(fleet_stats(&p.f).breakers_opened > 0);
        assert_int_equal(fleet_route(&p.f, 800, 9, PDR_REQUEST_NO_HOLD, &d), PDR_E_NO_PAIR);
        if (back) {
            uint64_t right = p.f.now;
            p.f.now -= 900 * SECOND;
            assert_int_equal(fleet_route(&p.f, 800, 9, PDR_REQUEST_NO_HOLD, &d), PDR_E_NO_PAIR);
            p.f.now = right + 1001 * MS;
        } else {
            p.f.now += DAY;
        }
        assert_int_equal(pdr_tick(p.f.r, p.f.now), PDR_OK);
        assert_int_equal(fleet_route(&p.f, 800, 9, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
        give_back(&p, &d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_day_back), cmocka_unit_test(back_and_right_again), cmocka_unit_test(a_day_forward),
        cmocka_unit_test(one_is_ahead), cmocka_unit_test(breakers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
