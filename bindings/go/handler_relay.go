package pdroute

import (
	"io"
	"net/http"
	"time"
)

// relayed passes a leg's answer to the client, event by event. False: the leg was cancelled before anything was sent.
// Runs in the goroutine of ServeHTTP.
func (j *job) relayed(l *leg) bool {
	<-l.handed
	if !l.given {
		return j.dropped(l)
	}
	defer l.end()
	if j.event(EventSent, l, 0) != legRelay {
		return j.dropped(l)
	}
	j.result.Status, j.result.Upstream = l.status, l.request.URL.Host
	out := &relayWriter{w: j.w, control: http.NewResponseController(j.w), timeout: j.h.options.SendTimeout}
	defer out.restore()
	answerHeaders(j.w.Header(), l.response.Header, l.stream)
	j.w.WriteHeader(l.status)
	flush := l.stream || l.response.ContentLength < 0
	chunk, err := l.first, error(nil)
	for {
		if len(chunk) > 0 {
			n, failed := out.write(chunk, flush)
			j.result.BytesSent += int64(n)
			if failed != nil {
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
		if l.buffer == nil {
			l.buffer = buffers.Get().(*[readSize]byte)
		}
		var n int
		if n, err = l.response.Body.Read(l.buffer[:]); n > 0 {
			chunk = l.buffer[:n]
			l.content(chunk)
		} else {
			chunk = nil
		}
		if !l.bodySeen && n > 0 { // of a 4xx
			l.bodySeen = true
			j.event(EventBody, l, 0)
		}
		if err == io.EOF {
			j.event(EventEnd, l.ended(), 0)
		}
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
		// empty lines first: what was sent last may be half an event
		text := append([]byte("\n\ndata: "), ErrorBody(http.StatusBadGateway, abort.Reason.String(), reasonText(abort.Reason))...)
		_, _ = out.write(append(text, "\n\n"...), true)
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
