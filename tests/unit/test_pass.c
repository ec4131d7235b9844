/*
 * Choices and passes over the queue with all their shortcuts, beside those that compare everything: of two routers with the same life one is told to be plain, and both must decide
 * the same, whichever of them is recorded. Random fleets with ranks, topology, servers that do both, servers that come and go, reports, breakers,
 * speeds, exclusions, priorities, tenants, ageing, shared prefixes, all policies, and jumps of time.
 */
#include "fleet.h"

#include "block.h"
#include "rng.h"

enum { ROUNDS = 60, EVENTS = 300, RUNNING = 1024, SERVERS = 40 };

typedef struct twin {
    pdr_router *r;
    void       *mem;
    uint32_t    lease;
    uint64_t    cursor;
} twin;

typedef struct twins {
    twin     t[2]; /* the second is plain */
    uint32_t recorded;
    uint64_t now, drawn, seed, running[RUNNING], released, held;
    uint32_t n, topology, nested, likeness, ids[SERVERS]; /* nested: hosts in racks in zones, as they are; else at random, some unknown */
} twins;

static uint8_t tape[1 << 20];

static uint64_t draw(twins *t, uint64_t n) { return pdr_random_at(t->seed, ++t->drawn) % n; }

/* Recording stops when nobody reads; the other one sees the same time. */
static void listen(twins *t)
{
    size_t n;
    do {
        twin *x = &t->t[t->recorded];
        int   code = pdr_record_read(x->r, &x->cursor, t->now, tape, sizeof tape, &n, NULL);
        assert_int_equal(code, PDR_OK);
    } while (n);
    assert_int_equal(pdr_lease_renew(t->t[0].r, t->t[0].lease, t->now), PDR_OK);
    assert_int_equal(pdr_lease_renew(t->t[1].r, t->t[1].lease, t->now), PDR_OK);
}

static void put(twins *t, uint32_t i)
{
    pdr_endpoint e;
    uint64_t     kind = draw(t, 20);
    pdr_init_struct(&e, sizeof e);
    snprintf(e.name, sizeof e.name, "s%u", i);
    snprintf(e.host, sizeof e.host, "10.0.0.%u", i + 1);
    e.port = 8000;
    e.role = i == 0 ? PDR_ROLE_PREFILL : i == 1 ? PDR_ROLE_DECODE : kind < 10 ? PDR_ROLE_PREFILL : kind < 19 || t->topology & 4 ? PDR_ROLE_DECODE : PDR_ROLE_BOTH;
    if (e.role == PDR_ROLE_PREFILL && !draw(t, 4)) e.dp_size = 2 + (uint32_t)draw(t, 3);
    if (t->topology & 1 && t->nested) {
        snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", i / (t->likeness * 8));
        snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", i / (t->likeness * 4));
        snprintf(e.topology_host, sizeof e.topology_host, "h%u", i / (t->likeness * 2));
    } else if (t->topology & 1) {
        if (draw(t, 4)) snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", (unsigned)draw(t, 3));
        if (draw(t, 3)) snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", (unsigned)draw(t, 5));
        if (draw(t, 3)) snprintf(e.topology_host, sizeof e.topology_host, "h%u", (unsigned)draw(t, 8));
    }
    for (int k = 0; k < 2; k++) assert_int_equal(pdr_endpoint_put(t->t[k].r, &e, t->now, &t->ids[i], NULL), PDR_OK);
}

static __attribute__((noinline)) void make_plain(pdr_router *r)
{
    pdr_books b;
    assert_int_equal(pdr_books_lock(&b, r, 0), PDR_OK);
    b.registry.head->plain = 1;
    pdr_books_unlock(&b, PDR_OK, NULL);
}

static void begin(twins *t, uint64_t seed)
{
    pdr_config c = fleet_config();
    memset(t, 0, sizeof *t);
    t->seed = seed;
    t->now = 1000 * SECOND;
    c.max_targets = 160;
    c.max_held = 256;
    c.max_bookings = 2048;
    c.record_bytes = 1 << 20;
    c.lease_ttl_ms = 3600000;
    c.policy = draw(t, 5) ? PDR_POLICY_DEFAULT : (uint32_t)draw(t, 5);
    c.hold_ageing_ms = draw(t, 3) ? 0 : 1 + (uint32_t)draw(t, 5000);
    c.hold_max_wait_ms = draw(t, 2) ? 0 : 2000 + (uint32_t)draw(t, 60000);
    t->topology = draw(t, 4) ? (uint32_t)(4 + draw(t, 2)) : (uint32_t)draw(t, 8); /* mostly no server that does both: there shortcuts are taken, without topology and with it */
    t->nested = (uint32_t)draw(t, 2);
    if (!draw(t, 3)) c.transfer_mbps_host = c.transfer_mbps_rack = c.transfer_mbps_zone = c.transfer_mbps_far = 50000; /* near and far cost the same: only ties decide */
    t->likeness = 1 + (uint32_t)draw(t, 3);
    for (int k = 0; k < 2; k++) {
        size_t size = pdr_router_size(&c);
        t->t[k].mem = aligned_alloc(64, (size + 63) & ~(size_t)63);
        assert_non_null(t->t[k].mem);
        assert_int_equal(pdr_router_init(t->t[k].mem, size, &c, 7, &t->t[k].r, NULL), PDR_OK);
        assert_int_equal(pdr_lease_open(t->t[k].r, "test", t->now, &t->t[k].lease, NULL), PDR_OK);
    }
    make_plain(t->t[1].r);
    t->recorded = (uint32_t)seed & 1;
    for (uint32_t i = 0, n = 2 + (uint32_t)draw(t, SERVERS - 2); i < n; i++) put(t, i);
}

