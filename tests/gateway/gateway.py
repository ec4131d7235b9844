"""A gateway under test: nginx with the module, started on free ports in a directory of its own.

Another gateway can run the suite: PDROUTE_GATEWAY names a Python file with a class `Gateway` that has what `Nginx` has here.
"""

import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


TOP = Path(__file__).resolve().parents[2]
NGINX = os.environ.get("PDROUTE_NGINX_BINARY") or shutil.which("nginx") or "/usr/sbin/nginx"

CONF = """
load_module {module};
worker_processes {workers};
{main}
pid {dir}/nginx.pid;
error_log {dir}/error.log {level};
daemon off;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    log_format routed escape=json '{{"uri":"$request_uri","status":$status,"prefill":"$pdroute_prefill","decode":"$pdroute_decode",'
        '"room":"$pdroute_room","hit":"$pdroute_hit","why":"$pdroute_why","attempts":"$pdroute_attempts",'
        '"upstream":"$upstream_addr","upstream_status":"$upstream_status","pid":$pid}}';
    access_log {dir}/access.log routed;
    pdroute_zone main file={block} config={config}{zone};
    client_max_body_size 64m;
    client_body_buffer_size {body_buffer};
    client_header_buffer_size 32k;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        listen 127.0.0.1:{tls_port} ssl http2;
        listen 127.0.0.1:{h2_port} http2;
        ssl_certificate {dir}/cert.pem;
        ssl_certificate_key {dir}/key.pem;
        location / {{ pdroute main {location}; }}
        location = /pdroute {{ pdroute_status main; }}
    }}
}}
"""


def free_ports(n):
    socks = [socket.socket() for _ in range(n)]
    try:
        for s in socks:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in socks]
    finally:
        for s in socks:
            s.close()


def build_module():
    """The module: PDROUTE_NGINX_MODULE, or built now into build/nginx."""
    given = os.environ.get("PDROUTE_NGINX_MODULE")
    if given:
        return str(Path(given).resolve())
    out = subprocess.run([TOP / "examples/nginx/build", TOP / "build/nginx"], check=True, stdout=subprocess.PIPE, text=True)
    return out.stdout.split()[-1]


def endpoints_of(fleet):
    listed = []
    for worker in fleet.workers:
        role = {"prefill": "prefill", "decode": "decode", "unified": "both"}[worker.role]
        entry = {"role": role, "host": worker.host, "port": worker.port}
        if worker.role == "prefill":
            entry["bootstrap_port"] = worker.bootstrap_port
            if worker.bootstrap_host not in (None, worker.host):
                entry["bootstrap_host"] = worker.bootstrap_host
        listed.append(entry)
    return listed


class Nginx:
    """`with Nginx(directory, endpoints) as gateway:` and gateway.url."""

    name = "nginx"

    def __init__(self, directory, endpoints, config=None, workers=1, location="", zone="", main="", level="info",
                 body_buffer="256k"):
        self.dir = Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.config = {"seed": random.getrandbits(62) + 1, "index_entries": 65536, "max_bookings": 4096, **(config or {}), "endpoints": endpoints}
        self.options = dict(workers=workers, location=location, zone=zone and " " + zone, main=main, level=level,
                            body_buffer=body_buffer)
        self.port, self.tls_port, self.h2_port = free_ports(3)
        self.block = self.dir / "block"
        self.process = None
        self.marked = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def write_config(self, text=None):
        (self.dir / "zone.json").write_text(text if text is not None else json.dumps(self.config, indent=1))

    def write(self):
        self.write_config()
        if not (self.dir / "cert.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                           check=True, stderr=subprocess.DEVNULL)
        (self.dir / "nginx.conf").write_text(CONF.format(
            module=build_module(), dir=self.dir, block=self.block, config=self.dir / "zone.json", port=self.port,
            tls_port=self.tls_port, h2_port=self.h2_port, **self.options))

    def command(self, *more):
        return [NGINX, "-p", str(self.dir), "-e", str(self.dir / "error.log"), "-c", str(self.dir / "nginx.conf"), *more]

    def start(self, write=True):
        if write:
            self.write()
        self.process = subprocess.Popen(self.command(), stderr=(self.dir / "stderr").open("ab"))
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError("nginx did not start: " + self.errors())
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("nginx does not listen")

    def test(self):
        """`nginx -t`: (exit code, what it said)."""
        done = subprocess.run(self.command("-t"), stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def worker_pids(self):
        """Of workers that take new connections."""
        out = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid=,args="], stdout=subprocess.PIPE, text=True).stdout
        return [int(line.split()[0]) for line in out.splitlines() if line.split(None, 1)[1].strip() == "nginx: worker process"]

    def all_pids(self):
        out = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout
        return [int(p) for p in out.split()]

    def stop(self, how=signal.SIGQUIT, timeout=10):
        """Seconds it took; kills what does not end by itself."""
        if self.process is None:
            return 0
        began = time.monotonic()
        pids = self.all_pids()
        self.process.send_signal(how)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            for pid in [self.process.pid, *pids]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
            raise RuntimeError("nginx did not end") from None
        finally:
            self.process = None
        return time.monotonic() - began

    def errors(self):
        return "".join((self.dir / f).read_text(errors="replace") for f in ("error.log", "stderr") if (self.dir / f).exists())

    def log(self):
        """Access log since the last mark() as dictionaries, oldest first."""
        text = (self.dir / "access.log").read_text(errors="replace")
        return [json.loads(line) for line in text.splitlines()[self.marked:] if line]

    def mark(self):
        self.marked = len((self.dir / "access.log").read_text().splitlines())

    def status(self):
        import urllib.request
        with urllib.request.urlopen(f"{self.url}/pdroute", timeout=5) as answer:
            return json.loads(answer.read())

    def alerts(self):
        """Lines that must not be in an error log."""
        return [line for line in self.errors().splitlines() if re.search(r"\[(alert|crit|emerg)\]|signal 11|signal 6|ERROR: AddressSanitizer", line)]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
