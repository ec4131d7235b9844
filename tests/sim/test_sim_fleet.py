"""Fleets: faults, records, control, DP ranks, timers, queues; what only the simulator has or only it can be asked for."""

import asyncio
import json
import math
import time

import pytest
from engine_pair import Pair

from sglang_sim import harness


def pair_of(fleet, prefill=0, decode=0, scale=0.05):
    p, d = fleet.prefills[prefill], fleet.decodes[decode]
    return Pair(p.url, d.url, p.bootstrap_host, p.bootstrap_port, scale, fleet)


def waits(worker, n=1):
    """Until that many sequences have arrived there and are not done."""
    assert harness.wait_for(lambda: worker.state()["live"] == n, timeout=30), worker.state()


def replace(prefill, decode):
    """Another prefill process on the same ports. One that comes before decode has missed two heartbeats is not noticed, as with the engine."""
    prefill.fault(kind="crash", restart_after=3600)
    assert harness.wait_for(lambda: f"{prefill.bootstrap_host}:{prefill.bootstrap_port}" not in decode.state()["prefills"], timeout=30), decode.state()
    prefill.restart()


@pytest.fixture(scope="module")
def shared():
    with harness.start(2, 2, timers=0.02) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared):
    shared.reset()
    return shared


def test_every_pair_of_a_fleet_works(fleet):
    for i in (0, 1):
        for j in (0, 1):
            p, d = (pair := pair_of(fleet, i, j)).both("/v1/chat/completions", pair.chat(30))
            assert p.status == d.status == 200
            content = d.json["choices"][0]["message"]["content"]
            assert f"decode={fleet.decodes[j].name}" in content and f"prefill={fleet.prefills[i].name}" in content


def test_two_fleets_of_one_worker_work_together(start_fleet):
    prefill, decode = start_fleet(1, 0), start_fleet(0, 1)
    p = prefill.prefills[0]
    pair = Pair(p.url, decode.decodes[0].url, p.bootstrap_host, p.bootstrap_port, 0.05)
    first, second = pair.both("/generate", pair.generate(3))
    assert first.status == second.status == 200


def test_what_a_worker_received_is_recorded_byte_for_byte(fleet):
    pair = pair_of(fleet)
    body = json.dumps(pair.generate(1)).encode()[:-1] + ', "x":  1e2, "ü": "\\u00fc"}'.encode()
    p, d = pair.both("/generate", body, headers={"X-Thing": "a b", "x-other": "1"})
    assert p.status == d.status == 200
    for worker in (fleet.prefills[0], fleet.decodes[0]):
        request, = worker.requests("/generate")
        assert request.body == body and request.method == "POST" and request.status == 200 and request.disconnected is None
        assert ["X-Thing", "a b"] in request.headers and request.header("X-OTHER") == "1" and request.end >= request.start
        stages, = request.spans
        names = ["bootstrapped", "forward", "prefilled"] if worker.role == "prefill" else ["running"]
        times = [request.start, stages["came"], *(stages[name] for name in names), request.end]
        assert times == sorted(times) and stages["tokens"] > stages["cached"] == 0
    assert fleet.prefills[1].requests() == []


def test_faults_of_one_request(fleet):
    pair, worker = pair_of(fleet), fleet.decodes[0]
    worker.fault(kind="status", status=429, retry_after=3, count=1)
    first = pair.each("/generate", pair.bootstrap())[1]
    assert first.status == 429 and first.headers["Retry-After"] == "3" and first.json["code"] == 429
    assert pair.alive()
    worker.fault(kind="reset", count=1)
    answer = pair.script(lambda c: c.decode("/generate", pair.generate(1)))
    assert answer.status is None and "TimeoutError" not in repr(answer.error)
    worker.fault(kind="hang", count=1)
    answer = pair.script(lambda c: c.decode("/generate", pair.generate(1), timeout=0.5))
    assert answer.status is None and "TimeoutError" in repr(answer.error)
    assert harness.wait_for(lambda: worker.requests()[-1].disconnected)
    assert [r.fault for r in worker.requests("/generate")] == ["status", None, "reset", "hang"]
    assert pair.alive()


