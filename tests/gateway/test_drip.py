"""Servers whose answers drip: bytes come, for ever, and are neither a head nor content. They are silent, and bounded as silence is."""

import json
import threading
import time

import httpx
import pytest
from conftest import block_stats
from listener import Answers, Listener
from rows import CONFIG
from sglang_sim.harness import wait_for
from traffic import PATHS, body, error_of, events_of

JSON = b'{"choices":[{"message":{"content":"hi"}}]}'
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(JSON), JSON)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
FIRST = {"first_byte_timeout_ms": 60000, "first_byte_least_ms": 60000}  # where it is not what bounds: a busy machine may need more than 700 ms for it
HANGS = 30  # seconds for which a client waits at most: bounds are 700 ms here, and none would be 24 h


class Drips(Listener):
    """Sends `first` for a request, `then` when the client has seen that (go), and `piece` again and again for as long as somebody reads it."""

    def __init__(self, first, piece=b"x", then=b"", every=0.05):
        super().__init__()
        self.first, self.then, self.piece, self.every, self.open, self.asked = first, then, piece, every, 0, 0
        self.go = threading.Event()

    def serve(self, s):
        with s:
            received = b""
            while (piece := s.recv(65536)) and not (received := received + piece).rstrip().endswith(b"}"):
                pass
            if not piece:
                return
            self.open += 1
            self.asked += 1
            try:
                s.sendall(self.first)
                if self.then:
                    self.go.wait(HANGS)
                    s.sendall(self.then)
                while True:
                    time.sleep(self.every)
                    s.sendall(self.piece)
            finally:
                self.open -= 1


def made(make_gateway, prefill, decode, **config):
    return make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in (("prefill", prefill), ("decode", decode))],
                        config={**CONFIG, "retry_max": 4294967295, "breaker_failures": 1000, **config})


def over(gw, *dripping):
    """No connection, and nothing booked, is left."""
    assert wait_for(lambda: all(worker.open == 0 for worker in dripping), timeout=HANGS), [worker.open for worker in dripping]
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=10)


DRIPS = {"a chunk's extension": (b"5;", b"e"), "a chunk's length": (b"0", b"0"), "trailers": (b"0\r\n", b"X-T: v\r\n"), "a trailer": (b"0\r\nX-T: ", b"v")}


def test_what_drips_within_a_stream_is_silence(make_gateway):
    """The client has an error event in its stream's format, and both connections end, as when nothing came."""
    prefill, decode = Answers(SIZED), Drips(HEAD + CHUNK)
    try:
        gw = made(make_gateway, prefill, decode, **FIRST)
        for what, (decode.then, decode.piece) in DRIPS.items():
            content = b""
            decode.go.clear()
            with pytest.raises(httpx.RemoteProtocolError):
                with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", text=what, stream=True), timeout=HANGS) as got:
                    assert got.status_code == 200, what
                    for piece in got.iter_raw():
                        content += piece
                        decode.go.set()
            events = events_of(content.decode())
            assert content.startswith(EVENT) and len(events) == 2 and json.loads(events[1])["error"]["code"] == "decode_timeout", (what, content)
            over(gw, decode)
    finally:
        prefill.close()
        decode.close()


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_what_drips_before_the_first_byte(role, make_gateway):
    """A head that does not end, and a body that does not begin: no first byte in time."""
    workers = {"prefill": Answers(SIZED), "decode": Answers(SIZED, after=HANGS)}
    drips = workers[role] = Drips(b"")
    try:
        gw = made(make_gateway, **workers)
        for drips.first in (b"HTTP/1.1 200 OK\r\nX-A: ", HEAD + b"5;"):
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=HANGS)
            assert got.status_code == 504 and error_of(got)["code"] in ("prefill_timeout", "decode_timeout"), drips.first
            over(gw, drips)
    finally:
        for worker in workers.values():
            worker.close()


def test_what_drips_behind_prefills_answer(make_gateway):
    """The client has decode's answer, and prefill's connection is not kept for ever."""
    prefill, decode = Drips(HEAD + CHUNK), Answers(SIZED)
    try:
        gw = made(make_gateway, prefill, decode, first_byte_timeout_ms=2500)  # so long is prefill read on
        for what in ("a chunk's extension", "trailers"):
            then, prefill.piece = DRIPS[what]
            prefill.first = HEAD + CHUNK + then
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=what), timeout=HANGS)
            assert (got.status_code, got.content) == (200, JSON), what
            over(gw, prefill)
    finally:
        prefill.close()
        decode.close()


ERROR = b'{"error":{"message":"said by the server itself"}}'
REFUSAL = b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: application/json\r\n"
REFUSALS = {"in chunks": REFUSAL + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + ERROR, "long": REFUSAL + b"Content-Length: 1000000\r\n\r\n" + ERROR,
            "until closed": REFUSAL + b"Connection: close\r\n\r\n" + ERROR, "sized": REFUSAL + b"Content-Length: 1000\r\n\r\n" + ERROR,
            "busy": b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: 1000\r\n\r\n" + ERROR}  # the last, for it pauses


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_refusal_that_drips(role, make_gateway):
    """An error's body is no stream: all of it has to be there within the bound of silence, however it comes. In any case the client has the status, and how long it is to wait; nobody else is asked."""
    workers = {"prefill": Answers(SIZED), "decode": Answers(SIZED, after=HANGS)}
    drips = workers[role] = Drips(b"", b" ")
    try:
        gw = made(make_gateway, **workers, **FIRST)
        for i, (framing, drips.first) in enumerate(REFUSALS.items()):
            try:
                with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", text=framing), timeout=HANGS) as got:
                    assert got.status_code == (429 if framing == "busy" else 422), framing
                    assert framing != "busy" or got.headers["retry-after"] == "7"
                    began = time.monotonic()
                    for _ in got.iter_raw():
                        assert time.monotonic() - began < HANGS, framing
            except httpx.RemoteProtocolError:  # its head had gone out
                pass
            over(gw, drips)
            assert drips.asked == i + 1, framing
    finally:
        for worker in workers.values():
            worker.close()
