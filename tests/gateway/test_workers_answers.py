"""Answers of servers that are odd and yet must not reach a client as something else; and a gateway that has no descriptor left."""

import resource
import socket
import struct
import threading
from pathlib import Path

import httpx
import pytest
from conftest import block_stats
from listener import Answers, Listener, read_head
from sglang_sim.harness import wait_for
from traffic import PATHS, body, error_of

JSON = b'{"choices":[{"message":{"content":"hi"}}]}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SIZED = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(JSON), JSON)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(JSON), JSON)
MORE = {"an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
        "no answer": b"poison\r\n"}


def test_what_comes_behind_an_answer_is_nobodys(make_gateway):
    """In one piece with it. The answer passes as it is, and the next request gets one of its own."""
    workers = [Answers(SIZED), Answers(SIZED)]
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in zip(("prefill", "decode"), workers)])
        for answer in (SIZED, CHUNKED):
            for name, more in MORE.items():
                workers[1].answer = answer + more
                for i in range(3):
                    got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=str(i)), timeout=5)
                    assert (got.status_code, got.content) == (200, JSON), name
    finally:
        for worker in workers:
            worker.close()


SIZE = b"Content-Length: %d\r\n" % len(JSON)
CODED = HEAD + b"Transfer-Encoding: chunked\r\n"
FORMS = {  # of one answer
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED, "bare line ends": (HEAD + SIZE + b"\r\n").replace(b"\r\n", b"\n") + JSON,
    "no reason": SIZED.replace(b" OK", b""), "an empty reason": SIZED.replace(b"OK", b""), "a long reason": SIZED.replace(b"OK", b"o" * 3000),
    "zeros in front": HEAD + b"Content-Length: 000%d\r\n\r\n%s" % (len(JSON), JSON), "many headers": HEAD + b"X-A: b\r\n" * 90 + SIZE + b"\r\n" + JSON,
    "chunks": CODED + b"\r\n000%x;%s\r\n%s\r\n000\r\n%s\r\n" % (len(JSON), b"e" * 3000, JSON, b"X-T: v\r\n" * 50)}
NO_ANSWER = {
    "lengths that differ": HEAD + SIZE + b"Content-Length: 1\r\n\r\n" + JSON, "a negative length": HEAD + b"Content-Length: -2\r\n\r\n" + JSON,
    "a signed length": HEAD + b"Content-Length: +2\r\n\r\n" + JSON, "an enormous length": HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + JSON,
    "a blank in a name": HEAD + b"Content-Length : 2\r\n\r\n" + JSON, "another coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no size": CODED + b"\r\nx\r\n" + JSON + b"\r\n0\r\n\r\n", "a large size": CODED + b"\r\n10000000000000000\r\n" + JSON,
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + JSON, "HTTP/2": SIZED.replace(b"HTTP/1.1", b"HTTP/2"),
    "two digits": SIZED.replace(b"200", b"20"), "four digits": SIZED.replace(b"200", b"2000"), "a status below 100": SIZED.replace(b"200", b"099"), "half a head": HEAD}


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_forms_of_an_answer(role, make_gateway):
    """What HTTP allows is an answer; what is none is never passed on."""
    workers = {"prefill": Answers(SIZED), "decode": Answers(SIZED, after=0.2)}  # so that prefill's counts
    bad = workers[role] = Ends(SIZED)
    try:
        gw = make_gateway([{"role": name, "host": "127.0.0.1", "port": worker.port} for name, worker in workers.items()],
                          config={"retry_max": 4294967295, "breaker_failures": 1000000, "breaker_error_permille": 1000, "hold": "off"})
        for name, bad.answer in FORMS.items():
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=name), timeout=20)
            assert (got.status_code, got.content) == (200, JSON), name
        workers["decode"].after = 30
        for name, bad.answer in NO_ANSWER.items():
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=name), timeout=20)
            assert got.status_code == 502 and set(error_of(got)) and JSON not in got.content, (name, got.status_code, got.content)
    finally:
        for worker in workers.values():
            worker.close()


class Refuses(Listener):
    """Answers as soon as it has a head, and closes with the body unread: the system resets the connection behind the answer."""

    def serve(self, s):
        with s:
            if read_head(s):
                s.sendall(REFUSAL)


