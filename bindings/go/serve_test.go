package pdroute_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"libpdroute.test/pdroute"
)

// Handlers that take turns on one socket, as processes do in a reload: no client notices.
func TestServeLosesNoRequest(t *testing.T) {
	block := filepath.Join(t.TempDir(), "block")
	config := []byte(`{"index_entries":4096,"endpoints":[` + worker("prefill") + `,` + worker("decode") + `]}`)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	serve := func() (stop func()) {
		h, err := pdroute.NewHandler(pdroute.HandlerOptions{Block: block, Config: config})
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.FileListener(file)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.Serve(ctx, &http.Server{}, l) }()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	stop := serve()
	var done atomic.Bool
	var answered atomic.Int64
	var clients sync.WaitGroup
	for i := 0; i < 4; i++ {
		clients.Add(1)
		go func() {
			defer clients.Done()
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			for !done.Load() {
				answer, err := client.Post("http://"+socket.Addr().String()+"/v1/chat/completions", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
				if err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				if err != nil || answer.StatusCode != 200 {
					t.Error(answer.StatusCode, string(text), err)
				}
				answered.Add(1)
			}
		}()
	}
	for i := 0; i < 15; i++ {
		for n := answered.Load(); answered.Load() < n+20 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		next := serve()
		stop()
		stop = next
	}
	done.Store(true)
	clients.Wait()
	stop()
}

// A client that connects and says nothing keeps nobody.
func TestServeEndsWithSilentClients(t *testing.T) {
	h, err := pdroute.NewHandler(pdroute.HandlerOptions{Block: filepath.Join(t.TempDir(), "block"), ShutdownTimeout: time.Second,
		Config: []byte(`{"index_entries":4096,"endpoints":[` + worker("prefill") + `,` + worker("decode") + `]}`)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, &http.Server{}, l) }()
	silent, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	time.Sleep(20 * time.Millisecond)
	cancel()
	select {
	case <-ended:
	case <-time.After(8 * time.Second):
		t.Fatal("it does not end")
	}
}

func TestTenantOfAHeader(t *testing.T) {
	c, err := pdroute.ParseConfig([]byte(`{"tenant_header": "X-Team"}`))
	if err != nil || c.Resolve() != nil || c.TenantHeader() != "x-team" {
		t.Fatal(err, c)
	}
	greedy := c.TenantHash("X-Team", "greedy")
	if greedy == 0 || greedy != c.TenantHash("x-team", " greedy ") || greedy == c.TenantHash("x-team", "modest") {
		t.Error(greedy)
	}
	if c.TenantHash("x-teams", "greedy") != 0 || c.TenantHash("x-team", "") != 0 || new(pdroute.Config).TenantHash("x-team", "greedy") != 0 {
		t.Error("a tenant from nowhere")
	}
	if err := c.SetTenantHeader(strings.Repeat("x", 64)); err == nil {
		t.Error("a name that is too long")
	}
	if err := c.SetTenantHeader("a b"); err != nil || c.Resolve() == nil {
		t.Error("a name that cannot be one")
	}
	if n := pdroute.ErrNoPair.Name(); n != "no_pair" || pdroute.ReasonNoPair.Text() == "" || pdroute.ErrSystem.Name() != "internal_error" {
		t.Error(n)
	}
}

func TestServeWithoutSocket(t *testing.T) {
	h, err := pdroute.NewHandler(pdroute.HandlerOptions{Block: filepath.Join(t.TempDir(), "block"),
		Config: []byte(`{"index_entries":4096,"endpoints":[` + worker("prefill") + `,` + worker("decode") + `]}`)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Shutdown(context.Background())
	if err := h.Serve(context.Background(), &http.Server{Addr: "127.0.0.1:no"}); err == nil {
		t.Fatal("served on a port that is none")
	}
}
