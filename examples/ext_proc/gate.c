#include "gate.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define TAIL_FIRST 512 /* enough for one room and host */

static pthread_mutex_t host_mutex = PTHREAD_MUTEX_INITIALIZER; /* pdr_host_tick() and leases remember what they saw */

void gate_log(const char *level, const char *format, ...)
{
    char text[1024], when[32];
    struct timespec now;
    struct tm tm;
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &tm);
    (void)strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)fprintf(stderr, "%s.%03ldZ [%s] %s\n", when, now.tv_nsec / 1000000, level, text);
}

/* ------------------------------------------------------------------------------------------------------------- lists */

static void list(gate_job *job)
{
    gate *g = job->gate;
    if (job->listed) return;
    job->listed = 1;
    job->prev = NULL;
    job->next = g->jobs;
    if (job->next) job->next->prev = job;
    g->jobs = job;
}

static void unlist(gate_job *job)
{
    if (!job->listed) return;
    job->listed = 0;
    if (job->prev) job->prev->next = job->next;
    else job->gate->jobs = job->next;
    if (job->next) job->next->prev = job->prev;
}

static void hold(gate_job *job)
{
    gate_job **place = &job->gate->held[job->decision.booking % GATE_HELD];
    job->is_held = job->was_held = 1;
    job->held_ns = pdr_host_now_ns();
    job->held_next = *place;
    *place = job;
    list(job);
}

static void unhold(gate_job *job)
{
    gate_job **place = &job->gate->held[job->decision.booking % GATE_HELD];
    if (!job->is_held) return;
    while (*place != job) place = &(*place)->held_next;
    *place = job->held_next;
    job->is_held = 0;
    unlist(job);
}

/* ----------------------------------------------------------------------------------------------------------- answers */

int gate_error_is_refusal(view chunk)
{
    const int status = pdr_error_status(chunk.data, chunk.len);
    return status >= 400 && status < 500;
}

static void respond(gate_job *job, unsigned status, const char *code, const char *message, uint64_t retry_after_ms)
{
    (void)snprintf(job->why, sizeof job->why, "%s", code);
    job->gate->ops->respond(job, status, code, message, retry_after_ms);
}

static void respond_code(gate_job *job, int code, const pdr_error *err, uint64_t retry_after_ms)
{
    char text[320];
    const char *message = err && err->message[0] ? err->message : pdr_strerror(code);

    if (err && (code == PDR_E_PARSE || code == PDR_E_TOO_DEEP)) {
        (void)snprintf(text, sizeof text, "%s (byte offset %" PRIu64 ", line %u)", message, err->offset, err->line);
        message = text;
    }
    if ((code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL) && retry_after_ms == 0) retry_after_ms = 1000;
    respond(job, (unsigned)pdr_http_status(code), pdr_error_name(code), message, retry_after_ms);
}

void gate_refuse(gate_job *job, gate *g, int code, const char *message)
{
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    (void)snprintf(err.message, sizeof err.message, "%s", message);
    job->gate = g;
    respond(job, (unsigned)pdr_http_status(code), pdr_error_name(code), message, 0);
}

/* ------------------------------------------------------------------------------------------------------------ decide */

uint32_t gate_api(view path)
{
    if (view_is(path, "/v1/chat/completions")) return PDR_API_CHAT;
    if (view_is(path, "/v1/completions")) return PDR_API_COMPLETIONS;
    if (view_is(path, "/generate")) return PDR_API_GENERATE;
    return PDR_API_OTHER;
}

void gate_header(gate_job *job, view name, view value)
{
    const pdr_config *config = &job->gate->config;
    if (config->tenant_header[0] && !job->tenant) job->tenant = pdr_tenant_hash(config, name.data, name.len, value.data, value.len);
}

int gate_is_object(view body, int json_type)
{
    static const char mark[] = "\xef\xbb\xbf\xfe\xff";
    size_t i = 0;

    /* behind white space, and behind a byte order mark or the zeros of UTF-16 and UTF-32, which Python's json takes as well */
    while (i < body.len && (body.data[i] == ' ' || (body.data[i] >= '\t' && body.data[i] <= '\r') || body.data[i] == 0 ||
                            memchr(mark, body.data[i], sizeof mark - 1)))
        i++;
    if (i == body.len || body.data[i] == '[') return 0;
    return body.data[i] == '{' || json_type;
}

static int renew(gate *g);

