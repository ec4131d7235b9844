/* lib/exchange.c: one test per case of docs/exchange.md, and all event orders of a small model. */
#include "engine.h"
#include "exchange_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { P = PDR_LEG_PREFILL, D = PDR_LEG_DECODE };
enum { LEASE = 5, T0 = 1000000000, FIRST_BYTE = 100000, TOTAL = 10000000, DRAIN = 7000 };
enum { ANSWER_US = 200, IDLE_US = 50 }; /* of decisions */
static int bounded; /* decisions have bounds of their own */

static pdr_exchange_rules rules_with(uint32_t retry_max)
{
    return (pdr_exchange_rules){.retry_max = retry_max, .first_byte_timeout_ns = FIRST_BYTE, .total_timeout_ns = TOTAL,
                                .drain_timeout_ns = DRAIN};
}

static pdr_decision decision(uint64_t booking, uint32_t prefill, uint32_t decode)
{
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    d.outcome = PDR_SEND;
    d.booking = booking;
    d.prefill = prefill;
    d.decode = decode;
    d.prompt_tokens = 1000;
    d.matched_tokens = 400;
    d.wait_us = 5, d.prefill_us = 20, d.transfer_us = 3;
    if (bounded) d.answer_us = ANSWER_US, d.idle_us = IDLE_US;
    return d;
}

static pdr_event event(uint32_t type, uint32_t leg, uint32_t value, uint32_t attempt, uint64_t now)
{
    pdr_event ev;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.status = type == PDR_EV_HEAD ? value : 0;
    ev.detail = type == PDR_EV_FAILED ? value : 0;
    ev.attempt = attempt;
    ev.now_ns = now;
    return ev;
}

/*
 * ----------------------------------------------------------------------------------------------------------------
 * tables
 */

/* One exchange under test, and what its last call gave. */
static struct {
    pdr_exchange         x;
    pdr_exchange_rules   rules;
    pdr_action           act[PDR_MAX_ACTIONS];
    size_t               n;
    pdr_exchange_effects fx;
    uint64_t             now;
    uint64_t             retry_after_ms;
} t;

/* Actions as text: "cancel1 route", so that a test reads as a table. */
static const char *actions(void)
{
    static const char *const names[] = {"?", "send", "cancel", "drain", "relay", "respond", "route", "abort", "finish"};
    static char              text[256];
    size_t                   at = 0;
    text[0] = 0;
    for (size_t i = 0; i < t.n; i++) {
        const pdr_action *a = &t.act[i];
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s", i ? " " : "", names[a->type]);
        if (a->type == PDR_ACT_RESPOND || a->type == PDR_ACT_ABORT)
            at += (size_t)snprintf(text + at, sizeof text - at, ":%s", pdr_reason_name(a->reason));
        if (a->type == PDR_ACT_RESPOND || a->type == PDR_ACT_RELAY)
            at += (size_t)snprintf(text + at, sizeof text - at, ":%u", a->status);
        /* what means nothing is 0 */
        if (a->type != PDR_ACT_RESPOND && a->type != PDR_ACT_ABORT) assert_int_equal(a->reason, 0);
        if (a->type != PDR_ACT_RESPOND && a->type != PDR_ACT_ABORT && a->type != PDR_ACT_RELAY) assert_int_equal(a->status, 0);
        if (a->type > PDR_ACT_RELAY) assert_int_equal(a->leg, 0);
        if (a->type <= PDR_ACT_RELAY)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s", a->leg == P ? "P" : "D");
    }
    return text;
}

static void start_with(uint32_t retry_max, uint32_t mode)
{
    pdr_decision d = decision(100, 1, 11);
    memset(&t, 0, sizeof t);
    d.mode = mode;
    if (mode == PDR_MODE_SINGLE) d.prefill = PDR_NONE;
    t.rules = rules_with(retry_max);
    t.now = T0;
    t.n = PDR_MAX_ACTIONS;
    pdr_init_struct(&t.x, sizeof t.x);
    assert_int_equal(pdr_exchange_start(&t.x, &d, LEASE, &t.rules, t.now, t.act, &t.n, &t.fx), PDR_OK);
    assert_string_equal(actions(), mode == PDR_MODE_SINGLE ? "sendD" : "sendP sendD");
    assert_int_equal(t.x.mode, mode == PDR_MODE_SINGLE ? PDR_MODE_SINGLE : PDR_MODE_PD);
    assert_int_equal(t.fx.leg[P].endpoint, mode == PDR_MODE_SINGLE ? PDR_NONE : 1);
    assert_int_equal(t.fx.leg[D].endpoint, 11);
    assert_int_equal(t.x.predicted_us, 5 + 20 + 3);
    assert_true(t.x.prompt_tokens == 1000 && t.x.matched_tokens == 400);
}

static void start(uint32_t retry_max) { start_with(retry_max, PDR_MODE_PD); }

static const char *feed(pdr_event ev)
{
    t.n = PDR_MAX_ACTIONS;
    ev.retry_after_ms = t.retry_after_ms;
    assert_int_equal(pdr_exchange_step(&t.x, &ev, &t.rules, t.act, &t.n, &t.fx), PDR_OK);
    return actions();
}
static const char *head(uint32_t leg, uint32_t status)
{
    return feed(event(PDR_EV_HEAD, leg, status, t.x.attempt, t.now));
}
static const char *body(uint32_t leg) { return feed(event(PDR_EV_BODY, leg, 0, t.x.attempt, t.now)); }
static const char *end(uint32_t leg) { return feed(event(PDR_EV_END, leg, 0, t.x.attempt, t.now)); }
static const char *failed(uint32_t leg, uint32_t detail)
{
    return feed(event(PDR_EV_FAILED, leg, detail, t.x.attempt, t.now));
}
static const char *sent(void) { return feed(event(PDR_EV_SENT, 0, 0, t.x.attempt, t.now)); }
static const char *gone(void) { return feed(event(PDR_EV_CLIENT_GONE, 0, 0, t.x.attempt, t.now)); }
static const char *tick(uint64_t after)
{
    t.now += after;
    return feed(event(PDR_EV_TICK, 0, 0, t.x.attempt, t.now));
}
static const char *reroute(uint64_t booking, uint32_t prefill, uint32_t decode)
{
    pdr_decision d = decision(booking, prefill, decode);
    t.n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_reroute(&t.x, &d, PDR_OK, &t.rules, t.now, t.act, &t.n, &t.fx), PDR_OK);
    for (uint32_t leg = P; leg <= D; leg++)
        if (t.n && t.x.leg_state[leg]) assert_int_equal(t.fx.leg[leg].endpoint, leg == P ? prefill : decode);
    assert_int_equal(t.x.lease, LEASE); /* what lies behind the list of those excluded */
    assert_int_equal(t.x.started_ns, T0);
    if (t.n) assert_true(!t.x.leg_status[P] && !t.x.leg_status[D]);
    return actions();
}
static const char *no_route(int code, uint64_t retry_after_ms)
{
    pdr_decision d = decision(0, 0, 0);
    d.retry_after_ms = retry_after_ms;
    t.n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_reroute(&t.x, &d, code, &t.rules, t.now, t.act, &t.n, &t.fx), PDR_OK);
    return actions();
}

