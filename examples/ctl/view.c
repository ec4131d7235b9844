#include "view.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* ------------------------------------------------------------------------------------------------------------- endpoints */

static void address(const pdr_endpoint *e, char *buf, size_t cap)
{
    snprintf(buf, cap, strchr(e->host, ':') ? "%s[%s]:%u" : "%s%s:%u", e->flags & PDR_ENDPOINT_TLS ? "https://" : "", e->host, e->port);
}

static const char *bootstrap(const struct ctl *c, const pdr_endpoint *e, char *buf, size_t cap)
{
    pdr_config config;
    if (e->role == PDR_ROLE_DECODE) return "-";
    if (e->flags & PDR_ENDPOINT_NULL_BOOTSTRAP_PORT) return "null";
    pdr_init_struct(&config, sizeof config);
    pdr_router_config(c->router, &config);
    if (*e->bootstrap_host) snprintf(buf, cap, "%s:%u", e->bootstrap_host, e->bootstrap_port ? e->bootstrap_port : config.bootstrap_port);
    else if (e->bootstrap_port) snprintf(buf, cap, "%u", e->bootstrap_port);
    else return "pool"; /* its port may come from a policy document */
    return buf;
}

/* What the server says that it is: PDR_ROLE_*, 0: nothing. */
static uint32_t told_role(const pdr_endpoint *e)
{
    return (e->flags & PDR_ENDPOINT_TOLD_PREFILL ? PDR_ROLE_PREFILL : 0u) | (e->flags & PDR_ENDPOINT_TOLD_DECODE ? PDR_ROLE_DECODE : 0u);
}

static void percent_cell(struct table *t, uint64_t part, uint64_t whole)
{
    if (whole) table_cell(t, "%" PRIu64 "%%", (part * 100 + whole / 2) / whole);
    else table_cell(t, "-");
}

static void target_row(const struct ctl *c, struct table *t, const pdr_endpoint *e, uint32_t id, const pdr_target_status *s)
{
    char name[160], where[300], port[300], wait[SHORT_TEXT];
    int  dp = e->dp_size > 1, prefill = (s->role & PDR_ROLE_PREFILL) != 0, decode = (s->role & PDR_ROLE_DECODE) != 0;
    address(e, where, sizeof where);
    table_cell(t, "%s", ctl_target_name(c->router, id, dp ? s->rank : PDR_NONE, name));
    if (told_role(e) && told_role(e) != e->role) table_cell(t, "%s, says %s", ctl_role_name(s->role), ctl_role_name(told_role(e)));
    else table_cell(t, "%s", ctl_role_name(s->role));
    table_cell(t, "%s", ctl_state_name(s->state));
    table_cell(t, "%s", where);
    table_cell(t, "%s", bootstrap(c, e, port, sizeof port));
    if (prefill) table_cell(t, "%" PRIu64, s->prefill_requests);
    else table_cell(t, "-");
    table_cell(t, "%s", prefill ? text_us(wait, s->prefill_wait_us) : "-");
    if (decode) table_cell(t, "%" PRIu64, s->decode_requests);
    else table_cell(t, "-");
    if (s->report_age_ms == PDR_NONE) {
        table_cell(t, "-");
        table_cell(t, "-");
        table_cell(t, "-");
    } else {
        table_cell(t, "%" PRIu64 "+%" PRIu64, s->reported_running, s->reported_waiting);
        percent_cell(t, s->reported_used_tokens, s->kv_capacity);
        if (s->report_age_ms < 10000) table_cell(t, "%.1f s", s->report_age_ms / 1e3);
        else table_cell(t, "%u s", s->report_age_ms / 1000);
    }
    if (prefill && s->speed_permille) table_cell(t, "%u%%", (s->speed_permille + 5) / 10);
    else table_cell(t, "-");
    percent_cell(t, s->cached_tokens_total, s->prompt_tokens_total);
    table_cell(t, "%" PRIu64, s->requests_total);
    table_cell(t, "%" PRIu64, s->failures_total);
}

