#include "registry.h"

#include "err.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(pdr_target) == 128, "a target is two cache lines");
_Static_assert(offsetof(pdr_target, d_tokens) == 64, "line 1 begins with what decode reads");

enum { PRIOR_SLOWNESS = 1024 };

/* Names and addresses of all that are in use, and, while groups are numbered, one endpoint for each text. */
enum { BY_NAME, BY_ADDRESS, BY_GROUP, LOOKUPS };

uint64_t pdr_registry_lookups_size(uint32_t max_endpoints) { return LOOKUPS * pdr_lookup_size(max_endpoints); }

static pdr_lookup lookup(const pdr_registry *g, int kind)
{
    uint32_t max = g->head->max_endpoints;
    return pdr_lookup_at((char *)g->lookups + (uint64_t)kind * pdr_lookup_size(max), max);
}

void pdr_registry_init(const pdr_registry *g, uint32_t max_endpoints, uint32_t max_targets)
{
    memset(g->head, 0, sizeof *g->head);
    g->head->max_endpoints = max_endpoints;
    g->head->max_targets = max_targets;
    for (uint32_t i = 0; i < max_endpoints; i++) g->endpoints[i].slot = PDR_SLOT_FREE;
    memset(g->taken, 0, max_targets);
    for (int kind = 0; kind < LOOKUPS; kind++) {
        pdr_lookup l = lookup(g, kind);
        pdr_lookup_clear(&l);
    }
}

static uint32_t hash_text(const char *s)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

static uint32_t hash_address(const pdr_endpoint *e) { return hash_text(e->host) * 31u + e->port; }

static void link_address(const pdr_registry *g, uint32_t id)
{
    pdr_lookup l = lookup(g, BY_ADDRESS);
    g->endpoints[id].address_hash = hash_address(&g->endpoints[id].e);
    pdr_lookup_link(&l, id, g->endpoints[id].address_hash);
}

static void unlink_address(const pdr_registry *g, uint32_t id)
{
    pdr_lookup l = lookup(g, BY_ADDRESS);
    pdr_lookup_unlink(&l, id, g->endpoints[id].address_hash);
}

static void link_name(const pdr_registry *g, uint32_t id)
{
    pdr_lookup l = lookup(g, BY_NAME);
    g->endpoints[id].name_hash = hash_text(g->endpoints[id].e.name);
    pdr_lookup_link(&l, id, g->endpoints[id].name_hash);
}

static void unlink_name(const pdr_registry *g, uint32_t id)
{
    pdr_lookup l = lookup(g, BY_NAME);
    pdr_lookup_unlink(&l, id, g->endpoints[id].name_hash);
}

static int terminated(const char *s, size_t cap) { return memchr(s, 0, cap) != NULL; }

/* Names go into logs, labels of metrics and terminals. What is not UTF-8 would come out as U+FFFD, and two such names as
 * the same series. */
static int printable(const char *s)
{
    char copy[sizeof((pdr_endpoint *)0)->name];
    snprintf(copy, sizeof copy, "%s", s);
    pdr_text_plain(copy);
    return !strcmp(copy, s);
}

