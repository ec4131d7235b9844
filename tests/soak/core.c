/*
 * Soak of the core: soak_core REQUESTS. One router, 12 prefill and 12 decode servers, up to 64 requests at once, held ones included, in virtual time, through the public calls: shared
 * prefixes, streams, retries, servers that refuse, reset, answer 429 and 500 or say nothing, clients that leave, servers that go down, drain and come back.
 *
 * Demands: every request ends as exactly one of an answer, a named error, a client that left; the router's counters say the same to the unit; nothing is
 * booked, held or live at the end and all invariants hold; memory and the time of a decision are the same in the last tenth as in the second.
 */
#include "pdroute/pdroute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ull

enum { PREFILLS = 12, DECODES = 12, SLOTS = 64, WINDOWS = 10, BLOCKS = 64, BUCKETS = 4096 /* of 16 ns */ };
enum { EMPTY, HELD, FLIGHT };
enum { P = PDR_LEG_PREFILL, D = PDR_LEG_DECODE };

typedef struct slot {
    int          state, stage, responded, hangs;
    uint32_t     talk;
    pdr_exchange x;
    pdr_decision d;
    pdr_prompt   prompt;
    uint64_t     ticket;
} slot;

static pdr_router *r;
static uint64_t    now = 1000000 * MS, random_state = 88172645463325252u;
static uint32_t    lease;
static slot        slots[SLOTS];
static pdr_error   err;
static uint64_t    arrived, answered, left, errors[16], refused[32], held, taken, given_up, routes_ok, no_pair_on_retry, lost, full_on_retry;
static uint32_t    histogram[WINDOWS][BUCKETS];

