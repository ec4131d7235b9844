#!/usr/bin/python3
"""What nginx's CPU pays for a request: both legs through the module, against plain proxy_pass (one leg) and proxy_pass with mirror (two).

Four prefill and four decode stubs are another nginx; wrk keeps 32 connections busy. CPU time is that of the measured worker process
(/proc/PID/stat). The variants take turns, so that what else the machine does hits all of them; the median of the rounds is printed.

    pd      the module
    plain   proxy_pass, one leg
    mirror  proxy_pass with mirror, in the module's worker, which has tuned malloc for bodies
    stock   the same in an nginx that has never heard of the module: what those have who use mirror today
    floor   the module's two legs and no decision: bodies as they came, servers in turn (nginx_floor.h)
    scan    the same, but bodies are scanned, hashed and rewritten

    tests/bench/nginx_bench.py [--module FILE] [--variants A,B] [--seconds S] [--rounds N] [--json FILE]
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))
from hosts import nginx as gateway  # noqa: E402

SIZES = {"1KB": 1100, "17KB": 17_000, "132KB": 132_000}
VARIANTS = ("pd", "plain", "mirror", "stock")
FLOORS = {"floor": 1, "scan": 2}
TOP = Path(__file__).resolve().parents[2]

STUB = """
worker_processes 1; daemon off; pid {dir}/stub.pid; error_log {dir}/stub.log error; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    keepalive_requests 1000000; client_max_body_size 8m; client_header_buffer_size 32k; client_body_buffer_size 256k;
    default_type application/json;
    upstream answer {{ server unix:{dir}/answer.sock; keepalive 64; keepalive_requests 1000000; }}
    proxy_http_version 1.1;
    server {{ {listen} # the whole body is read, then the answer fetched
        location / {{ proxy_pass http://answer; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; }}
    }}
    server {{ listen unix:{dir}/answer.sock;
        location / {{ return 200 '{{"id":"x","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"ok"}}}}],"usage":{{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11}}}}'; }}
    }}
}}
"""

GATEWAY = """
{load}
worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.log error; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    keepalive_requests 1000000; client_max_body_size 8m; client_header_buffer_size 32k; client_body_buffer_size 256k;
    upstream prefill {{ {prefill} keepalive 64; keepalive_requests 1000000; }}
    upstream decode {{ {decode} keepalive 64; keepalive_requests 1000000; }}
    proxy_http_version 1.1; proxy_set_header Connection "";
    {servers}
}}
"""

MODULE = "server {{ listen 127.0.0.1:{port}; location / {{ pdroute z; }} }}"
PLAIN = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://decode; }} }}"
MIRROR = """server {{ listen 127.0.0.1:{port};
        location / {{ mirror /mirror; proxy_pass http://decode; }}
        location = /mirror {{ internal; proxy_pass http://prefill$request_uri; }}
    }}"""
SERVER = {"plain": PLAIN, "mirror": MIRROR, "stock": MIRROR}

LUA = """
local bodies = {{}}
init = function(args)
  for i = 1, {n} do
    local f = assert(io.open("{dir}/body-{size}-" .. i, "rb"))
    wrk.headers["Content-Type"] = "application/json"
    bodies[i] = wrk.format("POST", "/v1/chat/completions", nil, f:read("*a"))
    f:close()
  end
end
local i = 0
request = function() i = i % {n} + 1; return bodies[i] end
done = function(summary)
  local e = summary.errors
  io.write(string.format("RESULT %d %d\\n", summary.requests, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(directory, name, text):
    path = directory / f"{name}.conf"
    path.write_text(text)
    return subprocess.Popen([gateway.NGINX, "-p", str(directory), "-e", str(directory / f"{name}.log"), "-c", str(path)])


def wait_port(port):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port}")


def worker_of(process):
    out = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout
    return int(out.split()[0])


def write_bodies(directory, n):
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))).decode() for _ in range(2000)]
    for size, length in SIZES.items():
        for i in range(1, n + 1):
            text = ""
            while len(text) < length - 120:
                text += rng.choice(words) + " "
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 16, "stream": False})
            (directory / f"body-{size}-{i}").write_text(body)
        (directory / f"{size}.lua").write_text(LUA.format(n=n, dir=directory, size=size))


def floor_module(variant):
    """The module with the least that serves a request in place of the library."""
    flags = f"-Wno-unused -I{TOP}/include -include {TOP}/tests/bench/nginx_floor.h -DPDR_FLOOR={FLOORS[variant]}"
    out = subprocess.run([TOP / "examples/nginx/build", TOP / f"build/nginx-{variant}"], check=True, stdout=subprocess.PIPE, text=True,
                         env={**os.environ, "PDROUTE_NGINX_CFLAGS": flags})
    return Path(out.stdout.split()[-1])


def gateways(variants, module, apart=False):
    """Which nginx serves which variants: {name: (module or None, [variants])}; `apart`: each its own."""
    found = {}
    for variant in variants:
        of = floor_module(variant) if variant in FLOORS else None if variant == "stock" else module
        alone = apart or of != module
        found.setdefault(variant if alone else "gw", (of, []))[1].append(variant)
    return found