static int decide(gate_job *job, uint32_t flags, pdr_error *err)
{
    gate *g = job->gate;
    pdr_request request;
    pdr_decision other, *d = job->decided ? &other : &job->decision; /* logs keep showing the last pair */
    int rc, again = 1;

    do {
        pdr_init_struct(&request, sizeof request);
        request.flags = flags;
        request.api = job->api;
        request.lease = g->lease.id;
        request.now_ns = pdr_host_now_ns();
        request.tenant = job->tenant;
        if (job->begun) {
            request.excluded = job->exchange.excluded;
            memcpy(request.exclude, job->exchange.exclude, sizeof request.exclude);
        }
        for (uint32_t i = 0; i < job->barred_n && request.excluded < sizeof request.exclude / sizeof *request.exclude; i++)
            request.exclude[request.excluded++] = job->barred[i];
        pdr_init_struct(d, sizeof *d);
        rc = pdr_route_prompt(g->router, &job->prompt, job->hashes, job->prompt.blocks, &request, d, err);
        /* the process was stopped for so long that its lease ended */
    } while (rc == PDR_E_LEASE && again-- && (renew(g), g->leased));
    if (rc != PDR_OK) {
        job->decision.retry_after_ms = d->retry_after_ms;
        return rc;
    }
    if (d == &other) job->decision = other;
    return PDR_OK;
}

static void decided(gate_job *job)
{
    job->decided = 1;
    job->attempts++;
    job->last_byte_ns = job->longest_gap_ns = 0;
    whole_decided(&job->whole, &job->decision, &job->prompt);
    job->gate->ops->decided(job);
}

static int scan(gate_job *job, int json_type, pdr_error *err)
{
    gate *g = job->gate;
    size_t size;
    int rc;

    job->prompt.api = job->api;
    if (job->api == PDR_API_OTHER && !gate_is_object(job->body, json_type)) {
        job->raw_body = 1;
        return PDR_OK;
    }
    rc = pdr_scan(job->body.data, job->body.len, job->api, &g->limits, &job->prompt, g->hashes, g->config.max_blocks, err);
    if (rc != PDR_OK || job->prompt.blocks == 0) return rc;
    size = job->prompt.blocks * sizeof *job->hashes;
    job->hashes = malloc(size); /* for a retry, or when a held request is taken */
    if (!job->hashes) return PDR_E_SYSTEM;
    memcpy(job->hashes, g->hashes, size);
    return PDR_OK;
}

/* ---------------------------------------------------------------------------------------------------------- exchange */

static void push(gate_job *job, const pdr_action *actions, size_t n)
{
    uint32_t kept;

    for (size_t i = 0; i < n && actions[i].type; i++) {
        if (actions[i].type == PDR_ACT_CANCEL) { /* a leg that was not even started needs no start */
            kept = 0;
            for (uint32_t j = 0; j < job->actions_n; j++) {
                if (job->actions[j].type == PDR_ACT_SEND && job->actions[j].leg == actions[i].leg) continue;
                job->actions[kept++] = job->actions[j];
            }
            job->actions_n = kept;
        }
        if (job->actions_n == GATE_ACTIONS) {
            gate_log("alert", "too many actions");
            return;
        }
        job->actions[job->actions_n++] = actions[i];
    }
}

static void reroute(gate_job *job)
{
    pdr_action acts[PDR_MAX_ACTIONS] = {0};
    pdr_error err;
    size_t n = PDR_MAX_ACTIONS;
    int code = PDR_E_NO_PAIR;

    pdr_init_struct(&err, sizeof err);
    if (job->gate->ops->may_reroute(job)) code = decide(job, PDR_REQUEST_NO_HOLD, &err);
    (void)pdr_exchange_rerouted(job->gate->router, &job->exchange, code == PDR_OK ? &job->decision : NULL, code, pdr_host_now_ns(), acts, &n);
    if (code == PDR_OK) decided(job);
    push(job, acts, n);
}

/* Decode's answer is not passed on before prefill's is there. */
static int whole_waits(const gate_job *job)
{
    return job->whole && job->whole->wanted && !job->whole->ended && !job->finished && job->exchange.leg_status[PDR_LEG_DECODE] == 200;
}

