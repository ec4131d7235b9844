/*
 * The first walk, and both in order (prompt.h says what they do). Included once per instruction set by prompt_<isa>.c;
 * all static but for the two functions that PATH() names.
 */
#include "prompt_take.h"

static unsigned name_of_member(text t)
{
    char buffer[NAME_BUFFER];
    const char *k;
    size_t n;
    if (!t.odd) return body_key((const char *)t.p, (size_t)(t.end - t.p));
    k = plain_text(t, buffer, &n);
    return body_key(k, n);
}

/*
 * The whole body. Owned members become edits: behind a member that stays, from the comma in front to the value's end;
 * before the first one that stays, from the name to behind the comma that follows.
 */
static int walk_body(walk *w)
{
    scanner *s = &w->s;
    pdr_prompt *out = w->out;
    const uint8_t *p, *comma = NULL, *last, *first_too_many = NULL;
    uint32_t edits = 0;
    if (!scan_begin(s) || *(p = skip_space(s, s->body)) != '{') return PDR_E_PARSE;
    out->object.begin = (uint64_t)(p - s->body);
    last = ++p;
    p = skip_space(s, p);
    if (*p == '}') goto closed;
    for (;;) {
        const uint8_t *name = p, *value;
        unsigned key;
        text t;
        int tidy;
        if (*p != '"' || !(p = string_end(s, p + 1, &t.odd))) return PDR_E_PARSE;
        t.p = name + 1;
        t.end = p;
        key = name_of_member(t);
        p = skip_space(s, p + 1);
        if (*p != ':') return PDR_E_PARSE;
        value = p = skip_space(s, p + 1);
        s->untidy = 0;
        if (!(last = p = skip_value(s, p, 1))) return PDR_E_PARSE;
        tidy = !s->untidy;
        p = skip_space(s, p);
        if ((*p != ',' && *p != '}')) return PDR_E_PARSE;
        if (key == PDR_IN_OWNED) {
            if (edits < PDR_MAX_EDITS) {
                const uint8_t *begin = out->members ? comma : name, *end = !out->members && *p == ',' ? p + 1 : last;
                out->edit[edits] = (pdr_span){(uint64_t)(begin - s->body), (uint64_t)(end - s->body)};
            } else if (edits == PDR_MAX_EDITS) {
                first_too_many = name;
            }
            edits++;
        } else {
            out->members++;
            if (key < PDR_IN_COUNT) {
                w->seen |= 1ull << key;
                w->tidies = (w->tidies & ~(1ull << key)) | (uint64_t)tidy << key;
                w->at[key] = value;
                w->end[key] = last;
            }
        }
        if (*p == '}') break;
        comma = p;
        p = skip_space(s, p + 1);
    }
closed:
    out->object.end = (uint64_t)(p + 1 - s->body);
    out->insert_at = (uint64_t)(last - s->body);
    if (p != s->last) return PDR_E_PARSE;
    if (edits > PDR_MAX_EDITS)
        return refuse(w, PDR_E_TOO_LARGE, first_too_many, "",
                      "the body has too many members that only the router may set");
    out->edits = edits;
    return PDR_OK;
}

static int text_is(text t, const char *name, size_t len)
{
    uint8_t decoded[8];
    while (t.p < t.end) {
        size_t n = 1;
        decoded[0] = *t.p;
        if (*t.p == '\\') n = decode_escape(&t.p, decoded);
        else t.p++;
        if (n > len || memcmp(decoded, name, n)) return 0;
        name += n;
        len -= n;
    }
    return !len;
}

int PATH(pdr_member)(const char *body, size_t len, const char *name, size_t name_len, pdr_span *value)
{
    scanner s;
    const uint8_t *p, *begin = NULL, *end = NULL;
    scanner_init(&s, (const uint8_t *)body, len, PDR_JSON_DEPTH);
    if (!scan_begin(&s) || *(p = skip_space(&s, s.body)) != '{') return PDR_E_PARSE;
    p = skip_space(&s, p + 1);
    while (*p != '}') {
        const uint8_t *at;
        text t;
        if (*p != '"') return PDR_E_PARSE;
        t.p = p + 1;
        if (!(p = string_end(&s, t.p, &t.odd))) return PDR_E_PARSE;
        t.end = p;
        p = skip_space(&s, p + 1);
        if (*p != ':') return PDR_E_PARSE;
        at = skip_space(&s, p + 1);
        if (!(p = skip_value(&s, at, 1))) return PDR_E_PARSE;
        if (text_is(t, name, name_len)) begin = at, end = p;
        p = skip_space(&s, p);
        if (*p == '}') break;
        if (*p != ',' || *(p = skip_space(&s, p + 1)) != '"') return PDR_E_PARSE;
    }
    if (p != s.last) return PDR_E_PARSE;
    if (!begin) return PDR_E_NOT_FOUND;
    *value = (pdr_span){(uint64_t)(begin - s.body), (uint64_t)(end - s.body)};
    return PDR_OK;
}

static int walk_all(walk *w)
{
    int code;
    w->seen = w->tidies = 0;
    w->tidy = 0;
    if ((code = walk_body(w))) return code;
    w->s.checked = 1;
    chain_begin(&w->c, 0, PDR_KIND_JSON, w->job->limits.block_bytes, NULL, 0);
    if ((code = take_small_members(w))) return code;
    switch (w->out->api) {
    case PDR_API_GENERATE:
        code = take_generate(w);
        break;
    case PDR_API_CHAT:
        code = take_chat(w);
        break;
    case PDR_API_COMPLETIONS:
        code = take_completions(w);
        break;
    default:
        take_other(w);
        break;
    }
    w->out->blocks = w->c.n;
    w->out->prompt_bytes = w->c.bytes;
    return code;
}

int PATH(pdr_scan)(pdr_scan_job *job)
{
    walk w;
    w.job = job;
    w.out = job->out;
    scanner_init(&w.s, job->body, job->len, job->limits.max_depth);
    return walk_all(&w);
}

uint32_t PATH(pdr_tokens)(const uint32_t *ids, size_t count, uint64_t salt, uint32_t block_bytes, uint64_t *hashes,
                          uint32_t cap)
{
    chain c;
    chain_begin(&c, salt, PDR_KIND_TOKENS, block_bytes, hashes, cap);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    chain_feed(&c, (const uint8_t *)ids, count * sizeof *ids);
#else
    for (size_t i = 0; i < count; i++) {
        uint32_t v = __builtin_bswap32(ids[i]);
        chain_feed(&c, (const uint8_t *)&v, sizeof v);
    }
#endif
    return c.n;
}
