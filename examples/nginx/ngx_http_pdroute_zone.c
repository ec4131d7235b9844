/* One router block as this process uses it: configuration, mapping, lease, ticks, wake-ups. */
#include "ngx_http_pdroute.h"

#define TICK_MS 100

/* ----------------------------------------------------------------------------------------------- configuration time */

static ngx_int_t read_file(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *text)
{
    ngx_fd_t fd;
    ngx_file_info_t fi;
    ssize_t n;
    ngx_int_t rc = NGX_ERROR;

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "pdroute: cannot open \"%V\"", name);
        return NGX_ERROR;
    }
    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "pdroute: cannot read \"%V\"", name);
        goto out;
    }
    text->len = (size_t)ngx_file_size(&fi);
    text->data = ngx_pnalloc(cf->pool, text->len + 1);
    if (text->data == NULL) goto out;
    n = ngx_read_fd(fd, text->data, text->len);
    if (n < 0 || (size_t)n != text->len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "pdroute: cannot read \"%V\"", name);
        goto out;
    }
    text->data[text->len] = '\0';
    rc = NGX_OK;
out:
    (void)ngx_close_file(fd);
    return rc;
}

static void log_config_error(ngx_log_t *log, ngx_http_pdroute_zone_t *zone, const pdr_error *err)
{
    u_char line[NGX_INT32_LEN + 2] = "";

    if (err->line) ngx_sprintf(line, ":%uD%Z", err->line);
    ngx_log_error(NGX_LOG_EMERG, log, 0, "pdroute_zone \"%V\": %V%s: %s", &zone->name, &zone->config_file, line,
                  err->message);
}

char *ngx_http_pdroute_zone_load(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone)
{
    pdr_error err;

    pdr_init_struct(&err, sizeof(err));
    if (read_file(cf, &zone->config_file, &zone->config_text) != NGX_OK) return NGX_CONF_ERROR;
    pdr_init_struct(&zone->config, sizeof(zone->config));
    if (pdr_config_from_json((char *)zone->config_text.data, zone->config_text.len, &zone->config, &err) != PDR_OK ||
        pdr_config_resolve(&zone->config, &err) != PDR_OK) {
        log_config_error(cf->log, zone, &err);
        return NGX_CONF_ERROR;
    }
    pdr_init_struct(&zone->limits, sizeof(zone->limits));
    zone->limits.block_bytes = zone->config.block_bytes;
    zone->limits.max_blocks = zone->config.max_blocks;
    zone->limits.max_depth = zone->config.max_depth;
    zone->limits.max_batch = zone->config.max_batch;
    zone->limits.max_body = zone->config.max_body;
    if (zone->most && pdr_router_size(&zone->config) > zone->most) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "pdroute_zone \"%V\": %V: its sizes need a block of %uz bytes, size= allows %uz; index_entries, max_bookings and record_bytes weigh most",
                           &zone->name, &zone->config_file, pdr_router_size(&zone->config), zone->most);
        return NGX_CONF_ERROR;
    }
    return NGX_CONF_OK;
}

/*
 * The path without links, dots and double slashes, to be freed. What is not there yet will be made by this name: the part of it that is there is resolved, and of the
 * rest the words are taken. NULL: no memory, or no such path can be.
 */
static char *plain_path(const char *path)
{
    char *head = strdup(path), *found = NULL, *plain, *end, *from;
    size_t n, rest;

    if (head == NULL) return NULL;
    for (n = strlen(head);;) { /* the longest part that is there */
        head[n] = '\0';
        found = realpath(n ? head : "/", NULL);
        if (found || n == 0 || (errno != ENOENT && errno != ENOTDIR)) break;
        while (n && head[n - 1] == '/') n--;
        while (n && head[n - 1] != '/') n--;
    }
    free(head);
    if (found == NULL) return NULL;
    rest = strlen(path + n);
    plain = realloc(found, strlen(found) + rest + 2);
    if (plain == NULL) {
        free(found);
        return NULL;
    }
    end = plain + strlen(plain);
    if (end == plain + 1) end = plain; /* "/" */
    for (from = (char *)path + n; *from;) {
        n = strcspn(from, "/");
        if (n == 2 && from[0] == '.' && from[1] == '.') {
            while (end > plain && *--end != '/') continue;
        } else if (n && !(n == 1 && from[0] == '.')) {
            *end++ = '/';
            ngx_memcpy(end, from, n);
            end += n;
        }
        from += n + (from[n] == '/');
    }
    *end = '\0';
    return plain;
}

