/* Failures as the router's books see them: breakers, suspicion, back-pressure, the retry budget, learnt bounds; through the public calls. */
#include "fleet.h"

#include "block.h"

enum { P = PDR_LEG_PREFILL, D = PDR_LEG_DECODE };

/* One request under way. */
typedef struct trip {
    pdr_exchange x;
    pdr_decision d;
    pdr_action   act[PDR_MAX_ACTIONS];
    size_t       n;
} trip;

static int prefills_n, decodes_n; /* of the present fleet */

static int send_to(fleet *f, trip *t, uint32_t prefill, uint32_t decode) /* PDR_NONE: any */
{
    pdr_prompt  p = fleet_prompt(500, 0, 0, NULL, 0);
    pdr_request q = fleet_request(f);
    p.flags |= PDR_PROMPT_STREAM;
    q.flags = PDR_REQUEST_NO_HOLD;
    for (int i = 0; i < prefills_n; i++)
        if (prefill != PDR_NONE && f->prefill[i] != prefill) q.exclude[q.excluded++] = f->prefill[i];
    for (int i = 0; i < decodes_n; i++)
        if (decode != PDR_NONE && f->decode[i] != decode) q.exclude[q.excluded++] = f->decode[i];
    pdr_lease_renew(f->r, f->lease, f->now);
    pdr_init_struct(&t->d, sizeof t->d);
    int code = pdr_route_prompt(f->r, &p, NULL, 0, &q, &t->d, NULL);
    if (code) return code;
    pdr_init_struct(&t->x, sizeof t->x);
    t->n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_begin(f->r, &t->x, &t->d, f->lease, f->now, t->act, &t->n), PDR_OK);
    return PDR_OK;
}

static pdr_event made(const fleet *f, const trip *t, uint32_t type, uint32_t leg, uint32_t value)
{
    pdr_event ev;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.attempt = t->x.attempt;
    ev.now_ns = f->now;
    if (type == PDR_EV_HEAD) ev.status = value;
    if (type == PDR_EV_FAILED) ev.detail = value;
    return ev;
}

static void feed(fleet *f, trip *t, pdr_event ev)
{
    t->n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_event(f->r, &t->x, &ev, t->act, &t->n), PDR_OK);
}

static void happen(fleet *f, trip *t, uint32_t type, uint32_t leg, uint32_t value) { feed(f, t, made(f, t, type, leg, value)); }

static uint32_t last_action(const trip *t) { return t->n ? t->act[t->n - 1].type : 0; }

static void give_up(fleet *f, trip *t)
{
    for (int i = 0; i < 6 && last_action(t) == PDR_ACT_ROUTE; i++) {
        t->n = PDR_MAX_ACTIONS;
        pdr_exchange_rerouted(f->r, &t->x, NULL, PDR_E_NO_PAIR, f->now, t->act, &t->n);
    }
    assert_int_equal(last_action(t), PDR_ACT_FINISH);
}

/* Each of these is one request from its decision to its end. */
static void good(fleet *f, uint32_t prefill, uint32_t decode)
{
    trip t;
    assert_int_equal(send_to(f, &t, prefill, decode), PDR_OK);
    f->now += 50 * MS;
    happen(f, &t, PDR_EV_HEAD, P, 200);
    happen(f, &t, PDR_EV_HEAD, D, 200);
    happen(f, &t, PDR_EV_BODY, D, 0);
    happen(f, &t, PDR_EV_END, P, 0);
    happen(f, &t, PDR_EV_END, D, 0);
    assert_int_equal(last_action(&t), PDR_ACT_FINISH);
}

static int fails(fleet *f, uint32_t prefill, uint32_t decode, uint32_t leg, uint32_t type, uint32_t value)
{
    trip t;
    int  code = send_to(f, &t, prefill, decode);
    if (code) return code;
    f->now += MS;
    happen(f, &t, type, leg, value);
    give_up(f, &t);
    return PDR_OK;
}

static int usable(const fleet *f, uint32_t endpoint) { return fleet_target(f, endpoint).state == PDR_STATE_READY; }

static void open_with(fleet *f, const pdr_config *c, int prefills, int decodes)
{
    prefills_n = prefills, decodes_n = decodes;
    fleet_open(f, c, prefills, decodes);
}

static void open_fleet(fleet *f, int prefills, int decodes)
{
    pdr_config c = fleet_config();
    open_with(f, &c, prefills, decodes);
}

