/*
 * A host as docs/exchange.md asks for it, reduced to what can be checked: it carries out the actions of the failure
 * machine and names the first promise that is broken. Shared by the exploration in test_exchange.c and by
 * fuzz/fuzz_exchange.c.
 */
#ifndef PDR_EXCHANGE_MODEL_H
#define PDR_EXCHANGE_MODEL_H

#include "exchange.h"

#include <stddef.h>
#include <string.h>

enum { LEG_UNSENT, LEG_OUT, LEG_OVER };
enum { RELAY_NONE = 0 /* else 1 + leg */ };
enum { WATCHED = 1, MERGED = 2 };

/* No padding, so that states can be compared as bytes. */
typedef struct model {
    uint64_t now, booking;
    uint32_t attempt;
    uint8_t  leg[2], head[2] /* hundreds of the status */, body[2], judged[2];
    uint8_t  relaying, sent, answered /* RESPOND or ABORT */, finished, routing, served, drained, released, computed;
    uint8_t  failed[2]; /* this attempt's leg broke or answered 5xx */
    uint8_t  watched; /* WATCHED: the host says when the last piece came; MERGED: the answer takes both legs' */
} model;

typedef struct node {
    pdr_exchange x;
    model        m;
} node;

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) return #condition;                                                                           \
    } while (0)

/* Decode's answer, or what there is of it, waits for prefill's end. */
static inline int model_waits(const model *m) { return m->watched & MERGED && !m->sent && m->leg[PDR_LEG_PREFILL] == LEG_OUT; }

/* A whole answer of decode that waited is thrown away when something else goes to the client. */
static inline void model_throw_away(model *m)
{
    if (m->watched & MERGED && !m->sent && !m->served && m->relaying == 1 + PDR_LEG_DECODE && m->leg[PDR_LEG_DECODE] == LEG_OVER) m->relaying = RELAY_NONE;
}

static inline int model_excluded(const pdr_exchange *x, uint32_t endpoint)
{
    for (uint32_t i = 0; i < x->excluded; i++)
        if (x->exclude[i] == endpoint) return 1;
    return 0;
}

/* The caller's struct as plain bytes: what the compiler leaves between members is zero. */
static inline void model_normalise(pdr_exchange *x)
{
    size_t end = offsetof(pdr_exchange, lease) + sizeof x->lease;
    memset((char *)x + end, 0, offsetof(pdr_exchange, started_ns) - end);
}

static inline const char *model_action(node *s, const pdr_action *a, int last)
{
    model *m = &s->m;
    MUST(!m->finished);
    if (a->type == PDR_ACT_RELAY || a->type == PDR_ACT_ROUTE || a->type == PDR_ACT_RESPOND) model_throw_away(m);
    switch (a->type) {
    case PDR_ACT_SEND:
        MUST(a->leg <= PDR_LEG_DECODE && m->leg[a->leg] == LEG_UNSENT); /* once per leg and attempt */
        MUST(!m->answered && !m->relaying);
        m->leg[a->leg] = LEG_OUT;
        break;
    case PDR_ACT_CANCEL:
        MUST(a->leg <= PDR_LEG_DECODE && m->leg[a->leg] == LEG_OUT);
        m->leg[a->leg] = LEG_OVER;
        if (m->relaying == 1 + a->leg && !m->sent) m->relaying = RELAY_NONE; /* thrown away */
        break;
    case PDR_ACT_DRAIN:
        MUST(a->leg == PDR_LEG_PREFILL && m->leg[a->leg] == LEG_OUT);
        MUST(!m->drained && m->relaying != 1 + PDR_LEG_PREFILL);
        m->drained = 1;
        break;
    case PDR_ACT_RELAY:
        MUST(a->leg <= PDR_LEG_DECODE && m->leg[a->leg] != LEG_UNSENT);
        MUST(!m->relaying && !m->answered);
        MUST(a->status == s->x.leg_status[a->leg] && a->status / 100 == m->head[a->leg]);
        MUST(m->head[a->leg] == 4 || (a->leg == PDR_LEG_DECODE && m->head[a->leg] == 2));
        MUST(!m->sent || m->head[a->leg] == 2);
        MUST(!m->failed[PDR_LEG_PREFILL] || m->computed); /* an answer is not trusted if prefill failed */
        m->relaying = (uint8_t)(1 + a->leg);
        break;
    case PDR_ACT_RESPOND:
        MUST(!m->sent && !m->relaying && !m->answered);
        MUST(m->leg[0] != LEG_OUT && m->leg[1] != LEG_OUT);
        MUST(a->status >= 400 && a->status <= 599 && strcmp(pdr_reason_name(a->reason), "unknown"));
        m->answered = 1;
        break;
    case PDR_ACT_ABORT:
        MUST(m->sent && !m->answered && !m->served);
        MUST(m->leg[0] != LEG_OUT && m->leg[1] != LEG_OUT);
        MUST(strcmp(pdr_reason_name(a->reason), "unknown"));
        m->answered = 1;
        break;
    case PDR_ACT_ROUTE:
        MUST(!m->sent && !m->relaying && !m->answered && m->released);
        MUST(m->leg[0] != LEG_OUT && m->leg[1] != LEG_OUT);
        MUST(last);
        m->routing = 1;
        break;
    case PDR_ACT_FINISH:
        MUST(last && m->released);
        MUST(m->leg[0] != LEG_OUT && m->leg[1] != LEG_OUT);
        m->finished = 1;
        m->routing = 0;
        break;
    default: return "unknown action";
    }
    return NULL;
}

