"""nginx and its workers: TLS, host names, control requests to all of them; and a block file that goes away."""

import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time

import httpx
import pytest
from conftest import block_stats
from hosts.host import endpoints_of
from listener import Listener
from sglang_sim.harness import wait_for
from test_processes import Load
from traffic import PATHS, all_received, answer_text, body, error_of, events_of, text_of

pytestmark = pytest.mark.only("nginx")


# ------------------------------------------------------------------------------------------------------------------- TLS

def pump(source, sink):
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
    except OSError:
        pass
    for s in (source, sink):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Front(Listener):
    """A port of 127.0.0.1 in front of a worker; with a certificate it speaks TLS."""

    def __init__(self, to, certificate=None):
        self.to, self.context = to, None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*certificate)
        super().__init__()

    def serve(self, s):
        try:
            client = self.context.wrap_socket(s, server_side=True) if self.context else s
        except (ssl.SSLError, OSError):
            s.close()
            return
        worker = socket.create_connection(self.to)
        threading.Thread(target=pump, args=(worker, client), daemon=True).start()
        pump(client, worker)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    d = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=workers",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", d / "key.pem", "-out", d / "cert.pem"], check=True, stderr=subprocess.DEVNULL)
    d.chmod(0o755)
    return d / "cert.pem", d / "key.pem"


def behind(fleet, certificate=None, host="127.0.0.1"):
    """Fronts, and endpoints that lead to them."""
    fronts, endpoints = [], endpoints_of(fleet)
    for e in endpoints:
        fronts.append(Front((e["host"], e["port"]), certificate))
        if "bootstrap_port" in e:
            e.setdefault("bootstrap_host", e["host"])
        e["host"], e["port"] = host, fronts[-1].port
        if certificate:
            e["tls"] = True
    return fronts, endpoints


@pytest.mark.parametrize("how", ["verified", "insecure"])
def test_tls_to_workers(how, fleet, certificate, make_gateway):
    fronts, endpoints = behind(fleet, certificate)
    gw = make_gateway(endpoints, zone=f"tls_ca={certificate[0]}" if how == "verified" else "tls_insecure")
    with httpx.Client(base_url=gw.url, timeout=20) as client:
        for i in range(6):
            for api in PATHS:
                answer = client.post(PATHS[api], json=body(api, text=f"{i} {text_of(100_000 if i == 3 else 50)}"))
                assert answer.status_code == 200 and answer_text(api, answer.json()), answer.text
        answer = client.post(PATHS["chat"], json=body("chat", stream=True, tokens=6))
        assert events_of(answer.text)[-1] == "[DONE]"
        assert client.get("/v1/models").status_code == 200
    assert all(int(entry["attempts"]) == 1 for entry in gw.logged(6 * len(PATHS) + 2))
    assert sum(f.connections for f in fronts) < 20, "connections are not kept"


def test_tls_of_somebody_else(fleet, certificate, make_gateway):
    """The certificate is not one of the system's authorities: nothing is sent."""
    _, endpoints = behind(fleet, certificate)
    gw = make_gateway(endpoints, config={"breaker_open_ms": 200})
    gw.expect_alerts = True  # nginx calls a failed handshake critical
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10)
    assert answer.status_code in (502, 503) and error_of(answer)
    assert not all_received(fleet) and "certificate verify failed" in gw.errors()


def test_bad_authorities(fleet, make_gateway, tmp_path):
    gw = make_gateway(fleet, start=False, zone=f"tls_ca={tmp_path}/none.pem")
    gw.write()
    code, said = gw.check()
    assert code != 0 and "none.pem" in said


# ------------------------------------------------------------------------------------------------------------ host names

class Dns:
    """Answers every question for an A record with 127.0.0.1, others with nothing."""

    def __init__(self, delay=0):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.delay, self.asked = delay, []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                question, sender = self.socket.recvfrom(2048)
            except OSError:
                return
            end = question.index(b"\0", 12) + 5
            kind = struct.unpack("!H", question[end - 4:end - 2])[0]
            self.asked.append(question[12:end - 5])
            time.sleep(self.delay)
            answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1]) if kind == 1 else b""
            head = question[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, 1 if answer else 0, 0, 0)
            self.socket.sendto(head + question[12:end] + answer, sender)


