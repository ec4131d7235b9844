/* The bytes of a leg's request: a head of our own with the client's headers, and the client's body with the owned
 * members cut out and ours put in, as slices. */
#include "ngx_http_pdroute.h"

#define TAIL_FIRST 512 /* enough for one room and host */

static ngx_uint_t equals(const ngx_table_elt_t *h, const char *name, size_t len)
{
    return h->key.len == len && ngx_strncmp(h->lowcase_key, name, len) == 0;
}

/* RFC 9110 §7.6.1: headers named in Connection end here. */
static ngx_uint_t named_in(const ngx_str_t *connection, const ngx_table_elt_t *h)
{
    u_char *p = connection->data, *last = p + connection->len, *end;

    while (p < last) {
        while (p < last && (*p == ' ' || *p == ',' || *p == '\t')) p++;
        for (end = p; end < last && *end != ',' && *end != ' ' && *end != '\t'; end++) continue;
        if ((size_t)(end - p) == h->key.len && h->key.len && ngx_strncasecmp(p, h->lowcase_key, h->key.len) == 0)
            return 1;
        p = end;
    }
    return 0;
}

/* A Connection header that may name others: neither "keep-alive" nor "close". There may be several. */
static ngx_uint_t names_headers(const ngx_table_elt_t *h)
{
    if (h->hash == 0 || !equals(h, "connection", 10)) return 0;
    return !(h->value.len == 10 && ngx_strncasecmp(h->value.data, (u_char *)"keep-alive", 10) == 0) &&
           !(h->value.len == 5 && ngx_strncasecmp(h->value.data, (u_char *)"close", 5) == 0);
}

static ngx_uint_t named_in_any(const ngx_http_request_t *r, const ngx_table_elt_t *h)
{
    const ngx_list_part_t *part;
    const ngx_table_elt_t *other;
    ngx_uint_t i;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        for (other = part->elts, i = 0; i < part->nelts; i++) {
            if (names_headers(&other[i]) && named_in(&other[i].value, h)) return 1;
        }
    }
    return 0;
}

/* Headers that belong to one connection, or that this request gets anew. `named`: a Connection header may name some. */
static ngx_uint_t stays_here(ngx_http_pdroute_job_t *job, const ngx_table_elt_t *h, ngx_uint_t named)
{
    static const ngx_str_t names[] = {ngx_string("host"),
                                      ngx_string("content-length"),
                                      ngx_string("transfer-encoding"),
                                      ngx_string("connection"),
                                      ngx_string("keep-alive"),
                                      ngx_string("proxy-connection"),
                                      ngx_string("expect"),
                                      ngx_string("te"),
                                      ngx_string("trailer"),
                                      ngx_string("upgrade"),
                                      ngx_string("http2-settings"),
                                      ngx_string("proxy-authorization")};
    ngx_uint_t i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (equals(h, (char *)names[i].data, names[i].len)) return 1;
    }
    /* an answer whose usage is to be read cannot be compressed; nginx's gzip does that for the client */
    if (job->api != PDR_API_OTHER && equals(h, "accept-encoding", 15)) return 1;
    if (named && named_in_any(job->r, h)) return 1;
    return pdr_header_owned((char *)h->key.data, h->key.len) == 1;
}

/* The client's headers that pass, the same for all legs and attempts. */
static ngx_int_t collect_headers(ngx_http_pdroute_job_t *job)
{
    ngx_http_request_t *r = job->r;
    ngx_list_part_t *part;
    ngx_table_elt_t *h;
    ngx_uint_t i, named = 0;
    size_t size = 2;
    u_char *p;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        for (h = part->elts, i = 0; i < part->nelts; i++) {
            size += h[i].key.len + h[i].value.len + 4;
            named |= names_headers(&h[i]);
        }
    }
    p = job->headers.data = ngx_pnalloc(r->pool, size);
    if (p == NULL) return NGX_ERROR;
    for (part = &r->headers_in.headers.part; part; part = part->next) {
        for (h = part->elts, i = 0; i < part->nelts; i++) {
            if (h[i].hash == 0 || stays_here(job, &h[i], named)) continue;
            p = ngx_cpymem(p, h[i].key.data, h[i].key.len);
            *p++ = ':';
            *p++ = ' ';
            p = ngx_cpymem(p, h[i].value.data, h[i].value.len);
            *p++ = '\r';
            *p++ = '\n';
        }
    }
    *p++ = '\r';
    *p++ = '\n';
    job->headers.len = (size_t)(p - job->headers.data);
    return NGX_OK;
}