static inline const char *model_effects(node *s, const pdr_exchange_effects *fx)
{
    model *m = &s->m;
    if (fx->prefill_done) {
        MUST(!m->computed && !m->released && fx->booking == m->booking);
        m->computed = 1;
    }
    for (int leg = 0; leg < 2; leg++) {
        const pdr_exchange_leg *l = &fx->leg[leg];
        if (!l->verdict && !l->answered && !l->usage) continue;
        MUST(l->endpoint == (leg ? s->x.decode : s->x.prefill) && l->endpoint != PDR_NONE);
        MUST(m->leg[leg] != LEG_UNSENT);
        if (l->verdict) {
            MUST(!m->judged[leg]);
            m->judged[leg] = 1;
        }
        MUST(!l->usage || l->verdict == PDR_VERDICT_GOOD || m->judged[leg]);
    }
    if (fx->release) {
        MUST(!m->released && fx->booking == m->booking);
        m->released = 1;
    }
    return NULL;
}

static inline const char *model_outcome(node *s, const pdr_action *act, size_t n, const pdr_exchange_effects *fx)
{
    const char *bad;
    model      *m = &s->m;
    int         was_finished = m->finished;
    MUST(n <= PDR_MAX_ACTIONS);
    if ((bad = model_effects(s, fx))) return bad;
    for (size_t i = 0; i < n; i++)
        if ((bad = model_action(s, &act[i], i + 1 == n))) return bad;
    MUST((m->finished && !was_finished) == (fx->result != PDR_RESULT_NONE));
    if (fx->result == PDR_RESULT_ANSWERED) MUST(m->served);
    /* an answer that takes both legs' is none without prefill's */
    if (fx->result == PDR_RESULT_ANSWERED && m->watched & MERGED && !m->sent && m->relaying == 1 + PDR_LEG_DECODE && m->head[1] == 2) MUST(!m->failed[PDR_LEG_PREFILL]);
    if (fx->result == PDR_RESULT_FAILED) MUST(m->answered);
    MUST(fx->retry == 0 || m->routing);
    if (m->finished) {
        MUST(pdr_exchange_deadline(&s->x) == UINT64_MAX);
        return NULL;
    }
    MUST(m->routing || m->leg[0] == LEG_OUT || m->leg[1] == LEG_OUT);
    MUST(!m->routing || (m->leg[0] != LEG_OUT && m->leg[1] != LEG_OUT));
    MUST(m->released == m->routing);
    MUST(pdr_exchange_deadline(&s->x) != UINT64_MAX);
    /*
     * a relayed leg that was cancelled after its first byte went out leaves the client with half an answer: ABORT, or
     * it is gone
     */
    MUST(!m->relaying || m->served || m->leg[m->relaying - 1] == LEG_OUT || (m->relaying == 1 + PDR_LEG_DECODE && model_waits(m)));
    return NULL;
}

