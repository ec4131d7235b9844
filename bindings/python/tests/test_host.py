"""Block files, leases, wake-ups between processes, the prober, asyncio."""
import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time

import pdroute
import pytest
from pdroute import BlockState, Config, Endpoint, Host, HostFlag, Job, Origin, Probe, ProbeEventType, Role
from pdroute.aio import Session

SMALL = {"max_endpoints": 16, "max_bookings": 256, "index_entries": 4096}
LONG = json.dumps({"messages": [{"role": "user", "content": "word " * 4000}]}).encode()


def body(word):
    return LONG.replace(b"word", word.encode())


def fill(router, prefills=1, decodes=1):
    for i in range(prefills + decodes):
        router.put(Endpoint(role=Role.PREFILL if i < prefills else Role.DECODE, port=8000, name=f"s{i}", host=f"10.0.0.{i + 1}"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "block"


def test_block_file(path):
    with Host(path, Config(**SMALL)) as host:
        assert host.info().origin == Origin.CREATED and host.info().path == str(path) and host.state() == BlockState.CURRENT
        fill(host.router)
        with Host(path, None, 0) as other:
            assert other.info().origin == Origin.ATTACHED and other.router.find("s1") == 1
        with pytest.raises(pdroute.BlockConfigError, match="max_held"):
            Host(path, Config(max_held=7, **SMALL))
        with Host(path, Config(max_held=7, **SMALL), HostFlag.RECREATE) as new:
            assert new.info().origin == Origin.RECREATED and new.info().reason == pdroute.Code.BLOCK_CONFIG
            assert host.state() == BlockState.REPLACED
    with pytest.raises(pdroute.SystemCallError, match="No such file"):
        Host(path.parent / "none" / "x", None, 0)
    assert pdroute.boot() and pdroute.seed() != pdroute.seed() and abs(pdroute.now_ns() - time.monotonic_ns()) < 10**9
    assert pdroute.version().count(".") == 2 and pdroute.version_number() >= 100


def test_leases_and_claims(path):
    with Host(path, Config(**SMALL)) as host:
        fill(host.router)
        with host.lease("one") as lease, host.claim(Job.PROBE) as claim:
            assert claim.fileno() >= 0 and lease.renew() is True
            with pytest.raises(pdroute.BusyError):
                with Host(path) as other:
                    other.claim(Job.PROBE)
            host.router.route(body("x"), lease=lease)
            assert host.router.stats().bookings == 1 and host.router.stats().leases == 1
        assert host.router.stats().bookings == 0 and host.router.stats().leases == 0
        host.claim(Job.PROBE).close()
        host.tick()
        assert host.reap() == 0
        fd = host.wake_open(host.router.lease("raw").id)
        os.close(fd)


CHILD = """
import sys, time
from pdroute import Host
host = Host(sys.argv[1])
lease = host.lease("child")
routed = host.router.route(open(sys.argv[2], "rb").read(), lease=lease)
print("held" if routed.held else "sent", flush=True)
sys.stdin.readline()
routed.done()
print(host.wake_pending(), flush=True)
sys.stdin.readline()
"""


def child(path, word):
    file = path.parent / word
    file.write_bytes(body(word))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", CHILD, path, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    return process, process.stdout.readline().strip()


def test_another_process_wakes_this_one(path):
    with Host(path, Config(hold_window_tokens=1000, **SMALL)) as host:
        fill(host.router)
        other, said = child(path, "talk")
        assert said == "sent"
        with host.lease("parent") as lease:
            held = host.router.route(body("sing"), lease=lease)
            assert held.held and select.select([lease], [], [], 0)[0] == []
            other.stdin.write("\n")
            other.stdin.flush()
            assert other.stdout.readline().strip() == "1"
            assert select.select([lease], [], [], 5)[0] == [lease]
            lease.wake_drain()
            assert host.router.released(lease) == [held.booking] and held.take()
            held.done()
        other.communicate("\n")


def test_a_killed_process_gives_back(path):
    with Host(path, Config(lease_ttl_ms=60000, **SMALL)) as host:
        fill(host.router)
        other, said = child(path, "talk")
        assert said == "sent" and host.router.stats().bookings == 1
        assert host.reap() == 0  # seen alive
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert host.reap() == 1 and host.router.stats().bookings == 0
        host.router.check()


def test_probe():
    from sglang_sim import harness
    with harness.start(prefill=1, decode=1) as fleet, pdroute.Router.create(Config(**SMALL)) as router:
        for worker in fleet.workers:
            router.put(Endpoint(role=Role.PREFILL if worker.role == "prefill" else Role.DECODE, host=worker.host, port=worker.port, name=worker.role))
        seen = []
        with Probe(router, lambda e: seen.append((e.name, e.type)), interval_ms=100, health_interval_ms=100, down_after=1, refresh_ms=50) as probe:
            assert probe.fileno() >= 0
            end = time.monotonic() + 20
            while probe.pending() and time.monotonic() < end:
                probe.run(100)
            assert {(n, t) for n, t in seen if t == ProbeEventType.UP} == {("prefill", ProbeEventType.UP), ("decode", ProbeEventType.UP)}
            fleet.decodes[0].fault(kind="refuse")
            while ("decode", ProbeEventType.DOWN) not in seen and time.monotonic() < end:
                probe.run(100)
            assert ("decode", ProbeEventType.DOWN) in seen and not router.ready() and probe.stats().down == 1

        def fails(event):
            raise KeyError(event.name)
        with Probe(router, fails, interval_ms=100) as probe, pytest.raises(KeyError):
            for _ in range(100):
                probe.run(100)
        with Probe(router, lambda e: probe.stop(), interval_ms=100) as probe:
            probe.loop()


def test_asyncio(path):
    async def run():
        async with Session(path, Config(hold_window_tokens=1000, **SMALL), name="one") as one, Session(path, name="two") as two:
            fill(one.router)
            first = await one.route(body("first"))
            sent = await two.route(body("no"), hold=False)
            assert not sent.held
            sent.cancel()
            waiting = asyncio.ensure_future(two.route(body("second")))
            leaves = asyncio.ensure_future(two.route(body("third")))
            for _ in range(1000):
                await asyncio.sleep(0.01)
                if one.router.stats().held_now == 2:
                    break
            assert not waiting.done() and one.router.stats().held_now == 2
            leaves.cancel()
            await asyncio.gather(leaves, return_exceptions=True)
            assert leaves.cancelled() and one.router.stats().held_now == 1
            first.done()
            one.host.wake_pending()
            began = time.monotonic()
            second = await asyncio.wait_for(waiting, 5)
            assert not second.held and second.decode and time.monotonic() - began < 2
            exchange = two.exchange(second)
            assert [a.type for a in exchange.start] == [1, 1]
            assert exchange.event(pdroute.EventType.CLIENT_GONE)[-1].type == pdroute.ActionType.FINISH
            with pytest.raises(pdroute.ParseError):
                await two.route(b"{")
        with Host(path) as host:
            assert host.router.stats().leases == 0
            host.router.check()

    asyncio.run(run())


def test_a_held_request_expires(path):
    async def run():
        async with Session(path, Config(hold_window_tokens=1000, hold_max_wait_ms=300, **SMALL)) as session:
            fill(session.router)
            await session.route(body("first"))
            with pytest.raises(pdroute.ExpiredError) as caught:
                await session.route(body("second"))
            assert caught.value.http_status == 503

    asyncio.run(run())


TRUNCATED = """
import faulthandler, os, sys
if sys.argv[2] == "faulthandler": faulthandler.enable()
import pdroute
from pdroute import Config, Endpoint, Host, HostFlag, Role, BlockState
path = sys.argv[1]
def fill(router):
    router.put(Endpoint(role=Role.PREFILL, port=1, host="10.0.0.1"))
    router.put(Endpoint(role=Role.DECODE, port=1, host="10.0.0.2"))
body = b'{"messages":[{"role":"user","content":"x"}]}'
host = Host(path, Config(max_endpoints=16, max_bookings=256, index_entries=4096))
fill(host.router)
lease = host.lease("one")
host.router.route(body, lease=lease)
os.truncate(path, 0)
for call in (lambda: host.router.route(body, lease=lease), host.router.stats, host.router.check):
    try:
        call()
    except pdroute.BlockCorruptError:
        continue
    raise SystemExit("no error")
assert host.state() == BlockState.TRUNCATED
with Host(path, None, HostFlag.RECREATE) as new:
    fill(new.router)
    new.router.route(body, lease=new.lease("two"))
    new.router.check()
host.close()
print("survived")
"""


def run_truncated(program, path, before):
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(pdroute.__file__))}
    return subprocess.run([sys.executable, "-c", program, path, before], capture_output=True, text=True, timeout=60, env=env)


