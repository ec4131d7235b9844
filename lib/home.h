/*
 * Homes: where gateways that do not talk agree that a prompt belongs.
 *
 * A gateway with books of its own knows which servers hold what it has sent there, and nothing of what the others sent. Of a conversation whose turns reach it by chance it knows
 * some turns only, and if each gateway sends the next one where it thinks best, every server computes every conversation. So each prompt has a home: of all prefill servers the one
 * that ranks highest for the first block in which the prompt differs from what several servers hold (rendezvous hashing over names: all gateways with the same endpoints find the same,
 * and a server that comes or goes moves only its own). At home more of a prompt is expected to be cached than the index knows: as much of the unknown part as was found at homes lately, by
 * what engines report, over the part of prompts that go home (the others do as we do: what half of us would find if half go there, all would find twice); and as much again, since what is
 * computed there is found by the others' next turns. An expectation, not a rule: the wait at home weighs as everywhere.
 *
 * All of it counts only while the engines' reports say that others send there too (`pdr_crowd`); nothing is expected where nothing was found. O(prefill servers) per arrival then,
 * nothing otherwise. Pure functions on the registry and plain numbers; called with the router's lock held.
 */
#ifndef PDR_HOME_H
#define PDR_HOME_H

#include "registry.h"

#include <stddef.h>

enum { PDR_CROWD_ALONE = 1024, PDR_CROWD_MOST = 64 * 1024 };

/* How much is at prefill servers beside what is ours, as their reports say. Fading sums. */
typedef struct pdr_crowd { uint64_t ours, others; } pdr_crowd;

/* A report of a server with that many requests of ours in prefill, and others. */
void     pdr_crowd_add(pdr_crowd *c, uint64_t ours, uint64_t others);
/* All requests over ours, times 1024. PDR_CROWD_ALONE: others have less than a fifth of all, which may be the reports' lateness. */
uint32_t pdr_crowd_q10(const pdr_crowd *c);

/*
 * What homes are worth. Of the prompt tokens that the index did not know at home: of all prompts that had one, and of those that went there; and of the latter, when they were computed:
 * all, and how many were cached nevertheless. Fading sums.
 */
typedef struct pdr_homes { uint64_t asked, went, unknown, found; } pdr_homes;

void     pdr_homes_init(pdr_homes *h);
void     pdr_homes_sent(pdr_homes *h, uint64_t unknown, int home);
void     pdr_homes_found(pdr_homes *h, uint64_t unknown, uint64_t found);
/* The home of a prompt with this chain, PDR_NONE: several servers hold all of it, or there is nothing to choose. depth[] by target. */
uint32_t pdr_home_of(const pdr_registry *g, const uint16_t *depth, const uint64_t *hashes, size_t n);
/* Blocks of n that are expected at home where the index knows of `depth`. */
uint16_t pdr_home_depth(const pdr_homes *h, uint16_t depth, size_t n);

#endif
