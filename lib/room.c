#include "room.h"

#include "err.h"

#define END (UINT64_C(1) << PDR_ROOM_BITS)

/* Odd, so invertible modulo any power of two. From the finalizers of SplitMix64 and MurmurHash3 (public domain). */
static const uint64_t multiplier[PDR_ROOM_ROUNDS] = {UINT64_C(0xbf58476d1ce4e5b9), UINT64_C(0x94d049bb133111eb),
                                                     UINT64_C(0xff51afd7ed558ccd), UINT64_C(0xc4ceb9fe1a85ec53)};

/* SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). */
static uint64_t splitmix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void schedule(uint64_t key, uint64_t round_key[PDR_ROOM_ROUNDS])
{
    for (uint64_t i = 0; i < PDR_ROOM_ROUNDS; i++) round_key[i] = splitmix(key + (i << 56));
}

/*
 * Every step is invertible on `bits`-bit integers, hence so is the whole: adding a key, multiplying by an odd number
 * (both modulo 2^bits), and x ^= x >> s with s >= bits/2, which is its own inverse.
 */
static inline uint64_t mix(const uint64_t round_key[PDR_ROOM_ROUNDS], uint64_t x, uint32_t bits)
{
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    const uint32_t shift = (bits + 1) / 2;
    for (int i = 0; i < PDR_ROOM_ROUNDS; i++) {
        x = (x + round_key[i]) & mask;
        x ^= x >> shift;
        x = (x * multiplier[i]) & mask;
    }
    return x ^ (x >> shift);
}

/* Inverse of an odd number modulo 2^64, by Newton's iteration: a*a = 1 (mod 8), each step doubles the correct bits. */
static uint64_t inverse(uint64_t a)
{
    uint64_t x = a;
    for (int i = 0; i < 5; i++) x *= 2 - a * x;
    return x;
}

static uint64_t unmix(const uint64_t round_key[PDR_ROOM_ROUNDS], uint64_t x, uint32_t bits)
{
    const uint64_t mask = (UINT64_C(1) << bits) - 1;
    const uint32_t shift = (bits + 1) / 2;
    x ^= x >> shift;
    for (int i = PDR_ROOM_ROUNDS; i-- > 0;) {
        x = (x * inverse(multiplier[i])) & mask;
        x ^= x >> shift;
        x = (x - round_key[i]) & mask;
    }
    return x;
}

uint64_t pdr_room_permute(uint64_t key, uint64_t x, uint32_t bits)
{
    uint64_t round_key[PDR_ROOM_ROUNDS];
    schedule(key, round_key);
    return mix(round_key, x, bits);
}

uint64_t pdr_room_unpermute(uint64_t key, uint64_t x, uint32_t bits)
{
    uint64_t round_key[PDR_ROOM_ROUNDS];
    schedule(key, round_key);
    return unmix(round_key, x, bits);
}

uint64_t pdr_room_at(uint64_t key, uint64_t counter)
{
    return pdr_room_permute(key, counter, PDR_ROOM_BITS);
}

void pdr_room_init(struct pdr_room_state *s, uint64_t seed)
{
    s->key = splitmix(seed ^ UINT64_C(0x726f6f6d)); /* apart from what else is drawn from the seed */
    s->counter = 0;
}

void pdr_room_walk_begin(struct pdr_room_walk *w, uint64_t key, uint64_t counter, uint32_t dp_size, uint32_t rank)
{
    schedule(key, w->round_key);
    w->counter = counter;
    w->modulus = rank == PDR_NONE || dp_size < 2 ? 1 : dp_size;
    w->residue = w->modulus == 1 ? 0 : rank;
}

uint64_t pdr_room_walk_next(struct pdr_room_walk *w)
{
    while (w->counter < END) {
        uint64_t room = mix(w->round_key, w->counter++, PDR_ROOM_BITS);
        if (room && (w->modulus == 1 || room % w->modulus == w->residue)) return room;
    }
    return 0;
}

/* Walks `count` rooms from w->counter on, up to `end`. */
static int walk_draw(struct pdr_room_walk *w, uint32_t count, uint64_t end, uint64_t *first_room,
                     uint64_t *first_counter)
{
    uint64_t first = 0, number = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t room = pdr_room_walk_next(w);
        if (!room || w->counter > end) return PDR_E_FULL;
        if (i) continue;
        first = room;
        number = w->counter - 1;
    }
    *first_room = first;
    *first_counter = number;
    return PDR_OK;
}

/*
 * Counters that hold `count` matching rooms but for odds of e^-32 or less: a room matches with probability 1/m, so that
 * many tries have a mean of 2*count + 64 matches (Chernoff bound exp(-mean/8) for less than half of it); one more for
 * the room 0.
 */
static uint64_t ample(uint32_t modulus, uint32_t count)
{
    return modulus == 1 ? count + 1u : (uint64_t)modulus * (2u * (uint64_t)count + 256u) + 1u;
}

int pdr_room_reserve(struct pdr_room_state *s, struct pdr_room_walk *w, uint32_t count, uint64_t *first_room,
                     uint64_t *first_counter)
{
    uint64_t span = ample(w->modulus, count), begin = __atomic_fetch_add(&s->counter, span, __ATOMIC_RELAXED);
    if (begin >= END - span) return PDR_E_FULL;
    w->counter = begin;
    return walk_draw(w, count, begin + span, first_room, first_counter);
}

/* One room whatever its rank, if nobody else takes one at the same time. */
static int next_room(struct pdr_room_state *s, uint64_t *first_room, uint64_t *first_counter)
{
    uint64_t begin = __atomic_load_n(&s->counter, __ATOMIC_RELAXED), number = begin;
    if (begin >= END) return 0;
    uint64_t room = pdr_room_at(s->key, begin);
    if (!room || !__atomic_compare_exchange_n(&s->counter, &begin, begin + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return 0;
    *first_room = room;
    *first_counter = number;
    return 1;
}

int pdr_room_alloc(struct pdr_room_state *s, uint32_t dp_size, uint32_t rank, uint32_t count, uint64_t *first_room,
                   uint64_t *first_counter)
{
    struct pdr_room_walk w;
    uint64_t room = 0, number = 0, begin;

    if (count == 1 && dp_size < 2 && (rank == PDR_NONE || !rank) && next_room(s, first_room, first_counter))
        return PDR_OK;
    if (!count || count > PDR_ROOM_MAX_DRAW || dp_size > PDR_ROOM_MAX_DP) return PDR_E_INVALID;
    if (rank != PDR_NONE && rank >= (dp_size ? dp_size : 1)) return PDR_E_INVALID;

    pdr_room_walk_begin(&w, s->key, 0, dp_size, rank);
    /* Take exactly the counters needed, unless others are quicker a few times: then more than enough at once, so that
     * the number of steps is bounded whatever others do. Counters left over are lost, which costs nothing: there are
     * 2^63. */
    begin = __atomic_load_n(&s->counter, __ATOMIC_RELAXED);
    for (int tries = 0; tries < 4; tries++) {
        w.counter = begin;
        if (begin >= END || walk_draw(&w, count, END, &room, &number) != PDR_OK) return PDR_E_FULL;
        if (__atomic_compare_exchange_n(&s->counter, &begin, w.counter, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            *first_room = room;
            *first_counter = number;
            return PDR_OK;
        }
    }
    return pdr_room_reserve(s, &w, count, first_room, first_counter);
}
