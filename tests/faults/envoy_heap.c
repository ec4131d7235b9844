/*
 * Loaded before AddressSanitizer's runtime into an Envoy whose allocator is hidden from libraries (tests/tools/hide_malloc.py), so that Envoy's module and libc have the sanitizer's heap and
 * Envoy keeps its own. What libc allocates and Envoy frees must then be of Envoy's heap: these calls, if it is Envoy who makes them.
 *
 * ENVOY_MALLOC: where Envoy's malloc() lies, from its beginning on (hexadecimal).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct { char *begin, *end; } program;

static int look(struct dl_phdr_info *info, size_t size, void *unused)
{
    (void)size, (void)unused;
    program.begin = (char *)info->dlpi_addr; /* the first one is the program */
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) program.end = program.begin + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    return 1;
}

static int of_program(const void *caller)
{
    if (!program.end) dl_iterate_phdr(look, NULL);
    return (const char *)caller >= program.begin && (const char *)caller < program.end;
}

static void *theirs(size_t size)
{
    const char *offset = getenv("ENVOY_MALLOC");
    void       *at;
    void *(*allocate)(size_t);
    if (!offset) {
        fputs("envoy_heap: ENVOY_MALLOC is not set\n", stderr);
        _exit(99);
    }
    at = program.begin + strtoull(offset, NULL, 16);
    memcpy(&allocate, &at, sizeof allocate);
    return allocate(size);
}

static void *real(const char *name, const char *version)
{
    void *f = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
    return f ? f : dlsym(RTLD_NEXT, name);
}

static char *copy(const char *s)
{
    size_t size = strlen(s) + 1;
    char  *p = theirs(size);
    return p ? memcpy(p, s, size) : NULL;
}

char *realpath(const char *path, char *out)
{
    char *(*next)(const char *, char *);
    char  buffer[PATH_MAX];
    void *f = real("realpath", "GLIBC_2.3");
    memcpy(&next, &f, sizeof next);
    if (out || !of_program(__builtin_return_address(0))) return next(path, out);
    return next(path, buffer) ? copy(buffer) : NULL;
}

char *strdup(const char *s)
{
    char *(*next)(const char *);
    void *f;
    if (of_program(__builtin_return_address(0))) return copy(s);
    f = real("strdup", NULL);
    memcpy(&next, &f, sizeof next);
    return next(s);
}

char *getcwd(char *out, size_t size)
{
    char *(*next)(char *, size_t);
    char  buffer[PATH_MAX];
    void *f = real("getcwd", NULL);
    memcpy(&next, &f, sizeof next);
    if (out || !of_program(__builtin_return_address(0))) return next(out, size);
    return next(buffer, sizeof buffer) ? copy(buffer) : NULL;
}

int vasprintf(char **out, const char *format, va_list list)
{
    int (*next)(char **, const char *, va_list);
    void   *f;
    va_list again;
    int     n;
    if (!of_program(__builtin_return_address(0))) {
        f = real("vasprintf", NULL);
        memcpy(&next, &f, sizeof next);
        return next(out, format, list);
    }
    va_copy(again, list);
    n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0 || !(*out = theirs((size_t)n + 1))) return -1;
    return vsnprintf(*out, (size_t)n + 1, format, list);
}
