/*
 * Made-up traces, for tests and for trying things without a download. Deterministic in their settings.
 *   synthetic:chat      conversations: a common system prompt (first block), 1 + geometric turns, lognormal lengths; about 12 k tokens a prompt
 *   synthetic:tools     few hot system prompts: 46, 39 and 15 % of requests, 6 k tokens each, short answers
 *   synthetic:lengths   independent prompts, nothing shared: for queueing theory
 *   synthetic:agents    closed loop: sessions of some forty turns that grow from 15 k tokens, think times of seconds
 * Settings: n requests (4000), seed (1), rate per second (3.4; agents: sessions per hour, 100).
 */
#include "trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double normal(uint64_t *r) { return sqrt(-2 * log(1 - sim_uniform(r))) * cos(6.283185307179586 * sim_uniform(r)); }

/* Lognormal with this median and spread, at least 1, at most `most`. */
static uint32_t tokens(uint64_t *r, double median, double sigma, double most)
{
    double v = median * exp(sigma * normal(r));
    return (uint32_t)(v < 1 ? 1 : v > most ? most : v);
}

static double wait(uint64_t *r, double mean) { return -log(1 - sim_uniform(r)) * mean; }

/* A prompt whose first `shared` tokens are of group `group` and whose rest belongs to its session: block ids are chains, so a block that is partly of the session is the
 * session's; the last, if not full, is this prompt's alone. */
static int put(sim_trace *t, double at, double think, uint32_t session, uint32_t in, uint32_t out, uint64_t group, uint32_t shared)
{
    sim_entry *e = sim_trace_add(t);
    if (!e) return -1;
    e->at = at;
    e->think = think;
    e->session = session;
    e->in = in;
    e->out = out;
    e->n = (in + t->block - 1) / t->block;
    uint64_t alone = ((uint64_t)1 << 62) + t->n;
    for (uint32_t i = 0; i < e->n; i++) {
        uint64_t end = (uint64_t)(i + 1) * t->block, id = ((uint64_t)(session + 1) << 24) + i;
        if (end <= shared) id = ((uint64_t)1 << 61) + (group << 24) + i;
        if (sim_trace_id(t, end > in ? alone : id)) return -1;
    }
    return 0;
}

static int make_chat(sim_trace *t, size_t n, double rate, uint64_t *r, int agents)
{
    double   start = 0, turns = agents ? 40 : 2.5;
    uint32_t most = agents ? 131072 : 126000;
    for (uint32_t session = 0; t->n < n; session++) {
        double   at = start += wait(r, turns / rate);
        uint32_t in = agents ? 15000 + tokens(r, 3000, 1, 40000) : 512 + tokens(r, 5000, 1.1, 90000), turn = 0;
        do {
            uint32_t out = agents ? tokens(r, 216, 1.2, 8000) : tokens(r, 300, .7, 2000);
            if (put(t, agents ? at - start : at, turn ? wait(r, agents ? 14 : 1) : 0, session, in, out, agents ? session % 7 : 0, agents ? 15000 : 512)) return -1;
            at += 20 + wait(r, 100);
            in += out + (agents ? tokens(r, 700, 1.4, 20000) : tokens(r, 400, 1.2, 30000));
            turn++;
        } while (t->n < n && in < most && sim_uniform(r) < 1 - 1 / turns);
    }
    return 0;
}

static int make_single(sim_trace *t, size_t n, double rate, uint64_t *r, int tools)
{
    double at = 0;
    for (uint32_t i = 0; i < n; i++) {
        double   u = sim_uniform(r);
        uint64_t group = u < .46 ? 0 : u < .85 ? 1 : 2;
        uint32_t in = tools ? 6144 + tokens(r, 1500, .9, 40000) : tokens(r, 4000, 1, 60000);
        at += wait(r, 1 / rate);
        if (put(t, at, 0, i, in, tokens(r, tools ? 150 : 300, .7, 2000), group, tools ? 6144 : 0)) return -1;
    }
    return 0;
}

int sim_trace_make(sim_trace *t, const char *spec, char *why, size_t cap)
{
    static const char *const keys[] = {"n", "seed", "rate", NULL};
    memset(t, 0, sizeof *t);
    const char *kind = strncmp(spec, "synthetic:", 10) ? spec : spec + 10, *settings = strchr(kind, ',');
    size_t      len = settings ? (size_t)(settings - kind) : strlen(kind);
    settings = settings ? settings + 1 : "";
    if (sim_settings_known(settings, keys, why, cap)) return -1;
    int    agents = len == 6 && !strncmp(kind, "agents", len), chat = len == 4 && !strncmp(kind, "chat", len);
    int    tools = len == 5 && !strncmp(kind, "tools", len), lengths = len == 7 && !strncmp(kind, "lengths", len);
    double n = sim_setting(settings, "n", 4000), rate = sim_setting(settings, "rate", agents ? 100 : 3.4);
    if ((!agents && !chat && !tools && !lengths) || !(n >= 1 && n <= 1e7) || !(rate > 0)) {
        snprintf(why, cap, "synthetic traces are chat, tools, lengths, agents (n from 1 to 10000000, rate above 0), not '%s'", spec);
        return -1;
    }
    uint64_t random = (uint64_t)sim_setting(settings, "seed", 1) * 77 + 5;
    snprintf(t->name, sizeof t->name, "synthetic:%.*s", (int)len, kind);
    t->block = 512;
    t->closed = (uint32_t)agents;
    int bad = agents || chat ? make_chat(t, (size_t)n, agents ? rate * 40 / 3600 : rate, &random, agents)
                             : make_single(t, (size_t)n, rate, &random, tools);
    if (bad || sim_trace_finish(t)) {
        snprintf(why, cap, "out of memory");
        return -1;
    }
    if (agents) t->span = t->sessions * 3600 / rate;
    return 0;
}
