/*
 * The response reader: any bytes, cut anywhere, give what the same bytes give in one piece. Byte 0 chooses the kind,
 * bytes 1 and 2 the chunks, the rest is the response.
 */
#include "pdroute/pdroute.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const pdr_response *a, const pdr_response *b)
{
    if (a->events != b->events || a->flags != b->flags || a->bytes != b->bytes ||
        a->prompt_tokens != b->prompt_tokens || a->cached_tokens != b->cached_tokens ||
        a->completion_tokens != b->completion_tokens)
        abort();
}

static int has(const char *text, size_t size, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= size; i++)
        if (!memcmp(text + i, word, n)) return 1;
    return 0;
}

/* Passes the stream as a gateway does, in pieces of `step`: the length stays, and where no error was seen every byte. */
static void masked(const char *text, size_t size, size_t step)
{
    pdr_response s;
    char  *held = malloc(size + 1);
    size_t n = 0, sent = 0, ready, errors = 0;
    pdr_response_init(&s, PDR_RESPONSE_SSE);
    for (size_t at = 0, more; at < size; at += more) {
        more = size - at < step ? size - at : step;
        pdr_response_feed(&s, text + at, more);
        memcpy(held + n, text + at, more);
        n += more;
        char *exact = malloc(n); /* of its own size: a sanitizer sees what is read or written beyond */
        memcpy(exact, held, n);
        if (pdr_response_mask(&s, NULL, exact, n, at + more == size, &ready) || ready > n || (ready < n && at + more == size) || n - ready > 16384) abort();
        if (memcmp(exact + ready, held + ready, n - ready)) abort(); /* what is not ready is as it was */
        for (size_t i = 0; i < ready; i++) {
            if (exact[i] == held[i]) continue;
            if (exact[i] != 'x' && exact[i] != '9') abort();
            errors++;
        }
        free(exact);
        sent += ready;
        memmove(held, held + ready, n - ready);
        n -= ready;
    }
    free(held);
    if (sent != size) abort();
    if (errors && !has(text, size, "error") && !has(text, size, "abort")) abort(); /* keys are compared as bytes */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_response whole, cut, bytes;
    uint32_t kind, seed;
    const char *text = (const char *)data + 3;
    if (size < 3) return 0;
    kind = data[0] & 1 ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON;
    seed = data[1] | (uint32_t)data[2] << 8 | 1u << 16;
    size -= 3;

    pdr_response_init(&whole, kind);
    pdr_response_feed(&whole, text, size);

    pdr_response_init(&cut, kind);
    for (size_t at = 0, n; at < size; at += n) {
        seed = seed * 1664525u + 1013904223u;
        n = (seed >> 16) % (1u << ((seed >> 8) % 10)) + 1;
        if (n > size - at) n = size - at;
        char *copy = malloc(n); /* of its own size: a sanitizer sees what is read beyond */
        memcpy(copy, text + at, n);
        pdr_response_feed(&cut, copy, n);
        free(copy);
    }
    same(&whole, &cut);
    if (kind == PDR_RESPONSE_SSE) {
        masked(text, size, size ? size : 1);
        masked(text, size, data[1] + 1u);
    }

    if (size > 4096) return 0;
    pdr_response_init(&bytes, kind);
    for (size_t at = 0; at < size; at++) pdr_response_feed(&bytes, text + at, 1);
    same(&whole, &bytes);
    return 0;
}
