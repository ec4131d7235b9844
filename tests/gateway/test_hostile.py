"""Clients, operators and processes that mean no good."""

import ctypes
import gzip
import json
import re
import socket
import time

import httpx
import pytest
from block import Block
from conftest import block_stats
from hosts.host import endpoints_of
from listener import Answers, Listener, read_head
from sglang_sim.harness import wait_for
from test_failures import open_request
from traffic import PATHS, all_received, body, both_legs, error_of

JSON = "Content-Type: application/json\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"choices\":[]}"


def raw(gw, lines, sent, timeout=10):
    """The answer to a request whose head is written by hand."""
    with socket.create_connection(("127.0.0.1", gw.port), timeout) as s:
        s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(sent)}\r\n{lines}\r\n".encode() + sent)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := s.recv(65536)):
            answer += piece
    return answer


@pytest.mark.parametrize("connection", ["X-Hop", "close, X-Hop", "X-Hop\r\nConnection: something-else", "something-else\r\nConnection: x-hOP",
                                        "keep-alive\r\nConnection: X-Hop\r\nConnection: close"])
def test_headers_named_in_connection_end_here(connection, gw, fleet):
    answer = raw(gw, f"{JSON}Connection: {connection}\r\nX-Hop: 1\r\nX-Other: 1\r\n", json.dumps(body("chat")).encode())
    assert answer.startswith(b"HTTP/1.1 200")
    for leg in both_legs(fleet, PATHS["chat"]):
        assert leg.header("x-hop") is None and leg.header("x-other") == "1"


@pytest.mark.only("nginx")
def test_more_workers_than_leases(start_fleet, make_gateway):
    """Workers of older configurations hold all leases: the new one refuses until one is free, and then serves."""
    fleet = start_fleet(prefill=1, decode=1, speed=1, timers=0.05)
    gw = make_gateway(fleet, config={"max_leases": 2, "hold": "off"})
    busy = []
    for _ in range(2):
        for worker in fleet.workers:
            worker.fault(kind="hang", count=1)
        n = len(all_received(fleet, PATHS["chat"]))
        busy.append(open_request(gw))
        assert wait_for(lambda: len(all_received(fleet, PATHS["chat"])) == n + 2, timeout=5)
        before = set(gw.worker_pids())
        gw.reload()
        # the old one is "shutting down" by then, and takes nothing any more
        assert wait_for(lambda: set(gw.worker_pids()) and not set(gw.worker_pids()) & before, timeout=10), gw.errors()
        time.sleep(0.3)
    assert gw.worker_pids(), "nginx gave up its worker"
    refused = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=5)
    assert refused.status_code == 503
    assert "max_leases 2" in gw.errors()
    busy[0].close()
    assert wait_for(lambda: httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=5).status_code == 200, timeout=5, interval=0.1)
    busy[1].close()
    assert wait_for(lambda: block_stats(gw)["leases"] == 1, timeout=5)


@pytest.mark.parametrize("sent", ['\ufeff{"bootstrap_room":5}'.encode(), '\ufeff{"bootstrap_room":5}'.encode("utf-16-le"), '{"bootstrap_room":5}'.encode("utf-16-be"),
                                  '{"bootstrap_room":5}'.encode("utf-32-be")], ids=["BOM", "UTF-16 with BOM", "UTF-16", "UTF-32"])
def test_owned_members_in_another_encoding(sent, gw, fleet, client):
    """Python reads such a body as JSON, on any path and without a Content-Type."""
    answer = client.post("/invocations", content=sent)
    assert answer.status_code == 400
    assert not all_received(fleet)


class Canned(Listener):
    """A worker that answers everything with the same bytes."""

    def __init__(self, answer):
        self.answer = answer
        super().__init__()

    def serve(self, s):
        with s:
            read_head(s)
            s.sendall(self.answer)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass


