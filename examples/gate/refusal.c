/* Answers of the gateway's own. */
#include "parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

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

void gate_refuse_late(gate_job *job)
{
    gate_respond(job, 408, "request_timeout", "the body was not there in time", 0);
}

int gate_errno_is_ours(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

int gate_lacks_sockets(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) return gate_errno_is_ours(errno);
    close(fd);
    return 0;
}

void gate_give_up(gate_job *job, const char *message)
{
    gate_log("error", "%s", message);
    gate_client_gone(job); /* first: an answer may end what is around it, and that would be a leg's failure */
    gate_respond(job, 503, "gateway_overloaded", message, 1000);
}
