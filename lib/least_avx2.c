/* For x86-64 with AVX2; compiled with it, run only where it is. */
#include "least.h"

#if defined(__x86_64__)
#ifndef __AVX2__
#error "compile this file with -mavx2"
#endif
#include <immintrin.h>

static inline __m256i lower(__m256i a, __m256i b) { return _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(a, b)); }

static inline uint32_t equal(__m256i a, __m256i b) { return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(a, b))); }

pdr_least pdr_least_avx2(const uint64_t v[PDR_LEAST_OF])
{
    const __m256i *from = (const __m256i *)(const void *)v;
    __m256i        a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1), c = _mm256_loadu_si256(from + 2), d = _mm256_loadu_si256(from + 3);
    __m256i        least = lower(lower(a, b), lower(c, d));
    least = lower(least, _mm256_permute4x64_epi64(least, 0x4E)); /* halves changed */
    least = lower(least, _mm256_shuffle_epi32(least, 0x4E));     /* neighbours changed: now all four are the least */
    uint32_t mask = equal(a, least) | equal(b, least) << 4 | equal(c, least) << 8 | equal(d, least) << 12;
    return (pdr_least){(uint64_t)_mm256_extract_epi64(least, 0), mask};
}
#endif
