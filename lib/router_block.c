/* The block's life: size, making, attaching, taking over, repairing, checking. */
#include "block.h"
#include "config.h"
#include "engine.h"
#include "rng.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = {'P', 'D', 'R', 'O', 'U', 'T', 'E', '\n'};

enum { CANDIDATE_LISTS = 4 /* and who is in one */, GROUP_LISTS = 3, READY = 0x52454459, LOST = 0x54534f4c };

static uint64_t round64(uint64_t n) { return (n + 63) & ~63ull; }

static uint64_t power_of_two(uint64_t n)
{
    uint64_t p = 1;
    while (p < n) p <<= 1;
    return p;
}

/* Offsets of all regions; the end is the block's size. */
static void lay_out(const pdr_config *c, uint64_t *offset)
{
    uint64_t size[PDR_REGION_END] = {
        [PDR_REGION_REGISTRY] = sizeof(pdr_registry_head),
        [PDR_REGION_ENDPOINTS] = (uint64_t)c->max_endpoints * sizeof(pdr_endpoint_rec),
        [PDR_REGION_TARGETS] = (uint64_t)c->max_targets * sizeof(pdr_target),
        [PDR_REGION_INFOS] = (uint64_t)c->max_targets * sizeof(pdr_target_info),
        [PDR_REGION_TAKEN] = c->max_targets,
        [PDR_REGION_LISTS] = (uint64_t)c->max_targets * CANDIDATE_LISTS * sizeof(uint32_t),
        [PDR_REGION_LEDGER] = sizeof(pdr_ledger_head),
        [PDR_REGION_LEASES] = (uint64_t)c->max_leases * sizeof(pdr_lease),
        [PDR_REGION_BOOKINGS] = (uint64_t)c->max_bookings * sizeof(pdr_booking),
        [PDR_REGION_HOLD] = sizeof(pdr_hold_head),
        [PDR_REGION_HELD] = (uint64_t)c->max_held * sizeof(pdr_held),
        [PDR_REGION_LANES] = (uint64_t)c->max_held * (sizeof(pdr_lane) + 2 * sizeof(uint32_t)) + (uint64_t)pdr_hold_buckets(c->max_held) * sizeof(uint32_t) +
                             (uint64_t)pdr_hold_groups(c->max_held) * ((PDR_LEAST_OF * 4 + 1) * sizeof(uint64_t) + sizeof(uint16_t)),
        /* a holder and one that was touched per target, the waits and three numbers per group of them */
        [PDR_REGION_WAITS] = (uint64_t)c->max_targets * 2 * sizeof(uint32_t) +
                             (uint64_t)pdr_wait_groups(c->max_targets) * ((PDR_WAIT_GROUP + 1) * sizeof(uint64_t) + sizeof(uint32_t) + sizeof(uint16_t)),
        [PDR_REGION_BOARD] = pdr_board_size(c->max_targets),
        [PDR_REGION_LOOKUPS] = pdr_registry_lookups_size(c->max_endpoints),
        [PDR_REGION_NEAR] = pdr_near_size(c->max_endpoints, c->max_targets),
        [PDR_REGION_LOG] = sizeof(pdr_log_head),
        [PDR_REGION_RECORDS] = (uint64_t)c->log_entries * sizeof(pdr_log_entry),
        /* two costs, the planned work and the opened step per target, three positions per endpoint, a depth per target */
        [PDR_REGION_SCRATCH] = (uint64_t)c->max_targets * (3 * sizeof(uint64_t) + sizeof(pdr_step)) + (uint64_t)c->max_endpoints * GROUP_LISTS * sizeof(uint32_t) +
                               (uint64_t)c->max_targets * sizeof(uint16_t),
        [PDR_REGION_INDEX] = pdr_index_size(c->index_entries, c->max_targets),
        [PDR_REGION_TAPE] = sizeof(pdr_tape_head),
        [PDR_REGION_FRAMES] = power_of_two(c->record_bytes),
        [PDR_REGION_SHADOW] = sizeof(pdr_shadow) + (uint64_t)c->max_targets * sizeof(pdr_target),
    };
    uint64_t at = round64(sizeof(struct pdr_router));
    for (int i = 0; i < PDR_REGION_END; i++) {
        offset[i] = at;
        at += round64(size[i]);
    }
    offset[PDR_REGION_END] = at;
}

