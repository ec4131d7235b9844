/* The exchange of a job: events go in, the actions that come out are carried out by the proxy's ops. */
#include "parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gate_list(gate_job *job)
{
    gate *g = job->gate;
    if (job->listed) return;
    job->listed = 1;
    job->prev = NULL;
    job->next = g->jobs;
    if (job->next) job->next->prev = job;
    g->jobs = job;
}

void gate_unlist(gate_job *job)
{
    if (!job->listed) return;
    job->listed = 0;
    if (job->prev) job->prev->next = job->next;
    else job->gate->jobs = job->next;
    if (job->next) job->next->prev = job->prev;
}

/* ---------------------------------------------------------------------------------------------------------- exchange */

static void push(gate_job *job, const pdr_action *actions, size_t n)
{
    uint32_t kept;

    for (size_t i = 0; i < n && actions[i].type; i++) {
        if (actions[i].type == PDR_ACT_CANCEL) { /* a leg that was not even started needs no start */
            kept = 0;
            for (uint32_t j = 0; j < job->actions_n; j++) {
                if (job->actions[j].type == PDR_ACT_SEND && job->actions[j].leg == actions[i].leg) continue;
                job->actions[kept++] = job->actions[j];
            }
            job->actions_n = kept;
        }
        if (job->actions_n == GATE_ACTIONS) {
            gate_log("alert", "too many actions");
            return;
        }
        job->actions[job->actions_n++] = actions[i];
    }
}

static void reroute(gate_job *job)
{
    pdr_action acts[PDR_MAX_ACTIONS] = {0};
    pdr_error err;
    size_t n = PDR_MAX_ACTIONS;
    int code = PDR_E_NO_PAIR;

    pdr_init_struct(&err, sizeof err);
    if (job->gate->ops->may_reroute(job)) code = gate_decide(job, PDR_REQUEST_NO_HOLD, &err);
    (void)pdr_exchange_rerouted(job->gate->router, &job->exchange, code == PDR_OK ? &job->decision : NULL, code, pdr_host_now_ns(), acts, &n);
    if (code == PDR_OK) gate_decided(job);
    push(job, acts, n);
}

/* Decode's answer is not passed on before prefill's is there. */
static int whole_waits(const gate_job *job)
{
    return job->whole && job->whole->wanted && !job->whole->ended && !job->finished && job->exchange.leg_status[PDR_LEG_DECODE] == 200;
}

static void perform(gate_job *job, const pdr_action *act)
{
    const gate_ops *ops = job->gate->ops;
    const int leg = (int)act->leg;

    /* decode's answer that waited for prefill's is thrown away when there is to be another */
    if (act->type == PDR_ACT_ROUTE || act->type == PDR_ACT_RESPOND || act->type == PDR_ACT_RELAY) job->relay_waits = 0;
    switch (act->type) {
    case PDR_ACT_SEND:
        ops->send(job, leg);
        break;
    case PDR_ACT_CANCEL:
        if (leg == PDR_LEG_DECODE) job->relay_waits = 0;
        ops->cancel(job, leg);
        break;
    case PDR_ACT_DRAIN:
        ops->drain(job, leg);
        break;
    case PDR_ACT_RELAY:
        if (leg == PDR_LEG_DECODE && whole_waits(job)) job->relay_waits = 1;
        else ops->relay(job, leg);
        break;
    case PDR_ACT_ROUTE:
        reroute(job);
        break;
    case PDR_ACT_RESPOND:
        job->reason = act->reason;
        gate_respond(job, act->status, pdr_reason_name(act->reason), pdr_reason_text(act->reason), act->retry_after_ms);
        break;
    case PDR_ACT_ABORT:
        job->reason = act->reason;
        (void)snprintf(job->why, sizeof job->why, "%s", pdr_reason_name(act->reason));
        ops->abort(job, act->reason, pdr_reason_text(act->reason));
        break;
    case PDR_ACT_FINISH:
        job->finished = 1;
        gate_unlist(job);
        break;
    default:
        break;
    }
}

static void run(gate_job *job)
{
    gate *g = job->gate;
    if (job->running) return;
    job->running = 1;
    for (;;) {
        if (job->actions_n == 0) {
            if (!job->relay_waits || whole_waits(job)) break;
            job->relay_waits = 0;
            g->ops->relay(job, PDR_LEG_DECODE);
            continue;
        }
        const pdr_action act = job->actions[0];
        job->actions_n--;
        memmove(job->actions, job->actions + 1, job->actions_n * sizeof act);
        perform(job, &act);
    }
    job->running = 0;
    (void)pdr_host_wake_pending(g->host);
    if (job->finished) g->ops->finished(job); /* may free it */
}

