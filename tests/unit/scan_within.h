/*
 * json_simd.h and json_scan.h from within: each function keeps what the comment above it promises, for one instruction
 * set. Included by test_scan_portable.c and test_scan_vector.c, which set PDR_ISA. Whole bodies on every path are
 * test_json.c's; here a quick way that is left too early, a mask that is wrong where nobody looks yet, or a read or
 * write of one byte too many fails as well. References are written byte by byte. Everything lies between two pages that
 * may not be touched.
 */
#include "scan_paths.h"

#include "json_scan.h"

#define ROOM 65536u

/* ---------------------------------------------------------------------------------------------------- memory */

static uint8_t *room, *out_end; /* ROOM bytes for a body; the end of as many for what is written */

static void *between_pages(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *p = mmap(NULL, ROOM + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) || mprotect(p + page + ROOM, page, PROT_NONE)) abort();
    return p + page;
}

/* A copy that begins, or else ends, where its memory does; behind one that begins there stand quotes. */
static const uint8_t *placed(const void *body, size_t len, int begins)
{
    uint8_t *p = begins ? room : room + ROOM - len;
    if (!room || len + 256 > ROOM) abort();
    memcpy(p, body, len);
    if (begins) memset(p + len, '"', 256);
    return p;
}

static int setup(void **state)
{
    (void)state;
    room = between_pages();
    out_end = (uint8_t *)between_pages() + ROOM;
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- references */

enum { QUOTE, BACKSLASH, CONTROL, HIGH, ESCAPABLE, LETTER_U, SLASH, HEX, LETTER_D, DIGIT, ZERO, COMMA, SPACE, CLASSES };

static int is(int class, unsigned c)
{
    static const char *const members[CLASSES] = {[QUOTE] = "\"", [BACKSLASH] = "\\", [ESCAPABLE] = "\"\\/bfnrtu", [LETTER_U] = "u", [SLASH] = "/", [HEX] = "0123456789abcdefABCDEF",
                                                 [LETTER_D] = "dD", [DIGIT] = "0123456789", [ZERO] = "0", [COMMA] = ",", [SPACE] = " \n\r\t"};
    if (class == CONTROL) return c < 0x20;
    if (class == HIGH) return c > 0x7F;
    return c && strchr(members[class], (int)c) != NULL;
}

/* Where the bytes of each class are. */
static void classify(const uint8_t *p, uint64_t *m)
{
    static uint32_t table[256];
    if (!table['"'])
        for (unsigned c = 0; c < 256; c++)
            for (int k = 0; k < CLASSES; k++) table[c] |= (uint32_t)is(k, c) << k;
    memset(m, 0, CLASSES * sizeof *m);
    for (unsigned i = 0; i < 64; i++)
        for (uint32_t t = table[p[i]]; t; t &= t - 1) m[__builtin_ctz(t)] |= 1ull << i;
}

/* One byte of UTF-8 in that state (0: between characters); -1: it is none. A byte that begins nothing is seen with the next one, as in the scanner. */
static int utf8_step(int state, unsigned c)
{
    const int continues = (c & 0xC0) == 0x80;
    switch (state) {
    case 0:
        if (c < 0x80) return 0;
        if (c == 0xE0) return 4;
        if (c == 0xED) return 5;
        if (c == 0xF0) return 6;
        if (c == 0xF4) return 7;
        if (c < 0xC0) return -1;
        return c < 0xC2 || c > 0xF4 ? 8 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    case 1:
    case 2:
    case 3: return continues ? state - 1 : -1;
    case 4: return continues && c >= 0xA0 ? 1 : -1;
    case 5: return continues && c < 0xA0 ? 1 : -1;
    case 6: return continues && c >= 0x90 ? 2 : -1;
    case 7: return continues && c < 0x90 ? 2 : -1;
    default: return -1;
    }
}

static unsigned hex4_at(const uint8_t *p)
{
    unsigned v = 0;
    for (int i = 0; i < 4; i++) {
        if (!is(HEX, p[i])) return 0x10000;
        v = v * 16 + (p[i] <= '9' ? p[i] - 48u : (p[i] | 0x20u) - 97u + 10u);
    }
    return v;
}

static size_t put_utf8(uint8_t *to, unsigned c)
{
    const size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    if (n == 1) {
        *to = (uint8_t)c;
        return 1;
    }
    for (size_t i = n; --i; c /= 64) to[i] = (uint8_t)(128 + c % 64);
    to[0] = (uint8_t)((n == 2 ? 192 : n == 3 ? 224 : 240) + c);
    return n;
}

/* The escape at p; its length in *length. */
static unsigned escape_at(const uint8_t *p, size_t *length)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    unsigned c;
    *length = 2;
    if (p[1] != 'u') return (uint8_t)values[strchr(names, p[1]) - names];
    c = hex4_at(p + 2);
    *length = 6;
    if (c < 0xD800 || c >= 0xE000) return c;
    *length = 12;
    return 0x10000 + (c - 0xD800) * 0x400 + (hex4_at(p + 8) - 0xDC00);
}

/* A character as the shortest spelling has it. */
static size_t put_short(uint8_t *to, unsigned c)
{
    static const char names[] = "\"\\bfnrt", values[] = "\"\\\b\f\n\r\t";
    const char *known = c ? strchr(values, (int)c) : NULL;
    if (c < 0x80 && known) return (size_t)sprintf((char *)to, "\\%c", names[known - values]);
    return c < 0x20 ? (size_t)sprintf((char *)to, "\\u%04x", c) : put_utf8(to, c);
}

/* What each byte of a body is to a scanner that looks at all blocks from the first on. */
typedef struct facts {
    size_t len;
    uint8_t escaped[8192], digit[8192]; /* it stands behind an escaping backslash; it must be a hexadecimal digit */
    uint8_t bad[8192], odd[8192], quote[8192], unit[8192]; /* unit: the 'u' of an escape */
    uint8_t wanders[8192]; /* an escape with u that may be a surrogate's */
    size_t broken;         /* the first byte that is no UTF-8, or SIZE_MAX */
} facts;

