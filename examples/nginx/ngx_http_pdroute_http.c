/* Response heads and chunked framing, for connections that no ngx_http_request_t belongs to. */
#include "ngx_http_pdroute.h"
#include "../gate/retry_after.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* ------------------------------------------------------------------------------------------------------------- head */

/* `word` in lower case, of letters and '-' and '/' only. */
static inline ngx_uint_t same(const u_char *p, const char *word, size_t n)
{
    const uint64_t lower = 0x2020202020202020ull;
    uint64_t a, b;

    for (; n >= 8; p += 8, word += 8, n -= 8) {
        ngx_memcpy(&a, p, 8);
        ngx_memcpy(&b, word, 8);
        if ((a | lower) != b) return 0;
    }
    for (; n; p++, word++, n--) {
        if ((*p | 0x20) != (u_char)*word) return 0;
    }
    return 1;
}

static ngx_uint_t contains(const u_char *p, size_t len, const char *word)
{
    size_t n = ngx_strlen(word);

    for (; len >= n; p++, len--) {
        if (same(p, word, n)) return 1;
    }
    return 0;
}

#define STARTS(p, len, word) ((len) >= sizeof(word) - 1 && same(p, word, sizeof(word) - 1))
#define IS(p, len, word)     ((len) == sizeof(word) - 1 && same(p, word, sizeof(word) - 1))

static ngx_int_t header(ngx_http_pdroute_head_t *head, const u_char *name, size_t name_len, const u_char *value,
                        size_t len)
{
    off_t n;

    switch (name_len) {
    case 4:
        if (IS(name, name_len, "date")) return NGX_OK;
        break;
    case 6:
        if (IS(name, name_len, "server")) return NGX_OK;
        break;
    case 14:
        if (!IS(name, name_len, "content-length")) break;
        n = ngx_atoof((u_char *)value, len);
        if (n < 0 || (head->content_length >= 0 && head->content_length != n)) return NGX_ERROR;
        head->content_length = n;
        return NGX_OK;
    case 17:
        if (!IS(name, name_len, "transfer-encoding")) break;
        if (!IS(value, len, "chunked")) return NGX_ERROR; /* another coding, that nobody asked for and nobody here undoes */
        head->chunked = 1;
        break;
    case 10:
        if (!IS(name, name_len, "connection")) break;
        if (IS(value, len, "keep-alive")) return NGX_OK;
        if (contains(value, len, "close"))
            head->close = 1;
        else if (contains(value, len, "keep-alive"))
            head->close = 0;
        return NGX_OK;
    case 11:
        if (IS(name, name_len, "retry-after")) head->retry_after_ms = retry_after_ms((const char *)value, len, ngx_time());
        break;
    case 12:
        if (!IS(name, name_len, "content-type")) break;
        head->json = STARTS(value, len, "application/json");
        head->event_stream = !head->json && STARTS(value, len, "text/event-stream");
        if (head->json && len == sizeof("application/json") - 1) return NGX_OK;
        break;
    case 16:
        if (IS(name, name_len, "content-encoding")) head->encoded = !IS(value, len, "identity");
        break;
    default:
        break;
    }
    head->others = 1;
    return NGX_OK;
}

/* Sixteen bytes at once, in the vector extension of gcc and clang: SSE2, NEON or plain code. */
typedef unsigned char bytes16_t __attribute__((vector_size(16)));

static inline bytes16_t load16(const u_char *p)
{
    bytes16_t v;
    ngx_memcpy(&v, p, sizeof(v));
    return v;
}

/* Whether a comparison is true for any byte, and up to which byte it is not. */
static inline ngx_uint_t first_true(bytes16_t m, size_t *first)
{
#ifdef __SSE2__
    unsigned bits = (unsigned)_mm_movemask_epi8((__m128i)m);
    if (bits == 0) return 0;
    *first = (size_t)__builtin_ctz(bits);
    return 1;
#else
    uint64_t half[2];
    ngx_memcpy(half, &m, sizeof(half));
    *first = 0; /* the caller looks on byte by byte */
    return (half[0] | half[1]) != 0;
#endif
}

/* The first of ':', DEL, blanks and control characters from p on, or last. */
static inline u_char *name_end(u_char *p, u_char *last)
{
    size_t first;

    for (; last - p >= 16; p += 16) {
        bytes16_t v = load16(p);
        if (!first_true((bytes16_t)(v <= ' ') | (bytes16_t)(v == ':') | (bytes16_t)(v == 0x7f), &first)) continue;
        p += first;
        break;
    }
    while (p<last && * p> ' ' && *p != ':' && *p != 0x7f) p++;
    return p;
}

/* The first character from p on that ends a value or may not stand in one, or last. */
static inline u_char *value_end(u_char *p, u_char *last)
{
    size_t first;

    for (; last - p >= 16; p += 16) {
        bytes16_t v = load16(p);
        if (!first_true((bytes16_t)(v == '\n') | (bytes16_t)(v == '\r') | (bytes16_t)(v == 0), &first)) continue;
        p += first;
        break;
    }
    while (p < last && *p != '\n' && *p != '\r' && *p != '\0') p++;
    return p;
}

