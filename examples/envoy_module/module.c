/*
 * Configuration, one gate per Envoy thread, and what Envoy calls about a client's request.
 *
 * The ABI has no timer: a thread of ours asks every 100 ms (or when a lease is woken) one live request of each Envoy thread to pass the tick on. A thread
 * without requests needs none: nothing is held there, and a lease that ran out is opened anew with the next request. The block itself gets its tick from
 * that thread of ours: what ended while another process had the lock is still to be given back.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "module.h"

#define CHUNKS_MAX 64
#define HEADERS_MAX 256
#define EXPECT_MAX (1u << 20)
#define TAIL_ROOM  1024
enum { EVENT_TICK = 1 };

static pthread_mutex_t threads_lock = PTHREAD_MUTEX_INITIALIZER;
static thread *threads; /* all that there are */
static _Thread_local thread *mine;
static int ticking; /* the thread that ticks is there; with threads_lock */
static module_config *configs; /* of Envoy's main thread */

/* ----------------------------------------------------------------------------------------------------------- threads */

/* Of the threads with its configuration, and so its block. */
static int is_first(const thread *t)
{
    for (const thread *each = threads; each != t; each = each->next) {
        if (each->config == t->config) return 0;
    }
    return 1;
}

static void *ticker(void *unused)
{
    struct pollfd fds[64];

    (void)unused;
    for (;;) {
        nfds_t n = 0;
        (void)pthread_mutex_lock(&threads_lock);
        for (thread *t = threads; t && n < 64; t = t->next) {
            (void)pthread_mutex_lock(&t->lock);
            if (t->scheduler && t->gate.lease.wake_fd >= 0) fds[n++] = (struct pollfd){.fd = t->gate.lease.wake_fd, .events = POLLIN};
            (void)pthread_mutex_unlock(&t->lock);
        }
        (void)pthread_mutex_unlock(&threads_lock);
        if (poll(fds, n, GATE_TICK_MS) > 0) (void)usleep(500); /* until its thread has looked */
        (void)pthread_mutex_lock(&threads_lock);
        for (thread *t = threads; t; t = t->next) {
            (void)pthread_mutex_lock(&t->lock);
            if (t->scheduler) CALLBACK(http_filter_scheduler_commit)(t->scheduler, EVENT_TICK);
            (void)pthread_mutex_unlock(&t->lock);
            if (is_first(t)) gate_block_tick(t->config->used);
        }
        (void)pthread_mutex_unlock(&threads_lock);
    }
    return NULL;
}

/* 0: without ticks no deadline would be kept */
static int start_ticker(void)
{
    pthread_t id;

    (void)pthread_mutex_lock(&threads_lock);
    if (!ticking && pthread_create(&id, NULL, ticker, NULL) == 0) {
        ticking = 1;
        (void)pthread_detach(id);
    }
    const int there = ticking;
    (void)pthread_mutex_unlock(&threads_lock);
    return there;
}

/* Who passes ticks on: r, or the next one that can; NULL: nobody has to. */
static void set_pacer(thread *t, request *r)
{
    void *scheduler = NULL, *old;

    while (r && !(scheduler = CALLBACK(http_filter_scheduler_new)(r->filter))) r = r->next;

    (void)pthread_mutex_lock(&t->lock);
    old = t->scheduler;
    t->scheduler = scheduler;
    t->pacer = r;
    (void)pthread_mutex_unlock(&t->lock);
    if (old) CALLBACK(http_filter_scheduler_delete)(old);
}

static thread *this_thread(module_config *config)
{
    static unsigned number;
    char name[64];
    pdr_error err;
    thread *t;

    for (t = mine; t && t->config != config; t = t->next_here) continue;
    if (t) return t;
    if (!start_ticker()) {
        gate_log("error", "the thread that looks at deadlines cannot be started");
        return NULL;
    }
    t = calloc(1, sizeof *t);
    if (!t) {
        gate_log("error", "no memory for a thread's use of the block");
        return NULL;
    }
    pdr_init_struct(&err, sizeof err);
    (void)snprintf(name, sizeof name, "envoy %ld/%u", (long)getpid(), __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED));
    if (gate_open(&t->gate, &module_ops, config->used, name, &err) != PDR_OK) {
        gate_log("error", "%s", err.message);
        free(t);
        return NULL;
    }
    t->config = config;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_mutex_lock(&threads_lock);
    t->next = threads;
    threads = t;
    (void)pthread_mutex_unlock(&threads_lock);
    t->next_here = mine;
    mine = t;
    return t;
}

