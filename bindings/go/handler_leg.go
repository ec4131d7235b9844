package pdroute

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type legState int

const (
	legOpen      legState = iota
	legDrain              // read and throw away
	legRelay              // goes to the client
	legCancelled          // nobody wants to hear of it
)

// leg is one request to one worker and its answer, up to the point where the answer is thrown away (here) or passed to
// the client (relayed).
type leg struct {
	job     *job
	which   Leg
	attempt uint32
	request *http.Request
	peer    *peer
	gate    *leg // its connection comes first
	merge   bool // decode's answer needs prefill's: of the leg's attempt, the job's may be another already
	cancel  context.CancelFunc
	state   legState      // with the job's lock
	told    chan struct{} // the state changed
	handed  chan struct{} // closed: its goroutine is over
	given   bool          // what follows belongs to the relay

	reused, received atomic.Bool // of the connection; the transport's hooks write them from goroutines of its own
	once             sync.Once
	connected        chan struct{} // closed: there is a connection, or never will be

	response     *http.Response
	status       int
	retryAfterMs uint64
	stream       bool
	usage        *Response // nil: its content is not read
	buffer       *[readSize]byte
	first        []byte // in buffer: not passed on yet
	complete     bool   // the answer was read to its end
	bodySeen     bool
	kept         []byte // of prefill's answer, if it is to be merged into decode's
	excess       bool   // it was longer than mergeMax
	held         []byte // of a stream: the beginning of an error event
}

const readSize = 32 << 10

var buffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// send starts a leg of the present attempt. With the job's lock.
func (j *job) send(which Leg) {
	if j.finished {
		return
	}
	l := &leg{job: j, which: which, attempt: j.exchange.Attempt, merge: j.merge, told: make(chan struct{}, 1), handed: make(chan struct{}),
		connected: make(chan struct{})}
	if before := j.legs[LegPrefill]; which == LegDecode && before != nil && before.attempt == l.attempt {
		l.gate = before
	}
	j.legs[which] = l
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	if err := l.prepare(ctx); err != nil {
		j.h.log.Error("pdroute: request for "+which.String(), "error", err)
		l.request = nil
	}
	go l.run()
}

// stop ends a leg at once. With the job's lock.
func (l *leg) stop() {
	if l.state != legCancelled {
		l.tell(legCancelled)
		l.cancel()
	}
}

// tell changes the state. With the job's lock.
func (l *leg) tell(s legState) {
	l.state = s
	select {
	case l.told <- struct{}{}:
	default:
	}
}

// prepare makes the leg's request: the client's headers that pass, and the client's body with the owned members cut
// out and ours put in.
func (l *leg) prepare(ctx context.Context) error {
	j := l.job
	d := &j.decision
	addr, flags := d.Addr(l.which), d.DecodeFlags
	if l.which == LegPrefill {
		flags = d.PrefillFlags
	}
	scheme := "http"
	if flags&EndpointTLS != 0 {
		scheme = "https"
	}
	if j.header == nil {
		j.header = passing(j.r.Header, j.api)
	}
	l.peer = j.h.peers.get(scheme, addr)
	trace := &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			l.reused.Store(info.Reused)
			l.once.Do(func() { close(l.connected) })
		},
		GotFirstResponseByte: func() { l.received.Store(true) },
	}
	u := url.URL{Scheme: scheme, Host: addr, Path: j.r.URL.Path, RawPath: j.r.URL.RawPath, RawQuery: j.r.URL.RawQuery, ForceQuery: j.r.URL.ForceQuery}
	request := (&http.Request{Method: j.r.Method, URL: &u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: j.header, Host: addr}).
		WithContext(httptrace.WithClientTrace(ctx, trace))
	switch {
	case len(j.body) == 0:
		if j.r.ContentLength != 0 {
			request.Body = http.NoBody
		}
	case j.raw:
		request.Body = io.NopCloser(bytes.NewReader(j.body))
		request.ContentLength = int64(len(j.body))
	default:
		body, err := d.LegBody(&j.prompt, l.which, j.body)
		if err != nil {
			return err
		}
		request.Body, request.ContentLength = body, body.Len()
	}
	l.request = request
	return nil
}

