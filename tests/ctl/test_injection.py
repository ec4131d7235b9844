"""Names that try to break out: whatever is accepted as a name comes out of every writer as one value, and what is refused is refused in one clean line."""

import ctypes as c
import json
import random
import re
import sys

import pytest
from conftest import TOP
from router import Router

sys.path.insert(0, str(TOP / "tests/tools"))
from strict import hostile_names, json_text, lines, prometheus  # noqa: E402

LONG = 120


class Endpoint(c.Structure):
    _fields_ = [(n, c.c_uint32) for n in "struct_size role flags port bootstrap_port dp_size max_running reserved".split()] + [("kv_capacity", c.c_uint64)] + [
        (n, c.c_char * size) for n, size in (("name", 128), ("host", 256), ("bootstrap_host", 256), ("topology_host", 64), ("topology_rack", 64), ("topology_zone", 64),
                                             ("labels", 512))]


class Error(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("code", c.c_int32), ("offset", c.c_uint64), ("line", c.c_uint32), ("reserved", c.c_uint32), ("message", c.c_char * 232)]


def put(router, port, role, **texts):
    """The code and the message."""
    e = Endpoint(struct_size=c.sizeof(Endpoint), role=role, port=port, **{"host": b"127.0.0.1", **texts})
    error = Error(struct_size=c.sizeof(Error))
    code = router.core.pdr_endpoint_put(router.router, c.byref(e), c.c_uint64(router.now()), None, c.byref(error))
    return code, error.message


def written(router, function):
    need = c.c_size_t()
    code = getattr(router.core, function)(router.router, c.c_uint64(router.now()), None, c.c_size_t(0), c.byref(need))
    assert code == 0
    buffer = c.create_string_buffer(need.value + 4096)
    assert getattr(router.core, function)(router.router, c.c_uint64(router.now()), buffer, c.c_size_t(len(buffer)), c.byref(need)) == 0
    return buffer.raw[:need.value]


@pytest.fixture
def named(bare):
    """A block with servers of all names that are accepted: (ctl, router, the names)."""
    bare("create", "--config", bare.file("config.json", json.dumps({"max_endpoints": 512, "max_targets": 512, "max_bookings": 256, "log_entries": 64, "seed": 7})))
    router = Router(bare.block)
    names = []
    for i, name in enumerate(hostile_names(random.Random(3), 240, LONG)):
        code, message = put(router, 1000 + i, 1 + i % 2, name=name, labels=name, topology_host=b"".join(name[:60].split(b"\n")))
        lines(message)
        assert code == 0 or message
        if code == 0:
            names.append(name)
    assert len(set(names)) > 20 and any(b'"' in n for n in names) and any(b"\\" in n for n in names)
    yield bare, router, names
    router.close()


def shown(name):
    """As a reader of UTF-8 sees it."""
    return name.decode("utf-8", "replace")


def test_every_writer(named):
    ctl, router, names = named
    assert {t["name"] for t in json_text(written(router, "pdr_status_json"))["targets_detail"]} == {same(n) for n in names}
    samples = prometheus(written(router, "pdr_status_prometheus"))
    assert {l["endpoint"] for n, l in samples if "endpoint" in l} == {same(n) for n in names}
    assert not any("evil" in n or "evil" in l for n, l in samples)

    model = {"model": shown(names[7]) + "\n\"\\\0evil\x1b[2J", "messages": [{"role": "user", "content": "x" * 5000}]}
    body = ctl.file("body.json", json.dumps(model))
    for _ in range(12):
        code, decision = router.route(body.read_bytes())
        assert code == 0
        router.done(decision)
    for arguments in (["list"], ["stats"], ["explain", body], ["log"], ["log", "-v"], ["top", "--once"], ["check"]):
        lines(ctl(*arguments))
    listed = json_text(ctl("list", "--json"))
    assert {e["name"] for e in listed} == {same(n) for n in names}
    assert {e["labels"] for e in listed} == {same(n) for n in names}
    json_text(ctl("stats", "--json"))
    assert json_text(ctl("stats", "--status"))["targets_detail"]
    prometheus(ctl("stats", "--prometheus"))
    json_text(ctl("explain", body, "--json"))
    out = ctl("log", "--json")
    for line in lines(out):
        json_text(line or "{}")


def same(name):
    """What is not UTF-8 comes out as U+FFFD, each byte by itself."""
    out, at = "", 0
    while at < len(name):
        for length in (1, 2, 3, 4):
            try:
                out += name[at:at + length].decode("utf-8")
                break
            except UnicodeDecodeError:
                pass
        else:
            out, length = out + "\ufffd", 1
        at += length
    return out


def test_given_by_hand(ctl):
    """As arguments and in files: one clean line says no, or the name is taken."""
    taken = 0
    for i, name in enumerate(hostile_names(random.Random(4), 70, 300)):
        done = run(ctl, "put", f"http://127.0.0.1:{2000 + i}".encode(), b"--role", b"decode", b"--name=" + name)
        assert done.returncode in (0, 1, 2), done
        taken += done.returncode == 0
        lines(done.stdout + done.stderr)
        done = run(ctl, b"drain", name)
        assert done.returncode in (0, 1, 2)
        lines(done.stdout + done.stderr)
        document = {"endpoints": [{"role": "decode", "host": name.decode("latin-1"), "port": 9000, "name": name.decode("latin-1"), name.decode("latin-1"): 1}]}
        done = run(ctl, b"apply", b"-f", str(ctl.file("e.json", json.dumps(document))).encode())
        assert done.returncode == (0 if re.fullmatch(rb"[a-zA-Z0-9.%_:-]+", name) else 1), name  # % stands in addresses of IPv6
        lines(done.stdout + done.stderr)
        document["endpoints"][0]["host"] = "127.0.0.1"
        done = run(ctl, b"apply", b"-f", str(ctl.file("e.json", json.dumps(document))).encode(), b"--print")
        lines(done.stderr)
        if done.returncode == 0:
            json_text(done.stdout)
    assert taken > 10
    lines(ctl("list"))


def run(ctl, *arguments):
    import os
    import subprocess

    from conftest import CTL
    return subprocess.run([os.fsencode(CTL), *[a if isinstance(a, bytes) else a.encode() for a in arguments]], capture_output=True,
                          env={**os.environ, "PDROUTE_BLOCK": str(ctl.block), "TZ": "UTC"}, timeout=30)
