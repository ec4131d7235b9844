package pdroute

// #include "calls.h"
import "C"

import (
	"net"
	"strconv"
	"unsafe"
)

// API is the path of a request, as far as its body depends on it.
type API uint32

const (
	APIGenerate    API = C.PDR_API_GENERATE
	APIChat        API = C.PDR_API_CHAT
	APICompletions API = C.PDR_API_COMPLETIONS
	APIOther       API = C.PDR_API_OTHER // one leg
)

// PromptFlags say what a scan saw.
type PromptFlags uint32

const (
	PromptStream        PromptFlags = C.PDR_PROMPT_STREAM
	PromptReturnLogprob PromptFlags = C.PDR_PROMPT_RETURN_LOGPROB
	PromptMedia         PromptFlags = C.PDR_PROMPT_MEDIA     // image or audio parts
	PromptTokens        PromptFlags = C.PDR_PROMPT_TOKENS    // token ids: PromptTokens is exact
	PromptBatch         PromptFlags = C.PDR_PROMPT_BATCH     // a list of prompts
	PromptTruncated     PromptFlags = C.PDR_PROMPT_TRUNCATED // more than MaxBlocks
	PromptUsage         PromptFlags = C.PDR_PROMPT_USAGE     // stream_options.include_usage
)

// MaxEdits is the number of owned members that one body may carry.
const MaxEdits = C.PDR_MAX_EDITS

// Span is a range of byte offsets, End exclusive; 0,0: absent.
type Span struct{ Begin, End uint64 }

// Prompt is what one scan of a body found. Offsets refer to the body scanned.
type Prompt struct {
	size         uint32
	Flags        PromptFlags
	API          API
	Blocks       uint32 // block hashes
	Batch        uint32 // prompts
	Samples      uint32 // n, at least 1
	MaxTokens    uint64 // asked output tokens, 0: not said
	Priority     int64
	PromptBytes  uint64 // of canonical prompt text over the whole batch
	PromptTokens uint64 // exact with the flag PromptTokens, else 0: estimated by the router
	Session      uint64 // hash of a session id in the body, 0: none
	Members      uint32 // top-level members that stay
	Edits        uint32 // spans in Edit
	Object       Span
	Model        Span // the string with its quotes
	Edit         [MaxEdits]Span
	InsertAt     uint64
	SamplesAt    uint64 // where n is said, and its line, if it is more than 1
	SamplesLine  uint32
	_            uint32
}

func (p *Prompt) c() *C.pdr_prompt {
	if p == nil {
		return nil
	}
	p.size = uint32(unsafe.Sizeof(*p))
	return (*C.pdr_prompt)(unsafe.Pointer(p))
}

// Scan reads a body once: its validity, the members that matter, and the chain of block hashes of its prompt, of which
// as many are written as hashes has room for. The body is only borrowed, and not copied.
func Scan(body []byte, api API, limits *Limits, prompt *Prompt, hashes []uint64) error {
	e := C.pdr_error{struct_size: C.sizeof_pdr_error}
	if code := C.pdr_scan(bytesOf(body), C.size_t(len(body)), C.uint32_t(api), limits.c(), prompt.c(), hashesOf(hashes), C.size_t(len(hashes)), &e); code != 0 {
		return errorOf(code, &e)
	}
	return nil
}

// BodyMember says where the value of a member of a JSON object lies, the last one of that name; ErrNotFound if there is none.
func BodyMember(body []byte, name string) (Span, error) {
	var span C.pdr_span
	text := []byte(name)
	if code := C.pdr_body_member(bytesOf(body), C.size_t(len(body)), bytesOf(text), C.size_t(len(text)), &span); code != 0 {
		return Span{}, Code(code)
	}
	return Span{uint64(span.begin), uint64(span.end)}, nil
}

// HashTokens gives the block hashes of a token sequence; pdroute.h says what salt is. hashes is overwritten from its
// beginning as far as it goes, and returned cut to what was written.
func HashTokens(ids []uint32, salt uint64, limits *Limits, hashes []uint64) ([]uint64, error) {
	s := newScratch()
	defer s.free()
	code := C.pdr_hash_tokens((*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(ids))), C.size_t(len(ids)), C.uint64_t(salt), limits.c(), hashesOf(hashes),
		C.size_t(len(hashes)), &s.n)
	if code != 0 {
		return nil, Code(code)
	}
	return hashes[:s.n], nil
}

// RequestFlags change how a request is routed.
type RequestFlags uint32

