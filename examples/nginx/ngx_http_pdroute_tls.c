/*
 * TLS to workers (scheme https): the handshake of a leg's connection, with nginx's own functions. The worker's
 * certificate is verified against its host name or address, with the system's authorities or those of tls_ca=.
 */
#include "ngx_http_pdroute.h"

#if (NGX_SSL)

ngx_int_t ngx_http_pdroute_tls_open(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone)
{
    ngx_ssl_t *ssl = ngx_pcalloc(cf->pool, sizeof(*ssl));
    ngx_pool_cleanup_t *cln = ngx_pool_cleanup_add(cf->pool, 0);

    if (ssl == NULL || cln == NULL) return NGX_ERROR;
    ssl->log = cf->log;
    if (ngx_ssl_create(ssl, NGX_SSL_TLSv1_2 | NGX_SSL_TLSv1_3, NULL) != NGX_OK) return NGX_ERROR;
    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;
    zone->ssl = ssl;
    if (zone->tls_insecure) return NGX_OK;
    SSL_CTX_set_verify(ssl->ctx, SSL_VERIFY_PEER, NULL);
    if (zone->tls_ca.len == 0) {
        (void)SSL_CTX_set_default_verify_paths(ssl->ctx);
        return NGX_OK;
    }
    if (SSL_CTX_load_verify_locations(ssl->ctx, (char *)zone->tls_ca.data, NULL) != 1) {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0, "pdroute_zone \"%V\": cannot load the authorities in \"%V\"",
                      &zone->name, &zone->tls_ca);
        return NGX_ERROR;
    }
    return NGX_OK;
}

/* Who the certificate has to be of. */
static ngx_int_t expect(ngx_http_pdroute_zone_t *zone, SSL *ssl, char *host)
{
    struct in6_addr address;

    if (inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1)
        return zone->tls_insecure || X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1 ? NGX_OK : NGX_ERROR;
    if (SSL_set_tlsext_host_name(ssl, host) != 1) return NGX_ERROR;
    return zone->tls_insecure || SSL_set1_host(ssl, host) == 1 ? NGX_OK : NGX_ERROR;
}

ngx_int_t ngx_http_pdroute_tls_begin(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer, ngx_connection_t *c,
                                     ngx_connection_handler_pt done)
{
    ngx_int_t rc;

    if (ngx_ssl_create_connection(zone->ssl, c, NGX_SSL_CLIENT) != NGX_OK) return NGX_ERROR;
    if (expect(zone, c->ssl->connection, peer->host) != NGX_OK) return NGX_ERROR;
    rc = ngx_ssl_handshake(c);
    if (rc == NGX_AGAIN) c->ssl->handler = done;
    return rc;
}

void ngx_http_pdroute_tls_close(ngx_connection_t *c)
{
    if (c->ssl == NULL) return;
    c->ssl->no_wait_shutdown = 1;
    (void)ngx_ssl_shutdown(c);
}

#endif
