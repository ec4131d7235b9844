/*
 * libpdroute inside Envoy: a gateway as a dynamic-module HTTP filter. Shared declarations.
 *
 *   module.c   configuration, one gate per Envoy thread, what Envoy calls
 *   legs.c     both legs as streams that the filter starts, and the answer to the client
 *   ../gate    what every gateway does
 *
 * The filter never lets a request pass: it answers. Both legs are streams of its own to an ORIGINAL_DST cluster, so that whatever happens can be answered as the
 * exchange says, with another pair as long as the client has seen nothing.
 */
#ifndef PDR_ENVOY_MODULE_H
#define PDR_ENVOY_MODULE_H

#include <pthread.h>

#include "../gate/gate.h"
#include "../gate/subset.h"
#include "abi.h"

typedef struct request request;
typedef struct thread thread;

typedef struct module_config {
    struct module_config *next; /* all that there are: one for each text, whatever number of listeners has it */
    gate_block *used;
    char block[512], file[512], cluster[128];
    unsigned body_timeout_ms;
} module_config;

/* An Envoy worker thread's use of the block. */
struct thread {
    gate gate;
    module_config *config;
    pthread_mutex_t lock;   /* of `scheduler` */
    void *scheduler;        /* of the pacer: a request that is alive on this thread and passes ticks on */
    request *pacer;
    request *requests;      /* alive */
    thread *next; /* of all */
    thread *next_here; /* of this Envoy thread, with other configurations */
};

typedef struct module_leg {
    request *r;
    uint32_t which, attempt;
    uint64_t id; /* Envoy's number of the stream, 0: none */
    unsigned status;
    uint64_t retry_after_ms;
    bytes headers;   /* of the answer: names and values, each with a zero behind */
    bytes collected; /* of its body, until it may go to the client */
    unsigned open : 1, head_told : 1, body_told : 1, relayed : 1, streaming : 1, ended : 1;
    unsigned sse : 1, json : 1, encoded : 1, plain : 1;
} module_leg;

struct request {
    gate_job job;
    thread *t;
    abi_filter filter;
    request *next, *prev;
    module_leg legs[2];
    bytes head, body, sent; /* names and values; the client's body; a leg's */
    bytes chosen;           /* abi_header of what of `head` goes to the legs */
    bytes plain;            /* the path, if it is not written plainly */
    uint64_t begun_ns;
    size_t replaced;        /* behind where a leg's body stands in the client's, 0: nowhere */
    view kept;              /* what stood there */
    view path, target, method, content_type;
    pdr_response response;
    uint64_t done_ns;       /* decode's answer is complete, its end is kept back */
    unsigned locks;
    unsigned head_only : 1, started : 1, answered : 1, complete : 1, gone : 1, destroyed : 1, response_read : 1, sse : 1;
};

#define NO_MEMORY "the gateway is out of memory"

extern const gate_ops module_ops;
void request_enter(request *r);
void request_leave(request *r);
void request_answer(request *r, unsigned status, const char *type, uint64_t retry_after_ms, const char *extra, const char *value, view body);
void request_tick(request *r, uint64_t now);
void request_metadata(request *r, int answered);
/* Next name and value of such a buffer. */
int pair_next(view *in, view *name, view *value);
void pair_put(bytes *b, const char *name, size_t name_len, const char *value, size_t value_len);

#endif
