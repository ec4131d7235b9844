/* The way of a request: body, scan, decision, held requests; and answers of our own. */
#include "ngx_http_pdroute.h"

static void body_handler(ngx_http_request_t *r);

/* ------------------------------------------------------------------------------------------------------------ entry */

static uint32_t api_of(ngx_http_request_t *r)
{
    static const struct {
        ngx_str_t uri;
        uint32_t api;
    } paths[] = {{ngx_string("/v1/chat/completions"), PDR_API_CHAT},
                 {ngx_string("/v1/completions"), PDR_API_COMPLETIONS},
                 {ngx_string("/generate"), PDR_API_GENERATE}};
    ngx_uint_t i;

    for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (r->uri.len == paths[i].uri.len && ngx_strncmp(r->uri.data, paths[i].uri.data, r->uri.len) == 0)
            return paths[i].api;
    }
    return PDR_API_OTHER;
}

/* SGLang takes PUT on /generate as well. */
static ngx_uint_t method_fits(ngx_http_request_t *r)
{
    uint32_t api = api_of(r);
    return api == PDR_API_OTHER || r->method == NGX_HTTP_POST || (api == PDR_API_GENERATE && r->method == NGX_HTTP_PUT);
}

/* An error before there is a job. */
static ngx_int_t refuse(ngx_http_request_t *r, ngx_uint_t status, const char *code, const char *message)
{
    u_char text[512];
    size_t need = 0;
    ngx_str_t body;
    ngx_int_t rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) return rc;
    if (pdr_error_body((int)status, code, message, (char *)text, sizeof(text), &need) != PDR_OK) return status;
    body.data = text;
    body.len = need;
    return ngx_http_pdroute_send(r, status, "application/json", &body, 0);
}

/*
 * Of a body that is longer than what was read together with the head, nginx keeps the two parts apart, and the scan
 * would need a copy of all. So the first part is moved into a buffer that has room for the rest, and nginx reads on
 * behind it. Its own buffer is back in place before the request ends: nginx looks into it for the next request when
 * this one's memory is gone.
 */
static ngx_int_t single_buffer(ngx_http_request_t *r)
{
    ngx_http_core_loc_conf_t *clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    size_t preread = (size_t)(r->header_in->last - r->header_in->pos);
    off_t length = r->headers_in.content_length_n;
    ngx_buf_t *b;

#if (NGX_HTTP_V2)
    if (r->stream) return NGX_OK;
#endif
    if (preread == 0 || length <= (off_t)preread || length > (off_t)clcf->client_body_buffer_size) return NGX_OK;
    if (length - (off_t)preread <= r->header_in->end - r->header_in->last) return NGX_OK; /* fits behind it already */
    b = ngx_create_temp_buf(r->pool, (size_t)length);
    if (b == NULL) return NGX_ERROR;
    b->last = ngx_cpymem(b->last, r->header_in->pos, preread);
    b->tag = (ngx_buf_tag_t)&ngx_http_pdroute_module;
    b->shadow = r->header_in;
    r->header_in->pos = r->header_in->last;
    r->header_in = b;
    return NGX_OK;
}

/*
 * nginx's client_body_timeout is for the time between two pieces, and a client that sends a byte now and then would never meet it. This is for the whole; what it costs
 * meanwhile is nginx's buffer (client_body_buffer_size at most) and file.
 */
static void body_late(ngx_event_t *ev)
{
    ngx_http_request_t *r = ev->data;
    ngx_connection_t *c = r->connection;

    ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT, "pdroute: the body was not there in time");
    c->timedout = 1;
    r->keepalive = 0;
    ngx_http_finalize_request(r, refuse(r, NGX_HTTP_REQUEST_TIME_OUT, "request_timeout", "the body was not there in time"));
    ngx_http_run_posted_requests(c);
}

static void unbound_body(void *data)
{
    ngx_event_t *late = data;
    if (late->timer_set) ngx_del_timer(late);
}

