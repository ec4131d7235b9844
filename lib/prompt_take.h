/*
 * The second walk's upper half: what the members of the body mean for each call, how many prompts there are, and which
 * of them the chain describes. Included once per instruction set, after prompt_feed.h; all static.
 */
#ifndef PDR_PROMPT_TAKE_H
#define PDR_PROMPT_TAKE_H

#include "prompt_feed.h"

/* ----------------------------------------------------------------------------------------------------- prompts and
 * batches */

static uint64_t salt_of(walk *w)
{
    static const uint8_t keys[4] = {PDR_IN_MODEL, PDR_IN_LORA_PATH, PDR_IN_CACHE_SALT, PDR_IN_EXTRA_KEY};
    uint64_t salt = 0;
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *p = has(w, keys[i]) ? w->at[keys[i]] : NULL;
        if (p && *p == '[') p = first_item(p);
        if (p && *p == '"' && p[1] != '"') {
            w->s.next_long = 0;
            salt = text_digest(string_at(w, p), salt + i + 1);
        }
    }
    return salt;
}

static void begin_chain(walk *w, unsigned kind)
{
    uint32_t cap = w->job->cap < w->job->limits.max_blocks ? (uint32_t)w->job->cap : w->job->limits.max_blocks;
    chain_begin(&w->c, cap ? salt_of(w) : 0, kind, w->job->limits.block_bytes, w->job->hashes, cap);
    w->s.next_long = 0;
}

/* The first prompt is done: what follows is only counted. */
static void end_chain(walk *w)
{
    if (w->c.cap && w->c.bytes / w->c.block > w->c.n) w->out->flags |= PDR_PROMPT_TRUNCATED;
    w->c.live = 0;
}

static int too_many(walk *w, const uint8_t *p, const char *subject)
{
    return refuse(w, PDR_E_TOO_LARGE, p, subject, " holds more prompts than max_batch allows");
}

static int empty_list(walk *w, const uint8_t *p, const char *subject)
{
    return refuse(w, PDR_E_UNSUPPORTED, p, subject, " is an empty list; at least one prompt was expected");
}

/* A prompt without a token ends SGLang's prefill scheduler (seen with 0.5.23), and with it every request there. */
static int empty_text(walk *w, const uint8_t *p, const char *subject)
{
    return refuse(w, PDR_E_UNSUPPORTED, p, subject, " holds an empty string; the engine cannot answer an empty prompt");
}

/* Text: a string, or a list of them, at p. */
static int take_texts(walk *w, const uint8_t *p, const char *subject)
{
    static const char marks[3] = "IAV";
    uint32_t batch = 0;
    begin_chain(w, PDR_KIND_TEXT);
    for (unsigned key = PDR_IN_IMAGE_DATA; key <= PDR_IN_VIDEO_DATA; key++)
        if (given(w, key)) {
            chain_mark(&w->c, marks[key - PDR_IN_IMAGE_DATA]);
            feed_member(w, key, 1, 0);
            w->out->flags |= PDR_PROMPT_MEDIA;
        }
    if (w->c.bytes) chain_mark(&w->c, 'C');
    if (*p == '"') {
        if (p[1] == '"') return empty_text(w, p, subject);
        feed_text(w, string_at(w, p));
        end_chain(w);
        return PDR_OK;
    }
    for (const uint8_t *item = first_item(p); item; item = next_item(p)) {
        text t;
        if (*item != '"') return refuse(w, PDR_E_PARSE, item, subject, " must be a string or a list of strings");
        if (batch++ == w->job->limits.max_batch) return too_many(w, item, subject);
        if (item[1] == '"') return empty_text(w, item, subject);
        t = string_at(w, item);
        feed_text(w, t);
        if (batch == 1) end_chain(w);
        p = t.end + 1;
    }
    w->out->flags |= PDR_PROMPT_BATCH;
    w->out->batch = batch;
    return PDR_OK;
}

