/*
 * A block file that becomes shorter under a running nginx. The block is open with PDR_HOST_GUARD: a worker that touches a
 * page that is gone gets PDR_E_BLOCK_CORRUPT instead of a SIGBUS. Here a mark in memory that all workers share says so to
 * the others: nobody touches the block any more, and requests to this zone are refused with 503 until the next reload.
 */
#include "ngx_http_pdroute.h"

static void unguard(void *data)
{
    (void)munmap(data, ngx_pagesize);
}

ngx_int_t ngx_http_pdroute_guard_open(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone)
{
    ngx_pool_cleanup_t *cln = ngx_pool_cleanup_add(cf->pool, 0);
    void *page;

    if (cln == NULL) return NGX_ERROR;
    page = mmap(NULL, ngx_pagesize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NGX_ERROR;
    zone->lost = page;
    cln->handler = unguard;
    cln->data = page;
    return NGX_OK;
}

void ngx_http_pdroute_guard_look(ngx_http_pdroute_zone_t *zone)
{
    uint32_t state = PDR_HOST_CURRENT;
    pdr_error err;

    if (!*zone->lost) {
        pdr_init_struct(&err, sizeof(err));
        if (pdr_host_state(zone->host, &state, &err) == PDR_OK && state == PDR_HOST_TRUNCATED) *zone->lost = 1;
    }
    if (!*zone->lost || zone->told) return;
    zone->told = 1;
    ngx_log_error(
        NGX_LOG_ALERT, ngx_cycle->log, 0,
        "pdroute_zone \"%V\": %V was truncated: requests are refused until nginx is reloaded with a good file",
        &zone->name, &zone->file);
}