ngx_uint_t ngx_http_pdroute_zone_same_file(const ngx_http_pdroute_zone_t *a, const ngx_http_pdroute_zone_t *b)
{
    ngx_file_info_t one, two;
    ngx_uint_t same;
    char *p, *q;

    if (ngx_file_info(a->file.data, &one) != NGX_FILE_ERROR && ngx_file_info(b->file.data, &two) != NGX_FILE_ERROR)
        return one.st_dev == two.st_dev && one.st_ino == two.st_ino;
    p = plain_path((char *)a->file.data);
    q = plain_path((char *)b->file.data);
    same = p && q && strcmp(p, q) == 0;
    free(p);
    free(q);
    return same;
}

/*
 * Two zones may be one block, if it is one configuration: else the second could not be opened, or would replace the
 * first's block. Asked of the library, with a block of the first that nobody else sees.
 */
char *ngx_http_pdroute_zone_agrees(ngx_conf_t *cf, const ngx_http_pdroute_zone_t *zone, const ngx_http_pdroute_zone_t *other)
{
    pdr_router *router;
    pdr_error err;
    size_t size = pdr_router_size(&other->config);
    void *mem;

    pdr_init_struct(&err, sizeof(err));
    mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "pdroute_zone \"%V\": no memory for a block of %uz bytes", &other->name, size);
        return NGX_CONF_ERROR;
    }
    if (pdr_router_init(mem, size, &other->config, 1, &router, &err) == PDR_OK)
        (void)pdr_router_attach(mem, size, &zone->config, 1, &router, &err);
    (void)munmap(mem, size);
    if (err.code == PDR_OK) return NGX_CONF_OK;
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "pdroute_zone \"%V\" has the block file %V of pdroute_zone \"%V\" (%V:%ui) with another configuration, %V: %s",
                       &zone->name, &zone->file, &other->name, &other->conf_file, other->conf_line, &zone->config_file, err.message);
    return NGX_CONF_ERROR;
}

static ngx_int_t apply(ngx_log_t *log, ngx_http_pdroute_zone_t *zone, pdr_router *router)
{
    pdr_apply_report report;
    pdr_error err;
    uint32_t i;

    pdr_init_struct(&report, sizeof(report));
    pdr_init_struct(&err, sizeof(err));
    if (pdr_apply_json(router, (char *)zone->config_text.data, zone->config_text.len, 0, pdr_host_now_ns(), &report,
                       &err) != PDR_OK) {
        log_config_error(log, zone, &err);
        return NGX_ERROR;
    }
    for (i = 0; i < report.warnings && i < 8; i++)
        ngx_log_error(NGX_LOG_WARN, log, 0, "pdroute_zone \"%V\": %V: %s", &zone->name, &zone->config_file,
                      report.warning[i]);
    return NGX_OK;
}

/* `nginx -t`: everything is checked on a router of its own; the block file is not touched. */
static ngx_int_t try_out(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone)
{
    pdr_router *router;
    pdr_error err;
    size_t size = pdr_router_size(&zone->config);
    void *mem;
    ngx_int_t rc = NGX_ERROR;

    pdr_init_struct(&err, sizeof(err));
    mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, ngx_errno, "pdroute_zone \"%V\": no memory for a block of %uz bytes",
                      &zone->name, size);
        return NGX_ERROR;
    }
    if (pdr_router_init(mem, size, &zone->config, 1, &router, &err) != PDR_OK)
        log_config_error(cf->log, zone, &err);
    else
        rc = apply(cf->log, zone, router);
    (void)munmap(mem, size);
    return rc;
}

uint32_t ngx_http_pdroute_zone_flags(const ngx_http_pdroute_zone_t *zone)
{
    return PDR_HOST_CREATE | PDR_HOST_RESTORE | PDR_HOST_GUARD | (zone->recreate ? PDR_HOST_RECREATE : 0);
}

