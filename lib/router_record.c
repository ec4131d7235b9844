/* Public entry points of recording, and the frames that decisions leave on the tape. */
#include "router_record.h"

#include "record_file.h"

#include <string.h>

#define LISTEN_NS 10000000000ull /* nobody has read for so long: recording stops */

/* ---- numbers */

static uint64_t *const_of(pdr_rates *k, size_t i) { return (uint64_t *)(void *)k + i; }
enum { RATES = sizeof(pdr_rates) / sizeof(uint64_t), OWN = 9, CROWD = OWN + RATES };
_Static_assert((int)CROWD < (int)PDR_GLOBALS, "room for all numbers");

void pdr_globals_get(const pdr_books *b, uint64_t v[PDR_GLOBALS])
{
    memset(v, 0, PDR_GLOBALS * sizeof *v);
    v[0] = b->ledger.head->in_prefill;
    v[1] = b->hold.head->held;
    v[2] = b->registry.head->pick;
    v[3] = b->r->random;
    v[4] = b->registry.head->hosts;
    v[5] = b->registry.head->racks;
    v[6] = b->registry.head->zones;
    v[7] = b->registry.head->foreseen;
    v[8] = b->registry.head->through_ns;
    for (size_t i = 0; i < RATES; i++) v[OWN + i] = *const_of(&b->r->rates, i);
    v[CROWD] = b->registry.head->crowd_q10;
}

void pdr_globals_set(pdr_books *b, const uint64_t v[PDR_GLOBALS])
{
    b->ledger.head->in_prefill = (uint32_t)v[0]; /* held: the queue itself says it */
    b->registry.head->pick = (uint32_t)v[2];
    b->r->random = v[3];
    b->registry.head->hosts = (uint32_t)v[4];
    b->registry.head->racks = (uint32_t)v[5];
    b->registry.head->zones = (uint32_t)v[6];
    b->registry.head->foreseen = v[7] != 0;
    b->registry.head->through_ns = v[8];
    for (size_t i = 0; i < RATES; i++) *const_of(&b->r->rates, i) = v[OWN + i];
    b->registry.head->crowd_q10 = v[CROWD] < PDR_CROWD_MOST ? (uint32_t)v[CROWD] : PDR_CROWD_MOST; /* older recordings: 0 */
}

#define F(name) {(uint16_t)offsetof(pdr_target, name), (uint16_t)sizeof(((pdr_target *)0)->name)}
static const struct { uint16_t offset, size; } fields[] = {
    F(work_us), F(since_ns), F(tokens), F(foreign_us), F(foreign_ns), F(open_until_ns), F(requests), F(slowness_q10), F(endpoint), F(last_pick),
    F(d_tokens), F(kv_capacity), F(d_foreign_tokens), F(d_requests), F(d_foreign_requests), F(max_running), F(rank), F(host), F(rack), F(zone),
    F(d_last_pick), F(dp_size), F(guarded)};
#undef F

size_t pdr_target_fields(void) { return sizeof fields / sizeof *fields; }

uint64_t pdr_target_field(const pdr_target *t, size_t i)
{
    uint64_t wide;
    uint32_t narrow;
    if (fields[i].size == sizeof wide) {
        memcpy(&wide, (const char *)t + fields[i].offset, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const char *)t + fields[i].offset, sizeof narrow);
    return narrow;
}

void pdr_target_field_set(pdr_target *t, size_t i, uint64_t v)
{
    uint32_t narrow = (uint32_t)v;
    if (fields[i].size == sizeof v)
        memcpy((char *)t + fields[i].offset, &v, sizeof v);
    else
        memcpy((char *)t + fields[i].offset, &narrow, sizeof narrow);
}

/* ---- what frames begin with */

static void put_globals(pdr_books *b, pdr_pen *pen, int all)
{
    uint64_t v[PDR_GLOBALS], changed = 0;
    pdr_globals_get(b, v);
    for (int i = 0; i < PDR_GLOBALS; i++)
        if (all || v[i] != b->shadow->globals[i]) changed |= 1ull << i;
    pdr_pen_number(pen, changed);
    for (int i = 0; i < PDR_GLOBALS; i++)
        if (changed >> i & 1) pdr_pen_number(pen, v[i]);
    memcpy(b->shadow->globals, v, sizeof v);
}

