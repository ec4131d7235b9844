package pdroute

// #include <stdlib.h>
// #include <string.h>
// #include <pdroute/pdroute.h>
import "C"

import (
	"errors"
	"io"
	"unsafe"
)

// Recorder writes what every decision of a block saw to a file that Replay reads. One goroutine at a time.
type Recorder struct {
	r      *Router
	to     io.Writer
	buf    []byte
	cursor C.uint64_t
	lost   C.uint64_t
}

// Record begins a recording: it writes the header, and switches recording on. Call Step often; it stops by itself when
// nobody does for 10 s.
func (r *Router) Record(to io.Writer, now uint64) (*Recorder, error) {
	head, err := grow(4096, func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_record_header(r.c(), unsafe.Pointer(buf), n, need)
	})
	if err != nil {
		return nil, err
	}
	if _, err := to.Write(head); err != nil {
		return nil, err
	}
	rec := &Recorder{r: r, to: to, buf: make([]byte, 64<<10)}
	_, err = rec.Step(now)
	return rec, err
}

// Step writes what was recorded since the last one, and gives the number of bytes.
func (rec *Recorder) Step(now uint64) (int, error) {
	s := newScratch()
	defer s.free()
	written := 0
	for {
		s.n = 0
		code := C.pdr_record_read(rec.r.c(), &rec.cursor, C.uint64_t(now), unsafe.Pointer(unsafe.SliceData(rec.buf)), C.size_t(len(rec.buf)), &s.n, &rec.lost)
		if Code(code) == ErrNoSpace && len(rec.buf) < 1<<31 {
			rec.buf = make([]byte, 2*len(rec.buf))
			continue
		}
		if code != 0 || s.n == 0 {
			return written, failure(code)
		}
		n, err := rec.to.Write(rec.buf[:s.n])
		written += n
		if err != nil {
			return written, err
		}
	}
}

// Lost counts bytes that were overwritten before they were read.
func (rec *Recorder) Lost() uint64 { return uint64(rec.lost) }

// Close writes what is left and the end of the file.
func (rec *Recorder) Close(now uint64) error {
	if _, err := rec.Step(now); err != nil {
		return err
	}
	end, err := grow(256, func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_record_trailer(unsafe.Pointer(buf), n, need)
	})
	if err == nil {
		_, err = rec.to.Write(end)
	}
	return err
}

// ReplayFlags change how a recording is read.
type ReplayFlags uint32

// ReplayPartial takes a file without an end, or whose end is torn, as far as it is whole.
const ReplayPartial ReplayFlags = C.PDR_REPLAY_PARTIAL

// ReplayKind is what a step tells of.
type ReplayKind uint32

const (
	ReplayRouted    ReplayKind = C.PDR_REPLAY_ROUTED    // a request arrived
	ReplayReleased  ReplayKind = C.PDR_REPLAY_RELEASED  // a held one was sent
	ReplayRefused   ReplayKind = C.PDR_REPLAY_REFUSED   // a held one was refused
	ReplayPrefilled ReplayKind = C.PDR_REPLAY_PREFILLED // its prompt is computed
	ReplayUsage     ReplayKind = C.PDR_REPLAY_USAGE     // its answer's usage
	ReplayLost      ReplayKind = C.PDR_REPLAY_LOST      // records are missing here
	ReplayGone      ReplayKind = C.PDR_REPLAY_GONE      // left the queue: cancelled, expired
)

// ReplayChoice is a decision as it was, or as it would be.
type ReplayChoice struct {
	Outcome     int32 // Send, Held, or a Code
	Mode        Mode
	Prefill     uint32 // endpoint ids, None
	Decode      uint32
	PrefillRank uint32
	DecodeRank  uint32
	PrefillUs   uint64 // of the pair chosen, also for one that has to wait
	DecodeUs    uint64
	TransferUs  uint64
	CostUs      uint64
}