func (l *leg) run() {
	defer func() {
		l.once.Do(func() { close(l.connected) })
		if !l.given {
			l.end()
		}
		close(l.handed)
	}()
	if l.request == nil {
		l.job.event(EventFailed, l, FailConnect)
		return
	}
	// decode can do nothing without prefill: it is asked when prefill's connection is there, so that a refused one
	// costs no decode server anything
	if l.gate != nil {
		select {
		case <-l.gate.connected:
		case <-l.request.Context().Done():
		}
		if l.request.Context().Err() != nil {
			return
		}
	}
	response, err := l.peer.transport.RoundTrip(l.request)
	if err != nil {
		l.failed(err)
		return
	}
	l.head(response)
	if !headGood(response) {
		l.fail(FailProtocol)
		return
	}
	state := l.job.event(EventHead, l, 0)
	for {
		switch state {
		case legCancelled:
			return
		case legRelay:
			l.given = true
			return
		}
		if l.complete || state == legOpen && l.bodySeen {
			state = l.wait()
		} else {
			state = l.read(state)
		}
	}
}

// wait waits until the exchange says what to do with the answer.
func (l *leg) wait() legState {
	select {
	case <-l.told:
	case <-l.request.Context().Done():
	}
	l.job.mu.Lock()
	defer l.job.mu.Unlock()
	if l.state == legDrain && l.complete {
		return legCancelled
	}
	return l.state
}

// read reads on, once.
func (l *leg) read(state legState) legState {
	if l.buffer == nil {
		l.buffer = buffers.Get().(*[readSize]byte)
	}
	n, err := l.response.Body.Read(l.buffer[:])
	if n > 0 {
		if state == legOpen {
			l.first = l.buffer[:n]
		}
		if l.merge && l.which == LegPrefill {
			l.keep(l.buffer[:n])
		}
		l.content(l.buffer[:n])
		if err != nil && l.whole() {
			err = io.EOF
		}
		// the first bytes of an answer; those that are also its last are told of as its end
		if !l.bodySeen && !(state == legDrain && err == io.EOF) {
			l.bodySeen = true
			if l.beginsWithFailure(l.buffer[:n]) {
				return l.fail(FailProtocol)
			}
			state = l.job.event(EventBody, l, 0)
			if state == legCancelled || state == legRelay {
				if err == io.EOF && state == legRelay {
					return l.job.event(EventEnd, l.ended(), 0)
				}
				return state
			}
		}
	}
	switch {
	case err == io.EOF:
		state = l.job.event(EventEnd, l.ended(), 0)
		if state == legDrain {
			return legCancelled // over
		}
	case err != nil:
		return l.failed(err)
	}
	return state
}

// keep keeps what decode's answer may need of prefill's, unless it becomes too long.
func (l *leg) keep(b []byte) {
	if l.excess = l.excess || len(l.kept)+len(b) > mergeMax; l.excess {
		l.kept = nil
		return
	}
	l.kept = append(l.kept, b...)
}

// beginsWithFailure: a stream whose first event is the engine's failure, under a 200. Nothing has gone to the client,
// another pair can still be tried. An event that names a 4xx is the request's fault and passes.
func (l *leg) beginsWithFailure(b []byte) bool {
	if !l.stream || l.status != http.StatusOK || l.usage == nil || l.usage.Flags&(SeenError|SeenFirstToken) != SeenError {
		return false
	}
	status := ErrorStatus(b)
	return status == 0 || status >= 500
}

// whole: the stream has said [DONE]. What the connection does then takes nothing from the client.
func (l *leg) whole() bool {
	return l.stream && l.which == LegDecode && l.usage != nil && l.usage.Flags&(SeenDone|SeenError) == SeenDone
}