/* Identifies everything that shapes the block and its decisions; the seed may differ. */
static uint64_t digest_of(const pdr_config *config)
{
    pdr_config c = *config;
    uint32_t   words[sizeof c / sizeof(uint32_t)];
    uint64_t   h = PDR_LAYOUT_VERSION;
    c.seed = 0;
    memcpy(words, &c, sizeof c);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) h = pdr_mix64(h ^ words[i]);
    return h;
}

static int resolved(const pdr_config *config, pdr_config *out, pdr_error *err)
{
    int code = pdr_struct_in(out, sizeof *out, config, err);
    out->struct_size = sizeof *out;
    return code ? code : pdr_config_resolve(out, err);
}

size_t pdr_router_size(const pdr_config *config)
{
    pdr_config c;
    uint64_t   offset[PDR_REGION_END + 1];
    if (resolved(config, &c, NULL)) return 0;
    lay_out(&c, offset);
    return (size_t)offset[PDR_REGION_END];
}

/* Of ids, which logs may show: does not lead back to the seed, from which rooms come. */
static uint64_t salt_of(uint64_t seed) { return pdr_mix64(pdr_mix64(seed) ^ seed); }

static void *region(pdr_router *r, int i) { return (char *)r + r->offset[i]; }

void pdr_books_open(pdr_books *b, pdr_router *r)
{
    uint32_t targets = r->config.max_targets, endpoints = r->config.max_endpoints;
    b->r = r;
    b->registry.head = region(r, PDR_REGION_REGISTRY);
    b->registry.endpoints = region(r, PDR_REGION_ENDPOINTS);
    b->registry.targets = region(r, PDR_REGION_TARGETS);
    b->registry.infos = region(r, PDR_REGION_INFOS);
    b->registry.taken = region(r, PDR_REGION_TAKEN);
    b->registry.prefill = region(r, PDR_REGION_LISTS);
    b->registry.decode = b->registry.prefill + targets;
    b->registry.single = b->registry.decode + targets;
    b->registry.listed = b->registry.single + targets;
    b->registry.lookups = region(r, PDR_REGION_LOOKUPS);
    pdr_board_open(&b->registry.board, region(r, PDR_REGION_BOARD), targets);
    pdr_near_open(&b->registry.near, region(r, PDR_REGION_NEAR), endpoints);
    b->ledger.head = region(r, PDR_REGION_LEDGER);
    b->ledger.leases = region(r, PDR_REGION_LEASES);
    b->ledger.bookings = region(r, PDR_REGION_BOOKINGS);
    b->ledger.registry = &b->registry;
    b->hold.head = region(r, PDR_REGION_HOLD);
    b->hold.slots = region(r, PDR_REGION_HELD);
    b->hold.lanes = region(r, PDR_REGION_LANES);
    uint32_t turns = pdr_hold_groups(r->config.max_held);
    b->hold.turn.v = (uint64_t *)(void *)(b->hold.lanes + r->config.max_held);
    b->hold.turn.least = b->hold.turn.v + turns * PDR_LEAST_OF;
    b->hold.first.came = b->hold.turn.least + turns;
    b->hold.first.half = b->hold.first.came + turns * PDR_LEAST_OF;
    b->hold.first.inverse = b->hold.first.half + turns * PDR_LEAST_OF;
    b->hold.ranked = (uint32_t *)(void *)(b->hold.first.inverse + turns * PDR_LEAST_OF);
    b->hold.active = b->hold.ranked + r->config.max_held;
    b->hold.bucket = b->hold.active + r->config.max_held;
    b->hold.turn.mask = (uint16_t *)(void *)(b->hold.bucket + pdr_hold_buckets(r->config.max_held));
    b->log.head = region(r, PDR_REGION_LOG);
    b->log.records = region(r, PDR_REGION_RECORDS);
    b->index = region(r, PDR_REGION_INDEX);
    b->scratch.prefill_cost = region(r, PDR_REGION_SCRATCH);
    b->scratch.decode_cost = b->scratch.prefill_cost + targets;
    b->planned_us = b->scratch.decode_cost + targets;
    b->steps = (pdr_step *)(void *)(b->planned_us + targets);
    b->scratch.best_host = (uint32_t *)(void *)(b->steps + targets);
    b->scratch.best_rack = b->scratch.best_host + endpoints;
    b->scratch.best_zone = b->scratch.best_rack + endpoints;
    b->depth = (uint16_t *)(void *)(b->scratch.best_zone + endpoints);
    b->tape.head = region(r, PDR_REGION_TAPE);
    b->tape.bytes = region(r, PDR_REGION_FRAMES);
    b->shadow = region(r, PDR_REGION_SHADOW);
    b->replay = NULL;
    b->home = PDR_NONE;
    b->home_depth = 0;
    b->passing = b->telling = 0;
    b->holding = PDR_NONE;
    b->now_ns = __atomic_load_n(&r->clock_ns, __ATOMIC_RELAXED); /* pdr_owe has no lock */
}

