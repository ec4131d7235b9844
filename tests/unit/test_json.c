/* lib/json.c and json_scan.h: RFC 8259 to the letter, and every path the same. */
#include "scan_paths.h"

#include <cJSON.h>

/* ---------------------------------------------------------------------------------------------- every production of
 * the grammar */

static const char *const valid_values[] = {
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "12",
    "120",
    "0.0",
    "-0.5",
    "1.25",
    "1e1",
    "1E1",
    "1e+1",
    "1e-1",
    "1E+05",
    "0e0",
    "0.1e-7",
    "123456789012345678901234567890",
    "1e400",
    "-1.0E-400",
    "\"\"",
    "\" \"",
    "\"a\"",
    "\"\\\"\"",
    "\"\\\\\"",
    "\"\\/\"",
    "\"\\b\\f\\n\\r\\t\"",
    "\"\\u0000\"",
    "\"\\u001f\"",
    "\"\\uABCD\\uabcd\"",
    "\"\\ud7ff\"",
    "\"\\ue000\"",
    "\"\\uffff\"",
    "\"\\ud800\\udc00\"",
    "\"\\uDBFF\\uDFFF\"",
    "\"\\ud83d\\ude00x\\ud83d\\ude01\"",
    "\"\\\\u\"",
    "\"\\\\ud800\"",
    "\"\x7f\"",
    "\"\xc2\x80\"",
    "\"\xdf\xbf\"",
    "\"\xe0\xa0\x80\"",
    "\"\xed\x9f\xbf\"",
    "\"\xee\x80\x80\"",
    "\"\xef\xbf\xbf\"",
    "\"\xf0\x90\x80\x80\"",
    "\"\xf4\x8f\xbf\xbf\"",
    "\"\xef\xbb\xbf\"",
    "\"\xe2\x80\xa8\"",
    "[]",
    "[ ]",
    "[\t\n\r ]",
    "[1]",
    "[1,2]",
    "[ 1 , 2 ]",
    "[[]]",
    "[[],[[]]]",
    "[{}]",
    "{}",
    "{ }",
    "{\"\":0}",
    "{\"a\":{\"b\":[]}}",
    "{\"a\":1,\"a\":2}",
    "{ \"a\" : 1 , \"b\" : 2 }",
    "[true,false,null]",
    "[\"a\",\"b\"]",
    "[-1,-0.5e3,0]",
};

