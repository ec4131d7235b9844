package pdroute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const tickInterval = 100 * time.Millisecond

// ProcessOptions say how a process uses a block.
type ProcessOptions struct {
	Path   string  // of the block file; on a tmpfs (/dev/shm)
	Config *Config // nil: accept any
	Flags  OpenFlags
	Name   string       // of the lease, for those who look at the block; "" names the program
	Logger *slog.Logger // nil: slog.Default()
	// Followed is called when the block is another, with an empty router that it may fill: the file was truncated, replaced
	// or removed. nil: nobody is told.
	Followed func(*Router)
}

// Process is one process's use of a block: the mapping, a lease that owns its bookings, a goroutine on the lease's wake
// socket that passes released tickets to those who wait for them, and one that renews and ticks.
//
// A block file that was truncated, replaced or removed is followed, at once by who meets the loss, else with the next tick:
// Block, Router and Lease are others then, so ask for them at each use and keep none for longer than a call. Whoever waits
// gets in line anew; an Exchange goes on with the new router.
type Process struct {
	options ProcessOptions
	block   atomic.Pointer[Block]
	config  *Config
	log     *slog.Logger
	leaseID atomic.Uint32
	quit    chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	lease  *Lease   // nil: none to be had at present
	wake   *os.File // a duplicate of its wake socket, in Go's poller
	held   map[uint64]chan struct{}
	closed bool
	silent time.Time // when the log was last told that there is no lease
	lost   time.Time // when it was told that the block cannot be followed
	left   []leftBlock
}

// leftBlock is one that is not used any more, but may be inside a call of some goroutine.
type leftBlock struct {
	block *Block
	ticks int // until it is closed; not a time, which passes while a process is stopped
}

// leftTicks, a minute of ticks, is a bound, not a guess at when it may be safe: a call on a block ends within some two
// seconds even if its lock is not to be had, and a process that is stopped, and its calls with it, does not tick. Until
// then the mapping stays, so a file that is replaced again and again costs one mapping for each time in a minute.
const leftTicks = 600

// OpenProcess opens the block and begins to use it. Where all leases are taken it goes on trying; until then requests
// are refused with ErrLease.
func OpenProcess(o ProcessOptions) (*Process, error) {
	block, err := OpenBlock(o.Path, o.Config, o.Flags)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = fmt.Sprintf("go process %d", os.Getpid())
	}
	p := &Process{options: o, log: o.Logger, held: make(map[uint64]chan struct{}), quit: make(chan struct{})}
	p.block.Store(block)
	if p.log == nil {
		p.log = slog.Default()
	}
	if p.config, err = block.Router().Config(); err != nil {
		block.Close()
		return nil, err
	}
	p.mu.Lock()
	_ = p.renew()
	p.mu.Unlock()
	p.running.Add(1)
	go p.tick()
	return p, nil
}

// Block is the process's block.
func (p *Process) Block() *Block { return p.block.Load() }

// Router is the block's router.
func (p *Process) Router() *Router { return p.block.Load().Router() }

// Config is the block's, resolved.
func (p *Process) Config() *Config { return p.config }

// Lease owns what this process books; 0 before there is one. It may change when the process was stopped for longer than
// LeaseTTLMs.
func (p *Process) Lease() uint32 { return p.leaseID.Load() }

// use keeps the block mapped until p.running.Done; false: the process is closed.
func (p *Process) use() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Add(1)
	}
	return !p.closed
}

// Close ends the lease, which gives back what is booked, and unmaps the block; a Probe that runs ends first. Nobody may
// use the process any more.
func (p *Process) Close() {
	p.mu.Lock()
	p.closed = true
	close(p.quit)
	p.dropWake()
	p.mu.Unlock()
	p.running.Wait()
	if p.lease != nil {
		p.lease.Close(Now())
		p.Block().WakePending() // what was given back may release others' requests
	}
	for _, l := range p.left {
		l.block.Close()
	}
	p.Block().Close()
}

// follow goes on with the block that the path names now, if that is another. With the lock.
func (p *Process) follow() bool {
	if p.closed || time.Since(p.lost) < time.Second {
		return false
	}
	old := p.Block()
	next, err := old.Follow(p.options.Config, p.options.Flags)
	if err != nil {
		p.lost = time.Now()
		p.log.Error("pdroute: the block file was truncated, replaced or removed", "error", err)
		return false
	}
	if next == nil {
		return false
	}
	p.log.Warn("pdroute: the block file was truncated, replaced or removed: going on with what is there", "path", p.options.Path)
	if p.options.Followed != nil {
		p.options.Followed(next.Router())
	}
	lease := p.lease
	p.dropWake()
	p.lease = nil
	p.leaseID.Store(0)
	p.block.Store(next)
	_ = p.renewLease()
	if lease != nil {
		lease.Close(Now())
		old.WakePending() // others may still use that block
	}
	p.left = append(p.left, leftBlock{old, leftTicks})
	for _, told := range p.held { // their tickets are not known there
		select {
		case told <- struct{}{}:
		default:
		}
	}
	return true
}

// dropLeft closes what nobody can be inside any more. With the lock.
func (p *Process) dropLeft() {
	kept := p.left[:0]
	for _, l := range p.left {
		if l.ticks--; l.ticks > 0 {
			kept = append(kept, l)
		} else {
			l.block.Close()
		}
	}
	p.left = kept
}

// renew opens or renews the lease, on another block if need be. With the lock.
func (p *Process) renew() error {
	if p.follow() && p.lease != nil {
		return nil
	}
	return p.renewLease()
}

