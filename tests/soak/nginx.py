#!/usr/bin/python3
"""Soak of nginx: so many requests through the module with two workers, in front of eight stub workers (another nginx) of which some answers go wrong.

    tests/soak/nginx.py REQUESTS [--module FILE] [--client FILE]

Demands: every request is answered, as an answer of a worker or with a named error; the router's counters say the same to the unit; nothing is
booked or live at the end; memory of nginx's workers is flat after the first fifth. Prints a line for each tenth."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/bench"), str(TOP / "tests/gateway")]
import nginx_bench as bench  # noqa: E402
from block import Block  # noqa: E402

# One in 256 answers of a stub is a 500, one in 256 a 503, one in 1024 a 429 with Retry-After, one in 256 a 400, one in 1024 a connection that is closed without an answer.
STUB = bench.STUB.replace("default_type application/json;", """default_type application/json;
    map $request_id $fate { default 200; "~^00" 500; "~^01" 503; "~^020[0-3]" 429; "~^03" 400; "~^040[0-3]" 444; }""").replace(
    "{listen} # the whole body is read, then the answer fetched", """{listen}
        if ($fate = 500) {{ return 500 '{{"error":{{"message":"x","code":500}}}}'; }}
        if ($fate = 503) {{ return 503 '{{"error":{{"message":"x","code":503}}}}'; }}
        if ($fate = 429) {{ return 429 '{{"error":{{"message":"x","code":429}}}}'; }}
        if ($fate = 400) {{ return 400 '{{"error":{{"message":"x","code":"stub_400"}}}}'; }}
        if ($fate = 444) {{ return 444; }}""").replace("map $request_id $fate {", "map $request_id $fate {{").replace("444; }\n", "444; }}\n")


def resident_kb(pid):
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def workers_of(process):
    return [int(p) for p in subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], stdout=subprocess.PIPE, text=True).stdout.split()]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("requests", type=int)
    p.add_argument("--module")
    p.add_argument("--client", default=TOP / "build/gcc/tests/soak_client")
    p.add_argument("--connections", type=int, default=16)
    args = p.parse_args()
    module = Path(args.module or bench.gateway.build_module()).resolve()
    with tempfile.TemporaryDirectory(prefix="pdroute-soak-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        ports = bench.gateway.free_ports(11)
        stubs, (pd, plain, mirror) = ports[:8], ports[8:]
        bench.write_bodies(directory, 8)
        endpoints = [{"role": "prefill", "host": "127.0.0.1", "port": port, "bootstrap_port": 8998} if i < 4 else {"role": "decode", "host": "127.0.0.1", "port": port}
                     for i, port in enumerate(stubs)]
        # breakers stay closed: what is counted here are answers, not which server is avoided
        (directory / "zone.json").write_text(json.dumps({"seed": 1, "hold": "off", "retry_max": 1, "breaker_failures": 1000, "breaker_error_permille": 4294967295,
                                                         "retry_budget_permille": 4294967295, "endpoints": endpoints}))
        servers = lambda some: " ".join(f"server 127.0.0.1:{port};" for port in some)  # noqa: E731
        listen = " ".join(f"listen 127.0.0.1:{port} backlog=1024;" for port in stubs)
        stub = bench.start(directory, "stub", STUB.format(dir=directory, listen=listen))
        gw = bench.start(directory, "gw", bench.GATEWAY.replace("worker_processes 1", "worker_processes 2").format(
            module=module, dir=directory, prefill=servers(stubs[:4]), decode=servers(stubs[4:]), pd=pd, plain=plain, mirror=mirror))
        memory, last = [], None
        try:
            for port in ports:
                bench.wait_port(port)
            workers = workers_of(gw)
            files = [str(directory / f"body-{size}-{i}") for i in range(1, 9) for size in ("1KB", "1KB", "1KB", "17KB")]
            client = subprocess.Popen([args.client, str(pd), str(args.requests), str(args.connections), *files], stdout=subprocess.PIPE, text=True)
            for line in client.stdout:
                last = json.loads(line)
                memory.append(max(resident_kb(w) for w in workers))
                print(f"tenth {last['tenth']:2}: {last['requests']} requests, p50 {last['p50_us']} us, p99 {last['p99_us']} us, largest nginx worker {memory[-1]} KB", flush=True)
            assert client.wait() == 0, "the client failed"
            assert workers == workers_of(gw), "a worker of nginx died"
            with Block(directory / "block") as block:
                for _ in range(100): # the last legs are drained
                    stats = block.stats()
                    if not stats["bookings"]:
                        break
                    time.sleep(0.1)
                block.check()
        finally:
            for process in (gw, stub):
                process.terminate()
                process.wait(10)
    answers = last["answers"]
    # a worker's own errors have a number as their code, or stub_400; ours a name
    of_workers = sum(n for name, n in answers.items() if name != "broken" and (" " not in name or "stub_" in name))
    named = sum(n for name, n in answers.items() if " " in name and "stub_" not in name)
    print(json.dumps(answers), json.dumps({k: stats[k] for k in ("routed", "finished", "failed", "retried", "refused_no_pair", "bookings", "rooms_live")}))
    assert sum(answers.values()) == args.requests
    assert of_workers + named == args.requests, "an answer that is neither a worker's nor a named error"
    assert stats["finished"] + stats["failed"] + stats["refused_no_pair"] >= args.requests
    assert stats["finished"] == of_workers and stats["failed"] == named, "the router counts otherwise"
    assert stats["bookings"] == stats["rooms_live"] == 0
    assert max(memory[2:]) <= memory[1] * 1.05 + 1024, f"memory grew: {memory}"
    print("1 passed, 0 failed, 0 skipped")


main()
