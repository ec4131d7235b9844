/* The fleet as callers see it: adding, finding and removing servers, documents over a running fleet, what engines report, the index fed from outside. */
#include "fleet.h"

#include "block.h"

#include <time.h>

static pdr_error err;

static pdr_endpoint server(const char *name, const char *host, uint32_t port, uint32_t role)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    snprintf(e.name, sizeof e.name, "%s", name);
    snprintf(e.host, sizeof e.host, "%s", host);
    e.port = port;
    e.role = role;
    return e;
}

static pdr_endpoint got(const fleet *f, uint32_t id)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_endpoint_get(f->r, id, &e, NULL), PDR_OK);
    return e;
}

static uint32_t state_of(const fleet *f, uint32_t id)
{
    uint32_t state = 99;
    assert_int_equal(pdr_endpoint_get(f->r, id, NULL, &state), PDR_OK);
    return state;
}

/* ---- servers */

static void an_address_has_one_name(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e = server("other", "10.0.0.1", 8000, PDR_ROLE_PREFILL);
    fleet        f;
    uint32_t     id = 77;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_E_EXISTS);
    assert_string_equal(err.message, "10.0.0.1:8000 is registered under the name p0");
    assert_int_equal(id, 77);
    e.port = 8001; /* another server on that machine */
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(fleet_stats(&f).endpoints, 3);
    /* the old name may move to an address that nobody has; then its old one is free */
    e = server("p0", "10.0.0.9", 8000, PDR_ROLE_PREFILL);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
    e = server("third", "10.0.0.1", 8000, PDR_ROLE_DECODE);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    fleet_close(&f);
}

/* Two names that are not UTF-8 would be the same series in the metrics. */
static void a_name_is_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"\xff", "a\xe2\x82", "\xed\xa0\x80", "\302\2332J", "\x1b[2J", "a\nb", "\xe2\x80\xa8"};
    pdr_config   c = fleet_config();
    pdr_endpoint e;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        e = server(bad[i], "10.0.0.7", 8000, PDR_ROLE_PREFILL);
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_E_INVALID);
        assert_non_null(strstr(err.message, "not UTF-8"));
        e = server("fine", "10.0.0.7", 8000, PDR_ROLE_PREFILL);
        snprintf(e.topology_rack, sizeof e.topology_rack, "%s", bad[i]);
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_E_INVALID);
    }
    e = server("\xc3\xbc\"\\{}=\xf0\x9f\x98\x80", "10.0.0.7", 8000, PDR_ROLE_PREFILL);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
    fleet_close(&f);
}

static void what_is_no_server_is_refused(void **state)
{
    (void)state;
    static const struct { const char *host; uint32_t port, role, dp, bootstrap; const char *says; } cases[] = {
        {"", 1, 1, 0, 0, "host \"\" is not a host name or address"},
        {"a b", 1, 1, 0, 0, "host \"a b\" is not a host name or address"},
        {"a/b", 1, 1, 0, 0, "host \"a/b\" is not a host name or address"},
        {"10.0.0.1:8000", 1, 1, 0, 0, "host \"10.0.0.1:8000\" is not a host name or address"},
        {"2.2.2.2", 1, 1, 0, 0, "2.2.2.2 is the engine's fake bootstrap host and cannot be an endpoint"},
        {"a", 0, 1, 0, 0, "port 0 is not in 1..65535"},
        {"a", 65536, 1, 0, 0, "port 65536 is not in 1..65535"},
        {"a", 1, 0, 0, 0, "role 0 is not prefill, decode or both"},
        {"a", 1, 4, 0, 0, "role 4 is not prefill, decode or both"},
        {"a", 1, 1, 1025, 0, "dp_size 1025 is above 1024"},
        {"a", 1, 1, 0, 65536, "bootstrap_port 65536 is not in 0..65535"},
    };
    pdr_config   c = fleet_config();
    pdr_endpoint e;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        e = server("x", cases[i].host, cases[i].port, cases[i].role);
        e.dp_size = cases[i].dp;
        e.bootstrap_port = cases[i].bootstrap;
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_E_INVALID);
        assert_string_equal(err.message, cases[i].says);
    }
    e = server("x", "a", 1, PDR_ROLE_PREFILL);
    strcpy(e.bootstrap_host, "2.2.2.2");
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_E_INVALID);
    /* a text that fills its field has no end; one with a line feed would forge lines of logs and metrics */
    static const size_t at[] = {offsetof(pdr_endpoint, name), offsetof(pdr_endpoint, host), offsetof(pdr_endpoint, bootstrap_host), offsetof(pdr_endpoint, topology_host),
                                offsetof(pdr_endpoint, topology_rack), offsetof(pdr_endpoint, topology_zone), offsetof(pdr_endpoint, labels)};
    static const size_t size[] = {sizeof e.name, sizeof e.host, sizeof e.bootstrap_host, sizeof e.topology_host, sizeof e.topology_rack, sizeof e.topology_zone, sizeof e.labels};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        e = server("x", "a", 1, PDR_ROLE_PREFILL);
        memset((char *)&e + at[i], 'z', size[i]);
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_E_INVALID);
        assert_string_equal(err.message, "a text of the endpoint is not terminated");
        e = server("x", "a", 1, PDR_ROLE_PREFILL);
        memcpy((char *)&e + at[i], "a\nb", 4);
        int labels = at[i] == offsetof(pdr_endpoint, labels); /* these are lines */
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), labels ? PDR_OK : PDR_E_INVALID);
        e = server("x", "a", 1, PDR_ROLE_PREFILL);
        memcpy((char *)&e + at[i], "a\177b", 4);
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), labels ? PDR_OK : PDR_E_INVALID);
    }
    e = server("", "fd00::1", 8000, PDR_ROLE_BOTH);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
    uint32_t id;
    assert_int_equal(pdr_endpoint_find(f.r, "[fd00::1]:8000", &id), PDR_OK);
    fleet_close(&f);
}

