/*
 * A library to preload (LD_PRELOAD): the nth call that the program itself makes to the system or to a library fails. "Itself": the caller lies in the executable, or in
 * one of the objects whose file names are in PDR_FAIL_CALLERS (separated by colons; a gateway's module, say); what libc or curl call within is theirs.
 *   PDR_FAIL_AT=N         counted from 1; 0 or none: nothing fails, calls are counted
 *   PDR_FAIL_ERRNO=N      errno of system calls that fail [EIO]
 *   PDR_FAIL_SHORT=1      it does not fail, but moves half of the bytes asked for (one at least), if it is one that moves bytes
 *   PDR_FAIL_REPORT=FILE  gets a line "hit NAME" when it fails, and "calls N" when the program leaves by exit()
 *   PDR_FAIL_TRACE=1      and a line "call N NAME" for each
 *   PDR_FAIL_ONLY=1       the executable's own calls do not count, only those of PDR_FAIL_CALLERS
 *   PDR_FAIL_NOT=NAME     a call that never fails (what the program asks it for cannot fail)
 *   PDR_FAIL_ARM=FILE     when this file appears, whichever process sees it first removes it, takes the number in it for N and counts anew (looked for at each
 *                         call); the file comes by rename(), whole
 * For a program with AddressSanitizer in a shared library (gcc's) compile it with -DOVER_SANITIZER, so that what does not fail goes to the sanitizer, and preload it before
 * the sanitizer's own library, with verify_asan_link_order=0.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { RANGES = 32 };

static struct {
    uintptr_t   begin[RANGES], end[RANGES];
    int         ranges, armed, error, shorten, trace;
    long        at, calls, blocks, maps;
    const char *report, *callers, *arm, *not;
} fault;

#ifdef WITHIN
static _Thread_local int started; /* the module has begun this thread */
static int of_started;            /* calls of those threads count, and no others */
#endif

static void tell(const char *format, ...)
{
    char    line[128];
    int     n;
    va_list args;
    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (!fault.report) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, fault.report, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return;
    syscall(SYS_write, fd, line, n);
    syscall(SYS_close, fd);
}

static int add_object(struct dl_phdr_info *info, size_t size, void *first)
{
    const char *base = strrchr(info->dlpi_name, '/');
    int        *is_first = first, wanted = *is_first;
    (void)size;
    *is_first = 0;
    base = base ? base + 1 : info->dlpi_name;
    if (!wanted && *base && fault.callers)
        for (const char *at = fault.callers; (at = strstr(at, base)) && !wanted; at++)
            wanted = (at == fault.callers || at[-1] == ':') && (!at[strlen(base)] || at[strlen(base)] == ':');
    for (int i = 0; wanted && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || fault.ranges == RANGES) continue;
        fault.begin[fault.ranges] = info->dlpi_addr + p->p_vaddr;
        fault.end[fault.ranges++] = info->dlpi_addr + p->p_vaddr + p->p_memsz;
    }
    return 0;
}

static void find_callers(void)
{
    int first = !getenv("PDR_FAIL_ONLY");
    fault.ranges = 0;
    dl_iterate_phdr(add_object, &first);
}

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("PDR_FAIL_AT"), *error = getenv("PDR_FAIL_ERRNO");
    fault.at = at ? atol(at) : 0;
    fault.error = error ? atoi(error) : EIO;
    fault.report = getenv("PDR_FAIL_REPORT");
    fault.callers = getenv("PDR_FAIL_CALLERS");
    fault.arm = getenv("PDR_FAIL_ARM");
    fault.not = getenv("PDR_FAIL_NOT");
    fault.shorten = getenv("PDR_FAIL_SHORT") != NULL;
    fault.trace = getenv("PDR_FAIL_TRACE") != NULL;
    find_callers();
#ifdef WITHIN
    of_started = getenv("PDR_FAIL_STARTED") != NULL;
#else
    unsetenv("LD_PRELOAD"); /* not for its children */
#endif
    fault.armed = 1;
}

__attribute__((destructor)) static void end(void)
{
    if (fault.armed) tell("calls %ld\n", fault.calls);
    fault.armed = 0;
}

static int is_ours(const void *caller)
{
#ifdef WITHIN
    return caller && started == of_started;
#endif
    for (int i = 0; i < fault.ranges; i++)
        if ((uintptr_t)caller >= fault.begin[i] && (uintptr_t)caller < fault.end[i]) return 1;
    return 0;
}

