/* lib/response.c and lib/answer.c: what real engines answered, and what tries to fool the reader, cut at every
 * position. */
#include "response.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct expected {
    const char *what; /* a file of tests/data/responses, or the text itself */
    uint32_t events;
    uint64_t prompt, cached, completion;
    uint32_t flags;
};

#define FIRST  PDR_SEEN_FIRST_TOKEN
#define DONE   PDR_SEEN_DONE
#define USAGE  PDR_SEEN_USAGE
#define CACHED PDR_SEEN_CACHED
#define ERROR  PDR_SEEN_ERROR

static void expect(const pdr_response *s, const struct expected *e, const char *how, size_t at)
{
    if (s->events == e->events && s->prompt_tokens == e->prompt && s->cached_tokens == e->cached &&
        s->completion_tokens == e->completion && s->flags == e->flags)
        return;
    fail_msg(
        "%.200s\n%s %zu: events %u (%u), prompt %llu (%llu), cached %llu (%llu), completion %llu (%llu), flags %x (%x)",
        e->what, how, at, s->events, e->events, (unsigned long long)s->prompt_tokens, (unsigned long long)e->prompt,
        (unsigned long long)s->cached_tokens, (unsigned long long)e->cached, (unsigned long long)s->completion_tokens,
        (unsigned long long)e->completion, s->flags, e->flags);
}

/* Copies each chunk into a block of its own size, so that a sanitizer sees a read beyond it. */
static void feed(pdr_response *s, const char *p, size_t n)
{
    char *copy = malloc(n ? n : 1);
    memcpy(copy, p, n);
    assert_int_equal(pdr_response_feed(s, copy, n), PDR_OK);
    free(copy);
}

static void check(uint32_t kind, const struct expected *e, const char *text, size_t len)
{
    pdr_response s;
    for (size_t cut = 0; cut <= len; cut++) {
        pdr_response_init(&s, kind);
        feed(&s, text, cut);
        feed(&s, text + cut, len - cut);
        expect(&s, e, "cut at", cut);
        assert_int_equal(s.bytes, len);
    }
    for (size_t size = 1; size < 40; size += size < 4 ? 1 : 7) {
        pdr_response_init(&s, kind);
        for (size_t at = 0; at < len; at += size) feed(&s, text + at, len - at < size ? len - at : size);
        expect(&s, e, "chunks of", size);
    }
}

