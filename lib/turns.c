#include "turns.h"

void pdr_turns_portable(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, const pdr_groups *turn)
{
    for (uint32_t i = 0; i < n; i++) turn->v[i] = pdr_turn_one(t->came[i], t->half[i], t->inverse[i], now);
    for (uint32_t group = 0; group < n / PDR_LEAST_OF; group++) pdr_groups_renew(turn, group, 0);
    if (n % PDR_LEAST_OF) pdr_turns_end(turn, n, 0);
}

#if !defined(__x86_64__)
void pdr_turns_avx2(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, const pdr_groups *turn) { pdr_turns_portable(t, n, now, turn); /* never called */ }
#endif
