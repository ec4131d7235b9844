/*
 * A leg's answer on its way to the client: an ngx_http_upstream_t that begins with a connection on which the answer has
 * begun to arrive. nginx's own code copies the headers, passes the body on unbuffered with flow control, and notices
 * the client leaving. What breaks is reported to the exchange from the event loop: the connection's recv() hides it
 * from the upstream code, which would answer in its own way.
 */
#include "ngx_http_pdroute.h"

static ngx_str_t hidden[] = {ngx_string("Date"),
                             ngx_string("Server"),
                             ngx_string("X-Pad"),
                             ngx_string("X-Accel-Expires"),
                             ngx_string("X-Accel-Redirect"),
                             ngx_string("X-Accel-Limit-Rate"),
                             ngx_string("X-Accel-Buffering"),
                             ngx_string("X-Accel-Charset"),
                             ngx_null_string};

/* ------------------------------------------------------------------------------------------------------------- peer */

static ngx_int_t get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_pdroute_leg_t *leg = data;

    pc->connection = leg->c;
    pc->name = &leg->job->peer_names[leg->which];
    return NGX_DONE;
}

static void free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    /* not called: pc->sockaddr is never set, and finalize() takes the connection back */
    (void)pc, (void)data, (void)state;
}

static ngx_int_t init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);

    (void)us;
    r->upstream->peer.get = get_peer;
    r->upstream->peer.free = free_peer;
    r->upstream->peer.data = job->relay;
    r->upstream->peer.tries = 1;
    return NGX_OK;
}

static ngx_http_upstream_srv_conf_t relay_server = {.peer = {.init = init_peer}};

ngx_int_t ngx_http_pdroute_relay_conf(ngx_conf_t *cf, ngx_http_pdroute_loc_conf_t *conf,
                                      ngx_http_pdroute_loc_conf_t *prev)
{
    ngx_http_upstream_conf_t *u = &conf->upstream;
    ngx_hash_init_t hash;

    u->upstream = &relay_server;
    u->connect_timeout = conf->connect_timeout;
    u->send_timeout = conf->send_timeout;
    u->read_timeout = conf->read_timeout;
    u->buffer_size = conf->buffer_size;
    u->next_upstream = NGX_HTTP_UPSTREAM_FT_OFF;
    u->ignore_headers = NGX_HTTP_UPSTREAM_IGN_XA_REDIRECT | NGX_HTTP_UPSTREAM_IGN_XA_EXPIRES |
                        NGX_HTTP_UPSTREAM_IGN_XA_LIMIT_RATE | NGX_HTTP_UPSTREAM_IGN_XA_BUFFERING |
                        NGX_HTTP_UPSTREAM_IGN_XA_CHARSET;
    u->pass_request_headers = 1;
    u->pass_request_body = 1;
    ngx_str_set(&u->module, "pdroute");
    ngx_memzero(&hash, sizeof(hash));
    hash.max_size = 512;
    hash.bucket_size = ngx_align(64, ngx_cacheline_size);
    hash.name = "pdroute_headers_hash";
    return ngx_http_upstream_hide_headers_hash(cf, u, &prev->upstream, hidden, &hash);
}

/* ------------------------------------------------------------------------------------------------------- connection */

static void report(ngx_http_pdroute_leg_t *leg, uint32_t detail)
{
    if (leg->fail_detail) return;
    leg->fail_detail = detail;
    ngx_post_event(&leg->failed, &ngx_posted_events);
}

/*
 * A server that answers before it has read the request, and closes, resets the connection behind its answer. The
 * upstream code, which takes an error of the socket for a failed connect, is not to find it.
 */
static void take_error(ngx_http_pdroute_leg_t *leg)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (leg->out == NULL && leg->head.status == NGX_HTTP_OK) return;
    if (getsockopt(leg->c->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1 || error) leg->broken = 1;
}

