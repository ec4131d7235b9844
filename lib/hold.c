#include "hold.h"

#include <stdio.h>
#include <string.h>

void pdr_hold_init(const pdr_hold *h, uint32_t max)
{
    memset(h->head, 0, sizeof *h->head);
    h->head->max = max;
    for (uint32_t i = 0; i < max; i++) h->slots[i].booking = 0;
    pdr_hold_rebuild(h);
}

uint32_t pdr_hold_add(const pdr_hold *h, const pdr_job *job, const uint64_t *hashes, size_t n)
{
    uint32_t at = h->head->free_first;
    if (at == PDR_NONE) return PDR_NONE;
    pdr_held *s = &h->slots[at];
    uint32_t  next = s->next;
    memset(s, 0, offsetof(pdr_held, sample));
    s->job = *job;
    s->sequence = ++h->head->sequence;
    s->blocks = (uint32_t)n;
    s->samples = n < PDR_HELD_SAMPLES ? (uint32_t)n : PDR_HELD_SAMPLES;
    for (uint32_t i = 0; i < s->samples; i++) s->sample[i] = hashes[pdr_held_depth(s, i + 1) - 1];
    h->head->free_first = next;
    return at;
}

void pdr_hold_commit(const pdr_hold *h, uint32_t slot, uint64_t booking)
{
    __atomic_store_n(&h->slots[slot].booking, booking, __ATOMIC_RELEASE);
    h->head->held++;
    h->head->size_us += h->slots[slot].size_us;
    if (slot >= h->head->high) h->head->high = slot + 1;
}

void pdr_hold_remove(const pdr_hold *h, uint32_t slot)
{
    pdr_held *s = &h->slots[slot];
    if (s->booking) {
        __atomic_store_n(&s->booking, 0, __ATOMIC_RELEASE);
        h->head->held--;
        h->head->size_us -= s->size_us;
    }
    s->next = h->head->free_first;
    h->head->free_first = slot;
    while (h->head->high && !h->slots[h->head->high - 1].booking) h->head->high--;
}

/* (W + age) / size, in 1/1024: at most 2^41 * 2^10. */
static uint64_t urgency(const pdr_held *s, uint64_t ageing_us, uint64_t now_ns)
{
    uint64_t age = pdr_elapsed_us(now_ns, s->enqueued_ns);
    if (age > (1ull << 40)) age = 1ull << 40;
    return ((ageing_us + age) << 10) / (s->size_us ? s->size_us : 1);
}

typedef struct pdr_rank { int64_t priority; uint64_t urgency, sequence; uint32_t slot; } pdr_rank;

static int before(const pdr_rank *a, const pdr_rank *b)
{
    if (a->priority != b->priority) return a->priority > b->priority;
    if (a->urgency != b->urgency) return a->urgency > b->urgency;
    return a->sequence < b->sequence;
}

void pdr_hold_pass(const pdr_hold *h) { h->head->pass++; }

void pdr_hold_looked(const pdr_hold *h, uint32_t slot, uint64_t size_us)
{
    pdr_held *s = &h->slots[slot];
    s->looked = h->head->pass;
    h->head->size_us += size_us - s->size_us;
    s->size_us = size_us;
}

uint32_t pdr_hold_order(const pdr_hold *h, uint64_t ageing_us, uint64_t now_ns, uint32_t *out, uint32_t cap)
{
    pdr_rank top[PDR_HELD_WINDOW];
    uint32_t n = 0;
    if (cap > PDR_HELD_WINDOW) cap = PDR_HELD_WINDOW;
    if (ageing_us > (1ull << 40)) ageing_us = 1ull << 40;
    for (uint32_t i = 0; i < h->head->high; i++) {
        const pdr_held *s = &h->slots[i];
        if (!s->booking || s->looked == h->head->pass) continue;
        pdr_rank r = {s->priority, urgency(s, ageing_us, now_ns), s->sequence, i};
        if (n == cap && !before(&r, &top[n - 1])) continue;
        uint32_t k = n < cap ? n++ : cap - 1;
        for (; k > 0 && before(&r, &top[k - 1]); k--) top[k] = top[k - 1];
        top[k] = r;
    }
    for (uint32_t i = 0; i < n; i++) out[i] = top[i].slot;
    return n;
}

uint32_t pdr_held_depth(const pdr_held *s, uint32_t sample_depth)
{
    return s->samples ? (uint32_t)((uint64_t)sample_depth * s->blocks / s->samples) : 0;
}

void pdr_hold_rebuild(const pdr_hold *h)
{
    h->head->held = h->head->high = 0;
    h->head->size_us = 0;
    h->head->free_first = PDR_NONE;
    for (uint32_t i = h->head->max; i-- > 0;) {
        pdr_held *s = &h->slots[i];
        if (!s->booking) {
            s->next = h->head->free_first;
            h->head->free_first = i;
            continue;
        }
        h->head->held++;
        h->head->size_us += s->size_us;
        if (i >= h->head->high) h->head->high = i + 1;
    }
}

int pdr_hold_check(const pdr_hold *h, char *why, size_t cap)
{
    uint32_t held = 0, free_n = 0;
    uint64_t size = 0;
    for (uint32_t i = 0; i < h->head->max; i++) {
        const pdr_held *s = &h->slots[i];
        if (!s->booking) continue;
        held++;
        size += s->size_us;
        if (i >= h->head->high) return snprintf(why, cap, "queue: slot %u is used beyond the high mark", i);
        if (s->samples > PDR_HELD_SAMPLES) return snprintf(why, cap, "queue: slot %u has %u samples", i, s->samples);
    }
    for (uint32_t i = h->head->free_first; i != PDR_NONE && free_n <= h->head->max; i = h->slots[i].next) {
        if (i >= h->head->max || h->slots[i].booking) return snprintf(why, cap, "queue: free slot %u is in use", i);
        free_n++;
    }
    if (held != h->head->held || size != h->head->size_us || free_n != h->head->max - held)
        return snprintf(why, cap, "queue: %u held and %u free of %u; counted %u", held, free_n, h->head->max, h->head->held);
    return 0;
}
