/* Names of the members that matter, as numbers. Static: included by prompt_walk.h. */
#ifndef PDR_PROMPT_KEYS_H
#define PDR_PROMPT_KEYS_H

#include "owned.h"
#include "prompt.h"

#include <string.h>

#define KEY_MAX PDR_OWNED_MAX /* no name that matters is longer */

#define IS(name) (!memcmp(k, name, sizeof name - 1))

/* PDR_IN_* of a top-level member's name. */
static inline unsigned body_key(const char *k, size_t n)
{
    switch (n) {
    case 1:
        return IS("n") ? PDR_IN_N : PDR_IN_OTHER;
    case 4:
        return IS("text") ? PDR_IN_TEXT : IS("user") ? PDR_IN_USER : PDR_IN_OTHER;
    case 5:
        return IS("model") ? PDR_IN_MODEL : IS("tools") ? PDR_IN_TOOLS : IS("input") ? PDR_IN_INPUT : PDR_IN_OTHER;
    case 6:
        return IS("stream") ? PDR_IN_STREAM : IS("prompt") ? PDR_IN_PROMPT : PDR_IN_OTHER;
    case 8:
        return IS("messages")   ? PDR_IN_MESSAGES
               : IS("logprobs") ? PDR_IN_LOGPROBS
               : IS("priority") ? PDR_IN_PRIORITY
                                : PDR_IN_OTHER;
    case 9:
        return IS("input_ids")   ? PDR_IN_INPUT_IDS
               : IS("lora_path") ? PDR_IN_LORA_PATH
               : IS("extra_key") ? PDR_IN_EXTRA_KEY
                                 : PDR_IN_OTHER;
    case 10:
        return IS("max_tokens")   ? PDR_IN_MAX_TOKENS
               : IS("cache_salt") ? PDR_IN_CACHE_SALT
               : IS("session_id") ? PDR_IN_SESSION_ID
               : IS("image_data") ? PDR_IN_IMAGE_DATA
               : IS("audio_data") ? PDR_IN_AUDIO_DATA
               : IS("video_data") ? PDR_IN_VIDEO_DATA
                                  : PDR_IN_OTHER;
    case 11:
        return IS("tool_choice") ? PDR_IN_TOOL_CHOICE : PDR_IN_OTHER;
    case 12:
        return IS("input_embeds") ? PDR_IN_INPUT_EMBEDS : PDR_IN_OTHER;
    case 14:
        return IS("stream_options")   ? PDR_IN_STREAM_OPTIONS
               : IS("return_logprob") ? PDR_IN_RETURN_LOGPROB
               : IS("session_params") ? PDR_IN_SESSION_PARAMS
               : pdr_owned_name(k, n) ? PDR_IN_OWNED
                                      : PDR_IN_OTHER;
    case 15:
        return IS("sampling_params")   ? PDR_IN_SAMPLING_PARAMS
               : IS("conversation_id") ? PDR_IN_CONVERSATION_ID
                                       : PDR_IN_OTHER;
    case 16:
        return IS("prompt_cache_key") ? PDR_IN_PROMPT_CACHE_KEY : PDR_IN_OTHER;
    case 21:
        return IS("max_completion_tokens") ? PDR_IN_MAX_COMPLETION_TOKENS : PDR_IN_OTHER;
    case 18:
    case 22:
        return pdr_owned_name(k, n) ? PDR_IN_OWNED : PDR_IN_OTHER;
    default:
        return PDR_IN_OTHER;
    }
}

/* Members of a message. */
enum {
    MSG_ROLE,
    MSG_NAME,
    MSG_CALL_ID,
    MSG_REASONING,
    MSG_CONTENT,
    MSG_CALLS,
    MSG_COUNT,
    MSG_CACHE = 8,
    MSG_OTHER = 9
};

static inline unsigned message_key(const char *k, size_t n)
{
    switch (n) {
    case 4:
        return IS("role") ? MSG_ROLE : IS("name") ? MSG_NAME : MSG_OTHER;
    case 7:
        return IS("content") ? MSG_CONTENT : MSG_OTHER;
    case 10:
        return IS("tool_calls") ? MSG_CALLS : MSG_OTHER;
    case 12:
        return IS("tool_call_id") ? MSG_CALL_ID : MSG_OTHER;
    case 13:
        return IS("cache_control") ? MSG_CACHE : MSG_OTHER;
    case 17:
        return IS("reasoning_content") ? MSG_REASONING : MSG_OTHER;
    default:
        return MSG_OTHER;
    }
}

#undef IS
#define IS_TEXT(text, n, word) ((n) == sizeof word - 1 && !memcmp(text, word, sizeof word - 1))

#endif
