"""Any object with the buffer protocol as an address, without copying it.

bytes go to C as they are. Everything else (bytearray, memoryview, array, mmap) is held by a Py_buffer as long as the call runs: a bytearray
cannot be resized meanwhile.
"""
from __future__ import annotations

import ctypes
import typing

if typing.TYPE_CHECKING:
    from array import array
    from mmap import mmap
    Buffer = typing.Union[bytes, bytearray, memoryview, "array[int]", mmap, ctypes.Array[typing.Any]]
else:
    Buffer = typing.Any


class PyBuffer(ctypes.Structure):
    """Py_buffer of CPython's C API: the same since 3.3, part of the stable ABI since 3.11."""
    buf: typing.Optional[int]
    len: int
    itemsize: int
    _fields_ = [("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
                ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_void_p), ("shape", ctypes.c_void_p),
                ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p)]


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = [ctypes.py_object, ctypes.POINTER(PyBuffer), ctypes.c_int]
_get.restype = ctypes.c_int
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = [ctypes.POINTER(PyBuffer)]
_release.restype = None


class View:
    """`with View(obj) as v:` v.address (bytes or int: what a c_void_p takes), v.size in bytes."""

    __slots__ = ("address", "size", "_held")

    def __init__(self, obj: typing.Any) -> None:
        self._held: typing.Optional[PyBuffer] = None
        self.address: typing.Any
        if type(obj) is bytes:
            self.address, self.size = obj, len(obj)
            return
        if isinstance(obj, str):
            raise TypeError("text must be encoded: bytes, bytearray or memoryview are taken")
        held = PyBuffer()
        _get(obj, held, 0)  # PyBUF_SIMPLE: contiguous bytes; raises otherwise
        self._held = held
        self.address, self.size = held.buf, held.len

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            _release(self._held)
            self._held = None


class FastView:
    """
    The same for callers that keep one and use it often: hold(), then `at` and `length` are arguments for C, then release(). One user at a time.
    """

    __slots__ = ("at", "length", "ref")

    def __init__(self) -> None:
        held = PyBuffer()
        self.at = ctypes.c_void_p.from_buffer(held, PyBuffer.buf.offset)  # type: ignore[union-attr]
        self.length = ctypes.c_size_t.from_buffer(held, PyBuffer.len.offset)  # type: ignore[attr-defined]
        self.ref = ctypes.byref(held)

    def hold(self, obj: typing.Any) -> None:
        if isinstance(obj, str):
            raise TypeError("text must be encoded: bytes, bytearray or memoryview are taken")
        raw_get(boxed(obj), self.ref, 0)

    def release(self) -> None:
        raw_release(self.ref)


# without argument types, whose conversion costs more than the call
boxed: typing.Any = ctypes.py_object
raw_get = ctypes.pythonapi["PyObject_GetBuffer"]
raw_release = ctypes.pythonapi["PyBuffer_Release"]
raw_release.restype = None

# An array is passed as its address. Of no items: a buffer may be as short as that.
array_at: typing.Any = (ctypes.c_char * 0).from_buffer


def pointer(obj: typing.Any) -> typing.Any:
    """
    What a function without argument types takes for the address of a whole buffer, len(obj) or obj.nbytes bytes long, at less than a Py_buffer costs;
    None: only that will do.
    """
    kind = obj.__class__
    if kind is bytes:
        return obj
    if kind is memoryview:
        if not obj.c_contiguous:
            return None
        if obj.readonly:
            owner = obj.obj  # its bytes, if it is all of them
            return owner if owner.__class__ is bytes and len(owner) == obj.nbytes else None
        return array_at(obj)
    return array_at(obj) if kind is bytearray else None


def words(view: View, what: str, size: int = 8) -> int:
    """Number of items in a buffer of integers."""
    if view.size % size:
        raise ValueError(f"{what} must be {size}-byte integers, not {view.size} bytes")
    return view.size // size


def start(buffer: bytearray) -> typing.Any:
    """Where a bytearray of at least one byte begins, for C to write to. (An array type of its own for each size would stay for ever.)"""
    return ctypes.byref(ctypes.c_char.from_buffer(buffer))