static void put_target(pdr_books *b, pdr_pen *pen, uint32_t target, int all)
{
    const pdr_target *t = &b->registry.targets[target];
    pdr_target       *before = &b->shadow->targets[target];
    uint64_t          changed = 0;
    for (size_t i = 0; i < pdr_target_fields(); i++)
        if (all || pdr_target_field(t, i) != pdr_target_field(before, i)) changed |= 1ull << i;
    pdr_pen_number(pen, target + 1u);
    pdr_pen_number(pen, changed);
    for (size_t i = 0; i < pdr_target_fields(); i++)
        if (changed >> i & 1) pdr_pen_number(pen, pdr_target_field(t, i));
    *before = *t;
}

static void put_targets(pdr_books *b, pdr_pen *pen, const uint32_t *list, uint32_t n, int all)
{
    for (uint32_t i = 0; i < n; i++)
        if (all || memcmp(&b->registry.targets[list[i]], &b->shadow->targets[list[i]], sizeof(pdr_target))) put_target(b, pen, list[i], all);
}

static void put_candidates(pdr_books *b, pdr_pen *pen, int all)
{
    const pdr_registry_head *h = b->registry.head;
    put_targets(b, pen, b->registry.prefill, h->prefill_n, all);
    put_targets(b, pen, b->registry.decode, h->decode_n, all);
    put_targets(b, pen, b->registry.single, h->single_n, all);
    pdr_pen_byte(pen, 0);
}

static void put_list(pdr_pen *pen, const uint32_t *list, uint32_t n)
{
    uint32_t before = 0;
    pdr_pen_number(pen, n);
    for (uint32_t i = 0; i < n; before = list[i++]) pdr_pen_signed(pen, (int64_t)list[i] - before);
}

static void put_job(pdr_pen *pen, const pdr_job *j)
{
    pdr_pen_number(pen, j->prompt_tokens);
    pdr_pen_number(pen, j->output_tokens);
    pdr_pen_number(pen, j->block_millitokens);
    pdr_pen_number(pen, j->api);
    pdr_pen_number(pen, j->samples);
    pdr_pen_number(pen, j->batch);
    pdr_pen_number(pen, j->excluded);
    for (uint32_t i = 0; i < j->excluded; i++) pdr_pen_number(pen, j->exclude[i]);
}

static void put_held(pdr_pen *pen, const pdr_held *s, uint64_t ticket)
{
    pdr_pen_number(pen, ticket);
    put_job(pen, &s->job);
    pdr_pen_number(pen, s->enqueued_ns);
    pdr_pen_number(pen, s->deadline_ns);
    pdr_pen_number(pen, s->size_us);
    pdr_pen_signed(pen, s->priority);
    pdr_pen_number(pen, s->sequence);
    pdr_pen_number(pen, s->single_only);
    pdr_pen_word(pen, s->tenant);
}

static void key(pdr_books *b)
{
    const pdr_registry_head *h = b->registry.head;
    pdr_pen                  pen;
    pdr_tape_begin(&pen, &b->tape);
    pdr_pen_byte(&pen, PDR_FRAME_KEY);
    pdr_pen_number(&pen, b->now_ns);
    b->tape.head->last_ns = b->now_ns;
    put_globals(b, &pen, 1);
    put_list(&pen, b->registry.prefill, h->prefill_n);
    put_list(&pen, b->registry.decode, h->decode_n);
    put_list(&pen, b->registry.single, h->single_n);
    for (uint32_t id = 0; id < h->high; id++) {
        const pdr_endpoint_rec *rec = &b->registry.endpoints[id];
        if (rec->slot != PDR_SLOT_USED) continue;
        pdr_pen_number(&pen, id + 1u);
        pdr_pen_number(&pen, rec->e.role);
        pdr_pen_number(&pen, rec->first_target);
        pdr_pen_number(&pen, rec->targets);
        pdr_pen_number(&pen, (rec->down ? 1u : 0u) | (rec->draining ? 2u : 0u) | pdr_serves_alone(rec) << 2);
        pdr_pen_text(&pen, rec->e.name);
    }
    pdr_pen_byte(&pen, 0);
    put_candidates(b, &pen, 1);
    pdr_pen_number(&pen, b->hold.head->held);
    for (uint32_t i = 0; i < b->hold.head->high; i++)
        if (b->hold.slots[i].booking) put_held(&pen, &b->hold.slots[i], b->hold.slots[i].booking);
    for (uint32_t i = 0; i < PDR_ACCOUNTS; i++) {
        if (!b->hold.head->account[i].served_us) continue;
        pdr_pen_number(&pen, i + 1u);
        pdr_pen_number(&pen, b->hold.head->account[i].served_us);
        pdr_pen_number(&pen, b->hold.head->account[i].served_ns);
    }
    pdr_pen_byte(&pen, 0);
    b->tape.head->wanted = pdr_tape_commit(&pen) ? 1 : 0;
    b->tape.head->epoch = h->relists;
}

