/*
 * calls.h - the calls made for every request, with the router as a number
 *
 * A router is memory of C. cgo cannot see that in `pdr_router *`, which pdroute.h leaves incomplete, and has the
 * pointer looked up at each call, some 15 ns. A number it does not look up.
 */
#ifndef PDR_GO_CALLS_H
#define PDR_GO_CALLS_H
#include <pdroute/pdroute.h>

static inline int go_route(uintptr_t r, const char *body, size_t len, const pdr_request *q, pdr_prompt *prompt, pdr_decision *d, pdr_error *e)
{
    return pdr_route((pdr_router *)r, body, len, q, prompt, d, e);
}
static inline int go_route_prompt(uintptr_t r, const pdr_prompt *prompt, const uint64_t *hashes, size_t n, const pdr_request *q, pdr_decision *d, pdr_error *e)
{
    return pdr_route_prompt((pdr_router *)r, prompt, hashes, n, q, d, e);
}
static inline int go_booking_done(uintptr_t r, uint64_t booking, uint32_t what, uint64_t now)
{
    return pdr_booking_done((pdr_router *)r, booking, what, now);
}
#endif
