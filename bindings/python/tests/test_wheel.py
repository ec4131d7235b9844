"""The wheel: built from the tree, the same bytes twice, and it works where nothing else of the tree is, with every CPython there is."""
import glob
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import TOP

PACKAGE = TOP / "bindings" / "python"
TRY = """
import sys
import pdroute
from pdroute import *
assert pdroute.__file__.startswith(sys.argv[1]), pdroute.__file__
with Router.create(Config(seed=7)) as r:
    r.put(Endpoint(role=Role.PREFILL, host="10.0.0.1", port=8000))
    r.put(Endpoint(role=Role.DECODE, host="10.0.0.2", port=8000))
    body = bytearray(b'{"messages":[{"role":"user","content":"x"}]}')
    with r.lease("x") as lease:
        for kind in (bytes, bytearray, memoryview):
            with r.route(kind(body), Api.CHAT, lease=lease) as routed:
                assert routed.decode == "10.0.0.2:8000" and b"bootstrap_room" in routed.rewrite(Leg.DECODE)
        try:
            r.route(b"{", lease=lease)
        except ParseError as e:
            assert e.line == 1
    import pdroute.aio
    with Host(sys.argv[1] + "/block", Config(max_endpoints=4)) as h:
        with h.lease("x"):
            assert h.router.stats().leases == 1
print(sys.version_info[:2])
"""


def build(where, out):
    out.mkdir()
    code = f"import sys; sys.path.insert(0, {str(where / 'bindings/python/build_backend')!r}); import pdroute_build; print(pdroute_build.build_wheel({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(TOP, tmp_path_factory.mktemp("wheel") / "first")


def test_contents(wheel):
    assert wheel.name.startswith("pdroute-0.1.0-py3-none-linux_")
    names = zipfile.ZipFile(wheel).namelist()
    assert "pdroute/_lib/libpdroute.so.0" in names and "pdroute/_lib/libpdroute_host.so.0" in names and "pdroute/py.typed" in names
    assert {f"pdroute/{p.name}" for p in (PACKAGE / "pdroute").glob("*.py")} <= set(names)
    assert str(TOP).encode() not in b"".join(zipfile.ZipFile(wheel).read(n) for n in names), "a path of the building machine is in it"


def test_reproducible(wheel, tmp_path):
    """From a copy of the tree elsewhere."""
    copy = tmp_path / "another place"
    for part in ("CMakeLists.txt", "include", "lib", "bindings/python"):
        if (TOP / part).is_dir():
            shutil.copytree(TOP / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", "_lib"))
        else:
            copy.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / part, copy / part)
    assert build(copy, tmp_path / "second").read_bytes() == wheel.read_bytes()


def pythons():
    """Every CPython from 3.9 on that this machine has."""
    found = {str(Path(p).resolve()) for p in [sys.executable, *glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python3")),
                                              *filter(None, (shutil.which(f"python3.{n}", path="/usr/bin:/usr/local/bin") for n in range(9, 15)))]}
    return sorted(p for p in found if subprocess.run([p, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"]).returncode == 0)


@pytest.mark.parametrize("python", pythons())
def test_works_alone(python, wheel, tmp_path):
    """As pip would unpack it; on whatever CPython there is."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    done = subprocess.run([python, "-c", TRY, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout


def test_pip_takes_the_tree(tmp_path):
    """pip install ./bindings/python, as the page says."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    done = subprocess.run([tmp_path / "venv/bin/pip", "install", "--no-index", PACKAGE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([tmp_path / "venv/bin/python", "-c", TRY, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stdout
