/*
 * Callers of other versions: whatever struct_size says, a library reads and writes no further, takes zeros behind what it knows, and refuses
 * anything else there. Memory is exactly as large as struct_size says, so that AddressSanitizer sees every byte too many.
 */
#ifndef PDR_TEST_STRUCT_SIZE_H
#define PDR_TEST_STRUCT_SIZE_H

#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

enum { NEWER = 24, GUARD = 64, GROWTH = 4096 /* as pdroute.h says */ };

typedef int struct_call(void *context, void *s); /* one call that takes or fills the struct */

static inline void *sized(const void *from, size_t known, size_t size, int fill)
{
    uint32_t n = (uint32_t)size;
    char    *s = malloc(size);
    assert_non_null(s);
    memset(s, fill, size);
    memcpy(s, from, size < known ? size : known);
    memcpy(s, &n, size < sizeof n ? size : sizeof n);
    return s;
}

/* A size that no struct has is refused before anything behind the struct is read: there is no memory there. */
static inline void check_not_read_behind(struct_call *call, void *context, const void *full, size_t known)
{
    static const uint32_t sizes[] = {UINT32_MAX, 1u << 31, 1u << 20};
    const size_t          page = 65536; /* a multiple of any */
    char                 *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mprotect(map + page, page, PROT_NONE), 0);
    char *s = map + page - known;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memcpy(s, full, known);
        memcpy(s, &sizes[i], sizeof sizes[i]);
        assert_int_equal(call(context, s), PDR_E_VERSION);
    }
    munmap(map, 2 * page);
    char *longest = sized(full, known, known + GROWTH + 1, 0);
    assert_int_equal(call(context, longest), PDR_E_VERSION);
    free(longest);
    longest = sized(full, known, known + GROWTH, 0);
    int code = call(context, longest);
    free(longest);
    longest = sized(full, known, known, 0);
    assert_int_equal(code, call(context, longest));
    free(longest);
}

/* `full` is a valid input; sizes below `least` are PDR_E_VERSION or PDR_E_INVALID, from `least` on missing fields count as zero. */
static inline void check_input(struct_call *call, void *context, const void *full, size_t known, size_t least)
{
    for (size_t size = sizeof(uint32_t); size <= known; size += size < 8 ? 4 : 8) { /* never half a pointer */
        char *zero = calloc(1, known), *s = sized(full, known, size, 0), *copy;
        assert_non_null(zero);
        memcpy(zero, full, size);
        copy = sized(zero, known, known, 0);
        int code = call(context, s), want = size < least ? code : call(context, copy);
        if (size < least) assert_true(code == PDR_E_VERSION || code == PDR_E_INVALID);
        if (code != want) fail_msg("struct_size %zu gives %d, the same with zeros gives %d", size, code, want);
        free(s);
        free(copy);
        free(zero);
    }
    char *newer = sized(full, known, known + NEWER, 0);
    int   want = call(context, newer);
    free(newer);
    newer = sized(full, known, known, 0);
    assert_int_equal(call(context, newer), want);
    free(newer);
    for (size_t i = 0; i < NEWER; i++) {
        newer = sized(full, known, known + NEWER, 0);
        newer[known + i] = 1;
        assert_int_equal(call(context, newer), PDR_E_VERSION);
        free(newer);
    }
    check_not_read_behind(call, context, full, known);
    for (size_t size = 0; size < sizeof(uint32_t); size++) {
        newer = sized(full, known, known, 0);
        memset(newer, 0, sizeof(uint32_t));
        newer[0] = (char)size;
        int code = call(context, newer);
        assert_true(code == PDR_E_VERSION || code == PDR_E_INVALID);
        free(newer);
    }
}

/*
 * The call fills the struct from `least` bytes on: the same bytes at any size, nothing behind struct_size or behind what the library knows,
 * struct_size itself stays. `begin` bytes at the start are the caller's input (at least struct_size).
 */
static inline void check_output(struct_call *call, void *context, size_t known, size_t least)
{
    char *whole = malloc(known), *none = calloc(1, known);
    assert_non_null(whole);
    pdr_init_struct(whole, known);
    int want = call(context, whole);
    for (size_t size = sizeof(uint32_t); size <= known + NEWER; size += 4) {
        for (int guarded = 0; guarded < 2; guarded++) {
            char    *s = sized(none, known, size + (guarded ? GUARD : 0), 0x5A);
            uint32_t n = (uint32_t)size, kept;
            memset(s + sizeof n, 0x5A, size - sizeof n + (guarded ? GUARD : 0));
            memcpy(s, &n, sizeof n);
            int code = call(context, s);
            memcpy(&kept, s, sizeof kept);
            assert_int_equal(kept, size);
            if (size < least) {
                assert_true(code == PDR_E_VERSION || code == PDR_E_INVALID || code == want);
            } else {
                assert_int_equal(code, want);
                size_t common = size < known ? size : known;
                if (memcmp(s + sizeof n, whole + sizeof n, common - sizeof n)) fail_msg("struct_size %zu gives other values", size);
            }
            for (size_t i = known; i < size; i++) assert_int_equal(s[i], 0x5A);
            for (size_t i = size; guarded && i < size + GUARD; i++) assert_int_equal(s[i], 0x5A);
            free(s);
        }
    }
    for (uint32_t size = 0; size < sizeof size; size++) {
        char *s = malloc(known);
        assert_non_null(s);
        memset(s, 0x5A, known);
        memcpy(s, &size, sizeof size);
        call(context, s);
        for (size_t i = sizeof size; i < known; i++) assert_int_equal(s[i], 0x5A);
        free(s);
    }
    free(whole);
    free(none);
}

#endif
