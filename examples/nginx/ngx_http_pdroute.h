/*
 * nginx module for libpdroute: shared declarations.
 *
 *   ngx_http_pdroute_module.c   directives, configuration, life of the worker process
 *   ngx_http_pdroute_zone.c     one router block as this process uses it: lease, ticks, wake-ups
 *   ngx_http_pdroute_handler.c  the way of a request: body, scan, decision, held requests, answers of our own
 *   ngx_http_pdroute_job.c      the exchange: events in, actions out
 *   ngx_http_pdroute_request.c  the bytes of a leg's request: head and spliced body
 *   ngx_http_pdroute_leg.c      one HTTP exchange with one worker: connect, send, read the head, drain
 *   ngx_http_pdroute_http.c     response heads and chunked framing
 *   ngx_http_pdroute_peer.c     addresses of workers, one keep-alive pool for each
 *   ngx_http_pdroute_upstream.c a leg's answer on its way to the client: an ngx_http_upstream_t
 *   ngx_http_pdroute_merge.c    prompt logprobs from prefill's answer into decode's
 *   ngx_http_pdroute_whole.c    a whole short answer on its way to the client: without one
 *   ngx_http_pdroute_tls.c      TLS to workers
 *   ngx_http_pdroute_guard.c    a block file that is truncated under a running nginx
 *   ngx_http_pdroute_error.c    nginx's own errors as JSON
 *   ngx_http_pdroute_fan.c      control requests, which go to every worker
 *   ngx_http_pdroute_local.c    paths the gateway answers itself: readiness, status
 *   ngx_http_pdroute_vars.c     $pdroute_* variables
 *
 * The module decides nothing: pdr_route_prompt() chooses, pdr_exchange_*() says what to do when something happens.
 */
#ifndef NGX_HTTP_PDROUTE_H
#define NGX_HTTP_PDROUTE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>
#include <ngx_http.h>

#include "pdroute/pdroute.h"
#include "pdroute/host.h"

extern ngx_module_t ngx_http_pdroute_module;

/* Calls between the module's files need no detour through the dynamic linker; nginx itself asks for other symbols. */
#pragma GCC visibility push(hidden)

typedef struct ngx_http_pdroute_zone_s ngx_http_pdroute_zone_t;
typedef struct ngx_http_pdroute_peer_s ngx_http_pdroute_peer_t;
typedef struct ngx_http_pdroute_idle_s ngx_http_pdroute_idle_t;
typedef struct ngx_http_pdroute_job_s ngx_http_pdroute_job_t;
typedef struct ngx_http_pdroute_leg_s ngx_http_pdroute_leg_t;
typedef struct ngx_http_pdroute_arm_s ngx_http_pdroute_arm_t;
typedef struct ngx_http_pdroute_merge_s ngx_http_pdroute_merge_t;

/* nginx's macro is several statements. */
static inline void ngx_http_pdroute_unpost(ngx_event_t *ev)
{
    if (ev->posted) {
        ngx_delete_posted_event(ev);
    }
}

#define PDROUTE_LOST "the gateway's block file is damaged; it is being replaced, or nginx must be reloaded"

/* ---------------------------------------------------------------------------------------------------- configuration */

/* One router block: what the configuration says, and this process's use of it. */
struct ngx_http_pdroute_zone_s {
    ngx_str_t name;
    ngx_str_t file;        /* path of the block */
    ngx_str_t config_file; /* JSON: pdr_config and endpoints */
    ngx_str_t config_text;
    ngx_str_t conf_file;   /* nginx's own, where the zone stands */
    ngx_uint_t conf_line;
    size_t most;           /* size=: bytes that the block may take, 0: as many as it needs */
    ngx_uint_t recreate;
    pdr_config config; /* resolved */
    pdr_limits limits;
    pdr_host *host; /* mapped by the master, used by all workers */
    pdr_router *router;
    ngx_uint_t directory_made;    /* the block's directory was not there before */
    ngx_str_t tls_ca;             /* PEM; empty: the system's authorities */
    ngx_uint_t tls_insecure;      /* certificates of workers are not verified */
    ngx_ssl_t *ssl;

