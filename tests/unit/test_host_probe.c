/* lib/host/probe.c against small HTTP servers in threads of this process: what goes up, down, when, and what is asked. */
#include "host_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>
#include <sys/socket.h>

/* ---------------------------------------------------------------------------------------------------------------- server */

enum { P_HEALTH, P_LOADS, P_METRICS, P_INFO, P_OTHER, PATHS };
static const char *const path_name[] = {"/health", "/v1/loads", "/metrics", "/server_info"};

struct server {
    int         listener, port;
    pthread_t   thread;
    atomic_int  stop, status[PATHS], asked[PATHS], connections, hang, authorized;
    const char *body[PATHS];
    size_t      body_len[PATHS];
    const char *encoding;
};

static const char LOADS[] =
    "{\"timestamp\":\"2026-11-23T02:26:03\",\"version\":\"0.5.23\",\"loads\":[{\"dp_rank\":0,\"num_running_reqs\":3,\"num_waiting_reqs\":2,"
    "\"num_used_tokens\":1000,\"num_total_tokens\":1000,\"max_total_num_tokens\":65536,\"token_usage\":0.01,\"max_running_requests\":2048}]}";
static const char METRICS[] =
    "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs{engine_type=\"decode\",model_name=\"m\",tp_rank=\"0\"} 5.0\n"
    "# TYPE sglang:num_queue_reqs gauge\nsglang:num_queue_reqs{engine_type=\"decode\",model_name=\"m\",tp_rank=\"0\"} 4.0\n";
static const char INFO[] = "{\"disaggregation_mode\":\"decode\",\"dp_size\":1,\"max_total_num_tokens\":65536,\"max_running_requests\":64}";

static int path_of(const char *request)
{
    size_t n = strcspn(request + 4, " ?");
    for (int i = 0; i < P_OTHER; i++)
        if (strlen(path_name[i]) == n && !strncmp(request + 4, path_name[i], n)) return i;
    return P_OTHER;
}

static void answer(struct server *s, int fd, const char *request)
{
    char head[512];
    int  p = path_of(request), status = atomic_load(&s->status[p]), n;
    atomic_fetch_add(&s->asked[p], 1);
    if (strstr(request, "Authorization: Bearer sesame\r\n")) atomic_fetch_add(&s->authorized, 1);
    if (status == 999) return; /* never */
    n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s%s%s\r\n", status, s->body_len[p],
                 s->encoding && p == P_LOADS ? "Content-Encoding: " : "", s->encoding && p == P_LOADS ? s->encoding : "",
                 s->encoding && p == P_LOADS ? "\r\n" : "");
    if (send(fd, head, (size_t)n, MSG_NOSIGNAL) != n) return;
    if (s->body_len[p]) (void)!send(fd, s->body[p], s->body_len[p], MSG_NOSIGNAL);
}

/* All connections by one poll loop; requests are short and come in one piece. */
static void *serve(void *context)
{
    struct server *s = context;
    struct pollfd  fds[64] = {{.fd = s->listener, .events = POLLIN}};
    nfds_t         n = 1;
    while (!atomic_load(&s->stop)) {
        if (poll(fds, n, 10) <= 0) continue;
        for (nfds_t i = n; i-- > 1;) {
            char    request[4096];
            ssize_t got;
            if (!fds[i].revents) continue;
            got = recv(fds[i].fd, request, sizeof request - 1, 0);
            if (got <= 0) {
                close(fds[i].fd);
                fds[i] = fds[--n];
                continue;
            }
            request[got] = 0;
            answer(s, fds[i].fd, request);
        }
        if ((fds[0].revents & POLLIN) && n < 64) {
            fds[n].fd = accept(s->listener, NULL, NULL);
            fds[n].events = POLLIN;
            fds[n].revents = 0;
            atomic_fetch_add(&s->connections, 1);
            n++;
        }
    }
    for (nfds_t i = 0; i < n; i++) close(fds[i].fd);
    return NULL;
}

