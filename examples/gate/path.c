#include "path.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Behind the path. */
static size_t path_end(view target)
{
    size_t n = 0;
    while (n < target.len && target.data[n] != '?' && target.data[n] != '#') n++;
    return n;
}

static int is_plain(const char *p, size_t n)
{
    if (n == 0 || p[0] != '/') return 1; /* "*", a host: no path of ours */
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '%' || (p[i] == '/' && i + 1 < n && (p[i + 1] == '/' || p[i + 1] == '.'))) return 0;
    }
    return 1;
}

/* A segment has ended: "." is nothing, ".." takes the one before with it. -1: there is none */
static int end_segment(bytes *out, size_t *segment)
{
    const size_t len = out->len - *segment;
    const char *p = out->data + *segment;

    if (len == 2 && p[0] == '.' && p[1] == '.') {
        if (*segment < 2) return -1;
        out->len = *segment - 1; /* without the slash before it */
        while (out->data[out->len - 1] != '/') out->len--;
    } else if (len == 1 && p[0] == '.') {
        out->len = *segment;
    }
    *segment = out->len;
    return 0;
}

int gate_path(view target, bytes *scratch, view *path)
{
    const size_t n = path_end(target);
    const char *p = target.data;
    size_t segment = 1;

    *path = (view){p, n};
    scratch->len = 0;
    for (size_t i = 0; i < target.len; i++) {
        if ((unsigned char)p[i] <= ' ' || p[i] == 0x7f) return -1; /* it would end a line, or a word of it */
    }
    if (is_plain(p, n)) return 0;
    if (bytes_reserve(scratch, n)) return -1;
    scratch->data[scratch->len++] = '/';
    for (size_t i = 1; i < n; i++) {
        char c = p[i];
        if (c == '%') {
            if (n - i < 3 || digit(p[i + 1]) < 0 || digit(p[i + 2]) < 0) return -1;
            c = (char)(digit(p[i + 1]) << 4 | digit(p[i + 2]));
            i += 2;
        }
        if (c == '\0') return -1;
        if (c != '/') {
            scratch->data[scratch->len++] = c;
            continue;
        }
        if (end_segment(scratch, &segment)) return -1;
        if (scratch->data[scratch->len - 1] != '/') scratch->data[scratch->len++] = '/';
        segment = scratch->len;
    }
    if (end_segment(scratch, &segment)) return -1;
    *path = (view){scratch->data, scratch->len};
    return 0;
}

view gate_path_target(view target, bytes *scratch, view *path)
{
    const size_t n = path_end(target), len = path->len;
    const int own = path->data != target.data;
    const size_t at = own ? len : 0;
    view query = {target.data + n, target.len - n};
    const char *hash = query.len ? memchr(query.data, '#', query.len) : NULL;

    if (!own && !hash) return target;
    if (hash) query.len = (size_t)(hash - query.data);
    if (bytes_reserve(scratch, len + query.len)) return (view){NULL, 0};
    if (own) *path = (view){scratch->data, len};
    bytes_put_view(scratch, *path);
    bytes_put_view(scratch, query);
    return (view){scratch->data + at, scratch->len - at};
}
