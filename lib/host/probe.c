/*
 * The prober: which server is asked what, and when.
 *
 * Each server has two lanes that run side by side, because /health of a PD worker generates a token and takes a second while reports must stay fresh.
 *  - health lane: GET /health each health_interval_ms while up; while down or unknown, after pauses that double from retry_min_ms to
 *    retry_max_ms, counted from start to start, so that a server that is back is seen within retry_max_ms.
 *  - report lane, only while up: GET /server_info once after each recovery, then /v1/loads each interval_ms. A server that does not know
 *    /v1/loads (or answers with what cannot be read) is asked for /metrics, then /prometheus/metrics; one that knows none is asked again each minute.
 *    /v1/loads comes first because SGLang's /metrics shows its PD queues late (6 waiting requests were 0 there and 6 here).
 *
 * What counts as a failure of the server: no connection or a broken one in either lane; in the health lane also no answer in time and any status but 2xx, except
 * 401, 403, 404 and 405, which a server without such a path (or with a key) gives while alive. `down_after` failures in a row take
 * it out, one success of the health lane brings it back. A report that fails otherwise makes the report old, not the server dead.
 */
#ifdef PDR_WITH_CURL
#include "probe_http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS                  1000000u
#define LONG_AGO_RETRY_MS   60000u
#define INFO_TRIES          3u
#define REPORTS_LOST_AFTER  3u
#define SPREAD_FROM         64u   /* that many endpoints at once are asked at once; more are spread over half an interval */
#define NEVER               UINT64_MAX

enum { LANE_HEALTH = 1, LANE_REPORT = 2 };
enum { SOURCE_LOADS = 0, SOURCE_METRICS = 1, SOURCE_METRICS_TRTLLM = 2, SOURCE_NONE = 3 };
enum { ASK_REPORT = 0, ASK_INFO = 1, ASK_INFO_OLD = 2 };

static const char *const source_path[] = {"/v1/loads", "/metrics", "/prometheus/metrics", ""};
static const char *const info_path[] = {"", "/server_info", "/get_server_info"};

typedef struct server {
    pdr_endpoint e;
    uint32_t     id;
    uint32_t     known;      /* PDR_PROBE_UP, PDR_PROBE_DOWN, 0: not known yet */
    uint32_t     failures;   /* in a row */
    uint32_t     source;     /* SOURCE_* */
    uint32_t     ask;        /* ASK_*: what the report lane asks next */
    uint32_t     info_tries;
    uint32_t     report_failures;
    uint32_t     reported;   /* a report came in, or none can be had */
    uint32_t     noted;      /* bits: what was said already since it came up */
    uint32_t     mark;       /* of the last refresh that saw it */
    uint64_t     health_due_ns, report_due_ns;
    pdr_get      health, report;
} server;

enum { NOTED_KEY = 1, NOTED_IGNORED = 2, NOTED_ROLE = 4, NOTED_NONE = 8 };

struct pdr_probe {
    pdr_router       *router;
    pdr_http         *http;
    pdr_probe_options o;
    server          **servers; /* ascending ids */
    size_t            n, cap;
    size_t            turn;    /* where the next search for due servers begins */
    uint64_t          refresh_due_ns, now_ns, random;
    uint32_t          mark;
    uint64_t          requests, failures, reports;
};

/* ------------------------------------------------------------------------------------------------------------------ helpers */

static uint64_t later(pdr_probe *p, uint64_t from_ns, uint32_t ms)
{
    uint64_t span = (uint64_t)ms * MS, r;
    p->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    r = (p->random ^ (p->random >> 30)) * 0xbf58476d1ce4e5b9u;
    r = (r ^ (r >> 27)) * 0x94d049bb133111ebu;
    r ^= r >> 31;
    return from_ns + span - span / 10 + r % (span / 5 + 1);
}

