/*
 * Sequences of calls: bytes become calls of the public API on one router with small tables. After every few calls all invariants of the block
 * are checked; at the end everything is given back and must add up to nothing. With the top bit of the first byte everything is recorded as well, and the record, replayed,
 * makes the same decisions.
 */
#include "pdroute/pdroute.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                                      \
    do {                                                                                                                                     \
        if (!(condition)) {                                                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, err.message);                                                 \
            abort();                                                                                                                         \
        }                                                                                                                                    \
    } while (0)

enum { BOOKINGS = 64, EXCHANGES = 8 };

typedef struct input {
    const uint8_t *at, *end;
} input;

static uint32_t byte(input *in) { return in->at < in->end ? *in->at++ : 0; }

typedef struct world {
    pdr_router  *r;
    uint64_t     now;
    uint32_t     lease[3];
    uint64_t     booking[BOOKINGS];
    uint32_t     bookings;
    pdr_exchange exchange[EXCHANGES];
    uint32_t     live[EXCHANGES];
    uint8_t     *tape; /* a recording so far, NULL: none */
    size_t       tape_n, tape_cap;
    uint64_t     cursor, lost;
} world;

static void tape_down(world *w, const void *p, size_t n)
{
    if (w->tape_n + n > w->tape_cap) w->tape = realloc(w->tape, w->tape_cap = 2 * (w->tape_n + n));
    if (!w->tape) abort();
    memcpy(w->tape + w->tape_n, p, n);
    w->tape_n += n;
}

static void listen_to(world *w)
{
    static uint8_t buf[1 << 16];
    size_t         n;
    pdr_error      err;
    pdr_init_struct(&err, sizeof err);
    do {
        MUST(pdr_record_read(w->r, &w->cursor, w->now, buf, sizeof buf, &n, &w->lost) == PDR_OK);
        tape_down(w, buf, n);
    } while (n);
}

static void replay(world *w)
{
    pdr_replay     *p;
    pdr_replay_step s;
    pdr_endpoint    e;
    pdr_error       err;
    uint8_t         end[64];
    size_t          need;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&s, sizeof s);
    pdr_init_struct(&e, sizeof e);
    listen_to(w);
    MUST(pdr_record_trailer(end, sizeof end, &need) == PDR_OK);
    tape_down(w, end, need);
    MUST(w->lost == 0 && pdr_replay_open(w->tape, w->tape_n, 0, &p, &err) == PDR_OK);
    int code;
    while (!(code = pdr_replay_next(p, PDR_NONE, &s, &err))) {
        MUST(!s.checked || s.same);
        if (s.kind == PDR_REPLAY_ROUTED && s.recorded.outcome == PDR_SEND) MUST(pdr_replay_endpoint(p, s.recorded.decode, &e) == PDR_OK);
    }
    MUST(code == PDR_E_NOT_FOUND);
    pdr_replay_close(p);
    free(w->tape);
}

static pdr_prompt prompt_of(input *in, uint64_t *hashes)
{
    pdr_prompt p;
    uint32_t   shape = byte(in), sequence = byte(in) % 5;
    pdr_init_struct(&p, sizeof p);
    p.api = shape % 16 == 15 ? PDR_API_OTHER : PDR_API_CHAT;
    p.flags = shape & 16 ? PDR_PROMPT_TOKENS : 0;
    p.batch = shape & 32 ? 1 + byte(in) % 4 : 1;
    p.samples = shape & 64 && shape & 1 ? 2 : 1;
    p.blocks = byte(in) % 40;
    p.prompt_tokens = shape & 16 ? p.blocks * 128u + 1 : 0;
    p.prompt_bytes = p.blocks * 512u + 1;
    p.priority = (int)(shape & 3) - 1;
    for (uint32_t i = 0; i < p.blocks; i++) hashes[i] = (i < 3 ? i + 1 : (uint64_t)(sequence + 1) << 32 | i) * 0x9E3779B97F4A7C15u;
    return p;
}

