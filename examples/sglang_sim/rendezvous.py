"""How a decode worker finds the prefill worker of a request, and how the KV cache is handed over.

As in SGLang (python/sglang/srt/disaggregation/common/conn.py and mooncake/conn.py of 0.5.23) there are two channels:

* the *bootstrap server*, real HTTP on the prefill's bootstrap port: `GET /route` gives a decode worker the layout of the
  prefill and, per rank, the address of its transfer channel; `GET /health` is decode's heartbeat;
* the *transfer channel* of each rank, a TCP connection kept open. SGLang uses ZeroMQ and RDMA there, this module one JSON
  message per line: decode sends `meta` (room, where the cache goes) or `abort`; prefill sends the status of a room and, with
  success, what decode needs to go on, into the buffer that decode named.

The state of a room is kept in tables keyed by the room alone, as the engine does. That, and nothing written for the
purpose, is why a room that is used twice leaks one request's tokens to another and leaves one waiting for ever.
"""

import asyncio
import itertools
import json

import aiohttp
from aiohttp import web

BOOTSTRAPPING, WAITING, TRANSFERRING, SUCCESS, FAILED = 1, 2, 3, 4, 0
ANOTHER_RANK = "Failed due to an unknown reason from another rank"


class RoomTable:
    """Status and failure reason of each room; a worker has one per rank."""

    def __init__(self):
        self.status = {}
        self.reasons = {}
        self.watchers = {}       # room -> {object with .on_room(status)}

    def update(self, room, status):
        current = self.status.get(room)
        if current is None:
            if status not in (BOOTSTRAPPING, WAITING):
                return           # only an opening status may create a room
        elif current == FAILED:
            return
        elif status != FAILED:
            status = max(current, status)
        self.status[room] = status
        for watcher in tuple(self.watchers.get(room, ())):
            watcher.on_room(status)

    def fail(self, room, reason):
        if reason is not None:
            self.reasons[room] = reason
        self.update(room, FAILED)

    def watch(self, room, watcher):
        self.watchers.setdefault(room, []).append(watcher)

    def unwatch(self, room, watcher):
        watchers = self.watchers.get(room)
        if watchers and watcher in watchers:
            watchers.remove(watcher)
            if not watchers:
                del self.watchers[room]

    def take_reason(self, room):
        return self.reasons.pop(room, None) or ANOTHER_RANK


class LineProtocol(asyncio.Protocol):
    """One JSON value per line, both ways."""

    def __init__(self, on_message, on_lost=None):
        self.on_message = on_message
        self.on_lost = on_lost
        self.transport = None
        self.pending = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self.on_message(self, json.loads(line))

    def connection_lost(self, exc):
        self.transport = None
        if self.on_lost:
            self.on_lost(self)

    def send(self, message):
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")


class PrefillChannel:
    """The prefill side of the transfer channel of one rank."""

    def __init__(self, host):
        self.host = host
        self.port = None
        self.rooms = RoomTable()
        self.destinations = {}   # room -> {session: (connection, aux index)}
        self.server = None
        self.connections = set()

    async def start(self):
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self._connection, self.host, 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self):
        if self.server:
            self.server.close()
            self.server = None
        for connection in tuple(self.connections):
            if connection.transport:
                connection.transport.abort()

    def _connection(self):
        connection = LineProtocol(self._message, self.connections.discard)
        self.connections.add(connection)
        return connection

    def _message(self, connection, message):
        room = message["room"]
        if message["kind"] == "meta":
            self.destinations.setdefault(room, {})[message["session"]] = (connection, message["aux"])
            if len(self.destinations[room]) == 1:
                self.rooms.update(room, WAITING)
        elif self.rooms.status.get(room) not in (None, SUCCESS):
            # Decode asked and went away: the room stays failed, a prefill that uses it later fails at once.
            self.rooms.update(room, FAILED)

    def deliver(self, room, payload):
        """Hand a finished prefill to whoever asked for the room last."""
        if room not in self.rooms.status:
            return
        for connection, aux in self.destinations.get(room, {}).values():
            connection.send({"room": room, "status": SUCCESS, "aux": aux, "payload": payload})
        self.rooms.update(room, SUCCESS)

    def clear(self, room):
        self.rooms.status.pop(room, None)
        self.destinations.pop(room, None)


