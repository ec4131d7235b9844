"""What goes wrong in a cluster beyond the rows of the table (rows.py)."""

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import httpx
import pytest
from block import Block, make_block
from hosts.host import endpoints_of
from sglang_sim.harness import wait_for
from table import HOPS, Outcome, slack
from traffic import PATHS, all_received, answer_text, body, error_of, events_of
from yardstick import late

FAST = {"breaker_open_ms": 200, "first_byte_timeout_ms": 600}


def post(gw, api="chat", timeout=20, **more):
    return httpx.post(gw.url + PATHS[api], json=body(api, **more), timeout=timeout)


def log_of(gw, n=1):
    """The last n entries; none from a gateway without a log."""
    if "log" not in gw.can:
        return []
    return gw.logged(n)[-n:]


def test_refused_prefill_costs_nothing(fleet, make_gateway):
    """The refusal is seen before decode has been asked, and the server is avoided from then on."""
    gw = make_gateway(fleet, config={"breaker_open_ms": 30000})
    fleet.prefills[0].fault(kind="refuse")
    for i in range(6):
        assert post(gw, text=f"{i}").status_code == 200
    assert sum(int(entry["attempts"]) - 1 for entry in log_of(gw, 6)) <= 1
    assert sum(len(w.requests(PATHS["chat"])) for w in fleet.decodes) == 6, "decode was asked for attempts that could not work"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_a_date(status, start_fleet, make_gateway):
    """Its other form. The server is left alone until then, and not blamed: it is in again at once."""
    fleet = start_fleet(prefill=2, decode=1, speed=0)
    gw = make_gateway(fleet, config={"breaker_failures": 1, "breaker_open_ms": 30000})
    busy, until = fleet.prefills[0], int(time.time()) + 4
    busy.fault(kind="status", status=status, retry_after=formatdate(until, usegmt=True))
    answers = []
    while not busy.requests(PATHS["chat"]):
        assert time.time() < until - 2, "it was never asked"
        answers.append(post(gw, text=f"{len(answers)}"))
    assert answers[-1].status_code == (429 if status == 429 else 200), answers[-1].text
    while time.time() < until - 0.5:
        assert post(gw, text=f"{time.time()}").status_code == 200
        time.sleep(0.05)
    assert len(busy.requests(PATHS["chat"])) == 1, "it asked to be left alone"
    busy.heal("status")
    assert wait_for(lambda: post(gw, text=f"{time.time()}").status_code == 200 and len(busy.requests(PATHS["chat"])) > 1, timeout=5), "it is left alone for longer than it asked"


@pytest.mark.parametrize("api", PATHS)
def test_decode_dies_in_a_stream(api, fleet, make_gateway):
    """An error event in the stream's own format, no [DONE], and the connection ends so that SDKs notice."""
    gw = make_gateway(fleet, config=FAST)
    for worker in fleet.decodes:
        worker.fault(kind="die_after", events=3)
    text = b""
    with pytest.raises(httpx.RemoteProtocolError):
        with httpx.stream("POST", gw.url + PATHS[api], json=body(api, stream=True, tokens=20), timeout=20) as answer:
            assert answer.status_code == 200
            for piece in answer.iter_raw():
                text += piece
    events = events_of(text.decode())
    assert len(events) >= 3 and "[DONE]" not in events
    last = json.loads(events[-1])
    if api == "generate":
        assert last["meta_info"]["finish_reason"] == {"type": "abort", "message": "the decode server did not complete the request", "status_code": 502,
                                                      "err_type": "decode_failed"}
    else:
        assert last["error"]["code"] == "decode_failed"
    assert all(entry["why"].startswith("decode_failed") for entry in log_of(gw))


def test_decode_dies_in_a_plain_answer(start_fleet, make_gateway):
    fleet = start_fleet(prefill=1, decode=1, speed=0)
    gw = make_gateway(fleet, config={**FAST, "retry_max": 4294967295})
    fleet.decodes[0].fault(kind="reset")
    answer = post(gw)
    assert answer.status_code == 502 and error_of(answer)["code"] == "decode_failed"


