#!/usr/bin/python3
"""
What a request costs: CPU of the gateway process, both legs, one process; beside SGLang's own Python gateway (sglang-router --mini-lb) and nginx's module, in turns,
in front of the same stubs. And what one POST costs with httpx, aiohttp, and client.py.

    examples/python/bench.py [--seconds 3] [--rounds 3] [--sizes 1KB,132KB] [--mini-lb VENV]

VENV: an environment with sglang-router from PyPI (pip install sglang-router); without it mini_lb is left out, and said so.
"""
from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/bench"), str(TOP / "tests/gateway"), str(TOP / "bindings/python"), str(TOP / "examples/python")]
bench = importlib.import_module("nginx_bench")  # the tests' modules have no types
free_ports: typing.Callable[[int], list[int]] = importlib.import_module("hosts.host").free_ports
if typing.TYPE_CHECKING:
    Process = subprocess.Popen[bytes]

BIND = {"pdroute": [sys.executable, "-m", "uvicorn", "pdroute_gateway:app", "--no-access-log", "--log-level", "error", "--host", "127.0.0.1", "--port"]}


def stubs(directory: Path) -> tuple[Process, list[int], list[int]]:
    """Four prefill and four decode servers, which answer at once."""
    ports = free_ports(8)
    listen = " ".join(f"listen 127.0.0.1:{p};" for p in ports)
    process: Process = bench.start(directory, "stub", bench.STUB.format(dir=directory, listen=listen))
    for p in ports:
        bench.wait_port(p)
    return process, ports[:4], ports[4:]


def gateway(directory: Path, prefills: list[int], decodes: list[int]) -> tuple[Process, int]:
    port, = free_ports(1)
    (directory / "zone.json").write_text(json.dumps({"seed": 1, "endpoints": [{"role": "prefill", "host": "127.0.0.1", "port": p} for p in prefills]
                                                     + [{"role": "decode", "host": "127.0.0.1", "port": p} for p in decodes]}))
    environment = {**os.environ, "PYTHONPATH": f"{TOP / 'bindings/python'}:{TOP / 'examples/python'}", "PDROUTE_BLOCK": str(directory / "block-py"),
                   "PDROUTE_CONFIG": str(directory / "zone.json")}
    return subprocess.Popen([*BIND["pdroute"], str(port)], env=environment), port


def mini_lb(venv: str, prefills: list[int], decodes: list[int]) -> tuple[Process, int]:
    port, = free_ports(1)
    line = [f"{venv}/bin/python", "-m", "sglang_router.launch_router", "--pd-disaggregation", "--mini-lb", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    for p in prefills:
        line += ["--prefill", f"http://127.0.0.1:{p}", "8998"]
    for p in decodes:
        line += ["--decode", f"http://127.0.0.1:{p}"]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), port


async def posts(name: str, port: int, body: bytes, n: int, at_once: int = 8) -> float:
    """CPU seconds of n POSTs."""
    client: typing.Any
    if name == "httpx":
        import httpx
        client = httpx.AsyncClient()

        async def one() -> None:
            (await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", content=body)).content
    elif name == "aiohttp":
        import aiohttp
        client = aiohttp.ClientSession()

        async def one() -> None:
            async with client.post(f"http://127.0.0.1:{port}/v1/chat/completions", data=body) as answer:
                await answer.read()
    else:
        from pdroute_gateway.client import Client, Leg
        client = Client(5, 256, 60)
        peer = client.peer("127.0.0.1", port, False)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)

        class Job:  # what client.py wants of one
            head_request = merging = False

            def __init__(self) -> None:
                self.over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            def event(self, kind: int, leg: int, detail: int = 0) -> None:
                if kind in (3, 4) and not self.over.done():
                    self.over.set_result(detail)

            def wake(self) -> None:
                pass

        async def one() -> None:
            job = Job()
            client.start(Leg(typing.cast(typing.Any, job), 1, 0, peer, [head + body]))
            if await job.over:
                raise RuntimeError("the leg failed")

    async def some(k: int) -> None:
        for _ in range(k):
            await one()

    await some(5)
    began = time.process_time()
    await asyncio.gather(*(some(n // at_once) for _ in range(at_once)))
    used = time.process_time() - began
    if name == "client.py":
        client.close()
    else:
        await (client.aclose() if name == "httpx" else client.close())
    return used / (n // at_once * at_once)


def clients(port: int, size: str, n: int = 400, rounds: int = 3) -> dict[str, float]:
    body = b"x" * bench.SIZES[size]
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name in ("httpx", "aiohttp", "client.py"):
            work = posts(name, port, body, n)
            found.setdefault(name, []).append(asyncio.run(work))
    return {name: statistics.median(each) * 1e6 for name, each in found.items()}


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--sizes", default="1KB,132KB")
    p.add_argument("--mini-lb", default=os.environ.get("PDROUTE_MINI_LB"))
    given = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="pdroute-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        bench.write_bodies(directory, 16)
        stub, prefills, decodes = stubs(directory)
        running = [stub]
        try:
            variants = {"pdroute_gateway": gateway(directory, prefills, decodes)}
            if given.mini_lb:
                variants["sglang mini_lb"] = mini_lb(given.mini_lb, prefills, decodes)
            else:
                print("mini_lb left out: no --mini-lb VENV")
            running += [process for process, _ in variants.values()]
            for process, port in variants.values():
                end = time.monotonic() + 60
                while time.monotonic() < end:
                    try:
                        bench.wait_port(port)
                        break
                    except RuntimeError:
                        pass
            for size in given.sizes.split(","):
                found: dict[str, list[float]] = {name: [] for name in variants}
                for _ in range(given.rounds):
                    for name, (process, port) in variants.items():
                        found[name].append(bench.measure(directory, port, size, given.seconds, process.pid))
                costs = {name: statistics.median(each) for name, each in found.items()}
                for name, ns in costs.items():
                    print(f"{size:6s} {name:18s} {ns / 1000:8.0f} us a request   {1e9 / ns:6.0f} a CPU-second" +
                          (f"   {costs['sglang mini_lb'] / ns:5.1f}x mini_lb" if "sglang mini_lb" in costs and name == "pdroute_gateway" else ""), flush=True)
                print(f"{size:6s} one POST: " + ", ".join(f"{name} {us:.0f} us" for name, us in clients(decodes[0], size).items()), flush=True)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(20)


if __name__ == "__main__":
    main()
