/*
 * The block as a mapped file. Two rules make it safe for any number of processes that start, stop and die at any instant:
 *
 *  1. A block becomes visible complete or not at all: it is built in "<path>.new.<random>" and then link()ed (which fails if somebody was first)
 *     or, when it replaces a refused one, rename()d over it.
 *  2. Who replaces a file holds flock(LOCK_EX) on the inode that goes, and looks again whether the path still names it: of several that
 *     find the same bad block, one replaces it and the others attach to what that one made.
 *
 * Locks are on the inode and die with their holder, so nothing is ever left locked, and there is no lock file. Temporary files of creators that were
 * killed are found by the next creator: a living one holds flock on its own.
 */
#include "guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define LOCK_WAIT_MS  5000 /* building a block takes well under a second; longer is a stopped process */
#define MAX_ATTEMPTS  64   /* rounds lost to other processes before PDR_E_BUSY */
#define TEMP_INFIX    ".new."

static int is_block_code(int code) { return code <= PDR_E_BLOCK_MAGIC && code >= PDR_E_BLOCK_CORRUPT; }

/* ---------------------------------------------------------------------------------------------------------- paths, files */

static int make_absolute(char out[static 1024], const char *path, pdr_error *err)
{
    char cwd[PATH_MAX];
    int  n;
    if (!path || !*path) return pdr_host_fail(err, PDR_E_INVALID, "the path of the block file is empty");
    if (*path == '/')
        n = snprintf(out, 1000, "%s", path);
    else if (!getcwd(cwd, sizeof cwd))
        return pdr_host_fail_errno(err, "cannot find the directory of", path);
    else
        n = snprintf(out, 1000, "%s/%s", cwd, path);
    if (n >= 1000) return pdr_host_fail(err, PDR_E_INVALID, "the path of the block file is longer than 999 bytes");
    return PDR_OK;
}