@pytest.mark.parametrize("line", [b"X-A: a\0b", b"X-A: a\rb", b"Bad Header: x", b"Bad\x01: x", b"no colon", b": no name", b"Content-Length: -2"], ids=repr)
def test_head_that_is_not_http(line, fleet, make_gateway):
    """Seen before anything goes to the client: another server is asked, this one is blamed."""
    bad = Canned(b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{}")
    try:
        endpoints = [e for e in endpoints_of(fleet) if e["role"] == "prefill"] + [{"role": "decode", "host": "127.0.0.1", "port": bad.port}]
        gw = make_gateway(endpoints, config={"retry_max": 4294967295})
        answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=5)
        assert answer.status_code == 502 and error_of(answer)["code"] == "decode_failed"
        both = make_gateway(endpoints + [e for e in endpoints_of(fleet) if e["role"] == "decode"])
        for i in range(6):
            assert httpx.post(both.url + PATHS["chat"], json=body("chat", text=str(i)), timeout=10).status_code == 200
        assert bad.connections <= 4  # one above; three doubtful failures open a breaker
    finally:
        bad.close()


class Endpoint(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint32) for n in "struct_size role flags port bootstrap_port dp_size max_running reserved".split()] + \
        [("kv_capacity", ctypes.c_uint64)] + [(n, ctypes.c_char * size) for n, size in
                                              (("name", 128), ("host", 256), ("bootstrap_host", 256), ("topology_host", 64),
                                               ("topology_rack", 64), ("topology_zone", 64), ("labels", 512))]


def put(gw, name, port):
    endpoint = Endpoint(struct_size=ctypes.sizeof(Endpoint), role=2, port=port, name=name.encode("utf-8", "surrogateescape"), host=b"127.0.0.1")
    with Block(gw.block) as block:
        block.call("pdr_endpoint_put", block.router, ctypes.byref(endpoint), ctypes.c_uint64(1), None)


@pytest.mark.needs("status")
def test_names_in_prometheus(fleet, make_gateway):
    """Whatever an endpoint is called, a scraper can read all lines: of escapes there are three."""
    names = ['a"b\\c', "ü{}=", "%s%n"]
    gw = make_gateway(fleet)
    for i, name in enumerate(names):
        put(gw, name, 10000 + i)
    line = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)*\})? -?[\d.eE+naNIif]+')
    text = httpx.get(gw.url + "/pdroute?format=prometheus").text
    assert [each for each in text.split("\n") if each and not each.startswith("#") and not line.fullmatch(each)] == []
    found = {each["name"] for each in httpx.get(gw.url + "/pdroute").json()["targets_detail"]}
    assert found >= set(names)


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_a_compressed_body_is_named(encoding, fleet, make_gateway):
    """Not read as JSON with an odd first byte: 415 says what it is. What is said to be compressed and is not, or has the coding of no coding, is taken."""
    gw = make_gateway(fleet)
    text = json.dumps(body("chat")).encode()
    got = httpx.post(gw.url + PATHS["chat"], content=gzip.compress(text), headers={"content-type": "application/json", "content-encoding": encoding}, timeout=10)
    assert (got.status_code, error_of(got)["code"]) == (415, "unsupported_media_type") and "Content-Encoding" in error_of(got)["message"]
    got = httpx.post(gw.url + PATHS["chat"], content=gzip.compress(text), headers={"content-type": "application/json", "content-encoding": "Identity"}, timeout=10)
    assert got.status_code == 400
    got = httpx.post(gw.url + PATHS["chat"], content=text, headers={"content-type": "application/json", "content-encoding": "identity"}, timeout=30)
    assert got.status_code == 200
    assert not [r for r in all_received(fleet, PATHS["chat"]) if r.body.startswith(b"\x1f")]


def test_a_client_that_closes_its_half(make_gateway):
    """No more will come of it, and servers of HTTP cannot tell that from a client that has left: the request is given up like any other whose client is gone. No half answer, nothing stays."""
    workers = [Answers(ANSWER, after=2), Answers(ANSWER, after=2)]
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in zip(("prefill", "decode"), workers)], config={"breaker_failures": 1})
        sent = json.dumps(body("chat")).encode()
        with socket.create_connection(("127.0.0.1", gw.port), 30) as s:
            s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
            assert wait_for(lambda: block_stats(gw)["bookings"] == 1, timeout=30)
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := s.recv(65536):
                answer += piece
        assert answer == b"", answer
        assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=30)
        stats = block_stats(gw)
        assert stats["finished"] == 0
        assert all(each["state"] == "ready" and each["failures"] == 0 for each in gw.status()["targets_detail"])
        assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=30).status_code == 200
    finally:
        for worker in workers:
            worker.close()