/* The stream has said [DONE]: what the connection does then takes nothing from the client. */
static ngx_uint_t is_whole(const ngx_http_pdroute_leg_t *leg)
{
    return leg->head.event_stream && leg->read_usage && (leg->response.flags & (PDR_SEEN_DONE | PDR_SEEN_ERROR)) == PDR_SEEN_DONE;
}

static ngx_int_t pass(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end, ngx_uint_t last)
{
    if (begin != end && (leg->read_usage || leg->masks))
        (void)pdr_response_feed(&leg->response, (char *)begin, (size_t)(end - begin));
    if (leg->masks) return ngx_http_pdroute_mask_pass(r, leg, begin, end, last);
    if (leg->job->merge) return ngx_http_pdroute_merge_pass(r, leg, begin, end, last);
    return ngx_http_pdroute_relay_pass(r, begin, end, 0);
}

/* The answer has ended, and its last piece was passed: what waited for that. */
static ngx_int_t pass_rest(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg)
{
    u_char *none = r->upstream->buffer.last;

    return leg->job->merge || leg->job->held_text.len ? pass(r, leg, none, none, 1) : NGX_OK;
}

/* First what the leg has read already; and no end of file that the upstream code would act upon. */
static ssize_t relay_recv(ngx_connection_t *c, u_char *buf, size_t size)
{
    ngx_http_request_t *r = c->data;
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);
    ngx_http_pdroute_leg_t *leg = job->relay;
    ssize_t n;

    if (leg->preread) { /* it lies in `buf` */
        leg->preread = 0;
        c->read->ready = 1;
        return (ssize_t)leg->read_len;
    }
    if (leg->fail_detail) return NGX_AGAIN;
    n = leg->recv(c, buf, size);
    if (n > 0 || n == NGX_AGAIN) return n;
    if ((n == 0 && r->upstream->length == -1 && !leg->broken) || is_whole(leg)) { /* its end is the end of the connection */
        r->upstream->length = 0;
        job->in_relay = 1;
        if (pass_rest(r, leg) != NGX_OK) report(leg, PDR_FAIL_PROTOCOL);
        ngx_http_pdroute_leg_complete(leg, 0);
        job->in_relay = 0;
        return 0;
    }
    report(leg, PDR_FAIL_RESET);
    c->read->ready = 0;
    c->read->eof = 0;
    c->read->error = 0;
    return NGX_AGAIN;
}

/* In front of the upstream code's own handler, which would answer a timeout in its own way. */
static void relay_read_handler(ngx_event_t *ev)
{
    ngx_connection_t *c = ev->data;
    ngx_http_request_t *r = c->data;
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);
    ngx_http_pdroute_leg_t *leg = job->relay;

    if (ev->timedout) {
        ev->timedout = 0;
        report(leg, PDR_FAIL_TIMEOUT);
    } else if (c->close) { /* worker_shutdown_timeout is over */
        report(leg, PDR_FAIL_RESET);
    } else {
        leg->relay_handler(ev);
    }
}

/* The connection is the leg's again. */
static void take_back(ngx_http_pdroute_leg_t *leg, ngx_http_upstream_t *u)
{
    ngx_connection_t *c = leg->c;

    u->peer.connection = NULL;
    c->data = leg;
    c->recv = leg->recv;
    if (c->read->timer_set) ngx_del_timer(c->read);
    if (c->write->timer_set) ngx_del_timer(c->write);
    ngx_http_pdroute_unpost(c->read);
    ngx_http_pdroute_unpost(c->write);
    ngx_http_pdroute_leg_release(leg);
}

/* ----------------------------------------------------------------------------------------------- upstream callbacks */

static ngx_int_t create_request(ngx_http_request_t *r)
{
    r->upstream->request_bufs = NULL; /* it was sent long ago */
    return NGX_OK;
}

static ngx_int_t reinit_request(ngx_http_request_t *r)
{
    (void)r;
    return NGX_ERROR;
}

static void abort_request(ngx_http_request_t *r)
{
    (void)r;
}