/* ----------------------------------------------------------------------------------------------------- configuration */

EXPORT const char *HOOK(program_init)(void);
EXPORT const char *HOOK(program_init)(void)
{
    return "v0.1.0"; /* Envoy warns that this is not its own, and goes on */
}

static int take_word(const char *word, size_t len, const char *name, char *out, size_t cap)
{
    const size_t n = strlen(name);
    if (len <= n || memcmp(word, name, n) != 0 || len - n >= cap) return 0;
    memcpy(out, word + n, len - n);
    out[len - n] = '\0';
    return 1;
}

static int take_number(const char *word, size_t len, const char *name, unsigned *out)
{
    char text[9];
    unsigned n = 0;

    if (!take_word(word, len, name, text, sizeof text)) return 0;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9') return 0;
        n = n * 10 + (unsigned)(*p - '0');
    }
    *out = n;
    return n != 0;
}

EXPORT void *HOOK(http_filter_config_new)(void *envoy, abi_text name, abi_text text);
EXPORT void *HOOK(http_filter_config_new)(void *envoy, abi_text name, abi_text text)
{
    module_config *c = calloc(1, sizeof *c);
    const char *p = text.ptr, *end = text.ptr + text.length;

    (void)envoy, (void)name;
    if (!c) {
        gate_log("emerg", "no memory for the configuration");
        return NULL;
    }
    (void)snprintf(c->cluster, sizeof c->cluster, "servers");
    c->body_timeout_ms = GATE_BODY_TIMEOUT_MS;
    while (p < end) {
        const char *stop = p;
        while (stop < end && *stop != ' ' && *stop != '\n' && *stop != '\t') stop++;
        const size_t len = (size_t)(stop - p);
        if (len && !take_word(p, len, "block=", c->block, sizeof c->block) && !take_word(p, len, "config=", c->file, sizeof c->file) &&
            !take_word(p, len, "cluster=", c->cluster, sizeof c->cluster) && !take_number(p, len, "body-timeout-ms=", &c->body_timeout_ms)) {
            gate_log("emerg", "invalid word \"%.*s\": block=FILE config=FILE cluster=NAME body-timeout-ms=N are taken", (int)len, p);
            free(c);
            return NULL;
        }
        p = stop + 1;
    }
    for (module_config *each = configs; each; each = each->next) {
        if (strcmp(each->block, c->block) || strcmp(each->file, c->file) || strcmp(each->cluster, c->cluster) || each->body_timeout_ms != c->body_timeout_ms) continue;
        free(c); /* another listener, or the same once more: what the file says may have changed */
        return !each->file[0] || gate_block_reload(each->used) == 0 ? each : NULL;
    }
    if (!c->block[0] || gate_block_open(c->block, c->file[0] ? c->file : NULL, 0, &c->used)) {
        if (!c->block[0]) gate_log("emerg", "block=FILE is missing");
        free(c);
        return NULL;
    }
    c->next = configs;
    configs = c;
    return c;
}

/* Requests of an older configuration may be alive, and threads refer to it: its mapping is kept. Configurations are few. */
EXPORT void HOOK(http_filter_config_destroy)(void *config);
EXPORT void HOOK(http_filter_config_destroy)(void *config)
{
    (void)config;
}

EXPORT void *HOOK(http_filter_per_route_config_new)(abi_text name, abi_text text);
EXPORT void *HOOK(http_filter_per_route_config_new)(abi_text name, abi_text text)
{
    static char none;
    (void)name, (void)text;
    return &none;
}

EXPORT void HOOK(http_filter_per_route_config_destroy)(void *config);
EXPORT void HOOK(http_filter_per_route_config_destroy)(void *config)
{
    (void)config;
}

/* -------------------------------------------------------------------------------------------------------------- life */

void request_enter(request *r)
{
    if (!r->t->pacer) set_pacer(r->t, r->t->requests); /* it could not be had before */
    r->locks++;
}

static void request_free(request *r)
{
    gate_job_end(&r->job);
    for (int i = 0; i < 2; i++) {
        bytes_free(&r->legs[i].headers);
        bytes_free(&r->legs[i].collected);
    }
    bytes_free(&r->head);
    bytes_free(&r->body);
    bytes_free(&r->sent);
    bytes_free(&r->chosen);
    bytes_free(&r->plain);
    free(r);
}

void request_leave(request *r)
{
    if (--r->locks == 0 && r->destroyed) request_free(r);
}

