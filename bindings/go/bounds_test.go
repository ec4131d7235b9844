package pdroute

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// fixed is a server that answers everything with a text, as an entry of the configuration.
func fixed(t *testing.T, role, kind, text string, chunked bool) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", kind)
		if !chunked {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		}
		for rest := text; rest != ""; {
			n := min(len(rest), 10000)
			_, _ = io.WriteString(w, rest[:n])
			if rest = rest[n:]; chunked {
				_ = http.NewResponseController(w).Flush()
			}
		}
	}))
	t.Cleanup(s.Close)
	u, _ := url.Parse(s.URL)
	return fmt.Sprintf(`{"role":%q,"host":%q,"port":%s}`, role, u.Hostname(), u.Port())
}

func gatewayOf(t *testing.T, endpoints ...string) string {
	h, err := NewHandler(HandlerOptions{Block: filepath.Join(t.TempDir(), "block"), Config: []byte(`{"index_entries":4096,"endpoints":[` + strings.Join(endpoints, ",") + `]}`)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.Close()
		if err := h.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s.URL
}

const (
	wanted      = `{"text":"a b c","return_logprob":true,"logprob_start_len":0,"sampling_params":{"max_new_tokens":1}}`
	ofPrefill   = `"input_token_logprobs":[[-0.5,1,null],[-0.25,2,null],[-0.125,3,null]]`
	prefillText = `{"text":"","meta_info":{"id":"x",` + ofPrefill + `,"prompt_tokens":3}}`
)

func decodeText(padding int) string {
	return `{"text":"` + strings.Repeat("x", padding) + `","meta_info":{"id":"x","input_token_logprobs":[],"output_token_logprobs":[[-1.0,7,null]],"prompt_tokens":3}}`
}

// What is kept for an answer to be merged is bounded: a longer one, of either leg, passes as decode gave it, to the byte.
func TestMergeIsBounded(t *testing.T) {
	defer func(max int) { mergeMax = max }(mergeMax)
	mergeMax = 100_000
	long := strings.Repeat(" ", mergeMax)
	event := func(text string) string { return "data: " + text + "\n\n" }
	for _, c := range []struct {
		name, kind, prefill, decode string
		merged                      bool
	}{
		{"both short", "application/json", prefillText, decodeText(10), true},
		{"decode's just short enough", "application/json", prefillText, decodeText(mergeMax - len(decodeText(0))), true},
		{"decode's too long by one", "application/json", prefillText, decodeText(mergeMax - len(decodeText(0)) + 1), false},
		{"decode's much too long", "application/json", prefillText, decodeText(5 * mergeMax), false},
		{"prefill's too long", "application/json", prefillText + long, decodeText(10), false},
		{"stream", "text/event-stream", event(prefillText), event(decodeText(10)) + event(decodeText(mergeMax/2)) + event(decodeText(mergeMax*3/4)) + event("[DONE]"), true},
		{"stream, an event too long", "text/event-stream", event(prefillText), event(decodeText(2*mergeMax)) + event("[DONE]"), false},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", c.name, chunked), func(t *testing.T) {
				url := gatewayOf(t, fixed(t, "prefill", c.kind, c.prefill, chunked), fixed(t, "decode", c.kind, c.decode, chunked))
				answer, err := http.Post(url+"/generate", "application/json", strings.NewReader(wanted))
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				text, err := io.ReadAll(answer.Body)
				if err != nil || answer.StatusCode != 200 {
					t.Fatal(answer.StatusCode, err, len(text))
				}
				if merged := strings.Contains(string(text), ofPrefill); merged != c.merged {
					t.Errorf("merged: %v; %d bytes", merged, len(text))
				}
				if !c.merged && string(text) != c.decode {
					t.Errorf("not as decode gave it: %d bytes, not %d", len(text), len(c.decode))
				}
				if c.kind == "application/json" && (c.merged || !chunked) && answer.ContentLength != int64(len(text)) {
					t.Errorf("Content-Length %d of %d bytes", answer.ContentLength, len(text))
				}
			})
		}
	}
}

// A head that says how long its body will be gets no memory for it before it comes.
func TestContentLengthTakesNoMemory(t *testing.T) {
	h, err := NewHandler(HandlerOptions{Block: filepath.Join(t.TempDir(), "block"), Config: []byte(pairOfNobody)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Shutdown(context.Background()) }()
	s := httptest.NewServer(h)
	defer s.Close()
	before := inUse()
	const clients = 32
	for i := 0; i < clients; i++ {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{", 32<<20)
	}
	for end := time.Now().Add(20 * time.Second); h.active.Load() < clients; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("they do not come: ", h.active.Load())
		}
	}
	time.Sleep(50 * time.Millisecond) // each has its first buffer now, or soon, which only helps
	if more := inUse() - before; more > clients*2*bodyStep {
		t.Errorf("%d bytes for %d clients that have said what they will send", more, clients)
	}
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Bodies around the sizes of the buffers arrive whole.
func TestBodiesArriveWhole(t *testing.T) {
	got := make(chan int, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got <- strings.Count(string(text), "y")
		_, _ = io.WriteString(w, "{}")
	}))
	defer s.Close()
	u, _ := url.Parse(s.URL)
	decode := fmt.Sprintf(`{"role":"decode","host":%q,"port":%s}`, u.Hostname(), u.Port())
	gateway := gatewayOf(t, fixed(t, "prefill", "application/json", "{}", false), decode)
	frame := `{"text":""}`
	for _, size := range []int{len(frame) + 1, 1000, bodyStep - 1, bodyStep, bodyStep + 1, 2*bodyStep - 1, 2 * bodyStep, 2*bodyStep + 1, 3 * bodyStep, 9*bodyStep + 7} {
		answer, err := http.Post(gateway+"/generate", "application/json", strings.NewReader(`{"text":"`+strings.Repeat("y", size-len(frame))+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != 200 {
			t.Fatal(size, answer.StatusCode)
		}
		if n := <-got; n != size-len(frame) {
			t.Errorf("%d bytes: %d came", size-len(frame), n)
		}
	}
}
