/* The block's life: sizes, refusals, attaching, restoring, repairing, threads, no allocation on the request path. */
#include "fleet.h"

#include "block.h"
#include "ledger.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- a block says why it cannot be used */

static void refusals_name_the_reason(void **state)
{
    (void)state;
    pdr_config  c = fleet_config(), other = fleet_config();
    pdr_error   err;
    pdr_router *r;
    fleet       f;
    pdr_init_struct(&err, sizeof err);
    size_t size = pdr_router_size(&c);
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(pdr_router_attach(f.mem, size, &c, 7, &r, &err), PDR_OK);
    assert_ptr_equal(r, f.r);
    assert_int_equal(pdr_router_attach(f.mem, size, NULL, 8, &r, &err), PDR_E_BLOCK_BOOT);
    assert_int_equal(pdr_router_attach(f.mem, size - 64, NULL, 7, &r, &err), PDR_E_BLOCK_LAYOUT);
    assert_non_null(strstr(err.message, "cut off"));
    other.max_held = 33;
    assert_int_equal(pdr_router_attach(f.mem, size, &other, 7, &r, &err), PDR_E_BLOCK_CONFIG);
    assert_non_null(strstr(err.message, "max_held is 32 there, 33 here"));
    other = c;
    strcpy(other.tenant_header, "x-tenant-2");
    assert_int_equal(pdr_router_attach(f.mem, size, &other, 7, &r, &err), PDR_E_BLOCK_CONFIG);
    assert_non_null(strstr(err.message, "\"\" there, \"x-tenant-2\" here"));
    other = c;
    other.policy = PDR_POLICY_LEAST_TOKENS; /* words, as in a document */
    other.max_held = 0;
    assert_int_equal(pdr_router_attach(f.mem, size, &other, 7, &r, &err), PDR_E_BLOCK_CONFIG);
    assert_non_null(strstr(err.message, "policy is default there, least_tokens here"));
    other = c;
    other.seed = 1; /* seeds may differ */
    assert_int_equal(pdr_router_attach(f.mem, size, &other, 7, &r, &err), PDR_OK);
    f.r->layout++;
    assert_int_equal(pdr_router_attach(f.mem, size, NULL, 7, &r, &err), PDR_E_BLOCK_LAYOUT);
    f.r->layout--;
    f.r->config.max_held = 31;
    assert_int_equal(pdr_router_attach(f.mem, size, NULL, 7, &r, &err), PDR_E_BLOCK_CORRUPT);
    f.r->config.max_held = 32;
    f.r->ready = 0;
    assert_int_equal(pdr_router_attach(f.mem, size, NULL, 7, &r, &err), PDR_E_BLOCK_CORRUPT);
    f.r->ready = 0x52454459;
    f.r->magic[0] ^= 1;
    assert_int_equal(pdr_router_attach(f.mem, size, NULL, 7, &r, &err), PDR_E_BLOCK_MAGIC);
    f.r->magic[0] ^= 1;
    assert_int_equal(pdr_router_init(f.mem, size - 1, &c, 7, &r, &err), PDR_E_NOSPACE);
    assert_int_equal(pdr_router_init((char *)f.mem + 8, size, &c, 7, &r, &err), PDR_E_INVALID);
    for (int i = 0; i < 3; i++) {
        int none = i == 0   ? pdr_router_init(f.mem, size, &c, 7, NULL, &err)
                   : i == 1 ? pdr_router_attach(f.mem, size, NULL, 7, NULL, &err)
                            : pdr_router_restore(f.mem, size, 8, 1, NULL, &err);
        assert_int_equal(none, PDR_E_INVALID);
        assert_string_equal(err.message, "where to put the router (out) is NULL");
    }
    c.max_bookings = 1 << 25;
    assert_int_equal(pdr_router_size(&c), 0);
    fleet_close(&f);
}

/* Any byte of the header changed: refused, or harmless; never believed into a crash. */
static void header_bytes_flipped(void **state)
{
    (void)state;
    pdr_config  c = fleet_config();
    pdr_router *r;
    fleet       f;
    size_t      size = pdr_router_size(&c), header = offsetof(struct pdr_router, lock), refused = 0;
    fleet_open(&f, &c, 2, 2);
    for (size_t i = 0; i < header; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            ((unsigned char *)f.mem)[i] ^= (unsigned char)(1 << bit);
            refused += pdr_router_attach(f.mem, size, NULL, 7, &r, NULL) != PDR_OK;
            ((unsigned char *)f.mem)[i] ^= (unsigned char)(1 << bit);
        }
    assert_true(refused > header * 2); /* most of it is checked; what is not is the seed and padding */
    fleet_close(&f);
}