/* "GOOD", … of both legs in the last call: "-F" is nothing for prefill, failed for decode. */
static const char *verdicts(void)
{
    static char text[3];
    text[0] = "-GBSF"[t.fx.leg[P].verdict];
    text[1] = "-GBSF"[t.fx.leg[D].verdict];
    return text;
}
static const char *excluded(void)
{
    static char text[128];
    size_t      at = 0;
    text[0] = 0;
    for (uint32_t i = 0; i < t.x.excluded; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u", i ? " " : "", t.x.exclude[i]);
    return text;
}
#define SAYS(call, expected) assert_string_equal(call, expected)

static void stream_is_relayed_from_its_first_byte(void **state)
{
    (void)state;
    start(2);
    SAYS(head(D, 200), "");
    t.now += 5000000;
    SAYS(head(P, 200), "drainP");
    assert_int_equal(t.fx.prefill_done, 0);
    SAYS(body(D), "relay:200D");
    assert_int_equal(t.fx.prefill_done, 1);
    assert_int_equal(t.fx.prefill_us, 5000);
    assert_int_equal(t.fx.first_token_us, 5000);
    assert_int_equal(t.fx.leg[D].answered, 1);
    SAYS(sent(), "");
    SAYS(body(P), "");
    SAYS(end(P), "");
    SAYS(verdicts(), "G-");
    pdr_event ev = event(PDR_EV_END, D, 0, 0, t.now);
    ev.usage = 1, ev.prompt_tokens = 1000, ev.cached_tokens = 300, ev.completion_tokens = 50;
    SAYS(feed(ev), "finish");
    SAYS(verdicts(), "-G");
    assert_int_equal(t.fx.leg[D].failure, 0);
    assert_int_equal(t.fx.leg[D].usage, 1);
    assert_int_equal(t.fx.leg[D].completion_tokens, 50);
    assert_int_equal(t.fx.release, 1);
    assert_int_equal(t.fx.booking, 100);
    assert_int_equal(t.fx.result, PDR_RESULT_ANSWERED);
    assert_true(pdr_exchange_deadline(&t.x) == UINT64_MAX);
    SAYS(end(D), "");
    assert_int_equal(t.fx.release, 0);
}

static void decode_ends_first_and_prefill_is_drained(void **state)
{
    (void)state;
    start(2);
    SAYS(head(D, 200), "");
    SAYS(body(D), "relay:200D");
    assert_true(t.fx.prefill_us == 0 && t.fx.first_token_us == 0); /* no time has passed */
    SAYS(end(D), "drainP"); /* the client is served now */
    assert_int_equal(t.fx.release, 0);
    assert_int_equal(t.fx.result, PDR_RESULT_NONE);
    assert_true(pdr_exchange_deadline(&t.x) == t.now + DRAIN);
    SAYS(gone(), ""); /* the client closes its connection: no reason to break the drain */
    SAYS(head(P, 200), "");
    SAYS(end(P), "finish");
    assert_int_equal(t.fx.release, 1);

    start(2);
    head(D, 200), body(D), end(D);
    SAYS(tick(DRAIN - 1), "");
    SAYS(tick(1), "cancelP finish");
    SAYS(verdicts(), "S-");
    assert_int_equal(t.fx.result, PDR_RESULT_ANSWERED);

    for (int most = 0; most < 3; most++) { /* nobody says how long: as long as a first byte may take, 30 s at most */
        start(2);
        t.rules.drain_timeout_ns = 0;
        t.rules.first_byte_timeout_ns = most == 0 ? FIRST_BYTE : most == 1 ? 0 : UINT64_C(40000000000);
        head(D, 200), body(D), end(D);
        assert_true(pdr_exchange_deadline(&t.x) == t.now + (most == 0 ? FIRST_BYTE : UINT64_C(30000000000)));
    }

    start(2); /* the answer's time counts from the computed prompt */
    t.now += 1000000;
    head(P, 200), body(P), end(P);
    t.now += 2000000;
    head(D, 200), body(D), end(D);
    assert_int_equal(t.fx.answer_us, 2000);

    start(2);
    head(D, 200), body(D), end(D);
    SAYS(head(P, 500), "cancelP finish");
    SAYS(verdicts(), "F-");

    start(2); /* an empty answer */
    head(P, 200), end(P);
    SAYS(head(D, 204), "");
    SAYS(end(D), "relay:204D finish");
}

static void refused_prefill_is_avoided_at_once(void **state)
{
    (void)state;
    start(2);
    SAYS(failed(P, PDR_FAIL_CONNECT), "cancelD route");
    SAYS(verdicts(), "F-");
    SAYS(excluded(), "1");
    assert_int_equal(t.fx.release, 1);
    assert_int_equal(t.fx.retry, 1);
    SAYS(reroute(101, 2, 11), "sendP sendD");
    assert_int_equal(t.x.attempt, 1);
    assert_int_equal(t.fx.booking, 101);
    SAYS(feed(event(PDR_EV_HEAD, D, 500, 0, t.now)), ""); /* late event of the first attempt */
    SAYS(failed(P, PDR_FAIL_RESET), "cancelD route");
    SAYS(excluded(), "1 2");
    SAYS(reroute(102, 3, 12), "sendP sendD");
    SAYS(failed(P, PDR_FAIL_CONNECT), "cancelD respond:prefill_failed:502 finish"); /* budget of 2 is used up */
    assert_int_equal(t.fx.result, PDR_RESULT_FAILED);

    start(UINT32_MAX);
    SAYS(failed(P, PDR_FAIL_CONNECT), "cancelD respond:prefill_failed:502 finish");
}

static void hanging_prefill_ends_at_the_deadline(void **state)
{
    (void)state;
    start(1);
    SAYS(head(P, 200), "drainP"); /* heads of streams say nothing */
    SAYS(head(D, 200), "");
    assert_true(pdr_exchange_deadline(&t.x) == T0 + FIRST_BYTE);
    SAYS(tick(FIRST_BYTE - 1), "");
    SAYS(tick(1), "cancelP cancelD route");
    SAYS(verdicts(), "SS");
    assert_int_equal(t.fx.overran, 1u << P);
    SAYS(excluded(), "1 11");
    SAYS(reroute(101, 2, 12), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD respond:prefill_timeout:504 finish");
}

static void suspects_are_relaxed_when_nobody_else_is_there(void **state)
{
    (void)state;
    start(2); /* two prefills, one decode: a dead bootstrap server must not take the only decode away */
    SAYS(head(D, 500), "cancelP cancelD route");
    SAYS(verdicts(), "SS");
    SAYS(excluded(), "1 11");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "1");
    assert_int_equal(t.fx.retry, 0);
    SAYS(reroute(101, 2, 11), "sendP sendD");
    SAYS(head(P, 200), "drainP");
    SAYS(body(P), "");
    SAYS(head(D, 500), "cancelP cancelD route"); /* now it is clear */
    SAYS(verdicts(), "-F");
    SAYS(excluded(), "1 11");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:decode_failed:502 finish");

    start(2); /* one prefill, two decodes */
    SAYS(head(D, 500), "cancelP cancelD route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "11");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:decode_failed:502 finish");
}

/* Two hosts with a prefill and a decode server each, one of which is frozen: whoever was asked first, it was together with a healthy one. */
static void pairs_are_crossed_when_nobody_else_is_there(void **state)
{
    (void)state;
    start(2);
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(reroute(101, 2, 12), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(excluded(), "1 11 2 12");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "1 11 12");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "1 12"); /* 2 with 11 */
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "2 11"); /* 1 with 12 */
    SAYS(reroute(102, 1, 12), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD respond:prefill_timeout:504 finish");

    start(2); /* nobody knows of a pair */
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(reroute(101, 2, 12), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    for (int i = 0; i < 4; i++) SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:prefill_timeout:504 finish");

    start(4); /* who refused before is avoided all the while */
    SAYS(failed(P, PDR_FAIL_CONNECT), "cancelD route");
    SAYS(reroute(101, 4, 14), "sendP sendD");
    SAYS(failed(P, PDR_FAIL_CONNECT), "cancelD route");
    SAYS(reroute(101, 3, 13), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(reroute(102, 2, 12), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(excluded(), "1 4 3 13 2 12");
    for (int i = 0; i < 3; i++) SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "1 4 3 12");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "1 4 2 13");

    start(2); /* with a server in common nothing is left to cross: a decode */
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(reroute(101, 2, 11), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:prefill_timeout:504 finish");

    start(2); /* or a prefill, of a host that takes one which it was to avoid */
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(reroute(101, 1, 12), "sendP sendD");
    SAYS(tick(FIRST_BYTE), "cancelP cancelD route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:prefill_timeout:504 finish");
}

static void prefill_500_is_told_at_once(void **state)
{
    (void)state;
    start(1); /* decode hangs */
    SAYS(head(P, 100), ""); /* an answer that is none yet */
    SAYS(head(P, 199), "");
    SAYS(head(P, 500), "cancelP cancelD route");
    SAYS(verdicts(), "SS"); /* it may have lost its decode */
    assert_int_equal(t.fx.leg[P].failure, 0); /* it answered, and that is HTTP */
    assert_int_equal(t.fx.leg[P].status, 500);
    SAYS(excluded(), "1 11");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "1");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "route");
    SAYS(excluded(), "11");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:prefill_failed:502 finish");
    assert_int_equal(t.act[0].retry_after_ms, 0);

    start(1); /* decode has answered, but nothing was sent yet: the answer is not trusted */
    head(D, 200);
    SAYS(head(P, 500), "cancelP cancelD route");
    start(1);
    head(D, 200), body(D);
    SAYS(head(P, 500), "cancelP cancelD route");
    start(1);
    head(D, 200), body(D), sent();
    SAYS(head(P, 500), "cancelP cancelD abort:prefill_failed finish");
    SAYS(verdicts(), "F-");
    start(1); /* connected to nothing: decode cannot have a cache from there */
    head(D, 200), body(D);
    SAYS(failed(P, PDR_FAIL_CONNECT), "cancelD route");
    start(1); /* its connection breaks after decode has the cache: harmless */
    head(D, 200), body(D), sent();
    SAYS(failed(P, PDR_FAIL_RESET), "");
    SAYS(verdicts(), "F-");
    SAYS(end(D), "finish");
    start(1); /* an error inside a 200 stream */
    head(P, 200), head(D, 200);
    SAYS(failed(P, PDR_FAIL_PROTOCOL), "cancelD route");
    SAYS(verdicts(), "SS");
}

