/* Public entry points: counters, status as JSON and as Prometheus text, readiness. */
#include "router_decide.h"
#include "text.h"

#include <string.h>

static void gauges(const pdr_books *b, pdr_stats *s)
{
    *s = b->r->stats;
    s->struct_size = sizeof *s;
    s->bookings = b->ledger.head->bookings;
    s->held_now = b->hold.head->held;
    s->held_longest_us = b->hold.head->longest_us;
    s->held_oldest_us = pdr_hold_oldest_us(&b->hold, b->now_ns);
    s->leases = b->ledger.head->leases;
    s->rooms_live = b->ledger.head->rooms;
    s->endpoints = b->registry.head->endpoints;
    s->targets = b->registry.head->targets;
    s->prefix_entries = pdr_index_entries(b->index);
    s->prefix_evictions = pdr_index_evictions(b->index);
}

int pdr_stats_get(pdr_router *r, pdr_stats *out)
{
    pdr_books b;
    pdr_stats s;
    int       code = pdr_books_lock(&b, r, 0);
    if (code) return code;
    gauges(&b, &s);
    if ((code = pdr_books_unlock(&b, PDR_OK, NULL))) return code;
    return pdr_struct_out(out, &s, sizeof s, NULL);
}

static int any_usable(const pdr_books *b, const uint32_t *list, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (b->registry.targets[list[i]].open_until_ns <= b->now_ns) return 1;
    return 0;
}

static int ready_locked(const pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    return any_usable(b, b->registry.single, h->single_n) ||
           (any_usable(b, b->registry.prefill, h->prefill_n) && any_usable(b, b->registry.decode, h->decode_n));
}

int pdr_ready(pdr_router *r, uint64_t now_ns)
{
    pdr_books b;
    if (pdr_books_lock(&b, r, now_ns)) return 0;
    int ready = ready_locked(&b);
    return pdr_books_unlock(&b, PDR_OK, NULL) ? 0 : ready;
}

/* ---- one table of counters for both forms */

typedef struct pdr_counter { const char *name, *type, *help; size_t offset; } pdr_counter;

#define COUNTER(field, help) {#field, "counter", help, offsetof(pdr_stats, field)}
#define GAUGE(field, help)   {#field, "gauge", help, offsetof(pdr_stats, field)}
static const pdr_counter counters[] = {
    COUNTER(routed, "Requests that were sent or held."),
    COUNTER(held, "Requests that had to wait for a worker."),
    COUNTER(released, "Held requests that got a worker."),
    COUNTER(expired, "Held requests whose deadline passed."),
    COUNTER(cancelled, "Held requests and bookings given up by their owner."),
    COUNTER(retried, "Decisions for a further attempt of a request."),
    COUNTER(refused_no_pair, "Requests refused because no pair was usable."),
    COUNTER(refused_queue_full, "Requests refused because the queue was full."),
    COUNTER(finished, "Exchanges whose worker's answer reached the client."),
    COUNTER(failed, "Exchanges that ended with an error of the gateway."),
    COUNTER(prompt_tokens, "Prompt tokens routed (estimated where not exact)."),
    COUNTER(matched_tokens, "Of those, tokens believed to be cached at the chosen prefill."),
    COUNTER(prompt_tokens_reported, "Prompt tokens as engines reported them."),
    COUNTER(cached_tokens_reported, "Cached tokens as engines reported them."),
    COUNTER(prefix_evictions, "Prefix entries that made room for others."),
    COUNTER(lock_recoveries, "Deaths of a process inside a call that were repaired."),
    COUNTER(leases_expired, "Leases that ended because nobody renewed them."),
    COUNTER(reports, "Engine reports taken."),
    COUNTER(reports_failed, "Engine reports that could not be read."),
    COUNTER(clock_backwards, "Calls whose time was more than a second behind."),
    COUNTER(timeouts, "Legs given up because they were silent for too long."),
    COUNTER(retries_refused, "Retries that the budget did not allow."),
    COUNTER(breakers_opened, "Times that an endpoint was taken out."),
    GAUGE(bookings, "Requests in flight, held ones included."),
    GAUGE(held_now, "Requests held at present."),
    GAUGE(held_longest_us, "Longest time that a request was ever held, in microseconds."),
    GAUGE(held_oldest_us, "Time that the oldest held request has waited, in microseconds."),
    GAUGE(rooms_live, "Bootstrap rooms in use."),
    GAUGE(leases, "Processes and others that hold a lease."),
    GAUGE(endpoints, "Registered endpoints."),
    GAUGE(targets, "Their data parallel ranks."),
    GAUGE(prefix_entries, "(target, block) entries in the prefix index."),
};
enum { COUNTERS = sizeof counters / sizeof *counters };

static uint64_t value_of(const pdr_stats *s, size_t i)
{
    uint64_t v;
    memcpy(&v, (const char *)s + counters[i].offset, sizeof v);
    return v;
}

