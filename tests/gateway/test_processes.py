"""Worker processes, configuration, held requests."""

import http.client
import json
import os
import signal
import socket
import threading
import time

import httpx
import pytest
from block import Block
from conftest import block_stats
from hosts.host import endpoints_of
from sglang_sim.harness import wait_for
from test_failures import open_request
from traffic import PATHS, all_received, body, error_of, events_of


class Load:
    """Clients that send until they are stopped; `failed` gets what was not answered with 200."""

    def __init__(self, gw, clients=6, **options):
        self.gw, self.failed, self.done, self.stopping = gw, [], 0, False
        self.options = options
        self.threads = [threading.Thread(target=self.run, args=(n,)) for n in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, n):
        i = 0
        while not self.stopping:
            i += 1
            try:
                # one connection per request: a kept one may be closed just when the next request is on its way
                answer = httpx.post(self.gw.url + PATHS["chat"], json=body("chat", text=f"{n} {i}", stream=i % 2 == 0, **self.options), timeout=30)
                if answer.status_code != 200 or (i % 2 == 0 and events_of(answer.text)[-1] != "[DONE]"):
                    self.failed.append((answer.status_code, answer.text))
                self.done += 1
            except httpx.HTTPError as error:
                self.failed.append(repr(error))

    def stop(self):
        self.stopping = True
        for t in self.threads:
            t.join()


@pytest.mark.needs("reload", "workers")
def test_reload_under_load_loses_nothing(fleet, make_gateway):
    gw = make_gateway(fleet, workers=2)
    load = Load(gw)
    for _ in range(3):
        before = set(gw.worker_pids())
        wait_for(lambda: load.done > 20, timeout=20)
        gw.reload()
        assert wait_for(lambda: len(set(gw.worker_pids()) - before) == 2, timeout=20, interval=0.1)
    load.stop()
    assert not load.failed and load.done > 20
    # the old workers are gone: no kept connection, no timer of ours holds them up
    assert wait_for(lambda: len(gw.all_pids()) == 2, timeout=10, interval=0.1), "old workers are still there"
    assert wait_for(lambda: block_stats(gw)["leases"] == 2, timeout=3)


@pytest.mark.needs("reload", "workers")
def test_reload_answers_who_had_connected(fleet, make_gateway):
    """A connection that the old worker has taken, and the request comes when that one is told to leave: not a closed connection, which no client can tell from a lost request."""
    gw = make_gateway(fleet, workers=2)
    before = set(gw.worker_pids())
    sockets = [socket.create_connection(("127.0.0.1", gw.port)) for _ in range(6)]
    time.sleep(0.3)  # until they are accepted
    gw.reload()
    assert wait_for(lambda: set(gw.worker_pids()) - before, timeout=20, interval=0.02)
    time.sleep(0.2)
    text = json.dumps(body("chat")).encode()
    head = f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    for s in sockets:
        s.settimeout(20)
        s.sendall(head)
        s.sendall(text)
        answer = http.client.HTTPResponse(s)
        answer.begin()
        assert answer.status == 200 and json.loads(answer.read())["choices"]
        s.close()
    assert wait_for(lambda: len(gw.all_pids()) == 2, timeout=10, interval=0.1), "old workers are still there"


@pytest.mark.needs("reload", "restart", "log")
def test_reload_keeps_what_was_learnt(start_fleet, make_gateway):
    gw = make_gateway(start_fleet(prefill=2, decode=2, speed=1))  # where prompts take no time, no prefix is worth anything
    long = "once upon a time " * 1000
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat", text=long)).status_code == 200
    before = set(gw.worker_pids())
    gw.reload()
    assert wait_for(lambda: set(gw.worker_pids()) - before, timeout=20, interval=0.1)
    wait_for(lambda: len(gw.all_pids()) == 1, timeout=10, interval=0.1)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat", text=long)).status_code == 200
    first, second = gw.logged(2)
    assert second["prefill"] == first["prefill"] and int(second["hit"].split("/")[0]) > 0
    # and over a restart
    gw.stop()
    gw.start()
    gw.mark()
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat", text=long)).status_code == 200
    assert int(gw.logged(1)[0]["hit"].split("/")[0]) > 0


def test_graceful_exit_with_idle_connections(fleet, make_gateway):
    gw = make_gateway(fleet, keepalive=300)
    client = httpx.Client(base_url=gw.url)
    for i in range(4):
        assert client.post(PATHS["chat"], json=body("chat", text=str(i))).status_code == 200
    assert gw.stop() < 2
    client.close()


def test_graceful_exit_finishes_a_stream(start_fleet, make_gateway):
    fleet = start_fleet(prefill=1, decode=1, speed=1, timers=0.05)
    gw = make_gateway(fleet)
    with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", stream=True, tokens=100), timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        gw.process.send_signal(gw.stop_signal)
        rest = "\n".join(lines)
    assert events_of(rest)[-1] == "[DONE]"
    gw.process.wait(10)
    gw.process = None
    with Block(gw.block) as block:
        block.check()
        assert block.stats()["bookings"] == 0


@pytest.mark.needs("workers")
def test_killed_worker_gives_back(fleet, make_gateway):
    """What the dead process had booked is free at once, not after the lease's time."""
    gw = make_gateway(fleet, workers=2, config={"lease_ttl_ms": 30000})
    gw.expect_alerts = True  # "exited on signal 9"
    for worker in fleet.workers:
        worker.fault(kind="hang")
    threads = [threading.Thread(target=lambda: quiet_post(gw)) for _ in range(8)]
    for t in threads:
        t.start()
    assert wait_for(lambda: block_stats(gw)["bookings"] == 8, timeout=10)
    fleet.reset()
    for pid in gw.worker_pids():  # one after the other: somebody must be there who saw it alive
        before = block_stats(gw)["leases"]
        time.sleep(1.2)
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: pid not in gw.worker_pids() and block_stats(gw)["leases"] == before, timeout=5), block_stats(gw)
    for t in threads:
        t.join()
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=5), block_stats(gw)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200
    assert not [line for line in gw.alerts() if "signal 9" not in line]


