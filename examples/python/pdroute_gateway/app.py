"""The ASGI application: paths, bodies, answers; and the life of a process."""
from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
import typing
from pathlib import Path
from time import monotonic, monotonic_ns

from pdroute import Api, Error, EventType, HostFlag, ParseError, TooLargeError, config_from_json, error_body, error_event, error_mask, limits_of, resolve, scan
from pdroute.aio import Session

from .client import CONNECT, PROTOCOL, RESET, STALE, TIMEOUT, Client, Leg
from .job import EMPTY, Answer, Job, answer_to, is_object
from .settings import Settings

Scope = typing.Dict[str, typing.Any]
Message = typing.Dict[str, typing.Any]
Receive = typing.Callable[[], typing.Awaitable[Message]]
Send = typing.Callable[[Message], typing.Awaitable[None]]

log = logging.getLogger("pdroute_gateway")
APIS = {"/v1/chat/completions": int(Api.CHAT), "/v1/completions": int(Api.COMPLETIONS), "/generate": int(Api.GENERATE)}
WATCH = 0.03  # seconds until a request is one that lasts: most are over by then, and a client's leaving is to be told within 50 ms
OTHER, GENERATE = int(Api.OTHER), int(Api.GENERATE)
SENT = int(EventType.SENT)
JSON = b"application/json"
PROMETHEUS = b"text/plain; version=0.0.4; charset=utf-8"
# of an answer: what belongs to the worker's connection, and what the server in front of us writes itself
NOT_PASSED = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"server", b"date"))
SAID = {CONNECT: "no connection", STALE: "kept connection was closed", RESET: "connection was closed", TIMEOUT: "timed out", PROTOCOL: "answer is not HTTP, or an error"}


