/* Decode's answer, when Envoy has sent decode's request: read as it passes, held back until its first byte is trusted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../gate/retry_after.h"
#include "parts.h"

/* What decode says is read as it passes: usage, and whether the first byte is one to trust. */
void response_begin(call *c, int json, int sse, int encoded)
{
    c->response_sse = sse != 0;
    c->response_read = (json || sse) && !encoded;
    pdr_init_struct(&c->response, sizeof c->response);
    if (c->response_read) pdr_response_init(&c->response, sse ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON);
}

/* A stream that begins with an error event is a failure of the server's, unless the event says that it is the request's. */
int response_broken(const call *c, view chunk)
{
    return c->response_sse && c->response_read && c->response.flags & PDR_SEEN_ERROR && !gate_error_is_refusal(chunk);
}

/* With a mirror nobody sees prefill's answer: it counts as good when decode's is. */
static void mirror_event(call *c, uint32_t type)
{
    const gate_detail detail = {.status = 200, .attempt = c->job.exchange.attempt};
    if (c->w->options->dispatch != DISPATCH_MIRROR || c->job.decision.mode != PDR_MODE_PD) return;
    gate_event(&c->job, type, PDR_LEG_PREFILL, &detail);
}

/* The conversation ends without its end: the client must not take what it has for all there is. */
void response_lost(call *c)
{
    if (c->over || c->answered) return;
    c->answered = 1;
    gate_log("error", "out of memory in the middle of an answer");
    gate_client_gone(&c->job);
    grpc_finish(&c->grpc, GRPC_UNAVAILABLE); /* Envoy resets the client's stream */
}

/* A piece of Envoy's decode answer, on its way to the client. */
static void pass_piece(call *c, view piece, int end)
{
    const view body = gate_pass(&c->job, c->response_status, c->response_read && c->response_sse, c->response_read ? &c->response : NULL, piece, end);
    if (gate_lost(&c->job)) response_lost(c);
    else if (body.len || end || !gate_keeps(&c->job)) reply_body(c, 1, body, end);
}

/* What came of the answer's body before its head was let pass. */
void response_flush(call *c)
{
    const bytes held = c->held_body;
    if ((held.len == 0 || c->response_masked) && !c->response_end) return;
    if (c->response_masked && held.len) (void)pdr_error_mask(&c->job.decision, held.data, held.len);
    pass_piece(c, (view){held.data, held.len}, c->response_end);
    c->held_body.len = 0;
}

/* Envoy answers for a server that it could not get an answer from; its code details say so. */
static uint32_t envoy_failure(const message *m, int from_server)
{
    const view d = m->attributes;

    if (d.len == 0) return from_server ? 0 : PDR_FAIL_RESET;
    if (view_is(d, "via_upstream")) return 0;
    if (view_mentions(d, "connection_failure") || view_mentions(d, "no_healthy") || view_mentions(d, "cluster_not_found") || view_mentions(d, "no_cluster"))
        return PDR_FAIL_CONNECT;
    if (view_mentions(d, "timeout")) return PDR_FAIL_TIMEOUT;
    if (view_mentions(d, "protocol")) return PDR_FAIL_PROTOCOL;
    return PDR_FAIL_RESET;
}

/* 0: no status of HTTP. Envoy passes on what servers say, of any length. */
static unsigned status_of(view v)
{
    unsigned n = 0;

    for (size_t i = 0; i < v.len; i++) {
        if (v.data[i] < '0' || v.data[i] > '9' || i == 3) return 0;
        n = n * 10 + (unsigned)(v.data[i] - '0');
    }
    return n >= 100 ? n : 0;
}

static void read_response_head(call *c, const message *m, uint32_t *failed)
{
    view in = m->headers;
    int from_server = 0, encoded = 0, json = 0, sse = 0;
    header h;

    while (header_next(&in, &h) > 0) {
        if (view_is(h.name, ":status")) c->response_status = status_of(h.value);
        else if (view_is(h.name, "content-type")) {
            json = view_mentions(h.value, "application/json");
            sse = view_mentions(h.value, "text/event-stream");
        } else if (view_is(h.name, "content-encoding")) encoded = !view_is_nocase(h.value, "identity");
        else if (view_is(h.name, "x-envoy-upstream-service-time")) from_server = 1;
        else if (view_is(h.name, "retry-after")) c->retry_after_ms = retry_after_ms(h.value.data, h.value.len, time(NULL));
    }
    *failed = envoy_failure(m, from_server);
    if (*failed == 0 && c->response_status == 0) *failed = PDR_FAIL_PROTOCOL;
    response_begin(c, json, sse, encoded);
}

static gate_detail response_detail(call *c)
{
    return (gate_detail){.status = c->response_status, .attempt = c->job.exchange.attempt, .retry_after_ms = c->retry_after_ms,
                         .usage = c->response_read ? &c->response : NULL};
}

void response_event(call *c, uint32_t type)
{
    const gate_detail detail = response_detail(c);
    if (type == PDR_EV_END) {
        mirror_event(c, PDR_EV_HEAD);
        mirror_event(c, PDR_EV_END);
    }
    gate_event(&c->job, type, PDR_LEG_DECODE, &detail);
}

