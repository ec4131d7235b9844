"""Instruction counts of the request path: the same on a busy machine. A bound that is passed means that a change made the path dearer; raise it
only with a reason. Counted by valgrind's callgrind inside one function of the benchmark (its calls, nothing of the set-up)."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BUILD = TOP / "build/bench"

# name in bench_route or (hold/) bench_hold, function, most instructions per call (measured on x86-64 with gcc 12: 15 % below)
BOUNDS = [
    ("choose/8", "choose", 7_900),
    ("choose/64", "choose", 9_200),
    ("choose/1024", "choose", 21_000),
    ("route/1KB/64", "route", 13_800),
    ("route/17KB/64", "route", 40_000),
    ("route/132KB/64", "route", 242_000),
    # per call of the batch of 16 that the function makes
    ("hold/arrive/64/100", "arrivals", 3_350),
    ("hold/complete/64/100", "completions", 17_500),
    ("hold/arrive/1024/10000", "arrivals", 3_300),
    ("hold/complete/1024/10000", "completions", 25_000),
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
    program = binary.with_name("bench_hold") if name.startswith("hold/") else binary
    done = subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={function}", str(program), "--once", name],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    calls = int(re.search(r'"calls":(\d+)', done.stdout).group(1))
    total = int(re.search(r"^summary: (\d+)", out.read_text(), re.M).group(1))
    per_call = total / calls
    print(f"{name}: {per_call:,.0f} instructions")
    assert per_call <= most, f"{name}: {per_call:,.0f} instructions per call, {most:,} are allowed"
    assert per_call > most / 10  # the count counts


def test_rows_that_others_rely_on(binary):
    out = subprocess.run([str(binary), "route/1KB"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert '"name":"route/1KB/64"' in out and '"allocs":0.00' in out
