/*
 * Places: first fit of runs in a row of marks (a byte each, 0 free), with a memory of where looking is in vain.
 *
 * For 1, 2, 4 … 1024 places in a row it is kept before which place no such run begins. So a table is filled in one walk altogether, however many are taken one
 * after the other, and each still gets the first run that fits. Finding after something was given back, or where the gaps are too small by less than
 * half, walks over what lies between.
 */
#ifndef PDR_PLACES_H
#define PDR_PLACES_H

#include <stdint.h>

enum { PDR_PLACES_SIZES = 11 };

typedef struct pdr_places {
    uint32_t from[PDR_PLACES_SIZES]; /* no run of 1 << i free ones begins before; all 0: nothing is known */
} pdr_places;

/* First of n free ones in a row among `total`, `total` if there are none. */
uint32_t pdr_places_find(pdr_places *p, const uint8_t *taken, uint32_t total, uint32_t n);
void     pdr_places_take(pdr_places *p, uint8_t *taken, uint32_t first, uint32_t n);
void     pdr_places_give(pdr_places *p, uint8_t *taken, uint32_t first, uint32_t n);
/* 1 if what it remembers is so. */
int      pdr_places_check(const pdr_places *p, const uint8_t *taken, uint32_t total);

#endif