static void unknown_ids_are_told(void **state)
{
    (void)state;
    pdr_config        c = fleet_config();
    pdr_target_status s;
    pdr_load          load;
    fleet             f;
    uint32_t          id;
    fleet_open(&f, &c, 2, 1);
    assert_int_equal(pdr_endpoint_remove(f.r, f.prefill[0], &err), PDR_OK);
    pdr_init_struct(&s, sizeof s);
    pdr_init_struct(&load, sizeof load);
    for (int i = 0; i < 3; i++) {
        uint32_t unknown = i == 0 ? f.prefill[0] : i == 1 ? 63 : PDR_NONE;
        assert_int_equal(pdr_endpoint_get(f.r, unknown, NULL, NULL), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_target_get(f.r, unknown, 0, f.now, &s), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_endpoint_drain(f.r, unknown, 1, &err), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_endpoint_health(f.r, unknown, 1, f.now, &err), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_endpoint_remove(f.r, unknown, &err), PDR_E_NOT_FOUND);
        char says[64];
        snprintf(says, sizeof says, "no endpoint has the id %u", unknown);
        assert_string_equal(err.message, says);
        assert_int_equal(pdr_load_put(f.r, unknown, 0, &load, f.now, &err), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_report_put(f.r, unknown, PDR_REPORT_PROMETHEUS, "sglang:num_running_reqs 1\n", 26, f.now, NULL, &err), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_report_put(f.r, unknown, PDR_REPORT_SERVER_INFO, "{\"tp_size\":2}", 13, f.now, NULL, &err), PDR_E_NOT_FOUND);
        assert_int_equal(pdr_prefix_clear(f.r, unknown, 0), PDR_E_NOT_FOUND);
    }
    assert_int_equal(pdr_endpoint_find(f.r, "p0", &id), PDR_E_NOT_FOUND);
    /* a rank that the server has not */
    assert_int_equal(pdr_target_get(f.r, f.prefill[1], 1, f.now, &s), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_load_put(f.r, f.prefill[1], 1, &load, f.now, &err), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_prefix_clear(f.r, f.prefill[1], 1), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_target_get(f.r, f.prefill[1], 0, f.now, &s), PDR_OK);
    assert_int_equal(s.report_age_ms, PDR_NONE);
    fleet_close(&f);
}

static void all_are_walked_in_order_over_the_gaps(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    uint32_t   cursor = 0, id, seen = 0, last = 0;
    fleet_open(&f, &c, 3, 3);
    assert_int_equal(pdr_endpoint_remove(f.r, f.prefill[1], NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_remove(f.r, f.decode[2], NULL), PDR_OK);
    while (!pdr_endpoint_next(f.r, &cursor, &id)) {
        assert_true(!seen || id > last);
        assert_true(id != f.prefill[1] && id != f.decode[2]);
        last = id;
        seen++;
    }
    assert_int_equal(seen, 4);
    assert_int_equal(pdr_endpoint_next(f.r, &cursor, &id), PDR_E_NOT_FOUND); /* and stays at the end */
    fleet_close(&f);
}

static void ages_of_reports(void **state)
{
    (void)state;
    pdr_config        c = fleet_config();
    pdr_target_status s;
    pdr_load          load;
    fleet             f;
    fleet_open(&f, &c, 1, 1);
    pdr_init_struct(&s, sizeof s);
    pdr_init_struct(&load, sizeof load);
    load.have = PDR_LOAD_RUNNING;
    load.running = 3;
    assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
    assert_int_equal(pdr_target_get(f.r, f.prefill[0], 0, f.now + 1500 * MS, &s), PDR_OK);
    assert_int_equal(s.report_age_ms, 1500);
    assert_int_equal(s.reported_running, 3);
    assert_int_equal(pdr_target_get(f.r, f.prefill[0], 0, f.now + 60ull * 86400 * SECOND, &s), PDR_OK); /* more milliseconds than 32 bits hold */
    assert_int_equal(s.report_age_ms, PDR_NONE);
    fleet_close(&f);
}

/* ---- documents */

static pdr_apply_report report;

static int apply(fleet *f, uint32_t flags, const char *text)
{
    pdr_init_struct(&report, sizeof report);
    memset(&err, 0, sizeof err);
    pdr_init_struct(&err, sizeof err);
    return pdr_apply_json(f->r, text, strlen(text), flags, f->now, &report, &err);
}

#define ONE(name, host, role, more) "{\"name\":\"" name "\",\"host\":\"" host "\",\"port\":8000,\"role\":\"" role "\"" more "}"
#define ALL(list) "{\"endpoints\":[" list "]}"

static void a_document_is_applied_whole_or_not_at_all(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    uint32_t   id;
    c.max_endpoints = 3;
    fleet_open(&f, &c, 1, 1);
    /* the address of p0 under another name: a mistake, unless p0 goes with this document or gets another address by it */
    assert_int_equal(apply(&f, 0, ALL(ONE("new", "10.0.3.1", "prefill", "") "," ONE("twin", "10.0.0.1", "prefill", ""))), PDR_E_EXISTS);
    assert_string_equal(err.message, "twin has the address 10.0.0.1:8000, which is registered under the name p0");
    assert_int_equal(pdr_endpoint_find(f.r, "new", &id), PDR_E_NOT_FOUND);
    assert_int_equal(apply(&f, 0, ALL(ONE("twin", "10.0.0.1", "prefill", "") "," ONE("p0", "10.0.0.7", "prefill", ""))), PDR_OK);
    assert_int_equal(report.added, 1);
    assert_int_equal(report.updated, 1);
    assert_string_equal(got(&f, f.prefill[0]).host, "10.0.0.7");
    /* a fourth one has no place */
    assert_int_equal(apply(&f, 0, ALL(ONE("fourth", "10.0.3.4", "decode", ""))), PDR_E_FULL);
    assert_string_equal(err.message, "the document has more endpoints than there are places free (max_endpoints 3)");
    /* pruned: the others go first, so there is one */
    assert_int_equal(apply(&f, PDR_APPLY_PRUNE, ALL(ONE("fourth", "10.0.0.1", "decode", "") "," ONE("d0", "10.0.1.1", "decode", ""))), PDR_OK);
    assert_int_equal(report.removed, 2);
    assert_int_equal(report.added, 1);
    assert_int_equal(report.unchanged, 1);
    assert_int_equal(fleet_stats(&f).endpoints, 2);
    /* a server that cannot be one */
    assert_int_equal(apply(&f, 0, ALL(ONE("good", "10.0.4.1", "decode", "") "," ONE("bad", "2.2.2.2", "decode", ""))), PDR_E_INVALID);
    assert_int_equal(pdr_endpoint_find(f.r, "good", &id), PDR_E_NOT_FOUND);
    /* the report is not needed */
    assert_int_equal(pdr_apply_json(f.r, ALL(ONE("d0", "10.0.1.1", "decode", "")), strlen(ALL(ONE("d0", "10.0.1.1", "decode", ""))), 0, f.now, NULL, NULL), PDR_OK);
    assert_int_equal(apply(&f, 0, "{\"endpoints\":[{]}"), PDR_E_PARSE);
    fleet_close(&f);
}

static void ranks_that_change_need_a_place_of_their_own(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    uint64_t     hash = 9;
    size_t       matched;
    c.max_endpoints = 3;
    c.max_targets = 7; /* d0 has the second: five in a row are free */
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(pdr_prefix_store(f.r, f.prefill[0], 0, &hash, 1), PDR_OK);
    /* idle: its targets are given back before the new ones are taken. What it held in its cache is another server's now */
    assert_int_equal(apply(&f, 0, ALL(ONE("p0", "10.0.0.1", "prefill", ",\"dp_size\":5"))), PDR_OK);
    assert_int_equal(pdr_endpoint_find(f.r, "p0", &f.prefill[0]), PDR_OK);
    assert_int_equal(got(&f, f.prefill[0]).dp_size, 5);
    assert_int_equal(fleet_stats(&f).targets, 6);
    for (uint32_t rank = 0; rank < 5; rank++) {
        assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], rank, &hash, 1, &matched), PDR_OK);
        assert_int_equal(matched, 0);
    }
    /* busy: the old targets stay taken until the last request has ended */
    assert_int_equal(fleet_route(&f, 1000, 1, 0, &d), PDR_OK);
    assert_int_equal(apply(&f, 0, ALL(ONE("p0", "10.0.0.1", "prefill", ",\"dp_size\":2"))), PDR_E_FULL);
    assert_string_equal(err.message, "the table of targets has no room for the 2 ranks of p0 (max_targets 7)");
    assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now), PDR_OK);
    assert_int_equal(apply(&f, 0, ALL(ONE("p0", "10.0.0.1", "prefill", ",\"dp_size\":2"))), PDR_OK);
    fleet_close(&f);
}

