/*
 * Wrong arguments. What a caller's bug hands over (NULL where something is needed, an unknown number, a length without memory) is answered with a named
 * error, and not a byte of the block changes; so is every call on memory that is no finished block.
 */
#include "fleet.h"

#include "block.h"

static pdr_error err;
static char     *before;
static size_t    bytes;

static void expect(const fleet *f, const char *call, int wanted, int code)
{
    if (code != wanted) fail_msg("%s: %d (%s), expected %d (%s)", call, code, pdr_strerror(code), wanted, pdr_strerror(wanted));
    ((pdr_router *)(void *)before)->lock.taken = f->r->lock.taken; /* how often it was asked is counted */
    if (memcmp(f->mem, before, bytes)) fail_msg("%s has changed the block", call);
}
#define REFUSED(wanted, call) expect(&f, #call, wanted, call)
#define INVALID(call) REFUSED(PDR_E_INVALID, call)
#define UNSIZED(call) REFUSED(PDR_E_VERSION, call)

static void open_fleet(fleet *f)
{
    pdr_config c = fleet_config();
    c.index_entries = 1024;
    c.record_bytes = 1 << 16;
    fleet_open(f, &c, 1, 1);
    bytes = pdr_router_size(&c);
    before = malloc(bytes);
    assert_non_null(before);
    memcpy(before, f->mem, bytes);
    pdr_init_struct(&err, sizeof err);
}

static void close_fleet(fleet *f)
{
    free(before);
    fleet_close(f);
}

#define BODY "{\"prompt\":\"a\",\"bootstrap_room\":5}"

