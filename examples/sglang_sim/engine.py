"""The scheduler of a worker: sequences, KV pool, the forward queue of prompts, the batch that decodes.

Times come from `cost`; with speed 0 nothing waits and no timer is made: a prompt is prefilled, and its tokens are all
produced, in the call that admits it.
"""

import asyncio
import binascii
import bisect
import time
from collections import deque

from . import cost as costs
from .cache import RadixCache
from .tokenizer import BYTES, count

WORDS = (b"the pair was chosen by weight and by load so every token here has its own place in this long and quiet answer of "
         b"words that mean little but are always the same for the same prompt and make it easy to see who wrote them ")
EOS = 2


class Timers:
    """The engine's own waiting times in seconds, times `scale`."""

    DEFAULTS = {
        "bootstrap_timeout": 300.0,    # prefill waits for decode
        "waiting_timeout": 300.0,      # decode waits for the KV cache
        "bootstrap_retry": 1.0,        # between decode's fifteen attempts to reach a bootstrap server
        "heartbeat": 5.0,              # decode to each known bootstrap server
        "poll_client": 4.0,            # a waiting non-streamed request looks whether its client is there
        "stream_abort": 2.0,           # between a stream's loss of its client and the abort
        "crash": 5.0,                  # between a scheduler's crash and the end of the process
        "reconnect": 1.0,
        "health": 1.0,                 # an idle PD worker's answer to /health
    }
    # Not scaled: a busy simulator must not be taken for a dead one.
    FIXED = {"heartbeat_timeout": 3.0, "heartbeat_failures": 2}

    def __init__(self, scale=1.0, **overrides):
        for name, value in self.DEFAULTS.items():
            setattr(self, name, float(overrides.pop(name, value * scale)))
        for name, value in self.FIXED.items():
            setattr(self, name, overrides.pop(name, value))
        if overrides:
            raise ValueError(f"no such timer: {', '.join(overrides)}")


class Sequence:
    """One prompt of one HTTP request, from its arrival to its last token."""

    __slots__ = ("rid", "tokens", "n", "max_new", "natural", "stops", "host", "port", "room", "rank", "prefill_rank",
                 "logprob", "engine", "state", "node", "done_tokens", "cached", "aux", "timer", "output", "produced", "limit",
                 "finish", "counts", "waiter", "born", "times", "retractions", "address", "peer", "matched", "stream", "grown")

    def __init__(self, rid, tokens, max_new, stops=(), host=None, port=None, room=None, rank=None, prefill_rank=None,
                 logprob=None, natural=None, stream=False):
        self.rid, self.tokens, self.n = rid, tokens, count(tokens)
        self.max_new, self.natural, self.stops = max_new, natural, stops
        self.host, self.port, self.room = host, port, room
        self.rank, self.prefill_rank = rank, prefill_rank
        self.logprob, self.stream = logprob, stream
        self.engine = self.node = self.timer = self.waiter = self.finish = self.matched = None
        self.aux = self.address = self.peer = None
        self.state = "new"
        self.done_tokens = self.cached = self.produced = self.limit = self.retractions = 0
        self.grown = 0           # tokens of its answer that it holds in the KV pool
        self.output = b""
        self.counts = []
        self.born = time.time()
        self.times = {}

    @property
    def done(self):
        return self.finish is not None

    @property
    def failed(self):
        """Ended by an abort that has an HTTP status; one without (a running request, aborted) is an answer of its own."""
        return self.finish is not None and bool(self.finish.get("status_code"))

    def write(self, payload, head):
        """Fix what this sequence will say. `payload` is what the prefill handed over: another prompt's, if rooms collide."""
        self.output, self.limit, self.matched = compose(payload["seed"], head, self.max_new, self.natural, self.stops)
        self.cached = payload["cached"]

    def advance(self, tokens):
        """Produce so many tokens more; the last one ends the sequence."""
        self.produced = min(self.limit, self.produced + tokens)
        if self.stream:
            self.counts.append(self.produced)
        if self.produced >= self.limit:
            if self.matched is None and self.limit < self.max_new:
                self.matched = EOS
            if self.matched is None:
                self.finish = {"type": "length", "length": self.produced}
            else:
                self.finish = {"type": "stop", "matched": self.matched}
            self.state = "done"
        if self.stream or self.finish is not None:
            self.wake()

    def abort(self, status, message):
        if self.finish is None:
            self.finish = {"type": "abort", "message": message, "status_code": status, "err_type": None}
            self.state = "done"
            self.wake()

    def cancel_timer(self):
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def wake(self):
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self):
        """Until there are new tokens or the sequence has ended."""
        if not self.counts and self.finish is None:
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None