static void decode_dies(void **state)
{
    (void)state;
    start(2); /* after 20 events */
    head(D, 200), body(D), sent(), head(P, 200), end(P);
    SAYS(failed(D, PDR_FAIL_RESET), "abort:decode_failed finish");
    SAYS(verdicts(), "-F");

    start(2); /* resets instead of answering */
    SAYS(failed(D, PDR_FAIL_RESET), "cancelP route");
    SAYS(verdicts(), "-F");
    SAYS(excluded(), "11");
    SAYS(reroute(101, 1, 12), "sendP sendD");
    SAYS(end(D), "cancelP route"); /* closed without an answer */
    SAYS(no_route(PDR_E_BUSY, 0), "respond:decode_failed:502 finish");

    start(2); /* relayed, but not one byte went out */
    head(D, 200), body(D);
    SAYS(failed(D, PDR_FAIL_RESET), "cancelP route");
    SAYS(verdicts(), "-F");

    start(0);
    SAYS(failed(D, PDR_FAIL_TIMEOUT), "cancelP respond:decode_timeout:504 finish");
    SAYS(verdicts(), "SS");
}

static void client_leaves(void **state)
{
    (void)state;
    start(2);
    SAYS(gone(), "cancelP cancelD finish");
    SAYS(verdicts(), "--");
    assert_int_equal(t.fx.release, 1);
    assert_int_equal(t.fx.result, PDR_RESULT_GONE);
    start(2);
    head(P, 200), end(P), head(D, 200), body(D), sent();
    SAYS(gone(), "cancelD finish");

    start(2); /* while a new pair is looked for, perhaps held */
    failed(P, PDR_FAIL_CONNECT);
    assert_int_equal(t.fx.release, 1);
    SAYS(gone(), "finish");
    assert_int_equal(t.fx.release, 0);
    SAYS(reroute(101, 2, 11), ""); /* the decision came too late: its booking goes back, once */
    assert_int_equal(t.fx.release, 1);
    assert_int_equal(t.fx.booking, 101);
    SAYS(reroute(101, 2, 11), "");
    assert_int_equal(t.fx.release, 0);
}

static void request_errors_pass(void **state)
{
    (void)state;
    start(2);
    SAYS(head(P, 422), "cancelD relay:422P");
    SAYS(verdicts(), "G-");
    assert_int_equal(t.fx.leg[P].failure, 0);
    SAYS(body(P), "");
    SAYS(end(P), "finish");
    assert_int_equal(t.fx.result, PDR_RESULT_ANSWERED);
    assert_int_equal(t.fx.prefill_done, 0);

    start(2);
    t.retry_after_ms = 7000;
    SAYS(head(D, 429), "cancelP relay:429D");
    assert_int_equal(t.act[1].retry_after_ms, 7000);
    SAYS(verdicts(), "-B");
    assert_int_equal(t.fx.leg[D].retry_after_ms, 7000);
    SAYS(excluded(), "");
    SAYS(end(D), "finish");

    start(2); /* prefill refuses what decode has begun to answer */
    head(D, 200), body(D);
    SAYS(head(P, 400), "cancelD relay:400P");
    start(2);
    head(D, 200), body(D), sent();
    SAYS(head(P, 413), "cancelP cancelD abort:too_large finish");
    start(2); /* the error's own connection breaks */
    head(P, 400);
    SAYS(failed(P, PDR_FAIL_RESET), "route");
}

static void unavailable_with_retry_after_is_no_fault(void **state)
{
    (void)state;
    start(1);
    t.retry_after_ms = 2000;
    SAYS(head(P, 503), "cancelP cancelD route");
    SAYS(verdicts(), "B-");
    assert_int_equal(t.fx.leg[P].failure, 0);
    assert_int_equal(t.fx.leg[P].retry_after_ms, 2000);
    SAYS(excluded(), "1");
    SAYS(no_route(PDR_E_NO_PAIR, 0), "respond:prefill_failed:503 finish");
    assert_int_equal(t.act[0].retry_after_ms, 2000);

    start(1); /* the next attempt's answer does not say what the first one's did */
    t.retry_after_ms = 2000;
    SAYS(head(P, 503), "cancelP cancelD route");
    SAYS(reroute(101, 2, 11), "sendP sendD");
    t.retry_after_ms = 0;
    head(D, 200);
    SAYS(body(D), "relay:200D");
    assert_int_equal(t.act[0].retry_after_ms, 0);

    start(1);
    SAYS(head(P, 503), "cancelP cancelD route");
    SAYS(verdicts(), "SS");
    SAYS(no_route(PDR_E_QUEUE_FULL, 900), "respond:queue_full:429 finish");
    assert_int_equal(t.act[0].retry_after_ms, 900);
    start(1);
    head(P, 500);
    SAYS(no_route(PDR_E_EXPIRED, 0), "respond:held_timeout:503 finish");
    start(1);
    head(D, 302);
    SAYS(no_route(PDR_E_BUSY, 0), "respond:decode_failed:502 finish");
}