static void nothing_where_something_is_needed(void **state)
{
    (void)state;
    fleet             f;
    uint32_t          id = 0, zero = 0;
    uint64_t          cursor = 1, hash = 0, lost = 0;
    size_t            one = 1, none = 0, need;
    char              buf[4096];
    pdr_config        c = fleet_config();
    pdr_router       *r;
    pdr_prompt        p;
    pdr_request       q, unsized = {0};
    pdr_decision      d;
    pdr_candidate     candidate;
    pdr_log_record    record;
    pdr_slice         slice;
    open_fleet(&f);
    q = fleet_request(&f);
    q.api = PDR_API_COMPLETIONS;
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&record, sizeof record);
    assert_int_equal(pdr_scan(BODY, sizeof BODY - 1, PDR_API_COMPLETIONS, NULL, &p, NULL, 0, NULL), PDR_OK);

    INVALID(pdr_router_init(NULL, bytes, &c, 1, &r, &err));
    INVALID(pdr_router_init(f.mem, bytes, &c, 1, NULL, &err));
    INVALID(pdr_router_init((char *)f.mem + 8, bytes - 8, &c, 1, &r, &err));
    INVALID(pdr_router_attach(NULL, bytes, &c, 7, &r, &err));
    INVALID(pdr_router_attach((char *)f.mem + 8, bytes - 8, &c, 7, &r, &err));
    INVALID(pdr_router_config(NULL, &c));
    INVALID(pdr_router_config(f.r, NULL));
    INVALID(pdr_endpoint_put(f.r, NULL, 0, &id, &err));
    INVALID(pdr_endpoint_find(f.r, NULL, &id));
    INVALID(pdr_endpoint_find(f.r, "p0", NULL));
    INVALID(pdr_endpoint_next(f.r, NULL, &id));
    INVALID(pdr_endpoint_next(f.r, &zero, NULL));
    INVALID(pdr_target_get(f.r, 0, 0, 0, NULL));
    INVALID(pdr_load_put(f.r, 0, 0, NULL, 0, &err));
    INVALID(pdr_stats_get(f.r, NULL));
    INVALID(pdr_lease_open(f.r, "x", 0, NULL, &err));
    INVALID(pdr_route(f.r, BODY, sizeof BODY - 1, NULL, NULL, &d, &err));
    INVALID(pdr_route(f.r, BODY, sizeof BODY - 1, &q, NULL, NULL, &err));
    INVALID(pdr_route(f.r, NULL, 5, &q, NULL, &d, &err));
    UNSIZED(pdr_route(f.r, BODY, sizeof BODY - 1, &unsized, NULL, &d, &err));
    UNSIZED(pdr_route(f.r, BODY, sizeof BODY - 1, &q, &(pdr_prompt){0}, &d, &err));
    INVALID(pdr_route_prompt(f.r, NULL, NULL, 0, &q, &d, &err));
    INVALID(pdr_route_prompt(f.r, &p, NULL, 0, NULL, &d, &err));
    INVALID(pdr_route_prompt(f.r, &p, NULL, 0, &q, NULL, &err));
    UNSIZED(pdr_route_prompt(f.r, &p, NULL, 0, &unsized, &d, &err));
    q.excluded = 9;
    INVALID(pdr_route_prompt(f.r, &p, NULL, 0, &q, &d, &err));
    q.excluded = 0;
    INVALID(pdr_ticket_take(f.r, 1, NULL, 0, 0, NULL, &err));
    INVALID(pdr_released(f.r, f.lease, NULL, NULL));
    INVALID(pdr_released(f.r, f.lease, NULL, &one));
    INVALID(pdr_wakeups(f.r, NULL, NULL));
    INVALID(pdr_wakeups(f.r, NULL, &one));
    INVALID(pdr_booking_done(f.r, 1, 0, 0));
    INVALID(pdr_booking_done(f.r, 1, 3, 0));
    REFUSED(PDR_E_NOT_FOUND, pdr_booking_done(f.r, 1, PDR_DONE_ALL, 0));
    INVALID(pdr_explain(f.r, &p, NULL, 0, NULL, &d, &candidate, &one, &err));
    INVALID(pdr_explain(f.r, &p, NULL, 0, &q, &d, &candidate, NULL, &err));
    INVALID(pdr_explain(f.r, &p, NULL, 0, &q, &d, NULL, &one, &err));
    UNSIZED(pdr_explain(f.r, &p, NULL, 0, &unsized, &d, &candidate, &one, &err));
    pdr_place place = {.struct_size = sizeof place}, bare = {.struct_size = 0};
    INVALID(pdr_ticket_place(f.r, 1, 0, NULL, &err));
    INVALID(pdr_ticket_place(f.r, 1, 0, &bare, &err));
    INVALID(pdr_explain_place(f.r, &p, NULL, 0, NULL, &place, &err));
    INVALID(pdr_explain_place(f.r, &p, NULL, 0, &q, NULL, &err));
    INVALID(pdr_explain_place(f.r, NULL, NULL, 0, &q, &place, &err));
    INVALID(pdr_log_read(f.r, NULL, &record, NULL));
    INVALID(pdr_log_read(f.r, &cursor, NULL, NULL));
    INVALID(pdr_status_json(f.r, 0, NULL, 1, &need));
    INVALID(pdr_status_prometheus(f.r, 0, NULL, 1, &need));
    INVALID(pdr_record_header(f.r, buf, sizeof buf, NULL));
    INVALID(pdr_record_header(f.r, NULL, 1, &need));
    INVALID(pdr_record_header(NULL, buf, sizeof buf, &need));
    INVALID(pdr_record_trailer(buf, sizeof buf, NULL));
    INVALID(pdr_record_trailer(NULL, 1, &need));
    INVALID(pdr_record_read(f.r, NULL, 0, buf, sizeof buf, &need, &lost));
    INVALID(pdr_record_read(f.r, &cursor, 0, NULL, sizeof buf, &need, &lost));
    INVALID(pdr_record_read(f.r, &cursor, 0, buf, sizeof buf, NULL, &lost));
    INVALID(pdr_record_read(f.r, &cursor, 0, buf, 8, &need, &lost));

    INVALID(pdr_scan(NULL, 1, PDR_API_CHAT, NULL, &p, NULL, 0, &err));
    INVALID(pdr_scan(BODY, sizeof BODY - 1, PDR_API_CHAT, NULL, NULL, NULL, 0, &err));
    INVALID(pdr_scan(BODY, sizeof BODY - 1, 0, NULL, &p, NULL, 0, &err));
    INVALID(pdr_scan(BODY, sizeof BODY - 1, 5, NULL, &p, NULL, 0, &err));
    INVALID(pdr_scan(BODY, sizeof BODY - 1, PDR_API_CHAT, &(pdr_limits){.struct_size = sizeof(pdr_limits), .max_blocks = 65536}, &p, NULL, 0, &err));
    INVALID(pdr_hash_tokens(NULL, 1, 0, NULL, &hash, 1, &need));
    INVALID(pdr_hash_tokens(&zero, 1, 0, NULL, NULL, 1, &need));
    INVALID(pdr_hash_tokens(&zero, 1, 0, NULL, &hash, 1, NULL));
    INVALID(pdr_hash_tokens(&zero, SIZE_MAX / 2, 0, NULL, &hash, 1, &need));
    d.mode = PDR_MODE_SINGLE;
    INVALID(pdr_rewrite(&d, &p, PDR_LEG_DECODE, NULL, 0, buf, sizeof buf, &need));
    INVALID(pdr_rewrite(&d, &p, PDR_LEG_DECODE, BODY, sizeof BODY - 1, NULL, 1, &need));
    INVALID(pdr_rewrite(&d, &p, 2, BODY, sizeof BODY - 1, buf, sizeof buf, &need));
    INVALID(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, NULL, 1, &need));
    INVALID(pdr_rewrite_slices(&p, sizeof BODY - 1, 0, &slice, NULL));
    INVALID(pdr_rewrite_slices(&p, sizeof BODY - 1, 0, NULL, &one));
    UNSIZED(pdr_rewrite_tail(NULL, &p, PDR_LEG_DECODE, 0, buf, sizeof buf, &need));
    UNSIZED(pdr_rewrite_tail(&d, NULL, PDR_LEG_DECODE, 0, buf, sizeof buf, &need));
    assert_int_equal(pdr_rewrite_slices(&p, sizeof BODY - 1, 0, NULL, &none), PDR_OK); /* just asked */
    assert_true(none > 0);
    assert_int_equal(pdr_header_owned(NULL, 20), 0);
    pdr_init_struct(NULL, 8);
    pdr_init_struct(buf, 2); /* no room for a size: nothing is written */
    assert_string_equal(pdr_strerror(-77), "unknown error");
    assert_int_equal(pdr_http_status(-77), 500);
    INVALID(pdr_error_body(500, "c", "m", NULL, 1, &need));
    INVALID(pdr_error_event(PDR_API_CHAT, 500, "c", "m", NULL, 1, &need));
    INVALID(pdr_error_event(PDR_API_CHAT, 500, "c", "m", buf, sizeof buf, NULL));
    INVALID(pdr_error_mask(NULL, NULL, 1));
    UNSIZED(pdr_error_mask(&(pdr_decision){0}, buf, 0));
    assert_int_equal(pdr_error_status(NULL, 5), 0);
    assert_int_equal(pdr_error_status("", 0), 0);
    close_fleet(&f);
}

