/*
 * Bytes in, block hashes out: the hash chain of a prompt (hash.h). Included once per instruction set; all static. Whole
 * blocks in the caller's bytes are hashed where they lie; only what crosses a border is copied. Blocks above
 * CHAIN_STAGE go through XXH3's streaming state instead, with equal results.
 */
#ifndef PDR_CHAIN_H
#define PDR_CHAIN_H

#include "hash.h"

#include <string.h>

#define CHAIN_STAGE 4096

typedef struct chain {
    uint64_t h;
    uint64_t bytes; /* of the prompts so far */
    uint64_t *out;
    uint32_t n, cap;      /* hashes written, and how many may be */
    uint32_t block, fill; /* block size; bytes of the block begun */
    int live;             /* 0: only count */
    uint8_t stage[CHAIN_STAGE];
    XXH3_state_t state; /* blocks above CHAIN_STAGE only */
} chain;

/* cap 0: only counts. */
static inline void chain_begin(chain *c, uint64_t salt, unsigned kind, uint32_t block, uint64_t *out, uint32_t cap)
{
    c->h = pdr_hash_start(salt, kind);
    c->bytes = 0;
    c->out = out;
    c->n = 0;
    c->cap = cap;
    c->block = block;
    c->fill = 0;
    c->live = cap > 0;
    if (c->live && block > CHAIN_STAGE) pdr_hash_begin(&c->state, 0);
}

/* The digest of the next block. */
static inline void chain_took(chain *c, uint64_t digest)
{
    c->h = c->out[c->n++] = pdr_hash_next(c->h, digest);
    c->fill = 0;
    if (c->n == c->cap) c->live = 0;
}

static __attribute__((noinline)) void chain_feed_large(chain *c, const uint8_t *p, size_t n)
{
    while (n && c->live) {
        size_t part = c->block - c->fill;
        if (part > n) part = n;
        XXH3_64bits_update(&c->state, p, part);
        p += part;
        n -= part;
        c->fill += (uint32_t)part;
        if (c->fill < c->block) return;
        chain_took(c, XXH3_64bits_digest(&c->state));
        pdr_hash_begin(&c->state, 0);
    }
}

static __attribute__((noinline)) void chain_feed_blocks(chain *c, const uint8_t *p, size_t n)
{
    if (c->fill) {
        size_t part = c->block - c->fill;
        memcpy(c->stage + c->fill, p, part);
        p += part;
        n -= part;
        chain_took(c, XXH3_64bits(c->stage, c->block));
    }
    for (; n >= c->block && c->live; p += c->block, n -= c->block)
        chain_took(c, XXH3_64bits(p, c->block));
    if (!c->live) return;
    memcpy(c->stage, p, n);
    c->fill = (uint32_t)n;
}

/* memcpy() of few bytes, without a call. */
static inline void copy_few(uint8_t *to, const uint8_t *from, size_t n)
{
    if (n >= 8 && n <= 16) {
        memcpy(to + n - 8, from + n - 8, 8); /* the two parts may overlap */
        memcpy(to, from, 8);
    } else if (n >= 4 && n < 8) {
        memcpy(to + n - 4, from + n - 4, 4);
        memcpy(to, from, 4);
    } else if (n < 4) {
        for (size_t i = 0; i < n; i++) to[i] = from[i];
    } else {
        memcpy(to, from, n);
    }
}

static inline void chain_feed(chain *c, const uint8_t *p, size_t n)
{
    c->bytes += n;
    if (!c->live) return;
    if (c->block > CHAIN_STAGE) {
        chain_feed_large(c, p, n);
    } else if (n < c->block - c->fill) {
        copy_few(c->stage + c->fill, p, n);
        c->fill += (uint32_t)n;
    } else {
        chain_feed_blocks(c, p, n);
    }
}

static inline void chain_mark(chain *c, char letter)
{
    const uint8_t mark[2] = {0xFF, (uint8_t)letter};
    if (c->live && c->block <= CHAIN_STAGE && c->block - c->fill > sizeof mark) {
        c->bytes += sizeof mark;
        memcpy(c->stage + c->fill, mark, sizeof mark);
        c->fill += (uint32_t)sizeof mark;
    } else {
        chain_feed(c, mark, sizeof mark);
    }
}

#endif
