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

/* The critical sections last a few microseconds at most: spin for about one, give the core away for some more, then sleep. */
enum { SPINS = 40, YIELDS = 40, SLEEPS = 2000 };

int pdr_lock_take(pdr_lock *lock)
{
    for (int i = 0; i < SPINS + YIELDS + SLEEPS; i++) {
        int got = pthread_mutex_trylock(&lock->mutex);
        if (__builtin_expect(got == 0, 1)) return PDR_OK;
        if (got == EOWNERDEAD) return PDR_LOCK_RECOVERED;
        if (got != EBUSY) return PDR_E_BUSY; /* ENOTRECOVERABLE never happens: a recovered lock is always made consistent */
        if (i < SPINS) {
            for (int k = 0; k < 8; k++) relax();
        } else if (i < SPINS + YIELDS) {
            sched_yield();
        } else {
            int             n = i - SPINS - YIELDS;
            struct timespec pause = {0, n < 200 ? 50000 : 1000000}; /* 50 µs for the first 10 ms, then 1 ms */
            nanosleep(&pause, NULL);
        }
    }
    return PDR_E_BUSY;
}

void pdr_lock_repaired(pdr_lock *lock) { pthread_mutex_consistent(&lock->mutex); }
void pdr_lock_release(pdr_lock *lock) { pthread_mutex_unlock(&lock->mutex); }
