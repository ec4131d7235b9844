/*
 * Errors on their way to clients: how a stream that cannot go on ends in its own format, what an error event of an engine says, and what an engine's error
 * tells that is nobody's business (rooms, bootstrap servers, addresses of servers, file paths). SGLang's errors name all of these (0.5.23, seen).
 */
#include "err.h"
#include "text.h"

#include "pdroute/pdroute.h"

#include <string.h>

/* ---- the end of a stream */

int pdr_error_event(uint32_t api, int status, const char *code, const char *message, char *buf, size_t cap, size_t *need)
{
    struct pdr_text t = {buf, cap, 0};
    if (!need || (!buf && cap)) return PDR_E_INVALID;
    if (!message) message = "";
    if (api == PDR_API_GENERATE) { /* SGLang's own: an abort is a finish reason (captures of 0.5.23) */
        PDR_TEXT_LITERAL(&t, "\n\ndata: {\"text\":\"\",\"output_ids\":[],\"meta_info\":{\"finish_reason\":{\"type\":\"abort\",\"message\":");
        pdr_text_json(&t, message, strlen(message));
        PDR_TEXT_LITERAL(&t, ",\"status_code\":");
        pdr_text_u64(&t, (uint64_t)(status > 0 ? status : 0));
        PDR_TEXT_LITERAL(&t, ",\"err_type\":");
        if (code)
            pdr_text_json(&t, code, strlen(code));
        else
            PDR_TEXT_LITERAL(&t, "null");
        PDR_TEXT_LITERAL(&t, "}}}\n\n");
        return pdr_text_end(&t, need);
    }
    char   body[2048];
    size_t length;
    int    bad = pdr_error_body(status, code, message, body, sizeof body, &length);
    if (bad) return bad == PDR_E_NOSPACE ? PDR_E_TOO_LARGE : bad;
    PDR_TEXT_LITERAL(&t, "\n\ndata: ");
    pdr_text_put(&t, body, length);
    PDR_TEXT_LITERAL(&t, "\n\n");
    return pdr_text_end(&t, need);
}

/* ---- what an error event says */

static const char *find(const char *p, const char *end, const char *word)
{
    size_t n = strlen(word);
    for (; (size_t)(end - p) >= n; p++)
        if (*p == *word && !memcmp(p, word, n)) return p;
    return NULL;
}

/* A status in a member of this name (a quote inside a string is escaped, so this finds members only). */
static int status_in(const char *p, const char *end, const char *name)
{
    while ((p = find(p, end, name))) {
        int status = 0;
        if (p > end - strlen(name)) return 0;
        for (p += strlen(name); p < end && (*p == ' ' || *p == ':' || *p == '"'); p++) continue;
        for (; p < end && *p >= '0' && *p <= '9' && status < 1000; p++) status = status * 10 + (*p - '0');
        if (status >= 400 && status < 600) return status;
    }
    return 0;
}

int pdr_error_status(const char *text, size_t len)
{
    const char *end = text + len;
    if (!text || !len) return 0;
    int status = status_in(text, end, "\"status_code\"");
    return status ? status : status_in(text, end, "\"code\"");
}

/* ---- what an error must not tell */

static int word_byte(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (unsigned char)c >= 0x80; }
static int digit(char c) { return c >= '0' && c <= '9'; }

/* Digits become nines, so that a number stays one. */
static void blot(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = digit(p[i]) ? '9' : 'x';
}

/* Whether the letter at p is the end of an escape (\\n): it belongs to no word. */
static int escaped(const char *text, const char *p)
{
    const char *from = p;
    while (from > text && from[-1] == '\\') from--;
    return (p - from) & 1;
}

/* Of a word whose first letter is the end of an escape that letter stays: what was JSON is JSON. */
static void blot_word(const char *text, char *p, size_t n)
{
    size_t stays = (size_t)escaped(text, p);
    blot(p + stays, n - stays);
}

/* Every place of a word that does not go on in front or behind. */
static void blot_all(char *text, size_t len, const char *word)
{
    size_t n = strlen(word);
    if (n < 3) return;
    for (char *p = text, *end = text + len; (size_t)(end - p) >= n; p++) {
        if (memcmp(p, word, n)) continue;
        if (p > text && (word_byte(p[-1]) || p[-1] == '.') && !escaped(text, p - 1)) continue;
        if (p > text && p[-1] == 'u' && escaped(text, p - 1)) continue; /* the digits of an escaped character */
        if (p + n < end && word_byte(p[n])) continue;
        blot_word(text, p, n);
    }
}

/* Numbers so long that they are rooms, or look like one. */
static void blot_long_numbers(char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t from = i;
        while (i < len && digit(text[i])) i++;
        if (i - from >= 15 && (!from || text[from - 1] != '.')) blot(text + from, i - from);
        i += i == from;
    }
}

static int path_byte(char c) { return word_byte(c) || c == '/' || c == '.' || c == '-' || c == '+' || c == '@'; }

static int starts_with(const char *p, size_t n, const char *word) { return n >= strlen(word) && !memcmp(p, word, strlen(word)); }

/* Absolute paths of two parts and more, and names of Python files; not those of the API, nor what stands in a URL. */
static void blot_paths(char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\\') i += i + 1 < len && text[i + 1] == 'u' ? 5 : 1; /* an escape is no part of a path */
        if (i >= len) return;
        if (!path_byte(text[i]) || text[i] == '.' || escaped(text, text + i)) continue;
        size_t from = i, slashes = 0;
        while (i < len && path_byte(text[i])) slashes += text[i++] == '/';
        size_t n = i - from;
        while (n && text[from + n - 1] == '.') n--;
        int url = from && (text[from - 1] == ':' && text[from] == '/' && n > 1 && text[from + 1] == '/');
        int api = starts_with(text + from, n, "/v1/") || starts_with(text + from, n, "/generate");
        int file = n > 3 && !memcmp(text + from + n - 3, ".py", 3);
        if (!url && !api && (file || (text[from] == '/' && slashes >= 2))) blot(text + from, n);
    }
}

static void blot_words(char *text, size_t len, const char *word)
{
    size_t n = strlen(word);
    for (char *p = text, *end = text + len; (size_t)(end - p) >= n; p++)
        if (!memcmp(p, word, n)) blot_word(text, p, n);
}

int pdr_error_mask(const pdr_decision *d, char *text, size_t len)
{
    char room[24];
    if (!text && len) return PDR_E_INVALID;
    if (d && !pdr_struct_ok(d, offsetof(pdr_decision, first_byte_us))) return PDR_E_VERSION;
    blot_paths(text, len);
    if (d && d->room) {
        for (uint32_t i = 0; i < (d->batch ? d->batch : 1) && i < 64; i++) {
            struct pdr_text t = {room, sizeof room - 1, 0};
            pdr_text_u64(&t, pdr_decision_room(d, i));
            room[t.len] = 0;
            blot_all(text, len, room);
        }
    }
    blot_long_numbers(text, len);
    if (d) {
        blot_all(text, len, d->prefill_host);
        blot_all(text, len, d->decode_host);
        blot_all(text, len, d->bootstrap_host);
    }
    blot_words(text, len, "bootstrap_room");
    blot_words(text, len, "bootstrap_host");
    blot_words(text, len, "bootstrap_port");
    return PDR_OK;
}
