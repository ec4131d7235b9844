/*
 * pdroute-extproc: an endpoint picker for Envoy's ext_proc filter that routes to prefill and decode servers. Shared declarations.
 *
 *   main.c     options, the block, threads, signals
 *   worker.c   one thread: event loop, its lease, timers, and what connects them
 *   grpc.c     gRPC over HTTP/2                         wire.c  the protobuf wire format
 *   message.c  Envoy's messages, read                   reply.c the same, written
 *   call.c     the conversation about one request: request.c, response.c (decode's, by Envoy), dispatch.c (the gate's actions), own_leg.c
 *   leg.c      requests of our own to workers: peer.c, http1.c (connections of our own), curl.c (TLS, names)
 *   local.c    paths the gateway answers itself         health.c  grpc.health.v1
 *   scrape.c   the metrics port                         ../gate   what every gateway does
 *
 * The decode leg of a pair is Envoy's: it is sent by answering Envoy's questions about the request with a destination and the changed body.
 * The prefill leg is sent from here. Envoy is answered when prefill's connection stands, so that a server that refuses costs nothing.
 */
#ifndef PDR_EXTPROC_H
#define PDR_EXTPROC_H

#include <curl/curl.h>

#include "../gate/gate.h"
#include "grpc.h"
#include "../gate/subset.h"
#include "../gate/wire.h"

typedef struct call call;
typedef struct worker worker;
typedef struct peer peer;
typedef struct peers peers;

/* ----------------------------------------------------------------------------------------------------------- options */

enum { DISPATCH_SEND = 0 /* the prefill leg is sent from here */, DISPATCH_MIRROR = 1 /* by Envoy's request_mirror_policies */,
       DISPATCH_BOTH = 2 /* both legs are sent from here */ };

typedef struct options {
    const char *config_file, *block, *pool_name, *pool_namespace, *host;
    unsigned grpc_port, health_port, metrics_port, threads;
    unsigned dispatch;
    unsigned connect_timeout_ms;
    unsigned body_timeout_ms; /* for a request's whole body */
    int echo;     /* decides nothing: sends bodies back, for measuring */
    int metadata; /* tell Envoy's access log what was decided */
    int take_over; /* a further attempt, when Envoy has sent the first, is made from here */
    int probe;
    int recreate;
    int check;
} options;

#define HEADER_DESTINATION "x-gateway-destination-endpoint"
#define HEADER_PREFILL     "x-pdroute-prefill" /* dispatch mirror */
#define SERVED_SPACE       "envoy.lb"
#define SERVED_KEY         "x-gateway-destination-endpoint-served" /* ip:port: which server the data plane used */
#define HEADER_LENGTH      "x-pdroute-content-length"

/* ---------------------------------------------------------------------------------------------------------- messages */

enum { MESSAGE_REQUEST_HEADERS = 2, MESSAGE_RESPONSE_HEADERS = 3, MESSAGE_REQUEST_BODY = 4, MESSAGE_RESPONSE_BODY = 5,
       MESSAGE_REQUEST_TRAILERS = 6, MESSAGE_RESPONSE_TRAILERS = 7 };
enum { BODY_NONE = 0, BODY_STREAMED = 1, BODY_BUFFERED = 2, BODY_BUFFERED_PARTIAL = 3, BODY_FULL_DUPLEX = 4 };

/* One ProcessingRequest. Views into the message. */
typedef struct message {
    uint32_t kind;          /* MESSAGE_* */
    view headers;           /* HeaderMap of headers and trailers */
    view body;
    int end;                /* end_of_stream */
    view metadata;          /* metadata_context */
    view attributes;        /* the one attribute that is asked for: response.code_details */
    int response_body_mode; /* BODY_*, -1: not said; in the first message */
    int request_body_mode;
} message;

int message_read(view in, message *out); /* 0, or -1: not such a message */

typedef struct header {
    view name, value;
} header;
int header_next(view *headers, header *out); /* 1, 0 at the end, -1 */

/* Text values in metadata[space][key]: one string, or a list of them; calls `each` for every one. 1: the key is there. */
int metadata_strings(view metadata, const char *space, const char *key, void (*each)(void *context, view text), void *context);