/* The pause after the n-th failure in a row, never longer than retry_max_ms. */
static uint64_t retry_at(pdr_probe *p, uint64_t from_ns, uint32_t n)
{
    uint64_t ms = p->o.retry_min_ms, at, last = from_ns + (uint64_t)p->o.retry_max_ms * MS;
    while (n-- > 1 && ms < p->o.retry_max_ms) ms *= 2;
    if (ms > p->o.retry_max_ms) ms = p->o.retry_max_ms;
    at = later(p, from_ns, (uint32_t)ms);
    return at < last ? at : last;
}

static void tell(pdr_probe *p, const server *s, uint32_t type, uint32_t status, const char *message)
{
    pdr_probe_event e;
    if (!p->o.event) return;
    pdr_init_struct(&e, sizeof e);
    e.type = type;
    e.endpoint = s->id;
    e.status = status;
    e.now_ns = p->now_ns;
    snprintf(e.name, sizeof e.name, "%s", s->e.name);
    snprintf(e.message, sizeof e.message, "%s", message);
    p->o.event(p->o.context, &e);
}

static void note_once(pdr_probe *p, server *s, uint32_t bit, uint32_t status, const char *message)
{
    if (s->noted & bit) return;
    s->noted |= bit;
    tell(p, s, PDR_PROBE_NOTE, status, message);
}

/* --------------------------------------------------------------------------------------------------------- up, down, reports */

static void went_up(pdr_probe *p, server *s, uint32_t status)
{
    s->failures = 0;
    s->health_due_ns = p->o.flags & PDR_PROBE_NO_HEALTH ? NEVER : later(p, s->health.started_ns, p->o.health_interval_ms);
    if (s->known == PDR_PROBE_UP) return;
    s->known = PDR_PROBE_UP;
    s->noted = 0;
    s->source = p->o.flags & PDR_PROBE_NO_LOADS ? SOURCE_METRICS : SOURCE_LOADS;
    s->ask = p->o.flags & PDR_PROBE_NO_INFO ? ASK_REPORT : ASK_INFO;
    s->info_tries = 0;
    s->report_failures = 0;
    s->report_due_ns = p->now_ns;
    pdr_endpoint_health(p->router, s->id, 1, p->now_ns, NULL);
    tell(p, s, PDR_PROBE_UP, status, "answers");
}

static void went_wrong(pdr_probe *p, server *s, uint32_t status, uint64_t started_ns, const char *message)
{
    s->failures++;
    p->failures++;
    if (p->o.flags & PDR_PROBE_NO_HEALTH)
        s->report_due_ns = retry_at(p, started_ns, s->failures);
    else
        s->health_due_ns = retry_at(p, started_ns, s->failures);
    if (s->failures < p->o.down_after || s->known == PDR_PROBE_DOWN) return;
    s->known = PDR_PROBE_DOWN;
    s->reported = 0;
    if (!(p->o.flags & PDR_PROBE_NO_HEALTH)) {
        s->report_due_ns = NEVER;
        pdr_get_cancel(&s->report);
    }
    pdr_endpoint_health(p->router, s->id, 0, p->now_ns, NULL);
    tell(p, s, PDR_PROBE_DOWN, status, message);
}

static int is_ok(const pdr_get *g) { return g->result == PDR_GET_OK && g->status >= 200 && g->status < 300; }
static int is_unknown_path(const pdr_get *g) { return g->result == PDR_GET_OK && (g->status == 404 || g->status == 405 || g->status == 501); }
static int is_forbidden(const pdr_get *g) { return g->result == PDR_GET_OK && (g->status == 401 || g->status == 403); }

static void health_done(pdr_probe *p, server *s)
{
    const pdr_get *g = &s->health;
    char           message[320];
    if (is_ok(g) || is_unknown_path(g) || is_forbidden(g)) {
        went_up(p, s, g->status);
        return;
    }
    if (g->result == PDR_GET_OK)
        snprintf(message, sizeof message, "answered %u to /health", g->status);
    else
        snprintf(message, sizeof message, "%s", g->message);
    went_wrong(p, s, g->status, g->started_ns, message);
}

