#include "tape.h"

#include <string.h>

enum { LENGTH = 4 };

void pdr_tape_init(const pdr_tape *t, uint64_t capacity)
{
    memset(t->head, 0, sizeof *t->head);
    t->head->capacity = capacity;
}

/* ---- writing */

static uint32_t length_at(const pdr_tape *t, uint64_t at)
{
    uint32_t n = 0;
    for (int i = 0; i < LENGTH; i++) n |= (uint32_t)t->bytes[(at + (uint64_t)i) & (t->head->capacity - 1)] << 8 * i;
    return n;
}

static void set_length(const pdr_tape *t, uint64_t at, uint32_t n)
{
    for (int i = 0; i < LENGTH; i++) t->bytes[(at + (uint64_t)i) & (t->head->capacity - 1)] = (uint8_t)(n >> 8 * i);
}

void pdr_tape_begin(pdr_pen *pen, const pdr_tape *t)
{
    pen->tape = *t;
    pen->start = pen->at = t->head->written;
    pen->overflow = 0;
    for (int i = 0; i < LENGTH; i++) pdr_pen_byte(pen, 0);
}

void pdr_pen_byte(pdr_pen *pen, uint8_t v)
{
    pdr_tape_head *h = pen->tape.head;
    if (pen->at - pen->start >= h->capacity / 2) {
        pen->overflow = 1;
        return;
    }
    while (pen->at - h->oldest >= h->capacity) /* before the byte: a kill leaves only whole frames behind `oldest` */
        __atomic_store_n(&h->oldest, h->oldest + LENGTH + length_at(&pen->tape, h->oldest), __ATOMIC_RELEASE);
    pen->tape.bytes[pen->at++ & (h->capacity - 1)] = v;
}

void pdr_pen_number(pdr_pen *pen, uint64_t v)
{
    for (; v >= 128; v >>= 7) pdr_pen_byte(pen, (uint8_t)(v | 128));
    pdr_pen_byte(pen, (uint8_t)v);
}

void pdr_pen_signed(pdr_pen *pen, int64_t v) { pdr_pen_number(pen, (uint64_t)v << 1 ^ (v < 0 ? UINT64_MAX : 0)); }

void pdr_pen_word(pdr_pen *pen, uint64_t v)
{
    for (int i = 0; i < 8; i++) pdr_pen_byte(pen, (uint8_t)(v >> 8 * i));
}

void pdr_pen_text(pdr_pen *pen, const char *s)
{
    size_t n = strlen(s);
    pdr_pen_number(pen, n);
    for (size_t i = 0; i < n; i++) pdr_pen_byte(pen, (uint8_t)s[i]);
}

int pdr_tape_commit(pdr_pen *pen)
{
    pdr_tape_head *h = pen->tape.head;
    if (pen->overflow) {
        h->wanted = 1;
        return -1;
    }
    set_length(&pen->tape, pen->start, (uint32_t)(pen->at - pen->start - LENGTH));
    __atomic_store_n(&h->written, pen->at, __ATOMIC_RELEASE);
    return 0;
}

/* ---- reading */

int pdr_tape_read(const pdr_tape *t, uint64_t *cursor, uint8_t *out, size_t cap, size_t *n)
{
    const pdr_tape_head *h = t->head;
    int                  lost = *cursor < h->oldest;
    uint64_t             mask = h->capacity - 1;
    if (lost || *cursor > h->written) *cursor = h->oldest;
    *n = 0;
    while (*cursor < h->written) {
        uint64_t size = LENGTH + (uint64_t)length_at(t, *cursor), at = *cursor & mask, first = h->capacity - at;
        if (*n + size > cap) break;
        if (first > size) first = size;
        memcpy(out + *n, t->bytes + at, first);
        memcpy(out + *n + first, t->bytes, size - first);
        *n += size;
        *cursor += size;
    }
    return lost;
}

uint64_t pdr_eye_number(pdr_eye *e)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint64_t b = pdr_eye_byte(e);
        if (shift == 63 && b > 1) break;
        v |= (b & 127) << shift;
        if (b < 128) return e->bad ? 0 : v;
    }
    e->bad = 1;
    return 0;
}

uint64_t pdr_eye_below(pdr_eye *e, uint64_t most)
{
    uint64_t v = pdr_eye_number(e);
    if (v <= most) return v;
    e->bad = 1;
    return 0;
}

int64_t pdr_eye_signed(pdr_eye *e)
{
    uint64_t v = pdr_eye_number(e);
    return (int64_t)(v >> 1 ^ (v & 1 ? UINT64_MAX : 0));
}

static uint64_t fixed(pdr_eye *e, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= pdr_eye_byte(e) << 8 * i;
    return e->bad ? 0 : v;
}

uint64_t pdr_eye_word(pdr_eye *e) { return fixed(e, 8); }
uint32_t pdr_eye_u32(pdr_eye *e) { return (uint32_t)fixed(e, 4); }

void pdr_eye_text(pdr_eye *e, char *out, size_t size)
{
    size_t n = (size_t)pdr_eye_below(e, size - 1);
    for (size_t i = 0; i < n; i++) out[i] = (char)pdr_eye_byte(e);
    out[e->bad ? 0 : n] = 0;
}
