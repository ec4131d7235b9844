/* Answers of the gateway's own. */
#include "parts.h"

#include <inttypes.h>
#include <stdio.h>

int gate_error_is_refusal(view chunk)
{
    const int status = pdr_error_status(chunk.data, chunk.len);
    return status >= 400 && status < 500;
}

void gate_respond(gate_job *job, unsigned status, const char *code, const char *message, uint64_t retry_after_ms)
{
    (void)snprintf(job->why, sizeof job->why, "%s", code);
    job->gate->ops->respond(job, status, code, message, retry_after_ms);
}

void gate_respond_code(gate_job *job, int code, const pdr_error *err, uint64_t retry_after_ms)
{
    char text[320];
    const char *message = err && err->message[0] ? err->message : pdr_strerror(code);

    if (err && err->line) { /* a place in the body */
        (void)snprintf(text, sizeof text, "%s (byte offset %" PRIu64 ", line %u)", message, err->offset, err->line);
        message = text;
    }
    if ((code == PDR_E_NO_PAIR || code == PDR_E_QUEUE_FULL) && retry_after_ms == 0) retry_after_ms = 1000;
    gate_respond(job, (unsigned)pdr_http_status(code), pdr_error_name(code), message, retry_after_ms);
}

void gate_refuse(gate_job *job, gate *g, int code, const char *message)
{
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    (void)snprintf(err.message, sizeof err.message, "%s", message);
    job->gate = g;
    gate_respond(job, (unsigned)pdr_http_status(code), pdr_error_name(code), message, 0);
}
