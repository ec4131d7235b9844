/* What is read of a request before it is decided, and what is sent of it afterwards. */
#include "gate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TAIL_FIRST 512 /* enough for one room and host */

uint32_t gate_api(view path)
{
    if (view_is(path, "/v1/chat/completions")) return PDR_API_CHAT;
    if (view_is(path, "/v1/completions")) return PDR_API_COMPLETIONS;
    if (view_is(path, "/generate")) return PDR_API_GENERATE;
    return PDR_API_OTHER;
}

void gate_header(gate_job *job, view name, view value)
{
    const pdr_config *config = &job->gate->config;
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

void gate_describe(const gate_job *job, char *hit, size_t hit_cap, char *why, size_t why_cap)
{
    const pdr_decision *d = &job->decision;
    char held[40] = "";

    hit[0] = '\0';
    if (job->was_held) (void)snprintf(held, sizeof held, " held=%" PRIu64, job->held_ns / 1000);
    if (!job->decided) {
        (void)snprintf(why, why_cap, "%s%s", job->why, held);
        return;
    }
    (void)snprintf(hit, hit_cap, "%" PRIu64 "/%" PRIu64, d->matched_tokens, d->prompt_tokens);
    (void)snprintf(why, why_cap, "%s%scost=%" PRIu64 " wait=%" PRIu64 " prefill=%" PRIu64 " transfer=%" PRIu64 " decode=%" PRIu64 " pairs=%u%s",
                   job->why, job->why[0] ? " " : "", d->cost_us, d->wait_us, d->prefill_us, d->transfer_us, d->decode_us, d->candidates, held);
}
