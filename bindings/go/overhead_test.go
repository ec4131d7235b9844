package pdroute

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"libpdroute.test/pdroute/internal/cloop"
)

// The same calls from Go and from C, side by side: what the binding may add to each, on a machine where crossing from
// Go to C and back takes up to 60 ns. Where that alone takes longer, the bound is as many crossings as it is there.
const (
	overheadNs = 150
	crossingNs = 60
)

type pair struct {
	name  string
	calls int // of the library per round
	c, g  func(n int)
}

func chat(size int) []byte {
	return []byte(`{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", size/5) + `"}],"max_tokens":50}`)
}

func pairs(t testing.TB) []pair {
	r, lease := fleet(t, 32, 32)
	const now = 1001 * second
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	all := []pair{{"HeaderOwned", 1, func(n int) { cloop.Owned("X-Request-Id", n) }, func(n int) {
		for i := 0; i < n; i++ {
			HeaderOwned("X-Request-Id")
		}
	}}}
	for _, size := range []int{1000, 132_000} {
		body := chat(size)
		q := Request{API: APIChat, Lease: lease, NowNs: now, Flags: RequestNoHold}
		var prompt Prompt
		var d Decision
		all = append(all, pair{fmt.Sprintf("Route and EndBooking, %d bytes", size), 2, func(n int) {
			if code := cloop.Route(unsafe.Pointer(r.r), body, lease, now, n); code != 0 {
				t.Fatal(Code(code))
			}
		}, func(n int) {
			for i := 0; i < n; i++ {
				fail(r.Route(body, &q, &prompt, &d))
				fail(r.EndBooking(d.Booking, DoneAll, now))
			}
		}})
	}
	chunk := []byte("data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n")
	all = append(all, pair{"Response.Feed", 1, func(n int) { cloop.Feed(chunk, n) }, func(n int) {
		var s Response
		s.Init(ResponseSSE)
		for i := 0; i < n; i++ {
			s.Feed(chunk)
		}
	}})
	return all
}

func took(f func(int), n int) float64 {
	began := time.Now()
	f(n)
	return float64(time.Since(began).Nanoseconds()) / float64(n)
}

// least times both in turn and gives the least of each: what else the machine does only adds.
func least(p pair, rounds, n int) (c, g float64) {
	p.c(n)
	p.g(n)
	for i := 0; i < rounds; i++ {
		if t := took(p.c, n); c == 0 || t < c {
			c = t
		}
		if t := took(p.g, n); g == 0 || t < g {
			g = t
		}
	}
	return c, g
}

func TestOverhead(t *testing.T) {
	if instrumented {
		t.Skip("the race detector is not what is measured")
	}
	bound := float64(overheadNs)
	for _, p := range pairs(t) {
		n := 2000
		if strings.Contains(p.name, "132000") {
			n = 100
		}
		var c, g, over float64
		for try := 0; try < 10; try++ { // whoever else uses the machine makes it longer, never shorter
			c, g = least(p, 30, n)
			if over = (g - c) / float64(p.calls); over <= bound {
				break
			}
		}
		t.Logf("%-34s C %7.0f ns, Go %7.0f ns: %+.0f ns per call", p.name, c, g, over)
		if over > bound && !strings.Contains(p.name, "132000") { // noise of one long call is larger than the bound
			t.Errorf("%s: %.0f ns more than in C for each call", p.name, over)
		}
		if p.name == "HeaderOwned" && over > crossingNs { // C does next to nothing in it
			bound = overheadNs * over / crossingNs
			t.Logf("a crossing takes %.0f ns here: bound %.0f ns", over, bound)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, p := range pairs(t) {
		if n := testing.AllocsPerRun(200, func() { p.g(1) }); n >= 1 && p.name != "Response.Feed" && !instrumented { // Feed's round has a Response of its own
			t.Errorf("%s allocates %v times", p.name, n)
		}
	}
}

func BenchmarkCalls(b *testing.B) {
	for _, p := range pairs(b) {
		b.Run("C/"+p.name, func(b *testing.B) { p.c(b.N) })
		b.Run("Go/"+p.name, func(b *testing.B) { p.g(b.N) })
	}
}
