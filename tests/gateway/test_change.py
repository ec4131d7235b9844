"""Change under load: whatever operators do to servers and gateway, no request fails that had a usable pair.

Short by default (some hundred requests for each change). PDROUTE_LONG=1 (tests/run --long) makes it 30,000 requests at concurrency 64.
"""

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from block import Block
from conftest import block_stats
from hosts.host import endpoints_of
from sglang_sim.harness import wait_for
from table import Outcome
from test_hostile import Endpoint
from traffic import dumps, body

LONG = bool(os.environ.get("PDROUTE_LONG"))
CLIENTS, AT_LEAST = (64, 5000) if LONG else (12, 150)  # per test: six of them are 30,000
CONFIG = {"breaker_open_ms": 200, "max_bookings": 8192}
OTHER = os.environ.get("PDROUTE_NGINX_MODULE_OTHER")  # a module whose blocks have another layout; without it the number in the block is changed, as such a module would find it


class Load:
    """Clients that send as long as they are let. `failed`: answers that are not whole; `refused`: 503 no_pair."""

    def __init__(self, gw, stream=None):
        self.gw, self.stream, self.failed, self.refused, self.done, self.stopping = gw, stream, [], [], 0, False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(CLIENTS)]
        for t in self.threads:
            t.start()

    def run(self, n):
        i = 0
        while not self.stopping:
            i += 1
            api = ("chat", "generate", "completions")[(n + i) % 3]
            stream = (n + i) % 2 == 0 if self.stream is None else self.stream
            try:
                outcome = Outcome(self.gw, api, dumps(body(api, text=f"client {n} request {i}", stream=stream)), timeout=60)
                whole = outcome.whole(api, stream)
            except Exception as error:  # noqa: BLE001 - every one is a failed request
                outcome, whole = error, False
            with self.lock:
                self.done += 1
                if not whole:
                    no_pair = getattr(outcome, "status", 0) == 503 and outcome.error["code"] == "no_pair"
                    (self.refused if no_pair else self.failed).append(getattr(outcome, "text", repr(outcome))[-300:])
            if getattr(outcome, "status", 0) == 503:
                time.sleep(0.05)

    def wait(self, more):
        until = self.done + more
        assert wait_for(lambda: self.done >= until, timeout=120 if LONG else 30), f"{self.done} requests were served"

    def stop(self):
        self.wait(max(0, AT_LEAST - self.done))
        self.stopping = True
        for t in self.threads:
            t.join()
        assert not self.failed, (len(self.failed), self.done, self.failed[:3])
        return self


class Servers:
    """The endpoints of a gateway, through its block."""

    def __init__(self, gw):
        self.block = Block(gw.block)

    def id_of(self, name):
        number = ctypes.c_uint32()
        assert self.block.library.pdr_endpoint_find(self.block.router, name.encode(), ctypes.byref(number)) == 0, name
        return number

    def drain(self, name, on):
        self.block.call("pdr_endpoint_drain", self.block.router, self.id_of(name), on)

    def put(self, name, worker):
        role = {"prefill": 1, "decode": 2}[worker.role]
        e = Endpoint(struct_size=ctypes.sizeof(Endpoint), role=role, port=worker.port, name=name.encode(), host=worker.host.encode(),
                     bootstrap_port=worker.bootstrap_port or 0)
        self.block.call("pdr_endpoint_put", self.block.router, ctypes.byref(e), ctypes.c_uint64(0), None)

    def remove(self, name):
        self.block.call("pdr_endpoint_remove", self.block.router, self.id_of(name))

    def idle(self, worker):
        return all(r.end or r.disconnected for r in worker.requests(last=200))


def restart(worker):
    """The process ends, and is back after a second: long enough for its partners to notice (two of their heartbeats), as with real ones, which take a minute."""
    def listens():
        try:
            socket.create_connection((worker.host, worker.port), 0.2).close()
            return True
        except OSError:
            return False

    worker.fault(kind="crash", restart_after=1.0)
    assert wait_for(lambda: not listens(), timeout=10) and wait_for(listens, timeout=10)


