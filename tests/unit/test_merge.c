/* lib/merge.c and lib/error_text.c: small cases byte for byte. What real engines answered is in tests/differential/test_merge_python.py. */
#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static const char *merged(pdr_merge *m, const char *prefill, const char *decode)
{
    static char buf[4096];
    pdr_slice   slices[64];
    pdr_merge   again = *m;
    size_t      need, n = 64, at = 0;
    assert_int_equal(pdr_merge_text(m, prefill, strlen(prefill), decode, strlen(decode), buf, sizeof buf - 1, &need), PDR_OK);
    buf[need] = 0;
    assert_int_equal(pdr_merge_slices(&again, prefill, strlen(prefill), decode, strlen(decode), slices, &n), PDR_OK);
    for (size_t i = 0; i < n; i++) { /* the slices say the same */
        assert_memory_equal(buf + at, (slices[i].source ? prefill : decode) + slices[i].offset, slices[i].length);
        at += slices[i].length;
    }
    assert_int_equal(at, need);
    assert_memory_equal(&again, m, sizeof again);
    return buf;
}

static const char *once(uint32_t api, uint32_t kind, const char *prefill, const char *decode)
{
    pdr_merge m;
    pdr_merge_init(&m, api, kind);
    return merged(&m, prefill, decode);
}

#define GEN(p, d)    once(PDR_API_GENERATE, PDR_RESPONSE_JSON, p, d)
#define COMP(p, d)   once(PDR_API_COMPLETIONS, PDR_RESPONSE_JSON, p, d)
#define STREAM(p, d) once(PDR_API_GENERATE, PDR_RESPONSE_SSE, p, d)

static void input_logprobs_come_from_prefill(void **state)
{
    (void)state;
    assert_string_equal(GEN("{\"meta_info\":{\"input_token_logprobs\":[[null,1,null],[-0.50,2,\"]\\\"\"]],\"x\":1}}",
                            "{ \"text\" : \"a\", \"meta_info\":{\"id\":\"d\",\"input_token_logprobs\":[ ],\"y\":1.0} }"),
                        "{ \"text\" : \"a\", \"meta_info\":{\"id\":\"d\",\"input_token_logprobs\":[[null,1,null],[-0.50,2,\"]\\\"\"] ],\"y\":1.0} }");
    assert_string_equal(GEN("{\"meta_info\":{\"input_top_logprobs\":[null,[[1,2,null]]],\"input_token_ids_logprobs\":[null,[3]]}}",
                            "{\"meta_info\":{\"input_token_ids_logprobs\":null,\"input_top_logprobs\":[]}}"),
                        "{\"meta_info\":{\"input_token_ids_logprobs\":[null,[3]],\"input_top_logprobs\":[null,[[1,2,null]]]}}");
    /* prefill computed the first token: its logprobs for the ids asked for are there */
    assert_string_equal(GEN("{\"meta_info\":{\"output_token_ids_logprobs\":[[[-1,5]]]}}", "{\"meta_info\":{\"output_token_ids_logprobs\":[null,[[-2,5]]]}}"),
                        "{\"meta_info\":{\"output_token_ids_logprobs\":[[[-1,5]],[[-2,5]]]}}");
    /* a decode that has them keeps its own */
    assert_string_equal(GEN("{\"meta_info\":{\"input_token_logprobs\":[1]}}", "{\"meta_info\":{\"input_token_logprobs\":[2]}}"),
                        "{\"meta_info\":{\"input_token_logprobs\":[2]}}");
}

