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
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "extproc.h"

#define FREE_CALLS_MAX 1024
#define KEEP_MAX       (256 * 1024) /* buffers larger than this are not kept for the next request */
#define MESSAGE_SLACK  (256 * 1024)

/* -------------------------------------------------------------------------------------------------------------- life */

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

static bytes emptied(bytes b)
{
    if (b.cap > KEEP_MAX || b.failed) bytes_free(&b);
    b.len = 0;
    return b;
}

void call_free(call *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->legs[i].easy) curl_easy_cleanup(c->legs[i].easy);
        bytes_free(&c->legs[i].tail);
        bytes_free(&c->legs[i].collected);
        bytes_free(&c->legs[i].lines);
    }
    grpc_stream_free(&c->grpc);
    bytes_free(&c->head);
    bytes_free(&c->body);
    bytes_free(&c->tail);
    bytes_free(&c->subset);
    bytes_free(&c->held_body);
    free(c);
}

/* As new, but with its buffers and libcurl's handles. */
static void renew(call *c)
{
    const bytes head = emptied(c->head), body = emptied(c->body), tail = emptied(c->tail), held = emptied(c->held_body),
                subset = emptied(c->subset);

    for (int i = 0; i < 2; i++) {
        leg *l = &c->legs[i];
        const bytes leg_tail = emptied(l->tail), collected = emptied(l->collected), lines = emptied(l->lines);
        CURL *easy = l->easy;
        memset(l, 0, sizeof *l);
        l->easy = easy;
        l->tail = leg_tail;
        l->collected = collected;
        l->lines = lines;
    }
    grpc_stream_reset(&c->grpc);
    memset(&c->job, 0, offsetof(gate_job, prompt));
    c->job.actions_n = 0;
    memset((char *)&c->path, 0, sizeof *c - offsetof(call, path));
    c->head = head;
    c->body = body;
    c->tail = tail;
    c->subset = subset;
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
    curl_slist_free_all(c->headers);
    c->headers = NULL;
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

static void enter(call *c)
{
    c->locks++;
}

static void leave(call *c)
{
    c->locks--;
    (void)call_release(c);
}

static call *call_of(gate_job *job)
{
    return (call *)((char *)job - offsetof(call, job));
}

/* ----------------------------------------------------------------------------------------------------------- headers */

/* Headers of one connection; Envoy takes care of most. Those named by a Connection header are gone before it asks. */
int header_stays(const call *c, const header *h)
{
    static const char *const names[] = {"connection", "keep-alive", "proxy-connection", "expect", "te", "trailer", "upgrade",
                                        "http2-settings", "proxy-authorization", "x-prefiller-host-port", HEADER_PREFILL, HEADER_LENGTH};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (view_is(h->name, names[i])) return 1;
    }
    /* an answer whose usage is to be read cannot be compressed; Envoy's compressor does that for the client */
    if (c->job.api != PDR_API_OTHER && view_is(h->name, "accept-encoding")) return 1;
    return pdr_header_owned(h->name.data, h->name.len) == 1;
}

view call_body(const call *c)
{
    return (view){c->body.data + c->body_at, c->body.len - c->body_at};
}

static void read_head(call *c, view headers)
{
    view in;
    header h;

    c->head.len = 0;
    bytes_put_view(&c->head, headers);
    in = (view){c->head.data, c->head.len};
    while (header_next(&in, &h) > 0) {
        if (view_is(h.name, ":path")) c->target = h.value;
        else if (view_is(h.name, ":method")) c->method = h.value;
        else if (view_is(h.name, "content-type")) c->content_type = h.value;
        gate_header(&c->job, h.name, h.value);
    }
    const char *query = memchr(c->target.data ? c->target.data : "", '?', c->target.len);
    c->path = (view){c->target.data, query ? (size_t)(query - c->target.data) : c->target.len};
}

static int mentions(view text, const char *word)
{
    const size_t n = strlen(word);
    for (size_t i = 0; i + n <= text.len; i++) {
        if (strncasecmp(text.data + i, word, n) == 0) return 1;
    }
    return 0;
}

