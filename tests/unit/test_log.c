/*
 * The decision log keeps little and tells all: every candidate of a record, term by term, is the one that pdr_explain() named just before that decision; with
 * exclusions, others' work, cached prefixes, late servers, and limits of decode servers in reach.
 */
#include "fleet.h"

#include "rng.h"

enum { ROUNDS = 40, DECISIONS = 60, CANDIDATES = 64 };

static uint64_t seed, drawn;
static uint64_t draw(uint64_t n) { return pdr_random_at(seed, ++drawn) % n; }

static const pdr_candidate *find(const pdr_candidate *c, size_t n, const pdr_candidate *x)
{
    for (size_t i = 0; i < n; i++)
        if (c[i].endpoint == x->endpoint && c[i].rank == x->rank && c[i].role == x->role) return &c[i];
    fail_msg("endpoint %u is no candidate", x->endpoint);
    return NULL;
}

static void compare(const pdr_log_record *r, const pdr_candidate *before, size_t n)
{
    assert_in_range(r->candidates, 2, PDR_LOG_CANDIDATES);
    assert_int_equal(r->candidates_total, n);
    for (uint32_t i = 0; i < r->candidates; i++) {
        const pdr_candidate *x = &r->candidate[i], *c = find(before, n, x);
        assert_int_equal(x->chosen, i < 2);
        assert_int_equal(x->barred, c->barred);
        assert_int_equal(x->matched_tokens, c->matched_tokens);
        assert_int_equal(x->uncached_tokens, c->uncached_tokens);
        assert_int_equal(x->wait_us, c->wait_us);
        assert_int_equal(x->work_us, c->work_us);
        assert_int_equal(x->price_us, c->price_us);
        assert_int_equal(x->transfer_us, c->chosen ? c->transfer_us : 0);
        assert_int_equal(x->cost_us, x->wait_us + x->work_us + x->price_us + x->transfer_us);
    }
}

/* Reports, failures and time. */
static void live(fleet *f)
{
    pdr_load load;
    pdr_init_struct(&load, sizeof load);
    f->now += draw(3) ? draw(50) * MS : draw(5000) * MS;
    if (draw(2)) return;
    load.have = PDR_LOAD_RUNNING | PDR_LOAD_WAITING_TOKENS | (draw(3) ? 0 : PDR_LOAD_KV_CAPACITY) | (draw(3) ? 0 : PDR_LOAD_MAX_RUNNING);
    load.kv_capacity = 20000 + draw(400000);
    load.max_running = 1 + (uint32_t)draw(8);
    load.running = draw(20);
    load.waiting_tokens = draw(2) ? draw(60000) : 0;
    (void)pdr_load_put(f->r, draw(2) ? f->prefill[draw(5)] : f->decode[draw(4)], PDR_NONE, &load, f->now, NULL);
}

static void tells_what_was_seen(void **state)
{
    (void)state;
    uint64_t hashes[256], cursor = 0, lost = 0;
    uint32_t compared = 0, matched = 0, waited = 0;
    for (seed = 1; seed <= ROUNDS; seed++) {
        pdr_config     c = fleet_config();
        pdr_log_record rec;
        fleet          f;
        c.hold = PDR_HOLD_OFF; /* else explain says who is busy, too */
        fleet_open(&f, &c, 5, 4);
        if (seed % 8 == 0) { /* so late that differences of the board's times do not fit */
            f.now = 1ull << 62;
            assert_int_equal(pdr_lease_open(f.r, "late", f.now, &f.lease, NULL), PDR_OK);
        }
        cursor = 0;
        pdr_init_struct(&rec, sizeof rec);
        for (int i = 0; i < DECISIONS; i++) {
            pdr_candidate before[CANDIDATES];
            pdr_decision  d, told;
            size_t        n = CANDIDATES;
            uint32_t      blocks = 1 + (uint32_t)draw(200);
            live(&f);
            pdr_prompt  p = fleet_prompt(blocks * 128 + draw(128), (uint32_t)draw(20), blocks / 2, hashes, blocks);
            pdr_request q = fleet_request(&f);
            q.flags = PDR_REQUEST_NO_HOLD;
            if (!draw(4)) q.exclude[q.excluded++] = f.prefill[draw(5)];
            pdr_init_struct(&d, sizeof d);
            pdr_init_struct(&told, sizeof told);
            assert_int_equal(pdr_explain(f.r, &p, hashes, blocks, &q, &told, before, &n, NULL), PDR_OK);
            if (pdr_route_prompt(f.r, &p, hashes, blocks, &q, &d, NULL)) continue;
            while (!pdr_log_read(f.r, &cursor, &rec, &lost)) {}
            assert_int_equal(rec.booking, d.booking);
            compare(&rec, before, n);
            compared++;
            matched += rec.candidate[0].matched_tokens > 0;
            waited += rec.candidate[0].wait_us > 0;
            uint64_t what = draw(6);
            if (what < 3) assert_int_equal(pdr_booking_done(f.r, d.booking, what ? PDR_DONE_PREFILL : PDR_DONE_ALL, f.now + draw(300) * MS), PDR_OK);
        }
        fleet_close(&f);
    }
    assert_true(compared > ROUNDS * DECISIONS / 2);
    assert_true(matched && waited);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tells_what_was_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
