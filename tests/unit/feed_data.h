/* Fixtures for the tests of what comes in from the control plane: reading them, and two ways of damaging them
 * systematically. */
#ifndef FEED_DATA_H
#define FEED_DATA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file below tests/data in memory of exactly its size, so that ASan sees a read beyond its end. Aborts if there is
 * none. */
static inline char *read_data(const char *name, size_t *len)
{
    char  path[1024], *text;
    long  size;
    FILE *f;
    snprintf(path, sizeof path, PDR_TEST_DATA "/%s", name);
    f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0 || fseek(f, 0, SEEK_SET)) {
        fprintf(stderr, "no fixture %s\n", path);
        abort();
    }
    text = malloc((size_t)size ? (size_t)size : 1);
    if (!text || fread(text, 1, (size_t)size, f) != (size_t)size) abort();
    fclose(f);
    *len = (size_t)size;
    return text;
}

typedef void (*feed_try)(const char *text, size_t len);

/* Every prefix (each in memory of its own size), stepping by `step` bytes. */
static inline void try_truncated(const char *text, size_t len, size_t step, feed_try attempt)
{
    for (size_t n = 0; n <= len; n += step) {
        char *copy = malloc(n ? n : 1);
        if (!copy) abort();
        memcpy(copy, text, n);
        attempt(copy, n);
        free(copy);
    }
}

/* Every byte in turn replaced: a flipped bit (which rotates), and characters that mean something to the readers. */
static inline void try_flipped(const char *text, size_t len, size_t step, feed_try attempt)
{
    static const char odd[] = "\"\\{}[]:, \n\r#e-.9\x80";
    char             *copy = malloc(len ? len : 1);
    if (!copy) abort();
    memcpy(copy, text, len);
    for (size_t i = 0; i < len; i += step) {
        copy[i] = (char)(text[i] ^ (1 << (i % 8)));
        attempt(copy, len);
        copy[i] = odd[i % sizeof odd];
        attempt(copy, len);
        copy[i] = text[i];
    }
    free(copy);
}

#endif