static void the_exchange_and_answers(void **state)
{
    (void)state;
    fleet        f;
    pdr_exchange x, fresh, copy;
    pdr_event    ev = {.struct_size = sizeof ev, .type = PDR_EV_TICK};
    pdr_action   a[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS, small = 0, need;
    pdr_decision d;
    pdr_merge    m;
    pdr_response s;
    pdr_prompt   p;
    char         buf[64];
    pdr_slice    slice;
    open_fleet(&f);
    pdr_init_struct(&fresh, sizeof fresh);
    pdr_init_struct(&x, sizeof x);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&p, sizeof p);
    d.outcome = PDR_SEND;
    d.prefill = 0;
    d.decode = 1;
    INVALID(pdr_exchange_begin(NULL, &x, &d, f.lease, f.now, a, &n));
    INVALID(pdr_exchange_begin(f.r, NULL, &d, f.lease, f.now, a, &n));
    INVALID(pdr_exchange_begin(f.r, &x, NULL, f.lease, f.now, a, &n));
    INVALID(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, a, NULL));
    INVALID(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, NULL, &n));
    UNSIZED(pdr_exchange_begin(f.r, &x, &(pdr_decision){0}, f.lease, f.now, a, &n));
    UNSIZED(pdr_exchange_begin(f.r, &(pdr_exchange){0}, &d, f.lease, f.now, a, &n));
    d.outcome = PDR_HELD; /* not sent: nothing to exchange yet */
    INVALID(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, a, &n));
    d.outcome = PDR_SEND;
    d.engine = 99;
    INVALID(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, a, &n));
    d.engine = PDR_ENGINE_SGLANG;
    assert_memory_equal(&x, &fresh, sizeof x);

    /* one that never began has no events and no deadline */
    INVALID(pdr_exchange_event(f.r, &x, &ev, a, &n));
    INVALID(pdr_exchange_rerouted(f.r, &x, &d, PDR_OK, f.now, a, &n));
    assert_true(pdr_exchange_deadline(&x) == UINT64_MAX);
    assert_int_equal(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, NULL, &small), PDR_E_NOSPACE);
    assert_true(small >= 2 && small <= PDR_MAX_ACTIONS);
    assert_memory_equal(&x, &fresh, sizeof x);
    assert_int_equal(pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, a, &n), PDR_OK);

    copy = x;
    n = PDR_MAX_ACTIONS;
    INVALID(pdr_exchange_event(NULL, &x, &ev, a, &n));
    INVALID(pdr_exchange_event(f.r, NULL, &ev, a, &n));
    INVALID(pdr_exchange_event(f.r, &x, NULL, a, &n));
    INVALID(pdr_exchange_event(f.r, &x, &ev, a, NULL));
    INVALID(pdr_exchange_event(f.r, &x, &ev, NULL, &n));
    UNSIZED(pdr_exchange_event(f.r, &x, &(pdr_event){0}, a, &n));
    ev.type = PDR_EV_CLIENT_GONE; /* which has several actions */
    n = 0;
    REFUSED(PDR_E_NOSPACE, pdr_exchange_event(f.r, &x, &ev, NULL, &n));
    assert_true(n >= 2);
    n = PDR_MAX_ACTIONS;
    INVALID(pdr_exchange_rerouted(NULL, &x, &d, PDR_OK, f.now, a, &n));
    INVALID(pdr_exchange_rerouted(f.r, NULL, &d, PDR_OK, f.now, a, &n));
    INVALID(pdr_exchange_rerouted(f.r, &x, NULL, PDR_OK, f.now, a, &n)); /* a good code and no decision */
    INVALID(pdr_exchange_rerouted(f.r, &x, &d, PDR_OK, f.now, a, NULL));
    INVALID(pdr_exchange_rerouted(f.r, &x, &d, PDR_OK, f.now, NULL, &n));
    assert_memory_equal(&x, &copy, sizeof x);
    /* memory that was changed behind its back is told apart as far as that can be */
    memset(x.state, 0xff, sizeof x.state);
    INVALID(pdr_exchange_event(f.r, &x, &ev, a, &n));
    assert_string_equal(pdr_reason_name(0), "unknown");
    assert_string_equal(pdr_reason_name(10), "unknown");

    pdr_merge_init(&m, PDR_API_GENERATE, PDR_RESPONSE_JSON);
    pdr_merge kept = m;
    need = 1;
    INVALID(pdr_merge_slices(NULL, "{}", 2, "{}", 2, &slice, &need));
    INVALID(pdr_merge_slices(&m, "{}", 2, "{}", 2, &slice, NULL));
    INVALID(pdr_merge_slices(&m, "{}", 2, "{}", 2, NULL, &need));
    INVALID(pdr_merge_slices(&m, NULL, 2, "{}", 2, &slice, &need));
    INVALID(pdr_merge_slices(&m, "{}", 2, NULL, 2, &slice, &need));
    INVALID(pdr_merge_text(NULL, "{}", 2, "{}", 2, buf, sizeof buf, &need));
    INVALID(pdr_merge_text(&m, "{}", 2, "{}", 2, buf, sizeof buf, NULL));
    INVALID(pdr_merge_text(&m, "{}", 2, "{}", 2, NULL, 1, &need));
    INVALID(pdr_merge_text(&m, NULL, 2, "{}", 2, buf, sizeof buf, &need));
    INVALID(pdr_merge_text(&m, "{}", 2, NULL, 2, buf, sizeof buf, &need));
    assert_memory_equal(&m, &kept, sizeof m);
    assert_int_equal(pdr_merge_wanted(NULL, &p), 0);
    assert_int_equal(pdr_merge_wanted(&d, NULL), 0);

    pdr_response_init(&s, PDR_RESPONSE_SSE);
    INVALID(pdr_response_feed(&s, NULL, 1));
    UNSIZED(pdr_response_feed(NULL, "x", 1));
    pdr_response_init(&s, 3);
    INVALID(pdr_response_feed(&s, "x", 1));
    close_fleet(&f);
}

