"""A real Envoy: what was seen of it, kept true."""

import json
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from hosts import envoy_module
from hosts.ext_proc import Gateway
from hosts.host import endpoints_of
from sglang_sim.harness import wait_for
from test_answers import PLAIN, Server
from traffic import PATHS, all_received, answer_text, body, both_legs, dumps, error_of, events_of, text_of

TOP = Path(__file__).resolve().parents[2]
TAIL = re.compile(rb',"bootstrap_host":"[^"]*","bootstrap_port":\d+,"bootstrap_room":\d+')
DISPATCH = {"send": (), "both": ("--dispatch", "both")}


def post(gw, timeout=30, **more):
    return httpx.post(gw.url + PATHS["chat"], json=body("chat", **more), timeout=timeout)


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_thousands_of_resets(dispatch, fleet, start_gateway):
    """Envoy ends every conversation with RST_STREAM: nghttp2's limit (1,000, then 33 a second) would end the connection."""
    gw = start_gateway(fleet, flags=DISPATCH[dispatch])

    def run(n):
        with httpx.Client(base_url=gw.url, timeout=30) as client:
            return [client.get("/liveness").status_code for _ in range(400)] + [client.post(PATHS["chat"], json=body("chat", text=f"{n}")).status_code]

    with ThreadPoolExecutor(6) as pool:
        statuses = [s for each in pool.map(run, range(6)) for s in each]
    assert len(statuses) == 2406 and set(statuses) == {200}


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_request_trailers(dispatch, fleet, start_gateway):
    """No end of the body is said then."""
    gw = start_gateway(fleet, flags=DISPATCH[dispatch])
    sent = dumps(body("chat", text=text_of(100_000)))
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n".encode())
        for i in range(0, len(sent), 30_000):
            s.sendall(b"%x\r\n%s\r\n" % (len(sent[i:i + 30_000]), sent[i:i + 30_000]))
        s.sendall(b"0\r\nX-Sum: 1\r\n\r\n")
        answer = b""
        while piece := s.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert all(TAIL.sub(b"", leg.body) == sent for leg in both_legs(fleet, PATHS["chat"]))


@pytest.mark.parametrize("dispatch", DISPATCH)
@pytest.mark.parametrize("size", [1_000_000, 10_000_000])
def test_long_bodies(size, dispatch, fleet, start_gateway):
    sent = dumps(body("chat", text=text_of(size)))
    servers = [Server(PLAIN), Server(PLAIN)] if size > 5_000_000 else []  # the simulator takes its time for so much
    endpoints = [{"role": role, "host": "127.0.0.1", "port": s.port, **more} for s, role, more in zip(servers, ("prefill", "decode"), ({"bootstrap_port": 8998}, {}))]
    gw = start_gateway(endpoints or fleet, flags=DISPATCH[dispatch])
    assert httpx.post(gw.url + PATHS["chat"], content=sent, headers={"Content-Type": "application/json"}, timeout=60).status_code == 200
    assert wait_for(lambda: all(s.requests for s in servers), timeout=20)  # decode may answer before prefill has all
    legs = [s.requests[0][1] for s in servers] or [leg.body for leg in both_legs(fleet, PATHS["chat"])]
    assert [TAIL.sub(b"", leg) == sent for leg in legs] == [True, True]
    for each in servers:
        each.close()


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_long_answer(dispatch, start_gateway):
    """Ten megabytes, to a client that takes them slowly."""
    said = dumps({"text": "y" * 10_000_000})

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        gw = start_gateway([{"role": "both", "host": "127.0.0.1", "port": server.server_port}], flags=DISPATCH[dispatch])
        got = []
        with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat"), timeout=30) as answer:
            for i, piece in enumerate(answer.iter_raw()):
                got.append(piece)
                if i < 10:
                    time.sleep(0.05)
        assert b"".join(got) == said
    finally:
        server.shutdown()


