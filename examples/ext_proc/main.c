/* pdroute-extproc: options, the block, threads, signals. */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "extproc.h"

enum { OPT_CONFIG = 256, OPT_BLOCK, OPT_GRPC_PORT, OPT_HEALTH_PORT, OPT_METRICS_PORT, OPT_HOST, OPT_THREADS, OPT_POOL, OPT_NAMESPACE, OPT_DISPATCH,
       OPT_CONNECT_TIMEOUT, OPT_ECHO, OPT_NO_TAKE_OVER, OPT_CHECK, OPT_NO_METADATA, OPT_BODY_TIMEOUT, OPT_PROBE, OPT_RECREATE, OPT_VERSION, OPT_SECURE, OPT_IGNORED };

static const struct option long_options[] = {{"config", 1, NULL, OPT_CONFIG},
                                             {"block", 1, NULL, OPT_BLOCK},
                                             {"grpc-port", 1, NULL, OPT_GRPC_PORT},
                                             {"grpc-health-port", 1, NULL, OPT_HEALTH_PORT},
                                             {"metrics-port", 1, NULL, OPT_METRICS_PORT},
                                             {"host", 1, NULL, OPT_HOST},
                                             {"threads", 1, NULL, OPT_THREADS},
                                             {"pool-name", 1, NULL, OPT_POOL},
                                             {"pool-namespace", 1, NULL, OPT_NAMESPACE},
                                             {"dispatch", 1, NULL, OPT_DISPATCH},
                                             {"connect-timeout-ms", 1, NULL, OPT_CONNECT_TIMEOUT},
                                             {"body-timeout-ms", 1, NULL, OPT_BODY_TIMEOUT},
                                             {"echo", 0, NULL, OPT_ECHO},
                                             {"no-metadata", 0, NULL, OPT_NO_METADATA},
                                             {"no-take-over", 0, NULL, OPT_NO_TAKE_OVER},
                                             {"check", 0, NULL, OPT_CHECK},
                                             {"probe", 0, NULL, OPT_PROBE},
                                             {"recreate", 0, NULL, OPT_RECREATE},
                                             {"version", 0, NULL, OPT_VERSION},
                                             {"pool-group", 1, NULL, OPT_IGNORED}, /* what charts of other pickers give, and has no meaning here */
                                             {"zap-encoder", 1, NULL, OPT_IGNORED},
                                             {"v", 1, NULL, OPT_IGNORED},
                                             {"tracing", 2, NULL, OPT_IGNORED},
                                             {"health-checking", 2, NULL, OPT_IGNORED},
                                             {"enable-pprof", 2, NULL, OPT_IGNORED},
                                             {"secure-serving", 2, NULL, OPT_SECURE},
                                             {"help", 0, NULL, 'h'},
                                             {NULL, 0, NULL, 0}};

static const char usage[] =
    "usage: pdroute-extproc [options]\n"
    "An endpoint picker for Envoy's ext_proc filter that routes to prefill and decode servers.\n"
    "  --config FILE              JSON: pdr_config, endpoints, pool; or Kubernetes objects\n"
    "  --block FILE               the router block (default /dev/shm/pdroute/POOL-NAME)\n"
    "  --recreate                 replace a block that was made with another configuration\n"
    "  --pool-name NAME           of the InferencePool (default \"default\"); a label of the metrics\n"
    "  --pool-namespace NAME      (default \"default\")\n"
    "  --host ADDRESS             to listen on (default 0.0.0.0)\n"
    "  --grpc-port N              ext_proc and health (default 9002)\n"
    "  --grpc-health-port N       health (default 9003; 0: none)\n"
    "  --metrics-port N           Prometheus metrics (default 9090; 0: none)\n"
    "  --threads N                (default: one for each processor)\n"
    "  --dispatch send|both|mirror\n"
    "                             who sends what: Envoy decode's leg and this process prefill's (default); this process both;\n"
    "                             Envoy both, prefill's by request_mirror_policies\n"
    "  --connect-timeout-ms N     to prefill servers (default 5000)\n"
    "  --body-timeout-ms N        for a request's whole body, then 408 (default 300000)\n"
    "  --probe                    watch health and load of the servers, unless another process of this block does\n"
    "  --no-take-over             when Envoy has sent decode's request, a failure is not retried but answered\n"
    "  --check                    only look at the configuration\n"
    "  --no-metadata              do not tell Envoy's access log what was decided\n"
    "  --echo                     decide nothing and send bodies back: for measuring\n"
    "  --secure-serving=false     is what it is: gRPC without TLS\n"
    "  --pool-group, --zap-encoder, --v, --tracing, --health-checking, --enable-pprof\n"
    "                             are taken, with their values, and mean nothing: charts of other pickers give them\n";

