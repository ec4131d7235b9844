package pdroute

// #include <pdroute/host.h>
import "C"

import (
	"os"
)

// Now is the time of every process of this machine: CLOCK_MONOTONIC in nanoseconds.
func Now() uint64 { return uint64(C.pdr_host_now_ns()) }

// Boot identifies the running system.
func Boot() (uint64, error) {
	var boot C.uint64_t
	s := newScratch()
	code := C.pdr_host_boot(&boot, &s.err)
	return uint64(boot), s.done(code)
}

// Seed is a number from the system's random source, never 0.
func Seed() (uint64, error) {
	var seed C.uint64_t
	s := newScratch()
	code := C.pdr_host_seed(&seed, &s.err)
	return uint64(seed), s.done(code)
}

// OpenFlags say what OpenBlock may do.
type OpenFlags uint32

const (
	OpenCreate   OpenFlags = C.PDR_HOST_CREATE   // make the file (and its directory) if there is none
	OpenRecreate OpenFlags = C.PDR_HOST_RECREATE // as OpenCreate, and replace a file that is refused
	OpenRestore  OpenFlags = C.PDR_HOST_RESTORE  // take over a block from before a reboot
	OpenNoGuard  OpenFlags = 1 << 31             // leave SIGBUS alone: a truncated file then ends the process
)

// Origin says what OpenBlock did.
type Origin uint32

const (
	Attached  Origin = C.PDR_HOST_ATTACHED
	Created   Origin = C.PDR_HOST_CREATED
	Recreated Origin = C.PDR_HOST_RECREATED
	Restored  Origin = C.PDR_HOST_RESTORED
)

func (o Origin) String() string {
	switch o {
	case Attached:
		return "attached to"
	case Created:
		return "created"
	case Recreated:
		return "replaced"
	case Restored:
		return "restored"
	}
	return "unknown"
}

// Block is a router block in a mapped file, which several processes share.
type Block struct {
	h      *C.pdr_host
	router *Router
}

func (b *Block) c() *C.pdr_host {
	if b.h == nil {
		panic("pdroute: the block is closed")
	}
	return b.h
}

// OpenBlock maps the block file at path. If somebody truncates it, calls fail with ErrBlockCorrupt (a handler of SIGBUS, which
// hands everything else to Go's own, sees to that; OpenNoGuard leaves it out). A nil config accepts any, and makes a block with default values where one is
// made.
func OpenBlock(path string, config *Config, flags OpenFlags) (*Block, error) {
	p, err := cString("path", path)
	if err != nil {
		return nil, err
	}
	defer freeString(p)
	b := &Block{router: new(Router)}
	var router *C.pdr_router
	s := newScratch()
	if err := s.done(C.pdr_host_open(p, config.c(), C.uint32_t(guarded(flags)), &b.h, &router, &s.err)); err != nil {
		return nil, err
	}
	b.router.r = C.pdr_host_router(b.h)
	return b, nil
}

// Follow gives the block that the path names now, if it is another: the file was truncated, replaced or removed. nil, nil:
// nothing changed. Use it for everything, leases too, apply the configuration again, and close b when nobody is in a call on
// it. A file of others that is refused is an error, and not replaced; b can still be used, unless it was truncated.
func (b *Block) Follow(config *Config, flags OpenFlags) (*Block, error) {
	next := &Block{router: new(Router)}
	var router *C.pdr_router
	s := newScratch()
	if err := s.done(C.pdr_host_follow(b.c(), config.c(), C.uint32_t(guarded(flags)), &next.h, &router, &s.err)); err != nil || next.h == nil {
		return nil, err
	}
	next.router.r = C.pdr_host_router(next.h)
	return next, nil
}

// guarded is what the library is told: a file that is truncated under us is an error, not the end, unless that is not wanted.
func guarded(flags OpenFlags) OpenFlags {
	if flags&OpenNoGuard != 0 {
		return flags &^ OpenNoGuard
	}
	return flags | C.PDR_HOST_GUARD
}

// Close unmaps; the file stays. Nobody may use the block or its router any more.
func (b *Block) Close() {
	C.pdr_host_close(b.h)
	b.h = nil
	b.router.r = nil
}

// Router is the block's router.
func (b *Block) Router() *Router { return b.router }

// BlockInfo tells what OpenBlock did.
type BlockInfo struct {
	Origin  Origin
	Size    uint64 // bytes mapped
	Reason  Code   // Recreated, Restored: why the old block was not used
	Message string // its sentence
	Path    string // absolute
}

