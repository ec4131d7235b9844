#include "cache.h"

#include <stdlib.h>
#include <string.h>

static uint32_t slot_of(const sim_cache *c, uint32_t id) { return (id * 0x9E3779B1u ^ (id * 0x9E3779B1u) >> 15) & c->mask; }

static sim_block *find(const sim_cache *c, uint32_t id)
{
    uint32_t i = c->table[slot_of(c, id)];
    while (i && c->blocks[i].id != id) i = c->blocks[i].next;
    return i ? &c->blocks[i] : NULL;
}

static int make_tables(sim_cache *c, uint32_t cap)
{
    sim_block *blocks = realloc(c->blocks, cap * sizeof *blocks);
    uint32_t  *table = calloc(cap, sizeof *table);
    if (blocks) c->blocks = blocks;
    if (!blocks || !table) {
        free(table);
        c->failed = 1;
        return -1;
    }
    free(c->table);
    c->table = table;
    c->cap = cap;
    c->mask = cap - 1;
    return 0;
}

int sim_cache_init(sim_cache *c)
{
    memset(c, 0, sizeof *c);
    if (make_tables(c, 1024)) return -1;
    c->blocks[0] = (sim_block){0};
    c->made = 1;
    return 0;
}

void sim_cache_free(sim_cache *c)
{
    free(c->blocks);
    free(c->table);
    memset(c, 0, sizeof *c);
}

/* Only called when every block made is in use: all go into the larger table. */
static int grow(sim_cache *c)
{
    if (make_tables(c, c->cap * 2)) return -1;
    for (uint32_t i = 1; i < c->made; i++) {
        uint32_t s = slot_of(c, c->blocks[i].id);
        c->blocks[i].next = c->table[s];
        c->table[s] = i;
    }
    return 0;
}

/* The list is a ring through blocks[0]: its `older` is the newest, its `newer` the oldest. */
static void link_newest(sim_cache *c, uint32_t i)
{
    sim_block *b = &c->blocks[i], *head = &c->blocks[0];
    b->newer = 0;
    b->older = head->older;
    c->blocks[head->older].newer = i;
    head->older = i;
}

static void unlink_block(sim_cache *c, uint32_t i)
{
    sim_block *b = &c->blocks[i];
    c->blocks[b->newer].older = b->older;
    c->blocks[b->older].newer = b->newer;
}

static uint32_t number_of(const sim_cache *c, const sim_block *b) { return (uint32_t)(b - c->blocks); }

uint32_t sim_cache_match(const sim_cache *c, const uint32_t *ids, uint32_t n)
{
    uint32_t depth = 0;
    while (depth < n && find(c, ids[depth])) depth++;
    return depth;
}

uint32_t sim_cache_unpinned(const sim_cache *c, const uint32_t *ids, uint32_t n)
{
    uint32_t free_ones = 0;
    for (uint32_t i = 0; i < n; i++) {
        const sim_block *b = find(c, ids[i]);
        free_ones += b && !b->pins;
    }
    return free_ones;
}

void sim_cache_touch(sim_cache *c, const uint32_t *ids, uint32_t n)
{
    while (n-- > 0) {
        sim_block *b = find(c, ids[n]);
        if (!b || b->pins) continue;
        unlink_block(c, number_of(c, b));
        link_newest(c, number_of(c, b));
    }
}

void sim_cache_pin(sim_cache *c, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        sim_block *b = find(c, ids[i]);
        if (!b || b->pins++) continue;
        unlink_block(c, number_of(c, b));
        c->pinned++;
    }
}

void sim_cache_unpin(sim_cache *c, const uint32_t *ids, uint32_t n)
{
    while (n-- > 0) {
        sim_block *b = find(c, ids[n]);
        if (!b || !b->pins || --b->pins) continue;
        link_newest(c, number_of(c, b));
        c->pinned--;
    }
}

static int add(sim_cache *c, uint32_t id)
{
    uint32_t i = c->first_free;
    if (i) {
        c->first_free = c->blocks[i].next;
    } else {
        if (c->made == c->cap && grow(c)) return -1;
        i = c->made++;
    }
    uint32_t s = slot_of(c, id);
    c->blocks[i] = (sim_block){.id = id, .next = c->table[s]};
    c->table[s] = i;
    link_newest(c, i);
    c->count++;
    return 0;
}

uint32_t sim_cache_store(sim_cache *c, const uint32_t *ids, uint32_t n)
{
    uint32_t added = 0;
    while (n-- > 0) {
        sim_block *b = find(c, ids[n]);
        if (!b) {
            if (add(c, ids[n])) return added;
            added++;
        } else if (!b->pins) {
            unlink_block(c, number_of(c, b));
            link_newest(c, number_of(c, b));
        }
    }
    return added;
}

uint32_t sim_cache_shrink(sim_cache *c, uint32_t most)
{
    uint32_t gone = 0;
    while (c->count > most && c->blocks[0].newer) {
        uint32_t   i = c->blocks[0].newer;
        sim_block *b = &c->blocks[i];
        uint32_t  *at = &c->table[slot_of(c, b->id)];
        unlink_block(c, i);
        while (*at != i) at = &c->blocks[*at].next;
        *at = b->next;
        b->next = c->first_free;
        c->first_free = i;
        c->count--;
        gone++;
    }
    return gone;
}
