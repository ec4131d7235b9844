/*
 * One request to one worker and its answer, up to the point where the answer is either thrown away (here) or passed to
 * the client (ngx_http_pdroute_upstream.c). Both legs of a pair go through this: connection failures, stale kept
 * connections and bad heads are seen here, where another pair can still be tried.
 */
#include "ngx_http_pdroute.h"

#define SCRATCH_SIZE 65536
#define HEAD_MAX     32768 /* bytes of a response head */

static u_char scratch[SCRATCH_SIZE]; /* one read at a time: the process has one thread */

static void read_handler(ngx_event_t *ev);
static void write_handler(ngx_event_t *ev);
static void read_drain(ngx_http_pdroute_leg_t *leg);
static void handle(ngx_event_t *ev, void (*handler)(ngx_http_pdroute_leg_t *));

/* ---------------------------------------------------------------------------------------------------------- the end */

void ngx_http_pdroute_leg_forget(ngx_http_pdroute_leg_t *leg)
{
    if (leg->read_owned) ngx_free(leg->read);
    leg->read = NULL;
    leg->read_len = 0;
    leg->read_owned = 0;
}

/* A complete answer to a request of which not everything is sent yet. An exiting process keeps no connection: it does not send on. */
static ngx_uint_t must_flush(ngx_http_pdroute_leg_t *leg)
{
    if (leg->c == NULL || leg->out == NULL || !leg->complete || !leg->keepalive || ngx_exiting || ngx_terminate) return 0;
    return ngx_http_pdroute_leg_detach(leg) == NGX_OK;
}

void ngx_http_pdroute_leg_release(ngx_http_pdroute_leg_t *leg)
{
    leg->serial++;
    if (leg->state == PDROUTE_LEG_RESOLVE) {
        ngx_queue_remove(&leg->wait);
    }
    if (leg->state != PDROUTE_LEG_FLUSH && must_flush(leg)) {
        leg->state = PDROUTE_LEG_FLUSH;
        ngx_http_pdroute_leg_forget(leg);
        leg->c->data = leg;
        leg->c->idle = 1; /* closed when the worker exits gracefully, as kept ones are */
        leg->c->read->handler = read_handler;
        leg->c->write->handler = write_handler;
        leg->c->log = leg->c->pool->log = leg->c->read->log = leg->c->write->log = ngx_cycle->log;
        ngx_add_timer(leg->c->write, leg->job->conf->send_timeout);
        ngx_post_event(leg->c->write, &ngx_posted_events);
        return;
    }
    if (leg->out) leg->keepalive = 0;
    leg->state = PDROUTE_LEG_DONE;
    leg->out = NULL;
    ngx_http_pdroute_leg_forget(leg);
    if (leg->own_out) ngx_free(leg->own_out);
    leg->own_out = NULL;
    ngx_http_pdroute_unpost(&leg->failed);
    if (leg->c == NULL) return;
    if (leg->complete && leg->keepalive)
        ngx_http_pdroute_peer_keep(leg->job->zone, leg->idle);
    else
        ngx_http_pdroute_peer_close(leg->c);
    leg->c = NULL;
    leg->idle = NULL;
}

void ngx_http_pdroute_leg_cancel(ngx_http_pdroute_leg_t *leg)
{
    if (leg->state == PDROUTE_LEG_IDLE || leg->state == PDROUTE_LEG_DONE) return;
    if (leg->state == PDROUTE_LEG_RELAY)
        ngx_http_pdroute_relay_stop(leg);
    else
        ngx_http_pdroute_leg_release(leg);
}

