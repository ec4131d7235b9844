/* Public entry points of replay. A file is checked whole before the first step, and every number in it when it is used: files come from anywhere. */
#include "router_replay.h"

#include "record_file.h"
#include "router_record.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL_INDEX = 64, HASH = 8 };

/* A held request: its name in the file, and its depths when last heard of. */
typedef struct pdr_waiting {
    uint64_t       ticket;
    const uint8_t *depths, *end;
} pdr_waiting;

/* One request's turn in a pass, as recorded or as replayed. */
typedef struct pdr_turn {
    uint64_t       ticket;
    const uint8_t *depths, *end;
    pdr_choice     choice;
    uint32_t       result, told;
    uint64_t       work_us;
    pdr_held       held; /* replayed ones only */
} pdr_turn;

typedef struct pdr_turns { pdr_turn *v; size_t n, cap; } pdr_turns;

struct pdr_replay {
    pdr_record_file file;
    pdr_eye        frames;       /* of the present piece */
    pdr_config     config;       /* as recorded */
    pdr_router    *r;
    pdr_target    *shadow;
    uint64_t       globals[PDR_GLOBALS];
    pdr_waiting   *waiting;      /* per slot of the queue */
    uint32_t       lease;        /* slot */
    int            synced, lost, starved; /* starved: there was no memory for a turn */
    uint64_t       number, time_ns;
    pdr_turns      recorded, replayed; /* of the pass under way */
    size_t         told_recorded, told_replayed;
    int            have_ask;     /* the last step was ROUTED: */
    pdr_ask        ask;
    pdr_choice     choice;
    pdr_eye        joins;        /* joining: what this step's request adds to the queue */
    int            joining, charging; /* charging: it was sent, and its tenant pays for work_us */
    uint64_t       work_us;
    const uint8_t *depths, *depths_end, *hashes;
    size_t         hashes_n;
};

static int corrupt(pdr_error *err, size_t at, const char *what)
{
    return pdr_fail_at(err, PDR_E_BLOCK_CORRUPT, at, 0, "at byte %zu: %s", at, what);
}

/* ---- opening */

static int make_router(pdr_replay *p, pdr_error *err)
{
    pdr_config c = p->config;
    uint32_t   lease;
    c.index_entries = SMALL_INDEX;
    c.log_entries = 1;
    c.max_leases = 1;
    c.record_bytes = 0;
    c.max_bookings = c.max_held;
    size_t size = pdr_router_size(&c);
    void  *mem = size ? aligned_alloc(64, size) : NULL;
    if (!mem) return pdr_fail(err, PDR_E_SYSTEM, "no memory for a router of the recorded size (%zu bytes)", size);
    int code = pdr_router_init(mem, size, &c, 1, &p->r, err);
    if (code) {
        free(mem);
        return code;
    }
    p->shadow = calloc(c.max_targets, sizeof *p->shadow);
    p->waiting = calloc(c.max_held, sizeof *p->waiting);
    if (!p->shadow || !p->waiting) return pdr_fail(err, PDR_E_SYSTEM, "no memory for %u targets and %u held requests", c.max_targets, c.max_held);
    return pdr_lease_open(p->r, "replay", 1, &lease, err);
}

int pdr_replay_open(const void *file, size_t len, uint32_t flags, pdr_replay **out, pdr_error *err)
{
    if (!file || !out) return pdr_fail(err, PDR_E_INVALID, "file or out is NULL");
    pdr_replay *p = calloc(1, sizeof *p);
    if (!p) return pdr_fail(err, PDR_E_SYSTEM, "no memory");
    int code = pdr_record_file_open(&p->file, file, len, flags & PDR_REPLAY_PARTIAL ? 1 : 0, &p->config, err);
    if (!code) code = make_router(p, err);
    if (code) {
        pdr_replay_close(p);
        return code;
    }
    *out = p;
    return PDR_OK;
}

void pdr_replay_close(pdr_replay *p)
{
    if (!p) return;
    free(p->r);
    free(p->shadow);
    free(p->waiting);
    free(p->recorded.v);
    free(p->replayed.v);
    free(p);
}

int pdr_replay_config(const pdr_replay *p, pdr_config *out) { return p ? pdr_struct_out(out, &p->config, sizeof p->config, NULL) : PDR_E_INVALID; }

/* ---- state */