static worker *workers;
static unsigned listening; /* sockets in `listeners` */
static uv_poll_t listeners[4];
static unsigned next_worker;
static const options *opts;
static volatile int probe_stop;

static int number(const char *text, unsigned min, unsigned max, unsigned *out)
{
    char *end;
    errno = 0;
    const unsigned long n = strtoul(text, &end, 10);
    if (errno || end == text || *end || n < min || n > max || text[0] == '-') return -1;
    *out = (unsigned)n;
    return 0;
}

/* As Kubernetes names objects: it becomes a part of a path and a label. */
static int name_is_bad(const char *name)
{
    const size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.");
    return n == 0 || name[n] || n > 253 || name[0] == '.' || name[0] == '-' ? -1 : 0;
}

/* 0, 1: done, -1: wrong usage */
static int parse(int argc, char **argv, options *o)
{
    int c, at = 0, bad = 0;

    while ((c = getopt_long(argc, argv, "hv:", long_options, &at)) != -1) {
        switch (c) {
        case OPT_CONFIG: o->config_file = optarg; break;
        case OPT_BLOCK: o->block = optarg; break;
        case OPT_HOST: o->host = optarg; break;
        case OPT_POOL: bad = name_is_bad(o->pool_name = optarg); break;
        case OPT_NAMESPACE: bad = name_is_bad(o->pool_namespace = optarg); break;
        case OPT_GRPC_PORT: bad = number(optarg, 1, 65535, &o->grpc_port); break;
        case OPT_HEALTH_PORT: bad = number(optarg, 0, 65535, &o->health_port); break;
        case OPT_METRICS_PORT: bad = number(optarg, 0, 65535, &o->metrics_port); break;
        case OPT_THREADS: bad = number(optarg, 1, 256, &o->threads); break;
        case OPT_CONNECT_TIMEOUT: bad = number(optarg, 1, 600000, &o->connect_timeout_ms); break;
        case OPT_BODY_TIMEOUT: bad = number(optarg, 1, 86400000, &o->body_timeout_ms); break;
        case OPT_DISPATCH:
            if (strcmp(optarg, "send") == 0) o->dispatch = DISPATCH_SEND;
            else if (strcmp(optarg, "mirror") == 0) o->dispatch = DISPATCH_MIRROR;
            else if (strcmp(optarg, "both") == 0) o->dispatch = DISPATCH_BOTH;
            else bad = -1;
            break;
        case OPT_ECHO: o->echo = 1; break;
        case OPT_NO_METADATA: o->metadata = 0; break;
        case OPT_NO_TAKE_OVER: o->take_over = 0; break;
        case OPT_CHECK: o->check = 1; break;
        case OPT_PROBE: o->probe = 1; break;
        case OPT_RECREATE: o->recreate = 1; break;
        case OPT_SECURE:
            if (optarg && strcmp(optarg, "false") == 0) break;
            (void)fputs("pdroute-extproc: gRPC is without TLS here: only --secure-serving=false is taken, and the data plane has to be told\n", stderr);
            return -1;
        case OPT_IGNORED: case 'v': break;
        case OPT_VERSION: (void)printf("pdroute-extproc %s\n", pdr_version_string()); return 1;
        case 'h': (void)fputs(usage, stdout); return 1;
        default: (void)fputs("Try 'pdroute-extproc --help'.\n", stderr); return -1;
        }
        if (bad) {
            (void)fprintf(stderr, "pdroute-extproc: '%s' is not a value for --%s\n", optarg, long_options[at].name);
            return -1;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "pdroute-extproc: what is '%s'? Try --help.\n", argv[optind]);
        return -1;
    }
    return 0;
}

