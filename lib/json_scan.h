/*
 * The fast reader of JSON: yes or no, and where values end. Included once per instruction set, after json_simd.h; all
 * static.
 *
 * String bytes are looked at in blocks of 64 that begin at multiples of 64 from the body's start. For the block at hand
 * the scanner keeps two masks: quotes that are not escaped, and bytes that no string may have (control characters,
 * wrong escapes). So a block is classified once however many strings lie in it, a long string costs a few instructions
 * per 64 bytes, and escapes cost no branches (after Langdale and Lemire, "Parsing gigabytes of JSON per second", VLDB
 * Journal 28, 2019). What lies outside strings is read byte by byte, except lists of integers.
 *
 * What a block leaves to the next one (an escape cut in two, digits still to come) is carried; a block whose
 * predecessor was not looked at has nothing to take over, because backslashes outside strings are errors. UTF-8 is
 * checked per block, only where some byte, or the last one before it, is above 0x7F: all such bytes of a valid document
 * lie in strings, so their blocks are looked at, and what is cut by a block's end is seen by the next.
 *
 * A string is "odd" if it has an escape that is not the shortest spelling of its character (RFC 8785): one with u, or a
 * slash. Only odd strings are ever rewritten; all others are their own canonical form.
 *
 * Never reads outside the body: first and last blocks are copied aside where they would. Cost: linear; no allocation.
 */
#ifndef PDR_JSON_SCAN_H
#define PDR_JSON_SCAN_H

#include "json.h"
#include "json_simd.h"

#define NO_BLOCK (SIZE_MAX - 4096)
#define LONG_BYTES                                                                                                     \
    64 /* strings at least this long are remembered, so that the second walk need not look for their ends */
#define LONG_COUNT 512

typedef struct long_string {
    uint32_t begin;  /* behind the opening quote */
    uint32_t length; /* up to the closing one, times two; plus one if it is odd */
} long_string;

#define CARRY_ESCAPE 16u

typedef struct scanner {
    const uint8_t *body, *end;
    const uint8_t *last; /* the last byte that is not white space, a '}' */
    size_t base;         /* of the block at hand, or NO_BLOCK */
    uint64_t quotes;     /* its quotes that are not escaped, */
    uint64_t bad;        /* what no string may have, */
    uint64_t odd;        /* the letters of its odd escapes, */
    uint64_t special;    /* and both of those */
    uint64_t
        carry; /* for the next block: bits 0..3 must be hexadecimal digits; CARRY_ESCAPE: its first byte is escaped */
    const uint8_t *low_surrogate; /* the 'u' of the escape that belongs to a high surrogate before it */
    uint32_t max_depth;
    uint32_t longs;     /* used entries of long_string */
    uint32_t next_long; /* where the second walk expects the next one */
    int untidy;         /* set where white space, an odd string or a member named cache_control is met */
    int checked;        /* the document is known to be valid: UTF-8 need not be looked at any more */
    long_string long_strings[LONG_COUNT];
    uint8_t edge[32 + PDR_BLOCK]; /* copy of a block at the body's edges, and 32 bytes in front */
} scanner;

