/*
 * Request bodies. First byte: call (bits 0-1), block size (bits 2-3), nesting limit (bits 4-5), whether hashes are
 * wanted (bit 6). Every path gives the same; what is refused as JSON is what pdr_json_check() refuses, for the same
 * reason; edits are in order and what is left without them is the same request without owned members.
 */
#include "json.h"
#include "prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(x)                                                                                                     \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "fuzz_scan.c:%d: %s\n", __LINE__, #x);                                                     \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define BLOCKS 64
#define MUTATOR_PREFIX 1
#include "json_mutator.h"

typedef struct result {
    int code;
    pdr_prompt prompt;
    pdr_error err;
    uint64_t hashes[BLOCKS];
} result;

static void scan(int path, const char *body, size_t len, uint32_t api, const pdr_limits *limits, size_t cap, result *r)
{
    memset(r, 0, sizeof *r);
    pdr_init_struct(&r->prompt, sizeof r->prompt);
    pdr_init_struct(&r->err, sizeof r->err);
    r->code = pdr_scan_by(path, body, len, api, limits, &r->prompt, cap ? r->hashes : NULL, cap, &r->err);
    if (r->code) memset(r->hashes, 0, sizeof r->hashes);
}

static void check_edits(const char *body, size_t len, const pdr_limits *limits, size_t cap, const result *r)
{
    const pdr_prompt *p = &r->prompt;
    char *rest = malloc(len + 1);
    size_t n = 0, at = 0;
    pdr_error err;
    result again;
    REQUIRE(rest);
    REQUIRE(p->object.begin < p->insert_at && p->insert_at < p->object.end && p->object.end <= len);
    REQUIRE(p->model.begin <= p->model.end && p->model.end <= p->insert_at && p->edits <= PDR_MAX_EDITS);
    if (p->model.end)
        REQUIRE(body[p->model.begin] == '"' && body[p->model.end - 1] == '"' && p->model.end - p->model.begin >= 2);
    for (uint32_t i = 0; i < p->edits; i++) {
        REQUIRE(p->edit[i].begin >= at && p->edit[i].begin > p->object.begin && p->edit[i].end > p->edit[i].begin &&
                p->edit[i].end <= p->insert_at);
        memcpy(rest + n, body + at, p->edit[i].begin - at);
        n += p->edit[i].begin - at;
        at = p->edit[i].end;
    }
    memcpy(rest + n, body + at, len - at);
    n += len - at;
    pdr_init_struct(&err, sizeof err);
    REQUIRE(pdr_json_check(rest, n, limits->max_depth, &err) == PDR_OK);
    scan(PDR_PATH_PORTABLE, rest, n, p->api, limits, cap, &again);
    REQUIRE(again.code == PDR_OK && again.prompt.edits == 0 && again.prompt.members == p->members &&
            again.prompt.flags == p->flags);
    REQUIRE(again.prompt.batch == p->batch && again.prompt.samples == p->samples && again.prompt.blocks == p->blocks);
    REQUIRE(!memcmp(again.hashes, r->hashes, sizeof again.hashes));
    free(rest);
}

/* A member by name: found in what is valid, alike on every path, and where the scan says that it is. */
static void check_member(const char *body, size_t len, const result *r)
{
    static const char *const names[] = {"model", "n", "", "messages"};
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    int valid = pdr_json_check(body, len, PDR_JSON_DEPTH, &err) == PDR_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        pdr_span one = {0, 0}, other = {0, 0};
        int code = pdr_member_by(PDR_PATH_PORTABLE, body, len, names[i], strlen(names[i]), &one);
        REQUIRE(valid ? code == PDR_OK || code == PDR_E_NOT_FOUND : code == PDR_E_PARSE);
        for (int path = PDR_PATH_AVX2; path <= PDR_PATH_NEON; path++) {
            if (!pdr_path_usable(path)) continue;
            REQUIRE(pdr_member_by(path, body, len, names[i], strlen(names[i]), &other) == code && !memcmp(&one, &other, sizeof one));
        }
        if (code) continue;
        REQUIRE(one.begin < one.end && one.end < len);
        if (i == 0 && !r->code && body[one.begin] == '"')
            REQUIRE(r->prompt.model.begin == one.begin && r->prompt.model.end == one.end);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t blocks[] = {64, 512, 4100, 68}, depths[] = {128, 3, 1024, 64};
    pdr_limits limits;
    pdr_error err;
    result r, other;
    uint32_t api;
    size_t len, cap;
    char *body;
    int checked;
    if (!size) return 0;
    pdr_init_struct(&limits, sizeof limits);
    api = (data[0] & 3u) + 1;
    limits.block_bytes = blocks[data[0] >> 2 & 3];
    limits.max_depth = depths[data[0] >> 4 & 3];
    cap = data[0] & 64 ? 0 : BLOCKS;
    len = size - 1;
    body = malloc(len + !len);
    REQUIRE(body);
    memcpy(body, data + 1, len);
    scan(PDR_PATH_PORTABLE, body, len, api, &limits, cap, &r);
    for (int path = PDR_PATH_AVX2; path <= PDR_PATH_NEON; path++) {
        if (!pdr_path_usable(path)) continue;
        scan(path, body, len, api, &limits, cap, &other);
        REQUIRE(!memcmp(&r, &other, sizeof r));
    }
    pdr_init_struct(&err, sizeof err);
    checked = pdr_json_check(body, len, limits.max_depth, &err);
    if (checked)
        REQUIRE(r.code == checked && !memcmp(&r.err, &err, sizeof err) && err.offset <= len && err.line);
    else
        REQUIRE(!r.code ||
                (r.err.message[0] && r.err.offset < len && (api != PDR_API_OTHER || r.code == PDR_E_TOO_LARGE)));
    check_member(body, len, &r);
    if (!r.code) check_edits(body, len, &limits, cap, &r);
    free(body);
    return 0;
}