REFUSED = b'{"error":{"message":"said by the server itself"}}'
REFUSAL = b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(REFUSED), REFUSED)


@pytest.mark.only("nginx", "python", "go", "ext_proc_both")  # Envoy's HTTP client drops what was said when it cannot send
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_refusal_before_the_body_is_read(role, make_gateway):
    """It is the answer, although the rest of the request cannot be sent any more."""
    workers = {"prefill": Answers(SIZED), "decode": Answers(SIZED, after=30)}
    workers[role] = Refuses()
    try:
        gw = make_gateway([{"role": name, "host": "127.0.0.1", "port": worker.port} for name, worker in workers.items()], config={"breaker_failures": 1})
        for size in 3 * (100_000, 5_000_000):
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text="word " * (size // 5)), timeout=20)
            assert (got.status_code, got.content) == (413, REFUSED), size
        assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=5) and block_stats(gw)["failed"] == 0
    finally:
        for worker in workers.values():
            worker.close()


class Ends(Answers):
    """Ends the connection behind each answer."""

    def serve(self, s):
        with s:
            received = b""
            while (piece := s.recv(65536)) and not (received := received + piece).rstrip().endswith(b"}"):
                pass
            s.sendall(self.answer)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass


class Dies(Answers):
    """Sends what it has, and is gone in the same moment."""

    def serve(self, s):
        with s:
            received = b""
            while (piece := s.recv(65536)) and not (received := received + piece).rstrip().endswith(b"}"):
                pass
            s.sendall(self.answer)
            self.end(s)

    def end(self, s):
        pass


@pytest.mark.only("nginx", "python", "go")  # others pass the head on as it comes
@pytest.mark.parametrize("rest", [b"", b"3"], ids=["head", "part of a chunk's length"])
def test_a_server_that_dies_behind_its_head(rest, make_gateway):
    """The end comes in one event with the head, and is told once: it is noticed at once all the same, and another server is asked."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
    whole = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event)
    roles = {"prefill": Answers(SIZED), "decode": Dies(head + rest)}
    good = Answers(whole)
    try:
        listed = [{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in roles.items()]
        gw = make_gateway([*listed, {"role": "decode", "host": "127.0.0.1", "port": good.port}, {"role": "prefill", "host": "127.0.0.1", "port": Answers(SIZED).port}],
                          config={"breaker_failures": 1000, "policy": "round_robin"})
        for i in range(6):  # half of them come to the one that dies
            got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=str(i), stream=True), timeout=10)
            assert (got.status_code, got.content) == (200, event)
        assert roles["decode"].connections > 0
    finally:
        for worker in [*roles.values(), good]:
            worker.close()


class Breaks(Dies):
    """Sends what it has; when `read` is set, what comes behind, and is gone: closed, or reset if nothing comes."""

    def __init__(self, answer, behind):
        super().__init__(answer)
        self.behind, self.read = behind, threading.Event()

    def end(self, s):
        self.read.wait(10)  # a reset takes with it what has not been read, and bad framing behind the answer would be seen before anything has gone to the client
        if self.behind:
            s.sendall(self.behind)
        else:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BREAKS = {"reset": b"", "closed within a chunk's length": b"5", "no chunk": b"no length\r\n"}


@pytest.mark.parametrize("how", BREAKS)
def test_a_connection_that_breaks_behind_done(how, make_gateway):
    """All was said: the client gets the stream as it came, ended as it should be and nothing behind it, and no server is blamed."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\ndata: [DONE]\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    workers = [Answers(SIZED), Breaks(head + b"%x\r\n%s\r\n" % (len(event), event), BREAKS[how])]
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in zip(("prefill", "decode"), workers)], config={"breaker_failures": 1})
        for i in range(3):
            content = b""
            workers[1].read.clear()
            try:
                with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", text=str(i), stream=True), timeout=10) as got:
                    assert got.status_code == 200
                    for piece in got.iter_raw():
                        content += piece
                        if content == event:
                            workers[1].read.set()
            except httpx.RemoteProtocolError:
                assert gw.name == "ext_proc"  # Envoy passes decode's answer itself, and its break too
            assert content == event
            assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=10)
        if gw.name != "ext_proc":
            assert block_stats(gw)["finished"] == 3
            assert all(each["state"] == "ready" and each["failures"] == 0 for each in gw.status()["targets_detail"])
    finally:
        for worker in workers:
            worker.close()


