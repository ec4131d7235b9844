/*
 * Patience: how long a server may be silent before its leg counts as failed. Learnt per target from what it usually needs; plain numbers, no time of its own.
 *
 * Three silences are measured against a prediction, and of each the recent worst is kept (a worse one counts at once, it fades by a sixteenth per better
 * one): the first byte of either leg against the predicted time (queue, uncached tokens, transfer), the longest gap between two pieces of an answer, and the
 * time per output token. A bound is a multiple of that, kept between the limits of the configuration. As long as a target has fewer than PDR_PATIENCE_KNOWN
 * measurements the pool's count; as long as that has too few, the upper limit does. A bound that was passed is doubled for the next time, twice at
 * most, until an answer comes in time: so an honest server that became slow is found out, and a dead one costs four bounds and not the limit.
 */
#ifndef PDR_PATIENCE_H
#define PDR_PATIENCE_H

#include <stdint.h>

enum { PDR_PATIENCE_KNOWN = 8, PDR_PATIENCE_TOKENS = 32768 /* of an answer whose length nobody limited */ };

typedef struct pdr_patience {
    uint32_t late_q10, late_n;   /* first byte against its prediction, 1024: as predicted */
    uint32_t gap_us, gap_n;      /* longest silence within an answer */
    uint32_t token_us, token_n;  /* per output token */
    uint32_t overruns;           /* bounds passed since the last answer in time, at most 2 */
    uint32_t reserved;
} pdr_patience;

typedef struct pdr_patience_limits {
    uint64_t first_byte_least_us, first_byte_most_us, idle_least_us, idle_most_us;
} pdr_patience_limits;

typedef struct pdr_silence {     /* what is borne, in microseconds */
    uint64_t first_byte_us, answer_us, idle_us;
} pdr_silence;

void pdr_patience_late(pdr_patience *p, uint64_t predicted_us, uint64_t took_us);
void pdr_patience_gap(pdr_patience *p, uint64_t gap_us);
void pdr_patience_tokens(pdr_patience *p, uint64_t tokens, uint64_t took_us);
void pdr_patience_overran(pdr_patience *p);
/*
 * `prefill` and `decode` are the targets', may be one. predicted_us: until the first byte. streamed 0: the answer comes whole, after `tokens` output tokens at
 * most (0: not limited). alone: one server does all, so that the first byte of an answer that is not streamed is its end.
 */
pdr_silence pdr_patience_bounds(const pdr_patience *prefill, const pdr_patience *decode, const pdr_patience *pool, const pdr_patience_limits *limits,
                                uint64_t predicted_us, int streamed, uint64_t tokens, int alone);

#endif
