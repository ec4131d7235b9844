"""nginx with the module, started on free ports in a directory of its own."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from hosts.host import FEATURES, TOP, Host, endpoints_of, free_ports  # noqa: F401 - endpoints_of is for the benchmark

NGINX = os.environ.get("PDROUTE_NGINX_BINARY") or shutil.which("nginx") or "/usr/sbin/nginx"

CONF = """
load_module {module};
worker_processes {workers};
{main}
pid {dir}/nginx.pid;
error_log {dir}/error.log {level};
daemon off;
events {{ worker_connections {connections}; }}
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
    {http}
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


building = threading.Lock()


def build_module():
    """The module: PDROUTE_NGINX_MODULE, or built now (once) into build/nginx."""
    with building:
        return built_module()


@functools.cache
def built_module():
    given = os.environ.get("PDROUTE_NGINX_MODULE")
    if given:
        return str(Path(given).resolve())
    out = subprocess.run([TOP / "examples/nginx/build", TOP / "build/nginx"], check=True, stdout=subprocess.PIPE, text=True)
    return out.stdout.split()[-1]


class Gateway(Host):
    """`with Gateway(directory, endpoints) as gateway:` and gateway.url."""

    name = "nginx"
    can = frozenset(FEATURES)
    # main, http, zone, location: text put into these places of the configuration; body_file: request bodies go through a file, or (False) never do; keepalive: seconds
    # for which connections to workers are kept; body_timeout: seconds; connections: of a process; recreate: a block of another configuration is replaced
    options = frozenset("main http connections zone location level body_file body_timeout keepalive recreate".split())
    stop_signal = signal.SIGQUIT

    def __init__(self, directory, endpoints, **options):
        super().__init__(directory, endpoints, **options)
        self.tls_port, self.h2_port = free_ports(2)
        self.block = self.dir / "zone" / "block"  # in a directory that the module makes, for its workers, who are not root

    def zone(self):
        given = self.given
        words = [given.get("zone", ""), f"keepalive_timeout={given['keepalive']}s" if "keepalive" in given else "",
                 "recreate" if given.get("recreate") else ""]
        return "".join(" " + w for w in words if w)

    def write(self):
        self.write_config()
        if not (self.dir / "cert.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                           check=True, stderr=subprocess.DEVNULL)
        given = self.given
        (self.dir / "nginx.conf").write_text(CONF.format(
            module=build_module(), dir=self.dir, block=self.block, config=self.config_file, port=self.port, tls_port=self.tls_port,
            h2_port=self.h2_port, workers=self.workers, main=given.get("main", ""), zone=self.zone(), location=" ".join([given.get("location", ""), *([f"body_timeout={given['body_timeout']}s"] if "body_timeout" in given else [])]),
            level=given.get("level", "info"), connections=given.get("connections", 4096), http=given.get("http", ""),
            body_buffer={True: "4k", False: "2m", None: "256k"}[given.get("body_file")]))

    def command(self, *more):
        return [NGINX, "-p", str(self.dir), "-e", str(self.dir / "error.log"), "-c", str(self.dir / "nginx.conf"), *more]

    def environment(self):
        """PDROUTE_NGINX_PRELOAD: the runtime of the sanitizers that the module was built with (tests/labels/sanitized)."""
        preload = os.environ.get("PDROUTE_NGINX_PRELOAD")
        return {**os.environ, **({"LD_PRELOAD": preload} if preload else {})}

    def log_files(self):
        return [self.dir / "error.log", self.dir / "stderr"]

    def check(self):
        """`nginx -t`: (exit code, what it said)."""
        done = subprocess.run(self.command("-t"), stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def worker_pids(self):
        out = subprocess.run(["ps", "--ppid", str(self.process.pid), "-o", "pid=,args="], stdout=subprocess.PIPE, text=True).stdout
        return [int(line.split()[0]) for line in out.splitlines() if line.split(None, 1)[1].strip() == "nginx: worker process"]

    def log(self):
        text = (self.dir / "access.log").read_text(errors="replace")
        return [json.loads(line) for line in text.split("\n")[self.marked:-1]]  # not one that is being written

    def mark(self):
        self.marked = (self.dir / "access.log").read_text(errors="replace").count("\n")

    def alerts(self):
        text = self.errors()
        return self.leaks(text) + [line for line in text.splitlines() if re.search(r"\[(alert|crit|emerg)\]|signal 11|signal 6|ERROR: AddressSanitizer|runtime error:", line)]

    def leaks(self, text):
        """Under AddressSanitizer: what was lost when a process ended. nginx gives its connections and their events (240, 96 and 96 bytes each, three arrays) back to nobody."""
        n = self.given.get("connections", 4096)
        known = {(240 * n * c + 96 * n * e, c + e) for c in (0, 1) for e in (0, 1, 2)}
        found = re.findall(r"(?:Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object", text)
        return [f"{size} bytes lost in {objects} objects" for size, objects in found if (int(size), int(objects)) not in known]
