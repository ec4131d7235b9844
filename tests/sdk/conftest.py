"""The official SDK against a simulated server itself, and against every gateway in front of prefill and decode servers."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "gateway"), str(HERE.parents[1] / "examples")]

import hosts  # noqa: E402
from hosts.host import endpoints_of  # noqa: E402
from sglang_sim import harness  # noqa: E402

TARGETS = ["direct", *os.environ.get("PDROUTE_SDK_HOSTS", "nginx python").replace(",", " ").split()]


class Target:
    """`url`; and the workers behind it, whose faults a test may set."""

    def __init__(self, name, fleet, url):
        self.name, self.fleet, self.url = name, fleet, url

    def fault(self, **spec):
        """Of every server that an answer may come from. `count` is for each: a request has its counterpart on one prefill and one decode server."""
        for worker in self.fleet.workers:
            worker.fault(**spec)


def start(name, **fleet_of):
    fleet = harness.start(speed=0, context=100_000, **fleet_of)
    if name == "direct":
        return Target(name, fleet, fleet.workers[0].url), None
    directory = Path(tempfile.mkdtemp(prefix="pdroute-sdk-"))
    directory.chmod(0o755)
    gateway = hosts.find(name)(directory, endpoints_of(fleet), config={"breaker_open_ms": 100, "breaker_failures": 1000, "breaker_error_permille": 4294967295})
    gateway.start()
    return Target(name, fleet, gateway.url), gateway


def running(name, **fleet_of):
    target, gateway = start(name, **fleet_of)
    try:
        yield target
    finally:
        if gateway is not None:
            gateway.stop()
            shutil.rmtree(gateway.dir, ignore_errors=True)
        target.fleet.stop()


@pytest.fixture(scope="session", params=TARGETS)
def session_target(request):
    """A server that does all (direct), or a gateway and two servers of each role."""
    yield from running(request.param, **({"prefill": 0, "decode": 0, "unified": 1} if request.param == "direct" else {"prefill": 2, "decode": 2}))


def forget(fleet):
    """No faults, no records, nothing cached: a cache is cleared only when nothing runs, and prefill may still run when the client has its answer."""
    fleet.reset()
    assert harness.wait_for(lambda: all(w.state()["live"] == 0 for w in fleet.workers), timeout=10), "a request of the test before still runs"
    fleet.reset()
    assert all(w.state()["cached_tokens"] == 0 for w in fleet.workers)


@pytest.fixture
def target(session_target):
    forget(session_target.fleet)  # so that cached_tokens are the same everywhere
    yield session_target
    session_target.fleet.reset()


@pytest.fixture(scope="session", params=TARGETS)
def single(request):
    """As target, but the gateway stands in front of one server that does all."""
    yield from running(request.param, prefill=0, decode=0, unified=1)


_seen = {}


@pytest.fixture
def same(request):
    """same(result): equal to what the SDK made of the server's own answer. The server itself comes first."""
    def compare(result):
        name = request.node.originalname
        if "direct" in request.node.callspec.id.split("-"):
            _seen[name] = result
        else:
            assert name in _seen, "the run against the server itself failed"
            assert result == _seen[name]
    return compare
