/*
 * The least of sixteen numbers that are in registers: for files that are compiled with AVX2.
 */
#ifndef PDR_LEAST_AVX2_H
#define PDR_LEAST_AVX2_H

#include "least.h"

#if defined(__AVX2__)
#include <immintrin.h>

static inline __m256i pdr_lower(__m256i a, __m256i b) { return _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b)); }

static inline uint32_t pdr_equal(__m256i a, __m256i b) { return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(a, b))); }

static inline pdr_least pdr_least_of_four(__m256i a, __m256i b, __m256i c, __m256i d)
{
    __m256i least = pdr_lower(pdr_lower(a, b), pdr_lower(c, d));
    least = pdr_lower(least, _mm256_permute4x64_epi64(least, 0x4E)); /* halves changed */
    least = pdr_lower(least, _mm256_shuffle_epi32(least, 0x4E));     /* neighbours changed: now all four are the least */
    uint32_t mask = pdr_equal(a, least) | pdr_equal(b, least) << 4 | pdr_equal(c, least) << 8 | pdr_equal(d, least) << 12;
    return (pdr_least){(uint64_t)_mm256_extract_epi64(least, 0), mask};
}
#endif

#endif
