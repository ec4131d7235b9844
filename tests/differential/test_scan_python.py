"""The scanner against Python's json, through the C ABI alone (ctypes on libpdroute.so): what is accepted, which members stay, how large the
batch is, and the whole chain of hashes, computed here once more from lib/prompt.h's description with the system's xxHash.

PDROUTE_LIBRARY names the library; without it the one in build/ is used. PDROUTE_EXAMPLES multiplies the number of examples [1]."""
import ctypes as C
import ctypes.util
import json
import os
import pathlib
import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = pathlib.Path(os.environ.get("PDROUTE_LIBRARY", ROOT / "build/lib/libpdroute.so"))
if not LIBRARY.exists():
    pytest.skip(f"{LIBRARY} is not built", allow_module_level=True)
XXHASH = ctypes.util.find_library("xxhash")
if not XXHASH:
    pytest.skip("libxxhash is not installed", allow_module_level=True)
lib, xxh = C.CDLL(str(LIBRARY)), C.CDLL(XXHASH)
xxh.XXH3_64bits_withSeed.restype = C.c_uint64
sys.set_int_max_str_digits(0)
U32, U64, I64 = C.c_uint32, C.c_uint64, C.c_int64
GENERATE, CHAT, COMPLETIONS, OTHER = 1, 2, 3, 4
STREAM, LOGPROB, MEDIA, TOKENS, BATCH, TRUNCATED, USAGE = (1 << i for i in range(7))
PARSE, TOO_LARGE, TOO_DEEP, UNSUPPORTED = -4, -5, -6, -7
OWNED = {"bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank",
         "bootstrap_pair_key", "decode_tp_size", "kv_transfer_params"}


def struct(name, *fields):
    return type(name, (C.Structure,), {"_fields_": list(fields)})


Span = struct("Span", ("begin", U64), ("end", U64))
Prompt = struct("Prompt", *[(n, U32) for n in "struct_size flags api blocks batch samples".split()], ("max_tokens", U64), ("priority", I64),
                *[(n, U64) for n in "prompt_bytes prompt_tokens session".split()], ("members", U32), ("edits", U32), ("object", Span),
                ("model", Span), ("edit", Span * 32), ("insert_at", U64))
Limits = struct("Limits", *[(n, U32) for n in "struct_size block_bytes max_blocks max_depth max_batch reserved".split()], ("max_body", U64))
Error = struct("Error", ("struct_size", U32), ("code", C.c_int32), ("offset", U64), ("line", U32), ("reserved", U32), ("message", C.c_char * 232))
BLOCK = 64
EFFORT = int(os.environ.get("PDROUTE_EXAMPLES", "1"))


def examples(n):
    return settings(max_examples=n * EFFORT, deadline=None, suppress_health_check=list(HealthCheck))


def xxh3(data, seed=0):
    return xxh.XXH3_64bits_withSeed(data, C.c_size_t(len(data)), U64(seed))


def scan(body, api):
    prompt, err = Prompt(struct_size=C.sizeof(Prompt)), Error(struct_size=C.sizeof(Error))
    limits, hashes = Limits(struct_size=C.sizeof(Limits), block_bytes=BLOCK), (U64 * 4096)()
    code = lib.pdr_scan(body, C.c_size_t(len(body)), api, C.byref(limits), C.byref(prompt), hashes, C.c_size_t(4096), C.byref(err))
    return code, prompt, list(hashes[:prompt.blocks]), err


# ---------------------------------------------------------------------------------------------------------- what is JSON

def depth(v):
    return 1 + max(map(depth, v.values() if isinstance(v, dict) else v), default=0) if isinstance(v, (dict, list)) else 0


def strings(v):
    if isinstance(v, str):
        yield v
    elif isinstance(v, dict):
        for k, x in v.items():
            yield k
            yield from strings(x)
    elif isinstance(v, list):
        for x in v:
            yield from strings(x)


def refuse_constant(name):
    raise ValueError(name)


