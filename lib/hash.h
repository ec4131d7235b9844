/*
 * Hashes of prompts. XXH3 (64 bits) is compiled in, so that no xxHash symbol leaves the library; every platform and
 * instruction set gives the same values.
 *
 * The chain of a prompt: h[i] = pdr_hash_next(h[i - 1], XXH3_64bits(bytes of block i)), begun with pdr_hash_start(). Equal
 * h[i] thus means equal prompts up to the end of block i. The last, partial block is left out.
 *
 * Blocks are hashed independently of each other (seeding each XXH3 with the hash before made every block wait for the
 * one in front, and XXH3 make a new secret of each seed); only the step is serial, ten cycles or so. It is a bijection
 * of each of its arguments: prompts that part stay apart under equal blocks, and equal prefixes part where their blocks
 * have different digests. Any other two (h, digest) meet with the probability of two random numbers, 2^-64. The order of
 * blocks counts. As before, nothing here withstands someone who looks for collisions: what he finds makes the router
 * expect a cache hit that does not happen.
 */
#ifndef PDR_HASH_H
#define PDR_HASH_H

#include <stddef.h>
#include <stdint.h>

#define XXH_INLINE_ALL
#define XXH_NO_STREAM_ALLOC
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wundef"
#endif
#include <xxhash.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

/* Begins a streaming state. XXH3_64bits_reset_withSeed() looks at what the state was before. */
static inline void pdr_hash_begin(XXH3_state_t *state, uint64_t seed)
{
    state->seed = 0;
    state->extSecret = NULL;
    XXH3_64bits_reset_withSeed(state, seed);
}

/* What a chain is made of: equal bytes of different kinds share nothing. */
enum { PDR_KIND_TEXT = 1, PDR_KIND_MESSAGES = 2, PDR_KIND_TOKENS = 3, PDR_KIND_JSON = 4 };

/* h[-1] of a chain. */
static inline uint64_t pdr_hash_start(uint64_t salt, unsigned kind)
{
    uint8_t b = (uint8_t)kind;
    return XXH3_64bits_withSeed(&b, 1, salt);
}

/* h[i] from h[i - 1] and the digest of block i. */
static inline uint64_t pdr_hash_next(uint64_t h, uint64_t digest)
{
    h = h * 0x9E3779B97F4A7C15u + digest;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    return h ^ h >> 32;
}

#endif
