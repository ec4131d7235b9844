"""Bodies and headers: what reaches the workers, byte by byte."""

import json
import re
import socket

import httpx
import pytest
from traffic import PATHS, all_received, body, both_legs, error_of, text_of

SIZES = {"1KB": 1100, "17KB": 17_000, "132KB": 132_000, "1MB": 1_000_000}
TAIL = re.compile(rb',?"bootstrap_host":"[^"]*","bootstrap_port":\d+,"bootstrap_room":\d+')

JSON = {"Content-Type": "application/json"}

# What a worker must never get from a client, in spellings that a JSON reader takes for the same
OWNED = ['"bootstrap_room":17', '"bootstrap_host" : "evil.example"', '"bootstrap_port":1', '"bootstrap\\u005froom": 18',
         '"\\u0062ootstrap_host":"evil.example"', '"routed_dp_rank":1', '"data_parallel_rank": 1', '"disagg_prefill_dp_rank":1',
         '"bootstrap_pair_key":"k"', '"decode_tp_size":4', '"kv_transfer_params":{"do_remote_decode":true,"x":[1,{"y":"}"}]}']
OWNED_NAMES = {"bootstrap_pair_key", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank", "decode_tp_size", "kv_transfer_params"}


def strip_tail(received):
    """The body without what the gateway put in."""
    assert len(TAIL.findall(received)) == 1, received[-300:]
    return TAIL.sub(b"", received)


def odd_chat(size):
    """Valid JSON that a parse-and-print would change."""
    return (b'{ "model":"tiny",\n\t"temperature": 0.70, "seed": 123456789012345678, "x": 1E+2, "\\u0078y": "\\u00e9\\/\xc3\xa9",'
            b'"messages" : [ {"role":"user", "content":"' + text_of(size).encode() + b'"} ],"max_tokens":2 }\n')


@pytest.fixture(params=["memory", "file"])
def storing(request, fleet, make_gateway):
    """A gateway that keeps request bodies in memory, or in a temporary file."""
    return make_gateway(fleet, body_file=request.param == "file")


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_bytes(size, chunked, storing, fleet):
    sent = odd_chat(SIZES[size])
    pieces = (sent[i:i + 60_001] for i in range(0, len(sent), 60_001))
    answer = httpx.post(storing.url + PATHS["chat"], content=pieces if chunked else sent, headers=JSON, timeout=30)
    assert answer.status_code == 200, answer.text
    for leg in both_legs(fleet, PATHS["chat"]):
        assert strip_tail(leg.body) == sent
        assert leg.header("content-length") == str(len(leg.body)) and leg.header("transfer-encoding") is None


def test_20_megabytes(storing, fleet):
    sent = odd_chat(20_000_000)
    assert httpx.post(storing.url + PATHS["chat"], content=sent, headers=JSON, timeout=120).status_code == 200
    for leg in both_legs(fleet, PATHS["chat"]):
        assert strip_tail(leg.body) == sent


@pytest.mark.parametrize("owned", OWNED + [",".join(OWNED)], ids=lambda o: o[:24])
@pytest.mark.parametrize("where", ["first", "last"])
def test_owned_members_never_pass(owned, where, gw, fleet, client):
    rest = '"text":"a b c","sampling_params":{"max_new_tokens":2}'
    sent = "{" + (f"{owned},{rest}" if where == "first" else f"{rest} , {owned}") + "}"
    answer = client.post("/generate", content=sent.encode(), headers=JSON)
    assert answer.status_code == 200, answer.text
    for leg in both_legs(fleet, "/generate"):
        got = leg.json
        assert got["bootstrap_room"] not in (17, 18) and got["bootstrap_host"] in {w.host for w in fleet.prefills}
        assert not OWNED_NAMES & set(got)
        assert b"evil" not in leg.body and b"u005f" not in leg.body
        assert {k: v for k, v in got.items() if not k.startswith("bootstrap")} == json.loads("{" + rest + "}")


def test_headers(gw, fleet, client):
    passing = {"Authorization": "Bearer k", "X-Request-Id": "abc", "Traceparent": "00-1-2-03", "X-Custom": "1", "Cookie": "a=b",
               "User-Agent": "me", "Content-Type": "application/json; charset=utf-8"}
    stopping = {"X-Data-Parallel-Rank": "1", "x-override-bootstrap-room": "5", "X-OVERRIDE-Bootstrap-Host": "evil", "TE": "trailers",
                "Keep-Alive": "timeout=5", "Proxy-Connection": "keep-alive", "Upgrade": "h2c", "X-Hop": "1",
                "Connection": "keep-alive, X-Hop", "Proxy-Authorization": "x"}
    answer = client.post(PATHS["chat"], content=json.dumps(body("chat")), headers={**passing, **stopping})
    assert answer.status_code == 200
    for leg in both_legs(fleet, PATHS["chat"]):
        for name, value in passing.items():
            assert leg.header(name) == value
        for name in stopping:
            assert leg.header(name) is None or name == "Connection" and "X-Hop" not in leg.header(name), name
        assert leg.header("host") in {w.name for w in fleet.workers}
        assert [n.lower() for n, _ in leg.headers].count("content-length") == 1


def test_query_passes(gw, fleet, client):
    assert client.post("/generate?a=b%20c&d", json=body("generate")).status_code == 200
    assert all(r.path == "/generate?a=b%20c&d" for r in all_received(fleet))


BAD = [(b"", "bad_request"), (b"{", "bad_request"), (b'{"messages":[{"role":"user","content":"x"}],}', "bad_request"),
       (b'{"messages":[{"role":"user","content":"\xff"}]}', "bad_request"), (b'[1]', "bad_request"), (b'{"messages":NaN}', "bad_request"),
       (b'\xef\xbb\xbf{"messages":[]}', "bad_request"), (b'{"x":' * 200 + b"1" + b"}" * 200, "bad_request")]


@pytest.mark.parametrize("sent,code", BAD, ids=range(len(BAD)))
def test_malformed(sent, code, gw, fleet, client):
    answer = client.post(PATHS["chat"], content=sent)
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["code"] == code and "byte offset" in error["message"]
    assert not all_received(fleet)
    assert client.post(PATHS["chat"], json=body("chat")).status_code == 200  # the connection goes on


def test_offset_in_the_sentence(gw, client):
    sent = b'{"messages":[{"role":"user","content":"x"}],\n"max_tokens": 01}'
    message = error_of(client.post(PATHS["chat"], content=sent))["message"]
    offset = int(re.search(r"byte offset (\d+), line 2", message).group(1))
    assert sent[offset - 1:offset + 1] in (b"01", b" 0", b"1}"), message


def test_several_samples(gw, fleet, client):
    sent = b'{"text":"a",\n"sampling_params":{"n": 2}}'
    answer = client.post("/generate", content=sent)
    assert answer.status_code == 400 and "n = 2 is not possible" in error_of(answer)["message"]
    assert f"(byte offset {sent.index(b'2}')}, line 2)" in error_of(answer)["message"]
    assert not all_received(fleet)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("path", [PATHS["chat"], "/tokenize"])
def test_too_large(path, chunked, fleet, make_gateway):
    gw = make_gateway(fleet, config={"max_body": 100_000})
    sent = json.dumps(body("chat", text="x" * 100_000)).encode()
    with httpx.Client(base_url=gw.url) as client:
        answer = client.post(path, content=iter([sent]) if chunked else sent)
        assert answer.status_code == 413 and error_of(answer)["code"] == "too_large"
        assert not all_received(fleet)
        assert client.post(PATHS["chat"], json=body("chat")).status_code == 200


@pytest.mark.needs("expect")
def test_expect_continue(gw):
    sent = json.dumps(body("chat", text="y" * 5000)).encode()
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode())
        assert s.recv(100).startswith(b"HTTP/1.1 100")
        s.sendall(sent)
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")


def test_body_in_small_pieces(gw, fleet):
    sent = json.dumps(body("chat", text="z" * 3000)).encode()
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\nConnection: close\r\n\r\n".encode())
        for i in range(0, len(sent), 101):
            s.sendall(sent[i:i + 101])
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert strip_tail(both_legs(fleet, PATHS["chat"])[0].body) == sent


def test_binary_body_passes_untouched(gw, fleet, client):
    """Not JSON, not a generating path: nobody could find an owned member in it."""
    sent = bytes(range(256)) * 40
    client.post("/v1/audio/transcriptions", content=sent, headers={"Content-Type": "application/octet-stream"})
    assert [r.body for r in all_received(fleet, "/v1/audio/transcriptions")] and all(r.body == sent for r in all_received(fleet))