static void learn(facts *f, const uint8_t *body, size_t len)
{
    int state = 0;
    memset(f, 0, sizeof *f);
    f->len = len;
    f->broken = SIZE_MAX;
    for (size_t i = 0; i < len; i++) {
        const unsigned c = body[i];
        if (f->broken == SIZE_MAX && (state = utf8_step(state, c)) < 0) f->broken = i;
        f->quote[i] = c == '"' && !f->escaped[i];
        if (c == '\\' && !f->escaped[i]) f->escaped[i + 1] = 1;
        f->bad[i] |= c < 0x20 || (f->escaped[i] && !is(ESCAPABLE, c)) || (f->digit[i] && !is(HEX, c));
        f->odd[i] = f->escaped[i] && (c == 'u' || c == '/');
        if (f->escaped[i] && c == 'u') {
            const unsigned unit = len - i < 5 ? 0 : hex4_at(body + i + 1);
            f->unit[i] = 1;
            memset(f->digit + i + 1, 1, 4);
            f->wanders[i] = i % 64 == 63 || (i + 1 < len && is(LETTER_D, body[i + 1]));
            if (unit >= 0xD800 && unit < 0xDC00) {
                const unsigned low = len - i < 11 || body[i + 5] != '\\' || body[i + 6] != 'u' ? 0 : hex4_at(body + i + 7);
                f->bad[i] |= low < 0xDC00 || low > 0xDFFF;
            } else if (unit >= 0xDC00 && unit < 0xE000) {
                const unsigned high = i < 6 || !f->escaped[i - 6] || body[i - 6] != 'u' ? 0 : hex4_at(body + i - 5);
                f->bad[i] |= high < 0xD800 || high > 0xDBFF;
            }
        }
    }
}

static uint64_t bits_at(const facts *f, const uint8_t *what, size_t base)
{
    uint64_t m = 0;
    for (size_t i = 0; i < 64 && base + i < f->len; i++) m |= (uint64_t)(what[base + i] != 0) << i;
    return m;
}

static uint64_t carry_at(const facts *f, size_t at, int checked)
{
    uint64_t carry = f->escaped[at] ? CARRY_ESCAPE : 0;
    for (size_t u = at - 4; u < at && !checked; u++)
        if (f->unit[u]) carry |= 15u >> (at - 1 - u);
    return carry;
}

/* ---------------------------------------------------------------------------------------------------- blocks */

static void check_block(const uint8_t *p)
{
    uint64_t m[CLASSES], a, b, c;
    int other = -1;
    list_masks list;
    classify(p, m);
    assert_int_equal(block_quotes(p, &other), m[QUOTE]);
    assert_int_equal(other != 0, (m[BACKSLASH] | m[CONTROL] | m[HIGH]) != 0);
    assert_int_equal(block_plain(p) != 0, !(m[QUOTE] | m[BACKSLASH] | m[CONTROL] | m[HIGH]));
    assert_int_equal(block_stops(p) != 0, (m[QUOTE] | m[BACKSLASH] | m[CONTROL]) != 0);
    assert_int_equal(block_ends(p), m[QUOTE] | m[CONTROL]);
    assert_int_equal(block_high(p) != 0, m[HIGH] != 0);
    assert_int_equal(block_backslashes(p), m[BACKSLASH]);
    block_others(p, &a, &b, &other);
    assert_int_equal(a, m[BACKSLASH]);
    assert_int_equal(b, m[CONTROL]);
    assert_int_equal(other != 0, m[HIGH] != 0);
    block_escapes(p, &a, &b, &c);
    assert_int_equal(a, m[ESCAPABLE]);
    assert_int_equal(b, m[LETTER_U]);
    assert_int_equal(c, m[SLASH]);
    block_digits(p, &a, &b);
    assert_int_equal(a, m[HEX]);
    assert_int_equal(b, m[LETTER_D]);
    block_lists(p, &list);
    assert_int_equal(list.digit, m[DIGIT]);
    assert_int_equal(list.zero, m[ZERO]);
    assert_int_equal(list.comma, m[COMMA]);
    assert_int_equal(list.space, m[SPACE]);
}

static void every_byte_at_every_place(void **state)
{
    uint8_t text[128];
    (void)state;
    for (unsigned c = 0; c < 256; c++)
        for (unsigned i = 0; i < 64; i++) {
            memset(text, 'x', 64);
            text[i] = (uint8_t)c;
            check_block(placed(text, 64, (int)(c + i) & 1));
        }
    for (unsigned c = 0; c < 256; c++) /* the least of each vector alone decides: others are beside it */
        for (unsigned i = 0; i < 128; i += c > 0x22 && c < 0x5B ? 31 : 1) {
            memset(text, i % 2 ? '#' : '~', sizeof text);
            text[i] = (uint8_t)c;
            if (blocks_plain(placed(text, 128, 0)) != (c >= 0x20 && c < 0x80 && c != '"' && c != '\\')) fail_msg("byte %u at %u", c, i);
            if (i < 64) assert_int_equal(block_plain(placed(text, 64, 0)) != 0, c >= 0x20 && c < 0x80 && c != '"' && c != '\\');
        }
}

static void many_bytes_at_once(void **state)
{
    static const char *const alphabets[] = {"\"\\/bfnrtux", "0123456789, \n\r\t-", "0123456789abcdefABCDEFgG/:@`dD", "\x01\x1f !\"#[\\]\x7e\x7f"};
    uint64_t seed = 99;
    uint8_t text[64];
    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        const char *from = alphabets[round % 4];
        for (unsigned i = 0; i < 64; i++) text[i] = (uint8_t)(round % 5 ? (uint8_t)from[test_random(&seed) % strlen(from)] : test_random(&seed) % 256);
        check_block(placed(text, 64, 0));
    }
}

/* UTF-8 of one block, behind three bytes that begin validly. */
static void check_utf8_block(const uint8_t *text)
{
    const uint8_t *p = placed(text, 67, 0);
    int s = 0;
    for (unsigned i = 0; i < 3; i++)
        if ((s = utf8_step(s, p[i])) < 0) return;
    for (unsigned i = 3; i < 67 && s >= 0; i++) s = utf8_step(s, p[i]);
    if ((block_utf8(p + 3) != 0) != (s >= 0)) fail_msg("UTF-8 is taken for %s: %02x %02x %02x | %02x %02x %02x %02x", s < 0 ? "valid" : "invalid", p[0], p[1], p[2], p[3], p[4], p[5], p[6]);
}

