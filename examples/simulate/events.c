#include "events.h"

#include <stdlib.h>
#include <string.h>

static int before(const sim_event *x, const sim_event *y) { return x->at != y->at ? x->at < y->at : x->order < y->order; }

void sim_events_put(sim_events *q, sim_ns at, sim_event_type type, uint32_t a, uint64_t b)
{
    if (q->n == q->cap) {
        size_t     cap = q->cap ? q->cap * 2 : 1024;
        sim_event *heap = realloc(q->heap, cap * sizeof *heap);
        if (!heap) {
            q->failed = 1;
            return;
        }
        q->heap = heap;
        q->cap = cap;
    }
    uint64_t  late = type >= SIM_EV_PREFILL_START ? (uint64_t)1 << 63 : 0;
    sim_event e = {.at = at, .order = late | q->inserted++, .type = type, .a = a, .b = b};
    size_t    i = q->n++;
    for (; i && before(&e, &q->heap[(i - 1) / 2]); i = (i - 1) / 2) q->heap[i] = q->heap[(i - 1) / 2];
    q->heap[i] = e;
}

int sim_events_take(sim_events *q, sim_event *out)
{
    if (!q->n || q->failed) return 0;
    *out = q->heap[0];
    sim_event last = q->heap[--q->n];
    size_t    i = 0;
    for (size_t child; (child = 2 * i + 1) < q->n; i = child) {
        if (child + 1 < q->n && before(&q->heap[child + 1], &q->heap[child])) child++;
        if (!before(&q->heap[child], &last)) break;
        q->heap[i] = q->heap[child];
    }
    q->heap[i] = last;
    return 1;
}

void sim_events_free(sim_events *q)
{
    free(q->heap);
    memset(q, 0, sizeof *q);
}
