#include "index_parts.h"

#include <string.h>

/* Derives everything anew from the ground truth (index_parts.h). */

/* Slots whose run has that block at most once, and whose home can be told; the rest is freed. */
static void repair_table(pdr_index *ix)
{
    pdr_bucket *buckets = pdr_buckets_of(ix);
    pdr_run *runs = pdr_runs_of(ix);
    uint32_t *slots = pdr_slots_of(ix);
    memset(slots, 0xff, (size_t)ix->runs * PDR_RUN * sizeof *slots);
    for (uint32_t slot = 0; slot < ix->buckets * PDR_SLOTS; slot++) {
        uint32_t *ref = &buckets[slot / PDR_SLOTS].ref[slot % PDR_SLOTS];
        if (!*ref) continue;
        uint32_t at = *ref - 1;
        if (at / PDR_RUN < ix->runs && runs[at / PDR_RUN].live && at % PDR_RUN < runs[at / PDR_RUN].len &&
            slots[at] == PDR_NIL)
            slots[at] = slot;
        else
            *ref = 0;
    }
    for (uint32_t i = 0; i < ix->runs; i++) {
        uint32_t len = 0;
        if (!runs[i].live) continue;
        while (len + runs[i].start % PDR_RUN < PDR_RUN && slots[(size_t)i * PDR_RUN + len] != PDR_NIL) len++;
        runs[i].len = (uint8_t)len;
        for (uint32_t j = len; j < PDR_RUN; j++) {
            uint32_t slot = slots[(size_t)i * PDR_RUN + j];
            if (slot != PDR_NIL) buckets[slot / PDR_SLOTS].ref[slot % PDR_SLOTS] = 0;
        }
    }
    memset(pdr_roots_of(ix), 0, ix->roots);
    for (uint32_t i = 0; i < ix->buckets; i++) buckets[i].over = 0;
    ix->blocks = 0;
    for (uint32_t slot = 0; slot < ix->buckets * PDR_SLOTS; slot++) {
        uint32_t ref = buckets[slot / PDR_SLOTS].ref[slot % PDR_SLOTS];
        if (!ref) continue;
        ix->blocks++;
        pdr_table_count_over(ix, slot);
        if (runs[pdr_ref_run(ref)].start + pdr_ref_offset(ref)) continue;
        uint8_t *cell = pdr_root_cell(ix, pdr_table_home(ix, slot), buckets[slot / PDR_SLOTS].hi[slot % PDR_SLOTS]);
        if (*cell < 255) ++*cell;
    }
}

static void queue_cleared(pdr_index *ix, uint32_t id)
{
    pdr_ids_of(ix)[id].next = PDR_NIL;
    if (ix->cleared_last == PDR_NIL)
        ix->cleared_first = id;
    else
        pdr_ids_of(ix)[ix->cleared_last].next = id;
    ix->cleared_last = id;
}

/* A target's id is what counts. Should two targets name one (no kill does that), the later one gets a free id. */
static void repair_owners(pdr_index *ix)
{
    uint16_t *owner = pdr_owner_of(ix);
    pdr_target *targets = pdr_targets_of(ix);
    uint32_t spare = 0;
    memset(owner, 0xff, ix->ids * sizeof *owner);
    for (uint32_t t = 0; t < ix->targets; t++) {
        if (targets[t].id < ix->ids && owner[targets[t].id] == PDR_NO_ID)
            owner[targets[t].id] = (uint16_t)t;
        else
            targets[t].id = PDR_NIL;
    }
    for (uint32_t t = 0; t < ix->targets; t++) {
        if (targets[t].id != PDR_NIL) continue;
        while (owner[spare] != PDR_NO_ID) spare++;
        targets[t].id = spare;
        owner[spare] = (uint16_t)t;
    }
    for (uint32_t word = 0; word < ix->words; word++) pdr_id_straighten(ix, word);
}

/* Holds that name a run, an id, blocks that are there, and are the only one of both. */
static void repair_shares(pdr_index *ix)
{
    pdr_run *runs = pdr_runs_of(ix);
    pdr_extra *extras = pdr_extras_of(ix);
    memset(pdr_heads_of(ix), 0xff, ix->heads * sizeof(uint32_t));
    for (uint32_t i = 0; i < ix->runs; i++) {
        pdr_run *r = &runs[i];
        r->seen = 0;
        r->set = r->list = PDR_NIL;
        if (r->live) r->share.mask &= pdr_full_mask(r);
        if (!r->live || r->share.id >= ix->ids || !r->share.mask) r->share.id = PDR_NO_ID;
        r->shares = r->share.id != PDR_NO_ID;
    }
    for (uint32_t i = 0; i < ix->extras; i++) {
        pdr_extra *x = &extras[i];
        x->seen = x->listed = 0;
        if (x->share.id == PDR_NO_ID) continue;
        if (x->run < ix->runs && runs[x->run].live && x->share.id < ix->ids) {
            uint32_t *head = pdr_extra_head(ix, x->run, x->share.id), y = *head;
            while (y != PDR_NIL && (extras[y].run != x->run || extras[y].share.id != x->share.id))
                y = extras[y].hash_next;
            x->share.mask &= pdr_full_mask(&runs[x->run]);
            if (x->share.mask && y == PDR_NIL && runs[x->run].share.id != x->share.id) {
                x->hash_next = *head;
                *head = i;
                runs[x->run].shares++;
                continue;
            }
        }
        x->share.id = PDR_NO_ID;
    }
}

