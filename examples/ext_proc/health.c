/*
 * grpc.health.v1: Check. The names that endpoint pickers answer to: "" and "liveness" say that the process serves, "readiness" and the
 * service's own name that a request would find a server. Watch is not implemented, as the protocol allows; nobody asks for it.
 */
#include <stdlib.h>

#include "extproc.h"

grpc_stream *health_open(grpc_loop *loop)
{
    grpc_stream *s = calloc(1, sizeof *s);
    (void)loop;
    if (s) s->max_message = 1024;
    return s;
}

void health_message(grpc_stream *s, view in)
{
    const worker *w = grpc_loop_of(s)->owner;
    view name = {"", 0};
    field f;
    int serving;

    while (wire_next(&in, &f) > 0) {
        if (f.number == 1 && f.type == 2) name = f.bytes;
    }
    if (name.len == 0 || view_is(name, "liveness")) {
        serving = !w->stopping;
    } else if (view_is(name, "readiness") || view_is(name, "envoy.service.ext_proc.v3.ExternalProcessor")) {
        serving = !w->stopping && pdr_ready(w->gate.router, pdr_host_now_ns()) == 1;
    } else {
        grpc_finish(s, GRPC_NOT_FOUND);
        return;
    }
    const size_t mark = grpc_begin(s);
    wire_varint(&s->out, 1, serving ? 1 : 2); /* SERVING, NOT_SERVING */
    grpc_end(s, mark, NULL, 0);
    grpc_finish(s, GRPC_OK);
}

void health_half_closed(grpc_stream *s)
{
    if (!s->finished) {
        if (s->in.len) grpc_finish(s, GRPC_INVALID_ARGUMENT);
        else health_message(s, (view){"", 0}); /* an empty message is zero bytes behind the prefix; none at all means the same */
    }
}

void health_closed(grpc_stream *s)
{
    grpc_stream_free(s);
    free(s);
}
