/*
 * lib/host with failing calls: the scenario below is run once for every system and library call it makes and every errno worth trying, the nth call failing, or moving
 * half of the bytes it was asked for
 * (the linker's --wrap brings all calls of libpdroute_host here; the list is in tests/CMakeLists.txt). Whatever fails, the functions answer a named
 * error or go on, leak neither memory nor descriptors nor mappings, leave no half-made file, and the block stays usable.
 */
#include "host_test.h"

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ------------------------------------------------------------------------------------------------------- failing on demand */

static struct {
    long        calls, fail_at; /* counted from 1; 0: none fails */
    int         error, hit, armed;
    const char *hit_name;
    long        memory, mappings; /* outstanding */
} fault;

enum { SHORT = -1 }; /* in place of an errno */

static int fails(const char *name)
{
    if (!fault.armed || ++fault.calls != fault.fail_at) return 0;
    fault.hit = 1;
    fault.hit_name = name;
    errno = fault.error;
    return fault.error != SHORT;
}

/* Bytes that a call may move: n, half of them, or -1: it fails. */
static ssize_t bytes(const char *name, size_t n)
{
    long before = fault.hit;
    if (fails(name)) return -1;
    return (ssize_t)(fault.hit && !before && n > 1 ? n / 2 : n);
}

#define WRAP(type, bad, name, parameters, arguments)                 \
    type __real_##name parameters;                                   \
    type __wrap_##name parameters;                                   \
    type __wrap_##name parameters { return fails(#name) ? (bad) : __real_##name arguments; }

#define WRAP_BYTES(name, parameters, arguments)                       \
    ssize_t __real_##name parameters;                                \
    ssize_t __wrap_##name parameters;                                \
    ssize_t __wrap_##name parameters                                 \
    {                                                                \
        ssize_t may = bytes(#name, n);                               \
        if (may < 0) return -1;                                      \
        n = (size_t)may;                                             \
        return __real_##name arguments;                              \
    }

WRAP_BYTES(read, (int fd, void *p, size_t n), (fd, p, n))
WRAP(int, -1, mkdir, (const char *p, mode_t m), (p, m))
WRAP(int, -1, flock, (int fd, int op), (fd, op))
WRAP(int, -1, fchmod, (int fd, mode_t m), (fd, m))
WRAP(int, -1, fstat, (int fd, struct stat *s), (fd, s))
WRAP(int, -1, stat, (const char *p, struct stat *s), (p, s))
WRAP(int, -1, link, (const char *a, const char *b), (a, b))
WRAP(int, -1, rename, (const char *a, const char *b), (a, b))
WRAP(DIR *, NULL, opendir, (const char *p), (p))
WRAP(int, fault.error, posix_fallocate, (int fd, off_t a, off_t n), (fd, a, n))
WRAP(int, -1, socket, (int a, int b, int c), (a, b, c))
WRAP(int, -1, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(ssize_t, -1, sendto, (int fd, const void *p, size_t n, int f, const struct sockaddr *a, socklen_t l), (fd, p, n, f, a, l))
WRAP_BYTES(recv, (int fd, void *p, size_t n, int f), (fd, p, n, f))
WRAP_BYTES(getrandom, (void *p, size_t n, unsigned f), (p, n, f))
WRAP(char *, NULL, getcwd, (char *p, size_t n), (p, n))
WRAP(int, -1, epoll_create1, (int f), (f))
WRAP(int, -1, epoll_ctl, (int e, int op, int fd, struct epoll_event *ev), (e, op, fd, ev))
WRAP(int, -1, epoll_wait, (int e, struct epoll_event *ev, int n, int t), (e, ev, n, t))
WRAP(CURLcode, CURLE_OUT_OF_MEMORY, curl_global_init, (long f), (f))
WRAP(CURLM *, NULL, curl_multi_init, (void), ())
WRAP(CURL *, NULL, curl_easy_init, (void), ())
WRAP(CURLMcode, CURLM_OUT_OF_MEMORY, curl_multi_add_handle, (CURLM * m, CURL *e), (m, e))
WRAP(struct curl_slist *, NULL, curl_slist_append, (struct curl_slist * l, const char *s), (l, s))

void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from)
{
    void *p = fails("mmap") ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, from);
    fault.mappings += p != MAP_FAILED;
    return p;
}
int __real_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n)
{
    fault.mappings--;
    return __real_munmap(p, n);
}
int __real_open(const char *p, int flags, ...);
int __wrap_open(const char *p, int flags, ...);
int __wrap_open(const char *p, int flags, ...)
{
    mode_t  mode = 0;
    va_list args;
    va_start(args, flags);
    if (flags & O_CREAT) mode = va_arg(args, mode_t);
    va_end(args);
    return fails("open") ? -1 : __real_open(p, flags, mode);
}
int __real_fcntl(int fd, int op, ...);
int __wrap_fcntl(int fd, int op, ...);
int __wrap_fcntl(int fd, int op, ...)
{
    void   *arg;
    va_list args;
    va_start(args, op);
    arg = va_arg(args, void *); /* a lock, or a number in its place */
    va_end(args);
    return fails("fcntl") ? -1 : __real_fcntl(fd, op, arg);
}
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    void *p = fails("malloc") ? NULL : __real_malloc(n);
    fault.memory += p != NULL;
    return p;
}
void *__real_calloc(size_t n, size_t each);
void *__wrap_calloc(size_t n, size_t each);
void *__wrap_calloc(size_t n, size_t each)
{
    void *p = fails("calloc") ? NULL : __real_calloc(n, each);
    fault.memory += p != NULL;
    return p;
}
void *__real_realloc(void *old, size_t n);
void *__wrap_realloc(void *old, size_t n);
void *__wrap_realloc(void *old, size_t n)
{
    void *p = fails("realloc") ? NULL : __real_realloc(old, n);
    fault.memory += p && !old;
    return p;
}
char *__real_strdup(const char *s);
char *__wrap_strdup(const char *s);
char *__wrap_strdup(const char *s)
{
    char *p = fails("strdup") ? NULL : __real_strdup(s);
    fault.memory += p != NULL;
    return p;
}
void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
    fault.memory -= p != NULL;
    __real_free(p);
}

