/* Readers of public trace formats and of recorded decisions (trace_record.c); which is which is seen by the first line. docs/simulate.md names the sources. */
#include "trace.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { MOONCAKE_BLOCK = 512, WEKA_BLOCK = 64, WEKA_GROUP = 4 /* Weka's blocks are taken four at a time: 256 tokens */, LINE_FIRST = 1 << 16 };
enum { WEKA_GAP = 36 /* seconds between session starts at rate 1: a hundred an hour */ };

typedef struct reader {
    sim_trace *t;
    uint32_t   window;
    uint64_t   fresh; /* ids that nobody shares */
    uint32_t   session;
    char      *why;
    size_t     cap;
} reader;

static int fail(reader *r, const char *sentence, size_t line)
{
    snprintf(r->why, r->cap, "line %zu: %s", line, sentence);
    return -1;
}

static double number(const cJSON *o, const char *name, double otherwise)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, name);
    return cJSON_IsNumber(v) ? v->valuedouble : otherwise;
}

static uint64_t mixed(uint64_t a, uint64_t b)
{
    uint64_t s = a * 0x9E3779B97F4A7C15u ^ b;
    return sim_next(&s) >> 1;
}

/* "tenant": text, "priority": a whole number, both of the request or, of all in it, of what it is in; neither is needed. */
static int read_tenant(reader *r, sim_entry *e, const cJSON *o, const cJSON *outer, size_t line)
{
    const cJSON *tenant = cJSON_GetObjectItemCaseSensitive(o, "tenant"), *priority = cJSON_GetObjectItemCaseSensitive(o, "priority");
    if (!tenant && outer) tenant = cJSON_GetObjectItemCaseSensitive(outer, "tenant");
    if (!priority && outer) priority = cJSON_GetObjectItemCaseSensitive(outer, "priority");
    if (!tenant && !priority) return 0;
    if (tenant && !cJSON_IsString(tenant)) return fail(r, "tenant must be a string", line);
    double n = priority && cJSON_IsNumber(priority) ? priority->valuedouble : priority ? NAN : 0;
    if (!(n >= INT32_MIN && n <= INT32_MAX && n == floor(n))) return fail(r, "priority must be a whole number of 32 bits", line);
    const char *name = tenant ? tenant->valuestring : "";
    e->tenant = sim_tenants_row(&r->t->tenants, name, strlen(name), (int32_t)n);
    return e->tenant == SIM_NONE ? fail(r, "out of memory", line) : 0;
}

static int too_long(reader *r, double in)
{
    if (!r->window || in <= r->window) return 0;
    r->t->dropped++;
    return 1;
}

/* {"timestamp": ms, "input_length":, "output_length":, "hash_ids": […]}, and "tenant":, "priority": if it has them */
static int read_mooncake(reader *r, const cJSON *o, size_t line)
{
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(o, "hash_ids"), *id;
    double       at = number(o, "timestamp", -1), in = number(o, "input_length", -1), out = number(o, "output_length", -1);
    if (!cJSON_IsArray(ids) || at < 0 || in < 1 || in > 1e8 || out < 0 || out > 1e8) return fail(r, "a Mooncake request has timestamp, input_length, output_length, hash_ids", line);
    if (too_long(r, in)) return 0;
    sim_entry *e = sim_trace_add(r->t);
    if (!e) return fail(r, "out of memory", line);
    e->at = at / 1000;
    e->session = (uint32_t)r->t->n - 1;
    e->in = (uint32_t)in;
    e->out = (uint32_t)out;
    e->n = (e->in + MOONCAKE_BLOCK - 1) / MOONCAKE_BLOCK;
    uint32_t n = 0;
    cJSON_ArrayForEach(id, ids) {
        if (n++ < e->n && sim_trace_id(r->t, (uint64_t)id->valuedouble)) return fail(r, "out of memory", line);
    }
    if (n < e->n) return fail(r, "fewer hash_ids than the input has blocks of 512 tokens", line);
    return read_tenant(r, e, o, NULL, line);
}

/* What is behind an Azure request's lengths: nothing, or ,TENANT or ,TENANT,PRIORITY. */
static int read_azure_tenant(reader *r, sim_entry *e, const char *rest, size_t line)
{
    if (!*rest) return 0;
    size_t len = *rest == ',' ? strcspn(rest + 1, ",") : 0;
    char  *end = NULL;
    long   priority = 0;
    if (*rest == ',' && rest[1 + len] == ',') {
        const char *text = rest + len + 2;
        priority = strtol(text, &end, 10);
        if (end == text) end = NULL;
    }
    if (*rest != ',' || (rest[1 + len] && (!end || *end)) || priority < INT32_MIN || priority > INT32_MAX)
        return fail(r, "behind an Azure request's lengths there may be ,TENANT or ,TENANT,PRIORITY", line);
    e->tenant = sim_tenants_row(&r->t->tenants, rest + 1, len, (int32_t)priority);
    return e->tenant == SIM_NONE ? fail(r, "out of memory", line) : 0;
}

