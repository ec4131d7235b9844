/*
 * What the nginx module reads of a worker's answer by itself (examples/nginx/ngx_http_pdroute_http.c): head and chunked framing. Any bytes, cut anywhere, give what they give
 * in one piece; every piece lies inside. Byte 0 tells the size of the pieces.
 */
#include "nginx_answer.h" /* from the module's header, made by fuzz/CMakeLists.txt */

#pragma GCC diagnostic ignored "-Wconversion" /* nginx's own style */
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "../examples/nginx/ngx_http_pdroute_http.c"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The content of a chunked body as one text, and how it ended. */
static ngx_int_t content(const u_char *in, size_t n, size_t piece, u_char *out, size_t *out_n, size_t *used)
{
    ngx_http_pdroute_chunked_t ch = {0, 0};
    ngx_int_t                  rc = NGX_AGAIN;
    *out_n = *used = 0;
    for (size_t at = 0; at < n && rc != NGX_DONE && rc != NGX_ERROR; at += piece) {
        size_t  len = n - at < piece ? n - at : piece;
        u_char *copy = malloc(len), *p = copy, *begin, *end;
        if (!copy) abort();
        memcpy(copy, in + at, len);
        while ((rc = ngx_http_pdroute_chunked_next(&ch, &p, copy + len, &begin, &end)) == NGX_OK) {
            if (begin < copy || end > copy + len || begin > end) abort();
            memcpy(out + *out_n, begin, (size_t)(end - begin));
            *out_n += (size_t)(end - begin);
        }
        if (rc == NGX_AGAIN && p != copy + len) abort();
        *used = at + (size_t)(p - copy);
        free(copy);
    }
    return rc;
}

static void chunked(const u_char *in, size_t n, size_t piece)
{
    u_char *one = malloc(n + 1), *two = malloc(n + 1);
    size_t  one_n, two_n, one_used, two_used;
    if (!one || !two) abort();
    ngx_int_t a = content(in, n, n ? n : 1, one, &one_n, &one_used), b = content(in, n, piece, two, &two_n, &two_used);
    if (a != b || one_n != two_n || memcmp(one, two, one_n) || (a == NGX_DONE && one_used != two_used)) abort();
    free(one);
    free(two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ngx_http_pdroute_head_t head, cut;
    if (!size) return 0;
    size_t  n = size - 1, piece = 1 + data[0] % 64u;
    u_char *copy = malloc(n ? n : 1);
    if (!copy) return 0;
    memcpy(copy, data + 1, n);
    ngx_int_t rc = ngx_http_pdroute_head_parse(copy, copy + n, &head);
    if (rc == NGX_OK) {
        if (head.length > n || head.skip > head.length || head.status < 200 || head.status > 999 || (head.chunked && head.content_length != -1)) abort();
        /* nothing less is a head, and nothing behind it matters */
        for (size_t k = 0; k <= head.length; k += k + 64 < head.length ? 17 : 1) {
            u_char *part = malloc(k ? k : 1);
            if (!part) abort();
            memcpy(part, copy, k);
            ngx_int_t got = ngx_http_pdroute_head_parse(part, part + k, &cut);
            if (got != (k == head.length ? NGX_OK : NGX_AGAIN)) abort();
            free(part);
        }
        u_char *p = copy + head.skip, *eol = memchr(p, '\n', head.length - head.skip);
        ngx_http_pdroute_line_t line;
        for (p = eol + 1; ngx_http_pdroute_line_next(&p, copy + head.length, &line) == NGX_OK;) {
            if (line.name < copy || line.value + line.value_len > copy + head.length || memchr(line.value, '\n', line.value_len)) abort();
        }
        if (p != copy + head.length) abort();
        if (head.chunked) chunked(copy + head.length, n - head.length, piece);
    } else if (rc != NGX_AGAIN && rc != NGX_ERROR) {
        abort();
    }
    chunked(copy, n, piece);
    free(copy);
    return 0;
}
