/* Paths that the gateway answers itself: whether it can serve, and what it knows. */
#include "ngx_http_pdroute.h"

static ngx_int_t get_only(ngx_http_request_t *r)
{
    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD))) return NGX_HTTP_NOT_ALLOWED;
    return ngx_http_discard_request_body(r);
}

static ngx_uint_t path_is(ngx_http_request_t *r, const char *path)
{
    return r->uri.len == ngx_strlen(path) && ngx_strncmp(r->uri.data, path, r->uri.len) == 0;
}

/*
 * /liveness says that nginx runs. /readiness and /health say whether a request would find a pair: an SGLang client
 * polls /health until it may send.
 */
ngx_int_t ngx_http_pdroute_local(ngx_http_request_t *r, ngx_http_pdroute_zone_t *zone)
{
    static ngx_str_t ok = ngx_string("{\"status\":\"ok\"}\n");
    static ngx_str_t unready = ngx_string("{\"status\":\"no prefill and decode server is available at present\"}\n");
    ngx_uint_t ready = 1;
    ngx_int_t rc;

    if (path_is(r, "/readiness") || path_is(r, "/health"))
        ready = !zone->lost && pdr_ready(zone->router, pdr_host_now_ns()) == 1;
    else if (!path_is(r, "/liveness"))
        return NGX_DECLINED;
    rc = get_only(r);
    if (rc != NGX_OK) return rc;
    return ngx_http_pdroute_send(r, ready ? NGX_HTTP_OK : NGX_HTTP_SERVICE_UNAVAILABLE, "application/json",
                                 ready ? &ok : &unready, ready ? 0 : 1000);
}

/* ?format=prometheus, or a scraper's Accept header. */
static ngx_uint_t wants_prometheus(ngx_http_request_t *r)
{
    ngx_str_t format;
    ngx_list_part_t *part;
    ngx_table_elt_t *h;
    ngx_uint_t i;

    if (ngx_http_arg(r, (u_char *)"format", 6, &format) == NGX_OK)
        return format.len == 10 && ngx_strncmp(format.data, "prometheus", 10) == 0;
    for (part = &r->headers_in.headers.part; part; part = part->next) {
        for (h = part->elts, i = 0; i < part->nelts; i++) {
            if (h[i].key.len != 6 || ngx_strncmp(h[i].lowcase_key, "accept", 6) != 0) continue;
            if (ngx_strlcasestrn(h[i].value.data, h[i].value.data + h[i].value.len, (u_char *)"openmetrics", 11 - 1) ||
                ngx_strncmp(h[i].value.data, "text/plain", 10) == 0)
                return 1;
        }
    }
    return 0;
}

ngx_int_t ngx_http_pdroute_status_handler(ngx_http_request_t *r)
{
    ngx_http_pdroute_loc_conf_t *conf = ngx_http_get_module_loc_conf(r, ngx_http_pdroute_module);
    ngx_uint_t prometheus = wants_prometheus(r);
    ngx_str_t body;
    size_t size = 65536, need;
    ngx_int_t rc = get_only(r);
    int code;

    if (rc != NGX_OK) return rc;
    if (conf->status->lost) return NGX_HTTP_SERVICE_UNAVAILABLE;
    do { /* it may have grown meanwhile: a little more than was needed */
        body.data = ngx_pnalloc(r->pool, size);
        if (body.data == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
        need = 0;
        code = (prometheus ? pdr_status_prometheus : pdr_status_json)(conf->status->router, pdr_host_now_ns(),
                                                                      (char *)body.data, size, &need);
    } while (code == PDR_E_NOSPACE && need >= size && (size = need + need / 8 + 1024));
    if (code != PDR_OK) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0, "pdroute: status: %s", pdr_strerror(code));
        return NGX_HTTP_SERVICE_UNAVAILABLE;
    }
    body.len = need;
    return ngx_http_pdroute_send(
        r, NGX_HTTP_OK, prometheus ? "text/plain; version=0.0.4; charset=utf-8" : "application/json", &body, 0);
}