static ngx_int_t bound_body(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf)
{
    ngx_http_cleanup_t *cln;
    ngx_event_t *late;

    if (conf->body_timeout == 0) return NGX_OK;
    cln = ngx_http_cleanup_add(r, sizeof(ngx_event_t));
    if (cln == NULL) return NGX_ERROR;
    late = cln->data;
    ngx_memzero(late, sizeof(*late));
    late->handler = body_late;
    late->data = r;
    late->log = r->connection->log;
    cln->handler = unbound_body;
    ngx_add_timer(late, conf->body_timeout);
    return NGX_OK;
}

static void body_complete(ngx_http_request_t *r)
{
    ngx_http_cleanup_t *cln;

    for (cln = r->cleanup; cln; cln = cln->next) {
        if (cln->handler == unbound_body) unbound_body(cln->data);
    }
}

ngx_int_t ngx_http_pdroute_handler(ngx_http_request_t *r)
{
    ngx_http_pdroute_loc_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_pdroute_module);
    ngx_int_t rc;
    u_char message[128];

    rc = ngx_http_pdroute_local(r, conf->zone);
    if (rc != NGX_DECLINED) return rc;
    if (conf->zone->lost) return refuse(r, NGX_HTTP_SERVICE_UNAVAILABLE, "block_lost", PDROUTE_LOST);
    if (!method_fits(r)) return refuse(r, NGX_HTTP_NOT_ALLOWED, "method_not_allowed", "this path takes POST requests");
    if (r->headers_in.content_length_n > 0 && (uint64_t)r->headers_in.content_length_n > conf->zone->config.max_body) {
        ngx_sprintf(message, "the body has %O bytes, at most %uL are taken%Z", r->headers_in.content_length_n,
                    conf->zone->config.max_body);
        return refuse(r, NGX_HTTP_REQUEST_ENTITY_TOO_LARGE, "too_large", (char *)message);
    }
    if (single_buffer(r) != NGX_OK) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    rc = ngx_http_read_client_request_body(r, body_handler);
    if (rc == NGX_AGAIN && bound_body(r, conf) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return NGX_DONE;
    }
    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
}

/* ------------------------------------------------------------------------------------------------------------- body */

typedef struct {
    void *data;
    size_t size;
} mapping_t;

static void unmap(void *data)
{
    mapping_t *map = data;
    if (map->data) (void)munmap(map->data, map->size);
}

/* A body in nginx's temporary file: mapped, read and sent from there. */
static ngx_int_t map_body(ngx_http_request_t *r, ngx_buf_t *b, ngx_str_t *body)
{
    ngx_pool_cleanup_t *cln = ngx_pool_cleanup_add(r->pool, sizeof(mapping_t));
    mapping_t *map;

    if (cln == NULL) return NGX_ERROR;
    map = cln->data;
    map->size = (size_t)b->file_last;
    map->data = mmap(NULL, map->size, PROT_READ, MAP_SHARED | MAP_POPULATE, b->file->fd, 0);
    if (map->data == MAP_FAILED) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, ngx_errno, "pdroute: mmap() of a request body failed");
        map->data = NULL;
        return NGX_ERROR;
    }
    cln->handler = unmap;
    body->data = (u_char *)map->data + b->file_pos;
    body->len = (size_t)(b->file_last - b->file_pos);
    return NGX_OK;
}

/* The body as one piece of memory: in place where it is one, else copied together. */
static ngx_int_t get_body(ngx_http_request_t *r, ngx_str_t *body)
{
    ngx_chain_t *cl;
    ngx_buf_t *b, *first = NULL, *last = NULL;
    ngx_uint_t parts = 0;
    size_t size = 0;
    u_char *p;
    ssize_t n;

    ngx_str_null(body);
    if (r->request_body == NULL) return NGX_OK;
    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;
        if (ngx_buf_special(b) || ngx_buf_size(b) == 0) continue;
        size += (size_t)ngx_buf_size(b);
        if (first == NULL) first = b;
        /* see single_buffer(): two buffers, one piece of memory */
        if (last == NULL || !ngx_buf_in_memory(last) || !ngx_buf_in_memory(b) || last->last != b->pos) parts++;
        last = b;
    }
    if (parts == 0) return NGX_OK;
    if (parts == 1 && !ngx_buf_in_memory(first)) return map_body(r, first, body);
    body->len = size;
    if (parts == 1) {
        body->data = first->pos;
        return NGX_OK;
    }
    p = body->data = ngx_pnalloc(r->pool, size);
    if (p == NULL) return NGX_ERROR;
    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;
        if (ngx_buf_special(b)) continue;
        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, b->last - b->pos);
            continue;
        }
        n = ngx_read_file(b->file, p, (size_t)(b->file_last - b->file_pos), b->file_pos);
        if (n != b->file_last - b->file_pos) return NGX_ERROR;
        p += n;
    }
    return NGX_OK;
}