void ngx_http_pdroute_leg_fail(ngx_http_pdroute_leg_t *leg, uint32_t detail)
{
    static const char *const text[] = {
        "", "no connection", "kept connection was closed", "connection was closed", "timed out", "answer is not HTTP"};
    ngx_uint_t level;

    if (detail == PDR_FAIL_RESET && leg->cached && !leg->received) {
        detail = PDR_FAIL_STALE;
        if (leg->peer) ngx_http_pdroute_peer_flush(leg->peer); /* its fellows are of the same age */
    }
    level = detail == PDR_FAIL_STALE ? NGX_LOG_INFO : NGX_LOG_ERR;
    ngx_log_error(level, ngx_cycle->log, 0, "pdroute: %s %V: %s", leg->which == PDR_LEG_PREFILL ? "prefill" : "decode",
                  &leg->job->peer_names[leg->which], text[detail]);
    ngx_http_pdroute_leg_cancel(leg);
    leg->state = PDROUTE_LEG_DONE;
    ngx_http_pdroute_job_event(leg->job, PDR_EV_FAILED, leg, detail);
}

/* ------------------------------------------------------------------------------------------------- connect and send */

/*
 * The server takes no more of the request. What it said before that (a refusal of a body that it did not read, mostly)
 * lies in the socket, in front of the error: whoever reads finds the one or the other.
 */
static void cannot_send(ngx_http_pdroute_leg_t *leg)
{
    ngx_event_t *rev = leg->c->read;

    leg->broken = 1;
    if (leg->c->write->timer_set) ngx_del_timer(leg->c->write);
    rev->ready = 1;
    rev->pending_eof = 1; /* else nginx waits for an event before it reads */
    ngx_post_event(rev, &ngx_posted_events);
}

/* What is left of a chain of one buffer in memory. */
static ngx_chain_t *send_one(ngx_connection_t *c, ngx_chain_t *cl)
{
    ngx_buf_t *b = cl->buf;
    ssize_t n = c->send(c, b->pos, (size_t)(b->last - b->pos));

    if (n == NGX_ERROR) return NGX_CHAIN_ERROR;
    if (n > 0) {
        c->sent += n;
        b->pos += n;
    }
    return b->pos == b->last ? NULL : cl;
}

static void send_request(ngx_http_pdroute_leg_t *leg)
{
    ngx_connection_t *c = leg->c;
    ngx_chain_t *rest;

    rest = leg->out->next ? c->send_chain(c, leg->out, 0) : send_one(c, leg->out);
    if (rest == NGX_CHAIN_ERROR) {
        leg->out = NULL;
        if (leg->state == PDROUTE_LEG_FLUSH) {
            leg->keepalive = 0;
            ngx_http_pdroute_leg_release(leg);
        } else {
            cannot_send(leg);
        }
        return;
    }
    leg->out = rest;
    if (rest == NULL && leg->state == PDROUTE_LEG_FLUSH) {
        ngx_http_pdroute_leg_release(leg);
        return;
    }
    if (rest)
        ngx_add_timer(c->write, leg->job->conf->send_timeout);
    else if (c->write->timer_set)
        ngx_del_timer(c->write);
    if (ngx_handle_write_event(c->write, 0) != NGX_OK) ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET);
}

static void own_handlers(ngx_http_pdroute_leg_t *leg)
{
    leg->c->data = leg;
    leg->c->read->handler = read_handler;
    leg->c->write->handler = write_handler;
}

#if (NGX_SSL)

static void tls_over(ngx_http_pdroute_leg_t *leg)
{
    ngx_connection_t *c = leg->c;

    own_handlers(leg);
    if (!c->ssl->handshaked) {
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_CONNECT);
        return;
    }
    if (c->write->timer_set) ngx_del_timer(c->write);
    leg->state = PDROUTE_LEG_HEAD;
    send_request(leg);
}

static void on_tls(ngx_http_pdroute_leg_t *leg)
{
    tls_over(leg);
}

static void tls_done(ngx_connection_t *c)
{
    handle(c->write, on_tls);
}

#endif

/* The connection stands. */
static void begin_request(ngx_http_pdroute_leg_t *leg)
{
#if (NGX_SSL)
    ngx_int_t rc;

    if (leg->peer->tls && leg->c->ssl == NULL) {
        leg->state = PDROUTE_LEG_TLS;
        rc = ngx_http_pdroute_tls_begin(leg->job->zone, leg->peer, leg->c, tls_done);
        if (rc == NGX_AGAIN)
            ngx_add_timer(leg->c->write, leg->job->conf->connect_timeout);
        else if (rc == NGX_OK)
            tls_over(leg);
        else
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_CONNECT);
        return;
    }
