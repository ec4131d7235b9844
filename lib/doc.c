#include "doc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
    pdr_doc    *doc;
    const char *p, *end;
    pdr_error  *err;
} parser;

static uint32_t line_of(const char *text, size_t offset)
{
    uint32_t line = 1;
    for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
    return line;
}

static int fail(const parser *s, const char *at, const char *what)
{
    size_t offset = (size_t)(at - s->doc->text);
    if (at == s->end) what = "the text ends too early";
    return pdr_fail_at(s->err, PDR_E_PARSE, offset, line_of(s->doc->text, offset), "not JSON: %s", what);
}

static void skip_space(parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

static int new_node(parser *s, uint32_t *node)
{
    pdr_doc *d = s->doc;
    if (d->count == d->capacity) {
        uint32_t      capacity = d->capacity ? d->capacity * 2 : 64;
        pdr_doc_node *grown = capacity > d->capacity ? realloc(d->nodes, capacity * sizeof *grown) : NULL;
        if (!grown) return pdr_fail(s->err, PDR_E_SYSTEM, "no memory for a document of %zu bytes", d->len);
        d->nodes = grown;
        d->capacity = capacity;
    }
    *node = d->count++;
    memset(&d->nodes[*node], 0, sizeof *d->nodes);
    return PDR_OK;
}

/* Length of the valid UTF-8 sequence at p (RFC 3629: no surrogates, nothing overlong), 0 if there is none. */
static size_t utf8_length(const unsigned char *p, size_t left)
{
    unsigned char least = 0x80, most = 0xBF;
    size_t        n;
    if (*p < 0x80) return 1;
    if (*p >= 0xC2 && *p <= 0xDF)
        n = 2;
    else if (*p >= 0xE0 && *p <= 0xEF)
        n = 3;
    else if (*p >= 0xF0 && *p <= 0xF4)
        n = 4;
    else
        return 0;
    if (*p == 0xE0) least = 0xA0;
    if (*p == 0xED) most = 0x9F;
    if (*p == 0xF0) least = 0x90;
    if (*p == 0xF4) most = 0x8F;
    if (left < n || p[1] < least || p[1] > most) return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xBF) return 0;
    return n;
}

static int hex4(const char *p, const char *end, uint32_t *value)
{
    *value = 0;
    if (end - p < 4) return 0;
    for (int i = 0; i < 4; i++) {
        uint32_t c = (unsigned char)p[i], digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            digit = (c | 0x20) - 'a' + 10;
        else
            return 0;
        *value = *value << 4 | digit;
    }
    return 1;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80)
        *out++ = (char)c;
    else if (c < 0x800) {
        *out++ = (char)(0xC0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        *out++ = (char)(0xE0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    } else {
        *out++ = (char)(0xF0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3F));
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
        *out++ = (char)(0x80 | (c & 0x3F));
    }
    return out;
}

/* Decodes the escape at s->p (the backslash); moves both. Never writes more bytes than it reads. */
static int read_escape(parser *s, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char       *start = s->p++, *which;
    uint32_t          c, low;
    if (s->p == s->end) return fail(s, s->p, "");
    if (*s->p != 'u') {
        which = *s->p ? strchr(from, *s->p) : NULL;
        if (!which) return fail(s, start, "unknown escape in a string");
        *(*out)++ = to[which - from];
        s->p++;
        return PDR_OK;
    }
    if (!hex4(++s->p, s->end, &c)) return fail(s, start, "\\u needs four hexadecimal digits");
    s->p += 4;
    if (c >= 0xD800 && c <= 0xDFFF) {
        if (c > 0xDBFF || s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u' || !hex4(s->p + 2, s->end, &low) ||
            low < 0xDC00 || low > 0xDFFF)
            return fail(s, start, "half of a surrogate pair");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        s->p += 6;
    }
    *out = put_utf8(*out, c);
    return PDR_OK;
}

