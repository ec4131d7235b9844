/*
 * Retry-After of a worker's answer in milliseconds, in both its forms (RFC 9110 §10.2.3): seconds, or a date, of which the one that senders must write (IMF-fixdate) is
 * understood. 0: not said, in the past, or neither. Pure; `now` is the wall clock in seconds. A clock that is wrong costs no more than the router's longest pause.
 */
#ifndef PDR_GATE_RETRY_AFTER_H
#define PDR_GATE_RETRY_AFTER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RETRY_AFTER_MOST 999999999u /* seconds: whatever is more */

/* `n` digits at p; -1: they are not all digits. */
static inline int64_t retry_after_number(const char *p, size_t n)
{
    int64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') return -1;
        if (v <= (int64_t)RETRY_AFTER_MOST) v = v * 10 + (p[i] - '0');
    }
    return n ? v : -1;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" in seconds since 1970; -1: it is none. */
static inline int64_t retry_after_date(const char *p, size_t n)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if (n != 29 || memcmp(p + 3, ", ", 2) || p[7] != ' ' || p[11] != ' ' || p[16] != ' ' || p[19] != ':' || p[22] != ':' || memcmp(p + 25, " GMT", 4)) return -1;
    int64_t day = retry_after_number(p + 5, 2), year = retry_after_number(p + 12, 4), hour = retry_after_number(p + 17, 2);
    int64_t minute = retry_after_number(p + 20, 2), second = retry_after_number(p + 23, 2), month = 0;
    while (month < 12 && memcmp(months + 3 * month, p + 8, 3)) month++;
    if (month == 12 || day < 1 || day > 31 || year < 1970 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return -1;
    /* years that begin in March have their odd day at the end */
    int64_t y = year - (month < 2), m = (month + 10) % 12;
    int64_t days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719468;
    return ((days * 24 + hour) * 60 + minute) * 60 + second;
}

static inline uint64_t retry_after_ms(const char *p, size_t n, int64_t now)
{
    int64_t seconds = retry_after_number(p, n);
    if (seconds < 0) {
        int64_t date = retry_after_date(p, n);
        seconds = date > now ? date - now : 0;
    }
    return (uint64_t)(seconds > (int64_t)RETRY_AFTER_MOST ? (int64_t)RETRY_AFTER_MOST : seconds) * 1000;
}

#endif
