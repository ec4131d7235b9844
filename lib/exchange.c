#include "exchange.h"

#include "engine.h"
#include "err.h"

#include <stddef.h>
#include <string.h>

enum { P = PDR_LEG_PREFILL, D = PDR_LEG_DECODE };

const pdr_exchange_shape pdr_shape_concurrent = {.legs = 1u << P | 1u << D, .at_once = 1u << P | 1u << D};
const pdr_exchange_shape pdr_shape_prefill_first = {.legs = 1u << P | 1u << D, .at_once = 1u << P, .keep_prefill = 1};
const pdr_exchange_shape pdr_shape_single = {.legs = 1u << D, .at_once = 1u << D};

const pdr_exchange_shape *pdr_exchange_shape_of(uint32_t engine, uint32_t mode)
{
    static const pdr_exchange_shape *const shapes[] = {
        [PDR_SHAPE_TOGETHER] = &pdr_shape_concurrent, [PDR_SHAPE_PREFILL_FIRST] = &pdr_shape_prefill_first, [PDR_SHAPE_SINGLE] = &pdr_shape_single};
    const struct pdr_engine *e = pdr_engine_get(engine);
    if (mode == PDR_MODE_SINGLE) return &pdr_shape_single;
    return e ? shapes[e->shape] : NULL;
}

enum phase {
    PHASE_NONE = 0,
    PHASE_OPEN,  /* legs are out, nothing is decided for the client */
    PHASE_RELAY, /* one leg's answer goes to the client */
    PHASE_ROUTE, /* no legs, no booking: the host looks for a new pair */
    PHASE_DRAIN, /* the client is served, prefill's answer is still read */
    PHASE_DONE
};
enum leg_state {
    LEG_NONE = 0,
    LEG_WAITING, /* to be sent after the other leg */
    LEG_SENT,    /* from here to LEG_ERROR the leg is live: the host has it open */
    LEG_HEAD,    /* 2xx head */
    LEG_BODY,    /* first byte of a good answer */
    LEG_ERROR,   /* 4xx head */
    LEG_ENDED,
    LEG_FAILED,
    LEG_CANCELLED
};
enum {
    FLAG_SENT = 1u << 0,     /* the client has got a byte */
    FLAG_BOOKED = 1u << 1,   /* x->booking is still to be released */
    FLAG_DONE = 1u << 2,     /* the prompt of this attempt is computed */
    FLAG_DRAIN = 1u << 3,    /* DRAIN was given for this attempt's prefill leg */
    FLAG_JUDGED_P = 1u << 4, /* verdict given on this attempt's leg */
    FLAG_JUDGED_D = 1u << 5,
    FLAG_MERGED = 1u << 6    /* the answer takes both legs': while nothing of it is sent it is not there before prefill has ended */
};
#define FLAGS_OF_ATTEMPT (FLAG_BOOKED | FLAG_DONE | FLAG_DRAIN | FLAG_JUDGED_P | FLAG_JUDGED_D | FLAG_MERGED)

enum { /* pdr_exchange.state[] */
    AT_TOTAL,  /* deadlines, UINT64_MAX: none */
    AT_STEP,   /* first byte, decode's first byte, next piece of the answer, or end of the drain */
    FAILURE,   /* status << 32 | reason: what the client is told if no further pair is found */
    COUNTS,    /* the small ones below, a byte each */
    ANSWER_NS, /* of the decision: longest silence between the computed prompt and decode's first byte, 0: none */
    IDLE_NS,   /* and between two pieces of the answer */
    DONE_NS,   /* when the prompt was computed */
    PAIR       /* suspects of an earlier attempt that are both avoided: (prefill + 1) << 32 | decode + 1, 0: there are none */
};
enum { /* bytes of state[COUNTS] */
    RETRIES,
    STALES,
    SUSPECTS, /* which suspects exclude[] has at its end, enum suspects */
    EXCLUDED, /* entries of exclude[] before them */
    ENGINE    /* of the decision: names the shape */
};
enum suspects { SUSPECTS_NONE, SUSPECTS_BOTH, SUSPECTS_PREFILL, SUSPECTS_DECODE, SUSPECTS_NEW_PREFILL /* may serve with the earlier decode */,
                SUSPECTS_NEW_DECODE /* with the earlier prefill */ };

static uint32_t count_of(const pdr_exchange *x, int which) { return x->state[COUNTS] >> which * 8 & 0xFF; }

static void set_count(pdr_exchange *x, int which, uint32_t value)
{
    x->state[COUNTS] = (x->state[COUNTS] & ~(UINT64_C(0xFF) << which * 8)) | (uint64_t)(value & 0xFF) << which * 8;
}

