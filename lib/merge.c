/*
 * Whole answers. With prefill and decode apart, what a client asked about its prompt (input logprobs; with /v1/completions echo and logprobs) is
 * computed by prefill and is missing in decode's answer, whose arrays for it are empty or begin later (SGLang 0.5.23, seen). So the
 * elements are taken from prefill's answer, byte for byte, and put where decode's arrays begin:
 *  - /generate: meta_info.input_token_logprobs, input_top_logprobs, input_token_ids_logprobs; and the first of output_token_ids_logprobs, which is null at
 *    decode, since prefill computed that token. Batches element by element, streams by `index`, in every event (they are cumulative).
 *  - /v1/completions: the arrays in choices[].logprobs, by `index`, all of prefill's but the last element (its own token); in streams the first event of a choice.
 * Every other byte is decode's. What is not JSON of that form stays as it is. No memory of its own. Linear in both texts. In streams prefill's answer is searched once for
 * each index: where /generate's is, is kept for five indexes (a larger batch searches again), and /v1/completions takes nothing for a choice's later events.
 */
#include "err.h"

#include "pdroute/pdroute.h"

#include <string.h>

enum { DEPTH_MAX = 256, SOURCE_DECODE = 0, SOURCE_PREFILL = 1 };

typedef struct part { const char *p, *end; } part; /* p NULL: not there */

/* What is put together: slices of decode's text up to `done`, and what goes in between. */
typedef struct job {
    part       decode, prefill;
    const char *done;
    pdr_slice *out;
    char      *text;       /* or bytes instead of slices */
    size_t     cap, n;     /* of whichever */
    pdr_merge *state;
} job;

/* ---- reading: p is inside [p, end) or at its end; NULL: not JSON */

static const char *blank(const char *p, const char *end)
{
    while (p && p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) p++;
    return p;
}

/* Bytes that end a number or a word. */
static const unsigned char ends_word[256] = {[0] = 1,   [' '] = 1, ['\n'] = 1, ['\t'] = 1, ['\r'] = 1, [','] = 1,
                                             [':'] = 1, [']'] = 1, ['}'] = 1,  ['['] = 1,  ['{'] = 1,  ['"'] = 1};

static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end; p++) {
        if (*p == '"') return p + 1;
        if (*p == '\\') p++;
    }
    return NULL;
}

/* Behind the value at p. Brackets are counted, not matched by kind: this is for texts that engines print, and no wrong one leads out of the text. */
static const char *skip_value(const char *p, const char *end)
{
    int depth = 0;
    while (p && (p = blank(p, end)) < end) {
        if (*p == '"') {
            p = skip_string(p, end);
        } else if (*p == '{' || *p == '[') {
            if (++depth > DEPTH_MAX) return NULL;
            p++;
            continue;
        } else if (*p == '}' || *p == ']') {
            if (!depth) return NULL;
            depth--;
            p++;
        } else if (*p == ',' || *p == ':') {
            if (!depth) return NULL;
            p++;
            continue;
        } else {
            const char *from = p;
            while (p < end && !ends_word[(unsigned char)*p]) p++;
            if (p == from) return NULL; /* a NUL */
        }
        if (!depth) return p;
    }
    return NULL;
}

static part value_at(const char *p, const char *end)
{
    part v = {blank(p, end), NULL};
    v.end = v.p && v.p < end ? skip_value(v.p, end) : NULL;
    if (!v.end) v.p = NULL;
    return v;
}

static int begins(part v, char c) { return v.p && v.p < v.end && *v.p == c; }

/* Goes through the members of an object or the elements of an array: *p begins behind the bracket. 0: no more. */
static int next_item(const char **p, part in, int object, part *key, part *value)
{
    const char *end = in.end - 1; /* the closing bracket */
    *p = blank(*p, end);
    if (*p < end && **p == ',') *p = blank(*p + 1, end);
    if (*p >= end) return 0;
    if (object) {
        *key = value_at(*p, end);
        if (!begins(*key, '"')) return 0;
        *p = blank(key->end, end);
        if (*p >= end || **p != ':') return 0;
        ++*p;
    }
    *value = value_at(*p, end);
    if (!value->p) return 0;
    *p = value->end;
    return 1;
}