@pytest.mark.parametrize("before", ["nothing", "faulthandler"])
def test_truncated_file(path, before):
    done = run_truncated(TRUNCATED, path, before)
    assert done.returncode == 0 and done.stdout == "survived\n", (done.returncode, done.stdout, done.stderr)
    done = run_truncated(TRUNCATED.replace("index_entries=4096)", "index_entries=4096), guard=False"), path.parent / "other", before)
    assert done.returncode == -signal.SIGBUS  # the test reaches the fault: without the guard it is the end


@pytest.mark.parametrize("how", ["truncated", "replaced", "removed"])
def test_a_host_follows_its_path(path, how):
    config = Config(**SMALL)
    with Host(path, config) as old:
        assert old.follow(config) is None
        fill(old.router)
        if how == "truncated":
            os.truncate(path, 0)
        else:
            path.unlink()
        if how == "replaced":
            Host(path, config).close()
        new = old.follow(config)
        assert new is not None
        with new:
            assert new.state() == BlockState.CURRENT
            # only what can still be read is carried over: the old mapping of a file whose name is gone
            assert sorted(e.name for e in new.router.endpoints().values()) == (["s0", "s1"] if how == "removed" else [])
            fill(new.router)
            with new.lease("follower") as lease, new.router.route(body("x"), lease=lease) as routed:
                assert routed.decode
    with Host(path, config) as old:
        path.unlink()
        path.write_bytes(b"garbage")
        with pytest.raises(pdroute.BlockError):
            old.follow(config, HostFlag.RECREATE)
        path.unlink()
