/* The blocks of json_simd.h: AVX2, with PCLMUL for prefix_xor(). Included by that only. */
#ifndef PDR_JSON_AVX2_H
#define PDR_JSON_AVX2_H

#include <immintrin.h>

static inline __m256i load32(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}
static inline __m256i splat(uint8_t b)
{
    return _mm256_set1_epi8((char)b);
}
static inline uint64_t mask64(__m256i a, __m256i b)
{
    return (uint32_t)_mm256_movemask_epi8(a) | (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32;
}

static inline __m256i equal(__m256i v, uint8_t b)
{
    return _mm256_cmpeq_epi8(v, splat(b));
}
/* At most b, unsigned. */
static inline __m256i at_most(__m256i v, uint8_t b)
{
    return _mm256_cmpeq_epi8(_mm256_min_epu8(v, splat(b)), v);
}

/* A backslash, a control character, or (the comparison is a signed one) above 0x7F. */
static inline __m256i other32(__m256i v)
{
    return _mm256_or_si256(_mm256_cmpgt_epi8(splat(0x20), v), equal(v, '\\'));
}
static inline uint64_t block_quotes(const uint8_t *p, int *other)
{
    const __m256i a = load32(p), b = load32(p + 32);
    *other = _mm256_movemask_epi8(_mm256_or_si256(other32(a), other32(b)));
    return mask64(equal(a, '"'), equal(b, '"'));
}

/* '"' ^ 2 is 0x20, and flipping that bit keeps control characters below it and brings nothing else there. */
static inline __m256i stops32(__m256i v)
{
    return _mm256_or_si256(at_most(_mm256_xor_si256(v, splat(2)), 0x20), equal(v, '\\'));
}

/* The same or above 0x7F, of whole vectors: the comparison is a signed one. One for the least of all is enough. */
static inline int block_plain(const uint8_t *p)
{
    const __m256i flip = splat(2), a = _mm256_xor_si256(load32(p), flip), b = _mm256_xor_si256(load32(p + 32), flip);
    const __m256i slash = _mm256_or_si256(equal(a, '\\' ^ 2), equal(b, '\\' ^ 2));
    return !_mm256_movemask_epi8(_mm256_or_si256(_mm256_cmpgt_epi8(splat(0x21), _mm256_min_epi8(a, b)), slash));
}

static inline int blocks_plain(const uint8_t *p)
{
    const __m256i flip = splat(2), a = _mm256_xor_si256(load32(p), flip), b = _mm256_xor_si256(load32(p + 32), flip),
                  c = _mm256_xor_si256(load32(p + 64), flip), d = _mm256_xor_si256(load32(p + 96), flip);
    const __m256i slash = _mm256_or_si256(_mm256_or_si256(equal(a, '\\' ^ 2), equal(b, '\\' ^ 2)),
                                          _mm256_or_si256(equal(c, '\\' ^ 2), equal(d, '\\' ^ 2)));
    const __m256i least = _mm256_min_epi8(_mm256_min_epi8(a, b), _mm256_min_epi8(c, d));
    return !_mm256_movemask_epi8(_mm256_or_si256(_mm256_cmpgt_epi8(splat(0x21), least), slash));
}

static inline int block_stops(const uint8_t *p)
{
    return _mm256_movemask_epi8(_mm256_or_si256(stops32(load32(p)), stops32(load32(p + 32))));
}

static inline uint64_t block_ends(const uint8_t *p)
{
    return mask64(at_most(_mm256_xor_si256(load32(p), splat(2)), 0x20),
                  at_most(_mm256_xor_si256(load32(p + 32), splat(2)), 0x20));
}

static inline int block_high(const uint8_t *p)
{
    return _mm256_movemask_epi8(_mm256_or_si256(load32(p), load32(p + 32)));
}

static inline uint64_t block_backslashes(const uint8_t *p)
{
    return mask64(equal(load32(p), '\\'), equal(load32(p + 32), '\\'));
}

static inline void block_others(const uint8_t *p, uint64_t *backslash, uint64_t *control, int *high)
{
    const __m256i a = load32(p), b = load32(p + 32);
    *backslash = mask64(equal(a, '\\'), equal(b, '\\'));
    *control = mask64(at_most(a, 0x1F), at_most(b, 0x1F));
    *high = _mm256_movemask_epi8(_mm256_or_si256(a, b));
}

#define TABLE16(...) _mm256_broadcastsi128_si256(_mm_setr_epi8(__VA_ARGS__))

/* Bytes that may follow a backslash: by their low nibble, which of the high nibbles 2 (1), 5 (2), 6 (4) and 7 (8) make
 * one. */
static inline __m256i escapable32(__m256i v)
{
    const __m256i by_low = TABLE16(0, 0, 1 | 4 | 8, 0, 8, 8, 4, 0, 0, 0, 0, 0, 2, 0, 4, 1);
    const __m256i by_high = TABLE16(0, 0, 1, 0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i low = _mm256_shuffle_epi8(by_low, _mm256_and_si256(v, splat(0x0F)));
    const __m256i high = _mm256_shuffle_epi8(by_high, _mm256_and_si256(_mm256_srli_epi16(v, 4), splat(0x0F)));
    return _mm256_cmpeq_epi8(_mm256_and_si256(low, high), _mm256_setzero_si256()); /* inverted */
}
static inline __m256i hex32(__m256i v, __m256i lower)
{
    return _mm256_or_si256(at_most(_mm256_sub_epi8(v, splat('0')), 9), at_most(_mm256_sub_epi8(lower, splat('a')), 5));
}

static inline void block_escapes(const uint8_t *p, uint64_t *valid, uint64_t *u, uint64_t *slash)
{
    const __m256i a = load32(p), b = load32(p + 32);
    *valid = ~mask64(escapable32(a), escapable32(b));
    *u = mask64(equal(a, 'u'), equal(b, 'u'));
    *slash = mask64(equal(a, '/'), equal(b, '/'));
}

static inline void block_digits(const uint8_t *p, uint64_t *hex, uint64_t *d)
{
    const __m256i a = load32(p), b = load32(p + 32);
    const __m256i lower_a = _mm256_or_si256(a, splat(0x20)), lower_b = _mm256_or_si256(b, splat(0x20));
    *hex = mask64(hex32(a, lower_a), hex32(b, lower_b));
    *d = mask64(equal(lower_a, 'd'), equal(lower_b, 'd'));
}

static inline __m256i utf8_errors32(const uint8_t *p)
{
    const __m256i low4 = splat(0x0F), one = load32(p - 1), v = load32(p);
    const __m256i first_high = TABLE16(U_LONG, U_LONG, U_LONG, U_LONG, U_LONG, U_LONG, U_LONG, U_LONG, (char)U_TWO,
                                       (char)U_TWO, (char)U_TWO, (char)U_TWO, U_SHORT | U_OVER2, U_SHORT,
                                       U_SHORT | U_OVER3 | U_SURROGATE, U_SHORT | U_LARGE | U_LARGE_OR_OVER4);
    const __m256i first_low =
        TABLE16((char)(U_ANY | U_OVER3 | U_OVER2 | U_LARGE_OR_OVER4), (char)(U_ANY | U_OVER2), (char)U_ANY, (char)U_ANY,
                (char)(U_ANY | U_LARGE), (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4),
                (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4), (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4),
                (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4), (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4),
                (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4), (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4),
                (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4), (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4 | U_SURROGATE),
                (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4), (char)(U_ANY | U_LARGE | U_LARGE_OR_OVER4));
    const __m256i second_high = TABLE16(
        U_SHORT, U_SHORT, U_SHORT, U_SHORT, U_SHORT, U_SHORT, U_SHORT, U_SHORT,
        (char)(U_LONG | U_OVER2 | U_TWO | U_OVER3 | U_LARGE_OR_OVER4),
        (char)(U_LONG | U_OVER2 | U_TWO | U_OVER3 | U_LARGE), (char)(U_LONG | U_OVER2 | U_TWO | U_SURROGATE | U_LARGE),
        (char)(U_LONG | U_OVER2 | U_TWO | U_SURROGATE | U_LARGE), U_SHORT, U_SHORT, U_SHORT, U_SHORT);
    __m256i errors = _mm256_shuffle_epi8(first_high, _mm256_and_si256(_mm256_srli_epi16(one, 4), low4));
    errors = _mm256_and_si256(errors, _mm256_shuffle_epi8(first_low, _mm256_and_si256(one, low4)));
    errors =
        _mm256_and_si256(errors, _mm256_shuffle_epi8(second_high, _mm256_and_si256(_mm256_srli_epi16(v, 4), low4)));
    const __m256i third = _mm256_subs_epu8(load32(p - 2), splat(0xE0 - 0x80)),
                  fourth = _mm256_subs_epu8(load32(p - 3), splat(0xF0 - 0x80));
    return _mm256_xor_si256(_mm256_and_si256(_mm256_or_si256(third, fourth), splat(0x80)), errors);
}

static inline int block_utf8(const uint8_t *p)
{
    const __m256i errors = _mm256_or_si256(utf8_errors32(p), utf8_errors32(p + 32));
    return _mm256_testz_si256(errors, errors);
}

/* Four escapes, two in each half: bytes 0..11 and 12..23. */
static inline const uint8_t *decode_units(const uint8_t *p, uint8_t *out, size_t *n)
{
    const __m256i intro = TABLE16('\\', 'u', 0, 0, 0, 0, '\\', 'u', 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i to_digits = TABLE16(2, 3, 4, 5, 8, 9, 10, 11, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i to_bytes = TABLE16(0, 1, 2, 4, 5, 6, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    uint8_t *to = out;
    for (unsigned i = 0; i < 2; i++, p += 24, to += 12) {
        const __m256i v =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p)),
                                    _mm_loadu_si128((const __m128i *)(const void *)(p + 12)), 1);
        __m256i digits, unit, group, utf8;
        if ((_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, intro)) & 0x00C300C3) != 0x00C300C3) break;
        digits = _mm256_shuffle_epi8(v, to_digits);
        unit = _mm256_and_si256(_mm256_srli_epi16(digits, 6), splat(1)); /* letters: 9 more than their low nibble */
        digits =
            _mm256_add_epi8(_mm256_and_si256(digits, splat(0x0F)), _mm256_add_epi8(unit, _mm256_slli_epi16(unit, 3)));
        unit =
            _mm256_madd_epi16(_mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x0110)), _mm256_set1_epi32(0x00010100));
        group = _mm256_and_si256(unit, _mm256_set1_epi32(0xF800));
        group = _mm256_or_si256(_mm256_cmpeq_epi32(group, _mm256_setzero_si256()),
                                _mm256_cmpeq_epi32(group, _mm256_set1_epi32(0xD800)));
        if (_mm256_movemask_epi8(group) & 0x00FF00FF) break;
        utf8 = _mm256_or_si256(_mm256_srli_epi32(unit, 12),
                               _mm256_and_si256(_mm256_slli_epi32(unit, 2), _mm256_set1_epi32(0x3F00)));
        utf8 = _mm256_or_si256(utf8, _mm256_and_si256(_mm256_slli_epi32(unit, 16), _mm256_set1_epi32(0x3F0000)));
        utf8 = _mm256_shuffle_epi8(_mm256_or_si256(utf8, _mm256_set1_epi32(0x8080E0)), to_bytes);
        _mm_storel_epi64((__m128i *)(void *)to, _mm256_castsi256_si128(utf8));
        _mm_storel_epi64((__m128i *)(void *)(to + 6), _mm256_extracti128_si256(utf8, 1));
    }
    *n = (size_t)(to - out);
    return p;
}

