/* For x86-64 with AVX2; compiled with it, run only where it is (pdr_least_is_wide). */
#include "board.h"

#if defined(__x86_64__)
#ifndef __AVX2__
#error "compile this file with -mavx2"
#endif
#include <immintrin.h>

uint64_t pdr_board_waits_avx2(const uint64_t *end, uint32_t n, uint64_t now, uint64_t most_us, uint64_t *us)
{
    const __m256i sign = _mm256_set1_epi64x(INT64_MIN), from = _mm256_set1_epi64x((int64_t)(now - 1023)), most = _mm256_set1_epi64x((int64_t)most_us),
                  bias = _mm256_set1_epi64x(1ll << 53), none = _mm256_setzero_si256();
    __m256i  sum = none;
    uint64_t sums[4], total;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) { /* pdr_board_wait_us() for four; a shift with the sign is one without, around a bias */
        __m256i e = _mm256_loadu_si256((const __m256i *)(const void *)(end + i)), left = _mm256_sub_epi64(e, from);
        left = _mm256_sub_epi64(_mm256_srli_epi64(_mm256_xor_si256(left, sign), 10), bias);
        __m256i late = _mm256_cmpgt_epi64(none, left), wait = _mm256_sub_epi64(_mm256_xor_si256(left, late), late);
        wait = _mm256_blendv_epi8(wait, most, _mm256_cmpgt_epi64(wait, most));
        wait = _mm256_andnot_si256(_mm256_cmpeq_epi64(e, none), wait);
        _mm256_storeu_si256((__m256i *)(void *)(us + i), wait);
        sum = _mm256_add_epi64(sum, wait);
    }
    _mm256_storeu_si256((__m256i *)(void *)sums, sum);
    total = sums[0] + sums[1] + sums[2] + sums[3];
    for (; i < n; i++) total += us[i] = pdr_board_wait_us(end[i], now, most_us);
    return total;
}
#endif