static void batches_go_by_place_and_streams_by_index(void **state)
{
    (void)state;
    assert_string_equal(GEN("[{\"meta_info\":{\"input_token_logprobs\":[1]}},{\"meta_info\":{\"input_token_logprobs\":[2,3]}}]",
                            "[{\"meta_info\":{\"input_token_logprobs\":[]}},{\"meta_info\":{\"input_token_logprobs\":[]}},{\"meta_info\":{\"input_token_logprobs\":[]}}]"),
                        "[{\"meta_info\":{\"input_token_logprobs\":[1]}},{\"meta_info\":{\"input_token_logprobs\":[2,3]}},{\"meta_info\":{\"input_token_logprobs\":[]}}]");
    static const char prefill[] = "data: {\"index\":1,\"meta_info\":{\"input_token_logprobs\":[11]}}\n\ndata: {\"index\":0,\"meta_info\":{\"input_token_logprobs\":[10]}}\n\ndata: [DONE]\n\n";
    assert_string_equal(STREAM(prefill, "data: {\"index\":0,\"meta_info\":{\"input_token_logprobs\":[]}}\n\n: comment\ndata: {\"meta_info\":{\"input_token_logprobs\":[]},\"index\":1}\r\n\r\ndata: [DONE]\n\n"),
                        "data: {\"index\":0,\"meta_info\":{\"input_token_logprobs\":[10]}}\n\n: comment\ndata: {\"meta_info\":{\"input_token_logprobs\":[11]},\"index\":1}\r\n\r\ndata: [DONE]\n\n");
}

static void echo_with_logprobs(void **state)
{
    (void)state;
    static const char prefill[] = "{\"choices\":[{\"index\":1,\"logprobs\":{\"tokens\":[\"z\"]}},{\"index\":0,\"logprobs\":{\"tokens\":[\"a\",\"b\",\"C\"],\"token_logprobs\":[null,-1,-2]}}]}";
    assert_string_equal(COMP(prefill, "{\"choices\":[{\"index\":0,\"logprobs\":{\"token_logprobs\":[-2,-3],\"tokens\":[\"C\",\"D\"],\"other\":[]}},{\"index\":1,\"logprobs\":{\"tokens\":[\"q\"]}}]}"),
                        "{\"choices\":[{\"index\":0,\"logprobs\":{\"token_logprobs\":[null,-1,-2,-3],\"tokens\":[\"a\",\"b\",\"C\",\"D\"],\"other\":[]}},{\"index\":1,\"logprobs\":{\"tokens\":[\"q\"]}}]}");
    pdr_merge m; /* in a stream: the first event of the choice, and no other */
    pdr_merge_init(&m, PDR_API_COMPLETIONS, PDR_RESPONSE_SSE);
    static const char events[] = "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[\"a\",\"b\"]}}]}\n\n";
    assert_string_equal(merged(&m, events, "data: {\"choices\":[{\"index\":0,\"logprobs\":null}]}\n\n"), "data: {\"choices\":[{\"index\":0,\"logprobs\":null}]}\n\n");
    assert_string_equal(merged(&m, events, "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[\"b\"]}}]}\n\n"),
                        "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[\"a\",\"b\"]}}]}\n\n");
    assert_string_equal(merged(&m, events, "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[\"c\"]}}]}\n\n"),
                        "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[\"c\"]}}]}\n\n");
}