static int named(part key, const char *name)
{
    size_t n = strlen(name);
    return (size_t)(key.end - key.p) == n + 2 && !memcmp(key.p + 1, name, n);
}

static part member(part object, const char *name)
{
    part key, value;
    if (begins(object, '{'))
        for (const char *p = object.p + 1; next_item(&p, object, 1, &key, &value);)
            if (named(key, name)) return value;
    return (part){NULL, NULL};
}

static part element(part array, uint64_t i)
{
    part none, value;
    if (begins(array, '['))
        for (const char *p = array.p + 1; next_item(&p, array, 0, &none, &value);)
            if (!i--) return value;
    return (part){NULL, NULL};
}

static int is_null(part v) { return v.p && v.end - v.p == 4 && !memcmp(v.p, "null", 4); }

static uint64_t number(part v, uint64_t fallback)
{
    uint64_t n = 0;
    if (!v.p) return fallback;
    for (const char *p = v.p; p < v.end; p++) {
        if (*p < '0' || *p > '9' || n > 1u << 24) return fallback;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    return n;
}

/* The elements between the brackets, without the last `less` (0 or 1) of them. p NULL: none. */
static part elements(part array, int less)
{
    part none, value, all = {NULL, NULL}, but_last = {NULL, NULL};
    if (!begins(array, '[')) return all;
    for (const char *p = array.p + 1; next_item(&p, array, 0, &none, &value);) {
        but_last = all;
        all = (part){all.p ? all.p : value.p, value.end};
    }
    return less ? but_last : all;
}

/* ---- writing */

static void put(job *j, uint32_t source, const char *from, const char *to)
{
    size_t len = (size_t)(to - from);
    if (from >= to) return;
    if (j->text) {
        if (j->n + len <= j->cap) memcpy(j->text + j->n, from, len);
        j->n += len;
        return;
    }
    if (j->n < j->cap)
        j->out[j->n] = (pdr_slice){.source = source, .offset = (uint64_t)(from - (source ? j->prefill.p : j->decode.p)), .length = len};
    j->n++;
}

/* Decode's text up to `at`, and from `then` on later. */
static void copy_to(job *j, const char *at, const char *then)
{
    put(j, SOURCE_DECODE, j->done, at);
    j->done = then;
}

/* Puts prefill's elements in front of those of decode's array. */
static void prepend(job *j, part array, part from)
{
    part first = element(array, 0);
    if (!from.p || !begins(array, '[')) return;
    copy_to(j, array.p + 1, array.p + 1);
    put(j, SOURCE_PREFILL, from.p, from.end);
    if (!first.p) return;
    const char *comma = memchr(j->prefill.p, ',', (size_t)(j->prefill.end - j->prefill.p)); /* a byte that is a comma */
    if (comma) put(j, SOURCE_PREFILL, comma, comma + 1);
}

static void replace(job *j, part value, part from)
{
    copy_to(j, value.p, value.end);
    put(j, SOURCE_PREFILL, from.p, from.end);
}

/* ---- the two forms of answers */

static int is_input_array(part key)
{
    return named(key, "input_token_logprobs") || named(key, "input_top_logprobs") || named(key, "input_token_ids_logprobs");
}

static part same_member(part object, part key)
{
    part k, value;
    if (begins(object, '{'))
        for (const char *p = object.p + 1; next_item(&p, object, 1, &k, &value);)
            if (k.end - k.p == key.end - key.p && !memcmp(k.p, key.p, (size_t)(k.end - k.p))) return value;
    return (part){NULL, NULL};
}

static void merge_generated(job *j, part decode, part prefill)
{
    part to = member(decode, "meta_info"), from = member(prefill, "meta_info"), key, value;
    if (!begins(to, '{') || !begins(from, '{')) return;
    for (const char *p = to.p + 1; next_item(&p, to, 1, &key, &value);) {
        if (is_input_array(key)) {
            part theirs = same_member(from, key);
            if (is_null(value) && begins(theirs, '['))
                replace(j, value, theirs);
            else if (!element(value, 0).p)
                prepend(j, value, elements(theirs, 0));
        } else if (named(key, "output_token_ids_logprobs")) {
            part first = element(value, 0), theirs = element(same_member(from, key), 0);
            if (is_null(first) && theirs.p && !is_null(theirs)) replace(j, first, theirs);
        }
    }
}

/* The element of an array of objects that has this index: by its member, or by its place. */
static part with_index(part array, uint64_t index)
{
    part     none, value;
    uint64_t place = 0;
    if (begins(array, '['))
        for (const char *p = array.p + 1; next_item(&p, array, 0, &none, &value); place++)
            if (number(member(value, "index"), place) == index) return value;
    return (part){NULL, NULL};
}

/* Of a stream's choice: whether nothing was put into it yet; `now`: from now on something was. */
static int first_time(pdr_merge *m, uint64_t index, int now)
{
    uint64_t bit = 1ull << (index & 63), *word = &m->seen[index >> 6 & 15];
    if (m->kind != PDR_RESPONSE_SSE) return 1;
    if (index >= 1024 || (*word & bit)) return 0;
    if (now) *word |= bit;
    return 1;
}

static void merge_choices(job *j, part decode, part prefill)
{
    part     choices = member(decode, "choices"), theirs = member(prefill, "choices"), none, choice, next, key, value;
    uint64_t place = 0;
    if (!begins(choices, '[')) return;
    const char *beside = begins(theirs, '[') ? theirs.p + 1 : NULL; /* at the same place, as a rule */
    for (const char *p = choices.p + 1; next_item(&p, choices, 0, &none, &choice); place++) {
        uint64_t index = number(member(choice, "index"), place);
        if (!beside || !next_item(&beside, theirs, 0, &none, &next)) beside = NULL;
        part same = beside && number(member(next, "index"), place) == index ? next : with_index(theirs, index);
        part to = member(choice, "logprobs"), from = member(same, "logprobs");
        if (!begins(to, '{') || !begins(from, '{') || !first_time(j->state, index, 1)) continue;
        for (const char *q = to.p + 1; next_item(&q, to, 1, &key, &value);)
            if (begins(value, '[')) prepend(j, value, elements(same_member(from, key), 1));
    }
}

static void merge_one(job *j, part decode, part prefill)
{
    if (j->state->api == PDR_API_COMPLETIONS)
        merge_choices(j, decode, prefill);
    else
        merge_generated(j, decode, prefill);
}

static void merge_json(job *j, part decode, part prefill)
{
    part none, value, theirs;
    if (!begins(decode, '[')) {
        merge_one(j, decode, prefill);
        return;
    }
    if (!begins(prefill, '[')) return;
    for (const char *p = decode.p + 1, *q = prefill.p + 1; next_item(&p, decode, 0, &none, &value) && next_item(&q, prefill, 0, &none, &theirs);)
        merge_one(j, value, theirs);
}

/* ---- streams */

/* The next data line of a text of events: its JSON. 0: no more. */
static int next_event(const char **p, const char *end, part *json)
{
    while (*p < end) {
        const char *line = *p, *eol = memchr(line, '\n', (size_t)(end - line));
        *p = eol ? eol + 1 : end;
        if (*p - line < 6 || memcmp(line, "data:", 5)) continue;
        *json = value_at(line + 5, eol ? eol : end);
        if (begins(*json, '{')) return 1;
    }
    return 0;
}

/* Whether a choice of decode's event lacks what prefill may have; `never`: prefill does not have it. */
static int lacks(pdr_merge *m, part decode, int never)
{
    part     choices = member(decode, "choices"), none, choice;
    uint64_t place = 0;
    int      some = 0;
    if (!begins(choices, '[')) return 0;
    for (const char *p = choices.p + 1; next_item(&p, choices, 0, &none, &choice); place++)
        if (begins(member(choice, "logprobs"), '{')) some |= first_time(m, number(member(choice, "index"), place), never);
    return some;
}

/* Of /v1/completions, prefill's event of the same choice: the first one with logprobs. */
static part completion_of(const job *j, part decode)
{
    part     json, choice;
    uint64_t index = number(member(element(member(decode, "choices"), 0), "index"), 0);
    for (const char *p = j->prefill.p; next_event(&p, j->prefill.end, &json);) {
        choice = element(member(json, "choices"), 0);
        if (number(member(choice, "index"), 0) == index && begins(member(choice, "logprobs"), '{')) return json;
    }
    return (part){NULL, NULL};
}

/* Of /generate, prefill's event of the same index: the last one with meta_info. Places are kept in `seen`: index + 1, begin, end; the last word is the length of the text. */
static part generated_of(const job *j, part decode)
{
    part      json, found = {NULL, NULL};
    uint64_t  index = number(member(decode, "index"), 0), *kept = &j->state->seen[index % 5 * 3], *length = &j->state->seen[15];
    uint64_t  now = (uint64_t)(j->prefill.end - j->prefill.p);
    if (*length == now && kept[0] == index + 1) return kept[2] ? (part){j->prefill.p + kept[1], j->prefill.p + kept[2]} : found;
    for (const char *p = j->prefill.p; next_event(&p, j->prefill.end, &json);)
        if (number(member(json, "index"), 0) == index && begins(member(json, "meta_info"), '{')) found = json;
    if (*length != now) memset(j->state->seen, 0, sizeof j->state->seen);
    *length = now;
    kept[0] = index + 1;
    kept[1] = found.p ? (uint64_t)(found.p - j->prefill.p) : 0;
    kept[2] = found.p ? (uint64_t)(found.end - j->prefill.p) : 0;
    return found;
}

static void merge_events(job *j)
{
    part json, theirs;
    for (const char *p = j->decode.p; next_event(&p, j->decode.end, &json);) {
        if (j->state->api == PDR_API_COMPLETIONS) {
            if (!lacks(j->state, json, 0)) continue;
            theirs = completion_of(j, json);
            if (!theirs.p) (void)lacks(j->state, json, 1);
        } else {
            theirs = generated_of(j, json);
        }
        if (theirs.p) merge_one(j, json, theirs);
    }
}

/* ---- entry points */

int pdr_merge_wanted(const pdr_decision *d, const pdr_prompt *p)
{
    if (!pdr_struct_ok(d, offsetof(pdr_decision, batch)) || !pdr_struct_ok(p, offsetof(pdr_prompt, blocks))) return 0;
    return d->mode == PDR_MODE_PD && (p->flags & PDR_PROMPT_RETURN_LOGPROB) && (p->api == PDR_API_GENERATE || p->api == PDR_API_COMPLETIONS);
}

void pdr_merge_init(pdr_merge *m, uint32_t api, uint32_t kind)
{
    pdr_init_struct(m, sizeof *m);
    m->api = api;
    m->kind = kind;
}

static int run(job *j, pdr_merge *m, const char *prefill, size_t prefill_len, const char *decode, size_t decode_len)
{
    pdr_merge after = *m;
    j->decode = (part){decode, decode + decode_len};
    j->prefill = (part){prefill, prefill + prefill_len};
    j->done = decode;
    j->state = &after;
    if (decode_len && prefill_len && m->kind == PDR_RESPONSE_SSE) {
        merge_events(j);
    } else if (decode_len && prefill_len) {
        part d = value_at(j->decode.p, j->decode.end), p = value_at(j->prefill.p, j->prefill.end);
        if (d.p && p.p) merge_json(j, d, p);
    }
    put(j, SOURCE_DECODE, j->done, j->decode.end);
    if (j->n > j->cap) return PDR_E_NOSPACE;
    *m = after;
    return PDR_OK;
}

int pdr_merge_slices(pdr_merge *m, const char *prefill, size_t prefill_len, const char *decode, size_t decode_len, pdr_slice *out, size_t *n)
{
    if (!pdr_struct_ok(m, sizeof *m) || !n || (*n && !out) || (prefill_len && !prefill) || (decode_len && !decode)) return PDR_E_INVALID;
    job j = {.out = out, .cap = *n};
    int code = run(&j, m, prefill, prefill_len, decode, decode_len);
    *n = j.n;
    return code;
}

int pdr_merge_text(pdr_merge *m, const char *prefill, size_t prefill_len, const char *decode, size_t decode_len, char *buf, size_t cap, size_t *need)
{
    char none;
    if (!pdr_struct_ok(m, sizeof *m) || !need || (cap && !buf) || (prefill_len && !prefill) || (decode_len && !decode)) return PDR_E_INVALID;
    job j = {.text = cap ? buf : &none, .cap = cap};
    int code = run(&j, m, prefill, prefill_len, decode, decode_len);
    *need = j.n;
    return code;
}
