/*
 * The ring of recent decisions, for people who ask why. Written under the lock, the chosen pair and a few other candidates of each decision, as little of each as tells the rest: all is
 * written with every decision and hardly any is ever read; a record that a killed process left half
 * written is recognised by its number and skipped. Read under the lock, a record at a time.
 */
#ifndef PDR_LOG_H
#define PDR_LOG_H

#include "pdroute/pdroute.h"

typedef struct pdr_log_head {
    uint32_t entries, pad;
    uint64_t written; /* numbers 1..written exist or existed */
} pdr_log_head;

enum { PDR_LOG_SEEN = 8 }; /* candidates of a decision at most */

/* A candidate, as it was found: all other terms follow from these and the entry's own (router_log.c). */
typedef struct pdr_log_seen {
    uint64_t wait;
    uint32_t endpoint, rank;
    uint32_t slowness_q10;
    uint32_t matched_tokens;
    uint32_t kind, reserved; /* kind: also what `wait` is, and PDR_BARRED_* */
} pdr_log_seen;

typedef struct pdr_log_entry {
    uint64_t     number, time_ns, booking, room, prompt_tokens, matched_tokens, cost_us, held_us; /* as pdr_log_record, and these: */
    uint32_t     outcome, lease, attempt, prefill, decode, prefill_rank, decode_rank, candidates_total;
    uint32_t     seen_n, reserved; /* the first two are the pair */
    uint64_t     tokens, transfer_us, mean_queue_q10, base_us, linear_ns, quadratic_fs, reload_ns; /* of the choice: the prompt's tokens, and what prompts took then */
    pdr_log_seen seen[PDR_LOG_SEEN];
} pdr_log_entry;

typedef struct pdr_log {
    pdr_log_head  *head;
    pdr_log_entry *records;
} pdr_log;

void pdr_log_init(const pdr_log *l, uint32_t entries);
/* The record to fill next; it counts from pdr_log_commit() on. */
pdr_log_entry *pdr_log_next(const pdr_log *l);
void           pdr_log_commit(const pdr_log *l, pdr_log_entry *record);
/* The first record after *cursor that is kept; NULL if none. *lost grows by those overwritten meanwhile. */
const pdr_log_entry *pdr_log_after(const pdr_log *l, uint64_t *cursor, uint64_t *lost);

#endif
