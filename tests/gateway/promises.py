"""Promises of 50 ms, measured again and again: how soon the next attempt begins when a server has failed, and how soon legs are closed that nobody waits for any more.

    /usr/bin/python3 tests/gateway/promises.py [--gateway NAME] [-n 200]     prints the distribution of each, in milliseconds

From the simulated worker's end of the answer (or the client's close) to what a worker sees: scheduling of two Python processes and of the gateway is in the figures.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples")]

import hosts  # noqa: E402
from hosts.host import endpoints_of  # noqa: E402
from sglang_sim import harness  # noqa: E402
from traffic import PATHS, all_received, body  # noqa: E402

PROMISED = 0.05
# no breaker, no budget: each request is to find the same server broken
CONFIG = {"breaker_failures": 1000000, "breaker_error_permille": 4294967295, "retry_budget_permille": 1000, "retry_max": 1, "hold": "off"}
WHAT = {"retry": "from a server's 500 to the next attempt", "error": "from the last server's 500 to the client's answer", "other": "from a server's 500 to the end of the other leg", "leaves": "from the client's close to the end of both legs"}


def ask(gw, text):
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=20)
    try:
        connection.request("POST", PATHS["chat"], json.dumps(body("chat", text=text)), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def legs_of(fleet, role):
    """What arrived at its servers, oldest first."""
    return sorted((r for w in getattr(fleet, role) for r in w.requests(PATHS["chat"])), key=lambda r: r.start)


def retries(gw, fleet, n):
    """Both prefill servers answer 500, decode waits: seconds from the first one's answer until the second is asked, and until the other leg is closed; from the last one's until the client knows."""
    found = {"retry": [], "other": [], "error": []}
    for i in range(n):
        for w in fleet.workers:
            w.reset()
        for w in fleet.prefills:
            w.fault(kind="status", status=500)
        status = ask(gw, f"retry {i}")
        known = time.time()
        assert status == 502, status
        time.sleep(PROMISED)  # to ask all the time would keep the workers' process busy
        assert harness.wait_for(lambda: all(leg.disconnected for leg in legs_of(fleet, "decodes")), timeout=5), "a leg is still open"
        first, second = legs_of(fleet, "prefills")
        found["retry"].append(second.start - first.end)
        found["error"].append(known - second.end)
        for failed in (first, second):
            for leg in legs_of(fleet, "decodes"):
                if leg.json["bootstrap_room"] == failed.json["bootstrap_room"]:
                    found["other"].append(leg.disconnected - failed.end)
    for w in fleet.workers:
        w.reset()
    return found


def leaving(gw, fleet, n):
    """All hang, and the client closes its connection: seconds until the last of the two legs is closed."""
    from test_failures import open_request
    found = []
    for i in range(n):
        for w in fleet.workers:
            w.reset()
            w.fault(kind="hang")
        s = open_request(gw, text=f"leaves {i}")
        assert harness.wait_for(lambda: len(all_received(fleet, PATHS["chat"])) == 2, timeout=10), "the legs did not arrive"
        left = time.time()
        s.close()
        time.sleep(PROMISED)  # to ask all the time would keep the workers' process busy
        legs = all_received(fleet, PATHS["chat"])
        while not all(r.disconnected for r in legs):
            assert time.time() - left < 5, "legs stay open"
            legs = all_received(fleet, PATHS["chat"])
        found.append(max(r.disconnected for r in legs) - left)
    for w in fleet.workers:
        w.reset()
    return {"leaves": found}


def measure(gw, fleet, n):
    return {**retries(gw, fleet, n), **leaving(gw, fleet, n)}


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--gateway", default="nginx")
    p.add_argument("-n", type=int, default=200)
    args = p.parse_args()
    host = hosts.find(args.gateway)
    directory = Path(tempfile.mkdtemp(prefix="pdroute-promises-"))
    directory.chmod(0o755)
    with harness.start(prefill=2, decode=2, speed=0) as fleet, host(directory, endpoints_of(fleet), config=CONFIG) as gw:
        for what, values in measure(gw, fleet, args.n).items():
            print(f"{host.name:13} {WHAT[what]:52} n {len(values):4}  p50 {quantile(values, .5) * 1000:6.1f}  p90 {quantile(values, .9) * 1000:6.1f}"
                  f"  p99 {quantile(values, .99) * 1000:6.1f}  worst {max(values) * 1000:6.1f}")


if __name__ == "__main__":
    main()
