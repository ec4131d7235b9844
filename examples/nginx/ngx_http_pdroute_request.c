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

static ngx_int_t make_tail(ngx_http_pdroute_leg_t *leg, ngx_str_t *tail)
{
    ngx_http_pdroute_job_t *job = leg->job;
    char text[TAIL_FIRST];
    size_t need = 0;
    int rc;

    rc = pdr_rewrite_tail(&job->decision, &job->prompt, (int)leg->which, 0, text, sizeof(text), &need);
    if (rc != PDR_OK && rc != PDR_E_NOSPACE) return NGX_ERROR;
    tail->len = need;
    tail->data = ngx_pnalloc(job->r->pool, need + 1);
    if (tail->data == NULL) return NGX_ERROR;
    if (rc == PDR_OK) {
        ngx_memcpy(tail->data, text, need);
        return NGX_OK;
    }
    /* a batch with many rooms */
    rc = pdr_rewrite_tail(&job->decision, &job->prompt, (int)leg->which, 0, (char *)tail->data, need, &need);
    return rc == PDR_OK ? NGX_OK : NGX_ERROR;
}

/* Slices of the body as buffers behind `cl`; *length gets the size of all. */
static ngx_int_t add_body(ngx_http_pdroute_leg_t *leg, ngx_chain_t *cl, size_t *length)
{
    ngx_http_pdroute_job_t *job = leg->job;
    pdr_slice slices[PDR_MAX_SLICES];
    ngx_str_t tail;
    ngx_buf_t *b;
    size_t n = PDR_MAX_SLICES, i;

    *length = 0;
    if (job->body.len == 0) return NGX_OK;
    if (job->raw_body) { /* not JSON: passes as it is */
        ngx_memzero(&slices[0], sizeof(slices[0]));
        slices[0].length = job->body.len;
        n = 1;
        ngx_str_null(&tail);
    } else if (make_tail(leg, &tail) != NGX_OK ||
               pdr_rewrite_slices(&job->prompt, job->body.len, tail.len, slices, &n) != PDR_OK) {
        return NGX_ERROR;
    }
    for (i = 0; i < n; i++) {
        if (slices[i].length == 0) continue;
        b = ngx_calloc_buf(job->r->pool);
        cl->next = ngx_alloc_chain_link(job->r->pool);
        if (b == NULL || cl->next == NULL) return NGX_ERROR;
        cl = cl->next;
        b->pos = b->start = (slices[i].source ? tail.data : job->body.data) + slices[i].offset;
        b->last = b->end = b->pos + slices[i].length;
        b->memory = 1;
        cl->buf = b;
        *length += slices[i].length;
    }
    cl->next = NULL;
    return NGX_OK;
}

static u_char *put_number(u_char *p, size_t n)
{
    u_char digits[20], *d = digits + sizeof(digits);

    do *--d = (u_char)('0' + n % 10);
    while (n /= 10);
    return ngx_cpymem(p, d, digits + sizeof(digits) - d);
}

ngx_chain_t *ngx_http_pdroute_request_chain(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_http_request_t *r = job->r;
    ngx_chain_t *cl;
    ngx_str_t uri;
    size_t length;
    u_char *p;

    if (job->headers.data == NULL && collect_headers(job) != NGX_OK) return NULL;
    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL || target(r, &uri) != NGX_OK) return NULL;
    cl->next = NULL;
    if (add_body(leg, cl, &length) != NGX_OK) return NULL;
    cl->buf = ngx_create_temp_buf(r->pool, r->method_name.len + uri.len + leg->peer->name.len + job->headers.len + 96);
    if (cl->buf == NULL) return NULL;
    p = cl->buf->last;
    p = ngx_cpymem(p, r->method_name.data, r->method_name.len);
    *p++ = ' ';
    p = ngx_cpymem(p, uri.data, uri.len);
    p = ngx_cpymem(p, " HTTP/1.1\r\nHost: ", 17);
    p = ngx_cpymem(p, leg->peer->name.data, leg->peer->name.len);
    if (job->has_body) {
        p = ngx_cpymem(p, "\r\nContent-Length: ", 18);
        p = put_number(p, length);
    }
    *p++ = '\r';
    *p++ = '\n';
    cl->buf->last = ngx_cpymem(p, job->headers.data, job->headers.len);
    return cl;
}
