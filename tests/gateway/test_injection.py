"""Names and values that try to break out of what a gateway writes: metrics, status, log, headers to workers and to the client, errors."""

import ctypes
import json
import random
import socket
import sys
import time

import httpx
import pytest
from block import Block, Error
from hosts.host import TOP
from sglang_sim.harness import wait_for
from test_hostile import Endpoint, put
from traffic import PATHS, all_received, body

sys.path.insert(0, str(TOP / "tests/tools"))
from strict import hostile_names, json_text, lines, prometheus  # noqa: E402

CHAT = PATHS["chat"]
assert Endpoint


@pytest.mark.needs("status")
def test_endpoint_names(fleet, make_gateway):
    """Every name that the block takes comes out of both status pages as one value, and routing goes on beside it."""
    gw = make_gateway(fleet, config={"max_endpoints": 256, "max_targets": 256})
    taken = 0
    for i, name in enumerate(hostile_names(random.Random(5), 120)):
        try:
            put(gw, name.decode("utf-8", "surrogateescape"), 10000 + i)
            taken += 1
        except RuntimeError as refused:
            lines(str(refused))
    assert taken > 10
    status = json_text(httpx.get(gw.url + "/pdroute").content)
    samples = prometheus(httpx.get(gw.url + "/pdroute?format=prometheus").content)
    names = {t["name"] for t in status["targets_detail"]}
    assert len(names) > 10 and any('"' in n for n in names)
    assert names == {labels["endpoint"] for _, labels in samples if "endpoint" in labels}
    assert not any("evil" in metric or "evil" in labels for metric, labels in samples)


VALUES = [v for v in hostile_names(random.Random(6), 46, 2000, nul=True)]


@pytest.mark.parametrize("where", ["model", *(pytest.param(w, marks=pytest.mark.more("nginx", "ext_proc", "ext_proc_both")) for w in ("tenant header", "session header", "session", "target"))])
def test_values_of_clients(where, fleet, make_gateway):
    """As a model's name or a session's in JSON, in a tenant's or a session's header, in the target: workers see the same or nothing, the log stays lines of JSON, the answer one answer."""
    gw = make_gateway(fleet, config={"tenant_header": "X-Tenant"})
    gw.mark()
    answered = 0
    for i, value in enumerate(VALUES):
        fleet.reset()
        sent, target, head = body("chat", text=f"{i}"), CHAT.encode(), b""
        if where == "model":
            sent["model"] = value.decode("latin-1")
        elif where == "session":
            sent["session_id"], sent["session_params"] = value.decode("latin-1"), {"id": value.decode("latin-1")}
        elif where == "target":
            target += b"?" + value
        else:
            head = (b"X-Tenant: " if where == "tenant header" else b"X-Session-Id: ") + value + b"\r\n"
        sent = json.dumps(sent).encode()
        raw = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(sent) + sent
        with socket.create_connection(("127.0.0.1", gw.port), 2) as s:
            s.sendall(raw)
            answer = b""
            try:
                while piece := s.recv(65536):
                    answer += piece
            except OSError:
                pass
        head_of_answer = answer.split(b"\r\n\r\n")[0]
        assert b"evil" not in head_of_answer.lower(), head_of_answer
        ok = answer.startswith(b"HTTP/1.1 200")
        answered += ok
        assert ok or where not in ("model", "session"), answer
        for r in all_received(fleet):
            assert ok or r.method != "POST" or r.body, (value, answer)
            names = [n.lower() for n, _ in r.headers]
            # CR LF in the header is the client's own second header, of which nothing is hidden: it must not become more than that
            if "header" not in where or b"\r\n" not in value and b"\n" not in value:
                assert "x-evil" not in names, (value, r.headers)
            if r.method == "POST" and r.path.startswith(CHAT) and where in ("model", "session"):
                got = {k: v for k, v in json.loads(r.body).items() if not k.startswith("bootstrap_")}
                assert got == json.loads(sent)
            for n, v in r.headers:
                assert "\0" not in v and "\r" not in v and "\n" not in v, (value, n, v)
            assert not set(r.path) & set("\0\r\n "), r.path
    assert answered >= (len(VALUES) if where in ("model", "session") else 3)
    json_text(httpx.get(gw.url + "/pdroute").content)
    prometheus(httpx.get(gw.url + "/pdroute?format=prometheus").content)
    if "log" in gw.can:
        assert gw.logged(answered)  # each line is JSON


@pytest.mark.needs("status")
def test_lease_names(fleet, make_gateway):
    """Another process of the block may be called anything: both status pages are read, and requests go on."""
    gw = make_gateway(fleet, config={"max_leases": 128})
    before = httpx.get(gw.url + "/pdroute").json()["leases"]
    taken, refused = 0, 0
    with Block(gw.block) as block:
        for name in hostile_names(random.Random(7), 60, 500):
            lease, error = ctypes.c_uint32(), Error(struct_size=ctypes.sizeof(Error))
            try:
                block.call("pdr_lease_open", block.router, name, ctypes.c_uint64(time.clock_gettime_ns(time.CLOCK_BOOTTIME)), ctypes.byref(lease), ctypes.byref(error))
                taken += 1
            except RuntimeError:
                refused += 1
                lines(error.message.decode())
        assert taken + refused > 20
        status = json_text(httpx.get(gw.url + "/pdroute").content)
        assert status["leases"] == before + taken
        samples = prometheus(httpx.get(gw.url + "/pdroute?format=prometheus").content)
        assert not any("evil" in metric or "evil" in labels for metric, labels in samples)
    assert httpx.post(gw.url + CHAT, json=body("chat"), timeout=5).status_code == 200


@pytest.mark.only("ext_proc", "ext_proc_both")
def test_probe_log(fleet, make_gateway):
    """The probe says of servers with odd names that they are down: each time in one line that nobody else could have written."""
    gw = make_gateway(fleet, config={"max_endpoints": 128, "max_targets": 128}, flags=["--probe"])
    names = []
    for i, name in enumerate(hostile_names(random.Random(8), 60, 100)):
        try:
            put(gw, name.decode("utf-8", "surrogateescape"), 1 + i)
            names.append(name.decode())
        except RuntimeError:
            pass
    assert len(names) > 10 and any('"' in n for n in names)
    down = lambda: [line for line in gw.errors().split("\n") if " is down: " in line]  # noqa: E731
    assert wait_for(lambda: all(any(f"] {n} is down: " in line for line in down()) for n in names), timeout=20), (names, gw.errors()[-3000:])
    for line in gw.errors().splitlines():
        lines(line)
    assert not [line for line in gw.errors().split("\n") if line and line[:1] not in "[2"], "every line begins as its writer's do"
    assert httpx.post(gw.url + CHAT, json=body("chat"), timeout=5).status_code == 200
