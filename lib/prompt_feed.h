/*
 * The second walk's lower half: reads small things out of a body that is known to be valid, and feeds texts, JSON,
 * token ids and messages into the chain as prompt.h describes. Included once per instruction set, after json_scan.h;
 * all static.
 */
#ifndef PDR_PROMPT_FEED_H
#define PDR_PROMPT_FEED_H

#include "chain.h"
#include "json_scan.h"
#include "prompt_keys.h"

typedef struct walk {
    scanner s;
    chain c;
    pdr_scan_job *job;
    pdr_prompt *out;
    uint64_t seen;                   /* bit per PDR_IN_* */
    uint64_t tidies;                 /* the same: it is canonical as it stands (scanner.untidy) */
    int tidy;                        /* so is what is being fed */
    const uint8_t *at[PDR_IN_COUNT]; /* its value, if seen */
    const uint8_t *end[PDR_IN_COUNT];
} walk;

/* A string: between its quotes. */
typedef struct text {
    const uint8_t *p, *end;
    int odd; /* json_scan.h */
} text;

static int refuse(walk *w, int code, const uint8_t *where, const char *subject, const char *sentence)
{
    w->job->code = code;
    w->job->offset = (uint64_t)(where - w->s.body);
    w->job->subject = subject;
    w->job->sentence = sentence;
    return code;
}

/* ---------------------------------------------------------------------------------------------------------- small
 * readers */

static inline int has(const walk *w, unsigned key)
{
    return (int)(w->seen >> key & 1);
}
/* There and not null. */
static inline int given(const walk *w, unsigned key)
{
    return has(w, key) && *w->at[key] != 'n';
}

static inline text string_at(walk *w, const uint8_t *p)
{
    text t;
    t.p = p + 1;
    t.end = known_string_end(&w->s, p + 1, &t.odd);
    return t;
}

#define NAME_BUFFER (KEY_MAX + 1 + 4)
/*
 * A string as plain characters, if it could be a name that matters; of other strings enough to be told from those.
 * (Strings with escapes that are not odd are taken as they stand: no name that matters has a backslash.)
 */
static inline const char *plain_text(text t, char buffer[NAME_BUFFER], size_t *n)
{
    if (!t.odd) {
        *n = (size_t)(t.end - t.p);
        return (const char *)t.p;
    }
    for (*n = 0; t.p < t.end && *n <= KEY_MAX;)
        if (*t.p == '\\')
            *n += decode_escape(&t.p, (uint8_t *)buffer + *n);
        else
            buffer[(*n)++] = (char)*t.p++;
    return buffer;
}

/* The first thing inside the container at p, or NULL; the thing behind the one that ends at p, or NULL. */
static inline const uint8_t *first_item(const uint8_t *p)
{
    p = known_space(p + 1);
    return *p == '}' || *p == ']' ? NULL : p;
}
static inline const uint8_t *next_item(const uint8_t *p)
{
    p = known_space(p);
    return *p == ',' ? known_space(p + 1) : NULL;
}
/* The value behind the member's name that ends at p (the closing quote). */
static inline const uint8_t *value_after(const uint8_t *p)
{
    return known_space(known_space(p + 1) + 1);
}

/* The last member of that name in the object at p, or NULL. */
static const uint8_t *find_member(walk *w, const uint8_t *p, const char *name)
{
    const uint8_t *found = NULL;
    size_t len = strlen(name), n;
    char buffer[NAME_BUFFER];
    if (*p != '{') return NULL;
    for (p = first_item(p); p; p = next_item(p)) {
        text t = string_at(w, p);
        const char *k = plain_text(t, buffer, &n);
        p = value_after(t.end);
        if (n == len && !memcmp(k, name, len)) found = p;
        p = known_value_end(&w->s, p);
    }
    return found;
}

/* A number without sign, fraction or exponent, held at 2^63 - 1; 0 if the value at p is none. */
static int read_count(const uint8_t *p, uint64_t *value)
{
    uint64_t v = 0;
    if ((unsigned)*p - '0' > 9) return 0;
    for (; (unsigned)*p - '0' <= 9; p++) v = v > INT64_MAX / 10 - 1 ? INT64_MAX : v * 10 + (*p - '0');
    if (*p == '.' || (*p | 0x20) == 'e') return 0;
    *value = v;
    return 1;
}