static void info_done(pdr_probe *p, server *s)
{
    const pdr_get *g = &s->report;
    pdr_error      e;
    pdr_init_struct(&e, sizeof e);
    s->report_due_ns = p->now_ns;
    if (is_ok(g)) {
        int code = pdr_report_put(p->router, s->id, PDR_REPORT_SERVER_INFO, g->body ? g->body : "", g->len, p->now_ns, NULL, &e);
        if (!code && *e.message) note_once(p, s, NOTED_ROLE, g->status, e.message);
        s->ask = ASK_REPORT;
    } else if (is_unknown_path(g) && s->ask == ASK_INFO) {
        s->ask = ASK_INFO_OLD;
    } else if (g->result == PDR_GET_OK && g->status < 500) {
        if (is_forbidden(g)) note_once(p, s, NOTED_KEY, g->status, "wants an API key for /server_info");
        s->ask = ASK_REPORT; /* another engine */
    } else if (++s->info_tries >= INFO_TRIES) {
        s->ask = ASK_REPORT;
    } else {
        s->report_due_ns = later(p, g->started_ns, p->o.interval_ms);
    }
}

/* This source cannot be had from this server: the next one, at once; none: all of them again in a minute. */
static void next_source(pdr_probe *p, server *s)
{
    s->report_due_ns = p->now_ns;
    if (++s->source < SOURCE_NONE) return;
    s->source = p->o.flags & PDR_PROBE_NO_LOADS ? SOURCE_METRICS : SOURCE_LOADS;
    s->reported = 1;
    s->report_due_ns = later(p, p->now_ns, LONG_AGO_RETRY_MS);
    note_once(p, s, NOTED_NONE, s->report.status, "offers neither /v1/loads nor /metrics that can be read");
}

static void report_failed(pdr_probe *p, server *s, const char *message)
{
    s->report_due_ns = later(p, s->report.started_ns, p->o.interval_ms);
    p->failures++;
    s->reported = 1; /* known: there is none at present */
    if (++s->report_failures == REPORTS_LOST_AFTER) tell(p, s, PDR_PROBE_REPORTS_LOST, s->report.status, message);
}

static void report_taken(pdr_probe *p, server *s)
{
    const pdr_get *g = &s->report;
    uint32_t       ignored = 0, kind = s->source == SOURCE_LOADS ? PDR_REPORT_LOADS : PDR_REPORT_PROMETHEUS;
    pdr_error      e;
    int            code;
    pdr_init_struct(&e, sizeof e);
    code = pdr_report_put(p->router, s->id, kind, g->body ? g->body : "", g->len, p->now_ns, &ignored, &e);
    if (code == PDR_E_PARSE) {
        next_source(p, s);
        return;
    }
    s->report_due_ns = later(p, g->started_ns, p->o.interval_ms);
    if (code == PDR_E_NOT_FOUND) p->refresh_due_ns = 0; /* removed meanwhile */
    if (code) return;
    p->reports++;
    s->reported = 1;
    if (s->report_failures >= REPORTS_LOST_AFTER) tell(p, s, PDR_PROBE_REPORTS_BACK, g->status, "reports again");
    s->report_failures = 0;
    if (ignored) {
        char message[128];
        snprintf(message, sizeof message, "%u values of %s cannot be read", ignored, source_path[s->source]);
        note_once(p, s, NOTED_IGNORED, g->status, message);
    }
}

