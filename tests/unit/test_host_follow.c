/*
 * pdr_host_follow: a program goes on with what the path names, after its block file was truncated, replaced or removed; what it began on the old block ends on
 * the new one without taking anything from anybody there; a file of others is never replaced.
 */
#include "host_test.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#define CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"

static pdr_host *open_block(const char *path, const pdr_config *c, uint32_t flags)
{
    static struct sigaction guard; /* cmocka sets a handler of its own around every test; the guard's is put back */
    pdr_host               *h = NULL;
    pdr_error               err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_open(path, c, flags | PDR_HOST_GUARD, &h, NULL, &err)) fail_msg("%s", err.message);
    sigaction(SIGBUS, guard.sa_sigaction ? &guard : NULL, guard.sa_sigaction ? NULL : &guard);
    return h;
}

static pdr_host *follow(pdr_host *h, const pdr_config *c, uint32_t flags, int expected)
{
    pdr_host   *next = h;
    pdr_router *r = NULL;
    pdr_error   err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_follow(h, c, flags | PDR_HOST_GUARD, &next, &r, &err) != expected) fail_msg("%s", err.message);
    if (expected) assert_null(next);
    if (next) assert_ptr_equal(r, pdr_host_router(next));
    return next;
}

static uint32_t fill(pdr_router *r)
{
    uint32_t lease = 0;
    put_endpoint(r, "p", PDR_ROLE_PREFILL, 1);
    put_endpoint(r, "d", PDR_ROLE_DECODE, 2);
    assert_int_equal(pdr_lease_open(r, "follow", pdr_host_now_ns(), &lease, NULL), PDR_OK);
    return lease;
}

static int route(pdr_router *r, uint32_t lease, pdr_decision *d)
{
    pdr_request q;
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(d, sizeof *d);
    q.api = PDR_API_CHAT;
    q.now_ns = pdr_host_now_ns();
    q.lease = lease;
    return pdr_route(r, CHAT, sizeof CHAT - 1, &q, NULL, d, NULL);
}

static uint64_t booked(pdr_router *r)
{
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_stats_get(r, &s), PDR_OK);
    return s.bookings;
}

static void unchanged(void **state)
{
    pdr_host *h = open_block(test_path("same"), NULL, PDR_HOST_CREATE);
    (void)state;
    assert_null(follow(h, NULL, PDR_HOST_CREATE | PDR_HOST_RECREATE, PDR_OK));
    assert_int_equal(pdr_host_follow(h, NULL, 0, NULL, NULL, NULL), PDR_E_INVALID);
    pdr_host_close(h);
}

/* With a configuration and without one: then the new block has the old one's. */
static void truncated(void **state)
{
    (void)state;
    for (int given = 0; given < 2; given++) {
        for (int keep = 0; keep <= 4096; keep += 4096) {
            pdr_config   c = small_config(), now;
            const char  *path = test_path("cut");
            pdr_host    *h = open_block(path, &c, PDR_HOST_RECREATE), *next, *other;
            uint32_t     lease = fill(pdr_host_router(h));
            pdr_decision old, mine;
            pdr_host_info info;
            assert_int_equal(route(pdr_host_router(h), lease, &old), PDR_OK);
            assert_int_equal(truncate(path, keep), 0);
            assert_int_equal(route(pdr_host_router(h), lease, &mine), PDR_E_BLOCK_CORRUPT);
            assert_non_null(next = follow(h, given ? &c : NULL, 0, PDR_OK));
            pdr_init_struct(&info, sizeof info);
            assert_int_equal(pdr_host_info_get(next, &info), PDR_OK);
            assert_int_equal(info.origin, PDR_HOST_RECREATED);
            pdr_init_struct(&now, sizeof now);
            assert_int_equal(pdr_router_config(pdr_host_router(next), &now), PDR_OK);
            assert_int_equal(now.max_bookings, c.max_bookings);
            assert_int_equal(now.index_entries, c.index_entries);
            assert_null(follow(next, NULL, 0, PDR_OK));
            other = open_block(path, NULL, 0); /* another process finds the same */
            pdr_host_close(h);
            assert_int_equal(route(pdr_host_router(next), lease, &mine), PDR_E_LEASE); /* the old block's */
            lease = fill(pdr_host_router(next));
            assert_int_equal(route(pdr_host_router(other), lease, &mine), PDR_OK);
            assert_int_equal(pdr_booking_done(pdr_host_router(next), old.booking, PDR_DONE_ALL, pdr_host_now_ns()), PDR_E_NOT_FOUND);
            assert_int_equal(booked(pdr_host_router(next)), 1);
            assert_int_equal(pdr_router_check(pdr_host_router(next), NULL), PDR_OK);
            pdr_host_close(other);
            pdr_host_close(next);
        }
    }
}

