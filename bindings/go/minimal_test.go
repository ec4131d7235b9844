package pdroute_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The gateway of docs/go.md is the one in examples/gateway, has 30 lines of code at most, builds, serves, and ends when told to.
func TestMinimalGateway(t *testing.T) {
	source, err := os.ReadFile("examples/gateway/main.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/go.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```go\n"+strings.TrimSpace(string(source))+"\n```") {
		t.Error("docs/go.md shows another program than examples/gateway/main.go")
	}
	lines := 0 // of code: imports are, empty lines and comments are not
	for _, line := range strings.Split(string(source), "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines++
		}
	}
	if lines > 30 {
		t.Errorf("a gateway takes %d lines of a user, 30 are promised", lines)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "gateway")
	if out, err := exec.Command("go", "build", "-o", program, "./examples/gateway").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config := filepath.Join(dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"index_entries":4096,"endpoints":[`+worker("prefill")+`,`+worker("decode")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(program, filepath.Join(dir, "block"), config, address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	ask := func() (int, string) {
		answer, err := http.Post("http://"+address+"/v1/chat/completions", "application/json", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}]}`))
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	status, text := ask()
	for end := time.Now().Add(20 * time.Second); status == 0 && time.Now().Before(end); status, text = ask() {
		time.Sleep(20 * time.Millisecond)
	}
	if status != 200 || text != `{"answer":"from decode"}` {
		t.Fatal(status, text)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}
