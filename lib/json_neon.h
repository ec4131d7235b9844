/* The blocks of json_simd.h: 64-bit ARM. Included by that only. */
#ifndef PDR_JSON_NEON_H
#define PDR_JSON_NEON_H

#include <arm_neon.h>

/* 64 bytes in four registers. */
typedef struct quad {
    uint8x16_t v[4];
} quad;

static inline quad load_quad(const uint8_t *p)
{
    return (quad){{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}
#define EACH(result, q, expression)                                                                                    \
    do {                                                                                                               \
        for (unsigned i_ = 0; i_ < 4; i_++) {                                                                          \
            const uint8x16_t v = (q).v[i_];                                                                            \
            (result).v[i_] = (expression);                                                                             \
        }                                                                                                              \
    } while (0)

static inline uint8x16_t bit_of_lane(void)
{
    return vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
}

/* A bit for each byte, which is all ones or zero. */
static inline uint64_t mask_quad(quad q)
{
    const uint8x16_t bit = bit_of_lane();
    uint8x16_t a = vpaddq_u8(vandq_u8(q.v[0], bit), vandq_u8(q.v[1], bit)),
               b = vpaddq_u8(vandq_u8(q.v[2], bit), vandq_u8(q.v[3], bit));
    a = vpaddq_u8(a, b);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(a, a)), 0);
}
static inline int any_quad(quad q)
{
    return vmaxvq_u8(vorrq_u8(vorrq_u8(q.v[0], q.v[1]), vorrq_u8(q.v[2], q.v[3]))) != 0;
}

static inline uint8x16_t equal16(uint8x16_t v, uint8_t b)
{
    return vceqq_u8(v, vdupq_n_u8(b));
}
static inline uint8x16_t between16(uint8x16_t v, uint8_t from, uint8_t count)
{
    return vcltq_u8(vsubq_u8(v, vdupq_n_u8(from)), vdupq_n_u8(count));
}
static inline uint8x16_t other16(uint8x16_t v)
{
    return vorrq_u8(vorrq_u8(vcltq_u8(v, vdupq_n_u8(0x20)), vcgeq_u8(v, vdupq_n_u8(0x80))), equal16(v, '\\'));
}
static inline uint8x16_t ends16(uint8x16_t v)
{
    return vorrq_u8(vcltq_u8(v, vdupq_n_u8(0x20)), equal16(v, '"'));
}

static inline int block_plain(const uint8_t *p)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, vorrq_u8(other16(v), equal16(v, '"')));
    return !any_quad(r);
}

static inline int block_stops(const uint8_t *p)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, vorrq_u8(ends16(v), equal16(v, '\\')));
    return any_quad(r);
}

static inline int block_high(const uint8_t *p)
{
    const quad q = load_quad(p);
    return vmaxvq_u8(vorrq_u8(vorrq_u8(q.v[0], q.v[1]), vorrq_u8(q.v[2], q.v[3]))) > 0x7F;
}

static inline uint64_t block_ends(const uint8_t *p)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, ends16(v));
    return mask_quad(r);
}

static inline uint64_t block_backslashes(const uint8_t *p)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, equal16(v, '\\'));
    return mask_quad(r);
}

static inline uint64_t block_quotes(const uint8_t *p, int *other)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, other16(v));
    *other = any_quad(r);
    EACH(r, q, equal16(v, '"'));
    return mask_quad(r);
}

static inline void block_others(const uint8_t *p, uint64_t *backslash, uint64_t *control, int *high)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, vcltq_u8(v, vdupq_n_u8(0x20)));
    *control = mask_quad(r);
    *backslash = block_backslashes(p);
    *high = block_high(p);
}

static inline void block_escapes(const uint8_t *p, uint64_t *valid, uint64_t *u, uint64_t *slash)
{
    /* by the low nibble, which of the high nibbles 2 (1), 5 (2), 6 (4) and 7 (8) make a byte that may follow a
     * backslash */
    static const uint8_t low[16] = {0, 0, 1 | 4 | 8, 0, 8, 8, 4, 0, 0, 0, 0, 0, 2, 0, 4, 1},
                         high[16] = {0, 0, 1, 0, 0, 2, 4, 8};
    const uint8x16_t by_low = vld1q_u8(low), by_high = vld1q_u8(high);
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, vtstq_u8(vqtbl1q_u8(by_low, vandq_u8(v, vdupq_n_u8(15))), vqtbl1q_u8(by_high, vshrq_n_u8(v, 4))));
    *valid = mask_quad(r);
    EACH(r, q, equal16(v, 'u'));
    *u = mask_quad(r);
    EACH(r, q, equal16(v, '/'));
    *slash = mask_quad(r);
}