const (
	RequestNoHold RequestFlags = C.PDR_REQUEST_NO_HOLD // send now or refuse
	RequestDry    RequestFlags = C.PDR_REQUEST_DRY     // decide, book nothing, hold nothing: no room
)

// Request is what the caller knows beside the body.
type Request struct {
	size       uint32
	Flags      RequestFlags
	API        API
	Lease      uint32 // owner of the booking
	NowNs      uint64
	DeadlineNs uint64 // for holding; 0: HoldMaxWaitMs
	Priority   int32  // added to the body's; higher goes first among held requests
	Excluded   uint32 // ids in Exclude
	Exclude    [8]uint32
	Session    uint64 // hash of a session header, 0: none
	Tenant     uint64 // hash of who pays, 0: nobody in particular; one that was served more than its share waits longer
}

func (q *Request) c() *C.pdr_request {
	q.size = uint32(unsafe.Sizeof(*q))
	return (*C.pdr_request)(unsafe.Pointer(q))
}

// Outcome of a decision.
type Outcome uint32

const (
	Send Outcome = C.PDR_SEND
	Held Outcome = C.PDR_HELD
)

// Leg names one of a request's two.
type Leg uint32

const (
	LegPrefill Leg = C.PDR_LEG_PREFILL
	LegDecode  Leg = C.PDR_LEG_DECODE
)

func (l Leg) String() string {
	if l == LegPrefill {
		return "prefill"
	}
	return "decode"
}

// Mode says whether there are two legs.
type Mode uint32

const (
	ModePD     Mode = C.PDR_MODE_PD
	ModeSingle Mode = C.PDR_MODE_SINGLE // one server does all: only the decode leg exists
)

// Decision says where a request goes. It is plain data: copy it, keep it, reuse it.
type Decision struct {
	size          uint32
	Outcome       Outcome
	Booking       uint64 // what was booked, or the ticket of a held request
	Mode          Mode
	Batch         uint32 // number of rooms; 0: a single prompt
	Prefill       uint32 // endpoint ids, None: no such leg
	Decode        uint32
	PrefillRank   uint32 // None without data parallelism
	DecodeRank    uint32
	PrefillDPSize uint32
	PrefillPort   uint32
	DecodePort    uint32
	BootstrapPort uint32 // 0: null
	PrefillFlags  EndpointFlags
	DecodeFlags   EndpointFlags
	Engine        Engine
	Candidates    uint32 // pairs that were possible
	Room          uint64 // the first
	RoomKey       uint64
	RoomCounter   uint64
	PromptTokens  uint64 // exact or estimated
	MatchedTokens uint64 // believed to be cached on the prefill target
	WaitUs        uint64 // terms of the chosen pair's cost
	PrefillUs     uint64
	TransferUs    uint64
	DecodeUs      uint64
	CostUs        uint64
	RetryAfterMs  uint64 // with ErrQueueFull and ErrNoPair: when to come again
	prefillHost   [256]byte
	decodeHost    [256]byte
	bootstrapHost [256]byte
	FirstByteUs   uint64 // silence that the exchange bears: until the first byte of either leg; 0: only the configuration bounds it
	AnswerUs      uint64 // from there to the first byte of decode
	IdleUs        uint64 // between two pieces of the answer
}

func (d *Decision) c() *C.pdr_decision {
	d.size = uint32(unsafe.Sizeof(*d))
	return (*C.pdr_decision)(unsafe.Pointer(d))
}

// PrefillHost is the prefill server's host, empty if there is none.
func (d *Decision) PrefillHost() string { return text(d.prefillHost[:]) }

// DecodeHost is the decode server's host.
func (d *Decision) DecodeHost() string { return text(d.decodeHost[:]) }

// BootstrapHost is where decode finds the prefill server.
func (d *Decision) BootstrapHost() string { return text(d.bootstrapHost[:]) }

// Addr is "host:port" of a leg's server, empty if the leg does not exist.
func (d *Decision) Addr(leg Leg) string {
	host, port := &d.decodeHost, d.DecodePort
	if leg == LegPrefill {
		if d.Mode == ModeSingle || d.Prefill == None {
			return ""
		}
		host, port = &d.prefillHost, d.PrefillPort
	}
	return net.JoinHostPort(text(host[:]), strconv.FormatUint(uint64(port), 10))
}

// RoomAt is the i-th room of a batch.
func (d *Decision) RoomAt(i int) uint64 { return uint64(C.pdr_decision_room(d.c(), C.uint32_t(i))) }