static const struct {
    const char *value;
    unsigned offset;
    const char *says;
} invalid_values[] = {
    {"", 5, "a value"},
    {",", 5, "a value"},
    {"nul", 5, "a value"},
    {"nulL", 5, "a value"},
    {"True", 5, "a value"},
    {"tru", 5, "a value"},
    {"fals", 5, "a value"},
    {"undefined", 5, "a value"},
    {"NaN", 5, "NaN"},
    {"Infinity", 5, "Infinity"},
    {"-Infinity", 5, "Infinity"},
    {"-NaN", 6, "a digit"},
    {"+1", 5, "a value"},
    {".5", 5, "a value"},
    {"1.", 7, "decimal point"},
    {"1.e1", 7, "decimal point"},
    {"-", 6, "a digit"},
    {"--1", 6, "a digit"},
    {"01", 5, "begin with 0"},
    {"-01", 6, "begin with 0"},
    {"00", 5, "begin with 0"},
    {"1e", 7, "exponent"},
    {"1e+", 8, "exponent"},
    {"1e1.5", 8, "',' or '}'"},
    {"0x10", 6, "',' or '}'"},
    {"1 2", 7, "',' or '}'"},
    {"1_000", 6, "',' or '}'"},
    {"'a'", 5, "double quotes"},
    {"\"a", 5, "no closing quote"},
    {"\"\\\"", 5, "no closing quote"},
    {"\"\n\"", 6, "control character 0x0a"},
    {"\"\t\"", 6, "control character 0x09"},
    {"\"\x01\"", 6, "control character 0x01"},
    {"\"\x1f\"", 6, "control character 0x1f"},
    {"\"\\a\"", 6, "backslash"},
    {"\"\\x41\"", 6, "backslash"},
    {"\"\\'\"", 6, "backslash"},
    {"\"\\U0041\"", 6, "backslash"},
    {"\"\\\n\"", 6, "backslash"},
    {"\"\\u\"", 6, "four hexadecimal"},
    {"\"\\u12\"", 6, "four hexadecimal"},
    {"\"\\u123\"", 6, "four hexadecimal"},
    {"\"\\u123g\"", 6, "four hexadecimal"},
    {"\"\\u-123\"", 6, "four hexadecimal"},
    {"\"\\ud800\"", 6, "without a low one"},
    {"\"\\udbff\"", 6, "without a low one"},
    {"\"\\ud800x\"", 6, "without a low one"},
    {"\"\\ud800\\n\"", 6, "without a low one"},
    {"\"\\ud800\\u0041\"", 6, "without a low one"},
    {"\"\\ud800\\ud800\"", 6, "without a low one"},
    {"\"\\udc00\"", 6, "without a high one"},
    {"\"\\udc00\\ud800\"", 6, "without a high one"},
    {"\"\\ud800\\udc00\\udc00\"", 18, "without a high one"},
    {"\"\\ud800\\\\udc00\"", 6, "without a low one"},
    {"\"\\ud800\\ndc00\"", 6, "without a low one"},
    {"\"\\ud800xudc00\"", 6, "without a low one"},
    {"\"\\ud800\\ue000\"", 6, "without a low one"},
    {"\"\x80\"", 6, "continuation byte"},
    {"\"\xbf\"", 6, "continuation byte"},
    {"\"\xc0\x80\"", 6, "overlong"},
    {"\"\xc1\xbf\"", 6, "overlong"},
    {"\"\xc2\"", 6, "cut short"},
    {"\"\xc2x\"", 6, "cut short"},
    {"\"\xe0\x80\x80\"", 6, "overlong"},
    {"\"\xe0\x9f\xbf\"", 6, "overlong"},
    {"\"\xe1\x80\"", 6, "cut short"},
    {"\"\xe1\"", 6, "cut short"},
    {"\"\xed\xa0\x80\"", 6, "surrogate"},
    {"\"\xed\xbf\xbf\"", 6, "surrogate"},
    {"\"\xf0\x80\x80\x80\"", 6, "overlong"},
    {"\"\xf0\x8f\xbf\xbf\"", 6, "overlong"},
    {"\"\xf0\x90\x80\"", 6, "cut short"},
    {"\"\xf4\x90\x80\x80\"", 6, "above U+10FFFF"},
    {"\"\xf5\x80\x80\x80\"", 6, "never occurs"},
    {"\"\xff\"", 6, "never occurs"},
    {"\"\xfe\"", 6, "never occurs"},
    {"\"\xc2\x80\x80\"", 8, "continuation byte"},
    {"\xc3\xa9", 5, "a value"},
    {"[", 6, "a value"},
    {"[1", 7, "',' or ']'"},
    {"[1,", 8, "a value"},
    {"[1,]", 8, "a value"},
    {"[,1]", 6, "a value"},
    {"[1,,2]", 8, "a value"},
    {"[1 2]", 8, "',' or ']'"},
    {"[1}", 7, "',' or ']'"},
    {"[1:2]", 7, "',' or ']'"},
    {"{", 7, "the end of the body"},
    {"{\"b\"}", 9, "':'"},
    {"{\"b\":}", 10, "a value"},
    {"{\"b\":1,}", 12, "name in quotes"},
    {"{,}", 6, "name in quotes"},
    {"{b:1}", 6, "name in quotes"},
    {"{'b':1}", 6, "name in quotes"},
    {"{1:2}", 6, "name in quotes"},
    {"{\"b\":1]", 11, "',' or '}'"},
    {"{\"b\":1 \"c\":2}", 12, "',' or '}'"},
    {"{\"b\" 1}", 10, "':'"},
    {"/**/1", 5, "comments"},
    {"1//", 6, "',' or '}'"},
    {"]", 5, "a value"},
    {"1}{", 7, "after the JSON object"},
};

static void grammar(void **state)
{
    char body[256];
    scanned s;
    (void)state;
    for (size_t i = 0; i < sizeof valid_values / sizeof *valid_values; i++)
        for (unsigned shift = 0; shift < 70; shift++) { /* every place in a block */
            int n = snprintf(body, sizeof body, "{%*s\"a\":%s,\"b\":[%s]}", (int)shift, "", valid_values[i],
                             valid_values[i]);
            if (scan_everywhere(body, (size_t)n, PDR_API_OTHER, NULL, shift % 5, &s))
                fail_msg("refused: %s: %s", body, s.err.message);
        }
    for (size_t i = 0; i < sizeof invalid_values / sizeof *invalid_values; i++)
        for (unsigned shift = 0; shift < 70; shift++) {
            int n = snprintf(body, sizeof body, "{%*s\"a\":%s}", (int)shift, "", invalid_values[i].value);
            int code = scan_everywhere(body, (size_t)n, PDR_API_OTHER, NULL, shift % 5, &s);
            if (code != PDR_E_PARSE || s.err.line != 1 || !strstr(s.err.message, invalid_values[i].says) ||
                s.err.offset != invalid_values[i].offset + shift)
                fail_msg("%s: %d, offset %u, not %u: %s", body, code, (unsigned)s.err.offset,
                         invalid_values[i].offset + shift, s.err.message);
        }
}

