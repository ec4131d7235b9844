/* Legs of our own: what happens on them, and their answer in place of Envoy's. */
#include <stdio.h>

#include "parts.h"

static void relay_leg(call *c, leg *l);

/*
 * A stream in place of Envoy's can begin before Envoy has sent the request, and when what it got is a failure with a body. In between, and when
 * a good answer has begun (it breaks the client's stream when it breaks), only a whole answer can.
 */
int own_leg_can_stream(const call *c)
{
    return c->decode != DECODE_SENT || (c->response_failed && !c->response_head_only && c->response_body_mode == BODY_FULL_DUPLEX);
}

/*
 * The answer of a decode leg of our own goes to the client: in place of the one that Envoy still waits for, or, if Envoy has that one's head (a
 * failure), as its content.
 */
void own_leg_stream(call *c, leg *l, int end)
{
    view body;

    if (c->over || c->answered) return;
    if (l->status >= 400 && !end) return; /* errors pass whole */
    if (!l->streaming && !own_leg_can_stream(c) && !end) return;
    body = gate_pass(&c->job, l->status, c->response_read && l->sse, c->response_read ? &c->response : NULL, (view){l->collected.data, l->collected.len}, end);
    if (gate_lost(&c->job)) {
        response_lost(c);
        return;
    }
    if (gate_keeps(&c->job)) {
        const int there = body.data == l->collected.data;
        l->collected.len = there ? body.len : 0;
        l->fed = 0;
        if (!there && !l->streaming && !own_leg_can_stream(c)) bytes_put_view(&l->collected, body);
        if (l->collected.failed) {
            response_lost(c);
            return;
        }
        if (body.len == 0 && !end) {
            if (l->paused) leg_note(l);
            return;
        }
    }
    if (l->status >= 400 && body.len) (void)pdr_error_mask(&c->job.decision, l->collected.data, body.len);
    if (!l->streaming && !own_leg_can_stream(c)) {
        if (end) relay_leg(c, l);
        return;
    }
    if (!l->streaming) {
        l->streaming = 1;
        c->response_sse = l->sse;
        gate_event(&c->job, PDR_EV_SENT, l->which, &(gate_detail){.attempt = l->attempt, .status = l->status});
        reply_leg_headers(c, l, end && body.len == 0);
        if (end && body.len == 0 && !c->response_seen) return;
    }
    if (body.len || end) reply_leg_body(c, body, end);
    l->collected.len = l->fed = 0;
}

/* Prefill's answer, a refusal, goes to the client. */
static void relay_leg(call *c, leg *l)
{
    view in = {l->lines.data, l->lines.len};
    char type[128] = "application/json";
    header h;

    if (c->over || c->answered) return;
    gate_event(&c->job, PDR_EV_SENT, l->which, &(gate_detail){.attempt = l->attempt, .status = l->status});
    while (leg_line(&in, &h)) {
        if (view_is_nocase(h.name, "content-type")) (void)snprintf(type, sizeof type, "%.*s", (int)h.value.len, h.value.data);
    }
    c->answered = 1;
    if (l->status >= 400 && l->collected.len) (void)pdr_error_mask(&c->job.decision, l->collected.data, l->collected.len);
    reply_immediate(c, l->status, type, l->retry_after_ms, NULL, NULL, (view){l->collected.data, l->collected.len});
}

/* One thing that happened on a leg, the first that was not told. 0: there is nothing more. */
static int tell(call *c, leg *l)
{
    static const char *const text[] = {"", "no connection", "kept connection was closed", "connection was closed", "timed out", "answer is not HTTP"};
    gate_detail detail = {.status = l->status, .detail = l->failed, .attempt = l->attempt, .retry_after_ms = l->retry_after_ms};
    const int decode = l->which == PDR_LEG_DECODE;

    if (decode && l->head_told && c->response_read) {
        if (l->collected.len > l->fed) gate_piece(&c->job);
        if (l->collected.len > l->fed) (void)pdr_response_feed(&c->response, l->collected.data + l->fed, l->collected.len - l->fed);
        l->fed = l->collected.len;
        detail.usage = &c->response;
    }
    if (l->head && !l->head_told) {
        l->head_told = 1;
        if (decode) response_begin(c, l->json, l->sse, l->encoded);
        gate_event(&c->job, PDR_EV_HEAD, l->which, &detail);
    } else if (l->body && !l->body_told) {
        l->body_told = 1;
        if (decode && response_broken(c, (view){l->collected.data, l->collected.len})) {
            detail.detail = PDR_FAIL_PROTOCOL;
            leg_cancel(l);
            gate_event(&c->job, PDR_EV_FAILED, l->which, &detail);
            return 1;
        }
        gate_event(&c->job, PDR_EV_BODY, l->which, &detail);
    } else if (l->complete) {
        l->complete = 0;
        if (l->relayed && !decode) relay_leg(c, l);
        l->ended = 1;
        gate_event(&c->job, PDR_EV_END, l->which, &detail);
    } else if (l->lacks) {
        l->lacks = 0;
        gate_give_up(&c->job, "the gateway lacks what a request to a server needs: descriptors or memory");
    } else if (l->failed && decode && l->head_told && response_whole(c)) {
        l->failed = 0; /* what the connection does behind [DONE] takes nothing from the client */
        l->complete = 1;
    } else if (l->failed) {
        l->failed = 0;
        gate_log(detail.detail == PDR_FAIL_STALE ? "info" : "error", "%s %s: %s", decode ? "decode" : "prefill", c->names[l->which], text[detail.detail]);
        gate_event(&c->job, PDR_EV_FAILED, l->which, &detail);
    } else {
        return 0;
    }
    return 1;
}

void call_leg_event(leg *l)
{
    call *c = l->c;
    const uint32_t attempt = l->attempt;

    call_enter(c);
    if (l->connected && l->state == LEG_CONNECT) l->state = LEG_OPEN;
    if (l->connected && c->decode == DECODE_WANTED && !c->over) decode_release(c);
    while (tell(c, l) && l->attempt == attempt) continue;
    if (l->relayed && l->which == PDR_LEG_DECODE && l->attempt == attempt && (l->collected.len || l->ended) && !c->response_end) {
        if (l->ended) c->response_end = 1;
        own_leg_stream(c, l, l->ended);
    }
    call_leave(c);
}

void call_drained(grpc_stream *s)
{
    leg *l = &((call *)s)->legs[PDR_LEG_DECODE];
    if (l->paused && !l->dirty) leg_note(l);
}
