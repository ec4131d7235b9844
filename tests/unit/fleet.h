/* A router with a small fleet in malloc'd memory, for tests. */
#ifndef PDR_TEST_FLEET_H
#define PDR_TEST_FLEET_H

#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MS 1000000ull
#define SECOND 1000000000ull

typedef struct fleet {
    pdr_router *r;
    void       *mem;
    uint64_t    now;
    uint32_t    lease;
    uint32_t    prefill[64], decode[64];
} fleet;

static inline pdr_config fleet_config(void)
{
    pdr_config c;
    pdr_init_struct(&c, sizeof c);
    c.max_endpoints = 64;
    c.max_bookings = 512;
    c.max_held = 32;
    c.index_entries = 1 << 16;
    c.seed = 42;
    return c;
}

static inline uint32_t fleet_add(fleet *f, const char *name, const char *host, uint32_t port, uint32_t role)
{
    pdr_endpoint e;
    pdr_error    err;
    uint32_t     id;
    pdr_init_struct(&e, sizeof e);
    pdr_init_struct(&err, sizeof err);
    snprintf(e.name, sizeof e.name, "%s", name);
    snprintf(e.host, sizeof e.host, "%s", host);
    e.port = port;
    e.role = role;
    if (pdr_endpoint_put(f->r, &e, f->now, &id, &err)) fail_msg("%s", err.message);
    return id;
}

static inline void fleet_open(fleet *f, const pdr_config *config, int prefills, int decodes)
{
    pdr_error err;
    char      name[32], host[32];
    pdr_init_struct(&err, sizeof err);
    memset(f, 0, sizeof *f);
    f->now = 1000 * SECOND;
    size_t size = pdr_router_size(config);
    assert_true(size > 0);
    f->mem = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_non_null(f->mem);
    if (pdr_router_init(f->mem, size, config, 7, &f->r, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < prefills; i++) {
        snprintf(name, sizeof name, "p%d", i);
        snprintf(host, sizeof host, "10.0.0.%d", i + 1);
        f->prefill[i] = fleet_add(f, name, host, 8000, PDR_ROLE_PREFILL);
    }
    for (int i = 0; i < decodes; i++) {
        snprintf(name, sizeof name, "d%d", i);
        snprintf(host, sizeof host, "10.0.1.%d", i + 1);
        f->decode[i] = fleet_add(f, name, host, 8000, PDR_ROLE_DECODE);
    }
    assert_int_equal(pdr_lease_open(f->r, "test", f->now, &f->lease, NULL), PDR_OK);
}

/* Every test ends with a sound block. */
static inline void fleet_close(fleet *f)
{
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_router_check(f->r, &err)) fail_msg("check: %s", err.message);
    free(f->mem);
}

static inline pdr_request fleet_request(const fleet *f)
{
    pdr_request q;
    pdr_init_struct(&q, sizeof q);
    q.api = PDR_API_CHAT;
    q.lease = f->lease;
    q.now_ns = f->now;
    return q;
}

/* A prompt of so many exact tokens with a made-up chain: sequence `s`, `blocks` blocks of which the first `shared` are common to all. */
static inline pdr_prompt fleet_prompt(uint64_t tokens, uint32_t s, uint32_t shared, uint64_t *hashes, uint32_t blocks)
{
    pdr_prompt p;
    pdr_init_struct(&p, sizeof p);
    p.api = PDR_API_CHAT;
    p.flags = PDR_PROMPT_TOKENS;
    p.batch = p.samples = 1;
    p.prompt_tokens = tokens;
    p.blocks = blocks;
    for (uint32_t i = 0; i < blocks; i++)
        hashes[i] = i < shared ? (i + 1) * 0x9E3779B97F4A7C15u : ((uint64_t)(s + 1) << 32 | i) * 0xD6E8FEB86659FD93u;
    return p;
}

static inline int fleet_route(fleet *f, uint64_t tokens, uint32_t s, uint32_t flags, pdr_decision *d)
{
    uint64_t    hashes[4096];
    uint32_t    blocks = (uint32_t)(tokens / 128);
    pdr_prompt  p = fleet_prompt(tokens, s, 0, hashes, blocks);
    pdr_request q = fleet_request(f);
    q.flags = flags;
    pdr_init_struct(d, sizeof *d);
    return pdr_route_prompt(f->r, &p, hashes, blocks, &q, d, NULL);
}

static inline pdr_stats fleet_stats(const fleet *f)
{
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    pdr_stats_get(f->r, &s);
    return s;
}

static inline pdr_target_status fleet_target(const fleet *f, uint32_t endpoint)
{
    pdr_target_status s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_target_get(f->r, endpoint, 0, f->now, &s), PDR_OK);
    return s;
}

/* An event of an exchange's first attempt, of status 200. */
static inline void fleet_tell(const fleet *f, pdr_exchange *x, uint32_t type, uint32_t leg)
{
    pdr_action a[8];
    size_t     n = 8;
    pdr_event  ev;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.status = 200;
    ev.now_ns = f->now;
    assert_int_equal(pdr_exchange_event(f->r, x, &ev, a, &n), PDR_OK);
}

#endif
