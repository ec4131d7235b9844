/*
 * Breaker: which endpoints get no requests for a while, because they failed. Works on the registry's records, with the router's lock held.
 *
 * An endpoint is taken out by a refused connection at once; by failures in a row; by its share of failures among the last 32 answers (at least 16
 * known), a good answer that took many times longer than the pool's counting as half a failure; by a suspicion that can be pinned on it. For open_ns, doubled
 * up to 30 s each time that a leg sent after the last opening fails again; those sent before it tell nothing new. Then one request may try it
 * (half open), the others wait for what becomes of that.
 *
 * Nobody is taken out for answering badly if more than half of its role would be out then: what hits everybody is not the fault of one, and
 * a gateway that ejects its whole pool makes an outage of a slowdown. Unless another of its role has worked meanwhile, and not failed: then it does not
 * hit everybody, and those that work must not wait until those that do not have been tried again and again. A refused connection is no such opinion. And where breakers bar
 * every server of a role (or all that a request has not tried yet), each of them is tried again every PDR_BREAKER_RELENT_NS, however long its time has
 * grown; one that refused connections, where a try is cheap, every PDR_BREAKER_REFUSED_NS, and at once by a request that would fail without it.
 *
 * A failure of which it cannot be told whose it is (decode's 500 before the prompt is known to be computed: a dead bootstrap server looks like that) makes
 * suspects of both. Who has done its part of another request since this one was sent is innocent. Suspicion is pinned on the one that was suspected before
 * and whose partner is innocent; else on the one that was suspected with two partners, or whose partner has been cleared (has answered well) since.
 */
#ifndef PDR_BREAKER_H
#define PDR_BREAKER_H

#include "registry.h"

#define PDR_BREAKER_RELENT_NS  500000000u
#define PDR_BREAKER_REFUSED_NS 250000000u

typedef struct pdr_breaker_rules {
    uint32_t failures;       /* in a row */
    uint32_t error_permille; /* of the last 32; UINT32_MAX: never */
    uint64_t open_ns;
} pdr_breaker_rules;

enum { PDR_FAILURE_REFUSED = 1, /* nothing could be sent at all */ PDR_FAILURE_PLAIN = 2, PDR_FAILURE_PINNED = 3 /* suspected before, and pinned on it now */,
       PDR_FAILURE_DOUBTFUL = 4, /* counts, but alone takes nobody out before four times as many */ PDR_FAILURE_SLOW = 5 /* after a success: it took much too long */ };

/* One target's guard. 0: none. */
void pdr_breaker_open_until(const pdr_registry *g, uint32_t target, uint32_t guard, uint64_t until_ns);
/* An answer that is good to its end. */
void pdr_breaker_success(const pdr_registry *g, uint32_t target);
/* It has begun to answer: the breaker closes, failures stay counted. */
void pdr_breaker_close(const pdr_registry *g, uint32_t target);
/* It has just done its part of a request. */
void pdr_breaker_alive(const pdr_registry *g, uint32_t target, uint64_t now_ns);
/* 1 if that took the endpoint out. */
int pdr_breaker_failure(const pdr_registry *g, uint32_t target, uint32_t kind, const pdr_breaker_rules *rules, uint64_t sent_ns, uint64_t now_ns);
/* Both targets of a pair, to which a request was sent then, are suspected: what each of them is to be charged with (PDR_FAILURE_*; 0, nothing: it works). */
void pdr_breaker_suspect(const pdr_registry *g, uint32_t prefill, uint32_t decode, uint64_t sent_ns, uint32_t kind[2]);
/*
 * Of a list whose targets are all barred by breakers or excluded (tried by this request), lets in the one that was tried longest ago, if that is long enough ago. 1 if
 * there is one to try now.
 */
int pdr_breaker_relent(const pdr_registry *g, const uint32_t *list, uint32_t n, const uint32_t *exclude, uint32_t excluded, uint64_t now_ns);

#endif
