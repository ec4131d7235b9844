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

    if (size > 4096) return 0;
    pdr_response_init(&bytes, kind);
    for (size_t at = 0; at < size; at++) pdr_response_feed(&bytes, text + at, 1);
    same(&whole, &bytes);
    return 0;
}
