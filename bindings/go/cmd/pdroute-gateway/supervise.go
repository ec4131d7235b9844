package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"libpdroute.test/pdroute"
)

// Several worker processes on one block: the supervisor opens the sockets, starts the workers, and another one for each
// that dies. SIGHUP looks at the configuration and, if it is good, starts new workers and lets the old ones finish their
// requests. One process of Go uses all cores; several are for those who want a crash to cost half of the requests only,
// and for changing configuration and program without losing one.

const (
	workerEnvironment = "PDROUTE_GATEWAY_WORKER"
	readyPipe         = 3 // a worker writes a byte when it serves
	lifePipe          = 4 // ends when the supervisor does
	firstSocket       = 5
)

func isWorker() bool { return os.Getenv(workerEnvironment) != "" }

// ready tells the supervisor, and watches that it lives.
func ready() {
	if !isWorker() {
		return
	}
	out := os.NewFile(readyPipe, "ready")
	_, _ = out.Write([]byte{'r'})
	out.Close()
	go func() {
		_, _ = io.Copy(io.Discard, os.NewFile(lifePipe, "supervisor"))
		_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	}()
}

type supervisor struct {
	sockets []int    // descriptors; a *os.File would make them blocking for all who share them when it is passed on
	life    *os.File // its other end is held by this process only
	ended   chan *worker
	live    map[*worker]bool // true: it may be replaced
}

type worker struct {
	process *os.Process
	started time.Time
	state   *os.ProcessState // when it has ended
}

// descriptor gives the listener's descriptor, and closes the listener.
func descriptor(l *net.TCPListener) (fd int, err error) {
	defer l.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(s uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, err = syscall.Dup(int(s)); err == nil {
			syscall.CloseOnExec(fd)
		}
	})
	return fd, errors.Join(err, failed)
}

func supervise() error {
	if err := pdroute.CheckHandler(options()); err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return explain(err)
	}
	s := &supervisor{ended: make(chan *worker), live: make(map[*worker]bool)}
	for _, address := range []string{*listen, *secure} {
		if address == "" {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		fd, err := descriptor(l.(*net.TCPListener))
		if err != nil {
			return err
		}
		s.sockets = append(s.sockets, fd)
	}
	life, mine, err := os.Pipe()
	if err != nil {
		return err
	}
	s.life = life
	defer mine.Close()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	if err := s.start(*workers); err != nil {
		s.end()
		return err
	}
	for {
		select {
		case w := <-s.ended:
			replace := s.live[w]
			delete(s.live, w)
			if !replace {
				continue
			}
			slog.Error("worker died", "pid", w.process.Pid, "state", w.state.String())
			if pause := time.Second - time.Since(w.started); pause > 0 {
				time.Sleep(min(pause, 100*time.Millisecond))
			}
			if err := s.start(1); err != nil {
				slog.Error("no new worker", "error", err)
				s.end()
				return err
			}
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				s.end()
				return nil
			}
			s.reload()
		}
	}
}

// prepare makes the block before anybody can connect.
func prepare() error {
	text, err := os.ReadFile(*config)
	if err != nil {
		return err
	}
	c, err := pdroute.ParseConfig(text)
	if err != nil {
		return err
	}
	b, err := pdroute.OpenBlock(*block, c, options().Flags|pdroute.OpenCreate|pdroute.OpenRestore)
	if err != nil {
		return err
	}
	defer b.Close()
	_, err = b.Router().Apply(text, 0, pdroute.Now())
	return err
}

func (s *supervisor) reload() {
	if err := pdroute.CheckHandler(options()); err != nil {
		slog.Error("the configuration stays as it was", "error", err)
		return
	}
	var old []*worker
	for w, replace := range s.live {
		if replace {
			old = append(old, w)
		}
	}
	if err := s.start(*workers); err != nil {
		slog.Error("the old workers stay", "error", err)
		return
	}
	for _, w := range old {
		s.live[w] = false
		_ = w.process.Signal(syscall.SIGTERM)
	}
}

// start starts workers, and waits until they serve.
func (s *supervisor) start(n int) error {
	for ; n > 0; n-- {
		reading, writing, err := os.Pipe()
		if err != nil {
			return err
		}
		program, err := os.Executable()
		if err != nil {
			return err
		}
		files := []uintptr{0, 1, 2, writing.Fd(), s.life.Fd()}
		for _, fd := range s.sockets {
			files = append(files, uintptr(fd))
		}
		pid, err := syscall.ForkExec(program, os.Args, &syscall.ProcAttr{Env: append(os.Environ(), workerEnvironment+"=1"), Files: files})
		writing.Close()
		if err != nil {
			reading.Close()
			return err
		}
		w := &worker{started: time.Now()}
		w.process, _ = os.FindProcess(pid)
		k, _ := reading.Read(make([]byte, 1))
		reading.Close()
		if k == 0 {
			state, _ := w.process.Wait()
			return fmt.Errorf("worker %d did not start: %s", pid, state)
		}
		s.live[w] = true
		go func() {
			w.state, _ = w.process.Wait()
			s.ended <- w
		}()
	}
	return nil
}

// end asks all workers to finish, and waits for them.
func (s *supervisor) end() {
	for w := range s.live {
		_ = w.process.Signal(syscall.SIGTERM)
	}
	for len(s.live) > 0 {
		delete(s.live, <-s.ended)
	}
}