/* As proxy_pass without a URI: what the client sent, unless it was rewritten here. */
static ngx_int_t target(ngx_http_request_t *r, ngx_str_t *uri)
{
    size_t escape;
    u_char *p;

    if (r->valid_unparsed_uri) {
        *uri = r->unparsed_uri;
        return NGX_OK;
    }
    escape = 2 * ngx_escape_uri(NULL, r->uri.data, r->uri.len, NGX_ESCAPE_URI);
    p = uri->data = ngx_pnalloc(r->pool, r->uri.len + escape + 1 + r->args.len);
    if (p == NULL) return NGX_ERROR;
    if (escape)
        p = (u_char *)ngx_escape_uri(p, r->uri.data, r->uri.len, NGX_ESCAPE_URI);
    else
        p = ngx_cpymem(p, r->uri.data, r->uri.len);
    if (r->args.len) {
        *p++ = '?';
        p = ngx_cpymem(p, r->args.data, r->args.len);
    }
    uri->len = (size_t)(p - uri->data);
    return NGX_OK;
}

/* Our members, into `text` of `size` bytes or, a batch with many rooms, into memory of their own. */
static ngx_int_t make_tail(ngx_http_pdroute_leg_t *leg, u_char *text, size_t size, ngx_str_t *tail)
{
    ngx_http_pdroute_job_t *job = leg->job;
    int rc;

    tail->data = text;
    rc = pdr_rewrite_tail(&job->decision, &job->prompt, (int)leg->which, 0, (char *)text, size, &tail->len);
    if (rc != PDR_E_NOSPACE) return rc == PDR_OK ? NGX_OK : NGX_ERROR;
    tail->data = ngx_pnalloc(job->r->pool, tail->len);
    if (tail->data == NULL) return NGX_ERROR;
    rc = pdr_rewrite_tail(&job->decision, &job->prompt, (int)leg->which, 0, (char *)tail->data, tail->len, &tail->len);
    return rc == PDR_OK ? NGX_OK : NGX_ERROR;
}

/* What a leg's body is made of. */
typedef struct {
    pdr_slice slice[PDR_MAX_SLICES];
    size_t n;
    size_t length; /* of all */
    ngx_str_t tail;
    u_char text[TAIL_FIRST];
} parts_t;

static ngx_int_t cut_body(ngx_http_pdroute_leg_t *leg, parts_t *parts)
{
    ngx_http_pdroute_job_t *job = leg->job;
    size_t i;

    parts->n = parts->length = 0;
    ngx_str_null(&parts->tail);
    if (job->body.len == 0) return NGX_OK;
    if (job->raw_body) { /* not JSON: passes as it is */
        parts->slice[0].source = 0;
        parts->slice[0].offset = 0;
        parts->slice[0].length = parts->length = job->body.len;
        parts->n = 1;
        return NGX_OK;
    }
    if (make_tail(leg, parts->text, sizeof(parts->text), &parts->tail) != NGX_OK) return NGX_ERROR;
    parts->n = PDR_MAX_SLICES;
    if (pdr_rewrite_slices(&job->prompt, job->body.len, parts->tail.len, parts->slice, &parts->n) != PDR_OK)
        return NGX_ERROR;
    for (i = 0; i < parts->n; i++) parts->length += parts->slice[i].length;
    return NGX_OK;
}

