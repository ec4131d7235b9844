"""What the gateway itself cannot do: its errors are JSON in OpenAI's shape, and no server is blamed for them."""

import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
from listener import Listener, read_head
from sglang_sim.harness import wait_for
from traffic import PATHS, all_received, body, error_of

pytestmark = pytest.mark.only("nginx")

HEAD = "Host: x\r\nContent-Type: application/json\r\n"


def exchange(port, sent):
    """(status, headers, body) of an answer to raw bytes, read until the connection ends or the body is complete."""
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(sent)
        got = b""
        while b"\r\n\r\n" not in got and (piece := s.recv(65536)):
            got += piece
        head, _, rest = got.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        while len(rest) < int(headers.get("content-length", 0)) and (piece := s.recv(65536)):
            rest += piece
    return int(lines[0].split()[1]), headers, rest


@pytest.mark.parametrize("request_, status, code", [
    (f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Content-Length: 70000000\r\n\r\n", 413, "too_large"),
    (f"GET /{'x' * 40000} HTTP/1.1\r\n{HEAD}\r\n", 414, "uri_too_long"),
    (f"TRACE /v1/chat/completions HTTP/1.1\r\n{HEAD}\r\n", 405, "method_not_allowed"),
    (f"GET /v1/chat/completions HTTP/1.1\r\n{HEAD}\r\n", 405, "method_not_allowed"),
    (f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}X-Long: {'x' * 40000}\r\n\r\n", 400, "bad_request"),
    (f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Content-Length: nine\r\n\r\n", 400, "bad_request"),
    (f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\nnot a chunk\r\n", 400, "bad_request"),
    (f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Transfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
    ("POST /v1/chat/completions HTTP/1.1\r\n\r\n", 400, "bad_request"),
    ("NONSENSE\r\n\r\n", 400, "bad_request"),
], ids=["413", "414", "TRACE", "GET", "long header", "bad length", "bad chunk", "unknown coding", "no host", "nonsense"])
def test_errors_of_nginx_are_json(request_, status, code, gw):
    got, headers, text = exchange(gw.port, request_.encode())
    assert got == status, text
    assert headers["content-type"] == "application/json"
    error = json.loads(text)["error"]
    assert error["code"] == code and error["message"] and error["type"] == "invalid_request_error" if got < 500 else "server_error"


def test_errors_over_http2(gw):
    done = subprocess.run(["curl", "-s", "-m", "10", "--http2-prior-knowledge", "-X", "TRACE", "-w", "\n%{http_code} %{http_version}",
                           f"http://127.0.0.1:{gw.h2_port}{PATHS['chat']}"], stdout=subprocess.PIPE, text=True)
    text, _, last = done.stdout.rpartition("\n")
    assert last == "405 2" and json.loads(text)["error"]["code"] == "method_not_allowed"


def test_a_head_request_gets_no_body(gw):
    got, headers, text = exchange(gw.port, f"HEAD /v1/chat/completions HTTP/1.1\r\n{HEAD}Connection: close\r\n\r\n".encode())
    assert got == 405 and text == b""


def test_connections_used_up(start_fleet, make_gateway):
    """Requests wait for their workers until nginx has no connection left: the next gets a 503 that says so, and no breaker opens."""
    fleet = start_fleet(prefill=1, decode=1, speed=0)
    gw = make_gateway(fleet, config={"breaker_failures": 1, "breaker_open_ms": 30000, "first_byte_timeout_ms": 120000, "hold": "off"}, connections=40)
    gw.expect_alerts = True
    for worker in fleet.workers:
        worker.fault(kind="hang")
    sent = json.dumps(body("chat")).encode()
    waiting, answer = [], b""
    while not answer and len(waiting) < 40:
        s = socket.create_connection(("127.0.0.1", gw.port), 10)
        waiting.append(s)
        s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\n{HEAD}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        s.settimeout(0.4)
        try:
            while piece := s.recv(65536):
                answer += piece
                if b"}}" in answer:
                    break
        except TimeoutError:
            pass
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503") and b"Retry-After" in head, answer
    error = json.loads(text)["error"]
    assert error["code"] == "gateway_overloaded" and "worker_connections" in error["message"]
    for s in waiting:
        s.close()
    for worker in fleet.workers:
        worker.heal("hang")
    assert wait_for(lambda: all(r.disconnected for r in all_received(fleet)), timeout=5)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=20).status_code == 200


class ChunkedWorker(Listener):
    """A server that answers every request with the pieces given."""

    def __init__(self, answer):
        self.answer = answer
        super().__init__()

    def serve(self, s):
        with s:
            read_head(s)
            for piece in self.answer:
                s.sendall(piece)
                time.sleep(0.05)
            time.sleep(0.3)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("pieces", [[OK + b"zz\r\n{}"], [OK, b"zz\r\n{}"], [OK + b"2\r\n{}xx5\r\n"], [OK + b"fffffffffffffffffff\r\n{}"],
                                    [OK.replace(b"chunked", b"gzip, chunked") + b"2\r\n{}\r\n0\r\n\r\n"]],
                         ids=["at once", "later", "after a chunk", "huge", "another coding"])
def test_bad_framing_is_a_502(pieces, make_gateway):
    worker = ChunkedWorker(pieces)
    gw = make_gateway([{"role": "both", "host": "127.0.0.1", "port": worker.port}], config={"hold": "off"})
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10)
    assert answer.status_code == 502 and error_of(answer)["code"] == "decode_failed"
    worker.close()


def test_a_body_that_does_not_come_has_an_end(fleet, make_gateway):
    """nginx's client_body_timeout bounds the time between two pieces: the connection ends, and no server has heard of the request."""
    gw = make_gateway(fleet, http="client_body_timeout 1s; client_header_timeout 1s;")
    for sent in (b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le"):
        with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
            s.sendall(sent)
            began = time.monotonic()
            while s.recv(65536):
                pass
            assert 0.5 < time.monotonic() - began < 4
    assert not all_received(fleet)


def rss(gw):
    return sum(int(line.split()[1]) for pid in gw.worker_pids() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))


def test_bodies_that_drip_are_bounded(fleet, make_gateway):
    """Each is cut off when its time is over, however much of it is there by then; until then it takes no more memory than client_body_buffer_size (256 KB here)."""
    n, piece = 40, b" " * 65536
    gw = make_gateway(fleet, body_timeout=6)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=20).status_code == 200
    before, began, sockets = rss(gw), time.monotonic(), []
    for i in range(n):
        sockets.append(socket.create_connection(("127.0.0.1", gw.port), 10))
        sockets[-1].sendall(f"POST {PATHS['chat']} HTTP/1.1\r\n{HEAD}Content-Length: 30000000\r\n\r\n".encode())
    for _ in range(32):  # two megabytes of each
        for s in sockets:
            s.sendall(piece)
    assert wait_for(lambda: sum(f.stat().st_size for f in (gw.dir / "body").rglob("*") if f.is_file()) > n << 20 or time.monotonic() - began > 5, timeout=6)
    assert rss(gw) - before < n * 320, f"{rss(gw) - before} KB for {n} bodies that are not there yet"
    for s in sockets:
        s.settimeout(10)
        assert s.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert s.recv(65536) == b"", "the connection is still open"
        s.close()
    assert 5.5 < time.monotonic() - began < 16
    assert len(all_received(fleet)) == 2
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=20).status_code == 200


