#!/usr/bin/python3
"""Instructions per request that nginx executes in user space (callgrind), for the same variants as nginx_bench.py. They do not depend on what else the
machine does. One Python client keeps 16 connections, sends a request on each, then reads the answers; the first 160 requests are not counted.

    tests/bench/nginx_instructions.py [--module FILE] [--variants A,B] [--sizes A,B] [--keep PREFIX]

--keep leaves callgrind's files as PREFIX.VARIANT.SIZE, for callgrind_annotate.
"""

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nginx_bench as bench

CONNECTIONS, WARM, COUNTED = 16, 160, 640


def requests_of(directory, port, size):
    for i in range(1, 17):
        body = (directory / f"body-{size}-{i}").read_bytes()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        yield head.encode() + body


def read_answer(s):
    text = b""
    while b"\r\n\r\n" not in text or len(text) < text.index(b"\r\n\r\n") + 4 + int(re.search(rb"(?i)content-length: (\d+)", text).group(1)):
        piece = s.recv(65536)
        if not piece:
            raise RuntimeError(f"closed after {text[:200]}")
        text += piece
    if b" 200 " not in text[:20]:
        raise RuntimeError(f"not 200: {text[:200]}")


def drive(port, requests, n):
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    for i in range(0, n, CONNECTIONS):
        for j, s in enumerate(socks):
            s.sendall(requests[(i + j) % len(requests)])
        for s in socks:
            read_answer(s)
    for s in socks:
        s.close()


def count(directory, name, module, port, stubs, sizes, keep):
    """Instructions per request, by size, of one variant."""
    conf = directory / f"{name}.conf"
    conf.write_text("master_process off;" + bench.gateway_conf(directory, name, module, {name: port}, stubs))
    out = directory / f"{name}.callgrind"
    gw = subprocess.Popen(["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}", bench.gateway.NGINX, "-p", str(directory), "-e",
                           str(directory / f"{name}.log"), "-c", str(conf)])
    try:
        end = time.monotonic() + 60
        while True:
            try:
                bench.wait_port(port)
                break
            except RuntimeError:
                if gw.poll() is not None or time.monotonic() > end:
                    raise
        for number, size in enumerate(sizes, 1):
            requests = list(requests_of(directory, port, size))
            drive(port, requests, WARM)
            subprocess.run(["callgrind_control", "-z", str(gw.pid)], stdout=subprocess.DEVNULL, check=True)
            drive(port, requests, COUNTED)
            subprocess.run(["callgrind_control", "-d", str(gw.pid)], stdout=subprocess.DEVNULL, check=True)
            dump = Path(f"{out}.{number}")
            text = dump.read_text()
            if keep:
                Path(f"{keep}.{name}.{size}").write_text(text)
            yield size, int(re.findall(r"^(?:summary|totals): (\d+)", text, re.M)[-1]) // COUNTED
    finally:
        gw.terminate()
        gw.wait(60)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--module", default=None)
    p.add_argument("--variants", default="pd,scan,floor,plain,stock")
    p.add_argument("--sizes", default=",".join(bench.SIZES))
    p.add_argument("--keep")
    args = p.parse_args()
    module = Path(args.module or bench.gateway.build_module()).resolve()
    variants, sizes = args.variants.split(","), args.sizes.split(",")
    with tempfile.TemporaryDirectory(prefix="pdroute-bench-") as name, bench.Stubs(Path(name), len(variants)) as stubs:
        for port, (variant, (of, _)) in zip(stubs.free, bench.gateways(variants, module, apart=True).items()):
            for size, n in count(stubs.directory, variant, of, port, stubs.ports, sizes, args.keep):
                print(f"{variant:8} {size:6} {n:8,}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
