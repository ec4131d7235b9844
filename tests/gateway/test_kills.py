"""kill -9 and SIGSTOP under load: nginx's workers, its master, the probe, pdroutectl and clients, on one block (kills.py).

Some twenty kills and four stops by default; PDROUTE_LONG=1 (tests/run --long gateway): a thousand kills, forty stops of 1 to 30 s. PDROUTE_KILLS="200 10" makes it other numbers.
"""

import collections
import os
import random
import socket
import statistics
import subprocess
import sys
import time

import pytest
from block import Block
from hosts.host import endpoints_of
from kills import CTL, THREADS, Stage
from sglang_sim.harness import wait_for
from table import HOPS, SLACK
from yardstick import late, usual, yardstick

LONG = bool(os.environ.get("PDROUTE_LONG"))
KILLS, STOPS = map(int, os.environ.get("PDROUTE_KILLS", "1000 40" if LONG else "20 4").split())
# seconds: until others route after a kill; for which a stopped process holds up a call if it has the lock; for which its requests keep their places if it has not
PROMISED, LOCK, LEASE = 0.1, 2.5, 2.0
CONFIG = {"lease_ttl_ms": int(LEASE * 1000), "hold_window_tokens": 6000, "max_held": 64, "hold_max_wait_ms": 20000, "breaker_open_ms": 200}

pytestmark = [pytest.mark.only("nginx"), pytest.mark.skipif(CTL is None, reason="pdroutectl is not built")]


@pytest.fixture
def stage(start_fleet, make_gateway):
    fleet = start_fleet(prefill=3, decode=3, speed=0.1, records=200)
    spare = [fleet.prefills[2], fleet.decodes[2]]  # put, drained and removed by pdroutectl all the time
    gw = make_gateway([e for e in endpoints_of(fleet) if e["port"] not in [w.port for w in spare]], workers=3, config=CONFIG, keepalive=1)
    gw.expect_alerts = True  # "exited on signal 9"
    seed = int(os.environ.get("PDROUTE_SEED", random.randrange(1 << 30)))
    print(f"PDROUTE_SEED={seed}")
    stage = Stage(gw, fleet, spare, random.Random(seed))
    yield stage
    stage.abandon()


def connections(workers):
    """Of this machine, to these servers: the state of each that is not merely waiting for its time to pass."""
    places = {f"{int.from_bytes(socket.inet_aton(w.host), sys.byteorder):08X}:{w.port:04X}" for w in workers}
    found = []
    for line in open("/proc/net/tcp").read().splitlines()[1:]:
        _, _, remote, state = line.split()[:4]
        if remote in places and state not in ("06", "0A"):
            found.append(line)
    return found


def explained(request, events):
    """Why this request may have ended without an answer, None: it may not."""
    began, ended, how, what, _ = request
    for e in events:
        if e.at > ended or e.until < began:
            continue
        if e.whom == "worker" and e.how == "kill" and how == "closed" and began <= e.at + e.died + 0.05 and ended <= e.at + 2:
            return "a worker was killed"
        if e.whom == "master" and e.how == "kill" and how in ("closed", "refused"):
            return "nginx was killed and started again"
        # what waited in a stopped nginx worker hears of it when that goes on: its time is over, or its servers gave up
        if e.whom == "worker" and e.how == "stop" and how == "error" and what in ("503 held_timeout", "stream abort", "stream decode_timeout", "504 prefill_timeout", "504 decode_timeout") \
                and e.until - 0.5 <= ended <= e.until + 5:
            return "a worker was stopped"
        if e.held_lock and how == "error" and what == "503 internal_error":
            return "a process was stopped with the lock"
    return None


def account(stage):
    """Each request: an answer, a client that left, or an end that a death explains. Counts of all ends."""
    ended, unfinished = stage.requests()
    counts = collections.Counter()
    unexplained = []
    for request in ended:
        if request[2] in ("answer", "left"):
            counts[request[2]] += 1
            continue
        why = explained(request, stage.events)
        counts[f"{request[2]} {request[3]}".strip() + f": {why}"] += 1
        if why is None:
            unexplained.append(request)
    kills_of_clients = sum(e.whom == "client" and e.how == "kill" for e in stage.events)
    counts["killed with its client"] = len(unfinished)
    assert len(unfinished) <= kills_of_clients * THREADS, "requests without an end"
    assert counts["answer"] > 10 * len(stage.events)
    return counts, [(r, [e for e in stage.events if e.at - 1 < r[1] and e.until + 1 > r[0]]) for r in unexplained]


