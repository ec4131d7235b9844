/*
 * The decision log: what is written with each decision, and the record that a reader gets of it.
 *
 * Of each candidate only what was looked at is written (32 bytes); work, price and cost are computed when somebody reads, by the same arithmetic from the rates of that moment, which
 * the entry keeps. A decision logs eight candidates at most, some 40 instructions each.
 */
#include "router_decide.h"

#include <string.h>

enum { LOGGED_OTHERS = 3 }; /* per side, beside the chosen one; pdr_explain() has them all */
enum { SEEN_PREFILL = 0, SEEN_END = 1 /* a prefill server of which the board's end of work is kept instead of the wait */, SEEN_DECODE = 2 };
_Static_assert(2 + 2 * LOGGED_OTHERS <= PDR_LOG_SEEN && PDR_LOG_SEEN <= PDR_LOG_CANDIDATES, "an entry has room for them, and a record too");

static inline void see(const pdr_books *b, pdr_log_seen *s, uint32_t target, uint32_t kind, uint64_t wait, const pdr_job *job)
{
    const pdr_target *t = &b->registry.targets[target];
    uint32_t          matched = 0, barred = PDR_BARRED_NO;
    if (kind != SEEN_DECODE && __builtin_expect(b->depth[target] != 0, 0)) matched = (uint32_t)pdr_matched_tokens(job, b->depth[target]);
    if (__builtin_expect(t->guarded | job->excluded, 0)) barred = pdr_barred(t, job, b->now_ns);
    s->wait = wait;
    s->endpoint = t->endpoint;
    s->rank = t->rank;
    s->slowness_q10 = t->slowness_q10;
    s->matched_tokens = matched;
    s->kind = kind | barred << 16;
}

/* The first of a list, but for the chosen one: positions below 64. `board`: their waits are taken from there. */
static inline pdr_log_seen *see_prefills(const pdr_books *b, pdr_log_seen *s, uint32_t chosen, const pdr_job *job, int board)
{
    const pdr_registry *g = &b->registry;
    const uint64_t      odd = board ? g->board.odd[0] : UINT64_MAX;
    const pdr_log_seen *end = s + LOGGED_OTHERS;
    for (uint32_t i = 0, n = g->head->prefill_n; i < n && s < end; i++) {
        uint32_t w = g->prefill[i];
        if (w == chosen) continue;
        if (__builtin_expect(odd >> i & 1, 0))
            see(b, s++, w, SEEN_PREFILL, pdr_wait_us(&g->targets[w], b->now_ns), job);
        else
            see(b, s++, w, SEEN_END, g->board.end[i], job);
    }
    return s;
}

static inline pdr_log_seen *see_decodes(const pdr_books *b, pdr_log_seen *s, uint32_t chosen, const pdr_job *job, int board)
{
    const pdr_registry *g = &b->registry;
    const uint64_t      output = job->output_tokens, step_most = board ? PDR_BOARD_STEP_MOST : 0;
    const int64_t       need = (int64_t)(job->prompt_tokens + output);
    const pdr_log_seen *end = s + LOGGED_OTHERS;
    for (uint32_t i = 0, n = g->head->decode_n; i < n && s < end; i++) {
        uint32_t w = g->decode[i];
        if (w == chosen) continue;
        uint64_t step = g->board.step_us.v[i], us = output * step + g->board.over_us[i];
        if (__builtin_expect((step >= step_most) | (need > g->board.room[i]), 0)) us = pdr_decode_us(&g->targets[w], &b->r->rates, job);
        see(b, s++, w, SEEN_DECODE, us, job);
    }
    return s;
}

pdr_log_entry *pdr_log_begin(pdr_books *b, const pdr_job *job, const pdr_choice *choice)
{
    pdr_log_entry           *r = pdr_log_next(&b->log);
    const pdr_registry_head *h = b->registry.head;
    const pdr_rates         *k = &b->r->rates;
    r->candidates_total = h->prefill_n + h->decode_n + h->single_n;
    r->seen_n = 0;
    if (!choice || choice->mode != PDR_MODE_PD || choice->prefill == PDR_NONE) return r;
    r->tokens = job->prompt_tokens;
    r->transfer_us = choice->transfer_us;
    r->mean_queue_q10 = b->passing ? b->mean_q10 : pdr_mean_queue_q10(b); /* the same */
    r->base_us = k->base_us;
    r->linear_ns = k->linear_ns;
    r->quadratic_fs = k->quadratic_fs;
    r->reload_ns = k->reload_ns;
    pdr_log_seen *s = r->seen;
    const int     board = !b->replay && b->now_ns < PDR_BOARD_MOST_NS; /* a replay's targets come from a file, the board does not */
    see(b, s++, choice->prefill, SEEN_PREFILL, pdr_wait_us(&b->registry.targets[choice->prefill], b->now_ns), job);
    see(b, s++, choice->decode, SEEN_DECODE, pdr_decode_us(&b->registry.targets[choice->decode], k, job), job);
    s = see_prefills(b, s, choice->prefill, job, board);
    s = see_decodes(b, s, choice->decode, job, board);
    r->seen_n = (uint32_t)(s - r->seen);
    return r;
}

