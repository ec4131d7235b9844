"""Fixtures for the simulator's tests. The fleet fixture is for gateway tests too (see examples/sglang_sim/harness.py)."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from sglang_sim import harness  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--allow-crash", action="store_true", help="also run on a real pair what kills its servers")


@pytest.fixture
def start_fleet():
    """A function like harness.start whose fleets end with the test."""
    fleets = []

    def start(*args, **kwargs):
        fleets.append(harness.start(*args, **kwargs))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.stop()