def nothing_is_left(stage):
    """Of all that were killed nobody's booking, room, ticket, lease or connection."""
    gw, last = stage.gw, None

    def clean():
        nonlocal last
        with Block(gw.block) as block:
            s = block.stats()
        last = {k: s[k] for k in ("bookings", "rooms_live", "held_now", "leases")}, [w.state()["open"] for w in stage.fleet.workers]
        return not any(last[0][k] for k in ("bookings", "rooms_live", "held_now")) and last[0]["leases"] == gw.workers and not any(last[1])

    assert wait_for(clean, timeout=10), f"left over: {last}"
    assert wait_for(lambda: not connections(stage.fleet.workers), timeout=5), connections(stage.fleet.workers)
    for words in (["check"], ["check", "--ready"]):
        done = subprocess.run([CTL, "--block", gw.block, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    gw.stop()
    with Block(gw.block) as block:
        assert block.stats()["leases"] == 0
        block.check()


def report(stage, counts, took):
    kills, stops = ([e for e in stage.events if e.how == how and e.until and (e.call or how == "stop")] for how in ("kill", "stop"))

    def ms(values):
        values = sorted(1000 * v for v in values)
        return f"{statistics.median(values):.1f} (worst {values[-1]:.1f}, {sum(v > 100 for v in values)} of {len(values)} over 100)" if values else "none"

    print(f"\n{len(kills)} kills {dict(collections.Counter(e.whom for e in kills))}, {len(stops)} stops {dict(collections.Counter(e.whom for e in stops))}, in {took:.0f} s")
    print(f"ms from death until another process's call on the block returned: {ms([e.call for e in kills])}")
    print(f"ms from death until others routed: {ms([e.routed for e in kills])}")
    print(f"ms from the signal to death: {ms([e.died for e in kills])}; to nginx's next worker: {ms([e.respawn for e in kills if e.respawn])}; "
          f"of nginx's restart: {ms([e.restart for e in kills if e.restart])}")
    without, holders = ([e for e in stops if e.held_lock == held] for held in (False, True))
    print(f"{len(without)} stops without the lock: longest ms in which nobody routed for anybody: {ms([e.longest for e in without])}; in which all clients waited for a stopped worker: "
          f"{ms([e.alone for e in without if e.alone])}")
    print(f"{len(holders)} stops with the lock: ms until another's first call was told PDR_E_BUSY: {ms([e.call for e in holders if e.call])}, any later one: {ms([e.longest for e in holders])}")
    print(f"ms from a stopped process's going on (or death) until somebody routed: {ms([e.after for e in stops])}")
    for e in stage.events:
        if e.routed > 1 or (not e.held_lock and e.longest > LEASE):
            print(f"late: {e}")
    s = stage.watch.block.stats()
    print(f"commands: {stage.commands.done}; " + ", ".join(f"{k} {s[k]}" for k in ("routed", "held", "released", "retried", "lock_recoveries", "leases_expired")))
    for how, n in sorted(counts.items(), key=lambda c: -c[1]):
        print(f"{n:8} {how}")


def test_kills_and_stops_under_load(stage):
    yardstick()
    began = time.monotonic()
    stops = sorted(stage.rng.sample(range(KILLS), STOPS))
    for k in range(KILLS):
        time.sleep(stage.rng.random() * 0.2)
        stage.kill()
        if k % 20 == 10:
            stage.watch.block.check()
        if k not in stops:
            continue
        seconds = 30 if LONG and k in stops[:2] else 1 + stage.rng.random() * (10 if LONG else 0.5)
        time.sleep(0.1)
        if k in stops[1::4]:  # one in four, and the second of thirty seconds
            stage.stop_holder(max(seconds, 3))
        else:
            stage.stop(seconds)
    stage.end()
    counts, unexplained = account(stage)
    report(stage, counts, time.monotonic() - began)
    nothing_is_left(stage)
    assert not unexplained, (len(unexplained), unexplained[:5])
    assert not stage.commands.failed, stage.commands.failed[:5]
    kills = [e for e in stage.events if e.how == "kill" and e.call]
    assert statistics.median(e.routed for e in kills) < PROMISED + HOPS * usual(began)
    slow = [e for e in kills if e.routed > PROMISED + SLACK + HOPS * late(e.at, e.at + e.died + e.routed)]
    assert len(slow) <= len(kills) * 3 // 100, slow
    for e in stage.events:
        if e.how == "stop":
            slack = SLACK + HOPS * late(e.at, e.until)
            assert max(e.call, e.longest) < (LOCK if e.held_lock else LEASE) + slack and e.after < 1 + slack, e
