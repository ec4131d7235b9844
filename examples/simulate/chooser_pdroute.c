/*
 * The real library as a policy of the laboratory, through its public API alone: one router in memory, a lease per gateway process, requests routed or held,
 * tickets taken as they are released, and every request's exchange told what a gateway would see on the wire (heads, first bytes, ends with usage). Loads
 * are put in as scrapes bring them. Nothing of a policy, an index, a ledger or a queue is here.
 *
 * Prompts come as block hashes with an exact token count, as from a caller with a tokenizer. Endpoints are put as /server_info would describe them:
 * role, KV memory (prefill: what its prefix cache holds, host tier included), most running requests. Everything else is the library's default, unless a setting says otherwise:
 *   hold=0          never hold                          policy=NAME   another of the library's own policies
 *   alone=1         decode servers may do a request alone as well (PDR_ENDPOINT_ALONE)
 *   both=1          decode servers do requests alone, and decode for no pair            costs=believed  priors from the laboratory's believed costs, not the library's
 *   scrapes=0       loads are not put in                index=N       entries of the prefix index
 *   cache=0         nobody told the library of a host tier: prefill endpoints are put with their HBM only
 *   transfer=X      transfers as the library believes them, times X (1)
 *   tenants=0       it is not told whose requests are    priorities=0    nor how urgent they are
 *   join=S          the last prefill server is put S seconds after the beginning: it joins cold (0: it is there from the beginning)
 *   whole=1         clients want whole answers, not streams: first tokens are not told  tick=MS       milliseconds between pdr_tick()s, as the gateways' (100)
 */
#include "chooser.h"

#include "pdroute/pdroute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TENANT_HEADER "x-tenant-id"

enum { CANDIDATES = 2048, START_S = 1 /* virtual time begins at 0, which the library takes for "not said" */ };

typedef struct entry { /* a request */
    const sim_request *q;
    uint64_t          *hashes;
    pdr_decision       d;
    pdr_exchange       x;
    uint64_t           ticket;
    uint32_t           cached;
    uint32_t           seen; /* decode's first byte was told */
} entry;

typedef struct driver {
    sim_gateway   *g;
    void          *mem;
    pdr_router    *r;
    uint32_t       n, *worker_of, *endpoint_of; /* by endpoint id; by worker */
    uint32_t       leases[64], gateways;
    entry        **entries; /* by request id */
    size_t         cap;
    uint32_t      *held, held_n, held_cap; /* ids */
    int            scrapes, whole, tenants, priorities;
    int64_t        tick_ns, join_ns; /* > 0: the server that joins is not there yet */
    uint32_t       joins;            /* which */
    const char    *settings;
    pdr_config     config;
    pdr_candidate *candidates;
} driver;

static uint64_t now(const driver *s) { return (uint64_t)(sim_now(s->g) + START_S * SIM_SECOND); }

static void *must(void *p)
{
    if (!p) {
        fputs("simulate: out of memory\n", stderr);
        exit(1);
    }
    return p;
}

static uint64_t mix(uint64_t x) /* splitmix64: block numbers become hashes */
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* ---- making */

static int policy_named(const char *name, uint32_t *out)
{
    static const char *const names[] = {"default", "round_robin", "random", "least_tokens", "power_of_two"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name)) {
            *out = i;
            return 0;
        }
    return -1;
}