/* Walks all targets. */
typedef void on_target(const struct ctl *c, void *context, const pdr_endpoint *e, uint32_t id, uint32_t state, const pdr_target_status *s);
static size_t each_target(const struct ctl *c, uint64_t now_ns, on_target *fn, void *context)
{
    uint32_t cursor = 0, id, state;
    size_t   n = 0;
    while (!pdr_endpoint_next(c->router, &cursor, &id)) {
        pdr_endpoint e;
        pdr_init_struct(&e, sizeof e);
        if (pdr_endpoint_get(c->router, id, &e, &state)) continue;
        for (uint32_t rank = 0; rank < (e.dp_size ? e.dp_size : 1); rank++) {
            pdr_target_status s;
            pdr_init_struct(&s, sizeof s);
            if (pdr_target_get(c->router, id, rank, now_ns, &s)) continue;
            fn(c, context, &e, id, state, &s);
            n++;
        }
    }
    return n;
}

static void row(const struct ctl *c, void *context, const pdr_endpoint *e, uint32_t id, uint32_t state, const pdr_target_status *s)
{
    (void)state;
    target_row(c, context, e, id, s);
}

size_t view_endpoints(const struct ctl *c, struct text *out, size_t width, uint64_t now_ns)
{
    static const char *const head[] = {"NAME", "ROLE", "STATE", "ADDRESS", "BOOTSTRAP", "PREFILL", "AHEAD", "DECODE",
                                       "ENGINE", "KV", "AGE", "SPEED", "HIT", "LEGS", "FAILED"};
    struct table t;
    size_t       n;
    table_init(&t, "lllllrrrrrrrrrr");
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) table_cell(&t, "%s", head[i]);
    n = each_target(c, now_ns, row, &t);
    table_print(&t, out, width);
    return n;
}

struct json_walk {
    struct text *out;
    uint32_t     last; /* id of the endpoint whose object is open */
    int          any;
};

static void text_member(struct text *out, const char *name, const char *value)
{
    text_printf(out, ",\"%s\":", name);
    text_json(out, value, strlen(value));
}

static void json_target(const struct ctl *c, void *context, const pdr_endpoint *e, uint32_t id, uint32_t state, const pdr_target_status *s)
{
    struct json_walk *w = context;
    struct text      *o = w->out;
    (void)c;
    if (w->any && w->last != id) text_puts(o, "]},");
    if (!w->any || w->last != id) {
        text_printf(o, "{\"id\":%u", id);
        text_member(o, "name", e->name);
        text_member(o, "role", ctl_role_name(e->role));
        if (told_role(e)) text_member(o, "told_role", ctl_role_name(told_role(e)));
        text_member(o, "state", ctl_state_name(state));
        text_member(o, "host", e->host);
        text_printf(o, ",\"port\":%u,\"tls\":%s", e->port, e->flags & PDR_ENDPOINT_TLS ? "true" : "false");
        if (e->flags & PDR_ENDPOINT_ALONE) text_puts(o, ",\"alone\":true");
        text_member(o, "bootstrap_host", e->bootstrap_host);
        if (e->flags & PDR_ENDPOINT_NULL_BOOTSTRAP_PORT) text_puts(o, ",\"bootstrap_port\":null");
        else text_printf(o, ",\"bootstrap_port\":%u", e->bootstrap_port);
        text_printf(o, ",\"dp_size\":%u,\"max_running\":%u,\"kv_capacity\":%" PRIu64, e->dp_size, e->max_running, e->kv_capacity);
        text_member(o, "topology_host", e->topology_host);
        text_member(o, "topology_rack", e->topology_rack);
        text_member(o, "topology_zone", e->topology_zone);
        text_member(o, "labels", e->labels);
        text_puts(o, ",\"targets\":[");
    } else {
        text_puts(o, ",");
    }
    text_printf(o, "{\"rank\":%u,\"state\":\"%s\",\"failures\":%u,\"speed_permille\":%u", s->rank, ctl_state_name(s->state), s->failures,
                s->speed_permille);
    if (s->report_age_ms == PDR_NONE) text_puts(o, ",\"report_age_ms\":null");
    else text_printf(o, ",\"report_age_ms\":%u", s->report_age_ms);
    text_printf(o, ",\"prefill_requests\":%" PRIu64 ",\"prefill_tokens\":%" PRIu64 ",\"prefill_wait_us\":%" PRIu64, s->prefill_requests,
                s->prefill_tokens, s->prefill_wait_us);
    text_printf(o, ",\"decode_requests\":%" PRIu64 ",\"decode_tokens\":%" PRIu64 ",\"prefix_blocks\":%" PRIu64 ",\"prefix_capacity\":%" PRIu64,
                s->decode_requests, s->decode_tokens, s->prefix_blocks, s->prefix_capacity);
    text_printf(o, ",\"reported_running\":%" PRIu64 ",\"reported_waiting\":%" PRIu64 ",\"reported_used_tokens\":%" PRIu64 ",\"kv_capacity\":%" PRIu64,
                s->reported_running, s->reported_waiting, s->reported_used_tokens, s->kv_capacity);
    text_printf(o, ",\"requests_total\":%" PRIu64 ",\"failures_total\":%" PRIu64 ",\"cached_tokens_total\":%" PRIu64 ",\"prompt_tokens_total\":%" PRIu64 "}",
                s->requests_total, s->failures_total, s->cached_tokens_total, s->prompt_tokens_total);
    w->any = 1;
    w->last = id;
}