static void real_answers(void **state)
{
    (void)state;
    /* Calculated from the same files by another program, with Python's json. */
    static const struct expected cases[] = {
        {"sglang_gen_ok_decode.json", 0, 6, 0, 6, USAGE | CACHED},
        {"sglang_gen_stream_prefill.sse", 2, 6, 5, 1, FIRST | DONE | USAGE | CACHED},
        {"sglang_gen_stream_decode.sse", 6, 6, 5, 6, FIRST | DONE | USAGE | CACHED},
        {"sglang_gen_logprob_decode.json", 0, 6, 0, 6, USAGE | CACHED},
        {"sglang_gen_logprob_stream_decode.sse", 7, 6, 0, 6, FIRST | DONE | USAGE | CACHED},
        {"sglang_gen_batch_lists_prefill.json", 0, 6, 1, 2, USAGE | CACHED},
        {"sglang_gen_batch_lists_decode.json", 0, 6, 1, 6, USAGE | CACHED},
        {"sglang_gen_batch_logprob_prefill.json", 0, 6, 0, 2, USAGE | CACHED},
        {"sglang_gen_batch_stream_prefill.sse", 3, 6, 4, 2, FIRST | DONE | USAGE | CACHED},
        {"sglang_gen_batch_stream_decode.sse", 5, 6, 4, 4, FIRST | DONE | USAGE | CACHED},
        {"sglang_chat_ok_prefill.json", 0, 17, 0, 1, USAGE | CACHED},
        {"sglang_chat_ok_decode.json", 0, 17, 0, 6, USAGE | CACHED},
        {"sglang_chat_stream_prefill.sse", 4, 17, 16, 1, FIRST | DONE | USAGE | CACHED},
        {"sglang_chat_stream_decode.sse", 8, 17, 16, 6, FIRST | DONE | USAGE | CACHED},
        {"sglang_chat_logprobs_decode.json", 0, 17, 16, 6, USAGE | CACHED},
        {"sglang_comp_batch_decode.json", 0, 6, 2, 8, USAGE | CACHED},
        {"sglang_comp_echo_logprobs_prefill.json", 0, 3, 0, 1, USAGE | CACHED},
        {"sglang_dp_rank_out_of_range_decode.json", 0, 0, 0, 0, ERROR},
        {"sglang_err_no_room_gen_decode.json", 0, 0, 0, 0, ERROR},
        {"sglang_err_no_room_gen_stream_decode.sse", 2, 6, 0, 0, DONE | USAGE | CACHED | ERROR},
        {"sglang_err_no_room_chat_decode.json", 0, 0, 0, 0, ERROR},
        {"sglang_err_no_room_chat_stream_decode.sse", 2, 0, 0, 0, DONE | ERROR},
        {"sglang_err_bad_json_decode.json", 0, 0, 0, 0, ERROR},
        {"sglang_err_404_decode.json", 0, 0, 0, 0, 0},
        {"vllm_chat_warm.json", 0, 612, 608, 4, USAGE | CACHED},
        {"vllm_chat_stream.sse", 7, 612, 608, 4, FIRST | DONE | USAGE | CACHED},
        {"vllm_comp_batch.json", 0, 6, 0, 8, USAGE | CACHED},
        {"vllm_err_model.json", 0, 0, 0, 0, ERROR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[512], *text;
        FILE *f;
        long len;
        snprintf(path, sizeof path, "%s/responses/%s", PDR_TEST_DATA, cases[i].what);
        assert_non_null(f = fopen(path, "rb"));
        assert_int_equal(fseek(f, 0, SEEK_END), 0);
        assert_true((len = ftell(f)) > 0);
        rewind(f);
        text = malloc((size_t)len);
        assert_int_equal(fread(text, 1, (size_t)len, f), len);
        fclose(f);
        check(strstr(path, ".sse") ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON, &cases[i], text, (size_t)len);
        free(text);
    }
}

static void json_bodies(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {"", 0, 0, 0, 0, 0},
        {"null", 0, 0, 0, 0, 0},
        {"\"usage\"", 0, 0, 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}", 0, 5, 0, 7, USAGE},
        {" \xef\xbb\xbf", 0, 0, 0, 0, 0},
        {"\xef\xbb\xbf{\"usage\" : { \"completion_tokens\" : 7 , \"prompt_tokens\" : 5 } }\n", 0, 5, 0, 7, USAGE},
        {"{\"usage\":{\"prompt_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":3,\"x\":1},\"completion_"
         "tokens\":7}}",
         0, 5, 3, 7, USAGE | CACHED},
        {"{\"usage\":{\"prompt_tokens\":5,\"prompt_tokens_details\":null}}", 0, 5, 0, 0, USAGE},
        {"{\"usage\":null}", 0, 0, 0, 0, 0},
        /* any white space between a key and its value, in one piece and cut */
        {"{\n\t\"usage\"\t:\n{\"prompt_tokens\"\r\n:\r\n5,\"completion_tokens\":\t7,\"prompt_tokens_details\":\n{\"cached_tokens\":\n\n3}}}", 0, 5, 3, 7, USAGE | CACHED},
        {"{\"error\":\n1}", 0, 0, 0, 0, ERROR},
        {"{\"error\":\tnull}", 0, 0, 0, 0, 0},
        {"{\"usage\":[{\"prompt_tokens\":5}]}", 0, 0, 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":null,\"completion_tokens\":\"7\",\"x\":{\"prompt_tokens\":9}}}", 0, 0, 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":5.0,\"completion_tokens\":1e3}}", 0, 0, 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":true}}", 0, 0, 0, 0, 0},
        {"{\"usage\":{\"prompt_tokens\":99999999999999999999999,\"completion_tokens\":18446744073709551615}}", 0,
         UINT64_MAX, 0, UINT64_MAX, USAGE},
        {"{\"usage\":{\"prompt_tokens\":5},\"usage\":{\"prompt_tokens\":6}}", 0, 6, 0, 0, USAGE}, /* the last one */
        /* keys of the same name where they mean nothing */
        {"{\"choices\":[{\"message\":{\"content\":\"\\\"usage\\\":{\\\"prompt_tokens\\\":9}\",\"usage\":{\"prompt_"
         "tokens\":9}},\"usage\":{\"prompt_tokens\":9}}]}",
         0, 0, 0, 0, 0},
        {"{\"a\":{\"usage\":{\"prompt_tokens\":9}},\"b\":[{\"usage\":{\"prompt_tokens\":9}}],\"c\":\"usage\",\"prompt_"
         "tokens\":9}",
         0, 0, 0, 0, 0},
        {"{\"a\":\"\\\\\",\"usage\":{\"prompt_tokens\":4},\"b\":\"\\\\\\\"\"}", 0, 4, 0, 0, USAGE},
        {"{\"a\":\"x\\\\\\\",\\\"usage\\\":{\\\"prompt_tokens\\\":4}\"}", 0, 0, 0, 0, 0},
        {"{\"usage\":{\"details\":{\"cached_tokens\":3},\"cached_tokens\":3,\"prompt_tokens_details\":{\"d\":{\"cached_"
         "tokens\":3}}}}",
         0, 0, 0, 0, 0},
        {"{\"prompt_tokens_details\":{\"cached_tokens\":3}}", 0, 0, 0, 0, 0},
        {"{\"usag\":{\"prompt_tokens\":3},\"usage_\":{\"prompt_tokens\":3},\"Usage\":{\"prompt_tokens\":3},"
         "\"usag\\u0065\":{\"prompt_tokens\":3}}",
         0, 0, 0, 0, 0},
        {"{\"a_key_much_longer_than_any_that_is_known\":1,\"usage\":{\"prompt_tokens\":3}}", 0, 3, 0, 0, USAGE},
        {"{\"a\":[[[{},[],\"]}\"]]],\"usage\":{\"prompt_tokens\":3}}", 0, 3, 0, 0, USAGE},
        {"{\"usage\":{\"prompt_tokens\":3}} {\"usage\":{\"prompt_tokens\":4}}", 0, 3, 0, 0, USAGE}, /* one value */
        {"{\"usage\":{\"prompt_tokens\":12", 0, 0, 0, 0, 0},                                        /* cut off */
        /* batches of /generate */
        {"[{\"meta_info\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"cached_tokens\":3}},"
         "{\"meta_info\":{\"prompt_tokens\":10,\"completion_tokens\":20,\"cached_tokens\":30}}]",
         0, 11, 33, 22, USAGE | CACHED},
        {"[]", 0, 0, 0, 0, 0},
        {"[[{\"meta_info\":{\"prompt_tokens\":1}}],{\"x\":{\"meta_info\":{\"prompt_tokens\":1}}}]", 0, 0, 0, 0, 0},
        /* errors */
        {"{\"error\":{\"message\":\"x\"}}", 0, 0, 0, 0, ERROR},
        {"{\"error\":\"\"}", 0, 0, 0, 0, ERROR},
        {"{\"error\":true}", 0, 0, 0, 0, ERROR},
        {"{\"error\":17}", 0, 0, 0, 0, ERROR},
        {"{\"error\":[]}", 0, 0, 0, 0, ERROR},
        {"{\"error\":null}", 0, 0, 0, 0, 0},
        {"{\"error\":false}", 0, 0, 0, 0, 0},
        {"{\"x\":{\"error\":1},\"y\":\"error\"}", 0, 0, 0, 0, 0},
        {"{\"object\":\"error\"}", 0, 0, 0, 0, ERROR},
        {"{\"object\":\"errors\",\"type\":\"abort\"}", 0, 0, 0, 0, 0},
        {"{\"choices\":[{\"finish_reason\":\"abort\"}]}", 0, 0, 0, 0, ERROR},
        {"{\"choices\":[{\"finish_reason\":\"stop\",\"stop_reason\":\"abort\",\"text\":\"abort\"}]}", 0, 0, 0, 0, 0},
        {"{\"meta_info\":{\"finish_reason\":{\"message\":\"abort\",\"type\":\"abort\"}}}", 0, 0, 0, 0, ERROR},
        {"{\"meta_info\":{\"finish_reason\":{\"message\":\"abort\",\"type\":\"stop\"}}}", 0, 0, 0, 0, 0},
        {"[{\"meta_info\":{\"finish_reason\":{\"type\":\"stop\"}}},{\"meta_info\":{\"finish_reason\":{\"type\":"
         "\"abort\"}}}]",
         0, 0, 0, 0, ERROR},
        /* what is not JSON */
        {"<html>{\"usage\"", 0, 0, 0, 0, 0},
        {"}}]{\"usage\":{\"prompt_tokens\":3}}", 0, 0, 0, 0, 0},
        {"Internal Server Error", 0, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(PDR_RESPONSE_JSON, &cases[i], cases[i].what, strlen(cases[i].what));
}

#define ROLE                                                                                                           \
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null,\"tool_calls\":[ "       \
    "]}}]}\n\n"
#define TOKEN "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n"
#define TOTAL "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7}}\n\n"

static void event_streams(void **state)
{
    (void)state;
    static const struct expected cases[] = {
        {"", 0, 0, 0, 0, 0},
        {ROLE, 1, 0, 0, 0, 0},
        {ROLE TOKEN, 2, 0, 0, 0, FIRST},
        {ROLE TOKEN TOTAL "data: [DONE]\n\n", 4, 5, 0, 7, FIRST | USAGE | DONE},
        {"\xef\xbb\xbf" TOKEN, 1, 0, 0, 0, FIRST},
        {"\xef\xbb" TOKEN, 0, 0, 0, 0, 0},
        /* line ends, spaces, comments, other fields */
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\ndata: [DONE]\r\n\r\n", 2, 0, 0, 0, FIRST | DONE},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\rdata: [DONE]\r\r", 2, 0, 0, 0, FIRST | DONE},
        {"data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata:[DONE]\n\n", 2, 0, 0, 0, FIRST | DONE},
        {": data: [DONE]\n\n:\n\nevent: x\nid: 7\nretry: 5\n\nDATA: [DONE]\n\ndat: [DONE]\n\ndatas: [DONE]\n\n data: "
         "[DONE]\n\n",
         0, 0, 0, 0, 0},
        {"event: message\nid: 1\ndata: [DONE]\nretry: 1\n\n", 1, 0, 0, 0, DONE},
        {"data\n\ndata:\n\ndata: \n\n", 3, 0, 0, 0, 0},
        {"data: {\"usage\":\ndata: {\"prompt_tokens\":\rdata:4}\r\ndata\ndata: }\n\n", 1, 4, 0, 0,
         USAGE},                                                                  /* one event over lines */
        {"data: {\"usage\":\n\ndata: {\"prompt_tokens\":4}}\n\n", 2, 0, 0, 0, 0}, /* two broken ones */
        {"data: {\"usage\":{\"prompt_tokens\":4}}\ndata: {\"usage\":{\"prompt_tokens\":5}}\n\n", 1, 5, 0, 0, USAGE},
        {"\n\n\r\r\r\n\r\n" TOKEN "\n\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"usage\":{\"prompt_tokens\":4}}", 0, 4, 0, 0,
         USAGE}, /* without a last line end: not an event, but read */
        /* [DONE] only as the beginning of an event's data */
        {"data: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: x[DONE]\n\ndata:  [DONE]\n\n[DONE]\n\nid: [DONE]\n\n", 2, 0, 0, 0, 0},
        {"data: {\ndata: [DONE]\n\n", 1, 0, 0, 0, 0},
        {"data: [DONE", 0, 0, 0, 0, 0},
        {"data: [DONE]", 0, 0, 0, 0, DONE},
        {"data: [[DONE]\n\ndata: [DOnE]\n\n", 2, 0, 0, 0, 0},
        {"data: [DONE]{\"usage\":{\"prompt_tokens\":4}}\n\n", 1, 0, 0, 0, DONE},
        /* first token */
        {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\",\"role\":\"assistant\"}}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"reasoning_content\":\"a\"}}]}\n\n", 1, 0, 0, 0,
         FIRST},
        {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"tool_calls\":[{\"index\":0}]}}]}\n\n", 1, 0, 0, 0,
         FIRST},
        {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"function_call\":{ \n}}}]}\n\n", 1, 0, 0, 0, 0},
        {"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\\u0000\"}}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[{\"delta\":{\"role\":null,\"content\":\"\"}}]}\n\n", 1, 0, 0, 0,
         FIRST}, /* a token without text */
        {"data: {\"choices\":[{\"delta\":{\"content\":\"\"}}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[{\"text\":\"a\"}]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[]}\n\n" TOTAL "data: {}\n\ndata: {\"id\":\"x\"}\n\n", 4, 5, 0, 7, USAGE},
        {"data: {\"text\":\"\",\"output_ids\":[1]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"output_ids\":[1]}\n\n", 1, 0, 0, 0, FIRST},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"error\":{}}\n\n", 1, 0, 0, 0, ERROR},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"abort\"}]}\n\n", 1, 0, 0, 0, ERROR},
        {"data: {\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n", 2, 0, 0, 0, ERROR | DONE},
        {"data: {'error': 'python'}\n\n", 1, 0, 0, 0, 0},
        {"data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\":{}\",\"error\":1}}]}\n\n", 1, 0, 0, 0, FIRST},
        /* usage: the last; meta_info: cumulative per prompt, summed over prompts */
        {"data: {\"choices\":[{\"text\":\"\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1}}\n\n"
         "data: {\"choices\":[{\"text\":\"\"}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n",
         2, 5, 0, 2, FIRST | USAGE},
        {"data: {\"text\":\"\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"finish_reason\":null}}\n\n"
         "data: {\"text\":\"\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":2,\"finish_reason\":null}}\n\n",
         2, 5, 0, 2, FIRST | USAGE},
        {"data: "
         "{\"text\":\"\",\"meta_info\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"finish_reason\":{\"type\":"
         "\"length\"}},\"index\":0}\n\n"
         "data: "
         "{\"text\":\"\",\"meta_info\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"finish_reason\":null},\"index\":"
         "1}\n\n"
         "data: "
         "{\"text\":\"\",\"meta_info\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"finish_reason\":{\"type\":"
         "\"length\"}},\"index\":1}\n\n"
         "data: [DONE]\n\n",
         4, 8, 0, 5, FIRST | USAGE | DONE},
        {"data: {\"a\":\"unfinished\n\n" TOTAL, 2, 5, 0, 7, USAGE}, /* a broken event does not spoil the next */
        {"data: {\"usage\":{\"prompt_tokens\":1\n\n" TOTAL, 2, 5, 0, 7, USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(PDR_RESPONSE_SSE, &cases[i], cases[i].what, strlen(cases[i].what));
}

/* Long strings and arrays cross every border of the wide loops. */
static void long_values(void **state)
{
    (void)state;
    for (size_t n = 0; n < 200; n++) {
        char text[1024];
        size_t len = (size_t)sprintf(text, "{\"a\":\"");
        for (size_t i = 0; i < n; i++) text[len++] = "xy{}[]:,0"[i % 9];
        len += (size_t)sprintf(text + len, "\\\"%s\",\"b\":[", n & 1 ? "\\\\" : "\\\"");
        for (size_t i = 0; i < n; i++) len += (size_t)sprintf(text + len, "%s%zu", i ? "," : "", i % 10);
        len += (size_t)sprintf(text + len, "],\"usage\":{\"prompt_tokens\":%zu}}", n);
        struct expected e = {text, 0, n, 0, 0, USAGE};
        check(PDR_RESPONSE_JSON, &e, text, len);
    }
}

static void deep_nesting_is_only_counted(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *text = malloc(2 * DEPTH + 64);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEPTH);
    memset(text + 5 + DEPTH, ']', DEPTH);
    size_t len = 5 + 2 * DEPTH + (size_t)sprintf(text + 5 + 2 * DEPTH, ",\"usage\":{\"prompt_tokens\":3}}");
    pdr_response s;
    pdr_response_init(&s, PDR_RESPONSE_JSON);
    feed(&s, text, len);
    assert_int_equal(s.prompt_tokens, 3);
    free(text);
}