#define BOM_BYTES "\xef\xbb\xbf\xfe\xff"

/* Whether an engine could take the body of a path without PD for a JSON object, and so find owned members in it. */
static ngx_uint_t is_object(ngx_http_request_t *r, const ngx_str_t *body)
{
    size_t i = 0;
    ngx_table_elt_t *type = r->headers_in.content_type;

    /* behind white space, and behind a byte order mark or the zeros of UTF-16 and UTF-32, which Python's json takes as
     * well */
    while (i < body->len &&
           (body->data[i] == ' ' || (body->data[i] >= '\t' && body->data[i] <= '\r') || body->data[i] == 0 ||
            ngx_strlchr((u_char *)BOM_BYTES, (u_char *)BOM_BYTES + 5, body->data[i])))
        i++;
    if (i == body->len || body->data[i] == '[') return 0;
    if (body->data[i] == '{') return 1;
    return type &&
           ngx_strlcasestrn(type->value.data, type->value.data + type->value.len, (u_char *)"json", 4 - 1) != NULL;
}

static int scan(ngx_http_pdroute_job_t *job, pdr_error *err)
{
    ngx_http_pdroute_zone_t *zone = job->zone;
    size_t size;
    int rc;

    job->prompt.api = job->api;
    if (job->api == PDR_API_OTHER && !is_object(job->r, &job->body)) {
        job->raw_body = 1;
        if (job->body.len > zone->config.max_body) {
            err->code = PDR_E_TOO_LARGE;
            ngx_sprintf((u_char *)err->message, "the body has %uz bytes, at most %uL are taken%Z", job->body.len,
                        zone->config.max_body);
            return PDR_E_TOO_LARGE;
        }
        return PDR_OK;
    }
    rc = pdr_scan((char *)job->body.data, job->body.len, job->api, &zone->limits, &job->prompt, zone->hashes,
                  zone->config.max_blocks, err);
    if (rc != PDR_OK || job->prompt.blocks == 0) return rc;
    size = job->prompt.blocks * sizeof(*job->hashes);
    job->hashes = ngx_palloc(job->r->pool, size); /* for a retry, or when a held request is taken */
    if (job->hashes == NULL) return PDR_E_SYSTEM;
    ngx_memcpy(job->hashes, zone->hashes, size);
    return PDR_OK;
}

static void respond_code(ngx_http_pdroute_job_t *job, int code, const pdr_error *err, uint64_t retry_after_ms)
{
    u_char text[320];
    const char *message = err->message[0] ? err->message : pdr_strerror(code);

    if (code == PDR_E_BLOCK_CORRUPT) { /* its pages are gone, and it could not be replaced */
        ngx_http_pdroute_respond(job, NGX_HTTP_SERVICE_UNAVAILABLE, "block_lost", PDROUTE_LOST, 0);
        return;
    }
    if (err->line) { /* a place in the body */
        ngx_snprintf(text, sizeof(text), "%s (byte offset %uL, line %uD)%Z", message, err->offset, err->line);
        message = (char *)text;
    }
    if ((code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL) && retry_after_ms == 0) retry_after_ms = 1000;
    ngx_http_pdroute_respond(job, (ngx_uint_t)pdr_http_status(code), pdr_error_name(code), message, retry_after_ms);
}

/* Looked at only when the body is no JSON: why that is. */
static ngx_uint_t is_compressed(ngx_http_request_t *r)
{
    static const char name[] = "content-encoding", none[] = "identity";
    const ngx_list_part_t *part;
    const ngx_table_elt_t *h;
    ngx_uint_t i;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        for (h = part->elts, i = 0; i < part->nelts; i++) {
            if (h[i].key.len != sizeof(name) - 1 || ngx_strncasecmp(h[i].key.data, (u_char *)name, sizeof(name) - 1) != 0) continue;
            if (h[i].value.len && (h[i].value.len != sizeof(none) - 1 || ngx_strncasecmp(h[i].value.data, (u_char *)none, sizeof(none) - 1) != 0)) return 1;
        }
    }
    return 0;
}