def test_a_long_body_in_time(gw, fleet):
    """A body in many pieces is not stopped by a timer that was set for it, even if the request takes longer."""
    sent = json.dumps(body("chat", text="a " * 50000)).encode()
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\n{HEAD}Connection: close\r\nContent-Length: {len(sent)}\r\n\r\n".encode())
        for i in range(0, len(sent), 30000):
            s.sendall(sent[i:i + 30000])
            time.sleep(0.05)
        assert s.recv(65536).startswith(b"HTTP/1.1 200 ")


class Early(Listener):
    """Answers as soon as it has a head, keeps the connection, and reads no more of it."""

    def __init__(self):
        super().__init__()
        self.over = threading.Event()

    def serve(self, s):
        with s:
            read_head(s)
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"choices\":[]}")
            self.over.wait(60)


@pytest.mark.parametrize("before", [True, False], ids=["answered before", "answered while it ends"])
def test_an_exit_does_not_wait_for_a_server_that_reads_no_more(before, make_gateway):
    """What was answered early is sent to its end only for the connection's sake, and an exiting process keeps none."""
    worker = Early()
    try:
        gw = make_gateway([{"role": "both", "host": "127.0.0.1", "port": worker.port}], config={"hold": "off"})
        sent = json.dumps(body("chat", text="word " * 2_000_000)).encode()  # more than any socket buffer holds
        with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
            s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\n{HEAD}Content-Length: {len(sent)}\r\n\r\n".encode() + (sent if before else sent[:-1]))
            if not before:
                gw.process.send_signal(gw.stop_signal)
                assert wait_for(lambda: not gw.listens(), timeout=10)
                s.sendall(sent[-1:])
            got = b""
            while b"]}" not in got and (piece := s.recv(65536)):
                got += piece
            assert got.startswith(b"HTTP/1.1 200 "), got
        assert gw.stop(timeout=30) < 6  # the time for which other ends are waited for; send_timeout is 60 s
    finally:
        worker.over.set()
        worker.close()
