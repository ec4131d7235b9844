"""The rewrite and the response reader against Python's json, through the C ABI alone (ctypes on libpdroute.so).

PDROUTE_LIBRARY names the library; without it the one in build/ is used."""
import ctypes as C
import json
import os
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = pathlib.Path(os.environ.get("PDROUTE_LIBRARY", ROOT / "build/lib/libpdroute.so"))
if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY} is not built", allow_module_level=True)
lib = C.CDLL(str(LIBRARY))
U32, U64, I64 = C.c_uint32, C.c_uint64, C.c_int64


def struct(name, *fields):
    return type(name, (C.Structure,), {"_fields_": list(fields)})


Span = struct("Span", ("begin", U64), ("end", U64))
Prompt = struct("Prompt", *[(n, U32) for n in "struct_size flags api blocks batch samples".split()], ("max_tokens", U64), ("priority", I64),
                *[(n, U64) for n in "prompt_bytes prompt_tokens session".split()], ("members", U32), ("edits", U32), ("object", Span),
                ("model", Span), ("edit", Span * 32), ("insert_at", U64))
Decision = struct("Decision", ("struct_size", U32), ("outcome", U32), ("booking", U64),
                  *[(n, U32) for n in ("mode batch prefill decode prefill_rank decode_rank prefill_dp_size prefill_port decode_port "
                                       "bootstrap_port prefill_flags decode_flags engine candidates").split()],
                  *[(n, U64) for n in ("room room_key room_counter prompt_tokens matched_tokens wait_us prefill_us transfer_us decode_us "
                                       "cost_us retry_after_ms").split()],
                  *[(n, C.c_char * 256) for n in "prefill_host decode_host bootstrap_host".split()])
Response = struct("Response", *[(n, U32) for n in "struct_size kind events flags".split()],
                  *[(n, U64) for n in "bytes prompt_tokens cached_tokens completion_tokens".split()], ("state", U64 * 40))
lib.pdr_decision_room.restype = U64
NONE = 2**32 - 1
OWNED = {"bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank",
         "bootstrap_pair_key", "decode_tp_size", "kv_transfer_params"}


def scan(body, api=1):
    prompt = Prompt(struct_size=C.sizeof(Prompt))
    code = lib.pdr_scan(body, C.c_size_t(len(body)), api, None, C.byref(prompt), None, C.c_size_t(0), None)
    return code, prompt


def rewrite(decision, prompt, leg, body):
    need = C.c_size_t()
    args = (C.byref(decision), C.byref(prompt), leg, body, C.c_size_t(len(body)))
    assert lib.pdr_rewrite(*args, None, C.c_size_t(0), C.byref(need)) == 0
    out = C.create_string_buffer(need.value + 1)
    out[need.value] = b"\x55"
    assert lib.pdr_rewrite(*args, out, need, C.byref(need)) == 0
    assert out[need.value] == b"\x55"
    return out.raw[:need.value]


def decision(prompt, **fields):
    d = Decision(struct_size=C.sizeof(Decision), outcome=1, batch=prompt.batch if prompt.batch > 1 else 0, prefill_rank=NONE, decode_rank=NONE,
                 bootstrap_port=8998, room_key=7, room=4711, bootstrap_host=b"prefill-0")
    for k, v in fields.items():
        setattr(d, k, v)
    return d


class Members(list):
    """An object as its members in order, duplicates kept."""


def parse(text):
    # numbers stay text: the rewrite must not touch a digit of them
    return json.loads(text, object_pairs_hook=Members, parse_int=lambda t: ("number", t), parse_float=lambda t: ("number", t))


# ---------------------------------------------------------------------------------------------------------------- documents

def spell(key, mask):
    """The key as a JSON string with some of its characters escaped."""
    return '"' + "".join(f"\\u{ord(c):04x}" if mask >> i & 1 else json.dumps(c)[1:-1] for i, c in enumerate(key)) + '"'


space = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])
number = st.sampled_from(["0", "-0", "1", "123456789012345678901234567890", "0.70", "1E400", "-1.50e-07", "18446744073709551616"])
scalar = st.one_of(number, st.sampled_from(["null", "true", "false"]), st.text(st.characters(blacklist_categories=("Cs",)), max_size=12).map(json.dumps),
                   st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters='"\\', min_codepoint=32), max_size=12).map('"{}"'.format))


def containers(children):
    key = st.one_of(st.sampled_from(sorted(OWNED)), st.text(st.characters(blacklist_categories=("Cs",)), max_size=6)).map(json.dumps)
    member = st.tuples(key, space, space, children).map(lambda m: f"{m[0]}{m[1]}:{m[2]}{m[3]}")
    return st.one_of(st.tuples(st.lists(children, max_size=3), space).map(lambda x: "[" + x[1] + ("," + x[1]).join(x[0]) + x[1] + "]"),
                     st.tuples(st.lists(member, max_size=3), space).map(lambda x: "{" + x[1] + (x[1] + ",").join(x[0]) + x[1] + "}"))


value = st.recursive(scalar, containers, max_leaves=8)
owned_member = st.tuples(st.sampled_from(sorted(OWNED)), st.integers(0, 2**22), space, space, value)
other_member = st.tuples(st.text(st.characters(blacklist_categories=("Cs",)), max_size=8).map(lambda k: "x" + k), st.integers(0, 63), space, space, value)
prompt_member = st.sampled_from([("text", 0, "", " ", '"hello"'), ("text", 5, "", "", '["a", "b" ]'), ("input_ids", 0, "", "", "[1,2,3]"),
                                 ("input_ids", 0, " ", "", "[[1],[2,3],[4]]"), ("stream", 1, "", "", "true")])
body = st.tuples(st.lists(st.one_of(owned_member, other_member, prompt_member), max_size=8), space, space, space).map(
    lambda b: b[1] + "{" + b[2] + (b[3] + "," + b[2]).join(f"{spell(k, m)}{s}:{t}{v}" for k, m, s, t, v in b[0]) + b[3] + "}" + b[2])


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(body, st.sampled_from([0, 1]), st.sampled_from([NONE, 0, 3]), st.sampled_from([NONE, 1]), st.booleans(), st.booleans())
def test_only_owned_members_change(text, leg, prefill_rank, decode_rank, single, null_port):
    raw = text.encode()
    code, prompt = scan(raw)
    if code:  # two prompts, n > 1 and the like: the scan's own tests
        return
    d = decision(prompt, mode=int(single), prefill_rank=prefill_rank, decode_rank=decode_rank, prefill_dp_size=4 if prefill_rank != NONE else 0,
                 bootstrap_port=0 if null_port else 8998)
    out = rewrite(d, prompt, leg, raw)
    before, after = parse(text), parse(out.decode())
    kept = [m for m in before if m[0] not in OWNED]
    assert after[:len(kept)] == kept  # in order, digits and duplicates included
    added = dict(after[len(kept):])
    assert len(added) == len(after) - len(kept)
    assert prompt.members == len(kept)
    if single:
        assert not added
    else:
        rank = prefill_rank if leg == 0 else decode_rank
        rooms = [lib.pdr_decision_room(C.byref(d), i) for i in range(max(1, d.batch))]
        want = {"bootstrap_host": "prefill-0", "bootstrap_port": None if null_port else ("number", "8998"),
                "bootstrap_room": [("number", str(r)) for r in rooms] if d.batch else ("number", "4711")}
        if rank != NONE:
            want["routed_dp_rank"] = ("number", str(rank))
        if prefill_rank != NONE:
            want["disagg_prefill_dp_rank"] = ("number", str(prefill_rank))
        assert added == want
    # the client's bytes outside the edits, in order
    cut, at = b"", 0
    for i in range(prompt.edits):
        cut += raw[at:prompt.edit[i].begin]
        at = prompt.edit[i].end
    head, tail = cut + raw[at:prompt.insert_at], raw[prompt.insert_at:]
    assert out.startswith(head) and out.endswith(tail)
    assert prompt.edits == len(before) - len(kept)


