"""The failure table as data: what is broken, and what is wanted of the gateway. table.py runs a row, test_table.py runs them all.

A row breaks `prefill` and/or `decode` servers: one of them (`which="one"`), or all. Where every broken role has a spare server the client gets its answer,
from the first try on. Where none has, it gets `status` and `code`. In both cases within `within` seconds; nothing stays open, booked or held, no room is used twice.
"""

from dataclasses import dataclass, field, replace

TOPOLOGIES = {"2P+2D": (2, 2), "2P+1D": (2, 1), "1P+1D": (1, 1)}
SIZES = {"1KB": 1_000, "17KB": 17_000, "132KB": 132_000}

# Bounds that are scaled, so that the table takes a minute and not an hour. The proportions are those of the defaults.
CONFIG = {"first_byte_timeout_ms": 700, "first_byte_least_ms": 300, "idle_timeout_ms": 700, "idle_least_ms": 300, "breaker_open_ms": 500}
# where the client is to leave: that the gateway gives up first, and asks other servers, is another row.
# And where nobody is silent: on a busy machine a server that is well can be slower than those bounds
PATIENT = {"first_byte_timeout_ms": 60000, "first_byte_least_ms": 60000, "idle_timeout_ms": 60000, "idle_least_ms": 60000}


@dataclass(frozen=True)
class Row:
    name: str
    prefill: dict = None            # fault of a prefill server (sglang_sim/faults.py), of a decode server
    decode: dict = None
    which: str = "one"              # of each broken role; "all": every server of it
    status: object = 502            # without a spare: what the client gets; 200: an answer all the same
    code: str = None                # its error.code; a tuple: one of these
    headers: dict = field(default_factory=dict)  # that the error must have
    marker: str = None              # text that the client's answer must contain (a worker's answer that passes)
    spare_helps: bool = True        # False: the outcome is the same with a spare (4xx)
    cut: bool = False               # the answer has begun: a stream ends with an error event, and the connection breaks
    within: float = 1.0             # seconds until the client has its outcome
    retry_within: float = 0.05      # seconds from the failure to the next attempt's arrival
    close_within: float = 0.05      # seconds from the failure (or the client's leaving) to the end of the other leg
    streams: tuple = (False, True)
    topologies: tuple = tuple(TOPOLOGIES)
    leaves: str = None              # the client leaves: "silent" before anything came, "stream" after some events
    recovers: float = 1.0           # seconds until the first success after the servers are well again; None: not looked at
    config: dict = field(default_factory=dict)
    bootstrap_dead: bool = False    # nobody listens on the broken prefill's bootstrap port
    peers: str = ""                 # what others do, for the docs
    reason: str = ""                # of a host's `instead`


def status(number, **more):
    return {"kind": "status", "status": number, **more}


MARK = "said by the worker itself"
ERROR = {"error": {"message": MARK}}
PATH = {"error": {"message": "Decode transfer failed for request rank=0 room=bootstrap_room 4711 in /opt/sglang/srt/disaggregation/decode.py"}}

