// Package pdroute is libpdroute for Go: the routing brain of LLM gateways whose servers do prefill and decode apart.
//
// The bytes of a request go in; which prefill and which decode server, why, and the bytes to send to each come out.
//
//	router, _ := pdroute.NewRouter(nil)         // in memory of its own; OpenBlock: in a file that processes share
//	router.PutEndpoint(&pdroute.Endpoint{…}, pdroute.Now())
//	lease, _ := router.OpenLease("me", pdroute.Now())
//	err := router.Route(body, &pdroute.Request{API: pdroute.APIChat, Lease: lease, NowNs: pdroute.Now()}, &prompt, &decision)
//	legBody, err := decision.LegBody(&prompt, pdroute.LegPrefill, body) // an io.Reader; nothing is copied
//
// There are three ways to use it, from least to most:
//
//   - Router, and what hangs on it: all functions of the C library by their names, for proxies with ways of their own.
//   - Process: one process's use of a block that others share; Route waits, with a context, while a request is held.
//   - Handler: a whole gateway as an http.Handler.
//
// Structs like Decision and Request are laid out as C's, so that calls copy nothing and allocate nothing; units are in
// their fields' names. Errors are *Error or Code; errors.Is finds the codes (ErrNoPair and so on). No Go pointer is kept
// by C: bodies and hashes are borrowed for the call. A call costs 50 to 150 ns more than from C.
//
// The library is found by pkg-config (libpdroute_host.pc), or linked statically with -tags pdroute_static; docs/go.md
// of the library's source says how to get it. Linux, Go 1.21 or newer, cgo.
package pdroute
