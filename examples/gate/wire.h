/*
 * The protobuf wire format: reading fields in place, writing them into a buffer that grows.
 *
 * Envoy's messages are few and flat, and every header of every request would be allocated three times by a general runtime; read in place
 * they cost nothing. A field that is not known is skipped, as the format asks. Nothing read here points anywhere but into the input.
 */
#ifndef PDR_GATE_WIRE_H
#define PDR_GATE_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct view {
    const char *data;
    size_t len;
} view;

#define VIEW(literal) ((view){literal, sizeof(literal) - 1})
/* 1: equal. Here, so that the length of a literal is known to the compiler: every header of every request is asked for several names. */
static inline int view_is(view v, const char *text)
{
    return strlen(text) == v.len && memcmp(v.data, text, v.len) == 0;
}
int view_is_nocase(view v, const char *lower); /* `lower` is in lower case */

/* ------------------------------------------------------------------------------------------------------------ reading */

typedef struct field {
    uint32_t number;
    uint32_t type;  /* 0 varint, 1 eight bytes, 2 bytes, 5 four bytes */
    uint64_t value; /* of a varint */
    view bytes;     /* of type 2 */
} field;

/* The next field of *in, which moves behind it: 1 a field, 0 the end, -1 not protobuf. */
int wire_next(view *in, field *out);

/* ------------------------------------------------------------------------------------------------------------ writing */

/* Bytes that grow; NULL, 0, 0 to begin with. `failed` is set when memory ran out, and stays: check it once at the end. */
typedef struct bytes {
    char *data;
    size_t len, cap;
    int failed;
} bytes;

int bytes_grow(bytes *b, size_t more); /* bytes_reserve() where there is none yet */

/* 0: there is room for `more`; -1 */
static inline int bytes_reserve(bytes *b, size_t more)
{
    return !b->failed && b->cap - b->len >= more ? 0 : bytes_grow(b, more);
}

static inline void bytes_put(bytes *b, const void *data, size_t len)
{
    if (len == 0 || bytes_reserve(b, len)) return;
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

static inline void bytes_put_view(bytes *b, view v)
{
    bytes_put(b, v.data, v.len);
}

void bytes_put_text(bytes *b, const char *text);
void bytes_put_number(bytes *b, uint64_t n); /* in decimal */
void bytes_free(bytes *b);

void wire_varint(bytes *b, uint32_t number, uint64_t value);
void wire_bytes(bytes *b, uint32_t number, const void *data, size_t len);
void wire_text(bytes *b, uint32_t number, const char *text);
/* The tag and length of a field whose `len` bytes come otherwise. */
void wire_head(bytes *b, uint32_t number, size_t len);
/* A message inside: begin, write its fields, end with what begin gave. Its length is put in afterwards. */
size_t wire_begin(bytes *b, uint32_t number);
void wire_end(bytes *b, size_t mark);

#endif
