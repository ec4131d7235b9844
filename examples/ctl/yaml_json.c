#include "yaml_json.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define YAML_TAG(t)    "tag:yaml.org,2002:" t
#define MAX_MERGED     10000   /* members of one map after merging */
#define MAX_MERGE_WORK 5000000 /* comparisons: merges may repeat without adding anything */

enum kind { SCALAR, LIST, MAP };
enum type { TYPE_AUTO, TYPE_TEXT, TYPE_NULL, TYPE_BOOL, TYPE_INT, TYPE_FLOAT };

struct node {
    enum kind     kind;
    enum type     type;  /* scalars: as tagged or quoted; TYPE_AUTO: by the schema */
    uint32_t      line;
    int           open;  /* its end was not seen yet */
    char         *text;  /* scalars, NUL-terminated */
    size_t        len;
    struct node **item;  /* lists; maps: key, value, key, value … */
    size_t        n, cap;
    struct node  *next;  /* of all nodes, for freeing */
};

struct anchor {
    char        *name;
    struct node *node;
};

struct reader {
    yaml_parser_t      parser;
    struct yaml_error *err;
    struct text       *out;
    struct yaml_marks *marks;
    struct node       *all;
    size_t             nodes, start, limit, merge_work;
    struct node       *stack[YAML_MAX_DEPTH + 1];
    size_t             depth;
    struct node       *root;
    struct anchor     *anchor;
    size_t             anchors, anchors_cap;
    uint32_t           document;
};

static int fail(struct reader *r, uint32_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct reader *r, uint32_t line, const char *format, ...)
{
    va_list args;
    r->err->document = r->document ? r->document : 1;
    r->err->line = line;
    va_start(args, format);
    vsnprintf(r->err->message, sizeof r->err->message, format, args);
    va_end(args);
    return -1;
}

/* ------------------------------------------------------------------------------------------------------- events to a tree */

static struct node *new_node(struct reader *r, enum kind kind, uint32_t line)
{
    struct node *n = need(calloc(1, sizeof *n));
    n->kind = kind;
    n->line = line;
    n->next = r->all;
    r->all = n;
    r->nodes++;
    return n;
}

static void forget_document(struct reader *r)
{
    while (r->all) {
        struct node *n = r->all;
        r->all = n->next;
        free(n->text);
        free(n->item);
        free(n);
    }
    for (size_t i = 0; i < r->anchors; i++) free(r->anchor[i].name);
    r->anchors = r->nodes = r->depth = 0;
    r->root = NULL;
}

static int set_anchor(struct reader *r, const yaml_char_t *name, struct node *n)
{
    if (!name) return 0;
    for (size_t i = 0; i < r->anchors; i++) /* a later anchor of the same name hides the earlier one */
        if (!strcmp(r->anchor[i].name, (const char *)name)) {
            r->anchor[i].node = n;
            return 0;
        }
    if (r->anchors >= 10000) return fail(r, n->line, "more than 10000 anchors");
    if (r->anchors == r->anchors_cap) {
        r->anchors_cap = r->anchors_cap ? 2 * r->anchors_cap : 16;
        r->anchor = need(realloc(r->anchor, r->anchors_cap * sizeof *r->anchor));
    }
    r->anchor[r->anchors].name = need(strdup((const char *)name));
    r->anchor[r->anchors++].node = n;
    return 0;
}

/* Hangs a node into the innermost open list or map. */
static int attach(struct reader *r, struct node *n)
{
    struct node *in = r->depth ? r->stack[r->depth - 1] : NULL;
    if (r->nodes > YAML_MAX_NODES) return fail(r, n->line, "more than %u values", YAML_MAX_NODES);
    if (!in) {
        r->root = n;
        return 0;
    }
    if (in->kind == MAP && in->n % 2 == 0 && n->kind != SCALAR)
        return fail(r, n->line, "a key must be text, not a list or a map");
    if (in->n == in->cap) {
        in->cap = in->cap ? 2 * in->cap : 8;
        in->item = need(realloc(in->item, in->cap * sizeof(struct node *)));
    }
    in->item[in->n++] = n;
    return 0;
}

