#include "index_parts.h"

#include <string.h>

/* ---- recency */

void pdr_lru_unlink(pdr_index *ix, uint32_t share)
{
    pdr_share *h = pdr_share_at(ix, share);
    pdr_id *id = &pdr_ids_of(ix)[h->id];
    if (h->prev == PDR_NIL)
        id->newest = h->next;
    else
        pdr_share_at(ix, h->prev)->next = h->next;
    if (h->next == PDR_NIL)
        id->oldest = h->prev;
    else
        pdr_share_at(ix, h->next)->prev = h->prev;
}

void pdr_lru_link(pdr_index *ix, uint32_t share, uint32_t behind)
{
    pdr_share *h = pdr_share_at(ix, share);
    pdr_id *id = &pdr_ids_of(ix)[h->id];
    h->prev = behind;
    h->next = behind == PDR_NIL ? id->newest : pdr_share_at(ix, behind)->next;
    if (behind == PDR_NIL)
        id->newest = share;
    else
        pdr_share_at(ix, behind)->next = share;
    if (h->next == PDR_NIL)
        id->oldest = share;
    else
        pdr_share_at(ix, h->next)->prev = share;
}

void pdr_id_count(pdr_index *ix, uint16_t id, int32_t n)
{
    pdr_id *d = &pdr_ids_of(ix)[id];
    uint64_t *word = &pdr_held_of(ix)[id >> 6], bit = 1ull << (id & 63);
    d->count += (uint32_t)n;
    if (pdr_owner_of(ix)[id] == PDR_NO_ID) return; /* cleared: its blocks are in no sum any more */
    ix->pairs += (uint64_t)(int64_t)n;
    *word = d->count ? *word | bit : *word & ~bit;
}

void pdr_id_straighten(pdr_index *ix, uint32_t word)
{
    const uint16_t *owner = pdr_owner_of(ix);
    uint8_t straight = word * 64 + 64 <= ix->targets;
    for (uint32_t id = word * 64; id < word * 64 + 64 && straight; id++)
        straight = owner[id] == id || owner[id] == PDR_NO_ID;
    pdr_straight_of(ix)[word] = straight;
}

/* ---- sets: ids that share all of a run */

int pdr_set_has(const pdr_index *ix, const pdr_run *run, uint16_t id)
{
    for (uint32_t s = run->set; s != PDR_NIL; s = pdr_sets_of(ix)[s].next) {
        const pdr_set *set = &pdr_sets_of(ix)[s];
        for (uint32_t i = 0; i < PDR_SET_WORDS; i++)
            if (set->word[i] == id >> 6) return (int)(set->bits[i] >> (id & 63) & 1);
    }
    return 0;
}

static void free_sets(pdr_index *ix, pdr_run *run)
{
    while (run->set != PDR_NIL) {
        pdr_set *set = &pdr_sets_of(ix)[run->set];
        uint32_t next = set->next;
        set->word[0] = PDR_SPARE;
        set->next = ix->free_set;
        ix->free_set = run->set;
        run->set = next;
    }
}

/* 0 if there is no piece left. Later pieces go behind the first one. */
static int set_add(pdr_index *ix, pdr_run *run, uint16_t id)
{
    pdr_set *spare = NULL;
    uint32_t spare_at = 0;
    uint64_t bit = 1ull << (id & 63);
    for (uint32_t s = run->set; s != PDR_NIL; s = pdr_sets_of(ix)[s].next) {
        pdr_set *set = &pdr_sets_of(ix)[s];
        for (uint32_t i = 0; i < PDR_SET_WORDS; i++) {
            if (set->word[i] == id >> 6) {
                set->bits[i] |= bit;
                return 1;
            }
            if (set->word[i] == PDR_NO_ID && !spare) spare = set, spare_at = i;
        }
    }
    if (!spare) {
        if (ix->free_set == PDR_NIL) return 0;
        uint32_t at = ix->free_set;
        spare = &pdr_sets_of(ix)[at];
        ix->free_set = spare->next;
        memset(spare, 0, sizeof *spare);
        memset(spare->word, 0xff, sizeof spare->word);
        spare->next = run->set;
        run->set = at;
    }
    spare->word[spare_at] = id >> 6;
    spare->bits[spare_at] = bit;
    return 1;
}

static void set_remove(pdr_index *ix, pdr_run *run, uint16_t id)
{
    for (uint32_t s = run->set; s != PDR_NIL; s = pdr_sets_of(ix)[s].next) {
        pdr_set *set = &pdr_sets_of(ix)[s];
        for (uint32_t i = 0; i < PDR_SET_WORDS; i++) {
            if (set->word[i] != id >> 6) continue;
            set->bits[i] &= ~(1ull << (id & 63));
            if (!set->bits[i]) set->word[i] = PDR_NO_ID;
            return;
        }
    }
}

/* ---- extras */

uint32_t *pdr_extra_head(const pdr_index *ix, uint32_t run, uint16_t id)
{
    uint64_t mixed = ((uint64_t)run << 16 | id) * 0x9e3779b97f4a7c15u;
    return &pdr_heads_of(ix)[(mixed >> 32) * ix->heads >> 32];
}