static void what_is_not_understood_stays(void **state)
{
    (void)state;
    static const char *const odd[] = {"", "{", "[", "nonsense", "{\"meta_info\":{\"input_token_logprobs\":[", "[1,2]", "{\"meta_info\":[]}", "null", "\"\\",
                                      "{\"meta_info\":{\"input_token_logprobs\":5}}", "{\"a\"}", "{]", "[}"};
    static const char good[] = "{\"meta_info\":{\"input_token_logprobs\":[1]}}", empty[] = "{\"meta_info\":{\"input_token_logprobs\":[]}}";
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        assert_string_equal(GEN(good, odd[i]), odd[i]);
        assert_string_equal(GEN(odd[i], empty), empty);
        assert_string_equal(COMP(good, odd[i]), odd[i]);
        assert_string_equal(STREAM(good, odd[i]), odd[i]);
    }
    /* members of another form than theirs, choices and prompts that prefill does not have */
    static const struct { const char *prefill, *decode; } pairs[] = {
        {"{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[1]}}]}", "{\"choices\":[{\"index\":1,\"logprobs\":{\"tokens\":[2]}}]}"},
        {"{\"choices\":[{\"index\":0,\"logprobs\":null}]}", "{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[2]}}]}"},
        {"{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[1,2]}}]}", "{\"choices\":[{\"index\":-1,\"logprobs\":7},5]}"},
        {"{\"choices\":{}}", "{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[2]}}]}"},
        {"{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":7}}]}", "{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[2]}}]}"},
        {"{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[1,2]}}]}", "{\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":{}}}]}"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) assert_string_equal(COMP(pairs[i].prefill, pairs[i].decode), pairs[i].decode);
    static const struct { const char *prefill, *decode; } ones[] = {
        {"{\"meta_info\":{\"output_token_ids_logprobs\":[null]}}", "{\"meta_info\":{\"output_token_ids_logprobs\":[null,[1]]}}"},
        {"{\"meta_info\":{\"output_token_ids_logprobs\":[]}}", "{\"meta_info\":{\"output_token_ids_logprobs\":[null,[1]]}}"},
        {"{\"meta_info\":{\"output_token_ids_logprobs\":[[2]]}}", "{\"meta_info\":{\"output_token_ids_logprobs\":[true,[1]]}}"},
        {"{\"meta_info\":{\"input_token_logprobs\":null}}", "{\"meta_info\":{\"input_token_logprobs\":null}}"},
        {"{\"meta_info\":{\"input_token_logprobs\":{}}}", "{\"meta_info\":{\"input_token_logprobs\":[]}}"},
        {"[{\"meta_info\":{\"input_token_logprobs\":[1]}}]", "{\"meta_info\":{\"input_token_logprobs\":[]}}"},
        {"{\"meta_info\":{\"input_token_logprobs\":[1]}}", "[{\"meta_info\":{\"input_token_logprobs\":[]}}]"},
    };
    for (size_t i = 0; i < sizeof ones / sizeof *ones; i++) assert_string_equal(GEN(ones[i].prefill, ones[i].decode), ones[i].decode);
    char deep[2000];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    assert_string_equal(GEN(good, deep), deep);
}

/* ---- cost: an event loop waits meanwhile, so it may not grow with what other events have */