static void perform(gate_job *job, const pdr_action *act)
{
    const gate_ops *ops = job->gate->ops;
    const int leg = (int)act->leg;

    switch (act->type) {
    case PDR_ACT_SEND:
        ops->send(job, leg);
        break;
    case PDR_ACT_CANCEL:
        if (leg == PDR_LEG_DECODE) job->relay_waits = 0;
        ops->cancel(job, leg);
        break;
    case PDR_ACT_DRAIN:
        ops->drain(job, leg);
        break;
    case PDR_ACT_RELAY:
        if (leg == PDR_LEG_DECODE && whole_waits(job)) job->relay_waits = 1;
        else ops->relay(job, leg);
        break;
    case PDR_ACT_ROUTE:
        reroute(job);
        break;
    case PDR_ACT_RESPOND:
        job->reason = act->reason;
        job->relay_waits = 0;
        respond(job, act->status, pdr_reason_name(act->reason), pdr_reason_text(act->reason), act->retry_after_ms);
        break;
    case PDR_ACT_ABORT:
        job->reason = act->reason;
        (void)snprintf(job->why, sizeof job->why, "%s", pdr_reason_name(act->reason));
        ops->abort(job, act->reason, pdr_reason_text(act->reason));
        break;
    case PDR_ACT_FINISH:
        job->finished = 1;
        unlist(job);
        break;
    default:
        break;
    }
}

static void run(gate_job *job)
{
    gate *g = job->gate;
    if (job->running) return;
    job->running = 1;
    for (;;) {
        if (job->actions_n == 0) {
            if (!job->relay_waits || whole_waits(job)) break;
            job->relay_waits = 0;
            g->ops->relay(job, PDR_LEG_DECODE);
            continue;
        }
        const pdr_action act = job->actions[0];
        job->actions_n--;
        memmove(job->actions, job->actions + 1, job->actions_n * sizeof act);
        perform(job, &act);
    }
    job->running = 0;
    (void)pdr_host_wake_pending(g->host);
    if (job->finished) g->ops->finished(job); /* may free it */
}

static void begin(gate_job *job)
{
    pdr_action acts[PDR_MAX_ACTIONS] = {0};
    size_t n = PDR_MAX_ACTIONS;

    pdr_init_struct(&job->exchange, sizeof job->exchange);
    job->begun = 1;
    list(job);
    (void)pdr_exchange_begin(job->gate->router, &job->exchange, &job->decision, job->gate->lease.id, pdr_host_now_ns(), acts, &n);
    if (n == 0 || acts[0].type == 0) { /* cannot be, unless header and library are of different versions */
        job->begun = 0;
        unlist(job);
        (void)pdr_ticket_cancel(job->gate->router, job->decision.booking, pdr_host_now_ns());
        respond(job, 500, "internal_error", "the exchange did not begin", 0);
        return;
    }
    push(job, acts, n);
    run(job);
}

void gate_event(gate_job *job, uint32_t type, uint32_t leg, const gate_detail *detail)
{
    pdr_action acts[PDR_MAX_ACTIONS] = {0};
    pdr_event ev;
    size_t n = PDR_MAX_ACTIONS;

    if (!job->begun || job->finished) return;
    if (job->whole && leg == PDR_LEG_PREFILL && (type == PDR_EV_END || type == PDR_EV_FAILED) && detail->attempt == job->exchange.attempt)
        whole_prefill_ended(job->whole, type == PDR_EV_END && detail->status == 200);
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.now_ns = pdr_host_now_ns();
    ev.attempt = job->exchange.attempt;
    ev.last_byte_ns = job->relay_waits ? ev.now_ns : job->last_byte_ns; /* what has come may wait for prefill, not for decode */
    if (type == PDR_EV_END && leg == PDR_LEG_DECODE && job->last_byte_ns) {
        const uint64_t gap_ms = job->longest_gap_ns / 1000000;
        ev.longest_gap_ms = gap_ms ? (uint32_t)gap_ms : 1;
    }
    if (type == PDR_EV_END && detail && detail->usage && detail->usage->flags & PDR_SEEN_ERROR) ev.detail = PDR_FAIL_PROTOCOL;
    if (detail) {
        ev.status = detail->status;
        if (detail->detail) ev.detail = detail->detail;
        ev.attempt = detail->attempt;
        ev.retry_after_ms = detail->retry_after_ms;
        if (type == PDR_EV_END && detail->usage && detail->usage->flags & PDR_SEEN_USAGE) {
            ev.usage = 1;
            ev.prompt_tokens = detail->usage->prompt_tokens;
            ev.cached_tokens = detail->usage->cached_tokens;
            ev.completion_tokens = detail->usage->completion_tokens;
        }
    }
    /* whatever it returns: PDR_E_BUSY means that the books could not be written, what is to be done stays the same */
    (void)pdr_exchange_event(job->gate->router, &job->exchange, &ev, acts, &n);
    push(job, acts, n);
    run(job);
}

static void route(gate_job *job)
{
    pdr_error err;
    int rc;

    pdr_init_struct(&err, sizeof err);
    rc = decide(job, 0, &err);
    if (rc != PDR_OK) {
        respond_code(job, rc, &err, job->decision.retry_after_ms);
    } else if (job->decision.outcome == PDR_HELD) {
        hold(job);
    } else {
        decided(job);
        begin(job);
    }
}

