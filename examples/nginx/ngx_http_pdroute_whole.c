/*
 * A whole answer that came in one read, with a head that says nothing special: the common end of a request that is not
 * streamed. It is sent from here, without an ngx_http_upstream_t, which costs a third of all that nginx does for a
 * short request. What clients and logs see is the same, but for $upstream_http_*, which need one.
 */
#include "ngx_http_pdroute.h"

ngx_uint_t ngx_http_pdroute_is_whole(const ngx_http_pdroute_leg_t *leg)
{
    const ngx_http_pdroute_head_t *head = &leg->head;

    return leg->complete && leg->state == PDROUTE_LEG_WAIT && head->status == NGX_HTTP_OK && head->json &&
           !head->others && head->content_length > 0 && !leg->job->head_request && !leg->job->merge &&
           leg->job->r == leg->job->r->main && leg->read_len >= head->length + (size_t)head->content_length;
}

/* For $upstream_addr, $upstream_status and the times. */
static ngx_int_t note(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg)
{
    ngx_http_upstream_state_t *state;

    if (r->upstream_states == NULL) {
        r->upstream_states = ngx_array_create(r->pool, 1, sizeof(*state));
        if (r->upstream_states == NULL) return NGX_ERROR;
    }
    state = ngx_array_push(r->upstream_states);
    if (state == NULL) return NGX_ERROR;
    ngx_memzero(state, sizeof(*state));
    state->peer = &leg->job->peer_names[leg->which];
    state->status = leg->head.status;
    state->connect_time = (ngx_msec_t)-1;
    state->header_time = state->response_time = ngx_current_msec - leg->started;
    state->response_length = (off_t)leg->head.content_length;
    state->bytes_received = (off_t)leg->read_len;
    return NGX_OK;
}

/* Its end was reported, so the exchange need not be told that sending begins: there is nothing left to retry. */
void ngx_http_pdroute_whole(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_http_request_t *r = job->r;
    size_t length = (size_t)leg->head.content_length;
    struct {
        ngx_buf_t buf;
        ngx_chain_t link;
        u_char text[1];
    } * out;
    ngx_int_t rc;

    job->relay = leg;
    out = ngx_palloc(r->pool, sizeof(*out) + length);
    if (out == NULL || note(r, leg) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }
    ngx_memzero(out, sizeof(*out));
    ngx_memcpy(out->text, leg->read + leg->head.length, length);
    out->buf.pos = out->buf.start = out->text;
    out->buf.last = out->buf.end = out->text + length;
    out->buf.temporary = 1;
    out->buf.last_buf = 1;
    out->buf.last_in_chain = 1;
    out->link.buf = &out->buf;
    out->link.next = NULL;
    r->headers_out.status = leg->head.status;
    r->headers_out.content_length_n = (off_t)length;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_http_pdroute_leg_release(leg);
    ngx_http_pdroute_job_detach(job); /* from here on nothing that the client does matters to the other leg */
    rc = ngx_http_send_header(r);
    if (rc != NGX_ERROR && rc <= NGX_OK && !r->header_only) rc = ngx_http_output_filter(r, &out->link);
    ngx_http_finalize_request(r, rc);
}
