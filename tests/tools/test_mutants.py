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


def test_a_file_or_some_lines_of_it(tool):
    whole, tests = tool.select("scan")
    file, also = tool.select("lib/json_scan.h")
    assert file == [m for m in whole if m[0] == "lib/json_scan.h"] and also == tests
    first, last = file[0][1], file[-1][1]
    some, _ = tool.select(f"lib/json_scan.h:{min(first, last)}-{max(first, last)}")
    assert some and {m[1] for m in some} <= set(range(min(first, last), max(first, last) + 1))
    two, _ = tool.select(f"lib/json_scan.h:{first},{last}-{last}")
    assert two == [m for m in file if m[1] in (first, last)]
    names = [(m[0], *m[2:5]) for m in whole]
    assert len(set(names)) == len(names)


def test_a_run_goes_on(tool, tmp_path):
    kept = tmp_path / "results"
    dead, alive, new = tool.select("lib/room.c")[0][:3]
    results = tool.Results(kept)
    results.add(dead, "test_room")
    results.add(alive, "survived")
    again = tool.Results(kept)
    assert [again.dead(m) for m in (dead, alive, new)] == ["test_room", None, None]