// ReplayStep is one step of a recording; pdroute.h says which fields a kind has.
type ReplayStep struct {
	size             uint32
	Kind             ReplayKind
	Number           uint64
	TimeNs           uint64
	Ticket           uint64
	Checked          uint32 // 1: the decision was made again
	Same             uint32 // 1: with exactly the recorded result
	Recorded         ReplayChoice
	Replayed         ReplayChoice
	PromptTokens     uint64
	OutputTokens     uint64
	CachedTokens     uint64
	PrefillUs        uint64
	BlockMillitokens uint64
	Blocks           uint32
	_                uint32
	Tenant           uint64 // of the request, and its priority with its body's
	Priority         int64
}

// Replay makes recorded decisions again. One goroutine at a time.
type Replay struct {
	p    *C.pdr_replay
	file unsafe.Pointer // C's copy: it is borrowed for as long as the replay lives
}

// OpenReplay checks a recording, which is copied.
func OpenReplay(file []byte, flags ReplayFlags) (*Replay, error) {
	p := &Replay{file: C.malloc(C.size_t(len(file) + 1))}
	if p.file == nil {
		return nil, errors.New("pdroute: out of memory")
	}
	C.memcpy(p.file, unsafe.Pointer(unsafe.SliceData(file)), C.size_t(len(file)))
	s := newScratch()
	if err := s.done(C.pdr_replay_open(p.file, C.size_t(len(file)), C.uint32_t(flags), &p.p, &s.err)); err != nil {
		C.free(p.file)
		return nil, err
	}
	return p, nil
}

// Next gives the next step; ErrNotFound at the end. policy: what it would have chosen in the state recorded;
// Policy(None): the recorded one.
func (p *Replay) Next(policy Policy, step *ReplayStep) error {
	step.size = uint32(unsafe.Sizeof(*step))
	s := newScratch()
	return s.done(C.pdr_replay_next(p.p, C.uint32_t(policy), (*C.pdr_replay_step)(unsafe.Pointer(step)), &s.err))
}

// Hashes are the block hashes of the last step, if that was ReplayRouted: step.Blocks of them at most.
func (p *Replay) Hashes(hashes []uint64) ([]uint64, error) {
	s := newScratch()
	defer s.free()
	s.n = C.size_t(len(hashes))
	if code := C.pdr_replay_hashes(p.p, hashesOf(hashes), &s.n); code != 0 {
		return nil, Code(code)
	}
	return hashes[:min(int(s.n), len(hashes))], nil
}

// Explain gives every candidate of the last step, if that was ReplayRouted.
func (p *Replay) Explain() ([]Candidate, error) {
	for size := 64; ; {
		out := make([]Candidate, size)
		s := newScratch()
		s.n = C.size_t(size)
		code := C.pdr_replay_explain(p.p, (*C.pdr_candidate)(unsafe.Pointer(unsafe.SliceData(out))), &s.n)
		n := int(s.n)
		s.free()
		if Code(code) == ErrNoSpace && n > size {
			size = n
			continue
		}
		if code != 0 {
			return nil, Code(code)
		}
		return out[:n], nil
	}
}

// Endpoint is an endpoint at this point of the file: name and role.
func (p *Replay) Endpoint(id uint32) (name string, role Role, err error) {
	c := new(cEndpoint)
	if code := C.pdr_replay_endpoint(p.p, C.uint32_t(id), c.c()); code != 0 {
		return "", 0, Code(code)
	}
	return text(c.Name[:]), c.Role, nil
}

// Config is the configuration it was recorded with.
func (p *Replay) Config() (*Config, error) {
	c := new(Config)
	if err := failure(C.pdr_replay_config(p.p, c.c())); err != nil {
		return nil, err
	}
	return c, nil
}

// Close frees the replay.
func (p *Replay) Close() {
	C.pdr_replay_close(p.p)
	C.free(p.file)
	p.p, p.file = nil, nil
}