static void documents(void **state)
{
    static const struct {
        const char *body;
        size_t len;
        uint64_t offset;
        uint32_t line;
        const char *says;
    } rows[] = {
#define ROW(text, ...) {text, sizeof text - 1, __VA_ARGS__}
        ROW("", 0, 1, "empty"),
        ROW(" \n\t", 3, 2, "empty"),
        ROW("null", 0, 1, "'{'"),
        ROW("[]", 0, 1, "'{'"),
        ROW("1", 0, 1, "'{'"),
        ROW("\"{}\"", 0, 1, "'{'"),
        ROW("\xEF\xBB\xBF{}", 0, 1, "byte order mark"),
        ROW("\xFF\xFE{\0}\0", 0, 1, "not UTF-8"),
        ROW("{\0}\0", 0, 1, "not UTF-8"),
        ROW("\0{", 0, 1, "not UTF-8"),
        ROW("{}x", 2, 1, "after the JSON object"),
        ROW("{}{}", 2, 1, "after the JSON object"),
        ROW("{},", 2, 1, "after the JSON object"),
        ROW("{}\n\n}", 4, 3, "after the JSON object"),
        ROW("{} \0", 3, 1, "after the JSON object"),
        ROW("{\n\"a\":1,\r\n\"b\":tru}", 14, 3, "a value"),
        ROW("\n\n{", 3, 3, "the end of the body"),
        ROW("{\"a\":1,\v\"b\":2}", 7, 1, "byte 0x0b"),
        ROW("{\"a\":1}\xA0", 7, 1, "byte 0xa0"),
        ROW("{\"a\":\0001}", 5, 1, "byte 0x00"),
        ROW("}", 0, 1, "'{'"),
        ROW("{]}", 1, 1, "name in quotes"),
        ROW("{\"a\"\n:\n\"b\nc\"}", 9, 3, "control character"),
#undef ROW
    };
    scanned s;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(scan_everywhere(rows[i].body, rows[i].len, PDR_API_OTHER, NULL, 0, &s), PDR_E_PARSE);
        if (s.err.offset != rows[i].offset || s.err.line != rows[i].line || !strstr(s.err.message, rows[i].says))
            fail_msg("row %zu: offset %u line %u: %s", i, (unsigned)s.err.offset, s.err.line, s.err.message);
    }
    assert_int_equal(scan_everywhere(" \r\n\t{ } \r\n\t", 11, PDR_API_OTHER, NULL, 0, &s), PDR_OK);
    assert_int_equal(s.prompt.object.begin, 4);
    assert_int_equal(s.prompt.object.end, 7);
}

static void depth(void **state)
{
    static const char *const shapes[][2] = {{"[", "]"}, {"{\"x\":", "}"}};
    pdr_limits limits;
    scanned s;
    (void)state;
    pdr_init_struct(&limits, sizeof limits);
    for (uint32_t max = 1; max <= 1024; max = max < 130 ? max + 43 : max * 2 > 1024 && max < 1024 ? 1024 : max * 2)
        for (int shape = 0; shape < 2; shape++)
            for (uint32_t extra = 0; extra < 2; extra++) {
                char *body = malloc(16 + 6 * (max + 2)), *p = body;
                size_t len;
                limits.max_depth = max;
                p += sprintf(p, "{\"a\":");
                for (uint32_t i = 1; i < max + extra; i++) p += sprintf(p, "%s", shapes[shape][0]);
                p += sprintf(p, "1");
                for (uint32_t i = 1; i < max + extra; i++) p += sprintf(p, "%s", shapes[shape][1]);
                len = (size_t)(p + sprintf(p, "}") - body);
                assert_int_equal(scan_everywhere(body, len, PDR_API_OTHER, &limits, 0, &s),
                                 extra ? PDR_E_TOO_DEEP : PDR_OK);
                if (extra) assert_int_equal(s.err.offset, 5 + (max - 1) * strlen(shapes[shape][0]));
                free(body);
            }
    limits.max_depth = 1025;
    scan_path(PDR_PATH_PORTABLE, "{}", 2, PDR_API_OTHER, &limits, &s);
    assert_int_equal(s.code, PDR_E_INVALID);
}

