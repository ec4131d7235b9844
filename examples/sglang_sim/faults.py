"""Faults that can be switched on and off while a worker runs (`POST /sim/fault`), and the record of what it received."""

import base64
import time
from collections import deque
from dataclasses import asdict, dataclass, field

KINDS = {
    "refuse": "the listening sockets are closed: connections are refused",
    "hang": "requests are read and never answered",
    "status": "requests are answered with `status` (and `retry_after`, `body`, `content_type`), after `delay` seconds",
    "reset": "the connection is reset instead of an answer",
    "die_after": "a stream's connection is reset after `events` events",
    "cut": "an answer's connection is reset: a stream's after `events` events, a whole answer's after half of its bytes",
    "stall": "as cut, but the connection stays open and silent",
    "slow": "all times are multiplied by `factor`",
    "crash": "the worker dies: open connections are reset, new ones refused, until `restart_after` seconds have passed",
}


@dataclass
class Fault:
    kind: str
    status: int = 500
    retry_after: object = None
    body: object = None             # an object is JSON, a string plain text unless `content_type` says otherwise
    content_type: object = None
    delay: float = 0.0
    events: int = 1
    factor: float = 10.0
    restart_after: object = None
    count: object = None            # so many requests, then no more; None: until it is switched off
    path: object = None             # only requests to this path; None: the three that generate
    hits: int = 0


class Faults:
    """The faults of one worker: at most one of each kind."""

    def __init__(self):
        self.active = {}

    def set(self, spec):
        """Switch a fault on, or with "off": true off. Raises ValueError for what is not understood."""
        spec = dict(spec)
        off = spec.pop("off", False)
        kind = spec.get("kind")
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        try:
            fault = Fault(**spec)
        except TypeError as error:
            raise ValueError(str(error)) from None
        if off:
            return self.active.pop(kind, None)
        self.active[kind] = fault
        return fault

    def clear(self):
        self.active.clear()

    def take(self, kind, path):
        """The fault of a kind if it applies to this request, which then counts."""
        fault = self.active.get(kind)
        if fault is None or fault.path is not None and fault.path != path:
            return None
        if fault.count is not None:
            if fault.hits >= fault.count:
                return None
        fault.hits += 1
        return fault

    def listing(self):
        return [asdict(f) for f in self.active.values()]


@dataclass
class Record:
    """One request as it arrived, and what became of it."""

    method: str
    path: str
    headers: list
    body: bytes
    peer: str
    start: float = field(default_factory=time.time)
    end: object = None
    status: object = None
    events: int = 0
    disconnected: object = None     # when the client was gone
    aborted: object = None          # when the engine gave the request up for it
    fault: object = None
    spans: list = field(default_factory=list)   # of each sequence: tokens, of them cached, and when it was where

    def listing(self):
        d = {k: getattr(self, k) for k in ("method", "path", "peer", "start", "end", "status", "events", "disconnected",
                                           "aborted", "fault", "spans")}
        d["headers"] = [[k.decode("latin-1"), v.decode("latin-1")] for k, v in self.headers]
        d["body"] = base64.b64encode(self.body).decode()
        return d


class Recorder:
    """The last requests: so many at most, and so many bytes of bodies."""

    MAX_BYTES = 256 * 2**20

    def __init__(self, limit):
        self.records = deque()
        self.limit = limit
        self.total = self.bytes = 0

    def add(self, record):
        self.total += 1
        self.records.append(record)
        self.bytes += len(record.body)
        while len(self.records) > self.limit or self.bytes > self.MAX_BYTES:
            self.bytes -= len(self.records.popleft().body)
        return record

    def clear(self):
        self.records.clear()
        self.bytes = 0
