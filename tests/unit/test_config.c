/* lib/config.c: defaults, ranges, and the JSON form. */
#include "config.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "feed_data.h"

static pdr_error err;

static pdr_config fresh(void)
{
    pdr_config c;
    pdr_init_struct(&c, sizeof c);
    pdr_init_struct(&err, sizeof err);
    return c;
}

static void set(pdr_config *c, const pdr_config_field *f, uint64_t value)
{
    uint32_t narrow = (uint32_t)value;
    memcpy((char *)c + f->offset, f->size == 8 ? (const void *)&value : (const void *)&narrow, f->size);
}

static void defaults_are_those_of_the_header(void **state)
{
    (void)state;
    pdr_config c = fresh();
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    assert_int_equal(c.policy, PDR_POLICY_DEFAULT);
    assert_int_equal(c.max_endpoints, 1024);
    assert_int_equal(c.max_targets, 1024);
    assert_int_equal(c.max_bookings, 16384);
    assert_int_equal(c.max_leases, 256);
    assert_int_equal(c.max_held, 1024);
    assert_int_equal(c.index_entries, 1048576);
    assert_int_equal(c.block_bytes, 512);
    assert_int_equal(c.max_blocks, 4096);
    assert_int_equal(c.max_body, 33554432);
    assert_int_equal(c.max_depth, 128);
    assert_int_equal(c.max_batch, 1024);
    assert_int_equal(c.bootstrap_port, 8998);
    assert_int_equal(c.log_entries, 256);
    assert_int_equal(c.prefill_base_us, 10000);
    assert_int_equal(c.prefill_ns_per_token, 55100);
    assert_int_equal(c.prefill_fs_per_token2, 1760000);
    assert_int_equal(c.decode_us_per_request, 50);
    assert_int_equal(c.decode_ps_per_token, 48900);
    assert_int_equal(c.kv_bytes_per_token, 262144);
    assert_int_equal(c.transfer_latency_us, 5000);
    assert_int_equal(c.transfer_mbps_host, 200000);
    assert_int_equal(c.transfer_mbps_rack, 50000);
    assert_int_equal(c.transfer_mbps_zone, 50000);
    assert_int_equal(c.transfer_mbps_far, 12500);
    assert_int_equal(c.milli_tokens_per_byte, 250);
    assert_int_equal(c.hold, PDR_HOLD_ON);
    assert_int_equal(c.hold_window_tokens, 8192);
    assert_int_equal(c.hold_max_wait_ms, 60000);
    assert_int_equal(c.hold_ageing_ms, 0);
    assert_int_equal(c.lease_ttl_ms, 10000);
    assert_int_equal(c.metrics_stale_ms, 5000);
    assert_int_equal(c.retry_max, 2);
    assert_int_equal(c.breaker_failures, 3);
    assert_int_equal(c.breaker_open_ms, 1000);
    assert_int_equal(c.first_byte_timeout_ms, 300000);
    assert_int_equal(c.total_timeout_ms, 86400000);
    assert_int_equal(c.first_byte_least_ms, 5000);
    assert_int_equal(c.idle_timeout_ms, 300000);
    assert_int_equal(c.idle_least_ms, 10000);
    assert_int_equal(c.retry_budget_permille, 200);
    assert_int_equal(c.breaker_error_permille, 500);
    pdr_config again = c;
    assert_int_equal(pdr_config_resolve(&again, &err), PDR_OK);
    assert_memory_equal(&c, &again, sizeof c);
}

/* The table covers every byte of the struct but struct_size and reserved: a field that is forgotten would never be
 * checked. */
static void table_covers_the_struct(void **state)
{
    (void)state;
    unsigned char           covered[sizeof(pdr_config)] = {0};
    const pdr_config_field *f;
    for (size_t i = 0; (f = pdr_config_field_at(i)); i++)
        for (uint32_t b = 0; b < f->size; b++) {
            assert_int_equal(covered[f->offset + b], 0);
            covered[f->offset + b] = 1;
        }
    memset(covered + offsetof(pdr_config, tenant_header), 1, sizeof ((pdr_config *)0)->tenant_header); /* the one that is text */
    size_t holes = 0;
    for (size_t b = 0; b < sizeof covered; b++) holes += !covered[b];
    assert_int_equal(holes, sizeof(uint32_t) * 3); /* struct_size and twice reserved */
}

