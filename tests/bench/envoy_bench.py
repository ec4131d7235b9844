#!/usr/bin/python3
"""What an answer to Envoy costs pdroute-extproc, and what a request costs Envoy beside it.

A real Envoy, an nginx that answers everything for 32 prefill and 32 decode servers (64 loopback addresses), wrk with 32 connections. CPU time is that of the
process named (/proc/PID/stat). The ways take turns; the median of the rounds is printed.

    echo        pdroute-extproc decides nothing: it puts bodies together and sends them back
    decision    the whole decision, both legs are Envoy's (--dispatch mirror)
    send        the same, and the prefill leg (--dispatch send)
    both        both legs (--dispatch both); answers pass through
    full        as send, with answers passing through for their usage (response_body_mode FULL_DUPLEX_STREAMED)
    module      libpdroute inside Envoy (examples/envoy_module): both figures are Envoy's

What Envoy takes for legs alone (only its own figure), by envoy_floor.c, a module that decides nothing:

    plain       no module, one leg
    mirrored    no module, both legs: Envoy's router sends one, and a copy by its own request_mirror_policies
    router      one leg, sent by Envoy's router
    stream      one leg, a stream that the filter starts
    streams     both legs, such streams, as `module` has them
    mixed       both legs: Envoy's router sends decode's, a stream of the filter prefill's

With --instructions pdroute-extproc runs under callgrind, and what is printed are its own instructions for a request, which do not depend on what else the
machine does; the kernel's part is not in them, its tick every 100 ms is.

    tests/bench/envoy_bench.py [--seconds S] [--rounds N] [--sizes 1KB,132KB] [--ways echo,decision,…] [--rss N] [--instructions]
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
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/gateway"))
from hosts import envoy_module, ext_proc  # noqa: E402

SIZES = {"1KB": 1100, "17KB": 17_000, "132KB": 132_000}
WAYS = {"echo": ("NONE", ["--echo"]), "decision": ("NONE", ["--dispatch", "mirror"]), "send": ("NONE", []),
        "both": ("FULL_DUPLEX_STREAMED", ["--dispatch", "both"]), "full": ("FULL_DUPLEX_STREAMED", [])}
FLOORS = ("plain", "mirrored", "router", "stream", "streams", "mixed")
BARE = ("plain", "mirrored")  # without a module
SERVERS = 32  # of each role

STUB = """
worker_processes 1; daemon off; pid {dir}/stub.pid; error_log {dir}/stub.log error; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    keepalive_requests 1000000; client_max_body_size 8m; client_header_buffer_size 32k; client_body_buffer_size 256k; keepalive_timeout 300s;
    default_type application/json;
    upstream answer {{ server unix:{dir}/answer.sock; keepalive 64; keepalive_requests 1000000; }}
    proxy_http_version 1.1;
    server {{ listen {port}; # the whole body is read, then the answer fetched
        location / {{ proxy_pass http://answer; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_set_header Connection ""; }}
    }}
    server {{ listen unix:{dir}/answer.sock;
        location / {{ return 200 '{{"id":"x","object":"chat.completion","choices":[{{"index":0,"message":{{"role":"assistant","content":"ok"}}}}],"usage":{{"prompt_tokens":10,"completion_tokens":1,"total_tokens":11}}}}'; }}
    }}
}}
"""

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
done = function(s) io.write(string.format("COUNT %d %d\\n", s.requests, s.errors.status + s.errors.connect + s.errors.read + s.errors.write + s.errors.timeout)) end
"""


def stand_still(config, port):
    """One server, whatever a header says."""
    cluster = config["static_resources"]["clusters"][0]
    for key in ("lb_policy", "original_dst_lb_config"):
        del cluster[key]
    cluster["type"] = "STATIC"
    cluster["load_assignment"] = {"cluster_name": "servers", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {
        "address": "127.0.0.1", "port_value": port}}}}]}]}


class Gateway(ext_proc.Gateway):
    """Every server is the stub: an echo names no destination."""
    connections = 32

    def envoy_config(self):
        config = super().envoy_config()
        stand_still(config, self.stub_port)
        for listener in config["static_resources"]["listeners"]:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            del manager["access_log"]
            del manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["host_rewrite_header"]
        return config

    def lines(self):
        return []

    def pid_of(self, name):
        return next(pid for pid in self.all_pids() if Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0].endswith(f"/{name}"))


