/*
 * The error body of OpenAI's API, so that the SDKs raise their typed errors: {"error":{"message":…,"type":…,"code":…}}.
 * `type` follows from the HTTP status with the words OpenAI uses; `code` is the machine-readable reason (null if NULL).
 * Any bytes in, valid JSON out.
 */
#include "pdroute/pdroute.h"
#include "text.h"

static const char *type_of(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

int pdr_error_body(int status, const char *code, const char *message, char *buf, size_t cap, size_t *need)
{
    struct pdr_text t = {buf, cap, 0};
    const char *type = type_of(status);
    if (!buf && cap) return PDR_E_INVALID;
    if (!message) message = "";
    PDR_TEXT_LITERAL(&t, "{\"error\":{\"message\":");
    pdr_text_json(&t, message, strlen(message));
    PDR_TEXT_LITERAL(&t, ",\"type\":");
    pdr_text_json(&t, type, strlen(type));
    PDR_TEXT_LITERAL(&t, ",\"code\":");
    if (code)
        pdr_text_json(&t, code, strlen(code));
    else
        PDR_TEXT_LITERAL(&t, "null");
    PDR_TEXT_LITERAL(&t, "}}");
    return pdr_text_end(&t, need);
}
