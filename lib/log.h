/*
 * The ring of recent decisions, for people who ask why. Written under the lock, the chosen pair and a few other candidates of each decision; a record that a killed process left half
 * written is recognised by its number and skipped. Read under the lock, a record at a time.
 */
#ifndef PDR_LOG_H
#define PDR_LOG_H

#include "pdroute/pdroute.h"

typedef struct pdr_log_head {
    uint32_t entries, pad;
    uint64_t written; /* numbers 1..written exist or existed */
} pdr_log_head;

typedef struct pdr_log {
    pdr_log_head   *head;
    pdr_log_record *records;
} pdr_log;

void pdr_log_init(const pdr_log *l, uint32_t entries);
/* The record to fill next; it counts from pdr_log_commit() on. */
pdr_log_record *pdr_log_next(const pdr_log *l);
void            pdr_log_commit(const pdr_log *l, pdr_log_record *record);
/* The first record after *cursor that is kept; NULL if none. *lost grows by those overwritten meanwhile. */
const pdr_log_record *pdr_log_after(const pdr_log *l, uint64_t *cursor, uint64_t *lost);

#endif