static void restore_keeps_what_was_learnt(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision first, d;
    pdr_router  *r;
    fleet        f;
    size_t       size = pdr_router_size(&c);
    fleet_open(&f, &c, 4, 2);
    assert_int_equal(fleet_route(&f, 5120, 1, 0, &first), PDR_OK); /* never ended: the machine went down */
    char *copy = aligned_alloc(64, (size + 63) & ~(size_t)63);
    memcpy(copy, f.mem, size);
    fleet_close(&f);
    assert_int_equal(pdr_router_attach(copy, size, &c, 8, &r, NULL), PDR_E_BLOCK_BOOT);
    assert_int_equal(pdr_router_restore(copy, size, 8, 99, &r, NULL), PDR_OK);
    f.mem = copy;
    f.r = r;
    f.now = SECOND; /* another boot's clock */
    assert_int_equal(fleet_stats(&f).bookings, 0);
    assert_int_equal(fleet_route(&f, 5120, 1, 0, &d), PDR_E_LEASE);
    assert_int_equal(pdr_lease_open(r, "after", f.now, &f.lease, NULL), PDR_OK);
    assert_int_equal(fleet_route(&f, 5120, 1, 0, &d), PDR_OK);
    assert_int_equal(d.prefill, first.prefill);
    assert_int_equal(d.matched_tokens, 5119);
    assert_int_not_equal(d.room, first.room);
    fleet_close(&f);
}

static void position_does_not_matter(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision a, b;
    fleet        f, g;
    size_t       size = pdr_router_size(&c);
    fleet_open(&f, &c, 4, 2);
    assert_int_equal(fleet_route(&f, 5120, 1, 0, &a), PDR_OK);
    g = f;
    g.mem = aligned_alloc(64, (size + 63) & ~(size_t)63);
    memcpy(g.mem, f.mem, size);
    g.r = g.mem;
    for (uint32_t s = 0; s < 50; s++) {
        assert_int_equal(fleet_route(&f, 2000 + s * 100, s, PDR_REQUEST_NO_HOLD, &a), PDR_OK);
        assert_int_equal(fleet_route(&g, 2000 + s * 100, s, PDR_REQUEST_NO_HOLD, &b), PDR_OK);
        assert_memory_equal(&a, &b, sizeof a);
    }
    fleet_close(&f);
    fleet_close(&g);
}

/* ---- no allocation on the request path */

#if defined(__SANITIZE_THREAD__)
#define COUNTS_ALLOCATIONS 0 /* its runtime does not bear another malloc */
#else
#define COUNTS_ALLOCATIONS 1
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTS_ALL 0 /* calloc is called before its runtime is there */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTS_ALL 0
#endif
#endif
#ifndef COUNTS_ALL
#define COUNTS_ALL 1
#endif
static unsigned long allocations;
#if COUNTS_ALLOCATIONS
__attribute__((visibility("default"))) void *malloc(size_t n)
{
    static void *(*real)(size_t);
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "malloc");
        memcpy(&real, &symbol, sizeof real);
    }
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    return real(n);
}
#endif
#if COUNTS_ALL
__attribute__((visibility("default"))) void *realloc(void *p, size_t n)
{
    static void *(*real)(void *, size_t);
    if (!real) {
        void *symbol = dlsym(RTLD_NEXT, "realloc");
        memcpy(&real, &symbol, sizeof real);
    }
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    return real(p, n);
}
/* calloc by malloc: dlsym itself may call it */
__attribute__((visibility("default"))) void *calloc(size_t n, size_t size)
{
    size_t all;
    void  *p = __builtin_mul_overflow(n, size, &all) ? NULL : malloc(all);
    __asm__ volatile("" : "+r"(p)); /* else the compiler makes a calloc of it */
    return p ? memset(p, 0, all) : NULL;
}
#endif

