package pdroute

import (
	"net/http"
	"strings"
)

// Headers that belong to one connection (RFC 9110 §7.6.1), or that the request gets anew.
var ofConnection = map[string]bool{"Host": true, "Content-Length": true, "Transfer-Encoding": true, "Connection": true, "Keep-Alive": true,
	"Proxy-Connection": true, "Expect": true, "Te": true, "Trailer": true, "Upgrade": true, "Http2-Settings": true, "Proxy-Authorization": true}

// namedIn gives the headers that a Connection header names: they end here.
func namedIn(h http.Header) map[string]bool {
	var named map[string]bool
	for _, value := range h["Connection"] {
		for _, name := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' }) {
			if strings.EqualFold(name, "close") || strings.EqualFold(name, "keep-alive") {
				continue
			}
			if named == nil {
				named = make(map[string]bool)
			}
			named[http.CanonicalHeaderKey(name)] = true
		}
	}
	return named
}

// passing gives the client's headers that pass to workers.
func passing(from http.Header, api API) http.Header {
	to := make(http.Header, len(from)+1)
	named := namedIn(from)
	for name, values := range from {
		// an answer whose usage is to be read cannot be compressed
		if ofConnection[name] || named[name] || api != APIOther && name == "Accept-Encoding" || HeaderOwned(name) {
			continue
		}
		to[name] = values
	}
	if _, ok := to["User-Agent"]; !ok {
		to["User-Agent"] = []string{""} // none, instead of net/http's own
	}
	return to
}

// Of a worker's answer: what belongs to its connection, what this server says itself, and what would steer an nginx in
// front of this gateway.
var hidden = map[string]bool{"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Proxy-Authenticate": true, "Date": true, "Server": true, "X-Pad": true, "X-Accel-Expires": true, "X-Accel-Redirect": true,
	"X-Accel-Limit-Rate": true, "X-Accel-Buffering": true, "X-Accel-Charset": true}

// answerHeaders puts a worker's headers into an answer.
func answerHeaders(to, from http.Header, stream bool) {
	named := namedIn(from)
	for name, values := range from {
		if !hidden[name] && !named[name] {
			to[name] = values
		}
	}
	if stream {
		to["X-Accel-Buffering"] = []string{"no"} // an nginx in front must not hold the stream back
	}
	if _, ok := to["Content-Type"]; !ok {
		to["Content-Type"] = nil // what the worker did not say is not guessed
	}
}

// tenant says who pays, if the configuration names a header for that: the first that is there.
func (j *job) tenant() uint64 {
	config := j.h.process.Config()
	name := config.TenantHeader()
	if name == "" {
		return 0
	}
	for _, value := range j.r.Header.Values(name) {
		if t := config.TenantHash(name, value); t != 0 {
			return t
		}
	}
	return 0
}
