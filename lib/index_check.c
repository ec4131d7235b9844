#include "index_parts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct report {
    char *why;
    size_t cap;
} report;

static int __attribute__((format(printf, 2, 3))) bad(const report *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (to->cap) vsnprintf(to->why, to->cap, format, args);
    va_end(args);
    return -1;
}

int pdr_index_fits(const pdr_index *ix, uint64_t entries, uint32_t targets)
{
    pdr_index want;
    memset(&want, 0, sizeof want);
    pdr_index_lay_out(&want, entries, targets);
    return !memcmp(&want, ix, offsetof(pdr_index, dirty)) &&
           !memcmp(&want.at_targets, &ix->at_targets, offsetof(pdr_index, pairs) - offsetof(pdr_index, at_targets));
}

static int check_head(const pdr_index *ix, const report *to)
{
    if (ix->targets > 65535 || ix->entries > 1ull << 31) return bad(to, "prefix index: impossible sizes");
    if (!pdr_index_fits(ix, ix->entries, ix->targets))
        return bad(to, "prefix index: the layout is not that of its sizes");
    return ix->dirty ? bad(to, "prefix index: a call was cut short") : 0;
}

static int check_table(const pdr_index *ix, const report *to)
{
    const pdr_bucket *buckets = pdr_buckets_of(ix);
    const pdr_run *runs = pdr_runs_of(ix);
    uint32_t blocks = 0;
    for (uint32_t slot = 0; slot < ix->buckets * PDR_SLOTS; slot++) {
        const pdr_bucket *b = &buckets[slot / PDR_SLOTS];
        uint32_t j = slot % PDR_SLOTS, ref = b->ref[j], run = pdr_ref_run(ref);
        if (!ref) continue;
        blocks++;
        if (run >= ix->runs || !runs[run].live || pdr_ref_offset(ref) >= runs[run].len ||
            pdr_slots_of(ix)[ref - 1] != slot)
            return bad(to, "prefix index: slot %u names a block that run %u has not", slot, run);
        pdr_key key = {pdr_table_home(ix, slot), b->lo[j], b->hi[j]};
        if (pdr_table_find(ix, key) != ref) return bad(to, "prefix index: the block in slot %u cannot be found", slot);
        if (runs[run].start + pdr_ref_offset(ref) == 0 && !*pdr_root_cell(ix, key.bucket, key.hi))
            return bad(to, "prefix index: the filter of first blocks lacks slot %u", slot);
    }
    return blocks == ix->blocks ? 0 : bad(to, "prefix index: %u blocks, counted %u", ix->blocks, blocks);
}

/* Pieces met on the way: a piece that two have makes another one missing, which the count alone does not see but the sum of what the numbers hash to does. */
typedef struct tally {
    uint32_t n;
    uint64_t sum;
} tally;

static void met(tally *t, uint32_t piece)
{
    uint64_t h = (piece + 1ull) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0xbf58476d1ce4e5b9u;
    t->sum += h ^ h >> 32;
    t->n++;
}

static int check_sets(const pdr_index *ix, uint32_t run, uint32_t *shares, tally *used, const report *to)
{
    const pdr_run *r = &pdr_runs_of(ix)[run];
    uint32_t pieces = 0;
    for (uint32_t s = r->set; s != PDR_NIL; s = pdr_sets_of(ix)[s].next) {
        if (s >= ix->sets || pieces++ > ix->words) return bad(to, "prefix index: run %u has a bad set", run);
        met(used, s);
        const pdr_set *set = &pdr_sets_of(ix)[s];
        for (uint32_t i = 0; i < PDR_SET_WORDS; i++) {
            if (set->word[i] == PDR_NO_ID) continue;
            if (set->word[i] >= ix->words || !set->bits[i])
                return bad(to, "prefix index: run %u has a bad set word", run);
            for (uint64_t bits = set->bits[i]; bits; bits &= bits - 1) {
                uint16_t id = (uint16_t)(set->word[i] * 64 + __builtin_ctzll(bits));
                uint32_t share = pdr_run_share(ix, run, id);
                if (share == PDR_NIL || share < ix->runs || pdr_share_at(ix, share)->mask != pdr_full_mask(r) ||
                    pdr_extras_of(ix)[share - ix->runs].listed)
                    return bad(to, "prefix index: run %u has id %u in its set wrongly", run, id);
                ++*shares;
            }
        }
    }
    return 0;
}