static void failures_in_a_row_take_one_out_but_never_most_of_a_role(void **state)
{
    (void)state;
    fleet f;
    open_fleet(&f, 2, 2);
    for (int i = 0; i < 3; i++) {
        assert_true(usable(&f, f.prefill[0]));
        fails(&f, f.prefill[0], PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_RESET);
    }
    assert_false(usable(&f, f.prefill[0]));
    assert_int_equal(fleet_stats(&f).breakers_opened, 1);
    for (int i = 0; i < 10; i++) fails(&f, f.prefill[1], PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_RESET); /* now it is the pool */
    assert_true(usable(&f, f.prefill[1]));
    assert_int_equal(pdr_ready(f.r, f.now), 1);
    fails(&f, f.prefill[1], PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_CONNECT); /* nobody is there: no opinion */
    assert_false(usable(&f, f.prefill[1]));
    assert_int_equal(pdr_ready(f.r, f.now), 0);
    fleet_close(&f);
}

static void a_share_of_failures_takes_one_out(void **state)
{
    (void)state;
    fleet f;
    open_fleet(&f, 1, 3);
    int n = 0;
    for (; n < 40 && usable(&f, f.decode[0]); n++) /* never three in a row */
        if (n % 2)
            good(&f, PDR_NONE, f.decode[0]);
        else
            fails(&f, PDR_NONE, f.decode[0], D, PDR_EV_FAILED, PDR_FAIL_RESET);
    assert_in_range(n, 16, 18);
    for (n = 0; n < 40; n++) /* one in four */
        if (n % 4)
            good(&f, PDR_NONE, f.decode[1]);
        else
            fails(&f, PDR_NONE, f.decode[1], D, PDR_EV_FAILED, PDR_FAIL_RESET);
    assert_true(usable(&f, f.decode[1]));
    fleet_close(&f);
}

static void one_request_tries_a_broken_server_again(void **state)
{
    (void)state;
    fleet f;
    trip  t, other;
    open_fleet(&f, 2, 1);
    for (int i = 0; i < 3; i++) fails(&f, f.prefill[0], PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_RESET);
    assert_int_equal(send_to(&f, &t, f.prefill[0], PDR_NONE), PDR_E_NO_PAIR);
    f.now += SECOND;
    assert_int_equal(send_to(&f, &t, f.prefill[0], PDR_NONE), PDR_OK);
    assert_int_equal(send_to(&f, &other, f.prefill[0], PDR_NONE), PDR_E_NO_PAIR); /* it waits for what becomes of that */
    f.now += MS;
    happen(&f, &t, PDR_EV_HEAD, P, 200);
    happen(&f, &t, PDR_EV_BODY, P, 0);
    assert_int_equal(send_to(&f, &other, f.prefill[0], PDR_NONE), PDR_OK);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    happen(&f, &other, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

static void all_down_and_back_within_a_second(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 2, 1);
    for (int i = 0; i < 200; i++) { /* for a long time: breakers are at their longest */
        f.now += 300 * MS;
        while (!fails(&f, PDR_NONE, PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_CONNECT)) continue;
    }
    assert_int_equal(pdr_ready(f.r, f.now), 0);
    int tries = 0;
    for (; tries < 100 && send_to(&f, &t, PDR_NONE, PDR_NONE); tries++) {
        assert_in_range(t.d.retry_after_ms, 1, 1000);
        f.now += 10 * MS;
    }
    assert_in_range(tries, 0, 26); /* what refuses is tried every quarter of a second */
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

static void a_request_that_would_fail_tries_one_that_was_out(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 2, 1);
    fails(&f, f.prefill[0], PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_CONNECT);
    f.now += MS;
    assert_int_equal(send_to(&f, &t, f.prefill[0], PDR_NONE), PDR_OK); /* the other one was tried: send_to excludes it */
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    for (int i = 0; i < 3; i++) fails(&f, f.prefill[1], PDR_NONE, P, PDR_EV_FAILED, PDR_FAIL_RESET);
    assert_int_equal(send_to(&f, &t, f.prefill[1], PDR_NONE), PDR_OK); /* (half of the role remains in use) */
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

/* Decode answers 500 before the prompt is known to be computed: a dead bootstrap server, or decode itself. */
static int suspicion(fleet *f, uint32_t prefill, uint32_t decode) { return fails(f, prefill, decode, D, PDR_EV_HEAD, 500); }

static void suspicion_is_pinned_on_the_one_with_two_partners(void **state)
{
    (void)state;
    fleet f;
    open_fleet(&f, 2, 2);
    suspicion(&f, f.prefill[0], f.decode[0]);
    assert_true(usable(&f, f.prefill[0]) && usable(&f, f.decode[0]));
    suspicion(&f, f.prefill[0], f.decode[1]);
    assert_false(usable(&f, f.prefill[0]));
    assert_true(usable(&f, f.decode[0]) && usable(&f, f.decode[1]));
    fleet_close(&f);
}

static void suspicion_is_pinned_when_the_partner_is_cleared(void **state)
{
    (void)state;
    fleet f;
    open_fleet(&f, 2, 1); /* prefill 0 has a dead bootstrap port */
    suspicion(&f, f.prefill[0], f.decode[0]);
    suspicion(&f, f.prefill[0], f.decode[0]); /* the same two: it still cannot be told */
    assert_true(usable(&f, f.prefill[0]) && usable(&f, f.decode[0]));
    good(&f, f.prefill[1], f.decode[0]);
    suspicion(&f, f.prefill[0], f.decode[0]);
    assert_false(usable(&f, f.prefill[0]));
    assert_true(usable(&f, f.decode[0]));
    fleet_close(&f);

    open_fleet(&f, 1, 2); /* and the other way round: decode 0 is broken */
    suspicion(&f, f.prefill[0], f.decode[0]);
    good(&f, f.prefill[0], f.decode[1]);
    suspicion(&f, f.prefill[0], f.decode[0]);
    assert_false(usable(&f, f.decode[0]));
    assert_true(usable(&f, f.prefill[0]));
    fleet_close(&f);
}

static void back_pressure_is_respected(void **state)
{
    (void)state;
    fleet     f;
    trip      t;
    pdr_event ev;
    open_fleet(&f, 1, 2);
    assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[0]), PDR_OK);
    ev = made(&f, &t, PDR_EV_HEAD, D, 429);
    ev.retry_after_ms = 7000;
    feed(&f, &t, ev);
    happen(&f, &t, PDR_EV_END, D, 0);
    assert_int_equal(last_action(&t), PDR_ACT_FINISH);
    assert_int_equal(fleet_target(&f, f.decode[0]).failures, 0);
    for (int i = 0; i < 6; i++) {
        f.now += 1100 * MS;
        assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[0]), PDR_E_NO_PAIR);
        good(&f, PDR_NONE, PDR_NONE); /* the other one */
    }
    f.now += 500 * MS;
    assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[0]), PDR_OK); /* no trial: it was never broken */
    trip second;
    assert_int_equal(send_to(&f, &second, PDR_NONE, f.decode[0]), PDR_OK);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    happen(&f, &second, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);

    open_fleet(&f, 1, 1); /* the only one: nobody is let in before its time, and clients hear when that is */
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    ev = made(&f, &t, PDR_EV_HEAD, D, 503);
    ev.retry_after_ms = 90000;
    feed(&f, &t, ev);
    give_up(&f, &t);
    f.now += 2 * SECOND;
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_E_NO_PAIR);
    assert_int_equal(t.d.retry_after_ms, 28000); /* half a minute at most is believed */
    f.now += 28 * SECOND;
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

