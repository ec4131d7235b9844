"""What a worker does with a sequence: the prefill, decode and unified engines.

Each has `submit(seq)`, `abort(seq)`, `start()`, `close()` and `loads()`; `crash(why)` is called by them when the input is
one that the real scheduler does not survive.
"""

import asyncio
import time

from .engine import DecodeBatch, ForwardQueue, Pool, Stats, compose, seed_of
from .info import bounds
from .rendezvous import (BOOTSTRAPPING, FAILED, SUCCESS, WAITING, BootstrapServer, DecodeChannel, PrefillChannel, join,
                         register)

FAKE_HOST = "2.2.2.2"
INT64_MAX = 2**63 - 1
RESERVED_DECODE_TOKENS = 512
MAX_RUNNING = 2048


class Engine:
    """What the three roles share."""

    mode = "null"

    def __init__(self, options, crash):
        self.options = options
        self.crash_worker = crash
        self.crashed = None
        self.cost = options.cost
        self.timers = options.timers
        self.stats = Stats(bounds)
        self.live = {}           # rid -> sequences, in order of arrival
        self.published = {}      # what /metrics shows: taken when a batch ends, so it is stale while only queues move
        self.pools = []
        self.head = ""

    async def start(self):
        self.publish()

    async def close(self):
        pass

    def known_prefills(self):
        return []

    def forget_the_dead(self):
        pass

    def crash(self, why):
        if not self.crashed:
            self.crashed = why
            self.crash_worker(why)

    def submit(self, seq):
        self.live.setdefault(seq.rid, []).append(seq)
        if self.crashed:
            return               # the scheduler is gone, the HTTP server not yet: nobody answers
        if seq.n == 0:
            # Seen on the CPU engine: an empty prompt is an index error in the scheduler.
            if self.mode != "decode":
                self.crash("an empty prompt")
                return
        self.admit(seq)

    def forget(self, seq):
        seq.cancel_timer()
        sequences = self.live.get(seq.rid)
        if sequences is not None:
            if seq in sequences:
                sequences.remove(seq)
            if not sequences:
                del self.live[seq.rid]

    def abort_rids(self, wanted, everything=False):
        """An abort by rid: the front must know it exactly, the scheduler then matches every rid that begins with it."""
        if not everything and wanted not in self.live:
            return
        for rid in [r for r in self.live if everything or r.startswith(wanted)]:
            for seq in tuple(self.live.get(rid, ())):
                self.abort(seq)

    def too_long(self, seq, capacity):
        if seq.n > capacity:
            seq.abort(400, f"Request {seq.rid} exceeds the maximum number of tokens: {seq.n} > {capacity}")
            self.forget(seq)
            return True
        return False

    def without_room(self, seq):
        if seq.room is None:
            seq.abort(400, f"Invalid request: Disaggregated request received without bootstrap room id. req.rid='{seq.rid}'")
            self.forget(seq)
            return True
        return False

    def publish(self):
        self.published = self.loads()

    def queue_counts(self, rank=0):
        """The four PD queues of `disaggregation` in /v1/loads."""
        return 0, 0, 0, 0

    def loads(self):
        """One entry per DP rank with what /v1/loads and /metrics need."""
        return [self.load(rank, pool) for rank, pool in enumerate(self.pools)]

    def load(self, rank, pool):
        bootstrap, inflight, prealloc, transfer = self.queue_counts(rank)
        return {"dp_rank": rank, "running": 0, "waiting": 0, "waiting_uncached": 0, "used": pool.used, "total": pool.used,
                "active": pool.used, "capacity": pool.capacity, "evictable": pool.cache.evictable,
                "available": pool.available, "throughput": 0.0, "hit_rate": 0.0, "uncached_total": 0, "busy_us": 0,
                "bootstrap": bootstrap, "inflight": inflight, "prealloc": prealloc, "transfer": transfer, "retracted": 0,
                "pending_tokens": 0, "sum_seq_lens": 0, "steps": 0, "generated": 0, "speed_gb_s": 0.0, "latency_ms": 0.0,
                "utilization": -1.0 if self.mode == "prefill" else 0.0}