void gate_start(gate_job *job, gate *g, uint32_t api, view body, int json_type)
{
    pdr_error err;
    char text[96];
    int rc;

    job->gate = g;
    job->api = api;
    job->body = body;
    pdr_init_struct(&job->prompt, sizeof job->prompt);
    pdr_init_struct(&job->decision, sizeof job->decision);
    pdr_init_struct(&err, sizeof err);
    if (body.len > g->config.max_body) {
        (void)snprintf(text, sizeof text, "the body has %zu bytes, at most %" PRIu64 " are taken", body.len, g->config.max_body);
        gate_refuse(job, g, PDR_E_TOO_LARGE, text);
        return;
    }
    rc = scan(job, json_type, &err);
    if (rc != PDR_OK) respond_code(job, rc, &err, 0);
    else route(job);
}

static void take(gate_job *job)
{
    pdr_decision d;
    pdr_error err;
    int rc;

    if (!job->is_held) return;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&d, sizeof d);
    rc = pdr_ticket_take(job->gate->router, job->decision.booking, job->hashes, job->prompt.blocks, pdr_host_now_ns(), &d, &err);
    if (rc == PDR_E_AGAIN || rc == PDR_E_BUSY) return;
    unhold(job);
    job->held_ns = pdr_host_now_ns() - job->held_ns;
    if (rc == PDR_OK) {
        job->decision = d;
        decided(job);
        begin(job);
    } else if (rc == PDR_E_NOT_FOUND) {
        route(job); /* its lease ended meanwhile: in line again */
    } else {
        respond_code(job, rc, &err, d.retry_after_ms);
    }
}

void gate_piece(gate_job *job)
{
    const uint64_t now = pdr_host_now_ns();
    if (job->last_byte_ns && now - job->last_byte_ns > job->longest_gap_ns) job->longest_gap_ns = now - job->last_byte_ns;
    job->last_byte_ns = now;
}

view gate_pass(gate_job *job, unsigned status, int sse, int json, view piece, int end)
{
    if (!job->whole || status != 200 || (!sse && !json)) return piece;
    return whole_pass(job->whole, job->api, sse ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON, piece, end);
}

void gate_client_gone(gate_job *job)
{
    if (job->is_held) {
        unhold(job);
        (void)pdr_ticket_cancel(job->gate->router, job->decision.booking, pdr_host_now_ns());
        (void)pdr_host_wake_pending(job->gate->host);
        return;
    }
    gate_event(job, PDR_EV_CLIENT_GONE, 0, NULL);
}

void gate_job_end(gate_job *job)
{
    free(job->hashes);
    job->hashes = NULL;
    whole_free(&job->whole);
    if (job->gate) {
        unhold(job);
        unlist(job);
    }
}

/* ----------------------------------------------------------------------------------------------------- lease, clock */

static int lease_open(gate *g)
{
    pdr_error err;
    const uint64_t now = pdr_host_now_ns();

    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&g->lease, sizeof g->lease);
    if (pdr_host_lease_open(g->host, g->name, now, &g->lease, &err) != PDR_OK) {
        g->lease.wake_fd = -1;
        if (now - g->refused_ns > 1000000000) { /* ticks and requests try again */
            g->refused_ns = now;
            gate_log("error", "no lease: %s", err.message);
        }
        return -1;
    }
    g->leased = 1;
    return 0;
}

static int renew(gate *g)
{
    pdr_error err;
    int rc;

    if (!g->leased) return lease_open(g);
    pdr_init_struct(&err, sizeof err);
    rc = pdr_host_lease_renew(g->host, &g->lease, pdr_host_now_ns(), &err);
    if (rc != PDR_OK) gate_log("warn", "lease: %s", err.message);
    return rc == PDR_OK || rc == PDR_E_LEASE ? 0 : -1;
}

static gate_job *find_held(gate *g, uint64_t ticket)
{
    gate_job *job = g->held[ticket % GATE_HELD];
    while (job && job->decision.booking != ticket) job = job->held_next;
    return job;
}

static void take_released(gate *g)
{
    uint64_t tickets[32];
    size_t n;

    do {
        n = sizeof tickets / sizeof *tickets;
        if (!g->leased || pdr_released(g->router, g->lease.id, tickets, &n) != PDR_OK) return;
        for (size_t i = 0; i < n; i++) {
            gate_job *job = find_held(g, tickets[i]);
            if (job) take(job); /* else its client left meanwhile */
        }
    } while (n == sizeof tickets / sizeof *tickets);
}

