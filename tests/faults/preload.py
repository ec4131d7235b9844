"""Builds fail.c for LD_PRELOAD."""

import subprocess
from pathlib import Path


def build(directory):
    out = Path(directory) / "fail.so"
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", "-o", out, Path(__file__).with_name("fail.c")], check=True)
    return out
