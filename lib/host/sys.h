/*
 * What the files of libpdroute_host share: the mapping's struct and errors with errno. The host library stands on the public API of the core
 * alone (the shared core hides everything else), hence its own way to fill an error.
 */
#ifndef PDR_HOST_SYS_H
#define PDR_HOST_SYS_H

#include <sys/types.h>

#include "pdroute/host.h"

struct pdr_guard_slot;

struct pdr_host {
    pdr_router *router;
    struct pdr_guard_slot *guard; /* NULL: none */
    void       *mem;
    size_t      size;
    int         fd;       /* of the block file: keeps the inode for wake addresses and lease marks */
    int         wake_fd;  /* unbound, for sending; shared by forked processes, a datagram socket bears that */
    dev_t       dev;
    ino_t       ino;
    uint32_t    origin;
    int32_t     reason;
    uint32_t   *seen;     /* leases that had a living process at the last pdr_host_reap(), ascending */
    size_t      seen_n, seen_cap;
    uint64_t    reaped_ns;
    char        message[232];
    char        path[1024];
};

/* Sets code and sentence, returns code. */
int pdr_host_fail(pdr_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* PDR_E_SYSTEM with "<what> <path>: <text of errno>"; errno is kept. */
int pdr_host_fail_errno(pdr_error *err, const char *what, const char *path);
/* Reads an options struct of the caller's size; PDR_E_VERSION if unknown bytes are set. */
int pdr_host_struct_in(void *dst, size_t known, const void *src, pdr_error *err);
/* Writes an output struct no further than its struct_size. */
int pdr_host_struct_out(void *dst, const void *src, size_t known);

#endif