static void put_endpoint(world *w, input *in)
{
    pdr_endpoint e;
    uint32_t     which = byte(in) % 10, how = byte(in);
    pdr_init_struct(&e, sizeof e);
    snprintf(e.name, sizeof e.name, "e%u", which);
    snprintf(e.host, sizeof e.host, "10.0.0.%u", how & 64 ? which + 20 : which);
    e.port = 80;
    e.role = 1 + how % 3;
    e.dp_size = how & 32 ? 3 : 0;
    if (how & 16) snprintf(e.topology_rack, sizeof e.topology_rack, "r%u", how & 3);
    e.kv_capacity = how & 8 ? 5000 : 0;
    pdr_endpoint_put(w->r, &e, w->now, NULL, NULL);
}

static void keep(world *w, uint64_t booking)
{
    if (w->bookings < BOOKINGS) w->booking[w->bookings++] = booking;
}

static void route(world *w, input *in)
{
    uint64_t     hashes[64];
    pdr_prompt   p = prompt_of(in, hashes);
    pdr_request  q;
    pdr_decision d;
    pdr_error    err;
    uint32_t     how = byte(in);
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&err, sizeof err);
    q.api = p.api;
    q.lease = w->lease[how % 3];
    q.now_ns = w->now;
    q.flags = how & 4 ? PDR_REQUEST_NO_HOLD : how & 8 ? PDR_REQUEST_DRY : 0;
    if (how & 16) q.excluded = 1, q.exclude[0] = byte(in) % 10;
    int code = pdr_route_prompt(w->r, &p, hashes, p.blocks, &q, &d, &err);
    MUST(code == PDR_OK || code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL || code == PDR_E_FULL || code == PDR_E_LEASE || code == PDR_E_UNSUPPORTED);
    if (code || q.flags & PDR_REQUEST_DRY) return;
    if (d.outcome == PDR_SEND) {
        MUST(d.decode != PDR_NONE && d.decode_host[0]);
        MUST(d.mode == PDR_MODE_SINGLE || (d.prefill != PDR_NONE && d.room >= 1 && d.room <= INT64_MAX && d.bootstrap_host[0]));
        for (uint32_t i = 0; d.mode == PDR_MODE_PD && d.prefill_rank != PDR_NONE && i < (d.batch ? d.batch : 1); i++)
            MUST(pdr_decision_room(&d, i) % d.prefill_dp_size == d.prefill_rank);
    }
    if (how & 32 && d.outcome == PDR_SEND) {
        for (int i = 0; i < EXCHANGES; i++) {
            pdr_action act[PDR_MAX_ACTIONS];
            size_t     n = PDR_MAX_ACTIONS;
            if (w->live[i]) continue;
            pdr_init_struct(&w->exchange[i], sizeof w->exchange[i]);
            MUST(pdr_exchange_begin(w->r, &w->exchange[i], &d, q.lease, w->now, act, &n) == PDR_OK);
            w->live[i] = 1;
            return;
        }
    }
    keep(w, d.booking);
}