static void utf8(void **state)
{
    static const uint8_t seconds[] = {0x00, 0x22, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xFF};
    static const uint8_t places[] = {0, 1, 2, 3, 4, 5, 33, 34, 35, 36, 63, 64, 65, 66};
    uint8_t text[80];
    uint64_t seed = 5;
    (void)state;
    for (unsigned place = 0; place < sizeof places; place++)
        for (unsigned first = 0x78; first < 256; first++)
            for (unsigned second = 0; second < sizeof seconds; second++)
                for (unsigned more = 0; more < 3; more++) {
                    memset(text, 'x', sizeof text);
                    text[places[place]] = (uint8_t)first;
                    text[places[place] + 1] = seconds[second];
                    for (unsigned i = 0; i < more; i++) text[places[place] + 2 + i] = i ? 0xBF : 0x80;
                    check_utf8_block(text);
                }
    for (unsigned pair = 0; pair < 65536; pair++) {
        memset(text, 'x', sizeof text);
        text[30] = (uint8_t)(pair >> 8);
        text[31] = (uint8_t)pair;
        for (unsigned more = 0; more < (pair >> 8 < 0xC0 ? 0 : pair >> 8 < 0xE0 ? 0 : pair >> 8 < 0xF0 ? 1 : 2); more++) text[32 + more] = 0x80;
        check_utf8_block(text);
    }
    for (unsigned round = 0; round < 3000; round++) { /* characters of all lengths, and at times a wrong byte */
        for (unsigned i = 0; i < 67;) i += (unsigned)put_utf8(text + i, (unsigned[]){0x41, 0xE9, 0x4F60, 0x1F600, 0x7FF, 0xFFFD}[test_random(&seed) % 6]);
        if (round % 3 == 0) text[test_random(&seed) % 67] = (uint8_t)(0x80 + test_random(&seed) % 128);
        check_utf8_block(text);
    }
}

static void words_and_bits(void **state)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    uint64_t seed = 17;
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        const char *known = c ? strchr(escapes, (int)c) : NULL;
        assert_int_equal(simple_escape((uint8_t)c), known ? (uint8_t)meanings[known - escapes] : 0u);
    }
    assert_int_equal(load64((const uint8_t *)"\x01\x02\x03\x04\x05\x06\x07\x88"), 0x8807060504030201ull);
    for (unsigned round = 0; round < 2000; round++) {
        const uint64_t m = round < 64 ? 1ull << round : ((uint64_t)test_random(&seed) << 32 | test_random(&seed)) >> round % 64 | 1ull << round % 7;
        uint64_t parity = 0, starts = 0;
        unsigned low = 64, high = 0, count = 0, odd = 0, run = 0;
        for (unsigned i = 0; i < 64; i++) {
            const unsigned bit = m >> i & 1;
            odd ^= bit;
            parity |= (uint64_t)odd << i;
            run = bit ? run + 1 : 0;
            starts |= (uint64_t)(run & 1) << i;
            count += bit;
            if (bit) high = i;
            if (bit && low == 64) low = i;
        }
        assert_int_equal(prefix_xor(m), parity);
        assert_int_equal(first_bit(m), low);
        assert_int_equal(last_bit(m), high);
        assert_int_equal(count_bits(m), count);
        assert_int_equal(escape_starts(m), starts);
    }
}

/* Ten escapes of those units and what follows: four at a time, as many as are of three bytes. */
static void check_units(const unsigned *units, unsigned form)
{
    static const char *const forms[] = {"\\u%04x", "\\u%04X"};
    char text[80];
    uint8_t expected[64];
    size_t n = 99, length = 0, takes = 0;
    for (unsigned i = 0; i < 10; i++) sprintf(text + 6 * i, forms[form & 1], units[i]);
    memcpy(text + 60, "\\n\\n", 4);
    if (form & 2) text[6 * (form >> 2 & 7)] = 'x'; /* one of them is no escape at all */
    if (form & 32) text[6 * (form >> 2 & 7) + 1] = 'n'; /* or one of another kind */
    for (unsigned i = 0; i < 8 && PDR_ISA == PDR_ISA_AVX2; i++) {
        const int fits = units[i] >= 0x800 && (units[i] < 0xD800 || units[i] >= 0xE000) && text[6 * i] == '\\' && text[6 * i + 1] == 'u';
        if (!fits) break;
        if (i % 4 == 3) takes = i + 1;
    }
    for (unsigned i = 0; i < takes; i++) length += put_utf8(expected + length, units[i]);
    for (unsigned place = 0; place < 2; place++) {
        const uint8_t *p = placed(text, 64, (int)place);
        assert_ptr_equal(decode_units(p, out_end - 72, &n), p + 6 * takes);
        assert_int_equal(n, length);
        assert_memory_equal(out_end - 72, expected, length);
    }
}

static void units_of_three_bytes(void **state)
{
    unsigned units[10];
    uint64_t seed = 31;
    (void)state;
    for (unsigned unit = 0; unit < 0x10000; unit += unit < 0x1000 || (unit >= 0xD7F0 && unit < 0xE010) || unit >= 0xFFF0 ? 1 : 7) {
        for (unsigned i = 0; i < 10; i++) units[i] = 0x4F60 + i * 0x111;
        units[unit * 5 % 10] = unit;
        units[unit % 10] = unit;
        check_units(units, unit & 1);
    }
    for (unsigned round = 0; round < 2000; round++) {
        for (unsigned i = 0; i < 10; i++) units[i] = test_random(&seed) >> 16 | (round % 3 ? 0x800u : 0);
        check_units(units, test_random(&seed) % 64);
    }
}

/* ---------------------------------------------------------------------------------------------------- strings */

static const char *const pieces[] = {"\\\\", "\\\"", "\\n", "\\/", "\\u4f60", "\\u001F", "\\u0041", "\\ud83d\\ude00", "\\uDBFF\\udfff", "\xe4\xbd\xa0", "\xf0\x9f\x98\x80", "\xc3\xa9", "\\t\\r\\b\\f", "x", " y", "\\u00e9", "\\u0022", "\\ue000"};
static const char *const wrong[] = {"\\ud83d", "\\udc00", "\\u12", "\\x", "\x01", "\x1f", "\xe4\xbd", "\xf0\x9f\x98", "\x80", "\\", "\"", "\\u123g", "\\ud83d\\u0041", "\\uDC00", "\xed\xa0\x80", "\xc0\x80", "\\ud83d\\n", "\\ud83d\\ue000", "\\ud83d\\nde00", "\\ud83dxude00", "\\ud83d\\", "\\ug123", "\\u1g23", "\\u12g3"};

