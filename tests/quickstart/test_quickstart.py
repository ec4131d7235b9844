"""examples/quickstart/run as a user runs it: what it says, how it fails, what it leaves behind."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
RUN = TOP / "examples/quickstart/run"
sys.path[:0] = [str(TOP / "examples"), str(TOP / "tests/gateway")]
from hosts.host import free_ports  # noqa: E402
from sglang_sim import harness  # noqa: E402


def free_port():
    return free_ports(1)[0]


@pytest.fixture(scope="module", autouse=True)
def simulated_addresses():
    """The pods' addresses (127.0.0.11:8000 and so on) are the same for everybody: one run of these tests at a time."""
    with open(Path(tempfile.gettempdir()) / "pdroute-quickstart.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Quickstart:
    """A run with a TMPDIR of its own, whose processes can be found by a mark in their environment."""

    def __init__(self, tmp, *args):
        self.tmp, self.mark = tmp, f"quickstart-{uuid.uuid4()}"
        self.out = (tmp.parent / f"{tmp.name}.out").open("w+")
        env = {**os.environ, "TMPDIR": str(tmp), "PDROUTE_TEST_MARK": self.mark}
        self.process = subprocess.Popen([RUN, *map(str, args)], stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env,
                                        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # ignored behind "&"

    @property
    def said(self):
        return Path(self.out.name).read_text()

    def wait_for(self, text, seconds=240):
        end = time.monotonic() + seconds
        while text not in self.said:
            assert self.process.poll() is None, f"ended with {self.process.returncode} before saying {text!r}:\n{self.said}"
            assert time.monotonic() < end, f"did not say {text!r}:\n{self.said}"
            time.sleep(0.02)

    def wait(self, seconds=300):
        return self.process.wait(seconds)

    def interrupt(self, how=signal.SIGINT):
        """As a terminal does it: to the foreground process group."""
        os.killpg(self.process.pid, how)

    def processes(self):
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (directory / "environ").read_bytes():
                    found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                pass
        return found

    def leftovers(self):
        files = [str(p) for p in self.tmp.rglob("*")] + [str(p) for p in Path("/dev/shm").glob(f"pdroute-quickstart.{self.process.pid}.*")]
        return self.processes() + files

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.out.close()


@pytest.fixture
def quickstart(tmp_path):
    runs = []

    def start(*args):
        tmp = tmp_path / str(len(runs))
        tmp.mkdir()
        runs.append(Quickstart(tmp, *args))
        return runs[-1]

    yield start
    for run in runs:
        run.stop()


def part(text, title):
    """The paragraphs below a title line, up to the next title."""
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(title))
    found = []
    for line in lines[at + 1:]:
        if line and not line.startswith((" ", "curl", "pdroutectl", "}")) and found and not found[-1]:
            break
        found.append(line)
    return "\n".join(found)


def test_whole_run(quickstart):
    run = quickstart("--port", free_port(), "--requests", 20)
    assert run.wait() == 0, run.said
    said = run.said
    assert run.leftovers() == []
    assert [line for line in said.splitlines() if len(line) > 120] == []

    # the guide's cluster, and an answer that names the workers which made it
    assert "5 documents: 3 added" in said
    answer = part(said, "The guide's request")
    workers = re.search(r"decode=(\S+) prefill=(\S+)", answer)
    assert workers[1] == "127.0.0.21:8000" and workers[2] in ("127.0.0.11:8000", "127.0.0.12:8000")
    assert "50 completion tokens" in answer

    # the decision: its room is what both workers received, and nobody else received anything
    decision = part(said, "How it was routed")
    prefill, room = re.search(r"prefill (\S+)\s+decode sglang-pd-decode-0\s+room (\d+)", decision).groups()
    assert 0 < int(room) < 2**63
    assert sorted(re.findall(r"^  (\*?) +(sglang-\S+)", decision, re.M)) == \
        sorted([("*", prefill), ("*", "sglang-pd-decode-0"), ("", "sglang-pd-prefill-" + ("1" if prefill.endswith("0") else "0"))])
    assert all(f"{term}:" in decision for term in ("cached", "wait", "work", "price", "transfer"))  # each column is explained
    address = {"sglang-pd-prefill-0": "127.0.0.11", "sglang-pd-prefill-1": "127.0.0.12"}[prefill]
    assert address + ":8000" == workers[2]
    received = part(said, "What each worker received").strip().splitlines()
    assert len(received) == 3
    fields = f"bootstrap_host {address}  bootstrap_port 34000  bootstrap_room {room}  -> 200"
    assert [line.split()[1] for line in received if line.endswith(fields)] == [address + ":8000", "127.0.0.21:8000"]
    assert sum(line.endswith("nothing") for line in received) == 1

    # turns 2 and 3 go where turn 1 went, and find their prefix there
    turns = re.findall(r"turn (\d)  (\S+) \+ (\S+) +(\d+) tokens, +(\d+)% cached \((\d+)% expected\)", said)
    assert [t[0] for t in turns] == ["1", "2", "3"]
    assert len({t[1] for t in turns}) == 1
    assert all(int(t[4]) > 90 and abs(int(t[4]) - int(t[5])) < 10 for t in turns[1:])

    load = part(said, "20 concurrent conversations")
    assert "60 answers, 0 errors" in load
    legs = {m[0]: int(m[1]) for m in re.findall(r"(sglang-\S+) +(\d+) requests", load)}
    assert legs["sglang-pd-decode-0"] == 60
    assert legs["sglang-pd-prefill-0"] + legs["sglang-pd-prefill-1"] == 60 and min(legs.values()) > 0
    assert "every invariant holds" in said


def test_keep_second_run_and_end(quickstart):
    port = free_port()
    run = quickstart("--port", port, "--requests", 0, "--keep")
    run.wait_for("Ctrl-C ends it")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/pdroute", timeout=5) as answer:
        status = json.load(answer)
    assert status["finished"] == 4 and status["failed"] == 0
    block = re.search(r"PDROUTE_BLOCK=(\S+)", run.said)[1]
    ctl = TOP / "build/quickstart/bin/pdroutectl"
    listed = subprocess.run([ctl, "--block", block, "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert listed.count("ready") == 3

    # the same port: refused; another port: the simulated addresses are taken
    second = quickstart("--port", port)
    assert second.wait(20) == 1
    assert second.said.strip() == f"quickstart: port {port} is in use: choose another with --port"
    third = quickstart("--port", free_port())
    assert third.wait(20) == 1
    assert "127.0.0.11:8000 is in use, and a simulated worker needs it" in third.said and len(third.said.splitlines()) == 1
    assert second.leftovers() == third.leftovers() == []

    run.interrupt()
    assert run.wait(30) == 130
    assert run.leftovers() == []
    assert "logs are in" not in run.said


@pytest.mark.parametrize("stage", ["building", "Endpoints", "A conversation", "10000 concurrent conversations"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["INT", "TERM"])
def test_interrupted(quickstart, stage, how):
    run = quickstart("--port", free_port(), "--requests", 10000)
    run.wait_for(stage)
    time.sleep(0.3 if stage[0] == "1" else 0.05)
    if how == signal.SIGINT:
        run.interrupt()
    else:
        run.process.send_signal(how)
    began = time.monotonic()
    assert run.wait(30) == 128 + how, run.said
    assert time.monotonic() - began < 20
    assert run.leftovers() == []
    assert "Traceback" not in run.said


def test_output_that_nobody_reads(quickstart, tmp_path):
    run = f"{RUN} --port {free_port()} --requests 0"
    mark = f"quickstart-{uuid.uuid4()}"
    env = {**os.environ, "TMPDIR": str(tmp_path), "PDROUTE_TEST_MARK": mark}
    subprocess.run(["bash", "-c", f"{run} | head -1"], env=env, timeout=240, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    probe = Quickstart.__new__(Quickstart)
    probe.mark = mark
    end = time.monotonic() + 60
    while probe.processes() and time.monotonic() < end:
        time.sleep(0.1)
    assert probe.processes() == [] and list(tmp_path.iterdir()) == []


def test_servers_started_by_hand(quickstart):
    with harness.start(prefill=2, decode=1, speed=0.1, model="my-model") as fleet:
        args = []
        for worker in fleet.prefills:
            args += ["--prefill", f"{worker.url}@{worker.bootstrap_port}"]
        run = quickstart("--port", free_port(), "--requests", 10, *args, "--decode", fleet.decodes[0].url)
        assert run.wait() == 0, run.said
        received = [len(w.requests("/v1/chat/completions")) for w in fleet.workers]
    assert '"model": "my-model"' in run.said  # asked for at the servers
    assert "30 answers, 0 errors" in run.said
    assert sum(received) == 2 * (1 + 3 + 30)
    assert run.leftovers() == []


def test_servers_that_are_not_there(quickstart):
    run = quickstart("--port", free_port(), "--prefill", f"http://127.0.0.1:{free_port()}@8998", "--decode", f"http://127.0.0.1:{free_port()}")
    assert run.wait() == 1
    assert "does not answer /v1/models" in run.said
    logs = Path(re.search(r"logs are in (\S+)", run.said)[1])
    assert (logs / "build.log").exists()
    assert run.processes() == []


@pytest.mark.parametrize("args,message", [
    (["--nonsense"], "unknown option --nonsense"),
    (["--port"], "--port needs a value"),
    (["--port", "http"], "--port takes a number from 1 to 65535, not 'http'"),
    (["--port", "65536"], "--port takes a number from 1 to 65535, not '65536'"),
    (["--port", "0"], "--port takes a number from 1 to 65535, not '0'"),
    (["--requests", "many"], "--requests takes a whole number, not 'many'"),
    (["--speed", "fast"], "--speed takes a number such as 0.1, not 'fast'"),
    (["--prefill", "http://127.0.0.1:1"], "--prefill needs --decode too"),
    (["--decode", "http://127.0.0.1:1"], "--decode needs --prefill too"),
    (["--decode", "127.0.0.1:1", "--prefill", "http://127.0.0.1:1"], "'127.0.0.1:1' is not a URL"),
    (["--real", "--prefill", "http://127.0.0.1:1", "--decode", "http://127.0.0.1:2"], "--real brings its own servers"),
])
def test_wrong_usage(quickstart, args, message):
    run = quickstart(*args)
    assert run.wait(20) == 2
    assert message in run.said and "Try 'examples/quickstart/run --help'." in run.said
    assert run.leftovers() == []


def test_help(quickstart):
    run = quickstart("--help")
    assert run.wait(20) == 0
    for option in ("--keep", "--port", "--requests", "--speed", "--prefill", "--decode", "--model", "--real"):
        assert option in run.said
