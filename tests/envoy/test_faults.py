"""pdroute-extproc with failing calls (tests/faults/fail.c): its own, and those of nghttp2 on its behalf, when it starts and while it answers a request.
(Not those within libcurl: 7.88 crashes when its list of sockets gets no memory.)

At the start: it serves, or it ends with a sentence. At a request: it is answered, or its stream ends; the process lives, the next request is answered, nothing
stays booked, and no server is blamed for what this process lacked. PDROUTE_LONG=1 (tests/run --long): each call instead of some.
"""

import errno
import json
import os
import re
import subprocess
import sys
import time

import pytest
from conftest import Picker
from data_plane import FULL, Call, check
from hosts.ext_proc import binary
from hosts.host import TOP, endpoints_of, free_ports
from sglang_sim.harness import wait_for
from traffic import body, dumps, text_of

sys.path.insert(0, str(TOP / "tests/faults"))
from preload import build  # noqa: E402

LONG = bool(os.environ.get("PDROUTE_LONG"))
# with AddressSanitizer its library is preloaded behind ours
SANITIZER = {"ASAN_OPTIONS": ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))}
LIBRARIES = {"own": "", "nghttp2": "libnghttp2.so.14"}
ANSWERS = (200, 500, 502, 503, 504)


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    return build(tmp_path_factory.mktemp("faults"), binary("build", "PDROUTE_EXTPROC"))


class Faulty(Picker):
    """A picker whose calls can be made to fail."""

    def __init__(self, directory, endpoints, preload, number, callers="own", **options):
        self.report, self.arm = directory / "report", directory / "arm"
        self.environment = {"LD_PRELOAD": str(preload), "PDR_FAIL_ERRNO": str(number), "PDR_FAIL_REPORT": str(self.report), "PDR_FAIL_ARM": str(self.arm),
                            "PDR_FAIL_NOT": "localtime_r", "PDR_FAIL_CALLERS": LIBRARIES[callers], **SANITIZER}
        super().__init__(directory, endpoints, **options)

    def at(self, number):
        """The numbered call from now on fails; 0: none."""
        new = self.arm.with_suffix(".new")
        new.write_text(str(number))
        new.rename(self.arm)

    def hit(self):
        found = re.search(r"^hit (\w+)", self.report.read_text() if self.report.exists() else "", re.M)
        self.report.unlink(missing_ok=True)
        return found and found[1]


def by_name(fleet):
    """Servers that libcurl is needed for: an address that only a resolver takes for one."""
    return [{**each, "host": "%s.%s.%d" % (a, b, 256 * int(c) + int(d))} for each in endpoints_of(fleet) for a, b, c, d in [each["host"].split(".")]]


def asked(port, sent, wait=40, complete=None, **head):
    """What came of one request: a status, "sent" (Envoy was told where it goes), "over" (its stream ended), or None: nothing in time. `complete` is asked about a whole answer."""
    try:
        with Call(port) as call:
            call.headers(body_mode=FULL, **head)
            call.body(sent, end=True)
            end = time.monotonic() + wait
            while time.monotonic() < end:
                pieces = [m.streamed_immediate_response.body_response for m in call.messages if m.HasField("streamed_immediate_response")]
                for m in call.messages:
                    if m.HasField("immediate_response"):
                        return m.immediate_response.status.code
                    if m.HasField("streamed_immediate_response") and m.streamed_immediate_response.HasField("headers_response"):
                        status = next(int(h.raw_value or h.value) for h in m.streamed_immediate_response.headers_response.headers.headers if h.key == ":status")
                        if not complete or status != 200:
                            return status
                        if any(p.end_of_stream for p in pieces):
                            text = b"".join(p.body for p in pieces)
                            return 200 if complete(text) else f"less than an answer: {text[:200]}"
                    if m.request_body.response.body_mutation.streamed_response.end_of_stream:
                        return "sent"
                if call.ended or call.reset is not None:
                    return "over"
                call.pump(0.2)
    except OSError:
        return "over"
    return None


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM] if LONG else [errno.ENOMEM], ids=errno.errorcode.get)
def test_start(number, fleet, preload, tmp_path):
    started, refused, wrong, missed, at = 0, 0, [], 0, 0
    sent = dumps(body("chat"))
    while missed < 3 and at < 1000:
        at += 1 if LONG or at < 20 else 4
        directory = tmp_path / str(at)
        directory.mkdir()
        ports, report = free_ports(3), directory / "report"
        (directory / "pdroute.json").write_text(dumps({"seed": 1, "index_entries": 1024, "endpoints": endpoints_of(fleet)}).decode())
        line = [binary("build", "PDROUTE_EXTPROC"), "--host", "127.0.0.1", "--grpc-port", str(ports[0]), "--grpc-health-port", str(ports[1]), "--metrics-port", str(ports[2]),
                "--threads", "1", "--config", directory / "pdroute.json", "--block", directory / "block"]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(line, stderr=log, env={**os.environ, "LD_PRELOAD": str(preload), "PDR_FAIL_AT": str(at), "PDR_FAIL_ERRNO": str(number),
                                                              "PDR_FAIL_REPORT": str(report), "PDR_FAIL_NOT": "localtime_r", **SANITIZER})

        def said():
            return (directory / "log").read_text()

        try:
            assert wait_for(lambda: process.poll() is not None or "ext_proc on port" in said(), timeout=30), f"call {at}: {said()}"
            hit = re.search(r"^hit (\w+)", report.read_text(), re.M) if report.exists() else None
            missed = 0 if hit else missed + 1
            if process.poll() is not None:
                refused += 1
                if process.returncode != 1 or not re.search(r"\[(emerg|alert|crit|error)\] .{12,}", said()):
                    wrong.append(f"call {at} ({hit and hit[1]}): exit code {process.returncode}, {said()!r}")
                continue
            started += 1
            if not wait_for(lambda: asked(ports[0], sent) == "sent", timeout=10) or check(ports[1], "liveness")[1] != 0:
                wrong.append(f"call {at} ({hit and hit[1]}): it serves nothing, {said()!r}")
            process.terminate()
            if process.wait(30) != 0:
                wrong.append(f"call {at} ({hit and hit[1]}): exit code {process.returncode} at its end, {said()!r}")
        finally:
            process.kill()
            process.wait()
    assert started and refused > 3, (started, refused)
    assert not wrong, "\n".join(wrong)


