/*
 * The prober's HTTP client: GET requests on libcurl's multi interface, driven by one epoll descriptor, so that a step costs what happens in it
 * and not what is open. Kept-alive connections are libcurl's. Answers are decompressed and collected up to a limit.
 */
#ifndef PDR_HOST_PROBE_HTTP_H
#define PDR_HOST_PROBE_HTTP_H

#include "sys.h"

typedef struct pdr_http pdr_http;

enum { PDR_GET_OK = 0,      /* a complete answer; status says which */
       PDR_GET_CONNECT = 1, /* no connection: refused, no route, unknown name, TLS */
       PDR_GET_BROKEN = 2,  /* connection lost before the answer was complete */
       PDR_GET_TIMEOUT = 3, /* no complete answer in time */
       PDR_GET_LARGE = 4 }; /* answer longer than the limit */

/* One request that is made again and again; part of its owner. Zeroed at first. */
typedef struct pdr_get {
    void    *easy;    /* private */
    pdr_http *http;   /* private */
    void    *owner;   /* for the caller */
    uint32_t active;
    uint32_t kind;    /* for the caller */
    uint32_t result;  /* PDR_GET_* */
    uint32_t status;
    uint64_t started_ns;
    char    *body;    /* len bytes, valid in the callback */
    size_t   len, cap;
    char     message[256]; /* why, if not PDR_GET_OK */
} pdr_get;

/* Called from pdr_http_step for every request that ended; may start it again. */
typedef void pdr_http_done(void *context, pdr_get *get);

int  pdr_http_new(const pdr_probe_options *options, pdr_http_done *done, void *context, pdr_http **out, pdr_error *err);
void pdr_http_free(pdr_http *h); /* after pdr_get_free of all requests */
int  pdr_http_fd(const pdr_http *h);
/* Starts GET http[s]://host:port/path. PDR_E_INVALID if the host is not one. */
int  pdr_get_start(pdr_http *h, pdr_get *get, const pdr_endpoint *to, const char *path, uint32_t timeout_ms, uint64_t now_ns,
                   pdr_error *err);
void pdr_get_cancel(pdr_get *get);
void pdr_get_free(pdr_get *get);
/* Waits at most timeout_ms for network events and handles them. *done gets the number of requests that ended. */
int  pdr_http_step(pdr_http *h, uint32_t timeout_ms, uint32_t *done, pdr_error *err);
uint32_t pdr_http_active(const pdr_http *h);
uint64_t pdr_http_connections(const pdr_http *h);

#endif
