/*
 * Scan and hash of request bodies, side by side with memcpy, XXH3, cJSON and (where the build found it) simdjson in one
 * run. Prints nanoseconds per body: the best of several rounds. Arguments: --json FILE, --quick.
 */
#include "prompt.h"

#include "allocs.h"

#include <cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define XXH_INLINE_ALL
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include <xxhash.h>
#pragma GCC diagnostic pop

#ifdef HAVE_SIMDJSON
size_t peer_simdjson_padding(void);
int peer_simdjson_members(const char *body,
                          size_t len);               /* On-Demand: the top-level members, all of the body validated */
int peer_simdjson_ids(const char *body, size_t len); /* On-Demand: every id read */
#endif

/* text, and the same with names that say nothing, so that only the first walk has work */
typedef struct body {
    const char *name;
    char *text;
    size_t len;
    uint32_t api;
    char *nameless;
} body;

static uint64_t random_state = 1;
static uint32_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

/* English-like words; every `escape_every`-th word brings \n or \", every `wide_every`-th is Chinese. */
static size_t put_words(char *out, size_t n, unsigned escape_every, unsigned wide_every)
{
    static const char *words[] = {"the",    "prefill",  "server", "computes", "a",       "cache",   "of",
                                  "tokens", "while",    "decode", "waits",    "and",     "routing", "chooses",
                                  "both",   "together", "for",    "each",     "request", "that",    "arrives"};
    size_t at = 0;
    for (unsigned i = 1; at + 32 < n; i++) {
        if (escape_every && i % escape_every == 0)
            at += (size_t)sprintf(out + at, "%s", i % (2 * escape_every) ? "\\n" : "\\\"x\\\"");
        if (wide_every && i % wide_every == 0)
            at += (size_t)sprintf(out + at, "%s", "\xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c");
        at += (size_t)sprintf(out + at, "%s ", words[next_random() % (sizeof words / sizeof *words)]);
    }
    while (at < n) out[at++] = '.';
    return at;
}

static body make_chat(const char *name, size_t size, unsigned messages, unsigned escape_every, unsigned wide_every)
{
    body b = {name, malloc(size + 4096), 0, PDR_API_CHAT, NULL};
    size_t each = (size - 200 - messages * 32) / messages;
    b.len = (size_t)sprintf(b.text, "{\"model\":\"/models/Qwen3-32B\",\"messages\":[");
    for (unsigned i = 0; i < messages; i++) {
        b.len += (size_t)sprintf(b.text + b.len, "%s{\"role\":\"%s\",\"content\":\"", i ? "," : "",
                                 !i      ? "system"
                                 : i % 2 ? "user"
                                         : "assistant");
        b.len += put_words(b.text + b.len, each, escape_every, wide_every);
        b.len += (size_t)sprintf(b.text + b.len, "\"}");
    }
    b.len += (size_t)sprintf(b.text + b.len, "],\"max_tokens\":50,\"temperature\":0.7,\"stream\":true}");
    return b;
}

static body make_ids(const char *name, size_t size, const char *separator)
{
    body b = {name, malloc(size + 256), 0, PDR_API_GENERATE, NULL};
    b.len = (size_t)sprintf(b.text, "{\"input_ids\":[");
    while (b.len < size) b.len += (size_t)sprintf(b.text + b.len, "%u%s", next_random() % 151936, separator);
    b.len += (size_t)sprintf(b.text + b.len, "1],\"sampling_params\":{\"max_new_tokens\":32}}");
    return b;
}

/* ------------------------------------------------------------------------------------------------------------- what is
 * timed */

static uint64_t hashes[4096];
static char *copy;
static uint64_t sink;

