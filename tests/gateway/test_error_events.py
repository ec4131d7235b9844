"""Errors that an engine reports within a stream, under a 200: on their way to the client they tell nothing of the inside, and what is no error stays byte for byte."""

import json
import threading
import time

import httpx
import pytest
from listener import Answers, Listener
from traffic import PATHS, body

TELLS = "Decode transfer failed: bootstrap_room={room} at 127.0.0.1:{port} in /opt/sglang/srt/disaggregation/decode.py"
SAID = "see /usr/lib/x/y.py, 1234567890123456789"  # by the model
STREAMS = {
    "chat": [{"choices": [{"index": 0, "delta": {"content": SAID}}]}, {"error": {"object": "error", "message": TELLS, "type": "500", "param": None, "code": 500}}],
    "completions": [{"choices": [{"index": 0, "text": SAID}]}, {"object": "error", "message": TELLS, "type": "500", "param": None, "code": 500}],
    "generate": [{"text": SAID, "meta_info": {"id": "a", "finish_reason": None, "completion_tokens": 1}},
                 {"text": SAID, "meta_info": {"id": "a", "finish_reason": {"type": "abort", "message": TELLS, "status_code": 500, "err_type": None}, "completion_tokens": 1}}]}
DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class Streams(Listener):
    """Answers with a stream that ends in an error, in pieces of `size` bytes, and keeps what it said; `framing`: sized, chunked, close. Behind the first event it waits for `go`: it has reached the client."""

    def __init__(self, events, size, framing):
        super().__init__()
        self.events, self.size, self.framing, self.said, self.room = events, size, framing, b"", ""
        self.go = threading.Event()

    def serve(self, s):
        with s:
            received = b""
            while (piece := s.recv(65536)) and not (received := received + piece).rstrip().endswith(b"}"):
                pass
            self.room = str(json.loads(received[received.index(b"\r\n\r\n"):])["bootstrap_room"])
            tells = TELLS.format(room=self.room, port=self.port)
            self.said = b"".join(b"data: %s\n\n" % json.dumps(e).replace(TELLS, tells).encode() for e in self.events) + DONE
            s.sendall(HEAD + (b"Content-Length: %d\r\n\r\n" % len(self.said) if self.framing == "sized" else
                              b"Transfer-Encoding: chunked\r\n\r\n" if self.framing == "chunked" else b"Connection: close\r\n\r\n"))
            first = self.said.index(b"\n\n") + 2 if len(self.events) > 1 else 0
            pieces = [self.said[at:at + self.size] for at in range(first, len(self.said), self.size)]
            for i, piece in enumerate([self.said[:first], *pieces] if first else pieces):
                s.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if self.framing == "chunked" else piece)
                if first and not i:
                    self.go.wait(20)
                else:
                    time.sleep(0.02)  # so that pieces come one by one; what is demanded does not depend on it
            if self.framing == "chunked":
                s.sendall(b"0\r\n\r\n")


def heard_of(url, content, go):
    """The status and all that came; with the first bytes the server may go on."""
    heard = b""
    with httpx.stream("POST", url, json=content, timeout=20) as answer:
        for piece in answer.iter_raw():
            heard += piece
            go.set()
    return answer.status_code, heard


@pytest.mark.parametrize("framing", ["sized", "chunked", "close"])
@pytest.mark.parametrize("api", STREAMS)
def test_an_error_event_tells_nothing(api, framing, make_gateway):
    """In one piece, and cut in all places of a period."""
    prefill = Answers(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    decode = Streams(STREAMS[api], 1, framing)
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in (("prefill", prefill), ("decode", decode))],
                          config={"breaker_failures": 1000})
        for size in (4096, 90, 37):
            decode.size = size
            decode.go.clear()
            status, heard = heard_of(gw.url + PATHS[api], body(api, text=f"{framing} {size}", stream=True), decode.go)
            assert status == 200 and len(heard) == len(decode.said), heard
            events = heard.split(b"\n\n")
            was = decode.said.split(b"\n\n")
            assert [events[0], *events[2:]] == [was[0], *was[2:]], "what is no error has changed"
            error = events[1].decode()
            for inside in (decode.room, "bootstrap_room", "127.0.0.1", "/opt", "decode.py"):
                assert inside not in error, (size, error)
            said, told = (json.loads(e[6:]) for e in (was[1], error))
            assert said.keys() == told.keys() and said.get("text") == told.get("text") and "Decode transfer failed" in error, error
    finally:
        for worker in (prefill, decode):
            worker.close()


def test_a_refusal_as_the_first_event_tells_nothing(make_gateway):
    """It names a 4xx, so it passes as the answer."""
    refused = {"error": {"object": "error", "message": TELLS, "type": "BAD_REQUEST", "param": None, "code": 400}}
    prefill = Answers(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    decode = Streams([refused], 4096, "chunked")
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in (("prefill", prefill), ("decode", decode))])
        for size in (4096, 50):
            decode.size = size
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=f"refused {size}", stream=True), timeout=10)
            assert got.status_code == 200 and len(got.content) == len(decode.said) and got.content.endswith(DONE)
            assert decode.room not in got.text and "/opt" not in got.text and b'"code": 400' in got.content
    finally:
        for worker in (prefill, decode):
            worker.close()
