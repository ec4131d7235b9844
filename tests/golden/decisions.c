/*
 * A fixed sequence of calls, and a hash of everything that the library answered: decisions, rewritten bodies, explanations, exchanges, status. The same
 * on every platform and with every compiler.
 *   decisions            prints one line per policy
 *   decisions FILE       compares with FILE: a change of policy changes it on purpose, anything else must not
 */
#include "pdroute/pdroute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFILLS = 9, DECODES = 6, STEPS = 4000, FLIGHT = 24, LINE = 160 };

typedef struct run {
    pdr_router *r;
    uint64_t    hash, random, now;
    uint32_t    lease, sent, held, refused;
    struct { pdr_exchange x; uint64_t booking; int held; } flight[FLIGHT];
    uint32_t    in_flight;
} run;

static void mix_bytes(run *t, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) t->hash = (t->hash ^ ((const unsigned char *)p)[i]) * 0x100000001B3u;
}

static void mix(run *t, uint64_t v)
{
    for (int i = 0; i < 8; i++) t->hash = (t->hash ^ (v >> 8 * i & 255)) * 0x100000001B3u;
}

static uint32_t below(run *t, uint32_t n)
{
    t->random = t->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(t->random >> 33) % n;
}

static void mix_decision(run *t, const pdr_decision *d)
{
    mix_bytes(t, d, offsetof(pdr_decision, prefill_host));
    mix_bytes(t, d->prefill_host, strlen(d->prefill_host) + 1);
    mix_bytes(t, d->decode_host, strlen(d->decode_host) + 1);
    mix_bytes(t, d->bootstrap_host, strlen(d->bootstrap_host) + 1);
}

static void put_servers(run *t)
{
    for (uint32_t i = 0; i < PREFILLS + DECODES; i++) {
        pdr_endpoint e;
        pdr_init_struct(&e, sizeof e);
        e.role = i < PREFILLS ? PDR_ROLE_PREFILL : PDR_ROLE_DECODE;
        e.port = 8000 + i;
        e.dp_size = i == 2 || i == PREFILLS ? 4 : 0;
        e.kv_capacity = 400000 + 1000 * i;
        snprintf(e.host, sizeof e.host, "10.0.0.%u", i + 1);
        snprintf(e.topology_host, sizeof e.topology_host, "h%u", i % 5);
        snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", i % 3);
        snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", i % 2);
        mix(t, (uint64_t)(int64_t)pdr_endpoint_put(t->r, &e, t->now, NULL, NULL));
    }
}

/* A conversation's body: text of several scripts, escapes, sometimes what a client must not set. */
static size_t make_body(run *t, char *body, size_t cap)
{
    static const char *const words[] = {"hello ", "你好,", "quoted \\\"word\\\" ", "\\u00e9t\\u00e9 ", "\\ud83d\\ude00 ", "a longer piece of text, said again and again ", "Ω≈ç "};
    uint32_t talk = below(t, 40), turns = 1 + below(t, 12);
    uint64_t kept = t->random;
    int      n = snprintf(body, cap, "{\"model\": \"m%u\", %s\"messages\": [", talk % 2, below(t, 5) ? "" : "\"bootstrap\\u005froom\": 7, ");
    for (uint32_t i = 0; i < turns; i++) {
        t->random = ((uint64_t)talk << 32 | i) * 0x9E3779B97F4A7C15u;
        n += snprintf(body + n, cap - (size_t)n, "%s{\"role\": \"%s\", \"content\": \"", i ? ", " : "", i % 2 ? "assistant" : "user");
        for (uint32_t w = 20 + below(t, 60); w; w--) n += snprintf(body + n, cap - (size_t)n, "%s", words[below(t, 7)]);
        n += snprintf(body + n, cap - (size_t)n, "\"}");
    }
    t->random = kept * 3 + 1;
    uint32_t most = 1 + below(t, 500), stream = below(t, 2); /* in this order, whatever the compiler */
    n += snprintf(body + n, cap - (size_t)n, "], \"max_tokens\": %u, \"stream\": %s }", most, stream ? "true" : "false");
    return (size_t)n;
}

