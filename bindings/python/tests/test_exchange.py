"""Answers and failures: Response, Exchange, error bodies."""
import json

import pdroute
import pytest
from pdroute import (ActionType, Code, EventType, Exchange, Fail, Leg, Reason, Response, ResponseKind, Seen, error_body, error_name, reason_name,
                     reason_text)
from test_router import CHAT, make

SECOND = 10**9


@pytest.fixture
def router():
    with make() as made:
        yield made
        assert made.stats().bookings == 0
        made.check()


def test_a_good_request(router):
    with router.lease("me") as lease:
        routed = router.route_scanned(CHAT, lease=lease)
        exchange = Exchange(router, routed.decision, lease)
        assert {(a.type, a.leg) for a in exchange.start} == {(ActionType.SEND, Leg.PREFILL), (ActionType.SEND, Leg.DECODE)}
        assert exchange.deadline() > router.now()
        seen = []
        for event, leg in (("HEAD", 1), ("BODY", 1), ("SENT", 1), ("HEAD", 0), ("BODY", 0), ("END", 0), ("END", 1)):
            seen += exchange.event(EventType[event], leg, status=200, usage=(20, 8, 9) if event == "END" else None)
        assert [a for a in seen if a.type == ActionType.RELAY] == [(ActionType.RELAY, Leg.DECODE, 200, 0, 0)] or ActionType.RELAY in [a.type for a in seen]
        assert seen[-1].type == ActionType.FINISH and exchange.deadline() is None
        stats = router.stats()
        assert (stats.bookings, stats.finished, stats.cached_tokens_reported) == (0, 1, 8)


def test_a_retry(router):
    with router.lease("me") as lease:
        routed = router.route_scanned(CHAT, lease=lease)
        exchange = Exchange(router, routed.decision, lease)
        first = routed.decision.prefill
        acts = exchange.event(EventType.FAILED, Leg.PREFILL, detail=Fail.CONNECT)
        assert acts[-1].type == ActionType.ROUTE and exchange.exclude == [first]
        decision = router.route_prompt(routed.prompt, routed.hashes, lease=lease, exclude=exchange.exclude)
        assert decision.prefill != first
        acts = exchange.rerouted(decision)
        assert [a.type for a in acts] == [ActionType.SEND, ActionType.SEND] and exchange.attempt == 1
        assert exchange.event(EventType.FAILED, Leg.PREFILL, detail=Fail.RESET, attempt=0) == []  # of the attempt before
        acts = exchange.event(EventType.FAILED, Leg.PREFILL, detail=Fail.CONNECT)
        assert acts[-1].type == ActionType.ROUTE
        with pytest.raises(pdroute.NoPairError) as caught:
            router.route_prompt(routed.prompt, routed.hashes, lease=lease, exclude=exchange.exclude)
        acts = exchange.rerouted(None, caught.value.code)
        assert acts[0].type == ActionType.RESPOND and acts[0].status == 502 and acts[0].reason == Reason.PREFILL_FAILED
        assert acts[-1].type == ActionType.FINISH


def test_timeouts_and_leaving(router):
    with router.lease("me") as lease:
        exchange = Exchange(router, router.route(CHAT, lease=lease).decision, lease)
        assert exchange.event(EventType.TICK) == []
        assert ActionType.ROUTE in [a.type for a in exchange.event(EventType.TICK, now_ns=exchange.deadline())]
        assert exchange.event(EventType.CLIENT_GONE)[-1].type == ActionType.FINISH
        with pytest.raises(pdroute.InvalidError):
            Exchange(router, pdroute.Decision(), lease)


def test_response():
    stream = Response(ResponseKind.SSE)
    text = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,' \
           b'"prompt_tokens_details":{"cached_tokens":5}}}\n\ndata: [DONE]\n\n'
    for i in range(0, len(text), 7):
        assert stream.usage is None or i > 80
        stream.feed(memoryview(text)[i:i + 7] if i % 2 else text[i:i + 7])
    assert stream.usage == (9, 5, 4) and stream.seen >= Seen.DONE | Seen.USAGE | Seen.FIRST_TOKEN and stream.events == 3 and stream.bytes == len(text)
    plain = Response(ResponseKind.JSON)
    plain.feed(b'{"error": {"message": "x"}}')
    assert plain.seen & Seen.ERROR and plain.usage is None