// Route decides for a body, which is only borrowed and not copied: d.Outcome is Send, or Held with a ticket for
// TakeTicket. prompt (may be nil) gets what the scan found, for the rewrite. q, prompt and d are the caller's; reusing
// them saves allocations, there are no others. On errors only d.RetryAfterMs may be set.
func (r *Router) Route(body []byte, q *Request, prompt *Prompt, d *Decision) error {
	e := C.pdr_error{struct_size: C.sizeof_pdr_error} // on the stack, where Go can (nocallback.go)
	if code := C.go_route(r.n(), bytesOf(body), C.size_t(len(body)), q.c(), prompt.c(), d.c(), &e); code != 0 {
		return errorOf(code, &e)
	}
	return nil
}

// RoutePrompt is the same after Scan; also for retries.
func (r *Router) RoutePrompt(prompt *Prompt, hashes []uint64, q *Request, d *Decision) error {
	e := C.pdr_error{struct_size: C.sizeof_pdr_error}
	if code := C.go_route_prompt(r.n(), prompt.c(), hashesOf(hashes), C.size_t(len(hashes)), q.c(), d.c(), &e); code != 0 {
		return errorOf(code, &e)
	}
	return nil
}

// TakeTicket fetches a held request: ErrAgain while it is held; else it is routed, or refused with ErrExpired or
// ErrNoPair, or gone (ErrNotFound). hashes as scanned (may be nil).
func (r *Router) TakeTicket(ticket uint64, hashes []uint64, now uint64, d *Decision) error {
	s := newScratch()
	return s.done(C.pdr_ticket_take(r.c(), C.uint64_t(ticket), hashesOf(hashes), C.size_t(len(hashes)), C.uint64_t(now), d.c(), &s.err))
}

// CancelTicket gives up a held request, or a booking that was never sent.
func (r *Router) CancelTicket(ticket, now uint64) error {
	return failure(C.pdr_ticket_cancel(r.c(), C.uint64_t(ticket), C.uint64_t(now)))
}

// Released fills tickets with those of a lease that may go now, and gives their number. Each is told once.
func (r *Router) Released(lease uint32, tickets []uint64) (int, error) {
	s := newScratch()
	defer s.free()
	s.n = C.size_t(len(tickets))
	if code := C.pdr_released(r.c(), C.uint32_t(lease), hashesOf(tickets), &s.n); code != 0 {
		return 0, Code(code)
	}
	return int(s.n), nil
}

// Wakeups fills leases with those that have released tickets and were not told yet. Block.WakePending does all.
func (r *Router) Wakeups(leases []uint32) (int, error) {
	s := newScratch()
	defer s.free()
	s.n = C.size_t(len(leases))
	if code := C.pdr_wakeups(r.c(), (*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(leases))), &s.n); code != 0 {
		return 0, Code(code)
	}
	return int(s.n), nil
}

// Done says what became of a booking, for hosts that do without an Exchange.
type Done uint32

const (
	DonePrefill Done = C.PDR_DONE_PREFILL // the prompt is computed: frees prefill work
	DoneAll     Done = C.PDR_DONE_ALL     // frees everything
)

// EndBooking reports what became of a booking.
func (r *Router) EndBooking(booking uint64, what Done, now uint64) error {
	return failure(C.go_booking_done(r.n(), C.uint64_t(booking), C.uint32_t(what), C.uint64_t(now)))
}

// StorePrefix says that a target holds these blocks (chains in prompt order).
func (r *Router) StorePrefix(id, rank uint32, hashes []uint64) error {
	return failure(C.pdr_prefix_store(r.c(), C.uint32_t(id), C.uint32_t(rank), hashesOf(hashes), C.size_t(len(hashes))))
}

// RemovePrefix says that a target holds these blocks no more.
func (r *Router) RemovePrefix(id, rank uint32, hashes []uint64) error {
	return failure(C.pdr_prefix_remove(r.c(), C.uint32_t(id), C.uint32_t(rank), hashesOf(hashes), C.size_t(len(hashes))))
}

// ClearPrefix forgets all blocks of a target.
func (r *Router) ClearPrefix(id, rank uint32) error {
	return failure(C.pdr_prefix_clear(r.c(), C.uint32_t(id), C.uint32_t(rank)))
}

// MatchPrefix is the number of leading blocks that a target holds.
func (r *Router) MatchPrefix(id, rank uint32, hashes []uint64) (int, error) {
	s := newScratch()
	defer s.free()
	s.n = 0
	if code := C.pdr_prefix_match(r.c(), C.uint32_t(id), C.uint32_t(rank), hashesOf(hashes), C.size_t(len(hashes)), &s.n); code != 0 {
		return 0, Code(code)
	}
	return int(s.n), nil
}