/* Nothing comes of a request to a frozen server, nor to one that is asked together with it. How many attempts it took, 0: the client was told of a failure. */
static int attempts_with_frozen(fleet *f, trip *t, uint32_t frozen_prefill, uint32_t frozen_decode)
{
    pdr_prompt p = fleet_prompt(500, 0, 0, NULL, 0);
    for (int attempt = 1;; attempt++) {
        if (t->d.prefill != frozen_prefill && t->d.decode != frozen_decode) return attempt;
        f->now = pdr_exchange_deadline(&t->x);
        pdr_lease_renew(f->r, f->lease, f->now);
        happen(f, t, PDR_EV_TICK, 0, 0);
        while (last_action(t) == PDR_ACT_ROUTE) {
            pdr_request q = fleet_request(f);
            q.flags = PDR_REQUEST_NO_HOLD;
            q.excluded = t->x.excluded;
            memcpy(q.exclude, t->x.exclude, sizeof q.exclude);
            pdr_init_struct(&t->d, sizeof t->d);
            int code = pdr_route_prompt(f->r, &p, NULL, 0, &q, &t->d, NULL);
            t->n = PDR_MAX_ACTIONS;
            assert_int_equal(pdr_exchange_rerouted(f->r, &t->x, code ? NULL : &t->d, code, f->now, t->act, &t->n), PDR_OK);
        }
        if (last_action(t) == PDR_ACT_FINISH) return 0;
    }
}

