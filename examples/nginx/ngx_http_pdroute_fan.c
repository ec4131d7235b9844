/*
 * Control requests (/flush_cache, /abort_request, …) go to every worker: a request that one worker got would leave the
 * others as they were. Each worker gets it as the client sent it; their answers come back as one list. The status is
 * 200 if all said so, that of all if they agree on another, else 502.
 */
#include "ngx_http_pdroute.h"

#define ANSWER_MAX 4096   /* bytes of a worker's answer that are kept */
#define TIMEOUT_MS 300000 /* loading weights takes its time */

typedef struct fan_s fan_t;

struct ngx_http_pdroute_arm_s {
    fan_t *fan;
    ngx_http_pdroute_job_t *job; /* NULL: over */
    pdr_endpoint endpoint;
    uint32_t id;
    ngx_uint_t status;
    const char *failed;
    u_char *text;
    size_t len;
};

struct fan_s {
    ngx_http_request_t *r;
    ngx_http_pdroute_zone_t *zone;
    ngx_http_pdroute_arm_t *arms;
    ngx_uint_t n, left;
    ngx_event_t timer;
    unsigned over : 1;
};

ngx_uint_t ngx_http_pdroute_is_control(ngx_http_request_t *r)
{
    static const ngx_str_t paths[] = {ngx_string("/flush_cache"),
                                      ngx_string("/abort_request"),
                                      ngx_string("/start_profile"),
                                      ngx_string("/stop_profile"),
                                      ngx_string("/pause_generation"),
                                      ngx_string("/continue_generation"),
                                      ngx_string("/release_memory_occupation"),
                                      ngx_string("/resume_memory_occupation"),
                                      ngx_string("/clear_hicache_storage_backend"),
                                      ngx_string("/start_expert_distribution_record"),
                                      ngx_string("/stop_expert_distribution_record"),
                                      ngx_string("/dump_expert_distribution_record"),
                                      ngx_string("/update_weights_from_disk"),
                                      ngx_string("/load_lora_adapter"),
                                      ngx_string("/unload_lora_adapter"),
                                      ngx_string("/set_internal_state"),
                                      ngx_string("/configure_logging")};
    ngx_uint_t i;

    for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (r->uri.len == paths[i].len && ngx_strncmp(r->uri.data, paths[i].data, r->uri.len) == 0) return 1;
    }
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------- the answer
 */

/* A JSON string from any bytes: what is not UTF-8 becomes U+FFFD. At most six times as long. */
static u_char *put_string(u_char *p, u_char *s, size_t n)
{
    u_char *last = s + n, *from;

    *p++ = '"';
    while (s < last) {
        if (*s >= 0x80) {
            from = s;
            if (ngx_utf8_decode(&s, (size_t)(last - s)) <= 0x10ffff) {
                p = ngx_cpymem(p, from, s - from);
            } else {
                s = from + 1;
                p = ngx_cpymem(p, "\\ufffd", 6);
            }
            continue;
        }
        p = (u_char *)ngx_escape_json(p, s++, 1);
    }
    *p++ = '"';
    return p;
}

static u_char *put_arm(u_char *p, ngx_http_pdroute_arm_t *arm)
{
    static const char *const roles[] = {"", "prefill", "decode", "both"};
    pdr_endpoint *e = &arm->endpoint;

    p = ngx_cpymem(p, "{\"name\":", 8);
    p = put_string(p, (u_char *)e->name, ngx_strlen(e->name));
    p = ngx_sprintf(p, ",\"role\":\"%s\",\"host\":\"%s\",\"port\":%uD,\"status\":%ui", roles[e->role], e->host, e->port,
                    arm->status);
    if (arm->failed) {
        p = ngx_sprintf(p, ",\"error\":\"%s\"", arm->failed);
    } else if (arm->len) {
        p = ngx_cpymem(p, ",\"answer\":", 10);
        p = put_string(p, arm->text, arm->len);
    }
    *p++ = '}';
    return p;
}

/* A worker without cache: what was known of it is worth nothing. */
static void forget_prefixes(fan_t *fan, ngx_http_pdroute_arm_t *arm)
{
    uint32_t rank, ranks = ngx_max(arm->endpoint.dp_size, 1);

    if (arm->failed || arm->status != NGX_HTTP_OK || fan->zone->lost) return;
    for (rank = 0; rank < ranks; rank++) (void)pdr_prefix_clear(fan->zone->router, arm->id, rank);
}

