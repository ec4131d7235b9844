"""Fixtures: simulated workers, and a gateway that is looked over when the test is done.

After every test: nothing alarming in the gateway's log, it ends by itself when asked to, its block passes pdr_router_check(), and nothing is booked
or held any more.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

import gateway as gateways  # noqa: E402
from block import Block  # noqa: E402
from sglang_sim import harness  # noqa: E402


def gateway_class():
    given = os.environ.get("PDROUTE_GATEWAY")
    if not given:
        return gateways.Nginx
    spec = importlib.util.spec_from_file_location("given_gateway", given)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Gateway


@pytest.fixture(scope="session")
def shared_fleet():
    # a context that holds the largest bodies of the tests: a refusal of one leg would cut the other short
    with harness.start(prefill=2, decode=2, speed=0, context=20_000_000, capacity=60_000_000) as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet):
    """Two prefill and two decode workers that answer at once, without faults and memories."""
    shared_fleet.reset()
    yield shared_fleet
    shared_fleet.reset()


@pytest.fixture
def start_fleet():
    fleets = []

    def start(*args, **kwargs):
        fleets.append(harness.start(*args, **kwargs))
        return fleets[-1]

    yield start
    for each in fleets:
        each.stop()


def settle(gw):
    """Problems: what is still booked or held, and what alarmed the log."""
    problems = []
    if not harness.wait_for(lambda: (lambda s: s["bookings"] == 0 and s["held_now"] == 0)(block_stats(gw)), timeout=5):
        problems.append(f"still booked or held: {block_stats(gw)}")
    if not gw.expect_alerts:
        problems += gw.alerts()
    return problems


def close(gw):
    """Ends a gateway; problems."""
    if gw.process is None:
        return []
    problems = []
    try:
        problems += settle(gw)
        took = gw.stop()
        if took > 6:
            problems.append(f"took {took:.1f} s to end")
        with Block(gw.block) as block:
            block.check()
    except Exception as error:  # noqa: BLE001 - all of them are to be seen
        problems.append(repr(error))
    if not gw.expect_alerts:
        problems += gw.alerts()
    if problems:
        problems.append(gw.errors()[-3000:])
    else:
        shutil.rmtree(gw.dir, ignore_errors=True)
    return problems


def make(endpoints, start=True, **options):
    if not isinstance(endpoints, list):
        endpoints = gateways.endpoints_of(endpoints)
    directory = Path(tempfile.mkdtemp(prefix="pdroute-gateway-"))
    directory.chmod(0o755)  # its workers are not root
    gw = gateway_class()(directory, endpoints, **options)
    gw.expect_alerts = False
    return gw.start() if start else gw


@pytest.fixture
def make_gateway():
    """make_gateway(fleet or list of endpoints, config={…}, …): a running gateway of the test's own. `start=False`: not yet."""
    made = []

    def make_one(*args, **options):
        gw = make(*args, start=False, **{k: v for k, v in options.items() if k != "start"})
        made.append(gw)
        return gw.start() if options.get("start", True) else gw

    yield make_one
    problems = [problem for gw in made for problem in close(gw)]
    assert not problems, "\n".join(problems)


def block_stats(gw):
    with Block(gw.block) as block:
        return block.stats()


@pytest.fixture(scope="session")
def shared_gateway(shared_fleet):
    gw = make(shared_fleet)
    yield gw
    problems = close(gw)
    assert not problems, "\n".join(problems)


@pytest.fixture
def gw(fleet, shared_gateway):
    """A gateway in front of `fleet` that tests share: for requests that break nothing."""
    shared_gateway.mark()
    yield shared_gateway
    problems = settle(shared_gateway)
    assert not problems, "\n".join(problems)


@pytest.fixture
def client(gw):
    with httpx.Client(base_url=gw.url, timeout=20) as c:
        yield c
