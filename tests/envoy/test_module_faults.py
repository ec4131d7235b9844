"""Envoy's module with failing calls (tests/faults/within.c): its own to libc and to Envoy's ABI, when Envoy starts and while requests of every kind run; and what it keeps.

At the start: Envoy serves, or it ends with a sentence. At a request: the answer is whole, or an error, or the connection breaks; Envoy lives, the next request is
answered, nothing stays booked, and no server is blamed. What the module has allocated is the same after hundreds of requests as before them, failures or not: AddressSanitizer's
look for leaks does not work within Envoy. PDROUTE_LONG=1 (tests/run --long): all kinds of requests, and each call at the start, instead of some.
"""

import errno
import json
import os
import re
import subprocess
import sys

import httpx
import pytest
from block import Block
from hosts import envoy_module
from hosts.ext_proc import binary
from hosts.host import TOP, endpoints_of, free_ports
from sglang_sim.harness import wait_for
from test_module import TAIL, Hinted
from traffic import PATHS, body, dumps, events_of, text_of

sys.path.insert(0, str(TOP / "tests/faults"))
import within  # noqa: E402

LONG = bool(os.environ.get("PDROUTE_LONG"))
ERRORS = (500, 502, 503, 504)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    given = os.environ.get("PDROUTE_ENVOY_MODULE") or subprocess.run([envoy_module.HERE / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
    return within.build(tmp_path_factory.mktemp("module"), given)


class Faulty(Hinted):
    """Envoy with a module whose calls can be made to fail."""

    def __init__(self, directory, fleet, module, at=0, started=False, **config):
        directory.mkdir(exist_ok=True)
        self.module, self.first, self.report, self.arm, self.started = module, at, directory / "report", directory / "arm", started
        super().__init__(directory, endpoints_of(fleet), workers=1, config={"breaker_failures": 1, "breaker_open_ms": 30_000, "index_entries": 1024, "max_bookings": 256,
                                                                            "first_byte_timeout_ms": 15_000, "idle_timeout_ms": 15_000, "retry_max": 0, **config})

    def environment(self):
        return {**super().environment(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(self.module.parent), "PDR_FAIL_AT": str(self.first), "PDR_FAIL_ERRNO": str(errno.ENOMEM),
                "PDR_FAIL_REPORT": str(self.report), "PDR_FAIL_ARM": str(self.arm), **({"PDR_FAIL_STARTED": "1"} if self.started else {})}

    def at(self, number):
        """The numbered call from now on fails; 0: none."""
        new = self.arm.with_suffix(".new")
        new.write_text(str(number))
        new.rename(self.arm)

    def told(self, what):
        return re.findall(rf"^{what} (.+)", self.report.read_text() if self.report.exists() else "", re.M)

    def hit(self):
        found = self.told("hit")
        self.report.unlink(missing_ok=True)
        return found[0] if found else None

    def kept(self):
        """Blocks and mappings that the module has at present."""
        before = len(self.told("kept"))
        self.at(-1)
        assert wait_for(lambda: len(self.told("kept")) > before, timeout=20), "the module makes no calls"
        return tuple(map(int, self.told("kept")[-1].split()))

    def stats(self):
        with Block(self.block) as block:
            return block.stats()

    def opened(self):
        return int(re.search(r"breakers_opened_total (\d+)", httpx.get(self.url + "/pdroute?format=prometheus", timeout=20).text)[1])


LOGPROBS = {"text": text_of(3_000, 3), "return_logprob": True, "logprob_start_len": 0, "sampling_params": {"max_new_tokens": 5, "temperature": 0}}
# method, path, body, headers
KINDS = {
    "whole": ("POST", PATHS["chat"], body("chat", text=text_of(9_000)), {}),
    "stream": ("POST", PATHS["chat"], body("chat", text=text_of(9_000), stream=True), {}),
    "pieces": ("POST", PATHS["chat"], body("chat", text=text_of(100_000)), {}),
    "logprobs": ("POST", "/generate", LOGPROBS, {}),
    "logprobs in a stream": ("POST", "/generate", {**LOGPROBS, "stream": True}, {}),
    "subset": ("POST", PATHS["chat"], body("chat"), {"x-subset": None}),  # all decode servers
    "path": ("POST", "/v1/chat/./%63ompletions?a=b", body("chat"), {}),
    "status": ("GET", "/pdroute?format=prometheus", None, {}),
    "another path": ("GET", "/v1/models", None, {}),
}


def asked(url, kind, fleet, timeout=30):
    """"whole", a status, or "broken"; what is wrong with it, or None."""
    method, path, sent, headers = KINDS[kind]
    sent = sent and dumps(sent)
    headers = {**{k: v or ",".join(w.name for w in fleet.decodes) for k, v in headers.items()}, "Content-Type": "application/json"}
    try:
        answer = httpx.request(method, url + path, content=iter([sent[i:i + 20_000] for i in range(0, len(sent), 20_000)]) if kind == "pieces" else sent, headers=headers,
                               timeout=timeout)
    except httpx.TimeoutException:
        return "nothing", "no answer in time"
    except httpx.HTTPError:
        return "broken", None
    try:
        return judged(answer, kind, sent and json.loads(sent), path, fleet)
    except (ValueError, KeyError, AttributeError) as error:
        return answer.status_code, f"{error!r}: {answer.text[:200]!r}"


def judged(answer, kind, sent, path, fleet):
    text = answer.text
    if answer.status_code != 200:
        wrong = answer.status_code not in ERRORS or not isinstance(answer.json().get("error"), dict)
        return answer.status_code, f"{answer.status_code} {text[:200]}" if wrong else None
    if "stream" in kind:
        events = events_of(text)
        if events[-1:] != ["[DONE]"]:
            return "broken", None if '"error"' in str(events[-1:]) else f"a stream ends with {events[-1:]}"
        parsed = [json.loads(e) for e in events[:-1]]
        complete = any(e["meta_info"].get("input_token_logprobs") for e in parsed) if "logprobs" in kind else len(parsed) >= 4
    elif kind == "status":
        complete = "pdroute_routed_total" in text
    else:
        parsed = json.loads(text)
        complete = parsed["meta_info"]["input_token_logprobs"] if kind == "logprobs" else parsed.get("data") if kind == "another path" else parsed["usage"]["prompt_tokens"] > 5
    if sent and kind != "path":
        got = sorted((r for w in fleet.workers for r in w.requests(path)), key=lambda r: r.start)[-2:]
        if any(json.loads(TAIL.sub(b"", r.body)) != sent for r in got):
            return 200, "a worker has not got all that the client sent"
    return "whole", None if complete else f"something is missing: {text[:300]}"


@pytest.mark.parametrize("kind", KINDS if LONG else ["logprobs in a stream", "subset", "path", "status"])
def test_request(kind, fleet, module, tmp_path):
    wrong, reached, missed = [], {}, 0
    with Faulty(tmp_path / "gw", fleet, module) as gw:
        pid = gw.worker_pids()
        for _ in range(3):
            assert asked(gw.url, kind, fleet) == ("whole", None), gw.errors()
        before = gw.kept()
        gw.hit()
        for at in range(1, 500):
            fleet.reset()
            gw.at(at)
            got, problem = asked(gw.url, kind, fleet)
            gw.at(0)
            if not wait_for(lambda: asked(gw.url, kind, fleet) == ("whole", None), timeout=10):
                wrong.append(f"call {at}: the next one fails as well: {asked(gw.url, kind, fleet)} {gw.errors()[-500:]}")
            hit = gw.hit()
            missed = 0 if hit else missed + 1
            if hit:
                reached[hit] = reached.get(hit, []) + [got]
            if problem:
                wrong.append(f"call {at} ({hit}): {got}, {problem}")
            if gw.worker_pids() != pid:
                wrong.append(f"call {at} ({hit}): Envoy died: {gw.errors()[-800:]}")
                break
            if not wait_for(lambda: gw.stats()["bookings"] == 0, timeout=10):
                wrong.append(f"call {at} ({hit}): still booked")
            if missed == 4 or len(wrong) > 8:
                break
        print(kind, reached)
        if not wrong:
            assert gw.opened() == 0, "a server was blamed"
            assert wait_for(lambda: gw.kept()[0] <= before[0] and gw.kept()[1] <= before[1], timeout=10), f"{before} before, {gw.kept()} now"
        with Block(gw.block) as block:
            block.check()
    assert not wrong, f"{reached}:\n" + "\n".join(wrong)
    assert "calloc" in reached and "envoy_dynamic_module_callback_http_get_headers" in reached, reached


def test_ticks(fleet, module, tmp_path):
    """Calls of the thread that looks at deadlines: what was to end in time does."""
    reached = set()
    with Faulty(tmp_path / "gw", fleet, module, started=True, first_byte_timeout_ms=300, first_byte_least_ms=300, breaker_failures=1000) as gw:
        pid = gw.worker_pids()
        at = 0
        while not {"poll", "pthread_mutex_trylock"} <= reached:
            at += 1
            assert at < 40, reached
            fleet.reset()
            fleet.decodes[0].fault(kind="hang")
            fleet.decodes[1].fault(kind="hang")
            gw.at(at)
            answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=30)
            assert answer.status_code == 504, f"call {at}: {answer.status_code} {answer.text}"
            gw.at(0)
            reached.add(gw.hit())
            assert gw.worker_pids() == pid, gw.errors()
            assert wait_for(lambda: gw.stats()["bookings"] == 0, timeout=10), f"call {at}"


def test_nothing_is_kept(fleet, module, tmp_path):
    """Requests of every kind, clients that leave, servers that fail: what the module has allocated and mapped is what it was."""
    with Faulty(tmp_path / "gw", fleet, module) as gw:
        def some(n):
            for i in range(n):
                for kind in KINDS:
                    if kind != "pieces" or i % 5 == 0:
                        assert asked(gw.url, kind, fleet) == ("whole", None)
                fleet.decodes[i % 2].fault(kind="stall", events=2, count=1)
                try:
                    with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", stream=True), timeout=20) as answer:
                        next(answer.iter_bytes())
                finally:
                    fleet.reset()
                assert httpx.post(gw.url + PATHS["chat"], content=b"{", headers={"Content-Type": "application/json"}, timeout=20).status_code == 400

        some(2)
        assert wait_for(lambda: gw.stats()["bookings"] == 0, timeout=10)
        before = gw.kept()
        some(30 if LONG else 8)
        assert wait_for(lambda: gw.kept() == before, timeout=10), f"{before} before, {gw.kept()} now"
        assert before[0] > 3, "it counts"


def test_start(fleet, module, tmp_path):
    started, refused, wrong, missed, at = 0, 0, [], 0, 0
    while missed < 2 and at < 1000 and len(wrong) < 6:
        at += 1 if LONG or at < 8 else 9
        gw = Faulty(tmp_path / str(at), fleet, module, at=at)
        try:
            gw.start()
        except RuntimeError:
            refused += 1
            said = gw.errors()
            if not re.search(r"\[(emerg|alert|crit|error)\] .{12,}", said) or re.search(r"Caught|Segmentation|Abort", said):
                wrong.append(f"call {at} ({gw.told('hit')}): {said[-400:]!r}")
            missed = 0
            continue
        try:
            missed = 0 if gw.told("hit") else missed + 1
            started += 1
            if not wait_for(lambda: asked(gw.url, "whole", fleet) == ("whole", None), timeout=10):
                wrong.append(f"call {at} ({gw.told('hit')}): it serves nothing: {gw.errors()[-400:]!r}")
        finally:
            gw.stop()
    print(at, started, refused)
    assert not wrong, "\n".join(wrong)
    assert started and refused > 3, (started, refused)
