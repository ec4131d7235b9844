/*
 * The exchange of one client request: what legs, client and clock do goes in as events, and the actions that come out
 * are carried out. Nothing is decided here.
 */
#include "ngx_http_pdroute.h"

#define FREE_JOBS_MAX 1024
#define ARM_MAX_MS    3600000
#define AFTER_LEGS    (offsetof(ngx_http_pdroute_job_t, legs) + sizeof(((ngx_http_pdroute_job_t *)0)->legs))

static void run(ngx_http_pdroute_job_t *job);

/* ------------------------------------------------------------------------------------------------------------- life */

static void timer_handler(ngx_event_t *ev)
{
    ngx_http_pdroute_job_t *job = ev->data;
    ngx_connection_t *client = job->r ? job->r->connection : NULL;

    ngx_http_pdroute_job_enter(job);
    if (job->is_held)
        ngx_http_pdroute_take(job);
    else
        ngx_http_pdroute_job_event(job, PDR_EV_TICK, NULL, 0);
    ngx_http_pdroute_job_arm(job);
    ngx_http_pdroute_job_leave(job);
    if (client) ngx_http_run_posted_requests(client);
}

/* A relay broke, or asked for actions, inside nginx's own handlers; here it is safe to end it. */
static void failed_handler(ngx_event_t *ev)
{
    ngx_http_pdroute_leg_t *leg = ev->data;
    ngx_http_pdroute_job_t *job = leg->job;
    ngx_connection_t *client = job->r ? job->r->connection : NULL;
    uint32_t detail = leg->fail_detail;

    ngx_http_pdroute_job_enter(job);
    leg->fail_detail = 0;
    if (detail)
        ngx_http_pdroute_leg_fail(leg, detail);
    else
        run(job);
    ngx_http_pdroute_job_leave(job);
    if (client) ngx_http_run_posted_requests(client);
}

/* The request's pool goes: variables were read for the last time. */
static void unreference(void *data)
{
    ngx_http_pdroute_job_t *job = data;
    ngx_http_pdroute_job_enter(job);
    job->referenced = 0;
    ngx_http_pdroute_job_leave(job);
}

/* The request ends, for whatever reason. If that was not our doing, the client left. */
static void request_ends(void *data)
{
    ngx_http_pdroute_job_t *job = data;

    if (job->r == NULL) return;
    ngx_http_pdroute_job_enter(job);
    ngx_http_pdroute_job_detach(job);
    if (job->begun) ngx_http_pdroute_job_event(job, PDR_EV_CLIENT_GONE, NULL, 0);
    ngx_http_pdroute_job_leave(job);
}

ngx_http_pdroute_job_t *ngx_http_pdroute_job_make(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf)
{
    ngx_http_pdroute_zone_t *zone = conf->zone;
    ngx_http_pdroute_job_t *job;
    ngx_uint_t i;

    if (!ngx_queue_empty(&zone->free_jobs)) {
        job = ngx_queue_data(ngx_queue_head(&zone->free_jobs), ngx_http_pdroute_job_t, queue);
        ngx_queue_remove(&job->queue);
        zone->free_jobs_n--;
    } else {
        job = ngx_alloc(sizeof(*job), r->connection->log);
        if (job == NULL) return NULL;
    }
    ngx_memzero(job, offsetof(ngx_http_pdroute_job_t, legs));
    ngx_memzero((u_char *)job + AFTER_LEGS, offsetof(ngx_http_pdroute_job_t, prompt) - AFTER_LEGS);
    job->zone = zone;
    job->conf = conf;
    job->r = r;
    job->head_request = r->method == NGX_HTTP_HEAD;
    for (i = 0; i < 2; i++) {
        ngx_memzero(&job->legs[i], offsetof(ngx_http_pdroute_leg_t, response));
        job->legs[i].job = job;
        job->legs[i].which = (uint32_t)i;
        job->legs[i].failed.handler = failed_handler;
        job->legs[i].failed.data = &job->legs[i];
        job->legs[i].failed.log = ngx_cycle->log;
    }
    job->timer.handler = timer_handler;
    job->timer.data = job;
    job->timer.log = ngx_cycle->log;
    pdr_init_struct(&job->prompt, sizeof(job->prompt));
    return job;
}