#endif
    leg->state = PDROUTE_LEG_HEAD;
    send_request(leg);
}

static void connect_leg(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_connection_t *c;
    ngx_int_t rc = NGX_OK;

    c = ngx_http_pdroute_peer_take(leg->peer, &leg->idle);
    leg->cached = c != NULL;
    if (c == NULL) rc = ngx_http_pdroute_peer_connect(job->zone, leg->peer, &c, &leg->idle);
    if (rc == NGX_ERROR) {
        leg->out = NULL;
        leg->state = PDROUTE_LEG_DONE;
        ngx_http_pdroute_job_give_up(job, "the gateway has no connections left (worker_connections, open files)");
        return;
    }
    if (rc == NGX_DECLINED) {
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_CONNECT);
        return;
    }
    leg->c = c;
    c->requests++;
    own_handlers(leg);
    c->log = c->pool->log = c->read->log = c->write->log = ngx_cycle->log;
    if (rc == NGX_AGAIN)
        ngx_add_timer(c->write, job->conf->connect_timeout);
    else
        begin_request(leg);
}

void ngx_http_pdroute_leg_start(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    const pdr_decision *d = &job->decision;
    ngx_uint_t prefill = leg->which == PDR_LEG_PREFILL;
    ngx_int_t rc;

    ngx_http_pdroute_leg_cancel(leg); /* nothing should be there */
    leg->serial++;
    leg->attempt = job->exchange.attempt;
    leg->started = ngx_current_msec;
    leg->state = PDROUTE_LEG_CONNECT;
    leg->cached = leg->received = leg->body_seen = leg->complete = leg->keepalive = leg->read_usage = leg->preread =
        leg->masks = leg->drain = leg->broken = leg->withheld = 0;
    leg->c = NULL;
    if (job->r == NULL) { /* the client left between decision and sending */
        leg->state = PDROUTE_LEG_DONE;
        return;
    }
    leg->peer = ngx_http_pdroute_peer_get(job->zone, prefill ? d->prefill : d->decode,
                                          prefill ? d->prefill_host : d->decode_host,
                                          prefill ? d->prefill_port : d->decode_port,
                                          ((prefill ? d->prefill_flags : d->decode_flags) & PDR_ENDPOINT_TLS) != 0);
    leg->out = leg->peer ? ngx_http_pdroute_request_chain(leg) : NULL;
    if (leg->out == NULL) {
        leg->state = PDROUTE_LEG_DONE;
        ngx_http_pdroute_job_give_up(job, "the gateway is out of memory");
        return;
    }
    rc = ngx_http_pdroute_peer_resolve(job->zone, leg->peer, leg);
    if (rc == NGX_AGAIN)
        leg->state = PDROUTE_LEG_RESOLVE;
    else if (rc == NGX_ERROR)
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_CONNECT);
    else
        connect_leg(leg);
}

/* Of a leg that waited, and is in no queue any more. */
void ngx_http_pdroute_leg_resolved(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_connection_t *client = job->r ? job->r->connection : NULL;

    ngx_http_pdroute_job_enter(job);
    leg->state = PDROUTE_LEG_CONNECT;
    if (leg->peer->usable)
        connect_leg(leg);
    else
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_CONNECT);
    ngx_http_pdroute_job_leave(job);
    if (client) ngx_http_run_posted_requests(client);
}

static ngx_uint_t connected(ngx_connection_t *c)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1) error = ngx_socket_errno;
    if (error) ngx_log_error(NGX_LOG_INFO, c->log, error, "pdroute: connect() failed");
    return error == 0;
}

