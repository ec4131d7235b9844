/*
 * The whole decision: scan, hash, match, choose, room, slices, and giving the booking back; beside its ceilings and its peers, body by body in the same run.
 * Prints JSON lines {"name","ns","allocs","note"}. CPU time of this thread; the median of several batches.
 *   bench_route [--quick] [PREFIX]   rows of that name; quick: a few short batches
 *   bench_route --once NAME          a few calls of that one, for counting instructions
 */
#include "pdroute/pdroute.h"

#include "hash.h"

#include "allocs.h"

#include <cJSON.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

typedef void (*work)(void *);

static const char *wanted = "";
static int         once;  /* for counting instructions: a few calls, no timing */
static int         quick; /* whether it runs at all, not how fast */
static void measure(const char *name, work run, void *arg, double target_ms, const char *note)
{
    enum { BATCHES = 15 };
    double        ns[BATCHES];
    int           batches = quick ? 3 : BATCHES;
    unsigned long n = 1, before, after;
    if (once ? strcmp(name, wanted) != 0 : strncmp(name, wanted, strlen(wanted)) != 0) return;
    if (once) {
        for (int i = 0; i < 20; i++) run(arg);
        printf("{\"name\":\"%s\",\"calls\":20}\n", name);
        return;
    }
    uint64_t t;
    if (quick) target_ms /= 10;
    for (;;) { /* as many as last long enough */
        t = cpu_ns();
        for (unsigned long i = 0; i < n; i++) run(arg);
        t = cpu_ns() - t;
        if ((double)t > target_ms * 1e6 || n > 1u << 24) break;
        n *= 2;
    }
    before = allocations;
    for (int b = 0; b < batches; b++) {
        t = cpu_ns();
        for (unsigned long i = 0; i < n; i++) run(arg);
        ns[b] = (double)(cpu_ns() - t) / (double)n;
    }
    after = allocations;
    qsort(ns, (size_t)batches, sizeof *ns, by_value);
    printf("{\"name\":\"%s\",\"ns\":%.1f,\"allocs\":%.2f,\"note\":\"%s\"}\n", name, ns[batches / 2],
           (double)(after - before) / ((double)n * batches), note);
    fflush(stdout);
}

/* ---- bodies: chat of several turns, mostly prose with some line breaks and quotes, as clients send it */

static const char *const words[] = {"the",    "decode",  "server", "takes",  "over",  "what", "prefill", "computed", "before", "and",
                                    "answers", "token",  "by",     "while",  "cache", "of",   "long",    "prompts",  "stays",  "warm"};

static char *chat(size_t bytes)
{
    char    *s = malloc(bytes + 4096), *p = s;
    unsigned x = 1;
    int      turn = 0;
    p += sprintf(p, "{\"model\":\"/models/Qwen3-32B\",\"stream\":true,\"max_tokens\":256,\"temperature\":0.7,\"messages\":[");
    while ((size_t)(p - s) < bytes - 64) {
        p += sprintf(p, "%s{\"role\":\"%s\",\"content\":\"", turn ? "," : "", turn == 0 ? "system" : turn % 2 ? "user" : "assistant");
        for (size_t start = (size_t)(p - s); (size_t)(p - s) - start < 4000 && (size_t)(p - s) < bytes - 40;) {
            x = x * 1103515245u + 12345u;
            p += sprintf(p, "%s%s", words[(x >> 16) % 20], (x >> 20) % 60 == 0 ? ".\\n" : " ");
        }
        p += sprintf(p, "\"}");
        turn++;
    }
    sprintf(p, "]}");
    return s;
}

static char *ids(size_t bytes)
{
    char    *s = malloc(bytes + 4096), *p = s; /* simdjson reads some bytes beyond */
    unsigned x = 1;
    p += sprintf(p, "{\"input_ids\":[");
    while ((size_t)(p - s) < bytes - 32) {
        x = x * 1103515245u + 12345u;
        p += sprintf(p, "%u, ", (x >> 8) % 151000);
    }
    sprintf(p, "7],\"sampling_params\":{\"max_new_tokens\":64}}");
    return s;
}

/* ---- the router */

typedef struct bench {
    pdr_router *r;
    uint32_t    lease;
    const char *body;
    size_t      len;
    uint32_t    api;
    uint64_t    now;
    pdr_prompt  prompt;
    uint64_t    hashes[4096];
} bench;

