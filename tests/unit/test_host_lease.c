/* lib/host/lease.c, wake.c: leases end with their processes, and owners of released requests are woken. */
#include "host_test.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

static pdr_host   *host;
static pdr_router *router;

static int open_small(void **state)
{
    pdr_config c = small_config();
    pdr_error  err;
    (void)state;
    pdr_init_struct(&err, sizeof err);
    c.hold_window_tokens = 1; /* the second request at a server is held */
    unlink(test_path("lease"));
    if (pdr_host_open(test_path("lease"), &c, PDR_HOST_CREATE, &host, &router, &err)) {
        print_error("%s\n", err.message);
        return -1;
    }
    put_endpoint(router, "p", PDR_ROLE_PREFILL, 1);
    put_endpoint(router, "d", PDR_ROLE_DECODE, 2);
    return 0;
}

static int close_small(void **state)
{
    (void)state;
    pdr_host_close(host);
    return 0;
}

static pdr_stats stats(void)
{
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_stats_get(router, &s), PDR_OK);
    return s;
}

static int readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0);
}

static int route(uint32_t lease, pdr_decision *d)
{
    static const char body[] = "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"tell me about caches and how they work\"}]}";
    pdr_request       q;
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(d, sizeof *d);
    q.api = PDR_API_CHAT;
    q.lease = lease;
    q.now_ns = pdr_host_now_ns();
    return pdr_route(router, body, sizeof body - 1, &q, NULL, d, NULL);
}

static void wakes_arrive_and_never_block(void **state)
{
    pdr_host_lease l;
    (void)state;
    pdr_init_struct(&l, sizeof l);
    assert_int_equal(pdr_host_lease_open(host, "me", pdr_host_now_ns(), &l, NULL), PDR_OK);
    assert_true(l.wake_fd >= 0);
    assert_int_equal(readable(l.wake_fd), 0);
    for (int i = 0; i < 2000; i++) assert_int_equal(pdr_host_wake(host, l.id), 1); /* more than any queue holds */
    assert_int_equal(readable(l.wake_fd), 1);
    pdr_host_wake_drain(l.wake_fd);
    assert_int_equal(readable(l.wake_fd), 0);
    assert_int_equal(pdr_host_wake(host, l.id + 1), 0); /* nobody there */
    pdr_host_lease_close(host, &l, pdr_host_now_ns());
    assert_int_equal(l.wake_fd, -1);
    assert_int_equal(pdr_host_wake(host, l.id), 0);
    assert_int_equal(stats().leases, 0);
    pdr_host_wake_drain(-1);
}

static void owner_of_a_released_request_is_woken(void **state)
{
    pdr_host_lease a, b;
    pdr_decision   first, second;
    uint64_t       tickets[4];
    size_t         n = 4;
    (void)state;
    pdr_init_struct(&a, sizeof a);
    pdr_init_struct(&b, sizeof b);
    assert_int_equal(pdr_host_lease_open(host, "a", pdr_host_now_ns(), &a, NULL), PDR_OK);
    assert_int_equal(pdr_host_lease_open(host, "b", pdr_host_now_ns(), &b, NULL), PDR_OK);
    assert_int_equal(route(a.id, &first), PDR_OK);
    assert_int_equal(first.outcome, PDR_SEND);
    assert_int_equal(route(b.id, &second), PDR_OK);
    assert_int_equal(second.outcome, PDR_HELD);
    assert_int_equal(pdr_host_wake_pending(host), 0);
    assert_int_equal(pdr_booking_done(router, first.booking, PDR_DONE_ALL, pdr_host_now_ns()), PDR_OK);
    assert_int_equal(pdr_host_wake_pending(host), 1);
    assert_int_equal(readable(a.wake_fd), 0);
    assert_int_equal(readable(b.wake_fd), 1);
    assert_int_equal(pdr_released(router, b.id, tickets, &n), PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(tickets[0], second.booking);
    pdr_host_lease_close(host, &a, pdr_host_now_ns());
    pdr_host_lease_close(host, &b, pdr_host_now_ns());
    assert_int_equal(stats().bookings, 0);
}

/* A process with a lease and a booking, stopped at a pipe; returns its pid. */
static pid_t start_owner(int books, int *hold)
{
    int   ready[2], wait[2];
    char  byte;
    pid_t pid;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(wait), 0);
    if (!(pid = fork())) {
        pdr_host_lease l;
        pdr_decision   d;
        close(wait[1]);
        pdr_init_struct(&l, sizeof l);
        if (pdr_host_lease_open(host, "child", pdr_host_now_ns(), &l, NULL)) _exit(1);
        if (books && route(l.id, &d)) _exit(2);
        if (write(ready[1], "x", 1) != 1) _exit(3);
        if (read(wait[0], &byte, 1) < 0) _exit(4);
        if (!books) pdr_host_lease_close(host, &l, pdr_host_now_ns());
        _exit(0);
    }
    close(ready[1]);
    close(wait[0]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    *hold = wait[1];
    return pid;
}

static void dead_process_is_reaped_at_once(void **state)
{
    int      hold;
    pid_t    pid = start_owner(1, &hold);
    uint32_t broken = 9;
    (void)state;
    assert_int_equal(stats().bookings, 1);
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, 0);
    assert_int_equal(stats().bookings, 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, 1);
    assert_int_equal(stats().bookings, 0);
    assert_int_equal(stats().leases, 0);
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, 0);
    close(hold);
}

