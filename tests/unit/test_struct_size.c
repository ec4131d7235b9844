/* Callers built against older and newer headers: every public struct, as input and as output (pdr_response and pdr_merge are of fixed size: test_response.c, test_merge.c). */
#include "fleet.h"
#include "struct_size.h"

#define BODY "{\"model\":\"m\",\"bootstrap_room\":3,\"prompt\":\"some text of a prompt\",\"max_tokens\":4}"

static int fill_error(void *context, void *s)
{
    (void)context;
    return pdr_config_from_json("{\n\"none\":1}", 11, &(pdr_config){.struct_size = sizeof(pdr_config)}, s);
}

static int resolve(void *context, void *s)
{
    (void)context;
    return pdr_config_resolve(s, NULL);
}

typedef struct room { void *mem; size_t size; } room;

static int make_router(void *context, void *s)
{
    pdr_router *r;
    const room *m = context;
    return pdr_router_init(m->mem, m->size, s, 1, &r, NULL);
}

static int read_config(void *context, void *s)
{
    (void)context;
    return pdr_config_from_json("{\"retry_max\":5}", 15, s, NULL);
}

static int get_config(void *f, void *s) { return pdr_router_config(((fleet *)f)->r, s); }
static int put_endpoint(void *f, void *s) { return pdr_endpoint_put(((fleet *)f)->r, s, ((fleet *)f)->now, NULL, NULL); }
static int get_endpoint(void *f, void *s) { return pdr_endpoint_get(((fleet *)f)->r, 0, s, NULL); }
static int get_target(void *f, void *s) { return pdr_target_get(((fleet *)f)->r, 0, 0, ((fleet *)f)->now, s); }
static int put_load(void *f, void *s) { return pdr_load_put(((fleet *)f)->r, 0, 0, s, ((fleet *)f)->now, NULL); }
static int get_stats(void *f, void *s) { return pdr_stats_get(((fleet *)f)->r, s); }

static int explain_place(void *f, void *s)
{
    uint64_t    hashes[8];
    pdr_prompt  p = fleet_prompt(1000, 1, 0, hashes, 7);
    pdr_request q = fleet_request(f);
    return pdr_explain_place(((fleet *)f)->r, &p, hashes, 7, &q, s, NULL);
}
static uint64_t held;
static int ticket_place(void *f, void *s) { return pdr_ticket_place(((fleet *)f)->r, held, ((fleet *)f)->now, s, NULL); }

static int apply(void *f, void *s)
{
    static const char text[] = "{\"endpoints\":[{\"name\":\"p0\",\"host\":\"10.0.0.1\",\"port\":8000,\"role\":\"prefill\"}]}";
    return pdr_apply_json(((fleet *)f)->r, text, sizeof text - 1, 0, ((fleet *)f)->now, s, NULL);
}

static int read_log(void *f, void *s)
{
    uint64_t cursor = 0;
    return pdr_log_read(((fleet *)f)->r, &cursor, s, NULL);
}

typedef struct recording { char *text; size_t len; } recording;

static int replay_step(void *context, void *s)
{
    const recording *file = context;
    pdr_replay      *p;
    int              code = pdr_replay_open(file->text, file->len, 0, &p, NULL);
    if (code) return code;
    code = pdr_replay_next(p, PDR_NONE, s, NULL);
    pdr_replay_close(p);
    return code;
}

static int with_limits(void *context, void *s)
{
    pdr_prompt p;
    pdr_init_struct(&p, sizeof p);
    (void)context;
    return pdr_scan(BODY, sizeof BODY - 1, PDR_API_COMPLETIONS, s, &p, NULL, 0, NULL);
}

/* What lies behind the edits is not specified. */
static void blank(pdr_prompt *p)
{
    if (p->struct_size == sizeof *p) memset(p->edit + p->edits, 0, (PDR_MAX_EDITS - p->edits) * sizeof *p->edit);
}

static int scan(void *context, void *s)
{
    pdr_prompt *p = s;
    (void)context;
    int code = pdr_scan(BODY, sizeof BODY - 1, PDR_API_COMPLETIONS, NULL, p, NULL, 0, NULL);
    if (!code) blank(p);
    return code;
}

static int route_scan(void *f, void *s)
{
    pdr_request  q = fleet_request(f);
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    q.flags = PDR_REQUEST_DRY;
    q.api = PDR_API_COMPLETIONS;
    int code = pdr_route(((fleet *)f)->r, BODY, sizeof BODY - 1, &q, s, &d, NULL);
    if (!code) blank(s);
    return code;
}

