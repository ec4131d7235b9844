/*
 * A block file that is truncated, replaced or removed under a running nginx. The block is open with PDR_HOST_GUARD: a worker that touches a
 * page that is gone gets PDR_E_BLOCK_CORRUPT instead of a SIGBUS. Each worker looks with every tick, and at such an
 * answer, and goes on with what the path names, or makes it anew. For that it needs the right to write into the block's directory, which a worker has
 * in a directory that the module made, or that its user owns; without it, requests to the zone are refused with 503 from a truncation until the
 * next reload, and what was removed or replaced is used as it was.
 */
#include "ngx_http_pdroute.h"

ngx_int_t ngx_http_pdroute_guard_follow(ngx_http_pdroute_zone_t *zone)
{
    uint32_t state = PDR_HOST_CURRENT;
    ngx_uint_t level;
    pdr_host *next = NULL;
    pdr_error err;

    pdr_init_struct(&err, sizeof(err));
    if (pdr_host_state(zone->host, &state, &err) != PDR_OK || state == PDR_HOST_CURRENT) return NGX_DECLINED;
    if (state == PDR_HOST_TRUNCATED) zone->lost = 1;
    if (ngx_exiting) return NGX_DECLINED; /* the new workers' block may be of another kind: this one ends on its own */
    if (pdr_host_follow(zone->host, &zone->config, ngx_http_pdroute_zone_flags(zone), &next, NULL, &err) == PDR_OK) {
        if (next == NULL) return NGX_DECLINED;
        if (ngx_http_pdroute_zone_switch(zone, next) == NGX_OK) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "pdroute_zone \"%V\": %V was %s: going on with what is there",
                          &zone->name, &zone->file, state == PDR_HOST_TRUNCATED ? "truncated" : "replaced or removed");
            zone->lost = 0;
            return NGX_OK;
        }
        pdr_host_close(next);
        ngx_cpystrn((u_char *)err.message, (u_char *)"the configuration does not fit it", sizeof(err.message));
    }
    if (ngx_time() < zone->follow_refused + 60) return NGX_ERROR;
    zone->follow_refused = ngx_time();
    level = zone->lost ? NGX_LOG_ALERT : NGX_LOG_WARN;
    ngx_log_error(level, ngx_cycle->log, 0, "pdroute_zone \"%V\": %V was %s, %s: %s", &zone->name, &zone->file,
                  zone->lost ? "truncated" : "replaced or removed",
                  zone->lost ? "requests are refused until there is a good one" : "the old block is used", err.message);
    return NGX_ERROR;
}
