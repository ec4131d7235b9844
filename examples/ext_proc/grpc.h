/*
 * A gRPC server over HTTP/2 without TLS, on nghttp2 and libuv: as much of it as two services need. One connection belongs to one thread.
 *
 * A message that arrives in one piece is handed on in place; a longer one is put together in memory that its stream may keep (grpc_keep).
 * What is sent may refer to memory of the caller, which is read when the peer's window allows: zero copies up to the connection's buffer.
 *
 * Envoy ends every ext_proc stream with RST_STREAM. nghttp2 takes many of those for an attack, closes the connection, and with it requests
 * that have nothing to do with it; here its limit is lifted, which is safe for a port that only the data plane can reach, as this one must be.
 */
#ifndef PDR_EXTPROC_GRPC_H
#define PDR_EXTPROC_GRPC_H

#include <nghttp2/nghttp2.h>
#include <uv.h>

#include "../gate/wire.h"

typedef struct grpc_loop grpc_loop;
typedef struct grpc_conn grpc_conn;
typedef struct grpc_stream grpc_stream;
typedef struct grpc_service grpc_service;

enum { GRPC_OK = 0, GRPC_INVALID_ARGUMENT = 3, GRPC_NOT_FOUND = 5, GRPC_RESOURCE_EXHAUSTED = 8, GRPC_UNIMPLEMENTED = 12, GRPC_INTERNAL = 13,
       GRPC_UNAVAILABLE = 14 };

struct grpc_service {
    const char *path;
    /* A new call; the stream is the first member of what is returned. NULL: refused. */
    grpc_stream *(*open)(grpc_loop *loop);
    /* A message. It lies in memory that is gone afterwards, unless grpc_keep() takes it. */
    void (*message)(grpc_stream *s, view message);
    /* The peer sends nothing more. */
    void (*half_closed)(grpc_stream *s);
    /* The stream is over, `conn` is NULL from here on; the owner frees it when it likes. */
    void (*closed)(grpc_stream *s);
    /* All that was queued has been written. May be NULL. Called while sending: only to take note. */
    void (*drained)(grpc_stream *s);
};

typedef struct grpc_segment {
    const char *ext; /* NULL: the next `len` bytes of the stream's own buffer */
    size_t len;
} grpc_segment;

struct grpc_stream {
    grpc_conn *conn; /* NULL: over */
    const grpc_service *service;
    grpc_stream *next, *prev; /* of the connection */
    int32_t id;
    uint32_t status;        /* gRPC's, once it is to be finished */
    unsigned half_closed : 1;
    unsigned answered : 1;  /* response headers were submitted */
    unsigned finished : 1;  /* nothing follows what is queued */
    unsigned prefix_seen : 1;
    /* in */
    uint32_t message_len;
    size_t max_message;     /* longer messages end the call; set it in open() */
    bytes in;               /* a message that is not complete; with its five bytes in front */
    /* out */
    bytes out;
    size_t out_pos;
    size_t queued; /* bytes */
    grpc_segment *segments;
    size_t segments_n, segments_cap, segment; /* `segment` is the one being sent */
    size_t segment_pos;
};

struct grpc_loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_check_t check;
    const grpc_service *services; /* ends with a NULL path */
    grpc_conn *conns, *dirty;
    char *read_buffer;
    void *owner;
    uint64_t connections;
};

int grpc_loop_init(grpc_loop *loop, const grpc_service *services, void *owner);
/* A connected, non-blocking socket becomes a connection of this loop; closes it on error. */
int grpc_accept(grpc_loop *loop, int fd);
/* Closes every connection at once; with `gently` only asks the peers to open no more streams (GOAWAY). */
void grpc_close_all(grpc_loop *loop, int gently);

/* The memory that the present message lies in, if it was put together: the caller's from now on (it may swap in a buffer to be reused). 1: taken. */
int grpc_keep(grpc_stream *s, view part, bytes *into);
/* Forgets what is queued, keeps the memory. */
void grpc_stream_reset(grpc_stream *s);
void grpc_stream_free(grpc_stream *s); /* its memory, not itself */

/* A message to send: begin, write into s->out, end. `ext` follows what was written; its memory must stay until the stream is over. */
size_t grpc_begin(grpc_stream *s);
void grpc_end(grpc_stream *s, size_t mark, const view *ext, size_t ext_n);
/* What is queued is the last. */
void grpc_finish(grpc_stream *s, uint32_t status);
grpc_loop *grpc_loop_of(const grpc_stream *s);

#endif
