/* What the tests of libpdroute_host share: a directory of their own and a small configuration. */
#ifndef HOST_TEST_H
#define HOST_TEST_H

#include "pdroute/host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char test_dir[64];

static inline int make_dir(void **state)
{
    (void)state;
    snprintf(test_dir, sizeof test_dir, "%s/pdrtestXXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    return mkdtemp(test_dir) ? 0 : -1;
}

static inline int remove_dir(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", test_dir);
    return system(command) ? -1 : 0;
}

static inline const char *test_path(const char *name)
{
    static char path[64][160];
    static int  turn;
    char       *p = path[turn++ % 64];
    snprintf(p, sizeof path[0], "%s/%s", test_dir, name);
    return p;
}

static inline pdr_config small_config(void)
{
    pdr_config c;
    pdr_init_struct(&c, sizeof c);
    c.max_endpoints = 32;
    c.max_targets = 32;
    c.max_bookings = 64;
    c.max_leases = 32;
    c.max_held = 16;
    c.index_entries = 4096;
    return c;
}

static inline pdr_endpoint make_endpoint(const char *name, uint32_t role, uint32_t port)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    snprintf(e.name, sizeof e.name, "%s", name);
    snprintf(e.host, sizeof e.host, "127.0.0.1");
    e.role = role;
    e.port = port;
    return e;
}

static inline uint32_t put_endpoint(pdr_router *r, const char *name, uint32_t role, uint32_t port)
{
    pdr_endpoint e = make_endpoint(name, role, port);
    uint32_t     id = PDR_NONE;
    pdr_error    err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_endpoint_put(r, &e, pdr_host_now_ns(), &id, &err)) fail_msg("%s", err.message);
    return id;
}

#endif
