"""Tokens, costs, answers: the parts that need no server."""

import json

import pytest

from sglang_sim import answers, api, tokenizer
from sglang_sim.cost import Cost
from sglang_sim.engine import Sequence, compose, seed_of
from sglang_sim.worker import Options


def test_tokens_are_four_bytes_and_prefixes_stay_prefixes():
    text = "héllo wörld, some text"
    packed = tokenizer.encode(text)
    assert tokenizer.count(packed) == -(-len(text.encode()) // 4) and tokenizer.decode(packed) == text
    assert tokenizer.from_ids(tokenizer.to_ids(packed)) == packed
    one = [{"role": "user", "content": "hello"}]
    two = [*one, {"role": "assistant", "content": "yes"}, {"role": "user", "content": [{"type": "text", "text": "and?"}]}]
    opening = tokenizer.chat(one)[:-len(tokenizer.IM_START + tokenizer.encode("assistant") + tokenizer.NEWLINE)]
    assert tokenizer.chat(two).startswith(opening)


def test_costs_are_the_published_ones():
    cost = Cost()
    assert cost.prefill([(8192, 0)]) == pytest.approx(0.5204, rel=1e-3)
    assert cost.prefill([(100, 1000)]) == pytest.approx(10e-3 + 100 * 55.1e-6 + 1.76e-9 * 100 * 1050)
    assert cost.decode_step(8, 20_000) == pytest.approx(14.4e-3 + 0.4e-3 + 20_000 * 48.9e-9)
    assert cost.transfer(1000) == pytest.approx(5e-3 + 1000 * 262_144 / 50e9)
    assert Cost(0).prefill([(8192, 0)]) == Cost(0).decode_step(8, 10) == Cost(0).transfer(9) == 0
    assert Cost(0.5).prefill([(8192, 0)]) == cost.prefill([(8192, 0)]) / 2


def test_answers_have_their_length_and_stop_at_stop_strings():
    text, tokens, stop = compose("0badcafe", "decode=x", 50, None, ())
    assert len(text) == 200 and tokens == 50 and stop is None and text.startswith(b"0badcafe decode=x ")
    assert compose("0badcafe", "decode=x", 50, None, ())[0] == text
    text, tokens, stop = compose("0badcafe", "decode=x", 50, None, ("=x",))
    assert text == b"0badcafe decode" and tokens == 5 and stop == "=x"
    assert compose("0badcafe", "", 500, 10, ())[1] == 10
    assert seed_of(b"abcd") != seed_of(b"abce")


def test_a_sequence_that_ends_by_itself_says_stop():
    seq = Sequence("r", tokenizer.encode("hello"), 100, natural=3)
    seq.write({"seed": "00000000", "cached": 0}, "x")
    seq.advance(1)
    assert not seq.done
    seq.advance(5)
    assert seq.produced == 3 and seq.finish == {"type": "stop", "matched": 2}


def read(path, body, headers=None, **options):
    reader = api.Reader(Options(**options), "prefill")
    return reader.read(path, body if isinstance(body, bytes) else json.dumps(body).encode(),
                       {"Content-Type": "application/json", **(headers or {})})


def test_rooms_of_a_batch():
    body = {"text": ["a", "b"], "bootstrap_host": "h", "bootstrap_port": None, "bootstrap_room": 7}
    call = read("/generate", body, default_bootstrap_port=99)
    assert [(p.host, p.port, p.room) for p in call.prompts] == [("h", 99, 7), ("h", 99, 8)]
    call = read("/generate", {**body, "bootstrap_room": [4, 5, 6], "bootstrap_port": [1, None]})
    assert [(p.port, p.room) for p in call.prompts] == [(1, 4), (8998, 5)]
    with pytest.raises(api.Refused) as refused:
        read("/generate", {**body, "bootstrap_room": [4]})
    assert refused.value.status == 500 and refused.value.body == "Internal Server Error"
    with pytest.raises(api.Crash):
        read("/generate", {**body, "text": "a", "bootstrap_room": [4]})


def test_headers_win_over_the_body_only_where_the_engine_lets_them():
    body = {"text": "a", "bootstrap_host": "h", "bootstrap_port": 1, "bootstrap_room": 7}
    headers = {"x-override-bootstrap-room": "9"}
    assert read("/generate", body, headers).prompts[0].room == 7
    assert read("/generate", body, headers, header_overrides=True).prompts[0].room == 9


def test_logprobs_of_a_token_are_always_the_same():
    assert answers.logprob_of(5) == answers.logprob_of(5) != answers.logprob_of(6)
    assert all(-7 < answers.logprob_of(i) <= -5 for i in range(100))
