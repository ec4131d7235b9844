/* Shared by the scanner's tests: one body through every path, which must agree in everything, and with
 * pdr_json_check(). */
#ifndef SCAN_PATHS_H
#define SCAN_PATHS_H

#include "json.h"
#include "prompt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#define TEST_BLOCKS 512

/* Memory of which the last of `len` bytes is the last that may be read: a byte further ends the test, with a sanitizer or without. Another call takes it back. */
static inline char *test_guarded(size_t len)
{
    static char *end;
    static size_t size;
    if (len > size) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE), more = (len + (1 << 20)) / page * page + page;
        if (end) munmap(end - size, size + (size_t)sysconf(_SC_PAGESIZE));
        char *p = mmap(NULL, more + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED || mprotect(p + more, page, PROT_NONE)) fail_msg("no memory for a body");
        end = p + more;
        size = more;
    }
    return end - len;
}

typedef struct scanned {
    int code;
    pdr_prompt prompt;
    pdr_error err;
    uint64_t hashes[TEST_BLOCKS];
} scanned;

static inline void scan_path(int path, const char *body, size_t len, uint32_t api, const pdr_limits *limits, scanned *s)
{
    memset(s, 0, sizeof *s);
    pdr_init_struct(&s->prompt, sizeof s->prompt);
    pdr_init_struct(&s->err, sizeof s->err);
    s->code = pdr_scan_by(path, body, len, api, limits, &s->prompt, s->hashes, TEST_BLOCKS, &s->err);
    if (s->code) memset(s->hashes, 0, sizeof s->hashes);
}

/* Scans a copy that ends where its memory ends, begun `shift` bytes into it. */
static inline int scan_everywhere(const char *body, size_t len, uint32_t api, const pdr_limits *limits, unsigned shift,
                                  scanned *out)
{
    char *copy = test_guarded(len + shift);
    scanned other;
    pdr_error err;
    int checked;
    memcpy(copy + shift, body, len);
    scan_path(PDR_PATH_PORTABLE, copy + shift, len, api, limits, out);
    for (int path = PDR_PATH_AVX2; path <= PDR_PATH_NEON; path++) {
        if (!pdr_path_usable(path)) continue;
        scan_path(path, copy + shift, len, api, limits, &other);
        if (memcmp(&other, out, sizeof other)) {
            fprintf(stderr, "path %d differs: code %d and %d, blocks %u and %u: %.*s\n", path, other.code, out->code,
                    other.prompt.blocks, out->prompt.blocks, (int)(len < 300 ? len : 300), body);
            fail();
        }
    }
    pdr_init_struct(&err, sizeof err);
    checked = pdr_json_check(copy + shift, len, limits && limits->max_depth ? limits->max_depth : 128, &err);
    if (checked) {
        if (out->code != checked || memcmp(&err, &out->err, sizeof err)) {
            fprintf(stderr, "scan %d (%s), check %d (%s): %.*s\n", out->code, out->err.message, checked, err.message,
                    (int)(len < 300 ? len : 300), body);
            fail();
        }
    } else if (api == PDR_API_OTHER && out->code && out->code != PDR_E_TOO_LARGE) {
        fprintf(stderr, "scan %d (%s), check accepts: %.*s\n", out->code, out->err.message,
                (int)(len < 300 ? len : 300), body);
        fail();
    }
    return out->code;
}

static inline uint32_t test_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32);
}

#endif