static void server_listen(struct server *s, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t          n = sizeof a;
    int                one = 1;
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->listener, 64), 0);
    getsockname(s->listener, (struct sockaddr *)&a, &n);
    s->port = ntohs(a.sin_port);
    atomic_store(&s->stop, 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_start(struct server *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < PATHS; i++) {
        s->status[i] = i == P_OTHER ? 404 : 200;
        s->body[i] = "";
    }
    s->body[P_LOADS] = LOADS, s->body_len[P_LOADS] = sizeof LOADS - 1;
    s->body[P_METRICS] = METRICS, s->body_len[P_METRICS] = sizeof METRICS - 1;
    s->body[P_INFO] = INFO, s->body_len[P_INFO] = sizeof INFO - 1;
    server_listen(s, 0);
}

static void server_stop(struct server *s)
{
    atomic_store(&s->stop, 1);
    pthread_join(s->thread, NULL);
}

/* ----------------------------------------------------------------------------------------------------------------- probe */

static pdr_host         *host;
static pdr_router       *router;
static pdr_probe        *probe;
static pdr_probe_options options;
static struct server     server;
static uint32_t          endpoint;
static pdr_probe_event   last[6]; /* by type */
static int               events[6];

static void on_event(void *context, const pdr_probe_event *e)
{
    (void)context;
    assert_in_range(e->type, 1, 5);
    last[e->type] = *e;
    events[e->type]++;
}

static int open_small(void **state)
{
    pdr_config c = small_config();
    (void)state;
    unlink(test_path("probe"));
    memset(last, 0, sizeof last);
    memset(events, 0, sizeof events);
    if (pdr_host_open(test_path("probe"), &c, PDR_HOST_CREATE, &host, &router, NULL)) return -1;
    server_start(&server);
    endpoint = put_endpoint(router, "d", PDR_ROLE_DECODE, (uint32_t)server.port);
    pdr_init_struct(&options, sizeof options);
    options.event = on_event;
    options.interval_ms = 100;
    options.health_interval_ms = 150;
    options.refresh_ms = 50;
    probe = NULL;
    return 0;
}

static int close_small(void **state)
{
    (void)state;
    pdr_probe_free(probe);
    server_stop(&server);
    pdr_host_close(host);
    return 0;
}

static void begin(void)
{
    pdr_error e;
    pdr_init_struct(&e, sizeof e);
    if (pdr_probe_new(router, &options, &probe, &e)) fail_msg("%s", e.message);
}

