/*
 * Replay: a block of its own, put into the recorded state before each decision, on which the router's own code decides again. Two hooks let the pass over the
 * queue take what each target held of a prompt from the file instead of from an index, and tell what it did.
 */
#ifndef PDR_ROUTER_REPLAY_H
#define PDR_ROUTER_REPLAY_H

#include "router_decide.h"

/* Fills b->depth for the request in this slot. */
void pdr_replay_match(pdr_books *b, uint32_t slot);
void pdr_replay_served(pdr_books *b, uint32_t slot, uint64_t booking, const pdr_choice *choice, uint32_t result);
/* Every candidate for one ask (b->depth filled), as pdr_explain() lists them; *n in: capacity, out: number. */
void pdr_list_candidates(const pdr_books *b, const pdr_ask *a, const pdr_choice *choice, pdr_candidate *out, size_t *n);

#endif