/* ------------------------------------------------------------------------------------------------------------- damaged
 * documents */

static const char *const samples[] = {
    "{\"model\":\"/models/Qwen3-32B\",\"messages\":[{\"role\":\"user\",\"content\":\"\xe4\xbd\xa0\xe5\xa5\xbd, "
    "\\u8fd9\\u662f\\n a \\\"test\\\" \\\\ "
    "\xf0\x9f\x98\x80 \\ud83d\\ude00\"}],\"max_tokens\":50,\"stream\":true}",
    "{ \"text\" : [ \"one\" , \"two \\t\" ] , \"sampling_params\" : { \"n\" : 1 , \"max_new_tokens\" : 16 , "
    "\"temperature\" : 0.7 } , \"bootstrap_room\" : 17 }",
    "{\"input_ids\":[1, 20, 300, 4000, 50000, 151935, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, "
    "23],\"bootstrap_host\":[\"a\"]}",
    "{\"messages\":[{\"role\":\"system\",\"content\":\"be "
    "brief\"},{\"content\":[{\"type\":\"text\",\"text\":\"what\"},{\"type\":\"image_url\",\"image_url\":"
    "{\"url\":\"data:image/"
    "png;base64,AAAA\"}}],\"role\":\"user\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c1\","
    "\"function\":"
    "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"42\"}"
    "],\"tools\":[{\"type\":\"function\","
    "\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}}}}}]"
    ",\"user\":\"u1\"}",
    "{\"prompt\":[[1,2,3],[4,5]],\"model\":\"m\",\"n\":1,\"logprobs\":null,\"seed\":123456789012345678901234567890,"
    "\"x\":-1.5e-7,\"decode_tp_size\":2}",
};
static const uint32_t apis[] = {PDR_API_CHAT, PDR_API_GENERATE, PDR_API_GENERATE, PDR_API_CHAT, PDR_API_COMPLETIONS};

static void truncated_everywhere(void **state)
{
    scanned s;
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        size_t len = strlen(samples[i]);
        assert_int_equal(scan_everywhere(samples[i], len, apis[i], NULL, 0, &s), PDR_OK);
        for (size_t cut = 0; cut < len; cut++) {
            assert_int_equal(scan_everywhere(samples[i], cut, apis[i], NULL, 0, &s), PDR_E_PARSE);
            assert_true(s.err.offset <= cut && s.err.message[0]);
        }
    }
}

/* What is said of a body that ends in the middle, to the last byte of it. */
static void ends_have_their_sentences(void **state)
{
    static const struct { const char *body, *message; } cases[] = {
        {"\xEF\xBB\xBF", "the body begins with a byte order mark, which JSON does not allow"},
        {"\xFF\xFE", "the body is not UTF-8 text"}, {"\xFE\xFF", "the body is not UTF-8 text"},
        {"{", "the end of the body is found where a member's name in quotes or '}' was expected"},
        {"{\x7F", "byte 0x7f is found where a member's name in quotes or '}' was expected"},
        {"{~", "'~' is found where a member's name in quotes or '}' was expected"},
        {"{\"a\":1,", "the end of the body is found where a member's name in quotes was expected"},
        {"{\"a\"", "the end of the body is found where ':' after the member's name was expected"},
        {"{\"a\":", "the end of the body is found where a value was expected"},
        {"{\"a\"::", "':' is found where a value was expected"},
        {"{\"a\":true", "the end of the body is found where ',' or '}' in an object was expected"},
        {"{\"a\":false", "the end of the body is found where ',' or '}' in an object was expected"},
        {"{\"a\":[null", "the end of the body is found where ',' or ']' in an array was expected"},
        {"{\"a\":tru", "'t' is found where a value was expected"},
        {"{\"a\":NaN", "NaN is not a JSON number"}, {"{\"a\":Infinity", "Infinity is not a JSON number"}, {"{\"a\":-Infinity", "Infinity is not a JSON number"},
        {"{\"a\":Na", "'N' is found where a value was expected"}, {"{\"a\":Infinit", "'I' is found where a value was expected"},
        {"{\"a\":-", "the end of the body is found where a digit was expected"},
        {"{\"a\":1", "the end of the body is found where ',' or '}' in an object was expected"},
        {"{\"a\":1.", "the end of the body is found where a digit after the decimal point was expected"},
        {"{\"a\":1e", "the end of the body is found where a digit in the exponent was expected"},
        {"{\"a\":1e+", "the end of the body is found where a digit in the exponent was expected"},
        {"{\"a\":\"\\", "the string that begins here has no closing quote"},
        {"{\"a\":\"\\q", "a backslash must be followed by one of \" \\ / b f n r t u"},
        {"{\"a\":\"\\u00e", "an escape \\u needs four hexadecimal digits"},
        {"{\"a\":\"\\u00e9", "the string that begins here has no closing quote"},
        {"{\"a\":\"\\ud800\\udc00", "the string that begins here has no closing quote"},
        {"{\"a\":\"\\ud800\\udc0", "high surrogate escape \\ud800 without a low one after it"},
        {"{\"a\":\"\\ud800\\ue000\"}", "high surrogate escape \\ud800 without a low one after it"},
        {"{\"a\":\"\xE2\x82", "invalid UTF-8: the sequence beginning with 0xe2 is cut short"},
        {"{\"a\":\"\xC3", "invalid UTF-8: the sequence beginning with 0xc3 is cut short"},
        {"{\"a\":[],}", "'}' is found where a member's name in quotes was expected"},
        {"{\"a\":[[],]}", "']' is found where a value was expected"},
    };
    scanned s;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(scan_everywhere(cases[i].body, strlen(cases[i].body), PDR_API_OTHER, NULL, 0, &s), PDR_E_PARSE);
        assert_string_equal(s.err.message, cases[i].message);
    }
}