/* Runs until the condition holds; fails after ms. Returns the milliseconds it took. */
#define RUN_UNTIL(condition, ms)                                                                                                 \
    __extension__({                                                                                                              \
        uint64_t begin_ = pdr_host_now_ns(), took_ = 0;                                                                          \
        while (!(condition) && took_ < (ms)) {                                                                                   \
            assert_int_equal(pdr_probe_run(probe, 20, NULL, NULL), PDR_OK);                                                      \
            took_ = (pdr_host_now_ns() - begin_) / 1000000;                                                                      \
        }                                                                                                                        \
        if (!(condition)) fail_msg("not within %d ms: %s", (int)(ms), #condition);                                               \
        took_;                                                                                                                   \
    })
static void run_for(uint64_t ms)
{
    uint64_t end = pdr_host_now_ns() + ms * 1000000;
    while (pdr_host_now_ns() < end) assert_int_equal(pdr_probe_run(probe, 20, NULL, NULL), PDR_OK);
}

static uint32_t state_now(void)
{
    uint32_t s = 99;
    assert_int_equal(pdr_endpoint_get(router, endpoint, NULL, &s), PDR_OK);
    return s;
}

static pdr_target_status target(void)
{
    pdr_target_status t;
    pdr_init_struct(&t, sizeof t);
    assert_int_equal(pdr_target_get(router, endpoint, 0, pdr_host_now_ns(), &t), PDR_OK);
    return t;
}

static pdr_probe_stats probe_stats(void)
{
    pdr_probe_stats s;
    pdr_init_struct(&s, sizeof s);
    assert_int_equal(pdr_probe_stats_get(probe, &s), PDR_OK);
    return s;
}

static void goes_up_and_reports(void **state)
{
    (void)state;
    begin();
    assert_int_equal(pdr_probe_pending(probe), 1); /* nothing was looked at */
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    assert_int_equal(events[PDR_PROBE_UP], 1);
    assert_string_equal(last[PDR_PROBE_UP].name, "d");
    assert_int_equal(target().reported_running, 3);
    assert_int_equal(target().reported_waiting, 2);
    assert_int_equal(target().kv_capacity, 65536);
    assert_true(target().report_age_ms < 1000);
    run_for(600);
    assert_int_equal(server.asked[P_INFO], 1);
    assert_int_equal(server.asked[P_METRICS], 0);
    assert_in_range(server.asked[P_LOADS], 4, 12);
    assert_in_range(server.asked[P_HEALTH], 3, 9);
    assert_in_range(server.connections, 1, 2); /* kept alive: one per lane */
    assert_true(probe_stats().requests > 7);
    assert_int_equal(probe_stats().connections, server.connections);
    assert_int_equal(probe_stats().up, 1);
    assert_int_equal(probe_stats().failures, 0);
    assert_int_equal(events[PDR_PROBE_UP], 1);
    assert_true(pdr_probe_fd(probe) >= 0);
}

static void goes_down_quickly_and_is_back_within_a_second(void **state)
{
    int port = server.port, asked = 0;
    (void)state;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    for (int cycle = 0; cycle < 3; cycle++) { /* back after different times, since pauses differ */
        server_stop(&server);
        assert_true(RUN_UNTIL(events[PDR_PROBE_DOWN] == cycle + 1, 3000) < 1500);
        assert_int_equal(state_now(), PDR_STATE_DOWN);
        assert_string_equal(last[PDR_PROBE_DOWN].message, "Connection refused");
        run_for(1200 + 400 * (uint64_t)cycle);
        asked = server.asked[P_INFO];
        server_listen(&server, port);
        assert_true(RUN_UNTIL(events[PDR_PROBE_UP] == cycle + 2, 3000) <= 1000);
        assert_int_equal(state_now(), PDR_STATE_READY);
    }
    RUN_UNTIL(server.asked[P_INFO] == asked + 1, 2000); /* it may have come back as something else */
    RUN_UNTIL(!pdr_probe_pending(probe), 2000);
}

static void unhealthy_status_takes_out(void **state)
{
    (void)state;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    server.status[P_HEALTH] = 503;
    RUN_UNTIL(state_now() == PDR_STATE_DOWN, 3000);
    assert_string_equal(last[PDR_PROBE_DOWN].message, "answered 503 to /health");
    assert_int_equal(last[PDR_PROBE_DOWN].status, 503);
    server.status[P_HEALTH] = 404; /* no such path: another engine, alive */
    RUN_UNTIL(state_now() == PDR_STATE_READY, 1500);
}

static void one_failure_is_not_an_outage(void **state)
{
    (void)state;
    options.down_after = 50;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    server.status[P_HEALTH] = 500;
    RUN_UNTIL(probe_stats().failures >= 2, 3000);
    server.status[P_HEALTH] = 200;
    run_for(1200);
    assert_int_equal(events[PDR_PROBE_DOWN], 0);
    assert_int_equal(state_now(), PDR_STATE_READY);
}

static void falls_back_to_metrics(void **state)
{
    (void)state;
    server.status[P_LOADS] = 404;
    server.status[P_INFO] = 404;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    assert_int_equal(target().reported_running, 5);
    run_for(400);
    assert_int_equal(server.asked[P_LOADS], 1); /* not again and again */
    assert_true(server.asked[P_METRICS] >= 3);
}

static void unreadable_loads_fall_back_to_metrics(void **state)
{
    (void)state;
    server.body[P_LOADS] = "<html>hello</html>";
    server.body_len[P_LOADS] = 18;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    assert_int_equal(target().reported_running, 5);
}

static void server_without_reports_is_up_all_the_same(void **state)
{
    (void)state;
    server.status[P_LOADS] = server.status[P_METRICS] = server.status[P_INFO] = 404;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    assert_int_equal(state_now(), PDR_STATE_READY);
    assert_int_equal(target().report_age_ms, PDR_NONE);
    assert_int_equal(events[PDR_PROBE_NOTE], 1);
    run_for(300);
    assert_int_equal(server.asked[P_LOADS], 1);
}

static void a_wrong_role_is_told(void **state)
{
    pdr_endpoint e;
    (void)state;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    assert_int_equal(events[PDR_PROBE_NOTE], 0);
    for (int times = 1; times <= 2; times++) { /* while it is up */
        assert_int_equal(put_endpoint(router, "d", PDR_ROLE_PREFILL, (uint32_t)server.port), endpoint);
        RUN_UNTIL(events[PDR_PROBE_NOTE] == times, 3000);
        assert_string_equal(last[PDR_PROBE_NOTE].message, "endpoint d is registered for role prefill but says it has role decode");
        pdr_init_struct(&e, sizeof e);
        assert_int_equal(pdr_endpoint_get(router, endpoint, &e, NULL), PDR_OK);
        assert_int_equal(e.role, PDR_ROLE_PREFILL);
        assert_int_equal(e.flags & (PDR_ENDPOINT_TOLD_PREFILL | PDR_ENDPOINT_TOLD_DECODE), PDR_ENDPOINT_TOLD_DECODE);
        assert_int_equal(put_endpoint(router, "d", PDR_ROLE_DECODE, (uint32_t)server.port), endpoint);
        run_for(300);
        assert_int_equal(events[PDR_PROBE_NOTE], times);
    }
    assert_int_equal(events[PDR_PROBE_DOWN], 0);
}

/* Servers that are asked first at one moment are asked again at moments of their own, a tenth around the interval. */
static void moments_spread(void **state)
{
    enum { MORE = 15 };
    uint64_t begun, first = 0, latest = 0, asked;
    (void)state;
    for (int i = 0; i < MORE; i++) { /* the same server under other names */
        pdr_endpoint e = make_endpoint("", PDR_ROLE_DECODE, (uint32_t)server.port);
        snprintf(e.name, sizeof e.name, "d%d", i);
        strcpy(e.host, "localhost"); /* in so many spellings */
        for (int bit = 0; bit < 4; bit++)
            if ((i + 1) >> bit & 1) e.host[bit] = (char)(e.host[bit] - 'a' + 'A');
        assert_int_equal(pdr_endpoint_put(router, &e, pdr_host_now_ns(), NULL, NULL), PDR_OK);
    }
    options.flags = PDR_PROBE_NO_HEALTH | PDR_PROBE_NO_INFO;
    options.interval_ms = 1000;
    begin();
    begun = pdr_host_now_ns();
    RUN_UNTIL(!pdr_probe_pending(probe), 800);
    assert_int_equal(probe_stats().requests, MORE + 1);
    for (asked = MORE + 1; asked < 2 * (MORE + 1);) {
        uint64_t now;
        assert_int_equal(pdr_probe_run(probe, 5, NULL, NULL), PDR_OK);
        now = pdr_host_now_ns() - begun;
        if (probe_stats().requests == asked) {
            assert_true(now < 3000000000u);
            continue;
        }
        asked = probe_stats().requests;
        if (!first) first = now;
        latest = now;
    }
    assert_true(first >= 890000000u);        /* not earlier than nine tenths */
    assert_true(latest - first >= 40000000u);  /* all within 40 ms of 200: by chance once in 10^10 */
}

static void too_long_an_answer_is_cut_off(void **state)
{
    static char huge[200000]; /* outlives the test: the server's thread may still be sending it */
    (void)state;
    memset(huge, ' ', sizeof huge);
    memcpy(huge, LOADS, sizeof LOADS - 1);
    server.body[P_LOADS] = huge;
    server.body_len[P_LOADS] = 200000;
    options.max_answer_bytes = 100000;
    begin();
    RUN_UNTIL(events[PDR_PROBE_REPORTS_LOST] == 1, 3000);
    assert_non_null(strstr(last[PDR_PROBE_REPORTS_LOST].message, "longer than 100000 bytes"));
    assert_int_equal(state_now(), PDR_STATE_READY);
    server.body_len[P_LOADS] = 99000;
    RUN_UNTIL(events[PDR_PROBE_REPORTS_BACK] == 1, 3000);
    assert_int_equal(target().reported_running, 3);
    server.body[P_LOADS] = LOADS;
    server.body_len[P_LOADS] = sizeof LOADS - 1;
}

static void hanging_reports_do_not_take_out(void **state)
{
    (void)state;
    options.timeout_ms = 200;
    server.status[P_LOADS] = 999;
    begin();
    RUN_UNTIL(events[PDR_PROBE_REPORTS_LOST] == 1, 4000);
    assert_int_equal(state_now(), PDR_STATE_READY);
    assert_int_equal(events[PDR_PROBE_DOWN], 0);
}

static void hanging_health_takes_out(void **state)
{
    (void)state;
    options.timeout_ms = options.health_timeout_ms = 200;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    server.status[P_HEALTH] = 999;
    RUN_UNTIL(events[PDR_PROBE_DOWN] == 1, 3000);
    assert_non_null(strstr(last[PDR_PROBE_DOWN].message, "imeout"));
    server.status[P_HEALTH] = 200;
    RUN_UNTIL(events[PDR_PROBE_UP] == 2, 1200);
}

static void without_health_reports_decide(void **state)
{
    (void)state;
    options.flags = PDR_PROBE_NO_HEALTH;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe) && target().reported_running == 3, 3000);
    assert_int_equal(server.asked[P_HEALTH], 0);
    server.status[P_LOADS] = 503;
    RUN_UNTIL(state_now() == PDR_STATE_DOWN, 3000);
    server.status[P_LOADS] = 200;
    RUN_UNTIL(state_now() == PDR_STATE_READY, 1500);
    assert_int_equal(server.asked[P_HEALTH], 0);
}

