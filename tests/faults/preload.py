"""Builds fail.c for LD_PRELOAD."""

import subprocess
from pathlib import Path


def sanitizer_of(program):
    """The library that AddressSanitizer's runtime is in, if the program has it as a shared one (gcc's way)."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return next((line.split("=>")[1].split()[0] for line in listed.splitlines() if "libasan.so" in line), None)


def build(directory, program=None):
    """Value for LD_PRELOAD, for this program, or for one without a sanitizer."""
    out, sanitizer = Path(directory) / "fail.so", program and sanitizer_of(program)
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", *(["-DOVER_SANITIZER"] if sanitizer else []), "-O1", "-shared", "-fPIC", "-o", out, Path(__file__).with_name("fail.c")], check=True)
    return f"{out}:{sanitizer}" if sanitizer else out
