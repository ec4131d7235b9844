/*
 * When each lane of the queue is due, for all lanes at once: numbers that are less for whoever goes first (hold.h has the order). With AVX2 some six instructions a lane, else some fifteen; the same numbers.
 */
#ifndef PDR_TURNS_H
#define PDR_TURNS_H

#include "least.h"

/* Of each lane's first. */
typedef struct pdr_lane_turns {
    uint64_t *came;    /* as pdr_board_time() */
    uint64_t *half;    /* ns: when half of its time is over */
    uint64_t *inverse; /* of its size, less than 2^32 */
} pdr_lane_turns;

/* ageing_us and most_us at most 2^32; now_ns less than 2^61, came: the same as pdr_board_time(). */
typedef struct pdr_turns_now { uint64_t ageing_us, most_us, now_ns, came; } pdr_turns_now;

/*
 * turn->v[i]: its half if that is over, else PDR_LEAST_NOBODY - 1 less its urgency, (ageing + age) * inverse / 256; behind the last of n, to the end of its group, PDR_LEAST_NOBODY. Least and mask of
 * the groups as well. *t has multiples of PDR_LEAST_OF, of any value. `wide`: pdr_least_is_wide().
 */
void pdr_turns_avx2(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, const pdr_groups *turn);
void pdr_turns_portable(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, const pdr_groups *turn);
static inline void pdr_turns_of(const pdr_lane_turns *t, uint32_t n, const pdr_turns_now *now, const pdr_groups *turn, int wide)
{
    if (wide)
        pdr_turns_avx2(t, n, now, turn);
    else
        pdr_turns_portable(t, n, now, turn);
}

/* Nobody behind the last of n in its group, which is not full. */
static inline void pdr_turns_end(const pdr_groups *turn, uint32_t n, int wide)
{
    uint32_t group = n / PDR_LEAST_OF;
    for (; n % PDR_LEAST_OF; n++) turn->v[n] = PDR_LEAST_NOBODY;
    pdr_groups_renew(turn, group, wide);
}

static inline uint64_t pdr_turn_one(uint64_t came, uint64_t half, uint64_t inverse, const pdr_turns_now *now)
{
    int64_t  left = (int64_t)(now->came - came);
    uint64_t age = left > 0 ? (uint64_t)left >> 10 : 0;
    age = age < now->most_us ? age : now->most_us;
    return half <= now->now_ns ? half : (uint64_t)INT64_MAX - 1 - ((now->ageing_us + age) * inverse >> 8);
}

#endif
