/* Both legs as streams that the filter starts, and the answer to the client. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "../gate/retry_after.h"
#include "module.h"

#define HEADERS_MAX 128
#define OWN_HEADERS 5   /* of them */
#define END_MAX 1024    /* what of a body is kept while a leg's stands in its place */
#define COLLECT_MAX (64u * 1024 * 1024)
#define LEG_TIMEOUT_MS 0                   /* none: the router's own deadlines end legs */
#define END_CAP_NS  1000000000ull          /* how long the end of an answer waits for prefill's */

#define LISTED(text) {text, sizeof(text) - 1}

static request *request_of(gate_job *job)
{
    return (request *)((char *)job - offsetof(request, job));
}

void pair_put(bytes *b, const char *name, size_t name_len, const char *value, size_t value_len)
{
    bytes_put(b, name, name_len);
    bytes_put(b, "", 1);
    bytes_put(b, value, value_len);
    bytes_put(b, "", 1);
}

int pair_next(view *in, view *name, view *value)
{
    const char *end;
    for (int i = 0; i < 2; i++) {
        if (in->len == 0 || !(end = memchr(in->data, '\0', in->len))) return 0;
        *(i ? value : name) = (view){in->data, (size_t)(end - in->data)};
        in->len -= (size_t)(end + 1 - in->data);
        in->data = end + 1;
    }
    return 1;
}

static abi_text text_of(const char *s)
{
    return (abi_text){s, strlen(s)};
}

static abi_header header_of(const char *name, const char *value)
{
    return (abi_header){name, strlen(name), value, strlen(value)};
}

/* ------------------------------------------------------------------------------------------------------------ client */

static int is_one_of(view name, const view *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (name.len == names[i].len && memcmp(name.data, names[i].data, name.len) == 0) return 1;
    }
    return name.len > 8 && memcmp(name.data, "x-envoy-", 8) == 0;
}

static int header_stays(const request *r, view name)
{
    static const view names[] = {LISTED("host"), LISTED("content-length"), LISTED("transfer-encoding"), LISTED("connection"), LISTED("keep-alive"),
                                 LISTED("proxy-connection"), LISTED("expect"), LISTED("te"), LISTED("trailer"), LISTED("upgrade"), LISTED("http2-settings"),
                                 LISTED("proxy-authorization"), LISTED("x-gateway-destination-endpoint"), LISTED("x-prefiller-host-port")};
    if (name.len == 0 || name.data[0] == ':' || is_one_of(name, names, sizeof names / sizeof *names)) return 1;
    if (r->job.api != PDR_API_OTHER && view_is(name, "accept-encoding")) return 1;
    return pdr_header_owned(name.data, name.len) == 1;
}

