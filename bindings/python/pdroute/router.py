"""Router: a block of memory that decides. In this process's memory (Router.create), in memory of yours (attach, restore), or a file (Host)."""
from __future__ import annotations

import ctypes
import json
import mmap
import os
import typing
from array import array
from time import monotonic_ns

from ._abi import (Api, Apply, ApplyReport, Candidate, Code, Config, Decision, Done, Endpoint, ErrorInfo, LoadField, Load, LogRecord, Place, Prompt,
                   Request, State, Stats, TargetStatus)
from ._buffer import Buffer, View, array_at, boxed, pointer, raw_get, raw_release, start, words
from ._library import core
from .errors import NotFoundError, check, error_of
from .prompt import limits_of, scan
from .record import Recording
from .routed import Call, Routed, routed_of

AGAIN, BUSY, NOT_FOUND, NOSPACE = int(Code.AGAIN), int(Code.BUSY), int(Code.NOT_FOUND), int(Code.NOSPACE)
MAX_RELEASED = 64
_decision_size = ctypes.sizeof(Decision)
_tickets_type, _leases_type = ctypes.c_uint64 * MAX_RELEASED, ctypes.c_uint32 * MAX_RELEASED

CHAT, ALL = int(Api.CHAT), int(Done.ALL)
# which flag of Load.have says that a field is set
LOAD_FLAGS = {**{flag.name.lower(): flag for flag in LoadField if flag.name}, "usage_permille": LoadField.USAGE,
              "pending_usage_permille": LoadField.PENDING_USAGE, "prefill_uncached_total": LoadField.PREFILL_SPEED,
              "prefill_busy_us_total": LoadField.PREFILL_SPEED}

LeaseId = typing.Union[int, "HasId"]


class HasId(typing.Protocol):
    @property
    def id(self) -> int: ...


class Closed:
    """In place of a handle that was closed: a call with it raises ctypes.ArgumentError instead of touching memory that is gone."""

    def __repr__(self) -> str:
        return "closed"


CLOSED = Closed()


def new_decision() -> Decision:
    decision = Decision.__new__(Decision)
    decision.struct_size = _decision_size
    return decision


class ExplainedPair(typing.NamedTuple):
    decision: Decision
    candidates: list[Candidate]


