/*
 * What Envoy itself takes for the legs of a request: a dynamic module that decides nothing. The body is collected and sent as it came, servers take turns;
 * beside libpdroute's module in one run, the difference is libpdroute's. `way=` of its configuration:
 *
 *   router    one leg: Envoy's router sends it, the module names the server
 *   stream    one leg: a stream that the filter starts, whose answer the filter gives, as libpdroute's module does
 *   streams   two legs: two such streams; the answer ends when both have
 *   mixed     two legs: Envoy's router sends decode's, a stream of the filter prefill's; the answer ends when both have
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"

#define HEADERS_MAX 64
#define CHUNKS_MAX  256
#define CAP         (1u << 20)
enum { WAY_ROUTER, WAY_STREAM, WAY_STREAMS, WAY_MIXED };
enum { BODY_STOP_AND_BUFFER = 1 };

bool CALLBACK(http_set_header)(abi_filter f, int which, abi_text key, abi_text value);
bool CALLBACK(http_append_body)(abi_filter f, int which, abi_text data);
void CALLBACK(http_filter_continue_encoding)(abi_filter f);

static struct {
    int way;
    unsigned port, servers;
} config;

typedef struct filter {
    abi_filter envoy;
    char *body;
    size_t len;
    uint64_t id[2];
    int open[2], held;
    char status[4];
} filter;

static abi_text text_of(const char *s)
{
    return (abi_text){s, strlen(s)};
}

EXPORT const char *HOOK(program_init)(void);
EXPORT const char *HOOK(program_init)(void)
{
    return "v0.1.0";
}

EXPORT void *HOOK(http_filter_config_new)(void *envoy, abi_text name, abi_text text);
EXPORT void *HOOK(http_filter_config_new)(void *envoy, abi_text name, abi_text text)
{
    static const char *const ways[] = {"router", "stream", "streams", "mixed"};
    char copy[128], way[16];

    (void)envoy, (void)name;
    if (text.length >= sizeof copy) return NULL;
    memcpy(copy, text.ptr, text.length);
    copy[text.length] = '\0';
    if (sscanf(copy, "way=%15s port=%u servers=%u", way, &config.port, &config.servers) != 3 || config.servers == 0) return NULL;
    for (int i = 0; i < 4; i++) {
        if (strcmp(way, ways[i]) == 0) {
            config.way = i;
            return &config;
        }
    }
    return NULL;
}

EXPORT void HOOK(http_filter_config_destroy)(void *c);
EXPORT void HOOK(http_filter_config_destroy)(void *c)
{
    (void)c;
}

EXPORT void *HOOK(http_filter_new)(void *c, abi_filter f);
EXPORT void *HOOK(http_filter_new)(void *c, abi_filter f)
{
    filter *r = calloc(1, sizeof *r);
    (void)c;
    if (r) r->envoy = f;
    return r;
}

EXPORT void HOOK(http_filter_destroy)(filter *r);
EXPORT void HOOK(http_filter_destroy)(filter *r)
{
    free(r->body);
    free(r);
}

/* The next server of a leg: 127.0.71.n for prefill, 127.0.72.n for decode. */
static void next_server(int leg, char *out, size_t cap)
{
    static unsigned turn[2];
    (void)snprintf(out, cap, "127.0.%d.%u:%u", leg ? 72 : 71, turn[leg]++ % config.servers + 1, config.port);
}

static void start_leg(filter *r, int leg)
{
    abi_header all[HEADERS_MAX], out[HEADERS_MAX + 1];
    char address[40];
    size_t n = CALLBACK(http_get_headers_size)(r->envoy, ABI_REQUEST_HEADERS), k = 0;

    if (n > HEADERS_MAX || !CALLBACK(http_get_headers)(r->envoy, ABI_REQUEST_HEADERS, all)) return;
    next_server(leg, address, sizeof address);
    for (size_t i = 0; i < n; i++) {
        if (all[i].key_length != strlen("content-length") || memcmp(all[i].key, "content-length", all[i].key_length)) out[k++] = all[i];
    }
    out[k++] = (abi_header){"x-gateway-destination-endpoint", strlen("x-gateway-destination-endpoint"), address, strlen(address)};
    r->open[leg] = CALLBACK(http_filter_start_http_stream)(r->envoy, &r->id[leg], text_of("servers"), out, k, (abi_text){r->body, r->len}, true, 3600000) == 0;
}

EXPORT int HOOK(http_filter_request_headers)(abi_filter f, filter *r, bool end);
EXPORT int HOOK(http_filter_request_headers)(abi_filter f, filter *r, bool end)
{
    (void)f, (void)r, (void)end;
    return ABI_HEADERS_STOP;
}

