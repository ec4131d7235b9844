/*
 * The fast reader of JSON: yes or no, and where values end. Included once per instruction set, after json_simd.h; all static.
 *
 * String bytes are looked at in blocks of 64 that begin at multiples of 64 from the body's start. For the block at hand the
 * scanner keeps one mask of "stops" (quote, backslash, control character), so that a block is classified once however many
 * strings lie in it, and a long string costs a few instructions per 64 bytes. Whatever lies outside strings is read byte by
 * byte, except lists of integers. UTF-8 is checked per block, only where some byte is above 0x7F: every byte above 0x7F of a
 * valid document lies in a string, so every such block is classified, and what is cut by a block's end is seen by the next.
 *
 * Never reads outside the body: first and last blocks are copied aside where they would. Cost: linear; no allocation.
 */
#ifndef PDR_JSON_SCAN_H
#define PDR_JSON_SCAN_H

#include "json.h"
#include "json_simd.h"

#define NO_BLOCK   SIZE_MAX
#define LONG_BYTES 256 /* strings at least this long are remembered, so that the second walk need not look for their ends */
#define LONG_COUNT 64

typedef struct long_string {
    const uint8_t *begin, *end; /* behind the opening quote; at the closing one */
    int            escaped;
} long_string;

typedef struct scanner {
    const uint8_t *body, *end;
    size_t         base;  /* of the block whose stops are held, or NO_BLOCK */
    uint64_t       stops; /* of that block */
    uint32_t       max_depth;
    uint32_t       longs; /* used entries of long_string */
    uint32_t       next_long; /* where the second walk expects the next one */
    int            checked; /* the document is known to be valid: UTF-8 need not be looked at any more */
    long_string    long_strings[LONG_COUNT];
    uint8_t        edge[32 + PDR_BLOCK]; /* copy of a block at the body's edges, and 32 bytes in front */
} scanner;

static inline void scanner_init(scanner *s, const uint8_t *body, size_t len, uint32_t max_depth)
{
    s->body = body;
    s->end = body + len;
    s->base = NO_BLOCK;
    s->stops = 0;
    s->max_depth = max_depth;
    s->longs = s->next_long = 0;
    s->checked = 0;
}

/* A block at an edge of the body, with blanks where the body has nothing. */
static __attribute__((noinline)) const uint8_t *edge_block(scanner *s, size_t base)
{
    size_t before = base < 32 ? base : 32, len = (size_t)(s->end - s->body) - base;
    memset(s->edge, ' ', sizeof s->edge);
    memcpy(s->edge + 32 - before, s->body + base - before, before + (len < PDR_BLOCK ? len : PDR_BLOCK));
    return s->edge + 32;
}

/* Classifies the block at base; 0 if its UTF-8 is invalid. base < length of the body. */
static inline int take_block(scanner *s, size_t base)
{
    const uint8_t *p = s->body + base;
    int            high;
    if ((size_t)(s->end - p) < PDR_BLOCK) p = edge_block(s, base);
    s->base = base;
    s->stops = block_stops(p, &high);
    if (!high || s->checked) return 1;
    if (!base && p == s->body) p = edge_block(s, 0);
    return block_utf8(p);
}

/* The next stop at or behind p, which lies in a string; NULL if there is none or the UTF-8 up to its block is invalid. */
static inline const uint8_t *next_stop(scanner *s, const uint8_t *p)
{
    size_t   offset = (size_t)(p - s->body), base = offset & ~(size_t)(PDR_BLOCK - 1);
    uint64_t stops;
    if (base != s->base) {
        if (p >= s->end || !take_block(s, base)) return NULL;
    }
    stops = s->stops & ~0ull << offset % PDR_BLOCK;
    while (!stops) {
        size_t len = (size_t)(s->end - s->body);
        do base += PDR_BLOCK;
        while (len - base >= PDR_BLOCK && base <= len && block_plain(s->body + base));
        if (base >= len || !take_block(s, base)) return NULL;
        stops = s->stops;
    }
    return s->body + s->base + first_bit(stops);
}