func (l *leg) ended() *leg {
	l.complete = true
	return l
}

// content takes note of bytes of the answer: decode's tells of prefill's cache as well; of prefill's only the first are
// looked at, for errors.
func (l *leg) content(b []byte) {
	if l.usage != nil && (l.which == LegDecode || !l.bodySeen) {
		l.usage.Feed(b)
	}
}

// head keeps what the head says.
func (l *leg) head(r *http.Response) {
	l.response, l.status = r, r.StatusCode
	if s, err := strconv.ParseUint(r.Header.Get("Retry-After"), 10, 32); err == nil {
		l.retryAfterMs = s * 1000
	} else if at, err := http.ParseTime(r.Header.Get("Retry-After")); err == nil && time.Until(at) > 0 {
		l.retryAfterMs = uint64(time.Until(at).Milliseconds())
	}
	kind := strings.ToLower(r.Header.Get("Content-Type"))
	l.stream = strings.HasPrefix(kind, "text/event-stream")
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return
	}
	switch {
	case l.stream:
		l.usage = new(Response)
		l.usage.Init(ResponseSSE)
	case strings.HasPrefix(kind, "application/json"):
		l.usage = new(Response)
		l.usage.Init(ResponseJSON)
	}
}

// fail ends the leg and reports how.
func (l *leg) fail(how Failure) legState {
	j := l.job
	j.mu.Lock()
	if l.state != legCancelled {
		j.h.log.Info("pdroute: leg failed", "leg", l.which.String(), "server", l.request.URL.Host, "how", how.String())
	}
	j.mu.Unlock()
	l.cancel()
	j.event(EventFailed, l, how)
	return legCancelled
}

// ours gives an error that says what this process has not, and nil for others.
func ours(err error) error {
	for _, lacks := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, lacks) {
			return lacks
		}
	}
	return nil
}

// failed reports an error of the transport.
func (l *leg) failed(err error) legState {
	if lacks := ours(err); lacks != nil && l.response == nil {
		l.job.mu.Lock()
		cancelled := l.state == legCancelled
		if !cancelled {
			l.job.lacks = lacks
		}
		l.job.mu.Unlock()
		if !cancelled {
			l.job.event(EventClientGone, nil, 0)
		}
		return legCancelled
	}
	how := l.failure(err)
	if how == FailStale {
		l.peer.transport.CloseIdleConnections() // its fellows are of the same age
	}
	return l.fail(how)
}

func (l *leg) failure(err error) Failure {
	select {
	case <-l.connected:
	default:
		return FailConnect
	}
	var timeout interface{ Timeout() bool }
	var protocol textproto.ProtocolError
	switch {
	case l.response == nil && l.reused.Load() && !l.received.Load():
		return FailStale
	case errors.As(err, &protocol) || strings.Contains(err.Error(), "malformed"):
		return FailProtocol
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return FailReset
	case errors.As(err, &timeout) && timeout.Timeout():
		return FailTimeout
	case l.received.Load() && !errors.As(err, new(*net.OpError)):
		return FailProtocol // a head or framing that is not HTTP
	}
	return FailReset
}

// end gives back what the leg holds. By whoever reads it last.
func (l *leg) end() {
	if l.response != nil {
		l.response.Body.Close()
	}
	l.cancel()
	if l.buffer != nil {
		buffers.Put(l.buffer)
		l.buffer, l.first = nil, nil
	}
}

// headGood says whether a head is one that may be passed on: names are tokens, and no value has what another reader
// could take for the end of a line or of the text.
func headGood(r *http.Response) bool {
	if r.StatusCode == http.StatusSwitchingProtocols {
		return false
	}
	for name, values := range r.Header {
		if name == "" {
			return false
		}
		for i := 0; i < len(name); i++ {
			if c := name[i]; c <= ' ' || c >= 0x7f || c == ':' {
				return false
			}
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") {
				return false
			}
		}
	}
	return true
}
