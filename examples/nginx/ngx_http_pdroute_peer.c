/* Addresses of workers, and one pool of kept connections for each. */
#include "ngx_http_pdroute.h"

#define RESOLVE_EVERY 10 /* seconds between two look-ups of a name */

/* -------------------------------------------------------------------------------------------------------- addresses */

/* An address is taken as it is. A name is looked up by the system's resolver, which blocks: pods have addresses. */
static void resolve(ngx_http_pdroute_peer_t *peer)
{
    struct sockaddr_in *sin = &peer->sockaddr.sockaddr_in;
    struct sockaddr_in6 *sin6 = &peer->sockaddr.sockaddr_in6;
    struct addrinfo hints, *found;

    peer->usable = 0;
    ngx_memzero(&peer->sockaddr, sizeof(peer->sockaddr));
    if (inet_pton(AF_INET, peer->host, &sin->sin_addr) == 1) {
        sin->sin_family = AF_INET;
        peer->socklen = sizeof(*sin);
        peer->resolved = 0;
    } else if (inet_pton(AF_INET6, peer->host, &sin6->sin6_addr) == 1) {
        sin6->sin6_family = AF_INET6;
        peer->socklen = sizeof(*sin6);
        peer->resolved = 0;
    } else {
        peer->resolved = ngx_time();
        ngx_memzero(&hints, sizeof(hints));
        hints.ai_socktype = SOCK_STREAM;
        if (getaddrinfo(peer->host, NULL, &hints, &found) != 0) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "pdroute: host \"%s\" not found", peer->host);
            return;
        }
        ngx_memcpy(&peer->sockaddr, found->ai_addr, found->ai_addrlen);
        peer->socklen = found->ai_addrlen;
        freeaddrinfo(found);
    }
    ngx_inet_set_port(&peer->sockaddr.sockaddr, (in_port_t)peer->port);
    peer->usable = 1;
}

ngx_http_pdroute_peer_t *ngx_http_pdroute_peer_get(ngx_http_pdroute_zone_t *zone, uint32_t endpoint, const char *host,
                                                   uint32_t port)
{
    ngx_http_pdroute_peer_t *peer;
    ngx_uint_t brackets;

    if (endpoint >= zone->config.max_endpoints) return NULL;
    peer = zone->peers[endpoint];
    if (peer == NULL) {
        peer = ngx_pcalloc(ngx_cycle->pool, sizeof(*peer));
        if (peer == NULL) return NULL;
        ngx_queue_init(&peer->idle);
        zone->peers[endpoint] = peer;
    }
    if (peer->port == port && ngx_strcmp(peer->host, host) == 0) {
        if (peer->usable && (peer->resolved == 0 || ngx_time() - peer->resolved < RESOLVE_EVERY)) return peer;
        if (!peer->usable && ngx_time() == peer->resolved) return peer;
    } else {
        ngx_http_pdroute_peer_flush(peer); /* the slot has another endpoint now, or it moved */
        peer->generation++;
        peer->port = port;
        ngx_cpystrn((u_char *)peer->host, (u_char *)host, sizeof(peer->host));
        brackets = ngx_strchr(peer->host, ':') != NULL;
        peer->name.data = peer->name_text;
        peer->name.len = (size_t)(ngx_snprintf(peer->name_text, sizeof(peer->name_text),
                                               brackets ? "[%s]:%uD" : "%s:%uD", peer->host, port) -
                                  peer->name_text);
    }
    resolve(peer);
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