def reference(body):
    """Members of the object in order as Python reads them, or None if that is no JSON object as RFC 8259 has it."""
    class Object(dict):
        pass

    def keep(pairs):
        d = Object(pairs)
        d.pairs = pairs
        return d
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=refuse_constant, object_pairs_hook=keep, parse_int=lambda s: s and int(s))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    every = [value]
    while every:  # doubles that lost are strings of the document too
        v = every.pop()
        if isinstance(v, Object):
            every += [k for k, _ in v.pairs] + [x for _, x in v.pairs]
        elif isinstance(v, list):
            every += v
        elif isinstance(v, str) and re.search("[\ud800-\udfff]", v):
            return None
    return value


def check_acceptance(body):
    code, prompt, _, err = scan(body, OTHER)
    value = reference(body)
    if value is None:
        assert code in (PARSE, TOO_DEEP), (body, code)
        assert err.line == body[:err.offset].count(b"\n") + 1 and err.offset <= len(body) and err.message
    else:
        assert code in (0, TOO_DEEP, TOO_LARGE), (body, code, err.message)
        if code == 0:
            assert prompt.members + prompt.edits == len(value.pairs)
            assert prompt.edits == sum(k in OWNED for k, _ in value.pairs)


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40) | st.sampled_from(["", "\\", "\"", "\\\"", "\n\t", "你好,世界", "😀" * 9, "x" * 70])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=20)
keys = st.sampled_from(sorted(OWNED) + ["model", "messages", "text", "prompt", "input_ids", "x", "n", "tools", "user"]) | texts


class Members(dict):
    """json.dumps writes all of them, doubles too."""
    def __init__(self, pairs):
        super().__init__(pairs[:1])
        self.pairs = pairs

    def items(self):
        return self.pairs


def write(pairs, style):
    separators, ascii_only, indent = [((",", ":"), False, None), ((", ", ": "), True, None), ((" ,", " :"), True, None), (None, False, 1)][style]
    return json.dumps(Members(pairs), ensure_ascii=ascii_only, separators=separators, indent=indent).encode()


documents = st.builds(write, st.lists(st.tuples(keys, values), max_size=6), st.integers(0, 3))


@examples(75)
@given(documents)
def test_takes_what_python_writes(body):
    code, *_ = scan(body, OTHER)
    assert code == 0
    check_acceptance(body)


@examples(312)
@given(documents, st.lists(st.tuples(st.sampled_from("cdir"), st.floats(0, 1, exclude_max=True), st.sampled_from(
    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"-", b".", b"e", b"u", b"\n", b" ", b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xc3", b"\xe4",
     b"\xed\xa0\x80", b"\xf0\x9f", b"\\ud800", b"\\udc00", b"NaN", b"null", b"1e5", b"//", b"'", b"\xef\xbb\xbf"])), min_size=1, max_size=3))
def test_agrees_on_damaged_documents(body, damage):
    for how, where, what in damage:
        at = int(where * (len(body) + 1))
        end = {"c": at + len(what), "d": at + 1, "i": at, "r": at + 5}[how]
        body = body[:at] + (b"" if how == "d" else what) + body[end:]
    check_acceptance(body)


@examples(50)
@given(st.binary(max_size=60))
def test_agrees_on_noise(noise):
    check_acceptance(noise)
    check_acceptance(b'{"a":' + noise + b"}")
    check_acceptance(b'{"a":"' + noise + b'"}')


@examples(100)
@given(documents)
def test_edits_leave_the_rest(body):
    code, prompt, *_ = scan(body, OTHER)
    assert code == 0
    rest, at = b"", 0
    for e in prompt.edit[:prompt.edits]:
        assert at <= e.begin < e.end <= prompt.insert_at
        rest += body[at:e.begin]
        at = e.end
    full = rest + body[at:prompt.insert_at] + (b"," if prompt.members else b"") + b'"added":1' + body[prompt.insert_at:]
    rest += body[at:]
    before, after = (json.loads(b, object_pairs_hook=list) for b in (body, rest))
    assert [p for p in before if p[0] not in OWNED] == after
    assert len(after) == prompt.members
    assert json.loads(full, object_pairs_hook=list) == after + [("added", 1)]


# -------------------------------------------------------------------------------------------------- the canonical prompt