/* -------------------------------------------------------------------------------------------------------------- legs */

enum { LEG_IDLE = 0, LEG_CONNECT, LEG_OPEN /* sending, or reading the answer */, LEG_DONE };

/* One request from here to one worker. */
typedef struct leg {
    call *c;
    uint32_t which, attempt;
    int state;
    peer *peer;      /* that carries it, NULL: none, or libcurl does */
    CURL *easy;
    struct curl_slist *headers; /* for libcurl */
    bytes head_out;  /* for a peer: the request's head */
    bytes tail;
    uint64_t length; /* of the body */
    pdr_slice slices[PDR_MAX_SLICES];
    size_t slices_n, slice, slice_pos;
    struct leg *dirty_next;
    /* of the answer */
    unsigned status;
    uint64_t retry_after_ms;
    bytes lines;     /* the answer's header lines: name, colon, value, line end */
    bytes collected; /* of its body: what may go to the client */
    size_t fed;      /* bytes of that which the call's reader has seen */
    uint32_t failed; /* PDR_FAIL_* */
    unsigned dirty : 1;
    unsigned in_curl : 1;
    unsigned lacks : 1;    /* what this process has not: no fault of the worker's */
    unsigned bodiless : 1; /* the answer has no body: HEAD */
    unsigned connected : 1;
    unsigned head : 1, head_told : 1;
    unsigned body : 1, body_told : 1;
    unsigned complete : 1, ended : 1;
    unsigned relayed : 1; /* its answer is to go to the client */
    unsigned streaming : 1; /* and its head has gone */
    unsigned paused : 1, garbled : 1;
    unsigned sse : 1, json : 1, encoded : 1;
} leg;

int legs_init(worker *w);
void legs_tick(worker *w);
void legs_end(worker *w);
void leg_free(leg *l);
void leg_renew(leg *l); /* as new, but with its buffers and libcurl's handle */
void leg_start(leg *l);
void leg_cancel(leg *l);
void leg_note(leg *l); /* legs_run() is to look at it */
void leg_resume(leg *l); /* it was paused, and what it brought has gone */
int leg_line(view *lines, header *out); /* the next of leg.lines */
/* What happened on legs since it was called last is reported; until there is nothing more. */
void legs_run(worker *w);

/* -------------------------------------------------------------------------------------------------------------- call */

enum { DECODE_IDLE = 0, DECODE_WANTED /* waits for prefill's connection */, DECODE_SENT /* Envoy was told */ };

/* The conversation about one HTTP request. Outlives its stream while its exchange is not over. Recycled by its worker. */
struct call {
    grpc_stream grpc; /* first */
    gate_job job;
    worker *w;
    call *next_free;
    leg legs[2];
    bytes forwarded;            /* header lines that pass, for legs of our own */
    bytes head;                 /* HeaderMap of the request, kept */
    bytes fields;               /* what is in it: request_field, one after the other */
    bytes plain;                /* its path, if it is not written plainly */
    bytes body;                 /* the request's; `body_at` is where it begins */
    size_t body_at;
    bytes tail;                 /* members put into decode's body */
    bytes subset;               /* addresses, each with a comma */
    view path, target, method, content_type; /* into head; target with its query */
    int decode;                 /* DECODE_* */
    int response_body_mode, request_body_mode;
    call *late_next, *late_prev; /* of those whose body is not complete, the oldest first */
    uint64_t late_ns;           /* when it has to be; 0: not in that list */
    unsigned head_seen : 1;
    unsigned renamed : 1;       /* `target` is not what the client wrote */
    unsigned head_only : 1;    /* a request without a body */
    unsigned trailers : 1;     /* the request ended with trailers */
    unsigned started : 1;      /* the request is complete, the gate has it */
    unsigned answered : 1;     /* an answer of our own has ended the conversation */
    unsigned taken_over : 1;   /* decode's request is sent from here as well: it is not the first */
    unsigned subset_given : 1; /* only some endpoints are allowed */
    unsigned response_seen : 1; /* its head */
    unsigned response_held : 1; /* head not let pass yet */
    unsigned response_end : 1;  /* seen */
    unsigned response_sse : 1;
    unsigned response_read : 1; /* `response` is fed */
    unsigned response_head_only : 1;
    unsigned response_failed : 1; /* not 2xx, or Envoy's own */
    unsigned response_masked : 1; /* an error: held back until it is whole, since it may tell what is nobody's business */
    unsigned response_body_told : 1;
    unsigned tell : 1;          /* what was decided changed since Envoy's log was told: with the next piece */
    unsigned over : 1;          /* the stream is closed */
    unsigned gone : 1;          /* the client left before its answer was complete */
    unsigned response_status;
    unsigned locks; /* handlers that use it right now */
    uint64_t retry_after_ms;
    bytes held_body;            /* response body that came before its head was let pass */
    pdr_response response;
    char names[2][272];         /* of the servers of the present pair, address:port */
    char destination[128];      /* that Envoy was told for decode */
};