static int configure(const sim_gateway *g, const char *settings, uint32_t workers, pdr_config *c, char *why, size_t cap)
{
    const sim_costs *k = sim_costs_of(g);
    char             text[64] = "default";
    pdr_init_struct(c, sizeof *c);
    sim_setting_text(settings, "policy", text, sizeof text);
    if (policy_named(text, &c->policy)) {
        snprintf(why, cap, "the library has no policy '%s'", text);
        return -1;
    }
    c->max_endpoints = c->max_targets = workers;
    snprintf(c->tenant_header, sizeof c->tenant_header, TENANT_HEADER);
    c->max_held = 65536;
    c->max_bookings = 262144;
    c->hold_max_wait_ms = (uint32_t)(sim_setting(settings, "wait", 3600) * 1000); /* s; nobody gives up here: the longest wait is a result */
    c->hold_ageing_ms = (uint32_t)sim_setting(settings, "ageing", 0);
    c->index_entries = (uint64_t)sim_setting(settings, "index", 1 << 22);
    c->max_blocks = 16384;
    c->block_bytes = k->block * 4; /* only for estimates: hashes come ready made */
    c->seed = 1 + (uint64_t)sim_gateways(g);
    c->hold = sim_setting(settings, "hold", 1) != 0 ? PDR_HOLD_ON : PDR_HOLD_OFF;
    double slower = sim_setting(settings, "transfer", 1);
    if (slower != 1) {
        c->transfer_latency_us = (uint32_t)(5000 * slower); /* the defaults */
        c->kv_bytes_per_token = (uint32_t)(262144 * slower);
    }
    if (sim_setting_text(settings, "costs", text, sizeof text) && !strcmp(text, "believed")) {
        c->prefill_base_us = (uint32_t)(k->prefill_base * 1e6);
        c->prefill_ns_per_token = (uint32_t)(k->prefill_token * 1e9);
        c->prefill_fs_per_token2 = (uint32_t)(k->prefill_pair * 1e15);
        c->decode_us_per_request = (uint32_t)(k->step_request * 1e6);
        c->decode_ps_per_token = (uint32_t)(k->step_token * 1e12);
    }
    return 0;
}

static int put_worker(driver *s, uint32_t i, char *why, size_t cap)
{
    const sim_costs  *k = sim_costs_of(s->g);
    uint32_t          prefills, decodes, id;
    const sim_worker *w = sim_workers(s->g, &prefills, &decodes);
    pdr_endpoint      e;
    pdr_error         err;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&e, sizeof e);
    snprintf(e.host, sizeof e.host, "worker%u", i);
    e.port = 30000;
    e.role = w[i].prefill ? PDR_ROLE_PREFILL : sim_setting(s->settings, "both", 0) != 0 ? PDR_ROLE_BOTH : PDR_ROLE_DECODE;
    if (!w[i].prefill && sim_setting(s->settings, "alone", 0) != 0) e.flags |= PDR_ENDPOINT_ALONE;
    e.kv_capacity = w[i].prefill && sim_setting(s->settings, "cache", 1) != 0 ? k->cache_tokens : k->kv_tokens;
    e.max_running = w[i].prefill ? 0 : k->max_running;
    if (w[0].rack != w[s->n - 1].rack || w[0].zone != w[s->n - 1].zone) { /* a topology is known */
        snprintf(e.topology_host, sizeof e.topology_host, "h%u", w[i].host);
        snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", w[i].rack);
        snprintf(e.topology_zone, sizeof e.topology_zone, "z%u", w[i].zone);
    }
    if (pdr_endpoint_put(s->r, &e, now(s), &id, &err)) {
        snprintf(why, cap, "%s", err.message);
        return -1;
    }
    s->endpoint_of[i] = id;
    s->worker_of[id] = i;
    return 0;
}

static int put_workers(driver *s, char *why, size_t cap)
{
    uint32_t prefills, decodes;
    (void)sim_workers(s->g, &prefills, &decodes);
    s->joins = prefills - 1;
    s->join_ns = (int64_t)(sim_setting(s->settings, "join", 0) * 1e9);
    if (s->join_ns > 0 && prefills < 2) {
        snprintf(why, cap, "join: there must be a prefill server beside the one that joins");
        return -1;
    }
    for (uint32_t i = 0; i < s->n; i++)
        if ((s->join_ns <= 0 || i != s->joins) && put_worker(s, i, why, cap)) return -1;
    return 0;
}

static void destroy(void *self)
{
    driver *s = self;
    for (size_t i = 0; i < s->cap; i++) {
        if (s->entries[i]) free(s->entries[i]->hashes);
        free(s->entries[i]);
    }
    free(s->entries);
    free(s->held);
    free(s->worker_of);
    free(s->endpoint_of);
    free(s->candidates);
    free(s->mem);
    free(s);
}

