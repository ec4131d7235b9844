/* A router's recorded decisions as a trace: arrivals, prefixes that requests share, and lengths as the answers' usage named them. */
#include "trace.h"

#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCK = 128, SHARED = 4, BLOCKS = 8, REQUESTS = 6, ASKED = 1000, SAID = 1040, ANSWER = 77 };

typedef struct recording {
    pdr_router *r;
    void       *mem;
    uint32_t    lease;
    uint64_t    now, cursor;
    uint8_t     file[1 << 20];
    size_t      n;
} recording;

static void append(recording *c)
{
    size_t n;
    do {
        assert_int_equal(pdr_record_read(c->r, &c->cursor, c->now, c->file + c->n, sizeof c->file - c->n, &n, NULL), PDR_OK);
        c->n += n;
    } while (n);
}

static void event(recording *c, pdr_exchange *x, uint32_t type, uint32_t leg, uint64_t answer)
{
    pdr_action a[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    pdr_event  e;
    pdr_init_struct(&e, sizeof e);
    e.type = type;
    e.leg = leg;
    e.status = 200;
    e.attempt = x->attempt;
    e.now_ns = c->now;
    e.usage = answer != 0;
    e.prompt_tokens = SAID;
    e.completion_tokens = answer;
    assert_int_equal(pdr_exchange_event(c->r, x, &e, a, &n), PDR_OK);
}

/* A request whose first SHARED blocks all have in common; its answer comes, if `answered`, with usage of both legs. */
static void request(recording *c, uint64_t i, int answered)
{
    uint64_t     hashes[BLOCKS];
    pdr_prompt   p;
    pdr_request  q;
    pdr_decision d;
    pdr_exchange x;
    pdr_action   a[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    for (uint64_t k = 0; k < BLOCKS; k++) hashes[k] = (k < SHARED ? k + 1 : (i + 1) * 100 + k) * 0x9E3779B97F4A7C15u;
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&x, sizeof x);
    p.api = q.api = PDR_API_GENERATE;
    p.flags = PDR_PROMPT_TOKENS;
    p.batch = p.samples = 1;
    p.prompt_tokens = ASKED;
    p.blocks = BLOCKS;
    q.lease = c->lease;
    q.tenant = i == 2 || i == 4 ? 0xabcdef : 0;
    q.priority = i >= 3 ? -5 : 0;
    c->now += 500000000; /* two a second */
    q.now_ns = c->now;
    assert_int_equal(pdr_route_prompt(c->r, &p, hashes, BLOCKS, &q, &d, NULL), PDR_OK);
    assert_int_equal(d.outcome, PDR_SEND);
    assert_int_equal(pdr_exchange_begin(c->r, &x, &d, c->lease, c->now, a, &n), PDR_OK);
    for (uint32_t leg = PDR_LEG_PREFILL; answered && leg <= PDR_LEG_DECODE; leg++) {
        event(c, &x, PDR_EV_HEAD, leg, 0);
        event(c, &x, PDR_EV_BODY, leg, 0);
        event(c, &x, PDR_EV_END, leg, leg == PDR_LEG_DECODE ? ANSWER : 1);
    }
    append(c);
}

static void open_router(recording *c)
{
    pdr_config k = {.struct_size = sizeof k, .seed = 1, .hold = PDR_HOLD_OFF, .record_bytes = 1 << 20, .block_bytes = BLOCK * 4};
    pdr_error  err;
    uint32_t   id;
    size_t     size = pdr_router_size(&k);
    pdr_init_struct(&err, sizeof err);
    memset(c, 0, sizeof *c);
    c->now = 1000000000;
    c->mem = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(c->mem);
    assert_int_equal(pdr_router_init(c->mem, size, &k, 1, &c->r, &err), PDR_OK);
    for (uint32_t role = PDR_ROLE_PREFILL; role <= PDR_ROLE_DECODE; role++) {
        pdr_endpoint e = {.struct_size = sizeof e, .role = role, .port = 8000 + role, .host = "10.0.0.1"};
        assert_int_equal(pdr_endpoint_put(c->r, &e, c->now, &id, &err), PDR_OK);
    }
    assert_int_equal(pdr_lease_open(c->r, "test", c->now, &c->lease, &err), PDR_OK);
    assert_int_equal(pdr_record_header(c->r, c->file, sizeof c->file, &c->n), PDR_OK);
    append(c);
}

static void finish_file(recording *c)
{
    size_t need;
    append(c);
    assert_int_equal(pdr_record_trailer(c->file + c->n, sizeof c->file - c->n, &need), PDR_OK);
    c->n += need;
}

static void a_record_is_a_trace(void **state)
{
    recording *c = malloc(sizeof *c);
    sim_trace  t = {0};
    char       why[256] = "";
    (void)state;
    assert_non_null(c);
    open_router(c);
    for (uint64_t i = 0; i < REQUESTS; i++) request(c, i, i != 1); /* the second one's answer never came */
    finish_file(c);
    assert_int_equal(sim_trace_read_record(&t, c->file, c->n, 0, why, sizeof why), 0);
    assert_int_equal(sim_trace_finish(&t), 0);
    assert_int_equal(t.n, REQUESTS);
    assert_false(t.closed);
    assert_int_equal(t.tenants.n, 4); /* two names, two priorities */
    assert_in_range(t.block, BLOCK - 1, BLOCK + 8); /* tokens per hash, in the engine's count */
    for (uint32_t i = 0; i < REQUESTS; i++) {
        const sim_entry *e = &t.entries[i];
        assert_true(e->at > i * .5 - 1e-6 && e->at < i * .5 + 1e-6);
        assert_int_equal(e->in, i == 1 ? ASKED : SAID);
        if (i != 1) assert_int_equal(e->out, ANSWER);
        assert_int_equal(e->n, (e->in + t.block - 1) / t.block);
        assert_string_equal(t.tenants.v[e->tenant].name, i == 2 || i == 4 ? "0000000000abcdef" : "");
        assert_int_equal(t.tenants.v[e->tenant].priority, i >= 3 ? -5 : 0);
        for (uint32_t k = 0; k < e->n; k++) assert_int_equal(t.ids[e->first + k] == t.ids[k], k < SHARED || i == 0);
    }
    sim_trace_free(&t);
    /* longer prompts than the window are left out, and counted */
    assert_int_equal(sim_trace_read_record(&t, c->file, c->n, SAID - 1, why, sizeof why), 0);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.dropped, REQUESTS - 1);
    assert_int_equal(sim_trace_finish(&t), 0);
    sim_trace_free(&t);
    /* a changed file is refused with a sentence */
    c->file[9] ^= 1;
    assert_int_equal(sim_trace_read_record(&t, c->file, c->n, 0, why, sizeof why), -1);
    assert_true(strlen(why) > 10);
    sim_trace_free(&t);
    free(c->mem);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_record_is_a_trace)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
