#include "response.h"

#include "err.h"

#include <string.h>

#define DONE_TEXT   "[DONE]"
#define DONE_LENGTH 6
#define DONE_NEVER  0xFF

void pdr_response_init(pdr_response *s, uint32_t kind)
{
    uint32_t size;
    if (!s) return;
    memcpy(&size, s, sizeof size);
    if (size < sizeof *s) size = sizeof *s;
    memset(s, 0, sizeof *s);
    s->struct_size = size;
    s->kind = kind;
}

static void count(pdr_response *s, const struct pdr_answer *a, const uint64_t sum[3])
{
    s->prompt_tokens = sum[0] + a->prompt_tokens;
    s->completion_tokens = sum[1] + a->completion_tokens;
    s->cached_tokens = sum[2] + a->cached_tokens;
}

static void record_ended(pdr_response *s, struct pdr_reader *r)
{
    static const uint64_t none[3];
    const struct pdr_answer *a = &r->answer;
    if (a->found & PDR_ANSWER_USAGE) {
        s->flags |= PDR_SEEN_USAGE;
        count(s, a, a->found & PDR_ANSWER_TOTAL ? none : r->sum);
        /* An element of an array, or the last event of a prompt in a stream: others may follow and add to it. */
        if (!(a->found & PDR_ANSWER_TOTAL) && (a->in_array || (a->found & PDR_ANSWER_FINISHED))) {
            r->sum[0] = s->prompt_tokens;
            r->sum[1] = s->completion_tokens;
            r->sum[2] = s->cached_tokens;
        }
    }
    if (a->found & PDR_ANSWER_CACHED) s->flags |= PDR_SEEN_CACHED;
    if (a->found & PDR_ANSWER_ERROR) s->flags |= PDR_SEEN_ERROR;
    if (s->kind == PDR_RESPONSE_SSE && pdr_answer_has_token(a)) s->flags |= PDR_SEEN_FIRST_TOKEN;
}

static void feed_json(pdr_response *s, struct pdr_reader *r, const char *p, const char *end)
{
    while (p < end)
        if (pdr_answer_feed(&r->answer, &p, end) == PDR_ANSWER_RECORD) record_ended(s, r);
}

/* Of the data of an event. */
static void feed_data(pdr_response *s, struct pdr_reader *r, const char *p, const char *end)
{
    for (const char *q = p; r->done < DONE_LENGTH && q < end; q++) {
        r->done = *q == DONE_TEXT[r->done] ? (uint8_t)(r->done + 1) : DONE_NEVER;
        if (r->done != DONE_LENGTH) continue;
        s->flags |= PDR_SEEN_DONE;
        pdr_answer_ignore(&r->answer);
    }
    feed_json(s, r, p, end);
}

static void begin_data(struct pdr_reader *r)
{
    /* Lines of one event are one text; a server that forgets the empty line after a complete object is forgiven. */
    if (pdr_answer_over(&r->answer)) memset(&r->answer, 0, sizeof r->answer);
    r->done = r->has_data ? DONE_NEVER : 0;
    r->has_data = 1;
    r->line = PDR_LINE_DATA;
}

static void end_line(pdr_response *s, struct pdr_reader *r)
{
    if (r->line == PDR_LINE_FIELD && r->matched == 4) { /* a field without colon has an empty value */
        begin_data(r);
    } else if (r->line == PDR_LINE_SPACE) {
        begin_data(r);
    } else if (r->line == PDR_LINE_FIELD && !r->matched) { /* an empty line: the event is complete */
        s->events += r->has_data;
        r->has_data = 0;
        memset(&r->answer, 0, sizeof r->answer);
    }
    r->line = PDR_LINE_FIELD;
    r->matched = 0;
}

/* The next line end; each of the two bytes is looked for once per position (lf, cr: where it is, NULL: not looked for).
 */