def test_large_batch():
    raw = json.dumps({"text": ["x"] * 1000, "bootstrap_room": list(range(1000))}).encode()
    code, prompt = scan(raw)
    assert code == 0 and prompt.batch == 1000
    d = decision(prompt, prefill_dp_size=8, prefill_rank=5, room=13)
    out = json.loads(rewrite(d, prompt, 1, raw))
    rooms = out["bootstrap_room"]
    assert len(rooms) == len(set(rooms)) == 1000
    assert all(0 < r < 2**63 and r % 8 == 5 for r in rooms)
    assert out["bootstrap_host"] == "prefill-0" and len(out["text"]) == 1000


# ---------------------------------------------------------------------------------------------------------------- responses

def read(kind, chunks):
    s = Response(struct_size=C.sizeof(Response))
    lib.pdr_response_init(C.byref(s), kind)
    for c in chunks:
        assert lib.pdr_response_feed(C.byref(s), bytes(c), C.c_size_t(len(c))) == 0
    return {"events": s.events, "first": bool(s.flags & 1), "done": bool(s.flags & 2), "usage": bool(s.flags & 4), "error": bool(s.flags & 8),
            "cached": bool(s.flags & 16), "tokens": (s.prompt_tokens, s.completion_tokens, s.cached_tokens)}


def count(v):
    return v if isinstance(v, int) and not isinstance(v, bool) and v >= 0 else None


def model(documents, sse):
    """What the reader should find, from parsed documents; "[DONE]" stands for itself."""
    r = {"events": len(documents) if sse else 0, "first": False, "done": False, "usage": False, "error": False, "cached": False, "tokens": (0, 0, 0)}
    finished = (0, 0, 0)
    for doc in documents:
        if doc == "[DONE]":
            r["done"] = True
            continue
        for record in [x for x in (doc if isinstance(doc, list) else [doc]) if isinstance(x, dict)]:
            get = lambda d, k: d.get(k) if isinstance(d, dict) else None
            error = record.get("error") not in (None, False) or record.get("object") == "error"
            meta, usage = get(record, "meta_info"), get(record, "usage")
            final = isinstance(get(meta, "finish_reason"), (dict, str))
            error |= get(get(meta, "finish_reason"), "type") == "abort" or get(meta, "finish_reason") == "abort"
            choices = [c for c in record["choices"] if isinstance(c, dict)] if isinstance(record.get("choices"), list) else []
            error |= any(c.get("finish_reason") == "abort" for c in choices)
            deltas = [c["delta"] for c in choices if isinstance(c.get("delta"), dict)]
            role = any(isinstance(d.get("role"), str) for d in deltas)
            full = lambda v: v not in (None, False, "", [], {}) or (v == 0 and not isinstance(v, bool))
            content = any(full(v) for d in deltas for k, v in d.items() if k != "role") or any(isinstance(c.get("text"), str) and c["text"] for c in choices)
            token = bool(choices) or any(isinstance(record.get(k), (str, list, dict)) for k in ("text", "output_ids") if k != "output_ids" or not isinstance(record.get(k), str))
            for source in (meta, usage):
                got = [count(get(source, "prompt_tokens")), count(get(source, "completion_tokens")),
                       count(get(source, "cached_tokens") if source is meta else get(get(source, "prompt_tokens_details"), "cached_tokens"))]
                r["cached"] |= got[2] is not None
                if got[0] is None and got[1] is None:
                    continue
                r["usage"] = True
                values = tuple(v or 0 for v in got)
                if source is meta:
                    values = tuple(a + b for a, b in zip(values, finished))
                    if final or isinstance(doc, list):
                        finished = values
                r["tokens"] = values
            r["error"] |= error
            r["first"] |= sse and not error and (content or (token and not role))
    return r