/* {"a":"…"} with some of the pieces in its string, which begins at 6. */
static size_t random_string(uint8_t *body, uint64_t *seed, int damaged)
{
    size_t n = (size_t)sprintf((char *)body, "{\"a\":\""), count = test_random(seed) % 12;
    for (size_t i = 0; i < count; i++) {
        const uint32_t kind = test_random(seed) % 8, times = 1 + (kind < 3 ? test_random(seed) % 30 : 0);
        const char *piece = pieces[test_random(seed) % (sizeof pieces / sizeof *pieces)];
        if (kind > 5) {
            const size_t run = test_random(seed) % (kind == 7 ? 400 : 70);
            memset(body + n, 'x', run);
            n += run;
        }
        for (uint32_t t = 0; t < times; t++) n += (size_t)sprintf((char *)body + n, "%s", piece);
    }
    if (damaged) {
        const char *piece = wrong[test_random(seed) % (sizeof wrong / sizeof *wrong)];
        size_t at = 6 + test_random(seed) % (n - 5), size = strlen(piece);
        memmove(body + at + size, body + at, n - at);
        memcpy(body + at, piece, size);
        n += size;
    }
    n += (size_t)sprintf((char *)body + n, "\"}");
    if (test_random(seed) % 3 == 0) {
        const size_t spaces = test_random(seed) % 70;
        memset(body + n, ' ', spaces);
        n += spaces;
    }
    return n;
}

/* Where the string that begins at `at` ends; SIZE_MAX: it is wrong, or does not. */
static size_t string_ends(const facts *f, size_t at, int *odd)
{
    *odd = 0;
    for (; at < f->len; at++) {
        if (f->broken <= at || f->bad[at]) return SIZE_MAX;
        if (f->quote[at]) return at;
        *odd |= f->odd[at];
    }
    return SIZE_MAX;
}

static void masks_of_blocks(scanner *s, const facts *f, int checked)
{
    for (size_t base = 0; base < f->len; base += 64) {
        const uint64_t inside = f->len - base < 64 ? (1ull << (f->len - base)) - 1 : ~0ull;
        const int fine = take_block(s, base);
        if (!checked && f->broken < base + 64) {
            assert_int_equal(fine, 0);
            return;
        }
        assert_int_not_equal(fine, 0);
        assert_int_equal(s->base, base);
        assert_int_equal(s->quotes & inside, bits_at(f, f->quote, base));
        assert_int_equal(s->odd & inside, bits_at(f, f->odd, base));
        assert_int_equal(s->bad & inside, checked ? 0 : bits_at(f, f->bad, base));
        assert_int_equal(s->special, s->bad | s->odd);
        if (base + 64 <= f->len) assert_int_equal(s->carry, carry_at(f, base + 64, checked));
    }
}

/* skip_blocks() from every block on that continues the string. */
static void skipped_blocks(const uint8_t *body, const facts *f, int checked)
{
    for (size_t from = 64; from < f->len; from += 64) {
        scanner s;
        uint64_t odd = 0, expected = 0;
        size_t to;
        scanner_init(&s, body, f->len, 128);
        s.checked = checked;
        for (size_t base = 0; base < from; base += 64) {
            if (!take_block(&s, base) || s.bad || (s.quotes & (base ? ~0ull : ~0ull << 6))) return;
        }
        for (to = from; to + 64 <= f->len; to += 64) {
            uint64_t ends = bits_at(f, f->quote, to);
            for (unsigned i = 0; i < 64; i++)
                if (body[to + i] < 0x20 && !f->escaped[to + i]) ends |= 1ull << i;
            if (ends) break;
            if (!checked && (f->broken < to + 64 || bits_at(f, f->wanders, to))) break;
            uint64_t bad = 0; /* but for surrogates by themselves, which wander */
            for (unsigned i = 0; i < 64; i++)
                bad |= (uint64_t)((f->escaped[to + i] && !is(ESCAPABLE, body[to + i])) || (f->digit[to + i] && !is(HEX, body[to + i]))) << i;
            if (!checked && bad) break;
            expected |= bits_at(f, f->odd, to);
        }
        assert_ptr_equal(skip_blocks(&s, body + from, &odd), body + to);
        assert_int_equal(odd, expected);
        assert_int_equal(s.base, to - 64);
        assert_int_equal(s.carry, carry_at(f, to, checked));
    }
}

/* The canonical form, in pieces of at least `want` bytes. */
static void canonical_in_pieces(scanner *s, const uint8_t *begin, const uint8_t *end, size_t want)
{
    static uint8_t whole[16384], got[16384];
    size_t n = 0, total = 0;
    const uint8_t *p = begin;
    while (p < end) {
        size_t length = 1;
        if (*p != '\\')
            whole[n++] = *p;
        else
            n += put_short(whole + n, escape_at(p, &length));
        p += length;
    }
    for (p = begin; p < end;) {
        const size_t some = canonical_string(s, &p, end, out_end - want - CANONICAL_SLACK, want);
        assert_true(p <= end && some <= want + CANONICAL_SLACK && (some >= want || p == end));
        memcpy(got + total, out_end - want - CANONICAL_SLACK, some);
        total += some;
    }
    assert_int_equal(total, n);
    assert_memory_equal(got, whole, n);
    p = begin;
    assert_int_equal(canonical_string(s, &p, end, out_end - CANONICAL_SLACK, 0), 0);
    assert_ptr_equal(p, begin);
}

static void check_string(const uint8_t *text, size_t len, unsigned round)
{
    static facts f;
    const uint8_t *body = placed(text, len, (int)round & 1);
    scanner s;
    size_t end;
    int odd = -1, is_odd;
    learn(&f, body, len);
    for (int checked = 0; checked < 2; checked++) {
        end = string_ends(&f, 6, &is_odd);
        if (checked && end == SIZE_MAX) return;
        for (int taken = 0; taken < 2; taken++) { /* with the first block at hand, and without */
            scanner_init(&s, body, len, 128);
            s.checked = checked;
            if (taken && !take_block(&s, 0)) continue;
            odd = -1;
            if (string_end(&s, body + 6, &odd) != (end == SIZE_MAX ? NULL : body + end)) fail_msg("round %u: the end of %.*s", round, (int)len, (const char *)body);
            if (end == SIZE_MAX) continue;
            assert_int_equal(odd, is_odd);
            assert_int_equal(s.longs, !checked && end - 6 >= LONG_BYTES);
            if (s.longs) {
                assert_int_equal(s.long_strings[0].begin, 6);
                assert_int_equal(s.long_strings[0].length, (end - 6) * 2 + (size_t)is_odd);
                s.checked = 1;
                assert_ptr_equal(known_string_end(&s, body + 6, &odd), body + end);
                assert_int_equal(odd, is_odd);
                s.next_long = 0;
                s.long_strings[0].length = 10 << 1 | !is_odd; /* what is remembered counts, and nothing is looked for */
                assert_ptr_equal(known_string_end(&s, body + 6, &odd), body + 16);
                assert_int_equal(odd, !is_odd);
            }
        }
        scanner_init(&s, body, len, 128);
        s.checked = checked;
        masks_of_blocks(&s, &f, checked);
        skipped_blocks(body, &f, checked);
    }
    canonical_in_pieces(&s, body + 6, body + end, (size_t[]){1, 7, 64, 100, 512}[round % 5]);
}

