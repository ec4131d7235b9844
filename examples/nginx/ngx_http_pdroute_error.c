/*
 * nginx's own errors in the form that OpenAI's clients expect: a body that is too long, a bad header, a method it does
 * not know. In locations with `pdroute`, and in servers that have one as long as no location is known. An error_page of
 * the configuration wins.
 */
#include "ngx_http_pdroute.h"

static ngx_http_output_header_filter_pt next_header_filter;

typedef struct {
    ngx_uint_t status;
    const char *code;
    const char *message;
} reason_t;

static const reason_t *reason_of(ngx_uint_t status)
{
    static const reason_t reasons[] = {
        {400, "bad_request", "the request's head is malformed or too long"},
        {401, "unauthorized", "credentials are missing or wrong"},
        {403, "forbidden", "access is denied"},
        {404, "not_found", "there is nothing at this path"},
        {405, "method_not_allowed", "this method is not taken here"},
        {408, "request_timeout", "the request did not arrive in time"},
        {411, "length_required", "a Content-Length is required"},
        {413, "too_large", "the body is longer than the gateway takes (client_max_body_size)"},
        {414, "uri_too_long", "the path is longer than the gateway takes"},
        {421, "misdirected_request", "this host is not served here"},
        {429, "rate_limited", "too many requests"},
        {500, "internal_error", "the gateway could not complete the request"},
        {501, "not_implemented", "the gateway does not know this transfer encoding"},
        {502, "bad_gateway", "the server's answer could not be used"},
        {503, "unavailable", "the gateway cannot serve the request at present"},
        {504, "gateway_timeout", "the server did not answer in time"},
        {505, "http_version", "the gateway does not speak this version of HTTP"}};
    static const reason_t other[] = {{0, "bad_request", "the gateway refused the request"},
                                     {0, "internal_error", "the gateway could not complete the request"}};
    ngx_uint_t i;

    for (i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].status == status) return &reasons[i];
    }
    return &other[status >= 500];
}

/* A page of nginx's, which ngx_http_special_response_handler() is about to send. */
static ngx_uint_t is_page(ngx_http_request_t *r)
{
    ngx_http_pdroute_loc_conf_t *conf;
    ngx_str_t *type = &r->headers_out.content_type;

    if (r->err_status < 400 || r->headers_out.status != r->err_status || r != r->main) return 0;
    if (type->len != 9 || ngx_strncmp(type->data, "text/html", 9) != 0) return 0;
    conf = ngx_http_get_module_loc_conf(r, ngx_http_pdroute_module);
    return conf->json_errors;
}

/*
 * The page is kept from following by r->header_only, which the special response handler looks at when the head is out.
 */
static ngx_int_t header_filter(ngx_http_request_t *r)
{
    const reason_t *reason;
    ngx_chain_t out;
    ngx_buf_t *b;
    ngx_int_t rc;
    u_char text[512];
    size_t need;

    if (!is_page(r)) return next_header_filter(r);
    reason = reason_of(r->headers_out.status);
    if (pdr_error_body((int)r->headers_out.status, reason->code, reason->message, (char *)text, sizeof(text), &need) !=
            PDR_OK ||
        (b = ngx_create_temp_buf(r->pool, need)) == NULL)
        return next_header_filter(r);
    b->last = ngx_cpymem(b->last, text, need);
    b->last_buf = 1;
    b->last_in_chain = 1;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    r->headers_out.charset.len = 0;
    ngx_http_clear_content_length(r);
    r->headers_out.content_length_n = (off_t)need;
    rc = next_header_filter(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) return rc;
    out.buf = b;
    out.next = NULL;
    rc = ngx_http_output_filter(r, &out);
    r->header_only = 1;
    return rc;
}

void ngx_http_pdroute_error_init(void)
{
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = header_filter;
}