def test_answer_without_its_body(fleet, start_gateway):
    """response_body_mode NONE: answers pass unseen; bookings end with them, and a client that leaves is still noticed."""
    gw = start_gateway(fleet, body_mode="NONE")
    assert answer_text("chat", post(gw).json()) and events_of(post(gw, stream=True).text)[-1] == "[DONE]"
    assert wait_for(lambda: gw.status()["bookings"] == 0, timeout=5), gw.status()
    for worker in fleet.decodes:
        worker.fault(kind="stall", events=3)
    with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", stream=True), timeout=10) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert gw.status()["bookings"] == 1
    assert wait_for(lambda: gw.status()["bookings"] == 0, timeout=3), gw.status()
    assert wait_for(lambda: all(r.end or r.disconnected for r in all_received(fleet, PATHS["chat"])), timeout=3)


def test_prefill_fails_late(start_fleet, start_gateway):
    """An immediate answer reaches the client, and ends decode, long after the request went out."""
    fleet = start_fleet(prefill=1, decode=1, speed=0)
    fleet.prefills[0].fault(kind="status", status=500, delay=0.4)
    fleet.decodes[0].fault(kind="hang")
    answer = post(start_gateway(fleet), stream=True)
    assert answer.status_code == 502 and error_of(answer)["code"] == "prefill_failed"
    assert wait_for(lambda: fleet.decodes[0].requests()[0].disconnected, timeout=2)
    assert fleet.decodes[0].requests()[0].disconnected - fleet.prefills[0].requests()[0].end < 0.3


def test_health_is_what_envoy_thinks(fleet, start_gateway):
    """Envoy's own gRPC health check."""
    gw = start_gateway(fleet)
    seen = lambda: httpx.get(f"http://127.0.0.1:{gw.admin_port}/clusters").text  # noqa: E731
    assert wait_for(lambda: re.search(r"^pdroute::.*::health_flags::healthy$", seen(), re.M), timeout=10), seen()
    assert httpx.get(f"http://127.0.0.1:{gw.admin_port}/stats?filter=cluster.pdroute.health_check.success").text.split()[-1] != "0"


def test_picker_is_killed(fleet, start_gateway):
    """Requests that it knew of end with an error in an engine's shape; none hangs."""
    gw = start_gateway(fleet)
    for worker in fleet.workers:
        worker.fault(kind="hang")
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(post, gw, stream=i % 2 == 0) for i in range(4)]
        assert wait_for(lambda: gw.status()["bookings"] == 4, timeout=5)
        pid = next(p for p in gw.all_pids() if "pdroute-extproc" in Path(f"/proc/{p}/cmdline").read_text())
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        for each in waiting:
            try:
                answer = each.result(10)
            except httpx.RemoteProtocolError:
                continue  # serve ends Envoy as well: whatever was not answered by then
            assert answer.status_code >= 500 and error_of(answer)["code"] == "gateway_failed", answer.text
        assert time.monotonic() - began < 3
    gw.process.wait(10)
    gw.process = None


def test_configuration_is_read_again(start_fleet, start_picker):
    fleet = start_fleet(prefill=2, decode=1, speed=0)
    picker = start_picker(fleet)
    endpoints = picker.config["endpoints"]
    picker.config["endpoints"] = [*endpoints, {"role": "decode", "host": "127.0.0.9", "port": 9}]
    picker.write()
    picker.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: picker.stats()["endpoints"] == 4, timeout=5), picker.log()
    picker.write('{\n "polcy": 1}')
    picker.process.send_signal(signal.SIGHUP)
    assert wait_for(lambda: "pdroute.json:2: " in picker.log(), timeout=5) and picker.stats()["endpoints"] == 4


class Mirror(Gateway):
    """The configuration with what docs/envoy.md says of mirror."""

    def envoy_config(self):
        config = super().envoy_config()
        text, = re.findall(r"```yaml\n(.*?)```", (TOP / "docs/envoy.md").read_text(), re.S)
        more = yaml.safe_load(text)
        config["static_resources"]["clusters"] += more["clusters"]
        for listener in config["static_resources"]["listeners"]:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"].update(more["route"])
        return config


