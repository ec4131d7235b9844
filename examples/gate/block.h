/*
 * The router block that a process uses: the file, the document that says what it is made from, and the present mapping, which all threads share. A file that was
 * truncated, replaced or removed is followed (pdr_host_follow): there is another mapping then, with the document applied, and every thread changes over
 * when it finds so; the old one goes when the last thread has.
 *
 * A thread may use no mapping that it has not taken. Cost: with each tick, two system calls of one thread.
 */
#ifndef PDR_GATE_BLOCK_H
#define PDR_GATE_BLOCK_H

#include "pdroute/host.h"
#include "pdroute/pdroute.h"

typedef struct gate_block gate_block;

typedef struct gate_map {
    pdr_host *host;
    pdr_router *router;
    unsigned users; /* private */
} gate_map;

enum { GATE_BLOCK_RECREATE = 1, /* replace a block that was made with another configuration */
       GATE_BLOCK_CHECK = 2 /* only look at the document: *out stays NULL */ };
/* Opens the block at `path`; `file` (may be NULL): JSON with members of pdr_config, endpoints, pool, or Kubernetes objects. -1: logged. */
int gate_block_open(const char *path, const char *file, unsigned flags, gate_block **out);
/* Endpoints of the file are added or updated; those that it does not name stay, for they may come from discovery. [any thread] */
int gate_block_reload(gate_block *b);
/* Nobody uses it any more. NULL is fine. */
void gate_block_close(gate_block *b);

/* The present mapping, taken until it is left. [any thread] */
gate_map *gate_block_take(gate_block *b);
void gate_block_leave(gate_block *b, gate_map *m);
/* Whether `m` is still the present one. [any thread] */
int gate_block_is(const gate_block *b, const gate_map *m);
/* Looks whether the file is another; what is due every 100 ms (pdr_host_tick). One thread does it, others return at once. [any thread] */
void gate_block_tick(gate_block *b);
/* Looks whether the file is another, for a thread that was told that the block is lost. Waits for one that looks already. [any thread] */
void gate_block_follow(gate_block *b);

#endif
