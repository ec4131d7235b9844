"""Base of the C structs: plain ctypes structures that set their own struct_size, take fields by name, and show text as str."""
from __future__ import annotations

import ctypes
import typing

Self = typing.TypeVar("Self", bound="Struct")


class Struct(ctypes.Structure):
    _names: typing.ClassVar[list[str]] = []

    def __init__(self, **fields: typing.Any) -> None:
        super().__init__()
        names = type(self)._names
        if not names:
            names = type(self)._names = self.names()
        if names[0] == "struct_size":
            setattr(self, "struct_size", ctypes.sizeof(self))
        for name, value in fields.items():
            if name not in names:  # ctypes would take any
                raise TypeError(f"{type(self).__name__} has no field {name!r}")
            setattr(self, name, value)
            if isinstance(value, int) and getattr(self, name) != value:  # ctypes keeps the low bits, and says nothing
                raise OverflowError(f"{type(self).__name__}.{name} cannot hold {value}")

    @classmethod
    def names(cls) -> list[str]:
        return [field[0] for field in cls._fields_]

    def asdict(self) -> dict[str, typing.Any]:
        """Fields by name, arrays as lists, without struct_size and reserved ones."""
        return {name: plain(getattr(self, name)) for name in self.names() if not name.startswith(("struct_size", "reserved"))}

    def copy(self: Self) -> Self:
        return type(self).from_buffer_copy(self)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.asdict().items() if value not in (0, "", [], None))
        return f"{type(self).__name__}({shown})"


def plain(value: typing.Any) -> typing.Any:
    if isinstance(value, Struct):
        return value.asdict()
    if isinstance(value, ctypes.Array):
        return [plain(each) for each in value]
    return value


class Text:
    """A char array as str. Bytes that are no UTF-8 come back as they went in (surrogateescape)."""

    def __init__(self, field: typing.Any, owner: type) -> None:
        self.get, self.set = field.__get__, field.__set__
        self.offset, self.size = field.offset, field.size
        self.owner = owner

    def __get__(self, struct: typing.Any, owner: typing.Any = None) -> typing.Any:
        if struct is None:
            return self
        return self.get(struct, self.owner).decode("utf-8", "surrogateescape")

    def __set__(self, struct: typing.Any, value: typing.Union[str, bytes]) -> None:
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        if len(raw) >= self.size:
            raise ValueError(f"text of {len(raw)} bytes in a field for {self.size - 1}")
        if b"\0" in raw:
            raise ValueError("text with a NUL in it")
        self.set(struct, raw)


def texts(cls: type, *names: str) -> None:
    for name in names:
        setattr(cls, name, Text(getattr(cls, name), cls))
