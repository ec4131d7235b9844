/*
 * The least of sixteen numbers and who has it: what the queue and its passes look for again and again. With AVX2 some forty instructions, else some eighty; the same answer.
 */
#ifndef PDR_LEAST_H
#define PDR_LEAST_H

#include <stdint.h>

enum { PDR_LEAST_OF = 16 };
#define PDR_LEAST_NOBODY ((uint64_t)INT64_MAX) /* numbers are at most this, which stands for nobody */

typedef struct pdr_least {
    uint64_t value;
    uint64_t mask; /* a bit for each that has it */
} pdr_least;

/* Whether pdr_least_avx2() may be called here. */
int       pdr_least_is_wide(void);
pdr_least pdr_least_avx2(const uint64_t v[PDR_LEAST_OF]);
pdr_least pdr_least_portable(const uint64_t v[PDR_LEAST_OF]);

/* A bit for each that is not more than `most`, which is at most PDR_LEAST_NOBODY. */
uint32_t pdr_below_avx2(const uint64_t v[PDR_LEAST_OF], uint64_t most);
uint32_t pdr_below_portable(const uint64_t v[PDR_LEAST_OF], uint64_t most);
static inline uint32_t pdr_below(const uint64_t v[PDR_LEAST_OF], uint64_t most, int wide) { return wide ? pdr_below_avx2(v, most) : pdr_below_portable(v, most); }

/* Of sixteen counters' values at which somebody was picked, those in the mask: who was not for longest by `now`, of equal ones the first. Counters may wrap; longer than `most` is `most`. */
typedef struct pdr_rested { uint32_t since, at; } pdr_rested;
pdr_rested pdr_rested_avx2(const uint32_t last[PDR_LEAST_OF], uint32_t now, uint32_t most, uint32_t mask);
pdr_rested pdr_rested_portable(const uint32_t last[PDR_LEAST_OF], uint32_t now, uint32_t most, uint32_t mask);
static inline pdr_rested pdr_rested_of(const uint32_t last[PDR_LEAST_OF], uint32_t now, uint32_t most, uint32_t mask, int wide)
{
    return wide ? pdr_rested_avx2(last, now, most, mask) : pdr_rested_portable(last, now, most, mask);
}

/*
 * Many numbers in groups of sixteen, of each the least and who has it. v has a multiple of sixteen; least and mask one for each group.
 */
typedef struct pdr_groups {
    uint64_t *v, *least;
    uint16_t *mask;
} pdr_groups;

static inline pdr_least pdr_least_of(const uint64_t v[PDR_LEAST_OF], int wide) { return wide ? pdr_least_avx2(v) : pdr_least_portable(v); }

static inline void pdr_groups_renew(const pdr_groups *g, uint32_t group, int wide)
{
    pdr_least x = pdr_least_of(g->v + group * PDR_LEAST_OF, wide);
    g->least[group] = x.value;
    g->mask[group] = (uint16_t)x.mask;
}

/* The first of the groups with the least number; *level: others have it as well, or several in it. There is a group. */
static inline uint32_t pdr_groups_first(const pdr_groups *g, uint32_t groups, int *level)
{
    uint64_t least = g->least[0];
    uint32_t first = 0, others = 0;
    for (uint32_t i = 1; i < groups; i++) {
        if (g->least[i] > least) continue;
        others = g->least[i] == least;
        first = others ? first : i;
        least = g->least[i];
    }
    *level = others || (g->mask[first] & (g->mask[first] - 1));
    return first;
}

#endif
