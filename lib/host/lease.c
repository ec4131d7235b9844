/*
 * Leases that end with their process. Each lease has an open file description lock on one byte of the block file, far behind its end: the kernel drops
 * it when the process dies, by whatever means and in whatever pid namespace. Who reaps asks the kernel which bytes are locked, and breaks
 * the leases that were locked the last time and are no more. A pid in a table could be reused or mean nothing in another container.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* F_OFD_* */
#endif
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK_BASE      ((off_t)1 << 40) /* of a lease: the byte at MARK_BASE + id */
#define JOB_BASE       (MARK_BASE + ((off_t)1 << 32)) /* of a job: the byte at JOB_BASE + number */
/* pdr_host_tick() reaps this often, so that what a dead process had booked keeps nobody waiting for long; each lease costs two system calls */
#define REAP_NS        90000000u        /* with up to sixteen leases: each tick of 100 ms */
#define REAP_LEASE_NS  6000000u         /* for each lease, with more */
#define REAP_LIMIT_NS  500000000u

/* Locks one byte through a description of its own, because a lock belongs to the description and h->fd may be shared by forked processes. */
static int mark_byte(const pdr_host *h, off_t at)
{
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    struct stat  st;
    char         self[64];
    int          fd;
    snprintf(self, sizeof self, "/proc/self/fd/%d", h->fd); /* the inode itself: the path may name a newer one */
    if ((fd = open(self, O_RDWR | O_CLOEXEC)) < 0) return -1;
    if (fstat(fd, &st) || st.st_ino != h->ino || st.st_dev != h->dev || fcntl(fd, F_OFD_SETLK, &l)) {
        int kept = errno;
        close(fd);
        errno = kept;
        return -1;
    }
    return fd;
}

static int no_such_locks(int e) { return e == EINVAL || e == ENOLCK || e == EOPNOTSUPP || e == ENOSYS; }

int pdr_host_claim(pdr_host *h, uint32_t job, int *fd, pdr_error *err)
{
    if (!h || !fd) return pdr_host_fail(err, PDR_E_INVALID, "an argument is NULL");
    if ((*fd = mark_byte(h, JOB_BASE + (off_t)job)) >= 0) return PDR_OK;
    if (errno == EAGAIN || errno == EACCES) return pdr_host_fail(err, PDR_E_BUSY, "%s: another process does this job already", h->path);
    if (no_such_locks(errno) && (*fd = fcntl(h->fd, F_DUPFD_CLOEXEC, 0)) >= 0) return PDR_OK;
    return pdr_host_fail_errno(err, "cannot mark", h->path);
}

static void drop_fds(pdr_host_lease *l)
{
    if (l->wake_fd >= 0) close(l->wake_fd);
    if (l->lock_fd >= 0) close(l->lock_fd);
    l->wake_fd = l->lock_fd = -1;
}

int pdr_host_lease_open(pdr_host *h, const char *name, uint64_t now_ns, pdr_host_lease *out, pdr_error *err)
{
    int code;
    if (!h || !out || !name) return pdr_host_fail(err, PDR_E_INVALID, "an argument is NULL");
    pdr_init_struct(out, sizeof *out);
    out->wake_fd = out->lock_fd = -1;
    snprintf(out->name, sizeof out->name, "%s", name);
    if ((code = pdr_lease_open(h->router, name, now_ns, &out->id, err))) return code;
    out->renewed_ns = now_ns;
    out->lock_fd = mark_byte(h, MARK_BASE + (off_t)out->id);
    pdr_host_wake_open(h, out->id, &out->wake_fd, NULL); /* without it the owner polls, as it must anyway */
    return PDR_OK;
}

int pdr_host_lease_renew(pdr_host *h, pdr_host_lease *lease, uint64_t now_ns, pdr_error *err)
{
    pdr_config config;
    char       name[sizeof lease->name];
    int        code;
    if (!h || !lease) return pdr_host_fail(err, PDR_E_INVALID, "an argument is NULL");
    pdr_init_struct(&config, sizeof config);
    if ((code = pdr_router_config(h->router, &config))) return pdr_host_fail(err, code, "%s", pdr_strerror(code));
    if (now_ns < lease->renewed_ns + (uint64_t)config.lease_ttl_ms * 1000000u / 3) return PDR_OK;
    code = pdr_lease_renew(h->router, lease->id, now_ns);
    if (!code) lease->renewed_ns = now_ns;
    if (code != PDR_E_LEASE && code != PDR_E_NOT_FOUND)
        return code ? pdr_host_fail(err, code, "%s", pdr_strerror(code)) : PDR_OK;
    snprintf(name, sizeof name, "%s", lease->name);
    drop_fds(lease);
    if ((code = pdr_host_lease_open(h, name, now_ns, lease, err))) return code;
    return pdr_host_fail(err, PDR_E_LEASE, "the lease had expired; a new one was opened");
}