static void on_write(ngx_http_pdroute_leg_t *leg)
{
    ngx_connection_t *c = leg->c;

    if (c->write->timedout && leg->state == PDROUTE_LEG_FLUSH) {
        ngx_http_pdroute_leg_release(leg);
        return;
    }
    if (c->write->timedout) {
        ngx_http_pdroute_leg_fail(leg, leg->state == PDROUTE_LEG_CONNECT ? PDR_FAIL_CONNECT : PDR_FAIL_TIMEOUT);
        return;
    }
    if (leg->state == PDROUTE_LEG_CONNECT) {
        if (!connected(c)) {
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_CONNECT);
            return;
        }
        if (c->write->timer_set) ngx_del_timer(c->write);
        begin_request(leg);
        return;
    }
    if (leg->out) send_request(leg);
}

ngx_int_t ngx_http_pdroute_leg_detach(ngx_http_pdroute_leg_t *leg)
{
    ngx_chain_t *cl;
    size_t size = 0;
    u_char *p;

    if (leg->out == NULL || leg->out == &leg->own_link) return NGX_OK;
    for (cl = leg->out; cl; cl = cl->next) size += (size_t)(cl->buf->last - cl->buf->pos);
    p = leg->own_out = ngx_alloc(size, ngx_cycle->log);
    if (p == NULL) return NGX_ERROR;
    for (cl = leg->out; cl; cl = cl->next) p = ngx_cpymem(p, cl->buf->pos, cl->buf->last - cl->buf->pos);
    ngx_memzero(&leg->own_buf, sizeof(leg->own_buf));
    leg->own_buf.pos = leg->own_buf.start = leg->own_out;
    leg->own_buf.last = leg->own_buf.end = p;
    leg->own_buf.memory = 1;
    leg->own_buf.last_buf = 1;
    leg->own_link.buf = &leg->own_buf;
    leg->own_link.next = NULL;
    leg->out = &leg->own_link;
    return NGX_OK;
}

/* ---------------------------------------------------------------------------------------------------------- answers */

void ngx_http_pdroute_leg_content(ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end)
{
    if (begin == end) return;
    if (leg->read_usage && leg->state != PDROUTE_LEG_RELAY) /* there it was read before it was passed on */
        (void)pdr_response_feed(&leg->response, (char *)begin, (size_t)(end - begin));
    if (leg->job->arm) ngx_http_pdroute_fan_content(leg->job->arm, begin, end);
    if (leg->job->merge) ngx_http_pdroute_merge_keep(leg, begin, end);
    if (leg->body_seen) return;
    leg->body_seen = 1;
    ngx_http_pdroute_job_event(leg->job, PDR_EV_BODY, leg, 0);
}

void ngx_http_pdroute_leg_complete(ngx_http_pdroute_leg_t *leg, ngx_uint_t clean)
{
    if (leg->complete) return;
    leg->complete = 1;
    leg->keepalive = clean && !leg->head.close && !leg->broken;
    if (leg->state == PDROUTE_LEG_DRAIN) ngx_http_pdroute_leg_release(leg);
    ngx_http_pdroute_job_event(leg->job, PDR_EV_END, leg, 0);
}

/* 1: the answer has no body. */
ngx_uint_t ngx_http_pdroute_leg_begin_body(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_head_t *head = &leg->head;

    ngx_memzero(&leg->chunked, sizeof(leg->chunked));
    leg->rest = head->content_length;
    /* decode's usage tells of prefill's cache as well (captures of SGLang 0.5.23: both legs report the same
     * cached_tokens) */
    leg->read_usage =
        leg->which == PDR_LEG_DECODE && (head->json || head->event_stream) && !head->encoded && !leg->complete;
    if (leg->read_usage) {
        pdr_init_struct(&leg->response, sizeof(leg->response));
        pdr_response_init(&leg->response, head->event_stream ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON);
    }
    if (leg->job->head_request || head->status == NGX_HTTP_NO_CONTENT || head->status == NGX_HTTP_NOT_MODIFIED)
        leg->rest = 0;
    else if (head->chunked)
        return 0;
    return leg->rest == 0;
}

