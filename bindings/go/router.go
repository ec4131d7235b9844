package pdroute

// #include <stdlib.h>
// #include <pdroute/pdroute.h>
import "C"

import (
	"errors"
	"unsafe"
)

// Memory is memory outside of Go's heap that a router may live in: the collector neither moves nor scans it.
type Memory struct {
	p unsafe.Pointer
	n uintptr
}

// NewMemory allocates size bytes, zeroed.
func NewMemory(size uint64) (*Memory, error) {
	n := (uintptr(size) + 63) &^ 63
	p := C.aligned_alloc(64, C.size_t(n))
	if p == nil {
		return nil, errors.New("pdroute: out of memory")
	}
	m := &Memory{p, n}
	clear(m.Bytes())
	return m, nil
}

// Bytes is the memory itself; no longer valid after Free.
func (m *Memory) Bytes() []byte { return unsafe.Slice((*byte)(m.p), m.n) }

// Free gives the memory back. No router may be in use in it.
func (m *Memory) Free() {
	C.free(m.p)
	m.p, m.n = nil, 0
}

// Router is a block as this process sees it. All methods may be called from any number of goroutines at once, unless
// they say otherwise; `now` is a monotonic time in nanoseconds, one clock for all users of a block (Now).
type Router struct {
	r      *C.pdr_router
	memory *Memory // owned
}

// c panics when the router is closed: its memory is gone.
func (r *Router) c() *C.pdr_router {
	if r.r == nil {
		panic("pdroute: the router is closed")
	}
	return r.r
}

// n is c as the number that calls.h wants.
func (r *Router) n() C.uintptr_t { return C.uintptr_t(uintptr(unsafe.Pointer(r.c()))) }

// NewRouter makes a router in memory of its own. A seed of 0 is taken from the system's random source.
func NewRouter(config *Config) (*Router, error) {
	var c Config
	if config != nil {
		c = *config
	}
	if c.Seed == 0 {
		seed, err := Seed()
		if err != nil {
			return nil, err
		}
		c.Seed = seed
	}
	if err := c.Resolve(); err != nil {
		return nil, err
	}
	m, err := NewMemory(c.BlockSize())
	if err != nil {
		return nil, err
	}
	r, err := InitRouter(m, &c, 1)
	if err != nil {
		m.Free()
		return nil, err
	}
	r.memory = m
	return r, nil
}

// InitRouter makes a router in m. boot identifies the running system (Boot).
func InitRouter(m *Memory, config *Config, boot uint64) (*Router, error) {
	r := new(Router)
	s := newScratch()
	if err := s.done(C.pdr_router_init(m.p, C.size_t(m.n), config.c(), C.uint64_t(boot), &r.r, &s.err)); err != nil {
		return nil, err
	}
	return r, nil
}

// AttachRouter uses a block that is in m already; a nil config accepts any.
func AttachRouter(m *Memory, config *Config, boot uint64) (*Router, error) {
	r := new(Router)
	s := newScratch()
	if err := s.done(C.pdr_router_attach(m.p, C.size_t(m.n), config.c(), C.uint64_t(boot), &r.r, &s.err)); err != nil {
		return nil, err
	}
	return r, nil
}

// RestoreRouter takes over a block that was saved before a reboot, or copied: what was learnt stays.
func RestoreRouter(m *Memory, boot, seed uint64) (*Router, error) {
	r := new(Router)
	s := newScratch()
	if err := s.done(C.pdr_router_restore(m.p, C.size_t(m.n), C.uint64_t(boot), C.uint64_t(seed), &r.r, &s.err)); err != nil {
		return nil, err
	}
	return r, nil
}

// Close ends the use of the router, and frees its memory if NewRouter made it. Nobody may use it any more: methods
// panic. Routers of a Block are closed with it.
func (r *Router) Close() {
	r.r = nil
	if r.memory != nil {
		r.memory.Free()
		r.memory = nil
	}
}

// Config is the resolved configuration.
func (r *Router) Config() (*Config, error) {
	c := new(Config)
	if err := failure(C.pdr_router_config(r.c(), c.c())); err != nil {
		return nil, err
	}
	return c, nil
}

// Check verifies every invariant of the block.
func (r *Router) Check() error {
	s := newScratch()
	return s.done(C.pdr_router_check(r.c(), &s.err))
}

// Tick ends expired leases, refuses held requests whose time is over and releases what may go. About every 100 ms.
func (r *Router) Tick(now uint64) error { return failure(C.pdr_tick(r.c(), C.uint64_t(now))) }

// Ready says whether at least one pair is usable.
func (r *Router) Ready(now uint64) bool { return C.pdr_ready(r.c(), C.uint64_t(now)) == 1 }

// OpenLease opens a lease, which owns bookings. Block.OpenLease gives one that ends with the process.
func (r *Router) OpenLease(name string, now uint64) (uint32, error) {
	n, err := cString("name", name)
	if err != nil {
		return 0, err
	}
	defer freeString(n)
	s := newScratch()
	code := C.pdr_lease_open(r.c(), n, C.uint64_t(now), &s.id, &s.err)
	id := uint32(s.id)
	return id, s.done(code)
}

// RenewLease is to be called at least every LeaseTTLMs / 3.
func (r *Router) RenewLease(lease uint32, now uint64) error {
	return failure(C.pdr_lease_renew(r.c(), C.uint32_t(lease), C.uint64_t(now)))
}

// BreakLease ends a lease and gives back its bookings.
func (r *Router) BreakLease(lease uint32, now uint64) error {
	return failure(C.pdr_lease_break(r.c(), C.uint32_t(lease), C.uint64_t(now)))
}