/* Ticks of 100 ms, as every process makes them: what waits for the dead one's place does not wait for longer. */
static void the_next_tick_ends_what_a_dead_process_had(void **state)
{
    int      hold;
    pid_t    pid = start_owner(1, &hold);
    uint64_t now = pdr_host_now_ns();
    (void)state;
    assert_int_equal(pdr_host_tick(host, now), PDR_OK);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(stats().bookings, 1);
    assert_int_equal(pdr_host_tick(host, now + 100000000), PDR_OK);
    assert_int_equal(stats().bookings, 0);
    assert_int_equal(stats().leases, 0);
    close(hold);
}

static void living_and_stopped_processes_are_not_reaped(void **state)
{
    int      hold;
    pid_t    pid = start_owner(0, &hold);
    uint32_t broken;
    int      status;
    (void)state;
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    kill(pid, SIGSTOP);
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, 0);
    kill(pid, SIGCONT);
    close(hold); /* it ends its lease itself */
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, 0);
    assert_int_equal(stats().leases, 0);
}

/* Among many living leases, in any order of marks, exactly the dead ones go. */
static void the_right_ones_are_reaped(void **state)
{
    enum { N = 12 };
    int            hold[N];
    pid_t          pid[N];
    pdr_host_lease mine[4];
    uint32_t       broken, left = N / 2;
    (void)state;
    for (int i = 0; i < N; i++) {
        if (i % 4 == 0) {
            pdr_init_struct(&mine[i / 4], sizeof *mine);
            assert_int_equal(pdr_host_lease_open(host, "mine", pdr_host_now_ns(), &mine[i / 4], NULL), PDR_OK);
        }
        pid[i] = start_owner(0, &hold[i]);
    }
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, 0);
    for (int i = 0; i < N; i += 2) kill(pid[i], SIGKILL), waitpid(pid[i], NULL, 0);
    assert_int_equal(pdr_host_reap(host, pdr_host_now_ns(), &broken), PDR_OK);
    assert_int_equal(broken, left);
    assert_int_equal(stats().leases, N - left + 3);
    for (int i = 0; i < 3; i++) assert_int_equal(pdr_lease_renew(router, mine[i].id, pdr_host_now_ns()), PDR_OK);
    for (int i = 0; i < N; i++) close(hold[i]);
    for (int i = 1; i < N; i += 2) waitpid(pid[i], NULL, 0);
    for (int i = 0; i < 3; i++) pdr_host_lease_close(host, &mine[i], pdr_host_now_ns());
    assert_int_equal(stats().leases, 0);
}

static void expired_lease_is_replaced(void **state)
{
    pdr_host_lease l;
    uint64_t       now = pdr_host_now_ns(), ttl = 10000000000u;
    uint32_t       before;
    (void)state;
    pdr_init_struct(&l, sizeof l);
    assert_int_equal(pdr_host_lease_open(host, "late", now, &l, NULL), PDR_OK);
    before = l.id;
    assert_int_equal(pdr_host_lease_renew(host, &l, now + ttl / 10, NULL), PDR_OK); /* too early: nothing happens */
    assert_int_equal(l.renewed_ns, now);
    assert_int_equal(pdr_host_lease_renew(host, &l, now + ttl / 2, NULL), PDR_OK);
    assert_int_equal(l.renewed_ns, now + ttl / 2);
    assert_int_equal(pdr_tick(router, now + 2 * ttl), PDR_OK);
    assert_int_equal(pdr_host_lease_renew(host, &l, now + 2 * ttl, NULL), PDR_E_LEASE);
    assert_int_not_equal(l.id, before);
    assert_string_equal(l.name, "late");
    assert_int_equal(pdr_host_wake(host, l.id), 1);
    assert_int_equal(pdr_host_wake(host, before), 0);
    pdr_host_lease_close(host, &l, now + 2 * ttl);
}

static void a_job_has_one_holder(void **state)
{
    int  a, b, c;
    char byte;
    int  pipe_fd[2];
    (void)state;
    assert_int_equal(pdr_host_claim(host, PDR_HOST_JOB_PROBE, &a, NULL), PDR_OK);
    assert_int_equal(pdr_host_claim(host, PDR_HOST_JOB_PROBE, &b, NULL), PDR_E_BUSY);
    assert_int_equal(pdr_host_claim(host, PDR_HOST_JOB_DISCOVERY, &c, NULL), PDR_OK);
    close(a);
    close(c);
    assert_int_equal(pipe(pipe_fd), 0);
    pid_t pid = fork();
    if (!pid) {
        if (pdr_host_claim(host, PDR_HOST_JOB_PROBE, &a, NULL) || write(pipe_fd[1], "x", 1) != 1) _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(pipe_fd[0], &byte, 1), 1);
    assert_int_equal(pdr_host_claim(host, PDR_HOST_JOB_PROBE, &b, NULL), PDR_E_BUSY);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(pdr_host_claim(host, PDR_HOST_JOB_PROBE, &b, NULL), PDR_OK);
    close(b);
    close(pipe_fd[0]);
    close(pipe_fd[1]);
}

static void tick_does_all_of_it(void **state)
{
    int   hold;
    pid_t pid = start_owner(1, &hold);
    (void)state;
    assert_int_equal(pdr_host_tick(host, pdr_host_now_ns()), PDR_OK);
    assert_int_equal(stats().leases, 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(pdr_host_tick(host, pdr_host_now_ns() + 600000000u), PDR_OK);
    assert_int_equal(stats().leases, 0);
    assert_int_equal(stats().bookings, 0);
    close(hold);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_small, close_small)
    const struct CMUnitTest tests[] = {
        T(wakes_arrive_and_never_block), T(owner_of_a_released_request_is_woken), T(dead_process_is_reaped_at_once), T(the_next_tick_ends_what_a_dead_process_had),
        T(living_and_stopped_processes_are_not_reaped), T(the_right_ones_are_reaped), T(expired_lease_is_replaced),
        T(a_job_has_one_holder), T(tick_does_all_of_it),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