static void wrong_arguments(void **state)
{
    (void)state;
    pdr_response s;
    struct {
        pdr_response s;
        uint64_t guard;
    } newer;
    pdr_response_init(NULL, PDR_RESPONSE_SSE);
    memset(&s, 0, sizeof s);
    assert_int_equal(pdr_response_feed(&s, "x", 1), PDR_E_VERSION);
    assert_int_equal(pdr_response_feed(NULL, "x", 1), PDR_E_VERSION);
    pdr_response_init(&s, 9);
    assert_int_equal(pdr_response_feed(&s, "x", 1), PDR_E_INVALID);
    pdr_response_init(&s, PDR_RESPONSE_SSE);
    assert_int_equal(s.struct_size, sizeof s);
    assert_int_equal(pdr_response_feed(&s, NULL, 1), PDR_E_INVALID);
    assert_int_equal(pdr_response_feed(&s, NULL, 0), PDR_OK);
    pdr_init_struct(&newer, sizeof newer); /* of a caller built against a later header */
    newer.guard = 0x1234;
    pdr_response_init(&newer.s, PDR_RESPONSE_SSE);
    assert_int_equal(newer.s.struct_size, sizeof newer);
    assert_int_equal(pdr_response_feed(&newer.s, "data: [DONE]\n\n", 14), PDR_OK);
    assert_int_equal(newer.s.flags, DONE);
    assert_int_equal(newer.guard, 0x1234);
}

