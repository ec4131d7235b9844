"""Exchange: what happens on the two legs goes in, what to do comes out (docs/exchange.md has the rules for a host)."""
from __future__ import annotations

import ctypes
import typing

from ._abi import MAX_ACTIONS, Action, Code, Decision, Event, ExchangeStruct, MergeStruct, Prompt, Reason, Slice
from ._buffer import Buffer, View, start
from ._library import core
from .errors import error_of
from .router import LeaseId, Router

raw_event, _deadline = core["pdr_exchange_event"], core.pdr_exchange_deadline
_actions_type = Action * MAX_ACTIONS
NEVER = 2**64 - 1
NOSPACE = int(Code.NOSPACE)


class Act(typing.NamedTuple):
    """One thing to do; see ActionType and Reason."""
    type: int
    leg: int
    status: int
    reason: int
    retry_after_ms: int


class Exchange:
    """
    One client request on its way. `start` has what to do first; afterwards event() answers with what to do next, until ActionType.FINISH.
    One caller at a time.
    """

    __slots__ = ("router", "struct", "start", "_given", "_actions", "_n", "_event")

    def __init__(self, router: Router, decision: Decision, lease: LeaseId = 0, now_ns: typing.Optional[int] = None) -> None:
        self.router = router
        self.struct = ExchangeStruct()
        self._given = Event()
        self._actions = _actions_type()
        self._n = ctypes.c_size_t(MAX_ACTIONS)
        # arguments of pdr_exchange_event, converted once
        self._event = (router._handle, ctypes.byref(self.struct), ctypes.byref(self._given), ctypes.byref(self._actions), ctypes.byref(self._n))
        code = core.pdr_exchange_begin(router._handle, self.struct, decision, lease if isinstance(lease, int) else lease.id, router.now(now_ns),
                                       self._actions, self._n)
        self.start = self._result(code)

    def _result(self, code: int) -> list[Act]:
        if code:
            raise error_of(code)
        actions = self._actions
        return [Act(a.type, a.leg, a.status, a.reason, a.retry_after_ms) for a in (actions[i] for i in range(self._n.value))]

    def event(self, type: int, leg: int = 0, status: int = 0, detail: int = 0, attempt: typing.Optional[int] = None,
              now_ns: typing.Optional[int] = None, retry_after_ms: int = 0, usage: typing.Optional[tuple[int, int, int]] = None,
              last_byte_ns: int = 0, longest_gap_ms: int = 0) -> list[Act]:
        """
        `attempt`: the one the leg belongs to (the present one if not given); `usage` with EventType.END, as Response.usage has it. With TICK, `last_byte_ns`: when
        the last piece of the relayed answer came; with END, `longest_gap_ms`: the longest silence between two.
        """
        e = self._given
        e.type, e.leg, e.status, e.detail, e.retry_after_ms = type, leg, status, detail, retry_after_ms
        e.attempt = self.struct.attempt if attempt is None else attempt
        e.now_ns = self.router.now(now_ns)
        e.last_byte_ns, e.longest_gap_ms = last_byte_ns, longest_gap_ms
        if usage is None:
            e.usage = 0
        else:
            e.usage = 1
            e.prompt_tokens, e.cached_tokens, e.completion_tokens = usage
        n = self._n
        n.value = MAX_ACTIONS
        code = raw_event(*self._event)
        if not code and not n.value:
            return []
        return self._result(code)

    def rerouted(self, decision: typing.Optional[Decision], code: int = 0, now_ns: typing.Optional[int] = None) -> list[Act]:
        """After ActionType.ROUTE: the new decision, or None and the code of the Error that there was instead."""
        self._n.value = MAX_ACTIONS
        done = core.pdr_exchange_rerouted(self.router._handle, self.struct, decision, code, self.router.now(now_ns), self._actions, self._n)
        return self._result(done)

    def move(self, router: Router) -> None:
        """Goes on with another block's router: before rerouted() with a decision of that one. What was booked on the old one ends with its lease."""
        self.router = router
        self._event = (router._handle, *self._event[1:])

    def deadline(self) -> typing.Optional[int]:
        """When EventType.TICK may do something (monotonic ns); None: never."""
        at = int(_deadline(self.struct))
        return None if at == NEVER else at

    @property
    def attempt(self) -> int:
        return self.struct.attempt

    @property
    def exclude(self) -> list[int]:
        """Endpoints that failed this request: for the next route_prompt()."""
        return list(self.struct.exclude[:self.struct.excluded])


