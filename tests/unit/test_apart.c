/*
 * Passes over the queue that look at the prefill side alone, beside passes that compare all pairs: where every server is in one zone topology decides nothing but is looked at,
 * so the same requests must get the same decisions as without any. Random fleets, prompts, priorities, tenants, speeds, open breakers, foreseen answers, exclusions.
 */
#include "fleet.h"

#include "block.h"
#include "rng.h"

enum { ROUNDS = 40, EVENTS = 400, RUNNING = 512 };

typedef struct twins {
    fleet    f[2]; /* 0: no topology; 1: all in one zone */
    int      prefills, decodes;
    uint64_t drawn, seed, running[RUNNING];
    uint32_t n;
    uint64_t released, held;
} twins;

static uint64_t draw(twins *t, uint64_t n) { return pdr_random_at(t->seed, ++t->drawn) % n; }

static void zone(fleet *f, const char *host, uint32_t role, const char *name)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    snprintf(e.name, sizeof e.name, "%s", name);
    snprintf(e.host, sizeof e.host, "%s", host);
    snprintf(e.topology_zone, sizeof e.topology_zone, "z");
    e.port = 8000;
    e.role = role;
    assert_int_equal(pdr_endpoint_put(f->r, &e, f->now, NULL, NULL), PDR_OK);
}

static __attribute__((noinline)) uint32_t zones(fleet *f)
{
    pdr_books b;
    assert_int_equal(pdr_books_lock(&b, f->r, f->now), PDR_OK);
    uint32_t n = b.registry.head->zones;
    pdr_books_unlock(&b, PDR_OK, NULL);
    return n;
}

static void begin(twins *t, uint64_t seed)
{
    char       name[32], host[32];
    pdr_config c = fleet_config();
    c.max_held = 128;
    *t = (twins){.seed = seed};
    t->prefills = 1 + (int)draw(t, 24);
    t->decodes = 1 + (int)draw(t, 12);
    for (int k = 0; k < 2; k++) fleet_open(&t->f[k], &c, t->prefills, t->decodes);
    for (int i = 0; i < t->prefills + t->decodes; i++) {
        int decode = i >= t->prefills, at = decode ? i - t->prefills : i;
        snprintf(name, sizeof name, "%c%d", decode ? 'd' : 'p', at);
        snprintf(host, sizeof host, "10.0.%d.%d", decode, at + 1);
        zone(&t->f[1], host, decode ? PDR_ROLE_DECODE : PDR_ROLE_PREFILL, name);
    }
    for (int k = 0; k < 2; k++) assert_int_equal(zones(&t->f[k]), k); /* or both would go the same way */
}

static void same(const pdr_decision *a, const pdr_decision *b)
{
    assert_int_equal(a->outcome, b->outcome);
    assert_int_equal(a->booking, b->booking);
    assert_int_equal(a->prefill, b->prefill);
    assert_int_equal(a->decode, b->decode);
    assert_int_equal(a->candidates, b->candidates);
    assert_int_equal(a->matched_tokens, b->matched_tokens);
    assert_int_equal(a->wait_us, b->wait_us);
    assert_int_equal(a->prefill_us, b->prefill_us);
    assert_int_equal(a->decode_us, b->decode_us);
    assert_int_equal(a->cost_us, b->cost_us);
    assert_int_equal(a->room, b->room);
}

static void arrive(twins *t)
{
    uint64_t     hashes[256], tokens = 128 + draw(t, draw(t, 3) ? 3000 : 30000), due = draw(t, 8) ? 0 : (1 + draw(t, 20)) * SECOND;
    uint32_t     blocks = (uint32_t)(tokens / 128), s = (uint32_t)draw(t, 12), shared = (uint32_t)draw(t, 2) * 8, excluded = !draw(t, 10);
    uint64_t     tenant = draw(t, 3);
    int32_t      priority = draw(t, 6) ? 0 : (int32_t)draw(t, 3);
    int          code[2], victim = (int)draw(t, (uint64_t)t->prefills);
    pdr_decision d[2];
    for (int k = 0; k < 2; k++) {
        pdr_prompt  p = fleet_prompt(tokens, s, shared < blocks ? shared : blocks, hashes, blocks);
        pdr_request q = fleet_request(&t->f[k]);
        q.tenant = tenant;
        q.priority = priority;
        q.deadline_ns = due ? q.now_ns + due : 0;
        q.excluded = excluded;
        q.exclude[0] = t->f[k].prefill[victim];
        pdr_init_struct(&d[k], sizeof d[k]);
        code[k] = pdr_route_prompt(t->f[k].r, &p, hashes, blocks, &q, &d[k], NULL);
    }
    assert_int_equal(code[0], code[1]);
    if (code[0]) return;
    same(&d[0], &d[1]);
    t->held += d[0].outcome == PDR_HELD;
    if (d[0].outcome == PDR_SEND && t->n < RUNNING) t->running[t->n++] = d[0].booking;
}

