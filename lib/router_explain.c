/* Public entry points for people who ask why: explain (a dry decision with every candidate) and the decision log. */
#include "alone.h"
#include "router_replay.h"

#include <string.h>

typedef struct pdr_listing { pdr_candidate *out; size_t cap, n; } pdr_listing;

static void list_candidate(const pdr_books *b, pdr_listing *l, uint32_t target, uint32_t role, const pdr_ask *a, const pdr_choice *choice)
{
    pdr_candidate c;
    uint64_t      queue = pdr_mean_queue_q10(b);
    int           pair = choice->decode != PDR_NONE && choice->mode == PDR_MODE_PD;
    if (l->n++ >= l->cap) return;
    pdr_candidate_of(b, &c, target, role, &a->job, queue);
    if (role == PDR_ROLE_DECODE) {
        c.chosen = choice->decode == target && !choice->alone;
        if (pair) c.transfer_us = pdr_tier_us(&b->r->rates, pdr_tier(&b->registry.targets[choice->prefill], &b->registry.targets[target]), a->job.prompt_tokens);
        c.cost_us += c.transfer_us;
    } else {
        c.chosen = pair && choice->prefill == target;
        if (!c.barred && b->r->config.hold != PDR_HOLD_OFF && !pdr_gate_open(b, target)) c.barred = PDR_BARRED_BUSY;
    }
    l->out[l->n - 1] = c;
}

/* All candidates for one leg, also those that are down or draining. Who serves alone is listed once, for decode. */
static void list_role(const pdr_books *b, pdr_listing *l, uint32_t role, const pdr_ask *a, const pdr_choice *choice)
{
    for (uint32_t id = 0; id < b->registry.head->high; id++) {
        const pdr_endpoint_rec *rec = &b->registry.endpoints[id];
        if (rec->slot != PDR_SLOT_USED || (rec->e.role == PDR_ROLE_BOTH ? PDR_ROLE_DECODE : rec->e.role) != role) continue;
        for (uint32_t i = 0; i < rec->targets; i++) {
            list_candidate(b, l, rec->first_target + i, role, a, choice);
            if ((rec->down || rec->draining) && l->n <= l->cap) l->out[l->n - 1].barred = rec->down ? PDR_BARRED_DOWN : PDR_BARRED_DRAINING;
        }
    }
}

/* Decode servers that may do it alone, as that. */
static void list_alone(const pdr_books *b, pdr_listing *l, const pdr_ask *a, const pdr_choice *choice)
{
    pdr_view v = pdr_view_of(b, &a->job);
    if (a->any_single || !pdr_policy_of(b->r->config.policy)->topology) return;
    for (uint32_t i = 0; i < b->registry.head->decode_n; i++) {
        uint32_t          target = b->registry.decode[i];
        const pdr_target *t = &b->registry.targets[target];
        if (!pdr_serves_alone(&b->registry.endpoints[t->endpoint]) || l->n++ >= l->cap) continue;
        pdr_alone_terms x = pdr_alone_terms_of(&v, target);
        l->out[l->n - 1] = (pdr_candidate){.endpoint = t->endpoint, .rank = t->rank, .role = PDR_ROLE_BOTH, .barred = pdr_barred(t, &a->job, b->now_ns),
                                           .chosen = choice->alone && choice->decode == target, .matched_tokens = x.prefill.matched, .uncached_tokens = x.prefill.uncached,
                                           .wait_us = x.prefill.wait + x.decode, .work_us = x.prefill.work, .price_us = x.prefill.price, .cost_us = x.cost};
    }
}

void pdr_list_candidates(const pdr_books *b, const pdr_ask *a, const pdr_choice *choice, pdr_candidate *out, size_t *n)
{
    pdr_listing l = {out, *n, 0};
    list_role(b, &l, PDR_ROLE_PREFILL, a, choice);
    list_role(b, &l, PDR_ROLE_DECODE, a, choice);
    if (b->registry.head->alone_n) list_alone(b, &l, a, choice);
    *n = l.n;
}

