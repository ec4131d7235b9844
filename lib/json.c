#include "json.h"

#include <string.h>

typedef struct reader {
    const uint8_t *body, *end, *p;
    pdr_error *err;
    uint32_t depth, max_depth;
    uint64_t objects[PDR_JSON_DEPTH / 64]; /* bit d: the container at depth d + 1 is an object */
} reader;

uint32_t pdr_json_line(const char *body, size_t len, uint64_t offset)
{
    uint32_t line = 1;
    const char *p = body, *end = body + (offset < len ? offset : len);
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
        line++;
        p++;
    }
    return line;
}

#define FAIL_AT(r, where, code, ...)                                                                                   \
    pdr_fail_at(                                                                                                       \
        (r)->err, code, (uint64_t)((where) - (r)->body),                                                               \
        pdr_json_line((const char *)(r)->body, (size_t)((r)->end - (r)->body), (uint64_t)((where) - (r)->body)),       \
        __VA_ARGS__)
#define BAD_AT(r, where, ...) FAIL_AT(r, where, PDR_E_PARSE, __VA_ARGS__)

static int in_object(const reader *r)
{
    return (int)(r->objects[(r->depth - 1) / 64] >> (r->depth - 1) % 64 & 1);
}

static void skip_spaces(reader *r)
{
    while (r->p < r->end && pdr_json_space(*r->p)) r->p++;
}

/* Names what stands at p, for sentences like "X found where Y was expected". */
static const char *found(const reader *r, char text[32])
{
    static const char hex[] = "0123456789abcdef";
    unsigned c;
    if (r->p >= r->end) return "the end of the body is";
    c = *r->p;
    if (c > 0x20 && c < 0x7F) {
        memcpy(text, "'x' is", 7);
        text[1] = (char)c;
    } else {
        memcpy(text, "byte 0x00 is", 13);
        text[7] = hex[c >> 4];
        text[8] = hex[c & 15];
    }
    return text;
}

static int bad_token(reader *r, const char *wanted)
{
    char text[32];
    const char *what = found(r, text);
    return BAD_AT(r, r->p, "%s found where %s was expected", what, wanted);
}

/* One character outside ASCII at p. */
static int check_utf8(reader *r)
{
    const uint8_t *p = r->p;
    unsigned c = *p, need = c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3, second;
    if (c < 0xC0) return BAD_AT(r, p, "invalid UTF-8: continuation byte 0x%02x without a leading byte", c);
    if (c < 0xC2) return BAD_AT(r, p, "invalid UTF-8: overlong sequence beginning with 0x%02x", c);
    if (c > 0xF4) return BAD_AT(r, p, "invalid UTF-8: byte 0x%02x never occurs in UTF-8", c);
    for (unsigned i = 1; i <= need; i++)
        if (p + i >= r->end || (p[i] & 0xC0) != 0x80)
            return BAD_AT(r, p, "invalid UTF-8: the sequence beginning with 0x%02x is cut short", c);
    second = p[1];
    if ((c == 0xE0 && second < 0xA0) || (c == 0xF0 && second < 0x90))
        return BAD_AT(r, p, "invalid UTF-8: overlong sequence beginning with 0x%02x", c);
    if (c == 0xED && second > 0x9F) return BAD_AT(r, p, "invalid UTF-8: surrogate code points cannot be encoded");
    if (c == 0xF4 && second > 0x8F) return BAD_AT(r, p, "invalid UTF-8: code point above U+10FFFF");
    r->p += need + 1;
    return PDR_OK;
}

/* \uXXXX, or a pair of them, at p (the backslash). */
static int check_unicode_escape(reader *r)
{
    const uint8_t *p = r->p;
    unsigned unit = r->end - p < 6 ? 0x10000 : pdr_json_hex4(p + 2), low;
    if (unit > 0xFFFF) return BAD_AT(r, p, "an escape \\u needs four hexadecimal digits");
    r->p += 6;
    if (unit - 0xDC00 < 0x400) return BAD_AT(r, p, "low surrogate escape \\u%04x without a high one before it", unit);
    if (unit - 0xD800 >= 0x400) return PDR_OK;
    low = r->end - p < 12 || p[6] != '\\' || p[7] != 'u' ? 0x10000 : pdr_json_hex4(p + 8);
    if (low - 0xDC00 >= 0x400) return BAD_AT(r, p, "high surrogate escape \\u%04x without a low one after it", unit);
    r->p += 6;
    return PDR_OK;
}

/* A string from its opening quote on. */
static int check_string(reader *r)
{
    const uint8_t *begin = r->p++;
    int code;
    while (r->p < r->end) {
        unsigned c = *r->p;
        if (c == '"') {
            r->p++;
            return PDR_OK;
        }
        if (c < 0x20)
            return BAD_AT(r, r->p, "control character 0x%02x in a string; it must be written as an escape", c);
        if (c == '\\') {
            if (r->p + 1 >= r->end) break;
            if (r->p[1] == 'u') {
                if ((code = check_unicode_escape(r))) return code;
            } else if (r->p[1] && strchr("\"\\/bfnrt", r->p[1])) {
                r->p += 2;
            } else {
                return BAD_AT(r, r->p, "a backslash must be followed by one of \" \\ / b f n r t u");
            }
        } else if (c < 0x80) {
            r->p++;
        } else if ((code = check_utf8(r))) {
            return code;
        }
    }
    return BAD_AT(r, begin, "the string that begins here has no closing quote");
}

static unsigned digits(reader *r)
{
    const uint8_t *begin = r->p;
    while (r->p < r->end && (unsigned)*r->p - '0' <= 9) r->p++;
    return r->p > begin;
}

