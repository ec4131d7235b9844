"""Resident memory does not grow with requests: 200,000 of them with tests/run --long, or PDROUTE_RSS_REQUESTS."""

import asyncio
import json
import multiprocessing
import os
import random

import pytest
from hosts.host import free_ports
from traffic import PATHS, body

REQUESTS = int(os.environ.get("PDROUTE_RSS_REQUESTS") or (200_000 if os.environ.get("PDROUTE_LONG") else 0))
CLIENTS, ALLOWED_KB = 16, 2048
ANSWER = json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": {"prompt_tokens": 200, "completion_tokens": 1, "total_tokens": 201},
                     "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}]}).encode()


async def read_message(reader):
    """Head and body of one HTTP message."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readline(), 16):
            await reader.readexactly(size + 2)
        await reader.readline()
    elif b"content-length: " in head:
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    return head


def serve(ports):
    """A worker that answers everything at once: a simulated one would take most of the time."""
    async def answer(reader, writer):
        try:
            while await read_message(reader):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run():
        for port in ports:
            await asyncio.start_server(answer, "127.0.0.1", port)
        await asyncio.Event().wait()

    asyncio.run(run())


async def send(port, count):
    """`count` requests over CLIENTS connections; the statuses that were not 200."""
    failed, left = [], [count]
    rng = random.Random(count)

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left[0] > 0:
            left[0] -= 1
            sent = json.dumps(body("chat", text=f"{rng.random()} " + "word " * 190)).encode()
            writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (PATHS["chat"].encode(), len(sent), sent))
            head = await read_message(reader)
            if b" 200 " not in head[:20]:
                failed.append(head[:100])
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return failed


def resident(gw):
    """Memory of its own, of all its processes: the block's pages are not counted."""
    kb = 0
    for pid in gw.all_pids() or [gw.process.pid]:
        with open(f"/proc/{pid}/status") as f:
            kb += next(int(line.split()[1]) for line in f if line.startswith("RssAnon"))
    return kb


@pytest.mark.skipif(not REQUESTS, reason="with tests/run --long, or PDROUTE_RSS_REQUESTS=20000")
def test_memory_is_flat(make_gateway):
    ports = free_ports(2)
    workers = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    workers.start()
    try:
        gw = make_gateway([{"role": role, "host": "127.0.0.1", "port": port} for role, port in zip(("prefill", "decode"), ports)], config={"hold": "off"})
        seen = []
        for _ in range(10):
            assert not asyncio.run(send(gw.port, REQUESTS // 10))
            seen.append(resident(gw))
        print(f"{gw.name}: kB resident after each tenth of {REQUESTS} requests: {seen}")
        # the first tenth fills pools and caches
        assert max(seen[5:]) - max(seen[:5]) < ALLOWED_KB, seen
    finally:
        workers.terminate()
        workers.join()