grpc_stream *call_open(grpc_loop *loop);
void call_message(grpc_stream *s, view message);
void call_half_closed(grpc_stream *s);
void call_closed(grpc_stream *s);
void call_drained(grpc_stream *s);
extern const gate_ops call_ops;
/* A leg of our own: something changed. */
void call_leg_event(leg *l);
/* Frees or recycles it if nobody needs it any more. 1: gone. */
int call_release(call *c);
void call_free(call *c);
view call_body(const call *c);
/* As it is, without content; of a large one not the memory. */
bytes bytes_emptied(bytes b);

/* A header of the request. */
typedef struct request_field {
    view name, value;
    int stays; /* here: it does not go to the workers */
} request_field;

const request_field *call_fields(const call *c, size_t *n);

/* ------------------------------------------------------------------------------------------------------------ replies */

/* Lets the request go to its destination: headers, the rewritten body, trailers. */
void reply_request(call *c, const char *destination, const char *prefill);
void reply_echo(call *c);
/* Lets the answer's head pass. */
void reply_response_headers(call *c);
void reply_body(call *c, int response, view body, int end);
void reply_body_unchanged(call *c); /* a piece of the answer, in modes where pieces are not sent back */
void reply_response_trailers(call *c);
/* The answer of a leg of our own, as a stream: in place of an answer that was not begun, or of one whose head was. */
void reply_leg_headers(call *c, const leg *l, int end);
void reply_leg_body(call *c, view body, int end);
/* An answer of our own. */
void reply_immediate(call *c, unsigned status, const char *content_type, uint64_t retry_after_ms, const char *extra_name,
                     const char *extra_value, view body);

/* ------------------------------------------------------------------------------------------------------------- worker */

struct worker {
    grpc_loop loop;
    gate gate;
    const options *options;
    peers *peers;
    CURLM *multi;
    uv_timer_t multi_timer, tick;
    uv_poll_t *wake;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_async_t accept; /* sockets in `inbox`, or to stop */
    int wake_fd;
    int multi_kick;    /* something was added */
    int in_multi;
    unsigned in_curl;  /* legs that libcurl has */
    struct watch *watches_free, *watches_used; /* for its sockets */
    unsigned watches;  /* all there are */
    leg *dirty;
    call *free_calls;
    unsigned free_calls_n, calls;
    call *late, *late_last; /* bodies that are awaited */
    uv_mutex_t lock;
    int inbox[64];
    unsigned inbox_n;
    int stop_asked; /* under `lock` */
    int stopping;
    uv_thread_t thread;
    unsigned index;
    /* for the metrics port; written by this thread only */
    uint64_t requests, answers[6], held, served_elsewhere;
};

int worker_init(worker *w, const options *o, gate_block *block, unsigned index, pdr_error *err);
void worker_run(void *worker_);
void worker_give(worker *w, int fd); /* [any thread] */
void worker_stop(worker *w);         /* [any thread]: finishes what is under way, then its thread ends */
void worker_end(worker *w);

/* 1: it was answered here. */
int local_answer(call *c);

extern const grpc_service services[];
grpc_stream *health_open(grpc_loop *loop);
void health_message(grpc_stream *s, view message);
void health_half_closed(grpc_stream *s);
void health_closed(grpc_stream *s);

/* The metrics port: runs on the main thread's loop. */
int scrape_listen(uv_loop_t *loop, const char *host, unsigned port, worker *workers, unsigned n, gate_block *block, const options *o);

#endif