EXPORT void *HOOK(http_filter_new)(void *config, abi_filter f);
EXPORT void *HOOK(http_filter_new)(void *config, abi_filter f)
{
    thread *t = this_thread(config);
    request *r = t ? calloc(1, sizeof *r) : NULL;

    if (!r) return NULL;
    r->t = t;
    r->filter = f;
    r->job.gate = &t->gate;
    for (uint32_t i = 0; i < 2; i++) {
        r->legs[i].r = r;
        r->legs[i].which = i;
    }
    r->next = t->requests;
    if (r->next) r->next->prev = r;
    t->requests = r;
    if (!t->pacer) set_pacer(t, r);
    return r;
}

EXPORT void HOOK(http_filter_stream_complete)(abi_filter f, request *r);
EXPORT void HOOK(http_filter_stream_complete)(abi_filter f, request *r)
{
    (void)f;
    request_enter(r);
    if (!r->complete) { /* the client left; Envoy closes the legs with the filter */
        r->gone = 1;
        gate_client_gone(&r->job);
    } else if (r->job.begun && !r->job.finished) { /* prefill's answer was waited for long enough */
        gate_event(&r->job, PDR_EV_FAILED, PDR_LEG_PREFILL, &(gate_detail){.detail = PDR_FAIL_RESET, .attempt = r->job.exchange.attempt});
    }
    request_leave(r);
}

EXPORT void HOOK(http_filter_destroy)(request *r);
EXPORT void HOOK(http_filter_destroy)(request *r)
{
    thread *t = r->t;

    request_enter(r);
    r->destroyed = 1;
    r->legs[0].open = r->legs[1].open = 0;
    if (r->prev) r->prev->next = r->next;
    else t->requests = r->next;
    if (r->next) r->next->prev = r->prev;
    if (t->pacer == r) set_pacer(t, t->requests);
    gate_client_gone(&r->job); /* if it was not said before */
    request_leave(r);
}

/* ----------------------------------------------------------------------------------------------------------- request */

static void refuse(request *r, unsigned status, const char *code, const char *sentence, const char *allow)
{
    char text[512];
    size_t need = 0;
    (void)pdr_error_body((int)status, code, sentence, text, sizeof text, &need);
    (void)snprintf(r->job.why, sizeof r->job.why, "%s", code);
    request_answer(r, status, "application/json", 0, allow ? "allow" : NULL, allow, (view){text, need});
}

static void status_page(request *r)
{
    char *text = malloc(1u << 20);
    view in = {r->head.data, r->head.len}, name, value;
    int prometheus = memmem(r->target.data, r->target.len, "format=prometheus", 17) != NULL;
    size_t need = 0;

    while (pair_next(&in, &name, &value)) { /* a scraper */
        if (view_is(name, "accept") && value.len >= 10 && memcmp(value.data, "text/plain", 10) == 0) prometheus = 1;
    }
    if (text && (prometheus ? pdr_status_prometheus : pdr_status_json)(r->t->gate.router, pdr_host_now_ns(), text, 1u << 20, &need) == PDR_OK)
        request_answer(r, 200, prometheus ? "text/plain; version=0.0.4; charset=utf-8" : "application/json", 0, NULL, NULL, (view){text, need});
    else
        refuse(r, 503, "internal_error", "the status cannot be had at present", NULL);
    free(text);
}

/* Paths that are answered here. 1: it was one */
static int local(request *r)
{
    const int get = view_is(r->method, "GET") || view_is(r->method, "HEAD");
    int ready = 1;

    if (r->job.api != PDR_API_OTHER) {
        if (view_is(r->method, "POST") || (r->job.api == PDR_API_GENERATE && view_is(r->method, "PUT"))) return 0;
        refuse(r, 405, "method_not_allowed", "this path takes POST requests", "POST");
        return 1;
    }
    if (view_is(r->path, "/readiness") || view_is(r->path, "/health")) ready = pdr_ready(r->t->gate.router, pdr_host_now_ns()) == 1;
    else if (!view_is(r->path, "/liveness") && !view_is(r->path, "/pdroute")) return 0;
    if (!get) refuse(r, 405, "method_not_allowed", "this path takes GET requests", "GET");
    else if (view_is(r->path, "/pdroute")) status_page(r);
    else if (ready) request_answer(r, 200, "application/json", 0, NULL, NULL, VIEW("{\"status\":\"ok\"}\n"));
    else request_answer(r, 503, "application/json", 1000, NULL, NULL, VIEW("{\"status\":\"no prefill and decode server is available at present\"}\n"));
    return 1;
}