void pdr_books_open_pass(pdr_books *b)
{
    uint32_t targets = b->r->config.max_targets, groups = pdr_wait_groups(targets);
    b->waits.us.v = region(b->r, PDR_REGION_WAITS);
    b->waits.us.least = b->waits.us.v + groups * PDR_WAIT_GROUP;
    b->waits.slow = (uint32_t *)(void *)(b->waits.us.least + groups);
    b->waits.touched = b->waits.slow + groups;
    b->holders = b->waits.touched + targets;
    b->waits.us.mask = (uint16_t *)(void *)(b->holders + targets);
}

/* A nearer tier is never slower than a farther one: the pair choice relies on it. */
static pdr_rates rates_of(const pdr_config *c)
{
    pdr_rates k = {c->prefill_base_us,       c->prefill_ns_per_token, c->prefill_fs_per_token2, c->decode_us_per_request,
                   c->decode_ps_per_token,   c->kv_bytes_per_token,   c->transfer_latency_us,   c->transfer_mbps_host,
                   c->transfer_mbps_rack,    c->transfer_mbps_zone,   c->transfer_mbps_far,     0};
    if (k.mbps_zone < k.mbps_far) k.mbps_zone = k.mbps_far;
    if (k.mbps_rack < k.mbps_zone) k.mbps_rack = k.mbps_zone;
    if (k.mbps_host < k.mbps_rack) k.mbps_host = k.mbps_rack;
    return k;
}

static int no_out(pdr_error *err) { return pdr_fail(err, PDR_E_INVALID, "where to put the router (out) is NULL"); }

int pdr_router_init(void *mem, size_t size, const pdr_config *config, uint64_t boot, pdr_router **out, pdr_error *err)
{
    pdr_router *r = mem;
    pdr_config  c;
    pdr_books   b;
    int         code = resolved(config, &c, err);
    if (code) return code;
    if (!out) return no_out(err);
    if (!mem || (uintptr_t)mem % 64) return pdr_fail(err, PDR_E_INVALID, "memory for a block is missing or not 64-byte aligned");
    uint64_t offset[PDR_REGION_END + 1];
    lay_out(&c, offset);
    if (size < offset[PDR_REGION_END])
        return pdr_fail(err, PDR_E_NOSPACE, "a block of this configuration needs %llu bytes, not %zu",
                        (unsigned long long)offset[PDR_REGION_END], size);
    memset(r, 0, sizeof *r);
    r->config = c;
    memcpy(r->offset, offset, sizeof offset);
    r->layout = PDR_LAYOUT_VERSION;
    r->header_bytes = sizeof *r;
    r->size = offset[PDR_REGION_END];
    r->digest = digest_of(&c);
    r->boot = boot;
    r->rates = rates_of(&c);
    r->learnt.tokens_per_byte_q20 = ((uint64_t)c.milli_tokens_per_byte << 20) / 1000;
    r->learnt.bytes = PDR_PRIOR_BYTES;
    r->learnt.tokens = PDR_PRIOR_BYTES * (uint64_t)c.milli_tokens_per_byte / 1000;
    r->learnt.late_q10 = 1024;
    r->learnt.late = pdr_engine_get(c.engine)->late;
    r->retry_credit = PDR_RETRY_RESERVE;
    pdr_fit_init(&r->learnt.fit);
    pdr_homes_init(&r->learnt.homes);
    r->learnt.output_tokens_q10 = 300 << 10; /* a chat answer; learnt from the first ones on */
    if (pdr_lock_init(&r->lock)) return pdr_fail(err, PDR_E_SYSTEM, "a process-shared robust mutex cannot be made");
    pdr_room_init(&r->room, c.seed);
    pdr_books_open(&b, r);
    pdr_registry_init(&b.registry, c.max_endpoints, c.max_targets);
    b.registry.head->board.us_per_request = r->rates.decode_us_per_request;
    b.registry.head->board.ps_per_token = r->rates.decode_ps_per_token;
    pdr_ledger_init(&b.ledger, c.max_bookings, c.max_leases, salt_of(c.seed));
    pdr_hold_init(&b.hold, c.max_held);
    pdr_log_init(&b.log, c.log_entries);
    pdr_index_init(b.index, c.index_entries, c.max_targets);
    pdr_tape_init(&b.tape, power_of_two(c.record_bytes));
    memcpy(r->magic, magic, sizeof magic);
    __atomic_store_n(&r->ready, READY, __ATOMIC_RELEASE);
    *out = r;
    return PDR_OK;
}

