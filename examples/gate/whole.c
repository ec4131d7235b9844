#include "whole.h"

#include <stdlib.h>
#include <string.h>

int whole_asked(whole **w, const pdr_prompt *prompt)
{
    if (prompt->flags & PDR_PROMPT_RETURN_LOGPROB && !*w) return (*w = calloc(1, sizeof **w)) ? 0 : -1;
    return 0;
}

void whole_decided(whole *w, const pdr_decision *decision, const pdr_prompt *prompt)
{
    if (!w) return;
    w->wanted = prompt->api != PDR_API_OTHER && pdr_merge_wanted(decision, prompt);
    w->ended = 0;
    w->prefill.len = 0;
}

void whole_keep(whole *w, view piece)
{
    if (!w->wanted) return;
    if (w->prefill.len + piece.len <= WHOLE_TEXT_MAX) bytes_put_view(&w->prefill, piece);
    else w->wanted = 0;
    if (w->prefill.failed) w->lost = 1;
}

void whole_prefill_ended(whole *w, int good)
{
    w->ended = 1;
    if (!good) w->wanted = 0;
}

/* The end of the last whole event; the first `known` bytes have none. */
static size_t whole_events(view v, size_t known)
{
    for (size_t n = v.len; n >= 2 && n > known; n--) {
        if (v.data[n - 1] != '\n') continue;
        if (v.data[n - 2] == '\n' || (n >= 4 && v.data[n - 2] == '\r' && v.data[n - 3] == '\n')) return n;
    }
    return 0;
}

/* As decode gave it. */
static view as_it_is(whole *w, view piece)
{
    if (w->rest.len == 0) return piece;
    w->out.len = 0;
    bytes_put_view(&w->out, (view){w->rest.data, w->rest.len});
    bytes_put_view(&w->out, piece);
    w->rest.len = 0;
    if (w->out.failed) w->lost = 1;
    return (view){w->out.data, w->out.len};
}

view whole_pass(whole *w, uint32_t api, uint32_t kind, view piece, int end)
{
    size_t ready, need = 0, known = w->rest.len;

    if (!w->wanted || w->rest.len + piece.len > WHOLE_TEXT_MAX) return as_it_is(w, piece);
    if (!w->begun) {
        w->begun = 1;
        pdr_merge_init(&w->state, api, kind);
    }
    if (piece.len) bytes_put_view(&w->rest, piece);
    if (w->rest.failed || w->lost) {
        w->lost = 1;
        return (view){"", 0};
    }
    ready = end ? w->rest.len : kind == PDR_RESPONSE_SSE ? whole_events((view){w->rest.data, w->rest.len}, known) : 0;
    if (ready == 0) return (view){"", 0};
    w->out.len = 0;
    (void)pdr_merge_text(&w->state, w->prefill.data, w->prefill.len, w->rest.data, ready, NULL, 0, &need);
    if (bytes_reserve(&w->out, need) ||
        pdr_merge_text(&w->state, w->prefill.data, w->prefill.len, w->rest.data, ready, w->out.data, w->out.cap, &need) != PDR_OK) {
        w->wanted = 0;
        if (w->out.failed) w->lost = 1;
        return as_it_is(w, (view){"", 0});
    }
    w->rest.len -= ready;
    memmove(w->rest.data, w->rest.data + ready, w->rest.len);
    w->out.len = need;
    return (view){w->out.data, need};
}

void whole_free(whole **w)
{
    if (!*w) return;
    bytes_free(&(*w)->prefill);
    bytes_free(&(*w)->rest);
    bytes_free(&(*w)->out);
    free(*w);
    *w = NULL;
}