def test_name_known_at_start(fleet, make_gateway):
    gw = make_gateway(behind(fleet, host="localhost")[1])
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200


def test_name_from_nginxs_resolver(fleet, make_gateway):
    """Nobody waits for a slow name server but those who need the name."""
    dns = Dns(delay=2)
    gw = make_gateway(behind(fleet, host="worker.pdroute.invalid")[1], http=f"resolver 127.0.0.1:{dns.port} ipv6=off;")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10))) for _ in range(4)]
    for t in threads:
        t.start()
    assert wait_for(lambda: dns.asked, timeout=5)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", gw.port), 5) as s:
        s.sendall(b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n")
        assert s.recv(4096).startswith(b"HTTP/1.1 200")
    assert time.monotonic() - began < 1, "the process waited for the name server"
    for t in threads:
        t.join()
    assert [a.status_code for a in answers] == [200] * 4
    asked = len(dns.asked)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200
    assert len(dns.asked) == asked, "the answer is not kept"
    dns.socket.close()


def test_name_that_nobody_knows(fleet, make_gateway):
    gw = make_gateway(behind(fleet, host="worker.pdroute.invalid")[1])
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10)
    assert answer.status_code in (502, 503) and error_of(answer)
    assert 'set nginx\'s "resolver"' in gw.errors()


# ---------------------------------------------------------------------------------------------------------------- the block

def test_truncated_block(fleet, make_gateway):
    """In a directory that is not the workers': they do not die in a loop, requests get a 503 that says why, until nginx is reloaded with a good file."""
    gw = make_gateway(fleet, workers=2, start=False)
    gw.block.parent.mkdir()
    gw.start()
    gw.expect_alerts = True
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200
    before = set(gw.worker_pids())
    os.truncate(gw.block, 4096)
    statuses = []
    for _ in range(20):
        answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10)
        statuses.append(answer.status_code)
        assert error_of(answer)["code"] == "block_lost"
        time.sleep(0.05)
    assert statuses == [503] * 20 and set(gw.worker_pids()) == before
    assert httpx.get(gw.url + "/readiness").status_code == 503 and httpx.get(gw.url + "/liveness").status_code == 200
    assert httpx.get(gw.url + "/pdroute").status_code == 503
    pids = set(gw.worker_pids())
    time.sleep(1)
    assert set(gw.worker_pids()) == pids, "workers die"
    assert "was truncated" in gw.errors()
    gw.block.unlink()
    gw.reload()
    assert wait_for(lambda: httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200, timeout=10, interval=0.2)


@pytest.mark.parametrize("how", ["truncated", "removed"])
def test_lost_block_under_load(how, start_fleet, make_gateway):
    """In a directory of theirs the workers go on with another block: no request fails, those that were held neither, and all workers share it."""
    fleet = start_fleet(prefill=2, decode=2, speed=0.1)
    gw = make_gateway(fleet, workers=3, config={"hold_window_tokens": 1, "max_held": 64, "hold_max_wait_ms": 20000})
    load = Load(gw, clients=12)
    for _ in range(4):
        done, inode, pids = load.done, gw.block.stat().st_ino, set(gw.worker_pids())
        assert wait_for(lambda: block_stats(gw)["held_now"] > 0, timeout=10)
        if how == "truncated":
            os.truncate(gw.block, 4096)
        else:
            gw.block.unlink()
        assert wait_for(lambda: gw.block.exists() and gw.block.stat().st_ino != inode and gw.block.stat().st_size > 4096, timeout=5), gw.errors()[-2000:]
        assert wait_for(lambda: block_stats(gw)["leases"] == 3, timeout=5), block_stats(gw)
        assert wait_for(lambda: load.done > done + 40, timeout=20)
        assert set(gw.worker_pids()) == pids
    load.stop()
    assert not load.failed, (len(load.failed), load.done, load.failed[:3])
    assert "going on with what is there" in gw.errors()


