/*
 * libpdroute_host: what touches the system, beside the core that does not. The router block as a mapped file that several
 * processes share, the clock, waking other processes, leases that end with their process, and a prober of the servers on libcurl.
 *
 * Conventions are those of pdroute.h. Linux only (flock, open file description locks, abstract sockets, epoll).
 * [any] here means any thread; after fork() a child uses the parent's pdr_host as its own, but opens its own leases.
 */
#ifndef PDROUTE_HOST_H
#define PDROUTE_HOST_H

#include <stddef.h>
#include <stdint.h>

#include "pdroute/pdroute.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ----------------------------------------------------------------------------------------------------------------- clock */

/* CLOCK_MONOTONIC in nanoseconds: the now_ns of every process of this machine. [pure] since 0.1 */
PDR_API uint64_t pdr_host_now_ns(void);
/* Hash of the kernel's boot id, never 0. PDR_E_SYSTEM if it cannot be read. [pure] since 0.1 */
PDR_API int pdr_host_boot(uint64_t *boot, pdr_error *err);
/* Eight bytes from getrandom(), never 0. PDR_E_SYSTEM. [pure] since 0.1 */
PDR_API int pdr_host_seed(uint64_t *seed, pdr_error *err);

/* ---------------------------------------------------------------------------------------------------------- the block file */

typedef struct pdr_host pdr_host; /* one mapping of a block file in this process */

enum {
    PDR_HOST_CREATE = 1u << 0,   /* make the file (and its directory) if there is none */
    PDR_HOST_RECREATE = 1u << 1, /* as CREATE, and replace a file that is refused for any PDR_E_BLOCK_* reason; of one with another configuration the endpoints are kept */
    PDR_HOST_RESTORE = 1u << 2,  /* take over a block from before a reboot: what was learnt stays (pdr_router_restore) */
    PDR_HOST_GUARD = 1u << 3     /* survive that somebody truncates the file: below */
};
enum { PDR_HOST_ATTACHED = 1, PDR_HOST_CREATED = 2, PDR_HOST_RECREATED = 3, PDR_HOST_RESTORED = 4 };

typedef struct pdr_host_info {
    uint32_t struct_size;
    uint32_t origin;       /* PDR_HOST_ATTACHED … */
    uint64_t size;         /* bytes mapped */
    int32_t  reason;       /* RECREATED, RESTORED: the PDR_E_BLOCK_* code for which the old block was not used, else 0 */
    uint32_t reserved;
    char     message[232]; /* its sentence */
    char     path[1024];   /* absolute */
} pdr_host_info;

/*
 * Maps the block file at `path` (say /dev/shm/pdroute/qwen) and gives its router. `config` NULL accepts any configuration (and makes a block with
 * default values where one is made); a seed of 0 is taken from getrandom().
 *
 * Any number of processes may open one path at once: a new block is built under another name, all its pages allocated (a full file system is
 * PDR_E_SYSTEM here, not a SIGBUS later), and appears complete or not at all. A block that is replaced gets a new inode: processes that
 * have the old one mapped go on with it undisturbed until they open anew; pdr_host_state() tells them. Mode 0660, whatever the umask.
 *
 * A block file must never be truncated or written to by anything but this library: a page that is gone is a SIGBUS in every process that
 * touches it. Nothing on Linux can forbid that for a named file; keep its directory closed to others. With PDR_HOST_GUARD the process survives
 * it: a handler of SIGBUS, installed once per process, leads the call that ran into it out. It and all later ones on this router answer PDR_E_BLOCK_CORRUPT, pdr_host_state() answers PDR_HOST_TRUNCATED; close, and open anew. A SIGBUS for any
 * other reason goes to the handler found there before, so that this fits into programs of Go, Python and Envoy.
 *
 * Errors: PDR_E_SYSTEM (the message has path, call and errno's text), PDR_E_BLOCK_*, PDR_E_INVALID, PDR_E_BUSY (a replacing process does not go on),
 * PDR_E_FULL (more than 256 blocks with a guard).
 * Allocates. [any] since 0.1
 */
PDR_API int pdr_host_open(const char *path, const pdr_config *config, uint32_t flags, pdr_host **out, pdr_router **router,
                          pdr_error *err);
/* Unmaps; the file stays, leases of this process too. NULL is fine. [exclusive] since 0.1 */
PDR_API void        pdr_host_close(pdr_host *h);
PDR_API pdr_router *pdr_host_router(const pdr_host *h);                     /* [any] since 0.1 */
PDR_API int         pdr_host_info_get(const pdr_host *h, pdr_host_info *out); /* [any] since 0.1 */

enum { PDR_HOST_CURRENT = 0, PDR_HOST_REPLACED = 1 /* the path names another file, or none: open anew */,
       PDR_HOST_TRUNCATED = 2 /* the file became shorter: close at once; without PDR_HOST_GUARD do not touch the router */ };
/* Two system calls; ask about once a second. PDR_E_SYSTEM if the path cannot be looked at. [any] since 0.1 */
PDR_API int pdr_host_state(const pdr_host *h, uint32_t *state, pdr_error *err);