static int push(struct reader *r, struct node *n)
{
    if (r->depth == YAML_MAX_DEPTH) return fail(r, n->line, "nested deeper than %d levels", YAML_MAX_DEPTH);
    n->open = 1;
    r->stack[r->depth++] = n;
    return 0;
}

static int tagged_type(struct reader *r, const yaml_event_t *e, uint32_t line, enum type *type)
{
    static const struct { const char *tag; enum type type; } known[] = {
        {YAML_TAG("str"), TYPE_TEXT},   {YAML_TAG("null"), TYPE_NULL}, {YAML_TAG("bool"), TYPE_BOOL},
        {YAML_TAG("int"), TYPE_INT},    {YAML_TAG("float"), TYPE_FLOAT}, {YAML_TAG("binary"), TYPE_TEXT},
        {YAML_TAG("timestamp"), TYPE_TEXT}, {"!", TYPE_TEXT},
    };
    const char *tag = (const char *)e->data.scalar.tag;
    *type = e->data.scalar.plain_implicit ? TYPE_AUTO : TYPE_TEXT;
    if (!tag || (!strcmp(tag, "!") && e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)) return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(tag, known[i].tag)) {
            *type = known[i].type;
            return 0;
        }
    return fail(r, line, "the tag '%.60s' is not known", tag);
}

static int check_tag(struct reader *r, const yaml_char_t *tag, const char *wanted, uint32_t line)
{
    if (!tag || !strcmp((const char *)tag, wanted) || !strcmp((const char *)tag, "!")) return 0;
    return fail(r, line, "the tag '%.60s' is not known", (const char *)tag);
}

static int on_scalar(struct reader *r, const yaml_event_t *e, uint32_t line)
{
    struct node *n = new_node(r, SCALAR, line);
    n->len = e->data.scalar.length;
    n->text = need(malloc(n->len + 1));
    memcpy(n->text, e->data.scalar.value, n->len);
    n->text[n->len] = 0;
    if (tagged_type(r, e, line, &n->type)) return -1;
    return set_anchor(r, e->data.scalar.anchor, n) || attach(r, n) ? -1 : 0;
}

static int on_alias(struct reader *r, const yaml_event_t *e, uint32_t line)
{
    const char *name = (const char *)e->data.alias.anchor;
    for (size_t i = 0; i < r->anchors; i++) {
        if (strcmp(r->anchor[i].name, name)) continue;
        if (r->anchor[i].node->open) return fail(r, line, "the alias *%.60s is inside of what it stands for", name);
        return attach(r, r->anchor[i].node);
    }
    return fail(r, line, "the alias *%.60s stands for nothing", name);
}

static int by_text(const void *a, const void *b)
{
    const struct node *const *x = a, *const *y = b;
    size_t n = (*x)->len < (*y)->len ? (*x)->len : (*y)->len;
    int    c = memcmp((*x)->text, (*y)->text, n);
    return c ? c : ((*x)->len > (*y)->len) - ((*x)->len < (*y)->len);
}

/* An ambiguous document is a mistake of its author: which of the two was meant? */
static int refuse_duplicates(struct reader *r, const struct node *map)
{
    size_t        n = map->n / 2;
    struct node **key;
    int           rc = 0;
    if (n < 2) return 0;
    key = need(malloc(n * sizeof(struct node *)));
    for (size_t i = 0; i < n; i++) key[i] = map->item[2 * i];
    qsort(key, n, sizeof *key, by_text);
    for (size_t i = 1; i < n && !rc; i++) {
        const struct node *a = key[i - 1], *b = key[i];
        if (a->len != b->len || memcmp(a->text, b->text, a->len)) continue;
        rc = fail(r, a->line > b->line ? a->line : b->line, "the key '%.80s' is there twice (also in line %u)", a->text,
                  a->line > b->line ? b->line : a->line);
    }
    free(key);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------- scalars */

static int is_any(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (!strcmp(s, *words)) return 1;
    return 0;
}

static int is_null(const char *s) { return is_any(s, (const char *const[]){"", "~", "null", "Null", "NULL", NULL}); }
static int is_true(const char *s) { return is_any(s, (const char *const[]){"true", "True", "TRUE", NULL}); }
static int is_false(const char *s) { return is_any(s, (const char *const[]){"false", "False", "FALSE", NULL}); }

static const char DIGITS[] = "0123456789";

static int is_integer(const char *s)
{
    if (!strncmp(s, "0x", 2)) return s[2] && !s[2 + strspn(s + 2, "0123456789abcdefABCDEF")];
    if (!strncmp(s, "0o", 2)) return s[2] && !s[2 + strspn(s + 2, "01234567")];
    if (*s == '-' || *s == '+') s++;
    return *s && !s[strspn(s, DIGITS)];
}

static int is_float(const char *s)
{
    size_t before, after = 0;
    if (*s == '-' || *s == '+') s++;
    s += before = strspn(s, DIGITS);
    if (*s == '.') s += 1 + (after = strspn(s + 1, DIGITS));
    if (!before && !after) return 0;
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '-' || *s == '+') s++;
        if (!*s) return 0;
        s += strspn(s, DIGITS);
    }
    return !*s;
}