static void *create(sim_gateway *g, const char *settings, char *why, size_t cap)
{
    static const char *const known[] = {"hold", "policy", "both", "alone", "costs", "scrapes", "index", "cache", "transfer", "whole", "tick", "wait", "ageing", "join", "tenants", "priorities", NULL};
    uint32_t   prefills, decodes;
    pdr_config c;
    pdr_error  err;
    size_t     size;
    pdr_init_struct(&err, sizeof err);
    if (sim_settings_known(settings, known, why, cap)) return NULL;
    driver *s = must(calloc(1, sizeof *s));
    s->g = g;
    s->settings = settings;
    (void)sim_workers(g, &prefills, &decodes);
    s->n = prefills + decodes;
    s->scrapes = sim_setting(settings, "scrapes", 1) != 0;
    s->whole = sim_setting(settings, "whole", 0) != 0;
    s->tenants = sim_setting(settings, "tenants", 1) != 0;
    s->priorities = sim_setting(settings, "priorities", 1) != 0;
    s->tick_ns = (int64_t)(sim_setting(settings, "tick", 100) * 1e6);
    if (s->tick_ns < 1000) s->tick_ns = 1000;
    s->worker_of = must(calloc(s->n, sizeof *s->worker_of));
    s->endpoint_of = must(calloc(s->n, sizeof *s->endpoint_of));
    if (sim_recording(g)) s->candidates = must(calloc(CANDIDATES, sizeof *s->candidates));
    s->gateways = sim_gateways(g) < 64 ? sim_gateways(g) : 64;
    if (configure(g, settings, s->n, &c, why, cap)) goto fail;
    s->config = c;
    if (!(size = pdr_router_size(&c))) {
        pdr_config_resolve(&c, &err);
        snprintf(why, cap, "%s", err.message);
        goto fail;
    }
    s->mem = must(aligned_alloc(64, (size + 63) & ~(size_t)63));
    if (pdr_router_init(s->mem, size, &c, 1, &s->r, &err)) {
        snprintf(why, cap, "%s", err.message);
        goto fail;
    }
    if (put_workers(s, why, cap)) goto fail;
    for (uint32_t i = 0; i < s->gateways; i++)
        if (pdr_lease_open(s->r, "gateway", now(s), &s->leases[i], &err)) {
            snprintf(why, cap, "%s", err.message);
            goto fail;
        }
    sim_wake(g, sim_now(g) + s->tick_ns);
    return s;
fail:
    destroy(s);
    return NULL;
}

/* ---- deciding */

static void fatal(const driver *s, const sim_request *q, const char *call, int code)
{
    fprintf(stderr, "simulate: pdroute: %s of request %u at %.3f s: %s\n", call, q->id, (double)sim_now(s->g) * 1e-9, pdr_strerror(code));
    exit(1);
}

