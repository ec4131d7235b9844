/*
 * The metrics port: what the router knows (pdroute_*), and the gauges that dashboards for endpoint pickers ask for, under their names. One
 * small HTTP/1.0 answer per connection.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "extproc.h"

#define REQUEST_MAX 4096

static struct {
    uv_tcp_t listener;
    worker *workers;
    unsigned n;
    gate_block *block;
    pdr_router *router; /* while a page is made */
    const options *o;
} scrape;

typedef struct visitor {
    uv_tcp_t tcp;
    uv_write_t write;
    bytes in, out;
} visitor;

static void visitor_closed(uv_handle_t *handle)
{
    visitor *v = handle->data;
    bytes_free(&v->in);
    bytes_free(&v->out);
    free(v);
}

static void leave(visitor *v)
{
    if (!uv_is_closing((uv_handle_t *)&v->tcp)) uv_close((uv_handle_t *)&v->tcp, visitor_closed);
}

static void put(bytes *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(bytes *b, const char *format, ...)
{
    va_list list;
    if (bytes_reserve(b, 1024)) return;
    va_start(list, format);
    const int n = vsnprintf(b->data + b->len, 1024, format, list);
    va_end(list);
    if (n > 0) b->len += n < 1024 ? (size_t)n : 1023;
}

typedef struct pool {
    uint64_t ready, waiting, targets, usage_permille, running;
} pool;

static void look(pool *p)
{
    uint32_t cursor = 0, id, state;
    pdr_endpoint e;
    pdr_target_status t;

    memset(p, 0, sizeof *p);
    while (pdr_endpoint_next(scrape.router, &cursor, &id) == PDR_OK) {
        pdr_init_struct(&e, sizeof e);
        if (pdr_endpoint_get(scrape.router, id, &e, &state) != PDR_OK) continue;
        if (state == PDR_STATE_READY) p->ready++;
        for (uint32_t rank = 0; rank < (e.dp_size ? e.dp_size : 1); rank++) {
            pdr_init_struct(&t, sizeof t);
            if (pdr_target_get(scrape.router, id, rank, pdr_host_now_ns(), &t) != PDR_OK) continue;
            p->targets++;
            p->waiting += t.reported_waiting;
            p->running += t.reported_running;
            if (t.kv_capacity) p->usage_permille += t.reported_used_tokens * 1000 / t.kv_capacity;
        }
    }
}

static void standard(bytes *b)
{
    const char *name = scrape.o->pool_name;
    uint64_t requests = 0, calls = 0, elsewhere = 0;
    pool p;

    look(&p);
    for (unsigned i = 0; i < scrape.n; i++) {
        requests += scrape.workers[i].requests;
        calls += scrape.workers[i].calls;
        elsewhere += scrape.workers[i].served_elsewhere;
    }
    put(b, "# HELP inference_pool_ready_pods Servers that take requests.\n# TYPE inference_pool_ready_pods gauge\n"
           "inference_pool_ready_pods{name=\"%s\"} %" PRIu64 "\n", name, p.ready);
    put(b, "# HELP inference_pool_average_queue_size Requests waiting in an engine, on average over the servers, as they report.\n"
           "# TYPE inference_pool_average_queue_size gauge\ninference_pool_average_queue_size{name=\"%s\"} %.3f\n", name,
        p.targets ? (double)p.waiting / (double)p.targets : 0.0);
    put(b, "# HELP inference_pool_average_running_requests Requests running in an engine, on average over the servers, as they report.\n"
           "# TYPE inference_pool_average_running_requests gauge\ninference_pool_average_running_requests{name=\"%s\"} %.3f\n", name,
        p.targets ? (double)p.running / (double)p.targets : 0.0);
    put(b, "# HELP inference_pool_average_kv_cache_utilization Part of the KV cache in use, on average over the servers, as they report.\n"
           "# TYPE inference_pool_average_kv_cache_utilization gauge\ninference_pool_average_kv_cache_utilization{name=\"%s\"} %.3f\n", name,
        p.targets ? (double)p.usage_permille / (double)p.targets / 1000 : 0.0);
    put(b, "# HELP pdroute_extproc_requests_total Requests that were complete and came to a decision.\n"
           "# TYPE pdroute_extproc_requests_total counter\npdroute_extproc_requests_total %" PRIu64 "\n", requests);
    put(b, "# HELP pdroute_extproc_served_elsewhere_total Requests for which the data plane used another server than the one that was named.\n"
           "# TYPE pdroute_extproc_served_elsewhere_total counter\npdroute_extproc_served_elsewhere_total %" PRIu64 "\n", elsewhere);
    put(b, "# HELP pdroute_extproc_calls Conversations with Envoy that are open, and requests whose prefill is still read.\n"
           "# TYPE pdroute_extproc_calls gauge\npdroute_extproc_calls %" PRIu64 "\n", calls);
}

static void answer(visitor *v);

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    visitor *v = handle->data;
    (void)suggested;
    if (bytes_reserve(&v->in, 1024)) {
        *buf = uv_buf_init(NULL, 0);
        return;
    }
    *buf = uv_buf_init(v->in.data + v->in.len, (unsigned)(v->in.cap - v->in.len));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    visitor *v = stream->data;
    (void)buf;
    if (n < 0) {
        leave(v);
        return;
    }
    v->in.len += (size_t)n;
    bytes_put(&v->in, "", 1);
    v->in.len--;
    if (v->in.len > REQUEST_MAX || v->in.failed) leave(v);
    else if (strstr(v->in.data, "\r\n\r\n") || strstr(v->in.data, "\n\n")) answer(v);
}

