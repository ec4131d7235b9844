/*
 * What is made from a server's error and for a client: pdr_error_mask, _status, _body, _event, and pdr_header_owned. Byte 0 and 1 shape the decision, the rest is the text.
 *  - masking keeps length and validity: what was JSON is JSON; a second time it changes nothing; no room, host or owned name is left;
 *  - a message of any bytes makes a body and an event that are JSON, of the length that was told.
 */
#include "json.h"
#include "pdroute/pdroute.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUTATOR_PREFIX 2
#include "json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "line %d: %s\n", __LINE__, #x);                                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static int word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (unsigned char)c >= 0x80; }

/* As a word of its own: "10.0.0.5" is not in "110.0.0.5". */
static int has(const char *text, size_t len, const char *what)
{
    size_t n = strlen(what);
    for (const char *p = text; (size_t)(text + len - p) >= n; p++)
        if (!memcmp(p, what, n) && (p == text || (!word(p[-1]) && p[-1] != '.' && p[-1] != '-')) && (p + n == text + len || (!word(p[n]) && p[n] != '.' && p[n] != '-'))) return 1;
    return 0;
}

static void mask(const pdr_decision *d, const char *text, size_t len)
{
    char *once = malloc(len + 1), *twice = malloc(len + 1), room[24];
    CHECK(once && twice);
    memcpy(once, text, len);
    int json = !pdr_json_check(text, len, 128, NULL);
    CHECK(pdr_error_mask(d, once, len) == PDR_OK);
    CHECK(!json || !pdr_json_check(once, len, 128, NULL));
    memcpy(twice, once, len);
    CHECK(pdr_error_mask(d, twice, len) == PDR_OK);
    CHECK(!memcmp(once, twice, len));
    CHECK(!has(once, len, "bootstrap_room") && !has(once, len, "bootstrap_host") && !has(once, len, "bootstrap_port"));
    if (d) {
        snprintf(room, sizeof room, "%llu", (unsigned long long)d->room);
        CHECK(!has(once, len, room) && !has(once, len, d->prefill_host) && !has(once, len, d->decode_host));
    }
    free(once);
    free(twice);
}

static void make(uint32_t api, int status, const char *code, const char *message)
{
    size_t need, again;
    int    event = pdr_error_event(api, status, code, message, NULL, 0, &need);
    if (event == PDR_OK) {
        char *text = malloc(need);
        CHECK(text && pdr_error_event(api, status, code, message, text, need, &again) == PDR_OK && again == need);
        CHECK(need > 10 && !memcmp(text, "\n\ndata: ", 8) && !memcmp(text + need - 2, "\n\n", 2) && !memchr(text + 2, '\n', need - 4));
        CHECK(!pdr_json_check(text + 8, need - 10, 16, NULL));
        int said = status >= 400 && status < 600 ? status : 0;
        if (api == PDR_API_GENERATE || !code) CHECK(pdr_error_status(text, need) >= 0);
        if (api == PDR_API_GENERATE && said && !strstr(message, "code")) CHECK(pdr_error_status(text, need) == said);
        free(text);
    } else {
        CHECK(event == PDR_E_TOO_LARGE && api != PDR_API_GENERATE);
    }
    CHECK(pdr_error_body(status, code, message, NULL, 0, &need) == PDR_OK);
    char *body = malloc(need);
    CHECK(body && pdr_error_body(status, code, message, body, need, &again) == PDR_OK && again == need && !pdr_json_check(body, need, 16, NULL));
    free(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const hosts[] = {"10.0.0.5", "fd00::1", "prefill-0.svc", "dec" /* shorter ones are left: they would blot out half of any text */};
    pdr_decision d;
    if (size < 2) return 0;
    char *text = malloc(size - 1);
    CHECK(text);
    memcpy(text, data + 2, size - 2);
    text[size - 2] = 0;
    pdr_init_struct(&d, sizeof d);
    d.room = d.room_counter = 1234567 + data[1];
    strcpy(d.prefill_host, hosts[data[0] & 3]);
    strcpy(d.decode_host, hosts[data[0] >> 2 & 3]);
    strcpy(d.bootstrap_host, d.prefill_host);
    mask(data[0] & 16 ? &d : NULL, text, size - 2);
    make(data[0] & 32 ? PDR_API_GENERATE : PDR_API_CHAT, 380 + data[1], data[0] & 64 ? text : data[0] & 128 ? NULL : "no_pair", text);
    CHECK(pdr_error_status(text, size - 2) == 0 || (pdr_error_status(text, size - 2) >= 400 && pdr_error_status(text, size - 2) < 600));
    CHECK(!pdr_header_owned(text, size - 2) || text[0] == 'x' || text[0] == 'X');
    free(text);
    return 0;
}