/* Reads the string at s->p (its quote) into the string space: *at where, *length without the NUL. */
static int read_string(parser *s, uint32_t *at, uint32_t *length)
{
    char *begin = s->doc->strings + s->doc->used, *out = begin;
    s->p++;
    for (;;) {
        const char *p = s->p;
        size_t      n;
        int         code;
        while (p < s->end && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80 && *p != '"' && *p != '\\')
            *out++ = *p++;
        s->p = p;
        if (s->p == s->end) return fail(s, s->p, "");
        if (*s->p == '"') break;
        if (*s->p == '\\') {
            if ((code = read_escape(s, &out))) return code;
            continue;
        }
        if ((unsigned char)*s->p < 0x20) return fail(s, s->p, "control character in a string");
        n = utf8_length((const unsigned char *)s->p, (size_t)(s->end - s->p));
        if (!n) return fail(s, s->p, "a string is not UTF-8");
        memcpy(out, s->p, n);
        out += n;
        s->p += n;
    }
    s->p++;
    *out = 0;
    *at = s->doc->used;
    *length = (uint32_t)(out - begin);
    s->doc->used += *length + 1;
    return PDR_OK;
}

static const char *skip_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

static int read_number(parser *s)
{
    const char *p = s->p, *q;
    if (*p == '-') p++;
    q = skip_digits(p, s->end);
    if (q == p) return fail(s, q, "a value is expected");
    if (*p == '0' && q > p + 1) return fail(s, p, "a number begins with 0");
    p = q;
    if (p < s->end && *p == '.') {
        q = skip_digits(++p, s->end);
        if (q == p) return fail(s, q, "digits are expected behind the point");
        p = q;
    }
    if (p < s->end && (*p | 0x20) == 'e') {
        if (++p < s->end && (*p == '+' || *p == '-')) p++;
        q = skip_digits(p, s->end);
        if (q == p) return fail(s, q, "digits are expected in the exponent");
        p = q;
    }
    s->p = p;
    return PDR_OK;
}

static int read_word(parser *s, const char *word)
{
    for (; *word; word++, s->p++)
        if (s->p == s->end || *s->p != *word) return fail(s, s->p, "a value is expected");
    return PDR_OK;
}

static int read_value(parser *s, uint32_t node, int depth);

/* Items or members up to the closing bracket; s->p is behind the opening one. */
static int read_items(parser *s, uint32_t node, int depth, int object)
{
    const char close = object ? '}' : ']';
    uint32_t   last = 0, key, key_length, item;
    int        code;
    skip_space(s);
    if (s->p < s->end && *s->p == close) {
        s->p++;
        return PDR_OK;
    }
    for (;;) {
        key = 0;
        skip_space(s);
        if (object) {
            if (s->p == s->end || *s->p != '"') return fail(s, s->p, "a member name in quotes is expected");
            if ((code = read_string(s, &key, &key_length))) return code;
            skip_space(s);
            if (s->p == s->end || *s->p != ':') return fail(s, s->p, "':' is expected");
            s->p++;
            skip_space(s);
        }
        if ((code = new_node(s, &item)) || (code = read_value(s, item, depth + 1))) return code;
        s->doc->nodes[item].key = key;
        if (last)
            s->doc->nodes[last].next = item;
        else
            s->doc->nodes[node].child = item;
        s->doc->nodes[node].length++;
        last = item;
        skip_space(s);
        if (s->p < s->end && *s->p == close) {
            s->p++;
            return PDR_OK;
        }
        if (s->p == s->end || *s->p != ',')
            return fail(s, s->p, object ? "',' or '}' is expected" : "',' or ']' is expected");
        s->p++;
    }
}

static int read_value(parser *s, uint32_t node, int depth)
{
    uint32_t type, string = 0, length = 0;
    size_t   begin = (size_t)(s->p - s->doc->text);
    int      code;
    if (s->p == s->end) return fail(s, s->p, "");
    if (depth > PDR_DOC_DEPTH)
        return pdr_fail_at(s->err, PDR_E_TOO_DEEP, begin, line_of(s->doc->text, begin),
                           "JSON is nested deeper than %d levels", PDR_DOC_DEPTH);
    switch (*s->p) {
    case '{':
    case '[':
        type = *s->p == '{' ? PDR_DOC_OBJECT : PDR_DOC_ARRAY;
        s->p++;
        code = read_items(s, node, depth, type == PDR_DOC_OBJECT);
        break;
    case '"':
        type = PDR_DOC_STRING;
        code = read_string(s, &string, &length);
        break;
    case 't':
        type = PDR_DOC_TRUE, code = read_word(s, "true");
        break;
    case 'f':
        type = PDR_DOC_FALSE, code = read_word(s, "false");
        break;
    case 'n':
        type = PDR_DOC_NULL, code = read_word(s, "null");
        break;
    default:
        type = PDR_DOC_NUMBER, code = read_number(s);
        break;
    }
    if (code) return code;
    s->doc->nodes[node].type = type;
    s->doc->nodes[node].begin = (uint32_t)begin;
    s->doc->nodes[node].end = (uint32_t)(s->p - s->doc->text);
    if (type == PDR_DOC_STRING) {
        s->doc->nodes[node].string = string;
        s->doc->nodes[node].length = length;
    }
    return PDR_OK;
}

