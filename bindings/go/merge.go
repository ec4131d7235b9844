package pdroute

// #include <pdroute/pdroute.h>
import "C"

import "unsafe"

// ErrorEvent is the end of a stream that cannot be completed, in its own format. Send it, then close the connection.
func ErrorEvent(api API, status int, code, message string) []byte {
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
	text, err := grow(256+2*len(message), func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_error_event(C.uint32_t(api), C.int(status), c, m, buf, n, need)
	})
	if err != nil {
		return nil
	}
	return text
}

// ErrorStatus is the HTTP status that an engine's error event or error body names (400..599), 0: none.
func ErrorStatus(text []byte) int {
	return int(C.pdr_error_status(bytesOf(text), C.size_t(len(text))))
}

// MaskError blots out, in place and with the same length, what a server's error body must not tell a client. Give it the
// whole body. d may be nil.
func MaskError(d *Decision, text []byte) error {
	var c *C.pdr_decision
	if d != nil {
		c = d.c()
	}
	return failure(C.pdr_error_mask(c, bytesOf(text), C.size_t(len(text))))
}

// MergeWanted says whether an answer needs what only prefill knows of its prompt: then keep prefill's body, hold
// decode's back until prefill has ended, and pass it through a Merge.
func MergeWanted(d *Decision, prompt *Prompt) bool { return C.pdr_merge_wanted(d.c(), prompt.c()) == 1 }

// Merge puts prefill's part into one answer of decode's. Init it before use.
type Merge struct {
	size uint32
	API  API
	Kind ResponseKind
	_    uint32
	seen [16]uint64
}

// Init begins a new answer.
func (m *Merge) Init(api API, kind ResponseKind) {
	initStruct(unsafe.Pointer(m), unsafe.Sizeof(*m))
	C.pdr_merge_init(m.c(), C.uint32_t(api), C.uint32_t(kind))
}

func (m *Merge) c() *C.pdr_merge { return (*C.pdr_merge)(unsafe.Pointer(m)) }

// Slices gives the merged text of a whole JSON answer, or of a piece of whole events, as pieces of decode's (Source 0)
// and prefill's (Source 1). buf is used if it is large enough.
func (m *Merge) Slices(prefill, decode []byte, buf []Slice) ([]Slice, error) {
	s := newScratch()
	defer s.free()
	for {
		s.n = C.size_t(len(buf))
		code := C.pdr_merge_slices(m.c(), bytesOf(prefill), C.size_t(len(prefill)), bytesOf(decode), C.size_t(len(decode)),
			(*C.pdr_slice)(unsafe.Pointer(unsafe.SliceData(buf))), &s.n)
		if code == 0 {
			return buf[:s.n], nil
		}
		if Code(code) != ErrNoSpace || int(s.n) <= len(buf) {
			return nil, Code(code)
		}
		buf = make([]Slice, s.n)
	}
}

// Text is the same in one piece.
func (m *Merge) Text(prefill, decode []byte) ([]byte, error) {
	return grow(len(prefill)+len(decode)+64, func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_merge_text(m.c(), bytesOf(prefill), C.size_t(len(prefill)), bytesOf(decode), C.size_t(len(decode)), buf, n, need)
	})
}
