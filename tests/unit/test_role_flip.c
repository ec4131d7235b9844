/* One document that makes every prefill server a decode server and every decode server a prefill server, in one call, while requests are under way on them. */
#include "fleet.h"

static pdr_error        err;
static pdr_apply_report report;

/* {"endpoints":[…]}: n servers, every other one of each role; `flipped`: the other way round. */
static char *document(uint32_t n, uint32_t flipped)
{
    char  *text = malloc(n * 96 + 32);
    size_t len = (size_t)sprintf(text, "{\"endpoints\":[");
    for (uint32_t i = 0; i < n; i++)
        len += (size_t)sprintf(text + len, "%s{\"name\":\"w%u\",\"role\":\"%s\",\"host\":\"10.1.%u.%u\",\"port\":8000}", i ? "," : "", i,
                               (i + flipped) % 2 ? "decode" : "prefill", i >> 8, i & 255);
    strcpy(text + len, "]}");
    return text;
}

static void apply(fleet *f, uint32_t n, uint32_t flipped)
{
    char *text = document(n, flipped);
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&report, sizeof report);
    int code = pdr_apply_json(f->r, text, strlen(text), PDR_APPLY_PRUNE, f->now, &report, &err);
    free(text);
    if (code) fail_msg("%s", err.message);
    assert_int_equal(fleet_stats(f).endpoints, n);
    if (pdr_router_check(f->r, &err)) fail_msg("check: %s", err.message);
}

static uint32_t number_of(const fleet *f, uint32_t id)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_endpoint_get(f->r, id, &e, NULL), PDR_OK);
    return (uint32_t)strtoul(e.name + 1, NULL, 10);
}

/* Each server has the role that the document gave it last, under the name it always had. */
static void expect_roles(const fleet *f, uint32_t n, uint32_t flipped)
{
    for (uint32_t i = 0; i < n; i++) {
        char         name[16];
        uint32_t     id;
        pdr_endpoint e;
        snprintf(name, sizeof name, "w%u", i);
        pdr_init_struct(&e, sizeof e);
        assert_int_equal(pdr_endpoint_find(f->r, name, &id), PDR_OK);
        assert_int_equal(pdr_endpoint_get(f->r, id, &e, NULL), PDR_OK);
        assert_int_equal(e.role, (i + flipped) % 2 ? PDR_ROLE_DECODE : PDR_ROLE_PREFILL);
    }
}

static void expect_idle(const fleet *f, uint32_t n)
{
    const pdr_stats s = fleet_stats(f);
    assert_int_equal(s.bookings, 0);
    assert_int_equal(s.held_now, 0);
    for (uint32_t i = 0; i < n; i++) {
        char     name[16];
        uint32_t id;
        snprintf(name, sizeof name, "w%u", i);
        assert_int_equal(pdr_endpoint_find(f->r, name, &id), PDR_OK);
        const pdr_target_status t = fleet_target(f, id);
        assert_true(t.prefill_requests == 0 && t.prefill_tokens == 0 && t.decode_requests == 0 && t.decode_tokens == 0);
    }
}

enum { OPEN = 24 };

/* `open` requests are under way at each turn: some end before it as far as prefill goes, all of them after it. */
static void flip(uint32_t n, uint32_t open)
{
    pdr_config   c = fleet_config();
    pdr_decision d[OPEN], now;
    pdr_exchange x;
    fleet        f;
    c.max_endpoints = c.max_targets = n;
    fleet_open(&f, &c, 0, 0);
    apply(&f, n, 0);
    assert_int_equal(report.added, n);
    for (uint32_t turn = 1; turn <= 3; turn++) {
        for (uint32_t i = 0; i < open; i++) {
            f.now += MS;
            assert_int_equal(fleet_route(&f, 1000, turn * 100 + i, PDR_REQUEST_NO_HOLD, &d[i]), PDR_OK);
            assert_int_equal((number_of(&f, d[i].prefill) + turn - 1) % 2, 0);
            assert_int_equal((number_of(&f, d[i].decode) + turn - 1) % 2, 1);
            if (i % 3 == 1) assert_int_equal(pdr_booking_done(f.r, d[i].booking, PDR_DONE_PREFILL, f.now), PDR_OK);
        }
        pdr_action acts[PDR_MAX_ACTIONS];
        size_t     k = PDR_MAX_ACTIONS;
        pdr_init_struct(&x, sizeof x);
        assert_int_equal(pdr_exchange_begin(f.r, &x, &d[0], f.lease, f.now, acts, &k), PDR_OK);
        fleet_tell(&f, &x, PDR_EV_HEAD, PDR_LEG_PREFILL);

        apply(&f, n, turn);
        assert_true(report.updated == n && report.added == 0 && report.removed == 0 && report.unchanged == 0);
        expect_roles(&f, n, turn);
        assert_int_equal(fleet_stats(&f).bookings, open);
        apply(&f, n, turn); /* nothing more to change */
        assert_int_equal(report.unchanged, n);

        /* new requests go by the new roles at once, beside those that are under way by the old ones */
        f.now += MS;
        assert_int_equal(fleet_route(&f, 1000, turn * 100 + 99, PDR_REQUEST_NO_HOLD, &now), PDR_OK);
        assert_int_equal((number_of(&f, now.prefill) + turn) % 2, 0);
        assert_int_equal((number_of(&f, now.decode) + turn) % 2, 1);
        assert_int_equal(fleet_stats(&f).bookings, open + 1);

        fleet_tell(&f, &x, PDR_EV_END, PDR_LEG_PREFILL);
        fleet_tell(&f, &x, PDR_EV_HEAD, PDR_LEG_DECODE);
        fleet_tell(&f, &x, PDR_EV_BODY, PDR_LEG_DECODE);
        fleet_tell(&f, &x, PDR_EV_END, PDR_LEG_DECODE);
        assert_int_equal(fleet_stats(&f).bookings, open);
        for (uint32_t i = 1; i < open; i++) assert_int_equal(pdr_booking_done(f.r, d[i].booking, PDR_DONE_ALL, f.now), PDR_OK);
        assert_int_equal(pdr_booking_done(f.r, now.booking, PDR_DONE_ALL, f.now), PDR_OK);
        expect_idle(&f, n);
    }
    fleet_close(&f);
}

static void two_servers_change_places(void **state)
{
    (void)state;
    flip(2, 4);
}

static void sixteen_thousand_servers_change_places(void **state)
{
    (void)state;
    flip(16384, OPEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_servers_change_places), cmocka_unit_test(sixteen_thousand_servers_change_places)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
