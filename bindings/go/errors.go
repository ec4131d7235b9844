package pdroute

// #include <pdroute/host.h>
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// Code is an error code of the library. The codes are errors themselves, so that they serve as sentinels:
//
//	if errors.Is(err, pdroute.ErrNoPair) { … }
type Code int32

// The library's codes; pdroute.h says what each means.
const (
	ErrInvalid      Code = C.PDR_E_INVALID       // an argument is wrong: a bug in the caller
	ErrVersion      Code = C.PDR_E_VERSION       // header and library do not fit together
	ErrNoSpace      Code = C.PDR_E_NOSPACE       // a buffer is too small
	ErrParse        Code = C.PDR_E_PARSE         // text is not what it must be; Offset and Line say where
	ErrTooLarge     Code = C.PDR_E_TOO_LARGE     // a size limit was passed
	ErrTooDeep      Code = C.PDR_E_TOO_DEEP      // nested deeper than max_depth
	ErrUnsupported  Code = C.PDR_E_UNSUPPORTED   // understood, but the engine protocol cannot do it
	ErrNoPair       Code = C.PDR_E_NO_PAIR       // no usable pair of servers at present
	ErrQueueFull    Code = C.PDR_E_QUEUE_FULL    // all busy, and the queue of held requests is full
	ErrNotFound     Code = C.PDR_E_NOT_FOUND     // no such endpoint, booking, ticket, lease or record (any more)
	ErrExists       Code = C.PDR_E_EXISTS        // the address belongs to another name
	ErrFull         Code = C.PDR_E_FULL          // a table of the block is full
	ErrBusy         Code = C.PDR_E_BUSY          // the lock could not be had in time
	ErrLease        Code = C.PDR_E_LEASE         // the lease is unknown or has expired
	ErrAgain        Code = C.PDR_E_AGAIN         // the ticket is still held
	ErrExpired      Code = C.PDR_E_EXPIRED       // the ticket's deadline passed while it was held
	ErrBlockMagic   Code = C.PDR_E_BLOCK_MAGIC   // not a router block
	ErrBlockLayout  Code = C.PDR_E_BLOCK_LAYOUT  // of another layout version or size
	ErrBlockConfig  Code = C.PDR_E_BLOCK_CONFIG  // made with another configuration
	ErrBlockBoot    Code = C.PDR_E_BLOCK_BOOT    // from before a reboot
	ErrBlockCorrupt Code = C.PDR_E_BLOCK_CORRUPT // an invariant does not hold
	ErrSystem       Code = C.PDR_E_SYSTEM        // a system call failed
)

// codeOK is what the library calls success; there is no error for it.
const codeOK = C.PDR_OK

func (c Code) Error() string { return "pdroute: " + C.GoString(C.pdr_strerror(C.int(c))) }

// HTTPStatus is the status that a gateway should answer for the code.
func (c Code) HTTPStatus() int { return int(C.pdr_http_status(C.int(c))) }

// Name is the code for ErrorBody: "no_pair", "bad_request", "internal_error" and so on.
func (c Code) Name() string { return C.GoString(C.pdr_error_name(C.int(c))) }

// Error is a code with its sentence. errors.Is finds the code in it.
type Error struct {
	Code    Code
	Offset  uint64 // byte offset in the text given, where that makes sense
	Line    uint32 // 1-based line of that offset, 0 if it makes no sense
	Message string // one sentence
}

func (e *Error) Error() string {
	if e.Line != 0 {
		return fmt.Sprintf("pdroute: %s (byte offset %d, line %d)", e.Message, e.Offset, e.Line)
	}
	return "pdroute: " + e.Message
}

// Unwrap gives the code.
func (e *Error) Unwrap() error { return e.Code }

// HTTPStatus is the status that a gateway should answer for an error: of a Code or an *Error what the library says, of
// others 500, of nil 200.
func HTTPStatus(err error) int {
	var c Code
	switch {
	case err == nil:
		return int(C.pdr_http_status(codeOK))
	case errors.As(err, &c):
		return c.HTTPStatus()
	}
	return 500
}

// Version is that of the C library which is loaded, Number 100 times the minor version plus the patch level.
func Version() (text string, number, abi uint32) {
	return C.GoString(C.pdr_version_string()), uint32(C.pdr_version_number()), uint32(C.pdr_abi_version())
}

// ErrorBody is an error in the shape that OpenAI's clients know: {"error":{"message","type","code"}}.
func ErrorBody(status int, code, message string) []byte {
	c, err := cString("code", code)
	if err != nil {
		return nil
	}
	defer freeString(c)
	m, err := cString("message", message)
	if err != nil {
		return nil
	}
	defer freeString(m)
	s := newScratch()
	defer s.free()
	buf := make([]byte, 128+2*len(code)+2*len(message))
	for {
		rc := C.pdr_error_body(C.int(status), c, m, bytesOf(buf), C.size_t(len(buf)), &s.n)
		if rc == 0 {
			return buf[:s.n]
		}
		if Code(rc) != ErrNoSpace || int(s.n) <= len(buf) {
			return nil
		}
		buf = make([]byte, s.n)
	}
}

// grow calls f with buffers until one is large enough.
func grow(size int, f func(buf *C.char, size C.size_t, need *C.size_t) C.int) ([]byte, error) {
	s := newScratch()
	defer s.free()
	for {
		buf := make([]byte, size)
		s.n = 0
		rc := f(bytesOf(buf), C.size_t(len(buf)), &s.n)
		if rc == 0 {
			return buf[:s.n], nil
		}
		if Code(rc) != ErrNoSpace || int(s.n) < size {
			return nil, Code(rc)
		}
		size = int(s.n) + int(s.n)/8 + 64 // it may have grown meanwhile
	}
}

// initStruct is the library's way to make a struct; the binding's own set the size themselves.
func initStruct(p unsafe.Pointer, size uintptr) { C.pdr_init_struct(p, C.size_t(size)) }

// codeOf is the library's code in an error.
func codeOf(err error) Code {
	var c Code
	if !errors.As(err, &c) {
		return ErrSystem
	}
	return c
}
