/* One thread: its event loop, its lease on the block, and what connects the parts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "legs.h"
#include "parts.h"

const grpc_service services[] = {{"/envoy.service.ext_proc.v3.ExternalProcessor/Process", call_open, call_message, call_half_closed, call_closed, call_drained},
                                 {"/grpc.health.v1.Health/Check", health_open, health_message, health_half_closed, health_closed, NULL},
                                 {NULL, NULL, NULL, NULL, NULL, NULL}};

static void on_wake(uv_poll_t *poll, int status, int events)
{
    worker *w = poll->data;
    (void)status, (void)events;
    gate_woken(&w->gate);
    legs_run(w);
}

static void wake_closed(uv_handle_t *handle)
{
    free(handle);
}

/* A renewed lease has another descriptor. The old one is closed already: its handle must not be used for anything but closing. */
static void watch_wake(worker *w)
{
    const int fd = w->gate.leased ? w->gate.lease.wake_fd : -1;

    if (fd == w->wake_fd) return;
    if (w->wake) uv_close((uv_handle_t *)w->wake, wake_closed);
    w->wake = NULL;
    w->wake_fd = fd;
    if (fd < 0) return; /* ticks look for tickets instead */
    w->wake = calloc(1, sizeof *w->wake);
    if (!w->wake || uv_poll_init(&w->loop.uv, w->wake, fd)) {
        free(w->wake);
        w->wake = NULL;
        return;
    }
    w->wake->data = w;
    (void)uv_poll_start(w->wake, UV_READABLE, on_wake);
}

static void on_tick(uv_timer_t *timer)
{
    worker *w = timer->data;

    gate_tick(&w->gate);
    watch_wake(w);
    requests_tick(w);
    legs_tick(w);
    legs_run(w);
    if (w->stopping && w->calls == 0) {
        grpc_close_all(&w->loop, 0);
        uv_stop(&w->loop.uv);
    }
}

/* Before the loop waits: what calls began is sent off. Before grpc's own, which writes what comes of it. */
static void on_prepare(uv_prepare_t *handle)
{
    legs_run(handle->data);
}

static void on_check(uv_check_t *handle)
{
    legs_run(handle->data);
}

static void on_async(uv_async_t *async)
{
    worker *w = async->data;
    int fds[sizeof w->inbox / sizeof *w->inbox];
    unsigned n;
    int stopping;

    uv_mutex_lock(&w->lock);
    n = w->inbox_n;
    memcpy(fds, w->inbox, n * sizeof *fds);
    w->inbox_n = 0;
    stopping = w->stop_asked;
    uv_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < n; i++) (void)grpc_accept(&w->loop, fds[i]);
    if (stopping && !w->stopping) {
        w->stopping = 1;
        grpc_close_all(&w->loop, 1);
    }
}

int worker_init(worker *w, const options *o, gate_block *block, unsigned index, pdr_error *err)
{
    char name[64];
    int rc;

    memset(w, 0, sizeof *w);
    w->options = o;
    w->index = index;
    w->wake_fd = -1;
    (void)snprintf(name, sizeof name, "ext_proc %ld/%u", (long)getpid(), index);
    if ((rc = gate_open(&w->gate, &call_ops, block, name, err)) != PDR_OK) return rc;
    (void)snprintf(err->message, sizeof err->message, "the event loop cannot be made");
    if (grpc_loop_init(&w->loop, services, w) || uv_mutex_init(&w->lock)) return PDR_E_SYSTEM;
    if (legs_init(w) || uv_timer_init(&w->loop.uv, &w->tick) || uv_async_init(&w->loop.uv, &w->accept, on_async)) return PDR_E_SYSTEM;
    if (uv_prepare_init(&w->loop.uv, &w->prepare) || uv_check_init(&w->loop.uv, &w->check)) return PDR_E_SYSTEM;
    w->tick.data = w->accept.data = w->prepare.data = w->check.data = w;
    if (uv_timer_start(&w->tick, on_tick, GATE_TICK_MS, GATE_TICK_MS)) return PDR_E_SYSTEM;
    if (uv_prepare_start(&w->prepare, on_prepare) || uv_check_start(&w->check, on_check)) return PDR_E_SYSTEM;
    watch_wake(w);
    err->message[0] = '\0';
    return PDR_OK;
}

void worker_run(void *worker_)
{
    worker *w = worker_;
    (void)uv_run(&w->loop.uv, UV_RUN_DEFAULT);
}

void worker_give(worker *w, int fd)
{
    uv_mutex_lock(&w->lock);
    if (w->inbox_n < sizeof w->inbox / sizeof *w->inbox) {
        w->inbox[w->inbox_n++] = fd;
        fd = -1;
    }
    uv_mutex_unlock(&w->lock);
    if (fd >= 0) close(fd);
    (void)uv_async_send(&w->accept);
}

void worker_stop(worker *w)
{
    uv_mutex_lock(&w->lock);
    w->stop_asked = 1;
    uv_mutex_unlock(&w->lock);
    (void)uv_async_send(&w->accept);
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

void worker_end(worker *w)
{
    grpc_close_all(&w->loop, 0);
    if (w->wake) uv_close((uv_handle_t *)w->wake, wake_closed);
    w->wake = NULL;
    (void)uv_run(&w->loop.uv, UV_RUN_NOWAIT);
    legs_end(w);
    gate_close(&w->gate);
    uv_walk(&w->loop.uv, close_handle, NULL);
    (void)uv_run(&w->loop.uv, UV_RUN_DEFAULT);
    (void)uv_loop_close(&w->loop.uv);
    for (call *c = w->free_calls, *next; c; c = next) {
        next = c->next_free;
        call_free(c);
    }
    peers_free(w);
    curl_free_watches(w);
    free(w->loop.read_buffer);
    uv_mutex_destroy(&w->lock);
}
