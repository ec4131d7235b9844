"""The package is what the C headers say, and calls all of it."""
import ctypes
import enum
import os
import shutil
import subprocess
from pathlib import Path

import generate
import pdroute
import pytest
from pdroute import _abi, errors

PACKAGE = Path(pdroute.__file__).parent
CONSTS, STRUCTS, FUNCTIONS = generate.read(generate.LAYOUT)


def test_every_function_can_be_called():
    """And _abi.py is what the generator makes of the headers."""
    done = subprocess.run([shutil.which("python3"), generate.__file__, "--check"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    assert set(_abi.CORE) | set(_abi.HOST) == set(FUNCTIONS)


def test_the_check_fails_for_a_missing_one(tmp_path):
    """A check that cannot fail is none: without one file, its functions are missed."""
    copy = tmp_path / "bindings" / "python"
    shutil.copytree(PACKAGE, copy / "pdroute", ignore=shutil.ignore_patterns("__pycache__", "_lib"))
    shutil.copytree(Path(generate.__file__).parent, copy / "tools")
    (tmp_path / "tests" / "abi").mkdir(parents=True)
    shutil.copy(generate.LAYOUT, tmp_path / "tests" / "abi")
    run = [shutil.which("python3"), copy / "tools" / "generate.py", "--check"]
    assert subprocess.run(run, stdout=subprocess.DEVNULL).returncode == 0
    (copy / "pdroute" / "response.py").unlink()
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "pdr_response_feed" in done.stdout
    shutil.copy(PACKAGE / "response.py", copy / "pdroute")
    with (tmp_path / "tests" / "abi" / "layout.txt").open("a") as layout:
        layout.write("function pdr_new_thing int pdr_new_thing(pdr_router *r)\n")
    done = subprocess.run(run, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "pdr_new_thing" in done.stdout and "generate.py" in done.stdout


@pytest.mark.parametrize("name", STRUCTS)
def test_layout(name):
    size, fields = STRUCTS[name]
    cls = getattr(_abi, generate.class_of(name))
    assert ctypes.sizeof(cls) == size
    assert [(f, getattr(cls, f).offset, getattr(cls, f).size) for f in cls.names()] == [(f, offset, width) for f, offset, width, _ in fields]
    if fields[0][0] == "struct_size":
        assert cls().struct_size == size


def test_constants():
    for name, value in CONSTS.items():
        cls, member = generate.enum_of(name)
        assert (getattr(_abi, cls)[member] if cls else getattr(_abi, name[4:])) == value, name


def test_everything_public_is_exported():
    for name, value in vars(_abi).items():
        if isinstance(value, type) and issubclass(value, (ctypes.Structure, enum.Enum)) and value is not _abi.Struct:
            inside = name in generate.RAW.values() or name in ("Event", "Action")
            assert inside or getattr(pdroute, name, None) is value, f"pdroute.{name}"


def test_an_exception_for_each_code():
    for code in pdroute.Code:
        if code:
            made = errors.error_of(code)
            assert type(made) is not pdroute.Error and made.code == code == type(made).CODE
            assert str(made) == pdroute.strerror(code) and made.http_status == pdroute.http_status(code)
            assert getattr(pdroute, type(made).__name__) is type(made)


EXAMPLES = Path(generate.__file__).resolve().parents[3] / "examples/python"


@pytest.mark.parametrize("where,what", [(PACKAGE.parent, ["pdroute"]), (EXAMPLES, ["pdroute_gateway", *sorted(p.name for p in EXAMPLES.glob("*.py"))])],
                         ids=lambda each: each.parent.name if isinstance(each, Path) else "")
def test_types(where, what):
    """mypy --strict."""
    mypy = shutil.which("mypy")
    if not mypy:
        pytest.skip("mypy is not installed (Debian package mypy)")
    done = subprocess.run([mypy, "--strict", "--python-version", "3.9", "--cache-dir", "/dev/null", *what], cwd=where,
                          env={**os.environ, "MYPYPATH": str(PACKAGE.parent)}, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout


def test_types_are_ignored_where_every_mypy_needs_it():
    """--strict also complains of ignores that are not needed, and versions differ in what they understand."""
    ignores = [line for path in sorted((PACKAGE.parent / "pdroute").glob("*.py")) for line in path.read_text().splitlines() if "type: ignore" in line]
    assert all(".offset" in line for line in ignores), ignores  # ctypes' descriptors


def test_all_names_what_is_there():
    import types
    there = {n for n, v in vars(pdroute).items() if not n.startswith("_") and (n == "errors" or not isinstance(v, types.ModuleType))}
    assert set(pdroute.__all__) == there and sorted(pdroute.__all__) == pdroute.__all__
