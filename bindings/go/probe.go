package pdroute

// #include <stdlib.h>
// #include <pdroute/host.h>
//
// void pdroute_go_probe_event(void *context, pdr_probe_event *event);
// static inline void pdroute_go_probe_target(pdr_probe_options *o, uintptr_t handle)
// {
//     o->event = (void (*)(void *, const pdr_probe_event *))pdroute_go_probe_event;
//     o->context = (void *)handle; /* a number, not an address: C keeps no Go pointer */
// }
import "C"

import (
	"context"
	"errors"
	"runtime/cgo"
	"time"
	"unsafe"
)

// ProbeFlags leave out parts of probing.
type ProbeFlags uint32

const (
	ProbeNoHealth    ProbeFlags = C.PDR_PROBE_NO_HEALTH    // ask no /health: a server that answers reports is up
	ProbeNoLoads     ProbeFlags = C.PDR_PROBE_NO_LOADS     // /metrics only
	ProbeNoInfo      ProbeFlags = C.PDR_PROBE_NO_INFO      // no /server_info
	ProbeTLSInsecure ProbeFlags = C.PDR_PROBE_TLS_INSECURE // do not verify certificates
)

// ProbeEventType is what a prober found out.
type ProbeEventType uint32

const (
	ProbeUp          ProbeEventType = C.PDR_PROBE_UP
	ProbeDown        ProbeEventType = C.PDR_PROBE_DOWN
	ProbeReportsLost ProbeEventType = C.PDR_PROBE_REPORTS_LOST // up, but gives no load
	ProbeReportsBack ProbeEventType = C.PDR_PROBE_REPORTS_BACK
	ProbeNote        ProbeEventType = C.PDR_PROBE_NOTE // something the operator should know
)

// ProbeEvent is what a prober found out about a server.
type ProbeEvent struct {
	Type     ProbeEventType
	Endpoint uint32
	Status   uint32 // HTTP status that led to it, 0: none
	NowNs    uint64
	Name     string
	Message  string
}

// ProbeOptions: zero means the default, host.h has them.
type ProbeOptions struct {
	Flags          ProbeFlags
	Interval       time.Duration // between two reports of one server
	HealthInterval time.Duration // between two /health of a server that is up
	Refresh        time.Duration // between two looks at the block's endpoints
	ConnectTimeout time.Duration
	Timeout        time.Duration    // of a whole answer
	HealthTimeout  time.Duration    // of /health of a server that is up
	RetryMin       time.Duration    // first pause after a failure
	RetryMax       time.Duration    // doubling up to this
	DownAfter      uint32           // failures in a row that take a server out
	MaxActive      uint32           // requests at once
	MaxAnswerBytes uint64           // after decompression
	Authorization  string           // whole value of an Authorization header
	CAFile         string           // PEM file of certificate authorities
	Event          func(ProbeEvent) // nil: none; called inside Step
}

// Prober watches health and load of all servers of a router. One goroutine at a time.
type Prober struct {
	p      *C.pdr_probe
	handle cgo.Handle
}

//export pdroute_go_probe_event
func pdroute_go_probe_event(context unsafe.Pointer, e *C.pdr_probe_event) {
	cgo.Handle(uintptr(context)).Value().(func(ProbeEvent))(ProbeEvent{ProbeEventType(e._type), uint32(e.endpoint), uint32(e.status),
		uint64(e.now_ns), C.GoString(&e.name[0]), C.GoString(&e.message[0])})
}

func millis(d time.Duration) C.uint32_t {
	return C.uint32_t((d + time.Millisecond - 1) / time.Millisecond)
}