static int is_not_a_number(const char *s)
{
    if (*s == '-' || *s == '+') s++;
    return is_any(s, (const char *const[]){".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN", NULL});
}

/* Integers by base if they are not plain decimal, else digit by digit, so that none is lost. */
static int put_integer(struct reader *r, const struct node *n)
{
    const char *s = n->text, *digits;
    int         minus = *s == '-', base = 10;
    if (*s == '-' || *s == '+') s++;
    if (!strncmp(s, "0x", 2)) base = 16, s += 2;
    else if (!strncmp(s, "0o", 2)) base = 8, s += 2;
    else if (*s == '0' && s[1] && !s[strspn(s, "01234567")]) base = 8;
    if (base != 10) {
        uint64_t v = 0;
        for (; *s; s++) {
            unsigned d = (unsigned)(*s <= '9' ? *s - '0' : (*s | 0x20) - 'a' + 10);
            if (v > (UINT64_MAX - d) / (unsigned)base) return fail(r, n->line, "the integer %.40s is too large", n->text);
            v = v * (unsigned)base + d;
        }
        text_printf(r->out, "%s%llu", minus ? "-" : "", (unsigned long long)v);
        return 0;
    }
    for (digits = s; *digits == '0' && digits[1]; digits++) {}
    text_printf(r->out, "%s%s", minus ? "-" : "", digits);
    return 0;
}

static void put_float(struct reader *r, const char *s)
{
    size_t n;
    if (*s == '-') text_puts(r->out, "-");
    if (*s == '-' || *s == '+') s++;
    while (*s == '0' && s[1] >= '0' && s[1] <= '9') s++;
    n = strspn(s, DIGITS);
    if (n) text_add(r->out, s, n);
    else text_puts(r->out, "0");
    s += n;
    if (*s == '.') {
        n = strspn(++s, DIGITS);
        text_puts(r->out, ".");
        if (n) text_add(r->out, s, n);
        else text_puts(r->out, "0");
        s += n;
    }
    text_puts(r->out, s);
}

static int put_scalar(struct reader *r, const struct node *n)
{
    const char *s = n->text;
    enum type   t = n->type;
    int         plain = strlen(s) == n->len; /* with a NUL inside it is text */
    if (t == TYPE_AUTO)
        t = !plain ? TYPE_TEXT : is_null(s) ? TYPE_NULL : is_true(s) || is_false(s) ? TYPE_BOOL : is_integer(s) ? TYPE_INT
          : is_float(s) || is_not_a_number(s) ? TYPE_FLOAT : TYPE_TEXT;
    switch (t) {
    case TYPE_NULL: text_puts(r->out, "null"); return 0;
    case TYPE_BOOL:
        if (!is_true(s) && !is_false(s)) return fail(r, n->line, "'%.60s' is neither true nor false", s);
        text_puts(r->out, is_true(s) ? "true" : "false");
        return 0;
    case TYPE_INT:
        if (!plain || !is_integer(s)) return fail(r, n->line, "'%.60s' is not an integer", s);
        return put_integer(r, n);
    case TYPE_FLOAT:
        if (is_not_a_number(s)) return fail(r, n->line, "%.20s has no form in JSON; quote it if text is meant", s);
        if (!plain || !is_float(s)) return fail(r, n->line, "'%.60s' is not a number", s);
        put_float(r, s);
        return 0;
    default: text_json(r->out, s, n->len); return 0;
    }
}