static void begin_exchange(run *t, uint32_t i, const pdr_decision *d)
{
    pdr_action a[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    t->flight[i].held = 0;
    t->flight[i].booking = d->booking;
    pdr_init_struct(&t->flight[i].x, sizeof t->flight[i].x);
    mix(t, (uint64_t)(int64_t)pdr_exchange_begin(t->r, &t->flight[i].x, d, t->lease, t->now, a, &n));
    mix_bytes(t, a, n * sizeof *a);
    t->sent++;
}

static void route(run *t)
{
    static char   body[100000], out[110000];
    pdr_request   q;
    pdr_prompt    p;
    pdr_decision  d;
    pdr_candidate c[64];
    uint64_t      hashes[512];
    size_t        len = make_body(t, body, sizeof body), need, n = 64;
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&d, sizeof d);
    q.api = PDR_API_CHAT;
    q.lease = t->lease;
    q.now_ns = t->now;
    q.priority = (int32_t)below(t, 3) - 1;
    if (below(t, 8) == 0) q.exclude[q.excluded++] = below(t, PREFILLS + DECODES);
    int code = pdr_scan(body, len, PDR_API_CHAT, &(pdr_limits){.struct_size = sizeof(pdr_limits), .block_bytes = 256}, &p, hashes, 512, NULL);
    mix(t, (uint64_t)(int64_t)code);
    mix_bytes(t, hashes, p.blocks * sizeof *hashes);
    if (!below(t, 10)) {
        mix(t, (uint64_t)(int64_t)pdr_explain(t->r, &p, hashes, p.blocks, &q, &d, c, &n, NULL));
        mix_bytes(t, c, n * sizeof *c);
        mix_decision(t, &d);
    }
    code = pdr_route(t->r, body, len, &q, &p, &d, NULL);
    mix(t, (uint64_t)(int64_t)code);
    mix_decision(t, &d);
    if (code) {
        t->refused++;
        return;
    }
    if (d.outcome == PDR_HELD) {
        t->flight[t->in_flight].held = 1;
        t->flight[t->in_flight++].booking = d.booking;
        t->held++;
        return;
    }
    for (int leg = 0; leg < 2; leg++) {
        mix(t, (uint64_t)(int64_t)pdr_rewrite(&d, &p, leg, body, len, out, sizeof out, &need));
        mix_bytes(t, out, need);
    }
    begin_exchange(t, t->in_flight++, &d);
}

static void advance(run *t)
{
    uint32_t     i = below(t, t->in_flight);
    pdr_decision d;
    pdr_event    ev;
    pdr_action   a[PDR_MAX_ACTIONS];
    size_t       n = PDR_MAX_ACTIONS;
    if (t->flight[i].held) {
        pdr_init_struct(&d, sizeof d);
        int code = pdr_ticket_take(t->r, t->flight[i].booking, NULL, 0, t->now, &d, NULL);
        mix(t, (uint64_t)(int64_t)code);
        mix_decision(t, &d);
        if (!code) begin_exchange(t, i, &d);
        else if (code != PDR_E_AGAIN) t->flight[i] = t->flight[--t->in_flight];
        return;
    }
    pdr_init_struct(&ev, sizeof ev);
    ev.type = below(t, 20) ? 1 + below(t, 3) : 4 + below(t, 4);
    ev.leg = below(t, 2);
    ev.status = below(t, 40) ? 200 : 500;
    ev.detail = 1 + below(t, 5);
    ev.attempt = t->flight[i].x.attempt;
    ev.now_ns = t->now;
    ev.usage = 1;
    ev.prompt_tokens = 500 + below(t, 1000);
    ev.cached_tokens = below(t, 500);
    ev.completion_tokens = below(t, 300);
    mix(t, (uint64_t)(int64_t)pdr_exchange_event(t->r, &t->flight[i].x, &ev, a, &n));
    mix_bytes(t, a, n * sizeof *a);
    for (size_t k = 0; k < n; k++) {
        if (a[k].type == PDR_ACT_ROUTE) {
            n = PDR_MAX_ACTIONS;
            mix(t, (uint64_t)(int64_t)pdr_exchange_rerouted(t->r, &t->flight[i].x, NULL, PDR_E_NO_PAIR, t->now, a, &n));
            k = (size_t)-1;
        } else if (a[k].type == PDR_ACT_FINISH) {
            t->flight[i] = t->flight[--t->in_flight];
            return;
        }
    }
}

