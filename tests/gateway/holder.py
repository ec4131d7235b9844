"""A process that has the lock of a block and does not go on: `with holder.of(gw.block) as it: ...; it.go_on()`, or it is killed.

It asks what a server holds of a prompt whose hashes lie in a page that its file does not reach to yet, so that it waits inside the call, in a signal handler, for the
file to grow. Nothing of the library's inside is needed for that.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from block import Block, Stats  # noqa: E402
from sglang_sim.harness import wait_for  # noqa: E402

BUSY = -13  # PDR_E_BUSY


def hold(path, page):
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    with Block(path) as block, open(page, "r+b") as file:
        hashes = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        at = ctypes.c_char.from_buffer(hashes)
        cursor, number, matched = ctypes.c_uint32(), ctypes.c_uint32(), ctypes.c_size_t()
        assert block.library.pdr_endpoint_next(block.router, ctypes.byref(cursor), ctypes.byref(number)) == 0
        file.truncate(0)
        # handlers that are C functions of one int: sleep for SIGBUS seconds, then look again; SIGUSR1 ends the sleep
        libc.signal(signal.SIGBUS, ctypes.cast(libc.sleep, ctypes.c_void_p))
        libc.signal(signal.SIGUSR1, ctypes.cast(libc.abs, ctypes.c_void_p))
        print("now", flush=True)
        code = block.library.pdr_prefix_match(block.router, number, ctypes.c_uint32(0), ctypes.c_void_p(ctypes.addressof(at)), ctypes.c_size_t(64), ctypes.byref(matched))
        print(code, matched.value, flush=True)


class Holder:
    def __init__(self, path):
        self.page = tempfile.NamedTemporaryFile(prefix="pdroute-page-")
        self.page.truncate(mmap.PAGESIZE)
        self.process = subprocess.Popen([sys.executable, __file__, str(path), self.page.name], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "now\n"
        with Block(path) as block:
            stats = Stats(struct_size=ctypes.sizeof(Stats))
            took = wait_for(lambda: block.library.pdr_stats_get(block.router, ctypes.byref(stats)) == BUSY, timeout=10, interval=0.001)
        assert took, "it never had the lock"

    def go_on(self):
        """The call returns, as it would have."""
        self.page.truncate(mmap.PAGESIZE)
        self.process.send_signal(signal.SIGUSR1)
        assert self.process.stdout.readline() == "0 0\n"
        assert self.process.wait(10) == 0

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.page.close()


@contextlib.contextmanager
def of(path):
    holder = Holder(path)
    try:
        yield holder
    finally:
        holder.end()


if __name__ == "__main__":
    hold(sys.argv[1], sys.argv[2])
    os._exit(0)