// Info tells what OpenBlock did.
func (b *Block) Info() (BlockInfo, error) {
	c := &C.pdr_host_info{struct_size: C.sizeof_pdr_host_info}
	if code := C.pdr_host_info_get(b.c(), c); code != 0 {
		return BlockInfo{}, Code(code)
	}
	return BlockInfo{Origin(c.origin), uint64(c.size), Code(c.reason), C.GoString(&c.message[0]), C.GoString(&c.path[0])}, nil
}

// BlockState says whether the block is still that of its path.
type BlockState uint32

const (
	BlockCurrent   BlockState = C.PDR_HOST_CURRENT
	BlockReplaced  BlockState = C.PDR_HOST_REPLACED  // the path names another file, or none: open anew
	BlockTruncated BlockState = C.PDR_HOST_TRUNCATED // close at once, without touching the router
)

// State costs two system calls; ask about once a second.
func (b *Block) State() (BlockState, error) {
	s := newScratch()
	code := C.pdr_host_state(b.c(), &s.id, &s.err)
	state := BlockState(s.id)
	return state, s.done(code)
}

// Lease is a lease of this process, with what ends it when the process dies and what wakes it. One goroutine at a time.
type Lease struct {
	block *Block
	lease C.pdr_host_lease
}

// OpenLease opens a lease.
func (b *Block) OpenLease(name string, now uint64) (*Lease, error) {
	n, err := cString("name", name)
	if err != nil {
		return nil, err
	}
	defer freeString(n)
	l := &Lease{block: b}
	l.lease.struct_size = C.sizeof_pdr_host_lease
	s := newScratch()
	if err := s.done(C.pdr_host_lease_open(b.c(), n, C.uint64_t(now), &l.lease, &s.err)); err != nil {
		return nil, err
	}
	return l, nil
}

// ID is for Request.Lease; it may change in Renew.
func (l *Lease) ID() uint32 { return uint32(l.lease.id) }

// WakeFD is readable when tickets of this lease were released; -1: none, poll Router.Released instead. It changes, and
// the old one is closed, when Renew gives ErrLease.
func (l *Lease) WakeFD() int { return int(l.lease.wake_fd) }

// Renew may be called often. ErrLease once when the lease had expired and was replaced by a new one.
func (l *Lease) Renew(now uint64) error {
	s := newScratch()
	return s.done(C.pdr_host_lease_renew(l.block.c(), &l.lease, C.uint64_t(now), &s.err))
}

// Close ends the lease: what it had booked is given back.
func (l *Lease) Close(now uint64) { C.pdr_host_lease_close(l.block.c(), &l.lease, C.uint64_t(now)) }

// Reap ends leases whose processes died, and gives their number. One goroutine at a time.
func (b *Block) Reap(now uint64) (int, error) {
	s := newScratch()
	defer s.free()
	s.id = 0
	code := C.pdr_host_reap(b.c(), C.uint64_t(now), &s.id)
	return int(s.id), failure(code)
}

// Job is something that one process per block should do.
type Job uint32

const (
	JobProbe     Job = C.PDR_HOST_JOB_PROBE
	JobDiscovery Job = C.PDR_HOST_JOB_DISCOVERY
)

// Claim takes a job until the file is closed or the process dies: ErrBusy if another process has it.
func (b *Block) Claim(job Job) (*os.File, error) {
	var fd C.int
	s := newScratch()
	if err := s.done(C.pdr_host_claim(b.c(), C.uint32_t(job), &fd, &s.err)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "pdroute claim"), nil
}

// OpenWake gives a datagram socket that becomes readable when somebody wakes the lease. The caller closes it. Leases of
// OpenLease have one.
func (b *Block) OpenWake(lease uint32) (int, error) {
	var fd C.int
	s := newScratch()
	code := C.pdr_host_wake_open(b.c(), C.uint32_t(lease), &fd, &s.err)
	return int(fd), s.done(code)
}

// DrainWake takes everything that arrived; call it before Released.
func DrainWake(fd int) { C.pdr_host_wake_drain(C.int(fd)) }

// Wake wakes the owner of a lease; false: nobody is there.
func (b *Block) Wake(lease uint32) bool { return C.pdr_host_wake(b.c(), C.uint32_t(lease)) == 1 }

// WakePending wakes all owners of released tickets. Call it after whatever may have released some; it costs little when
// there are none.
func (b *Block) WakePending() int { return int(C.pdr_host_wake_pending(b.c())) }

// Tick is what one process at least should do every 100 ms. One goroutine at a time.
func (b *Block) Tick(now uint64) error { return failure(C.pdr_host_tick(b.c(), C.uint64_t(now))) }
