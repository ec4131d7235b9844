"""pdroutectl with failing calls: each command is run once for every call that it makes to the system and to libraries, that call failing (tests/faults/fail.c).

Whatever fails, the command ends, with 0 and what it says otherwise, or with 1 and a sentence; the block stays sound and no half-made file is left.
Calls that may be interrupted, have nothing yet, or move fewer bytes than they were asked to, do that, too: then the command does what it does otherwise, where it
goes on. A pdroutectl with gcc's AddressSanitizer (PDR_CTL) must not leak either, whatever fails.
PDROUTE_LONG=1 (tests/run --long): with further errnos. PDROUTE_FAULTS_EVERY=N: one call in N.
"""

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import CTL, TOP, Ctl

sys.path.insert(0, str(TOP / "tests/faults"))
from preload import build, sanitizer_of  # noqa: E402

ERRNOS = [errno.EIO, errno.EINTR, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC] if os.environ.get("PDROUTE_LONG") else [errno.EIO]
CONFIG = json.dumps({"max_endpoints": 8, "max_targets": 8, "max_bookings": 16, "max_held": 4, "max_leases": 4, "index_entries": 256, "log_entries": 4, "seed": 7, "record_bytes": 65536})
POOL = """endpoints:
- {role: prefill, host: 10.0.0.9, port: 8000, name: p9}
- {role: decode, host: 10.0.0.8, port: 8000, name: d9}
"""
BODY = '{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
COMMANDS = {  # {d}: the run's own directory; those in FRESH begin without a block
    "create": "create --config {d}/config.json",
    "create over another": "create --config {d}/other.json --force",
    "apply": "apply -f {d}/pool.yaml",
    "apply json, prune": "apply -f {d}/pool.json --prune",
    "put": "put http://10.0.0.7:8000@34000 --role prefill --name p7 --label a=b",
    "drain": "drain p0",
    "remove": "remove p0",
    "list": "list",
    "list json": "list --json",
    "top": "top --once",
    "log": "log --json",
    "explain": "explain {d}/body.json",
    "record": "record {d}/recorded --seconds 1",
    "replay": "replay {d}/recording",
    "check": "check",
    "stats": "stats --json",
    "probe": "probe --once --timeout 1",
}
FRESH = {"create"}
EVERY = int(os.environ.get("PDROUTE_FAULTS_EVERY", "1"))
MOVES = {"read", "write", "pread64", "pwrite64", "sendfile64", "send", "recv", "getrandom"}  # as fail.c has them
INTERRUPTED = MOVES | {"open", "open64", "fcntl", "flock", "connect", "accept4", "epoll_wait", "poll", "nanosleep", "posix_fallocate", "ftruncate64", "sendto"}
WAITS = {"read", "write", "send", "recv", "sendto", "flock", "fcntl", "connect", "accept4"}  # EAGAIN
SHORT = 0  # in place of an errno


@pytest.fixture(scope="session")
def preload(tmp_path_factory):
    return build(tmp_path_factory.mktemp("faults"), CTL)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A directory with a block of three servers and the files that commands read; each run gets a copy."""
    d = tmp_path_factory.mktemp("model")
    for name, text in {"config.json": CONFIG, "other.json": CONFIG.replace("256", "512"), "pool.yaml": POOL, "body.json": BODY,
                       "pool.json": json.dumps({"endpoints": [{"role": "both", "host": "10.0.0.9", "port": 8000, "name": "b9"}]})}.items():
        (d / name).write_text(text)
    ctl = Ctl(d / "block", d)
    ctl("create", "--config", d / "config.json")
    for i, role in enumerate(("prefill", "prefill", "decode")):
        ctl("put", f"http://127.0.0.1:{i + 1}@34000" if role == "prefill" else f"http://127.0.0.1:{i + 1}", "--role", role, "--name", f"{role[0]}{i}")
    shutil.copy(TOP / "tests/data/recorded.pdr", d / "recording")
    return d


def run(command, name, directory, preload, model, at, number, more=None):
    """(exit code, output, errors, name of the call that failed, calls made, their names) of one run in a copy of the model."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(model, directory)
    if name in FRESH:
        (directory / "block").unlink()
    report = directory.with_suffix(".report")
    report.unlink(missing_ok=True)
    done = subprocess.run([CTL, *command.format(d=directory).split()], capture_output=True, text=True, timeout=30, cwd=directory, stdin=subprocess.DEVNULL,
                          env={**os.environ, "LD_PRELOAD": str(preload), "PDROUTE_BLOCK": str(directory / "block"), "TZ": "UTC", "PDR_FAIL_AT": str(at),
                               "PDR_FAIL_ERRNO": str(number), "PDR_FAIL_REPORT": str(report), "PDR_FAIL_CALLERS": "libyaml-0.so.2:libcjson.so.1",
                               "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=1:exitcode=99", **({"PDR_FAIL_SHORT": "1"} if at and number == SHORT else {}),
                               **(more or {})})
    told = report.read_text() if report.exists() else ""
    hit, calls = re.search(r"^hit (\w+)", told, re.M), re.search(r"^calls (\d+)", told, re.M)
    return done.returncode, done.stdout, done.stderr, hit and hit[1], int(calls[1]) if calls else 0, re.findall(r"^call \d+ (\w+)", told, re.M)


