/*
 * Error events within a stream (an answer with status 200): what an engine says in one of the inside is blotted out on its way to the client, as in the body of a refusal (error_text.c).
 *
 * Promises: of an event that is no error not one byte changes, nor of /generate's abort anything but the finish reason (the text is the model's). Length
 * and JSON stay. The same bytes give the same result however they are cut, for what has not been passed on when the error is seen.
 *
 * How: the reader (response.c) sees errors anyway. As long as it has seen none, a call copies its state and is done (some fifty instructions). After that the text is read once more,
 * event by event, from the state in which the reader was where the text begins; so both agree about what an event and what an error is.
 *
 * Limits: an error event is held back until it is whole, up to 16 KB; of a longer one each such part is masked by itself, without a word that may go on. What of an event was passed on before its error was seen is gone: a chunk that
 * ends between `data: {` and "error" tells nothing, but an engine that puts the message in front of what marks it as an error is not helped. Plain JSON answers (PDR_RESPONSE_JSON) pass as they are.
 */
#include "response.h"

#include "err.h"

#include <string.h>

enum { HELD_MAX = 16384 };

/* An event in the text, as far as it is there. */
struct event {
    char *begin;
    char *json, *json_end; /* of its data if that is one line, all of it in the text */
    int whole;             /* it begins in the text */
    int lines;             /* of data: how many, in the text */
};

/* The value of a member of the object in [p, end), or NULL. */
static char *member(char *p, char *end, const char *name, size_t *len)
{
    pdr_span at;
    if (pdr_body_member(p, (size_t)(end - p), name, strlen(name), &at)) return NULL;
    *len = at.end - at.begin;
    return p + at.begin;
}

/* The finish reason of an event of /generate, if that is all there is of an error in it. */
static char *finish_reason(char *p, char *end, size_t *len)
{
    char *v = member(p, end, "error", len);
    if (v && *v != 'n' && *v != 'f') return NULL;
    if (!(v = member(p, end, "meta_info", len)) || *v != '{') return NULL;
    v = member(v, v + *len, "finish_reason", len);
    return v && *v == '{' ? v : NULL;
}

/* Blots out what the event, which ends at `end`, must not tell. */
static void mask_event(const pdr_decision *d, const struct event *e, char *end)
{
    size_t len = (size_t)(end - e->begin);
    char *p = e->whole && e->lines == 1 ? finish_reason(e->json, e->json_end, &len) : NULL;
    if (!p) len = (size_t)(end - e->begin);
    (void)pdr_error_mask(d, p ? p : e->begin, len);
}

/* A line without its end: what of it is data of the event. */
static void note_line(struct event *e, char *line, char *end)
{
    if (end - line < 5 || memcmp(line, "data:", 5)) return;
    e->lines++;
    e->json = line + 5 + (end - line > 5 && line[5] == ' ');
    e->json_end = end;
}

static int between_events(const struct pdr_reader *r) { return r->line == PDR_LINE_FIELD && !r->matched && !r->has_data; }

/* Reads the text from `r` on and masks its error events; *held gets the beginning of one that is not whole, and *r what the reader was there; NULL: there is none. */
static void walk(pdr_response *s, struct pdr_reader *r, const pdr_decision *d, char *p, char *end, char **held)
{
    struct event e = {.begin = p, .whole = between_events(r)};
    struct pdr_reader begun = *r;
    *held = NULL;
    while (p < end) {
        if (r->after_cr && *p == '\n') { /* of the line end before */
            pdr_reader_feed(s, r, p, p + 1);
            p++;
            continue;
        }
        char *q = p;
        while (q < end && *q != '\n' && *q != '\r') q++;
        pdr_reader_feed(s, r, p, q);
        if (q == end) break;
        note_line(&e, p, q);
        int over = r->line == PDR_LINE_FIELD && !r->matched, error = r->answer.found & PDR_ANSWER_ERROR;
        pdr_reader_feed(s, r, q, q + 1);
        p = q + 1;
        if (!over) continue;
        if (error) mask_event(d, &e, p);
        e = (struct event){.begin = p, .whole = 1};
        begun = *r;
    }
    if (!(r->answer.found & PDR_ANSWER_ERROR)) return;
    *held = e.begin;
    *r = begun;
}

/* How much of a text that goes on can be masked without its rest: a word at its end may be half a path, a number or a name. */
static size_t without_last_word(const char *p, size_t len)
{
    size_t n = len;
    while (n) {
        unsigned char c = (unsigned char)p[n - 1], low = c | 0x20;
        if (!((low >= 'a' && low <= 'z') || (c >= '0' && c <= '9') || c >= 0x80 || memchr("_/.-+@\\", c, 7))) break;
        n--;
    }
    return n && len - n <= HELD_MAX ? n : len;
}

int pdr_response_mask(pdr_response *s, const pdr_decision *d, char *text, size_t len, int end, size_t *ready)
{
    uint32_t found;
    if (!pdr_struct_ok(s, sizeof *s)) return PDR_E_VERSION;
    if (d && !pdr_struct_ok(d, offsetof(pdr_decision, first_byte_us))) return PDR_E_VERSION;
    if ((!text && len) || !ready) return PDR_E_INVALID;
    char *now = (char *)s->state, *then = now + sizeof(struct pdr_reader);
    memcpy(&found, now + offsetof(struct pdr_reader, answer.found), sizeof found);
    *ready = len;
    if (s->kind == PDR_RESPONSE_SSE && len && (s->flags & PDR_SEEN_ERROR || found & PDR_ANSWER_ERROR)) {
        pdr_response copy = *s;
        struct pdr_reader from;
        char *held;
        memcpy(&from, then, sizeof from);
        walk(&copy, &from, d, text, text + len, &held);
        if (held) { /* `from` is the reader there */
            size_t rest = (size_t)(text + len - held), n = end ? rest : rest > HELD_MAX ? without_last_word(held, rest) : 0;
            (void)pdr_error_mask(d, held, n);
            pdr_reader_feed(&copy, &from, held, held + n);
            *ready = (size_t)(held - text) + n;
            memcpy(then, &from, sizeof from);
            return PDR_OK;
        }
    }
    memcpy(then, now, sizeof(struct pdr_reader));
    return PDR_OK;
}
