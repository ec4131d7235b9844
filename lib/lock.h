/*
 * The lock of a block: one robust, process-shared mutex in shared memory.
 *
 * Promises: held for microseconds; if its holder is killed at any instant the next caller gets PDR_LOCK_RECOVERED and repairs; if its
 * holder is stopped (SIGSTOP, a debugger) nobody waits longer than about two seconds, then PDR_E_BUSY. Who has given up writes down on whom:
 * until the lock changes hands nobody waits for that holder again for longer than some milliseconds, so that a process with many requests is
 * held up for two seconds, not for two for each. No clock is read: the wait is a bounded number of tries with growing sleeps between them, few,
 * because a busy machine makes each longer.
 */
#ifndef PDR_LOCK_H
#define PDR_LOCK_H

#include <pthread.h>
#include <stdint.h>

enum { PDR_LOCK_RECOVERED = 1 };

typedef struct pdr_lock {
    pthread_mutex_t mutex;
    uint32_t        taken;    /* counts; written by the holder */
    uint32_t        given_up; /* the value of `taken` on which somebody waited in vain */
} pdr_lock;

/* [exclusive] Makes the lock anew. 0, or PDR_E_SYSTEM. */
int pdr_lock_init(pdr_lock *lock);
/* 0; PDR_LOCK_RECOVERED: held, but the holder before died inside: repair, then pdr_lock_repaired(); PDR_E_BUSY: not held. */
int  pdr_lock_take(pdr_lock *lock);
void pdr_lock_repaired(pdr_lock *lock);
void pdr_lock_release(pdr_lock *lock);

#endif
