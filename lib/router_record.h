/*
 * Recording: what a decision saw, written onto the tape in the block while somebody reads it, so that router_replay.c makes the same decision again elsewhere.
 *
 * A frame begins with what changed since the frame before: numbers of the router, and those of candidate targets, found by comparing them with a shadow.
 * A key frame has everything: written first, after losses, and when endpoints changed. Kinds:
 *   K key     numbers, candidate lists, endpoints, targets, queue
 *   D decide  the request, its depth at each target, its block hashes, and what was chosen
 *   P pass    a pass over the queue: for each held request looked at, in order, its depths and what was chosen
 *   R remove  a request left the queue otherwise
 *   E ended   what became of a request: time of its prefill, usage
 *
 * Off, it costs a load and a branch per decision. On, about 1 µs per decision plus 6 ns per candidate target.
 */
#ifndef PDR_ROUTER_RECORD_H
#define PDR_ROUTER_RECORD_H

#include "router_decide.h"

enum { PDR_FRAME_KEY = 'K', PDR_FRAME_DECIDE = 'D', PDR_FRAME_PASS = 'P', PDR_FRAME_REMOVE = 'R', PDR_FRAME_ENDED = 'E' };
enum { PDR_SERVED_WAITS = 0, PDR_SERVED_RELEASED = 1, PDR_SERVED_REFUSED = 2 };
enum { PDR_ENDED_PREFILL = 1, PDR_ENDED_USAGE = 2, PDR_ENDED_ALL = 3 };
enum { PDR_RECORD_ASK_SINGLE_ONLY = 1, PDR_RECORD_ASK_ANY_SINGLE = 2, PDR_RECORD_ASK_NO_HOLD = 4 };

/* Numbers of the router that choices depend on, as one list. */
void pdr_globals_get(const pdr_books *b, uint64_t v[PDR_GLOBALS]);
void pdr_globals_set(pdr_books *b, const uint64_t v[PDR_GLOBALS]);

/* Fields of a target by number, so that every architecture writes the same. */
size_t   pdr_target_fields(void);
uint64_t pdr_target_field(const pdr_target *t, size_t field);
void     pdr_target_field_set(pdr_target *t, size_t field, uint64_t v);

/* Hooks of the router; all but the first do nothing unless a frame was begun. */
static inline int pdr_recording(const pdr_books *b) { return __builtin_expect((int)b->r->recording, 0) && !b->replay; }
void pdr_record_ask(pdr_books *b, const pdr_ask *a, pdr_pen *pen); /* matched; nothing booked yet */
void pdr_record_decided(pdr_books *b, pdr_pen *pen, const pdr_choice *choice, int outcome, const pdr_booking *k);
void pdr_record_pass(pdr_books *b, pdr_pen *pen);
void pdr_record_served(pdr_books *b, pdr_pen *pen, uint64_t ticket, const pdr_choice *choice, uint32_t result);
void pdr_record_passed(pdr_books *b, pdr_pen *pen);
void pdr_record_removed(pdr_books *b, uint64_t ticket, int code);
void pdr_record_ended(pdr_books *b, uint64_t ticket, uint32_t what, uint64_t a, uint64_t c, uint64_t d);

#endif