void pdr_log_end(pdr_books *b, pdr_log_entry *r, const pdr_booking *k, uint32_t outcome, uint32_t lease, uint32_t attempt)
{
    r->prefill = r->decode = r->prefill_rank = r->decode_rank = PDR_NONE;
    r->booking = r->room = r->prompt_tokens = r->matched_tokens = r->cost_us = r->held_us = 0;
    r->outcome = outcome;
    r->time_ns = b->now_ns;
    r->lease = lease;
    r->attempt = attempt;
    if (k) {
        r->booking = pdr_booking_id(&b->ledger, k);
        r->room = k->room;
        r->prompt_tokens = k->prompt_tokens;
        r->matched_tokens = k->matched_tokens;
        r->cost_us = k->cost_us;
        r->held_us = k->enqueued_ns && k->booked_ns ? pdr_elapsed_us(k->booked_ns, k->enqueued_ns) : 0;
        if (k->decode != PDR_NONE) {
            r->decode = b->registry.targets[k->decode].endpoint;
            r->decode_rank = b->registry.targets[k->decode].rank;
        }
        if (k->prefill != PDR_NONE && k->mode == PDR_MODE_PD) {
            r->prefill = b->registry.targets[k->prefill].endpoint;
            r->prefill_rank = b->registry.targets[k->prefill].rank;
        }
    }
    pdr_log_commit(&b->log, r);
}

/* ---- reading */

static void show(const pdr_log_entry *r, const pdr_log_seen *s, pdr_candidate *c)
{
    const uint32_t kind = s->kind & 0xFFFF;
    *c = (pdr_candidate){.endpoint = s->endpoint, .rank = s->rank, .role = kind == SEEN_DECODE ? PDR_ROLE_DECODE : PDR_ROLE_PREFILL, .barred = s->kind >> 16, .wait_us = s->wait};
    if (kind == SEEN_END) c->wait_us = pdr_board_wait_us(s->wait, pdr_board_time(r->time_ns, 0), PDR_OVERDUE_MAX_US);
    if (kind != SEEN_DECODE) {
        const pdr_rates k = {.base_us = r->base_us, .linear_ns = r->linear_ns, .quadratic_fs = r->quadratic_fs, .reload_ns = r->reload_ns};
        c->matched_tokens = s->matched_tokens;
        c->uncached_tokens = r->tokens - s->matched_tokens;
        uint64_t pool = pdr_prefill_us(&k, c->uncached_tokens, c->matched_tokens);
        c->work_us = pdr_scale_q10(pool, s->slowness_q10);
        c->price_us = pdr_price_at(pool * r->mean_queue_q10 >> 10, s->slowness_q10);
    }
    c->cost_us = c->wait_us + c->work_us + c->price_us;
}

static void record_of(const pdr_log_entry *r, pdr_log_record *out)
{
    const uint32_t n = r->seen_n < PDR_LOG_SEEN ? r->seen_n : PDR_LOG_SEEN;
    *out = (pdr_log_record){.struct_size = sizeof *out, .outcome = r->outcome, .number = r->number, .time_ns = r->time_ns, .booking = r->booking, .room = r->room,
                            .lease = r->lease, .attempt = r->attempt, .prefill = r->prefill, .decode = r->decode, .prefill_rank = r->prefill_rank,
                            .decode_rank = r->decode_rank, .prompt_tokens = r->prompt_tokens, .matched_tokens = r->matched_tokens, .cost_us = r->cost_us,
                            .held_us = r->held_us, .candidates = n, .candidates_total = r->candidates_total};
    for (uint32_t i = 0; i < n; i++) show(r, &r->seen[i], &out->candidate[i]);
    if (n < 2) return;
    out->candidate[0].chosen = out->candidate[1].chosen = 1;
    out->candidate[1].transfer_us = r->transfer_us;
    out->candidate[1].cost_us += r->transfer_us;
}

int pdr_log_read(pdr_router *r, uint64_t *cursor, pdr_log_record *out, uint64_t *lost)
{
    pdr_books      b;
    pdr_log_record record;
    if (!cursor || !pdr_struct_ok(out, sizeof(uint32_t))) return PDR_E_INVALID;
    int code = pdr_books_lock(&b, r, 0);
    if (code) return code;
    const pdr_log_entry *entry = pdr_log_after(&b.log, cursor, lost);
    if (entry) record_of(entry, &record);
    code = pdr_books_unlock(&b, entry ? PDR_OK : PDR_E_NOT_FOUND, NULL);
    return code ? code : pdr_struct_out(out, &record, sizeof record, NULL);
}