static ngx_int_t add_empty(ngx_http_upstream_t *u, const char *name, u_char *lowcase)
{
    ngx_table_elt_t *h = ngx_list_push(&u->headers_in.headers);

    if (h == NULL) return NGX_ERROR;
    h->key.data = (u_char *)name;
    h->key.len = ngx_strlen(name);
    h->lowcase_key = lowcase;
    h->hash = ngx_hash_key(lowcase, h->key.len);
    ngx_str_null(&h->value);
    return NGX_OK;
}

/* An answer stream must not be held back by an nginx in front of this one. */
static ngx_int_t no_buffering(ngx_http_request_t *r)
{
    ngx_table_elt_t *h = ngx_list_push(&r->headers_out.headers);

    if (h == NULL) return NGX_ERROR;
    h->hash = 1;
    ngx_str_set(&h->key, "X-Accel-Buffering");
    ngx_str_set(&h->value, "no");
    h->lowcase_key = (u_char *)"x-accel-buffering";
    return NGX_OK;
}

static ngx_int_t add_line(ngx_http_request_t *r, ngx_http_upstream_main_conf_t *umcf,
                          const ngx_http_pdroute_line_t *line)
{
    ngx_http_upstream_header_t *hh;
    ngx_table_elt_t *h = ngx_list_push(&r->upstream->headers_in.headers);
    size_t i;

    if (h == NULL) return NGX_ERROR;
    h->hash = 0;
    h->key.len = line->name_len;
    h->value.len = line->value_len;
    h->key.data = ngx_pnalloc(r->pool, line->name_len + 1 + line->value_len + 1 + line->name_len);
    if (h->key.data == NULL) return NGX_ERROR;
    h->value.data = h->key.data + line->name_len + 1;
    h->lowcase_key = h->value.data + line->value_len + 1;
    *ngx_cpymem(h->key.data, line->name, line->name_len) = '\0';
    *ngx_cpymem(h->value.data, line->value, line->value_len) = '\0';
    for (i = 0; i < line->name_len; i++) {
        h->lowcase_key[i] = ngx_tolower(line->name[i]);
        h->hash = ngx_hash(h->hash, h->lowcase_key[i]);
    }
    hh = ngx_hash_find(&umcf->headers_in_hash, h->hash, h->lowcase_key, h->key.len);
    return hh && hh->handler(r, h, hh->offset) != NGX_OK ? NGX_ERROR : NGX_OK;
}

/* The head is complete and known to be good: the leg has read it. */
static ngx_int_t process_header(ngx_http_request_t *r)
{
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);
    ngx_http_upstream_main_conf_t *umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);
    ngx_http_pdroute_leg_t *leg = job->relay;
    ngx_http_upstream_t *u = r->upstream;
    ngx_http_pdroute_line_t line;
    u_char *p = u->buffer.pos + leg->head.skip, *eol;
    ngx_int_t rc;

    eol = memchr(p, '\n', (size_t)(u->buffer.last - p));
    u->headers_in.status_n = u->state->status = leg->head.status;
    u->headers_in.status_line.data = p + 9; /* behind "HTTP/1.x " */
    u->headers_in.status_line.len = (size_t)(eol - (p + 9)) - (eol[-1] == '\r');
    for (p = eol + 1; (rc = ngx_http_pdroute_line_next(&p, u->buffer.last, &line)) == NGX_OK;) {
        if (add_line(r, umcf, &line) != NGX_OK) return NGX_ERROR;
    }
    if (rc != NGX_DONE) return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    u->buffer.pos = p;
    /* empty ones, so that nginx sends its own */
    if (u->headers_in.server == NULL && add_empty(u, "Server", (u_char *)"server") != NGX_OK) return NGX_ERROR;
    if (u->headers_in.date == NULL && add_empty(u, "Date", (u_char *)"date") != NGX_OK) return NGX_ERROR;
    if (u->headers_in.chunked || job->merge) u->headers_in.content_length_n = -1; /* a merged answer is longer */
    if (leg->head.event_stream && no_buffering(r) != NGX_OK) return NGX_ERROR;
    if (leg->rest == 0) {
        job->in_relay = 1;
        ngx_http_pdroute_leg_complete(leg, u->buffer.pos == u->buffer.last);
        job->in_relay = 0;
    }
    return NGX_OK;
}

