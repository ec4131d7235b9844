/*
 * What the scanner needs of an instruction set, 64 bytes at a time. A file that includes this is compiled once per
 * instruction set (prompt_portable.c, prompt_avx2.c, prompt_neon.c) with PDR_ISA set; everything is static, so each
 * gets its own inlined copy.
 *
 * - block_quotes: where '"' is; *other: there is a backslash, a control character or a byte above 0x7F
 * - block_plain: true if there are neither quotes, backslashes, control characters nor bytes above 0x7F
 * - blocks_plain: the same of two blocks
 * - block_stops: nonzero if there are quotes, backslashes or control characters
 * - block_ends: where quotes and control characters are
 * - block_high: nonzero if there is a byte above 0x7F
 * - block_backslashes: where they are
 * - block_others: where backslashes and control characters are; *high: some byte is above 0x7F
 * - block_escapes: what may follow a backslash, any of "\/bfnrtu; of these 'u'; and '/'
 * - block_digits: hexadecimal digits; and 'd' or 'D'
 * - block_utf8: true if the 64 bytes continue valid UTF-8; looks at the three bytes before them, and leaves a sequence
 *   that is cut by the block's end to the next block
 * - block_lists: the parts of a list of numbers: digits, '0', ',' and white space
 * - decode_units: escapes with u from p on, several at a time, as long as they are characters of three bytes; *n gets
 *   the bytes written; 64 bytes are readable at p, 72 writable at out
 * - prefix_xor: bit i is the parity of bits 0..i
 */
#ifndef PDR_JSON_SIMD_H
#define PDR_JSON_SIMD_H

#include <stdint.h>
#include <string.h>

#define PDR_ISA_PORTABLE 0
#define PDR_ISA_AVX2     1
#define PDR_ISA_NEON     2

#define PDR_BLOCK 64

typedef struct list_masks {
    uint64_t digit, zero, comma, space;
} list_masks;

static inline unsigned first_bit(uint64_t m)
{
    return (unsigned)__builtin_ctzll(m);
}
static inline unsigned last_bit(uint64_t m)
{
    return 63u - (unsigned)__builtin_clzll(m);
}
static inline unsigned count_bits(uint64_t m)
{
    return (unsigned)__builtin_popcountll(m);
}

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

/* What an escape of two characters stands for, by its second one. */
static inline uint8_t simple_escape(uint8_t c)
{
    static const uint8_t meaning[256] = {
        ['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};
    return meaning[c];
}

#if PDR_ISA != PDR_ISA_PORTABLE

/*
 * Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte", Software: Practice and Experience 51
 * (2021): three table look-ups by nibbles give the errors that two neighbouring bytes can make; and a byte is the third
 * or fourth of a sequence exactly if it is one of two continuations in a row.
 */
enum {
    U_SHORT = 1,
    U_LONG = 2,
    U_OVER3 = 4,
    U_LARGE = 8,
    U_SURROGATE = 16,
    U_OVER2 = 32,
    U_LARGE_OR_OVER4 = 64,
    U_TWO = 128,
    U_ANY = U_SHORT | U_LONG | U_TWO
};

#endif

#if PDR_ISA != PDR_ISA_AVX2
static inline const uint8_t *decode_units(const uint8_t *p, uint8_t *out, size_t *n)
{
    (void)out;
    *n = 0;
    return p;
}
#endif

#if PDR_ISA == PDR_ISA_AVX2
#include "json_avx2.h"
#elif PDR_ISA == PDR_ISA_NEON
#include "json_neon.h"
#else
#include "json_portable.h"
#endif

#if PDR_ISA != PDR_ISA_AVX2
static inline int blocks_plain(const uint8_t *p)
{
    return block_plain(p) && block_plain(p + PDR_BLOCK);
}
#endif

#endif