def test_error_bodies():
    body = json.loads(error_body(502, "prefill_failed", 'a "quoted" \n sentence ü'))
    assert body["error"]["message"] == 'a "quoted" \n sentence ü' and body["error"]["code"] == "prefill_failed"
    assert json.loads(error_body(400, "x", "\n" * 9000))["error"]["message"] == "\n" * 9000
    assert reason_name(Reason.PREFILL_FAILED) == "prefill_failed" and reason_name(99)
    assert reason_text(Reason.PREFILL_FAILED) == "the prefill server did not complete the request" and reason_text(99)
    assert error_name(Code.NO_PAIR) == "no_pair" and error_name(Code.PARSE) == "bad_request" and error_name(12345) == "internal_error"
    assert pdroute.header_owned("X-Data-Parallel-Rank") and pdroute.header_owned(b"x-override-host") and not pdroute.header_owned("X-Custom")


def test_errors_of_servers():
    assert pdroute.error_status(b'data: {"error": {"message": "x", "code": 422}}\n\n') == 422 and pdroute.error_status(b"{}") == 0
    text = b'{"error":{"message":"room 8660379441243016169 at /opt/sglang/srt/decode.py"}}'
    masked = pdroute.error_mask(text)
    assert len(masked) == len(text) and b"8660379441243016169" not in masked and b"/opt" not in masked and json.loads(masked) and pdroute.error_mask(b"") == b""
    event = pdroute.error_event(pdroute.Api.CHAT, 502, "decode_failed", "sorry " * 40)
    data = next(line for line in event.split(b"\n") if line.startswith(b"data:"))
    assert json.loads(data[5:])["error"]["code"] == "decode_failed" and b"[DONE]" not in event
    assert b'"abort"' in pdroute.error_event(pdroute.Api.GENERATE, 502, "decode_failed", "sorry")


def test_merge(router):
    body = b'{"text":"a b c","return_logprob":true,"logprob_start_len":0,"sampling_params":{"max_new_tokens":2}}'
    with router.lease("me") as lease:
        with router.route(CHAT, lease=lease) as other:
            assert not pdroute.merge_wanted(other.decision, other.prompt)
        with router.route(body, pdroute.Api.GENERATE, lease=lease) as routed:
            assert pdroute.merge_wanted(routed.decision, routed.prompt)
    prefill = b'{"text":"x","meta_info":{"id":"1","input_token_logprobs":[[-1.5,7,null]],"output_token_logprobs":[[-0.5,9,null]]}}'
    decode = b'{"text":"xy","meta_info":{"id":"1","input_token_logprobs":[],"output_token_logprobs":[[-0.5,9,null],[-0.1,8,null]]}}'
    merged = pdroute.Merge(pdroute.Api.GENERATE, ResponseKind.JSON).text(prefill, decode)
    assert json.loads(merged)["meta_info"]["input_token_logprobs"][0] == [-1.5, 7, None] and json.loads(merged)["text"] == "xy"
    assert b"".join(pdroute.Merge(pdroute.Api.GENERATE, ResponseKind.JSON).pieces(prefill, memoryview(decode))) == merged
    assert pdroute.Merge(pdroute.Api.GENERATE, ResponseKind.JSON).text(b"", b"no JSON") == b"no JSON"


def test_record_and_replay(tmp_path):
    with make(3, 2) as router, router.lease("me") as lease:
        with router.record(tmp_path / "file") as recording:
            for i in range(20):
                router.route(json.dumps({"messages": [{"role": "user", "content": f"{i % 3} " + "word " * 400}]}).encode(), lease=lease).done()
            assert recording.read() > 1000 and recording.lost == 0
        with pytest.raises(AssertionError):
            recording.read()
    data = (tmp_path / "file").read_bytes()
    with pdroute.Replay(data) as replay:
        assert replay.config().max_endpoints == 16
        arrived = [(step.checked, step.same, len(replay.hashes()), len(replay.explain()), replay.endpoint(step.recorded.prefill).name)
                   for step in replay if step.kind == pdroute.ReplayKind.ROUTED]
    assert len(arrived) == 20 and {a[:2] for a in arrived} == {(1, 1)} and {a[3] for a in arrived} == {5} and all(a[2] and a[4].startswith("s") for a in arrived)
    with pdroute.Replay(data, policy=pdroute.Policy.RANDOM) as replay:
        assert any(not step.same for step in replay if step.checked)
    with pytest.raises(ValueError):
        replay.config()
    with pytest.raises(pdroute.BlockMagicError):
        pdroute.Replay(b"x" * 1000)
    with pytest.raises(pdroute.BlockCorruptError):
        pdroute.Replay(bytearray(data[:-30]))
    pdroute.Replay(data[:-30], pdroute.ReplayFlag.PARTIAL).close()
