#include "least.h"

int pdr_least_is_wide(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") != 0;
#else
    return 0;
#endif
}

pdr_least pdr_least_portable(const uint64_t v[PDR_LEAST_OF])
{
    uint64_t least = v[0], mask = 1;
    for (uint32_t i = 1; i < PDR_LEAST_OF; i++) {
        uint64_t bit = 1ull << i;
        mask = v[i] < least ? bit : v[i] == least ? mask | bit : mask;
        least = v[i] < least ? v[i] : least;
    }
    return (pdr_least){least, mask};
}

uint32_t pdr_below_portable(const uint64_t v[PDR_LEAST_OF], uint64_t most)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < PDR_LEAST_OF; i++) mask |= (uint32_t)(v[i] <= most) << i;
    return mask;
}

pdr_rested pdr_rested_portable(const uint32_t last[PDR_LEAST_OF], uint32_t now, uint32_t most, uint32_t mask)
{
    pdr_rested best = {0, PDR_LEAST_OF};
    for (; mask; mask &= mask - 1) {
        uint32_t i = (uint32_t)__builtin_ctz(mask), since = now - last[i];
        since = since < most ? since : most;
        if (best.at < PDR_LEAST_OF && since <= best.since) continue;
        best = (pdr_rested){since, i};
    }
    return best;
}

#if !defined(__x86_64__)
pdr_rested pdr_rested_avx2(const uint32_t last[PDR_LEAST_OF], uint32_t now, uint32_t most, uint32_t mask) { return pdr_rested_portable(last, now, most, mask); }
uint32_t pdr_below_avx2(const uint64_t v[PDR_LEAST_OF], uint64_t most) { return pdr_below_portable(v, most); }
pdr_least pdr_least_avx2(const uint64_t v[PDR_LEAST_OF]) { return pdr_least_portable(v); } /* never called */
#endif