    /* of this worker process */
    pdr_host_lease lease;
    ngx_uint_t leased;               /* 1: lease is open */
    ngx_uint_t lost;                 /* 1: the block file was truncated, and there is no other yet */
    ngx_uint_t moved;                /* 1: another block since the last tick; held requests have tickets of the old one */
    time_t follow_refused;           /* when the log was last told why */
    time_t lease_refused;            /* when the log was last told that there is none to be had */
    ngx_connection_t *wake;          /* lease.wake_fd in the event loop */
    ngx_event_t tick;                /* every 100 ms */
    ngx_queue_t idle;                /* all kept connections, the one kept longest last */
    ngx_queue_t young;               /* jobs since the last tick: most are over before they need a timer */
    ngx_http_pdroute_peer_t **peers; /* by endpoint id, max_endpoints of them */
    ngx_rbtree_t held;               /* jobs by ticket */
    ngx_rbtree_node_t held_sentinel;
    ngx_queue_t free_jobs;
    ngx_uint_t free_jobs_n;
    ngx_array_t names; /* ngx_http_pdroute_name_t: what was known when the configuration was read */
    uint64_t *hashes;     /* scratch of config.max_blocks for one scan */
    ngx_uint_t keepalive; /* idle connections per worker address */
    ngx_msec_t keepalive_timeout;
};

typedef struct {
    ngx_array_t zones; /* ngx_http_pdroute_zone_t * */
} ngx_http_pdroute_main_conf_t;

typedef struct {
    ngx_str_t zone_name;
    ngx_str_t status_name;
    u_char *conf_file; /* where `pdroute` was written, for messages */
    ngx_uint_t conf_line;
    ngx_http_pdroute_zone_t *zone;
    ngx_http_pdroute_zone_t *status;
    ngx_msec_t body_timeout; /* for the whole of the client's body, 0: none */
    ngx_msec_t connect_timeout;
    ngx_msec_t send_timeout; /* between two writes */
    ngx_msec_t read_timeout; /* between two reads of an answer that has begun */
    size_t buffer_size;
    ngx_uint_t json_errors; /* of this location; of a server without location: it has one with `pdroute` */
    ngx_http_upstream_conf_t upstream; /* of the relay */
} ngx_http_pdroute_loc_conf_t;

/* ------------------------------------------------------------------------------------------------------------ peers */

/*
 * A worker's address as this process knows it. Lives as long as the process; replaced in place when the endpoint moves.
 */
struct ngx_http_pdroute_peer_s {
    uint32_t generation; /* counts address changes: connections of older ones are not kept */
    uint32_t port;
    uint32_t tls;      /* of its kept connections; changes with the address */
    ngx_uint_t usable; /* sockaddr is set */
    ngx_str_t name;    /* "host:port", for logs and the Host header */
    ngx_sockaddr_t sockaddr;
    socklen_t socklen;
    time_t resolved;  /* when a name was last resolved, 0: host is an address, or a name not looked up yet */
    ngx_uint_t named; /* host is a name */
    ngx_resolver_ctx_t *lookup;
    ngx_queue_t waiting; /* legs */
    ngx_queue_t idle; /* ngx_http_pdroute_idle_t, most recent first */
    ngx_uint_t idle_n;
    char host[256];
    u_char name_text[272];
};

/* A connection between two requests; allocated in its pool, once. */
struct ngx_http_pdroute_idle_s {
    ngx_queue_t queue; /* of the peer */
    ngx_queue_t age;   /* of the zone */
    ngx_msec_t since;
    ngx_connection_t *c;
    ngx_http_pdroute_peer_t *peer;
    uint32_t generation;
    uint32_t tls;
};

typedef struct {
    ngx_str_t host; /* ends with a zero */
    ngx_sockaddr_t sockaddr;
    socklen_t socklen;
} ngx_http_pdroute_name_t;

/* The peer of an endpoint, made or moved as needed; NULL: out of memory. usable 0: its name does not resolve. */
ngx_http_pdroute_peer_t *ngx_http_pdroute_peer_get(ngx_http_pdroute_zone_t *zone, uint32_t endpoint, const char *host,
                                                   uint32_t port, ngx_uint_t tls);