int pdr_explain(pdr_router *r, const pdr_prompt *prompt, const uint64_t *hashes, size_t hashes_n, const pdr_request *request,
                pdr_decision *decision, pdr_candidate *out, size_t *n, pdr_error *err)
{
    pdr_books    b;
    pdr_ask      ask;
    pdr_choice   choice;
    pdr_decision d;
    uint64_t     retry_ms = 0;
    if (request && !pdr_struct_ok(request, offsetof(pdr_request, deadline_ns))) return pdr_fail(err, PDR_E_VERSION, "the request's struct_size is not set");
    if (!request || !n || (*n && !out)) return pdr_fail(err, PDR_E_INVALID, "request or room for candidates is missing");
    size_t cap = *n;
    int    code = pdr_books_lock(&b, r, request->now_ns);
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    memset(&d, 0, sizeof d);
    code = pdr_ask_make(&b, prompt, hashes, hashes_n, request, &ask, err);
    if (code) *n = 0;
    if (!code) {
        ask.request.flags |= PDR_REQUEST_DRY;
        code = pdr_decide(&b, &ask, &choice, &retry_ms, err);
        pdr_list_candidates(&b, &ask, &choice, out, n);
        if (!code) pdr_decision_dry(&b, &ask, &choice, &d);
        d.retry_after_ms = retry_ms;
    }
    code = pdr_books_unlock(&b, code, err);
    if (decision) pdr_struct_out(decision, &d, sizeof d, NULL);
    if (!code && *n > cap) return pdr_fail(err, PDR_E_NOSPACE, "%zu candidates, room for %zu", *n, cap);
    return code;
}

static void stand(pdr_books *b, const pdr_held *s, pdr_place *out)
{
    const pdr_registry_head *h = b->registry.head;
    uint64_t                 servers = (uint64_t)h->prefill_n + h->single_n;
    pdr_hold_pass(&b->hold, b->now_ns); /* the shares of tenants as they are now */
    pdr_standing x = pdr_hold_standing(&b->hold, s, pdr_ageing_us(b), b->now_ns);
    out->outcome = PDR_HELD;
    out->place = x.place;
    out->ahead_us = x.ahead_us / (servers ? servers : 1);
    out->size_us = s->size_us;
    out->waited_us = pdr_elapsed_us(b->now_ns, s->enqueued_ns);
    out->left_us = pdr_elapsed_us(s->deadline_ns, b->now_ns);
    out->priority = s->priority;
}

int pdr_ticket_place(pdr_router *r, uint64_t ticket, uint64_t now_ns, pdr_place *out, pdr_error *err)
{
    pdr_books b;
    pdr_place p = {.struct_size = sizeof p};
    if (!pdr_struct_ok(out, sizeof(uint32_t))) return pdr_fail(err, PDR_E_INVALID, "the place's struct_size is not set");
    int code = pdr_books_lock(&b, r, now_ns);
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    const pdr_booking *k = pdr_booking_at(&b.ledger, ticket);
    p.held = b.hold.head->held;
    if (k && k->state == PDR_BOOKING_HELD)
        stand(&b, &b.hold.slots[k->held], &p);
    else
        code = pdr_fail(err, PDR_E_NOT_FOUND, k ? "the ticket is held no more" : "no such ticket");
    code = pdr_books_unlock(&b, code, err);
    return code ? code : pdr_struct_out(out, &p, sizeof p, err);
}

/* A request that comes now, b->depth is filled. */
static void arrive(pdr_books *b, const pdr_ask *a, const pdr_choice *choice, pdr_place *out)
{
    if (!pdr_must_wait(b, a, choice)) {
        out->outcome = PDR_SEND;
        return;
    }
    pdr_terms t = pdr_terms_of(b, a);
    pdr_held  s = {.enqueued_ns = b->now_ns, .deadline_ns = t.deadline_ns, .size_us = t.size_us, .priority = t.priority, .sequence = UINT64_MAX,
                   .tenant = a->request.tenant};
    stand(b, &s, out);
    if (pdr_admit(b, &t, &out->retry_after_ms)) out->outcome = PDR_E_QUEUE_FULL;
}

int pdr_explain_place(pdr_router *r, const pdr_prompt *prompt, const uint64_t *hashes, size_t hashes_n, const pdr_request *request, pdr_place *out,
                      pdr_error *err)
{
    pdr_books  b;
    pdr_ask    ask;
    pdr_choice choice;
    uint64_t   retry_ms = 0;
    pdr_place  p = {.struct_size = sizeof p};
    if (!pdr_struct_ok(request, offsetof(pdr_request, deadline_ns))) return pdr_fail(err, PDR_E_INVALID, "the request is missing or its struct_size is not set");
    if (!pdr_struct_ok(out, sizeof(uint32_t))) return pdr_fail(err, PDR_E_INVALID, "the place's struct_size is not set");
    int code = pdr_books_lock(&b, r, request->now_ns);
    if (code) return pdr_fail(err, code, "%s", pdr_strerror(code));
    p.held = b.hold.head->held;
    code = pdr_ask_make(&b, prompt, hashes, hashes_n, request, &ask, err);
    if (!code) {
        ask.request.flags &= ~(uint32_t)PDR_REQUEST_DRY;
        code = pdr_decide(&b, &ask, &choice, &retry_ms, err);
        if (!code) arrive(&b, &ask, &choice, &p);
    }
    code = pdr_books_unlock(&b, code, err);
    return code ? code : pdr_struct_out(out, &p, sizeof p, err);
}
