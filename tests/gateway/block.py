"""The router block of a gateway under test, through the libraries themselves."""

import ctypes
import os
import subprocess
import threading
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

STATS = ("routed held refused_no_pair refused_queue_full released expired cancelled retried finished failed bookings held_now leases "
         "rooms_live endpoints targets prefix_entries prefix_evictions prompt_tokens matched_tokens cached_tokens_reported "
         "prompt_tokens_reported lock_recoveries leases_expired reports reports_failed clock_backwards").split()


class Error(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("code", ctypes.c_int32), ("offset", ctypes.c_uint64), ("line", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32), ("message", ctypes.c_char * 232)]


class Stats(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint32), ("reserved", ctypes.c_uint32)] + [(name, ctypes.c_uint64) for name in STATS]


def _load():
    where = os.environ.get("PDROUTE_LIBDIR")
    if not where:
        build = TOP / "build/nginx/libpdroute"
        subprocess.run(["cmake", "-S", TOP, "-B", build, "-G", "Ninja"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["ninja", "-C", build, "pdroute", "pdroute_host"], check=True, stdout=subprocess.DEVNULL)
        where = build / "lib"
    ctypes.CDLL(str(Path(where) / "libpdroute.so"), mode=ctypes.RTLD_GLOBAL)
    host = ctypes.CDLL(str(Path(where) / "host/libpdroute_host.so"), mode=ctypes.RTLD_GLOBAL)
    host.pdr_host_close.argtypes = [ctypes.c_void_p]
    host.pdr_host_close.restype = None
    return host


_library, _loading = None, threading.Lock()


class Block:
    """`with Block(path) as block: block.check(); block.stats()`"""

    def __init__(self, path):
        global _library
        with _loading:
            _library = _library or _load()
        self.library, self.host, self.router = _library, ctypes.c_void_p(), ctypes.c_void_p()
        self.call("pdr_host_open", str(path).encode(), None, 0, ctypes.byref(self.host), ctypes.byref(self.router))

    def call(self, function, *arguments):
        error = Error(struct_size=ctypes.sizeof(Error))
        code = getattr(self.library, function)(*arguments, ctypes.byref(error))
        if code:
            raise RuntimeError(f"{function}: {code}: {error.message.decode()}")

    def check(self):
        """Raises with the first invariant that does not hold."""
        self.call("pdr_router_check", self.router)

    def stats(self):
        stats = Stats(struct_size=ctypes.sizeof(Stats))
        if self.library.pdr_stats_get(self.router, ctypes.byref(stats)):
            raise RuntimeError("pdr_stats_get")
        return {name: getattr(stats, name) for name in STATS}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.library.pdr_host_close(self.host)


def make_block(path, config_file):
    """A block as a gateway with that configuration makes it, without servers."""
    with Block.__new__(Block) as block:
        block.library = _library or _load()
        text, config, block.host = Path(config_file).read_bytes(), ctypes.create_string_buffer(1024), ctypes.c_void_p()
        block.library.pdr_init_struct(config, 272)  # pdr_config of version 0.1
        block.call("pdr_config_from_json", text, ctypes.c_size_t(len(text)), config)
        block.call("pdr_host_open", str(path).encode(), config, 1, ctypes.byref(block.host), None)
