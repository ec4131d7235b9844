"""Envoy with pdroute-extproc: examples/ext_proc/serve on free ports, with the example's own envoy.yaml."""

import functools
import json
import os
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request

import yaml
from hosts.host import FEATURES, TOP, Host, free_ports

HERE = TOP / "examples/ext_proc"
building = threading.Lock()


@functools.cache
def built(script, variable):
    """What a script of the example makes, once: PDROUTE_EXTPROC, PDROUTE_ENVOY."""
    given = os.environ.get(variable)
    return given or subprocess.run([HERE / script], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]


def binary(script, variable):
    with building:
        return built(script, variable)


SENT = {"spare_helps": False, "reason": "Envoy has sent decode's request and takes no other stream in its place: the client is told at once, and SDKs ask "
                                        "again. (A plain answer can be replaced; --dispatch both can replace both.)"}
CUT = "Envoy resets the client's stream when its upstream breaks in the middle, and asks nobody"
PROCESSES = "one process with threads, which nobody starts anew"


class Gateway(Host):
    name = "ext_proc"
    can = frozenset(FEATURES) - {"reload"}  # it does reload, by SIGHUP, but without new processes: tests/envoy
    cannot = {"test_head_that_is_not_http*X-A: a*rb*": "Envoy takes a bare CR in a header's value for text", "test_decode_dies_in_a_stream*": CUT,
              "test_row[[]decode dies in a stream*": CUT, "test_killed_worker_gives_back": PROCESSES, "test_kills_under_load": PROCESSES, "test_a_process_with_held_requests_is_lost*": PROCESSES}
    instead = {f"{row}, {topology}, stream*": SENT for row in ("prefill resets", "prefill crashes", "prefill hangs", "prefill 500, decode waits",
               "prefill 503", "prefill 503, Retry-After", "prefill 302", "dead bootstrap port") for topology in ("2P+2D", "2P+1D")}
    instead.update({f"{row}, 2P+2D, stream*": SENT for row in ("decode hangs", "error event first")})
    cannot["test_a_prefill_that_breaks_behind*spare-stream*"] = SENT["reason"]
    cannot.update({f"test_one_of_two_fails[[]{fault}-stream]": SENT["reason"] for fault in ("status500-prefill", "status503-prefill", "reset-prefill",
                   "hang-prefill", "hang-decode")})
    # body_mode, flags: response_body_mode of Envoy's configuration, options of pdroute-extproc. body_file means nothing here: there is one way
    options = frozenset("keepalive recreate body_mode flags body_file body_timeout".split())

    def __init__(self, directory, endpoints, **options):
        super().__init__(directory, endpoints, **options)
        self.access_log = self.dir / "access.json"
        self.take_ports()

    def take_ports(self):
        self.port, self.tls_port, self.admin_port, self.grpc_port, self.health_port, self.metrics_port = free_ports(6)
        self.h2_port = self.port

    template = HERE / "envoy.yaml"

    def replacements(self):
        return [("port_value: 8080", f"port_value: {self.port}"), ("port_value: 9901", f"port_value: {self.admin_port}"),
                ("port_value: 9002", f"port_value: {self.grpc_port}"), ("/dev/stdout", str(self.access_log))]

    def envoy_config(self):
        """The example's, with this gateway's ports; and a listener with TLS."""
        text = self.template.read_text()
        for there, here in self.replacements():
            assert there in text, there
            text = text.replace(there, here)
        if "body_mode" in self.given:
            text = text.replace("response_body_mode: FULL_DUPLEX_STREAMED", f"response_body_mode: {self.given['body_mode']}")
        if "keepalive" in self.given:
            text = text.replace("idle_timeout: 4s", f"idle_timeout: {self.given['keepalive']}s")
        config = yaml.safe_load(text)
        tls = json.loads(json.dumps(config["static_resources"]["listeners"][0]))
        tls["name"] = "tls"
        tls["address"]["socket_address"]["port_value"] = self.tls_port
        tls["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{"certificate_chain": {"filename": str(self.dir / "cert.pem")}, "private_key": {"filename": str(self.dir / "key.pem")}}]}}}
        config["static_resources"]["listeners"].append(tls)
        return config

    def write(self):
        self.write_config()
        if not (self.dir / "cert.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                           check=True, stderr=subprocess.DEVNULL)
        (self.dir / "envoy.yaml").write_text(yaml.safe_dump(self.envoy_config()))

    def check(self):
        done = subprocess.run([binary("build", "PDROUTE_EXTPROC"), "--check", "--config", str(self.config_file)], stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr

    def command(self):
        flags = list(self.given.get("flags", ()))
        if self.given.get("recreate"):
            flags.append("--recreate")
        if "body_timeout" in self.given:
            flags += ["--body-timeout-ms", str(1000 * self.given["body_timeout"])]
        return [str(HERE / "serve"), str(self.dir / "envoy.yaml"), "--host", "127.0.0.1", "--grpc-port", str(self.grpc_port), "--grpc-health-port",
                str(self.health_port), "--metrics-port", str(self.metrics_port), "--threads", str(self.workers), "--config", str(self.config_file),
                "--block", str(self.block), *flags]

    def environment(self):
        return {**os.environ, "PDROUTE_EXTPROC": binary("build", "PDROUTE_EXTPROC"), "PDROUTE_ENVOY": binary("get_envoy", "PDROUTE_ENVOY"),
                "PDROUTE_ENVOY_CONCURRENCY": str(self.workers)}

    def listens(self):
        """Envoy listens before it knows whether its endpoint picker is there."""
        try:
            with urllib.request.urlopen(f"{self.url}/liveness", timeout=1) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False
        except OSError:
            return False

    def start(self, write=True):
        try:
            super().start(write)
        except RuntimeError as error:  # of six ports one may be another's by now
            if not write or "ddress already in use" not in str(error):
                raise
            (self.dir / "stderr").unlink()  # what it said of the port is no alert
            self.take_ports()
            super().start(write)
        self.pids = super().all_pids()
        self.mark()
        return self

    pids = ()

    def dialers(self):
        return [pid for pid in super().dialers() if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "pdroute-extproc"]

    def all_pids(self):
        """Also when their parent was killed, and they are nobody's children."""
        return super().all_pids() or list(self.pids)

    def lines(self):
        """Envoy writes its log when it has much of it, every second, or now."""
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.admin_port}/reopen_logs", method="POST"), timeout=5):
            pass
        time.sleep(0.05)
        return self.access_log.read_text(errors="replace").split("\n")[:-1] if self.access_log.exists() else []

    def log(self):
        entries = []
        for line in self.lines()[self.marked:]:
            entry = {k: "" if v is None else v for k, v in json.loads(line).items()}
            entry["status"] = int(entry["status"]) or (499 if "DC" in entry["flags"] else 0)  # Envoy writes 0 and DC when the client is gone
            if entry["uri"] != "/liveness":
                entries.append(entry)
        return entries

    def mark(self):
        self.marked = len(self.lines())

    def alerts(self):
        return [line for line in self.errors().splitlines() if re.search(r"\[(alert|crit|critical|emerg)\]|Caught Segmentation|ERROR: (?:Address|Leak)Sanitizer|runtime error:", line)]
