/*
 * A block file truncated under its users, with PDR_HOST_GUARD: nobody dies, every call says so, and a block that is opened anew works. Also with the lock held,
 * from several threads at once, in a forked child, and with a SIGBUS that is somebody else's.
 */
#include "host_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"

/* cmocka sets a handler of its own around every test; the guard's is put back. */
static pdr_host *open_guarded(const char *path, uint32_t flags)
{
    static struct sigaction guard;
    pdr_config              c = small_config();
    pdr_host               *h = NULL;
    pdr_error               err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_open(path, &c, flags | PDR_HOST_GUARD, &h, NULL, &err)) fail_msg("%s", err.message);
    if (!guard.sa_sigaction)
        sigaction(SIGBUS, NULL, &guard);
    else
        sigaction(SIGBUS, &guard, NULL);
    return h;
}

static uint32_t fill(pdr_router *r)
{
    uint32_t lease = 0;
    put_endpoint(r, "p", PDR_ROLE_PREFILL, 1);
    put_endpoint(r, "d", PDR_ROLE_DECODE, 2);
    assert_int_equal(pdr_lease_open(r, "guard", pdr_host_now_ns(), &lease, NULL), PDR_OK);
    return lease;
}

static int route(pdr_router *r, uint32_t lease, pdr_decision *d, pdr_error *err)
{
    pdr_request q;
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(d, sizeof *d);
    pdr_init_struct(err, sizeof *err);
    q.api = PDR_API_CHAT;
    q.now_ns = pdr_host_now_ns();
    q.lease = lease;
    return pdr_route(r, CHAT, sizeof CHAT - 1, &q, NULL, d, err);
}

/* The first touch of each public call meets the missing page: all of them answer, and what they answer is that the block is gone. */
static void every_call_answers(void **state)
{
    enum { CALLS = 14 };
    (void)state;
    for (int call = 0; call < CALLS; call++) {
        for (int keep = 0; keep <= 4096; keep += 4096) { /* nothing left; the header left, the tables gone */
            const char *path = test_path("cut");
            pdr_host   *h = open_guarded(path, PDR_HOST_RECREATE);
            pdr_router *r = pdr_host_router(h);
            uint32_t    lease = fill(r), id = 0, state_now = 0;
            uint64_t    ticket[4];
            size_t      n = 4, need;
            char        text[8192];
            pdr_decision  d;
            pdr_error     err;
            pdr_stats     stats;
            pdr_endpoint  e = make_endpoint("new", PDR_ROLE_DECODE, 3);
            int           code = 0;
            pdr_init_struct(&stats, sizeof stats);
            pdr_init_struct(&err, sizeof err);
            assert_int_equal(truncate(path, keep), 0);
            switch (call) {
            case 0: code = route(r, lease, &d, &err); break;
            case 1: code = pdr_tick(r, pdr_host_now_ns()); break;
            case 2: code = pdr_router_check(r, &err); break;
            case 3: code = pdr_endpoint_put(r, &e, pdr_host_now_ns(), &id, &err); break;
            case 4: code = pdr_stats_get(r, &stats); break;
            case 5: code = pdr_lease_renew(r, lease, pdr_host_now_ns()); break;
            case 6: code = pdr_released(r, lease, ticket, &n); break;
            case 7: code = pdr_status_json(r, pdr_host_now_ns(), text, sizeof text, &need); break;
            case 8: code = pdr_status_prometheus(r, pdr_host_now_ns(), text, sizeof text, &need); break;
            case 9: code = pdr_booking_done(r, 7, PDR_DONE_ALL, pdr_host_now_ns()); break;
            case 10: code = pdr_endpoint_drain(r, 0, 1, &err); break;
            case 11: code = pdr_host_tick(h, pdr_host_now_ns()); break;
            case 12: code = pdr_lease_open(r, "x", pdr_host_now_ns(), &lease, &err); break;
            default: code = pdr_endpoint_remove(r, 0, &err); break;
            }
            if (code != PDR_E_BLOCK_CORRUPT) fail_msg("call %d with %d bytes left answered %d", call, keep, code);
            assert_int_equal(route(r, lease, &d, &err), PDR_E_BLOCK_CORRUPT); /* and the next one */
            assert_string_not_equal(err.message, "");
            assert_int_equal(pdr_ready(r, pdr_host_now_ns()), 0);
            assert_int_equal(pdr_host_state(h, &state_now, NULL), PDR_OK);
            assert_int_equal(state_now, PDR_HOST_TRUNCATED);
            pdr_host_close(h);
        }
    }
}

