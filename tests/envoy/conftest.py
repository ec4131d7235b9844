"""Fixtures for tests of Envoy with pdroute-extproc."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
sys.path[:0] = [str(HERE), str(TOP / "tests/gateway"), str(TOP / "examples")]

from block import Block  # noqa: E402
from hosts.ext_proc import Gateway, binary  # noqa: E402
from hosts.host import endpoints_of, free_ports  # noqa: E402
from sglang_sim import harness  # noqa: E402


@pytest.fixture
def free_port():
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def shared_fleet():
    with harness.start(prefill=2, decode=2, speed=0, context=20_000_000, capacity=60_000_000) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet):
    shared_fleet.reset()
    yield shared_fleet
    shared_fleet.reset()


@pytest.fixture
def start_fleet():
    fleets = []

    def start(**options):
        fleets.append(harness.start(**options))
        return fleets[-1]

    yield start
    for each in fleets:
        each.stop()


class Picker:
    """pdroute-extproc alone."""
    environment = {}

    def __init__(self, directory, endpoints, config=None, flags=()):
        self.grpc_port, self.health_port, self.metrics_port = free_ports(3)
        self.dir, self.block, self.config_file = directory, directory / "block", directory / "pdroute.json"
        self.config = {"seed": random.getrandbits(62) + 1, "index_entries": 65536, "max_bookings": 4096, **(config or {}), "endpoints": endpoints}
        self.write()
        self.process = subprocess.Popen([binary("build", "PDROUTE_EXTPROC"), "--host", "127.0.0.1", "--grpc-port", str(self.grpc_port), "--grpc-health-port",
                                         str(self.health_port), "--metrics-port", str(self.metrics_port), "--threads", "1", "--config", self.config_file, "--block",
                                         self.block, *flags], stderr=(directory / "log").open("ab"), env={**os.environ, **self.environment})
        end = time.monotonic() + 20
        while time.monotonic() < end and "ext_proc on port" not in self.log():
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def write(self, text=None):
        self.config_file.write_text(text or json.dumps(self.config))

    def log(self):
        return (self.dir / "log").read_text()

    def stats(self):
        with Block(self.block) as block:
            return block.stats()

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        assert code == 0, self.log()
        assert "AddressSanitizer" not in self.log() and "runtime error" not in self.log(), self.log()
        with Block(self.block) as block:
            block.check()
            assert block.stats()["bookings"] == 0


@pytest.fixture
def start_picker(tmp_path):
    pickers = []

    def start(servers, **options):
        directory = tmp_path / str(len(pickers))
        directory.mkdir()
        pickers.append(Picker(directory, servers if isinstance(servers, list) else endpoints_of(servers), **options))
        return pickers[-1]

    yield start
    for each in pickers:
        each.stop()


@pytest.fixture
def picker(start_picker, fleet):
    return start_picker(fleet)


@pytest.fixture
def start_gateway(tmp_path):
    """Envoy and pdroute-extproc."""
    gateways = []

    def start(servers, **options):
        gateways.append(Gateway(tmp_path / f"gateway{len(gateways)}", servers if isinstance(servers, list) else endpoints_of(servers), **options))
        return gateways[-1].start()

    yield start
    for each in gateways:
        each.stop()
        assert not each.alerts(), each.errors()
