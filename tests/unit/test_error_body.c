/* lib/error_body.c and the JSON text writer below it: valid JSON from any bytes, in buffers of any size. */
#include "text.h"
#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>
#include <cmocka.h>

static void exact_text(void **state)
{
    (void)state;
    char buf[256];
    size_t need;
    assert_int_equal(pdr_error_body(503, "no_pair", "a \"b\" \\ \n\t\x01\x7f", buf, sizeof buf, &need), PDR_OK);
    buf[need] = 0;
    assert_string_equal(buf, "{\"error\":{\"message\":\"a \\\"b\\\" \\\\ "
                             "\\n\\t\\u0001\\u007f\",\"type\":\"server_error\",\"code\":\"no_pair\"}}");
    assert_int_equal(pdr_error_body(400, NULL, NULL, buf, sizeof buf, &need), PDR_OK);
    buf[need] = 0;
    assert_string_equal(buf, "{\"error\":{\"message\":\"\",\"type\":\"invalid_request_error\",\"code\":null}}");
    assert_int_equal(pdr_error_body(400, NULL, NULL, NULL, 3, &need), PDR_E_INVALID);
    assert_int_equal(pdr_error_body(400, NULL, NULL, buf, sizeof buf, NULL), PDR_OK);
}

static void types_follow_the_status(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *type;
    } cases[] = {
        {400, "invalid_request_error"}, {401, "authentication_error"},  {403, "permission_error"},
        {404, "not_found_error"},       {413, "invalid_request_error"}, {429, "rate_limit_error"},
        {500, "server_error"},          {502, "server_error"},          {503, "server_error"},
        {504, "server_error"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char buf[256];
        size_t need;
        assert_int_equal(pdr_error_body(cases[i].status, "c", "m", buf, sizeof buf, &need), PDR_OK);
        cJSON *root = cJSON_ParseWithLength(buf, need), *error = cJSON_GetObjectItem(root, "error");
        assert_string_equal(cJSON_GetObjectItem(error, "type")->valuestring, cases[i].type);
        assert_string_equal(cJSON_GetObjectItem(error, "message")->valuestring, "m");
        assert_string_equal(cJSON_GetObjectItem(error, "code")->valuestring, "c");
        cJSON_Delete(root);
    }
}

static void every_size_of_buffer(void **state)
{
    (void)state;
    char full[256], got[256];
    size_t size, need;
    assert_int_equal(pdr_error_body(502, "prefill_failed", "line\r\n\"quoted\" \xc3\xa9 \xff", NULL, 0, &size), PDR_OK);
    assert_int_equal(pdr_error_body(502, "prefill_failed", "line\r\n\"quoted\" \xc3\xa9 \xff", full, size, &need),
                     PDR_OK);
    for (size_t cap = 0; cap <= size; cap++) {
        memset(got, 0x55, sizeof got);
        assert_int_equal(pdr_error_body(502, "prefill_failed", "line\r\n\"quoted\" \xc3\xa9 \xff", got, cap, &need),
                         cap < size ? PDR_E_NOSPACE : PDR_OK);
        assert_int_equal(need, size);
        assert_memory_equal(got, full, cap);
        for (size_t i = cap; i < sizeof got; i++) assert_int_equal(got[i], 0x55);
    }
}

/* Whether a string is well-formed UTF-8, by decoding and encoding it again. */
static int valid_utf8(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t c = s[i];
        size_t length = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
        if (!length || i + length > n) return 0;
        if (length > 1) c &= 0xFFu >> (length + 1);
        for (size_t k = 1; k < length; k++) {
            if (s[i + k] >> 6 != 2) return 0;
            c = c << 6 | (s[i + k] & 0x3F);
        }
        if (c < (uint32_t[]){0, 0, 0x80, 0x800, 0x10000}[length] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
            return 0;
        i += length;
    }
    return 1;
}

/* All strings of up to three bytes from a set that covers every border of UTF-8, in context. */
static void any_bytes_give_valid_json(void **state)
{
    (void)state;
    static const unsigned char set[] = {1,    0x1F, ' ',  '"',  '\\', '/',  0x7F, 0x80, 0x8F, 0x90,
                                        0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC,
                                        0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF, 'a'};
    enum { N = sizeof set };
    for (uint32_t i = 0; i < N * N * N * N; i++) {
        unsigned char in[5] = {set[i % N], set[i / N % N], set[i / N / N % N], set[i / N / N / N], 'z'};
        char out[64];
        struct pdr_text t = {out, sizeof out, 0};
        pdr_text_json(&t, (const char *)in, 5);
        assert_true(t.len <= sizeof out);
        if (!valid_utf8((unsigned char *)out, t.len)) fail_msg("%02x %02x %02x %02x", in[0], in[1], in[2], in[3]);
        for (size_t k = 1; k + 1 < t.len; k++) {
            assert_true((unsigned char)out[k] >= 0x20);
            if (out[k] == '\\')
                k += out[k + 1] == 'u' ? 5 : 1;
            else
                assert_int_not_equal(out[k], '"');
        }
        if (valid_utf8(in, 5)) assert_null(memmem(out, t.len, "\\ufffd", 6)); /* nothing lost */
    }
}

static void numbers(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 9, 10, 99, 4294967296u, INT64_MAX, UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char out[32], want[32];
        struct pdr_text t = {out, sizeof out, 0};
        pdr_text_u64(&t, values[i]);
        assert_int_equal(t.len, snprintf(want, sizeof want, "%llu", (unsigned long long)values[i]));
        assert_memory_equal(out, want, t.len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_text),
        cmocka_unit_test(types_follow_the_status),
        cmocka_unit_test(every_size_of_buffer),
        cmocka_unit_test(any_bytes_give_valid_json),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
