#include "fit.h"

#include <string.h>

enum { SHARE = 1 << 12, FADE = 256, SWEEPS = 4, EARLY = 8 };
#define MULTIPLE_MOST (64ull * PDR_FIT_ONE)
#define TERM_MOST     (1ull << 40)

void pdr_fit_init(pdr_fit *f)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < PDR_FIT_TERMS - 1; i++) f->x[i] = PDR_FIT_ONE;
}

uint64_t pdr_fit_us(const pdr_fit *f, const uint64_t term[PDR_FIT_TERMS])
{
    uint64_t us = 0;
    for (int i = 0; i < PDR_FIT_TERMS; i++) us += (term[i] < TERM_MOST ? term[i] : TERM_MOST) * f->x[i] / PDR_FIT_ONE;
    return us;
}

static uint64_t within(uint64_t v, uint64_t least, uint64_t most) { return v < least ? least : v > most ? most : v; }

/* One number after the other set to what fits best while the others stay: converges, and zero is a floor that needs no further rule. */
static void solve(pdr_fit *f)
{
    uint64_t common = f->share ? within(f->took * PDR_FIT_ONE / f->share, PDR_FIT_ONE / 64, MULTIPLE_MOST) : PDR_FIT_ONE;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        for (int i = 0; i < PDR_FIT_TERMS; i++) {
            uint64_t pull = (uint64_t)SHARE * SHARE / 16, towards = i < PDR_FIT_TERMS - 1 ? common : 0;
            __int128 rest = (__int128)f->target[i] * PDR_FIT_ONE + (__int128)pull * towards;
            for (int j = 0; j < PDR_FIT_TERMS; j++)
                if (j != i) rest -= (__int128)f->moment[i][j] * f->x[j];
            __int128 x = rest / ((__int128)f->moment[i][i] + pull); /* of a damaged block as well: never by zero */
            f->x[i] = x < 0 ? 0 : x > (__int128)MULTIPLE_MOST ? MULTIPLE_MOST : (uint64_t)x;
        }
    }
    if (!f->x[0] && !f->x[1]) f->x[1] = 1; /* nothing is free */
}

void pdr_fit_add(pdr_fit *f, const uint64_t term[PDR_FIT_TERMS], uint64_t took_us)
{
    uint64_t share[PDR_FIT_TERMS], prior = 0, expected = pdr_fit_us(f, term), loose = f->samples < EARLY ? 16 : 2;
    for (int i = 0; i < PDR_FIT_TERMS - 1; i++) prior += term[i] < TERM_MOST ? term[i] : TERM_MOST;
    if (!prior || !expected) return;
    took_us = within(took_us, expected / loose, expected * loose);
    uint64_t ratio = within(took_us * SHARE / prior, 1, 64ull * SHARE);
    for (int i = 0; i < PDR_FIT_TERMS; i++) share[i] = within((term[i] < TERM_MOST ? term[i] : TERM_MOST) * SHARE / prior, 0, 16ull * SHARE);
    for (int i = 0; i < PDR_FIT_TERMS; i++) {
        for (int j = 0; j < PDR_FIT_TERMS; j++) f->moment[i][j] += share[i] * share[j] - f->moment[i][j] / FADE;
        f->target[i] += share[i] * ratio - f->target[i] / FADE;
    }
    f->share += SHARE * (uint64_t)SHARE - f->share / FADE;
    f->took += ratio * SHARE - f->took / FADE;
    f->samples++;
    solve(f);
}
