/* lib/metrics.c: Prometheus text of real engines, and of broken ones. */
#include "metrics.h"
#include "number.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "feed_data.h"

#define CAP 8
static pdr_load  ranks[CAP];
static size_t    n;
static uint32_t  ignored;
static pdr_error err;

static int parse(const char *text, size_t len)
{
    memset(ranks, 0xA5, sizeof ranks); /* the reader must not rely on clean memory */
    n = 999;
    ignored = 999;
    pdr_init_struct(&err, sizeof err);
    return pdr_metrics_parse(text, len, ranks, CAP, &n, &ignored, &err);
}

static int parse_text(const char *text) { return parse(text, strlen(text)); }

static void parse_file(const char *name)
{
    size_t len;
    char  *text = read_data(name, &len);
    assert_int_equal(parse(text, len), PDR_OK);
    assert_int_equal(ignored, 0);
    free(text);
}

#define PD_BITS                                                                                                        \
    (PDR_LOAD_RUNNING | PDR_LOAD_WAITING | PDR_LOAD_KV_USED | PDR_LOAD_KV_CAPACITY | PDR_LOAD_USAGE |                  \
     PDR_LOAD_PREFILL_BOOTSTRAP | PDR_LOAD_PREFILL_INFLIGHT | PDR_LOAD_DECODE_PREALLOC | PDR_LOAD_DECODE_TRANSFER |    \
     PDR_LOAD_RETRACTED | PDR_LOAD_PENDING_USAGE)
#define LOADS_BITS                                                                                                     \
    ((PD_BITS & ~(uint32_t)PDR_LOAD_PENDING_USAGE) | PDR_LOAD_WAITING_TOKENS | PDR_LOAD_MAX_RUNNING |                  \
     PDR_LOAD_PREFILL_SPEED)

static void real_sglang_metrics(void **state)
{
    (void)state;
    static const char *const files[] = {"metrics/sglang_prefill.txt", "metrics/sglang_decode.txt",
                                        "metrics/sglang_unified.txt"};
    for (size_t i = 0; i < 3; i++) {
        parse_file(files[i]);
        assert_int_equal(n, 1);
        assert_int_equal(ranks[0].struct_size, sizeof(pdr_load));
        assert_int_equal(ranks[0].have, PD_BITS);
        assert_int_equal(ranks[0].kv_capacity, 65536);
        assert_int_equal(ranks[0].running + ranks[0].waiting + ranks[0].kv_used + ranks[0].usage_permille, 0);
    }
}

static void real_sglang_with_two_ranks(void **state)
{
    (void)state;
    parse_file("metrics/sglang_prefill_dp2.txt");
    assert_int_equal(n, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(ranks[i].have, PD_BITS);
        assert_int_equal(ranks[i].kv_capacity, 65536);
    }
    size_t   len;
    char    *text = read_data("metrics/sglang_prefill_dp2.txt", &len);
    pdr_load one[1];
    assert_int_equal(pdr_metrics_parse(text, len, one, 1, &n, &ignored, &err),
                     PDR_OK); /* who knows of one rank gets one */
    assert_int_equal(n, 1);
    assert_int_equal(one[0].have, PD_BITS);
    assert_in_range(ignored, 11, 20); /* the other rank's values of known names */
    free(text);
}

static void real_loads_in_prometheus_format(void **state)
{
    (void)state;
    parse_file("metrics/v1_loads_prefill.txt");
    assert_int_equal(n, 1);
    assert_int_equal(ranks[0].have, LOADS_BITS);
    assert_int_equal(ranks[0].kv_capacity, 65536);
    assert_int_equal(ranks[0].max_running, 2048);
    assert_int_equal(ranks[0].prefill_uncached_total, 79);
    assert_int_equal(ranks[0].prefill_busy_us_total, 730025);
    parse_file("metrics/v1_loads_decode.txt");
    assert_int_equal(ranks[0].have, LOADS_BITS);
}

static void real_vllm(void **state)
{
    (void)state;
    parse_file("metrics/vllm.txt");
    assert_int_equal(n, 1);
    assert_int_equal(ranks[0].have,
                     PDR_LOAD_RUNNING | PDR_LOAD_WAITING | PDR_LOAD_USAGE | PDR_LOAD_KV_CAPACITY | PDR_LOAD_KV_USED);
    assert_int_equal(ranks[0].kv_capacity, 2097152);
}

