/* Addresses of workers, and one pool of kept connections for each. */
#include "ngx_http_pdroute.h"

#define RESOLVE_EVERY 10 /* seconds between two look-ups of a name; nginx's resolver keeps answers for their own time  \
                          */

/* -------------------------------------------------------------------------------------------------------- addresses */

static ngx_uint_t parse_address(const char *host, ngx_sockaddr_t *address, socklen_t *len)
{
    ngx_memzero(address, sizeof(*address));
    if (inet_pton(AF_INET, host, &address->sockaddr_in.sin_addr) == 1) {
        address->sockaddr_in.sin_family = AF_INET;
        *len = sizeof(address->sockaddr_in);
        return 1;
    }
#if (NGX_HAVE_INET6)
    if (inet_pton(AF_INET6, host, &address->sockaddr_in6.sin6_addr) == 1) {
        address->sockaddr_in6.sin6_family = AF_INET6;
        *len = sizeof(address->sockaddr_in6);
        return 1;
    }
#endif
    return 0;
}

static ngx_uint_t is_name(const char *host)
{
    ngx_sockaddr_t address;
    socklen_t len;
    return !parse_address(host, &address, &len);
}

static void use_address(ngx_http_pdroute_peer_t *peer, struct sockaddr *address, socklen_t len)
{
    ngx_sockaddr_t to;

    ngx_memzero(&to, sizeof(to));
    ngx_memcpy(&to, address, ngx_min((size_t)len, sizeof(to)));
    ngx_inet_set_port(&to.sockaddr, (in_port_t)peer->port);
    if (peer->usable && peer->socklen == len && ngx_memcmp(&peer->sockaddr, &to, len) == 0) return;
    ngx_http_pdroute_peer_flush(peer);
    peer->generation++;
    peer->sockaddr = to;
    peer->socklen = len;
    peer->usable = 1;
}

ngx_int_t ngx_http_pdroute_peer_names(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone)
{
    ngx_http_pdroute_name_t *name;
    struct addrinfo hints, *found;
    pdr_endpoint e;
    uint32_t cursor = 0, id, state;

    if (ngx_array_init(&zone->names, cf->pool, 4, sizeof(*name)) != NGX_OK) return NGX_ERROR;
    while (pdr_endpoint_next(zone->router, &cursor, &id) == PDR_OK) {
        pdr_init_struct(&e, sizeof(e));
        if (pdr_endpoint_get(zone->router, id, &e, &state) != PDR_OK || !is_name(e.host)) continue;
        ngx_memzero(&hints, sizeof(hints));
        hints.ai_socktype = SOCK_STREAM;
        if (getaddrinfo(e.host, NULL, &hints, &found) != 0) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0, "pdroute_zone \"%V\": host \"%s\" of \"%s\" not found", &zone->name,
                          e.host, e.name);
            continue;
        }
        name = ngx_array_push(&zone->names);
        if (name) {
            name->host.len = ngx_strlen(e.host);
            name->host.data = ngx_pnalloc(cf->pool, name->host.len + 1);
            name->socklen = found->ai_addrlen;
            ngx_memcpy(&name->sockaddr, found->ai_addr, found->ai_addrlen);
            if (name->host.data) ngx_memcpy(name->host.data, e.host, name->host.len + 1);
        }
        freeaddrinfo(found);
        if (name == NULL || name->host.data == NULL) return NGX_ERROR;
    }
    return NGX_OK;
}

/* An address is taken as it is, a name as it was when the configuration was read. */
static void first_address(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer)
{
    ngx_http_pdroute_name_t *name = zone->names.elts;
    ngx_sockaddr_t address;
    socklen_t len;
    ngx_uint_t i;

    peer->usable = 0;
    peer->resolved = 0;
    peer->named = !parse_address(peer->host, &address, &len);
    if (!peer->named) use_address(peer, &address.sockaddr, len);
    for (i = 0; peer->named && i < zone->names.nelts; i++) {
        if (ngx_strcmp(name[i].host.data, peer->host) == 0)
            use_address(peer, &name[i].sockaddr.sockaddr, name[i].socklen);
    }
}

/* Legs that waited go on, or fail, from the event loop. */
static void wake_waiting(ngx_http_pdroute_peer_t *peer)
{
    ngx_http_pdroute_leg_t *leg;

    while (!ngx_queue_empty(&peer->waiting)) {
        leg = ngx_queue_data(ngx_queue_head(&peer->waiting), ngx_http_pdroute_leg_t, wait);
        ngx_queue_remove(&leg->wait);
        ngx_http_pdroute_leg_resolved(leg);
    }
}

