#include "turns.h"

void pdr_turns_portable(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, uint64_t *turn)
{
    for (uint32_t i = 0; i < n; i++) turn[i] = pdr_turn_one(t->came[i], t->half[i], t->inverse[i], now);
}

#if !defined(__x86_64__)
void pdr_turns_avx2(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, uint64_t *turn) { pdr_turns_portable(t, n, now, turn); /* never called */ }
#endif