# what is in both legs' answers, of servers that a subset hint names: kept, put together, and never less than that
LOGPROBS = {"text": text_of(3_000, 3), "return_logprob": True, "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 5, "temperature": 0}}
CASES = [("own", "peer", "send"), ("own", "curl", "send"), ("own", "curl", "both"), ("nghttp2", "peer", "send"), ("own", "peer", "both, logprobs")]
if LONG:
    CASES += [("own", "peer", "both"), ("nghttp2", "curl", "both")]


@pytest.mark.parametrize("callers,legs,dispatch", CASES, ids=["-".join(case) for case in CASES])
def test_request(callers, legs, dispatch, fleet, preload, tmp_path):
    dispatch, logprobs = dispatch.split(",")[0], "logprobs" in dispatch
    picker = Faulty(tmp_path, by_name(fleet) if legs == "curl" else endpoints_of(fleet), preload, errno.ENOMEM, callers, flags=["--dispatch", dispatch],
                    config={"breaker_failures": 1, "breaker_open_ms": 30_000, "first_byte_timeout_ms": 15_000, "idle_timeout_ms": 15_000, "retry_max": 0})
    good = "sent" if dispatch == "send" else 200
    sent, more = dumps(LOGPROBS if logprobs else body("chat", text=text_of(20_000))), {}
    if logprobs:
        more = {"path": "/generate", "metadata": [("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset", ",".join(w.name for w in fleet.decodes))],
                "complete": lambda text: json.loads(text)["meta_info"]["input_token_logprobs"]}
    wrong, reached, missed, at = [], [], 0, 0

    def ask():
        return asked(picker.grpc_port, sent, **more)

    try:
        assert ask() == good, picker.log()
        while missed < 4 and at < 3000 and len(wrong) < 8:
            at += 1 if callers == "own" or LONG else 3
            picker.at(at)
            got = ask()
            picker.at(0)
            hit = picker.hit()
            missed = 0 if hit else missed + 1
            if hit:
                reached.append(hit)
            if got not in (good, "over", *ANSWERS):
                wrong.append(f"call {at} ({hit}): {got}")
            if picker.process.poll() is not None:
                wrong.append(f"call {at} ({hit}): it died, {picker.process.returncode}: {picker.log()[-500:]}")
                break
            if not wait_for(lambda: ask() == good or picker.process.poll() is not None, timeout=10):
                wrong.append(f"call {at} ({hit}): the next one fails as well: {picker.log()[-500:]}")
            if not wait_for(lambda: picker.stats()["bookings"] == 0, timeout=10):
                wrong.append(f"call {at} ({hit}): still booked")
            opened = re.search(r"breakers_opened_total (\d+)", picker.metrics())
            if int(opened[1]):
                wrong.append(f"call {at} ({hit}): a server was blamed: {picker.log()[-500:]}")
                break
    finally:
        if picker.process.poll() is None:
            picker.stop()
    assert not wrong, f"{len(reached)} calls:\n" + "\n".join(wrong)
    assert {"own": {"realloc"}, "nghttp2": {"malloc"}}[callers] <= set(reached), reached
    if callers == "own" and legs == "curl":
        assert len({"curl_multi_add_handle", "curl_slist_append", "curl_multi_socket_action"} & set(reached)) > 1, reached