HTML = b"<!doctype html><title>It works</title>"
STRANGE = {  # (type, bytes): 200, well framed, and neither an answer of the API nor a stream of events
    "a page": (b"text/html", HTML), "text": (b"text/plain", b"OK"), "half of a JSON text": (b"application/json", JSON[:20]), "nothing": (b"application/json", b""),
    "bytes": (b"application/octet-stream", bytes(range(256)) * 40), "no event in a stream": (b"text/event-stream", HTML)}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_200_that_is_no_answer_passes(make_gateway, stream):
    """What a 200 contains is the server's business: decode's passes byte for byte, in one piece or in chunks, blames nobody, is not asked for again; prefill's is read to its end."""
    workers = [Answers(SIZED), Answers(SIZED)]
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in zip(("prefill", "decode"), workers)], config={"breaker_failures": 1})
        for name, (type, content) in STRANGE.items():
            head = b"HTTP/1.1 200 OK\r\nContent-Type: " + type + b"\r\n"
            sized = head + b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
            chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"%x\r\n%s\r\n" % (len(content), content) if content else b"") + b"0\r\n\r\n"
            for answer in (sized, chunked):
                workers[1].answer, before = answer, block_stats(gw)
                got = httpx.post(gw.url + PATHS["chat"], json=body("chat", text=name, stream=stream), timeout=10)
                assert (got.status_code, got.content) == (200, content), name
                assert got.headers["content-type"].split(";")[0] == type.decode(), name
                assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=5), name
                after = block_stats(gw)
                assert (after["retried"], after["failed"], after["finished"]) == (before["retried"], before["failed"], before["finished"] + 1), name
        workers[0].answer, workers[1].answer = head + b"Content-Length: %d\r\n\r\n%s" % (len(HTML), HTML), SIZED
        got = httpx.post(gw.url + PATHS["chat"], json=body("chat", stream=stream), timeout=10)
        assert (got.status_code, got.content) == (200, JSON)
        states = [(each["name"], each["state"], each["failures"]) for each in gw.status()["targets_detail"]]
        assert all(state == "ready" and failures == 0 for _, state, failures in states), states
    finally:
        for worker in workers:
            worker.close()


@pytest.mark.only("python", "go", "ext_proc", "ext_proc_both", "envoy_module")
def test_no_descriptor_left(fleet, make_gateway):
    """The client is told that it is the gateway, no server is blamed, nothing stays booked, and it goes on, and ends, as ever."""
    gw = make_gateway(fleet, config={"breaker_failures": 1, "breaker_open_ms": 30000, "hold": "off"})
    clients = [httpx.Client(base_url=gw.url, timeout=5) for _ in range(4)]
    for client in clients:
        assert client.get("/liveness").status_code == 200
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in gw.dialers()}
    for pid, (_, most) in limits.items():
        used = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (next(n for n in range(len(used) + 1) if n not in used), most))
    try:
        for client in clients[:3]:
            got = client.post(PATHS["chat"], json=body("chat"))
            assert got.status_code == 503 and got.headers["retry-after"] and error_of(got)["code"] == "gateway_overloaded"
    finally:
        for pid, was in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, was)
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=3)
    states = [(each["name"], each["state"], each["failures"]) for each in gw.status()["targets_detail"]]
    assert all(state == "ready" and failures == 0 for _, state, failures in states), (states, gw.errors()[-3000:])
    assert clients[3].post(PATHS["chat"], json=body("chat")).status_code == 200
    for client in clients:
        client.close()


@pytest.mark.only("python", "go")
def test_more_clients_than_the_soft_limit_of_descriptors(fleet, make_gateway):
    """A gateway takes as many as the system allows it (the hard limit), not as few as a shell's or a service's default: none is reset, each is answered."""
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (160, was[1]))  # which the gateway inherits
    try:
        gw = make_gateway(fleet)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)
    sockets = [socket.create_connection(("127.0.0.1", gw.port), 20) for _ in range(300)]
    try:
        for s in sockets:
            s.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
        answers = [s.recv(65536) for s in sockets]
        assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 ")] == []
    finally:
        for s in sockets:
            s.close()
