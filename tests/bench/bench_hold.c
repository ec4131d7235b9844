/*
 * What the queue costs: an arrival that is held, and a completion that lets one go, with so many endpoints (half prefill, half decode, all busy) and so many held
 * requests of all sizes; the same where topology is known. Prints JSON lines {"name","ns","note"}: CPU time of this thread per call, median of batches.
 *   bench_hold [PREFIX]        rows of that name
 *   bench_hold --once NAME     a few calls of that one, for counting instructions
 */
#include "pdroute/pdroute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCKS = 64, BATCH = 16, BATCHES = 101, RING = 262144 };

typedef struct bench {
    pdr_router *r;
    uint32_t    lease;
    uint64_t    now, random;
    uint64_t   *running; /* in prefill, oldest first */
    uint32_t    first, n;
} bench;

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t draw(bench *b)
{
    b->random = b->random * 6364136223846793005u + 1442695040888963407u;
    return b->random >> 20;
}

static void check(int code, const pdr_error *err)
{
    if (!code) return;
    fprintf(stderr, "%s\n", err->message);
    abort();
}

static void push(bench *b, uint64_t booking) { b->running[(b->first + b->n++) % RING] = booking; }

/* Conversations of their own, of 128 to 32,000 tokens. */
static uint32_t arrive(bench *b)
{
    uint64_t     hashes[BLOCKS];
    pdr_prompt   p;
    pdr_request  q;
    pdr_decision d;
    pdr_error    err;
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&err, sizeof err);
    p.api = q.api = PDR_API_GENERATE;
    p.flags = PDR_PROMPT_TOKENS;
    p.batch = p.samples = 1;
    p.prompt_tokens = 128 + draw(b) % (BLOCKS * 128) * (draw(b) % 4 ? 1 : 4);
    p.blocks = (uint32_t)(p.prompt_tokens / 128 < BLOCKS ? p.prompt_tokens / 128 : BLOCKS);
    uint64_t talk = draw(b) % 5000 + 1;
    for (uint32_t i = 0; i < p.blocks; i++) hashes[i] = (talk << 20 | i) * 0x9E3779B97F4A7C15u;
    q.lease = b->lease;
    q.now_ns = b->now += 1000;
    check(pdr_route_prompt(b->r, &p, hashes, p.blocks, &q, &d, &err), &err);
    if (d.outcome == PDR_SEND) push(b, d.booking);
    return d.outcome;
}

/* The owners fetch what was released; that is not part of what is measured. */
static void fetch(bench *b)
{
    uint64_t     tickets[64];
    size_t       n;
    pdr_decision d;
    do {
        n = 64;
        if (pdr_released(b->r, b->lease, tickets, &n)) abort();
        for (size_t i = 0; i < n; i++) {
            pdr_init_struct(&d, sizeof d);
            if (pdr_ticket_take(b->r, tickets[i], NULL, 0, b->now, &d, NULL)) abort();
            push(b, d.booking);
        }
    } while (n);
}

static void complete(bench *b)
{
    b->n--;
    b->now += 1000;
    if (pdr_booking_done(b->r, b->running[b->first++ % RING], PDR_DONE_PREFILL, b->now)) abort();
}

static void open_bench(bench *b, uint32_t endpoints, uint32_t held, int topology)
{
    pdr_config   c;
    pdr_endpoint e;
    pdr_error    err;
    memset(b, 0, sizeof *b);
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&c, sizeof c);
    c.seed = 1;
    c.max_endpoints = endpoints;
    c.max_bookings = RING;
    c.max_held = held + 4 * BATCH;
    c.index_entries = 1 << 18;
    c.record_bytes = 65536;
    c.hold_max_wait_ms = c.lease_ttl_ms = 86400000;
    size_t size = pdr_router_size(&c);
    void  *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (mem == MAP_FAILED) abort();
    check(pdr_router_init(mem, size, &c, 1, &b->r, &err), &err);
    b->now = 1000000000;
    b->running = calloc(RING, sizeof *b->running);
    for (uint32_t i = 0; i < endpoints; i++) {
        pdr_init_struct(&e, sizeof e);
        snprintf(e.host, sizeof e.host, "10.0.%u.%u", i / 250, i % 250 + 1);
        e.port = 8000;
        e.role = i % 2 ? PDR_ROLE_DECODE : PDR_ROLE_PREFILL;
        if (topology) { /* four servers a host, four hosts a rack, two racks a zone */
            snprintf(e.topology_host, sizeof e.topology_host, "h%u", i / 4);
            snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", i / 16);
            snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", i / 32);
        }
        check(pdr_endpoint_put(b->r, &e, b->now, NULL, &err), &err);
    }
    check(pdr_lease_open(b->r, "bench", b->now, &b->lease, &err), &err);
    for (uint32_t n = 0; n < held;) n += arrive(b) == PDR_HELD;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static uint64_t held_now(const bench *b)
{
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    pdr_stats_get(b->r, &s);
    return s.held_now;
}

static __attribute__((noinline)) void arrivals(bench *b)
{
    for (int i = 0; i < BATCH; i++) arrive(b);
}
static __attribute__((noinline)) void completions(bench *b)
{
    for (int i = 0; i < BATCH; i++) complete(b);
}

static void row(uint32_t endpoints, uint32_t held, int topology, const char *wanted, int once)
{
    static double in[BATCHES], out[BATCHES];
    char          name[2][64];
    bench         b;
    snprintf(name[0], sizeof name[0], "hold/arrive/%u/%u%s", endpoints, held, topology ? "/topology" : "");
    snprintf(name[1], sizeof name[1], "hold/complete/%u/%u%s", endpoints, held, topology ? "/topology" : "");
    if (once ? strcmp(wanted, name[0]) && strcmp(wanted, name[1]) : strncmp(wanted, name[0], strlen(wanted)) && strncmp(wanted, name[1], strlen(wanted))) return;
    open_bench(&b, endpoints, held, topology);
    for (int i = 0; i < (once ? 1 : BATCHES); i++) {
        uint64_t t0 = cpu_ns();
        arrivals(&b);
        uint64_t t1 = cpu_ns();
        completions(&b);
        uint64_t t2 = cpu_ns();
        in[i] = (double)(t1 - t0) / BATCH;
        out[i] = (double)(t2 - t1) / BATCH;
        fetch(&b);
        while (held_now(&b) > held && b.n) complete(&b), fetch(&b);
        while (held_now(&b) < held) arrive(&b);
    }
    free(b.running);
    if (once) {
        printf("{\"name\":\"%s\",\"calls\":%d}\n", wanted, BATCH);
        return;
    }
    qsort(in, BATCHES, sizeof *in, by_value);
    qsort(out, BATCHES, sizeof *out, by_value);
    printf("{\"name\":\"%s\",\"ns\":%.1f,\"allocs\":0.00,\"note\":\"match, size, into the queue\"}\n", name[0], in[BATCHES / 2]);
    printf("{\"name\":\"%s\",\"ns\":%.1f,\"allocs\":0.00,\"note\":\"a server is free: whoever is next is matched, placed, booked\"}\n", name[1], out[BATCHES / 2]);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int         once = argc > 2 && !strcmp(argv[1], "--once");
    const char *wanted = once ? argv[2] : argc > 1 ? argv[1] : "";
    static const uint32_t rows[][2] = {{64, 100}, {64, 10000}, {1024, 100}, {1024, 10000}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) row(rows[i][0], rows[i][1], 0, wanted, once);
    row(64, 100, 1, wanted, once);
    row(1024, 10000, 1, wanted, once);
    return 0;
}
