"""Prints an answer, a decision or what workers received, for people."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def ms(us):
    return f"{us / 1000:,.1f} ms"


def answer(path):
    reply = json.load(open(path))
    choice, usage = reply["choices"][0], reply["usage"]
    print(f"  {choice['message']['content'].strip()}")
    print(f"  (finish: {choice['finish_reason']}, {usage['prompt_tokens']} prompt + {usage['completion_tokens']} completion tokens)")


def decision(path):
    d = json.loads(open(path).readlines()[-1])
    print(f"  prefill {d['prefill']}   decode {d['decode']}   room {d['room']}")
    print(f"  prompt {d['prompt_tokens']} tokens, {d['matched_tokens']} of them cached there; expected cost {ms(d['cost_us'])}\n")
    print(f"    {'candidate':<24}{'role':<9}{'cached':>8}{'wait':>12}{'work':>12}{'price':>12}{'transfer':>12}{'cost':>12}")
    for c in d["candidates"]:
        mark = "*" if c["chosen"] else " "
        print(f"  {mark} {c.get('name') or c['endpoint']:<24}{c['role']:<9}{c['matched_tokens']:>8}{ms(c['wait_us']):>12}{ms(c['work_us']):>12}"
              f"{ms(c['price_us']):>12}{ms(c['transfer_us']):>12}{ms(c['cost_us']):>12}")


def received(path):
    from sglang_sim.harness import SimWorker
    listing = json.load(open(path))
    for spec in listing["workers"]:
        worker = SimWorker(control=listing["control"], **spec)
        got = worker.requests("/v1/chat/completions")
        if not got:
            print(f"  {worker.role:<8}{worker.name:<20}nothing")
        for request in got:
            fields = {k: v for k, v in request.json.items() if k.startswith(("bootstrap_", "routed_", "disagg_"))}
            print(f"  {worker.role:<8}{worker.name:<20}{json.dumps(fields)}  -> {request.status}")


if __name__ == "__main__":
    {"answer": answer, "decision": decision, "received": received}[sys.argv[1]](sys.argv[2])