/* 2023-11-16 18:15:46.6805900,374,44 : seconds within its day and the day number of the month are enough, traces are an hour long */
static int read_azure(reader *r, const char *text, size_t line)
{
    unsigned y, mo, d, h, mi;
    double   s, in, out;
    int      used = 0;
    if (sscanf(text, "%u-%u-%u %u:%u:%lf,%lf,%lf%n", &y, &mo, &d, &h, &mi, &s, &in, &out, &used) != 8 || in < 0 || in > 1e8 || out < 0 || out > 1e8)
        return fail(r, "an Azure request is TIMESTAMP,ContextTokens,GeneratedTokens", line);
    if (in < 1) in = 1;
    if (too_long(r, in)) return 0;
    sim_entry *e = sim_trace_add(r->t);
    if (!e) return fail(r, "out of memory", line);
    e->at = d * 86400. + h * 3600. + mi * 60. + s;
    e->session = (uint32_t)r->t->n - 1;
    e->in = (uint32_t)in;
    e->out = (uint32_t)out;
    e->n = (e->in + MOONCAKE_BLOCK - 1) / MOONCAKE_BLOCK;
    for (uint32_t i = 0; i < e->n; i++)
        if (sim_trace_id(r->t, r->fresh++)) return fail(r, "out of memory", line);
    return read_azure_tenant(r, e, text + used, line);
}

/*
 * One request of an agent session. Its `runs` name floor(in / 64) blocks; four make one of ours, a rest is nobody else's. What lies in the session's tools and
 * system prompt is shared with the sessions that have the same sizes of both.
 */
static int read_weka_request(reader *r, const cJSON *o, const cJSON *session, uint64_t client, double shared_tokens, size_t line)
{
    const cJSON *runs = cJSON_GetObjectItemCaseSensitive(o, "runs"), *v;
    double       in = number(o, "in", -1), out = number(o, "out", -1);
    uint32_t     block = WEKA_BLOCK * WEKA_GROUP, i = 0;
    if (!cJSON_IsArray(runs) || in < 0 || in > 1e8 || out < 0 || out > 1e8) return fail(r, "a Weka request has in, out, runs", line);
    if (in < 1 || too_long(r, in)) return 0;
    sim_entry *e = sim_trace_add(r->t);
    if (!e) return fail(r, "out of memory", line);
    e->think = fmax(0, number(o, "think_time", 0));
    e->at = number(o, "t", 0);
    e->session = r->session;
    e->in = (uint32_t)in;
    e->out = (uint32_t)out;
    e->n = (e->in + block - 1) / block;
    uint32_t made = 0;
    for (v = runs->child; v && v->next; v = v->next->next) {
        uint64_t start = (uint64_t)v->valuedouble, len = (uint64_t)v->next->valuedouble;
        for (uint64_t k = 0; k < len; k++, i++) {
            if (i % WEKA_GROUP != WEKA_GROUP - 1 || made >= e->n) continue;
            uint64_t id = mixed(r->session + 1u, start + k);
            if ((double)(i + 1) * WEKA_BLOCK <= shared_tokens) id = mixed(client, i);
            if (sim_trace_id(r->t, id)) return fail(r, "out of memory", line);
            made++;
        }
    }
    for (; made < e->n; made++)
        if (sim_trace_id(r->t, r->fresh++)) return fail(r, "out of memory", line);
    return read_tenant(r, e, o, session, line);
}

static int read_weka(reader *r, const cJSON *session, size_t line)
{
    const cJSON *requests = cJSON_GetObjectItemCaseSensitive(session, "requests"), *o, *inner;
    double       tools = number(session, "tool_tokens", 0), system = number(session, "system_tokens", 0);
    uint64_t     client = mixed((uint64_t)tools + 1, (uint64_t)system + 1);
    size_t       before = r->t->n;
    if (!cJSON_IsArray(requests) || number(session, "block_size", 0) != WEKA_BLOCK) return fail(r, "a Weka session has block_size 64 and requests", line);
    cJSON_ArrayForEach(o, requests) { /* a sub-agent's requests take their place one after another */
        const cJSON *sub = cJSON_GetObjectItemCaseSensitive(o, "requests");
        if (!cJSON_IsArray(sub)) {
            if (read_weka_request(r, o, session, client, tools + system, line)) return -1;
            continue;
        }
        cJSON_ArrayForEach(inner, sub)
            if (read_weka_request(r, inner, session, client, tools + system, line)) return -1;
    }
    if (r->t->n > before) r->session++;
    return 0;
}