ROWS = [
    # connections
    Row("prefill refuses", prefill={"kind": "refuse"}, code=("prefill_failed", "no_pair"), status=(502, 503)),
    Row("decode refuses", decode={"kind": "refuse"}, code=("decode_failed", "no_pair"), status=(502, 503)),
    Row("all prefills refuse", prefill={"kind": "refuse"}, which="all", code=("prefill_failed", "no_pair"), status=(502, 503)),
    Row("all decodes refuse", decode={"kind": "refuse"}, which="all", code=("decode_failed", "no_pair"), status=(502, 503)),
    Row("prefill resets", prefill={"kind": "reset"}, code="prefill_failed"),
    Row("decode resets", decode={"kind": "reset"}, code="decode_failed"),
    Row("prefill crashes", prefill={"kind": "crash", "count": 1}, code="prefill_failed"),
    Row("decode crashes", decode={"kind": "crash", "count": 1}, code="decode_failed"),
    # silence
    Row("prefill hangs", prefill={"kind": "hang"}, status=504, code="prefill_timeout", within=4),
    Row("decode hangs", decode={"kind": "hang"}, status=504, code=("decode_timeout", "prefill_timeout"), within=4),
    Row("all hang", prefill={"kind": "hang"}, decode={"kind": "hang"}, which="all", status=504, code="prefill_timeout", within=4),
    # answers that are failures
    Row("prefill 500, decode waits", prefill=status(500), code="prefill_failed"),
    Row("prefill 500, decode hangs", prefill=status(500), decode={"kind": "hang"}, which="all", code="prefill_failed"),
    Row("prefill 500, decode answers", prefill=status(500), decode=status(200, body=ERROR, delay=0.15), which="all", code="prefill_failed"),
    Row("decode 500", decode=status(500, body=PATH), code="decode_failed"),
    Row("decode 500 a little later", decode=status(500, body=PATH, delay=0.2), code="decode_failed"),
    # decode says so, or prefill is waited for in vain; with the bound of the others a busy machine would make it always the second, which is "prefill hangs"
    Row("dead bootstrap port", bootstrap_dead=True, code=("decode_failed", "prefill_timeout"), status=(502, 504), within=4,
        config={"first_byte_timeout_ms": 2500, "first_byte_least_ms": 2500}),
    Row("both 500", prefill=status(500), decode=status(500), which="all", code=("prefill_failed", "decode_failed")),
    Row("prefill 503", prefill=status(503), code="prefill_failed"),
    Row("decode 504", decode=status(504), code="decode_failed"),
    Row("prefill 302", prefill=status(302), code="prefill_failed"),
    Row("error event first", decode=status(200, body='data: {"error": {"object": "error", "message": "KV transfer failed", "code": 500}}\n\ndata: [DONE]\n\n',
                                            content_type="text/event-stream"), code="decode_failed", streams=(True,)),
    # refusals pass
    *(Row(f"{role} {number}", **{role: status(number, body=ERROR)}, which="all", status=number, marker=MARK, spare_helps=False)
      for role in ("prefill", "decode") for number in (400, 401, 404, 413, 422)),
    *(Row(f"{role} 429, Retry-After", **{role: status(429, body=ERROR, retry_after=7)}, which="all", status=429, marker=MARK,
          headers={"retry-after": "7"}, spare_helps=False, recovers=None) for role in ("prefill", "decode")),
    *(Row(f"{role} 503, Retry-After", **{role: status(503, retry_after=7)}, status=503, code=f"{role}_failed",
          headers={"retry-after": "7"}, recovers=None) for role in ("prefill", "decode")),
    # in the middle of an answer
    Row("decode dies in a stream", decode={"kind": "cut", "events": 3}, which="all", status=200, code="decode_failed", cut=True, spare_helps=False,
        streams=(True,)),
    Row("decode dies in a whole answer", decode={"kind": "cut"}, which="all", status=200, cut=True, spare_helps=False, streams=(False,)),
    Row("decode falls silent in a stream", decode={"kind": "stall", "events": 3}, which="all", status=200, code="decode_timeout", cut=True, spare_helps=False,
        streams=(True,), within=3),
    Row("decode falls silent in a whole answer", decode={"kind": "stall"}, which="all", status=200, cut=True, spare_helps=False, streams=(False,), within=3),
    # clients that leave
    Row("client leaves while all is silent", prefill={"kind": "hang"}, decode={"kind": "hang"}, which="all", leaves="silent"),
    Row("client leaves while decode is silent", decode={"kind": "hang"}, which="all", leaves="silent"),
    Row("client leaves while prefill is silent", prefill={"kind": "hang"}, which="all", leaves="silent"),
    Row("client leaves a stream", decode={"kind": "stall", "events": 3}, which="all", leaves="stream", streams=(True,)),
]


def variants(long=False):
    """(row, topology, stream, size): every row in every topology, streamed and not; sizes in turn, or (long) all of them."""
    found, turn = [], 0
    for row in ROWS:
        for topology in row.topologies:
            for stream in row.streams:
                sizes = list(SIZES) if long else [list(SIZES)[turn % len(SIZES)]]
                turn += 1
                found += [(row, topology, stream, size) for size in sizes]
    return found


def name_of(variant):
    row, topology, stream, size = variant
    return f"{row.name}, {topology}, {'stream' if stream else 'plain'}, {size}"


def config_of(row):
    silent = row.bootstrap_dead or any(fault and fault["kind"] in ("hang", "stall") for fault in (row.prefill, row.decode))
    return {**CONFIG, **(PATIENT if row.leaves or not silent else {}), **row.config}


def has_spare(row, topology):
    p, d = TOPOLOGIES[topology]
    return row.spare_helps and row.which == "one" and (row.prefill is None and not row.bootstrap_dead or p > 1) and (row.decode is None or d > 1)


def for_host(row, host, name):
    """The row as this gateway is to pass it."""
    import fnmatch
    for pattern, changes in host.instead.items():
        if fnmatch.fnmatch(name, pattern):
            row = replace(row, **changes)
    return row