static void every_range_has_two_ends(void **state)
{
    (void)state;
    const pdr_config_field *f;
    for (size_t i = 0; (f = pdr_config_field_at(i)); i++) {
        uint64_t   ceiling = f->size == 8 ? UINT64_MAX : UINT32_MAX;
        pdr_config c = fresh();
        set(&c, f, f->least);
        assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
        c = fresh();
        c.max_bookings = 1u << 24;
        set(&c, f, f->most);
        assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
        if (f->most == ceiling) continue;
        c = fresh();
        set(&c, f, f->most + 1);
        pdr_config before = c;
        assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
        assert_memory_equal(&c, &before, sizeof c);
        assert_non_null(strstr(err.message, f->name));
        char most[32];
        snprintf(most, sizeof most, "..%" PRIu64, f->most);
        assert_non_null(strstr(err.message, most));
        if (f->least > 1) {
            c = fresh();
            set(&c, f, f->least - 1);
            if (f->offset != offsetof(pdr_config, hold)) assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
        }
    }
}

static void special_rules(void **state)
{
    (void)state;
    pdr_config c = fresh();
    c.block_bytes = 66;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
    assert_non_null(strstr(err.message, "multiple of 4"));
    c = fresh();
    c.retry_max = UINT32_MAX;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    assert_int_equal(c.retry_max, UINT32_MAX);
    c = fresh();
    c.max_bookings = 10;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    assert_int_equal(c.max_held, 10);
    c = fresh();
    c.max_bookings = 10;
    c.max_held = 11;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
    assert_non_null(strstr(err.message, "max_held"));
    c = fresh();
    c.max_endpoints = 7;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    assert_int_equal(c.max_targets, 7);
    c = fresh();
    c.reserved = 1;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
    c = fresh();
    c.struct_size = 0;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_VERSION);
    assert_int_equal(pdr_config_resolve(NULL, &err), PDR_E_INVALID);
    assert_int_equal(pdr_config_resolve(&c, NULL), PDR_E_VERSION);
}

/* A caller with an older, shorter struct gets no byte written behind it. */
static void older_callers(void **state)
{
    (void)state;
    pdr_config c = fresh();
    c.struct_size = offsetof(pdr_config, max_bookings);
    c.total_timeout_ms = 77;
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    assert_int_equal(c.max_endpoints, 1024);
    assert_int_equal(c.max_bookings, 0);
    assert_int_equal(c.total_timeout_ms, 77);
    struct {
        pdr_config c;
        uint64_t   later;
    } newer = {.c = fresh(), .later = 0};
    newer.c.struct_size = sizeof newer;
    assert_int_equal(pdr_config_resolve(&newer.c, &err), PDR_OK);
    newer.later = 1;
    assert_int_equal(pdr_config_resolve(&newer.c, &err), PDR_E_VERSION);
}

static int from(const char *text, pdr_config *c)
{
    *c = fresh();
    return pdr_config_from_json(text, strlen(text), c, &err);
}

static void json_sets_every_field(void **state)
{
    (void)state;
    pdr_config              c, want = fresh();
    char                    text[4096] = "{", item[128];
    const pdr_config_field *f;
    for (size_t i = 0; (f = pdr_config_field_at(i)); i++) {
        const char *word = f->offset == offsetof(pdr_config, policy)   ? "\"power_of_two\""
                           : f->offset == offsetof(pdr_config, engine) ? "\"sglang\""
                           : f->offset == offsetof(pdr_config, hold)   ? "\"off\""
                                                                       : NULL;
        set(&want, f, f->most);
        if (word)
            snprintf(item, sizeof item, "%s\n \"%s\": %s", i ? "," : "", f->name, word);
        else
            snprintf(item, sizeof item, "%s\n \"%s\": %" PRIu64, i ? "," : "", f->name, f->most);
        strcat(text, item);
    }
    strcat(text, ", \"tenant_header\": \"X-Tenant-Id\", \"endpoints\": [{}], \"pool\": {\"x\": 1}}");
    strcpy(want.tenant_header, "x-tenant-id");
    assert_int_equal(from(text, &c), PDR_OK);
    assert_memory_equal(&c, &want, sizeof c);
    assert_true(c.seed == UINT64_MAX); /* all 64 bits */
}

static void json_keeps_zeros_for_later(void **state)
{
    (void)state;
    pdr_config c;
    assert_int_equal(from("{}", &c), PDR_OK);
    pdr_config zero = fresh();
    assert_memory_equal(&c, &zero, sizeof c);
    assert_int_equal(
        from(" {\"max_endpoints\" : 16, \"policy\":\"round_robin\", \"hold\":\"on\", \"max_leases\":0}\n", &c), PDR_OK);
    assert_int_equal(c.max_endpoints, 16);
    assert_int_equal(c.max_targets, 0);
    assert_int_equal(c.policy, PDR_POLICY_ROUND_ROBIN);
    assert_int_equal(c.hold, PDR_HOLD_ON);
    assert_int_equal(from("{\"retry_max\":0}", &c), PDR_OK);
    assert_int_equal(c.retry_max, UINT32_MAX);
}