static void open_books(pdr_replay *p, pdr_books *b)
{
    pdr_books_open(b, p->r);
    b->replay = p;
    b->now_ns = p->r->clock_ns = p->time_ns;
}

static void read_globals(pdr_replay *p, pdr_eye *e)
{
    uint64_t changed = pdr_eye_below(e, (1ull << PDR_GLOBALS) - 1);
    for (int i = 0; i < PDR_GLOBALS; i++)
        if (changed >> i & 1) p->globals[i] = pdr_eye_number(e);
}

static int group_fits(uint32_t group, uint64_t groups) { return group == PDR_NO_GROUP || group < groups; }

static void read_targets(pdr_replay *p, pdr_eye *e)
{
    const pdr_config *c = &p->r->config;
    for (;;) {
        uint64_t at = pdr_eye_below(e, c->max_targets);
        if (!at || e->bad) return;
        pdr_target *t = &p->shadow[at - 1];
        uint64_t    changed = pdr_eye_below(e, (1ull << pdr_target_fields()) - 1);
        for (size_t i = 0; i < pdr_target_fields(); i++)
            if (changed >> i & 1) pdr_target_field_set(t, i, pdr_eye_number(e));
        if (p->synced && (t->endpoint >= c->max_endpoints || !group_fits(t->host, p->globals[4]) || !group_fits(t->rack, p->globals[5]) || !group_fits(t->zone, p->globals[6])))
            e->bad = 1;
    }
}

static int globals_possible(const pdr_replay *p)
{
    pdr_books b;
    pdr_books_open(&b, p->r);
    pdr_globals_set(&b, p->globals);
    const pdr_rates *k = &p->r->rates;
    return p->globals[4] <= p->r->config.max_endpoints && p->globals[5] <= p->r->config.max_endpoints && p->globals[6] <= p->r->config.max_endpoints &&
           k->mbps_far && k->mbps_zone && k->mbps_rack && k->mbps_host;
}

/* The recorded state into the block: decisions of the replay leave traces in it. */
static void restore(pdr_replay *p, pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    pdr_globals_set(b, p->globals);
    b->registry.head->idle = 0;
    for (uint32_t i = 0; i < h->prefill_n; i++) b->registry.head->idle += !p->shadow[b->registry.prefill[i]].requests;
    for (uint32_t i = 0; i < h->single_n; i++) b->registry.head->idle += !p->shadow[b->registry.single[i]].requests;
    for (uint32_t i = 0; i < h->prefill_n; i++) b->registry.targets[b->registry.prefill[i]] = p->shadow[b->registry.prefill[i]];
    for (uint32_t i = 0; i < h->decode_n; i++) b->registry.targets[b->registry.decode[i]] = p->shadow[b->registry.decode[i]];
    for (uint32_t i = 0; i < h->single_n; i++) b->registry.targets[b->registry.single[i]] = p->shadow[b->registry.single[i]];
}

static void read_job(pdr_eye *e, pdr_job *j)
{
    memset(j, 0, sizeof *j);
    j->prompt_tokens = pdr_eye_number(e);
    j->output_tokens = pdr_eye_number(e);
    j->block_millitokens = pdr_eye_number(e);
    j->api = (uint32_t)pdr_eye_below(e, UINT32_MAX);
    j->samples = (uint32_t)pdr_eye_below(e, UINT32_MAX);
    j->batch = (uint32_t)pdr_eye_below(e, UINT32_MAX);
    j->excluded = (uint32_t)pdr_eye_below(e, 8);
    for (uint32_t i = 0; i < j->excluded; i++) j->exclude[i] = (uint32_t)pdr_eye_below(e, UINT32_MAX);
}

static void read_choice(const pdr_replay *p, pdr_eye *e, pdr_choice *c)
{
    memset(c, 0, sizeof *c);
    c->mode = (uint32_t)pdr_eye_below(e, PDR_MODE_SINGLE);
    c->prefill = (uint32_t)pdr_eye_below(e, p->r->config.max_targets) - 1u;
    c->decode = (uint32_t)pdr_eye_below(e, p->r->config.max_targets) - 1u;
    c->prefill_cost = pdr_eye_number(e);
    c->decode_cost = pdr_eye_number(e);
    c->transfer_us = pdr_eye_number(e);
    c->cost = pdr_eye_number(e) - 1u;
}

