/* lib/loads.c: /v1/loads and /server_info of real engines, and of broken ones. */
#include "loads.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "feed_data.h"

#define CAP 8
static pdr_load        ranks[CAP];
static size_t          n;
static uint32_t        ignored;
static pdr_error       err;
static pdr_server_info info;

static int loads(const char *text, size_t len)
{
    memset(ranks, 0xA5, sizeof ranks);
    pdr_init_struct(&err, sizeof err);
    return pdr_loads_parse(text, len, ranks, CAP, &n, &ignored, &err);
}

static int loads_text(const char *text) { return loads(text, strlen(text)); }

static int server(const char *text, size_t len)
{
    memset(&info, 0xA5, sizeof info);
    pdr_init_struct(&err, sizeof err);
    return pdr_server_info_parse(text, len, &info, &ignored, &err);
}

static int server_text(const char *text) { return server(text, strlen(text)); }

static void parse_file(const char *name, int (*parse)(const char *, size_t))
{
    size_t len;
    char  *text = read_data(name, &len);
    assert_int_equal(parse(text, len), PDR_OK);
    assert_int_equal(ignored, 0);
    free(text);
}

#define ALL_BITS                                                                                                       \
    (PDR_LOAD_RUNNING | PDR_LOAD_WAITING | PDR_LOAD_KV_USED | PDR_LOAD_KV_CAPACITY | PDR_LOAD_USAGE |                  \
     PDR_LOAD_PREFILL_BOOTSTRAP | PDR_LOAD_PREFILL_INFLIGHT | PDR_LOAD_DECODE_PREALLOC | PDR_LOAD_DECODE_TRANSFER |    \
     PDR_LOAD_WAITING_TOKENS | PDR_LOAD_MAX_RUNNING | PDR_LOAD_RETRACTED | PDR_LOAD_PREFILL_SPEED)

static void real_loads(void **state)
{
    (void)state;
    static const char *const files[] = {"loads/v1_loads_decode.json", "loads/v1_loads_decode_sections.json",
                                        "loads/v1_loads_unified.json", "loads/v1_loads_prefill.json"};
    for (size_t i = 0; i < 4; i++) {
        parse_file(files[i], loads);
        assert_int_equal(n, 1);
        assert_int_equal(ranks[0].have, ALL_BITS);
        assert_int_equal(ranks[0].struct_size, sizeof(pdr_load));
        assert_int_equal(ranks[0].kv_capacity, 65536);
        assert_int_equal(ranks[0].max_running, 2048);
        assert_int_equal(ranks[0].running, 0);
    }
    assert_int_equal(ranks[0].prefill_uncached_total, 79);
    assert_int_equal(ranks[0].prefill_busy_us_total, 730025);
}

static void loaded_ranks(void **state)
{
    (void)state;
    assert_int_equal(loads_text("{\"loads\":[{\"dp_rank\":2,\"num_running_reqs\":5,\"num_waiting_reqs\":6,\"num_"
                                "waiting_uncached_tokens\":900,\"num_used_tokens\":500,\"max_total_num_tokens\":2000,"
                                "\"disaggregation\":{\"mode\":\"prefill\",\"prefill_prealloc_queue_reqs\":3,\"prefill_"
                                "inflight_queue_reqs\":4,\"decode_prealloc_queue_reqs\":7,"
                                "\"decode_transfer_queue_reqs\":8,\"decode_retracted_queue_reqs\":1},\"queues\":{"
                                "\"waiting\":6,\"retracted\":9},\"token_usage\":null},"
                                "{\"dp_rank\":0,\"token_usage\":0.25,\"max_total_num_tokens\":400.0}]}"),
                     PDR_OK);
    assert_int_equal(n, 3);
    assert_int_equal(ignored, 0);
    assert_int_equal(ranks[1].have, 0);
    assert_int_equal(ranks[2].running, 5);
    assert_int_equal(ranks[2].waiting, 6);
    assert_int_equal(ranks[2].waiting_tokens, 900);
    assert_int_equal(ranks[2].prefill_bootstrap, 3);
    assert_int_equal(ranks[2].prefill_inflight, 4);
    assert_int_equal(ranks[2].decode_prealloc, 7);
    assert_int_equal(ranks[2].decode_transfer, 8);
    assert_int_equal(ranks[2].retracted, 9);
    assert_int_equal(ranks[2].usage_permille, 250); /* from used tokens */
    assert_int_equal(ranks[0].kv_used, 100);        /* from the fill */
    assert_int_equal(ranks[2].have & PDR_LOAD_PREFILL_SPEED, 0);
}

static void loads_that_make_no_sense(void **state)
{
    (void)state;
    assert_int_equal(
        loads_text("{\"loads\":[{\"num_running_reqs\":-5,\"num_waiting_reqs\":\"6\",\"num_used_tokens\":1e30,\"token_"
                   "usage\":7.5,\"max_running_requests\":3},7,{\"dp_rank\":8,\"num_running_reqs\":1},"
                   "{\"dp_rank\":\"x\",\"num_running_reqs\":1}]}"),
        PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ranks[0].have, PDR_LOAD_MAX_RUNNING);
    assert_int_equal(ignored, 7);
    static const char *const nothing[] = {"",
                                          "{}",
                                          "[]",
                                          "null",
                                          "{\"loads\":{}}",
                                          "{\"loads\":[]}",
                                          "{\"loads\":[{}]}",
                                          "{\"loads\":[{\"dp_rank\":0}]}",
                                          "Internal Server Error",
                                          "{\"loads\":[{\"num_running_reqs\":1}]",
                                          "{\"error\":\"x\"}",
                                          "{\"loads\":[{\"num_running_reqs\":NaN}]}",
                                          "{\"loads\":[[1]]}"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        assert_int_equal(loads_text(nothing[i]), PDR_E_PARSE);
        assert_int_equal(n, 0);
        assert_true(err.message[0] != 0);
    }
    assert_int_equal(pdr_loads_parse("{\"loads\":[{\"num_running_reqs\":1}]}", 34, ranks, 0, &n, NULL, NULL),
                     PDR_E_PARSE);
}

