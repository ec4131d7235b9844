"""The list of mutants that mean the same (tests/data/mutants.txt) speaks of code that is there: a line that has changed since wants its reason looked at anew."""

import importlib.util
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("mutate", TOP / "tests/tools/mutate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_kept_can_still_be_made(tool):
    kept = tool.read_kept()
    made = {(name, before, after) for name in {k[0] for k in kept} for _, before, after, _ in tool.mutants_of(name)}
    assert kept and not [k for k in kept if k not in made]


def test_each_has_a_reason(tool):
    assert all(len(reason) > 10 for reason in tool.read_kept().values())
