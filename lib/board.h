/*
 * Board: what choices read most, by position in the candidate lists, next to each other in memory, so that a look at all servers reads a few bytes of each and not two cache
 * lines. All of it follows from targets, infos and lists: pdr_board_renew() after a target changed, O(1) or O(PDR_BOARD_GROUP); pdr_board_fill() after the lists changed, O(targets).
 *
 * A prefill server's wait is a function of one number, when its booked work ends, and of the time: pdr_board_wait_us() gives what pdr_wait_us() gives, without a division. Where more
 * counts (foreign work, a guard, sums near the end of 64 bits) the server is marked odd and looked at itself.
 *
 * What decoding costs is a product of the request's output with a step that is the server's, and two penalties; groups of PDR_BOARD_GROUP keep the least of each, so that the cheapest
 * is found without looking at all.
 */
#ifndef PDR_BOARD_H
#define PDR_BOARD_H

#include "least.h"

#include <stddef.h>
#include <stdint.h>

struct pdr_registry;

enum { PDR_BOARD_GROUP = PDR_LEAST_OF };

#define PDR_BOARD_STEP_MOST (1ull << 36) /* 19 hours; beyond it a step is this, and the server is asked itself */

typedef struct pdr_board {
    /* by position in the list of prefills */
    uint64_t *end;                   /* pdr_board_time() of the end of the booked work; 0: none */
    uint64_t *odd;                   /* a bit each: pdr_wait_us() and the guard must be asked */
    /* by position in the list of decodes */
    pdr_groups step_us;              /* per output token; at most PDR_BOARD_STEP_MOST */
    uint64_t *over_us;               /* beyond the running limit */
    int64_t  *room;                  /* tokens of KV cache left, less than none possible; INT64_MAX: not known */
    uint64_t *guarded;               /* a bit each */
    uint64_t *others;                /* requests of others, as reported */
    uint64_t *least_over, *most_over; /* by group of decodes */
    int64_t  *least_room, *most_room;
    /* by target */
    uint32_t *place;                 /* its position in its list, if it is in one */
    /* by position again */
    uint32_t *slow;                  /* prefills: slowness */
    uint32_t *ours;                  /* decodes: requests of ours */
    uint64_t *through;               /* prefills with one request: pdr_through_ns(); else UINT64_MAX */
    uint32_t *picked, *d_picked;     /* last_pick of prefills, d_last_pick of decodes; multiples of PDR_BOARD_GROUP may be read */
} pdr_board;

/* What does not belong to one server. */
typedef struct pdr_board_head {
    uint64_t us_per_request, ps_per_token; /* of a decode step: from the configuration */
    uint64_t ours, others;           /* sums over the decodes */
    uint32_t uneven, pad;            /* prefills whose speed is not the pool's */
} pdr_board_head;

/* Bytes for so many targets, a multiple of 8, and the pointers into it. */
uint64_t pdr_board_size(uint32_t targets);
void     pdr_board_open(pdr_board *b, void *at, uint32_t targets);

void pdr_board_renew(const struct pdr_registry *g, uint32_t target);
void pdr_board_fill(const struct pdr_registry *g);
/* First thing that does not follow from the targets, as a sentence in why; 0 if all does. */
int  pdr_board_check(const struct pdr_registry *g, char *why, size_t cap);

/* Nanoseconds as microseconds times 1024 and the rest below one: the difference of two, rounded up to whole microseconds, is a shift. */
static inline uint64_t pdr_board_time(uint64_t ns, uint64_t more_us) { return (ns / 1000 + more_us) << 10 | ns % 1000; }

#define PDR_BOARD_MOST_NS (1ull << 62) /* later than that, 146 years, differences of such times do not fit */

static inline uint64_t pdr_board_wait_us(uint64_t end, uint64_t now, uint64_t most_us)
{
    int64_t  left = (int64_t)(end - now + 1023) >> 10; /* negative: overdue */
    uint64_t us = (uint64_t)(left < 0 ? -left : left);
    us = us < most_us ? us : most_us;
    return end ? us : 0;
}

/* The same for n servers; their sum. `wide`: pdr_least_is_wide(). */
uint64_t pdr_board_waits_avx2(const uint64_t *end, uint32_t n, uint64_t now, uint64_t most_us, uint64_t *us);
uint64_t pdr_board_waits_portable(const uint64_t *end, uint32_t n, uint64_t now, uint64_t most_us, uint64_t *us);
static inline uint64_t pdr_board_waits(const uint64_t *end, uint32_t n, uint64_t now, uint64_t most_us, uint64_t *us, int wide)
{
    return wide ? pdr_board_waits_avx2(end, n, now, most_us, us) : pdr_board_waits_portable(end, n, now, most_us, us);
}

/* The first of the set bits from `at` on, `n` if there is none before it. */
static inline uint32_t pdr_bits_next(const uint64_t *bits, uint32_t at, uint32_t n)
{
    while (at < n) {
        uint64_t left = bits[at / 64] >> at % 64;
        if (left) {
            at += (uint32_t)__builtin_ctzll(left);
            return at < n ? at : n;
        }
        at = (at / 64 + 1) * 64;
    }
    return n;
}

#endif
