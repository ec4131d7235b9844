#include "similar.h"

#include <stdint.h>
#include <string.h>

#define LONGEST 64

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

/* Levenshtein distance, case apart; SIZE_MAX for names beyond LONGEST. */
static size_t distance(const char *a, const char *b)
{
    size_t row[LONGEST + 1], n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return SIZE_MAX;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = diagonal + (lower(a[i - 1]) != lower(b[j - 1]));
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *pdr_similar(const char *name, const char *const *known)
{
    const char *best = NULL;
    size_t      least = strlen(name) / 3 + 2; /* about a third of the letters may be wrong */
    for (; *known; known++) {
        size_t d = distance(name, *known);
        if (d >= least) continue;
        least = d;
        best = *known;
    }
    return best;
}