class PrefillRank:
    """One DP rank of a prefill worker: its transfer channel, its KV pool, its forward queue."""

    def __init__(self, engine, rank, options):
        self.engine, self.rank = engine, rank
        self.channel = PrefillChannel(options.host)
        self.pool = Pool(options.capacity, cached=options.radix)
        self.forward = ForwardQueue(self.pool, engine.cost, engine.prefilled, engine.stats)
        self.forward.on_batch = engine.publish
        self.bootstrapping = set()
        self.inflight = set()
        self.link_free = 0.0
        self.speed_gb_s = self.latency_ms = 0.0


class Watch:
    """Tells an engine about the room of one of its sequences."""

    __slots__ = ("engine", "seq")

    def __init__(self, engine, seq):
        self.engine, self.seq = engine, seq

    def on_room(self, status):
        self.engine.on_room(self.seq, status)


class PrefillEngine(Engine):
    mode = "prefill"

    def __init__(self, options, crash):
        super().__init__(options, crash)
        self.ranks = [PrefillRank(self, rank, options) for rank in range(options.dp_size)]
        self.pools = [rank.pool for rank in self.ranks]
        self.bootstrap = BootstrapServer(options.bootstrap_host, options.bootstrap_port)
        self.watches = {}
        self.turn = 0

    async def start(self):
        await self.bootstrap.start()
        for rank in self.ranks:
            await rank.channel.start()
        await register(self.options.bootstrap_host, self.bootstrap.port, [r.channel for r in self.ranks], self.options.port)
        await super().start()

    async def close(self):
        await self.bootstrap.close()
        for rank in self.ranks:
            rank.forward.close()
            rank.channel.close()

    def rank_of(self, seq):
        if seq.rank is not None:
            return self.ranks[seq.rank]
        if seq.room is None:
            return self.ranks[0]
        return self.ranks[seq.room % len(self.ranks)]

    def admit(self, seq):
        if self.without_room(seq):
            return
        rank = self.rank_of(seq)
        seq.engine = rank
        if self.too_long(seq, rank.pool.capacity):
            return
        if seq.host == FAKE_HOST:
            rank.forward.add(seq)
            return
        if not -INT64_MAX - 1 <= seq.room <= INT64_MAX:
            self.crash("a room that does not fit in 64 signed bits")
            return
        rooms = rank.channel.rooms
        seq.state = "bootstrap"
        rank.bootstrapping.add(seq)
        watch = self.watches[seq] = Watch(self, seq)
        rooms.watch(seq.room, watch)
        rooms.update(seq.room, BOOTSTRAPPING)
        if rooms.status.get(seq.room) == FAILED and seq.state == "bootstrap":
            self._fail(seq)
            return
        size = len(self.ranks)
        if size > 1 and seq.prefill_rank is None and seq.room % size:
            # Without DP attention every rank takes itself for rank 0 in this check, also the right one.
            rooms.fail(seq.room, f"follow_bootstrap_room conflict: dispatched to dp_rank 0 but bootstrap_room {seq.room} "
                                 f"implies dp_rank {seq.room % size}. Set "
                                 "SGLANG_DISAGGREGATION_FORCE_QUERY_PREFILL_DP_RANK=1 to allow mixed routing.")
            return
        if seq.state == "bootstrap":
            timeout = self.timers.bootstrap_timeout
            seq.timer = asyncio.get_running_loop().call_later(timeout, self._timed_out, seq, timeout)

    def _timed_out(self, seq, seconds):
        if seq.state == "bootstrap":
            seq.engine.channel.rooms.fail(seq.room, f"Request {seq.room} timed out after {seconds:.1f}s in KVPoll.Bootstrapping")

    def on_room(self, seq, status):
        if seq.state == "bootstrap" and status >= WAITING:
            seq.cancel_timer()
            seq.engine.bootstrapping.discard(seq)
            seq.times["bootstrapped"] = time.time()
            seq.engine.forward.add(seq)
        elif status == FAILED and seq.state in ("bootstrap", "waiting", "inflight"):
            self._fail(seq)

    def _fail(self, seq):
        rank = seq.engine
        what = "transfer" if seq.state == "inflight" else "bootstrap"
        self.stats.add("num_transfer_failed_reqs_total" if what == "transfer" else "num_bootstrap_failed_reqs_total",
                       rank=rank.rank)
        rank.forward.drop(seq)
        rank.forward.release(seq)
        reason = rank.channel.rooms.take_reason(seq.room)
        self._close_room(seq)
        seq.abort(500, f"Prefill {what} failed for request rank=0 req.rid='{seq.rid}' req.bootstrap_room={seq.room} with "
                       f"exception KVTransferError(bootstrap_room={seq.room}): {reason}")
        self.forget(seq)

    def _close_room(self, seq):
        rank = seq.engine
        rank.bootstrapping.discard(seq)
        rank.inflight.discard(seq)
        watch = self.watches.pop(seq, None)
        if watch is not None:
            rank.channel.rooms.unwatch(seq.room, watch)
            rank.channel.clear(seq.room)

    def prefilled(self, seq):
        """The forward pass is done: the KV cache goes to decode, one transfer after the other."""
        rank = seq.engine
        seq.state = "inflight"
        if seq.host == FAKE_HOST:
            self._complete(seq)
            return
        rank.inflight.add(seq)
        seconds = self.cost.transfer(seq.n)
        if seconds == 0:
            self._deliver(seq)
            return
        loop = asyncio.get_running_loop()
        rank.link_free = max(loop.time(), rank.link_free) + seconds
        loop.call_at(rank.link_free, self._deliver, seq)
        rank.latency_ms = seconds * 1e3
        rank.speed_gb_s = seq.n * self.options.kv_bytes / seconds / 1e9

    def _deliver(self, seq):
        if seq.done or self.crashed:
            return
        seq.engine.channel.deliver(seq.room, {"seed": seed_of(seq.tokens, self.options.seed), "room": seq.room,
                                              "cached": seq.cached, "from": self.options.name})
        self.stats.observe("kv_transfer_total_mb", seq.n * self.options.kv_bytes / 2**20)
        self._complete(seq)

    def _complete(self, seq):
        seq.output, seq.limit, _ = compose(seed_of(seq.tokens, self.options.seed), "", 1, None, ())
        seq.max_new = 1
        seq.advance(1)
        seq.finish = {"type": "length", "length": 0}
        seq.engine.forward.release(seq)
        self._close_room(seq)
        self.forget(seq)

    def abort(self, seq):
        """What has begun its forward pass runs to its end."""
        if seq.state in ("bootstrap", "inflight"):
            seq.engine.channel.rooms.fail(seq.room, "Aborted by AbortReq.")
        elif seq.state == "waiting":
            rank = seq.engine
            rank.forward.drop(seq)
            self._close_room(seq)
            seq.abort(None, "Abort in waiting queue")
            self.forget(seq)

    def queue_counts(self, rank=0):
        r = self.ranks[rank]
        return len(r.bootstrapping), len(r.inflight), 0, 0

    def load(self, rank, pool):
        entry, r = super().load(rank, pool), self.ranks[rank]
        entry.update(running=len(r.forward.active), waiting=len(r.forward.waiting), hit_rate=r.forward.hit_rate,
                     waiting_uncached=sum(s.n for s in r.forward.waiting), uncached_total=r.forward.uncached_total,
                     busy_us=r.forward.busy_us, speed_gb_s=r.speed_gb_s, latency_ms=r.latency_ms)
        return entry