static void do_memcpy(const body *b)
{
    memcpy(copy, b->text, b->len);
}
static void do_xxh3(const body *b)
{
    sink += XXH3_64bits(b->text, b->len);
}
static void do_cjson(const body *b)
{
    cJSON_Delete(cJSON_ParseWithLength(b->text, b->len));
}
static void scan_by(int path, const body *b, uint64_t *out, size_t cap)
{
    pdr_prompt p;
    pdr_error err;
    p.struct_size = sizeof p;
    err.struct_size = sizeof err;
    if (pdr_scan_by(path, b->text, b->len, b->api, NULL, &p, out, cap, &err)) {
        fprintf(stderr, "%s: %s\n", b->name, err.message);
        exit(1);
    }
    sink += p.blocks;
}
static int path;
static void do_scan(const body *b)
{
    scan_by(path, b, hashes, 4096);
}
static void do_validate(const body *b)
{
    body other = *b;
    other.text = b->nameless;
    other.api = PDR_API_OTHER;
    scan_by(path, &other, NULL, 0);
}
static void do_check(const body *b)
{
    scan_by(path, b, NULL, 0);
}
static void do_portable(const body *b)
{
    scan_by(PDR_PATH_PORTABLE, b, hashes, 4096);
}
#ifdef HAVE_SIMDJSON
static void do_simdjson(const body *b)
{
    sink += (uint64_t)peer_simdjson_members(b->text, b->len);
}
static void do_simdjson_ids(const body *b)
{
    sink += (uint64_t)peer_simdjson_ids(b->text, b->len);
}
#endif

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double best(void (*f)(const body *), const body *b, int rounds)
{
    double least = 1e18, begin, each;
    int times = 1;
    f(b);
    do { /* a round takes about 2 ms */
        begin = now_ns();
        for (int i = 0; i < times; i++) f(b);
        each = now_ns() - begin;
        if (each < 1e6) times *= 2;
    } while (each < 1e6);
    for (int r = 0; r < rounds; r++) {
        begin = now_ns();
        for (int i = 0; i < times; i++) {
            f(b);
            __asm__ volatile("" ::: "memory");
        }
        each = (now_ns() - begin) / times;
        if (each < least) least = each;
    }
    return least;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*f)(const body *);
    } columns[] = {
        {"memcpy", do_memcpy},     {"xxh3", do_xxh3},
        {"validate", do_validate}, {"scan", do_check},
        {"scan+hash", do_scan},    {"portable", do_portable},
        {"cjson", do_cjson},
#ifdef HAVE_SIMDJSON
        {"simdjson", do_simdjson}, {"simdjson-ids", do_simdjson_ids},
#endif
    };
    body bodies[] = {
        make_chat("1.1KB chat", 1100, 2, 40, 0),
        make_chat("17KB chat", 17000, 8, 40, 0),
        make_chat("132KB chat", 132000, 20, 40, 0),
        make_chat("1MB chat", 1000000, 40, 40, 0),
        make_ids("233KB ids", 233000, ","),
        make_ids("233KB ids, spaced", 233000, ", "),
        make_chat("17KB chat, plain", 17000, 8, 0, 0),
        make_chat("132KB chat, plain", 132000, 20, 0, 0),
        make_chat("1MB chat, plain", 1000000, 40, 0, 0),
        make_chat("132KB chat, Chinese", 132000, 20, 40, 1),
        make_chat("132KB chat, code", 132000, 20, 4, 0),
        make_chat("132KB, 800 messages", 132000, 800, 40, 0),
    };
    FILE *json = NULL;
    int rounds = 15;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quick")) rounds = 3;
        if (!strcmp(argv[i], "--json") && i + 1 < argc) json = fopen(argv[++i], "w");
    }
    path = pdr_path_usable(PDR_PATH_AVX2)   ? PDR_PATH_AVX2
           : pdr_path_usable(PDR_PATH_NEON) ? PDR_PATH_NEON
                                            : PDR_PATH_PORTABLE;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        body *b = &bodies[i];
        char *name;
        b->nameless = malloc(b->len + 128);
        memcpy(b->nameless, b->text, b->len);
        name = strstr(b->nameless, b->api == PDR_API_CHAT ? "messages" : "input_ids");
        if (name) name[1] = '_';
    }
    copy = malloc(2000000);
    printf("%-20s %8s", "ns per body", "bytes");
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) printf(" %12s", columns[c].name);
    printf("\n");
    if (json) fprintf(json, "[");
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        printf("%-20s %8zu", bodies[i].name, bodies[i].len);
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
            double ns;
            if (!strcmp(columns[c].name, "simdjson-ids") && bodies[i].api != PDR_API_GENERATE) continue;
            ns = best(columns[c].f, &bodies[i], rounds);
            printf(" %12.0f", ns);
            allocations = 0;
            columns[c].f(&bodies[i]);
            if (json)
                fprintf(json, "%s\n{\"name\":\"%s/%s\",\"ns\":%.1f,\"allocs\":%lu,\"note\":\"\"}", i + c ? "," : "",
                        columns[c].name, bodies[i].name, ns, allocations);
        }
        printf("\n");
        fflush(stdout);
    }
    if (json) {
        fprintf(json, "]\n");
        fclose(json);
    }
    free(copy);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        free(bodies[i].text);
        free(bodies[i].nameless);
    }
    return sink == 1;
}