class BootstrapServer:
    """The registry on the prefill's bootstrap port. One prefill worker registers all its ranks."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.ranks = {}          # dp rank -> {"rank_ip", "rank_port"}
        self.dp_size = None
        self.http_port = None
        self.follow_room = True
        self.room_ranks = {}
        self.runner = None
        self.hits = 0

    async def start(self):
        app = web.Application()
        app.router.add_route("*", "/route", self._route)
        app.router.add_get("/health", self._health)
        app.router.add_post("/query_dp_ranks", self._query_dp_ranks)
        app.router.add_post("/register_dp_rank", self._register_dp_rank)
        self.runner = web.AppRunner(app, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, self.host, self.port, reuse_address=True, shutdown_timeout=0.1)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def close(self):
        if self.runner:
            await self.runner.cleanup()
            self.runner = None

    async def _health(self, request):
        return web.Response(text="OK")

    async def _route(self, request):
        self.hits += 1
        if request.method == "PUT":
            return await self._put_route(request)
        if request.method != "GET":
            return web.Response(text="Method not allowed", status=405, content_type="application/json")
        names = ("prefill_dp_rank", "prefill_cp_rank", "target_tp_rank", "target_pp_rank")
        values = [request.query.get(name) for name in names]
        if not all(values):
            return web.Response(text="Missing inputs for bootstrap server.", status=400)
        dp, cp, tp, pp = map(int, values)
        if self.dp_size is None or len(self.ranks) < self.dp_size:
            return web.Response(status=503, text="Prefill server not fully registered yet"
                                                 f" ({len(self.ranks)} workers registered).")
        if dp == cp == tp == pp == -1:
            return web.json_response(self.info())
        if dp not in self.ranks or cp or tp or pp:
            return web.Response(status=404, text=f"Bootstrap info not found for dp_rank={dp} cp_rank={cp} "
                                                 f"tp_rank={tp} pp_rank={pp}")
        return web.json_response(self.ranks[dp])

    async def _put_route(self, request):
        data = await request.json()
        self.dp_size = data["system_dp_size"]
        self.http_port = data["prefill_http_port"]
        self.follow_room = data["load_balance_method"] == "follow_bootstrap_room"
        self.ranks[data["system_dp_rank"]] = {"rank_ip": data["rank_ip"], "rank_port": data["rank_port"]}
        return web.Response(text="OK")

    def info(self):
        return {"attn_tp_size": 1, "attn_cp_size": 1, "dp_size": self.dp_size, "pp_size": 1, "page_size": 1,
                "kv_cache_dtype": "auto", "follow_bootstrap_room": self.follow_room, "enable_dsa_cache_layer_split": False,
                "decode_allocation_policy": "early", "enable_kv_cache_sharding": False, "prefill_http_port": self.http_port,
                "target_tp_rank": None, "target_tp_ranks": None, "target_cp_ranks": None, "target_pp_ranks": None,
                "required_dst_info_num": None, "required_prefill_response_num": None}

    async def _register_dp_rank(self, request):
        data = await request.json()
        self.room_ranks[int(data["bootstrap_room"])] = int(data["dp_rank"])
        return web.Response(text="OK")

    async def _query_dp_ranks(self, request):
        rooms = (await request.json())["bootstrap_rooms"]
        return web.json_response({str(r): self.room_ranks[int(r)] for r in rooms if int(r) in self.room_ranks})


async def register(bootstrap_host, bootstrap_port, channels, http_port):
    """What each rank of a prefill worker does at its start."""
    async with aiohttp.ClientSession() as session:
        for rank, channel in enumerate(channels):
            body = {"attn_tp_size": 1, "attn_tp_rank": 0, "attn_cp_size": 1, "attn_cp_rank": 0, "attn_dp_size": 1,
                    "attn_dp_rank": 0, "pp_size": 1, "pp_rank": 0, "system_dp_size": len(channels), "system_dp_rank": rank,
                    "rank_ip": channel.host, "rank_port": channel.port, "page_size": 1, "kv_cache_dtype": "auto",
                    "load_balance_method": "follow_bootstrap_room", "prefill_http_port": http_port}
            url = f"http://{join(bootstrap_host, bootstrap_port)}/route"
            async with session.put(url, json=body) as response:
                response.raise_for_status()


def join(host, port):
    """host:port, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


class Peer:
    """A decode worker's connection to one prefill rank. Keeps what it could not send and tries again, as ZeroMQ does."""

    def __init__(self, host, port, on_message, retry):
        self.host, self.port = host, port
        self.on_message = on_message
        self.retry = retry
        self.connection = None
        self.backlog = []
        self.task = None
        self.closed = False

    def send(self, message):
        if self.connection is not None and self.connection.transport is not None:
            self.connection.send(message)
        elif not self.closed:
            self.backlog.append(message)
            if self.task is None:
                self.task = asyncio.ensure_future(self._connect())

    async def _connect(self):
        loop = asyncio.get_running_loop()
        try:
            while not self.closed:
                try:
                    _, self.connection = await loop.create_connection(lambda: LineProtocol(self.on_message), self.host, self.port)
                    break
                except OSError:
                    await asyncio.sleep(self.retry)
            backlog, self.backlog = self.backlog, []
            for message in backlog:
                self.connection.send(message)
        finally:
            self.task = None

    def close(self):
        self.closed = True
        if self.task:
            self.task.cancel()
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.close()


