// Package cloop makes the library's calls from C, in a loop: what the binding's own calls are measured against.
package cloop

// #cgo !pdroute_static pkg-config: libpdroute_host libpdroute
// #cgo pdroute_static LDFLAGS: -l:libpdroute_host.a -l:libpdroute.a -lcurl -pthread
// #include <pdroute/pdroute.h>
//
// static int route(pdr_router *r, const char *body, size_t len, uint32_t lease, uint64_t now, uint64_t n)
// {
//     static __thread pdr_prompt   prompt;
//     static __thread pdr_decision d;
//     for (uint64_t i = 0; i < n; i++) {
//         pdr_error   err = {.struct_size = sizeof err};
//         pdr_request q = {.struct_size = sizeof q, .api = PDR_API_CHAT, .lease = lease, .now_ns = now, .flags = PDR_REQUEST_NO_HOLD};
//         prompt.struct_size = sizeof prompt;
//         d.struct_size = sizeof d;
//         int code = pdr_route(r, body, len, &q, &prompt, &d, &err);
//         if (!code) code = pdr_booking_done(r, d.booking, PDR_DONE_ALL, now);
//         if (code) return code;
//     }
//     return 0;
// }
// static int owned(const char *name, size_t len, uint64_t n)
// {
//     int found = 0;
//     for (uint64_t i = 0; i < n; i++) found += pdr_header_owned(name, len);
//     return found;
// }
// static void feed(const char *chunk, size_t len, uint64_t n)
// {
//     pdr_response s = {.struct_size = sizeof s};
//     pdr_response_init(&s, PDR_RESPONSE_SSE);
//     for (uint64_t i = 0; i < n; i++) pdr_response_feed(&s, chunk, len);
// }
import "C"

import "unsafe"

// Route routes a body n times and ends the booking; the code of the first call that failed.
func Route(router unsafe.Pointer, body []byte, lease uint32, now uint64, n int) int {
	return int(C.route((*C.pdr_router)(router), (*C.char)(unsafe.Pointer(unsafe.SliceData(body))), C.size_t(len(body)), C.uint32_t(lease), C.uint64_t(now), C.uint64_t(n)))
}

// Owned asks n times whether a header is owned, and gives how often it was.
func Owned(name string, n int) int {
	return int(C.owned((*C.char)(unsafe.Pointer(unsafe.StringData(name))), C.size_t(len(name)), C.uint64_t(n)))
}

// Feed reads a chunk n times.
func Feed(chunk []byte, n int) {
	C.feed((*C.char)(unsafe.Pointer(unsafe.SliceData(chunk))), C.size_t(len(chunk)), C.uint64_t(n))
}