int pdr_doc_parse(pdr_doc *doc, const char *text, size_t len, pdr_error *err)
{
    parser   s = {doc, text, text + len, err};
    uint32_t root;
    int      code;
    memset(doc, 0, sizeof *doc);
    doc->text = text;
    doc->len = len;
    if (!len) return pdr_fail(err, PDR_E_PARSE, "the text is empty");
    if (len > UINT32_MAX - 2) return pdr_fail(err, PDR_E_TOO_LARGE, "a document of %zu bytes is too large", len);
    doc->strings =
        malloc(len + 2); /* a string and its NUL take no more than its text and its quotes; 0 stands for "no key" */
    if (!doc->strings) return pdr_fail(err, PDR_E_SYSTEM, "no memory for a document of %zu bytes", len);
    doc->strings[doc->used++] = 0;
    if (len >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) s.p += 3;
    skip_space(&s);
    if (!(code = new_node(&s, &root)) && !(code = new_node(&s, &root)) && !(code = read_value(&s, root, 1))) {
        skip_space(&s);
        if (s.p < s.end) code = fail(&s, s.p, "something follows the document");
    }
    if (code) pdr_doc_free(doc);
    return code;
}

void pdr_doc_free(pdr_doc *doc)
{
    free(doc->nodes);
    free(doc->strings);
    memset(doc, 0, sizeof *doc);
}

static uint32_t find(const pdr_doc *doc, uint32_t object, const char *name, size_t len)
{
    if (doc->nodes[object].type != PDR_DOC_OBJECT) return 0;
    for (uint32_t m = doc->nodes[object].child; m; m = doc->nodes[m].next) {
        const char *key = pdr_doc_key(doc, m);
        if (!strncmp(key, name, len) && !key[len]) return m;
    }
    return 0;
}

uint32_t pdr_doc_get(const pdr_doc *doc, uint32_t object, const char *name)
{
    return find(doc, object, name, strlen(name));
}

uint32_t pdr_doc_at(const pdr_doc *doc, uint32_t object, const char *path)
{
    for (;;) {
        size_t len = strcspn(path, ".");
        object = find(doc, object, path, len);
        if (!object || !path[len]) return object;
        path += len + 1;
    }
}

const char *pdr_doc_string(const pdr_doc *doc, uint32_t node)
{
    return doc->nodes[node].type == PDR_DOC_STRING ? doc->strings + doc->nodes[node].string : NULL;
}

const char *pdr_doc_type_name(const pdr_doc *doc, uint32_t node)
{
    static const char *const names[] = {"null",     "a boolean", "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return names[doc->nodes[node].type];
}

uint32_t pdr_doc_line(const pdr_doc *doc, uint32_t node) { return line_of(doc->text, doc->nodes[node].begin); }

int pdr_doc_whole(const pdr_doc *doc, uint32_t node, uint64_t *value)
{
    const pdr_doc_node *n = &doc->nodes[node];
    uint64_t            v = 0;
    if (n->type != PDR_DOC_NUMBER) return PDR_E_PARSE;
    for (uint32_t i = n->begin; i < n->end; i++) {
        uint64_t digit = (uint64_t)(unsigned char)doc->text[i] - '0';
        if (digit > 9 || v > (UINT64_MAX - digit) / 10) return PDR_E_PARSE;
        v = v * 10 + digit;
    }
    *value = v;
    return PDR_OK;
}

int pdr_doc_fail(const pdr_doc *doc, uint32_t node, pdr_error *err, int code, const char *format, ...)
{
    char    message[sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return pdr_fail_at(err, code, doc->nodes[node].begin, pdr_doc_line(doc, node), "%s", message);
}