MARK = lambda letter: b"\xff" + letter.encode()
ORDER = [("name", "N"), ("tool_call_id", "I"), ("reasoning_content", "R"), ("content", "C"), ("tool_calls", "K")]


def text(s):
    """What stands between the quotes in the shortest spelling: Python's own, without ensure_ascii."""
    return json.dumps(s, ensure_ascii=False)[1:-1].encode()


def as_json(v, media=False, cache_depth=0, level=1):
    if isinstance(v, dict):
        members = [b'"' + text(k) + b'":' + as_json(x, media, cache_depth, level + 1) for k, x in v.items()
                   if not (level == cache_depth and k == "cache_control")]
        return b"{" + b",".join(members) + b"}"
    if isinstance(v, list):
        return b"[" + b",".join(as_json(x, media, cache_depth, level + 1) for x in v) + b"]"
    if isinstance(v, str) and media:
        return MARK("H") + xxh3(v.encode()).to_bytes(8, "little")
    return json.dumps(v, ensure_ascii=False).encode()


def piece(mark, v):
    return MARK(mark) + (text(v) if isinstance(v, str) else MARK("J") + as_json(v))


def is_media(part):
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and any(w in kind for w in ("image", "audio", "video", "file"))


def message(m):
    out = piece("M", m["role"]) if m.get("role") is not None else MARK("M")
    for key, mark in ORDER:
        v = m.get(key)
        if v is None:
            continue
        if key == "content" and isinstance(v, list):
            out += MARK("L") + b"".join(MARK("P") + as_json(p, is_media(p), 1) for p in v)
        else:
            out += piece(mark, v)
    for k, v in m.items():
        if k not in {"role", "cache_control", *dict(ORDER)} and v is not None:
            out += MARK("X") + text(k) + MARK("J") + as_json(v)
    return out


def chat_stream(body):
    tools = body.get("tools")
    out = b""
    if isinstance(tools, list) and tools and body.get("tool_choice") != "none":
        out += MARK("T") + as_json(tools, cache_depth=2)
    return out + b"".join(map(message, body["messages"]))