#define DRAIN_TIMEOUT_NS UINT64_C(30000000000)
#define USAGE_MOST       (1u << 28) /* tokens: more than the largest body has, and no server that counts so, or more of it cached than there is, is believed */
#define FIELD(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

/* One call: everything happens on a copy, so that an error changes nothing. */
typedef struct turn {
    pdr_exchange              x;
    const pdr_exchange_rules *rules;
    const pdr_exchange_shape *shape;
    uint64_t                  now;
    uint64_t                  last_byte_ns; /* of a tick */
    pdr_exchange_effects      fx;
    uint32_t                  n;
    pdr_action                act[PDR_MAX_ACTIONS];
} turn;

/*
 * ---------------------------------------------------------------------------------------------------------- small
 * steps
 */

static uint64_t later(uint64_t now, uint64_t span) /* a span of 0 never ends */
{
    return !span || now > UINT64_MAX - span ? UINT64_MAX : now + span;
}

static int due(const turn *t, uint64_t deadline) { return deadline != UINT64_MAX && t->now >= deadline; }

static uint64_t us_since(const turn *t, uint64_t then) { return t->now > then ? (t->now - then) / 1000 : 0; }

static int live(const turn *t, uint32_t leg)
{
    return t->x.leg_state[leg] >= LEG_SENT && t->x.leg_state[leg] <= LEG_ERROR;
}

/* Whether decode's answer, begun or complete, is held back until prefill's has ended. */
static int waits_for_prefill(const turn *t) { return (t->x.flags & (FLAG_MERGED | FLAG_SENT)) == FLAG_MERGED && live(t, P); }

/* How long prefill may take for the rest of an answer of which decode's is there. */
static uint64_t drain_span(const turn *t)
{
    uint64_t span = t->rules->drain_timeout_ns;
    if (span) return span;
    span = t->rules->first_byte_timeout_ns;
    return !span || span > DRAIN_TIMEOUT_NS ? DRAIN_TIMEOUT_NS : span;
}

static void act(turn *t, uint32_t type, uint32_t leg, uint32_t status, uint32_t reason)
{
    t->act[t->n++] = (pdr_action){.type = type, .leg = leg, .status = status, .reason = reason};
}

static void send_leg(turn *t, uint32_t leg)
{
    t->x.leg_state[leg] = LEG_SENT;
    act(t, PDR_ACT_SEND, leg, 0, 0);
}

static void cancel_leg(turn *t, uint32_t leg)
{
    if (live(t, leg)) act(t, PDR_ACT_CANCEL, leg, 0, 0);
    if (live(t, leg) || t->x.leg_state[leg] == LEG_WAITING) t->x.leg_state[leg] = LEG_CANCELLED;
}

static void drain_prefill(turn *t)
{
    if (t->shape->keep_prefill || (t->x.flags & FLAG_DRAIN)) return;
    t->x.flags |= FLAG_DRAIN;
    act(t, PDR_ACT_DRAIN, P, 0, 0);
}

static void relay(turn *t, uint32_t leg)
{
    t->x.phase = PHASE_RELAY;
    t->x.state[AT_STEP] = later(t->now, leg == D && waits_for_prefill(t) ? drain_span(t) : t->x.state[IDLE_NS]);
    act(t, PDR_ACT_RELAY, leg, t->x.leg_status[leg], 0);
    t->act[t->n - 1].retry_after_ms = t->x.retry_after_ms;
}

static void release(turn *t)
{
    if (!(t->x.flags & FLAG_BOOKED)) return;
    t->x.flags &= ~(uint32_t)FLAG_BOOKED;
    t->fx.release = 1;
}

static void finish(turn *t, uint32_t result)
{
    cancel_leg(t, P);
    cancel_leg(t, D);
    release(t);
    t->x.phase = PHASE_DONE;
    t->fx.result = result;
    act(t, PDR_ACT_FINISH, 0, 0, 0);
}

/* The gateway's own answer, or the end of one that cannot be completed. */
static void give_up(turn *t, uint32_t status, uint32_t reason)
{
    cancel_leg(t, P);
    cancel_leg(t, D);
    if (t->x.flags & FLAG_SENT) {
        act(t, PDR_ACT_ABORT, 0, status, reason);
    } else {
        act(t, PDR_ACT_RESPOND, 0, status, reason);
        t->act[t->n - 1].retry_after_ms = t->x.retry_after_ms;
    }
    finish(t, PDR_RESULT_FAILED);
}

static void give_up_with(turn *t, uint64_t failure) { give_up(t, (uint32_t)(failure >> 32), (uint32_t)failure); }