/* As pdr_apply_json() takes them: the configuration may stand beside them, or not at all. */
static void kubernetes_objects(void **state)
{
    (void)state;
    pdr_config c = fresh();
    assert_int_equal(from("{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"max_depth\": 5}]}", &c), PDR_OK);
    assert_int_equal(c.max_depth, 0);
    assert_int_equal(from("[{\"kind\": \"Pod\", \"metadata\": {}}, {\"max_depth\": 5, \"endpoints\": []}, {\"endpoints\": [], \"max_held\": 7}]", &c), PDR_OK);
    assert_int_equal(c.max_depth, 5);
    assert_int_equal(c.max_held, 7);
}

static void json_errors_name_field_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t    line;
        const char *says;
        int         code;
    } cases[] = {
        {"{\n\"max_endpoint\": 5}", 2, "unknown member \"max_endpoint\", perhaps \"max_endpoints\" is meant",
         PDR_E_PARSE},
        {"{\"MaxEndpoints\": 5}", 1, "perhaps \"max_endpoints\"", PDR_E_PARSE},
        {"{\"zzz\": 5}", 1, "unknown member \"zzz\"", PDR_E_PARSE},
        {"{\"\": 5}", 1, "unknown member \"\"", PDR_E_PARSE},
        {"{\"reserved\": 0}", 1, "unknown member \"reserved\"", PDR_E_PARSE},
        {"{\"struct_size\": 1}", 1, "unknown member \"struct_size\"", PDR_E_PARSE},
        {"{\"max_depth\": 5,\n\n\"max_depth\": 5}", 3, "twice", PDR_E_PARSE},
        {"{\"pool\": 5,\"pool\": 5}", 1, "twice", PDR_E_PARSE},
        {"{\"max_depth\":\n5.0}", 2, "max_depth is 5.0, allowed is a whole number 1..1024", PDR_E_PARSE},
        {"{\"max_depth\": 1025}", 1, "1..1024", PDR_E_PARSE},
        {"{\"max_depth\": -1}", 1, "max_depth is -1", PDR_E_PARSE},
        {"{\"max_depth\": 1e2}", 1, "whole number", PDR_E_PARSE},
        {"{\"seed\": 18446744073709551616}", 1, "seed is 18446744073709551616", PDR_E_PARSE},
        {"{\"max_leases\": 99999999999999999999999999999999999999999999999999999999999999}", 1, "max_leases",
         PDR_E_PARSE},
        {"{\"block_bytes\": 510}", 1, "multiple of 4", PDR_E_PARSE},
        {"{\"retry_max\": 9}", 1, "1..8, or 4294967295 for none", PDR_E_PARSE},
        {"{\"max_depth\": \"5\"}", 1, "max_depth is a string", PDR_E_PARSE},
        {"{\"max_depth\": null}", 1, "max_depth is null", PDR_E_PARSE},
        {"{\"policy\": 1}", 1,
         "policy is a number, allowed is one of: default, round_robin, random, least_tokens, power_of_two",
         PDR_E_PARSE},
        {"{\"policy\": \"robin\"}", 1, "policy is \"robin\"", PDR_E_PARSE},
        {"{\"hold\": true}", 1, "allowed is one of: default, on, off", PDR_E_PARSE},
        {"{\"engine\": \"vllm\"}", 1, "sglang", PDR_E_PARSE},
        {"{\"max_bookings\": 5, \"max_held\": 6}", 0, "max_held", PDR_E_INVALID},
        {"[]", 1, "an object is expected", PDR_E_PARSE},
        {"[5,\n{}]", 1, "the configuration is a number, an object is expected", PDR_E_PARSE},
        {"[{},\n5]", 2, "the configuration is a number, an object is expected", PDR_E_PARSE},
        {"[{\"max_depth\": 5},\n{\"max_depth\": 5}]", 2, "twice", PDR_E_PARSE},
        {"{\"kind\": 5}", 1, "unknown member \"kind\"", PDR_E_PARSE},
        {"[{\"kind\": \"Pod\"},\n{\"max_dept\": 5}]", 2, "unknown member \"max_dept\"", PDR_E_PARSE},
        {"", 0, "empty", PDR_E_PARSE},
        {"{\n\n\"max_depth\": 5,}", 3, "a member name", PDR_E_PARSE},
        {"{\"max_depth\": 05}", 1, "begins with 0", PDR_E_PARSE},
        {"{\"max_depth\": 5} x", 1, "follows", PDR_E_PARSE},
        {"{\"max_depth\": 5", 1, "too early", PDR_E_PARSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pdr_config c, before;
        c = fresh();
        c.seed = 7;
        before = c;
        assert_int_equal(pdr_config_from_json(cases[i].text, strlen(cases[i].text), &c, &err), cases[i].code);
        assert_memory_equal(&c, &before, sizeof c);
        if (!strstr(err.message, cases[i].says)) fail_msg("%s: %s", cases[i].text, err.message);
        assert_int_equal(err.line, cases[i].line);
    }
    pdr_config c = fresh();
    assert_int_equal(pdr_config_from_json(NULL, 0, &c, &err), PDR_E_INVALID);
    assert_int_equal(pdr_config_from_json("{}", 2, NULL, &err), PDR_E_INVALID);
}

