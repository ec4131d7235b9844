#!/usr/bin/env python3
"""
What a call costs from Python beyond what it costs in C, both timed in turns in one process, on one router with the same body: the smallest of many short
rounds of each. Where Python holds many bookings at once (route_batch), C holds as many.

    PDROUTE_LIBDIR=build/lib bench/run.py [BYTES]      a body of that size [1024]
"""
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter_ns

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from pdroute import Config, Endpoint, Role, Router, rewrite  # noqa: E402
from pdroute.routed import Call  # noqa: E402

ROUNDS, CALLS = 60, 300
ROUTE, FLOOR = "route + booking_done, bytes", "a call of seven arguments that does nothing"
BYTEARRAY, MEMORYVIEW, PART, BATCH, REWRITE = "… bytearray", "… memoryview", "… memoryview of a part", "… route_batch, 300 at once", "rewrite of one leg"


def compiled(directory):
    """c_cost.c, linked with the very library that the package has loaded."""
    out = Path(directory) / "c_cost.so"
    where = Path(os.environ.get("PDROUTE_LIBDIR") or HERE.parent / "pdroute/_lib")
    found = next(p for p in (where / "libpdroute.so", where / "libpdroute.so.0") if p.exists())
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-I", HERE.parents[2] / "include", HERE / "c_cost.c", "-o", out, found], check=True)
    library = ctypes.CDLL(str(out))
    for name in ("c_route", "c_route_done", "c_route_hold", "c_rewrite"):
        function = getattr(library, name)
        function.restype = ctypes.c_uint64
        function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32]
    return library


def fleet():
    router = Router.create(Config(seed=7, max_endpoints=128, max_bookings=4096))
    for i in range(64):
        role = Role.PREFILL if i % 2 else Role.DECODE
        router.put(Endpoint(role=role, host=f"10.0.0.{i + 1}", port=8000))
    return router


def main(size=1024):
    router = fleet()
    lease = router.lease("bench")
    body = json.dumps({"model": "x", "messages": [{"role": "user", "content": ""}], "max_tokens": 50}).encode()
    body = body.replace(b'""', b'"' + b"word " * ((size - len(body)) // 5) + b'"')
    routed = router.route(body, lease=lease)
    decision, prompt = routed.decision, routed.prompt
    routed.done()
    views = {"bytes": body, "bytearray": bytearray(body), "memoryview": memoryview(body), "part": memoryview(b" " + body)[1:]}

    def batch():
        for each in router.route_batch([body] * CALLS, lease=lease):
            each.done()

    def legs():
        for i in range(CALLS):
            rewrite(decision, prompt, i & 1, body)

    def of(kind):
        each = views[kind]

        def run():
            for _ in range(CALLS):
                router.route(each, lease=lease).done()
        return run

    with tempfile.TemporaryDirectory() as directory:
        c = compiled(directory)
        rows = [(ROUTE, 2, of("bytes"), c.c_route_done), (BYTEARRAY, 2, of("bytearray"), c.c_route_done),
                (MEMORYVIEW, 2, of("memoryview"), c.c_route_done), (PART, 2, of("part"), c.c_route_done), (BATCH, 2, batch, c.c_route_hold),
                (REWRITE, 1, legs, c.c_rewrite)]
        nothing, call = c["c_nothing"], Call()
        given = (router._handle, body, call.size, *call.refs)

        def floor():
            for _ in range(CALLS):
                nothing(*given)

        rows.append((FLOOR, 1, floor, lambda *_: 1))
        result = {}
        gc.disable()
        print(f"{len(body)} bytes, 64 endpoints                   Python       C    more  more per call")
        for name, calls, python, in_c in rows:
            best, least = 1 << 62, 1 << 62
            for _ in range(ROUNDS):
                began = perf_counter_ns()
                python()
                best = min(best, perf_counter_ns() - began)
                took = in_c(router._handle, body, len(body), lease.id, CALLS)
                assert took
                least = min(least, took)
            best, least = best / CALLS, least / CALLS
            result[name] = (best - least) / calls
            print(f"{name:43s} {best:7.0f} {least:7.0f} {best - least:7.0f} {(best - least) / calls:7.0f} ns")
        gc.enable()
    return result


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