/* Begins a frame; a key frame goes before it where one is due. */
static void begin(pdr_books *b, pdr_pen *pen, int kind)
{
    pdr_tape_head *h = b->tape.head;
    if (h->until_ns < b->now_ns) b->r->recording = 0; /* its reader is gone: this frame is the last */
    if (h->wanted || h->epoch != b->registry.head->relists) key(b);
    pdr_tape_begin(pen, &b->tape);
    pdr_pen_byte(pen, (uint8_t)kind);
    pdr_pen_signed(pen, (int64_t)(b->now_ns - h->last_ns));
    h->last_ns = b->now_ns;
}

static void begin_with_state(pdr_books *b, pdr_pen *pen, int kind)
{
    begin(b, pen, kind);
    put_globals(b, pen, 0);
    put_candidates(b, pen, 0);
}

/* Depths of all candidate targets as runs of equal ones, from target 0 on; the rest is 0. */
static void put_depths(const pdr_books *b, pdr_pen *pen)
{
    uint32_t high = b->r->config.max_targets;
    while (high && !b->depth[high - 1]) high--;
    for (uint32_t i = 0; i < high;) {
        uint32_t run = 1;
        while (i + run < high && b->depth[i + run] == b->depth[i]) run++;
        pdr_pen_number(pen, run);
        pdr_pen_number(pen, b->depth[i]);
        i += run;
    }
    pdr_pen_byte(pen, 0);
}

static void put_choice(pdr_pen *pen, const pdr_choice *c)
{
    pdr_pen_number(pen, c->mode);
    pdr_pen_number(pen, c->prefill + 1u); /* PDR_NONE: 0 */
    pdr_pen_number(pen, c->decode + 1u);
    pdr_pen_number(pen, c->prefill_cost);
    pdr_pen_number(pen, c->decode_cost);
    pdr_pen_number(pen, c->transfer_us);
    pdr_pen_number(pen, c->cost + 1u);
}

/* ---- hooks */

void pdr_record_ask(pdr_books *b, const pdr_ask *a, pdr_pen *pen)
{
    begin_with_state(b, pen, PDR_FRAME_DECIDE);
    pdr_pen_number(pen, (a->single_only ? PDR_RECORD_ASK_SINGLE_ONLY : 0u) | (a->any_single ? PDR_RECORD_ASK_ANY_SINGLE : 0u) |
                            (a->request.flags & PDR_REQUEST_NO_HOLD ? PDR_RECORD_ASK_NO_HOLD : 0u));
    put_job(pen, &a->job);
    put_depths(b, pen);
    pdr_terms terms = pdr_terms_of(b, a);
    pdr_pen_number(pen, terms.deadline_ns);
    pdr_pen_signed(pen, terms.priority);
    pdr_pen_word(pen, a->request.tenant);
    pdr_pen_number(pen, a->n);
    for (size_t i = 0; i < a->n; i++) pdr_pen_word(pen, a->hashes[i]);
}

void pdr_record_decided(pdr_books *b, pdr_pen *pen, const pdr_choice *choice, int outcome, const pdr_booking *k)
{
    put_choice(pen, choice);
    pdr_pen_signed(pen, outcome);
    pdr_pen_number(pen, k ? pdr_booking_id(&b->ledger, k) : 0);
    pdr_pen_number(pen, outcome == PDR_SEND ? k->work_us : 0);
    if (outcome == PDR_HELD) put_held(pen, &b->hold.slots[k->held], pdr_booking_id(&b->ledger, k));
    pdr_tape_commit(pen);
}