/* Requests that wait: held, looked at, released when others end, taken, given up. */
static void holding(fleet *f)
{
    uint64_t     tickets[16], sent[64];
    size_t       n, running = 0;
    pdr_decision d;
    pdr_place    place;
    if (pdr_lease_renew(f->r, f->lease, f->now)) abort();
    for (uint32_t s = 0; s < 24; s++) {
        f->now += MS;
        if (fleet_route(f, 20000, s, 0, &d)) abort();
        if (d.outcome == PDR_SEND) {
            sent[running++] = d.booking;
        } else {
            pdr_init_struct(&place, sizeof place);
            if (pdr_ticket_place(f->r, d.booking, f->now, &place, NULL)) abort();
            if (s % 5 == 4 && pdr_ticket_cancel(f->r, d.booking, f->now)) abort();
        }
    }
    while (running) {
        f->now += SECOND;
        running--;
        pdr_booking_done(f->r, sent[running], PDR_DONE_PREFILL, f->now);
        if (pdr_booking_done(f->r, sent[running], PDR_DONE_ALL, f->now)) abort();
        if (pdr_lease_renew(f->r, f->lease, f->now) || pdr_tick(f->r, f->now)) abort();
        n = 16;
        if (pdr_released(f->r, f->lease, tickets, &n)) abort();
        for (size_t i = 0; i < n; i++) {
            pdr_init_struct(&d, sizeof d);
            if (!pdr_ticket_take(f->r, tickets[i], NULL, 0, f->now, &d, NULL)) sent[running++] = d.booking;
        }
    }
}

/* A prefill refuses its connection: another pair, by the same exchange. */
static void retrying(fleet *f)
{
    uint64_t     hashes[8];
    pdr_prompt   p = fleet_prompt(1000, 77, 0, hashes, 7);
    pdr_request  q = fleet_request(f);
    pdr_decision d;
    pdr_exchange x;
    pdr_event    ev;
    pdr_action   act[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&x, sizeof x);
    pdr_init_struct(&ev, sizeof ev);
    if (pdr_route_prompt(f->r, &p, hashes, 7, &q, &d, NULL) || d.outcome != PDR_SEND) abort();
    if (pdr_exchange_begin(f->r, &x, &d, f->lease, f->now, act, &n)) abort();
    ev.type = PDR_EV_FAILED;
    ev.detail = PDR_FAIL_CONNECT;
    ev.now_ns = f->now;
    n = PDR_MAX_ACTIONS;
    if (pdr_exchange_event(f->r, &x, &ev, act, &n) || !n || act[n - 1].type != PDR_ACT_ROUTE) abort();
    q.excluded = x.excluded;
    memcpy(q.exclude, x.exclude, sizeof q.exclude);
    if (pdr_route_prompt(f->r, &p, hashes, 7, &q, &d, NULL)) abort();
    n = PDR_MAX_ACTIONS;
    if (pdr_exchange_rerouted(f->r, &x, &d, PDR_OK, f->now, act, &n) || x.attempt != 1) abort();
    ev.type = PDR_EV_CLIENT_GONE;
    n = PDR_MAX_ACTIONS;
    if (pdr_exchange_event(f->r, &x, &ev, act, &n)) abort();
}

/* return_logprob: prefill's answer goes into decode's. */
static void merging(void)
{
    static const char body[] = "{\"text\":\"a\",\"return_logprob\":true}", prefill[] = "{\"meta_info\":{\"input_token_logprobs\":[1,2]}}",
                      decode[] = "{\"meta_info\":{\"input_token_logprobs\":[]}}";
    char         out[256];
    size_t       need;
    pdr_prompt   p;
    pdr_decision d;
    pdr_merge    m;
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&m, sizeof m);
    if (pdr_scan(body, sizeof body - 1, PDR_API_GENERATE, NULL, &p, NULL, 0, NULL) || !pdr_merge_wanted(&d, &p)) abort();
    pdr_merge_init(&m, PDR_API_GENERATE, PDR_RESPONSE_JSON);
    if (pdr_merge_text(&m, prefill, sizeof prefill - 1, decode, sizeof decode - 1, out, sizeof out, &need) || !memmem(out, need, "[1,2]", 5)) abort();
}

