package pdr

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
)

const second = 1_000_000_000

func fleet(t *testing.T, prefills, decodes int) *Router {
	t.Helper()
	r, err := New(42, 1000*second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	for i := 0; i < prefills+decodes; i++ {
		if err := r.Put(fmt.Sprintf("10.0.0.%d", i+1), 8000, i < prefills, 1000*second); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestRouteAndRewrite(t *testing.T) {
	r := fleet(t, 2, 1)
	body := []byte(`{"model": "/models/Qwen3-32B", "bootstrap_room": 5, "messages": [{"role": "user", "content": "你好,这是一个测试"}], "max_tokens": 50 }`)
	var d Decision
	if err := r.Route(body, 1001*second, &d); err != nil {
		t.Fatal(err)
	}
	if d.Decode() != "10.0.0.3" || d.Room() == 0 || d.Room() >= 1<<63 {
		t.Fatalf("decode %s, room %d", d.Decode(), d.Room())
	}
	for leg := 0; leg < 2; leg++ {
		out, err := d.Rewrite(leg, body)
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
		if got.Host != d.Prefill() || got.Port != 8998 || got.Room != d.Room() || got.Max != 50 {
			t.Fatalf("%+v in %s", got, out)
		}
	}
	if err := r.Done(&d, 1002*second); err != nil {
		t.Fatal(err)
	}
	var gone *Error
	if err := r.Done(&d, 1002*second); !errors.As(err, &gone) || gone.Code != -10 {
		t.Fatalf("second end: %v", err)
	}
}

func TestErrorsCarryASentence(t *testing.T) {
	r := fleet(t, 1, 0)
	var d Decision
	for body, code := range map[string]int{`{"messages": [}`: -4, `{"messages": [{"role": "user", "content": "x"}]}`: -8} {
		var e *Error
		if err := r.Route([]byte(body), 1001*second, &d); !errors.As(err, &e) || e.Code != code || e.Message == "" {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestGoroutines(t *testing.T) {
	r := fleet(t, 4, 2)
	var wg sync.WaitGroup
	var rooms sync.Map
	for g := 0; g < 8; g++ {
		wg.Add(1)
		go func(g int) {
			defer wg.Done()
			for i := 0; i < 500; i++ {
				var d Decision
				body := []byte(fmt.Sprintf(`{"messages": [{"role": "user", "content": "goroutine %d says %d"}]}`, g, i))
				if err := r.Route(body, 1001*second, &d); err != nil {
					t.Error(err)
					return
				}
				if _, twice := rooms.LoadOrStore(d.Room(), true); twice {
					t.Errorf("room %d came twice", d.Room())
				}
				if err := r.Done(&d, 1002*second); err != nil {
					t.Error(err)
				}
			}
		}(g)
	}
	wg.Wait()
	if n := r.Bookings(); n != 0 {
		t.Errorf("%d bookings are left", n)
	}
	if err := r.Check(); err != nil {
		t.Error(err)
	}
}
