"""pdroutectl probe against simulated SGLang workers that die, hang and come back."""

import json
import re
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import CTL, SMALL, asleep
from router import Router
from sglang_sim import harness
from yardstick import late


def put(ctl, fleet):
    for w in fleet.workers:
        bootstrap = f"@{w.bootstrap_port}" if w.bootstrap_port else ""
        ctl("put", f"{w.url}{bootstrap}", "--role", w.role, "--name", w.name)


def endpoint(ctl, name):
    return next(e for e in json.loads(ctl("list", "--json")) if e["name"] == name)


def wait_for(condition, seconds):
    """Seconds until then, but for what this machine was late: a worker, the probe and who looks must run. A look takes its own time: what counts is when the last vain one began."""
    began = last = looked = time.monotonic()
    while not condition():
        last = looked
        assert last - began - 3 * late(began) < seconds, f"not within {seconds} s"
        time.sleep(0.02)
        looked = time.monotonic()
    return last - began - 3 * late(began)


class Probe:
    """The daemon, its lines collected."""

    def __init__(self, ctl, *args):
        self.process = ctl.start("probe", "-i", "0.2", "--health-interval", "0.3", *args)
        self.lines = []
        self.thread = threading.Thread(target=lambda: self.lines.extend(self.take()), daemon=True)
        self.thread.start()

    def take(self):
        for line in self.process.stdout:
            self.lines.append(line.decode())
        return []

    def said(self, pattern):
        return [x for x in self.lines if re.search(pattern, x)]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(5)
        self.thread.join(2)
        return code


@pytest.fixture
def fleet():
    with harness.start(prefill=2, decode=1, speed=0) as running:
        yield running


@pytest.fixture
def probed(ctl, fleet):
    put(ctl, fleet)
    probe = Probe(ctl)
    yield probe
    if probe.process.poll() is None:
        probe.process.kill()
        probe.process.wait()


def test_once(ctl, fleet):
    put(ctl, fleet)
    out = ctl("probe", "--once")
    assert out.endswith("3 up, 0 down, 0 not known\n") and out.count(" up: answers") == 3
    for e in json.loads(ctl("list", "--json")):
        assert e["state"] == "ready" and e["targets"][0]["report_age_ms"] is not None and e["targets"][0]["kv_capacity"] > 0
    info = {w.name: w.bootstrap_port for w in fleet.prefills}
    for name, port in info.items():
        assert endpoint(ctl, name)["bootstrap_port"] == port
    paths = [r.path.split("?")[0] for r in fleet.prefills[0].requests()]
    assert sorted(set(paths)) == ["/health", "/server_info", "/v1/loads"]
    assert ctl("probe", "--once", "--quiet") == "3 up, 0 down, 0 not known\n"


def test_a_role_put_wrong_is_said(ctl, fleet, probed):
    """While the server is up, too: the probe says so at once, list from then on, until it is put right."""
    victim = fleet.decodes[0]
    wait_for(lambda: probed.said(f"{victim.name}  up"), 5)
    ctl("put", victim.url, "--role", "prefill", "--name", victim.name)
    wait_for(lambda: probed.said(f"{victim.name}  note: .* registered for role prefill but says it has role decode"), 5)
    assert "prefill, says decode" in ctl("list") and endpoint(ctl, victim.name)["told_role"] == "decode"
    ctl("put", victim.url, "--role", "decode", "--name", victim.name)
    assert "says" not in ctl("list")


def test_once_with_everything_down(ctl):
    ctl("put", "http://127.0.0.1:1", "--role", "prefill", "--name", "p")
    ctl("put", "http://127.0.0.1:2", "--role", "decode", "--name", "d")
    said = ctl("probe", "--once", code=1)
    assert "no usable prefill/decode pair" in said and "0 up, 2 down" in said and "DOWN: Connection refused" in said
    assert endpoint(ctl, "p")["state"] == "down"


def test_metrics_only(ctl, fleet):
    put(ctl, fleet)
    ctl("probe", "--once", "--metrics-only")
    paths = {r.path.split("?")[0] for r in fleet.decodes[0].requests()}
    assert "/metrics" in paths and "/v1/loads" not in paths
    assert endpoint(ctl, fleet.decodes[0].name)["targets"][0]["report_age_ms"] is not None


