/*
 * gRPC over HTTP/2 (examples/ext_proc): the input is what a peer sends, in pieces of which byte 0 tells the size, over a real connection to a service that answers every
 * message with as many bytes. With byte 0 odd the connection's preface, SETTINGS and the headers of a call go ahead, so that the fuzzer is past the door. No message is longer
 * than its limit, every call that was opened is closed once, and nothing is left.
 */
#include "../examples/ext_proc/grpc.c"
#include "../examples/gate/wire.c"

#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LIMIT = 4096 };
static size_t      opened, closed;
static grpc_stream *over[4096];

static grpc_stream *open_call(grpc_loop *loop)
{
    grpc_stream *s = opened - closed < 1000 ? calloc(1, sizeof *s) : NULL;
    (void)loop;
    if (!s) return NULL;
    s->max_message = LIMIT;
    opened++;
    return s;
}

static void message(grpc_stream *s, view m)
{
    if (m.len > LIMIT || !s->conn) abort();
    size_t mark = grpc_begin(s);
    bytes_put_view(&s->out, m);
    grpc_end(s, mark, NULL, 0);
    if (m.len && m.data[0] == 'f') grpc_finish(s, GRPC_INTERNAL);
}

static void half_closed(grpc_stream *s) { grpc_finish(s, GRPC_OK); }

static void closed_call(grpc_stream *s)
{
    if (s->conn || closed == sizeof over / sizeof *over) abort();
    over[closed++] = s;
}

static const grpc_service services[] = {{"/a/B", open_call, message, half_closed, closed_call, NULL}, {NULL, NULL, NULL, NULL, NULL, NULL}};

static const char door[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                           "\0\0\0\4\0\0\0\0\0"                /* SETTINGS */
                           "\0\0\x2f\1\4\0\0\0\1"              /* HEADERS of stream 1 */
                           "\x83\x86\x44\4/a/B\x41\1h"         /* POST, http, :path /a/B, :authority h */
                           "\x5f\x10" "application/grpc" "\x40\2te\x08trailers";

static void turn(grpc_loop *loop)
{
    for (int i = 0; i < 4; i++) uv_run(&loop->uv, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static grpc_loop loop;
    static int       ready;
    int              pair[2];
    char             sink[65536];
    if (!size || size > 65536) return 0;
    if (!ready) {
        if (grpc_loop_init(&loop, services, NULL)) abort();
        ready = 1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair)) abort();
    opened = closed = 0;
    if (grpc_accept(&loop, pair[0])) abort();
    if (data[0] & 1) {
        if (send(pair[1], door, sizeof door - 1, MSG_NOSIGNAL) < 0) abort();
        turn(&loop);
        if (!opened) abort(); /* the door is open */
    }
    size_t piece = 1 + ((size_t)data[0] >> 1) * 37;
    for (size_t at = 1; at < size; at += piece) {
        size_t n = size - at < piece ? size - at : piece;
        if (send(pair[1], data + at, n, MSG_NOSIGNAL) < 0) break; /* closed, or not read any more */
        turn(&loop);
        while (recv(pair[1], sink, sizeof sink, 0) > 0) continue;
    }
    shutdown(pair[1], SHUT_WR);
    turn(&loop);
    grpc_close_all(&loop, 0);
    turn(&loop);
    close(pair[1]);
    if (opened != closed || loop.conns) abort();
    for (size_t i = 0; i < closed; i++) {
        grpc_stream_free(over[i]);
        free(over[i]);
    }
    return 0;
}
