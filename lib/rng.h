/* Mixing and pseudo-random numbers: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014). State by value. */
#ifndef PDR_RNG_H
#define PDR_RNG_H

#include <stdint.h>

static inline uint64_t pdr_mix64(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* The n-th random number of a seed. */
static inline uint64_t pdr_random_at(uint64_t seed, uint64_t n) { return pdr_mix64(seed + n * 0x9E3779B97F4A7C15u); }

#endif