/* --------------------------------------------------------------------------------------------------------------- a scenario */

static char wrong[512]; /* what the scenario found wrong, "": nothing */

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition) && !*wrong) snprintf(wrong, sizeof wrong, __VA_ARGS__);                   \
    } while (0)

/* An answer is good or a negative code whose sentence is there. */
static int answered(const char *call, int code, const pdr_error *err)
{
    EXPECT(code <= 0, "%s gave %d", call, code);
    EXPECT(code == 0 || !err || (err->code == code && *err->message), "%s gave %d without a sentence (%d, \"%s\")", call, code,
           err ? err->code : 0, err ? err->message : "");
    EXPECT(code == 0 || fault.hit, "%s failed with %d (%s) although nothing was made to fail", call, code, err ? err->message : "");
    return code == 0;
}

static void use_block(pdr_host *h)
{
    pdr_host_lease lease;
    pdr_error      err;
    uint64_t       now = pdr_host_now_ns();
    uint32_t       state = 0, broken = 0;
    int            fd = -1, code;
    pdr_init_struct(&err, sizeof err);
    if (answered("pdr_host_state", pdr_host_state(h, &state, &err), &err))
        EXPECT(state == PDR_HOST_CURRENT, "the block was replaced: %u", state);
    if (answered("pdr_host_claim", pdr_host_claim(h, 7, &fd, &err), &err)) close(fd);
    if (answered("pdr_host_lease_open", pdr_host_lease_open(h, "faulty", now, &lease, &err), &err)) {
        answered("pdr_host_reap", pdr_host_reap(h, now, &broken), NULL);
        EXPECT(broken == 0, "a living lease was broken");
        pdr_host_wake(h, lease.id);
        pdr_host_wake_drain(lease.wake_fd);
        answered("pdr_host_tick", pdr_host_tick(h, now + 1000000000u), NULL);
        pdr_tick(pdr_host_router(h), now + 3599u * 1000000000ull);
        code = pdr_host_lease_renew(h, &lease, now + 3600u * 1000000000ull, &err); /* expired long ago */
        EXPECT(code == PDR_E_LEASE || fault.hit, "an expired lease was renewed: %d", code);
        pdr_host_lease_close(h, &lease, now + 3601u * 1000000000ull);
    }
    answered("pdr_host_reap", pdr_host_reap(h, now + 3602u * 1000000000ull, NULL), NULL);
}

static void probe_block(pdr_router *r)
{
    pdr_probe_options o;
    pdr_probe        *p;
    pdr_error         err;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&o, sizeof o);
    o.authorization = "Bearer x";
    o.ca_file = "/nonexistent";
    if (!answered("pdr_probe_new", pdr_probe_new(r, &o, &p, &err), &err)) return;
    for (int i = 0; i < 4; i++) answered("pdr_probe_run", pdr_probe_run(p, 2, NULL, &err), &err);
    pdr_probe_free(p);
}

static void scenario(const char *path, const char *bad_path)
{
    pdr_config  config = small_config();
    pdr_host   *h;
    pdr_router *r;
    pdr_error   err;
    pdr_init_struct(&err, sizeof err);
    if (answered("create", pdr_host_open(path, &config, PDR_HOST_CREATE, &h, &r, &err), &err)) {
        pdr_endpoint e = make_endpoint("p", PDR_ROLE_PREFILL, 9); /* discard: refused at once */
        pdr_endpoint_put(r, &e, pdr_host_now_ns(), NULL, NULL);
        use_block(h);
        probe_block(r);
        pdr_host_close(h);
    }
    if (answered("attach", pdr_host_open(path, NULL, PDR_HOST_CREATE, &h, &r, &err), &err)) pdr_host_close(h);
    /* A file that is no block is replaced, whole or not at all. */
    if (answered("recreate", pdr_host_open(bad_path, &config, PDR_HOST_RECREATE, &h, &r, &err), &err)) {
        answered("check", pdr_router_check(r, &err), &err);
        pdr_host_close(h);
    }
}

