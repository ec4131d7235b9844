package pdroute

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Orders that occur by themselves on a busy machine only, for the race detector (go test -race). It takes each call of C
// for a meeting with all others; so what is to be found here must not lie behind one.

// workerOf starts a server, and gives its entry in the configuration.
func workerOf(t *testing.T, role string, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"role":%q,"host":%q,"port":%s}`, role, u.Hostname(), u.Port())
}

func handlerOf(t *testing.T, servers ...string) *Handler {
	t.Helper()
	h, err := NewHandler(HandlerOptions{Block: filepath.Join(t.TempDir(), "block"),
		Config: []byte(`{"index_entries":4096,"endpoints":[` + strings.Join(servers, ",") + `]}`)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
	}
}

// What Shutdown waits for uses the block no more when it has been counted out: prefill's answer, which is read to its end when the client
// has had decode's for long.
func TestCountedOutIsOut(t *testing.T) {
	for i := 0; i < 5; i++ {
		last := make(chan struct{})
		h := handlerOf(t, workerOf(t, "decode", say(`{"text":"hi"}`)), workerOf(t, "prefill", func(w http.ResponseWriter, r *http.Request) {
			say(`{"text":`)(w, r)
			<-last
			say(`"hi"}`)(w, r)
		}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/generate", strings.NewReader(`{"text":"hi"}`)))
		if n := h.active.Load(); w.Code != 200 || n != 1 {
			t.Error(w.Code, w.Body, n)
		}
		close(last)
		for h.active.Load() != 0 {
			runtime.Gosched()
		}
		block := h.process
		h.process = nil // as Shutdown closes it
		time.Sleep(10 * time.Millisecond)
		h.process = block
		if err := h.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// pausing is an answer's body that comes late.
type pausing struct{ io.Reader }

func (p pausing) Read(b []byte) (int, error) {
	time.Sleep(20 * time.Millisecond) // without a meeting
	return p.Reader.Read(b)
}
func (pausing) Close() error { return nil }

// A leg of an attempt that failed gets the rest of its answer while another pair is chosen.
func TestLegOfAnotherAttempt(t *testing.T) {
	h := handlerOf(t, workerOf(t, "prefill", say("{}")), workerOf(t, "decode", say("{}")))
	defer func() { _ = h.Shutdown(context.Background()) }()
	j := &job{h: h, r: httptest.NewRequest("POST", "/generate", nil), api: APIGenerate, body: []byte(`{"text":"hi"}`), wake: make(chan struct{}, 1)}
	if err := j.scan(); err != nil {
		t.Fatal(err)
	}
	old := &leg{job: j, which: LegPrefill, state: legCancelled, connected: make(chan struct{}), cancel: func() {},
		response: &http.Response{Body: pausing{strings.NewReader("{}")}}}
	ended := make(chan legState)
	go func() { ended <- old.read(legOpen) }()
	j.mu.Lock()
	j.reroute()
	j.mu.Unlock()
	if state := <-ended; state != legCancelled {
		t.Error(state)
	}
	if j.decision.Outcome != Send || h.process.Router().CancelTicket(j.decision.Booking, Now()) != nil {
		t.Error("no pair was chosen")
	}
}

// resetWriter is what a stream of HTTP/2 is to its handler when the client resets it: Write returns while another goroutine of net/http
// still has the piece to write (http2serverConn.writeDataFromHandler).
type resetWriter struct {
	*httptest.ResponseRecorder
	piece []byte
}

func (w *resetWriter) Write(p []byte) (int, error) {
	w.piece = p
	return 0, errors.New("stream closed")
}

// The memory of a piece that could not be written is nobody else's.
func TestResetStreamKeepsItsPiece(t *testing.T) {
	h := handlerOf(t, workerOf(t, "both", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte(r.URL.Path[1:]), 16<<10))
	}))
	defer func() { _ = h.Shutdown(context.Background()) }()
	for i := 0; i < 20; i++ {
		reset := &resetWriter{ResponseRecorder: httptest.NewRecorder()}
		func() {
			defer func() {
				if e := recover(); e != http.ErrAbortHandler {
					t.Error("it was not aborted:", e)
				}
			}()
			h.ServeHTTP(reset, httptest.NewRequest("GET", "/a", nil))
		}()
		for k := 0; k < 4; k++ {
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, httptest.NewRequest("GET", "/b", nil)); w.Code != 200 || w.Body.Len() != 16<<10 {
				t.Fatal(w.Code, w.Body.Len())
			}
		}
		if len(reset.piece) == 0 || bytes.Count(reset.piece, []byte("a")) != len(reset.piece) {
			t.Fatal("the piece is another answer's now")
		}
	}
}
