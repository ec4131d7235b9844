/*
 * Whole answers. Logprobs of the prompt are in prefill's answer only; for the few requests that ask for them (pdr_merge_wanted) prefill's body is kept
 * instead of thrown away, decode's is held back until prefill has ended, and then passes through libpdroute: a JSON answer as one text, a stream event by
 * event. What is kept is bounded: an answer of more than MERGE_MAX passes as decode gave it. All other requests pay one test.
 */
#include "ngx_http_pdroute.h"

#define MERGE_MAX (64 << 20)
#define OWN_BLOCK 8192 /* large enough to be a block of its own in a pool, which can be freed when it was sent */

typedef struct {
    u_char *data;
    size_t len, cap;
} text_t;

struct ngx_http_pdroute_merge_s {
    pdr_merge state;
    text_t prefill;
    text_t decode; /* what is not passed on yet */
    unsigned begun : 1;
    unsigned given_up : 1; /* too long, or out of memory */
};

static ngx_int_t append(ngx_http_pdroute_merge_t *m, text_t *t, u_char *begin, u_char *end)
{
    size_t n = (size_t)(end - begin), cap = t->cap ? t->cap : 4096;
    u_char *data;

    if (m->given_up) return NGX_ERROR;
    while (cap < t->len + n) cap *= 2;
    if (cap > MERGE_MAX) {
        m->given_up = 1;
        return NGX_ERROR;
    }
    if (cap != t->cap) {
        data = ngx_alloc(cap, ngx_cycle->log);
        if (data == NULL) {
            m->given_up = 1;
            return NGX_ERROR;
        }
        if (t->len) ngx_memcpy(data, t->data, t->len);
        if (t->data) ngx_free(t->data);
        t->data = data;
        t->cap = cap;
    }
    ngx_memcpy(t->data + t->len, begin, n);
    t->len += n;
    return NGX_OK;
}

void ngx_http_pdroute_merge_prepare(ngx_http_pdroute_job_t *job)
{
    if (job->api == PDR_API_OTHER || !pdr_merge_wanted(&job->decision, &job->prompt)) return;
    if (job->merge == NULL) job->merge = ngx_calloc(sizeof(*job->merge), ngx_cycle->log);
    if (job->merge) job->merge->prefill.len = 0; /* of an attempt that failed */
}

void ngx_http_pdroute_merge_free(ngx_http_pdroute_job_t *job)
{
    if (job->merge == NULL) return;
    if (job->merge->prefill.data) ngx_free(job->merge->prefill.data);
    if (job->merge->decode.data) ngx_free(job->merge->decode.data);
    ngx_free(job->merge);
    job->merge = NULL;
}

void ngx_http_pdroute_merge_keep(ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end)
{
    if (leg->which == PDR_LEG_PREFILL) (void)append(leg->job->merge, &leg->job->merge->prefill, begin, end);
}

ngx_uint_t ngx_http_pdroute_merge_waits(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_leg_t *prefill = &leg->job->legs[PDR_LEG_PREFILL];

    if (leg->job->merge == NULL || leg->which != PDR_LEG_DECODE || leg->head.status != NGX_HTTP_OK) return 0;
    return prefill->attempt == leg->attempt && prefill->state != PDROUTE_LEG_IDLE && prefill->state != PDROUTE_LEG_DONE;
}

/* Whether decode's answer goes through here. */
static ngx_uint_t applies(ngx_http_pdroute_leg_t *leg)
{
    ngx_http_pdroute_merge_t *m = leg->job->merge;

    if (leg->which != PDR_LEG_DECODE || leg->head.status != NGX_HTTP_OK || leg->head.encoded) return 0;
    if (!leg->head.json && !leg->head.event_stream) return 0;
    if (!m->begun) {
        m->begun = 1;
        pdr_merge_init(&m->state, leg->job->api, leg->head.event_stream ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON);
    }
    return 1;
}

/* The end of the last whole event in [p, p + len), of which the first `known` bytes have none. */
static size_t whole_events(u_char *p, size_t len, size_t known)
{
    for (; len >= 2 && len > known; len--) {
        if (p[len - 1] != '\n') continue;
        if (p[len - 2] == '\n' || (len >= 4 && p[len - 2] == '\r' && p[len - 3] == '\n')) return len;
    }
    return 0;
}

ngx_int_t ngx_http_pdroute_merge_pass(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end,
                                      ngx_uint_t last)
{
    ngx_http_pdroute_merge_t *m = leg->job->merge;
    size_t ready, need = 0, known = m->decode.len;
    u_char *out;
    int rc;

    if (!applies(leg)) return begin == end ? NGX_OK : ngx_http_pdroute_relay_pass(r, begin, end, 0);
    if (append(m, &m->decode, begin, end) != NGX_OK) { /* from here on as it is */
        if (m->decode.len) {
            out = ngx_palloc(r->pool, m->decode.len);
            if (out == NULL) return NGX_ERROR;
            ngx_memcpy(out, m->decode.data, m->decode.len);
            need = m->decode.len;
            m->decode.len = 0;
            if (ngx_http_pdroute_relay_pass(r, out, out + need, 0) != NGX_OK) return NGX_ERROR;
        }
        return begin == end ? NGX_OK : ngx_http_pdroute_relay_pass(r, begin, end, 0);
    }
    ready = last ? m->decode.len : leg->head.event_stream ? whole_events(m->decode.data, m->decode.len, known) : 0;
    if (ready == 0) return NGX_OK;
    rc = pdr_merge_text(&m->state, (char *)m->prefill.data, m->prefill.len, (char *)m->decode.data, ready, NULL, 0, &need);
    if (rc != PDR_E_NOSPACE) return rc == PDR_OK ? NGX_OK : NGX_ERROR;
    out = ngx_palloc(r->pool, ngx_max(need, OWN_BLOCK));
    if (out == NULL) return NGX_ERROR;
    rc = pdr_merge_text(&m->state, (char *)m->prefill.data, m->prefill.len, (char *)m->decode.data, ready, (char *)out, need,
                        &need);
    if (rc != PDR_OK) return NGX_ERROR;
    m->decode.len -= ready;
    if (m->decode.len) ngx_memmove(m->decode.data, m->decode.data + ready, m->decode.len);
    return ngx_http_pdroute_relay_pass(r, out, out + need, 1);
}
