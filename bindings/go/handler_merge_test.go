package pdroute

import (
	"bytes"
	"math/rand"
	"testing"
	"time"
)

// A merged stream is cut into whole events, the same however it comes.
func TestMergedCutsWholeEvents(t *testing.T) {
	r := rand.New(rand.NewSource(5))
	ends := []string{"\n\n", "\r\n\r\n"}
	for i := 0; i < 300; i++ {
		var stream []byte
		for k := 0; k <= r.Intn(5); k++ {
			stream = append(stream, "data: x"+ends[r.Intn(2)]...)
		}
		stream = append(stream, "data: half\r\n"...)
		change := (&job{api: APICompletions}).merged(&leg{stream: true}, &leg{})
		var out []byte
		for at := 0; at < len(stream); {
			n := min(1+r.Intn(4), len(stream)-at)
			out = append(out, change(stream[at:at+n], false)...)
			at += n
			ended := max(bytes.LastIndex(stream[:at], []byte("\n\n"))+2, bytes.LastIndex(stream[:at], []byte("\r\n\r\n"))+4)
			if ended < 4 {
				ended = 0
			}
			if !bytes.Equal(out, stream[:ended]) {
				t.Fatalf("%q of %q, want %q", out, stream[:at], stream[:ended])
			}
		}
		if out = append(out, change(nil, true)...); !bytes.Equal(out, stream) {
			t.Fatalf("%q, want %q", out, stream)
		}
	}
}

// One long event costs its length, in whatever pieces it comes: looked at again with each, its beginning would be read
// some thousand times.
func TestMergedLongEvent(t *testing.T) {
	piece := bytes.Repeat([]byte("x"), 1024)
	whole := bytes.Repeat(piece, 4096)
	began := time.Now()
	for i := 0; i < 5; i++ {
		if bytes.LastIndex(whole, []byte("\n\n")) >= 0 {
			t.Fatal()
		}
	}
	once := time.Since(began)
	change := (&job{api: APICompletions}).merged(&leg{stream: true}, &leg{})
	began = time.Now()
	for i := 0; i < 4096; i++ {
		change(piece, false)
	}
	if took := time.Since(began); took > 20*once+time.Second {
		t.Fatal(took, once)
	}
	if got := change([]byte("\n\n"), false); len(got) != len(whole)+2 {
		t.Fatal(len(got))
	}
}
