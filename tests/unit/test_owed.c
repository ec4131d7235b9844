/* What ends while a process is stopped with the block's lock: nobody is told PDR_E_BUSY who is through, and the first tick afterwards gives everything back. */
#include "fleet.h"

#include "block.h"

enum { P = PDR_LEG_PREFILL, D = PDR_LEG_DECODE };

static pdr_stats stats_of(fleet *f)
{
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_stats_get(f->r, &s), PDR_OK);
    return s;
}

static uint64_t in_prefill(fleet *f, uint32_t id)
{
    pdr_target_status s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_target_get(f->r, id, 0, f->now, &s), PDR_OK);
    return s.prefill_requests;
}

static pdr_decision route(fleet *f, uint32_t flags)
{
    pdr_prompt   p = fleet_prompt(500, 0, 0, NULL, 0);
    pdr_request  q = fleet_request(f);
    pdr_decision d;
    q.flags = flags;
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_route_prompt(f->r, &p, NULL, 0, &q, &d, NULL), PDR_OK);
    return d;
}

static pdr_exchange begin(fleet *f)
{
    pdr_decision d = route(f, PDR_REQUEST_NO_HOLD);
    pdr_exchange x;
    pdr_action   act[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    pdr_init_struct(&x, sizeof x);
    assert_int_equal(pdr_exchange_begin(f->r, &x, &d, f->lease, f->now, act, &n), PDR_OK);
    return x;
}

/* The type of the last action. */
static uint32_t happen(fleet *f, pdr_exchange *x, uint32_t type, uint32_t leg, uint32_t value)
{
    pdr_action act[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    pdr_event  ev;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.attempt = x->attempt;
    ev.now_ns = f->now;
    if (type == PDR_EV_HEAD) ev.status = value;
    else ev.detail = value;
    assert_int_equal(pdr_exchange_event(f->r, x, &ev, act, &n), PDR_OK);
    return n ? act[n - 1].type : 0;
}

static void answers(fleet *f, pdr_exchange *x)
{
    happen(f, x, PDR_EV_HEAD, P, 200);
    happen(f, x, PDR_EV_HEAD, D, 200);
    happen(f, x, PDR_EV_BODY, P, 0);
    happen(f, x, PDR_EV_END, P, 0);
    assert_int_equal(happen(f, x, PDR_EV_BODY, D, 0), PDR_ACT_RELAY);
    happen(f, x, PDR_EV_SENT, D, 0);
}

/* All that can end, each while the lock is another's. */
static void what_ends_is_not_lost(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    fleet        f;
    pdr_books    stopped;
    pdr_action   act[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    fleet_open(&f, &c, 1, 1);
    pdr_exchange answered = begin(&f), gone = begin(&f), begun = begin(&f), refused = begin(&f), moved = begin(&f);
    pdr_decision done = route(&f, PDR_REQUEST_NO_HOLD), computed = route(&f, PDR_REQUEST_NO_HOLD), held;
    answers(&f, &answered);
    do held = route(&f, 0);
    while (held.outcome != PDR_HELD);
    const pdr_stats before = stats_of(&f);
    const uint64_t  prefill = in_prefill(&f, f.prefill[0]);

    assert_int_equal(pdr_books_take(&stopped, f.r, 0), PDR_OK);
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_ticket_take(f.r, held.booking, NULL, 0, f.now, &d, NULL), PDR_E_BUSY);
    assert_int_equal(happen(&f, &answered, PDR_EV_END, D, 0), PDR_ACT_FINISH); /* the client has its end */
    assert_int_equal(happen(&f, &gone, PDR_EV_CLIENT_GONE, 0, 0), PDR_ACT_FINISH);
    answers(&f, &begun); /* only its prompt is computed: the rest goes on */
    assert_int_equal(happen(&f, &refused, PDR_EV_FAILED, P, PDR_FAIL_CONNECT), PDR_ACT_ROUTE);
    assert_int_equal(pdr_exchange_rerouted(f.r, &refused, NULL, PDR_E_BUSY, f.now, act, &n), PDR_OK);
    assert_int_equal(act[n - 1].type, PDR_ACT_FINISH);
    assert_int_equal(happen(&f, &moved, PDR_EV_SERVED, D, f.decode[0]), 0);
    assert_int_equal(moved.decode, PDR_NONE); /* nobody is blamed for what it shows */
    assert_int_equal(pdr_ticket_cancel(f.r, held.booking, f.now), PDR_OK);
    assert_int_equal(pdr_booking_done(f.r, done.booking, PDR_DONE_ALL, f.now), PDR_OK);
    assert_int_equal(pdr_booking_done(f.r, computed.booking, PDR_DONE_PREFILL, f.now), PDR_OK);
    assert_int_equal(pdr_ticket_cancel(f.r, 0, f.now), PDR_OK); /* no booking of anybody's */
    assert_int_equal(pdr_ticket_cancel(f.r, UINT64_MAX, f.now), PDR_OK);
    assert_int_equal(pdr_tick(f.r, f.now), PDR_E_BUSY);
    pdr_books_unlock(&stopped, PDR_OK, NULL);

    assert_int_equal(stats_of(&f).bookings, before.bookings); /* not yet */
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    pdr_stats after = stats_of(&f);
    assert_int_equal(after.bookings, before.bookings - 5); /* answered, gone, refused, held, done */
    assert_int_equal(after.held_now, before.held_now - 1);
    assert_int_equal(after.cancelled, before.cancelled + 1);
    assert_int_equal(after.finished, before.finished + 1);
    assert_int_equal(after.failed, before.failed + 1);
    assert_int_equal(in_prefill(&f, f.prefill[0]), prefill - 5); /* gone, refused, done; begun, computed: their prompts are */
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);

    /* those that went on end as ever, and nothing is given back twice */
    assert_int_equal(happen(&f, &begun, PDR_EV_END, D, 0), PDR_ACT_FINISH);
    assert_int_equal(happen(&f, &moved, PDR_EV_CLIENT_GONE, 0, 0), PDR_ACT_FINISH);
    assert_int_equal(pdr_booking_done(f.r, computed.booking, PDR_DONE_ALL, f.now), PDR_OK);
    assert_int_equal(pdr_booking_done(f.r, done.booking, PDR_DONE_ALL, f.now), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(stats_of(&f).bookings, before.bookings - 8);
    assert_int_equal(stats_of(&f).finished, before.finished + 2);
    fleet_close(&f);
}

/* What is noted of a booking is not taken for another's that has its place now; a note outlives a repair. */
static void a_note_is_one_bookings(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    pdr_books  b;
    c.max_bookings = c.max_held = 1;
    fleet_open(&f, &c, 1, 1);
    pdr_decision first = route(&f, PDR_REQUEST_NO_HOLD);
    pdr_books_open(&b, f.r);
    pdr_booking_owe(&b.ledger, first.booking, PDR_OWED_PREFILLED);
    pdr_booking_owe(&b.ledger, first.booking, PDR_OWED_BACK | PDR_OWED_DONE); /* both are settled */
    const uint64_t note = b.ledger.bookings[0].owed;
    assert_int_equal(pdr_booking_done(f.r, first.booking, PDR_DONE_ALL, f.now), PDR_OK); /* the lock was to be had again */
    pdr_decision second = route(&f, PDR_REQUEST_NO_HOLD);
    pdr_booking_owe(&b.ledger, first.booking, PDR_OWED_BACK);
    assert_int_equal(b.ledger.bookings[0].owed, 0);
    b.ledger.bookings[0].owed = note; /* written just when the place went to another */
    b.ledger.head->owed = 1;
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(stats_of(&f).bookings, 1);
    pdr_booking_owe(&b.ledger, second.booking, PDR_OWED_BACK);
    b.ledger.head->owed = 0; /* somebody died between this and looking through the bookings */
    pdr_ledger_rebuild(&b.ledger);
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(stats_of(&f).bookings, 0);
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_ends_is_not_lost),
        cmocka_unit_test(a_note_is_one_bookings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
