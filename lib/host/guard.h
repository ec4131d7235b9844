/*
 * A mapped block file that becomes shorter under its users. A page that is gone is a SIGBUS in whatever touches it; the guard's handler leads a thread that is
 * inside a call on the block out of it, with PDR_E_BLOCK_CORRUPT (pdr_router_escape), and takes away what is left of the block, so that every other thread of the
 * process learns it at its next step. Who reads the header outside of such a call gets, 50 ms later, a page of an empty block that is
 * marked as lost.
 *
 * A SIGBUS that is not about a guarded block goes to the handler that was there before (Go's, Envoy's, faulthandler's), or is fatal as ever. The handler
 * runs on the alternate stack where a thread has one (SA_ONSTACK, which Go demands). It makes a few system calls and computes; it takes no lock and calls
 * nothing that allocates.
 *
 * Limits: a thread that the scheduler keeps from running for those 50 ms just inside a call may meet an empty table and die of it. PDR_GUARD_SLOTS blocks per process at once. A program that sets a SIGBUS handler of its own later, without calling the one it found, is
 * without guard from then on. Cost: nothing until it happens.
 */
#ifndef PDR_HOST_GUARD_H
#define PDR_HOST_GUARD_H

#include "sys.h"

enum { PDR_GUARD_SLOTS = 256 };

/* Guards a mapping; the handler is installed with the first one of a process. PDR_E_FULL, PDR_E_SYSTEM. [any] */
int pdr_guard_add(pdr_host *h, uint64_t boot, pdr_error *err);
/* Whether it was lost. NULL slot: no. [any] */
int pdr_guard_lost(const struct pdr_guard_slot *slot);
/* Of the block that it guards. [any] */
const pdr_config *pdr_guard_config(const struct pdr_guard_slot *slot);
/* Ends it, before the mapping goes. *keep gets the bytes at its start that must stay mapped: a thread that died or lost the block inside may have
 * the block's robust mutex in its list for good. [exclusive] */
void pdr_guard_remove(struct pdr_guard_slot *slot, size_t *keep);

#endif
