"""
The HTTP client for the legs: asyncio connections, their answers parsed by httptools (llhttp or http-parser in C), kept-alive connections per worker.

A leg of its own rather than a client library, for three reasons. It tells a refused connection from one that broke and from a kept one that was closed
(docs/exchange.md counts them differently). A refusal on this machine is known before the other leg is asked. And it costs a tenth: README.md has the figures.
"""
from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
import typing
from email.utils import parsedate_to_datetime
from time import monotonic, monotonic_ns, time

import httptools  # type: ignore[import]  # has no types
from pdroute import EventType, Fail, Response, ResponseKind, Seen, error_status

if typing.TYPE_CHECKING:
    from .job import Job

HEAD, BODY, END, FAILED = int(EventType.HEAD), int(EventType.BODY), int(EventType.END), int(EventType.FAILED)
CONNECT, STALE, RESET, TIMEOUT, PROTOCOL = int(Fail.CONNECT), int(Fail.STALE), int(Fail.RESET), int(Fail.TIMEOUT), int(Fail.PROTOCOL)
FIRST_TOKEN, ERROR, DONE = int(Seen.FIRST_TOKEN), int(Seen.ERROR), int(Seen.DONE)
PREFILL = 0
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
BAD_VALUE = re.compile(rb"[\0\r\n]").search
QUEUE_MAX = 262144  # bytes of an answer that wait for a slow client before reading stops
OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))  # why no connection comes about, and no worker is to blame
JOIN_MAX = 16384    # bodies up to this are sent in one piece with their head


def retry_after_ms(value: bytes) -> int:
    """Seconds, or a date; 0: not said, in the past, or neither."""
    if value.isdigit():
        return min(int(value[:10]), 10**9) * 1000
    try:
        return max(int((parsedate_to_datetime(value.decode("latin-1")).timestamp() - time()) * 1000), 0)
    except (ValueError, OverflowError):
        return 0


class Peer:
    """A worker's address, with its idle connections, the latest last."""

    def __init__(self, host: str, port: int, tls: bool) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.idle: list[Connection] = []
        self.family = family_of(host)

    def flush(self) -> None:
        """The worker was restarted: its kept connections are all of the same age."""
        for connection in self.idle:
            connection.close()
        self.idle.clear()


def family_of(host: str) -> typing.Optional[int]:
    """None: a name, to be looked up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return int(family)
        except OSError:
            pass
    return None


class Client:
    """All connections to workers of this process."""

    def __init__(self, connect_timeout: float, keepalive: int, keepalive_timeout: float) -> None:
        self.connect_timeout, self.keepalive, self.keepalive_timeout = connect_timeout, keepalive, keepalive_timeout
        self.peers: dict[tuple[str, int, bool], Peer] = {}
        self.context: typing.Optional[ssl.SSLContext] = None

    def peer(self, host: str, port: int, tls: bool) -> Peer:
        key = (host, port, tls)
        found = self.peers.get(key)
        if found is None:
            found = self.peers[key] = Peer(host, port, tls)
        return found

    def expire(self) -> None:
        """Closes what was kept too long, and forgets peers without connections."""
        oldest = monotonic() - self.keepalive_timeout
        for key, peer in list(self.peers.items()):
            while peer.idle and peer.idle[0].since < oldest:
                peer.idle.pop(0).close()
            if not peer.idle:
                del self.peers[key]

    def close(self) -> None:
        for peer in self.peers.values():
            peer.flush()

    def keep(self, connection: Connection) -> None:
        peer = connection.peer
        if self.keepalive <= len(peer.idle):
            connection.close()
            return
        connection.since = monotonic()
        self.peers.setdefault((peer.host, peer.port, peer.tls), peer)
        peer.idle.append(connection)

    def start(self, leg: Leg) -> None:
        """Sends on a kept connection, or on a new one. A refusal that is known at once is reported before this returns."""
        peer = leg.peer
        while peer.idle:
            connection = peer.idle.pop()
            if not connection.transport.is_closing():
                leg.cached = True
                connection.begin(leg)
                return
        sock = None
        if peer.family is not None:
            try:
                sock = socket.socket(peer.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
            except OSError as error:  # no descriptor left: not the worker's fault, and the same with every other
                leg.job.give_up(f"the gateway cannot open a connection: {os.strerror(error.errno or 0)}")
                return
            code = sock.connect_ex((peer.host, peer.port))
            if code not in (0, errno.EINPROGRESS):
                sock.close()
                leg.fail(CONNECT)
                return
        leg.task = asyncio.get_running_loop().create_task(self.connect(leg, sock))

    async def connect(self, leg: Leg, sock: typing.Optional[socket.socket]) -> None:
        loop, peer = asyncio.get_running_loop(), leg.peer
        try:
            if peer.tls and self.context is None:
                self.context = ssl.create_default_context()
            more: dict[str, typing.Any] = {"ssl": self.context, "server_hostname": peer.host} if peer.tls else {}
            where: dict[str, typing.Any] = {"host": peer.host, "port": peer.port}
            if sock is not None:
                await asyncio.wait_for(connected(loop, sock), self.connect_timeout)
                where, sock = {"sock": sock}, None  # from here on the loop closes it
            _, connection = await asyncio.wait_for(loop.create_connection(lambda: Connection(self, peer), **where, **more), self.connect_timeout)
        except (OSError, asyncio.TimeoutError) as error:
            if sock is not None:
                sock.close()
            leg.task = None
            if isinstance(error, OSError) and error.errno in OURS:
                leg.job.give_up(f"the gateway cannot open a connection: {os.strerror(error.errno)}")
            else:
                leg.fail(CONNECT)
        except asyncio.CancelledError:
            if sock is not None:
                sock.close()
            raise
        else:
            leg.task = None
            if leg.over:
                self.keep(connection)
            else:
                connection.begin(leg)


async def connected(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Waits until connect() is through; OSError if it failed."""
    ready = loop.create_future()
    loop.add_writer(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_writer(sock)
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "connect")