/* Two hosts with a prefill and a decode server each; one freezes. When breakers know whom to suspect, every request ends at the healthy pair. */
static void a_frozen_host_loses_no_request(void **state)
{
    (void)state;
    fleet      f;
    pdr_config c = fleet_config();
    int        lost = 0;
    c.first_byte_timeout_ms = 1000;
    c.retry_budget_permille = UINT32_MAX;
    open_with(&f, &c, 2, 2);
    for (int i = 0; i < 20; i++) good(&f, PDR_NONE, PDR_NONE);
    for (int i = 0; i < 400; i++) {
        trip t;
        f.now += 20 * MS;
        assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
        if (!attempts_with_frozen(&f, &t, f.prefill[0], f.decode[0])) {
            if (i >= 4) lost++;
            continue;
        }
        f.now += 10 * MS;
        happen(&f, &t, PDR_EV_HEAD, P, 200);
        happen(&f, &t, PDR_EV_HEAD, D, 200);
        happen(&f, &t, PDR_EV_BODY, D, 0);
        happen(&f, &t, PDR_EV_END, P, 0);
        happen(&f, &t, PDR_EV_END, D, 0);
        assert_int_equal(last_action(&t), PDR_ACT_FINISH);
    }
    assert_true(fleet_stats(&f).timeouts > 4); /* they were tried now and then */
    assert_int_equal(lost, 0);
    fleet_close(&f);
}

static void retries_have_a_budget(void **state)
{
    (void)state;
    fleet      f;
    pdr_config c = fleet_config();
    unsigned   retries = 0, refused = 0;
    c.breaker_failures = 1000000;
    c.breaker_error_permille = UINT32_MAX;
    open_with(&f, &c, 2, 1);
    for (int i = 0; i < 1000; i++) {
        trip t;
        assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
        happen(&f, &t, PDR_EV_FAILED, P, PDR_FAIL_RESET);
        if (last_action(&t) == PDR_ACT_ROUTE) {
            retries++;
            give_up(&f, &t);
        } else {
            refused++;
            assert_int_equal(last_action(&t), PDR_ACT_FINISH);
        }
    }
    assert_in_range(retries, 295, 301); /* the reserve, and a fifth of the traffic */
    assert_int_equal(fleet_stats(&f).retries_refused, refused);
    for (int i = 0; i < 20; i++) { /* time brings ten a second */
        f.now += SECOND;
        pdr_lease_renew(f.r, f.lease, f.now);
        pdr_tick(f.r, f.now);
    }
    trip t;
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    happen(&f, &t, PDR_EV_FAILED, P, PDR_FAIL_RESET);
    assert_int_equal(last_action(&t), PDR_ACT_ROUTE);
    give_up(&f, &t);
    fleet_close(&f);
}

static void bounds_are_learnt(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 2, 1);
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    assert_int_equal(t.d.first_byte_us, 300000000);
    assert_int_equal(t.d.idle_us, 300000000);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    for (int i = 0; i < 20; i++) good(&f, PDR_NONE, PDR_NONE);
    assert_int_equal(send_to(&f, &t, f.prefill[0], PDR_NONE), PDR_OK);
    assert_int_equal(t.d.first_byte_us, 5000000); /* 50 ms are usual: the lower limit */
    assert_int_equal(pdr_exchange_deadline(&t.x), f.now + 5 * SECOND);
    f.now += 5 * SECOND;
    pdr_lease_renew(f.r, f.lease, f.now);
    happen(&f, &t, PDR_EV_TICK, 0, 0);
    assert_int_equal(last_action(&t), PDR_ACT_ROUTE);
    assert_int_equal(fleet_stats(&f).timeouts, 1);
    give_up(&f, &t);
    assert_int_equal(send_to(&f, &t, f.prefill[0], PDR_NONE), PDR_OK);
    assert_int_equal(t.d.first_byte_us, 10000000); /* it may have become slow: once more with more patience */
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    assert_int_equal(send_to(&f, &t, f.prefill[1], PDR_NONE), PDR_OK);
    assert_int_equal(t.d.first_byte_us, 5000000);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

/* An action's fields that it has no use for are zero. */
static void assert_bare(const pdr_action *a, uint32_t type)
{
    assert_int_equal(a->type, type);
    assert_int_equal(a->leg, 0);
    assert_int_equal(a->status, 0);
    assert_int_equal(a->reason, 0);
    assert_int_equal(a->retry_after_ms, 0);
}

static void what_actions_say(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 2, 1);
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    memset(t.x.exclude, 0xA5, sizeof t.x.exclude); /* what is behind the excluded is not left to chance */
    happen(&f, &t, PDR_EV_HEAD, P, 500);
    assert_bare(&t.act[t.n - 1], PDR_ACT_ROUTE);
    assert_in_range(t.x.excluded, 1, 7);
    for (uint32_t i = t.x.excluded; i < 8; i++) assert_int_equal(t.x.exclude[i], 0);
    give_up(&f, &t);

    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    happen(&f, &t, PDR_EV_HEAD, D, 200);
    happen(&f, &t, PDR_EV_BODY, D, 0);
    const pdr_action *relay = &t.act[t.n - 1];
    assert_int_equal(relay->type, PDR_ACT_RELAY);
    assert_int_equal(relay->leg, D);
    assert_int_equal(relay->status, 200);
    assert_int_equal(relay->reason, 0);
    assert_int_equal(relay->retry_after_ms, 0);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