/* 1: the directory that the block is to be in is there. */
static ngx_uint_t has_directory(ngx_conf_t *cf, const ngx_str_t *file)
{
    ngx_file_info_t fi;
    u_char *path = ngx_pnalloc(cf->pool, file->len + 1), *p;

    if (path == NULL) return 1;
    ngx_memcpy(path, file->data, file->len);
    for (p = path + file->len; p > path && *p != '/'; p--) *p = '\0';
    *p = '\0';
    return p == path || ngx_file_info(path, &fi) != NGX_FILE_ERROR;
}

static void unmap(void *data)
{
    ngx_http_pdroute_zone_t *zone = data;
    pdr_host_close(zone->host);
    zone->host = NULL;
    zone->router = NULL;
}

ngx_int_t ngx_http_pdroute_zone_open(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone)
{
    ngx_pool_cleanup_t *cln;
    pdr_host_info info;
    pdr_error err;

    if (try_out(cf, zone) != NGX_OK) return NGX_ERROR;
    if (ngx_test_config) return NGX_OK;

    pdr_init_struct(&err, sizeof(err));
    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) return NGX_ERROR;
    zone->directory_made = !has_directory(cf, &zone->file);
    if (pdr_host_open((char *)zone->file.data, &zone->config, ngx_http_pdroute_zone_flags(zone), &zone->host,
                      &zone->router, &err) != PDR_OK) {
        ngx_uint_t named = ngx_strstr(err.message, zone->file.data) != NULL;
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "pdroute_zone \"%V\": %s%s%s%s", &zone->name, named ? "" : (char *)zone->file.data, named ? "" : ": ", err.message,
                      err.code <= PDR_E_BLOCK_MAGIC && err.code >= PDR_E_BLOCK_CORRUPT && !zone->recreate
                          ? " (add \"recreate\" to pdroute_zone to replace it)"
                          : "");
        return NGX_ERROR;
    }
    cln->handler = unmap;
    cln->data = zone;
    pdr_init_struct(&info, sizeof(info));
    if (pdr_host_info_get(zone->host, &info) == PDR_OK)
        ngx_log_error(NGX_LOG_NOTICE, cf->log, 0, "pdroute_zone \"%V\": %s %V%s%s", &zone->name,
                      info.origin == PDR_HOST_CREATED     ? "created"
                      : info.origin == PDR_HOST_RECREATED ? "replaced"
                      : info.origin == PDR_HOST_RESTORED  ? "restored"
                                                          : "attached to",
                      &zone->file, info.reason ? ": " : "", info.reason ? info.message : "");
    if (apply(cf->log, zone, zone->router) != NGX_OK) return NGX_ERROR;
    return ngx_http_pdroute_peer_names(cf, zone);
}

/* --------------------------------------------------------------------------------------------------- worker process */

/*
 * Tickets of this worker that may go now, or were refused. Runs from the event loop only: it may end clients' requests.
 */
static void take_released(ngx_http_pdroute_zone_t *zone)
{
    uint64_t tickets[32];
    size_t n, i;
    ngx_rbtree_node_t *node;
    ngx_http_pdroute_job_t *job;
    ngx_connection_t *client;

    do {
        n = sizeof(tickets) / sizeof(tickets[0]);
        if (zone->held.root == zone->held.sentinel || pdr_released(zone->router, zone->lease.id, tickets, &n) != PDR_OK)
            return;
        for (i = 0; i < n; i++) {
            for (node = zone->held.root; node != zone->held.sentinel && node->key != tickets[i];)
                node = tickets[i] < node->key ? node->left : node->right;
            if (node == zone->held.sentinel) continue; /* its client left meanwhile */
            job = (ngx_http_pdroute_job_t *)((u_char *)node - offsetof(ngx_http_pdroute_job_t, held));
            client = job->r ? job->r->connection : NULL;
            ngx_http_pdroute_take(job);
            if (client) ngx_http_run_posted_requests(client);
        }
    } while (n == sizeof(tickets) / sizeof(tickets[0]));
}

