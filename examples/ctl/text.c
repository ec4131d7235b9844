#include "text.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void *need(void *p)
{
    if (!p) {
        fputs("pdroutectl: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

void text_free(struct text *t)
{
    free(t->p);
    memset(t, 0, sizeof *t);
}

static void reserve(struct text *t, size_t more)
{
    size_t cap = t->cap ? t->cap : 256;
    if (t->n + more + 1 <= t->cap) return;
    while (cap < t->n + more + 1) cap *= 2;
    t->p = need(realloc(t->p, cap));
    t->cap = cap;
}

void text_add(struct text *t, const char *bytes, size_t n)
{
    reserve(t, n);
    if (n) memcpy(t->p + t->n, bytes, n);
    t->n += n;
    t->p[t->n] = 0;
}

void text_puts(struct text *t, const char *s) { text_add(t, s, strlen(s)); }

void text_printf(struct text *t, const char *format, ...)
{
    va_list args;
    int     n;
    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) return;
    reserve(t, (size_t)n);
    va_start(args, format);
    vsnprintf(t->p + t->n, (size_t)n + 1, format, args);
    va_end(args);
    t->n += (size_t)n;
}

/* Length of the UTF-8 sequence at s (of n bytes), 0 if it is not one; *code its code point. */
static size_t utf8_at(const unsigned char *s, size_t n, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t   len = *s < 0x80 ? 1 : *s >= 0xC2 && *s < 0xE0 ? 2 : *s >= 0xE0 && *s < 0xF0 ? 3 : *s >= 0xF0 && *s < 0xF5 ? 4 : 0;
    uint32_t c;
    if (!len || len > n) return 0;
    c = len == 1 ? *s : *s & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3Fu);
    }
    if (c < least[len] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return 0;
    *code = c;
    return len;
}

void text_json(struct text *t, const char *bytes, size_t n)
{
    const unsigned char *s = (const unsigned char *)bytes;
    text_add(t, "\"", 1);
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c;
        if (!(len = utf8_at(s + i, n - i, &c))) {
            text_puts(t, "\xEF\xBF\xBD");
            len = 1;
        } else if (c == '"' || c == '\\') {
            text_printf(t, "\\%c", (int)c);
        } else if (c == '\n') {
            text_puts(t, "\\n");
        } else if (c < 0x20 || c == 0x7F) {
            text_printf(t, "\\u%04x", c);
        } else {
            text_add(t, bytes + i, len);
        }
    }
    text_add(t, "\"", 1);
}

void text_clean(char *s)
{
    size_t out = 0;
    for (size_t i = 0, n = strlen(s), len; i < n; i += len) {
        uint32_t c = 0;
        if (!(len = utf8_at((const unsigned char *)s + i, n - i, &c)) || c < 0x20 || (c >= 0x7F && c < 0xA0) ||
            (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069)) { /* lines, and marks that turn the direction of writing */
            s[out++] = '?';
            len += !len;
        } else {
            memmove(s + out, s + i, len);
            out += len;
        }
    }
    s[out] = 0;
}

static int is_wide(uint32_t c)
{
    return (c >= 0x1100 && c <= 0x115F) || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) ||
           (c >= 0x1F300 && c <= 0x1FAFF) || (c >= 0x20000 && c <= 0x3FFFD);
}

size_t text_width(const char *s)
{
    size_t width = 0, n = strlen(s);
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c = 0;
        if (!(len = utf8_at((const unsigned char *)s + i, n - i, &c))) len = 1;
        width += is_wide(c) ? 2 : 1;
    }
    return width;
}

/* --------------------------------------------------------------------------------------------------------------- tables */

void table_init(struct table *t, const char *align)
{
    memset(t, 0, sizeof *t);
    t->align = align;
    t->columns = strlen(align);
}

void table_cell(struct table *t, const char *format, ...)
{
    va_list args;
    char   *cell;
    int     n;
    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    cell = need(malloc((size_t)n + 1));
    va_start(args, format);
    vsnprintf(cell, (size_t)n + 1, format, args);
    va_end(args);
    text_clean(cell); /* a name must not steer the terminal */
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->cells = need(realloc(t->cells, t->cap * sizeof *t->cells));
    }
    t->cells[t->n++] = cell;
}

/* Cuts a line to `width` columns. */
static void clip(struct text *line, size_t width)
{
    size_t w = 0;
    if (!width) return;
    for (size_t i = 0, len; i < line->n; i += len) {
        uint32_t c = 0;
        if (!(len = utf8_at((const unsigned char *)line->p + i, line->n - i, &c))) len = 1;
        w += is_wide(c) ? 2 : 1;
        if (w > width) {
            line->n = i;
            line->p[i] = 0;
        }
    }
}

void table_print(struct table *t, struct text *out, size_t width)
{
    size_t      widest[TABLE_COLUMNS] = {0};
    struct text line = {0};
    for (size_t i = 0; i < t->n; i++) {
        size_t w = text_width(t->cells[i]), *have = &widest[i % t->columns];
        if (w > *have) *have = w;
    }
    for (size_t i = 0; i < t->n; i++) {
        size_t column = i % t->columns, pad = widest[column] - text_width(t->cells[i]);
        if (column) text_add(&line, "  ", 2);
        if (t->align[column] == 'r') text_printf(&line, "%*s%s", (int)pad, "", t->cells[i]);
        else text_printf(&line, "%s%*s", t->cells[i], (int)pad, "");
        free(t->cells[i]);
        if (column + 1 < t->columns && i + 1 < t->n) continue;
        clip(&line, width);
        while (line.n && line.p[line.n - 1] == ' ') line.p[--line.n] = 0;
        text_printf(out, "%s\n", line.p);
        line.n = 0;
    }
    text_free(&line);
    free(t->cells);
    memset(t, 0, sizeof *t);
}

/* -------------------------------------------------------------------------------------------------------------- numbers */

const char *text_count(char buf[static SHORT_TEXT], uint64_t n)
{
    char   digits[24];
    int    len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    size_t o = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0) buf[o++] = ',';
        buf[o++] = digits[i];
    }
    buf[o] = 0;
    return buf;
}

const char *text_us(char buf[static SHORT_TEXT], uint64_t us)
{
    if (us < 1000) snprintf(buf, SHORT_TEXT, "%llu us", (unsigned long long)us);
    else if (us < 10000000) snprintf(buf, SHORT_TEXT, "%.1f ms", (double)us / 1e3);
    else snprintf(buf, SHORT_TEXT, "%.1f s", (double)us / 1e6);
    return buf;
}

const char *text_bytes(char buf[static SHORT_TEXT], uint64_t n)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    int    u = 0;
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    snprintf(buf, SHORT_TEXT, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return buf;
}