static int route_request(void *f, void *s)
{
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    int code = pdr_route(((fleet *)f)->r, BODY, sizeof BODY - 1, s, NULL, &d, NULL);
    if (!code) pdr_booking_done(((fleet *)f)->r, d.booking, PDR_DONE_ALL, ((fleet *)f)->now);
    return code;
}

static int route_prompt_request(void *f, void *s)
{
    pdr_decision d;
    uint64_t     hashes[8];
    pdr_prompt   p = fleet_prompt(900, 0, 0, hashes, 7);
    pdr_init_struct(&d, sizeof d);
    int code = pdr_route_prompt(((fleet *)f)->r, &p, hashes, 7, s, &d, NULL);
    if (!code) pdr_booking_done(((fleet *)f)->r, d.booking, PDR_DONE_ALL, ((fleet *)f)->now);
    return code;
}

static int explain_request(void *f, void *s)
{
    pdr_candidate c[8];
    size_t        n = 8;
    uint64_t      hashes[8];
    pdr_prompt    p = fleet_prompt(900, 0, 0, hashes, 7);
    return pdr_explain(((fleet *)f)->r, &p, hashes, 7, s, NULL, c, &n, NULL);
}

static int route_decision(void *f, void *s)
{
    pdr_request q = fleet_request(f);
    uint64_t    hashes[8];
    pdr_prompt  p = fleet_prompt(900, 0, 0, hashes, 7);
    q.flags = PDR_REQUEST_DRY;
    return pdr_route_prompt(((fleet *)f)->r, &p, hashes, 7, &q, s, NULL);
}

static int explain_decision(void *f, void *s)
{
    pdr_request   q = fleet_request(f);
    pdr_candidate c[8];
    size_t        n = 8;
    uint64_t      hashes[8];
    pdr_prompt    p = fleet_prompt(900, 0, 0, hashes, 7);
    return pdr_explain(((fleet *)f)->r, &p, hashes, 7, &q, s, c, &n, NULL);
}

static int take_unknown(void *f, void *s) { return pdr_ticket_take(((fleet *)f)->r, 12345, NULL, 0, ((fleet *)f)->now, s, NULL); }

/* ---- objects that are taken back: a prompt, a decision, an exchange */

static int use_prompt(void *f, void *s)
{
    static const pdr_decision d = {.struct_size = sizeof d, .mode = PDR_MODE_SINGLE};
    char                      out[256];
    size_t                    need, n = 8;
    pdr_slice                 slices[8];
    (void)f;
    int code = pdr_rewrite(&d, s, PDR_LEG_DECODE, BODY, sizeof BODY - 1, out, sizeof out, &need);
    if (!code) code = pdr_rewrite_slices(s, sizeof BODY - 1, 0, slices, &n);
    if (!code) code = pdr_rewrite_tail(&d, s, PDR_LEG_DECODE, 0, out, sizeof out, &need);
    return code;
}

static int route_with_prompt(void *f, void *s)
{
    pdr_request  q = fleet_request(f);
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    q.flags = PDR_REQUEST_DRY;
    return pdr_route_prompt(((fleet *)f)->r, s, NULL, 0, &q, &d, NULL);
}

static int use_decision(void *f, void *s)
{
    pdr_prompt p;
    char       out[512];
    size_t     need;
    (void)f;
    pdr_init_struct(&p, sizeof p);
    pdr_decision_room(s, 0);
    if (scan(NULL, &p)) return -1;
    return pdr_rewrite(s, &p, PDR_LEG_PREFILL, BODY, sizeof BODY - 1, out, sizeof out, &need);
}