/* Token ids: a list of them, or of lists of them, at p; it is not empty. */
static int take_ids(walk *w, const uint8_t *p, const char *subject)
{
    const uint8_t *item = first_item(p);
    uint32_t batch = 0;
    w->out->flags |= PDR_PROMPT_TOKENS;
    begin_chain(w, PDR_KIND_TOKENS);
    if (*item != '[') {
        if (!feed_ids(w, p, subject)) return w->job->code;
        end_chain(w);
        return PDR_OK;
    }
    for (; item; item = next_item(p)) {
        if (*item != '[') return refuse(w, PDR_E_PARSE, item, subject, " mixes token ids with lists of them");
        if (batch++ == w->job->limits.max_batch) return too_many(w, item, subject);
        if (!(p = feed_ids(w, item, subject))) return w->job->code;
        if (batch == 1) end_chain(w);
    }
    w->out->flags |= PDR_PROMPT_BATCH;
    w->out->batch = batch;
    return PDR_OK;
}

/* Vectors: a list of lists of numbers (one prompt), or a list of those. Counted, not hashed. */
static int take_embeds(walk *w, const uint8_t *p)
{
    static const char wrong[] = "input_embeds must be a list of vectors, or a list of such lists";
    const uint8_t *item = *p == '[' ? first_item(p) : NULL, *inner, *number;
    uint32_t batch = 0;
    int lists;
    if (*p != '[') return refuse(w, PDR_E_PARSE, p, "", wrong);
    if (!item) return empty_list(w, p, "input_embeds");
    inner = *item == '[' ? first_item(item) : NULL;
    if (!inner) return refuse(w, PDR_E_PARSE, item, "", wrong);
    lists = *inner == '[';
    w->out->flags |= PDR_PROMPT_TOKENS | (lists ? PDR_PROMPT_BATCH : 0);
    begin_chain(w, PDR_KIND_JSON);
    w->c.live = 0;
    for (; item; item = next_item(p)) {
        inner = *item == '[' ? first_item(item) : NULL;
        if (!inner || (*inner == '[') != lists) return refuse(w, PDR_E_PARSE, item, "", wrong);
        if (batch++ == w->job->limits.max_batch && lists) return too_many(w, item, "input_embeds");
        for (p = item; lists && inner; inner = next_item(p)) {
            number = *inner == '[' ? first_item(inner) : NULL;
            if (!number || (*number != '-' && (unsigned)*number - '0' > 9))
                return refuse(w, PDR_E_PARSE, inner, "", wrong);
            w->out->prompt_tokens++;
            p = known_value_end(&w->s, inner);
        }
        if (!lists && *inner != '-' && (unsigned)*inner - '0' > 9) return refuse(w, PDR_E_PARSE, item, "", wrong);
        if (!lists) w->out->prompt_tokens++;
        p = known_value_end(&w->s, item);
    }
    if (lists) w->out->batch = batch;
    return PDR_OK;
}

/* Samples: the number at p, or NULL. */
static int take_n(walk *w, const uint8_t *p, int null_allowed, uint32_t *n)
{
    uint64_t v;
    *n = 1;
    if (!p || (*p == 'n' && null_allowed)) return PDR_OK;
    if (!read_count(p, &v) || v < 1 || v > UINT32_MAX)
        return refuse(w, PDR_E_PARSE, p, "", "n must be a whole number, at least 1");
    if ((*n = (uint32_t)v) > 1) w->out->samples_at = (uint64_t)(p - w->s.body);
    return PDR_OK;
}

/* sampling_params of /generate: an object, or in a batch a list of one per prompt. Call when the batch is known. */
static int take_sampling(walk *w)
{
    const uint8_t *p = w->at[PDR_IN_SAMPLING_PARAMS], *item, *limit, *end;
    uint32_t count = 0, n;
    uint64_t v;
    int code;
    if (!given(w, PDR_IN_SAMPLING_PARAMS)) return PDR_OK;
    if (*p != '{' && *p != '[')
        return refuse(w, PDR_E_PARSE, p, "", "sampling_params must be an object or a list of objects");
    w->s.next_long = 0;
    for (item = *p == '{' ? p : first_item(p); item; item = *p == '{' ? NULL : next_item(end)) {
        if (*item != '{') return refuse(w, PDR_E_PARSE, item, "", "every element of sampling_params must be an object");
        if ((code = take_n(w, find_member(w, item, "n"), 0, &n))) return code;
        if (count && n != w->out->samples)
            return refuse(w, PDR_E_UNSUPPORTED, item, "",
                          "n differs within sampling_params; the engine needs one for all");
        w->out->samples = n;
        limit = find_member(w, item, "max_new_tokens");
        if (limit && read_count(limit, &v) && v > w->out->max_tokens) w->out->max_tokens = v;
        count++;
        end = known_value_end(&w->s, item);
    }
    if (*p == '[' && (!(w->out->flags & PDR_PROMPT_BATCH) || count != w->out->batch))
        return refuse(w, PDR_E_UNSUPPORTED, p, "", "sampling_params is a list whose length is not that of the batch");
    return PDR_OK;
}