int pdr_registry_validate(const pdr_endpoint *e, pdr_error *err)
{
    if (!terminated(e->name, sizeof e->name) || !terminated(e->host, sizeof e->host) ||
        !terminated(e->bootstrap_host, sizeof e->bootstrap_host) || !terminated(e->topology_host, sizeof e->topology_host) ||
        !terminated(e->topology_rack, sizeof e->topology_rack) || !terminated(e->topology_zone, sizeof e->topology_zone) ||
        !terminated(e->labels, sizeof e->labels))
        return pdr_fail(err, PDR_E_INVALID, "a text of the endpoint is not terminated");
    if (!printable(e->name)) return pdr_fail(err, PDR_E_INVALID, "the endpoint's name has a control character, or is not UTF-8");
    if (!printable(e->topology_host) || !printable(e->topology_rack) || !printable(e->topology_zone))
        return pdr_fail(err, PDR_E_INVALID, "the topology of endpoint \"%.64s\" has a control character, or is not UTF-8", e->name);
    if (!pdr_text_is_host(e->host)) return pdr_fail(err, PDR_E_INVALID, "host \"%.64s\" is not a host name or address", e->host);
    if (e->bootstrap_host[0] && !pdr_text_is_host(e->bootstrap_host))
        return pdr_fail(err, PDR_E_INVALID, "bootstrap_host \"%.64s\" is not a host name or address", e->bootstrap_host);
    /* SGLang takes this address for a fake KV transport: python/sglang/srt/disaggregation/utils.py, FAKE_BOOTSTRAP_HOST */
    if (!strcmp(e->host, "2.2.2.2") || !strcmp(e->bootstrap_host, "2.2.2.2"))
        return pdr_fail(err, PDR_E_INVALID, "2.2.2.2 is the engine's fake bootstrap host and cannot be an endpoint");
    if (e->port < 1 || e->port > 65535) return pdr_fail(err, PDR_E_INVALID, "port %u is not in 1..65535", e->port);
    if (e->bootstrap_port > 65535)
        return pdr_fail(err, PDR_E_INVALID, "bootstrap_port %u is not in 0..65535", e->bootstrap_port);
    if (e->role < PDR_ROLE_PREFILL || e->role > PDR_ROLE_BOTH)
        return pdr_fail(err, PDR_E_INVALID, "role %u is not prefill, decode or both", e->role);
    if (e->flags & PDR_ENDPOINT_ALONE && e->role != PDR_ROLE_DECODE)
        return pdr_fail(err, PDR_E_INVALID, "alone is for decode servers; who is no partner of others has the role both");
    if (e->dp_size > 1024) return pdr_fail(err, PDR_E_INVALID, "dp_size %u is above 1024", e->dp_size);
    return PDR_OK;
}

void pdr_registry_default_name(pdr_endpoint *e)
{
    const char *format = strchr(e->host, ':') ? "[%.110s]:%u" : "%.112s:%u";
    if (!e->name[0]) snprintf(e->name, sizeof e->name, format, e->host, e->port);
}

int pdr_registry_find(const pdr_registry *g, const char *name, uint32_t *id)
{
    uint32_t   h = hash_text(name);
    pdr_lookup l = lookup(g, BY_NAME);
    for (uint32_t left = l.max, i = pdr_lookup_first(&l, h); i < l.max && left; i = l.next[i], left--) {
        const pdr_endpoint_rec *rec = &g->endpoints[i];
        if (rec->slot == PDR_SLOT_USED && rec->name_hash == h && !strcmp(rec->e.name, name)) {
            *id = i;
            return PDR_OK;
        }
    }
    return PDR_E_NOT_FOUND;
}

pdr_endpoint_rec *pdr_registry_at(const pdr_registry *g, uint32_t id)
{
    if (id >= g->head->high || g->endpoints[id].slot != PDR_SLOT_USED) return NULL;
    return &g->endpoints[id];
}

uint32_t pdr_registry_clash(const pdr_registry *g, const pdr_endpoint *e)
{
    uint32_t   h = hash_address(e), first = PDR_NONE;
    pdr_lookup l = lookup(g, BY_ADDRESS);
    for (uint32_t left = l.max, i = pdr_lookup_first(&l, h); i < l.max && left; i = l.next[i], left--) {
        const pdr_endpoint_rec *rec = &g->endpoints[i];
        if (rec->slot == PDR_SLOT_USED && rec->address_hash == h && rec->e.port == e->port && !strcmp(rec->e.host, e->host) && strcmp(rec->e.name, e->name) &&
            i < first)
            first = i;
    }
    return first;
}