def test_truncated_block_in_a_stream(start_fleet, make_gateway):
    """A stream that has begun is finished."""
    fleet = start_fleet(prefill=1, decode=1, speed=1, timers=0.05)
    gw = make_gateway(fleet)
    gw.expect_alerts = True
    before = set(gw.worker_pids())
    with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", stream=True, tokens=150), timeout=20) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data:"):
            pass
        os.truncate(gw.block, 4096)
        assert wait_for(lambda: "was truncated: going on" in gw.errors(), timeout=5)
        rest = [line for line in lines if line.startswith("data:")]
    assert set(gw.worker_pids()) == before
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200
    assert rest[-1].split(":", 1)[1].strip() == "[DONE]"


# -------------------------------------------------------------------------------------------------- requests to all workers

@pytest.mark.parametrize("method", ["POST", "GET"])
def test_flush_reaches_everybody(method, fleet, make_gateway):
    gw = make_gateway(fleet)

    def hit():
        gw.mark()
        assert httpx.post(gw.url + PATHS["chat"], json=body("chat", text=text_of(20_000)), timeout=10).status_code == 200
        hit = int(gw.logged(1)[0]["hit"].split("/")[0])
        assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=30)  # prefill's answer may come after decode's
        return hit

    assert hit() == 0 and hit() > 0
    answer = httpx.request(method, gw.url + "/flush_cache?timeout=5", timeout=10)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["success"] is True and len(said["workers"]) == 4
    assert {w["port"] for w in said["workers"]} == {w.port for w in fleet.workers}
    assert all(w["status"] == 200 and w["answer"] for w in said["workers"])
    for worker in fleet.workers:
        assert [(r.method, r.path) for r in worker.requests("/flush_cache")] == [(method, "/flush_cache?timeout=5")]
    assert hit() == 0, "the gateway believes that somebody has the prompt"


def test_abort_reaches_everybody(fleet, gw):
    answer = httpx.post(gw.url + "/abort_request", json={"rid": "x" * 3000, "abort_all": False}, timeout=10)
    assert answer.status_code == 200 and answer.json()["success"]
    for worker in fleet.workers:
        received = worker.requests("/abort_request")
        assert len(received) == 1 and received[0].json == {"rid": "x" * 3000, "abort_all": False}


def test_control_of_a_worker_that_is_down(fleet, make_gateway):
    gw = make_gateway(fleet)
    fleet.decodes[1].fault(kind="refuse")
    answer = httpx.post(gw.url + "/flush_cache", timeout=10)
    assert answer.status_code == 502
    said = answer.json()
    assert not said["success"]
    assert sorted((w["status"], w.get("error")) for w in said["workers"]) == [(0, "no connection")] + [(200, None)] * 3


def test_control_over_kept_connections_that_are_closed(fleet, make_gateway):
    gw = make_gateway(fleet, keepalive=60)
    assert httpx.post(gw.url + "/flush_cache", timeout=10).status_code == 200
    for worker in fleet.workers:
        worker.restart()
    assert httpx.post(gw.url + "/flush_cache", timeout=10).status_code == 200


def test_control_answers_that_agree(fleet, gw):
    """What all workers say of the request is said to the client."""
    for worker in fleet.workers:
        worker.fault(kind="status", status=400, path="/abort_request", body={"error": {"message": "n\u00e4h \"quoted\""}})
    answer = httpx.post(gw.url + "/abort_request", json={}, timeout=10)
    assert answer.status_code == 400 and "n\u00e4h" in json.loads(answer.json()["workers"][0]["answer"])["error"]["message"]


def test_client_of_a_control_request_leaves(fleet, make_gateway):
    gw = make_gateway(fleet)
    for worker in fleet.workers:
        worker.fault(kind="hang", path="/abort_request")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(gw.url + "/abort_request", json={}, timeout=0.5)
    assert wait_for(lambda: len(all_received(fleet, "/abort_request")) == 4 and all(r.disconnected for r in all_received(fleet, "/abort_request")), timeout=5)