class Counted(Gateway):
    """Under callgrind, which counts between counting(True) and counting(False)."""
    start_timeout, connections = 60, 8

    def environment(self):
        given = super().environment()
        script = self.dir / "pdroute-extproc"
        script.write_text(f"#!/bin/sh\nexec valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={self.dir}/callgrind {given['PDROUTE_EXTPROC']} \"$@\"\n")
        script.chmod(0o755)
        return {**given, "PDROUTE_EXTPROC": str(script)}

    def counting(self, on):
        pid = next(p for p in self.all_pids() if "callgrind" in Path(f"/proc/{p}/cmdline").read_text())
        subprocess.run(["callgrind_control", "-i", "on" if on else "off", str(pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def counted(self):
        """All instructions, once it has ended."""
        text = (self.dir / "callgrind").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("totals:"))


class Module(envoy_module.Gateway):
    """Envoy with libpdroute inside."""
    connections = 32

    def envoy_config(self):
        config = super().envoy_config()
        for listener in config["static_resources"]["listeners"]:
            del listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
        return config

    def lines(self):
        return []

    def pid_of(self, name):
        return self.process.pid


class Floor(Module):
    """Envoy with a module that decides nothing, or with none."""

    def envoy_config(self):
        config = super().envoy_config()
        for listener in config["static_resources"]["listeners"]:
            filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
            if self.way in BARE:
                del filters[0]
                continue
            filters[0]["typed_config"]["dynamic_module_config"]["name"] = "envoy_floor"
            filters[0]["typed_config"]["filter_config"]["value"] = f"way={self.way} port={self.stub_port} servers={SERVERS}"
        if self.way in BARE:
            stand_still(config, self.stub_port)
        if self.way == "mirrored":
            clusters = config["static_resources"]["clusters"]
            clusters.append({**json.loads(json.dumps(clusters[0])), "name": "copies"})
            for listener in config["static_resources"]["listeners"]:
                for host in listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]:
                    for route in host["routes"]:
                        route["route"]["request_mirror_policies"] = [{"cluster": "copies", "disable_shadow_host_suffix_append": True}]
        return config

    def write(self):
        super().write()
        if self.way not in BARE:
            subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-I", TOP / "examples/envoy_module", "-o", self.dir / "libenvoy_floor.so", TOP / "tests/bench/envoy_floor.c"], check=True)

    def environment(self):
        return {**super().environment(), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(self.dir)}

    def listens(self):
        """Nothing is answered by itself here."""
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0


def cpu(pid):
    """Seconds, of all its threads, as the scheduler counts them."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def rss(pid):
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))


def write_bodies(directory, size, n):
    words = random.Random(1)
    for i in range(1, n + 1):
        text = ""
        while len(text) < SIZES[size] - 120:
            text += "".join(words.choices("abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 9))) + " "
        body = '{"model":"m","messages":[{"role":"user","content":"%d %s"}],"max_tokens":16}' % (i, text[:SIZES[size] - 100])
        (directory / f"body-{size}-{i}").write_text(body)
    (directory / f"{size}.lua").write_text(LUA.format(n=n, dir=directory, size=size))


def requests(gw, directory, size, seconds):
    """How many were answered."""
    done = subprocess.run(["wrk", "-t", "1", "-c", str(gw.connections), "--timeout", "20s", "-d", f"{int(seconds)}s", "-s", str(directory / f"{size}.lua"), gw.url], stdout=subprocess.PIPE, text=True, check=True)
    count, failed = map(int, next(line for line in done.stdout.splitlines() if line.startswith("COUNT")).split()[1:])
    if failed:
        raise SystemExit(f"{failed} of {count} requests failed\n{done.stdout}\n{gw.errors()[-2000:]}")
    return count


def load(gw, directory, size, seconds):
    """Requests, and CPU seconds of pdroute-extproc and of Envoy."""
    pids = [gw.pid_of("pdroute-extproc"), gw.pid_of("envoy")]
    before = [cpu(p) for p in pids]
    count = requests(gw, directory, size, seconds)
    return count, [cpu(p) - b for p, b in zip(pids, before)]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=int, default=3)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--sizes", default=",".join(SIZES))
    p.add_argument("--ways", default=",".join([*WAYS, "module", *FLOORS]))
    p.add_argument("--instructions", action="store_true")
    p.add_argument("--rss", type=int, help="send at least this many requests the way `send`, and print memory before and after")
    o = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="pdroute-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # nginx drops its rights
        stub_port, = ext_proc.free_ports(1)
        Gateway.stub_port = stub_port
        (directory / "stub.conf").write_text(STUB.format(dir=directory, port=stub_port))
        stub = subprocess.Popen(["/usr/sbin/nginx", "-p", name, "-e", f"{name}/stub.log", "-c", f"{name}/stub.conf"], stderr=subprocess.DEVNULL)
        endpoints = [{"role": role, "host": f"127.0.{net}.{i + 1}", "port": stub_port, **({"bootstrap_port": 8998} if role == "prefill" else {})}
                     for net, role in ((71, "prefill"), (72, "decode")) for i in range(SERVERS)]
        gateways = {}
        try:
            if o.instructions:
                for size in o.sizes.split(","):
                    write_bodies(directory, size, 64)
                count_instructions(directory, endpoints, o)
                return
            if o.rss:
                o.ways, o.sizes = "send", "1KB"
            for way in o.ways.split(","):
                if way == "module" or way in FLOORS:
                    gateways[way] = (Module if way == "module" else Floor)(directory / way, endpoints, config={"hold": "off"})
                    gateways[way].way, gateways[way].stub_port = way, stub_port
                    gateways[way].start()
                    continue
                mode, flags = WAYS[way]
                gateways[way] = Gateway(directory / way, endpoints, config={"hold": "off"}, body_mode=mode, flags=["--no-metadata", *flags])
                gateways[way].start()
            for size in o.sizes.split(","):
                write_bodies(directory, size, 64)
            if o.rss:
                measure_memory(gateways["send"], directory, o)
                return
            print(f"requests per CPU-second of pdroute-extproc (of Envoy): median of {o.rounds} rounds of {o.seconds} s, {2 * SERVERS} endpoints\n")
            print("| | " + " | ".join(o.sizes.split(",")) + " |")
            print("|---|" + "---|" * len(o.sizes.split(",")))
            found = {}
            for size in o.sizes.split(","):
                for way, gw in gateways.items():
                    load(gw, directory, size, 1)  # warm
                for _ in range(o.rounds):
                    for way, gw in gateways.items():
                        count, used = load(gw, directory, size, o.seconds)
                        found.setdefault((way, size), []).append([count / max(u, 0.01) for u in used])
            for way in gateways:
                cells = [[statistics.median(r[i] for r in found[way, size]) for i in (0, 1)] for size in o.sizes.split(",")]
                print(f"| {way} | " + " | ".join(f"{a:,.0f} ({b:,.0f})" if way in WAYS else f"({b:,.0f})" for a, b in cells) + " |")
        finally:
            for gw in gateways.values():
                gw.stop()
            stub.terminate()
            stub.wait()


def count_instructions(directory, endpoints, o):
    print("| instructions for a request | " + " | ".join(o.sizes.split(",")) + " |")
    print("|---|" + "---|" * len(o.sizes.split(",")))
    for way in (w for w in o.ways.split(",") if w in WAYS):
        cells = []
        for size in o.sizes.split(","):
            mode, flags = WAYS[way]
            gw = Counted(directory / f"{way}-{size}", endpoints, config={"hold": "off"}, body_mode=mode, flags=["--no-metadata", *flags])
            try:
                gw.start()
                requests(gw, directory, size, 2)  # warm
                gw.counting(True)
                count = requests(gw, directory, size, o.seconds)
                gw.counting(False)
            finally:
                gw.stop()
            cells.append(f"{gw.counted() / count:,.0f}")
        print(f"| {way} | " + " | ".join(cells) + " |")


def measure_memory(gw, directory, o):
    pid = gw.pid_of("pdroute-extproc")
    sent, first = 0, None
    while sent < o.rss:
        count, _ = load(gw, directory, "1KB", 2)
        sent += count
        first = first or (sent, rss(pid))
    print(f"RSS {first[1]} kB after {first[0]} requests, {rss(pid)} kB after {sent}")


if __name__ == "__main__":
    main()
