package pdroute

// #include <pdroute/pdroute.h>
import "C"

import (
	"io"
	"unsafe"
)

// ResponseKind is how an answer is framed.
type ResponseKind uint32

const (
	ResponseJSON ResponseKind = C.PDR_RESPONSE_JSON
	ResponseSSE  ResponseKind = C.PDR_RESPONSE_SSE
)

// Seen says what an answer had so far.
type Seen uint32

const (
	SeenFirstToken Seen = C.PDR_SEEN_FIRST_TOKEN
	SeenDone       Seen = C.PDR_SEEN_DONE   // [DONE]
	SeenUsage      Seen = C.PDR_SEEN_USAGE  // the three counts are set
	SeenError      Seen = C.PDR_SEEN_ERROR  // error event or abort
	SeenCached     Seen = C.PDR_SEEN_CACHED // cached_tokens was there
)

// Response reads an answer as it passes, over any chunk borders. Init it before use.
type Response struct {
	size             uint32
	Kind             ResponseKind
	Events           uint32 // SSE events so far
	Flags            Seen
	Bytes            uint64
	PromptTokens     uint64 // last usage seen
	CachedTokens     uint64
	CompletionTokens uint64
	state            [40]uint64
}

// Init begins a new answer.
func (s *Response) Init(kind ResponseKind) {
	C.pdr_response_init((*C.pdr_response)(unsafe.Pointer(s)), C.uint32_t(kind))
}

// Feed reads a chunk, which is only borrowed. No content makes it fail.
func (s *Response) Feed(chunk []byte) {
	C.pdr_response_feed((*C.pdr_response)(unsafe.Pointer(s)), bytesOf(chunk), C.size_t(len(chunk)))
}

// Mask blots out, in place, what the error events of a stream tell of the inside; all else stays. text is all that was fed
// and is not passed on yet. So many bytes of it may go; what is left, the beginning of such an event, is given again in
// front of the next piece. With end nothing follows, and all may go. d may be nil.
func (s *Response) Mask(d *Decision, text []byte, end bool) int {
	var c *C.pdr_decision
	if d != nil {
		c = d.c()
	}
	var last C.int
	if end {
		last = 1
	}
	ready := C.size_t(len(text))
	C.pdr_response_mask((*C.pdr_response)(unsafe.Pointer(s)), c, bytesOf(text), C.size_t(len(text)), last, &ready)
	return int(ready)
}

// ResponseReader is an io.Reader that reads an answer as it passes through.
type ResponseReader struct {
	Response
	from io.Reader
}

// NewResponseReader reads from r.
func NewResponseReader(r io.Reader, kind ResponseKind) *ResponseReader {
	s := &ResponseReader{from: r}
	s.Init(kind)
	return s
}

func (s *ResponseReader) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if n > 0 {
		s.Feed(p[:n])
	}
	return n, err
}