/* The layout of a published scrape: a decode server under load. */
static void loaded_decode(void **state)
{
    (void)state;
#define L "{engine_type=\"decode\",model_name=\"glm\",moe_ep_rank=\"0\",pp_rank=\"0\",tp_rank=\"0\"} "
    assert_int_equal(
        parse_text(
            "# HELP sglang:num_running_reqs The number of running requests.\n# TYPE sglang:num_running_reqs gauge\n"
            "sglang:num_running_reqs" L "12.0\nsglang:num_queue_reqs" L "3.0\nsglang:token_usage" L "0.33\n"
            "sglang:kv_used_tokens" L "145856.0\nsglang:max_total_num_tokens" L "441792.0\n"
            "sglang:num_decode_prealloc_queue_reqs" L "1.0\nsglang:num_decode_transfer_queue_reqs" L "4.0\n"
            "sglang:pending_prealloc_token_usage" L "0.02\nsglang:num_retracted_reqs" L "2.0\n"
            "sglang:num_transfer_failed_reqs_total" L "7.0\n"),
        PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ranks[0].running, 12);
    assert_int_equal(ranks[0].waiting, 3);
    assert_int_equal(ranks[0].usage_permille, 330);
    assert_int_equal(ranks[0].kv_used, 145856);
    assert_int_equal(ranks[0].kv_capacity, 441792);
    assert_int_equal(ranks[0].decode_prealloc, 1);
    assert_int_equal(ranks[0].decode_transfer, 4);
    assert_int_equal(ranks[0].pending_usage_permille, 20);
    assert_int_equal(ranks[0].retracted, 2);
    assert_int_equal(ignored, 0);
#undef L
}

static void ranks_and_their_replicas(void **state)
{
    (void)state;
    assert_int_equal(parse_text("sglang_num_running_reqs{dp_rank=\"3\",tp_rank=\"0\"} 5\n"
                                "sglang_num_running_reqs{dp_rank=\"3\",tp_rank=\"1\"} 6\n" /* the same requests */
                                "sglang_num_running_reqs{dp_rank=\"1\",tp_rank=\"0\"} 2\n"
                                "sglang:num_prefill_prealloc_queue_reqs{dp_rank=\"1\"} 4\n" /* its older name */
                                "sglang:num_prefill_inflight_queue_reqs{tp_rank=\"0\",dp_rank=\"1\"} 2\n"
                                "sglang_num_running_reqs{dp_rank=\"8\"} 2\n" /* beyond the caller's array */
                                "sglang_num_running_reqs{dp_rank=\"x\"} 2\n"
                                "sglang_num_running_reqs{dp_rank=\"99999999999999999999999\"} 2\n"),
                     PDR_OK);
    assert_int_equal(n, 4);
    assert_int_equal(ranks[3].running, 6);
    assert_int_equal(ranks[1].running, 2);
    assert_int_equal(ranks[1].prefill_bootstrap, 4);
    assert_int_equal(ranks[1].prefill_inflight, 2);
    assert_int_equal(ranks[0].have, 0);
    assert_int_equal(ranks[2].have, 0);
    assert_int_equal(ranks[2].struct_size, sizeof(pdr_load));
    assert_int_equal(ignored, 3);
}

static void priorities_are_parts_of_the_total(void **state)
{
    (void)state;
    assert_int_equal(parse_text("sglang:num_queue_reqs{priority=\"9\",tp_rank=\"0\"} "
                                "40\nsglang:num_queue_reqs{priority=\"\",tp_rank=\"0\"} 7\n"),
                     PDR_OK);
    assert_int_equal(ranks[0].waiting, 7);
    assert_int_equal(ignored, 0);
}