/* Everything a header must say before the rest is believed. */
static int check_header(const pdr_router *r, size_t size, pdr_error *err)
{
    pdr_config c;
    uint64_t   offset[PDR_REGION_END + 1];
    if (!r || (uintptr_t)r % 64) return pdr_fail(err, PDR_E_INVALID, "memory of a block is missing or not 64-byte aligned");
    if (size < sizeof *r || memcmp(r->magic, magic, sizeof magic)) return pdr_fail(err, PDR_E_BLOCK_MAGIC, "not a router block");
    if (r->layout != PDR_LAYOUT_VERSION || r->header_bytes != sizeof *r)
        return pdr_fail(err, PDR_E_BLOCK_LAYOUT, "block has layout %u (header of %u bytes), this library uses layout %u (%zu bytes)", r->layout,
                        r->header_bytes, PDR_LAYOUT_VERSION, sizeof *r);
    if (__atomic_load_n(&r->ready, __ATOMIC_ACQUIRE) != READY) return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "block was not finished when it was made");
    c = r->config;
    if (c.struct_size != sizeof c || pdr_config_resolve(&c, NULL) || memcmp(&c, &r->config, sizeof c) || digest_of(&c) != r->digest)
        return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "the block's configuration does not match its digest");
    lay_out(&c, offset);
    if (memcmp(offset, r->offset, sizeof offset) || r->size != offset[PDR_REGION_END])
        return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "the block's regions are not where its configuration puts them");
    if (size < r->size)
        return pdr_fail(err, PDR_E_BLOCK_LAYOUT, "block needs %llu bytes but only %zu are there: it was cut off", (unsigned long long)r->size, size);
    return PDR_OK;
}

static int tables_agree(pdr_router *r, pdr_error *err)
{
    pdr_books b;
    pdr_books_open(&b, r);
    if (b.registry.head->max_endpoints != r->config.max_endpoints || b.registry.head->max_targets != r->config.max_targets ||
        b.ledger.head->max_bookings != r->config.max_bookings || b.ledger.head->max_leases != r->config.max_leases ||
        b.hold.head->max != r->config.max_held || b.tape.head->capacity != power_of_two(r->config.record_bytes) ||
        b.log.head->entries != r->config.log_entries || !pdr_index_fits(b.index, r->config.index_entries, r->config.max_targets))
        return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "a table's size is not that of the configuration");
    return PDR_OK;
}

static int differs(const pdr_config *there, const pdr_config *here, const pdr_config_field *f, pdr_error *err)
{
    if (!f) return pdr_fail(err, PDR_E_BLOCK_CONFIG, "block was made with another configuration");
    uint64_t    was = pdr_config_get(there, f), is = pdr_config_get(here, f);
    const char *word = pdr_config_word(f, was), *other = pdr_config_word(f, is);
    if (word && other) return pdr_fail(err, PDR_E_BLOCK_CONFIG, "block was made with another configuration: %s is %s there, %s here", f->name, word, other);
    return pdr_fail(err, PDR_E_BLOCK_CONFIG, "block was made with another configuration: %s is %llu there, %llu here", f->name, (unsigned long long)was,
                    (unsigned long long)is);
}

int pdr_router_attach(void *mem, size_t size, const pdr_config *config, uint64_t boot, pdr_router **out, pdr_error *err)
{
    pdr_router *r = mem;
    int         code = out ? check_header(r, size, err) : no_out(err);
    if (code) return code;
    if (r->boot != boot) return pdr_fail(err, PDR_E_BLOCK_BOOT, "block is from before the last boot of this system");
    if (config) {
        pdr_config c;
        code = resolved(config, &c, err);
        if (code) return code;
        if (digest_of(&c) != r->digest) {
            const pdr_config_field *f;
            if (strcmp(c.tenant_header, r->config.tenant_header))
                return pdr_fail(err, PDR_E_BLOCK_CONFIG, "block was made with another configuration: " PDR_CONFIG_TENANT " is \"%s\" there, \"%s\" here",
                                r->config.tenant_header, c.tenant_header);
            for (size_t i = 0; (f = pdr_config_field_at(i)); i++)
                if (strcmp(f->name, "seed") && pdr_config_get(&c, f) != pdr_config_get(&r->config, f)) break;
            return differs(&r->config, &c, f, err);
        }
    }
    code = tables_agree(r, err);
    if (!code) *out = r;
    return code;
}

