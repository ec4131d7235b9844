/* The blocks of json_simd.h: Eight bytes at a time in ordinary registers. Included by that only. */
#ifndef PDR_JSON_PORTABLE_H
#define PDR_JSON_PORTABLE_H

#define BYTES(b) (0x0101010101010101ull * (b))

/* The top bits of eight bytes, as eight bits. */
static inline uint64_t gather_tops(uint64_t v)
{
    return ((v & BYTES(0x80)) >> 7) * 0x0102040810204080ull >> 56;
}
/* Top bit of each byte that is zero; exact for every byte. */
static inline uint64_t zero_bytes(uint64_t v)
{
    return ~(((v & BYTES(0x7F)) + BYTES(0x7F)) | v | BYTES(0x7F));
}
/* Top bit of each byte that is below b (b <= 0x80); exact for every byte. */
static inline uint64_t below_bytes(uint64_t v, uint64_t b)
{
    return ~((v & BYTES(0x7F)) + BYTES(0x80 - b)) & ~v & BYTES(0x80);
}

/* Top bit of each byte that is a backslash, a control character or above 0x7F. */
static inline uint64_t other_bytes(uint64_t v)
{
    return (zero_bytes(v ^ BYTES('\\')) | below_bytes(v, 0x20) | v) & BYTES(0x80);
}

static inline uint64_t block_quotes(const uint8_t *p, int *other)
{
    uint64_t quotes = 0, others = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t v = load64(p + 8 * i);
        others |= other_bytes(v);
        quotes |= gather_tops(zero_bytes(v ^ BYTES('"'))) << 8 * i;
    }
    *other = others != 0;
    return quotes;
}

static inline int block_plain(const uint8_t *p)
{
    uint64_t bad = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t v = load64(p + 8 * i);
        bad |= other_bytes(v) | zero_bytes(v ^ BYTES('"'));
    }
    return !bad;
}

static inline int block_stops(const uint8_t *p)
{
    uint64_t stops = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t v = load64(p + 8 * i);
        stops |= zero_bytes(v ^ BYTES('"')) | zero_bytes(v ^ BYTES('\\')) | below_bytes(v, 0x20);
    }
    return stops != 0;
}

static inline uint64_t block_ends(const uint8_t *p)
{
    uint64_t m = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t v = load64(p + 8 * i);
        m |= gather_tops(zero_bytes(v ^ BYTES('"')) | below_bytes(v, 0x20)) << 8 * i;
    }
    return m;
}

static inline int block_high(const uint8_t *p)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < 8; i++) all |= load64(p + 8 * i);
    return (all & BYTES(0x80)) != 0;
}

static inline void block_others(const uint8_t *p, uint64_t *backslash, uint64_t *control, int *high)
{
    uint64_t all = 0;
    *backslash = *control = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint64_t v = load64(p + 8 * i);
        all |= v;
        *backslash |= gather_tops(zero_bytes(v ^ BYTES('\\'))) << 8 * i;
        *control |= gather_tops(below_bytes(v, 0x20)) << 8 * i;
    }
    *high = (all & BYTES(0x80)) != 0;
}

static inline uint64_t block_backslashes(const uint8_t *p)
{
    uint64_t m = 0;
    for (unsigned i = 0; i < 8; i++) m |= gather_tops(zero_bytes(load64(p + 8 * i) ^ BYTES('\\'))) << 8 * i;
    return m;
}

static inline void block_escapes(const uint8_t *p, uint64_t *valid, uint64_t *u, uint64_t *slash)
{
    *valid = *u = *slash = 0;
    for (unsigned i = 0; i < PDR_BLOCK; i++) {
        *valid |= (uint64_t)(simple_escape(p[i]) || p[i] == 'u') << i;
        *u |= (uint64_t)(p[i] == 'u') << i;
        *slash |= (uint64_t)(p[i] == '/') << i;
    }
}

static inline void block_digits(const uint8_t *p, uint64_t *hex, uint64_t *d)
{
    *hex = *d = 0;
    for (unsigned i = 0; i < PDR_BLOCK; i++) {
        const unsigned low = p[i] | 0x20u;
        *hex |= (uint64_t)((unsigned)p[i] - '0' <= 9 || low - 'a' <= 5) << i;
        *d |= (uint64_t)(low == 'd') << i;
    }
}

static inline int block_utf8(const uint8_t *p)
{
    unsigned a = p[-1], b = p[-2], d = p[-3], bad = 0;
    for (unsigned i = 0; i < PDR_BLOCK; i++) {
        unsigned c = p[i];
        unsigned wanted = (a >= 0xC0) | (b >= 0xE0) | (d >= 0xF0);
        bad |= wanted ^ ((c & 0xC0) == 0x80);
        bad |= (a == 0xC0) | (a == 0xC1) | (a >= 0xF5);
        bad |= ((a == 0xE0) & (c < 0xA0)) | ((a == 0xED) & (c > 0x9F)) | ((a == 0xF0) & (c < 0x90)) |
               ((a == 0xF4) & (c > 0x8F));
        d = b;
        b = a;
        a = c;
    }
    return !bad;
}

static inline void block_lists(const uint8_t *p, list_masks *m)
{
    memset(m, 0, sizeof *m);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t v = load64(p + 8 * i);
        m->digit |= gather_tops(below_bytes(v, '9' + 1) & ~below_bytes(v, '0')) << 8 * i;
        m->zero |= gather_tops(zero_bytes(v ^ BYTES('0'))) << 8 * i;
        m->comma |= gather_tops(zero_bytes(v ^ BYTES(','))) << 8 * i;
        m->space |= gather_tops(zero_bytes(v ^ BYTES(' ')) | zero_bytes(v ^ BYTES('\n')) | zero_bytes(v ^ BYTES('\r')) |
                                zero_bytes(v ^ BYTES('\t')))
                    << 8 * i;
    }
}

#endif