/* ----------------------------------------------------------------------------------------------------------- release */

/* ORIGINAL_DST takes addresses, not names. Looked up by the system's resolver, which blocks; addresses are the rule. */
static int address_of(const char *host, unsigned port, char *out, size_t cap)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char text[INET6_ADDRSTRLEN] = "";
    struct in6_addr v6;
    struct in_addr v4;

    if (inet_pton(AF_INET, host, &v4) == 1) return snprintf(out, cap, "%s:%u", host, port) > 0 ? 0 : -1;
    if (inet_pton(AF_INET6, host, &v6) == 1) return snprintf(out, cap, "[%s]:%u", host, port) > 0 ? 0 : -1;
    if (getaddrinfo(host, NULL, &hints, &found) != 0) return -1;
    if (getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0)
        (void)snprintf(out, cap, found->ai_family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, port);
    freeaddrinfo(found);
    return text[0] ? 0 : -1;
}

/* Decode's request may go: Envoy is told where, and what. */
static void release(call *c)
{
    const pdr_decision *d = &c->job.decision;
    char decode[128], prefill[128];
    const int mirror = c->w->options->dispatch == DISPATCH_MIRROR && d->mode == PDR_MODE_PD;

    c->decode = DECODE_SENT;
    if (address_of(d->decode_host, d->decode_port, decode, sizeof decode) ||
        (mirror && address_of(d->prefill_host, d->prefill_port, prefill, sizeof prefill))) {
        const gate_detail detail = {.detail = PDR_FAIL_CONNECT, .attempt = c->job.exchange.attempt};
        gate_log("error", "%s does not resolve", d->decode_host);
        c->decode = DECODE_IDLE;
        gate_event(&c->job, PDR_EV_FAILED, PDR_LEG_DECODE, &detail);
        return;
    }
    reply_request(c, decode, mirror ? prefill : NULL);
}

/* With a mirror nobody sees prefill's answer: it counts as good when decode's is. */
static void mirror_event(call *c, uint32_t type)
{
    const gate_detail detail = {.status = 200, .attempt = c->job.exchange.attempt};
    if (c->w->options->dispatch != DISPATCH_MIRROR || c->job.decision.mode != PDR_MODE_PD) return;
    gate_event(&c->job, type, PDR_LEG_PREFILL, &detail);
}

/* What decode says is read as it passes: usage, and whether the first byte is one to trust. */
static void begin_reading(call *c, int json, int sse, int encoded)
{
    c->response_sse = sse != 0;
    c->response_read = (json || sse) && !encoded;
    pdr_init_struct(&c->response, sizeof c->response);
    if (c->response_read) pdr_response_init(&c->response, sse ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON);
}

/* A stream that begins with an error event is a failure of the server's, unless the event says that it is the request's. */
static int broken_inside(const call *c, view chunk)
{
    return c->response_sse && c->response_read && c->response.flags & PDR_SEEN_ERROR && !gate_error_is_refusal(chunk);
}

/* --------------------------------------------------------------------------------------------------------------- ops */

static void op_decided(gate_job *job)
{
    call *c = call_of(job);
    const pdr_decision *d = &job->decision;
    (void)snprintf(c->names[0], sizeof c->names[0], "%s:%u", d->prefill_host, d->prefill_port);
    (void)snprintf(c->names[1], sizeof c->names[1], "%s:%u", d->decode_host, d->decode_port);
    /* nobody sees prefill's answer, or decode's does not come by here */
    if (job->whole && (c->w->options->dispatch == DISPATCH_MIRROR || (c->w->options->dispatch == DISPATCH_SEND && c->response_body_mode != BODY_FULL_DUPLEX)))
        job->whole->wanted = 0;
}