/*
 * Before a leg uses a peer whose host is a name: NGX_OK, NGX_AGAIN (the leg was put into peer->waiting), NGX_ERROR. An
 * address that is known is used while a newer one is looked up.
 */
ngx_int_t ngx_http_pdroute_peer_resolve(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer,
                                        ngx_http_pdroute_leg_t *leg);
/* While the configuration is read, when waiting for a name server harms nobody. */
ngx_int_t ngx_http_pdroute_peer_names(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone);
/* A kept connection, or NULL. */
ngx_connection_t *ngx_http_pdroute_peer_take(ngx_http_pdroute_peer_t *peer, ngx_http_pdroute_idle_t **idle);
/* Opens a connection: NGX_OK, NGX_AGAIN (in progress), NGX_DECLINED (refused), NGX_ERROR (this process lacks a
 * descriptor, a connection or memory). */
ngx_int_t ngx_http_pdroute_peer_connect(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer,
                                        ngx_connection_t **c, ngx_http_pdroute_idle_t **idle);
/* Keeps a connection for the next request, or closes it. */
void ngx_http_pdroute_peer_keep(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_idle_t *idle);
void ngx_http_pdroute_peer_close(ngx_connection_t *c);
#if (NGX_SSL)
ngx_int_t ngx_http_pdroute_tls_open(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone);
/* NGX_OK, NGX_AGAIN (`done` is called from the event loop), NGX_ERROR. */
ngx_int_t ngx_http_pdroute_tls_begin(ngx_http_pdroute_zone_t *zone, ngx_http_pdroute_peer_t *peer, ngx_connection_t *c,
                                     ngx_connection_handler_pt done);
void ngx_http_pdroute_tls_close(ngx_connection_t *c);
#endif

/* Closes what was kept for longer than keepalive_timeout. */
void ngx_http_pdroute_peer_expire(ngx_http_pdroute_zone_t *zone);
/* Closes what is kept: the worker was restarted. */
void ngx_http_pdroute_peer_flush(ngx_http_pdroute_peer_t *peer);

/* ------------------------------------------------------------------------------------------------------------- HTTP */

/* Chunked framing, read incrementally. */
typedef struct {
    ngx_uint_t state;
    uint64_t size; /* of the present chunk, still to come */
} ngx_http_pdroute_chunked_t;

/*
 * The next piece of content in [*pos, last): NGX_OK with *begin and *end, NGX_AGAIN when more is needed, NGX_DONE after
 * the last chunk and trailers, NGX_ERROR. Moves *pos.
 */
ngx_int_t ngx_http_pdroute_chunked_next(ngx_http_pdroute_chunked_t *ch, u_char **pos, u_char *last, u_char **begin,
                                        u_char **end);

/* What a response head says about status and framing. */
typedef struct {
    ngx_uint_t status;
    int64_t content_length;  /* -1: not said */
    uint64_t retry_after_ms; /* 0: not said */
    size_t length;           /* of the head in bytes, interim heads in front of it included */
    size_t skip;             /* of those interim heads */
    unsigned chunked : 1;
    unsigned close : 1; /* the connection ends with the answer */
    unsigned event_stream : 1;
    unsigned json : 1;
    unsigned encoded : 1; /* Content-Encoding other than identity */
    unsigned others : 1;  /* has headers that say more than type, length, date, server and connection */
} ngx_http_pdroute_head_t;

/* One header line at *p; moves *p behind it. NGX_OK, NGX_DONE at the empty line, NGX_AGAIN, NGX_ERROR. */
typedef struct {
    u_char *name, *value;
    size_t name_len, value_len;
} ngx_http_pdroute_line_t;
ngx_int_t ngx_http_pdroute_line_next(u_char **p, u_char *last, ngx_http_pdroute_line_t *line);

/* Reads a whole head: NGX_OK, NGX_AGAIN (not complete), NGX_ERROR. Interim (1xx) heads in front are skipped. */
ngx_int_t ngx_http_pdroute_head_parse(u_char *p, u_char *last, ngx_http_pdroute_head_t *head);

