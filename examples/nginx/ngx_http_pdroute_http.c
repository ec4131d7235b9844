/* Response heads and chunked framing, for connections that no ngx_http_request_t belongs to. */
#include "ngx_http_pdroute.h"

/* ------------------------------------------------------------------------------------------------------------------ head */

static ngx_uint_t name_is(const u_char *p, size_t len, const char *name, size_t n)
{
    return len == n && ngx_strncasecmp((u_char *)p, (u_char *)name, n) == 0;
}

static ngx_uint_t contains(const u_char *p, size_t len, const char *word)
{
    return ngx_strlcasestrn((u_char *)p, (u_char *)p + len, (u_char *)word, ngx_strlen(word) - 1) != NULL;
}

static ngx_uint_t starts(const u_char *p, size_t len, const char *word)
{
    size_t n = ngx_strlen(word);
    return len >= n && ngx_strncasecmp((u_char *)p, (u_char *)word, n) == 0;
}

#define NAME_IS(p, len, text) name_is(p, len, text, sizeof(text) - 1)

/* Retry-After in seconds; its other form, a date, is passed to the client but not understood here. */
static uint64_t retry_after(const u_char *p, size_t len)
{
    off_t seconds = len && len < 10 ? ngx_atoof((u_char *)p, len) : NGX_ERROR;
    return seconds < 0 ? 0 : (uint64_t)seconds * 1000;
}

static ngx_int_t header(ngx_http_pdroute_head_t *head, const u_char *name, size_t name_len, const u_char *value, size_t len)
{
    off_t n;

    switch (name_len) {
    case 14:
        if (!NAME_IS(name, name_len, "Content-Length")) break;
        n = ngx_atoof((u_char *)value, len);
        if (n < 0 || (head->content_length >= 0 && head->content_length != n)) return NGX_ERROR;
        head->content_length = n;
        break;
    case 17:
        if (NAME_IS(name, name_len, "Transfer-Encoding") && contains(value, len, "chunked")) head->chunked = 1;
        break;
    case 10:
        if (!NAME_IS(name, name_len, "Connection")) break;
        if (contains(value, len, "close")) head->close = 1;
        else if (contains(value, len, "keep-alive")) head->close = 0;
        break;
    case 11:
        if (NAME_IS(name, name_len, "Retry-After")) head->retry_after_ms = retry_after(value, len);
        break;
    case 12:
        if (!NAME_IS(name, name_len, "Content-Type")) break;
        head->event_stream = starts(value, len, "text/event-stream");
        head->json = starts(value, len, "application/json");
        break;
    case 16:
        if (NAME_IS(name, name_len, "Content-Encoding")) head->encoded = !NAME_IS(value, len, "identity");
        break;
    default: break;
    }
    return NGX_OK;
}

/* One head: the status line and headers up to the empty line. */
static ngx_int_t parse_one(u_char *p, u_char *last, ngx_http_pdroute_head_t *head)
{
    u_char *start = p, *eol, *end, *colon, *value;

    ngx_memzero(head, sizeof(*head));
    head->content_length = -1;
    eol = memchr(p, '\n', (size_t)(last - p));
    if (last - p >= 5 && ngx_strncmp(p, "HTTP/", 5) != 0) return NGX_ERROR;
    if (eol == NULL) return NGX_AGAIN;
    if (eol - p < 12 || ngx_strncmp(p, "HTTP/1.", 7) != 0 || p[8] != ' ') return NGX_ERROR;
    if (p[9] < '1' || p[9] > '9' || p[10] < '0' || p[10] > '9' || p[11] < '0' || p[11] > '9') return NGX_ERROR;
    head->status = (ngx_uint_t)((p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0'));
    head->close = p[7] == '0';
    for (p = eol + 1;; p = eol + 1) {
        eol = memchr(p, '\n', (size_t)(last - p));
        if (eol == NULL) return NGX_AGAIN;
        end = eol > p && eol[-1] == '\r' ? eol - 1 : eol;
        if (end == p) break;
        colon = memchr(p, ':', (size_t)(end - p));
        if (colon == NULL || colon == p) return NGX_ERROR;
        for (value = colon + 1; value < end && (*value == ' ' || *value == '\t'); value++) { /* void */ }
        while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
        if (header(head, p, (size_t)(colon - p), value, (size_t)(end - value)) != NGX_OK) return NGX_ERROR;
    }
    head->length = (size_t)(eol + 1 - start);
    if (head->chunked) head->content_length = -1; /* RFC 9112 §6.3 */
    return NGX_OK;
}

ngx_int_t ngx_http_pdroute_head_parse(u_char *p, u_char *last, ngx_http_pdroute_head_t *head)
{
    u_char   *start = p;
    ngx_int_t rc;

    while ((rc = parse_one(p, last, head)) == NGX_OK && head->status < 200) {
        if (head->status == NGX_HTTP_SWITCHING_PROTOCOLS) return NGX_ERROR;
        p += head->length;
        if (p == last) return NGX_AGAIN;
    }
    if (rc == NGX_OK) head->length += (size_t)(p - start);
    return rc;
}

/* --------------------------------------------------------------------------------------------------------------- chunked */

enum { CH_SIZE_FIRST = 0, CH_SIZE, CH_EXTENSION, CH_DATA, CH_DATA_CR, CH_DATA_LF, CH_TRAILER_START, CH_TRAILER, CH_END_LF, CH_DONE };

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
    int     digit;
    size_t  n;

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
            if (*p == '\n') ch->state = CH_SIZE_FIRST;
            else if (*p == '\r') ch->state = CH_DATA_LF;
            else return NGX_ERROR;
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
        default: return NGX_ERROR; /* bytes after the end */
        }
    }
    *pos = p;
    return NGX_AGAIN;
done:
    ch->state = CH_DONE;
    *pos = p + 1;
    return NGX_DONE;
}