static void end(twins *t)
{
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    for (int k = 0; k < 2; k++) {
        if (pdr_router_check(t->t[k].r, &err)) fail_msg("check: %s", err.message);
        free(t->t[k].mem);
    }
}

static void same(const pdr_decision *a, const pdr_decision *b)
{
    assert_int_equal(a->outcome, b->outcome);
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(a->booking, b->booking);
    assert_int_equal(a->prefill, b->prefill);
    assert_int_equal(a->decode, b->decode);
    assert_int_equal(a->prefill_rank, b->prefill_rank);
    assert_int_equal(a->decode_rank, b->decode_rank);
    assert_int_equal(a->candidates, b->candidates);
    assert_int_equal(a->matched_tokens, b->matched_tokens);
    assert_int_equal(a->wait_us, b->wait_us);
    assert_int_equal(a->prefill_us, b->prefill_us);
    assert_int_equal(a->decode_us, b->decode_us);
    assert_int_equal(a->transfer_us, b->transfer_us);
    assert_int_equal(a->cost_us, b->cost_us);
    assert_int_equal(a->room, b->room);
    assert_int_equal(a->retry_after_ms, b->retry_after_ms);
}

static void runs(twins *t, uint64_t booking)
{
    if (t->n < RUNNING) t->running[t->n++] = booking;
}

static void arrive(twins *t)
{
    uint64_t     hashes[512], tokens = 128 + draw(t, draw(t, 3) ? 3000 : 60000), due = draw(t, 8) ? 0 : (1 + draw(t, 20)) * SECOND;
    uint32_t     blocks = (uint32_t)(tokens / 128), s = (uint32_t)draw(t, 12), shared = (uint32_t)draw(t, 2) * 8, excluded = draw(t, 10) ? 0 : 1 + (uint32_t)draw(t, 2);
    uint32_t     victim[2] = {(uint32_t)draw(t, SERVERS), (uint32_t)draw(t, SERVERS)};
    uint64_t     tenant = draw(t, 3);
    int32_t      priority = draw(t, 6) ? 0 : (int32_t)draw(t, 3), samples = draw(t, 20) ? 1 : 2;
    int          code[2];
    pdr_decision d[2];
    for (int k = 0; k < 2; k++) {
        pdr_prompt  p = fleet_prompt(tokens, s, shared < blocks ? shared : blocks, hashes, blocks);
        pdr_request q;
        pdr_init_struct(&q, sizeof q);
        p.samples = (uint32_t)samples;
        q.api = PDR_API_CHAT;
        q.lease = t->t[k].lease;
        q.now_ns = t->now;
        q.tenant = tenant;
        q.priority = priority;
        q.deadline_ns = due ? q.now_ns + due : 0;
        q.excluded = excluded;
        for (uint32_t i = 0; i < excluded; i++) q.exclude[i] = t->ids[victim[i]];
        pdr_init_struct(&d[k], sizeof d[k]);
        code[k] = pdr_route_prompt(t->t[k].r, &p, hashes, blocks, &q, &d[k], NULL);
    }
    assert_int_equal(code[0], code[1]);
    same(&d[0], &d[1]);
    if (code[0]) return;
    t->held += d[0].outcome == PDR_HELD;
    if (d[0].outcome == PDR_SEND) runs(t, d[0].booking);
}

static void fetch(twins *t)
{
    uint64_t ticket[2][300];
    size_t   n[2] = {300, 300};
    for (int k = 0; k < 2; k++) assert_int_equal(pdr_released(t->t[k].r, t->t[k].lease, ticket[k], &n[k]), PDR_OK);
    assert_int_equal(n[0], n[1]);
    for (size_t i = 0; i < n[0]; i++) {
        pdr_decision d[2];
        int          code[2];
        assert_int_equal(ticket[0][i], ticket[1][i]);
        for (int k = 0; k < 2; k++) {
            pdr_init_struct(&d[k], sizeof d[k]);
            code[k] = pdr_ticket_take(t->t[k].r, ticket[k][i], NULL, 0, t->now, &d[k], NULL);
        }
        assert_int_equal(code[0], code[1]);
        same(&d[0], &d[1]);
        if (code[0]) continue;
        t->released++;
        runs(t, d[0].booking);
    }
}

static void finish(twins *t)
{
    if (!t->n) return;
    uint32_t i = (uint32_t)draw(t, t->n), what = draw(t, 2) ? PDR_DONE_PREFILL : PDR_DONE_ALL;
    int      code[2];
    for (int k = 0; k < 2; k++) code[k] = pdr_booking_done(t->t[k].r, t->running[i], what, t->now);
    assert_int_equal(code[0], code[1]);
    if (what == PDR_DONE_ALL) t->running[i] = t->running[--t->n];
}

