"""nginx with failing calls (tests/faults/fail.c): of the module, and of nginx itself, when it starts and while it answers a request.

At the start: nginx runs, or it refuses with a sentence. At a request: it is answered, whole or with an error, or its connection is closed; no process dies, the
next request is answered, and nothing stays booked. PDROUTE_LONG=1 (tests/run --long): more errnos, and at the start each call instead of one in five.
"""

import errno
import os
import re
import subprocess
import sys

import httpx
import pytest
from block import Block
from conftest import block_stats, close
from hosts.host import TOP
from sglang_sim.harness import wait_for
from traffic import PATHS, body, events_of

sys.path.insert(0, str(TOP / "tests/faults"))
from preload import build  # noqa: E402

pytestmark = pytest.mark.only("nginx")
LONG = bool(os.environ.get("PDROUTE_LONG"))
STEP = 1 if LONG else 5
MODULE = "ngx_http_pdroute_module.so"
CALLERS = {"module": {"PDR_FAIL_ONLY": "1", "PDR_FAIL_CALLERS": MODULE}, "nginx and module": {"PDR_FAIL_CALLERS": MODULE}}


@pytest.fixture(scope="session")
def preload(tmp_path_factory):
    return build(tmp_path_factory.mktemp("faults"))


class Faults:
    """A gateway whose calls can be made to fail."""

    def __init__(self, gw, preload, callers, number):
        self.gw, self.report, self.arm = gw, gw.dir / "report", gw.dir / "arm"
        self.environment = {**os.environ, "LD_PRELOAD": str(preload), "PDR_FAIL_ERRNO": str(number), "PDR_FAIL_REPORT": str(self.report),
                            "PDR_FAIL_ARM": str(self.arm), "PDR_FAIL_NOT": "localtime_r", **CALLERS[callers]}
        gw.environment = lambda: self.environment
        gw.expect_alerts = True

    def at(self, number):
        """The numbered call from now on fails; 0: none."""
        new = self.arm.with_suffix(".new")
        new.write_text(str(number))
        new.rename(self.arm)

    def hit(self):
        told = self.report.read_text() if self.report.exists() else ""
        self.report.unlink(missing_ok=True)
        found = re.search(r"^hit (\w+)", told, re.M)
        return found and found[1]


def sentences(text):
    return re.search(r"\[(emerg|alert|crit|error)\] .{12,}|^nginx: .{12,}", text, re.M)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM] if LONG else [errno.ENOMEM], ids=errno.errorcode.get)
def test_start(number, fleet, make_gateway, preload):
    """`nginx -t` for the reading of the configuration, and the start of a gateway whose block is already there."""
    gw = make_gateway(fleet, main="user root;", start=False)
    faults = Faults(gw, preload, "module", number)
    gw.start()
    gw.stop()
    wrong, calls, refused = [], 0, 0
    while calls < 2000:
        calls += 1
        faults.environment["PDR_FAIL_AT"] = str(calls)
        (gw.dir / "error.log").write_text("")
        done = subprocess.run(gw.command("-t"), stderr=subprocess.PIPE, text=True, env=faults.environment, timeout=20)
        hit = faults.hit()
        if not hit:
            break
        if done.returncode not in (0, 1) or done.returncode == 1 and not sentences(done.stderr + gw.errors()):
            wrong.append(f"nginx -t, call {calls} ({hit}): {done.returncode} {done.stderr[-300:]}")
        refused += done.returncode == 1
    assert calls > 5 and refused, "no call of the module failed"
    started = 0
    for at in range(1, 400, STEP):
        faults.environment["PDR_FAIL_AT"] = str(at)
        (gw.dir / "error.log").write_text("")
        (gw.dir / "stderr").write_text("")
        try:
            gw.start(write=False)
        except RuntimeError as error:
            if not sentences(str(error)) or re.search(r"signal (6|7|11)\b", str(error)):
                wrong.append(f"start, call {at}: {error}")
        hit = faults.hit()
        if gw.process:
            if httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=20).status_code not in (200, 500, 502, 503):
                wrong.append(f"start, call {at} ({hit}): no answer")
            gw.stop()
        with Block(gw.block) as block:
            block.check()
        if not hit:
            break
        started += 1
    assert started, "no call failed in a start"
    assert not wrong, "\n".join(wrong)
    faults.environment["PDR_FAIL_AT"] = "0"
    gw.start(write=False)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=20).status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("callers", CALLERS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EPIPE] if LONG else [errno.ENOMEM], ids=errno.errorcode.get)
def test_request(number, callers, stream, fleet, make_gateway, preload):
    gw = make_gateway(fleet, main="user root;", start=False, workers=1, config={"first_byte_timeout_ms": 2000, "idle_timeout_ms": 2000, "breaker_open_ms": 1})
    faults = Faults(gw, preload, callers, number)
    gw.start()
    before, wrong, reached, missed = gw.worker_pids(), [], 0, 0
    asked = body("chat", stream=stream, text="x" * 20_000)
    assert httpx.post(gw.url + PATHS["chat"], json=asked, timeout=20).status_code == 200
    for at in range(1, 3000):
        faults.at(at)
        try:
            answer = httpx.post(gw.url + PATHS["chat"], json=asked, timeout=20)
            last = events_of(answer.text)[-1:] if stream and answer.status_code == 200 else []
            if answer.status_code not in (200, 400, 413, 500, 502, 503, 504) or stream and answer.status_code == 200 and last != ["[DONE]"] and "error" not in str(last):
                wrong.append(f"call {at}: {answer.status_code} {answer.text[:200]}")
        except httpx.TimeoutException:
            wrong.append(f"call {at}: no answer in 20 s")
        except httpx.HTTPError:
            pass  # closed
        faults.at(0)
        if not wait_for(lambda: httpx.post(gw.url + PATHS["chat"], json=asked, timeout=20).status_code == 200, timeout=5):
            wrong.append(f"call {at}: the next one fails as well")
        hit = faults.hit()
        missed = 0 if hit else missed + 1
        if missed == 3:  # how many calls there are differs a little from request to request
            break
        reached += hit is not None
        if gw.worker_pids() != before:
            wrong.append(f"call {at} ({hit}): the worker died: " + "".join(line for line in gw.errors().splitlines(True) if "exited" in line))
            before = gw.worker_pids()
        if not wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=5):
            wrong.append(f"call {at} ({hit}): still booked: {[line for line in gw.errors().splitlines() if hit in line][-3:]}")
        if len(wrong) > 10:
            break
    assert reached > 1, "no call failed"
    assert not wrong, f"{reached} calls:\n" + "\n".join(wrong)
    assert not close(gw)
