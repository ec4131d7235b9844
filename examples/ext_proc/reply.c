/* What Envoy is told. Numbers: envoy/service/ext_proc/v3/external_processor.proto. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "extproc.h"

/* ProcessingResponse */
enum { REPLY_REQUEST_HEADERS = 1, REPLY_RESPONSE_HEADERS = 2, REPLY_REQUEST_BODY = 3, REPLY_RESPONSE_BODY = 4, REPLY_REQUEST_TRAILERS = 5,
       REPLY_RESPONSE_TRAILERS = 6, REPLY_IMMEDIATE = 7, REPLY_METADATA = 8, REPLY_STREAMED = 11 };

/* Some data planes take no streamed piece longer than 64 KB. */
#define PIECE 62000

static void put_header(bytes *b, const char *name, const char *value, size_t len)
{
    const size_t option = wire_begin(b, 1); /* HeaderMutation.set_headers: HeaderValueOption */
    const size_t inner = wire_begin(b, 1);  /* HeaderValue */
    wire_text(b, 1, name);
    wire_bytes(b, 3, value, len);
    wire_end(b, inner);
    wire_varint(b, 3, 2); /* OVERWRITE_IF_EXISTS_OR_ADD */
    wire_end(b, option);
}

/* An entry of Struct.fields with a string. */
static void put_member(bytes *b, const char *key, const char *text)
{
    const size_t entry = wire_begin(b, 1);
    wire_text(b, 1, key);
    const size_t value = wire_begin(b, 2);
    wire_text(b, 3, text);
    wire_end(b, value);
    wire_end(b, entry);
}

static size_t begin_member(bytes *b, const char *key, size_t *value)
{
    const size_t entry = wire_begin(b, 1);
    wire_text(b, 1, key);
    *value = wire_begin(b, 2);
    return entry;
}

/* dynamic_metadata: the destination a second time, and what the access log may show. */
static void put_metadata(call *c, bytes *b, const char *destination, int answered)
{
    const gate_job *job = &c->job;
    char hit[48], why[256], number[24];
    size_t value, entry, inner;

    if (!destination && !c->w->options->metadata && !answered) return;
    const size_t all = wire_begin(b, REPLY_METADATA);
    if (destination) {
        entry = begin_member(b, "envoy.lb", &value);
        inner = wire_begin(b, 5); /* struct_value */
        put_member(b, HEADER_DESTINATION, destination);
        wire_end(b, inner);
        wire_end(b, value);
        wire_end(b, entry);
    }
    if (c->w->options->metadata || answered) {
        gate_describe(job, hit, sizeof hit, why, sizeof why);
        entry = begin_member(b, "pdroute", &value);
        inner = wire_begin(b, 5);
        put_member(b, "prefill", job->decided && job->decision.mode != PDR_MODE_SINGLE ? c->names[PDR_LEG_PREFILL] : "");
        put_member(b, "decode", job->decided ? c->names[PDR_LEG_DECODE] : "");
        (void)snprintf(number, sizeof number, "%" PRIu64, job->decision.room);
        put_member(b, "room", job->decided && job->decision.mode != PDR_MODE_SINGLE ? number : "");
        put_member(b, "hit", hit);
        put_member(b, "why", why);
        (void)snprintf(number, sizeof number, "%u", job->attempts);
        put_member(b, "attempts", number);
        if (answered) put_member(b, "answered", "yes"); /* an error of Envoy's own can be told from this one */
        wire_end(b, inner);
        wire_end(b, value);
        wire_end(b, entry);
    }
    wire_end(b, all);
}

/*
 * `length`: of the body that follows. Envoy drops any Content-Length that passes through this filter; a filter behind it may take it from here
 * (envoy.yaml), else servers get chunks.
 */
