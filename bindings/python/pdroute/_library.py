"""Finds and loads the two C libraries.

In this order: the directory PDROUTE_LIBDIR (a CMake build's `lib` will do); the wheel's own; the system's. libpdroute_host may be missing
(or its libcurl): then everything but block files and the prober works, and those say why they do not.
"""
from __future__ import annotations

import ctypes
import os
import typing
from pathlib import Path

from ._abi import ABI_VERSION, CORE, HOST

Functions = dict[str, tuple[typing.Any, list[typing.Any]]]


def candidates(name: str) -> typing.Iterator[str]:
    given = os.environ.get("PDROUTE_LIBDIR")
    if given:
        for directory in (Path(given), Path(given) / "host"):
            if (directory / f"{name}.so").exists():
                yield str(directory / f"{name}.so")
    own = Path(__file__).parent / "_lib" / f"{name}.so.0"
    if own.exists():
        yield str(own)
    yield f"{name}.so.0"


def load(name: str, functions: Functions) -> ctypes.CDLL:
    reasons = []
    for path in candidates(name):
        try:
            library = ctypes.CDLL(path)  # CDLL: other Python threads run during a call
        except OSError as error:
            reasons.append(str(error))
            continue
        for function, (result, arguments) in functions.items():
            found = getattr(library, function)
            found.restype, found.argtypes = result, arguments
        return library
    raise ImportError(f"{name} cannot be loaded (PDROUTE_LIBDIR may name its directory): " + "; ".join(reasons))


class Missing:
    """In place of a library that cannot be loaded."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __getattr__(self, name: str) -> typing.Any:
        raise ImportError(self.reason)


core: typing.Any = load("libpdroute", CORE)
if core.pdr_abi_version() != ABI_VERSION:
    raise ImportError(f"libpdroute has ABI version {core.pdr_abi_version()}, this package was made for {ABI_VERSION}")
host: typing.Any
try:
    host = load("libpdroute_host", HOST)
except (ImportError, AttributeError) as problem:
    host = Missing(str(problem))