def children_of(pid):
    out = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout
    return [int(p) for p in out.split()]


def set_layout(path, step):
    with path.open("r+b") as file:  # the number behind the magic; read at opening only
        file.seek(8)
        number = int.from_bytes(file.read(4), "little")
        file.seek(8)
        file.write((number + step).to_bytes(4, "little"))


@pytest.fixture
def loaded(fleet, make_gateway, request):
    """A gateway with clients at it, that must all be served to the end."""
    gw = make_gateway(fleet, config=CONFIG)
    load = Load(gw, stream=getattr(request, "param", None))
    load.wait(20)
    yield gw, load
    if not load.stopping:
        load.stop()


def test_rolling_restart(loaded, fleet):
    """Each server is drained, restarted when it is idle, and taken back."""
    gw, load = loaded
    servers = Servers(gw)
    for worker in fleet.workers:
        servers.drain(worker.name, 1)
        assert wait_for(lambda: servers.idle(worker), timeout=20)
        time.sleep(0.1)
        restart(worker)
        servers.drain(worker.name, 0)
        load.wait(CLIENTS)
    assert not load.stop().refused


@pytest.mark.parametrize("loaded", [False], indirect=True, ids=["plain"])
def test_restart_without_a_word(loaded, fleet):
    """Servers are killed and come back: answers that had not begun come from another pair."""
    gw, load = loaded
    for worker in fleet.workers:
        restart(worker)
        time.sleep(1)  # within which it is used again
        load.wait(3 * CLIENTS)
    assert not load.stop().refused


def test_role_switch(start_fleet, make_gateway):
    """One name is a prefill server, then a decode server, and back."""
    fleet = start_fleet(prefill=2, decode=2, speed=0)
    endpoints = endpoints_of(fleet)
    steady = [e for e in endpoints if e["port"] not in (fleet.prefills[1].port, fleet.decodes[1].port)]
    gw = make_gateway(steady, config=CONFIG)
    servers, load = Servers(gw), Load(gw)
    for worker in (fleet.prefills[1], fleet.decodes[1]) * 3:
        servers.put("switching", worker)
        load.wait(3 * CLIENTS)
    servers.remove("switching")
    load.wait(CLIENTS)
    assert not load.stop().refused
    assert all(w.requests() for w in (fleet.prefills[1], fleet.decodes[1])), "it was never used"


def test_pool_to_zero_and_back(loaded, fleet):
    gw, load = loaded
    servers = Servers(gw)
    for workers in (fleet.prefills, fleet.decodes, fleet.workers):
        for worker in workers:
            servers.drain(worker.name, 1)
        assert wait_for(lambda: load.refused, timeout=10)
        for worker in workers:
            servers.drain(worker.name, 0)
        back = time.monotonic()
        load.refused.clear()
        load.wait(2 * CLIENTS)
        assert time.monotonic() - back < 10
    load.stop()


@pytest.mark.needs("reload")
def test_reload_with_a_changed_configuration(loaded, fleet):
    gw, load = loaded
    everything = gw.config["endpoints"]
    for endpoints in (everything[:3], everything, everything[1:], everything):
        gw.config["endpoints"] = endpoints
        gw.write_config()
        before = set(gw.worker_pids())
        gw.reload()
        assert wait_for(lambda: set(gw.worker_pids()) - before, timeout=20) or "workers" not in gw.can
        load.wait(2 * CLIENTS)
    assert not load.stop().refused


@pytest.mark.only("nginx")
@pytest.mark.parametrize("layout", [True, False], ids=["layout", "capacities"])
def test_new_block_under_load(fleet, make_gateway, layout):
    """A reload finds a block of another layout (as a new module does), or has other capacities: with `recreate` the new workers have a block of their own, the old
    ones end on theirs, and no request fails."""
    gw = make_gateway(fleet, config=CONFIG, recreate=True)
    load = Load(gw)
    load.wait(2 * CLIENTS)
    inode = gw.block.stat().st_ino
    if layout:
        set_layout(gw.block, -1)
    else:
        gw.config["max_held"] = 512
        gw.write_config()
    before = set(gw.worker_pids())
    gw.reload()
    assert wait_for(lambda: set(gw.worker_pids()) - before, timeout=20), gw.errors()
    load.wait(4 * CLIENTS)
    assert not load.stop().refused
    assert gw.block.stat().st_ino != inode and re.search(r"replaced .*: block (has layout|was made with)", gw.errors()), gw.errors()
    assert wait_for(lambda: not before & set(gw.all_pids()), timeout=20), "the old workers are still there"