static void request_path_never_allocates(void **state)
{
    (void)state;
    static char  body[200000], out[220000];
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_prompt   p;
    pdr_action   act[PDR_MAX_ACTIONS];
    pdr_exchange x;
    pdr_event    ev;
    pdr_response resp;
    fleet        f;
    size_t       need, n;
    fleet_open(&f, &c, 4, 2);
    int len = snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    memset(body + len, 'x', 150000);
    strcpy(body + len + 150000, "\"}],\"stream\":true}");
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&p, sizeof p);
    pdr_request   q = fleet_request(&f);
    unsigned long before = __atomic_load_n(&allocations, __ATOMIC_RELAXED);
    for (int i = 0; i < 20; i++) {
        q.now_ns = f.now += SECOND;
        if (pdr_route(f.r, body, strlen(body), &q, &p, &d, NULL)) abort();
        if (pdr_rewrite(&d, &p, PDR_LEG_DECODE, body, strlen(body), out, sizeof out, &need)) abort();
        pdr_init_struct(&x, sizeof x);
        pdr_init_struct(&ev, sizeof ev);
        n = PDR_MAX_ACTIONS;
        if (pdr_exchange_begin(f.r, &x, &d, f.lease, f.now, act, &n)) abort();
        for (int leg = 0; leg < 2; leg++)
            for (uint32_t type = PDR_EV_HEAD; type <= PDR_EV_END; type++) {
                ev.type = type;
                ev.leg = (uint32_t)leg;
                ev.status = 200;
                ev.now_ns = f.now;
                n = PDR_MAX_ACTIONS;
                if (pdr_exchange_event(f.r, &x, &ev, act, &n)) abort();
            }
        pdr_response_init(&resp, PDR_RESPONSE_SSE);
        pdr_response_feed(&resp, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n", 61);
    }
    holding(&f);
    retrying(&f);
    merging();
    assert_int_equal(__atomic_load_n(&allocations, __ATOMIC_RELAXED) - before, 0);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    assert_int_equal(fleet_stats(&f).finished, 20);
    assert_true(fleet_stats(&f).held > 4 && fleet_stats(&f).released > 2 && fleet_stats(&f).cancelled > 0 && fleet_stats(&f).retried == 1);
    fleet_close(&f);
    char *volatile counted = malloc(1);
    char *volatile grown = COUNTS_ALL ? realloc(counted, 2) : counted;
    char *volatile cleared = COUNTS_ALL ? calloc(1, 1) : NULL;
    free(grown);
    free(cleared);
    if (COUNTS_ALLOCATIONS) assert_int_equal(__atomic_load_n(&allocations, __ATOMIC_RELAXED) - before, COUNTS_ALL ? 3 : 1); /* the counter counts */
}

/* ---- threads */

enum { THREADS = 4, ROUNDS = 3000 };

static void *hammer(void *arg)
{
    fleet        f = *(fleet *)arg; /* own copy: same router */
    uint64_t     tickets[8];
    pdr_decision d;
    unsigned     mine = (unsigned)(uintptr_t)&f;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        f.now += MS;
        int code = fleet_route(&f, 500 + (i * 7919u + mine) % 9000, (i + mine) % 50, i % 3 ? PDR_REQUEST_NO_HOLD : 0, &d);
        if (code == PDR_OK && d.outcome == PDR_SEND) {
            pdr_booking_done(f.r, d.booking, PDR_DONE_PREFILL, f.now);
            if (i % 7 == 0) pdr_endpoint_health(f.r, f.prefill[i % 4], i % 2, f.now, NULL);
            pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
        } else if (code == PDR_OK) {
            size_t n = 8;
            pdr_released(f.r, f.lease, tickets, &n);
            for (size_t k = 0; k < n; k++) {
                pdr_init_struct(&d, sizeof d);
                if (pdr_ticket_take(f.r, tickets[k], NULL, 0, f.now, &d, NULL) == PDR_OK) pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
            }
            if (i % 2) pdr_ticket_cancel(f.r, d.booking, f.now);
        }
        if (i % 50 == 0) pdr_tick(f.r, f.now);
    }
    return NULL;
}

static void threads_share_a_router(void **state)
{
    (void)state;
    pdr_config c = fleet_config();
    pthread_t  t[THREADS];
    fleet      f;
    fleet_open(&f, &c, 4, 3);
    for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&t[i], NULL, hammer, &f), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    assert_int_equal(pdr_lease_break(f.r, f.lease, f.now), PDR_OK);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    fleet_close(&f);
}

typedef struct {
    fleet    f;
    uint64_t booking;
    int      held, code;
} owing;

