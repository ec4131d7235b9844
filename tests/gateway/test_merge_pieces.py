"""The Python gateway's cutting of a stream into whole events: the same however it comes, and without looking twice at what has come."""

import random
import sys
import time
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / each) for each in ("examples/python", "bindings/python")]
gateway_job = pytest.importorskip("pdroute_gateway.job")
pytestmark = pytest.mark.only("python")


class Passes:
    def text(self, prefill, decode):
        return decode


class Leg:
    event_stream = True


def cutter():
    job = gateway_job.Job.__new__(gateway_job.Job)
    job.merge, job.prefill_body, job.merge_kept, job.merge_tail = Passes(), [b""], [], b""
    return lambda piece, last=False: job.merged(Leg, piece, last)


def test_whole_events_however_they_come():
    r = random.Random(5)
    for _ in range(300):
        stream = b"".join(b"data: " + bytes(r.choices(b"ab\r", k=r.randrange(6))) + r.choice([b"\n\n", b"\r\n\r\n", b"\n\r\n"]) for _ in range(r.randrange(1, 6))) + b"data: half\r\n"
        cut, at, out = cutter(), 0, b""
        while at < len(stream):
            n = r.choice([1, 1, 2, 3, 10])
            piece = stream[at:at + n]
            at += n
            got = cut(piece)
            assert not got or got.endswith((b"\n\n", b"\n\r\n"))
            out += got
            so_far = stream[:at]
            ended = max(so_far.rfind(b"\n\n") + 2 if b"\n\n" in so_far else 0, so_far.rfind(b"\n\r\n") + 3 if b"\n\r\n" in so_far else 0)
            assert out == stream[:ended]
        assert out + cut(b"", True) == stream


def test_one_long_event_costs_its_length():
    """As many pieces as bytes in a piece: looked at again with each, the beginning would be read some thousand times."""
    size, piece = 4 << 20, b"x" * 1024
    whole = piece * (size // len(piece))
    began = time.perf_counter()
    for _ in range(5):
        assert whole.rfind(b"\n\r\n") < 0 and bytes(bytearray(whole))
    once = time.perf_counter() - began
    cut = cutter()
    began = time.perf_counter()
    for _ in range(size // len(piece)):
        assert cut(piece) == b""
    took = time.perf_counter() - began
    assert cut(b"\n\n") == whole + b"\n\n"
    assert took < 20 * once + 1, (took, once)
