/* Public entry points: endpoints, what engines report, the prefix index fed from outside. */
#include "loads.h"
#include "metrics.h"
#include "router_decide.h"

#include <stdlib.h>
#include <string.h>

#define LOCKED(b, r, now, err)                                                                                                               \
    do {                                                                                                                                     \
        int code_ = pdr_books_lock(&(b), (r), (now));                                                                                        \
        if (code_) return pdr_fail((err), code_, "%s", pdr_strerror(code_));                                                                 \
    } while (0)

static int unknown(pdr_error *err, uint32_t id) { return pdr_fail(err, PDR_E_NOT_FOUND, "no endpoint has the id %u", id); }

/* ---- endpoints */

static int same_server(const pdr_endpoint *a, const pdr_endpoint *b) { return a->port == b->port && !strcmp(a->host, b->host); }

static void forget_server(pdr_books *b, const pdr_endpoint_rec *rec)
{
    for (uint32_t i = 0; i < rec->targets; i++) {
        pdr_target *t = &b->registry.targets[rec->first_target + i];
        pdr_index_clear(b->index, rec->first_target + i);
        pdr_target_info *info = &b->registry.infos[rec->first_target + i];
        t->slowness_q10 = info->measured_q10 = PDR_AS_THE_POOL;
        info->learnt_ns = info->took_us = info->expected_us = info->cache_blocks = 0;
        info->foreign_tokens = info->foreign_requests = info->d_foreign_requests = info->d_foreign_tokens = 0;
        info->measurements = info->own = 0;
        pdr_breaker_open_until(&b->registry, rec->first_target + i, PDR_GUARD_NONE, 0);
        t->foreign_us = t->d_foreign_tokens = 0;
        t->d_foreign_requests = 0;
        info->report_ns = 0;
        pdr_board_renew(&b->registry, rec->first_target + i);
    }
}

static void forget_prefixes(pdr_books *b, uint32_t first_target, uint32_t targets)
{
    for (uint32_t i = 0; i < targets; i++) pdr_index_clear(b->index, first_target + i);
}

static void told_port(pdr_endpoint *e, uint32_t port)
{
    e->bootstrap_port = port;
    e->flags |= PDR_ENDPOINT_TOLD_PORT;
}

static void told_dp(pdr_endpoint *e, uint32_t size)
{
    e->dp_size = size > 1 ? size : 0;
    e->flags = (e->flags & ~(uint32_t)PDR_ENDPOINT_TOLD_DP) | (size > 1 ? PDR_ENDPOINT_TOLD_DP : 0);
}

/* Whether the server's word counts: nobody wrote a value down, or it is the server's own from before. */
static int port_is_open(const pdr_endpoint *e)
{
    return e->role == PDR_ROLE_PREFILL && !(e->flags & PDR_ENDPOINT_NULL_BOOTSTRAP_PORT) && (!e->bootstrap_port || e->flags & PDR_ENDPOINT_TOLD_PORT);
}

static int dp_is_open(const pdr_endpoint *e) { return !e->dp_size || e->flags & PDR_ENDPOINT_TOLD_DP; }

enum { TOLD_ROLE = PDR_ENDPOINT_TOLD_PREFILL | PDR_ENDPOINT_TOLD_DECODE };

static void told_role(pdr_endpoint *e, uint32_t role)
{
    e->flags &= ~(uint32_t)TOLD_ROLE;
    e->flags |= (role & PDR_ROLE_PREFILL ? PDR_ENDPOINT_TOLD_PREFILL : 0u) | (role & PDR_ROLE_DECODE ? PDR_ENDPOINT_TOLD_DECODE : 0u);
}

/* A put that leaves open what the server has said meanwhile (a reload, an apply of the same document) does not unsay it. */
static void keep_told(const pdr_books *b, pdr_endpoint *e)
{
    uint32_t            at;
    const pdr_endpoint *old;
    if (!e->bootstrap_port) e->flags &= ~(uint32_t)PDR_ENDPOINT_TOLD_PORT;
    if (!e->dp_size) e->flags &= ~(uint32_t)PDR_ENDPOINT_TOLD_DP;
    if (pdr_registry_find(&b->registry, e->name, &at)) return;
    old = &b->registry.endpoints[at].e;
    e->flags &= ~(uint32_t)TOLD_ROLE;
    if (!same_server(old, e)) return;
    e->flags |= old->flags & TOLD_ROLE;
    if (!e->bootstrap_port && old->flags & PDR_ENDPOINT_TOLD_PORT && port_is_open(e)) told_port(e, old->bootstrap_port);
    if (!e->dp_size && old->flags & PDR_ENDPOINT_TOLD_DP) told_dp(e, old->dp_size);
}