static void *ends_without_the_lock(void *arg)
{
    owing *o = arg;
    while (!__atomic_load_n(&o->held, __ATOMIC_RELAXED)) sched_yield();
    o->code = pdr_booking_done(o->f.r, o->booking, PDR_DONE_ALL, o->f.now);
    return NULL;
}

/* What ends a booking while another has the lock reads nothing that the other writes. (ThreadSanitizer looks; the flag orders nothing for it.) */
static void an_end_beside_a_holder_is_no_race(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_books    b;
    pthread_t    t;
    owing        o = {.held = 0};
    fleet_open(&o.f, &c, 1, 1);
    assert_int_equal(fleet_route(&o.f, 1, 3, 0, &d), PDR_OK);
    o.booking = d.booking;
    assert_int_equal(pthread_create(&t, NULL, ends_without_the_lock, &o), 0);
    assert_int_equal(pdr_books_take(&b, o.f.r, o.f.now + MS), PDR_OK); /* writes the clock */
    __atomic_store_n(&o.held, 1, __ATOMIC_RELAXED);
    pthread_join(t, NULL);
    assert_int_equal(pdr_books_unlock(&b, PDR_OK, NULL), PDR_OK);
    assert_int_equal(o.code, PDR_OK); /* owed */
    assert_int_equal(pdr_tick(o.f.r, o.f.now + 2 * MS), PDR_OK);
    assert_int_equal(fleet_stats(&o.f).bookings, 0);
    fleet_close(&o.f);
}

/* ---- a process that dies inside a call */

static void a_death_under_the_lock_is_repaired(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision d;
    pdr_books    b;
    fleet        f;
    size_t       size = pdr_router_size(&c);
    if (getenv("PDR_TEST_EMULATED")) { /* qemu-user has no robust lists: nobody is told of a dead owner */
        puts("SKIP test_block: a death under the lock, which the emulator's kernel interface cannot report");
        skip();
    }
    f.now = 0;
    fleet_open(&f, &c, 3, 2);
    void *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    free(f.mem);
    f.mem = shared;
    assert_int_equal(pdr_router_init(shared, size, &c, 7, &f.r, NULL), PDR_OK);
    for (int i = 0; i < 3; i++) fleet_add(&f, (const char *[]){"a", "b", "c"}[i], (const char *[]){"10.0.0.1", "10.0.0.2", "10.0.0.3"}[i], 80, i < 2 ? 1 : 2);
    assert_int_equal(pdr_lease_open(f.r, "t", f.now, &f.lease, NULL), PDR_OK);
    assert_int_equal(fleet_route(&f, 1000, 1, 0, &d), PDR_OK);
    for (int how = 0; how < 4; how++) {
        pid_t pid = fork();
        if (pid == 0) { /* dies with the lock held and the books torn */
            if (pdr_books_take(&b, f.r, f.now)) _exit(1);
            pdr_booking *k = pdr_booking_new(&b.ledger, 0);
            if (how == 1) b.registry.targets[0].work_us = 12345, b.registry.targets[1].d_requests = 77;
            if (how == 2) b.ledger.leases[0].first = 3, b.ledger.head->free_first = 1;
            if (how == 3) k->state = PDR_BOOKING_READY, k->prefill = 60000;
            raise(SIGKILL);
        }
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
        assert_int_equal(fleet_stats(&f).lock_recoveries, (uint64_t)how + 1);
        assert_int_equal(fleet_stats(&f).bookings, 1); /* the sound one */
    }
    pdr_booking_done(f.r, d.booking, PDR_DONE_ALL, f.now);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    munmap(shared, size);
}