static int begin_with_decision(void *f, void *s)
{
    pdr_exchange x;
    pdr_action   a[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    pdr_init_struct(&x, sizeof x);
    return pdr_exchange_begin(((fleet *)f)->r, &x, s, ((fleet *)f)->lease, ((fleet *)f)->now, a, &n);
}

static pdr_decision dry(fleet *f)
{
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(route_decision(f, &d), PDR_OK);
    return d;
}

/* All of: begin, an event, rerouted, the deadline. Another size than ours is refused, whole or not at all. */
static int use_exchange(void *f, void *s)
{
    pdr_decision d = dry(f);
    pdr_action   a[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    pdr_event    ev = {.struct_size = sizeof ev, .type = PDR_EV_TICK, .now_ns = ((fleet *)f)->now};
    int          code = pdr_exchange_begin(((fleet *)f)->r, s, &d, ((fleet *)f)->lease, ((fleet *)f)->now, a, &n), other;
    n = PDR_MAX_ACTIONS;
    other = pdr_exchange_event(((fleet *)f)->r, s, &ev, a, &n);
    assert_true(code ? other != 0 : !other);
    n = PDR_MAX_ACTIONS;
    other = pdr_exchange_rerouted(((fleet *)f)->r, s, NULL, PDR_E_NO_PAIR, ((fleet *)f)->now, a, &n);
    assert_true(code ? other != 0 : !other);
    if (code) assert_true(pdr_exchange_deadline(s) == UINT64_MAX);
    return code;
}

static int feed_event(void *f, void *s)
{
    pdr_decision d = dry(f);
    pdr_exchange x;
    pdr_action   a[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    pdr_init_struct(&x, sizeof x);
    assert_int_equal(pdr_exchange_begin(((fleet *)f)->r, &x, &d, ((fleet *)f)->lease, ((fleet *)f)->now, a, &n), PDR_OK);
    n = PDR_MAX_ACTIONS;
    return pdr_exchange_event(((fleet *)f)->r, &x, s, a, &n);
}

/* A struct that is handed back: too small is refused, larger is fine whatever is behind. */
static void check_object(struct_call *call, void *context, const void *full, size_t known)
{
    for (size_t size = sizeof(uint32_t); size < known; size += 4) {
        void *s = sized(full, known, size, 0);
        call(context, s);
        free(s);
    }
    void *s = sized(full, known, known, 0);
    assert_int_equal(call(context, s), PDR_OK);
    free(s);
    char *newer = sized(full, known, known + NEWER, 0x5A);
    assert_int_equal(call(context, newer), PDR_OK);
    for (size_t i = known; i < known + NEWER; i++) assert_int_equal(newer[i], 0x5A);
    free(newer);
}

static void configuration(void **state)
{
    (void)state;
    pdr_config c = fleet_config(), first = c;
    room       m = {NULL, (pdr_router_size(&c) + 63) & ~(size_t)63};
    assert_non_null(m.mem = aligned_alloc(64, m.size));
    c.log_entries = 100;
    c.retry_max = 3;
    check_input(resolve, NULL, &c, sizeof c, sizeof(uint32_t));
    check_input(make_router, &m, &first, sizeof first, sizeof(uint32_t)); /* where defaults need more memory, both are refused */
    check_output(read_config, NULL, sizeof c, sizeof(uint32_t));
    free(m.mem);
}

static void small_structs(void **state)
{
    (void)state;
    static const pdr_limits limits = {.struct_size = sizeof limits, .block_bytes = 64, .max_depth = 8, .max_body = 1000};
    pdr_prompt              p;
    check_output(fill_error, NULL, sizeof(pdr_error), sizeof(pdr_error));
    check_input(with_limits, NULL, &limits, sizeof limits, sizeof(uint32_t));
    check_output(scan, NULL, sizeof p, sizeof(uint32_t));
    pdr_init_struct(&p, sizeof p);
    assert_int_equal(scan(NULL, &p), PDR_OK);
    check_object(use_prompt, NULL, &p, sizeof p);
}

static void what_the_router_takes_and_gives(void **state)
{
    (void)state;
    static const pdr_load load = {.struct_size = sizeof load, .have = PDR_LOAD_RUNNING | PDR_LOAD_KV_USED, .running = 3, .kv_used = 5000};
    static pdr_endpoint   endpoint = {.struct_size = sizeof endpoint, .role = PDR_ROLE_PREFILL, .port = 80, .name = "p1", .host = "10.0.0.2"};
    pdr_config            c = fleet_config();
    pdr_decision          d;
    fleet                 f;
    fleet_open(&f, &c, 2, 1);
    check_output(get_config, &f, sizeof c, sizeof(uint32_t));
    check_input(put_endpoint, &f, &endpoint, sizeof endpoint, sizeof(uint32_t));
    check_output(get_endpoint, &f, sizeof endpoint, sizeof(uint32_t));
    check_input(put_load, &f, &load, sizeof load, sizeof(uint32_t));
    check_output(get_target, &f, sizeof(pdr_target_status), sizeof(uint32_t));
    check_output(get_stats, &f, sizeof(pdr_stats), sizeof(uint32_t));
    assert_int_equal(apply(&f, &(pdr_apply_report){.struct_size = sizeof(pdr_apply_report)}), PDR_OK); /* the next ones change nothing */
    check_output(apply, &f, sizeof(pdr_apply_report), sizeof(uint32_t));
    assert_int_equal(fleet_route(&f, 900, 1, 0, &d), PDR_OK);
    check_output(read_log, &f, sizeof(pdr_log_record), sizeof(uint32_t));
    for (uint32_t i = 0; i < 6 && d.outcome == PDR_SEND; i++) assert_int_equal(fleet_route(&f, 900, 2 + i, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD);
    held = d.booking;
    check_output(explain_place, &f, sizeof(pdr_place), sizeof(uint32_t));
    check_output(ticket_place, &f, sizeof(pdr_place), sizeof(uint32_t));
    fleet_close(&f);
}

static void replays(void **state)
{
    static char text[1 << 20];
    FILE       *f = fopen(PDR_TEST_DATA "/recorded.pdr", "rb");
    (void)state;
    assert_non_null(f);
    recording file = {text, fread(text, 1, sizeof text, f)};
    fclose(f);
    assert_int_equal(replay_step(&file, &(pdr_replay_step){.struct_size = sizeof(pdr_replay_step)}), PDR_OK);
    check_output(replay_step, &file, sizeof(pdr_replay_step), sizeof(uint32_t));
}

static void requests_and_decisions(void **state)
{
    (void)state;
    pdr_config  c = fleet_config();
    pdr_prompt  p;
    fleet       f;
    fleet_open(&f, &c, 2, 1);
    pdr_request q = fleet_request(&f);
    q.api = PDR_API_COMPLETIONS;
    check_input(route_request, &f, &q, sizeof q, offsetof(pdr_request, deadline_ns));
    check_input(route_prompt_request, &f, &q, sizeof q, offsetof(pdr_request, deadline_ns));
    check_input(explain_request, &f, &q, sizeof q, offsetof(pdr_request, deadline_ns));
    check_output(route_decision, &f, sizeof(pdr_decision), sizeof(uint32_t));
    check_output(explain_decision, &f, sizeof(pdr_decision), sizeof(uint32_t));
    check_output(take_unknown, &f, sizeof(pdr_decision), sizeof(uint32_t));
    check_output(route_scan, &f, sizeof p, sizeof p);
    pdr_init_struct(&p, sizeof p);
    assert_int_equal(scan(NULL, &p), PDR_OK);
    check_object(route_with_prompt, &f, &p, sizeof p);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    fleet_close(&f);
}

static void exchanges(void **state)
{
    (void)state;
    static const pdr_event    ev = {.struct_size = sizeof ev, .type = PDR_EV_HEAD, .status = 200, .leg = PDR_LEG_DECODE};
    static const pdr_exchange none;
    pdr_config                c = fleet_config();
    fleet                     f;
    fleet_open(&f, &c, 2, 1);
    pdr_decision d = dry(&f);
    assert_int_equal(use_decision(&f, &d), PDR_E_INVALID); /* it has no room */
    assert_int_equal(fleet_route(&f, 900, 1, 0, &d), PDR_OK);
    check_object(use_decision, &f, &d, sizeof d);
    assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now), PDR_OK);
    d = dry(&f);
    check_object(begin_with_decision, &f, &d, sizeof d);
    check_object(use_exchange, &f, &none, sizeof none);
    check_input(feed_event, &f, &ev, sizeof ev, sizeof(uint32_t));
    fleet_close(&f);
}

/* A decision that cannot be written must not be taken: it would be lost. */
static void a_ticket_is_not_lost(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision busy, d;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 8000, 1, 0, &busy), PDR_OK);
    assert_int_equal(fleet_route(&f, 8000, 2, 0, &d), PDR_OK);
    assert_int_equal(d.outcome, PDR_HELD);
    uint64_t ticket = d.booking;
    assert_int_equal(pdr_booking_done(f.r, busy.booking, PDR_DONE_ALL, f.now), PDR_OK);
    assert_int_equal(pdr_ticket_take(f.r, ticket, NULL, 0, f.now, NULL, NULL), PDR_E_INVALID);
    d.struct_size = 0;
    assert_int_equal(pdr_ticket_take(f.r, ticket, NULL, 0, f.now, &d, NULL), PDR_E_INVALID);
    pdr_init_struct(&d, sizeof d);
    assert_int_equal(pdr_ticket_take(f.r, ticket, NULL, 0, f.now, &d, NULL), PDR_OK);
    assert_int_equal(d.outcome, PDR_SEND);
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration),          cmocka_unit_test(small_structs), cmocka_unit_test(what_the_router_takes_and_gives),
        cmocka_unit_test(replays), cmocka_unit_test(requests_and_decisions), cmocka_unit_test(exchanges),     cmocka_unit_test(a_ticket_is_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
