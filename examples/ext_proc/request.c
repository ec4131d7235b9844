/* The client's request, as Envoy shows it: collected until it is complete, then the gate has it. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "parts.h"

/* Headers of one connection; Envoy takes care of most. Those named by a Connection header are gone before it asks. */
#define LISTED(literal) {literal, sizeof(literal) - 1}

static int stays(const call *c, view name)
{
    static const view names[] = {LISTED("connection"), LISTED("keep-alive"), LISTED("proxy-connection"), LISTED("expect"), LISTED("te"), LISTED("trailer"),
                                 LISTED("upgrade"), LISTED("http2-settings"), LISTED("proxy-authorization"), LISTED("x-prefiller-host-port"),
                                 LISTED(HEADER_PREFILL), LISTED(HEADER_LENGTH)};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (name.len == names[i].len && memcmp(name.data, names[i].data, name.len) == 0) return 1;
    }
    /* an answer whose usage is to be read cannot be compressed; Envoy's compressor does that for the client */
    if (c->job.api != PDR_API_OTHER && view_is(name, "accept-encoding")) return 1;
    return pdr_header_owned(name.data, name.len) == 1;
}

const request_field *call_fields(const call *c, size_t *n)
{
    *n = c->fields.len / sizeof(request_field);
    return (const request_field *)(const void *)c->fields.data;
}

view call_body(const call *c)
{
    return (view){c->body.data + c->body_at, c->body.len - c->body_at};
}

/* 0, or -1: it was answered */
static int read_head(call *c, view headers)
{
    request_field *all;
    view in;
    header h;

    c->head.len = c->fields.len = 0;
    bytes_put_view(&c->head, headers);
    in = (view){c->head.data, c->head.len};
    while (header_next(&in, &h) > 0) {
        const request_field f = {h.name, h.value, 0};
        if (view_is(h.name, ":path")) c->target = h.value;
        else if (view_is(h.name, ":method")) c->method = h.value;
        else if (view_is(h.name, "content-type")) c->content_type = h.value;
        gate_header(&c->job, h.name, h.value);
        bytes_put(&c->fields, &f, sizeof f);
    }
    if (c->head.failed || c->fields.failed) {
        gate_give_up(&c->job, "out of memory");
        return -1;
    }
    if (c->target.len == 0 && !view_is(c->method, "CONNECT")) {
        gate_refuse(&c->job, &c->w->gate, PDR_E_PARSE, "the request has no path");
        return -1;
    }
    if (gate_target(&c->job, c->target, &c->plain, &c->path, &in)) return -1;
    c->renamed = in.data != c->target.data;
    c->target = in;
    all = (request_field *)(void *)c->fields.data;
    for (size_t i = 0; i < c->fields.len / sizeof *all; i++) all[i].stays = stays(c, all[i].name);
    return 0;
}

int view_mentions(view text, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = 0; i + n <= text.len; i++) {
        if (strncasecmp(text.data + i, word, n) == 0) return 1;
    }
    return 0;
}

static void keep_body(call *c, view part)
{
    if (part.len == 0) return;
    if (c->body.len == 0 && grpc_keep(&c->grpc, part, &c->body)) { /* the message's memory: nothing to copy */
        c->body_at = (size_t)(part.data - c->body.data);
        c->body.len = c->body_at + part.len;
        return;
    }
    bytes_put_view(&c->body, part);
}

/* All wait for the same time: who came last is the last. */
static void await_body(call *c)
{
    worker *w = c->w;

    c->late_ns = pdr_host_now_ns() + w->options->body_timeout_ms * 1000000ull;
    c->late_next = NULL;
    c->late_prev = w->late_last;
    if (c->late_prev) c->late_prev->late_next = c;
    else w->late = c;
    w->late_last = c;
}

void request_unawait(call *c)
{
    if (!c->late_ns) return;
    if (c->late_prev) c->late_prev->late_next = c->late_next;
    else c->w->late = c->late_next;
    if (c->late_next) c->late_next->late_prev = c->late_prev;
    else c->w->late_last = c->late_prev;
    c->late_ns = 0;
}

void requests_tick(worker *w)
{
    const uint64_t now = pdr_host_now_ns();

    while (w->late && now >= w->late->late_ns) {
        call *c = w->late;
        call_enter(c);
        request_unawait(c);
        gate_refuse_late(&c->job);
        call_leave(c);
    }
}

void call_start(call *c)
{
    const view body = call_body(c);

    request_unawait(c);
    c->started = 1;
    c->w->requests++;
    if (c->w->options->echo) {
        reply_echo(c);
        return;
    }
    if (c->subset.failed) {
        gate_give_up(&c->job, "out of memory");
        return;
    }
    if (c->subset_given && subset_apply(&c->job, (view){c->subset.data, c->subset.len})) {
        gate_refuse(&c->job, &c->w->gate, PDR_E_NO_PAIR, SUBSET_NOBODY);
        return;
    }
    gate_start(&c->job, &c->w->gate, c->job.api, body, view_mentions(c->content_type, "json"));
}

void request_headers(call *c, const message *m)
{
    if (c->head_seen) return;
    c->head_seen = 1;
    c->response_body_mode = m->response_body_mode;
    c->request_body_mode = m->request_body_mode;
    c->head_only = m->end != 0;
    if (read_head(c, m->headers) || (!c->w->options->echo && local_answer(c))) return;
    if (c->head_only) call_start(c);
    else await_body(c);
}

void request_body(call *c, const message *m)
{
    if (c->started || c->answered) return;
    if (c->body.len - c->body_at + m->body.len > c->w->gate.config.max_body) {
        char text[96];
        request_unawait(c);
        (void)snprintf(text, sizeof text, "the body has more than %llu bytes", (unsigned long long)c->w->gate.config.max_body);
        gate_refuse(&c->job, &c->w->gate, PDR_E_TOO_LARGE, text);
        return;
    }
    keep_body(c, m->body);
    if (c->body.failed) grpc_finish(&c->grpc, GRPC_RESOURCE_EXHAUSTED);
    else if (m->end) call_start(c);
}
