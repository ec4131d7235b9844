package pdroute

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
)

// What is routed can be rewritten, for both legs, in one piece and as a reader, and says nothing of the client's own
// room; what is refused is refused with a sentence and leaves nothing booked.
func FuzzRoute(f *testing.F) {
	for _, s := range []string{guide, `{"text":"a"}`, `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"bootstrap\u005froom":7}`, `{}`, `[`,
		`{"input_ids":[1,2,3],"stream":true}`, `{"prompt":["a","b"],"max_tokens":1}`, "{\"text\":\"\xff\"}"} {
		for api := APIGenerate; api <= APIOther; api++ {
			f.Add([]byte(s), uint8(api))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, api uint8) {
		r, lease := fleet(t, 2, 2)
		var prompt Prompt
		var d Decision
		before := append([]byte(nil), body...)
		err := r.Route(body, &Request{API: API(api%4) + 1, Lease: lease, NowNs: 1001 * second, Flags: RequestNoHold}, &prompt, &d)
		if err == nil {
			for leg := LegPrefill; leg <= LegDecode; leg++ {
				out, err := d.Rewrite(nil, &prompt, leg, body)
				if err != nil {
					t.Fatal(err)
				}
				var fields map[string]json.RawMessage
				if err := json.Unmarshal(out, &fields); err != nil && json.Valid(body) {
					t.Fatalf("%v: %q", err, out)
				}
				if room, there := fields["bootstrap_room"]; d.Mode == ModePD && there != true || d.Mode == ModeSingle && there {
					t.Fatalf("mode %d, room %s: %q", d.Mode, room, out)
				}
				b, err := d.LegBody(&prompt, leg, body)
				if err != nil {
					t.Fatal(err)
				}
				if read, err := io.ReadAll(b); err != nil || !bytes.Equal(read, out) {
					t.Fatalf("%v: %q and %q", err, read, out)
				}
			}
			if err := r.EndBooking(d.Booking, DoneAll, 1002*second); err != nil {
				t.Fatal(err)
			}
		} else {
			var e *Error
			if !errors.As(err, &e) || e.Message == "" || e.Offset > uint64(len(body)) {
				t.Fatalf("%#v", err)
			}
		}
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if s, err := r.Stats(); err != nil || s.Bookings != 0 || s.RoomsLive != 0 {
			t.Fatalf("%+v %v", s, err)
		}
	})
}

// Whatever answers contain and however they are cut, readers do not fail, and what they see does not depend on the cuts.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"), uint16(3))
	f.Add([]byte("0000000000000000000000000"), uint16(47))
	f.Add([]byte(`{"usage":{"prompt_tokens":3,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}`), uint16(1))
	f.Fuzz(func(t *testing.T, answer []byte, size uint16) {
		for _, kind := range []ResponseKind{ResponseJSON, ResponseSSE} {
			var whole Response
			whole.Init(kind)
			whole.Feed(answer)
			pieces := NewResponseReader(bytes.NewReader(answer), kind)
			b := make([]byte, int(size)%64+1)
			for {
				if _, err := pieces.Read(b); err != nil {
					break
				}
			}
			p := &pieces.Response
			if p.Flags != whole.Flags || p.Events != whole.Events || p.Bytes != whole.Bytes || p.PromptTokens != whole.PromptTokens || p.CachedTokens != whole.CachedTokens ||
				p.CompletionTokens != whole.CompletionTokens {
				t.Fatalf("%+v\n%+v", p, whole)
			}
		}
		ErrorStatus(answer)
		masked := append([]byte(nil), answer...)
		// what was JSON stays JSON; what was not may become it (leading zeros become nines)
		if err := MaskError(nil, masked); err == nil && (len(masked) != len(answer) || json.Valid(answer) && !json.Valid(masked)) {
			t.Fatalf("%q became %q", answer, masked)
		}
	})
}