class RouterLease:
    """Owner of bookings (pdr_lease_open): `with router.lease("me") as lease:`. Renew it at least every lease_ttl_ms / 3."""

    def __init__(self, router: Router, name: str, now_ns: typing.Optional[int] = None) -> None:
        out, error = ctypes.c_uint32(), ErrorInfo()
        check(core.pdr_lease_open(router._handle, name.encode(), router.now(now_ns), out, error), error)
        self.router, self.name, self.id = router, name, out.value

    def renew(self, now_ns: typing.Optional[int] = None) -> None:
        check(core.pdr_lease_renew(self.router._handle, self.id, self.router.now(now_ns)))

    def close(self, now_ns: typing.Optional[int] = None) -> None:
        """Ends it; what it had booked is given back."""
        code = core.pdr_lease_break(self.router._handle, self.id, self.router.now(now_ns))
        if code not in (0, int(Code.LEASE), NOT_FOUND):
            check(code)

    def __enter__(self) -> RouterLease:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Router:
    """Times (`now_ns`) are monotonic nanoseconds, and the clock's when not given. Every method may be called from any thread."""

    def __init__(self, handle: typing.Any, keep: typing.Any = None) -> None:
        """For this package; use create(), attach(), restore(), or Host."""
        self._handle: typing.Any = ctypes.c_void_p(handle)
        self._keep = keep  # memory, or the Host
        self._calls: list[Call] = []
        self._limits = limits_of(self.config())

    # ---------------------------------------------------------------------------------------------------------- the block

    @classmethod
    def create(cls, config: typing.Optional[Config] = None, boot: int = 1) -> Router:
        """A router in memory of this process alone (children after fork() share it)."""
        config = config if config is not None else Config()
        size = cls.size(config)
        memory = mmap.mmap(-1, size)
        out, error = ctypes.c_void_p(), ErrorInfo()
        at = ctypes.c_char.from_buffer(memory)
        check(core.pdr_router_init(ctypes.byref(at), size, config, boot, out, error), error)
        return cls(out.value, (at, memory))

    @classmethod
    def attach(cls, memory: Buffer, config: typing.Optional[Config] = None, boot: int = 1) -> Router:
        """A router that exists in `memory` (writable, 64-byte aligned: an mmap is). BlockError says why not."""
        out, error = ctypes.c_void_p(), ErrorInfo()
        at = ctypes.c_char.from_buffer(typing.cast(typing.Any, memory))
        check(core.pdr_router_attach(ctypes.byref(at), memoryview(memory).nbytes, config, boot, out, error), error)
        return cls(out.value, (at, memory))

    @classmethod
    def restore(cls, memory: Buffer, boot: int = 1, seed: int = 0) -> Router:
        """Takes over a block from before a reboot, or a copied one: what was learnt stays. Nobody else may use it."""
        out, error = ctypes.c_void_p(), ErrorInfo()
        at = ctypes.c_char.from_buffer(typing.cast(typing.Any, memory))
        check(core.pdr_router_restore(ctypes.byref(at), memoryview(memory).nbytes, boot, seed, out, error), error)
        return cls(out.value, (at, memory))

    @staticmethod
    def size(config: Config) -> int:
        """Bytes that a block of this configuration needs. InvalidError names the field that is wrong."""
        size = int(core.pdr_router_size(config))
        if not size:
            resolve(config.copy())
        return size

    def close(self) -> None:
        """Forgets the router in this object; memory and file stay what they are."""
        self._handle = CLOSED
        self._keep = None

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def memory(self) -> typing.Optional[mmap.mmap]:
        """The block's memory, of a router that was made or attached here."""
        return self._keep[1] if isinstance(self._keep, tuple) else None

    @staticmethod
    def now(now_ns: typing.Optional[int] = None) -> int:
        return monotonic_ns() if now_ns is None else now_ns

    def config(self) -> Config:
        out = Config()
        check(core.pdr_router_config(self._handle, out))
        return out

    def check(self) -> None:
        """Verifies every invariant of the block; BlockCorruptError names the first that does not hold."""
        error = ErrorInfo()
        check(core.pdr_router_check(self._handle, error), error)

    # ---------------------------------------------------------------------------------------------------------- endpoints

    def put(self, endpoint: Endpoint, now_ns: typing.Optional[int] = None) -> int:
        """Adds an endpoint, or updates the one of its name; its id."""
        out, error = ctypes.c_uint32(), ErrorInfo()
        check(core.pdr_endpoint_put(self._handle, endpoint, self.now(now_ns), out, error), error)
        return out.value

    def drain(self, endpoint: typing.Union[int, str], on: bool = True) -> None:
        """No new requests; those in flight end."""
        error = ErrorInfo()
        check(core.pdr_endpoint_drain(self._handle, self.id_of(endpoint), on, error), error)

    def remove(self, endpoint: typing.Union[int, str]) -> None:
        error = ErrorInfo()
        check(core.pdr_endpoint_remove(self._handle, self.id_of(endpoint), error), error)

    def health(self, endpoint: typing.Union[int, str], up: bool, now_ns: typing.Optional[int] = None) -> None:
        """Health as a prober sees it."""
        error = ErrorInfo()
        check(core.pdr_endpoint_health(self._handle, self.id_of(endpoint), up, self.now(now_ns), error), error)

    def find(self, name: str) -> int:
        """Id of an endpoint by its name; NotFoundError."""
        out = ctypes.c_uint32()
        code = core.pdr_endpoint_find(self._handle, name.encode("utf-8", "surrogateescape"), out)
        if code == NOT_FOUND:
            raise NotFoundError(f"no endpoint is named {name!r}")
        check(code)
        return out.value

    def id_of(self, endpoint: typing.Union[int, str]) -> int:
        return self.find(endpoint) if isinstance(endpoint, str) else endpoint

    def endpoint(self, endpoint: typing.Union[int, str]) -> Endpoint:
        out = Endpoint()
        check(core.pdr_endpoint_get(self._handle, self.id_of(endpoint), out, None))
        return out

    def state(self, endpoint: typing.Union[int, str]) -> State:
        out = ctypes.c_uint32()
        check(core.pdr_endpoint_get(self._handle, self.id_of(endpoint), None, out))
        return State(out.value)

    def endpoints(self) -> dict[int, Endpoint]:
        """All endpoints by id."""
        found: dict[int, Endpoint] = {}
        cursor, out = ctypes.c_uint32(0), ctypes.c_uint32()
        while True:
            code = core.pdr_endpoint_next(self._handle, cursor, out)
            if code == NOT_FOUND:
                return found
            check(code)
            try:
                found[out.value] = self.endpoint(out.value)
            except NotFoundError:  # removed meanwhile
                pass

    def target(self, endpoint: typing.Union[int, str], rank: int = 0, now_ns: typing.Optional[int] = None) -> TargetStatus:
        """What the router knows of one target."""
        out = TargetStatus()
        check(core.pdr_target_get(self._handle, self.id_of(endpoint), rank, self.now(now_ns), out))
        return out

    def apply(self, document: typing.Union[str, Buffer, dict[str, typing.Any], list[typing.Any]], prune: bool = False,
              now_ns: typing.Optional[int] = None) -> ApplyReport:
        """Endpoints from a JSON document (or what json.dumps takes): {"endpoints": […]}, or Kubernetes objects. All of it or nothing."""
        if isinstance(document, (dict, list)):
            document = json.dumps(document)
        raw: Buffer = document.encode() if isinstance(document, str) else document
        report, error = ApplyReport(), ErrorInfo()
        with View(raw) as view:
            code = core.pdr_apply_json(self._handle, view.address, view.size, Apply.PRUNE if prune else 0, self.now(now_ns), report, error)
        check(code, error)
        return report

    # ------------------------------------------------------------------------------------------------------------ reports

    def report(self, endpoint: typing.Union[int, str], kind: int, text: typing.Union[str, Buffer], now_ns: typing.Optional[int] = None) -> int:
        """An engine's answer as it came (kind: Report.…); how many of its values could not be used."""
        raw: Buffer = text.encode() if isinstance(text, str) else text
        ignored, error = ctypes.c_uint32(), ErrorInfo()
        with View(raw) as view:
            code = core.pdr_report_put(self._handle, self.id_of(endpoint), kind, view.address, view.size, self.now(now_ns), ignored, error)
        check(code, error)
        return ignored.value

    def load(self, endpoint: typing.Union[int, str], rank: int = 0, now_ns: typing.Optional[int] = None, **fields: int) -> None:
        """One target's load that the caller has read: fields of Load by name; those given count."""
        load = Load(**fields)
        for name in fields:
            load.have |= LOAD_FLAGS[name]
        error = ErrorInfo()
        check(core.pdr_load_put(self._handle, self.id_of(endpoint), rank, load, self.now(now_ns), error), error)

    # ------------------------------------------------------------------------------------------------------------- leases

    def lease(self, name: str, now_ns: typing.Optional[int] = None) -> RouterLease:
        return RouterLease(self, name, now_ns)

    def tick(self, now_ns: typing.Optional[int] = None) -> None:
        """About every 100 ms, from any process (Host.tick does more)."""
        check(core.pdr_tick(self._handle, self.now(now_ns)))

    # ------------------------------------------------------------------------------------------------------------ routing

    def route(self, body: Buffer, api: int = CHAT, *, lease: LeaseId = 0, now_ns: typing.Optional[int] = None, **more: typing.Any) -> Routed:
        """
        Scans, chooses a pair, books it: `routed.held` says whether it must wait. `more`: flags, priority, session, tenant, deadline_ns of Request,
        and exclude (ids). `body`: bytes, or anything with the buffer protocol, not copied.
        """
        try:
            call = self._calls.pop()
        except IndexError:
            call = Call()
        if more:
            set_more(call.request, more)
        owner: typing.Any = lease
        if owner.__class__ is not int:
            owner = owner.id
        if owner != call.lease or api != call.api:
            call.set_whose(api, owner)
        call.now.value = monotonic_ns() if now_ns is None else now_ns
        kind = body.__class__
        if kind is bytes:
            call.size.value = len(body)
            code = raw_route(self._handle, body, call.size, *call.refs)
        elif kind is bytearray:
            call.size.value = len(body)
            code = raw_route(self._handle, array_at(body), call.size, *call.refs)
        elif kind is memoryview:  # what _route_buffer() does, without the way there
            view: typing.Any = body
            owner = view.obj
            if owner.__class__ is bytes and len(owner) == view.nbytes and view.c_contiguous:
                call.size.value = len(owner)
                code = raw_route(self._handle, owner, call.size, *call.refs)
            elif not view.readonly and view.c_contiguous:
                call.size.value = view.nbytes
                code = raw_route(self._handle, array_at(view), call.size, *call.refs)
            else:
                held = call.view
                raw_get(boxed(view), held.ref, 0)
                try:
                    code = raw_route(self._handle, held.at, held.length, *call.refs)
                finally:
                    raw_release(held.ref)
        else:
            code = self._route_buffer(body, call)
        if code or more:
            error = call.clean(code)
            if error:
                self._calls.append(call)
                raise error
        routed = Routed()
        routed.router = self
        routed.body = body
        routed.hashes = None
        routed.booking = call.booking.value
        routed.data = call.results.raw
        self._calls.append(call)
        return routed

    def _route_buffer(self, body: Buffer, call: Call) -> int:
        at = pointer(body)
        if at is not None:
            raw: typing.Any = body
            call.size.value = raw.nbytes if raw.__class__ is memoryview else len(raw)
            return int(raw_route(self._handle, at, call.size, *call.refs))
        view = call.view
        view.hold(body)
        try:
            return int(raw_route(self._handle, view.at, view.length, *call.refs))
        finally:
            view.release()

    def route_prompt(self, prompt: Prompt, hashes: typing.Optional[Buffer] = None, api: typing.Optional[int] = None, *, lease: LeaseId = 0,
                     now_ns: typing.Optional[int] = None, **more: typing.Any) -> Decision:
        """The same after scan(), or with hashes of your own; and for retries."""
        request = Request(api=prompt.api if api is None else api, lease=lease if isinstance(lease, int) else lease.id, now_ns=self.now(now_ns))
        if more:
            set_more(request, more)
        error, decision = ErrorInfo(), new_decision()
        if hashes is None:
            code = core.pdr_route_prompt(self._handle, prompt, None, 0, request, decision, error)
        else:
            with View(hashes) as view:
                code = core.pdr_route_prompt(self._handle, prompt, view.address, words(view, "hashes"), request, decision, error)
        if code:
            raise error_of(code, error, decision.retry_after_ms)
        return decision

    def route_scanned(self, body: Buffer, api: int = CHAT, *, lease: LeaseId = 0, now_ns: typing.Optional[int] = None, **more: typing.Any) -> Routed:
        """As route(), and the hashes are kept, for retries and for requests that may be held. The limits are this router's."""
        scanned = scan(body, api, self._limits)
        decision = self.route_prompt(scanned.prompt, scanned.hashes, api, lease=lease, now_ns=now_ns, **more)
        return routed_of(self, body, scanned.prompt, decision, scanned.hashes)

    def route_batch(self, bodies: typing.Iterable[Buffer], api: int = CHAT, *, lease: LeaseId = 0, now_ns: typing.Optional[int] = None,
                    **more: typing.Any) -> list[typing.Union[Routed, Exception]]:
        """
        Routes many, in order: for each a Routed, or (in its place, nothing is raised) the Error that it met. What one of them books counts
        for the next.
        """
        now = monotonic_ns() if now_ns is None else now_ns
        call = self._calls.pop() if self._calls else Call()
        call.set_whose(api, lease if isinstance(lease, int) else lease.id)
        call.now.value = now
        set_more(call.request, more)
        size, handle, results, booking = call.size, self._handle, call.results, call.booking
        refs = call.refs
        out: list[typing.Union[Routed, Exception]] = []
        for body in bodies:
            if body.__class__ is bytes:
                size.value = len(body)
                code = raw_route(handle, body, size, *refs)
            else:
                code = self._route_buffer(body, call)
            if code:
                out.append(call.error_of(code))
                continue
            routed = Routed()
            routed.router = self
            routed.body = body
            routed.hashes = None
            routed.booking = booking.value
            routed.data = results.raw
            out.append(routed)
        call.clean(0)
        self._calls.append(call)
        return out

    def booking_done(self, booking: int, what: int = ALL, now_ns: typing.Optional[int] = None) -> None:
        """For callers without an Exchange: Done.PREFILL, Done.ALL."""
        code = core_done(self._handle, booking, what, monotonic_ns() if now_ns is None else now_ns)
        if code:
            raise error_of(code)

    # ------------------------------------------------------------------------------------------------------------ waiting

    def take(self, ticket: int, hashes: typing.Optional[Buffer] = None, now_ns: typing.Optional[int] = None) -> typing.Optional[Decision]:
        """Fetches a held request: its decision, or None while it waits. ExpiredError, NoPairError, NotFoundError."""
        decision, error = new_decision(), ErrorInfo()
        with View(hashes if hashes is not None else b"") as view:
            code = core.pdr_ticket_take(self._handle, ticket, view.address, words(view, "hashes"), self.now(now_ns), decision, error)
        if code in (AGAIN, BUSY):
            return None
        if code:
            raise error_of(code, error, decision.retry_after_ms)
        return decision

    def place(self, ticket: int, now_ns: typing.Optional[int] = None) -> Place:
        """Where a held request stands in the queue; NotFoundError: it is held no more. O(held): for people, not for every request."""
        out, error = Place(), ErrorInfo()
        code = core.pdr_ticket_place(self._handle, ticket, self.now(now_ns), out, error)
        if code:
            raise error_of(code, error)
        return out

    def cancel(self, ticket: int, now_ns: typing.Optional[int] = None) -> None:
        """Gives up a held request, or a booking that was never sent. Idempotent."""
        check(core.pdr_ticket_cancel(self._handle, ticket, self.now(now_ns)))

    def released(self, lease: LeaseId) -> list[int]:
        """Tickets of this lease that may go now, or were refused. Each is told once."""
        owner = lease if isinstance(lease, int) else lease.id
        found: list[int] = []
        tickets, n = _tickets_type(), ctypes.c_size_t()
        while True:
            n.value = MAX_RELEASED
            check(core.pdr_released(self._handle, owner, tickets, n))
            found += tickets[:n.value]
            if n.value < MAX_RELEASED:
                return found

    def wakeups(self) -> list[int]:
        """Leases with released tickets that were not told yet (Host.wake_pending tells them)."""
        leases, n = _leases_type(), ctypes.c_size_t(MAX_RELEASED)
        check(core.pdr_wakeups(self._handle, leases, n))
        return list(leases[:n.value])

    # ----------------------------------------------------------------------------------------------------------- prefixes

    def prefix_store(self, endpoint: typing.Union[int, str], hashes: Buffer, rank: int = 0) -> None:
        """The endpoint has stored these blocks."""
        with View(hashes) as view:
            check(core.pdr_prefix_store(self._handle, self.id_of(endpoint), rank, view.address, words(view, "hashes")))

    def prefix_remove(self, endpoint: typing.Union[int, str], hashes: Buffer, rank: int = 0) -> None:
        with View(hashes) as view:
            check(core.pdr_prefix_remove(self._handle, self.id_of(endpoint), rank, view.address, words(view, "hashes")))

    def prefix_clear(self, endpoint: typing.Union[int, str], rank: int = 0) -> None:
        check(core.pdr_prefix_clear(self._handle, self.id_of(endpoint), rank))

    def prefix_match(self, endpoint: typing.Union[int, str], hashes: Buffer, rank: int = 0) -> int:
        """Leading blocks that a target holds."""
        out = ctypes.c_size_t()
        with View(hashes) as view:
            check(core.pdr_prefix_match(self._handle, self.id_of(endpoint), rank, view.address, words(view, "hashes"), out))
        return out.value

    # ------------------------------------------------------------------------------------------------------------- seeing

    def explain(self, prompt: Prompt, hashes: typing.Optional[Buffer] = None, api: typing.Optional[int] = None, *,
                now_ns: typing.Optional[int] = None, **more: typing.Any) -> ExplainedPair:
        """What route_prompt() would decide now, and every candidate with every term of its cost. Decides and books nothing."""
        request = Request(api=prompt.api if api is None else api, now_ns=self.now(now_ns))
        set_more(request, more)
        error, decision = ErrorInfo(), new_decision()
        room, n = 128, ctypes.c_size_t()
        with View(hashes if hashes is not None else b"") as view:
            while True:
                out = (Candidate * room)()
                n.value = room
                code = core.pdr_explain(self._handle, prompt, view.address, words(view, "hashes"), request, decision, out, n, error)
                if code != NOSPACE or n.value <= room:
                    break
                room = n.value
        if code:
            raise error_of(code, error, decision.retry_after_ms)
        return ExplainedPair(decision, [each.copy() for each in out[:n.value]])

    def explain_place(self, prompt: Prompt, hashes: typing.Optional[Buffer] = None, api: typing.Optional[int] = None, *,
                      now_ns: typing.Optional[int] = None, **more: typing.Any) -> Place:
        """The place in the queue that route_prompt() would get now: outcome Outcome.HELD, Outcome.SEND (it would not wait) or Code.QUEUE_FULL."""
        request = Request(api=prompt.api if api is None else api, now_ns=self.now(now_ns))
        set_more(request, more)
        out, error = Place(), ErrorInfo()
        with View(hashes if hashes is not None else b"") as view:
            code = core.pdr_explain_place(self._handle, prompt, view.address, words(view, "hashes"), request, out, error)
        if code:
            raise error_of(code, error)
        return out

    def log(self, cursor: int = 0) -> typing.Iterator[tuple[int, LogRecord]]:
        """(cursor, record) of recent decisions, oldest first, from `cursor` on; ends at the newest. Go on later with the last cursor."""
        at = ctypes.c_uint64(cursor)
        while True:
            record = LogRecord()
            code = core.pdr_log_read(self._handle, at, record, None)
            if code == NOT_FOUND:
                return
            check(code)
            yield at.value, record

    def record(self, path: typing.Union[str, "os.PathLike[str]"]) -> Recording:
        """`with router.record("decisions.pdr") as recording:` and recording.read() often: a file for Replay and `pdroutectl replay`."""
        return Recording(self, path)

    def stats(self) -> Stats:
        out = Stats()
        check(core.pdr_stats_get(self._handle, out))
        return out

    def status(self, now_ns: typing.Optional[int] = None) -> dict[str, typing.Any]:
        """Everything, as the JSON object that the gateways show."""
        return typing.cast("dict[str, typing.Any]", json.loads(self.status_json(now_ns)))

    def status_json(self, now_ns: typing.Optional[int] = None) -> bytes:
        return self._text(core.pdr_status_json, now_ns)

    def status_prometheus(self, now_ns: typing.Optional[int] = None) -> bytes:
        return self._text(core.pdr_status_prometheus, now_ns)

    def _text(self, function: typing.Any, now_ns: typing.Optional[int]) -> bytes:
        size, need = 65536, ctypes.c_size_t()
        while True:
            out = bytearray(size)
            code = function(self._handle, self.now(now_ns), start(out), size, need)
            if code != NOSPACE:
                check(code)
                return memoryview(out)[:need.value].tobytes()
            size = need.value + need.value // 8 + 1024  # it may grow meanwhile

    def ready(self, now_ns: typing.Optional[int] = None) -> bool:
        """At least one pair is usable."""
        return int(core.pdr_ready(self._handle, self.now(now_ns))) == 1