static void on_written(uv_write_t *write, int status)
{
    (void)status;
    leave(write->data);
}

static void answer(visitor *v)
{
    bytes body = {0};
    size_t need = 65536;
    int code;

    (void)uv_read_stop((uv_stream_t *)&v->tcp);
    if (strncmp(v->in.data, "GET /metrics", 12) != 0) {
        put(&v->out, "HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    } else {
        gate_map *m = gate_block_take(scrape.block);
        scrape.router = m->router;
        do {
            if (bytes_reserve(&body, need + need / 8 + 1024)) break;
            code = pdr_status_prometheus(scrape.router, pdr_host_now_ns(), body.data, body.cap, &need);
        } while (code == PDR_E_NOSPACE && need >= body.cap);
        body.len = body.failed ? 0 : need;
        standard(&body);
        gate_block_leave(scrape.block, m);
        put(&v->out, "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", body.len);
        bytes_put(&v->out, body.data, body.len);
        bytes_free(&body);
    }
    v->write.data = v;
    const uv_buf_t buf = uv_buf_init(v->out.data, (unsigned)v->out.len);
    if (v->out.failed || uv_write(&v->write, (uv_stream_t *)&v->tcp, &buf, 1, on_written)) leave(v);
}

static void on_visitor(uv_stream_t *listener, int status)
{
    visitor *v = status < 0 ? NULL : calloc(1, sizeof *v);
    if (!v || uv_tcp_init(listener->loop, &v->tcp)) {
        free(v);
        return;
    }
    v->tcp.data = v;
    if (uv_accept(listener, (uv_stream_t *)&v->tcp) || uv_read_start((uv_stream_t *)&v->tcp, on_alloc, on_read)) leave(v);
}

int scrape_listen(uv_loop_t *loop, const char *host, unsigned port, worker *workers, unsigned n, gate_block *block, const options *o)
{
    struct sockaddr_storage address;
    int rc;

    scrape.workers = workers;
    scrape.n = n;
    scrape.block = block;
    scrape.o = o;
    if (strchr(host, ':')) rc = uv_ip6_addr(host, (int)port, (struct sockaddr_in6 *)&address);
    else rc = uv_ip4_addr(host, (int)port, (struct sockaddr_in *)&address);
    if (!rc) rc = uv_tcp_init(loop, &scrape.listener);
    if (!rc) rc = uv_tcp_bind(&scrape.listener, (struct sockaddr *)&address, 0);
    if (!rc) rc = uv_listen((uv_stream_t *)&scrape.listener, 16, on_visitor);
    if (rc) gate_log("emerg", "cannot listen on %s port %u: %s", host, port, uv_strerror(rc));
    return rc;
}