static void works_when_opened_anew(void **state)
{
    const char  *path = test_path("anew");
    pdr_host    *lost = open_guarded(path, PDR_HOST_CREATE), *h;
    uint32_t     lease = fill(pdr_host_router(lost));
    pdr_decision d;
    pdr_error    err;
    (void)state;
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(route(pdr_host_router(lost), lease, &d, &err), PDR_E_BLOCK_CORRUPT);
    h = open_guarded(path, PDR_HOST_RECREATE); /* beside the lost one */
    lease = fill(pdr_host_router(h));
    assert_int_equal(route(pdr_host_router(h), lease, &d, &err), PDR_OK);
    pdr_host_close(lost);
    assert_int_equal(route(pdr_host_router(h), lease, &d, &err), PDR_OK);
    assert_int_equal(pdr_booking_done(pdr_host_router(h), d.booking, PDR_DONE_ALL, pdr_host_now_ns()), PDR_OK);
    assert_int_equal(pdr_router_check(pdr_host_router(h), NULL), PDR_OK);
    pdr_host_close(h);
}

/* A request that is under way when the block goes ends as it would have. */
static void exchanges_go_on(void **state)
{
    const char  *path = test_path("exchange");
    pdr_host    *h = open_guarded(path, PDR_HOST_CREATE);
    pdr_router  *r = pdr_host_router(h);
    uint32_t     lease = fill(r);
    pdr_decision d;
    pdr_error    err;
    pdr_exchange x;
    pdr_event    ev;
    pdr_action   actions[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    (void)state;
    pdr_init_struct(&x, sizeof x);
    assert_int_equal(route(r, lease, &d, &err), PDR_OK);
    assert_int_equal(pdr_exchange_begin(r, &x, &d, lease, pdr_host_now_ns(), actions, &n), PDR_OK);
    assert_true(n > 0);
    assert_int_equal(truncate(path, 0), 0);
    pdr_init_struct(&ev, sizeof ev);
    ev.type = PDR_EV_CLIENT_GONE;
    ev.now_ns = pdr_host_now_ns();
    n = PDR_MAX_ACTIONS;
    assert_int_equal(pdr_exchange_event(r, &x, &ev, actions, &n), PDR_OK);
    assert_true(n > 0); /* both legs are closed */
    pdr_host_close(h);
}

struct crowd { pdr_router *r; uint32_t lease; volatile int go, odd; };

static void *crowd_run(void *argument)
{
    struct crowd *c = argument;
    pdr_decision  d;
    pdr_error     err;
    int           code = PDR_OK;
    for (int i = 0; i < 2000000 && code != PDR_E_BLOCK_CORRUPT; i++) {
        code = route(c->r, c->lease, &d, &err);
        if (!code) pdr_booking_done(c->r, d.booking, PDR_DONE_ALL, pdr_host_now_ns());
        c->go = 1;
    }
    if (code != PDR_E_BLOCK_CORRUPT) c->odd = code ? code : 1;
    return NULL;
}

/* Truncated at a random instant, mostly with somebody inside; the threads' next blocks and their ends meet what the lost mutex left behind. */
static void threads_inside(void **state)
{
    (void)state;
    for (int round = 0; round < 40; round++) {
        const char  *path = test_path("crowd");
        pdr_host    *h = open_guarded(path, PDR_HOST_RECREATE);
        struct crowd c = {pdr_host_router(h), fill(pdr_host_router(h)), 0, 0};
        pthread_t    thread[4];
        for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, crowd_run, &c), 0);
        while (!c.go) usleep(50);
        usleep((useconds_t)(round * 37 % 500));
        assert_int_equal(truncate(path, round % 2 ? 4096 : 0), 0);
        for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
        if (c.odd) fail_msg("round %d: a thread ended with %d", round, c.odd);
        pdr_host_close(h);
    }
}

