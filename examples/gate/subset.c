#include "subset.h"

#include <string.h>

void subset_put(bytes *addresses, view text)
{
    bytes_put_view(addresses, text);
    bytes_put(addresses, ",", 1);
}

static int names(view in, const char *address)
{
    const size_t n = strlen(address);

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

int subset_apply(gate_job *job, view addresses)
{
    pdr_router *r = job->gate->router;
    uint32_t cursor, id, state, left = 0, prefills = 0;
    pdr_endpoint e;
    char address[300];

    for (int pass = 0; pass < 2; pass++) { /* first: whether prefill servers are named */
        for (cursor = 0; pdr_endpoint_next(r, &cursor, &id) == PDR_OK;) {
            pdr_init_struct(&e, sizeof e);
            if (pdr_endpoint_get(r, id, &e, &state) != PDR_OK) continue;
            gate_address(address, sizeof address, e.host, e.port, 1);
            const int named = names(addresses, address);
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