/* The block's size is that of this machine's mutex, too. */
static void blank_size(char *json)
{
    char *at = strstr(json, "\"block_bytes\":");
    for (at = at ? at + 14 : json + strlen(json); *at >= '0' && *at <= '9'; at++) *at = '0';
}

static void report(run *t)
{
    char     text[256];
    uint32_t id = below(t, PREFILLS + DECODES);
    if (below(t, 12) == 0) {
        mix(t, (uint64_t)(int64_t)pdr_endpoint_health(t->r, id, (int)below(t, 4), t->now, NULL));
    } else {
        uint32_t running = below(t, 20), queued = below(t, 5), used = below(t, 3000);
        int      n = snprintf(text, sizeof text, "sglang:num_running_reqs{x=\"1\"} %u\nsglang:num_queue_reqs %u.0\nsglang:num_used_tokens %ue2\n", running, queued, used);
        mix(t, (uint64_t)(int64_t)pdr_report_put(t->r, id, PDR_REPORT_PROMETHEUS, text, (size_t)n, t->now, NULL, NULL));
    }
}

static int play(uint32_t policy, char *line)
{
    static char buf[1 << 18];
    run        *t = calloc(1, sizeof *t);
    pdr_config  c;
    pdr_error   err;
    size_t      need;
    if (!t) return -1;
    pdr_init_struct(&c, sizeof c);
    pdr_init_struct(&err, sizeof err);
    c.policy = policy;
    c.max_endpoints = 16;
    c.max_targets = 32;
    c.max_bookings = 64;
    c.index_entries = 4096;
    c.block_bytes = 256;
    c.hold_window_tokens = 3000;
    c.seed = 20 + policy;
    t->hash = 0xCBF29CE484222325u;
    t->random = 1;
    t->now = 1000000000000u;
    size_t size = pdr_router_size(&c);
    void  *mem = aligned_alloc(64, size);
    if (!mem || pdr_router_init(mem, size, &c, 1, &t->r, &err)) return fprintf(stderr, "%s\n", err.message), -1;
    put_servers(t);
    pdr_lease_open(t->r, "golden", t->now, &t->lease, NULL);
    for (int i = 0; i < STEPS; i++) {
        t->now += below(t, 20000000);
        uint32_t what = below(t, 16);
        if (what < 3 && t->in_flight < FLIGHT) route(t);
        else if (what < 14 && t->in_flight) advance(t);
        else if (what == 14) report(t);
        else mix(t, (uint64_t)(int64_t)pdr_tick(t->r, t->now));
        if (i % 100 == 0) {
            mix(t, (uint64_t)(int64_t)pdr_status_json(t->r, t->now, buf, sizeof buf, &need));
            blank_size(buf);
            mix_bytes(t, buf, need < sizeof buf ? need : sizeof buf);
        }
    }
    int code = pdr_router_check(t->r, &err);
    if (code) fprintf(stderr, "%s\n", err.message);
    snprintf(line, LINE, "policy %u: sent %u, held %u, refused %u, everything %016llx", policy, t->sent, t->held, t->refused, (unsigned long long)t->hash);
    free(mem);
    free(t);
    return code;
}

int main(int argc, char **argv)
{
    FILE *golden = argc > 1 ? fopen(argv[1], "r") : NULL;
    int   bad = argc > 1 && !golden;
    for (uint32_t policy = PDR_POLICY_DEFAULT; policy <= PDR_POLICY_POWER_OF_TWO; policy++) {
        char line[LINE], want[LINE] = "";
        if (play(policy, line)) return 2;
        puts(line);
        if (!golden) continue;
        if (!fgets(want, sizeof want, golden)) want[0] = 0;
        want[strcspn(want, "\n")] = 0;
        if (strcmp(line, want)) bad = 1, printf("FAIL expected: %s\n", want);
    }
    if (golden) fclose(golden);
    return bad;
}
