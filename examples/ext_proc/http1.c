#include "http1.h"

#include <string.h>
#include <strings.h>

enum { STATUS_LINE = 0, HEADERS, BODY, TO_CLOSE, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILERS, DONE };

void http1_begin(http1 *r, bytes *lines, int bodiless)
{
    const bytes line = r->line;
    memset(r, 0, sizeof *r);
    r->line = line;
    r->line.len = 0;
    r->lines = lines;
    lines->len = 0;
    r->bodiless = bodiless != 0;
}

/* A whole line, its end included, from *in, or put together from pieces. 1, 0: it is not complete, -1: too long. */
static int next_line(http1 *r, view *in, view *out)
{
    const char *end = in->len ? memchr(in->data, '\n', in->len) : NULL;
    const size_t n = end ? (size_t)(end + 1 - in->data) : in->len;

    if (n == 0) return 0;
    r->head_size += n;
    if (r->head_size > HTTP1_HEAD_MAX) return -1;
    *out = (view){in->data, n};
    if (!end || r->line.len) {
        bytes_put(&r->line, in->data, n);
        if (r->line.failed) return -1;
        *out = (view){r->line.data, r->line.len};
    }
    in->data += n;
    in->len -= n;
    if (!end) return 0;
    r->line.len = 0; /* its bytes stay where they are until the next is begun */
    return 1;
}

static int is_empty(view line)
{
    return line.len == 1 || (line.len == 2 && line.data[0] == '\r');
}

