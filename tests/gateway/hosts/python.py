"""
examples/python: the ASGI gateway, under gunicorn, which starts anew what died and reloads (uvicorn 0.17 does neither). PDROUTE_PYTHON_SERVER=uvicorn: under uvicorn
alone; what that cannot do is skipped.
"""

import json
import os
import signal
import urllib.request
from pathlib import Path

from hosts.host import FEATURES, TOP, Host

UVICORN = os.environ.get("PDROUTE_PYTHON_SERVER") == "uvicorn"
PYTHON = os.environ.get("PDROUTE_PYTHON", "/usr/bin/python3")


def environment_of(gateway):
    """Of a process that is to find package and libraries in the tree, unless it has them installed."""
    found = dict(os.environ)
    if not found.get("PDROUTE_PYTHON"):
        if "PDROUTE_LIBDIR" not in found:
            import block
            block._load()  # builds them if need be
            found["PDROUTE_LIBDIR"] = str(TOP / "build/nginx/libpdroute/lib")
        found["PYTHONPATH"] = os.pathsep.join([str(TOP / "bindings/python"), str(TOP / "examples/python")])
    found.update(PDROUTE_BLOCK=str(gateway.block), PDROUTE_CONFIG=str(gateway.config_file), PDROUTE_ACCESS_LOG=str(gateway.dir / "access.log"))
    return found


def maps(pid):
    try:
        return Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return ""


class Gateway(Host):
    name = "python"
    can = frozenset(FEATURES) - {"h2", "tls", "config_check"} - ({"reload"} if UVICORN else set())
    cannot = {"test_killed_worker_gives_back": "uvicorn starts no worker anew", "test_kills_under_load": "uvicorn starts no worker anew",
              "test_corpus[[]trailers[]]": "uvicorn makes headers of trailers; pdroute_gateway.worker.Protocol does not"} if UVICORN else {}
    options = frozenset(["keepalive", "recreate", "body_timeout"])
    start_timeout = 60

    def command(self):
        if UVICORN:
            return [PYTHON, "-m", "uvicorn", "pdroute_gateway:app", "--workers", str(self.workers), "--host", "127.0.0.1", "--port", str(self.port), "--no-access-log",
                    "--log-level", "warning", "--backlog", "1024"]
        return [PYTHON, "-m", "gunicorn", "-c", str(TOP / "examples/python/gunicorn.conf.py"), "-k", "pdroute_gateway.worker.Worker", "-w", str(self.workers),
                "-b", f"127.0.0.1:{self.port}", "pdroute_gateway:app"]

    def environment(self):
        found = environment_of(self)
        if "keepalive" in self.given:
            found["PDROUTE_KEEPALIVE_TIMEOUT"] = str(self.given["keepalive"])
        if "body_timeout" in self.given:
            found["PDROUTE_BODY_TIMEOUT"] = str(self.given["body_timeout"])
        if self.given.get("recreate"):
            found["PDROUTE_RECREATE"] = "1"
        return found

    def listens(self):
        """gunicorn listens before a worker is there."""
        try:
            with urllib.request.urlopen(f"{self.url}/liveness", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def worker_pids(self):
        """Of those that have the block: a worker needs a moment to start."""
        found = self.all_pids() or [self.process.pid]
        return [pid for pid in found if str(self.block) in maps(pid)]

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def log(self):
        path = self.dir / "access.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return [json.loads(line) for line in text.split("\n")[self.marked:-1]]  # not one that is being written

    def mark(self):
        path = self.dir / "access.log"
        self.marked = path.read_text(errors="replace").count("\n") if path.exists() else 0

    def alerts(self):
        lines = self.errors().splitlines()
        if UVICORN:  # it logs what is malformed with a traceback: pdroute_gateway.worker.one_line
            lines = [line for i, line in enumerate(lines) if not (i and "Invalid HTTP request received." in lines[i - 1])]
        return [line for line in super().alerts() if line in lines]