def test_a_fault_may_name_a_path(fleet):
    pair = pair_of(fleet)
    fleet.decodes[0].fault(kind="status", status=503, path="/metrics")
    assert pair.get("decode", "/metrics").status == 503 and pair.alive()
    fleet.decodes[0].heal("status")
    assert pair.get("decode", "/metrics").status == 200


def test_refused_connections(fleet):
    pair = pair_of(fleet)
    fleet.prefills[0].fault(kind="refuse")
    assert pair.get("prefill", "/ready").status is None
    assert not fleet.prefills[0].state()["listening"]
    fleet.prefills[0].heal("refuse")
    assert pair.get("prefill", "/ready").status == 200


def test_a_stream_that_dies(fleet):
    pair = pair_of(fleet)
    fleet.decodes[0].fault(kind="die_after", events=3)

    async def run(client):
        body = pair.chat(10, stream=True)
        prefill = asyncio.ensure_future(client.prefill("/v1/chat/completions", body))
        got = b""
        with pytest.raises(Exception):
            async with client.session.post(pair.decode + "/v1/chat/completions", json=body) as response:
                assert response.status == 200
                async for part in response.content.iter_any():
                    got += part
        await prefill
        return got
    got = pair.script(run)
    assert got.count(b"data: ") == 3 and b"[DONE]" not in got
    assert fleet.decodes[0].requests()[-1].fault == "die_after"


def test_a_slow_worker(fleet):
    pair = pair_of(fleet)
    fleet.prefills[0].fault(kind="slow", factor=2000)       # speed 0 counts as 0.01
    start = time.monotonic()
    assert pair.alive()
    assert time.monotonic() - start > 0.2
    fleet.prefills[0].heal("slow")


def test_a_crash_and_a_restart(fleet):
    pair, worker = pair_of(fleet), fleet.prefills[0]
    assert pair.alive()

    async def run(client):
        waiting = asyncio.ensure_future(client.prefill("/generate", pair.generate(1)))
        await asyncio.to_thread(waits, worker)
        await asyncio.to_thread(worker.fault, kind="crash", restart_after=0.5)
        return await waiting
    answer = pair.script(run)
    assert answer.status is None and "TimeoutError" not in repr(answer.error)
    assert harness.wait_for(lambda: (state := worker.state())["restarts"] and state["listening"], timeout=30)
    assert pair.get("prefill", "/ready").status == 200
    replace(worker, fleet.decodes[0])
    assert pair.alive()


def test_a_crashed_worker_is_gone(start_fleet):
    worker = start_fleet(0, 1).decodes[0]
    pair = Pair(worker.url, worker.url, None, None, 1)
    worker.fault(kind="crash")
    assert harness.wait_for(lambda: pair.get("decode", "/ready").status is None, timeout=30)
    worker.restart()
    assert pair.get("decode", "/ready").status == 200


def test_a_prefill_that_is_back_at_once_is_not_noticed(start_fleet):
    """As with the engine: decode keeps what it knew of the old process, and reaches it no more, until the new one is away for two heartbeats."""
    fleet = start_fleet(1, 1, timer="heartbeat=1.5")
    pair, prefill, decode = pair_of(fleet), fleet.prefills[0], fleet.decodes[0]
    assert pair.alive() and decode.state()["prefills"] == [f"{pair.bootstrap_host}:{pair.bootstrap_port}"]
    prefill.restart()
    assert pair.script(lambda client: client.decode("/generate", pair.generate(1), timeout=1)).status is None
    replace(prefill, decode)
    assert pair.alive()
    prefill.restart()
    fleet.reset()  # with which tests begin: they wait for no heartbeats
    assert pair.alive()


def test_decode_is_told_that_its_prefill_died(fleet):
    pair = pair_of(fleet)
    assert pair.alive()

    async def run(client):
        waiting = asyncio.ensure_future(client.decode("/generate", pair.generate(1)))
        await asyncio.to_thread(waits, fleet.decodes[0])
        await asyncio.to_thread(fleet.prefills[0].fault, kind="crash")
        return await waiting
    answer = pair.script(run)
    assert answer.status == 500 and "Decode transfer failed" in answer.json["message"]
    assert f"Lost connection with prefill instance (bootstrap_addr: {pair.bootstrap_host}:{pair.bootstrap_port})" in answer.json["message"]
    fleet.prefills[0].restart()
    assert pair.alive()