void view_endpoints_json(const struct ctl *c, struct text *out, uint64_t now_ns)
{
    struct json_walk w = {.out = out};
    text_puts(out, "[");
    each_target(c, now_ns, json_target, &w);
    text_puts(out, w.any ? "]}]\n" : "]\n");
}

/* ------------------------------------------------------------------------------------------------------------- decisions */

const char *view_time(char buf[static SHORT_TEXT], uint64_t time_ns)
{
    struct timespec real;
    struct tm       parts;
    int64_t         then;
    time_t          s;
    clock_gettime(CLOCK_REALTIME, &real);
    then = (int64_t)real.tv_sec * 1000000000 + real.tv_nsec - (int64_t)(pdr_host_now_ns() - time_ns);
    s = (time_t)(then / 1000000000);
    localtime_r(&s, &parts);
    snprintf(buf, SHORT_TEXT, "%02d:%02d:%02d.%03d", parts.tm_hour % 24, parts.tm_min % 60, parts.tm_sec % 61,
             (int)(then / 1000000 % 1000) % 1000);
    return buf;
}

const char *view_outcome(uint32_t outcome)
{
    if (outcome == PDR_SEND) return "sent";
    if (outcome == PDR_HELD) return "held";
    return pdr_strerror((int)outcome);
}

void view_decision_head(struct table *t)
{
    static const char *const head[] = {"NUMBER", "TIME", "OUTCOME", "PREFILL -> DECODE", "PROMPT", "HIT", "COST", "HELD"};
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) table_cell(t, "%s", head[i]);
}

void view_decision(const struct ctl *c, struct table *t, const pdr_log_record *r)
{
    char when[SHORT_TEXT], prefill[160], decode[160], cost[SHORT_TEXT];
    table_cell(t, "%" PRIu64, r->number);
    table_cell(t, "%s", view_time(when, r->time_ns));
    if (r->attempt) table_cell(t, "%s, attempt %u", view_outcome(r->outcome), r->attempt + 1);
    else table_cell(t, "%s", view_outcome(r->outcome));
    if (r->decode == PDR_NONE) table_cell(t, "-");
    else if (r->prefill == PDR_NONE) table_cell(t, "%s", ctl_target_name(c->router, r->decode, r->decode_rank, decode));
    else
        table_cell(t, "%s -> %s", ctl_target_name(c->router, r->prefill, r->prefill_rank, prefill),
                   ctl_target_name(c->router, r->decode, r->decode_rank, decode));
    table_cell(t, "%" PRIu64, r->prompt_tokens);
    if (r->prompt_tokens) table_cell(t, "%" PRIu64 "%%", r->matched_tokens * 100 / r->prompt_tokens);
    else table_cell(t, "-");
    table_cell(t, "%s", r->decode == PDR_NONE ? "-" : text_us(cost, r->cost_us));
    table_cell(t, "%s", r->held_us ? text_us(cost, r->held_us) : "-");
}

