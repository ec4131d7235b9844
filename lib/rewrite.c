#include "rewrite.h"

#include "engine.h"
#include "err.h"
#include "room.h"

#define HAS_ALL_OF(s, type, last) pdr_struct_ok((s), offsetof(type, last) + sizeof((s)->last))

uint64_t pdr_decision_room(const pdr_decision *d, uint32_t i)
{
    struct pdr_room_walk walk;
    uint64_t room = 0;
    if (!HAS_ALL_OF(d, pdr_decision, bootstrap_host) || (i && i >= d->batch)) return 0;
    if (!i) return d->room;
    pdr_room_walk_begin(&walk, d->room_key, d->room_counter, d->prefill_dp_size, d->prefill_rank);
    for (uint32_t k = 0; k <= i; k++) room = pdr_room_walk_next(&walk);
    return room;
}

/* Appends a leg's tail, padded to `pad_to`. */
static int put_tail(const pdr_decision *d, const pdr_prompt *p, int leg, size_t pad_to, struct pdr_text *t)
{
    const struct pdr_engine *engine;
    size_t begin = t->len, length;

    if (!HAS_ALL_OF(d, pdr_decision, bootstrap_host) || !HAS_ALL_OF(p, pdr_prompt, insert_at)) return PDR_E_VERSION;
    if (leg != PDR_LEG_PREFILL && leg != PDR_LEG_DECODE) return PDR_E_INVALID;
    if (d->mode == PDR_MODE_PD) {
        if (!(engine = pdr_engine_get(d->engine)) || d->batch > PDR_ROOM_MAX_DRAW) return PDR_E_INVALID;
        if (d->outcome == PDR_HELD || !d->room) return PDR_E_INVALID; /* held, dry, refused: with room 0 decode would wait for ever */
        if (p->members) PDR_TEXT_LITERAL(t, ",");
        engine->put_members(d, p, leg, t);
    } else if (d->mode != PDR_MODE_SINGLE) {
        return PDR_E_INVALID;
    }
    length = t->len - begin;
    if (pad_to) {
        if (length > pad_to) return PDR_E_NOSPACE; /* t->len says how wide it would have to be */
        pdr_text_fill(t, ' ', pad_to - length);
    }
    return PDR_OK;
}

int pdr_rewrite_tail(const pdr_decision *d, const pdr_prompt *p, int leg, size_t pad_to, char *buf, size_t cap,
                     size_t *need)
{
    struct pdr_text t = {buf, cap, 0};
    int rc;
    if (!buf && cap) return PDR_E_INVALID;
    rc = put_tail(d, p, leg, pad_to, &t);
    if (rc == PDR_OK) return pdr_text_end(&t, need);
    if (rc == PDR_E_NOSPACE && need) *need = t.len;
    return rc;
}

/* Whether the prompt can be that of a body of this length: what is used below. */
static int check_prompt(const pdr_prompt *p, size_t body_len)
{
    uint64_t at = 0;
    if (!HAS_ALL_OF(p, pdr_prompt, insert_at)) return PDR_E_VERSION;
    if (p->edits > PDR_MAX_EDITS || p->insert_at > body_len) return PDR_E_INVALID;
    for (uint32_t i = 0; i < p->edits; i++) {
        if (p->edit[i].begin < at || p->edit[i].end < p->edit[i].begin) return PDR_E_INVALID;
        at = p->edit[i].end;
    }
    return at <= p->insert_at ? PDR_OK : PDR_E_INVALID;
}

/* The pieces in order; at most PDR_MAX_SLICES. Empty ones are left out. */
static size_t cut(const pdr_prompt *p, size_t body_len, size_t tail_len, pdr_slice *out)
{
    size_t n = 0;
    uint64_t at = 0;
    for (uint32_t i = 0; i <= p->edits; i++) {
        uint64_t end = i < p->edits ? p->edit[i].begin : p->insert_at;
        if (end > at) out[n++] = (pdr_slice){.offset = at, .length = end - at};
        if (i < p->edits) at = p->edit[i].end;
    }
    if (tail_len) out[n++] = (pdr_slice){.source = 1, .length = tail_len};
    if (body_len > p->insert_at) out[n++] = (pdr_slice){.offset = p->insert_at, .length = body_len - p->insert_at};
    return n;
}

int pdr_rewrite_slices(const pdr_prompt *p, size_t body_len, size_t tail_len, pdr_slice *out, size_t *n)
{
    pdr_slice slice[PDR_MAX_SLICES];
    size_t count, room;
    int rc;
    if (!n || (!out && *n)) return PDR_E_INVALID;
    if ((rc = check_prompt(p, body_len)) != PDR_OK) return rc;
    room = *n;
    *n = count = cut(p, body_len, tail_len, slice);
    if (!out) return PDR_OK; /* just asked */
    if (count > room) return PDR_E_NOSPACE;
    memcpy(out, slice, count * sizeof *slice);
    return PDR_OK;
}

int pdr_rewrite(const pdr_decision *d, const pdr_prompt *p, int leg, const char *body, size_t len, char *out,
                size_t cap, size_t *need)
{
    struct pdr_text t = {out, cap, 0};
    uint64_t at = 0;
    int rc;

    if (!body || (!out && cap)) return PDR_E_INVALID;
    if ((rc = check_prompt(p, len)) != PDR_OK) return rc;
    for (uint32_t i = 0; i < p->edits; i++) {
        pdr_text_put(&t, body + at, p->edit[i].begin - at);
        at = p->edit[i].end;
    }
    pdr_text_put(&t, body + at, p->insert_at - at);
    if ((rc = put_tail(d, p, leg, 0, &t)) != PDR_OK) return rc;
    pdr_text_put(&t, body + p->insert_at, len - p->insert_at);
    return pdr_text_end(&t, need);
}

/*
 * Headers by which SGLang lets a caller set what the body would (entrypoints/request_headers.py: x-override-*, with an
 * environment switch; X-Data-Parallel-Rank always). '_' counts as '-': no client has a reason to send such a name, and
 * a server or proxy between that maps both to one (as CGI and WSGI do) would turn it into the real one.
 */
int pdr_header_owned(const char *name, size_t len)
{
    static const char override[] = "x-override-", rank[] = "x-data-parallel-rank";
    const char *want;
    size_t n;
    if (!name || len < 3 || (name[0] | 0x20) != 'x') return 0;
    if ((name[2] | 0x20) == 'o' && len >= sizeof override - 1) {
        want = override;
        n = sizeof override - 1;
    } else if (len == sizeof rank - 1) {
        want = rank;
        n = len;
    } else {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        if (c >= 'A' && c <= 'Z') c = (char)(c | 0x20);
        if (c == '_') c = '-';
        if (c != want[i]) return 0;
    }
    return 1;
}