static void children_are_guarded(void **state)
{
    const char  *path = test_path("child");
    pdr_host    *h = open_guarded(path, PDR_HOST_CREATE);
    uint32_t     lease = fill(pdr_host_router(h));
    pdr_decision d;
    pdr_error    err;
    int          status;
    pid_t        pid = fork();
    (void)state;
    if (!pid) {
        if (truncate(path, 0)) _exit(2);
        _exit(route(pdr_host_router(h), lease, &d, &err) == PDR_E_BLOCK_CORRUPT ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(route(pdr_host_router(h), lease, &d, &err), PDR_E_BLOCK_CORRUPT); /* found by each for itself */
    pdr_host_close(h);
}

/* ------------------------------------------------------------------------------------------------------- other SIGBUS */

/* An emulator starts itself as /proc/self/exe, not this program. */
static void not_emulated(void)
{
    if (!getenv("PDR_TEST_EMULATED")) return;
    puts("SKIP test_host_guard: what a program of its own does with the signal, which the emulator cannot start");
    skip();
}

/* This program again, whose handler is not yet installed: --name path. */
static int run_self(const char *name)
{
    int   status = -1;
    pid_t pid = fork();
    if (!pid) {
        execl("/proc/self/exe", "test_host_guard", name, test_path("self"), (char *)NULL);
        _exit(9);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void *mapped_and_cut(void)
{
    char  path[] = "/tmp/pdrcutXXXXXX";
    int   fd = mkstemp(path);
    void *p = MAP_FAILED;
    unlink(path);
    if (fd >= 0 && !ftruncate(fd, 4096)) p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED || ftruncate(fd, 0)) _exit(3);
    close(fd);
    return p;
}

static int death(const char *path, int sent)
{
    pdr_config c = small_config();
    pdr_host  *h;
    signal(SIGBUS, SIG_DFL); /* a sanitizer's would report and exit */
    if (pdr_host_open(path, &c, PDR_HOST_CREATE | PDR_HOST_GUARD, &h, NULL, NULL)) return 10;
    if (sent) kill(getpid(), SIGBUS);
    *(volatile char *)mapped_and_cut() = 1;
    return 11;
}

static void others_are_fatal_as_ever(void **state)
{
    (void)state;
    not_emulated();
    int touched = run_self("--touch"), sent = run_self("--send");
    assert_true(WIFSIGNALED(touched) && WTERMSIG(touched) == SIGBUS);
    assert_true(WIFSIGNALED(sent) && WTERMSIG(sent) == SIGBUS);
}

static void *volatile found_at; /* the handler sets it */

static void earlier_handler(int signo, siginfo_t *info, void *context)
{
    (void)context;
    found_at = info->si_addr;
    if (mmap((void *)((uintptr_t)info->si_addr & ~4095ull), 4096, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        _exit(signo);
}

static void the_handler_before_gets_the_rest(void **state)
{
    (void)state;
    not_emulated();
    assert_int_equal(run_self("--chain"), 0);
}

static int chain(const char *path)
{
    struct sigaction sa;
    pdr_config       c = small_config();
    pdr_host        *h;
    volatile char   *p;
    memset(&sa, 0, sizeof sa);
    sa.sa_sigaction = earlier_handler;
    sa.sa_flags = SA_SIGINFO;
    sigaction(SIGBUS, &sa, NULL);
    if (pdr_host_open(path, &c, PDR_HOST_CREATE | PDR_HOST_GUARD, &h, NULL, NULL)) return 10;
    p = mapped_and_cut();
    p[5] = 1;
    if (found_at != p + 5) return 11;
    if (truncate(path, 0)) return 12;
    found_at = NULL;
    if (pdr_tick(pdr_host_router(h), 1) != PDR_E_BLOCK_CORRUPT || found_at) return 13;
    pdr_host_close(h);
    return 0;
}

/* 256 guards at once, and the 257th is told. */
static void a_full_table(void **state)
{
    static pdr_host *h[300];
    pdr_config       c = small_config();
    pdr_error        err;
    int              n = 0, code;
    (void)state;
    pdr_init_struct(&err, sizeof err);
    while (!(code = pdr_host_open(test_path("many"), &c, PDR_HOST_CREATE | PDR_HOST_GUARD, &h[n], NULL, &err)) && n < 299) n++;
    assert_int_equal(n, 256);
    assert_int_equal(code, PDR_E_FULL);
    assert_non_null(strstr(err.message, "256"));
    pdr_host_close(h[--n]);
    assert_int_equal(pdr_host_open(test_path("many"), &c, PDR_HOST_GUARD, &h[n++], NULL, &err), PDR_OK);
    while (n) pdr_host_close(h[--n]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_answers),
        cmocka_unit_test(works_when_opened_anew),
        cmocka_unit_test(exchanges_go_on),
        cmocka_unit_test(threads_inside),
        cmocka_unit_test(children_are_guarded),
        cmocka_unit_test(others_are_fatal_as_ever),
        cmocka_unit_test(the_handler_before_gets_the_rest),
        cmocka_unit_test(a_full_table),
    };
    if (argc == 3) return !strcmp(argv[1], "--chain") ? chain(argv[2]) : death(argv[2], !strcmp(argv[1], "--send"));
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
