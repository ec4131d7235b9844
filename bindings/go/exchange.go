package pdroute

// #include <pdroute/pdroute.h>
import "C"

import "unsafe"

// EventType is what happened to a request.
type EventType uint32

const (
	EventHead       EventType = C.PDR_EV_HEAD        // a leg answered: Status
	EventBody       EventType = C.PDR_EV_BODY        // a leg's first body byte
	EventEnd        EventType = C.PDR_EV_END         // a leg's answer is complete
	EventFailed     EventType = C.PDR_EV_FAILED      // a leg broke: Detail
	EventClientGone EventType = C.PDR_EV_CLIENT_GONE // the client left
	EventSent       EventType = C.PDR_EV_SENT        // the host begins to send the answer to the client
	EventTick       EventType = C.PDR_EV_TICK        // time passed
	EventServed     EventType = C.PDR_EV_SERVED      // decode's request went to another server than was named: its id in Detail
)

// Failure is how a leg broke.
type Failure uint32

const (
	FailConnect  Failure = C.PDR_FAIL_CONNECT  // nothing was sent
	FailStale    Failure = C.PDR_FAIL_STALE    // a kept connection was closed before an answer
	FailReset    Failure = C.PDR_FAIL_RESET    // closed in the middle
	FailTimeout  Failure = C.PDR_FAIL_TIMEOUT  // silent for too long
	FailProtocol Failure = C.PDR_FAIL_PROTOCOL // not HTTP, or an error inside a 200 answer
)

// HeadMerged is Event.Detail of an EventHead: the client's answer takes both legs' (MergeWanted), so that prefill is needed to its end.
const HeadMerged Failure = C.PDR_HEAD_MERGED

func (f Failure) String() string {
	switch f {
	case FailConnect:
		return "no connection"
	case FailStale:
		return "kept connection was closed"
	case FailReset:
		return "connection was closed"
	case FailTimeout:
		return "timed out"
	case FailProtocol:
		return "not an answer in HTTP"
	}
	return "unknown"
}

// Event is reported to an Exchange.
type Event struct {
	size             uint32
	Type             EventType
	Leg              Leg
	Status           uint32  // HTTP status for EventHead
	Detail           Failure // for EventFailed; for EventServed the id of the endpoint; for EventHead HeadMerged, or 0
	Attempt          uint32  // the attempt the leg belongs to; older ones are ignored
	NowNs            uint64
	RetryAfterMs     uint64 // from a 429 or 503 head
	PromptTokens     uint64 // with EventEnd: usage, if Usage is 1
	CachedTokens     uint64
	CompletionTokens uint64
	Usage            uint32
	_                uint32
	LastByteNs       uint64 // with EventTick: when the last piece of the relayed answer came, or NowNs while the client does not take what has come
	LongestGapMs     uint32 // with EventEnd: longest silence between two pieces of the answer, at least 1; 0: not measured
	_                uint32
}

// ActionType is what the host is to do.
type ActionType uint32

const (
	ActSend    ActionType = C.PDR_ACT_SEND    // send this leg now
	ActCancel  ActionType = C.PDR_ACT_CANCEL  // close this leg; its events no longer matter
	ActDrain   ActionType = C.PDR_ACT_DRAIN   // read this leg to its end and throw it away
	ActRelay   ActionType = C.PDR_ACT_RELAY   // pass this leg's head and body to the client
	ActRespond ActionType = C.PDR_ACT_RESPOND // answer the client: Status, Reason
	ActRoute   ActionType = C.PDR_ACT_ROUTE   // choose a new pair, then Rerouted
	ActAbort   ActionType = C.PDR_ACT_ABORT   // the answer cannot be completed
	ActFinish  ActionType = C.PDR_ACT_FINISH  // all is over
)

// Reason is why the gateway answers by itself.
type Reason uint32

const (
	ReasonPrefillFailed  Reason = C.PDR_ERR_PREFILL_FAILED
	ReasonDecodeFailed   Reason = C.PDR_ERR_DECODE_FAILED
	ReasonPrefillTimeout Reason = C.PDR_ERR_PREFILL_TIMEOUT
	ReasonDecodeTimeout  Reason = C.PDR_ERR_DECODE_TIMEOUT
	ReasonNoPair         Reason = C.PDR_ERR_NO_PAIR
	ReasonQueueFull      Reason = C.PDR_ERR_QUEUE_FULL
	ReasonBadRequest     Reason = C.PDR_ERR_BAD_REQUEST
	ReasonTooLarge       Reason = C.PDR_ERR_TOO_LARGE
	ReasonHeldTimeout    Reason = C.PDR_ERR_HELD_TIMEOUT
)