def test_a_worker_that_dies_is_out_and_is_back_within_a_second(ctl, fleet, probed):
    victim = fleet.prefills[0]
    wait_for(lambda: probed.said(f"{victim.name}  up"), 5)
    victim.fault(kind="refuse")
    assert wait_for(lambda: endpoint(ctl, victim.name)["state"] == "down", 5) < 2
    assert ctl("check", "--ready")  # the other one is there
    time.sleep(2)
    victim.heal("refuse")
    assert wait_for(lambda: endpoint(ctl, victim.name)["state"] == "ready", 5) <= 1.1
    wait_for(lambda: len(probed.said(f"{victim.name}  up")) == 2, 2)
    assert len(probed.said("DOWN")) == 1


def test_a_worker_that_answers_503_is_out(ctl, fleet, probed):
    victim = fleet.decodes[0]
    wait_for(lambda: probed.said(f"{victim.name}  up"), 5)
    victim.fault(kind="status", status=503, path="/health")
    wait_for(lambda: probed.said("DOWN: answered 503 to /health"), 5)
    assert "no usable" in ctl("check", "--ready", code=1)
    victim.heal("status")
    wait_for(lambda: endpoint(ctl, victim.name)["state"] == "ready", 2)


def test_endpoints_may_come_and_go(ctl, fleet, probed):
    wait_for(lambda: len(probed.said("  up: ")) == 3, 5)
    with harness.start(prefill=0, decode=1, speed=0) as more:
        put(ctl, more)
        wait_for(lambda: probed.said(f"{more.decodes[0].name}  up"), 2)
        ctl("remove", more.decodes[0].name)
        asked = []

        def asked_no_more():
            asked.append(len(more.decodes[0].requests()))
            time.sleep(1)
            return len(more.decodes[0].requests()) == asked[-1]
        wait_for(asked_no_more, 1.2)
    assert not probed.said("DOWN")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_quickly(ctl, fleet, probed, number):
    wait_for(lambda: probed.said("  up: "), 5)
    began = time.monotonic()
    assert probed.stop(number) == 0
    assert time.monotonic() - began - 2 * late(began) < 1


def test_one_probe_per_block(ctl, fleet, probed):
    wait_for(lambda: probed.said("  up: "), 5)
    assert "another probe" in ctl("probe", code=1)
    probed.process.kill()
    probed.process.wait()
    ctl("probe", "--once")  # a killed one leaves nothing behind


def test_it_moves_to_a_replaced_block(ctl, fleet, probed):
    wait_for(lambda: len(probed.said("  up: ")) == 3, 5)
    ctl("create", "--force", "-c", ctl.file("other.json", SMALL.replace('"max_held": 16', '"max_held": 8')))
    put(ctl, fleet)
    wait_for(lambda: endpoint(ctl, fleet.decodes[0].name)["targets"][0]["report_age_ms"] is not None, 5)
    assert probed.process.poll() is None


def test_it_gives_back_what_dead_processes_had_booked(ctl, fleet, probed):
    wait_for(lambda: len(probed.said("  up: ")) == 3, 5)
    script = ("import sys; sys.path[:0] = sys.argv[2:4]\nfrom router import *\n"
              "import ctypes as c\n"
              "class L(c.Structure): _fields_ = [('struct_size', c.c_uint32), ('id', c.c_uint32), ('w', c.c_int32), ('l', c.c_int32), ('r', c.c_uint64), ('n', c.c_char * 64)]\n"
              "r = Router(sys.argv[1]); l = L(struct_size=c.sizeof(L))\n"
              "assert r.host.pdr_host_lease_open(r.handle, b'victim', c.c_uint64(r.now()), c.byref(l), None) == 0\n"
              "code, d = r.route(b'{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}', l.id); assert code == 0\n"
              "print('booked', flush=True); import time; time.sleep(60)\n")
    here = str(Path(__file__).parent)
    victim = subprocess.Popen(["/usr/bin/python3", "-c", script, str(ctl.block), here, here + "/../../examples"], stdout=subprocess.PIPE)
    assert victim.stdout.readline() == b"booked\n"
    assert json.loads(ctl("stats", "--json"))["bookings"] == 1
    time.sleep(1)  # the probe has seen it
    victim.kill()
    victim.wait()
    assert wait_for(lambda: json.loads(ctl("stats", "--json"))["bookings"] == 0, 5) < 2  # not lease_ttl_ms, which is 10 s