static void endpoints_come_go_and_move(void **state)
{
    struct server second;
    pdr_endpoint  e;
    uint32_t      id;
    int           before;
    (void)state;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    server_start(&second);
    id = put_endpoint(router, "new", PDR_ROLE_PREFILL, (uint32_t)second.port);
    RUN_UNTIL(events[PDR_PROBE_UP] == 2, 1500);
    assert_string_equal(last[PDR_PROBE_UP].name, "new");
    assert_int_equal(probe_stats().endpoints, 2);
    assert_int_equal(pdr_endpoint_remove(router, id, NULL), PDR_OK);
    RUN_UNTIL(probe_stats().endpoints == 1, 1500);
    run_for(100);
    before = second.asked[P_LOADS];
    run_for(400);
    assert_int_equal(second.asked[P_LOADS], before);
    e = make_endpoint("d", PDR_ROLE_DECODE, (uint32_t)second.port); /* the same name at another address */
    assert_int_equal(pdr_endpoint_put(router, &e, pdr_host_now_ns(), &endpoint, NULL), PDR_OK);
    RUN_UNTIL(events[PDR_PROBE_UP] == 3 && second.asked[P_INFO] == 2, 2000);
    server_stop(&second);
}

static void what_the_block_forgot_is_said_again(void **state)
{
    pdr_endpoint e;
    (void)state;
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    server.status[P_HEALTH] = 500;
    RUN_UNTIL(state_now() == PDR_STATE_DOWN, 3000);
    assert_int_equal(pdr_endpoint_remove(router, endpoint, NULL), PDR_OK);
    e = make_endpoint("d", PDR_ROLE_DECODE, (uint32_t)server.port);
    assert_int_equal(pdr_endpoint_put(router, &e, pdr_host_now_ns(), &endpoint, NULL), PDR_OK);
    assert_int_equal(state_now(), PDR_STATE_READY);
    RUN_UNTIL(state_now() == PDR_STATE_DOWN, 1000);
}