/* Adds or updates one that is valid and named; *changed 0 if it was there just so. The caller relists. */
static int put_locked(pdr_books *b, const pdr_endpoint *e, uint32_t *id, int *added, int *changed, pdr_error *err)
{
    uint32_t     at = PDR_NONE, first = 0, ranks = 0;
    pdr_endpoint old;
    *added = 1;
    if (!pdr_registry_find(&b->registry, e->name, &at)) {
        old = b->registry.endpoints[at].e;
        first = b->registry.endpoints[at].first_target;
        ranks = b->registry.endpoints[at].targets;
        *added = 0;
    }
    int code = pdr_registry_put(&b->registry, e, id, err);
    if (code) return code;
    pdr_endpoint_rec *rec = &b->registry.endpoints[*id];
    if (!*added && rec->targets == ranks) {
        *changed = memcmp(&old, &rec->e, sizeof old) != 0;
        if (same_server(&old, &rec->e)) {
            for (uint32_t i = 0; old.kv_capacity != rec->e.kv_capacity && i < rec->targets; i++) {
                b->registry.infos[rec->first_target + i].cache_blocks = 0; /* learnt of another size */
                pdr_fit_capacity(b, rec->first_target + i);
            }
            return PDR_OK;
        }
    } else {
        *changed = 1;
        forget_prefixes(b, first, ranks); /* of the record that it had with another number of ranks */
    }
    forget_server(b, rec); /* a server of which nothing is known; the slot's last one may have left something */
    rec->failures = rec->down = rec->openings = 0;
    rec->opened_ns = 0;
    for (uint32_t i = 0; i < rec->targets; i++) pdr_fit_capacity(b, rec->first_target + i);
    return PDR_OK;
}

int pdr_endpoint_put(pdr_router *r, const pdr_endpoint *e, uint64_t now_ns, uint32_t *id, pdr_error *err)
{
    pdr_books    b;
    pdr_endpoint in;
    uint32_t     at;
    int          added, changed, code = pdr_struct_in(&in, sizeof in, e, err);
    if (code) return code;
    in.struct_size = sizeof in;
    code = pdr_registry_validate(&in, err);
    if (code) return code;
    pdr_registry_default_name(&in);
    LOCKED(b, r, now_ns, err);
    at = pdr_registry_clash(&b.registry, &in);
    if (at != PDR_NONE)
        code = pdr_fail(err, PDR_E_EXISTS, "%.80s:%u is registered under the name %.80s", in.host, in.port, b.registry.endpoints[at].e.name);
    else {
        keep_told(&b, &in);
        code = put_locked(&b, &in, &at, &added, &changed, err);
    }
    if (!code) {
        if (id) *id = at;
        pdr_registry_relist(&b.registry);
        pdr_release_held(&b);
    }
    return pdr_books_unlock(&b, code, err);
}

int pdr_endpoint_drain(pdr_router *r, uint32_t id, int on, pdr_error *err)
{
    pdr_books b;
    LOCKED(b, r, 0, err);
    pdr_endpoint_rec *rec = pdr_registry_at(&b.registry, id);
    if (rec) {
        rec->draining = on ? rec->draining | PDR_DRAIN_OPERATOR : 0;
        pdr_registry_relist(&b.registry);
        pdr_release_held(&b);
    }
    return pdr_books_unlock(&b, rec ? PDR_OK : unknown(err, id), err);
}

static void remove_locked(pdr_books *b, uint32_t id)
{
    forget_prefixes(b, b->registry.endpoints[id].first_target, b->registry.endpoints[id].targets);
    pdr_registry_remove(&b->registry, id);
}

int pdr_endpoint_remove(pdr_router *r, uint32_t id, pdr_error *err)
{
    pdr_books b;
    LOCKED(b, r, 0, err);
    int known = pdr_registry_at(&b.registry, id) != NULL;
    if (known) {
        remove_locked(&b, id);
        pdr_registry_relist(&b.registry);
        pdr_release_held(&b);
    }
    return pdr_books_unlock(&b, known ? PDR_OK : unknown(err, id), err);
}