static ngx_int_t filter_init(void *data)
{
    ngx_http_request_t *r = data;
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);
    ngx_http_pdroute_leg_t *leg = job->relay;

    r->upstream->length = leg->head.chunked && leg->rest < 0 ? 1 : leg->rest;
    return NGX_OK;
}

ngx_int_t ngx_http_pdroute_relay_pass(ngx_http_request_t *r, u_char *begin, u_char *end, ngx_uint_t own)
{
    ngx_http_upstream_t *u = r->upstream;
    ngx_chain_t *cl, **ll;

    for (ll = &u->out_bufs; *ll; ll = &(*ll)->next) continue;
    cl = ngx_chain_get_free_buf(r->pool, &u->free_bufs);
    if (cl == NULL) return NGX_ERROR;
    *ll = cl;
    if (cl->buf->start) (void)ngx_pfree(r->pool, cl->buf->start);
    cl->buf->start = own ? begin : NULL;
    cl->buf->flush = 1;
    cl->buf->memory = 1;
    cl->buf->pos = begin;
    cl->buf->last = end;
    cl->buf->tag = u->output.tag;
    return NGX_OK;
}

/* Content has come. Bytes of framing (extensions of chunks, trailers) may go on for ever and say nothing: they are silence. */
static void heard(ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end)
{
    if (begin == end) return;
    if (ngx_current_msec - leg->last_byte > leg->longest_gap) leg->longest_gap = ngx_current_msec - leg->last_byte;
    leg->last_byte = ngx_current_msec;
}

static ngx_int_t filter_plain(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *p, u_char *last)
{
    ngx_http_upstream_t *u = r->upstream;
    u_char *end = u->length >= 0 && last - p > u->length ? p + u->length : last;

    if (p == end) {
        leg->keepalive = 0; /* bytes behind the end */
        return NGX_OK;
    }
    heard(leg, p, end);
    if (pass(r, leg, p, end, u->length == end - p) != NGX_OK) return NGX_ERROR;
    ngx_http_pdroute_leg_content(leg, p, end);
    if (u->length < 0) return NGX_OK;
    u->length -= end - p;
    if (u->length == 0) ngx_http_pdroute_leg_complete(leg, end == last);
    return NGX_OK;
}

static ngx_int_t filter_chunked(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *p, u_char *last)
{
    u_char *begin, *end;
    ngx_int_t rc;

    if (r->upstream->length == 0) {
        leg->keepalive = 0;
        return NGX_OK;
    }
    while ((rc = ngx_http_pdroute_chunked_next(&leg->chunked, &p, last, &begin, &end)) == NGX_OK) {
        heard(leg, begin, end);
        if (pass(r, leg, begin, end, 0) != NGX_OK) return NGX_ERROR;
        ngx_http_pdroute_leg_content(leg, begin, end);
    }
    if (rc == NGX_ERROR && !is_whole(leg)) {
        report(leg, PDR_FAIL_PROTOCOL);
    } else if (rc == NGX_DONE || rc == NGX_ERROR) {
        r->upstream->length = 0;
        if (pass_rest(r, leg) != NGX_OK) return NGX_ERROR;
        ngx_http_pdroute_leg_complete(leg, rc == NGX_DONE && p == last);
    }
    return NGX_OK;
}

static ngx_int_t filter(void *data, ssize_t bytes)
{
    ngx_http_request_t *r = data;
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);
    ngx_http_pdroute_leg_t *leg = job->relay;
    u_char *p = r->upstream->buffer.last, *last = p + bytes;
    ngx_int_t rc;

    r->upstream->buffer.last = last;
    if (leg->fail_detail) return NGX_OK;
    job->in_relay = 1;
    rc = leg->head.chunked && leg->rest < 0 ? filter_chunked(r, leg, p, last) : filter_plain(r, leg, p, last);
    job->in_relay = 0;
    return rc;
}