static void put_headers_answer(call *c, const char *destination, const char *prefill, uint64_t length)
{
    bytes *b = &c->grpc.out;
    const size_t mark = grpc_begin(&c->grpc);
    const size_t answer = wire_begin(b, REPLY_REQUEST_HEADERS);
    const size_t common = wire_begin(b, 1); /* HeadersResponse.response */
    char number[24];

    if (destination) {
        size_t fields;
        const request_field *f = call_fields(c, &fields);
        const size_t mutation = wire_begin(b, 2); /* header_mutation */
        put_header(b, HEADER_DESTINATION, destination, strlen(destination));
        if (prefill) put_header(b, HEADER_PREFILL, prefill, strlen(prefill));
        if (c->renamed) put_header(b, ":path", c->target.data, c->target.len);
        if (length) {
            (void)snprintf(number, sizeof number, "%" PRIu64, length);
            put_header(b, HEADER_LENGTH, number, strlen(number));
        }
        for (size_t i = 0; i < fields; i++) {
            if (f[i].stays && f[i].name.len && f[i].name.data[0] != ':') wire_bytes(b, 2, f[i].name.data, f[i].name.len); /* remove_headers */
        }
        wire_end(b, mutation);
        wire_varint(b, 5, 1); /* clear_route_cache */
    }
    wire_end(b, common);
    wire_end(b, answer);
    if (destination) put_metadata(c, b, destination, 0);
    grpc_end(&c->grpc, mark, NULL, 0);
}

static size_t varint_len(uint64_t v)
{
    size_t n = 1;
    while (v >>= 7) n++;
    return n;
}

/* BodyResponse with a StreamedBodyResponse of `len` bytes, which follow as `parts`. */
static void put_piece(call *c, uint32_t number, const view *parts, size_t n, size_t len, int end)
{
    bytes *b = &c->grpc.out;
    const size_t mark = grpc_begin(&c->grpc);
    const size_t streamed = (end ? 2u : 0u) + 1 + varint_len(len) + len;
    const size_t mutation = 1 + varint_len(streamed) + streamed;
    const size_t common = 1 + varint_len(mutation) + mutation;
    const size_t answer = 1 + varint_len(common) + common;

    wire_head(b, number, answer);
    wire_head(b, 1, common);    /* BodyResponse.response */
    wire_head(b, 3, mutation);  /* CommonResponse.body_mutation */
    wire_head(b, 3, streamed);  /* BodyMutation.streamed_response */
    if (end) wire_varint(b, 2, 1);
    wire_head(b, 1, len);
    grpc_end(&c->grpc, mark, parts, n);
}

/* A body in slices, as pieces. `last`: its end is the end of the stream. */
static void put_body(call *c, uint32_t number, const view *slices, size_t n, int last)
{
    view parts[PDR_MAX_SLICES];
    size_t i = 0, pos = 0, total = 0, parts_n, len;

    for (size_t k = 0; k < n; k++) total += slices[k].len;
    if (total == 0) {
        if (last) put_piece(c, number, NULL, 0, 0, 1);
        return;
    }
    while (total) {
        for (parts_n = len = 0; i < n && len < PIECE;) {
            size_t take = slices[i].len - pos;
            if (take > PIECE - len) take = PIECE - len;
            if (take) parts[parts_n++] = (view){slices[i].data + pos, take};
            len += take;
            pos += take;
            if (pos == slices[i].len) {
                i++;
                pos = 0;
            }
        }
        total -= len;
        put_piece(c, number, parts, parts_n, len, last && total == 0);
    }
}

void reply_request(call *c, const char *destination, const char *prefill)
{
    pdr_slice slices[PDR_MAX_SLICES];
    view parts[PDR_MAX_SLICES];
    size_t n = PDR_MAX_SLICES, mark;
    uint64_t length = 0;

    if (gate_rewrite(&c->job, PDR_LEG_DECODE, &c->tail, slices, &n) != PDR_OK) {
        grpc_finish(&c->grpc, GRPC_INTERNAL);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        parts[i] = (view){(slices[i].source ? c->tail.data : c->job.body.data) + slices[i].offset, (size_t)slices[i].length};
        length += slices[i].length;
    }
    put_headers_answer(c, destination, prefill, c->trailers ? 0 : length);
    if (c->head_only) return;
    put_body(c, REPLY_REQUEST_BODY, parts, n, !c->trailers);
    if (!c->trailers) return;
    mark = grpc_begin(&c->grpc);
    wire_head(&c->grpc.out, REPLY_REQUEST_TRAILERS, 0);
    grpc_end(&c->grpc, mark, NULL, 0);
}

