/*
 * The data plane's subset hint: endpoints that alone may be chosen, as ip:port, in the metadata of the request. It is about where the data plane sends the
 * request, so about decode servers (and undisaggregated ones); about prefill servers if it names any.
 *
 * The router can leave out eight endpoints of a request (pdr_request.exclude); a hint that leaves out more than that is answered with 503.
 */
#include <stdio.h>
#include <string.h>

#include "extproc.h"

#define SPACE "envoy.lb.subset_hint"
#define KEY   "x-gateway-destination-endpoint-subset"

static void each(void *context, view text)
{
    call *c = context;
    bytes_put_view(&c->subset, text);
    bytes_put(&c->subset, ",", 1);
}

void subset_read(call *c, view metadata)
{
    if (metadata.len && metadata_strings(metadata, SPACE, KEY, each, c)) c->subset_given = 1;
}

static int names(const call *c, const char *address)
{
    const size_t n = strlen(address);
    view in = {c->subset.data, c->subset.len};

    while (in.len) {
        const char *comma = memchr(in.data, ',', in.len);
        size_t len = (size_t)(comma - in.data);
        const char *p = in.data;
        in.data += len + 1;
        in.len -= len + 1;
        for (; len && *p == ' '; p++) len--;
        for (; len && p[len - 1] == ' '; len--) continue;
        if (len == n && memcmp(p, address, n) == 0) return 1;
    }
    return 0;
}

/* 0 fine, -1: too many would have to be left out, or nobody is left */
int subset_apply(call *c)
{
    gate_job *job = &c->job;
    pdr_router *r = c->w->gate.router;
    uint32_t cursor, id, state, left = 0, prefills = 0;
    pdr_endpoint e;
    char address[300];

    if (!c->subset_given) return 0;
    for (int pass = 0; pass < 2; pass++) { /* first: whether prefill servers are named */
        for (cursor = 0; pdr_endpoint_next(r, &cursor, &id) == PDR_OK;) {
            pdr_init_struct(&e, sizeof e);
            if (pdr_endpoint_get(r, id, &e, &state) != PDR_OK) continue;
            (void)snprintf(address, sizeof address, strchr(e.host, ':') ? "[%s]:%u" : "%s:%u", e.host, e.port);
            const int named = names(c, address);
            if (pass == 0) {
                prefills += e.role == PDR_ROLE_PREFILL && named;
            } else if (named) {
                left += e.role != PDR_ROLE_PREFILL;
            } else if (e.role != PDR_ROLE_PREFILL || prefills) {
                if (job->barred_n == sizeof job->barred / sizeof *job->barred) return -1;
                job->barred[job->barred_n++] = id;
            }
        }
    }
    return left ? 0 : -1;
}
