package pdroute

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve serves on listeners (none: on server.Addr) until ctx is done or one of them breaks, and then ends without losing
// a request: it stops accepting, waits until every request that has come is in a handler, and shuts down the server and
// h, for which HandlerOptions.ShutdownTimeout is the limit. The listeners are closed. For HTTPS give a listener of
// crypto/tls, with "h2" among its NextProtos for HTTP/2. server.Handler is h if it is nil.
//
// http.Server.Shutdown alone drops requests: a connection that was accepted before, and whose request is read after it
// has begun, is closed without an answer.
func (h *Handler) Serve(ctx context.Context, server *http.Server, listeners ...net.Listener) error {
	if server.Handler == nil {
		server.Handler = h
	}
	if len(listeners) == 0 {
		l, err := net.Listen("tcp", server.Addr)
		if err != nil {
			return err
		}
		listeners = []net.Listener{l}
	}
	var a arrivals
	a.watch(server)
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func(l net.Listener) { ended <- server.Serve(l) }(l)
	}
	var broken error
	left := len(listeners)
	select {
	case broken = <-ended:
		left--
	case <-ctx.Done():
	}
	for _, l := range listeners {
		_ = l.Close()
	}
	for ; left > 0; left-- {
		<-ended // for being closed; now all connections are known
	}
	patient, cancel := context.WithTimeout(context.Background(), h.options.ShutdownTimeout)
	defer cancel()
	server.SetKeepAlivesEnabled(false) // closes those that are idle, and the others after their answers
	a.wait(patient)
	return errors.Join(broken, server.Shutdown(patient), h.Shutdown(patient))
}

// arrivals are the connections of a server that are new, or have sent a request that no handler has yet.
type arrivals struct {
	mu    sync.Mutex
	since map[net.Conn]time.Time
}

type arrivalKey struct{}

const silentAfter = 5 * time.Second // a new connection without a request counts as idle, as for http.Server.Shutdown

func (a *arrivals) watch(server *http.Server) {
	a.since = make(map[net.Conn]time.Time)
	state, inner, handler := server.ConnState, server.ConnContext, server.Handler
	server.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew || s == http.StateActive {
			a.mu.Lock()
			a.since[c] = time.Now()
			a.mu.Unlock()
		} else {
			a.arrived(c)
		}
		if state != nil {
			state(c, s)
		}
	}
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if inner != nil {
			ctx = inner(ctx, c)
		}
		return context.WithValue(ctx, arrivalKey{}, c)
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(arrivalKey{}).(net.Conn); ok {
			a.arrived(c)
		}
		handler.ServeHTTP(w, r)
	})
}

func (a *arrivals) arrived(c net.Conn) {
	a.mu.Lock()
	delete(a.since, c)
	a.mu.Unlock()
}

// wait returns when there are none.
func (a *arrivals) wait(ctx context.Context) {
	for ctx.Err() == nil {
		pending := false
		a.mu.Lock()
		for _, since := range a.since {
			pending = pending || time.Since(since) < silentAfter
		}
		a.mu.Unlock()
		if !pending {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}