static void stale_connection_is_a_free_retry(void **state)
{
    (void)state;
    start(0);
    for (int i = 0; i < PDR_EXCHANGE_STALE_MAX; i++) {
        SAYS(failed(i & 1 ? P : D, PDR_FAIL_STALE), i & 1 ? "cancelD route" : "cancelP route");
        SAYS(verdicts(), "--");
        SAYS(excluded(), "");
        assert_int_equal(t.fx.release, 1);
        SAYS(reroute(101 + (uint64_t)i, 1, 11), "sendP sendD");
    }
    SAYS(failed(D, PDR_FAIL_STALE), "cancelP respond:decode_failed:502 finish");
    SAYS(verdicts(), "-F");
    start(1);
    head(D, 200);
    SAYS(failed(D, PDR_FAIL_STALE), "cancelP route"); /* it had answered: not stale */
    SAYS(verdicts(), "-F");
}

/* What the decision says of silence. */
static void start_bounded(uint32_t retry_max)
{
    pdr_decision d = decision(100, 1, 11);
    memset(&t, 0, sizeof t);
    d.first_byte_us = 60;
    d.answer_us = ANSWER_US;
    d.idle_us = IDLE_US;
    t.rules = rules_with(retry_max);
    t.now = T0;
    t.n = PDR_MAX_ACTIONS;
    pdr_init_struct(&t.x, sizeof t.x);
    assert_int_equal(pdr_exchange_start(&t.x, &d, 1, &t.rules, t.now, t.act, &t.n, &t.fx), PDR_OK);
}

static const char *tick_with(uint64_t after, uint64_t last_byte_ns)
{
    t.now += after;
    pdr_event ev = event(PDR_EV_TICK, 0, 0, t.x.attempt, t.now);
    ev.last_byte_ns = last_byte_ns;
    return feed(ev);
}

static void silence_is_borne_as_long_as_the_decision_says(void **state)
{
    (void)state;
    start_bounded(0); /* before the first byte: shorter than the rules' limit */
    assert_int_equal(pdr_exchange_deadline(&t.x), T0 + 60000);
    assert_string_equal(tick(59999), "");
    assert_string_equal(tick(1), "cancelP cancelD respond:prefill_timeout:504 finish");
    assert_int_equal(t.fx.overran, 1u << P);
    assert_int_equal(t.fx.leg[P].verdict, PDR_VERDICT_SUSPECT);

    start_bounded(1); /* decode silent behind a computed prompt: it alone is to blame, and there is still a retry */
    head(P, 200);
    assert_string_equal(body(P), "");
    assert_int_equal(pdr_exchange_deadline(&t.x), T0 + ANSWER_US * 1000);
    assert_string_equal(end(P), "");
    assert_string_equal(tick(ANSWER_US * 1000), "cancelD route");
    assert_int_equal(t.fx.leg[D].verdict, PDR_VERDICT_FAILED);
    assert_int_equal(t.fx.overran, 1u << D);
    assert_true(model_excluded(&t.x, 11) && !model_excluded(&t.x, 1));
}

static void a_stalled_answer_ends(void **state)
{
    (void)state;
    for (int old = 0; old < 2; old++) { /* an older caller's decision has no bounds, whatever lies behind it */
        pdr_decision d = decision(100, 1, 11);
        d.first_byte_us = d.answer_us = d.idle_us = 1;
        if (old) d.struct_size = offsetof(pdr_decision, idle_us);
        memset(&t, 0, sizeof t);
        t.rules = rules_with(0);
        t.now = T0;
        t.n = PDR_MAX_ACTIONS;
        pdr_init_struct(&t.x, sizeof t.x);
        assert_int_equal(pdr_exchange_start(&t.x, &d, LEASE, &t.rules, t.now, t.act, &t.n, &t.fx), PDR_OK);
        assert_true(pdr_exchange_deadline(&t.x) == T0 + (old ? FIRST_BYTE : 1000));
        head(P, 200), end(P);
        assert_true(pdr_exchange_deadline(&t.x) == T0 + (old ? TOTAL : 1000));
        head(D, 200), body(D);
        assert_true(pdr_exchange_deadline(&t.x) == T0 + (old ? TOTAL : 1000));
    }

    start_bounded(1);
    head(P, 200);
    head(D, 200);
    body(D);
    sent();
    uint64_t last = t.now + 20000;
    assert_string_equal(tick_with(IDLE_US * 1000, last), "");
    assert_int_equal(pdr_exchange_deadline(&t.x), last + IDLE_US * 1000);
    assert_string_equal(tick_with(20000, last), "cancelP cancelD abort:decode_timeout finish");
    assert_int_equal(t.fx.leg[D].verdict, PDR_VERDICT_FAILED);
    assert_int_equal(t.fx.overran, 1u << D);

    start_bounded(1); /* a refusal has one bound for all of its body: one that drips is no answer, and not retried, but the client has its status */
    t.retry_after_ms = 7000;
    assert_string_equal(head(P, 429), "cancelD relay:429P");
    assert_int_equal(pdr_exchange_deadline(&t.x), t.now + IDLE_US * 1000);
    assert_string_equal(tick_with(IDLE_US * 1000, t.now + IDLE_US * 1000), ""); /* what has come waits for the client */
    assert_string_equal(tick_with(IDLE_US * 1000, t.now + IDLE_US * 1000 - 1), "cancelP respond:prefill_timeout:429 finish");
    assert_int_equal(t.act[1].retry_after_ms, 7000);
    assert_int_equal(t.fx.leg[P].verdict, PDR_VERDICT_NONE); /* it has one */
    start_bounded(1);
    assert_string_equal(head(D, 400), "cancelP relay:400D");
    sent();
    assert_string_equal(tick_with(IDLE_US * 1000, 0), "cancelD abort:decode_timeout finish"); /* of which the host knows nothing, too */

    start_bounded(1); /* a host that does not know is asked once, and no more */
    head(P, 200);
    head(D, 200);
    body(D);
    sent();
    assert_string_equal(tick(IDLE_US * 1000), "");
    assert_int_equal(pdr_exchange_deadline(&t.x), T0 + TOTAL);

    start_bounded(1); /* nothing has gone out yet: another pair */
    head(P, 200);
    head(D, 200);
    body(D);
    assert_string_equal(tick_with(IDLE_US * 1000, t.now), "cancelP cancelD route");
}

static void an_error_event_that_passes_needs_no_drain(void **state)
{
    (void)state;
    start(1);
    head(D, 200);
    assert_string_equal(body(D), "relay:200D");
    pdr_event ev = event(PDR_EV_END, D, 0, t.x.attempt, t.now);
    ev.detail = PDR_FAIL_PROTOCOL;
    assert_string_equal(feed(ev), "cancelP finish");
    assert_int_equal(t.fx.result, PDR_RESULT_ANSWERED);
    assert_int_equal(t.fx.leg[P].verdict, PDR_VERDICT_NONE);
}