def test_mirror(fleet, tmp_path):
    gw = Mirror(tmp_path / "gw", [], flags=("--dispatch", "mirror"), config={"first_byte_timeout_ms": 2000})
    from hosts.host import endpoints_of
    gw.config["endpoints"] = endpoints_of(fleet)
    gw.start()
    try:
        for i in range(4):
            assert answer_text("chat", post(gw, text=f"{i}").json())
        assert events_of(post(gw, stream=True).text)[-1] == "[DONE]"
        prefill, decode = both_legs(fleet, PATHS["chat"])
        assert prefill.json["bootstrap_room"] == decode.json["bootstrap_room"]
        assert len(all_received(fleet, PATHS["chat"])) == 10
        assert wait_for(lambda: gw.status()["bookings"] == 0, timeout=5), gw.status()
        # its limit: prefill fails and nobody sees; decode's failure, or time, ends the request
        for worker in fleet.prefills:
            worker.fault(kind="status", status=500)
        began = time.monotonic()
        assert post(gw).status_code >= 500
        assert 1.5 < time.monotonic() - began < 8  # three silences of two seconds: the third attempt is one's prefill with the other's decode
    finally:
        gw.stop()


def impatient(host):
    """With the bound that the example's envoy.yaml sets for a request's head, but shorter."""
    class Impatient(host):
        def envoy_config(self):
            config = super().envoy_config()
            for listener in config["static_resources"]["listeners"]:
                manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
                assert manager["request_headers_timeout"] == "60s"
                manager["request_headers_timeout"] = "2s"
            return config
    return Impatient


@pytest.mark.parametrize("host", [Gateway, envoy_module.Gateway], ids=lambda host: host.name)
def test_a_head_that_drips(host, fleet, tmp_path):
    """A head has a bound of Envoy's, a body and an answer do not feel it."""
    with impatient(host)(tmp_path / "gateway", endpoints_of(fleet)) as gw:
        with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
            s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nX-Long: ".encode())
            s.settimeout(0.2)
            began, got = time.monotonic(), None
            while got is None and time.monotonic() - began < 30:
                try:
                    s.sendall(b"x")
                    got = s.recv(4096)
                except TimeoutError:
                    pass
                except OSError:
                    got = b""
            assert got is not None, "it waits for ever"
            assert got.startswith(b"HTTP/1.1 408 ") and time.monotonic() - began > 1.5, got
        assert not all_received(fleet)
        sent = dumps(body("chat"))
        with socket.create_connection(("127.0.0.1", gw.port), 30) as s:
            s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent[:1])
            time.sleep(3)
            s.sendall(sent[1:])
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert not gw.alerts(), gw.errors()


REFUSED = {"length": (b"Content-Length: x\r\n", 400), "two lengths": (b"Content-Length: 3\r\nContent-Length: 4\r\n", 400), "no host": (None, 400),
           "70 KB": (b"X-Long: " + b"x" * 70_000 + b"\r\n", 431), "200 headers": (b"".join(b"X-%d: x\r\n" % i for i in range(200)), 431)}


@pytest.mark.parametrize("host", [Gateway, envoy_module.Gateway], ids=lambda host: host.name)
def test_heads_that_envoy_refuses(host, fleet, tmp_path):
    """Nobody else sees them. With ext_proc, which is asked about Envoy's own answer as well, the connection may be closed before that has come back."""
    with host(tmp_path / "gateway", endpoints_of(fleet)) as gw:
        for name, (lines, status) in REFUSED.items():
            with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
                s.sendall(f"POST {PATHS['chat']} HTTP/1.1\r\n".encode() + (b"" if lines is None else b"Host: x\r\n" + lines) + b"\r\n")
                answer = b""
                try:
                    while b"\r\n\r\n" not in answer and (piece := s.recv(65536)):
                        answer += piece
                except OSError:
                    pass
            assert answer.startswith(b"HTTP/1.1 %d " % status) or host is Gateway and not answer, (name, answer[:300])
        assert not all_received(fleet) and post(gw).status_code == 200
        assert not gw.alerts(), gw.errors()


def test_client_cannot_say_where(fleet, start_gateway):
    """Headers by which Envoy and others route are ours."""
    gw = start_gateway(fleet)
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), headers={"x-gateway-destination-endpoint": "127.0.0.1:1", "x-pdroute-prefill": "127.0.0.1:1",
                                                                            "x-prefiller-host-port": "127.0.0.1:1", "x-pdroute-content-length": "5"})
    assert answer.status_code == 200
    for leg in both_legs(fleet, PATHS["chat"]):
        assert '"127.0.0.1:1"' not in json.dumps(leg.headers) and leg.header("content-length") == str(len(leg.body))