void gate_begin(gate_job *job)
{
    pdr_action acts[PDR_MAX_ACTIONS] = {0};
    size_t n = PDR_MAX_ACTIONS;

    pdr_init_struct(&job->exchange, sizeof job->exchange);
    job->begun = 1;
    gate_list(job);
    (void)pdr_exchange_begin(job->gate->router, &job->exchange, &job->decision, job->gate->lease.id, pdr_host_now_ns(), acts, &n);
    if (n == 0 || acts[0].type == 0) { /* cannot be, unless header and library are of different versions */
        job->begun = 0;
        gate_unlist(job);
        (void)pdr_ticket_cancel(job->gate->router, job->decision.booking, pdr_host_now_ns());
        gate_respond(job, 500, "internal_error", "the exchange did not begin", 0);
        return;
    }
    push(job, acts, n);
    run(job);
}

void gate_event(gate_job *job, uint32_t type, uint32_t leg, const gate_detail *detail)
{
    pdr_action acts[PDR_MAX_ACTIONS] = {0};
    pdr_event ev;
    size_t n = PDR_MAX_ACTIONS;

    if (!job->begun || job->finished) return;
    if (job->whole && leg == PDR_LEG_PREFILL && (type == PDR_EV_END || type == PDR_EV_FAILED) && detail->attempt == job->exchange.attempt)
        whole_prefill_ended(job->whole, type == PDR_EV_END && detail->status == 200);
    pdr_init_struct(&ev, sizeof ev);
    ev.type = type;
    ev.leg = leg;
    ev.now_ns = pdr_host_now_ns();
    ev.attempt = job->exchange.attempt;
    ev.last_byte_ns = job->relay_waits ? ev.now_ns : job->last_byte_ns; /* what has come may wait for prefill, not for decode */
    if (type == PDR_EV_END && leg == PDR_LEG_DECODE && job->last_byte_ns) {
        const uint64_t gap_ms = job->longest_gap_ns / 1000000;
        ev.longest_gap_ms = gap_ms ? (uint32_t)gap_ms : 1;
    }
    if (type == PDR_EV_HEAD && job->whole && job->whole->wanted) ev.detail = PDR_HEAD_MERGED;
    if (type == PDR_EV_END && detail && detail->usage && detail->usage->flags & PDR_SEEN_ERROR) ev.detail = PDR_FAIL_PROTOCOL;
    if (detail) {
        ev.status = detail->status;
        if (detail->detail) ev.detail = detail->detail;
        ev.attempt = detail->attempt;
        ev.retry_after_ms = detail->retry_after_ms;
        if (type == PDR_EV_END && detail->usage && detail->usage->flags & PDR_SEEN_USAGE) {
            ev.usage = 1;
            ev.prompt_tokens = detail->usage->prompt_tokens;
            ev.cached_tokens = detail->usage->cached_tokens;
            ev.completion_tokens = detail->usage->completion_tokens;
        }
    }
    (void)pdr_exchange_event(job->gate->router, &job->exchange, &ev, acts, &n);
    push(job, acts, n);
    run(job);
}

void gate_piece(gate_job *job)
{
    const uint64_t now = pdr_host_now_ns();
    if (job->last_byte_ns && now - job->last_byte_ns > job->longest_gap_ns) job->longest_gap_ns = now - job->last_byte_ns;
    job->last_byte_ns = now;
}

/* Error events of a stream are masked; the beginning of one is held back until it is whole. */
static view mask(gate_job *job, pdr_response *reader, view piece, int end)
{
    size_t ready = piece.len;

    if (job->kept_out) { /* it went with the call before */
        job->kept.len -= job->kept_out;
        memmove(job->kept.data, job->kept.data + job->kept_out, job->kept.len);
        job->kept_out = 0;
    }
    if (job->kept.len == 0) { /* it lies in a buffer of the proxy's that nobody else reads */
        (void)pdr_response_mask(reader, &job->decision, (char *)(uintptr_t)piece.data, piece.len, end, &ready);
        bytes_put(&job->kept, piece.data + ready, piece.len - ready);
        return (view){piece.data, ready};
    }
    bytes_put_view(&job->kept, piece);
    (void)pdr_response_mask(reader, &job->decision, job->kept.data, job->kept.len, end, &job->kept_out);
    return (view){job->kept.data, job->kept_out};
}

view gate_pass(gate_job *job, unsigned status, int sse, pdr_response *reader, view piece, int end)
{
    if (status != 200 || !reader) return piece;
    if (sse) piece = mask(job, reader, piece, end);
    return job->whole ? whole_pass(job->whole, job->api, sse ? PDR_RESPONSE_SSE : PDR_RESPONSE_JSON, piece, end) : piece;
}

int gate_keeps(const gate_job *job)
{
    return job->whole || job->kept.len > job->kept_out;
}

void gate_client_gone(gate_job *job)
{
    if (job->is_held) {
        gate_unhold(job);
        (void)pdr_ticket_cancel(job->gate->router, job->decision.booking, pdr_host_now_ns());
        (void)pdr_host_wake_pending(job->gate->host);
        return;
    }
    gate_event(job, PDR_EV_CLIENT_GONE, 0, NULL);
}

void gate_job_end(gate_job *job)
{
    free(job->hashes);
    job->hashes = NULL;
    whole_free(&job->whole);
    bytes_free(&job->kept);
    if (job->gate) {
        gate_unhold(job);
        gate_unlist(job);
    }
}
