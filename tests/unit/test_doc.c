/* lib/doc.c: the JSON tree of the control plane; lib/similar.c. */
#include "doc.h"
#include "similar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "feed_data.h"

static pdr_doc   doc;
static pdr_error err;

static int parse(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1); /* of its own size, for ASan */
    if (!copy) abort();
    memcpy(copy, text, len);
    pdr_init_struct(&err, sizeof err);
    int code = pdr_doc_parse(&doc, copy, len, &err);
    if (!code) pdr_doc_free(&doc);
    free(copy);
    return code;
}

static void grammar(void **state)
{
    (void)state;
    static const char *const good[] = {
        "null",
        " true ",
        "\tfalse\r\n",
        "0",
        "-0",
        "1",
        "-1.5e+10",
        "1E5",
        "0.0",
        "10",
        "1e-0",
        "\"\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\uD83D\\ude00\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[1,2]",
        "[[],{}]",
        "{\"\":0}",
        "{\"a\":{\"a\":1},\"a\":2}",
        "\xEF\xBB\xBF{}",
        "\"\x7F\"",
        "\"\xC2\x80\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\"",
        "\"\\u0000\"",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (parse(good[i], strlen(good[i]))) fail_msg("%s: %s", good[i], err.message);
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "'a'",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\n\"",
        "\"\t\"",
        "\"\x01\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{,}",
        "[}",
        "{]",
        "//x\n1",
        "1//x",
        "\xFF\xFE",
        "\xEF\xBB\xBF",
        "\xEF\xBB",
        "\"\x80\"",
        "\"\xC0\x80\"",
        "\"\xC1\xBF\"",
        "\"\xE0\x9F\xBF\"",
        "\"\xED\xA0\x80\"",
        "\"\xF0\x8F\xBF\xBF\"",
        "\"\xF4\x90\x80\x80\"",
        "\"\xF5\x80\x80\x80\"",
        "\"\xE2\x82\"",
        "\"\xE2\x82",
        "\"\xC3",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i], strlen(bad[i])) != PDR_E_PARSE) fail_msg("accepted: %s", bad[i]);
        assert_true(err.message[0] != 0);
        assert_in_range(err.offset, 0, strlen(bad[i]));
    }
    assert_int_equal(parse("[\0]", 3), PDR_E_PARSE);
    assert_int_equal(parse("\"\\\0\"", 4), PDR_E_PARSE);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    char text[2 * PDR_DOC_DEPTH + 2];
    memset(text, '[', PDR_DOC_DEPTH);
    memset(text + PDR_DOC_DEPTH, ']', PDR_DOC_DEPTH);
    assert_int_equal(parse(text, 2 * PDR_DOC_DEPTH), PDR_OK);
    memset(text, '[', PDR_DOC_DEPTH + 1);
    memset(text + PDR_DOC_DEPTH + 1, ']', PDR_DOC_DEPTH + 1);
    assert_int_equal(parse(text, 2 * PDR_DOC_DEPTH + 2), PDR_E_TOO_DEEP);
    size_t many = 1 << 20; /* nothing but opening brackets */
    char  *deep = malloc(many);
    memset(deep, '[', many);
    assert_int_equal(parse(deep, many), PDR_E_TOO_DEEP);
    free(deep);
}