int pdr_endpoint_health(pdr_router *r, uint32_t id, int up, uint64_t now_ns, pdr_error *err)
{
    pdr_books b;
    LOCKED(b, r, now_ns, err);
    pdr_endpoint_rec *rec = pdr_registry_at(&b.registry, id);
    if (rec && up && rec->down) { /* it is back, with an empty cache for all we know */
        forget_server(&b, rec);
        rec->failures = rec->openings = 0;
        rec->opened_ns = 0;
    }
    if (rec && rec->down != (up ? 0u : 1u)) {
        rec->down = up ? 0 : 1;
        pdr_registry_relist(&b.registry);
        pdr_release_held(&b);
    }
    return pdr_books_unlock(&b, rec ? PDR_OK : unknown(err, id), err);
}

int pdr_endpoint_find(pdr_router *r, const char *name, uint32_t *id)
{
    pdr_books b;
    if (!name || !id) return PDR_E_INVALID;
    LOCKED(b, r, 0, NULL);
    int code = pdr_registry_find(&b.registry, name, id);
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_endpoint_get(pdr_router *r, uint32_t id, pdr_endpoint *out, uint32_t *state)
{
    pdr_books b;
    LOCKED(b, r, 0, NULL);
    int code = PDR_E_NOT_FOUND;
    const pdr_endpoint_rec *rec = pdr_registry_at(&b.registry, id);
    if (rec) {
        code = out ? pdr_struct_out(out, &rec->e, sizeof rec->e, NULL) : PDR_OK;
        if (state) *state = pdr_registry_state(rec, &b.registry.targets[rec->first_target], b.now_ns);
    }
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_endpoint_next(pdr_router *r, uint32_t *cursor, uint32_t *id)
{
    pdr_books b;
    if (!cursor || !id) return PDR_E_INVALID;
    LOCKED(b, r, 0, NULL);
    uint32_t i = *cursor;
    while (i < b.registry.head->high && b.registry.endpoints[i].slot != PDR_SLOT_USED) i++;
    int found = i < b.registry.head->high;
    *id = i;
    *cursor = found ? i + 1 : i;
    return pdr_books_unlock(&b, found ? PDR_OK : PDR_E_NOT_FOUND, NULL);
}

int pdr_target_get(pdr_router *r, uint32_t endpoint, uint32_t rank, uint64_t now_ns, pdr_target_status *out)
{
    pdr_books b;
    LOCKED(b, r, now_ns, NULL);
    int code = PDR_E_NOT_FOUND;
    const pdr_endpoint_rec *rec = pdr_registry_at(&b.registry, endpoint);
    if (rec && rank < rec->targets) {
        uint32_t               at = rec->first_target + rank;
        const pdr_target      *t = &b.registry.targets[at];
        const pdr_target_info *i = &b.registry.infos[at];
        uint64_t               age = i->report_ns ? pdr_elapsed_us(b.now_ns, i->report_ns) / 1000 : PDR_NONE;
        pdr_target_status      s = {
                 .struct_size = sizeof s, .endpoint = endpoint, .rank = rank, .role = rec->e.role, .state = pdr_registry_state(rec, t, b.now_ns),
                 .failures = rec->failures, .speed_permille = pdr_speed_permille(&b, t),
                 .report_age_ms = age > PDR_NONE ? PDR_NONE : (uint32_t)age, .prefill_requests = t->requests, .prefill_tokens = t->tokens,
                 .prefill_wait_us = pdr_wait_us(t, b.now_ns), .decode_requests = t->d_requests, .decode_tokens = t->d_tokens,
                 .prefix_blocks = pdr_index_count(b.index, at), .prefix_capacity = pdr_index_capacity(b.index, at),
                 .reported_running = i->report.running, .reported_waiting = i->report.waiting, .reported_used_tokens = i->report.kv_used,
                 .kv_capacity = t->kv_capacity, .requests_total = i->legs, .failures_total = i->failures,
                 .cached_tokens_total = i->cached_tokens, .prompt_tokens_total = i->prompt_tokens};
        code = pdr_struct_out(out, &s, sizeof s, NULL);
    }
    return pdr_books_unlock(&b, code, NULL);
}

/* ---- documents */

/* A document's endpoints, and what an apply needs to know of them. All memory is had before the lock. */
typedef struct listing {
    pdr_endpoint        *e;
    size_t               n;
    const pdr_endpoint **by_name; /* its memory has the two below, too */
    uint32_t            *at;     /* by endpoint: the record of that name, PDR_NONE */
    uint8_t             *stays;  /* by record: it is in the document */
} listing;

static int compare_names(const void *a, const void *b) { return strcmp((*(const pdr_endpoint *const *)a)->name, (*(const pdr_endpoint *const *)b)->name); }

/* Names what has none, sorts, and refuses what can never fit, what no endpoint can be, and names that have become the same: all outside the lock. */
static int list_endpoints(listing *l, uint32_t max_endpoints, pdr_error *err)
{
    size_t in = 0;
    l->by_name = calloc(1, l->n * (sizeof *l->by_name + sizeof *l->at) + max_endpoints);
    if (!l->by_name) return pdr_fail(err, PDR_E_SYSTEM, "no memory for %zu endpoints", l->n);
    l->at = (uint32_t *)(void *)(l->by_name + l->n);
    l->stays = (uint8_t *)(l->at + l->n);
    for (size_t i = 0; i < l->n; i++) {
        pdr_registry_default_name(&l->e[i]); /* what is there already is found by its name */
        l->by_name[i] = &l->e[i];
        in += !(l->e[i].flags & PDR_ENDPOINT_OUT);
    }
    if (in > max_endpoints)
        return pdr_fail(err, PDR_E_FULL, "the document has %zu endpoints, there is place for %u (max_endpoints)", in, max_endpoints);
    qsort(l->by_name, l->n, sizeof *l->by_name, compare_names);
    for (size_t i = 1; i < l->n; i++)
        if (!strcmp(l->by_name[i - 1]->name, l->by_name[i]->name))
            return pdr_fail(err, PDR_E_PARSE, "two endpoints have the name \"%.120s\", one of them for want of its own", l->by_name[i]->name);
    for (size_t i = 0; i < l->n; i++) {
        int code = pdr_registry_validate(&l->e[i], err);
        if (code) return code;
    }
    return PDR_OK;
}

static void free_listing(listing *l)
{
    free(l->by_name);
    free(l->e);
}

/* Finds the document's endpoints among the records. */
static void find_listed(const pdr_books *b, listing *l)
{
    for (size_t i = 0; i < l->n; i++) {
        l->at[i] = PDR_NONE;
        if (!pdr_registry_find(&b->registry, l->e[i].name, &l->at[i])) l->stays[l->at[i]] = 1;
    }
}

static uint32_t ranks_of(const pdr_endpoint *e) { return e->dp_size > 1 ? e->dp_size : 1; }

/*
 * Goes through the document as it will be applied, on a copy of the marks of taken targets: whoever is pruned or gets another number of ranks gives
 * its place back at once, unless it has bookings.
 */
static int ranks_fit(const pdr_books *b, const listing *l, int prune, pdr_error *err)
{
    const pdr_endpoint *e = l->e;
    const pdr_registry *g = &b->registry;
    uint8_t            *taken = (uint8_t *)b->scratch.prefill_cost;
    pdr_places          places = g->head->places;
    uint32_t            records = 0, total = g->head->max_targets;
    memcpy(taken, g->taken, total);
    for (uint32_t i = 0; i < g->head->max_endpoints; i++) {
        const pdr_endpoint_rec *rec = &g->endpoints[i];
        int                     leaves = rec->slot == PDR_SLOT_USED && prune && !rec->bookings && !l->stays[i];
        records += rec->slot == PDR_SLOT_FREE || leaves;
        if (leaves) pdr_places_give(&places, taken, rec->first_target, rec->targets);
    }
    for (size_t i = 0; i < l->n; i++) {
        const pdr_endpoint_rec *rec = l->at[i] == PDR_NONE ? NULL : &g->endpoints[l->at[i]];
        if (e[i].flags & PDR_ENDPOINT_OUT) continue;
        if (rec && rec->targets == ranks_of(&e[i])) continue;
        if (rec && !rec->bookings) {
            pdr_places_give(&places, taken, rec->first_target, rec->targets);
            records++;
        }
        if (!records)
            return pdr_fail(err, PDR_E_FULL, "the document has more endpoints than there are places free (max_endpoints %u)", g->head->max_endpoints);
        uint32_t first = pdr_places_find(&places, taken, total, ranks_of(&e[i]));
        if (first == total)
            return pdr_fail(err, PDR_E_FULL, "the table of targets has no room for the %u ranks of %.64s (max_targets %u)", ranks_of(&e[i]), e[i].name, total);
        pdr_places_take(&places, taken, first, ranks_of(&e[i]));
        records--;
    }
    return PDR_OK;
}

/* Whether the whole document can be carried out, before anything is changed: either all of it is, or nothing. */
static int apply_fits(const pdr_books *b, const listing *l, int prune, pdr_error *err)
{
    const pdr_endpoint *e = l->e;
    for (size_t i = 0; i < l->n && !prune; i++) {
        uint32_t id = e[i].flags & PDR_ENDPOINT_OUT ? PDR_NONE : pdr_registry_clash(&b->registry, &e[i]);
        if (id != PDR_NONE && !l->stays[id])
            return pdr_fail(err, PDR_E_EXISTS, "%.64s has the address %.64s:%u, which is registered under the name %.64s", e[i].name, e[i].host,
                            e[i].port, b->registry.endpoints[id].e.name);
    }
    return ranks_fit(b, l, prune, err);
}

static void prune_others(pdr_books *b, const listing *l, pdr_apply_report *report)
{
    for (uint32_t i = 0; i < b->registry.head->high; i++) {
        if (b->registry.endpoints[i].slot != PDR_SLOT_USED || l->stays[i]) continue;
        remove_locked(b, i);
        report->removed++;
    }
}

/* A pod that is there but out of service: drained if it is known, never added. */
static int take_out(pdr_books *b, const pdr_endpoint *e, pdr_apply_report *report)
{
    uint32_t id;
    if (pdr_registry_find(&b->registry, e->name, &id)) return PDR_OK;
    pdr_endpoint_rec *rec = &b->registry.endpoints[id];
    if (rec->draining & PDR_DRAIN_DOCUMENT)
        report->unchanged++;
    else
        report->updated++;
    rec->draining |= PDR_DRAIN_DOCUMENT;
    return PDR_OK;
}

static int put_named(pdr_books *b, const pdr_endpoint *e, pdr_apply_report *report, pdr_error *err)
{
    uint32_t     id;
    pdr_endpoint in = *e;
    int          added, changed, code;
    keep_told(b, &in);
    code = put_locked(b, &in, &id, &added, &changed, err);
    if (code) return code;
    if (b->registry.endpoints[id].draining & PDR_DRAIN_DOCUMENT) {
        b->registry.endpoints[id].draining &= ~(uint32_t)PDR_DRAIN_DOCUMENT;
        changed = 1;
    }
    if (added)
        report->added++;
    else if (changed)
        report->updated++;
    else
        report->unchanged++;
    return PDR_OK;
}

static int apply_locked(pdr_books *b, listing *l, const pdr_pool *pool, int prune, pdr_apply_report *report, pdr_error *err)
{
    const pdr_endpoint *e = l->e;
    find_listed(b, l);
    int code = apply_fits(b, l, prune, err);
    if (code) return code;
    if (prune) prune_others(b, l, report);
    for (size_t i = 0; i < l->n && !code; i++)
        code = e[i].flags & PDR_ENDPOINT_OUT ? take_out(b, &e[i], report) : put_named(b, &e[i], report, err);
    if (!code) b->r->pool = *pool;
    pdr_registry_relist(&b->registry);
    pdr_release_held(b);
    return code;
}

int pdr_apply_json(pdr_router *r, const char *text, size_t len, uint32_t flags, uint64_t now_ns, pdr_apply_report *report, pdr_error *err)
{
    pdr_books        b;
    pdr_pool         pool;
    listing          l = {0};
    pdr_apply_report own = {.struct_size = sizeof own};
    uint32_t         most;
    int              complete = 0;
    LOCKED(b, r, now_ns, err);
    pool = r->pool;
    most = r->config.max_endpoints;
    int code = pdr_books_unlock(&b, PDR_OK, err);
    if (!code) code = pdr_apply_parse(text, len, &pool, &l.e, &l.n, &complete, &own, err);
    if (code) return code; /* and there is nothing to be freed */
    if ((code = list_endpoints(&l, most, err))) goto out;
    code = pdr_books_lock(&b, r, now_ns);
    if (code) {
        pdr_fail(err, code, "%s", pdr_strerror(code));
    } else {
        code = apply_locked(&b, &l, &pool, complete && flags & PDR_APPLY_PRUNE, &own, err);
        code = pdr_books_unlock(&b, code, err);
    }
out:
    free_listing(&l);
    return code || !report ? code : pdr_struct_out(report, &own, sizeof own, NULL);
}

/* ---- reports */

/* Takes over the fields that a report has. */
static void merge(pdr_load *to, const pdr_load *from)
{
    uint32_t have = to->have | from->have;
#define TAKE(bit, field) if (from->have & (bit)) to->field = from->field
    TAKE(PDR_LOAD_RUNNING, running);
    TAKE(PDR_LOAD_WAITING, waiting);
    TAKE(PDR_LOAD_KV_USED, kv_used);
    TAKE(PDR_LOAD_KV_CAPACITY, kv_capacity);
    TAKE(PDR_LOAD_USAGE, usage_permille);
    TAKE(PDR_LOAD_PENDING_USAGE, pending_usage_permille);
    TAKE(PDR_LOAD_PREFILL_BOOTSTRAP, prefill_bootstrap);
    TAKE(PDR_LOAD_PREFILL_INFLIGHT, prefill_inflight);
    TAKE(PDR_LOAD_DECODE_PREALLOC, decode_prealloc);
    TAKE(PDR_LOAD_DECODE_TRANSFER, decode_transfer);
    TAKE(PDR_LOAD_RETRACTED, retracted);
    TAKE(PDR_LOAD_MAX_RUNNING, max_running);
    TAKE(PDR_LOAD_WAITING_TOKENS, waiting_tokens);
    TAKE(PDR_LOAD_PREFILL_SPEED, prefill_uncached_total);
    TAKE(PDR_LOAD_PREFILL_SPEED, prefill_busy_us_total);
#undef TAKE
    to->have = have;
}

static uint64_t least_of(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t beyond(uint64_t reported, uint64_t ours) { return reported > ours ? reported - ours : 0; }

/* Requests that decode for us, with the next one, over all that the reports know of, times 1024. */
static uint64_t our_share_q10(const pdr_books *b)
{
    const pdr_board_head *h = &b->registry.head->board;
    uint64_t              ours = 1 + h->ours;
    return (ours << 10) / (ours + h->others);
}

/*
 * Load that is not ours: what the engine reports beyond what we have booked, twice in a row, since a single report may be of the moment between an end and our
 * hearing of it. Prefill: only if it has more requests than we sent; their share of the waiting tokens.
 * Decode: who else sends there sees the same reports. If each made up for all of a difference, they would all go where the report said it was empty; so each makes up for his share of it.
 */
static void take_foreign(pdr_books *b, uint32_t target, const pdr_load *l)
{
    pdr_target      *t = &b->registry.targets[target];
    pdr_target_info *i = &b->registry.infos[target];
    uint64_t         there = i->report.running + i->report.decode_prealloc + i->report.decode_transfer + i->report.waiting;
    if (b->registry.listed[target] && l->have & (PDR_LOAD_RUNNING | PDR_LOAD_WAITING)) {
        uint64_t more = beyond(there, (uint64_t)t->requests + t->d_requests);
        pdr_crowd_add(&b->r->learnt.crowd, t->requests, least_of(more, i->foreign_requests));
        i->foreign_requests = more;
        b->registry.head->crowd_q10 = pdr_crowd_q10(&b->r->learnt.crowd);
    }
    if (l->have & PDR_LOAD_WAITING_TOKENS) {
        uint64_t more = beyond(there, (uint64_t)t->requests + t->d_requests), tokens = beyond(l->waiting_tokens, t->tokens), share = there ? l->waiting_tokens * more / there : 0;
        uint64_t foreign = share < tokens ? share : tokens, twice = least_of(foreign, i->foreign_tokens);
        i->foreign_tokens = foreign;
        t->foreign_us = twice ? pdr_scale_q10(pdr_prefill_us(&b->r->rates, twice, 0), t->slowness_q10) : 0;
        t->foreign_ns = b->now_ns;
    }
    if (l->have & (PDR_LOAD_RUNNING | PDR_LOAD_DECODE_PREALLOC)) {
        uint64_t more = beyond(there > UINT32_MAX ? UINT32_MAX : there, t->d_requests);
        uint64_t twice = least_of(more, i->d_foreign_requests);
        i->d_foreign_requests = more;
        pdr_board_renew(&b->registry, target);
        t->d_foreign_requests = twice ? (uint32_t)((twice * our_share_q10(b) + 1023) >> 10) : 0;
    }
    if (l->have & PDR_LOAD_KV_USED) {
        uint64_t more = beyond(l->kv_used, t->d_tokens);
        uint64_t twice = least_of(more, i->d_foreign_tokens);
        i->d_foreign_tokens = more;
        t->d_foreign_tokens = twice ? (twice >> 10) * our_share_q10(b) : 0;
    }
}

/* The engine's view of its load, less what our own books already count: what others send there. Drains with time until the next report. */
static void take_load(pdr_books *b, uint32_t target, const pdr_load *l)
{
    pdr_target      *t = &b->registry.targets[target];
    pdr_target_info *i = &b->registry.infos[target];
    pdr_load         before = i->report;
    merge(&i->report, l);
    if (l->have & PDR_LOAD_KV_CAPACITY && l->kv_capacity) t->kv_capacity = l->kv_capacity;
    if (l->have & PDR_LOAD_MAX_RUNNING && l->max_running) t->max_running = l->max_running;
    take_foreign(b, target, l);
    pdr_board_renew(&b->registry, target);
    /* speed straight from the engine's own counters, where enough was prefilled since the last report */
    if (l->have & before.have & PDR_LOAD_PREFILL_SPEED && l->prefill_uncached_total > before.prefill_uncached_total + 2048 &&
        l->prefill_busy_us_total > before.prefill_busy_us_total) {
        uint64_t tokens = l->prefill_uncached_total - before.prefill_uncached_total, busy = l->prefill_busy_us_total - before.prefill_busy_us_total;
        /* prompts of a few thousand tokens, which nobody knows: only where our own prompts tell nothing */
        uint64_t prior = tokens / 4096 * pdr_prefill_us(&b->r->rates, 4096, 0) + pdr_prefill_us(&b->r->rates, tokens % 4096, 0);
        if (!i->own) pdr_measured(b, target, prior, busy);
    }
    if (i->report_ns == 0 || before.kv_capacity != i->report.kv_capacity) pdr_fit_capacity(b, target);
    i->report_ns = b->now_ns;
    b->r->stats.reports++;
}

static int load_changed_capacity(const pdr_endpoint_rec *rec, uint64_t capacity, uint32_t max_running, pdr_books *b)
{
    for (uint32_t i = 0; i < rec->targets; i++) {
        pdr_target *t = &b->registry.targets[rec->first_target + i];
        if (capacity) t->kv_capacity = capacity;
        if (max_running) t->max_running = max_running;
        pdr_board_renew(&b->registry, rec->first_target + i);
        pdr_fit_capacity(b, rec->first_target + i);
    }
    return PDR_OK;
}

static const char *role_word(uint32_t role) { return role == PDR_ROLE_PREFILL ? "prefill" : role == PDR_ROLE_DECODE ? "decode" : "both"; }

/* What the operator wrote down stands; what is not written is learnt from the server, its last word counts. A contradiction is only told. */
static int take_server_info(pdr_books *b, uint32_t id, const pdr_server_info *s, pdr_error *err)
{
    pdr_endpoint_rec *rec = pdr_registry_at(&b->registry, id);
    pdr_endpoint      e;
    uint32_t          at;
    int               added, changed;
    if (!rec) return unknown(err, id);
    e = rec->e;
    if (s->have & PDR_SERVER_BOOTSTRAP_PORT && port_is_open(&e)) told_port(&e, s->bootstrap_port);
    if (s->have & PDR_SERVER_DP_SIZE && dp_is_open(&e)) told_dp(&e, s->dp_size);
    if (s->have & PDR_SERVER_ROLE) told_role(&e, s->role);
    if (memcmp(&e, &rec->e, sizeof e)) {
        int code = pdr_registry_validate(&e, err);
        if (!code) code = put_locked(b, &e, &at, &added, &changed, err);
        if (code) return code;
        pdr_registry_relist(&b->registry);
        rec = pdr_registry_at(&b->registry, at);
    }
    load_changed_capacity(rec, s->have & PDR_SERVER_KV_CAPACITY && !rec->e.kv_capacity ? s->kv_capacity : 0,
                          s->have & PDR_SERVER_MAX_RUNNING && !rec->e.max_running ? s->max_running : 0, b);
    b->r->stats.reports++;
    if (s->have & PDR_SERVER_ROLE && s->role != rec->e.role)
        pdr_fail(err, PDR_OK, "endpoint %.64s is registered for role %s but says it has role %s", rec->e.name, role_word(rec->e.role), role_word(s->role));
    return PDR_OK;
}

enum { RANKS = 64 };

static int take_loads(pdr_books *b, uint32_t id, const pdr_load *ranks, size_t n, pdr_error *err)
{
    const pdr_endpoint_rec *rec = pdr_registry_at(&b->registry, id);
    if (!rec) return unknown(err, id);
    for (size_t i = 0; i < n && i < rec->targets; i++)
        if (ranks[i].have) take_load(b, rec->first_target + (uint32_t)i, &ranks[i]);
    pdr_release_held(b);
    return PDR_OK;
}

int pdr_report_put(pdr_router *r, uint32_t endpoint, uint32_t kind, const char *text, size_t len, uint64_t now_ns, uint32_t *ignored,
                   pdr_error *err)
{
    pdr_books       b;
    pdr_load        ranks[RANKS];
    pdr_server_info info;
    size_t          n = 0;
    uint32_t        own = 0;
    int             code;
    if (err) pdr_fail(err, PDR_OK, "%s", "");
    if (!ignored) ignored = &own;
    if (kind == PDR_REPORT_PROMETHEUS)
        code = pdr_metrics_parse(text, len, ranks, RANKS, &n, ignored, err);
    else if (kind == PDR_REPORT_LOADS)
        code = pdr_loads_parse(text, len, ranks, RANKS, &n, ignored, err);
    else if (kind == PDR_REPORT_SERVER_INFO)
        code = pdr_server_info_parse(text, len, &info, ignored, err);
    else
        return pdr_fail(err, PDR_E_INVALID, "report kind %u is unknown", kind);
    LOCKED(b, r, now_ns, err);
    if (code)
        r->stats.reports_failed++;
    else if (kind == PDR_REPORT_SERVER_INFO)
        code = take_server_info(&b, endpoint, &info, err);
    else
        code = take_loads(&b, endpoint, ranks, n, err);
    return pdr_books_unlock(&b, code, err);
}

int pdr_load_put(pdr_router *r, uint32_t endpoint, uint32_t rank, const pdr_load *load, uint64_t now_ns, pdr_error *err)
{
    pdr_books b;
    pdr_load  in;
    int       code = pdr_struct_in(&in, sizeof in, load, err);
    if (code) return code;
    LOCKED(b, r, now_ns, err);
    const pdr_endpoint_rec *rec = pdr_registry_at(&b.registry, endpoint);
    if (!rec || rank >= rec->targets)
        code = unknown(err, endpoint);
    else
        take_load(&b, rec->first_target + rank, &in);
    pdr_release_held(&b);
    return pdr_books_unlock(&b, code, err);
}

/* ---- the prefix index, exact */

static int find_target(const pdr_books *b, uint32_t endpoint, uint32_t rank, uint32_t *target)
{
    const pdr_endpoint_rec *rec = pdr_registry_at(&b->registry, endpoint);
    if (!rec || rank >= rec->targets) return PDR_E_NOT_FOUND;
    *target = rec->first_target + rank;
    return PDR_OK;
}

int pdr_prefix_store(pdr_router *r, uint32_t endpoint, uint32_t rank, const uint64_t *hashes, size_t n)
{
    pdr_books b;
    uint32_t  t;
    int       code = !hashes && n ? PDR_E_INVALID : pdr_books_lock(&b, r, 0);
    if (code) return code;
    if (!(code = find_target(&b, endpoint, rank, &t))) pdr_index_store(b.index, t, hashes, n < r->config.max_blocks ? n : r->config.max_blocks);
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_prefix_remove(pdr_router *r, uint32_t endpoint, uint32_t rank, const uint64_t *hashes, size_t n)
{
    pdr_books b;
    uint32_t  t;
    int       code = !hashes && n ? PDR_E_INVALID : pdr_books_lock(&b, r, 0);
    if (code) return code;
    if (!(code = find_target(&b, endpoint, rank, &t))) pdr_index_remove(b.index, t, hashes, n);
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_prefix_clear(pdr_router *r, uint32_t endpoint, uint32_t rank)
{
    pdr_books b;
    uint32_t  t;
    int       code = pdr_books_lock(&b, r, 0);
    if (code) return code;
    if (!(code = find_target(&b, endpoint, rank, &t))) pdr_index_clear(b.index, t);
    return pdr_books_unlock(&b, code, NULL);
}

int pdr_prefix_match(pdr_router *r, uint32_t endpoint, uint32_t rank, const uint64_t *hashes, size_t n, size_t *matched)
{
    pdr_books b;
    uint32_t  t;
    int       code = (!hashes && n) || !matched ? PDR_E_INVALID : pdr_books_lock(&b, r, 0);
    if (code) return code;
    if (!(code = find_target(&b, endpoint, rank, &t))) {
        pdr_index_match(b.index, hashes, n < r->config.max_blocks ? n : r->config.max_blocks, b.depth);
        *matched = b.depth[t];
    }
    return pdr_books_unlock(&b, code, NULL);
}
