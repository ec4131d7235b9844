// Package pdr is the header through cgo, without any C of its own: what a gateway in Go needs to route and rewrite. Structs are C's, kept in Go memory;
// the router's block is C's memory.
//
// Build with pkg-config's libpdroute, or CGO_CFLAGS and CGO_LDFLAGS as tests/labels/bindings does.
package pdr

// #include <pdroute/pdroute.h>
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"unsafe"
)

// Router is a router in memory of its own.
type Router struct {
	memory unsafe.Pointer
	r      *C.pdr_router
	lease  C.uint32_t
}

// Decision is what to send where.
type Decision struct {
	d      C.pdr_decision
	prompt C.pdr_prompt
}

// Error is a code of the library with its sentence.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("pdroute %d: %s", e.Code, e.Message) }

func failure(code C.int, err *C.pdr_error) error {
	if code == 0 {
		return nil
	}
	return &Error{int(code), C.GoString(&err.message[0])}
}

func newError() (e C.pdr_error) {
	e.struct_size = C.sizeof_pdr_error
	return e
}

func text(dst []C.char, s string) {
	for i := 0; i < len(s) && i < len(dst)-1; i++ {
		dst[i] = C.char(s[i])
	}
}

// New makes a router; now is a monotonic time in nanoseconds, as everywhere.
func New(seed, now uint64) (*Router, error) {
	err := newError()
	config := C.pdr_config{struct_size: C.sizeof_pdr_config, max_endpoints: 64, max_bookings: 1024, index_entries: 65536, seed: C.uint64_t(seed)}
	size := C.pdr_router_size(&config)
	r := &Router{memory: C.aligned_alloc(64, size)}
	if code := C.pdr_router_init(r.memory, size, &config, 1, &r.r, &err); code != 0 {
		return nil, failure(code, &err)
	}
	name := [...]C.char{'g', 'o', 0}
	return r, failure(C.pdr_lease_open(r.r, &name[0], C.uint64_t(now), &r.lease, &err), &err)
}

// Close frees the router.
func (r *Router) Close() { C.free(r.memory) }

// Check verifies the block.
func (r *Router) Check() error {
	err := newError()
	return failure(C.pdr_router_check(r.r, &err), &err)
}

// Put adds or updates a server.
func (r *Router) Put(host string, port uint32, prefill bool, now uint64) error {
	err := newError()
	e := C.pdr_endpoint{struct_size: C.sizeof_pdr_endpoint, port: C.uint32_t(port), role: C.PDR_ROLE_DECODE}
	if prefill {
		e.role = C.PDR_ROLE_PREFILL
	}
	text(e.host[:], host)
	return failure(C.pdr_endpoint_put(r.r, &e, C.uint64_t(now), nil, &err), &err)
}

// Route decides for a chat body, which is only borrowed.
func (r *Router) Route(body []byte, now uint64, d *Decision) error {
	err := newError()
	request := C.pdr_request{struct_size: C.sizeof_pdr_request, api: C.PDR_API_CHAT, lease: r.lease, now_ns: C.uint64_t(now), flags: C.PDR_REQUEST_NO_HOLD}
	d.d.struct_size = C.sizeof_pdr_decision
	d.prompt.struct_size = C.sizeof_pdr_prompt
	return failure(C.pdr_route(r.r, (*C.char)(unsafe.Pointer(unsafe.SliceData(body))), C.size_t(len(body)), &request, &d.prompt, &d.d, &err), &err)
}

// Room is the decision's first room, Prefill and Decode the servers.
func (d *Decision) Room() uint64    { return uint64(d.d.room) }
func (d *Decision) Prefill() string { return C.GoString(&d.d.prefill_host[0]) }
func (d *Decision) Decode() string  { return C.GoString(&d.d.decode_host[0]) }

// Rewrite gives the body for the prefill (0) or decode (1) leg.
func (d *Decision) Rewrite(leg int, body []byte) ([]byte, error) {
	var need C.size_t
	in := (*C.char)(unsafe.Pointer(unsafe.SliceData(body)))
	C.pdr_rewrite(&d.d, &d.prompt, C.int(leg), in, C.size_t(len(body)), nil, 0, &need)
	out := make([]byte, need)
	code := C.pdr_rewrite(&d.d, &d.prompt, C.int(leg), in, C.size_t(len(body)), (*C.char)(unsafe.Pointer(unsafe.SliceData(out))), need, &need)
	if code != 0 {
		return nil, &Error{int(code), C.GoString(C.pdr_strerror(code))}
	}
	return out, nil
}

// Done gives back what was booked.
func (r *Router) Done(d *Decision, now uint64) error {
	code := C.pdr_booking_done(r.r, d.d.booking, C.PDR_DONE_ALL, C.uint64_t(now))
	if code != 0 {
		return &Error{int(code), C.GoString(C.pdr_strerror(code))}
	}
	return nil
}

// Bookings counts what is in flight.
func (r *Router) Bookings() uint64 {
	s := C.pdr_stats{struct_size: C.sizeof_pdr_stats}
	C.pdr_stats_get(r.r, &s)
	return uint64(s.bookings)
}