static ngx_uint_t status_of_all(fan_t *fan)
{
    ngx_uint_t i, good = 0, status = fan->arms[0].status;

    for (i = 0; i < fan->n; i++) {
        if (fan->arms[i].failed) return NGX_HTTP_BAD_GATEWAY;
        good += fan->arms[i].status < 300;
        if (fan->arms[i].status != status) status = NGX_HTTP_BAD_GATEWAY;
    }
    return good == fan->n ? NGX_HTTP_OK : status;
}

static void answer(fan_t *fan)
{
    ngx_http_request_t *r = fan->r;
    ngx_uint_t i, status = status_of_all(fan);
    size_t size = 64;
    ngx_str_t body;
    u_char *p;

    fan->over = 1;
    if (fan->timer.timer_set) ngx_del_timer(&fan->timer);
    for (i = 0; i < fan->n; i++) size += 1024 + 6 * (sizeof(fan->arms[i].endpoint.name) + fan->arms[i].len);
    p = body.data = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }
    p = ngx_sprintf(p, "{\"success\":%s,\"workers\":[", status < 300 ? "true" : "false");
    for (i = 0; i < fan->n; i++) {
        if (i) *p++ = ',';
        p = put_arm(p, &fan->arms[i]);
        if (r->uri.len == 12 && ngx_strncmp(r->uri.data, "/flush_cache", 12) == 0) forget_prefixes(fan, &fan->arms[i]);
    }
    p = ngx_cpymem(p, "]}", 2);
    body.len = (size_t)(p - body.data);
    ngx_http_finalize_request(r, ngx_http_pdroute_send(r, status, "application/json", &body, 0));
}

/* ------------------------------------------------------------------------------------------------------------- events
 */

/* Nothing of the request may be touched after it returns: the last one answers. */
static void arm_over(ngx_http_pdroute_arm_t *arm, const char *failed)
{
    fan_t *fan = arm->fan;
    ngx_http_pdroute_job_t *job = arm->job;

    if (job == NULL) return;
    arm->job = NULL;
    arm->failed = failed;
    if (failed) arm->status = 0;
    ngx_http_pdroute_job_enter(job);
    ngx_http_pdroute_leg_cancel(&job->legs[PDR_LEG_DECODE]);
    job->arm = NULL;
    job->r = NULL;
    ngx_http_pdroute_job_leave(job);
    if (--fan->left == 0 && !fan->over) answer(fan);
}

static void start_leg(ngx_http_pdroute_job_t *job)
{
    ngx_http_pdroute_job_enter(job);
    ngx_http_pdroute_leg_start(&job->legs[PDR_LEG_DECODE]);
    job->legs[PDR_LEG_DECODE].drain = 1; /* to ngx_http_pdroute_fan_content() */
    ngx_http_pdroute_job_leave(job);
}

void ngx_http_pdroute_fan_event(ngx_http_pdroute_arm_t *arm, uint32_t type, ngx_http_pdroute_leg_t *leg,
                                uint32_t detail)
{
    if (type == PDR_EV_HEAD)
        arm->status = leg->head.status;
    else if (type == PDR_EV_END)
        arm_over(arm, NULL);
    else if (type == PDR_EV_FAILED && detail == PDR_FAIL_STALE)
        start_leg(arm->job); /* a kept connection was closed: there are no more of them now */
    else if (type == PDR_EV_FAILED)
        arm_over(arm, detail == PDR_FAIL_TIMEOUT   ? "timed out"
                      : detail == PDR_FAIL_CONNECT ? "no connection"
                                                   : "no answer");
    else if (type == PDR_EV_CLIENT_GONE)
        arm_over(arm, "the gateway has no connections left");
}

void ngx_http_pdroute_fan_content(ngx_http_pdroute_arm_t *arm, u_char *begin, u_char *end)
{
    size_t n = ngx_min((size_t)(end - begin), ANSWER_MAX - arm->len);

    if (n == 0) return;
    if (arm->text == NULL) arm->text = ngx_pnalloc(arm->fan->r->pool, ANSWER_MAX);
    if (arm->text == NULL) return;
    ngx_memcpy(arm->text + arm->len, begin, n);
    arm->len += n;
}

static void timed_out(ngx_event_t *ev)
{
    fan_t *fan = ev->data;
    ngx_connection_t *client = fan->r->connection;
    ngx_uint_t i;

    fan->over = 1;
    for (i = 0; i < fan->n; i++) arm_over(&fan->arms[i], "timed out");
    answer(fan);
    ngx_http_run_posted_requests(client);
}

