"""
Session: one process's use of a block file from asyncio. It keeps the lease, wakes requests that wait, and does what is due every 100 ms.

    async with Session("/dev/shm/pdroute/qwen", config, name="my gateway") as session:
        routed = await session.route(body, Api.CHAT)      # waits if it must; cancelled: gives its place up
"""
from __future__ import annotations

import asyncio
import functools
import logging
import typing
from pathlib import Path
from time import monotonic_ns

from ._abi import Config, HostFlag, RequestFlag
from ._buffer import Buffer
from .errors import BlockError, Error, LeaseError, NotFoundError
from .exchange import Exchange
from .host import Host, HostLease
from .routed import Routed, routed_of
from .router import CHAT, Router

TICK = 0.1
log = logging.getLogger("pdroute")


def wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Session:
    """
    Everything runs in the event loop in which start() was awaited; a Session is not for other threads. Gateways that do not want to await
    a held request call hold().

    A block file that was truncated, replaced or removed is followed within a tick: `host`, `router` and lease are new then, whoever waited gets in line anew, and
    on_follow is called to fill the new router (Router.apply()). Exchanges that began before go on with the old one. (A Host that was given is its owner's to follow.)
    """

    def __init__(self, block: typing.Union[str, Path, Host], config: typing.Optional[Config] = None, flags: int = HostFlag.CREATE,
                 name: str = "python") -> None:
        self._own = not isinstance(block, Host)
        self._open_with = (config, flags)
        self.host = block if isinstance(block, Host) else Host(block, config, flags)
        self.router: Router = self.host.router
        self.name = name
        self.lease: typing.Optional[HostLease] = None
        self.lease_id = 0
        self.on_tick: list[typing.Callable[[], None]] = []
        self.on_follow: list[typing.Callable[[], None]] = []
        self._held: dict[int, typing.Callable[[], None]] = {}
        self._again: list[int] = []
        self._fd = -1
        self._timer: typing.Optional[asyncio.TimerHandle] = None
        self._refused = self._lost = 0

    # ------------------------------------------------------------------------------------------------------------ running

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open()
        self._timer = self._loop.call_later(TICK, self._tick)

    async def close(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._unwatch()
        if self.lease:
            self.lease.close()
            self.lease = None
            self.host.wake_pending()  # what it gave back may release others' requests
        if self._own:
            self.host.close()

    async def __aenter__(self) -> Session:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _open(self) -> None:
        """Without a lease requests are refused until there is one."""
        try:
            self.lease = self.host.lease(self.name)
        except Error as error:
            if monotonic_ns() - self._refused > 10**9:
                self._refused = monotonic_ns()
                log.error("no lease: %s", error)
            return
        self._watch()

    def _watch(self) -> None:
        assert self.lease is not None
        self.lease_id = self.lease.id
        self._fd = self.lease.fileno()
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._woken)

    def _unwatch(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._fd = -1

    def follow(self) -> bool:
        """Goes on with the block that the path names now, if that is another. Called with every tick, and by who met a BlockError."""
        if not self._own or monotonic_ns() < self._lost:
            return False
        try:
            found = self.host.follow(*self._open_with)
        except Error as error:
            self._lost = monotonic_ns() + 10**9
            log.error("the block file was truncated, replaced or removed: %s", error)
            return False
        if found is None:
            return False
        log.warning("the block file was truncated, replaced or removed: going on with what is there")
        old, held, self._held = self.lease, self._held, {}
        self._unwatch()
        self.host, self.router = found, found.router
        self.lease, self.lease_id = None, 0
        self._open()  # before the old one is closed: its socket has another number
        if old is not None:
            old.close()
            old.host.wake_pending()  # others may still use that block
        for call in [*self.on_follow, *held.values()]:  # who waited is told by take() that its ticket is not known
            call()
        return True

    def renew(self) -> None:
        """Of the lease, or a new one in its place; on another block, if need be."""
        if self.follow():
            return
        if self.lease is None:
            self._open()
            return
        fd = self._fd
        try:
            kept = self.lease.renew()
        except Error as error:
            log.warning("lease: %s", error)
            return
        if not kept:  # this process was stopped: the old socket is closed already, its bookings are gone
            log.warning("lease expired: the process did not run for too long")
            if fd >= 0:
                self._loop.remove_reader(fd)
            self._watch()
            self._again.extend(self._held)  # nobody will release their tickets: take() tells who waits that they are not known

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick)
        try:
            self.renew()
            self.host.tick()
            self._released()
        except Error as error:
            log.warning("tick: %s", error)
        again, self._again = self._again, []
        for ticket in again:
            waits = self._held.pop(ticket, None)
            if waits:
                waits()
        for call in self.on_tick:
            call()

    def _woken(self) -> None:
        if self.lease:
            self.lease.wake_drain()
        self._released()

    def _released(self) -> None:
        if not self._held:
            return
        try:
            tickets = self.router.released(self.lease_id)
        except LeaseError:
            tickets = list(self._held)  # the lease is new: whoever waited under the old one is told that by take()
        except Error:
            return
        for ticket in tickets:
            call = self._held.pop(ticket, None)  # None: its client left meanwhile
            if call:
                call()

    # ------------------------------------------------------------------------------------------------------------ waiting

    def hold(self, ticket: int, call: typing.Callable[[], None], again: bool = False) -> None:
        """
        call() once when this ticket may go, or was refused; then Router.take() it. `again`: take() gave nothing although it was called, which a process that is
        stopped inside a call can bring about: call() with the next tick.
        """
        self._held[ticket] = call
        if again:
            self._again.append(ticket)

    def unhold(self, ticket: int) -> None:
        """Its client left: the ticket is given up."""
        self._held.pop(ticket, None)
        try:
            self.router.cancel(ticket)
        finally:
            self.host.wake_pending()

    @property
    def waiting(self) -> list[int]:
        return list(self._held)

    async def route(self, body: Buffer, api: int = CHAT, *, hold: bool = True, **more: typing.Any) -> Routed:
        """A pair, booked. Waits if all are busy (hold=False: goes at once to the least busy); when cancelled, gives its place up."""
        if not hold:
            more["flags"] = more.get("flags", 0) | RequestFlag.NO_HOLD
        try:
            routed = self.router.route_scanned(body, api, lease=self.lease_id, **more)
        except (BlockError, LeaseError):
            self.renew()
            routed = self.router.route_scanned(body, api, lease=self.lease_id, **more)
        last = 0
        while routed.held:
            ticket, woken = routed.decision.booking, self._loop.create_future()
            self.hold(ticket, functools.partial(wake, woken), again=ticket == last)
            last = ticket
            try:
                await woken
            except asyncio.CancelledError:
                self.unhold(ticket)
                raise
            try:
                if routed.router is not self.router:
                    raise NotFoundError("the block is another")
                routed.take()
            except NotFoundError:  # its lease ended meanwhile: in line again
                decision = self.router.route_prompt(routed.prompt, routed.hashes, api, lease=self.lease_id, **more)
                routed = routed_of(self.router, body, routed.prompt, decision, routed.hashes)
        return routed

    def exchange(self, routed: Routed) -> Exchange:
        return Exchange(self.router, routed.decision, self.lease_id)
