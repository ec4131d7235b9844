/* lib/prompt.c: what a scan finds in a body. */
#include "scan_paths.h"

#include "hash.h"

static int scan(const char *body, uint32_t api, pdr_prompt *p, pdr_error *err)
{
    scanned s;
    int code = scan_everywhere(body, strlen(body), api, NULL, 0, &s);
    *p = s.prompt;
    *err = s.err;
    return code;
}

/* The body without its edits, and with `tail` where new members go. */
static const char *without_edits(const char *body, const pdr_prompt *p, const char *tail)
{
    static char out[4096];
    size_t n = 0;
    uint64_t at = 0, len = strlen(body);
    for (uint32_t i = 0; i < p->edits; i++) {
        assert_true(p->edit[i].begin >= at && p->edit[i].end > p->edit[i].begin && p->edit[i].end <= p->insert_at);
        memcpy(out + n, body + at, p->edit[i].begin - at);
        n += p->edit[i].begin - at;
        at = p->edit[i].end;
    }
    memcpy(out + n, body + at, p->insert_at - at);
    n += p->insert_at - at;
    memcpy(out + n, tail, strlen(tail));
    n += strlen(tail);
    memcpy(out + n, body + p->insert_at, len - p->insert_at);
    out[n + len - p->insert_at] = 0;
    return out;
}

static void owned_members_are_cut_with_one_comma(void **state)
{
    static const struct {
        const char *body, *cut, *added;
        uint32_t members, edits;
    } rows[] = {
        {"{}", "{}", "{T}", 0, 0},
        {"{ }", "{ }", "{T }", 0, 0},
        {"{\"a\":1}", "{\"a\":1}", "{\"a\":1T}", 1, 0},
        {"{\"bootstrap_room\":1}", "{}", "{T}", 0, 1},
        {"{ \"bootstrap_room\" : 1 }", "{  }", "{ T }", 0, 1},
        {"{\"bootstrap_room\":1,\"bootstrap_port\":[2]}", "{}", "{T}", 0, 2},
        {"{\"bootstrap_room\":1,\"a\":2}", "{\"a\":2}", "{\"a\":2T}", 1, 1},
        {"{\"a\":2,\"bootstrap_room\":1}", "{\"a\":2}", "{\"a\":2T}", 1, 1},
        {"{\"a\":2,\"bootstrap_room\":1,\"b\":3}", "{\"a\":2,\"b\":3}", "{\"a\":2,\"b\":3T}", 2, 1},
        {"{\"a\":2 , \"decode_tp_size\":1 , \"bootstrap\\u005fhost\":\"x\" , \"b\":3 }", "{\"a\":2   , \"b\":3 }",
         "{\"a\":2   , \"b\":3T }", 2, 2},
        {"{\"kv_transfer_params\":{\"a\":[1,2]},\"routed_dp_rank\":0,\"a\":2,\"data_parallel_rank\":1,\"disagg_prefill_"
         "dp_rank\":null}",
         "{\"a\":2}", "{\"a\":2T}", 1, 4},
        {" \n{\"bootstrap_pair_key\":\"}\",\"bootstrap_room\":1}\n", " \n{}\n", " \n{T}\n", 0, 2},
    };
    pdr_prompt p;
    pdr_error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(scan(rows[i].body, PDR_API_OTHER, &p, &err), PDR_OK);
        assert_int_equal(p.members, rows[i].members);
        assert_int_equal(p.edits, rows[i].edits);
        assert_string_equal(without_edits(rows[i].body, &p, ""), rows[i].cut);
        assert_string_equal(without_edits(rows[i].body, &p, "T"), rows[i].added);
    }
}

static void too_many_owned_members(void **state)
{
    char body[2048], *p = body;
    pdr_prompt found;
    pdr_error err;
    (void)state;
    p += sprintf(p, "{\"a\":1");
    for (int i = 0; i < PDR_MAX_EDITS; i++) p += sprintf(p, ",\"bootstrap_room\":%d", i);
    strcpy(p, "}");
    assert_int_equal(scan(body, PDR_API_OTHER, &found, &err), PDR_OK);
    assert_int_equal(found.edits, PDR_MAX_EDITS);
    assert_string_equal(without_edits(body, &found, ""), "{\"a\":1}");
    strcpy(p, ",\"bootstrap_room\":32}");
    assert_int_equal(scan(body, PDR_API_OTHER, &found, &err), PDR_E_TOO_LARGE);
}

/* Any mix of owned and other members, spaced anyhow: what stays is what was there without the owned ones. */
static void random_edits(void **state)
{
    static const char *const owned[] = {"bootstrap_host",       "bootstrap_port",       "bootstrap_room",
                                        "routed_dp_rank",       "data_parallel_rank",   "disagg_prefill_dp_rank",
                                        "bootstrap_pair_key",   "decode_tp_size",       "kv_transfer_params",
                                        "bootstrap\\u005froom", "\\u0062ootstrap_host", "decode_tp_siz\\u0065"};
    static const char *const kept[] = {"model", "bootstrap_hosts",   "bootstrap_roo",         "Bootstrap_room", "x",
                                       "",      "kv_transfer_param", "bootstrap\\\\u005froom"};
    static const char *const values[] = {
        "1", "\"x\"", "[1,{\"bootstrap_room\":2}]", "{\"bootstrap_room\":1,\"a\":[]}", "null", "\",\\\"}\"", "-1.5e3"};
    static const char *const spaces[] = {"", "", "", " ", "\n ", "\t"};
    uint64_t seed = 7;
    (void)state;
#define PICK(a) ((a)[test_random(&seed) % (sizeof(a) / sizeof *(a))])
    for (int round = 0; round < 4000; round++) {
        char body[2048], want[2048], *p = body, *q = want;
        const char *cut;
        uint32_t count = test_random(&seed) % 7, members = 0, edits = 0;
        pdr_prompt found;
        pdr_error err;
        p += sprintf(p, "{");
        q += sprintf(q, "{");
        for (uint32_t i = 0; i < count; i++) {
            int mine = test_random(&seed) % 2;
            const char *name = mine ? PICK(owned) : PICK(kept), *value = PICK(values);
            p += sprintf(p, "%s%s\"%s\"%s", PICK(spaces), i ? "," : "", name,
                         PICK(spaces)); /* a space before a comma belongs to what was before */
            p += sprintf(p, ":%s%s%s", PICK(spaces), value, PICK(spaces));
            if (!mine) q += sprintf(q, "%s\"%s\":%s", members ? "," : "", name, value);
            members += !mine;
            edits += (uint32_t)mine;
        }
        strcpy(p, "}");
        strcpy(q, "}");
        assert_int_equal(scan(body, PDR_API_OTHER, &found, &err), PDR_OK);
        assert_int_equal(found.members, members);
        assert_int_equal(found.edits, edits);
        cut = without_edits(body, &found, "");
        assert_int_equal(pdr_json_check(cut, strlen(cut), 128, &err), PDR_OK);
        for (p = body; *cut; cut++) /* no value has white space in it */
            if (!pdr_json_space((unsigned char)*cut)) *p++ = *cut;
        *p = 0;
        assert_string_equal(body, want);
    }
}

/* --------------------------------------------------------------------------------------------------------- what is
 * asked for */

