/* For x86-64 with AVX2; compiled with it, run only where it is (pdr_least_is_wide). */
#include "turns.h"

#if defined(__x86_64__)
#ifndef __AVX2__
#error "compile this file with -mavx2"
#endif
#include <immintrin.h>

static inline __m256i four(const uint64_t *v) { return _mm256_loadu_si256((const __m256i *)(const void *)v); }

void pdr_turns_avx2(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, uint64_t *turn)
{
    const uint64_t *came = t->came, *half = t->half, *inverse = t->inverse;
    const __m256i   none = _mm256_setzero_si256(), at = _mm256_set1_epi64x((int64_t)now->came), most = _mm256_set1_epi64x((int64_t)now->most_us),
                  ageing = _mm256_set1_epi64x((int64_t)now->ageing_us), time = _mm256_set1_epi64x((int64_t)now->now_ns), last = _mm256_set1_epi64x(INT64_MAX - 1);
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) { /* pdr_turn_one() for four; a product by 32 bits is two */
        __m256i left = _mm256_sub_epi64(at, four(came + i));
        __m256i age = _mm256_srli_epi64(_mm256_andnot_si256(_mm256_cmpgt_epi64(none, left), left), 10);
        age = _mm256_add_epi64(_mm256_blendv_epi8(age, most, _mm256_cmpgt_epi64(age, most)), ageing);
        __m256i x = four(inverse + i), over = four(half + i);
        __m256i urgency = _mm256_add_epi64(_mm256_mul_epu32(age, x), _mm256_slli_epi64(_mm256_mul_epu32(_mm256_srli_epi64(age, 32), x), 32));
        x = _mm256_sub_epi64(last, _mm256_srli_epi64(urgency, 8));
        x = _mm256_blendv_epi8(over, x, _mm256_cmpgt_epi64(over, time));
        _mm256_storeu_si256((__m256i *)(void *)(turn + i), x);
    }
    for (; i < n; i++) turn[i] = pdr_turn_one(came[i], half[i], inverse[i], now);
}
#endif