/* The host was asked for another pair and had none before the whole time was over: that is what the client hears, not how long one server wanted to be left alone. */
static void the_end_of_all_time_is_not_back_pressure(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    trip       t;
    pdr_event  ev;
    c.total_timeout_ms = 3000;
    open_with(&f, &c, 1, 2);
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    ev = made(&f, &t, PDR_EV_HEAD, D, 503);
    ev.retry_after_ms = 7000;
    feed(&f, &t, ev);
    assert_int_equal(last_action(&t), PDR_ACT_ROUTE);
    f.now += 3 * SECOND;
    happen(&f, &t, PDR_EV_TICK, 0, 0);
    assert_int_equal(last_action(&t), PDR_ACT_FINISH);
    assert_int_equal(t.act[t.n - 2].type, PDR_ACT_RESPOND);
    assert_int_equal(t.act[t.n - 2].status, 504);
    assert_int_equal(t.act[t.n - 2].retry_after_ms, 0);
    fleet_close(&f);
}

/* A pair's first byte is due when the rules say, however much more its decision would allow. */
static void the_limit_of_the_first_byte_holds_for_pairs(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    trip       t;
    c.first_byte_timeout_ms = 1000;
    open_with(&f, &c, 2, 1);
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    t.d.first_byte_us = UINT64_C(3600000000); /* begun once more with a decision that allows an hour */
    pdr_init_struct(&t.x, sizeof t.x);
    t.n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_begin(f.r, &t.x, &t.d, f.lease, f.now, t.act, &t.n), PDR_OK);
    assert_int_equal(pdr_exchange_deadline(&t.x), f.now + SECOND);
    happen(&f, &t, PDR_EV_CLIENT_GONE, 0, 0);
    fleet_close(&f);
}

/* A stream that goes on for a day, with a piece every four minutes: nothing ends it before its 24 hours are over, then they do. Nor does its booking expire. */
static void a_stream_may_last_a_day(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    trip       t;
    pdr_event  ev;
    open_with(&f, &c, 1, 1);
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    uint64_t begun = f.now;
    happen(&f, &t, PDR_EV_HEAD, P, 200);
    happen(&f, &t, PDR_EV_END, P, 0);
    happen(&f, &t, PDR_EV_HEAD, D, 200);
    happen(&f, &t, PDR_EV_BODY, D, 0);
    happen(&f, &t, PDR_EV_SENT, D, 0);
    while (f.now + 240 * SECOND < begun + 86400 * SECOND) {
        assert_true(pdr_exchange_deadline(&t.x) > f.now && pdr_exchange_deadline(&t.x) <= begun + 86400 * SECOND);
        for (int i = 0; i < 48; i++) { /* other processes' time goes on meanwhile */
            f.now += 5 * SECOND;
            assert_int_equal(pdr_lease_renew(f.r, f.lease, f.now), PDR_OK);
            assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
        }
        ev = made(&f, &t, PDR_EV_TICK, 0, 0);
        ev.last_byte_ns = f.now - SECOND;
        feed(&f, &t, ev);
        assert_int_equal(t.n, 0);
    }
    assert_int_equal(fleet_stats(&f).bookings, 1);
    f.now = begun + 86400 * SECOND;
    assert_int_equal(pdr_lease_renew(f.r, f.lease, f.now), PDR_OK);
    ev = made(&f, &t, PDR_EV_TICK, 0, 0);
    ev.last_byte_ns = f.now - SECOND;
    feed(&f, &t, ev);
    assert_int_equal(last_action(&t), PDR_ACT_FINISH);
    assert_true(t.n >= 2 && t.act[t.n - 2].type == PDR_ACT_ABORT);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    fleet_close(&f);
}

