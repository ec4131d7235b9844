"""
One client request with its exchange: what legs, client and clock do goes in as events, and the actions that come out are carried out. Nothing
is decided here. It outlives the request while prefill's answer is still read.
"""
from __future__ import annotations

import asyncio
import functools
import logging
import re
import typing
from time import monotonic_ns

from pdroute import (NONE, Act, ActionType, Api, BlockError, Decision, EndpointFlag, Error, EventType, Exchange, Head, LeaseError, Merge, Mode, NotFoundError,
                     Outcome, Prompt, PromptFlag, RequestFlag, ResponseKind, error_name, header_owned, merge_wanted, reason_name, reason_text, rewrite, rewrite_pieces,
                     tenant_hash)

from .client import ERROR, JOIN_MAX, PROTOCOL, Leg

if typing.TYPE_CHECKING:
    from array import array

    from .app import Gateway, Scope

log = logging.getLogger("pdroute_gateway")
SEND, CANCEL, DRAIN, RELAY = int(ActionType.SEND), int(ActionType.CANCEL), int(ActionType.DRAIN), int(ActionType.RELAY)
RESPOND, ROUTE, ABORT, FINISH = int(ActionType.RESPOND), int(ActionType.ROUTE), int(ActionType.ABORT), int(ActionType.FINISH)
CLIENT_GONE, TICK, HEAD, END = int(EventType.CLIENT_GONE), int(EventType.TICK), int(EventType.HEAD), int(EventType.END)
TLS, NO_HOLD = int(EndpointFlag.TLS), int(RequestFlag.NO_HOLD)
HELD, SINGLE = int(Outcome.HELD), int(Mode.SINGLE)
HEAD_MERGED = int(Head.MERGED)
OTHER, RETURN_LOGPROB = int(Api.OTHER), int(PromptFlag.RETURN_LOGPROB)
MERGE_MAX = 64 << 20  # longer answers of prefill are not kept
HOP = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection", b"expect", b"te", b"trailer", b"upgrade",
                 b"http2-settings", b"proxy-authorization"))

owned = functools.lru_cache(1024)(header_owned)


class Answer(typing.NamedTuple):
    """One of the gateway's own."""
    status: int
    code: str
    message: str
    retry_after_ms: int = 0


def answer_to(error: Error) -> Answer:
    retry = error.retry_after_ms or (1000 if error.http_status in (429, 503) else 0)
    return Answer(error.http_status, error_name(error.code), str(error), retry)


def headers_to_send(given: list[tuple[bytes, bytes]], api: int) -> bytes:
    """The client's headers that pass, as lines (RFC 9110 section 7.6.1: those named in Connection end here)."""
    named: set[bytes] = set()
    for name, value in given:
        if name == b"connection":
            named.update(each.strip().lower() for each in value.split(b","))
    lines = []
    for name, value in given:
        # an answer whose usage is to be read cannot be compressed
        if name in HOP or name in named or owned(name) or (name == b"accept-encoding" and api != OTHER):
            continue
        lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"\r\n"]) if lines else b"\r\n"


