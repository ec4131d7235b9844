#!/usr/bin/python3
"""The laboratory's prediction against a real gateway: the same arrivals through nginx and simulated workers in real time, and through `simulate`.

    tests/simulate/realtime.py [--trace FILE] [--prefill 6] [--decode 5] [--rate 2] [--requests 600] [--scale 0.1] [--within 10]

A scale of 0.1 makes everything ten times as fast: the workers' times, the arrivals, and the router's prior costs. Figures are printed in the trace's own
seconds. TTFT is from the arrival at the gateway until the prompt is computed, in both. SGLang's prefill answers later, when its KV cache has gone (`--hear
transfer`); that way is in neither figure. The network's part is measured on the idle cluster and given to the laboratory (`--delay`). Without --trace: 600 made-up conversations of a few turns.
Answers come whole, in both: no first token is told (`pdroute:whole=1`).

A queue is chaotic: arrivals a few hundredths of a second earlier or later change the mean by some per cent. So the prediction is the mean of ten runs whose
arrivals are moved by up to 50 ms, as those of the real run are by the machine.

Ends with the laboratory's closing line, and 1 if mean TTFT is further off than --within percent. Neither the machine's load nor Python's speed is in the
prediction: run it on a quiet machine, and look at the line "late".
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/gateway"), str(TOP / "examples")]

from hosts.host import endpoints_of  # noqa: E402
from hosts.nginx import Gateway  # noqa: E402
from sglang_sim import cost, harness  # noqa: E402

BLOCK, TOKEN = 512, 4  # tokens in a block of a trace; bytes in a token of the simulated workers
KV = 270_000


def read(path, window, rng, grid=3.0):
    """Mooncake's format, arrivals spread over the grid they lie on."""
    rows = []
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        if 1 <= row["input_length"] <= window:
            row["at"] = row["timestamp"] / 1000 + rng.uniform(0, grid)
            rows.append(row)
    return sorted(rows, key=lambda r: r["at"])


def conversations(n, rng):
    """Users who come and go: 1 to 6 turns, each with all that was said before in front of it. Whole blocks, for the laboratory knows no half ones."""
    rows, fresh, at = [], 1, 0.0
    while len(rows) < n:
        at += rng.expovariate(0.8)
        turn, blocks = at, list(range(1, 3))  # a system prompt that all have
        for _ in range(rng.randint(1, 6)):
            more = min(int(rng.lognormvariate(1.8, 0.9)) + 1, 60)
            blocks += range(1000 + fresh, 1000 + fresh + more)
            fresh += more
            out = min(int(rng.lognormvariate(4.8, 0.7)) + 8, 1000)
            rows.append({"at": turn, "input_length": len(blocks) * BLOCK, "output_length": out, "hash_ids": list(blocks)})
            turn += out * 0.02 + rng.expovariate(1 / 20)
    rows.sort(key=lambda r: r["at"])
    return rows[:n]