static void strings(void **state)
{
    static uint8_t text[8192];
    uint64_t seed = 4711;
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        size_t n = random_string(text, &seed, round % 3 == 0);
        check_string(text, n, round);
        if (round % 4) continue;
        n = 7 + test_random(&seed) % (n - 6); /* the same, cut anywhere but within a character */
        while (text[n - 1] > 0x7F) n--;
        check_string(text, n, round);
    }
}

/* One byte that is not plain, at every place of a long plain string. */
static void one_byte_in_many(void **state)
{
    static const char *const all[] = {"\"", "\\n", "\\/", "\x01", "\xc3\xa9", "\\u00e9", "\\ud83d\\ude00", "\\udc00", "\x80", "\xe4\xbd\xa0", "\\ue000", "\\ug123", "\\u1g23", "\\u12g3", "\\u123g", "\xc3", "\xf0\x9f"};
    uint8_t text[600];
    (void)state;
    for (unsigned at = 60; at < 70; at++) { /* beside a character that is right: each block answers for itself */
        memset(text, 'x', 200);
        memcpy(text, "{\"a\":\"\xc3\xa9", 8);
        text[at] = 0x80;
        memcpy(text + 198, "\"}", 2);
        check_string(text, 200, at);
    }
    for (unsigned which = 0; which < sizeof all / sizeof *all; which++)
        for (unsigned at = 6, size = (unsigned)strlen(all[which]); at < 460; at += at > 70 && at < 120 ? 3 : 1) {
            size_t n = 470 + at % 3 * 50;
            memset(text, 'x', n);
            memcpy(text, "{\"a\":\"", 6);
            memcpy(text + at, all[which], size);
            memcpy(text + n - 2, "\"}", 2);
            check_string(text, n, at);
        }
}

/* Strings of every length that end with the body, and two of them in one block. */
static void lengths(void **state)
{
    uint8_t text[400];
    (void)state;
    for (unsigned length = 0; length < 200; length++)
        for (unsigned escape = 0; escape < 5; escape++) { /* 3 and 4: with no closing quote */
            size_t n = 6;
            memcpy(text, "{\"a\":\"", 6);
            memset(text + n, 'x', length);
            for (unsigned i = 1; escape == 4 && i + 1 < length; i += 2) memcpy(text + n + i, "\\\"", 2); /* an escape that is cut by each block's end */
            if (length >= 2 && (escape == 1 || escape == 2)) memcpy(text + n + length - 2, escape == 1 ? "\\n" : "\\/", 2);
            n += length;
            memcpy(text + n, escape >= 3 ? "}}" : "\"}", 2);
            check_string(text, n + 2, length);
        }
}

/* A body that ends within a pair of surrogates, at every place of a block: what is behind it is not looked at. */
static void pairs_cut_by_the_end(void **state)
{
    uint8_t text[256];
    (void)state;
    for (size_t lead = 0; lead < 140; lead++)
        for (size_t some = 1; some <= 12; some++) {
            size_t n = (size_t)sprintf((char *)text, "{\"a\":\"%*s%.*s", (int)lead, "", (int)some, "\\ud83d\\ude00");
            check_string(text, n, 0);
        }
}

/* A string that ends in the block at hand, and is not odd, is found in the masks alone, wherever the block is. */
static void masks_at_hand_are_used(void **state)
{
    uint8_t text[400];
    (void)state;
    memset(text, 'x', sizeof text);
    for (size_t base = 0; base < 320; base += 64)
        for (unsigned from = 0; from < 64; from++)
            for (unsigned to = from; to < 64; to += 1 + to % 3) {
                const uint8_t *body = placed(text, sizeof text, 0);
                scanner s;
                int odd = -1;
                scanner_init(&s, body, sizeof text, 128);
                s.base = base;
                s.quotes = 1ull << to | 1ull << 63;
                s.special = to < 63 ? 1ull << (to + 1) : 0; /* behind it: another string's */
                if (from) s.special |= 1ull << (from - 1), s.quotes |= 1ull << (from - 1);
                s.odd = s.bad = s.special;
                assert_ptr_equal(string_end(&s, body + base + from, &odd), body + base + to);
                assert_int_equal(odd, 0);
            }
}

/* Strings that begin far behind the body's begin, before any block was looked at. */
static void far_strings(void **state)
{
    static uint8_t text[8192];
    (void)state;
    for (size_t lead = 4000; lead < 4300; lead++) {
        scanner s;
        const uint8_t *body;
        int odd;
        memset(text, ' ', lead);
        memcpy(text + lead, "\"abc\"}", 6);
        body = placed(text, lead + 6, 0);
        memset(&s, 0xFF, sizeof s);
        scanner_init(&s, body, lead + 6, 128);
        assert_ptr_equal(string_end(&s, body + lead + 1, &odd), body + lead + 4);
    }
}

/* Behind the body's last byte no string begins, whatever the block before holds. */
static void nothing_behind_the_end(void **state)
{
    uint8_t text[256];
    (void)state;
    for (size_t len = 60; len <= 256; len++)
        for (int begins = 0; begins < 2; begins++) {
            scanner s;
            int odd;
            const uint8_t *body;
            memset(text, '"', len);
            body = placed(text, len, begins);
            scanner_init(&s, body, len, 128);
            assert_null(string_end(&s, body + len, &odd));
        }
}

