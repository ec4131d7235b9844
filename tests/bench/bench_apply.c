/* A document of endpoints applied to a block that has them, has others or has none: what it costs per endpoint must not grow with their number. */
#include "pdroute/pdroute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct bench {
    pdr_router *r;
    char       *text;
    uint32_t    n;
} bench;

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* n servers from number `base` on, `prefills` of them prefill, on machines, racks and zones. */
static char *document(uint32_t n, uint32_t prefills, uint32_t base)
{
    char  *text = malloc((size_t)n * 200 + 32);
    size_t len = (size_t)sprintf(text, "{\"endpoints\":[");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = base + i;
        len += (size_t)sprintf(text + len, "%s{\"name\":\"w%u\",\"role\":\"%s\",\"host\":\"10.%u.%u.%u\",\"port\":8000,\"topology\":{\"host\":\"h%u\",\"rack\":\"r%u\",\"zone\":\"z%u\"}}",
                               i ? "," : "", at, i < prefills ? "prefill" : "decode", at >> 16, at >> 8 & 255, at & 255, i / 2, i / 16, i % 3);
    }
    strcpy(text + len, "]}");
    return text;
}

__attribute__((noinline)) void applied(const bench *b);
void applied(const bench *b)
{
    pdr_error err = {.struct_size = sizeof err};
    if (!pdr_apply_json(b->r, b->text, strlen(b->text), PDR_APPLY_PRUNE, 1, NULL, &err)) return;
    fprintf(stderr, "%s\n", err.message);
    exit(1);
}

/* Once `before` has been applied. */
static void row(const char *name, uint32_t n, char *before, char *text, const char *wanted, int once)
{
    pdr_config c = {.struct_size = sizeof c, .seed = 1, .max_endpoints = n, .max_targets = n, .index_entries = 1 << 16};
    pdr_error  err = {.struct_size = sizeof err};
    size_t     size = (pdr_router_size(&c) + 63) & ~(size_t)63;
    char       full[64];
    bench      b = {.n = n};
    snprintf(full, sizeof full, "apply/%s/%u", name, n);
    if (once ? !strcmp(wanted, full) : !strncmp(wanted, full, strlen(wanted))) {
        void *mem = aligned_alloc(64, size);
        if (!mem || pdr_router_init(mem, size, &c, 1, &b.r, &err)) exit(1);
        if (before && pdr_apply_json(b.r, before, strlen(before), PDR_APPLY_PRUNE, 1, NULL, &err)) exit(1);
        b.text = text;
        uint64_t t0 = cpu_ns();
        applied(&b);
        uint64_t t1 = cpu_ns();
        if (pdr_router_check(b.r, &err)) exit(1);
        if (once)
            printf("{\"name\":\"%s\",\"calls\":%u}\n", full, n);
        else
            printf("{\"name\":\"%s\",\"ns\":%.1f,\"allocs\":null,\"note\":\"per endpoint\"}\n", full, (double)(t1 - t0) / n);
        free(mem);
    }
    free(before);
    free(text);
}

int main(int argc, char **argv)
{
    int         once = argc > 2 && !strcmp(argv[1], "--once");
    const char *wanted = once ? argv[2] : argc > 1 ? argv[1] : "";
    for (uint32_t n = 1024; n <= 16384; n *= 16) {
        row("new", n, NULL, document(n, n / 2, 0), wanted, once);
        row("same", n, document(n, n / 2, 0), document(n, n / 2, 0), wanted, once);
        row("roles", n, document(n, n / 2, 0), document(n, n / 4, 0), wanted, once);
        row("others", n, document(n, n / 2, 0), document(n, n / 2, n), wanted, once);
    }
    return 0;
}