static const char *merged_head(uint32_t leg)
{
    pdr_event ev = event(PDR_EV_HEAD, leg, 200, t.x.attempt, t.now);
    ev.detail = PDR_HEAD_MERGED;
    return feed(ev);
}

/* Decode's answer is begun, or all there, and prefill's is not: nothing has reached the client, so a prefill that breaks is a failed attempt, whichever way decode's answer came. */
static void a_merged_answer_needs_prefill_to_its_end(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        for (uint32_t detail = PDR_FAIL_RESET; detail <= PDR_FAIL_PROTOCOL; detail++) {
            start(1);
            assert_string_equal(merged_head(P), "drainP");
            assert_string_equal(merged_head(D), "");
            assert_string_equal(body(P), "");
            assert_string_equal(body(D), "relay:200D");
            if (whole) assert_string_equal(end(D), "");
            assert_string_equal(failed(P, detail), whole ? "route" : "cancelD route");
            assert_true(t.fx.release && t.fx.leg[P].verdict == PDR_VERDICT_FAILED && model_excluded(&t.x, 1));
            assert_true(t.fx.leg[D].verdict == PDR_VERDICT_NONE);
            assert_string_equal(reroute(101, 2, 11), "sendP sendD"); /* of which nothing is known yet */
            assert_string_equal(head(P, 200), "drainP");
            assert_string_equal(head(D, 200), "");
            assert_string_equal(body(D), "relay:200D");
            assert_string_equal(failed(P, PDR_FAIL_RESET), "");
            start(0);
            merged_head(P), merged_head(D), body(P), body(D);
            if (whole) end(D);
            assert_string_equal(failed(P, detail), detail == PDR_FAIL_TIMEOUT ? whole ? "respond:prefill_timeout:504 finish" : "cancelD respond:prefill_timeout:504 finish"
                                                   : whole ? "respond:prefill_failed:502 finish" : "cancelD respond:prefill_failed:502 finish");
        }
        /* it ends: the answer may go */
        start(0);
        merged_head(P), merged_head(D), body(P), body(D);
        if (whole) end(D);
        assert_string_equal(end(P), whole ? "finish" : "");
        assert_true(whole == (t.fx.result == PDR_RESULT_ANSWERED));
        if (!whole) assert_string_equal(sent(), "");
        if (!whole) assert_string_equal(end(D), "finish");
        /* it is silent: as long as a drain may take, counted from decode's first byte */
        start(0);
        merged_head(P), merged_head(D), body(D);
        if (whole) end(D);
        assert_string_equal(tick(DRAIN - 1), "");
        assert_string_equal(tick(1), whole ? "cancelP respond:prefill_timeout:504 finish" : "cancelP cancelD respond:prefill_timeout:504 finish");
        assert_true(!t.fx.overran && t.fx.leg[P].verdict == PDR_VERDICT_FAILED);
        /* it refuses what decode has answered */
        start(0);
        merged_head(D), body(D);
        if (whole) end(D);
        assert_string_equal(head(P, 400), whole ? "relay:400P" : "cancelD relay:400P");
        assert_string_equal(sent(), "");
        assert_string_equal(end(P), "finish");
        /* a client that leaves meanwhile */
        start(0);
        merged_head(P), merged_head(D), body(D);
        if (whole) end(D);
        assert_string_equal(gone(), whole ? "cancelP finish" : "cancelP cancelD finish");
        assert_int_equal(t.fx.result, PDR_RESULT_GONE);
        /* a host that sends it all the same, since it is too long to be kept */
        start(0);
        merged_head(P), merged_head(D), body(D);
        if (whole) end(D);
        assert_string_equal(sent(), "");
        if (!whole) assert_string_equal(end(D), "");
        assert_string_equal(failed(P, PDR_FAIL_RESET), "finish");
        assert_int_equal(t.fx.result, PDR_RESULT_ANSWERED);
    }
    /* decode refused it in an event: prefill will never end */
    start(0);
    merged_head(P), merged_head(D), body(D);
    pdr_event refused = event(PDR_EV_END, D, 0, t.x.attempt, t.now);
    refused.detail = PDR_FAIL_PROTOCOL;
    assert_string_equal(feed(refused), "cancelP finish");
}

/* From when it may go to the client, decode's silence is measured as in any other answer; prefill's end moves nothing where it is not waited for. */
static void silence_behind_prefills_end(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        start_bounded(0);
        merged_head(P), merged_head(D), body(D);
        assert_int_equal(pdr_exchange_deadline(&t.x), T0 + DRAIN);
        t.now += 7000;
        assert_string_equal(how ? sent() : end(P), "");
        assert_int_equal(pdr_exchange_deadline(&t.x), t.now + IDLE_US * 1000);
    }
    start_bounded(0);
    head(P, 200), head(D, 200), body(D);
    assert_int_equal(pdr_exchange_deadline(&t.x), T0 + IDLE_US * 1000);
    t.now += 7000;
    assert_string_equal(end(P), "");
    assert_int_equal(pdr_exchange_deadline(&t.x), T0 + IDLE_US * 1000);
}