/*
 * The upstream code is done with the answer: rc 0 complete, NGX_DONE stopped by us, else broken on the client's side.
 */
static void finalize(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r, ngx_http_pdroute_module);
    ngx_http_pdroute_leg_t *leg = job->relay;

    if (leg == NULL || leg->state != PDROUTE_LEG_RELAY) return;
    ngx_http_pdroute_job_enter(job);
    take_back(leg, r->upstream);
    if (!job->stopping) {
        ngx_http_pdroute_job_detach(job);
        if (!leg->complete || rc != 0) ngx_http_pdroute_job_event(job, PDR_EV_CLIENT_GONE, NULL, 0);
    }
    ngx_http_pdroute_job_leave(job);
}

/* --------------------------------------------------------------------------------------------------- start and stop */

static ngx_int_t prepare(ngx_http_pdroute_leg_t *leg, ngx_http_request_t *r)
{
    ngx_http_upstream_t *u;
    size_t size = leg->job->conf->buffer_size;

    if (ngx_http_upstream_create(r) != NGX_OK) return NGX_ERROR;
    u = r->upstream;
    u->conf = &leg->job->conf->upstream;
    u->output.tag = (ngx_buf_tag_t)&ngx_http_pdroute_module;
    u->create_request = create_request;
    u->reinit_request = reinit_request;
    u->process_header = process_header;
    u->abort_request = abort_request;
    u->finalize_request = finalize;
    u->input_filter_init = filter_init;
    u->input_filter = filter;
    u->input_filter_ctx = r;
    u->buffering = 0;
    u->accel = 1;
    /* a short answer needs no more than itself */
    if (leg->head.content_length >= 0 && (size_t)leg->head.content_length < size - ngx_min(leg->head.length, size))
        size = leg->head.length + (size_t)leg->head.content_length;
    if (size < leg->read_len + 1) size = leg->read_len + 1;
    u->buffer.start = ngx_palloc(r->pool, size);
    if (u->buffer.start == NULL) return NGX_ERROR;
    u->buffer.pos = u->buffer.last = u->buffer.start;
    u->buffer.end = u->buffer.start + size;
    u->buffer.temporary = 1;
    u->buffer.tag = u->output.tag;
    ngx_memcpy(u->buffer.start, leg->read, leg->read_len);
    if (ngx_list_init(&u->headers_in.headers, r->pool, 8, sizeof(ngx_table_elt_t)) != NGX_OK ||
        ngx_list_init(&u->headers_in.trailers, r->pool, 2, sizeof(ngx_table_elt_t)) != NGX_OK)
        return NGX_ERROR;
    return NGX_OK;
}

