/* Lines to standard error. */
#include "gate.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

void gate_log(const char *level, const char *format, ...)
{
    char text[1024], when[32];
    struct timespec now;
    struct tm tm;
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)fprintf(stderr, "%s.%03ldZ [%s] %s\n", when, now.tv_nsec / 1000000, level, text);
}