static inline void scanner_init(scanner *s, const uint8_t *body, size_t len, uint32_t max_depth)
{
    s->body = body;
    s->end = body + len;
    s->base = NO_BLOCK;
    s->carry = 0;
    s->low_surrogate = NULL;
    s->max_depth = max_depth;
    s->longs = s->next_long = 0;
    s->untidy = 0;
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

#define EVEN_BITS 0x5555555555555555ull

/* Of the backslashes those that begin an escape: in each run the first, third and so on. */
static inline uint64_t escape_starts(uint64_t backslash)
{
    const uint64_t first = backslash & ~(backslash << 1);
    const uint64_t even_runs = backslash & ~(backslash + (first & EVEN_BITS)); /* runs that begin at even bits */
    return (even_runs & EVEN_BITS) | (backslash & ~even_runs & ~EVEN_BITS);
}

/* Escapes \ud... of the block, by the place of their 'u': bits of those that are no pair of surrogates. */
static __attribute__((noinline)) uint64_t lone_surrogates(scanner *s, size_t base, uint64_t candidates)
{
    uint64_t bad = 0;
    for (; candidates; candidates &= candidates - 1) {
        const uint8_t *u = s->body + base + first_bit(candidates);
        unsigned unit = s->end - u < 5 ? 0 : pdr_json_hex4(u + 1), low;
        int fine = 1;
        if (unit - 0xD800 < 0x400) {
            low = s->end - u < 11 || u[5] != '\\' || u[6] != 'u' ? 0 : pdr_json_hex4(u + 7);
            fine = low - 0xDC00 < 0x400;
            s->low_surrogate = u + 6;
        } else if (unit - 0xDC00 < 0x400) {
            fine = u == s->low_surrogate;
        }
        if (!fine) bad |= candidates & -candidates;
    }
    return bad;
}

/*
 * A block with more than quotes and plain bytes, or behind one that left a carry; p and shift as take_block() has them.
 */
static __attribute__((noinline)) int take_special(scanner *s, const uint8_t *p, unsigned shift, uint64_t carry)
{
    uint64_t backslash;
    int high;
    block_others(p, &backslash, &s->bad, &high);
    backslash >>= shift;
    s->bad >>= shift;
    if (backslash | carry) {
        const uint64_t cut = carry / CARRY_ESCAPE, starts = escape_starts(backslash & ~cut),
                       escaped = starts << 1 | cut;
        uint64_t valid, u, slash;
        block_escapes(p, &valid, &u, &slash);
        u = u >> shift & escaped;
        s->odd = u | (slash >> shift & escaped);
        s->quotes &= ~escaped;
        s->carry = (starts >> 63) * CARRY_ESCAPE;
        s->bad |= escaped & ~(valid >> shift);
        carry %= CARRY_ESCAPE;
        if (!s->checked && (u | carry)) {
            uint64_t hex, d;
            block_digits(p, &hex, &d);
            s->bad |= (u << 1 | u << 2 | u << 3 | u << 4 | carry) & ~(hex >> shift);
            s->carry |= u >> 63 | u >> 62 | u >> 61 | u >> 60;
            u &= d >> shift >> 1 | 1ull << 63;
            if (u) s->bad |= lone_surrogates(s, s->base, u);
        }
    }
    if (s->checked) s->bad = 0;
    s->special = s->bad | s->odd;
    if (s->base) high |= p[-1] & 0x80;
    if (!high || s->checked) return 1;
    if (!s->base && p == s->body) p = edge_block(s, 0);
    return block_utf8(p);
}

/* Classifies the block at base, which is inside the body; 0 if its UTF-8 is invalid. */
static inline int take_block(scanner *s, size_t base)
{
    const uint8_t *p = s->body + base;
    const uint64_t carry = s->base + PDR_BLOCK == base ? s->carry : 0;
    unsigned shift = 0;
    int other;
    if (s->end - p < PDR_BLOCK) {
        if (base > PDR_BLOCK) { /* the last 64 bytes instead, without those that belong to the block before */
            shift = (unsigned)(PDR_BLOCK - (s->end - p));
            p = s->end - PDR_BLOCK;
        } else {
            p = edge_block(s, base);
        }
    }
    s->base = base;
    s->quotes = block_quotes(p, &other) >> shift;
    if (base) other |= p[-1] & 0x80; /* a sequence may be cut short by this block's first byte */
    s->odd = s->special = s->bad = s->carry = 0;
    return other | (int)carry ? take_special(s, p, shift, carry) : 1;
}

/*
 * From the block at p on, which continues a string: over whole blocks that continue it too, as far as all is well and
 * simple. What is not (the string's end, errors, surrogates) is left to take_block(), for which the carry is put down.
 * *odd gets a bit for each odd escape.
 */
static inline const uint8_t *skip_blocks(scanner *s, const uint8_t *p, uint64_t *odd)
{
    uint64_t carry = s->carry;
    int high = p[-1] & 0x80; /* the block before may have ended in the middle of a sequence */
    const uint8_t *last = s->end - PDR_BLOCK;
    for (; p <= last; p += PDR_BLOCK) {
        if (!carry && !high) {
            while (block_plain(p)) {
                p += PDR_BLOCK;
                while (last - p >= PDR_BLOCK && blocks_plain(p)) p += 2 * PDR_BLOCK;
                if (p > last) goto out;
            }
        }
        const uint64_t b = block_backslashes(p);
        if (!(b | carry) && block_stops(p)) break;
        if (!s->checked) {
            const int before = high;
            high = block_high(p);
            if ((high | before) && !block_utf8(p)) break;
        }
        if (b | carry) {
            const uint64_t cut = carry / CARRY_ESCAPE, starts = escape_starts(b & ~cut), escaped = starts << 1 | cut;
            uint64_t next = (starts >> 63) * CARRY_ESCAPE, valid, u, slash, hex, d;
            if (block_ends(p) & ~escaped) break;
            block_escapes(p, &valid, &u, &slash);
            u &= escaped;
            if (!s->checked) {
                if (escaped & ~valid) break;
                if (u | carry % CARRY_ESCAPE) {
                    block_digits(p, &hex, &d);
                    if (((u << 1 | u << 2 | u << 3 | u << 4 | carry % CARRY_ESCAPE) & ~hex) |
                        (u & (d >> 1 | 1ull << 63)))
                        break;
                    next |= u >> 63 | u >> 62 | u >> 61 | u >> 60;
                }
            }
            *odd |= u | (slash & escaped);
            carry = next;
        }
    }
out:
    s->base = (size_t)(p - s->body) - PDR_BLOCK;
    s->carry = carry;
    return p;
}

/* string_end() of strings that end in another block, or are odd or wrong. */
static __attribute__((noinline)) const uint8_t *long_string_end(scanner *s, const uint8_t *p, int *odd)
{
    const size_t offset = (size_t)(p - s->body), len = (size_t)(s->end - s->body);
    size_t base = offset & ~(size_t)(PDR_BLOCK - 1);
    uint64_t range = ~0ull << offset % PDR_BLOCK, quotes, odds = 0;
    const uint8_t *end;
    if (base != s->base && (offset >= len || !take_block(s, base))) return NULL;
    while (!(quotes = s->quotes & range)) {
        if (s->bad & range) return NULL;
        odds |= s->odd & range;
        range = ~0ull;
        base += PDR_BLOCK;
        if (base >= len) return NULL;
        base = (size_t)(skip_blocks(s, s->body + base, &odds) - s->body);
        if (base >= len || !take_block(s, base)) return NULL;
    }
    range &= quotes ^ (quotes - 1);
    if (s->bad & range) return NULL;
    *odd = (odds | (s->odd & range)) != 0;
    end = s->body + base + first_bit(quotes);
    if (end - p >= LONG_BYTES && s->longs < LONG_COUNT && !s->checked && len <= UINT32_MAX / 2)
        s->long_strings[s->longs++] = (long_string){(uint32_t)offset, (uint32_t)(end - p) << 1 | (uint32_t)*odd};
    return end;
}

/* The closing quote of a string; p is behind its opening one. Sets *odd if it is. NULL if there is
 * none. */
static inline const uint8_t *string_end(scanner *s, const uint8_t *p, int *odd)
{
    const size_t at = (size_t)(p - s->body) - s->base;
    if (at < PDR_BLOCK) {
        const uint64_t quotes = s->quotes >> at;
        if (quotes && !(s->special >> at & ((quotes & -quotes) - 1))) {
            *odd = 0;
            return p + first_bit(quotes);
        }
    }
    return long_string_end(s, p, odd);
}

/*
 * Outside strings nothing is compared with the body's end: scan_begin() has made sure that the last byte that is not
 * white space is a '}', and none of these goes past one. Who steps over a '}' looks where he is.
 */
static inline int scan_begin(scanner *s)
{
    const uint8_t *last = s->end;
    while (last > s->body && pdr_json_space(last[-1])) last--;
    s->last = last - 1;
    return last > s->body && *s->last == '}';
}

static inline const uint8_t *skip_space(scanner *s, const uint8_t *p)
{
    if (*p > ' ') return p;
    s->untidy = 1;
    while (pdr_json_space(*p)) p++;
    return p;
}

static inline const uint8_t *skip_digits(const uint8_t *p)
{
    const uint8_t *begin = p;
    while ((unsigned)*p - '0' <= 9) p++;
    return p > begin ? p : NULL;
}

static inline const uint8_t *skip_number(const uint8_t *p)
{
    const uint8_t *begin;
    if (*p == '-') p++;
    begin = p;
    if (!(p = skip_digits(p)) || (*begin == '0' && p - begin > 1)) return NULL;
    if (*p == '.' && !(p = skip_digits(p + 1))) return NULL;
    if ((*p | 0x20) == 'e') {
        p++;
        if (*p == '+' || *p == '-') p++;
        p = skip_digits(p);
    }
    return p;
}

/* Behind a word that begins at p; a word's letters are compared up to the first that differs, which a '}' does. */
static inline const uint8_t *skip_word(const uint8_t *p)
{
    if (*p == 't') return p[1] == 'r' && p[2] == 'u' && p[3] == 'e' ? p + 4 : NULL;
    if (*p == 'f') return p[1] == 'a' && p[2] == 'l' && p[3] == 's' && p[4] == 'e' ? p + 5 : NULL;
    if (*p == 'n') return p[1] == 'u' && p[2] == 'l' && p[3] == 'l' ? p + 4 : NULL;
    return NULL;
}

/*
 * p stands where an element of an array must begin. Skips what it can of "number, number, number," in whole blocks and
 * returns where an element must begin again; whatever is not of that form is left to the caller.
 */
static inline const uint8_t *skip_integers(scanner *s, const uint8_t *p)
{
    while (s->end - p >= PDR_BLOCK) {
        list_masks m;
        uint64_t other, starts, tokens;
        block_lists(p, &m);
        other = ~(m.digit | m.comma | m.space);
        if (other) m.comma &= (other & -other) - 1;
        if (!m.comma) return p;
        tokens = ~0ull >> (63 - last_bit(m.comma)); /* up to the last comma */
        m.digit &= tokens;
        m.space &= tokens;
        starts = m.digit & ~(m.digit << 1);
        if (starts & m.zero & m.digit >> 1) return p; /* a leading zero: let the caller find it */
        tokens = starts | m.comma;
        if ((prefix_xor(tokens) & tokens) != starts) return p; /* not one number, one comma and so on */
        s->untidy |= m.space != 0;
        p += last_bit(m.comma) + 1;
        if (other) return p;
    }
    return p;
}

/* The end of the value at p, or NULL if it is none (or nested deeper than allowed, being at depth `depth` itself). */
static const uint8_t *skip_value(scanner *s, const uint8_t *p, uint32_t depth)
{
    uint64_t objects[PDR_JSON_DEPTH / 64]; /* bit d: the container at depth d is an object */
    const uint32_t outer = depth;
    unsigned object = 0;
    int odd, lists = 1; /* lists: skip_integers() is worth trying in this container */
value:
    if (*p == '"') {
        if (!(p = string_end(s, p + 1, &odd))) return NULL;
        s->untidy |= odd;
        p++;
    } else if (*p == '{' || *p == '[') {
        if (depth == s->max_depth) return NULL;
        object = *p == '{';
        objects[depth / 64] = (objects[depth / 64] & ~(1ull << depth % 64)) | (uint64_t)object << depth % 64;
        depth++;
        lists = 1;
        p = skip_space(s, p + 1);
        if (*p == (object ? '}' : ']')) goto close;
        goto element;
    } else if (*p == '-' || (unsigned)*p - '0' <= 9) {
        if (!(p = skip_number(p))) return NULL;
    } else if (!(p = skip_word(p))) {
        return NULL;
    }
after:
    if (depth == outer) return p;
    p = skip_space(s, p);
    if (*p != ',') {
        if (*p != (object ? '}' : ']')) return NULL;
        goto close;
    }
    p = skip_space(s, p + 1);
element: /* of an object or array, which is not empty */
    if (object) {
        const uint8_t *name = p + 1;
        if (*p != '"' || !(p = string_end(s, name, &odd))) return NULL;
        s->untidy |= odd;
        if (p - name == 13 && !memcmp(name, "cache_control", 13)) s->untidy = 1;
        p = skip_space(s, p + 1);
        if (*p != ':') return NULL;
        p = skip_space(s, p + 1);
    } else if (lists && (unsigned)*p - '0' <= 9) {
        const uint8_t *begin = p;
        p = skip_integers(s, p);
        lists = p > begin;
        p = skip_space(s, p);
    }
    goto value;
close:
    if (p++ == s->last) return NULL; /* that was to be the outermost one's */
    if (--depth > outer) object = (unsigned)(objects[(depth - 1) / 64] >> (depth - 1) % 64 & 1);
    goto after;
}

/* ---- the second walk: over a document that is known to be valid */

/* The closing quote of a string, as string_end. */
static inline const uint8_t *known_string_end(scanner *s, const uint8_t *p, int *odd)
{
    const size_t at = (size_t)(p - s->body);
    while (s->next_long < s->longs && s->long_strings[s->next_long].begin < at) s->next_long++;
    if (s->next_long < s->longs && s->long_strings[s->next_long].begin == at) {
        const uint32_t length = s->long_strings[s->next_long].length;
        *odd = (int)(length & 1);
        return p + (length >> 1);
    }
    return string_end(s, p, odd);
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
    int odd;
    for (;; p++) {
        switch (*p) {
        case '"':
            p = known_string_end(s, p + 1, &odd);
            if (!depth) return p + 1;
            break;
        case '{':
        case '[':
            depth++;
            break;
        case '}':
        case ']':
            if (!depth) return p; /* a scalar ended here */
            if (!--depth) return p + 1;
            break;
        case ',':
        case ' ':
        case '\n':
        case '\r':
        case '\t':
            if (!depth) return p;
            break;
        default:
            break;
        }
    }
}

/* The escape at *at, as UTF-8; returns its bytes, at most four. */
static inline size_t decode_escape(const uint8_t **at, uint8_t *out)
{
    const uint8_t *p = *at;
    unsigned c;
    if (p[1] != 'u') {
        *out = simple_escape(p[1]);
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

/* The escape at *at in its shortest spelling (RFC 8785, 3.2.2.2); returns its bytes, at most six. */
static inline size_t shorten_escape(const uint8_t **at, uint8_t *out)
{
    static const char hex[] = "0123456789abcdef";
    static const uint8_t letter[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    const size_t n = decode_escape(at, out);
    const uint8_t c = out[0];
    if (c >= 0x20 && c != '"' && c != '\\') return n;
    out[0] = '\\';
    out[1] = c >= 0x20 ? c : letter[c] ? letter[c] : 'u';
    if (out[1] != 'u') return 2;
    memcpy(out + 2, "00", 2);
    out[4] = (uint8_t)hex[c >> 4];
    out[5] = (uint8_t)hex[c & 15];
    return 6;
}

/*
 * The canonical form of what lies from *at (in a string, not inside an escape) to `end` (its closing quote), until at
 * least `want` bytes are in out; advances *at; returns the bytes written, at most want + CANONICAL_SLACK, and may write
 * up to there.
 */
#define CANONICAL_SLACK (PDR_BLOCK + 72) /* a block's plain bytes, and what decode_units() may write behind them */
static inline size_t canonical_string(const scanner *s, const uint8_t **at, const uint8_t *end, uint8_t *out,
                                      size_t want)
{
    const uint8_t *p = *at;
    size_t n = 0;
    while (n < want && p < end) {
        uint64_t backslash, starts, valid, u, slash;
        size_t take = PDR_BLOCK, several = 0;
        if (s->end - p < PDR_BLOCK) { /* near the body's end */
            if (*p == '\\')
                n += shorten_escape(&p, out + n);
            else
                out[n++] = *p++;
            continue;
        }
        memcpy(out + n, p, PDR_BLOCK);
        backslash = block_backslashes(p);
        if (end - p < PDR_BLOCK) {
            take = (size_t)(end - p);
            backslash &= (1ull << take) - 1;
        }
        if (backslash) {
            starts = escape_starts(backslash);
            block_escapes(p, &valid, &u, &slash);
            take -= starts >> 63; /* an escape that is cut in two is left */
            starts &= (u | slash) >> 1;
            if (starts) {
                n += first_bit(starts);
                p += first_bit(starts);
                if (p[1] == 'u' && s->end - p >= PDR_BLOCK) p = decode_units(p, out + n, &several);
                n += several ? several : shorten_escape(&p, out + n);
                continue;
            }
        }
        n += take;
        p += take;
    }
    *at = p;
    return n;
}

#endif