static int take_generate(walk *w)
{
    static const char one[] = "one of text, input_ids and input_embeds is needed, and only one";
    int texts = given(w, PDR_IN_TEXT), ids = given(w, PDR_IN_INPUT_IDS), code;
    const uint8_t *p = w->s.body + w->out->object.begin;
    if (texts + ids + given(w, PDR_IN_INPUT_EMBEDS) != 1) { /* too many: at the one that comes last */
        static const uint8_t keys[] = {PDR_IN_TEXT, PDR_IN_INPUT_IDS, PDR_IN_INPUT_EMBEDS};
        for (size_t i = 0; i < sizeof keys; i++)
            if (given(w, keys[i]) && w->at[keys[i]] > p) p = w->at[keys[i]];
        return refuse(w, PDR_E_UNSUPPORTED, p, "", one);
    }
    if (texts) {
        p = w->at[PDR_IN_TEXT];
        if (*p != '"' && *p != '[') return refuse(w, PDR_E_PARSE, p, "text", " must be a string or a list of strings");
        if (*p == '[' && !first_item(p)) return empty_list(w, p, "text");
        code = take_texts(w, p, "text");
    } else if (ids) {
        p = w->at[PDR_IN_INPUT_IDS];
        if (*p != '[')
            return refuse(w, PDR_E_PARSE, p, "input_ids", " must be a list of token ids or a list of such lists");
        if (!first_item(p)) return empty_list(w, p, "input_ids");
        code = take_ids(w, p, "input_ids");
    } else {
        code = take_embeds(w, w->at[PDR_IN_INPUT_EMBEDS]);
    }
    return code ? code : take_sampling(w);
}

static int take_completions(walk *w)
{
    const uint8_t *p = w->at[PDR_IN_PROMPT], *item;
    if (!given(w, PDR_IN_PROMPT))
        return refuse(w, PDR_E_PARSE, w->s.body + w->out->object.begin, "", "prompt is missing");
    if (*p != '"' && *p != '[')
        return refuse(w, PDR_E_PARSE, p, "prompt",
                      " must be a string, a list of strings, token ids or lists of token ids");
    if (*p == '[') {
        if (!(item = first_item(p))) return empty_list(w, p, "prompt");
        if (*item != '"') return take_ids(w, p, "prompt");
    }
    return take_texts(w, p, "prompt");
}

/* 1 if the tools take no part in the prompt. */
static int tools_left_out(walk *w)
{
    char buffer[NAME_BUFFER];
    size_t n;
    const char *k;
    if (!given(w, PDR_IN_TOOLS) || w->at[PDR_IN_TOOLS][0] != '[' || !first_item(w->at[PDR_IN_TOOLS])) return 1;
    if (!has(w, PDR_IN_TOOL_CHOICE) || *w->at[PDR_IN_TOOL_CHOICE] != '"') return 0;
    k = plain_text(string_at(w, w->at[PDR_IN_TOOL_CHOICE]), buffer, &n);
    return IS_TEXT(k, n, "none");
}

static int take_chat(walk *w)
{
    int code;
    if (!given(w, PDR_IN_MESSAGES))
        return refuse(w, PDR_E_PARSE, w->s.body + w->out->object.begin, "", "messages is missing");
    begin_chain(w, PDR_KIND_MESSAGES);
    if (!tools_left_out(w)) {
        chain_mark(&w->c, 'T');
        feed_member(w, PDR_IN_TOOLS, 0, 2);
    }
    w->tidy = (int)(w->tidies >> PDR_IN_MESSAGES & 1);
    if ((code = feed_messages(w, w->at[PDR_IN_MESSAGES]))) return code;
    end_chain(w);
    return PDR_OK;
}