# without argument types: what it gets is prepared (Call), and checking it anew costs as much as the decision
raw_route = core["pdr_route"]
core_done = core.pdr_booking_done


def set_more(request: Request, more: dict[str, typing.Any]) -> None:
    for name, value in more.items():
        if name == "exclude":
            ids = list(value)[:8]
            request.excluded = len(ids)
            request.exclude[:len(ids)] = ids
        elif name in ("flags", "priority", "session", "tenant", "deadline_ns"):
            setattr(request, name, value)
        else:
            raise TypeError(f"unexpected argument {name!r}")


def resolve(config: Config) -> Config:
    """Every zero replaced by its default, in place; InvalidError names a field that is out of range."""
    error = ErrorInfo()
    check(core.pdr_config_resolve(config, error), error)
    return config


def config_from_json(text: typing.Union[str, Buffer]) -> Config:
    """A configuration from JSON: members are the fields of Config by name. ParseError with offset and line."""
    raw: Buffer = text.encode() if isinstance(text, str) else text
    out, error = Config(), ErrorInfo()
    with View(raw) as view:
        code = core.pdr_config_from_json(view.address, view.size, out, error)
    check(code, error)
    return out


__all__ = ["Router", "RouterLease", "ExplainedPair", "config_from_json", "resolve"]
