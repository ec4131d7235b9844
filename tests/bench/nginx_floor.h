/*
 * What nginx and the module's two legs cost by themselves. Compiled in front of the module's files, this puts the least that serves a request in the place of
 * the library's calls; it is for tests/bench/nginx_bench.py --floor, and for nothing else: no failure is handled, no metrics, no usage, no limits.
 *
 *   PDR_FLOOR 1   decides nothing: bodies go on as they came, servers take turns
 *   PDR_FLOOR 2   as 1, but bodies are scanned, hashed and rewritten as ever
 */
#include <string.h>

#include "pdroute/host.h"
#include "pdroute/pdroute.h"

static inline int floor_scan(pdr_prompt *out)
{
    out->blocks = 0;
    return PDR_OK;
}

/* Of one source file only: where decisions are taken. Half of the servers prefill, half decode. */
static inline int floor_route(pdr_router *r, pdr_decision *d)
{
    static pdr_endpoint servers[2][8];
    static uint32_t ids[2][8], n[2], turn;
    pdr_endpoint e;
    uint32_t cursor = 0, id, state, i;

    if (n[0] == 0) {
        while (pdr_endpoint_next(r, &cursor, &id) == PDR_OK) {
            pdr_init_struct(&e, sizeof(e));
            if (pdr_endpoint_get(r, id, &e, &state) != PDR_OK) continue;
            i = e.role != PDR_ROLE_PREFILL;
            if (n[i] == 8) continue;
            ids[i][n[i]] = id;
            servers[i][n[i]++] = e;
        }
    }
    if (n[0] == 0 || n[1] == 0) return PDR_E_NO_PAIR;
    turn++;
    d->outcome = PDR_SEND;
    d->mode = PDR_MODE_PD;
    d->engine = PDR_ENGINE_SGLANG;
    d->booking = d->room = turn;
    i = turn % n[0];
    d->prefill = ids[0][i];
    d->prefill_port = servers[0][i].port;
    d->bootstrap_port = servers[0][i].bootstrap_port;
    strcpy(d->prefill_host, servers[0][i].host);
    strcpy(d->bootstrap_host, servers[0][i].host);
    i = turn % n[1];
    d->decode = ids[1][i];
    d->decode_port = servers[1][i].port;
    strcpy(d->decode_host, servers[1][i].host);
    return PDR_OK;
}

static inline int floor_tail(size_t *need)
{
    *need = 0;
    return PDR_OK;
}

static inline int floor_slices(size_t len, pdr_slice *out, size_t *n)
{
    memset(out, 0, sizeof *out);
    out->length = len;
    *n = 1;
    return PDR_OK;
}

static inline void floor_act(pdr_action *out, size_t *n, uint32_t type, uint32_t leg)
{
    memset(&out[*n], 0, sizeof *out);
    out[*n].type = type;
    out[(*n)++].leg = leg;
}

static inline int floor_begin(pdr_exchange *x, pdr_action *out, size_t *n)
{
    *n = 0;
    x->leg_state[0] = x->leg_state[1] = 0;
    floor_act(out, n, PDR_ACT_SEND, PDR_LEG_PREFILL);
    floor_act(out, n, PDR_ACT_SEND, PDR_LEG_DECODE);
    return PDR_OK;
}

static inline int floor_event(pdr_exchange *x, const pdr_event *ev, pdr_action *out, size_t *n)
{
    *n = 0;
    if (ev->type == PDR_EV_BODY || ev->type == PDR_EV_END) {
        if (ev->leg == PDR_LEG_DECODE && x->leg_state[ev->leg] == 0) floor_act(out, n, PDR_ACT_RELAY, PDR_LEG_DECODE);
        x->leg_state[ev->leg] = ev->type == PDR_EV_END ? 2 : 1;
        if (x->leg_state[0] == 2 && x->leg_state[1] == 2) floor_act(out, n, PDR_ACT_FINISH, 0);
    } else if (ev->type == PDR_EV_FAILED || ev->type == PDR_EV_CLIENT_GONE) {
        floor_act(out, n, PDR_ACT_FINISH, 0);
    }
    return PDR_OK;
}

#if PDR_FLOOR == 1
#define pdr_scan(body, len, api, limits, out, hashes, cap, err)      floor_scan(out)
#define pdr_rewrite_tail(d, p, leg, pad_to, buf, cap, need)           floor_tail(need)
#define pdr_rewrite_slices(p, body_len, tail_len, out, n)             floor_slices(body_len, out, n)
#endif
#define pdr_route_prompt(r, prompt, hashes, n, request, out, err)     floor_route(r, out)
#define pdr_exchange_begin(r, x, d, lease, now_ns, out, n)            floor_begin(x, out, n)
#define pdr_exchange_event(r, x, ev, out, n)                          floor_event(x, ev, out, n)
#define pdr_exchange_deadline(x)                                      UINT64_MAX
#define pdr_response_feed(s, chunk, len)                              0
#define pdr_host_wake_pending(h)                                      0
#define pdr_host_now_ns()                                             1ull
