"""What test_kills.py plays with: nginx with several workers, its simulated servers, a probe, pdroutectl commands and client processes, all on one block, and one of
them after the other killed or stopped.

Of each kill or stop is measured, from the instant at which the process is dead (or stopped; what the kernel takes for that is counted by itself):

* `call`: until a call of this process on the block has returned, the lock taken and given back;
* `routed`: until some process has routed a request, by the block's counter.

Not in these: how long nginx's master takes to start another worker (`respawn`), and how long nobody listens when the master is killed, too (`restart`): that is
the time until what was killed is there again, not one for which others are held up.
"""

import ctypes
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from block import Block, Stats
from sglang_sim.harness import wait_for

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
CTL = next((p for p in (Path(os.environ.get("PDR_CTL", "")), TOP / "build/gcc/bin/pdroutectl", TOP / "build/bin/pdroutectl") if p.is_file()), None)
BUSY = -13  # PDR_E_BUSY
CLIENTS, THREADS = 3, 3


def state_of(pid):
    """Its letter in /proc, X: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def wait_state(pid, letters, timeout=10.0):
    end = time.monotonic() + timeout
    while state_of(pid) not in letters:
        assert time.monotonic() < end, f"process {pid} is {state_of(pid)}, not {letters}"
        time.sleep(0.0005)


def served_by_others(port, pid):
    """Connections of clients to this port that the process has not got: other processes' (or nobody's yet). Each is a request that others could route."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if int(row[1].rsplit(":", 1)[1], 16) == port and row[3] in ("01", "08")}
    own = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(os.readlink(fd).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            pass
    return len(inodes - own)


@dataclass
class Event:
    """A kill (`until` is then when it was over for clients), or a stop from `at` until `until`."""

    how: str
    whom: str
    pid: int
    at: float
    until: float = 0.0
    died: float = 0.0       # seconds from the signal to the process's death (or stop)
    call: float = 0.0
    routed: float = 0.0
    longest: float = 0.0    # stops: the longest time in which nobody routed although there was somebody to route for
    alone: float = 0.0      # stops of an nginx worker: the longest time in which all clients there are waited for it
    seen: str = ""          # when nobody had routed for a second: what the block said
    after: float = 0.0      # stops: from its going on until somebody routed
    held_lock: bool = False  # others were told PDR_E_BUSY
    respawn: float = None
    restart: float = None

    @property
    def of_gateway(self):
        return self.whom in ("worker", "master")


class Watch:
    """The block as this process sees it."""

    def __init__(self, path):
        self.block = Block(path)
        self.stats = Stats(struct_size=ctypes.sizeof(Stats))

    def look(self):
        """Counters, or None: PDR_E_BUSY."""
        code = self.block.library.pdr_stats_get(self.block.router, ctypes.byref(self.stats))
        assert code in (0, BUSY), f"pdr_stats_get: {code}"
        return None if code else self.stats

    def until_routed(self, event, limit):
        """Fills `call` and `routed`: from now on, when `event` has just happened."""
        began = time.monotonic()
        first = self.look()
        event.call = time.monotonic() - began
        while first is None and time.monotonic() - began < limit:
            event.held_lock = True
            first = self.look()
        assert first is not None, f"{event}: nobody gets the lock"
        routed = first.routed
        while self.stats.routed == routed:
            event.routed = time.monotonic() - began
            assert event.routed < limit, f"nobody has routed for {event.routed:.1f} s after {event}"
            time.sleep(0.001)
            event.held_lock |= self.look() is None
        event.routed = time.monotonic() - began


class Commands(threading.Thread):
    """pdroutectl, one command after the other."""

    def __init__(self, gw, spare):
        super().__init__()
        self.gw, self.spare, self.ending, self.now, self.done, self.failed = gw, spare, False, None, 0, []
        self.body = gw.dir / "body.json"
        self.body.write_text('{"text": "where would this go", "sampling_params": {"max_new_tokens": 4}}')

    def commands(self):
        puts = [["put", w.name, "--role", w.role, "--host", w.host, "--port", str(w.port)] + (["--bootstrap-port", str(w.bootstrap_port)] if w.bootstrap_port else [])
                for w in self.spare]
        takes = [[word, w.name] for w in self.spare for word in ("drain", "undrain", "remove")]
        looks = [["list"], ["top", "--once"], ["check"], ["check"], ["check"], ["check", "--ready"], ["stats", "--prometheus"], ["stats", "--status"], ["log", "-v"],
                 ["explain", str(self.body)]]
        return puts * 2, takes, looks * 2

    def run(self):
        rng, (puts, takes, looks) = random.Random(1), self.commands()
        while not self.ending:
            words = rng.choice(puts + takes + looks)
            self.now = subprocess.Popen([CTL, "--block", self.gw.block, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            out, said = self.now.communicate()
            self.done += 1
            # 1: what it was to drain or remove is not there; what a stopped process holds up is named
            if self.now.returncode > 1 or (self.now.returncode == 1 and words not in takes and "lock" not in said + out and "busy" not in said + out):
                self.failed.append((words, self.now.returncode, said, out[-500:]))
            time.sleep(rng.random() * 0.1)


@dataclass
class Stage:
    """Everybody, started; `strike()` kills or stops one at random."""

    gw: object
    fleet: object
    spare: list
    rng: random.Random
    events: list = field(default_factory=list)
    clients: list = field(default_factory=list)
    numbers: object = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self):
        self.lines = self.gw.dir / "clients"
        self.pids = set(self.gw.worker_pids())
        self.watch = Watch(self.gw.block)
        self.commands = Commands(self.gw, self.spare)
        self.start_probe()
        self.clients = [self.new_client() for _ in range(CLIENTS)]
        self.commands.start()
        assert wait_for(lambda: self.watch.look().routed > 50, timeout=20), "the clients do not send"

    def new_client(self):
        return subprocess.Popen([sys.executable, HERE / "kills_client.py", str(self.gw.port), self.lines, str(next(self.numbers)), str(THREADS)])

    def start_probe(self):
        self.probe = subprocess.Popen([CTL, "--block", self.gw.block, "probe", "--quiet", "--interval", "0.2"], stderr=(self.gw.dir / "probe").open("ab"))

    def workers(self):
        """Those of the present master."""
        try:
            pids = Path(f"/proc/{self.gw.process.pid}/task/{self.gw.process.pid}/children").read_text().split()
        except OSError:
            return self.gw.worker_pids()
        return [int(p) for p in pids if state_of(int(p)) not in "ZX"]

    # ---- one kill

    def victim(self):
        """(whom, pid), nobody who ends by itself first but for commands."""
        while True:
            whom = self.rng.choices(("worker", "client", "command", "probe", "master"), (50, 14, 16, 12, 8))[0]
            if whom == "worker":
                found = self.workers()
                if len(found) < self.gw.workers:  # one is on its way: two deaths in a row would be no test of the others
                    time.sleep(0.005)
                    continue
                return whom, self.rng.choice(found)
            if whom == "client":
                return whom, self.rng.choice(self.clients).pid
            if whom == "command":
                now = self.commands.now
                if now is None or now.poll() is not None:
                    time.sleep(0.002)
                    continue
                return whom, now.pid
            return whom, self.probe.pid if whom == "probe" else self.gw.process.pid

    def kill(self):
        whom, pid = self.victim()
        before = set(self.workers())
        event = Event("kill", whom, pid, time.monotonic())
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            assert whom == "command", whom  # it had ended, and its thread knew: another one
            return self.kill()
        self.events.append(event)
        wait_state(pid, "ZX")
        event.died = time.monotonic() - event.at
        self.watch.until_routed(event, 5)
        if whom == "worker":
            assert wait_for(lambda: len(set(self.workers()) - before) == 1, timeout=10, interval=0.001), "no new worker"
            event.respawn = time.monotonic() - event.at
        elif whom == "client":
            gone = next(c for c in self.clients if c.pid == pid)
            gone.wait()
            self.clients[self.clients.index(gone)] = self.new_client()
        elif whom == "probe":
            self.probe.wait()
            self.start_probe()
        elif whom == "master":
            self.start_master(event, before)
        event.until = time.monotonic()

    def start_master(self, event, orphans):
        """Its workers go on without it, but keep the port from another: they are told to end, or killed as well, as a supervisor does."""
        self.gw.process.wait()
        time.sleep(self.rng.random() * 0.2)
        began, how = time.monotonic(), self.rng.choice((signal.SIGQUIT, signal.SIGKILL))
        for pid in orphans:
            os.kill(pid, how)
        if how == signal.SIGKILL:
            for pid in orphans:
                wait_state(pid, "ZX")
        self.gw.start(write=False)  # nginx tries for two seconds to get the port
        event.restart = time.monotonic() - began
        assert wait_for(lambda: len(self.workers()) == self.gw.workers, timeout=10, interval=0.005)

    # ---- one stop

    def stop(self, seconds, whom=None):
        while True:
            chosen, pid = self.victim()
            if whom in (None, chosen):
                break
        event = Event("stop", chosen, pid, time.monotonic())
        self.events.append(event)
        os.kill(pid, signal.SIGSTOP)
        wait_state(pid, "TZX")
        if state_of(pid) != "T":  # a command that had ended
            self.events.pop()
            return self.stop(seconds, whom)
        event.died = time.monotonic() - event.at
        last, routed, end = time.monotonic(), None, time.monotonic() + seconds
        waited = last
        while (now := time.monotonic()) < end:
            seen = self.watch.look()
            event.held_lock |= seen is None
            if seen and seen.routed != routed:
                routed, last, waited = seen.routed, now, now
            if chosen == "worker" and now - last > 0.1 and not served_by_others(self.gw.port, pid):
                event.alone, last = max(event.alone, now - waited), now
            event.longest = max(event.longest, time.monotonic() - last)
            if event.longest > 1 and seen and not event.seen:
                event.seen = f"{served_by_others(self.gw.port, pid)} clients of others, held {seen.held_now}, bookings {seen.bookings}, leases {seen.leases}"
            time.sleep(0.002)
        os.kill(pid, signal.SIGCONT)
        after = Event("go on", chosen, pid, time.monotonic())
        self.watch.until_routed(after, 10)
        event.after = after.routed
        event.until = time.monotonic()
        return event

    def stop_holder(self, seconds):
        """Stops a `pdroutectl check` that has the lock, which nobody can take from it: all others hear PDR_E_BUSY until it goes on, or is killed."""
        for _ in range(500):
            check = subprocess.Popen([CTL, "--block", self.gw.block, "check"], stdout=subprocess.DEVNULL)
            time.sleep(self.rng.random() * 0.02)
            check.send_signal(signal.SIGSTOP)
            wait_state(check.pid, "TZX")
            event = Event("stop", "command", check.pid, time.monotonic(), held_lock=True)
            if self.watch.look() is None:
                break
            check.send_signal(signal.SIGCONT)
            check.wait()
        else:
            raise AssertionError("no check was ever stopped with the lock")
        self.events.append(event)
        event.call = time.monotonic() - event.at
        while (now := time.monotonic()) < event.at + seconds:
            assert self.watch.look() is None, "the lock was taken from a process that lives"
            event.longest = max(event.longest, time.monotonic() - now)
        check.send_signal(self.rng.choice((signal.SIGCONT, signal.SIGKILL)))
        after = Event("go on", "command", check.pid, time.monotonic())
        self.watch.until_routed(after, 10)
        event.after = after.routed
        check.wait()
        event.until = time.monotonic()

    # ---- the end

    def end(self):
        """Clients are killed in the middle of it, the rest ends as it should."""
        for client in self.clients:
            self.events.append(Event("kill", "client", client.pid, time.monotonic(), time.monotonic()))
            client.kill()
            client.wait()
        self.commands.ending = True
        self.commands.join()
        self.probe.terminate()
        assert self.probe.wait(10) == 0, (self.gw.dir / "probe").read_text()

    def abandon(self):
        """What is left after a failure."""
        self.commands.ending = True
        for process in [*self.clients, self.probe]:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
        if self.commands.now and self.commands.now.poll() is None:
            self.commands.now.send_signal(signal.SIGCONT)
        self.commands.join()
        if self.gw.process:
            for pid in [self.gw.process.pid, *self.workers()]:
                os.kill(pid, signal.SIGCONT)

    def requests(self):
        """(began, ended or None, how, what) of each, with the number of the client process."""
        begun, ends = {}, []
        for line in self.lines.read_text().splitlines():
            name, what, at, *rest = line.split(" ", 4)
            if what == "begin":
                begun[name] = float(at)
            else:
                ends.append((begun.pop(name), float(at), rest[0], rest[1] if len(rest) > 1 else "", name))
        return ends, [(at, None, "unfinished", "", name) for name, at in begun.items()]