uint32_t pdr_run_share(const pdr_index *ix, uint32_t run, uint16_t id)
{
    const pdr_run *r = &pdr_runs_of(ix)[run];
    const pdr_extra *extras = pdr_extras_of(ix);
    if (r->share.id == id) return run;
    if (r->shares < 2 && r->share.id != PDR_NO_ID) return PDR_NIL;
    for (uint32_t x = *pdr_extra_head(ix, run, id); x < ix->extras; x = extras[x].hash_next)
        if (extras[x].run == run && extras[x].share.id == id) return ix->runs + x;
    return PDR_NIL;
}

static void list_add(pdr_index *ix, pdr_run *run, uint32_t extra)
{
    pdr_extra *x = &pdr_extras_of(ix)[extra];
    x->listed = 1;
    x->list_prev = PDR_NIL;
    x->list_next = run->list;
    if (run->list != PDR_NIL) pdr_extras_of(ix)[run->list].list_prev = extra;
    run->list = extra;
}

static void list_remove(pdr_index *ix, pdr_run *run, uint32_t extra)
{
    pdr_extra *x = &pdr_extras_of(ix)[extra];
    if (!x->listed) return;
    x->listed = 0;
    if (x->list_prev == PDR_NIL)
        run->list = x->list_next;
    else
        pdr_extras_of(ix)[x->list_prev].list_next = x->list_next;
    if (x->list_next != PDR_NIL) pdr_extras_of(ix)[x->list_next].list_prev = x->list_prev;
}

void pdr_extra_place(pdr_index *ix, uint32_t extra)
{
    pdr_extra *x = &pdr_extras_of(ix)[extra];
    pdr_run *run = &pdr_runs_of(ix)[x->run];
    int full = x->share.mask == pdr_full_mask(run);
    if (full && (run->set != PDR_NIL || run->shares >= PDR_SET_FROM) && set_add(ix, run, x->share.id)) {
        list_remove(ix, run, extra);
        return;
    }
    if (x->listed) return;
    if (!full) set_remove(ix, run, x->share.id);
    list_add(ix, run, extra);
}

void pdr_run_make_set(pdr_index *ix, uint32_t run)
{
    pdr_run *r = &pdr_runs_of(ix)[run];
    for (uint32_t x = r->list, next; x != PDR_NIL; x = next) {
        pdr_extra *extra = &pdr_extras_of(ix)[x];
        next = extra->list_next;
        if (extra->share.mask == pdr_full_mask(r) && set_add(ix, r, extra->share.id)) list_remove(ix, r, x);
    }
}

static void free_extra(pdr_index *ix, uint32_t extra)
{
    pdr_extra *x = &pdr_extras_of(ix)[extra];
    pdr_run *run = &pdr_runs_of(ix)[x->run];
    uint32_t *link = pdr_extra_head(ix, x->run, x->share.id);
    if (x->listed)
        list_remove(ix, run, extra);
    else
        set_remove(ix, run, x->share.id);
    while (*link != extra) link = &pdr_extras_of(ix)[*link].hash_next;
    *link = x->hash_next;
    PDR_PUBLISH(x->share.id, (uint16_t)PDR_NO_ID);
    x->share.next = ix->free_extra;
    ix->free_extra = extra;
    ix->free_extras++;
}

/* ---- runs */

uint32_t pdr_run_make(pdr_index *ix, uint32_t start)
{
    uint32_t at = ix->free_run;
    pdr_run *run = &pdr_runs_of(ix)[at];
    ix->free_run = run->share.next;
    ix->free_runs--;
    run->share = (pdr_share){PDR_NIL, PDR_NIL, PDR_NO_ID, 0};
    run->start = (uint16_t)start;
    run->len = 0;
    run->set = run->list = PDR_NIL;
    run->shares = 0;
    PDR_PUBLISH(run->live, (uint8_t)1);
    return at;
}

void pdr_run_free(pdr_index *ix, uint32_t run)
{
    pdr_run *r = &pdr_runs_of(ix)[run];
    const uint32_t *slots = pdr_slots_of(ix) + (size_t)run * PDR_RUN;
    while (r->len) {
        r->len--;
        pdr_table_drop(ix, slots[r->len], r->start + r->len == 0);
    }
    free_sets(ix, r);
    PDR_PUBLISH(r->live, (uint8_t)0);
    r->share.next = ix->free_run;
    ix->free_run = run;
    ix->free_runs++;
}

void pdr_run_trim(pdr_index *ix, uint32_t run)
{
    pdr_run *r = &pdr_runs_of(ix)[run];
    const uint32_t *slots = pdr_slots_of(ix) + (size_t)run * PDR_RUN;
    while (r->len && !(r->share.mask >> (r->len - 1) & 1)) {
        r->len--;
        pdr_table_drop(ix, slots[r->len], r->start + r->len == 0);
    }
}