#define META(name, role, more) "\"metadata\":{\"name\":\"" name "\",\"labels\":{\"app\":\"q\",\"rbg.workloads.x-k8s.io/role-name\":\"" role "\"}" more "}"
#define POD(name, role, ip, ready, more)                                                                                                   \
    "{\"apiVersion\":\"v1\",\"kind\":\"Pod\"," META(name, role, more) ",\"status\":{\"phase\":\"Running\",\"podIP\":\"" ip                   \
    "\",\"conditions\":[{\"type\":\"Initialized\",\"status\":\"True\"},{\"type\":\"Ready\",\"status\":\"" ready "\"}]}}"
#define POOL "{\"apiVersion\":\"inference.networking.k8s.io/v1\",\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"q\"},\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"q\"}},\"targetPorts\":[{\"number\":8000}]}}"

static void pods_that_are_not_ready_finish_but_get_nothing_new(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    uint32_t   id;
    fleet_open(&f, &c, 0, 0);
    assert_int_equal(apply(&f, PDR_APPLY_PRUNE, "[" POOL "," POD("a", "prefill", "10.1.0.1", "True", "") "," POD("b", "decode", "10.1.0.2", "True", "") ","
                           POD("c", "decode", "10.1.0.3", "False", "") "]"), PDR_OK);
    assert_int_equal(report.added, 2);
    assert_int_equal(report.skipped, 1);
    assert_int_equal(pdr_endpoint_find(f.r, "c", &id), PDR_E_NOT_FOUND); /* never added while it is out */
    assert_int_equal(pdr_endpoint_find(f.r, "b", &id), PDR_OK);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(apply(&f, PDR_APPLY_PRUNE, "[" POD("a", "prefill", "10.1.0.1", "True", "") "," POD("b", "decode", "10.1.0.2", "False", "") "]"), PDR_OK);
        assert_int_equal(report.updated, again ? 0 : 1);
        assert_int_equal(report.unchanged, again ? 2 : 1);
        assert_int_equal(report.removed, 0);
        assert_int_equal(state_of(&f, id), PDR_STATE_DRAINING);
        assert_int_equal(pdr_ready(f.r, f.now), 0);
    }
    assert_int_equal(apply(&f, PDR_APPLY_PRUNE, "[" POD("a", "prefill", "10.1.0.1", "True", "") "," POD("b", "decode", "10.1.0.2", "True", "") "]"), PDR_OK);
    assert_int_equal(report.updated, 1);
    assert_int_equal(state_of(&f, id), PDR_STATE_READY);
    /* one that is being deleted */
    assert_int_equal(apply(&f, PDR_APPLY_PRUNE, "[" POD("a", "prefill", "10.1.0.1", "True", "") ","
                           POD("b", "decode", "10.1.0.2", "True", ",\"deletionTimestamp\":\"2025-01-01T00:00:00Z\"") "]"), PDR_OK);
    assert_int_equal(state_of(&f, id), PDR_STATE_DRAINING);
    /* the operator's own drain is not lifted by documents */
    assert_int_equal(pdr_endpoint_drain(f.r, id, 0, NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_drain(f.r, id, 1, NULL), PDR_OK);
    assert_int_equal(apply(&f, PDR_APPLY_PRUNE, "[" POD("a", "prefill", "10.1.0.1", "True", "") "," POD("b", "decode", "10.1.0.2", "True", "") "]"), PDR_OK);
    assert_int_equal(state_of(&f, id), PDR_STATE_DRAINING);
    assert_int_equal(pdr_endpoint_drain(f.r, id, 0, NULL), PDR_OK);
    assert_int_equal(state_of(&f, id), PDR_STATE_READY);
    fleet_close(&f);
}

/* ---- reports */