EXPORT int HOOK(http_filter_request_body)(abi_filter f, filter *r, bool end);
EXPORT int HOOK(http_filter_request_body)(abi_filter f, filter *r, bool end)
{
    abi_text chunks[CHUNKS_MAX];
    const size_t n = CALLBACK(http_get_body_chunks_size)(f, ABI_RECEIVED_REQUEST_BODY);
    size_t size = 0;
    char address[40];

    if (!r->body) r->body = malloc(CAP);
    if (n && n <= CHUNKS_MAX && r->body && CALLBACK(http_get_body_chunks)(f, ABI_RECEIVED_REQUEST_BODY, chunks)) {
        for (size_t i = 0; i < n && r->len + chunks[i].length <= CAP; i++) {
            memcpy(r->body + r->len, chunks[i].ptr, chunks[i].length);
            r->len += chunks[i].length;
            size += chunks[i].length;
        }
        (void)CALLBACK(http_drain_body)(f, ABI_RECEIVED_REQUEST_BODY, size);
    }
    if (!end) return ABI_BODY_STOP_NO_BUFFER;
    if (config.way == WAY_STREAMS || config.way == WAY_MIXED) start_leg(r, 0);
    if (config.way == WAY_STREAM || config.way == WAY_STREAMS) {
        start_leg(r, 1);
        return ABI_BODY_STOP_NO_BUFFER;
    }
    next_server(1, address, sizeof address);
    (void)CALLBACK(http_set_header)(f, ABI_REQUEST_HEADERS, text_of("x-gateway-destination-endpoint"), text_of(address));
    (void)CALLBACK(http_append_body)(f, ABI_RECEIVED_REQUEST_BODY, (abi_text){r->body, r->len});
    return ABI_BODY_CONTINUE;
}

EXPORT int HOOK(http_filter_response_headers)(abi_filter f, filter *r, bool end);
EXPORT int HOOK(http_filter_response_headers)(abi_filter f, filter *r, bool end)
{
    (void)f, (void)r, (void)end;
    return ABI_HEADERS_CONTINUE;
}

EXPORT int HOOK(http_filter_response_body)(abi_filter f, filter *r, bool end);
EXPORT int HOOK(http_filter_response_body)(abi_filter f, filter *r, bool end)
{
    (void)f;
    if (config.way != WAY_MIXED || !end || !r->open[0]) return ABI_BODY_CONTINUE;
    r->held = 1;
    return BODY_STOP_AND_BUFFER;
}

EXPORT void HOOK(http_filter_http_stream_headers)(abi_filter f, filter *r, uint64_t id, const abi_header *headers, size_t n, bool end);
EXPORT void HOOK(http_filter_http_stream_headers)(abi_filter f, filter *r, uint64_t id, const abi_header *headers, size_t n, bool end)
{
    abi_header out[HEADERS_MAX];
    size_t k = 0;

    (void)end;
    if (!r->open[1] || id != r->id[1] || n > HEADERS_MAX) return;
    for (size_t i = 0; i < n; i++) {
        if (headers[i].key_length != strlen("content-length") || memcmp(headers[i].key, "content-length", headers[i].key_length)) out[k++] = headers[i];
    }
    CALLBACK(http_send_response_headers)(f, out, k, false);
}

EXPORT void HOOK(http_filter_http_stream_data)(abi_filter f, filter *r, uint64_t id, const abi_text *data, size_t n, bool end);
EXPORT void HOOK(http_filter_http_stream_data)(abi_filter f, filter *r, uint64_t id, const abi_text *data, size_t n, bool end)
{
    (void)end;
    if (!r->open[1] || id != r->id[1]) return;
    for (size_t i = 0; i < n; i++) CALLBACK(http_send_response_data)(f, data[i], false);
}

static void leg_ended(filter *r, uint64_t id)
{
    const int leg = r->open[1] && r->id[1] == id;
    r->open[leg] = 0;
    if (config.way == WAY_MIXED) {
        if (r->held) CALLBACK(http_filter_continue_encoding)(r->envoy);
    } else if (!r->open[!leg]) {
        CALLBACK(http_send_response_data)(r->envoy, (abi_text){"", 0}, true);
    }
}

EXPORT void HOOK(http_filter_http_stream_complete)(abi_filter f, filter *r, uint64_t id);
EXPORT void HOOK(http_filter_http_stream_complete)(abi_filter f, filter *r, uint64_t id)
{
    (void)f;
    leg_ended(r, id);
}

EXPORT void HOOK(http_filter_http_stream_reset)(abi_filter f, filter *r, uint64_t id, int reason);
EXPORT void HOOK(http_filter_http_stream_reset)(abi_filter f, filter *r, uint64_t id, int reason)
{
    (void)f, (void)reason;
    leg_ended(r, id);
}

/* What Envoy wants to be there, and is of no use here. */
#define UNUSED(type, hook, does, ...)    \
    EXPORT type HOOK(hook)(__VA_ARGS__); \
    EXPORT type HOOK(hook)(__VA_ARGS__)  \
    {                                    \
        does;                            \
    }
#pragma GCC diagnostic ignored "-Wunused-parameter"
static char nothing;
UNUSED(void *, http_filter_per_route_config_new, return &nothing, abi_text name, abi_text text)
UNUSED(void, http_filter_per_route_config_destroy, (void)0, void *c)
UNUSED(int, http_filter_request_trailers, return ABI_TRAILERS_CONTINUE, abi_filter f, filter *r)
UNUSED(int, http_filter_response_trailers, return ABI_TRAILERS_CONTINUE, abi_filter f, filter *r)
UNUSED(void, http_filter_stream_complete, (void)0, abi_filter f, filter *r)
UNUSED(void, http_filter_scheduled, (void)0, abi_filter f, filter *r, uint64_t event)
UNUSED(void, http_filter_http_callout_done, (void)0, abi_filter f, filter *r, uint64_t id, int result, const abi_header *h, size_t n, const abi_text *b, size_t m)
UNUSED(void, http_filter_http_stream_trailers, (void)0, abi_filter f, filter *r, uint64_t id, const abi_header *trailers, size_t n)
UNUSED(void, http_filter_downstream_above_write_buffer_high_watermark, (void)0, abi_filter f, filter *r)
UNUSED(void, http_filter_downstream_below_write_buffer_low_watermark, (void)0, abi_filter f, filter *r)