/* Runs of depths, into `depth` (NULL: only looks). */
static void read_depths(const pdr_replay *p, pdr_eye *e, uint16_t *depth)
{
    uint64_t at = 0, most = p->r->config.max_targets;
    if (depth) memset(depth, 0, most * sizeof *depth);
    for (;;) {
        uint64_t run = pdr_eye_below(e, most - at);
        if (!run) return;
        uint64_t d = pdr_eye_below(e, UINT16_MAX);
        for (uint64_t i = 0; depth && i < run; i++) depth[at + i] = (uint16_t)d;
        at += run;
    }
}

/* ---- the queue */

/* A slot for what is in *s; the caller's copy keeps what the queue's own functions overwrite. */
static int put_held(pdr_replay *p, pdr_books *b, const pdr_held *s, uint64_t ticket, const uint8_t *depths, const uint8_t *end)
{
    uint32_t     slot = pdr_hold_add(&b->hold, &s->job, NULL, 0);
    pdr_booking *k = slot == PDR_NONE ? NULL : pdr_booking_new(&b->ledger, p->lease);
    if (!k) return -1;
    pdr_held *to = &b->hold.slots[slot];
    to->enqueued_ns = k->enqueued_ns = s->enqueued_ns;
    to->deadline_ns = s->deadline_ns;
    to->size_us = s->size_us;
    to->priority = s->priority;
    to->sequence = s->sequence;
    to->single_only = s->single_only;
    to->tenant = s->tenant;
    k->prompt_tokens = s->job.prompt_tokens;
    k->held = slot;
    pdr_hold_commit(&b->hold, slot, pdr_booking_id(&b->ledger, k));
    p->waiting[slot] = (pdr_waiting){ticket, depths, end};
    return 0;
}

static void read_held(pdr_replay *p, pdr_eye *e, pdr_books *b, const uint8_t *depths, const uint8_t *end)
{
    pdr_held s;
    memset(&s, 0, sizeof s);
    uint64_t ticket = pdr_eye_number(e);
    read_job(e, &s.job);
    s.enqueued_ns = pdr_eye_number(e);
    s.deadline_ns = pdr_eye_number(e);
    s.size_us = pdr_eye_number(e);
    s.priority = pdr_eye_signed(e);
    s.sequence = pdr_eye_number(e);
    s.single_only = (uint32_t)pdr_eye_below(e, 1);
    s.tenant = pdr_eye_word(e);
    if (!e->bad && put_held(p, b, &s, ticket, depths, end)) e->bad = 1;
}

static uint32_t slot_of(const pdr_replay *p, const pdr_books *b, uint64_t ticket)
{
    for (uint32_t i = 0; i < b->hold.head->high; i++)
        if (b->hold.slots[i].booking && p->waiting[i].ticket == ticket) return i;
    return PDR_NONE;
}

static void drop_slot(pdr_books *b, uint32_t slot) { pdr_give_back(b, pdr_booking_at(&b->ledger, b->hold.slots[slot].booking)); }

static void empty_queue(pdr_replay *p, pdr_books *b)
{
    for (uint32_t i = 0; i < b->r->config.max_held; i++)
        if (b->hold.slots[i].booking) drop_slot(b, i);
    memset(p->waiting, 0, b->r->config.max_held * sizeof *p->waiting);
}

/* ---- frames */

static void read_list(const pdr_replay *p, pdr_eye *e, uint32_t *list, uint32_t *n)
{
    uint64_t at = 0, most = p->r->config.max_targets;
    *n = (uint32_t)pdr_eye_below(e, most);
    for (uint32_t i = 0; i < *n && !e->bad; i++) {
        at += (uint64_t)pdr_eye_signed(e);
        if (at >= most) e->bad = 1;
        list[i] = (uint32_t)at;
    }
    if (e->bad) *n = 0;
}