static uint32_t count_targets(const pdr_endpoint *e) { return e->dp_size > 1 ? e->dp_size : 1; }

/* ---- topology groups: a number per distinct text, by the first endpoint that has it */

enum { GROUPS = 3 };
static const size_t group_text[GROUPS] = {offsetof(pdr_endpoint, topology_host), offsetof(pdr_endpoint, topology_rack), offsetof(pdr_endpoint, topology_zone)};

static const char *text_of(const pdr_endpoint_rec *rec, int kind) { return (const char *)&rec->e + group_text[kind]; }

/* One endpoint stands for each text in the lookup; the number of this one's text, or the next one. */
static uint32_t group_of(const pdr_registry *g, const pdr_lookup *l, uint32_t id, int kind, uint32_t *count)
{
    pdr_endpoint_rec *own = &g->endpoints[id];
    const char       *text = text_of(own, kind);
    uint32_t          h = hash_text(text);
    own->group_hash[kind] = h;
    if (!text[0]) return PDR_NO_GROUP;
    for (uint32_t i = pdr_lookup_first(l, h); i < l->max; i = l->next[i])
        if (g->endpoints[i].group_hash[kind] == h && !strcmp(text_of(&g->endpoints[i], kind), text)) return g->endpoints[i].group[kind];
    pdr_lookup_link(l, id, h);
    return (*count)++;
}

static int same_topology(const pdr_endpoint *a, const pdr_endpoint *b)
{
    for (int kind = 0; kind < GROUPS; kind++)
        if (strcmp((const char *)a + group_text[kind], (const char *)b + group_text[kind])) return 0;
    return 1;
}

static void regroup(const pdr_registry *g)
{
    pdr_registry_head *h = g->head;
    uint32_t          *count[GROUPS] = {&h->hosts, &h->racks, &h->zones};
    pdr_lookup         l = lookup(g, BY_GROUP);
    for (int kind = 0; kind < GROUPS; kind++) {
        *count[kind] = 0;
        pdr_lookup_clear(&l);
        for (uint32_t id = 0; id < h->high; id++)
            if (g->endpoints[id].slot == PDR_SLOT_USED) g->endpoints[id].group[kind] = group_of(g, &l, id, kind, count[kind]);
    }
    for (uint32_t id = 0; id < h->high; id++) {
        const pdr_endpoint_rec *rec = &g->endpoints[id];
        if (rec->slot != PDR_SLOT_USED) continue;
        for (uint32_t i = 0; i < rec->targets; i++) {
            pdr_target *t = &g->targets[rec->first_target + i];
            t->host = rec->group[0];
            t->rack = rec->group[1];
            t->zone = rec->group[2];
        }
    }
    __atomic_store_n(&h->grouping, 0u, __ATOMIC_RELEASE);
}

static void fill_target(pdr_target *t, const pdr_endpoint *e, uint32_t id, uint32_t rank)
{
    t->endpoint = id;
    t->rank = e->dp_size > 1 ? rank : PDR_NONE;
    t->dp_size = e->dp_size > 1 ? e->dp_size : 1;
    if (e->kv_capacity) t->kv_capacity = e->kv_capacity;
    if (e->max_running) t->max_running = e->max_running;
}

/* Copies head->update to its record; in repair once more, so that no record stays half the old and half the new. */
static void update(const pdr_registry *g)
{
    uint32_t          at = g->head->updating - 1;
    pdr_endpoint_rec *rec = &g->endpoints[at];
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    rec->e = g->head->update;
    for (uint32_t i = 0; i < rec->targets; i++) fill_target(&g->targets[rec->first_target + i], &rec->e, at, i);
    __atomic_store_n(&g->head->updating, 0u, __ATOMIC_RELEASE);
}

