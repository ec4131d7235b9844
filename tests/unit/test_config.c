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
    pdr_config again = c;
    assert_int_equal(pdr_config_resolve(&again, &err), PDR_OK);
    assert_memory_equal(&c, &again, sizeof c);
}

/* The table covers every byte of the struct but struct_size and reserved: a field that is forgotten would never be checked. */
static void table_covers_the_struct(void **state)
{
    (void)state;
    unsigned char covered[sizeof(pdr_config)] = {0};
    const pdr_config_field *f;
    for (size_t i = 0; (f = pdr_config_field_at(i)); i++)
        for (uint32_t b = 0; b < f->size; b++) {
            assert_int_equal(covered[f->offset + b], 0);
            covered[f->offset + b] = 1;
        }
    size_t holes = 0;
    for (size_t b = 0; b < sizeof covered; b++) holes += !covered[b];
    assert_int_equal(holes, sizeof(uint32_t) * 2); /* struct_size and reserved */
}

static void every_range_has_two_ends(void **state)
{
    (void)state;
    const pdr_config_field *f;
    for (size_t i = 0; (f = pdr_config_field_at(i)); i++) {
        uint64_t ceiling = f->size == 8 ? UINT64_MAX : UINT32_MAX;
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
    struct { pdr_config c; uint64_t later; } newer = {.c = fresh(), .later = 0};
    newer.c.struct_size = sizeof newer;
    assert_int_equal(pdr_config_resolve(&newer.c, &err), PDR_OK);
    newer.later = 1;
    assert_int_equal(pdr_config_resolve(&newer.c, &err), PDR_E_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_header), cmocka_unit_test(table_covers_the_struct),
        cmocka_unit_test(every_range_has_two_ends),         cmocka_unit_test(special_rules),
        cmocka_unit_test(older_callers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