/* ----------------------------------------------------------------------------------------------------------- sockets */

static void on_listener(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    for (;;) {
        const int fd = accept4((int)(intptr_t)poll->data, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        worker_give(&workers[next_worker++ % opts->threads], fd); /* Envoy has few connections, all alike */
    }
}

static int listen_on(uv_loop_t *loop, const char *host, unsigned port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST}, *found = NULL;
    char service[8];
    const int on = 1;
    int fd;

    (void)snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &found) != 0) {
        gate_log("emerg", "\"%s\" is not an address to listen on", host);
        return -1;
    }
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) || bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 1024)) {
        gate_log("emerg", "cannot listen on %s port %u: %s", host, port, strerror(errno));
        if (fd >= 0) close(fd);
        freeaddrinfo(found);
        return -1;
    }
    freeaddrinfo(found);
    if (uv_poll_init(loop, &listeners[listening], fd) || uv_poll_start(&listeners[listening], UV_READABLE, on_listener)) {
        gate_log("emerg", "port %u cannot be watched", port);
        return -1;
    }
    listeners[listening++].data = (void *)(intptr_t)fd;
    return 0;
}

static void on_reload(uv_signal_t *handle, int number_)
{
    (void)number_;
    (void)gate_block_reload(handle->data);
}

static void on_signal(uv_signal_t *handle, int number_)
{
    (void)number_;
    gate_log("notice", "stopping: what is under way is finished");
    for (; listening; listening--) {
        (void)uv_poll_stop(&listeners[listening - 1]);
        close((int)(intptr_t)listeners[listening - 1].data);
    }
    for (unsigned i = 0; i < opts->threads; i++) worker_stop(&workers[i]);
    uv_stop(handle->loop);
}

/* ------------------------------------------------------------------------------------------------------------- probe */

static void probe_event(void *context, const pdr_probe_event *ev)
{
    static const char *const text[] = {"", "is up", "is down", "gives no reports", "gives reports again", "note"};
    (void)context;
    gate_log(ev->type == PDR_PROBE_DOWN ? "error" : "notice", "%s %s: %s", ev->name, ev->type <= PDR_PROBE_NOTE ? text[ev->type] : "", ev->message);
}

/* Of one mapping, until it is another's turn: the block is another, or the process ends. */
static void probe_map(gate_block *block, const gate_map *m)
{
    pdr_probe_options po;
    pdr_probe *p;
    pdr_error err;
    int fd = -1, rc;

    pdr_init_struct(&err, sizeof err);
    while ((rc = pdr_host_claim(m->host, PDR_HOST_JOB_PROBE, &fd, &err)) == PDR_E_BUSY && !probe_stop && gate_block_is(block, m)) (void)usleep(200000);
    pdr_init_struct(&po, sizeof po);
    po.event = probe_event;
    if (rc == PDR_OK && (rc = pdr_probe_new(m->router, &po, &p, &err)) == PDR_OK) {
        while (!probe_stop && gate_block_is(block, m) && pdr_probe_run(p, 100, NULL, &err) == PDR_OK) continue;
        pdr_probe_free(p);
    }
    if (rc != PDR_OK && rc != PDR_E_BUSY) gate_log("error", "no probing: %s", err.message);
    if (fd >= 0) close(fd);
}

