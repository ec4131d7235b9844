/* lib/err.c: filling errors and structs of any caller's size. */
#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_code_has_text_and_status(void **state)
{
    (void)state;
    for (int c = 0; c >= PDR_E_SYSTEM; c--) {
        assert_string_not_equal(pdr_strerror(c), "unknown error");
        assert_in_range(pdr_http_status(c), 200, 503);
    }
    assert_string_equal(pdr_strerror(7), "unknown error");
    assert_int_equal(pdr_http_status(PDR_E_QUEUE_FULL), 429);
}

static void error_is_filled_and_never_overrun(void **state)
{
    (void)state;
    struct { pdr_error e; unsigned char guard; } x;
    pdr_init_struct(&x.e, sizeof x.e);
    x.guard = 0xAA;
    assert_int_equal(pdr_fail_at(&x.e, PDR_E_PARSE, 12, 3, "%0400d", 1), PDR_E_PARSE);
    assert_int_equal(x.e.code, PDR_E_PARSE);
    assert_int_equal(x.e.offset, 12);
    assert_int_equal(x.e.line, 3);
    assert_int_equal(strlen(x.e.message), sizeof x.e.message - 1);
    assert_int_equal(x.guard, 0xAA);
    x.e.struct_size = 40; /* an older caller */
    x.e.message[20] = 'z';
    pdr_fail(&x.e, PDR_E_FULL, "abcdefghijklmnopqrstuvwxyz");
    assert_int_equal(x.e.message[20], 'z');
    assert_int_equal(strlen(x.e.message), 40 - offsetof(pdr_error, message) - 1);
    assert_int_equal(pdr_fail(NULL, PDR_E_FULL, "x"), PDR_E_FULL);
}

/* Messages quote what was given: they stay one line of UTF-8 that steers no terminal, wherever they are cut. */
static void a_message_is_one_plain_line(void **state)
{
    (void)state;
    static const struct { const char *given, *message; } rows[] = {
        {"a\r\nb\tc", "a??b?c"},
        {"\x1b[2J\x7f", "?[2J?"},
        {"\xc2\x9b" "2J \xc2\xa0\xc3\xbc", "?2J \xc2\xa0\xc3\xbc"},
        {"\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa", "??\xe2\x80\xaa"},
        {"\xff\xc0\xaf\xed\xa0\x80", "??????"},
        {"\xf0\x9f\x98\x80\xf0\x9f\x98", "\xf0\x9f\x98\x80???"},
    };
    pdr_error err;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pdr_init_struct(&err, sizeof err);
        pdr_fail(&err, PDR_E_INVALID, "%s", rows[i].given);
        assert_string_equal(err.message, rows[i].message);
    }
    char u[] = "\xc3\xbc\xc3\xbc\xc3\xbc";
    pdr_init_struct(&err, sizeof err);
    pdr_fail(&err, PDR_E_INVALID, "%.3s", u);
    assert_string_equal(err.message, "\xc3\xbc?");
}

static void structs_of_other_versions(void **state)
{
    (void)state;
    struct { uint32_t struct_size, a, b, c; } newer = {16, 1, 2, 0}, out;
    struct { uint32_t struct_size, a; } known;
    assert_int_equal(pdr_struct_in(&known, sizeof known, &newer, NULL), PDR_E_VERSION);
    newer.b = 0;
    assert_int_equal(pdr_struct_in(&known, sizeof known, &newer, NULL), PDR_OK);
    assert_int_equal(known.a, 1);
    memset(&out, 0xFF, sizeof out);
    out.struct_size = 8;
    newer.b = 5;
    assert_int_equal(pdr_struct_out(&out, &newer, sizeof newer, NULL), PDR_OK);
    assert_int_equal(out.struct_size, 8);
    assert_int_equal(out.a, 1);
    assert_int_equal(out.b, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_text_and_status),
        cmocka_unit_test(error_is_filled_and_never_overrun),
        cmocka_unit_test(a_message_is_one_plain_line),
        cmocka_unit_test(structs_of_other_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
