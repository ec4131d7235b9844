/*
 * Requests of our own to workers: the prefill leg, and decode's where Envoy does not send it. Over connections of our own (peer.c), or libcurl's (curl.c)
 * where TLS or a resolver is needed.
 *
 * What comes in is only noted; legs_run() tells the exchange, which may end any leg.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "../gate/retry_after.h"
#include "legs.h"

#define COLLECT_MAX (1024 * 1024)      /* of an error's body; of an answer that the client does not take so fast */
#define WHOLE_MAX   (64 * 1024 * 1024) /* of an answer that can only be passed on whole */

void leg_note(leg *l)
{
    if (l->dirty) return;
    l->dirty = 1;
    l->dirty_next = l->c->w->dirty;
    l->c->w->dirty = l;
}

/* ---------------------------------------------------------------------------------------------------------- the answer */

int leg_line(view *lines, header *out)
{
    while (lines->len) {
        const char *p = lines->data, *end = memchr(p, '\n', lines->len), *colon, *last;
        if (!end) return 0;
        lines->len -= (size_t)(end + 1 - p);
        lines->data = end + 1;
        colon = memchr(p, ':', (size_t)(end - p));
        if (!colon || colon == p) continue; 
        for (last = end; last > colon + 1 && (last[-1] == '\r' || last[-1] == ' ' || last[-1] == '\t'); last--) continue;
        out->name = (view){p, (size_t)(colon - p)};
        for (colon++; colon < last && (*colon == ' ' || *colon == '\t'); colon++) continue;
        out->value = (view){colon, (size_t)(last - colon)};
        return 1;
    }
    return 0;
}

static unsigned value_has(view v, const char *word)
{
    return v.len >= strlen(word) && strncasecmp(v.data, word, strlen(word)) == 0 ? 1 : 0;
}

void leg_head(leg *l, unsigned status)
{
    view in = {l->lines.data, l->lines.len};
    header h;

    while (leg_line(&in, &h)) {
        if (view_is_nocase(h.name, "retry-after")) {
            l->retry_after_ms = retry_after_ms(h.value.data, h.value.len, time(NULL));
        } else if (view_is_nocase(h.name, "content-type")) {
            l->json = value_has(h.value, "application/json") & 1;
            l->sse = value_has(h.value, "text/event-stream") & 1;
        } else if (view_is_nocase(h.name, "content-encoding")) {
            l->encoded = !view_is_nocase(h.value, "identity");
        }
    }
    l->status = status;
    l->head = 1;
    leg_note(l);
}

int leg_full(const leg *l, size_t more)
{
    if (l->which == PDR_LEG_PREFILL) return 0; /* what is too much of it is thrown away */
    return l->collected.len && l->collected.len + l->c->grpc.queued + more > (l->relayed && !l->streaming ? WHOLE_MAX : COLLECT_MAX);
}

void leg_body(leg *l, view piece)
{
    if (piece.len && !l->body) {
        l->body = 1;
        leg_note(l);
    }
    if (l->which == PDR_LEG_PREFILL && l->status < 300) {
        if (l->c->job.whole && l->status == 200) whole_keep(l->c->job.whole, piece);
        return; /* nobody else wants it */
    }
    if (l->which == PDR_LEG_PREFILL && l->collected.len && l->collected.len + piece.len > COLLECT_MAX) return; /* the rest of an error is not needed */
    bytes_put_view(&l->collected, piece);
    if (l->streaming) leg_note(l);
}

void leg_resume(leg *l)
{
    if (!l->paused || (l->state != LEG_OPEN && l->state != LEG_CONNECT)) return;
    l->paused = 0;
    peer_resume(l);
    curl_resume(l);
}

/* --------------------------------------------------------------------------------------------------------- the request */

static int has_controls(view v)
{
    for (size_t i = 0; i < v.len; i++) {
        const unsigned char c = (unsigned char)v.data[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) return 1;
    }
    return 0;
}

view leg_forwarded(call *c)
{
    bytes *out = &c->forwarded;
    size_t n;
    const request_field *f = call_fields(c, &n);

    if (out->len) return (view){out->data, out->len};
    for (; n; n--, f++) {
        const view name = f->name;
        if (f->stays || name.len == 0 || name.data[0] == ':' || view_is(name, "host")) continue;
        if (view_is(name, "content-length") || view_is(name, "transfer-encoding") || view_is(name, HEADER_DESTINATION)) continue;
        if (name.len > 8 && memcmp(name.data, "x-envoy-", 8) == 0) continue;
        if (has_controls(name) || has_controls(f->value) || memchr(name.data, ' ', name.len) || memchr(name.data, ':', name.len)) continue;
        bytes_put_view(out, name);
        bytes_put(out, ": ", 2);
        bytes_put_view(out, f->value);
        bytes_put(out, "\r\n", 2);
    }
    return (view){out->data, out->len};
}

