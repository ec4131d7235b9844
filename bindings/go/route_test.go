package pdroute

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

const second = 1_000_000_000

const guide = `{"model": "/models/Qwen3-32B", "bootstrap_room": 5, "messages": [{"role": "user", "content": "你好,这是一个测试"}], "max_tokens": 50 }`

// fleet is a router with servers, and a lease.
func fleet(t testing.TB, prefills, decodes int) (*Router, uint32) {
	t.Helper()
	r, err := NewRouter(&Config{MaxEndpoints: 64, MaxBookings: 1024, IndexEntries: 65536, Seed: 42})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	for i := 0; i < prefills+decodes; i++ {
		e := Endpoint{Role: RoleDecode, Host: fmt.Sprintf("10.0.0.%d", i+1), Port: 8000}
		if i < prefills {
			e.Role = RolePrefill
		}
		if id, err := r.PutEndpoint(&e, 1000*second); err != nil || id != uint32(i) {
			t.Fatal(id, err)
		}
	}
	lease, err := r.OpenLease("test", 1000*second)
	if err != nil {
		t.Fatal(err)
	}
	return r, lease
}

func TestBodyMember(t *testing.T) {
	body := []byte(`{"sampling_params":{"n":3},"é":[{}]}`)
	span, err := BodyMember(body, "é")
	if err != nil || string(body[span.Begin:span.End]) != "[{}]" {
		t.Errorf("%v %v", span, err)
	}
	if _, err := BodyMember(body, "n"); err != ErrNotFound {
		t.Error(err)
	}
	if _, err := BodyMember(nil, ""); err != ErrParse {
		t.Error(err)
	}
}

func TestRouteAndRewrite(t *testing.T) {
	r, lease := fleet(t, 2, 1)
	body := []byte(guide)
	var (
		q      = Request{API: APIChat, Lease: lease, NowNs: 1001 * second}
		prompt Prompt
		d      Decision
	)
	if err := r.Route(body, &q, &prompt, &d); err != nil {
		t.Fatal(err)
	}
	if d.Outcome != Send || d.DecodeHost() != "10.0.0.3" || d.Addr(LegDecode) != "10.0.0.3:8000" || d.Room == 0 || d.Room >= 1<<63 || d.RoomAt(0) != d.Room {
		t.Fatalf("%+v", d)
	}
	for leg := LegPrefill; leg <= LegDecode; leg++ {
		out, err := d.Rewrite(nil, &prompt, leg, body)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Host string `json:"bootstrap_host"`
			Port int    `json:"bootstrap_port"`
			Room uint64 `json:"bootstrap_room"`
			Max  int    `json:"max_tokens"`
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if got.Host != d.PrefillHost() || got.Port != 8998 || got.Room != d.Room || got.Max != 50 || strings.Contains(string(out), `"bootstrap_room": 5`) {
			t.Fatalf("%+v in %s", got, out)
		}
		// the same bytes without a copy, whatever the size of the reads
		b, err := d.LegBody(&prompt, leg, body)
		if err != nil || b.Len() != int64(len(out)) {
			t.Fatal(b, err)
		}
		for size := 1; size < 400; size += 7 {
			var read []byte
			piece := make([]byte, size)
			for from := b.Clone(); ; {
				n, err := from.Read(piece)
				read = append(read, piece[:n]...)
				if err == io.EOF {
					break
				}
			}
			if string(read) != string(out) {
				t.Fatalf("in pieces of %d: %s", size, read)
			}
		}
		var written strings.Builder
		if n, err := io.Copy(&written, b); n != b.Len() || err != nil || written.String() != string(out) {
			t.Fatal(n, err, written.String())
		}
	}
	if err := r.EndBooking(d.Booking, DoneAll, 1002*second); err != nil {
		t.Fatal(err)
	}
	if err := r.EndBooking(d.Booking, DoneAll, 1002*second); !errors.Is(err, ErrNotFound) {
		t.Fatalf("second end: %v", err)
	}
}