static void report_done(pdr_probe *p, server *s)
{
    const pdr_get *g = &s->report;
    char           message[320];
    int            alone = (p->o.flags & PDR_PROBE_NO_HEALTH) != 0;
    if (g->result == PDR_GET_CONNECT || g->result == PDR_GET_BROKEN || (alone && g->result == PDR_GET_TIMEOUT)) {
        if (!alone) report_failed(p, s, g->message);
        went_wrong(p, s, 0, g->started_ns, g->message);
        return;
    }
    if (alone && g->result == PDR_GET_OK && g->status > 501) { /* a proxy's or a starting server's */
        snprintf(message, sizeof message, "answered %u to %s", g->status, source_path[s->source]);
        went_wrong(p, s, g->status, g->started_ns, message);
        return;
    }
    if (alone && g->result == PDR_GET_OK) went_up(p, s, g->status); /* a server that does not know the path is alive too */
    if (s->ask != ASK_REPORT && g->kind != ASK_REPORT) {
        info_done(p, s);
    } else if (is_ok(g)) {
        report_taken(p, s);
    } else if (g->result == PDR_GET_OK && g->status != 503 && g->status != 429) {
        if (is_forbidden(g)) note_once(p, s, NOTED_KEY, g->status, "wants an API key for its reports");
        next_source(p, s); /* SGLang answers 404 to an unknown path, others 400 or 500 */
    } else {
        if (g->result == PDR_GET_OK)
            snprintf(message, sizeof message, "answered %u to %s", g->status, source_path[s->source]);
        else
            snprintf(message, sizeof message, "%s: %s", source_path[s->source], g->message);
        report_failed(p, s, message);
    }
}

static void on_done(void *context, pdr_get *g)
{
    pdr_probe *p = context;
    server    *s = g->owner;
    p->now_ns = pdr_host_now_ns();
    if (g == &s->health) health_done(p, s);
    else report_done(p, s);
}

/* --------------------------------------------------------------------------------------------------- endpoints of the block */

static void server_free(server *s)
{
    if (!s) return;
    pdr_get_free(&s->health);
    pdr_get_free(&s->report);
    free(s);
}

static int is_same_server(const server *s, const pdr_endpoint *e)
{
    return s->e.port == e->port && !((s->e.flags ^ e->flags) & PDR_ENDPOINT_TLS) && !strcmp(s->e.host, e->host) &&
           !strcmp(s->e.name, e->name);
}

static void server_begin(pdr_probe *p, server *s, uint32_t id, const pdr_endpoint *e, uint64_t at_ns)
{
    pdr_get_cancel(&s->health);
    pdr_get_cancel(&s->report);
    s->e = *e;
    s->id = id;
    s->known = s->failures = s->reported = s->noted = 0;
    s->source = p->o.flags & PDR_PROBE_NO_LOADS ? SOURCE_METRICS : SOURCE_LOADS;
    s->ask = ASK_REPORT;
    s->health.owner = s->report.owner = s;
    s->health_due_ns = p->o.flags & PDR_PROBE_NO_HEALTH ? NEVER : at_ns;
    s->report_due_ns = p->o.flags & PDR_PROBE_NO_HEALTH ? at_ns : NEVER;
}

static int server_put(pdr_probe *p, size_t at, uint32_t id, const pdr_endpoint *e)
{
    server *s;
    if (p->n == p->cap) {
        size_t   cap = p->cap ? 2 * p->cap : 64;
        server **v = realloc(p->servers, cap * sizeof *v);
        if (!v) return -1;
        p->servers = v;
        p->cap = cap;
    }
    if (!(s = calloc(1, sizeof *s))) return -1;
    server_begin(p, s, id, e, p->now_ns);
    memmove(p->servers + at + 1, p->servers + at, (p->n - at) * sizeof *p->servers);
    p->servers[at] = s;
    p->n++;
    return 0;
}

/* Many new servers at once are not asked in one burst. */
static void spread_new(pdr_probe *p, size_t fresh)
{
    size_t i = 0;
    if (fresh <= SPREAD_FROM) return;
    for (size_t k = 0; k < p->n; k++) {
        server  *s = p->servers[k];
        uint64_t at;
        if (s->known || s->failures || s->health.active || s->report.active) continue;
        at = p->now_ns + (uint64_t)p->o.interval_ms * MS / 2 * i++ / fresh;
        if (s->health_due_ns != NEVER) s->health_due_ns = at;
        else s->report_due_ns = at;
    }
}