static void every_byte_changed(void **state)
{
    scanned s;
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        char body[1024];
        size_t len = strlen(samples[i]);
        memcpy(body, samples[i], len);
        for (size_t at = 0; at < len; at++)
            for (unsigned c = 0; c < 256; c += at % 7 ? 5 : 1) {
                body[at] = (char)c;
                scan_everywhere(body, len, PDR_API_OTHER, NULL, 0, &s);
                scan_everywhere(body, len, apis[i], NULL, 0, &s);
                body[at] = samples[i][at];
            }
    }
}

/* A random document from pieces that are nearly always right, so that damage is found deep inside. */
static size_t random_value(char *out, uint64_t *seed, int level)
{
    static const char *const pieces[] = {"\\n",
                                         "\\\"",
                                         "\\\\",
                                         "\\u4f60",
                                         "\\ud83d\\ude00",
                                         "\xe4\xbd\xa0",
                                         "\xf0\x9f\x98\x80",
                                         "\xc3\xa9",
                                         "plain words ",
                                         "x",
                                         "\\/",
                                         "\\\\\\\\",
                                         "\\u00e9",
                                         "\\uD7A3",
                                         ", [1,2",
                                         "}{\\\"",
                                         "abcdefghijklmnopqrstuvwxyz0123456789"};
    const uint32_t kind = test_random(seed) % (level > 4 ? 4 : 6);
    size_t n = 0, count = test_random(seed) % (test_random(seed) % 8 ? 6 : 40);
    switch (kind) {
    case 0:
    case 1:
        out[n++] = '"';
        for (size_t i = 0; i < count; i++)
            n += (size_t)sprintf(out + n, "%s", pieces[test_random(seed) % (sizeof pieces / sizeof *pieces)]);
        out[n++] = '"';
        return n;
    case 2:
        return (size_t)sprintf(out, "%s", valid_values[test_random(seed) % 22]);
    case 3:
        n = (size_t)sprintf(out, "[");
        for (size_t i = 0; i < count; i++)
            n += (size_t)sprintf(out + n, "%s%u",
                                 !i                      ? ""
                                 : test_random(seed) % 9 ? ","
                                                         : " ,\n ",
                                 test_random(seed) >> test_random(seed) % 32);
        out[n++] = ']';
        return n;
    default:
        out[n++] = kind == 4 ? '[' : '{';
        for (size_t i = 0; i < count % 5; i++) {
            if (i) out[n++] = ',';
            if (test_random(seed) % 3 == 0) out[n++] = " \n\r\t"[test_random(seed) % 4];
            if (kind == 5) n += (size_t)sprintf(out + n, "\"k%u\" : ", test_random(seed) % 100);
            n += random_value(out + n, seed, level + 1);
        }
        out[n++] = kind == 4 ? ']' : '}';
        return n;
    }
}