static void other_engines(void **state)
{
    (void)state;
    assert_int_equal(parse_text("vllm:num_requests_running{engine=\"0\",model_name=\"m\"} "
                                "4.0\nvllm:num_requests_running{engine=\"1\",model_name=\"m\"} 5.0\n"
                                "vllm:gpu_cache_usage_perc{engine=\"1\"} 0.5\n"
                                "vllm:cache_config_info{block_size=\"16\",engine=\"1\",kv_cache_size_tokens=\"None\","
                                "num_gpu_blocks=\"100\"} 1.0\n"),
                     PDR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(ranks[0].running, 4);
    assert_int_equal(ranks[1].running, 5);
    assert_int_equal(ranks[1].kv_capacity, 1600);
    assert_int_equal(ranks[1].usage_permille, 500);
    assert_int_equal(ranks[1].kv_used, 800);

    assert_int_equal(parse_text("trtllm_num_requests_running{model_name=\"m\"} 4\ntrtllm_num_requests_waiting "
                                "1\ntrtllm_kv_cache_utilization 0.25\n"
                                "trtllm_kv_cache_max_blocks 100\ntrtllm_kv_cache_tokens_per_block 32\n"),
                     PDR_OK);
    assert_int_equal(ranks[0].running, 4);
    assert_int_equal(ranks[0].waiting, 1);
    assert_int_equal(ranks[0].kv_capacity, 3200);
    assert_int_equal(ranks[0].kv_used, 800);

    assert_int_equal(
        parse_text(
            "nv_trt_llm_request_metrics{model=\"a\",request_type=\"waiting\",version=\"1\"} 1\n"
            "nv_trt_llm_request_metrics{model=\"b\",request_type=\"waiting\",version=\"1\"} 2\n"
            "nv_trt_llm_request_metrics{model=\"a\",request_type=\"scheduled\",version=\"1\"} 5\n"
            "nv_trt_llm_request_metrics{model=\"a\",request_type=\"context\",version=\"1\"} 9\n"
            "nv_trt_llm_request_metrics{model=\"a\",request_type=\"max\",version=\"1\"} 512\n"
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\",model=\"a\",version=\"1\"} 64\n"
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"used\",model=\"a\",version=\"1\"} 10\n"
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"free\",model=\"a\",version=\"1\"} 90\n"
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"a\",version=\"1\"} 100\n"),
        PDR_OK);
    assert_int_equal(ranks[0].waiting, 3);
    assert_int_equal(ranks[0].running, 5);
    assert_int_equal(ranks[0].max_running, 512);
    assert_int_equal(ranks[0].kv_capacity, 6400);
    assert_int_equal(ranks[0].kv_used, 640);
    assert_int_equal(ranks[0].usage_permille, 100);

    assert_int_equal(parse_text("sglang:cache_config_info{num_pages=\"10\",page_size=\"64\"} 1\n"),
                     PDR_OK); /* before 0.5.11 */
    assert_int_equal(ranks[0].kv_capacity, 640);
}

/* Every name that is known, under each prefix it may have, sets its bit; with a letter more it is unknown. */
static void every_name(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *name;
        uint32_t    bit;
    } names[] = {
        {"sglang", "num_running_reqs", PDR_LOAD_RUNNING},
        {"sglang", "num_queue_reqs", PDR_LOAD_WAITING},
        {"sglang", "num_waiting_reqs", PDR_LOAD_WAITING},
        {"sglang", "num_used_tokens", PDR_LOAD_KV_USED},
        {"sglang", "kv_used_tokens", PDR_LOAD_KV_USED},
        {"sglang", "max_total_num_tokens", PDR_LOAD_KV_CAPACITY},
        {"sglang", "max_running_requests", PDR_LOAD_MAX_RUNNING},
        {"sglang", "token_usage", PDR_LOAD_USAGE},
        {"sglang", "pending_prealloc_token_usage", PDR_LOAD_PENDING_USAGE},
        {"sglang", "num_prefill_bootstrap_queue_reqs", PDR_LOAD_PREFILL_BOOTSTRAP},
        {"sglang", "num_prefill_prealloc_queue_reqs", PDR_LOAD_PREFILL_BOOTSTRAP},
        {"sglang", "num_prefill_inflight_queue_reqs", PDR_LOAD_PREFILL_INFLIGHT},
        {"sglang", "num_decode_prealloc_queue_reqs", PDR_LOAD_DECODE_PREALLOC},
        {"sglang", "num_decode_transfer_queue_reqs", PDR_LOAD_DECODE_TRANSFER},
        {"sglang", "num_retracted_reqs", PDR_LOAD_RETRACTED},
        {"sglang", "num_waiting_uncached_tokens", PDR_LOAD_WAITING_TOKENS},
        {"sglang", "disagg_prefill_bootstrap_queue_reqs", PDR_LOAD_PREFILL_BOOTSTRAP},
        {"sglang", "disagg_prefill_prealloc_queue_reqs", PDR_LOAD_PREFILL_BOOTSTRAP},
        {"sglang", "disagg_prefill_inflight_queue_reqs", PDR_LOAD_PREFILL_INFLIGHT},
        {"sglang", "disagg_decode_prealloc_queue_reqs", PDR_LOAD_DECODE_PREALLOC},
        {"sglang", "disagg_decode_transfer_queue_reqs", PDR_LOAD_DECODE_TRANSFER},
        {"sglang", "disagg_decode_retracted_queue_reqs", PDR_LOAD_RETRACTED},
        {"sglang", "queues_waiting", PDR_LOAD_WAITING},
        {"sglang", "queues_retracted", PDR_LOAD_RETRACTED},
        {"vllm", "num_requests_running", PDR_LOAD_RUNNING},
        {"vllm", "num_requests_waiting", PDR_LOAD_WAITING},
        {"vllm", "kv_cache_usage_perc", PDR_LOAD_USAGE},
        {"vllm", "gpu_cache_usage_perc", PDR_LOAD_USAGE},
        {"trtllm", "num_requests_running", PDR_LOAD_RUNNING},
        {"trtllm", "num_requests_waiting", PDR_LOAD_WAITING},
        {"trtllm", "kv_cache_utilization", PDR_LOAD_USAGE},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < 2; k++) {
            char text[128];
            snprintf(text, sizeof text, "%s%c%s 1\n", names[i].prefix, ":_"[k], names[i].name);
            if (parse_text(text) || ranks[0].have != names[i].bit) fail_msg("%s", text);
            snprintf(text, sizeof text, "%s%c%sx 1\n", names[i].prefix, ":_"[k], names[i].name);
            assert_int_equal(parse_text(text), PDR_E_PARSE);
        }
    assert_int_equal(
        parse_text(
            "sglang_total_prefill_uncached_tokens 5\nsglang_total_prefill_busy_us 6\nsglang_num_running_reqs 1\n"),
        PDR_OK);
    assert_int_equal(ranks[0].have, PDR_LOAD_RUNNING | PDR_LOAD_PREFILL_SPEED);
    assert_int_equal(parse_text("sglang_total_prefill_uncached_tokens 5\nsglang_num_running_reqs 1\n"), PDR_OK);
    assert_int_equal(ranks[0].have, PDR_LOAD_RUNNING); /* half of a speed is none */
}