static inline const char *model_start(node *s, const pdr_decision *d, const pdr_exchange_rules *rules, uint64_t now)
{
    pdr_action           act[PDR_MAX_ACTIONS];
    pdr_exchange_effects fx;
    size_t               n = PDR_MAX_ACTIONS;
    memset(s, 0, sizeof *s);
    pdr_init_struct(&s->x, sizeof s->x);
    s->m.now = now;
    s->m.booking = d->booking;
    MUST(pdr_exchange_start(&s->x, d, 1, rules, now, act, &n, &fx) == PDR_OK);
    model_normalise(&s->x);
    return model_outcome(s, act, n, &fx);
}

/* The right leg, and nobody for what is nobody's fault. */
static inline const char *model_blame(const node *s, const pdr_event *ev, const pdr_exchange_effects *fx)
{
    for (uint32_t leg = 0; leg < 2; leg++) {
        uint32_t verdict = fx->leg[leg].verdict;
        int      own = ev->type >= PDR_EV_HEAD && ev->type <= PDR_EV_FAILED && ev->leg == leg;
        if (verdict == PDR_VERDICT_GOOD) MUST(own && (ev->type == PDR_EV_END || s->m.head[leg] == 4));
        if (verdict == PDR_VERDICT_BUSY) MUST(own && (ev->status == 429 || ev->status == 503));
        if (verdict == PDR_VERDICT_FAILED) MUST(s->m.failed[leg] || ev->type == PDR_EV_TICK);
        if (verdict == PDR_VERDICT_FAILED && ev->type == PDR_EV_TICK) MUST(s->m.leg[!leg] == LEG_UNSENT || s->m.computed);
        if (verdict && !own) MUST(verdict == PDR_VERDICT_SUSPECT || ev->type == PDR_EV_TICK);
        if (verdict && !own && ev->type == PDR_EV_FAILED)
            MUST(ev->detail == PDR_FAIL_TIMEOUT || ev->detail == PDR_FAIL_PROTOCOL);
        if (verdict > PDR_VERDICT_GOOD && fx->retry) MUST(model_excluded(&s->x, fx->leg[leg].endpoint));
        if (fx->leg[leg].answered) MUST(own && s->m.head[leg] == 2);
    }
    return NULL;
}

/* Whether a leg event may come from a host that follows the rules; others must change nothing. */
static inline int model_possible(const model *m, const pdr_event *ev)
{
    if (ev->type < PDR_EV_HEAD || ev->type > PDR_EV_FAILED) return 1;
    if (ev->leg > PDR_LEG_DECODE || ev->attempt != m->attempt || m->leg[ev->leg] != LEG_OUT || m->routing) return 0;
    if (ev->type == PDR_EV_HEAD) return !m->head[ev->leg];
    if (ev->type == PDR_EV_BODY) return m->head[ev->leg] == 2 && !m->body[ev->leg];
    return 1;
}