static void exchange_event(world *w, input *in)
{
    pdr_event  ev;
    pdr_action act[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    uint32_t   i = byte(in) % EXCHANGES, how = byte(in);
    if (!w->live[i]) return;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = 1 + how % 7;
    ev.leg = how >> 3 & 1;
    ev.status = (const uint32_t[]){200, 400, 429, 500, 503, 200, 200, 404}[how >> 4 & 7];
    ev.detail = 1 + how % 5;
    ev.attempt = w->exchange[i].attempt;
    ev.now_ns = w->now;
    ev.usage = how & 1;
    ev.prompt_tokens = how * 7u;
    ev.cached_tokens = how;
    if (pdr_exchange_event(w->r, &w->exchange[i], &ev, act, &n)) return;
    for (size_t k = 0; k < n; k++) {
        if (act[k].type == PDR_ACT_FINISH) w->live[i] = 0;
        if (act[k].type == PDR_ACT_ROUTE) {
            size_t more = PDR_MAX_ACTIONS;
            pdr_exchange_rerouted(w->r, &w->exchange[i], NULL, PDR_E_NO_PAIR, w->now, act, &more);
            for (size_t j = 0; j < more; j++)
                if (act[j].type == PDR_ACT_FINISH) w->live[i] = 0;
            break;
        }
    }
}

static void report(world *w, input *in)
{
    pdr_load load;
    uint32_t how = byte(in);
    pdr_init_struct(&load, sizeof load);
    load.have = how * 0x4d5u & 0x3fff;
    load.running = how;
    load.kv_used = how * 900u;
    load.kv_capacity = how & 1 ? 100000 : 3000;
    load.waiting_tokens = how * 77u;
    load.prefill_uncached_total = w->now / 1000;
    load.prefill_busy_us_total = w->now / 500;
    pdr_load_put(w->r, byte(in) % 10, byte(in) % 3, &load, w->now, NULL);
}

/* What only looks, and what takes texts. */
static void look(world *w, input *in)
{
    static const char *const documents[] = {"{\"endpoints\":[{\"name\":\"e1\",\"host\":\"10.0.0.1\",\"port\":80,\"role\":\"prefill\"},{\"name\":\"e7\",\"host\":\"10.0.0.7\",\"port\":80,\"role\":\"decode\",\"dp_size\":2}]}",
                                            "{\"endpoints\":[{\"name\":\"e2\",\"host\":\"10.0.0.1\",\"port\":80,\"role\":\"both\"}]}", "{\"endpoints\":[]}"};
    static const char *const reports[] = {"sglang:num_running_reqs 3\nsglang:token_usage 0.5\n", "{\"loads\":[{\"dp_rank\":0,\"num_running_reqs\":2,\"num_waiting_reqs\":9}]}",
                                          "{\"disaggregation_mode\":\"prefill\",\"dp_size\":3,\"max_total_num_tokens\":9000,\"disaggregation_bootstrap_port\":77}"};
    static char       text[1 << 16];
    pdr_candidate     candidate[32];
    pdr_log_record    record;
    pdr_target_status target;
    pdr_endpoint      e;
    pdr_request       q;
    pdr_decision      d;
    pdr_error         err;
    uint64_t          hashes[64], cursor = 0, lost = 0;
    uint32_t          how = byte(in), id = byte(in) % 10, at = 0, state;
    size_t            n = 32;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&record, sizeof record);
    pdr_init_struct(&target, sizeof target);
    pdr_init_struct(&e, sizeof e);
    pdr_init_struct(&q, sizeof q);
    pdr_init_struct(&d, sizeof d);
    switch (how % 8) {
    case 0: pdr_apply_json(w->r, documents[how / 8 % 3], strlen(documents[how / 8 % 3]), how >> 6 & 1 ? PDR_APPLY_PRUNE : 0, w->now, NULL, &err); break;
    case 1: pdr_report_put(w->r, id, 1 + how / 8 % 3, reports[how / 8 % 3], strlen(reports[how / 8 % 3]), w->now, NULL, &err); break;
    case 2: {
        pdr_prompt p = prompt_of(in, hashes);
        q.lease = w->lease[0];
        q.now_ns = w->now;
        (void)pdr_explain(w->r, &p, hashes, p.blocks, &q, &d, candidate, &n, &err);
        for (size_t i = 0; i < n && i < 32; i++) MUST(!pdr_endpoint_get(w->r, candidate[i].endpoint, &e, &state));
        break;
    }
    case 3:
        for (uint64_t last = 0; !pdr_log_read(w->r, &cursor, &record, &lost); last = record.number) MUST(record.number > last && record.candidates <= PDR_LOG_CANDIDATES);
        break;
    case 4: MUST(pdr_status_prometheus(w->r, w->now, text, sizeof text, &n) == PDR_OK); break;
    case 5:
        while (!pdr_endpoint_next(w->r, &at, &id)) MUST(!pdr_target_get(w->r, id, 0, w->now, &target) && target.state != PDR_STATE_REMOVED);
        break;
    case 6: MUST(pdr_status_json(w->r, w->now, text, sizeof text, &n) == PDR_OK); break;
    default: {
        pdr_prompt p = prompt_of(in, hashes);
        if (!pdr_prefix_match(w->r, id, 0, hashes, p.blocks, &n)) MUST(n <= p.blocks);
        (void)pdr_lease_renew(w->r, w->lease[how / 8 % 3], w->now);
        (void)pdr_ready(w->r, w->now);
        break;
    }
    }
}