void pdr_registry_repair(const pdr_registry *g)
{
    if (g->head->updating) update(g);
    for (uint32_t i = 0; i < g->head->max_endpoints; i++)
        if (g->endpoints[i].slot != PDR_SLOT_FREE && i >= g->head->high) g->head->high = i + 1;
    memset(g->taken, 0, g->head->max_targets);
    memset(&g->head->places, 0, sizeof g->head->places);
    g->head->free_from = 0;
    pdr_lookup names = lookup(g, BY_NAME), addresses = lookup(g, BY_ADDRESS);
    pdr_lookup_clear(&names);
    pdr_lookup_clear(&addresses);
    for (uint32_t i = 0; i < g->head->high; i++) {
        const pdr_endpoint_rec *rec = &g->endpoints[i];
        if (rec->slot != PDR_SLOT_FREE) memset(g->taken + rec->first_target, 1, rec->targets);
        if (rec->slot != PDR_SLOT_USED) continue;
        link_name(g, i);
        link_address(g, i);
    }
}

static uint32_t find_slot(const pdr_registry *g)
{
    uint32_t *at = &g->head->free_from;
    while (*at < g->head->max_endpoints && g->endpoints[*at].slot != PDR_SLOT_FREE) ++*at;
    return *at;
}

/* Whether n targets and a record can be had once this endpoint has been removed. */
static int fits_without(const pdr_registry *g, const pdr_endpoint_rec *rec, uint32_t n)
{
    pdr_places places = g->head->places;
    int        stays = rec->bookings != 0, fits;
    if (stays && find_slot(g) == g->head->max_endpoints) return 0;
    if (!stays) pdr_places_give(&places, g->taken, rec->first_target, rec->targets);
    fits = pdr_places_find(&places, g->taken, g->head->max_targets, n) != g->head->max_targets;
    memset(g->taken + rec->first_target, 1, rec->targets);
    return fits;
}

static int add(const pdr_registry *g, const pdr_endpoint *e, uint32_t draining, uint32_t *id, pdr_error *err)
{
    uint32_t n = count_targets(e), slot = find_slot(g), first = pdr_places_find(&g->head->places, g->taken, g->head->max_targets, n);
    if (slot == g->head->max_endpoints)
        return pdr_fail(err, PDR_E_FULL, "the table of endpoints is full (max_endpoints %u)", g->head->max_endpoints);
    if (first == g->head->max_targets)
        return pdr_fail(err, PDR_E_FULL, "the table of targets has no %u free in a row (max_targets %u)", n, g->head->max_targets);
    pdr_endpoint_rec *rec = &g->endpoints[slot];
    memset(rec, 0, sizeof *rec);
    rec->e = *e;
    rec->draining = draining;
    rec->first_target = first;
    rec->targets = n;
    for (int kind = 0; kind < GROUPS; kind++) rec->group[kind] = PDR_NO_GROUP;
    for (uint32_t i = 0; i < n; i++) {
        pdr_target *t = &g->targets[first + i];
        memset(t, 0, sizeof *t);
        memset(&g->infos[first + i], 0, sizeof *g->infos);
        t->slowness_q10 = PRIOR_SLOWNESS;
        t->host = t->rack = t->zone = PDR_NO_GROUP;
        g->infos[first + i].measured_q10 = PRIOR_SLOWNESS;
        fill_target(t, e, slot, i);
    }
    pdr_places_take(&g->head->places, g->taken, first, n);
    __atomic_store_n(&rec->slot, PDR_SLOT_USED, __ATOMIC_RELEASE);
    link_name(g, slot);
    link_address(g, slot);
    if (slot >= g->head->high) g->head->high = slot + 1;
    *id = slot;
    return PDR_OK;
}

