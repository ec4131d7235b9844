/* Counts the allocations of the program that includes it (one file of it): malloc, calloc, realloc, and operator new, which calls malloc. glibc only. */
#ifndef PDR_BENCH_ALLOCS_H
#define PDR_BENCH_ALLOCS_H

#include <stdlib.h>

#ifndef __GLIBC__
#error "allocations are counted through glibc's own names"
#endif

static unsigned long allocations;
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);
__attribute__((visibility("default"))) void *malloc(size_t size)
{
    allocations++;
    return __libc_malloc(size);
}
__attribute__((visibility("default"))) void *calloc(size_t n, size_t size)
{
    allocations++;
    return __libc_calloc(n, size);
}
__attribute__((visibility("default"))) void *realloc(void *p, size_t size)
{
    allocations++;
    return __libc_realloc(p, size);
}

#endif