/* Who pays, if the configuration names a header for that. */
static uint64_t tenant_of(ngx_http_request_t *r, const pdr_config *config)
{
    const ngx_list_part_t *part = &r->headers_in.headers.part;
    const ngx_table_elt_t *each;
    uint64_t tenant = 0;
    ngx_uint_t i;

    for (; config->tenant_header[0] && part && tenant == 0; part = part->next) {
        each = part->elts;
        for (i = 0; i < part->nelts && tenant == 0; i++)
            tenant = pdr_tenant_hash(config, (char *)each[i].key.data, each[i].key.len, (char *)each[i].value.data, each[i].value.len);
    }
    return tenant;
}

static void body_handler(ngx_http_request_t *r)
{
    ngx_http_pdroute_loc_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_pdroute_module);
    ngx_uint_t control = api_of(r) == PDR_API_OTHER && ngx_http_pdroute_is_control(r);
    ngx_http_pdroute_job_t *job = control ? NULL : ngx_http_pdroute_job_new(r, conf);
    ngx_str_t body;
    pdr_error err;
    int rc;

    body_complete(r);
    if (r->header_in->tag == (ngx_buf_tag_t)&ngx_http_pdroute_module) r->header_in = r->header_in->shadow;
    if ((job == NULL && !control) || get_body(r, job ? &job->body : &body) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }
    r->read_event_handler = ngx_http_pdroute_check_client;
    r->write_event_handler = ngx_http_pdroute_check_client;
    if (r->connection->read->ready) {
        ngx_post_event(r->connection->read, &ngx_posted_events);
    } else if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }
    if (job == NULL) {
        ngx_http_pdroute_fan(r, conf, &body);
        return;
    }
    ngx_http_pdroute_job_enter(job);
    job->api = api_of(r);
    job->tenant = tenant_of(r, &job->zone->config);
    job->has_body = r->headers_in.content_length_n >= 0 || r->headers_in.chunked;
    pdr_init_struct(&err, sizeof(err));
    rc = scan(job, &err);
    if (rc == PDR_E_PARSE && is_compressed(r))
        ngx_http_pdroute_respond(job, NGX_HTTP_UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body is compressed (Content-Encoding), which is not understood here: send it as it is", 0);
    else if (rc != PDR_OK)
        respond_code(job, rc, &err, 0);
    else
        ngx_http_pdroute_route(job);
    ngx_http_pdroute_job_leave(job);
}

/* ----------------------------------------------------------------------------------------------------------- decide */

/* For variables, which are read when the peer may be another's. */
static void remember_peer(ngx_http_pdroute_job_t *job, int leg, uint32_t endpoint, const char *host, uint32_t port,
                          uint32_t flags)
{
    ngx_http_pdroute_peer_t *peer;
    ngx_str_t *name = &job->peer_names[leg];
    ngx_uint_t tls = (flags & PDR_ENDPOINT_TLS) != 0;

    name->len = 0;
    name->data = job->peer_text[leg];
    if (endpoint == PDR_NONE) return;
    peer = ngx_http_pdroute_peer_get(job->zone, endpoint, host, port, tls);
    if (peer == NULL) return;
    name->len = peer->name.len;
    ngx_memcpy(name->data, peer->name.data, peer->name.len);
}

static void decided(ngx_http_pdroute_job_t *job)
{
    const pdr_decision *d = &job->decision;

    job->decided = 1;
    job->attempts++;
    if (job->prompt.flags & PDR_PROMPT_RETURN_LOGPROB) ngx_http_pdroute_merge_prepare(job);
    remember_peer(job, PDR_LEG_PREFILL, d->mode == PDR_MODE_SINGLE ? PDR_NONE : d->prefill, d->prefill_host,
                  d->prefill_port, d->prefill_flags);
    remember_peer(job, PDR_LEG_DECODE, d->decode, d->decode_host, d->decode_port, d->decode_flags);
}

