/*
 * Recording and replay: what a busy router decided is decided again, bit by bit, from the file alone; also from a file that another machine recorded
 * (tests/data/recorded.pdr, written by `test_record --write FILE`).
 */
#include "fleet.h"

#include "router_record.h"

enum { PREFILLS = 6, DECODES = 4, FLIGHT = 64, CHUNK = 1 << 15 };

typedef struct file { uint8_t *p; size_t n; } file;

typedef struct play {
    fleet    f;
    uint64_t random, cursor, lost;
    file     out;
    struct { uint64_t booking; int held, prefilled; } flight[FLIGHT];
    uint32_t in_flight, sent, held, refused;
} play;

static uint32_t below(play *t, uint32_t n)
{
    t->random = t->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(t->random >> 33) % n;
}

static void append(file *o, const void *p, size_t n)
{
    o->p = realloc(o->p, o->n + n);
    assert_non_null(o->p);
    memcpy(o->p + o->n, p, n);
    o->n += n;
}

static void drain(play *t)
{
    static uint8_t buf[CHUNK];
    size_t         n;
    do {
        assert_int_equal(pdr_record_read(t->f.r, &t->cursor, t->f.now, buf, sizeof buf, &n, &t->lost), PDR_OK);
        append(&t->out, buf, n);
    } while (n);
}

static void begin(play *t)
{
    static uint8_t buf[8192];
    size_t         need;
    assert_int_equal(pdr_record_header(t->f.r, buf, sizeof buf, &need), PDR_OK);
    append(&t->out, buf, need);
    drain(t);
}

static void end(play *t)
{
    uint8_t buf[64];
    size_t  need;
    drain(t);
    assert_int_equal(pdr_record_trailer(buf, sizeof buf, &need), PDR_OK);
    append(&t->out, buf, need);
}

static void route(play *t)
{
    uint64_t     hashes[256];
    pdr_decision d;
    uint32_t     tokens = 200 + below(t, 12000), talk = below(t, 30);
    pdr_prompt   p = fleet_prompt(tokens, talk, 4, hashes, tokens / 128);
    pdr_request  q = fleet_request(&t->f);
    pdr_init_struct(&d, sizeof d);
    q.priority = (int32_t)below(t, 3) - 1;
    if (!below(t, 12)) q.exclude[q.excluded++] = below(t, PREFILLS + DECODES);
    if (!below(t, 20)) q.flags = PDR_REQUEST_NO_HOLD;
    if (pdr_route_prompt(t->f.r, &p, hashes, p.blocks, &q, &d, NULL)) {
        t->refused++;
        return;
    }
    t->sent += d.outcome == PDR_SEND;
    t->held += d.outcome == PDR_HELD;
    t->flight[t->in_flight].booking = d.booking;
    t->flight[t->in_flight].prefilled = 0;
    t->flight[t->in_flight++].held = d.outcome == PDR_HELD;
}

static void advance(play *t)
{
    uint32_t     i = below(t, t->in_flight);
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    if (t->flight[i].held) {
        int code = below(t, 60) ? pdr_ticket_take(t->f.r, t->flight[i].booking, NULL, 0, t->f.now, &d, NULL) : pdr_ticket_cancel(t->f.r, t->flight[i].booking, t->f.now);
        if (!code && d.outcome == PDR_SEND) t->flight[i].held = 0;
        else if (code != PDR_E_AGAIN) t->flight[i] = t->flight[--t->in_flight];
        return;
    }
    pdr_booking_done(t->f.r, t->flight[i].booking, t->flight[i].prefilled ? PDR_DONE_ALL : PDR_DONE_PREFILL, t->f.now);
    if (t->flight[i].prefilled++) t->flight[i] = t->flight[--t->in_flight];
}

static void report(play *t)
{
    pdr_load l;
    pdr_init_struct(&l, sizeof l);
    l.have = PDR_LOAD_RUNNING | PDR_LOAD_WAITING_TOKENS | PDR_LOAD_KV_USED;
    l.running = below(t, 20);
    l.waiting_tokens = below(t, 30000);
    l.kv_used = below(t, 100000);
    pdr_load_put(t->f.r, below(t, PREFILLS + DECODES), 0, &l, t->f.now, NULL);
}