// NewProber makes a prober; ErrUnsupported if the library was built without libcurl. One process per block should run
// one (Block.Claim). The router must outlive it.
func NewProber(r *Router, o ProbeOptions) (*Prober, error) {
	c := C.pdr_probe_options{struct_size: C.sizeof_pdr_probe_options, flags: C.uint32_t(o.Flags), interval_ms: millis(o.Interval),
		health_interval_ms: millis(o.HealthInterval), refresh_ms: millis(o.Refresh), connect_timeout_ms: millis(o.ConnectTimeout),
		timeout_ms: millis(o.Timeout), health_timeout_ms: millis(o.HealthTimeout), retry_min_ms: millis(o.RetryMin),
		retry_max_ms: millis(o.RetryMax), down_after: C.uint32_t(o.DownAfter), max_active: C.uint32_t(o.MaxActive),
		max_answer_bytes: C.uint64_t(o.MaxAnswerBytes)}
	p := new(Prober)
	var err error
	if o.Authorization != "" {
		if c.authorization, err = cString("authorization", o.Authorization); err != nil {
			return nil, err
		}
		defer freeString(c.authorization)
	}
	if o.CAFile != "" {
		if c.ca_file, err = cString("ca_file", o.CAFile); err != nil {
			return nil, err
		}
		defer freeString(c.ca_file)
	}
	if o.Event != nil {
		p.handle = cgo.NewHandle(o.Event)
		C.pdroute_go_probe_target(&c, C.uintptr_t(p.handle))
	}
	s := newScratch()
	if err := s.done(C.pdr_probe_new(r.c(), &c, &p.p, &s.err)); err != nil {
		if p.handle != 0 {
			p.handle.Delete()
		}
		return nil, err
	}
	return p, nil
}

// Close ends all requests of the prober.
func (p *Prober) Close() {
	C.pdr_probe_free(p.p)
	p.p = nil
	if p.handle != 0 {
		p.handle.Delete()
		p.handle = 0
	}
}

// Step waits at most timeout for something to do, does it, and gives the number of requests that ended. A thread of the
// system waits meanwhile.
func (p *Prober) Step(timeout time.Duration) (answers int, err error) {
	s := newScratch()
	s.id = 0
	code := C.pdr_probe_run(p.p, millis(timeout), &s.id, &s.err)
	answers = int(s.id)
	return answers, s.done(code)
}

// Run probes until ctx is done, which it sees within 100 ms; the error is ctx's.
func (p *Prober) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if _, err := p.Step(tickInterval); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// FD is for event loops: readable when Step(0) has an answer to handle.
func (p *Prober) FD() int { return int(C.pdr_probe_fd(p.p)) }

// Pending is the number of servers of which it is not yet known whether they are up.
func (p *Prober) Pending() int { return int(C.pdr_probe_pending(p.p)) }

// ProbeStats count what a prober did.
type ProbeStats struct {
	size        uint32
	Endpoints   uint32
	Up          uint32
	Down        uint32
	Unknown     uint32
	Active      uint32 // requests under way
	Requests    uint64
	Failures    uint64
	Reports     uint64
	Connections uint64
}

// Stats count what the prober did.
func (p *Prober) Stats() (*ProbeStats, error) {
	s := &ProbeStats{size: uint32(unsafe.Sizeof(ProbeStats{}))}
	if err := failure(C.pdr_probe_stats_get(p.p, (*C.pdr_probe_stats)(unsafe.Pointer(s)))); err != nil {
		return nil, err
	}
	return s, nil
}

// Probe probes the block's servers from this process until ctx is done or the process is closed (then the error is nil),
// as soon as no other process of the block does; of another block, when the file is another.
func (p *Process) Probe(ctx context.Context, o ProbeOptions) error {
	if !p.use() {
		return nil
	}
	defer p.running.Done()
	for {
		block := p.Block()
		again, err := p.probe(ctx, o, block)
		if again && p.Block() != block {
			continue
		}
		if !again || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.quit:
			return nil
		case <-time.After(time.Second):
		}
	}
}

// probe probes one block. true: it, or its job, may be somebody else's now.
func (p *Process) probe(ctx context.Context, o ProbeOptions, block *Block) (again bool, err error) {
	job, err := block.Claim(JobProbe)
	if errors.Is(err, ErrBusy) {
		return true, nil
	}
	if err != nil {
		return true, err
	}
	defer job.Close()
	prober, err := NewProber(block.Router(), o)
	if err != nil {
		return true, err
	}
	defer prober.Close()
	for ctx.Err() == nil && p.Block() == block {
		select {
		case <-p.quit:
			return false, nil
		default:
		}
		if _, err := prober.Step(tickInterval); err != nil {
			return true, err
		}
		block.WakePending()
	}
	return ctx.Err() == nil, ctx.Err()
}
