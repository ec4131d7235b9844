/*
 * Answers: follows the JSON of an engine's answer (or of one event of a stream) as its bytes pass, to find what a
 * router wants to know, wherever chunks are cut. Works in constant memory, buffers nothing but a key, never fails: what
 * is not JSON yields nothing.
 *
 * A record is an object at the top, or an object in an array at the top (batches of /generate). Only these places
 * count, so that a key of the same name in content, in tool arguments or in any string never does:
 *   record.usage.{prompt_tokens, completion_tokens}, record.usage.prompt_tokens_details.cached_tokens      (OpenAI's
 * API) record.meta_info.{prompt_tokens, completion_tokens, cached_tokens}                                     (SGLang's
 * /generate) record.error (not null or false), record.object "error", a finish reason "abort" record.choices[].{delta,
 * text, finish_reason}, record.{text, output_ids}: whether tokens came Keys are compared as bytes: an engine that
 * escapes letters of its keys is not understood (none does).
 *
 * Cost: about 0.3 ns per byte of long strings and of members that do not matter, 1 ns per byte of short ones.
 */
#ifndef PDR_ANSWER_H
#define PDR_ANSWER_H

#include <stddef.h>
#include <stdint.h>

enum {                                /* pdr_answer.found, of the present record */
       PDR_ANSWER_USAGE = 1u << 0,    /* prompt or completion tokens were there */
       PDR_ANSWER_CACHED = 1u << 1,   /* cached tokens were there */
       PDR_ANSWER_TOTAL = 1u << 2,    /* they are of usage: of the whole request, not of one prompt */
       PDR_ANSWER_FINISHED = 1u << 3, /* meta_info has a finish reason: the last record of its prompt */
       PDR_ANSWER_ERROR = 1u << 4,    /* error or abort */
       PDR_ANSWER_CHOICE = 1u << 5,   /* there is a choice, or a text or ids of /generate */
       PDR_ANSWER_ROLE = 1u << 6,     /* a delta names a role */
       PDR_ANSWER_CONTENT = 1u << 7   /* a delta has something else that is not empty, or a choice a text that is not */
};

/* Plain data; all zero is the beginning. */
struct pdr_answer {
    uint8_t state, context, key, string;
    uint8_t after_colon, in_array, bad, text_len;
    uint32_t depth;
    uint32_t found;
    uint64_t number;
    uint64_t prompt_tokens, completion_tokens, cached_tokens; /* of the present record */
    char text[24];
};

/* Where a feed stopped. */
enum { PDR_ANSWER_MORE = 0, PDR_ANSWER_RECORD = 1 /* a record has just ended: look at it, then feed the rest */ };

/* Follows the bytes from *p on; *p gets where it stopped (`end` with PDR_ANSWER_MORE). */
int pdr_answer_feed(struct pdr_answer *a, const char **p, const char *end);
/*
 * Whether a whole text could set anything but PDR_ANSWER_CHOICE, _ROLE and _CONTENT; 0 is certain. Much quicker than
 * following it: most events of a stream are of no interest once the first token was seen.
 */
int pdr_answer_may_matter(const char *p, const char *end);
/* The value at the top is complete. */
int pdr_answer_over(const struct pdr_answer *a);
/* Ignore all that follows. */
void pdr_answer_ignore(struct pdr_answer *a);
/* Whether the record that ended brought a token to the client; see pdr_response in docs. */
int pdr_answer_has_token(const struct pdr_answer *a);

#endif
