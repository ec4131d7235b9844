#include "prompt.h"

#include "json.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AVX2 1
#elif defined(__aarch64__) && defined(__ARM_NEON) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HAVE_NEON 1
#endif

int pdr_path_usable(int path)
{
    switch (path) {
    case PDR_PATH_PORTABLE:
        return 1;
#ifdef HAVE_AVX2
    case PDR_PATH_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("pclmul");
#endif
#ifdef HAVE_NEON
    case PDR_PATH_NEON:
        return 1;
#endif
    default:
        return 0;
    }
}

static int best_path(void)
{
    return pdr_path_usable(PDR_PATH_AVX2)   ? PDR_PATH_AVX2
           : pdr_path_usable(PDR_PATH_NEON) ? PDR_PATH_NEON
                                            : PDR_PATH_PORTABLE;
}

/* Defaults are those of pdr_config. */
static int resolve_limits(const pdr_limits *in, pdr_limits *l, pdr_error *err)
{
    int code = PDR_OK;
    if (!in)
        memset(l, 0, sizeof *l);
    else if ((code = pdr_struct_in(l, sizeof *l, in, err)))
        return code;
    if (!l->block_bytes) l->block_bytes = 512;
    if (!l->max_blocks) l->max_blocks = 4096;
    if (!l->max_depth) l->max_depth = 128;
    if (!l->max_batch) l->max_batch = 1024;
    if (!l->max_body) l->max_body = 32u << 20;
    if (l->block_bytes < 64 || l->block_bytes > 65536 || l->block_bytes % 4)
        return pdr_fail(err, PDR_E_INVALID, "block_bytes must be a multiple of 4 from 64 to 65536, not %u",
                        l->block_bytes);
    if (l->max_blocks > 65535)
        return pdr_fail(err, PDR_E_INVALID, "max_blocks is at most 65535, not %u", l->max_blocks);
    if (l->max_depth > PDR_JSON_DEPTH)
        return pdr_fail(err, PDR_E_INVALID, "max_depth is at most %d, not %u", PDR_JSON_DEPTH, l->max_depth);
    return PDR_OK;
}

static int run(int path, pdr_scan_job *job)
{
    switch (path) {
#ifdef HAVE_AVX2
    case PDR_PATH_AVX2:
        return pdr_scan_avx2(job);
#endif
#ifdef HAVE_NEON
    case PDR_PATH_NEON:
        return pdr_scan_neon(job);
#endif
    default:
        return pdr_scan_portable(job);
    }
}

/* Fills err for a job that failed. */
static int explain(const pdr_scan_job *job, int code, pdr_error *err)
{
    const char *body = (const char *)job->body;
    if (job->sentence)
        return pdr_fail_at(err, code, job->offset, pdr_json_line(body, job->len, job->offset), "%s%s", job->subject,
                           job->sentence);
    code = pdr_json_check(body, job->len, job->limits.max_depth, err);
    return code ? code : pdr_fail_at(err, PDR_E_PARSE, 0, 1, "the body is not valid JSON");
}

/* Everything in front of edit[], and what follows the edits; edit[] is written by the scan as far as it goes. */
static void clear_prompt(pdr_prompt *p, uint32_t api)
{
    const uint32_t size = p->struct_size;
    memset(p, 0, offsetof(pdr_prompt, edit));
    p->struct_size = size;
    p->api = api;
    p->batch = p->samples = 1;
    p->insert_at = p->samples_at = 0;
    p->samples_line = p->reserved = 0;
}

int pdr_scan_by(int path, const char *body, size_t len, uint32_t api, const pdr_limits *limits, pdr_prompt *out,
                uint64_t *hashes, size_t cap, pdr_error *err)
{
    pdr_scan_job job;
    pdr_prompt found;
    int code;
    if (!out || (!body && len)) return pdr_fail(err, PDR_E_INVALID, "body or out is NULL");
    if (out->struct_size < sizeof out->struct_size) return pdr_fail(err, PDR_E_VERSION, "struct_size is not set");
    if (api < PDR_API_GENERATE || api > PDR_API_OTHER) return pdr_fail(err, PDR_E_INVALID, "no such api: %u", api);
    if (!pdr_path_usable(path)) return pdr_fail(err, PDR_E_INVALID, "this processor cannot run path %d", path);
    if ((code = resolve_limits(limits, &job.limits, err))) return code;
    if (len > job.limits.max_body)
        return pdr_fail(err, PDR_E_TOO_LARGE, "the body has %zu bytes; at most %llu are allowed", len,
                        (unsigned long long)job.limits.max_body);
    job.body = (const uint8_t *)(body ? body : "");
    job.len = len;
    job.hashes = hashes;
    job.cap = hashes ? cap : 0;
    job.out = &found;
    job.offset = 0;
    job.subject = job.sentence = NULL;
    clear_prompt(&found, api);
    if ((code = run(path, &job))) return explain(&job, code, err);
    if (found.samples > 1) found.samples_line = pdr_json_line(body, len, found.samples_at);
    /* edit[] beyond the edits is not even copied */
    if (out->struct_size == sizeof found) {
        memcpy((char *)out + sizeof found.struct_size, (char *)&found + sizeof found.struct_size,
               offsetof(pdr_prompt, edit) - sizeof found.struct_size + found.edits * sizeof *found.edit);
        memcpy(&out->insert_at, &found.insert_at, sizeof found - offsetof(pdr_prompt, insert_at));
        return PDR_OK;
    }
    memset(found.edit + found.edits, 0, (PDR_MAX_EDITS - found.edits) * sizeof *found.edit);
    return pdr_struct_out(out, &found, sizeof found, err);
}

int pdr_scan(const char *body, size_t len, uint32_t api, const pdr_limits *limits, pdr_prompt *out, uint64_t *hashes,
             size_t cap, pdr_error *err)
{
    return pdr_scan_by(best_path(), body, len, api, limits, out, hashes, cap, err);
}

int pdr_member_by(int path, const char *body, size_t len, const char *name, size_t name_len, pdr_span *value)
{
    if ((!body && len) || (!name && name_len) || !value || !pdr_path_usable(path)) return PDR_E_INVALID;
    if (!body) body = "";
    if (!name) name = "";
    switch (path) {
#ifdef HAVE_AVX2
    case PDR_PATH_AVX2:
        return pdr_member_avx2(body, len, name, name_len, value);
#endif
#ifdef HAVE_NEON
    case PDR_PATH_NEON:
        return pdr_member_neon(body, len, name, name_len, value);
#endif
    default:
        return pdr_member_portable(body, len, name, name_len, value);
    }
}

int pdr_body_member(const char *body, size_t len, const char *name, size_t name_len, pdr_span *value)
{
    return pdr_member_by(best_path(), body, len, name, name_len, value);
}

int pdr_hash_tokens(const uint32_t *ids, size_t count, uint64_t salt, const pdr_limits *limits, uint64_t *hashes,
                    size_t cap, size_t *n)
{
    pdr_limits l;
    uint32_t most, got;
    int code = resolve_limits(limits, &l, NULL);
    if (code) return code;
    if ((!ids && count) || (!hashes && cap) || !n || count > SIZE_MAX / sizeof *ids) return PDR_E_INVALID;
    most = cap < l.max_blocks ? (uint32_t)cap : l.max_blocks;
#ifdef HAVE_AVX2
    if (pdr_path_usable(PDR_PATH_AVX2))
        got = pdr_tokens_avx2(ids, count, salt, l.block_bytes, hashes, most);
    else
#endif
        got = pdr_tokens_portable(ids, count, salt, l.block_bytes, hashes, most);
    *n = got;
    return PDR_OK;
}