/* What pydantic takes for true. */
static int reads_true(walk *w, const uint8_t *p)
{
    char buffer[NAME_BUFFER], low[4];
    const char *k;
    size_t n;
    uint64_t v;
    if (*p == 't') return 1;
    if (read_count(p, &v)) return v == 1;
    if (*p == '1') return p[1] == '.' && p[2] == '0' && (p[3] == ',' || p[3] == '}' || pdr_json_space(p[3]));
    if (*p != '"') return 0;
    k = plain_text(string_at(w, p), buffer, &n);
    if (n < 1 || n > 4) return 0;
    for (size_t i = 0; i < n; i++) low[i] = (char)(k[i] | ((unsigned)k[i] - 'A' < 26 ? 0x20 : 0));
    return IS_TEXT(low, n, "true") || IS_TEXT(low, n, "1") || IS_TEXT(low, n, "on") || IS_TEXT(low, n, "yes") ||
           IS_TEXT(low, n, "t") || IS_TEXT(low, n, "y");
}

/* ----------------------------------------------------------------------------------------------------------------
 * feeding */

/* XXH3 of a string's text, unescaped. */
static uint64_t text_digest(text t, uint64_t seed)
{
    uint8_t piece[512];
    XXH3_state_t state;
    if (!t.odd && !memchr(t.p, '\\', (size_t)(t.end - t.p)))
        return XXH3_64bits_withSeed(t.p, (size_t)(t.end - t.p), seed);
    pdr_hash_begin(&state, seed);
    while (t.p < t.end) {
        size_t n = 0;
        while (t.p < t.end && n <= sizeof piece - 4)
            if (*t.p == '\\')
                n += decode_escape(&t.p, piece + n);
            else
                piece[n++] = *t.p++;
        XXH3_64bits_update(&state, piece, n);
    }
    return XXH3_64bits_digest(&state);
}

static __attribute__((noinline)) void feed_odd(walk *w, text t)
{
    uint8_t piece[CHAIN_STAGE + CANONICAL_SLACK];
    while (t.p < t.end) {
        const size_t n = canonical_string(&w->s, &t.p, t.end, piece, CHAIN_STAGE);
        chain_feed(&w->c, piece, n);
    }
}

static inline void feed_text(walk *w, text t)
{
    if (t.odd)
        feed_odd(w, t);
    else
        chain_feed(&w->c, t.p, (size_t)(t.end - t.p));
}

static void feed_digest(walk *w, text t)
{
    const uint64_t h = text_digest(t, 0);
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++) bytes[i] = (uint8_t)(h >> 8 * i);
    chain_mark(&w->c, 'H');
    chain_feed(&w->c, bytes, sizeof bytes);
}

/*
 * The value at p as canonical JSON; returns its end. media: strings by their digests. Members named cache_control of an
 * object at depth cache_depth (1: the value itself) are left out, each with one comma. What is in the body as it must
 * be goes in runs as long as they come.
 */