ngx_http_pdroute_job_t *ngx_http_pdroute_job_new(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf)
{
    ngx_http_cleanup_t *end = ngx_http_cleanup_add(r, 0);
    ngx_pool_cleanup_t *free = ngx_pool_cleanup_add(r->pool, 0);
    ngx_http_pdroute_job_t *job;

    if (end == NULL || free == NULL) return NULL;
    job = ngx_http_pdroute_job_make(r, conf);
    if (job == NULL) return NULL;
    job->referenced = 1;
    end->handler = request_ends;
    end->data = job;
    free->handler = unreference;
    free->data = job;
    ngx_http_set_ctx(r, job, ngx_http_pdroute_module);
    return job;
}

static void leave_young(ngx_http_pdroute_job_t *job)
{
    if (!job->young) return;
    job->young = 0;
    ngx_queue_remove(&job->queue);
}

static ngx_uint_t leg_is_over(const ngx_http_pdroute_leg_t *leg)
{
    return leg->state == PDROUTE_LEG_IDLE || leg->state == PDROUTE_LEG_DONE;
}

void ngx_http_pdroute_job_enter(ngx_http_pdroute_job_t *job)
{
    job->locks++;
}

void ngx_http_pdroute_job_leave(ngx_http_pdroute_job_t *job)
{
    ngx_http_pdroute_zone_t *zone = job->zone;

    if (--job->locks || job->referenced || job->r || (job->begun && !job->finished)) return;
    if (!leg_is_over(&job->legs[0]) || !leg_is_over(&job->legs[1])) return;
    if (job->timer.timer_set) ngx_del_timer(&job->timer);
    leave_young(job);
    ngx_http_pdroute_merge_free(job);
    ngx_http_pdroute_unpost(&job->legs[0].failed);
    ngx_http_pdroute_unpost(&job->legs[1].failed);
    if (zone->free_jobs_n < FREE_JOBS_MAX) {
        ngx_queue_insert_head(&zone->free_jobs, &job->queue);
        zone->free_jobs_n++;
    } else {
        ngx_free(job);
    }
}

void ngx_http_pdroute_jobs_free(ngx_http_pdroute_zone_t *zone)
{
    ngx_queue_t *q;

    if (zone->free_jobs.next == NULL) return; /* it was never started here */
    while (!ngx_queue_empty(&zone->free_jobs)) {
        q = ngx_queue_head(&zone->free_jobs);
        ngx_queue_remove(q);
        ngx_free(ngx_queue_data(q, ngx_http_pdroute_job_t, queue));
    }
    zone->free_jobs_n = 0;
}

void ngx_http_pdroute_job_detach(ngx_http_pdroute_job_t *job)
{
    ngx_uint_t i;

    if (job->r == NULL) return;
    if (job->is_held) {
        ngx_http_pdroute_unhold(job);
        if (!job->zone->lost) {
            (void)pdr_ticket_cancel(job->zone->router, job->decision.booking, pdr_host_now_ns());
            (void)pdr_host_wake_pending(job->zone->host);
        }
    }
    job->r = NULL;
    for (i = 0; i < 2; i++) {
        if (ngx_http_pdroute_leg_detach(&job->legs[i]) == NGX_OK) continue;
        job->legs[i].out = NULL;
        ngx_http_pdroute_leg_fail(&job->legs[i], PDR_FAIL_RESET);
    }
    job->hashes = NULL;
    ngx_str_null(&job->body);
}

void ngx_http_pdroute_job_grown(ngx_http_pdroute_job_t *job)
{
    leave_young(job);
    job->old = 1;
    ngx_http_pdroute_job_arm(job);
}