/* -------------------------------------------------------------------------------------------------------- tree to JSON */

static int put_node(struct reader *r, const struct node *n, unsigned depth);

static void mark(struct reader *r, const struct node *n)
{
    struct yaml_marks *m = r->marks;
    if (!m) return;
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 256;
        m->p = need(realloc(m->p, m->cap * sizeof *m->p));
    }
    m->p[m->n++] = (struct yaml_mark){r->out->n, r->document, n->line};
}

static int is_merge(const struct node *key) { return key->type == TYPE_AUTO && !strcmp(key->text, "<<"); }

struct members {
    const struct node **item; /* key, value … */
    size_t              n;    /* members */
};

static int has_member(const struct members *m, const struct node *key)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->item[2 * i]->len == key->len && !memcmp(m->item[2 * i]->text, key->text, key->len)) return 1;
    return 0;
}

/* A map's own members, then those of the maps it merges that it does not have yet, nearest first. */
static int gather(struct reader *r, const struct node *map, struct members *m, unsigned depth)
{
    if (++r->merge_work > MAX_MERGE_WORK) return fail(r, map->line, "too much is merged");
    if (depth > YAML_MAX_DEPTH) return fail(r, map->line, "merged deeper than %d levels", YAML_MAX_DEPTH);
    for (size_t i = 0; i < map->n; i += 2) {
        if (is_merge(map->item[i])) continue;
        if (depth && (r->merge_work += m->n + 1) > MAX_MERGE_WORK) return fail(r, map->line, "too much is merged");
        if (depth && has_member(m, map->item[i])) continue;
        if (m->n == MAX_MERGED) return fail(r, map->line, "more than %d members after merging", MAX_MERGED);
        m->item[2 * m->n] = map->item[i];
        m->item[2 * m->n++ + 1] = map->item[i + 1];
    }
    for (size_t i = 0; i < map->n; i += 2) {
        const struct node *from = map->item[i + 1];
        if (!is_merge(map->item[i])) continue;
        if (from->kind == SCALAR) return fail(r, from->line, "the merge key << needs a map or a list of maps");
        if (from->kind == MAP && gather(r, from, m, depth + 1)) return -1;
        for (size_t k = 0; from->kind == LIST && k < from->n; k++) {
            if (from->item[k]->kind != MAP) return fail(r, from->item[k]->line, "the merge key << needs a map or a list of maps");
            if (gather(r, from->item[k], m, depth + 1)) return -1;
        }
    }
    return 0;
}

static int put_member(struct reader *r, const struct node *key, const struct node *value, int first, unsigned depth)
{
    if (key->type == TYPE_AUTO && !key->len) return fail(r, key->line, "a key is empty");
    if (!first) text_puts(r->out, ",");
    text_json(r->out, key->text, key->len);
    text_puts(r->out, ":");
    return put_node(r, value, depth);
}

static int put_map(struct reader *r, const struct node *n, unsigned depth)
{
    struct members m = {NULL, 0};
    int            rc = 0, merges = 0;
    text_puts(r->out, "{");
    for (size_t i = 0; i < n->n; i += 2) merges |= is_merge(n->item[i]);
    if (merges) {
        m.item = need(malloc(2 * (MAX_MERGED + 1) * sizeof(struct node *)));
        rc = gather(r, n, &m, 0);
        for (size_t i = 0; i < m.n && !rc; i++) rc = put_member(r, m.item[2 * i], m.item[2 * i + 1], !i, depth);
        free(m.item);
    } else {
        for (size_t i = 0; i < n->n && !rc; i += 2) rc = put_member(r, n->item[i], n->item[i + 1], !i, depth);
    }
    text_puts(r->out, "}");
    return rc;
}

static int put_node(struct reader *r, const struct node *n, unsigned depth)
{
    int rc = 0;
    if (depth > YAML_MAX_DEPTH) return fail(r, n->line, "nested deeper than %d levels", YAML_MAX_DEPTH);
    if (r->out->n - r->start > r->limit)
        return fail(r, n->line, "more than %zu bytes of JSON; too much is repeated by aliases", r->limit);
    mark(r, n);
    if (n->kind == SCALAR) return put_scalar(r, n);
    if (n->kind == MAP) return put_map(r, n, depth + 1);
    text_puts(r->out, "[");
    for (size_t i = 0; i < n->n && !rc; i++) {
        if (i) text_puts(r->out, ",");
        rc = put_node(r, n->item[i], depth + 1);
    }
    text_puts(r->out, "]");
    return rc;
}

