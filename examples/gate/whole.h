/*
 * Answers that take both legs'. Logprobs of the prompt are in prefill's answer only; for the few requests that ask for them prefill's body is kept instead of
 * thrown away, decode's is held back until prefill has ended, and then passes through libpdroute: a JSON answer as one text, a stream event by event. What is
 * kept is bounded: an answer of more than WHOLE_TEXT_MAX passes as decode gave it. All other requests pay one test of a pointer.
 */
#ifndef PDR_GATE_WHOLE_H
#define PDR_GATE_WHOLE_H

#include "pdroute/pdroute.h"
#include "wire.h"

#define WHOLE_TEXT_MAX (64u << 20)

typedef struct whole {
    unsigned wanted : 1; /* with this pair, and prefill has not failed */
    unsigned ended : 1;  /* prefill has, well or not */
    unsigned begun : 1;
    unsigned lost : 1;   /* memory ran out: the answer cannot be put together, and may not end as if it were whole */
    pdr_merge state;
    bytes prefill; /* its body */
    bytes rest;    /* of decode's, what is not passed on yet */
    bytes out;
} whole;

/* A request that asks for what is in both legs' answers gets one. -1: no memory. *w NULL as long as nobody asked. */
int whole_asked(whole **w, const pdr_prompt *prompt);
/* A pair was decided on: what an earlier one brought is forgotten. */
void whole_decided(whole *w, const pdr_decision *decision, const pdr_prompt *prompt);
/* The next piece of prefill's answer, which is a 200. */
void whole_keep(whole *w, view piece);
/* Prefill has ended; `good`: its answer is complete. */
void whole_prefill_ended(whole *w, int good);
/* The next piece of decode's answer, a 200 as `kind` (PDR_RESPONSE_*): what may go to the client now. Valid until the next call. Look at w->lost. */
view whole_pass(whole *w, uint32_t api, uint32_t kind, view piece, int end);
void whole_free(whole **w);

#endif