static inline const char *model_step(node *s, const pdr_event *ev, const pdr_exchange_rules *rules)
{
    pdr_action           act[PDR_MAX_ACTIONS];
    pdr_exchange_effects fx;
    size_t               n = PDR_MAX_ACTIONS;
    model               *m = &s->m;
    node                 before = *s;
    int                  possible = model_possible(m, ev) && !m->finished;
    const char          *bad;
    MUST(pdr_exchange_step(&s->x, ev, rules, act, &n, &fx) == PDR_OK);
    model_normalise(&s->x);
    if (!possible) {
        MUST(n == 0 && !memcmp(&before.x, &s->x, sizeof s->x));
        MUST(!fx.release && !fx.prefill_done && !fx.result && !fx.leg[0].verdict && !fx.leg[1].verdict);
        return NULL;
    }
    m->now = ev->now_ns;
    switch (ev->type) {
    case PDR_EV_HEAD:
        if (ev->status < 100 || ev->status > 199)
            m->head[ev->leg] = (uint8_t)(ev->status >= 200 && ev->status < 600 ? ev->status / 100 : 9);
        if (m->head[ev->leg] == 2 && ev->detail == PDR_HEAD_MERGED) m->watched |= MERGED;
        if (m->head[ev->leg] != 0 && m->head[ev->leg] != 2 && m->head[ev->leg] != 4) m->failed[ev->leg] = 1;
        break;
    case PDR_EV_BODY: m->body[ev->leg] = 1; break;
    case PDR_EV_FAILED:
        m->leg[ev->leg] = LEG_OVER;
        m->failed[ev->leg] = 1;
        if (m->relaying == 1 + ev->leg && !m->sent) m->relaying = RELAY_NONE;
        break;
    case PDR_EV_END:
        m->leg[ev->leg] = LEG_OVER;
        if (!m->head[ev->leg]) m->failed[ev->leg] = 1;
        if (ev->leg == PDR_LEG_DECODE && m->head[1] == 2 && model_waits(m) && ev->detail != PDR_FAIL_PROTOCOL) break; /* not yet */
        if (m->relaying == 1 + ev->leg) m->served = 1;
        if (!m->relaying && ev->leg == PDR_LEG_DECODE && m->head[ev->leg] == 2) m->served = 1; /* RELAY comes with it */
        if (ev->leg == PDR_LEG_PREFILL && m->head[0] == 2 && m->watched & MERGED && !m->sent && m->relaying == 1 + PDR_LEG_DECODE && m->leg[1] == LEG_OVER) m->served = 1;
        break;
    case PDR_EV_SENT:
        m->sent |= !m->served;
        if (m->watched & MERGED && m->relaying == 1 + PDR_LEG_DECODE && m->leg[1] == LEG_OVER) m->served = 1; /* it does not wait */
        break;
    case PDR_EV_CLIENT_GONE: MUST(!fx.leg[0].verdict && !fx.leg[1].verdict); break;
    default: break;
    }
    if ((bad = model_outcome(s, act, n, &fx))) return bad;
    if (ev->type == PDR_EV_CLIENT_GONE) MUST(m->finished || m->served);
    if (ev->type == PDR_EV_TICK && ev->now_ns < before.x.deadline_ns)
        MUST(n == 0 && !memcmp(&before.x, &s->x, sizeof s->x));
    /* an answer whose pieces come, or of which it is not known whether they do, is never given up for silence; a refusal only where they wait for the client */
    if (ev->type == PDR_EV_TICK && before.m.relaying && !before.m.served && ev->now_ns < before.x.started_ns + rules->total_timeout_ns &&
        !(before.m.relaying == 1 + PDR_LEG_DECODE && model_waits(&before.m))) {
        int refused = before.m.head[before.m.relaying - 1] == 4;
        if ((!ev->last_byte_ns && !refused) || ev->last_byte_ns >= ev->now_ns) MUST(n == 0);
        if (refused && ev->last_byte_ns < ev->now_ns && ev->now_ns >= before.x.deadline_ns)
            MUST(n > 1 && (act[n - 2].type == PDR_ACT_ABORT || (act[n - 2].type == PDR_ACT_RESPOND && act[n - 2].status == before.x.leg_status[before.m.relaying - 1])));
        if (ev->last_byte_ns >= ev->now_ns && ev->now_ns >= before.x.deadline_ns) m->watched |= WATCHED;
    }
    return model_blame(s, ev, &fx);
}

/* `d` with code PDR_OK, or NULL with another code. */
static inline const char *model_reroute(node *s, const pdr_decision *d, int code, const pdr_exchange_rules *rules,
                                        uint64_t now)
{
    pdr_action           act[PDR_MAX_ACTIONS];
    pdr_exchange_effects fx;
    size_t               n = PDR_MAX_ACTIONS;
    model               *m = &s->m;
    int                  asked = m->routing;
    MUST(pdr_exchange_reroute(&s->x, d, code, rules, now, act, &n, &fx) == PDR_OK);
    model_normalise(&s->x);
    if (!asked) { /* too late or never asked for: a booking that is not the exchange's own is given back */
        MUST(n == 0 && fx.release == (uint32_t)(d && d->booking != m->booking));
        MUST(!fx.release || fx.booking == d->booking);
        if (m->finished && d) m->booking = d->booking;
        return NULL;
    }
    m->now = now;
    m->routing = 0;
    if (code == PDR_OK) {
        MUST(!m->sent); /* never a new attempt once the client has a byte */
        m->booking = d->booking;
        m->attempt++;
        m->released = m->computed = m->drained = 0;
        m->watched &= WATCHED;
        memset(m->leg, 0, sizeof m->leg);
        memset(m->head, 0, sizeof m->head);
        memset(m->body, 0, sizeof m->body);
        memset(m->judged, 0, sizeof m->judged);
        memset(m->failed, 0, sizeof m->failed);
        MUST(s->x.attempt == m->attempt);
    }
    return model_outcome(s, act, n, &fx);
}

#endif
