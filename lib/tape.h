/*
 * Tape: a ring of frames in the block, and how numbers are written into frames and read from them. What frames mean is router_record.h's business.
 *
 * A frame is a 4-byte length and that many bytes. Numbers are LEB128 (7 bits a byte, low ones first), so a file is the same on every architecture. A
 * frame counts from pdr_tape_commit() on; what a killed process had half written is overwritten by the next one. Frames that make way are dropped
 * whole, the oldest first. A frame longer than half the ring is given up, and `wanted` says that a reader has to be told everything anew.
 *
 * Written and read under the router's lock. Costs some 2 ns per number.
 */
#ifndef PDR_TAPE_H
#define PDR_TAPE_H

#include <stddef.h>
#include <stdint.h>

typedef struct pdr_tape_head {
    uint64_t capacity;       /* a power of two */
    uint64_t oldest, written; /* frames lie in [oldest, written), positions count up for ever */
    uint64_t until_ns;       /* recording stops by itself: nobody has read for long */
    uint64_t last_ns;        /* time of the last frame */
    uint64_t epoch;          /* pdr_registry_head.relists when the lists were last written */
    uint32_t on;
    uint32_t wanted;         /* the next frame is to be a key frame */
} pdr_tape_head;

typedef struct pdr_tape {
    pdr_tape_head *head;
    uint8_t       *bytes;
} pdr_tape;

/* A frame being written. */
typedef struct pdr_pen {
    pdr_tape tape;
    uint64_t start, at;
    int      overflow;
} pdr_pen;

/* A frame, or a file, being read. After the end: zeroes, and bad is set. */
typedef struct pdr_eye {
    const uint8_t *p, *end;
    int            bad;
} pdr_eye;

void pdr_tape_init(const pdr_tape *t, uint64_t capacity);
void pdr_tape_begin(pdr_pen *pen, const pdr_tape *t);
void pdr_pen_byte(pdr_pen *pen, uint8_t v);
void pdr_pen_number(pdr_pen *pen, uint64_t v);
void pdr_pen_signed(pdr_pen *pen, int64_t v);
void pdr_pen_word(pdr_pen *pen, uint64_t v); /* eight bytes: hashes */
void pdr_pen_text(pdr_pen *pen, const char *s);
/* 0: written; -1: it was too long and is gone. */
int pdr_tape_commit(pdr_pen *pen);
/* Whole frames from *cursor on, at most cap bytes, *n their length; *cursor moves on. 1 if frames were lost in between. */
int pdr_tape_read(const pdr_tape *t, uint64_t *cursor, uint8_t *out, size_t cap, size_t *n);

static inline uint64_t pdr_eye_byte(pdr_eye *e)
{
    if (e->p < e->end) return *e->p++;
    e->bad = 1;
    return 0;
}
uint64_t pdr_eye_number(pdr_eye *e);
/* The same, at most `most`: more is bad, and 0. */
uint64_t pdr_eye_below(pdr_eye *e, uint64_t most);
int64_t  pdr_eye_signed(pdr_eye *e);
uint64_t pdr_eye_word(pdr_eye *e);
void     pdr_eye_text(pdr_eye *e, char *out, size_t size);
/* Fixed width, low byte first. */
uint32_t pdr_eye_u32(pdr_eye *e);

#endif