/* Behind an escape whose backslash is at p; NULL if it is none. */
static inline const uint8_t *skip_escape(const scanner *s, const uint8_t *p)
{
    static const uint8_t simple[256] = {['"'] = 1, ['\\'] = 1, ['/'] = 1, ['b'] = 1, ['f'] = 1, ['n'] = 1, ['r'] = 1, ['t'] = 1};
    unsigned             unit;
    if (s->end - p < 2) return NULL;
    if (simple[p[1]]) return p + 2;
    if (p[1] != 'u' || s->end - p < 6) return NULL;
    unit = pdr_json_hex4(p + 2);
    if (unit - 0xD800 >= 0x800) return unit > 0xFFFF ? NULL : p + 6;
    if (unit >= 0xDC00 || s->end - p < 12 || p[6] != '\\' || p[7] != 'u') return NULL;
    unit = pdr_json_hex4(p + 8);
    return unit - 0xDC00 < 0x400 ? p + 12 : NULL;
}

/* The closing quote of a string; p is behind its opening one. Sets *escaped if there is an escape. */
static inline const uint8_t *string_end(scanner *s, const uint8_t *p, int *escaped)
{
    const uint8_t *begin = p;
    *escaped = 0;
    while ((p = next_stop(s, p)) && *p != '"') {
        if (*p != '\\' || !(p = skip_escape(s, p))) return NULL;
        *escaped = 1;
    }
    if (p && p - begin >= LONG_BYTES && s->longs < LONG_COUNT && !s->checked)
        s->long_strings[s->longs++] = (long_string){begin, p, *escaped};
    return p;
}

static inline const uint8_t *skip_space(const scanner *s, const uint8_t *p)
{
    while (p < s->end && pdr_json_space(*p)) p++;
    return p;
}

static inline const uint8_t *skip_digits(const scanner *s, const uint8_t *p)
{
    const uint8_t *begin = p;
    while (p < s->end && (unsigned)*p - '0' <= 9) p++;
    return p > begin ? p : NULL;
}

static inline const uint8_t *skip_number(const scanner *s, const uint8_t *p)
{
    const uint8_t *begin;
    if (*p == '-') p++;
    begin = p;
    if (!(p = skip_digits(s, p)) || (*begin == '0' && p - begin > 1)) return NULL;
    if (p < s->end && *p == '.' && !(p = skip_digits(s, p + 1))) return NULL;
    if (p < s->end && (*p | 0x20) == 'e') {
        p++;
        if (p < s->end && (*p == '+' || *p == '-')) p++;
        p = skip_digits(s, p);
    }
    return p;
}

/*
 * p stands where an element of an array must begin. Skips what it can of "number, number, number," in whole blocks and returns
 * where an element must begin again; whatever is not of that form is left to the caller.
 */
static inline const uint8_t *skip_integers(const scanner *s, const uint8_t *p)
{
    while (s->end - p >= PDR_BLOCK) {
        list_masks m;
        uint64_t   other, starts, tokens;
        block_lists(p, &m);
        other = ~(m.digit | m.comma | m.space);
        if (other) m.comma &= (other & -other) - 1;
        if (!m.comma) return p;
        tokens = ~0ull >> (63 - last_bit(m.comma)); /* up to the last comma */
        m.digit &= tokens;
        starts = m.digit & ~(m.digit << 1);
        if (starts & m.zero & m.digit >> 1) return p; /* a leading zero: let the caller find it */
        tokens = starts | m.comma;
        if ((prefix_xor(tokens) & tokens) != starts) return p; /* not one number, one comma and so on */
        p += last_bit(m.comma) + 1;
        if (other) return p;
    }
    return p;
}

