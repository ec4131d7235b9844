/* Decode servers that may also do a request alone: who is sent there, and who never is. */
#include "fleet.h"

#include "alone.h"
#include "block.h"

static void allow(const fleet *f, int decode)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_endpoint_get(f->r, f->decode[decode], &e, NULL), PDR_OK);
    e.flags |= PDR_ENDPOINT_ALONE;
    assert_int_equal(pdr_endpoint_put(f->r, &e, f->now, NULL, NULL), PDR_OK);
}

static int alone(const pdr_decision *d) { return d->outcome == PDR_SEND && d->mode == PDR_MODE_SINGLE; }

static void only_who_may_and_only_while_prefill_is_busy(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 1, 3);
    for (uint32_t s = 0; s < 4; s++) assert_int_equal(fleet_route(&f, 8000, s, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD); /* nobody may */
    fleet_close(&f);

    fleet_open(&f, &c, 1, 3);
    allow(&f, 1);
    pdr_decision first, second;
    assert_int_equal(fleet_route(&f, 8000, 0, PDR_REQUEST_NO_HOLD, &first), PDR_OK);
    assert_true(alone(&first)); /* all idle: no transfer */
    assert_int_equal(first.decode, f.decode[1]);
    assert_int_equal(first.prefill, PDR_NONE);
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &second), PDR_OK);
    assert_int_equal(second.outcome, PDR_SEND);
    assert_int_equal(second.mode, PDR_MODE_PD); /* it would wait there, and hold up the first */
    uint64_t aside[20];
    uint32_t n = 0;
    while (fleet_route(&f, 8000, 2 + n, 0, &d) == PDR_OK && alone(&d) && n < 20) aside[n++] = d.booking; /* until it is no better there than here */
    assert_int_equal(d.outcome, PDR_HELD);
    uint64_t ticket = d.booking;
    pdr_booking_done(f.r, first.booking, PDR_DONE_ALL, f.now);
    while (n) pdr_booking_done(f.r, aside[--n], PDR_DONE_ALL, f.now);
    assert_int_equal(fleet_route(&f, 8000, 30, 0, &d), PDR_OK);
    assert_true(alone(&d)); /* although others are held */
    pdr_booking_done(f.r, second.booking, PDR_DONE_PREFILL, f.now);
    pdr_init_struct(&second, sizeof second);
    assert_int_equal(pdr_ticket_take(f.r, ticket, NULL, 0, f.now, &second, NULL), PDR_OK);
    assert_int_equal(second.mode, PDR_MODE_PD);
    fleet_close(&f);
}