void pdr_record_pass(pdr_books *b, pdr_pen *pen) { begin_with_state(b, pen, PDR_FRAME_PASS); }

void pdr_record_served(pdr_books *b, pdr_pen *pen, uint64_t ticket, const pdr_choice *choice, uint32_t result)
{
    const pdr_booking *k = result == PDR_SERVED_RELEASED ? pdr_booking_at(&b->ledger, ticket) : NULL;
    pdr_pen_number(pen, ticket);
    put_depths(b, pen);
    put_choice(pen, choice);
    pdr_pen_number(pen, result);
    pdr_pen_number(pen, k ? k->work_us : 0);
}

void pdr_record_passed(pdr_books *b, pdr_pen *pen)
{
    (void)b;
    pdr_tape_commit(pen);
}

void pdr_record_removed(pdr_books *b, uint64_t ticket, int code)
{
    pdr_pen pen;
    if (!pdr_recording(b)) return;
    begin(b, &pen, PDR_FRAME_REMOVE);
    pdr_pen_number(&pen, ticket);
    pdr_pen_signed(&pen, code);
    pdr_tape_commit(&pen);
}

void pdr_record_ended(pdr_books *b, uint64_t ticket, uint32_t what, uint64_t x, uint64_t y, uint64_t z)
{
    pdr_pen pen;
    if (!pdr_recording(b)) return;
    begin(b, &pen, PDR_FRAME_ENDED);
    pdr_pen_number(&pen, ticket);
    pdr_pen_number(&pen, what);
    pdr_pen_number(&pen, x);
    pdr_pen_number(&pen, y);
    pdr_pen_number(&pen, z);
    pdr_tape_commit(&pen);
}

/* ---- the file */

int pdr_record_header(const pdr_router *r, void *buf, size_t cap, size_t *need)
{
    pdr_config c;
    pdr_init_struct(&c, sizeof c);
    if (!need || (!buf && cap) || pdr_router_config(r, &c)) return PDR_E_INVALID;
    *need = pdr_record_head(buf, cap, &c);
    return *need > cap ? PDR_E_NOSPACE : PDR_OK;
}

int pdr_record_trailer(void *buf, size_t cap, size_t *need)
{
    if (!need || (!buf && cap)) return PDR_E_INVALID;
    *need = PDR_PIECE_HEAD;
    if (cap < PDR_PIECE_HEAD) return PDR_E_NOSPACE;
    pdr_piece_head(buf, PDR_PIECE_END, buf, 0);
    return PDR_OK;
}

int pdr_record_read(pdr_router *r, uint64_t *cursor, uint64_t now_ns, void *buf, size_t cap, size_t *n, uint64_t *lost)
{
    pdr_books b;
    int       gap = 0, code;
    if (!cursor || !n || !buf || cap < PDR_PIECE_HEAD) return PDR_E_INVALID;
    *n = 0;
    if ((code = pdr_books_lock(&b, r, now_ns))) return code;
    pdr_tape_head *h = b.tape.head;
    size_t         got = 0;
    if (!*cursor) { /* a reader begins: its first frame is a key frame. Positions in its hands are one more than on the tape */
        *cursor = h->written + 1;
        h->wanted = 1;
    }
    if (!b.r->recording) h->wanted = 1; /* it had stopped: what the next frame would build upon was not written */
    h->until_ns = b.now_ns + LISTEN_NS;
    b.r->recording = 1;
    uint64_t at = *cursor - 1, before = at;
    gap = pdr_tape_read(&b.tape, &at, (uint8_t *)buf + PDR_PIECE_HEAD, cap - PDR_PIECE_HEAD, &got);
    if (gap) {
        if (lost) *lost += at - got - before;
        h->wanted = 1;
    }
    if (!got && at < h->written) code = PDR_E_NOSPACE; /* the next frame alone is longer */
    *cursor = at + 1;
    code = pdr_books_unlock(&b, code, NULL);
    if (code || !got) return code;
    pdr_piece_head(buf, gap ? PDR_PIECE_LOST : 0, (const uint8_t *)buf + PDR_PIECE_HEAD, got);
    *n = got + PDR_PIECE_HEAD;
    return PDR_OK;
}