/* The subset hint of a data plane, a text or a list of them. -1: nobody may serve the request, 1: it was answered */
static int restrict_servers(request *r)
{
    const abi_text space = {SUBSET_SPACE, sizeof SUBSET_SPACE - 1}, key = {SUBSET_KEY, sizeof SUBSET_KEY - 1};
    bytes addresses = {0};
    abi_text text;
    size_t n = 0;
    int rc = 0;

    if (CALLBACK(http_get_metadata_list_size)(r->filter, ABI_DYNAMIC_METADATA, space, key, &n)) {
        for (size_t i = 0; i < n; i++) {
            if (CALLBACK(http_get_metadata_list_string)(r->filter, ABI_DYNAMIC_METADATA, space, key, i, &text)) subset_put(&addresses, (view){text.ptr, text.length});
        }
        if (!addresses.failed) rc = subset_apply(&r->job, (view){addresses.data, addresses.len});
    } else if (CALLBACK(http_get_metadata_string)(r->filter, ABI_DYNAMIC_METADATA, space, key, &text)) {
        subset_put(&addresses, (view){text.ptr, text.length});
        if (!addresses.failed) rc = subset_apply(&r->job, (view){addresses.data, addresses.len});
    }
    if (addresses.failed) {
        gate_give_up(&r->job, NO_MEMORY);
        rc = 1;
    }
    bytes_free(&addresses);
    return rc;
}

static void start(request *r)
{
    const view body = {r->body.data ? r->body.data : "", r->body.len};
    r->started = 1;
    const int restricted = restrict_servers(r);
    if (restricted) {
        if (restricted < 0) gate_refuse(&r->job, &r->t->gate, PDR_E_NO_PAIR, SUBSET_NOBODY);
        return;
    }
    gate_start(&r->job, &r->t->gate, r->job.api, body, r->content_type.len && memmem(r->content_type.data, r->content_type.len, "json", 4) != NULL);
}

/* Room for a body of that length, and for what is put in behind it; a client that promises more than it sends gets no more than this. */
static void expect_body(request *r, view length)
{
    size_t n = 0;
    for (size_t i = 0; i < length.len && i < 8 && length.data[i] >= '0' && length.data[i] <= '9'; i++) n = n * 10 + (size_t)(length.data[i] - '0');
    if (n <= EXPECT_MAX) (void)bytes_reserve(&r->body, n + TAIL_ROOM);
}

/* -1: it was answered */
static int read_head(request *r)
{
    const size_t n = CALLBACK(http_get_headers_size)(r->filter, ABI_REQUEST_HEADERS);
    abi_header headers[HEADERS_MAX];
    view in, name, value;

    if (n > HEADERS_MAX) {
        refuse(r, 431, "bad_request", "the request has too many headers", NULL);
        return -1;
    }
    if (n == 0 || !CALLBACK(http_get_headers)(r->filter, ABI_REQUEST_HEADERS, headers)) {
        gate_give_up(&r->job, "Envoy does not show the request's headers");
        return -1;
    }
    for (size_t i = 0; i < n; i++) pair_put(&r->head, headers[i].key, headers[i].key_length, headers[i].value, headers[i].value_length);
    if (r->head.failed) {
        gate_give_up(&r->job, NO_MEMORY);
        return -1;
    }
    for (in = (view){r->head.data, r->head.len}; pair_next(&in, &name, &value);) {
        if (view_is(name, ":path")) r->target = value;
        else if (view_is(name, ":method")) r->method = value;
        else if (view_is(name, "content-type")) r->content_type = value;
        else if (view_is(name, "content-length")) expect_body(r, value);
        gate_header(&r->job, name, value);
    }
    return 0;
}

EXPORT int HOOK(http_filter_request_headers)(abi_filter f, request *r, bool end);
EXPORT int HOOK(http_filter_request_headers)(abi_filter f, request *r, bool end)
{
    (void)f;
    request_enter(r);
    r->begun_ns = pdr_host_now_ns();
    r->head_only = end ? 1 : 0;
    if (read_head(r)) {
        request_leave(r);
        return ABI_HEADERS_STOP;
    }
    if (view_is(r->method, "CONNECT")) refuse(r, 405, "method_not_allowed", "this gateway is no tunnel", "GET, POST");
    else if (gate_target(&r->job, r->target, &r->plain, &r->path, &r->target) == 0 && !local(r) && end) start(r);
    request_leave(r);
    return ABI_HEADERS_STOP;
}

