/*
 * Any sequence of events, of a host that is careless about order, attempts and time: the promises of lib/exchange.h
 * hold, and in the end time alone finishes what is left. The promises are those of tests/unit/exchange_model.h.
 */
#include "../tests/unit/exchange_model.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t *at, *stop;

static uint8_t byte(void) { return at < stop ? *at++ : 0; }

static void check(const node *s, const char *promise)
{
    if (!promise) return;
    fprintf(stderr, "broken: %s (phase %u, attempt %u, legs %u/%u)\n", promise, s->x.phase, s->x.attempt,
            s->x.leg_state[0], s->x.leg_state[1]);
    abort();
}

static void decide(pdr_decision *d, uint64_t booking, const pdr_exchange_shape *shape)
{
    static const uint32_t ids[] = {1, 2, 3, 4};
    pdr_init_struct(d, sizeof *d);
    d->outcome = PDR_SEND;
    d->booking = booking;
    d->mode = shape == &pdr_shape_single ? PDR_MODE_SINGLE : PDR_MODE_PD;
    d->prefill = d->mode == PDR_MODE_SINGLE ? PDR_NONE : ids[byte() & 3];
    d->decode = 10 + ids[byte() & 3];
}

static uint64_t moved(uint64_t now)
{
    uint8_t  b = byte();
    uint64_t span = UINT64_C(1) << (b & 31);
    return b & 32 ? (now > span ? now - span : 0) : b & 64 ? now + span : now;
}

static void one_event(node *s, const pdr_exchange_rules *rules, uint8_t what)
{
    static const uint32_t statuses[] = {200, 400, 429, 500, 503, 302, 101, 0, 999, 413, 204, 600, 199, 300, 599, 499};
    pdr_event             ev;
    uint8_t               detail = byte();
    pdr_init_struct(&ev, sizeof ev);
    ev.type = what & 15;
    ev.leg = what >> 4 & 3;
    ev.attempt = what & 64 ? s->m.attempt - (detail >> 6) : s->m.attempt;
    ev.status = statuses[detail & 15];
    ev.detail = detail & 7;
    ev.retry_after_ms = what & 128 ? 1000 : 0;
    ev.usage = what >> 7;
    ev.now_ns = s->m.now;
    if (ev.type == PDR_EV_TICK)
        ev.now_ns = what & 128 && !s->m.finished ? pdr_exchange_deadline(&s->x) : moved(ev.now_ns);
    else if (what & 128)
        ev.now_ns = moved(ev.now_ns);
    check(s, model_step(s, &ev, rules));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const pdr_exchange_shape *const shapes[] = {&pdr_shape_concurrent, &pdr_shape_single,
                                                       &pdr_shape_prefill_first, NULL};
    static const uint32_t retries[] = {0, 1, 2, UINT32_MAX, 3, 9, 20, 1000};
    static const int      codes[] = {PDR_E_NO_PAIR, PDR_E_QUEUE_FULL, PDR_E_EXPIRED, PDR_E_LEASE};
    pdr_exchange_rules    rules = {0};
    pdr_decision          d;
    node                  s;
    uint64_t              booking = 1;
    at = data, stop = data + size;
    uint8_t first = byte();
    rules.shape = shapes[first & 3];
    rules.retry_max = retries[first >> 2 & 7];
    rules.first_byte_timeout_ns = first & 32 ? 0 : UINT64_C(1) << (byte() & 31);
    rules.drain_timeout_ns = first & 64 ? 0 : UINT64_C(1) << (byte() & 31);
    rules.total_timeout_ns = UINT64_C(1) << (byte() & 31);
    decide(&d, booking, rules.shape);
    check(&s, model_start(&s, &d, &rules, UINT64_C(1) << 40));
    while (at < stop) {
        uint8_t what = byte();
        if (what == 0xff || (s.m.routing && (what & 1))) { /* 0xff: a decision that nobody may have asked for */
            decide(&d, ++booking, rules.shape);
            check(&s, model_reroute(&s, &d, PDR_OK, &rules, s.m.now));
        } else if (s.m.routing && (what & 2)) {
            check(&s, model_reroute(&s, NULL, codes[what >> 2 & 3], &rules, s.m.now));
        } else {
            one_event(&s, &rules, what);
        }
    }
    for (int turns = 0; !s.m.finished; turns++) {
        pdr_event ev;
        if (turns > 8) check(&s, "time alone ends every exchange");
        if (s.m.routing) {
            check(&s, model_reroute(&s, NULL, PDR_E_NO_PAIR, &rules, s.m.now));
            continue;
        }
        pdr_init_struct(&ev, sizeof ev);
        ev.type = PDR_EV_TICK;
        ev.now_ns = pdr_exchange_deadline(&s.x);
        check(&s, model_step(&s, &ev, &rules));
    }
    return 0;
}