int pdr_registry_put(const pdr_registry *g, const pdr_endpoint *e, uint32_t *id, pdr_error *err)
{
    uint32_t at = PDR_NONE, draining = 0;
    if (pdr_registry_find(g, e->name, &at)) at = PDR_NONE;
    if (at != PDR_NONE && count_targets(&g->endpoints[at].e) != count_targets(e)) {
        /* another number of ranks is another server: requests in flight end on the old record */
        if (!fits_without(g, &g->endpoints[at], count_targets(e)))
            return pdr_fail(err, PDR_E_FULL, "the tables of endpoints and targets have no room for %u ranks of %.64s (max_endpoints %u, max_targets %u)",
                            count_targets(e), e->name, g->head->max_endpoints, g->head->max_targets);
        draining = g->endpoints[at].draining;
        pdr_registry_remove(g, at);
        at = PDR_NONE;
    }
    if (at == PDR_NONE) {
        __atomic_store_n(&g->head->grouping, 1u, __ATOMIC_RELEASE);
        return add(g, e, draining, id, err);
    }
    if (!same_topology(&g->endpoints[at].e, e)) __atomic_store_n(&g->head->grouping, 1u, __ATOMIC_RELEASE);
    unlink_address(g, at);
    g->head->update = *e;
    __atomic_store_n(&g->head->updating, at + 1, __ATOMIC_RELEASE);
    update(g);
    link_address(g, at);
    *id = at;
    return PDR_OK;
}

void pdr_registry_reap(const pdr_registry *g, uint32_t id)
{
    pdr_endpoint_rec *rec = &g->endpoints[id];
    if (rec->slot != PDR_SLOT_LEAVING || rec->bookings) return;
    pdr_places_give(&g->head->places, g->taken, rec->first_target, rec->targets);
    g->head->targets -= rec->targets;
    __atomic_store_n(&rec->slot, PDR_SLOT_FREE, __ATOMIC_RELEASE);
    if (id < g->head->free_from) g->head->free_from = id;
    while (g->head->high && g->endpoints[g->head->high - 1].slot == PDR_SLOT_FREE) g->head->high--;
}

void pdr_registry_remove(const pdr_registry *g, uint32_t id)
{
    unlink_name(g, id);
    unlink_address(g, id);
    g->endpoints[id].slot = PDR_SLOT_LEAVING;
    pdr_registry_reap(g, id);
}

void pdr_registry_relist(const pdr_registry *g)
{
    g->head->relists++;
    if (g->head->grouping) regroup(g);
    pdr_registry_head *h = g->head;
    uint32_t           p = 0, d = 0, s = 0, n = 0, targets = 0, alone = 0;
    memset(g->listed, 0, h->max_targets * sizeof *g->listed);
    for (uint32_t id = 0; id < h->high; id++) {
        const pdr_endpoint_rec *rec = &g->endpoints[id];
        if (rec->slot == PDR_SLOT_FREE) continue;
        targets += rec->targets;
        if (rec->slot != PDR_SLOT_USED) continue;
        n++;
        for (uint32_t i = 0; i < rec->targets && !rec->down && !rec->draining; i++) {
            if (rec->e.role == PDR_ROLE_PREFILL) g->prefill[p++] = rec->first_target + i;
            if (rec->e.role == PDR_ROLE_DECODE) g->decode[d++] = rec->first_target + i;
            alone += pdr_serves_alone(rec);
            if (rec->e.role == PDR_ROLE_BOTH) g->single[s++] = rec->first_target + i;
        }
    }
    h->idle = 0;
    h->through_ns = 0;
    for (uint32_t i = 0; i < p; i++) g->listed[g->prefill[i]] = 1;
    for (uint32_t i = 0; i < s; i++) g->listed[g->single[i]] = 1;
    for (uint32_t i = 0; i < h->max_targets; i++) h->idle += g->listed[i] && !g->targets[i].requests;
    h->endpoints = n;
    h->targets = targets;
    h->prefill_n = p;
    h->decode_n = d;
    h->single_n = s;
    h->alone_n = alone;
    pdr_board_fill(g);
    pdr_near_fill(g);
}

