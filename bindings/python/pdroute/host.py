"""What touches the system: the block as a file that processes share, leases that end with their process, wake-ups, the prober."""
from __future__ import annotations

import ctypes
import os
import typing
from pathlib import Path

from ._abi import (BlockState, Code, Config, ErrorInfo, HostFlag, HostInfo, HostLeaseStruct, ProbeEvent, ProbeOptions, ProbeStats)
from ._library import core, host
from .errors import LeaseError, check, error_of
from .router import CLOSED, Router

EVENT_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ProbeEvent))


def now_ns() -> int:
    """CLOCK_MONOTONIC: the same as time.monotonic_ns()."""
    return int(host.pdr_host_now_ns())


def boot() -> int:
    """What identifies the running system."""
    out, error = ctypes.c_uint64(), ErrorInfo()
    check(host.pdr_host_boot(out, error), error)
    return out.value


def seed() -> int:
    """Eight random bytes."""
    out, error = ctypes.c_uint64(), ErrorInfo()
    check(host.pdr_host_seed(out, error), error)
    return out.value


class Claim:
    """A job that one process per block does, for as long as this is open."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HostLease:
    """A lease of this process: it ends when the process does. `with host.lease("gateway") as lease:`; open it after fork()."""

    def __init__(self, owner: Host, name: str, now: typing.Optional[int] = None) -> None:
        self.host = owner
        self.struct = HostLeaseStruct()
        error = ErrorInfo()
        check(host.pdr_host_lease_open(owner._handle, name.encode(), Router.now(now), self.struct, error), error)

    @property
    def id(self) -> int:
        return self.struct.id

    def fileno(self) -> int:
        """Readable when tickets of this lease were released; -1: there is no such socket, poll Router.released()."""
        return self.struct.wake_fd

    def renew(self, now: typing.Optional[int] = None) -> bool:
        """Call it often. False once if the lease had expired (the process was stopped): it has a new id and fileno then, and no bookings."""
        error = ErrorInfo()
        code = host.pdr_host_lease_renew(self.host._handle, self.struct, Router.now(now), error)
        if code == Code.LEASE and self.struct.id:
            return False
        if code == Code.LEASE:
            raise LeaseError(str(error.message))
        check(code, error)
        return True

    def wake_drain(self) -> None:
        """Takes what arrived at fileno(); call it before Router.released()."""
        if self.struct.wake_fd >= 0:
            host.pdr_host_wake_drain(self.struct.wake_fd)

    def close(self, now: typing.Optional[int] = None) -> None:
        """What it had booked is given back."""
        if self.struct.id:
            host.pdr_host_lease_close(self.host._handle, self.struct, Router.now(now))
            self.struct.id = 0

    def __enter__(self) -> HostLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Host:
    """
    A block file, mapped. `with Host("/dev/shm/pdroute/qwen", config, HostFlag.CREATE) as h: h.router.route(…)`. Any number of processes may
    open one path; config None takes a block as it is. A file that somebody truncates is a BlockError in later calls, thanks to a handler of SIGBUS
    that passes on what is not about a block (guard=False leaves it out). BlockError and SystemCallError say what is wrong.
    """

    _handle: typing.Any = CLOSED

    def __init__(self, path: typing.Union[str, Path], config: typing.Optional[Config] = None, flags: int = HostFlag.CREATE,
                 guard: bool = True) -> None:
        out, router, error = ctypes.c_void_p(), ctypes.c_void_p(), ErrorInfo()
        check(host.pdr_host_open(os.fsencode(path), config, flags | (HostFlag.GUARD if guard else 0), out, router, error), error)
        self._handle = out.value
        self.router = Router(host.pdr_host_router(self._handle), self)

    @classmethod
    def _of(cls, handle: typing.Any) -> Host:
        made = cls.__new__(cls)
        made._handle = handle
        made.router = Router(host.pdr_host_router(handle), made)
        return made

    def follow(self, config: typing.Optional[Config] = None, flags: int = HostFlag.CREATE, guard: bool = True) -> typing.Optional[Host]:
        """
        The block that the path names now, if it is another: the file was truncated, replaced or removed. Its endpoints are not those of this one. Use it for everything,
        and drop or close this one; None: nothing changed. On an error (BlockError: a file that is refused) this one stays as it is.
        """
        out, router, error = ctypes.c_void_p(), ctypes.c_void_p(), ErrorInfo()
        check(host.pdr_host_follow(self._handle, config, flags | (HostFlag.GUARD if guard else 0), out, router, error), error)
        return self._of(out.value) if out.value else None

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Unmaps. Nobody of this process may be in a call."""
        if self._handle is not CLOSED:
            handle, self._handle = self._handle, CLOSED
            self.router.close()
            host.pdr_host_close(handle)

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def info(self) -> HostInfo:
        out = HostInfo()
        check(host.pdr_host_info_get(self._handle, out))
        return out

    def state(self) -> BlockState:
        """Whether the path still names this block; ask once a second."""
        out, error = ctypes.c_uint32(), ErrorInfo()
        check(host.pdr_host_state(self._handle, out, error), error)
        return BlockState(out.value)

    def lease(self, name: str, now: typing.Optional[int] = None) -> HostLease:
        return HostLease(self, name, now)

    def reap(self, now: typing.Optional[int] = None) -> int:
        """Ends leases of processes that died; how many."""
        out = ctypes.c_uint32()
        check(host.pdr_host_reap(self._handle, Router.now(now), out))
        return out.value

    def claim(self, job: int) -> Claim:
        """A job (Job.PROBE, Job.DISCOVERY, or a number of yours) that one process does. BusyError if another has it."""
        out, error = ctypes.c_int(), ErrorInfo()
        check(host.pdr_host_claim(self._handle, job, out, error), error)
        return Claim(out.value)

    def wake_open(self, lease: int) -> int:
        """A wake-up socket for a lease of Router.lease(); close it with os.close()."""
        out, error = ctypes.c_int(), ErrorInfo()
        check(host.pdr_host_wake_open(self._handle, lease, out, error), error)
        return out.value

    def wake(self, lease: int) -> bool:
        """Wakes a lease's owner; whether there was one."""
        return bool(host.pdr_host_wake(self._handle, lease))

    def wake_pending(self) -> int:
        """Wakes everybody whose requests may go: after whatever may have released some."""
        return int(host.pdr_host_wake_pending(self._handle))

    def tick(self, now: typing.Optional[int] = None) -> None:
        """What one process at least does every 100 ms: tick, reap, wake."""
        code = int(host.pdr_host_tick(self._handle, Router.now(now)))
        if code < 0:
            raise error_of(code)


