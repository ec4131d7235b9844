"""HTTP/2 as nobody should send it, frame by frame: what would be another request, or an owned header, once it is written as HTTP/1.1 to a worker.

A row of CORPUS is a request's header fields and its body's frames. A gateway refuses it (a status of 4xx or 501, a stream or connection that ends), or answers it; in
either case the workers have seen nothing but the request that was meant, twice at most (once each), and the gateway goes on.
"""

import json
import re
import socket
import struct

import httpx
import pytest
from test_bodies import TAIL, odd_chat, strip_tail
from traffic import PATHS, all_received, body

hpack = pytest.importorskip("hpack")

CHAT = PATHS["chat"]
BODY = json.dumps(body("chat")).encode()
DATA, HEADERS, RST, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
SMUGGLED = "POST /v1/completions HTTP/1.1\r\nHost: y\r\nContent-Length: 2\r\n\r\n{}"
PSEUDO = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", CHAT)]
JSON = [("content-type", "application/json")]


def fields(*more, pseudo=PSEUDO):
    return [*pseudo, *JSON, *more]


def with_path(path):
    return [*PSEUDO[:3], (":path", path)]


# name: (fields, pieces of the body, whether it may be answered as it is meant)
CORPUS = {
    "as it should be": (fields(), [BODY], True),
    "in pieces": (fields(("content-length", str(len(BODY)))), [BODY[:5], b"", BODY[5:]], True),
    # lengths
    "transfer-encoding": (fields(("transfer-encoding", "chunked")), [b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)], False),
    "transfer-encoding beside a good body": (fields(("transfer-encoding", "chunked")), [BODY], True),
    "transfer-encoding and a length": (fields(("content-length", str(len(BODY))), ("transfer-encoding", "chunked")), [BODY], True),
    "two lengths": (fields(("content-length", str(len(BODY))), ("content-length", "5")), [BODY], False),
    "the same length twice": (fields(*[("content-length", str(len(BODY)))] * 2), [BODY], True),
    "a shorter length": (fields(("content-length", "5")), [BODY], False),
    "a longer length": (fields(("content-length", str(len(BODY) + 10))), [BODY], False),
    "length 0 with a body": (fields(("content-length", "0")), [SMUGGLED.encode()], False),
    "length with a sign": (fields(("content-length", f"+{len(BODY)}")), [BODY], False),
    "length that is none": (fields(("content-length", "x")), [BODY], False),
    # line ends and zeros
    "CR LF in a value": (fields(("x-a", "1\r\nx-data-parallel-rank: 1")), [BODY], False),
    "LF in a value": (fields(("x-a", "1\nx-data-parallel-rank: 1")), [BODY], False),
    "CR in a value": (fields(("x-a", "1\rx-data-parallel-rank: 1")), [BODY], False),
    "NUL in a value": (fields(("x-a", "1\0b")), [BODY], False),
    "a request in a value": (fields(("x-a", "1\r\n\r\n" + SMUGGLED)), [BODY], False),
    "CR LF in a name": (fields(("x-a: 1\r\nx-data-parallel-rank", "1")), [BODY], False),
    "a colon in a name": (fields(("x-data-parallel-rank:", "1")), [BODY], False),
    "a space in a name": (fields(("x-data-parallel-rank ", "1")), [BODY], False),
    "capitals in a name": (fields(("X-Data-Parallel-Rank", "1")), [BODY], False),
    "an empty name": (fields(("", "1")), [BODY], False),
    "CR LF in the path": (fields(pseudo=with_path(CHAT + " HTTP/1.1\r\nx-data-parallel-rank: 1\r\nx-b: ")), [BODY], False),
    "a space in the path": (fields(pseudo=with_path(CHAT + " HTTP/1.1")), [BODY], False),
    "a path that is none": (fields(pseudo=with_path("v1/chat/completions")), [BODY], False),
    "an absolute path": (fields(pseudo=with_path("http://y" + CHAT)), [BODY], True),
    "CR LF in the authority": (fields(pseudo=[PSEUDO[0], PSEUDO[1], (":authority", "x\r\nx-data-parallel-rank: 1"), PSEUDO[3]]), [BODY], False),
    "a space in the method": (fields(pseudo=[(":method", f"POST {CHAT} HTTP/1.1\r\nx-a:"), *PSEUDO[1:]]), [BODY], False),
    # fields that HTTP/2 does not have, or not there
    "connection": (fields(("connection", "x-data-parallel-rank")), [BODY], True),
    "keep-alive and upgrade": (fields(("keep-alive", "1"), ("upgrade", "h2c"), ("proxy-connection", "keep-alive")), [BODY], True),
    "owned headers": (fields(("x-data-parallel-rank", "1"), ("x-override-bootstrap-room", "7")), [BODY], True),
    "te": (fields(("te", "trailers, chunked")), [BODY], True),
    "no path": (fields(pseudo=PSEUDO[:3]), [BODY], False),
    "two paths": (fields(pseudo=[*PSEUDO, (":path", "/v1/completions")]), [BODY], False),
    "two methods": (fields(pseudo=[(":method", "GET"), *PSEUDO]), [BODY], False),
    "a pseudo field behind others": ([*PSEUDO[:3], *JSON, PSEUDO[3]], [BODY], True),
    "an unknown pseudo field": (fields(pseudo=[*PSEUDO, (":room", "1")]), [BODY], False),
    "another host": (fields(("host", "y\r\nx-data-parallel-rank: 1")), [BODY], False),
}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name, value):
    """Without index and Huffman code, as it is."""
    def text(t):
        t = t.encode("latin-1")
        return hpack.hpack.encode_integer(len(t), 7) + t
    return b"\x00" + bytes(text(name)) + bytes(text(value))


