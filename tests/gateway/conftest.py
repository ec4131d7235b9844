"""Fixtures: simulated workers, and a gateway that is looked over when the test is done. Which gateway: README.md.

After every test: nothing alarming in the gateway's log, it ends by itself when asked to, its block passes pdr_router_check(), and nothing is booked
or held any more.
"""

import fnmatch
import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "examples")]

import hosts  # noqa: E402
from block import Block  # noqa: E402
from hosts.host import FEATURES, endpoints_of  # noqa: E402
from sglang_sim import harness  # noqa: E402

Gateway = None  # the class under test


def pytest_addoption(parser):
    parser.addoption("--gateway", default=os.environ.get("PDROUTE_GATEWAY") or "nginx", help="a name in tests/gateway/hosts, or a Python file")
    parser.addoption("--gateway-command", help="start command, for --gateway command")


def pytest_configure(config):
    global Gateway
    config.addinivalue_line("markers", "needs(feature, …): skipped for gateways that cannot do that (hosts/host.py)")
    config.addinivalue_line("markers", "only(name): a test of one gateway's own ways")
    config.addinivalue_line("markers", "more(name, …): tests/run without --long leaves it out, but for these gateways")
    if config.getoption("--gateway-command"):
        os.environ["PDROUTE_GATEWAY_COMMAND"] = config.getoption("--gateway-command")
    Gateway = hosts.find(config.getoption("--gateway"))
    assert set(Gateway.can) <= set(FEATURES), f"{Gateway.name} claims what nobody asks for: {set(Gateway.can) - set(FEATURES)}"


def reason_to_skip(item):
    for mark in item.iter_markers("only"):
        if Gateway.name not in mark.args:
            return f"{mark.args[0]} only"
    for mark in item.iter_markers("needs"):
        missing = [f for f in mark.args if f not in Gateway.can]
        if missing:
            return f"{Gateway.name} cannot: {FEATURES[missing[0]]}"
    for pattern, reason in Gateway.cannot.items():
        if fnmatch.fnmatch(item.name, pattern) or fnmatch.fnmatch(item.nodeid.split("gateway/")[-1], pattern):
            return f"{Gateway.name}: {reason}"
    return None


def pytest_collection_modifyitems(config, items):
    others = [item for item in items if reason_to_skip(item) and any(Gateway.name not in m.args for m in item.iter_markers("only"))]
    if os.environ.get("PDROUTE_BRIEF"):
        others += [item for item in items if item not in others and any(Gateway.name not in m.args for m in item.iter_markers("more"))]
    if others:  # of no interest to this gateway, or now
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)
    for item in items:
        reason = reason_to_skip(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


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
        problems.append(gw.excerpt())
    else:
        shutil.rmtree(gw.dir, ignore_errors=True)
    return problems


def make(endpoints, start=True, **options):
    missing = set(options) - {"config", "workers"} - set(Gateway.options)
    if missing:
        pytest.skip(f"{Gateway.name} has no option {', '.join(sorted(missing))}")
    if not isinstance(endpoints, list):
        endpoints = endpoints_of(endpoints)
    directory = Path(tempfile.mkdtemp(prefix="pdroute-gateway-"))
    directory.chmod(0o755)  # its workers are not root
    gw = Gateway(directory, endpoints, **options)
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