static void ask_route(turn *t)
{
    t->x.phase = PHASE_ROUTE;
    t->x.state[AT_STEP] = UINT64_MAX;
    act(t, PDR_ACT_ROUTE, 0, 0, 0);
}

/*
 * ---------------------------------------------------------------------------------------------------- blame and
 * exclusion
 */

static void judge(turn *t, uint32_t leg, uint32_t verdict, uint32_t failure)
{
    uint32_t given = leg == P ? FLAG_JUDGED_P : FLAG_JUDGED_D;
    if (t->x.leg_state[leg] == LEG_NONE || (t->x.flags & given)) return;
    t->x.flags |= given;
    t->fx.leg[leg].verdict = verdict;
    t->fx.leg[leg].failure = failure;
    t->fx.leg[leg].status = t->x.leg_status[leg];
    if (verdict == PDR_VERDICT_BUSY) t->fx.leg[leg].retry_after_ms = t->x.retry_after_ms;
}

static uint32_t endpoint_of(const turn *t, uint32_t leg) { return leg == P ? t->x.prefill : t->x.decode; }

/* The oldest exclusion makes room for a new one: by then it has been avoided for eight attempts. */
static void exclude(pdr_exchange *x, uint32_t endpoint)
{
    const uint32_t cap = sizeof x->exclude / sizeof *x->exclude;
    for (uint32_t i = 0; i < x->excluded; i++)
        if (x->exclude[i] == endpoint) return;
    if (x->excluded == cap) {
        memmove(x->exclude, x->exclude + 1, (cap - 1) * sizeof *x->exclude);
        x->excluded--;
    }
    x->exclude[x->excluded++] = endpoint;
}

static void allow(pdr_exchange *x, uint32_t endpoint)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < x->excluded; i++)
        if (x->exclude[i] != endpoint) x->exclude[kept++] = x->exclude[i];
    x->excluded = kept;
}

/*
 * Two pairs without a server in common have failed, and there is no third: a host that died, say, with a prefill and a
 * decode server on it, each of which was asked together with a healthy one. What was not tried is one's prefill with the
 * other's decode; breakers know which of the two ways.
 */
static int cross_suspects(pdr_exchange *x, uint32_t which)
{
    const uint32_t prefill = (uint32_t)(x->state[PAIR] >> 32) - 1, decode = (uint32_t)x->state[PAIR] - 1;
    if (!x->state[PAIR] || prefill == x->prefill || decode == x->decode) return 0;
    allow(x, which == SUSPECTS_NEW_PREFILL ? x->prefill : prefill);
    allow(x, which == SUSPECTS_NEW_PREFILL ? decode : x->decode);
    exclude(x, which == SUSPECTS_NEW_PREFILL ? prefill : x->prefill);
    exclude(x, which == SUSPECTS_NEW_PREFILL ? x->decode : decode);
    return 1;
}

/*
 * Of two suspects one is innocent, and a small cluster has no second of it. So both are avoided at first, then prefill
 * alone (a dead bootstrap server shows as a decode's 500), then decode alone; at last those of two attempts are crossed.
 * Returns 0 when there is nothing left to relax.
 */
static int exclude_suspects(pdr_exchange *x, uint32_t which)
{
    const uint32_t cap = sizeof x->exclude / sizeof *x->exclude;
    if (which > SUSPECTS_NEW_DECODE || (which > SUSPECTS_DECODE && !cross_suspects(x, which))) return 0;
    if (which == SUSPECTS_BOTH) {
        while (x->excluded > cap - 2) {
            memmove(x->exclude, x->exclude + 1, (cap - 1) * sizeof *x->exclude);
            x->excluded--;
        }
        set_count(x, EXCLUDED, x->excluded);
    }
    if (which <= SUSPECTS_DECODE) {
        x->excluded = count_of(x, EXCLUDED);
        if (which != SUSPECTS_DECODE) exclude(x, x->prefill);
        if (which != SUSPECTS_PREFILL) exclude(x, x->decode);
    }
    memset(x->exclude + x->excluded, 0, (cap - x->excluded) * sizeof *x->exclude);
    set_count(x, SUSPECTS, which);
    return 1;
}

void pdr_exchange_blame(pdr_exchange *x, uint32_t leg)
{
    if (count_of(x, SUSPECTS) != SUSPECTS_BOTH) return;
    exclude_suspects(x, leg == P ? SUSPECTS_PREFILL : SUSPECTS_DECODE);
    set_count(x, SUSPECTS, SUSPECTS_NONE); /* nothing to relax */
}