def reason_name(reason: int) -> str:
    """"prefill_failed" and so on."""
    return typing.cast(bytes, core.pdr_reason_name(reason)).decode()


def reason_text(reason: int) -> str:
    """The sentence for clients that goes with it, without names of servers."""
    return typing.cast(bytes, core.pdr_reason_text(reason)).decode()


def error_name(code: int) -> str:
    """The code for error_body(): "no_pair", "bad_request", "internal_error" and so on."""
    return typing.cast(bytes, core.pdr_error_name(code)).decode()


def text_for(message: str) -> bytes:
    return message.encode("utf-8", "replace").replace(b"\0", b"")


def written(function: typing.Any, *given: typing.Any) -> bytes:
    """What a function writes that takes (…, buf, cap, need)."""
    need, size = ctypes.c_size_t(), 1024
    while True:
        out = bytearray(size)
        code = function(*given, start(out), size, ctypes.byref(need))
        if code != NOSPACE or need.value <= size:
            break
        size = need.value
    if code:
        raise error_of(code)
    return bytes(memoryview(out)[:need.value])


def error_body(status: int, code: str, message: str) -> bytes:
    """{"error": {…}} as OpenAI's API has it."""
    return written(core.pdr_error_body, status, code.encode(), text_for(message))


def error_event(api: int, status: int, code: str, message: str) -> bytes:
    """The end of a stream that cannot be completed, in its own format. Send it, then close the connection."""
    return written(core.pdr_error_event, api, status, code.encode(), text_for(message))


def error_status(text: Buffer) -> int:
    """The HTTP status that an engine's error names (400..599), 0: none. For what Response saw with Seen.ERROR."""
    with View(text) as view:
        return int(core.pdr_error_status(view.address, view.size))


def error_mask(text: Buffer, decision: typing.Optional[Decision] = None) -> bytes:
    """A server's whole error body without what it must not tell a client, of the same length: rooms, names and addresses of servers, paths."""
    out = bytearray(text)
    if out:
        code = core.pdr_error_mask(decision, start(out), len(out))
        if code:
            raise error_of(code)
    return bytes(out)


def merge_wanted(decision: Decision, prompt: Prompt) -> bool:
    """Whether the answer takes both legs': logprobs of the prompt are in prefill's only. Then keep that, and pass decode's through Merge."""
    return int(core.pdr_merge_wanted(decision, prompt)) == 1


class Merge:
    """
    Puts what only prefill knows into decode's answer: a whole JSON answer at once, a stream in pieces of whole events. Hold decode's back until prefill has
    ended. Every byte that is not added stays.
    """

    __slots__ = ("struct",)

    def __init__(self, api: int, kind: int) -> None:
        self.struct = MergeStruct()
        core.pdr_merge_init(self.struct, api, kind)

    def text(self, prefill: Buffer, decode: Buffer) -> bytes:
        with View(prefill) as p, View(decode) as d:
            return written(core.pdr_merge_text, self.struct, p.address, p.size, d.address, d.size)

    def pieces(self, prefill: Buffer, decode: Buffer) -> list[memoryview]:
        """The same as pieces that point into the two: nothing is copied."""
        sources, cap, n = (memoryview(decode).cast("B"), memoryview(prefill).cast("B")), 16, ctypes.c_size_t()
        with View(prefill) as p, View(decode) as d:
            while True:
                out = (Slice * cap)()
                n.value = cap
                code = core.pdr_merge_slices(self.struct, p.address, p.size, d.address, d.size, out, n)
                if code != NOSPACE or n.value <= cap:
                    break
                cap = n.value
        if code:
            raise error_of(code)
        return [sources[s.source][s.offset:s.offset + s.length] for s in out[:n.value] if s.length]


__all__ = ["Act", "Exchange", "Merge", "Reason", "error_body", "error_event", "error_mask", "error_name", "error_status", "merge_wanted", "reason_name", "reason_text"]
