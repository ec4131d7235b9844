#include "tenants.h"

#include "trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

__attribute__((format(printf, 3, 4))) static int fail(char *why, size_t cap, const char *form, ...)
{
    va_list a;
    va_start(a, form);
    vsnprintf(why, cap, form, a);
    va_end(a);
    return -1;
}

/* ---- rows */

static uint32_t bucket_of(const char *name, size_t len, int32_t priority)
{
    uint64_t state = (uint32_t)priority;
    for (size_t i = 0; i < len; i++) state = state * 1099511628211u + (unsigned char)name[i];
    return (uint32_t)(sim_next(&state) % BUCKETS);
}

static int is_named(const sim_tenant *x, const char *name, size_t len) { return !strncmp(x->name, name, len) && !x->name[len]; }

static int grow(sim_tenants *t)
{
    if (!t->bucket) {
        if (!(t->bucket = malloc(BUCKETS * sizeof *t->bucket))) return -1;
        memset(t->bucket, 255, BUCKETS * sizeof *t->bucket);
    }
    if (t->n < t->cap) return 0;
    uint32_t    cap = t->cap ? 2 * t->cap : 16;
    sim_tenant *v = realloc(t->v, cap * sizeof *v);
    if (!v) return -1;
    t->v = v;
    t->cap = cap;
    return 0;
}

uint32_t sim_tenants_row(sim_tenants *t, const char *name, size_t len, int32_t priority)
{
    if (grow(t)) return SIM_NONE;
    uint32_t *first = &t->bucket[bucket_of(name, len, priority)];
    for (uint32_t i = *first; i != SIM_NONE; i = t->v[i].next)
        if (t->v[i].priority == priority && is_named(&t->v[i], name, len)) return i;
    char *copy = strndup(name, len);
    if (!copy) return SIM_NONE;
    t->v[t->n] = (sim_tenant){.name = copy, .priority = priority, .next = *first};
    return *first = t->n++;
}

void sim_tenants_free(sim_tenants *t)
{
    for (uint32_t i = 0; i < t->n; i++) free(t->v[i].name);
    free(t->v);
    free(t->bucket);
    memset(t, 0, sizeof *t);
}

/* ---- what is asked for */

static int ask_equal(sim_tenants *t, unsigned long n, char *why, size_t cap)
{
    char name[16];
    if (n < 1 || n > SIM_TENANTS_MOST) return fail(why, cap, "from 1 to %d tenants, not %lu", SIM_TENANTS_MOST, n);
    for (unsigned long i = 1; i <= n; i++) {
        int      len = snprintf(name, sizeof name, "t%lu", i);
        uint32_t row = sim_tenants_row(t, name, (size_t)len, 0);
        if (row == SIM_NONE) return fail(why, cap, "out of memory");
        t->v[row].share = 1;
    }
    t->shares = (double)n;
    return 0;
}

int sim_tenants_ask(sim_tenants *t, const char *text, char *why, size_t cap)
{
    char         *end;
    unsigned long n = strtoul(text, &end, 10);
    sim_tenants_free(t);
    if (*text >= '0' && *text <= '9' && !*end) return ask_equal(t, n, why, cap);
    for (const char *p = text;; p = end + 1) {
        size_t len = strcspn(p, "=,");
        double share = 1;
        end = (char *)(size_t)p + len;
        if (!len) return fail(why, cap, "a tenant's name is missing in '%s'", text);
        if (*end == '=') {
            share = strtod(p + len + 1, &end);
            if (end == p + len + 1 || (*end && *end != ',') || !(share > 0 && share <= 1e9))
                return fail(why, cap, "the share of '%.*s' must be a number above 0", (int)len, p);
        }
        uint32_t before = t->n, row = sim_tenants_row(t, p, len, 0);
        if (row == SIM_NONE) return fail(why, cap, "out of memory");
        if (row < before) return fail(why, cap, "'%.*s' is named twice", (int)len, p);
        if (t->n > SIM_TENANTS_MOST) return fail(why, cap, "at most %d tenants", SIM_TENANTS_MOST);
        t->shares += t->v[row].share = share;
        if (!*end) return 0;
    }
}

/* Rows as they are with that tenant's priority; *known: whether there is one. */
static int one_priority(sim_tenants *t, const char *name, size_t len, int32_t priority, int *known)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (is_named(&t->v[i], name, len)) {
            t->v[i].priority = priority;
            *known = 1;
        }
    return *known ? 0 : -1;
}

/* Rows that have become alike are one. */
static int unite(sim_tenants *t, uint32_t *became)
{
    sim_tenants fresh = {.shares = t->shares};
    for (uint32_t i = 0; i < t->n; i++) {
        const sim_tenant *x = &t->v[i];
        became[i] = sim_tenants_row(&fresh, x->name, strlen(x->name), x->priority);
        if (became[i] == SIM_NONE) {
            sim_tenants_free(&fresh);
            return -1;
        }
        fresh.v[became[i]].share += x->share;
    }
    sim_tenants_free(t);
    *t = fresh;
    return 0;
}

int sim_tenants_prioritise(sim_tenants *t, const char *text, uint32_t *became, char *why, size_t cap)
{
    char *end;
    for (const char *p = text;; p = end + 1) {
        size_t len = strcspn(p, "=,");
        int    known = 0;
        if (!len || p[len] != '=') return fail(why, cap, "NAME=N is needed, not '%s'", p);
        long n = strtol(p + len + 1, &end, 10);
        if (end == p + len + 1 || (*end && *end != ',') || n < INT32_MIN || n > INT32_MAX) return fail(why, cap, "the priority of '%.*s' must be a whole number", (int)len, p);
        if (one_priority(t, p, len, (int32_t)n, &known)) return fail(why, cap, "there is no tenant '%.*s'", (int)len, p);
        if (!*end) break;
    }
    return unite(t, became) ? fail(why, cap, "out of memory") : 0;
}

uint32_t sim_tenants_draw(const sim_tenants *t, uint64_t seed, uint64_t conversation)
{
    uint64_t state = seed * 0x9E3779B97F4A7C15u ^ conversation * 0xD1B54A32D192ED03u;
    (void)sim_next(&state);
    double at = sim_uniform(&state) * t->shares;
    for (uint32_t i = 0; i + 1 < t->n; i++)
        if ((at -= t->v[i].share) < 0) return i;
    return t->n - 1;
}