void gate_woken(gate *g)
{
    pdr_host_wake_drain(g->lease.wake_fd);
    take_released(g);
}

void gate_tick(gate *g)
{
    const uint64_t now = pdr_host_now_ns();
    const uint64_t patience = (uint64_t)(g->config.hold_max_wait_ms + 100) * 1000000;

    (void)renew(g);
    if (pthread_mutex_trylock(&host_mutex) == 0) { /* one thread at a time; any will do */
        (void)pdr_host_tick(g->host, now);
        (void)pthread_mutex_unlock(&host_mutex);
    }
    take_released(g);
    for (gate_job *job = g->jobs, *next; job; job = next) {
        next = job->next; /* events of one job end no other */
        if (job->is_held && now - job->held_ns > patience) take(job);
        else if (job->begun && pdr_exchange_deadline(&job->exchange) <= now) gate_event(job, PDR_EV_TICK, 0, NULL);
    }
}

int gate_open(gate *g, const gate_ops *ops, pdr_host *host, pdr_router *router, const char *name, pdr_error *err)
{
    memset(g, 0, sizeof *g);
    g->ops = ops;
    g->host = host;
    g->router = router;
    g->lease.wake_fd = -1;
    (void)snprintf(g->name, sizeof g->name, "%s", name);
    pdr_init_struct(&g->config, sizeof g->config);
    pdr_init_struct(&g->limits, sizeof g->limits);
    if (pdr_router_config(router, &g->config) != PDR_OK) return PDR_E_INVALID;
    g->limits.block_bytes = g->config.block_bytes;
    g->limits.max_blocks = g->config.max_blocks;
    g->limits.max_depth = g->config.max_depth;
    g->limits.max_batch = g->config.max_batch;
    g->limits.max_body = g->config.max_body;
    g->hashes = malloc(g->config.max_blocks * sizeof *g->hashes);
    if (!g->hashes) {
        (void)snprintf(err->message, sizeof err->message, "out of memory");
        return PDR_E_SYSTEM;
    }
    (void)lease_open(g);
    return PDR_OK;
}

void gate_close(gate *g)
{
    if (g->leased) {
        pdr_host_lease_close(g->host, &g->lease, pdr_host_now_ns());
        g->leased = 0;
        (void)pdr_host_wake_pending(g->host); /* what it gave back may release others' requests */
    }
    free(g->hashes);
    g->hashes = NULL;
}

/* ------------------------------------------------------------------------------------------------------ what is sent */

int gate_rewrite(const gate_job *job, int leg, bytes *tail, pdr_slice *slices, size_t *n)
{
    size_t need = 0;
    int rc;

    tail->len = 0;
    if (job->body.len == 0) {
        *n = 0;
        return PDR_OK;
    }
    if (job->raw_body) { /* not JSON: passes as it is */
        memset(slices, 0, sizeof *slices);
        slices[0].length = job->body.len;
        *n = 1;
        return PDR_OK;
    }
    if (bytes_reserve(tail, TAIL_FIRST)) return PDR_E_SYSTEM;
    rc = pdr_rewrite_tail(&job->decision, &job->prompt, leg, 0, tail->data, tail->cap, &need);
    if (rc == PDR_E_NOSPACE) { /* a batch with many rooms */
        if (bytes_reserve(tail, need)) return PDR_E_SYSTEM;
        rc = pdr_rewrite_tail(&job->decision, &job->prompt, leg, 0, tail->data, tail->cap, &need);
    }
    if (rc != PDR_OK) return rc;
    tail->len = need;
    return pdr_rewrite_slices(&job->prompt, job->body.len, need, slices, n);
}

void gate_describe(const gate_job *job, char *hit, size_t hit_cap, char *why, size_t why_cap)
{
    const pdr_decision *d = &job->decision;
    char held[40] = "";

    hit[0] = '\0';
    if (job->was_held) (void)snprintf(held, sizeof held, " held=%" PRIu64, job->held_ns / 1000);
    if (!job->decided) {
        (void)snprintf(why, why_cap, "%s%s", job->why, held);
        return;
    }
    (void)snprintf(hit, hit_cap, "%" PRIu64 "/%" PRIu64, d->matched_tokens, d->prompt_tokens);
    (void)snprintf(why, why_cap, "%s%scost=%" PRIu64 " wait=%" PRIu64 " prefill=%" PRIu64 " transfer=%" PRIu64 " decode=%" PRIu64 " pairs=%u%s",
                   job->why, job->why[0] ? " " : "", d->cost_us, d->wait_us, d->prefill_us, d->transfer_us, d->decode_us, d->candidates, held);
}
