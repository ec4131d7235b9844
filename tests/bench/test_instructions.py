"""Instruction counts of the request path: the same on a busy machine. A bound that is passed means that a change made the path dearer; raise it
only with a reason. Counted by valgrind's callgrind inside one function of the benchmark (its calls, nothing of the set-up)."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build/bench"

# name in bench_route, (hold/) bench_hold, (apply/) bench_apply or (index/) bench_index, function, most instructions per call (measured on x86-64 with gcc 12: 15 % below)
BOUNDS = [
    ("choose/8", "choose", 7_900),
    ("choose/64", "choose", 9_200),
    ("choose/1024", "choose", 21_000),
    ("route/1KB/64", "route", 13_800),
    ("route/17KB/64", "route", 40_000),
    ("route/132KB/64", "route", 242_000),
    ("route/1MB/64", "route", 1_740_000),
    ("route/ids233KB/64", "route", 1_780_000),
    # of a match of 256 blocks over 64 targets; of one block
    ("index/hit256/115k", "match_queries", 4_100),
    ("index/store/115k", "store_events", 215),
    ("index/remove/115k", "remove_events", 197),
    # per call of the batch of 16 that the function makes
    ("hold/arrive/64/100", "arrivals", 3_350),
    ("hold/complete/64/100", "completions", 10_400),
    ("hold/arrive/1024/10000", "arrivals", 3_300),
    ("hold/complete/1024/10000", "completions", 21_600),
    ("hold/complete/64/100/topology", "completions", 19_300),
    ("hold/complete/1024/10000/topology", "completions", 30_000),
    # each look prices all servers: of role both, or under policies that are no expected time
    ("hold/complete/64/100/both", "completions", 153_000),
    ("hold/arrive/64/100/both", "arrivals", 14_600),
    ("hold/complete/64/100/mixed", "completions", 101_000),
    ("hold/complete/64/100/round_robin", "completions", 92_000),
    ("hold/complete/64/100/random", "completions", 94_000),
    ("hold/complete/64/100/least_tokens", "completions", 92_000),
    ("hold/complete/64/100/power_of_two", "completions", 93_000),
    # per endpoint of a document: the same, but for sorting it by name and address, whether it has a thousand or sixteen thousand
    ("apply/new/1024", "applied", 23_000),
    ("apply/same/1024", "applied", 23_000),
    ("apply/roles/1024", "applied", 23_000),
    ("apply/others/1024", "applied", 23_000),
    ("apply/new/16384", "applied", 23_000),
    ("apply/same/16384", "applied", 23_000),
    ("apply/roles/16384", "applied", 23_000),
    ("apply/others/16384", "applied", 23_000),
]


@pytest.fixture(scope="session")
def binary():
    log = TOP / "build/bench.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as out:
        subprocess.run(["cmake", "-S", TOP, "-B", BUILD, "-G", "Ninja", "-DPDR_BUILD_BENCH=ON", "-DCMAKE_BUILD_TYPE=Release"], check=True,
                       stdout=out, stderr=out)
        subprocess.run(["ninja", "-C", BUILD], check=True, stdout=out, stderr=out)
    return BUILD / "tests/bench/bench_route"


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
@pytest.mark.parametrize("name,function,most", BOUNDS)
def test_instructions(binary, tmp_path, name, function, most):
    out = tmp_path / "cg"
    program, what = binary, name
    if name.startswith(("hold/", "apply/")):
        program = binary.with_name("bench_" + name.split("/")[0])
    elif name.startswith("index/"):
        program, what = binary.with_name("bench_index"), name.split("/")[1]
    done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={function}", str(program), "--once", what],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    calls = int(re.search(r'"calls":(\d+)', done.stdout).group(1))
    total = int(re.search(r"^summary: (\d+)", out.read_text(), re.M).group(1))
    per_call = total / calls
    print(f"{name}: {per_call:,.0f} instructions")
    assert per_call <= most, f"{name}: {per_call:,.0f} instructions per call, {most:,} are allowed"
    assert per_call > most / 10  # the count counts


def test_the_whole_table(binary, tmp_path):
    """One short run of everything, as users start it: the names that others read, ceilings and peers beside ours, and what ours allocates."""
    out = tmp_path / "rows.json"
    done = subprocess.run([TOP / "tests/bench/run", "--quick", "--json", out], check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(out.read_text())
    found = {row["name"]: row for row in rows}
    assert len(found) == len(rows) and all(set(row) == {"name", "ns", "allocs", "note"} and row["ns"] > 0 for row in rows)
    sizes = ["1KB", "17KB", "132KB", "1MB", "ids233KB"]
    ours = [f"route/{size}/64" for size in sizes] + ["choose/8", "choose/64", "choose/1024"]
    ours += [f"index/{what}/{size}" for what in ("hit256", "store", "remove") for size in ("1M", "115k")]
    ours += ["decisions/17KB/64/processes1", "decisions/17KB/64/processes2"]
    beside = [f"{what}/{size}" for what in ("ceiling/memcpy", "ceiling/xxh3", "peer/cjson", "peer/cjson-edit", "peer/simdjson") for size in sizes]
    beside += ["peer/simdjson-ids/ids233KB", "nginx/pd/1KB", "nginx/mirror/1KB", "nginx/plain/1KB"]
    assert not [name for name in ours + beside if name not in found]
    assert {name: found[name]["allocs"] for name in ours if found[name]["allocs"] != 0} == {}
    assert found["peer/cjson/132KB"]["allocs"] > 10  # the counter counts
    assert all(name in done.stdout for name in ours + beside)
