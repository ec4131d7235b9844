/* Homes: gateways with books of their own agree where a prompt belongs, as far as it is worth it, and only while there are others. */
#include "fleet.h"

#include "block.h"
#include "home.h"

static void others_are_known_by_reports(void **state)
{
    (void)state;
    pdr_crowd c = {0};
    assert_int_equal(pdr_crowd_q10(&c), PDR_CROWD_ALONE);
    for (int i = 0; i < 500; i++) pdr_crowd_add(&c, 1, i % 6 == 0); /* a report now and then is of the moment between an end and our hearing of it */
    assert_int_equal(pdr_crowd_q10(&c), PDR_CROWD_ALONE);
    for (int i = 0; i < 2000; i++) pdr_crowd_add(&c, 1, 7);
    assert_in_range(pdr_crowd_q10(&c), 7 * 1024, 8 * 1024 + 64);
    for (int i = 0; i < 4000; i++) pdr_crowd_add(&c, 2, 0); /* they are gone */
    assert_int_equal(pdr_crowd_q10(&c), PDR_CROWD_ALONE);
    for (int i = 0; i < 2000; i++) pdr_crowd_add(&c, 0, UINT64_MAX);
    assert_int_equal(pdr_crowd_q10(&c), PDR_CROWD_MOST);
    for (int i = 0; i < 8000; i++) pdr_crowd_add(&c, UINT64_MAX, 0);
    assert_int_equal(pdr_crowd_q10(&c), PDR_CROWD_ALONE);
}

static void homes_are_worth_what_is_found_there(void **state)
{
    (void)state;
    pdr_homes h;
    pdr_homes_init(&h);
    assert_in_range(pdr_home_depth(&h, 0, 100), 1, 99);
    for (int i = 0; i < 3000; i++) { /* of half of all tokens that go home a fifth is found: all going there would find two fifths, and as much again for the next */
        pdr_homes_sent(&h, 4000, i & 1);
        pdr_homes_found(&h, 4000, 800);
    }
    assert_in_range(pdr_home_depth(&h, 0, 100), 78, 81);
    assert_in_range(pdr_home_depth(&h, 50, 100), 88, 91);
    assert_int_equal(pdr_home_depth(&h, 100, 100), 100);
    assert_int_equal(pdr_home_depth(&h, 200, 100), 200);
    assert_in_range(pdr_home_depth(&h, 9, 1u << 20), 50000, UINT16_MAX);
    for (int i = 0; i < 6000; i++) pdr_homes_found(&h, 4000, 0);
    assert_int_equal(pdr_home_depth(&h, 0, 100), 0); /* nothing is shared: there are no homes */
    pdr_homes none = {0};
    assert_int_equal(pdr_home_depth(&none, 3, 100), 3);
    for (int i = 0; i < 6000; i++) { /* numbers that no prompt has; all is found although only each tenth goes home: more than all is not expected */
        pdr_homes_sent(&h, UINT64_MAX, i % 10 == 0);
        pdr_homes_found(&h, UINT64_MAX, UINT64_MAX);
    }
    assert_int_equal(pdr_home_depth(&h, 0, 100), 100);
    assert_true(h.asked <= 256ull << 20 && h.found <= 256ull << 20);
}

/* Name of the home that this gateway finds for the chain `s`; "": none. */
static const char *home_of(const fleet *f, uint32_t s, uint32_t shared, const uint16_t *depth, uint32_t blocks)
{
    pdr_books b;
    uint64_t  hashes[64];
    (void)fleet_prompt(blocks * 128, s, shared, hashes, blocks);
    pdr_books_open(&b, f->r);
    uint32_t t = pdr_home_of(&b.registry, depth, hashes, blocks);
    return t == PDR_NONE ? "" : b.registry.endpoints[b.registry.targets[t].endpoint].e.name;
}

/* Two blocks are common to all prompts. */
static const char *home(const fleet *f, uint32_t s, const uint16_t *depth, uint32_t blocks) { return home_of(f, s, 2, depth, blocks); }