static int told(fleet *f, uint32_t id, uint32_t kind, const char *text, uint32_t *ignored)
{
    memset(&err, 0, sizeof err);
    pdr_init_struct(&err, sizeof err);
    return pdr_report_put(f->r, id, kind, text, strlen(text), f->now, ignored, &err);
}

static void the_description_fills_in_what_nobody_wrote_down(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e = server("full", "10.9.0.1", 8000, PDR_ROLE_PREFILL);
    pdr_decision d;
    fleet        f;
    uint32_t     full, ignored = 0;
    fleet_open(&f, &c, 1, 1);
    e.bootstrap_port = 77;
    e.kv_capacity = 1000;
    e.max_running = 5;
    e.dp_size = 2;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &full, &err), PDR_OK);
    const char *text = "{\"disaggregation_mode\":\"prefill\",\"disaggregation_bootstrap_port\":9123,\"dp_size\":4,\"max_total_num_tokens\":64000,\"max_running_requests\":12}";
    assert_int_equal(told(&f, f.prefill[0], PDR_REPORT_SERVER_INFO, text, &ignored), PDR_OK);
    assert_int_equal(ignored, 0);
    assert_string_equal(err.message, "");
    assert_int_equal(pdr_endpoint_find(f.r, "p0", &f.prefill[0]), PDR_OK);
    assert_int_equal(got(&f, f.prefill[0]).bootstrap_port, 9123);
    assert_int_equal(got(&f, f.prefill[0]).dp_size, 4);
    pdr_target_status s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_target_get(f.r, f.prefill[0], 3, f.now, &s), PDR_OK);
    assert_int_equal(s.kv_capacity, 64000);
    /* what the operator wrote stands */
    assert_int_equal(told(&f, full, PDR_REPORT_SERVER_INFO, text, NULL), PDR_OK);
    assert_int_equal(got(&f, full).bootstrap_port, 77);
    assert_int_equal(got(&f, full).dp_size, 2);
    assert_int_equal(fleet_target(&f, full).kv_capacity, 1000);
    /* so does his null, and a contradiction is told, not obeyed */
    e = server("null", "10.9.0.2", 8000, PDR_ROLE_PREFILL);
    e.flags = PDR_ENDPOINT_NULL_BOOTSTRAP_PORT;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &full, &err), PDR_OK);
    assert_int_equal(told(&f, full, PDR_REPORT_SERVER_INFO, "{\"disaggregation_bootstrap_port\":9123,\"dp_size\":1}", NULL), PDR_OK);
    assert_int_equal(got(&f, full).bootstrap_port, 0);
    assert_int_equal(told(&f, f.decode[0], PDR_REPORT_SERVER_INFO, text, NULL), PDR_OK);
    assert_string_equal(err.message, "endpoint d0 is registered for role decode but says it has role prefill");
    assert_int_equal(got(&f, f.decode[0]).role, PDR_ROLE_DECODE);
    assert_int_equal(got(&f, f.decode[0]).bootstrap_port, 0); /* a decode server has none */
    /* a role that agrees is no news */
    assert_int_equal(told(&f, full, PDR_REPORT_SERVER_INFO, "{\"disaggregation_mode\":\"prefill\"}", NULL), PDR_OK);
    assert_string_equal(err.message, "");
    assert_int_equal(fleet_route(&f, 100, 0, 0, &d), PDR_OK);
    assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now), PDR_OK);
    fleet_close(&f);
}

/* A reload puts the same servers again, without what only they said; and a server's last word counts. */
static void what_a_server_said_outlives_a_put(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e = server("p", "10.9.0.1", 8000, PDR_ROLE_PREFILL);
    fleet        f;
    uint32_t     id, again;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_bootstrap_port\":9123,\"dp_size\":2}", NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_find(f.r, "p", &id), PDR_OK);
    assert_int_equal(got(&f, id).flags, PDR_ENDPOINT_TOLD_PORT | PDR_ENDPOINT_TOLD_DP);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &again, &err), PDR_OK);
    assert_int_equal(again, id); /* its ranks and what is known of them stay */
    assert_int_equal(got(&f, id).bootstrap_port, 9123);
    assert_int_equal(got(&f, id).dp_size, 2);
    /* what another process has read here and puts somewhere else is still the server's word */
    e = got(&f, id);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &again, &err), PDR_OK);
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_bootstrap_port\":9200,\"dp_size\":4}", NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_find(f.r, "p", &id), PDR_OK);
    assert_int_equal(got(&f, id).bootstrap_port, 9200);
    assert_int_equal(got(&f, id).dp_size, 4);
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"dp_size\":1}", NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_find(f.r, "p", &id), PDR_OK);
    assert_int_equal(got(&f, id).dp_size, 0);
    assert_int_equal(got(&f, id).flags, PDR_ENDPOINT_TOLD_PORT);
    /* its role is only told, outlives a put, and goes with the address */
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_mode\":\"decode\"}", NULL), PDR_OK);
    assert_int_equal(got(&f, id).role, PDR_ROLE_PREFILL);
    e = server("p", "10.9.0.1", 8000, PDR_ROLE_PREFILL);
    e.flags = PDR_ENDPOINT_TOLD_PREFILL; /* nobody else's to say */
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &again, &err), PDR_OK);
    assert_int_equal(got(&f, again).flags, PDR_ENDPOINT_TOLD_PORT | PDR_ENDPOINT_TOLD_DECODE);
    char   text[65536];
    size_t need;
    assert_int_equal(pdr_status_json(f.r, f.now, text, sizeof text, &need), PDR_OK);
    assert_non_null(strstr(text, "\"role\":\"prefill\",\"told_role\":\"decode\""));
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_mode\":\"null\"}", NULL), PDR_OK);
    assert_int_equal(got(&f, id).flags, PDR_ENDPOINT_TOLD_PORT | PDR_ENDPOINT_TOLD_PREFILL | PDR_ENDPOINT_TOLD_DECODE);
    e.port = 8001;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(got(&f, id).flags, 0);
    /* what is written down takes its place, and is not overruled */
    e = server("p", "10.9.0.1", 8000, PDR_ROLE_PREFILL);
    e.bootstrap_port = 77;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_bootstrap_port\":9123}", NULL), PDR_OK);
    assert_int_equal(got(&f, id).bootstrap_port, 77);
    assert_int_equal(got(&f, id).flags, 0);
    /* another server under the same name has said nothing yet */
    e = server("p", "10.9.0.1", 8000, PDR_ROLE_PREFILL);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_bootstrap_port\":9123}", NULL), PDR_OK);
    e = server("p", "10.9.0.7", 8000, PDR_ROLE_PREFILL);
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(got(&f, id).bootstrap_port, 0);
    /* nor has one that is a decode server now */
    assert_int_equal(told(&f, id, PDR_REPORT_SERVER_INFO, "{\"disaggregation_bootstrap_port\":9123}", NULL), PDR_OK);
    e.role = PDR_ROLE_DECODE;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    assert_int_equal(got(&f, id).bootstrap_port, 0);
    fleet_close(&f);
}