def exchange(gw, head, pieces, end=END_STREAM):
    """The status that came back on stream 1; 0: the stream or the connection was ended, or nothing came."""
    block = b"".join(literal(*field) for field in head)
    sent = [frame(HEADERS, END_HEADERS, 1, block)] + [frame(DATA, end if i == len(pieces) - 1 else 0, 1, p) for i, p in enumerate(pieces)]
    decoder, got = hpack.Decoder(), b""
    with socket.create_connection(("127.0.0.1", gw.h2_port), 10) as s:
        s.settimeout(3)
        try:
            s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0) + b"".join(sent))
            while True:
                while len(got) < 9 or len(got) < 9 + int.from_bytes(got[:3], "big"):
                    piece = s.recv(65536)
                    if not piece:
                        return 0
                    got += piece
                size, kind, stream = int.from_bytes(got[:3], "big"), got[3], int.from_bytes(got[5:9], "big")
                payload, got = got[9:9 + size], got[9 + size:]
                if kind == HEADERS:
                    return int(dict(decoder.decode(payload))[":status"])
                graceful = kind == GOAWAY and payload[:8] == b"\0\0\0\1\0\0\0\0"  # stream 1 is still answered, and is the last
                if (kind == GOAWAY and not graceful) or (kind == RST and stream == 1):
                    return 0
        except OSError:
            return 0


def judge(status, received, may):
    """What is wrong, None: nothing."""
    if status not in ((200, 0, 400, 411, 413, 415, 421, 501) if may else (0, 400, 403, 404, 405, 411, 413, 421, 501)):
        return "the answer"
    if len(received) != (2 if status == 200 else 0):
        return f"{len(received)} requests arrived"
    for r in received:
        if (r.method, r.path) != ("POST", CHAT) or TAIL.sub(b"", r.body) != BODY or r.header("content-length") != str(len(r.body)):
            return f"another request arrived: {r}"
        for field, value in r.headers:
            if field.lower() in ("transfer-encoding", "x-data-parallel-rank", "x-override-bootstrap-room", "keep-alive", "upgrade", "proxy-connection"):
                return f"{field} arrived"
            if re.search(r"[\r\n\0]", field + value):
                return f"{field} arrived with {value!r}"
    return None


@pytest.mark.needs("h2")
def test_corpus_of_http2(gw, fleet):
    wrong, answered = {}, []
    for name, (head, pieces, may) in CORPUS.items():
        status = exchange(gw, head, pieces)
        received = all_received(fleet)
        if name in gw.http2:
            code, path, _ = gw.http2[name]
            whole = all((r.method, r.path, TAIL.sub(b"", r.body)) == ("POST", path, BODY) and r.header("content-length") == str(len(r.body)) for r in received)
            found = None if status == code and received and whole else f"not what the host does with it: {[(r.path, r.body) for r in received]}"
        else:
            found = judge(status, received, may)
        if found:
            wrong[name] = status, found
        if received:
            answered.append(name)
            fleet.reset()
    assert not wrong, wrong
    assert answered[:2] == ["as it should be", "in pieces"], answered
    assert httpx.post(gw.url + CHAT, json=body("chat"), timeout=10).status_code == 200


@pytest.mark.needs("h2")
def test_a_body_that_does_not_end(fleet, make_gateway):
    """There is a bound for the whole of it, here too."""
    gw = make_gateway(fleet, body_timeout=1)
    assert exchange(gw, CORPUS["as it should be"][0], [BODY], end=0) == 408 and not all_received(fleet)
    assert exchange(gw, CORPUS["as it should be"][0], [BODY]) == 200


@pytest.mark.needs("h2")
@pytest.mark.only("nginx", "go")  # others do not try a decode server's failure again, or hold no body in a file
def test_a_retry_of_a_body_in_a_file(start_fleet, make_gateway):
    """Over HTTP/2, longer than a window, and written to a file: a second decode server gets the same bytes as the first, with another room."""
    pytest.importorskip("h2")
    fleet = start_fleet(prefill=2, decode=2, speed=0)
    gw = make_gateway(fleet, config={"policy": "round_robin", "breaker_failures": 1000, "breaker_error_permille": 4294967295}, body_file=True)
    fleet.decodes[0].fault(kind="status", status=500)
    sent = odd_chat(100_000)
    with httpx.Client(http1=False, http2=True, timeout=60) as client:
        for _ in range(4):
            answer = client.post(f"http://127.0.0.1:{gw.h2_port}{CHAT}", content=sent, headers=dict(JSON))
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer.text
    assert all(strip_tail(each.body) == sent for each in all_received(fleet, CHAT))
    failed, good = ([each.json["bootstrap_room"] for each in worker.requests()] for worker in fleet.decodes)
    assert failed and len(good) == 4 and len({*failed, *good}) == len(failed) + 4
