/* $pdroute_* variables, for access logs and headers: what was decided about a request. */
#include "ngx_http_pdroute.h"

enum { VAR_PREFILL, VAR_DECODE, VAR_ROOM, VAR_HIT, VAR_WHY, VAR_ATTEMPTS };

/* A name that is not known yet has no bytes, and no address that memcpy may be given. */
static u_char *put(u_char *p, const ngx_str_t *name)
{
    return name->len ? ngx_cpymem(p, name->data, name->len) : p;
}

static u_char *why(u_char *p, u_char *last, const ngx_http_pdroute_job_t *job)
{
    const pdr_decision *d = &job->decision;

    if (job->why[0]) p = ngx_slprintf(p, last, "%s%s", job->why, job->decided ? "," : "");
    if (!job->decided) return p;
    p = ngx_slprintf(p, last, "cost=%uL,wait=%uL,prefill=%uL,transfer=%uL,decode=%uL,pairs=%uD", d->cost_us, d->wait_us,
                     d->prefill_us, d->transfer_us, d->decode_us, d->candidates);
    if (job->was_held) p = ngx_slprintf(p, last, ",held=%uL", job->held_ns / 1000);
    return p;
}

static ngx_int_t get_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t which)
{
    ngx_http_pdroute_job_t *job = ngx_http_get_module_ctx(r->main, ngx_http_pdroute_module);
    u_char *p, *last;

    v->valid = 0;
    v->not_found = 1;
    v->no_cacheable = 0;
    if (job == NULL) return NGX_OK;
    p = ngx_pnalloc(r->pool, 320);
    if (p == NULL) return NGX_ERROR;
    v->data = p;
    last = p + 320;
    switch (which) {
    case VAR_PREFILL:
        p = put(p, &job->peer_names[PDR_LEG_PREFILL]);
        break;
    case VAR_DECODE:
        p = put(p, &job->peer_names[PDR_LEG_DECODE]);
        break;
    case VAR_ROOM:
        if (job->decided && job->decision.mode != PDR_MODE_SINGLE) p = ngx_slprintf(p, last, "%uL", job->decision.room);
        break;
    case VAR_HIT:
        if (job->decided)
            p = ngx_slprintf(p, last, "%uL/%uL", job->decision.matched_tokens, job->decision.prompt_tokens);
        break;
    case VAR_WHY:
        p = why(p, last, job);
        break;
    default:
        p = ngx_slprintf(p, last, "%uD", job->attempts);
        break;
    }
    if (p == v->data) return NGX_OK;
    v->len = (unsigned)(p - v->data) & 0xfffffff;
    v->valid = 1;
    v->not_found = 0;
    return NGX_OK;
}

ngx_int_t ngx_http_pdroute_add_variables(ngx_conf_t *cf)
{
    static ngx_str_t names[] = {ngx_string("pdroute_prefill"), ngx_string("pdroute_decode"),
                                ngx_string("pdroute_room"),    ngx_string("pdroute_hit"),
                                ngx_string("pdroute_why"),     ngx_string("pdroute_attempts")};
    ngx_http_variable_t *var;
    ngx_uint_t i;

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        var = ngx_http_add_variable(cf, &names[i], NGX_HTTP_VAR_NOCACHEABLE);
        if (var == NULL) return NGX_ERROR;
        var->get_handler = get_variable;
        var->data = i;
    }
    return NGX_OK;
}