class DecodeEngine(Engine):
    mode = "decode"

    def __init__(self, options, crash):
        super().__init__(options, crash)
        self.channel = DecodeChannel(options.timers)
        self.pool = Pool(options.capacity, cached=False)
        self.pools = [self.pool]
        self.batch = DecodeBatch(self.pool, self.cost, self._retired, self.stats, MAX_RUNNING)
        self.batch.on_step = self._stepped
        self.resolving = set()   # the prefill's layout is not known yet
        self.prealloc = []       # waiting for KV memory, in order of arrival
        self.transfer = set()
        self.watches = {}
        self.steps_published = 0

    async def start(self):
        await self.channel.start(self.options.name)
        await super().start()

    async def close(self):
        self.batch.close()
        await self.channel.close()

    def known_prefills(self):
        return sorted(self.channel.infos)

    def forget_the_dead(self):
        self.channel.forget_the_dead()

    def _stepped(self):
        if self.batch.steps - self.steps_published >= 40 or not self.batch.running:
            self.steps_published = self.batch.steps
            self.publish()

    def admit(self, seq):
        if self.without_room(seq) or self.too_long(seq, self.pool.capacity):
            return
        seq.engine = self
        if seq.host == FAKE_HOST:
            self._start_running(seq, {"seed": seed_of(seq.tokens, self.options.seed), "cached": 0, "from": FAKE_HOST})
            return
        seq.state = "prealloc"
        seq.address = join(str(seq.host), seq.port)
        rooms = self.channel.rooms
        watch = self.watches[seq] = Watch(self, seq)
        rooms.watch(seq.room, watch)
        rooms.update(seq.room, BOOTSTRAPPING)
        self.channel.opened(seq.address, seq.room)
        info = self.channel.infos.get(seq.address)
        rank = self._rank_in(seq, info) if info else None
        seq.peer = self.channel.peers.get(seq.address, {}).get(rank) if rank is not None else None
        if seq.peer is not None:
            self._preallocate(seq)
        else:
            self.resolving.add(seq)
            asyncio.ensure_future(self._resolve(seq))

    @staticmethod
    def _rank_in(seq, info):
        if seq.prefill_rank is not None:
            return seq.prefill_rank
        if info["dp_size"] == 1:
            return 0
        return seq.room % info["dp_size"] if info["follow_bootstrap_room"] else None

    async def _resolve(self, seq):
        try:
            info = await self.channel.info(seq.address)
            if seq.done:
                return
            if info is None:
                self.channel.rooms.fail(seq.room, "Aborted by AbortReq.")
                return
            rank = self._rank_in(seq, info)
            while rank is None and not seq.done:
                rank = await self.channel.query_rank(seq.address, seq.room)
                if rank is None:
                    await asyncio.sleep(self.timers.bootstrap_retry)
            seq.peer = await self.channel.peer(seq.address, rank)
            if seq.done:
                return
            if seq.peer is None:
                self.channel.rooms.fail(seq.room, f"Could not fetch bootstrap info for: prefill_dp_rank: {rank} "
                                                  "prefill_cp_rank: 0 target_tp_rank: 0 and target_pp_rank 0")
                return
        finally:
            self.resolving.discard(seq)
        self._preallocate(seq)

    def _preallocate(self, seq):
        self.channel.rooms.update(seq.room, WAITING)
        self.prealloc.append(seq)
        self._admit_prealloc()

    def _admit_prealloc(self):
        """Memory for the prompt, and a reserve for each sequence that will decode, in order of arrival."""
        while self.prealloc:
            seq = self.prealloc[0]
            reserve = min(RESERVED_DECODE_TOKENS * (1 + len(self.batch.running) + len(self.transfer)),
                          max(0, self.pool.capacity - seq.n))
            busy = self.pool.held > 0
            if (busy and self.pool.available < seq.n + reserve) or not self.pool.take(seq.n):
                return
            self.prealloc.pop(0)
            self.transfer.add(seq)
            seq.state, seq.aux = "transfer", next(self.channel.aux_ids)
            self.channel.aux[seq.aux] = None
            seq.timer = asyncio.get_running_loop().call_later(self.timers.waiting_timeout, self._timed_out, seq)
            seq.peer.send({"kind": "meta", "room": seq.room, "aux": seq.aux, "session": self.channel.session_id})

    def _timed_out(self, seq):
        if seq.state == "transfer":
            seq.peer.send({"kind": "abort", "room": seq.room})
            self.channel.rooms.fail(seq.room, f"Request {seq.room} timed out after {self.timers.waiting_timeout:.1f}s in "
                                              "KVPoll.WaitingForInput")

    def on_room(self, seq, status):
        if status == FAILED and seq.state in ("prealloc", "transfer"):
            self._fail(seq)
        elif status == SUCCESS and seq.state == "transfer":
            self._transferred(seq)

    def _fail(self, seq):
        what = "transfer" if seq.state == "transfer" else "handshake"
        if what == "transfer":
            self.stats.add("num_transfer_failed_reqs_total", rank=0)
        reason = self.channel.rooms.take_reason(seq.room)
        self._leave(seq)
        seq.abort(500, f"Decode {what} failed for request rank=0 decode_req.req.rid='{seq.rid}' "
                       f"decode_req.req.bootstrap_room={seq.room} with exception "
                       f"KVTransferError(bootstrap_room={seq.room}): {reason}")
        self.forget(seq)
        self._admit_prealloc()

    def _leave(self, seq):
        """Out of the queues; the room's entry goes with it."""
        self.resolving.discard(seq)
        if seq in self.prealloc:
            self.prealloc.remove(seq)
        if seq in self.transfer:
            self.transfer.discard(seq)
            self.pool.give(seq.n)
        self.channel.aux.pop(seq.aux, None)
        watch = self.watches.pop(seq, None)
        if watch is not None:
            self.channel.rooms.unwatch(seq.room, watch)
            self.channel.clear(seq.address, seq.room)

    def _transferred(self, seq):
        payload = self.channel.aux.get(seq.aux)
        seq.cancel_timer()
        if payload is None or payload["room"] == 0:
            return               # a room number of 0 in the buffer means "nothing written yet": waits for ever
        self._leave(seq)
        if payload["room"] < 0:
            seq.abort(500, "Metadata corruption detected - bootstrap_room mismatch")
            self.forget(seq)
            return
        self.pool.held += seq.n
        self._start_running(seq, payload)

    def _start_running(self, seq, payload):
        if seq.host == FAKE_HOST:
            self.pool.held += seq.n
        seq.times["running"] = time.time()
        seq.write(payload, f"decode={self.options.name} prefill={payload['from']}")
        self.batch.add(seq)

    def _retired(self, seq):
        self.pool.give(seq.n + seq.grown)
        self.forget(seq)
        self._admit_prealloc()

    def abort(self, seq):
        if seq.state in ("prealloc", "transfer"):
            if seq.peer is not None:
                seq.peer.send({"kind": "abort", "room": seq.room})
            self.channel.rooms.fail(seq.room, "Aborted by AbortReq.")
            if not seq.done:
                self._fail(seq)      # the room's entry went with another sequence that used it
        elif seq.state == "running":
            self.batch.drop(seq)
            seq.abort(None, "Aborted")

    def queue_counts(self, rank=0):
        return 0, 0, len(self.prealloc) + len(self.resolving), len(self.transfer)

    def load(self, rank, pool):
        entry, batch = super().load(rank, pool), self.batch
        entry.update(running=len(batch.running), throughput=batch.throughput, retracted=len(batch.retracted),
                     sum_seq_lens=batch.context_tokens, steps=batch.steps, generated=batch.generated,
                     pending_tokens=sum(s.n for s in self.prealloc))
        return entry