small = st.one_of(st.none(), st.booleans(), st.integers(0, 10**6), st.sampled_from(["", "a", "abort", "error", "stop", "usage", 'x"{\\', "assistant"]))
junk = st.recursive(small, lambda c: st.one_of(st.lists(c, max_size=2), st.dictionaries(st.sampled_from(
    ["usage", "prompt_tokens", "error", "x", "cached_tokens", "finish_reason", "type", "object"]), c, max_size=3)), max_leaves=5)


def some(**members):
    """Objects with a random part of the members, junk in place of some, and a few others."""
    part = {k: st.one_of(v, v, v, junk) for k, v in members.items()}
    return st.fixed_dictionaries({}, optional={**part, "x": junk, "index": st.integers(0, 3)})


tokens = st.integers(0, 2**40)
finish = st.one_of(st.none(), some(type=st.sampled_from(["stop", "length", "abort"])))
meta_info = some(finish_reason=finish, prompt_tokens=tokens, completion_tokens=tokens, cached_tokens=tokens)
# counts of either form in one record: engines send one of them
usage = some(prompt_tokens=tokens, completion_tokens=tokens, prompt_tokens_details=some(cached_tokens=tokens))
delta = some(role=st.just("assistant"), content=st.sampled_from(["", "a", "[DONE]"]), reasoning_content=st.none(), tool_calls=st.lists(junk, max_size=1))
choice = some(delta=delta, text=st.sampled_from(["", "t"]), finish_reason=st.sampled_from([None, "stop", "abort"]))
openai = some(object=st.sampled_from(["chat.completion.chunk", "error"]), choices=st.lists(choice, max_size=2), usage=usage, error=st.none())
generate = some(text=st.text(max_size=3), output_ids=st.lists(st.integers(0, 9), max_size=2), meta_info=meta_info)


def clean(record):
    """Junk may have made output_ids a bare string or counts of both forms: outside what the model says."""
    if isinstance(record, dict):
        if not isinstance(record.get("output_ids"), (list, type(None))):
            del record["output_ids"]
        if not isinstance(record.get("text"), (str, type(None))):
            del record["text"]
    return record


record = st.one_of(openai, generate).map(clean)


def chunked(data, cuts):
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in zip(edges, edges[1:])]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(record, st.lists(generate.map(clean), max_size=3)), st.lists(st.integers(0, 10**6), max_size=6), st.booleans())
def test_json_like_the_model(document, cuts, spaces):
    data = json.dumps(document, indent=1 if spaces else None, ensure_ascii=spaces).encode()
    assert read(1, chunked(data, cuts)) == model([document], False)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(record, record, st.just("[DONE]")), max_size=5), st.lists(st.integers(0, 10**6), max_size=6),
       st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["data: ", "data:"]), st.sampled_from(["", ": comment\n", "event: e\nid: [DONE]\n"]))
def test_streams_like_the_model(documents, cuts, end, field, before):
    lines = "".join(before.replace("\n", end) + field + (d if d == "[DONE]" else json.dumps(d, separators=(",", ":"))) + end + end for d in documents)
    assert read(2, chunked(lines.encode(), cuts)) == model(documents, True)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/data/responses").iterdir()), ids=lambda p: p.name)
def test_captured_answers_like_the_model(path):
    data = path.read_bytes()
    if path.suffix == ".sse":
        events = [e.removeprefix(b"data: ") for e in data.split(b"\n\n") if e]
        documents = ["[DONE]" if e == b"[DONE]" else json.loads(e) for e in events]
    else:
        documents = [json.loads(data)]
    got = read(2 if path.suffix == ".sse" else 1, [data])
    assert got == model(documents, path.suffix == ".sse")