/* Usage that cannot be is not given on: tokens beyond all bodies, or more of them cached than there are. */
static void usage_that_can_be(void **state)
{
    static const struct { uint64_t prompt, cached, completion; int fine; } cases[] = {
        {1000, 1000, 5, 1}, {1000, 1001, 5, 0}, {(1u << 28) - 1, 0, 5, 1}, {1u << 28, 0, 5, 0}, {1u << 28, 0, 0, 0}, {1000, 0, (1u << 28) - 1, 1}, {1000, 0, 1u << 28, 0}, {0, 0, 0, 1}, {0, 1, 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(0);
        head(P, 200), end(P), head(D, 200), body(D);
        pdr_event ev = event(PDR_EV_END, D, 0, 0, t.now);
        ev.usage = 1, ev.prompt_tokens = cases[i].prompt, ev.cached_tokens = cases[i].cached, ev.completion_tokens = cases[i].completion;
        assert_string_equal(feed(ev), "finish");
        assert_int_equal(t.fx.leg[D].usage, cases[i].fine);
        assert_int_equal(t.fx.leg[D].prompt_tokens, cases[i].fine ? cases[i].prompt : 0);
        assert_int_equal(t.fx.leg[D].cached_tokens, cases[i].fine ? cases[i].cached : 0);
        assert_int_equal(t.fx.leg[D].completion_tokens, cases[i].fine ? cases[i].completion : 0);
    }
}

static void without_budget_there_is_no_retry(void **state)
{
    (void)state;
    start(2);
    t.rules.retry_denied = 1;
    assert_string_equal(failed(P, PDR_FAIL_RESET), "cancelD respond:prefill_failed:502 finish");
    assert_int_equal(t.fx.retry_denied, 1);
    start(2); /* stale connections cost nothing */
    t.rules.retry_denied = 1;
    assert_string_equal(failed(P, PDR_FAIL_STALE), "cancelD route");
    assert_int_equal(t.fx.retry, 2);
    assert_int_equal(t.fx.retry_denied, 0);
    start(0); /* it would have been the last attempt anyway */
    t.rules.retry_denied = 1;
    failed(P, PDR_FAIL_RESET);
    assert_int_equal(t.fx.retry_denied, 0);
}

static void total_timeout_ends_everything(void **state)
{
    (void)state;
    start(2);
    head(P, 200), end(P), head(D, 200);
    assert_true(pdr_exchange_deadline(&t.x) == T0 + TOTAL);
    SAYS(tick(TOTAL), "cancelD respond:decode_timeout:504 finish");
    SAYS(verdicts(), "--"); /* a long generation is nobody's fault */
    start(2);
    head(D, 200), body(D), sent();
    SAYS(tick(TOTAL), "cancelP cancelD abort:decode_timeout finish");
    start(2);
    failed(P, PDR_FAIL_CONNECT);
    SAYS(tick(TOTAL), "respond:prefill_failed:504 finish");
}

static void one_server(void **state)
{
    (void)state;
    start_with(1, PDR_MODE_SINGLE);
    assert_int_equal(t.fx.leg[P].endpoint, PDR_NONE);
    SAYS(head(D, 200), "");
    SAYS(body(D), "relay:200D");
    assert_int_equal(t.fx.prefill_done, 1);
    SAYS(end(D), "finish");
    start_with(1, PDR_MODE_SINGLE);
    SAYS(head(D, 500), "cancelD route");
    SAYS(verdicts(), "-F");
    assert_int_equal(t.fx.leg[D].failure, 0);
    static const uint32_t no_answers[] = {0, 99, 302, 399, 600, 999};
    for (size_t i = 0; i < sizeof no_answers / sizeof *no_answers; i++) {
        start_with(1, PDR_MODE_SINGLE);
        SAYS(head(D, no_answers[i]), "cancelD route");
        assert_int_equal(t.fx.leg[D].failure, PDR_FAIL_PROTOCOL);
    }
    start_with(0, PDR_MODE_SINGLE);
    SAYS(tick(FIRST_BYTE), "cancelD respond:decode_timeout:504 finish");
    SAYS(verdicts(), "-F");
    assert_int_equal(t.fx.overran, 1u << D);
}

static void prefill_first_is_only_another_row(void **state)
{
    (void)state;
    pdr_decision d = decision(100, 1, 11);
    for (int refuse = 0; refuse < 2; refuse++) {
        memset(&t, 0, sizeof t);
        t.rules = rules_with(1);
        t.rules.shape = &pdr_shape_prefill_first;
        t.now = T0;
        t.n = PDR_MAX_ACTIONS;
        pdr_init_struct(&t.x, sizeof t.x);
        assert_int_equal(pdr_exchange_start(&t.x, &d, 1, &t.rules, t.now, t.act, &t.n, &t.fx), PDR_OK);
        SAYS(actions(), "sendP");
        if (refuse) {
            SAYS(tick(FIRST_BYTE), "cancelP route"); /* decode was never asked */
            SAYS(verdicts(), "F-");
            continue;
        }
        SAYS(head(P, 200), ""); /* the host keeps the body */
        SAYS(end(P), "sendD");
        SAYS(head(D, 200), "");
        SAYS(body(D), "relay:200D");
        SAYS(end(D), "finish");
    }
}

static void oldest_exclusion_makes_room(void **state)
{
    (void)state;
    start(20);
    for (uint32_t i = 0; i < 10; i++) {
        failed(P, PDR_FAIL_CONNECT);
        assert_int_equal(t.x.mode, PDR_MODE_PD); /* it lies behind the list */
        SAYS(reroute(101 + i, 2 + i, 11), "sendP sendD");
    }
    SAYS(excluded(), "3 4 5 6 7 8 9 10");
    head(D, 500);
    SAYS(excluded(), "5 6 7 8 9 10 11");
    assert_int_equal(t.x.mode, PDR_MODE_PD);
}

static void arguments_are_checked_and_errors_change_nothing(void **state)
{
    (void)state;
    pdr_event    ev;
    pdr_decision d = decision(101, 2, 12);
    pdr_exchange before;
    start(1);
    before = t.x;
    ev = event(PDR_EV_HEAD, P, 500, 0, T0);
    t.n = 2; /* three actions come */
    assert_int_equal(pdr_exchange_step(&t.x, &ev, &t.rules, t.act, &t.n, &t.fx), PDR_E_NOSPACE);
    assert_int_equal(t.n, 3);
    assert_memory_equal(&before, &t.x, sizeof before);
    assert_int_equal(pdr_exchange_step(&t.x, &ev, &t.rules, t.act, &t.n, &t.fx), PDR_OK); /* so many are enough */
    SAYS(actions(), "cancelP cancelD route");
    t.n = PDR_MAX_ACTIONS; /* an older caller's decision does not say when to come again */
    d.retry_after_ms = 12345;
    d.struct_size = offsetof(pdr_decision, retry_after_ms);
    assert_int_equal(pdr_exchange_reroute(&t.x, &d, PDR_E_EXPIRED, &t.rules, T0, t.act, &t.n, &t.fx), PDR_OK);
    SAYS(actions(), "respond:held_timeout:503 finish");
    assert_int_equal(t.act[0].retry_after_ms, 0);
    d = decision(101, 2, 12);
    start(1);
    for (int i = 0; i < 5; i++) { /* each that is missing, by itself; nobody else needs to be */
        pdr_exchange               *x = i == 0 ? NULL : &t.x;
        const pdr_exchange_rules   *rules = i == 1 ? NULL : &t.rules;
        size_t                      one = 1, *n = i == 2 ? NULL : &one;
        pdr_exchange_effects       *fx = i == 3 ? NULL : &t.fx;
        pdr_action                 *out = i == 4 ? NULL : t.act;
        assert_int_equal(pdr_exchange_start(x, &d, 1, rules, T0, out, n, fx), PDR_E_INVALID);
        assert_int_equal(pdr_exchange_step(x, &ev, rules, out, n, fx), PDR_E_INVALID);
        assert_int_equal(pdr_exchange_reroute(x, &d, PDR_OK, rules, T0, out, n, fx), PDR_E_INVALID);
    }
    assert_int_equal(pdr_exchange_start(&t.x, NULL, 1, &t.rules, T0, t.act, &t.n, &t.fx), PDR_E_INVALID);
    t.n = 0;
    assert_int_equal(pdr_exchange_step(NULL, &ev, &t.rules, t.act, &t.n, &t.fx), PDR_E_INVALID);
    assert_int_equal(pdr_exchange_step(&t.x, NULL, &t.rules, t.act, &t.n, &t.fx), PDR_E_INVALID);
    ev.struct_size = 0;
    assert_int_equal(pdr_exchange_step(&t.x, &ev, &t.rules, t.act, &t.n, &t.fx), PDR_E_VERSION);
    t.n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_reroute(&t.x, NULL, PDR_OK, &t.rules, T0, t.act, &t.n, &t.fx), PDR_E_INVALID);
    d.outcome = PDR_HELD;
    assert_int_equal(pdr_exchange_reroute(&t.x, &d, PDR_OK, &t.rules, T0, t.act, &t.n, &t.fx), PDR_E_INVALID);
    assert_int_equal(pdr_exchange_start(&t.x, &d, 1, &t.rules, T0, t.act, &t.n, &t.fx), PDR_E_INVALID);
    d.outcome = PDR_SEND;
    d.engine = 77;
    assert_int_equal(pdr_exchange_start(&t.x, &d, 1, &t.rules, T0, t.act, &t.n, &t.fx), PDR_E_INVALID);
    t.x.struct_size = 8;
    d.engine = PDR_ENGINE_SGLANG;
    assert_int_equal(pdr_exchange_start(&t.x, &d, 1, &t.rules, T0, t.act, &t.n, &t.fx), PDR_E_VERSION);
    pdr_init_struct(&t.x, sizeof t.x); /* never begun */
    ev = event(PDR_EV_TICK, 0, 0, 0, T0);
    assert_int_equal(pdr_exchange_step(&t.x, &ev, &t.rules, t.act, &t.n, &t.fx), PDR_E_INVALID);
    assert_true(pdr_exchange_deadline(&t.x) == UINT64_MAX);
    assert_true(pdr_exchange_deadline(NULL) == UINT64_MAX);
    assert_string_equal(pdr_reason_name(PDR_ERR_HELD_TIMEOUT), "held_timeout");
    assert_string_equal(pdr_reason_name(0), "unknown");
    assert_string_equal(pdr_reason_name(1000), "unknown");
}

