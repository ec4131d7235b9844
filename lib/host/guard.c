#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { FREE, FILLING, LIVE, LOST };

struct pdr_guard_slot {
    atomic_uint state, gone;
    size_t      size;
    char       *at;
    uint64_t    boot;
    pdr_config  config;
};

static struct pdr_guard_slot slots[PDR_GUARD_SLOTS];
static struct sigaction      previous;
static atomic_int            installed; /* 1: being installed, 2: there */
static int                   nothing;   /* an empty file: touching its mapping is a SIGBUS */

/*
 * What is left of the file goes as well: a thread that is inside, and has looked at tables that are gone now, must not go on with the rest. Each of
 * them runs into the missing memory itself and leaves its call.
 */
static void take_away(const struct pdr_guard_slot *s)
{
    (void)!mmap(s->at, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, nothing, 0);
}

/*
 * For who reads the header outside of calls on the books: the page that is asked for, of an empty block that is marked as lost. Threads that are inside get some
 * time first, to find that everything is gone: a table that is suddenly empty is none they could go on with.
 */
static int put_page(const struct pdr_guard_slot *s, size_t offset)
{
    size_t      page = (size_t)sysconf(_SC_PAGESIZE), at = offset / page * page;
    pdr_router *r;
    int         done;
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    char       *fresh = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fresh == MAP_FAILED) return 0;
    done = !pdr_router_init(fresh, s->size, &s->config, s->boot, &r, NULL) && !pdr_router_lose(r) &&
           mremap(fresh + at, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, s->at + at) != MAP_FAILED;
    if (!done) {
        munmap(fresh, s->size);
        return 0;
    }
    if (at) munmap(fresh, at); /* not the hole that the page left: it may be another thread's mapping already */
    if (s->size > at + page) munmap(fresh + at + page, s->size - at - page);
    return 1;
}

/* A jump out of a handler leaves the signal blocked where whoever calls us (a runtime, a sanitizer, a handler that was set later) did not ask for SA_NODEFER. */
static void unblock(void)
{
    sigset_t bus;
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
}

/* 1: the access may be tried again; 0: this is not about a guarded block, or cannot be helped. Does not return to a thread that is in a call. */
static int rescue(const char *at)
{
    for (int i = 0; i < PDR_GUARD_SLOTS; i++) {
        struct pdr_guard_slot *s = &slots[i];
        unsigned               state = atomic_load(&s->state), live = LIVE;
        if (state < LIVE || at < s->at || at >= s->at + s->size) continue;
        /* where the first page is still there, others see that the block is lost, and its lock is not left with this thread */
        if (atomic_compare_exchange_strong(&s->state, &live, LOST) && at >= s->at + sysconf(_SC_PAGESIZE)) (void)pdr_router_lose((pdr_router *)(void *)s->at);
        if (!atomic_exchange(&s->gone, 1)) take_away(s); /* by now: the page may have gone meanwhile, and that fault have been handled within this one */
        unblock();
        pdr_router_escape((const pdr_router *)(const void *)s->at);
        return put_page(s, (size_t)(at - s->at));
    }
    return 0;
}

static void pass_on(int signo, siginfo_t *info, void *context)
{
    struct sigaction fatal;
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signo, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signo);
    } else if (info->si_code > 0 || previous.sa_handler == SIG_DFL) {
        memset(&fatal, 0, sizeof fatal); /* as without us: the access comes again, or the signal that somebody sent */
        fatal.sa_handler = SIG_DFL;
        sigaction(signo, &fatal, NULL);
        if (info->si_code <= 0) raise(signo);
    }
}

static void on_sigbus(int signo, siginfo_t *info, void *context)
{
    int saved = errno;
    if (info->si_code <= 0 || !rescue(info->si_addr)) pass_on(signo, info, context);
    errno = saved;
}

static int install(pdr_error *err)
{
    struct sigaction ours;
    int              none = 0;
    if (!atomic_compare_exchange_strong(&installed, &none, 1)) {
        while (atomic_load(&installed) == 1) sched_yield();
        return atomic_load(&installed) ? PDR_OK : install(err);
    }
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_sigbus;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER; /* NODEFER: the handler may be left by a jump */
    sigemptyset(&ours.sa_mask);
    if ((nothing = memfd_create("pdroute-nothing", MFD_CLOEXEC)) < 0 || sigaction(SIGBUS, NULL, &previous) || sigaction(SIGBUS, &ours, NULL)) {
        if (nothing >= 0) close(nothing);
        atomic_store(&installed, 0);
        return pdr_host_fail_errno(err, "cannot install the handler that guards", "mapped blocks");
    }
    atomic_store(&installed, 2);
    return PDR_OK;
}

int pdr_guard_add(pdr_host *h, uint64_t boot, pdr_error *err)
{
    int code = install(err);
    for (int i = 0; !code && i < PDR_GUARD_SLOTS; i++) {
        struct pdr_guard_slot *s = &slots[i];
        unsigned               none = FREE;
        if (!atomic_compare_exchange_strong(&s->state, &none, FILLING)) continue;
        pdr_init_struct(&s->config, sizeof s->config);
        if ((code = pdr_router_config(h->router, &s->config))) {
            atomic_store(&s->state, FREE);
            return pdr_host_fail(err, code, "%s: %s", h->path, pdr_strerror(code));
        }
        s->at = h->mem;
        s->size = h->size;
        s->boot = boot;
        h->guard = s;
        atomic_store(&s->gone, 0);
        atomic_store(&s->state, LIVE);
        return PDR_OK;
    }
    return code ? code : pdr_host_fail(err, PDR_E_FULL, "more than %d blocks are open with a guard in this process", PDR_GUARD_SLOTS);
}

int pdr_guard_lost(const struct pdr_guard_slot *slot) { return slot && atomic_load(&slot->state) > LIVE; }

const pdr_config *pdr_guard_config(const struct pdr_guard_slot *slot) { return &slot->config; }

void pdr_guard_remove(struct pdr_guard_slot *slot, size_t *keep)
{
    *keep = 0;
    if (pdr_guard_lost(slot)) { /* the header, with the mutex, lies at its start */
        *keep = (size_t)sysconf(_SC_PAGESIZE);
        (void)!mmap(slot->at, *keep, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    if (slot) atomic_store(&slot->state, FREE);
}