class Job:
    __slots__ = ("gateway", "scope", "api", "body", "prompt", "hashes", "decision", "exchange", "legs", "relay", "actions", "running", "answer", "abort",
                 "gone", "finished", "served", "headers", "waiter", "watch", "attempts", "held_ns", "ticket", "why", "head_request", "raw", "names",
                 "sent", "status", "began", "merging", "prefill_body", "merge", "abort_status", "abort_text", "sending", "tenant", "merge_kept", "merge_tail", "kept")

    def __init__(self, gateway: Gateway, scope: Scope, api: int, body: bytes) -> None:
        self.gateway, self.scope, self.api, self.body = gateway, scope, api, body
        self.prompt: typing.Any = None
        self.hashes: typing.Optional[array[int]] = None
        self.decision: typing.Any = None
        self.exchange: typing.Optional[Exchange] = None
        self.legs: list[typing.Optional[Leg]] = [None, None]
        self.relay: typing.Optional[Leg] = None     # the leg that answers the client
        self.actions: list[Act] = []
        self.running = self.gone = self.finished = self.served = self.raw = self.sent = False
        self.answer: typing.Optional[Answer] = None  # …or we do
        self.abort = ""                              # reason, when a begun answer cannot be completed
        self.headers: typing.Optional[bytes] = None
        self.waiter: typing.Optional[asyncio.Future[None]] = None
        self.watch: typing.Optional[asyncio.Task[None]] = None
        self.attempts = self.held_ns = self.ticket = self.status = 0
        self.why = ""
        self.head_request = scope["method"] == "HEAD"
        self.names = ["", ""]
        self.began = monotonic_ns()
        self.tenant = 0
        if gateway.config.tenant_header:
            self.tenant = next(filter(None, (tenant_hash(gateway.config, name, value) for name, value in scope["headers"])), 0)
        self.abort_status, self.abort_text = 502, ""
        self.merge_kept: list[bytes] = []            # of decode's stream, the event that is not whole yet
        self.merge_tail = b""                        # its last two bytes
        self.sending = False                         # the client has not yet taken what was sent
        self.merging: bool = False                   # the answer takes both legs'
        self.prefill_body: list[bytes] = []
        self.merge: typing.Optional[Merge] = None
        self.kept = b""                              # of a stream: the beginning of an error event

    # ------------------------------------------------------------------------------------------------------------- deciding

    def decide(self, flags: int) -> Decision:
        session = self.gateway.session
        exclude = self.exchange.exclude if self.exchange else ()
        try:
            return session.router.route_prompt(self.prompt, self.hashes, self.api, lease=session.lease_id, flags=flags, exclude=exclude, tenant=self.tenant)
        except (BlockError, LeaseError):  # the block is another, or this process was stopped for so long that its lease ended
            session.renew()
            return session.router.route_prompt(self.prompt, self.hashes, self.api, lease=session.lease_id, flags=flags, exclude=exclude, tenant=self.tenant)

    def decided(self, decision: Decision) -> None:
        self.decision = decision
        self.attempts += 1
        if self.prompt.flags & RETURN_LOGPROB:
            self.merging = self.api != OTHER and merge_wanted(decision, self.prompt)
            self.prefill_body = []  # of an attempt that failed
        peer = self.gateway.client.peer
        single = decision.mode == SINGLE
        self.names = ["" if single else peer(decision.prefill_host, decision.prefill_port, bool(decision.prefill_flags & TLS)).name,
                      peer(decision.decode_host, decision.decode_port, bool(decision.decode_flags & TLS)).name]

    def route(self) -> None:
        """Where to? Sends, waits, or answers."""
        try:
            decision = self.decide(0)
        except Error as error:
            self.respond(answer_to(error))
            return
        if decision.outcome == HELD:
            self.ticket = decision.booking
            self.held_ns = self.held_ns or monotonic_ns()
            self.gateway.session.hold(self.ticket, self.take)
        else:
            self.begin(decision)

    def take(self) -> None:
        """The ticket may go, or was refused."""
        if not self.ticket:
            return
        router = self.gateway.session.router
        try:
            decision = router.take(self.ticket, self.hashes)
        except NotFoundError:  # the lease ended meanwhile: in line again
            self.ticket = 0
            self.route()
            return
        except Error as error:
            self.ticket = 0
            self.held_ns = monotonic_ns() - self.held_ns
            self.respond(answer_to(error))
            return
        if decision is None:
            self.gateway.session.hold(self.ticket, self.take, again=True)
            return
        self.ticket = 0
        self.held_ns = monotonic_ns() - self.held_ns
        self.begin(decision)

    def begin(self, decision: Decision) -> None:
        self.decided(decision)
        session = self.gateway.session
        try:
            self.exchange = Exchange(session.router, decision, session.lease_id)
        except Error as error:
            session.router.cancel(decision.booking)
            self.respond(answer_to(error))
            return
        self.push(self.exchange.start)
        self.run()

    # ------------------------------------------------------------------------------------------------------------- exchange

    def event(self, kind: int, leg: typing.Optional[Leg] = None, detail: int = 0) -> None:
        exchange = self.exchange
        if exchange is None or self.finished:
            return
        if leg is None:
            relay, now, last = self.relay, monotonic_ns(), 0
            if kind == TICK and relay is not None:
                last = now if relay.paused or self.sending else relay.last_ns  # what waits for the client does not wait for the worker
            actions = exchange.event(kind, now_ns=now, last_byte_ns=last)
        else:
            usage, gap, reader = None, 0, leg.reader
            if kind == END and reader is not None:
                usage = reader.usage
                if reader.struct.flags & ERROR:
                    detail = PROTOCOL
            if kind == HEAD and self.merging:
                detail = HEAD_MERGED
            if kind == END and leg is self.relay:
                gap = max(leg.gap_ns // 1000000, 1)
            actions = exchange.event(kind, leg.which, leg.status, detail, leg.attempt, None, leg.retry_after_ms, usage, 0, gap)
        if actions:
            self.push(actions)
            self.run()

    def push(self, actions: list[Act]) -> None:
        for act in actions:
            if act.type == CANCEL:  # a leg that was not even started needs no start
                self.actions = [a for a in self.actions if not (a.type == SEND and a.leg == act.leg)]
            self.actions.append(act)

    def run(self) -> None:
        if self.running:
            return
        self.running = True
        try:
            while self.actions:
                act = self.actions.pop(0)
                kind = act.type
                if kind == SEND:
                    self.send(act.leg)
                elif kind == RELAY:
                    leg = self.relay = self.legs[act.leg]
                    if leg is not None:
                        leg.relay = True
                        self.wake()
                elif kind == DRAIN:
                    leg = self.legs[act.leg]
                    if leg is not None:
                        leg.drain = True  # what has come is thrown away by progress(), which may be on the stack
                elif kind == CANCEL:
                    self.cancel(act.leg)
                elif kind == ROUTE:
                    if not self.sent:
                        self.relay = None  # thrown away, if it waited for prefill's
                    self.reroute()
                elif kind == RESPOND:
                    self.respond(Answer(act.status, reason_name(act.reason), reason_text(act.reason), act.retry_after_ms))
                elif kind == ABORT:
                    self.abort = self.why = reason_name(act.reason)
                    self.abort_text = reason_text(act.reason)
                    self.abort_status = act.status or 502
                    self.wake()
                elif kind == FINISH:
                    self.finish()
        finally:
            self.running = False
        self.gateway.session.host.wake_pending()

    def send(self, which: int) -> None:
        d, gateway = self.decision, self.gateway
        prefill = which == 0
        flags = d.prefill_flags if prefill else d.decode_flags
        peer = gateway.client.peer(d.prefill_host if prefill else d.decode_host, d.prefill_port if prefill else d.decode_port, bool(flags & TLS))
        assert self.exchange is not None
        leg = self.legs[which] = Leg(self, which, self.exchange.attempt, peer, self.request(which, peer.name))
        gateway.client.start(leg)

    def request(self, which: int, host: str) -> list[typing.Any]:
        """The bytes of a leg's request, in pieces."""
        scope, body = self.scope, self.body
        if self.headers is None:
            self.headers = headers_to_send(scope["headers"], self.api)
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        if not body:
            pieces: list[typing.Any] = []
        elif self.raw:
            pieces = [body]
        elif len(body) <= JOIN_MAX:
            pieces = [rewrite(self.decision, self.prompt, which, body)]
        else:
            pieces = rewrite_pieces(self.decision, self.prompt, which, body)
        has_body = bool(body) or any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        length = b"Content-Length: %d\r\n" % sum(map(len, pieces)) if has_body else b""
        head = b"%s %s HTTP/1.1\r\nHost: %s\r\n%s%s" % (scope["method"].encode(), target, host.encode(), length, self.headers)
        if len(pieces) == 1 and len(body) <= JOIN_MAX:
            return [head + pieces[0]]
        return [head, *pieces]

    def cancel(self, which: int) -> None:
        leg = self.legs[which]
        if leg is None:
            return
        leg.cancel()
        if leg is self.relay and not self.sent:  # thrown away with what was collected of it
            self.relay = None

    def reroute(self) -> None:
        assert self.exchange is not None
        if self.gone:
            self.event(CLIENT_GONE)
            return
        decision, code = None, 0
        try:
            decision = self.decide(NO_HOLD)
        except Error as error:
            code = error.code
        if decision is not None:
            self.decided(decision)
            if self.exchange.router is not self.gateway.session.router:
                self.exchange.move(self.gateway.session.router)
        try:
            self.push(self.exchange.rerouted(decision, code))
        except Error as error:
            self.respond(answer_to(error))
            self.finish()

    def finish(self) -> None:
        """Its books are closed. What still goes to the client goes on; nothing else should be open."""
        self.finished = True
        for leg in self.legs:
            if leg is not None and leg is not self.relay and not leg.told_end:
                leg.cancel()
        self.gateway.forget(self)

    # ---------------------------------------------------------------------------------------- answers that take both legs'

    def keep_prefill(self, chunks: list[bytes]) -> None:
        self.prefill_body += chunks
        if sum(map(len, self.prefill_body)) > MERGE_MAX:  # decode's passes as it is
            self.merging, self.prefill_body = False, []

    def merge_waits(self, leg: Leg) -> bool:
        """Prefill's answer is still to come, so decode's is not passed on yet."""
        prefill = self.legs[0]
        return (self.merging and leg.which == 1 and leg.status == 200 and not self.finished and prefill is not None and prefill.attempt == leg.attempt
                and not prefill.over and not prefill.told_end)

    def merges(self, leg: Leg) -> bool:
        return self.merging and leg.which == 1 and leg.status == 200 and not leg.encoded and (leg.json or leg.event_stream)

    def merged(self, leg: Leg, piece: bytes, last: bool) -> bytes:
        """What can be passed on; the rest of an event stays here."""
        if self.merge is None:
            self.merge = Merge(self.api, ResponseKind.SSE if leg.event_stream else ResponseKind.JSON)
            self.prefill_body = [b"".join(self.prefill_body)]
        ready = len(piece) if last else self.event_end(piece) if leg.event_stream else 0
        self.merge_kept.append(piece[:ready] if ready else piece)
        if not ready and not last:
            return b""
        whole, self.merge_kept = b"".join(self.merge_kept), [piece[ready:]]
        return self.merge.text(self.prefill_body[0], whole) if whole else b""

    def event_end(self, text: bytes) -> int:
        """How much of what has come now belongs to whole events, 0: none has ended. Only new bytes are looked at."""
        window = self.merge_tail + text
        ends = [at + len(mark) for mark in (b"\n\n", b"\n\r\n") if (at := window.rfind(mark)) >= 0]
        ready = max(ends) - len(self.merge_tail) if ends else 0
        self.merge_tail = window[max(ends):][-2:] if ends else window[-2:]
        return ready

    def tick(self, now: int) -> None:
        exchange = self.exchange
        if exchange is not None and not self.finished:
            deadline = exchange.deadline()
            if deadline is not None and deadline <= now:
                self.event(TICK)
        elif self.ticket and self.ticket not in self.gateway.session.waiting:
            self.take()

    # --------------------------------------------------------------------------------------------------------------- client

    def respond(self, answer: Answer) -> None:
        self.answer = answer
        self.why = answer.code
        self.wake()

    def give_up(self, message: str) -> None:
        """This process has not what a leg needs: no server is blamed."""
        log.error("%s", message)
        self.respond(Answer(503, "gateway_overloaded", message, 1000))
        self.event(CLIENT_GONE)

    def wake(self) -> None:
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter
        self.waiter = None

    def leave(self) -> None:
        """The client is gone."""
        if self.gone or self.served:
            return
        self.gone = True
        ticket, self.ticket = self.ticket, 0
        if ticket:
            try:
                self.gateway.session.unhold(ticket)
            except Error as error:  # a block that is gone has no place to give up
                log.warning("ticket of a client that left: %s", error)
        self.event(CLIENT_GONE)
        self.wake()

    def entry(self) -> dict[str, typing.Any]:
        """For the access log."""
        d, query = self.decision, self.scope["query_string"].decode("latin-1")
        out: dict[str, typing.Any] = {"uri": self.scope["path"] + ("?" + query if query else ""), "status": 499 if self.gone and not self.sent else self.status,
                                      "prefill": self.names[0], "decode": self.names[1], "room": "", "hit": "", "attempts": str(self.attempts)}
        why = [self.why] if self.why else []
        if self.held_ns and self.attempts:
            why.append(f"held={self.held_ns // 1000}")
        if d is not None:
            if d.mode != SINGLE and d.prefill != NONE:
                out["room"] = str(d.room)
            out["hit"] = f"{d.matched_tokens}/{d.prompt_tokens}"
            why.append(f"wait={d.wait_us} prefill={d.prefill_us} transfer={d.transfer_us} decode={d.decode_us} cost={d.cost_us} pairs={d.candidates}")
        out["why"] = " ".join(why)
        out["seconds"] = round((monotonic_ns() - self.began) / 1e9, 6)
        return out


BOM = re.compile(rb"[\s\0\xef\xbb\xbf\xfe\xff]*")


def is_object(body: bytes, content_type: bytes) -> bool:
    """Whether an engine could take it for a JSON object, and so find owned members in it. Python's json takes a byte order mark, UTF-16 and UTF-32 too."""
    at = BOM.match(body)
    first = body[at.end():at.end() + 1] if at else b""
    if first in (b"", b"["):
        return False
    return first == b"{" or b"json" in content_type.lower()


EMPTY = Prompt(api=OTHER, batch=1, samples=1)