static void a_stalled_answer_is_noticed(void **state)
{
    (void)state;
    fleet     f;
    trip      t;
    pdr_event ev;
    open_fleet(&f, 1, 1);
    for (int i = 0; i < 20; i++) { /* answers with a second of silence somewhere */
        assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
        happen(&f, &t, PDR_EV_HEAD, D, 200);
        happen(&f, &t, PDR_EV_BODY, D, 0);
        happen(&f, &t, PDR_EV_HEAD, P, 200);
        happen(&f, &t, PDR_EV_END, P, 0);
        f.now += 2 * SECOND;
        ev = made(&f, &t, PDR_EV_END, D, 0);
        ev.longest_gap_ms = 2000;
        feed(&f, &t, ev);
    }
    assert_int_equal(send_to(&f, &t, PDR_NONE, PDR_NONE), PDR_OK);
    assert_int_equal(t.d.idle_us, 16000000);
    happen(&f, &t, PDR_EV_HEAD, D, 200);
    happen(&f, &t, PDR_EV_BODY, D, 0);
    happen(&f, &t, PDR_EV_SENT, D, 0);
    f.now += 16 * SECOND;
    pdr_lease_renew(f.r, f.lease, f.now);
    ev = made(&f, &t, PDR_EV_TICK, 0, 0);
    ev.last_byte_ns = f.now - 16 * SECOND;
    feed(&f, &t, ev);
    assert_int_equal(last_action(&t), PDR_ACT_FINISH);
    assert_int_equal(t.act[t.n - 2].type, PDR_ACT_ABORT);
    assert_int_equal(t.act[t.n - 2].reason, PDR_ERR_DECODE_TIMEOUT);
    assert_int_equal(fleet_target(&f, f.decode[0]).failures, 1);
    fleet_close(&f);
}

static void one_that_takes_many_times_longer_than_the_others_is_taken_out(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 3, 1);
    for (int i = 0; i < 60; i++) good(&f, f.prefill[i % 2 + 1], PDR_NONE);
    int n = 0;
    for (; n < 60 && usable(&f, f.prefill[0]); n++) {
        assert_int_equal(send_to(&f, &t, f.prefill[0], PDR_NONE), PDR_OK);
        f.now += 4 * SECOND;
        pdr_lease_renew(f.r, f.lease, f.now);
        happen(&f, &t, PDR_EV_HEAD, P, 200);
        happen(&f, &t, PDR_EV_BODY, P, 0);
        happen(&f, &t, PDR_EV_END, P, 0);
        happen(&f, &t, PDR_EV_HEAD, D, 200);
        happen(&f, &t, PDR_EV_BODY, D, 0);
        happen(&f, &t, PDR_EV_END, D, 0);
        for (int k = 0; k < 4; k++) good(&f, f.prefill[1], PDR_NONE);
    }
    assert_in_range(n, 8, 20);
    assert_true(usable(&f, f.prefill[1]) && usable(&f, f.prefill[2]));
    fleet_close(&f);
}

static void the_place_is_where_the_request_was_served(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 1, 3);
    assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[0]), PDR_OK);
    pdr_event ev = made(&f, &t, PDR_EV_SERVED, D, 0);
    ev.detail = f.decode[1];
    ev.attempt++; /* of an attempt that is not */
    feed(&f, &t, ev);
    assert_int_equal(fleet_target(&f, f.decode[0]).decode_requests, 1);
    ev.attempt--;
    uint64_t tokens = fleet_target(&f, f.decode[0]).decode_tokens;
    for (int i = 0; i < 2; i++) { /* said twice, it is the same */
        feed(&f, &t, ev);
        assert_int_equal(t.n, 0);
        assert_int_equal(t.x.decode, f.decode[1]);
        assert_int_equal(fleet_target(&f, f.decode[0]).decode_requests, 0);
        assert_int_equal(fleet_target(&f, f.decode[0]).decode_tokens, 0);
        assert_int_equal(fleet_target(&f, f.decode[1]).decode_requests, 1);
        assert_int_equal(fleet_target(&f, f.decode[1]).decode_tokens, tokens);
        assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    }
    assert_int_equal(pdr_endpoint_remove(f.r, f.decode[0], NULL), PDR_OK); /* nothing of it is left: its slot is free */
    assert_int_equal(fleet_add(&f, "new", "10.0.9.9", 8000, PDR_ROLE_DECODE), f.decode[0]);
    for (int i = 0; i < 3; i++) { /* what fails is the one that served */
        happen(&f, &t, PDR_EV_FAILED, D, PDR_FAIL_RESET);
        give_up(&f, &t);
        if (i == 2) break;
        assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[2]), PDR_OK);
        ev.attempt = t.x.attempt;
        feed(&f, &t, ev);
    }
    assert_false(usable(&f, f.decode[1]));
    assert_true(usable(&f, f.decode[2]));
    assert_int_equal(fleet_stats(&f).bookings, 0);

    assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[2]), PDR_OK);
    ev.attempt = t.x.attempt;
    for (int i = 0; i < 2; i++) { /* nobody that is known, or who does not decode: the place stays, nobody is judged */
        ev.detail = i ? f.prefill[0] : 12345;
        feed(&f, &t, ev);
        assert_int_equal(t.x.decode, PDR_NONE);
        assert_int_equal(fleet_target(&f, f.decode[2]).decode_requests, 1);
    }
    happen(&f, &t, PDR_EV_FAILED, D, PDR_FAIL_RESET);
    give_up(&f, &t);
    assert_int_equal(fleet_target(&f, f.decode[2]).failures, 0);
    feed(&f, &t, ev); /* too late */
    fleet_close(&f);
}