def test_a_crash_under_load_spares_the_others(start_fleet):
    fleet = start_fleet(1, 1, timers=0.02, restart_after=0.2)
    pair, prefill, decode = pair_of(fleet), fleet.prefills[0], fleet.decodes[0]
    p, _ = pair.both("/generate", {**pair.generate(1), "bootstrap_room": 2**63})
    assert p.status is None and decode.state()["crashed"] is None
    assert harness.wait_for(lambda: prefill.state()["restarts"] == 1, timeout=30)
    replace(prefill, decode)
    assert pair.alive() and decode.state()["crashed"] is None and decode.state()["restarts"] == 0


@pytest.mark.parametrize("stream, seconds", [(False, 4.0), (True, 2.0)])
def test_when_the_engine_notices_a_lost_client(start_fleet, stream, seconds):
    fleet = start_fleet(1, 1, timers=(scale := 0.25))
    pair = pair_of(fleet)

    async def run(client):
        async def request():
            async with client.session.post(pair.decode + "/generate", json=pair.generate(1, stream=stream)) as response:
                await response.read()
        task = asyncio.ensure_future(request())
        await asyncio.to_thread(waits, fleet.decodes[0])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    pair.script(run)
    record = harness.wait_for(lambda: (r := fleet.decodes[0].requests()[-1]).aborted and r, timeout=30)
    assert record.disconnected > record.start
    # A stream is aborted so much later. Else it looks every four seconds after the request's arrival: the first look after the client has left.
    since = record.disconnected if stream else record.start
    periods = 1 if stream else math.ceil((record.disconnected - record.start) / (seconds * scale))
    assert periods <= (record.aborted - since) / (seconds * scale) < periods + 1
    assert fleet.decodes[0].state()["live"] == 0
    text = pair.get("decode", "/metrics").text
    assert 'sglang:num_aborted_requests_total{engine_type="decode",model_name="tiny"} 1.0' in text
    assert 'sglang:num_transfer_failed_reqs_total{engine_type="decode"' in text
    assert "num_aborted_requests_total" not in pair.get("prefill", "/metrics").text       # not before the first


@pytest.mark.parametrize("timer, leg, message", [("bootstrap_timeout=0.4", "prefill", "timed out after 0.4s in KVPoll.Bootstrapping"),
                                                 ("waiting_timeout=0.4", "decode", "timed out after 0.4s in KVPoll.WaitingForInput")])
def test_how_long_a_leg_waits_for_the_other(start_fleet, timer, leg, message):
    pair = pair_of(start_fleet(1, 1, timer=timer))
    answer = pair.script(lambda client: getattr(client, leg)("/generate", pair.generate(1)))
    assert answer.status == 500 and message in answer.json["message"] and 0.3 < answer.seconds < 2


def test_a_null_port_means_the_workers_own(start_fleet):
    fleet = start_fleet(1, 0)
    p = fleet.prefills[0]
    decode = start_fleet(0, 1, default_bootstrap_port=p.bootstrap_port).decodes[0]
    pair = Pair(p.url, decode.url, p.bootstrap_host, p.bootstrap_port, 0.05)
    first, second = pair.both("/generate", {**pair.generate(1), "bootstrap_port": None})
    assert first.status == second.status == 200


def test_a_unified_worker(start_fleet):
    fleet = start_fleet(0, 0, unified=1, speed=0.05)
    worker = fleet.unified[0]
    pair = Pair(worker.url, worker.url, "", 0, 0.05)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
    first, second = [pair.script(lambda c: c.prefill("/v1/chat/completions", body)) for _ in range(2)]
    assert first.status == 200 and f"unified={worker.name}" in first.json["choices"][0]["message"]["content"]
    usage = second.json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1 and usage["completion_tokens"] == 20
    assert pair.get("prefill", "/server_info").json["disaggregation_mode"] == "null"
    assert 'engine_type="unified"' in pair.get("prefill", "/metrics").text
    assert pair.get("prefill", "/v1/loads").json["loads"][0]["num_used_tokens"] == 0