def seed_of(tokens, seed=0):
    """Eight hexadecimal digits that stand for a prompt; its answer begins with them."""
    return f"{binascii.crc32(tokens, seed):08x}"


def compose(seed, head, max_new, natural, stops):
    """(output bytes, tokens, matched stop string): readable, the same for the same prompt, and it names its authors."""
    tokens = max_new if natural is None else min(max_new, natural)
    text = f"{seed} {head} ".encode()
    missing = tokens * BYTES - len(text)
    if missing > 0:
        start = int(seed, 16) % len(WORDS)
        text += (WORDS[start:] + WORDS * (missing // len(WORDS) + 1))[:missing]
    text = text[:tokens * BYTES]
    for stop in stops:
        at = text.find(stop.encode()) if stop else -1
        if at >= 0:
            return text[:at], max(1, -(-(at + len(stop.encode())) // BYTES)), stop
    return text, tokens, None


class Histogram:
    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value):
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value


class Stats:
    """Counters and histograms for /metrics. `bounds` gives the upper bounds of a histogram's buckets."""

    def __init__(self, bounds):
        self.bounds = bounds
        self.counters = {}
        self.histograms = {}

    def add(self, name, value=1, **labels):
        key = (name, tuple(sorted(labels.items())))
        self.counters[key] = self.counters.get(key, 0) + value

    def observe(self, name, value, **labels):
        key = (name, tuple(sorted(labels.items())))
        if key not in self.histograms:
            self.histograms[key] = Histogram(self.bounds(name))
        self.histograms[key].add(value)


class Pool:
    """The KV cache memory of one rank: the prefix cache plus what running sequences hold outside of it."""

    def __init__(self, capacity, cached=True):
        self.capacity = capacity
        self.cache = RadixCache(enabled=cached)
        self.held = 0

    @property
    def used(self):
        return self.held + self.cache.locked

    @property
    def available(self):
        return self.capacity - self.held - self.cache.size

    def take(self, tokens):
        """Reserve tokens, evicting cached ones if that helps; False if they do not fit now."""
        missing = tokens - self.available
        if missing > 0 and (missing > self.cache.evictable or self.cache.evict(missing) < missing):
            return False
        self.held += tokens
        return True

    def give(self, tokens):
        self.held -= tokens


class ForwardQueue:
    """Prompts waiting for their forward pass: first come first served, chunks of 8,192 tokens, batched."""

    def __init__(self, pool, cost, on_done, stats, gpu=None):
        self.pool, self.cost, self.on_done, self.stats, self.gpu = pool, cost, on_done, stats, gpu
        self.waiting = deque()
        self.active = []
        self.task = None
        self.on_batch = lambda: None
        self.uncached_total = 0
        self.busy_us = 0
        self.hit_rate = 0.0

    def add(self, seq):
        seq.state = "waiting"
        self.waiting.append(seq)
        self.kick()

    def kick(self):
        if self.cost.speed == 0:
            while self._admit():
                self._finish_chunk(self._chunks())
        elif self.task is None:
            self.task = asyncio.ensure_future(self._run())

    def close(self):
        if self.task:
            self.task.cancel()

    def drop(self, seq):
        """Take a sequence out; True if it had not begun."""
        if seq in self.waiting:
            self.waiting.remove(seq)
            return True
        return False

    async def _run(self):
        try:
            while self._admit():
                chunks = self._chunks()
                seconds = self.cost.prefill([(new, done) for _, new, done in chunks])
                if self.gpu is None:
                    await asyncio.sleep(seconds)
                else:
                    async with self.gpu:
                        await asyncio.sleep(seconds)
                self.busy_us += int(seconds * 1e6)
                self._finish_chunk(chunks)
        finally:
            self.task = None

    def _admit(self):
        """Move waiting sequences in while a batch has room; False if nothing is to be done."""
        budget = costs.CHUNK_TOKENS - sum(s.n - s.done_tokens for s in self.active)
        while self.waiting and budget > 0:
            seq = self.waiting[0]
            node, hit = self.pool.cache.match(seq.tokens)
            if seq.logprob and seq.logprob["start"] >= 0 and seq.logprob["start"] < hit:
                node, hit = self.pool.cache.root, 0     # prompt logprobs need the prompt computed
            self.pool.cache.lock(node)
            if not self.pool.take(seq.n - hit):
                self.pool.cache.unlock(node)
                break
            self.waiting.popleft()
            seq.node, seq.cached, seq.done_tokens, seq.state = node, hit, hit, "forward"
            seq.times["forward"] = time.time()
            self.active.append(seq)
            budget -= seq.n - hit
        return bool(self.active)

    def _chunks(self):
        budget, chunks = costs.CHUNK_TOKENS, []
        for seq in self.active:
            new = min(budget, seq.n - seq.done_tokens)
            chunks.append((seq, new, seq.done_tokens))
            budget -= new
            if budget <= 0:
                break
        return chunks

    def _finish_chunk(self, chunks):
        hit = input_tokens = 0
        for seq, new, before in chunks:
            seq.done_tokens = before + new
            self.uncached_total += new
            input_tokens += new
            if before == seq.cached:
                hit += seq.cached
                self.stats.add("prefill_effective_tokens_total", seq.cached, mode="device_hit")
            self.stats.add("prefill_effective_tokens_total", new, mode="input")
            if seq.done_tokens >= seq.n:
                self.active.remove(seq)
                self._into_cache(seq)
                seq.times["prefilled"] = time.time()
                self.on_done(seq)
        self.hit_rate = hit / (hit + input_tokens) if hit + input_tokens else 0.0
        self.on_batch()

    def _into_cache(self, seq):
        """What was computed becomes part of the tree; the sequence keeps its path locked."""
        cache = self.pool.cache
        if not cache.enabled:
            return
        node, _ = cache.insert(seq.tokens)
        cache.lock(node)
        cache.unlock(seq.node)
        seq.node = node
        self.pool.give(seq.n - seq.cached)

    def release(self, seq):
        """The sequence needs its prompt no more."""
        if seq.node is not None:
            self.pool.cache.unlock(seq.node)
            seq.node = None
            if not self.pool.cache.enabled:
                self.pool.give(seq.n)


class DecodeBatch:
    """The running batch: each step gives each sequence a token."""

    TICK = 2e-3      # shorter steps are taken several at a time, so that a fast simulation does not drown in timers

    def __init__(self, pool, cost, on_done, stats, max_running, gpu=None):
        self.pool, self.cost, self.on_done, self.stats = pool, cost, on_done, stats
        self.max_running, self.gpu = max_running, gpu
        self.running = []
        self.retracted = deque()
        self.task = None
        self.steps = 0
        self.generated = 0
        self.throughput = 0.0
        self.on_step = lambda: None

    @property
    def context_tokens(self):
        return sum(s.n + s.produced for s in self.running)

    def add(self, seq):
        """A sequence whose first token is known; its prompt already counts in the pool."""
        seq.state = "running"
        self.running.append(seq)
        seq.advance(1)
        self.generated += 1
        if self.cost.speed == 0:
            self._run_out(seq)
        elif seq.done:
            self._retire(seq)
        elif self.task is None:
            self.task = asyncio.ensure_future(self._run())

    def close(self):
        if self.task:
            self.task.cancel()

    def drop(self, seq):
        if seq in self.running:
            self._retire(seq)
        elif seq in self.retracted:
            self.retracted.remove(seq)
            self.pool.held += seq.n + seq.grown
            self.on_done(seq)

    def _run_out(self, seq):
        if seq.stream:
            while not seq.done:
                seq.advance(1)
        else:
            seq.advance(seq.limit)
        self.generated += seq.produced - 1
        self.steps += seq.produced
        self._retire(seq)
        self.on_step()

    def _retire(self, seq):
        self.running.remove(seq)
        self.on_done(seq)

    async def _run(self):
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while self.running or self.retracted:
                self._resume()
                step = self.cost.decode_step(len(self.running), self.context_tokens)
                steps = max(1, round(self.TICK / step))
                due = max(due, loop.time() - self.TICK) + steps * step
                if self.gpu is None:
                    await asyncio.sleep(max(0, due - loop.time()))
                else:
                    async with self.gpu:
                        await asyncio.sleep(max(0, due - loop.time()))
                self._step(steps, step)
        finally:
            self.task = None

    def _step(self, steps, seconds):
        self.steps += steps
        self._retract(steps)
        made = 0
        for seq in tuple(self.running):
            before = seq.produced
            seq.advance(steps)
            made += seq.produced - before
            seq.grown += seq.produced - before
            self.pool.held += seq.produced - before
            if seq.done:
                self._retire(seq)
        self.generated += made
        self.throughput = made / (steps * seconds) if seconds else 0.0
        self.on_step()

    def _retract(self, steps):
        """Out of memory: the youngest sequences give their place up and go on later."""
        while len(self.running) > 1 and self.pool.used + steps * len(self.running) > self.pool.capacity:
            seq = self.running.pop()
            seq.retractions += 1
            self.pool.give(seq.n + seq.grown)
            self.retracted.append(seq)
            self.stats.add("num_retracted_requests_total")

    def _resume(self):
        while self.retracted and self.pool.take(self.retracted[0].n + self.retracted[0].grown):
            self.running.append(self.retracted.popleft())
