"""Response: reads an answer as it passes."""
from __future__ import annotations

import typing

from ._abi import ResponseKind, ResponseStruct, Seen
from ._buffer import Buffer, View
from ._library import core

_feed = core.pdr_response_feed


class Response:
    """Plain JSON or server-sent events, in pieces of any size: usage, the first token, the end, errors inside a 200."""

    __slots__ = ("struct",)

    def __init__(self, kind: int = ResponseKind.SSE) -> None:
        self.struct = ResponseStruct()
        core.pdr_response_init(self.struct, kind)

    def feed(self, piece: Buffer) -> int:
        """The next piece of the body; Seen.… of all so far."""
        if piece.__class__ is bytes:
            _feed(self.struct, piece, len(piece))
        else:
            with View(piece) as view:
                _feed(self.struct, view.address, view.size)
        return self.struct.flags

    @property
    def seen(self) -> Seen:
        return Seen(self.struct.flags)

    @property
    def usage(self) -> typing.Optional[tuple[int, int, int]]:
        """(prompt, cached, completion) tokens, or None if the answer has not said."""
        s = self.struct
        return (s.prompt_tokens, s.cached_tokens, s.completion_tokens) if s.flags & 4 else None

    @property
    def events(self) -> int:
        """SSE events so far."""
        return self.struct.events

    @property
    def bytes(self) -> int:
        return self.struct.bytes