/* The router refuses such hosts; the prober does not rely on that, since a block is memory that others write to. */
static void a_host_cannot_smuggle_a_url(void **state)
{
    static const char *const hosts[] = {"127.0.0.1/", "127.0.0.1?", "127.0.0.1#", "u@127.0.01", "127.0.0.1 ", "127.0.0.1\\", "[::1]:::::"};
    pdr_endpoint             e = make_endpoint("odd", PDR_ROLE_DECODE, (uint32_t)server.port);
    pdr_host_info            info;
    char                    *at;
    int                      downs = 0;
    (void)state;
    pdr_init_struct(&info, sizeof info);
    assert_int_equal(pdr_host_info_get(host, &info), PDR_OK);
    snprintf(e.host, sizeof e.host, "127.0.0.99");
    assert_int_equal(pdr_endpoint_put(router, &e, pdr_host_now_ns(), NULL, NULL), PDR_OK);
    at = memmem(router, info.size, e.host, strlen(e.host) + 1);
    assert_non_null(at);
    begin();
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        assert_int_equal(strlen(hosts[i]), strlen(e.host));
        memcpy(at, hosts[i], strlen(hosts[i]));
        downs++;
        RUN_UNTIL(events[PDR_PROBE_DOWN] == downs, 2500);
        assert_non_null(strstr(last[PDR_PROBE_DOWN].message, "is not a host name or address"));
    }
    assert_int_equal(server.asked[P_OTHER], 0);
}