static size_t random_document(char *out, uint64_t *seed)
{
    static const char *const names[] = {"model",     "messages",       "text", "prompt",
                                        "input_ids", "bootstrap_room", "x",    "boot\\u0073trap_port",
                                        "tools",     "input",          "user", "n"};
    size_t n = 1, count = 1 + test_random(seed) % 5;
    out[0] = '{';
    for (size_t i = 0; i < count; i++) {
        n += (size_t)sprintf(out + n, "%s\"%s\":", i ? "," : "",
                             names[test_random(seed) % (sizeof names / sizeof *names)]);
        n += random_value(out + n, seed, 0);
    }
    out[n++] = '}';
    return n;
}

static void random_documents_damaged(void **state)
{
    char *body = malloc(1 << 20), *bad = malloc(1 << 20);
    uint64_t seed = 12345;
    scanned s;
    unsigned accepted = 0, refused = 0;
    (void)state;
    for (int round = 0; round < 1500; round++) {
        size_t len = random_document(body, &seed);
        unsigned shift = test_random(&seed) % 64;
        cJSON *tree;
        assert_int_equal(scan_everywhere(body, len, PDR_API_OTHER, NULL, shift, &s), PDR_OK);
        tree = cJSON_ParseWithLength(body, len);
        assert_non_null(tree);
        cJSON_Delete(tree);
        for (uint32_t api = PDR_API_GENERATE; api <= PDR_API_COMPLETIONS; api++)
            scan_everywhere(body, len, api, NULL, shift, &s);
        for (int damage = 0; damage < 12; damage++) {
            size_t n = len, at = test_random(&seed) % len;
            memcpy(bad, body, len);
            switch (damage % 4) {
            case 0:
                bad[at] = (char)test_random(&seed);
                break;
            case 1:
                bad[at] = "\"\\{}[],:0u\n\x80\xe4 "[test_random(&seed) % 14];
                break;
            case 2:
                memmove(bad + at, bad + at + 1, --n - at);
                break;
            default:
                memmove(bad + at + 1, bad + at, n++ - at);
                break;
            }
            if (scan_everywhere(bad, n, PDR_API_OTHER, NULL, shift, &s) == PDR_OK) {
                tree = cJSON_ParseWithLength(bad, n);
                if (!tree) fail_msg("cJSON refuses what we take: %.*s", (int)n, bad);
                cJSON_Delete(tree);
                accepted++;
            } else {
                refused++;
            }
        }
    }
    assert_true(accepted > 1000 && refused > 1000);
    free(body);
    free(bad);
}

/* Runs of backslashes, escapes, surrogates and UTF-8 across block borders at every place. */
static void borders(void **state)
{
    static const char *const pieces[] = {
        "\\\\",    "\\\"",  "\\u4f60", "\\ud83d\\ude00", "\xe4\xbd\xa0", "\xf0\x9f\x98\x80", "\\ud83d",
        "\\udc00", "\\u12", "\\x",     "\x01",           "\xe4\xbd",     "\xf0\x9f\x98",     "\x80",
        "\\",      "\""};
    char body[512];
    scanned s;
    (void)state;
    for (size_t a = 0; a < sizeof pieces / sizeof *pieces; a++)
        for (size_t b = 0; b < sizeof pieces / sizeof *pieces; b++)
            for (unsigned lead = 40; lead < 140; lead++) {
                int n = sprintf(body, "{\"messages\":[{\"role\":\"u\",\"content\":\"");
                memset(body + n, 'x', lead);
                n += (int)lead;
                n += sprintf(body + n, "%s%syy\"}]}", pieces[a], pieces[b]);
                scan_everywhere(body, (size_t)n, PDR_API_CHAT, NULL, lead % 3, &s);
            }
    for (unsigned run = 1; run < 200; run++)
        for (unsigned lead = 0; lead < 3; lead++) {
            int n = sprintf(body, "{\"a\":\"%.*s", (int)lead, "xxx");
            memset(body + n, '\\', run);
            n += (int)run;
            n += sprintf(body + n, "\"}");
            assert_int_equal(scan_everywhere(body, (size_t)n, PDR_API_OTHER, NULL, lead, &s),
                             run % 2 ? PDR_E_PARSE : PDR_OK);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammar),
        cmocka_unit_test(documents),
        cmocka_unit_test(depth),
        cmocka_unit_test(truncated_everywhere),
        cmocka_unit_test(ends_have_their_sentences),
        cmocka_unit_test(every_byte_changed),
        cmocka_unit_test(random_documents_damaged),
        cmocka_unit_test(borders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