static void batches(void **state)
{
    enum { G = PDR_API_GENERATE, C = PDR_API_COMPLETIONS, M = PDR_API_CHAT };
    enum { B = PDR_PROMPT_BATCH, T = PDR_PROMPT_TOKENS };
    static const struct {
        uint32_t api;
        const char *body;
        int code;
        uint32_t batch, samples, flags;
        uint64_t tokens, bytes;
        const char *says;
    } rows[] = {
        {G, "{\"text\":\"hi\"}", 0, 1, 1, 0, 0, 2, ""},
        {G, "{\"text\":[\"hi\"]}", 0, 1, 1, B, 0, 2, ""},
        {G, "{\"text\":[\"hi\",\"\\u00e9\",\"x\"]}", 0, 3, 1, B, 0, 5, ""},
        {G, "{\"text\":\"\"}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "text holds an empty string"},
        {G, "{\"text\":[\"hi\",\"\"]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "text holds an empty string"},
        {C, "{\"prompt\":\"\"}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "prompt holds an empty string"},
        {G, "{\"text\":[]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "text is an empty list"},
        {G, "{\"text\":[\"a\",1]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "text must be"},
        {G, "{\"text\":[1]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "text must be"},
        {G, "{\"text\":[null]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "text must be"},
        {G, "{\"text\":[[\"a\"]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "text must be"},
        {G, "{\"text\":7}", PDR_E_PARSE, 0, 0, 0, 0, 0, "text must be"},
        {G, "{\"text\":{}}", PDR_E_PARSE, 0, 0, 0, 0, 0, "text must be"},
        {G, "{\"text\":null}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "only one"},
        {G, "{}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "only one"},
        {G, "{\"text\":\"a\",\"input_ids\":[1]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "only one"},
        {G, "{\"text\":\"a\",\"input_ids\":null}", 0, 1, 1, 0, 0, 1, ""},
        {G, "{\"input_ids\":[1,2,3]}", 0, 1, 1, T, 3, 12, ""},
        {G, "{\"input_ids\":[0,4294967295]}", 0, 1, 1, T, 2, 8, ""},
        {G, "{\"input_ids\":[[1,2,3]]}", 0, 1, 1, T | B, 3, 12, ""},
        {G, "{\"input_ids\":[[1,2],[3],[4,5,6]]}", 0, 3, 1, T | B, 6, 24, ""},
        {G, "{\"input_ids\":[]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "input_ids is an empty list"},
        {G, "{\"input_ids\":[[]]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "empty list of token ids"},
        {G, "{\"input_ids\":[[1],[]]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "empty list of token ids"},
        {G, "{\"input_ids\":[1,[2]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "all of one kind"},
        {G, "{\"input_ids\":[[1],2]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "mixes"},
        {G, "{\"input_ids\":[[[1]]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":[-1]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":[4294967296]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":[123456789012345678901234567890]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":[1.0]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":[1e2]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":[\"1\"]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "token ids"},
        {G, "{\"input_ids\":\"1\"}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_ids must"},
        {G, "{\"input_embeds\":[[0.5,1],[2,-3]]}", 0, 1, 1, T, 2, 0, ""},
        {G, "{\"input_embeds\":[[[0.5,1],[2,3]],[[1,1]]]}", 0, 2, 1, T | B, 3, 0, ""},
        {G, "{\"input_embeds\":[[[0.5]]]}", 0, 1, 1, T | B, 1, 0, ""},
        {G, "{\"input_embeds\":[]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "empty list"},
        {G, "{\"input_embeds\":[0.5]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[1],[[1]]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":7}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[[-1]],[2]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[[1]],[2,3]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[[1],2]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[[1],[]]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[[1],[true]]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"input_embeds\":[[[-1]]]}", 0, 1, 1, T | B, 1, 0, ""},
        {G, "{\"input_embeds\":[[-1],[-2]]}", 0, 1, 1, T, 2, 0, ""},
        {G, "{\"input_embeds\":[[\"a\"]]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "input_embeds must"},
        {G, "{\"text\":\"a\",\"n\":3}", 0, 1, 1, 0, 0, 1, ""}, /* /generate has no n of its own */
        {G, "{\"text\":\"a\",\"sampling_params\":{\"n\":3}}", 0, 1, 3, 0, 0, 1, ""},
        {G, "{\"text\":\"a\",\"sampling_params\":null}", 0, 1, 1, 0, 0, 1, ""},
        {G, "{\"text\":\"a\",\"sampling_params\":{\"n\":null}}", PDR_E_PARSE, 0, 0, 0, 0, 0, "n must be"},
        {G, "{\"text\":\"a\",\"sampling_params\":{\"n\":0}}", PDR_E_PARSE, 0, 0, 0, 0, 0, "n must be"},
        {G, "{\"text\":\"a\",\"sampling_params\":{\"n\":\"2\"}}", PDR_E_PARSE, 0, 0, 0, 0, 0, "n must be"},
        {G, "{\"text\":\"a\",\"sampling_params\":{\"n\":2,\"n\":1}}", 0, 1, 1, 0, 0, 1, ""},
        {G, "{\"text\":\"a\",\"sampling_params\":{\"\\u006e\":2}}", 0, 1, 2, 0, 0, 1, ""},
        {G, "{\"text\":\"a\",\"sampling_params\":7}", PDR_E_PARSE, 0, 0, 0, 0, 0, "sampling_params must"},
        {G, "{\"text\":[\"a\",\"b\"],\"sampling_params\":[{\"n\":2},{\"n\":2}]}", 0, 2, 2, B, 0, 2, ""},
        {G, "{\"text\":[\"a\",\"b\"],\"sampling_params\":[{\"n\":2},{}]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0,
         "n differs"},
        {G, "{\"text\":[\"a\",\"b\"],\"sampling_params\":[{}]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "length"},
        {G, "{\"text\":\"a\",\"sampling_params\":[{}]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "length"},
        {G, "{\"text\":[\"a\"],\"sampling_params\":[{}]}", 0, 1, 1, B, 0, 1, ""},
        {G, "{\"text\":[\"a\"],\"sampling_params\":[1]}", PDR_E_PARSE, 0, 0, 0, 0, 0,
         "every element of sampling_params"},
        {G, "{\"text\":\"a\",\"text\":[\"b\",\"c\"]}", 0, 2, 1, B, 0, 2, ""},
        {G, "{\"t\\u0065xt\":[\"b\",\"c\"]}", 0, 2, 1, B, 0, 2, ""},
        {C, "{\"prompt\":\"hi\"}", 0, 1, 1, 0, 0, 2, ""},
        {C, "{\"prompt\":[\"hi\"]}", 0, 1, 1, B, 0, 2, ""},
        {C, "{\"prompt\":[\"hi\",\"ho\"],\"n\":2}", 0, 2, 2, B, 0, 4, ""},
        {C, "{\"prompt\":[1,2,3]}", 0, 1, 1, T, 3, 12, ""},
        {C, "{\"prompt\":[[1,2,3],[4]]}", 0, 2, 1, T | B, 4, 16, ""},
        {C, "{\"prompt\":[]}", PDR_E_UNSUPPORTED, 0, 0, 0, 0, 0, "prompt is an empty list"},
        {C, "{\"prompt\":[\"a\",1]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "prompt must"},
        {C, "{\"prompt\":[1,\"a\"]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "prompt must"},
        {C, "{\"prompt\":[true]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "prompt must"},
        {C, "{\"prompt\":{}}", PDR_E_PARSE, 0, 0, 0, 0, 0, "prompt must"},
        {C, "{\"prompt\":null}", PDR_E_PARSE, 0, 0, 0, 0, 0, "prompt is missing"},
        {C, "{\"prompt\":\"a\",\"n\":null}", 0, 1, 1, 0, 0, 1, ""},
        {C, "{\"prompt\":\"a\",\"n\":1.5}", PDR_E_PARSE, 0, 0, 0, 0, 0, "n must be"},
        {C, "{\"prompt\":\"a\",\"n\":4294967296}", PDR_E_PARSE, 0, 0, 0, 0, 0, "n must be"},
        {M, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"n\":2}", 0, 1, 2, 0, 0, 10, ""},
        {M, "{\"messages\":[]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "messages must"},
        {M, "{\"messages\":\"hi\"}", PDR_E_PARSE, 0, 0, 0, 0, 0, "messages must"},
        {M, "{\"messages\":[\"hi\"]}", PDR_E_PARSE, 0, 0, 0, 0, 0, "every element of messages"},
        {M, "{\"prompt\":\"hi\"}", PDR_E_PARSE, 0, 0, 0, 0, 0, "messages is missing"},
    };
    pdr_prompt p;
    pdr_error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int code = scan(rows[i].body, rows[i].api, &p, &err);
        if (code != rows[i].code || !strstr(err.message, rows[i].says))
            fail_msg("%s: %d %s", rows[i].body, code, err.message);
        if (code) continue;
        if (p.batch != rows[i].batch || p.samples != rows[i].samples || p.flags != rows[i].flags ||
            p.prompt_tokens != rows[i].tokens || p.prompt_bytes != rows[i].bytes)
            fail_msg("%s: batch %u samples %u flags %u tokens %u bytes %u", rows[i].body, p.batch, p.samples, p.flags,
                     (unsigned)p.prompt_tokens, (unsigned)p.prompt_bytes);
    }
}

static void small_members(void **state)
{
    enum { S = PDR_PROMPT_STREAM, U = PDR_PROMPT_USAGE, L = PDR_PROMPT_RETURN_LOGPROB };
    static const struct {
        uint32_t api;
        const char *members;
        uint32_t flags;
        uint64_t max_tokens;
        int64_t priority;
    } rows[] = {
        {PDR_API_CHAT, "\"x\":0", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":true", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":false", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":null", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":false,\"str\\u0065am\":true", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":true,\"stream\":false", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":1", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":1.0", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":1.0 ", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":1.0,\"x\":1", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":1.5", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":1.05", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":1e0", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":\"\"", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":\"trueish\"", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":\"Yes\"", S, 0, 0},
        {PDR_API_CHAT, "\"stream\":\"off\"", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":0", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":10", 0, 0, 0},
        {PDR_API_CHAT, "\"stream\":[true]", 0, 0, 0},
        {PDR_API_CHAT, "\"stream_options\":{\"include_usage\":true}", U, 0, 0},
        {PDR_API_CHAT, "\"stream_options\":{\"a\":[1,{\"include_usage\":true}]}", 0, 0, 0},
        {PDR_API_CHAT, "\"stream_options\":null", 0, 0, 0},
        {PDR_API_CHAT, "\"stream_options\":{}", 0, 0, 0},
        {PDR_API_CHAT, "\"stream_options\":\"x\"", 0, 0, 0},
        {PDR_API_CHAT, "\"logprobs\":true", L, 0, 0},
        {PDR_API_CHAT, "\"logprobs\":false", 0, 0, 0},
        {PDR_API_COMPLETIONS, "\"logprobs\":0", L, 0, 0},
        {PDR_API_COMPLETIONS, "\"logprobs\":null", 0, 0, 0},
        {PDR_API_GENERATE, "\"return_logprob\":true", L, 0, 0},
        {PDR_API_GENERATE, "\"return_logprob\":[false,true]", L, 0, 0},
        {PDR_API_GENERATE, "\"return_logprob\":[false]", 0, 0, 0},
        {PDR_API_GENERATE, "\"logprobs\":true", 0, 0, 0},
        {PDR_API_CHAT, "\"max_tokens\":50", 0, 50, 0},
        {PDR_API_CHAT, "\"max_completion_tokens\":60,\"max_tokens\":50", 0, 60, 0},
        {PDR_API_CHAT, "\"max_completion_tokens\":null,\"max_tokens\":50", 0, 50, 0},
        {PDR_API_CHAT, "\"max_tokens\":-5", 0, 0, 0},
        {PDR_API_CHAT, "\"max_tokens\":\"5\"", 0, 0, 0},
        {PDR_API_CHAT, "\"max_tokens\":99999999999999999999999", 0, INT64_MAX, 0},
        {PDR_API_GENERATE, "\"max_tokens\":50", 0, 0, 0},
        {PDR_API_GENERATE, "\"sampling_params\":{\"max_new_tokens\":70}", 0, 70, 0},
        {PDR_API_CHAT, "\"priority\":7", 0, 0, 7},
        {PDR_API_CHAT, "\"priority\":-7", 0, 0, -7},
        {PDR_API_CHAT, "\"priority\":\"7\"", 0, 0, 0},
        {PDR_API_CHAT, "\"priority\":null", 0, 0, 0},
        {PDR_API_OTHER, "\"stream\":true,\"max_tokens\":3", S, 3, 0},
    };
    char body[512];
    pdr_prompt p;
    pdr_error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        sprintf(
            body,
            "{\"text\":\"a\",\"prompt\":\"a\",\"messages\":[{\"role\":\"u\",\"content\":\"a\"}],\"model\":\"a\\n\",%s}",
            rows[i].members);
        if (scan(body, rows[i].api, &p, &err)) fail_msg("%s: %s", body, err.message);
        if (p.flags != rows[i].flags || p.max_tokens != rows[i].max_tokens || p.priority != rows[i].priority)
            fail_msg("%s: flags %u max_tokens %u priority %d", body, p.flags, (unsigned)p.max_tokens, (int)p.priority);
        assert_int_equal(p.model.end - p.model.begin, 5);
        assert_memory_equal(body + p.model.begin, "\"a\\n\"", 5);
    }
    assert_int_equal(scan("{\"model\":7}", PDR_API_OTHER, &p, &err), PDR_OK);
    assert_int_equal(p.model.end, 0);
}

/* A batch of exactly max_batch is taken, one more is not, whatever it consists of; vectors of one prompt are not prompts. */
static void batches_end_at_their_limit(void **state)
{
    (void)state;
    static const char *const good[] = {"{\"text\":[\"a\",\"b\"]}", "{\"input_ids\":[[1],[2]]}", "{\"input_embeds\":[[[1]],[[2]]]}", "{\"input_embeds\":[[1],[2],[3],[4]]}"};
    static const char *const more[] = {"{\"text\":[\"a\",\"b\",\"c\"]}", "{\"input_ids\":[[1],[2],[3]]}", "{\"input_embeds\":[[[1]],[[2]],[[3]]]}"};
    pdr_limits limits = {.struct_size = sizeof limits, .max_batch = 2};
    pdr_prompt p;
    pdr_error  err;
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&err, sizeof err);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_int_equal(pdr_scan(good[i], strlen(good[i]), PDR_API_GENERATE, &limits, &p, NULL, 0, &err), PDR_OK);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        assert_int_equal(pdr_scan(more[i], strlen(more[i]), PDR_API_GENERATE, &limits, &p, NULL, 0, &err), PDR_E_TOO_LARGE);
        assert_non_null(strstr(err.message, "prompts"));
    }
}

static uint64_t session_of(const char *members)
{
    char body[512];
    pdr_prompt p;
    pdr_error err;
    sprintf(body, "{\"x\":1%s%s}", *members ? "," : "", members);
    assert_int_equal(scan(body, PDR_API_OTHER, &p, &err), PDR_OK);
    return p.session;
}

static void sessions(void **state)
{
    (void)state;
    assert_int_equal(session_of(""), 0);
    assert_int_equal(session_of("\"session_id\":\"\""), 0);
    assert_int_equal(session_of("\"session_id\":null,\"user\":\"abc\""), XXH3_64bits("abc", 3));
    assert_int_equal(session_of("\"session_id\":\"abc\",\"user\":\"x\""), XXH3_64bits("abc", 3));
    assert_int_equal(session_of("\"session_id\":\"a\\u0062c\""), XXH3_64bits("abc", 3));
    assert_int_equal(session_of("\"session_params\":{\"id\":\"abc\"}"), XXH3_64bits("abc", 3));
    assert_int_equal(session_of("\"session_params\":[{\"id\":\"abc\"}]"), XXH3_64bits("abc", 3));
    assert_int_equal(session_of("\"session_params\":{\"offset\":1},\"prompt_cache_key\":\"abc\""),
                     XXH3_64bits("abc", 3));
    assert_int_equal(session_of("\"conversation_id\":123"), XXH3_64bits("123", 3));
}

/* ------------------------------------------------------------------------------------------------------------------
 * hash chains */

static pdr_limits blocks_of(uint32_t bytes)
{
    pdr_limits l;
    pdr_init_struct(&l, sizeof l);
    l.block_bytes = bytes;
    l.max_blocks = TEST_BLOCKS;
    return l;
}

static void scan_ok(const char *body, uint32_t api, uint32_t block, scanned *s)
{
    pdr_limits l = blocks_of(block);
    if (scan_everywhere(body, strlen(body), api, &l, 0, s)) fail_msg("%.200s: %s", body, s->err.message);
}

/* Leading blocks that two scans share. */
static uint32_t shared(const scanned *a, const scanned *b)
{
    uint32_t n = 0;
    while (n < a->prompt.blocks && n < b->prompt.blocks && a->hashes[n] == b->hashes[n]) n++;
    return n;
}

/* None equal at any place. */
static void assert_disjoint(const scanned *a, const scanned *b)
{
    assert_true(a->prompt.blocks > 1 && b->prompt.blocks > 1);
    for (uint32_t i = 0; i < a->prompt.blocks; i++)
        for (uint32_t j = 0; j < b->prompt.blocks; j++) assert_true(a->hashes[i] != b->hashes[j]);
}

/* The chain as hash.h promises it, computed here from the stream. */
static void assert_chain(const scanned *s, const uint8_t *stream, size_t len, uint64_t salt, unsigned kind,
                         uint32_t block)
{
    uint8_t k = (uint8_t)kind;
    uint64_t h = XXH3_64bits_withSeed(&k, 1, salt);
    assert_int_equal(s->prompt.prompt_bytes, len);
    assert_int_equal(s->prompt.blocks, len / block < TEST_BLOCKS ? len / block : TEST_BLOCKS);
    for (size_t i = 0; i < s->prompt.blocks; i++) {
        h = h * 0x9E3779B97F4A7C15u + XXH3_64bits(stream + i * block, block);
        h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
        h ^= h >> 32;
        assert_true(s->hashes[i] == h);
    }
}

/*
 * A string of `count` random characters: its canonical form, and its JSON in some spelling; style 0 as short as can be, 1
 * ASCII only, 2 a mixture.
 */
static size_t random_text(uint64_t *seed, size_t count, char *canonical, char *json, int style)
{
    static const uint32_t ranges[][2] = {{'a', 26},       {' ', 90},        {'a', 26},
                                         {0, 32},         {0x80, 0x780},    {0x4E00, 0x5000},
                                         {0xD000, 0x7FF}, {0xE000, 0x1FFF}, {0x10000, 0xFFFFF}};
    size_t n = 0, m = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t r = test_random(seed) % (test_random(seed) % 4 ? 3 : 9);
        const uint32_t c = ranges[r][0] + test_random(seed) % ranges[r][1];
        static const char letters[128] = {
            ['"'] = '"', ['\\'] = '\\', ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
        const size_t begin = n;
        int longer = (style == 1 && c > 126) || (style == 2 && test_random(seed) % 2);
        if (c < 128 && letters[c]) {
            n += (size_t)sprintf(canonical + n, "\\%c", letters[c]);
        } else if (c < 0x20) {
            n += (size_t)sprintf(canonical + n, "\\u%04x", c);
        } else if (c < 0x80) {
            canonical[n++] = (char)c;
        } else {
            if (c < 0x800) {
                canonical[n++] = (char)(0xC0 | c >> 6);
            } else if (c < 0x10000) {
                canonical[n++] = (char)(0xE0 | c >> 12);
            } else {
                canonical[n++] = (char)(0xF0 | c >> 18);
                canonical[n++] = (char)(0x80 | (c >> 12 & 63));
            }
            if (c >= 0x800) canonical[n++] = (char)(0x80 | (c >> 6 & 63));
            canonical[n++] = (char)(0x80 | (c & 63));
        }
        if (longer && c == '/')
            m += (size_t)sprintf(json + m, "\\/");
        else if (longer && c >= 0x10000)
            m += (size_t)sprintf(json + m, "\\u%04x\\u%04X", 0xD800 + ((c - 0x10000) >> 10),
                                 0xDC00 + ((c - 0x10000) & 0x3FF));
        else if (longer)
            m += (size_t)sprintf(json + m, test_random(seed) % 2 ? "\\u%04x" : "\\u%04X", c);
        else
            memcpy(json + m, canonical + begin, n - begin), m += n - begin;
    }
    json[m] = 0;
    return n;
}

static void text_chain_is_as_defined_in_any_spelling(void **state)
{
    static const uint32_t blocks[] = {64, 512, 1020, 4096, 4100, 8192, 65536};
    char *text = malloc(1 << 20), *json = malloc(4 << 20), *body = malloc(4 << 20);
    scanned *s = malloc(sizeof *s);
    (void)state;
    for (uint64_t round = 1; round <= 40; round++)
        for (int style = 0; style < 3; style++) {
            uint64_t seed = round * 7919;
            uint32_t block = blocks[round % 7];
            size_t len = random_text(&seed, round < 30 ? 40 * round : 40000, text, json, style);
            sprintf(body, "{\"sampling_params\":{},\"text\":\"%s\"}", json);
            scan_ok(body, PDR_API_GENERATE, block, s);
            assert_chain(s, (const uint8_t *)text, len, 0, PDR_KIND_TEXT, block);
            sprintf(body, "{\"prompt\":[\"%s\",\"other\"],\"model\":\"m\"}", json);
            scan_ok(body, PDR_API_COMPLETIONS, block, s);
            s->prompt.prompt_bytes -= 5;
            assert_chain(s, (const uint8_t *)text, len, XXH3_64bits_withSeed("m", 1, 1), PDR_KIND_TEXT, block);
        }
    free(text);
    free(json);
    free(body);
    free(s);
}

static void token_chain_is_that_of_pdr_hash_tokens(void **state)
{
    static uint32_t ids[40000];
    static uint64_t hashes[TEST_BLOCKS];
    char *body = malloc(2 << 20), *list = malloc(1 << 20), *p;
    scanned *s = malloc(sizeof *s);
    uint64_t seed = 99;
    (void)state;
    for (int round = 0; round < 60; round++) {
        static const char *const separators[] = {",", ", ", " ,\n\t", ",", ",\n        "};
        size_t count = round < 50 ? test_random(&seed) % 700 + 1 : 40000, n = 0;
        pdr_limits l = blocks_of(round % 3 ? 64 : 4100);
        p = list;
        for (size_t i = 0; i < count; i++) {
            switch (round % 4) {
            case 0:
                ids[i] = test_random(&seed) % 152000;
                break;
            case 1:
                ids[i] = test_random(&seed) >> test_random(&seed) % 32;
                break;
            case 2:
                ids[i] = test_random(&seed) % 10;
                break;
            default:
                ids[i] = test_random(&seed) % 100000000;
                break;
            }
            p += sprintf(p, "%s%u", i ? separators[round % 5] : "", ids[i]);
        }
        sprintf(body, "{\"input_ids\":[%s%s]}", list, round % 2 ? "" : " ");
        assert_int_equal(scan_everywhere(body, strlen(body), PDR_API_GENERATE, &l, (unsigned)round, s), PDR_OK);
        assert_int_equal(s->prompt.prompt_tokens, count);
        assert_int_equal(pdr_hash_tokens(ids, count, 0, &l, hashes, TEST_BLOCKS, &n), PDR_OK);
        assert_int_equal(n, s->prompt.blocks);
        assert_memory_equal(hashes, s->hashes, n * sizeof *hashes);
        /* with a salt, as the first of a batch, by another call */
        sprintf(body, "{\"cache_salt\":\"s\",\"prompt\":[[%s],[1]]}", list);
        scan_ok(body, PDR_API_COMPLETIONS, l.block_bytes, s);
        assert_int_equal(s->prompt.batch, 2);
        assert_int_equal(s->prompt.prompt_tokens, count + 1);
        assert_int_equal(pdr_hash_tokens(ids, count, XXH3_64bits_withSeed("s", 1, 3), &l, hashes, TEST_BLOCKS, &n),
                         PDR_OK);
        assert_int_equal(n, s->prompt.blocks);
        assert_memory_equal(hashes, s->hashes, n * sizeof *hashes);
    }
    free(body);
    free(list);
    free(s);
}

/* The same chain, however long: a salt in escapes is the salt, and an empty message is one, in any spelling. */
static void spellings_that_mean_the_same(void **state)
{
    static const char *const same[][2] = {
        {"{\"model\":\"m\\u006fdel/\\u0041\",\"messages\":[%s]}", "{\"model\":\"model/A\",\"messages\":[%s]}"},
        {"{\"cache_salt\":\"\\\"\\u0073\",\"messages\":[%s]}", "{\"cache_salt\":\"\\u0022s\",\"messages\":[%s]}"},
        {"{\"messages\":[{},%s]}", "{\"messages\":[{ },%s]}"},
        {"{\"messages\":[%s,{}]}", "{\"messages\":[%s,{ } ]}"},
    };
    static const char message[] = "{\"role\":\"user\",\"content\":\"long enough for a block of sixty-four bytes, and then some more of it\"}";
    char    body[1024];
    scanned one, other, without;
    (void)state;
    snprintf(body, sizeof body, "{\"messages\":[%s]}", message);
    scan_ok(body, PDR_API_CHAT, 64, &without);
    assert_int_not_equal(without.prompt.blocks, 0);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        snprintf(body, sizeof body, same[i][0], message);
        scan_ok(body, PDR_API_CHAT, 64, &one);
        snprintf(body, sizeof body, same[i][1], message);
        scan_ok(body, PDR_API_CHAT, 64, &other);
        assert_int_equal(one.prompt.blocks, other.prompt.blocks);
        assert_int_equal(one.prompt.prompt_bytes, other.prompt.prompt_bytes);
        assert_memory_equal(one.hashes, other.hashes, one.prompt.blocks * sizeof *one.hashes);
        if (i < 3) assert_memory_not_equal(one.hashes, without.hashes, sizeof *one.hashes);
    }
}

/* Escapes that are decoded several at a time, at every place around the end of the memory that they are decoded to. */
static void escapes_around_the_end_of_a_stage(void **state)
{
    static char body[8192], plain[8192];
    scanned     one, other;
    (void)state;
    for (unsigned run = 4030; run < 4100; run++)
        for (unsigned lead = 58; lead < 66; lead++) {
            size_t n = (size_t)sprintf(body, "{\"text\":\"%*s\\/%*s", (int)lead, "", (int)run, ""), m = (size_t)sprintf(plain, "{\"text\":\"%*s/%*s", (int)lead, "", (int)run, "");
            for (int i = 0; i < 8; i++) {
                n += (size_t)sprintf(body + n, "\\u4f60");
                m += (size_t)sprintf(plain + m, "\xe4\xbd\xa0");
            }
            n += (size_t)sprintf(body + n, "%80s\"}", "");
            m += (size_t)sprintf(plain + m, "%80s\"}", "");
            assert_int_equal(scan_everywhere(body, n, PDR_API_GENERATE, NULL, 0, &one), PDR_OK);
            assert_int_equal(scan_everywhere(plain, m, PDR_API_GENERATE, NULL, 0, &other), PDR_OK);
            assert_int_equal(one.prompt.prompt_bytes, other.prompt.prompt_bytes);
            assert_memory_equal(one.hashes, other.hashes, sizeof one.hashes);
        }
}

/* White space between the numbers of a list in a message or tool is none of the prompt, wherever the list stands and whatever follows it. */
static void spaces_between_integers_change_nothing(void **state)
{
    static const char *const tight = "[1,22,333,4,55555,6,7,8,99,10,11,12,13,14]", *const apart[] = {
        "[1, 22, 333, 4, 55555, 6, 7, 8, 99, 10, 11, 12, 13, 14]", "[1,22,333,4,55555,6,7,8,99,10,11,12,13 ,14]", "[1,\n22,333,4,55555,6,7,8,99,10,11,12,13,14]"};
    static const char *const where[] = {"{\"messages\":[{\"role\":\"user\",\"content\":\"what is said before the list, long enough for a block\",\"a\":%s}],\"pad\":\"%.*s\"}",
                                        "{\"messages\":[{\"role\":\"user\",\"content\":\"what is said before the list, long enough for a block\"}],\"tools\":[{\"enum\":%s}],\"pad\":\"%.*s\"}"};
    char    body[1024], pad[200];
    scanned first, other;
    (void)state;
    memset(pad, 'p', sizeof pad);
    for (size_t w = 0; w < 2; w++)
        for (int n = 0; n < 200; n += 1 + n / 70 * 60) {
            snprintf(body, sizeof body, where[w], tight, n, pad);
            scan_ok(body, PDR_API_CHAT, 64, &first);
            assert_int_not_equal(first.prompt.blocks, 0);
            for (size_t i = 0; i < sizeof apart / sizeof *apart; i++) {
                snprintf(body, sizeof body, where[w], apart[i], n, pad);
                scan_ok(body, PDR_API_CHAT, 64, &other);
                assert_int_equal(other.prompt.blocks, first.prompt.blocks);
                assert_int_equal(other.prompt.prompt_bytes, first.prompt.prompt_bytes);
                assert_memory_equal(other.hashes, first.hashes, first.prompt.blocks * sizeof *first.hashes);
            }
        }
}

/* One space early in a list of many hundred bytes: what comes behind it has none, and the space is remembered all the same. */
static void a_space_early_in_a_long_list_changes_nothing(void **state)
{
    static const char *const where[] = {"{\"messages\":[{\"role\":\"user\",\"content\":\"what is said before the list, long enough for a block\",\"a\":%s}]}",
                                        "{\"messages\":[{\"role\":\"user\",\"content\":\"what is said before the list, long enough for a block\"}],\"tools\":[{\"enum\":%s}]}"};
    char    body[2048], list[1200];
    scanned first, other;
    (void)state;
    for (size_t w = 0; w < 2; w++)
        for (int spaced = -1; spaced < 250; spaced += 1 + spaced / 8) { /* -1: none */
            char *at = list;
            for (int i = 0; i < 250; i++) at += sprintf(at, "%s%s%d", i ? "," : "[", i == spaced && i ? " " : "", i);
            strcpy(at, "]");
            snprintf(body, sizeof body, where[w], list);
            scan_ok(body, PDR_API_CHAT, 64, spaced < 0 ? &first : &other);
            if (spaced < 0) continue;
            assert_int_equal(other.prompt.blocks, first.prompt.blocks);
            assert_int_equal(other.prompt.prompt_bytes, first.prompt.prompt_bytes);
            assert_memory_equal(other.hashes, first.hashes, first.prompt.blocks * sizeof *first.hashes);
        }
}

static void message_stream_is_as_documented(void **state)
{
    static const char body[] =
        "{\"messages\":[{\"content\":\"be "
        "brief\",\"role\":\"system\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"cache_control\":{\"type\":"
        "\"ephemeral\"},\"text\":\"wh\\u0061t\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"http:\\/\\/"
        "x\"}}],\"name\":\"bob\"},{\"tool_calls\":[{\"id\":\"c\",\"ok\":true,\"n\":-1.50}],\"content\":null,\"role\":"
        "\"assistant\"},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"\",\"extra\":[],\"cache_control\":1}],\"tools\":[{"
        "\"type\":\"function\",\"cache_control\":{},\"f\":{\"cache_control\":1}}]}";
    uint8_t stream[1024];
    size_t n = 0;
    uint64_t digest;
    scanned s;
    (void)state;
#define PUT(text) (memcpy(stream + n, text, sizeof text - 1), n += sizeof text - 1)
#define DIGEST(text)                                                                                                   \
    (digest = XXH3_64bits(text, sizeof text - 1), memcpy(stream + n, "\xFFH", 2), memcpy(stream + n + 2, &digest, 8),  \
     n += 10)
    PUT("\xFFT[{\"type\":\"function\",\"f\":{\"cache_control\":1}}]");
    PUT("\xFFMsystem\xFF\x43"
        "be brief");
    PUT("\xFFMuser\xFFNbob\xFFL\xFFP{\"type\":\"text\",\"text\":\"what\"}");
    PUT("\xFFP{\"type\":");
    DIGEST("image_url");
    PUT(",\"image_url\":{\"url\":");
    DIGEST("http://x");
    PUT("}}");
    PUT("\xFFMassistant\xFFK\xFFJ[{\"id\":\"c\",\"ok\":true,\"n\":-1.50}]");
    PUT("\xFFMtool\xFFIc\xFF\x43\xFFXextra\xFFJ[]");
    scan_ok(body, PDR_API_CHAT, 64, &s);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    assert_chain(&s, stream, n, 0, PDR_KIND_MESSAGES, 64);
#endif
    assert_int_equal(s.prompt.flags, PDR_PROMPT_MEDIA);
}

static void next_turn_shares_every_full_block(void **state)
{
    char *text = malloc(1 << 16), *json = malloc(1 << 18), *messages = malloc(1 << 20), *body = malloc(1 << 20);
    scanned *before = malloc(sizeof *before), *now = malloc(sizeof *now);
    uint64_t seed = 5;
    (void)state;
    for (int talk = 0; talk < 12; talk++) {
        size_t n = 0;
        messages[0] = 0;
        for (int turn = 0; turn < 8; turn++) {
            random_text(&seed, test_random(&seed) % 400, text, json, 2);
            n += (size_t)sprintf(messages + n,
                                 turn % 3 == 2
                                     ? "%s{\"content\":\"%s\",\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"%d\"}]}"
                                     : "%s{\"role\":\"user\",\"content\":\"%s\"%.*s}",
                                 turn ? "," : "", json, turn % 3 == 2 ? turn : 0, "");
            /* tools and settings stand before or after, as it comes */
            if (turn % 2)
                sprintf(body, "{\"model\":\"m\",\"messages\":[%s],\"temperature\":0.%d,\"tools\":[{\"name\":\"f\"}]}",
                        messages, turn);
            else
                sprintf(body,
                        "{ \"tools\" : [ { \"name\" : \"\\u0066\" } ], \"stream\":true,\"messages\" : [ %s ] , "
                        "\"model\":\"\\u006d\"}",
                        messages);
            scan_ok(body, PDR_API_CHAT, 64, now);
            if (turn) {
                assert_true(now->prompt.blocks >= before->prompt.blocks);
                assert_int_equal(shared(before, now), before->prompt.blocks);
            }
            *before = *now;
        }
    }
    free(text);
    free(json);
    free(messages);
    free(body);
    free(before);
    free(now);
}

static void salts_and_kinds_share_nothing(void **state)
{
    static const char text[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghi"
                               "jklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
                               "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    static const char *const salts[] = {"",
                                        "\"model\":\"a\",",
                                        "\"model\":\"b\",",
                                        "\"lora_path\":\"a\",",
                                        "\"cache_salt\":\"a\",",
                                        "\"extra_key\":\"a\",",
                                        "\"cache_salt\":\"a\",\"extra_key\":\"b\",",
                                        "\"cache_salt\":\"b\",\"extra_key\":\"a\",",
                                        "\"cache_salt\":\"ab\","};
    static const char *const same[][2] = {
        {"\"model\":\"a\",", "\"model\":\"x\",\"mod\\u0065l\":\"\\u0061\","},
        {"\"lora_path\":\"a\",", "\"lora_path\":[\"a\",\"b\"],"},
        {"", "\"cache_salt\":null,\"extra_key\":\"\","},
        {"\"model\":\"a\",\"cache_salt\":\"b\",", "\"cache_salt\":\"b\",\"model\":\"a\","}};
    enum { N = sizeof salts / sizeof *salts };
    scanned s[N], other;
    char body[2048], list[1024], *p = list;
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        sprintf(body, "{%s\"text\":\"%s\"}", salts[i], text);
        scan_ok(body, PDR_API_GENERATE, 64, &s[i]);
        for (unsigned j = 0; j < i; j++) assert_disjoint(&s[i], &s[j]);
        sprintf(body, "{\"prompt\":\"%s\",%s\"x\":0}", text, salts[i]); /* the same by another call, behind the text */
        scan_ok(body, PDR_API_COMPLETIONS, 64, &other);
        assert_int_equal(shared(&s[i], &other), s[i].prompt.blocks);
    }
    for (unsigned i = 0; i < sizeof same / sizeof *same; i++) {
        sprintf(body, "{%s\"text\":\"%s\"}", same[i][0], text);
        scan_ok(body, PDR_API_GENERATE, 64, &s[0]);
        sprintf(body, "{%s\"text\":\"%s\"}", same[i][1], text);
        scan_ok(body, PDR_API_GENERATE, 64, &s[1]);
        assert_int_equal(shared(&s[0], &s[1]), s[0].prompt.blocks);
    }
    /* the text as ids whose bytes are the same */
    sprintf(body, "{\"text\":\"%s\"}", text);
    scan_ok(body, PDR_API_GENERATE, 64, &s[0]);
    for (size_t i = 0; i + 4 < sizeof text; i += 4)
        p += sprintf(p, "%s%u", i ? "," : "",
                     (unsigned)text[i] | (unsigned)text[i + 1] << 8 | (unsigned)text[i + 2] << 16 |
                         (unsigned)text[i + 3] << 24);
    sprintf(body, "{\"input_ids\":[%s]}", list);
    scan_ok(body, PDR_API_GENERATE, 64, &s[1]);
    assert_disjoint(&s[0], &s[1]);
    sprintf(body, "{\"messages\":[{\"role\":\"\",\"content\":\"%s\"}]}", text);
    scan_ok(body, PDR_API_CHAT, 64, &s[2]);
    assert_disjoint(&s[0], &s[2]);
    sprintf(body, "{\"text\":\"%s\",\"image_data\":\"x\"}", text);
    scan_ok(body, PDR_API_GENERATE, 64, &s[3]);
    assert_disjoint(&s[0], &s[3]);
    assert_int_equal(s[3].prompt.flags, PDR_PROMPT_MEDIA);
}

static void tool_choice_none_leaves_tools_out(void **state)
{
    static const char messages[] = "\"messages\":[{\"role\":\"user\",\"content\":"
                                   "\"0123456789012345678901234567890123456789012345678901234567890123456789\"}]";
    scanned a, b, c;
    char body[512];
    (void)state;
    sprintf(body, "{%s}", messages);
    scan_ok(body, PDR_API_CHAT, 64, &a);
    sprintf(body, "{%s,\"tools\":[{\"name\":\"f\"}],\"tool_choice\":\"none\"}", messages);
    scan_ok(body, PDR_API_CHAT, 64, &b);
    sprintf(body, "{%s,\"tools\":[{\"name\":\"f\"}],\"tool_choice\":\"auto\"}", messages);
    scan_ok(body, PDR_API_CHAT, 64, &c);
    assert_int_equal(shared(&a, &b), a.prompt.blocks);
    assert_int_equal(shared(&a, &c), 0);
    sprintf(body, "{%s,\"tools\":[]}", messages);
    scan_ok(body, PDR_API_CHAT, 64, &b);
    assert_int_equal(shared(&a, &b), a.prompt.blocks);
}

/* Prompts made of everything that could be taken for something else: no two differ and have one chain. */
typedef struct named {
    uint64_t h;
    uint32_t bytes;
    char *prompt;
} named;
static int by_hash(const void *a, const void *b)
{
    const named *x = a, *y = b;
    return x->h < y->h ? -1 : x->h > y->h;
}

static void different_prompts_have_different_chains(void **state)
{
    static const char *const texts[] = {"",     "C", "M",    "a",  "aC",   "\xc3\xbf\x43", "\\u00ffCa",
                                        "\\\\", "{", "\\\"", "[]", "null", "user"};
    static const char *const members[] = {"",
                                          ",\"name\":\"C\"",
                                          ",\"name\":\"\"",
                                          ",\"tool_calls\":[]",
                                          ",\"tool_calls\":\"[]\"",
                                          ",\"tool_calls\":[\"C\"]",
                                          ",\"tool_calls\":[[\"C\"]]",
                                          ",\"tool_calls\":[\"C\",\"\"]",
                                          ",\"tool_calls\":{\"C\":\"\"}",
                                          ",\"x\":\"C\"",
                                          ",\"x\":1",
                                          ",\"x\":\"1\"",
                                          ",\"x\":true,\"y\":true",
                                          ",\"reasoning_content\":\"a\"",
                                          ",\"tool_call_id\":\"a\""};
    static const char *const contents[] = {"[]",
                                           "[\"a\"]",
                                           "[{\"type\":\"text\",\"text\":\"a\"}]",
                                           "[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"a\"}]",
                                           "[{\"type\":\"image_url\",\"text\":\"a\"}]",
                                           "[{\"type\":\"image_url\",\"text\":\"b\"}]",
                                           "{\"a\":1}",
                                           "1",
                                           "\"1\"",
                                           "[1]",
                                           "[[1]]",
                                           "[\"1\"]",
                                           "[1,1]",
                                           "[11]",
                                           "true"};
    enum { MOST = 6000 };
    named *all = calloc(MOST, sizeof *all);
    size_t n = 0;
    char body[1024];
    scanned s;
    (void)state;
    /* the last message is filled up so that all that differs lies in full blocks */
#define FILL "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"
#define ADD(...)                                                                                                       \
    do {                                                                                                               \
        int at = sprintf(body, "{\"messages\":[");                                                                     \
        at += sprintf(body + at, __VA_ARGS__);                                                                         \
        sprintf(body + at, ",{\"role\":\"user\",\"content\":\"" FILL "\"}]}");                                         \
        scan_ok(body, PDR_API_CHAT, 64, &s);                                                                           \
        assert_true(n < MOST && s.prompt.blocks);                                                                      \
        all[n++] = (named){s.hashes[s.prompt.blocks - 1], (uint32_t)s.prompt.prompt_bytes, strdup(body)};              \
    } while (0)
    enum {
        T = sizeof texts / sizeof *texts,
        M = sizeof members / sizeof *members,
        C = sizeof contents / sizeof *contents
    };
    for (unsigned i = 0; i < T; i++)
        for (unsigned j = 0; j < T; j++) {
            ADD("{\"role\":\"%s\",\"content\":\"%s\"}", texts[i], texts[j]);
            ADD("{\"role\":\"%s\"},{\"content\":\"%s\"}", texts[i], texts[j]);
            if (!(i == j && i == 0))
                ADD("{\"content\":\"%s\",\"role\":\"\"},{\"content\":\"%s\",\"role\":\"x\"}", texts[i], texts[j]);
            for (unsigned k = 1; k < M; k++)
                ADD("{\"role\":\"%s\",\"content\":\"%s\"%s}", texts[i], texts[j], members[k]);
        }
    for (unsigned i = 0; i < C; i++)
        for (unsigned k = 0; k < M; k++) ADD("{\"role\":\"r\",\"content\":%s%s}", contents[i], members[k]);
    qsort(all, n, sizeof *all, by_hash);
    for (size_t i = 1; i < n; i++)
        if (all[i].h == all[i - 1].h) fail_msg("one chain: %s and %s", all[i].prompt, all[i - 1].prompt);
    for (size_t i = 0; i < n; i++) free(all[i].prompt);
    free(all);
}

static void limits_and_space(void **state)
{
    static char body[40000];
    uint64_t hashes[8] = {0}, all[64];
    pdr_limits l;
    pdr_prompt p;
    pdr_error err;
    size_t n;
    uint32_t ids[64] = {0};
    (void)state;
    n = (size_t)sprintf(body, "{\"text\":\"");
    memset(body + n, 'x', 2000);
    strcpy(body + n + 2000, "\"}");
    n = strlen(body);
    pdr_init_struct(&l, sizeof l);
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&err, sizeof err);
    l.block_bytes = 64;
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, &l, &p, all, 64, &err), PDR_OK);
    assert_int_equal(p.blocks, 31);
    assert_int_equal(p.flags, 0);
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, &l, &p, hashes, 7, &err), PDR_OK);
    assert_int_equal(p.blocks, 7);
    assert_int_equal(p.flags, PDR_PROMPT_TRUNCATED);
    assert_int_equal(p.prompt_bytes, 2000);
    assert_memory_equal(hashes, all, 7 * sizeof *all);
    assert_int_equal(hashes[7], 0);
    l.max_blocks = 5;
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, &l, &p, hashes, 8, &err), PDR_OK);
    assert_int_equal(p.blocks, 5);
    assert_int_equal(p.flags, PDR_PROMPT_TRUNCATED);
    l.max_blocks = 31;
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, &l, &p, all, 64, &err), PDR_OK);
    assert_int_equal(p.flags, 0);
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, NULL, &p, NULL, 0, &err), PDR_OK);
    assert_int_equal(p.blocks, 0);
    assert_int_equal(p.flags, 0);
    assert_int_equal(p.prompt_bytes, 2000);
    l.max_body = n;
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, &l, &p, NULL, 0, &err), PDR_OK);
    l.max_body = n - 1;
    assert_int_equal(pdr_scan(body, n, PDR_API_GENERATE, &l, &p, NULL, 0, &err), PDR_E_TOO_LARGE);
    l.max_body = 0;
    l.max_batch = 2;
    assert_int_equal(pdr_scan("{\"text\":[\"a\",\"b\"]}", 18, PDR_API_GENERATE, &l, &p, NULL, 0, &err), PDR_OK);
    assert_int_equal(pdr_scan("{\"text\":[\"a\",\"b\",\"c\"]}", 22, PDR_API_GENERATE, &l, &p, NULL, 0, &err),
                     PDR_E_TOO_LARGE);
    assert_int_equal(pdr_scan("{\"input_ids\":[[1],[2],[3]]}", 27, PDR_API_GENERATE, &l, &p, NULL, 0, &err),
                     PDR_E_TOO_LARGE);
    assert_int_equal(pdr_scan("{\"input_embeds\":[[1],[2],[3]]}", 30, PDR_API_GENERATE, &l, &p, NULL, 0, &err), PDR_OK);
    assert_int_equal(pdr_scan("{\"input_embeds\":[[[1]],[[2]],[[3]]]}", 36, PDR_API_GENERATE, &l, &p, NULL, 0, &err),
                     PDR_E_TOO_LARGE);
    static const uint32_t wrong[] = {60, 66, 65540};
    for (int i = 0; i < 3; i++) {
        l.block_bytes = wrong[i];
        assert_int_equal(pdr_scan("{}", 2, PDR_API_OTHER, &l, &p, NULL, 0, &err), PDR_E_INVALID);
        assert_int_equal(pdr_hash_tokens(ids, 64, 0, &l, all, 64, &n), PDR_E_INVALID);
    }
    assert_int_equal(pdr_scan(NULL, 2, PDR_API_OTHER, NULL, &p, NULL, 0, &err), PDR_E_INVALID);
    assert_int_equal(pdr_scan(NULL, 0, PDR_API_OTHER, NULL, &p, NULL, 0, &err), PDR_E_PARSE);
    assert_int_equal(pdr_scan("{}", 2, 0, NULL, &p, NULL, 0, &err), PDR_E_INVALID);
    assert_int_equal(pdr_scan("{}", 2, 5, NULL, &p, NULL, 0, &err), PDR_E_INVALID);
    assert_int_equal(pdr_hash_tokens(ids, 64, 0, NULL, all, 64, NULL), PDR_E_INVALID);
    assert_int_equal(pdr_hash_tokens(NULL, 0, 0, NULL, NULL, 0, &n), PDR_OK);
    assert_int_equal(n, 0);
}

/* Callers built against a shorter pdr_prompt, and what an error leaves alone. */
static void member_is(const char *body, const char *name, int code, const char *value)
{
    size_t len = strlen(body);
    pdr_span one, other;
    assert_int_equal(pdr_body_member(body, len, name, strlen(name), &one), code);
    for (int path = PDR_PATH_PORTABLE; path <= PDR_PATH_NEON; path++) {
        if (!pdr_path_usable(path)) continue;
        assert_int_equal(pdr_member_by(path, body, len, name, strlen(name), &other), code);
        if (!code) assert_memory_equal(&one, &other, sizeof one);
    }
    if (code) return;
    assert_int_equal(one.end - one.begin, strlen(value));
    assert_memory_equal(body + one.begin, value, strlen(value));
}

static void members_by_name(void **state)
{
    static const char body[] = " {\"messages\": [{\"n\":9}],\"n\" : 1, \"sampling_params\":{\"n\":2,\"m\":{}} ,\"\\u006e\":[3] ,\"\":null,\"\xc3\xa9\\n\":true}\n";
    char *large = malloc(70000);
    (void)state;
    member_is(body, "messages", PDR_OK, "[{\"n\":9}]");
    member_is(body, "n", PDR_OK, "[3]"); /* the last one of the name, whatever its spelling */
    member_is(body, "sampling_params", PDR_OK, "{\"n\":2,\"m\":{}}");
    member_is("{\"n\":2,\"m\":{}}", "n", PDR_OK, "2"); /* and so to the inner ones */
    member_is(body, "", PDR_OK, "null");
    member_is(body, "\xc3\xa9\n", PDR_OK, "true");
    member_is("{\"\\ud83d\\ude00\":\"\\\"\"}", "\xf0\x9f\x98\x80", PDR_OK, "\"\\\"\"");
    member_is(body, "m", PDR_E_NOT_FOUND, NULL);
    member_is(body, "nn", PDR_E_NOT_FOUND, NULL);
    member_is("{\"\\u006e\\u006e\":1}", "n", PDR_E_NOT_FOUND, NULL);
    member_is("{\"\\u006e\":1}", "nn", PDR_E_NOT_FOUND, NULL);
    member_is("{}", "n", PDR_E_NOT_FOUND, NULL);
    static const char *const bad[] = {"", "[]", "{", "{\"n\":1", "{\"n\" 1}", "{\"n\":1,}", "{\"n\":01}", "{\"n\":1}x", "{\"n\":1 \"m\":2}", "{n:1}", "{\"n", "{\"n\":}", "{} {}", "{\"n\":\"\xff\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) member_is(bad[i], "n", PDR_E_PARSE, NULL);
    sprintf(large, "{\"text\":\"%065000d\",\"n\":7}", 0);
    member_is(large, "n", PDR_OK, "7");
    pdr_span span;
    assert_int_equal(pdr_body_member(NULL, 1, "n", 1, &span), PDR_E_INVALID);
    assert_int_equal(pdr_body_member("{}", 2, NULL, 1, &span), PDR_E_INVALID);
    assert_int_equal(pdr_body_member("{}", 2, "n", 1, NULL), PDR_E_INVALID);
    free(large);
}

/* An error that is about a member says where that is. */
static void errors_say_where(void **state)
{
    static const struct { uint32_t api; const char *body, *at; uint32_t line; } cases[] = {
        {PDR_API_GENERATE, "{\"text\":\"a\",\n\"input_ids\":[1]}", "[1]", 2},
        {PDR_API_GENERATE, "{\n\"text\":\"a\",\"sampling_params\":[{\"n\":2},\n{\"n\":3}]}", "{\"n\":3}", 3},
        {PDR_API_CHAT, "{\"messages\":\n[]}", "[]", 2},
        {PDR_API_CHAT, "{\"messages\":[{}],\"n\":\n\"2\"}", "\"2\"", 2},
        {PDR_API_COMPLETIONS, "{\"prompt\":[\"a\",\n7]}", "7", 2},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scanned s;
        scan_everywhere(cases[i].body, strlen(cases[i].body), cases[i].api, NULL, 0, &s);
        assert_int_not_equal(s.code, PDR_OK);
        assert_int_equal(s.err.offset, strstr(cases[i].body, cases[i].at) - cases[i].body);
        assert_int_equal(s.err.line, cases[i].line);
    }
    /* the first owned member that is one too many */
    char body[4096], *p = body + sprintf(body, "{\"messages\":[{}]");
    for (int i = 0; i <= PDR_MAX_EDITS + 1; i++) p += sprintf(p, ",\n\"bootstrap_room\":%d", i + 100);
    strcpy(p, "}");
    scanned s;
    scan_everywhere(body, strlen(body), PDR_API_CHAT, NULL, 0, &s);
    assert_int_equal(s.code, PDR_E_TOO_LARGE);
    assert_int_equal(s.err.line, PDR_MAX_EDITS + 2);
    assert_int_equal(s.err.offset, strstr(body, "\"bootstrap_room\":132") - body);
}

static void struct_sizes(void **state)
{
    union {
        pdr_prompt p;
        unsigned char bytes[sizeof(pdr_prompt) + 16];
    } out;
    pdr_error err;
    (void)state;
    pdr_init_struct(&err, sizeof err);
    for (uint32_t size = 4; size <= sizeof out; size += 4) {
        memset(&out, 0xEE, sizeof out);
        out.p.struct_size = size;
        assert_int_equal(pdr_scan("{\"a\":1}", 7, PDR_API_OTHER, NULL, &out.p, NULL, 0, &err), PDR_OK);
        assert_int_equal(out.p.struct_size, size);
        for (size_t i = size; i < sizeof out; i++) assert_int_equal(out.bytes[i], 0xEE);
        if (size > 16) assert_int_equal(out.p.api, PDR_API_OTHER);
        if (size >= sizeof out.p) assert_int_equal(out.p.insert_at, 6);
        memset(&out, 0xEE, sizeof out);
        out.p.struct_size = size;
        assert_int_equal(pdr_scan("{\"a\":1", 6, PDR_API_OTHER, NULL, &out.p, NULL, 0, &err), PDR_E_PARSE);
        for (size_t i = 4; i < sizeof out; i++) assert_int_equal(out.bytes[i], 0xEE);
    }
    out.p.struct_size = 0;
    assert_int_equal(pdr_scan("{}", 2, PDR_API_OTHER, NULL, &out.p, NULL, 0, &err), PDR_E_VERSION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owned_members_are_cut_with_one_comma),
        cmocka_unit_test(too_many_owned_members),
        cmocka_unit_test(random_edits),
        cmocka_unit_test(batches),
        cmocka_unit_test(small_members),
        cmocka_unit_test(batches_end_at_their_limit),
        cmocka_unit_test(sessions),
        cmocka_unit_test(text_chain_is_as_defined_in_any_spelling),
        cmocka_unit_test(token_chain_is_that_of_pdr_hash_tokens),
        cmocka_unit_test(spellings_that_mean_the_same),
        cmocka_unit_test(escapes_around_the_end_of_a_stage),
        cmocka_unit_test(spaces_between_integers_change_nothing),
        cmocka_unit_test(a_space_early_in_a_long_list_changes_nothing),
        cmocka_unit_test(message_stream_is_as_documented),
        cmocka_unit_test(next_turn_shares_every_full_block),
        cmocka_unit_test(salts_and_kinds_share_nothing),
        cmocka_unit_test(tool_choice_none_leaves_tools_out),
        cmocka_unit_test(different_prompts_have_different_chains),
        cmocka_unit_test(limits_and_space),
        cmocka_unit_test(members_by_name),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(struct_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