/*
 * Goes on with what the path names now: if the block's file was truncated, replaced or removed, *next gets a handle on the block that is there (and `router`,
 * which may be NULL, its router); NULL: nothing changed. For programs that are to recover by themselves: call it with every tick (two system calls where
 * nothing changed), then use *next for everything, leases too, and close `h` when no thread is in a call on it. Exchanges that began on the old block may go on with
 * the new router: ids of one block mean nothing to another. If the file was removed, its endpoints are in the new block; after a truncation they cannot be
 * read any more, and a file that somebody put there has what he put into it: apply the configuration again.
 *
 * `flags` and `config` as for pdr_host_open(), but a file of others is never replaced, not even with PDR_HOST_RECREATE; one that was truncated under `h`,
 * and is still what the path names, is (config NULL: by a block of its configuration).
 * On an error *next is NULL and `h` stays as it is: a block that was replaced by a file that is refused can still be used. PDR_E_* of pdr_host_open(). Allocates. [object] since 0.1
 */
PDR_API int pdr_host_follow(pdr_host *h, const pdr_config *config, uint32_t flags, pdr_host **next, pdr_router **router, pdr_error *err);

/* ------------------------------------------------------------------------------------------------------------------ leases */

/* A lease of this process, with what ends it when the process dies and what wakes it. Caller's memory, plain data; its size never changes. */
typedef struct pdr_host_lease {
    uint32_t struct_size;
    uint32_t id;          /* for pdr_request.lease; may change in pdr_host_lease_renew */
    int32_t  wake_fd;     /* readable when tickets of this lease were released; -1: none, poll pdr_released() instead */
    int32_t  lock_fd;     /* private */
    uint64_t renewed_ns;
    char     name[64];
} pdr_host_lease;

/*
 * Opens a lease, its wake socket, and a mark in the kernel (an open file description lock on the block file) that vanishes with the process, however it
 * dies and in whatever pid namespace it lives: pdr_host_reap() of any other process then ends the lease at once instead of after lease_ttl_ms.
 * Where the file system knows no such locks, the time to live alone does it. Open it in the process that uses it, after fork(). [any] since 0.1
 */
PDR_API int pdr_host_lease_open(pdr_host *h, const char *name, uint64_t now_ns, pdr_host_lease *out, pdr_error *err);
/*
 * Renews when a third of lease_ttl_ms has passed, so that it may be called often. A lease that expired meanwhile (the process was stopped) is replaced by
 * a new one: returns PDR_E_LEASE once, with a new id and wake_fd in place; bookings of the old one are gone. [object] since 0.1
 */
PDR_API int pdr_host_lease_renew(pdr_host *h, pdr_host_lease *lease, uint64_t now_ns, pdr_error *err);
/* Ends the lease: what it had booked is given back. [object] since 0.1 */
PDR_API void pdr_host_lease_close(pdr_host *h, pdr_host_lease *lease, uint64_t now_ns);
/* Ends leases whose processes died since the last call; *broken (may be NULL) gets their number. A few system calls per lease. [object] since 0.1 */
PDR_API int pdr_host_reap(pdr_host *h, uint64_t now_ns, uint32_t *broken);

/* Jobs that one process per block should do; other numbers are free for the caller's own. */
enum { PDR_HOST_JOB_PROBE = 1, PDR_HOST_JOB_DISCOVERY = 2 };
/*
 * Claims a job for as long as *fd is open (and this process lives): PDR_E_BUSY if another process has it. Where the file system knows no open file
 * description locks, everybody gets it. [any] since 0.1
 */
PDR_API int pdr_host_claim(pdr_host *h, uint32_t job, int *fd, pdr_error *err);

/* ----------------------------------------------------------------------------------------------------------------- waking */

/*
 * A non-blocking datagram socket that becomes readable when somebody calls pdr_host_wake() for this lease. Abstract address from the block's device
 * and inode: nothing on disk to clean up or to have permissions for; processes of other network namespaces are not reached and
 * find their tickets by polling pdr_released(), which every owner should do each 100 ms anyway (a waker may die before it wakes). close() it.
 * [any] since 0.1
 */
PDR_API int pdr_host_wake_open(pdr_host *h, uint32_t lease, int *fd, pdr_error *err);
/* Takes everything that arrived; call before pdr_released(). [any] since 0.1 */
PDR_API void pdr_host_wake_drain(int fd);
/* Wakes the owner of one lease. Never blocks; an owner that is gone is no error: 1 woken (or already due to wake), 0 nobody there. [any] since 0.1 */
PDR_API int pdr_host_wake(pdr_host *h, uint32_t lease);
/* pdr_wakeups() and a wake for each. Call after whatever may have released tickets: events, ticks, reports. The number of leases woken. [any] since 0.1 */
PDR_API int pdr_host_wake_pending(pdr_host *h);
/* pdr_tick(), pdr_host_reap() and pdr_host_wake_pending(): what one process at least should do every 100 ms. [object] since 0.1 */
PDR_API int pdr_host_tick(pdr_host *h, uint64_t now_ns);