/*
 * ------------------------------------------------------------------------------------------------------------
 * exploration
 */

/* States are told apart by 128 bits of hash; the queue keeps whole states. */
typedef struct explorer {
    pdr_exchange_rules rules;
    XXH128_hash_t     *seen;
    node              *queue;
    size_t             slots, states, head, tail, cap, transitions, finals;
} explorer;

static void visit(explorer *e, const node *s)
{
    XXH128_hash_t h = XXH3_128bits(s, sizeof *s);
    size_t        i;
    if (2 * e->states >= e->slots) {
        explorer bigger = *e;
        bigger.slots = e->slots ? 4 * e->slots : 1 << 16;
        bigger.seen = calloc(bigger.slots, sizeof *bigger.seen);
        assert_non_null(bigger.seen);
        for (i = 0; i < e->slots; i++)
            if (e->seen[i].low64 || e->seen[i].high64) {
                size_t j = e->seen[i].low64 & (bigger.slots - 1);
                while (bigger.seen[j].low64 || bigger.seen[j].high64) j = (j + 1) & (bigger.slots - 1);
                bigger.seen[j] = e->seen[i];
            }
        free(e->seen);
        *e = bigger;
    }
    for (i = h.low64 & (e->slots - 1); e->seen[i].low64 || e->seen[i].high64; i = (i + 1) & (e->slots - 1))
        if (XXH128_isEqual(e->seen[i], h)) return;
    e->seen[i] = h;
    e->states++;
    if (s->m.finished) e->finals++;
    if (e->tail == e->cap) { /* breadth first: what was visited makes room */
        if (e->head > e->cap / 2) {
            memmove(e->queue, e->queue + e->head, (e->tail - e->head) * sizeof *e->queue);
            e->tail -= e->head;
            e->head = 0;
        } else {
            e->cap = e->cap ? 2 * e->cap : 4096;
            e->queue = realloc(e->queue, e->cap * sizeof *e->queue);
            assert_non_null(e->queue);
        }
    }
    e->queue[e->tail++] = *s;
}

static void broken(const node *s, const pdr_event *ev, const char *promise)
{
    print_error("broken: %s\n phase %u attempt %u legs %u/%u heads %u/%u sent %u relaying %u routing %u\n", promise,
                s->x.phase, s->x.attempt, s->x.leg_state[0], s->x.leg_state[1], s->m.head[0], s->m.head[1], s->m.sent,
                s->m.relaying, s->m.routing);
    if (ev)
        print_error(" event %u leg %u status %u detail %u attempt %u\n", ev->type, ev->leg, ev->status, ev->detail,
                    ev->attempt);
    fail();
}

static void try_event(explorer *e, const node *from, const pdr_event *ev)
{
    node        s = *from;
    const char *bad = model_step(&s, ev, &e->rules);
    e->transitions++;
    if (bad) broken(from, ev, bad);
    visit(e, &s);
}

/* The lowest endpoint that is not excluded, 0: none. Three prefills (1..3) and two decodes (11, 12). */
static uint32_t pick(const pdr_exchange *x, uint32_t first, uint32_t last)
{
    for (uint32_t id = first; id <= last; id++)
        if (!model_excluded(x, id)) return id;
    return 0;
}

static int next_decision(const node *s, pdr_decision *d)
{
    uint32_t prefill = pick(&s->x, 1, 3), decode = pick(&s->x, 11, 12);
    *d = decision(101 + s->m.attempt, prefill, decode);
    d->mode = s->x.mode;
    if (d->mode == PDR_MODE_SINGLE) d->prefill = prefill = PDR_NONE;
    return prefill && decode;
}

static void try_reroute(explorer *e, const node *from, int code)
{
    node         s = *from;
    pdr_decision d;
    const char  *bad;
    if (code == PDR_OK && !next_decision(from, &d)) return;
    bad = model_reroute(&s, code == PDR_OK ? &d : NULL, code, &e->rules, s.m.now);
    e->transitions++;
    if (bad) broken(from, NULL, bad);
    visit(e, &s);
}

static int merged; /* heads say that the answer takes both legs' */

static const uint32_t statuses[] = {101, 200, 302, 400, 429, 500, 503};

/* Every event that this state can see, impossible ones included (the model demands that those change nothing). */
static void expand(explorer *e, const node *s)
{
    pdr_event ev;
    uint32_t  first = s->m.attempt && !s->m.finished ? s->m.attempt - 1 : s->m.attempt;
    uint32_t  last = s->m.attempt + !s->m.finished; /* after the end no attempt is different from another */
    for (uint32_t leg = 0; leg <= 2; leg++)
        for (uint32_t attempt = first; attempt <= last; attempt++) {
            for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
                ev = event(PDR_EV_HEAD, leg, statuses[i], attempt, s->m.now);
                ev.retry_after_ms = statuses[i] == 429 ? 500 : 0;
                if (merged && statuses[i] == 200) ev.detail = PDR_HEAD_MERGED;
                try_event(e, s, &ev);
                if (statuses[i] != 503) continue;
                ev.retry_after_ms = 500;
                try_event(e, s, &ev);
            }
            ev = event(PDR_EV_BODY, leg, 0, attempt, s->m.now);
            try_event(e, s, &ev);
            ev = event(PDR_EV_END, leg, 0, attempt, s->m.now);
            try_event(e, s, &ev);
            ev.detail = PDR_FAIL_PROTOCOL; /* with an error event in it */
            try_event(e, s, &ev);
            for (uint32_t failure = PDR_FAIL_CONNECT; failure <= PDR_FAIL_PROTOCOL; failure++) {
                ev = event(PDR_EV_FAILED, leg, failure, attempt, s->m.now);
                try_event(e, s, &ev);
            }
        }
    static const uint32_t others[] = {PDR_EV_CLIENT_GONE, PDR_EV_SENT, PDR_EV_TICK, 0, 99};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        ev = event(others[i], 0, 0, s->m.attempt, s->m.now);
        try_event(e, s, &ev);
    }
    if (pdr_exchange_deadline(&s->x) != UINT64_MAX) { /* time passes: to the next deadline, or over all of them */
        ev = event(PDR_EV_TICK, 0, 0, 0, pdr_exchange_deadline(&s->x));
        try_event(e, s, &ev);
        if (s->m.relaying && bounded) { /* the answer's last piece came long ago, or (seen once) just now */
            ev.last_byte_ns = s->m.now;
            try_event(e, s, &ev);
            ev.last_byte_ns = ev.now_ns;
            if (!(s->m.watched & WATCHED)) try_event(e, s, &ev);
            ev.last_byte_ns = 0;
        }
        ev.now_ns = s->x.started_ns + TOTAL;
        if (ev.now_ns > s->m.now) try_event(e, s, &ev);
    }
    static const int codes[] = {PDR_OK, PDR_E_NO_PAIR, PDR_E_QUEUE_FULL, PDR_E_EXPIRED};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) try_reroute(e, s, codes[i]);
}

