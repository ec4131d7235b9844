package pdroute

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// HandlerOptions say what a gateway is made from. Zero means the default (in brackets).
type HandlerOptions struct {
	Block      string    // path of the block file
	Config     []byte    // JSON: pdr_config and endpoints
	ConfigFile string    // a file with that, if Config is nil
	Flags      OpenFlags // beside OpenCreate and OpenRestore, which are always there

	ConnectTimeout   time.Duration // [5 s]
	BodyTimeout      time.Duration // within which a request's whole body must be there, however it comes [5 min]
	SendTimeout      time.Duration // longest wait for a client that does not read its stream [60 s]
	KeepAlive        time.Duration // how long idle connections to workers are kept [4 s; SGLang's server closes them after 5]
	KeepAlivePerHost int           // idle connections per worker [256]
	ShutdownTimeout  time.Duration // how long Serve waits for requests when it is to end [60 s]
	TLS              *tls.Config   // for workers with EndpointTLS [the system's authorities]

	Logger *slog.Logger      // [slog.Default()]
	Done   func(req *Result) // called at the end of each request that is not answered locally
}

// Result is what became of a request.
type Result struct {
	Request      *http.Request
	Status       int    // 499: the client left
	Reason       string // why the gateway answered by itself, empty: it did not
	Upstream     string // "host:port" whose answer was passed on
	Decided      bool   // the following is set
	Decision     *Decision
	Attempts     int           // pairs tried
	Held         time.Duration // in the queue
	Duration     time.Duration
	BytesSent    int64
	PromptTokens uint64 // as the engine reports, 0: not seen
	CachedTokens uint64
	OutputTokens uint64
}

// Handler is a whole gateway as an http.Handler: it routes each request, sends both legs their copy, passes decode's
// answer on as it comes, and does what the exchange says when something breaks. It decides nothing itself.
//
// POST /v1/chat/completions, /v1/completions and /generate go to a prefill and a decode server at once; /liveness,
// /readiness and /health are answered here; all other paths go to one server. Status has the status pages.
type Handler struct {
	process *Process
	options HandlerOptions
	limits  *Limits
	log     *slog.Logger
	peers   peers
	scans   sync.Pool    // *[]uint64 of MaxBlocks
	active  atomic.Int64 // jobs that are not over, drains included, and status pages being made
	down    atomic.Bool  // Shutdown is through: the block may be gone
	quit    chan struct{}
}

