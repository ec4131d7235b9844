"""Runs rows of the failure table: a gateway of its own for each, in front of a fleet that its lane keeps. Several lanes at a time, since rows mostly wait.

    /usr/bin/python3 tests/gateway/table.py [--gateway NAME] [--long] [PATTERN]     runs rows and prints what was measured as Markdown
"""

import http.client
import json
import os
import queue
import re
import shutil
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "examples")]

from block import Block  # noqa: E402
from hosts.host import endpoints_of, free_ports  # noqa: E402
from rows import SIZES, TOPOLOGIES, config_of, for_host, has_spare, name_of, variants  # noqa: E402
from sglang_sim import harness  # noqa: E402
from traffic import PATHS, answer_text, body, events_of, text_of  # noqa: E402
from yardstick import late, usual, yardstick  # noqa: E402

LANES = int(os.environ.get("PDROUTE_TABLE_LANES", "4"))
# on a machine that does other things as well a promise of 50 ms is kept when it is not missed by more than this
SLACK = float(os.environ.get("PDROUTE_TABLE_SLACK", "0.45"))
TAIL = re.compile(rb',"bootstrap_host":"[^"]*","bootstrap_port":\d+,"bootstrap_room":\d+')
OWN = re.compile(r"bootstrap|room|\b\d{10,}\b|/\w+/\w+/|127\.0\.|\.py\b", re.I)  # what no error may tell a client


HOPS = 4  # a client, a gateway, two workers: each may come as late as the machine was then


def slack(began, ended=None):
    """What is added to a bound of what happened between these two times (time.time())."""
    offset = time.monotonic() - time.time()
    return SLACK + HOPS * late(began + offset, (ended or time.time()) + offset)


def usual_slack(began):
    """The same for the median of what happened since then."""
    return HOPS * usual(began + time.monotonic() - time.time())


class Broken(AssertionError):
    """What was wanted did not happen."""


def must(condition, message):
    if not condition:
        raise Broken(message)


