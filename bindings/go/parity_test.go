package pdroute

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What the headers have and this package does not name. A closed list: everything else must be bound.
var unbound = map[string]string{
	"pdr_probe_loop":    "stops on a C flag; Prober.Run stops with its context",
	"PDR_ABI_VERSION":   "of the header; Version gives that of the library",
	"pdr_router_lose":   "for handlers of SIGBUS, which are not written in Go",
	"pdr_router_escape": "leaves a signal handler by a jump",
}

// The structs that have a Go type with the same bytes.
var mirrored = map[string]any{
	"pdr_config": Config{}, "pdr_limits": Limits{}, "pdr_endpoint": cEndpoint{}, "pdr_target_status": TargetStatus{}, "pdr_apply_report": cApplyReport{},
	"pdr_load": Load{}, "pdr_span": Span{}, "pdr_prompt": Prompt{}, "pdr_request": Request{}, "pdr_decision": Decision{}, "pdr_slice": Slice{},
	"pdr_response": Response{}, "pdr_event": Event{}, "pdr_action": Action{}, "pdr_exchange": Exchange{}, "pdr_candidate": Candidate{},
	"pdr_log_record": LogRecord{}, "pdr_stats": Stats{}, "pdr_probe_stats": ProbeStats{}, "pdr_merge": Merge{}, "pdr_replay_choice": ReplayChoice{},
	"pdr_replay_step": ReplayStep{}, "pdr_place": Place{},
}

// The structs that are C's own in this package: cgo reads their layout from the header.
var viaC = map[string]bool{"pdr_error": true, "pdr_host_info": true, "pdr_host_lease": true, "pdr_probe_event": true, "pdr_probe_options": true}

// headers is what tests/abi/layout.py finds out with the C compiler, now, of the headers of this tree.
func headers(t *testing.T) [][]string {
	t.Helper()
	python := "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skip("SKIP: no " + python + " to measure the headers with")
	}
	out, err := exec.Command(python, filepath.Join("..", "..", "tests", "abi", "layout.py")).CombinedOutput()
	if err != nil {
		t.Fatalf("layout.py: %v\n%s", err, out)
	}
	var lines [][]string
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		lines = append(lines, strings.Fields(line))
	}
	if len(lines) < 500 {
		t.Fatalf("only %d lines", len(lines))
	}
	return lines
}

func source(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	code := regexp.MustCompile(`(?m)//.*$`).ReplaceAllString(all.String(), "")
	return strings.ReplaceAll(code, "C.go_", "C.pdr_") // calls.h: the same functions
}

func TestEveryNameIsBound(t *testing.T) {
	text := source(t)
	seen := map[string]bool{}
	functions, constants := 0, 0
	for _, l := range headers(t) {
		name := l[1]
		var bound bool
		switch l[0] {
		case "function":
			bound = regexp.MustCompile(`\bC\.` + name + `\(`).MatchString(text)
			functions++
		case "const":
			bound = regexp.MustCompile(`\bC\.` + name + `\b`).MatchString(text)
			constants++
		default:
			continue
		}
		seen[name] = true
		_, listed := unbound[name]
		if !bound && !listed {
			t.Errorf("%s is not bound", name)
		}
		if bound && listed {
			t.Errorf("%s is bound: take it from the list", name)
		}
	}
	for name := range unbound {
		if !seen[name] {
			t.Errorf("%s is in no header: take it from the list", name)
		}
	}
	if functions < 90 || constants < 150 {
		t.Errorf("%d functions, %d constants: the headers were not read", functions, constants)
	}
}

func plain(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "")) }

func TestLayouts(t *testing.T) {
	structs := map[string]reflect.Type{}
	for name, v := range mirrored {
		structs[name] = reflect.TypeOf(v)
	}
	fields := map[string]int{}
	for _, l := range headers(t) {
		switch l[0] {
		case "struct":
			goType, ok := structs[l[1]]
			if !ok {
				if !viaC[l[1]] {
					t.Errorf("%s has no Go type", l[1])
				}
				continue
			}
			if got := strconv.FormatUint(uint64(goType.Size()), 10); got != l[2] {
				t.Errorf("%s has %s bytes, in Go %s", l[1], l[2], got)
			}
			if got := strconv.Itoa(goType.Align()); got != l[3] {
				t.Errorf("%s is aligned to %s, in Go to %s", l[1], l[3], got)
			}
		case "field":
			goType, ok := structs[l[1]]
			if !ok {
				continue
			}
			i := fields[l[1]]
			fields[l[1]]++
			if i >= goType.NumField() {
				t.Errorf("%s has %s, Go has %d fields only", l[1], l[2], i)
				continue
			}
			f := goType.Field(i)
			if at, size := strconv.FormatUint(uint64(f.Offset), 10), strconv.FormatUint(uint64(f.Type.Size()), 10); at != l[3] || size != l[4] {
				t.Errorf("%s.%s is at %s with %s bytes; %s in Go at %s with %s", l[1], l[2], l[3], l[4], f.Name, at, size)
			}
			want := plain(l[2])
			if want == "structsize" {
				want = "size"
			}
			if got := plain(f.Name); got != want && !(got == "" && strings.HasPrefix(want, "reserved")) {
				t.Errorf("%s.%s is %s in Go", l[1], l[2], f.Name)
			}
			signed := strings.HasPrefix(l[5], "int")
			kind := f.Type.Kind()
			if isSigned := kind >= reflect.Int && kind <= reflect.Int64; isSigned != signed {
				t.Errorf("%s.%s is %s, in Go %s", l[1], l[2], l[5], f.Type)
			}
		}
	}
	for name, goType := range structs {
		if fields[name] != goType.NumField() {
			t.Errorf("%s has %d fields, in Go %d", name, fields[name], goType.NumField())
		}
	}
}
