/*
 * Error events within a stream, on their way to the client: libpdroute blots out what they tell of the inside (pdr_response_mask), in place. The beginning of such an event is held
 * back here until it is whole, which libpdroute bounds; everything else passes where it lies in nginx's buffer.
 */
#include "ngx_http_pdroute.h"

#define OWN_BLOCK 8192 /* large enough to be a block of its own in a pool, which can be freed when it was sent */

static ngx_int_t pass_on(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end, ngx_uint_t own, ngx_uint_t last)
{
    if (leg->job->merge) return ngx_http_pdroute_merge_pass(r, leg, begin, end, last);
    return begin == end ? NGX_OK : ngx_http_pdroute_relay_pass(r, begin, end, own);
}

/* Behind what is held. */
static ngx_int_t hold(ngx_http_request_t *r, ngx_http_pdroute_job_t *job, u_char *begin, u_char *end)
{
    size_t n = (size_t)(end - begin), cap = job->held_cap ? job->held_cap : OWN_BLOCK;
    u_char *p;

    while (cap < job->held_text.len + n) cap *= 2;
    if (cap != job->held_cap) {
        p = ngx_palloc(r->pool, cap);
        if (p == NULL) return NGX_ERROR;
        if (job->held_text.len) ngx_memcpy(p, job->held_text.data, job->held_text.len);
        if (job->held_cap) (void)ngx_pfree(r->pool, job->held_text.data);
        job->held_text.data = p;
        job->held_cap = cap;
    }
    if (n) ngx_memcpy(job->held_text.data + job->held_text.len, begin, n);
    job->held_text.len += n;
    return NGX_OK;
}

ngx_int_t ngx_http_pdroute_mask_pass(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end, ngx_uint_t last)
{
    ngx_http_pdroute_job_t *job = leg->job;
    size_t ready = (size_t)(end - begin);
    u_char *out;

    if (job->held_text.len == 0) {
        (void)pdr_response_mask(&leg->response, &job->decision, (char *)begin, ready, last != 0, &ready);
        if (begin + ready != end && hold(r, job, begin + ready, end) != NGX_OK) return NGX_ERROR;
        return pass_on(r, leg, begin, begin + ready, 0, last);
    }
    if (hold(r, job, begin, end) != NGX_OK) return NGX_ERROR;
    ready = job->held_text.len;
    (void)pdr_response_mask(&leg->response, &job->decision, (char *)job->held_text.data, ready, last != 0, &ready);
    if (ready == 0) return NGX_OK;
    out = ngx_palloc(r->pool, ngx_max(ready, OWN_BLOCK));
    if (out == NULL) return NGX_ERROR;
    ngx_memcpy(out, job->held_text.data, ready);
    job->held_text.len -= ready;
    if (job->held_text.len) ngx_memmove(job->held_text.data, job->held_text.data + ready, job->held_text.len);
    return pass_on(r, leg, out, out + ready, 1, last);
}
