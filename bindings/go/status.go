package pdroute

// #include <pdroute/pdroute.h>
import "C"

import "unsafe"

// Barred says why a candidate was not possible.
type Barred uint32

const (
	BarredNo       Barred = C.PDR_BARRED_NO
	BarredDown     Barred = C.PDR_BARRED_DOWN
	BarredDraining Barred = C.PDR_BARRED_DRAINING
	BarredExcluded Barred = C.PDR_BARRED_EXCLUDED
	BarredBreaker  Barred = C.PDR_BARRED_BREAKER
	BarredKVFull   Barred = C.PDR_BARRED_KV_FULL
	BarredBusy     Barred = C.PDR_BARRED_BUSY // would be held for it
)

// Candidate is one target with every term of its cost.
type Candidate struct {
	Endpoint       uint32
	Rank           uint32 // None without data parallelism
	Role           Role   // that it was considered for
	Barred         Barred
	Chosen         uint32 // 1: part of the pair
	_              uint32
	MatchedTokens  uint64 // cached there
	UncachedTokens uint64
	WaitUs         uint64 // prefill: work ahead; decode: queue
	WorkUs         uint64 // prefill of the uncached tokens
	PriceUs        uint64 // what the work costs others
	TransferUs     uint64 // decode: from the chosen prefill
	CostUs         uint64 // the sum
}

// Explain gives what RoutePrompt would decide now, without deciding it: every candidate, prefill first, in id order.
func (r *Router) Explain(prompt *Prompt, hashes []uint64, q *Request, d *Decision) ([]Candidate, error) {
	size := 64
	for {
		out := make([]Candidate, size)
		s := newScratch()
		s.n = C.size_t(size)
		code := C.pdr_explain(r.c(), prompt.c(), hashesOf(hashes), C.size_t(len(hashes)), q.c(), d.c(), (*C.pdr_candidate)(unsafe.Pointer(unsafe.SliceData(out))), &s.n, &s.err)
		n := int(s.n)
		err := s.done(code)
		if Code(code) == ErrNoSpace && n > size {
			size = n + n/8 + 8
			continue
		}
		if n > size {
			n = 0
		}
		return out[:n], err
	}
}

// Place is where a request stands in the queue, as it would be gone over now.
type Place struct {
	size         uint32
	Outcome      int32  // Held; of one that has not arrived also Send (the rest is 0), or ErrQueueFull
	Place        uint32 // so many of those held go before it; 0: it is next
	Held         uint32 // held now, itself included if it is
	AheadUs      uint64 // prefill time of those before it, over all servers that compute prompts
	SizeUs       uint64 // its own, where most of it is cached
	WaitedUs     uint64 // so far
	LeftUs       uint64 // until it is refused
	Priority     int64
	RetryAfterMs uint64 // with ErrQueueFull
}

func (p *Place) c() *C.pdr_place {
	p.size = uint32(unsafe.Sizeof(*p))
	return (*C.pdr_place)(unsafe.Pointer(p))
}

// TicketPlace gives the place of a held request; ErrNotFound: it is held no more. It looks at all that are held: for
// people, not for every request.
func (r *Router) TicketPlace(ticket, now uint64) (*Place, error) {
	s, p := newScratch(), new(Place)
	if err := s.done(C.pdr_ticket_place(r.c(), C.uint64_t(ticket), C.uint64_t(now), p.c(), &s.err)); err != nil {
		return nil, err
	}
	return p, nil
}

// ExplainPlace gives the place that a request would get if it came now. It decides and books nothing.
func (r *Router) ExplainPlace(prompt *Prompt, hashes []uint64, q *Request) (*Place, error) {
	s, p := newScratch(), new(Place)
	if err := s.done(C.pdr_explain_place(r.c(), prompt.c(), hashesOf(hashes), C.size_t(len(hashes)), q.c(), p.c(), &s.err)); err != nil {
		return nil, err
	}
	return p, nil
}

// LogCandidates is how many candidates a record keeps.
const LogCandidates = C.PDR_LOG_CANDIDATES

// LogRecord is one decision as kept in the block.
type LogRecord struct {
	size            uint32
	Outcome         uint32 // Send, Held, or a Code as int32
	Number          uint64 // 1, 2, … over the life of the block
	TimeNs          uint64
	Booking         uint64
	Room            uint64
	Lease           uint32
	Attempt         uint32
	Prefill         uint32
	Decode          uint32
	PrefillRank     uint32
	DecodeRank      uint32
	PromptTokens    uint64
	MatchedTokens   uint64
	CostUs          uint64
	HeldUs          uint64 // time spent in the queue before this decision
	Candidates      uint32 // in Candidate
	CandidatesTotal uint32
	Candidate       [LogCandidates]Candidate // the chosen pair first
}

// LogReader reads the block's log of decisions onwards.
type LogReader struct {
	r      *Router
	cursor C.uint64_t
	lost   C.uint64_t
}

// Log begins with the oldest decision that is kept.
func (r *Router) Log() *LogReader { return &LogReader{r: r} }

// Next gives the next record, ErrNotFound when there is none yet.
func (l *LogReader) Next(record *LogRecord) error {
	record.size = uint32(unsafe.Sizeof(*record))
	var lost C.uint64_t
	code := C.pdr_log_read(l.r.c(), &l.cursor, (*C.pdr_log_record)(unsafe.Pointer(record)), &lost)
	l.lost += lost
	return failure(code)
}

// Lost counts records that were overwritten before they were read.
func (l *LogReader) Lost() uint64 { return uint64(l.lost) }

// Stats are counters over the life of the block.
type Stats struct {
	size                 uint32
	_                    uint32
	Routed               uint64
	Held                 uint64
	RefusedNoPair        uint64
	RefusedQueueFull     uint64
	Released             uint64
	Expired              uint64
	Cancelled            uint64
	Retried              uint64
	Finished             uint64 // exchanges
	Failed               uint64
	Bookings             uint64 // now
	HeldNow              uint64
	Leases               uint64
	RoomsLive            uint64
	Endpoints            uint64
	Targets              uint64
	PrefixEntries        uint64
	PrefixEvictions      uint64
	PromptTokens         uint64
	MatchedTokens        uint64
	CachedTokensReported uint64
	PromptTokensReported uint64
	LockRecoveries       uint64
	LeasesExpired        uint64
	Reports              uint64
	ReportsFailed        uint64
	ClockBackwards       uint64
	Timeouts             uint64 // legs given up because they were silent for too long
	RetriesRefused       uint64 // that the budget did not allow
	BreakersOpened       uint64 // times that an endpoint was taken out
	HeldLongestUs        uint64 // that a request was ever held
	HeldOldestUs         uint64 // that the oldest of those held now has waited
}

// Stats gives the counters.
func (r *Router) Stats() (*Stats, error) {
	s := &Stats{size: uint32(unsafe.Sizeof(Stats{}))}
	if err := failure(C.pdr_stats_get(r.c(), (*C.pdr_stats)(unsafe.Pointer(s)))); err != nil {
		return nil, err
	}
	return s, nil
}

// StatusJSON is the status of everything as a JSON object.
func (r *Router) StatusJSON(now uint64) ([]byte, error) {
	return grow(65536, func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_status_json(r.c(), C.uint64_t(now), buf, n, need)
	})
}

// StatusPrometheus is the same as Prometheus text, names pdroute_*.
func (r *Router) StatusPrometheus(now uint64) ([]byte, error) {
	return grow(65536, func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_status_prometheus(r.c(), C.uint64_t(now), buf, n, need)
	})
}