/* Its decode's requests stand still while a prompt is computed: their time counts like his own. */
static void who_decodes_there_is_asked(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    uint64_t     decoding[64];
    fleet_open(&f, &c, 2, 1);
    allow(&f, 0);
    for (uint32_t s = 0; s < 24; s++) { /* all answers are under way on the only decode server */
        assert_int_equal(fleet_route(&f, 2000, s, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
        decoding[s] = d.booking;
        pdr_booking_done(f.r, d.booking, PDR_DONE_PREFILL, f.now);
    }
    assert_int_equal(fleet_route(&f, 8000, 100, 0, &d), PDR_OK);
    assert_false(alone(&d));
    assert_int_equal(fleet_route(&f, 8000, 101, 0, &d), PDR_OK);
    assert_false(alone(&d));
    assert_int_equal(fleet_route(&f, 8000, 102, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD); /* 24 who decode outweigh one wait */
    for (uint32_t s = 0; s < 24; s++) pdr_booking_done(f.r, decoding[s], PDR_DONE_ALL, f.now);
    assert_int_equal(fleet_route(&f, 8000, 103, 0, &d), PDR_OK);
    assert_true(alone(&d) || d.outcome == PDR_HELD);
    fleet_close(&f);
}

static void the_last_who_can_serves(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_prompt   p;
    pdr_request  q;
    uint64_t     hashes[8];
    fleet        f;
    fleet_open(&f, &c, 1, 2);
    pdr_endpoint_drain(f.r, f.prefill[0], 1, NULL);
    assert_int_equal(fleet_route(&f, 1000, 0, 0, &d), PDR_E_NO_PAIR);
    allow(&f, 0);
    assert_int_equal(fleet_route(&f, 1000, 0, 0, &d), PDR_OK);
    assert_true(alone(&d));
    pdr_endpoint_drain(f.r, f.prefill[0], 0, NULL);
    p = fleet_prompt(1000, 1, 0, hashes, 7);
    p.samples = 3; /* SGLang's pairs do not do that */
    q = fleet_request(&f);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, NULL), PDR_OK);
    assert_true(alone(&d));
    q.excluded = 1; /* it has failed there */
    q.exclude[0] = f.decode[0];
    assert_int_equal(pdr_route_prompt(f.r, &p, hashes, 7, &q, &d, NULL), PDR_E_NO_PAIR);
    fleet_close(&f);
}

/* Every term is shown, and their sums are what was compared. */
static void explained_with_its_terms(void **state)
{
    (void)state;
    pdr_config    c = fleet_config();
    pdr_candidate k[8];
    pdr_decision  d;
    uint64_t      hashes[8];
    size_t        n = 8;
    fleet         f;
    fleet_open(&f, &c, 1, 2);
    allow(&f, 1);
    pdr_prompt  p = fleet_prompt(1000, 1, 0, hashes, 7);
    pdr_request q = fleet_request(&f);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, k, &n, NULL), PDR_OK);
    assert_int_equal(n, 4);
    assert_int_equal(k[3].role, PDR_ROLE_BOTH);
    assert_int_equal(k[3].endpoint, f.decode[1]);
    assert_true(k[3].chosen && !k[0].chosen && !k[1].chosen && !k[2].chosen);
    assert_true(k[3].work_us == k[0].work_us && k[3].uncached_tokens == 1000 && !k[3].price_us && !k[3].wait_us);
    assert_true(d.cost_us == k[3].cost_us && k[3].cost_us <= k[0].cost_us + k[1].cost_us); /* a pair has the transfer beside */
    pdr_decision there;
    assert_int_equal(fleet_route(&f, 8000, 0, 0, &there), PDR_OK);
    assert_true(alone(&there));
    n = 8;
    assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, k, &n, NULL), PDR_OK);
    assert_true(!k[3].chosen && k[0].chosen && k[3].wait_us > 0 && k[3].price_us > 0);
    assert_true(k[3].cost_us == k[3].wait_us + k[3].work_us + k[3].price_us);
    n = 3;
    assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, k, &n, NULL), PDR_E_NOSPACE);
    assert_int_equal(n, 4);
    n = 0; /* only how many */
    assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, NULL, &n, NULL), PDR_E_NOSPACE);
    assert_int_equal(n, 4);
    pdr_booking_done(f.r, there.booking, PDR_DONE_ALL, f.now);
    allow(&f, 0); /* of two one is chosen */
    n = 8;
    assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, k, &n, NULL), PDR_OK);
    assert_int_equal(n, 5);
    assert_true(k[3].role == PDR_ROLE_BOTH && k[4].role == PDR_ROLE_BOTH);
    assert_int_equal(k[3].chosen + k[4].chosen, 1);
    assert_int_equal(d.decode, k[k[3].chosen ? 3 : 4].endpoint);
    p.api = q.api = PDR_API_OTHER; /* anybody does it: nobody aside */
    n = 8;
    assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, k, &n, NULL), PDR_OK);
    assert_int_equal(n, 3);
    fleet_close(&f);

    for (int off = 0; off < 2; off++) { /* a policy that compares no times has nobody aside either; who has a prompt is busy, where requests are held */
        c.policy = PDR_POLICY_ROUND_ROBIN;
        c.hold = off ? PDR_HOLD_OFF : PDR_HOLD_ON;
        fleet_open(&f, &c, 1, 2);
        allow(&f, 1);
        assert_int_equal(fleet_route(&f, 8000, 0, 0, &there), PDR_OK);
        assert_int_equal(there.mode, PDR_MODE_PD);
        p.api = PDR_API_CHAT;
        q = fleet_request(&f);
        n = 8;
        assert_int_equal(pdr_explain(f.r, &p, hashes, 7, &q, &d, k, &n, NULL), PDR_OK);
        assert_int_equal(n, 3);
        assert_int_equal(k[0].barred, off ? PDR_BARRED_NO : PDR_BARRED_BUSY);
        fleet_close(&f);
    }
}

