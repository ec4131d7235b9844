/* What is read of a request before it is decided, and what is sent of it afterwards. */
#include "gate.h"

#include <string.h>

#define TAIL_FIRST 512 /* enough for one room and host */

uint32_t gate_api(view path)
{
    if (view_is(path, "/v1/chat/completions")) return PDR_API_CHAT;
    if (view_is(path, "/v1/completions")) return PDR_API_COMPLETIONS;
    if (view_is(path, "/generate")) return PDR_API_GENERATE;
    return PDR_API_OTHER;
}

int gate_target(gate_job *job, view target, bytes *scratch, view *path, view *sent)
{
    *sent = target;
    if (gate_path(target, scratch, path) && !scratch->failed) {
        gate_refuse(job, job->gate, PDR_E_PARSE, "the path is malformed");
        return -1;
    }
    if (!scratch->failed) job->api = gate_api(*path);
    if (job->api != PDR_API_OTHER) *sent = gate_path_target(target, scratch, path);
    if (!scratch->failed) return 0;
    gate_give_up(job, "out of memory");
    return -1;
}

void gate_header(gate_job *job, view name, view value)
{
    const pdr_config *config = &job->gate->config;
    if (view_is_nocase(name, "content-encoding") && value.len && !view_is_nocase(value, "identity")) job->compressed = 1;
    if (config->tenant_header[0] && !job->tenant) job->tenant = pdr_tenant_hash(config, name.data, name.len, value.data, value.len);
}

int gate_is_object(view body, int json_type)
{
    static const char mark[] = "\xef\xbb\xbf\xfe\xff";
    size_t i = 0;

    /* behind white space, and behind a byte order mark or the zeros of UTF-16 and UTF-32, which Python's json takes as well */
    while (i < body.len && (body.data[i] == ' ' || (body.data[i] >= '\t' && body.data[i] <= '\r') || body.data[i] == 0 ||
                            memchr(mark, body.data[i], sizeof mark - 1)))
        i++;
    if (i == body.len || body.data[i] == '[') return 0;
    return body.data[i] == '{' || json_type;
}

int gate_rewrite(const gate_job *job, int leg, bytes *tail, pdr_slice *slices, size_t *n)
{
    size_t need = 0;
    int rc;

    tail->len = 0;
    if (job->body.len == 0) {
        *n = 0;
        return PDR_OK;
    }
    if (job->raw_body) { /* not JSON: passes as it is */
        memset(slices, 0, sizeof *slices);
        slices[0].length = job->body.len;
        *n = 1;
        return PDR_OK;
    }
    if (bytes_reserve(tail, TAIL_FIRST)) return PDR_E_SYSTEM;
    rc = pdr_rewrite_tail(&job->decision, &job->prompt, leg, 0, tail->data, tail->cap, &need);
    if (rc == PDR_E_NOSPACE) { /* a batch with many rooms */
        if (bytes_reserve(tail, need)) return PDR_E_SYSTEM;
        rc = pdr_rewrite_tail(&job->decision, &job->prompt, leg, 0, tail->data, tail->cap, &need);
    }
    if (rc != PDR_OK) return rc;
    tail->len = need;
    return pdr_rewrite_slices(&job->prompt, job->body.len, need, slices, n);
}

/* Text that is put together piece by piece, cut where it gets too long: for every request, so without printf. */
typedef struct line {
    char *at, *end; /* room for the zero is not in it */
} line;

static void put_text(line *l, const char *text)
{
    while (*text && l->at < l->end) *l->at++ = *text++;
    *l->at = '\0';
}

static void put_number(line *l, const char *before, uint64_t n)
{
    char digits[24], *p = digits + sizeof digits;

    *--p = '\0';
    do *--p = (char)('0' + n % 10);
    while (n /= 10);
    put_text(l, before);
    put_text(l, p);
}

void gate_address(char *out, size_t cap, const char *host, unsigned port, int brackets)
{
    const int six = brackets && strchr(host, ':');
    line l = {out, out + cap - 1};

    if (six) put_text(&l, "[");
    put_text(&l, host);
    put_number(&l, six ? "]:" : ":", port);
}

void gate_describe(const gate_job *job, char *hit, size_t hit_cap, char *why, size_t why_cap)
{
    const pdr_decision *d = &job->decision;
    line h = {hit, hit + hit_cap - 1}, w = {why, why + why_cap - 1};

    *hit = '\0';
    put_text(&w, job->why);
    if (job->decided) {
        put_number(&h, "", d->matched_tokens);
        put_number(&h, "/", d->prompt_tokens);
        put_number(&w, job->why[0] ? " cost=" : "cost=", d->cost_us);
        put_number(&w, " wait=", d->wait_us);
        put_number(&w, " prefill=", d->prefill_us);
        put_number(&w, " transfer=", d->transfer_us);
        put_number(&w, " decode=", d->decode_us);
        put_number(&w, " pairs=", d->candidates);
    }
    if (job->was_held) put_number(&w, " held=", job->held_ns / 1000);
}