/* Body bytes of a leg that is thrown away. After it returns the leg may be another's or gone. */
static void drain(ngx_http_pdroute_leg_t *leg, u_char *p, u_char *last)
{
    uint32_t serial = leg->serial;
    u_char *begin, *end;
    ngx_int_t rc;

    if (leg->head.chunked && leg->rest < 0) {
        while ((rc = ngx_http_pdroute_chunked_next(&leg->chunked, &p, last, &begin, &end)) == NGX_OK) {
            ngx_http_pdroute_leg_content(leg, begin, end);
            if (leg->serial != serial) return;
        }
        if (rc == NGX_DONE)
            ngx_http_pdroute_leg_complete(leg, p == last);
        else if (rc == NGX_ERROR)
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_PROTOCOL);
        return;
    }
    end = leg->rest >= 0 && last - p > leg->rest ? p + leg->rest : last;
    if (leg->rest >= 0) leg->rest -= end - p;
    if (leg->rest == 0) leg->body_seen = 1; /* its end says it all */
    ngx_http_pdroute_leg_content(leg, p, end);
    if (leg->serial == serial && leg->rest == 0) ngx_http_pdroute_leg_complete(leg, end == last);
}

void ngx_http_pdroute_leg_drain(ngx_http_pdroute_leg_t *leg)
{
    uint32_t serial = leg->serial;
    u_char *read = leg->read;
    size_t len = leg->read_len, head = leg->head.length;
    unsigned owned = leg->read_owned;

    if (leg->state != PDROUTE_LEG_WAIT) {
        leg->drain = 1; /* as soon as its head is there */
        return;
    }
    leg->state = PDROUTE_LEG_DRAIN;
    leg->read = NULL;
    leg->read_len = 0;
    leg->read_owned = 0;
    if (ngx_http_pdroute_leg_begin_body(leg))
        ngx_http_pdroute_leg_complete(leg, len == head);
    else if (len > head)
        drain(leg, read + head, read + len);
    if (owned) ngx_free(read);
    if (leg->serial == serial && leg->state == PDROUTE_LEG_DRAIN) read_drain(leg);
}

static void read_drain(ngx_http_pdroute_leg_t *leg)
{
    uint32_t serial = leg->serial;
    ngx_connection_t *c = leg->c;
    ssize_t n;

    while (leg->serial == serial) {
        n = c->recv(c, scratch, sizeof(scratch));
        if (n == NGX_AGAIN) {
            if (ngx_handle_read_event(c->read, 0) != NGX_OK) ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET);
            return;
        }
        if (n == 0 && leg->rest < 0 && !leg->head.chunked) {
            ngx_http_pdroute_leg_complete(leg, 0); /* its end is the end of the connection */
            return;
        }
        if (n <= 0) {
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET);
            return;
        }
        drain(leg, scratch, scratch + n);
    }
}

/* Keeps what was read beyond this call. */
static ngx_int_t keep_read(ngx_http_pdroute_leg_t *leg)
{
    u_char *copy;

    if (leg->read_owned || leg->read_len == 0) return NGX_OK;
    copy = ngx_alloc(leg->read_len, ngx_cycle->log);
    if (copy == NULL) return NGX_ERROR;
    ngx_memcpy(copy, leg->read, leg->read_len);
    leg->read = copy;
    leg->read_owned = 1;
    return NGX_OK;
}

/* Reads on into the scratch, behind what was read before: NGX_OK something came, NGX_AGAIN, NGX_ERROR. */
static ngx_int_t read_more(ngx_http_pdroute_leg_t *leg)
{
    ngx_connection_t *c = leg->c;
    size_t have = leg->read_len;
    ssize_t n;

    if (leg->read_owned) {
        ngx_memcpy(scratch, leg->read, have);
        ngx_http_pdroute_leg_forget(leg);
    }
    n = have < sizeof(scratch) ? c->recv(c, scratch + have, sizeof(scratch) - have) : NGX_ERROR;
    leg->read = scratch;
    leg->read_len = have + (size_t)(n > 0 ? n : 0);
    if (n > 0) {
        leg->received = 1;
        return NGX_OK;
    }
    if (n != NGX_AGAIN || keep_read(leg) != NGX_OK || ngx_handle_read_event(c->read, 0) != NGX_OK) return NGX_ERROR;
    return NGX_AGAIN;
}

