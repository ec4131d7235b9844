/*
 * What is used of Envoy's dynamic-module ABI (source/extensions/dynamic_modules/abi/abi.h): plain C, so the few functions are declared here, as facts. Seen
 * to hold for 1.38, 1.39 and 1.40. Callbacks are Envoy's, hooks ours; memory that Envoy shows is its own and gone after the hook, texts have no NUL.
 */
#ifndef PDR_ENVOY_ABI_H
#define PDR_ENVOY_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CALLBACK(name) envoy_dynamic_module_callback_##name
#define HOOK(name)     envoy_dynamic_module_on_##name
#define EXPORT         __attribute__((visibility("default")))

typedef struct abi_text {
    const char *ptr;
    size_t length;
} abi_text;
typedef struct abi_header {
    const char *key;
    size_t key_length;
    const char *value;
    size_t value_length;
} abi_header;

typedef void *abi_filter; /* Envoy's side of a filter */

enum { ABI_REQUEST_HEADERS = 0 };
enum { ABI_RECEIVED_REQUEST_BODY = 0 };
enum { ABI_HEADERS_CONTINUE = 0, ABI_HEADERS_STOP = 1 };
enum { ABI_BODY_CONTINUE = 0, ABI_BODY_STOP_NO_BUFFER = 3 };
enum { ABI_TRAILERS_CONTINUE = 0, ABI_TRAILERS_STOP = 1 };
enum { ABI_RESET_LOCAL = 0 };
enum { ABI_DYNAMIC_METADATA = 0 };
enum { ABI_NO_CLUSTER = 2 }; /* of http_filter_start_http_stream */
/* why a stream of ours broke */
enum { ABI_CONNECTION_FAILURE = 0, ABI_CONNECTION_TERMINATION = 1, ABI_LOCAL_RESET = 2, ABI_LOCAL_REFUSED = 3, ABI_OVERFLOW = 4, ABI_REMOTE_RESET = 5,
       ABI_REMOTE_REFUSED = 6, ABI_PROTOCOL_ERROR = 7 };

size_t   CALLBACK(http_get_headers_size)(abi_filter f, int which);
bool     CALLBACK(http_get_headers)(abi_filter f, int which, abi_header *out);
size_t   CALLBACK(http_get_body_chunks_size)(abi_filter f, int which);
bool     CALLBACK(http_get_body_chunks)(abi_filter f, int which, abi_text *out);
bool     CALLBACK(http_drain_body)(abi_filter f, int which, size_t n);
void     CALLBACK(http_send_response)(abi_filter f, uint32_t status, abi_header *headers, size_t n, abi_text body, abi_text details);
void     CALLBACK(http_send_response_headers)(abi_filter f, abi_header *headers, size_t n, bool end);
void     CALLBACK(http_send_response_data)(abi_filter f, abi_text data, bool end);
void     CALLBACK(http_set_dynamic_metadata_string)(abi_filter f, abi_text space, abi_text key, abi_text value);
/* NULL in 1.38 */
void     CALLBACK(http_set_dynamic_metadata_string_batch)(abi_filter f, abi_text space, const abi_header *pairs, size_t n) __attribute__((weak));
bool     CALLBACK(http_get_metadata_string)(abi_filter f, uint32_t source, abi_text space, abi_text key, abi_text *out); /* logs an error for a list */
bool     CALLBACK(http_get_metadata_list_size)(abi_filter f, uint32_t source, abi_text space, abi_text key, size_t *out);
bool     CALLBACK(http_get_metadata_list_string)(abi_filter f, uint32_t source, abi_text space, abi_text key, size_t index, abi_text *out);
int      CALLBACK(http_filter_start_http_stream)(abi_filter f, uint64_t *id, abi_text cluster, abi_header *headers, size_t n, abi_text body, bool end,
                                                 uint64_t timeout_ms);
void     CALLBACK(http_filter_reset_http_stream)(abi_filter f, uint64_t id);
void     CALLBACK(http_filter_reset_stream)(abi_filter f, int reason, abi_text details);
void    *CALLBACK(http_filter_scheduler_new)(abi_filter f);
void     CALLBACK(http_filter_scheduler_commit)(void *scheduler, uint64_t event);
void     CALLBACK(http_filter_scheduler_delete)(void *scheduler);

#endif
