package pdroute

import (
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"testing"
)

const guardBody = `{"messages":[{"role":"user","content":"hello"}]}`

func openGuarded(t *testing.T, path string, flags OpenFlags) (*Block, *Lease) {
	t.Helper()
	block, err := OpenBlock(path, nil, flags)
	if err != nil {
		t.Fatal(err)
	}
	for i, role := range []Role{RolePrefill, RoleDecode} {
		if _, err := block.Router().PutEndpoint(&Endpoint{Role: role, Host: "10.0.0.1", Port: uint32(8000 + i)}, Now()); err != nil {
			t.Fatal(err)
		}
	}
	lease, err := block.OpenLease("guard", Now())
	if err != nil {
		t.Fatal(err)
	}
	return block, lease
}

// A block file that is truncated under many goroutines: each gets an error, none dies, and a block opened anew works.
func TestTruncatedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "block")
	for round := 0; round < 5; round++ {
		block, _ := openGuarded(t, path, OpenRecreate)
		var wg sync.WaitGroup
		started := make(chan struct{}, 8)
		for i := 0; i < 8; i++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := 0; ; n++ {
					_, err := block.Router().Stats()
					if errors.Is(err, ErrBlockCorrupt) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					if n == 10 {
						started <- struct{}{}
					}
				}
			}()
		}
		for i := 0; i < 8; i++ {
			<-started
		}
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if state, err := block.State(); err != nil || state != BlockTruncated {
			t.Fatal(state, err)
		}
		block.Close()
	}
	block, _ := openGuarded(t, path, OpenRecreate)
	defer block.Close()
	if _, err := block.Router().Stats(); err != nil {
		t.Fatal(err)
	}
}

// What is not about a block still goes to Go's own handler.
func TestOtherFaultsAreGos(t *testing.T) {
	block, _ := openGuarded(t, filepath.Join(t.TempDir(), "block"), OpenCreate)
	defer block.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	m, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() == nil {
			t.Error("reading a page that is gone was no panic")
		}
	}()
	t.Log(m[0])
}