static const uint8_t *feed_json(walk *w, const uint8_t *p, int media, unsigned cache_depth)
{
    const uint8_t *run = p; /* from here on nothing is fed yet */
    unsigned depth = 0;
    int object = 0, comma = 0, members = 0; /* at cache_depth: it is an object; a comma is due; members were fed */
    for (;;) {
        if (*p == '"') {
            const text t = string_at(w, p);
            const int name = depth && *known_space(t.end + 1) == ':';
            if (name && depth == cache_depth) {
                char buffer[NAME_BUFFER];
                size_t n;
                const char *k = plain_text(t, buffer, &n);
                if (IS_TEXT(k, n, "cache_control")) {
                    chain_feed(&w->c, run, (size_t)(p - run));
                    run = p = known_value_end(&w->s, value_after(t.end));
                    continue;
                }
                if (comma && members) chain_feed(&w->c, (const uint8_t *)",", 1);
                comma = 0;
                members = 1;
            }
            if (media && !name) {
                chain_feed(&w->c, run, (size_t)(p - run));
                feed_digest(w, t);
                run = t.end + 1;
            } else if (t.odd) {
                chain_feed(&w->c, run, (size_t)(t.p - run));
                feed_odd(w, t);
                run = t.end;
            }
            p = t.end + 1;
            if (!depth) break;
        } else if (*p == '{' || *p == '[') {
            if (++depth == cache_depth) {
                object = *p == '{';
                comma = members = 0;
            }
            p++;
        } else if (*p == '}' || *p == ']') {
            if (!depth) break; /* behind a number or word */
            p++;
            if (!--depth) break;
        } else if (*p <= ' ' || (*p == ',' && object && depth == cache_depth)) {
            if (!depth) break;
            chain_feed(&w->c, run, (size_t)(p - run));
            comma |= *p == ',';
            run = p = known_space(p + 1);
        } else {
            if (*p == ',' && !depth) break;
            p++;
        }
    }
    chain_feed(&w->c, run, (size_t)(p - run));
    return p;
}

/* The same; a tidy value is canonical as it stands. */
static inline const uint8_t *feed_value(walk *w, const uint8_t *p, int media, unsigned cache_depth)
{
    const uint8_t *end;
    if (!w->tidy || media) return feed_json(w, p, media, cache_depth);
    end = known_value_end(&w->s, p);
    chain_feed(&w->c, p, (size_t)(end - p));
    return end;
}

/* A whole member of the body likewise. */
static void feed_member(walk *w, unsigned key, int media, unsigned cache_depth)
{
    w->s.next_long = 0;
    if (w->tidies >> key & 1 && !media)
        chain_feed(&w->c, w->at[key], (size_t)(w->end[key] - w->at[key]));
    else
        feed_json(w, w->at[key], media, cache_depth);
    w->s.next_long = 0;
}

/* A string's text behind a mark, or another value as JSON behind two. */
static void feed_piece(walk *w, char mark, const uint8_t *p)
{
    chain_mark(&w->c, mark);
    if (*p == '"') {
        feed_text(w, string_at(w, p));
    } else {
        chain_mark(&w->c, 'J');
        feed_value(w, p, 0, 0);
    }
}

/* -------------------------------------------------------------------------------------------------------------- token
 * ids */

/* The ids of the list at p; NULL with the job's reason if one is none. */
/* Room for a whole block's ids, of which there are at most 32. */
#define IDS_SLACK (PDR_BLOCK * 2)

static inline void put_id(uint8_t *out, uint32_t id)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    id = __builtin_bswap32(id);
#endif
    memcpy(out, &id, sizeof id);
}

/*
 * p stands where a number begins in a list. Reads numbers of at most eight digits with commas behind them, in whole
 * blocks, as long as nothing else comes and fewer than `want` bytes are in out; returns where it stopped, likewise.
 */
static inline const uint8_t *read_ids(const walk *w, const uint8_t *p, uint8_t *out, size_t *n, size_t want)
{
    while (*n < want && w->s.end - p >= PDR_BLOCK) {
        list_masks m;
        uint64_t other, digit, ends, twice, starts;
        block_lists(p, &m);
        other = ~(m.digit | m.comma | m.space);
        if (other) m.comma &= (other & -other) - 1;
        if (!m.comma) break;
        digit = m.digit & ~0ull >> (63 - last_bit(m.comma));
        twice = digit & digit >> 1;
        twice &= twice >> 2;
        if (twice & twice >> 4 & digit >> 8) break; /* nine digits */
        starts = digit & ~(digit << 1);
        for (ends = ~digit & digit << 1; ends; ends &= ends - 1, starts &= starts - 1) {
            const unsigned from = first_bit(starts), to = first_bit(ends), drop = 64 - 8 * (to - from);
            uint64_t v = load64(p + to - 8) & 0x0F0F0F0F0F0F0F0Full;
            v = v >> drop << drop;
            v = (v * 10 + (v >> 8)) & 0x00FF00FF00FF00FFull;
            v = (v * 100 + (v >> 16)) & 0x0000FFFF0000FFFFull;
            v = v * 10000 + (v >> 32);
            put_id(out + *n, (uint32_t)v);
            *n += 4;
        }
        p += last_bit(m.comma) + 1;
        if (other) break;
    }
    return known_space(p);
}

