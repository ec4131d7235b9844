/* For x86-64 with AVX2; compiled with it, run only where it is. */
#include "least_avx2.h"

#if defined(__x86_64__)
#ifndef __AVX2__
#error "compile this file with -mavx2"
#endif
pdr_least pdr_least_avx2(const uint64_t v[PDR_LEAST_OF])
{
    const __m256i *from = (const __m256i *)(const void *)v;
    __m256i        a = _mm256_loadu_si256(from), b = _mm256_loadu_si256(from + 1), c = _mm256_loadu_si256(from + 2), d = _mm256_loadu_si256(from + 3);
    return pdr_least_of_four(a, b, c, d);
}

uint32_t pdr_below_avx2(const uint64_t v[PDR_LEAST_OF], uint64_t most)
{
    const __m256i *from = (const __m256i *)(const void *)v, m = _mm256_set1_epi64x((int64_t)most);
    uint32_t       more = 0;
    for (int i = 0; i < 4; i++) more |= (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(_mm256_loadu_si256(from + i), m))) << 4 * i;
    return more ^ 0xFFFF;
}

/* Each one's time since, and one more; 0 for those who are not in the mask. */
static inline __m256i rested(const uint32_t *last, __m256i now, __m256i most, uint32_t mask)
{
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i       since = _mm256_min_epu32(_mm256_sub_epi32(now, _mm256_loadu_si256((const __m256i *)(const void *)last)), most);
    __m256i       in = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)mask), bits), bits);
    return _mm256_and_si256(_mm256_sub_epi32(since, _mm256_set1_epi32(-1)), in);
}

pdr_rested pdr_rested_avx2(const uint32_t last[PDR_LEAST_OF], uint32_t now, uint32_t most, uint32_t mask)
{
    const __m256i n = _mm256_set1_epi32((int)now), m = _mm256_set1_epi32((int)most);
    __m256i       a = rested(last, n, m, mask), b = rested(last + 8, n, m, mask >> 8), x = _mm256_max_epu32(a, b);
    x = _mm256_max_epu32(x, _mm256_permute4x64_epi64(x, 0x4E));
    x = _mm256_max_epu32(x, _mm256_shuffle_epi32(x, 0x4E));
    x = _mm256_max_epu32(x, _mm256_shuffle_epi32(x, 0xB1));
    uint32_t have = (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a, x))) |
                    (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(b, x))) << 8;
    uint32_t best = (uint32_t)_mm256_extract_epi32(x, 0);
    return best ? (pdr_rested){best - 1, (uint32_t)__builtin_ctz(have)} : (pdr_rested){0, PDR_LEAST_OF};
}
#endif