class Probe:
    """
    Watches all servers of a router: health, load, what they are. `with Probe(router) as probe: probe.run(1000)`; or in an event loop by fileno().
    `event(ProbeEvent)` is called with every change. Options are fields of ProbeOptions by name.
    """

    def __init__(self, router: Router, event: typing.Optional[typing.Callable[[ProbeEvent], None]] = None, authorization: str = "",
                 ca_file: str = "", **options: int) -> None:
        self._handle: typing.Any = CLOSED
        self._stop = ctypes.c_int(0)
        self._failed: typing.Optional[BaseException] = None
        given = ProbeOptions(**options)
        given.authorization = authorization.encode() or None
        given.ca_file = os.fsencode(ca_file) or None
        self._callback = EVENT_CALLBACK(self._tell)  # lives as long as the prober
        self._event = event
        if event is not None:
            given.event = ctypes.cast(self._callback, ctypes.c_void_p)
        out, error = ctypes.c_void_p(), ErrorInfo()
        check(host.pdr_probe_new(router._handle, given, out, error), error)
        self._handle = out.value
        self._router = router

    def _tell(self, _context: typing.Any, event: typing.Any) -> None:
        try:
            assert self._event is not None
            self._event(event.contents.copy())
        except BaseException as problem:  # C is between it and the caller: raised by run()
            self._failed = problem
            self._stop.value = 1

    def _raise(self) -> None:
        if self._failed is not None:
            problem, self._failed = self._failed, None
            self._stop.value = 0
            raise problem

    def run(self, timeout_ms: int = 1000) -> int:
        """One step, waiting at most that long; how many answers were handled."""
        out, error = ctypes.c_uint32(), ErrorInfo()
        code = host.pdr_probe_run(self._handle, timeout_ms, out, error)
        self._raise()
        check(code, error)
        return out.value

    def loop(self) -> None:
        """Steps until stop() is called, from another thread or a callback."""
        error = ErrorInfo()
        code = host.pdr_probe_loop(self._handle, ctypes.byref(self._stop), error)
        self._stop.value = 0
        self._raise()
        check(code, error)

    def stop(self) -> None:
        self._stop.value = 1

    def fileno(self) -> int:
        """For an event loop: readable when run(0) has something to do; call that every 50 ms anyway."""
        return int(host.pdr_probe_fd(self._handle))

    def pending(self) -> int:
        """Endpoints of which it is not yet known whether they are up."""
        return int(host.pdr_probe_pending(self._handle))

    def stats(self) -> ProbeStats:
        out = ProbeStats()
        check(host.pdr_probe_stats_get(self._handle, out))
        return out

    def close(self) -> None:
        if self._handle is not CLOSED:
            handle, self._handle = self._handle, CLOSED
            host.pdr_probe_free(handle)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def version() -> str:
    """Of the library that is loaded."""
    return typing.cast(bytes, core.pdr_version_string()).decode()


def version_number() -> int:
    return int(core.pdr_version_number())


def init_struct(struct: ctypes.Structure) -> None:
    """Zeroes a struct and sets its struct_size, as the constructors of this package do."""
    core.pdr_init_struct(ctypes.byref(struct), ctypes.sizeof(struct))