int ngx_http_pdroute_decide(ngx_http_pdroute_job_t *job, uint32_t flags, pdr_error *err)
{
    ngx_http_pdroute_zone_t *zone = job->zone;
    pdr_request request;
    pdr_decision other, *d = job->decided ? &other : &job->decision; /* variables keep showing the last pair */
    int rc, again = 1;

    if (zone->lost) {
        ngx_cpystrn((u_char *)err->message, (u_char *)PDROUTE_LOST, sizeof(err->message));
        return PDR_E_BUSY;
    }
    do {
        pdr_init_struct(&request, sizeof(request));
        request.flags = flags;
        request.api = job->api;
        request.lease = zone->lease.id;
        request.now_ns = pdr_host_now_ns();
        request.tenant = job->tenant;
        if (job->begun) {
            request.excluded = job->exchange.excluded;
            ngx_memcpy(request.exclude, job->exchange.exclude, sizeof(request.exclude));
        }
        pdr_init_struct(d, sizeof(*d));
        rc = pdr_route_prompt(zone->router, &job->prompt, job->hashes, job->prompt.blocks, &request, d, err);
        /* the process was stopped for so long that its lease ended; or the block file is another now, or gone */
    } while (again-- && ((rc == PDR_E_LEASE && (ngx_http_pdroute_zone_renew(zone), zone->leased)) ||
                         (rc == PDR_E_BLOCK_CORRUPT && ngx_http_pdroute_guard_follow(zone) == NGX_OK)));
    if (rc != PDR_OK) {
        job->decision.retry_after_ms = d->retry_after_ms;
        return rc;
    }
    if (d == &other) job->decision = other;
    if (job->decision.outcome == PDR_SEND) decided(job);
    return PDR_OK;
}

void ngx_http_pdroute_route(ngx_http_pdroute_job_t *job)
{
    pdr_error err;
    int rc;

    pdr_init_struct(&err, sizeof(err));
    rc = ngx_http_pdroute_decide(job, 0, &err);
    if (rc != PDR_OK)
        respond_code(job, rc, &err, job->decision.retry_after_ms);
    else if (job->decision.outcome == PDR_HELD)
        ngx_http_pdroute_hold(job);
    else
        ngx_http_pdroute_job_begin(job);
}

/* ------------------------------------------------------------------------------------------------------------- held */

void ngx_http_pdroute_hold(ngx_http_pdroute_job_t *job)
{
    job->is_held = job->was_held = 1;
    job->held_ns = pdr_host_now_ns();
    job->held.key = job->decision.booking;
    ngx_rbtree_insert(&job->zone->held, &job->held);
    ngx_http_pdroute_job_arm(job);
}

void ngx_http_pdroute_unhold(ngx_http_pdroute_job_t *job)
{
    if (!job->is_held) return;
    job->is_held = 0;
    ngx_rbtree_delete(&job->zone->held, &job->held);
}

void ngx_http_pdroute_take(ngx_http_pdroute_job_t *job)
{
    pdr_decision d;
    pdr_error err;
    int rc;

    if (!job->is_held || job->r == NULL) return;
    if (job->zone->lost) {
        ngx_http_pdroute_unhold(job);
        ngx_http_pdroute_respond(job, NGX_HTTP_SERVICE_UNAVAILABLE, "block_lost", PDROUTE_LOST, 0);
        return;
    }
    pdr_init_struct(&err, sizeof(err));
    pdr_init_struct(&d, sizeof(d));
    rc = pdr_ticket_take(job->zone->router, job->decision.booking, job->hashes, job->prompt.blocks, pdr_host_now_ns(),
                         &d, &err);
    job->untaken = rc == PDR_E_BUSY; /* its release is told once: it is to look again by itself */
    if (job->untaken) ngx_http_pdroute_job_arm(job);
    if (rc == PDR_E_AGAIN || rc == PDR_E_BUSY) return;
    if (rc == PDR_E_BLOCK_CORRUPT && ngx_http_pdroute_guard_follow(job->zone) == NGX_OK) rc = PDR_E_NOT_FOUND;
    ngx_http_pdroute_job_enter(job);
    ngx_http_pdroute_unhold(job);
    job->held_ns = pdr_host_now_ns() - job->held_ns;
    if (rc == PDR_OK) {
        job->decision = d;
        decided(job);
        ngx_http_pdroute_job_begin(job);
    } else if (rc == PDR_E_NOT_FOUND) {
        ngx_http_pdroute_route(job); /* its lease ended meanwhile: in line again */
    } else {
        respond_code(job, rc, &err, d.retry_after_ms);
    }
    ngx_http_pdroute_job_leave(job);
}

