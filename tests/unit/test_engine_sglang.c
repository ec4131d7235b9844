/* lib/engine_sglang.c: which members each leg gets, byte for byte. */
#include "engine.h"
#include "room.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pdr_decision decision(void)
{
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    d.outcome = PDR_SEND;
    d.prefill_rank = d.decode_rank = PDR_NONE;
    d.bootstrap_port = 8998;
    d.room = 17;
    strcpy(d.bootstrap_host, "10.0.0.5");
    return d;
}

static pdr_prompt prompt(void)
{
    pdr_prompt p;
    pdr_init_struct(&p, sizeof p);
    p.batch = p.samples = p.members = 1;
    return p;
}

static void expect_tail(const pdr_decision *d, int leg, const char *want)
{
    pdr_prompt p = prompt();
    char got[4096];
    size_t need = 0;
    assert_int_equal(pdr_rewrite_tail(d, &p, leg, 0, got, sizeof got - 1, &need), PDR_OK);
    got[need] = 0;
    assert_string_equal(got, want);
}

static void both(const pdr_decision *d, const char *want)
{
    expect_tail(d, PDR_LEG_PREFILL, want);
    expect_tail(d, PDR_LEG_DECODE, want);
}

static void single_prompt_gets_scalars(void **state)
{
    (void)state;
    pdr_decision d = decision();
    both(&d, ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":17");
    d.batch = 1; /* a list of one */
    d.room = INT64_MAX;
    both(&d, ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":9223372036854775807");
}

static void port_null(void **state)
{
    (void)state;
    pdr_decision d = decision();
    d.bootstrap_port = 0;
    both(&d, ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":null,\"bootstrap_room\":17");
}

static void hosts(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"prefill-0.sglang.svc", "prefill-0.sglang.svc"},
        {"::1", "[::1]"},
        {"[::1]", "[::1]"},
        {"fe80::1%eth0", "[fe80::1%eth0]"},
        {"a\"b\\c\n", "a\\\"b\\\\c\\n"},
    };
    char want[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pdr_decision d = decision();
        strcpy(d.bootstrap_host, cases[i][0]);
        snprintf(want, sizeof want, ",\"bootstrap_host\":\"%s\",\"bootstrap_port\":8998,\"bootstrap_room\":17",
                 cases[i][1]);
        both(&d, want);
    }
    pdr_decision d = decision();
    memset(d.bootstrap_host, 'h', sizeof d.bootstrap_host); /* unterminated: read no further than the field */
    memset(want, 'h', sizeof d.bootstrap_host);
    strcpy(want + sizeof d.bootstrap_host, "");
    char text[1024];
    snprintf(text, sizeof text, ",\"bootstrap_host\":\"%.256s\",\"bootstrap_port\":8998,\"bootstrap_room\":17", want);
    both(&d, text);
}

/* The combinations that a real 0.5.23 served with --dp-size 2, and that its source asks for with DP attention. */
static void data_parallel_ranks(void **state)
{
    (void)state;
    pdr_decision d = decision();
    d.prefill_rank = 1;
    d.prefill_dp_size = 2;
    expect_tail(&d, PDR_LEG_PREFILL,
                ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":17,\"routed_dp_rank\":1,"
                "\"disagg_prefill_dp_rank\":1");
    expect_tail(
        &d, PDR_LEG_DECODE, /* without DP: a routed_dp_rank would be answered with 400 */
        ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":17,\"disagg_prefill_dp_rank\":1");
    d.decode_rank = 3;
    expect_tail(&d, PDR_LEG_DECODE,
                ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":17,\"routed_dp_rank\":3,"
                "\"disagg_prefill_dp_rank\":1");
    d.prefill_rank = PDR_NONE;
    expect_tail(&d, PDR_LEG_DECODE,
                ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":17,\"routed_dp_rank\":3");
    expect_tail(&d, PDR_LEG_PREFILL, ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":17");
}

static void batch_gets_a_list_of_its_rooms(void **state)
{
    (void)state;
    struct pdr_room_state rooms;
    pdr_room_init(&rooms, 5);
    for (uint32_t dp = 1; dp <= 8; dp += 7) {
        pdr_decision d = decision();
        d.batch = 3;
        d.prefill_dp_size = dp;
        d.prefill_rank = dp > 1 ? 5 : PDR_NONE;
        d.room_key = rooms.key;
        assert_int_equal(pdr_room_alloc(&rooms, dp, d.prefill_rank, 3, &d.room, &d.room_counter), PDR_OK);
        uint64_t r[3];
        for (uint32_t i = 0; i < 3; i++) {
            r[i] = pdr_decision_room(&d, i);
            assert_true(r[i] && !(r[i] >> 63));
            if (dp > 1) assert_int_equal(r[i] % dp, 5);
        }
        assert_int_equal(r[0], d.room);
        assert_int_equal(r[2], pdr_room_at(rooms.key, rooms.counter - 1)); /* the draw ends with its last room */
        assert_int_equal(pdr_decision_room(&d, 3), 0);
        char want[512];
        snprintf(want, sizeof want,
                 ",\"bootstrap_host\":\"10.0.0.5\",\"bootstrap_port\":8998,\"bootstrap_room\":[%llu,%llu,%llu]%s",
                 (unsigned long long)r[0], (unsigned long long)r[1], (unsigned long long)r[2],
                 dp > 1 ? ",\"disagg_prefill_dp_rank\":5" : "");
        expect_tail(&d, PDR_LEG_DECODE, want);
    }
}

static void several_samples_are_refused_with_pd_only(void **state)
{
    (void)state;
    pdr_prompt p = prompt();
    pdr_error e;
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_engine_check(PDR_ENGINE_SGLANG, PDR_MODE_PD, &p, &e), PDR_OK);
    p.samples = 2;
    assert_int_equal(pdr_engine_check(PDR_ENGINE_SGLANG, PDR_MODE_SINGLE, &p, &e), PDR_OK);
    assert_int_equal(pdr_engine_check(PDR_ENGINE_SGLANG, PDR_MODE_PD, &p, &e), PDR_E_UNSUPPORTED);
    assert_non_null(strstr(e.message, "n = 2 "));
    assert_int_equal(pdr_http_status(e.code), 400);
    p.samples_at = 17;
    p.samples_line = 2;
    assert_int_equal(pdr_engine_check(PDR_ENGINE_SGLANG, PDR_MODE_PD, &p, &e), PDR_E_UNSUPPORTED);
    assert_true(e.offset == 17 && e.line == 2);
    p.struct_size = offsetof(pdr_prompt, samples_at); /* of a caller who does not know the place */
    assert_int_equal(pdr_engine_check(PDR_ENGINE_SGLANG, PDR_MODE_PD, &p, &e), PDR_E_UNSUPPORTED);
    assert_true(e.offset == 0 && e.line == 0);
    assert_int_equal(pdr_engine_check(99, PDR_MODE_PD, &p, &e), PDR_E_INVALID);
    assert_null(pdr_engine_get(99));
    assert_string_equal(pdr_engine_get(PDR_ENGINE_SGLANG)->name, "sglang");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_prompt_gets_scalars),
        cmocka_unit_test(port_null),
        cmocka_unit_test(hosts),
        cmocka_unit_test(data_parallel_ranks),
        cmocka_unit_test(batch_gets_a_list_of_its_rooms),
        cmocka_unit_test(several_samples_are_refused_with_pd_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
