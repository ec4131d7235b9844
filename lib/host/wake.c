#include "sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAKE_BATCH 64

/* "\0pdroute/<device>:<inode>/<lease>": the same for every process that has this very file, whatever its path there. */
static socklen_t wake_address(const pdr_host *h, uint32_t lease, struct sockaddr_un *a)
{
    int n;
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "pdroute/%llx:%llx/%x", (unsigned long long)h->dev,
                 (unsigned long long)h->ino, (unsigned)lease);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

int pdr_host_wake_open(pdr_host *h, uint32_t lease, int *fd, pdr_error *err)
{
    struct sockaddr_un a;
    socklen_t          n;
    int                s;
    if (!h || !fd) return pdr_host_fail(err, PDR_E_INVALID, "an argument is NULL");
    *fd = -1;
    s = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0) return pdr_host_fail_errno(err, "cannot make a wake socket for", h->path);
    n = wake_address(h, lease, &a);
    if (bind(s, (struct sockaddr *)&a, n)) {
        pdr_host_fail_errno(err, "cannot bind the wake socket of a lease of", h->path);
        close(s);
        return PDR_E_SYSTEM;
    }
    *fd = s;
    return PDR_OK;
}

void pdr_host_wake_drain(int fd)
{
    char byte;
    if (fd < 0) return;
    while (recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0 || errno == EINTR) {}
}

int pdr_host_wake(pdr_host *h, uint32_t lease)
{
    struct sockaddr_un a;
    socklen_t          n;
    ssize_t            sent;
    if (!h || h->wake_fd < 0) return 0;
    n = wake_address(h, lease, &a);
    do sent = sendto(h->wake_fd, "w", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&a, n);
    while (sent < 0 && errno == EINTR);
    return sent >= 0 || errno == EAGAIN; /* a full queue is a receiver that is due to wake */
}

int pdr_host_wake_pending(pdr_host *h)
{
    uint32_t leases[WAKE_BATCH];
    size_t   n;
    int      woken = 0;
    if (!h) return 0;
    do {
        n = WAKE_BATCH;
        if (pdr_wakeups(h->router, leases, &n)) break;
        for (size_t i = 0; i < n; i++) woken += pdr_host_wake(h, leases[i]);
    } while (n == WAKE_BATCH);
    return woken;
}