/* ------------------------------------------------------------------------------------------------------------- legs */

enum {
    PDROUTE_LEG_IDLE = 0,
    PDROUTE_LEG_RESOLVE, /* its worker's name is being looked up */
    PDROUTE_LEG_CONNECT, /* connecting */
    PDROUTE_LEG_TLS,     /* handshake */
    PDROUTE_LEG_HEAD,    /* sending, or waiting for the response head */
    PDROUTE_LEG_WAIT,    /* head (and perhaps first bytes) read; the exchange has not said what to do with the body */
    PDROUTE_LEG_DRAIN,   /* body is read and thrown away */
    PDROUTE_LEG_RELAY,   /* body goes to the client: the connection is in the hands of ngx_http_upstream_t */
    PDROUTE_LEG_FLUSH,   /* answered early: the rest of the request is still sent, so that the connection can be kept */
    PDROUTE_LEG_DONE     /* closed or given back */
};

/* One request to one worker and its answer. */
struct ngx_http_pdroute_leg_s {
    ngx_http_pdroute_job_t *job;
    uint32_t which; /* PDR_LEG_* */
    uint32_t attempt;
    ngx_uint_t state;
    ngx_http_pdroute_peer_t *peer;
    ngx_http_pdroute_idle_t *idle; /* the connection's own record, its place in the pool later */
    ngx_connection_t *c;
    ngx_chain_t *out; /* of the request: not sent yet */
    u_char *own_out;  /* copy of what was not sent when the client's request ended */
    ngx_chain_t own_link; /* of what does not need the client's request: that copy, or a small request */
    ngx_buf_t own_buf;
    u_char *read; /* head and first body bytes, until it is known what to do with them */
    size_t read_len;
    ngx_queue_t wait;   /* of the peer, while its name is looked up */
    ngx_msec_t started; /* when it was asked for */
    uint32_t serial;    /* counts starts and ends: what a handler began with may be gone after an event */
    ngx_http_pdroute_head_t head;
    int64_t rest; /* content still to come with Content-Length; -1: until close */
    ngx_http_pdroute_chunked_t chunked;
    ngx_recv_pt recv;                   /* the connection's own, while relaying */
    ngx_event_handler_pt relay_handler; /* the upstream code's */
    ngx_msec_t last_byte;  /* relay: when content of the answer came last */
    ngx_msec_t longest_gap; /* and the longest time between two */
    ngx_event_t failed; /* reports a broken relay from the event loop, not from inside nginx's handlers */
    uint32_t fail_detail;
    unsigned read_owned : 1; /* `read` is malloc'ed; else it is the process's scratch, for this call */
    unsigned cached : 1;     /* connection came from the pool */
    unsigned received : 1;   /* at least one byte */
    unsigned body_seen : 1;  /* PDR_EV_BODY was reported */
    unsigned complete : 1;   /* answer was read to its end */
    unsigned keepalive : 1;
    unsigned broken : 1;     /* nothing more can be sent: what has come is read, and is not followed by another request */
    unsigned read_usage : 1; /* feed the body to `response` */
    unsigned drain : 1;      /* DRAIN was asked for before there was a head */
    unsigned preread : 1;    /* relay: u->buffer has `read_len` bytes already */
    unsigned masks : 1;      /* relay: error events in it are masked */
    unsigned withheld : 1;   /* a refusal to be relayed as soon as all of it is there */
    pdr_response response;   /* last: not cleared with the rest */
};