/* From here on, or no longer, the end of prompts is foreseen. */
static void foresee(play *t)
{
    pdr_books b;
    pdr_books_open(&b, t->f.r);
    b.registry.head->foreseen = !b.registry.head->foreseen;
    b.registry.head->through_ns = 0;
}

static void step(play *t)
{
    uint32_t what = below(t, 20);
    if (!below(t, 100)) foresee(t);
    t->f.now += below(t, 60) * MS;
    if (what < 7 && t->in_flight < FLIGHT) {
        route(t);
    } else if (what < 17 && t->in_flight) {
        advance(t);
    } else if (what == 17) {
        report(t);
    } else if (what == 18 && !below(t, 6)) {
        uint32_t id = below(t, PREFILLS + DECODES); /* in this order, whatever the compiler */
        pdr_endpoint_health(t->f.r, id, below(t, 3) > 0, t->f.now, NULL);
    } else {
        pdr_tick(t->f.r, t->f.now);
    }
}

static play *start(uint32_t policy, uint64_t record_bytes)
{
    play      *t = calloc(1, sizeof *t);
    pdr_config c = fleet_config();
    pdr_endpoint e;
    assert_non_null(t);
    c.policy = policy;
    c.max_held = 24;
    c.hold_window_tokens = 3000;
    c.record_bytes = record_bytes;
    fleet_open(&t->f, &c, PREFILLS, DECODES);
    for (uint32_t i = 0; i < PREFILLS + DECODES; i++) {
        pdr_init_struct(&e, sizeof e);
        assert_int_equal(pdr_endpoint_get(t->f.r, i, &e, NULL), PDR_OK);
        snprintf(e.topology_host, sizeof e.topology_host, "h%u", i % 3);
        snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", i % 2);
        if (i == 1) e.dp_size = 3;
        if (i == PREFILLS) e.flags |= PDR_ENDPOINT_ALONE;
        e.kv_capacity = 90000 + i * 1000;
        assert_int_equal(pdr_endpoint_put(t->f.r, &e, t->f.now, NULL, NULL), PDR_OK);
    }
    t->random = 7 + policy;
    return t;
}

static void stop(play *t)
{
    fleet_close(&t->f);
    free(t->out.p);
    free(t);
}

typedef struct tally { uint64_t steps, checked, same, routed, released, refused, gone, lost, prefilled, held; } tally;

static tally replay(const void *p, size_t n, uint32_t flags, uint32_t policy)
{
    pdr_replay     *r = NULL;
    pdr_replay_step s;
    pdr_error       err;
    tally           t = {0};
    int             code;
    pdr_init_struct(&err, sizeof err);
    if (pdr_replay_open(p, n, flags, &r, &err)) fail_msg("%s", err.message);
    for (;;) {
        pdr_init_struct(&s, sizeof s);
        if ((code = pdr_replay_next(r, policy, &s, &err))) break;
        assert_int_equal(s.number, ++t.steps);
        t.checked += s.checked;
        t.same += s.same;
        t.routed += s.kind == PDR_REPLAY_ROUTED;
        t.released += s.kind == PDR_REPLAY_RELEASED;
        t.refused += s.kind == PDR_REPLAY_REFUSED;
        t.gone += s.kind == PDR_REPLAY_GONE;
        t.lost += s.kind == PDR_REPLAY_LOST;
        t.prefilled += s.kind == PDR_REPLAY_PREFILLED;
        t.held += s.kind == PDR_REPLAY_ROUTED && s.recorded.outcome == PDR_HELD;
        if (s.checked && !s.same && policy == PDR_NONE)
            fail_msg("step %llu, kind %u: recorded %d, %u -> %u for %llu us; replayed %d, %u -> %u for %llu us", (unsigned long long)s.number, s.kind,
                     s.recorded.outcome, s.recorded.prefill, s.recorded.decode, (unsigned long long)s.recorded.cost_us, s.replayed.outcome,
                     s.replayed.prefill, s.replayed.decode, (unsigned long long)s.replayed.cost_us);
    }
    if (code != PDR_E_NOT_FOUND) fail_msg("%s", err.message);
    pdr_replay_close(r);
    return t;
}

