#include "answer.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum state { PLAIN, STRING, ESCAPE, NUMBER, PEEK /* is this container of a delta empty? */, TREE, OVER };
enum context { TOP, ARRAY, RECORD, USAGE, DETAILS, META, FINISH, CHOICES, CHOICE, DELTA };
enum string { AS_KEY, AS_TEXT /* kept for a comparison */, AS_VALUE, AS_TREE };
enum key {
    NONE,
    /* of a record */
    KEY_USAGE,
    KEY_META,
    KEY_ERROR,
    KEY_OBJECT,
    KEY_CHOICES,
    KEY_TEXT, /* and of a choice */
    KEY_IDS,
    /* of usage, its details, meta_info */
    KEY_PROMPT,
    KEY_COMPLETION,
    KEY_CACHED,
    KEY_DETAILS,
    /* of a choice, meta_info, its finish_reason */
    KEY_FINISH,
    KEY_TYPE,
    KEY_DELTA,
    /* of a delta */
    KEY_ROLE,
    KEY_OTHER
};

static const uint8_t parent_of[] = {[USAGE] = RECORD,   [DETAILS] = USAGE,  [META] = RECORD, [FINISH] = META,
                                    [CHOICES] = RECORD, [CHOICE] = CHOICES, [DELTA] = CHOICE};

/* Sixteen bytes at once, in the vector extension of gcc and clang: SSE2, NEON or plain code. */
typedef unsigned char bytes16 __attribute__((vector_size(16)));