#define MUST(condition)                                                                               \
    do {                                                                                              \
        if (!(condition)) {                                                                           \
            fprintf(stderr, "FAIL %s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, err.message);    \
            exit(1);                                                                                  \
        }                                                                                             \
    } while (0)

static uint32_t below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) % n);
}

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static long resident_kb(void)
{
    long  pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A turn of one of many talks: the longer one has gone on, the more blocks; some 2,000 talks, few of them loud. */
static void make_prompt(slot *s, uint64_t *hash)
{
    uint32_t blocks = 2 + s->talk % (BLOCKS - 2);
    pdr_init_struct(&s->prompt, sizeof s->prompt);
    s->prompt.api = PDR_API_CHAT;
    s->prompt.flags = PDR_PROMPT_TOKENS | (s->talk & 1 ? PDR_PROMPT_STREAM : 0u);
    s->prompt.batch = s->prompt.samples = 1;
    s->prompt.prompt_tokens = blocks * 128u + 17;
    s->prompt.blocks = blocks;
    for (uint32_t i = 0; i < blocks; i++) hash[i] = i < 2 ? i + 1 : ((uint64_t)(s->talk + 1) << 20 | i) * 0x9E3779B97F4A7C15u;
}

static int route(slot *s, uint32_t flags, const pdr_exchange *x, uint32_t window)
{
    uint64_t    hash[BLOCKS];
    pdr_request q;
    make_prompt(s, hash);
    pdr_init_struct(&q, sizeof q);
    q.api = PDR_API_CHAT;
    q.lease = lease;
    q.now_ns = now;
    q.flags = flags;
    q.tenant = s->talk % 5;
    if (x) {
        q.excluded = x->excluded;
        memcpy(q.exclude, x->exclude, sizeof q.exclude);
    }
    pdr_init_struct(&s->d, sizeof s->d);
    uint64_t begin = clock_ns();
    int      code = pdr_route_prompt(r, &s->prompt, hash, s->prompt.blocks, &q, &s->d, &err);
    uint64_t bucket = (clock_ns() - begin) / 16;
    histogram[window][bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    routes_ok += !code;
    return code;
}

static void carry_out(slot *s, const pdr_action *act, size_t n, uint32_t window);

static void event(slot *s, uint32_t type, uint32_t leg, uint32_t value, uint32_t window)
{
    pdr_event  ev;
    pdr_action act[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.attempt = s->x.attempt;
    ev.now_ns = now;
    if (type == PDR_EV_HEAD) ev.status = value;
    if (type == PDR_EV_HEAD && value == 429) ev.retry_after_ms = 200;
    if (type == PDR_EV_FAILED) ev.detail = value;
    if (type == PDR_EV_END && leg == D) {
        ev.usage = 1;
        ev.prompt_tokens = s->prompt.prompt_tokens;
        ev.cached_tokens = s->d.matched_tokens;
        ev.completion_tokens = 20 + below(300);
    }
    MUST(pdr_exchange_event(r, &s->x, &ev, act, &n) == PDR_OK);
    carry_out(s, act, n, window);
}

static void carry_out(slot *s, const pdr_action *act, size_t n, uint32_t window)
{
    pdr_action next[PDR_MAX_ACTIONS];
    int        asked = 0;
    for (size_t i = 0; i < n; i++) {
        switch (act[i].type) {
        case PDR_ACT_RESPOND:
        case PDR_ACT_ABORT:
            MUST(!s->responded && act[i].reason && act[i].reason < 16 && strcmp(pdr_reason_name(act[i].reason), "unknown"));
            s->responded = 1;
            errors[act[i].reason]++;
            break;
        case PDR_ACT_ROUTE: asked = 1; break;
        case PDR_ACT_FINISH:
            MUST(s->state == FLIGHT);
            if (!s->responded) s->stage == 99 ? left++ : answered++;
            s->state = EMPTY;
            break;
        default: break;
        }
    }
    if (!asked) return;
    size_t m = PDR_MAX_ACTIONS;
    int    code = route(s, PDR_REQUEST_NO_HOLD, &s->x, window);
    no_pair_on_retry += code == PDR_E_NO_PAIR;
    full_on_retry += code == PDR_E_QUEUE_FULL;
    s->stage = 0;
    MUST(pdr_exchange_rerouted(r, &s->x, code ? NULL : &s->d, code, now, next, &m) == PDR_OK);
    carry_out(s, next, m, window);
}

static void begin(slot *s, uint32_t window)
{
    pdr_action act[PDR_MAX_ACTIONS];
    size_t     n = PDR_MAX_ACTIONS;
    s->state = FLIGHT;
    s->stage = s->responded = 0;
    s->hangs = !below(4000);
    pdr_init_struct(&s->x, sizeof s->x);
    MUST(pdr_exchange_begin(r, &s->x, &s->d, lease, now, act, &n) == PDR_OK);
    carry_out(s, act, n, window);
}

static void arrive(slot *s, uint32_t window)
{
    arrived++;
    s->talk = below(8) ? below(200) : below(2000);
    int code = route(s, 0, NULL, window);
    if (code) {
        MUST(code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL || code == PDR_E_FULL);
        refused[-code]++;
    } else if (s->d.outcome == PDR_HELD) {
        held++;
        s->state = HELD;
        s->ticket = s->d.booking;
    } else {
        begin(s, window);
    }
}

static void ask_for(slot *s, uint32_t window)
{
    if (!below(300)) { /* the client leaves */
        MUST(pdr_ticket_cancel(r, s->ticket, now) == PDR_OK);
        given_up++;
        left++;
        s->state = EMPTY;
        return;
    }
    pdr_init_struct(&s->d, sizeof s->d);
    int code = pdr_ticket_take(r, s->ticket, NULL, 0, now, &s->d, &err);
    if (code == PDR_E_AGAIN) return;
    if (code) {
        lost += code == PDR_E_NOT_FOUND; /* not fetched in time: given back */
        refused[-code]++;
        s->state = EMPTY;
    } else {
        taken++;
        begin(s, window);
    }
}

/* The next thing that happens to a request under way; one in a hundred goes wrong, and one in four thousand hangs until its deadline. */
static void go_on(slot *s, uint32_t window)
{
    static const uint32_t how[] = {PDR_FAIL_CONNECT, PDR_FAIL_STALE, PDR_FAIL_RESET, PDR_FAIL_TIMEOUT, PDR_FAIL_PROTOCOL};
    static const struct { uint32_t type, leg, value; } usual[] = {{PDR_EV_HEAD, D, 200}, {PDR_EV_HEAD, P, 200}, {PDR_EV_END, P, 0}, {PDR_EV_BODY, D, 0}, {PDR_EV_SENT, D, 0}, {PDR_EV_END, D, 0}};
    static const uint32_t bad[] = {500, 503, 429, 400};
    if (s->hangs) {
        uint64_t due = pdr_exchange_deadline(&s->x);
        s->hangs = 0;
        if (due > now && due < now + 3000 * MS) now = due;
        event(s, PDR_EV_TICK, 0, 0, window);
    } else if (!below(400)) {
        s->stage = 99;
        event(s, PDR_EV_CLIENT_GONE, 0, 0, window);
        if (s->state == FLIGHT) s->stage = 50; /* prefill's answer is read to its end */
        if (s->state == FLIGHT) event(s, PDR_EV_END, P, 0, window);
        if (s->state == FLIGHT) event(s, PDR_EV_FAILED, P, PDR_FAIL_RESET, window);
    } else if (!below(120)) {
        event(s, PDR_EV_FAILED, below(2), how[below(5)], window);
    } else if (!below(150) && s->stage < 3) {
        event(s, PDR_EV_HEAD, below(2), bad[below(4)], window);
    } else if (s->stage < 6) {
        int stage = s->stage++;
        event(s, usual[stage].type, usual[stage].leg, usual[stage].value, window);
    } else {
        event(s, PDR_EV_END, below(2), 0, window); /* whichever leg is still there */
        if (s->state == FLIGHT) event(s, PDR_EV_FAILED, below(2), PDR_FAIL_RESET, window);
    }
}

static void change_the_fleet(void)
{
    uint32_t id = below(PREFILLS + DECODES);
    switch (below(4)) {
    case 0: pdr_endpoint_health(r, id, 0, now, NULL); break;
    case 1: pdr_endpoint_drain(r, id, 1, NULL); break;
    default: break;
    }
    for (uint32_t i = 0; i < PREFILLS + DECODES; i++) {
        if (below(3)) continue;
        pdr_endpoint_health(r, i, 1, now, NULL);
        pdr_endpoint_drain(r, i, 0, NULL);
    }
}

static void open_router(void)
{
    pdr_config   c;
    pdr_endpoint e;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&c, sizeof c);
    c.max_endpoints = 64;
    c.max_bookings = 1024;
    c.max_held = 24;
    c.index_entries = 1 << 16;
    c.seed = 1;
    c.first_byte_timeout_ms = c.first_byte_least_ms = 2000;
    c.hold_max_wait_ms = 4000;
    size_t size = (pdr_router_size(&c) + 63) & ~(size_t)63;
    void  *mem = aligned_alloc(64, size);
    MUST(mem);
    memset(mem, 0xA5, size); /* no page comes later */
    MUST(!pdr_router_init(mem, size, &c, 7, &r, &err));
    for (uint32_t i = 0; i < PREFILLS + DECODES; i++) {
        pdr_init_struct(&e, sizeof e);
        snprintf(e.host, sizeof e.host, "10.0.%u.%u", i / PREFILLS, i % PREFILLS + 1);
        e.port = 8000;
        e.role = i < PREFILLS ? PDR_ROLE_PREFILL : PDR_ROLE_DECODE;
        MUST(!pdr_endpoint_put(r, &e, now, NULL, &err));
    }
    MUST(!pdr_lease_open(r, "soak", now, &lease, &err));
}

static uint32_t percentile(uint32_t window, uint32_t permille)
{
    uint64_t all = 0, sum = 0;
    for (uint32_t i = 0; i < BUCKETS; i++) all += histogram[window][i];
    for (uint32_t i = 0; i < BUCKETS; i++)
        if ((sum += histogram[window][i]) * 1000 >= all * permille) return i * 16;
    return BUCKETS * 16;
}

static uint64_t sum_of(const uint64_t *v, size_t n)
{
    uint64_t s = 0;
    for (size_t i = 0; i < n; i++) s += v[i];
    return s;
}

int main(int argc, char **argv)
{
    uint64_t requests = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, began = clock_ns();
    long     kb[WINDOWS];
    if (requests < 100 * WINDOWS) {
        fprintf(stderr, "usage: soak_core REQUESTS (at least 1000)\n");
        return 2;
    }
    memset(histogram, 0, sizeof histogram); /* pages that are there from the beginning */
    open_router();
    printf("%10s %9s %9s %9s %9s %9s\n", "requests", "RSS KB", "p50 ns", "p99 ns", "p99.9 ns", "held");
    for (uint32_t w = 0; w < WINDOWS; w++) {
        while (arrived < requests / WINDOWS * (w + 1)) {
            slot *s = &slots[below(SLOTS)];
            now += below(2000) * 1000;
            if (s->state == EMPTY) {
                if (!below(arrived >> 12 & 3 ? 30 : 5)) arrive(s, w); /* bursts: every fourth part of the time more than the fleet can do */
            }
            else if (s->state == HELD) ask_for(s, w);
            else go_on(s, w);
            if (!below(256)) {
                MUST(pdr_lease_renew(r, lease, now) == PDR_OK);
                MUST(pdr_tick(r, now) == PDR_OK);
            }
            if (!below(20000)) change_the_fleet();
        }
        MUST(pdr_router_check(r, &err) == PDR_OK);
        kb[w] = resident_kb();
        printf("%10llu %9ld %9u %9u %9u %9llu\n", (unsigned long long)arrived, kb[w], percentile(w, 500), percentile(w, 990), percentile(w, 999), (unsigned long long)held);
        fflush(stdout);
    }
    for (uint32_t i = 0; i < SLOTS; i++) /* what is under way comes to its end */
        while (slots[i].state != EMPTY) {
            now += 50 * MS;
            MUST(pdr_lease_renew(r, lease, now) == PDR_OK);
            if (slots[i].state == HELD) ask_for(&slots[i], WINDOWS - 1);
            else go_on(&slots[i], WINDOWS - 1);
            MUST(pdr_tick(r, now) == PDR_OK);
        }
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    MUST(pdr_stats_get(r, &s) == PDR_OK && pdr_router_check(r, &err) == PDR_OK);
    uint64_t named = sum_of(errors, 16), at_the_door = sum_of(refused, 32);
    printf("\n%llu requests = %llu answers + %llu errors of exchanges + %llu refused + %llu whose client left\n", (unsigned long long)arrived, (unsigned long long)answered,
           (unsigned long long)named, (unsigned long long)at_the_door, (unsigned long long)left);
    for (uint32_t i = 0; i < 16; i++)
        if (errors[i]) printf("  %-18s %llu\n", pdr_reason_name(i), (unsigned long long)errors[i]);
    for (int i = 0; i < 32; i++)
        if (refused[i]) printf("  %-18s %llu\n", pdr_strerror(-i), (unsigned long long)refused[i]);
    printf("held %llu, retried %llu, breakers opened %llu, timeouts %llu, prefix evictions %llu\n%.1f s\n", (unsigned long long)s.held, (unsigned long long)s.retried,
           (unsigned long long)s.breakers_opened, (unsigned long long)s.timeouts, (unsigned long long)s.prefix_evictions, (double)(clock_ns() - began) / 1e9);
    MUST(arrived == answered + named + at_the_door + left);
    MUST(s.finished == answered && s.failed == named);
    MUST(s.routed == routes_ok && s.held >= held && /* some go on at once */ s.cancelled == given_up);
    /* of the held ones that were refused some left before they heard of it */
    uint64_t no_pair = refused[-PDR_E_NO_PAIR] + no_pair_on_retry, unheard = given_up + lost;
    MUST(s.refused_no_pair >= no_pair && s.refused_no_pair <= no_pair + unheard);
    MUST(s.refused_queue_full == refused[-PDR_E_QUEUE_FULL] + full_on_retry);
    MUST(s.expired >= refused[-PDR_E_EXPIRED] && s.expired <= refused[-PDR_E_EXPIRED] + unheard && lost == refused[-PDR_E_NOT_FOUND]);
    MUST(!s.bookings && !s.held_now && !s.rooms_live && s.leases == 1 && s.lock_recoveries == 0 && s.leases_expired == 0);
    MUST(answered > arrived / 2 && held > arrived / 100 && s.retried > arrived / 1000 && named > arrived / 1000); /* all of it was exercised */
    MUST(kb[WINDOWS - 1] <= kb[1] + kb[1] / 100 + 64);
    /* a short run on a busy machine tells nothing about times */
    MUST(requests < 1000000 || percentile(WINDOWS - 1, 500) <= 2 * percentile(1, 500) + 100);
    printf("1 passed, 0 failed, 0 skipped\n");
    return 0;
}
