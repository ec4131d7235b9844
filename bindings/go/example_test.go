package pdroute_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"libpdroute.test/pdroute"
)

func Example() {
	router, err := pdroute.NewRouter(&pdroute.Config{Seed: 1}) // a seed of 0 is taken from the system
	if err != nil {
		fmt.Println(err)
		return
	}
	defer router.Close()
	now := pdroute.Now()
	for i, role := range []pdroute.Role{pdroute.RolePrefill, pdroute.RolePrefill, pdroute.RoleDecode} {
		if _, err := router.PutEndpoint(&pdroute.Endpoint{Role: role, Host: fmt.Sprintf("10.0.0.%d", i+1), Port: 8000}, now); err != nil {
			fmt.Println(err)
			return
		}
	}
	lease, err := router.OpenLease("example", now)
	if err != nil {
		fmt.Println(err)
		return
	}

	body := []byte(`{"model": "/models/Qwen3-32B", "messages": [{"role": "user", "content": "你好,这是一个测试"}], "max_tokens": 50 }`)
	var prompt pdroute.Prompt
	var d pdroute.Decision
	if err := router.Route(body, &pdroute.Request{API: pdroute.APIChat, Lease: lease, NowNs: now}, &prompt, &d); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("prefill", d.Addr(pdroute.LegPrefill), "decode", d.Addr(pdroute.LegDecode))
	leg, err := d.LegBody(&prompt, pdroute.LegPrefill, body)
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := io.ReadAll(leg)
	fmt.Println(strings.Replace(string(text), fmt.Sprint(d.Room), "ROOM", 1))
	_ = router.EndBooking(d.Booking, pdroute.DoneAll, pdroute.Now()) // when both have answered
	// Output:
	// prefill 10.0.0.1:8000 decode 10.0.0.3:8000
	// {"model": "/models/Qwen3-32B", "messages": [{"role": "user", "content": "你好,这是一个测试"}], "max_tokens": 50,"bootstrap_host":"10.0.0.1","bootstrap_port":8998,"bootstrap_room":ROOM }
}

func ExampleError() {
	var prompt pdroute.Prompt
	err := pdroute.Scan([]byte("{\"messages\": [\n}"), pdroute.APIChat, nil, &prompt, nil)
	fmt.Println(errors.Is(err, pdroute.ErrParse), pdroute.HTTPStatus(err))
	fmt.Println(err)
	// Output:
	// true 400
	// pdroute: '}' is found where a value was expected (byte offset 15, line 2)
}

func ExampleNewResponseReader() {
	answer := strings.NewReader("data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n")
	r := pdroute.NewResponseReader(answer, pdroute.ResponseSSE)
	_, _ = io.Copy(io.Discard, r)
	fmt.Println(r.Events, "events,", r.PromptTokens, "prompt tokens, done:", r.Flags&pdroute.SeenDone != 0)
	// Output: 3 events, 7 prompt tokens, done: true
}

// A request that is held waits for other requests to end, or for its context.
func ExampleProcess_Route() {
	dir, _ := os.MkdirTemp("", "pdroute")
	defer os.RemoveAll(dir)
	p, err := pdroute.OpenProcess(pdroute.ProcessOptions{Path: filepath.Join(dir, "block"), Config: &pdroute.Config{HoldWindowTokens: 1, IndexEntries: 4096}, Flags: pdroute.OpenCreate})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer p.Close()
	_, _ = p.Apply([]byte(`{"endpoints":[{"role":"prefill","host":"10.0.0.1","port":8000},{"role":"decode","host":"10.0.0.2","port":8000}]}`), 0)
	route := func(ctx context.Context, d *pdroute.Decision) error {
		var prompt pdroute.Prompt
		var hashes [64]uint64
		if err := pdroute.Scan([]byte(`{"text":"`+strings.Repeat("a long prompt ", 300)+`"}`), pdroute.APIGenerate, nil, &prompt, hashes[:]); err != nil {
			return err
		}
		_, err := p.Route(ctx, &prompt, hashes[:prompt.Blocks], &pdroute.Request{API: pdroute.APIGenerate}, d)
		return err
	}
	var first, second pdroute.Decision
	fmt.Println(route(context.Background(), &first))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	fmt.Println(route(ctx, &second)) // the only prefill server is busy
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		time.Sleep(10 * time.Millisecond)
		_ = p.Router().EndBooking(first.Booking, pdroute.DoneAll, pdroute.Now())
		p.Block().WakePending()
	}()
	fmt.Println(route(context.Background(), &second))
	<-ended // Close is for when nobody uses the process any more
	// Output:
	// <nil>
	// context deadline exceeded
	// <nil>
}

// A whole gateway.
func ExampleHandler() {
	dir, _ := os.MkdirTemp("", "pdroute")
	defer os.RemoveAll(dir)
	gateway, err := pdroute.NewHandler(pdroute.HandlerOptions{
		Block:  filepath.Join(dir, "block"),                                                                          // in production /dev/shm/pdroute/NAME
		Config: []byte(`{"index_entries": 4096, "endpoints": [` + worker("prefill") + `,` + worker("decode") + `]}`), // or ConfigFile
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/", gateway)
	mux.Handle("/metrics", gateway.Status())
	server := httptest.NewServer(mux) // or http.ListenAndServe
	defer server.Close()

	answer, err := http.Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	text, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	fmt.Println(answer.StatusCode, string(text))
	server.Close()
	fmt.Println(gateway.Shutdown(context.Background()))
	// Output:
	// 200 {"answer":"from decode"}
	// <nil>
}

// worker starts a server that answers everything, and gives its entry in the configuration.
func worker(role string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"answer":"from %s"}`, role)
	}))
	u, _ := url.Parse(s.URL)
	return fmt.Sprintf(`{"role":%q,"host":%q,"port":%s}`, role, u.Hostname(), u.Port())
}