static void read_endpoints(pdr_eye *e, const pdr_books *b)
{
    pdr_registry_head *h = b->registry.head;
    for (uint32_t i = 0; i < h->high; i++) b->registry.endpoints[i].slot = PDR_SLOT_FREE;
    h->high = 0;
    for (;;) {
        uint64_t id = pdr_eye_below(e, h->max_endpoints);
        if (!id || e->bad) return;
        pdr_endpoint_rec *rec = &b->registry.endpoints[id - 1];
        memset(rec, 0, sizeof *rec);
        pdr_init_struct(&rec->e, sizeof rec->e);
        rec->e.role = (uint32_t)pdr_eye_below(e, PDR_ROLE_BOTH);
        rec->first_target = (uint32_t)pdr_eye_below(e, h->max_targets - 1);
        rec->targets = (uint32_t)pdr_eye_below(e, h->max_targets - rec->first_target);
        uint64_t flags = pdr_eye_below(e, 7);
        rec->down = flags & 1 ? 1 : 0;
        rec->draining = flags & 2 ? 1 : 0;
        rec->e.flags = flags & 4 ? PDR_ENDPOINT_ALONE : 0;
        pdr_eye_text(e, rec->e.name, sizeof rec->e.name);
        if (e->bad) return;
        rec->slot = PDR_SLOT_USED;
        if (id > h->high) h->high = (uint32_t)id;
    }
}

static void count_alone(const pdr_books *b)
{
    const pdr_registry *g = &b->registry;
    g->head->alone_n = 0;
    for (uint32_t id = 0; id < g->head->high; id++)
        if (g->endpoints[id].slot == PDR_SLOT_USED && !g->endpoints[id].down && !g->endpoints[id].draining) g->head->alone_n += g->endpoints[id].targets * pdr_serves_alone(&g->endpoints[id]);
}

static void read_key(pdr_replay *p, pdr_eye *e)
{
    pdr_books b;
    p->time_ns = pdr_eye_number(e);
    open_books(p, &b);
    empty_queue(p, &b);
    read_globals(p, e);
    if (!globals_possible(p)) e->bad = 1;
    p->synced = 1;
    read_list(p, e, b.registry.prefill, &b.registry.head->prefill_n);
    read_list(p, e, b.registry.decode, &b.registry.head->decode_n);
    read_list(p, e, b.registry.single, &b.registry.head->single_n);
    memset(b.registry.listed, 0, p->r->config.max_targets * sizeof *b.registry.listed);
    for (uint32_t i = 0; i < b.registry.head->prefill_n; i++) b.registry.listed[b.registry.prefill[i]] = 1;
    for (uint32_t i = 0; i < b.registry.head->single_n; i++) b.registry.listed[b.registry.single[i]] = 1;
    read_endpoints(e, &b);
    count_alone(&b);
    for (uint32_t i = 0; i < p->r->config.max_targets; i++) p->shadow[i].host = p->shadow[i].rack = p->shadow[i].zone = PDR_NO_GROUP;
    read_targets(p, e);
    restore(p, &b);
    for (uint64_t n = pdr_eye_below(e, p->r->config.max_held); n && !e->bad; n--) read_held(p, e, &b, NULL, NULL);
    pdr_hold_rebuild(&b.hold); /* they were written by slot, and stand in line by arrival */
    for (uint32_t i = 0; i < PDR_ACCOUNTS; i++) b.hold.head->account[i].served_us = b.hold.head->account[i].served_ns = 0;
    for (uint64_t i; (i = pdr_eye_below(e, PDR_ACCOUNTS)) && !e->bad;) {
        b.hold.head->account[i - 1].served_us = pdr_eye_number(e);
        b.hold.head->account[i - 1].served_ns = pdr_eye_number(e);
    }
    p->synced = !e->bad;
}

static pdr_turn *new_turn(pdr_turns *t)
{
    if (t->n == t->cap) {
        size_t    cap = t->cap ? t->cap * 2 : 32;
        pdr_turn *grown = realloc(t->v, cap * sizeof *grown);
        if (!grown) return NULL;
        t->v = grown;
        t->cap = cap;
    }
    memset(&t->v[t->n], 0, sizeof *t->v);
    return &t->v[t->n++];
}

void pdr_replay_match(pdr_books *b, uint32_t slot)
{
    pdr_replay    *p = b->replay;
    pdr_waiting   *w = &p->waiting[slot];
    for (size_t i = 0; i < p->recorded.n; i++) {
        const pdr_turn *t = &p->recorded.v[i];
        if (t->ticket != w->ticket) continue;
        w->depths = t->depths;
        w->end = t->end;
        break;
    }
    if (!w->depths) {
        memset(b->depth, 0, b->r->config.max_targets * sizeof *b->depth);
        return;
    }
    pdr_eye e = {w->depths, w->end, 0};
    read_depths(p, &e, b->depth);
}

