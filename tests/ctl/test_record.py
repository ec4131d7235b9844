"""record and replay: what is recorded from a router in use is decided again from the file alone; bad files are refused."""

import json
import signal
import time

from conftest import TOP, asleep
from router import Router

BODY = b'{"model":"m","messages":[{"role":"user","content":"%d ' + b"a long enough prompt " * 400 + b'"}]}'
SAMPLE = TOP / "tests" / "data" / "recorded.pdr"


def recorded(pd, n=60):
    file = pd.directory / "decisions"
    recorder = pd.start("record", file)
    router = Router(pd.block)
    flight = []
    deadline = time.monotonic() + 30
    while not (file.exists() and file.stat().st_size and asleep(recorder)):  # after the file's head it reads for the first time, which switches recording on, and sleeps
        assert time.monotonic() < deadline and recorder.poll() is None
        time.sleep(0.01)
    for i in range(n):
        code, d = router.route(BODY.replace(b"%d", b"%d" % (i % 7)))
        if code == 0:
            flight.append(d)
        if i % 3 == 2:
            router.done(flight.pop(0))
        time.sleep(0.001)
    router.close()
    recorder.send_signal(signal.SIGTERM)
    out, err = recorder.communicate(timeout=10)
    assert recorder.returncode == 0, err
    return file


def test_what_was_recorded_is_decided_again(pd):
    file = recorded(pd)
    out = pd("replay", file)
    assert "60 requests" in out and "every one with exactly the recorded result" in out
    steps = [json.loads(line) for line in pd("replay", file, "--json", "--hashes").splitlines()]
    routed = [s for s in steps if s["kind"] == "routed"]
    assert len(routed) == 60 and all(s["same"] for s in routed) and len(routed[0]["hashes"]) == routed[0]["blocks"] > 4
    assert {s["recorded"]["decode"] for s in routed} - {None} == {"d0"}  # None: held
    assert file.stat().st_mode & 0o777 == 0o600
    assert "File exists" in pd("record", file, code=1)
    pd("record", file, "--force", "--seconds", 1)
    assert "0 requests" in pd("replay", file)


def test_what_if_with_another_policy(pd):
    out = pd("replay", SAMPLE, "--policy", "round_robin")
    assert "by round_robin" in out and "another pair" in out and " | " in out
    assert "recorded result" in pd("replay", SAMPLE)


def test_bad_files_are_refused(pd):
    whole = SAMPLE.read_bytes()
    assert "not a file of recorded decisions" in pd("replay", pd.file("a", b"{}" * 100), code=1)
    assert "ends inside" in pd("replay", pd.file("b", whole[: len(whole) // 2]), code=1)
    assert "recorded result" in pd("replay", pd.file("b", whole[: len(whole) // 2]), "--partial")
    assert "end is missing" in pd("replay", pd.file("c", whole[:-24]), code=1)
    assert "changed" in pd("replay", pd.file("d", whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]), code=1)
    assert "format 9" in pd("replay", pd.file("e", whole[:8] + b"\x09" + whole[9:]), code=1)