def chain(stream, kind, body):
    salt = 0
    for i, key in enumerate(("model", "lora_path", "cache_salt", "extra_key"), 1):
        if isinstance(body.get(key), str) and body[key]:
            salt = xxh3(body[key].encode(), (salt + i) % 2**64)
    h, out = xxh3(bytes([kind]), salt), []
    for i in range(len(stream) // BLOCK):
        h = (h * 0x9E3779B97F4A7C15 + xxh3(stream[i * BLOCK:(i + 1) * BLOCK])) % 2**64
        h = (h ^ h >> 32) * 0xD6E8FEB86659FD93 % 2**64
        h ^= h >> 32
        out.append(h)
    return out


salts = st.fixed_dictionaries({}, optional={k: texts for k in ("model", "lora_path", "cache_salt", "extra_key")})
parts = st.builds(lambda kind, extra: {"type": kind, **extra}, st.sampled_from(["text", "image_url", "input_audio", "video_url", "x"]),
                  st.dictionaries(st.sampled_from(["text", "image_url", "cache_control", "y"]), values, max_size=3)) | texts
contents = st.none() | texts | st.lists(parts, max_size=3) | values.filter(lambda v: not isinstance(v, float))
messages = st.lists(st.fixed_dictionaries({}, optional={
    "role": st.sampled_from(["user", "assistant", "system", "tool", "developer"]) | texts | st.none(), "content": contents, "name": texts, "tool_calls": values,
    "tool_call_id": texts, "reasoning_content": texts, "cache_control": values, "refusal": values}), min_size=1, max_size=5)


@examples(150)
@given(salts, messages, st.none() | st.lists(values, max_size=3), st.sampled_from(["none", "auto", None]), st.integers(0, 3), st.randoms())
def test_chat_chain(salt, talk, tools, choice, style, random):
    body = {**salt, "messages": talk, "tools": tools, "tool_choice": choice}
    pairs = list(body.items())
    random.shuffle(pairs)
    code, prompt, hashes, err = scan(write(pairs, style), CHAT)
    assert code == 0, err.message
    stream = chat_stream(body)
    assert prompt.prompt_bytes == len(stream)
    assert hashes == chain(stream, 2, body)
    assert bool(prompt.flags & MEDIA) == any(is_media(p) for m in talk if isinstance(m.get("content"), list) for p in m["content"])


@examples(75)
@given(salts, st.text(st.characters(blacklist_categories=["Cs"]), max_size=600), st.lists(texts, max_size=3), st.integers(0, 3))
def test_text_chain(salt, first, others, style):
    for api, key in ((GENERATE, "text"), (COMPLETIONS, "prompt")):
        for value in (first, [first, *others]):
            body = {**salt, key: value}
            code, prompt, hashes, err = scan(write(list(body.items()), style), api)
            if "" in ([value] if isinstance(value, str) else value):  # an empty prompt ends the engine's prefill scheduler
                assert code == UNSUPPORTED and b"empty" in err.message
                continue
            assert code == 0, err.message
            every = [value] if isinstance(value, str) else value
            assert prompt.prompt_bytes == sum(len(text(t)) for t in every)
            assert prompt.batch == len(every) and bool(prompt.flags & BATCH) == isinstance(value, list)
            assert hashes == chain(text(first), 1, body)


@examples(75)
@given(salts, st.lists(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 200000), min_size=1, max_size=120), min_size=1, max_size=3), st.integers(0, 3))
def test_token_chain(salt, ids, style):
    stream = b"".join(i.to_bytes(4, "little") for i in ids[0])
    for api, key in ((GENERATE, "input_ids"), (COMPLETIONS, "prompt")):
        for value in (ids[0], ids):
            body = {**salt, key: value}
            code, prompt, hashes, err = scan(write(list(body.items()), style), api)
            assert code == 0, err.message
            assert prompt.prompt_tokens == (len(ids[0]) if value is ids[0] else sum(map(len, ids)))
            assert prompt.flags & TOKENS and prompt.batch == (1 if value is ids[0] else len(ids))
            assert hashes == chain(stream, 3, body)


# ----------------------------------------------------------------------------------------------- what is asked, as the engine counts

def expected_batch(body, api):
    """(batch, is a list) by normalize_batch_and_arguments of the engine, None where it answers an error or crashes."""
    def is_int(v):
        return type(v) is int and 0 <= v < 2**32

    def of_ids(v):
        if v and all(is_int(x) for x in v):
            return 1, False
        if v and all(isinstance(x, list) and x and all(map(is_int, x)) for x in v):
            return len(v), True
        return None

    def of_texts(v):
        if isinstance(v, str):
            return (1, False) if v else None
        return (len(v), True) if isinstance(v, list) and v and all(isinstance(x, str) and x for x in v) else None
    if api == COMPLETIONS:
        v = body.get("prompt")
        return of_texts(v) or (of_ids(v) if isinstance(v, list) else None)
    if (body.get("text") is None) == (body.get("input_ids") is None):
        return None
    if body.get("text") is not None:
        return of_texts(body["text"])
    return of_ids(body["input_ids"]) if isinstance(body["input_ids"], list) else None


loose = st.none() | texts | st.integers(-1, 5) | st.integers(2**32 - 2, 2**32 + 1) | st.booleans() | st.floats(0, 3)
prompts = loose | st.lists(loose | st.lists(loose, max_size=3), max_size=4) | st.lists(texts, max_size=4) | st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=4)


@examples(312)
@given(st.sampled_from([GENERATE, COMPLETIONS]), st.fixed_dictionaries({}, optional={"text": prompts, "input_ids": prompts, "prompt": prompts}), st.integers(0, 3))
def test_batch_is_never_misjudged(api, body, style):
    code, prompt, _, err = scan(write(list(body.items()), style), api)
    want = expected_batch(body, api)
    if want is None:
        assert code in (PARSE, UNSUPPORTED), (body, code)
        assert err.message
    else:
        assert code == 0 and (prompt.batch, bool(prompt.flags & BATCH)) == want, (body, code, err.message)