def text_of(row):
    """A prompt of input_length tokens in which equal ids are equal text, and different ones differ from their first bytes on."""
    size = BLOCK * TOKEN
    return "".join((f"{i:015x} " * (size // 16)) for i in row["hash_ids"])[:row["input_length"] * TOKEN]


def costs(scale):
    """The configuration's priors, as they are in a world that is so much faster."""
    return {"prefill_base_us": round(cost.PREFILL_FIXED * 1e6 * scale), "prefill_ns_per_token": round(cost.PREFILL_PER_TOKEN * 1e9 * scale),
            "prefill_fs_per_token2": round(cost.PREFILL_PER_PAIR * 1e15 * scale), "decode_us_per_request": max(1, round(cost.DECODE_PER_REQUEST * 1e6 * scale)),
            "decode_ps_per_token": round(cost.DECODE_PER_CONTEXT_TOKEN * 1e12 * scale), "transfer_latency_us": round(cost.TRANSFER_LATENCY * 1e6 * scale),
            "transfer_mbps_zone": round(50_000 / scale), "hold_max_wait_ms": 3_600_000, "index_entries": 1 << 18}


async def replay(url, rows, scale):
    """[(row, HTTP status, how late it was sent)], and when each arrived by the workers' clock."""
    began, wall = time.monotonic() + 0.5, time.time() + 0.5
    results = [None] * len(rows)

    async def one(session, i, row):
        due = (row["at"] - rows[0]["at"]) * scale
        body = json.dumps({"model": "tiny", "prompt": text_of(row), "max_tokens": max(1, row["output_length"]), "ignore_eos": True}).encode()
        await asyncio.sleep(max(0, began + due - time.monotonic()))
        sent = time.monotonic() - began
        async with session.post(f"{url}/v1/completions", data=body, headers={"Content-Type": "application/json", "X-Request-Id": f"row-{i}"}) as answer:
            await answer.read()
            results[i] = (wall + sent, answer.status, sent - due)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(None)) as session:
        await asyncio.gather(*(one(session, i, row) for i, row in enumerate(rows)))
    return results


def ttfts(fleet, results, until):
    """Seconds from arrival until prefill's answer, or until the prompt is computed."""
    ended = {}
    for worker in fleet.prefills:
        for got in worker.requests("/v1/completions"):
            if got.status == 200:
                ended[int(got.header("x-request-id")[4:])] = got.end if until == "answer" else got.spans[0]["prefilled"]
    return [ended[i] - r[0] for i, r in enumerate(results) if i in ended]


def stages(fleet, results, scale):
    """Mean seconds of the trace that requests were in each: held and on the way, behind others there, computed, and their KV on its way; and the caches' true hits."""
    spent, cached, tokens = [], 0, 0
    for worker in fleet.prefills:
        for got in worker.requests("/v1/completions"):
            if got.status == 200:
                s = got.spans[0]
                at = [results[int(got.header("x-request-id")[4:])][0], s["bootstrapped"], s["forward"], s["prefilled"], got.end]
                spent.append([(b - a) / scale for a, b in zip(at, at[1:])])
                cached, tokens = cached + s["cached"], tokens + s["tokens"]
    return [statistics.fmean(each) for each in zip(*spent)], cached / max(1, tokens)


def quantiles(values):
    values = sorted(values)
    return {"mean": statistics.fmean(values), "p50": values[len(values) // 2], "p90": values[int(len(values) * .9)], "max": values[-1]}


def real(a, rows, directory):
    with harness.start(prefill=a.prefill, decode=a.decode, speed=a.scale, timers=1, capacity=KV, context=1 << 20) as fleet:
        endpoints = [{**e, "kv_capacity": KV} for e in endpoints_of(fleet)]
        with Gateway(Path(directory), endpoints, config=costs(a.scale), body_file=False, keepalive=4, http="client_body_timeout 1h; proxy_read_timeout 1h;") as gateway:
            # the network and Python: what a request of one token takes beyond what the model says, on the idle cluster
            probe = [{"at": 0.3 / a.scale * i, "input_length": BLOCK, "output_length": 1, "hash_ids": [1 << 40 | i]} for i in range(20)]
            took = ttfts(fleet, asyncio.run(replay(gateway.url, probe, a.scale)), "answer")
            model = (cost.Cost(1).prefill([(BLOCK, 0)]) + cost.Cost(1).transfer(BLOCK))
            overhead = max(0.0, statistics.median(took) / a.scale - model)
            fleet.reset()
            results = asyncio.run(replay(gateway.url, rows, a.scale))
            bad = [r for r in results if r[1] != 200]
            seen = [t / a.scale for t in ttfts(fleet, results, "computed")]
            spent, hit = stages(fleet, results, a.scale)
            status = gateway.status()
            hits = [line["hit"].split("/") for line in gateway.log()[len(probe):] if "/" in line["hit"]]
    believed = sum(int(h[0]) for h in hits) / max(1, sum(int(h[1]) for h in hits))
    late = sorted(r[2] / a.scale for r in results)
    return {**quantiles(seen), "answered": len(results) - len(bad), "measured": len(seen), "believed": believed, "held": status.get("counters", {}).get("held"),
            "late": late[int(len(late) * .99)], "overhead": overhead, "stages": spent, "hit": hit}


def predicted(a, rows, directory, overhead):
    trace = Path(directory) / "arrivals.jsonl"
    trace.write_text("".join(json.dumps({"timestamp": (r["at"] - rows[0]["at"]) * 1000, "input_length": r["input_length"], "output_length": max(1, r["output_length"]),
                                         "hash_ids": r["hash_ids"]}) + "\n" for r in rows))
    out = Path(directory) / "predicted.json"
    # of the overhead one half is on the way there, the other on the way back
    subprocess.run([os.environ.get("PDR_BUILD_DIR", str(TOP / "build")) + "/bin/simulate", "--trace", trace, "--policy", "pdroute:whole=1", *a.also, "--prefill", str(a.prefill), "--decode",
                    str(a.decode), "--jitter", "0.05", "--seeds", "10", "--window", "0", "--kv", str(KV), "--host", "0", "--decode-host", "0", "--scrape", "0", "--hear", "transfer",
                    "--delay", f"{overhead / 2 * 1000:.3f}", "--json", out, "--quiet"], check=True)
    runs = json.loads(out.read_text())["runs"]
    means = {}
    for r in runs:
        # its TTFT ends where the gateway hears of it; ours ends at the worker
        means.setdefault(r["policy"], []).append({**{k: r["ttft"][k] - overhead / 2 for k in ("mean", "p50", "p90", "max")}, "believed": r["hit"]["fraction"], "held": r["held"]["mean"]})
    assert all(len(each) == 10 for each in means.values())
    return [{"policy": policy, "spread": statistics.stdev(r["mean"] for r in each), **{k: statistics.fmean(r[k] for r in each) for k in each[0]}} for policy, each in means.items()]


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--trace", help="Mooncake's format")
    p.add_argument("--prefill", type=int, default=6)
    p.add_argument("--decode", type=int, default=5)
    p.add_argument("--rate", type=float, default=2.0)
    p.add_argument("--requests", type=int, default=600)
    p.add_argument("--window", type=int, default=131_072)
    p.add_argument("--scale", type=float, default=0.1)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--within", type=float, default=10.0)
    p.add_argument("--beside", action="append", default=[], help="another policy of the laboratory, to see how much the choice matters")
    a = p.parse_args()
    a.also = [x for policy in a.beside for x in ("--policy", policy)]
    rng = random.Random(a.seed)
    rows = (read(a.trace, a.window, rng) if a.trace else conversations(a.requests, rng))[:a.requests]
    for row in rows:
        row["at"] /= a.rate
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        seen = real(a, rows, directory)
        lab, *others = predicted(a, rows, directory, seen["overhead"])
    print(f"{len(rows)} requests, {a.prefill}P{a.decode}D, rate {a.rate:g}, time x{a.scale:g}; seconds of the trace")
    print(f"{'':24}{'mean':>8}{'p50':>8}{'p90':>8}{'max':>8}{'hit':>7}")
    for name, q in (("nginx, real time", seen), ("laboratory", lab), *((o["policy"], o) for o in others)):
        print(f"{name:24}{q['mean']:8.3f}{q['p50']:8.3f}{q['p90']:8.3f}{q['max']:8.3f}{q['believed']:7.3f}")
    print("nginx: {:.3f} s held and on the way, {:.3f} behind others, {:.3f} computed, {:.3f} KV on its way; {:.3f} of the prompts' tokens were cached".format(*seen["stages"], seen["hit"]) + f"; laboratory: {lab['held']:.3f} s held")
    off = 100 * (seen["mean"] / lab["mean"] - 1)
    print(f"mean {off:+.1f} % from the prediction (its runs spread by {100 * lab['spread'] / lab['mean']:.1f} %); overhead {seen['overhead'] * 1000:.1f} ms, given to the laboratory; late by {seen['late'] * 1000:.1f} ms (99 of 100)")
    failed = []
    if seen["answered"] != len(rows) or seen["measured"] != len(rows):
        failed.append(f"{seen['answered']} answered, {seen['measured']} measured of {len(rows)}")
    if abs(off) > a.within:
        failed.append(f"{off:+.1f} % is more than {a.within:g} %")
    for f in failed:
        print(f"FAIL {f}")
    print(f"{2 - len(failed)} passed, {len(failed)} failed, 0 skipped")
    sys.exit(bool(failed))


main()
