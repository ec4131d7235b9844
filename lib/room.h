/*
 * Rooms: the 63-bit numbers under which a prefill and a decode server find each other (SGLang's bootstrap_room).
 *
 * Promises, all by construction and without remembering a single room:
 *  - in 1 .. 2^63-1: 0 makes SGLang's decode wait for ever, 2^63 and more crash its prefill scheduler;
 *  - unique among everything live, and never used again within the life of a key, so also not before both legs have
 * ended plus any quarantine: the n-th room is a bijection of n on 63-bit integers, and n only grows. A room that is
 * live twice gives one user's tokens to another;
 *  - improbable across replicas: the bijection is keyed from the router's seed, so the rooms of two routers with
 * different seeds are two independent random-looking sequences. With A and B live rooms a collision has odds of
 * A*B/2^63 (1e-11 for 10,000 each);
 *  - not guessable from a few rooms seen by accident, but no secret either: the mixing is fast, not cryptographic;
 *  - a batch gets distinct rooms, and where a DP rank was chosen every room is congruent to it modulo dp_size: counters
 *    whose room does not match are skipped, never kept for later.
 *
 * The allocator is one 64-bit counter in shared memory, advanced by one atomic operation at the end: no lock, and a
 * process killed at any instruction has either taken its counters or not. Rooms of a draw follow from (key, first
 * counter).
 *
 * Cost: about 20 ns per room, times dp_size where ranks are aligned. Limits: dp_size <= 1024, 65535 rooms per draw.
 */
#ifndef PDR_ROOM_H
#define PDR_ROOM_H

#include "pdroute/pdroute.h"

#define PDR_ROOM_BITS     63
#define PDR_ROOM_ROUNDS   4
#define PDR_ROOM_MAX_DP   1024
#define PDR_ROOM_MAX_DRAW 65535

/* In the block. Position independent; zero it only through pdr_room_init(). */
struct pdr_room_state {
    uint64_t key;
    uint64_t counter; /* the next unused one */
};

/* A walk over the rooms from a counter on. Plain data on the caller's stack. */
struct pdr_room_walk {
    uint64_t round_key[PDR_ROOM_ROUNDS];
    uint64_t counter;          /* the next to look at */
    uint32_t modulus, residue; /* 1, 0: any */
};

/* Sets the key from a seed and starts the counter anew. Not for a state that others use. */
void pdr_room_init(struct pdr_room_state *s, uint64_t seed);
/* The room of a counter (< 2^63); 0 for exactly one counter, which is skipped. */
uint64_t pdr_room_at(uint64_t key, uint64_t counter);
/*
 * Draws `count` rooms, all congruent to `rank` modulo dp_size unless rank is PDR_NONE (or dp_size < 2). first_room and
 * first_counter identify the draw. PDR_E_INVALID for arguments beyond the limits, PDR_E_FULL when the key is used up
 * (2^63 counters). [any]
 */
int pdr_room_alloc(struct pdr_room_state *s, uint32_t dp_size, uint32_t rank, uint32_t count, uint64_t *first_room,
                   uint64_t *first_counter);

/* How pdr_room_alloc() goes on when others were quicker a few times: takes more counters than it needs, in one step.
 * `w` as begun. */
int pdr_room_reserve(struct pdr_room_state *s, struct pdr_room_walk *w, uint32_t count, uint64_t *first_room,
                     uint64_t *first_counter);

/* Starts a walk; dp_size and rank as in pdr_room_alloc(). */
void pdr_room_walk_begin(struct pdr_room_walk *w, uint64_t key, uint64_t counter, uint32_t dp_size, uint32_t rank);
/* The next room, 0 at the end of the counters. Afterwards w->counter is one past the counter of that room. */
uint64_t pdr_room_walk_next(struct pdr_room_walk *w);

/* The bijection on integers of `bits` bits (8..63) and its inverse, so that tests can try a small one exhaustively. */
uint64_t pdr_room_permute(uint64_t key, uint64_t x, uint32_t bits);
uint64_t pdr_room_unpermute(uint64_t key, uint64_t x, uint32_t bits);

#endif