static void probe_run(void *context)
{
    gate_block *block = context;

    while (!probe_stop) {
        gate_map *m = gate_block_take(block);
        probe_map(block, m);
        while (!probe_stop && gate_block_is(block, m)) (void)usleep(100000); /* it cannot be probed */
        gate_block_leave(block, m);
    }
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle)) uv_close(handle, NULL);
}

static int serve(const options *o, gate_block *block)
{
    uv_loop_t loop;
    uv_signal_t signals[3];
    uv_thread_t probe;
    pdr_error err;
    int probing = 0;

    pdr_init_struct(&err, sizeof err);
    workers = calloc(o->threads, sizeof *workers);
    if (!workers || uv_loop_init(&loop)) {
        gate_log("emerg", "no memory or descriptors for %u threads", o->threads);
        return -1;
    }
    for (unsigned i = 0; i < o->threads; i++) {
        if (worker_init(&workers[i], o, block, i, &err) == PDR_OK) continue;
        gate_log("emerg", "%s", err.message);
        return -1;
    }
    if (listen_on(&loop, o->host, o->grpc_port) || (o->health_port && listen_on(&loop, o->host, o->health_port)) ||
        (o->metrics_port && scrape_listen(&loop, o->host, o->metrics_port, workers, o->threads, block, o)))
        return -1;
    for (unsigned i = 0; i < o->threads; i++) {
        if (uv_thread_create(&workers[i].thread, worker_run, &workers[i]) == 0) continue;
        gate_log("emerg", "thread %u of %u cannot be started", i + 1, o->threads);
        return -1;
    }
    if (o->probe) probing = uv_thread_create(&probe, probe_run, block) == 0;
    for (int i = 0; i < 2; i++) {
        if (uv_signal_init(&loop, &signals[i]) || uv_signal_start(&signals[i], on_signal, i ? SIGTERM : SIGINT)) goto no_signals;
    }
    if (uv_signal_init(&loop, &signals[2]) || uv_signal_start(&signals[2], on_reload, SIGHUP)) goto no_signals;
    signals[2].data = block;
    gate_log("notice", "%s: ext_proc on port %u, health %u, metrics %u, %u threads", pdr_version_string(), o->grpc_port, o->health_port,
             o->metrics_port, o->threads);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    probe_stop = 1;
    for (unsigned i = 0; i < o->threads; i++) {
        (void)uv_thread_join(&workers[i].thread);
        worker_end(&workers[i]);
    }
    if (probing) (void)uv_thread_join(&probe);
    uv_walk(&loop, close_handle, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
    free(workers);
    return 0;
no_signals:
    gate_log("emerg", "signals cannot be watched");
    return -1;
}

int main(int argc, char **argv)
{
    options o = {.pool_name = "default", .pool_namespace = "default", .host = "0.0.0.0", .grpc_port = 9002, .health_port = 9003,
                 .metrics_port = 9090, .connect_timeout_ms = 5000, .body_timeout_ms = GATE_BODY_TIMEOUT_MS, .metadata = 1, .take_over = 1};
    gate_block *used = NULL;
    char block[512];
    int rc = parse(argc, argv, &o);

    if (rc) return rc > 0 ? 0 : 2;
    if (!o.threads) {
        const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        o.threads = cpus > 0 && cpus < 256 ? (unsigned)cpus : 1;
    }
    opts = &o;
    (void)signal(SIGPIPE, SIG_IGN);
    if (o.block) (void)snprintf(block, sizeof block, "%s", o.block);
    else (void)snprintf(block, sizeof block, "/dev/shm/pdroute/%s", o.pool_name);
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        gate_log("emerg", "libcurl cannot be used: out of memory, or its TLS library refuses");
        return 1;
    }
    if (gate_block_open(block, o.config_file, (o.recreate ? GATE_BLOCK_RECREATE : 0u) | (o.check ? GATE_BLOCK_CHECK : 0u), &used)) return 1;
    if (o.check) return 0;
    rc = serve(&o, used);
    gate_block_close(used);
    curl_global_cleanup();
    return rc ? 1 : 0;
}