void pdr_replay_served(pdr_books *b, uint32_t slot, uint64_t booking, const pdr_choice *choice, uint32_t result)
{
    pdr_replay *p = b->replay;
    pdr_turn   *t = new_turn(&p->replayed);
    (void)booking;
    if (!t) {
        p->starved = 1;
        return;
    }
    t->ticket = p->waiting[slot].ticket;
    t->depths = p->waiting[slot].depths;
    t->end = p->waiting[slot].end;
    t->choice = *choice;
    t->result = result;
    t->held = b->hold.slots[slot];
}

static pdr_turn *turn_of(pdr_turns *t, uint64_t ticket)
{
    for (size_t i = t->n; i-- > 0;) /* the last turn of a request is the one that counts */
        if (t->v[i].ticket == ticket) return &t->v[i];
    return NULL;
}

/* Runs the pass again, then puts the queue into the state that the recorded one left. */
static void read_pass(pdr_replay *p, pdr_eye *e)
{
    pdr_account accounts[PDR_ACCOUNTS];
    pdr_books   b;
    int         again = 0;
    p->recorded.n = p->replayed.n = p->told_recorded = p->told_replayed = 0;
    while (e->p < e->end && !e->bad) {
        pdr_turn *t = new_turn(&p->recorded);
        if (!t) {
            p->starved = 1;
            return;
        }
        t->ticket = pdr_eye_number(e);
        t->depths = e->p;
        read_depths(p, e, NULL);
        t->end = e->p;
        read_choice(p, e, &t->choice);
        t->result = (uint32_t)pdr_eye_below(e, PDR_SERVED_REFUSED);
        t->work_us = pdr_eye_number(e);
    }
    if (e->bad || !p->synced) { /* after a loss, until the next key frame */
        p->recorded.n = 0;
        return;
    }
    open_books(p, &b);
    restore(p, &b);
    memcpy(accounts, b.hold.head->account, sizeof accounts);
    pdr_release_held(&b);
    for (uint32_t i = 0; i < PDR_ACCOUNTS; i++) { /* who is held is the queue's to say */
        b.hold.head->account[i].served_us = accounts[i].served_us;
        b.hold.head->account[i].served_ns = accounts[i].served_ns;
    }
    for (uint32_t i = b.ledger.leases[p->lease].first, next; i != PDR_NONE; i = next) { /* released and refused ones: their place is free again */
        next = b.ledger.bookings[i].next;
        if (b.ledger.bookings[i].state != PDR_BOOKING_HELD) pdr_give_back(&b, &b.ledger.bookings[i]);
    }
    restore(p, &b);
    for (size_t i = 0; i < p->replayed.n; i++) {
        const pdr_turn *t = &p->replayed.v[i], *r = turn_of(&p->recorded, t->ticket);
        if (t->result != PDR_SERVED_WAITS && (!r || r->result == PDR_SERVED_WAITS)) (void)put_held(p, &b, &t->held, t->ticket, t->depths, t->end), again = 1;
    }
    if (again) pdr_hold_rebuild(&b.hold);
    for (size_t i = 0; i < p->recorded.n; i++) {
        const pdr_turn *replayed = turn_of(&p->replayed, p->recorded.v[i].ticket);
        uint32_t slot = p->recorded.v[i].result == PDR_SERVED_WAITS ? PDR_NONE : slot_of(p, &b, p->recorded.v[i].ticket);
        uint64_t tenant = 0;
        int      old = 0;
        if (slot != PDR_NONE) {
            tenant = b.hold.slots[slot].tenant;
            old = pdr_held_is_old(&b.hold.slots[slot], b.now_ns);
            drop_slot(&b, slot);
        } else if (replayed) {
            tenant = replayed->held.tenant;
            old = pdr_held_is_old(&replayed->held, b.now_ns);
        }
        if (p->recorded.v[i].result == PDR_SERVED_RELEASED) pdr_hold_charge(&b.hold, tenant, p->recorded.v[i].work_us, b.now_ns, old);
    }
}