enum { UNKNOWN, MOONCAKE, AZURE, WEKA };

static int read_line(reader *r, int *format, const char *text, size_t line)
{
    if (!*text) return 0;
    if (*format == UNKNOWN) {
        *format = strstr(text, "\"hash_ids\"") ? MOONCAKE : strstr(text, "\"runs\"") ? WEKA : !strncmp(text, "TIMESTAMP,", 10) ? AZURE : UNKNOWN;
        if (*format == UNKNOWN) return fail(r, "neither Mooncake jsonl, Azure csv, Weka run-length jsonl nor a file of `pdroutectl record`", line);
        r->t->block = *format == WEKA ? WEKA_BLOCK * WEKA_GROUP : MOONCAKE_BLOCK;
        r->t->closed = *format == WEKA;
        if (*format == AZURE) return 0;
    }
    if (*format == AZURE) return read_azure(r, text, line);
    cJSON *o = cJSON_Parse(text);
    if (!o) return fail(r, "not JSON", line);
    int bad = *format == MOONCAKE ? read_mooncake(r, o, line) : read_weka(r, o, line);
    cJSON_Delete(o);
    return bad;
}

static int read_lines(reader *r, gzFile f, int *format)
{
    size_t cap = LINE_FIRST, n = 0, line = 1;
    char  *text = malloc(cap);
    int    bad = text ? 0 : fail(r, "out of memory", line);
    while (!bad && gzgets(f, text + n, (int)(cap - n))) {
        n += strlen(text + n);
        if (n && text[n - 1] != '\n' && !gzeof(f)) { /* longer than the room there is */
            char *more = realloc(text, cap *= 2);
            if (!more) {
                bad = fail(r, "out of memory", line);
                break;
            }
            text = more;
            continue;
        }
        while (n && (text[n - 1] == '\n' || text[n - 1] == '\r')) text[--n] = 0;
        bad = read_line(r, format, text, line++);
        n = 0;
    }
    free(text);
    return bad;
}

/* A file of recorded decisions, whole in memory: their reader borrows it. */
static int read_recorded(reader *r, gzFile f)
{
    size_t cap = 1 << 20, n = 0;
    char  *p = malloc(cap);
    int    got = 0, bad;
    while (p && (got = gzread(f, p + n, (unsigned)(cap - n < 1 << 30 ? cap - n : 1 << 30))) > 0)
        if ((n += (size_t)got) == cap) {
            char *more = realloc(p, cap *= 2);
            if (!more) free(p);
            p = more;
        }
    bad = !p || got < 0 ? fail(r, p ? "cannot be read" : "out of memory", 1) : sim_trace_read_record(r->t, p, n, r->window, r->why, r->cap);
    free(p);
    return bad;
}

static int is_recorded(gzFile f)
{
    char first[8];
    int  n = gzread(f, first, sizeof first);
    gzrewind(f);
    return n == sizeof first && !memcmp(first, "PDRREC", 6);
}

/* The gap that more than half of the different arrival times keep: 0 if it is less than a second. */
static double grid_of(const sim_trace *t)
{
    size_t near3 = 0, different = 0;
    for (size_t i = 1; i < t->n; i++) {
        double gap = t->entries[i].at - t->entries[i - 1].at;
        if (gap <= 0) continue;
        different++;
        near3 += fabs(gap - 3) < .1;
    }
    return near3 * 2 > different ? 3 : 0;
}

int sim_trace_read(sim_trace *t, const char *path, uint32_t window, char *why, size_t cap)
{
    reader      r = {.t = t, .window = window, .fresh = (uint64_t)1 << 63, .why = why, .cap = cap};
    int         format = UNKNOWN;
    const char *base = strrchr(path, '/');
    memset(t, 0, sizeof *t);
    gzFile f = gzopen(path, "rb");
    if (!f) {
        snprintf(why, cap, "cannot open it");
        return -1;
    }
    gzbuffer(f, 1 << 18);
    snprintf(t->name, sizeof t->name, "%s", base ? base + 1 : path);
    int bad = is_recorded(f) ? read_recorded(&r, f) : read_lines(&r, f, &format);
    gzclose(f);
    if (bad) return -1;
    if (!t->n) {
        snprintf(why, cap, "no requests in it");
        return -1;
    }
    if (sim_trace_finish(t)) {
        snprintf(why, cap, "out of memory");
        return -1;
    }
    if (format == MOONCAKE) t->grid = grid_of(t);
    if (format == WEKA) t->span = t->sessions * (double)WEKA_GAP;
    return 0;
}