int pdr_router_restore(void *mem, size_t size, uint64_t boot, uint64_t seed, pdr_router **out, pdr_error *err)
{
    pdr_router *r = mem;
    pdr_books   b;
    char        why[160];
    int         code = out ? check_header(r, size, err) : no_out(err);
    if (!code) code = tables_agree(r, err);
    if (code) return code;
    pdr_books_open(&b, r);
    if (pdr_registry_bounds(&b.registry, why, sizeof why)) return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "%s", why);
    __atomic_store_n(&r->ready, 0u, __ATOMIC_RELEASE);
    if (pdr_lock_init(&r->lock)) return pdr_fail(err, PDR_E_SYSTEM, "a process-shared robust mutex cannot be made");
    b.registry.head->grouping = 1;
    b.registry.head->prefill_n = b.registry.head->decode_n = b.registry.head->single_n = 0; /* made anew below */
    pdr_registry_repair(&b.registry); /* it may have been saved in the middle of a call */
    pdr_hold_init(&b.hold, r->config.max_held);
    pdr_ledger_init(&b.ledger, r->config.max_bookings, r->config.max_leases, salt_of(seed));
    for (uint32_t i = 0; i < r->config.max_endpoints; i++) {
        b.registry.endpoints[i].bookings = 0;
        b.registry.endpoints[i].failures = b.registry.endpoints[i].openings = b.registry.endpoints[i].suspect_with = 0;
        b.registry.endpoints[i].opened_ns = b.registry.endpoints[i].alive_ns = 0; /* of a clock that has begun anew */
        if (b.registry.endpoints[i].slot == PDR_SLOT_LEAVING) pdr_registry_reap(&b.registry, i);
    }
    for (uint32_t i = 0; i < r->config.max_targets; i++) {
        pdr_breaker_open_until(&b.registry, i, PDR_GUARD_NONE, 0);
        b.registry.targets[i].since_ns = 0;
        b.registry.targets[i].foreign_us = b.registry.targets[i].foreign_ns = 0;
        b.registry.targets[i].d_foreign_tokens = b.registry.targets[i].d_foreign_requests = 0;
        b.registry.infos[i].report_ns = b.registry.infos[i].learnt_ns = 0;
    }
    pdr_registry_relist(&b.registry);
    if (pdr_registry_check(&b.registry, why, sizeof why)) return pdr_fail(err, PDR_E_BLOCK_CORRUPT, "%s", why);
    pdr_index_repair(b.index);
    if (pdr_index_check(b.index, why, sizeof why)) pdr_index_init(b.index, r->config.index_entries, r->config.max_targets);
    pdr_room_init(&r->room, seed);
    r->config.seed = seed;
    r->clock_ns = r->learnt.relaxed_ns = 0;
    r->recording = 0;
    b.tape.head->wanted = 1;
    r->boot = boot;
    __atomic_store_n(&r->ready, READY, __ATOMIC_RELEASE);
    *out = r;
    return PDR_OK;
}

int pdr_router_config(const pdr_router *r, pdr_config *out)
{
    if (!r || memcmp(r->magic, magic, sizeof magic)) return PDR_E_INVALID;
    return pdr_struct_out(out, &r->config, sizeof r->config, NULL);
}

/* After a death inside: everything derived is made anew from the records; what was half done is dropped. */
static void repair(pdr_books *b)
{
    pdr_index_repair(b->index);
    pdr_registry_repair(&b->registry);
    pdr_ledger_rebuild(&b->ledger);
    /* a queue entry and its booking name each other; where one of the two was not yet or no longer written, both go */
    for (uint32_t i = 0; i < b->r->config.max_held; i++) {
        pdr_held    *s = &b->hold.slots[i];
        pdr_booking *k = s->booking ? pdr_booking_at(&b->ledger, s->booking) : NULL;
        if (s->booking && (!k || k->held != i || k->state != PDR_BOOKING_HELD)) s->booking = 0;
    }
    pdr_hold_rebuild(&b->hold);
    for (uint32_t i = 0; i < b->r->config.max_bookings; i++) {
        pdr_booking *k = &b->ledger.bookings[i];
        if (k->state == PDR_BOOKING_HELD &&
            (k->held >= b->r->config.max_held || b->hold.slots[k->held].booking != pdr_booking_id(&b->ledger, k)))
            pdr_booking_free(&b->ledger, k, b->now_ns);
    }
    for (uint32_t i = 0; i < b->registry.head->high; i++) pdr_registry_reap(&b->registry, i);
    pdr_registry_relist(&b->registry);
}

