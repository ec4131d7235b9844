#include "number.h"

#include <stddef.h>

#define EXPONENT_LIMIT 100000 /* far beyond any result that fits; keeps the sum below in range */

static int is_digit(char c) { return c >= '0' && c <= '9'; }

/* Length of `word` (lower case) if [p, end) begins with it in any case, else 0. */
static size_t begins(const char *p, const char *end, const char *word)
{
    size_t n = 0;
    while (word[n]) {
        if (p + n == end || (p[n] | 0x20) != word[n]) return 0;
        n++;
    }
    return n;
}

static size_t not_finite(const char *p, const char *end)
{
    size_t n = begins(p, end, "nan");
    if (!n) n = begins(p, end, "infinity");
    if (!n) n = begins(p, end, "inf");
    return n;
}

/* mantissa * 10^exponent, rounded half up. */
static int scaled(uint64_t mantissa, long exponent, uint64_t *value)
{
    uint64_t divisor = 1;
    while (exponent > 0 && mantissa) {
        if (mantissa > UINT64_MAX / 10) return PDR_NUMBER_HUGE;
        mantissa *= 10;
        exponent--;
    }
    if (exponent < -19) { /* below 2^64 / 10^20 < 0.2 */
        *value = 0;
        return PDR_NUMBER_OK;
    }
    for (; exponent < 0; exponent++) divisor *= 10;
    *value = mantissa / divisor + (divisor > 1 && mantissa % divisor >= divisor - mantissa % divisor);
    return PDR_NUMBER_OK;
}

/* Reads [e [+-] digits]; without digits behind it the `e` is not part of the number. */
static const char *read_exponent(const char *p, const char *end, long *exponent)
{
    const char *q = p + 1;
    long        e = 0;
    int         minus = 0;
    if (p == end || (*p | 0x20) != 'e') return p;
    if (q < end && (*q == '+' || *q == '-')) minus = *q++ == '-';
    if (q == end || !is_digit(*q)) return p;
    for (; q < end && is_digit(*q); q++)
        if (e < EXPONENT_LIMIT) e = e * 10 + (*q - '0');
    *exponent += minus ? -e : e;
    return q;
}

int pdr_number_read(const char *p, const char *end, int scale, uint64_t *value, const char **next)
{
    uint64_t mantissa = 0;
    long     exponent = scale;
    int      minus = 0, digits = 0, point = 0, kind;
    size_t   word;
    *value = 0;
    *next = p;
    if (p < end && (*p == '+' || *p == '-')) minus = *p++ == '-';
    if ((word = not_finite(p, end))) {
        *next = p + word;
        return PDR_NUMBER_NOT_FINITE;
    }
    for (; p < end && (is_digit(*p) || (*p == '.' && !point)); p++) {
        if (*p == '.') {
            point = 1;
            continue;
        }
        digits = 1;
        if (mantissa <= (UINT64_MAX - 9) / 10) {
            mantissa = mantissa * 10 + (uint64_t)(*p - '0');
            exponent -= point;
        } else if (!point && exponent < EXPONENT_LIMIT) {
            exponent++; /* digits beyond the nineteenth only shift */
        }
        if (exponent < -EXPONENT_LIMIT) exponent = -EXPONENT_LIMIT;
    }
    if (!digits) return PDR_NUMBER_BAD;
    *next = read_exponent(p, end, &exponent);
    if (minus && mantissa) return PDR_NUMBER_NEGATIVE;
    kind = scaled(mantissa, exponent, value);
    if (kind) *value = 0;
    return kind;
}
