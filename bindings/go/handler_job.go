package pdroute

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// job is one client request with its exchange and legs: what legs, client and clock do goes in as events, and the
// actions that come out are carried out. Nothing is decided here. It outlives the request while a leg is drained.
type job struct {
	h      *Handler
	w      http.ResponseWriter // of the goroutine in ServeHTTP only
	r      *http.Request
	api    API
	body   []byte
	raw    bool // not a JSON object: passes as it is
	prompt Prompt
	hashes []uint64
	result Result        // of the goroutine in ServeHTTP
	wake   chan struct{} // there is something for that goroutine

	mu       sync.Mutex
	decision Decision
	exchange Exchange
	actions  Actions
	event1   Event
	header   http.Header   // for both legs, all attempts
	legs     [2]*leg       // of the present attempt
	relay    *leg          // passed to the client
	answer   *Action       // ActRespond or ActAbort
	lacks    error         // what this process has not, and a leg needs: no server is blamed
	merge    bool          // decode's answer needs prefill's, in the present attempt
	last     atomic.Uint64 // when the last piece of the relayed answer came; 0: none is relayed
	writing  atomic.Bool   // the client has not taken it yet
	gap      uint64        // longest silence between two pieces
	timer    *time.Timer
	alarm    uint64 // when the timer fires
	attempts int
	finished bool
}

func (j *job) leave() { j.h.active.Add(-1) }

// run has a decision, and stays until the client has its answer.
func (j *job) run() {
	j.mu.Lock()
	j.attempts = 1
	j.merge = MergeWanted(&j.decision, &j.prompt)
	err := j.exchange.Begin(j.h.process.Router(), &j.decision, j.h.process.Lease(), Now(), &j.actions)
	if len(j.actions.List()) == 0 { // cannot be, unless header and library are of different versions
		j.mu.Unlock()
		_ = j.h.process.Router().CancelTicket(j.decision.Booking, Now())
		j.h.log.Error("pdroute: the exchange did not begin", "error", err)
		j.respond(http.StatusInternalServerError, "internal_error", "the exchange did not begin", 0)
		return
	}
	j.h.active.Add(1) // until it is finished
	j.perform()
	j.mu.Unlock()
	stop := context.AfterFunc(j.r.Context(), func() { j.event(EventClientGone, nil, 0) })
	defer j.note()
	defer stop()
	for {
		<-j.wake
		j.mu.Lock()
		answer, relay, finished, lacks := j.answer, j.relay, j.finished, j.lacks
		j.mu.Unlock()
		switch {
		case lacks != nil:
			j.h.log.Error("pdroute: no connection", "error", lacks)
			j.respond(http.StatusServiceUnavailable, "gateway_overloaded", "the gateway cannot open a connection: "+lacks.Error(), 1000)
			return
		case answer != nil && answer.Type == ActRespond:
			j.respond(int(answer.Status), answer.Reason.String(), answer.Reason.Text(), answer.RetryAfterMs)
			return
		case answer != nil: // nothing was sent yet, or relayed() would have seen it
			j.respond(http.StatusBadGateway, answer.Reason.String(), answer.Reason.Text(), 0)
			return
		case relay != nil:
			if j.relayed(relay) {
				return
			}
		case finished: // the client left
			j.result.Status = 499
			panic(http.ErrAbortHandler)
		}
	}
}

// note keeps for the log what was decided last.
func (j *job) note() {
	j.mu.Lock()
	defer j.mu.Unlock()
	d := j.decision
	j.result.Decided, j.result.Decision, j.result.Attempts = true, &d, j.attempts
}

