"""One exception per error code of libpdroute; all are `pdroute.Error`.

Attributes: `code` (a `Code`), `message` (one sentence), `offset` and `line` (where in the text given, 0 if that makes no sense),
`http_status` (what a gateway should answer), `retry_after_ms` (with NoPairError and QueueFullError).
"""
from __future__ import annotations

import typing

from ._abi import Code, ErrorInfo
from ._library import core


class Error(Exception):
    CODE: typing.ClassVar[typing.Optional[Code]] = None
    code: int
    message: str
    offset: int
    line: int
    retry_after_ms: int

    def __init__(self, message: str, code: typing.Optional[int] = None, offset: int = 0, line: int = 0, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else self.CODE or 0
        self.offset = offset
        self.line = line
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return f"{self.message} (byte offset {self.offset}, line {self.line})" if self.line else self.message

    @property
    def http_status(self) -> int:
        return int(core.pdr_http_status(self.code))


class InvalidError(Error, ValueError):
    CODE = Code.INVALID


class VersionError(Error):
    CODE = Code.VERSION


class NoSpaceError(Error):
    CODE = Code.NOSPACE


class ParseError(Error, ValueError):
    CODE = Code.PARSE


class TooLargeError(Error, ValueError):
    CODE = Code.TOO_LARGE


class TooDeepError(Error, ValueError):
    CODE = Code.TOO_DEEP


class UnsupportedError(Error):
    CODE = Code.UNSUPPORTED


class NoPairError(Error):
    CODE = Code.NO_PAIR


class QueueFullError(Error):
    CODE = Code.QUEUE_FULL


class NotFoundError(Error, LookupError):
    CODE = Code.NOT_FOUND


class ExistsError(Error):
    CODE = Code.EXISTS


class FullError(Error):
    CODE = Code.FULL


class BusyError(Error):
    CODE = Code.BUSY


class LeaseError(Error):
    CODE = Code.LEASE


class AgainError(Error):
    CODE = Code.AGAIN


class ExpiredError(Error):
    CODE = Code.EXPIRED


class BlockError(Error):
    """The block is not one that can be used; its subclasses say why."""


class BlockMagicError(BlockError):
    CODE = Code.BLOCK_MAGIC


class BlockLayoutError(BlockError):
    CODE = Code.BLOCK_LAYOUT


class BlockConfigError(BlockError):
    CODE = Code.BLOCK_CONFIG


class BlockBootError(BlockError):
    CODE = Code.BLOCK_BOOT


class BlockCorruptError(BlockError):
    CODE = Code.BLOCK_CORRUPT


class SystemCallError(Error):
    CODE = Code.SYSTEM


def subclasses(cls: type[Error]) -> typing.Iterator[type[Error]]:
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


BY_CODE: dict[int, type[Error]] = {int(each.CODE): each for each in subclasses(Error) if each.CODE is not None}


def strerror(code: int) -> str:
    """Short fixed text for a code."""
    return typing.cast(bytes, core.pdr_strerror(code)).decode()


def http_status(code: int) -> int:
    """HTTP status a gateway should answer for a code; 200 for Code.OK."""
    return int(core.pdr_http_status(code))


def error_of(code: int, info: typing.Optional[ErrorInfo] = None, retry_after_ms: int = 0) -> Error:
    """The exception for a code that a function returned, with what it left in `info`."""
    cls = BY_CODE.get(code, Error)
    if info is None or not info.message:
        return cls(strerror(code), code, 0, 0, retry_after_ms)
    return cls(str(info.message), code, info.offset, info.line, retry_after_ms)


def check(code: int, info: typing.Optional[ErrorInfo] = None) -> None:
    if code:
        raise error_of(code, info)