static inline void block_digits(const uint8_t *p, uint64_t *hex, uint64_t *d)
{
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, vorrq_u8(between16(v, '0', 10), between16(vorrq_u8(v, vdupq_n_u8(0x20)), 'a', 6)));
    *hex = mask_quad(r);
    EACH(r, q, equal16(vorrq_u8(v, vdupq_n_u8(0x20)), 'd'));
    *d = mask_quad(r);
}

/* As in the AVX2 path; the paper's tables. */
static inline uint8x16_t utf8_errors16(const uint8_t *p)
{
    static const uint8_t first_high[16] = {U_LONG,
                                           U_LONG,
                                           U_LONG,
                                           U_LONG,
                                           U_LONG,
                                           U_LONG,
                                           U_LONG,
                                           U_LONG,
                                           U_TWO,
                                           U_TWO,
                                           U_TWO,
                                           U_TWO,
                                           U_SHORT | U_OVER2,
                                           U_SHORT,
                                           U_SHORT | U_OVER3 | U_SURROGATE,
                                           U_SHORT | U_LARGE | U_LARGE_OR_OVER4};
    static const uint8_t first_low[16] = {U_ANY | U_OVER3 | U_OVER2 | U_LARGE_OR_OVER4,
                                          U_ANY | U_OVER2,
                                          U_ANY,
                                          U_ANY,
                                          U_ANY | U_LARGE,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4 | U_SURROGATE,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4,
                                          U_ANY | U_LARGE | U_LARGE_OR_OVER4};
    static const uint8_t second_high[16] = {U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_LONG | U_OVER2 | U_TWO | U_OVER3 | U_LARGE_OR_OVER4,
                                            U_LONG | U_OVER2 | U_TWO | U_OVER3 | U_LARGE,
                                            U_LONG | U_OVER2 | U_TWO | U_SURROGATE | U_LARGE,
                                            U_LONG | U_OVER2 | U_TWO | U_SURROGATE | U_LARGE,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT,
                                            U_SHORT};
    const uint8x16_t one = vld1q_u8(p - 1), v = vld1q_u8(p);
    uint8x16_t errors = vqtbl1q_u8(vld1q_u8(first_high), vshrq_n_u8(one, 4));
    errors = vandq_u8(errors, vqtbl1q_u8(vld1q_u8(first_low), vandq_u8(one, vdupq_n_u8(15))));
    errors = vandq_u8(errors, vqtbl1q_u8(vld1q_u8(second_high), vshrq_n_u8(v, 4)));
    const uint8x16_t third = vqsubq_u8(vld1q_u8(p - 2), vdupq_n_u8(0xE0 - 0x80)),
                     fourth = vqsubq_u8(vld1q_u8(p - 3), vdupq_n_u8(0xF0 - 0x80));
    return veorq_u8(vandq_u8(vorrq_u8(third, fourth), vdupq_n_u8(0x80)), errors);
}

static inline int block_utf8(const uint8_t *p)
{
    const quad r = {{utf8_errors16(p), utf8_errors16(p + 16), utf8_errors16(p + 32), utf8_errors16(p + 48)}};
    return !any_quad(r);
}

static inline void block_lists(const uint8_t *p, list_masks *m)
{
    static const uint8_t table[16] = {' ', 0, 0, 0, 0, 0, 0, 0, 0, '\t', '\n', 0, ',', '\r', 0, 0};
    const uint8x16_t separators = vld1q_u8(table);
    const quad q = load_quad(p);
    quad r;
    EACH(r, q, between16(v, '0', 10));
    m->digit = mask_quad(r);
    EACH(r, q, equal16(v, '0'));
    m->zero = mask_quad(r);
    EACH(r, q, equal16(v, ','));
    m->comma = mask_quad(r);
    EACH(r, q, vceqq_u8(vqtbl1q_u8(separators, vandq_u8(v, vdupq_n_u8(15))), v));
    m->space = mask_quad(r) & ~m->comma;
}

#endif