static int belongs(const pdr_index *ix, uint32_t share, uint32_t id)
{
    if (share >= ix->runs + ix->extras || pdr_share_at(ix, share)->id != id) return 0;
    return !(share < ix->runs ? pdr_runs_of(ix)[share].seen : pdr_extras_of(ix)[share - ix->runs].seen);
}

static void mark_seen(const pdr_index *ix, uint32_t share)
{
    if (share < ix->runs)
        pdr_runs_of(ix)[share].seen = 1;
    else
        pdr_extras_of(ix)[share - ix->runs].seen = 1;
}

/* A call that was cut short has broken a list in one place: what is before it is found from the front, what is behind
 * it from the end. */
static void repair_list(pdr_index *ix, uint32_t id)
{
    pdr_id *d = &pdr_ids_of(ix)[id];
    uint32_t at = d->newest, from_end = d->oldest, last = PDR_NIL, next;
    d->newest = d->oldest = PDR_NIL;
    d->count = 0;
    for (; belongs(ix, at, id); at = next) {
        next = pdr_share_at(ix, at)->next;
        mark_seen(ix, at);
        pdr_lru_link(ix, at, last);
        last = at;
    }
    for (at = from_end; belongs(ix, at, id); at = next) {
        next = pdr_share_at(ix, at)->prev;
        mark_seen(ix, at);
        pdr_lru_link(ix, at, last); /* in front of the one before */
    }
}

static void repair_recency(pdr_index *ix)
{
    for (uint32_t id = 0; id < ix->ids; id++) repair_list(ix, id);
    for (uint32_t share = 0; share < ix->runs + ix->extras; share++) {
        const pdr_share *h = pdr_share_at(ix, share);
        if (h->id == PDR_NO_ID || !belongs(ix, share, h->id)) continue;
        mark_seen(ix, share);
        pdr_lru_link(ix, share, pdr_ids_of(ix)[h->id].oldest);
    }
}

static void repair_free(pdr_index *ix)
{
    pdr_run *runs = pdr_runs_of(ix);
    pdr_extra *extras = pdr_extras_of(ix);
    ix->free_run = ix->free_extra = ix->free_set = PDR_NIL;
    ix->free_runs = ix->free_extras = 0;
    for (uint32_t i = ix->runs; i-- > 0;) {
        if (runs[i].live) continue;
        runs[i].share.next = ix->free_run;
        ix->free_run = i;
        ix->free_runs++;
    }
    for (uint32_t i = ix->extras; i-- > 0;) {
        if (extras[i].share.id != PDR_NO_ID) continue;
        extras[i].share.next = ix->free_extra;
        ix->free_extra = i;
        ix->free_extras++;
    }
    for (uint32_t i = ix->sets; i-- > 0;) {
        pdr_sets_of(ix)[i].word[0] = PDR_SPARE;
        pdr_sets_of(ix)[i].next = ix->free_set;
        ix->free_set = i;
    }
}

static void repair_ids(pdr_index *ix)
{
    pdr_id *ids = pdr_ids_of(ix);
    ix->pairs = 0;
    ix->hand = 0;
    ix->cleared_first = ix->cleared_last = ix->free_id = PDR_NIL;
    memset(pdr_held_of(ix), 0, ix->words * sizeof(uint64_t));
    for (uint32_t share = 0; share < ix->runs + ix->extras; share++) {
        const pdr_share *h = pdr_share_at(ix, share);
        if (h->id != PDR_NO_ID) pdr_id_count(ix, h->id, __builtin_popcount(h->mask));
    }
    for (uint32_t id = ix->ids; id-- > 0;) {
        if (pdr_owner_of(ix)[id] != PDR_NO_ID || ids[id].count) continue;
        ids[id].next = ix->free_id;
        ix->free_id = id;
    }
    for (uint32_t id = 0; id < ix->ids; id++)
        if (pdr_owner_of(ix)[id] == PDR_NO_ID && ids[id].count) queue_cleared(ix, id);
}

void pdr_index_repair(pdr_index *ix)
{
    if (!__atomic_load_n(&ix->dirty, __ATOMIC_ACQUIRE)) return;
    pdr_run *runs = pdr_runs_of(ix);
    repair_table(ix);
    repair_owners(ix);
    repair_shares(ix);
    repair_recency(ix);
    repair_free(ix);
    repair_ids(ix);
    for (uint32_t i = 0; i < ix->extras; i++)
        if (pdr_extras_of(ix)[i].share.id != PDR_NO_ID) pdr_extra_place(ix, i);
    for (uint32_t i = 0; i < ix->runs; i++) {
        runs[i].seen = 0;
        if (!runs[i].live) continue;
        if (!runs[i].shares)
            pdr_run_free(ix, i);
        else if (runs[i].shares == 1)
            pdr_run_settle(ix, i);
    }
    for (uint32_t i = 0; i < ix->extras; i++) pdr_extras_of(ix)[i].seen = 0;
    for (uint32_t t = 0; t < ix->targets; t++) pdr_room_keep_capacity(ix, t);
    PDR_PUBLISH(ix->dirty, 0u);
}
