"""A process that has the block's lock and does not go on. What is under way at a gateway ends as it would, and nothing of it stays booked afterwards."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

import holder
import httpx
import pytest
from block import Block, Stats
from conftest import block_stats
from hosts.host import endpoints_of
from sglang_sim.harness import wait_for
from test_change import Servers
from test_failures import open_request
from test_held import HOLDING, Waiting
from traffic import PATHS, body, error_of, events_of

# its lease must not be what gives anything back
CONFIG = {"lease_ttl_ms": 120000, "hold": "off"}


@pytest.mark.parametrize("then", ["goes on", "is killed"])
def test_requests_end_while_the_lock_is_held(start_fleet, make_gateway, then):
    fleet = start_fleet(prefill=1, decode=1, speed=1, timers=0.05)
    gw = make_gateway(fleet, config=CONFIG)
    text = []

    def stream():
        with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", text="a", stream=True, tokens=150), timeout=30) as answer:
            text.extend(answer.iter_lines())

    reader = threading.Thread(target=stream)
    reader.start()
    leaves, plain = open_request(gw, text="b", stream=True, tokens=2000), open_request(gw, text="c", tokens=2000)
    assert wait_for(lambda: fleet.decodes[0].requests(PATHS["chat"]) and len(text) > 3 and block_stats(gw)["bookings"] == 3, timeout=10)
    with holder.of(gw.block) as it:
        for s in (leaves, plain):
            s.close()
        began = time.monotonic()
        refused = httpx.post(gw.url + PATHS["chat"], json=body("chat", text="d"), timeout=30)
        assert refused.status_code == 503 and error_of(refused), refused.text
        reader.join(20)
        assert not reader.is_alive() and events_of("\n".join(text))[-1] == "[DONE]", "its answer waits for the process that does not go on"
        requests = fleet.decodes[0].requests(PATHS["chat"])
        assert wait_for(lambda: sum(1 for r in fleet.decodes[0].requests(PATHS["chat"]) if r.disconnected) == 2, timeout=5), requests
        assert time.monotonic() - began < 15
        if then == "goes on":
            it.go_on()
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=3), block_stats(gw)
    with Block(gw.block) as block:
        block.check()
    assert block_stats(gw)["rooms_live"] == 0
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat", text="e"), timeout=30).status_code == 200


@pytest.mark.needs("held_leave")
def test_a_held_client_leaves_while_the_lock_is_held(start_fleet, make_gateway):
    """Its place in the queue is free afterwards, and nothing is booked for it when its turn would have come."""
    fleet = start_fleet(prefill=1, decode=1, speed=0)
    gw = make_gateway(fleet, config=HOLDING | CONFIG | {"hold": "on"})
    waiting = Waiting(gw, fleet, 1)
    leaves = open_request(gw, text="0 " + "c" * 4000)
    assert wait_for(lambda: block_stats(gw)["held_now"] == 2, timeout=5)
    with holder.of(gw.block) as it:
        leaves.close()
        time.sleep(1)
        it.go_on()
    assert wait_for(lambda: block_stats(gw)["held_now"] == 1, timeout=3), block_stats(gw)
    waiting.finish()
    assert waiting.statuses() == ["200"]
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=3), block_stats(gw)


def stopped(pid):
    """All of its threads: until the one that gets the signal has come to a core, the others run on."""
    return all(each.read_text().rpartition(")")[2].split()[0] in "TZ" for each in Path(f"/proc/{pid}/task").glob("*/stat"))


@pytest.mark.needs("held_leave")
@pytest.mark.parametrize("gone", ["the lock is held", "its process is stopped"])
def test_a_held_request_is_released_while(start_fleet, make_gateway, gone):
    """That it may go is told once, and cannot be acted upon then, or only when its place has been given back: it looks, or asks, again."""
    fleet = start_fleet(prefill=2, decode=1, speed=0)
    spare = fleet.prefills[1]
    gw = make_gateway([e for e in endpoints_of(fleet) if e["port"] != spare.port], config=HOLDING | CONFIG | {"hold": "on"})
    waiting = Waiting(gw, fleet, 1)
    spare.heal("hang")
    pids = [gw.process.pid, *gw.all_pids()]
    servers = Servers(gw)
    stats = Stats(struct_size=ctypes.sizeof(Stats))
    while True:  # until it is stopped, and not with the lock
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        assert wait_for(lambda: all(map(stopped, pids)), timeout=5)
        if servers.block.library.pdr_stats_get(servers.block.router, ctypes.byref(stats)) == 0:
            break
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
    assert stats.held_now == 1
    try:

        def tick():
            assert servers.block.library.pdr_host_tick(servers.block.host, ctypes.c_uint64(time.monotonic_ns())) == 0

        servers.put("spare", spare)
        tick()
        if gone == "the lock is held":
            with holder.of(gw.block) as it:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
                time.sleep(2.3)  # who tries has given up
                assert not waiting.answers
                it.go_on()
        else:
            time.sleep(5.2)
            tick()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    waiting.threads[0].join(3)
    assert waiting.statuses() == ["200"] and len(spare.requests(PATHS["chat"])) == 1
    waiting.busy.close()
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=3), block_stats(gw)
