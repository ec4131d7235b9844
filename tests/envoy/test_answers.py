"""Answers of workers, as pdroute-extproc's own connections read them: every form that HTTP/1.1 allows, in any pieces, and what is no HTTP."""

import re
import socket
import time
from json import dumps

import pytest
from data_plane import Call
from listener import Listener
from sglang_sim.harness import wait_for
from traffic import body

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TEXT = b'{"a":"' + b"x" * 40 + b'"}'
SIZE = b"Content-Length: %d\r\n" % len(TEXT)

GOOD = {
    "length": HEAD + SIZE + b"\r\n" + TEXT,
    "length twice": HEAD + SIZE + SIZE + b"\r\n" + TEXT,
    "chunks": HEAD + b"transfer-encoding: Chunked\r\n\r\n5;a=b\r\n" + TEXT[:5] + b"\r\n" + b"%X \r\n" % len(TEXT[5:]) + TEXT[5:] + b"\r\n0\r\nX-Trailer: y\r\n\r\n",
    "to the end": b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + TEXT,
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 7\r\n\r\n" + HEAD + SIZE + b"\r\n" + TEXT,
    "line ends": (HEAD + SIZE + b"\r\n").replace(b"\r\n", b"\n") + TEXT,
    "no reason": b"HTTP/1.1 200\r\nContent-Type: application/json\r\n" + SIZE + b"\r\n" + TEXT,
}
BAD = {
    "lengths that differ": HEAD + SIZE + b"Content-Length: 1\r\n\r\n" + TEXT,
    "negative": HEAD + b"Content-Length: -2\r\n\r\n" + TEXT,
    "plus": HEAD + b"Content-Length: +2\r\n\r\n" + TEXT,
    "enormous": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + TEXT,
    "no length": HEAD + b"Content-Length:\r\n\r\n" + TEXT,
    "coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nx\r\n" + TEXT + b"\r\n0\r\n\r\n",
    "large chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + TEXT,
    "switch": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + TEXT,
    "folded": HEAD + b"X: a\r\n b\r\n" + SIZE + b"\r\n" + TEXT,
    "HTTP/2": b"HTTP/2 200 OK\r\n" + SIZE + b"\r\n" + TEXT,
    "status": b"HTTP/1.1 20 OK\r\n" + SIZE + b"\r\n" + TEXT,
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X-A: %s\r\n" % (b"y" * 1000) * 300 + SIZE + b"\r\n" + TEXT,
    "nothing": b"",
    "half a head": HEAD,
}


class Server(Listener):
    """Keeps connections; answers the n-th request (of all) with what `answers` says, the last for ever. "close" in place of an answer closes."""

    def __init__(self, *answers, piece=None, then_close=False):
        self.answers, self.piece, self.then_close = list(answers), piece, then_close
        self.requests, self.sockets = [], []
        super().__init__()

    def serve(self, s):
        self.sockets.append(s)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray()
        while True:
            while b"\r\n\r\n" not in buffer:
                piece = s.recv(65536)
                if not piece:
                    return
                buffer += piece
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            size = int((re.search(rb"(?i)\r\ncontent-length: (\d+)", head) or [0, 0])[1])
            while len(buffer) < size:
                buffer += s.recv(65536)
            self.requests.append((bytes(head), bytes(buffer[:size])))
            del buffer[:size]
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if answer == "close":
                s.close()
                return
            for i in range(0, len(answer), self.piece or len(answer) or 1):
                s.sendall(answer[i:i + (self.piece or len(answer))])
                if self.piece:
                    time.sleep(0.0005)
            if self.then_close:
                s.shutdown(socket.SHUT_WR)

    def close(self):
        super().close()
        for s in self.sockets:
            s.close()


@pytest.fixture
def start_server():
    servers = []

    def start(*answers, **options):
        servers.append(Server(*answers, **options))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


@pytest.fixture
def pair(start_picker, start_server):
    """A picker that sends both legs, in front of a prefill server that is well and the decode server given."""

    def start(decode, prefill=None, **config):
        prefill = prefill or start_server(PLAIN)
        return start_picker([{"role": "prefill", "host": "127.0.0.1", "port": prefill.port, "bootstrap_port": 8998},
                             {"role": "decode", "host": "127.0.0.1", "port": decode.port}],
                            config={"hold": "off", "retry_max": 2**32 - 1, "breaker_failures": 100, "breaker_error_permille": 1000, **config}, flags=["--dispatch", "both"])

    return start