/* A run with one share has it in its own place, and neither list nor set. */
void pdr_run_settle(pdr_index *ix, uint32_t run)
{
    pdr_run *r = &pdr_runs_of(ix)[run];
    if (r->share.id == PDR_NO_ID) {
        uint32_t share = r->list != PDR_NIL ? ix->runs + r->list : PDR_NIL;
        for (uint32_t s = r->set; s != PDR_NIL && share == PDR_NIL; s = pdr_sets_of(ix)[s].next) {
            const pdr_set *set = &pdr_sets_of(ix)[s];
            for (uint32_t i = 0; i < PDR_SET_WORDS && share == PDR_NIL; i++)
                if (set->word[i] != PDR_NO_ID)
                    share = pdr_run_share(ix, run, (uint16_t)(set->word[i] * 64 + __builtin_ctzll(set->bits[i])));
        }
        pdr_share was = *pdr_share_at(ix, share);
        pdr_id *id = &pdr_ids_of(ix)[was.id];
        r->share.mask = was.mask;
        r->share.prev = was.prev;
        r->share.next = was.next;
        PDR_PUBLISH(r->share.id, was.id);
        if (was.prev == PDR_NIL)
            id->newest = run;
        else
            pdr_share_at(ix, was.prev)->next = run;
        if (was.next == PDR_NIL)
            id->oldest = run;
        else
            pdr_share_at(ix, was.next)->prev = run;
        free_extra(ix, share - ix->runs);
    }
    free_sets(ix, r);
    pdr_run_trim(ix, run);
}

void pdr_run_split(pdr_index *ix, uint32_t run, uint32_t offset)
{
    pdr_run *a = &pdr_runs_of(ix)[run];
    uint32_t tail = pdr_run_make(ix, a->start + offset);
    pdr_run *b = &pdr_runs_of(ix)[tail];
    uint32_t *from = pdr_slots_of(ix) + (size_t)run * PDR_RUN, *to = pdr_slots_of(ix) + (size_t)tail * PDR_RUN;
    b->share.mask = (uint16_t)(a->share.mask >> offset);
    b->shares = 1;
    PDR_PUBLISH(b->len, (uint8_t)(a->len - offset));
    PDR_PUBLISH(b->share.id, a->share.id);
    for (uint32_t i = offset; i < a->len; i++) {
        uint32_t slot = from[i];
        PDR_PUBLISH(pdr_buckets_of(ix)[slot / PDR_SLOTS].ref[slot % PDR_SLOTS], pdr_ref(tail, i - offset));
        to[i - offset] = slot;
    }
    a->share.mask &= (uint16_t)((1u << offset) - 1);
    PDR_PUBLISH(a->len, (uint8_t)offset);
    pdr_lru_link(ix, tail, run);
}

/* ---- shares */

uint32_t pdr_share_make(pdr_index *ix, uint32_t run, uint16_t id)
{
    pdr_run *r = &pdr_runs_of(ix)[run];
    r->shares++;
    if (r->share.id == PDR_NO_ID) {
        r->share.mask = 0;
        PDR_PUBLISH(r->share.id, id);
        return run;
    }
    uint32_t at = ix->free_extra, *head = pdr_extra_head(ix, run, id);
    pdr_extra *x = &pdr_extras_of(ix)[at];
    ix->free_extra = x->share.next;
    ix->free_extras--;
    x->run = run;
    x->share.mask = 0;
    x->listed = 0;
    PDR_PUBLISH(x->share.id, id);
    x->hash_next = *head;
    *head = at;
    if (r->shares == PDR_SET_FROM) pdr_run_make_set(ix, run);
    pdr_extra_place(ix, at);
    return ix->runs + at;
}

void pdr_share_add(pdr_index *ix, uint32_t share, uint16_t bits)
{
    pdr_share *h = pdr_share_at(ix, share);
    bits &= (uint16_t)~h->mask;
    if (!bits) return;
    h->mask |= bits;
    pdr_id_count(ix, h->id, __builtin_popcount(bits));
    if (share >= ix->runs) pdr_extra_place(ix, share - ix->runs);
}

void pdr_share_take(pdr_index *ix, uint32_t share, uint16_t bits)
{
    pdr_share *h = pdr_share_at(ix, share);
    bits &= h->mask;
    if (!bits) return;
    if (bits == h->mask) {
        pdr_share_drop(ix, share);
        return;
    }
    h->mask &= (uint16_t)~bits;
    pdr_id_count(ix, h->id, -__builtin_popcount(bits));
    if (share >= ix->runs)
        pdr_extra_place(ix, share - ix->runs);
    else if (pdr_runs_of(ix)[share].shares == 1)
        pdr_run_trim(ix, share);
}

void pdr_share_drop(pdr_index *ix, uint32_t share)
{
    pdr_share *h = pdr_share_at(ix, share);
    uint32_t run = pdr_share_run(ix, share);
    pdr_run *r = &pdr_runs_of(ix)[run];
    pdr_lru_unlink(ix, share);
    pdr_id_count(ix, h->id, -__builtin_popcount(h->mask));
    if (share == run)
        PDR_PUBLISH(h->id, (uint16_t)PDR_NO_ID);
    else
        free_extra(ix, share - ix->runs);
    r->shares--;
    if (!r->shares)
        pdr_run_free(ix, run);
    else if (r->shares == 1)
        pdr_run_settle(ix, run);
}