/* For Envoy's access log; in one call where Envoy has it. */
static void put_metadata(request *r, const abi_header *pairs, size_t n)
{
    static const abi_text space = {"pdroute", sizeof "pdroute" - 1};

    if (CALLBACK(http_set_dynamic_metadata_string_batch)) {
        CALLBACK(http_set_dynamic_metadata_string_batch)(r->filter, space, pairs, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        CALLBACK(http_set_dynamic_metadata_string)(r->filter, space, (abi_text){pairs[i].key, pairs[i].key_length}, (abi_text){pairs[i].value, pairs[i].value_length});
}

void request_metadata(request *r, int answered)
{
    const pdr_decision *d = &r->job.decision;
    const int pair = r->job.decided && d->mode != PDR_MODE_SINGLE;
    char hit[48], why[256], prefill[300] = "", decode[300] = "", room[24] = "", attempts[12];
    abi_header pairs[7];
    size_t n = 0;

    if (r->destroyed) return;
    gate_describe(&r->job, hit, sizeof hit, why, sizeof why);
    if (pair) gate_address(prefill, sizeof prefill, d->prefill_host, d->prefill_port, 1);
    if (r->job.decided) gate_address(decode, sizeof decode, d->decode_host, d->decode_port, 1);
    if (pair) (void)snprintf(room, sizeof room, "%" PRIu64, d->room);
    (void)snprintf(attempts, sizeof attempts, "%u", r->job.attempts);
    pairs[n++] = header_of("prefill", prefill);
    pairs[n++] = header_of("decode", decode);
    pairs[n++] = header_of("room", room);
    pairs[n++] = header_of("attempts", attempts);
    pairs[n++] = header_of("hit", hit);
    pairs[n++] = header_of("why", why);
    if (answered) pairs[n++] = header_of("answered", "yes");
    put_metadata(r, pairs, n);
}

void request_answer(request *r, unsigned status, const char *type, uint64_t retry_after_ms, const char *extra, const char *value, view body)
{
    abi_header headers[3];
    char seconds[24];
    size_t n = 0;

    if (r->destroyed || r->answered) return;
    r->answered = r->complete = 1;
    headers[n++] = header_of("content-type", type);
    (void)snprintf(seconds, sizeof seconds, "%" PRIu64, (retry_after_ms + 999) / 1000);
    if (retry_after_ms) headers[n++] = header_of("retry-after", seconds);
    if (extra) headers[n++] = header_of(extra, value);
    request_metadata(r, 1);
    /* runs other hooks inside: the request is locked by whoever calls us */
    CALLBACK(http_send_response)(r->filter, status, headers, n, (abi_text){body.data, body.len}, text_of(r->job.why[0] ? r->job.why : "pdroute"));
}

static int line_stays(view name)
{
    static const view names[] = {LISTED(":status"), LISTED("connection"), LISTED("keep-alive"), LISTED("transfer-encoding"), LISTED("content-length"),
                                 LISTED("trailer"), LISTED("upgrade"), LISTED("date"), LISTED("server")};
    return is_one_of(name, names, sizeof names / sizeof *names);
}

/* The head of a leg's answer goes to the client. */
static void begin_answer(request *r, module_leg *l)
{
    abi_header headers[HEADERS_MAX];
    view in = {l->headers.data, l->headers.len}, name, value;
    char status[12];
    size_t n = 0;

    (void)snprintf(status, sizeof status, "%u", l->status);
    headers[n++] = header_of(":status", status);
    while (n < HEADERS_MAX - 1 && pair_next(&in, &name, &value)) {
        if (!line_stays(name)) headers[n++] = (abi_header){name.data, name.len, value.data, value.len};
    }
    if (l->sse) headers[n++] = header_of("x-accel-buffering", "no");
    l->streaming = r->answered = 1;
    r->sse = l->sse;
    gate_event(&r->job, PDR_EV_SENT, l->which, &(gate_detail){.attempt = l->attempt, .status = l->status});
    request_metadata(r, 0);
    CALLBACK(http_send_response_headers)(r->filter, headers, n, false);
}

/*
 * This process cannot go on: no server is blamed. The client gets an answer, or, if that has begun, an error event in a stream, and its connection breaks: it must not
 * take what it has for all there is.
 */
static void break_answer(request *r, const char *code, const char *sentence)
{
    char event[1200];
    size_t need = 0;

    if (r->destroyed || r->complete) return;
    r->complete = 1;
    request_metadata(r, 0);
    if (r->sse && pdr_error_event(r->job.api, 502, code, sentence, event, sizeof event, &need) == PDR_OK)
        CALLBACK(http_send_response_data)(r->filter, (abi_text){event, need}, false);
    if (!r->destroyed) CALLBACK(http_filter_reset_stream)(r->filter, ABI_RESET_LOCAL, text_of(code));
}

static void give_up(request *r, const char *message)
{
    if (!r->answered) {
        gate_give_up(&r->job, message);
        return;
    }
    gate_log("error", "%s", message);
    (void)snprintf(r->job.why, sizeof r->job.why, "gateway_overloaded");
    r->gone = 1; /* its end is no good one */
    gate_client_gone(&r->job);
    break_answer(r, "gateway_overloaded", message);
}

/* What was collected and may go. */
static view take(request *r, module_leg *l)
{
    const view piece = {l->collected.data, l->collected.len};
    l->collected.len = 0;
    return gate_pass(&r->job, l->status, r->response_read && l->sse, l->which == PDR_LEG_DECODE && r->response_read ? &r->response : NULL, piece, l->ended);
}

/* With what is left: the last piece, if the end came with it, and what waited for the other leg (whole.h). */
static void end_answer(request *r)
{
    view body = {"", 0};

    if (r->complete || r->destroyed) return;
    for (int i = 0; i < 2; i++) {
        if (r->legs[i].streaming && r->legs[i].ended) body = take(r, &r->legs[i]);
    }
    if (gate_lost(&r->job)) {
        give_up(r, NO_MEMORY);
        return;
    }
    r->complete = 1;
    CALLBACK(http_send_response_data)(r->filter, (abi_text){body.data, body.len}, true);
}

/* What was collected of a relayed leg goes to the client; an error whole, since it may tell what is nobody's business. */
static void pass_on(request *r, module_leg *l)
{
    if (!l->relayed || r->destroyed || r->complete || (r->answered && !l->streaming)) return;
    if (l->status >= 400 && !l->ended) return;
    if (l->status >= 400 && l->collected.len) (void)pdr_error_mask(&r->job.decision, l->collected.data, l->collected.len);
    if (!l->streaming) begin_answer(r, l);
    if (r->destroyed) return;
    const view body = take(r, l);
    if (gate_lost(&r->job)) give_up(r, NO_MEMORY);
    else if (body.len) CALLBACK(http_send_response_data)(r->filter, (abi_text){body.data, body.len}, false);
}

/* The stream has said [DONE]: what the connection does then takes nothing from the client. */
static int is_whole(const request *r)
{
    return r->legs[PDR_LEG_DECODE].sse && r->response_read && (r->response.flags & (PDR_SEEN_DONE | PDR_SEEN_ERROR)) == PDR_SEEN_DONE;
}

/* Envoy closes the prefill leg with the client's request: the end of the answer waits a little for it. */
void request_tick(request *r, uint64_t now)
{
    if (r->done_ns && r->answered && now - r->done_ns > END_CAP_NS) end_answer(r);
    if (!r->started && !r->answered && r->begun_ns && now > r->begun_ns + r->t->config->body_timeout_ms * 1000000ull) gate_refuse_late(&r->job);
}

/* -------------------------------------------------------------------------------------------------------------- legs */

static void leg_reset(module_leg *l)
{
    const uint64_t id = l->id;
    const int open = l->open;

    l->id = 0;
    l->open = 0;
    if (open && !l->r->destroyed) CALLBACK(http_filter_reset_http_stream)(l->r->filter, id);
}

static void leg_failed(module_leg *l, uint32_t detail)
{
    const gate_detail d = {.detail = detail, .attempt = l->attempt};
    const pdr_decision *p = &l->r->job.decision;
    static const char *const text[] = {"", "no connection", "kept connection was closed", "connection was closed", "timed out", "answer is not HTTP"};

    leg_reset(l);
    if (detail == PDR_FAIL_CONNECT && gate_lacks_sockets()) {
        give_up(l->r, "the gateway cannot open a connection: Envoy has no descriptor left");
        return;
    }
    gate_log("error", "%s %s: %s", l->which == PDR_LEG_PREFILL ? "prefill" : "decode", l->which == PDR_LEG_PREFILL ? p->prefill_host : p->decode_host, text[detail]);
    gate_event(&l->r->job, PDR_EV_FAILED, l->which, &d);
}

/* Which headers of the client's go to both legs: found once. */
static void choose_headers(request *r)
{
    view in = {r->head.data, r->head.len}, name, value;

    if (r->chosen.len || r->chosen.failed) return;
    while (r->chosen.len < (HEADERS_MAX - OWN_HEADERS) * sizeof(abi_header) && pair_next(&in, &name, &value)) {
        const abi_header h = {name.data, name.len, value.data, value.len};
        if (!header_stays(r, name)) bytes_put(&r->chosen, &h, sizeof h);
    }
}

/*
 * A leg's body. What differs from the client's stands at its end: where that is so it is written over there, and what was there is kept in `sent`, to be put
 * back; so a long body is not copied for each leg. Otherwise all of it is put together in `sent`. -1: no memory
 */
static int write_body(request *r, int which, view *out)
{
    const view body = r->job.body;
    bytes tail = {0};
    pdr_slice slices[PDR_MAX_SLICES];
    size_t n = PDR_MAX_SLICES, first = 0, at = 0;
    int rc = gate_rewrite(&r->job, which, &tail, slices, &n);

    r->sent.len = 0;
    r->replaced = 0;
    if (!rc && n && !slices[0].source && slices[0].offset == 0 && body.len - slices[0].length <= END_MAX && body.data == r->body.data) {
        first = 1;
        at = slices[0].length;
    }
    for (size_t i = first; !rc && i < n; i++) bytes_put(&r->sent, (slices[i].source ? tail.data : body.data) + slices[i].offset, slices[i].length);
    bytes_free(&tail);
    if (rc || r->sent.failed) return -1;
    *out = (view){r->sent.data, r->sent.len};
    if (!first) return 0;
    const size_t size = r->sent.len, end = body.len - at;
    if (at + size > r->body.cap) { /* no room behind the body */
        bytes all = {0};
        bytes_put(&all, body.data, at);
        bytes_put(&all, r->sent.data, size);
        bytes_free(&r->sent);
        r->sent = all;
        *out = (view){all.data, all.len};
        return all.failed ? -1 : 0;
    }
    bytes_put(&r->sent, body.data + at, end);
    if (r->sent.failed) return -1;
    if (size) memcpy(r->body.data + at, r->sent.data, size); /* nothing changes of a body that is no JSON */
    r->replaced = at + 1;
    r->kept = (view){r->sent.data + size, end};
    *out = (view){r->body.data, at + size};
    return 0;
}

/* The client's body as it was. */
static void restore_body(request *r)
{
    if (r->replaced && r->kept.len) memcpy(r->body.data + r->replaced - 1, r->kept.data, r->kept.len);
    r->replaced = 0;
}

static void op_send(gate_job *job, int which)
{
    request *r = request_of(job);
    module_leg *l = &r->legs[which];
    const pdr_decision *d = &job->decision;
    abi_header headers[HEADERS_MAX];
    char address[300], length[24];
    view body;
    size_t n = 0;

    if (r->destroyed) return;
    leg_reset(l);
    l->attempt = job->exchange.attempt;
    l->status = 0;
    l->retry_after_ms = 0;
    l->headers.len = l->collected.len = 0;
    l->head_told = l->body_told = l->relayed = l->streaming = l->ended = l->sse = l->json = l->encoded = l->plain = 0;
    if (which == PDR_LEG_PREFILL) gate_address(address, sizeof address, d->prefill_host, d->prefill_port, 1);
    else gate_address(address, sizeof address, d->decode_host, d->decode_port, 1);
    choose_headers(r);
    if (r->chosen.failed || write_body(r, which, &body)) {
        gate_give_up(job, NO_MEMORY);
        return;
    }
    headers[n++] = (abi_header){":method", 7, r->method.data, r->method.len};
    headers[n++] = (abi_header){":path", 5, r->target.data, r->target.len};
    headers[n++] = header_of(":authority", address);
    headers[n++] = header_of("x-gateway-destination-endpoint", address);
    if (r->chosen.len) memcpy(headers + n, r->chosen.data, r->chosen.len);
    n += r->chosen.len / sizeof(abi_header);
    (void)snprintf(length, sizeof length, "%zu", body.len);
    if (!r->head_only) headers[n++] = header_of("content-length", length);
    l->open = 1;
    const int rc = CALLBACK(http_filter_start_http_stream)(r->filter, &l->id, text_of(r->t->config->cluster), headers, n, (abi_text){body.data, body.len}, true,
                                                           LEG_TIMEOUT_MS);
    restore_body(r);
    if (rc != 0) {
        l->open = 0;
        gate_give_up(job, rc == ABI_NO_CLUSTER ? "the cluster for requests to servers is not there" : "Envoy cannot begin a request to a server");
    }
}

static void op_cancel(gate_job *job, int which)
{
    leg_reset(&request_of(job)->legs[which]);
}

static void op_drain(gate_job *job, int which)
{
    (void)job, (void)which; /* it is read and thrown away */
}

static void op_relay(gate_job *job, int which)
{
    request *r = request_of(job);
    r->legs[which].relayed = 1;
    pass_on(r, &r->legs[which]);
}

static void op_respond(gate_job *job, unsigned status, const char *code, const char *sentence, uint64_t retry_after_ms)
{
    char text[1024];
    size_t need = 0;
    if (pdr_error_body((int)status, code, sentence, text, sizeof text, &need) != PDR_OK) need = 0;
    request_answer(request_of(job), status, "application/json", retry_after_ms, status == 405 ? "allow" : NULL, "POST", (view){text, need});
}

/* An error event if it is a stream, then the client's connection breaks. */
static void op_abort(gate_job *job, uint32_t reason, const char *sentence)
{
    request *r = request_of(job);

    if (r->destroyed || r->complete) return;
    for (int i = 0; i < 2; i++) {
        if (r->legs[i].streaming) pass_on(r, &r->legs[i]);
    }
    if (r->destroyed) return;
    if (is_whole(r)) end_answer(r); /* all was said, only the answer's end was missing */
    else break_answer(r, pdr_reason_name(reason), sentence);
}

static void op_finished(gate_job *job)
{
    request *r = request_of(job);
    request_enter(r);
    if (r->answered && !r->gone) end_answer(r);
    for (int i = 0; i < 2; i++) leg_reset(&r->legs[i]);
    request_leave(r);
}

static int op_may_reroute(gate_job *job)
{
    const request *r = request_of(job);
    return !r->destroyed && !r->answered;
}

static void op_decided(gate_job *job)
{
    (void)job;
}

const gate_ops module_ops = {.send = op_send, .cancel = op_cancel, .drain = op_drain, .relay = op_relay, .respond = op_respond, .abort = op_abort,
                             .finished = op_finished, .may_reroute = op_may_reroute, .decided = op_decided};

/* ------------------------------------------------------------------------------------------------------- their events */

static module_leg *leg_of(request *r, uint64_t id)
{
    for (int i = 0; i < 2; i++) {
        if (r->legs[i].open && r->legs[i].id == id) return &r->legs[i];
    }
    return NULL;
}

static int starts(view v, const char *word)
{
    return v.len >= strlen(word) && strncasecmp(v.data, word, strlen(word)) == 0;
}

static gate_detail detail_of(const module_leg *l)
{
    return (gate_detail){.status = l->status, .attempt = l->attempt, .retry_after_ms = l->retry_after_ms,
                         .usage = l->which == PDR_LEG_DECODE && l->r->response_read ? &l->r->response : NULL};
}

static void tell_head(module_leg *l)
{
    const gate_detail d = detail_of(l);
    l->head_told = 1;
    gate_event(&l->r->job, PDR_EV_HEAD, l->which, &d);
}

EXPORT void HOOK(http_filter_http_stream_headers)(abi_filter f, request *r, uint64_t id, const abi_header *headers, size_t n, bool end);
EXPORT void HOOK(http_filter_http_stream_headers)(abi_filter f, request *r, uint64_t id, const abi_header *headers, size_t n, bool end)
{
    module_leg *l = leg_of(r, id);

    (void)f, (void)end; /* its end is reported as complete */
    if (!l) return;
    request_enter(r);
    for (size_t i = 0; i < n; i++) {
        const view name = {headers[i].key, headers[i].key_length}, value = {headers[i].value, headers[i].value_length};
        pair_put(&l->headers, name.data, name.len, value.data, value.len);
        if (view_is(name, ":status")) {
            for (size_t k = 0; k < value.len; k++) l->status = l->status * 10 + (unsigned)(value.data[k] - '0');
        } else if (view_is(name, "content-type")) {
            l->json = starts(value, "application/json") != 0;
            l->sse = starts(value, "text/event-stream") != 0;
            l->plain = starts(value, "text/plain") != 0;
        } else if (view_is(name, "content-encoding")) {
            l->encoded = view_is_nocase(value, "identity") == 0;
        } else if (view_is(name, "retry-after")) {
            l->retry_after_ms = retry_after_ms(value.data, value.len, time(NULL));
        }
    }
    if (l->headers.failed) {
        give_up(r, NO_MEMORY);
        request_leave(r);
        return;
    }
    if (l->which == PDR_LEG_DECODE) {
        r->response_read = (l->json || l->sse) && !l->encoded;
        pdr_init_struct(&r->response, sizeof r->response);
        if (r->response_read) pdr_response_init(&r->response, l->sse ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON);
    }
    /* Envoy answers for a server that it could not reach or understand: its text says why */
    if (!(l->plain && (l->status == 503 || l->status == 502 || l->status == 504))) tell_head(l);
    request_leave(r);
}

static int says(const bytes *b, const char *word)
{
    return b->len && memmem(b->data, b->len, word, strlen(word)) != NULL;
}

/* 0: a server's own answer */
static uint32_t envoy_said(const module_leg *l)
{
    if (says(&l->collected, "upstream request timeout")) return PDR_FAIL_TIMEOUT;
    if (says(&l->collected, "no healthy upstream")) return PDR_FAIL_CONNECT;
    if (!says(&l->collected, "upstream connect error")) return 0;
    if (says(&l->collected, "connection failure") || says(&l->collected, "connection timeout")) return PDR_FAIL_CONNECT;
    return says(&l->collected, "protocol error") ? PDR_FAIL_PROTOCOL : PDR_FAIL_RESET;
}

/* 1: there was none to tell, or it was a failure */
static int late_head(module_leg *l)
{
    const uint64_t id = l->id;
    uint32_t failed;

    if (l->head_told) return 0;
    failed = envoy_said(l);
    if (failed) {
        leg_failed(l, failed);
        return 1;
    }
    tell_head(l);
    return l->id != id;
}

EXPORT void HOOK(http_filter_http_stream_data)(abi_filter f, request *r, uint64_t id, const abi_text *data, size_t n, bool end);
EXPORT void HOOK(http_filter_http_stream_data)(abi_filter f, request *r, uint64_t id, const abi_text *data, size_t n, bool end)
{
    module_leg *l = leg_of(r, id);
    const size_t before = l ? l->collected.len : 0;

    (void)f;
    if (!l) return;
    request_enter(r);
    if (l->which == PDR_LEG_DECODE || l->status >= 300) {
        for (size_t i = 0; i < n && l->collected.len < COLLECT_MAX; i++) bytes_put(&l->collected, data[i].ptr, data[i].length);
        if (l->collected.failed || l->collected.len >= COLLECT_MAX) {
            give_up(r, l->collected.failed ? NO_MEMORY : "an answer that has to be kept is longer than what is taken");
            goto out;
        }
    }
    if (l->which == PDR_LEG_PREFILL && l->status == 200 && r->job.whole) {
        for (size_t i = 0; i < n; i++) whole_keep(r->job.whole, (view){data[i].ptr, data[i].length});
    }
    if (l->which == PDR_LEG_DECODE) gate_piece(&r->job);
    if (l->which == PDR_LEG_DECODE && r->response_read && l->collected.len > before)
        (void)pdr_response_feed(&r->response, l->collected.data + before, l->collected.len - before);
    if (late_head(l)) goto out;
    if (!l->body_told && n) {
        const gate_detail d = detail_of(l);
        l->body_told = 1;
        if (l->which == PDR_LEG_DECODE && l->sse && r->response_read && r->response.flags & PDR_SEEN_ERROR &&
            !gate_error_is_refusal((view){l->collected.data, l->collected.len})) {
            leg_failed(l, PDR_FAIL_PROTOCOL);
            goto out;
        }
        gate_event(&r->job, PDR_EV_BODY, l->which, &d);
    }
    if (l->id == id && !(end && l->streaming)) pass_on(r, l); /* the last piece may go with the answer's end, which is about to be told */
out:
    request_leave(r);
}

EXPORT void HOOK(http_filter_http_stream_trailers)(abi_filter f, request *r, uint64_t id, const abi_header *trailers, size_t n);
EXPORT void HOOK(http_filter_http_stream_trailers)(abi_filter f, request *r, uint64_t id, const abi_header *trailers, size_t n)
{
    (void)f, (void)r, (void)id, (void)trailers, (void)n;
}

static void leg_complete(request *r, module_leg *l, uint64_t id)
{
    if (!late_head(l) && l->id == id) {
        const gate_detail d = detail_of(l);
        const int relayed_4xx = l->relayed && l->status >= 300;
        l->ended = 1;
        if (!l->streaming) pass_on(r, l);
        l->open = 0;
        if (l->which == PDR_LEG_DECODE || relayed_4xx) r->done_ns = pdr_host_now_ns();
        gate_event(&r->job, PDR_EV_END, l->which, &d);
        if (l->relayed && l->attempt == d.attempt) { /* its end said everything, there was no body; or the answer's end waits for prefill's */
            pass_on(r, l);
            if (relayed_4xx) end_answer(r);
        }
    }
}

EXPORT void HOOK(http_filter_http_stream_complete)(abi_filter f, request *r, uint64_t id);
EXPORT void HOOK(http_filter_http_stream_complete)(abi_filter f, request *r, uint64_t id)
{
    module_leg *l = leg_of(r, id);

    (void)f;
    if (!l) return;
    request_enter(r);
    leg_complete(r, l, id);
    request_leave(r);
}

EXPORT void HOOK(http_filter_http_stream_reset)(abi_filter f, request *r, uint64_t id, int reason);
EXPORT void HOOK(http_filter_http_stream_reset)(abi_filter f, request *r, uint64_t id, int reason)
{
    module_leg *l = leg_of(r, id);

    (void)f;
    if (!l) return;
    request_enter(r);
    l->open = 0;
    if (l->which == PDR_LEG_DECODE && is_whole(r)) leg_complete(r, l, id);
    else leg_failed(l, reason == ABI_CONNECTION_FAILURE || reason == ABI_OVERFLOW ? PDR_FAIL_CONNECT : reason == ABI_PROTOCOL_ERROR ? PDR_FAIL_PROTOCOL : PDR_FAIL_RESET);
    request_leave(r);
}