/* Other calls (embeddings, responses, …): whatever prompt there is, without complaints. */
static void take_other(walk *w)
{
    const uint8_t *p = w->at[PDR_IN_INPUT];
    uint32_t flags = w->out->flags;
    if (given(w, PDR_IN_MESSAGES) && take_chat(w)) {
        w->out->flags = flags;
        chain_begin(&w->c, 0, PDR_KIND_JSON, w->job->limits.block_bytes, NULL, 0);
    } else if (!given(w, PDR_IN_MESSAGES) && given(w, PDR_IN_INPUT)) {
        begin_chain(w, *p == '"' ? PDR_KIND_TEXT : PDR_KIND_JSON);
        if (*p == '"')
            feed_text(w, string_at(w, p));
        else
            feed_member(w, PDR_IN_INPUT, 0, 0);
        end_chain(w);
    }
}

/* ------------------------------------------------------------------------------------------------------------ small
 * members */

static void take_session(walk *w)
{
    static const uint8_t keys[] = {PDR_IN_SESSION_ID, PDR_IN_CONVERSATION_ID, PDR_IN_SESSION_PARAMS,
                                   PDR_IN_PROMPT_CACHE_KEY, PDR_IN_USER};
    for (size_t i = 0; i < sizeof keys; i++) {
        const uint8_t *p = has(w, keys[i]) ? w->at[keys[i]] : NULL;
        if (!p) continue;
        w->s.next_long = 0;
        if (*p == '[') p = first_item(p);
        if (p && *p == '{') p = find_member(w, p, "id");
        if (!p || (*p == '"' && p[1] == '"')) continue;
        if (*p == '"')
            w->out->session = text_digest(string_at(w, p), 0);
        else if (*p == '-' || (unsigned)*p - '0' <= 9)
            w->out->session = XXH3_64bits(p, (size_t)(known_value_end(&w->s, p) - p));
        if (w->out->session) return;
    }
}

static void take_priority(walk *w)
{
    const uint8_t *p = w->at[PDR_IN_PRIORITY];
    int minus = has(w, PDR_IN_PRIORITY) && *p == '-';
    uint64_t v;
    if (has(w, PDR_IN_PRIORITY) && read_count(p + minus, &v)) w->out->priority = minus ? -(int64_t)v : (int64_t)v;
}

/* logprobs and return_logprob: true, a number, or a list with one of them. */
static int wants_logprobs(walk *w, unsigned key)
{
    const uint8_t *p = has(w, key) ? w->at[key] : NULL;
    if (p && *p == '[')
        for (p = first_item(p); p && *p != 't';) p = next_item(known_value_end(&w->s, p));
    return p && (*p == 't' || (unsigned)*p - '0' <= 9);
}

static int take_small_members(walk *w)
{
    pdr_prompt *out = w->out;
    const uint8_t *p;
    uint64_t v;
    if (has(w, PDR_IN_MODEL) && *w->at[PDR_IN_MODEL] == '"') {
        out->model.begin = (uint64_t)(w->at[PDR_IN_MODEL] - w->s.body);
        out->model.end = (uint64_t)(w->end[PDR_IN_MODEL] - w->s.body);
    }
    w->s.next_long = 0;
    if (has(w, PDR_IN_STREAM) && reads_true(w, w->at[PDR_IN_STREAM])) out->flags |= PDR_PROMPT_STREAM;
    if (has(w, PDR_IN_STREAM_OPTIONS) && (p = find_member(w, w->at[PDR_IN_STREAM_OPTIONS], "include_usage")) &&
        reads_true(w, p))
        out->flags |= PDR_PROMPT_USAGE;
    if (wants_logprobs(w, out->api == PDR_API_GENERATE ? PDR_IN_RETURN_LOGPROB : PDR_IN_LOGPROBS))
        out->flags |= PDR_PROMPT_RETURN_LOGPROB;
    if (has(w, PDR_IN_PRIORITY)) take_priority(w);
    take_session(w);
    if (out->api == PDR_API_GENERATE) return PDR_OK;
    if (has(w, PDR_IN_MAX_TOKENS) && read_count(w->at[PDR_IN_MAX_TOKENS], &v)) out->max_tokens = v;
    if (has(w, PDR_IN_MAX_COMPLETION_TOKENS) && read_count(w->at[PDR_IN_MAX_COMPLETION_TOKENS], &v) && v)
        out->max_tokens = v;
    return out->api == PDR_API_OTHER ? PDR_OK : take_n(w, has(w, PDR_IN_N) ? w->at[PDR_IN_N] : NULL, 1, &out->samples);
}

#endif