static int not_ready(const pdr_router *r) { return r && r->ready == LOST ? PDR_E_BLOCK_CORRUPT : PDR_E_INVALID; }

/* The call that this thread is inside of. Only a signal handler of the same thread reads it: the one thing that is not in the block or on a stack. */
static _Thread_local pdr_books *inside;

/* Where only a part of the block is gone others still see its lock: who leaves by a jump gives it back, or they would wait for it in vain. */
int pdr_router_lose(pdr_router *r)
{
    pdr_books *b = inside;
    if (!r || __atomic_load_n(&r->ready, __ATOMIC_ACQUIRE) != READY) return PDR_E_INVALID;
    __atomic_store_n(&r->ready, LOST, __ATOMIC_RELEASE);
    if (!b || b->r != r || !b->locked) return PDR_OK;
    b->locked = 0;
    pdr_lock_release(&r->lock);
    return PDR_OK;
}

void pdr_router_escape(const pdr_router *r)
{
    pdr_books *b = inside;
    if (!b || b->r != r) return;
    inside = b->outer;
    _longjmp(b->escape, 1);
}

static int leave(pdr_books *b, int code)
{
    inside = b->outer;
    return code;
}

int pdr_books_take(pdr_books *b, pdr_router *r, uint64_t now_ns)
{
    b->r = r;
    b->outer = inside;
    b->locked = 0;
    inside = b;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__builtin_expect(!r || __atomic_load_n(&r->ready, __ATOMIC_ACQUIRE) != READY, 0)) return leave(b, not_ready(r));
    int got = pdr_lock_take(&r->lock);
    if (__builtin_expect(got < 0, 0)) return leave(b, r->ready == LOST ? PDR_E_BLOCK_CORRUPT : got);
    b->locked = 1;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    if (__builtin_expect(r->ready != READY, 0)) return pdr_books_unlock(b, PDR_OK, NULL);
    pdr_books_open(b, r);
    if (__builtin_expect(got == PDR_LOCK_RECOVERED, 0)) {
        repair(b);
        r->stats.lock_recoveries++;
        pdr_lock_repaired(&r->lock);
    }
    if (now_ns > INT64_MAX) now_ns = 0; /* 292 years: that is no clock, and sums with it would overflow */
    if (now_ns > r->clock_ns)
        __atomic_store_n(&r->clock_ns, now_ns, __ATOMIC_RELAXED);
    else if (now_ns && r->clock_ns - now_ns > 1000000000u) /* processes race by microseconds; a second is a clock of another kind */
        r->stats.clock_backwards++;
    b->now_ns = r->clock_ns;
    return PDR_OK;
}

int pdr_books_unlock(pdr_books *b, int code, pdr_error *err)
{
    int lost = b->r->ready != READY;
    b->locked = 0;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    pdr_lock_release(&b->r->lock);
    leave(b, code);
    return __builtin_expect(lost, 0) ? pdr_fail(err, PDR_E_BLOCK_CORRUPT, "the block was lost meanwhile") : code;
}

int pdr_router_check(pdr_router *r, pdr_error *err)
{
    pdr_books b;
    char      why[200] = "";
    int       code = pdr_books_lock(&b, r, 0), bad;
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    bad = pdr_registry_check(&b.registry, why, sizeof why) || pdr_ledger_check(&b.ledger, b.scratch.prefill_cost, why, sizeof why) ||
          pdr_hold_check(&b.hold, why, sizeof why) || pdr_index_check(b.index, why, sizeof why);
    for (uint32_t i = 0; !bad && i < r->config.max_held; i++) {
        const pdr_booking *k = b.hold.slots[i].booking ? pdr_booking_at(&b.ledger, b.hold.slots[i].booking) : NULL;
        if (b.hold.slots[i].booking && (!k || k->state != PDR_BOOKING_HELD || k->held != i))
            bad = snprintf(why, sizeof why, "queue: slot %u has no booking of its own", i);
    }
    return pdr_books_unlock(&b, bad ? pdr_fail(err, PDR_E_BLOCK_CORRUPT, "%s", why) : PDR_OK, err);
}