func TestErrorsCarryASentence(t *testing.T) {
	r, lease := fleet(t, 1, 0)
	for body, code := range map[string]Code{`{"messages": [}`: ErrParse, guide: ErrNoPair, `{"messages":[{"role":"user","content":"x"}],"n":3}`: ErrUnsupported} {
		var d Decision
		err := r.Route([]byte(body), &Request{API: APIChat, Lease: lease, NowNs: 1001 * second}, nil, &d)
		var e *Error
		if !errors.Is(err, code) || !errors.As(err, &e) || e.Message == "" || HTTPStatus(err) != code.HTTPStatus() {
			t.Errorf("%s: %v", body, err)
		}
		if code == ErrParse && (e.Offset != 14 || e.Line != 1) {
			t.Errorf("%+v", e)
		}
	}
}

func TestGoroutines(t *testing.T) {
	r, lease := fleet(t, 4, 2)
	var wg sync.WaitGroup
	var rooms sync.Map
	for g := 0; g < 8; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			var d Decision
			for i := 0; i < 500; i++ {
				body := []byte(fmt.Sprintf(`{"messages": [{"role": "user", "content": "goroutine %d says %d"}]}`, g, i))
				if err := r.Route(body, &Request{API: APIChat, Lease: lease, NowNs: 1001 * second, Flags: RequestNoHold}, nil, &d); err != nil {
					t.Error(err)
					return
				}
				if _, twice := rooms.LoadOrStore(d.Room, true); twice {
					t.Errorf("room %d came twice", d.Room)
				}
				if err := r.EndBooking(d.Booking, DoneAll, 1002*second); err != nil {
					t.Error(err)
				}
			}
		}(g)
	}
	wg.Wait()
	if s, err := r.Stats(); err != nil || s.Bookings != 0 || s.Routed != 4000 {
		t.Errorf("%+v %v", s, err)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}

func TestPlaceInTheQueue(t *testing.T) {
	r, lease := fleet(t, 1, 1)
	var held []uint64
	for i := 0; i < 3; i++ {
		var (
			q = Request{API: APIChat, Lease: lease, NowNs: 1001 * second}
			p Prompt
			d Decision
		)
		body := fmt.Sprintf(`{"messages": [{"role": "user", "content": "%s"}]}`, strings.Repeat(fmt.Sprint(i, " "), 10000*(i+1)))
		if err := r.Route([]byte(body), &q, &p, &d); err != nil {
			t.Fatal(err)
		}
		if d.Outcome == Held {
			held = append(held, d.Booking)
		}
	}
	if len(held) != 2 {
		t.Fatal(held)
	}
	for i, ticket := range held {
		p, err := r.TicketPlace(ticket, 1002*second)
		if err != nil || p.Outcome != int32(Held) || p.Place != uint32(i) || p.Held != 2 || p.WaitedUs != 1_000_000 || p.SizeUs == 0 || (i == 1) != (p.AheadUs > 0) {
			t.Fatalf("%+v %v", p, err)
		}
	}
	if _, err := r.TicketPlace(12345, 1002*second); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	q := Request{API: APIChat, NowNs: 1002 * second}
	prompt := Prompt{API: APIChat, Batch: 1, Samples: 1, PromptTokens: 64}
	if p, err := r.ExplainPlace(&prompt, nil, &q); err != nil || p.Outcome != int32(Held) || p.Place != 0 || p.Held != 2 {
		t.Fatalf("%+v %v", p, err)
	}
	q.Flags = RequestNoHold
	if p, err := r.ExplainPlace(&prompt, nil, &q); err != nil || p.Outcome != int32(Send) {
		t.Fatalf("%+v %v", p, err)
	}
}

// A dry decision has no room: a body with room 0 would make decode wait for ever.
func TestDryIsNotRewritten(t *testing.T) {
	r, lease := fleet(t, 1, 1)
	var (
		q = Request{API: APIChat, Lease: lease, NowNs: 1001 * second, Flags: RequestDry}
		p Prompt
		d Decision
	)
	body := []byte(`{"messages": [{"role": "user", "content": "x"}]}`)
	if err := r.Route(body, &q, &p, &d); err != nil || d.Outcome != Send || d.Room != 0 {
		t.Fatalf("%+v %v", d, err)
	}
	if _, err := d.Rewrite(nil, &p, LegDecode, body); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := d.RewriteTail(&p, LegPrefill, 0); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}
