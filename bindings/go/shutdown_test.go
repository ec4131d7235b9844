package pdroute

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const pairOfNobody = `{"index_entries":4096,"endpoints":[{"role":"prefill","host":"127.0.0.1","port":9},{"role":"decode","host":"127.0.0.1","port":10}]}`

// A probe that runs does not see the block go away under it.
func TestCloseEndsProbe(t *testing.T) {
	for _, wait := range []time.Duration{0, 30 * time.Millisecond} {
		p, err := OpenProcess(ProcessOptions{Path: filepath.Join(t.TempDir(), "block"), Config: &Config{IndexEntries: 4096}, Flags: OpenCreate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Apply([]byte(pairOfNobody), 0); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 2)
		for i := 0; i < 2; i++ { // one probes, one waits for its turn
			go func() { ended <- p.Probe(context.Background(), ProbeOptions{}) }()
		}
		time.Sleep(wait)
		p.Close()
		for i := 0; i < 2; i++ {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("a probe outlives its process")
			}
		}
	}
}

// What comes after Shutdown is answered, and does not touch the block that is gone.
func TestRequestsAfterShutdown(t *testing.T) {
	h, err := NewHandler(HandlerOptions{Block: filepath.Join(t.TempDir(), "block"), Config: []byte(pairOfNobody)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(to http.Handler, method, path string) int {
		w := httptest.NewRecorder()
		to.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(`{"text":"hi"}`)))
		return w.Code
	}
	if s := ask(h.Status(), "GET", "/metrics"); s != 200 {
		t.Fatal(s)
	}
	if err := h.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/generate", "/readiness", "/other"} {
		method := "GET"
		if path == "/generate" {
			method = "POST"
		}
		if s := ask(h, method, path); s != 503 {
			t.Error(path, s)
		}
	}
	if s := ask(h.Status(), "GET", "/pdroute"); s != 503 {
		t.Error(s)
	}
	if err := h.Shutdown(context.Background()); err != nil {
		t.Error("a second Shutdown:", err)
	}
}