/* ---- error events within a stream */

static const char ROOM_EVENT[] = "data: {\"error\":{\"message\":\"Decode transfer failed room=7340382930494838293 in /opt/sglang/decode.py\",\"code\":500}}\n\n";

/* Passes a stream as a gateway does, in pieces of `size`; returns what the client gets, to be freed. */
static char *passed(const char *text, size_t len, size_t size, const pdr_decision *d)
{
    pdr_response s;
    char        *out = malloc(len + 1), *held = malloc(len + 1);
    size_t       sent = 0, n = 0, ready;
    pdr_response_init(&s, PDR_RESPONSE_SSE);
    for (size_t at = 0; at < len; at += size) {
        size_t more = len - at < size ? len - at : size;
        feed(&s, text + at, more);
        memcpy(held + n, text + at, more);
        n += more;
        char *exact = malloc(n); /* of its own size: a sanitizer sees what is read or written beyond */
        memcpy(exact, held, n);
        assert_int_equal(pdr_response_mask(&s, d, exact, n, at + more == len, &ready), PDR_OK);
        assert_true(ready <= n && (ready == n || at + more < len) && n - ready <= 16384);
        memcpy(out + sent, exact, ready);
        assert_memory_equal(exact + ready, held + ready, n - ready); /* what is not ready is as it was */
        free(exact);
        sent += ready;
        memmove(held, held + ready, n - ready);
        n -= ready;
    }
    assert_int_equal(sent, len);
    out[len] = 0;
    free(held);
    return out;
}

