"""bindings/go/cmd/pdroute-gateway: pdroute.Handler with a command line, under its supervisor."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from hosts.host import FEATURES, TOP, Host, free_ports

GO = shutil.which("go") or "/usr/local/go/bin/go"
BUILD = TOP / "build/go"


def build_gateway():
    """The program: PDROUTE_GO_GATEWAY, or built now into build/go, against libraries installed there."""
    given = os.environ.get("PDROUTE_GO_GATEWAY")
    if given:
        return str(Path(given).resolve())
    out = subprocess.run([TOP / "bindings/go/build", BUILD], check=True, stdout=subprocess.PIPE, text=True)
    return out.stdout.split()[-1]


class Gateway(Host):
    name = "go"
    can = frozenset(FEATURES)
    http2 = {"two lengths": (200, "/v1/chat/completions", "net/http believes the first, and forwards what it has read with a length of its own"),
             "a space in the path": (404, "/v1/chat/completions%20HTTP/1.1", "net/http escapes it: a path like any other")}
    options = frozenset(["keepalive", "recreate", "body_file", "body_timeout"])  # body_file changes nothing: bodies are always in memory

    def __init__(self, directory, endpoints, **options):
        super().__init__(directory, endpoints, **options)
        self.tls_port, = free_ports(1)
        self.h2_port = self.port

    def write(self):
        self.write_config()
        if not (self.dir / "cert.pem").exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                           check=True, stderr=subprocess.DEVNULL)

    def command(self, *more):
        given = self.given
        line = [build_gateway(), "-listen", f"127.0.0.1:{self.port}", "-tls-listen", f"127.0.0.1:{self.tls_port}", "-cert", str(self.dir / "cert.pem"),
                "-key", str(self.dir / "key.pem"), "-block", str(self.block), "-config", str(self.config_file), "-log", str(self.dir / "access.log"),
                "-workers", str(self.workers)]
        if "keepalive" in given:
            line += ["-keepalive", f"{given['keepalive']}s"]
        if "body_timeout" in given:
            line += ["-body-timeout", f"{given['body_timeout']}s"]
        if given.get("recreate"):
            line += ["-recreate"]
        return [*line, *more]

    def check(self):
        done = subprocess.run(self.command("-t"), stderr=subprocess.PIPE, text=True)
        return done.returncode, done.stderr

    def reload(self):
        self.process.send_signal(1)

    def log(self):
        text = (self.dir / "access.log").read_text(errors="replace") if (self.dir / "access.log").exists() else ""
        return [json.loads(line) for line in text.split("\n")[self.marked:-1]]  # not one that is being written

    def mark(self):
        self.marked = (self.dir / "access.log").read_text(errors="replace").count("\n") if (self.dir / "access.log").exists() else 0