int response_whole(const call *c)
{
    return c->response_sse && c->response_read && (c->response.flags & (PDR_SEEN_DONE | PDR_SEEN_ERROR)) == PDR_SEEN_DONE;
}

static uint32_t endpoint_at(pdr_router *r, view address)
{
    uint32_t cursor = 0, id, state;
    pdr_endpoint e;
    char text[300];

    while (pdr_endpoint_next(r, &cursor, &id) == PDR_OK) {
        pdr_init_struct(&e, sizeof e);
        if (pdr_endpoint_get(r, id, &e, &state) != PDR_OK) continue;
        gate_address(text, sizeof text, e.host, e.port, 1);
        if (view_is(address, text)) return id;
    }
    return PDR_NONE;
}

/*
 * A data plane with fallbacks of its own may have used another server than the one that was named: the place that is booked moves there, and what this answer
 * shows is that one's, not a merit or fault of the server that was named.
 */
static void served(void *context, view address)
{
    call *c = context;
    pdr_exchange *x = &c->job.exchange;

    if (view_is(address, c->destination) || c->job.finished) return;
    const uint32_t id = endpoint_at(c->w->gate.router, address);
    gate_log("notice", "decode %s was named, the data plane used %.*s", c->destination, (int)address.len, address.data);
    c->w->served_elsewhere++;
    gate_event(&c->job, PDR_EV_SERVED, PDR_LEG_DECODE, &(gate_detail){.detail = id, .attempt = x->attempt});
    if (x->decode != id) x->decode = PDR_NONE; /* the books could not be written: the place stays, but nobody is judged by another's answer */
}

void response_headers(call *c, const message *m)
{
    uint32_t failed;

    if (c->response_seen || c->answered || c->legs[PDR_LEG_DECODE].streaming) return;
    c->response_seen = 1;
    if (!c->head_seen) c->response_body_mode = m->response_body_mode; /* Envoy's own answer to a head that it did not show */
    if (c->taken_over) return; /* it comes too late: another answer is on its way */
    if (!c->job.begun || c->job.finished) { /* nothing of ours: it passes */
        reply_response_headers(c);
        return;
    }
    if (m->metadata.len && c->destination[0]) (void)metadata_strings(m->metadata, SERVED_SPACE, SERVED_KEY, served, c);
    read_response_head(c, m, &failed);
    c->response_held = 1;
    c->response_head_only = m->end != 0;
    c->response_failed = failed || c->response_status >= 300;
    c->response_masked = c->response_status >= 400 && c->response_body_mode == BODY_FULL_DUPLEX;
    if (failed) {
        gate_event(&c->job, PDR_EV_FAILED, PDR_LEG_DECODE, &(gate_detail){.detail = failed, .attempt = c->job.exchange.attempt});
        return;
    }
    c->response_end = m->end != 0;
    response_event(c, PDR_EV_HEAD);
    if (m->end) response_event(c, PDR_EV_END);
    /* without the body, the head is all there is to see */
    else if (c->response_body_mode != BODY_FULL_DUPLEX) response_event(c, PDR_EV_BODY);
}

void response_body(call *c, const message *m)
{
    if (c->answered || c->taken_over) return;
    if (c->response_read) (void)pdr_response_feed(&c->response, m->body.data ? m->body.data : "", m->body.len);
    gate_piece(&c->job);
    if ((c->response_held || c->response_masked) && m->body.len) bytes_put_view(&c->held_body, m->body);
    if (c->held_body.failed) {
        response_lost(c);
        return;
    }
    if (c->response_held) {
        /* when its head passes */
    } else if (c->response_masked) {
        c->response_end = m->end != 0;
        response_flush(c);
    } else if (c->response_body_mode == BODY_FULL_DUPLEX) pass_piece(c, m->body, m->end);
    else reply_body_unchanged(c);
    if (m->end) c->response_end = 1;
    if (m->body.len && !c->response_body_told) {
        c->response_body_told = 1;
        if (c->response_held && response_broken(c, m->body)) {
            c->held_body.len = 0;
            gate_event(&c->job, PDR_EV_FAILED, PDR_LEG_DECODE, &(gate_detail){.detail = PDR_FAIL_PROTOCOL, .attempt = c->job.exchange.attempt});
            return;
        }
        response_event(c, PDR_EV_BODY);
    }
    if (m->end) response_event(c, PDR_EV_END);
}

void response_trailers(call *c)
{
    if (c->answered || c->taken_over) return;
    if (!c->response_end) response_event(c, PDR_EV_END);
    if (gate_keeps(&c->job) && !c->response_held && c->response_body_mode == BODY_FULL_DUPLEX) {
        const view rest = gate_pass(&c->job, c->response_status, c->response_read && c->response_sse, c->response_read ? &c->response : NULL, (view){"", 0}, 1);
        if (gate_lost(&c->job)) {
            response_lost(c);
            return;
        }
        if (rest.len) reply_body(c, 1, rest, 0);
    }
    reply_response_trailers(c);
}
