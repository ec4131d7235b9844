"""The laboratory's tests in C (test_*.c here), each a program of the build."""
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.parametrize("name", sorted(p.stem for p in HERE.glob("test_*.c")))
def test_program(name, bin_dir):
    done = subprocess.run([bin_dir.parent / "tests" / f"simulate_{name}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
