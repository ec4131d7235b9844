/* The gate's actions: legs are sent, from here or by telling Envoy where to; answers of our own. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "parts.h"

call *call_of(gate_job *job)
{
    return (call *)((char *)job - offsetof(call, job));
}

/* ORIGINAL_DST takes addresses, not names. Looked up by the system's resolver, which blocks; addresses are the rule. 0, or -1: errno says whether it is our fault */
static int address_of(const char *host, unsigned port, char *out, size_t cap)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char text[INET6_ADDRSTRLEN] = "";
    int rc;
    struct in6_addr v6;
    struct in_addr v4;

    if (inet_pton(AF_INET, host, &v4) == 1 || inet_pton(AF_INET6, host, &v6) == 1) {
        gate_address(out, cap, host, port, 1);
        return 0;
    }
    errno = 0;
    if ((rc = getaddrinfo(host, NULL, &hints, &found)) != 0) {
        if (rc == EAI_MEMORY) errno = ENOMEM;
        else if (rc != EAI_SYSTEM) errno = 0;
        return -1;
    }
    if (getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) == 0) gate_address(out, cap, text, port, 1);
    freeaddrinfo(found);
    return text[0] ? 0 : -1;
}

/* Decode's request may go: Envoy is told where, and what. */
void decode_release(call *c)
{
    const pdr_decision *d = &c->job.decision;
    char *const decode = c->destination, prefill[128];
    const int mirror = c->w->options->dispatch == DISPATCH_MIRROR && d->mode == PDR_MODE_PD;

    c->decode = DECODE_SENT;
    if (address_of(d->decode_host, d->decode_port, decode, sizeof c->destination) ||
        (mirror && address_of(d->prefill_host, d->prefill_port, prefill, sizeof prefill))) {
        const gate_detail detail = {.detail = PDR_FAIL_CONNECT, .attempt = c->job.exchange.attempt};
        const int ours = gate_errno_is_ours(errno);
        gate_log("error", "%s does not resolve", d->decode_host);
        c->decode = DECODE_IDLE;
        if (ours) gate_give_up(&c->job, "the gateway lacks what looking up a name needs: descriptors or memory");
        else gate_event(&c->job, PDR_EV_FAILED, PDR_LEG_DECODE, &detail);
        return;
    }
    reply_request(c, decode, mirror ? prefill : NULL);
}

static void op_decided(gate_job *job)
{
    call *c = call_of(job);
    const pdr_decision *d = &job->decision;
    gate_address(c->names[0], sizeof c->names[0], d->prefill_host, d->prefill_port, 0);
    gate_address(c->names[1], sizeof c->names[1], d->decode_host, d->decode_port, 0);
    /* nobody sees prefill's answer, or decode's does not come by here */
    if (job->whole && (c->w->options->dispatch == DISPATCH_MIRROR || (c->w->options->dispatch == DISPATCH_SEND && c->response_body_mode != BODY_FULL_DUPLEX)))
        job->whole->wanted = 0;
}

static void op_send(gate_job *job, int which)
{
    call *c = call_of(job);

    if (c->over) return;
    if (which == PDR_LEG_PREFILL) {
        if (c->w->options->dispatch != DISPATCH_MIRROR) leg_start(&c->legs[PDR_LEG_PREFILL]);
        return;
    }
    /* Envoy has sent one already, and cannot send another */
    if (c->decode == DECODE_SENT || c->w->options->dispatch == DISPATCH_BOTH) {
        c->taken_over = 1;
        c->response_end = 0; /* all of Envoy's may be there, and have waited for prefill's: it is thrown away */
        c->held_body.len = 0;
        leg_start(&c->legs[PDR_LEG_DECODE]);
        return;
    }
    c->decode = DECODE_WANTED;
    const leg *p = &c->legs[PDR_LEG_PREFILL];
    if (p->state != LEG_CONNECT && !p->failed && !p->lacks) decode_release(c); /* else when that one's connection stands, or never */
}