static void step(world *w, input *in)
{
    pdr_decision d;
    pdr_error    err;
    uint64_t     tickets[4], hashes[64];
    uint32_t     op = byte(in), leases[4];
    size_t       n = 4;
    pdr_init_struct(&d, sizeof d);
    pdr_init_struct(&err, sizeof err);
    if (op >= 232) {
        look(w, in);
        return;
    }
    switch (op % 16) {
    case 0: put_endpoint(w, in); break;
    case 1: pdr_endpoint_remove(w->r, byte(in) % 10, NULL); break;
    case 2: pdr_endpoint_health(w->r, byte(in) % 10, (int)(byte(in) & 1), w->now, NULL); break;
    case 3: pdr_endpoint_drain(w->r, byte(in) % 10, (int)(byte(in) & 1), NULL); break;
    case 4: w->now += (uint64_t)byte(in) * 10000000; break;
    case 5: w->now += (uint64_t)byte(in) * 100000; break;
    case 6: pdr_tick(w->r, w->now); break;
    case 7:
        pdr_wakeups(w->r, leases, &n);
        n = 4;
        if (pdr_released(w->r, w->lease[byte(in) % 3], tickets, &n)) break;
        for (size_t i = 0; i < n; i++) pdr_ticket_take(w->r, tickets[i], NULL, 0, w->now, &d, NULL);
        break;
    case 8: {
        uint32_t k = byte(in) % 3;
        pdr_lease_break(w->r, w->lease[k], w->now);
        MUST(pdr_lease_open(w->r, "x", w->now, &w->lease[k], &err) == PDR_OK);
        break;
    }
    case 9: report(w, in); break;
    case 10: {
        pdr_prompt p = prompt_of(in, hashes);
        uint32_t   e = byte(in) % 10;
        if (op & 16)
            pdr_prefix_store(w->r, e, 0, hashes, p.blocks);
        else if (op & 32)
            pdr_prefix_remove(w->r, e, 0, hashes, p.blocks);
        else
            pdr_prefix_clear(w->r, e, 0);
        break;
    }
    case 11:
        if (w->bookings) {
            uint32_t i = byte(in) % w->bookings;
            uint64_t id = w->booking[i];
            if (op & 16) {
                pdr_booking_done(w->r, id, PDR_DONE_PREFILL, w->now);
                break;
            }
            pdr_place place = {.struct_size = sizeof place};
            if (!pdr_ticket_place(w->r, id, w->now, &place, NULL) && place.place >= place.held) abort();
            if (op & 32)
                pdr_ticket_cancel(w->r, id, w->now);
            else
                pdr_booking_done(w->r, id, PDR_DONE_ALL, w->now);
            w->booking[i] = w->booking[--w->bookings];
        }
        break;
    case 12:
    case 13: exchange_event(w, in); break;
    default: route(w, in); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void *mem;
    static size_t have;
    world      w = {0};
    input      in = {data, data + size};
    pdr_config c;
    pdr_error  err;
    pdr_stats  s;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&c, sizeof c);
    c.max_endpoints = 8;
    c.max_targets = 14;
    c.max_bookings = 24;
    c.max_leases = 4;
    c.max_held = 6;
    c.index_entries = 200;
    c.log_entries = 4;
    c.hold_window_tokens = 3000;
    c.record_bytes = 1 << 16;
    uint32_t first = byte(&in);
    c.policy = first % 5;
    size_t need = pdr_router_size(&c);
    if (need > have) mem = aligned_alloc(64, (need + 63) & ~(size_t)63), have = need;
    MUST(pdr_router_init(mem, need, &c, 1, &w.r, &err) == PDR_OK);
    w.now = 1000000000;
    for (int i = 0; i < 3; i++) MUST(pdr_lease_open(w.r, "x", w.now, &w.lease[i], &err) == PDR_OK);
    if (first & 128) {
        uint8_t header[8192];
        MUST(pdr_record_header(w.r, header, sizeof header, &need) == PDR_OK);
        tape_down(&w, header, need);
        listen_to(&w);
    }
    for (int n = 0; in.at < in.end && n < 2000; n++) {
        step(&w, &in);
        if (w.tape) listen_to(&w);
        if (n % 8 == 0) MUST(pdr_router_check(w.r, &err) == PDR_OK);
    }
    MUST(pdr_router_check(w.r, &err) == PDR_OK);
    if (w.tape) replay(&w);
    for (int i = 0; i < 3; i++) pdr_lease_break(w.r, w.lease[i], w.now);
    pdr_init_struct(&s, sizeof s);
    pdr_stats_get(w.r, &s);
    MUST(s.bookings == 0 && s.held_now == 0 && s.rooms_live == 0 && s.leases == 0);
    MUST(pdr_router_check(w.r, &err) == PDR_OK);
    return 0;
}