static void gateways_agree(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      a, b;
    uint16_t   nothing[64] = {0}, known[64] = {0};
    uint32_t   n[6] = {0}, moved = 0;
    fleet_open(&a, &c, 6, 2);
    fleet_open(&b, &c, 0, 3); /* the same servers, put in another order: other numbers */
    for (int i = 5; i >= 0; i--) {
        char name[32], host[32];
        snprintf(name, sizeof name, "p%d", i);
        snprintf(host, sizeof host, "10.0.0.%d", i + 1);
        b.prefill[i] = fleet_add(&b, name, host, 8000, PDR_ROLE_PREFILL);
    }
    known[0] = known[1] = 2; /* two servers hold the common beginning, which says nothing about where a prompt belongs */
    assert_string_equal(home(&a, 0, nothing, 10), home(&a, 1, nothing, 10));
    for (uint32_t s = 0; s < 600; s++) {
        const char *at = home(&a, s, known, 10);
        n[at[1] - '0']++;
        uint16_t there[64] = {0};
        there[b.prefill[0]] = there[b.prefill[3]] = 2;
        assert_string_equal(at, home(&b, s, there, 10));
        assert_string_equal(at, home(&a, s, known, 64)); /* a later turn */
        known[2] = 7; /* this gateway has sent an earlier turn somewhere */
        assert_string_equal(at, home(&a, s, known, 10));
        known[2] = 0;
    }
    for (int i = 0; i < 6; i++) assert_in_range(n[i], 60, 140);
    assert_string_equal(home(&a, 0, known, 2), ""); /* all of it is at several servers */
    char before[600][8];
    for (uint32_t s = 0; s < 600; s++) snprintf(before[s], sizeof before[s], "%s", home(&a, s, known, 10));
    assert_int_equal(pdr_endpoint_remove(a.r, a.prefill[5], NULL), PDR_OK);
    for (uint32_t s = 0; s < 600; s++) {
        if (!strcmp(before[s], "p5")) moved++;
        else assert_string_equal(before[s], home(&a, s, known, 10));
    }
    assert_int_equal(moved, n[5]);
    for (int i = 1; i < 5; i++) assert_int_equal(pdr_endpoint_remove(a.r, a.prefill[i], NULL), PDR_OK);
    assert_string_equal(home(&a, 0, nothing, 10), ""); /* one server: nothing to choose */
    fleet_close(&a);
    fleet_close(&b);
}

static void report(const fleet *f, int prefill, uint32_t running)
{
    pdr_load l;
    pdr_init_struct(&l, sizeof l);
    l.have = PDR_LOAD_RUNNING | PDR_LOAD_WAITING;
    l.running = running;
    assert_int_equal(pdr_load_put(f->r, f->prefill[prefill], 0, &l, f->now, NULL), PDR_OK);
}

static void end_prefill(const fleet *f, pdr_exchange *x, uint64_t cached)
{
    pdr_action a[8];
    pdr_event  ev;
    size_t     n = 8;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = PDR_EV_END;
    ev.leg = PDR_LEG_PREFILL;
    ev.status = 200;
    ev.now_ns = f->now;
    ev.usage = 1;
    ev.prompt_tokens = 8000;
    ev.cached_tokens = cached;
    ev.completion_tokens = 1;
    assert_int_equal(pdr_exchange_event(f->r, x, &ev, a, &n), PDR_OK);
}

