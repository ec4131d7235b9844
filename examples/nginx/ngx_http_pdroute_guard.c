/*
 * A block file that becomes shorter under a running nginx. A page that is gone is a SIGBUS in whatever touches it, and
 * no call that was half done can be finished: so the worker that touches it first leaves a mark in memory that all
 * workers share, and dies; its successor and the others see the mark, touch the block no more, and refuse requests to
 * this zone with 503 until the next reload. Mostly the tick finds out first, and nobody dies.
 */
#include "ngx_http_pdroute.h"

#include <signal.h>

static ngx_array_t *guarded; /* ngx_http_pdroute_zone_t *, of this process */

static void unguard(void *data)
{
    (void)munmap(data, ngx_pagesize);
}

ngx_int_t ngx_http_pdroute_guard_open(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone, size_t size)
{
    ngx_pool_cleanup_t *cln = ngx_pool_cleanup_add(cf->pool, 0);
    void *page;

    if (cln == NULL) return NGX_ERROR;
    page = mmap(NULL, ngx_pagesize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return NGX_ERROR;
    zone->lost = page;
    zone->size = size;
    cln->handler = unguard;
    cln->data = page;
    return NGX_OK;
}

/* Async-signal-safe. Returning runs into the same page again, now without a handler. */
static void on_sigbus(int signo, siginfo_t *info, void *context)
{
    static const char text[] = "pdroute: a block file was truncated under this worker\n";
    ngx_http_pdroute_zone_t **zones = guarded->elts;
    u_char *at = info->si_addr;
    ngx_uint_t i;

    (void)signo, (void)context;
    for (i = 0; i < guarded->nelts; i++) {
        if (at < (u_char *)zones[i]->router || at >= (u_char *)zones[i]->router + zones[i]->size) continue;
        *zones[i]->lost = 1;
        (void)!write(ngx_cycle->log->file->fd, text, sizeof(text) - 1);
    }
}

ngx_int_t ngx_http_pdroute_guard_start(ngx_array_t *zones)
{
    struct sigaction sa;

    guarded = zones;
    ngx_memzero(&sa, sizeof(sa));
    sa.sa_sigaction = on_sigbus;
    sa.sa_flags = SA_SIGINFO | (int)SA_RESETHAND;
    sigemptyset(&sa.sa_mask);
    return sigaction(SIGBUS, &sa, NULL) == 0 ? NGX_OK : NGX_ERROR;
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