void reply_echo(call *c)
{
    const view body = call_body(c);
    put_headers_answer(c, NULL, NULL, 0);
    if (!c->head_only) put_body(c, REPLY_REQUEST_BODY, &body, 1, 1);
}

void reply_response_headers(call *c)
{
    bytes *b = &c->grpc.out;
    const size_t mark = grpc_begin(&c->grpc);
    const size_t answer = wire_begin(b, REPLY_RESPONSE_HEADERS);
    const size_t common = wire_begin(b, 1);
    const size_t mutation = c->response_sse ? wire_begin(b, 2) : 0;

    if (c->response_sse) { /* an answer stream must not be held back by a proxy in front */
        put_header(b, "x-accel-buffering", "no", 2);
        wire_end(b, mutation);
    }
    wire_end(b, common);
    wire_end(b, answer);
    grpc_end(&c->grpc, mark, NULL, 0);
}

void reply_body(call *c, int response, view body, int end)
{
    bytes *b = &c->grpc.out;
    const uint32_t number = response ? REPLY_RESPONSE_BODY : REPLY_REQUEST_BODY;

    do { /* copied: the memory is the caller's */
        const size_t len = body.len > PIECE ? PIECE : body.len;
        const int last = end && len == body.len;
        const size_t mark = grpc_begin(&c->grpc);
        const size_t answer = wire_begin(b, number), common = wire_begin(b, 1), mutation = wire_begin(b, 3), streamed = wire_begin(b, 3);
        wire_bytes(b, 1, body.data, len);
        if (last) wire_varint(b, 2, 1);
        wire_end(b, streamed);
        wire_end(b, mutation);
        wire_end(b, common);
        wire_end(b, answer);
        if (c->tell) put_metadata(c, b, NULL, 0);
        c->tell = 0;
        grpc_end(&c->grpc, mark, NULL, 0);
        body.data += len;
        body.len -= len;
    } while (body.len);
}

void reply_body_unchanged(call *c)
{
    const size_t mark = grpc_begin(&c->grpc);
    wire_head(&c->grpc.out, REPLY_RESPONSE_BODY, 0);
    grpc_end(&c->grpc, mark, NULL, 0);
}

void reply_response_trailers(call *c)
{
    const size_t mark = grpc_begin(&c->grpc);
    wire_head(&c->grpc.out, REPLY_RESPONSE_TRAILERS, 0);
    grpc_end(&c->grpc, mark, NULL, 0);
}

/* Of a worker's answer: what belongs to its connection, and what is said anew. */
static int line_stays(view name)
{
    static const char *const names[] = {"connection", "keep-alive", "transfer-encoding", "content-length", "trailer", "upgrade", "date", "server"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (view_is_nocase(name, names[i])) return 1;
    }
    return 0;
}

static void put_plain_header(bytes *b, view name, view value)
{
    const size_t inner = wire_begin(b, 1); /* HeaderMap.headers */
    wire_head(b, 1, name.len);
    if (bytes_reserve(b, name.len) == 0) {
        for (size_t i = 0; i < name.len; i++) {
            const char ch = name.data[i];
            b->data[b->len++] = (char)(ch >= 'A' && ch <= 'Z' ? ch + 32 : ch);
        }
    }
    wire_bytes(b, 3, value.data, value.len);
    wire_end(b, inner);
}