uint32_t pdr_registry_state(const pdr_endpoint_rec *rec, const pdr_target *t, uint64_t now_ns)
{
    if (rec->slot != PDR_SLOT_USED) return PDR_STATE_REMOVED;
    if (rec->down || (t && t->open_until_ns > now_ns)) return PDR_STATE_DOWN;
    return rec->draining ? PDR_STATE_DRAINING : PDR_STATE_READY;
}

int pdr_registry_bounds(const pdr_registry *g, char *why, size_t cap)
{
    const pdr_registry_head *h = g->head;
    if (h->high > h->max_endpoints || h->updating > h->max_endpoints)
        return snprintf(why, cap, "registry: high mark %u or record %u above %u", h->high, h->updating, h->max_endpoints);
    if (h->updating && (g->endpoints[h->updating - 1].slot == PDR_SLOT_FREE || pdr_registry_validate(&h->update, NULL)))
        return snprintf(why, cap, "registry: the record being replaced is damaged");
    for (uint32_t id = 0; id < h->max_endpoints; id++) {
        const pdr_endpoint_rec *rec = &g->endpoints[id];
        if (rec->slot > PDR_SLOT_LEAVING) return snprintf(why, cap, "endpoint %u: slot state %u", id, rec->slot);
        if (rec->slot == PDR_SLOT_FREE) continue;
        if (rec->first_target >= h->max_targets || rec->targets > h->max_targets - rec->first_target)
            return snprintf(why, cap, "endpoint %u: targets %u+%u are out of range", id, rec->first_target, rec->targets);
        if (pdr_registry_validate(&rec->e, NULL)) return snprintf(why, cap, "endpoint %u: its record is damaged", id);
    }
    return 0;
}

static uint32_t name_hash_of(const void *g, uint32_t id) { return ((const pdr_registry *)g)->endpoints[id].name_hash; }
static uint32_t address_hash_of(const void *g, uint32_t id) { return ((const pdr_registry *)g)->endpoints[id].address_hash; }

/* All that are in use are found by name and address, and nobody else; where free places are looked for nothing is missed. */
static int check_found(const pdr_registry *g, uint32_t used, char *why, size_t cap)
{
    pdr_lookup names = lookup(g, BY_NAME), addresses = lookup(g, BY_ADDRESS);
    for (uint32_t id = 0; id < g->head->high; id++) {
        const pdr_endpoint_rec *rec = &g->endpoints[id];
        if (rec->slot == PDR_SLOT_USED && (rec->name_hash != hash_text(rec->e.name) || rec->address_hash != hash_address(&rec->e)))
            return snprintf(why, cap, "endpoint %u: a hash that is not that of its name and address", id);
    }
    /* as many as are in use, and each of them leads to its own bucket: with distinct records those are they */
    if (pdr_lookup_check(&names, name_hash_of, g) != used || pdr_lookup_check(&addresses, address_hash_of, g) != used)
        return snprintf(why, cap, "registry: not every endpoint is found by its name and address");
    for (uint32_t id = 0; id < g->head->high; id++) {
        uint32_t at = PDR_NONE;
        if (g->endpoints[id].slot == PDR_SLOT_USED && (pdr_registry_find(g, g->endpoints[id].e.name, &at) || at != id))
            return snprintf(why, cap, "endpoint %u: another one is found by its name", id);
    }
    for (uint32_t id = 0; id < g->head->free_from && id < g->head->max_endpoints; id++)
        if (g->endpoints[id].slot == PDR_SLOT_FREE) return snprintf(why, cap, "registry: the free record %u is not found", id);
    if (g->head->free_from > g->head->max_endpoints || !pdr_places_check(&g->head->places, g->taken, g->head->max_targets))
        return snprintf(why, cap, "registry: free targets are not found");
    return 0;
}

static int group_ok(uint32_t group, uint32_t count) { return group == PDR_NO_GROUP || group < count; }

