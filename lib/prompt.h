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
 * continues the string of this one:
 *
 *   text, prompt (string)      the text itself, unescaped, as UTF-8
 *   token ids                  each as four bytes, little-endian
 *   messages                   tools, then message after message, each piece behind a mark of two bytes: 0xFF and a
 * letter. 0xFF never occurs in UTF-8, so no text can look like a mark T  JSON                  the tools, unless
 * tool_choice is "none" M  text                  begins a message: its role N I R C K  text or JSON  its name,
 * tool_call_id, reasoning_content, content, tool_calls L  then P  JSON          its content as a list, and each part X
 * text, JSON            another member: its name and value JSON                       { [ } ] open and close, " a
 * string, : a member's name, # a number or word as written H  8 bytes               in an image, audio or video part:
 * the XXH3 of a string, in its place
 *
 * Nulls and members named cache_control are left out. In a batch the chain describes the first prompt; bytes and tokens
 * are those of all. Salt: 0, then for model (1), lora_path (2), cache_salt (3), extra_key (4), if a non-empty string
 * (or, in a batch, a list that begins with one): salt = XXH3_64bits_withSeed(text, salt + number).
 *
 * Embeddings (input_embeds) are counted, not hashed: the engine cannot cache them.
 *
 * Cost: docs/performance.md. About 12 KB of stack; never allocates; linear time.
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

/*
 * The paths. pdr_scan_*: 0 or a code, with the job's offset and sentence set. pdr_tokens_*: the chain of token ids; the
 * number of hashes written.
 */
#define PDR_DECLARE_PATH(isa)                                                                                          \
    int pdr_scan_##isa(pdr_scan_job *job);                                                                             \
    uint32_t pdr_tokens_##isa(const uint32_t *ids, size_t count, uint64_t salt, uint32_t block_bytes,                  \
                              uint64_t *hashes, uint32_t cap)
PDR_DECLARE_PATH(portable);
PDR_DECLARE_PATH(avx2);
PDR_DECLARE_PATH(neon);

#endif
