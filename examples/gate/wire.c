#include "wire.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LENGTH_BYTES 4 /* kept free for the length of a message inside: up to 2^28 */

int view_is_nocase(view v, const char *lower)
{
    return strlen(lower) == v.len && strncasecmp(v.data, lower, v.len) == 0;
}

/* ------------------------------------------------------------------------------------------------------------ reading */

static int read_varint(view *in, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && in->len; shift += 7) {
        const uint8_t byte = (uint8_t)*in->data;
        in->data++;
        in->len--;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return 0;
        }
    }
    return -1;
}

static int skip(view *in, uint64_t n)
{
    if (n > in->len) return -1;
    in->data += n;
    in->len -= (size_t)n;
    return 0;
}

int wire_next(view *in, field *out)
{
    const uint8_t *p = (const uint8_t *)in->data;
    uint64_t tag, n;

    if (in->len == 0) return 0;
    if (in->len > 1 && (p[0] & 0x87) == 2 && p[0] > 7 && p[1] < 0x80) { /* nearly every one: bytes, tag and length in one byte each */
        if (p[1] > in->len - 2) return -1;
        out->number = p[0] >> 3;
        out->type = 2;
        out->value = 0;
        out->bytes = (view){in->data + 2, p[1]};
        in->data += 2 + out->bytes.len;
        in->len -= 2 + out->bytes.len;
        return 1;
    }
    if (read_varint(in, &tag) || tag >> 3 == 0 || tag >> 32) return -1;
    out->number = (uint32_t)(tag >> 3);
    out->type = (uint32_t)(tag & 7);
    out->value = 0;
    out->bytes = (view){NULL, 0};
    switch (out->type) {
    case 0:
        return read_varint(in, &out->value) ? -1 : 1;
    case 1:
        return skip(in, 8) ? -1 : 1;
    case 2:
        if (read_varint(in, &n) || n > in->len) return -1;
        out->bytes = (view){in->data, (size_t)n};
        return skip(in, n) ? -1 : 1;
    case 5:
        return skip(in, 4) ? -1 : 1;
    default:
        return -1; /* groups were given up long before Envoy */
    }
}

/* ------------------------------------------------------------------------------------------------------------ writing */

int bytes_grow(bytes *b, size_t more)
{
    if (b->failed) return -1;
    size_t cap = b->cap ? b->cap : 256;
    while (cap - b->len < more) cap *= 2;
    char *data = realloc(b->data, cap);
    if (!data) {
        b->failed = 1;
        return -1;
    }
    b->data = data;
    b->cap = cap;
    return 0;
}

void bytes_put_text(bytes *b, const char *text)
{
    bytes_put(b, text, strlen(text));
}

void bytes_put_number(bytes *b, uint64_t n)
{
    char digits[20], *p = digits + sizeof digits;

    do *--p = (char)('0' + n % 10);
    while (n /= 10);
    bytes_put(b, p, (size_t)(digits + sizeof digits - p));
}

void bytes_free(bytes *b)
{
    free(b->data);
    *b = (bytes){0};
}

static void put_varint(bytes *b, uint64_t value)
{
    if (bytes_reserve(b, 10)) return;
    if (value < 0x80) {
        b->data[b->len++] = (char)value;
        return;
    }
    for (; value >= 0x80; value >>= 7) b->data[b->len++] = (char)(value | 0x80);
    b->data[b->len++] = (char)value;
}

void wire_varint(bytes *b, uint32_t number, uint64_t value)
{
    put_varint(b, (uint64_t)number << 3);
    put_varint(b, value);
}

void wire_head(bytes *b, uint32_t number, size_t len)
{
    put_varint(b, (uint64_t)number << 3 | 2);
    put_varint(b, len);
}

void wire_bytes(bytes *b, uint32_t number, const void *data, size_t len)
{
    wire_head(b, number, len);
    bytes_put(b, data, len);
}

void wire_text(bytes *b, uint32_t number, const char *text)
{
    wire_bytes(b, number, text, strlen(text));
}

size_t wire_begin(bytes *b, uint32_t number)
{
    put_varint(b, (uint64_t)number << 3 | 2);
    if (bytes_reserve(b, LENGTH_BYTES)) return 0;
    b->len += LENGTH_BYTES;
    return b->len;
}

/* A varint may be longer than it need be: the length always takes the bytes that were kept free for it. */
void wire_end(bytes *b, size_t mark)
{
    if (b->failed) return;
    const size_t len = b->len - mark;
    if (len >> 28) {
        b->failed = 1;
        return;
    }
    char *p = b->data + mark - LENGTH_BYTES;
    for (int i = 0; i < LENGTH_BYTES - 1; i++) p[i] = (char)(len >> (7 * i) | 0x80);
    p[LENGTH_BYTES - 1] = (char)(len >> 21);
}