/*
 * Who is to blame for a broken leg. A connection's failure is its server's. A 5xx or silence before the prompt is known
 * to be computed may be either's: SGLang's decode answers 500 when the prefill's bootstrap server is dead (seen with
 * 0.5.23: after 14 s), and prefill answers 500 when its decode has died, perhaps before decode's connection breaks.
 */
static void blame(turn *t, uint32_t leg, uint32_t failure, int busy)
{
    uint32_t other = leg == P ? D : P;
    int      silent = failure == PDR_FAIL_TIMEOUT;
    int      answered_badly = !failure || failure == PDR_FAIL_PROTOCOL;
    if (busy) {
        judge(t, leg, PDR_VERDICT_BUSY, 0);
        exclude(&t->x, endpoint_of(t, leg));
    } else if (live(t, other) && !(t->x.flags & FLAG_DONE) && (silent || answered_badly)) {
        judge(t, leg, PDR_VERDICT_SUSPECT, failure);
        judge(t, other, PDR_VERDICT_SUSPECT, failure);
        exclude_suspects(&t->x, SUSPECTS_BOTH);
    } else {
        judge(t, leg, PDR_VERDICT_FAILED, failure);
        exclude(&t->x, endpoint_of(t, leg));
    }
}

/*
 * -------------------------------------------------------------------------------------------------------------
 * transitions
 */

static uint64_t ns_of(uint64_t us) { return us < UINT64_MAX / 1000 ? us * 1000 : 0; }

/* How long this attempt may be silent: as its decision says, the first byte at the latest as the rules say. */
static void set_bounds(turn *t, const pdr_decision *d)
{
    uint64_t *s = t->x.state, first = t->rules->first_byte_timeout_ns;
    int       says = pdr_struct_ok(d, FIELD(pdr_decision, idle_us)); /* a caller's older struct does not */
    uint64_t  own = says ? ns_of(d->first_byte_us) : 0;
    /* a single server's whole answer may take longer than the limit of a first byte */
    if (own && (!first || own < first || d->mode == PDR_MODE_SINGLE)) first = own;
    s[AT_STEP] = later(t->now, first);
    s[ANSWER_NS] = says ? ns_of(d->answer_us) : 0;
    s[IDLE_NS] = says ? ns_of(d->idle_us) : 0;
    s[DONE_NS] = t->now;
}

static void begin_attempt(turn *t, const pdr_decision *d)
{
    pdr_exchange *x = &t->x;
    t->shape = t->rules->shape ? t->rules->shape : pdr_exchange_shape_of(d->engine, d->mode);
    set_count(x, ENGINE, d->engine);
    x->flags = (x->flags & ~(uint32_t)FLAGS_OF_ATTEMPT) | FLAG_BOOKED;
    if (count_of(x, SUSPECTS) == SUSPECTS_BOTH) /* so it was a pair */
        x->state[PAIR] = ((uint64_t)x->prefill + 1) << 32 | ((uint64_t)x->decode + 1);
    x->booking = d->booking;
    x->mode = t->shape->legs & 1u << P ? PDR_MODE_PD : PDR_MODE_SINGLE;
    x->prefill = x->mode == PDR_MODE_PD ? d->prefill : PDR_NONE;
    x->decode = d->decode;
    x->prompt_tokens = d->prompt_tokens;
    x->matched_tokens = d->matched_tokens;
    x->predicted_us = d->wait_us + d->prefill_us + d->transfer_us;
    x->retry_after_ms = 0;
    x->sent_ns = t->now;
    set_bounds(t, d);
    set_count(x, SUSPECTS, SUSPECTS_NONE);
    x->phase = PHASE_OPEN;
    t->fx.booking = x->booking;
    for (uint32_t leg = P; leg <= D; leg++) {
        x->leg_status[leg] = 0;
        x->leg_state[leg] = t->shape->legs & 1u << leg ? LEG_WAITING : LEG_NONE;
        t->fx.leg[leg].endpoint = x->leg_state[leg] == LEG_NONE ? PDR_NONE : endpoint_of(t, leg);
        if (t->shape->at_once & 1u << leg) send_leg(t, leg);
    }
}

static void prompt_computed(turn *t)
{
    if (t->x.flags & FLAG_DONE) return;
    t->x.flags |= FLAG_DONE;
    t->x.state[AT_STEP] = later(t->now, t->x.state[ANSWER_NS]);
    t->x.state[DONE_NS] = t->now;
    t->fx.prefill_done = 1;
    t->fx.prefill_us = us_since(t, t->x.sent_ns);
}

