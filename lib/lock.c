#include "lock.h"

#include "pdroute/pdroute.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

int pdr_lock_init(pdr_lock *lock)
{
    pthread_mutexattr_t attr;
    int                 bad;
    if (pthread_mutexattr_init(&attr)) return PDR_E_SYSTEM;
    bad = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED) ||
          pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST) || pthread_mutex_init(&lock->mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    lock->taken = 0;
    lock->given_up = UINT32_MAX;
    return bad ? PDR_E_SYSTEM : PDR_OK;
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/*
 * The critical sections last a few microseconds at most: spin for about one, give the core away for some more, then sleep: 5 ms in steps of 50 µs, 95 ms in steps of
 * 5 ms, 1.9 s in steps of 50 ms. Who wakes tries several times: the others may hand the lock to and fro without a pause. Few sleeps, because a machine with too much to do makes
 * each longer by what it makes everybody wait. KNOWN: so many of the first ones, where somebody has waited for this holder in vain.
 */
enum { SPINS = 40, YIELDS = 40, TRIES = 8, SHORT = 100, LONGER = SHORT + 19, SLEEPS = LONGER + 38, KNOWN = 5, BUSY_FROM = SPINS + YIELDS };

static void pause_at(int i)
{
    const int step = (i - BUSY_FROM) / TRIES;
    if (i < SPINS || (i > BUSY_FROM && i % TRIES)) {
        for (int k = 0; k < 8; k++) relax();
    } else if (i < BUSY_FROM) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){0, step < SHORT ? 50000 : step < LONGER ? 5000000 : 50000000}, NULL);
    }
}

/* It was had: whoever sleeps for it can see that it is another's now. */
static inline int had(pdr_lock *lock, int how)
{
    __atomic_store_n(&lock->taken, lock->taken + 1, __ATOMIC_RELAXED);
    return how;
}

int pdr_lock_take(pdr_lock *lock)
{
    uint32_t first = 0, now = 0;
    for (int i = 0; i < BUSY_FROM + SLEEPS * TRIES; i++) {
        int got = pthread_mutex_trylock(&lock->mutex);
        if (__builtin_expect(got == 0, 1)) return had(lock, PDR_OK);
        if (got == EOWNERDEAD) return had(lock, PDR_LOCK_RECOVERED);
        if (got != EBUSY) return PDR_E_BUSY; /* ENOTRECOVERABLE never happens: a recovered lock is always made consistent */
        if (i >= BUSY_FROM) {
            now = __atomic_load_n(&lock->taken, __ATOMIC_RELAXED);
            if (i == BUSY_FROM) first = now;
            if (i >= BUSY_FROM + KNOWN * TRIES && now == first && now == __atomic_load_n(&lock->given_up, __ATOMIC_RELAXED)) return PDR_E_BUSY;
        }
        pause_at(i);
    }
    if (now == first) __atomic_store_n(&lock->given_up, now, __ATOMIC_RELAXED);
    return PDR_E_BUSY;
}

void pdr_lock_repaired(pdr_lock *lock) { pthread_mutex_consistent(&lock->mutex); }
void pdr_lock_release(pdr_lock *lock) { pthread_mutex_unlock(&lock->mutex); }