/* Pieces are one run's, or spare: one that two have would be given away or changed for the other. */
static int check_spare_sets(const pdr_index *ix, tally used, const report *to)
{
    uint32_t spare = 0;
    tally    all = {0, 0};
    for (uint32_t s = ix->free_set; s != PDR_NIL; s = pdr_sets_of(ix)[s].next)
        if (s >= ix->sets || pdr_sets_of(ix)[s].word[0] != PDR_SPARE || spare++ >= ix->sets)
            return bad(to, "prefix index: bad list of spare sets");
        else
            met(&used, s);
    if (used.n != ix->sets) return bad(to, "prefix index: %u sets, %u used and %u spare", ix->sets, used.n - spare, spare);
    for (uint32_t s = 0; s < ix->sets; s++) met(&all, s);
    return used.sum == all.sum ? 0 : bad(to, "prefix index: a set is in two places");
}

static int check_run(const pdr_index *ix, uint32_t run, tally *sets, const report *to)
{
    const pdr_run *r = &pdr_runs_of(ix)[run];
    uint32_t shares = r->share.id != PDR_NO_ID, before = PDR_NIL;
    if (!r->len || r->start % PDR_RUN + r->len > PDR_RUN) return bad(to, "prefix index: run %u has a bad length", run);
    for (uint32_t i = 0; i < r->len; i++) {
        uint32_t slot = pdr_slots_of(ix)[(size_t)run * PDR_RUN + i];
        if (slot >= ix->buckets * PDR_SLOTS ||
            pdr_buckets_of(ix)[slot / PDR_SLOTS].ref[slot % PDR_SLOTS] != pdr_ref(run, i))
            return bad(to, "prefix index: run %u has lost block %u", run, i);
    }
    for (uint32_t x = r->list; x != PDR_NIL; before = x, x = pdr_extras_of(ix)[x].list_next, shares++) {
        if (x >= ix->extras || shares > ix->ids) return bad(to, "prefix index: run %u has a bad list", run);
        const pdr_extra *extra = &pdr_extras_of(ix)[x];
        if (extra->run != run || extra->share.id == PDR_NO_ID || !extra->listed || extra->list_prev != before)
            return bad(to, "prefix index: run %u has a wrong share in its list", run);
    }
    if (check_sets(ix, run, &shares, sets, to)) return -1;
    if (shares != r->shares || !shares)
        return bad(to, "prefix index: run %u has %u shares, counted %u", run, r->shares, shares);
    if (shares == 1 && (r->share.id == PDR_NO_ID || r->set != PDR_NIL || !(r->share.mask >> (r->len - 1) & 1)))
        return bad(to, "prefix index: run %u was not settled", run);
    return 0;
}

/* The chains through which extras are found; what comes later relies on their ends. */
static int check_heads(const pdr_index *ix, const report *to)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < ix->heads; i++)
        for (uint32_t x = pdr_heads_of(ix)[i]; x != PDR_NIL; x = pdr_extras_of(ix)[x].hash_next)
            if (x >= ix->extras || seen++ > ix->extras) return bad(to, "prefix index: bad chain of shares %u", i);
    return 0;
}

static int check_runs(const pdr_index *ix, const report *to)
{
    uint32_t free_runs = 0, free_extras = 0;
    tally    sets = {0, 0};
    for (uint32_t i = 0; i < ix->runs; i++)
        if (pdr_runs_of(ix)[i].live) {
            if (check_run(ix, i, &sets, to)) return -1;
        } else {
            free_runs++;
            if (pdr_runs_of(ix)[i].share.id != PDR_NO_ID) return bad(to, "prefix index: free run %u is held", i);
        }
    for (uint32_t i = 0; i < ix->extras; i++) {
        const pdr_extra *x = &pdr_extras_of(ix)[i];
        if (x->share.id == PDR_NO_ID) {
            free_extras++;
            continue;
        }
        if (x->run >= ix->runs || !pdr_runs_of(ix)[x->run].live ||
            pdr_run_share(ix, x->run, x->share.id) != ix->runs + i)
            return bad(to, "prefix index: share %u cannot be found", i);
    }
    if (check_spare_sets(ix, sets, to)) return -1;
    if (free_runs != ix->free_runs || free_extras != ix->free_extras)
        return bad(to, "prefix index: free runs or shares counted wrongly");
    for (uint32_t at = ix->free_run; at != PDR_NIL; at = pdr_runs_of(ix)[at].share.next)
        if (at >= ix->runs || pdr_runs_of(ix)[at].live || !free_runs--)
            return bad(to, "prefix index: bad list of free runs");
    for (uint32_t at = ix->free_extra; at != PDR_NIL; at = pdr_extras_of(ix)[at].share.next)
        if (at >= ix->extras || pdr_extras_of(ix)[at].share.id != PDR_NO_ID || !free_extras--)
            return bad(to, "prefix index: bad list of free shares");
    return free_runs || free_extras ? bad(to, "prefix index: free runs or shares are lost") : 0;
}