static void masked_to(const char *text, const char *wanted, const pdr_decision *d)
{
    size_t len = strlen(text);
    assert_int_equal(len, strlen(wanted));
    char *out = passed(text, len, len, d);
    assert_string_equal(out, wanted);
    free(out);
}

static void error_events_are_masked(void **state)
{
    pdr_decision d;
    (void)state;
    pdr_init_struct(&d, sizeof d);
    d.room = 4711;
    strcpy(d.decode_host, "decode-7.pool");
    /* what is masked, and that all around it stays: content with paths, numbers of sixteen digits, and our host */
    masked_to("data: {\"choices\":[{\"delta\":{\"content\":\"/usr/lib/x.py 1234567890123456 decode-7.pool\"}}]}\n\n"
              "data: {\"error\":{\"message\":\"room=1234567890123456 at decode-7.pool in /opt/sglang/x.py\",\"code\":500}}\n\ndata: [DONE]\n\n",
              "data: {\"choices\":[{\"delta\":{\"content\":\"/usr/lib/x.py 1234567890123456 decode-7.pool\"}}]}\n\n"
              "data: {\"error\":{\"message\":\"room=9999999999999999 at xxxxxxx9xxxxx in xxxxxxxxxxxxxxxx\",\"code\":500}}\n\ndata: [DONE]\n\n", &d);
    /* of /generate's abort the finish reason; the model's text stays, and so do the other prompts of a batch */
    masked_to("data: {\"text\":\"ls /usr/lib/x.py\",\"meta_info\":{\"id\":\"1234567890123456\",\"finish_reason\":{\"type\":\"abort\",\"message\":\"room 4711 /opt/a/b.py\"}},\"index\":0}\n\n"
              "data: {\"text\":\"/usr/lib/y.py\",\"meta_info\":{\"finish_reason\":null},\"index\":1}\n\n",
              "data: {\"text\":\"ls /usr/lib/x.py\",\"meta_info\":{\"id\":\"1234567890123456\",\"finish_reason\":{\"type\":\"abort\",\"message\":\"room 9999 xxxxxxxxxxx\"}},\"index\":0}\n\n"
              "data: {\"text\":\"/usr/lib/y.py\",\"meta_info\":{\"finish_reason\":null},\"index\":1}\n\n", &d);
    /* an error that is none, SGLang's other form, line ends, data over several lines, an end that is missing */
    masked_to("data: {\"error\":null,\"text\":\"/usr/lib/x.py\"}\n\n", "data: {\"error\":null,\"text\":\"/usr/lib/x.py\"}\n\n", NULL);
    masked_to("data: {\"object\":\"error\",\"message\":\"/opt/a/b.py\"}\r\n\r\n", "data: {\"object\":\"error\",\"message\":\"xxxxxxxxxxx\"}\r\n\r\n", NULL);
    masked_to("data: {\"error\":\rdata: \"/opt/a/b.py\"}\r\rdata: {\"a\":\"/opt/a/b.py\"}\r\r", "data: {\"error\":\rdata: \"xxxxxxxxxxx\"}\r\rdata: {\"a\":\"/opt/a/b.py\"}\r\r", NULL);
    masked_to("data: {\"a\":1}\n\ndata: {\"error\":\"/opt/a/b.py", "data: {\"a\":1}\n\ndata: {\"error\":\"xxxxxxxxxxx", NULL);
    masked_to("", "", NULL);
    /* what looks like /generate's, and is not: all of it */
    static const char *const odd[] = {"\"error\":false,\"meta_info\":7", "\"meta_info\":{}", "\"meta_info\":{\"finish_reason\":\"abort\"}", "\"error\":null", "\"error\":5,\"meta_info\":{\"finish_reason\":{}}"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char text[200], wanted[200];
        snprintf(text, sizeof text, "dat\ndata:{\"object\":\"error\",%s,\"m\":\"/opt/a/b.py\"}\n\n", odd[i]);
        snprintf(wanted, sizeof wanted, "dat\ndata:{\"object\":\"error\",%s,\"m\":\"xxxxxxxxxxx\"}\n\n", odd[i]);
        masked_to(text, wanted, NULL);
    }
    masked_to("data:\n\ndata: {\"error\":\"/opt/a/b.py\"}\n\n", "data:\n\ndata: {\"error\":\"xxxxxxxxxxx\"}\n\n", NULL);
}

