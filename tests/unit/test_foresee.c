/* Prefill servers that answer late, when the KV cache has gone, as the engine protocol says and streams show: the queue opens when the prompt should have been computed. */
#include "fleet.h"

#include "block.h"

typedef struct trip { pdr_decision d; pdr_exchange x; } trip;

static int send_as(fleet *f, trip *t, uint64_t tokens, uint32_t s, uint32_t flags)
{
    uint64_t    hashes[256];
    pdr_action  a[8];
    size_t      n = 8;
    pdr_prompt  p = fleet_prompt(tokens, s, 0, hashes, (uint32_t)(tokens / 128));
    pdr_request q = fleet_request(f);
    p.flags |= flags;
    pdr_init_struct(&t->d, sizeof t->d);
    assert_int_equal(pdr_route_prompt(f->r, &p, hashes, p.blocks, &q, &t->d, NULL), PDR_OK);
    if (t->d.outcome == PDR_HELD) return 0;
    pdr_init_struct(&t->x, sizeof t->x);
    assert_int_equal(pdr_exchange_begin(f->r, &t->x, &t->d, f->lease, f->now, a, &n), PDR_OK);
    return 1;
}

static int send(fleet *f, trip *t, uint64_t tokens, uint32_t s) { return send_as(f, t, tokens, s, PDR_PROMPT_STREAM); }

static void prefill_answers(fleet *f, trip *t)
{
    fleet_tell(f, &t->x, PDR_EV_HEAD, PDR_LEG_PREFILL);
    fleet_tell(f, &t->x, PDR_EV_BODY, PDR_LEG_PREFILL);
    fleet_tell(f, &t->x, PDR_EV_END, PDR_LEG_PREFILL);
}

static void decode_answers(fleet *f, trip *t)
{
    fleet_tell(f, &t->x, PDR_EV_HEAD, PDR_LEG_DECODE);
    fleet_tell(f, &t->x, PDR_EV_BODY, PDR_LEG_DECODE);
    fleet_tell(f, &t->x, PDR_EV_SENT, PDR_LEG_DECODE);
    f->now += 50 * MS;
    fleet_tell(f, &t->x, PDR_EV_END, PDR_LEG_DECODE);
}

/* A prompt of 4,000 tokens takes 243 ms by the prior, its transfer 26 ms. */
#define TOKENS 4000u
#define COMPUTE_MS 243u
#define TRANSFER_MS 26u

static void requests_pass_as(fleet *f, int n, int late, uint32_t flags)
{
    for (int i = 0; i < n; i++) {
        static uint32_t fresh = 1000; /* a prompt that is cached teaches nothing */
        trip            t;
        assert_true(send_as(f, &t, TOKENS, fresh++, flags));
        f->now += (COMPUTE_MS + (late ? TRANSFER_MS : 0)) * MS;
        prefill_answers(f, &t);
        f->now += ((late ? 0 : TRANSFER_MS) + 2) * MS;
        decode_answers(f, &t);
    }
}

static void requests_pass(fleet *f, int n, int late) { requests_pass_as(f, n, late, PDR_PROMPT_STREAM); }

static uint32_t foreseen(const fleet *f)
{
    pdr_books b;
    pdr_books_open(&b, f->r);
    return b.registry.head->foreseen;
}

static void late_answers_are_found_out(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    fleet_open(&f, &c, 1, 1);
    requests_pass(&f, 7, 1);
    assert_int_equal(foreseen(&f), 0); /* too few to say */
    requests_pass(&f, 3, 1);
    assert_int_equal(foreseen(&f), 1);
    fleet_close(&f);
}

/* Whole answers never show when the first token came: the protocol's word counts, until streams tell otherwise. */
static void without_streams_the_protocol_is_believed(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    fleet_open(&f, &c, 1, 1);
    requests_pass_as(&f, 7, 1, 0);
    assert_int_equal(foreseen(&f), 0); /* what prompts take is not known yet */
    requests_pass_as(&f, 3, 1, 0);
    assert_int_equal(foreseen(&f), 1);
    requests_pass(&f, 7, 0);
    assert_int_equal(foreseen(&f), 1); /* too few to say */
    requests_pass(&f, 1, 0);
    assert_int_equal(foreseen(&f), 0);
    requests_pass_as(&f, 10, 1, 0);
    assert_int_equal(foreseen(&f), 0); /* what was seen counts more */
    fleet_close(&f);
}

static void answers_in_time_are_believed(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    trip       first, second;
    fleet_open(&f, &c, 1, 1);
    requests_pass(&f, 40, 0);
    assert_int_equal(foreseen(&f), 0);
    assert_true(send(&f, &first, TOKENS, 1));
    assert_false(send(&f, &second, TOKENS, 2));
    f.now += 2 * SECOND; /* long over, and not said: it stays closed */
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).held_now, 1);
    prefill_answers(&f, &first);
    assert_int_equal(fleet_stats(&f).held_now, 0);
    fleet_close(&f);
}

static void the_queue_opens_when_the_prompt_is_computed(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    fleet        f;
    trip         first, held[2];
    pdr_decision d;
    fleet_open(&f, &c, 1, 1);
    requests_pass(&f, 40, 1);
    assert_true(send(&f, &first, TOKENS, 1));
    assert_false(send(&f, &held[0], TOKENS, 2));
    assert_false(send(&f, &held[1], TOKENS, 3));
    f.now += COMPUTE_MS * 9 / 10 * MS;
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).held_now, 2); /* still computing */
    f.now += COMPUTE_MS * 2 / 10 * MS;             /* computed by now, and its answer is not there yet */
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).held_now, 1);
    f.now += 5 * SECOND; /* two without an answer: no third, however long it takes */
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).held_now, 1);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_ticket_take(f.r, held[0].d.booking, NULL, 0, f.now, &d, NULL), PDR_OK);
    prefill_answers(&f, &first);
    assert_int_equal(fleet_stats(&f).held_now, 1); /* the second has been computed only since */
    f.now += COMPUTE_MS * 11 / 10 * MS;
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).held_now, 0);
    assert_int_equal(pdr_lease_break(f.r, f.lease, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late_answers_are_found_out),
        cmocka_unit_test(without_streams_the_protocol_is_believed),
        cmocka_unit_test(answers_in_time_are_believed),
        cmocka_unit_test(the_queue_opens_when_the_prompt_is_computed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
