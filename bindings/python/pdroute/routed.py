"""Routed: one request, its prompt and its decision; and the way through pdr_route() that costs least."""
from __future__ import annotations

import ctypes
import struct
import typing

from ._abi import Decision, Done, ErrorInfo, Mode, Outcome, Prompt, Request
from ._buffer import Buffer, View
from ._library import core
from .errors import Error, error_of
from .prompt import address, rewrite_at, rewrite_pieces

if typing.TYPE_CHECKING:
    from array import array

    from .router import Router

ALL, HELD, SEND, SINGLE = int(Done.ALL), int(Outcome.HELD), int(Outcome.SEND), int(Mode.SINGLE)
REQUEST_SIZE, PROMPT_SIZE, DECISION_SIZE = ctypes.sizeof(Request), ctypes.sizeof(Prompt), ctypes.sizeof(Decision)
OUTCOME_AND_BOOKING = struct.Struct("=IQ")


class Call(ctypes.Structure):
    """
    What one pdr_route() reads and writes, with everything that a call needs prepared: converting arguments and making structs would cost more than
    the decision. The router keeps a list of them, so that threads do not share one; results are copied out as bytes.
    """
    _fields_ = [("request", Request), ("prompt", Prompt), ("decision", Decision), ("error", ErrorInfo)]
    request: Request
    prompt: Prompt
    decision: Decision
    error: ErrorInfo

    def __init__(self) -> None:
        super().__init__(Request(), Prompt(), Decision(), ErrorInfo())
        view = memoryview(self).cast("B")
        self.results = view[REQUEST_SIZE:REQUEST_SIZE + PROMPT_SIZE + DECISION_SIZE]
        self.u32, self.u64 = view[:REQUEST_SIZE].cast("I"), view[:REQUEST_SIZE].cast("Q")
        self.request_ref = ctypes.byref(self)
        self.prompt_ref = ctypes.byref(self, REQUEST_SIZE)
        self.decision_ref = ctypes.byref(self, REQUEST_SIZE + PROMPT_SIZE)
        self.error_ref = ctypes.byref(self, REQUEST_SIZE + PROMPT_SIZE + DECISION_SIZE)
        self.size = ctypes.c_size_t()

    def error_of(self, code: int) -> Error:
        """What it met; no text of it is left behind."""
        made = error_of(code, self.error, self.decision.retry_after_ms)
        self.error.message = ""
        return made

    def clean(self, code: int) -> typing.Optional[Error]:
        """As made, for the next."""
        ctypes.memmove(ctypes.addressof(self), ctypes.addressof(BLANK), REQUEST_SIZE)
        return self.error_of(code) if code else None


BLANK = Request()


API_AT, LEASE_AT, NOW_AT = Request.api.offset // 4, Request.lease.offset // 4, Request.now_ns.offset // 8  # type: ignore[attr-defined]
DECISION_AT = PROMPT_SIZE  # in Routed.data
OUTCOME_AT = DECISION_AT + Decision.outcome.offset  # type: ignore[attr-defined]
assert Decision.booking.offset == Decision.outcome.offset + 4  # type: ignore[attr-defined]


class Routed:
    """
    A request that was routed: `prompt` is what the scan found in `body`, `decision` where it goes.

    `with router.route(body, lease=lease) as routed:` gives everything back at the end (`done()`, or `cancel()` if it still waits).
    """

    __slots__ = ("router", "body", "hashes", "data", "_prompt", "_decision")
    router: Router
    body: Buffer
    hashes: typing.Optional[array[int]]
    data: bytes  # pdr_prompt and pdr_decision
    _prompt: Prompt
    _decision: Decision

    @property
    def prompt(self) -> Prompt:
        try:
            return self._prompt
        except AttributeError:
            self._prompt = Prompt.from_buffer_copy(self.data)
            return self._prompt

    @property
    def decision(self) -> Decision:
        try:
            return self._decision
        except AttributeError:
            self._decision = Decision.from_buffer_copy(self.data, DECISION_AT)
            return self._decision

    @property
    def booking(self) -> int:
        """Number of the booking, or of the ticket of a held request."""
        return typing.cast(int, OUTCOME_AND_BOOKING.unpack_from(self.data, OUTCOME_AT)[1])

    @property
    def held(self) -> bool:
        """It waits: `take()` fetches it when it may go."""
        return bool(OUTCOME_AND_BOOKING.unpack_from(self.data, OUTCOME_AT)[0] == HELD)

    @property
    def prefill(self) -> str:
        """host:port, empty if there is no such leg."""
        d = self.decision
        return address(d.prefill_host, d.prefill_port) if d.mode != SINGLE and d.outcome == SEND else ""

    @property
    def decode(self) -> str:
        d = self.decision
        return address(d.decode_host, d.decode_port) if d.outcome == SEND else ""

    def rewrite(self, leg: int) -> bytes:
        """The body for a leg, in one piece."""
        body = self.body
        if type(body) is bytes:
            return rewrite_at(self.decision, self.prompt, leg, body, len(body))
        with View(body) as view:
            return rewrite_at(self.decision, self.prompt, leg, view.address, view.size)

    def pieces(self, leg: int) -> list[memoryview]:
        """The body for a leg as pieces that point into `body`: nothing of it is copied."""
        return rewrite_pieces(self.decision, self.prompt, leg, self.body)

    def take(self, now_ns: typing.Optional[int] = None) -> bool:
        """Fetches a held request: True if it may go now, False if it still waits. ExpiredError, NoPairError, NotFoundError (its lease ended)."""
        if not self.held:
            return True
        taken = self.router.take(self.booking, self.hashes, now_ns)
        if taken is None:
            return False
        self.data = self.data[:DECISION_AT] + bytes(taken)
        self._decision = taken
        return True

    def done(self, what: int = ALL, now_ns: typing.Optional[int] = None) -> None:
        """For those who use no Exchange: what became of it. Done.PREFILL when the prompt is computed, Done.ALL at the end."""
        router = self.router
        code = _done(router._handle, OUTCOME_AND_BOOKING.unpack_from(self.data, OUTCOME_AT)[1], what, router.now() if now_ns is None else now_ns)
        if code:
            raise error_of(code)

    def cancel(self, now_ns: typing.Optional[int] = None) -> None:
        """Gives up a request that was not sent."""
        self.router.cancel(self.booking, now_ns)

    def __enter__(self) -> Routed:
        return self

    def __exit__(self, *_: object) -> None:
        if self.held:
            self.cancel()
        else:
            try:
                self.done()
            except LookupError:  # given back already
                pass

    def __repr__(self) -> str:
        where = "held" if self.held else f"{self.prefill} -> {self.decode}"
        return f"<Routed {where}, {self.decision.matched_tokens}/{self.decision.prompt_tokens} tokens cached>"


_done = core.pdr_booking_done


def routed_of(router: Router, body: Buffer, prompt: Prompt, decision: Decision, hashes: typing.Optional[array[int]] = None) -> Routed:
    made = Routed()
    made.router, made.body, made.hashes = router, body, hashes
    made.data = bytes(prompt) + bytes(decision)
    made._prompt, made._decision = prompt, decision
    return made