static double cpu_of(pdr_merge *m, const char *prefill, const char *decode, int times)
{
    static char     buf[4 << 20];
    struct timespec from, to;
    size_t          need;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (int i = 0; i < times; i++) assert_int_equal(pdr_merge_text(m, prefill, strlen(prefill), decode, strlen(decode), buf, sizeof buf, &need), PDR_OK);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

/* n times `each` (with a place for a number), with `open` in front and `close` behind. */
static char *text_of(const char *open, const char *each, const char *between, int n, const char *close)
{
    size_t size = strlen(open) + strlen(close) + (size_t)n * (strlen(each) + strlen(between) + 16) + 1;
    char  *text = malloc(size), *p = text;
    assert_non_null(text);
    p += sprintf(p, "%s", open);
    for (int i = 0; i < n; i++) {
        if (i) p += sprintf(p, "%s", between);
        p += sprintf(p, each, i);
    }
    sprintf(p, "%s", close);
    return text;
}

static void later_events_are_cheap(void **state)
{
    (void)state;
    pdr_merge m;
    double    first, later;
    /* a choice's first event takes a long prompt's logprobs; 100 others together cost less than ten of it */
    char *one = text_of("data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[", "-1.2345%d", ",", 100000, "]}}]}\n\ndata: [DONE]\n\n");
    static const char event[] = "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[\"a\"]}}]}\n\n", other[] = "data: {\"choices\":[{\"index\":7,\"logprobs\":{\"tokens\":[\"a\"]}}]}\n\n";
    pdr_merge_init(&m, PDR_API_COMPLETIONS, PDR_RESPONSE_SSE);
    first = cpu_of(&m, one, event, 1);
    later = cpu_of(&m, one, event, 100);
    assert_true(later < 10 * first);
    later = cpu_of(&m, one, other, 100); /* prefill has nothing for this one: it is not asked again and again */
    assert_true(later < 10 * first);
    free(one);
    /* every event takes its prompt's; those of 1,000 other prompts are not read for it again */
    char *many = text_of("", "data: {\"meta_info\":{\"input_token_logprobs\":[-1,-2,-3,-4,-5,-6,-7,-8,-9,-10,-11,-12,-13,-14,-15,-16,-17,-18,-19]},\"index\":%d}", "\n\n", 1000, "\n\n");
    pdr_merge_init(&m, PDR_API_GENERATE, PDR_RESPONSE_SSE);
    first = cpu_of(&m, many, "data: {\"meta_info\":{\"input_token_logprobs\":[]},\"index\":3}\n\n", 1);
    later = cpu_of(&m, many, "data: {\"meta_info\":{\"input_token_logprobs\":[]},\"index\":3}\n\n", 100);
    assert_true(later < 30 * first);
    later = cpu_of(&m, many, "data: {\"meta_info\":{\"input_token_logprobs\":[]},\"index\":5000}\n\n", 100); /* not there */
    assert_true(later < 30 * first);
    free(many);
}

static void a_batch_is_read_once(void **state)
{
    (void)state;
    static const char choice[] = "{\"index\":%d,\"text\":\"some words of an answer\",\"logprobs\":{\"tokens\":[\"a\",\"b\",\"c\",\"d\"]}}";
    double cost[2];
    for (int i = 0; i < 2; i++) {
        pdr_merge m;
        char     *text = text_of("{\"choices\":[", choice, ",", i ? 8000 : 400, "]}");
        pdr_merge_init(&m, PDR_API_COMPLETIONS, PDR_RESPONSE_JSON);
        cost[i] = cpu_of(&m, text, text, i ? 1 : 20);
        free(text);
    }
    assert_true(cost[1] < 5 * cost[0]); /* as many choices, in one answer or in twenty */
}

static void places_are_of_one_text(void **state)
{
    (void)state;
    static const char decode[] = "data: {\"index\":%d,\"meta_info\":{\"input_token_logprobs\":[]}}\n\n";
    char      prefill[1024] = "", event[128], want[128];
    pdr_merge m;
    for (int i = 0; i < 12; i++) sprintf(prefill + strlen(prefill), "data: {\"index\":%d,\"meta_info\":{\"input_token_logprobs\":[%d]}}\n\n", i, 100 + i);
    pdr_merge_init(&m, PDR_API_GENERATE, PDR_RESPONSE_SSE);
    for (int i = 0; i < 60; i++) { /* more prompts than places are kept for, again and again */
        int index = i * 7 % 12;
        sprintf(event, decode, index);
        sprintf(want, "data: {\"index\":%d,\"meta_info\":{\"input_token_logprobs\":[%d]}}\n\n", index, 100 + index);
        assert_string_equal(merged(&m, prefill, event), want);
        assert_string_equal(merged(&m, prefill, event), want);
    }
    /* a text that has grown meanwhile is read anew */
    sprintf(event, decode, 4);
    strcat(prefill, "data: {\"index\":4,\"meta_info\":{\"input_token_logprobs\":[7]}}\n\n");
    assert_string_equal(merged(&m, prefill, event), "data: {\"index\":4,\"meta_info\":{\"input_token_logprobs\":[7]}}\n\n");
}

static void odd_indexes_in_streams(void **state)
{
    (void)state;
    pdr_merge m;
    static const char prefill[] = "data: {\"choices\":[{\"index\":0,\"logprobs\":null}]}\n\ndata: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[1,2]}},{\"index\":1,\"logprobs\":{\"tokens\":[3,4]}}]}\n\n";
    pdr_merge_init(&m, PDR_API_COMPLETIONS, PDR_RESPONSE_SSE);
    assert_string_equal(merged(&m, prefill, "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[9]}}]}\n\n"), "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[1,9]}}]}\n\n");
    /* two in one event, of which one has its own already */
    assert_string_equal(merged(&m, prefill, "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[9]}},{\"index\":1,\"logprobs\":{\"tokens\":[8]}}]}\n\n"),
                        "data: {\"choices\":[{\"index\":0,\"logprobs\":{\"tokens\":[9]}},{\"index\":1,\"logprobs\":{\"tokens\":[3,8]}}]}\n\n");
    static const char *const none[] = {"2000", "99999999999", "5x", "\"5\"", "-1"}; /* more than are kept apart, and no numbers */
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char event[128];
        sprintf(event, "data: {\"choices\":[{\"index\":%s,\"logprobs\":{\"tokens\":[9]}}]}\n\n", none[i]);
        assert_string_equal(merged(&m, prefill, event), event);
    }
}