static const char *const role_names[] = {"?", "prefill", "decode", "both"};
static const char *const state_names[] = {"ready", "draining", "down", "removed"};

typedef struct pdr_row {
    const pdr_endpoint_rec *rec;
    const pdr_target       *t;
    const pdr_target_info  *i;
    uint32_t                id, at;
} pdr_row;

static int next_row(const pdr_books *b, pdr_row *row, uint32_t *id, uint32_t *rank)
{
    for (; *id < b->registry.head->high; ++*id, *rank = 0) {
        const pdr_endpoint_rec *rec = &b->registry.endpoints[*id];
        if (rec->slot != PDR_SLOT_USED || *rank >= rec->targets) continue;
        row->rec = rec;
        row->id = *id;
        row->at = rec->first_target + (*rank)++;
        row->t = &b->registry.targets[row->at];
        row->i = &b->registry.infos[row->at];
        return 1;
    }
    return 0;
}

static void put(struct pdr_text *t, const char *s) { pdr_text_put(t, s, strlen(s)); }
static void put_json(struct pdr_text *t, const char *s) { pdr_text_json(t, s, strlen(s)); }

static void put_member(struct pdr_text *t, const char *name, uint64_t v)
{
    put(t, ",\"");
    put(t, name);
    put(t, "\":");
    pdr_text_u64(t, v);
}

static void put_string_member(struct pdr_text *t, const char *name, const char *v)
{
    put(t, ",\"");
    put(t, name);
    put(t, "\":");
    put_json(t, v);
}

static void json_row(const pdr_books *b, const pdr_row *w, struct pdr_text *t)
{
    put(t, "{\"id\":");
    pdr_text_u64(t, w->id);
    put_string_member(t, "name", w->rec->e.name);
    put_string_member(t, "host", w->rec->e.host);
    put_member(t, "port", w->rec->e.port);
    put_string_member(t, "role", role_names[w->rec->e.role & 3]);
    if (w->rec->e.flags / PDR_ENDPOINT_TOLD_PREFILL & 3) put_string_member(t, "told_role", role_names[w->rec->e.flags / PDR_ENDPOINT_TOLD_PREFILL & 3]);
    put_string_member(t, "state", state_names[pdr_registry_state(w->rec, w->t, b->now_ns) & 3]);
    if (w->t->rank != PDR_NONE) put_member(t, "rank", w->t->rank);
    put_member(t, "prefill_requests", w->t->requests);
    put_member(t, "prefill_tokens", w->t->tokens);
    put_member(t, "prefill_wait_us", pdr_wait_us(w->t, b->now_ns));
    put_member(t, "decode_requests", w->t->d_requests);
    put_member(t, "decode_tokens", w->t->d_tokens);
    put_member(t, "prefix_blocks", pdr_index_count(b->index, w->at));
    put_member(t, "prefix_capacity", pdr_index_capacity(b->index, w->at));
    put_member(t, "kv_capacity", w->t->kv_capacity);
    put_member(t, "speed_permille", pdr_speed_permille(b, w->t));
    put_member(t, "failures", w->rec->failures);
    put_member(t, "requests_total", w->i->legs);
    put_member(t, "failures_total", w->i->failures);
    put_member(t, "prompt_tokens_total", w->i->prompt_tokens);
    put_member(t, "cached_tokens_total", w->i->cached_tokens);
    put(t, ",\"report\":");
    if (w->i->report_ns) {
        put(t, "{\"age_ms\":");
        pdr_text_u64(t, pdr_elapsed_us(b->now_ns, w->i->report_ns) / 1000);
        put_member(t, "running", w->i->report.running);
        put_member(t, "waiting", w->i->report.waiting);
        put_member(t, "kv_used", w->i->report.kv_used);
        put(t, "}}");
    } else {
        put(t, "null}");
    }
}

int pdr_status_json(pdr_router *r, uint64_t now_ns, char *buf, size_t cap, size_t *need)
{
    pdr_books       b;
    pdr_stats       s;
    pdr_row         row;
    struct pdr_text t = {buf, cap, 0};
    if (!buf && cap) return PDR_E_INVALID;
    int code = pdr_books_lock(&b, r, now_ns);
    if (code) return code;
    uint32_t id = 0, rank = 0, rows = 0;
    gauges(&b, &s);
    put(&t, "{\"version\":");
    put_json(&t, pdr_version_string());
    put_string_member(&t, "policy", pdr_policy_of(r->config.policy)->name);
    put(&t, ready_locked(&b) ? ",\"ready\":true" : ",\"ready\":false");
    put_member(&t, "block_bytes", r->size);
    put_member(&t, "tokens_per_kilobyte", r->learnt.tokens_per_byte_q20 * 1000 >> 20);
    for (size_t i = 0; i < COUNTERS; i++) put_member(&t, counters[i].name, value_of(&s, i));
    put(&t, ",\"targets_detail\":[");
    while (next_row(&b, &row, &id, &rank)) {
        if (rows++) put(&t, ",");
        json_row(&b, &row, &t);
    }
    put(&t, "]}\n");
    if ((code = pdr_books_unlock(&b, PDR_OK, NULL))) return code;
    return pdr_text_end(&t, need);
}