def test_prefill_takes_prompts_in_order_and_decode_shares_its_steps(start_fleet):
    """At speed 0.1: a forward pass of 8,000 tokens is 51 ms, a step about 1.5 ms."""
    fleet = start_fleet(1, 1, speed=0.1, timers=0.05)
    pair = pair_of(fleet)
    long_text = "x" * 32_000

    async def run(client):
        bodies = [pair.generate(100, text=f"{i}{long_text}") for i in range(3)]
        await asyncio.gather(*[f("/generate", b) for b in bodies for f in (client.decode, client.prefill)])
    pair.script(run)
    ends = [span["prefilled"] for span in sorted((r.spans[0] for r in fleet.prefills[0].requests("/generate")), key=lambda span: span["bootstrapped"])]
    assert len(ends) == 3 and all(after - before > 0.045 for before, after in zip(ends, ends[1:]))
    decoded = sorted((r.spans[0]["running"], r.end) for r in fleet.decodes[0].requests("/generate"))
    assert len(decoded) == 3 and all(end - running > 0.14 for running, end in decoded)
    assert all(other < end for (_, end), (other, _) in zip(decoded, decoded[1:]))  # it begins while the one before runs


def test_decode_memory_is_bounded(start_fleet):
    fleet = start_fleet(1, 1, speed=0.05, capacity=3000)
    pair = pair_of(fleet)

    async def run(client):
        bodies = [pair.generate(200, text=f"{i} " + "y" * 4000) for i in range(4)]
        waiting = [asyncio.ensure_future(f("/generate", b)) for b in bodies for f in (client.prefill, client.decode)]
        peak, prealloc = 0, 0
        while not all(w.done() for w in waiting):
            state = await asyncio.to_thread(fleet.decodes[0].state)
            peak = max(peak, state["loads"][0]["used"])
            prealloc = max(prealloc, state["loads"][0]["prealloc"])
        return peak, prealloc, [w.result() for w in waiting]
    peak, prealloc, answers = pair.script(run)
    assert [a.status for a in answers] == [200] * 8
    assert 1000 < peak <= 3000 and prealloc >= 1
    assert fleet.decodes[0].state()["loads"][0]["used"] == 0
    # The prefill's cache is bounded too: it evicts.
    assert fleet.prefills[0].state()["cached_tokens"] <= 3000
    for answer in pair.each("/generate", pair.generate(1, text="z" * 16_000)):
        assert answer.status == 400 and "exceeds the maximum number of tokens: 4000 > 3000" in answer.json["error"]["message"]


def test_the_control_server_knows_the_fleet(fleet):
    status, listing = harness.call(f"{fleet.control}/sim/fleet")
    assert status == 200 and [w["role"] for w in listing["workers"]] == ["prefill", "prefill", "decode", "decode"]
    status, states = harness.call(f"{fleet.control}/sim/state")
    assert status == 200 and set(states) == {w.name for w in fleet.workers}
    assert harness.call(f"{fleet.control}/sim/state?worker=nobody:1")[0] == 404
    status, answer = harness.call(f"{fleet.prefills[0].url}/sim/fault", {"kind": "nonsense"}, "POST")
    assert status == 400 and "kind must be one of" in answer["error"]


def test_200_conversations_at_once(start_fleet):
    fleet = start_fleet(2, 2, speed=0)
    pairs = [pair_of(fleet, i, j) for i in (0, 1) for j in (0, 1)]

    async def run(client):
        async def conversation(i):
            pair = pairs[i % 4]
            messages = []
            for turn in range(3):
                messages.append({"role": "user", "content": f"conversation {i} turn {turn} " + "words " * 30})
                body = {**pair.chat(40, messages=messages, stream=True), "stream_options": {"include_usage": True}}
                p, d = await asyncio.gather(client.send("POST", pair.prefill + "/v1/chat/completions", body, timeout=60),
                                            client.send("POST", pair.decode + "/v1/chat/completions", body, timeout=60))
                assert p.status == d.status == 200 and d.events[-1] == "[DONE]"
                assert "usage" in d.events[-2], d.events[-2]
                usage = d.events[-2]["usage"]
                assert usage["completion_tokens"] == 40
                if turn:
                    assert usage["prompt_tokens_details"]["cached_tokens"] > 40
                messages.append({"role": "assistant", "content": "".join(e["choices"][0]["delta"].get("content", "")
                                                                         for e in d.events[:-2])})
        await asyncio.gather(*[conversation(i) for i in range(200)])
    pairs[0].script(run)
    assert all(w.state()["live"] == 0 and w.state()["open"] == 0 for w in fleet.workers)
