"""The gateway in front of a real SGLang prefill/decode pair on the CPU (examples/quickstart/real): what the simulator is believed to do, seen on the engine.

Skipped unless PDROUTE_REAL_DIR names the directory that `examples/quickstart/real/setup` filled. The pair is started and stopped here, and killed once; two to
four minutes. Engines on a CPU are slow, and look for lost clients every few seconds: bounds are the engine's, not the gateway's.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from conftest import block_stats
from hosts.host import TOP, free_ports
from sglang_sim.harness import wait_for
from table import OWN
from traffic import PATHS, body, error_of, events_of, text_of

DIR = os.environ.get("PDROUTE_REAL_DIR")
if not DIR:
    pytest.skip("PDROUTE_REAL_DIR is not set: no real SGLang pair (examples/quickstart/real/setup installs one)", allow_module_level=True)
PAIR = TOP / "examples/quickstart/real/pair"
PATIENCE = {"first_byte_timeout_ms": 5000, "first_byte_least_ms": 4000, "idle_timeout_ms": 5000, "idle_least_ms": 4000, "breaker_open_ms": 500}


class Real:
    """The pair; `signal(role, number)` goes to a server and all its processes."""

    def __init__(self):
        self.ports = dict(zip(("prefill", "decode", "bootstrap"), free_ports(3)))

    def start(self):
        subprocess.run([PAIR, "start", DIR], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()}})

    def stop(self):
        subprocess.run([PAIR, "stop", DIR], check=False)

    def signal(self, role, number):
        os.killpg(int((Path(DIR) / f"run/{role}.pid").read_text()), number)

    def url(self, role):
        return f"http://127.0.0.1:{self.ports[role]}"

    @property
    def endpoints(self):
        return [{"role": "prefill", "host": "127.0.0.1", "port": self.ports["prefill"], "bootstrap_port": self.ports["bootstrap"]},
                {"role": "decode", "host": "127.0.0.1", "port": self.ports["decode"]}]

    def busy(self, role):
        """Requests in the engine, in any of its queues."""
        text = httpx.get(self.url(role) + "/metrics", timeout=10).text
        names = r"^sglang:(num_running_reqs|num_queue_reqs|num_prefill_\w+_queue_reqs|num_decode_\w+_queue_reqs)(?:\{[^}]*\})? ([\d.e+]+)$"
        return sum(float(value) for _, value in re.findall(names, text, re.M))


@pytest.fixture(scope="module")
def real():
    pair = Real()
    pair.start()
    yield pair
    pair.stop()


def ask(url, api, timeout=60, **more):
    answer = httpx.post(url + PATHS[api], json=body(api, **more), timeout=timeout)
    assert answer.status_code == 200, answer.text
    return answer


def exactly(api, n):
    """So many tokens: random weights may end an answer at any."""
    return {"sampling_params": {"max_new_tokens": n, "ignore_eos": True}} if api == "generate" else {"max_tokens": n, "ignore_eos": True}


def tokens_of(api, answer):
    return answer["meta_info" if api == "generate" else "usage"]["completion_tokens"]


def works(url):
    try:
        return httpx.post(url + PATHS["chat"], json=body("chat"), timeout=20).status_code == 200
    except httpx.HTTPError:
        return False


def nothing_left(gw, real):
    assert wait_for(lambda: not any(block_stats(gw)[k] for k in ("bookings", "held_now", "rooms_live")), timeout=2), block_stats(gw)
    assert wait_for(lambda: not real.busy("prefill") and not real.busy("decode"), timeout=30, interval=0.5), (real.busy("prefill"), real.busy("decode"))


def test_requests_of_all_kinds(real, make_gateway):
    gw = make_gateway(real.endpoints)

    def one(i):
        api, stream = ("chat", "completions", "generate")[i % 3], i // 3 % 2 == 1
        answer = ask(gw.url, api, text=f"{i} " + text_of((60, 1_000, 8_000)[i % 3], i), stream=stream, **exactly(api, 4 + i % 5))
        if stream:
            return events_of(answer.text)[-1] == "[DONE]"
        return tokens_of(api, answer.json()) == 4 + i % 5  # their text may be nothing: the weights are random

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(60)))
    nothing_left(gw, real)


def test_a_second_turn_is_cached(real, make_gateway):
    gw = make_gateway(real.endpoints)
    said = [{"role": "user", "content": text_of(6_000, 77)}]
    first = httpx.post(gw.url + PATHS["chat"], json={"model": "tiny", "messages": said, "max_tokens": 8}, timeout=60).json()
    said += [{"role": "assistant", "content": first["choices"][0]["message"]["content"]}, {"role": "user", "content": "and then?"}]
    second = httpx.post(gw.url + PATHS["chat"], json={"model": "tiny", "messages": said, "max_tokens": 8}, timeout=60).json()["usage"]
    assert second["prompt_tokens_details"]["cached_tokens"] > 0.8 * second["prompt_tokens"]


@pytest.mark.parametrize("when", ["silent", "stream"])
def test_client_leaves(when, real, make_gateway):
    gw = make_gateway(real.endpoints)
    asked = body("generate", tokens=8000, stream=when == "stream")
    asked["sampling_params"]["ignore_eos"] = True  # the small model says it at random
    if when == "silent":
        with pytest.raises(httpx.ReadTimeout):
            answer = httpx.post(gw.url + PATHS["generate"], json=asked, timeout=0.25)
            pytest.fail(f"answered {answer.status_code} after {answer.elapsed}: {answer.text[:1000]} {gw.errors()[-2000:]}")
    else:
        with httpx.stream("POST", gw.url + PATHS["generate"], json=asked, timeout=30) as answer:
            lines = (line for line in answer.iter_lines() if line.startswith("data:"))
            for _ in range(3):
                next(lines)
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=0.5)
    nothing_left(gw, real)
    assert works(gw.url)


def test_the_engines_refusal_passes(real, make_gateway):
    gw = make_gateway(real.endpoints)
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat", temperature=-3), timeout=30)
    assert answer.status_code == 400 and "temperature" in answer.text and not OWN.search(answer.text)
    nothing_left(gw, real)
    assert works(gw.url)


@pytest.mark.needs("merge")
def test_prompt_logprobs_are_whole(real, make_gateway):
    gw = make_gateway(real.endpoints)
    asked = body("generate", text="the quick brown fox jumps", return_logprob=True, logprob_start_len=0)
    meta = httpx.post(gw.url + PATHS["generate"], json=asked, timeout=30).json()["meta_info"]
    assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"] and len(meta["output_token_logprobs"]) == 4
    assert all(isinstance(p[0], float) for p in meta["input_token_logprobs"][1:])


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_server_that_hangs(role, real, make_gateway):
    gw = make_gateway(real.endpoints, config=PATIENCE)
    assert works(gw.url)
    real.signal(role, signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = httpx.post(gw.url + PATHS["chat"], json=body("chat", text="hang " + role), timeout=60)
        assert answer.status_code in (503, 504) and time.monotonic() - began < 20, answer.text
        assert error_of(answer)["code"] in ("prefill_timeout", "decode_timeout", "no_pair") and not OWN.search(answer.text)
    finally:
        real.signal(role, signal.SIGCONT)
    assert wait_for(lambda: works(gw.url), timeout=30, interval=0.5), "not back"
    nothing_left(gw, real)


def test_order_of_service_when_all_is_busy(real, make_gateway):
    """One prefill server that stands still until ten are held: then the shortest goes first, whatever the order in which they came.

    Two are sent before: the router may count a server whose answers come late as free once (docs/scheduling.md), and that one would be out of order.
    Sizes lie so far apart that their works are not of the same step of an eighth of an octave.
    """
    gw = make_gateway(real.endpoints, config={"hold_window_tokens": 64})
    for size in (500, 1_000, 2_500):  # what prompts cost here
        ask(gw.url, "generate", text=text_of(size, size), tokens=1)
    sizes = [round(250 * 1.5**k) for k in (5, 0, 3, 9, 1, 7, 2, 6, 4, 8)]
    done, lock = [], threading.Lock()

    def one(i):
        ask(gw.url, "generate", text=f"{i} {text_of(sizes[i], 100 + i)}", tokens=1)
        with lock:
            done.append(sizes[i])

    with ThreadPoolExecutor(12) as pool:
        real.signal("prefill", signal.SIGSTOP)
        try:
            first = [pool.submit(ask, gw.url, "generate", text=text_of(8_000, 99), tokens=1)]
            assert wait_for(lambda: block_stats(gw)["bookings"] == 1, timeout=20)
            first.append(pool.submit(ask, gw.url, "generate", text=text_of(200, 98), tokens=1))
            assert wait_for(lambda: block_stats(gw)["bookings"] == 2, timeout=20)
            rest = [pool.submit(one, i) for i in range(10)]
            assert wait_for(lambda: block_stats(gw)["bookings"] == 12, timeout=20) and block_stats(gw)["held_now"] >= 10, block_stats(gw)
        finally:
            real.signal("prefill", signal.SIGCONT)
        for answer in first + rest:
            answer.result()
    assert done == sorted(sizes)
    nothing_left(gw, real)


def test_prefill_is_killed(real, make_gateway):
    gw = make_gateway(real.endpoints, config={"breaker_open_ms": 500})
    assert works(gw.url)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.post, gw.url + PATHS["generate"], json=body("generate", text=text_of(25_000, 5), tokens=4), timeout=60)
        assert wait_for(lambda: block_stats(gw)["bookings"] == 1, timeout=20)
        killed = time.monotonic()
        real.signal("prefill", signal.SIGKILL)
        answer = waiting.result()
    assert answer.status_code in (502, 503) and time.monotonic() - killed < 2, (answer.status_code, answer.text)
    assert error_of(answer)["code"] in ("prefill_failed", "no_pair") and not OWN.search(answer.text)
    began = time.monotonic()
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=30)
    assert answer.status_code in (502, 503) and time.monotonic() - began < 2
    assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=2)
    real.start()  # both anew
    assert wait_for(lambda: works(gw.url), timeout=5, interval=0.2), "not back"
    assert json.loads(ask(gw.url, "chat").text)["usage"]["completion_tokens"]
    nothing_left(gw, real)