/* Cut anywhere an error tells nothing: what had gone before it was seen is its beginning. */
static void error_events_are_masked_however_they_are_cut(void **state)
{
    static const char *const streams[] = {
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n%sdata: [DONE]\n\n", "%s", ": ping\r\n\r\n%sdata: {\"choices\":[{\"text\":\"/usr/lib/x.py\"}]}\n\n"};
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        char text[600];
        snprintf(text, sizeof text, streams[i], ROOM_EVENT);
        size_t len = strlen(text);
        char  *whole = passed(text, len, len, NULL);
        assert_null(strstr(whole, "/opt"));
        assert_null(strstr(whole, "7340382930494838293"));
        for (size_t size = 1; size < len; size++) {
            char *cut = passed(text, len, size, NULL);
            assert_string_equal(cut, whole); /* the mark of an error stands in front of what it tells */
            free(cut);
        }
        free(whole);
    }
}

/* What is held back has a bound; beyond it an error is masked part by part. */
static void long_error_events_are_masked_in_parts(void **state)
{
    enum { LONG = 100000 };
    char *text = malloc(LONG + 200);
    (void)state;
    for (size_t size = 100; size <= LONG * 2; size = size * 10 + 7) {
        size_t n = (size_t)sprintf(text, "data: {\"error\":\"");
        while (n < LONG) n += (size_t)sprintf(text + n, " /opt/a/b.py 1234567890123456");
        n += (size_t)sprintf(text + n, "\"}\n\ndata: {\"text\":\"/usr/lib/x.py\"}\n\n");
        char  *out = passed(text, n, size, NULL);
        size_t told = 0;
        for (char *p = out; (p = strstr(p, "/opt/a/b.py")); p++) told++;
        for (char *p = out; (p = strstr(p, "1234567890123456")); p++) told++;
        assert_int_equal(told, 0);
        assert_non_null(strstr(out, "data: {\"text\":\"/usr/lib/x.py\"}\n\n"));
        free(out);
    }
    /* a word that is longer than what is held back */
    size_t n = (size_t)sprintf(text, "data: {\"error\":\"Zz9/"), begun = n;
    while (n < LONG) n += (size_t)sprintf(text + n, "Zz9_\xC3\xA9/.-+@[`{:");
    n += (size_t)sprintf(text + n, "/opt/a/b.py\"}\n\n");
    for (char *p = text + begun; p < text + LONG; p++)
        if (*p == '[' || *p == '`' || *p == '{' || *p == ':') *p = 'a';
    for (size_t size = 1000; size <= LONG * 2; size *= 10) {
        char *out = passed(text, n, size, NULL);
        assert_null(strstr(out, "/opt"));
        free(out);
    }
    /* and the bytes around letters and digits end one */
    for (const char *c = "[`{:\x7F"; *c; c++) {
        n = (size_t)sprintf(text, "data: {\"error\":\"");
        while (n < LONG) n += (size_t)sprintf(text + n, "/opt/a/b%c", *c);
        char *out = passed(text, n, 1000, NULL);
        assert_null(strstr(out + 17000, "/opt/a/b"));
        free(out);
    }
    free(text);
}