class Keyed(BaseHTTPRequestHandler):
    """A server with an API key that knows /metrics only."""

    protocol_version = "HTTP/1.1"
    seen = []

    def do_GET(self):
        self.seen.append((self.path, self.headers.get("Authorization")))
        known = self.path in ("/health", "/metrics")
        allowed = self.headers.get("Authorization") == "Bearer sesame"
        body = b"vllm:num_requests_running 7\nvllm:num_requests_waiting 1\n" if self.path == "/metrics" else b""
        self.send_response(404 if not known else 200 if allowed else 401)
        self.send_header("Content-Length", str(len(body) if allowed and known else 0))
        self.end_headers()
        if allowed and known:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def keyed():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Keyed)
    Keyed.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_token_and_another_engine(ctl, keyed):
    ctl("put", f"http://127.0.0.1:{keyed.server_port}", "--role", "both", "--name", "v")
    ctl("probe", "--once", "--token-file", ctl.file("token", "sesame\n"))
    assert {a for _, a in Keyed.seen} == {"Bearer sesame"}
    assert endpoint(ctl, "v")["targets"][0]["reported_running"] == 7
    assert "API key" in ctl("probe", "--once")  # said, and up all the same
    assert "no spaces" in ctl("probe", "--token-file", ctl.file("bad", "a b"), code=1)
    assert "empty" in ctl("probe", "--token-file", ctl.file("none", "\n"), code=1)


def test_a_thousand_endpoints(bare, tmp_path):
    """1,024 servers on one address each, answered by one small server: all known within seconds, at a few milliseconds of CPU per round."""
    big = '{"max_endpoints": 1024, "max_targets": 1024, "max_bookings": 256, "max_held": 16, "index_entries": 4096, "seed": 7}'
    bare("create", "-c", bare.file("big.json", big))
    server = subprocess.Popen(["/usr/bin/python3", "-c", THOUSAND], stdout=subprocess.PIPE)
    try:
        port = int(server.stdout.readline())
        own = {"endpoints": [{"name": f"e{i}", "role": "prefill" if i % 2 else "decode", "host": f"127.1.{i // 250}.{i % 250 + 1}", "port": port} for i in range(1024)]}
        assert "1024 added" in bare("apply", "-f", bare.file("all.json", json.dumps(own)))
        out = bare("probe", "--once", "-q")
        assert out == "1024 up, 0 down, 0 not known\n"
        assert all(e["targets"][0]["reported_running"] == 3 for e in json.loads(bare("list", "--json")))
    finally:
        server.kill()
        server.wait()


THOUSAND = r'''
import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
LOADS = b'{"loads":[{"dp_rank":0,"num_running_reqs":3,"num_waiting_reqs":0,"num_used_tokens":10,"max_total_num_tokens":65536}]}'
class P(asyncio.Protocol):
    def connection_made(self, t): self.t = t
    def data_received(self, d):
        path = d.split(b" ", 2)[1]
        body = LOADS if path == b"/v1/loads" else b""
        self.t.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (404 if path == b"/server_info" else 200, len(body)) + body)
async def main():
    s = await asyncio.get_running_loop().create_server(P, "0.0.0.0", 0, backlog=2048)
    print(s.sockets[0].getsockname()[1], flush=True)
    await s.serve_forever()
asyncio.run(main())
'''


def test_a_truncated_block_is_said_and_the_probe_ends(ctl):
    """Not a bus error: a sentence, and an exit that a supervisor restarts."""
    process = ctl.start("probe", "-i", "0.1")
    wait_for(lambda: str(ctl.block) in Path(f"/proc/{process.pid}/maps").read_text() and asleep(process), 5)
    assert process.poll() is None
    ctl.block.open("r+").truncate(4096)
    assert process.wait(5) == 1
    assert b"truncated" in process.stderr.read()
