package pdroute

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Of an answer to be merged no more than this is kept, of either leg: a longer one passes as decode gave it.
var mergeMax = 64 << 20

const maskSize = 1 << 20 // longer error bodies are masked in pieces of this size

// relayed passes a leg's answer to the client, event by event. False: the leg was cancelled before anything was sent.
// Runs in the goroutine of ServeHTTP.
func (j *job) relayed(l *leg) bool {
	<-l.handed
	if !l.given {
		return j.dropped(l)
	}
	defer l.end()
	var change func(piece []byte, last bool) []byte // nil: the answer passes as it comes
	switch {
	case l.status >= 400:
		change = j.masked()
	case l.merge && l.which == LegDecode && l.status < 300:
		if prefill := j.mergeFrom(l); prefill != nil {
			change = j.merged(l, prefill)
		}
	}
	if j.event(EventSent, l, 0) != legRelay {
		return j.dropped(l)
	}
	j.result.Status, j.result.Upstream = l.status, l.request.URL.Host
	out := &relayWriter{w: j.w, control: http.NewResponseController(j.w), timeout: j.h.options.SendTimeout}
	defer out.restore()
	answerHeaders(j.w.Header(), l.response.Header, l.stream)
	if change != nil && l.status < 400 {
		j.w.Header().Del("Content-Length") // a merged answer is longer
	}
	head := change == nil || l.stream || l.status >= 400 // else its length is known when it is complete
	if head {
		j.w.WriteHeader(l.status)
	}
	flush := l.stream || l.response.ContentLength < 0
	chunk, err := l.first, error(nil)
	j.last.Store(Now())
	for {
		if l.stream && l.usage != nil && l.status == http.StatusOK {
			chunk = l.withoutInside(chunk, l.complete)
		}
		if change != nil {
			chunk = change(chunk, l.complete)
		}
		if !head && (l.complete || len(chunk) > 0) {
			length := int64(len(chunk))
			if !l.complete { // too long to be merged: it passes as it is
				length = l.response.ContentLength
			}
			if length >= 0 {
				j.w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
			}
			j.w.WriteHeader(l.status)
			head = true
		}
		if len(chunk) > 0 {
			j.writing.Store(true)
			n, failed := out.write(chunk, flush)
			j.writing.Store(false)
			j.result.BytesSent += int64(n)
			if failed != nil {
				l.buffer = nil // to the collector: net/http may still be reading a chunk of a stream of HTTP/2 that was reset
				j.event(EventClientGone, nil, 0)
				panic(http.ErrAbortHandler)
			}
		}
		if l.complete {
			j.used(l)
			return true
		}
		if err != nil {
			j.broken(l, err, out)
		}
		chunk, err = j.piece(l)
	}
}

// piece reads on, and reports what it means.
func (j *job) piece(l *leg) ([]byte, error) {
	if l.buffer == nil {
		l.buffer = buffers.Get().(*[readSize]byte)
	}
	before := Now()
	n, err := l.response.Body.Read(l.buffer[:])
	now := Now()
	j.last.Store(now)
	if n > 0 {
		j.gap = max(j.gap, now-before, 1)
		l.content(l.buffer[:n])
		if !l.bodySeen { // of a 4xx
			l.bodySeen = true
			j.event(EventBody, l, 0)
		}
	}
	if err != nil && l.whole() {
		err = io.EOF
	}
	if err == io.EOF {
		j.event(EventEnd, l.ended(), 0)
	}
	return l.buffer[:n], err
}

// masked keeps back the body of a worker's error until it is whole, and blots out what it must not tell. Its length
// stays the same.
func (j *job) masked() func([]byte, bool) []byte {
	var whole []byte
	return func(piece []byte, last bool) []byte {
		whole = append(whole, piece...)
		if !last && len(whole) < maskSize {
			return nil
		}
		text := whole
		whole = nil
		_ = MaskError(&j.decision, text)
		return text
	}
}

// withoutInside masks the error events of a stream; the beginning of one is kept back until it is whole.
func (l *leg) withoutInside(piece []byte, last bool) []byte {
	if len(l.held) == 0 {
		n := l.usage.Mask(&l.job.decision, piece, last)
		if n < len(piece) {
			l.held = append([]byte(nil), piece[n:]...)
		}
		return piece[:n]
	}
	text := append(l.held, piece...)
	n := l.usage.Mask(&l.job.decision, text, last)
	l.held = append([]byte(nil), text[n:]...)
	return text[:n]
}