// String is the reason's name for machines: "prefill_failed" and so on.
func (r Reason) String() string { return C.GoString(C.pdr_reason_name(C.uint32_t(r))) }

// Text is the sentence for clients that goes with it, without names of servers.
func (r Reason) Text() string { return C.GoString(C.pdr_reason_text(C.uint32_t(r))) }

// Action is what the host is to do.
type Action struct {
	Type         ActionType
	Leg          Leg
	Status       uint32
	Reason       Reason
	RetryAfterMs uint64
}

// MaxActions is the most that one call asks for.
const MaxActions = C.PDR_MAX_ACTIONS

// Actions receives what a call of an Exchange asks for. The zero value is ready to use, again and again.
type Actions struct {
	n    uint64
	list [MaxActions]Action
}

// List is what the last call asked for, valid until the next one.
func (a *Actions) List() []Action { return a.list[:a.n] }

func (a *Actions) c() (*C.pdr_action, *C.size_t) {
	a.n = MaxActions
	a.list[0].Type = 0
	return (*C.pdr_action)(unsafe.Pointer(&a.list)), (*C.size_t)(unsafe.Pointer(&a.n))
}

// done: after an error that says nothing about actions there are none.
func (a *Actions) done(code C.int) error {
	if a.n > MaxActions || a.list[0].Type == 0 {
		a.n = 0
	}
	return failure(code)
}

// Exchange decides what happens when legs answer, fail or hang and clients leave: events go in, actions come out, which
// the caller only carries out. One per client request, one goroutine at a time. docs/exchange.md has the rules.
type Exchange struct {
	size          uint32
	phase         uint32
	Attempt       uint32 // 0, 1, …
	flags         uint32
	Booking       uint64
	Prefill       uint32 // endpoint ids of the present attempt
	Decode        uint32
	legState      [2]uint32
	LegStatus     [2]uint32 // HTTP statuses seen, 0: none
	Excluded      uint32
	Exclude       [8]uint32 // endpoints that failed this request
	Mode          Mode
	Lease         uint32
	_             uint32
	StartedNs     uint64
	SentNs        uint64
	DeadlineNs    uint64
	RetryAfterMs  uint64
	PromptTokens  uint64
	MatchedTokens uint64
	PredictedUs   uint64
	state         [8]uint64
}

func (x *Exchange) c() *C.pdr_exchange {
	x.size = uint32(unsafe.Sizeof(*x))
	return (*C.pdr_exchange)(unsafe.Pointer(x))
}

// Begin starts with a decision whose outcome is Send.
func (x *Exchange) Begin(r *Router, d *Decision, lease uint32, now uint64, a *Actions) error {
	out, n := a.c()
	return a.done(C.pdr_exchange_begin(r.c(), x.c(), d.c(), C.uint32_t(lease), C.uint64_t(now), out, n))
}

// Event reports what happened. Unknown, late and repeated events are harmless.
func (x *Exchange) Event(r *Router, ev *Event, a *Actions) error {
	ev.size = uint32(unsafe.Sizeof(*ev))
	out, n := a.c()
	return a.done(C.pdr_exchange_event(r.c(), x.c(), (*C.pdr_event)(unsafe.Pointer(ev)), out, n))
}

// Rerouted answers ActRoute: with a decision, or with the error of RoutePrompt (then d may be nil).
func (x *Exchange) Rerouted(r *Router, d *Decision, routed error, now uint64, a *Actions) error {
	var code C.int
	var dc *C.pdr_decision
	if d != nil {
		dc = d.c()
	}
	if routed != nil {
		code = C.int(codeOf(routed))
	}
	out, n := a.c()
	return a.done(C.pdr_exchange_rerouted(r.c(), x.c(), dc, code, C.uint64_t(now), out, n))
}

// Deadline is when EventTick may do something next; math.MaxUint64: never.
func (x *Exchange) Deadline() uint64 { return uint64(C.pdr_exchange_deadline(x.c())) }