static void op_send(gate_job *job, int which)
{
    call *c = call_of(job);

    if (c->over) return;
    if (which == PDR_LEG_PREFILL) {
        if (c->w->options->dispatch != DISPATCH_MIRROR) leg_start(&c->legs[PDR_LEG_PREFILL]);
        return;
    }
    /* Envoy has sent one already, and cannot send another */
    if (c->decode == DECODE_SENT || c->w->options->dispatch == DISPATCH_BOTH) {
        c->taken_over = 1;
        leg_start(&c->legs[PDR_LEG_DECODE]);
        return;
    }
    c->decode = DECODE_WANTED;
    if (c->legs[PDR_LEG_PREFILL].state != LEG_CONNECT) release(c);
}

static void op_cancel(gate_job *job, int which)
{
    call *c = call_of(job);

    if (which == PDR_LEG_PREFILL || c->taken_over) leg_cancel(&c->legs[which]);
    else if (c->decode == DECODE_WANTED) c->decode = DECODE_IDLE;
    /* one that Envoy has sent ends with the answer that replaces it */
}

static void op_drain(gate_job *job, int which)
{
    (void)job, (void)which; /* libcurl reads on, on_body() throws away */
}

/* A piece of Envoy's decode answer, on its way to the client. */
static void pass_piece(call *c, view piece, int end)
{
    const view body = gate_pass(&c->job, c->response_status, c->response_read && c->response_sse, c->response_read, piece, end);
    if (body.len || end || !c->job.whole) reply_body(c, 1, body, end);
}

/* What came of the answer's body before its head was let pass. */
static void flush_held(call *c)
{
    const bytes held = c->held_body;
    if ((held.len == 0 || c->response_masked) && !c->response_end) return;
    if (c->response_masked && held.len) (void)pdr_error_mask(&c->job.decision, held.data, held.len);
    pass_piece(c, (view){held.data, held.len}, c->response_end);
    c->held_body.len = 0;
}

/*
 * A stream in place of Envoy's can begin before Envoy has sent the request, and when what it got is a failure with a body. In between, and when
 * a good answer has begun (it breaks the client's stream when it breaks), only a whole answer can.
 */
static int can_stream(const call *c)
{
    return c->decode != DECODE_SENT || (c->response_failed && !c->response_head_only && c->response_body_mode == BODY_FULL_DUPLEX);
}

static void relay_leg(call *c, leg *l);

/*
 * The answer of a decode leg of our own goes to the client: in place of the one that Envoy still waits for, or, if Envoy has that one's head (a
 * failure), as its content.
 */