/* An exchange that began on the old block ends on the new one, and gives back nothing that others have booked there. */
static void exchanges_move(void **state)
{
    pdr_config   c = small_config();
    c.seed = 7; /* given, and yet not used twice */
    const char  *path = test_path("moves"), *aside = test_path("aside");
    pdr_host    *h = open_block(path, &c, PDR_HOST_CREATE), *next;
    uint32_t     lease = fill(pdr_host_router(h));
    pdr_decision d, others[8];
    pdr_exchange x;
    pdr_event    ev;
    pdr_action   acts[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    int          over = 0;
    (void)state;
    assert_int_equal(route(pdr_host_router(h), lease, &d), PDR_OK);
    pdr_init_struct(&x, sizeof x);
    assert_int_equal(pdr_exchange_begin(pdr_host_router(h), &x, &d, lease, pdr_host_now_ns(), acts, &n), PDR_OK);
    assert_int_equal(rename(path, aside), 0);
    assert_non_null(next = follow(h, &c, PDR_HOST_CREATE, PDR_OK));
    assert_int_equal(booked(pdr_host_router(h)), 1); /* the old one is whole */
    pdr_host_close(h);
    lease = fill(pdr_host_router(next));
    for (int i = 0; i < 8; i++) {
        assert_int_equal(route(pdr_host_router(next), lease, &others[i]), PDR_OK);
        assert_true(others[i].booking != d.booking);
    }
    for (int leg = PDR_LEG_PREFILL; leg <= PDR_LEG_DECODE; leg++) {
        static const uint32_t types[] = {PDR_EV_HEAD, PDR_EV_BODY, PDR_EV_END};
        for (int i = 0; i < 3; i++) {
            pdr_init_struct(&ev, sizeof ev);
            ev.type = types[i];
            ev.leg = (uint32_t)leg;
            ev.status = 200;
            ev.now_ns = pdr_host_now_ns();
            n = PDR_MAX_ACTIONS;
            assert_int_equal(pdr_exchange_event(pdr_host_router(next), &x, &ev, acts, &n), PDR_OK);
            for (size_t k = 0; k < n; k++) over |= acts[k].type == PDR_ACT_FINISH;
        }
    }
    assert_true(over);
    assert_int_equal(booked(pdr_host_router(next)), 8);
    pdr_host_close(next);
}

static void removed(void **state)
{
    pdr_config  c = small_config();
    const char *path = test_path("gone");
    pdr_host   *h = open_block(path, &c, PDR_HOST_CREATE), *next;
    (void)state;
    assert_int_equal(unlink(path), 0);
    follow(h, &c, 0, PDR_E_SYSTEM); /* none may be made */
    assert_int_equal(pdr_router_check(pdr_host_router(h), NULL), PDR_OK);
    assert_non_null(next = follow(h, &c, PDR_HOST_RECREATE, PDR_OK));
    pdr_host_close(h);
    pdr_host_close(next);
}

static void has_servers_as_they_were(pdr_router *r)
{
    uint32_t     id, state;
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_endpoint_find(r, "p", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_get(r, id, &e, &state), PDR_OK);
    assert_int_equal(state, PDR_STATE_READY);
    assert_int_equal(e.role, PDR_ROLE_PREFILL);
    assert_int_equal(e.bootstrap_port, 4711);
    assert_int_equal(pdr_endpoint_find(r, "d", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_get(r, id, &e, &state), PDR_OK);
    assert_int_equal(state, PDR_STATE_DRAINING);
    assert_int_equal(pdr_router_check(r, NULL), PDR_OK);
}

/* Who put them may be gone: a block that takes a readable one's place has its servers. */
static void servers_are_kept(void **state)
{
    pdr_config   c = small_config(), larger = small_config(), least = small_config();
    const char  *path = test_path("servers");
    pdr_host    *h = open_block(path, &c, PDR_HOST_CREATE), *next;
    pdr_router  *r = pdr_host_router(h);
    pdr_endpoint e;
    uint32_t     id;
    (void)state;
    fill(r);
    pdr_init_struct(&e, sizeof e);
    assert_int_equal(pdr_endpoint_find(r, "p", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_get(r, id, &e, &(uint32_t){0}), PDR_OK);
    e.bootstrap_port = 4711;
    assert_int_equal(pdr_endpoint_put(r, &e, pdr_host_now_ns(), &id, NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_find(r, "d", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_drain(r, id, 1, NULL), PDR_OK);
    assert_int_equal(unlink(path), 0);
    assert_non_null(next = follow(h, &c, PDR_HOST_CREATE, PDR_OK));
    has_servers_as_they_were(pdr_host_router(next));
    pdr_host_close(h);
    pdr_host_close(next);
    larger.max_bookings *= 2; /* another configuration */
    next = open_block(path, &larger, PDR_HOST_RECREATE);
    has_servers_as_they_were(pdr_host_router(next));
    pdr_host_close(next);
    least.max_endpoints = least.max_targets = 1; /* as many as there is room for */
    next = open_block(path, &least, PDR_HOST_RECREATE);
    assert_int_equal(pdr_endpoint_find(pdr_host_router(next), "p", &id), PDR_OK);
    assert_int_equal(pdr_endpoint_find(pdr_host_router(next), "d", &id), PDR_E_NOT_FOUND);
    pdr_host_close(next);
    assert_int_equal(truncate(path, 100), 0); /* nothing to read */
    next = open_block(path, &c, PDR_HOST_RECREATE);
    assert_int_equal(pdr_endpoint_find(pdr_host_router(next), "p", &id), PDR_E_NOT_FOUND);
    pdr_host_close(next);
}

/* What is refused stays, whatever the flags; the old block can still be used. */
static void not_ours(void **state)
{
    pdr_config  c = small_config(), larger = small_config();
    const char *path = test_path("other");
    pdr_host   *h = open_block(path, &c, PDR_HOST_CREATE), *next;
    char        text[8] = "";
    int         fd;
    (void)state;
    larger.max_bookings *= 2;
    assert_int_equal(unlink(path), 0);
    pdr_host_close(open_block(path, &larger, PDR_HOST_CREATE));
    follow(h, &c, PDR_HOST_RECREATE, PDR_E_BLOCK_CONFIG);
    assert_non_null(next = follow(h, NULL, 0, PDR_OK)); /* who accepts any has it */
    pdr_host_close(next);
    assert_int_equal(unlink(path), 0);
    assert_true((fd = open(path, O_RDWR | O_CREAT, 0600)) >= 0);
    assert_int_equal(write(fd, "garbage", 7), 7);
    follow(h, &c, PDR_HOST_RECREATE, PDR_E_BLOCK_MAGIC);
    assert_int_equal(pread(fd, text, 7, 0), 7);
    assert_string_equal(text, "garbage");
    close(fd);
    assert_int_equal(pdr_router_check(pdr_host_router(h), NULL), PDR_OK);
    pdr_host_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged), cmocka_unit_test(truncated), cmocka_unit_test(exchanges_move), cmocka_unit_test(removed), cmocka_unit_test(servers_are_kept),
        cmocka_unit_test(not_ours),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