static void a_description_that_does_not_fit_changes_nothing(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    uint32_t   ignored = 0;
    c.max_targets = 3;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(told(&f, f.prefill[0], PDR_REPORT_SERVER_INFO, "{\"dp_size\":8}", NULL), PDR_E_FULL);
    assert_int_equal(got(&f, f.prefill[0]).dp_size, 0);
    assert_int_equal(told(&f, f.prefill[0], PDR_REPORT_SERVER_INFO, "{\"dp_size\":1025}", NULL), PDR_E_INVALID); /* no endpoint can be so */
    assert_string_equal(err.message, "dp_size 1025 is above 1024");
    assert_int_equal(got(&f, f.prefill[0]).dp_size, 0);
    /* nonsense is counted, not believed */
    assert_int_equal(told(&f, f.prefill[0], PDR_REPORT_SERVER_INFO,
                          "{\"disaggregation_mode\":\"x\",\"dp_size\":0,\"tp_size\":\"2\",\"version\":\"\",\"load_balance_method\":null,\"model_path\":\"m\",\"max_total_num_tokens\":0}", &ignored), PDR_OK);
    assert_int_equal(ignored, 5);
    assert_int_equal(told(&f, f.prefill[0], PDR_REPORT_SERVER_INFO, "{}", NULL), PDR_E_PARSE);
    assert_int_equal(told(&f, f.prefill[0], PDR_REPORT_SERVER_INFO, "{", NULL), PDR_E_PARSE);
    assert_int_equal(fleet_stats(&f).reports_failed, 2);
    assert_int_equal(told(&f, f.prefill[0], 9, "{}", NULL), PDR_E_INVALID);
    assert_string_equal(err.message, "report kind 9 is unknown");
    assert_int_equal(fleet_stats(&f).reports_failed, 2);
    fleet_close(&f);
}

static void loads_of_ranks_reach_their_ranks(void **state)
{
    (void)state;
    pdr_config        c = fleet_config();
    pdr_endpoint      e = server("ranked", "10.9.0.1", 8000, PDR_ROLE_DECODE);
    pdr_target_status s;
    fleet             f;
    uint32_t          id, ignored = 0;
    fleet_open(&f, &c, 1, 1);
    e.dp_size = 3;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, &id, &err), PDR_OK);
    /* rank 1 says nothing, rank 3 does not exist there, rank 70 nowhere */
    assert_int_equal(told(&f, id, PDR_REPORT_LOADS, "{\"loads\":[{\"dp_rank\":0,\"num_running_reqs\":4},{\"dp_rank\":2,\"num_running_reqs\":6,\"max_total_num_tokens\":0},"
                          "{\"dp_rank\":3,\"num_running_reqs\":9},{\"dp_rank\":70,\"num_running_reqs\":9},{\"dp_rank\":\"x\"},7]}", &ignored), PDR_OK);
    assert_true(ignored >= 3);
    static const uint64_t running[] = {4, 0, 6};
    static const uint32_t age[] = {0, PDR_NONE, 0};
    for (uint32_t rank = 0; rank < 3; rank++) {
        pdr_init_struct(&s, sizeof s);
        assert_int_equal(pdr_target_get(f.r, id, rank, f.now, &s), PDR_OK);
        assert_int_equal(s.reported_running, running[rank]);
        assert_int_equal(s.report_age_ms, age[rank]);
        assert_int_equal(s.kv_capacity, 0); /* a capacity of nothing is not believed */
    }
    assert_int_equal(told(&f, id, PDR_REPORT_LOADS, "{\"loads\":7}", &ignored), PDR_E_PARSE);
    assert_int_equal(told(&f, id, PDR_REPORT_LOADS, "{\"loads\":[]}", &ignored), PDR_E_PARSE);
    fleet_close(&f);
}

/* Load of others counts from the second report on: a single one may be of the moment between an end and our hearing of it. */
static void others_load_counts_when_told_twice(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_load     load;
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 2, 1);
    pdr_init_struct(&load, sizeof load);
    load.have = PDR_LOAD_WAITING | PDR_LOAD_WAITING_TOKENS | PDR_LOAD_RUNNING | PDR_LOAD_KV_USED | PDR_LOAD_KV_CAPACITY;
    load.waiting = 10;
    load.waiting_tokens = 100000;
    load.running = 1ull << 33; /* more than 32 bits */
    load.kv_used = load.kv_capacity = 0;
    assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefill_wait_us, 0);
    assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
    uint64_t wait = fleet_target(&f, f.prefill[0]).prefill_wait_us;
    assert_in_range(wait, 5000000, 20000000); /* 100,000 tokens by the prior: 5.5 s and the quadratic part */
    assert_int_equal(fleet_route(&f, 1000, 0, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
    assert_int_equal(d.prefill, f.prefill[1]);
    pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    f.now += 1 * SECOND; /* it drains with time */
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefill_wait_us, wait - 1000000);
    f.now += 60 * SECOND;
    assert_int_equal(fleet_target(&f, f.prefill[0]).prefill_wait_us, 0);
    fleet_close(&f);
}

