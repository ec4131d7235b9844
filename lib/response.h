/*
 * Responses: reads what a server answers while it passes to the client, as plain JSON or as Server-Sent Events. The
 * public functions are in pdroute.h.
 *
 * Promises: the result depends only on the bytes, not on how they were cut into chunks; 320 bytes of state and no
 * buffer; linear time; no content makes it fail. What it recognises of JSON is listed in answer.h; of SSE (WHATWG
 * HTML, 9.2) all line ends (LF, CRLF, CR), comments, "data:" with and without a space, data over several lines, a byte
 * order mark.
 *
 * What the fields mean
 *  - events: events with data that were completed by an empty line, [DONE] included.
 *  - PDR_SEEN_FIRST_TOKEN: SSE only. An event that brought a token: not an error, and a delta with something besides
 * its role that is neither null nor empty, or a choice without any role (a token whose text is still empty counts,
 * since engines send one event per step; so does the event with only a finish reason, which ends an answer of no text),
 * or a /generate event with text or output_ids. The announcement {"role":"assistant","content":""} is not one: engines
 * send it before the first token exists.
 *  - PDR_SEEN_DONE: a data line that begins with [DONE], as the first data of its event.
 *  - prompt_tokens, completion_tokens, cached_tokens: of `usage` the last one seen (streams may repeat it), of
 * `meta_info` the sum over the prompts of a batch: over the elements of an array, in a stream over the events with a
 * finish reason, plus the latest event of an unfinished one.
 *  - PDR_SEEN_ERROR: a member "error" that is not null or false, {"object":"error"} (SGLang), or a finish reason abort.
 */
#ifndef PDR_RESPONSE_H
#define PDR_RESPONSE_H

#include "answer.h"

#include "pdroute/pdroute.h"

enum pdr_line {
    PDR_LINE_FIELD /* of a line: how much of "data" was seen is in `matched` */,
    PDR_LINE_SPACE /* after the colon */,
    PDR_LINE_DATA,
    PDR_LINE_OTHER
};

/* What pdr_response.state holds; copied in and out, so that the public struct stays plain words. */
struct pdr_reader {
    struct pdr_answer answer;
    uint64_t sum[3]; /* of finished prompts: prompt, completion, cached */
    uint8_t line, matched, after_cr, bom, has_data, done;
};
/* Behind it lies a second one: as it was where the text of the next pdr_response_mask() begins. */
_Static_assert(2 * sizeof(struct pdr_reader) <= sizeof((pdr_response *)0)->state, "state of pdr_response is too small");

/* Reads on: what pdr_response_feed() does with a chunk, on a reader of one's own. Of `s` the kind is read, flags and counters change. */
void pdr_reader_feed(pdr_response *s, struct pdr_reader *r, const char *p, const char *end);

#endif
