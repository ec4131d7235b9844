"""tests/run itself, on a tree of made-up labels: what it forgives, and what it does not."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
LABEL = '#!/usr/bin/env bash\n# made up\n. "$(dirname "$0")/lib.sh"\n'


@pytest.fixture
def tree(tmp_path):
    for path in ("tests/run", "tests/labels/lib.sh", "tests/tools/packages.sh"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / path, tmp_path / path)

    def label(name, test, then=""):
        (tmp_path / "tests" / f"test_{name}.py").write_text("import os\n" + test)
        (tmp_path / "tests/labels" / name).write_text(LABEL + f"run_pytest tests/test_{name}.py\n" + then)
    return tmp_path, label


def run(top, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PDR", "PYTEST"))}
    done = subprocess.run([top / "tests/run", *args], cwd=top, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    return done.returncode, done.stdout


STEADY = "def test_steady():\n    open('steady', 'a').write('.')\n"
ONCE = "def test_once():\n    again = os.path.exists('seen')\n    open('seen', 'w')\n    assert again\n"
NEVER = "def test_never():\n    assert False\n"


def test_what_fails_beside_another_is_run_again_alone_and_named(tree):
    top, label = tree
    label("unit", STEADY + ONCE)
    label("sim", "def test_other():\n    pass\n")
    code, said = run(top)
    assert code == 0 and said.endswith("3 passed, 0 failed, 0 skipped\n"), said
    assert re.search(r"UNSTEADY FAILED tests/test_unit.py::test_once", said) and "unsteady: 1 failed" in said
    assert (top / "steady").read_text() == "."  # only what had failed


def test_what_fails_alone_too_has_failed(tree):
    top, label = tree
    label("unit", STEADY + NEVER)
    label("sim", ONCE)
    code, said = run(top)
    assert code == 1 and said.endswith("2 passed, 1 failed, 0 skipped\n"), said
    assert "fails alone too" in said


def test_a_race_is_never_forgiven(tree):
    top, label = tree
    label("unit", "def test_race():\n    again = os.path.exists('seen')\n    open('seen', 'w')\n    assert again, 'WARNING: DATA RACE'\n")
    label("sim", STEADY)
    code, said = run(top)
    assert code == 1 and said.endswith("1 passed, 1 failed, 0 skipped\n") and "once more" not in said, said


def test_many_are_never_forgiven(tree):
    top, label = tree
    label("unit", "import pytest\n@pytest.mark.parametrize('i', range(6))\ndef test_many(i):\n    again = os.path.exists(f'seen{i}')\n    open(f'seen{i}', 'w')\n    assert again\n")
    label("sim", STEADY)
    code, said = run(top)
    assert code == 1 and said.endswith("1 passed, 6 failed, 0 skipped\n") and "once more" not in said, said


def test_one_after_the_other_is_not_run_again(tree):
    top, label = tree
    label("unit", ONCE)
    label("sim", STEADY)
    code, said = run(top, "--one")
    assert code == 1 and said.endswith("1 passed, 1 failed, 0 skipped\n"), said


REPORT = "==================\nWARNING: DATA RACE\nWrite at 0x1 by goroutine 8:\n" + "".join(f"  function{i}()\n" for i in range(400)) + "==================\n"


def test_a_race_is_shown_from_its_beginning(tree):
    top, label = tree
    (top / "report").write_text(REPORT)  # as of go test
    label("unit", STEADY, "cat report\ngrand 1 1 0\n")
    code, said = run(top, "unit")
    assert code == 1 and re.search(r"DATA RACE\n.*Write at 0x1 by goroutine 8:\n.*function0\(\)\n(.*\n){20}.*function21\(\)\n", said), said


def test_a_gateways_report_is_shown_from_its_beginning(tmp_path):
    sys.path.insert(0, str(TOP / "tests/gateway"))
    try:
        from hosts.host import Host
    finally:
        sys.path.pop(0)
    gw = Host(tmp_path, [])
    log = tmp_path / "stderr"
    log.write_text("one line\n" * 1000 + REPORT + "its end\n")
    assert gw.alerts() == ["WARNING: DATA RACE"]
    assert gw.excerpt().startswith("WARNING: DATA RACE\nWrite at 0x1 by goroutine 8:\n  function0()\n") and gw.excerpt().endswith("its end\n")
    assert len(gw.excerpt()) < 10_000
    log.write_text("one line\n" * 1000 + "its end\n")
    assert gw.excerpt().endswith("its end\n") and len(gw.excerpt()) == 3000
    log.write_text("panic: at the end\n")
    assert gw.excerpt() == "panic: at the end\n"