static void room_is_asked_for(void **state)
{
    (void)state;
    static const char p[] = "{\"meta_info\":{\"input_token_logprobs\":[1,2]}}", d[] = "{\"meta_info\":{\"input_token_logprobs\":[]}}";
    pdr_merge m;
    pdr_slice s[3];
    char      buf[64];
    size_t    n = 0, need = 0;
    pdr_merge_init(&m, PDR_API_GENERATE, PDR_RESPONSE_JSON);
    assert_int_equal(pdr_merge_slices(&m, p, strlen(p), d, strlen(d), NULL, &n), PDR_E_NOSPACE);
    assert_int_equal(n, 3);
    assert_int_equal(pdr_merge_slices(&m, p, strlen(p), d, strlen(d), s, &n), PDR_OK);
    assert_int_equal(pdr_merge_text(&m, p, strlen(p), d, strlen(d), NULL, 0, &need), PDR_E_NOSPACE);
    assert_int_equal(need, strlen(d) + 3);
    assert_int_equal(pdr_merge_text(&m, p, strlen(p), d, strlen(d), buf, need, &need), PDR_OK);
    assert_int_equal(pdr_merge_text(&m, NULL, 1, d, strlen(d), buf, sizeof buf, &need), PDR_E_INVALID);
    m.struct_size = 8;
    assert_int_equal(pdr_merge_slices(&m, p, strlen(p), d, strlen(d), s, &n), PDR_E_INVALID);
}

static void who_needs_it(void **state)
{
    (void)state;
    pdr_decision d;
    pdr_prompt   p;
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&p, sizeof p);
    static const char body[] = "{\"text\":\"a\",\"return_logprob\":true}", echo[] = "{\"prompt\":\"a\",\"echo\":true,\"logprobs\":1}";
    assert_int_equal(pdr_scan(body, strlen(body), PDR_API_GENERATE, NULL, &p, NULL, 0, NULL), PDR_OK);
    assert_int_equal(pdr_merge_wanted(&d, &p), 1);
    d.mode = PDR_MODE_SINGLE;
    assert_int_equal(pdr_merge_wanted(&d, &p), 0);
    d.mode = PDR_MODE_PD;
    assert_int_equal(pdr_scan(echo, strlen(echo), PDR_API_COMPLETIONS, NULL, &p, NULL, 0, NULL), PDR_OK);
    assert_int_equal(pdr_merge_wanted(&d, &p), 1);
    p.flags = 0;
    assert_int_equal(pdr_merge_wanted(&d, &p), 0);
}

/* ---- errors */

static void streams_end_in_their_own_format(void **state)
{
    (void)state;
    char   buf[512];
    size_t need;
    assert_int_equal(pdr_error_event(PDR_API_CHAT, 502, "decode_failed", "it \"broke\"", buf, sizeof buf - 1, &need), PDR_OK);
    buf[need] = 0;
    assert_string_equal(buf, "\n\ndata: {\"error\":{\"message\":\"it \\\"broke\\\"\",\"type\":\"server_error\",\"code\":\"decode_failed\"}}\n\n");
    assert_int_equal(pdr_error_event(PDR_API_GENERATE, 504, "decode_timeout", "it\nhangs", buf, sizeof buf - 1, &need), PDR_OK);
    buf[need] = 0;
    assert_string_equal(buf, "\n\ndata: {\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":\"it\\nhangs\",\"status_code\":504,"
                             "\"err_type\":\"decode_timeout\"}}}\n\n");
    assert_int_equal(pdr_error_event(PDR_API_GENERATE, 504, NULL, NULL, buf, 10, &need), PDR_E_NOSPACE);
    assert_true(need > 10);
    assert_int_equal(pdr_error_event(PDR_API_CHAT, 500, NULL, NULL, NULL, 0, &need), PDR_OK);
    assert_int_equal(pdr_error_event(PDR_API_CHAT, 500, NULL, NULL, NULL, 1, &need), PDR_E_INVALID);
    char *longest = malloc(5000);
    assert_non_null(longest);
    memset(longest, 'x', 4999);
    longest[4999] = 0;
    assert_int_equal(pdr_error_event(PDR_API_CHAT, 500, NULL, longest, buf, sizeof buf, &need), PDR_E_TOO_LARGE);
    free(longest);
}

