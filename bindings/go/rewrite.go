package pdroute

// #include <pdroute/pdroute.h>
import "C"

import (
	"io"
	"unsafe"
)

// Slice is a piece of a rewritten body: bytes of the original (Source 0) or of the tail (Source 1).
type Slice struct {
	Source uint32
	_      uint32
	Offset uint64
	Length uint64
}

// MaxSlices is how many pieces a rewritten body may have.
const MaxSlices = C.PDR_MAX_SLICES

// RewriteTail is the text that goes into a leg's body at prompt.InsertAt, with its comma; padTo pads it with spaces to
// a fixed width.
func (d *Decision) RewriteTail(prompt *Prompt, leg Leg, padTo int) ([]byte, error) {
	size := 512
	if padTo > size {
		size = padTo
	}
	return grow(size, func(buf *C.char, n C.size_t, need *C.size_t) C.int {
		return C.pdr_rewrite_tail(d.c(), prompt.c(), C.int(leg), C.size_t(padTo), buf, n, need)
	})
}

// RewriteSlices gives the pieces of a rewritten body, in buf.
func RewriteSlices(prompt *Prompt, bodyLen, tailLen int, buf *[MaxSlices]Slice) ([]Slice, error) {
	s := newScratch()
	defer s.free()
	s.n = MaxSlices
	if code := C.pdr_rewrite_slices(prompt.c(), C.size_t(bodyLen), C.size_t(tailLen), (*C.pdr_slice)(unsafe.Pointer(buf)), &s.n); code != 0 {
		return nil, Code(code)
	}
	return buf[:s.n], nil
}

// Rewrite is the body for a leg in one piece, appended to dst. ErrInvalid for a pair without a room: a decision that is
// held, dry or was refused.
func (d *Decision) Rewrite(dst []byte, prompt *Prompt, leg Leg, body []byte) ([]byte, error) {
	s := newScratch()
	defer s.free()
	for {
		free := dst[len(dst):cap(dst)]
		s.n = 0
		code := C.pdr_rewrite(d.c(), prompt.c(), C.int(leg), bytesOf(body), C.size_t(len(body)), bytesOf(free), C.size_t(len(free)), &s.n)
		if code == 0 && int(s.n) <= len(free) { // without any room it only says how much it needs
			return dst[:len(dst)+int(s.n)], nil
		}
		if code != 0 && (Code(code) != ErrNoSpace || int(s.n) <= len(free)) {
			return dst, Code(code)
		}
		grown := make([]byte, len(dst), len(dst)+int(s.n))
		copy(grown, dst)
		dst = grown
	}
}

// HeaderOwned says whether a client's header of this name must never reach a worker.
func HeaderOwned(name string) bool { return C.pdr_header_owned(textOf(name), C.size_t(len(name))) == 1 }

// LegBody is a leg's body as an io.Reader: pieces of the client's body, which is not copied, and the tail. Clones read
// the same bytes independently.
type LegBody struct {
	pieces [][]byte
	piece  int
	offset int
	length int64
}

// LegBody is the body for a leg. `body` must not change while it is read.
func (d *Decision) LegBody(prompt *Prompt, leg Leg, body []byte) (*LegBody, error) {
	tail, err := d.RewriteTail(prompt, leg, 0)
	if err != nil {
		return nil, err
	}
	var buf [MaxSlices]Slice
	slices, err := RewriteSlices(prompt, len(body), len(tail), &buf)
	if err != nil {
		return nil, err
	}
	b := &LegBody{pieces: make([][]byte, 0, len(slices))}
	for _, s := range slices {
		from := body
		if s.Source == 1 {
			from = tail
		}
		if s.Length != 0 {
			b.pieces = append(b.pieces, from[s.Offset:s.Offset+s.Length])
			b.length += int64(s.Length)
		}
	}
	return b, nil
}

// Len is the whole length in bytes.
func (b *LegBody) Len() int64 { return b.length }

// Clone begins at the beginning.
func (b *LegBody) Clone() *LegBody { return &LegBody{pieces: b.pieces, length: b.length} }

func (b *LegBody) Read(p []byte) (n int, err error) {
	for b.piece < len(b.pieces) {
		if n == len(p) {
			return n, nil
		}
		k := copy(p[n:], b.pieces[b.piece][b.offset:])
		n += k
		b.offset += k
		if b.offset == len(b.pieces[b.piece]) {
			b.piece, b.offset = b.piece+1, 0
		}
	}
	if n == 0 && len(p) > 0 || b.piece == len(b.pieces) {
		return n, io.EOF
	}
	return n, nil
}

// WriteTo writes what is left, piece by piece, without copying.
func (b *LegBody) WriteTo(w io.Writer) (n int64, err error) {
	for b.piece < len(b.pieces) {
		k, err := w.Write(b.pieces[b.piece][b.offset:])
		n += int64(k)
		b.offset += k
		if err != nil {
			return n, err
		}
		b.piece, b.offset = b.piece+1, 0
	}
	return n, nil
}

// Close is there for http.Request.Body.
func (b *LegBody) Close() error { return nil }