class DecodeChannel:
    """The decode side: rooms, the aux buffers that prefills write, what is known of prefills, and heartbeats."""

    ATTEMPTS = 15

    def __init__(self, timers):
        self.timers = timers
        self.rooms = RoomTable()
        self.aux = {}            # aux index -> what a prefill has written there, None before
        self.aux_ids = itertools.count()
        self.session_id = None
        self.http = None
        self.infos = {}          # bootstrap address -> layout
        self.fetching = {}       # bootstrap address -> future
        self.peers = {}          # bootstrap address -> {dp rank: Peer}
        self.rooms_of = {}       # bootstrap address -> rooms
        self.heartbeat = None
        self.misses = {}

    async def start(self, name):
        self.session_id = name
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5),
                                          connector=aiohttp.TCPConnector(keepalive_timeout=60))
        self.heartbeat = asyncio.ensure_future(self._heartbeats())

    async def close(self):
        if self.heartbeat:
            self.heartbeat.cancel()
        for future in self.fetching.values():
            future.cancel()
        for peers in self.peers.values():
            for peer in peers.values():
                peer.close()
        if self.http:
            await self.http.close()

    async def info(self, address):
        """Layout of the prefill behind a bootstrap address; None after fifteen attempts a second apart."""
        if address in self.infos:
            return self.infos[address]
        if address not in self.fetching:
            self.fetching[address] = asyncio.ensure_future(self._fetch(address))
        return await asyncio.shield(self.fetching[address])

    async def _fetch(self, address):
        url = f"http://{address}/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&target_pp_rank=-1"
        try:
            for attempt in range(self.ATTEMPTS):
                if attempt:
                    await asyncio.sleep(self.timers.bootstrap_retry)
                try:
                    async with self.http.get(url) as response:
                        if response.status == 200:
                            self.infos[address] = await response.json()
                            return self.infos[address]
                except (OSError, aiohttp.ClientError, asyncio.TimeoutError, ValueError):
                    continue
            return None
        finally:
            self.fetching.pop(address, None)

    async def query_rank(self, address, room):
        """Rank that a prefill registered for a room, or None."""
        try:
            async with self.http.post(f"http://{address}/query_dp_ranks", json={"bootstrap_rooms": [room]}) as response:
                return (await response.json()).get(str(room))
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError, ValueError):
            return None

    async def peer(self, address, rank):
        """Connection to a rank, or None if the bootstrap server does not know it."""
        peers = self.peers.setdefault(address, {})
        if rank not in peers:
            url = f"http://{address}/route?prefill_dp_rank={rank}&prefill_cp_rank=0&target_tp_rank=0&target_pp_rank=0"
            try:
                async with self.http.get(url) as response:
                    if response.status != 200:
                        return None
                    where = await response.json()
            except (OSError, aiohttp.ClientError, asyncio.TimeoutError, ValueError):
                return None
            if rank not in peers:
                peers[rank] = Peer(where["rank_ip"], where["rank_port"], self._message, self.timers.reconnect)
        return peers[rank]

    def _message(self, connection, message):
        if message.get("aux") in self.aux:
            self.aux[message["aux"]] = message["payload"]
        if message["room"] in self.rooms.status:
            if message["status"] == FAILED:
                self.rooms.fail(message["room"], message.get("reason")
                                or "Failed to get kvcache from prefill instance, it might be dead")
            else:
                self.rooms.update(message["room"], message["status"])

    def opened(self, address, room):
        self.rooms_of.setdefault(address, set()).add(room)

    def clear(self, address, room):
        self.rooms.status.pop(room, None)
        self.rooms_of.get(address, set()).discard(room)

    async def _heartbeats(self):
        """Prefills that miss two heartbeats are dead: their rooms fail, what is known of them is forgotten."""
        while True:
            await asyncio.sleep(self.timers.heartbeat)
            for address in tuple(self.infos):
                try:
                    async with self.http.get(f"http://{address}/health",
                                             timeout=aiohttp.ClientTimeout(total=self.timers.heartbeat_timeout)) as response:
                        alive = response.status == 200
                except (OSError, aiohttp.ClientError, asyncio.TimeoutError):
                    alive = False
                self.misses[address] = 0 if alive else self.misses.get(address, 0) + 1
                if self.misses[address] >= self.timers.heartbeat_failures:
                    self._prefill_died(address)

    def forget_the_dead(self):
        """Prefills whose connection is lost are dead, without waiting for heartbeats: one that is back before two were missed would stay known as it was."""
        for address, peers in tuple(self.peers.items()):
            if any(peer.connection is not None and peer.connection.transport is None for peer in peers.values()):
                self._prefill_died(address)

    def _prefill_died(self, address):
        self.misses.pop(address, None)
        self.infos.pop(address, None)
        for peer in self.peers.pop(address, {}).values():
            peer.close()
        for room in self.rooms_of.pop(address, ()):
            if self.rooms.status.get(room) not in (None, SUCCESS):
                self.rooms.fail(room, f"Lost connection with prefill instance (bootstrap_addr: {address})")
