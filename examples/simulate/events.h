/*
 * The event queue: a binary heap by (time, rank, order of insertion), so that a run is the same every time. Starts of steps have a late rank:
 * what arrives at the same instant is there when the step begins.
 */
#ifndef SIM_EVENTS_H
#define SIM_EVENTS_H

#include "chooser.h"

typedef enum sim_event_type {
    SIM_EV_ARRIVE,         /* a: job */
    SIM_EV_AT_PREFILL,     /* a: job: the request has reached its prefill worker */
    SIM_EV_AT_DECODE,      /* a: job: a decode-only request, or a late binding, has reached its decode worker */
    SIM_EV_PREFILL_STEP,   /* a: worker: its step ends */
    SIM_EV_TRANSFERRED,    /* a: job */
    SIM_EV_DECODE_STEP,    /* a: worker, b: generation of its stretch */
    SIM_EV_HEARD_PREFILL,  /* a: job */
    SIM_EV_HEARD_FIRST,    /* a: job */
    SIM_EV_HEARD_DONE,     /* a: job */
    SIM_EV_SCRAPE,         /* a: worker */
    SIM_EV_WAKE,           /* a: gateway */
    SIM_EV_PREFILL_START,  /* a: worker; from here on: late ranks */
    SIM_EV_DECODE_START    /* a: worker */
} sim_event_type;

typedef struct sim_event {
    sim_ns         at;
    uint64_t       order;
    sim_event_type type;
    uint32_t       a;
    uint64_t       b;
} sim_event;

typedef struct sim_events {
    sim_event *heap;
    size_t     n, cap;
    uint64_t   inserted;
    int        failed; /* out of memory: the run is worth nothing */
} sim_events;

void sim_events_put(sim_events *q, sim_ns at, sim_event_type type, uint32_t a, uint64_t b);
int  sim_events_take(sim_events *q, sim_event *out); /* 0: none left */
void sim_events_free(sim_events *q);

#endif