static void fetch(twins *t)
{
    uint64_t ticket[2][64];
    size_t   n[2] = {64, 64};
    for (int k = 0; k < 2; k++) assert_int_equal(pdr_released(t->f[k].r, t->f[k].lease, ticket[k], &n[k]), PDR_OK);
    assert_int_equal(n[0], n[1]);
    for (size_t i = 0; i < n[0]; i++) {
        pdr_decision d[2];
        int          code[2];
        assert_int_equal(ticket[0][i], ticket[1][i]);
        for (int k = 0; k < 2; k++) {
            pdr_init_struct(&d[k], sizeof d[k]);
            code[k] = pdr_ticket_take(t->f[k].r, ticket[k][i], NULL, 0, t->f[k].now, &d[k], NULL);
        }
        assert_int_equal(code[0], code[1]);
        if (code[0]) continue;
        same(&d[0], &d[1]);
        t->released++;
        if (t->n < RUNNING) t->running[t->n++] = d[0].booking;
    }
}

typedef struct meddling { uint64_t what, at, until; uint32_t slow; } meddling;

/* A server's state that no event of this test would bring about. */
static __attribute__((noinline)) void meddle_in(fleet *f, const meddling *m)
{
    pdr_books b;
    assert_int_equal(pdr_books_lock(&b, f->r, f->now), PDR_OK);
    uint32_t    w = m->what == 3 ? b.registry.decode[m->at % b.registry.head->decode_n] : b.registry.prefill[m->at % b.registry.head->prefill_n];
    pdr_target *x = &b.registry.targets[w];
    if (m->what == 0) b.registry.head->foreseen = (uint32_t)m->at & 1;
    if (m->what == 1) x->slowness_q10 = m->slow;
    if (m->what >= 2) x->guarded = 1, x->open_until_ns = b.now_ns + m->until;
    pdr_board_renew(&b.registry, w);
    pdr_books_unlock(&b, PDR_OK, NULL);
}

static void meddle(twins *t)
{
    meddling m = {draw(t, 4), draw(t, 64), draw(t, 3) * SECOND, (uint32_t)(draw(t, 2) ? 1024 : 700 + draw(t, 3000))};
    for (int k = 0; k < 2; k++) meddle_in(&t->f[k], &m); /* the same in both */
}

static void end_one(twins *t)
{
    if (!t->n) return;
    uint32_t i = (uint32_t)draw(t, t->n), what = draw(t, 2) ? PDR_DONE_PREFILL : PDR_DONE_ALL;
    int      code[2];
    for (int k = 0; k < 2; k++) code[k] = pdr_booking_done(t->f[k].r, t->running[i], what, t->f[k].now);
    assert_int_equal(code[0], code[1]);
    if (what == PDR_DONE_ALL) t->running[i] = t->running[--t->n];
}

static void test_same_releases(void **state)
{
    uint64_t released = 0, held = 0;
    (void)state;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        static twins t;
        begin(&t, round);
        for (int i = 0; i < EVENTS; i++) {
            uint64_t step = draw(&t, 60) * MS, what = draw(&t, 20);
            for (int k = 0; k < 2; k++) t.f[k].now += step;
            if (what < 11)
                arrive(&t);
            else if (what < 19)
                end_one(&t);
            else
                meddle(&t);
            fetch(&t);
        }
        released += t.released;
        held += t.held;
        for (int k = 0; k < 2; k++) fleet_close(&t.f[k]);
    }
    assert_true(held > 1000 && released > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_releases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
