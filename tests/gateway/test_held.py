"""Held requests: however one ends, it ends within its bound, nobody behind it waits longer for it, and nothing of it is left."""

import ctypes
import functools
import os
import signal
import threading
import time

import httpx
import pytest
from block import Block
from conftest import block_stats
from sglang_sim.harness import wait_for
from table import HOPS
from test_failures import open_request
from traffic import PATHS, all_received, body, error_of
from yardstick import late

HOLDING = {"hold_window_tokens": 1, "max_held": 8, "hold_max_wait_ms": 20000, "lease_ttl_ms": 1500}


class Waiting:
    """Requests that wait behind one that hangs."""

    def __init__(self, gw, fleet, n):
        for worker in fleet.workers:
            worker.fault(kind="hang", count=1)
        self.gw, self.answers = gw, {}
        self.busy = open_request(gw, text="a" * 4000)
        assert wait_for(lambda: len(all_received(fleet, PATHS["chat"])) == 2, timeout=5)
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(n)]
        for t in self.threads:
            t.start()
        assert wait_for(lambda: block_stats(gw)["held_now"] == n, timeout=5), block_stats(gw)
        assert len(all_received(fleet, PATHS["chat"])) == 2, "a held request was sent"

    def ask(self, i):
        began = time.monotonic()
        try:
            answer = httpx.post(self.gw.url + PATHS["chat"], json=body("chat", text=f"{i} " + "b" * 4000), timeout=30)
            self.answers[i] = (answer.status_code, time.monotonic() - began, answer)
        except httpx.HTTPError as error:
            self.answers[i] = (repr(error), time.monotonic() - began, None)

    def finish(self):
        """The one that hangs leaves: its place is free. Seconds until all have their answers."""
        began = time.monotonic()
        self.busy.close()
        for t in self.threads:
            t.join(20)
        return time.monotonic() - began

    def statuses(self):
        return sorted(str(a[0]) for a in self.answers.values())


@pytest.fixture
def one_pair(start_fleet):
    return start_fleet(prefill=1, decode=1, speed=0)


@pytest.mark.needs("held_leave")
def test_clients_that_leave_keep_nobody_waiting(one_pair, make_gateway):
    gw = make_gateway(one_pair, config=HOLDING)
    waiting = Waiting(gw, one_pair, 3)
    leaving = [open_request(gw, text=f"{i} " + "c" * 4000) for i in range(4)]
    assert wait_for(lambda: block_stats(gw)["held_now"] == 7, timeout=5)
    for s in leaving:
        s.close()
    assert wait_for(lambda: block_stats(gw)["held_now"] == 3, timeout=1), block_stats(gw)
    assert waiting.finish() < 3 and waiting.statuses() == ["200"] * 3
    assert len(all_received(one_pair, PATHS["chat"])) == 2 * (1 + 3), "a request of a client that left was sent"


def test_deadline_while_held(one_pair, make_gateway):
    gw = make_gateway(one_pair, config={**HOLDING, "hold_max_wait_ms": 2000})  # on a busy machine the third comes long after the first
    began = time.monotonic()
    waiting = Waiting(gw, one_pair, 3)
    for t in waiting.threads:
        t.join(10)
    assert waiting.statuses() == ["503"] * 3
    assert all(1.9 < took < 3.4 + HOPS * late(began) and error_of(answer)["code"] == "held_timeout" for _, took, answer in waiting.answers.values())
    assert block_stats(gw)["held_now"] == 0
    waiting.busy.close()
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200


def test_full_queue(one_pair, make_gateway):
    gw = make_gateway(one_pair, config=HOLDING)
    waiting = Waiting(gw, one_pair, 8)
    began = time.monotonic()
    refused = httpx.post(gw.url + PATHS["chat"], json=body("chat", text="d" * 4000), timeout=5)
    assert refused.status_code == 429 and error_of(refused)["code"] == "queue_full" and int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 1 + HOPS * late(began)
    assert waiting.finish() < 5 and waiting.statuses() == ["200"] * 8


@pytest.mark.parametrize("header", ["X-Tenant-Id", None])
def test_one_tenant_floods(header, one_pair, make_gateway):
    """Six requests of one tenant, then one of another: it goes second. Without a header that says who pays it goes last."""
    gw = make_gateway(one_pair, config={**HOLDING, **({"tenant_header": header} if header else {})})
    for worker in one_pair.workers:
        worker.fault(kind="hang", count=1)
    busy = open_request(gw, text="a" * 4000, headers={"x-tenant-id": "greedy"})
    assert wait_for(lambda: len(all_received(one_pair, PATHS["chat"])) == 2, timeout=5)
    threads = []
    for i, tenant in enumerate(["greedy"] * 6 + ["modest"]):
        ask = functools.partial(httpx.post, gw.url + PATHS["chat"], json=body("chat", text=f"{i} " + "b" * 4000), headers={"x-tenant-id": tenant}, timeout=30)
        threads.append(threading.Thread(target=ask))
        threads[-1].start()
        assert wait_for(lambda: block_stats(gw)["held_now"] == len(threads), timeout=5), block_stats(gw)
    busy.close()
    for t in threads:
        t.join(20)
    order = [r.header("x-tenant-id") for r in sorted(one_pair.prefills[0].requests(PATHS["chat"]), key=lambda r: r.start)][1:]
    assert len(order) == 7
    assert order.index("modest") <= 1 if header else order.index("modest") == 6, order


def drain(gw, names, on):
    with Block(gw.block) as block:
        for name in names:
            number = ctypes.c_uint32()
            assert block.library.pdr_endpoint_find(block.router, name.encode(), ctypes.byref(number)) == 0
            block.call("pdr_endpoint_drain", block.router, number, on)


@pytest.mark.parametrize("role", ["prefills", "decodes"])
def test_pool_shrinks_to_nothing(role, one_pair, make_gateway):
    """Nobody could ever serve them: they hear it now, not at their deadline."""
    gw = make_gateway(one_pair, config=HOLDING)
    waiting = Waiting(gw, one_pair, 4)
    began = time.monotonic()
    drain(gw, [w.name for w in getattr(one_pair, role)], 1)
    for t in waiting.threads:
        t.join(10)
    assert time.monotonic() - began < 2 + HOPS * late(began) and waiting.statuses() == ["503"] * 4
    assert all(error_of(answer)["code"] == "no_pair" for _, _, answer in waiting.answers.values())
    waiting.busy.close()
    drain(gw, [w.name for w in getattr(one_pair, role)], 0)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200


@pytest.mark.needs("workers")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "stops"])
def test_a_process_with_held_requests_is_lost(how, one_pair, make_gateway):
    """Its tickets go with its lease; those of others are served."""
    gw = make_gateway(one_pair, config=HOLDING, workers=2)
    gw.expect_alerts = True  # "exited on signal 9"
    waiting = Waiting(gw, one_pair, 8)
    pids = gw.worker_pids()
    before = block_stats(gw)
    assert before["held_now"] == 8 and len(pids) == 2
    lost = pids[0]
    os.kill(lost, how)
    try:
        # within the lease's time, and what looks for that once in a while
        waiting.busy.close()
        assert wait_for(lambda: block_stats(gw)["held_now"] == 0, timeout=8), block_stats(gw)
    finally:
        if how == signal.SIGSTOP:
            os.kill(lost, signal.SIGCONT)
    for t in waiting.threads:
        t.join(20)
    assert all(s == "200" or how == signal.SIGKILL and "Error" in s for s in waiting.statuses()), waiting.statuses()
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=8), block_stats(gw)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200
