"""Exchange: what happens on the two legs goes in, what to do comes out (docs/exchange.md has the rules for a host)."""
from __future__ import annotations

import ctypes
import typing

from ._abi import MAX_ACTIONS, Action, Decision, Event, ExchangeStruct, Reason
from ._library import core
from .errors import error_of
from .router import LeaseId, Router

raw_event, _deadline = core["pdr_exchange_event"], core.pdr_exchange_deadline
_actions_type = Action * MAX_ACTIONS
NEVER = 2**64 - 1


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
    One caller at a time. BusyError means that nothing has changed: report the event again.
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
              now_ns: typing.Optional[int] = None, retry_after_ms: int = 0, usage: typing.Optional[tuple[int, int, int]] = None) -> list[Act]:
        """`attempt`: the one the leg belongs to (the present one if not given); `usage` with EventType.END, as Response.usage has it."""
        e = self._given
        e.type, e.leg, e.status, e.detail, e.retry_after_ms = type, leg, status, detail, retry_after_ms
        e.attempt = self.struct.attempt if attempt is None else attempt
        e.now_ns = self.router.now(now_ns)
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


def error_body(status: int, code: str, message: str) -> bytes:
    """{"error": {…}} as OpenAI's API has it."""
    need = ctypes.c_size_t()
    out = ctypes.create_string_buffer(1024)
    raw = message.encode("utf-8", "replace").replace(b"\0", b"")
    got = core.pdr_error_body(status, code.encode(), raw, out, 1024, need)
    if got == -3:
        long = ctypes.create_string_buffer(8 * len(raw) + 4096)
        got = core.pdr_error_body(status, code.encode(), raw, long, len(long), need)
        out = long
    if got:
        raise error_of(got)
    return out.raw[:need.value]


__all__ = ["Act", "Exchange", "Reason", "error_body", "reason_name"]