static int refresh(pdr_probe *p, pdr_error *err)
{
    uint32_t cursor = 0, id, state;
    size_t   at = 0, kept = 0, fresh = 0;
    int      code;
    p->mark++;
    while (!(code = pdr_endpoint_next(p->router, &cursor, &id))) {
        pdr_endpoint e;
        pdr_init_struct(&e, sizeof e);
        if (pdr_endpoint_get(p->router, id, &e, &state) || state == PDR_STATE_REMOVED) continue;
        while (at < p->n && p->servers[at]->id < id) at++;
        if (at == p->n || p->servers[at]->id != id) {
            if (server_put(p, at, id, &e)) return pdr_host_fail(err, PDR_E_SYSTEM, "out of memory");
            fresh++;
        } else if (!is_same_server(p->servers[at], &e)) {
            server_begin(p, p->servers[at], id, &e, p->now_ns);
        } else if (p->servers[at]->e.role != e.role && p->servers[at]->known == PDR_PROBE_UP && !(p->o.flags & PDR_PROBE_NO_INFO)) {
            p->servers[at]->e = e;
            p->servers[at]->ask = ASK_INFO; /* does the server know of it? */
            p->servers[at]->info_tries = 0;
            p->servers[at]->noted &= ~(uint32_t)NOTED_ROLE;
        } else if (p->servers[at]->known && (p->servers[at]->known == PDR_PROBE_DOWN) != (state == PDR_STATE_DOWN)) {
            /* Removed and put again meanwhile, or the block was restored. No change if it is the breaker that keeps it down. */
            pdr_endpoint_health(p->router, id, p->servers[at]->known == PDR_PROBE_UP, p->now_ns, NULL);
        }
        p->servers[at]->mark = p->mark;
    }
    if (code != PDR_E_NOT_FOUND) return PDR_OK; /* the lock was busy: the list is not complete, nobody is dropped */
    for (size_t i = 0; i < p->n; i++) {
        if (p->servers[i]->mark == p->mark) p->servers[kept++] = p->servers[i];
        else server_free(p->servers[i]);
    }
    p->n = kept;
    spread_new(p, fresh);
    return PDR_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ steps */

static void ask(pdr_probe *p, server *s, pdr_get *g, const char *path, uint32_t timeout_ms)
{
    pdr_error e;
    pdr_init_struct(&e, sizeof e);
    p->requests++;
    if (!pdr_get_start(p->http, g, &s->e, path, timeout_ms, p->now_ns, &e)) return;
    g->started_ns = p->now_ns;
    went_wrong(p, s, 0, p->now_ns, e.message);
    if (g == &s->report && s->report_due_ns <= p->now_ns) s->report_due_ns = later(p, p->now_ns, p->o.interval_ms);
}

/* Starts what is due of one server; returns the time of the next thing to start, NEVER: an answer comes first. */
static uint64_t start_due(pdr_probe *p, server *s)
{
    uint64_t next = NEVER;
    if (!s->health.active && s->health_due_ns <= p->now_ns)
        ask(p, s, &s->health, "/health", s->known == PDR_PROBE_UP ? p->o.health_timeout_ms : p->o.timeout_ms);
    if (!s->report.active && s->report_due_ns <= p->now_ns) {
        s->report.kind = s->ask;
        ask(p, s, &s->report, s->ask ? info_path[s->ask] : source_path[s->source], p->o.timeout_ms);
    }
    if (!s->health.active && s->health_due_ns < next) next = s->health_due_ns;
    if (!s->report.active && s->report_due_ns < next) next = s->report_due_ns;
    return next;
}

/* Starts what is due of all; returns when there is more to do than answers. */
static uint64_t start_all_due(pdr_probe *p)
{
    uint64_t next = p->refresh_due_ns;
    size_t   i;
    for (i = 0; i < p->n; i++) {
        server *s = p->servers[(p->turn + i) % p->n];
        uint64_t t;
        if (pdr_http_active(p->http) >= p->o.max_active) {
            p->turn = (p->turn + i) % p->n; /* these go first next time */
            return next;
        }
        if ((t = start_due(p, s)) < next) next = t;
    }
    return next;
}

int pdr_probe_run(pdr_probe *p, uint32_t timeout_ms, uint32_t *answers, pdr_error *err)
{
    uint64_t next, wait = timeout_ms;
    int      code;
    if (answers) *answers = 0;
    if (!p) return pdr_host_fail(err, PDR_E_INVALID, "probe is NULL");
    p->now_ns = pdr_host_now_ns();
    if (p->refresh_due_ns <= p->now_ns) {
        if ((code = refresh(p, err))) return code;
        p->refresh_due_ns = p->now_ns + (uint64_t)p->o.refresh_ms * MS;
    }
    next = start_all_due(p);
    if (next <= p->now_ns) wait = 0;
    else if ((next - p->now_ns) / MS + 1 < wait) wait = (next - p->now_ns) / MS + 1;
    return pdr_http_step(p->http, (uint32_t)wait, answers, err);
}

int pdr_probe_loop(pdr_probe *p, const volatile int *stop, pdr_error *err)
{
    int code = PDR_OK;
    while (!code && !(stop && *stop)) code = pdr_probe_run(p, 100, NULL, err);
    return code;
}

int pdr_probe_fd(const pdr_probe *p) { return p ? pdr_http_fd(p->http) : -1; }

uint32_t pdr_probe_pending(const pdr_probe *p)
{
    uint32_t n = 0;
    if (!p) return 0;
    if (!p->mark) return 1; /* the block was not even looked at */
    for (size_t i = 0; i < p->n; i++) {
        const server *s = p->servers[i];
        n += !s->known || (s->known == PDR_PROBE_UP && !s->reported);
    }
    return n;
}

int pdr_probe_stats_get(const pdr_probe *p, pdr_probe_stats *out)
{
    pdr_probe_stats st;
    if (!p) return PDR_E_INVALID;
    pdr_init_struct(&st, sizeof st);
    st.endpoints = (uint32_t)p->n;
    for (size_t i = 0; i < p->n; i++) {
        st.up += p->servers[i]->known == PDR_PROBE_UP;
        st.down += p->servers[i]->known == PDR_PROBE_DOWN;
        st.unknown += !p->servers[i]->known;
    }
    st.active = pdr_http_active(p->http);
    st.requests = p->requests;
    st.failures = p->failures;
    st.reports = p->reports;
    st.connections = pdr_http_connections(p->http);
    return pdr_host_struct_out(out, &st, sizeof st);
}

static void set_default(uint32_t *field, uint32_t value) { if (!*field) *field = value; }

int pdr_probe_new(pdr_router *r, const pdr_probe_options *options, pdr_probe **out, pdr_error *err)
{
    pdr_probe *p;
    int        code;
    if (!r || !out) return pdr_host_fail(err, PDR_E_INVALID, "an argument is NULL");
    *out = NULL;
    if (!(p = calloc(1, sizeof *p))) return pdr_host_fail(err, PDR_E_SYSTEM, "out of memory");
    if ((code = pdr_host_struct_in(&p->o, sizeof p->o, options, err))) goto fail;
    set_default(&p->o.interval_ms, 1000);
    set_default(&p->o.health_interval_ms, 5000);
    set_default(&p->o.refresh_ms, 500);
    set_default(&p->o.connect_timeout_ms, 800);
    set_default(&p->o.timeout_ms, 3000);
    set_default(&p->o.health_timeout_ms, 10000);
    set_default(&p->o.retry_min_ms, 100);
    set_default(&p->o.retry_max_ms, 800);
    set_default(&p->o.down_after, 3);
    set_default(&p->o.max_active, 512);
    if (!p->o.max_answer_bytes) p->o.max_answer_bytes = 8388608;
    p->router = r;
    if ((code = pdr_host_seed(&p->random, err))) goto fail;
    if ((code = pdr_http_new(&p->o, on_done, p, &p->http, err))) goto fail;
    *out = p;
    return PDR_OK;
fail:
    free(p);
    return code;
}

void pdr_probe_free(pdr_probe *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) server_free(p->servers[i]);
    free(p->servers);
    pdr_http_free(p->http);
    free(p);
}
#endif
