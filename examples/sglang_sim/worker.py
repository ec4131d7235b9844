"""One simulated worker: an HTTP front (aiohttp's server) before an engine, with faults and a record of every request."""

import asyncio
import gzip
import json
import math
import os
import time
from dataclasses import dataclass, field

from aiohttp import web

from . import answers, info, tokenizer
from .api import Crash, Reader, Refused, parse_json, validation_error
from .cost import KV_BYTES_PER_TOKEN, Cost
from .engine import Sequence, Timers
from .faults import Faults, Record, Recorder
from .rendezvous import join
from .roles import ROLES

HEADERS = {"Server": "uvicorn", "Vary": "Origin"}
GENERATING = {"/generate", "/v1/chat/completions", "/v1/completions"}


@dataclass
class Options:
    """Everything that can be set for one worker."""

    host: str = "127.0.0.1"
    port: int = 0
    bootstrap_host: str = ""            # default: host
    bootstrap_port: int = 0             # prefill only
    default_bootstrap_port: int = 8998  # what a null bootstrap_port in a body means to this worker
    model: str = "tiny"
    capacity: int = 270_000
    context: int = 32_768
    vocabulary: int = 2**32             # ids that requests may bring; the simulated tokenizer makes any of four bytes
    dp_size: int = 1
    radix: bool = True
    natural_tokens: int = 128
    header_overrides: bool = False
    keep_alive: float = 5.0
    restart_after: object = None
    records: int = 10_000
    seed: int = 0
    cost: Cost = field(default_factory=Cost)
    timers: Timers = field(default_factory=Timers)
    kv_bytes: int = KV_BYTES_PER_TOKEN
    pid: int = field(default_factory=os.getpid)

    @property
    def name(self):
        return join(self.host, self.port)


class Listener(web.Server):
    """aiohttp's server, which also tells when a connection is lost."""

    def __init__(self, handler, on_lost, **options):
        super().__init__(handler, **options)
        self.on_lost = on_lost

    def connection_lost(self, handler, exc=None):
        super().connection_lost(handler, exc)
        self.on_lost(handler)


def _request(message, payload, protocol, writer, task):
    return web.BaseRequest(message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=2**30)


@dataclass
class Active:
    """A request being answered."""

    record: Record
    seqs: list = field(default_factory=list)
    stream: bool = False
    start: float = 0.0
    gone: asyncio.Future = None