static void any_config(const char *text, size_t len)
{
    pdr_config c = fresh();
    int        code = pdr_config_from_json(text, len, &c, &err);
    if (!code)
        assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    else
        assert_true(err.code == code && err.message[0]);
}

static void header_of_the_tenant(void **state)
{
    (void)state;
    pdr_config c = fresh(), same = fresh();
    strcpy(c.tenant_header, "X-Tenant-Id");
    strcpy(c.tenant_header + 20, "behind the end");
    strcpy(same.tenant_header, "x-tenant-id");
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_OK);
    assert_int_equal(pdr_config_resolve(&same, &err), PDR_OK);
    assert_memory_equal(&c, &same, sizeof c); /* else a block would be refused for how it was written */
    static const char *const bad[] = {"x tenant", "x-tenant:", "x-t\xc3\xa9nant", "x\tt"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        c = fresh();
        strcpy(c.tenant_header, bad[i]);
        assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
        assert_non_null(strstr(err.message, "tenant_header"));
    }
    c = fresh();
    memset(c.tenant_header, 'x', sizeof c.tenant_header);
    assert_int_equal(pdr_config_resolve(&c, &err), PDR_E_INVALID);
    assert_int_equal(from("{\n\"tenant_header\": \"0123456789012345678901234567890123456789012345678901234567890123\"}", &c), PDR_E_PARSE);
    assert_non_null(strstr(err.message, "63 characters"));
    assert_int_equal(err.line, 2);
    assert_int_equal(from("{\"tenant_header\": \"012345678901234567890123456789012345678901234567890123456789012\"}", &c), PDR_OK);
    assert_int_equal(strlen(c.tenant_header), 63);
    assert_int_equal(from("{\"tenant_header\": 5}", &c), PDR_E_PARSE);
    assert_int_equal(from("{\"tenant_header\": \"a:b\"}", &c), PDR_E_PARSE);
    assert_int_equal(from("{\"tenant_heder\": \"a\"}", &c), PDR_E_PARSE);
    assert_non_null(strstr(err.message, "perhaps \"tenant_header\""));
    assert_int_equal(from("{\"tenant_header\": \"\"}", &c), PDR_OK);
    assert_int_equal(c.tenant_header[0], 0);
}

static void damaged_configuration(void **state)
{
    (void)state;
    const char *text =
        "{\n  \"policy\": \"random\", \"max_endpoints\": 64, \"seed\": 18446744073709551615,\n  \"hold\": \"off\", "
        "\"block_bytes\": 512,\n"
        "  \"endpoints\": [{\"name\": \"\\u00e9\\ud83d\\ude00\", \"x\": [true, false, null, -1.5e-3]}]\n}\n";
    pdr_config c;
    assert_int_equal(from(text, &c), PDR_OK);
    try_truncated(text, strlen(text), 1, any_config);
    try_flipped(text, strlen(text), 1, any_config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_header),
        cmocka_unit_test(table_covers_the_struct),
        cmocka_unit_test(every_range_has_two_ends),
        cmocka_unit_test(special_rules),
        cmocka_unit_test(older_callers),
        cmocka_unit_test(json_sets_every_field),
        cmocka_unit_test(json_keeps_zeros_for_later),
        cmocka_unit_test(kubernetes_objects),
        cmocka_unit_test(json_errors_name_field_and_line),
        cmocka_unit_test(header_of_the_tenant),
        cmocka_unit_test(damaged_configuration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