static void look_for_number(void)
{
    char text[24] = "";
    int  fd = (int)syscall(SYS_openat, AT_FDCWD, fault.arm, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (!syscall(SYS_unlinkat, AT_FDCWD, fault.arm, 0) && syscall(SYS_read, fd, text, sizeof text - 1) > 0) {
        fault.at = atol(text);
        fault.calls = 0;
        if (fault.at < 0) tell("kept %ld %ld\n", fault.blocks, fault.maps);
    }
    syscall(SYS_close, fd);
}

static int its_turn(const char *name, const void *caller)
{
#ifdef WITHIN
    if (fault.arm) look_for_number(); /* every thread does */
#endif
    if (!fault.armed || !is_ours(caller) || (fault.not && !strcmp(fault.not, name))) return 0;
    if (fault.arm) look_for_number();
    long n = __atomic_add_fetch(&fault.calls, 1, __ATOMIC_RELAXED);
    if (fault.trace) tell("call %ld %s\n", n, name);
    if (n != fault.at) return 0;
    tell("hit %s\n", name);
    return 1;
}

static int fails(const char *name, const void *caller)
{
    if (!its_turn(name, caller) || fault.shorten) return 0;
    errno = fault.error;
    return 1;
}

/* Bytes that a call may move: n, fewer, or -1: it fails. */
static ssize_t bytes(const char *name, const void *caller, size_t n)
{
    if (!its_turn(name, caller)) return (ssize_t)n;
    if (fault.shorten) return n > 1 ? (ssize_t)(n / 2) : (ssize_t)n;
    errno = fault.error;
    return -1;
}

#define HERE __builtin_return_address(0)

#ifdef WITHIN /* what calls `name` comes to __wrap_name, which calls __real_name */
#define NAME(name) __wrap_##name
#define REAL(name, result, parameters)                                             \
    result __real_##name parameters;                                               \
    result __wrap_##name parameters;
#define FIND(name, result, parameters) result (*real) parameters = __real_##name;
#else
#define NAME(name) name
#define REAL(name, result, parameters)
#define FIND(name, result, parameters)                                             \
    static result (*real) parameters;                                              \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);
#endif

