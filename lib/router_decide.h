/*
 * Deciding, with the books open and locked: from a request to a choice, a booking, a decision; and letting held requests go.
 */
#ifndef PDR_ROUTER_DECIDE_H
#define PDR_ROUTER_DECIDE_H

#include "block.h"

/* A request as the choice sees it. */
typedef struct pdr_ask {
    const pdr_prompt *prompt;
    const uint64_t   *hashes;
    size_t            n;
    pdr_request       request;
    pdr_job           job;
    int               single_only; /* not one for PD */
    int               any_single;  /* any server may serve it alone */
    int64_t           priority;    /* the body's and the caller's */
} pdr_ask;

/* Checks the structs and the engine protocol's rules. `b` need not be locked but open. PDR_E_INVALID, _VERSION, _UNSUPPORTED. */
int pdr_ask_make(const pdr_books *b, const pdr_prompt *prompt, const uint64_t *hashes, size_t n, const pdr_request *request, pdr_ask *out,
                 pdr_error *err);
/*
 * Matches into b->depth and chooses. PDR_E_NO_PAIR; then *retry_ms says when to come again. Where breakers bar a whole role, one of its servers is let
 * in from time to time (breaker.h). Two that were suspected with each other are not sent to together again while there is another pair: the job then
 * excludes one of them.
 */
int pdr_decide(pdr_books *b, pdr_ask *a, pdr_choice *choice, uint64_t *retry_ms, pdr_error *err);
/* The same once b->depth is filled. */
int pdr_decide_matched(pdr_books *b, const pdr_ask *a, pdr_choice *choice, uint64_t *retry_ms, pdr_error *err);
/* b->depth and b->holders have what the index knows of a held request: what is expected at its home beside (home.h). */
void pdr_expect_home(pdr_books *b, const pdr_held *s);
/* Prefill time where most of it is cached, at the pool's speed; b->depth is filled. */
uint64_t pdr_least_work(const pdr_books *b, const pdr_job *job);
/* Whether it has to queue whatever the choice would be: others are held and nobody is free. Then there is no choice. */
int pdr_must_queue(const pdr_books *b, const pdr_ask *a);
/* What a held request would be: until when, how large, how urgent, whose. */
typedef struct pdr_terms { uint64_t deadline_ns, size_us; int64_t priority; uint64_t tenant; } pdr_terms;
pdr_terms pdr_terms_of(const pdr_books *b, const pdr_ask *a); /* b->depth is filled */
/*
 * PDR_E_QUEUE_FULL if it cannot be held: no place, or what is served before it takes longer than it may wait: better told now than after its time is over.
 * Then *retry_ms is when it could be held.
 */
int pdr_admit(const pdr_books *b, const pdr_terms *t, uint64_t *retry_ms);
/* Whether this choice has to wait in the queue. */
int pdr_must_wait(const pdr_books *b, const pdr_ask *a, const pdr_choice *choice);
/* Whether a request may be sent to that prefill target now: nothing is outstanding there, or only an answer (pdr_open_for). */
int pdr_gate_open(const pdr_books *b, uint32_t target);
/* Surely no gate is open. O(1): from a count and a bound, which passes over the queue renew. */
int pdr_all_busy(const pdr_books *b);
/* Books a choice on a fresh or held record: room, work, place, prefix. PDR_E_FULL (rooms). */
int pdr_book(pdr_books *b, pdr_booking *k, const pdr_job *job, const pdr_choice *choice, const uint64_t *hashes, size_t n, uint32_t state);
/* The prompt of a booking into the prefix index, at whoever will have it. */
void pdr_remember(pdr_books *b, const pdr_booking *k, const uint64_t *hashes, size_t n);
/* The decision for a placed booking. */
void pdr_decision_of(const pdr_books *b, const pdr_booking *k, pdr_decision *out);
/* The decision that a choice would become, with nothing booked: no room, booking 0. */
void pdr_decision_dry(const pdr_books *b, const pdr_ask *a, const pdr_choice *choice, pdr_decision *out);
/* One side of a candidate, with every term. */
void     pdr_candidate_of(const pdr_books *b, pdr_candidate *c, uint32_t target, uint32_t role, const pdr_job *job, uint64_t mean_queue_q10);
uint64_t pdr_mean_queue_q10(const pdr_books *b);
uint64_t pdr_mean_held_q10(const pdr_books *b); /* held only */
pdr_view pdr_view_of(const pdr_books *b, const pdr_job *job);
/*
 * The decision log: begin before anything is booked (candidates as the choice saw them; choice NULL: none), end with what became of it. A record that is begun and not
 * ended is simply overwritten by the next.
 */
pdr_log_entry *pdr_log_begin(pdr_books *b, const pdr_job *job, const pdr_choice *choice);
void           pdr_log_end(pdr_books *b, pdr_log_entry *r, const pdr_booking *k, uint32_t outcome, uint32_t lease, uint32_t attempt);
/* Lets held requests go as far as workers are free. Cheap when none are held. */
void pdr_release_held(pdr_books *b);
/* The wait that doubles a request's urgency: as long as the whole backlog takes, and what comes meanwhile. */
uint64_t pdr_ageing_us(const pdr_books *b);
/* Ends a held request without a place: its owner hears `code`. */
void pdr_refuse_held(pdr_books *b, pdr_booking *k, int code);
/* Gives back a booking in any state; a held one leaves the queue first. */
void pdr_give_back(pdr_books *b, pdr_booking *k);
/*
 * `code` from pdr_books_lock(): if that is PDR_E_BUSY, notes PDR_OWED_* of the booking for the next pdr_tick() and gives PDR_OK, so that nobody who is through has to come again.
 * Without the lock. Any other code is given back.
 */
int pdr_owe(pdr_router *r, uint64_t booking, uint32_t what, int code);
/* Milliseconds after which a refused client should come again: the time the present work takes. */
uint64_t pdr_backlog_ms(const pdr_books *b);
uint64_t pdr_backlog_us(const pdr_books *b);
/* ---- learning (router_learn.c) */

enum { PDR_AS_THE_POOL = 1024 /* slowness_q10 */ };
/* Work that should have taken expected_us there took took_us. */
void pdr_measured(pdr_books *b, uint32_t target, uint64_t expected_us, uint64_t took_us);
/* Once a second: servers that were not measured lately drift to the pool's speed. */
void pdr_relax_speeds(pdr_books *b);
/* For people: 1000 as the prior says, 500 half as fast. */
uint32_t pdr_speed_permille(const pdr_books *b, const pdr_target *t);
/* The prompt of this booking is computed / one of its legs ended well with usage. */
void pdr_learn_prefill(pdr_books *b, pdr_booking *k, uint64_t took_us);
/* Prefill has answered, or (0) the first token has come. */
void pdr_learn_answer(pdr_books *b, pdr_booking *k, int prefill);
void pdr_learn_usage(pdr_books *b, pdr_booking *k, uint64_t prompt_tokens, uint64_t cached_tokens, uint64_t completion_tokens, int decode);
/* It ended well and no leg reported usage: what was believed has to do. */
void pdr_learn_without_usage(pdr_books *b, pdr_booking *k);
/* Sets the prefix index's share of a target from what was learnt about its cache. */
void pdr_fit_capacity(pdr_books *b, uint32_t target);

#endif