class Gateway:
    """`app = Gateway()`: one per process."""

    def __init__(self, settings: typing.Optional[Settings] = None) -> None:
        self.settings = settings or Settings()
        self.jobs: set[Job] = set()
        self.idle = asyncio.Event()
        self.time = monotonic()  # of the last tick: exact enough for timeouts
        self.session: Session
        self.client: Client
        self.out: typing.Optional[typing.BinaryIO] = None

    # ----------------------------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        raise_limit()
        settings = self.settings
        config, text = None, b""
        if settings.config:
            text = Path(settings.config).read_bytes()
            try:
                config = resolve(config_from_json(text))
            except Error as error:
                raise RuntimeError(f"{settings.config}{f':{error.line}' if error.line else ''}: {error.message}") from None
        flags = HostFlag.CREATE | HostFlag.RESTORE | (HostFlag.RECREATE if settings.recreate else 0)
        try:
            self.session = Session(settings.block, config, flags, f"python gateway {os.getpid()}")
            self.text = text
            self.apply()
        except Error as error:
            raise RuntimeError(f"{settings.block}: {error.message}") from None
        self.config = self.session.router.config()
        self.limits = limits_of(self.config)
        self.max_body = self.limits.max_body
        self.client = Client(settings.connect_timeout, settings.keepalive, settings.keepalive_timeout)
        if settings.access_log:
            self.out = sys.stdout.buffer if settings.access_log == "-" else open(settings.access_log, "ab", buffering=0)
        self.idle = asyncio.Event()
        self.session.on_tick.append(self.tick)
        self.session.on_follow.append(self.followed)
        await self.session.start()

    def apply(self) -> None:
        if self.text:
            report = self.session.router.apply(self.text)
            for i in range(min(report.warnings, 8)):
                log.warning("%s: %s", self.settings.config, report.warning[i].value.decode("utf-8", "replace"))

    def followed(self) -> None:
        """The block is another, without our servers."""
        try:
            self.apply()
        except Error as error:
            log.error("%s: %s", self.settings.config, error.message)

    async def stop(self) -> None:
        """Answers of prefill that are still read are read to their end first."""
        while self.jobs:
            self.idle.clear()
            await self.idle.wait()
        self.client.close()
        await self.session.close()
        if self.out is not None and self.out is not sys.stdout.buffer:
            self.out.close()

    async def lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.start()
                except (RuntimeError, OSError) as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def forget(self, job: Job) -> None:
        self.jobs.discard(job)
        if not self.jobs:
            self.idle.set()

    def tick(self) -> None:
        """Every 100 ms: deadlines, silence, kept connections."""
        self.time = monotonic()
        now = monotonic_ns()
        silent = now - int(self.settings.read_timeout * 1e9)
        for job in list(self.jobs):
            job.tick(now)
            for leg in job.legs:
                if leg is not None and leg.told_body and leg.last_ns < silent and not leg.paused and not leg.told_end:
                    leg.fail(TIMEOUT)
        self.client.expire()

    def begin_watch(self, job: Job, receive: Receive) -> None:
        """It lasts: whether its client is still there."""
        if not job.served:
            job.watch = asyncio.get_running_loop().create_task(self.watch(job, receive))

    @staticmethod
    async def watch(job: Job, receive: Receive) -> None:
        while not job.served:
            message = await receive()
            if message["type"] == "http.disconnect":
                job.leave()
                return

    def complain(self, leg: Leg, detail: int) -> None:
        level = logging.INFO if detail == STALE else logging.WARNING
        log.log(level, "%s %s: %s", "prefill" if leg.which == 0 else "decode", leg.peer.name, SAID[detail])

    # ------------------------------------------------------------------------------------------------------------- requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            await self.http(scope, receive, send)
        elif kind == "lifespan":
            await self.lifespan(receive, send)
        else:
            raise RuntimeError(f"{kind} is not served")

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        api = APIS.get(path, OTHER)
        if api == OTHER:
            local = self.local(path, scope)
            if local is not None:
                if method not in ("GET", "HEAD"):
                    local = (405, JSON, error_body(405, "method_not_allowed", "this path takes GET requests"), 0)
                await self.send_own(send, *local)
                return
        elif method != "POST" and not (api == GENERATE and method == "PUT"):
            await self.send_own(send, 405, JSON, error_body(405, "method_not_allowed", "this path takes POST requests"), allow=b"POST")
            return
        try:
            body = await self.body_in_time(scope, receive)
        except (TooLargeError, TimeoutError) as error:
            job = Job(self, scope, api, b"")
            answer = answer_to(error) if isinstance(error, TooLargeError) else Answer(408, "request_timeout", "the body was not there in time")
            await self.send_answer(job, send, answer)
            self.note(job)
            return
        if body is None:
            return
        job = Job(self, scope, api, body)
        self.jobs.add(job)
        watch = asyncio.get_running_loop().call_later(WATCH, self.begin_watch, job, receive)
        try:
            self.decide(job)
            await self.serve(job, send)
        finally:
            job.served = True
            watch.cancel()
            if job.watch is not None:
                job.watch.cancel()
            if job.exchange is None:
                self.forget(job)
            elif not job.finished and job.status == 0:  # cancelled by the server around us
                job.served = False
                job.leave()
            self.note(job)

    async def body_in_time(self, scope: Scope, receive: Receive) -> typing.Optional[bytes]:
        """All of it, however it comes; None: the client left. TimeoutError."""
        task, late = asyncio.current_task(), False

        def give_up() -> None:
            nonlocal late
            late = True
            if task is not None:
                task.cancel()

        timer = asyncio.get_running_loop().call_later(self.settings.body_timeout, give_up)
        try:
            return await self.body(scope, receive)
        except asyncio.CancelledError:
            if not late:
                raise
            uncancel = getattr(task, "uncancel", None)  # Python 3.11
            if uncancel is not None:
                uncancel()
            raise TimeoutError from None
        finally:
            timer.cancel()

    async def body(self, scope: Scope, receive: Receive) -> typing.Optional[bytes]:
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self.max_body:
                raise TooLargeError(f"the body has {int(value)} bytes, at most {self.max_body} are taken")
        message = await receive()
        if message["type"] != "http.request":
            return None
        first: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return first
        pieces, size = [first], len(first)
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":
                return None
            piece = message.get("body", b"")
            size += len(piece)
            if size > self.max_body:
                raise TooLargeError(f"the body has more than {self.max_body} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def decide(self, job: Job) -> None:
        body = job.body
        try:
            if job.api == OTHER and not is_object(body, next((v for n, v in job.scope["headers"] if n == b"content-type"), b"")):
                job.raw = True
                job.prompt = EMPTY
            else:
                scanned = scan(body, job.api, self.limits)
                job.prompt, job.hashes = scanned.prompt, scanned.hashes
        except Error as error:
            job.respond(COMPRESSED if isinstance(error, ParseError) and is_compressed(job.scope) else answer_to(error))
            return
        job.route()

    # -------------------------------------------------------------------------------------------------------------- answers

    async def serve(self, job: Job, send: Send) -> None:
        """Passes on what the exchange says, until the client has its answer or is gone."""
        while True:
            leg = job.relay
            if job.gone:
                return
            if job.answer is not None and not job.sent:
                await self.send_answer(job, send, job.answer)
                return
            if job.abort:
                await self.send_abort(job, send, leg)
                return
            if leg is not None and (leg.chunks or leg.complete) and not job.merge_waits(leg) and not waits_for_mask(leg):
                merges = job.merges(leg)
                if not job.sent:
                    job.sent = True
                    job.event(SENT)
                    job.status = leg.status
                    job.sending = True
                    await send({"type": "http.response.start", "status": leg.status, "headers": headers_of(leg, merges)})
                    job.sending = False
                    continue  # much may have happened meanwhile
                chunks, leg.chunks = leg.chunks, []
                last = leg.complete
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                if leg.event_stream and leg.status == 200 and leg.reader is not None:
                    body, job.kept = leg.reader.mask(job.kept + body, job.decision, last)
                if merges:
                    body = job.merged(leg, body, last)
                else:
                    if leg.status >= 400 and not leg.encoded:
                        body = error_mask(body, job.decision)
                if body or last:
                    job.sending = True
                    await send({"type": "http.response.body", "body": body, "more_body": not last})
                    job.sending = False
                leg.resume()
                if last:
                    return
                continue
            await job.wait()

    async def send_answer(self, job: Job, send: Send, answer: Answer) -> None:
        job.status = answer.status
        job.why = answer.code
        await self.send_own(send, answer.status, JSON, error_body(answer.status, answer.code, answer.message), answer.retry_after_ms)

    async def send_abort(self, job: Job, send: Send, leg: typing.Optional[Leg]) -> None:
        """An error event if it is a stream; then the server closes the connection, since the answer is not complete."""
        if leg is not None and leg.whole():  # all was said, only the connection's end was missing
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif leg is not None and leg.event_stream:
            event = error_event(job.api, job.abort_status, job.abort, job.abort_text)
            await send({"type": "http.response.body", "body": event, "more_body": True})

    @staticmethod
    async def send_own(send: Send, status: int, kind: bytes, body: bytes, retry_after_ms: int = 0, allow: bytes = b"") -> None:
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if retry_after_ms:
            headers.append((b"retry-after", b"%d" % ((retry_after_ms + 999) // 1000)))
        if allow:
            headers.append((b"allow", allow))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def note(self, job: Job) -> None:
        if self.out is not None:
            self.out.write(json.dumps({**job.entry(), "pid": os.getpid()}).encode() + b"\n")
            self.out.flush()

    def local(self, path: str, scope: Scope) -> typing.Optional[tuple[int, bytes, bytes, int]]:
        """Paths that the gateway answers itself: (status, type, body, retry after); None: not one of these."""
        if path == "/liveness":
            return 200, JSON, b'{"status":"ok"}\n', 0
        if path in ("/readiness", "/health"):
            if self.session.router.ready():
                return 200, JSON, b'{"status":"ok"}\n', 0
            return 503, JSON, b'{"status":"no prefill and decode server is available at present"}\n', 1000
        if path not in ("/pdroute", "/metrics"):
            return None
        try:
            if path == "/metrics" or wants_prometheus(scope):
                return 200, PROMETHEUS, self.session.router.status_prometheus(), 0
            return 200, JSON, self.session.router.status_json(), 0
        except Error as error:
            answer = answer_to(error)
            return 503, JSON, error_body(503, answer.code, answer.message), 1000


def raise_limit() -> None:
    """As many descriptors as the system allows, as servers do: with none left libuv, under uvloop, resets clients that it has accepted, and nobody is asked."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays %d: %s", soft, error)


COMPRESSED = Answer(415, "unsupported_media_type", "the body is compressed (Content-Encoding), which is not understood here: send it as it is")


def is_compressed(scope: Scope) -> bool:
    return any(name == b"content-encoding" and value and value.lower() != b"identity" for name, value in scope["headers"])


def waits_for_mask(leg: Leg) -> bool:
    """An error goes to the client masked, for which all of it must be there, if it is of ordinary length."""
    return leg.status >= 400 and not leg.complete and sum(map(len, leg.chunks)) < 65536


def headers_of(leg: Leg, merges: bool = False) -> list[tuple[bytes, bytes]]:
    headers = [each for each in leg.headers if each[0] not in NOT_PASSED and not (merges and each[0] == b"content-length")]
    if leg.event_stream:
        headers.append((b"x-accel-buffering", b"no"))
    return headers


def wants_prometheus(scope: Scope) -> bool:
    query = scope["query_string"].split(b"&")
    if any(each.startswith(b"format=") for each in query):
        return b"format=prometheus" in query
    return any(name == b"accept" and (value.startswith(b"text/plain") or b"openmetrics" in value) for name, value in scope["headers"])