#define INFO_BITS                                                                                                      \
    (PDR_SERVER_ROLE | PDR_SERVER_DP_SIZE | PDR_SERVER_TP_SIZE | PDR_SERVER_KV_CAPACITY | PDR_SERVER_MAX_RUNNING |     \
     PDR_SERVER_LOAD_BALANCE | PDR_SERVER_MODEL | PDR_SERVER_VERSION | PDR_SERVER_PAGE_SIZE)

static void real_server_info(void **state)
{
    (void)state;
    parse_file("loads/server_info_prefill.json", server);
    assert_int_equal(info.have, INFO_BITS | PDR_SERVER_BOOTSTRAP_PORT);
    assert_int_equal(info.role, PDR_ROLE_PREFILL);
    assert_int_equal(info.bootstrap_port, 8998);
    assert_int_equal(info.dp_size, 1);
    assert_int_equal(info.tp_size, 1);
    assert_int_equal(info.page_size, 1);
    assert_int_equal(info.kv_capacity, 65536);
    assert_int_equal(info.max_running, 2048);
    assert_string_equal(info.load_balance, "follow_bootstrap_room");
    assert_string_equal(info.model, "tiny");
    assert_string_equal(info.version, "0.5.23");
    parse_file("loads/server_info_decode.json", server);
    assert_int_equal(info.have, INFO_BITS);
    assert_int_equal(info.role, PDR_ROLE_DECODE);
    assert_string_equal(info.load_balance, "round_robin");
    parse_file("loads/server_info_unified.json", server);
    assert_int_equal(info.role, PDR_ROLE_BOTH);
    parse_file("loads/model_info_prefill.json", server); /* another endpoint's answer that has some of it */
    assert_int_equal(info.have, PDR_SERVER_ROLE | PDR_SERVER_MODEL);
}

static void other_server_info(void **state)
{
    (void)state;
    assert_int_equal(server_text("{\"dp_size\":4,\"max_running_requests\":100,\"model_path\":\"/models/"
                                 "Qwen3-32B\",\"served_model_name\":null,\"max_total_num_tokens\":5}"),
                     PDR_OK);
    assert_int_equal(info.have,
                     PDR_SERVER_DP_SIZE | PDR_SERVER_MAX_RUNNING | PDR_SERVER_MODEL | PDR_SERVER_KV_CAPACITY);
    assert_int_equal(info.max_running, 25);
    assert_string_equal(info.model, "/models/Qwen3-32B");
    assert_int_equal(ignored, 0);
    assert_int_equal(server_text("{\"dp_size\":0,\"tp_size\":-1,\"disaggregation_mode\":\"encode\",\"disaggregation_"
                                 "bootstrap_port\":70000,\"max_total_num_tokens\":0,\"version\":3,\"page_size\":16}"),
                     PDR_OK);
    assert_int_equal(info.have, PDR_SERVER_PAGE_SIZE);
    assert_int_equal(ignored, 6);
    static const char *const nothing[] = {
        "", "{}", "[1]", "\"x\"", "{\"dp_size\":null}", "{\"dp_size\":\"1\"}", "{\"dp_size\":1"};
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++)
        assert_int_equal(server_text(nothing[i]), PDR_E_PARSE);
}

static void any_loads(const char *text, size_t len)
{
    int code = loads(text, len);
    assert_true(code == PDR_OK || code == PDR_E_PARSE);
    assert_true(n <= CAP && (code == PDR_OK ? n > 0 : n == 0));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ranks[i].have & ~((PDR_LOAD_PREFILL_SPEED << 1) - 1u), 0);
        assert_in_range(ranks[i].usage_permille, 0, 1000);
        assert_true(ranks[i].kv_used <= 1000000000000000ull);
    }
}

static void any_server(const char *text, size_t len)
{
    int code = server(text, len);
    assert_true(code == PDR_OK || code == PDR_E_PARSE);
    if (code) return;
    assert_true(!(info.have & PDR_SERVER_DP_SIZE) || (info.dp_size >= 1 && info.dp_size <= 65535));
    assert_true(!(info.have & PDR_SERVER_ROLE) || (info.role >= PDR_ROLE_PREFILL && info.role <= PDR_ROLE_BOTH));
    assert_non_null(memchr(info.model, 0, sizeof info.model));
}

static void damaged_captures(void **state)
{
    (void)state;
    size_t len;
    char  *text = read_data("loads/v1_loads_prefill.json", &len);
    try_truncated(text, len, 1, any_loads);
    try_flipped(text, len, 1, any_loads);
    free(text);
    text = read_data("loads/server_info_prefill.json", &len);
    try_truncated(text, len, 101, any_server); /* one pass costs 0.1 ms */
    try_flipped(text, len, 101, any_server);
    free(text);
    text = read_data("loads/model_info_prefill.json", &len);
    try_truncated(text, len, 1, any_server);
    try_flipped(text, len, 1, any_server);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_loads),
        cmocka_unit_test(loaded_ranks),
        cmocka_unit_test(loads_that_make_no_sense),
        cmocka_unit_test(real_server_info),
        cmocka_unit_test(other_server_info),
        cmocka_unit_test(damaged_captures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