/* ----------------------------------------------------------------------------------------------------------------- probing */

typedef struct pdr_probe pdr_probe;

enum { PDR_PROBE_UP = 1, PDR_PROBE_DOWN = 2, PDR_PROBE_REPORTS_LOST = 3 /* up, but gives no load */, PDR_PROBE_REPORTS_BACK = 4,
       PDR_PROBE_NOTE = 5 /* something the operator should know: a role that differs, values that cannot be read */ };
/* What the prober found out. Borrowed by the callback. */
typedef struct pdr_probe_event {
    uint32_t struct_size;
    uint32_t type;          /* PDR_PROBE_* */
    uint32_t endpoint;      /* id */
    uint32_t status;        /* HTTP status that led to it, 0: none */
    uint64_t now_ns;
    char     name[128];
    char     message[256];  /* "connection refused", "answered 503 to /health" … */
} pdr_probe_event;

enum {
    PDR_PROBE_NO_HEALTH = 1u << 0,    /* ask no /health: a server that answers reports is up */
    PDR_PROBE_NO_LOADS = 1u << 1,     /* /metrics only */
    PDR_PROBE_NO_INFO = 1u << 2,      /* no /server_info */
    PDR_PROBE_TLS_INSECURE = 1u << 3  /* do not verify certificates */
};
/* Zero means default (in brackets). Times between requests are varied by a tenth, so that probes of many servers spread out. */
typedef struct pdr_probe_options {
    uint32_t struct_size;
    uint32_t flags;               /* PDR_PROBE_NO_… */
    uint32_t interval_ms;         /* between two reports of one server [1000] */
    uint32_t health_interval_ms;  /* between two /health of a server that is up [5000]; on a PD worker one takes about a second */
    uint32_t refresh_ms;          /* between two looks at the block's endpoints [500] */
    uint32_t connect_timeout_ms;  /* [800] */
    uint32_t timeout_ms;          /* of a whole answer [3000] */
    uint32_t health_timeout_ms;   /* of /health of a server that is up [10000]: one in a long prefill answers late */
    uint32_t retry_min_ms;        /* first pause after a failure, from start to start [100] */
    uint32_t retry_max_ms;        /* doubling up to this: a server that is back is seen within it [800] */
    uint32_t down_after;          /* failures in a row that take a server out [3]; one success brings it back */
    uint32_t max_active;          /* requests at once [512] */
    uint64_t max_answer_bytes;    /* after decompression [8388608] */
    const char *authorization;    /* whole value of an Authorization header, NULL: none; copied */
    const char *ca_file;          /* PEM file of certificate authorities, NULL: libcurl's own; copied */
    void (*event)(void *context, const pdr_probe_event *event); /* NULL: none; called inside pdr_probe_run */
    void *context;
} pdr_probe_options;

/*
 * A prober of all endpoints of a router, on libcurl's multi interface: no threads of its own (libcurl may resolve names in one). Per server /health, then /server_info once, then
 * /v1/loads (or /metrics where that is unknown), each answer fed to pdr_report_put() and every change to pdr_endpoint_health(). Endpoints are read
 * from the block anew every refresh_ms. No proxy, no redirects, environment ignored. `r` must outlive the prober. PDR_E_UNSUPPORTED if built
 * without libcurl, PDR_E_SYSTEM. Allocates. [any] since 0.1
 */
PDR_API int  pdr_probe_new(pdr_router *r, const pdr_probe_options *options, pdr_probe **out, pdr_error *err);
PDR_API void pdr_probe_free(pdr_probe *p); /* NULL is fine [object] since 0.1 */
/*
 * One step: waits at most timeout_ms for something to do (an answer, a time that came), does it, returns. *answers (may be NULL) gets the number of requests that
 * ended. [object] since 0.1
 */
PDR_API int pdr_probe_run(pdr_probe *p, uint32_t timeout_ms, uint32_t *answers, pdr_error *err);
/* Steps until *stop is not 0 (set it from a signal handler; seen within 100 ms). [object] since 0.1 */
PDR_API int pdr_probe_loop(pdr_probe *p, const volatile int *stop, pdr_error *err);
/* A descriptor for the caller's event loop: readable when pdr_probe_run(p, 0, …) has an answer to handle; call that every 50 ms anyway. [object] since 0.1 */
PDR_API int pdr_probe_fd(const pdr_probe *p);
/* Endpoints of which it is not yet known whether they are up (and, if up, what their load is). [object] since 0.1 */
PDR_API uint32_t pdr_probe_pending(const pdr_probe *p);

typedef struct pdr_probe_stats {
    uint32_t struct_size;
    uint32_t endpoints, up, down, unknown; /* now */
    uint32_t active;                       /* requests under way */
    uint64_t requests, failures, reports, connections; /* since pdr_probe_new */
} pdr_probe_stats;
PDR_API int pdr_probe_stats_get(const pdr_probe *p, pdr_probe_stats *out); /* [object] since 0.1 */

#ifdef __cplusplus
}
#endif
#endif