/*
 * A job that is over before the next tick needs no timer, only a mark that the worker must not exit. Later the timer is
 * moved only when the time came nearer; one that fires early looks again. Not cancelable: an exiting worker waits for
 * its requests.
 */
void ngx_http_pdroute_job_arm(ngx_http_pdroute_job_t *job)
{
    uint64_t now, deadline, ms = ARM_MAX_MS;

    if (job->finished || (!job->begun && !job->is_held)) {
        leave_young(job);
        if (job->timer.timer_set) ngx_del_timer(&job->timer);
        return;
    }
    if (!job->old) {
        if (job->young) return;
        job->young = 1;
        job->zone->tick.cancelable = 0;
        ngx_queue_insert_tail(&job->zone->young, &job->queue);
        return;
    }
    now = pdr_host_now_ns();
    deadline = job->begun     ? pdr_exchange_deadline(&job->exchange)
               : job->untaken ? now + 100000000
                              : job->held_ns + (uint64_t)(job->zone->config.hold_max_wait_ms + 100) * 1000000;
    if (deadline != UINT64_MAX) {
        ms = deadline > now ? (deadline - now) / 1000000 + 1 : 1;
        if (ms > ARM_MAX_MS) ms = ARM_MAX_MS;
    }
    if (job->timer.timer_set) {
        if ((ngx_msec_int_t)(job->timer.timer.key - (ngx_current_msec + ms)) <= 0) return;
        ngx_del_timer(&job->timer);
    }
    ngx_add_timer(&job->timer, (ngx_msec_t)ms);
}

/* ---------------------------------------------------------------------------------------------------------- actions */

/* `n` counts only if there is a first one: a call that failed early leaves both as they were. */
static void push(ngx_http_pdroute_job_t *job, const pdr_action *actions, size_t n)
{
    size_t i;
    ngx_uint_t j, kept;

    if (actions[0].type == 0) return;
    for (i = 0; i < n; i++) {
        if (actions[i].type == PDR_ACT_CANCEL) { /* a leg that was not even started needs no start */
            for (j = kept = 0; j < job->actions_n; j++) {
                if (job->actions[j].type == PDR_ACT_SEND && job->actions[j].leg == actions[i].leg) continue;
                job->actions[kept++] = job->actions[j];
            }
            job->actions_n = kept;
        }
        if (job->actions_n == PDROUTE_JOB_ACTIONS) {
            ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0, "pdroute: too many actions");
            return;
        }
        job->actions[job->actions_n++] = actions[i];
    }
}

static void reroute(ngx_http_pdroute_job_t *job)
{
    pdr_action acts[PDR_MAX_ACTIONS];
    pdr_error err;
    size_t n = PDR_MAX_ACTIONS;
    int code;

    if (job->r == NULL) { /* nobody waits for an answer any more */
        ngx_http_pdroute_job_event(job, PDR_EV_CLIENT_GONE, NULL, 0);
        return;
    }
    pdr_init_struct(&err, sizeof(err));
    code = ngx_http_pdroute_decide(job, PDR_REQUEST_NO_HOLD, &err);
    acts[0].type = 0;
    (void)pdr_exchange_rerouted(job->zone->router, &job->exchange, code == PDR_OK ? &job->decision : NULL, code,
                                pdr_host_now_ns(), acts, &n);
    push(job, acts, n);
}

/* Prefill has ended, well or not: decode's answer need not wait for it any more. */
static void relay_waiting(ngx_http_pdroute_job_t *job)
{
    ngx_http_pdroute_leg_t *leg = job->waiting;

    if (leg && !job->in_relay && (job->finished || !ngx_http_pdroute_merge_waits(leg))) ngx_http_pdroute_relay(leg);
}