/* The whole answer came with its head: its end is reported at once, and first byte and usage with it. 0: it did not. */
static ngx_uint_t whole_answer(ngx_http_pdroute_leg_t *leg)
{
    size_t body = leg->read_len - leg->head.length;

    if (leg->complete || (!ngx_http_pdroute_leg_begin_body(leg) && (leg->rest < 0 || body < (size_t)leg->rest)))
        return 0;
    leg->body_seen = 1;
    ngx_http_pdroute_leg_content(leg, leg->read + leg->head.length, leg->read + leg->head.length + leg->rest);
    ngx_http_pdroute_leg_complete(leg, body == (size_t)leg->rest);
    return 1;
}

/*
 * A stream whose first event is the engine's failure, under a 200 (SGLang 0.5.23, seen): nothing has gone to the
 * client, another pair can still be tried. An event that names a 4xx is the request's fault and passes.
 */
static ngx_uint_t begins_with_failure(ngx_http_pdroute_leg_t *leg)
{
    u_char *body = leg->read + leg->head.length;
    size_t len = leg->read_len - leg->head.length;
    pdr_response response;
    int status;

    if (leg->body_seen || len == 0 || !leg->head.event_stream || leg->head.status != NGX_HTTP_OK) return 0;
    if (ngx_strnstr(body, "\"error\"", len) == NULL && ngx_strnstr(body, "\"abort\"", len) == NULL) return 0;
    pdr_init_struct(&response, sizeof(response));
    pdr_response_init(&response, PDR_RESPONSE_SSE); /* lines of chunked framing are none of a stream's */
    (void)pdr_response_feed(&response, (char *)body, len);
    if (!(response.flags & PDR_SEEN_ERROR) || response.flags & PDR_SEEN_FIRST_TOKEN) return 0;
    status = pdr_error_status((char *)body, len);
    return status == 0 || status >= 500;
}

/*
 * Whether what came behind the head has a first byte of content. Chunked framing is looked at here, where another pair
 * can still be tried: NGX_OK, NGX_AGAIN, or NGX_ERROR. The relay reads the same bytes again.
 */
static ngx_int_t has_content(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_chunked_t chunked = {0, 0};
    u_char *p = leg->read + leg->head.length, *last = leg->read + leg->read_len, *begin, *end;
    ngx_int_t rc, some = NGX_AGAIN;

    if (!leg->head.chunked) return p < last ? NGX_OK : NGX_AGAIN;
    while ((rc = ngx_http_pdroute_chunked_next(&chunked, &p, last, &begin, &end)) == NGX_OK) some = NGX_OK;
    return rc == NGX_DONE ? NGX_OK : rc == NGX_ERROR ? NGX_ERROR : some;
}

/* The exchange knows the head; what it did not ask for has defaults: a good prefill answer is read and thrown away,
 * everything else waits. */
static void after_head(ngx_http_pdroute_leg_t *leg)
{
    uint32_t serial = leg->serial;
    ngx_int_t rc;

    if (begins_with_failure(leg)) {
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_PROTOCOL);
        return;
    }
    if (leg->which != PDR_LEG_PREFILL && whole_answer(leg)) {
        if (leg->serial != serial || leg->state != PDROUTE_LEG_WAIT) return;
    }
    if (!leg->body_seen && (rc = has_content(leg)) != NGX_AGAIN) {
        if (rc == NGX_ERROR) {
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_PROTOCOL);
            return;
        }
        leg->body_seen = 1;
        ngx_http_pdroute_job_event(leg->job, PDR_EV_BODY, leg, 0);
        if (leg->serial != serial || leg->state != PDROUTE_LEG_WAIT) return;
    }
    if (leg->drain || (leg->which == PDR_LEG_PREFILL && leg->head.status < 300)) {
        ngx_http_pdroute_leg_drain(leg);
        return;
    }
    if (keep_read(leg) != NGX_OK) ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET);
}

