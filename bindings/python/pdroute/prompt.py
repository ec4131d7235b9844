"""Bodies of requests: the scan, and the rewritten bodies of the legs. All of it is pure: no router, no lock."""
from __future__ import annotations

import ctypes
import typing
from array import array

from ._abi import MAX_SLICES, Api, Code, Config, Decision, ErrorInfo, Limits, Prompt, Slice
from ._buffer import Buffer, View, start, words
from ._library import core
from .errors import check

NOSPACE = int(Code.NOSPACE)
MAX_BLOCKS = 4096  # default of Config.max_blocks
_scratch: dict[int, list[typing.Any]] = {}  # arrays for hashes by size; more than one if threads scan at once


_prompt_size = ctypes.sizeof(Prompt)


def new_prompt() -> Prompt:
    """Prompt() without the way through keyword arguments."""
    prompt = Prompt.__new__(Prompt)
    prompt.struct_size = _prompt_size
    return prompt


class Scan(typing.NamedTuple):
    prompt: Prompt
    hashes: array[int]
    """The chain of block hashes."""


def limits_of(config: Config) -> Limits:
    """The limits of a router's (resolved) configuration."""
    return Limits(block_bytes=config.block_bytes, max_blocks=config.max_blocks, max_depth=config.max_depth, max_batch=config.max_batch,
                  max_body=config.max_body)


def scan(body: Buffer, api: int = Api.CHAT, limits: typing.Optional[Limits] = None) -> Scan:
    """One pass over a body: is it valid, what is in it, the hashes of its prompt. ParseError, TooLargeError, TooDeepError, UnsupportedError."""
    cap = limits.max_blocks if limits is not None and limits.max_blocks else MAX_BLOCKS
    free = _scratch.setdefault(cap, [])
    try:
        scratch = free.pop()
    except IndexError:
        scratch = (ctypes.c_uint64 * cap)()
    prompt, error = new_prompt(), ErrorInfo()
    with View(body) as view:
        code = core.pdr_scan(view.address, view.size, api, limits, prompt, scratch, cap, error)
    hashes = array("Q")
    if not code and prompt.blocks:
        hashes.frombytes(memoryview(scratch).cast("B")[:8 * prompt.blocks])
    free.append(scratch)
    check(code, error)
    return Scan(prompt, hashes)


def hash_tokens(ids: typing.Union[typing.Iterable[int], Buffer], salt: int = 0, limits: typing.Optional[Limits] = None) -> array[int]:
    """Block hashes of token ids (a sequence, or a buffer of 32-bit integers): what `scan` gives for the same `input_ids`."""
    if not isinstance(ids, (bytes, bytearray, memoryview, array)):
        ids = array("I", ids)
    cap = limits.max_blocks if limits is not None and limits.max_blocks else MAX_BLOCKS
    out, n = (ctypes.c_uint64 * cap)(), ctypes.c_size_t()
    with View(ids) as view:
        check(core.pdr_hash_tokens(view.address, words(view, "token ids", 4), salt, limits, out, cap, n))
    hashes = array("Q")
    hashes.frombytes(memoryview(out).cast("B")[:8 * n.value])
    return hashes


def room(decision: Decision, i: int = 0) -> int:
    """The i-th room of a decision."""
    return int(core.pdr_decision_room(decision, i))


def rewrite_tail(decision: Decision, prompt: Prompt, leg: int, pad_to: int = 0) -> bytes:
    """What goes in at `prompt.insert_at`, with its comma; padded with spaces to `pad_to` if given."""
    need = ctypes.c_size_t()
    out = ctypes.create_string_buffer(512)
    code = core.pdr_rewrite_tail(decision, prompt, leg, pad_to, out, 512, need)
    if code == NOSPACE and need.value > 512 and not (pad_to and need.value > pad_to):  # a batch with many rooms
        long = bytearray(need.value)
        check(core.pdr_rewrite_tail(decision, prompt, leg, pad_to, start(long), len(long), need))
        return bytes(long)
    check(code)
    return out.raw[:need.value]