class Worker:
    def __init__(self, role, options):
        self.role, self.options = role, options
        self.faults = Faults()
        self.recorder = Recorder(options.records)
        self.engine = None
        self.server = None
        self.listener = None
        self.active = {}            # connection -> Active
        self.restarts = 0
        self.speed = options.cost.speed
        self.dying = None
        options.bootstrap_host = options.bootstrap_host or options.host
        self.routes = {
            ("GET", "/health"): self.health, ("GET", "/health_generate"): self.health, ("GET", "/ready"): self.ready,
            ("GET", "/ping"): self.ready, ("GET", "/"): self.root,
            ("GET", "/metrics"): self.metrics, ("GET", "/v1/loads"): self.loads, ("GET", "/v1/models"): self.models,
            ("GET", "/get_model_info"): self.model_info, ("GET", "/model_info"): self.model_info,
            ("GET", "/get_server_info"): self.server_info, ("GET", "/server_info"): self.server_info,
            ("POST", "/abort_request"): self.abort_request, ("POST", "/flush_cache"): self.flush_cache,
            ("GET", "/flush_cache"): self.flush_cache, ("POST", "/tokenize"): self.tokenize,
            ("POST", "/v1/tokenize"): self.tokenize, ("POST", "/detokenize"): self.detokenize,
            ("POST", "/v1/embeddings"): self.embeddings,
            ("POST", "/generate"): self.generate, ("PUT", "/generate"): self.generate,
            ("POST", "/v1/chat/completions"): self.generate, ("POST", "/v1/completions"): self.generate,
        }
        self.paths = {path for _, path in self.routes}

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self):
        """Listen first, so that the port is known, then start the engine."""
        self.listener = Listener(self.handle, self.lost, request_factory=_request, keepalive_timeout=self.options.keep_alive,
                                 access_log=None, auto_decompress=False, max_line_size=65536, max_field_size=65536,
                                 lingering_time=0)
        await self.listen()
        self.engine = ROLES[self.role](self.options, self.crash)
        await self.engine.start()
        if self.role == "prefill":
            self.options.bootstrap_port = self.engine.bootstrap.port
        self.reader = Reader(self.options, self.role)
        self.metric_text = info.Metrics(self.engine, self.options)

    async def listen(self):
        if self.server is None:
            loop = asyncio.get_running_loop()
            self.server = await loop.create_server(self.listener, self.options.host, self.options.port, backlog=1024,
                                                   reuse_address=True)
            self.options.port = self.server.sockets[0].getsockname()[1]

    def unlisten(self):
        """Refuse new connections and drop those that wait for a next request."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for connection in tuple(self.listener.connections):
            if connection not in self.active and connection.transport is not None:
                connection.transport.close()

    async def stop(self):
        if self.dying:
            self.dying.cancel()
        self._end_connections()
        if self.engine:
            await self.engine.close()

    def _end_connections(self):
        if self.server is not None:
            self.server.close()
            self.server = None
        for connection in tuple(self.listener.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def crash(self, why, delay=None, restart_after=None):
        """The scheduler died: for some seconds the front still takes requests, then the process is gone."""
        if self.dying is None:
            self.dying = asyncio.ensure_future(self._die(self.options.timers.crash if delay is None else delay, restart_after))

    async def _die(self, delay, restart_after):
        await asyncio.sleep(delay)
        self._end_connections()
        await self.engine.close()
        restart_after = self.options.restart_after if restart_after is None else restart_after
        if restart_after is not None:
            await asyncio.sleep(restart_after)
            self.dying = None
            await self.restart()

    async def restart(self):
        """A new process on the same ports."""
        if self.dying:
            self.dying.cancel()
            self.dying = None
        self._end_connections()
        await self.engine.close()
        self.restarts += 1
        self.faults.active.pop("crash", None)
        await self.start()

    # --- requests -----------------------------------------------------------------------------------------------------

    async def handle(self, request):
        path = request.path
        if path.startswith("/sim/"):
            return await self.control(request.method, path, await request.read(), request.query)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = await request.read()
        except ConnectionError:
            return self.reply(400)       # the client left before its body had come
        peer = request.transport.get_extra_info("peername") if request.transport else None
        record = self.recorder.add(Record(request.method, request.path_qs, list(request.raw_headers), body, f"{peer[0]}:{peer[1]}"
                                          if peer else ""))
        active = self.active[request.protocol] = Active(record, start=asyncio.get_running_loop().time())
        stats = self.engine.stats
        stats.add("http_requests_total", endpoint=path, method=request.method)
        try:
            response = await self.fault(request, path, record, active)
            if response is None:
                response = await self.route(request, path, body, active)
        except Refused as refused:
            response = self.refuse(request, refused)
        finally:
            self.active.pop(request.protocol, None)
            record.end = time.time()
            record.spans = [{"tokens": seq.n, "cached": seq.cached, "came": seq.born, **seq.times} for seq in active.seqs]
        if record.status is None:
            record.status = response.status
        stats.add("http_responses_total", endpoint=path, method=request.method, status_code=str(response.status))
        return response

    async def route(self, request, path, body, active):
        handler = self.routes.get((request.method, path))
        if handler is not None:
            return await handler(request, path, body, active)
        if path.startswith("/v1/models/") and request.method == "GET":
            return self.model(path.removeprefix("/v1/models/"))
        if path in self.paths:
            allowed = ", ".join(sorted(m for m, p in self.routes if p == path))
            return self.reply(405, {"detail": "Method Not Allowed"}, {"Allow": allowed})
        return self.reply(404, {"detail": "Not Found"})

    def reply(self, status, body=b"", headers=None):
        """A whole answer: an object is JSON, a string plain text, bytes have no type."""
        headers = {**HEADERS, **(headers or {})}
        if isinstance(body, str):
            headers["Content-Type"], body = "text/plain; charset=utf-8", body.encode()
        elif not isinstance(body, bytes):
            headers["Content-Type"], body = "application/json", answers.dumps(body)
        response = web.Response(status=status, body=body, headers=headers)
        if body == b"":
            response.headers.popall("Content-Type", None)
        return response

    def refuse(self, request, refused):
        """A refusal by the front. After an unhandled exception the engine closes the connection, without saying so."""
        if refused.status == 500 and isinstance(refused.body, str):
            request.protocol.close()
        return self.reply(refused.status, refused.body)

    # --- faults and lost clients --------------------------------------------------------------------------------------

    async def fault(self, request, path, record, active):
        """The answer that a fault gives instead of the engine, or None."""
        if not self.faults.active:
            return None
        generating = path in GENERATING
        for kind in ("crash", "hang", "reset", "status"):
            fault = self.faults.active.get(kind)
            if fault is None or (fault.path is None and not generating) or not self.faults.take(kind, path):
                continue
            record.fault = kind
            if kind == "crash":
                self.crash("a fault", 0, fault.restart_after)
            if kind in ("crash", "hang"):
                await self.until_gone(active)
            elif kind == "reset":
                request.transport.abort()
            else:
                if fault.delay and await self.gone_within(active, fault.delay):
                    return self.reply(500)
                headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                body = fault.body if fault.body is not None else {
                    "object": "error", "message": f"simulated fault {fault.status}", "type": str(fault.status), "param": None,
                    "code": fault.status}
                if fault.content_type:
                    body, headers["Content-Type"] = body.encode(), fault.content_type
                return self.reply(fault.status, body, headers)
            return self.reply(500)
        return None

    async def gone_within(self, active, seconds):
        try:
            await asyncio.wait_for(self.until_gone(active), seconds)
        except asyncio.TimeoutError:
            active.gone = None
        return active.record.disconnected is not None

    async def in_part(self, request, response, active):
        """A whole answer, or with the faults `cut` and `stall` half of it."""
        kind = "cut" if self.faults.take("cut", request.path) else "stall" if self.faults.take("stall", request.path) else None
        if kind is None:
            return response
        active.record.fault, active.record.status = kind, response.status
        part = web.StreamResponse(status=response.status, headers={**response.headers, "Content-Length": str(len(response.body))})
        await part.prepare(request)
        await part.write(response.body[:len(response.body) // 2])
        if kind == "stall":
            await self.until_gone(active)
        else:
            await asyncio.sleep(0.02)       # what was written is sent before the reset
        if request.transport:
            request.transport.abort()
        return part

    async def until_gone(self, active):
        """Until the client has closed the connection."""
        if active.gone is None:
            active.gone = asyncio.get_running_loop().create_future()
        if active.record.disconnected is None:
            await active.gone

    def lost(self, connection):
        """A connection has ended while a request was being answered: the engine notices when it looks next."""
        active = self.active.get(connection)
        if active is None:
            return
        active.record.disconnected = time.time()
        if active.gone is not None and not active.gone.done():
            active.gone.set_result(None)
        if not active.seqs:
            return
        loop = asyncio.get_running_loop()
        timers = self.options.timers
        if active.stream:
            delay = timers.stream_abort
        else:
            passed = loop.time() - active.start
            delay = math.ceil(max(passed, 1e-9) / timers.poll_client) * timers.poll_client - passed
        loop.call_later(delay, self.give_up, active)

    def give_up(self, active):
        open_ones = [seq for seq in active.seqs if not seq.done]
        if open_ones:
            active.record.aborted = time.time()
            self.engine.stats.add("num_aborted_requests_total")
            for rid in {seq.rid for seq in open_ones}:
                self.engine.abort_rids(rid)

    # --- the paths that generate --------------------------------------------------------------------------------------

    async def generate(self, request, path, body, active):
        try:
            call = self.reader.read(path, body, request.headers)
        except Crash as crash:
            self.engine.crash(str(crash))
            await self.until_gone(active)
            return self.reply(500)
        seqs = active.seqs = self.sequences(call)
        active.stream = call.stream
        for seq in seqs:
            self.engine.submit(seq)
        if call.stream:
            return await self.stream(request, call, seqs, active)
        for seq in seqs:
            while not seq.done:
                await seq.wait()
        self.count(call, seqs)
        failed = next((s for s in seqs if s.failed), None)
        if failed is not None:
            raise abort_error(path, failed)
        if call.kind == "generate":
            objects = [answers.generate(call, s, s.produced, self.engine.mode, True, self.dp_rank(s)) for s in seqs]
            return await self.in_part(request, self.reply(200, objects if call.batch or call.n > 1 else objects[0]), active)
        layout = answers.chat if call.kind == "chat" else answers.completion
        return await self.in_part(request, self.reply(200, layout(call, seqs, self.engine.mode)), active)

    def sequences(self, call):
        """One sequence per prompt and sample. All samples of a prompt use its room, which is why n > 1 does not work."""
        seqs = []
        for i, prompt in enumerate(call.prompts):
            for j in range(call.n):
                single = len(call.prompts) * call.n == 1
                rid = call.rids[i] if i < len(call.rids) else call.rid if single else f"{call.rid[:-8]}{i * call.n + j:08x}"
                seqs.append(Sequence(rid, prompt.tokens, prompt.max_new, prompt.stops, prompt.host, prompt.port, prompt.room,
                                     call.rank, call.prefill_rank, call.logprob, prompt.natural, call.stream))
        return seqs

    def dp_rank(self, seq):
        return seq.engine.rank if self.options.dp_size > 1 and self.role == "prefill" else None

    async def stream(self, request, call, seqs, active):
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        if call.kind == "generate":
            await response.prepare(request)      # the OpenAI paths send their headers with the first event
        active.record.status = 200
        die = next((f for f in (self.faults.take(kind, request.path) for kind in ("die_after", "cut", "stall")) if f), None)
        chunks = answers.Stream(call, seqs, self.engine.mode)
        try:
            async for event in self.events(call, seqs, chunks):
                if die is not None and active.record.events >= die.events:
                    active.record.fault = die.kind
                    if die.kind == "stall":
                        await self.until_gone(active)
                    elif request.transport:
                        request.transport.abort()
                    return response
                if not response.prepared:
                    await response.prepare(request)
                await response.write(event)
                active.record.events += 1
            await response.write_eof()
        except ConnectionError:
            await self.until_gone(active)
        self.count(call, seqs)
        return response

    async def events(self, call, seqs, chunks):
        """The events of a stream, in the order in which tokens come."""
        failed = False
        async for i, seq, produced, final in in_order(seqs):
            if final and seq.failed and call.kind != "generate":
                failed = True
                yield answers.stream_error(seq)
            elif call.kind == "generate":
                yield answers.event(answers.generate(call, seq, produced, self.engine.mode, final, self.dp_rank(seq),
                                                     i if call.batch else None))
            else:
                if produced > chunks.sent[i]:
                    for part in chunks.tokens(i, produced, final):
                        yield part
                if final:
                    for part in chunks.end_of(i):
                        yield part
        if call.usage and call.kind != "generate" and not failed:
            yield chunks.usage()
        yield answers.DONE

    def count(self, call, seqs):
        """Counters and histograms of requests that have ended."""
        stats, streaming, now = self.engine.stats, str(call.stream).lower(), time.time()
        for seq in seqs:
            stats.add("num_requests_total", is_streaming=streaming)
            stats.add("prompt_tokens_total", seq.n, is_streaming=streaming)
            stats.add("generation_tokens_total", seq.produced, is_streaming=streaming)
            if seq.cached:
                stats.add("cached_tokens_total", seq.cached, cache_source="device")
            stats.observe("e2e_request_latency_seconds", now - seq.born, is_streaming=streaming)
            if self.role != "prefill" and "running" in seq.times:
                stats.observe("time_to_first_token_seconds", seq.times["running"] - seq.born, is_streaming=streaming)
            if "forward" in seq.times:
                stats.observe("queue_time_seconds", seq.times["forward"] - seq.born)

    # --- the other paths ----------------------------------------------------------------------------------------------

    async def health(self, request, path, body, active):
        if self.engine.crashed:
            await self.until_gone(active)
        if self.role != "unified" and self.options.timers.health:
            await asyncio.sleep(self.options.timers.health)
        return self.reply(200)

    async def ready(self, request, path, body, active):
        return self.reply(200)

    async def root(self, request, path, body, active):
        return self.reply(200, b'"SGLang is running"', {"Content-Type": "application/json"})

    async def metrics(self, request, path, body, active):
        text = self.metric_text.text().encode()
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            text = gzip.compress(text, 1)
        return self.reply(200, text, headers)

    async def loads(self, request, path, body, active):
        rank = request.query.get("dp_rank")
        if rank is not None and not rank.lstrip("-").isdigit():
            raise validation_error(path, [{"type": "int_parsing", "loc": ("query", "dp_rank"), "input": rank, "msg": "Input "
                                           "should be a valid integer, unable to parse string as an integer"}])
        answer = info.loads(self.engine, self.options, request.query)
        if answer is None:
            raise Refused(500, "Internal Server Error")
        return self.reply(200, answer[1].encode(), {"Content-Type": answer[0]})

    async def models(self, request, path, body, active):
        return self.reply(200, info.models(self.options))

    def model(self, name):
        if name == self.options.model:
            return self.reply(200, info.model_card(self.options))
        return self.reply(404, {"error": {"message": f"The model '{name}' does not exist", "type": "invalid_request_error",
                                          "param": "model", "code": "model_not_found"}})

    async def model_info(self, request, path, body, active):
        return self.reply(200, info.model_info(self.engine, self.options))

    async def server_info(self, request, path, body, active):
        return self.reply(200, info.server_info(self.engine, self.options))

    async def abort_request(self, request, path, body, active):
        obj = parse_json(path, body)
        self.engine.abort_rids(obj.get("rid") or "", bool(obj.get("abort_all")))
        return self.reply(200)

    async def flush_cache(self, request, path, body, active):
        if self.engine.live:
            return self.reply(400, b"Flush cache failed.\n")
        for pool in self.engine.pools:
            pool.cache.clear()
        return self.reply(200, b"Cache flushed.\nPlease check backend logs for more details. (When there are running or waiting "
                               b"requests, the operation will not be performed.)\n")

    async def tokenize(self, request, path, body, active):
        obj = parse_json(path, body)
        if obj.get("messages") is not None:
            tokens = tokenizer.to_ids(tokenizer.chat(obj["messages"]))
        elif isinstance(obj.get("prompt"), list):
            tokens = [tokenizer.to_ids(tokenizer.encode(p)) for p in obj["prompt"]]
        else:
            tokens = tokenizer.to_ids(tokenizer.encode(obj.get("prompt") or ""))
        count = [len(t) for t in tokens] if tokens and isinstance(tokens[0], list) else len(tokens)
        return self.reply(200, {"tokens": tokens, "count": count, "max_model_len": self.options.context})

    async def detokenize(self, request, path, body, active):
        obj = parse_json(path, body)
        tokens = obj.get("tokens") or []
        if tokens and isinstance(tokens[0], list):
            return self.reply(200, {"text": [tokenizer.decode(tokenizer.from_ids(t)) for t in tokens]})
        return self.reply(200, {"text": tokenizer.decode(tokenizer.from_ids(tokens))})

    async def embeddings(self, request, path, body, active):
        parse_json(path, body)
        raise Refused(400, {"object": "error", "message": "This model does not appear to be an embedding model by default. "
                            "Please add `--is-embedding` when launching the server or try another model.",
                            "type": "BadRequestError", "param": None, "code": 400})

    # --- control ------------------------------------------------------------------------------------------------------

    async def control(self, method, path, body, query):
        """/sim/…: not part of the engine."""
        try:
            spec = json.loads(body) if body else {}
            if path == "/sim/fault":
                return self.reply(200, {"faults": await self.set_fault(spec)})
            if path == "/sim/reset":
                await self.reset(bool(spec.get("cache", True)))
                return self.reply(200, {"ok": True})
            if path == "/sim/restart":
                await self.restart()
                return self.reply(200, {"ok": True})
            if path == "/sim/state":
                return self.reply(200, self.state())
            if path == "/sim/requests":
                last = int(query.get("last", self.options.records))
                records = list(self.recorder.records)[-last:] if last else []
                return self.reply(200, {"worker": self.options.name, "total": self.recorder.total,
                                        "requests": [r.listing() for r in records]})
        except (ValueError, TypeError) as error:
            return self.reply(400, {"error": str(error)})
        return self.reply(404, {"error": "one of /sim/fault, /sim/reset, /sim/restart, /sim/state, /sim/requests"})

    async def set_fault(self, spec):
        fault = self.faults.set(spec)
        kind, off = spec["kind"], bool(spec.get("off"))
        if kind == "refuse":
            if off:
                await self.listen()
            else:
                self.unlisten()
        elif kind == "slow":
            self.options.cost.speed = self.speed if off else max(self.speed, 0.01) * fault.factor
        elif kind == "crash" and not off and not spec.get("count"):
            self.crash("a fault", 0, fault.restart_after)
        return self.faults.listing()

    async def reset(self, cache):
        """No faults, no records, and an empty prefix cache; a dead worker lives again."""
        self.faults.clear()
        self.options.cost.speed = self.speed
        self.recorder.clear()
        if self.dying or self.engine.crashed:
            await self.restart()
        self.engine.forget_the_dead()
        await self.listen()
        if cache and not self.engine.live:
            for pool in self.engine.pools:
                pool.cache.clear()

    def state(self):
        return {"worker": self.options.name, "role": self.role, "crashed": self.engine.crashed, "listening": self.server is not None,
                "restarts": self.restarts, "faults": self.faults.listing(), "requests": self.recorder.total,
                "open": len(self.active), "live": sum(len(s) for s in self.engine.live.values()),
                "bootstrap_port": self.options.bootstrap_port or None, "prefills": self.engine.known_prefills(), "cached_tokens": sum(p.cache.size for p in self.engine.pools),
                "loads": self.engine.loads()}


def abort_error(path, seq):
    """How a request that the engine gave up is answered when nothing has been sent yet."""
    status, message = seq.finish["status_code"], seq.finish["message"]
    if path == "/generate" and status == 400:
        return Refused(400, {"error": {"message": message}})
    kind = "BadRequestError" if status == 400 else str(status)
    return Refused(status, {"object": "error", "message": message, "type": kind, "param": None, "code": status})


async def in_order(seqs):
    """(index, sequence, tokens so far, is it the last) of each step of several sequences, as they come."""
    if len(seqs) == 1:
        async for item in _steps(0, seqs[0]):
            yield item
        return
    queue = asyncio.Queue()

    async def pump(i, seq):
        async for item in _steps(i, seq):
            queue.put_nowait(item)

    tasks = [asyncio.ensure_future(pump(i, seq)) for i, seq in enumerate(seqs)]
    try:
        open_ones = len(seqs)
        while open_ones:
            item = await queue.get()
            yield item
            open_ones -= item[3]
    finally:
        for task in tasks:
            task.cancel()


async def _steps(i, seq):
    while True:
        await seq.wait()
        counts, seq.counts = seq.counts, []
        for n, produced in enumerate(counts):
            final = seq.done and n == len(counts) - 1
            yield i, seq, produced, final
            if final:
                return
        if seq.done and not seq.counts:
            yield i, seq, seq.produced, True
            return