/* --------------------------------------------------------------------------------------------------------------- parsing */

static int parser_failed(struct reader *r, const char *yaml, size_t len)
{
    const yaml_parser_t *p = &r->parser;
    size_t               line = p->problem_mark.line + 1, begun = p->context_mark.line + 1, last;
    if (p->error == YAML_MEMORY_ERROR) return fail(r, 0, "out of memory");
    if (p->error == YAML_READER_ERROR) { /* it knows a byte offset only */
        line = 1;
        for (size_t i = 0; i < p->problem_offset && i < len; i++) line += yaml[i] == '\n';
    }
    last = len && yaml[len - 1] != '\n';
    for (size_t i = 0; i < len; i++) last += yaml[i] == '\n';
    if (line > last && last) line = last; /* the end of the stream is a line of its own to libyaml */
    if (p->context && begun < line) return fail(r, (uint32_t)line, "%s, %s (begun in line %zu)", p->problem, p->context, begun);
    return fail(r, (uint32_t)line, "%s%s%s", p->problem ? p->problem : "not YAML", p->context ? ", " : "",
                p->context ? p->context : "");
}

static int on_event(struct reader *r, const yaml_event_t *e, uint32_t *documents)
{
    uint32_t     line = (uint32_t)e->start_mark.line + 1;
    struct node *n;
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        r->document++;
        return 0;
    case YAML_DOCUMENT_END_EVENT:
        if (r->root && !(r->root->kind == SCALAR && r->root->type == TYPE_AUTO && is_null(r->root->text))) {
            if (*documents) text_puts(r->out, ",");
            if (put_node(r, r->root, 0)) return -1;
            ++*documents;
        }
        forget_document(r);
        return 0;
    case YAML_SCALAR_EVENT: return on_scalar(r, e, line);
    case YAML_ALIAS_EVENT: return on_alias(r, e, line);
    case YAML_SEQUENCE_START_EVENT:
        n = new_node(r, LIST, line);
        if (check_tag(r, e->data.sequence_start.tag, YAML_TAG("seq"), line)) return -1;
        return set_anchor(r, e->data.sequence_start.anchor, n) || attach(r, n) || push(r, n) ? -1 : 0;
    case YAML_MAPPING_START_EVENT:
        n = new_node(r, MAP, line);
        if (check_tag(r, e->data.mapping_start.tag, YAML_TAG("map"), line)) return -1;
        return set_anchor(r, e->data.mapping_start.anchor, n) || attach(r, n) || push(r, n) ? -1 : 0;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        n = r->stack[--r->depth];
        n->open = 0;
        return n->kind == MAP ? refuse_duplicates(r, n) : 0;
    default: return 0;
    }
}

int yaml_to_json(const char *yaml, size_t len, struct text *out, uint32_t *documents, struct yaml_marks *marks,
                 struct yaml_error *err)
{
    struct reader r = {.err = err, .out = out, .marks = marks, .start = out->n, .limit = 2 * len + YAML_MAX_BYTES};
    int           rc = 0, end = 0;
    memset(err, 0, sizeof *err);
    *documents = 0;
    if (!yaml_parser_initialize(&r.parser)) need(NULL);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)yaml, len);
    while (!rc && !end) {
        yaml_event_t e;
        if (!yaml_parser_parse(&r.parser, &e)) {
            rc = parser_failed(&r, yaml, len);
            break;
        }
        end = e.type == YAML_STREAM_END_EVENT;
        rc = on_event(&r, &e, documents);
        yaml_event_delete(&e);
    }
    forget_document(&r);
    free(r.anchor);
    yaml_parser_delete(&r.parser);
    return rc;
}

const struct yaml_mark *yaml_find_mark(const struct yaml_marks *marks, size_t json)
{
    size_t low = 0, high = marks->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (marks->p[mid].json <= json) low = mid + 1;
        else high = mid;
    }
    return low ? &marks->p[low - 1] : NULL;
}