ngx_int_t ngx_http_pdroute_line_next(u_char **pos, u_char *last, ngx_http_pdroute_line_t *line)
{
    u_char *p = *pos, *colon, *value, *end, *eol;

    colon = name_end(p, last);
    if (colon == last) return NGX_AGAIN;
    if (colon == p) { /* the empty line, or a line without a name */
        if (*p == '\r' && ++p == last) return NGX_AGAIN;
        if (*p != '\n') return NGX_ERROR;
        *pos = p + 1;
        return NGX_DONE;
    }
    if (*colon != ':') return NGX_ERROR; /* no client would take such a name */
    for (value = colon + 1; value < last && (*value == ' ' || *value == '\t'); value++) continue;
    end = eol = value_end(value, last);
    if (eol < last && *eol == '\r') eol++;
    if (eol == last) return NGX_AGAIN;
    if (*eol != '\n') return NGX_ERROR; /* what another reader could take for the end of a line, or of the text */
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    *pos = eol + 1;
    line->name = p;
    line->name_len = (size_t)(colon - p);
    line->value = value;
    line->value_len = (size_t)(end - value);
    return NGX_OK;
}

/* One head: the status line and headers up to the empty line. */
static ngx_int_t parse_one(u_char *p, u_char *last, ngx_http_pdroute_head_t *head)
{
    ngx_http_pdroute_line_t line;
    u_char *start = p, *eol;
    ngx_int_t rc;

    ngx_memzero(head, sizeof(*head));
    head->content_length = -1;
    eol = memchr(p, '\n', (size_t)(last - p));
    if (last - p >= 5 && ngx_memcmp(p, "HTTP/", 5) != 0) return NGX_ERROR;
    if (eol == NULL) return NGX_AGAIN;
    if (eol - p < 12 || ngx_memcmp(p, "HTTP/1.", 7) != 0 || p[8] != ' ') return NGX_ERROR;
    if (p[9] < '1' || p[9] > '9' || p[10] < '0' || p[10] > '9' || p[11] < '0' || p[11] > '9') return NGX_ERROR;
    if (p[12] != ' ' && p[12] != '\r' && p[12] != '\n') return NGX_ERROR; /* p[12] is there: p + 12 <= eol */
    head->status = (ngx_uint_t)((p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0'));
    head->close = p[7] == '0';
    p = eol + 1;
    while ((rc = ngx_http_pdroute_line_next(&p, last, &line)) == NGX_OK) {
        if (header(head, line.name, line.name_len, line.value, line.value_len) != NGX_OK) return NGX_ERROR;
    }
    if (rc != NGX_DONE) return rc;
    head->length = (size_t)(p - start);
    if (head->chunked) head->content_length = -1; /* RFC 9112 §6.3 */
    return NGX_OK;
}

ngx_int_t ngx_http_pdroute_head_parse(u_char *p, u_char *last, ngx_http_pdroute_head_t *head)
{
    u_char *start = p;
    ngx_int_t rc;

    while ((rc = parse_one(p, last, head)) == NGX_OK && head->status < 200) {
        if (head->status == NGX_HTTP_SWITCHING_PROTOCOLS) return NGX_ERROR;
        p += head->length;
        if (p == last) return NGX_AGAIN;
    }
    if (rc != NGX_OK) return rc;
    head->skip = (size_t)(p - start);
    head->length += head->skip;
    return NGX_OK;
}

/* ---------------------------------------------------------------------------------------------------------- chunked */

enum {
    CH_SIZE_FIRST = 0,
    CH_SIZE,
    CH_EXTENSION,
    CH_DATA,
    CH_DATA_CR,
    CH_DATA_LF,
    CH_TRAILER_START,
    CH_TRAILER,
    CH_END_LF,
    CH_DONE
};

static int hex(u_char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

ngx_int_t ngx_http_pdroute_chunked_next(ngx_http_pdroute_chunked_t *ch, u_char **pos, u_char *last, u_char **begin,
                                        u_char **end)
{
    u_char *p = *pos;
    int digit;
    size_t n;

    for (; p < last; p++) {
        switch (ch->state) {
        case CH_SIZE_FIRST:
            ch->size = 0;
            if ((digit = hex(*p)) < 0) return NGX_ERROR;
            ch->size = (uint64_t)digit;
            ch->state = CH_SIZE;
            break;
        case CH_SIZE:
            if ((digit = hex(*p)) >= 0) {
                if (ch->size >> 56) return NGX_ERROR;
                ch->size = ch->size << 4 | (uint64_t)digit;
                break;
            }
            if (*p != '\r' && *p != '\n' && *p != ';' && *p != ' ' && *p != '\t') return NGX_ERROR;
            ch->state = CH_EXTENSION;
            /* fall through */
        case CH_EXTENSION:
            if (*p == '\n') ch->state = ch->size ? CH_DATA : CH_TRAILER_START;
            break;
        case CH_DATA:
            n = (size_t)(last - p);
            if (n > ch->size) n = (size_t)ch->size;
            *begin = p;
            *end = *pos = p + n;
            ch->size -= n;
            if (ch->size == 0) ch->state = CH_DATA_CR;
            return NGX_OK;
        case CH_DATA_CR:
            if (*p == '\n')
                ch->state = CH_SIZE_FIRST;
            else if (*p == '\r')
                ch->state = CH_DATA_LF;
            else
                return NGX_ERROR;
            break;
        case CH_DATA_LF:
            if (*p != '\n') return NGX_ERROR;
            ch->state = CH_SIZE_FIRST;
            break;
        case CH_TRAILER_START:
            if (*p == '\n') goto done;
            ch->state = *p == '\r' ? CH_END_LF : CH_TRAILER;
            break;
        case CH_TRAILER:
            if (*p == '\n') ch->state = CH_TRAILER_START;
            break;
        case CH_END_LF:
            if (*p != '\n') return NGX_ERROR;
            goto done;
        default:
            return NGX_ERROR; /* bytes after the end */
        }
    }
    *pos = p;
    return NGX_AGAIN;
done:
    ch->state = CH_DONE;
    *pos = p + 1;
    return NGX_DONE;
}