static void looked_up(ngx_resolver_ctx_t *ctx)
{
    ngx_http_pdroute_peer_t *peer = ctx->data;

    peer->lookup = NULL;
    peer->resolved = ngx_time();
    if (ctx->state == NGX_OK && ctx->naddrs)
        use_address(peer, ctx->addrs[0].sockaddr, ctx->addrs[0].socklen);
    else /* an address that worked is better than none */
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "pdroute: host \"%s\": %s", peer->host,
                      ngx_resolver_strerror(ctx->state));
    ngx_resolve_name_done(ctx);
    wake_waiting(peer);
}

static void look_up(ngx_http_pdroute_peer_t *peer, ngx_http_core_loc_conf_t *clcf)
{
    ngx_resolver_ctx_t *ctx = ngx_resolve_start(clcf->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) return;
    ctx->name.data = (u_char *)peer->host;
    ctx->name.len = ngx_strlen(peer->host);
    ctx->handler = looked_up;
    ctx->data = peer;
    ctx->timeout = clcf->resolver_timeout;
    peer->lookup = ctx;
    if (ngx_resolve_name(ctx) != NGX_OK) peer->lookup = NULL;
}

ngx_int_t ngx_http_pdroute_peer_resolve(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer,
                                        ngx_http_pdroute_leg_t *leg)
{
    ngx_http_core_loc_conf_t *clcf = ngx_http_get_module_loc_conf(leg->job->r, ngx_http_core_module);
    ngx_uint_t able = clcf->resolver && clcf->resolver->connections.nelts;

    (void)zone;
    if (!peer->named) return peer->usable ? NGX_OK : NGX_ERROR;
    if (able && peer->lookup == NULL && ngx_time() - peer->resolved >= (peer->usable ? RESOLVE_EVERY : 1))
        look_up(peer, clcf); /* may answer at once, from what it has */
    if (peer->usable) return NGX_OK;
    if (peer->lookup == NULL) {
        if (!able)
            ngx_log_error(
                NGX_LOG_ERR, ngx_cycle->log, 0,
                "pdroute: host \"%s\" is a name that was not known when nginx started: give an address, reload, or "
                "set nginx's \"resolver\"",
                peer->host);
        return NGX_ERROR;
    }
    ngx_queue_insert_tail(&peer->waiting, &leg->wait);
    return NGX_AGAIN;
}

ngx_http_pdroute_peer_t *ngx_http_pdroute_peer_get(ngx_http_pdroute_zone_t *zone, uint32_t endpoint, const char *host,
                                                   uint32_t port, ngx_uint_t tls)
{
    ngx_http_pdroute_peer_t *peer;
    ngx_uint_t brackets;

    if (endpoint >= zone->config.max_endpoints) return NULL;
    peer = zone->peers[endpoint];
    if (peer == NULL) {
        peer = ngx_pcalloc(ngx_cycle->pool, sizeof(*peer));
        if (peer == NULL) return NULL;
        ngx_queue_init(&peer->idle);
        ngx_queue_init(&peer->waiting);
        zone->peers[endpoint] = peer;
    }
    if (peer->port == port && peer->tls == tls && ngx_strcmp(peer->host, host) == 0) return peer;
    if (peer->lookup) ngx_resolve_name_done(peer->lookup);
    peer->lookup = NULL;
    peer->usable = 0;
    wake_waiting(peer);                /* for an endpoint that is gone: they fail */
    ngx_http_pdroute_peer_flush(peer); /* the slot has another endpoint now, or it moved */
    peer->generation++;
    peer->port = port;
    peer->tls = (uint32_t)tls;
    ngx_cpystrn((u_char *)peer->host, (u_char *)host, sizeof(peer->host));
    brackets = ngx_strchr(peer->host, ':') != NULL;
    peer->name.data = peer->name_text;
    peer->name.len = (size_t)(ngx_snprintf(peer->name_text, sizeof(peer->name_text), brackets ? "[%s]:%uD" : "%s:%uD",
                                           peer->host, port) -
                              peer->name_text);
    first_address(zone, peer);
    return peer;
}

/* ------------------------------------------------------------------------------------------------- kept connections */

static void ignore(ngx_event_t *ev)
{
    (void)ev;
}

static void forget(ngx_http_pdroute_idle_t *idle)
{
    ngx_queue_remove(&idle->queue);
    ngx_queue_remove(&idle->age);
    idle->peer->idle_n--;
}

/* Anything that happens to a kept connection ends it: closed by the worker, or nginx exits. */
static void idle_handler(ngx_event_t *ev)
{
    ngx_connection_t *c = ev->data;
    ngx_http_pdroute_idle_t *idle = c->data;
    char byte;

    if (!c->close && recv(c->fd, &byte, 1, MSG_PEEK) == -1 && ngx_socket_errno == NGX_EAGAIN) {
        ev->ready = 0;
        if (ngx_handle_read_event(ev, 0) == NGX_OK) return;
    }
    forget(idle);
    ngx_http_pdroute_peer_close(c);
}

