#include "places.h"

#include <string.h>

uint32_t pdr_places_find(pdr_places *p, const uint8_t *taken, uint32_t total, uint32_t n)
{
    uint32_t at = 0, run = 0;
    int      size = 0;
    for (int i = 0; i < PDR_PLACES_SIZES && 1u << i <= n; size = i++)
        if (p->from[i] > at) at = p->from[i];
    for (; at < total && run < n; at++) run = taken[at] ? 0 : run + 1;
    at = run == n ? at - n : total;
    if (1u << size == n) p->from[size] = at; /* none was found before it */
    return at;
}

void pdr_places_take(pdr_places *p, uint8_t *taken, uint32_t first, uint32_t n)
{
    memset(taken + first, 1, n);
    for (int i = 0; i < PDR_PLACES_SIZES; i++)
        if (p->from[i] >= first && p->from[i] < first + n) p->from[i] = first + n;
}

void pdr_places_give(pdr_places *p, uint8_t *taken, uint32_t first, uint32_t n)
{
    memset(taken + first, 0, n);
    for (int i = 0; i < PDR_PLACES_SIZES; i++) {
        uint32_t reach = (1u << i) - 1, least = first > reach ? first - reach : 0;
        if (p->from[i] > least) p->from[i] = least;
    }
}

int pdr_places_check(const pdr_places *p, const uint8_t *taken, uint32_t total)
{
    uint32_t run = 0;
    for (uint32_t at = 0; at < total; at++) {
        run = taken[at] ? 0 : run + 1;
        for (int i = 0; i < PDR_PLACES_SIZES && 1u << i <= run; i++)
            if (at + 1 - (1u << i) < p->from[i]) return 0;
    }
    return 1;
}