class Connection(asyncio.Protocol):
    """One connection to a worker, one answer after the other. The parser calls its on_… methods."""

    def __init__(self, client: Client, peer: Peer) -> None:
        self.client, self.peer = client, peer
        self.transport: typing.Any = None
        self.leg: typing.Optional[Leg] = None
        self.since = 0.0
        self.parser = httptools.HttpResponseParser(self)
        self.feed = self.parser.feed_data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def begin(self, leg: Leg) -> None:
        self.leg = leg
        leg.connection = self
        pieces = leg.request
        leg.request = []
        if len(pieces) == 1:
            self.transport.write(pieces[0])
        else:
            self.transport.writelines(pieces)

    def close(self) -> None:
        self.leg = None
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        leg = self.leg
        if leg is None:  # nobody asked
            self.discard()
            return
        leg.received = True
        try:
            self.feed(data)
        except Exception:  # httptools' errors, and Malformed from a callback
            leg.malformed = not leg.complete
            leg.keep = False
        leg.progress()

    def connection_lost(self, exc: typing.Optional[Exception]) -> None:
        leg = self.leg
        self.leg = None
        if leg is None:
            self.discard()
        else:
            leg.lost(exc)

    def discard(self) -> None:
        if self in self.peer.idle:
            self.peer.idle.remove(self)
        self.transport.abort()

    # ---- of the parser. What comes behind a complete answer is nobody's

    def on_header(self, name: bytes, value: bytes) -> None:
        leg = self.leg
        if leg is not None and not leg.trailers:
            leg.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        leg = self.leg
        if leg is not None and leg.complete:
            leg.keep, self.leg = False, None
        elif leg is not None:
            leg.head(self.parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        leg = self.leg
        if leg is not None and not leg.complete:
            leg.chunks.append(body)
            leg.heard = True
            if leg.reader is not None:
                leg.seen = leg.reader.feed(body)

    def on_message_complete(self) -> None:
        leg = self.leg
        if leg is not None and leg.status:
            leg.complete = True
            leg.keep = bool(self.parser.should_keep_alive())


class Malformed(Exception):
    pass


class Leg:
    """One attempt of one leg: a request to a worker, and what has come of its answer."""

    __slots__ = ("job", "which", "attempt", "peer", "request", "connection", "task", "cached", "received", "malformed", "status", "headers", "chunks",
                 "complete", "keep", "trailers", "told_head", "told_body", "told_end", "over", "drain", "relay", "reader", "event_stream", "retry_after_ms",
                 "sized", "last_ns", "gap_ns", "paused", "json", "encoded", "seen", "heard")

    def __init__(self, job: Job, which: int, attempt: int, peer: Peer, request: list[typing.Any]) -> None:
        self.job, self.which, self.attempt, self.peer, self.request = job, which, attempt, peer, request
        self.connection: typing.Optional[Connection] = None
        self.task: typing.Optional[asyncio.Task[None]] = None
        self.cached = self.received = self.malformed = self.complete = self.keep = self.trailers = False
        self.told_head = self.told_body = self.told_end = self.over = self.drain = self.relay = self.event_stream = self.sized = self.paused = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []  # of the body, not yet passed on
        self.reader: typing.Optional[Response] = None
        self.retry_after_ms = 0
        self.json = self.encoded = False
        self.seen = 0  # Seen.… of all that came
        self.last_ns = self.gap_ns = 0  # when content of the answer came last, and the longest time between two pieces
        self.heard = False  # content came with these bytes; framing alone (extensions of chunks, trailers), which may go on for ever, is silence

    # ---- from the parser

    def head(self, status: int) -> None:
        if 100 <= status < 200:  # another head follows
            self.headers = []
            return
        self.status = status
        self.trailers = True
        for name, value in self.headers:
            if not NAME(name) or BAD_VALUE(value):
                raise Malformed
            if name == b"content-type":
                kind = value.lower()
                self.event_stream, self.json = kind.startswith(b"text/event-stream"), b"json" in kind
            elif name == b"content-length":
                if not value.isdigit():
                    raise Malformed
                self.sized = True
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked":  # a coding that nobody asked for, and nobody here undoes
                    raise Malformed
                self.sized = True
            elif name == b"content-encoding":
                self.encoded = value.lower() != b"identity"
            elif name == b"retry-after":
                self.retry_after_ms = retry_after_ms(value)
        if self.job.head_request or status in (204, 304):
            self.complete, self.keep = True, False
        elif (self.event_stream or (self.json and self.which != PREFILL)) and not self.encoded:
            # decode's usage tells of prefill's cache as well: both legs report the same cached_tokens
            self.reader = Response(ResponseKind.SSE if self.event_stream else ResponseKind.JSON)

    # ---- what has come is told to the exchange, in order

    def progress(self) -> None:
        job = self.job
        if self.heard or not self.told_body:
            self.heard = False
            now = monotonic_ns()
            if self.told_body and now - self.last_ns > self.gap_ns:
                self.gap_ns = now - self.last_ns
            self.last_ns = now
        if self.status and not self.told_head:
            self.told_head = True
            job.event(HEAD, self)
        if self.over:
            return
        if self.chunks:
            if not self.told_body:
                if self.seen & ERROR and not self.seen & FIRST_TOKEN and self.event_stream and self.status == 200 and fault_of_server(self.chunks):
                    self.fail(PROTOCOL)
                    return
                self.told_body = True
                job.event(BODY, self)
                if self.over:
                    return
            if self.drain or (self.which == PREFILL and self.status < 300 and not self.relay):
                if job.merging:
                    job.keep_prefill(self.chunks)
                self.chunks.clear()
                if self.which == PREFILL:
                    self.reader = None  # its first event was looked at
            elif self.relay:
                job.wake()
                if not self.complete and not self.paused and len(self.chunks) > 1 and sum(map(len, self.chunks)) > QUEUE_MAX:
                    self.paused = True
                    self.connection.transport.pause_reading()  # type: ignore[union-attr]
        if self.malformed:
            self.fail(PROTOCOL)
        elif self.complete and not self.told_end:
            self.told_end = True
            self.release()
            job.event(END, self)
            if self.relay or job.merging:
                job.wake()

    def resume(self) -> None:
        """The client has taken what there was."""
        if self.paused and self.connection is not None:
            self.paused = False
            self.connection.transport.resume_reading()

    def release(self) -> None:
        """The answer is complete: the connection is for the next."""
        connection = self.connection
        if connection is None:
            return
        self.connection = None
        connection.leg = None
        if self.keep and not self.malformed:
            connection.client.keep(connection)
        else:
            connection.close()

    def lost(self, exc: typing.Optional[Exception]) -> None:
        self.connection = None
        if self.over or self.told_end:
            return
        if exc is None and self.status and not self.sized:  # its end is the end of the connection
            self.complete, self.keep = True, False
            self.progress()
            return
        self.fail(STALE if self.cached and not self.received else RESET)

    def fail(self, detail: int) -> None:
        """It broke: closed here, then told."""
        if self.over or self.told_end:
            return
        if self.whole():
            self.complete, self.keep, self.malformed = True, False, False
            self.progress()
            return
        if detail == STALE:
            self.peer.flush()
        self.cancel()
        self.job.gateway.complain(self, detail)
        self.job.event(FAILED, self, detail)

    def whole(self) -> bool:
        """The stream has said [DONE]: what the connection does then takes nothing from the client."""
        return self.event_stream and self.which != PREFILL and self.reader is not None and self.reader.struct.flags & (DONE | ERROR) == DONE

    def cancel(self) -> None:
        """Closes it: what else comes of it does not matter any more."""
        self.over = True
        self.chunks = []
        if self.job.merging:
            self.job.wake()
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def fault_of_server(chunks: list[bytes]) -> bool:
    """Not an error that names a 4xx: that is the request's, the same anywhere, and passes."""
    status = error_status(b"".join(chunks))
    return status == 0 or status >= 500
