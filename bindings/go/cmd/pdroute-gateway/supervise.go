package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
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
	sockets []*os.File
	life    *os.File // its other end is held by this process only
	ended   chan *worker
	live    map[*worker]bool // true: it may be replaced
}

type worker struct {
	cmd     *exec.Cmd
	started time.Time
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
		file, err := l.(*net.TCPListener).File()
		l.Close()
		if err != nil {
			return err
		}
		s.sockets = append(s.sockets, file)
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
			slog.Error("worker died", "pid", w.cmd.Process.Pid, "state", w.cmd.ProcessState.String())
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
	if err == nil {
		b.Close()
	}
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
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
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
		w := &worker{cmd: exec.Command(program, os.Args[1:]...), started: time.Now()}
		w.cmd.Env = append(os.Environ(), workerEnvironment+"=1")
		w.cmd.Stdout, w.cmd.Stderr = os.Stdout, os.Stderr
		w.cmd.ExtraFiles = append([]*os.File{writing, s.life}, s.sockets...)
		err = w.cmd.Start()
		writing.Close()
		if err != nil {
			reading.Close()
			return err
		}
		k, _ := reading.Read(make([]byte, 1))
		reading.Close()
		if k == 0 {
			_ = w.cmd.Wait()
			return fmt.Errorf("worker %d did not start: %s", w.cmd.Process.Pid, w.cmd.ProcessState)
		}
		s.live[w] = true
		go func() {
			_ = w.cmd.Wait()
			s.ended <- w
		}()
	}
	return nil
}

// end asks all workers to finish, and waits for them.
func (s *supervisor) end() {
	for w := range s.live {
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
	}
	for len(s.live) > 0 {
		delete(s.live, <-s.ended)
	}
}
