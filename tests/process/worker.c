/* One worker: every kind of call on the shared block at full speed until it is killed.   worker BLOCK BOARD SLOT SEED */
#include "process.h"

enum { FLIGHT = 12, KINDS = 100 };

typedef struct flight {
    pdr_exchange x;
    uint64_t     booking;
    int          held;
} flight;

static board         *shared;
static progress      *mine;
static pdr_host      *host;
static pdr_router    *router;
static pdr_host_lease lease;
static flight         flights[FLIGHT];
static int            in_flight;
static uint64_t       state;

static uint32_t random_below(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

#define begin() begin_at(__LINE__)
static void begin_at(uint32_t line)
{
    mine->line = line;
    __atomic_store_n(&mine->began_beat, __atomic_load_n(&shared->beats, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    __atomic_store_n(&mine->began_ns, pdr_host_now_ns(), __ATOMIC_RELEASE);
}

/* Notes what a call returned. `allowed` has a bit for each -code that may come: anything else ends the worker. */
static int end(const char *what, int code, uint64_t allowed, const pdr_error *err)
{
    const uint64_t took = pdr_host_now_ns() - mine->began_ns;
    if (took > mine->longest_ns) __atomic_store_n(&mine->longest_ns, took, __ATOMIC_RELAXED);
    __atomic_store_n(&mine->began_ns, 0, __ATOMIC_RELAXED);
    __atomic_add_fetch(&mine->calls, 1, __ATOMIC_RELAXED);
    if (code <= 0 && code > -CODES) mine->code[-code]++;
    if (code <= 0 && (code == PDR_OK || (code > -64 && allowed >> -code & 1))) return code;
    if (!mine->failure[0])
        snprintf(mine->failure, sizeof mine->failure, "%s: %d (%s) %s", what, code, pdr_strerror(code), err ? err->message : "");
    _exit(1);
}

#define MAY(code)  (1ull << -(code))
#define BUSY       MAY(PDR_E_BUSY)
#define GONE       (BUSY | MAY(PDR_E_NOT_FOUND) | MAY(PDR_E_LEASE))
#define REFUSED    (GONE | MAY(PDR_E_NO_PAIR) | MAY(PDR_E_QUEUE_FULL) | MAY(PDR_E_FULL) | MAY(PDR_E_EXPIRED))

static void drop(int i) { flights[i] = flights[--in_flight]; }

static void sent(flight *f, const pdr_decision *d)
{
    pdr_action a[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    f->held = 0;
    f->booking = d->booking;
    for (uint32_t i = 0; d->mode == PDR_MODE_PD && i < (d->batch ? d->batch : 1); i++)
        if (!pdr_decision_room(d, i) || board_room(shared, pdr_decision_room(d, i))) end("a room that was drawn before", 1, 0, NULL);
    pdr_init_struct(&f->x, sizeof f->x);
    begin();
    end("exchange_begin", pdr_exchange_begin(router, &f->x, d, lease.id, pdr_host_now_ns(), a, &n), BUSY, NULL);
}

static void route(void)
{
    char         body[6000];
    pdr_request  q;
    pdr_decision d;
    pdr_error    err;
    if (in_flight == FLIGHT) return;
    uint32_t talk = random_below(64), turns = 1 + random_below(40);
    int      len = snprintf(body, sizeof body, "{\"model\":\"m\",\"text\":%s\"talk %u", random_below(8) ? "" : "[\"first\",", talk);
    int      list = strstr(body, "[\"first") != NULL;
    for (uint32_t i = 0; i < turns; i++) len += snprintf(body + len, sizeof body - (size_t)len, " turn %u of %u: what was said in it, at some length, over and over", i, talk);
    len += snprintf(body + len, sizeof body - (size_t)len, "\"%s,\"stream\":true}", list ? "]" : "");
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&err, sizeof err);
    q.api = PDR_API_GENERATE;
    q.lease = lease.id;
    q.now_ns = pdr_host_now_ns();
    q.flags = random_below(4) ? 0 : PDR_REQUEST_NO_HOLD;
    begin();
    if (end("route", pdr_route(router, body, (size_t)len, &q, NULL, &d, &err), REFUSED, &err)) return;
    __atomic_add_fetch(&mine->routed, 1, __ATOMIC_RELAXED);
    flight *f = &flights[in_flight++];
    if (d.outcome == PDR_SEND) {
        sent(f, &d);
    } else {
        f->held = 1;
        f->booking = d.booking;
    }
}

/* One more event of a request in flight; held ones are asked for, rarely given up. */
static void advance(void)
{
    static const uint32_t usual[] = {PDR_EV_HEAD, PDR_EV_HEAD, PDR_EV_BODY, PDR_EV_END, PDR_EV_SENT};
    static const uint32_t unusual[] = {PDR_EV_FAILED, PDR_EV_CLIENT_GONE, PDR_EV_TICK, PDR_EV_END};
    pdr_action            a[PDR_MAX_ACTIONS];
    size_t                n = PDR_MAX_ACTIONS;
    pdr_event             ev;
    pdr_decision          d;
    pdr_error             err;
    if (!in_flight) return;
    int     i = (int)random_below((uint32_t)in_flight), code;
    flight *f = &flights[i];
    pdr_init_struct(&err, sizeof err);
    if (f->held) {
        pdr_init_struct(&d, sizeof d);
        begin();
        if (!random_below(50)) {
            if (!end("ticket_cancel", pdr_ticket_cancel(router, f->booking, pdr_host_now_ns()), GONE, NULL)) drop(i);
            return;
        }
        code = end("ticket_take", pdr_ticket_take(router, f->booking, NULL, 0, pdr_host_now_ns(), &d, &err), REFUSED | MAY(PDR_E_AGAIN), &err);
        if (!code) sent(f, &d);
        else if (code != PDR_E_AGAIN && code != PDR_E_BUSY) drop(i);
        return;
    }
    if (!random_below(24)) { /* a host without the exchange */
        begin();
        code = end("booking_done", pdr_booking_done(router, f->booking, 1 + random_below(2), pdr_host_now_ns()), GONE, NULL);
        if (code == PDR_E_NOT_FOUND) drop(i);
        return;
    }
    pdr_init_struct(&ev, sizeof ev);
    ev.type = random_below(32) ? usual[random_below(5)] : unusual[random_below(4)];
    ev.leg = random_below(2);
    ev.status = random_below(64) ? 200 : 503;
    ev.detail = 1 + random_below(5);
    ev.attempt = f->x.attempt;
    ev.now_ns = pdr_host_now_ns();
    ev.usage = 1;
    ev.prompt_tokens = 400 + random_below(200);
    ev.cached_tokens = random_below(400);
    ev.completion_tokens = random_below(100);
    begin();
    code = end("exchange_event", pdr_exchange_event(router, &f->x, &ev, a, &n), BUSY | MAY(PDR_E_INVALID), NULL);
    for (size_t k = 0; !code && k < n; k++) {
        if (a[k].type == PDR_ACT_ROUTE) {
            size_t m = PDR_MAX_ACTIONS;
            begin();
            end("exchange_rerouted", pdr_exchange_rerouted(router, &f->x, NULL, PDR_E_NO_PAIR, pdr_host_now_ns(), a, &m), BUSY, NULL);
            return;
        }
        if (a[k].type == PDR_ACT_FINISH) {
            drop(i);
            return;
        }
    }
    if (code == PDR_E_INVALID) { /* begun while the lock was not to be had */
        begin();
        end("booking_done", pdr_booking_done(router, f->booking, PDR_DONE_ALL, pdr_host_now_ns()), GONE, NULL);
        drop(i);
    }
}

static void change_servers(void)
{
    uint32_t     i = random_below(PREFILLS + DECODES), id = 0;
    pdr_endpoint e = server(i);
    pdr_error    err;
    uint64_t     now = pdr_host_now_ns();
    pdr_init_struct(&err, sizeof err);
    begin();
    if (end("endpoint_find", pdr_endpoint_find(router, e.name, &id), GONE, NULL) == PDR_OK && random_below(3)) {
        begin();
        switch (random_below(8)) {
        case 0: end("endpoint_remove", pdr_endpoint_remove(router, id, &err), GONE, &err); break;
        case 1: end("endpoint_drain", pdr_endpoint_drain(router, id, 1, &err), GONE, &err); break;
        case 2: end("endpoint_health", pdr_endpoint_health(router, id, 0, now, &err), GONE, &err); break;
        case 3: case 4: end("endpoint_drain", pdr_endpoint_drain(router, id, 0, &err), GONE, &err); break;
        default: end("endpoint_health", pdr_endpoint_health(router, id, 1, now, &err), GONE, &err); break;
        }
        return;
    }
    if (!random_below(4)) e.role = PDR_ROLE_BOTH;
    if (!random_below(4)) e.dp_size = random_below(4);
    begin();
    end("endpoint_put", pdr_endpoint_put(router, &e, now, &id, &err), BUSY | MAY(PDR_E_FULL) | MAY(PDR_E_EXISTS), &err);
}

static void report(void)
{
    static const char text[] = "sglang:num_running_reqs{engine_type=\"prefill\"} 3\nsglang:num_queue_reqs{engine_type=\"prefill\"} 1\nsglang:token_usage{engine_type=\"prefill\"} 0.25\n";
    uint64_t          hashes[64], first = random_below(1000);
    uint32_t          id = random_below(PREFILLS + DECODES), what = random_below(6);
    size_t            matched;
    pdr_load          load;
    for (uint64_t i = 0; i < 64; i++) hashes[i] = (first + i) * 0x9E3779B97F4A7C15u;
    pdr_init_struct(&load, sizeof load);
    load.have = PDR_LOAD_RUNNING | PDR_LOAD_KV_USED | PDR_LOAD_KV_CAPACITY;
    load.running = random_below(10);
    load.kv_used = random_below(100000);
    load.kv_capacity = 200000;
    begin();
    if (what == 0) end("report_put", pdr_report_put(router, id, PDR_REPORT_PROMETHEUS, text, sizeof text - 1, pdr_host_now_ns(), NULL, NULL), GONE, NULL);
    else if (what < 3) end("load_put", pdr_load_put(router, id, 0, &load, pdr_host_now_ns(), NULL), GONE, NULL);
    else if (what == 3) end("prefix_store", pdr_prefix_store(router, id, 0, hashes, 64), GONE, NULL);
    else if (what == 4) end("prefix_remove", random_below(8) ? pdr_prefix_remove(router, id, 0, hashes, 32) : pdr_prefix_clear(router, id, 0), GONE, NULL);
    else end("prefix_match", pdr_prefix_match(router, id, 0, hashes, 64, &matched), GONE, NULL);
}

static void look(void)
{
    static char    buf[1 << 16];
    static uint64_t cursor;
    pdr_log_record record;
    pdr_stats      s;
    size_t         need;
    pdr_init_struct(&record, sizeof record);
    pdr_init_struct(&s, sizeof s);
    begin();
    switch (random_below(4)) {
    case 0: end("status_json", pdr_status_json(router, pdr_host_now_ns(), buf, sizeof buf, &need), BUSY, NULL); break;
    case 1: end("log_read", pdr_log_read(router, &cursor, &record, NULL), GONE, NULL); break;
    default: end("stats_get", pdr_stats_get(router, &s), BUSY, NULL); break;
    }
}

static void housekeeping(int slot)
{
    uint64_t  tickets[16];
    uint32_t  broken;
    size_t    n = 16;
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    begin();
    if (slot % 2)
        end("tick", pdr_tick(router, pdr_host_now_ns()), BUSY, NULL);
    else
        end("reap", pdr_host_reap(host, pdr_host_now_ns(), &broken), GONE, NULL);
    begin();
    end("released", pdr_released(router, lease.id, tickets, &n), GONE, NULL);
    begin();
    int code = end("lease_renew", pdr_host_lease_renew(host, &lease, pdr_host_now_ns(), &err), GONE | MAY(PDR_E_FULL), &err);
    if (code == PDR_E_LEASE) in_flight = 0; /* stopped for too long: what was booked is gone */
}

int main(int argc, char **argv)
{
    pdr_error err;
    if (argc != 5 || !(shared = board_map(argv[2], 0))) return 2;
    int slot = atoi(argv[3]);
    mine = &shared->worker[slot];
    state = strtoull(argv[4], NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    pdr_init_struct(&err, sizeof err);
    begin();
    end("open", pdr_host_open(argv[1], NULL, 0, &host, &router, &err), 0, &err);
    begin();
    end("lease_open", pdr_host_lease_open(host, "torture", pdr_host_now_ns(), &lease, &err), BUSY, &err);
    for (;;) {
        uint32_t kind = random_below(KINDS);
        if (kind < 22) route();
        else if (kind < 80) advance();
        else if (kind < 84) change_servers();
        else if (kind < 92) report();
        else if (kind < 96) look();
        else housekeeping(slot);
    }
}