void ngx_http_pdroute_peer_expire(ngx_http_pdroute_zone_t *zone)
{
    ngx_http_pdroute_idle_t *idle;

    while (!ngx_queue_empty(&zone->idle)) {
        idle = ngx_queue_data(ngx_queue_last(&zone->idle), ngx_http_pdroute_idle_t, age);
        if ((ngx_msec_int_t)(ngx_current_msec - idle->since) < (ngx_msec_int_t)zone->keepalive_timeout) return;
        forget(idle);
        ngx_http_pdroute_peer_close(idle->c);
    }
}

void ngx_http_pdroute_peer_close(ngx_connection_t *c)
{
    ngx_pool_t *pool = c->pool;
#if (NGX_SSL)
    ngx_http_pdroute_tls_close(c);
#endif
    ngx_close_connection(c);
    if (pool) ngx_destroy_pool(pool);
}

void ngx_http_pdroute_peer_flush(ngx_http_pdroute_peer_t *peer)
{
    ngx_http_pdroute_idle_t *idle;

    while (!ngx_queue_empty(&peer->idle)) {
        idle = ngx_queue_data(ngx_queue_head(&peer->idle), ngx_http_pdroute_idle_t, queue);
        forget(idle);
        ngx_http_pdroute_peer_close(idle->c);
    }
}

ngx_connection_t *ngx_http_pdroute_peer_take(ngx_http_pdroute_peer_t *peer, ngx_http_pdroute_idle_t **idle)
{
    ngx_connection_t *c;

    if (ngx_queue_empty(&peer->idle)) return NULL;
    *idle = ngx_queue_data(ngx_queue_head(&peer->idle), ngx_http_pdroute_idle_t, queue);
    forget(*idle);
    c = (*idle)->c;
    c->idle = 0;
    c->sent = 0;
    return c;
}

void ngx_http_pdroute_peer_keep(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_idle_t *idle)
{
    ngx_connection_t *c = idle->c;
    ngx_http_pdroute_peer_t *peer = idle->peer;

    if (ngx_exiting || ngx_terminate || idle->generation != peer->generation || peer->idle_n >= zone->keepalive ||
        c->read->eof || c->read->error || c->write->error || ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_pdroute_peer_close(c);
        return;
    }
    if (c->write->timer_set) ngx_del_timer(c->write);
    c->data = idle;
    c->idle = 1; /* closed when the worker exits gracefully */
    c->read->delayed = 0;
    c->read->handler = idle_handler;
    c->write->handler = ignore;
    c->log = c->pool->log = c->read->log = c->write->log = ngx_cycle->log;
    ngx_queue_insert_head(&peer->idle, &idle->queue);
    peer->idle_n++;
    idle->since = ngx_current_msec;
    ngx_queue_insert_head(&zone->idle, &idle->age);
    if (c->read->ready) idle_handler(c->read);
}

/* The connection that was kept longest, to whatever worker, makes room for another. */
static ngx_uint_t close_oldest(ngx_http_pdroute_zone_t *zone)
{
    ngx_http_pdroute_idle_t *idle;

    if (ngx_queue_empty(&zone->idle)) return 0;
    idle = ngx_queue_data(ngx_queue_last(&zone->idle), ngx_http_pdroute_idle_t, age);
    forget(idle);
    ngx_http_pdroute_peer_close(idle->c);
    return 1;
}

ngx_int_t ngx_http_pdroute_peer_connect(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer,
                                        ngx_connection_t **out, ngx_http_pdroute_idle_t **idle)
{
    ngx_peer_connection_t pc;
    ngx_connection_t *c;
    ngx_int_t rc;

    ngx_memzero(&pc, sizeof(pc));
    pc.sockaddr = &peer->sockaddr.sockaddr;
    pc.socklen = peer->socklen;
    pc.name = &peer->name;
    pc.get = ngx_event_get_peer;
    pc.log = ngx_cycle->log;
    pc.log_error = NGX_ERROR_ERR;
    do rc = ngx_event_connect_peer(&pc);
    while (rc == NGX_ERROR && pc.connection == NULL && close_oldest(zone));
    c = pc.connection;
    if (rc != NGX_OK && rc != NGX_AGAIN) { /* no connection: socket() failed, or worker_connections are used up */
        if (c) ngx_close_connection(c);
        return rc == NGX_ERROR && c == NULL ? NGX_ERROR : NGX_DECLINED;
    }
    c->pool = ngx_create_pool(256, ngx_cycle->log);
    *idle = c->pool ? ngx_palloc(c->pool, sizeof(**idle)) : NULL;
    if (*idle == NULL) {
        ngx_http_pdroute_peer_close(c);
        return NGX_ERROR;
    }
    (*idle)->c = c;
    (*idle)->peer = peer;
    (*idle)->generation = peer->generation;
    c->sendfile = 0;
    (void)ngx_tcp_nodelay(c);
    *out = c;
    return rc;
}