func (o *HandlerOptions) resolve() error {
	if o.ConnectTimeout <= 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	if o.BodyTimeout <= 0 {
		o.BodyTimeout = 5 * time.Minute
	}
	if o.SendTimeout <= 0 {
		o.SendTimeout = time.Minute
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = 4 * time.Second
	}
	if o.KeepAlivePerHost <= 0 {
		o.KeepAlivePerHost = 256
	}
	if o.ShutdownTimeout <= 0 {
		o.ShutdownTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Config == nil && o.ConfigFile != "" {
		text, err := os.ReadFile(o.ConfigFile)
		if err != nil {
			return err
		}
		o.Config = text
	}
	return nil
}

// where puts a file's name and line in front of an error.
func (o *HandlerOptions) where(err error) error {
	var e *Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	name := o.ConfigFile
	if name == "" {
		name = "configuration"
	}
	if e.Line != 0 {
		return fmt.Errorf("%s:%d: %s%w", name, e.Line, e.Message, silent{e})
	}
	return fmt.Errorf("%s: %s%w", name, e.Message, silent{e})
}

// silent is an error whose text was said already.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// CheckHandler looks at a configuration, endpoints included, on a router of its own; nothing is left behind.
func CheckHandler(o HandlerOptions) error {
	if err := o.resolve(); err != nil {
		return err
	}
	config, err := ParseConfig(o.Config)
	if err != nil {
		return o.where(err)
	}
	router, err := NewRouter(config)
	if err != nil {
		return o.where(err)
	}
	defer router.Close()
	_, err = router.Apply(o.Config, 0, 1)
	return o.where(err)
}

// NewHandler checks the configuration, opens the block and begins to use it.
func NewHandler(o HandlerOptions) (*Handler, error) {
	if err := o.resolve(); err != nil {
		return nil, err
	}
	if err := CheckHandler(o); err != nil {
		return nil, err
	}
	config, err := ParseConfig(o.Config)
	if err != nil {
		return nil, o.where(err)
	}
	if err := config.Resolve(); err != nil {
		return nil, o.where(err)
	}
	followed := func(r *Router) {
		if _, err := r.Apply(o.Config, 0, Now()); err != nil {
			o.Logger.Error("pdroute: the new block has no servers", "error", o.where(err))
		}
	}
	p, err := OpenProcess(ProcessOptions{Path: o.Block, Config: config, Flags: o.Flags | OpenCreate | OpenRestore, Logger: o.Logger, Followed: followed})
	if err != nil {
		return nil, err
	}
	if _, err := p.Apply(o.Config, 0); err != nil {
		p.Close()
		return nil, o.where(err)
	}
	h := &Handler{process: p, options: o, limits: config.Limits(), log: o.Logger, quit: make(chan struct{})}
	h.scans.New = func() any { s := make([]uint64, config.MaxBlocks); return &s }
	h.peers.init(&h.options)
	go h.sweep()
	return h, nil
}

// Process is the handler's use of its block.
func (h *Handler) Process() *Process { return h.process }

func (h *Handler) sweep() {
	t := time.NewTicker(10 * time.Second)
	defer t.Stop()
	for {
		select {
		case <-h.quit:
			return
		case <-t.C:
			h.peers.sweep()
		}
	}
}

// Shutdown waits until no request is under way, drains of prefill answers included, or until ctx is done; then it ends
// the use of the block, and what comes later is answered with 503.
//
// Serve does that and more. Who serves in another way shuts his server down first: an answer is on its way to the client
// when http.Server.Shutdown has returned, not yet when the handler has.
func (h *Handler) Shutdown(ctx context.Context) error {
	err := h.settle(ctx)
	if h.down.Swap(true) {
		return err
	}
	if err == nil {
		err = h.settle(ctx) // who came in between
	}
	close(h.quit)
	h.peers.closeIdle()
	if err == nil {
		h.process.Close()
	} // else requests still use the block: the kernel unmaps it, and the lease ends with the process
	return err
}

// settle waits until nothing is under way.
func (h *Handler) settle(ctx context.Context) error {
	for h.active.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// enter begins the use of the block by a request, which h.active.Add(-1) ends. false: it is over, and that was answered.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request) bool {
	h.active.Add(1)
	if !h.down.Load() {
		return true
	}
	h.active.Add(-1)
	w.Header().Set("Connection", "close")
	answer(w, r, http.StatusServiceUnavailable, "application/json", ErrorBody(http.StatusServiceUnavailable, "shutting_down", "the gateway is being shut down"), 1000)
	return false
}

// ---------------------------------------------------------------------------------------------------------------- entry

func apiOf(path string) API {
	switch path {
	case "/v1/chat/completions":
		return APIChat
	case "/v1/completions":
		return APICompletions
	case "/generate":
		return APIGenerate
	}
	return APIOther
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.enter(w, r) {
		return
	}
	if h.local(w, r) {
		h.active.Add(-1)
		return
	}
	j := &job{h: h, w: w, r: r, api: apiOf(r.URL.Path), wake: make(chan struct{}, 1)}
	began := time.Now()
	defer j.leave()
	if h.options.Done != nil {
		defer func() {
			j.result.Duration = time.Since(began)
			h.options.Done(&j.result)
		}()
	}
	j.result.Request = r
	if r.Method == http.MethodConnect {
		w.Header().Set("Allow", "GET, POST")
		j.respond(http.StatusMethodNotAllowed, "method_not_allowed", "this gateway is no tunnel", 0)
		return
	}
	// SGLang takes PUT on /generate as well
	if j.api != APIOther && r.Method != http.MethodPost && !(j.api == APIGenerate && r.Method == http.MethodPut) {
		w.Header().Set("Allow", http.MethodPost)
		j.respond(http.StatusMethodNotAllowed, "method_not_allowed", "this path takes POST requests", 0)
		return
	}
	if err := j.readBody(); err != nil {
		var tooLarge *Error
		if errors.As(err, &tooLarge) {
			j.respondError(err)
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			w.Header().Set("Connection", "close")
			j.respond(http.StatusRequestTimeout, "request_timeout", "the body was not there in time", 0)
		} else {
			j.result.Status = 499
			panic(http.ErrAbortHandler)
		}
		return
	}
	if err := j.scan(); err != nil {
		if encoding := r.Header.Get("Content-Encoding"); errors.Is(err, ErrParse) && encoding != "" && !strings.EqualFold(encoding, "identity") {
			j.respond(http.StatusUnsupportedMediaType, "unsupported_media_type", "the body is compressed (Content-Encoding), which is not understood here: send it as it is", 0)
			return
		}
		j.respondError(err)
		return
	}
	j.route()
}

const bodyStep = 256 << 10 // memory that a client's word on a body's length gets at once

// readBody reads the whole body, in one piece of memory, which grows with what has come: a Content-Length alone costs
// bodyStep at most.
func (j *job) readBody() (err error) {
	h := j.h
	max := h.limits.MaxBody
	n := j.r.ContentLength
	if n > 0 && uint64(n) > max {
		return &Error{Code: ErrTooLarge, Message: fmt.Sprintf("the body has %d bytes, at most %d are taken", n, max)}
	}
	if n == 0 {
		return nil
	}
	control := http.NewResponseController(j.w) // whose connection knows no deadlines (a test's) has none
	if control.SetReadDeadline(time.Now().Add(h.options.BodyTimeout)) == nil {
		defer func() {
			if !errors.Is(err, os.ErrDeadlineExceeded) { // else what is still to come is not waited for either
				_ = control.SetReadDeadline(time.Time{})
			}
		}()
	}
	if n > 0 {
		for step := int64(bodyStep); ; step *= 2 {
			have := len(j.body)
			b := make([]byte, min(n, step))
			copy(b, j.body)
			j.body = b
			if _, err = io.ReadFull(j.r.Body, b[have:]); err != nil || int64(len(b)) == n {
				return err
			}
		}
	}
	// its length is not known: a little more than allowed says that it is too much
	b := make([]byte, 0, 16384)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		k, err := j.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+k]
		if uint64(len(b)) > max {
			return &Error{Code: ErrTooLarge, Message: fmt.Sprintf("the body has more than %d bytes", max)}
		}
		if err == io.EOF {
			j.body = b
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// isObject says whether an engine could take the body of a path without PD for a JSON object, and so find owned members
// in it: behind white space, and behind a byte order mark or the zeros of UTF-16 and UTF-32, which Python's json takes
// as well.
func isObject(body []byte, contentType string) bool {
	i := 0
	for i < len(body) && (body[i] == ' ' || body[i] >= '\t' && body[i] <= '\r' || body[i] == 0 || strings.IndexByte("\xef\xbb\xbf\xfe\xff", body[i]) >= 0) {
		i++
	}
	if i == len(body) || body[i] == '[' {
		return false
	}
	return body[i] == '{' || strings.Contains(strings.ToLower(contentType), "json")
}

func (j *job) scan() error {
	j.prompt.API = j.api
	if j.api == APIOther && !isObject(j.body, j.r.Header.Get("Content-Type")) {
		j.raw = true // nothing to cut out
		return nil
	}
	hashes := j.h.scans.Get().(*[]uint64)
	defer j.h.scans.Put(hashes)
	if err := Scan(j.body, j.api, j.h.limits, &j.prompt, *hashes); err != nil {
		return err
	}
	j.hashes = append([]uint64(nil), (*hashes)[:j.prompt.Blocks]...) // for a retry, or when a held request is taken
	return nil
}

func (j *job) route() {
	q := Request{API: j.api, Tenant: j.tenant()}
	held, err := j.h.process.Route(j.r.Context(), &j.prompt, j.hashes, &q, &j.decision)
	j.result.Held = held
	if err != nil {
		if j.r.Context().Err() != nil {
			j.result.Status = 499
			panic(http.ErrAbortHandler)
		}
		j.respondError(err)
		return
	}
	j.run()
}

// ------------------------------------------------------------------------------------------------------ answers of ours

func (j *job) respondError(err error) {
	code := codeOf(err)
	message := strings.TrimPrefix(err.Error(), "pdroute: ")
	var e *Error
	if errors.As(err, &e) {
		message = e.Message
		if e.Line > 0 { // a place in the body
			message = fmt.Sprintf("%s (byte offset %d, line %d)", message, e.Offset, e.Line)
		}
	}
	retry := uint64(0)
	if code == ErrNoPair || code == ErrQueueFull || code == ErrExpired {
		retry = j.decision.RetryAfterMs
		if retry == 0 && code != ErrExpired {
			retry = 1000
		}
	}
	j.respond(code.HTTPStatus(), code.Name(), message, retry)
}

// respond answers with an error in OpenAI's shape.
func (j *job) respond(status int, code, message string, retryAfterMs uint64) {
	j.result.Status, j.result.Reason = status, code
	answer(j.w, j.r, status, "application/json", ErrorBody(status, code, message), retryAfterMs)
}

func answer(w http.ResponseWriter, r *http.Request, status int, contentType string, body []byte, retryAfterMs uint64) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if retryAfterMs != 0 {
		w.Header().Set("Retry-After", strconv.FormatUint((retryAfterMs+999)/1000, 10))
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

func getOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	answer(w, r, http.StatusMethodNotAllowed, "application/json", ErrorBody(http.StatusMethodNotAllowed, "method_not_allowed", "this path takes GET requests"), 0)
	return false
}

// local answers paths that concern the gateway itself: whether it runs, and whether a request would find a pair.
func (h *Handler) local(w http.ResponseWriter, r *http.Request) bool {
	ready := true
	switch r.URL.Path {
	case "/readiness", "/health":
		ready = h.process.Router().Ready(Now())
	case "/liveness":
	default:
		return false
	}
	if !getOnly(w, r) {
		return true
	}
	if ready {
		answer(w, r, http.StatusOK, "application/json", []byte("{\"status\":\"ok\"}\n"), 0)
	} else {
		answer(w, r, http.StatusServiceUnavailable, "application/json", []byte("{\"status\":\"no prefill and decode server is available at present\"}\n"), 1000)
	}
	return true
}

// Status is the status page: JSON; Prometheus text with ?format=prometheus, under a path that ends in /metrics, or for a
// client that accepts text/plain first. Names of servers are in it: it is not for everybody.
func (h *Handler) Status() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !getOnly(w, r) || !h.enter(w, r) {
			return
		}
		defer h.active.Add(-1)
		if wantsPrometheus(r) {
			text, err := h.process.Router().StatusPrometheus(Now())
			h.statusPage(w, r, "text/plain; version=0.0.4; charset=utf-8", text, err)
			return
		}
		text, err := h.process.Router().StatusJSON(Now())
		h.statusPage(w, r, "application/json", text, err)
	})
}

func (h *Handler) statusPage(w http.ResponseWriter, r *http.Request, contentType string, text []byte, err error) {
	if err != nil {
		answer(w, r, HTTPStatus(err), "application/json", ErrorBody(HTTPStatus(err), "internal_error", err.Error()), 0)
		return
	}
	answer(w, r, http.StatusOK, contentType, text, 0)
}

func wantsPrometheus(r *http.Request) bool {
	if format := r.URL.Query().Get("format"); format != "" {
		return format == "prometheus"
	}
	accept := strings.ToLower(r.Header.Get("Accept"))
	return strings.HasSuffix(r.URL.Path, "/metrics") || strings.HasPrefix(accept, "text/plain") || strings.Contains(accept, "openmetrics")
}