// event reports to the exchange and does what it says. It returns what the leg is to do next.
func (j *job) event(what EventType, l *leg, detail Failure) legState {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.finished && (l == nil || l.state != legCancelled) {
		ev := &j.event1
		*ev = Event{Type: what, Detail: detail, NowNs: Now(), Attempt: j.exchange.Attempt}
		if ev.LastByteNs = j.last.Load(); ev.LastByteNs != 0 && j.writing.Load() {
			ev.LastByteNs = ev.NowNs
		}
		if l != nil {
			if what == EventEnd && l == j.relay && j.gap != 0 {
				ev.LongestGapMs = uint32(j.gap/1e6) + 1
			}
			if what == EventEnd && l.which == LegDecode && l.usage != nil && l.usage.Flags&SeenError != 0 {
				ev.Detail = FailProtocol
			}
			if what == EventHead && l.merge {
				ev.Detail = HeadMerged
			}
			ev.Attempt, ev.Leg, ev.Status, ev.RetryAfterMs = l.attempt, l.which, uint32(l.status), l.retryAfterMs
			if u := l.usage; what == EventEnd && l.which == LegDecode && u != nil && u.Flags&SeenUsage != 0 {
				ev.Usage, ev.PromptTokens, ev.CachedTokens, ev.CompletionTokens = 1, u.PromptTokens, u.CachedTokens, u.CompletionTokens
			}
		}
		_ = j.exchange.Event(j.h.process.Router(), ev, &j.actions)
		j.perform()
	}
	if l == nil {
		return legOpen
	}
	return l.state
}

// perform carries out the actions of a call. With the lock.
func (j *job) perform() {
	for again := true; again; {
		again = false
		for _, act := range j.actions.List() {
			var l *leg
			if int(act.Leg) < len(j.legs) {
				l = j.legs[act.Leg]
			}
			switch act.Type {
			case ActSend:
				j.send(act.Leg)
			case ActCancel:
				if l != nil {
					l.stop()
				}
			case ActDrain:
				if l != nil {
					l.tell(legDrain)
				}
			case ActRelay:
				if l != nil {
					j.throwAway(l)
					j.relay = l
					l.tell(legRelay)
					j.notify()
				}
			case ActRespond, ActAbort:
				a := act
				j.answer = &a
				if act.Type == ActRespond {
					j.throwAway(nil)
				}
				j.notify()
			case ActRoute:
				j.throwAway(nil)
				j.reroute() // always the last of its list; asks for more
				again = true
			case ActFinish:
				j.finish()
			}
			if again {
				break
			}
		}
	}
	j.arm()
	j.h.process.Block().WakePending()
	if j.finished { // an event is performed only before that, so this is its last use of the block: Shutdown may unmap it now
		j.leave()
	}
}

// throwAway ends a relay of which nothing was sent: decode's answer waited for prefill's, and something else goes to the
// client instead. With the lock.
func (j *job) throwAway(instead *leg) {
	if j.relay != nil && j.relay != instead {
		j.relay.stop()
		j.relay = nil
	}
}

func (j *job) notify() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *job) reroute() {
	q := Request{API: j.api, Tenant: j.tenant(), Excluded: j.exchange.Excluded, Exclude: j.exchange.Exclude}
	var d Decision
	err := j.h.process.RouteNow(&j.prompt, j.hashes, &q, &d)
	if err == nil {
		j.decision = d
		j.attempts++
		j.merge = MergeWanted(&j.decision, &j.prompt)
		_ = j.exchange.Rerouted(j.h.process.Router(), &j.decision, nil, Now(), &j.actions)
	} else {
		_ = j.exchange.Rerouted(j.h.process.Router(), nil, err, Now(), &j.actions)
	}
}

// finish: the books are closed. What still goes to the client goes on; nothing else should be open.
func (j *job) finish() {
	if j.finished {
		return
	}
	j.finished = true
	for _, l := range j.legs {
		if l != nil && l.state != legRelay {
			l.stop()
		}
	}
	if j.timer != nil {
		j.timer.Stop()
	}
	j.notify()
}

// arm sets the timer for the exchange's next deadline; one that fires early looks again.
func (j *job) arm() {
	if j.finished {
		return
	}
	deadline := j.exchange.Deadline()
	if j.timer != nil && j.alarm <= deadline {
		return
	}
	wait := time.Hour
	if now := Now(); deadline <= now {
		wait = 0
	} else if d := deadline - now; d < uint64(time.Hour) {
		wait = time.Duration(d) + time.Millisecond
	}
	j.alarm = Now() + uint64(wait)
	if j.timer == nil {
		j.timer = time.AfterFunc(wait, j.tick)
	} else {
		j.timer.Reset(wait)
	}
}

func (j *job) tick() {
	j.mu.Lock()
	j.alarm = ^uint64(0) // it has fired: arm it anew
	j.mu.Unlock()
	j.event(EventTick, nil, 0)
}