/* This attempt cannot serve the client: tell why, or try another pair. */
static void attempt_failed(turn *t, uint32_t leg, uint32_t failure, int busy)
{
    static const uint32_t failed[] = {PDR_ERR_PREFILL_FAILED, PDR_ERR_DECODE_FAILED};
    static const uint32_t timeout[] = {PDR_ERR_PREFILL_TIMEOUT, PDR_ERR_DECODE_TIMEOUT};
    uint64_t             *s = t->x.state;
    uint32_t              retries = count_of(&t->x, RETRIES), stales = count_of(&t->x, STALES);
    int                   free_retry = failure == PDR_FAIL_STALE && stales < PDR_EXCHANGE_STALE_MAX;
    uint32_t              retry_max = t->rules->retry_max == UINT32_MAX ? 0 : t->rules->retry_max;

    if (!free_retry) blame(t, leg, failure, busy);
    cancel_leg(t, P);
    cancel_leg(t, D);
    s[FAILURE] = failure == PDR_FAIL_TIMEOUT ? UINT64_C(504) << 32 | timeout[leg]
                                             : (busy ? UINT64_C(503) : UINT64_C(502)) << 32 | failed[leg];
    int last = !free_retry && retries >= retry_max;
    t->fx.retry_denied = !last && !free_retry && t->rules->retry_denied && !(t->x.flags & FLAG_SENT);
    if ((t->x.flags & FLAG_SENT) || last || t->fx.retry_denied) {
        give_up_with(t, s[FAILURE]);
        return;
    }
    set_count(&t->x, free_retry ? STALES : RETRIES, (free_retry ? stales : retries) + 1);
    release(t);
    t->fx.retry = free_retry ? 2 : 1;
    ask_route(t);
}

/*
 * The relayed answer is complete. Prefill is never closed before its end if it can be avoided: SGLang would take that
 * for a client that left.
 */
static void client_served(turn *t)
{
    if (!live(t, P)) {
        finish(t, PDR_RESULT_ANSWERED);
        return;
    }
    if (waits_for_prefill(t)) return; /* not yet: its end, or a failure, comes first */
    drain_prefill(t);
    t->x.phase = PHASE_DRAIN;
    t->x.state[AT_STEP] = later(t->now, drain_span(t));
}

/* `open`: the leg's connection still stands (a bad head), else it is gone. */
static void leg_broken(turn *t, uint32_t leg, uint32_t failure, int busy, int open)
{
    int needed = waits_for_prefill(t);
    if (!open) t->x.leg_state[leg] = LEG_FAILED;
    if (t->x.phase == PHASE_DRAIN) {
        judge(t, leg, busy ? PDR_VERDICT_BUSY : PDR_VERDICT_FAILED, failure);
        finish(t, PDR_RESULT_ANSWERED);
    } else if (leg == P && !needed && live(t, D) && (t->x.flags & FLAG_DONE) &&
               (failure == PDR_FAIL_RESET || failure == PDR_FAIL_TIMEOUT)) {
        /* decode has the KV cache and needs prefill no more */
        judge(t, leg, failure == PDR_FAIL_TIMEOUT ? PDR_VERDICT_SUSPECT : PDR_VERDICT_FAILED, failure);
    } else {
        attempt_failed(t, leg, failure, busy);
    }
}

/* A 4xx is the request's fault: the client gets it as it is, there is no retry. */
static void request_refused(turn *t, uint32_t leg, uint32_t status, uint64_t retry_after_ms)
{
    t->x.leg_state[leg] = LEG_ERROR;
    t->x.retry_after_ms = retry_after_ms;
    judge(t, leg, status == 429 ? PDR_VERDICT_BUSY : PDR_VERDICT_GOOD, 0);
    if (t->x.phase == PHASE_DRAIN) return;
    if (t->x.flags & FLAG_SENT) { /* another head has already gone out */
        give_up(t, status, status == 413 ? PDR_ERR_TOO_LARGE : PDR_ERR_BAD_REQUEST);
        return;
    }
    cancel_leg(t, leg == P ? D : P);
    relay(t, leg);
}

static void on_head(turn *t, const pdr_event *ev)
{
    uint32_t leg = ev->leg, status = ev->status;
    if (t->x.leg_state[leg] != LEG_SENT || (status >= 100 && status < 200)) return;
    t->x.leg_status[leg] = status;
    if (status >= 200 && status < 300) {
        t->x.leg_state[leg] = LEG_HEAD;
        if (ev->detail == PDR_HEAD_MERGED) t->x.flags |= FLAG_MERGED;
        if (leg == P) drain_prefill(t);
    } else if (status >= 400 && status < 500) {
        request_refused(t, leg, status, ev->retry_after_ms);
    } else {
        int busy = status == 503 && ev->retry_after_ms;
        t->x.retry_after_ms = busy ? ev->retry_after_ms : 0;
        leg_broken(t, leg, status >= 500 && status < 600 ? 0 : PDR_FAIL_PROTOCOL, busy, 1);
    }
}