/* The next turn finds the prompt that came by transfer. */
static void what_was_transferred_is_known(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    allow(&f, 0);
    assert_int_equal(fleet_route(&f, 500, 9, 0, &d), PDR_OK); /* alone: the server is taken for a while */
    assert_true(alone(&d));
    pdr_decision pair;
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &pair), PDR_OK);
    assert_int_equal(pair.mode, PDR_MODE_PD);
    pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    pdr_booking_done(f.r, pair.booking, PDR_DONE_ALL, f.now);
    assert_int_equal(fleet_route(&f, 8000, 1, PDR_REQUEST_DRY, &d), PDR_OK);
    assert_int_equal(d.mode, PDR_MODE_SINGLE);
    assert_true(d.matched_tokens > 7000);
    fleet_close(&f);
}

static void the_role_must_be_decode(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e;
    pdr_error    err;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    pdr_init_struct(&e, sizeof e);
    pdr_init_struct(&err, sizeof err);
    assert_int_equal(pdr_endpoint_get(f.r, f.prefill[0], &e, NULL), PDR_OK);
    e.flags |= PDR_ENDPOINT_ALONE;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_E_INVALID);
    assert_non_null(strstr(err.message, "alone is for decode servers"));
    fleet_close(&f);
}

/* The formula, by hand. */
static void both_ways_are_priced_for_all(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    pdr_books    b;
    fleet_open(&f, &c, 1, 1);
    allow(&f, 0);
    assert_int_equal(fleet_route(&f, 1000, 1, 0, &d), PDR_OK);
    assert_int_equal(pdr_books_lock(&b, f.r, f.now), PDR_OK);
    uint32_t    target = b.registry.decode[0], prefill = b.registry.prefill[0];
    pdr_job     job = {.prompt_tokens = 4000, .output_tokens = 300, .api = PDR_API_CHAT, .samples = 1};
    pdr_view    v = {.targets = b.registry.targets, .depth = b.depth, .job = &job, .rates = &f.r->rates, .now_ns = f.now, .mean_queue_q10 = 3 * 1024};
    memset(b.depth, 0, c.max_endpoints * sizeof *b.depth);
    pdr_target *t = &b.registry.targets[target];
    uint64_t    work = pdr_prefill_us(v.rates, 4000, 0), own = pdr_wait_us(t, f.now) + work + (work - v.rates->base_us) * t->d_requests + pdr_decode_us(t, v.rates, &job);
    pdr_choice  pair = {.mode = PDR_MODE_PD, .prefill = prefill, .decode = target, .cost = own - 3 * work - 2 * 1000 + 1};
    assert_int_equal(t->d_requests, 1);
    pdr_choice  x = pair;
    assert_int_equal(pdr_alone_choose(&b.registry, &v, 1000, &x), 1);
    assert_int_equal(x.mode, PDR_MODE_SINGLE);
    assert_int_equal(x.cost, own);
    x = pair;
    assert_int_equal(pdr_alone_choose(&b.registry, &v, 999, &x), 0);
    assert_int_equal(x.mode, PDR_MODE_PD);
    pdr_books_unlock(&b, PDR_OK, NULL);
    fleet_close(&f);
}