static pdr_replay_choice shown(const pdr_replay *p, const pdr_choice *c, int outcome)
{
    pdr_replay_choice s = {.outcome = outcome, .mode = c->mode, .prefill = PDR_NONE, .decode = PDR_NONE, .prefill_rank = PDR_NONE, .decode_rank = PDR_NONE,
                           .prefill_us = c->prefill_cost, .decode_us = c->decode_cost, .transfer_us = c->transfer_us, .cost_us = c->cost};
    if (c->prefill != PDR_NONE) {
        s.prefill = p->shadow[c->prefill].endpoint;
        s.prefill_rank = p->shadow[c->prefill].rank;
    }
    if (c->decode != PDR_NONE) {
        s.decode = p->shadow[c->decode].endpoint;
        s.decode_rank = p->shadow[c->decode].rank;
    }
    return s;
}

static int same_choice(const pdr_choice *a, const pdr_choice *b)
{
    return a->mode == b->mode && a->prefill == b->prefill && a->decode == b->decode && a->prefill_cost == b->prefill_cost &&
           a->decode_cost == b->decode_cost && a->transfer_us == b->transfer_us && a->cost == b->cost;
}

static int outcome_of_turn(const pdr_turn *t)
{
    return !t || t->result == PDR_SERVED_WAITS ? PDR_HELD : t->result == PDR_SERVED_RELEASED ? PDR_SEND : PDR_E_NO_PAIR;
}

static void show_turn(const pdr_replay *p, const pdr_turn *recorded, const pdr_turn *replayed, int same, pdr_replay_step *s)
{
    static const pdr_choice none = {.prefill = PDR_NONE, .decode = PDR_NONE};
    const pdr_turn         *t = recorded ? recorded : replayed;
    s->kind = outcome_of_turn(t) == PDR_E_NO_PAIR ? PDR_REPLAY_REFUSED : PDR_REPLAY_RELEASED;
    s->ticket = t->ticket;
    s->checked = 1;
    s->same = same ? 1 : 0;
    s->recorded = shown(p, recorded ? &recorded->choice : &none, outcome_of_turn(recorded));
    s->replayed = shown(p, replayed ? &replayed->choice : &none, outcome_of_turn(replayed));
}

/* The next thing to tell of the pass under way: what went, and whatever went otherwise. 0: nothing more. */
static int next_turn(pdr_replay *p, pdr_replay_step *s)
{
    while (p->told_recorded < p->recorded.n) {
        size_t    i = p->told_recorded++;
        pdr_turn *r = &p->recorded.v[i], *t = i < p->replayed.n && p->replayed.v[i].ticket == r->ticket ? &p->replayed.v[i] : NULL;
        int       same = t && t->result == r->result && same_choice(&t->choice, &r->choice);
        if (!t) t = turn_of(&p->replayed, r->ticket); /* looked at, but not in this turn */
        if (t) t->told = 1;
        if (same && r->result == PDR_SERVED_WAITS) continue;
        if (r->result == PDR_SERVED_WAITS && outcome_of_turn(t) == PDR_HELD && !same && p->r->config.policy != p->config.policy) continue; /* waits here and there */
        show_turn(p, r, t, same, s);
        return 1;
    }
    while (p->told_replayed < p->replayed.n) {
        pdr_turn *t = &p->replayed.v[p->told_replayed++];
        if (t->told || t->result == PDR_SERVED_WAITS) continue;
        show_turn(p, NULL, t, 0, s);
        return 1;
    }
    return 0;
}