static void stream_leg(call *c, leg *l, int end)
{
    view body;

    if (c->over || c->answered) return;
    if (l->status >= 400 && !end) return; /* errors pass whole */
    if (!l->streaming && !can_stream(c) && !end) return;
    body = gate_pass(&c->job, l->status, c->response_read && l->sse, c->response_read, (view){l->collected.data, l->collected.len}, end);
    if (c->job.whole) {
        l->collected.len = l->fed = 0;
        if (!l->streaming && !can_stream(c)) bytes_put_view(&l->collected, body);
        if (body.len == 0 && !end) {
            if (l->paused) leg_note(l);
            return;
        }
    }
    if (l->status >= 400 && body.len) (void)pdr_error_mask(&c->job.decision, l->collected.data, body.len);
    if (!l->streaming && !can_stream(c)) {
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

static void op_relay(gate_job *job, int which)
{
    call *c = call_of(job);

    if (c->over || c->answered) return;
    if (which == PDR_LEG_PREFILL) {
        c->legs[PDR_LEG_PREFILL].relayed = 1; /* when all of it is there */
        return;
    }
    if (c->taken_over) {
        c->legs[PDR_LEG_DECODE].relayed = 1;
        stream_leg(c, &c->legs[PDR_LEG_DECODE], 0);
        return;
    }
    if (!c->response_held) return;
    c->response_held = 0;
    gate_event(job, PDR_EV_SENT, PDR_LEG_DECODE, &(gate_detail){.attempt = job->exchange.attempt, .status = c->response_status});
    reply_response_headers(c);
    if (c->response_body_mode == BODY_FULL_DUPLEX && !c->response_head_only) flush_held(c);
}

static void op_respond(gate_job *job, unsigned status, const char *code, const char *sentence, uint64_t retry_after_ms)
{
    call *c = call_of(job);
    char text[1024];
    size_t need = 0;

    if (c->over || c->answered) return;
    c->answered = 1;
    if (pdr_error_body((int)status, code, sentence, text, sizeof text, &need) != PDR_OK) need = 0;
    reply_immediate(c, status, "application/json", retry_after_ms, status == 405 ? "allow" : NULL, "POST", (view){text, need});
}

static void reply_relayed(call *c, view body, int end)
{
    reply_body(c, 1, body, end);
}

/* Bytes of the answer have gone to the client: an error event if it is a stream, and Envoy cuts the connection. */
static void op_abort(gate_job *job, uint32_t reason, const char *sentence)
{
    call *c = call_of(job);
    char text[1024];
    size_t need = 0;

    if (c->over || c->answered) return;
    c->answered = c->tell = 1;
    if (pdr_error_body(502, pdr_reason_name(reason), sentence, text, sizeof text, &need) != PDR_OK) need = 0;
    if (c->response_sse && need && (c->taken_over || c->response_body_mode == BODY_FULL_DUPLEX)) {
        char event[1200];
        size_t len = 0;
        if (pdr_error_event(job->api, 502, pdr_reason_name(reason), sentence, event, sizeof event, &len) == PDR_OK)
            (c->taken_over ? reply_leg_body : reply_relayed)(c, (view){event, len}, 0);
    }
    if (c->taken_over) grpc_finish(&c->grpc, GRPC_UNAVAILABLE); /* Envoy resets the client's stream */
    else reply_immediate(c, 502, "application/json", 0, NULL, NULL, (view){text, need});
}

static int op_may_reroute(gate_job *job)
{
    const call *c = call_of(job);
    if (c->over || c->answered) return 0;
    if (c->decode != DECODE_SENT) return 1;
    return c->w->options->take_over && (can_stream(c) || !(job->prompt.flags & PDR_PROMPT_STREAM));
}

static void op_finished(gate_job *job)
{
    call *c = call_of(job);
    for (int i = 0; i < 2; i++) leg_cancel(&c->legs[i]);
    (void)call_release(c);
}

const gate_ops call_ops = {.send = op_send, .cancel = op_cancel, .drain = op_drain, .relay = op_relay, .respond = op_respond, .abort = op_abort,
                           .finished = op_finished, .may_reroute = op_may_reroute, .decided = op_decided};

/* --------------------------------------------------------------------------------------------------- legs of our own */

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
        if (decode) begin_reading(c, l->json, l->sse, l->encoded);
        gate_event(&c->job, PDR_EV_HEAD, l->which, &detail);
    } else if (l->body && !l->body_told) {
        l->body_told = 1;
        if (decode && broken_inside(c, (view){l->collected.data, l->collected.len})) {
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

    enter(c);
    if (l->connected && l->state == LEG_CONNECT) l->state = LEG_OPEN;
    if (l->connected && c->decode == DECODE_WANTED && !c->over) release(c);
    while (tell(c, l) && l->attempt == attempt) continue;
    if (l->relayed && l->which == PDR_LEG_DECODE && l->attempt == attempt && (l->collected.len || l->ended) && !c->response_end) {
        if (l->ended) c->response_end = 1;
        stream_leg(c, l, l->ended);
    }
    leave(c);
}

void call_drained(grpc_stream *s)
{
    leg *l = &((call *)s)->legs[PDR_LEG_DECODE];
    if (l->paused && !l->dirty) leg_note(l);
}

/* ----------------------------------------------------------------------------------------------------------- request */

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

static void start(call *c)
{
    const view body = call_body(c);

    c->started = 1;
    c->w->requests++;
    if (c->w->options->echo) {
        c->job.api = gate_api(c->path);
        reply_echo(c);
        return;
    }
    if (c->subset_given && subset_apply(&c->job, (view){c->subset.data, c->subset.len})) {
        gate_refuse(&c->job, &c->w->gate, PDR_E_NO_PAIR, SUBSET_NOBODY);
        return;
    }
    gate_start(&c->job, &c->w->gate, c->job.api, body, mentions(c->content_type, "json"));
}

static void on_request_headers(call *c, const message *m)
{
    if (c->head_seen) return;
    c->head_seen = 1;
    c->response_body_mode = m->response_body_mode;
    c->request_body_mode = m->request_body_mode;
    read_head(c, m->headers);
    c->job.api = gate_api(c->path);
    c->head_only = m->end != 0;
    if (!c->w->options->echo && local_answer(c)) return;
    if (c->head_only) start(c);
}

static void on_request_body(call *c, const message *m)
{
    if (c->started || c->answered) return;
    if (c->body.len - c->body_at + m->body.len > c->w->gate.config.max_body) {
        char text[96];
        (void)snprintf(text, sizeof text, "the body has more than %llu bytes", (unsigned long long)c->w->gate.config.max_body);
        gate_refuse(&c->job, &c->w->gate, PDR_E_TOO_LARGE, text);
        return;
    }
    keep_body(c, m->body);
    if (c->body.failed) grpc_finish(&c->grpc, GRPC_RESOURCE_EXHAUSTED);
    else if (m->end) start(c);
}

/* ---------------------------------------------------------------------------------------------------------- response */

/* Envoy answers for a server that it could not get an answer from; its code details say so. */
static uint32_t envoy_failure(const message *m, int from_server)
{
    const view d = m->attributes;

    if (d.len == 0) return from_server ? 0 : PDR_FAIL_RESET;
    if (view_is(d, "via_upstream")) return 0;
    if (mentions(d, "connection_failure") || mentions(d, "no_healthy") || mentions(d, "cluster_not_found") || mentions(d, "no_cluster"))
        return PDR_FAIL_CONNECT;
    if (mentions(d, "timeout")) return PDR_FAIL_TIMEOUT;
    if (mentions(d, "protocol")) return PDR_FAIL_PROTOCOL;
    return PDR_FAIL_RESET;
}

static void read_response_head(call *c, const message *m, uint32_t *failed)
{
    view in = m->headers;
    int from_server = 0, encoded = 0, json = 0, sse = 0;
    header h;

    while (header_next(&in, &h) > 0) {
        if (view_is(h.name, ":status")) c->response_status = (unsigned)strtoul((char[4]){h.value.len > 0 ? h.value.data[0] : '0',
            h.value.len > 1 ? h.value.data[1] : '0', h.value.len > 2 ? h.value.data[2] : '0', 0}, NULL, 10);
        else if (view_is(h.name, "content-type")) {
            json = mentions(h.value, "application/json");
            sse = mentions(h.value, "text/event-stream");
        } else if (view_is(h.name, "content-encoding")) encoded = !view_is_nocase(h.value, "identity");
        else if (view_is(h.name, "x-envoy-upstream-service-time")) from_server = 1;
        else if (view_is(h.name, "retry-after")) {
            uint64_t seconds = 0;
            for (size_t i = 0; i < h.value.len && i < 9 && h.value.data[i] >= '0' && h.value.data[i] <= '9'; i++)
                seconds = seconds * 10 + (uint64_t)(h.value.data[i] - '0');
            c->retry_after_ms = seconds * 1000;
        }
    }
    *failed = envoy_failure(m, from_server);
    begin_reading(c, json, sse, encoded);
}

static gate_detail response_detail(call *c)
{
    return (gate_detail){.status = c->response_status, .attempt = c->job.exchange.attempt, .retry_after_ms = c->retry_after_ms,
                         .usage = c->response_read ? &c->response : NULL};
}

static void response_event(call *c, uint32_t type)
{
    const gate_detail detail = response_detail(c);
    if (type == PDR_EV_END) {
        mirror_event(c, PDR_EV_HEAD);
        mirror_event(c, PDR_EV_END);
    }
    gate_event(&c->job, type, PDR_LEG_DECODE, &detail);
}

static void on_response_headers(call *c, const message *m)
{
    uint32_t failed;

    if (c->response_seen || c->answered || c->legs[PDR_LEG_DECODE].streaming) return;
    c->response_seen = 1;
    if (c->taken_over) return; /* it comes too late: another answer is on its way */
    if (!c->job.begun || c->job.finished) { /* nothing of ours: it passes */
        reply_response_headers(c);
        return;
    }
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

static void on_response_body(call *c, const message *m)
{
    if (c->answered || c->taken_over) return;
    if (c->response_read) (void)pdr_response_feed(&c->response, m->body.data ? m->body.data : "", m->body.len);
    gate_piece(&c->job);
    if ((c->response_held || c->response_masked) && m->body.len) bytes_put_view(&c->held_body, m->body);
    if (c->response_held) {
        /* when its head passes */
    } else if (c->response_masked) {
        c->response_end = m->end != 0;
        flush_held(c);
    } else if (c->response_body_mode == BODY_FULL_DUPLEX) pass_piece(c, m->body, m->end);
    else reply_body_unchanged(c);
    if (m->end) c->response_end = 1;
    if (m->body.len && !c->response_body_told) {
        c->response_body_told = 1;
        if (c->response_held && broken_inside(c, m->body)) {
            c->held_body.len = 0;
            gate_event(&c->job, PDR_EV_FAILED, PDR_LEG_DECODE, &(gate_detail){.detail = PDR_FAIL_PROTOCOL, .attempt = c->job.exchange.attempt});
            return;
        }
        response_event(c, PDR_EV_BODY);
    }
    if (m->end) response_event(c, PDR_EV_END);
}

static void on_response_trailers(call *c)
{
    if (c->answered || c->taken_over) return;
    if (!c->response_end) response_event(c, PDR_EV_END);
    if (c->job.whole && !c->response_held && c->response_body_mode == BODY_FULL_DUPLEX) {
        const view rest = gate_pass(&c->job, c->response_status, c->response_read && c->response_sse, c->response_read, (view){"", 0}, 1);
        if (rest.len) reply_body(c, 1, rest, 0);
    }
    reply_response_trailers(c);
}

/* -------------------------------------------------------------------------------------------------------------- grpc */

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
    enter(c);
    if (!c->started && m.metadata.len && metadata_strings(m.metadata, SUBSET_SPACE, SUBSET_KEY, each_address, c)) c->subset_given = 1;
    switch (m.kind) {
    case MESSAGE_REQUEST_HEADERS:
        on_request_headers(c, &m);
        break;
    case MESSAGE_REQUEST_BODY:
        on_request_body(c, &m);
        break;
    case MESSAGE_REQUEST_TRAILERS:
        if (c->started || c->answered) break;
        c->trailers = 1;
        start(c);
        break;
    case MESSAGE_RESPONSE_HEADERS:
        on_response_headers(c, &m);
        break;
    case MESSAGE_RESPONSE_BODY:
        on_response_body(c, &m);
        break;
    case MESSAGE_RESPONSE_TRAILERS:
        on_response_trailers(c);
        break;
    default: /* of a later version of the protocol */
        break;
    }
    leave(c);
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
    enter(c);
    client_gone(c);
    grpc_finish(s, GRPC_OK);
    leave(c);
}

void call_closed(grpc_stream *s)
{
    call *c = (call *)s;

    enter(c);
    c->over = 1;
    if (!c->gone && !c->response_end && !c->answered && !c->taken_over && c->response_seen && !c->response_held && c->response_body_mode != BODY_FULL_DUPLEX)
        response_event(c, PDR_EV_END); /* its body was not shown here, and it is over */
    else
        client_gone(c);
    leave(c);
}
