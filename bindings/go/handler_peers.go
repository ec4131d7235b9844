package pdroute

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// peers are the transports to workers, one for each address: so what is kept for one can be dropped alone, and they
// share no lock.
type peers struct {
	options *HandlerOptions
	dialer  net.Dialer
	all     sync.Map // "scheme://host:port" → *peer
}

type peer struct {
	transport http.Transport
	used      atomic.Int64 // Unix seconds
}

const peerIdle = 60 // seconds after which an address nobody asks for is forgotten

func (p *peers) init(o *HandlerOptions) {
	p.options = o
	p.dialer = net.Dialer{Timeout: o.ConnectTimeout}
}

// patient is a connection that takes what the server takes no more. A server that refuses a body without reading it
// says so before it closes: that is there to be read, where net/http gives up with the first write that fails. Who
// reads then finds the answer or the error.
type patient struct {
	net.Conn
	deaf atomic.Bool
}

func (c *patient) Write(p []byte) (int, error) {
	if c.deaf.Load() {
		return len(p), nil
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		c.deaf.Store(true)
		return len(p), nil
	}
	return n, err
}

func (p *peers) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := p.dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &patient{Conn: c}, nil
}

func (p *peers) get(scheme, addr string) *peer {
	key := scheme + "://" + addr
	found, ok := p.all.Load(key)
	if !ok {
		fresh := new(peer)
		t := &fresh.transport // no proxy, whatever the environment says
		t.DialContext = p.dial
		t.TLSClientConfig = p.options.TLS
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{} // no HTTP/2
		t.TLSHandshakeTimeout = p.options.ConnectTimeout
		t.DisableCompression = true
		t.MaxIdleConnsPerHost = p.options.KeepAlivePerHost
		t.IdleConnTimeout = p.options.KeepAlive
		t.MaxResponseHeaderBytes = 32 << 10
		t.WriteBufferSize = 16 << 10
		t.ReadBufferSize = 16 << 10
		found, _ = p.all.LoadOrStore(key, fresh)
	}
	it := found.(*peer)
	if now := time.Now().Unix(); it.used.Load() != now {
		it.used.Store(now)
	}
	return it
}

// sweep forgets addresses that were not used for a while: pods come and go.
func (p *peers) sweep() {
	limit := time.Now().Unix() - peerIdle
	p.all.Range(func(key, value any) bool {
		if it := value.(*peer); it.used.Load() < limit {
			p.all.Delete(key)
			it.transport.CloseIdleConnections()
		}
		return true
	})
}

func (p *peers) closeIdle() {
	p.all.Range(func(_, value any) bool {
		value.(*peer).transport.CloseIdleConnections()
		return true
	})
}

func isNotSupported(err error) bool { return errors.Is(err, http.ErrNotSupported) }