def open_request(gw, api="chat", tls=False, headers=(), **more):
    """A connection on which a request was sent."""
    sent = json.dumps(body(api, **more)).encode()
    s = socket.create_connection(("127.0.0.1", gw.port), 10)
    lines = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
    s.sendall(f"POST {PATHS[api]} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    return s


def test_client_leaves_in_a_stream(start_fleet, make_gateway):
    fleet = start_fleet(prefill=1, decode=1, speed=1, timers=0.05)
    gw = make_gateway(fleet)
    s = open_request(gw, stream=True, tokens=2000)
    got = b""
    while got.count(b"data:") < 3:
        got += s.recv(4096)
    left = time.time()
    s.close()
    decode = fleet.decodes[0]
    assert wait_for(lambda: decode.requests()[0].disconnected, timeout=3)
    assert decode.requests()[0].disconnected - left < 0.05 + slack(left)


@pytest.mark.needs("h2")
def test_half_closed_h2_client_leaves(fleet, make_gateway):
    """RST_STREAM, or the connection ends: as with HTTP/1.1."""
    import subprocess
    gw = make_gateway(fleet)
    for worker in fleet.workers:
        worker.fault(kind="hang")
    curl = subprocess.Popen(["curl", "-sk", "--http2-prior-knowledge", "-H", "Content-Type: application/json", "-d", json.dumps(body("chat")),
                             f"http://127.0.0.1:{gw.h2_port}{PATHS['chat']}"])
    assert wait_for(lambda: len(all_received(fleet, PATHS["chat"])) == 2, timeout=5)
    curl.kill()
    curl.wait()
    assert wait_for(lambda: all(r.disconnected for r in all_received(fleet, PATHS["chat"])), timeout=3)


LEAK = {"object": "error", "message": "room 664705761833908638 of 10.1.2.3 failed in /opt/sglang/srt/disaggregation/decode.py", "bootstrap_room": 664705761833908638}


def test_one_pair_of_nine_works(start_fleet, make_gateway):
    """Two of three prefills and two of three decodes hang, and nobody knows. Whoever comes when the first requests have ended is answered."""
    fleet = start_fleet(prefill=3, decode=3)

    def wave(number):
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda i: post(gw, timeout=120, text=f"{number} {i}"), range(40)))
        return [answer.status_code for answer in answers], max(answer.elapsed.total_seconds() for answer in answers)

    # who hangs is to be told from a pair that serves all on a busy machine: by five times what its slowest answer takes now
    began = time.monotonic()
    gw = make_gateway([one for one in endpoints_of(fleet) if one["port"] in (fleet.prefills[2].port, fleet.decodes[0].port)])
    served, slowest = wave(0)
    assert served == [200] * 40
    # and by how late the machine is, as measured in that moment; with 50 s a server fails by itself before, which is another outcome (502)
    limit = min(max(1500, int(1000 * (5 * slowest + 2 * late(began)))), 30_000)
    gw = make_gateway(fleet, config={"first_byte_timeout_ms": limit, "first_byte_least_ms": limit})
    for worker in fleet.prefills[:2] + fleet.decodes[1:]:
        worker.fault(kind="hang")
    first, _ = wave(0)
    assert set(first) <= {200, 503, 504} and first.count(200) >= 1, first
    wave(1)  # some of these try again who was out
    third, _ = wave(2)
    assert third.count(200) >= 39, (third, limit)


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_errors_that_pass_tell_nothing_about_the_inside(role, fleet, make_gateway):
    gw = make_gateway(fleet)
    for worker in fleet.prefills if role == "prefill" else fleet.decodes:
        worker.fault(kind="status", status=422, body=LEAK)
    answer = post(gw)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert said["object"] == "error" and said["message"].startswith("room 999999999999999999 of ") and len(said["message"]) == len(LEAK["message"])
    assert "sglang" not in answer.text and "664705761833908638" not in answer.text and "bootstrap" not in answer.text


def test_stream_refused_in_its_first_event_passes(fleet, make_gateway):
    """A 4xx under a 200 is the request's fault: no other pair is asked."""
    gw = make_gateway(fleet)
    event = 'data: {"error": {"object": "error", "message": "too long", "code": 400}}\n\ndata: [DONE]\n\n'
    for worker in fleet.decodes:
        worker.fault(kind="status", status=200, body=event, content_type="text/event-stream")
    answer = post(gw, stream=True)
    assert answer.status_code == 200 and "too long" in answer.text
    assert len(all_received(fleet, PATHS["chat"])) == 2


def test_all_prefills_down_and_back(fleet, make_gateway):
    gw = make_gateway(fleet)
    assert post(gw).status_code == 200
    for worker in fleet.prefills:
        worker.fault(kind="refuse")
    # those who find out (each server is tried again once in a while) get 502, everybody else 503 at once
    answers = [Outcome(gw, "chat", json.dumps(body("chat", text=str(i)))) for i in range(20)]
    assert {a.status for a in answers} == {502, 503}, [a.status for a in answers]
    refused = [a for a in answers if a.status == 503]
    assert all(a.error["code"] == "no_pair" and int(a.headers["retry-after"]) >= 1 for a in refused)
    # (once a second a server may be tried again: then the answer is yes for a moment)
    assert wait_for(lambda: httpx.get(gw.url + "/readiness").status_code == 503, timeout=5)
    for worker in fleet.prefills:
        worker.heal("refuse")
    back = time.time()
    assert wait_for(lambda: Outcome(gw, "chat", json.dumps(body("chat"))).status == 200, timeout=30, interval=0.05)
    assert time.time() - back < 1 + slack(back)


