"""Response: reads an answer as it passes."""
from __future__ import annotations

import typing
from ctypes import c_size_t

from ._abi import Decision, ResponseKind, ResponseStruct, Seen
from ._buffer import Buffer, View, start
from ._library import core
from .errors import error_of

_feed = core.pdr_response_feed
_mask = core.pdr_response_mask


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

    def mask(self, text: Buffer, decision: typing.Optional[Decision] = None, end: bool = False) -> tuple[bytes, bytes]:
        """
        Of a stream, after feed(): what may go to the client, without what its error events tell of the inside, and what is kept: the beginning of such an event. `text` is all that was
        fed and is not passed on, so what was kept is given again in front of the next piece. `end`: nothing follows.
        """
        out, ready = bytearray(text), c_size_t()
        code = _mask(self.struct, decision, start(out) if out else None, len(out), int(end), ready)
        if code:
            raise error_of(code)
        return (bytes(out), b"") if ready.value == len(out) else (bytes(out[:ready.value]), bytes(out[ready.value:]))

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