/* The ids of the list at p; returns its end, or NULL with the job's reason if one is none. */
static __attribute__((noinline)) const uint8_t *feed_ids(walk *w, const uint8_t *p, const char *subject)
{
    uint8_t piece[CHAIN_STAGE + IDS_SLACK];
    size_t n = 0;
    const uint8_t *item = first_item(p);
    if (!item) {
        refuse(w, PDR_E_UNSUPPORTED, p, subject,
               " holds an empty list of token ids; the engine cannot answer an empty prompt");
        return NULL;
    }
    for (; item; item = next_item(p)) {
        uint64_t v;
        if ((unsigned)*item - '0' <= 9) item = read_ids(w, item, piece, &n, CHAIN_STAGE);
        if (!read_count(item, &v) || v > UINT32_MAX) {
            refuse(w, PDR_E_PARSE, item, subject,
                   " must hold token ids (whole numbers from 0 to 4294967295) all of one kind");
            return NULL;
        }
        put_id(piece + n, (uint32_t)v);
        n += 4;
        for (p = item; (unsigned)*p - '0' <= 9;) p++;
        if (n >= CHAIN_STAGE) {
            chain_feed(&w->c, piece, CHAIN_STAGE);
            w->out->prompt_tokens += CHAIN_STAGE / 4;
            n -= CHAIN_STAGE;
            memcpy(piece, piece + CHAIN_STAGE, n);
        }
    }
    chain_feed(&w->c, piece, n);
    w->out->prompt_tokens += n / 4;
    return known_space(p) + 1;
}

/* ---------------------------------------------------------------------------------------------------------------
 * messages */

/* 1 if a content part of that type refers to an image, audio, video or file. */
static int media_type(const char *k, size_t n)
{
    static const char words[4][6] = {"image", "audio", "video", "file"};
    for (size_t at = 0; at + 4 <= n; at++)
        for (int i = 0; i < 4; i++)
            if (n - at >= strlen(words[i]) && !memcmp(k + at, words[i], strlen(words[i]))) return 1;
    return 0;
}

static void feed_parts(walk *w, const uint8_t *p)
{
    char buffer[NAME_BUFFER];
    size_t n;
    chain_mark(&w->c, 'L');
    for (p = first_item(p); p; p = next_item(p)) {
        const uint32_t next_long = w->s.next_long;
        const uint8_t *type = find_member(w, p, "type");
        int media = 0;
        if (type && *type == '"') {
            const char *k = plain_text(string_at(w, type), buffer, &n);
            media = media_type(k, n < KEY_MAX ? n : KEY_MAX);
            if (media) w->out->flags |= PDR_PROMPT_MEDIA;
        }
        w->s.next_long = next_long; /* once more over the same strings */
        chain_mark(&w->c, 'P');
        p = feed_value(w, p, media, 1);
    }
}

/* Members of the message at p that have no place of their own. */
static void feed_other_members(walk *w, const uint8_t *p)
{
    char buffer[NAME_BUFFER];
    size_t n;
    for (p = first_item(p); p; p = next_item(p)) {
        text t = string_at(w, p);
        const char *k = plain_text(t, buffer, &n);
        p = value_after(t.end);
        if (message_key(k, n) == MSG_OTHER && *p != 'n') {
            chain_mark(&w->c, 'X');
            feed_text(w, t);
            chain_mark(&w->c, 'J');
            p = feed_value(w, p, 0, 0);
        } else {
            p = known_value_end(&w->s, p);
        }
    }
}

/* True if the bytes at p are those of a literal of at most eight characters; eight bytes are readable. */
#define STARTS(p, literal)                                                                                             \
    ((load64(p) & ~0ull >> (72 - 8 * sizeof literal)) ==                                                               \
     (load64((const uint8_t *)literal "       ") & ~0ull >> (72 - 8 * sizeof literal)))

