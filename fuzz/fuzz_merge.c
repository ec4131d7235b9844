/*
 * Whole answers and error texts: any two texts are merged without a step out of either, in slices as in one buffer, and no byte of decode's changes its
 * order; masking keeps the length, and JSON stays JSON. Byte 0 chooses api and kind, byte 1 where the texts are divided (in 256ths).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include "doc.h"

#include "pdroute/pdroute.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *own(const uint8_t *p, size_t n) /* of its own size: a sanitizer sees what is read beyond */
{
    char *copy = malloc(n ? n : 1);
    if (!copy) abort();
    memcpy(copy, p, n);
    return copy;
}

static void merge(uint32_t api, uint32_t kind, const char *prefill, size_t p, const char *decode, size_t d)
{
    static pdr_slice slices[1 << 16];
    pdr_merge        m, again;
    size_t           n = 1 << 16, need = 0, at = 0;
    uint64_t         last = 0;
    pdr_merge_init(&m, api, kind);
    again = m;
    int code = pdr_merge_slices(&m, prefill, p, decode, d, slices, &n);
    if (code == PDR_E_NOSPACE) return;
    if (code) abort();
    if (pdr_merge_text(&again, prefill, p, decode, d, NULL, 0, &need) != (need ? PDR_E_NOSPACE : PDR_OK)) abort();
    char *text = malloc(need ? need : 1);
    if (!text || pdr_merge_text(&again, prefill, p, decode, d, text, need, &need)) abort();
    for (size_t i = 0; i < n; i++) {
        const pdr_slice *s = &slices[i];
        if (s->offset > (s->source ? p : d) || s->length > (s->source ? p : d) - s->offset || at + s->length > need) abort();
        if (memcmp(text + at, (s->source ? prefill : decode) + s->offset, s->length)) abort();
        if (!s->source) {
            if (s->offset < last) abort();
            last = s->offset + s->length;
        }
        at += s->length;
    }
    if (at != need) abort();
    free(text);
}

static int is_json(const char *text, size_t len)
{
    pdr_doc doc;
    int     ok = !pdr_doc_parse(&doc, text, len, NULL);
    if (ok) pdr_doc_free(&doc);
    return ok;
}

static void mask(const char *text, size_t len)
{
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    d.room = len * 1000 + 17;
    strcpy(d.prefill_host, "10.0.0.1");
    strcpy(d.decode_host, "decode-7");
    char *copy = own((const uint8_t *)text, len);
    int   json = is_json(text, len);
    if (pdr_error_mask(&d, copy, len)) abort();
    (void)pdr_error_status(copy, len);
    /* two of the names become one: the reader here refuses a member that is there twice */
    if (json && !memmem(text, len, "bootstrap_", 10) && !is_json(copy, len)) abort();
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    uint32_t api = data[0] & 1 ? PDR_API_COMPLETIONS : PDR_API_GENERATE, kind = data[0] & 2 ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON;
    size_t   p = (size - 2) * data[1] / 256, d = size - 2 - p;
    char    *prefill = own(data + 2, p), *decode = own(data + 2 + p, d);
    merge(api, kind, prefill, p, decode, d);
    mask(decode, d);
    free(prefill);
    free(decode);
    return 0;
}
