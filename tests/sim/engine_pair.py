"""The pair under test: a simulated one, or the real one named by SGLANG_PREFILL, SGLANG_DECODE and SGLANG_BOOTSTRAP."""

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass

import aiohttp

from sglang_sim import harness

SIM_TIMERS = 0.05


@dataclass
class Answer:
    status: object                  # None: no answer
    headers: dict
    body: bytes
    seconds: float
    error: object = None

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def events(self):
        """Data of the events of a stream, [DONE] included as text."""
        found = [e[len("data: "):] for e in self.text.split("\n\n") if e]
        return [e if e == "[DONE]" else json.loads(e) for e in found]


class Pair:
    """One prefill and one decode worker."""

    def __init__(self, prefill, decode, bootstrap_host, bootstrap_port, scale, fleet=None):
        self.prefill, self.decode = prefill, decode
        self.bootstrap_host, self.bootstrap_port = bootstrap_host, bootstrap_port
        self.scale = scale          # of the engine's own timers
        self.fleet = fleet

    @property
    def real(self):
        return self.fleet is None

    def room(self):
        return random.randrange(2**40, 2**62)

    def bootstrap(self, **fields):
        return {"bootstrap_host": self.bootstrap_host, "bootstrap_port": self.bootstrap_port, "bootstrap_room": self.room(),
                **fields}

    def generate(self, n=4, **fields):
        return self.bootstrap(**{"text": "the quick brown fox jumps over the lazy dog", "sampling_params":
                                 {"max_new_tokens": n, "temperature": 0, "ignore_eos": True}, **fields})

    def chat(self, n=4, **fields):
        return self.bootstrap(**{"model": "tiny", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": n,
                                 "temperature": 0, "ignore_eos": True, **fields})

    def completion(self, n=4, **fields):
        return self.bootstrap(**{"model": "tiny", "prompt": "hello there", "max_tokens": n, "temperature": 0,
                                 "ignore_eos": True, **fields})

    # Each call runs in an event loop of its own; `script` is for several requests at once.

    def script(self, function, *args):
        async def run():
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False,
                                             skip_auto_headers=["Accept-Encoding"]) as session:
                return await function(Client(self, session), *args)
        return asyncio.run(run())

    def both(self, path, body, decode_body=None, **options):
        """(prefill's answer, decode's answer) to a request sent to both at the same time."""
        async def run(client):
            return await asyncio.gather(client.prefill(path, body, **options),
                                        client.decode(path, body if decode_body is None else decode_body, **options))
        return self.script(run)

    def each(self, path, body, **options):
        """Both answers, one leg after the other: for requests that are refused at once."""
        async def run(client):
            return [await client.prefill(path, body, **options), await client.decode(path, body, **options)]
        return self.script(run)

    def get(self, role, path, **options):
        return self.script(lambda client: client.send("GET", getattr(self, role) + path, None, **options))

    def get_bootstrap(self, path):
        url = f"http://{self.bootstrap_host}:{self.bootstrap_port}{path}"
        return self.script(lambda client: client.send("GET", url, None))

    def alive(self):
        p, d = self.both("/generate", self.generate(1))
        return p.status == d.status == 200


class Client:
    def __init__(self, pair, session):
        self.pair, self.session = pair, session

    def prefill(self, path, body, **options):
        return self.send("POST", self.pair.prefill + path, body, **options)

    def decode(self, path, body, **options):
        return self.send("POST", self.pair.decode + path, body, **options)

    async def send(self, method, url, body, headers=None, timeout=15):
        data = body if body is None or isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body)
        headers = {**({} if body is None else {"Content-Type": "application/json"}), **(headers or {})}
        start = time.monotonic()
        try:
            async with self.session.request(method, url, data=data, headers=headers,
                                            timeout=aiohttp.ClientTimeout(total=timeout)) as response:
                return Answer(response.status, dict(response.headers), await response.read(), time.monotonic() - start)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            return Answer(None, {}, b"", time.monotonic() - start, error)


def connect(timers=SIM_TIMERS, **flags):
    """The pair to test, and what ends it."""
    prefill, decode = os.environ.get("SGLANG_PREFILL"), os.environ.get("SGLANG_DECODE")
    if prefill and decode:
        host = prefill.split("//")[1].rsplit(":", 1)[0]
        return Pair(prefill, decode, host, int(os.environ.get("SGLANG_BOOTSTRAP", "8998")), 1.0), lambda: None
    fleet = harness.start(1, 1, timers=timers, header_overrides=True, **flags)
    p, d = fleet.prefills[0], fleet.decodes[0]
    return Pair(p.url, d.url, p.bootstrap_host, p.bootstrap_port, timers, fleet), fleet.stop