/* ------------------------------------------------------------------------------------------------------------------ the loop */

static int count_entries(const char *dir, const char *infix)
{
    struct dirent *e;
    int            n = 0;
    DIR           *d = __real_opendir(dir);
    if (!d) return -1;
    while ((e = readdir(d))) n += !infix || strstr(e->d_name, infix) != NULL;
    closedir(d);
    return n;
}

static void write_bad(const char *path)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("not a block, and longer than a header would need to be told so ....................................................", f);
    fclose(f);
}

struct outcome {
    long calls;
    int  hit;
    char name[32], wrong[512];
};

/* In a build that measures coverage the compiler's runtime has this: children leave by _exit(), which writes no profile. */
int __llvm_profile_write_file(void) __attribute__((weak));

/* In a process of its own: what it leaves behind is seen from outside, and a crash is a finding. */
static struct outcome run_with(long fail_at, int error)
{
    struct outcome o = {0, 0, "", "the process died"};
    const char    *dir = test_path("deep"), *path = test_path("deep/er/block"), *bad = test_path("bad");
    char           command[300];
    int            status, pipes[2];
    snprintf(command, sizeof command, "rm -rf '%s' '%s'*", dir, bad);
    assert_int_equal(system(command), 0);
    write_bad(bad);
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (!pid) {
        int before = count_entries("/proc/self/fd", NULL);
        fault.fail_at = fail_at;
        fault.error = error;
        fault.memory = fault.mappings = 0; /* what was there before, the test's own or the runtime's, does not count */
        fault.armed = 1;
        scenario(path, bad);
        fault.armed = 0;
        EXPECT(!fault.memory, "%ld allocations outstanding", fault.memory);
        EXPECT(!fault.mappings, "%ld mappings outstanding", fault.mappings);
        EXPECT(count_entries("/proc/self/fd", NULL) == before, "%d descriptors more than before", count_entries("/proc/self/fd", NULL) - before);
        o.calls = fault.calls;
        o.hit = fault.hit;
        snprintf(o.name, sizeof o.name, "%s", fault.hit_name ? fault.hit_name : "");
        memcpy(o.wrong, wrong, sizeof o.wrong);
        if (write(pipes[1], &o, sizeof o) != sizeof o) _exit(2);
        if (__llvm_profile_write_file) __llvm_profile_write_file();
        _exit(0);
    }
    close(pipes[1]);
    assert_true(pid > 0);
    if (__real_read(pipes[0], &o, sizeof o) != sizeof o) snprintf(o.wrong, sizeof o.wrong, "the process died in it");
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!*o.wrong && status) snprintf(o.wrong, sizeof o.wrong, "exit status %d", status);
    /* Nothing half-made is there, and the next process works with what is. */
    if (!*o.wrong && count_entries(test_dir, ".new.") > 0) snprintf(o.wrong, sizeof o.wrong, "a temporary file was left");
    if (!*o.wrong && count_entries(test_path("deep/er"), ".new.") > 0) snprintf(o.wrong, sizeof o.wrong, "a temporary file was left");
    for (int i = 0; !*o.wrong && i < 2; i++) {
        pdr_config  config = small_config();
        pdr_host   *h;
        pdr_router *r;
        pdr_error   err;
        pdr_init_struct(&err, sizeof err);
        if (pdr_host_open(i ? bad : path, &config, PDR_HOST_RECREATE, &h, &r, &err) || pdr_router_check(r, &err))
            snprintf(o.wrong, sizeof o.wrong, "afterwards: %.400s", err.message);
        else
            pdr_host_close(h);
    }
    return o;
}

static void each_call_fails_once(void **state)
{
    static const int errors[] = {EIO, EINTR, ENOMEM, EAGAIN, EINVAL, SHORT};
    const struct outcome clean = run_with(0, 0);
    int bad = 0;
    (void)state;
    assert_string_equal(clean.wrong, "");
    assert_true(clean.calls > 60); /* the wraps are linked in */
    for (size_t e = 0; e < sizeof errors / sizeof *errors; e++)
        for (long n = 1;; n++) {
            struct outcome o = run_with(n, errors[e]);
            if (*o.wrong) {
                print_error("call %ld (%s) failing with %s: %s\n", n, o.name, errors[e] == SHORT ? "half of its bytes" : strerrorname_np(errors[e]), o.wrong);
                bad++;
            }
            if (!o.hit && n > clean.calls / 2) break;
            assert_true(n < 100000);
        }
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_call_fails_once)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