/*
 * The first byte of a good answer. SGLang sends the head of a stream before anything is computed, but no byte of it
 * before the KV cache is where it must be: so decode is trusted, and the prompt known to be computed, from the first
 * byte on and not from the head.
 */
static void first_byte(turn *t, uint32_t leg)
{
    t->x.leg_state[leg] = LEG_BODY;
    t->fx.leg[leg].answered = 1;
    prompt_computed(t);
    if (leg == P) return;
    t->fx.first_token_us = us_since(t, t->x.sent_ns);
    relay(t, D);
}

static void on_end(turn *t, const pdr_event *ev)
{
    uint32_t leg = ev->leg, was = t->x.leg_state[leg];
    if (was == LEG_SENT) { /* no head at all */
        leg_broken(t, leg, PDR_FAIL_PROTOCOL, 0, 0);
        return;
    }
    if (was == LEG_HEAD) first_byte(t, leg); /* an empty answer */
    t->x.leg_state[leg] = LEG_ENDED;
    if (was != LEG_ERROR) {
        pdr_exchange_leg *fx = &t->fx.leg[leg];
        judge(t, leg, PDR_VERDICT_GOOD, 0);
        fx->usage = ev->usage == 1 && (ev->prompt_tokens | ev->completion_tokens) < USAGE_MOST && ev->cached_tokens <= ev->prompt_tokens;
        if (fx->usage) {
            fx->prompt_tokens = ev->prompt_tokens;
            fx->cached_tokens = ev->cached_tokens;
            fx->completion_tokens = ev->completion_tokens;
        }
        if (leg == D) {
            t->fx.answer_us = us_since(t, t->x.state[DONE_NS]);
            t->fx.longest_gap_ms = ev->longest_gap_ms;
        }
    }
    if (t->x.phase == PHASE_DRAIN) {
        finish(t, PDR_RESULT_ANSWERED);
    } else if (leg == D || was == LEG_ERROR) {
        /* decode refused the request in an event: it will never fetch what prefill holds for it */
        if (leg == D && ev->detail == PDR_FAIL_PROTOCOL) cancel_leg(t, P);
        client_served(t);
    } else if (t->x.leg_state[D] == LEG_WAITING) {
        send_leg(t, D);
    } else if (t->x.phase == PHASE_RELAY && (t->x.flags & (FLAG_MERGED | FLAG_SENT)) == FLAG_MERGED) { /* now decode's answer may go */
        t->x.state[AT_STEP] = later(t->now, t->x.state[IDLE_NS]);
        if (!live(t, D)) client_served(t);
    }
}

static void on_failed(turn *t, const pdr_event *ev)
{
    uint32_t failure = ev->detail;
    int      answered = t->x.leg_state[ev->leg] != LEG_SENT;
    if (failure < PDR_FAIL_CONNECT || failure > PDR_FAIL_PROTOCOL) failure = PDR_FAIL_RESET;
    if (answered && (failure == PDR_FAIL_CONNECT || failure == PDR_FAIL_STALE)) failure = PDR_FAIL_RESET;
    leg_broken(t, ev->leg, failure, 0, 0);
}

static void on_sent(turn *t)
{
    if (t->x.phase == PHASE_DRAIN) return;
    int waited = t->x.phase == PHASE_RELAY && t->x.leg_state[P] != LEG_ERROR && waits_for_prefill(t);
    t->x.flags |= FLAG_SENT;
    if (t->x.phase == PHASE_ROUTE) { /* the host let go of a byte of a cancelled leg */
        give_up_with(t, t->x.state[FAILURE]);
    } else if (waited) { /* it does not wait: what it has is too long, say */
        t->x.state[AT_STEP] = later(t->now, t->x.state[IDLE_NS]);
        if (!live(t, D)) client_served(t);
    }
}

/*
 * The answer's next piece is due, as far as the machine knows; the host knows when the last one came. A refusal is no stream: its body has one such span for
 * all of it, however its bytes drip, but for the time in which they wait for the client; and the client has its status in any case.
 */