/* The candidate lists name targets of endpoints that are in use. */
static int check_list(const pdr_registry *g, const uint32_t *list, uint32_t n, uint32_t role, char *why, size_t cap)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t t = list[i];
        if (t >= g->head->max_targets || !g->taken[t] || g->targets[t].endpoint >= g->head->high ||
            g->endpoints[g->targets[t].endpoint].slot != PDR_SLOT_USED || g->endpoints[g->targets[t].endpoint].e.role != role)
            return snprintf(why, cap, "registry: target %u is no candidate of role %u", t, role);
    }
    return 0;
}

static int check_endpoint(const pdr_registry *g, uint32_t id, char *why, size_t cap)
{
    const pdr_endpoint_rec *rec = &g->endpoints[id];
    if (rec->slot == PDR_SLOT_FREE) return 0;
    if (rec->targets != count_targets(&rec->e)) return snprintf(why, cap, "endpoint %u: %u targets, not %u", id, rec->targets, count_targets(&rec->e));
    for (uint32_t i = 0; i < rec->targets; i++) {
        if (!g->taken[rec->first_target + i]) return snprintf(why, cap, "endpoint %u: target %u is not marked taken", id, rec->first_target + i);
        if (g->targets[rec->first_target + i].endpoint != id)
            return snprintf(why, cap, "target %u belongs to endpoint %u, not %u", rec->first_target + i,
                            g->targets[rec->first_target + i].endpoint, id);
        const pdr_target *t = &g->targets[rec->first_target + i];
        if (rec->slot == PDR_SLOT_USED &&
            (!group_ok(t->host, g->head->hosts) || !group_ok(t->rack, g->head->racks) || !group_ok(t->zone, g->head->zones)))
            return snprintf(why, cap, "target %u: a group that there is not", rec->first_target + i);
    }
    if (rec->slot == PDR_SLOT_LEAVING && !rec->bookings) return snprintf(why, cap, "endpoint %u: removed and idle, but not reaped", id);
    return 0;
}

int pdr_registry_check(const pdr_registry *g, char *why, size_t cap)
{
    const pdr_registry_head *h = g->head;
    uint32_t                 used = 0, targets = 0, taken = 0, listed = 0;
    if (pdr_registry_bounds(g, why, cap)) return -1;
    if (h->hosts > h->max_endpoints || h->racks > h->max_endpoints || h->zones > h->max_endpoints)
        return snprintf(why, cap, "registry: more groups than endpoints");
    for (uint32_t id = 0; id < h->max_endpoints; id++) {
        int bad = check_endpoint(g, id, why, cap);
        if (bad) return bad;
        if (g->endpoints[id].slot == PDR_SLOT_FREE) continue;
        if (id >= h->high) return snprintf(why, cap, "endpoint %u is used beyond the high mark %u", id, h->high);
        targets += g->endpoints[id].targets;
        if (g->endpoints[id].slot != PDR_SLOT_USED) continue;
        used++;
        if (!g->endpoints[id].down && !g->endpoints[id].draining) listed += g->endpoints[id].targets;
    }
    for (uint32_t i = 0; i < h->max_targets; i++) taken += g->taken[i];
    if (used != h->endpoints || targets != h->targets || taken != targets)
        return snprintf(why, cap, "registry: counts %u/%u/%u do not match %u/%u", used, targets, taken, h->endpoints, h->targets);
    if (listed != h->prefill_n + h->decode_n + h->single_n)
        return snprintf(why, cap, "registry: %u candidates listed, %u expected", h->prefill_n + h->decode_n + h->single_n, listed);
    return check_found(g, used, why, cap) || check_list(g, g->prefill, h->prefill_n, PDR_ROLE_PREFILL, why, cap) || check_list(g, g->decode, h->decode_n, PDR_ROLE_DECODE, why, cap) ||
           check_list(g, g->single, h->single_n, PDR_ROLE_BOTH, why, cap) || pdr_board_check(g, why, cap) || pdr_near_check(g, why, cap);
}