static void request_ends(void *data)
{
    fan_t *fan = data;
    ngx_uint_t i;

    fan->over = 1;
    if (fan->timer.timer_set) ngx_del_timer(&fan->timer);
    for (i = 0; i < fan->n; i++) arm_over(&fan->arms[i], "the client left");
}

/* -------------------------------------------------------------------------------------------------------------- start
 */

/* Not those that were removed; those that are down or drain too. */
static ngx_int_t list_arms(fan_t *fan)
{
    ngx_http_pdroute_arm_t *arm;
    uint32_t cursor = 0, id, state, max = fan->zone->config.max_endpoints;
    ngx_uint_t n = 0;

    while (pdr_endpoint_next(fan->zone->router, &cursor, &id) == PDR_OK) n++;
    fan->arms = ngx_pcalloc(fan->r->pool, ngx_max(n, 1) * sizeof(*fan->arms));
    if (fan->arms == NULL) return NGX_ERROR;
    for (cursor = 0; fan->n < n && pdr_endpoint_next(fan->zone->router, &cursor, &id) == PDR_OK;) {
        arm = &fan->arms[fan->n];
        pdr_init_struct(&arm->endpoint, sizeof(arm->endpoint));
        if (id >= max || pdr_endpoint_get(fan->zone->router, id, &arm->endpoint, &state) != PDR_OK) continue;
        arm->fan = fan;
        arm->id = id;
        fan->n++;
    }
    return NGX_OK;
}

static ngx_int_t make_job(fan_t *fan, ngx_http_pdroute_arm_t *arm, ngx_http_pdroute_loc_conf_t *conf, ngx_str_t *body)
{
    ngx_http_pdroute_job_t *job = ngx_http_pdroute_job_make(fan->r, conf);
    pdr_decision *d;

    if (job == NULL) return NGX_ERROR;
    d = &job->decision;
    pdr_init_struct(d, sizeof(*d));
    d->mode = PDR_MODE_SINGLE;
    d->decode = arm->id;
    d->decode_port = arm->endpoint.port;
    d->decode_flags = arm->endpoint.flags;
    ngx_cpystrn((u_char *)d->decode_host, (u_char *)arm->endpoint.host, sizeof(d->decode_host));
    pdr_init_struct(&job->exchange, sizeof(job->exchange));
    job->api = PDR_API_OTHER;
    job->body = *body;
    job->raw_body = 1;
    job->has_body = fan->r->headers_in.content_length_n >= 0 || fan->r->headers_in.chunked;
    job->peer_names[PDR_LEG_DECODE].data = job->peer_text[PDR_LEG_DECODE];
    job->peer_names[PDR_LEG_DECODE].len =
        (size_t)(ngx_snprintf(job->peer_text[PDR_LEG_DECODE], sizeof(job->peer_text[0]), "%s:%uD", d->decode_host,
                              d->decode_port) -
                 job->peer_text[PDR_LEG_DECODE]);
    job->arm = arm;
    arm->job = job;
    return NGX_OK;
}

void ngx_http_pdroute_fan(ngx_http_request_t *r, ngx_http_pdroute_loc_conf_t *conf, ngx_str_t *body)
{
    fan_t *fan = ngx_pcalloc(r->pool, sizeof(*fan));
    ngx_http_cleanup_t *end = ngx_http_cleanup_add(r, 0);
    ngx_uint_t i;

    if (fan == NULL || end == NULL) goto failed;
    fan->r = r;
    fan->zone = conf->zone;
    if (list_arms(fan) != NGX_OK) goto failed;
    end->handler = request_ends;
    end->data = fan;
    if (fan->n == 0) {
        ngx_http_finalize_request(r, NGX_HTTP_SERVICE_UNAVAILABLE);
        return;
    }
    fan->timer.handler = timed_out;
    fan->timer.data = fan;
    fan->timer.log = r->connection->log;
    fan->left = 1; /* until all are begun */
    for (i = 0; i < fan->n; i++) {
        if (make_job(fan, &fan->arms[i], conf, body) == NGX_OK)
            fan->left++;
        else
            fan->arms[i].failed = "the gateway is out of memory";
    }
    for (i = 0; i < fan->n; i++) {
        if (fan->arms[i].job) start_leg(fan->arms[i].job);
    }
    if (--fan->left == 0)
        answer(fan);
    else
        ngx_add_timer(&fan->timer, TIMEOUT_MS);
    return;
failed:
    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
}