static void answer_silent(turn *t)
{
    uint64_t last = t->last_byte_ns < t->now ? t->last_byte_ns : t->now, next = later(last, t->x.state[IDLE_NS]);
    uint32_t leg = t->x.leg_state[P] == LEG_ERROR ? P : D;
    int      refused = t->x.leg_state[leg] == LEG_ERROR;
    if (!last && !refused) { /* it does not know: silence is not noticed */
        t->x.state[AT_STEP] = UINT64_MAX;
    } else if (next > t->now && (!refused || last == t->now)) {
        t->x.state[AT_STEP] = next;
    } else {
        t->fx.overran = 1u << leg;
        if (refused && !(t->x.flags & FLAG_SENT))
            give_up(t, t->x.leg_status[leg], leg == P ? PDR_ERR_PREFILL_TIMEOUT : PDR_ERR_DECODE_TIMEOUT);
        else
            attempt_failed(t, leg, PDR_FAIL_TIMEOUT, 0);
    }
}

static void on_tick(turn *t)
{
    int      waits_for_prompt = t->x.phase == PHASE_OPEN && !(t->x.flags & FLAG_DONE);
    uint32_t leg = live(t, P) && (waits_for_prompt || !live(t, D)) ? P : D;
    if (t->x.phase == PHASE_DRAIN) {
        if (!due(t, t->x.state[AT_STEP])) return;
        judge(t, P, PDR_VERDICT_SUSPECT, PDR_FAIL_TIMEOUT);
        finish(t, PDR_RESULT_ANSWERED);
    } else if (due(t, t->x.state[AT_TOTAL])) {
        if (waits_for_prompt) blame(t, leg, PDR_FAIL_TIMEOUT, 0);
        t->x.retry_after_ms = 0;
        if (t->x.phase == PHASE_ROUTE)
            give_up(t, 504, (uint32_t)t->x.state[FAILURE]);
        else
            give_up(t, 504, leg == P ? PDR_ERR_PREFILL_TIMEOUT : PDR_ERR_DECODE_TIMEOUT);
    } else if (!due(t, t->x.state[AT_STEP])) {
        return;
    } else if (t->x.phase == PHASE_RELAY && t->x.leg_state[P] != LEG_ERROR && waits_for_prefill(t)) {
        attempt_failed(t, P, PDR_FAIL_TIMEOUT, 0);
    } else if (t->x.phase == PHASE_RELAY) {
        answer_silent(t);
    } else {
        t->fx.overran = 1u << leg;
        attempt_failed(t, leg, PDR_FAIL_TIMEOUT, 0);
    }
}

static void on_event(turn *t, const pdr_event *ev)
{
    int of_leg = ev->type >= PDR_EV_HEAD && ev->type <= PDR_EV_FAILED;
    if (t->x.phase == PHASE_DONE) return;
    if (of_leg && (ev->leg > D || ev->attempt != t->x.attempt || !live(t, ev->leg))) return;
    switch (ev->type) {
    case PDR_EV_HEAD: on_head(t, ev); break;
    case PDR_EV_BODY:
        if (t->x.leg_state[ev->leg] == LEG_HEAD) first_byte(t, ev->leg);
        break;
    case PDR_EV_END: on_end(t, ev); break;
    case PDR_EV_FAILED: on_failed(t, ev); break;
    case PDR_EV_CLIENT_GONE:
        if (t->x.phase != PHASE_DRAIN) finish(t, PDR_RESULT_GONE);
        break;
    case PDR_EV_SENT: on_sent(t); break;
    case PDR_EV_TICK: on_tick(t); break;
    default: break;
    }
}

/*
 * ---------------------------------------------------------------------------------------------------------- entry and
 * exit
 */

static int open_turn(turn *t, const pdr_exchange *x, const pdr_exchange_rules *rules, uint64_t now_ns)
{
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    if (x->phase == PHASE_NONE) return PDR_E_INVALID;
    memcpy(&t->x, x, sizeof t->x);
    memset(&t->fx, 0, sizeof t->fx);
    t->rules = rules;
    t->now = now_ns;
    t->last_byte_ns = 0;
    t->n = 0;
    t->fx.booking = x->booking;
    t->fx.leg[P].endpoint = x->leg_state[P] == LEG_NONE ? PDR_NONE : x->prefill;
    t->fx.leg[D].endpoint = x->leg_state[D] == LEG_NONE ? PDR_NONE : x->decode;
    t->shape = rules->shape ? rules->shape : pdr_exchange_shape_of(count_of(x, ENGINE), x->mode);
    return t->shape ? PDR_OK : PDR_E_INVALID;
}

static int close_turn(turn *t, pdr_exchange *x, pdr_action *out, size_t *n, pdr_exchange_effects *fx)
{
    uint64_t *s = t->x.state;
    if (*n < t->n) {
        *n = t->n;
        return PDR_E_NOSPACE;
    }
    if (t->x.phase == PHASE_DONE) s[AT_TOTAL] = s[AT_STEP] = UINT64_MAX;
    t->x.deadline_ns = s[AT_TOTAL] < s[AT_STEP] || t->x.phase == PHASE_ROUTE ? s[AT_TOTAL] : s[AT_STEP];
    if (t->x.phase == PHASE_DRAIN) t->x.deadline_ns = s[AT_STEP];
    memcpy(x, &t->x, sizeof *x);
    memcpy(fx, &t->fx, sizeof *fx);
    if (t->n) memcpy(out, t->act, t->n * sizeof *out);
    *n = t->n;
    return PDR_OK;
}