static void more_long_strings_than_are_remembered(void **state)
{
    static char text[ROOM - 4096];
    const uint32_t count = LONG_COUNT + 140;
    size_t n = (size_t)sprintf(text, "{\"a\":[");
    const uint8_t *body, *p;
    scanner s;
    int odd;
    (void)state;
    for (uint32_t i = 0; i < count; i++) n += (size_t)sprintf(text + n, "%s\"%0*u%s\"", i ? "," : "", i % 9 ? 64 + (int)(i % 5) : 60, i, i % 5 ? "" : "\\/");
    n += (size_t)sprintf(text + n, "]}");
    body = placed(text, n, 0);
    scanner_init(&s, body, n, 128);
    assert_true(scan_begin(&s));
    assert_ptr_equal(skip_value(&s, body + 5, 1), body + n - 1);
    assert_true(s.longs <= LONG_COUNT);
    s.checked = 1;
    for (uint32_t stride = 1; stride < 4; stride++) { /* in the body's order, some of them left out */
        s.next_long = 0;
        p = body + 6;
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *end = (const uint8_t *)strchr((const char *)p + 1, '"');
            if (i % stride == 0) {
                odd = -1;
                assert_ptr_equal(known_string_end(&s, p + 1, &odd), end);
                assert_int_equal(odd, i % 5 == 0);
            }
            p = end + 2;
        }
    }
    for (uint32_t i = 0; i < s.longs; i++) s.long_strings[i].length = 11 << 1; /* what is remembered counts, and nothing is looked for */
    for (uint32_t stride = 1; stride < 4; stride++) {
        uint32_t known = 0;
        s.next_long = 0;
        p = body + 6;
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *end = (const uint8_t *)strchr((const char *)p + 1, '"');
            while (known < s.longs && s.body + s.long_strings[known].begin < p + 1) known++;
            if (i % stride == 0) assert_ptr_equal(known_string_end(&s, p + 1, &odd), known < s.longs && s.body + s.long_strings[known].begin == p + 1 ? p + 12 : end);
            p = end + 2;
        }
    }
    for (uint32_t i = 0; i < s.longs; i++) s.long_strings[i].length = LONG_BYTES << 1;
    for (uint32_t i = 0; i < s.longs; i++) assert_true(s.long_strings[i].length >> 1 >= LONG_BYTES && (!i || s.long_strings[i].begin > s.long_strings[i - 1].begin));
    assert_int_equal(s.longs, LONG_COUNT);
}

static void escapes(void **state)
{
    char text[32];
    (void)state;
    for (unsigned c = 0; c < 0x110000; c += c < 0x1000 ? 1 : c >= 0xD700 && c < 0xE100 ? 1 : c < 0x10000 ? 17 : 1021) {
        uint8_t got[8], expected[8], written[8];
        size_t length, n;
        const uint8_t *p, *at;
        if (c >= 0xD800 && c < 0xE000) continue;
        if (c < 0x10000)
            sprintf(text, c % 2 ? "\\u%04x" : "\\u%04X", c);
        else
            sprintf(text, "\\u%04x\\u%04X", 0xD800 + (c - 0x10000) / 0x400, 0xDC00 + c % 0x400);
        p = at = placed(text, strlen(text), 0);
        assert_int_equal(escape_at(p, &length), c);
        n = decode_escape(&at, got);
        assert_int_equal(n, put_utf8(expected, c));
        assert_memory_equal(got, expected, n);
        assert_ptr_equal(at, p + length);
        at = p;
        n = shorten_escape(&at, got);
        assert_int_equal(n, put_short(written, c));
        assert_memory_equal(got, written, n);
        assert_ptr_equal(at, p + length);
    }
    for (const char *c = "\"\\/bfnrt"; *c; c++) {
        uint8_t got[8], written[8];
        size_t length;
        const uint8_t *p = placed((char[]){'\\', *c}, 2, 0), *at = p;
        const unsigned value = escape_at(p, &length);
        assert_int_equal(decode_escape(&at, got), 1);
        assert_int_equal(got[0], value);
        assert_ptr_equal(at, p + 2);
        at = p;
        assert_int_equal(shorten_escape(&at, got), put_short(written, value));
        assert_memory_equal(got, written, value == '/' ? 1 : 2);
        assert_ptr_equal(at, p + 2);
    }
}

/* ---------------------------------------------------------------------------------------------------- outside strings */

static void edges(void **state)
{
    uint8_t text[300];
    (void)state;
    for (unsigned i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i * 7 + 1);
    for (size_t len = 1; len < sizeof text; len++)
        for (size_t base = 0; base < len; base += 64) {
            const uint8_t *body = placed(text, len, (int)len & 1), *p;
            scanner s;
            scanner_init(&s, body, len, 128);
            memset(&s.long_strings[LONG_COUNT - 1], 0, sizeof *s.long_strings);
            p = edge_block(&s, base);
            assert_true(s.long_strings[LONG_COUNT - 1].begin == 0 && s.long_strings[LONG_COUNT - 1].length == 0); /* in front of it */
            for (size_t i = 0; i < 96; i++) assert_int_equal(p[(ptrdiff_t)i - 32], base + i < 32 || base + i - 32 >= len || i >= 32 + 64 ? ' ' : body[base + i - 32]);
        }
}

static void nothing_is_known_at_first(void **state)
{
    static const uint8_t body[2] = "{}";
    scanner s;
    (void)state;
    memset(&s, 0xA5, sizeof s);
    scanner_init(&s, body, 2, 7);
    assert_true(s.body == body && s.end == body + 2 && s.base == NO_BLOCK && !s.carry && !s.low_surrogate && s.max_depth == 7);
    assert_true(!s.longs && !s.next_long && !s.untidy && !s.checked);
}

static void where_it_ends(void **state)
{
    static const struct { const char *body; int fine; unsigned last; } cases[] = {{"{}", 1, 1}, {"{} \n\r\t", 1, 1}, {"}", 1, 0}, {" }", 1, 1}, {"{}x", 0, 0}, {"{", 0, 0}, {" \n\r\t", 0, 0}, {" ", 0, 0}, {"", 0, 0}, {"{}\v", 0, 0}, {"{}]", 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int begins = 0; begins < 2; begins++) {
            scanner s;
            const uint8_t *body = placed(cases[i].body, strlen(cases[i].body), begins);
            scanner_init(&s, body, strlen(cases[i].body), 128);
            assert_int_equal(scan_begin(&s) != 0, cases[i].fine);
            if (cases[i].fine) assert_ptr_equal(s.last, body + cases[i].last);
        }
}

static void spaces(void **state)
{
    static const char *const texts[] = {"}", " }", "\n}", "\r\t \n}", "!}", "\x1f}", " \v}", "\"}"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        scanner s;
        const size_t len = strlen(texts[i]), white = strspn(texts[i], " \n\r\t");
        const uint8_t *p = placed(texts[i], len, 0);
        scanner_init(&s, p, len, 128);
        assert_ptr_equal(skip_space(&s, p), p + white);
        if (white || texts[i][0] > ' ') assert_int_equal(s.untidy, white != 0);
        if (texts[i][white] > ' ') assert_ptr_equal(known_space(p), p + white);
    }
}

/* The number at p as the grammar has it; what follows is the caller's. */
static const char *number_at(const char *p)
{
    const char *begin;
    size_t n;
    if (*p == '-') p++;
    begin = p;
    p += n = strspn(p, "0123456789");
    if (!n || (n > 1 && *begin == '0')) return NULL;
    if (*p == '.') {
        p += 1 + (n = strspn(p + 1, "0123456789"));
        if (!n) return NULL;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '+' || *p == '-') p++;
        p += n = strspn(p, "0123456789");
        if (!n) return NULL;
    }
    return p;
}

