"""Whole answers: what a real prefill and a real decode said, put together, against the same done on parsed JSON in Python; and every byte of decode's stays."""
import copy
import ctypes as C
import json
import random

import pytest
from test_rewrite_python import ROOT, lib

DATA = ROOT / "tests/data/responses"
GENERATE, COMPLETIONS, JSON, SSE = 1, 3, 1, 2
INPUT = ("input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs")


class Merge(C.Structure):
    _fields_ = [("struct_size", C.c_uint32), ("api", C.c_uint32), ("kind", C.c_uint32), ("reserved", C.c_uint32), ("seen", C.c_uint64 * 16)]


class Slice(C.Structure):
    _fields_ = [("source", C.c_uint32), ("reserved", C.c_uint32), ("offset", C.c_uint64), ("length", C.c_uint64)]


def started(api, kind):
    m = Merge()
    lib.pdr_merge_init(C.byref(m), api, kind)
    return m


def merge(m, prefill, decode):
    """The merged text, and the pieces of decode's text in it."""
    n = C.c_size_t(4096)
    slices = (Slice * n.value)()
    before = Merge.from_buffer_copy(m)
    assert lib.pdr_merge_slices(C.byref(before), prefill, C.c_size_t(len(prefill)), decode, C.c_size_t(len(decode)), slices, C.byref(n)) == 0
    pieces = [(s.source, (prefill if s.source else decode)[s.offset:s.offset + s.length]) for s in slices[:n.value]]
    need = C.c_size_t()
    out = C.create_string_buffer(len(prefill) * 64 + len(decode) + 1)
    assert lib.pdr_merge_text(C.byref(m), prefill, C.c_size_t(len(prefill)), decode, C.c_size_t(len(decode)), out, C.c_size_t(len(out)), C.byref(need)) == 0
    text = out.raw[:need.value]
    assert text == b"".join(piece for _, piece in pieces)
    return text, b"".join(piece for source, piece in pieces if not source)


def files(name, ext):
    return [(DATA / f"sglang_{name}_{leg}.{ext}").read_bytes() for leg in ("prefill", "decode")]


def events(text):
    return [json.loads(line[5:]) for line in text.decode().splitlines() if line.startswith("data: {")]


def by_hand(prefill, decode):
    """One answer of /generate, as a router with a JSON library would do it."""
    whole = copy.deepcopy(decode)
    for name in INPUT:
        if name in decode["meta_info"]:
            whole["meta_info"][name] = prefill["meta_info"].get(name, []) + decode["meta_info"][name]
    asked = whole["meta_info"].get("output_token_ids_logprobs")
    if asked and asked[0] is None:
        asked[0] = prefill["meta_info"]["output_token_ids_logprobs"][0]
    return whole


def test_generate():
    prefill, decode = files("gen_logprob", "json")
    text, own = merge(started(GENERATE, JSON), prefill, decode)
    answer = json.loads(text)
    assert answer == by_hand(json.loads(prefill), json.loads(decode))
    # what a server that does all would say: as many input logprobs as prompt tokens, of which the first has none
    info = answer["meta_info"]
    assert all(len(info[name]) == info["prompt_tokens"] for name in INPUT)
    assert info["input_token_logprobs"][0][0] is None and all(t[0] < 0 for t in info["input_token_logprobs"][1:])
    assert len(info["output_token_ids_logprobs"]) == info["completion_tokens"] and info["output_token_ids_logprobs"][0]
    assert own.replace(b"[,", b"[null,") == decode  # nothing but that null was left out


def test_batch():
    prefill, decode = files("gen_batch_logprob", "json")
    text, own = merge(started(GENERATE, JSON), prefill, decode)
    assert json.loads(text) == [by_hand(p, d) for p, d in zip(json.loads(prefill), json.loads(decode))]
    assert own == decode
    assert [len(a["meta_info"]["input_token_logprobs"]) for a in json.loads(text)] == [4, 2]


@pytest.mark.parametrize("at_once", [True, False])
def test_stream(at_once):
    prefill, decode = files("gen_logprob_stream", "sse")
    m, text, own = started(GENERATE, SSE), b"", b""
    for piece in [decode] if at_once else decode.split(b"\n\n")[:-1]:
        more, kept = merge(m, prefill, piece if at_once else piece + b"\n\n")
        text, own = text + more, own + kept
    assert own == decode and text.endswith(b"data: [DONE]\n\n")
    first, = events(prefill)
    assert events(text) == [by_hand(first, e) for e in events(decode)]


def test_batch_stream_in_another_order():
    rng = random.Random(5)
    prefill, decode = files("gen_batch_logprob", "json")
    prefill, decode = json.loads(prefill), json.loads(decode)

    def stream(answers, order):
        return b"".join(b"data: " + json.dumps({**answers[i], "index": i}).encode() + b"\n\n" for i in order) + b"data: [DONE]\n\n"

    sent = [0, 1, 1, 0, 1]
    rng.shuffle(sent)
    p, d = stream(prefill, [1, 0]), stream(decode, sent)
    text, own = merge(started(GENERATE, SSE), p, d)
    assert own == d
    assert events(text) == [{**by_hand(prefill[i], decode[i]), "index": i} for i in sent]


def test_completions_with_echo():
    prefill, decode = files("comp_echo_logprobs", "json")
    text, own = merge(started(COMPLETIONS, JSON), prefill, decode)
    assert own == decode
    p, d, answer = (json.loads(t)["choices"][0]["logprobs"] for t in (prefill, decode, text))
    assert answer == {name: p[name][:-1] + d[name] for name in d}
    assert "".join(answer["tokens"]) == json.loads(decode)["choices"][0]["text"]


def test_every_cut_of_every_text_is_harmless():
    """Whatever is missing, nothing is invented: the text comes out as JSON that Python would read, or as it went in."""
    for name, api in (("gen_logprob", GENERATE), ("gen_batch_logprob", GENERATE), ("comp_echo_logprobs", COMPLETIONS)):
        prefill, decode = files(name, "json")
        for i in range(0, len(prefill), 7):
            text, own = merge(started(api, JSON), prefill[:i], decode)
            json.loads(text)
        for i in range(0, len(decode), 7):
            assert merge(started(api, JSON), prefill, decode[:i])[0] == decode[:i]
