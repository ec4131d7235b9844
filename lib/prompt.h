/*
 * What a request body asks for: the members that matter, the batch as the engine counts it, the owned members to be cut
 * out, and the canonical prompt with its chain of block hashes. pdr_scan() and pdr_hash_tokens() of the public header.
 *
 * Two walks. The first (json_scan.h) checks the whole body and notes where the members are, the last one of a name
 * winning, as it does in the engine (orjson). The second goes over the prompt's members only, in canonical order, and
 * hashes them; it knows that they are valid. Both are compiled once per instruction set (prompt_walk.h) and give the
 * same results.
 *
 * The canonical prompt is a string of bytes, made so that different prompts differ and that a conversation's next turn
 * continues the string of this one. Text in it is what a JSON string holds between its quotes in its shortest spelling
 * (RFC 8785, 3.2.2.2), so that most bodies are hashed where they lie; JSON is without white space, strings likewise,
 * numbers and the order of members as they stand. 0xFF never occurs in UTF-8: a mark is 0xFF and a letter, and no text
 * looks like one.
 *
 * - text, prompt (string), input: the text. Images, audio and video of /generate come before it: mark I, A or V and
 *   JSON with digests (below), and then mark C.
 * - token ids: each as four bytes, little-endian.
 * - messages: mark T and the tools as JSON, if there are any and tool_choice is not "none"; then for each message
 *   - M, its role; N, name; I, tool_call_id; R, reasoning_content; C, content; K, tool_calls: a text, or mark J and
 *     JSON
 *   - for a content that is a list: L, and P and JSON for each part; in parts that refer to an image, audio, video or
 *     file each string that is a value is replaced by its digest, mark H and its XXH3 (unescaped) in eight bytes
 *   - X, name, J and JSON for every other member, as they come.
 *
 * Nulls are left out, and members named cache_control of messages, parts and tools: clients move these between turns.
 * In a batch the chain describes the first prompt; bytes and tokens are those of all. Embeddings (input_embeds) are
 * counted, not hashed: the engine cannot cache them. Options that change a chat template's result elsewhere than at the
 * end (reasoning_effort, chat_template_kwargs) are not looked at.
 *
 * Salt: 0, then for model (1), lora_path (2), cache_salt (3), extra_key (4), if it is a non-empty string (or, in a
 * batch, a list that begins with one): salt = XXH3_64bits_withSeed(unescaped text, salt + number).
 *
 * Cost: about 15 KB of stack; never allocates; linear time (tests/bench/bench_scan.c).
 */
#ifndef PDR_PROMPT_H
#define PDR_PROMPT_H

#include "err.h"

/* Members of the body that matter. */
enum {
    PDR_IN_MODEL,
    PDR_IN_STREAM,
    PDR_IN_STREAM_OPTIONS,
    PDR_IN_MESSAGES,
    PDR_IN_TOOLS,
    PDR_IN_TOOL_CHOICE,
    PDR_IN_PROMPT,
    PDR_IN_TEXT,
    PDR_IN_INPUT_IDS,
    PDR_IN_INPUT_EMBEDS,
    PDR_IN_INPUT,
    PDR_IN_N,
    PDR_IN_SAMPLING_PARAMS,
    PDR_IN_MAX_TOKENS,
    PDR_IN_MAX_COMPLETION_TOKENS,
    PDR_IN_RETURN_LOGPROB,
    PDR_IN_LOGPROBS,
    PDR_IN_LORA_PATH,
    PDR_IN_CACHE_SALT,
    PDR_IN_EXTRA_KEY,
    PDR_IN_PRIORITY,
    PDR_IN_SESSION_ID,
    PDR_IN_CONVERSATION_ID,
    PDR_IN_SESSION_PARAMS,
    PDR_IN_PROMPT_CACHE_KEY,
    PDR_IN_USER,
    PDR_IN_IMAGE_DATA,
    PDR_IN_AUDIO_DATA,
    PDR_IN_VIDEO_DATA,
    PDR_IN_COUNT,
    PDR_IN_OWNED = 64,
    PDR_IN_OTHER = 65
};

/* One scan: what goes in and what comes out. */
typedef struct pdr_scan_job {
    const uint8_t *body;
    size_t len;
    pdr_limits limits; /* resolved */
    uint64_t *hashes;
    size_t cap;
    pdr_prompt *out; /* written only as far as it is known; complete when the scan succeeds */
    /* on failure: where and why; sentence NULL: the body is not valid JSON, or too deep */
    int code;
    uint64_t offset;
    const char *subject, *sentence; /* the message is one behind the other */
} pdr_scan_job;

/* Which code to run; all give the same results. */
enum { PDR_PATH_PORTABLE = 0, PDR_PATH_AVX2 = 1, PDR_PATH_NEON = 2 };

/* 1 if this processor can run that path. [pure] */
int pdr_path_usable(int path);
/* pdr_scan by a given path, for tests and benchmarks. [pure] */
int pdr_scan_by(int path, const char *body, size_t len, uint32_t api, const pdr_limits *limits, pdr_prompt *out,
                uint64_t *hashes, size_t cap, pdr_error *err);
/* pdr_body_member by a given path. [pure] */
int pdr_member_by(int path, const char *body, size_t len, const char *name, size_t name_len, pdr_span *value);

/*
 * The paths. pdr_scan_*: 0 or a code, with the job's offset and sentence set. pdr_tokens_*: the chain of token ids; the
 * number of hashes written. pdr_member_*: pdr_body_member.
 */
#define PDR_DECLARE_PATH(isa)                                                                                          \
    int pdr_scan_##isa(pdr_scan_job *job);                                                                             \
    uint32_t pdr_tokens_##isa(const uint32_t *ids, size_t count, uint64_t salt, uint32_t block_bytes,                  \
                              uint64_t *hashes, uint32_t cap);                                                         \
    int pdr_member_##isa(const char *body, size_t len, const char *name, size_t name_len, pdr_span *value)
PDR_DECLARE_PATH(portable);
PDR_DECLARE_PATH(avx2);
PDR_DECLARE_PATH(neon);

#endif