static void masking_takes_what_a_feed_takes(void **state)
{
    pdr_response s = {0};
    char         text[] = "{\"error\":\"/opt/a/b.py\"}";
    size_t       ready = 7;
    (void)state;
    assert_int_equal(pdr_response_mask(&s, NULL, text, 3, 1, &ready), PDR_E_VERSION);
    pdr_response_init(&s, PDR_RESPONSE_SSE);
    assert_int_equal(pdr_response_mask(&s, NULL, NULL, 3, 1, &ready), PDR_E_INVALID);
    assert_int_equal(pdr_response_mask(&s, NULL, text, 3, 1, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_response_mask(&s, &(pdr_decision){0}, text, 3, 1, &ready), PDR_E_VERSION);
    assert_int_equal(ready, 7);
    assert_int_equal(pdr_response_mask(&s, NULL, NULL, 0, 1, &ready), PDR_OK);
    assert_int_equal(ready, 0);
    pdr_response_init(&s, PDR_RESPONSE_JSON); /* a plain answer passes as it is */
    feed(&s, text, strlen(text));
    assert_int_equal(pdr_response_mask(&s, NULL, text, strlen(text), 1, &ready), PDR_OK);
    assert_int_equal(ready, strlen(text));
    assert_string_equal(text, "{\"error\":\"/opt/a/b.py\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_answers),
        cmocka_unit_test(json_bodies),
        cmocka_unit_test(event_streams),
        cmocka_unit_test(long_values),
        cmocka_unit_test(deep_nesting_is_only_counted),
        cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(error_events_are_masked),
        cmocka_unit_test(error_events_are_masked_however_they_are_cut),
        cmocka_unit_test(long_error_events_are_masked_in_parts),
        cmocka_unit_test(masking_takes_what_a_feed_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
