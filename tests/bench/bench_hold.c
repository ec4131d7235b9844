/*
 * What the queue costs: an arrival that is held, and a completion that lets one go, with so many endpoints (half prefill, half decode, all busy) and so many held
 * requests of all sizes; the same where topology is known, where servers do both, and under the other policies. Prints JSON lines:
 *   ns           CPU time of this thread per call, median of batches of 16
 *   least_ns     the same life again and again: of each batch the least, and the mean of those: what it costs while nobody else has the caches or the core
 *   multiplies   so, too, by a yardstick taken just before and behind each batch: so many multiplications one after the other take that time (three cycles each on
 *                x86-64 of the last ten years); the same on a busy machine and on one with another clock, but for what caches lose
 *   multiply_ns  the least of the yardstick
 *
 *   bench_hold [PREFIX]        rows of that name
 *   bench_hold --once NAME     a few calls of that one, for counting instructions
 */
#include "pdroute/pdroute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { BLOCKS = 64, BATCH = 16, BATCHES = 101, REPEATS = 15, RING = 262144, YARD = 2000 };

typedef struct bench {
    pdr_router *r;
    uint32_t    lease;
    uint64_t    now, random;
    uint64_t   *running; /* in prefill, oldest first; before them those that decode */
    uint32_t    first, n, decoding;
    void       *mem;
    size_t      size;
} bench;

/* What is measured: a fleet, how many are held, and under which policy. */
typedef struct setting {
    const char *suffix;
    uint32_t    endpoints, held, topology, both, policy; /* both: of sixteen servers so many do both */
} setting;

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t product = 1;

