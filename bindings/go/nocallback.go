//go:build go1.24

package pdroute

// The library calls nobody back on the way of a request, and keeps no pointer that it was given: calls cost less when
// the compiler knows.

// #cgo nocallback go_route
// #cgo nocallback go_route_prompt
// #cgo nocallback pdr_scan
// #cgo nocallback go_booking_done
// #cgo nocallback pdr_exchange_begin
// #cgo nocallback pdr_exchange_event
// #cgo nocallback pdr_exchange_deadline
// #cgo nocallback pdr_response_feed
// #cgo nocallback pdr_response_mask
// #cgo nocallback pdr_header_owned
// #cgo nocallback pdr_host_wake_pending
// #cgo nocallback pdr_host_now_ns
// #cgo noescape go_route
// #cgo noescape go_route_prompt
// #cgo noescape pdr_scan
// #cgo noescape go_booking_done
// #cgo noescape pdr_exchange_begin
// #cgo noescape pdr_exchange_event
// #cgo noescape pdr_exchange_deadline
// #cgo noescape pdr_response_feed
// #cgo noescape pdr_response_mask
// #cgo noescape pdr_header_owned
// #cgo noescape pdr_host_wake_pending
// #cgo noescape pdr_host_now_ns
// #include <pdroute/host.h>
// #include "calls.h"
import "C"
