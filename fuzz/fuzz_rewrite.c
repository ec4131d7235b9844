/*
 * Scan, rewrite, scan again. Bytes 0..3 shape the decision, the rest is a request body. For every body that the scan
 * accepts:
 *  - both legs' bodies are valid again, and keep members, batch, samples and the whole chain of block hashes;
 *  - the only owned members in them are the new ones;
 *  - slices make the same bytes as the buffer, and all bytes outside the edits are the client's;
 *  - rewriting a rewritten body for another decision gives what rewriting the client's body gives, but for white space.
 */
#include "pdroute/pdroute.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "line %d: %s\n", __LINE__, #x);                                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)
#define HASHES 256
#define MUTATOR_PREFIX 4
#include "json_mutator.h"

static pdr_decision decide(const uint8_t *shape, const pdr_prompt *p)
{
    static const char *const hosts[] = {"10.0.0.5", "::1", "prefill-0.svc", "a\"b\\\x01\xff"};
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    d.outcome = PDR_SEND;
    d.mode = shape[0] & 1 ? PDR_MODE_SINGLE : PDR_MODE_PD;
    d.batch = p->batch > 1 ? p->batch : 0;
    d.prefill_rank = d.decode_rank = PDR_NONE;
    if (shape[0] & 2) {
        d.prefill_dp_size = 1 + shape[1] % 16;
        d.prefill_rank = shape[2] % d.prefill_dp_size;
    }
    if (shape[0] & 4) d.decode_rank = shape[1];
    d.bootstrap_port = shape[0] & 8 ? 0 : 8998;
    d.room_key = shape[3];
    d.room_counter = shape[2];
    d.room = 1 + (uint64_t)shape[3] * 0x7fffffffffffffu;
    strcpy(d.bootstrap_host, hosts[shape[0] >> 4 & 3]);
    return d;
}

static char *rewrite(const pdr_decision *d, const pdr_prompt *p, int leg, const char *body, size_t len, size_t *need)
{
    size_t asked;
    CHECK(pdr_rewrite(d, p, leg, body, len, NULL, 0, &asked) == PDR_OK);
    char *out = malloc(asked ? asked : 1);
    if (asked) CHECK(pdr_rewrite(d, p, leg, body, len, out, asked - 1, need) == PDR_E_NOSPACE && *need == asked);
    CHECK(pdr_rewrite(d, p, leg, body, len, out, asked, need) == PDR_OK && *need == asked);
    return out;
}

static void check_slices(const pdr_decision *d, const pdr_prompt *p, int leg, const char *body, size_t len,
                         const char *out, size_t need)
{
    pdr_slice slice[PDR_MAX_SLICES];
    size_t n = PDR_MAX_SLICES, tail_len, at = 0, from_body = 0, cut = 0;
    CHECK(pdr_rewrite_tail(d, p, leg, 0, NULL, 0, &tail_len) == PDR_OK);
    char *tail = malloc(tail_len ? tail_len : 1);
    CHECK(pdr_rewrite_tail(d, p, leg, 0, tail, tail_len, &tail_len) == PDR_OK);
    CHECK(pdr_rewrite_slices(p, len, tail_len, slice, &n) == PDR_OK);
    for (size_t i = 0; i < n; at += slice[i++].length) {
        const char *source = slice[i].source ? tail : body;
        CHECK(slice[i].length && slice[i].offset + slice[i].length <= (slice[i].source ? tail_len : len));
        CHECK(at + slice[i].length <= need && !memcmp(out + at, source + slice[i].offset, slice[i].length));
        if (!slice[i].source) from_body += slice[i].length;
    }
    CHECK(at == need);
    for (uint32_t i = 0; i < p->edits; i++) cut += p->edit[i].end - p->edit[i].begin;
    CHECK(from_body == len - cut && need == from_body + tail_len);
    free(tail);
}

/* Removes white space between tokens; returns the new length. */
static size_t squeeze(char *s, size_t n)
{
    size_t out = 0;
    int inside = 0;
    for (size_t i = 0; i < n; i++) {
        if (!inside && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r')) continue;
        if (s[i] == '"') inside = !inside;
        if (inside && s[i] == '\\') s[out++] = s[i++];
        s[out++] = s[i];
    }
    return out;
}

static void check_leg(const pdr_decision *d, const pdr_decision *other, const pdr_prompt *p, const uint64_t *hashes,
                      int leg, const char *body, size_t len)
{
    static uint64_t again_hashes[HASHES];
    pdr_prompt again;
    pdr_error err;
    size_t need, retry_need, direct_need;
    char *out = rewrite(d, p, leg, body, len, &need), *retry, *direct;
    uint32_t members = 0;

    check_slices(d, p, leg, body, len, out, need);
    pdr_init_struct(&again, sizeof again);
    pdr_init_struct(&err, sizeof err);
    if (pdr_scan(out, need, p->api, NULL, &again, again_hashes, HASHES, &err) != PDR_OK) {
        fprintf(stderr, "%s\n%.*s\n", err.message, (int)need, out);
        abort();
    }
    if (d->mode == PDR_MODE_PD)
        members = 3u + ((leg == PDR_LEG_PREFILL ? d->prefill_rank : d->decode_rank) != PDR_NONE) +
                  (d->prefill_rank != PDR_NONE);
    CHECK(again.edits == members);
    CHECK(again.members == p->members && again.batch == p->batch && again.samples == p->samples &&
          again.flags == p->flags);
    CHECK(again.blocks == p->blocks && again.session == p->session && again.max_tokens == p->max_tokens &&
          again.priority == p->priority);
    CHECK(!memcmp(hashes, again_hashes, (p->blocks < HASHES ? p->blocks : HASHES) * sizeof *hashes));

    retry = rewrite(other, &again, leg, out, need, &retry_need);
    direct = rewrite(other, p, leg, body, len, &direct_need);
    retry_need = squeeze(retry, retry_need);
    direct_need = squeeze(direct, direct_need);
    CHECK(retry_need == direct_need && !memcmp(retry, direct, direct_need));
    free(retry);
    free(direct);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t hashes[HASHES];
    pdr_prompt p;
    pdr_decision d, other;
    uint8_t shape[4];
    if (size < 4) return 0;
    pdr_init_struct(&p, sizeof p);
    if (pdr_scan((const char *)data + 4, size - 4, PDR_API_GENERATE + (data[0] >> 6), NULL, &p, hashes, HASHES, NULL) !=
        PDR_OK)
        return 0;
    d = decide(data, &p);
    for (int i = 0; i < 4; i++) shape[i] = (uint8_t)(data[i] * 7 + 3);
    other = decide(shape, &p);
    for (int leg = PDR_LEG_PREFILL; leg <= PDR_LEG_DECODE; leg++)
        check_leg(&d, &other, &p, hashes, leg, (const char *)data + 4, size - 4);
    return 0;
}
