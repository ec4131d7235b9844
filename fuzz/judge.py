"""Judges rewritten bodies for fuzz_python.c with Python's json: reads cases from standard input, writes one line about each.

A case: four little-endian 32-bit numbers (1 if the scanner took the body as JSON, lengths of the body, of the rewritten body, of the members put in), then these
three texts; lengths of 0 if there was nothing to rewrite. The answer: "ok", or what is wrong."""
import json
import re
import struct
import sys

OWNED = {"bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank",
         "bootstrap_pair_key", "decode_tp_size", "kv_transfer_params"}


class Members(list):
    """An object as its members in order, doubles kept."""


def constant(name):
    raise ValueError(name)


def parse(text):
    # numbers stay text: not a digit of them may change
    return json.loads(text.decode("utf-8"), object_pairs_hook=Members, parse_constant=constant, parse_int=lambda t: ("number", t), parse_float=lambda t: ("number", t))


def lone_surrogate(value):
    every = [value]
    while every:
        v = every.pop()
        if isinstance(v, Members):
            every += [k for k, _ in v] + [x for _, x in v]
        elif isinstance(v, list):
            every += v
        elif isinstance(v, str) and re.search("[\ud800-\udfff]", v):
            return True
    return False


def reference(body):
    """The object as RFC 8259 has it, None if it is none, False if Python's stack is too short to tell."""
    try:
        value = parse(body)
    except RecursionError:
        return False
    except ValueError:
        return None
    return None if not isinstance(value, Members) or lone_surrogate(value) else value


def judge(accepted, body, out, added):
    before = reference(body)
    if before is False:
        return "ok"
    if (before is not None) != accepted:
        return f"the scanner {'takes' if accepted else 'refuses'} it as JSON, Python does not agree"
    if not out:
        return "ok"
    after, new = reference(out), parse(b"{" + added.lstrip(b", ") + b"}")
    if after is None:
        return "the rewritten body is no JSON"
    if after != [m for m in before if m[0] not in OWNED] + new:
        return "the rewritten body is not the body without owned members and with the new ones at its end"
    if not all(k in OWNED for k, _ in new):
        return "a member was put in that the router does not own"
    return "ok"


def main():
    sys.setrecursionlimit(2500)
    read = sys.stdin.buffer.read
    while head := read(16):
        accepted, *sizes = struct.unpack("<4I", head)
        sys.stdout.buffer.write(judge(bool(accepted), *map(read, sizes)).encode() + b"\n")
        sys.stdout.buffer.flush()


main()