static int read_status(http1 *r, view line)
{
    const char *p = line.data;

    if (line.len < 13 || memcmp(p, "HTTP/1.", 7) != 0 || p[7] < '0' || p[7] > '9' || p[8] != ' ') return -1;
    for (int i = 9; i < 12; i++) {
        if (p[i] < '0' || p[i] > '9') return -1;
    }
    if (p[12] != ' ' && p[12] != '\r' && p[12] != '\n') return -1;
    r->minor = (unsigned)(p[7] - '0');
    r->status = (unsigned)((p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0'));
    if (r->status < 100 || r->status == 101) return -1; /* nobody asked for another protocol */
    r->close = r->minor == 0;
    r->sized = r->chunked = 0;
    r->lines->len = 0;
    r->state = HEADERS;
    return 0;
}

/* Whether a list of words has this one. */
static int has_word(view list, const char *word)
{
    while (list.len) {
        const char *comma = memchr(list.data, ',', list.len);
        view item = {list.data, comma ? (size_t)(comma - list.data) : list.len};
        list.data += item.len + (comma != NULL);
        list.len -= item.len + (comma != NULL);
        while (item.len && (*item.data == ' ' || *item.data == '\t')) item.data++, item.len--;
        while (item.len && (item.data[item.len - 1] == ' ' || item.data[item.len - 1] == '\t')) item.len--;
        if (view_is_nocase(item, word)) return 1;
    }
    return 0;
}

static int read_length(http1 *r, view value)
{
    uint64_t n = 0;

    if (value.len == 0 || value.len > 18) return -1;
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') return -1;
        n = n * 10 + (uint64_t)(value.data[i] - '0');
    }
    if (r->sized && n != r->left) return -1;
    r->sized = 1;
    r->left = n;
    return 0;
}

/* A line that no client would take, or would take for something else, is none. */
static int read_header(http1 *r, view line)
{
    size_t name = 0, n = line.len - 1;
    view value;

    if (n && line.data[n - 1] == '\r') n--;
    while (name < n && line.data[name] > ' ' && line.data[name] != 0x7f && line.data[name] != ':') name++;
    if (name == 0 || name == n || line.data[name] != ':') return -1;
    if (memchr(line.data, '\r', n) || memchr(line.data, '\0', n)) return -1;
    value = (view){line.data + name + 1, n - name - 1};
    while (value.len && (*value.data == ' ' || *value.data == '\t')) value.data++, value.len--;
    while (value.len && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t')) value.len--;
    switch (name) { /* of those that matter */
    case 14:
        if (strncasecmp(line.data, "content-length", 14) == 0 && read_length(r, value)) return -1;
        break;
    case 17:
        if (strncasecmp(line.data, "transfer-encoding", 17) != 0) break;
        if (r->chunked || !view_is_nocase(value, "chunked")) return -1; /* nobody asked for another */
        r->chunked = 1;
        break;
    case 10:
        if (strncasecmp(line.data, "connection", 10) != 0) break;
        if (has_word(value, "close")) r->close = 1;
        else if (r->minor == 0 && has_word(value, "keep-alive")) r->close = 0;
        break;
    default:
        break;
    }
    bytes_put(r->lines, line.data, line.len);
    return r->lines->failed ? -1 : 0;
}

static void head_ended(http1 *r)
{
    if (r->status < 200) { /* the final one follows */
        r->state = STATUS_LINE;
        r->status = 0;
        return;
    }
    r->head = 1;
    if (r->chunked && r->sized) r->close = 1; /* who wrote that cannot be trusted with a second answer */
    if (r->bodiless || r->status == 204 || r->status == 304) r->state = DONE;
    else if (r->chunked) r->state = CHUNK_SIZE;
    else if (r->sized) r->state = r->left ? BODY : DONE;
    else {
        r->state = TO_CLOSE;
        r->close = 1;
    }
    r->done = r->state == DONE;
}

static int read_chunk_size(http1 *r, view line)
{
    uint64_t n = 0;
    size_t i = 0;

    for (; i < line.len; i++) {
        const char c = line.data[i], lower = (char)(c | 0x20);
        if (c >= '0' && c <= '9') n = n << 4 | (uint64_t)(c - '0');
        else if (lower >= 'a' && lower <= 'f') n = n << 4 | (uint64_t)(lower - 'a' + 10);
        else break;
        if (i == 15) return -1;
    }
    if (i == 0) return -1;
    while (line.data[i] == ' ' || line.data[i] == '\t') i++; /* the line has an end */
    if (line.data[i] != ';' && line.data[i] != '\r' && line.data[i] != '\n') return -1;
    if (line.data[i] == '\r' && line.data[i + 1] != '\n') return -1;
    r->left = n;
    r->head_size = 0;
    r->state = n ? CHUNK : TRAILERS;
    return 0;
}

/* A line in one of the states that read lines. */
static int take_line(http1 *r, view line)
{
    switch (r->state) {
    case STATUS_LINE:
        return read_status(r, line);
    case HEADERS:
        if (!is_empty(line)) return read_header(r, line);
        head_ended(r);
        return 0;
    case CHUNK_SIZE:
        return read_chunk_size(r, line);
    case CHUNK_END:
        if (!is_empty(line)) return -1;
        r->state = CHUNK_SIZE;
        return 0;
    default: /* trailers */
        if (!is_empty(line)) return 0;
        r->state = DONE;
        r->done = 1;
        return 0;
    }
}

int http1_read(http1 *r, view *in, view *body)
{
    view line;
    int rc;

    *body = (view){NULL, 0};
    if (in->len == 0 || r->state == DONE) return 0;
    if (r->state != BODY && r->state != CHUNK && r->state != TO_CLOSE) {
        if ((rc = next_line(r, in, &line)) <= 0) return rc;
        return take_line(r, line) ? -1 : 1;
    }
    *body = *in;
    if (r->state != TO_CLOSE) {
        if (body->len > r->left) body->len = (size_t)r->left;
        r->left -= body->len;
    }
    in->data += body->len;
    in->len -= body->len;
    if (r->state == TO_CLOSE || r->left) return 1;
    r->state = r->state == CHUNK ? CHUNK_END : DONE;
    r->done = r->state == DONE;
    return 1;
}

int http1_closed(http1 *r)
{
    if (r->state != TO_CLOSE) return r->done;
    r->state = DONE;
    r->done = 1;
    return 1;
}
