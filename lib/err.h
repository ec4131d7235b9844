/*
 * Errors: filling a caller's pdr_error. The bottom layer; includes nothing of lib/.
 * Every function takes err == NULL and writes no further than err->struct_size.
 */
#ifndef PDR_ERR_H
#define PDR_ERR_H

#include "pdroute/pdroute.h"

/* Sets code and a printf-formatted sentence, returns code. */
int pdr_fail(pdr_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same with a byte offset and its 1-based line (0: none). */
int pdr_fail_at(pdr_error *err, int code, uint64_t offset, uint32_t line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* True if a caller's struct is large enough to hold at least its struct_size and `least` bytes. */
static inline int pdr_struct_ok(const void *s, size_t least)
{
    uint32_t size;
    if (!s) return 0;
    __builtin_memcpy(&size, s, sizeof size);
    return size >= least;
}

/* What a newer caller's struct may be longer than ours. No release will add so much at once; a size beyond it is no size but what lay in memory
 * before, and nothing behind the struct may be read because of it. */
#define PDR_STRUCT_GROWTH 4096
/* Reads an input struct of the caller's size into `dst` (known bytes, rest zero). PDR_E_VERSION if bytes beyond what is known are set, or too many. */
int pdr_struct_in(void *dst, size_t known, const void *src, pdr_error *err);
/* Writes an output struct, no further than the caller's struct_size, which is kept. */
int pdr_struct_out(void *dst, const void *src, size_t known, pdr_error *err);

#endif