class Stubs:
    """Bodies, the zone's configuration, and four prefill and four decode servers; and free ports for `n` gateways."""

    def __init__(self, directory, n, bodies=16):
        directory.chmod(0o755)
        ports = gateway.free_ports(8 + n)
        self.directory, self.ports, self.free = directory, ports[:8], ports[8:]
        write_bodies(directory, bodies)
        endpoints = [{"role": "prefill" if i < 4 else "decode", "host": "127.0.0.1", "port": port, "bootstrap_port": 8998}
                     for i, port in enumerate(self.ports)]
        for e in endpoints[4:]:
            del e["bootstrap_port"]
        # stubs answer in no time: nothing would ever be held, and the window would only be in the way of large bodies
        (directory / "zone.json").write_text(json.dumps({"seed": 1, "hold": "off", "endpoints": endpoints}))

    def __enter__(self):
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=1024;" for port in self.ports)
        self.process = start(self.directory, "stub", STUB.format(dir=self.directory, listen=listen))
        for port in self.ports:
            wait_port(port)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(10)


def gateway_conf(directory, name, module, ports, stubs):
    servers = lambda some: " ".join(f"server 127.0.0.1:{port};" for port in some)  # noqa: E731
    parts = [SERVER.get(variant, MODULE).format(port=port) for variant, port in ports.items()]
    if module:
        parts.insert(0, f"pdroute_zone z file={directory}/block-{name} config={directory}/zone.json;")
    return GATEWAY.format(load=f"load_module {module};" if module else "", dir=directory, name=name, prefill=servers(stubs[:4]), decode=servers(stubs[4:]),
                          servers="\n    ".join(parts))


def measure(directory, port, size, seconds, pid):
    before = cpu_seconds(pid)
    answer = urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions",
                                    (directory / f"body-{size}-1").read_bytes(), {"Content-Type": "application/json"}), timeout=10)
    if b"chat.completion" not in answer.read():
        raise RuntimeError("not the stub's answer")
    out = subprocess.run(["wrk", "-t1", "-c32", f"-d{seconds}s", "-s", directory / f"{size}.lua", f"http://127.0.0.1:{port}"],
                         stdout=subprocess.PIPE, text=True, check=True).stdout
    used = cpu_seconds(pid) - before
    line = next(line for line in out.splitlines() if line.startswith("RESULT"))
    requests, errors = map(int, line.split()[1:])
    if errors or not requests:
        raise RuntimeError(f"{errors} of {requests} requests failed:\n{out}")
    return used * 1e9 / requests


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--module", default=None)
    p.add_argument("--seconds", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--sizes", default=",".join(SIZES))
    p.add_argument("--variants", default=",".join(VARIANTS))
    p.add_argument("--bodies", type=int, default=16)
    p.add_argument("--json")
    args = p.parse_args()
    module = Path(args.module or gateway.build_module()).resolve()
    variants = args.variants.split(",")
    with tempfile.TemporaryDirectory(prefix="pdroute-bench-") as name, Stubs(Path(name), len(variants), args.bodies) as stubs:
        directory, where = stubs.directory, dict(zip(variants, stubs.free))
        started, pids = {}, {}
        try:
            served = gateways(variants, module)
            for gw, (of, serves) in served.items():
                started[gw] = start(directory, gw, gateway_conf(directory, gw, of, {v: where[v] for v in serves}, stubs.ports))
            for port in where.values():
                wait_port(port)
            for gw, (_, serves) in served.items():
                pids.update(dict.fromkeys(serves, worker_of(started[gw])))
            found = {}
            for size in args.sizes.split(","):
                for variant in variants:
                    measure(directory, where[variant], size, 1, pids[variant])  # warm
                for _ in range(args.rounds):
                    for variant in variants:
                        found.setdefault((variant, size), []).append(measure(directory, where[variant], size, args.seconds, pids[variant]))
        finally:
            for process in started.values():
                process.terminate()
                process.wait(10)
        for gw in started:
            errors = [line for line in (directory / f"{gw}.log").read_text().splitlines() if "[error]" in line or "[alert]" in line]
            if errors:
                print("\n".join(errors[:5]), file=sys.stderr)
    rows = []
    for size in args.sizes.split(","):
        for variant in variants:
            ns = statistics.median(found[variant, size])
            row = {"name": f"nginx/{variant}/{size}", "ns": round(ns), "note": f"{1e9 / ns:.0f} requests per CPU-second of nginx"}
            for other in ("mirror", "stock"):
                if variant != other and variant != "plain" and (other, size) in found:
                    ratios = [m / own for own, m in zip(found[variant, size], found[other, size])]
                    row["note"] += f", {statistics.median(ratios):.2f} times {other}"
            rows.append(row)
    for row in rows:
        print(json.dumps(row))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
