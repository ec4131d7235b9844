package pdroute

// How the C library is found: by pkg-config (the installed libpdroute.pc and libpdroute_host.pc; PKG_CONFIG_PATH names
// another place), linked as shared libraries. With -tags pdroute_static the two archives are linked instead, and
// CGO_CFLAGS and CGO_LDFLAGS say where they are if that is not where the compiler looks anyway.

// #cgo !pdroute_static pkg-config: libpdroute_host libpdroute
// #cgo pdroute_static LDFLAGS: -l:libpdroute_host.a -l:libpdroute.a -lcurl -pthread
// #include <stdlib.h>
// #include <pdroute/host.h>
import "C"

import (
	"sync"
	"unsafe"
)

// scratch is what most calls need in memory that C may write to: Go's stack moves, so it has to be on the heap, and a
// pool costs less than the collector.
type scratch struct {
	err C.pdr_error
	n   C.size_t
	id  C.uint32_t
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func newScratch() *scratch {
	s := scratches.Get().(*scratch)
	s.err.struct_size = C.sizeof_pdr_error
	s.err.code = 0
	s.err.message[0] = 0
	return s
}

func (s *scratch) free() { scratches.Put(s) }

// done gives the error for a code, and the scratch back.
func (s *scratch) done(code C.int) error {
	if code == 0 {
		s.free()
		return nil
	}
	err := errorOf(code, &s.err)
	s.free()
	return err
}

// errorOf makes an error of a code and what C said about it.
func errorOf(code C.int, e *C.pdr_error) error {
	message := text((*[len(e.message)]byte)(unsafe.Pointer(&e.message))[:])
	if message == "" {
		message = C.GoString(C.pdr_strerror(code))
	}
	return &Error{Code: Code(code), Offset: uint64(e.offset), Line: uint32(e.line), Message: message}
}

// failure is for functions that take no pdr_error.
func failure(code C.int) error {
	if code == 0 {
		return nil
	}
	return Code(code)
}

func bytesOf(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }

func textOf(s string) *C.char { return (*C.char)(unsafe.Pointer(unsafe.StringData(s))) }

func hashesOf(h []uint64) *C.uint64_t { return (*C.uint64_t)(unsafe.Pointer(unsafe.SliceData(h))) }

// text is what stands in a C array up to its NUL.
func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// Used instead of a C string: too long or with a NUL inside is an error, not something else that was not said.
func putText(field string, to []byte, s string) error {
	if len(s) >= len(to) {
		return &Error{Code: ErrInvalid, Message: field + " is too long"}
	}
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			return &Error{Code: ErrInvalid, Message: field + " has a NUL in it"}
		}
	}
	clear(to[copy(to, s):])
	return nil
}

func cString(field, s string) (*C.char, error) {
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			return nil, &Error{Code: ErrInvalid, Message: field + " has a NUL in it"}
		}
	}
	return C.CString(s), nil
}

func freeString(s *C.char) { C.free(unsafe.Pointer(s)) }