#define WRAP(type, bad, name, parameters, arguments)                               \
    REAL(name, type, parameters)                                                   \
    type NAME(name) parameters                                                     \
    {                                                                              \
        if (fails(#name, HERE)) return bad;                                        \
        FIND(name, type, parameters)                                               \
        return real arguments;                                                     \
    }

#define WRAP_BYTES(name, parameters, arguments)                                    \
    REAL(name, ssize_t, parameters)                                                \
    ssize_t NAME(name) parameters                                                  \
    {                                                                              \
        ssize_t may = bytes(#name, HERE, n);                                       \
        if (may < 0) return -1;                                                    \
        n = (size_t)may;                                                           \
        FIND(name, ssize_t, parameters)                                            \
        return real arguments;                                                     \
    }

WRAP_BYTES(read, (int fd, void *p, size_t n), (fd, p, n))
WRAP_BYTES(write, (int fd, const void *p, size_t n), (fd, p, n))
WRAP(ssize_t, -1, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(ssize_t, -1, readv, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP_BYTES(pread64, (int fd, void *p, size_t n, off_t at), (fd, p, n, at))
WRAP_BYTES(pwrite64, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))
WRAP_BYTES(sendfile64, (int out, int in, off_t *at, size_t n), (out, in, at, n))
WRAP(int, -1, accept4, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f))
WRAP(int, -1, eventfd, (unsigned n, int f), (n, f))
WRAP(int, -1, ftruncate64, (int fd, off_t n), (fd, n))
WRAP(int, -1, mkdir, (const char *p, mode_t m), (p, m))
WRAP(int, -1, flock, (int fd, int op), (fd, op))
WRAP(int, -1, fchmod, (int fd, mode_t m), (fd, m))
WRAP(int, -1, fstat, (int fd, struct stat *s), (fd, s))
WRAP(int, -1, stat, (const char *p, struct stat *s), (p, s))
WRAP(int, -1, fstatvfs, (int fd, struct statvfs *s), (fd, s))
WRAP(int, -1, access, (const char *p, int m), (p, m))
WRAP(int, -1, link, (const char *a, const char *b), (a, b))
WRAP(int, -1, rename, (const char *a, const char *b), (a, b))
WRAP(DIR *, NULL, opendir, (const char *p), (p))
WRAP(int, fault.error, posix_fallocate, (int fd, off_t a, off_t n), (fd, a, n))
WRAP(int, -1, memfd_create, (const char *p, unsigned f), (p, f))
WRAP(int, -1, socket, (int a, int b, int c), (a, b, c))
WRAP(int, -1, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, -1, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, -1, setsockopt, (int fd, int l, int o, const void *v, socklen_t n), (fd, l, o, v, n))
WRAP(ssize_t, -1, sendto, (int fd, const void *p, size_t n, int f, const struct sockaddr *a, socklen_t l), (fd, p, n, f, a, l))
WRAP_BYTES(send, (int fd, const void *p, size_t n, int f), (fd, p, n, f))
WRAP_BYTES(recv, (int fd, void *p, size_t n, int f), (fd, p, n, f))
WRAP_BYTES(getrandom, (void *p, size_t n, unsigned f), (p, n, f))
WRAP(char *, NULL, getcwd, (char *p, size_t n), (p, n))
WRAP(int, -1, epoll_create1, (int f), (f))
WRAP(int, -1, epoll_ctl, (int e, int op, int fd, struct epoll_event *ev), (e, op, fd, ev))
WRAP(int, -1, epoll_wait, (int e, struct epoll_event *ev, int n, int t), (e, ev, n, t))
WRAP(int, -1, poll, (struct pollfd *p, nfds_t n, int t), (p, n, t))
WRAP(int, -1, nanosleep, (const struct timespec *a, struct timespec *b), (a, b))
WRAP(int, -1, sigaction, (int n, const struct sigaction *a, struct sigaction *b), (n, a, b))
WRAP(int, ENOMEM, pthread_mutexattr_init, (pthread_mutexattr_t *a), (a))
WRAP(int, ENOMEM, pthread_mutexattr_setpshared, (pthread_mutexattr_t *a, int v), (a, v))
WRAP(int, ENOMEM, pthread_mutexattr_setrobust, (pthread_mutexattr_t *a, int v), (a, v))
WRAP(int, ENOMEM, pthread_mutex_init, (pthread_mutex_t *m, const pthread_mutexattr_t *a), (m, a))
WRAP(int, EBUSY, pthread_mutex_trylock, (pthread_mutex_t *m), (m))
WRAP(size_t, 0, fwrite, (const void *p, size_t s, size_t n, FILE *f), (p, s, n, f))
WRAP(int, EOF, fflush, (FILE *f), (f))
WRAP(int, -1, tcgetattr, (int fd, struct termios *t), (fd, t))
WRAP(int, -1, tcsetattr, (int fd, int how, const struct termios *t), (fd, how, t))
WRAP(struct tm *, NULL, localtime_r, (const time_t *t, struct tm *out), (t, out))
/* Of libraries that this file does not link: pointers as they come. CURLE_OUT_OF_MEMORY is 27, CURLM_OUT_OF_MEMORY 3. */
WRAP(int, 27, curl_global_init, (long f), (f))
WRAP(void *, NULL, curl_easy_init, (void), ())
WRAP(void *, NULL, curl_multi_init, (void), ())
WRAP(int, 3, curl_multi_add_handle, (void *m, void *e), (m, e))
WRAP(int, 3, curl_multi_socket_action, (void *m, int fd, int ev, int *running), (m, fd, ev, running))
WRAP(void *, NULL, curl_slist_append, (void *l, const char *s), (l, s))
WRAP(int, 0, yaml_parser_initialize, (void *p), (p))
WRAP(void *, NULL, cJSON_ParseWithLength, (const char *s, size_t n), (s, n))
WRAP(void *, NULL, cJSON_ParseWithLengthOpts, (const char *s, size_t n, const char **at, int z), (s, n, at, z))

#define WRAP_OPEN(name)                                                            \
    REAL(name, int, (const char *p, int flags, ...))                               \
    int NAME(name)(const char *p, int flags, ...)                                  \
    {                                                                              \
        mode_t  mode = 0;                                                          \
        va_list args;                                                              \
        va_start(args, flags);                                                     \
        if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(args, mode_t);            \
        va_end(args);                                                              \
        if (fails(#name, HERE)) return -1;                                         \
        FIND(name, int, (const char *, int, ...))                                  \
        return real(p, flags, mode);                                               \
    }

WRAP_OPEN(open)
WRAP_OPEN(open64)

REAL(fcntl, int, (int fd, int op, ...))
int NAME(fcntl)(int fd, int op, ...)
{
    va_list args;
    va_start(args, op);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (fails("fcntl", HERE)) return -1;
    FIND(fcntl, int, (int, int, ...))
    return real(fd, op, arg);
}

REAL(ioctl, int, (int fd, unsigned long op, ...))
int NAME(ioctl)(int fd, unsigned long op, ...)
{
    va_list args;
    va_start(args, op);
    void *arg = va_arg(args, void *);
    va_end(args);
    if (fails("ioctl", HERE)) return -1;
    FIND(ioctl, int, (int, unsigned long, ...))
    return real(fd, op, arg);
}

#ifndef WITHIN
void *dlopen(const char *p, int flags) /* a module: its calls count from now on */
{
    static void *(*real)(const char *, int);
    if (fails("dlopen", HERE)) return NULL;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "dlopen");
    void *got = real(p, flags);
    find_callers();
    return got;
}
#endif

#ifdef WITHIN
static void kept(long *what, int more) { (void)__atomic_add_fetch(what, more, __ATOMIC_RELAXED); }
static void *block(void *p)
{
    if (p) kept(&fault.blocks, 1);
    return p;
}
REAL(malloc, void *, (size_t n))
REAL(calloc, void *, (size_t n, size_t each))
REAL(realloc, void *, (void *old, size_t n))
REAL(aligned_alloc, void *, (size_t to, size_t n))
REAL(mmap, void *, (void *at, size_t n, int prot, int flags, int fd, off_t from))
void *__wrap_malloc(size_t n) { return fails("malloc", HERE) ? NULL : block(__real_malloc(n)); }
void *__wrap_calloc(size_t n, size_t each) { return fails("calloc", HERE) ? NULL : block(__real_calloc(n, each)); }
void *__wrap_aligned_alloc(size_t to, size_t n) { return fails("aligned_alloc", HERE) ? NULL : block(__real_aligned_alloc(to, n)); }
void *__wrap_realloc(void *old, size_t n)
{
    void *p = fails("realloc", HERE) ? NULL : __real_realloc(old, n);
    return old ? p : block(p);
}
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    void *p = fails("mmap", HERE) ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, from);
    if (p != MAP_FAILED && !(flags & MAP_FIXED)) kept(&fault.maps, 1);
    return p;
}
#elif defined(OVER_SANITIZER)
WRAP(void *, MAP_FAILED, mmap, (void *at, size_t n, int prot, int flags, int fd, off_t from), (at, n, prot, flags, fd, from))
#else
void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    if (fails("mmap", HERE)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, from);
}
#endif

REAL(mremap, void *, (void *old, size_t before, size_t n, int flags, ...))
void *NAME(mremap)(void *old, size_t before, size_t n, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    void *to = va_arg(args, void *);
    va_end(args);
    if (fails("mremap", HERE)) return MAP_FAILED;
    return (void *)syscall(SYS_mremap, old, before, n, flags, to);
}

#ifdef WITHIN
#elif defined(OVER_SANITIZER)
WRAP(void *, NULL, malloc, (size_t n), (n))
WRAP(void *, NULL, calloc, (size_t n, size_t each), (n, each))
WRAP(void *, NULL, realloc, (void *old, size_t n), (old, n))
WRAP(void *, NULL, aligned_alloc, (size_t to, size_t n), (to, n))
WRAP(void *, NULL, memalign, (size_t to, size_t n), (to, n))
WRAP(int, ENOMEM, posix_memalign, (void **out, size_t to, size_t n), (out, to, n))
WRAP(char *, NULL, strdup, (const char *s), (s))
#else
/* glibc's own names: dlsym() itself allocates. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *old, size_t n);
void *__libc_memalign(size_t to, size_t n);
void *malloc(size_t n) { return fails("malloc", HERE) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t each) { return fails("calloc", HERE) ? NULL : __libc_calloc(n, each); }
void *realloc(void *old, size_t n) { return fails("realloc", HERE) ? NULL : __libc_realloc(old, n); }
void *aligned_alloc(size_t to, size_t n) { return fails("aligned_alloc", HERE) ? NULL : __libc_memalign(to, n); }
void *memalign(size_t to, size_t n) { return fails("memalign", HERE) ? NULL : __libc_memalign(to, n); }
int   posix_memalign(void **out, size_t to, size_t n)
{
    void *p = fails("posix_memalign", HERE) ? NULL : __libc_memalign(to, n);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}
char *strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char  *p = fails("strdup", HERE) ? NULL : __libc_malloc(n);
    return p ? memcpy(p, s, n) : NULL;
}
#endif