/* Its books are closed. What still goes to the client goes on; nothing else should be open. */
static void finish(ngx_http_pdroute_job_t *job)
{
    ngx_uint_t i;

    relay_waiting(job);
    job->finished = 1;
    for (i = 0; i < 2; i++) {
        if (job->legs[i].state != PDROUTE_LEG_RELAY && job->legs[i].state != PDROUTE_LEG_FLUSH)
            ngx_http_pdroute_leg_cancel(&job->legs[i]);
    }
}

static void perform(ngx_http_pdroute_job_t *job, const pdr_action *act)
{
    ngx_http_pdroute_leg_t *leg = act->leg < 2 ? &job->legs[act->leg] : NULL;

    /* an answer that waited for prefill is thrown away when there is to be another */
    if (act->type == PDR_ACT_ROUTE || act->type == PDR_ACT_RESPOND || (act->type == PDR_ACT_CANCEL && leg == job->waiting)) job->waiting = NULL;
    switch (act->type) {
    case PDR_ACT_SEND:
        if (leg) ngx_http_pdroute_leg_start(leg);
        break;
    case PDR_ACT_CANCEL:
        if (leg) ngx_http_pdroute_leg_cancel(leg);
        break;
    case PDR_ACT_DRAIN:
        if (leg) ngx_http_pdroute_leg_drain(leg);
        break;
    case PDR_ACT_RELAY:
        if (leg) ngx_http_pdroute_relay(leg);
        break;
    case PDR_ACT_ROUTE:
        reroute(job);
        break;
    case PDR_ACT_RESPOND:
        job->reason = act->reason;
        ngx_http_pdroute_respond(job, act->status, pdr_reason_name(act->reason), pdr_reason_text(act->reason),
                                 act->retry_after_ms);
        break;
    case PDR_ACT_ABORT:
        job->reason = act->reason;
        ngx_http_pdroute_relay_abort(job, act->status, act->reason, pdr_reason_text(act->reason));
        break;
    case PDR_ACT_FINISH:
        finish(job);
        break;
    default:
        break;
    }
}

/* Actions that end the relay while nginx is in the middle of it have to wait for the event loop. */
static ngx_uint_t must_wait(ngx_http_pdroute_job_t *job, const pdr_action *act)
{
    if (!job->in_relay) return 0;
    if (act->type == PDR_ACT_ABORT || act->type == PDR_ACT_RESPOND || act->type == PDR_ACT_RELAY) return 1;
    return act->type == PDR_ACT_CANCEL && act->leg < 2 && &job->legs[act->leg] == job->relay;
}

static void run(ngx_http_pdroute_job_t *job)
{
    pdr_action act;

    if (job->running) return;
    job->running = 1;
    ngx_http_pdroute_job_enter(job);
    for (;;) {
        if (job->actions_n == 0 && job->waiting) relay_waiting(job); /* it may end at once, and that has actions too */
        if (job->actions_n == 0) break;
        act = job->actions[0];
        if (must_wait(job, &act)) {
            ngx_post_event(&job->relay->failed, &ngx_posted_events);
            break;
        }
        job->actions_n--;
        ngx_memmove(job->actions, job->actions + 1, job->actions_n * sizeof(act));
        perform(job, &act);
    }
    job->running = 0;
    ngx_http_pdroute_job_arm(job);
    if (!job->zone->lost) (void)pdr_host_wake_pending(job->zone->host);
    ngx_http_pdroute_job_leave(job);
}

void ngx_http_pdroute_job_give_up(ngx_http_pdroute_job_t *job, const char *message)
{
    ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0, "pdroute: %s", message);
    if (job->relay == NULL && job->arm == NULL) ngx_http_pdroute_respond(job, NGX_HTTP_SERVICE_UNAVAILABLE, "gateway_overloaded", message, 1000);
    ngx_http_pdroute_job_event(job, PDR_EV_CLIENT_GONE, NULL, 0);
}