static void replays(void **state)
{
    static char     text[1 << 20];
    FILE           *file = fopen(PDR_TEST_DATA "/recorded.pdr", "rb");
    pdr_replay     *p;
    pdr_replay_step s;
    pdr_endpoint    e;
    pdr_config      c;
    pdr_candidate   candidate[64];
    uint64_t        hash[2];
    size_t          n, one = 1;
    (void)state;
    assert_non_null(file);
    size_t len = fread(text, 1, sizeof text, file);
    fclose(file);
    pdr_init_struct(&s, sizeof s);
    pdr_init_struct(&e, sizeof e);
    pdr_init_struct(&c, sizeof c);
    pdr_init_struct(&err, sizeof err);
    assert_int_equal(pdr_replay_open(NULL, len, 0, &p, &err), PDR_E_INVALID);
    assert_int_equal(pdr_replay_open(text, len, 0, NULL, &err), PDR_E_INVALID);
    assert_int_equal(pdr_replay_open(text, len, 0, &p, &err), PDR_OK);
    assert_int_equal(pdr_replay_next(NULL, PDR_NONE, &s, &err), PDR_E_INVALID);
    assert_int_equal(pdr_replay_next(p, PDR_NONE, NULL, &err), PDR_E_INVALID);
    assert_int_equal(pdr_replay_next(p, 99, &s, &err), PDR_E_INVALID);
    assert_string_equal(err.message, "policy 99 is unknown");
    assert_int_equal(pdr_replay_config(NULL, &c), PDR_E_INVALID);
    assert_int_equal(pdr_replay_config(p, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_replay_endpoint(NULL, 0, &e), PDR_E_INVALID);
    assert_int_equal(pdr_replay_endpoint(p, PDR_NONE, &e), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_replay_hashes(NULL, hash, &one), PDR_E_INVALID);
    assert_int_equal(pdr_replay_hashes(p, hash, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_replay_hashes(p, NULL, &one), PDR_E_INVALID);
    assert_int_equal(pdr_replay_explain(NULL, candidate, &one), PDR_E_INVALID);
    assert_int_equal(pdr_replay_explain(p, candidate, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_replay_explain(p, NULL, &one), PDR_E_INVALID);
    /* before the first request there is nothing to tell of one; then, how much there is */
    assert_int_equal(pdr_replay_hashes(p, hash, &one), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_replay_explain(p, candidate, &one), PDR_E_NOT_FOUND);
    do assert_int_equal(pdr_replay_next(p, PDR_NONE, &s, &err), PDR_OK);
    while (s.kind != PDR_REPLAY_ROUTED || s.blocks < 2);
    n = 1;
    assert_int_equal(pdr_replay_hashes(p, hash, &n), PDR_E_NOSPACE);
    assert_int_equal(n, s.blocks);
    n = 1;
    assert_int_equal(pdr_replay_explain(p, candidate, &n), PDR_E_NOSPACE);
    assert_true(n > 1 && n <= 64);
    assert_int_equal(pdr_replay_explain(p, candidate, &n), PDR_OK);
    for (size_t i = 0; i < n; i++) assert_int_equal(pdr_replay_endpoint(p, candidate[i].endpoint, &e), PDR_OK);
    pdr_replay_close(p);
    pdr_replay_close(NULL);
}

/* Memory that no init has finished (a process died in it, or is still at it) is refused by every call, whatever the arguments. */
static void a_half_made_block_is_refused_by_all(void **state)
{
    (void)state;
    fleet             f;
    uint32_t          id = 0, cursor32 = 0;
    uint64_t          cursor = 0, hash = 1, lost = 0, ticket;
    size_t            one = 1, need;
    char              buf[4096];
    pdr_config        c = fleet_config();
    pdr_router       *r;
    pdr_endpoint      e;
    pdr_target_status t;
    pdr_load          load;
    pdr_stats         stats;
    pdr_prompt        p;
    pdr_request       q;
    pdr_decision      d;
    pdr_candidate     candidate[8];
    pdr_log_record    record;
    open_fleet(&f);
    q = fleet_request(&f);
    q.api = PDR_API_COMPLETIONS;
    pdr_init_struct(&e, sizeof e);
    snprintf(e.host, sizeof e.host, "10.0.9.9");
    e.port = 1;
    e.role = PDR_ROLE_BOTH;
    pdr_init_struct(&t, sizeof t);
    pdr_init_struct(&load, sizeof load);
    pdr_init_struct(&stats, sizeof stats);
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&record, sizeof record);
    assert_int_equal(pdr_scan(BODY, sizeof BODY - 1, PDR_API_COMPLETIONS, NULL, &p, NULL, 0, NULL), PDR_OK);
    uint32_t ready = f.r->ready;
    f.r->ready = 0;
    memcpy(before, f.mem, bytes);
    REFUSED(PDR_E_BLOCK_CORRUPT, pdr_router_attach(f.mem, bytes, NULL, 7, &r, &err));
    INVALID(pdr_router_check(f.r, &err));
    INVALID(pdr_endpoint_put(f.r, &e, f.now, &id, &err));
    assert_string_equal(err.message, pdr_strerror(PDR_E_INVALID));
    INVALID(pdr_endpoint_drain(f.r, 0, 1, &err));
    INVALID(pdr_endpoint_remove(f.r, 0, &err));
    INVALID(pdr_endpoint_health(f.r, 0, 0, f.now, &err));
    INVALID(pdr_endpoint_find(f.r, "p0", &id));
    INVALID(pdr_endpoint_get(f.r, 0, &e, &id));
    INVALID(pdr_endpoint_next(f.r, &cursor32, &id));
    INVALID(pdr_target_get(f.r, 0, 0, f.now, &t));
    INVALID(pdr_apply_json(f.r, "{\"endpoints\":[]}", 16, 0, f.now, NULL, &err));
    INVALID(pdr_report_put(f.r, 0, PDR_REPORT_SERVER_INFO, "{\"tp_size\":2}", 13, f.now, NULL, &err));
    INVALID(pdr_load_put(f.r, 0, 0, &load, f.now, &err));
    INVALID(pdr_lease_open(f.r, "x", f.now, &id, &err));
    INVALID(pdr_lease_renew(f.r, f.lease, f.now));
    INVALID(pdr_lease_break(f.r, f.lease, f.now));
    INVALID(pdr_tick(f.r, f.now));
    INVALID(pdr_route(f.r, BODY, sizeof BODY - 1, &q, NULL, &d, &err));
    INVALID(pdr_route_prompt(f.r, &p, NULL, 0, &q, &d, &err));
    INVALID(pdr_ticket_take(f.r, 1, NULL, 0, f.now, &d, &err));
    INVALID(pdr_ticket_cancel(f.r, 1, f.now));
    pdr_place place = {.struct_size = sizeof place};
    INVALID(pdr_ticket_place(f.r, 1, f.now, &place, &err));
    INVALID(pdr_explain_place(f.r, &p, NULL, 0, &q, &place, &err));
    INVALID(pdr_released(f.r, f.lease, &ticket, &one));
    INVALID(pdr_booking_done(f.r, 1, PDR_DONE_ALL, f.now));
    INVALID(pdr_prefix_store(f.r, 0, 0, &hash, 1));
    INVALID(pdr_prefix_remove(f.r, 0, 0, &hash, 1));
    INVALID(pdr_prefix_clear(f.r, 0, 0));
    INVALID(pdr_prefix_match(f.r, 0, 0, &hash, 1, &need));
    one = 8;
    INVALID(pdr_explain(f.r, &p, NULL, 0, &q, &d, candidate, &one, &err));
    INVALID(pdr_log_read(f.r, &cursor, &record, &lost));
    INVALID(pdr_record_read(f.r, &cursor, f.now, buf, sizeof buf, &need, &lost));
    INVALID(pdr_stats_get(f.r, &stats));
    INVALID(pdr_status_json(f.r, f.now, buf, sizeof buf, &need));
    INVALID(pdr_status_prometheus(f.r, f.now, buf, sizeof buf, &need));
    assert_int_equal(pdr_ready(f.r, f.now), 0);
    assert_int_equal(pdr_ready(NULL, f.now), 0);
    INVALID(pdr_tick(NULL, f.now));
    INVALID(pdr_route(NULL, BODY, sizeof BODY - 1, &q, NULL, &d, &err));
    f.r->ready = ready;
    /* a file of something else */
    f.r->magic[0] ^= 1;
    memcpy(before, f.mem, bytes);
    INVALID(pdr_router_config(f.r, &c));
    INVALID(pdr_record_header(f.r, buf, sizeof buf, &need));
    f.r->magic[0] ^= 1;
    close_fleet(&f);
}

/* Texts that are asked for without room for them tell how long they are; a byte less than that is cut, and says so. */
static void texts_tell_their_length(void **state)
{
    (void)state;
    fleet  f;
    char   buf[65536];
    size_t need, again;
    open_fleet(&f);
    for (int i = 0; i < 7; i++) {
        int code = 0;
        for (int turn = 0; turn < 3; turn++) {
            size_t cap = turn == 0 ? 0 : turn == 1 ? need - 1 : need;
            char  *to = turn ? buf : NULL;
            switch (i) {
            case 0: code = pdr_status_json(f.r, f.now, to, cap, &again); break;
            case 1: code = pdr_status_prometheus(f.r, f.now, to, cap, &again); break;
            case 2: code = pdr_record_header(f.r, to, cap, &again); break;
            case 3: code = pdr_record_trailer(to, cap, &again); break;
            case 4: code = pdr_error_body(503, "no_pair", "none", to, cap, &again); break;
            case 5: code = pdr_error_event(PDR_API_CHAT, 503, "no_pair", "none", to, cap, &again); break;
            case 6: code = pdr_error_event(PDR_API_GENERATE, -1, NULL, NULL, to, cap, &again); break;
            }
            if (turn) assert_int_equal(again, need);
            need = again;
            assert_true(need > 0 && need < sizeof buf);
            int asked = !turn && i != 2 && i != 3; /* binary pieces have no "just asked" */
            assert_int_equal(code, asked || turn == 2 ? PDR_OK : PDR_E_NOSPACE);
        }
    }
    /* no message is an empty one; a status that is none is 0 */
    assert_non_null(memmem(buf, need, "\"message\":\"\",\"status_code\":0,\"err_type\":null", 43));
    /* a message of any length is an error of any length, but not in a stream's last words */
    memset(buf, 'x', 4000);
    buf[4000] = 0;
    assert_int_equal(pdr_error_event(PDR_API_CHAT, 500, "c", buf, buf + 8000, 8000, &need), PDR_E_TOO_LARGE);
    close_fleet(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_where_something_is_needed),
        cmocka_unit_test(the_exchange_and_answers),
        cmocka_unit_test(replays),
        cmocka_unit_test(a_half_made_block_is_refused_by_all),
        cmocka_unit_test(texts_tell_their_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