/* The end of the value at p, or NULL if it is none (or nested deeper than allowed, being at depth `depth` itself). */
static const uint8_t *skip_value(scanner *s, const uint8_t *p, uint32_t depth)
{
    uint64_t       objects[PDR_JSON_DEPTH / 64]; /* bit d: the container at depth d is an object */
    const uint32_t outer = depth;
    unsigned       object = 0;
    int            escaped, lists = 1; /* lists: skip_integers() is worth trying in this container */
value:
    if (p >= s->end) return NULL;
    switch (*p) {
    case '"':
        if (!(p = string_end(s, p + 1, &escaped))) return NULL;
        p++;
        break;
    case '{':
    case '[':
        if (depth == s->max_depth) return NULL;
        object = *p == '{';
        objects[depth / 64] = (objects[depth / 64] & ~(1ull << depth % 64)) | (uint64_t)object << depth % 64;
        depth++;
        lists = 1;
        p = skip_space(s, p + 1);
        if (p < s->end && *p == (object ? '}' : ']')) goto close;
        goto element;
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
        if (!(p = skip_number(s, p))) return NULL;
        break;
    case 't':
        if (s->end - p < 4 || memcmp(p, "true", 4)) return NULL;
        p += 4;
        break;
    case 'f':
        if (s->end - p < 5 || memcmp(p, "false", 5)) return NULL;
        p += 5;
        break;
    case 'n':
        if (s->end - p < 4 || memcmp(p, "null", 4)) return NULL;
        p += 4;
        break;
    default:
        return NULL;
    }
after:
    if (depth == outer) return p;
    p = skip_space(s, p);
    if (p >= s->end) return NULL;
    if (*p != ',') {
        if (*p != (object ? '}' : ']')) return NULL;
        goto close;
    }
    p = skip_space(s, p + 1);
element: /* of an object or array, which is not empty */
    if (object) {
        if (p >= s->end || *p != '"' || !(p = string_end(s, p + 1, &escaped))) return NULL;
        p = skip_space(s, p + 1);
        if (p >= s->end || *p != ':') return NULL;
        p = skip_space(s, p + 1);
    } else if (lists && p < s->end && (unsigned)*p - '0' <= 9) {
        const uint8_t *begin = p;
        p = skip_integers(s, p);
        lists = p > begin;
        p = skip_space(s, p);
    }
    goto value;
close:
    p++;
    if (--depth > outer) object = (unsigned)(objects[(depth - 1) / 64] >> (depth - 1) % 64 & 1);
    goto after;
}

/* ---- the second walk: over a document that is known to be valid */

/* The closing quote of a string, as string_end. */
static inline const uint8_t *known_string_end(scanner *s, const uint8_t *p, int *escaped)
{
    while (s->next_long < s->longs && s->long_strings[s->next_long].begin < p) s->next_long++;
    if (s->next_long < s->longs && s->long_strings[s->next_long].begin == p) {
        *escaped = s->long_strings[s->next_long].escaped;
        return s->long_strings[s->next_long].end;
    }
    return string_end(s, p, escaped);
}

static inline const uint8_t *known_space(const uint8_t *p)
{
    while (*p <= ' ') p++;
    return p;
}

/* The end of the value at p. */
static inline const uint8_t *known_value_end(scanner *s, const uint8_t *p)
{
    unsigned depth = 0;
    int      escaped;
    for (;; p++) {
        switch (*p) {
        case '"':
            p = known_string_end(s, p + 1, &escaped);
            if (!depth) return p + 1;
            break;
        case '{': case '[':
            depth++;
            break;
        case '}': case ']':
            if (!depth) return p; /* a scalar ended here */
            if (!--depth) return p + 1;
            break;
        case ',': case ' ': case '\n': case '\r': case '\t':
            if (!depth) return p;
            break;
        default:
            break;
        }
    }
}

/*
 * Decodes from *p (in a string, not in the middle of an escape) to `end` (its closing quote) into out until at least `want` bytes
 * are there; advances *p and returns the bytes written, at most want + DECODE_SLACK.
 */
#define DECODE_SLACK 64
static inline size_t decode_escape(const uint8_t **at, uint8_t *out)
{
    static const uint8_t simple[256] = {['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};
    const uint8_t       *p = *at;
    unsigned             c;
    if (p[1] != 'u') {
        *out = simple[p[1]];
        *at = p + 2;
        return 1;
    }
    c = pdr_json_hex4(p + 2);
    *at = p + 6;
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c - 0xD800 >= 0x400) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        return 3;
    }
    c = 0x10000 + ((c - 0xD800) << 10) + (pdr_json_hex4(p + 8) - 0xDC00);
    *at = p + 12;
    out[0] = (uint8_t)(0xF0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (c & 0x3F));
    return 4;
}

static inline size_t decode_string(scanner *s, const uint8_t **at, const uint8_t *end, uint8_t *out, size_t want)
{
    const uint8_t *p = *at;
    size_t         n = 0;
    while (n < want && p < end) {
        if (*p == '\\') {
            n += decode_escape(&p, out + n);
        } else {
            const uint8_t *stop = next_stop(s, p);
            size_t         run = (size_t)(stop - p);
            if (run > want - n) run = want - n;
            memcpy(out + n, p, run);
            n += run;
            p += run;
        }
    }
    *at = p;
    return n;
}

#endif