void ngx_http_pdroute_job_begin(ngx_http_pdroute_job_t *job)
{
    pdr_action acts[PDR_MAX_ACTIONS];
    size_t n = PDR_MAX_ACTIONS;

    pdr_init_struct(&job->exchange, sizeof(job->exchange));
    acts[0].type = 0;
    job->begun = 1;
    (void)pdr_exchange_begin(job->zone->router, &job->exchange, &job->decision, job->zone->lease.id, pdr_host_now_ns(),
                             acts, &n);
    if (n == 0 || acts[0].type == 0) { /* cannot be, unless header and library are of different versions */
        job->begun = 0;
        (void)pdr_ticket_cancel(job->zone->router, job->decision.booking, pdr_host_now_ns());
        ngx_http_pdroute_respond(job, NGX_HTTP_INTERNAL_SERVER_ERROR, "internal_error", "the exchange did not begin",
                                 0);
        return;
    }
    push(job, acts, n);
    run(job);
}

/* The books are gone, and with them the exchange. An answer that is on its way goes on; nothing else does. */
static void lost(ngx_http_pdroute_job_t *job, uint32_t type, ngx_http_pdroute_leg_t *leg)
{
    ngx_uint_t relays = job->relay && job->relay->state == PDROUTE_LEG_RELAY;

    job->actions_n = 0;
    job->waiting = NULL;
    finish(job);
    if (job->r == NULL || job->in_relay || (relays && type != PDR_EV_FAILED)) return;
    if (leg && leg == job->relay)
        ngx_http_pdroute_relay_abort(job, NGX_HTTP_SERVICE_UNAVAILABLE, PDR_ERR_NO_PAIR, PDROUTE_LOST);
    else if (!relays)
        ngx_http_pdroute_respond(job, NGX_HTTP_SERVICE_UNAVAILABLE, "block_lost", PDROUTE_LOST, 0);
}

void ngx_http_pdroute_job_event(ngx_http_pdroute_job_t *job, uint32_t type, ngx_http_pdroute_leg_t *leg,
                                uint32_t detail)
{
    pdr_action acts[PDR_MAX_ACTIONS];
    pdr_event ev;
    size_t n = PDR_MAX_ACTIONS;

    if (job->arm) {
        ngx_http_pdroute_fan_event(job->arm, type, leg, detail);
        return;
    }
    if (!job->begun || job->finished) return;
    if (job->zone->lost) {
        lost(job, type, leg);
        return;
    }
    pdr_init_struct(&ev, sizeof(ev));
    ev.type = type;
    ev.detail = type == PDR_EV_HEAD && job->merge ? PDR_HEAD_MERGED : detail;
    ev.now_ns = pdr_host_now_ns();
    ev.attempt = leg ? leg->attempt : job->exchange.attempt;
    if (leg) {
        ev.leg = leg->which;
        ev.status = (uint32_t)leg->head.status;
        ev.retry_after_ms = leg->head.retry_after_ms;
        if (type == PDR_EV_END && leg->read_usage && leg->response.flags & PDR_SEEN_USAGE) {
            ev.usage = 1;
            ev.prompt_tokens = leg->response.prompt_tokens;
            ev.cached_tokens = leg->response.cached_tokens;
            ev.completion_tokens = leg->response.completion_tokens;
        }
        if (type == PDR_EV_END && leg->read_usage && leg->response.flags & PDR_SEEN_ERROR) ev.detail = PDR_FAIL_PROTOCOL;
        if (type == PDR_EV_END && leg == job->relay) ev.longest_gap_ms = (uint32_t)ngx_max(leg->longest_gap, 1);
    } else if (type == PDR_EV_TICK && job->relay && job->relay->state == PDROUTE_LEG_RELAY) {
        /* bytes that lie in the socket wait for the client, not for the worker */
        if (job->relay->c->read->ready) job->relay->last_byte = ngx_current_msec;
        ev.last_byte_ns = ev.now_ns - (ngx_current_msec - job->relay->last_byte) * 1000000ull;
    }
    acts[0].type = 0;
    (void)pdr_exchange_event(job->zone->router, &job->exchange, &ev, acts, &n);
    push(job, acts, n);
    run(job);
}