/*
 * No state is without a way out: if nothing more is heard of anybody, time and the router's answers alone end it,
 * within a bound.
 */
static void time_alone_ends_it(explorer *e, const node *from, int pairs)
{
    node         s = *from;
    pdr_decision d;
    const char  *bad = NULL;
    int          steps = 0;
    for (; !s.m.finished && !bad; steps++) {
        if (steps > 40) broken(from, NULL, "time alone ends every exchange");
        if (s.m.routing) {
            int ok = pairs && next_decision(&s, &d);
            bad = model_reroute(&s, ok ? &d : NULL, ok ? PDR_OK : PDR_E_NO_PAIR, &e->rules, s.m.now);
        } else {
            pdr_event ev = event(PDR_EV_TICK, 0, 0, 0, pdr_exchange_deadline(&s.x));
            bad = model_step(&s, &ev, &e->rules);
        }
    }
    if (bad) broken(from, NULL, bad);
}

static const pdr_exchange_shape *explored[8];

static int was_explored(const pdr_exchange_shape *shape)
{
    for (size_t i = 0; i < 8; i++)
        if (explored[i] == shape) return 1;
    return 0;
}

static void explore(const char *name, const pdr_exchange_shape *shape, uint32_t retry_max, int bounds)
{
    explorer     e = {.rules = rules_with(retry_max)};
    pdr_decision d = decision(100, 1, 11);
    bounded = bounds;
    d = decision(100, 1, 11);
    node         s;
    const char  *bad;
    e.rules.shape = shape;
    for (size_t i = 0; i < 8 && !was_explored(shape); i++)
        if (!explored[i]) explored[i] = shape;
    if (shape == &pdr_shape_single) d.mode = PDR_MODE_SINGLE, d.prefill = PDR_NONE;
    bad = model_start(&s, &d, &e.rules, T0);
    if (bad) broken(&s, NULL, bad);
    visit(&e, &s);
    while (e.head < e.tail) {
        s = e.queue[e.head++];
        if (e.states > 4000000) broken(&s, NULL, "retries are bounded, so the number of states is");
        expand(&e, &s);
        time_alone_ends_it(&e, &s, 0);
        time_alone_ends_it(&e, &s, 1);
    }
    print_message("explored %s, retry_max %u%s: %zu states (%zu final), %zu transitions\n", name, retry_max,
                  bounds ? ", bounds of silence" : "", e.states, e.finals, e.transitions);
    bounded = 0;
    assert_true(e.finals > 10 && e.states > e.finals);
    free(e.seen);
    free(e.queue);
}

static void all_orders_single(void **state)
{
    (void)state;
    for (uint32_t retry_max = 0; retry_max <= 2; retry_max++) {
        explore("single", &pdr_shape_single, retry_max, 0);
        explore("single", &pdr_shape_single, retry_max, 1);
    }
}
static void all_orders_prefill_first(void **state)
{
    (void)state;
    explore("prefill first", &pdr_shape_prefill_first, 1, 0);
    explore("prefill first", &pdr_shape_prefill_first, 1, 1);
}
/* The largest one has 35 million transitions: ten seconds, but minutes with a sanitizer or in an emulator. */
#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW
#endif
#endif
#if defined(PDR_EXPLORE_LESS) /* tests/tools/mutate.py, for each of its mutants */
enum { LARGEST = 0, RETRIED = 1 };
#elif defined(SLOW) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__aarch64__)
enum { LARGEST = 0, RETRIED = 2 };
#else
enum { LARGEST = 1, RETRIED = 2 };
#endif

static void all_orders_concurrent(void **state)
{
    (void)state;
    for (uint32_t retry_max = 0; retry_max <= RETRIED; retry_max++) explore("concurrent", &pdr_shape_concurrent, retry_max, 0);
    for (uint32_t retry_max = 0; retry_max <= LARGEST; retry_max++) explore("concurrent", &pdr_shape_concurrent, retry_max, 1);
}

/* The same where decode's answer waits for prefill's. */
static void all_orders_merged(void **state)
{
    (void)state;
    merged = 1;
    explore("concurrent, merged", &pdr_shape_concurrent, 0, 0);
    explore("concurrent, merged", &pdr_shape_concurrent, 1, 0);
    explore("concurrent, merged", &pdr_shape_concurrent, 0, 1);
    merged = 0;
}

/* A new engine protocol is either one of the shapes explored above, or is explored here as well. */
static void every_protocol_was_explored(void **state)
{
    (void)state;
    int engines = 0;
    for (uint32_t engine = 0; engine < 256; engine++) {
        if (!pdr_engine_get(engine)) continue;
        engines++;
        for (uint32_t mode = PDR_MODE_PD; mode <= PDR_MODE_SINGLE; mode++) {
            const pdr_exchange_shape *shape = pdr_exchange_shape_of(engine, mode);
            if (!shape || !was_explored(shape)) fail_msg("engine %u, mode %u: not explored", engine, mode);
        }
    }
    assert_true(engines >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_is_relayed_from_its_first_byte),
        cmocka_unit_test(decode_ends_first_and_prefill_is_drained),
        cmocka_unit_test(refused_prefill_is_avoided_at_once),
        cmocka_unit_test(hanging_prefill_ends_at_the_deadline),
        cmocka_unit_test(suspects_are_relaxed_when_nobody_else_is_there),
        cmocka_unit_test(pairs_are_crossed_when_nobody_else_is_there),
        cmocka_unit_test(prefill_500_is_told_at_once),
        cmocka_unit_test(decode_dies),
        cmocka_unit_test(client_leaves),
        cmocka_unit_test(request_errors_pass),
        cmocka_unit_test(unavailable_with_retry_after_is_no_fault),
        cmocka_unit_test(stale_connection_is_a_free_retry),
        cmocka_unit_test(silence_is_borne_as_long_as_the_decision_says),
        cmocka_unit_test(a_stalled_answer_ends),
        cmocka_unit_test(an_error_event_that_passes_needs_no_drain),
        cmocka_unit_test(a_merged_answer_needs_prefill_to_its_end),
        cmocka_unit_test(silence_behind_prefills_end),
        cmocka_unit_test(usage_that_can_be),
        cmocka_unit_test(without_budget_there_is_no_retry),
        cmocka_unit_test(total_timeout_ends_everything),
        cmocka_unit_test(one_server),
        cmocka_unit_test(prefill_first_is_only_another_row),
        cmocka_unit_test(oldest_exclusion_makes_room),
        cmocka_unit_test(arguments_are_checked_and_errors_change_nothing),
        cmocka_unit_test(all_orders_single),
        cmocka_unit_test(all_orders_prefill_first),
        cmocka_unit_test(all_orders_concurrent),
        cmocka_unit_test(all_orders_merged),
        cmocka_unit_test(every_protocol_was_explored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