/* Nothing of the first answer's head has been let pass: it is changed into the second's. */
static void change_headers(call *c, const leg *l, const char *status)
{
    bytes *b = &c->grpc.out;
    const size_t mark = grpc_begin(&c->grpc);
    const size_t answer = wire_begin(b, REPLY_RESPONSE_HEADERS), common = wire_begin(b, 1), mutation = wire_begin(b, 2);
    view in = {l->lines.data, l->lines.len};
    header h;
    char name[128];

    put_header(b, ":status", status, 3);
    while (leg_line(&in, &h)) {
        if (line_stays(h.name) || h.name.len >= sizeof name) continue;
        for (size_t i = 0; i < h.name.len; i++) name[i] = (char)(h.name.data[i] >= 'A' && h.name.data[i] <= 'Z' ? h.name.data[i] + 32 : h.name.data[i]);
        name[h.name.len] = '\0';
        put_header(b, name, h.value.data, h.value.len);
    }
    wire_text(b, 2, "retry-after");
    wire_text(b, 2, "content-length");
    wire_end(b, mutation);
    wire_end(b, common);
    wire_end(b, answer);
    put_metadata(c, b, NULL, 0);
    grpc_end(&c->grpc, mark, NULL, 0);
}

void reply_leg_headers(call *c, const leg *l, int end)
{
    bytes *b = &c->grpc.out;
    view in = {l->lines.data, l->lines.len};
    char status[12];
    header h;

    (void)snprintf(status, sizeof status, "%u", l->status);
    if (c->response_seen) {
        change_headers(c, l, status);
        return;
    }
    const size_t mark = grpc_begin(&c->grpc);
    const size_t answer = wire_begin(b, REPLY_STREAMED), headers = wire_begin(b, 1), map = wire_begin(b, 1);
    put_plain_header(b, VIEW(":status"), (view){status, strlen(status)});
    while (leg_line(&in, &h)) {
        if (!line_stays(h.name)) put_plain_header(b, h.name, h.value);
    }
    if (l->sse) put_plain_header(b, VIEW("x-accel-buffering"), VIEW("no"));
    wire_end(b, map);
    if (end) wire_varint(b, 3, 1);
    wire_end(b, headers);
    wire_end(b, answer);
    put_metadata(c, b, NULL, 0);
    grpc_end(&c->grpc, mark, NULL, 0);
}

void reply_leg_body(call *c, view body, int end)
{
    bytes *b = &c->grpc.out;

    if (c->response_seen) {
        reply_body(c, 1, body, end);
        return;
    }
    do {
        const size_t len = body.len > PIECE ? PIECE : body.len;
        const int last = end && len == body.len;
        const size_t mark = grpc_begin(&c->grpc);
        const size_t answer = wire_begin(b, REPLY_STREAMED), streamed = wire_begin(b, 2);
        wire_bytes(b, 1, body.data, len);
        if (last) wire_varint(b, 2, 1);
        wire_end(b, streamed);
        wire_end(b, answer);
        if (c->tell) put_metadata(c, b, NULL, 0);
        c->tell = 0;
        grpc_end(&c->grpc, mark, NULL, 0);
        body.data += len;
        body.len -= len;
    } while (body.len);
}

void reply_immediate(call *c, unsigned status, const char *content_type, uint64_t retry_after_ms, const char *extra_name,
                     const char *extra_value, view body)
{
    bytes *b = &c->grpc.out;
    char text[24];
    const size_t mark = grpc_begin(&c->grpc);
    const size_t answer = wire_begin(b, REPLY_IMMEDIATE);
    size_t inner = wire_begin(b, 1); /* HttpStatus */

    wire_varint(b, 1, status);
    wire_end(b, inner);
    inner = wire_begin(b, 2); /* HeaderMutation */
    put_header(b, "content-type", content_type, strlen(content_type));
    if (retry_after_ms) {
        (void)snprintf(text, sizeof text, "%" PRIu64, (retry_after_ms + 999) / 1000);
        put_header(b, "retry-after", text, strlen(text));
    }
    if (extra_name) put_header(b, extra_name, extra_value, strlen(extra_value));
    wire_end(b, inner);
    wire_bytes(b, 3, body.data, body.len);
    wire_text(b, 5, c->job.why[0] ? c->job.why : "pdroute"); /* details, for Envoy's access log */
    wire_end(b, answer);
    put_metadata(c, b, NULL, 1);
    grpc_end(&c->grpc, mark, NULL, 0);
}