class Outcome:
    """What a client saw of one request."""

    def __init__(self, gw, api, sent, timeout=20):
        self.status, self.text, self.cut, self.headers = None, "", False, {}
        self.began = time.time()
        connection = http.client.HTTPConnection("127.0.0.1", gw.port, timeout=timeout)
        text = b""
        try:
            connection.request("POST", PATHS[api], sent, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            self.status, self.headers = answer.status, {k.lower(): v for k, v in answer.getheaders()}
            try:
                while piece := answer.read1(65536):
                    text += piece
                if answer.length:
                    self.cut = True
            except (http.client.IncompleteRead, ConnectionError) as error:
                text += getattr(error, "partial", b"")
                self.cut = True
        finally:
            connection.close()
        self.took = time.time() - self.began
        self.text = text.decode(errors="replace")

    @property
    def error(self):
        return json.loads(self.text)["error"]

    def whole(self, api, stream):
        """The answer of a worker, to its end."""
        if self.status != 200 or self.cut:
            return False
        if not stream:
            return bool(answer_text(api, json.loads(self.text)))
        events = events_of(self.text)
        return events[-1:] == ["[DONE]"] and not any("error" in e or '"abort"' in e for e in events)


class Run:
    """One variant of a row on a gateway; `measured` has what it took."""

    def __init__(self, lane, host, variant):
        self.row, self.topology, self.stream, self.size = variant
        self.name = name_of(variant)
        self.row = for_host(self.row, host, self.name)
        self.fleet = lane.fleet(self.topology)
        self.host, self.measured = host, {}
        self.api = ("chat", "generate", "completions")[hash_of(self.name) % 3]

    def body(self, i):
        b = body(self.api, text=f"{self.name} {i} " + text_of(SIZES[self.size], i), stream=self.stream, tokens=8)
        return json.dumps(b, ensure_ascii=False).encode()

    def break_servers(self):
        for workers, fault in ((self.fleet.prefills, self.row.prefill), (self.fleet.decodes, self.row.decode)):
            for worker in workers[:1] if self.row.which == "one" else workers:
                if fault:
                    worker.fault(**fault)

    def run(self):
        yardstick()
        self.fleet.reset()
        directory = Path(tempfile.mkdtemp(prefix="pdroute-row-"))
        directory.chmod(0o755)
        endpoints = endpoints_of(self.fleet)
        if self.row.bootstrap_dead:
            endpoints[0]["bootstrap_port"], = free_ports(1)
        gw = self.host(directory, endpoints, config=config_of(self.row))
        try:
            gw.start()
            self.break_servers()
            (self.client_leaves if self.row.leaves else self.client_asks)(gw)
            self.legs_are_over()
            self.workers_saw_the_right_bytes()
            if self.row.recovers is not None:
                self.recovery(gw)
            must(harness.wait_for(lambda: not any(v for k, v in self.stats(gw).items() if k in ("bookings", "held_now", "rooms_live")), timeout=5),
                 f"still booked: {self.stats(gw)}")
            must(gw.stop() < 6, "took too long to end")
            with Block(gw.block) as block:
                block.check()
            must(not gw.alerts(), gw.alerts())
        except Exception as error:
            raise Broken(f"{self.name}: {error!r}\n{self.story()}\n{gw.excerpt(1500)}") from error
        finally:
            if gw.process is not None:
                gw.process.kill()
                for pid in gw.all_pids():
                    os.kill(pid, 9)
                gw.process.wait()
            self.fleet.reset()
            shutil.rmtree(directory, ignore_errors=True)
        return self.measured

    def stats(self, gw):
        with Block(gw.block) as block:
            return block.stats()

    # ---- the client

    def client_asks(self, gw):
        row, spare = self.row, has_spare(self.row, self.topology)
        for i in range(3 if spare else 1):
            outcome = Outcome(gw, self.api, self.body(i))
            self.measured["client"] = max(outcome.took, self.measured.get("client", 0))
            must(outcome.took < row.within + slack(outcome.began), f"the client waited {outcome.took:.2f} s")
            if spare or (row.status == 200 and not row.cut):
                must(outcome.whole(self.api, self.stream), f"request {i}: {outcome.status} {outcome.text[-300:]}")
            else:
                self.failure_is_the_wanted_one(outcome)
        if not row.marker:
            self.retries_are_quick()

    def failure_is_the_wanted_one(self, outcome):
        row = self.row
        must(outcome.status in (row.status if isinstance(row.status, tuple) else (row.status,)), f"status {outcome.status}: {outcome.text[-300:]}")
        for name, value in row.headers.items():
            must(outcome.headers.get(name) == value, f"{name}: {outcome.headers.get(name)}")
        if row.marker:
            must(row.marker in outcome.text, outcome.text)
        elif row.cut:
            must(outcome.cut, "the connection was not broken")
            if self.stream:
                self.stream_ends_in_its_own_format(outcome)
        else:
            must(outcome.error["code"] in (row.code if isinstance(row.code, tuple) else (row.code,)), outcome.error)
            must(not OWN.search(outcome.error["message"]), f"tells the inside: {outcome.error}")

    def stream_ends_in_its_own_format(self, outcome):
        events = events_of(outcome.text)
        must(len(events) >= 3 and "[DONE]" not in events, events[-2:])
        last = json.loads(events[-1])
        if self.api == "generate" and "meta_info" in last:
            reason = last["meta_info"]["finish_reason"]
            must(reason["type"] == "abort" and reason["status_code"] >= 500 and not OWN.search(reason["message"]), reason)
        else:
            must(last["error"]["code"] == self.row.code and not OWN.search(last["error"]["message"]), last)

    def client_leaves(self, gw):
        sent = self.body(0)
        with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
            s.sendall(f"POST {PATHS[self.api]} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
            must(harness.wait_for(lambda: len(self.legs()) == 2, timeout=5), "the legs did not arrive")
            if self.row.leaves == "stream":
                got = b""
                while got.count(b"data:") < 3:
                    piece = s.recv(65536)
                    must(piece, "the stream ended")
                    got += piece
            open_legs = [r for r in self.legs() if not r.end and not r.disconnected]
            left = time.time()
        must(harness.wait_for(lambda: all(r.end or r.disconnected for r in self.legs()), timeout=3), "legs are still open")
        must(open_legs, "no leg was open when the client left")
        gap = max([r.disconnected - left for r in self.legs() if r.disconnected] or [0])
        self.measured["close"] = gap
        must(gap < self.row.close_within + slack(left), f"legs were closed {gap:.3f} s after the client left")

    # ---- the workers

    def legs(self):
        """What arrived on the three generating paths, oldest first."""
        found = [r for w in self.fleet.workers for r in w.requests() if r.path.split("?")[0] in PATHS.values()]
        return sorted(found, key=lambda r: r.start)

    def by_room(self):
        rooms = {}
        for leg in self.legs():
            rooms.setdefault(leg.json["bootstrap_room"], []).append(leg)
        return rooms

    def legs_are_over(self):
        must(harness.wait_for(lambda: all(r.end or r.disconnected for r in self.legs()), timeout=5), "a leg is left open")

    def workers_saw_the_right_bytes(self):
        sent = {self.body(i) for i in range(3)}
        for leg in self.legs():
            must(len(TAIL.findall(leg.body)) == 1 and TAIL.sub(b"", leg.body) in sent, "the body is not the client's with three members more")
            must(leg.header("content-length") == str(len(leg.body)) and leg.header("transfer-encoding") is None, leg.headers)
        for room, legs in self.by_room().items():
            must(0 < room < 2 ** 63 and len(legs) <= 2, f"room {room} went out {len(legs)} times")
            must(len({leg.json["bootstrap_port"] for leg in legs}) == 1, "the legs of one room name two bootstrap servers")

    def retries_are_quick(self):
        """From a failed leg to the end of the other one, and to the next attempt."""
        attempts = sorted(self.by_room().values(), key=lambda legs: legs[0].start)
        for i, legs in enumerate(attempts):
            broken = [r for r in legs if r.fault in ("status", "reset", "crash") and (r.end or r.disconnected)]
            if not broken:
                continue
            failed = min(r.end or r.disconnected for r in broken)
            for other in legs:
                if other not in broken and other.disconnected:
                    self.note("close", other.disconnected - failed)
            later = [r.start for legs in attempts[i + 1:] for r in legs]
            if later and not self.row.decode and not self.row.prefill.get("delay"):
                self.note("retry", min(later) - failed)
        allowed = slack(attempts[0][0].start) if attempts else 0
        must(self.measured.get("close", 0) < self.row.close_within + allowed, f"the other leg was closed {self.measured.get('close')} s later")
        must(self.measured.get("retry", 0) < self.row.retry_within + allowed, f"the next attempt came {self.measured.get('retry')} s later")

    def note(self, what, seconds):
        self.measured[what] = max(seconds, self.measured.get(what, 0))

    # ---- afterwards

    def recovery(self, gw):
        """The servers are well again: how long until a request is served."""
        for worker in self.fleet.workers:
            if worker.state()["faults"] or self.row.bootstrap_dead:
                worker.reset()
        if any((f or {}).get("kind") == "crash" for f in (self.row.prefill, self.row.decode)):
            for worker in self.fleet.workers:
                worker.restart()
        if self.row.bootstrap_dead:
            return
        began = time.time()
        while True:
            outcome = Outcome(gw, self.api, self.body(9))
            if outcome.whole(self.api, self.stream):
                break
            must(time.time() - began < self.row.recovers + slack(began), f"no success {time.time() - began:.2f} s after recovery: {outcome.status} {outcome.text}")
            time.sleep(0.05)
        self.measured["recovery"] = time.time() - began

    def story(self):
        """What the workers saw, for a failed row."""
        try:
            zero = self.legs()[0].start
            return "\n".join(f"{w.name} {w.role}: +{r.start - zero:.3f} room {r.json.get('bootstrap_room')} status {r.status} fault {r.fault} end "
                             f"{r.end and round(r.end - zero, 3)} gone {r.disconnected and round(r.disconnected - zero, 3)}"
                             for w in self.fleet.workers for r in w.requests() if r.path.split("?")[0] in PATHS.values())
        except Exception as error:  # noqa: BLE001 - the row's own failure is what is to be told
            return repr(error)


def hash_of(text):
    return sum(text.encode())


class Lane:
    """Fleets that one row after the other uses."""

    def __init__(self):
        self.fleets = {}

    def fleet(self, topology):
        if topology not in self.fleets:
            p, d = TOPOLOGIES[topology]
            self.fleets[topology] = harness.start(prefill=p, decode=d, speed=0, timers=0.02, context=2_000_000, capacity=20_000_000)
        return self.fleets[topology]

    def close(self):
        for fleet in self.fleets.values():
            fleet.stop()


class Table:
    """Runs variants on some lanes; `results[name]` is a future with what was measured."""

    def __init__(self, host, chosen):
        self.lanes = queue.Queue()
        for _ in range(LANES):
            self.lanes.put(Lane())
        self.pool = ThreadPoolExecutor(LANES)
        self.results = {name_of(v): self.pool.submit(self.one, host, v) for v in chosen}

    def one(self, host, variant):
        lane = self.lanes.get()
        try:
            return Run(lane, host, variant).run()
        finally:
            self.lanes.put(lane)

    def close(self):
        self.pool.shutdown(cancel_futures=True)
        while not self.lanes.empty():
            self.lanes.get().close()


def ms(values):
    values = sorted(values)
    return f"{values[len(values) // 2] * 1000:.0f} ({values[-1] * 1000:.0f})" if values else ""


def main():
    import argparse
    import fnmatch
    import hosts
    p = argparse.ArgumentParser()
    p.add_argument("--gateway", default="nginx")
    p.add_argument("--long", action="store_true", help="every size in every row")
    p.add_argument("pattern", nargs="?", default="*")
    args = p.parse_args()
    chosen = [v for v in variants(args.long) if fnmatch.fnmatch(name_of(v), args.pattern)]
    table = Table(hosts.find(args.gateway), chosen)
    seen, failed = {}, 0
    for variant in chosen:
        cells = seen.setdefault(variant[0].name, {})
        try:
            for what, seconds in table.results[name_of(variant)].result().items():
                cells.setdefault(what, []).append(seconds)
        except Broken as broken:
            failed += 1
            print(broken, file=sys.stderr)
    table.close()
    print("| case | client's outcome | next attempt | other leg closed | first success after recovery |\n|---|---|---|---|---|")
    for name, cells in seen.items():
        print(f"| {name} | {' | '.join(ms(cells.get(k, [])) for k in ('client', 'retry', 'close', 'recovery'))} |")
    print(f"\n{len(chosen)} runs, {failed} failed; milliseconds: median (worst)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