def rewrite_slices(prompt: Prompt, body_size: int, tail_size: int) -> list[tuple[int, int, int]]:
    """(source, offset, length) of each piece: source 0 is the body, 1 the tail."""
    out, n = (Slice * MAX_SLICES)(), ctypes.c_size_t(MAX_SLICES)
    check(core.pdr_rewrite_slices(prompt, body_size, tail_size, out, n))
    return [(s.source, s.offset, s.length) for s in out[:n.value]]


def rewrite_pieces(decision: Decision, prompt: Prompt, leg: int, body: Buffer) -> list[memoryview]:
    """The rewritten body as pieces that point into `body`: nothing of it is copied."""
    tail = rewrite_tail(decision, prompt, leg)
    sources = (memoryview(body).cast("B"), memoryview(tail))
    slices = rewrite_slices(prompt, sources[0].nbytes, len(tail))
    return [sources[source][offset:offset + length] for source, offset, length in slices if length]


def rewrite(decision: Decision, prompt: Prompt, leg: int, body: Buffer) -> bytes:
    """The rewritten body in one piece."""
    need = ctypes.c_size_t()
    with View(body) as view:
        size = view.size + 512
        out = bytearray(size)
        code = core.pdr_rewrite(decision, prompt, leg, view.address, view.size, start(out), size, need)
        if code == NOSPACE:
            size = need.value
            out = bytearray(size)
            code = core.pdr_rewrite(decision, prompt, leg, view.address, view.size, start(out), size, need)
    check(code)
    return memoryview(out)[:need.value].tobytes()


def header_owned(name: typing.Union[str, bytes]) -> bool:
    """Whether a client's header of this name must never reach a worker."""
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    return bool(core.pdr_header_owned(raw, len(raw)))


class Routed:
    """A request that was routed: `prompt` is what the scan found in `body`, `decision` where it goes.

    `with router.route(body, lease=lease) as routed:` gives everything back at the end (`done()`, or `cancel()` if it still waits).
    """

    __slots__ = ("router", "body", "prompt", "decision", "hashes")

    def __init__(self, router: typing.Any, body: Buffer, prompt: Prompt, decision: Decision,
                 hashes: typing.Optional[array[int]] = None) -> None:
        self.router = router
        self.body = body
        self.prompt = prompt
        self.decision = decision
        self.hashes = hashes

    @property
    def held(self) -> bool:
        """It waits: `take()` fetches it when it may go."""
        return self.decision.outcome == 2

    @property
    def prefill(self) -> str:
        """host:port, empty if there is no such leg."""
        d = self.decision
        return address(d.prefill_host, d.prefill_port) if d.mode == 0 and d.outcome == 1 else ""

    @property
    def decode(self) -> str:
        d = self.decision
        return address(d.decode_host, d.decode_port) if d.outcome == 1 else ""

    def rewrite(self, leg: int) -> bytes:
        return rewrite(self.decision, self.prompt, leg, self.body)

    def pieces(self, leg: int) -> list[memoryview]:
        return rewrite_pieces(self.decision, self.prompt, leg, self.body)

    def take(self, now_ns: typing.Optional[int] = None) -> bool:
        """Fetches a held request: True if it may go now, False if it still waits. ExpiredError, NoPairError, NotFoundError (its lease ended)."""
        if not self.held:
            return True
        taken = self.router.take(self.decision.booking, self.hashes, now_ns)
        if taken is None:
            return False
        self.decision = taken
        return True

    def done(self, what: int = 2, now_ns: typing.Optional[int] = None) -> None:
        """For those who use no Exchange: what became of it. Done.PREFILL when the prompt is computed, Done.ALL at the end."""
        self.router.booking_done(self.decision.booking, what, now_ns)

    def cancel(self, now_ns: typing.Optional[int] = None) -> None:
        """Gives up a request that was not sent."""
        self.router.cancel(self.decision.booking, now_ns)

    def __enter__(self) -> Routed:
        return self

    def __exit__(self, *_: object) -> None:
        if self.held:
            self.cancel()
        else:
            try:
                self.done()
            except LookupError:  # given back already
                pass

    def __repr__(self) -> str:
        return f"<Routed {'held' if self.held else f'{self.prefill} -> {self.decode}'}, {self.decision.matched_tokens}/{self.decision.prompt_tokens} tokens cached>"


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