static void read_decide(pdr_replay *p, pdr_eye *e, pdr_replay_step *s)
{
    pdr_books  b;
    pdr_choice was;
    pdr_ask   *a = &p->ask;
    uint64_t   flags = pdr_eye_below(e, 7), retry_ms;
    pdr_terms  terms = {0, 0, 0, 0};
    memset(a, 0, sizeof *a);
    a->single_only = flags & PDR_RECORD_ASK_SINGLE_ONLY ? 1 : 0;
    a->any_single = flags & PDR_RECORD_ASK_ANY_SINGLE ? 1 : 0;
    a->request.flags = flags & PDR_RECORD_ASK_NO_HOLD ? PDR_REQUEST_NO_HOLD : 0;
    read_job(e, &a->job);
    p->depths = e->p;
    read_depths(p, e, NULL);
    p->depths_end = e->p;
    terms.deadline_ns = pdr_eye_number(e);
    terms.priority = a->priority = pdr_eye_signed(e);
    terms.tenant = a->request.tenant = pdr_eye_word(e);
    p->hashes_n = (size_t)pdr_eye_below(e, p->config.max_blocks);
    p->hashes = e->p;
    if ((size_t)(e->end - e->p) < p->hashes_n * HASH) e->bad = 1;
    else e->p += p->hashes_n * HASH;
    read_choice(p, e, &was);
    int64_t outcome = pdr_eye_signed(e);
    s->kind = PDR_REPLAY_ROUTED;
    s->ticket = pdr_eye_number(e);
    p->work_us = pdr_eye_number(e);
    s->prompt_tokens = a->job.prompt_tokens;
    s->output_tokens = a->job.output_tokens;
    s->block_millitokens = a->job.block_millitokens;
    s->blocks = (uint32_t)p->hashes_n;
    s->tenant = a->request.tenant;
    s->priority = a->priority;
    if (e->bad) return;
    open_books(p, &b);
    if (p->synced) restore(p, &b);
    s->recorded = shown(p, &was, (int)outcome);
    if (p->synced && (outcome > 0 || outcome == PDR_E_NO_PAIR || outcome == PDR_E_QUEUE_FULL)) {
        pdr_eye depths = {p->depths, p->depths_end, 0};
        read_depths(p, &depths, b.depth);
        int now = pdr_decide_matched(&b, a, &p->choice, &retry_ms, NULL);
        terms.size_us = pdr_least_work(&b, &a->job);
        if (!now) now = !pdr_must_wait(&b, a, &p->choice) ? PDR_SEND : pdr_admit(&b, &terms, &retry_ms) ? PDR_E_QUEUE_FULL : PDR_HELD;
        s->checked = 1;
        s->replayed = shown(p, &p->choice, now);
        s->same = now == outcome && same_choice(&was, &p->choice);
        p->have_ask = 1;
    }
    p->charging = outcome == PDR_SEND && p->synced;
    p->joins = *e; /* not before the step was told: it is explained as it was decided */
    p->joining = outcome == PDR_HELD && p->synced;
}

static void read_remove(pdr_replay *p, pdr_eye *e, pdr_replay_step *s)
{
    pdr_books b;
    open_books(p, &b);
    s->kind = PDR_REPLAY_GONE;
    s->ticket = pdr_eye_number(e);
    s->recorded.outcome = (int32_t)pdr_eye_signed(e);
    uint32_t slot = slot_of(p, &b, s->ticket);
    if (slot != PDR_NONE) drop_slot(&b, slot);
}

static void read_ended(pdr_eye *e, pdr_replay_step *s)
{
    s->ticket = pdr_eye_number(e);
    uint64_t what = pdr_eye_number(e), x = pdr_eye_number(e), y = pdr_eye_number(e), z = pdr_eye_number(e);
    s->kind = what == PDR_ENDED_USAGE ? PDR_REPLAY_USAGE : PDR_REPLAY_PREFILLED;
    if (what == PDR_ENDED_PREFILL) s->prefill_us = x;
    if (what != PDR_ENDED_USAGE) return;
    s->prompt_tokens = x;
    s->output_tokens = y;
    s->cached_tokens = z;
}

/* One frame; 1 if there is a step to tell. */
static int read_frame(pdr_replay *p, pdr_eye *e, pdr_replay_step *s)
{
    uint64_t kind = pdr_eye_byte(e);
    p->have_ask = 0;
    p->hashes = NULL;
    if (kind == PDR_FRAME_KEY) {
        read_key(p, e);
        return 0;
    }
    p->time_ns += (uint64_t)pdr_eye_signed(e);
    if (kind == PDR_FRAME_DECIDE || kind == PDR_FRAME_PASS) {
        read_globals(p, e);
        if (p->synced && !globals_possible(p)) e->bad = 1;
        read_targets(p, e);
    }
    if (e->bad) return 0;
    if (kind == PDR_FRAME_PASS) {
        read_pass(p, e);
        return 0;
    }
    if (kind == PDR_FRAME_DECIDE) read_decide(p, e, s);
    else if (kind == PDR_FRAME_REMOVE) read_remove(p, e, s);
    else if (kind == PDR_FRAME_ENDED) read_ended(e, s);
    else e->bad = 1;
    return !e->bad;
}

static int next_piece(pdr_replay *p)
{
    pdr_piece piece;
    int       code = pdr_record_file_next(&p->file, &piece);
    if (code) return code;
    p->frames = (pdr_eye){piece.p, piece.p + piece.n, 0};
    if (piece.flags & PDR_PIECE_LOST) {
        p->synced = 0;
        p->lost = 1;
    }
    return PDR_OK;
}

