/* Lines to standard error: each is one line of UTF-8 that steers no terminal, whatever clients, servers and data planes are called. */
#include "gate.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

/* Bytes of the UTF-8 character at p that may be shown, 0: none is there. */
static size_t shown(const unsigned char *p)
{
    const size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;

    if (n == 1) return *p >= ' ' && *p != 0x7f;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0; /* a zero ends it here, too */
    }
    if (n == 2 && p[0] == 0xc2 && p[1] < 0xa0) return 0; /* C1 */
    if (n == 3 && ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0))) return 0; /* too long, surrogates */
    if (n == 3 && p[0] == 0xe2 && p[1] == 0x80 && (p[2] == 0xa8 || p[2] == 0xa9)) return 0; /* line and paragraph separators */
    if (n == 4 && ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90))) return 0;
    return n;
}

static void make_plain(char *text)
{
    for (size_t n; *text; text += n) {
        if ((n = shown((const unsigned char *)text)) != 0) continue;
        *text = '?';
        n = 1;
    }
}

void gate_log(const char *level, const char *format, ...)
{
    char text[1024], when[32];
    struct timespec now;
    struct tm tm;
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    make_plain(text);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)fprintf(stderr, "%s.%03ldZ [%s] %s\n", when, now.tv_nsec / 1000000, level, text);
}