static int check_number(reader *r)
{
    const uint8_t *begin = r->p;
    if (*r->p == '-') r->p++;
    if (r->end - r->p >= 8 && !memcmp(r->p, "Infinity", 8)) return BAD_AT(r, begin, "Infinity is not a JSON number");
    begin = r->p;
    if (!digits(r)) return bad_token(r, "a digit");
    if (*begin == '0' && r->p - begin > 1) return BAD_AT(r, begin, "a number cannot begin with 0 and another digit");
    if (r->p < r->end && *r->p == '.') {
        r->p++;
        if (!digits(r)) return bad_token(r, "a digit after the decimal point");
    }
    if (r->p < r->end && (*r->p | 0x20) == 'e') {
        r->p++;
        if (r->p < r->end && (*r->p == '+' || *r->p == '-')) r->p++;
        if (!digits(r)) return bad_token(r, "a digit in the exponent");
    }
    return PDR_OK;
}

static int check_word(reader *r)
{
    static const char words[3][6] = {"true", "false", "null"};
    size_t left = (size_t)(r->end - r->p);
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (left >= n && !memcmp(r->p, words[i], n)) {
            r->p += n;
            return PDR_OK;
        }
    }
    if ((left >= 3 && !memcmp(r->p, "NaN", 3)) || (left >= 8 && !memcmp(r->p, "Infinity", 8)))
        return BAD_AT(r, r->p, "%s is not a JSON number", *r->p == 'N' ? "NaN" : "Infinity");
    if (left && *r->p == '\'') return BAD_AT(r, r->p, "strings are written in double quotes, not in single quotes");
    if (left && *r->p == '/') return BAD_AT(r, r->p, "comments are not part of JSON");
    return bad_token(r, "a value");
}

/* Opens a container at p. */
static int open_container(reader *r)
{
    uint64_t bit;
    if (r->depth == r->max_depth) return FAIL_AT(r, r->p, PDR_E_TOO_DEEP, "nested deeper than %u levels", r->max_depth);
    bit = 1ull << r->depth % 64;
    if (*r->p == '{')
        r->objects[r->depth / 64] |= bit;
    else
        r->objects[r->depth / 64] &= ~bit;
    r->depth++;
    r->p++;
    return PDR_OK;
}

static int check_key(reader *r, const char *wanted)
{
    int code;
    if (r->p >= r->end || *r->p != '"') return bad_token(r, wanted);
    if ((code = check_string(r))) return code;
    skip_spaces(r);
    if (r->p >= r->end || *r->p != ':') return bad_token(r, "':' after the member's name");
    r->p++;
    skip_spaces(r);
    return PDR_OK;
}

/* One scalar value, or the opening of a container: then *opened is set. */
static int check_value(reader *r, int *opened)
{
    unsigned c = r->p < r->end ? *r->p : 0;
    *opened = c == '{' || c == '[';
    if (*opened) return open_container(r);
    if (c == '"') return check_string(r);
    if (c == '-' || c - '0' <= 9) return check_number(r);
    return check_word(r);
}

/* Behind a value: closes containers, up to the next comma or the end of the outermost one. */
static int close_or_continue(reader *r, int *first)
{
    *first = 0;
    while (r->depth) {
        int object = in_object(r);
        skip_spaces(r);
        if (r->p < r->end && *r->p == ',') {
            r->p++;
            skip_spaces(r);
            return PDR_OK;
        }
        if (r->p >= r->end || *r->p != (object ? '}' : ']'))
            return bad_token(r, object ? "',' or '}' in an object" : "',' or ']' in an array");
        r->p++;
        r->depth--;
    }
    return PDR_OK;
}

/* Everything from the outermost '{' to its '}'. */
static int check_object(reader *r)
{
    int first = 1, opened, code;
    if ((code = open_container(r))) return code;
    while (r->depth) {
        int object = in_object(r);
        skip_spaces(r);
        if (first && r->p < r->end && *r->p == (object ? '}' : ']')) {
            r->p++;
            r->depth--;
            if ((code = close_or_continue(r, &first))) return code;
            continue;
        }
        if (object && (code = check_key(r, first ? "a member's name in quotes or '}'" : "a member's name in quotes")))
            return code;
        if ((code = check_value(r, &opened))) return code;
        first = opened;
        if (!opened && (code = close_or_continue(r, &first))) return code;
    }
    return PDR_OK;
}

int pdr_json_check(const char *body, size_t len, uint32_t max_depth, pdr_error *err)
{
    reader r;
    int code;
    r.body = r.p = (const uint8_t *)body;
    r.end = r.body + len;
    r.err = err;
    r.depth = 0;
    r.max_depth = max_depth < PDR_JSON_DEPTH ? max_depth : PDR_JSON_DEPTH;
    if (len >= 3 && !memcmp(body, "\xEF\xBB\xBF", 3))
        return BAD_AT(&r, r.p, "the body begins with a byte order mark, which JSON does not allow");
    if (len >= 2 && (!body[0] || !body[1] || !memcmp(body, "\xFF\xFE", 2) || !memcmp(body, "\xFE\xFF", 2)))
        return BAD_AT(&r, r.p, "the body is not UTF-8 text");
    skip_spaces(&r);
    if (r.p == r.end) return BAD_AT(&r, r.p, "the body is empty; a JSON object was expected");
    if (*r.p != '{') return bad_token(&r, "the '{' of a JSON object");
    if ((code = check_object(&r))) return code;
    skip_spaces(&r);
    if (r.p < r.end) return bad_token(&r, "the end of the body, after the JSON object,");
    return PDR_OK;
}
