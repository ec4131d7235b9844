"""Whole answers: what a client asks about its prompt comes from prefill, and the answer is the one that a server doing all would give."""

import json
import time

import httpx
import pytest
from listener import Answers
from sglang_sim.harness import wait_for
from traffic import PATHS, all_received, events_of, text_of

pytestmark = pytest.mark.needs("merge")

INPUT = ("input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs")
LONG = text_of(60_000, 3)


def generate(text, **more):
    return {"text": text, "return_logprob": True, "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 5, "temperature": 0}, **more}


@pytest.fixture(scope="module")
def unified():
    from sglang_sim import harness
    with harness.start(prefill=0, decode=0, unified=1, speed=0, context=2_000_000, capacity=20_000_000) as fleet:
        yield fleet.unified[0]


def asked(url, path, body):
    answer = httpx.post(url + path, json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def input_part(answer):
    return {name: answer["meta_info"][name] for name in INPUT if name in answer["meta_info"]}


@pytest.mark.parametrize("text", ["the quick brown fox", LONG], ids=["short", "60KB"])
def test_generate(text, gw, fleet, unified):
    body = generate(text, top_logprobs_num=2, token_ids_logprob=[5, 6])
    answer, wanted = asked(gw.url, "/generate", body).json(), asked(unified.url, "/generate", body).json()
    assert input_part(answer) == input_part(wanted) and len(answer["meta_info"]["input_token_logprobs"]) == answer["meta_info"]["prompt_tokens"]
    assert len(answer["meta_info"]["output_token_logprobs"]) == 5
    assert wait_for(lambda: all(r.end and not r.disconnected for r in all_received(fleet)), timeout=3), "a leg was cut off"


def test_batch(gw, unified):
    body = generate(["a b c", "the quick brown fox", "x"])
    answers, wanted = asked(gw.url, "/generate", body).json(), asked(unified.url, "/generate", body).json()
    assert [input_part(a) for a in answers] == [input_part(w) for w in wanted] and len(answers) == 3


@pytest.mark.parametrize("text", ["the quick brown fox", ["a b c", "the quick brown fox"], LONG], ids=["one", "batch", "60KB"])
def test_stream(text, gw, unified):
    body = generate(text, stream=True)
    streams = [events_of(asked(url, "/generate", body).text) for url in (gw.url, unified.url)]
    assert all(s[-1] == "[DONE]" for s in streams)
    found = [{e.get("index", 0): input_part(e) for e in map(json.loads, s[:-1])} for s in streams]
    assert found[0] == found[1] and all(v["input_token_logprobs"] for v in found[0].values())


def test_stream_comes_event_by_event(start_fleet, make_gateway):
    """Held back until prefill has ended, and not until decode has."""
    gw = make_gateway(start_fleet(prefill=1, decode=1, speed=1, timers=0.05))
    times = []
    body = generate("one two three", stream=True, sampling_params={"max_new_tokens": 60})
    with httpx.stream("POST", gw.url + "/generate", json=body, timeout=20) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                times.append(time.monotonic())
    assert len(times) > 30 and times[-1] - times[0] > 0.2


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_completions_with_echo(stream, gw, unified):
    body = {"model": "tiny", "prompt": "the quick brown fox", "max_tokens": 4, "echo": True, "logprobs": 1, "stream": stream}
    tokens = []
    for url in (gw.url, unified.url):
        text = asked(url, PATHS["completions"], body).text
        parts = [json.loads(e) for e in events_of(text) if e != "[DONE]"] if stream else [json.loads(text)]
        tokens.append([t for p in parts for c in p["choices"] if c.get("logprobs") for t in c["logprobs"]["token_logprobs"]])
    # prompt and answer, and the prompt's are those of a server that does all (answers name their authors, so they differ)
    prompt = len(tokens[0]) - 4
    assert prompt > 0 and len(tokens[0]) == len(tokens[1]) and tokens[0][:prompt] == tokens[1][:prompt]


def test_prefill_that_fails_is_no_answer(fleet, make_gateway):
    gw = make_gateway(fleet)
    for worker in fleet.prefills:
        worker.fault(kind="status", status=500)
    answer = httpx.post(gw.url + "/generate", json=generate("a b c"), timeout=10)
    assert answer.status_code == 502


def as_answer(form, answer):
    text = json.dumps(answer).encode()
    kind = b"text/event-stream" if form == "stream" else b"application/json"
    if form == "stream":
        text = b"data: %s\n\ndata: [DONE]\n\n" % text
    if form == "sized":
        return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(text), text)
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (kind, len(text), text)


@pytest.mark.parametrize("form", ["sized", "chunked", "stream"])
@pytest.mark.parametrize("late", ["prefill", "decode"])
def test_either_may_end_first(late, form, make_gateway):
    """Prefill's is the larger answer: all of decode's may be there long before. Nothing is left of the request then: the gateway ends when it is asked to."""
    meta = {"id": "x", "finish_reason": {"type": "length", "length": 1}, "prompt_tokens": 2, "completion_tokens": 1, "cached_tokens": 0}
    answers = {"prefill": {"text": "", "meta_info": {**meta, "input_token_logprobs": [[None, 1, None], [-1.5, 2, None]]}},
               "decode": {"text": "hi", "meta_info": {**meta, "input_token_logprobs": [], "output_token_logprobs": [[-0.5, 3, None]]}}}
    workers = {role: Answers(as_answer(form, answer), 0.4 if role == late else 0) for role, answer in answers.items()}
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": worker.port} for role, worker in workers.items()])
        for text in ("a b", "c d"):
            got = httpx.post(gw.url + "/generate", json=generate(text, stream=form == "stream"), timeout=5)
            got = json.loads(events_of(got.text)[0]) if form == "stream" else got.json()
            assert got["text"] == "hi" and got["meta_info"]["output_token_logprobs"] == [[-0.5, 3, None]]
            assert got["meta_info"]["input_token_logprobs"] == answers["prefill"]["meta_info"]["input_token_logprobs"]
    finally:
        for worker in workers.values():
            worker.close()


class Breaks(Answers):
    """Sends the answer but for its last bytes, and is gone a while later: decode's is all there by then."""

    def serve(self, s):
        with s:
            received = b""
            while (piece := s.recv(65536)) and not (received := received + piece).rstrip().endswith(b"}"):
                pass
            s.sendall(self.answer[:-20])
            time.sleep(self.after)


@pytest.mark.parametrize("form", ["sized", "chunked", "stream"])
@pytest.mark.parametrize("spare", [False, True], ids=["alone", "with a spare"])
def test_a_prefill_that_breaks_behind_decodes_answer(spare, form, make_gateway):
    """Nothing has reached the client: another pair, else an error, and never an answer without what was asked for, whichever way decode's answer came."""
    meta = {"id": "x", "finish_reason": {"type": "length", "length": 1}, "prompt_tokens": 2, "completion_tokens": 1, "cached_tokens": 0}
    told = [[None, 1, None], [-1.5, 2, None]]
    prefill = as_answer(form, {"text": "", "meta_info": {**meta, "input_token_logprobs": told}})
    decode = Answers(as_answer(form, {"text": "hi", "meta_info": {**meta, "input_token_logprobs": []}}))
    prefills = [Breaks(prefill, 0.3)] + ([Answers(prefill)] if spare else [])
    try:
        listed = [{"role": "prefill", "host": "127.0.0.1", "port": each.port} for each in prefills] + [{"role": "decode", "host": "127.0.0.1", "port": decode.port}]
        gw = make_gateway(listed, config={"breaker_failures": 1000, "policy": "round_robin"})
        for i in range(4 if spare else 2):
            got = httpx.post(gw.url + "/generate", json=generate(f"a b {i}", stream=form == "stream"), timeout=10)
            if not spare:
                assert got.status_code == 502 and got.json()["error"]["code"] == "prefill_failed", got.text
                continue
            assert got.status_code == 200, got.text
            answer = json.loads(events_of(got.text)[0]) if form == "stream" else got.json()
            assert answer["text"] == "hi" and answer["meta_info"]["input_token_logprobs"] == told
        assert prefills[0].connections > 0
    finally:
        for worker in [*prefills, decode]:
            worker.close()
