"""The Python gateway under uvicorn alone, as its first page says to start it; the rest of the suite has gunicorn."""

import resource
import socket
from pathlib import Path

import httpx
import pytest
from conftest import block_stats
from hosts import python
from sglang_sim.harness import wait_for
from traffic import PATHS, body, text_of

pytestmark = pytest.mark.only("python")


def test_four_workers_share_one_router(fleet, make_gateway, monkeypatch):
    """Whichever process has a request, it knows what the others have routed."""
    monkeypatch.setattr(python, "UVICORN", True)
    gw = make_gateway(fleet, workers=4)
    assert gw.command()[1:5] == ["-m", "uvicorn", "pdroute_gateway:app", "--workers"]
    assert wait_for(lambda: block_stats(gw)["leases"] == 4, timeout=60), block_stats(gw)
    sent, seen = 0, set()
    text = text_of(20_000)

    def everybody_had_one():
        nonlocal sent
        for _ in range(8):  # each on a connection of its own: the system chooses the process
            assert httpx.post(gw.url + PATHS["chat"], json=body("chat", text=f"{text} {sent}"), timeout=20).status_code == 200
            sent += 1
        seen.update(entry["pid"] for entry in gw.log())
        return len(seen) == 4

    assert wait_for(everybody_had_one, timeout=60), seen
    gw.logged(sent)
    assert wait_for(lambda: block_stats(gw)["finished"] == sent, timeout=10) and block_stats(gw)["failed"] == 0
    hits = [int(entry["hit"].split("/")[0]) for entry in gw.log()]
    assert sum(hit > 0 for hit in hits) >= sent - 2  # two prefill servers, at most one first prompt for each
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=10)
    gw.stop(timeout=60)  # five processes, on whatever machine


def test_no_descriptor_left_for_clients(fleet, make_gateway, monkeypatch):
    """With asyncio's own loop a process without descriptors takes no client until it has some again: none is reset, each is answered. (uvloop's, which is libuv's, accepts and closes them.)"""
    monkeypatch.setattr(python, "UVICORN", True)
    command = python.Gateway.command
    monkeypatch.setattr(python.Gateway, "command", lambda self: [*command(self), "--loop", "asyncio"])
    gw = make_gateway(fleet)
    gw.expect_alerts = True  # asyncio logs that it could not accept
    used = len(list(Path(f"/proc/{gw.process.pid}/fd").iterdir()))
    resource.prlimit(gw.process.pid, resource.RLIMIT_NOFILE, (used + 40, used + 40))
    sockets = [socket.create_connection(("127.0.0.1", gw.port), 20) for _ in range(100)]
    for s in sockets:
        s.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for i, s in enumerate(sockets):
        s.settimeout(60)
        with s:
            assert s.recv(65536).startswith(b"HTTP/1.1 200 "), i
    assert "out of system resource" in gw.errors()