static void values_that_make_no_sense(void **state)
{
    (void)state;
    static const char *const bad[] = {"NaN",  "+Inf",  "-Inf", "Inf",   "-1",  "1e300", "x",     "",
                                      "1e16", "1.5.5", "0x10", "12abc", "--1", "1,5",   "\"5\"", "-"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[200];
        snprintf(text, sizeof text, "sglang:num_running_reqs{a=\"b\"} %s\nsglang:num_queue_reqs 3\n", bad[i]);
        assert_int_equal(parse_text(text), PDR_OK);
        assert_int_equal(ranks[0].have, PDR_LOAD_WAITING);
        assert_int_equal(ranks[0].waiting, 3);
        assert_int_equal(ignored, 1);
    }
    assert_int_equal(parse_text("sglang:token_usage 2.5\nsglang:num_queue_reqs 3\n"), PDR_OK);
    assert_int_equal(ranks[0].have, PDR_LOAD_WAITING);
    assert_int_equal(parse_text("sglang:token_usage 1.02\n"), PDR_OK);
    assert_int_equal(ranks[0].usage_permille, 1000);
    assert_int_equal(parse_text("sglang:num_prefill_inflight_queue_reqs 1e12\n"), PDR_OK);
    assert_int_equal(ranks[0].prefill_inflight, UINT32_MAX);
    assert_int_equal(
        parse_text("vllm:cache_config_info{block_size=\"999999999999\",num_gpu_blocks=\"999999999999\"} 1\n"),
        PDR_E_PARSE);
    assert_int_equal(ignored, 1);
}

