/*
 * How fast engine reports are read, beside what bounds it: memcpy and memchr over the same bytes. Prints MB/s, ns per
 * report, and what 1,024 endpoints scraped once a second cost of one core. The best of several rounds counts.
 */
#include "loads.h"
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 15

static char  *text, *copy;
static size_t len;

static void work_memcpy(void)
{
    memcpy(copy, text, len);
    __asm__ volatile("" ::"r"(copy) : "memory");
}

static void work_memchr(void)
{
    size_t lines = 0;
    for (const char *p = text, *q; (q = memchr(p, '\n', (size_t)(text + len - p))); p = q + 1) lines++;
    __asm__ volatile("" ::"r"(lines));
}

static void work_metrics(void)
{
    pdr_load ranks[8];
    size_t   n;
    if (pdr_metrics_parse(text, len, ranks, 8, &n, NULL, NULL)) abort();
    __asm__ volatile("" ::"r"(n));
}

static void work_loads(void)
{
    pdr_load ranks[8];
    size_t   n;
    if (pdr_loads_parse(text, len, ranks, 8, &n, NULL, NULL)) abort();
}

static void work_server_info(void)
{
    pdr_server_info info;
    if (pdr_server_info_parse(text, len, &info, NULL, NULL)) abort();
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(const char *name, void (*work)(void))
{
    double best = 1e9;
    int    times = (int)(4000000 / len) + 1;
    for (int round = 0; round < ROUNDS; round++) {
        double begin = seconds();
        for (int i = 0; i < times; i++) work();
        double each = (seconds() - begin) / times;
        if (each < best) best = each;
    }
    printf("  %-12s %9.0f MB/s %10.0f ns %8.2f %% of a core for 1,024/s\n", name, (double)len / best / 1e6, best * 1e9,
           best * 1024 * 100);
}

static void load(const char *name)
{
    char  path[1024];
    FILE *file;
    snprintf(path, sizeof path, PDR_TEST_DATA "/%s", name);
    free(text);
    free(copy);
    file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    fseek(file, 0, SEEK_END);
    len = (size_t)ftell(file);
    rewind(file);
    text = malloc(len);
    copy = malloc(len);
    if (!text || !copy || fread(text, 1, len, file) != len) exit(1);
    fclose(file);
    printf("%s, %zu bytes\n", name, len);
}

int main(void)
{
    static const char *const files[] = {"metrics/sglang_prefill.txt", "metrics/sglang_decode.txt",
                                        "metrics/sglang_prefill_dp2.txt", "metrics/vllm.txt",
                                        "metrics/v1_loads_prefill.txt"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        load(files[i]);
        measure("memcpy", work_memcpy);
        measure("memchr", work_memchr);
        measure("metrics", work_metrics);
    }
    load("loads/v1_loads_prefill.json");
    measure("loads", work_loads);
    load("loads/server_info_prefill.json");
    measure("server_info", work_server_info);
    free(text);
    free(copy);
    return 0;
}