void ngx_http_pdroute_relay(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_http_request_t *r = job->r;
    ngx_connection_t *c = leg->c;
    size_t len = leg->read_len;
    uint32_t serial;

    if (r == NULL || leg->state != PDROUTE_LEG_WAIT) return;
    if (ngx_http_pdroute_merge_waits(leg)) {
        job->waiting = leg;
        return;
    }
    job->waiting = NULL;
    if (ngx_http_pdroute_leg_refuses_in_part(leg)) {
        leg->withheld = 1;
        return;
    }
    if (leg->head.status >= 400 && !leg->head.encoded)
        (void)pdr_error_mask(&job->decision, (char *)leg->read + leg->head.length, leg->read_len - leg->head.length);
    if (ngx_http_pdroute_is_whole(leg)) {
        ngx_http_pdroute_whole(leg);
        return;
    }
    serial = leg->serial;
    job->relay = leg;
    if (prepare(leg, r) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }
    ngx_http_pdroute_leg_forget(leg);
    ngx_http_pdroute_leg_begin_body(leg);
    leg->masks = leg->which == PDR_LEG_DECODE && leg->head.event_stream && !leg->head.encoded && leg->head.status == NGX_HTTP_OK;
    if (leg->masks && !leg->read_usage) { /* it was complete, and read, before */
        pdr_init_struct(&leg->response, sizeof(leg->response));
        pdr_response_init(&leg->response, PDR_RESPONSE_SSE);
    }
    leg->read_len = len;
    leg->preread = 1;
    leg->last_byte = ngx_current_msec;
    leg->longest_gap = 0;
    leg->state = PDROUTE_LEG_RELAY;
    leg->recv = c->recv;
    c->recv = relay_recv;
    c->read->ready = 1; /* the upstream code begins to read at once */
    if (c->write->timer_set) ngx_del_timer(c->write);
    ngx_http_pdroute_job_event(job, PDR_EV_SENT, leg, 0);
    take_error(leg);
    ngx_http_upstream_init(r);
    if (leg->serial != serial) return; /* it is over already */
    if (c->data != r) { /* a call failed before nginx took the connection: it has answered 500, and will tell nobody */
        c->recv = leg->recv;
        ngx_http_pdroute_leg_release(leg);
        ngx_http_pdroute_job_detach(job);
        ngx_http_pdroute_job_event(job, PDR_EV_CLIENT_GONE, NULL, 0);
        return;
    }
    leg->relay_handler = c->read->handler;
    c->read->handler = relay_read_handler;
    r->upstream->start_time = leg->started; /* the answer's times count from when it was asked for */
}

/* The upstream code lets go; r stays ours. */
static void stop(ngx_http_pdroute_job_t *job, ngx_http_request_t *r)
{
    ngx_http_upstream_t *u = r->upstream;

    if (u == NULL || u->cleanup == NULL) return;
    r->main->count++;
    job->stopping = 1;
    (*u->cleanup)(r);
    job->stopping = 0;
    r->read_event_handler = ngx_http_pdroute_check_client;
}

void ngx_http_pdroute_relay_stop(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;

    if (job->r) stop(job, job->r);
    if (leg->state == PDROUTE_LEG_RELAY) ngx_http_pdroute_leg_release(leg);
}

void ngx_http_pdroute_relay_abort(ngx_http_pdroute_job_t *job, ngx_uint_t status, uint32_t reason, const char *message)
{
    ngx_http_request_t *r = job->r;
    ngx_http_upstream_t *u;
    ngx_chain_t out, *pending;
    ngx_buf_t *b;
    u_char text[1024];
    size_t need = 0;
    ngx_uint_t whole;

    whole = r && r->header_sent && job->relay && is_whole(job->relay);
    if (!whole) ngx_cpystrn((u_char *)job->why, (u_char *)pdr_reason_name(reason), sizeof(job->why));
    if (r == NULL) return;
    stop(job, r);
    ngx_http_pdroute_job_detach(job);
    r->keepalive = 0;
    u = r->upstream;
    if (whole) { /* all was said, only the answer's end was missing */
        if (u && u->out_bufs) (void)ngx_http_output_filter(r, u->out_bufs);
        ngx_http_finalize_request(r, ngx_http_send_special(r, NGX_HTTP_LAST));
        return;
    }
    if (r->header_sent && job->relay && job->relay->head.event_stream &&
        pdr_error_event(job->api, (int)status, pdr_reason_name(reason), message, (char *)text, sizeof(text), &need) ==
            PDR_OK) {
        b = ngx_create_temp_buf(r->pool, need);
        if (b) {
            b->last = ngx_cpymem(b->last, text, need);
            b->flush = 1;
            out.buf = b;
            out.next = NULL;
            pending = u ? u->out_bufs : NULL;
            if (pending) (void)ngx_http_output_filter(r, pending);
            (void)ngx_http_output_filter(r, &out);
        }
    }
    ngx_http_finalize_request(r, r->header_sent ? NGX_ERROR : NGX_HTTP_BAD_GATEWAY);
}