static void candidate_rows(const struct ctl *c, struct table *t, const pdr_candidate *list, size_t n, uint32_t role, const char *indent)
{
    char name[160], text[SHORT_TEXT];
    for (size_t i = 0; i < n; i++) {
        const pdr_candidate *k = &list[i];
        if (k->role != role) continue;
        table_cell(t, "%s%s", indent, k->chosen ? "*" : " ");
        table_cell(t, "%s", ctl_target_name(c->router, k->endpoint, k->rank, name));
        if (k->barred && k->barred != PDR_BARRED_BUSY) {
            for (int x = 0; x < 7; x++) table_cell(t, "-");
            table_cell(t, "%s", ctl_barred_name(k->barred));
            continue;
        }
        if (role != PDR_ROLE_DECODE) {
            table_cell(t, "%" PRIu64, k->matched_tokens);
            table_cell(t, "%" PRIu64, k->uncached_tokens);
        } else {
            table_cell(t, "-");
            table_cell(t, "-");
        }
        table_cell(t, "%s", text_us(text, k->wait_us));
        table_cell(t, "%s", text_us(text, k->work_us));
        table_cell(t, "%s", text_us(text, k->price_us));
        table_cell(t, "%s", role == PDR_ROLE_DECODE ? text_us(text, k->transfer_us) : "-");
        table_cell(t, "%s", text_us(text, k->cost_us));
        table_cell(t, "%s", ctl_barred_name(k->barred));
    }
}

void view_candidates(const struct ctl *c, struct text *out, const pdr_candidate *list, size_t n, const char *indent)
{
    static const char *const head[] = {"CACHED", "UNCACHED", "WAIT", "WORK", "PRICE", "TRANSFER", "COST", ""};
    struct table t;
    table_init(&t, "llrrrrrrrl");
    static const uint32_t roles[] = {PDR_ROLE_PREFILL, PDR_ROLE_DECODE, PDR_ROLE_BOTH};
    int alone = 0;
    for (size_t i = 0; i < n; i++) alone |= list[i].role == PDR_ROLE_BOTH;
    for (int r = 0; r < 2 + alone; r++) {
        uint32_t role = roles[r];
        size_t   before = t.n;
        table_cell(&t, "%s ", indent);
        table_cell(&t, "%s", role == PDR_ROLE_PREFILL ? "PREFILL" : role == PDR_ROLE_DECODE ? "DECODE" : "ALONE");
        for (size_t i = 0; i < sizeof head / sizeof *head; i++) table_cell(&t, "%s", head[i]);
        before = t.n;
        candidate_rows(c, &t, list, n, role, indent);
        if (t.n != before) continue;
        table_cell(&t, "%s ", indent);
        table_cell(&t, "none");
        for (size_t i = 2; i < t.columns; i++) table_cell(&t, "%s", "");
    }
    table_print(&t, out, 0);
}

void view_candidate_json(const struct ctl *c, struct text *o, const pdr_candidate *k)
{
    char name[128];
    text_printf(o, "{\"endpoint\":%u", k->endpoint);
    text_member(o, "name", ctl_endpoint_name(c->router, k->endpoint, name));
    if (k->rank != PDR_NONE) text_printf(o, ",\"rank\":%u", k->rank);
    text_printf(o, ",\"role\":\"%s\",\"chosen\":%s", ctl_role_name(k->role), k->chosen ? "true" : "false");
    if (k->barred) text_member(o, "barred", ctl_barred_name(k->barred));
    else text_puts(o, ",\"barred\":null");
    text_printf(o, ",\"matched_tokens\":%" PRIu64 ",\"uncached_tokens\":%" PRIu64 ",\"wait_us\":%" PRIu64 ",\"work_us\":%" PRIu64
                ",\"price_us\":%" PRIu64 ",\"transfer_us\":%" PRIu64 ",\"cost_us\":%" PRIu64 "}",
                k->matched_tokens, k->uncached_tokens, k->wait_us, k->work_us, k->price_us, k->transfer_us, k->cost_us);
}