/* An engine that counts what it prefilled and how long that took tells its speed, unless our own prompts have told it already. */
static void speed_by_the_engines_own_counters(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    pdr_load   load;
    fleet      f;
    fleet_open(&f, &c, 1, 1);
    pdr_init_struct(&load, sizeof load);
    load.have = PDR_LOAD_PREFILL_SPEED;
    for (int i = 0; i < 20; i++) { /* four times slower than the prior */
        uint64_t prior_us = 2 * (10000 + 4096 * 55100ull / 1000 + 4096ull * 2048 / 1000 * 1760000 / 1000000);
        assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
        load.prefill_uncached_total += 8192;
        load.prefill_busy_us_total += 4 * prior_us;
        f.now += SECOND;
    }
    uint32_t speed = fleet_target(&f, f.prefill[0]).speed_permille;
    assert_in_range(speed, 200, 400);
    /* counters that stand still, or run back because the server began anew, tell nothing */
    load.prefill_busy_us_total = 5;
    for (int i = 0; i < 5; i++) assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
    load.prefill_uncached_total += 100000;
    assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
    load.prefill_busy_us_total += 10;
    load.prefill_uncached_total += 2048;
    assert_int_equal(pdr_load_put(f.r, f.prefill[0], 0, &load, f.now, &err), PDR_OK);
    assert_int_equal(fleet_target(&f, f.prefill[0]).speed_permille, speed);
    fleet_close(&f);
}

/* ---- the index, fed from outside */

static void blocks_told_by_the_caller(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    uint64_t   hash[40];
    size_t     matched = 99;
    c.max_blocks = 32;
    fleet_open(&f, &c, 2, 1);
    for (uint32_t i = 0; i < 40; i++) hash[i] = (i + 1) * 0x9E3779B97F4A7C15u;
    assert_int_equal(pdr_prefix_store(f.r, f.prefill[0], 0, hash, 40), PDR_OK);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, hash, 40, &matched), PDR_OK);
    assert_int_equal(matched, 32); /* no longer than a prompt may be */
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, hash, 5, &matched), PDR_OK);
    assert_int_equal(matched, 5);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[1], 0, hash, 5, &matched), PDR_OK);
    assert_int_equal(matched, 0);
    assert_int_equal(pdr_prefix_remove(f.r, f.prefill[0], 0, hash + 3, 1), PDR_OK);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, hash, 40, &matched), PDR_OK);
    assert_int_equal(matched, 3);
    /* nothing is a list too, NULL is one only if it is empty */
    assert_int_equal(pdr_prefix_store(f.r, f.prefill[0], 0, NULL, 0), PDR_OK);
    assert_int_equal(pdr_prefix_remove(f.r, f.prefill[0], 0, NULL, 0), PDR_OK);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, NULL, 0, &matched), PDR_OK);
    assert_int_equal(matched, 0);
    assert_int_equal(pdr_prefix_store(f.r, f.prefill[0], 0, NULL, 1), PDR_E_INVALID);
    assert_int_equal(pdr_prefix_remove(f.r, f.prefill[0], 0, NULL, 1), PDR_E_INVALID);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, NULL, 1, &matched), PDR_E_INVALID);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, hash, 1, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 9, hash, 1, &matched), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_prefix_store(f.r, 60, 0, hash, 1), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_prefix_remove(f.r, 60, 0, hash, 1), PDR_E_NOT_FOUND);
    assert_int_equal(pdr_prefix_clear(f.r, f.prefill[0], 0), PDR_OK);
    assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, hash, 40, &matched), PDR_OK);
    assert_int_equal(matched, 0);
    fleet_close(&f);
}

/* A server that comes back from the dead, or under its name at another address, has an empty cache and a clean record. */
static void a_new_server_of_an_old_name_is_unknown(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_endpoint e;
    fleet        f;
    uint64_t     hash = 5;
    size_t       matched;
    for (int moved = 0; moved < 2; moved++) {
        fleet_open(&f, &c, 1, 1);
        assert_int_equal(pdr_prefix_store(f.r, f.prefill[0], 0, &hash, 1), PDR_OK);
        e = got(&f, f.prefill[0]);
        snprintf(e.topology_rack, sizeof e.topology_rack, "r1"); /* an update of the same server forgets nothing */
        assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
        assert_int_equal(pdr_endpoint_health(f.r, f.prefill[0], 1, f.now, NULL), PDR_OK);
        assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, &hash, 1, &matched), PDR_OK);
        assert_int_equal(matched, 1);
        if (moved) {
            e.port = 9000;
            assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
        } else {
            assert_int_equal(pdr_endpoint_health(f.r, f.prefill[0], 0, f.now, NULL), PDR_OK);
            assert_int_equal(state_of(&f, f.prefill[0]), PDR_STATE_DOWN);
            assert_int_equal(pdr_endpoint_health(f.r, f.prefill[0], 0, f.now, NULL), PDR_OK); /* said again: nothing */
            assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, &hash, 1, &matched), PDR_OK);
            assert_int_equal(matched, 1); /* down may be the network; only its return shows that it began anew */
            assert_int_equal(pdr_endpoint_health(f.r, f.prefill[0], 1, f.now, NULL), PDR_OK);
        }
        assert_int_equal(state_of(&f, f.prefill[0]), PDR_STATE_READY);
        assert_int_equal(pdr_prefix_match(f.r, f.prefill[0], 0, &hash, 1, &matched), PDR_OK);
        assert_int_equal(matched, 0);
        fleet_close(&f);
    }
}

/* ---- what is seen of servers */

static void ranks_have_rows_of_their_own(void **state)
{
    (void)state;
    static char  text[1 << 16];
    pdr_config   c = fleet_config();
    pdr_endpoint e = server("ranked \"x\"", "10.9.0.1", 8000, PDR_ROLE_PREFILL);
    fleet        f;
    size_t       need;
    fleet_open(&f, &c, 0, 1);
    e.dp_size = 2;
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
    assert_int_equal(pdr_status_prometheus(f.r, f.now, text, sizeof text - 1, &need), PDR_OK);
    text[need] = 0;
    assert_non_null(strstr(text, "pdroute_target_up{endpoint=\"ranked \\\"x\\\"\",role=\"prefill\",dp_rank=\"0\"} 1\n"));
    assert_non_null(strstr(text, "role=\"prefill\",dp_rank=\"1\"} 1\n"));
    assert_non_null(strstr(text, "pdroute_target_up{endpoint=\"d0\",role=\"decode\"} 1\n"));
    assert_non_null(strstr(text, "pdroute_ready 1\n"));
    assert_int_equal(pdr_status_json(f.r, f.now, text, sizeof text - 1, &need), PDR_OK);
    text[need] = 0;
    assert_non_null(strstr(text, "\"ready\":true"));
    assert_int_equal(pdr_endpoint_health(f.r, 0, 0, f.now, NULL), PDR_OK);
    assert_int_equal(pdr_status_json(f.r, f.now, text, sizeof text - 1, &need), PDR_OK);
    text[need] = 0;
    assert_non_null(strstr(text, "\"ready\":false"));
    fleet_close(&f);
}

