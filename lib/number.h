/*
 * Decimal text to scaled unsigned integers, without floating point, so that a value read is the same on every platform
 * and in every locale. Used by the metrics reader and the control-plane JSON reader. No allocation; linear in the
 * digits.
 */
#ifndef PDR_NUMBER_H
#define PDR_NUMBER_H

#include <stdint.h>

enum {
    PDR_NUMBER_OK = 0,
    PDR_NUMBER_NEGATIVE = 1,   /* below zero; minus zero is OK and 0 */
    PDR_NUMBER_HUGE = 2,       /* number * 10^scale does not fit 64 bits */
    PDR_NUMBER_NOT_FINITE = 3, /* NaN, +Inf, -Inf in Prometheus' and Python's spellings */
    PDR_NUMBER_BAD = 4         /* not a number */
};

/*
 * Reads the number that begins at p: [+-] digits [. digits] [e [+-] digits], or a not-finite word. *value gets number *
 * 10^scale, rounded half up, exact for up to 19 significant digits (0 unless PDR_NUMBER_OK). *next points behind what
 * was read.
 */
int pdr_number_read(const char *p, const char *end, int scale, uint64_t *value, const char **next);

#endif