static void numbers_and_words(void **state)
{
    static const char letters[] = "-019.eE+:/";
    static const char *const words[] = {"true", "false", "null"};
    char text[16];
    (void)state;
    for (unsigned code = 0; code < 100000; code++) {
        const char *end;
        const uint8_t *p;
        size_t len = 5;
        for (unsigned i = 0, rest = code; i < 5; i++, rest /= 10) text[i] = letters[rest % 10];
        if (code % 5 == 0) /* shorter, or longer by an exponent */
            len = 1 + code / 5 % 4;
        else if (code % 5 == 1)
            len = (size_t)(5 + sprintf(text + 5, "1e-20"));
        memcpy(text + len, "}", 2);
        p = placed(text, len + 1, 0);
        end = number_at(text);
        if (skip_number(p) != (end ? p + (end - text) : NULL)) fail_msg("number: %s", text);
        end = text + strspn(text, "0123456789");
        assert_ptr_equal(skip_digits(p), end > text ? p + (end - text) : NULL);
    }
    for (unsigned w = 0; w < 3; w++) {
        const size_t len = strlen(words[w]);
        for (size_t at = 0; at <= len; at++)
            for (unsigned c = 0; c < 256; c++) {
                size_t n = (size_t)sprintf(text, "%s}", words[w]);
                const uint8_t *p;
                text[at] = (char)c;
                if (c == '}') n = at + 1; /* ends there */
                p = placed(text, n, 0);
                assert_ptr_equal(skip_word(p), at == len || text[at] == words[w][at] ? p + len : NULL);
            }
    }
}

/* skip_integers(): from block to block, as far as each is of numbers, commas and white space, up to its last comma. */
static void check_integers(const char *text, size_t len, int begins)
{
    const uint8_t *body = placed(text, len, begins), *p = body, *end = body + len, *got;
    int untidy = 0;
    scanner s;
    while (end - p >= 64) {
        size_t n = 0, comma = 0, at = 0;
        int white = 0;
        while (n < 64 && is(DIGIT, p[n]) + is(COMMA, p[n]) + is(SPACE, p[n])) n++;
        for (size_t i = 0; i < n; i++)
            if (p[i] == ',') comma = i + 1;
        if (!comma) break;
        while (at < comma) { /* white space, a number, white space, a comma */
            const size_t begin = at + 0;
            size_t digits;
            while (at < comma && is(SPACE, p[at])) at++, white = 1;
            for (digits = 0; at < comma && is(DIGIT, p[at]); digits++) at++;
            if (!digits || (digits > 1 && p[at - digits] == '0')) break;
            while (at < comma && is(SPACE, p[at])) at++, white = 1;
            if (p[at] != ',' || at == begin) break;
            at++;
        }
        if (at < comma) break;
        untidy |= white;
        p += comma;
        if (n < 64) break;
    }
    scanner_init(&s, body, len, 128);
    got = skip_integers(&s, body);
    if (got != p) fail_msg("%d and not %d of %.*s", (int)(got - body), (int)(p - body), (int)len, text);
    assert_int_equal(s.untidy, untidy);
}

static void integers(void **state)
{
    static const char *const odds[] = {" ", ",", "-", "0", ".", "]", "1 2", ",,", "01", ", ", " ,", "00", "\n\t\r ", "\"", "/", ":"};
    char text[512];
    uint64_t seed = 1;
    (void)state;
    for (unsigned round = 0; round < 6000; round++) {
        size_t n = 0, len;
        const unsigned most = test_random(&seed) % 32;
        while (n < 400) n += (size_t)sprintf(text + n, round % 4 ? "%u," : round % 8 ? "%u, " : "%u ,", test_random(&seed) >> (most | test_random(&seed) % 16) % 32);
        if (round % 3) {
            const char *odd = odds[test_random(&seed) % (sizeof odds / sizeof *odds)];
            memcpy(text + test_random(&seed) % (round % 5 ? 200 : 70), odd, strlen(odd));
        }
        if (round % 7 == 0) memset(text + test_random(&seed) % 64, '7', 64 + test_random(&seed) % 40); /* no comma in a whole block */
        len = 1 + test_random(&seed) % 400;
        text[len - 1] = '}';
        check_integers(text, len, (int)round & 1);
    }
}

/* ---------------------------------------------------------------------------------------------------- values */

static size_t random_value_within(char *to, uint64_t *seed, unsigned level)
{
    static const char *const scalars[] = {"0", "-1", "1.5e+3", "true", "false", "null", "\"\"", "\"x\"", "\"\\/\"", "\"\\u00e9\"", "\"\\n\"", "\"\xc3\xa9\"", "12", "[]", "{}", "[ ]", "{\t}", "\"]}\"", "\"cache_control\""};
    static const char *const names[] = {"a", "", "cache_control", "cache_controL", "b\\u0041", "cache_control2", "\xe4\xbd\xa0", "n\\n"};
    static const char *const white[] = {"", "", "", "", "", "", " ", "\n\t", "\r"};
#define WHITE white[test_random(seed) % (sizeof white / sizeof *white)]
    const unsigned kind = test_random(seed) % (level > 5 ? 2 : 6);
    size_t n = 0;
    if (kind < 2) return (size_t)sprintf(to, "%s", scalars[test_random(seed) % (sizeof scalars / sizeof *scalars)]);
    if (kind == 2) {
        const unsigned length = test_random(seed) % 150;
        return (size_t)sprintf(to, "\"%0*d%s\"", (int)length, 7, test_random(seed) % 3 ? "" : "\\\"\\u4f60");
    }
    to[n++] = kind == 5 ? '{' : '[';
    for (unsigned i = 0, count = test_random(seed) % (kind == 3 ? 50 : 4); i < count; i++) {
        n += (size_t)sprintf(to + n, "%s%s", i ? "," : "", WHITE);
        if (kind == 5) n += (size_t)sprintf(to + n, "\"%s\"%s:%s", names[test_random(seed) % (sizeof names / sizeof *names)], WHITE, WHITE);
        n += kind == 3 ? (size_t)sprintf(to + n, "%u", test_random(seed) % 5000) : random_value_within(to + n, seed, level + 1);
        n += (size_t)sprintf(to + n, "%s", WHITE);
    }
#undef WHITE
    to[n++] = kind == 5 ? '}' : ']';
    return n;
}