static void every_decision_is_made_again(void **state)
{
    (void)state;
    for (uint32_t policy = PDR_POLICY_DEFAULT; policy <= PDR_POLICY_POWER_OF_TWO; policy++) {
        play *t = start(policy, 0);
        for (int i = 0; i < 500; i++) step(t); /* a recording begins in the middle, with requests held */
        t->sent = t->held = t->refused = 0;
        begin(t);
        for (int i = 0; i < 4000; i++) {
            step(t);
            if (i % 16 == 0) drain(t);
        }
        end(t);
        assert_int_equal(t->lost, 0);
        tally y = replay(t->out.p, t->out.n, 0, PDR_NONE);
        assert_int_equal(y.routed, t->sent + t->held + t->refused);
        assert_int_equal(y.checked, y.same);
        assert_int_equal(y.checked, y.routed + y.released + y.refused);
        assert_true(y.routed > 900 && y.released > 100 && y.held > 100 && y.gone > 0 && y.prefilled > 100 && !y.lost);
        tally other = replay(t->out.p, t->out.n, 0, policy == PDR_POLICY_RANDOM ? PDR_POLICY_ROUND_ROBIN : PDR_POLICY_RANDOM);
        assert_int_equal(other.routed, y.routed);
        assert_true(other.same < other.checked);
        stop(t);
    }
}

static void nothing_is_recorded_unless_somebody_reads(void **state)
{
    (void)state;
    play *t = start(PDR_POLICY_DEFAULT, 0);
    for (int i = 0; i < 300; i++) step(t);
    begin(t);
    size_t before = t->out.n;
    for (int i = 0; i < 300; i++) step(t);
    drain(t);
    assert_true(t->out.n > before + 1000);
    t->f.now += 11 * SECOND; /* its reader is gone */
    for (int i = 0; i < 300; i++) step(t);
    size_t n = t->out.n;
    drain(t);
    assert_true(t->out.n < n + 2000); /* at most what was begun before it was noticed */
    end(t);
    replay(t->out.p, t->out.n, 0, PDR_NONE);
    stop(t);
}

/* Lost: overwritten before it was read, or not written because nobody had read for so long. Both begin anew with all that is known. */
static void losses_are_told_and_overcome(void **state)
{
    (void)state;
    for (uint64_t seed = 7; seed < 13; seed++) {
        play *t = start(PDR_POLICY_DEFAULT, 65536);
        t->random = seed;
        begin(t);
        for (int i = 0; i < 3000; i++) {
            step(t);
            if (i % 700 == 0) drain(t);
        }
        drain(t);
        for (int i = 0; i < 300; i++) {
            step(t);
            drain(t);
        }
        end(t);
        assert_true(t->lost > 0);
        tally y = replay(t->out.p, t->out.n, 0, PDR_NONE);
        assert_true(y.lost > 0);
        assert_true(y.checked < y.routed + y.released + y.refused || y.routed > 500);
        assert_int_equal(y.checked, y.same);
        assert_true(y.checked > 100);
        stop(t);
    }
}

static int opens(const void *p, size_t n, uint32_t flags, char *message)
{
    pdr_replay *r = NULL;
    pdr_error   err;
    pdr_init_struct(&err, sizeof err);
    int code = pdr_replay_open(p, n, flags, &r, &err);
    pdr_replay_close(r);
    strcpy(message, err.message);
    return code;
}

static void torn_foreign_and_changed_files_are_refused(void **state)
{
    (void)state;
    char  m[256];
    play *t = start(PDR_POLICY_DEFAULT, 0);
    begin(t);
    for (int i = 0; i < 400; i++) {
        step(t);
        drain(t);
    }
    end(t);
    uint8_t *p = t->out.p;
    size_t   n = t->out.n;
    assert_int_equal(opens(p, n, 0, m), PDR_OK);
    assert_int_equal(opens("{\"hash_ids\": [1, 2, 3], \"timestamp\": 0}", 40, 0, m), PDR_E_BLOCK_MAGIC);
    assert_int_equal(opens(p, 7, 0, m), PDR_E_BLOCK_MAGIC);
    for (size_t cut = 16; cut < n; cut += 1 + n / 300) {
        assert_int_equal(opens(p, cut, 0, m), PDR_E_BLOCK_CORRUPT);
        assert_non_null(strstr(m, "byte"));
    }
    assert_int_equal(opens(p, n - 24, 0, m), PDR_E_BLOCK_CORRUPT);
    assert_non_null(strstr(m, "end is missing"));
    for (size_t at = 20; at < n; at += 1 + n / 300) {
        p[at] ^= 4;
        assert_true(opens(p, n, 0, m) < 0);
        p[at] ^= 4;
    }
    p[8]++;
    assert_int_equal(opens(p, n, 0, m), PDR_E_BLOCK_LAYOUT);
    p[8]--;
    tally whole = replay(p, n, 0, PDR_NONE), part = replay(p, n / 2, PDR_REPLAY_PARTIAL, PDR_NONE);
    assert_true(part.checked > 20 && part.checked < whole.checked && part.same == part.checked);
    stop(t);
}