static void decode_is_told_where_prefill_really_is(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 100, 0, 0, &d), PDR_OK);
    assert_string_equal(d.bootstrap_host, "10.0.0.1");
    pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    pdr_endpoint e = got(&f, f.prefill[0]);
    snprintf(e.bootstrap_host, sizeof e.bootstrap_host, "rdma-1.local");
    assert_int_equal(pdr_endpoint_put(f.r, &e, f.now, NULL, &err), PDR_OK);
    assert_int_equal(fleet_route(&f, 100, 0, 0, &d), PDR_OK);
    assert_string_equal(d.bootstrap_host, "rdma-1.local");
    assert_string_equal(d.prefill_host, "10.0.0.1");
    fleet_close(&f);
}

/* A decode server with as many requests as it can run is worse than one that has long ones. */
static void a_full_decode_server_is_avoided(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_load     load;
    pdr_decision d;
    fleet        f;
    fleet_open(&f, &c, 4, 2);
    pdr_init_struct(&load, sizeof load);
    load.have = PDR_LOAD_MAX_RUNNING;
    load.max_running = 2;
    assert_int_equal(pdr_load_put(f.r, f.decode[0], 0, &load, f.now, &err), PDR_OK);
    uint32_t sent[2] = {0, 0};
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(fleet_route(&f, 300, i, PDR_REQUEST_NO_HOLD, &d), PDR_OK);
        assert_int_equal(pdr_booking_done(f.r, d.booking, PDR_DONE_PREFILL, f.now), PDR_OK);
        sent[d.decode == f.decode[1]]++;
        f.now += 100 * MS;
    }
    assert_in_range(sent[0], 2, 10); /* a place in its queue costs 100 ms: half of all without that, by their steps alone */
    assert_int_equal(sent[0] + sent[1], 40);
    fleet_close(&f);
}

/* {"endpoints":[…]} with n servers of two roles, `first` of them prefill; at `twice` the address of `once` again. */
static char *long_list(size_t n, size_t first, size_t once, size_t twice)
{
    char  *text = malloc(n * 96 + 32);
    size_t len = (size_t)sprintf(text, "{\"endpoints\":[");
    for (size_t i = 0; i < n; i++) {
        size_t at = i == twice ? once : i;
        len += (size_t)sprintf(text + len, "%s{\"name\":\"w%zu\",\"role\":\"%s\",\"host\":\"10.%zu.%zu.%zu\",\"port\":8000}", i ? "," : "", i,
                               i < first ? "prefill" : "decode", at >> 16, at >> 8 & 255, at & 255);
    }
    strcpy(text + len, "]}");
    return text;
}

static double apply_timed(fleet *f, uint32_t flags, char *text, int want)
{
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    assert_int_equal(apply(f, flags, text), want);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    free(text);
    return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
}

/* The bounds of time are many times what it takes, for sanitizers and slow machines: they find what has become quadratic in the document. */
static void lists_longer_than_the_table(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    c.max_endpoints = 1024;
    c.max_targets = 1024;
    fleet_open(&f, &c, 1, 1);
    assert_true(apply_timed(&f, PDR_APPLY_PRUNE, long_list(100000, 50000, 0, 0), PDR_E_TOO_LARGE) < 10);
    assert_non_null(strstr(err.message, "100000 endpoints; max_endpoints is 65535 at most"));
    assert_true(apply_timed(&f, PDR_APPLY_PRUNE, long_list(65535, 30000, 0, 0), PDR_E_FULL) < 10);
    assert_string_equal(err.message, "the document has 65535 endpoints, there is place for 1024 (max_endpoints)");
    assert_true(apply_timed(&f, PDR_APPLY_PRUNE, long_list(60000, 30000, 17, 59999), PDR_E_PARSE) < 10);
    assert_string_equal(err.message, "endpoints 17 \"w17\" and 59999 \"w59999\" have the same address 10.0.0.17 port 8000");
    assert_int_equal(apply(&f, 0, ALL(ONE("a", "h1", "prefill", "") "," ONE("b", "h2", "decode", "") "," ONE("a", "h3", "decode", ""))), PDR_E_PARSE);
    assert_string_equal(err.message, "two endpoints have the name \"a\": endpoint 0 and endpoint 2");
    /* one without a name is called as its address, which another one is called already: not to be taken for the same */
    assert_int_equal(apply(&f, 0, ALL("{\"host\":\"h1\",\"port\":1,\"role\":\"decode\"}," ONE("h1:1", "h2", "decode", ""))), PDR_E_PARSE);
    assert_string_equal(err.message, "two endpoints have the name \"h1:1\", one of them for want of its own");
    apply_timed(&f, PDR_APPLY_PRUNE, long_list(1025, 1, 0, 0), PDR_E_FULL);
    assert_int_equal(fleet_stats(&f).endpoints, 2); /* nothing of all these */
    assert_int_equal(got(&f, f.prefill[0]).role, PDR_ROLE_PREFILL);

    assert_true(apply_timed(&f, PDR_APPLY_PRUNE, long_list(1024, 512, 0, 0), PDR_OK) < 10);
    assert_int_equal(report.added, 1024);
    assert_int_equal(report.removed, 2);
    assert_int_equal(pdr_router_check(f.r, &err), PDR_OK);
    assert_true(apply_timed(&f, PDR_APPLY_PRUNE, long_list(1024, 24, 0, 0), PDR_OK) < 10); /* 488 change their role at once */
    assert_int_equal(report.updated, 488);
    assert_int_equal(report.unchanged, 1024 - 488);
    assert_int_equal(pdr_router_check(f.r, &err), PDR_OK);
    fleet_close(&f);
}