def test_worker_restarts_behind_kept_connections(fleet, make_gateway):
    """Closed kept connections are no failure: another connection, another room, no attempt counted against anybody."""
    gw = make_gateway(fleet, keepalive=60)
    with httpx.Client(base_url=gw.url, timeout=10) as client:
        for i in range(6):
            assert client.post(PATHS["chat"], json=body("chat", text=str(i))).status_code == 200
        for worker in fleet.workers:
            worker.restart()
        for i in range(6):
            assert client.post(PATHS["chat"], json=body("chat", text=str(i))).status_code == 200


def test_slow_prefill_holds_nobody_up(start_fleet, make_gateway):
    """The answer is complete when decode's is; the next request on the connection does not wait for prefill's."""
    fleet = start_fleet(prefill=2, decode=1, speed=0)
    gw = make_gateway(fleet)
    with httpx.Client(base_url=gw.url, timeout=10) as client:
        for i in range(10):
            began = time.monotonic()
            assert client.post(PATHS["chat"], json=body("chat", text=str(i))).status_code == 200
            assert time.monotonic() - began < 1 + HOPS * late(began)
    assert all(r.disconnected is None for r in all_received(fleet)), "a prefill leg was closed, not drained"


@pytest.mark.needs("workers")
def test_many_at_once(start_fleet, make_gateway):
    fleet = start_fleet(prefill=2, decode=2, speed=0)
    gw = make_gateway(fleet, workers=2)
    failed = []

    def run(n):
        with httpx.Client(base_url=gw.url, timeout=30) as client:
            for i in range(15):
                stream = (n + i) % 2 == 0
                api = list(PATHS)[(n + i) % 3]
                answer = client.post(PATHS[api], json=body(api, text=f"client {n} request {i}", stream=stream))
                if answer.status_code != 200 or (not stream and not answer_text(api, answer.json())):
                    failed.append((n, i, answer.status_code, answer.text))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed


def ask(gw):
    return httpx.post(gw.url + PATHS["chat"], json=body("chat", tokens=1), timeout=10)


@pytest.mark.needs("restart")
def test_a_truncated_block_ends_no_process(fleet, make_gateway):
    """Who cannot go on by himself refuses requests, and nobody dies; with a new file all is well again."""
    gw = make_gateway(fleet)
    gw.expect_alerts = True
    assert ask(gw).status_code == 200
    before = {gw.process.pid, *gw.all_pids()}
    os.truncate(gw.block, 4096)
    for _ in range(10):
        answer = ask(gw)
        assert answer.status_code in ((200,) if "recovers" in gw.can else (500, 503)), answer.text
        assert answer.status_code == 200 or error_of(answer)["message"], answer.text
    assert gw.process.poll() is None and {gw.process.pid, *gw.all_pids()} == before
    if "recovers" in gw.can:
        return
    gw.block.unlink()
    gw.stop()
    gw.start()
    assert wait_for(lambda: ask(gw).status_code == 200, timeout=10, interval=0.2)


@pytest.mark.needs("recovers")
@pytest.mark.parametrize("how", ["truncated", "replaced", "removed"])
def test_another_block_is_followed(how, start_fleet, make_gateway):
    """The servers of the configuration are there again at once, a stream goes on to its end, and what is booked afterwards is given back."""
    fleet = start_fleet(prefill=1, decode=1, speed=1, timers=0.02)
    gw = make_gateway(fleet, workers=2)
    gw.expect_alerts = True
    before = {gw.process.pid, *gw.all_pids()}
    assert ask(gw).status_code == 200
    with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", stream=True, tokens=40), timeout=20) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data:"):
            pass
        if how == "truncated":
            os.truncate(gw.block, 4096)
        elif how == "removed":
            gw.block.unlink()
        else:
            other = gw.block.with_name("other")
            make_block(other, gw.config_file)
            os.chown(other, gw.block.stat().st_uid, -1)  # for a gateway whose processes are not root
            os.replace(other, gw.block)
        assert [ask(gw).status_code for _ in range(6)] == [200] * 6
        rest = [line for line in lines if line.startswith("data:")]
    assert rest[-1].split(":", 1)[1].strip() == "[DONE]"
    # all processes on one block, which is what the path names
    assert wait_for(lambda: stats_of(gw)["leases"] >= 1, timeout=5)
    for _ in range(20):
        assert ask(gw).status_code == 200
    assert wait_for(lambda: stats_of(gw)["routed"] >= 20, timeout=1), stats_of(gw)
    assert gw.process.poll() is None and before <= {gw.process.pid, *gw.all_pids()}  # some start their second process late


def stats_of(gw):
    with Block(gw.block) as block:
        return block.stats()