static void key_is_sent_and_compressed_answers_are_read(void **state)
{
    static const unsigned char gzip[] = { /* of LOADS: printf | gzip -9 */
#include "host_loads_gzip.inc"
    };
    (void)state;
    server.body[P_LOADS] = (const char *)gzip;
    server.body_len[P_LOADS] = sizeof gzip;
    server.encoding = "gzip";
    options.authorization = "Bearer sesame";
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    assert_int_equal(target().reported_running, 3);
    assert_true(server.authorized >= 3);
}

static void environment_proxy_is_ignored(void **state)
{
    (void)state;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    begin();
    RUN_UNTIL(!pdr_probe_pending(probe), 3000);
    unsetenv("http_proxy");
    assert_int_equal(state_now(), PDR_STATE_READY);
}

static void no_more_at_once_than_allowed(void **state)
{
    (void)state;
    options.max_active = 2;
    for (int i = 0; i < 20; i++) {
        char         name[16];
        pdr_endpoint e;
        snprintf(name, sizeof name, "n%d", i);
        e = make_endpoint(name, PDR_ROLE_DECODE, (uint32_t)server.port);
        snprintf(e.host, sizeof e.host, "127.0.0.%d", 2 + i);
        assert_int_equal(pdr_endpoint_put(router, &e, pdr_host_now_ns(), NULL, NULL), PDR_OK);
    }
    begin();
    for (int i = 0; i < 200; i++) {
        assert_int_equal(pdr_probe_run(probe, 5, NULL, NULL), PDR_OK);
        assert_true(probe_stats().active <= 2);
    }
    assert_int_equal(probe_stats().endpoints, 21);
    RUN_UNTIL(probe_stats().down == 20 && probe_stats().up == 1, 10000); /* nobody starves */
}

static void bad_arguments(void **state)
{
    pdr_probe *p;
    (void)state;
    assert_int_equal(pdr_probe_new(NULL, NULL, &p, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_probe_run(NULL, 0, NULL, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_probe_new(router, NULL, &probe, NULL), PDR_OK); /* all defaults */
    pdr_probe_free(NULL);
}

static void loop_ends_when_told(void **state)
{
    volatile int stop = 1;
    (void)state;
    begin();
    assert_int_equal(pdr_probe_loop(probe, &stop, NULL), PDR_OK);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_small, close_small)
    const struct CMUnitTest tests[] = {
        T(goes_up_and_reports), T(goes_down_quickly_and_is_back_within_a_second), T(unhealthy_status_takes_out),
        T(one_failure_is_not_an_outage), T(falls_back_to_metrics), T(unreadable_loads_fall_back_to_metrics),
        T(server_without_reports_is_up_all_the_same), T(a_wrong_role_is_told), T(moments_spread), T(too_long_an_answer_is_cut_off),
        T(hanging_reports_do_not_take_out),
        T(hanging_health_takes_out), T(without_health_reports_decide), T(endpoints_come_go_and_move),
        T(what_the_block_forgot_is_said_again), T(a_host_cannot_smuggle_a_url), T(key_is_sent_and_compressed_answers_are_read),
        T(environment_proxy_is_ignored), T(no_more_at_once_than_allowed), T(bad_arguments), T(loop_ends_when_told),
    };
    pdr_probe *p;
    if (pdr_probe_new((pdr_router *)test_dir, NULL, &p, NULL) == PDR_E_UNSUPPORTED) {
        print_message("built without libcurl: nothing to test\n");
        return 0;
    }
    pdr_probe_free(p);
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
