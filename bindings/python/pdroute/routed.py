"""Routed: one request, its prompt and its decision; and the way through pdr_route() that costs least."""
from __future__ import annotations

import ctypes
import struct
import typing
from time import monotonic_ns

from ._abi import Decision, Done, ErrorInfo, Mode, Outcome, Prompt, Request
from ._buffer import Buffer, FastView
from ._library import core
from .errors import Error, error_of
from .prompt import address, rewrite, rewrite_pieces

if typing.TYPE_CHECKING:
    from array import array

    from .router import Router

ALL, HELD, SEND, SINGLE = int(Done.ALL), int(Outcome.HELD), int(Outcome.SEND), int(Mode.SINGLE)
REQUEST_SIZE, PROMPT_SIZE, DECISION_SIZE = ctypes.sizeof(Request), ctypes.sizeof(Prompt), ctypes.sizeof(Decision)
OUTCOME = struct.Struct("=I")


class Structs(ctypes.Structure):
    _fields_ = [("request", Request), ("prompt", Prompt), ("decision", Decision), ("error", ErrorInfo)]


class Call:
    """
    What one pdr_route() or pdr_booking_done() reads and writes, with everything that a call needs prepared: converting arguments and making structs would
    cost more than the decision. The router keeps a list of them, so that threads do not share one; results are copied out as bytes.

    Its ctypes integers are places in the structs: what is set in one is in the request, and one that is given as an argument has the value that is there
    at the time of the call. Slots, because those of a ctypes structure itself are slow to look up.
    """
    __slots__ = ("structs", "request", "decision", "error", "results", "now", "booking", "size", "refs", "api", "lease", "view")

    def __init__(self) -> None:
        structs = self.structs = Structs(Request(), Prompt(), Decision(), ErrorInfo())
        self.request: Request = structs.request
        self.decision: Decision = structs.decision
        self.error: ErrorInfo = structs.error
        self.results = (ctypes.c_char * (PROMPT_SIZE + DECISION_SIZE)).from_buffer(structs, REQUEST_SIZE)
        self.now = ctypes.c_uint64.from_buffer(structs, NOW_AT)
        self.booking = ctypes.c_uint64.from_buffer(structs, BOOKING_AT)
        self.size = ctypes.c_size_t()
        self.refs = tuple(ctypes.byref(structs, at) for at in (0, REQUEST_SIZE, REQUEST_SIZE + PROMPT_SIZE, REQUEST_SIZE + PROMPT_SIZE + DECISION_SIZE))
        self.api = self.lease = 0  # as the request has them
        self.view = FastView()

    def set_whose(self, api: int, lease: int) -> None:
        """Seldom another than the last: not written for every request."""
        self.request.api, self.request.lease = self.api, self.lease = api, lease

    def error_of(self, code: int) -> Error:
        """What it met; no text of it is left behind."""
        made = error_of(code, self.error, self.decision.retry_after_ms)
        self.error.message = ""
        return made

    def clean(self, code: int) -> typing.Optional[Error]:
        """As made, for the next."""
        ctypes.memmove(ctypes.addressof(self.structs), ctypes.addressof(BLANK), REQUEST_SIZE)
        self.api = self.lease = 0
        return self.error_of(code) if code else None


BLANK = Request()


NOW_AT = Request.now_ns.offset  # type: ignore[attr-defined]
BOOKING_AT = REQUEST_SIZE + PROMPT_SIZE + Decision.booking.offset  # type: ignore[attr-defined]
DECISION_AT = PROMPT_SIZE  # in Routed.data
OUTCOME_AT = DECISION_AT + Decision.outcome.offset  # type: ignore[attr-defined]


class Routed:
    """
    A request that was routed: `prompt` is what the scan found in `body`, `decision` where it goes.

    `with router.route(body, lease=lease) as routed:` gives everything back at the end (`done()`, or `cancel()` if it still waits).
    """

    __slots__ = ("router", "body", "hashes", "booking", "data", "_prompt", "_decision")
    router: Router
    body: Buffer
    hashes: typing.Optional[array[int]]
    booking: int
    """Number of the booking, or of the ticket of a held request."""
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
    def held(self) -> bool:
        """It waits: `take()` fetches it when it may go."""
        return bool(OUTCOME.unpack_from(self.data, OUTCOME_AT)[0] == HELD)

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
        """The body for a leg, in one piece. InvalidError for a pair without a room: while it is held, and after RequestFlags.DRY."""
        return rewrite(self.decision, self.prompt, leg, self.body)

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
        self.booking = taken.booking
        return True

    def done(self, what: int = ALL, now_ns: typing.Optional[int] = None) -> None:
        """For those who use no Exchange: what became of it. Done.PREFILL when the prompt is computed, Done.ALL at the end."""
        calls = self.router._calls
        call = calls.pop() if calls else Call()
        call.booking.value = self.booking
        call.now.value = monotonic_ns() if now_ns is None else now_ns
        code = raw_done(self.router._handle, call.booking, what, call.now)
        calls.append(call)
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


# without argument types, as pdr_route(): what it gets is prepared
raw_done = core["pdr_booking_done"]


def routed_of(router: Router, body: Buffer, prompt: Prompt, decision: Decision, hashes: typing.Optional[array[int]] = None) -> Routed:
    made = Routed()
    made.router, made.body, made.hashes = router, body, hashes
    made.booking = decision.booking
    made.data = bytes(prompt) + bytes(decision)
    made._prompt, made._decision = prompt, decision
    return made
