"""Routes on a block file through the shared libraries, so that there is something for pdroutectl to show."""

import ctypes as c

from conftest import BUILD

CHAT = 2


class Request(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("flags", c.c_uint32), ("api", c.c_uint32), ("lease", c.c_uint32), ("now_ns", c.c_uint64),
                ("deadline_ns", c.c_uint64), ("priority", c.c_int32), ("excluded", c.c_uint32), ("exclude", c.c_uint32 * 8),
                ("session", c.c_uint64)]


class Decision(c.Structure):
    _fields_ = [("struct_size", c.c_uint32), ("outcome", c.c_uint32), ("booking", c.c_uint64), ("mode", c.c_uint32), ("batch", c.c_uint32),
                ("prefill", c.c_uint32), ("decode", c.c_uint32), ("rest", c.c_char * 1024)]


class Router:
    def __init__(self, block):
        self.core = c.CDLL(str(BUILD / "lib" / "libpdroute.so"), mode=c.RTLD_GLOBAL)
        self.host = c.CDLL(str(BUILD / "lib" / "host" / "libpdroute_host.so"))
        self.host.pdr_host_now_ns.restype = c.c_uint64
        self.handle, self.router = c.c_void_p(), c.c_void_p()
        assert self.host.pdr_host_open(str(block).encode(), None, 0, c.byref(self.handle), c.byref(self.router), None) == 0
        self.lease = c.c_uint32()
        assert self.core.pdr_lease_open(self.router, b"test", c.c_uint64(self.now()), c.byref(self.lease), None) == 0

    def now(self):
        return self.host.pdr_host_now_ns()

    def route(self, body, lease=None):
        """(code, decision)"""
        q = Request(struct_size=c.sizeof(Request), api=CHAT, lease=lease or self.lease.value, now_ns=self.now())
        d = Decision(struct_size=c.sizeof(Decision))
        code = self.core.pdr_route(self.router, body, c.c_size_t(len(body)), c.byref(q), None, c.byref(d), None)
        return code, d

    def done(self, decision):
        assert self.core.pdr_booking_done(self.router, c.c_uint64(decision.booking), 2, c.c_uint64(self.now())) == 0

    def close(self):
        self.host.pdr_host_close(self.handle)
