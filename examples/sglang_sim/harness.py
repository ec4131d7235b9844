"""Start a fleet in a process of its own and talk to it; for tests and scripts.

    with harness.start(prefill=2, decode=2, speed=0) as fleet:
        fleet.prefills[0].url, fleet.prefills[0].bootstrap_port
        fleet.decodes[1].fault(kind="status", status=429, retry_after=1)
        fleet.prefills[0].requests()          # what it received, bodies as bytes
"""

import base64
import itertools
import json
import os
import select
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
PYTHON = os.environ.get("PYTHON", "/usr/bin/python3")
_hosts = itertools.cycle(f"127.0.{i}.{j}" for i in range(1, 4) for j in range(1, 250))


def call(url, spec=None, method=None, timeout=10):
    """(status, parsed JSON) of a control request."""
    data = None if spec is None else json.dumps(spec).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


@dataclass
class Received:
    """One request as a worker received it."""

    method: str
    path: str
    headers: list                   # [name, value] as sent, in order
    body: bytes
    start: float
    end: object
    status: object
    events: int
    disconnected: object            # when the client was gone, or None
    aborted: object                 # when the engine gave up for it, or None
    fault: object
    peer: str
    spans: list                     # of each sequence: tokens, cached, came, and what it reached of bootstrapped, forward, prefilled, running

    def header(self, name):
        return next((v for k, v in self.headers if k.lower() == name.lower()), None)

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class SimWorker:
    name: str
    role: str
    url: str
    control: str
    bootstrap_host: object = None
    bootstrap_port: object = None

    @property
    def host(self):
        return self.name.rpartition(":")[0]

    @property
    def port(self):
        return int(self.name.rpartition(":")[2])

    def _control(self, path, spec=None, query=""):
        status, answer = call(f"{self.control}/sim/{path}?worker={self.name}{query}", spec, None if spec is None else "POST")
        if status != 200:
            raise RuntimeError(f"{self.name} {path}: {status} {answer}")
        return answer

    def fault(self, **spec):
        """Switch a fault on: kind=refuse, hang, status, reset, die_after, cut, stall, slow, crash (see faults.py)."""
        return self._control("fault", spec)

    def heal(self, kind):
        return self._control("fault", {"kind": kind, "off": True})

    def reset(self, cache=True):
        return self._control("reset", {"cache": cache})

    def restart(self):
        return self._control("restart", {})

    def state(self):
        return self._control("state")

    def requests(self, path=None, last=None):
        """What was received, oldest first; only one path if given."""
        answer = self._control("requests", query=f"&last={last}" if last is not None else "")
        found = []
        for r in answer["requests"]:
            r["body"] = base64.b64decode(r["body"])
            if path is None or r["path"].split("?")[0] == path:
                found.append(Received(**r))
        return found


@dataclass
class SimFleet:
    process: object
    control: str
    workers: list = field(default_factory=list)

    @property
    def prefills(self):
        return [w for w in self.workers if w.role == "prefill"]

    @property
    def decodes(self):
        return [w for w in self.workers if w.role == "decode"]

    @property
    def unified(self):
        return [w for w in self.workers if w.role == "unified"]

    def reset(self, cache=True):
        """Every worker without faults, records and cached prefixes."""
        for worker in self.workers:
            worker.reset(cache)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def kill(self):
        """As `kill -9`: nothing is said to anybody."""
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def start(prefill=1, decode=1, unified=0, speed=0.0, timeout=60, arguments=(), host=None, **flags):
    """A running fleet on free ports, each worker on a loopback address of its own (or all on `host`).

    `prefill`, `decode` and `unified` are numbers or lists of addresses; `flags` are options of the command line
    (`timers=0.05`, `dp_size=2`, `header_overrides=True`, …), `arguments` are passed as they are.
    """
    command = [PYTHON, "-m", "sglang_sim", "--control", "127.0.0.1:0", "--speed", str(speed)]
    for role, wanted in (("prefill", prefill), ("decode", decode), ("unified", unified)):
        for address in wanted if isinstance(wanted, (list, tuple)) else [f"{host or next(_hosts)}:0" for _ in range(wanted)]:
            command += [f"--{role}", address]
    for name, value in flags.items():
        option = "--" + name.replace("_", "-")
        command += [option] if value is True else [] if value in (False, None) else [option, str(value)]
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, env=environment, text=True)
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline() if ready else ""
    if not line:
        process.kill()
        process.wait()
        raise RuntimeError(f"the fleet did not start: {' '.join(command)}")
    listing = json.loads(line)
    workers = [SimWorker(control=listing["control"], **w) for w in listing["workers"]]
    return SimFleet(process, listing["control"], workers)


def wait_for(condition, timeout=5.0, interval=0.01):
    """Poll until `condition()` is true; its last value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value or time.monotonic() > end:
            return value
        time.sleep(interval)