static int make_parents(const char *path, pdr_error *err)
{
    char dir[1024];
    snprintf(dir, sizeof dir, "%s", path);
    for (char *p = strchr(dir + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        if (mkdir(dir, 0770) && errno != EEXIST) return pdr_host_fail_errno(err, "cannot create directory", dir);
        *p = '/';
    }
    return PDR_OK;
}

/* flock that gives up. */
static int lock_file(int fd, const char *path, pdr_error *err)
{
    const struct timespec pause = {0, 10000000};
    for (int ms = 0; flock(fd, LOCK_EX | LOCK_NB); ms += 10) {
        if (errno != EWOULDBLOCK && errno != EINTR) return pdr_host_fail_errno(err, "cannot lock", path);
        if (ms >= LOCK_WAIT_MS)
            return pdr_host_fail(err, PDR_E_BUSY, "%s is being replaced by a process that does not go on", path);
        nanosleep(&pause, NULL);
    }
    return PDR_OK;
}

static int is_named(const char *path, const struct stat *st)
{
    struct stat now;
    return !stat(path, &now) && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
}

/* The path leads to no file because it is a symbolic link to none: what "No such file" and "File exists" would both hide. 0: it is something else; errno stays. */
static int dangles(const char *path, pdr_error *err)
{
    const int   was = errno;
    char        to[512];
    struct stat st;
    ssize_t     n = readlink(path, to, sizeof to - 1);
    int         none = n >= 0 && stat(path, &st) && errno == ENOENT;
    errno = was;
    if (!none) return 0;
    to[n] = 0;
    return pdr_host_fail(err, PDR_E_SYSTEM, "%s is a symbolic link to %s, which does not exist", path, to);
}

/* Removes temporary files whose creators died. Failures do not matter: it is a courtesy. */
static void sweep_temps(const char *path)
{
    char           copy[1024], base[1024], victim[2048];
    struct dirent *e;
    DIR           *d;
    snprintf(copy, sizeof copy, "%s", path);
    snprintf(base, sizeof base, "%s", strrchr(path, '/') + 1);
    d = opendir(dirname(copy));
    if (!d) return;
    while ((e = readdir(d))) {
        size_t n = strlen(base);
        int    fd;
        if (strncmp(e->d_name, base, n) || strncmp(e->d_name + n, TEMP_INFIX, sizeof TEMP_INFIX - 1)) continue;
        if (strlen(e->d_name + n) != sizeof TEMP_INFIX - 1 + 16) continue;
        snprintf(victim, sizeof victim, "%s/%s", copy, e->d_name);
        if ((fd = open(victim, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) < 0) continue;
        if (!flock(fd, LOCK_EX | LOCK_NB)) unlink(victim);
        close(fd);
    }
    closedir(d);
}

static int allocate_pages(int fd, size_t size, const char *path, pdr_error *err)
{
    struct statvfs fs;
    int            e = posix_fallocate(fd, 0, (off_t)size);
    if (!e) return PDR_OK;
    if (e == ENOSPC && !fstatvfs(fd, &fs))
        return pdr_host_fail(err, PDR_E_SYSTEM, "no room for the block of %zu bytes at %s: its file system has %llu bytes free",
                             size, path, (unsigned long long)fs.f_bavail * fs.f_frsize);
    errno = e;
    return pdr_host_fail_errno(err, "cannot allocate the block's pages in", path);
}

static int map_file(int fd, size_t size, const char *path, void **mem, pdr_error *err)
{
    void *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED) return pdr_host_fail_errno(err, "cannot map", path);
    *mem = m;
    return PDR_OK;
}

/* ------------------------------------------------------------------------------------------------------ building new blocks */

struct draft { /* a block that is not visible yet */
    int         fd;
    void       *mem;
    size_t      size;
    pdr_router *router;
    char        path[1100];
};

static void draft_drop(struct draft *d)
{
    if (d->mem) munmap(d->mem, d->size);
    if (d->fd >= 0) {
        unlink(d->path);
        close(d->fd);
    }
}

static int draft_open(struct draft *d, const char *path, size_t size, pdr_error *err)
{
    uint64_t random;
    int      code;
    memset(d, 0, sizeof *d);
    d->fd = -1;
    d->size = size;
    if ((code = make_parents(path, err)) || (code = pdr_host_seed(&random, err))) return code;
    sweep_temps(path);
    snprintf(d->path, sizeof d->path, "%s" TEMP_INFIX "%016llx", path, (unsigned long long)random);
    d->fd = open(d->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (d->fd < 0) return pdr_host_fail_errno(err, "cannot create", d->path);
    if (flock(d->fd, LOCK_EX | LOCK_NB)) /* another process's sweep came between: it takes the file for abandoned and removes it */
        code = errno == EWOULDBLOCK ? PDR_E_AGAIN : pdr_host_fail_errno(err, "cannot lock", d->path);
    if (!code) code = allocate_pages(d->fd, size, path, err);
    if (!code && fchmod(d->fd, 0660)) code = pdr_host_fail_errno(err, "cannot set the mode of", d->path);
    if (!code) code = map_file(d->fd, size, d->path, &d->mem, err);
    if (code) draft_drop(d);
    return code;
}

static int draft_new(struct draft *d, const char *path, const pdr_config *config, uint64_t boot, pdr_error *err)
{
    pdr_config c;
    size_t     size;
    int        code = pdr_host_struct_in(&c, sizeof c, config, err);
    if (code) return code;
    c.struct_size = sizeof c;
    if (!c.seed && (code = pdr_host_seed(&c.seed, err))) return code;
    if ((code = pdr_config_resolve(&c, err))) return code;
    if (!(size = pdr_router_size(&c))) return pdr_host_fail(err, PDR_E_INVALID, "the configuration gives no block size");
    if ((code = draft_open(d, path, size, err))) return code;
    if ((code = pdr_router_init(d->mem, size, &c, boot, &d->router, err))) draft_drop(d);
    return code;
}

static int draft_restored(struct draft *d, const char *path, const void *old, size_t size, uint64_t boot, pdr_error *err)
{
    uint64_t seed;
    int      code = pdr_host_seed(&seed, err);
    if (code || (code = draft_open(d, path, size, err))) return code;
    memcpy(d->mem, old, size);
    if ((code = pdr_router_restore(d->mem, size, boot, seed, &d->router, err))) draft_drop(d);
    return code;
}

/*
 * The servers of a block that goes are put into the one that takes its place, unless it has them; drained ones are drained there, too. What the new one has no room
 * for is left out. Discovery, which put them, may be a command that nobody gives again.
 */
static void carry_over(pdr_router *from, pdr_router *to)
{
    const uint64_t now = pdr_host_now_ns();
    uint32_t       id, there, state;
    for (uint32_t cursor = 0; !pdr_endpoint_next(from, &cursor, &id);) {
        pdr_endpoint e;
        pdr_init_struct(&e, sizeof e);
        if (pdr_endpoint_get(from, id, &e, &state) || !pdr_endpoint_find(to, e.name, &there)) continue;
        if (!pdr_endpoint_put(to, &e, now, &there, NULL) && state == PDR_STATE_DRAINING) pdr_endpoint_drain(to, there, 1, NULL);
    }
}

/* Moves a draft that got its name into the handle. */
static void adopt(pdr_host *h, struct draft *d, const struct stat *st, uint32_t origin)
{
    flock(d->fd, LOCK_UN); /* from here on it only names the inode */
    h->fd = d->fd;
    h->mem = d->mem;
    h->size = d->size;
    h->router = d->router;
    h->dev = st->st_dev;
    h->ino = st->st_ino;
    h->origin = origin;
}

/* -------------------------------------------------------------------------------------------------------------- opening */

/* Every step answers PDR_OK, an error, or PDR_E_AGAIN: another process changed the path, look anew. */

static int create_first(pdr_host *h, const pdr_config *config, uint64_t boot, pdr_error *err)
{
    struct draft d;
    struct stat  st;
    int          code = draft_new(&d, h->path, config, boot, err);
    if (code) return code;
    if (fstat(d.fd, &st)) {
        code = pdr_host_fail_errno(err, "cannot look at", d.path);
    } else if (link(d.path, h->path) && !(code = dangles(h->path, err))) {
        code = errno == EEXIST || errno == ENOENT ? PDR_E_AGAIN : pdr_host_fail_errno(err, "cannot create", h->path);
    }
    if (code) {
        draft_drop(&d);
        return code;
    }
    unlink(d.path);
    adopt(h, &d, &st, PDR_HOST_CREATED);
    return PDR_OK;
}

/* Replaces the file behind `old_fd`, refused with `reason`. */
static int replace(pdr_host *h, int old_fd, const struct stat *old_st, const void *old_mem, const pdr_config *config,
                   uint32_t flags, uint64_t boot, const pdr_error *reason, pdr_error *err)
{
    struct draft d;
    struct stat  st;
    uint32_t     origin = PDR_HOST_RECREATED;
    int          code = lock_file(old_fd, h->path, err);
    if (code) return code;
    if (!is_named(h->path, old_st)) return PDR_E_AGAIN;

    code = PDR_E_BLOCK_BOOT;
    if (reason->code == PDR_E_BLOCK_BOOT && (flags & PDR_HOST_RESTORE)) {
        code = draft_restored(&d, h->path, old_mem, (size_t)old_st->st_size, boot, err);
        origin = PDR_HOST_RESTORED;
    }
    if (is_block_code(code) && (flags & PDR_HOST_RECREATE)) {
        pdr_router *old;
        code = draft_new(&d, h->path, config, boot, err);
        origin = PDR_HOST_RECREATED;
        if (!code && reason->code == PDR_E_BLOCK_CONFIG && !pdr_router_attach((void *)(uintptr_t)old_mem, (size_t)old_st->st_size, NULL, boot, &old, NULL))
            carry_over(old, d.router);
    }
    if (code) return code;
    if (fstat(d.fd, &st)) {
        code = pdr_host_fail_errno(err, "cannot look at", d.path);
    } else if (rename(d.path, h->path)) {
        code = errno == ENOENT ? PDR_E_AGAIN : pdr_host_fail_errno(err, "cannot replace", h->path);
    }
    if (code) {
        draft_drop(&d);
        return code;
    }
    adopt(h, &d, &st, origin);
    h->reason = reason->code;
    snprintf(h->message, sizeof h->message, "%s", reason->message);
    return PDR_OK;
}

static int attach_existing(pdr_host *h, int fd, const pdr_config *config, uint32_t flags, uint64_t boot, pdr_error *err)
{
    struct stat st;
    void       *mem = NULL;
    pdr_error   why;
    int         code;

    pdr_init_struct(&why, sizeof why);
    if (fstat(fd, &st)) return pdr_host_fail_errno(err, "cannot look at", h->path);
    if (!S_ISREG(st.st_mode)) return pdr_host_fail(err, PDR_E_SYSTEM, "%s is not a regular file", h->path);
    if (!st.st_size) {
        code = pdr_host_fail(&why, PDR_E_BLOCK_MAGIC, "the file is empty");
    } else {
        /* A copied file may have holes; touching one on a full file system would be a SIGBUS. */
        if ((code = allocate_pages(fd, (size_t)st.st_size, h->path, err))) return code;
        if ((code = map_file(fd, (size_t)st.st_size, h->path, &mem, err))) return code;
        code = pdr_router_attach(mem, (size_t)st.st_size, config, boot, &h->router, &why);
        if (code && !*why.message) snprintf(why.message, sizeof why.message, "%s", pdr_strerror(code));
        why.code = code;
    }
    if (!code) {
        h->mem = mem;
        h->size = (size_t)st.st_size;
        h->fd = fd;
        h->dev = st.st_dev;
        h->ino = st.st_ino;
        h->origin = PDR_HOST_ATTACHED;
        return PDR_OK;
    }
    if (is_block_code(code) &&
        ((flags & PDR_HOST_RECREATE) || ((flags & PDR_HOST_RESTORE) && code == PDR_E_BLOCK_BOOT)))
        code = replace(h, fd, &st, mem, config, flags, boot, &why, err);
    else
        pdr_host_fail(err, code, "%s: %s", h->path, why.message);
    if (mem) munmap(mem, (size_t)st.st_size);
    return code;
}

static int open_once(pdr_host *h, const pdr_config *config, uint32_t flags, uint64_t boot, pdr_error *err)
{
    int code, fd = open(h->path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT && (flags & (PDR_HOST_CREATE | PDR_HOST_RECREATE)))
        return create_first(h, config, boot, err);
    if (fd < 0 && errno == ENOENT && (code = dangles(h->path, err))) return code;
    if (fd < 0) return pdr_host_fail_errno(err, "cannot open", h->path);
    code = attach_existing(h, fd, config, flags, boot, err);
    if (h->fd != fd) close(fd); /* releases the replacer's lock as well */
    return code;
}

int pdr_host_open(const char *path, const pdr_config *config, uint32_t flags, pdr_host **out, pdr_router **router, pdr_error *err)
{
    pdr_host *h;
    uint64_t  boot;
    int       code;

    if (!out) return pdr_host_fail(err, PDR_E_INVALID, "out is NULL");
    *out = NULL;
    if (flags & ~(uint32_t)(PDR_HOST_CREATE | PDR_HOST_RECREATE | PDR_HOST_RESTORE | PDR_HOST_GUARD))
        return pdr_host_fail(err, PDR_E_INVALID, "unknown flags");
    if (!(h = calloc(1, sizeof *h))) return pdr_host_fail(err, PDR_E_SYSTEM, "out of memory");
    h->fd = -1;
    h->wake_fd = -1;
    if ((code = make_absolute(h->path, path, err)) || (code = pdr_host_boot(&boot, err))) goto out;
    code = PDR_E_AGAIN;
    for (int i = 0; code == PDR_E_AGAIN && i < MAX_ATTEMPTS; i++) code = open_once(h, config, flags, boot, err);
    if (code == PDR_E_AGAIN)
        code = pdr_host_fail(err, PDR_E_BUSY, "%s is being replaced again and again by other processes", h->path);
    if (code) goto out;
    if ((flags & PDR_HOST_GUARD) && (code = pdr_guard_add(h, boot, err))) goto out;
    h->wake_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (h->wake_fd < 0) code = pdr_host_fail_errno(err, "cannot make a socket to wake users of", h->path);
out:
    if (code) {
        pdr_host_close(h);
        return code;
    }
    *out = h;
    if (router) *router = h->router;
    return PDR_OK;
}

void pdr_host_close(pdr_host *h)
{
    size_t keep;
    if (!h) return;
    pdr_guard_remove(h->guard, &keep);
    if (h->mem && h->size > keep) munmap((char *)h->mem + keep, h->size - keep);
    if (h->fd >= 0) close(h->fd);
    if (h->wake_fd >= 0) close(h->wake_fd);
    free(h->seen);
    free(h);
}

pdr_router *pdr_host_router(const pdr_host *h) { return h ? h->router : NULL; }

int pdr_host_info_get(const pdr_host *h, pdr_host_info *out)
{
    pdr_host_info i;
    if (!h) return PDR_E_INVALID;
    pdr_init_struct(&i, sizeof i);
    i.origin = h->origin;
    i.size = h->size;
    i.reason = h->reason;
    snprintf(i.message, sizeof i.message, "%s", h->message);
    snprintf(i.path, sizeof i.path, "%s", h->path);
    return pdr_host_struct_out(out, &i, sizeof i);
}

int pdr_host_state(const pdr_host *h, uint32_t *state, pdr_error *err)
{
    struct stat mine, named;
    if (!h || !state) return pdr_host_fail(err, PDR_E_INVALID, "an argument is NULL");
    if (fstat(h->fd, &mine)) return pdr_host_fail_errno(err, "cannot look at", h->path);
    if ((uint64_t)mine.st_size < h->size || pdr_guard_lost(h->guard)) {
        *state = PDR_HOST_TRUNCATED;
        return PDR_OK;
    }
    if (stat(h->path, &named)) {
        if (errno != ENOENT && errno != ENOTDIR) return pdr_host_fail_errno(err, "cannot look at", h->path);
        *state = PDR_HOST_REPLACED;
        return PDR_OK;
    }
    *state = named.st_dev == mine.st_dev && named.st_ino == mine.st_ino ? PDR_HOST_CURRENT : PDR_HOST_REPLACED;
    return PDR_OK;
}

/* 1: the path still names the file that h has mapped, which has become too short. */
static int names_ruin(const pdr_host *h)
{
    struct stat named;
    return !stat(h->path, &named) && named.st_dev == h->dev && named.st_ino == h->ino;
}

int pdr_host_follow(pdr_host *h, const pdr_config *config, uint32_t flags, pdr_host **next, pdr_router **router, pdr_error *err)
{
    const uint32_t recreate = PDR_HOST_RECREATE, gentle = (flags & ~recreate) | (flags & recreate ? (uint32_t)PDR_HOST_CREATE : 0);
    uint32_t       state;
    pdr_config     c;
    int            code;

    if (!next) return pdr_host_fail(err, PDR_E_INVALID, "next is NULL");
    *next = NULL;
    if ((code = pdr_host_state(h, &state, err)) || state == PDR_HOST_CURRENT) return code;
    if (config) {
        if ((code = pdr_host_struct_in(&c, sizeof c, config, err))) return code;
        c.struct_size = sizeof c;
        c.seed = 0; /* a new one for a new block: neither rooms nor ids may come again while requests of the old one are under way */
        config = &c;
    }
    code = pdr_host_open(h->path, config, gentle, next, router, err);
    if (!code && state == PDR_HOST_REPLACED && (*next)->origin == PDR_HOST_CREATED) carry_over(h->router, (*next)->router); /* it was removed */
    if (!is_block_code(code) || state != PDR_HOST_TRUNCATED) return code;
    if (!names_ruin(h)) return pdr_host_open(h->path, config, gentle, next, router, err); /* somebody was quicker: what was refused is gone */
    if (!config && h->guard) {
        c = *pdr_guard_config(h->guard);
        c.seed = 0;
        config = &c;
    }
    return pdr_host_open(h->path, config, flags | recreate, next, router, err);
}