/* What a prompt takes between steps of decode says how slow prompts are there, and nothing about prefill servers. */
static void its_prompts_teach_nothing_about_others(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    for (int marked = 0; marked < 2; marked++) {
        if (marked) allow(&f, 0);
        uint64_t samples = f.r->learnt.fit.samples, linear = f.r->rates.linear_ns;
        pdr_exchange x;
        pdr_action   actions[8];
        size_t       n = 8;
        assert_int_equal(fleet_route(&f, 9000, 1 + (uint32_t)marked, 0, &d), PDR_OK);
        assert_int_equal(alone(&d), marked);
        pdr_init_struct(&x, sizeof x);
        assert_int_equal(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, actions, &n), PDR_OK);
        f.now += 3000 * MS; /* much longer than the prior has it */
        for (uint32_t leg = marked ? PDR_LEG_DECODE : PDR_LEG_PREFILL; leg <= PDR_LEG_DECODE; leg++) {
            fleet_tell(&f, &x, PDR_EV_HEAD, leg);
            fleet_tell(&f, &x, PDR_EV_BODY, leg);
            if (leg == PDR_LEG_DECODE) fleet_tell(&f, &x, PDR_EV_SENT, leg);
            fleet_tell(&f, &x, PDR_EV_END, leg);
        }
        assert_int_equal(fleet_stats(&f).bookings, 0);
        assert_int_equal(f.r->learnt.fit.samples, samples + !marked);
        assert_int_equal(f.r->rates.linear_ns != linear, !marked);
    }
    fleet_close(&f);
}

/* Of two that cost the same the one that rested longest; a tie with the pair is the pair's. */
static void ties(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    pdr_books  b;
    fleet_open(&f, &c, 1, 3);
    for (int i = 0; i < 3; i++) allow(&f, i);
    assert_int_equal(pdr_books_lock(&b, f.r, f.now), PDR_OK);
    pdr_job  job = {.prompt_tokens = 4000, .output_tokens = 300, .api = PDR_API_CHAT, .samples = 1};
    pdr_view v = {.targets = b.registry.targets, .depth = b.depth, .job = &job, .rates = &f.r->rates, .now_ns = f.now};
    memset(b.depth, 0, c.max_endpoints * sizeof *b.depth);
    for (uint32_t longest = 0; longest < 3; longest++) {
        for (uint32_t i = 0; i < 3; i++) b.registry.targets[b.registry.decode[i]].d_last_pick = i == longest ? 3 : 5;
        pdr_board_fill(&b.registry);
        pdr_choice x = {.prefill = PDR_NONE, .decode = PDR_NONE}; /* no pair */
        assert_int_equal(pdr_alone_choose(&b.registry, &v, 0, &x), 1);
        assert_int_equal(x.decode, b.registry.decode[longest]);
        assert_int_equal(x.pairs, 3);
        pdr_choice whole = {.mode = PDR_MODE_SINGLE, .prefill = PDR_NONE, .decode = b.registry.decode[0], .cost = x.cost};
        assert_int_equal(pdr_alone_choose(&b.registry, &v, 0, &whole), 0);
        whole.cost = x.cost + 1; /* a server of role both that takes longer */
        assert_int_equal(pdr_alone_choose(&b.registry, &v, 0, &whole), 1);
    }
    pdr_books_unlock(&b, PDR_OK, NULL);
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_who_may_and_only_while_prefill_is_busy),
        cmocka_unit_test(who_decodes_there_is_asked),
        cmocka_unit_test(explained_with_its_terms), cmocka_unit_test(the_last_who_can_serves),
        cmocka_unit_test(what_was_transferred_is_known),
        cmocka_unit_test(the_role_must_be_decode),
        cmocka_unit_test(both_ways_are_priced_for_all),
        cmocka_unit_test(its_prompts_teach_nothing_about_others),
        cmocka_unit_test(ties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