func (p *Process) renewLease() error {
	if p.closed {
		return ErrLease
	}
	var err error
	if p.lease != nil {
		if err = p.lease.Renew(Now()); err == nil {
			return nil
		}
		p.log.Warn("pdroute: lease", "error", err)
		if !errors.Is(err, ErrLease) {
			return err
		}
		p.dropWake() // a new lease with a new socket is in place
	} else if p.lease, err = p.Block().OpenLease(p.options.Name, Now()); err != nil {
		p.lease = nil
		if time.Since(p.silent) > time.Second {
			p.silent = time.Now()
			p.log.Error("pdroute: no lease", "error", err)
		}
		return err
	}
	p.leaseID.Store(p.lease.ID())
	p.listen()
	return nil
}

func (p *Process) dropWake() {
	if p.wake != nil {
		p.wake.Close()
		p.wake = nil
	}
}

// listen starts a goroutine on the lease's wake socket, or rather on a duplicate, since both sides close theirs.
func (p *Process) listen() {
	if p.lease.WakeFD() < 0 {
		return // ticks look for tickets
	}
	fd, err := dup(p.lease.WakeFD())
	if err != nil {
		p.log.Error("pdroute: wake-up socket", "error", err)
		return
	}
	wake := os.NewFile(uintptr(fd), "pdroute wake")
	p.wake = wake
	p.running.Add(1)
	go func() {
		defer p.running.Done()
		var b [16]byte
		for {
			if _, err := wake.Read(b[:]); err != nil {
				return // closed
			}
			p.takeReleased()
		}
	}()
}

func (p *Process) tick() {
	defer p.running.Done()
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-t.C:
		}
		p.mu.Lock()
		_ = p.renew()
		p.dropLeft()
		block := p.Block()
		p.mu.Unlock()
		if err := block.Tick(Now()); err != nil && !errors.Is(err, ErrBusy) {
			p.log.Error("pdroute: tick", "error", err)
		}
		p.takeReleased()
	}
}

// takeReleased tells those who wait for tickets that may be taken.
func (p *Process) takeReleased() {
	var tickets [32]uint64
	for {
		p.mu.Lock()
		n := len(p.held)
		p.mu.Unlock()
		if n == 0 {
			return
		}
		n, err := p.Router().Released(p.Lease(), tickets[:])
		if err != nil {
			return
		}
		p.mu.Lock()
		for _, t := range tickets[:n] {
			if told := p.held[t]; told != nil { // else its client left meanwhile
				select {
				case told <- struct{}{}:
				default:
				}
			}
		}
		p.mu.Unlock()
		if n < len(tickets) {
			return
		}
	}
}

// Route decides for a scanned prompt, and waits while the request is held: d.Outcome is Send unless there is an error.
// When ctx is done while it waits the ticket is given up, and the error is ctx's. held is the time it waited. q.Lease
// and q.NowNs are filled in.
func (p *Process) Route(ctx context.Context, prompt *Prompt, hashes []uint64, q *Request, d *Decision) (held time.Duration, err error) {
	var since time.Time
	for {
		if err := p.route(prompt, hashes, q, d); err != nil {
			return held, err
		}
		if d.Outcome == Send {
			return held, nil
		}
		if since.IsZero() {
			since = time.Now()
		}
		err := p.await(ctx, hashes, d)
		held = time.Since(since)
		if !errors.Is(err, ErrNotFound) {
			return held, err
		}
		// its lease ended meanwhile: in line again
	}
}

// RouteNow decides without waiting: a request that would be held is refused with ErrQueueFull or ErrNoPair.
func (p *Process) RouteNow(prompt *Prompt, hashes []uint64, q *Request, d *Decision) error {
	q.Flags |= RequestNoHold
	return p.route(prompt, hashes, q, d)
}

func (p *Process) route(prompt *Prompt, hashes []uint64, q *Request, d *Decision) error {
	for again := true; ; again = false {
		q.Lease, q.NowNs = p.Lease(), Now()
		err := p.Router().RoutePrompt(prompt, hashes, q, d)
		if !again || !errors.Is(err, ErrLease) && !errors.Is(err, ErrBlockCorrupt) {
			return err
		}
		// the process was stopped for so long that its lease ended, or the block is another
		p.mu.Lock()
		renewed := p.renew()
		p.mu.Unlock()
		if renewed != nil && p.Lease() == q.Lease {
			return err
		}
	}
}

// await waits for the ticket d.Booking.
func (p *Process) await(ctx context.Context, hashes []uint64, d *Decision) error {
	ticket := d.Booking
	told := make(chan struct{}, 1)
	p.mu.Lock()
	p.held[ticket] = told
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.held, ticket)
		p.mu.Unlock()
	}()
	// wake-ups are told once, perhaps before we were in the map: so one look at first; and one when its time is over
	late := time.NewTimer(time.Duration(p.config.HoldMaxWaitMs)*time.Millisecond + tickInterval)
	defer late.Stop()
	for {
		err := p.Router().TakeTicket(ticket, hashes, Now(), d)
		switch codeOf(err) {
		case ErrAgain:
		case ErrBusy:
			late.Reset(tickInterval)
		default:
			p.Block().WakePending()
			return err
		}
		select {
		case <-told:
		case <-late.C:
			late.Reset(tickInterval)
		case <-ctx.Done():
			_ = p.Router().CancelTicket(ticket, Now())
			p.Block().WakePending()
			return context.Cause(ctx)
		}
	}
}

// Apply brings the block's servers in line with a document, and logs what it warns of.
func (p *Process) Apply(json []byte, flags ApplyFlags) (*ApplyReport, error) {
	report, err := p.Router().Apply(json, flags, Now())
	if err == nil {
		for _, w := range report.Warning {
			p.log.Warn("pdroute: " + w)
		}
		p.Block().WakePending()
	}
	return report, err
}