def steady(text, directory):
    return re.sub(r"\d+(\.\d+)?", "N", text.replace(str(directory), "DIR")).replace(" ", "")


def wrong_with(name, directory, clean, result, number):
    code, out, err, hit, *_ = result
    if hit is None:
        return None
    if "Sanitizer" in err or "runtime error" in err:
        return err[:3000]
    if number == SHORT and code != clean[0]:
        return f"fewer bytes at once: exit code {code}: {err[-300:]}"
    if code not in (0, 1):
        return f"exit code {code}: {err[-300:]}"
    if code == 1 and clean[0] == 0 and not re.search(r"^pdroutectl: .{8,}|: .{8,}", err, re.M):
        return f"no sentence: {err!r}"
    if code == 0 and name not in ("top", "probe", "record") and steady(out, directory) != clean[1]:
        return f"exit code 0, but another output: {out[-300:]!r}"
    left = [f.name for f in directory.iterdir() if ".new." in f.name]
    if left:
        return f"left over: {left}"
    block = directory / "block"
    if block.exists():
        check = subprocess.run([CTL, "--block", block, "check"], capture_output=True, text=True, timeout=20)
        if check.returncode:
            return f"the block afterwards: {check.stderr}"
    elif name not in FRESH:
        return "the block is gone"
    return None


@pytest.mark.parametrize("name", COMMANDS)
def test_each_call_fails_once(name, preload, model, tmp_path):
    command = COMMANDS[name]
    first = run(command, name, tmp_path / "clean", preload, model, 0, 0, {"PDR_FAIL_TRACE": "1"})
    assert "Sanitizer" not in first[2], first[2]
    assert first[4] > 3, f"calls are not counted: {first}"
    clean = (first[0], steady(first[1], tmp_path / "clean"))

    def one(job):
        at, number = job
        directory = tmp_path / f"{at}-{number}"
        try:
            result = run(command, name, directory, preload, model, at, number)
            wrong = wrong_with(name, directory, clean, result, number)
        except subprocess.TimeoutExpired:
            result, wrong = (None, "", "", "a call"), "does not end"
        shutil.rmtree(directory, ignore_errors=True)
        directory.with_suffix(".report").unlink(missing_ok=True)
        return wrong and f"call {at} ({result[3]}) failing with {errno.errorcode.get(number, 'half of its bytes')}: {wrong}"

    # record and probe wait for a second each, and make calls as time allows: every call of theirs until waiting begins
    most = 45 if name in ("record", "probe") and not os.environ.get("PDROUTE_LONG") else first[4]
    with ThreadPoolExecutor(8 if name in ("record", "probe") else 3) as pool:
        calls = range(1 + random.randrange(EVERY), min(most, first[4]) + 1, EVERY)
        lies = [(at, number) for at in calls for number, names in ((errno.EINTR, INTERRUPTED), (errno.EAGAIN, WAITS), (SHORT, MOVES)) if number not in ERRNOS and first[5][at - 1] in names]
        wrong = [w for w in pool.map(one, [(at, number) for number in ERRNOS for at in calls] + lies) if w]
    assert not wrong, f"{len(wrong)} of {first[4]} calls:\n" + "\n".join(wrong[:20])
