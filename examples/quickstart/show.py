"""Prints endpoints, an answer, a decision or what workers received, for people, in at most 120 columns."""

import json
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def ms(us):
    return f"{us / 1000:,.1f} ms"


def endpoints(path):
    for e in json.load(open(path)):
        host = f"[{e['host']}]" if ":" in e["host"] else e["host"]
        bootstrap = f"bootstrap {e['bootstrap_port'] or 'of the pool'}" if e["role"] == "prefill" else ""
        print(f"  {e['role']:<9}{e['name']:<28}{host + ':' + str(e['port']):<24}{bootstrap:<22}{e['state']}")


def answer(path):
    reply = json.load(open(path))
    choice, usage = reply["choices"][0], reply["usage"]
    text = " ".join(choice["message"]["content"].split())
    print(textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="  "))
    print(f"  (finish: {choice['finish_reason']}; {usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} completion tokens)")


def decision(path):
    d = json.loads(open(path).readlines()[-1])
    print(f"  prefill {d['prefill']}   decode {d['decode']}   room {d['room']}")
    print(f"  prompt estimated at {d['prompt_tokens']} tokens, {d['matched_tokens']} of them cached there; expected cost {ms(d['cost_us'])}\n")
    print(f"    {'candidate':<26}{'role':<9}{'cached':>8}{'wait':>12}{'work':>12}{'price':>12}{'transfer':>12}{'cost':>12}")
    for c in sorted(d["candidates"], key=lambda c: (c["role"] != "prefill", not c["chosen"])):
        mark = "*" if c["chosen"] else " "
        name = c.get("name") or c["endpoint"]
        print(f"  {mark} {name:<26}{c['role']:<9}{c['matched_tokens']:>8}{ms(c['wait_us']):>12}{ms(c['work_us']):>12}"
              f"{ms(c['price_us']):>12}{ms(c['transfer_us']):>12}{ms(c['cost_us']):>12}")
    print("\n  cached: tokens of the prompt held there; wait: until it would begin; work: to compute the rest;")
    print("  price: what that costs those who wait behind it; transfer: of the KV cache; * the pair of least cost")


def received(path):
    from sglang_sim.harness import SimWorker
    listing = json.load(open(path))
    for spec in listing["workers"]:
        worker = SimWorker(control=listing["control"], **spec)
        got = worker.requests("/v1/chat/completions")
        if not got:
            print(f"  {worker.role:<9}{worker.name:<18}nothing")
        for request in got:
            fields = [f"{k} {v}" for k, v in request.json.items() if k.startswith(("bootstrap_", "routed_", "disagg_"))]
            print(f"  {worker.role:<9}{worker.name:<18}{'  '.join(fields)}  -> {request.status}")


if __name__ == "__main__":
    {"endpoints": endpoints, "answer": answer, "decision": decision, "received": received}[sys.argv[1]](sys.argv[2])