/* Sends what is asked, and tells of its end with usage: so much of it was cached. */
static uint32_t served(fleet *f, uint32_t s, uint64_t cached)
{
    pdr_decision d;
    pdr_exchange x;
    pdr_action   a[8];
    size_t       n = 8;
    assert_int_equal(fleet_route(f, 8000, s, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    pdr_init_struct(&x, sizeof x);
    assert_int_equal(pdr_exchange_begin(f->r, &x, &d, f->lease, f->now, a, &n), PDR_OK);
    f->now += 500 * MS;
    fleet_tell(f, &x, PDR_EV_HEAD, PDR_LEG_PREFILL);
    end_prefill(f, &x, cached);
    pdr_booking_done(f->r, d.booking, PDR_DONE_ALL, f->now);
    return d.prefill;
}

/* Serves such prompts from `first` on; how many went home. */
static uint32_t at_home(fleet *f, uint32_t first, uint32_t asked, uint64_t cached)
{
    static const uint16_t nothing[64];
    uint32_t              n = 0;
    for (uint32_t s = first; s < first + asked; s++) n += served(f, s, cached) == f->prefill[home_of(f, s, 0, nothing, 62)[1] - '0'];
    return n;
}

/* Alone nobody is sent home; beside others all are, what the index knows stays what it is, and where nothing is found they stop. */
static void home_while_others_send_too(void **state)
{
    (void)state;
    enum { ASKED = 60 };
    pdr_config c = fleet_config();
    fleet      f;
    fleet_open(&f, &c, 6, 2);
    served(&f, 9999, 128); /* the engines say what was cached */
    assert_in_range(at_home(&f, 0, ASKED, 0), 0, ASKED / 2); /* by chance */
    for (int i = 0; i < 200; i++) report(&f, i % 6, 3);
    assert_in_range(at_home(&f, 100, ASKED, 4000), ASKED * 9 / 10, ASKED);
    assert_true(fleet_stats(&f).matched_tokens == 0); /* expected, not known */
    for (uint32_t s = 1000; s < 4000; s++) served(&f, s, 0);
    assert_in_range(at_home(&f, 200, ASKED, 0), 0, ASKED / 2);
    fleet_close(&f);
}

/* A held one too: of two servers that become free its home is taken, until others are seen no more. */
static void held_ones_go_home(void **state)
{
    (void)state;
    static const uint16_t nothing[64];
    pdr_config            c = fleet_config();
    c.hold_max_wait_ms = 600000;
    for (int others = 0; others < 2; others++) {
        fleet    f;
        uint32_t went = 0;
        fleet_open(&f, &c, 2, 2);
        served(&f, 9999, 128);
        for (int i = 0; i < 200; i++) report(&f, i % 2, 3);
        for (uint32_t s = 0; s < 40; s++) {
            pdr_decision d;
            uint64_t     matched = fleet_stats(&f).matched_tokens;
            uint32_t     mine = f.lease, busy = 0;
            assert_int_equal(pdr_lease_open(f.r, "busy", f.now, &f.lease, NULL), PDR_OK);
            for (uint32_t i = 0; busy != 3 && i < 32; i++) {
                assert_int_equal(fleet_route(&f, 30000, 5000 + 32 * s + i, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
                busy |= 1u << (d.prefill == f.prefill[1]);
            }
            uint32_t gone = f.lease;
            f.lease = mine;
            assert_int_equal(fleet_route(&f, 8000, s, 0, &d), PDR_OK);
            assert_int_equal(d.outcome, PDR_HELD);
            uint64_t ticket = d.booking;
            for (int i = 0; i < 4000 && !others; i++) report(&f, i % 2, 1);
            assert_int_equal(pdr_lease_break(f.r, gone, f.now), PDR_OK); /* both are free at once */
            pdr_init_struct(&d, sizeof d);
            assert_int_equal(pdr_ticket_take(f.r, ticket, NULL, 0, f.now, &d, NULL), PDR_OK);
            went += d.prefill == f.prefill[home_of(&f, s, 0, nothing, 62)[1] - '0'];
            assert_true(fleet_stats(&f).matched_tokens == matched);
            pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
        }
        if (others) assert_int_equal(went, 40);
        else assert_in_range(went, 8, 30);
        fleet_close(&f);
    }
}

/* Others' prompts wait at the one prefill, as two reports say; ours is behind them, and is through after `took` of what is expected of it (times 16), or at once. What it waits for. */
static uint64_t behind_others(fleet *f, uint32_t s, uint32_t waiting, uint64_t took_q4, int at_once)
{
    pdr_load     l;
    pdr_decision d;
    pdr_exchange x;
    pdr_action   a[8];
    size_t       n = 8;
    pdr_init_struct(&l, sizeof l);
    l.have = PDR_LOAD_RUNNING | PDR_LOAD_WAITING | PDR_LOAD_WAITING_TOKENS;
    l.running = waiting > 0;
    l.waiting = waiting;
    l.waiting_tokens = 8000 * waiting;
    for (int i = 0; i < 2; i++) assert_int_equal(pdr_load_put(f->r, f->prefill[0], 0, &l, f->now, NULL), PDR_OK);
    pdr_lease_renew(f->r, f->lease, f->now);
    assert_int_equal(fleet_route(f, 8000, s, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    pdr_init_struct(&x, sizeof x);
    assert_int_equal(pdr_exchange_begin(f->r, &x, &d, f->lease, f->now, a, &n), PDR_OK);
    f->now += at_once ? MS : (d.wait_us + d.prefill_us * took_q4 / 16 + d.transfer_us) * 1000;
    fleet_tell(f, &x, PDR_EV_HEAD, PDR_LEG_PREFILL);
    end_prefill(f, &x, 0);
    pdr_booking_done(f->r, d.booking, PDR_DONE_ALL, f->now);
    return d.wait_us;
}

/* What the fit would be, had a prompt of 8,000 tokens taken so much of what it expects (times 16). */
static pdr_fit fit_after(const fleet *f, uint64_t took_q4)
{
    const pdr_config *c = &f->r->config;
    pdr_fit           fit = f->r->learnt.fit;
    uint64_t          term[PDR_FIT_TERMS] = {c->prefill_base_us, 8000ull * c->prefill_ns_per_token / 1000, 8000ull * 4000 / 1000 * c->prefill_fs_per_token2 / 1000000, 0};
    uint64_t          expected = pdr_fit_us(&fit, term);
    pdr_fit_add(&fit, term, took_q4 < 16 ? expected - expected / 16 : expected + (took_q4 - 16) * (expected / 16));
    return fit;
}

/* Who stands behind others' prompts does not find the server slow: the reported wait is not his. What no report told of moves it by a sixteenth at most. */
static void prices_are_learnt_beside_others(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    pdr_fit    want;
    fleet_open(&f, &c, 1, 1);
    uint64_t alone = pdr_prefill_us(&f.r->rates, 8000, 0);
    for (uint32_t s = 0; s < 60; s++) {
        assert_in_range(behind_others(&f, s, 1 + s % 3, 16, 0), alone / 4, 8 * alone);
        assert_int_equal(f.r->learnt.fit.samples, s + 1);
    }
    pdr_books b;
    pdr_books_open(&b, f.r);
    assert_true(b.registry.head->crowd_q10 > PDR_CROWD_ALONE);
    assert_in_range(pdr_prefill_us(&f.r->rates, 8000, 0), alone - alone / 50, alone + alone / 50);
    assert_in_range(fleet_target(&f, f.prefill[0]).speed_permille, 980, 1020);

    want = fit_after(&f, 17); /* four times: behind some that no report has told of; then half as long again */
    behind_others(&f, 100, 2, 64, 0);
    assert_memory_equal(&want, &f.r->learnt.fit, sizeof want);
    want = fit_after(&f, 17);
    behind_others(&f, 101, 2, 24, 0);
    assert_memory_equal(&want, &f.r->learnt.fit, sizeof want);
    want = fit_after(&f, 15); /* a quarter: some of those reported were gone */
    behind_others(&f, 102, 2, 4, 0);
    assert_memory_equal(&want, &f.r->learnt.fit, sizeof want);
    want = f.r->learnt.fit; /* before the wait was over: says nothing */
    behind_others(&f, 103, 2, 0, 1);
    assert_memory_equal(&want, &f.r->learnt.fit, sizeof want);
    fleet_close(&f);
}

/* Six are held for one server; how many of them go into the step that opens when it becomes free, where it has `there` requests for one of ours. */
static uint32_t into_one_step(uint32_t there)
{
    pdr_config   c = fleet_config();
    fleet        f;
    pdr_decision d;
    c.hold_max_wait_ms = 600000;
    fleet_open(&f, &c, 1, 1);
    uint32_t mine = f.lease, went = 0;
    assert_int_equal(pdr_lease_open(f.r, "busy", f.now, &f.lease, NULL), PDR_OK);
    assert_int_equal(fleet_route(&f, 8000, 99, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_SEND);
    uint32_t gone = f.lease;
    f.lease = mine;
    for (int i = 0; i < 2000; i++) report(&f, 0, there);
    for (uint32_t s = 0; s < 6; s++) {
        assert_int_equal(fleet_route(&f, 400, s, 0, &d), PDR_OK);
        assert_int_equal(d.outcome, PDR_HELD);
    }
    assert_int_equal(pdr_lease_break(f.r, gone, f.now), PDR_OK);
    went = (uint32_t)fleet_stats(&f).released;
    fleet_close(&f);
    return went;
}

/* Who shares a step with others delays them as well, and they pay for most of it. One other has the step before, so that is as alone. */
static void steps_are_shared_with_others(void **state)
{
    (void)state;
    assert_int_equal(into_one_step(1), 6);
    assert_int_equal(into_one_step(2), 6);
    assert_in_range(into_one_step(8), 2, 4);
    assert_in_range(into_one_step(60), 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(others_are_known_by_reports), cmocka_unit_test(homes_are_worth_what_is_found_there), cmocka_unit_test(gateways_agree),
                                       cmocka_unit_test(home_while_others_send_too), cmocka_unit_test(held_ones_go_home), cmocka_unit_test(prices_are_learnt_beside_others),
                                       cmocka_unit_test(steps_are_shared_with_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