static void wake_handler(ngx_event_t *ev)
{
    ngx_connection_t *c = ev->data;
    ngx_http_pdroute_zone_t *zone = c->data;

    pdr_host_wake_drain(c->fd);
    ev->ready = 0;
    if (!zone->lost) take_released(zone);
    if (zone->wake == c && ngx_handle_read_event(ev, 0) != NGX_OK) /* not another block's by now */
        ngx_log_error(NGX_LOG_ALERT, ev->log, 0, "pdroute: wake-up socket lost");
}

/* The descriptor belongs to the lease, the connection around it to nginx. */
static void wake_close(ngx_http_pdroute_zone_t *zone)
{
    ngx_connection_t *c = zone->wake;
    if (c == NULL) return;
    zone->wake = NULL;
    if (c->read->active) (void)ngx_del_event(c->read, NGX_READ_EVENT, NGX_CLOSE_EVENT);
    ngx_http_pdroute_unpost(c->read);
    ngx_free_connection(c);
    c->fd = (ngx_socket_t)-1;
}

static ngx_int_t wake_open(ngx_http_pdroute_zone_t *zone)
{
    ngx_connection_t *c;

    if (zone->lease.wake_fd < 0) return NGX_OK; /* ticks look for tickets instead */
    c = ngx_get_connection(zone->lease.wake_fd, ngx_cycle->log);
    if (c == NULL) return NGX_ERROR;
    c->data = zone;
    c->read->handler = wake_handler;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;
    c->read->channel = 1; /* not to be closed, nor complained about, when the worker exits */
    zone->wake = c;
    return ngx_handle_read_event(c->read, 0);
}

static ngx_int_t lease_open(ngx_http_pdroute_zone_t *zone)
{
    pdr_error err;
    u_char name[64];

    pdr_init_struct(&err, sizeof(err));
    pdr_init_struct(&zone->lease, sizeof(zone->lease));
    ngx_sprintf(name, "nginx worker %P%Z", ngx_pid);
    if (pdr_host_lease_open(zone->host, (char *)name, pdr_host_now_ns(), &zone->lease, &err) != PDR_OK) {
        if (ngx_time() != zone->lease_refused) { /* ticks and requests try again */
            zone->lease_refused = ngx_time();
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "pdroute_zone \"%V\": no lease: %s", &zone->name,
                          err.message);
        }
        return NGX_ERROR;
    }
    zone->leased = 1;
    return wake_open(zone);
}

ngx_int_t ngx_http_pdroute_zone_renew(ngx_http_pdroute_zone_t *zone)
{
    pdr_error err;
    int rc;

    if (zone->lost) return NGX_ERROR;
    if (!zone->leased) return lease_open(zone);
    pdr_init_struct(&err, sizeof(err));
    rc = pdr_host_lease_renew(zone->host, &zone->lease, pdr_host_now_ns(), &err);
    if (rc == PDR_OK) return NGX_OK;
    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "pdroute_zone \"%V\": lease: %s", &zone->name, err.message);
    if (rc != PDR_E_LEASE) return NGX_ERROR;
    wake_close(zone); /* the old lease's descriptor is closed already */
    return wake_open(zone);
}

/* The tickets of all held requests were another block's: they stand in line again. */
static void hold_again(ngx_http_pdroute_zone_t *zone)
{
    ngx_rbtree_node_t *node;
    ngx_http_pdroute_job_t *job;
    ngx_connection_t *client;
    ngx_array_t *keys;
    ngx_pool_t *pool;
    ngx_rbtree_key_t *key;
    ngx_uint_t i;

    zone->moved = 0;
    if (zone->held.root == zone->held.sentinel) return;
    pool = ngx_create_pool(4096, ngx_cycle->log);
    keys = pool ? ngx_array_create(pool, 64, sizeof(ngx_rbtree_key_t)) : NULL;
    for (node = ngx_rbtree_min(zone->held.root, zone->held.sentinel); keys && node; node = ngx_rbtree_next(&zone->held, node)) {
        key = ngx_array_push(keys);
        if (key == NULL) break;
        *key = node->key;
    }
    for (i = 0; keys && i < keys->nelts; i++) {
        key = (ngx_rbtree_key_t *)keys->elts + i;
        for (node = zone->held.root; node != zone->held.sentinel && node->key != *key;)
            node = *key < node->key ? node->left : node->right;
        if (node == zone->held.sentinel) continue;
        job = (ngx_http_pdroute_job_t *)((u_char *)node - offsetof(ngx_http_pdroute_job_t, held));
        client = job->r ? job->r->connection : NULL;
        ngx_http_pdroute_take(job);
        if (client) ngx_http_run_posted_requests(client);
    }
    if (pool) ngx_destroy_pool(pool);
}