/* ---- Prometheus */

typedef uint64_t (*pdr_reading)(const pdr_books *, const pdr_row *);
static uint64_t read_up(const pdr_books *b, const pdr_row *w) { return pdr_registry_state(w->rec, w->t, b->now_ns) == PDR_STATE_READY; }
static uint64_t read_prefill(const pdr_books *b, const pdr_row *w) { (void)b; return w->t->requests; }
static uint64_t read_prefill_tokens(const pdr_books *b, const pdr_row *w) { (void)b; return w->t->tokens; }
static uint64_t read_wait(const pdr_books *b, const pdr_row *w) { return pdr_wait_us(w->t, b->now_ns); }
static uint64_t read_decode(const pdr_books *b, const pdr_row *w) { (void)b; return w->t->d_requests; }
static uint64_t read_decode_tokens(const pdr_books *b, const pdr_row *w) { (void)b; return w->t->d_tokens; }
static uint64_t read_prefix(const pdr_books *b, const pdr_row *w) { return pdr_index_count(b->index, w->at); }
static uint64_t read_requests(const pdr_books *b, const pdr_row *w) { (void)b; return w->i->legs; }
static uint64_t read_failures(const pdr_books *b, const pdr_row *w) { (void)b; return w->i->failures; }

static const struct { const char *name, *type, *help; pdr_reading read; } readings[] = {
    {"target_up", "gauge", "1 if the target gets requests.", read_up},
    {"target_prefill_requests", "gauge", "Requests in prefill there by our bookings.", read_prefill},
    {"target_prefill_tokens", "gauge", "Their uncached prompt tokens.", read_prefill_tokens},
    {"target_prefill_wait_microseconds", "gauge", "Work ahead of a new request.", read_wait},
    {"target_decode_requests", "gauge", "Requests decoding or promised there.", read_decode},
    {"target_decode_tokens", "gauge", "Their context tokens.", read_decode_tokens},
    {"target_prefix_blocks", "gauge", "Prefix blocks believed to be cached there.", read_prefix},
    {"target_requests_total", "counter", "Legs sent.", read_requests},
    {"target_failures_total", "counter", "Legs that failed.", read_failures},
};

static void head(struct pdr_text *t, const char *name, const char *suffix, const char *type, const char *help)
{
    put(t, "# HELP pdroute_");
    put(t, name);
    put(t, suffix);
    put(t, " ");
    put(t, help);
    put(t, "\n# TYPE pdroute_");
    put(t, name);
    put(t, suffix);
    put(t, " ");
    put(t, type);
    put(t, "\n");
}

static void sample(struct pdr_text *t, const char *name, const char *suffix, const pdr_row *w, uint64_t v)
{
    put(t, "pdroute_");
    put(t, name);
    put(t, suffix);
    if (w) {
        put(t, "{endpoint=");
        pdr_text_label(t, w->rec->e.name, strlen(w->rec->e.name));
        put(t, ",role=\"");
        put(t, role_names[w->rec->e.role & 3]);
        if (w->t->rank != PDR_NONE) {
            put(t, "\",dp_rank=\"");
            pdr_text_u64(t, w->t->rank);
        }
        put(t, "\"}");
    }
    put(t, " ");
    pdr_text_u64(t, v);
    put(t, "\n");
}

int pdr_status_prometheus(pdr_router *r, uint64_t now_ns, char *buf, size_t cap, size_t *need)
{
    pdr_books       b;
    pdr_stats       s;
    struct pdr_text t = {buf, cap, 0};
    if (!buf && cap) return PDR_E_INVALID;
    int code = pdr_books_lock(&b, r, now_ns);
    if (code) return code;
    gauges(&b, &s);
    for (size_t i = 0; i < COUNTERS; i++) {
        const char *suffix = counters[i].type[0] == 'c' ? "_total" : "";
        head(&t, counters[i].name, suffix, counters[i].type, counters[i].help);
        sample(&t, counters[i].name, suffix, NULL, value_of(&s, i));
    }
    head(&t, "ready", "", "gauge", "1 if at least one pair is usable.");
    sample(&t, "ready", "", NULL, (uint64_t)ready_locked(&b));
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        pdr_row  row;
        uint32_t id = 0, rank = 0;
        head(&t, readings[i].name, "", readings[i].type, readings[i].help);
        while (next_row(&b, &row, &id, &rank)) sample(&t, readings[i].name, "", &row, readings[i].read(&b, &row));
    }
    if ((code = pdr_books_unlock(&b, PDR_OK, NULL))) return code;
    return pdr_text_end(&t, need);
}