def quiet_post(gw, **more):
    try:
        return httpx.post(gw.url + PATHS["chat"], json=body("chat", **more), timeout=30)
    except httpx.HTTPError as error:
        return error


@pytest.mark.needs("workers")
def test_kills_under_load(fleet, make_gateway):
    """Requests of the killed worker are lost, no others; nobody is wedged and the block stays sound."""
    gw = make_gateway(fleet, workers=2)
    gw.expect_alerts = True
    load = Load(gw)
    for _ in range(6):
        time.sleep(0.5)
        pids = gw.worker_pids()
        if pids:
            os.kill(pids[0], signal.SIGKILL)
    time.sleep(0.5)
    load.stop()
    assert load.done > 3
    assert not [f for f in load.failed if isinstance(f, tuple)], "an answer that is not 200"
    # lease_ttl_ms is 10 s: so long it takes where both were dead at once, and nobody is there who had seen them alive
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=15), block_stats(gw)
    with Block(gw.block) as block:
        block.check()


HOLDING = {"hold_window_tokens": 1, "max_held": 64, "hold_max_wait_ms": 20000}


@pytest.mark.needs("workers")
def test_held_requests(start_fleet, make_gateway):
    """One prefill that is busy: others wait without a connection to any worker, and all are answered."""
    fleet = start_fleet(prefill=1, decode=1, speed=0)
    gw = make_gateway(fleet, workers=2, config=HOLDING)
    for worker in fleet.workers:
        worker.fault(kind="hang", count=1)
    busy = open_request(gw, text="a" * 4000)
    assert wait_for(lambda: len(all_received(fleet, PATHS["chat"])) == 2, timeout=5)
    answers = []
    others = [threading.Thread(target=lambda n=n: answers.append(quiet_post(gw, text=f"{n} " + "b" * 4000))) for n in range(8)]
    for t in others:
        t.start()
    assert wait_for(lambda: block_stats(gw)["held_now"] == 8, timeout=5), block_stats(gw)
    assert len(all_received(fleet, PATHS["chat"])) == 2, "a held request was sent"
    assert httpx.get(gw.url + "/pdroute").status_code == 200, "waiting blocks nothing"
    busy.close()  # its place is free, whichever process it was that waited
    for t in others:
        t.join(20)
    assert [getattr(a, "status_code", a) for a in answers] == [200] * 8
    assert block_stats(gw)["held_now"] == 0
    if "log" in gw.can:
        assert len(gw.logged(8, lambda entry: "held=" in entry["why"])) == 8


@pytest.mark.needs("reload")
def test_reload_with_other_endpoints(start_fleet, make_gateway):
    """A server that is new in the file is used from the reload on."""
    fleet = start_fleet(prefill=2, decode=1, speed=0)
    endpoints = endpoints_of(fleet)
    gw = make_gateway(endpoints[1:])
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200
    gw.config["endpoints"] = endpoints
    gw.write_config()
    before = set(gw.worker_pids())
    gw.reload()
    assert wait_for(lambda: set(gw.worker_pids()) - before, timeout=20, interval=0.1)
    assert wait_for(lambda: block_stats(gw)["endpoints"] == 3, timeout=5), block_stats(gw)


def test_discovery_beside_nginx(fleet, make_gateway):
    """The block is the meeting point: what another process knows, nginx knows at once."""
    gw = make_gateway(fleet)
    with Block(gw.block) as block:
        import ctypes
        for name in [w.name for w in fleet.prefills]:
            number = ctypes.c_uint32()
            assert block.library.pdr_endpoint_find(block.router, name.encode(), ctypes.byref(number)) == 0
            block.call("pdr_endpoint_drain", block.router, number, 1)
        answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"))
        assert answer.status_code == 503 and json.loads(answer.text)["error"]["code"] == "no_pair"
        block.call("pdr_endpoint_drain", block.router, number, 0)
        assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200
    assert [w.name for w in fleet.prefills if w.requests(PATHS["chat"])] == [name]


@pytest.mark.only("python")
@pytest.mark.needs("reload")
def test_a_worker_hears_from_its_first_moment_on(fleet, make_gateway):
    """Told to end while it still starts, it ends: gunicorn's own does not, and its master would wait for it. Told to open its logs anew, it stays."""
    gw = make_gateway(fleet, workers=2)
    gw.expect_alerts = True  # "was terminated due to signal 9"
    master = gw.process.pid

    def workers():
        with open(f"/proc/{master}/task/{master}/children") as children:
            return set(map(int, children.read().split()))

    assert wait_for(lambda: len(gw.worker_pids()) == 2, timeout=30)
    for after in (0, 0.01, 0.03):
        before = workers()
        os.kill(min(before), signal.SIGKILL)
        assert wait_for(lambda: workers() - before, timeout=20, interval=0), workers()
        new = (workers() - before).pop()
        time.sleep(after)
        os.kill(new, signal.SIGTERM)
        assert wait_for(lambda: new not in workers(), timeout=20), f"{after} s after it was started"
        assert wait_for(lambda: len(gw.worker_pids()) == 2, timeout=30)
    before = workers()
    gw.process.send_signal(signal.SIGUSR1)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=20).status_code == 200
    time.sleep(0.2)  # for what must not happen
    assert workers() == before