ngx_int_t ngx_http_pdroute_zone_switch(ngx_http_pdroute_zone_t *zone, pdr_host *next)
{
    pdr_host *old = zone->host;

    if (apply(ngx_cycle->log, zone, pdr_host_router(next)) != NGX_OK) return NGX_ERROR;
    if (zone->leased) {
        wake_close(zone);
        pdr_host_lease_close(old, &zone->lease, pdr_host_now_ns());
        zone->leased = 0;
    }
    zone->host = next;
    zone->router = pdr_host_router(next);
    zone->moved = 1;
    pdr_host_close(old);
    (void)lease_open(zone); /* else the next tick, or request, does it */
    return NGX_OK;
}

/* Jobs that have lived for a tick get a timer of their own. */
static void arm_young(ngx_http_pdroute_zone_t *zone)
{
    ngx_http_pdroute_job_t *job;

    while (!ngx_queue_empty(&zone->young)) {
        job = ngx_queue_data(ngx_queue_head(&zone->young), ngx_http_pdroute_job_t, queue);
        ngx_http_pdroute_job_grown(job);
    }
}

static void tick_handler(ngx_event_t *ev)
{
    ngx_http_pdroute_zone_t *zone = ev->data;

    (void)ngx_http_pdroute_guard_follow(zone);
    if (!zone->lost) {
        (void)ngx_http_pdroute_zone_renew(zone);
        (void)pdr_host_tick(zone->host, pdr_host_now_ns());
        if (zone->moved) hold_again(zone);
        take_released(zone);
    }
    arm_young(zone);
    ngx_http_pdroute_peer_expire(zone);
    ev->cancelable = 1;
    ngx_add_timer(ev, TICK_MS);
}

ngx_int_t ngx_http_pdroute_zone_start(ngx_http_pdroute_zone_t *zone, ngx_cycle_t *cycle)
{
    ngx_rbtree_init(&zone->held, &zone->held_sentinel, ngx_rbtree_insert_value);
    ngx_queue_init(&zone->free_jobs);
    ngx_queue_init(&zone->young);
    ngx_queue_init(&zone->idle);
    zone->peers = ngx_pcalloc(cycle->pool, zone->config.max_endpoints * sizeof(*zone->peers));
    zone->hashes = ngx_palloc(cycle->pool, zone->config.max_blocks * sizeof(*zone->hashes));
    if (zone->peers == NULL || zone->hashes == NULL) return NGX_ERROR;
    /* without a lease requests are refused until there is one: workers of older configurations may hold them all, but
     * nginx gives a worker that does not start up for good */
    if (ngx_http_pdroute_guard_follow(zone) != NGX_OK && !zone->lost) (void)lease_open(zone);
    zone->tick.handler = tick_handler;
    zone->tick.data = zone;
    zone->tick.log = cycle->log;
    zone->tick.cancelable = 1; /* an exiting worker does not wait for it, unless there are young jobs */
    ngx_add_timer(&zone->tick, TICK_MS);
    return NGX_OK;
}

void ngx_http_pdroute_zone_stop(ngx_http_pdroute_zone_t *zone)
{
    if (!zone->leased) return;
    if (zone->tick.timer_set) ngx_del_timer(&zone->tick);
    wake_close(zone);
    if (zone->lost) return;
    pdr_host_lease_close(zone->host, &zone->lease, pdr_host_now_ns());
    zone->leased = 0;
    (void)pdr_host_wake_pending(zone->host); /* what it gave back may release others' requests */
}
