"""Recording, a file of decisions with all they saw; and Replay, which makes them again."""
from __future__ import annotations

import ctypes
import os
import typing
from array import array
from time import monotonic_ns

from ._abi import NONE, Candidate, Code, Config, Endpoint, ErrorInfo, ReplayStep
from ._buffer import Buffer, View, start
from ._library import core
from .errors import check, error_of

if typing.TYPE_CHECKING:
    from .router import Router

NOSPACE, NOT_FOUND = int(Code.NOSPACE), int(Code.NOT_FOUND)


def record_header(router: Router) -> bytes:
    """How a file begins."""
    return _text(core.pdr_record_header, router._handle)


def record_trailer() -> bytes:
    """How a complete file ends."""
    return _text(core.pdr_record_trailer)


def _text(function: typing.Any, *given: typing.Any) -> bytes:
    need, size = ctypes.c_size_t(), 4096
    while True:
        out = bytearray(size)
        code = function(*given, start(out), size, ctypes.byref(need))
        if code != NOSPACE:
            check(code)
            return bytes(memoryview(out)[:need.value])
        size = need.value


class Recording:
    """Decisions are recorded while this is open and read() is called: at least every 10 s, better every 100 ms."""

    def __init__(self, router: Router, path: typing.Union[str, os.PathLike[str]]) -> None:
        self.router = router
        self.lost = 0
        self._cursor, self._lost, self._n = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_size_t()
        self._buffer = bytearray(65536)
        self._file: typing.Optional[typing.BinaryIO] = open(path, "wb")
        self._file.write(record_header(router))
        self.read()

    def read(self, now_ns: typing.Optional[int] = None) -> int:
        """What was recorded since: to the file. Bytes written; `lost` grows by those that came too fast."""
        assert self._file is not None, "the recording is closed"
        written = 0
        while True:
            code = core.pdr_record_read(self.router._handle, self._cursor, monotonic_ns() if now_ns is None else now_ns, start(self._buffer), len(self._buffer),
                                        self._n, self._lost)
            if code == NOSPACE:
                self._buffer = bytearray(2 * len(self._buffer))
                continue
            check(code)
            self.lost = self._lost.value
            if not self._n.value:
                return written
            written += self._file.write(memoryview(self._buffer)[:self._n.value])

    def close(self) -> None:
        if self._file is not None:
            self.read()
            self._file.write(record_trailer())
            self._file.close()
            self._file = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Replay:
    """
    `for step in Replay(file): step.checked, step.same, …` makes every recorded decision again; `policy` (Policy.…) asks what another would have chosen.
    `file` is what was recorded, as bytes or an mmap. BlockError says what is wrong with it.
    """

    def __init__(self, file: Buffer, flags: int = 0, policy: int = NONE) -> None:
        self._handle: typing.Any = None
        self.policy = policy
        self._file = View(file)  # borrowed until close()
        out, error = ctypes.c_void_p(), ErrorInfo()
        try:
            check(core.pdr_replay_open(self._file.address, self._file.size, flags, out, error), error)
        except BaseException:
            self._file.__exit__()
            raise
        self._handle = out

    def __iter__(self) -> Replay:
        return self

    def __next__(self) -> ReplayStep:
        step, error = ReplayStep(), ErrorInfo()
        code = core.pdr_replay_next(self._open(), self.policy, step, error)
        if code == NOT_FOUND:
            raise StopIteration
        check(code, error)
        return step

    def _open(self) -> typing.Any:
        if self._handle is None:
            raise ValueError("the replay is closed")
        return self._handle

    def hashes(self) -> array[int]:
        """Of the last step's request, if one arrived there."""
        cap, n = 65536, ctypes.c_size_t(65536)
        out = (ctypes.c_uint64 * cap)()
        check(core.pdr_replay_hashes(self._open(), out, n))
        found = array("Q")
        found.frombytes(memoryview(out).cast("B")[:8 * n.value])
        return found

    def explain(self) -> list[Candidate]:
        """Every candidate of the last step, if a request arrived there."""
        cap, n = 128, ctypes.c_size_t()
        while True:
            out = (Candidate * cap)()
            n.value = cap
            code = core.pdr_replay_explain(self._open(), out, n)
            if code != NOSPACE or n.value <= cap:
                break
            cap = n.value
        if code:
            raise error_of(code)
        return [each.copy() for each in out[:n.value]]

    def endpoint(self, number: int) -> Endpoint:
        """Name and role of an endpoint at this point of the file."""
        out = Endpoint()
        check(core.pdr_replay_endpoint(self._open(), number, out))
        return out

    def config(self) -> Config:
        """With which it was recorded."""
        out = Config()
        check(core.pdr_replay_config(self._open(), out))
        return out

    def close(self) -> None:
        if self._handle is not None:
            core.pdr_replay_close(self._handle)
            self._handle = None
            self._file.__exit__()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
