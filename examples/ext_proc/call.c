/*
 * The conversation about one request, and how the exchange's actions become answers to Envoy.
 *
 *   request:   headers, body … (end, or trailers)   → scan, decide; perhaps held; prefill is sent from here; when its connection
 *              stands: destination, changed body      (decode is sent by Envoy)
 *   response:  headers                              → decode has answered; answered when its first byte is trusted
 *              body …                               → usage, first token, end; sent back as it is
 *
 * Envoy ends every conversation with RST_STREAM; if the client left, with END_STREAM before it.
 */
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define FREE_CALLS_MAX 1024
#define KEEP_MAX       (256 * 1024) /* buffers larger than this are not kept for the next request */
#define MESSAGE_SLACK  (256 * 1024)

grpc_stream *call_open(grpc_loop *loop)
{
    worker *w = loop->owner;
    call *c = w->free_calls;

    if (c) {
        w->free_calls = c->next_free;
        w->free_calls_n--;
    } else if (!(c = calloc(1, sizeof *c))) {
        return NULL;
    }
    c->w = w;
    c->job.gate = &w->gate;
    c->response_body_mode = c->request_body_mode = -1;
    c->grpc.max_message = w->gate.config.max_body + MESSAGE_SLACK;
    for (uint32_t i = 0; i < 2; i++) {
        c->legs[i].c = c;
        c->legs[i].which = i;
    }
    w->calls++;
    return &c->grpc;
}

bytes bytes_emptied(bytes b)
{
    if (b.cap > KEEP_MAX || b.failed) bytes_free(&b);
    b.len = 0;
    return b;
}

void call_free(call *c)
{
    for (int i = 0; i < 2; i++) leg_free(&c->legs[i]);
    grpc_stream_free(&c->grpc);
    bytes_free(&c->head);
    bytes_free(&c->fields);
    bytes_free(&c->plain);
    bytes_free(&c->body);
    bytes_free(&c->tail);
    bytes_free(&c->subset);
    bytes_free(&c->forwarded);
    bytes_free(&c->held_body);
    free(c);
}

/* As new, but with its buffers and libcurl's handles. */
static void renew(call *c)
{
    const bytes head = bytes_emptied(c->head), body = bytes_emptied(c->body), tail = bytes_emptied(c->tail), held = bytes_emptied(c->held_body),
                subset = bytes_emptied(c->subset), forwarded = bytes_emptied(c->forwarded), fields = bytes_emptied(c->fields),
                plain = bytes_emptied(c->plain);

    for (int i = 0; i < 2; i++) leg_renew(&c->legs[i]);
    grpc_stream_reset(&c->grpc);
    memset(&c->job, 0, offsetof(gate_job, prompt));
    c->job.actions_n = 0;
    memset((char *)&c->path, 0, sizeof *c - offsetof(call, path));
    c->head = head;
    c->fields = fields;
    c->plain = plain;
    c->body = body;
    c->tail = tail;
    c->subset = subset;
    c->forwarded = forwarded;
    c->held_body = held;
    c->body_at = 0;
}

static int leg_is_over(const leg *l)
{
    return l->state == LEG_IDLE || l->state == LEG_DONE;
}

int call_release(call *c)
{
    worker *w = c->w;

    if (!c->over || c->locks || (c->job.begun && !c->job.finished) || c->job.is_held) return 0;
    if (!leg_is_over(&c->legs[0]) || !leg_is_over(&c->legs[1])) return 0;
    leg_cancel(&c->legs[0]);
    leg_cancel(&c->legs[1]);
    gate_job_end(&c->job);
    w->calls--;
    if (w->free_calls_n >= FREE_CALLS_MAX) {
        call_free(c);
        return 1;
    }
    renew(c);
    c->next_free = w->free_calls;
    w->free_calls = c;
    w->free_calls_n++;
    return 1;
}

void call_enter(call *c)
{
    c->locks++;
}

void call_leave(call *c)
{
    c->locks--;
    (void)call_release(c);
}

static void each_address(void *context, view text)
{
    subset_put(&((call *)context)->subset, text);
}

void call_message(grpc_stream *s, view in)
{
    call *c = (call *)s;
    message m;

    if (c->answered) return;
    if (message_read(in, &m)) {
        grpc_finish(s, GRPC_INVALID_ARGUMENT);
        return;
    }
    call_enter(c);
    if (!c->started && m.metadata.len && metadata_strings(m.metadata, SUBSET_SPACE, SUBSET_KEY, each_address, c)) c->subset_given = 1;
    switch (m.kind) {
    case MESSAGE_REQUEST_HEADERS:
        request_headers(c, &m);
        break;
    case MESSAGE_REQUEST_BODY:
        request_body(c, &m);
        break;
    case MESSAGE_REQUEST_TRAILERS:
        if (c->started || c->answered) break;
        c->trailers = 1;
        call_start(c);
        break;
    case MESSAGE_RESPONSE_HEADERS:
        response_headers(c, &m);
        break;
    case MESSAGE_RESPONSE_BODY:
        response_body(c, &m);
        break;
    case MESSAGE_RESPONSE_TRAILERS:
        response_trailers(c);
        break;
    default: /* of a later version of the protocol */
        break;
    }
    call_leave(c);
}

static void client_gone(call *c)
{
    if (c->gone || c->response_end || c->answered) return;
    c->gone = 1;
    gate_client_gone(&c->job);
}

void call_half_closed(grpc_stream *s)
{
    call *c = (call *)s;
    call_enter(c);
    client_gone(c);
    grpc_finish(s, GRPC_OK);
    call_leave(c);
}

void call_closed(grpc_stream *s)
{
    call *c = (call *)s;

    call_enter(c);
    c->over = 1;
    request_unawait(c);
    if (!c->gone && !c->response_end && !c->answered && !c->taken_over && c->response_seen && !c->response_held && c->response_body_mode != BODY_FULL_DUPLEX)
        response_event(c, PDR_EV_END); /* its body was not shown here, and it is over */
    else
        client_gone(c);
    call_leave(c);
}
