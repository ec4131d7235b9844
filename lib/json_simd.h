/*
 * What the scanner needs of an instruction set, 64 bytes at a time. A file that includes this is compiled once per instruction
 * set (scan_portable.c, scan_avx2.c, scan_neon.c) with PDR_ISA set; everything is static, so each gets its own inlined copy.
 *
 *   block_stops  bit i: byte i ends a plain run of string bytes: '"', '\\' or below 0x20; *high: some byte is above 0x7F
 *   block_plain  true if no byte is a stop or above 0x7F
 *   block_utf8   true if the 64 bytes continue valid UTF-8; looks at the three bytes before them, and leaves a sequence that
 *                is cut by the block's end to the next block
 *   block_lists  the parts of a list of numbers: digits, '0', ',' and white space
 *   prefix_xor   bit i: parity of bits 0..i
 */
#ifndef PDR_JSON_SIMD_H
#define PDR_JSON_SIMD_H

#include <stdint.h>
#include <string.h>

#define PDR_ISA_PORTABLE 0
#define PDR_ISA_AVX2     1
#define PDR_ISA_NEON     2

#define PDR_BLOCK 64

typedef struct list_masks { uint64_t digit, zero, comma, space; } list_masks;

static inline unsigned first_bit(uint64_t m) { return (unsigned)__builtin_ctzll(m); }
static inline unsigned last_bit(uint64_t m) { return 63u - (unsigned)__builtin_clzll(m); }
static inline unsigned count_bits(uint64_t m) { return (unsigned)__builtin_popcountll(m); }

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

#if PDR_ISA != PDR_ISA_AVX2
static inline uint64_t prefix_xor(uint64_t m)
{
    m ^= m << 1;
    m ^= m << 2;
    m ^= m << 4;
    m ^= m << 8;
    m ^= m << 16;
    m ^= m << 32;
    return m;
}
#endif

#if PDR_ISA == PDR_ISA_PORTABLE

#define BYTES(b) (0x0101010101010101ull * (b))

/* The top bits of eight bytes, as eight bits. */
static inline uint64_t gather_tops(uint64_t v) { return ((v & BYTES(0x80)) >> 7) * 0x0102040810204080ull >> 56; }
/* Top bit of each byte that is zero; exact for every byte. */
static inline uint64_t zero_bytes(uint64_t v) { return ~(((v & BYTES(0x7F)) + BYTES(0x7F)) | v | BYTES(0x7F)); }
/* Top bit of each byte that is below b (b <= 0x80); exact for every byte. */
static inline uint64_t below_bytes(uint64_t v, uint64_t b)
{
    return ~((v & BYTES(0x7F)) + BYTES(0x80 - b)) & ~v & BYTES(0x80);
}

static inline uint64_t word_stops(uint64_t v)
{
    return zero_bytes(v ^ BYTES('"')) | zero_bytes(v ^ BYTES('\\')) | below_bytes(v, 0x20);
}

static inline uint64_t block_stops(const uint8_t *p, int *high)
{
    uint64_t stops = 0, all = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t v = load64(p + 8 * i);
        all |= v;
        stops |= gather_tops(word_stops(v)) << 8 * i;
    }
    *high = (all & BYTES(0x80)) != 0;
    return stops;
}

static inline int block_plain(const uint8_t *p)
{
    uint64_t bad = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint64_t v = load64(p + 8 * i);
        bad |= v | word_stops(v);
    }
    return (bad & BYTES(0x80)) == 0;
}

static inline int block_utf8(const uint8_t *p)
{
    unsigned a = p[-1], b = p[-2], d = p[-3], bad = 0;
    for (unsigned i = 0; i < PDR_BLOCK; i++) {
        unsigned c = p[i];
        unsigned wanted = (a >= 0xC0) | (b >= 0xE0) | (d >= 0xF0);
        bad |= wanted ^ ((c & 0xC0) == 0x80);
        bad |= (a == 0xC0) | (a == 0xC1) | (a >= 0xF5);
        bad |= ((a == 0xE0) & (c < 0xA0)) | ((a == 0xED) & (c > 0x9F)) | ((a == 0xF0) & (c < 0x90)) | ((a == 0xF4) & (c > 0x8F));
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

#endif /* portable */

#endif
