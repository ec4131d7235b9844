"""What the suite wants of a gateway under test. A host is a subclass `Gateway` in hosts/NAME.py."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parents[3]

# What not every gateway can; `can` of a host names what it does, and tests say what they need (`@needs("reload")`).
FEATURES = {
    "reload": "reload() takes a changed configuration (write_config) while requests run",
    "workers": "several processes serve (option workers=2): worker_pids()",
    "restart": "stop() and start() again on the same block",
    "recovers": "a block file that was truncated, replaced or removed is followed without a restart",
    "log": "log() has an entry per request: uri, status, prefill, decode, attempts, why",
    "config_check": "check() looks at a configuration without running, and leaves nothing behind",
    "h2": "h2_port speaks HTTP/2 without TLS",
    "tls": "tls_port speaks HTTPS, HTTP/1.1 and HTTP/2",
    "expect": "Expect: 100-continue is answered",
    "other_paths": "paths that generate nothing go to one server",
    "status": "/pdroute is the status page",
    "methods": "a wrong method on a generating path is 405 with Allow",
    "merge": "prompt logprobs come from prefill's answer (pdr_merge_text)",
    "held_leave": "a client that leaves while its request is held is noticed at once",
}

# in a line of a log that must not be there
ALARMING = ("AddressSanitizer", "LeakSanitizer", "runtime error:", "panic:", "Traceback (most recent call last)", "SIGSEGV", "DATA RACE")

BLOCK = 32
_claims = []  # sockets: each keeps BLOCK ports from other processes for as long as this one lives
_left = []    # ports of ours that nobody was given yet
_claiming = threading.Lock()  # lanes are threads


def _claim():
    """The ports of another block. A socket of a name that says which: the system knows it as long as we live, and gives it to one process only."""
    least, end = 10240, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if end - least < 100 * BLOCK:  # a system that gives most ports to connections: one may have ours, then binding says so
        end = 32768
    while True:
        first = least + BLOCK * random.randrange((end - least) // BLOCK)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0pdroute-test-ports-{first}")
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return list(range(first, first + BLOCK))


def free_ports(n):
    """
    Below those that the system gives to connections: until the gateway binds them, nobody else is given one, by no process of these tests. (Rows run
    beside each other, and so do labels.) Each is given once.
    """
    found = []
    with _claiming:
        while len(found) < n:
            if not _left:
                _left.extend(_claim())
            port = _left.pop()
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    continue  # a server that is not ours
            found.append(port)
    return found


def endpoints_of(fleet):
    """The fleet as the member `endpoints` of a configuration."""
    listed = []
    for worker in fleet.workers:
        role = {"prefill": "prefill", "decode": "decode", "unified": "both"}[worker.role]
        entry = {"role": role, "host": worker.host, "port": worker.port}
        if worker.role == "prefill":
            entry["bootstrap_port"] = worker.bootstrap_port
            if worker.bootstrap_host not in (None, worker.host):
                entry["bootstrap_host"] = worker.bootstrap_host
        listed.append(entry)
    return listed


class Host:
    """A gateway: made from a directory of its own and a router configuration, started and stopped by the suite.

    A subclass gives `command()` (and `write()` if it needs files), and says what it can.
    """

    name = "host"
    can = frozenset()       # of FEATURES
    options = frozenset()   # keyword arguments beyond config and workers that __init__ understands
    # {pattern of a test's or a row's name (fnmatch): reason}: what it cannot do at all. Skipped, with the reason.
    cannot = {}
    # {pattern of a row's name: {"reason": …, field: value, …}}: the next best outcome, which is then asserted
    instead = {}
    # {row of test_http.CORPUS: (its statuses, reason)}: where HTTP leaves a choice and this host's is not among the row's
    http = {}
    # {row of test_http2.CORPUS: (status, path of what arrives, reason)}: the same for HTTP/2
    http2 = {}
    stop_signal = signal.SIGTERM
    start_timeout = 20

    def __init__(self, directory, endpoints, config=None, workers=1, **options):
        unknown = set(options) - set(self.options)
        if unknown:
            raise TypeError(f"{self.name} has no option {', '.join(sorted(unknown))}")
        self.dir = Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.config = {"seed": random.getrandbits(62) + 1, "index_entries": 65536, "max_bookings": 4096, **(config or {}), "endpoints": endpoints}
        self.workers = workers
        self.given = options
        self.port, = free_ports(1)
        self.block = self.dir / "block"          # the router block, where block.py opens it
        self.config_file = self.dir / "zone.json"  # pdr_config and endpoints
        self.process = None
        self.marked = 0
        self.expect_alerts = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    # ---- to be given by a host

    def command(self):
        """Argument list of the process that is the gateway. It is to listen on 127.0.0.1:self.port."""
        raise NotImplementedError

    def write(self):
        """Files that it reads, in self.dir."""
        self.write_config()

    def environment(self):
        return dict(os.environ)

    def reload(self):
        raise NotImplementedError(f"{self.name} cannot reload")

    def log(self):
        """With "log": requests since the last mark(), oldest first, as dictionaries."""
        return []

    def logged(self, n, wanted=lambda entry: True, timeout=30):
        """Those entries of log() that are wanted, once there are n or more: a server writes one after the last byte of the answer has gone out."""
        end = time.monotonic() + timeout
        while len(found := [entry for entry in self.log() if wanted(entry)]) < n:
            assert time.monotonic() < end, f"{len(found)} of {n} in the log: {found}"
            time.sleep(0.02)
        return found

    def mark(self):
        pass

    def alerts(self):
        """Lines of its logs that must not be there."""
        return [line for line in self.errors().splitlines() if any(w in line for w in ALARMING)]

    def excerpt(self, length=3000):
        """Of its logs what a failure is to show: the end, and before it the first alarm from its first line on. Reports name who did it first."""
        text = self.errors()
        first = min((text.index(w) for w in ALARMING if w in text), default=len(text))
        first = text.rfind("\n", 0, first) + 1
        if first >= len(text) - length:
            return text[-length:]
        return f"{text[first:first + 2 * length]}\n[…]\n{text[max(first + 2 * length, len(text) - length):]}"

    def log_files(self):
        return [self.dir / "stderr"]

    def dialers(self):
        """Processes of it that may connect to workers."""
        found, new = set(), {self.process.pid}
        while new:
            found |= new
            out = subprocess.run(["ps", "--ppid", ",".join(map(str, new)), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout
            new = {int(pid) for pid in out.split()} - found
        return found

    # ---- common

    def write_config(self, text=None):
        new = self.config_file.with_suffix(".new")
        new.write_text(text if text is not None else json.dumps(self.config, indent=1))
        new.rename(self.config_file)  # at no time half a file

    def errors(self):
        return "".join(f.read_text(errors="replace") for f in self.log_files() if f.exists())

    def start(self, write=True):
        if write:
            self.write()
        with (self.dir / "stderr").open("ab") as out:
            self.process = subprocess.Popen(self.command(), stdout=out, stderr=out, env=self.environment(), cwd=self.dir)
        end = time.monotonic() + self.start_timeout
        while time.monotonic() < end:
            if self.process.poll() is not None:
                self.process = None
                raise RuntimeError(f"{self.name} did not start: {self.errors()[-3000:]}")
            if self.listens():
                return self
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} does not listen: {self.errors()[-3000:]}")

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            return True
        except OSError:
            return False

    def all_pids(self):
        """Its child processes."""
        out = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout
        return [int(p) for p in out.split()]

    def worker_pids(self):
        """Processes that take new connections."""
        return self.all_pids() or [self.process.pid]

    def stop(self, how=None, timeout=10):
        """Asks it to end gracefully; seconds it took. What does not end by itself is killed, and that is an error."""
        if self.process is None:
            return 0
        began = time.monotonic()
        pids = self.all_pids()
        self.process.send_signal(how or self.stop_signal)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            for pid in [self.process.pid, *pids]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
            raise RuntimeError(f"{self.name} did not end") from None
        finally:
            self.process = None
        return time.monotonic() - began

    def status(self):
        with urllib.request.urlopen(f"{self.url}/pdroute", timeout=5) as answer:
            return json.loads(answer.read())

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