static inline bytes16 load16(const char *p)
{
    bytes16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Index of the first byte of a comparison that is true, 16 if none. */
static inline int first_true(bytes16 m)
{
#ifdef __SSE2__
    return __builtin_ctz((unsigned)_mm_movemask_epi8((__m128i)m) | 0x10000u);
#else
    uint64_t half[2];
    memcpy(half, &m, sizeof half);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    half[0] = __builtin_bswap64(half[0]);
    half[1] = __builtin_bswap64(half[1]);
#endif
    if (half[0]) return __builtin_ctzll(half[0]) >> 3;
    if (half[1]) return 8 + (__builtin_ctzll(half[1]) >> 3);
    return 16;
#endif
}

/* The first '"' or '\' from p on, or end. */
static inline const char *find_string_end(const char *p, const char *end)
{
    for (; end - p >= 16; p += 16) {
        bytes16 v = load16(p);
        int i = first_true((bytes16)(v == '"') | (bytes16)(v == '\\'));
        if (i < 16) return p + i;
    }
    while (p < end && *p != '"' && *p != '\\') p++;
    return p;
}

/* The first '"', '{', '}', '[' or ']' from p on, or end. */
static inline const char *find_structure(const char *p, const char *end)
{
    for (; end - p >= 16; p += 16) {
        bytes16 v = load16(p), low = v | 0x20;
        int i = first_true((bytes16)(v == '"') | (bytes16)(low == '{') | (bytes16)(low == '}'));
        if (i < 16) return p + i;
    }
    while (p < end && *p != '"' && (*p | 0x20) != '{' && (*p | 0x20) != '}') p++;
    return p;
}

static inline int same(const char *s, size_t n, const char *literal, size_t m)
{
    return n == m && !memcmp(s, literal, m);
}
#define SAME(s, n, literal) same((s), (n), "" literal, sizeof(literal) - 1)

static uint8_t key_of(uint8_t context, const char *s, size_t n)
{
    switch (context) {
    case RECORD:
        if (SAME(s, n, "usage")) return KEY_USAGE;
        if (SAME(s, n, "meta_info")) return KEY_META;
        if (SAME(s, n, "error")) return KEY_ERROR;
        if (SAME(s, n, "object")) return KEY_OBJECT;
        if (SAME(s, n, "choices")) return KEY_CHOICES;
        if (SAME(s, n, "text")) return KEY_TEXT;
        if (SAME(s, n, "output_ids")) return KEY_IDS;
        return NONE;
    case META:
        if (SAME(s, n, "cached_tokens")) return KEY_CACHED;
        if (SAME(s, n, "finish_reason")) return KEY_FINISH;
        /* fallthrough */
    case USAGE:
        if (SAME(s, n, "prompt_tokens")) return KEY_PROMPT;
        if (SAME(s, n, "completion_tokens")) return KEY_COMPLETION;
        return context == USAGE && SAME(s, n, "prompt_tokens_details") ? KEY_DETAILS : NONE;
    case DETAILS:
        return SAME(s, n, "cached_tokens") ? KEY_CACHED : NONE;
    case FINISH:
        return SAME(s, n, "type") ? KEY_TYPE : NONE;
    case CHOICE:
        if (SAME(s, n, "delta")) return KEY_DELTA;
        if (SAME(s, n, "text")) return KEY_TEXT;
        return SAME(s, n, "finish_reason") ? KEY_FINISH : NONE;
    case DELTA:
        return SAME(s, n, "role") ? KEY_ROLE : KEY_OTHER;
    default:
        return NONE;
    }
}

static int is_counter(uint8_t key)
{
    return key == KEY_PROMPT || key == KEY_COMPLETION || key == KEY_CACHED;
}

static void number_ended(struct pdr_answer *a)
{
    a->state = PLAIN;
    if (a->bad) return; /* a fraction or an exponent: not a count */
    switch (a->key) {
    case KEY_PROMPT:
        a->prompt_tokens = a->number;
        break;
    case KEY_COMPLETION:
        a->completion_tokens = a->number;
        break;
    default:
        a->cached_tokens = a->number;
        a->found |= PDR_ANSWER_CACHED;
        return;
    }
    a->found |= a->context == META ? PDR_ANSWER_USAGE : PDR_ANSWER_USAGE | PDR_ANSWER_TOTAL;
}

/* A string that is a value has ended; `s` is its text if it was kept. */
static void string_value(struct pdr_answer *a, const char *s, size_t n)
{
    switch (a->key) {
    case KEY_OBJECT:
        if (SAME(s, n, "error")) a->found |= PDR_ANSWER_ERROR;
        break;
    case KEY_FINISH: /* a choice's, or meta_info's in a short form */
    case KEY_TYPE:
        if (a->context == META) a->found |= PDR_ANSWER_FINISHED;
        if (SAME(s, n, "abort")) a->found |= PDR_ANSWER_ERROR;
        break;
    default:
        break;
    }
}

/* What a string says by its mere presence. */
static void string_present(struct pdr_answer *a, int empty)
{
    if (a->key == KEY_ERROR) a->found |= PDR_ANSWER_ERROR;
    if (a->key == KEY_ROLE) a->found |= PDR_ANSWER_ROLE;
    if (a->key == KEY_TEXT && a->context == RECORD) a->found |= PDR_ANSWER_CHOICE;
    if (!empty && (a->key == KEY_OTHER || (a->key == KEY_TEXT && a->context == CHOICE))) a->found |= PDR_ANSWER_CONTENT;
}

static int is_kept(uint8_t key)
{
    return key == KEY_OBJECT || key == KEY_FINISH || key == KEY_TYPE;
}

/* To the end of a string whose text does not matter: past its quote (*state PLAIN), or `end` (STRING or ESCAPE). */
static inline const char *skip_string(const char *p, const char *end, uint8_t *state)
{
    for (;;) {
        const char *q = find_string_end(p, end);
        if (q == end) {
            *state = STRING;
            return end;
        }
        if (*q == '"') {
            *state = PLAIN;
            return q + 1;
        }
        if (end - q < 2) {
            *state = ESCAPE;
            return end;
        }
        p = q + 2;
    }
}

/* The string that is being read, whose text was kept for AS_KEY and AS_TEXT only, has ended. */
static void end_string(struct pdr_answer *a)
{
    size_t n = a->bad ? sizeof a->text + 1 : a->text_len; /* too long or with escapes: equal to nothing */
    a->state = a->string == AS_TREE ? TREE : PLAIN;
    switch (a->string) {
    case AS_KEY:
        a->key = key_of(a->context, a->text, n);
        break;
    case AS_TEXT:
        string_present(a, !n);
        string_value(a, a->text, n);
        a->key = NONE;
        break;
    case AS_VALUE:
        string_present(a, !a->bad);
        a->key = NONE;
        break;
    default:
        break;
    }
}

static const char *keep_text(struct pdr_answer *a, const char *p, const char *end)
{
    const char *q = find_string_end(p, end);
    size_t n = (size_t)(q - p), space = sizeof a->text - a->text_len;
    if (n > space) {
        a->bad = 1;
        n = space;
    }
    memcpy(a->text + a->text_len, p, n);
    a->text_len = (uint8_t)(a->text_len + n);
    if (q == end) return end;
    if (*q == '"') {
        end_string(a);
    } else {
        a->state = ESCAPE;
        a->bad = 1;
    }
    return q + 1;
}

/* Goes on with a string that another chunk began, or that has escapes. */
static const char *in_string(struct pdr_answer *a, const char *p, const char *end)
{
    uint8_t state;
    if (a->string == AS_KEY || a->string == AS_TEXT) return keep_text(a, p, end);
    a->bad |= *p != '"'; /* of AS_VALUE: not empty */
    p = skip_string(p, end, &state);
    if (state == PLAIN)
        end_string(a);
    else
        a->state = state;
    return p;
}

/* A string begins at p, after its quote. Those without escapes that end in this chunk are taken at once. */
static const char *begin_string(struct pdr_answer *a, const char *p, const char *end)
{
    int value = a->after_colon || a->context <= ARRAY || a->context == CHOICES;
    const char *q = find_string_end(p, end);
    size_t n = (size_t)(q - p);
    if (q < end && *q == '"') {
        if (!value) {
            a->key = key_of(a->context, p, n);
        } else if (a->key) {
            string_present(a, !n);
            string_value(a, p, n);
            a->key = NONE;
        }
        return q + 1;
    }
    if (value && a->key == KEY_ERROR) a->found |= PDR_ANSWER_ERROR; /* before its text has gone by */
    a->state = STRING;
    a->string = !value ? AS_KEY : is_kept(a->key) ? AS_TEXT : AS_VALUE;
    a->text_len = 0;
    a->bad = 0;
    return p;
}

static void enter(struct pdr_answer *a, uint8_t context)
{
    a->context = context;
    a->key = NONE;
    a->after_colon = 0;
}

static void begin_record(struct pdr_answer *a)
{
    a->in_array = a->context == ARRAY;
    a->found = 0;
    a->prompt_tokens = a->completion_tokens = a->cached_tokens = 0;
    enter(a, RECORD);
}

/* The context that a container opens, TOP if it does not matter. */
static uint8_t child_of(uint8_t context, uint8_t key, int object)
{
    if (!object) return context == TOP ? ARRAY : context == RECORD && key == KEY_CHOICES ? CHOICES : TOP;
    switch (context) {
    case TOP:
    case ARRAY:
        return RECORD;
    case RECORD:
        return key == KEY_USAGE ? USAGE : key == KEY_META ? META : TOP;
    case USAGE:
        return key == KEY_DETAILS ? DETAILS : TOP;
    case META:
        return key == KEY_FINISH ? FINISH : TOP;
    case CHOICES:
        return CHOICE;
    case CHOICE:
        return key == KEY_DELTA ? DELTA : TOP;
    default:
        return TOP;
    }
}

static void open_container(struct pdr_answer *a, int object)
{
    uint8_t key = a->key, child = child_of(a->context, key, object);
    if (child == RECORD) {
        begin_record(a);
    } else if (child) {
        if (child == FINISH) a->found |= PDR_ANSWER_FINISHED;
        if (child == CHOICE) a->found |= PDR_ANSWER_CHOICE;
        enter(a, child);
    } else {
        if (key == KEY_ERROR) a->found |= PDR_ANSWER_ERROR;
        if (key == KEY_IDS || (key == KEY_TEXT && a->context == RECORD)) a->found |= PDR_ANSWER_CHOICE;
        a->state = key == KEY_OTHER ? PEEK : TREE;
        a->depth = 1;
        a->key = NONE;
    }
}

/* A number or a literal begins with c. */
static void begin_scalar(struct pdr_answer *a, char c)
{
    if (is_counter(a->key) && c >= '0' && c <= '9') {
        a->state = NUMBER;
        a->number = 0;
        a->bad = 0;
        return; /* the digit is taken there */
    }
    if (c == 'n' || c == 'f') {
        a->key = NONE;
        return;
    }
    if (a->key == KEY_ERROR) a->found |= PDR_ANSWER_ERROR;
    if (a->key == KEY_OTHER) a->found |= PDR_ANSWER_CONTENT;
    a->key = NONE;
}

static inline int is_scalar(char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26 || (unsigned char)(c - '0') < 10 || c == '.' || c == '-' || c == '+';
}

/* Returns 1 if that was the end of a record. */
static int close_container(struct pdr_answer *a)
{
    uint8_t context = a->context;
    if (context == RECORD) {
        enter(a, a->in_array ? ARRAY : TOP);
        if (!a->in_array) a->state = OVER;
        return 1;
    }
    if (context <= ARRAY) {
        a->state = OVER;
        return 0;
    }
    enter(a, parent_of[context]);
    return 0;
}

/* Between tokens of a context that matters. Stops after a change of state or the end of a record (*record). */
static const char *in_plain(struct pdr_answer *a, const char *p, const char *end, int *record)
{
    while (p < end) {
        char c = *p++;
        switch (c) {
        case '"':
            p = begin_string(a, p, end);
            if (a->state != PLAIN) return p;
            break;
        case ':':
            a->after_colon = 1;
            break;
        case ',':
            a->after_colon = 0;
            a->key = NONE;
            break;
        case '{':
        case '[':
            open_container(a, c == '{');
            if (a->state != PLAIN) return p;
            break;
        case '}':
        case ']':
            if ((*record = close_container(a)) || a->state != PLAIN) return p;
            break;
        case ' ':
            break;
        default: /* a number or literal, or the rest of one */
            if ((unsigned char)c <= ' ') break; /* white space, or what is not JSON: no part of what follows */
            if (a->key && a->after_colon) {
                begin_scalar(a, c);
                if (a->state != PLAIN) return p - 1;
            }
            while (p < end && is_scalar(*p)) p++;
            break;
        }
    }
    return p;
}

static const char *in_number(struct pdr_answer *a, const char *p, const char *end)
{
    for (; p < end; p++) {
        if (*p >= '0' && *p <= '9')
            a->number = a->number > (UINT64_MAX - 9) / 10 ? UINT64_MAX : a->number * 10 + (uint64_t)(*p - '0');
        else if (*p == '.' || *p == 'e' || *p == 'E' || *p == '+' || *p == '-')
            a->bad = 1;
        else {
            number_ended(a);
            a->key = NONE;
            break;
        }
    }
    return p;
}

/* Inside a value that does not matter: only depth and strings are followed. */
static const char *in_tree(struct pdr_answer *a, const char *p, const char *end)
{
    while ((p = find_structure(p, end)) < end) {
        char c = *p++;
        if (c == '"') {
            uint8_t state;
            p = skip_string(p, end, &state);
            if (state == PLAIN) continue;
            a->state = state;
            a->string = AS_TREE;
            return p;
        }
        if ((c | 0x20) == '{')
            a->depth++;
        else if (!--a->depth) {
            a->state = PLAIN;
            return p;
        }
    }
    return p;
}

/* The first byte inside a container that counts as content unless it is empty. */
static const char *in_peek(struct pdr_answer *a, const char *p, const char *end)
{
    for (; p < end; p++) {
        if (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') continue;
        if ((*p | 0x20) != '}') a->found |= PDR_ANSWER_CONTENT;
        a->state = TREE;
        break;
    }
    return p;
}

int pdr_answer_feed(struct pdr_answer *a, const char **at, const char *end)
{
    const char *p = *at;
    int record = 0;
    while (p < end && !record) {
        switch (a->state) {
        case PLAIN:
            p = in_plain(a, p, end, &record);
            break;
        case STRING:
            p = in_string(a, p, end);
            break;
        case ESCAPE:
            a->state = STRING;
            a->bad = 1;
            p++;
            break;
        case NUMBER:
            p = in_number(a, p, end);
            break;
        case PEEK:
            p = in_peek(a, p, end);
            break;
        case TREE:
            p = in_tree(a, p, end);
            break;
        default:
            p = end;
            break;
        }
    }
    *at = p;
    return record ? PDR_ANSWER_RECORD : PDR_ANSWER_MORE;
}

/* One of the words without which a record has neither counts nor errors begins at p. */
static inline int begins_word(const char *p, const char *end)
{
    if (end - p < 7) return 0;
    switch (p[1]) {
    case 'u':
        return !memcmp(p, "\"usage\"", 7);
    case 'e':
        return !memcmp(p, "\"error\"", 7);
    case 'a':
        return !memcmp(p, "\"abort\"", 7);
    case 'm':
        return end - p >= 11 && !memcmp(p, "\"meta_info\"", 11);
    default:
        return 0;
    }
}

int pdr_answer_may_matter(const char *p, const char *end)
{
    while (end - p >= 17) {
        bytes16 v = load16(p), w = load16(p + 1);
        bytes16 initial = (bytes16)(w == 'u') | (bytes16)(w == 'e') | (bytes16)(w == 'a') | (bytes16)(w == 'm');
        int i = first_true((bytes16)(v == '"') & initial);
        p += i;
        if (i == 16) continue;
        if (begins_word(p, end)) return 1;
        p++;
    }
    for (; p < end; p++)
        if (*p == '"' && begins_word(p, end)) return 1;
    return 0;
}

int pdr_answer_over(const struct pdr_answer *a)
{
    return a->state == OVER;
}
void pdr_answer_ignore(struct pdr_answer *a)
{
    a->state = OVER;
}

int pdr_answer_has_token(const struct pdr_answer *a)
{
    if (a->found & PDR_ANSWER_ERROR) return 0;
    if (a->found & PDR_ANSWER_CONTENT) return 1;
    return (a->found & PDR_ANSWER_CHOICE) && !(a->found & PDR_ANSWER_ROLE);
}
