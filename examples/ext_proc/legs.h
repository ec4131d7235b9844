/*
 * What carries a leg, and what it tells the leg (leg.c). Two of them: peer.c, connections of our own to addresses without TLS, and curl.c, everything else.
 * Both only take notes in the leg: `connected`, `complete`, `failed`, state LEG_DONE when either is set; leg_note() then.
 */
#ifndef PDR_EXTPROC_LEGS_H
#define PDR_EXTPROC_LEGS_H

#include <sys/socket.h>

#include "extproc.h"

/* ----------------------------------------------------------------------------------------------------- told to the leg */

/* The answer's head is there, its lines in l->lines. */
void leg_head(leg *l, unsigned status);
/* A piece of its body. */
void leg_body(leg *l, view piece);
/* Whether it has so much that the client did not take yet that it should be paused. */
int leg_full(const leg *l, size_t more);
/* Header lines of the client's request that go to workers. */
view leg_forwarded(call *c);

/* ---------------------------------------------------------------------------------------------------------- peer.c */

typedef struct peer_address {
    struct sockaddr_storage at;
    socklen_t len;
} peer_address;

/* 0, or -1: a name, for which a resolver is needed. */
int peer_address_of(const char *host, unsigned port, peer_address *out);
/* Sends l->head_out and the slices. 0, or -1: not even a socket; l->failed is set if that is the server's fault. */
int peer_start(leg *l, const peer_address *to);
void peer_cancel(leg *l);
void peer_resume(leg *l);
/* Every GATE_TICK_MS: connections that take too long to come, or were kept long enough. */
void peers_tick(worker *w);
int peers_init(worker *w);
void peers_end(worker *w);
/* After the loop has run for the last time. */
void peers_free(worker *w);

/* ---------------------------------------------------------------------------------------------------------- curl.c */

int curl_start(leg *l, int tls, const char *host, unsigned port);
void curl_cancel(leg *l);
void curl_resume(leg *l);
void curl_run(worker *w);
void curl_forget(leg *l);
int curl_init(worker *w);
void curl_end(worker *w);
/* After the loop has run for the last time. */
void curl_free_watches(worker *w);

#endif