// mergeFrom waits until prefill's answer is there; nil: there is none, and the exchange has said what follows.
func (j *job) mergeFrom(l *leg) *leg {
	j.mu.Lock()
	prefill := j.legs[LegPrefill]
	j.mu.Unlock()
	j.last.Store(Now())
	j.writing.Store(true) // what has come waits for us, not for the worker
	defer j.writing.Store(false)
	select {
	case <-prefill.handed:
	case <-l.request.Context().Done():
		return nil
	}
	if !prefill.complete || prefill.excess {
		return nil
	}
	return prefill
}

// merged puts what only prefill knows into decode's answer: a whole one when it is complete, a stream in whole events.
// What is longer than mergeMax, an event or a whole answer, passes as it comes, and so does what follows it.
func (j *job) merged(l *leg, prefill *leg) func([]byte, bool) []byte {
	var m Merge
	var rest []byte
	searched := 0 // bytes of rest in which no event ends
	excess := false
	kind := ResponseJSON
	if l.stream {
		kind = ResponseSSE
	}
	m.Init(j.api, kind)
	return func(piece []byte, last bool) []byte {
		if excess {
			return piece
		}
		rest = append(rest, piece...)
		if excess = len(rest) > mergeMax; excess {
			text := rest
			rest = nil
			return text
		}
		cut := 0
		if last {
			cut = len(rest)
		} else if l.stream {
			from := max(searched-3, 0)
			if at := bytes.LastIndex(rest[from:], []byte("\n\n")); at >= 0 {
				cut = from + at + 2
			}
			if at := bytes.LastIndex(rest[from:], []byte("\r\n\r\n")); at >= 0 {
				cut = max(cut, from+at+4)
			}
			searched = len(rest) - cut
		}
		if cut == 0 {
			return nil
		}
		text, err := m.Text(prefill.kept, rest[:cut])
		if err != nil {
			text = append([]byte(nil), rest[:cut]...)
		}
		rest = append(rest[:0], rest[cut:]...)
		return text
	}
}

// used keeps the engine's counts for the log.
func (j *job) used(l *leg) {
	if u := l.usage; u != nil && u.Flags&SeenUsage != 0 {
		j.result.PromptTokens, j.result.CachedTokens, j.result.OutputTokens = u.PromptTokens, u.CachedTokens, u.CompletionTokens
	}
}

// dropped: the leg is not to be passed on any more; something else is.
func (j *job) dropped(l *leg) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.relay == l {
		j.relay = nil
	}
	j.notify()
	return false
}

// broken: the answer cannot be completed. It does not return: the client's connection is closed.
func (j *job) broken(l *leg, err error, out *relayWriter) {
	l.failed(err) // nothing, if the leg was cancelled and broke for that
	j.mu.Lock()
	abort := j.answer
	j.mu.Unlock()
	if abort == nil {
		j.result.Status = 499
		panic(http.ErrAbortHandler)
	}
	j.result.Reason = abort.Reason.String()
	if l.stream {
		_, _ = out.write(ErrorEvent(j.api, int(abort.Status), abort.Reason.String(), abort.Reason.Text()), true)
	} else {
		_ = out.control.Flush() // head and beginning are the client's
	}
	panic(http.ErrAbortHandler)
}

// relayWriter writes to a client that may not read.
type relayWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	sent    int
	since   time.Time // of the deadline
}

func (o *relayWriter) write(b []byte, flush bool) (int, error) {
	// small answers fit into the buffers; a deadline a quarter too short costs a system call less for each event
	if o.sent += len(b); flush || o.sent > 4096 {
		if now := time.Now(); now.Sub(o.since) > o.timeout/4 {
			o.since = now
			_ = o.control.SetWriteDeadline(now.Add(o.timeout + o.timeout/4))
		}
	}
	n, err := o.w.Write(b)
	if err == nil && flush {
		if e := o.control.Flush(); e != nil && !isNotSupported(e) {
			err = e
		}
	}
	return n, err
}

// restore takes the deadline away. A server with a WriteTimeout sets its own for the next request.
func (o *relayWriter) restore() {
	if !o.since.IsZero() {
		_ = o.control.SetWriteDeadline(time.Time{})
	}
}