/* Its worker's name was looked up, see peer->usable. */
void ngx_http_pdroute_leg_resolved(ngx_http_pdroute_leg_t *leg);
/* Connects and sends; failures are reported to the exchange, also at once. */
void ngx_http_pdroute_leg_start(ngx_http_pdroute_leg_t *leg);
/* Ends a leg at once, without reporting anything. */
void ngx_http_pdroute_leg_cancel(ngx_http_pdroute_leg_t *leg);
/* From now on read and throw away. */
void ngx_http_pdroute_leg_drain(ngx_http_pdroute_leg_t *leg);
/* The client's request (and its memory) goes away while the leg stays. NGX_ERROR: out of memory. */
ngx_int_t ngx_http_pdroute_leg_detach(ngx_http_pdroute_leg_t *leg);
/* Takes note of answer bytes without framing: usage and PDR_EV_BODY. */
void ngx_http_pdroute_leg_content(ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end);
/* The answer is complete: reports it. `clean`: nothing but the answer was on the connection. */
void ngx_http_pdroute_leg_complete(ngx_http_pdroute_leg_t *leg, ngx_uint_t clean);
/* Of a 4xx answer there is a part only. */
ngx_uint_t ngx_http_pdroute_leg_refuses_in_part(const ngx_http_pdroute_leg_t *leg);
/* Gives the connection back to the pool, or closes it. */
void ngx_http_pdroute_leg_release(ngx_http_pdroute_leg_t *leg);
/* Framing of the body, from the head. 1: there is no body. */
ngx_uint_t ngx_http_pdroute_leg_begin_body(ngx_http_pdroute_leg_t *leg);
/* Ends the leg and reports PDR_EV_FAILED. */
void ngx_http_pdroute_leg_fail(ngx_http_pdroute_leg_t *leg, uint32_t detail);
void ngx_http_pdroute_leg_forget(ngx_http_pdroute_leg_t *leg); /* frees `read` */

/* ------------------------------------------------------------------------------------------------------------- jobs */

#define PDROUTE_JOB_ACTIONS 24 /* three times what one event may bring */

#define PDROUTE_SMALL       4096 /* a request up to this size is sent from one piece of memory */

/*
 * One client request with its exchange and legs. Outlives the request when a leg still has to be drained. Recycled by
 * its zone.
 */
struct ngx_http_pdroute_job_s {
    ngx_queue_t queue; /* of the zone: young, or free */
    ngx_http_pdroute_zone_t *zone;
    ngx_http_pdroute_loc_conf_t *conf;
    ngx_http_request_t *r; /* NULL once the answer is on its way out or the client is gone */
    ngx_str_t body;
    uint64_t *hashes;  /* prompt.blocks of them, in r->pool */
    ngx_str_t headers; /* client's headers that pass, as lines; in r->pool */
    uint32_t api;
    ngx_http_pdroute_leg_t *relay;  /* the leg that answers the client */
    ngx_http_pdroute_leg_t *waiting; /* is to answer it when prefill has ended */
    ngx_http_pdroute_leg_t legs[2]; /* by PDR_LEG_* */
    ngx_event_t timer;
    ngx_rbtree_node_t held; /* key: ticket */
    ngx_uint_t actions_n;
    ngx_http_pdroute_arm_t *arm; /* one worker's part of a control request: there is no exchange, decode's leg is all */
    ngx_uint_t locks;        /* handlers that use the job right now */
    uint32_t attempts;       /* decisions taken */
    uint64_t held_ns;        /* when it was held */
    uint64_t tenant;         /* who pays, 0: nobody in particular */
    uint32_t reason;         /* PDR_ERR_*, when an answer of ours was sent */
    ngx_str_t peer_names[2]; /* for variables; text in peer_text */
    unsigned young : 1;      /* in the zone's list */
    unsigned old : 1;        /* has lived for a tick: has a timer of its own */
    unsigned referenced : 1; /* the request's pool still points here (variables) */
    unsigned begun : 1;      /* exchange is alive */
    unsigned finished : 1;
    unsigned is_held : 1;
    unsigned untaken : 1; /* its ticket may be taken, but the lock was not to be had */
    unsigned was_held : 1;
    unsigned running : 1;      /* actions are being carried out */
    unsigned stopping : 1;     /* the relay ends because we want it to */
    unsigned in_relay : 1;     /* nginx's upstream code is on the stack */
    unsigned decided : 1;      /* `decision` holds a pair */
    unsigned has_body : 1;     /* the client sent a body, perhaps an empty one */
    unsigned raw_body : 1;     /* not a JSON object: nothing to cut out */
    unsigned head_request : 1; /* method HEAD: answers have no body */
    char why[64];              /* name of the error for $pdroute_why */
    ngx_http_pdroute_merge_t *merge; /* both legs' answers make one */
    ngx_str_t held_text;             /* of an error event in a stream that is not whole yet; in r->pool */
    size_t held_cap;
    /* from here on not cleared */
    pdr_prompt prompt;
    pdr_decision decision;
    pdr_exchange exchange;
    pdr_action actions[PDROUTE_JOB_ACTIONS];
    u_char peer_text[2][272];
    u_char small[2][PDROUTE_SMALL];
};