static uint32_t requests_of_rank(const fleet *f, uint32_t id, uint32_t rank)
{
    pdr_target_status s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_target_get(f->r, id, rank, f->now, &s), PDR_OK);
    return (uint32_t)s.decode_requests;
}

/* Of a server's ranks it is the one that has least to do. */
static void the_place_is_with_the_least_of_ranks(void **state)
{
    (void)state;
    fleet        f;
    trip         t, u;
    pdr_endpoint e;
    uint32_t     many;
    open_fleet(&f, 1, 1);
    pdr_init_struct(&e, sizeof e);
    strcpy(e.name, "many");
    strcpy(e.host, "10.0.9.1");
    e.port = 8000;
    e.role = PDR_ROLE_DECODE;
    e.dp_size = 3;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &many, NULL), PDR_OK);
    f.decode[decodes_n++] = many;
    for (uint32_t n = 0; n < 2; n++) assert_int_equal(send_to(&f, &t, PDR_NONE, many), PDR_OK);
    uint32_t before[3], idle = 3;
    for (uint32_t i = 0; i < 3; i++)
        if (!(before[i] = requests_of_rank(&f, many, i))) idle = i;
    assert_int_equal(before[0] + before[1] + before[2], 2);
    assert_true(idle < 3);
    for (uint32_t n = 0; n < 2; n++) { /* the first fills the gap, the second comes to one that has as much as the others */
        assert_int_equal(send_to(&f, &u, PDR_NONE, f.decode[0]), PDR_OK);
        pdr_event ev = made(&f, &u, PDR_EV_SERVED, D, 0);
        ev.detail = many;
        feed(&f, &u, ev);
        if (n == 0) assert_int_equal(requests_of_rank(&f, many, idle), 1);
        assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    }
    assert_int_equal(fleet_target(&f, f.decode[0]).decode_requests, 0);
    for (uint32_t i = 0; i < 3; i++) assert_in_range(requests_of_rank(&f, many, i), 1, 2);
    assert_int_equal(requests_of_rank(&f, many, 0) + requests_of_rank(&f, many, 1) + requests_of_rank(&f, many, 2), 4);
    fleet_close(&f);
}

/* One server that does it alone has it twice, as prompt and as answer; only the answer moves, away and back. One without a prompt of its own moves whole. */
static void the_place_of_one_that_is_served_alone_moves_too(void **state)
{
    (void)state;
    pdr_endpoint e;
    for (int other = 0; other < 2; other++) {
        fleet f;
        trip  t;
        open_fleet(&f, 1, 2);
        pdr_init_struct(&e, sizeof e);
        assert_int_equal(pdr_endpoint_get(f.r, f.decode[1], &e, NULL), PDR_OK);
        e.flags |= PDR_ENDPOINT_ALONE;
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, NULL), PDR_OK);
        pdr_prompt  p = fleet_prompt(500, 0, 0, NULL, 0);
        pdr_request q = fleet_request(&f);
        if (other) p.api = q.api = PDR_API_OTHER;
        q.flags = PDR_REQUEST_NO_HOLD;
        q.excluded = 1;
        q.exclude[0] = f.decode[0];
        pdr_init_struct(&t.d, sizeof t.d);
        assert_int_equal(pdr_route_prompt(f.r, &p, NULL, 0, &q, &t.d, NULL), PDR_OK);
        assert_int_equal(t.d.mode, PDR_MODE_SINGLE);
        assert_int_equal(t.d.decode, f.decode[1]);
        pdr_init_struct(&t.x, sizeof t.x);
        t.n = PDR_MAX_ACTIONS;
        assert_int_equal(pdr_exchange_begin(f.r, &t.x, &t.d, f.lease, f.now, t.act, &t.n), PDR_OK);
        uint32_t  prompts = (uint32_t)fleet_target(&f, f.decode[1]).prefill_requests;
        pdr_event ev = made(&f, &t, PDR_EV_SERVED, D, 0);
        assert_int_equal(prompts, !other);
        for (int i = 0; i < 3; i++) { /* away, back, away */
            int there = i == 1;
            ev.detail = f.decode[there];
            feed(&f, &t, ev);
            assert_int_equal(t.x.decode, f.decode[there]);
            assert_int_equal(fleet_target(&f, f.decode[there]).decode_requests, 1);
            assert_int_equal(fleet_target(&f, f.decode[!there]).decode_requests, 0);
            assert_int_equal(fleet_target(&f, f.decode[1]).prefill_requests, prompts);
            assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
        }
        happen(&f, &t, PDR_EV_HEAD, D, 200);
        happen(&f, &t, PDR_EV_BODY, D, 0);
        happen(&f, &t, PDR_EV_END, D, 0);
        assert_int_equal(fleet_stats(&f).bookings, 0);
        ev.detail = f.decode[1];
        feed(&f, &t, ev); /* nothing is booked any more */
        assert_int_equal(fleet_target(&f, f.decode[1]).decode_requests, 0);
        for (int i = 0; i < 2; i++) { /* and nothing of it is left anywhere: slots are free */
            assert_int_equal(pdr_endpoint_remove(f.r, f.decode[i], NULL), PDR_OK);
            assert_int_equal(fleet_add(&f, i ? "new1" : "new0", i ? "10.0.9.2" : "10.0.9.1", 8000, PDR_ROLE_DECODE), f.decode[i]);
        }
        fleet_close(&f);
    }
}