/* An error goes to the client masked (pdr_error_mask), for which all of it must be there, if it is of ordinary length. */
ngx_uint_t ngx_http_pdroute_leg_refuses_in_part(const ngx_http_pdroute_leg_t *leg)
{
    const ngx_http_pdroute_head_t *head = &leg->head;

    return head->status >= 400 && head->status < 500 && !leg->job->head_request && head->content_length > 0 &&
           leg->read_len < head->length + (size_t)head->content_length &&
           head->length + (size_t)head->content_length <= HEAD_MAX;
}

/* Its first body byte is still to be reported, or it is a refusal that is not all there; after that its bytes stay in the socket until they are wanted. */
static void read_wait(ngx_http_pdroute_leg_t *leg)
{
    uint32_t serial = leg->serial;
    ngx_int_t rc;

    while (leg->serial == serial && leg->state == PDROUTE_LEG_WAIT && (!leg->body_seen || leg->withheld)) {
        rc = read_more(leg);
        if (rc == NGX_AGAIN) return;
        if (rc == NGX_ERROR) {
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET);
            return;
        }
        if (!leg->withheld) {
            after_head(leg);
        } else if (!ngx_http_pdroute_leg_refuses_in_part(leg)) {
            leg->withheld = 0;
            ngx_http_pdroute_relay(leg);
        }
    }
}

static void read_head(ngx_http_pdroute_leg_t *leg)
{
    uint32_t serial = leg->serial;
    ngx_int_t rc;

    do {
        rc = read_more(leg);
        if (rc == NGX_AGAIN) return;
        if (rc == NGX_ERROR) {
            ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET);
            return;
        }
        rc = ngx_http_pdroute_head_parse(leg->read, leg->read + leg->read_len, &leg->head);
    } while (rc == NGX_AGAIN && leg->read_len < HEAD_MAX);
    if (rc != NGX_OK) {
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_PROTOCOL);
        return;
    }
    leg->state = PDROUTE_LEG_WAIT;
    ngx_http_pdroute_job_event(leg->job, PDR_EV_HEAD, leg, 0);
    if (leg->serial == serial && leg->state == PDROUTE_LEG_WAIT) after_head(leg);
    if (leg->serial != serial || leg->state != PDROUTE_LEG_WAIT) return;
    /* an end that came in one event with the head is told once */
    if (leg->c->read->ready || leg->c->read->eof || leg->c->read->error) read_wait(leg);
}

/* ----------------------------------------------------------------------------------------------------------- events */

static void on_read(ngx_http_pdroute_leg_t *leg)
{
    switch (leg->state) {
    case PDROUTE_LEG_HEAD:
        read_head(leg);
        break;
    case PDROUTE_LEG_WAIT:
        read_wait(leg);
        break;
    case PDROUTE_LEG_DRAIN:
        read_drain(leg);
        break;
    default:
        break; /* a failed connect comes as a write event too */
    }
}

static void handle(ngx_event_t *ev, void (*handler)(ngx_http_pdroute_leg_t *))
{
    ngx_connection_t *c = ev->data, *client;
    ngx_http_pdroute_leg_t *leg = c->data;
    ngx_http_pdroute_job_t *job = leg->job;

    client = job->r ? job->r->connection : NULL;
    ngx_http_pdroute_job_enter(job);
    if (!c->close)
        handler(leg);
    else if (leg->state == PDROUTE_LEG_FLUSH)
        ngx_http_pdroute_leg_release(leg);
    else
        ngx_http_pdroute_leg_fail(leg, PDR_FAIL_RESET); /* worker_shutdown_timeout is over */
    ngx_http_pdroute_job_leave(job);
    if (client) ngx_http_run_posted_requests(client);
}

static void read_handler(ngx_event_t *ev)
{
    handle(ev, on_read);
}
static void write_handler(ngx_event_t *ev)
{
    handle(ev, on_write);
}
