"""HTTP as nobody should send it, by hand and over sockets; and owned members and headers on every path.

Rows of CORPUS: what is sent, and which statuses the first answer may have. Many are decided by the host server (nginx, Envoy, net/http, asyncio), each
within its rights: a row then lists what is right (and `http` of a host what is right there only). What holds for every row and gateway: the workers have seen whole requests only, each with the
body that its head announces; none that the client was not answered for; and the gateway goes on.

tests/run sends all of it to nginx, and to the others a part (BRIEF); all of it with --long, or by pytest itself.
"""

import json
import random
import re
import socket
import time

import httpx
import pytest
from hosts.host import endpoints_of
from test_bodies import TAIL
from traffic import PATHS, all_received, body

CHAT = PATHS["chat"]
BODY = json.dumps(body("chat")).encode()
SECOND = b"GET /v1/models?second HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SIZED = b"Content-Length: %d\r\n" % len(BODY)
BAD = {400, 411, 413, 414, 417, 431, 501, 505, 0}  # 0: closed without a word
FINE = {200}


def post(head, sent, target=CHAT.encode(), version=b"HTTP/1.1"):
    return b"POST " + target + b" " + version + b"\r\nHost: x\r\nContent-Type: application/json\r\n" + head + b"\r\n" + sent


CORPUS = {
    # two ideas of where the body ends
    "CL and TE": (post(SIZED + b"Transfer-Encoding: chunked\r\n", CHUNKED + SECOND), BAD | FINE),
    "TE and a short CL": (post(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", CHUNKED + SECOND), BAD | FINE),
    "CL that hides a request behind TE": (post(b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % (5 + len(SECOND)), b"0\r\n\r\n" + SECOND), BAD),
    "two CL": (post(SIZED + b"Content-Length: 5\r\n", BODY + SECOND), BAD),
    "a list in CL": (post(b"Content-Length: %d, 5\r\n" % len(BODY), BODY), BAD),
    "CL +": (post(b"Content-Length: +%d\r\n" % len(BODY), BODY), BAD),
    "CL negative": (post(b"Content-Length: -1\r\n", BODY), BAD),
    "CL 2^64": (post(b"Content-Length: 18446744073709551616\r\n", BODY), BAD),
    "CL hexadecimal": (post(b"Content-Length: 0x10\r\n", BODY), BAD),
    "TE xchunked": (post(b"Transfer-Encoding: xchunked\r\n", CHUNKED), BAD),
    "TE chunked, identity": (post(b"Transfer-Encoding: chunked, identity\r\n", CHUNKED), BAD),
    "TE twice": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", CHUNKED), BAD),
    "space before the colon": (post(b"Transfer-Encoding : chunked\r\n", CHUNKED), BAD),
    "TE in HTTP/1.0": (post(b"Transfer-Encoding: chunked\r\n", CHUNKED, version=b"HTTP/1.0"), BAD | FINE),
    # chunks
    "chunk extensions": (post(b"Transfer-Encoding: chunked\r\n", b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)), FINE | BAD),
    "trailers": (post(b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n", CHUNKED[:-2] + b"X-T: 1\r\nX-Data-Parallel-Rank: 1\r\n\r\n"), FINE | BAD),
    "chunk size no number": (post(b"Transfer-Encoding: chunked\r\n", b"zz\r\n" + BODY), BAD),
    "chunk size 2^64": (post(b"Transfer-Encoding: chunked\r\n", b"10000000000000000\r\n" + BODY), BAD),
    "chunk size negative": (post(b"Transfer-Encoding: chunked\r\n", b"-1\r\n" + BODY), BAD),
    "chunk longer than it says": (post(b"Transfer-Encoding: chunked\r\n", b"5\r\n" + BODY + b"\r\n0\r\n\r\n"), BAD),
    # lines and characters
    "bare LF": (post(SIZED, BODY).replace(b"\r\n", b"\n"), FINE | BAD),
    "folded line": (post(b"X-A: 1\r\n 2\r\n" + SIZED, BODY), FINE | BAD),
    "folded TE": (post(b"Transfer-Encoding:\r\n chunked\r\n", CHUNKED), FINE | BAD),
    "NUL in a header": (post(b"X-A: a\0b\r\n" + SIZED, BODY), BAD),
    "CR in a header": (post(b"X-A: a\rX-Data-Parallel-Rank: 1\r\n" + SIZED, BODY), FINE | BAD),
    "no colon": (post(b"nothing\r\n" + SIZED, BODY), FINE | BAD),
    "two Hosts": (post(b"Host: y\r\n" + SIZED, BODY), FINE | BAD),
    # targets
    "absolute form": (post(SIZED, BODY, target=b"http://evil.example" + CHAT.encode()), FINE | BAD | {404}),
    "//": (post(SIZED, BODY, target=b"/" + CHAT.encode()), FINE | BAD | {404, 405}),
    "..": (post(SIZED, BODY, target=b"/x/.." + CHAT.encode()), FINE | BAD | {404, 405}),
    "space in the target": (post(SIZED, BODY, target=CHAT.encode() + b" x"), BAD),
    "target of 64 KB": (post(SIZED, BODY, target=CHAT.encode() + b"?" + b"a" * 65536), FINE | BAD),
    # sizes
    "header of 64 KB": (post(b"X-A: " + b"a" * 65536 + b"\r\n" + SIZED, BODY), FINE | BAD),
    "10,000 headers": (post(b"".join(b"X-%d: 1\r\n" % i for i in range(10000)) + SIZED, BODY), FINE | BAD),
    # ways
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", {400, 405, 501}),
    "HTTP/1.0": (post(SIZED, BODY, version=b"HTTP/1.0"), FINE),
    "Upgrade": (post(b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + SIZED, BODY), FINE | BAD | {403}),
    "Upgrade h2c": (post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + SIZED, BODY), FINE | BAD | {403}),
    "pipelined": (post(SIZED, BODY) + SECOND, FINE),
    "100,000 deep": (post(b"Content-Length: 200006\r\n", b'{"x":' + b"[" * 100000 + b"]" * 100000 + b"}"), {400}),
}

# Of each kind one, and those that a host was found wrong in
BRIEF = {"CL and TE", "CL that hides a request behind TE", "two CL", "CL 2^64", "space before the colon", "TE in HTTP/1.0", "trailers",
         "chunk longer than it says", "CR in a header", "CONNECT", "HTTP/1.0", "//", "..", "header of 64 KB", "Upgrade h2c", "pipelined", "100,000 deep"}
assert BRIEF <= set(CORPUS)
more = pytest.mark.more("nginx")


def exchange(gw, sent, silence=0.3):
    """What comes back until the gateway closes or says nothing more for so long."""
    answer = b""
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        try:
            s.sendall(sent)
        except OSError:
            pass  # refused before the end
        s.settimeout(silence)
        try:
            while piece := s.recv(65536):
                answer += piece
        except OSError:
            pass
    return answer


def statuses(answer):
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d\d\d)", answer) if code != b"100"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in BRIEF else more) for name in CORPUS])
def test_corpus(name, gw, fleet):
    sent, allowed = CORPUS[name]
    allowed = gw.http.get(name, (allowed,))[0]
    answers = statuses(exchange(gw, sent))
    assert (answers or [0])[0] in allowed
    received = all_received(fleet)
    generating = [r for r in received if r.method == "POST"]
    others = [r for r in received if r.method != "POST"]
    for r in generating:
        assert TAIL.sub(b"", r.body) == BODY, r.body[-200:]
        assert r.header("content-length") == str(len(r.body)) and r.header("transfer-encoding") is None
        assert r.header("x-data-parallel-rank") is None and r.header("x-t") is None
    assert len(generating) <= 2 and all(r.path == "/v1/models?second" for r in others)
    assert bool(generating) + len(others) <= len(answers), (answers, [(r.method, r.path) for r in received])
    if answers and answers[0] == 200:  # else the refusal of one leg may have cut off the other
        assert len(generating) == 2
    assert httpx.post(gw.url + CHAT, json=body("chat"), timeout=10).status_code == 200


def test_10_megabytes(gw, fleet):
    """Arrives whole at both servers."""
    big = json.dumps(body("chat", text="0123456789abcde " * (10 << 16))).encode()
    assert statuses(exchange(gw, post(b"Connection: close\r\nContent-Length: %d\r\n" % len(big), big), silence=20)[:100]) == [200]
    received = [r for r in all_received(fleet) if r.path == CHAT]
    assert len(received) == 2 and all(TAIL.sub(b"", r.body) == big for r in received)


@more
def test_33_megabytes(gw, fleet):
    """Above max_body: refused, not passed on."""
    big = b'{"messages":[{"role":"user","content":"' + b"a" * (33 << 20) + b'"}]}'
    answers = statuses(exchange(gw, post(b"Content-Length: %d\r\n" % len(big), big), silence=5))
    assert (answers or [0])[0] in (413, 0) and not all_received(fleet)
    assert httpx.post(gw.url + CHAT, json=body("chat"), timeout=10).status_code == 200


def test_a_byte_a_second(gw, fleet):
    """A slow body holds nobody up, and no worker hears of it before it is whole."""
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        s.sendall(post(SIZED, BODY[:1]))
        for i in range(2):
            time.sleep(1)
            s.sendall(BODY[i + 1:i + 2])
            assert not [r for r in all_received(fleet) if r.path == CHAT and b"other" not in r.body]
            assert httpx.post(gw.url + CHAT, json=body("chat", text="other"), timeout=5).status_code == 200
    assert not [r for r in all_received(fleet) if b"other" not in r.body]


def test_a_body_that_drips(fleet, make_gateway):
    """A byte now and then is no reason to wait for ever: there is a bound for the whole of it, and none that a stream would feel."""
    gw = make_gateway(fleet, body_timeout=2)
    for head in (SIZED, b"Transfer-Encoding: chunked\r\n"):
        with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
            began, got = time.monotonic(), b""
            s.sendall(post(head, b""))
            s.settimeout(0.3)
            while time.monotonic() - began < 8:
                try:
                    s.sendall(b"1\r\n \r\n" if b"chunked" in head else b" ")
                    got = s.recv(4096)
                    break
                except TimeoutError:
                    pass
            assert got.startswith(b"HTTP/1.1 408 "), got
            assert 1.5 < time.monotonic() - began < 5
    assert not all_received(fleet)
    assert httpx.post(gw.url + CHAT, json=body("chat"), timeout=10).status_code == 200


# ---- owned members and headers

OWNED = ["bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank", "bootstrap_pair_key",
         "decode_tp_size", "kv_transfer_params"]
OWNED_HEADERS = ["X-Data-Parallel-Rank", "x-override-bootstrap-room", "X-OVERRIDE-Anything", "x-data-parallel-rank"]
VALUES = ["null", "true", "-0.0e5", "123456789012345678901234567890", '"evil.example"', '"\\ud83d\\ude00\\"}"', "[]", "{}", '[1,{"bootstrap_room":3}]',
          '{"a":{"b":[{}]},"bootstrap_host":"inner"}', '"\\\\"', "9223372036854775808"]
# alike, but the client's
ALIKE = ["Bootstrap_room", "bootstrap_room ", "bootstrap-room", "bootstrap_roo", "bootstrap_rooms", "bootstrap\\u0000room", "xbootstrap_host", "ROUTED_DP_RANK"]
REST = {"/generate": '"text":"a b"', CHAT: '"messages":[{"role":"user","content":"a"}]', "/v1/completions": '"prompt":"a b"', "/v1/embeddings": '"input":"a"',
        "/tokenize": '"prompt":"a"', "/v1/rerank": '"query":"a","documents":["b"]', "/invocations": '"x":1', "/no/such/path": '"y":2'}


def spelt(name, rng):
    return '"' + "".join(f"\\u{ord(c):04{rng.choice('xX')}}" if rng.random() < 0.2 else c for c in name) + '"'


def hostile_body(path, rng):
    """(bytes, the members that must arrive as they are, in order)."""
    members = [(True, m) for m in (REST[path],)]
    space = lambda: rng.choice(["", " ", "\n", "\t\r\n "])
    for _ in range(rng.randint(1, 12)):
        own = rng.random() < 0.7
        key = spelt(rng.choice(OWNED), rng) if own else f'"{rng.choice(ALIKE)}"' if rng.random() < 0.5 else f'"k{rng.randint(0, 99)}"'
        members.insert(rng.randint(0, len(members)), (not own, key + space() + ":" + space() + rng.choice(VALUES)))
    text = "{" + space() + (space() + "," + space()).join(m for _, m in members) + space() + "}"
    return text.encode(), [m.encode() for kept, m in members if kept]


def arrives_clean(received, kept, paired):
    left = received.body
    if paired:
        assert len(TAIL.findall(left)) == 1
        left = TAIL.sub(b"", left)
    for member in kept:
        at = left.find(member)
        assert at >= 0, (member, received.body)
        assert re.fullmatch(rb"[\s,{]*", left[:at]), (left[:at], received.body)
        left = left[at + len(member):]
    assert re.fullmatch(rb"\s*\}", left), (left, received.body)
    top = [k for k, _ in json.loads(received.body, object_pairs_hook=lambda pairs: pairs)]
    assert [k for k in top if k in OWNED] == (["bootstrap_host", "bootstrap_port", "bootstrap_room"] if paired else [])
    for name, _ in received.headers:
        assert not name.lower().startswith("x-override-") and name.lower() != "x-data-parallel-rank", name


def throw(gw, fleet, paths, rounds, paired, seed):
    rng = random.Random(seed)
    arrived = 0
    with httpx.Client(base_url=gw.url, timeout=20) as client:
        for path in paths:
            for _ in range(rounds):
                fleet.reset()
                sent, kept = hostile_body(path, rng)
                client.post(path, content=sent, headers={"Content-Type": "application/json", "X-Pass": "1", **{h: "1" for h in rng.sample(OWNED_HEADERS[:3], 2)}})
                received = all_received(fleet)
                for r in received:
                    arrives_clean(r, kept, paired and path in PATHS.values())
                    assert r.header("x-pass") == "1"
                arrived += bool(received)
    return arrived


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=more), pytest.param(2, marks=more)])
def test_owned_over_pairs(seed, gw, fleet):
    paths = [p for p in REST if p in PATHS.values() or "other_paths" in gw.can]
    assert throw(gw, fleet, paths, 8, True, seed) >= 8 * 3


@more
def test_owned_with_one_server_for_all(start_fleet, make_gateway):
    fleet = start_fleet(prefill=0, decode=0, unified=1, speed=0)
    gw = make_gateway(fleet)
    paths = [p for p in REST if p in PATHS.values() or "other_paths" in gw.can]
    assert throw(gw, fleet, paths, 8, False, 7) >= 8 * 3


def test_owned_in_retries(fleet, make_gateway):
    """Both attempts, with other rooms; of the first one maybe prefill's leg only, where that fails before decode's is sent."""
    gw = make_gateway(endpoints_of(fleet))
    rng = random.Random(5)
    sent, kept = hostile_body("/generate", rng)
    for worker in fleet.prefills:
        worker.fault(kind="status", status=500, count=1)
    httpx.post(gw.url + "/generate", content=sent, headers={"Content-Type": "application/json", **dict.fromkeys(OWNED_HEADERS[:3], "1")}, timeout=20)
    received = all_received(fleet, "/generate")
    assert len(received) >= 3
    for r in received:
        arrives_clean(r, kept, True)
    assert len({r.json["bootstrap_room"] for r in received}) >= 2