/* ----------------------------------------------------------------------------------------------------------- client */

/* Something happened on the client's connection while the legs are under way. */
void ngx_http_pdroute_check_client(ngx_http_request_t *r)
{
    ngx_connection_t *c = r->connection;
    ngx_event_t *rev = c->read;
    char byte;
    ssize_t n;

    if (!c->error) {
#if (NGX_HTTP_V2)
        if (r->stream) return;
#endif
#if (NGX_HAVE_EPOLLRDHUP)
        if ((ngx_event_flags & NGX_USE_EPOLL_EVENT) && ngx_use_epoll_rdhup) {
            if (!rev->pending_eof) return;
        } else
#endif
        {
            n = recv(c->fd, &byte, 1, MSG_PEEK);
            if (n > 0 || (n == -1 && ngx_socket_errno == NGX_EAGAIN)) return;
        }
        rev->eof = 1;
        c->error = 1;
        ngx_log_error(NGX_LOG_INFO, c->log, 0, "pdroute: client closed the connection, so its legs are closed too");
    }
    ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
}

/* ---------------------------------------------------------------------------------------------------------- answers */

static ngx_int_t add_header(ngx_http_request_t *r, const char *name, u_char *value, size_t len)
{
    ngx_table_elt_t *h = ngx_list_push(&r->headers_out.headers);

    if (h == NULL) return NGX_ERROR;
    h->hash = 1;
    h->key.data = (u_char *)name;
    h->key.len = ngx_strlen(name);
    h->value.data = value;
    h->value.len = len;
    return NGX_OK;
}

ngx_int_t ngx_http_pdroute_send(ngx_http_request_t *r, ngx_uint_t status, const char *type, ngx_str_t *body,
                                uint64_t retry_after_ms)
{
    ngx_buf_t *b;
    ngx_chain_t out;
    ngx_int_t rc;
    u_char *text;

    r->headers_out.status = status;
    r->headers_out.content_length_n = (off_t)body->len;
    r->headers_out.content_type.data = (u_char *)type;
    r->headers_out.content_type.len = r->headers_out.content_type_len = ngx_strlen(type);
    r->headers_out.content_type_lowcase = NULL;
    if (retry_after_ms) {
        text = ngx_pnalloc(r->pool, NGX_INT64_LEN);
        if (text == NULL ||
            add_header(r, "Retry-After", text,
                       (size_t)(ngx_sprintf(text, "%uL", (retry_after_ms + 999) / 1000) - text)) != NGX_OK)
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (status == NGX_HTTP_NOT_ALLOWED && add_header(r, "Allow", (u_char *)"POST", 4) != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    b = ngx_create_temp_buf(r->pool, body->len + 1);
    if (b == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    b->last = ngx_cpymem(b->last, body->data, body->len);
    b->last_buf = 1;
    out.buf = b;
    out.next = NULL;
    rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) return rc;
    return ngx_http_output_filter(r, &out);
}

void ngx_http_pdroute_respond(ngx_http_pdroute_job_t *job, ngx_uint_t status, const char *code, const char *message,
                              uint64_t retry_after_ms)
{
    ngx_http_request_t *r = job->r;
    u_char text[1024];
    size_t need = 0;
    ngx_str_t body;

    ngx_cpystrn((u_char *)job->why, (u_char *)code, sizeof(job->why));
    if (r == NULL) return;
    ngx_http_pdroute_job_detach(job);
    if (pdr_error_body((int)status, code, message, (char *)text, sizeof(text), &need) != PDR_OK) {
        ngx_http_finalize_request(r, (ngx_int_t)status);
        return;
    }
    body.data = text;
    body.len = need;
    ngx_http_finalize_request(r, ngx_http_pdroute_send(r, status, "application/json", &body, retry_after_ms));
}