static int advance(pdr_replay *p, pdr_replay_step *s, pdr_error *err)
{
    if (p->joining || p->charging) {
        pdr_books b;
        open_books(p, &b);
        if (p->charging) pdr_hold_charge(&b.hold, p->ask.request.tenant, p->work_us, b.now_ns, 0);
        p->charging = 0;
    }
    if (p->joining) {
        pdr_books b;
        open_books(p, &b);
        p->joining = 0;
        read_held(p, &p->joins, &b, p->depths, p->depths_end);
        if (p->joins.bad) return corrupt(err, (size_t)(p->joins.p - p->file.p), "a held request makes no sense");
    }
    for (;;) {
        if (next_turn(p, s)) return PDR_OK;
        p->recorded.n = p->replayed.n = p->told_recorded = p->told_replayed = 0;
        if (p->lost) {
            p->lost = 0;
            s->kind = PDR_REPLAY_LOST;
            return PDR_OK;
        }
        if (p->frames.p >= p->frames.end) {
            int code = next_piece(p);
            if (code) return code;
            continue;
        }
        size_t   at = (size_t)(p->frames.p - p->file.p);
        uint32_t n = pdr_eye_u32(&p->frames);
        if (p->frames.bad || n > (size_t)(p->frames.end - p->frames.p)) return corrupt(err, at, "a record is longer than its piece");
        pdr_eye e = {p->frames.p, p->frames.p + n, 0};
        p->frames.p += n;
        int tell = read_frame(p, &e, s);
        if (p->starved) return pdr_fail(err, PDR_E_SYSTEM, "out of memory");
        if (e.bad) return corrupt(err, at, "a record makes no sense");
        if (tell) return PDR_OK;
    }
}

int pdr_replay_next(pdr_replay *p, uint32_t policy, pdr_replay_step *out, pdr_error *err)
{
    pdr_replay_step s;
    if (!p || !pdr_struct_ok(out, sizeof(uint32_t))) return pdr_fail(err, PDR_E_INVALID, "replay or step is missing");
    p->r->config.policy = policy == PDR_NONE ? p->config.policy : policy;
    if (!pdr_policy_of(p->r->config.policy)) return pdr_fail(err, PDR_E_INVALID, "policy %u is unknown", policy);
    pdr_init_struct(&s, sizeof s);
    int code = advance(p, &s, err);
    if (code) return code == PDR_E_NOT_FOUND ? pdr_fail(err, code, "no more steps") : code;
    s.number = ++p->number;
    s.time_ns = p->time_ns;
    return pdr_struct_out(out, &s, sizeof s, err);
}

int pdr_replay_hashes(const pdr_replay *p, uint64_t *hashes, size_t *n)
{
    if (!p || !n || (!hashes && *n)) return PDR_E_INVALID;
    if (!p->hashes) return PDR_E_NOT_FOUND;
    pdr_eye e = {p->hashes, p->hashes + p->hashes_n * HASH, 0};
    size_t  cap = *n;
    *n = p->hashes_n;
    for (size_t i = 0; i < cap && i < p->hashes_n; i++) hashes[i] = pdr_eye_word(&e);
    return cap < p->hashes_n ? PDR_E_NOSPACE : PDR_OK;
}

int pdr_replay_explain(pdr_replay *p, pdr_candidate *out, size_t *n)
{
    pdr_books b;
    if (!p || !n || (!out && *n)) return PDR_E_INVALID;
    if (!p->have_ask) return PDR_E_NOT_FOUND;
    size_t  cap = *n;
    pdr_eye e = {p->depths, p->depths_end, 0};
    open_books(p, &b);
    read_depths(p, &e, b.depth);
    pdr_list_candidates(&b, &p->ask, &p->choice, out, n);
    return *n > cap ? PDR_E_NOSPACE : PDR_OK;
}

int pdr_replay_endpoint(const pdr_replay *p, uint32_t id, pdr_endpoint *out)
{
    pdr_books b;
    if (!p) return PDR_E_INVALID;
    pdr_books_open(&b, p->r);
    if (id >= b.registry.head->high || b.registry.endpoints[id].slot != PDR_SLOT_USED) return PDR_E_NOT_FOUND;
    return pdr_struct_out(out, &b.registry.endpoints[id].e, sizeof b.registry.endpoints[id].e, NULL);
}