static const char *find_line_end(const char *p, const char *end, const char **lf, const char **cr)
{
    if (!*lf || *lf < p) {
        *lf = memchr(p, '\n', (size_t)(end - p));
        if (!*lf) *lf = end;
    }
    if (!*cr || *cr < p) {
        *cr = memchr(p, '\r', (size_t)(end - p));
        if (!*cr) *cr = end;
    }
    return *lf < *cr ? *lf : *cr;
}

/* Whether the line end at p is followed by an empty line. */
static int event_ends(const char *p, const char *end)
{
    if (end - p >= 2 && p[0] == '\r' && p[1] == '\n') p++;
    return end - p >= 2 && (p[1] == '\n' || p[1] == '\r');
}

static void feed_sse(pdr_response *s, struct pdr_reader *r, const char *p, const char *end)
{
    const char *lf = NULL, *cr = NULL, *stop;
    while (p < end) {
        char c = *p;
        if (r->after_cr) { /* CRLF is one line end */
            r->after_cr = 0;
            if (c == '\n') {
                p++;
                continue;
            }
        }
        if (r->line == PDR_LINE_FIELD && !r->matched && end - p >= 6 && !memcmp(p, "data: ", 6)) {
            int first = !r->has_data;
            begin_data(r);
            p += 6;
            if (!first || !(s->flags & PDR_SEEN_FIRST_TOKEN)) continue;
            stop = find_line_end(p, end, &lf, &cr); /* an event of one line, all of it here: worth a closer look? */
            if (event_ends(stop, end) && p < stop && *p != DONE_TEXT[0] && !pdr_answer_may_matter(p, stop)) p = stop;
            continue;
        }
        if (r->line >= PDR_LINE_DATA) {
            stop = find_line_end(p, end, &lf, &cr);
            if (r->line == PDR_LINE_DATA) feed_data(s, r, p, stop);
            if ((p = stop) == end) return;
            c = *p;
        }
        if (c == '\n' || c == '\r') {
            end_line(s, r);
            r->after_cr = c == '\r';
            p++;
        } else if (r->line == PDR_LINE_SPACE) {
            begin_data(r);
            p += c == ' ';
        } else { /* of a field */
            if (r->matched == 4)
                r->line = c == ':' ? PDR_LINE_SPACE : PDR_LINE_OTHER;
            else if (c == "data"[r->matched])
                r->matched++;
            else
                r->line = PDR_LINE_OTHER;
            p++;
        }
    }
}

/* Leaves out a byte order mark at the very beginning. */
static const char *skip_mark(struct pdr_reader *r, const char *p, const char *end)
{
    static const unsigned char mark[] = {0xEF, 0xBB, 0xBF};
    while (r->bom < 3 && p < end) {
        if ((unsigned char)*p != mark[r->bom]) {
            if (r->bom) r->line = PDR_LINE_OTHER; /* a line that begins with something else */
            r->bom = 3;
            break;
        }
        r->bom++;
        p++;
    }
    return p;
}

void pdr_reader_feed(pdr_response *s, struct pdr_reader *r, const char *p, const char *end)
{
    p = skip_mark(r, p, end);
    if (s->kind == PDR_RESPONSE_SSE)
        feed_sse(s, r, p, end);
    else
        feed_json(s, r, p, end);
}

int pdr_response_feed(pdr_response *s, const char *chunk, size_t len)
{
    struct pdr_reader r;
    if (!pdr_struct_ok(s, sizeof *s)) return PDR_E_VERSION;
    if ((!chunk && len) || (s->kind != PDR_RESPONSE_JSON && s->kind != PDR_RESPONSE_SSE)) return PDR_E_INVALID;
    if (!len) return PDR_OK;
    memcpy(&r, s->state, sizeof r);
    pdr_reader_feed(s, &r, chunk, chunk + len);
    s->bytes += len;
    memcpy(s->state, &r, sizeof r);
    return PDR_OK;
}
