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

#if !defined(__x86_64__)
pdr_least pdr_least_avx2(const uint64_t v[PDR_LEAST_OF]) { return pdr_least_portable(v); } /* never called */
#endif