static void where_it_was_served_is_told_right_or_not_at_all(void **state)
{
    (void)state;
    fleet f;
    trip  t;
    open_fleet(&f, 1, 2);
    assert_int_equal(send_to(&f, &t, PDR_NONE, f.decode[0]), PDR_OK);
    pdr_event good_one = made(&f, &t, PDR_EV_SERVED, D, 0), ev;
    good_one.detail = f.decode[1];
    assert_int_equal(pdr_exchange_event(f.r, &t.x, &good_one, t.act, NULL), PDR_E_INVALID);
    ev = good_one;
    ev.struct_size = 0;
    t.n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_event(f.r, &t.x, &ev, t.act, &t.n), PDR_E_VERSION);
    ev.struct_size = offsetof(pdr_event, retry_after_ms) - 1; /* cut short: it names nobody */
    feed(&f, &t, ev);
    assert_int_equal(t.n, 0);
    ev = good_one;
    ev.leg = P;
    feed(&f, &t, ev);
    assert_int_equal(t.n, 0);
    uint32_t ready = f.r->ready;
    f.r->ready = 0;
    assert_int_equal(pdr_exchange_event(f.r, &t.x, &good_one, t.act, &t.n), PDR_E_INVALID);
    f.r->ready = 0x54534f4c; /* the block is lost: requests go on without it */
    assert_int_equal(pdr_exchange_event(f.r, &t.x, &good_one, t.act, &t.n), PDR_OK);
    f.r->ready = ready;
    assert_int_equal(t.x.decode, f.decode[0]); /* none of these moved it */
    assert_int_equal(fleet_target(&f, f.decode[0]).decode_requests, 1);
    assert_int_equal(fleet_target(&f, f.decode[1]).decode_requests, 0);
    feed(&f, &t, good_one);
    assert_int_equal(fleet_target(&f, f.decode[1]).decode_requests, 1);
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_in_a_row_take_one_out_but_never_most_of_a_role),
        cmocka_unit_test(a_share_of_failures_takes_one_out),
        cmocka_unit_test(one_request_tries_a_broken_server_again),
        cmocka_unit_test(all_down_and_back_within_a_second),
        cmocka_unit_test(a_request_that_would_fail_tries_one_that_was_out),
        cmocka_unit_test(suspicion_is_pinned_on_the_one_with_two_partners),
        cmocka_unit_test(suspicion_is_pinned_when_the_partner_is_cleared),
        cmocka_unit_test(back_pressure_is_respected),
        cmocka_unit_test(a_frozen_host_loses_no_request),
        cmocka_unit_test(retries_have_a_budget),
        cmocka_unit_test(what_actions_say),
        cmocka_unit_test(the_end_of_all_time_is_not_back_pressure),
        cmocka_unit_test(the_limit_of_the_first_byte_holds_for_pairs),
        cmocka_unit_test(bounds_are_learnt),
        cmocka_unit_test(a_stream_may_last_a_day),
        cmocka_unit_test(a_stalled_answer_is_noticed),
        cmocka_unit_test(one_that_takes_many_times_longer_than_the_others_is_taken_out),
        cmocka_unit_test(the_place_is_where_the_request_was_served),
        cmocka_unit_test(the_place_is_with_the_least_of_ranks),
        cmocka_unit_test(the_place_of_one_that_is_served_alone_moves_too),
        cmocka_unit_test(where_it_was_served_is_told_right_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
