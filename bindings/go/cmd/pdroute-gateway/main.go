// pdroute-gateway is a gateway for SGLang prefill/decode clusters in one process of Go: pdroute.Handler with a command
// line. The configuration file is that of the nginx module.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"libpdroute.test/pdroute"
)

var (
	listen   = flag.String("listen", "127.0.0.1:8080", "address to serve on (HTTP/1.1, and HTTP/2 without TLS where Go can: 1.24)")
	secure   = flag.String("tls-listen", "", "address to serve HTTPS on, with -cert and -key")
	cert     = flag.String("cert", "", "PEM file of the certificate")
	key      = flag.String("key", "", "PEM file of its key")
	block    = flag.String("block", "/dev/shm/pdroute/main", "router block, shared by all processes of the gateway")
	config   = flag.String("config", "pdroute.json", "configuration and endpoints, as of the nginx module")
	recreate = flag.Bool("recreate", false, "replace a block of another configuration")
	access   = flag.String("log", "", "file for one JSON line per request")
	within   = flag.Duration("body-timeout", 0, "within which a request's whole body must be there (default 5m)")
	keep     = flag.Duration("keepalive", 0, "how long idle connections to workers are kept (default 4s)")
	probe    = flag.Bool("probe", false, "watch health and load of the workers, unless another process of the block does")
	only     = flag.Bool("t", false, "check the configuration and exit")
	workers  = flag.Int("workers", 0, "worker processes under a supervisor, which SIGHUP lets read the configuration anew; 0: this process serves")
	patience = flag.Duration("shutdown", time.Minute, "how long to wait for requests when told to end")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pdroute-gateway:", err)
		os.Exit(1)
	}
}

func options() pdroute.HandlerOptions {
	o := pdroute.HandlerOptions{Block: *block, ConfigFile: *config, BodyTimeout: *within, KeepAlive: *keep, ShutdownTimeout: *patience}
	if *recreate {
		o.Flags |= pdroute.OpenRecreate
	}
	return o
}

func run() error {
	if *only {
		return pdroute.CheckHandler(options())
	}
	if *workers > 0 && !isWorker() {
		return supervise()
	}
	return serve()
}

func serve() error {
	o := options()
	if *access != "" {
		out, err := os.OpenFile(*access, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			return err
		}
		defer out.Close()
		o.Done = accessLog(out)
	}
	gateway, err := pdroute.NewHandler(o)
	if err != nil {
		return explain(err)
	}
	status := gateway.Status()
	// no ServeMux: it answers a POST to //v1/chat/completions by 301, at which clients ask again by GET
	paths := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/pdroute" || r.URL.Path == "/metrics" {
			status.ServeHTTP(w, r)
			return
		}
		gateway.ServeHTTP(w, r)
	})
	server := &http.Server{Handler: paths, ReadHeaderTimeout: time.Minute, IdleTimeout: 5 * time.Minute}
	unencryptedHTTP2(server)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	defer stop()
	if *probe {
		go func() {
			if err := gateway.Process().Probe(ctx, pdroute.ProbeOptions{Event: logProbe}); err != nil && ctx.Err() == nil {
				slog.Error("probe", "error", err)
			}
		}()
	}
	plain, err := listener(*listen, 0)
	if err != nil {
		return err
	}
	listeners := []net.Listener{plain}
	if *secure != "" {
		pair, err := tls.LoadX509KeyPair(*cert, *key)
		if err != nil {
			return err
		}
		l, err := listener(*secure, 1)
		if err != nil {
			return err
		}
		listeners = append(listeners, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}))
	}
	ready()
	return gateway.Serve(ctx, server, listeners...)
}

// explain adds what helps an operator.
func explain(err error) error {
	for _, code := range []pdroute.Code{pdroute.ErrBlockConfig, pdroute.ErrBlockMagic, pdroute.ErrBlockLayout, pdroute.ErrBlockCorrupt, pdroute.ErrBlockBoot} {
		if errors.Is(err, code) && !*recreate {
			return fmt.Errorf("%w (-recreate replaces it)", err)
		}
	}
	return err
}

func logProbe(e pdroute.ProbeEvent) {
	slog.Info("probe", "server", e.Name, "type", e.Type, "message", e.Message)
}

// accessLog writes a line per request, with what was decided.
func accessLog(out io.Writer) func(*pdroute.Result) {
	var mu sync.Mutex
	return func(r *pdroute.Result) {
		line := map[string]any{"uri": r.Request.URL.RequestURI(), "status": r.Status, "attempts": fmt.Sprint(r.Attempts), "pid": os.Getpid(),
			"prefill": "", "decode": "", "room": "", "hit": "", "why": why(r), "upstream": r.Upstream, "time": r.Duration.Seconds(), "bytes": r.BytesSent}
		if d := r.Decision; r.Decided {
			line["prefill"], line["decode"] = d.Addr(pdroute.LegPrefill), d.Addr(pdroute.LegDecode)
			line["hit"] = fmt.Sprintf("%d/%d", d.MatchedTokens, d.PromptTokens)
			if d.Mode == pdroute.ModePD {
				line["room"] = fmt.Sprint(d.Room)
			}
		}
		if r.Upstream != "" {
			line["upstream_status"] = fmt.Sprint(r.Status)
		}
		text, err := json.Marshal(line)
		if err != nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.Write(append(text, '\n'))
	}
}

func why(r *pdroute.Result) string {
	if !r.Decided {
		return r.Reason
	}
	text := r.Reason
	if text != "" {
		text += ","
	}
	d := r.Decision
	text += fmt.Sprintf("cost=%d,wait=%d,prefill=%d,transfer=%d,decode=%d,pairs=%d", d.CostUs, d.WaitUs, d.PrefillUs, d.TransferUs, d.DecodeUs, d.Candidates)
	if r.Held > 0 {
		text += fmt.Sprintf(",held=%d", r.Held.Microseconds())
	}
	return text
}

// listener listens, or takes the socket that the supervisor opened: number n of those it passes on.
func listener(address string, n int) (net.Listener, error) {
	if isWorker() {
		file := os.NewFile(uintptr(firstSocket+n), address)
		defer file.Close()
		return net.FileListener(file)
	}
	return net.Listen("tcp", address)
}