/* Who dies just after a release's state has become a refusal leaves one that names no server: the servers may go, and its owner still hears of it. */
static void a_death_while_a_place_is_taken_back_leaves_nothing_named(void **state)
{
    (void)state;
    pdr_config   c = fleet_config();
    pdr_decision first, d;
    pdr_books    b;
    fleet        f;
    size_t       size = pdr_router_size(&c), n = 2;
    uint64_t     ids[2], computed[32];
    int          many = 0;
    if (getenv("PDR_TEST_EMULATED")) {
        puts("SKIP test_block: a death while a place is taken back, which the emulator's kernel interface cannot report");
        skip();
    }
    fleet_open(&f, &c, 1, 1);
    assert_int_equal(fleet_route(&f, 1000, 1, PDR_REQUEST_NO_HOLD, &first), PDR_OK);
    for (uint32_t i = 2; fleet_route(&f, 1000, i, 0, &d) == PDR_OK && d.outcome != PDR_HELD; i++) {
        assert_true(many < 32);
        computed[many++] = d.booking;
    }
    assert_int_equal(d.outcome, PDR_HELD);
    pdr_booking_done(f.r, first.booking, PDR_DONE_ALL, f.now);
    for (int i = 0; i < many; i++) pdr_booking_done(f.r, computed[i], PDR_DONE_ALL, f.now);
    assert_int_equal(pdr_tick(f.r, f.now), PDR_OK);
    void *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    memcpy(shared, f.mem, size); /* it means the same wherever it lies */
    f.r = (pdr_router *)((char *)shared + ((char *)f.r - (char *)f.mem));
    free(f.mem);
    pid_t pid = fork();
    if (pid == 0) {
        if (pdr_books_take(&b, f.r, f.now)) _exit(1);
        pdr_booking *k = pdr_booking_at(&b.ledger, d.booking);
        if (!k || k->state != PDR_BOOKING_READY || k->prefill == PDR_NONE || k->decode == PDR_NONE) _exit(2);
        k->refusal = PDR_E_NOT_FOUND; /* pdr_booking_withdraw() comes so far */
        k->ready_ns = f.now;
        k->state = PDR_BOOKING_REFUSED;
        raise(SIGKILL);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    assert_int_equal(fleet_stats(&f).lock_recoveries, 1);
    assert_int_equal(pdr_endpoint_remove(f.r, f.prefill[0], NULL), PDR_OK);
    assert_int_equal(pdr_endpoint_remove(f.r, f.decode[0], NULL), PDR_OK);
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK); /* it says if somebody names a server that is gone */
    pid = fork();
    if (pid == 0) { /* a second death, and who names such a server is dropped, with the ticket */
        if (pdr_books_take(&b, f.r, f.now)) _exit(1);
        raise(SIGKILL);
    }
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    assert_int_equal(pdr_released(f.r, f.lease, ids, &n), PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(ids[0], d.booking);
    assert_int_equal(pdr_ticket_take(f.r, d.booking, NULL, 0, f.now, &d, NULL), PDR_E_NOT_FOUND);
    assert_int_equal(fleet_stats(&f).bookings, 0);
    assert_int_equal(pdr_router_check(f.r, NULL), PDR_OK);
    munmap(shared, size);
}

static void a_stopped_holder_blocks_nobody_for_long(void **state)
{
    (void)state;
    pdr_config      c = fleet_config();
    pdr_books       b;
    pdr_router     *r;
    struct timespec t0, t1;
    int             ready[2];
    char            byte;
    size_t          size = pdr_router_size(&c);
    void           *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    assert_int_equal(pdr_router_init(shared, size, &c, 7, &r, NULL), PDR_OK);
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a stopped process would stay for ever */
        if (pdr_books_take(&b, r, 0)) _exit(1);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        raise(SIGSTOP);
        (void)pdr_books_unlock(&b, 0, NULL);
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid); /* it has stopped: what continues it does not come too early */
    clock_gettime(CLOCK_MONOTONIC, &t0);
    assert_int_equal(pdr_tick(r, 1), PDR_E_BUSY);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    assert_in_range(t1.tv_sec - t0.tv_sec, 1, 60); /* two seconds of sleeping, which a busy machine makes more of */
    kill(pid, SIGCONT);
    waitpid(pid, NULL, 0);
    assert_int_equal(pdr_tick(r, 1), PDR_OK);
    munmap(shared, size);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals_name_the_reason),
        cmocka_unit_test(header_bytes_flipped),
        cmocka_unit_test(restore_keeps_what_was_learnt),
        cmocka_unit_test(position_does_not_matter),
        cmocka_unit_test(request_path_never_allocates),
        cmocka_unit_test(threads_share_a_router),
        cmocka_unit_test(an_end_beside_a_holder_is_no_race),
        cmocka_unit_test(a_death_under_the_lock_is_repaired),
        cmocka_unit_test(a_death_while_a_place_is_taken_back_leaves_nothing_named),
        cmocka_unit_test(a_stopped_holder_blocks_nobody_for_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
