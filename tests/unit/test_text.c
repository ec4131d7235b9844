/* Text that is written for others to read: what each form makes of bytes that it cannot take as they are, and of too little room. */
#include "text.h"

#include "pdroute/pdroute.h"

#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

typedef void writer(struct pdr_text *, const char *, size_t);

static void becomes(writer *write, const char *in, size_t n, const char *out)
{
    char            buf[128];
    struct pdr_text t = {buf, sizeof buf, 0};
    size_t          need;
    write(&t, in, n);
    assert_int_equal(pdr_text_end(&t, &need), PDR_OK);
    assert_int_equal(need, strlen(out));
    assert_memory_equal(buf, out, need);
    for (size_t cap = 0; cap < need; cap++) { /* never a byte more than there is room for */
        memset(buf, 'x', sizeof buf);
        t = (struct pdr_text){cap ? buf : NULL, cap, 0};
        write(&t, in, n);
        assert_int_equal(pdr_text_end(&t, &need), cap ? PDR_E_NOSPACE : PDR_OK);
        assert_int_equal(need, strlen(out));
        assert_memory_equal(buf, out, cap);
        assert_int_equal(buf[cap], 'x');
    }
}
#define BECOMES(write, in, out) becomes(write, in, sizeof(in) - 1, out)

static void labels(void **state)
{
    (void)state;
    BECOMES(pdr_text_label, "", "\"\"");
    BECOMES(pdr_text_label, "a\"b\\c\nd", "\"a\\\"b\\\\c\\nd\"");
    BECOMES(pdr_text_label, "\t\r", "\"\t\r\""); /* has no escape in that format */
    BECOMES(pdr_text_label, "\377a\xe2\x82", "\"\357\277\275a\xEF\xBF\xBD\xEF\xBF\xBD\"");
    BECOMES(pdr_text_label, "\xe4\xbd\xa0", "\"\xe4\xbd\xa0\"");
}

static void json_strings(void **state)
{
    (void)state;
    BECOMES(pdr_text_json, "", "\"\"");
    BECOMES(pdr_text_json, "a\"b\\c\nd\0e\x7f", "\"a\\\"b\\\\c\\nd\\u0000e\\u007f\"");
    BECOMES(pdr_text_json, "\377a\xed\xa0\x80", "\"\\ufffda\\ufffd\\ufffd\\ufffd\"");
    BECOMES(pdr_text_json, "\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\"");
}

static void one_plain_line(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"", ""}, {"plain", "plain"}, {"a\r\nb", "a??b"}, {"\x1b[2J\x7f", "?[2J?"}, {"\xc2\x9b", "?"}, {"\xc2\xa0", "\xc2\xa0"},
        {"\xe2\x80\xa8\xe2\x80\xa9", "??"}, {"\xe2\x80\xa7", "\xe2\x80\xa7"}, {"\xe2\x80", "??"}, {"\xff\xc3\xa4", "?\xc3\xa4"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[32];
        strcpy(text, rows[i][0]);
        pdr_text_plain(text);
        assert_string_equal(text, rows[i][1]);
    }
}

static void numbers(void **state)
{
    (void)state;
    for (uint64_t v = 0, i = 0; i < 70; v = i < 64 ? (1ull << i) - (i & 1) : v / 7, i++) {
        char            want[24], buf[24];
        struct pdr_text t = {buf, sizeof buf, 0};
        int             n = snprintf(want, sizeof want, "%llu", (unsigned long long)v);
        pdr_text_u64(&t, v);
        assert_int_equal(t.len, n);
        assert_memory_equal(buf, want, t.len);
    }
}

/* One rule, by whichever door a host comes in: pdr_endpoint_put and pdr_apply_json ask here. */
static void hosts(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "A-z_0.9", "10.0.0.1", "::1", "fe80::1%eth0", ":::", "%"};
    static const char *const bad[] = {"", ":", "a:1", "10.0.0.1:80", "[::1]", "a b", "a/b", "a@b::", "\xc3\xa4", "a\n", "a\"", "a\\", "a,b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(pdr_text_is_host(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(pdr_text_is_host(bad[i]));
    setlocale(LC_CTYPE, "de_DE.ISO-8859-1"); /* where letters are more; without it installed the plain one is asked twice */
    for (int c = 1; c < 256; c++) {
        char text[] = {'x', (char)c, ':', ':', 0};
        int  plain = c < 128 && (strchr("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_:%", c) != NULL);
        assert_int_equal(pdr_text_is_host(text), plain);
    }
    setlocale(LC_CTYPE, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels),
        cmocka_unit_test(json_strings),
        cmocka_unit_test(one_plain_line),
        cmocka_unit_test(numbers),
        cmocka_unit_test(hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