EXPORT int HOOK(http_filter_request_body)(abi_filter f, request *r, bool end);
EXPORT int HOOK(http_filter_request_body)(abi_filter f, request *r, bool end)
{
    const size_t n = CALLBACK(http_get_body_chunks_size)(f, ABI_RECEIVED_REQUEST_BODY);
    abi_text small[CHUNKS_MAX], *chunks = n <= CHUNKS_MAX ? small : malloc(n * sizeof *chunks);
    size_t size = 0;

    request_enter(r);
    if (!r->started && !r->answered) {
        const int shown = n == 0 || (chunks && CALLBACK(http_get_body_chunks)(f, ABI_RECEIVED_REQUEST_BODY, chunks));
        if (n && shown) {
            for (size_t i = 0; i < n; i++) {
                size += chunks[i].length;
                if (r->body.len + chunks[i].length <= r->t->gate.config.max_body + 1) bytes_put(&r->body, chunks[i].ptr, chunks[i].length);
                else r->body.len = r->t->gate.config.max_body + 1;
                if (r->body.len > r->t->gate.config.max_body) break;
            }
        }
        if (size) (void)CALLBACK(http_drain_body)(f, ABI_RECEIVED_REQUEST_BODY, size);
        if (!shown) gate_give_up(&r->job, chunks ? "Envoy does not show the request's body" : NO_MEMORY);
        else if (r->body.failed) gate_give_up(&r->job, NO_MEMORY);
        else if (r->body.len > r->t->gate.config.max_body) gate_refuse(&r->job, &r->t->gate, PDR_E_TOO_LARGE, "the body is larger than what is taken");
        else if (end) start(r);
    }
    if (chunks != small) free(chunks);
    request_leave(r);
    return ABI_BODY_STOP_NO_BUFFER;
}

EXPORT int HOOK(http_filter_request_trailers)(abi_filter f, request *r);
EXPORT int HOOK(http_filter_request_trailers)(abi_filter f, request *r)
{
    (void)f;
    request_enter(r);
    if (!r->started && !r->answered) start(r);
    request_leave(r);
    return ABI_TRAILERS_STOP;
}

EXPORT void HOOK(http_filter_scheduled)(abi_filter f, request *r, uint64_t event);
EXPORT void HOOK(http_filter_scheduled)(abi_filter f, request *r, uint64_t event)
{
    thread *t = r->t;
    const uint64_t now = pdr_host_now_ns();

    (void)f, (void)event;
    request_enter(r);
    if (t->gate.leased && t->gate.lease.wake_fd >= 0) gate_woken(&t->gate);
    gate_tick(&t->gate);
    for (request *each = t->requests, *next; each; each = next) {
        next = each->next;
        request_enter(each);
        request_tick(each, now);
        request_leave(each);
    }
    request_leave(r);
}

/* What Envoy calls and a filter that answers everything by itself need not know. */
#define PASS(hook, ...)                              \
    EXPORT int HOOK(hook)(abi_filter f, request *r __VA_ARGS__); \
    EXPORT int HOOK(hook)(abi_filter f, request *r __VA_ARGS__)
PASS(http_filter_response_headers, , bool end)
{
    (void)f, (void)r, (void)end;
    return ABI_HEADERS_CONTINUE;
}
PASS(http_filter_response_body, , bool end)
{
    (void)f, (void)r, (void)end;
    return ABI_BODY_CONTINUE;
}
PASS(http_filter_response_trailers)
{
    (void)f, (void)r;
    return ABI_TRAILERS_CONTINUE;
}

EXPORT void HOOK(http_filter_http_callout_done)(abi_filter f, request *r, uint64_t id, int result, const abi_header *h, size_t n, const abi_text *b, size_t m);
EXPORT void HOOK(http_filter_http_callout_done)(abi_filter f, request *r, uint64_t id, int result, const abi_header *h, size_t n, const abi_text *b, size_t m)
{
    (void)f, (void)r, (void)id, (void)result, (void)h, (void)n, (void)b, (void)m;
}

EXPORT void HOOK(http_filter_downstream_above_write_buffer_high_watermark)(abi_filter f, request *r);
EXPORT void HOOK(http_filter_downstream_above_write_buffer_high_watermark)(abi_filter f, request *r)
{
    (void)f, (void)r;
}

EXPORT void HOOK(http_filter_downstream_below_write_buffer_low_watermark)(abi_filter f, request *r);
EXPORT void HOOK(http_filter_downstream_below_write_buffer_low_watermark)(abi_filter f, request *r)
{
    (void)f, (void)r;
}
