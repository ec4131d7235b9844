#include "log.h"

#include <string.h>

void pdr_log_init(const pdr_log *l, uint32_t entries)
{
    l->head->entries = entries;
    l->head->written = 0;
    for (uint32_t i = 0; i < entries; i++) l->records[i].number = 0;
}

pdr_log_entry *pdr_log_next(const pdr_log *l)
{
    pdr_log_entry *r = &l->records[l->head->written % l->head->entries];
    r->number = 0;
    return r;
}

void pdr_log_commit(const pdr_log *l, pdr_log_entry *record)
{
    record->number = l->head->written + 1;
    __atomic_store_n(&l->head->written, record->number, __ATOMIC_RELEASE);
}

const pdr_log_entry *pdr_log_after(const pdr_log *l, uint64_t *cursor, uint64_t *lost)
{
    uint64_t oldest = l->head->written > l->head->entries ? l->head->written - l->head->entries + 1 : 1;
    if (*cursor > l->head->written) *cursor = l->head->written; /* a cursor of another block */
    if (*cursor + 1 < oldest) {
        if (*cursor && lost) *lost += oldest - *cursor - 1;
        *cursor = oldest - 1;
    }
    while (*cursor < l->head->written) {
        const pdr_log_entry *r = &l->records[*cursor % l->head->entries];
        ++*cursor;
        if (r->number == *cursor) return r;
        if (lost) ++*lost;
    }
    return NULL;
}