static int check_decision(const pdr_decision *d, const pdr_exchange_rules *rules)
{
    if (!d) return PDR_E_INVALID;
    if (!pdr_struct_ok(d, offsetof(pdr_decision, prefill_host))) return PDR_E_VERSION;
    if (d->outcome != PDR_SEND || (!rules->shape && !pdr_exchange_shape_of(d->engine, d->mode))) return PDR_E_INVALID;
    return PDR_OK;
}

int pdr_exchange_start(pdr_exchange *x, const pdr_decision *d, uint32_t lease, const pdr_exchange_rules *rules,
                       uint64_t now_ns, pdr_action *out, size_t *n, pdr_exchange_effects *fx)
{
    turn t;
    int  code;
    if (!x || !rules || !n || !fx || (*n && !out)) return PDR_E_INVALID;
    if ((code = check_decision(d, rules))) return code;
    if (!pdr_struct_ok(x, sizeof *x)) return PDR_E_VERSION;
    memset(&t, 0, sizeof t);
    t.rules = rules;
    t.now = now_ns;
    t.x.struct_size = x->struct_size;
    t.x.lease = lease;
    t.x.started_ns = now_ns;
    t.x.state[AT_TOTAL] = later(now_ns, rules->total_timeout_ns);
    begin_attempt(&t, d);
    return close_turn(&t, x, out, n, fx);
}

int pdr_exchange_step(pdr_exchange *x, const pdr_event *ev, const pdr_exchange_rules *rules, pdr_action *out, size_t *n,
                      pdr_exchange_effects *fx)
{
    turn      t;
    pdr_event e;
    int       code;
    if (!x || !ev || !rules || !n || !fx || (*n && !out)) return PDR_E_INVALID;
    if ((code = pdr_struct_in(&e, sizeof e, ev, NULL)) || (code = open_turn(&t, x, rules, e.now_ns))) return code;
    t.last_byte_ns = e.last_byte_ns;
    on_event(&t, &e);
    return close_turn(&t, x, out, n, fx);
}

/* No new pair: fewer exclusions, or the client's answer. */
static void no_route(turn *t, int code, uint64_t retry_after_ms)
{
    uint32_t which = count_of(&t->x, SUSPECTS);
    if (code == PDR_E_NO_PAIR && which != SUSPECTS_NONE && exclude_suspects(&t->x, which + 1)) {
        ask_route(t);
        return;
    }
    if (retry_after_ms) t->x.retry_after_ms = retry_after_ms;
    if (code == PDR_E_QUEUE_FULL)
        give_up(t, 429, PDR_ERR_QUEUE_FULL);
    else if (code == PDR_E_EXPIRED)
        give_up(t, 503, PDR_ERR_HELD_TIMEOUT);
    else
        give_up_with(t, t->x.state[FAILURE]);
}

int pdr_exchange_reroute(pdr_exchange *x, const pdr_decision *d, int code, const pdr_exchange_rules *rules,
                         uint64_t now_ns, pdr_action *out, size_t *n, pdr_exchange_effects *fx)
{
    turn t;
    int  bad;
    if (!x || !rules || !n || !fx || (*n && !out)) return PDR_E_INVALID;
    if (code == PDR_OK && (bad = check_decision(d, rules))) return bad;
    if ((bad = open_turn(&t, x, rules, now_ns))) return bad;
    if (x->phase != PHASE_ROUTE) { /* too late: its booking has no other owner. Told twice, it is one booking */
        if (code == PDR_OK && d->booking != x->booking) {
            t.fx.booking = d->booking;
            t.fx.release = 1;
            if (x->phase == PHASE_DONE) t.x.booking = d->booking;
        }
    } else if (code == PDR_OK) {
        t.x.attempt++;
        begin_attempt(&t, d);
    } else {
        no_route(&t, code, d && pdr_struct_ok(d, FIELD(pdr_decision, retry_after_ms)) ? d->retry_after_ms : 0);
    }
    return close_turn(&t, x, out, n, fx);
}

uint64_t pdr_exchange_deadline(const pdr_exchange *x)
{
    return pdr_struct_ok(x, sizeof *x) && x->phase != PHASE_NONE ? x->deadline_ns : UINT64_MAX;
}