/* The name at p, a quote, of a message's member; *end gets its closing quote. The usual names are told by comparing. */
static inline unsigned message_member(walk *w, const uint8_t *p, const uint8_t **end)
{
    char buffer[NAME_BUFFER];
    const char *k;
    size_t n;
    text t;
    if (w->s.end - p > 16) {
        if (STARTS(p + 1, "role\"")) return *end = p + 5, MSG_ROLE;
        if (STARTS(p + 1, "content\"")) return *end = p + 8, MSG_CONTENT;
    }
    t = string_at(w, p);
    *end = t.end;
    k = plain_text(t, buffer, &n);
    return message_key(k, n);
}

/* The string at p, which is a role. */
static inline text role_at(walk *w, const uint8_t *p)
{
    if (w->s.end - p > 16) {
        if (STARTS(p + 1, "user\"")) return (text){p + 1, p + 5, 0};
        if (STARTS(p + 1, "tool\"")) return (text){p + 1, p + 5, 0};
        if (STARTS(p + 1, "system\"")) return (text){p + 1, p + 7, 0};
        if (STARTS(p + 1, "assistan") && p[9] == 't' && p[10] == '"') return (text){p + 1, p + 10, 0};
    }
    return string_at(w, p);
}

/* A message with more, or other, than a role and a content that are strings. */
static __attribute__((noinline)) void feed_unusual(walk *w, const uint8_t *message, int others,
                                                   const uint8_t *const *value)
{
    static const char marks[MSG_COUNT + 1] = "MNIRCK";
    const uint32_t next_long = w->s.next_long;
    for (unsigned i = 0; i < MSG_COUNT; i++) {
        w->s.next_long = next_long; /* not in the body's order */
        if (!value[i]) {
            if (i == MSG_ROLE) chain_mark(&w->c, marks[i]);
        } else if (i == MSG_CONTENT && *value[i] == '[') {
            feed_parts(w, value[i]);
        } else {
            feed_piece(w, marks[i], value[i]);
        }
    }
    w->s.next_long = next_long;
    if (others) feed_other_members(w, message);
}

/* The message at p; returns its end. */
static const uint8_t *feed_message(walk *w, const uint8_t *message)
{
    const uint8_t *value[MSG_COUNT] = {0}, *end = message + 1, *p, *name_end;
    text role = {0}, content = {0};
    int others = 0, usual = 1;
    const uint32_t first_long = w->s.next_long;
    for (p = first_item(message); p; p = next_item(end)) {
        const unsigned key = message_member(w, p, &name_end);
        p = value_after(name_end);
        if (key == MSG_ROLE && *p == '"') {
            value[key] = p;
            role = role_at(w, p);
            end = role.end + 1;
        } else if (key == MSG_CONTENT && *p == '"') {
            value[key] = p;
            content = string_at(w, p);
            end = content.end + 1;
        } else {
            usual = 0;
            if (key < MSG_COUNT)
                value[key] = *p == 'n' ? NULL : p;
            else if (key == MSG_OTHER && *p != 'n')
                others = 1;
            end = known_value_end(&w->s, p);
        }
    }
    if (usual && value[MSG_ROLE] && value[MSG_CONTENT]) {
        chain_mark(&w->c, 'M');
        feed_text(w, role);
        chain_mark(&w->c, 'C');
        feed_text(w, content);
    } else {
        const uint32_t next_long = w->s.next_long;
        w->s.next_long = first_long;
        feed_unusual(w, message, others, value);
        w->s.next_long = next_long;
    }
    return known_space(end) + 1;
}

/* The list of messages at p; 0 or a code. */
static int feed_messages(walk *w, const uint8_t *p)
{
    const uint8_t *item = *p == '[' ? first_item(p) : NULL;
    if (!item) return refuse(w, PDR_E_PARSE, p, "", "messages must be a list of at least one message");
    for (; item; item = next_item(p)) {
        if (*item != '{') return refuse(w, PDR_E_PARSE, item, "", "every element of messages must be an object");
        p = feed_message(w, item);
    }
    return PDR_OK;
}

#endif