static int relists(const fleet *f, uint32_t *n)
{
    pdr_books b;
    int       code = pdr_books_lock(&b, f->r, f->now);
    if (code) return code;
    *n = b.registry.head->relists;
    return pdr_books_unlock(&b, PDR_OK, NULL);
}

/* As long_list(n, 0), with two ranks each. */
static char *list_of_ranks(size_t n)
{
    char  *text = malloc(n * 112 + 32);
    size_t len = (size_t)sprintf(text, "{\"endpoints\":[");
    for (size_t i = 0; i < n; i++)
        len += (size_t)sprintf(text + len, "%s{\"name\":\"w%zu\",\"role\":\"decode\",\"host\":\"10.0.%zu.%zu\",\"port\":8000,\"dp_size\":2}", i ? "," : "", i, i >> 8, i & 255);
    strcpy(text + len, "]}");
    return text;
}

/* However many come, go or change, the lists are made anew once, at the end; every step leaves each found by name and address. */
static void a_document_makes_the_lists_once(void **state)
{
    static const uint32_t targets[] = {300, 600, 2};
    (void)state;
    pdr_config c = fleet_config();
    fleet      f;
    uint32_t   id;
    c.max_endpoints = 600;
    c.max_targets = 1200;
    fleet_open(&f, &c, 1, 1);
    for (int i = 0; i < 3; i++) {
        uint32_t before, after;
        assert_int_equal(relists(&f, &before), PDR_OK);
        /* all new; all with another number of ranks, so that each is removed and added; most gone */
        char *text = i == 0 ? long_list(300, 100, 0, 0) : i == 1 ? list_of_ranks(300) : long_list(2, 1, 0, 0);
        assert_int_equal(apply(&f, PDR_APPLY_PRUNE, text), PDR_OK);
        free(text);
        assert_int_equal(relists(&f, &after), PDR_OK);
        assert_int_equal(after - before, 1);
        assert_int_equal(pdr_router_check(f.r, &err), PDR_OK);
        assert_int_equal(pdr_endpoint_find(f.r, "w1", &id), PDR_OK);
        assert_int_equal(pdr_endpoint_find(f.r, "w299", &id), i < 2 ? PDR_OK : PDR_E_NOT_FOUND);
        assert_int_equal(fleet_stats(&f).targets, targets[i]);
    }
    fleet_close(&f);
}

/* An endpoint that nobody finds, or that is found by what it is not: the check tells, and the next repair sets it right. */
static void who_is_not_found_is_told(void **state)
{
    (void)state;
    fleet      f;
    pdr_books  b;
    uint32_t   id;
    pdr_config c = fleet_config();
    fleet_open(&f, &c, 3, 3);
    for (int what = 0; what < 4; what++) {
        assert_int_equal(pdr_books_lock(&b, f.r, f.now), PDR_OK);
        if (what == 0) memset(b.registry.lookups, 0xFF, pdr_registry_lookups_size(b.registry.head->max_endpoints)); /* nobody is linked */
        if (what == 1) b.registry.endpoints[f.prefill[1]].address_hash ^= 64;
        if (what == 2) b.registry.head->free_from = b.registry.head->max_endpoints;
        if (what == 3) b.registry.head->places.from[0] = b.registry.head->max_targets;
        pdr_books_unlock(&b, PDR_OK, NULL);
        assert_int_equal(pdr_router_check(f.r, &err), PDR_E_BLOCK_CORRUPT);
        assert_int_equal(pdr_books_lock(&b, f.r, f.now), PDR_OK);
        pdr_registry_repair(&b.registry);
        pdr_registry_relist(&b.registry);
        pdr_books_unlock(&b, PDR_OK, NULL);
        if (pdr_router_check(f.r, &err)) fail_msg("%d: %s", what, err.message);
        assert_int_equal(pdr_endpoint_find(f.r, "p1", &id), PDR_OK);
        assert_int_equal(id, f.prefill[1]);
        fleet_add(&f, "p1", "10.0.0.2", 8000, PDR_ROLE_PREFILL);
        assert_int_equal(fleet_stats(&f).endpoints, 6);
    }
    fleet_close(&f);
}

static int begin(void **state)
{
    (void)state;
    pdr_init_struct(&err, sizeof err);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_address_has_one_name, begin),
        cmocka_unit_test_setup(a_name_is_text, begin),
        cmocka_unit_test_setup(what_is_no_server_is_refused, begin),
        cmocka_unit_test_setup(unknown_ids_are_told, begin),
        cmocka_unit_test_setup(all_are_walked_in_order_over_the_gaps, begin),
        cmocka_unit_test_setup(ages_of_reports, begin),
        cmocka_unit_test_setup(a_document_is_applied_whole_or_not_at_all, begin),
        cmocka_unit_test_setup(ranks_that_change_need_a_place_of_their_own, begin),
        cmocka_unit_test_setup(pods_that_are_not_ready_finish_but_get_nothing_new, begin),
        cmocka_unit_test_setup(the_description_fills_in_what_nobody_wrote_down, begin),
        cmocka_unit_test_setup(what_a_server_said_outlives_a_put, begin),
        cmocka_unit_test_setup(a_description_that_does_not_fit_changes_nothing, begin),
        cmocka_unit_test_setup(loads_of_ranks_reach_their_ranks, begin),
        cmocka_unit_test_setup(others_load_counts_when_told_twice, begin),
        cmocka_unit_test_setup(speed_by_the_engines_own_counters, begin),
        cmocka_unit_test_setup(blocks_told_by_the_caller, begin),
        cmocka_unit_test_setup(a_new_server_of_an_old_name_is_unknown, begin),
        cmocka_unit_test_setup(ranks_have_rows_of_their_own, begin),
        cmocka_unit_test_setup(decode_is_told_where_prefill_really_is, begin),
        cmocka_unit_test_setup(a_full_decode_server_is_avoided, begin),
        cmocka_unit_test_setup(lists_longer_than_the_table, begin),
        cmocka_unit_test_setup(a_document_makes_the_lists_once, begin),
        cmocka_unit_test_setup(who_is_not_found_is_told, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
