/*
 * Fit: what a prompt costs these engines, learnt from what prompts took. Four numbers, each a multiple of its prior:
 *
 *   T(u, m) = x0 base + x1 u linear + x2 u (m + u/2) quadratic + x3 m reload      u tokens computed behind m cached ones
 *
 * reload is what a cached token costs that has to come back from a slower tier; its prior is none. Least squares of the relative error, so that short prompts
 * count as much as long ones; old samples fade (half after some 180). The numbers are never negative. A weak pull towards "all multiplied by the same" stands
 * for what the samples do not say: a pool that is three times slower is known after a few, the curve's shape after some hundred. A sample counts as
 * at most twice and at least half of what was expected (the first few: sixteen times), so single outliers move little.
 *
 * Integers only, the same on every machine. Plain data in the block; about 150 ns per sample.
 */
#ifndef PDR_FIT_H
#define PDR_FIT_H

#include <stdint.h>

enum { PDR_FIT_TERMS = 4, PDR_FIT_ONE = 1 << 16 };

typedef struct pdr_fit {
    uint64_t moment[PDR_FIT_TERMS][PDR_FIT_TERMS]; /* sums of products of shares, fading */
    uint64_t target[PDR_FIT_TERMS];
    uint64_t share, took;                          /* sums for the common multiple */
    uint64_t x[PDR_FIT_TERMS];                     /* PDR_FIT_ONE: as the prior says */
    uint64_t samples;
} pdr_fit;

void pdr_fit_init(pdr_fit *f);
/* A prompt took took_us; term[] are the prior's times of the four parts (the last one at its nominal price). */
void pdr_fit_add(pdr_fit *f, const uint64_t term[PDR_FIT_TERMS], uint64_t took_us);
/* What these parts are expected to take. */
uint64_t pdr_fit_us(const pdr_fit *f, const uint64_t term[PDR_FIT_TERMS]);

#endif