static void open_router(bench *b, uint32_t endpoints, int shared, int topology)
{
    pdr_config   c;
    pdr_endpoint e;
    pdr_init_struct(&c, sizeof c);
    c.seed = 1;
    c.hold = PDR_HOLD_OFF;
    if (once) c.index_entries = 1 << 16, c.max_bookings = 64, c.max_held = 8; /* set up quickly under valgrind */
    size_t size = pdr_router_size(&c);
    void  *mem = mmap(NULL, size, PROT_READ | PROT_WRITE, (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (mem == MAP_FAILED || pdr_router_init(mem, size, &c, 1, &b->r, NULL)) abort();
    b->now = 1000000000;
    for (uint32_t i = 0; i < endpoints; i++) {
        pdr_init_struct(&e, sizeof e);
        snprintf(e.host, sizeof e.host, "10.0.%u.%u", i / 250, i % 250 + 1);
        if (topology) snprintf(e.topology_rack, sizeof e.topology_rack, "rack%u", i / 16);
        e.port = 8000;
        e.role = i % 2 ? PDR_ROLE_DECODE : PDR_ROLE_PREFILL;
        if (pdr_endpoint_put(b->r, &e, b->now, NULL, NULL)) abort();
    }
    if (pdr_lease_open(b->r, "bench", b->now, &b->lease, NULL)) abort();
}

static void route(void *arg)
{
    bench       *b = arg;
    pdr_request  q;
    pdr_decision d;
    pdr_slice    slices[PDR_MAX_SLICES];
    char         tail[512];
    size_t       n = PDR_MAX_SLICES, need;
    pdr_init_struct(&q, sizeof q);
    q.api = b->api;
    q.lease = b->lease;
    q.now_ns = b->now += 1000000;
    b->prompt.struct_size = sizeof b->prompt;
    d.struct_size = sizeof d;
    if (pdr_route(b->r, b->body, b->len, &q, &b->prompt, &d, NULL)) abort();
    for (int leg = 0; leg < 2; leg++) {
        if (pdr_rewrite_tail(&d, &b->prompt, leg, 0, tail, sizeof tail, &need)) abort();
        n = PDR_MAX_SLICES;
        if (pdr_rewrite_slices(&b->prompt, b->len, need, slices, &n)) abort();
    }
    if (pdr_booking_done(b->r, d.booking, PDR_DONE_ALL, b->now)) abort();
}

static void choose(void *arg)
{
    bench       *b = arg;
    pdr_request  q;
    pdr_decision d;
    pdr_init_struct(&q, sizeof q);
    q.api = b->api;
    q.lease = b->lease;
    q.now_ns = b->now += 1000000;
    d.struct_size = sizeof d;
    if (pdr_route_prompt(b->r, &b->prompt, b->hashes, b->prompt.blocks, &q, &d, NULL)) abort();
    if (pdr_booking_done(b->r, d.booking, PDR_DONE_ALL, b->now)) abort();
}

typedef struct piece { const char *body; size_t len; char *copy; } piece;
static void        run_memcpy(void *a) { piece *p = a; memcpy(p->copy, p->body, p->len); __asm__ __volatile__("" ::"r"(p->copy) : "memory"); }
static uint64_t    sink;
static void        run_xxh3(void *a) { piece *p = a; sink += XXH3_64bits(p->body, p->len); }
static void        run_cjson(void *a) { piece *p = a; cJSON_Delete(cJSON_ParseWithLength(p->body, p->len)); }
static void        run_cjson_edit(void *a)
{
    piece *p = a;
    cJSON *tree = cJSON_ParseWithLength(p->body, p->len);
    cJSON_AddStringToObject(tree, "bootstrap_host", "10.0.0.1");
    cJSON_AddNumberToObject(tree, "bootstrap_port", 8998);
    cJSON_AddNumberToObject(tree, "bootstrap_room", 4711);
    cJSON_free(cJSON_PrintUnformatted(tree));
    cJSON_Delete(tree);
}
#ifdef HAVE_SIMDJSON
int         peer_simdjson_members(const char *body, size_t len);
int         peer_simdjson_ids(const char *body, size_t len);
static void run_simdjson(void *a) { piece *p = a; sink += (uint64_t)peer_simdjson_members(p->body, p->len); }
static void run_simdjson_ids(void *a) { piece *p = a; sink += (uint64_t)peer_simdjson_ids(p->body, p->len); }
#endif

static void decisions_per_second(int processes)
{
    static bench b;
    char         name[64];
    snprintf(name, sizeof name, "decisions/17KB/64/processes%d", processes);
    if (once || strncmp(name, wanted, strlen(wanted))) return;
    open_router(&b, 64, 1, 0);
    char *body = chat(17000);
    b.body = body;
    b.len = strlen(body);
    b.api = PDR_API_CHAT;
    struct timespec t0, t1;
    const int      n = quick ? 2000 : 30000;
    unsigned long *allocated = mmap(NULL, sizeof *allocated, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (allocated == MAP_FAILED) abort();
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            if (pdr_lease_open(b.r, "child", b.now, &b.lease, NULL)) _exit(1);
            unsigned long before = allocations;
            for (int k = 0; k < n; k++) route(&b);
            __atomic_add_fetch(allocated, allocations - before, __ATOMIC_SEQ_CST);
            _exit(0);
        }
    for (int i = 0; i < processes; i++) wait(NULL);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    double ns = ((double)(t1.tv_sec - t0.tv_sec) * 1e9 + (double)(t1.tv_nsec - t0.tv_nsec)) / ((double)n * processes);
    printf("{\"name\":\"%s\",\"ns\":%.1f,\"allocs\":%.2f,\"note\":\"wall time per decision over all processes on one block\"}\n", name, ns,
           (double)*allocated / ((double)n * processes));
    munmap(allocated, sizeof *allocated);
    free(body);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--once")) once = 1, wanted = argv[2]; /* one name */
    else
        for (int i = 1; i < argc; i++)
            if (!strcmp(argv[i], "--quick")) quick = 1;
            else wanted = argv[i]; /* a prefix of names */
    static const struct { const char *name; size_t bytes; int ids; } sizes[] = {
        {"1KB", 1100, 0}, {"17KB", 17000, 0}, {"132KB", 132000, 0}, {"1MB", 1000000, 0}, {"ids233KB", 233000, 1}};
    static bench b;
    char         name[64];
    open_router(&b, 64, 0, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(name, sizeof name, "route/%s/64", sizes[i].name);
        if (once && strcmp(name, wanted)) continue;
        char *body = sizes[i].ids ? ids(sizes[i].bytes) : chat(sizes[i].bytes);
        b.body = body;
        b.len = strlen(body);
        b.api = sizes[i].ids ? PDR_API_GENERATE : PDR_API_CHAT;
        piece p = {body, b.len, malloc(b.len)};
        snprintf(name, sizeof name, "route/%s/64", sizes[i].name);
        measure(name, route, &b, 10, "scan, hash, match, choose, book, room, slices of both legs, give back; warm prefix");
        snprintf(name, sizeof name, "ceiling/memcpy/%s", sizes[i].name);
        measure(name, run_memcpy, &p, 5, "");
        snprintf(name, sizeof name, "ceiling/xxh3/%s", sizes[i].name);
        measure(name, run_xxh3, &p, 5, "");
        snprintf(name, sizeof name, "peer/cjson/%s", sizes[i].name);
        measure(name, run_cjson, &p, 5, "parse and free only");
        snprintf(name, sizeof name, "peer/cjson-edit/%s", sizes[i].name);
        measure(name, run_cjson_edit, &p, 5, "parse, three members put in, print, free");
#ifdef HAVE_SIMDJSON
        snprintf(name, sizeof name, "peer/simdjson/%s", sizes[i].name);
        measure(name, run_simdjson, &p, 5, "On-Demand: top-level members; nothing hashed, escapes not validated");
        snprintf(name, sizeof name, "peer/simdjson-ids/%s", sizes[i].name);
        if (sizes[i].ids) measure(name, run_simdjson_ids, &p, 5, "On-Demand: every id read");
#endif
        free(p.copy);
        free(body);
    }
    static const uint32_t fleets[] = {8, 64, 1024};
    for (int i = 0; i < 6; i++) {
        pdr_limits limits;
        snprintf(name, sizeof name, i < 3 ? "choose/%u" : "choose/%u/racks", fleets[i % 3]);
        if (once && strcmp(name, wanted)) continue;
        open_router(&b, fleets[i % 3], 0, i >= 3);
        char *body = chat(17000);
        pdr_init_struct(&limits, sizeof limits);
        b.prompt.struct_size = sizeof b.prompt;
        if (pdr_scan(body, strlen(body), PDR_API_CHAT, &limits, &b.prompt, b.hashes, 4096, NULL)) abort();
        b.api = PDR_API_CHAT;
        snprintf(name, sizeof name, i < 3 ? "choose/%u" : "choose/%u/racks", fleets[i % 3]);
        measure(name, choose, &b, 10, "match 33 blocks, choose, book, room, log, give back");
        free(body);
    }
    decisions_per_second(1);
    decisions_per_second(2);
    return 0;
}
