"""Readers that accept nothing odd, for tests of what is written: Prometheus text, JSON, lines for logs and terminals; and names that try to break them."""

import json
import random
import re

NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*,?)?\}})? ([-+]?(?:\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|Inf|NaN))(?: -?\d+)?")
UNESCAPE = re.compile(r"\\(.)")


def prometheus(data):
    """[(name, {label: value})] of the text format 0.0.4; ValueError if a scraper would stumble."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    found, types = [], {}
    if not text.endswith("\n"):
        raise ValueError("no line end at the end")
    for line in text[:-1].split("\n"):
        if re.fullmatch(rf"# HELP {NAME} (?:[^\\\n]|\\\\|\\n)*", line) or not line:
            continue
        if kind := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped)", line):
            if kind[1] in types:
                raise ValueError(f"{kind[1]} has two types")
            types[kind[1]] = kind[2]
            continue
        sample = SAMPLE.fullmatch(line)
        if not sample:
            raise ValueError(f"not a sample: {line!r}")
        labels = [(m[0].split("=")[0], UNESCAPE.sub(lambda e: "\n" if e[1] == "n" else e[1], m[1])) for m in re.finditer(LABEL, sample[2] or "")]
        if len(dict(labels)) != len(labels):
            raise ValueError(f"a label twice: {line!r}")
        found.append((sample[1], dict(labels)))
    if len({(n, tuple(sorted(l.items()))) for n, l in found}) != len(found):
        raise ValueError("a series twice")
    return found


def _once(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError(f"a member twice: {[k for k, _ in pairs]}")
    return dict(pairs)


def _no_constant(name):
    raise ValueError(name)


def json_text(data):
    """The value; ValueError for what is not UTF-8, has a member twice, NaN, or a surrogate by itself."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def lines(data):
    """Lines for a terminal or a log; ValueError for what steers either, or is not UTF-8."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    bad = re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
    if bad:
        raise ValueError(f"{bad[0]!r} in {text[max(0, bad.start() - 60):bad.end() + 60]!r}")
    return text.split("\n")


PIECES = [b"\r\n", b"\n", b"\r", b'"', b"\\", b"\\n", b"\\u0022", b"'", b"{", b"}", b"=", b",", b" ", b"\t", b"%s%n", b"$host", b"\x1b[2J", b"\x9b2J", "\u009b2J".encode(),
          b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", "\u2028".encode(), "\u202e".encode(), "ü".encode(), "\U0001f600".encode(), b"\x7f", b"\x01",
          b"# TYPE x counter\n", b'"} 1\nevil{a="', b'","evil":"', b"X-Evil: 1", b"\r\nX-Evil: 1\r\n\r\n", b"<script>", b"a", b"0"]


def hostile_names(rng=None, count=100, longest=120, nul=False):
    """Names as bytes: each piece by itself, then mixtures, then very long ones."""
    rng = rng or random.Random(1)
    pieces = PIECES + ([b"\0", b"\0evil"] if nul else [])
    names = [b"n" + p + b"m" for p in pieces]
    while len(names) < count:
        name = b"".join(rng.choice(pieces) for _ in range(rng.randint(1, 30)))
        names.append(name[:longest] if rng.random() < 0.8 else (name * longest)[:longest])
    return names[:max(count, len(pieces))]
