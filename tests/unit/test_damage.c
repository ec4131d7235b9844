/*
 * A block with damage: every byte of a block full of state is changed, one at a time and in three ways, and it is cut off at every length. Attach, check and
 * restore read such a block without leaving it (AddressSanitizer watches under its label), without a hang, and what they let pass is sound:
 * a restored block passes the check and routes.
 */
#include "fleet.h"

#include "block.h"

static pdr_config tiny_config(void)
{
    pdr_config c = fleet_config();
    c.max_endpoints = 6;
    c.max_targets = 8;
    c.max_bookings = 24;
    c.max_leases = 3;
    c.max_held = 6;
    c.log_entries = 4;
    c.record_bytes = 65536;
    c.index_entries = 1024;
    return c;
}

/* Endpoints of all kinds, bookings in every state, held requests, two leases, an index with branches, a log. */
static void fill(fleet *f)
{
    pdr_config    c = tiny_config();
    pdr_decision  d;
    pdr_endpoint  e;
    uint32_t      other, id;
    fleet_open(f, &c, 2, 2);
    id = fleet_add(f, "both", "10.0.3.1", 8000, PDR_ROLE_BOTH);
    pdr_init_struct(&e, sizeof e);
    snprintf(e.name, sizeof e.name, "ranks");
    snprintf(e.host, sizeof e.host, "10.0.3.2");
    snprintf(e.topology_rack, sizeof e.topology_rack, "r1");
    e.port = 8000;
    e.role = PDR_ROLE_PREFILL;
    e.dp_size = 2;
    assert_int_equal(pdr_endpoint_put(f->r, &e, f->now, &id, NULL), PDR_OK);
    assert_int_equal(pdr_lease_open(f->r, "other", f->now, &other, NULL), PDR_OK);
    for (uint32_t i = 0; i < 14; i++) {
        int code = fleet_route(f, 9000 + 700 * i, i % 5, 0, &d);
        assert_true(code == PDR_OK || code == PDR_E_FULL || code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL);
        if (!code && d.outcome == PDR_SEND && i % 3 == 1) pdr_booking_done(f->r, d.booking, PDR_DONE_PREFILL, f->now);
        f->now += 5 * MS;
    }
    assert_true(fleet_stats(f).held > 0);
    assert_int_equal(pdr_endpoint_remove(f->r, f->decode[1], NULL), PDR_OK); /* leaving, as it has bookings */
}

static int sound_or_told(int code, const pdr_error *err) { return !code || (code < 0 && err->code == code && *err->message); }

/* Large regions whose bytes are alike: the index's table, recorded frames. */
static size_t stride(const pdr_router *r, size_t at)
{
    if (at >= r->offset[PDR_REGION_INDEX] + 8192 && at < r->offset[PDR_REGION_INDEX + 1]) return 7;
    return at >= r->offset[PDR_REGION_FRAMES] && at < r->offset[PDR_REGION_FRAMES + 1] ? 997 : 1;
}

static void any_byte_may_be_wrong(void **state)
{
    static const unsigned char how[] = {0xFF, 0x01, 0x80};
    fleet       f;
    pdr_router *r;
    pdr_error   err;
    pdr_decision d;
    size_t      size, lock_at = offsetof(struct pdr_router, lock), attached = 0, found = 0, restored = 0, step = getenv("PDR_TEST_EMULATED") ? 13 : 1;
    (void)state;
    fill(&f);
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    size = f.r->size;
    unsigned char *good = malloc(size), *mem = aligned_alloc(64, (size + 63) & ~(size_t)63);
    assert_true(good && mem);
    memcpy(good, f.mem, size);
    for (size_t at = 0, tries = 0; at < size; at += step * stride(f.r, at), tries++) {
        if (at >= lock_at && at < lock_at + sizeof(pdr_lock)) continue; /* the C library's own */
        unsigned char change = how[tries % sizeof how];
        memcpy(mem, good, size);
        mem[at] ^= change;
        pdr_init_struct(&err, sizeof err);
        int code = pdr_router_attach(mem, size, NULL, 7, &r, &err);
        if (!sound_or_told(code, &err)) fail_msg("byte %zu ^ %#x: attach %d \"%s\"", at, change, code, err.message);
        if (!code) {
            attached++;
            code = pdr_router_check(r, &err);
            if (!sound_or_told(code, &err)) fail_msg("byte %zu ^ %#x: check %d \"%s\"", at, change, code, err.message);
            found += code != PDR_OK;
        }
        memcpy(mem, good, size);
        mem[at] ^= change;
        code = pdr_router_restore(mem, size, 8, 99, &r, &err);
        if (!sound_or_told(code, &err)) fail_msg("byte %zu ^ %#x: restore %d \"%s\"", at, change, code, err.message);
        if (!code) {
            fleet g = f;
            restored++;
            if (pdr_router_check(r, &err)) fail_msg("byte %zu ^ %#x: restored, but %s", at, change, err.message);
            g.r = r;
            g.mem = mem;
            if (pdr_lease_open(r, "new", f.now, &g.lease, NULL)) continue;
            fleet_route(&g, 9000, 1, 0, &d);
            if (pdr_router_check(r, &err)) fail_msg("byte %zu ^ %#x: restored and routed, but %s", at, change, err.message);
        }
    }
    print_message("%zu bytes: %zu attached, %zu of these found damaged, %zu restored\n", size, attached, found, restored);
    assert_true(attached > size / 20 / step && found > 1000 / step && restored > size / 20 / step);
    free(mem);
    free(good);
    fleet_close(&f);
}

static void cut_off_anywhere(void **state)
{
    fleet       f;
    pdr_router *r;
    pdr_error   err;
    (void)state;
    fill(&f);
    size_t size = f.r->size;
    for (size_t n = 0; n < size; n += n < 4096 ? 1 : 997) {
        void *mem = aligned_alloc(64, (n + 127) & ~(size_t)63); /* not a byte more than to the next line */
        assert_non_null(mem);
        memcpy(mem, f.mem, n);
        pdr_init_struct(&err, sizeof err);
        assert_int_not_equal(pdr_router_attach(mem, n, NULL, 7, &r, &err), PDR_OK);
        assert_string_not_equal(err.message, "");
        assert_int_not_equal(pdr_router_restore(mem, n, 8, 99, &r, &err), PDR_OK);
        free(mem);
    }
    fleet_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_byte_may_be_wrong),
        cmocka_unit_test(cut_off_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