def ask(picker, text="hi"):
    """(status, body) that the client gets."""
    with Call(picker.grpc_port) as call:
        call.headers()
        call.body(dumps(body("chat", text=text)).encode(), True)
        call.until(lambda c: any(m.HasField("immediate_response") or m.streamed_immediate_response.body_response.end_of_stream
                                 or m.streamed_immediate_response.headers_response.end_of_stream for m in c.messages) or c.ended)
        status, got = 0, b""
        for m in call.messages:
            if m.HasField("immediate_response"):
                return m.immediate_response.status.code, m.immediate_response.body
            for h in m.streamed_immediate_response.headers_response.headers.headers:
                if h.key == ":status":
                    status = int(h.raw_value)
            got += m.streamed_immediate_response.body_response.body
        return status, got


@pytest.mark.parametrize("piece", [None, 1, 7], ids=["whole", "bytes", "sevens"])
def test_good(piece, pair, start_server):
    """One server for all of them, in turns: what one answer leaves behind must not be the next one's."""
    names = list(GOOD)
    decode = start_server(*(GOOD[n] for n in names if n != "to the end"), piece=piece)
    picker = pair(decode)
    for name in names:
        if name != "to the end":
            assert ask(picker, name) == (200, TEXT), name
    assert decode.connections == 1


def test_to_the_end(pair, start_server):
    picker = pair(start_server(GOOD["to the end"], piece=5, then_close=True))
    for _ in range(2):
        assert ask(picker) == (200, TEXT)


@pytest.mark.parametrize("piece", [None, 11], ids=["whole", "pieces"])
def test_bad(piece, pair, start_server):
    """Nothing of it reaches the client, whose answer is the gateway's."""
    answers = {name: answer for name, answer in BAD.items() if not piece or len(answer) < 10_000}
    picker = pair(start_server(*answers.values(), piece=piece, then_close=True))
    for name in answers:
        status, got = ask(picker, name)
        assert (status, b"decode_failed" in got) == (502, True), (name, status, got)


def test_connections_are_kept_and_left(pair, start_server):
    """One is used again and again; not one that was closed, nor one on which a worker said more than it was asked."""
    decode = start_server(PLAIN, PLAIN, PLAIN + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", PLAIN)
    picker = pair(decode)
    for _ in range(3):
        assert ask(picker) == (200, b"{}")
    assert decode.connections == 1
    assert ask(picker) == (200, b"{}")
    assert decode.connections == 2 and len(decode.requests) == 4
    decode.sockets[-1].shutdown(socket.SHUT_RDWR)
    assert ask(picker) == (200, b"{}")
    assert decode.connections == 3 and len(decode.requests) == 5


def test_late_bytes_are_nobodys_answer(pair, start_server):
    """What a worker says on a kept connection, after its answer, is not taken for the next."""
    decode = start_server(PLAIN)
    picker = pair(decode)
    assert ask(picker) == (200, b"{}")
    decode.sockets[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert ask(picker) == (200, b"{}")
    assert decode.connections == 2


def test_kept_connection_that_dies_with_the_request(pair, start_server):
    """Not sent again by itself: the exchange does, with another room, and blames nobody."""
    decode = start_server(PLAIN, "close", PLAIN)
    picker = pair(decode)
    assert ask(picker) == (200, b"{}")
    assert ask(picker, "again") == (200, b"{}")
    rooms = [re.search(rb'"bootstrap_room":\s*(\d+)', sent)[1] for _, sent in decode.requests]
    assert len(rooms) == len(set(rooms)) == 3
    states = [line for line in picker.metrics().splitlines() if "breakers_opened_total" in line and line[0] != "#"]
    assert int(states[0].split()[-1]) == 0


def test_idle_connections_are_closed(pair, start_server):
    """Before SGLang's server does, after 5 s."""
    decode = start_server(PLAIN)
    picker = pair(decode)
    assert ask(picker) == (200, b"{}")
    s = decode.sockets[0]
    assert wait_for(lambda: s.fileno() >= 0 and s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO) != 1, timeout=6, interval=0.1)


def test_long_bodies_both_ways(pair, start_server):
    """More than any socket takes at once, and an answer in place of a request that is not read to its end."""
    long = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3000002\r\n\r\n\"" + b"y" * 3_000_000 + b'"'
    decode = start_server(long)
    picker = pair(decode)
    text = "word " * 1_000_000
    status, got = ask(picker, text)
    assert status == 200 and len(got) == 3_000_002
    sent = decode.requests[0][1]
    assert len(sent) > 5_000_000 and sent.count(b"word ") == 1_000_000
