/* The prober of a library built without libcurl: it cannot be made, and says why. */
#ifndef PDR_WITH_CURL
#include "sys.h"

int pdr_probe_new(pdr_router *r, const pdr_probe_options *options, pdr_probe **out, pdr_error *err)
{
    (void)r;
    (void)options;
    if (out) *out = NULL;
    return pdr_host_fail(err, PDR_E_UNSUPPORTED, "this libpdroute_host was built without libcurl and cannot probe");
}

void pdr_probe_free(pdr_probe *p) { (void)p; }

int pdr_probe_run(pdr_probe *p, uint32_t timeout_ms, uint32_t *answers, pdr_error *err)
{
    (void)p;
    (void)timeout_ms;
    if (answers) *answers = 0;
    return pdr_host_fail(err, PDR_E_UNSUPPORTED, "built without libcurl");
}

int pdr_probe_loop(pdr_probe *p, const volatile int *stop, pdr_error *err)
{
    (void)stop;
    return pdr_probe_run(p, 0, NULL, err);
}

int      pdr_probe_fd(const pdr_probe *p) { return (void)p, -1; }
uint32_t pdr_probe_pending(const pdr_probe *p) { return (void)p, 0; }
int      pdr_probe_stats_get(const pdr_probe *p, pdr_probe_stats *out) { return (void)p, (void)out, PDR_E_UNSUPPORTED; }
#else
typedef int pdr_has_curl; /* ISO C wants a declaration */
#endif