static void op_cancel(gate_job *job, int which)
{
    call *c = call_of(job);

    if (which == PDR_LEG_PREFILL || c->taken_over) leg_cancel(&c->legs[which]);
    else if (c->decode == DECODE_WANTED) c->decode = DECODE_IDLE;
    /* one that Envoy has sent ends with the answer that replaces it */
}

static void op_drain(gate_job *job, int which)
{
    (void)job, (void)which; /* it is read on, and thrown away */
}

static void op_relay(gate_job *job, int which)
{
    call *c = call_of(job);
    leg *l = &c->legs[PDR_LEG_DECODE];

    if (c->over || c->answered) return;
    if (which == PDR_LEG_PREFILL) {
        c->legs[PDR_LEG_PREFILL].relayed = 1; /* when all of it is there */
        return;
    }
    if (c->taken_over) {
        l->relayed = 1;
        if (l->ended) c->response_end = 1; /* it had waited for prefill's answer, with which its own is to be merged */
        own_leg_stream(c, l, l->ended);
        return;
    }
    if (!c->response_held) return;
    c->response_held = 0;
    gate_event(job, PDR_EV_SENT, PDR_LEG_DECODE, &(gate_detail){.attempt = job->exchange.attempt, .status = c->response_status});
    reply_response_headers(c);
    if (c->response_body_mode == BODY_FULL_DUPLEX && !c->response_head_only) response_flush(c);
}

static void op_respond(gate_job *job, unsigned status, const char *code, const char *sentence, uint64_t retry_after_ms)
{
    call *c = call_of(job);
    char text[1024];
    size_t need = 0;

    if (c->over || c->answered) return;
    c->answered = 1;
    if (pdr_error_body((int)status, code, sentence, text, sizeof text, &need) != PDR_OK) need = 0;
    reply_immediate(c, status, "application/json", retry_after_ms, status == 405 ? "allow" : NULL, "POST", (view){text, need});
}

static void reply_relayed(call *c, view body, int end)
{
    reply_body(c, 1, body, end);
}

/* Bytes of the answer have gone to the client: an error event if it is a stream, and Envoy cuts the connection. */
static void op_abort(gate_job *job, uint32_t reason, const char *sentence)
{
    call *c = call_of(job);
    char text[1024];
    size_t need = 0;

    if (c->over || c->answered) return;
    if (response_whole(c) && (c->taken_over || c->response_body_mode == BODY_FULL_DUPLEX)) { /* all was said, only the answer's end was missing */
        c->answered = 1;
        (c->taken_over ? reply_leg_body : reply_relayed)(c, (view){"", 0}, 1);
        return;
    }
    c->answered = c->tell = 1;
    if (pdr_error_body(502, pdr_reason_name(reason), sentence, text, sizeof text, &need) != PDR_OK) need = 0;
    if (c->response_sse && need && (c->taken_over || c->response_body_mode == BODY_FULL_DUPLEX)) {
        char event[1200];
        size_t len = 0;
        if (pdr_error_event(job->api, 502, pdr_reason_name(reason), sentence, event, sizeof event, &len) == PDR_OK)
            (c->taken_over ? reply_leg_body : reply_relayed)(c, (view){event, len}, 0);
    }
    if (c->taken_over) grpc_finish(&c->grpc, GRPC_UNAVAILABLE); /* Envoy resets the client's stream */
    else reply_immediate(c, 502, "application/json", 0, NULL, NULL, (view){text, need});
}

static int op_may_reroute(gate_job *job)
{
    const call *c = call_of(job);
    if (c->over || c->answered) return 0;
    if (c->decode != DECODE_SENT) return 1;
    return c->w->options->take_over && (own_leg_can_stream(c) || !(job->prompt.flags & PDR_PROMPT_STREAM));
}

static void op_finished(gate_job *job)
{
    call *c = call_of(job);
    for (int i = 0; i < 2; i++) leg_cancel(&c->legs[i]);
    (void)call_release(c);
}

const gate_ops call_ops = {.send = op_send, .cancel = op_cancel, .drain = op_drain, .relay = op_relay, .respond = op_respond, .abort = op_abort,
                           .finished = op_finished, .may_reroute = op_may_reroute, .decided = op_decided};