static int put_head(leg *l, const char *host, unsigned port)
{
    call *c = l->c;
    const view lines = leg_forwarded(c);
    bytes *out = &l->head_out;
    char address[300];

    if (c->target.len == 0 || has_controls(c->target) || memchr(c->target.data, ' ', c->target.len) || has_controls(c->method)) return -1;
    bytes_put_view(out, c->method);
    bytes_put(out, " ", 1);
    bytes_put_view(out, c->target);
    bytes_put_text(out, " HTTP/1.1\r\nHost: ");
    gate_address(address, sizeof address, host, port, 1);
    bytes_put_text(out, address);
    bytes_put_text(out, "\r\n");
    bytes_put_view(out, lines);
    if (!c->head_only) {
        bytes_put_text(out, "Content-Length: ");
        bytes_put_number(out, l->length);
        bytes_put_text(out, "\r\n");
    }
    bytes_put(out, "\r\n", 2);
    return out->failed || c->forwarded.failed ? -1 : 0;
}

static int begin(leg *l)
{
    call *c = l->c;
    const pdr_decision *d = &c->job.decision;
    const int prefill = l->which == PDR_LEG_PREFILL;
    const char *host = prefill ? d->prefill_host : d->decode_host;
    const unsigned port = prefill ? d->prefill_port : d->decode_port;
    const int tls = ((prefill ? d->prefill_flags : d->decode_flags) & PDR_ENDPOINT_TLS) != 0;
    peer_address to;

    l->slices_n = PDR_MAX_SLICES;
    if (gate_rewrite(&c->job, (int)l->which, &l->tail, l->slices, &l->slices_n) != PDR_OK) return -1;
    l->length = 0;
    for (size_t i = 0; i < l->slices_n; i++) l->length += l->slices[i].length;
    l->bodiless = view_is(c->method, "HEAD") ? 1 : 0;
    if (tls || peer_address_of(host, port, &to)) return curl_start(l, tls, host, port);
    return put_head(l, host, port) ? -1 : peer_start(l, &to);
}

void leg_start(leg *l)
{
    leg_cancel(l);
    l->attempt = l->c->job.exchange.attempt;
    l->slice = l->slice_pos = 0;
    l->status = 0;
    l->retry_after_ms = 0;
    l->lines = bytes_emptied(l->lines); /* also of a failure to get memory */
    l->collected = bytes_emptied(l->collected);
    l->head_out = bytes_emptied(l->head_out);
    l->tail = bytes_emptied(l->tail);
    l->fed = 0;
    l->streaming = l->paused = l->garbled = l->sse = l->json = l->encoded = 0;
    l->failed = 0;
    l->lacks = 0;
    l->connected = l->head = l->head_told = l->body = l->body_told = l->complete = l->ended = l->relayed = 0;
    l->state = LEG_CONNECT;
    if (begin(l) == 0) return;
    if (!l->failed) l->lacks = 1; /* it did not come to a connection */
    l->state = LEG_DONE;
    leg_note(l);
}

void leg_cancel(leg *l)
{
    peer_cancel(l);
    curl_cancel(l);
    if (l->state != LEG_IDLE) l->state = LEG_DONE;
    if (!l->dirty) return;
    for (leg **p = &l->c->w->dirty; *p; p = &(*p)->dirty_next) {
        if (*p != l) continue;
        *p = l->dirty_next;
        break;
    }
    l->dirty = 0;
}

void leg_free(leg *l)
{
    curl_forget(l);
    bytes_free(&l->tail);
    bytes_free(&l->collected);
    bytes_free(&l->lines);
    bytes_free(&l->head_out);
}

void leg_renew(leg *l)
{
    const leg old = *l;

    memset(l, 0, sizeof *l);
    l->easy = old.easy;
    l->headers = old.headers;
    l->tail = bytes_emptied(old.tail);
    l->collected = bytes_emptied(old.collected);
    l->lines = bytes_emptied(old.lines);
    l->head_out = bytes_emptied(old.head_out);
}

/* ------------------------------------------------------------------------------------------------------- what happens */

void legs_run(worker *w)
{
    if (w->in_multi) return;
    do {
        curl_run(w);
        while (w->dirty) {
            leg *l = w->dirty;
            w->dirty = l->dirty_next;
            l->dirty = 0;
            leg_resume(l);
            call_leg_event(l);
        }
    } while (w->multi_kick);
}

int legs_init(worker *w)
{
    return peers_init(w) || curl_init(w) ? -1 : 0;
}

void legs_tick(worker *w)
{
    peers_tick(w);
}

void legs_end(worker *w)
{
    peers_end(w);
    curl_end(w);
}