static void every_form_of_line(void **state)
{
    (void)state;
    static const char *const good[] = {
        "sglang:num_running_reqs 7\n",
        "sglang:num_running_reqs 7.0\r\n",
        "sglang:num_running_reqs  7 1395066363000\n",
        "  sglang:num_running_reqs\t7\n",
        "sglang:num_running_reqs{} 7\n",
        "sglang:num_running_reqs {a=\"b\",} 7\n",
        "sglang:num_running_reqs{a=\"}\\\"\\\\,x\"} 7 # {trace_id=\"x\"} 0.67\n",
        "sglang:num_running_reqs{a = \"b\" , c=\"\"}\t7e0\n",
        "sglang:num_running_reqs{a=\"b\"}7\n",
        "\n\n#\n# x\nsglang:num_running_reqs +7\n# EOF\n",
        "sglang:num_running_reqs 0.7E+1\n",
        "sglang:num_running_reqs 6.5\n" /* rounded */,
        "sglang:num_running_reqs 70e-1 -5\n",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(parse_text(good[i]), PDR_OK);
        assert_int_equal(ranks[0].running, 7);
        assert_int_equal(ignored, 0);
    }
    static const char *const bad[] = {
        "sglang:num_running_reqs{a=\"b\" 7\n",
        "sglang:num_running_reqs{a=b} 7\n",
        "sglang:num_running_reqs{a=\"b 7\n",
        "sglang:num_running_reqs{a=\"b\\\n",
        "sglang:num_running_reqs{a} 7\n",
        "sglang:num_running_reqs{a=\"b\"c=\"d\"} 7\n",
        "sglang:num_running_reqs{\n",
        "sglang:num_running_reqs{a=\n",
        "sglang:num_running_reqs 7" /* perhaps 71 */,
        "sglang:num_running_reqs{a=\"b\"}\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse_text(bad[i]), PDR_E_PARSE);
        assert_int_equal(ignored, 1);
        assert_int_equal(n, 0);
        assert_int_equal(err.code, PDR_E_PARSE);
    }
    static const char *const other[] = {
        "",
        "\n",
        "#",
        "s",
        "sglang",
        "sglang:",
        "sglang:num_running_reqs",
        "sglang:num_running_reqs\n",
        "sglang:num_running_reqs_total 7\n",
        "sglang:num_running_req 7\n",
        "sglang:num_running_reqs_bucket{le=\"1\"} 7\n",
        "xsglang:num_running_reqs 7\n",
        "vllm:num_running_reqs 7\n",
        "smg_num_running_reqs 7\n",
        "{\"a\":1}\n",
    };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        assert_int_equal(parse_text(other[i]), PDR_E_PARSE);
        assert_int_equal(ignored, 0);
    }
    assert_int_equal(pdr_metrics_parse(NULL, 0, ranks, CAP, &n, NULL, NULL), PDR_E_PARSE);
    assert_int_equal(pdr_metrics_parse("sglang:num_running_reqs 7\n", 26, ranks, 0, &n, &ignored, NULL), PDR_E_PARSE);
    assert_int_equal(ignored, 1);
}

static size_t truncated_ok;

static void any_text(const char *text, size_t len)
{
    int code = parse(text, len);
    assert_true(code == PDR_OK || code == PDR_E_PARSE);
    assert_true(n <= CAP);
    assert_true(code == PDR_OK ? n > 0 : n == 0);
    truncated_ok += code == PDR_OK;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(ranks[i].struct_size, sizeof(pdr_load));
        assert_int_equal(ranks[i].have & ~((PDR_LOAD_PREFILL_SPEED << 1) - 1u), 0);
        assert_in_range(ranks[i].usage_permille, 0, 1000);
        assert_in_range(ranks[i].pending_usage_permille, 0, 1000);
        assert_true(ranks[i].kv_used <= 1000000000000000ull && ranks[i].kv_capacity <= 1000000000000000ull);
    }
}

/* Every known line of every capture with a good line behind it, damaged at every byte; whole captures here and there.
 */
static void damaged_captures(void **state)
{
    (void)state;
    static const char *const files[] = {
        "metrics/sglang_prefill.txt", "metrics/sglang_decode.txt", "metrics/sglang_prefill_dp2.txt",
        "metrics/sglang_unified.txt", "metrics/vllm.txt",          "metrics/v1_loads_prefill.txt",
        "metrics/v1_loads_decode.txt"};
    static const char good[] = "sglang:num_running_reqs 1\n";
    size_t            known = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t len;
        char  *text = read_data(files[i], &len);
        truncated_ok = 0;
        try_truncated(text, len, len > 4000 ? 499 : 1, any_text);
        assert_true(truncated_ok > 0);
        try_flipped(text, len, len > 4000 ? 499 : 1, any_text);
        for (char *p = text, *stop; (stop = memchr(p, '\n', (size_t)(text + len - p))); p = stop + 1) {
            char   two[4096];
            size_t line = (size_t)(stop + 1 - p);
            if (line > sizeof two - sizeof good || parse(p, line)) continue;
            memcpy(two, p, line);
            memcpy(two + line, good, sizeof good - 1);
            try_truncated(two, line + sizeof good - 1, 1, any_text);
            try_flipped(two, line + sizeof good - 1, 1, any_text);
            known++;
        }
        free(text);
    }
    assert_in_range(known, 80, 200);
}