/* One multiplication after the other, in nanoseconds each. */
static double yard(void)
{
    uint64_t t0 = cpu_ns(), x = product;
    for (int i = 0; i < YARD; i++) {
        x *= 6364136223846793005u;
        __asm__ volatile("" : "+r"(x)); /* each for itself: the compiler knows what a million of them are */
    }
    product = x;
    return (double)(cpu_ns() - t0) / YARD;
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

/* Answers end: as many decode as before, and records come back into use. */
static void finish(bench *b, uint32_t most)
{
    for (; b->first - b->decoding > most; b->decoding++)
        if (pdr_booking_done(b->r, b->running[b->decoding % RING], PDR_DONE_ALL, b->now)) abort();
}

static uint32_t role_of(const setting *s, uint32_t i)
{
    if (i % 16 < s->both) return PDR_ROLE_BOTH;
    return i % 2 ? PDR_ROLE_DECODE : PDR_ROLE_PREFILL;
}

static void open_bench(bench *b, const setting *s)
{
    pdr_config   c;
    pdr_endpoint e;
    pdr_error    err;
    memset(b, 0, sizeof *b);
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&c, sizeof c);
    c.seed = 1;
    c.max_endpoints = s->endpoints;
    c.max_bookings = RING;
    c.max_held = s->held + 4 * BATCH;
    c.index_entries = 1 << 18;
    c.record_bytes = 65536;
    c.hold_max_wait_ms = c.lease_ttl_ms = 86400000;
    c.policy = s->policy;
    b->size = pdr_router_size(&c);
    b->mem = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (b->mem == MAP_FAILED) abort();
    check(pdr_router_init(b->mem, b->size, &c, 1, &b->r, &err), &err);
    b->now = 1000000000;
    b->running = calloc(RING, sizeof *b->running);
    for (uint32_t i = 0; i < s->endpoints; i++) {
        pdr_init_struct(&e, sizeof e);
        snprintf(e.host, sizeof e.host, "10.0.%u.%u", i / 250, i % 250 + 1);
        e.port = 8000;
        e.role = role_of(s, i);
        if (s->topology) { /* four servers a host, four hosts a rack, two racks a zone */
            snprintf(e.topology_host, sizeof e.topology_host, "h%u", i / 4);
            snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", i / 16);
            snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", i / 32);
        }
        check(pdr_endpoint_put(b->r, &e, b->now, NULL, &err), &err);
    }
    check(pdr_lease_open(b->r, "bench", b->now, &b->lease, &err), &err);
    for (uint32_t n = 0; n < s->held;) n += arrive(b) == PDR_HELD;
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

static double least(double a, double b) { return a < b ? a : b; }

static double mean(const double *v)
{
    double sum = 0;
    for (int i = 0; i < BATCHES; i++) sum += v[i];
    return sum / BATCHES;
}

/* Of one kind of call, by batch: this time, the least time, the least by the yardstick. */
typedef struct times { double ns[BATCHES], least_ns[BATCHES], multiplies[BATCHES]; } times;

static void took(times *t, int i, int first, uint64_t ns, double one)
{
    t->ns[i] = (double)ns / BATCH;
    t->least_ns[i] = first ? t->ns[i] : least(t->least_ns[i], t->ns[i]);
    t->multiplies[i] = first ? t->ns[i] / one : least(t->multiplies[i], t->ns[i] / one);
}

static void print_row(const char *name, times *t, double multiply_ns, const char *note)
{
    qsort(t->ns, BATCHES, sizeof *t->ns, by_value);
    printf("{\"name\":\"%s\",\"ns\":%.1f,\"least_ns\":%.1f,\"multiplies\":%.0f,\"multiply_ns\":%.3f,\"allocs\":0.00,\"note\":\"%s\"}\n", name, t->ns[BATCHES / 2], mean(t->least_ns),
           mean(t->multiplies), multiply_ns, note);
    fflush(stdout);
}

/* One life: the same calls each time. The least of the yardstick. */
static double live(const setting *s, int batches, int first, times *in, times *out)
{
    double yard_least = 1e18;
    bench  b;
    open_bench(&b, s);
    for (int i = 0; i < batches; i++) {
        double   before = batches > 1 ? yard() : 1;
        uint64_t t0 = cpu_ns();
        arrivals(&b);
        uint64_t t1 = cpu_ns();
        completions(&b);
        uint64_t t2 = cpu_ns();
        double   one = least(before, batches > 1 ? yard() : 1);
        took(in, i, first, t1 - t0, one);
        took(out, i, first, t2 - t1, one);
        yard_least = least(yard_least, one);
        fetch(&b);
        while (held_now(&b) > s->held && b.n) complete(&b), fetch(&b);
        while (held_now(&b) < s->held) arrive(&b);
        finish(&b, s->endpoints * 8);
    }
    free(b.running);
    munmap(b.mem, b.size);
    return yard_least;
}

static void row(const setting *s, const char *wanted, int once)
{
    static times in, out;
    char         name[2][64];
    double       yard_least = 1e18;
    snprintf(name[0], sizeof name[0], "hold/arrive/%u/%u%s", s->endpoints, s->held, s->suffix);
    snprintf(name[1], sizeof name[1], "hold/complete/%u/%u%s", s->endpoints, s->held, s->suffix);
    if (once ? strcmp(wanted, name[0]) && strcmp(wanted, name[1]) : strncmp(wanted, name[0], strlen(wanted)) && strncmp(wanted, name[1], strlen(wanted))) return;
    if (once) {
        live(s, 1, 1, &in, &out);
        printf("{\"name\":\"%s\",\"calls\":%d}\n", wanted, BATCH);
        return;
    }
    for (int i = 0; i < REPEATS; i++) yard_least = least(yard_least, live(s, BATCHES, !i, &in, &out));
    print_row(name[0], &in, yard_least, "match, size, into the queue");
    print_row(name[1], &out, yard_least, "a server is free: whoever is next is matched, placed, booked");
}

int main(int argc, char **argv)
{
    int         once = argc > 2 && !strcmp(argv[1], "--once");
    const char *wanted = once ? argv[2] : argc > 1 ? argv[1] : "";
    static const setting rows[] = {
        {"", 64, 100, 0, 0, PDR_POLICY_DEFAULT},
        {"", 64, 10000, 0, 0, PDR_POLICY_DEFAULT},
        {"", 1024, 100, 0, 0, PDR_POLICY_DEFAULT},
        {"", 1024, 10000, 0, 0, PDR_POLICY_DEFAULT},
        {"/topology", 64, 100, 1, 0, PDR_POLICY_DEFAULT},
        {"/topology", 1024, 10000, 1, 0, PDR_POLICY_DEFAULT},
        {"/both", 64, 100, 0, 16, PDR_POLICY_DEFAULT}, /* all do both */
        {"/both", 1024, 10000, 0, 16, PDR_POLICY_DEFAULT},
        {"/mixed", 64, 100, 0, 8, PDR_POLICY_DEFAULT}, /* half of them; the others in pairs */
        {"/mixed", 1024, 10000, 0, 8, PDR_POLICY_DEFAULT},
        {"/round_robin", 64, 100, 0, 0, PDR_POLICY_ROUND_ROBIN},
        {"/random", 64, 100, 0, 0, PDR_POLICY_RANDOM},
        {"/least_tokens", 64, 100, 0, 0, PDR_POLICY_LEAST_TOKENS},
        {"/power_of_two", 64, 100, 0, 0, PDR_POLICY_POWER_OF_TWO},
        {"/least_tokens", 1024, 10000, 0, 0, PDR_POLICY_LEAST_TOKENS},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) row(&rows[i], wanted, once);
    return 0;
}