void ngx_http_pdroute_jobs_free(ngx_http_pdroute_zone_t *zone); /* those kept for the next requests, at a worker's end */
ngx_http_pdroute_job_t *ngx_http_pdroute_job_new(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf);
/* Without a part in the request's life: the caller sets job->r to NULL when it is over. */
ngx_http_pdroute_job_t *ngx_http_pdroute_job_make(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf);
/* Between these two a job is not freed. `leave` frees it if nobody needs it any more. */
void ngx_http_pdroute_job_enter(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_job_leave(ngx_http_pdroute_job_t *job);
/* Starts the exchange with job->decision. */
void ngx_http_pdroute_job_begin(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_job_event(ngx_http_pdroute_job_t *job, uint32_t type, ngx_http_pdroute_leg_t *leg,
                                uint32_t detail);
/* This process cannot serve the request, for which no server is to blame: the client gets a 503. */
void ngx_http_pdroute_job_give_up(ngx_http_pdroute_job_t *job, const char *message);
/* The client's request ends: legs keep what they need of it, job->r is NULL afterwards. */
void ngx_http_pdroute_job_detach(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_job_arm(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_job_grown(ngx_http_pdroute_job_t *job);

/* ---------------------------------------------------------------------------------------------------------- handler */

ngx_int_t ngx_http_pdroute_handler(ngx_http_request_t *r);
/* Decides (or decides again) for a job; NULL decision on failure is answered. */
void ngx_http_pdroute_route(ngx_http_pdroute_job_t *job);
int ngx_http_pdroute_decide(ngx_http_pdroute_job_t *job, uint32_t flags, pdr_error *err);
/* A held request may go, or was refused. */
void ngx_http_pdroute_take(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_hold(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_unhold(ngx_http_pdroute_job_t *job);
/* Answers with an OpenAI-shaped error and ends the client's request. */
void ngx_http_pdroute_respond(ngx_http_pdroute_job_t *job, ngx_uint_t status, const char *code, const char *message,
                              uint64_t retry_after_ms);
ngx_int_t ngx_http_pdroute_send(ngx_http_request_t *r, ngx_uint_t status, const char *type, ngx_str_t *body,
                                uint64_t retry_after_ms);
void ngx_http_pdroute_check_client(ngx_http_request_t *r);

/* --------------------------------------------------------------------------------------------- request, relay, rest */

/* The chain of a leg's request, in r->pool or, if small, in the job; NULL: out of memory. */
ngx_chain_t *ngx_http_pdroute_request_chain(ngx_http_pdroute_leg_t *leg);

/* Passes the leg's answer to the client. */
void ngx_http_pdroute_relay(ngx_http_pdroute_leg_t *leg);
/* Whether the answer can take the short way, and that way. */
ngx_uint_t ngx_http_pdroute_is_whole(const ngx_http_pdroute_leg_t *leg);
void ngx_http_pdroute_whole(ngx_http_pdroute_leg_t *leg);
/* Takes the connection back from a relay that is under way; the client's request goes on without it. */
void ngx_http_pdroute_relay_stop(ngx_http_pdroute_leg_t *leg);
/* The answer cannot be completed: error event into a stream, then the client's connection is closed. */
void ngx_http_pdroute_relay_abort(ngx_http_pdroute_job_t *job, ngx_uint_t status, uint32_t reason, const char *message);
ngx_int_t ngx_http_pdroute_relay_conf(ngx_conf_t *cf, ngx_http_pdroute_loc_conf_t *conf,
                                      ngx_http_pdroute_loc_conf_t *prev);

/* Gives [begin, end) to the client. `own`: it is a block of r->pool, to be freed when it was sent. */
ngx_int_t ngx_http_pdroute_relay_pass(ngx_http_request_t *r, u_char *begin, u_char *end, ngx_uint_t own);

/* In place of both, for the next piece of a stream that was fed to leg->response: error events are masked. */
ngx_int_t ngx_http_pdroute_mask_pass(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end,
                                     ngx_uint_t last);

/* Before the legs are sent: whether this request's answer takes both. */
void ngx_http_pdroute_merge_prepare(ngx_http_pdroute_job_t *job);
void ngx_http_pdroute_merge_free(ngx_http_pdroute_job_t *job);
/* Content of a leg that is drained. */
void ngx_http_pdroute_merge_keep(ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end);
/* 1: prefill's answer is still to come, so this leg is not relayed yet. */
ngx_uint_t ngx_http_pdroute_merge_waits(ngx_http_pdroute_leg_t *leg);
/* In place of relay_pass(); `last`: the answer is complete. */
ngx_int_t ngx_http_pdroute_merge_pass(ngx_http_request_t *r, ngx_http_pdroute_leg_t *leg, u_char *begin, u_char *end,
                                      ngx_uint_t last);

ngx_uint_t ngx_http_pdroute_is_control(ngx_http_request_t *r);
/* Sends it to every worker and answers. */
void ngx_http_pdroute_fan(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf, ngx_str_t *body);
void ngx_http_pdroute_fan_event(ngx_http_pdroute_arm_t *arm, uint32_t type, ngx_http_pdroute_leg_t *leg,
                                uint32_t detail);
void ngx_http_pdroute_fan_content(ngx_http_pdroute_arm_t *arm, u_char *begin, u_char *end);

/* NGX_DECLINED: not a path of ours. */
ngx_int_t ngx_http_pdroute_local(ngx_http_request_t *r, ngx_http_pdroute_zone_t *zone);
ngx_int_t ngx_http_pdroute_status_handler(ngx_http_request_t *r);

/* Goes on with what the block's path names now, if that is another file, or the same that has become shorter; zone->lost afterwards. NGX_OK: with another block. */
ngx_int_t ngx_http_pdroute_guard_follow(ngx_http_pdroute_zone_t *zone);

/* Before nginx's own filters. */
void ngx_http_pdroute_error_init(void);

ngx_int_t ngx_http_pdroute_add_variables(ngx_conf_t *cf);

/* Configuration time: reads and checks the JSON; maps the block. */
char *ngx_http_pdroute_zone_load(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone);
/* 1: their blocks are one file, whatever each calls it (links, dots), or will be when it is made. */
ngx_uint_t ngx_http_pdroute_zone_same_file(const ngx_http_pdroute_zone_t *a, const ngx_http_pdroute_zone_t *b);
char *ngx_http_pdroute_zone_agrees(ngx_conf_t *cf, const ngx_http_pdroute_zone_t *zone, const ngx_http_pdroute_zone_t *other);
ngx_int_t ngx_http_pdroute_zone_open(ngx_conf_t *cf, ngx_http_pdroute_zone_t *zone);
/* Of a worker process. */
ngx_int_t ngx_http_pdroute_zone_start(ngx_http_pdroute_zone_t *zone, ngx_cycle_t *cycle);
void ngx_http_pdroute_zone_stop(ngx_http_pdroute_zone_t *zone);
/* Uses this block from now on; what was found in the configuration is applied to it first. NGX_ERROR: it is not to be had. */
ngx_int_t ngx_http_pdroute_zone_switch(ngx_http_pdroute_zone_t *zone, pdr_host *next);
uint32_t ngx_http_pdroute_zone_flags(const ngx_http_pdroute_zone_t *zone);
/* The lease ended while this process was stopped: opens a new one. */
ngx_int_t ngx_http_pdroute_zone_renew(ngx_http_pdroute_zone_t *zone);

#pragma GCC visibility pop

#endif