class UnifiedEngine(Engine):
    """A worker that does both, without a partner: bootstrap fields are ignored."""

    def __init__(self, options, crash):
        super().__init__(options, crash)
        self.pool = Pool(options.capacity, cached=options.radix)
        self.pools = [self.pool]
        gpu = asyncio.Lock() if self.cost.speed else None
        self.forward = ForwardQueue(self.pool, self.cost, self._prefilled, self.stats, gpu)
        self.forward.on_batch = self.publish
        self.batch = DecodeBatch(self.pool, self.cost, self._retired, self.stats, MAX_RUNNING, gpu)
        self.batch.on_step = self.publish

    async def close(self):
        self.forward.close()
        self.batch.close()

    def admit(self, seq):
        if not self.too_long(seq, self.pool.capacity):
            seq.engine = self
            self.forward.add(seq)

    def _prefilled(self, seq):
        seq.write({"seed": seed_of(seq.tokens, self.options.seed), "cached": seq.cached}, f"unified={self.options.name}")
        self.batch.add(seq)

    def _retired(self, seq):
        self.pool.give(seq.grown)
        self.forward.release(seq)
        self.forget(seq)
        self.forward.kick()

    def abort(self, seq):
        if seq.state == "waiting":
            self.forward.drop(seq)
            seq.abort(None, "Abort in waiting queue")
            self.forget(seq)
        elif seq.state == "running":
            self.batch.drop(seq)
            seq.abort(None, "Aborted")

    def load(self, rank, pool):
        entry, forward, batch = super().load(rank, pool), self.forward, self.batch
        entry.update(running=len(batch.running) + len(forward.active), waiting=len(forward.waiting),
                     waiting_uncached=sum(s.n for s in forward.waiting), hit_rate=forward.hit_rate,
                     throughput=batch.throughput, uncached_total=forward.uncached_total, busy_us=forward.busy_us,
                     retracted=len(batch.retracted), sum_seq_lens=batch.context_tokens, steps=batch.steps,
                     generated=batch.generated)
        return entry


ROLES = {"prefill": PrefillEngine, "decode": DecodeEngine, "unified": UnifiedEngine}
