/* For x86-64 with AVX2; compiled with it, run only where it is (pdr_least_is_wide). */
#include "turns.h"

#if defined(__x86_64__)
#ifndef __AVX2__
#error "compile this file with -mavx2"
#endif
#include "least_avx2.h"

static inline __m256i four(const uint64_t *v) { return _mm256_loadu_si256((const __m256i *)(const void *)v); }

typedef struct at_once { __m256i none, at, most, ageing, time, last; } at_once;

/* pdr_turn_one() for four; a product by 32 bits is two. */
static inline __m256i turns(const at_once *k, const pdr_lane_turns *t, uint32_t i)
{
    __m256i left = _mm256_sub_epi64(k->at, four(t->came + i));
    __m256i age = _mm256_srli_epi64(_mm256_andnot_si256(_mm256_cmpgt_epi64(k->none, left), left), 10);
    age = _mm256_add_epi64(_mm256_blendv_epi8(age, k->most, _mm256_cmpgt_epi64(age, k->most)), k->ageing);
    __m256i x = four(t->inverse + i), over = four(t->half + i);
    __m256i urgency = _mm256_add_epi64(_mm256_mul_epu32(age, x), _mm256_slli_epi64(_mm256_mul_epu32(_mm256_srli_epi64(age, 32), x), 32));
    x = _mm256_sub_epi64(k->last, _mm256_srli_epi64(urgency, 8));
    return _mm256_blendv_epi8(over, x, _mm256_cmpgt_epi64(over, k->time));
}

void pdr_turns_avx2(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, const pdr_groups *turn)
{
    const pdr_lane_turns own = *t;
    const at_once k = {_mm256_setzero_si256(), _mm256_set1_epi64x((int64_t)now->came), _mm256_set1_epi64x((int64_t)now->most_us), _mm256_set1_epi64x((int64_t)now->ageing_us),
                       _mm256_set1_epi64x((int64_t)now->now_ns), _mm256_set1_epi64x(INT64_MAX - 1)};
    for (uint32_t i = 0, group = 0; i < n; i += PDR_LEAST_OF, group++) {
        __m256i  a = turns(&k, &own, i), b = turns(&k, &own, i + 4), c = turns(&k, &own, i + 8), d = turns(&k, &own, i + 12);
        __m256i *to = (__m256i *)(void *)(turn->v + i);
        _mm256_storeu_si256(to, a);
        _mm256_storeu_si256(to + 1, b);
        _mm256_storeu_si256(to + 2, c);
        _mm256_storeu_si256(to + 3, d);
        pdr_least x = pdr_least_of_four(a, b, c, d);
        turn->least[group] = x.value;
        turn->mask[group] = (uint16_t)x.mask;
    }
    if (n % PDR_LEAST_OF) pdr_turns_end(turn, n, 1);
}
#endif