void pdr_host_lease_close(pdr_host *h, pdr_host_lease *lease, uint64_t now_ns)
{
    if (!h || !lease) return;
    pdr_lease_break(h->router, lease->id, now_ns);
    drop_fds(lease);
}

/* ------------------------------------------------------------------------------------------------------------------ reaping */

struct marks {
    uint32_t *id;
    size_t    n, cap;
};

static int marks_add(struct marks *m, uint32_t id)
{
    if (m->n == m->cap) {
        size_t    cap = m->cap ? 2 * m->cap : 64;
        uint32_t *p = realloc(m->id, cap * sizeof *p);
        if (!p) return -1;
        m->id = p;
        m->cap = cap;
    }
    m->id[m->n++] = id;
    return 0;
}

/*
 * Every locked byte of [from, to). The kernel answers with some lock in the range, not with the first, so both sides are asked again; recursion is as deep as
 * there are leases at worst, hence the own stack. Returns 0, or -1 with errno.
 */
static int find_marks(int fd, struct marks *out)
{
    struct { off_t from, to; } *stack = NULL, *p;
    size_t n = 0, cap = 0;
    int    rc = 0;
    off_t  from = MARK_BASE, to = JOB_BASE;
    for (;;) {
        struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = from, .l_len = to - from};
        if (from < to && (rc = fcntl(fd, F_OFD_GETLK, &l))) break;
        if (from < to && l.l_type != F_UNLCK && l.l_start >= MARK_BASE) {
            if ((rc = marks_add(out, (uint32_t)(l.l_start - MARK_BASE)))) break;
            if (n == cap) {
                cap = cap ? 2 * cap : 64;
                if (!(p = realloc(stack, cap * sizeof *stack))) {
                    rc = -1;
                    break;
                }
                stack = p;
            }
            stack[n].from = l.l_start + 1;
            stack[n++].to = to;
            to = l.l_start;
            continue;
        }
        if (!n) break;
        from = stack[--n].from;
        to = stack[n].to;
    }
    free(stack);
    return rc;
}

static int by_id(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

int pdr_host_reap(pdr_host *h, uint64_t now_ns, uint32_t *broken)
{
    struct marks m = {NULL, 0, 0};
    uint32_t     n = 0;
    if (broken) *broken = 0;
    if (!h) return PDR_E_INVALID;
    h->reaped_ns = now_ns;
    if (find_marks(h->fd, &m)) {
        free(m.id);
        return no_such_locks(errno) ? PDR_OK : PDR_E_SYSTEM;
    }
    if (m.n) qsort(m.id, m.n, sizeof *m.id, by_id);
    for (size_t i = 0, j = 0; i < h->seen_n; i++) {
        while (j < m.n && m.id[j] < h->seen[i]) j++;
        if (j < m.n && m.id[j] == h->seen[i]) continue;
        if (!pdr_lease_break(h->router, h->seen[i], now_ns)) n++; /* one that was closed in order is not found */
    }
    free(h->seen);
    h->seen = m.id;
    h->seen_n = m.n;
    h->seen_cap = m.cap;
    if (broken) *broken = n;
    return PDR_OK;
}

static uint64_t reap_period(size_t leases)
{
    const uint64_t ns = leases <= 16 ? REAP_NS : leases * (uint64_t)REAP_LEASE_NS;
    return ns < REAP_LIMIT_NS ? ns : REAP_LIMIT_NS;
}

int pdr_host_tick(pdr_host *h, uint64_t now_ns)
{
    int code;
    if (!h) return PDR_E_INVALID;
    code = pdr_tick(h->router, now_ns);
    if (now_ns - h->reaped_ns >= reap_period(h->seen_n)) pdr_host_reap(h, now_ns, NULL);
    pdr_host_wake_pending(h);
    return code;
}