static u_char *slice_at(ngx_http_pdroute_job_t *job, const parts_t *parts, const pdr_slice *s)
{
    return (s->source ? parts->tail.data : job->body.data) + s->offset;
}

static u_char *put_number(u_char *p, size_t n)
{
    u_char digits[20], *d = digits + sizeof(digits);

    do *--d = (u_char)('0' + n % 10);
    while (n /= 10);
    return ngx_cpymem(p, d, digits + sizeof(digits) - d);
}

#define HEAD_EXTRA 96 /* what put_head() writes beside what is counted */

static u_char *put_head(u_char *p, ngx_http_pdroute_leg_t *leg, const ngx_str_t *uri, size_t length)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_http_request_t *r = job->r;

    p = ngx_cpymem(p, r->method_name.data, r->method_name.len);
    *p++ = ' ';
    p = ngx_cpymem(p, uri->data, uri->len);
    p = ngx_cpymem(p, " HTTP/1.1\r\nHost: ", 17);
    p = ngx_cpymem(p, leg->peer->name.data, leg->peer->name.len);
    if (job->has_body) {
        p = ngx_cpymem(p, "\r\nContent-Length: ", 18);
        p = put_number(p, length);
    }
    *p++ = '\r';
    *p++ = '\n';
    return ngx_cpymem(p, job->headers.data, job->headers.len);
}

/* Copied together: cheaper than what each piece of a chain costs in the kernel, and the client may go. */
static ngx_chain_t *small_chain(ngx_http_pdroute_leg_t *leg, const ngx_str_t *uri, const parts_t *parts)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_buf_t *b = &leg->own_buf;
    u_char *p = job->small[leg->which];
    size_t i;

    ngx_memzero(b, sizeof(*b));
    b->pos = b->start = p;
    p = put_head(p, leg, uri, parts->length);
    for (i = 0; i < parts->n; i++) p = ngx_cpymem(p, slice_at(job, parts, &parts->slice[i]), parts->slice[i].length);
    b->last = b->end = p;
    b->memory = 1;
    leg->own_link.buf = b;
    leg->own_link.next = NULL;
    return &leg->own_link;
}

ngx_chain_t *ngx_http_pdroute_request_chain(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_http_request_t *r = job->r;
    ngx_chain_t *first, *cl;
    parts_t parts;
    ngx_str_t uri;
    ngx_buf_t *b;
    size_t head, i;

    if (job->headers.data == NULL && collect_headers(job) != NGX_OK) return NULL;
    if (target(r, &uri) != NGX_OK || cut_body(leg, &parts) != NGX_OK) return NULL;
    head = r->method_name.len + uri.len + leg->peer->name.len + job->headers.len + HEAD_EXTRA;
    if (head + parts.length <= PDROUTE_SMALL) return small_chain(leg, &uri, &parts);

    if (parts.tail.data == parts.text) { /* one buffer for the head and our members */
        b = ngx_create_temp_buf(r->pool, head + parts.tail.len);
        if (b == NULL) return NULL;
        parts.tail.data = b->end - parts.tail.len;
        ngx_memcpy(parts.tail.data, parts.text, parts.tail.len);
    } else {
        b = ngx_create_temp_buf(r->pool, head);
        if (b == NULL) return NULL;
    }
    b->last = put_head(b->last, leg, &uri, parts.length);
    first = cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) return NULL;
    cl->buf = b;
    for (i = 0; i < parts.n; i++) {
        if (parts.slice[i].length == 0) continue;
        b = ngx_calloc_buf(r->pool);
        cl->next = ngx_alloc_chain_link(r->pool);
        if (b == NULL || cl->next == NULL) return NULL;
        cl = cl->next;
        b->pos = b->start = slice_at(job, &parts, &parts.slice[i]);
        b->last = b->end = b->pos + parts.slice[i].length;
        b->memory = 1;
        cl->buf = b;
    }
    cl->next = NULL;
    return first;
}
