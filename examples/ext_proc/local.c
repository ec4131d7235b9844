/* Paths that the gateway answers itself: whether it can serve, and what it knows; and methods that a path does not take. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "extproc.h"

static int has(view text, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = 0; i + n <= text.len; i++) {
        if (memcmp(text.data + i, word, n) == 0) return 1;
    }
    return 0;
}

/* ?format=prometheus, or a scraper's Accept header. */
static int wants_prometheus(const call *c)
{
    view in = {c->head.data, c->head.len};
    header h;

    if (has(c->target, "?format=")) return has(c->target, "?format=prometheus");
    while (header_next(&in, &h) > 0) {
        if (view_is(h.name, "accept")) return has(h.value, "openmetrics") || (h.value.len >= 10 && memcmp(h.value.data, "text/plain", 10) == 0);
    }
    return 0;
}

static void answer(call *c, unsigned status, const char *type, uint64_t retry_after_ms, const char *extra, const char *value, view body)
{
    c->answered = 1;
    reply_immediate(c, status, type, retry_after_ms, extra, value, body);
}

static void status_page(call *c)
{
    pdr_router *r = c->w->gate.router;
    const int prometheus = wants_prometheus(c);
    size_t size = 65536, need;
    char *text = NULL, *more;
    int code;

    do { /* it may have grown meanwhile: a little more than was needed */
        need = 0;
        more = realloc(text, size);
        if (!more) break;
        text = more;
        code = (prometheus ? pdr_status_prometheus : pdr_status_json)(r, pdr_host_now_ns(), text, size, &need);
    } while (code == PDR_E_NOSPACE && need >= size && (size = need + need / 8 + 1024));
    answer(c, text ? 200 : 503, prometheus ? "text/plain; version=0.0.4; charset=utf-8" : "application/json", 0, NULL, NULL, (view){text, need});
    free(text);
}

static int refuse_method(call *c, const char *allowed)
{
    char text[256];
    size_t need = 0;
    const char *sentence = view_is(c->method, "CONNECT") ? "this gateway is no tunnel" : allowed[0] == 'P' ? "this path takes POST requests" : "this path takes GET requests";

    (void)pdr_error_body(405, "method_not_allowed", sentence, text, sizeof text, &need);
    (void)snprintf(c->job.why, sizeof c->job.why, "method_not_allowed");
    answer(c, 405, "application/json", 0, "allow", allowed, (view){text, need});
    return 1;
}

int local_answer(call *c)
{
    static const view ok = {"{\"status\":\"ok\"}\n", 16};
    static const view unready = {"{\"status\":\"no prefill and decode server is available at present\"}\n", 67};
    const int get = view_is(c->method, "GET") || view_is(c->method, "HEAD");
    int ready = 1;

    if (view_is(c->method, "CONNECT")) return refuse_method(c, "GET, POST"); /* what follows has no end to wait for */
    if (c->job.api != PDR_API_OTHER) {
        if (view_is(c->method, "POST") || (c->job.api == PDR_API_GENERATE && view_is(c->method, "PUT"))) return 0;
        return refuse_method(c, "POST");
    }
    if (view_is(c->path, "/pdroute")) {
        if (!get) return refuse_method(c, "GET");
        status_page(c);
        return 1;
    }
    if (view_is(c->path, "/readiness") || view_is(c->path, "/health")) ready = pdr_ready(c->w->gate.router, pdr_host_now_ns()) == 1;
    else if (!view_is(c->path, "/liveness")) return 0;
    if (!get) return refuse_method(c, "GET");
    answer(c, ready ? 200 : 503, "application/json", ready ? 0 : 1000, NULL, NULL, ready ? ok : unready);
    return 1;
}