/* The end of the valid value at p, and whether it has white space, odd strings or a member named cache_control. */
static const uint8_t *value_ends(const uint8_t *p, int *untidy)
{
    unsigned depth = 0;
    *untidy = 0;
    for (;;) {
        const unsigned c = *p;
        if (c == '"') {
            const uint8_t *begin = ++p;
            for (; *p != '"'; p++)
                if (*p == '\\' && (*++p == 'u' || *p == '/')) *untidy = 1;
            p++;
            if (p - begin == 14 && !memcmp(begin, "cache_control", 13) && p[strspn((const char *)p, " \n\r\t")] == ':') *untidy = 1;
        } else if (c == '{' || c == '[') {
            depth++;
            p++;
            continue;
        } else if (c == '}' || c == ']') {
            depth--;
            p++;
        } else if (is(SPACE, c) || c == ',' || c == ':') {
            if (is(SPACE, c)) *untidy = 1;
            p++;
            continue;
        } else {
            while (!is(SPACE, *p) && *p != ',' && *p != '}' && *p != ']') p++;
        }
        if (!depth) return p;
    }
}

/* One member {"a":VALUE}: read as pdr_json_check() reads it, and where and how it should. */
static void check_value(const char *text, size_t len, int begins)
{
    const uint8_t *body = placed(text, len, begins), *p, *end, *value = body + 5 + strspn(text + 5, " \n\r\t");
    const int valid = pdr_json_check((const char *)body, len, 128, NULL) == PDR_OK;
    int untidy, fine;
    scanner s;
    scanner_init(&s, body, len, 128);
    if (!scan_begin(&s)) {
        assert_int_equal(valid, 0);
        return;
    }
    p = skip_value(&s, value, 1);
    if (p) assert_true(p <= s.last);
    if (!valid) { /* or the value is right, and what is around it is not */
        if (!p) return;
        char *alone = malloc(len + 8);
        const size_t n = (size_t)sprintf(alone, "{\"a\":%.*s}", (int)(p - value), (const char *)value);
        fine = memchr(value, 0, (size_t)(p - value)) == NULL && pdr_json_check(alone, n, 128, NULL) == PDR_OK;
        free(alone);
        if (!fine) fail_msg("taken: %.*s", (int)len, text);
        return;
    }
    end = value_ends(value, &untidy);
    if (p != end) fail_msg("the end of %.*s", (int)len, text);
    if (s.untidy != untidy) fail_msg("untidy %d: %.*s", s.untidy, (int)len, text);
    s.checked = 1;
    assert_ptr_equal(known_value_end(&s, value), end);
    s.longs = 0;
    assert_ptr_equal(known_value_end(&s, value), end);
}

static void values(void **state)
{
    static char text[1 << 16], bad[1 << 16];
    uint64_t seed = 77;
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        size_t n = (size_t)sprintf(text, "{\"a\":");
        n += random_value_within(text + n, &seed, 0);
        n += (size_t)sprintf(text + n, "%s}", round % 4 ? "" : " ");
        if (n > 12000) continue;
        check_value(text, n, (int)round & 1);
        for (unsigned damage = 0; damage < 6 && n > 6; damage++) {
            const size_t at = 5 + test_random(&seed) % (n - 5);
            size_t len = n;
            memcpy(bad, text, n);
            if (damage % 3 == 0)
                bad[at] = "\"\\{}[],:0u\n\x80\xe4 -tx"[test_random(&seed) % 17];
            else if (damage % 3 == 1)
                memmove(bad + at, bad + at + 1, --len - at);
            else
                bad[(len = at + 1) - 1] = '}';
            check_value(bad, len, (int)damage & 1);
        }
    }
}

static void nesting(void **state)
{
    static char text[8192], closing[2048];
    uint64_t seed = 3;
    (void)state;
    for (unsigned round = 0; round < 400; round++) {
        const uint32_t depth = round % 40, deep = round % 3 ? 1 + test_random(&seed) % 70 : 1 + test_random(&seed) % (PDR_JSON_DEPTH - 40), most = depth + deep - (round & 1);
        size_t n = (size_t)sprintf(text, "{\"a\":"), mismatch = test_random(&seed) % deep;
        scanner s;
        const uint8_t *body;
        for (uint32_t i = 0; i < deep; i++) {
            const int object = test_random(&seed) & 1;
            n += (size_t)sprintf(text + n, object ? "{\"\":" : "[");
            closing[deep - 1 - i] = object ? '}' : ']';
        }
        n += (size_t)sprintf(text + n, "7");
        memcpy(text + n, closing, deep);
        memcpy(text + n + deep, ",\"b\":1}", 8);
        body = placed(text, n + deep + 7, 0);
        scanner_init(&s, body, n + deep + 7, most);
        assert_true(scan_begin(&s));
        assert_ptr_equal(skip_value(&s, body + 5, depth), round & 1 ? NULL : body + n + deep);
        text[n + mismatch] = (char)(closing[mismatch] ^ '}' ^ ']');
        body = placed(text, n + deep + 7, 0);
        scanner_init(&s, body, n + deep + 7, most);
        assert_true(scan_begin(&s));
        assert_null(skip_value(&s, body + 5, depth));
    }
}

static int scan_within(void)
{
    const struct CMUnitTest tests[] = { /* those that find most first: tests/tools/mutate.py */
        cmocka_unit_test(nothing_is_known_at_first), cmocka_unit_test(edges), cmocka_unit_test(where_it_ends), cmocka_unit_test(spaces), cmocka_unit_test(escapes),
        cmocka_unit_test(strings), cmocka_unit_test(values), cmocka_unit_test(integers), cmocka_unit_test(nesting), cmocka_unit_test(masks_at_hand_are_used), cmocka_unit_test(far_strings), cmocka_unit_test(lengths), cmocka_unit_test(pairs_cut_by_the_end), cmocka_unit_test(nothing_behind_the_end), cmocka_unit_test(numbers_and_words),
        cmocka_unit_test(one_byte_in_many), cmocka_unit_test(more_long_strings_than_are_remembered), cmocka_unit_test(many_bytes_at_once),
        cmocka_unit_test(every_byte_at_every_place), cmocka_unit_test(words_and_bits), cmocka_unit_test(utf8), cmocka_unit_test(units_of_three_bytes),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