/* What a step tells beside the decision: hashes, candidates, endpoints. */
static void a_step_can_be_looked_into(void **state)
{
    (void)state;
    play           *t = start(PDR_POLICY_DEFAULT, 0);
    pdr_replay     *r;
    pdr_replay_step s;
    pdr_candidate   c[64];
    pdr_endpoint    e;
    pdr_config      config;
    uint64_t        hashes[256], seen = 0;
    begin(t);
    for (int i = 0; i < 200; i++) step(t);
    end(t);
    assert_int_equal(pdr_replay_open(t->out.p, t->out.n, 0, &r, NULL), PDR_OK);
    pdr_init_struct(&config, sizeof config);
    assert_int_equal(pdr_replay_config(r, &config), PDR_OK);
    assert_int_equal(config.hold_window_tokens, 3000);
    for (pdr_init_struct(&s, sizeof s); !pdr_replay_next(r, PDR_NONE, &s, NULL);) {
        size_t n = 256, k = 64;
        if (s.kind != PDR_REPLAY_ROUTED) {
            assert_int_equal(pdr_replay_hashes(r, hashes, &n), PDR_E_NOT_FOUND);
            continue;
        }
        assert_int_equal(pdr_replay_hashes(r, hashes, &n), PDR_OK);
        assert_int_equal(n, s.prompt_tokens / 128);
        assert_int_equal(n, s.blocks);
        if (n) assert_true(hashes[0] == 0x9E3779B97F4A7C15u);
        assert_int_equal(pdr_replay_explain(r, c, &k), PDR_OK);
        uint64_t cost = UINT64_MAX;
        for (size_t i = 0; i < k; i++)
            if (c[i].chosen && c[i].role == PDR_ROLE_PREFILL) cost = c[i].cost_us;
        if (s.recorded.outcome > 0 && s.recorded.prefill != PDR_NONE) { /* else: others were held and nobody free, no choice was made, or it went to a decode server alone */
            assert_int_equal(cost, s.recorded.prefill_us);
            pdr_init_struct(&e, sizeof e);
            assert_int_equal(pdr_replay_endpoint(r, s.recorded.prefill, &e), PDR_OK);
            assert_true(e.name[0] == 'p' && e.role == PDR_ROLE_PREFILL);
            seen++;
        }
    }
    assert_true(seen > 20);
    pdr_replay_close(r);
    stop(t);
}

static play *recording(void)
{
    play *t = start(PDR_POLICY_DEFAULT, 0);
    for (int i = 0; i < 300; i++) step(t);
    begin(t);
    for (int i = 0; i < 900; i++) {
        step(t);
        if (i % 16 == 0) drain(t);
    }
    end(t);
    return t;
}

static void a_file_of_another_machine_gives_the_same(void **state)
{
    (void)state;
    FILE           *f = fopen(PDR_TEST_DATA "/recorded.pdr", "rb");
    static uint8_t  bytes[1 << 20];
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    tally y = replay(bytes, n, 0, PDR_NONE);
    assert_int_equal(y.checked, y.same);
    assert_true(y.routed > 100 && y.released > 20 && y.held > 20);
    play *t = recording(); /* and the same calls are recorded in the same bytes */
    assert_int_equal(t->out.n, n);
    assert_memory_equal(t->out.p, bytes, n);
    stop(t);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--write")) { /* after a meant change of decisions or format */
        FILE *f = fopen(argv[2], "wb");
        play *t = recording();
        int   bad = !f || fwrite(t->out.p, 1, t->out.n, f) != t->out.n || fclose(f);
        stop(t);
        return bad;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_decision_is_made_again),
        cmocka_unit_test(nothing_is_recorded_unless_somebody_reads),
        cmocka_unit_test(losses_are_told_and_overcome),
        cmocka_unit_test(torn_foreign_and_changed_files_are_refused),
        cmocka_unit_test(a_step_can_be_looked_into),
        cmocka_unit_test(a_file_of_another_machine_gives_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
