/*
 * A damaged block: the input is a list of changes (region, place, byte) to a block full of state, made before it is attached or restored. Whatever was changed, attach, check and
 * restore answer with a named code and stay inside; what passes the check routes; what was restored passes the check. An odd first byte hands over the
 * rest as the whole block.
 */
#include "block.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #x, err.message);                                          \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint8_t  *good, *mem;
static size_t    bytes;
static pdr_error err;
static const uint64_t now = 1000000000000u;

static int route(pdr_router *r, uint32_t lease, uint64_t at, uint64_t tokens, pdr_decision *d)
{
    uint64_t    hash[8];
    pdr_prompt  p;
    pdr_request q;
    for (uint64_t i = 0; i < 8; i++) hash[i] = (i + 1 + (i > 4 ? tokens : 0)) * 0x9E3779B97F4A7C15u;
    pdr_init_struct(&p, sizeof p);
    p.api = PDR_API_CHAT;
    p.flags = PDR_PROMPT_TOKENS;
    p.batch = p.samples = 1;
    p.prompt_tokens = tokens;
    p.blocks = 8;
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(d, sizeof *d);
    q.api = PDR_API_CHAT;
    q.lease = lease;
    q.now_ns = at;
    return pdr_route_prompt(r, &p, hash, 8, &q, d, NULL);
}

static void make(void)
{
    pdr_config   c;
    pdr_router  *r;
    pdr_endpoint e;
    pdr_decision d;
    uint32_t     lease;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&c, sizeof c);
    c.max_endpoints = c.max_held = 6;
    c.max_targets = 8;
    c.max_bookings = 24;
    c.max_leases = 3;
    c.log_entries = 4;
    c.record_bytes = 65536;
    c.index_entries = 256;
    c.seed = 1;
    bytes = (pdr_router_size(&c) + 63) & ~(size_t)63;
    good = aligned_alloc(64, bytes);
    mem = aligned_alloc(64, bytes);
    if (!good || !mem) abort();
    CHECK(!pdr_router_init(good, bytes, &c, 7, &r, &err) && !pdr_lease_open(r, "a", now, &lease, &err));
    for (uint32_t i = 0; i < 5; i++) {
        pdr_init_struct(&e, sizeof e);
        snprintf(e.host, sizeof e.host, "10.0.0.%u", i);
        e.port = 80;
        e.role = i < 2 ? PDR_ROLE_PREFILL : i < 4 ? PDR_ROLE_DECODE : PDR_ROLE_BOTH;
        e.dp_size = i == 1 ? 2 : 0;
        CHECK(!pdr_endpoint_put(r, &e, now, NULL, &err));
    }
    for (uint32_t i = 0; i < 14; i++) (void)route(r, lease, now + i, 9000 + 700 * (i % 5), &d);
    CHECK(!pdr_router_check(r, &err));
}

static int told(int code) { return !code || (code < 0 && err.code == code && err.message[0]); }

static void use(pdr_router *r)
{
    pdr_decision d;
    pdr_stats    s;
    char         text[1 << 15];
    size_t       need;
    uint32_t     lease;
    pdr_init_struct(&s, sizeof s);
    (void)pdr_tick(r, now + 1000);
    if (pdr_lease_open(r, "b", now + 2000, &lease, NULL)) return;
    for (uint32_t i = 0; i < 4; i++)
        if (!route(r, lease, now + 3000, 5000 + i, &d) && d.outcome == PDR_SEND && i & 1) (void)pdr_booking_done(r, d.booking, PDR_DONE_ALL, now + 4000);
    (void)pdr_status_json(r, now, text, sizeof text, &need);
    (void)pdr_lease_break(r, lease, now + 5000);
    CHECK(!pdr_router_check(r, &err));
}

static void damage(const uint8_t *data, size_t size)
{
    memcpy(mem, good, bytes);
    const struct pdr_router *r = (const struct pdr_router *)(const void *)good;
    for (; size >= 4; data += 4, size -= 4) {
        uint32_t region = data[0] % (PDR_REGION_END + 1u);
        size_t   from = region == PDR_REGION_END ? 0 : r->offset[region], at = from + (data[1] | (size_t)data[2] << 8);
        size_t   lock = offsetof(struct pdr_router, lock);
        if (at >= bytes || (at >= lock && at < lock + sizeof r->lock)) continue; /* the mutex is the C library's own */
        mem[at] = data[3];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_router *r;
    if (!good) make();
    pdr_init_struct(&err, sizeof err);
    if (!size) return 0;
    if (data[0] & 1) {
        size_t   n = size - 1;
        uint8_t *all = aligned_alloc(64, (n + 64) & ~(size_t)63);
        if (!all) return 0;
        memcpy(all, data + 1, n);
        CHECK(told(pdr_router_attach(all, n, NULL, 7, &r, &err)));
        CHECK(told(pdr_router_restore(all, n, 8, 99, &r, &err)));
        free(all);
        return 0;
    }
    damage(data + 1, size - 1);
    int code = pdr_router_attach(mem, bytes, NULL, 7, &r, &err);
    CHECK(told(code));
    if (!code) {
        code = pdr_router_check(r, &err);
        CHECK(told(code));
    }
    damage(data + 1, size - 1);
    code = pdr_router_restore(mem, bytes, 8, 99, &r, &err);
    CHECK(told(code));
    if (code) return 0;
    CHECK(!pdr_router_check(r, &err));
    use(r);
    return 0;
}
