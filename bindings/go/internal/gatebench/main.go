// gatebench measures gateways in Go side by side: requests per CPU-second of the gateway's process, for pdroute.Handler
// (two legs, the whole decision) and httputil.ReverseProxy (one leg, no decision), in one run. Workers and clients are
// in this process.
//
//	gatebench [-n 3000] [-rounds 3] GATEWAY          GATEWAY is pdroute-gateway
//	gatebench -rss 200000 GATEWAY                    resident memory while that many requests pass
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	requests = flag.Int("n", 3000, "requests per round")
	rounds   = flag.Int("rounds", 3, "rounds per gateway and size; the median counts")
	clients  = flag.Int("clients", 8, "at once")
	rss      = flag.Int("rss", 0, "look at memory over this many requests instead")
	proxy    = flag.String("proxy", "", "be a httputil.ReverseProxy: LISTEN,WORKER")
)

func main() {
	flag.Parse()
	if *proxy != "" {
		listen, worker, _ := strings.Cut(*proxy, ",")
		p := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: worker})
		p.Transport = &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
		log.Fatal(http.ListenAndServe(listen, p))
	}
	prefill, decode := worker(), worker()
	gateway := start(flag.Arg(0), prefill, decode)
	defer gateway.stop()
	if *rss > 0 {
		memory(gateway)
		return
	}
	self, err := os.Executable()
	check(err)
	address := free()
	plain := run(address, self, "-proxy", address+","+decode)
	defer plain.stop()
	fmt.Println("| body | ReverseProxy, one leg | Handler, both legs | ratio |\n|---|---|---|---|")
	for _, size := range []int{1_000, 17_000, 132_000} {
		body := []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", size/5) + `"}],"max_tokens":5}`)
		var a, b []float64
		for i := 0; i < *rounds; i++ {
			a = append(a, plain.rate(body, *requests))
			b = append(b, gateway.rate(body, *requests))
		}
		sort.Float64s(a)
		sort.Float64s(b)
		one, two := a[len(a)/2], b[len(b)/2]
		fmt.Printf("| %d KB | %.0f | %.0f | %.2f |\n", size/1000, one, two, two/one)
	}
}

// memory prints what the gateway holds; what it grows by after the first tenth is a leak, or shows that there is none.
func memory(g *process) {
	body := []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", 200) + `"}],"max_tokens":5}`)
	for i := 0; i <= 10; i++ {
		fmt.Printf("%d requests: %d KiB\n", i**rss/10, g.resident())
		if i < 10 {
			g.rate(body, *rss/10)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func free() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	defer l.Close()
	return l.Addr().String()
}

// worker answers everything as an engine's chat path does, at once.
func worker() string {
	answer := []byte(`{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer)
	}))
	return l.Addr().String()
}

type process struct {
	cmd     *exec.Cmd
	address string
	dir     string
	client  *http.Client
}

func run(address, program string, arguments ...string) *process {
	p := &process{cmd: exec.Command(program, arguments...), address: address, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	p.cmd.Stderr = os.Stderr
	check(p.cmd.Start())
	for i := 0; ; i++ {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return p
		}
		if i > 500 {
			log.Fatal(program, " does not listen")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func start(program, prefill, decode string) *process {
	dir, err := os.MkdirTemp("", "gatebench")
	check(err)
	endpoint := func(role, address string) string {
		host, port, _ := net.SplitHostPort(address)
		return fmt.Sprintf(`{"role":%q,"host":%q,"port":%s}`, role, host, port)
	}
	config := filepath.Join(dir, "config.json")
	check(os.WriteFile(config, []byte(`{"index_entries":65536,"hold":"off","endpoints":[`+endpoint("prefill", prefill)+`,`+endpoint("decode", decode)+`]}`), 0o600))
	address := free()
	p := run(address, program, "-listen", address, "-block", filepath.Join(dir, "block"), "-config", config)
	p.dir = dir
	return p
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	os.RemoveAll(p.dir)
}

// cpu is the time that the process has used, in seconds.
func (p *process) cpu() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	check(err)
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

func (p *process) resident() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	check(err)
	pages, _ := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize() / 1024
}

// rate sends n requests and gives how many a second of the process's CPU time was enough for.
func (p *process) rate(body []byte, n int) float64 {
	before := p.cpu()
	var wg sync.WaitGroup
	for c := 0; c < *clients; c++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; i < n / *clients; i++ {
				answer, err := p.client.Post("http://"+p.address+"/v1/chat/completions", "application/json", bytes.NewReader(body))
				check(err)
				_, _ = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				if answer.StatusCode != 200 {
					log.Fatal(answer.Status)
				}
			}
		}()
	}
	wg.Wait()
	return float64(n / *clients * *clients) / (p.cpu() - before)
}