static void send_it(driver *s, entry *e)
{
    pdr_action a[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    pdr_init_struct(&e->x, sizeof e->x);
    int code = pdr_exchange_begin(s->r, &e->x, &e->d, s->leases[e->q->gateway % s->gateways], now(s), a, &n);
    if (code) fatal(s, e->q, "pdr_exchange_begin", code);
    sim_send(s->g, e->q, e->d.prefill == PDR_NONE ? SIM_NONE : s->worker_of[e->d.prefill], s->worker_of[e->d.decode]);
}

static uint32_t held_at(const driver *s, uint64_t ticket)
{
    for (uint32_t i = 0; i < s->held_n; i++)
        if (s->entries[s->held[i]]->ticket == ticket) return i;
    return SIM_NONE;
}

/* After whatever may have released tickets: each gateway process takes its own. */
static void take_released(driver *s)
{
    uint64_t tickets[64];
    for (uint32_t g = 0; g < s->gateways; g++)
        for (size_t n = 64; !pdr_released(s->r, s->leases[g], tickets, &n) && n; n = 64)
            for (size_t i = 0; i < n; i++) {
                uint32_t at = held_at(s, tickets[i]);
                if (at == SIM_NONE) continue;
                entry *e = s->entries[s->held[at]];
                s->held[at] = s->held[--s->held_n];
                pdr_init_struct(&e->d, sizeof e->d);
                int code = pdr_ticket_take(s->r, tickets[i], e->hashes, e->q->n, now(s), &e->d, NULL);
                if (code == PDR_OK)
                    send_it(s, e);
                else if (code == PDR_E_EXPIRED || code == PDR_E_NO_PAIR)
                    sim_refuse(s->g, e->q, (double)e->d.retry_after_ms * 1e-3);
                else
                    fatal(s, e->q, "pdr_ticket_take", code);
            }
}

static void explain(driver *s, const entry *e, const pdr_prompt *p, const pdr_request *k)
{
    pdr_decision d;
    size_t       n = CANDIDATES;
    pdr_init_struct(&d, sizeof d);
    if (pdr_explain(s->r, p, e->hashes, e->q->n, k, &d, s->candidates, &n, NULL)) return;
    for (size_t i = 0; i < n && i < CANDIDATES; i++) {
        const pdr_candidate *c = &s->candidates[i];
        const sim_term       terms[SIM_TERMS] = {
            {"wait", (double)c->wait_us * 1e-6},         {"work", (double)c->work_us * 1e-6},   {"price", (double)c->price_us * 1e-6},
            {"transfer", (double)c->transfer_us * 1e-6}, {"matched", (double)c->matched_tokens}, {"barred", c->barred}};
        sim_candidate(s->g, e->q, s->worker_of[c->endpoint], (int)c->chosen, (double)c->cost_us * 1e-6, terms, SIM_TERMS);
    }
}

static entry *entry_of(driver *s, const sim_request *q)
{
    if (q->id >= s->cap) {
        size_t cap = s->cap ? s->cap : 1024;
        while (cap <= q->id) cap *= 2;
        s->entries = must(realloc(s->entries, cap * sizeof *s->entries));
        memset(s->entries + s->cap, 0, (cap - s->cap) * sizeof *s->entries);
        s->cap = cap;
    }
    if (!s->entries[q->id]) {
        entry *e = s->entries[q->id] = must(calloc(1, sizeof *e));
        e->q = q;
        e->hashes = must(malloc((q->n + 1u) * sizeof *e->hashes));
        for (uint32_t i = 0; i < q->n; i++) e->hashes[i] = mix(q->blocks[i]);
    }
    return s->entries[q->id];
}

/* As a gateway that is told the tenant by a header and the priority by whoever configured it. */
static void say_who_pays(const driver *s, const sim_request *q, pdr_request *k)
{
    int32_t     priority;
    const char *name = sim_tenant_of(s->g, q, &priority);
    if (s->tenants && *name) k->tenant = pdr_tenant_hash(&s->config, TENANT_HEADER, sizeof TENANT_HEADER - 1, name, strlen(name));
    if (s->priorities) k->priority = priority;
}

static void arrive(void *self, const sim_request *q)
{
    driver     *s = self;
    entry      *e = entry_of(s, q);
    pdr_prompt  p;
    pdr_request k;
    pdr_init_struct(&p, sizeof p);
    p.api = PDR_API_GENERATE;
    p.flags = PDR_PROMPT_TOKENS | (s->whole ? 0 : PDR_PROMPT_STREAM);
    p.batch = p.samples = 1;
    p.prompt_tokens = q->in;
    p.blocks = q->n;
    pdr_init_struct(&k, sizeof k);
    k.api = PDR_API_GENERATE;
    k.lease = s->leases[q->gateway % s->gateways];
    k.now_ns = now(s);
    if (q->tenant != SIM_NONE) say_who_pays(s, q, &k);
    if (sim_recording(s->g)) explain(s, e, &p, &k);
    pdr_init_struct(&e->d, sizeof e->d);
    int code = pdr_route_prompt(s->r, &p, e->hashes, q->n, &k, &e->d, NULL);
    if (code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL || code == PDR_E_FULL) {
        sim_refuse(s->g, q, (double)e->d.retry_after_ms * 1e-3);
    } else if (code) {
        fatal(s, q, "pdr_route_prompt", code);
    } else if (e->d.outcome == PDR_HELD) {
        e->ticket = e->d.booking;
        if (s->held_n == s->held_cap) {
            s->held_cap = s->held_cap ? 2 * s->held_cap : 256;
            s->held = must(realloc(s->held, s->held_cap * sizeof *s->held));
        }
        s->held[s->held_n++] = q->id;
        sim_note(s->g, q, "held");
    } else {
        send_it(s, e);
    }
    take_released(s);
}

/* ---- what a gateway sees afterwards */

static void tell(driver *s, const sim_request *q, uint32_t type, uint32_t leg, int usage, uint32_t completion)
{
    entry     *e = s->entries[q->id];
    pdr_action a[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    pdr_event  ev;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.status = 200;
    ev.attempt = e->x.attempt;
    ev.now_ns = now(s);
    if (usage) {
        ev.usage = 1;
        ev.prompt_tokens = q->in;
        ev.cached_tokens = e->cached;
        ev.completion_tokens = completion;
    }
    int code = pdr_exchange_event(s->r, &e->x, &ev, a, &n);
    if (code) fatal(s, q, "pdr_exchange_event", code);
}

static void usage(void *self, const sim_request *q, uint32_t cached)
{
    driver *s = self;
    s->entries[q->id]->cached = cached;
}

static void prefill_done(void *self, const sim_request *q, uint32_t worker)
{
    driver *s = self;
    (void)worker;
    if (s->entries[q->id]->d.prefill == PDR_NONE) return; /* a server of both roles says nothing between */
    tell(s, q, PDR_EV_HEAD, PDR_LEG_PREFILL, 0, 0);
    tell(s, q, PDR_EV_BODY, PDR_LEG_PREFILL, 0, 0);
    tell(s, q, PDR_EV_END, PDR_LEG_PREFILL, 1, 1);
    take_released(s);
}

static void answer_begins(driver *s, const sim_request *q)
{
    s->entries[q->id]->seen = 1;
    tell(s, q, PDR_EV_HEAD, PDR_LEG_DECODE, 0, 0);
    tell(s, q, PDR_EV_BODY, PDR_LEG_DECODE, 0, 0);
    tell(s, q, PDR_EV_SENT, PDR_LEG_DECODE, 0, 0);
    take_released(s);
}

static void first_byte(void *self, const sim_request *q)
{
    driver *s = self;
    if (!s->whole) answer_begins(s, q);
}

static void decode_done(void *self, const sim_request *q, uint32_t worker, uint32_t output_tokens)
{
    driver *s = self;
    (void)worker;
    if (!s->entries[q->id]->seen) answer_begins(s, q);
    tell(s, q, PDR_EV_END, PDR_LEG_DECODE, 1, output_tokens);
    take_released(s);
}

static void scraped(void *self, uint32_t worker, const sim_load *load)
{
    driver  *s = self;
    pdr_load l;
    if (!s->scrapes || (s->join_ns > 0 && worker == s->joins)) return;
    pdr_init_struct(&l, sizeof l);
    l.have = PDR_LOAD_RUNNING | PDR_LOAD_WAITING | PDR_LOAD_KV_USED | PDR_LOAD_WAITING_TOKENS | PDR_LOAD_PREFILL_SPEED;
    l.running = load->running;
    l.waiting = load->waiting;
    l.kv_used = load->kv_used;
    l.waiting_tokens = load->waiting_tokens;
    l.prefill_uncached_total = load->prefilled_tokens;
    l.prefill_busy_us_total = load->prefill_busy_us;
    pdr_load_put(s->r, s->endpoint_of[worker], 0, &l, now(s), NULL);
    take_released(s);
}

static void tick(void *self)
{
    driver *s = self;
    char    why[200];
    if (s->join_ns > 0 && sim_now(s->g) >= s->join_ns) {
        s->join_ns = 0;
        if (put_worker(s, s->joins, why, sizeof why)) fprintf(stderr, "simulate: pdroute: %s\n", why), exit(1);
    }
    for (uint32_t i = 0; i < s->gateways; i++) pdr_lease_renew(s->r, s->leases[i], now(s));
    pdr_tick(s->r, now(s));
    take_released(s);
    sim_wake(s->g, sim_now(s->g) + s->tick_ns);
}

const sim_chooser sim_pdroute = {
    .name = "pdroute",
    .settings = "hold=1,policy=default,both=0,alone=0,costs=default,scrapes=1,index=4194304,cache=1,transfer=1,join=0,whole=0,tick=100,tenants=1,priorities=1",
    .about = "the library itself, with its defaults (docs/scheduling.md)",
    .own_books = 1,
    .create = create,
    .destroy = destroy,
    .arrive = arrive,
    .prefill_done = prefill_done,
    .decode_done = decode_done,
    .scraped = scraped,
    .tick = tick,
    .usage = usage,
    .first_byte = first_byte,
};