static inline uint64_t prefix_xor(uint64_t m)
{
    return (uint64_t)_mm_cvtsi128_si64(
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)m), _mm_set1_epi8((char)0xFF), 0));
}

/* White space and comma have different low nibbles: a table by the low nibble gives each back itself. */
static inline void block_lists(const uint8_t *p, list_masks *m)
{
    const __m256i separators = TABLE16(' ', 0, 0, 0, 0, 0, 0, 0, 0, '\t', '\n', 0, ',', '\r', 0, 0);
    const __m256i a = load32(p), b = load32(p + 32);
    const __m256i digit_a = _mm256_sub_epi8(a, splat('0')), digit_b = _mm256_sub_epi8(b, splat('0'));
    m->digit = mask64(_mm256_cmpeq_epi8(_mm256_min_epu8(digit_a, splat(9)), digit_a),
                      _mm256_cmpeq_epi8(_mm256_min_epu8(digit_b, splat(9)), digit_b));
    m->zero = mask64(_mm256_cmpeq_epi8(a, splat('0')), _mm256_cmpeq_epi8(b, splat('0')));
    m->comma = mask64(_mm256_cmpeq_epi8(a, splat(',')), _mm256_cmpeq_epi8(b, splat(',')));
    m->space = mask64(_mm256_cmpeq_epi8(_mm256_shuffle_epi8(separators, a), a),
                      _mm256_cmpeq_epi8(_mm256_shuffle_epi8(separators, b), b)) &
               ~m->comma;
}

#endif