static void cancel_or_tick(twins *t)
{
    int cancel = t->n && draw(t, 2);
    uint64_t booking = cancel ? t->running[draw(t, t->n)] : 0;
    for (int k = 0; k < 2; k++) {
        if (cancel)
            pdr_ticket_cancel(t->t[k].r, booking, t->now);
        else
            assert_int_equal(pdr_tick(t->t[k].r, t->now), PDR_OK);
    }
}

static void report(twins *t)
{
    pdr_load l;
    uint32_t id = t->ids[draw(t, SERVERS)];
    pdr_init_struct(&l, sizeof l);
    l.have = PDR_LOAD_WAITING_TOKENS | PDR_LOAD_RUNNING | PDR_LOAD_KV_USED | PDR_LOAD_KV_CAPACITY | (draw(t, 2) ? (uint32_t)PDR_LOAD_MAX_RUNNING : 0);
    l.waiting_tokens = draw(t, 2) * draw(t, 30000);
    l.running = draw(t, 20);
    l.kv_used = draw(t, 50000);
    l.kv_capacity = 30000 + draw(t, 100000);
    l.max_running = 4 + (uint32_t)draw(t, 20);
    int code[2];
    for (int k = 0; k < 2; k++) code[k] = pdr_load_put(t->t[k].r, id, 0, &l, t->now, NULL);
    assert_int_equal(code[0], code[1]);
}

/* Servers come, drain, are down, go. */
static void change(twins *t)
{
    uint32_t i = (uint32_t)draw(t, SERVERS), what = (uint32_t)draw(t, 4), on = (uint32_t)draw(t, 2);
    if (what == 0) {
        put(t, i);
        return;
    }
    for (int k = 0; k < 2; k++) {
        if (what == 1) pdr_endpoint_drain(t->t[k].r, t->ids[i], (int)on, NULL);
        if (what == 2) pdr_endpoint_health(t->t[k].r, t->ids[i], (int)on, t->now, NULL);
        if (what == 3 && i > 1) pdr_endpoint_remove(t->t[k].r, t->ids[i], NULL);
    }
}

typedef struct meddling { uint64_t what, at, until; uint32_t slow; } meddling;

/* A server's state that no event of this test would bring about. */
static __attribute__((noinline)) void meddle_in(twin *x, const meddling *m, uint64_t now)
{
    pdr_books b;
    assert_int_equal(pdr_books_lock(&b, x->r, now), PDR_OK);
    const pdr_registry_head *h = b.registry.head;
    const uint32_t          *list = m->what == 3 ? b.registry.decode : b.registry.prefill;
    uint32_t                 n = m->what == 3 ? h->decode_n : h->prefill_n;
    if (m->what == 0) b.registry.head->foreseen = (uint32_t)m->at & 1, b.r->rates.reload_ns = m->at & 2 ? 10000u * (uint32_t)(m->at >> 2) : 0; /* cached may be dearer than not */
    if (m->what && n) {
        pdr_target *y = &b.registry.targets[list[m->at % n]];
        if (m->what == 1) y->slowness_q10 = m->slow;
        if (m->what >= 2) y->guarded = PDR_GUARD_BREAKER, y->open_until_ns = b.now_ns + m->until;
        pdr_board_renew(&b.registry, list[m->at % n]);
    }
    pdr_books_unlock(&b, PDR_OK, NULL);
}

static void meddle(twins *t)
{
    meddling m = {draw(t, 4), draw(t, 64), draw(t, 3) * SECOND, (uint32_t)(draw(t, 2) ? 1024 : 700 + draw(t, 3000))};
    for (int k = 0; k < 2; k++) meddle_in(&t->t[k], &m, t->now); /* the same in both */
}

static void test_same_decisions(void **state)
{
    uint64_t released = 0, held = 0, rounds = getenv("PDR_TEST_ROUNDS") ? strtoull(getenv("PDR_TEST_ROUNDS"), NULL, 10) : ROUNDS;
    (void)state;
    for (uint64_t round = 1; round <= rounds; round++) {
        static twins t;
        begin(&t, round);
        for (int i = 0; i < EVENTS; i++) {
            uint64_t what = draw(&t, 40);
            t.now += draw(&t, 50) ? draw(&t, 60) * MS + draw(&t, 3) : draw(&t, 9) * SECOND;
            listen(&t);
            assert_true(t.t[t.recorded].r->recording && !t.t[!t.recorded].r->recording);
            if (what < 22)
                arrive(&t);
            else if (what < 34)
                finish(&t);
            else if (what < 35)
                cancel_or_tick(&t);
            else if (what < 37)
                report(&t);
            else if (what < 38)
                change(&t);
            else
                meddle(&t);
            fetch(&t);
        }
        released += t.released;
        held += t.held;
        end(&t);
    }
    print_message("%llu held, %llu of them released\n", (unsigned long long)held, (unsigned long long)released);
    assert_true(held > 40 * rounds && released > 20 * rounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_decisions)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