static void values_and_positions(void **state)
{
    (void)state;
    const char *text = "{\"a\": {\"b.c\": \"x\\u0000y\", \"d\": [10, \"\\u00e9\\ud83d\\ude00\"]},\n \"k\\u0065y\": "
                       "18446744073709551615,\n\"n\": null, \"t\": true}";
    uint64_t    value = 0;
    assert_int_equal(pdr_doc_parse(&doc, text, strlen(text), NULL), PDR_OK);
    uint32_t a = pdr_doc_get(&doc, PDR_DOC_ROOT, "a"), key = pdr_doc_get(&doc, PDR_DOC_ROOT, "key"),
             list = pdr_doc_at(&doc, PDR_DOC_ROOT, "a.d");
    assert_int_equal(pdr_doc_type(&doc, a), PDR_DOC_OBJECT);
    assert_int_equal(doc.nodes[pdr_doc_get(&doc, a, "b.c")].length, 3); /* tells of the NUL inside */
    assert_int_equal(pdr_doc_at(&doc, PDR_DOC_ROOT, "a.b.c"), 0);
    assert_int_equal(pdr_doc_at(&doc, PDR_DOC_ROOT, "a.d.e"), 0);
    assert_int_equal(pdr_doc_get(&doc, PDR_DOC_ROOT, "ke"), 0);
    assert_int_equal(pdr_doc_get(&doc, PDR_DOC_ROOT, "keyy"), 0);
    assert_int_equal(doc.nodes[list].length, 2);
    assert_string_equal(pdr_doc_string(&doc, pdr_doc_next(&doc, pdr_doc_first(&doc, list))),
                        "\xC3\xA9\xF0\x9F\x98\x80");
    assert_int_equal(pdr_doc_whole(&doc, key, &value), PDR_OK);
    assert_true(value == UINT64_MAX);
    assert_int_equal(pdr_doc_line(&doc, key), 2);
    assert_string_equal(pdr_doc_type_name(&doc, pdr_doc_get(&doc, PDR_DOC_ROOT, "t")), "a boolean");
    /* "none" may be asked on */
    assert_int_equal(pdr_doc_type(&doc, 0), PDR_DOC_NULL);
    assert_int_equal(pdr_doc_get(&doc, 0, "a"), 0);
    assert_int_equal(pdr_doc_first(&doc, 0), 0);
    assert_null(pdr_doc_string(&doc, 0));
    assert_null(pdr_doc_string(&doc, key));
    assert_int_not_equal(pdr_doc_whole(&doc, 0, &value), PDR_OK);
    pdr_doc_free(&doc);
    static const char *const no[] = {"-1", "1.0", "1e1", "18446744073709551616", "\"1\"", "null"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        assert_int_equal(pdr_doc_parse(&doc, no[i], strlen(no[i]), NULL), PDR_OK);
        assert_int_not_equal(pdr_doc_whole(&doc, PDR_DOC_ROOT, &value), PDR_OK);
        pdr_doc_free(&doc);
    }
    text = "{\n \"a\": 1,\n \"b\": x\n}";
    assert_int_equal(parse(text, strlen(text)), PDR_E_PARSE);
    assert_int_equal(err.line, 3);
    assert_int_equal(err.offset, 17);
}

static void many_nodes(void **state)
{
    (void)state;
    size_t n = 100000, len = 0;
    char  *text = malloc(2 * n + 2);
    text[len++] = '[';
    for (size_t i = 0; i < n; i++) {
        text[len++] = '7';
        text[len++] = i + 1 < n ? ',' : ']';
    }
    assert_int_equal(pdr_doc_parse(&doc, text, len, NULL), PDR_OK);
    assert_int_equal(doc.nodes[PDR_DOC_ROOT].length, n);
    size_t seen = 0;
    for (uint32_t i = pdr_doc_first(&doc, PDR_DOC_ROOT); i; i = pdr_doc_next(&doc, i)) seen++;
    assert_int_equal(seen, n);
    pdr_doc_free(&doc);
    free(text);
}

static void similar_names(void **state)
{
    (void)state;
    static const char *const known[] = {"max_endpoints", "max_targets", "hold", NULL};
    assert_string_equal(pdr_similar("max_endpoint", known), "max_endpoints");
    assert_string_equal(pdr_similar("MaxEndpoints", known), "max_endpoints");
    assert_string_equal(pdr_similar("max_tragets", known), "max_targets");
    assert_string_equal(pdr_similar("hodl", known), "hold");
    assert_null(pdr_similar("zzz", known));
    assert_null(pdr_similar("", known));
    char longer[200];
    memset(longer, 'x', 199);
    longer[199] = 0;
    assert_null(pdr_similar(longer, known));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammar),    cmocka_unit_test(depth_is_bounded), cmocka_unit_test(values_and_positions),
        cmocka_unit_test(many_nodes), cmocka_unit_test(similar_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