static void an_error_event_names_its_status(void **state)
{
    (void)state;
    static const struct { const char *text; int status; } cases[] = {
        {"data: {\"error\": {\"object\": \"error\", \"message\": \"no \\\"code\\\": 404\", \"type\": \"BAD_REQUEST\", \"param\": null, \"code\": 400}}", 400},
        {"{\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":\"x\",\"status_code\":500,\"err_type\":null}}}", 500},
        {"{\"error\":{\"code\":\"decode_failed\"}}", 0}, {"{\"error\":{\"code\":null}}", 0}, {"{\"code\":\"503\"}", 503}, {"{\"code\":200}", 0},
        {"{\"code\":99999}", 0}, {"\"code\"", 0}, {"", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_int_equal(pdr_error_status(cases[i].text, strlen(cases[i].text)), cases[i].status);
}

static const char *masked(const char *text)
{
    static char  buf[1024];
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    d.room = 4711;
    strcpy(d.prefill_host, "10.0.0.1");
    strcpy(d.decode_host, "decode-7.ns.svc");
    strcpy(d.bootstrap_host, "10.0.0.1");
    strcpy(buf, text);
    assert_int_equal(pdr_error_mask(&d, buf, strlen(buf)), PDR_OK);
    assert_int_equal(strlen(buf), strlen(text));
    return buf;
}

static void errors_tell_nothing_about_the_inside(void **state)
{
    (void)state;
    assert_string_equal(masked("room 4711, 47110, 14711, 4711.5 and 664705761833908638"), "room 9999, 47110, 14711, 9999.5 and 999999999999999999");
    assert_string_equal(masked("{\"bootstrap_room\":4711,\"x\":0.12345678901234567}"), "{\"xxxxxxxxxxxxxx\":9999,\"x\":0.12345678901234567}");
    assert_string_equal(masked("from 10.0.0.1:8000 to decode-7.ns.svc; not 10.0.0.12 or 110.0.0.1"),
                        "from 99x9x9x9:8000 to xxxxxxx9xxxxxxx; not 10.0.0.12 or 110.0.0.1");
    assert_string_equal(masked("File \\\"/opt/sglang/srt/disaggregation/decode.py\\\", line 12\\n/a/b"), "File \\\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\\\", line 12\\nxxxx");
    assert_string_equal(masked("POST /v1/chat/completions, see https://docs.example/a/b and and/or, tp_worker.py"),
                        "POST /v1/chat/completions, see https://docs.example/a/b and and/or, xxxxxxxxxxxx");
    assert_string_equal(masked("max_tokens is 99 and \\u00e9 \\n10.0.0.1"), "max_tokens is 99 and \\u00e9 \\n99x9x9x9");
    /* an escape whose letter begins such a word, and digits of one */
    assert_string_equal(masked("{\"\\bootstrap_room\":\"\\\\bootstrap_port\"}"), "{\"\\bxxxxxxxxxxxxx\":\"\\\\xxxxxxxxxxxxxx\"}");
    assert_string_equal(masked("\"\\u4711 \\n4711\""), "\"\\u4711 \\n9999\"");
    assert_int_equal(pdr_error_mask(NULL, NULL, 0), PDR_OK);
    assert_int_equal(pdr_error_mask(NULL, NULL, 1), PDR_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(input_logprobs_come_from_prefill),
        cmocka_unit_test(batches_go_by_place_and_streams_by_index),
        cmocka_unit_test(echo_with_logprobs),
        cmocka_unit_test(what_is_not_understood_stays),
        cmocka_unit_test(later_events_are_cheap),
        cmocka_unit_test(a_batch_is_read_once),
        cmocka_unit_test(places_are_of_one_text),
        cmocka_unit_test(odd_indexes_in_streams),
        cmocka_unit_test(room_is_asked_for),
        cmocka_unit_test(who_needs_it),
        cmocka_unit_test(streams_end_in_their_own_format),
        cmocka_unit_test(an_error_event_names_its_status),
        cmocka_unit_test(errors_tell_nothing_about_the_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
