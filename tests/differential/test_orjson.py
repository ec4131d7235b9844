"""What is accepted as JSON, and what a rewritten body says, beside two other readers: Python's json and orjson (PyPI), by generated documents of every
production and limit, valid and not. Where the three differ is in DIFFERENCES, and each of these is met.

PDROUTE_EXAMPLES multiplies the number of documents. Without orjson everything is skipped: `pip install --target DIR orjson`, PYTHONPATH=DIR."""
import ctypes as C
import json
import os
import random
import re
import sys

import pytest
from test_rewrite_python import OWNED, Prompt, decision, lib, rewrite, struct

orjson = pytest.importorskip("orjson", reason="orjson is not installed (PyPI): acceptance and rewritten bodies were not compared with it")
Error = struct("Error", ("struct_size", C.c_uint32), ("code", C.c_int32), ("offset", C.c_uint64), ("line", C.c_uint32), ("reserved", C.c_uint32), ("message", C.c_char * 232))
COUNT = 4000 * int(os.environ.get("PDROUTE_EXAMPLES", "1"))
DEPTH = 128  # max_depth of the library's defaults


@pytest.fixture(autouse=True)
def digits():
    """Python's limit as it is by default; another module of this folder lifts it."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(4300)
    yield
    sys.set_int_max_str_digits(before)


def by_python(body):
    try:
        return True, json.loads(body)
    except (ValueError, RecursionError):
        return False, None


def by_orjson(body):
    try:
        return True, orjson.loads(body)
    except ValueError:
        return False, None


def depth(body):
    d = most = 0
    for c in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body, flags=re.S):
        d += (c in b"[{") - (c in b"]}")
        most = max(most, d)
    return most


def utf8(body):
    try:
        body.decode("utf-8")
        return True
    except UnicodeDecodeError:
        return False


LONE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F][0-9a-fA-F]{2}")
HUGE = re.compile(rb"\d[eE]\+?\d{3}|\d{300}")
# name: (who says yes alone or no alone, when that is meant)
DIFFERENCES = {
    "Python takes NaN and Infinity": lambda b, ours, py, orj: py and not ours and not orj and re.search(rb"NaN|Infinity", b),
    "Python takes raw surrogates": lambda b, ours, py, orj: py and not ours and not orj and not utf8(b),
    "Python takes a BOM": lambda b, ours, py, orj: py and not ours and not orj and b.startswith(b"\xef\xbb\xbf"),
    "ours has a limit of depth": lambda b, ours, py, orj: not ours and (py or orj) and depth(b) > DEPTH,
    "Python takes lone surrogates": lambda b, ours, py, orj: py and not ours and not orj and LONE.search(b),
    "orjson refuses numbers beyond a double": lambda b, ours, py, orj: ours and py and not orj and HUGE.search(b),
    "Python limits digits of an integer": lambda b, ours, py, orj: ours and not py and re.search(rb"\d{4301}", b),
}


class Maker:
    def __init__(self, rng):
        self.rng = rng

    def number(self):
        r = self.rng
        return r.choice([b"0", b"-0", b"1", b"-1", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"1e400", b"-1E+400", b"1e-400",
                         b"0.1", b"1.5E-7", b"9" * r.choice([20, 320, 5000]), b"0." + b"3" * 400,
                         b"01", b"+1", b".5", b"1.", b"1e", b"0x10", b"-", b"1_0", b"NaN", b"-Infinity", b"1 2"][:None if r.random() < 0.12 else 15])

    def string(self):
        r = self.rng
        good = [b"a", "ü".encode(), "\U0001f600".encode(), b"\\n", b"\\u0000", b"\\u00fc", b"\\ud83d\\ude00", b"\\/", b'\\"', b"\\\\", "\u2028".encode(), b"\x7f", b"x" * r.choice([15, 31, 63, 500])]
        odd = [b"\\ud83d", b"\\ude00", b"\\ude00\\ud83d", b"\\ud83dx"]
        bad = [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x00", b"\x1f", b"\n", b"\\x41", b"\\u12", b"\\u12g4", b"\\", b"\\'"]
        pieces = [r.choice(good) for _ in range(r.randint(0, 5))]
        if r.random() < 0.08:
            pieces.insert(r.randint(0, len(pieces)), r.choice(odd if r.random() < 0.4 else bad))
        return b'"' + b"".join(pieces) + b'"'

    def space(self):
        return self.rng.choice([b"", b"", b" ", b"\n", b"\t\r\n "] + ([b"\x0b", b"\xc2\xa0", b"/**/"] if self.rng.random() < 0.005 else []))

    def key(self):
        return self.rng.choice([self.string(), b'"a"', b'"a"', b'"' + self.rng.choice(sorted(OWNED)).encode() + b'"'])

    def value(self, level=0):
        r, kind = self.rng, self.rng.random()
        if kind < 0.25:
            return self.number()
        if kind < 0.55:
            return self.string()
        if kind < 0.7 or level > 4:
            return r.choice([b"null", b"true", b"false"] + ([b"nul", b"True", b"undefined", b""] if r.random() < 0.05 else []))
        n = r.randint(0, 4)
        comma = b"," if r.random() < 0.99 else b",,"
        if kind < 0.85:
            return b"[" + comma.join(self.space() + self.value(level + 1) + self.space() for _ in range(n)) + b"]"
        return b"{" + comma.join(self.space() + self.key() + self.space() + b":" + self.value(level + 1) for _ in range(n)) + b"}"

    def document(self):
        r = self.rng
        inner = self.value()
        if r.random() < 0.05:
            levels = r.choice([DEPTH - 2, DEPTH - 1, DEPTH, DEPTH + 1, 200, 900])
            inner = b"[" * levels + b"]" * levels if r.random() < 0.5 else b'{"a":' * levels + b"1" + b"}" * levels
        members = [b'"text":"a b"', self.key() + self.space() + b":" + inner]
        members += [b'"' + r.choice(sorted(OWNED)).encode() + b'":' + self.value(3) for _ in range(r.randint(0, 2))]
        r.shuffle(members)
        body = b"{" + b",".join(members) + b"}" + self.space()
        trick = r.random()
        if trick < 0.02:
            return b"\xef\xbb\xbf" + body
        if trick < 0.05:
            return body + r.choice([b"x", b"\0", b"{}", b",", b"\xef\xbb\xbf"])
        if trick < 0.25:
            at = r.randrange(len(body))
            return r.choice([body[:at], body[:at] + bytes([r.randrange(256)]) + body[at + 1:], body[:at] + body[at + 1:], body[:at] + b'"' + body[at:]])
        return body


def test_acceptance_and_rewriting():
    maker, met, same, rewritten = Maker(random.Random(20)), {}, [0, 0], 0
    for _ in range(COUNT):
        body = maker.document()
        prompt, error = Prompt(struct_size=C.sizeof(Prompt)), Error(struct_size=C.sizeof(Error))
        ours = lib.pdr_scan(body, C.c_size_t(len(body)), 1, None, C.byref(prompt), None, C.c_size_t(0), C.byref(error)) == 0
        message = error.message
        (py, value), (orj, value2) = by_python(body), by_orjson(body)
        if not py == orj == ours:
            if not ours and message.startswith(b"one of text"):  # JSON, but no prompt in it
                continue
            reasons = [name for name, says in DIFFERENCES.items() if says(body, ours, py, orj)]
            assert reasons, (body, "ours", message, "Python", py, "orjson", orj)
            for name in reasons:
                met[name] = met.get(name, 0) + 1
        else:
            same[ours] += 1
        if not ours:
            continue
        out = rewrite(decision(prompt), prompt, 0, body)
        for loads, yes, before in ((json.loads, py, value), (orjson.loads, orj, value2)):
            if yes:
                wanted = {k: v for k, v in before.items() if k not in OWNED}
                wanted.update(bootstrap_host="prefill-0", bootstrap_port=8998, bootstrap_room=lib_room(out))
                assert repr(sorted(loads(out).items(), key=repr)) == repr(sorted(wanted.items(), key=repr)), (body, out)
                rewritten += 1
    print(f"all three: {same[1]} accepted, {same[0]} refused; rewritten and read again: {rewritten}; differences: {met}")
    assert min(same) > COUNT // 20 and rewritten > COUNT // 4
    assert set(met) == set(DIFFERENCES), set(DIFFERENCES) - set(met)


def lib_room(out):
    return int(re.search(rb'"bootstrap_room":(\d+)[^"]*$', out)[1])