/* Follows one id's list; *shares gets how many it has. */
static int check_list(const pdr_index *ix, uint32_t id, uint32_t *shares, const report *to)
{
    const pdr_id *d = &pdr_ids_of(ix)[id];
    uint32_t before = PDR_NIL;
    uint64_t blocks = 0;
    for (uint32_t at = d->newest; at != PDR_NIL; before = at, at = pdr_share_at(ix, at)->next, ++*shares) {
        if (at >= ix->runs + ix->extras || *shares > ix->runs + ix->extras)
            return bad(to, "prefix index: bad list of id %u", id);
        const pdr_share *h = pdr_share_at(ix, at);
        uint32_t run = pdr_share_run(ix, at);
        if (h->id != id || h->prev != before || !h->mask || h->mask & ~pdr_full_mask(&pdr_runs_of(ix)[run]))
            return bad(to, "prefix index: id %u has a bad share of run %u", id, run);
        blocks += (uint64_t)__builtin_popcount(h->mask);
    }
    if (d->oldest != before) return bad(to, "prefix index: the list of id %u has another end", id);
    return blocks == d->count ? 0
                              : bad(to, "prefix index: id %u has %u blocks, counted %" PRIu64, id, d->count, blocks);
}

static int check_ids(const pdr_index *ix, const report *to)
{
    const uint16_t *owner = pdr_owner_of(ix);
    uint64_t pairs = 0;
    uint32_t shares = 0, used = 0, spare = 0;
    for (uint32_t t = 0; t < ix->targets; t++)
        if (pdr_targets_of(ix)[t].id >= ix->ids || owner[pdr_targets_of(ix)[t].id] != t)
            return bad(to, "prefix index: target %u has no id", t);
    for (uint32_t id = 0; id < ix->ids; id++) {
        const pdr_id *d = &pdr_ids_of(ix)[id];
        if (check_list(ix, id, &shares, to)) return -1;
        if (owner[id] != PDR_NO_ID && owner[id] >= ix->targets)
            return bad(to, "prefix index: id %u has a bad owner", id);
        if (pdr_straight_of(ix)[id >> 6] && owner[id] != PDR_NO_ID && owner[id] != id)
            return bad(to, "prefix index: id %u is not straight", id);
        if (owner[id] != PDR_NO_ID && pdr_targets_of(ix)[owner[id]].id != id)
            return bad(to, "prefix index: id %u has another's owner", id);
        if ((int)(pdr_held_of(ix)[id >> 6] >> (id & 63) & 1) != (owner[id] != PDR_NO_ID && d->count))
            return bad(to, "prefix index: id %u is marked wrongly", id);
        if (owner[id] != PDR_NO_ID) pairs += d->count;
    }
    for (uint32_t i = 0; i < ix->runs; i++) used += pdr_runs_of(ix)[i].share.id != PDR_NO_ID;
    used += ix->extras - ix->free_extras;
    if (used != shares) return bad(to, "prefix index: %u shares, %u of them in lists", used, shares);
    if (pairs != ix->pairs) return bad(to, "prefix index: %" PRIu64 " entries, counted %" PRIu64, ix->pairs, pairs);
    for (uint32_t at = ix->cleared_first; at != PDR_NIL; at = pdr_ids_of(ix)[at].next, spare++)
        if (at >= ix->ids || owner[at] != PDR_NO_ID || spare > ix->ids)
            return bad(to, "prefix index: bad queue of cleared ids");
    for (uint32_t at = ix->free_id; at != PDR_NIL; at = pdr_ids_of(ix)[at].next, spare++)
        if (at >= ix->ids || owner[at] != PDR_NO_ID || pdr_ids_of(ix)[at].count || spare > ix->ids)
            return bad(to, "prefix index: bad list of free ids");
    return spare == ix->ids - ix->targets ? 0 : bad(to, "prefix index: ids are lost");
}

int pdr_index_check(const pdr_index *ix, char *why, size_t cap)
{
    const report to = {why, cap};
    return check_head(ix, &to) || check_table(ix, &to) || check_heads(ix, &to) || check_runs(ix, &to) ||
                   check_ids(ix, &to)
               ? -1
               : 0;
}
