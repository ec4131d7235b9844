/*
 * What the calls cost without Python: a shared library that bench/run.py loads and times beside its own loop, in the same process. Each function does `n`
 * rounds and returns the nanoseconds of all.
 */
#include <pdroute/pdroute.h>
#include <time.h>

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What any call with the arguments of pdr_route() costs. */
int c_nothing(pdr_router *r, const char *body, size_t len, const pdr_request *q, pdr_prompt *p, pdr_decision *d, pdr_error *e)
{
    (void)r, (void)body, (void)len, (void)q, (void)p, (void)d, (void)e;
    return 0;
}

/* A decision that books nothing (PDR_REQUEST_DRY). */
uint64_t c_route(pdr_router *r, const char *body, size_t len, uint32_t lease, uint32_t n)
{
    uint64_t began = now();
    for (uint32_t i = 0; i < n; i++) {
        pdr_request  q = {.struct_size = sizeof q, .flags = PDR_REQUEST_DRY, .api = PDR_API_CHAT, .lease = lease, .now_ns = now()};
        pdr_prompt   p = {.struct_size = sizeof p};
        pdr_decision d = {.struct_size = sizeof d};
        pdr_error    e = {.struct_size = sizeof e};
        if (pdr_route(r, body, len, &q, &p, &d, &e)) return 0;
    }
    return now() - began;
}

/* Booked, and given back. */
uint64_t c_route_done(pdr_router *r, const char *body, size_t len, uint32_t lease, uint32_t n)
{
    uint64_t began = now();
    for (uint32_t i = 0; i < n; i++) {
        pdr_request  q = {.struct_size = sizeof q, .api = PDR_API_CHAT, .lease = lease, .now_ns = now()};
        pdr_prompt   p = {.struct_size = sizeof p};
        pdr_decision d = {.struct_size = sizeof d};
        pdr_error    e = {.struct_size = sizeof e};
        if (pdr_route(r, body, len, &q, &p, &d, &e) || pdr_booking_done(r, d.booking, PDR_DONE_ALL, now())) return 0;
    }
    return now() - began;
}

/* All booked before the first is given back: what route_batch() does. */
uint64_t c_route_hold(pdr_router *r, const char *body, size_t len, uint32_t lease, uint32_t n)
{
    static uint64_t booked[4096];
    uint64_t        began = now();
    if (n > sizeof booked / sizeof *booked) return 0;
    for (uint32_t i = 0; i < n; i++) {
        pdr_request  q = {.struct_size = sizeof q, .api = PDR_API_CHAT, .lease = lease, .now_ns = now()};
        pdr_prompt   p = {.struct_size = sizeof p};
        pdr_decision d = {.struct_size = sizeof d};
        pdr_error    e = {.struct_size = sizeof e};
        if (pdr_route(r, body, len, &q, &p, &d, &e)) return 0;
        booked[i] = d.booking;
    }
    for (uint32_t i = 0; i < n; i++)
        if (pdr_booking_done(r, booked[i], PDR_DONE_ALL, now())) return 0;
    return now() - began;
}

/* Both legs' bodies. */
uint64_t c_rewrite(pdr_router *r, const char *body, size_t len, uint32_t lease, uint32_t n)
{
    static char  out[65536];
    size_t       need;
    pdr_request  q = {.struct_size = sizeof q, .api = PDR_API_CHAT, .lease = lease, .now_ns = now()};
    pdr_prompt   p = {.struct_size = sizeof p};
    pdr_decision d = {.struct_size = sizeof d};
    if (pdr_route(r, body, len, &q, &p, &d, NULL)) return 0;
    uint64_t began = now(), took = 0;
    uint32_t i = 0;
    while (i < n && !pdr_rewrite(&d, &p, (int)(i & 1), body, len, out, sizeof out, &need)) i++;
    if (i == n) took = now() - began;
    return pdr_booking_done(r, d.booking, PDR_DONE_ALL, now()) ? 0 : took;
}
