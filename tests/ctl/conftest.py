"""pdroutectl as a user runs it: the built program, block files in a directory of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PDR_BUILD_DIR", TOP / "build"))
CTL = Path(os.environ.get("PDR_CTL", BUILD / "bin" / "pdroutectl"))  # a sanitized one, say
QUICKSTART = TOP / "examples" / "quickstart" / "cluster"

sys.path[:0] = [str(TOP / "examples"), str(TOP / "tests")]  # sglang_sim; yardstick


def asleep(process):
    """Whether it waits for something: nothing that it could do now is left to do."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] == "S"


class Ctl:
    """Runs commands on one block file."""

    def __init__(self, block, directory):
        self.block, self.directory = block, directory

    def __call__(self, *args, code=0, stdin=b"", env=None):
        environment = {**os.environ, "PDROUTE_BLOCK": str(self.block), "TZ": "UTC", **(env or {})}
        done = subprocess.run([CTL, *map(str, args)], input=stdin, capture_output=True, env=environment, timeout=60, cwd=self.directory)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == code, f"pdroutectl {' '.join(map(str, args))}: exit {done.returncode}, wanted {code}\n{out}\n{err}"
        assert code == 0 or out or err, "a failure says why"
        return out if code == 0 else err + out

    def start(self, *args, **kw):
        environment = {**os.environ, "PDROUTE_BLOCK": str(self.block), "TZ": "UTC"}
        return subprocess.Popen([CTL, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment, **kw)

    def file(self, name, text):
        path = Path(self.directory) / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


@pytest.fixture
def bare(tmp_path):
    """Without a block file yet."""
    assert CTL.exists(), f"{CTL} is not built (PDR_BUILD_DIR names the build directory)"
    return Ctl(tmp_path / "block", tmp_path)


SMALL = '{"max_endpoints": 64, "max_targets": 64, "max_bookings": 256, "max_held": 16, "index_entries": 4096, "log_entries": 8, "seed": 7}'


@pytest.fixture
def ctl(bare):
    """With an empty block."""
    bare("create", "--config", bare.file("config.json", SMALL))
    return bare


@pytest.fixture
def pd(ctl):
    """With two prefill and one decode server."""
    ctl("put", "http://10.0.0.1:8000@34000", "--role", "prefill", "--name", "p0")
    ctl("put", "http://10.0.0.2:8000@34000", "--role", "prefill", "--name", "p1")
    ctl("put", "http://10.0.0.3:8000", "--role", "decode", "--name", "d0")
    return ctl