@pytest.mark.only("nginx")
def test_new_block_is_refused_unless_asked_for(fleet, make_gateway):
    """Without `recreate` the reload is refused with the reason, and the running configuration goes on."""
    gw = make_gateway(fleet, config=CONFIG)
    gw.expect_alerts = True
    load, inode = Load(gw), gw.block.stat().st_ino
    load.wait(CLIENTS)
    gw.config["max_held"] = 512
    gw.write_config()
    before = gw.worker_pids()
    gw.reload()
    assert wait_for(lambda: 'add "recreate"' in gw.errors(), timeout=10), gw.errors()
    said = next(line for line in gw.errors().splitlines() if 'add "recreate"' in line)
    assert said.count(str(gw.block)) == 1, said
    load.wait(2 * CLIENTS)
    assert not load.stop().refused
    assert gw.worker_pids() == before and gw.block.stat().st_ino == inode


@pytest.mark.only("nginx")
@pytest.mark.parametrize("layout", ["same", "other"])
def test_binary_upgrade(layout, fleet, make_gateway):
    """USR2, WINCH, QUIT, as nginx's manual has it: two masters share the block for a while; or, where the new module has another layout, each has its own."""
    gw = make_gateway(fleet, config=CONFIG, start=False, recreate=layout == "other")
    gw.write()
    conf = gw.dir / "nginx.conf"
    conf.write_text(conf.read_text().replace("daemon off;", "daemon on;"))
    ours = re.search(r"load_module (.*);", conf.read_text())[1]
    pid_file = gw.dir / "nginx.pid"
    subprocess.run(gw.command(), check=True, stderr=subprocess.DEVNULL)

    def master():
        try:
            return int(pid_file.read_text())
        except (OSError, ValueError):
            return None

    def alive(pid):
        return os.path.exists(f"/proc/{pid}") and "Z" not in open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]

    load = None
    try:
        assert wait_for(lambda: master() and gw.listens(), timeout=10)
        load = Load(gw)
        for turn in range(2):
            load.wait(2 * CLIENTS)
            old, inode = master(), gw.block.stat().st_ino
            if layout == "other" and OTHER:
                conf.write_text(conf.read_text().replace(*((ours, OTHER) if turn == 0 else (OTHER, ours))))
            elif layout == "other":
                set_layout(gw.block, -1)
            os.kill(old, signal.SIGUSR2)
            assert wait_for(lambda: master() not in (None, old) and children_of(master()), timeout=20), gw.errors()
            if layout == "same":
                assert wait_for(lambda: block_stats(gw)["leases"] == 2, timeout=10), block_stats(gw)
            else:
                assert gw.block.stat().st_ino != inode, "the new master uses the old one's block"
                load.wait(2 * CLIENTS)  # both serve, on blocks of their own
            os.kill(old, signal.SIGWINCH)
            load.wait(2 * CLIENTS)
            os.kill(old, signal.SIGQUIT)
            assert wait_for(lambda: not alive(old), timeout=20), "the old master is still there"
        assert not load.stop().refused
        if layout == "other":
            assert len(re.findall(r"\[notice\].*replaced .*: block has layout", gw.errors())) == 2, gw.errors()
    finally:
        if load:
            load.stopping = True
            for t in load.threads:
                t.join()
        last = master()
        if last:
            os.kill(last, signal.SIGQUIT)
            wait_for(lambda: not alive(last), timeout=15)
    with Block(gw.block) as block:
        block.check()
        assert block.stats()["bookings"] == 0
    assert not gw.alerts()