/* A scrape that breaks off keeps what came before, and never a number that was cut short. */
static void broken_off_numbers(void **state)
{
    (void)state;
    const char *text = "sglang:max_total_num_tokens 441792.0\nsglang:num_running_reqs 12.0\n";
    for (size_t len = 0; len < strlen(text); len++) {
        int code = parse(text, len);
        assert_int_equal(code, len < 37 ? PDR_E_PARSE : PDR_OK);
        if (!code) {
            assert_int_equal(ranks[0].kv_capacity, 441792);
            assert_int_equal(ranks[0].have, PDR_LOAD_KV_CAPACITY);
        }
    }
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int         scale, kind;
        uint64_t    value;
    } cases[] = {
        {"0", 0, PDR_NUMBER_OK, 0},
        {"-0.0", 0, PDR_NUMBER_OK, 0},
        {"1234567890123456789", 0, PDR_NUMBER_OK, 1234567890123456789ull},
        {"0.9411764705882353", 3, PDR_NUMBER_OK, 941},
        {"0.0005", 3, PDR_NUMBER_OK, 1},
        {"0.00049999999999999999999999999", 3, PDR_NUMBER_OK, 0},
        {"1.79540092716e+09", 0, PDR_NUMBER_OK, 1795400927},
        {"1e-400", 0, PDR_NUMBER_OK, 0},
        {"1e-99999999999999999999", 0, PDR_NUMBER_OK, 0},
        {"1e19", 0, PDR_NUMBER_OK, 10000000000000000000ull},
        {"1e20", 0, PDR_NUMBER_HUGE, 0},
        {"1e99999999999999999999", 0, PDR_NUMBER_HUGE, 0},
        {"0e99999", 0, PDR_NUMBER_OK, 0},
        {"-1", 0, PDR_NUMBER_NEGATIVE, 0},
        {"nan", 0, PDR_NUMBER_NOT_FINITE, 0},
        {"-infinity", 0, PDR_NUMBER_NOT_FINITE, 0},
        {".5", 0, PDR_NUMBER_OK, 1},
        {"5.", 0, PDR_NUMBER_OK, 5},
        {".", 0, PDR_NUMBER_BAD, 0},
        {"", 0, PDR_NUMBER_BAD, 0},
        {"+", 0, PDR_NUMBER_BAD, 0},
        {"e5", 0, PDR_NUMBER_BAD, 0},
        {"0.5", 20, PDR_NUMBER_HUGE, 0},
        {"123456789012345678901234567890", 0, PDR_NUMBER_HUGE, 0},
        {"123456789012345678901234567890e-20", 0, PDR_NUMBER_OK, 1234567890},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *end = cases[i].text + strlen(cases[i].text), *next;
        uint64_t    value;
        assert_int_equal(pdr_number_read(cases[i].text, end, cases[i].scale, &value, &next), cases[i].kind);
        assert_true(value == cases[i].value);
        if (cases[i].kind != PDR_NUMBER_BAD) assert_ptr_equal(next, end);
    }
    uint64_t    value;
    const char *text = "12e+x", *next;
    assert_int_equal(pdr_number_read(text, text + 5, 0, &value, &next), PDR_NUMBER_OK);
    assert_int_equal(value, 12);
    assert_ptr_equal(next, text + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_sglang_metrics),
        cmocka_unit_test(real_sglang_with_two_ranks),
        cmocka_unit_test(real_loads_in_prometheus_format),
        cmocka_unit_test(real_vllm),
        cmocka_unit_test(loaded_decode),
        cmocka_unit_test(ranks_and_their_replicas),
        cmocka_unit_test(priorities_are_parts_of_the_total),
        cmocka_unit_test(other_engines),
        cmocka_unit_test(values_that_make_no_sense),
        cmocka_unit_test(every_name),
        cmocka_unit_test(every_form_of_line),
        cmocka_unit_test(damaged_captures),
        cmocka_unit_test(broken_off_numbers),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
