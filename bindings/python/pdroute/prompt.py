"""Bodies of requests: the scan, and the rewritten bodies of the legs. All of it is pure: no router, no lock."""
from __future__ import annotations

import ctypes
import typing
from array import array

from ._abi import MAX_SLICES, Api, Code, Config, Decision, ErrorInfo, Limits, Prompt, Slice, Span
from ._buffer import Buffer, FastView, View, pointer, start, words
from ._library import core
from .errors import check

NOSPACE, NOT_FOUND = int(Code.NOSPACE), int(Code.NOT_FOUND)
MAX_BLOCKS = 4096  # default of Config.max_blocks
_scratch: dict[int, list[typing.Any]] = {}  # arrays for hashes by size; more than one if threads scan at once


_prompt_size = ctypes.sizeof(Prompt)


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def body_member(body: Buffer, name: str) -> typing.Optional[tuple[int, int]]:
    """Where the value of a member of a JSON object lies, the last one of that name: (begin, end), or None if there is none."""
    span, text = Span(), name.encode()
    with View(body) as view:
        code = core.pdr_body_member(view.address, view.size, text, len(text), span)
    if code == NOT_FOUND:
        return None
    check(code)
    return span.begin, span.end


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


class _Out:
    """
    Where C writes a short body to, and the arguments that go with it: taken from and given back to a list, so that threads do not share one.
    """

    __slots__ = ("buffer", "ref", "size", "need", "need_ref", "view")

    def __init__(self) -> None:
        self.buffer = (ctypes.c_char * SHORT)()
        self.ref = ctypes.byref(self.buffer)
        self.size = ctypes.c_size_t()
        self.need = ctypes.c_size_t()
        self.need_ref = ctypes.byref(self.need)
        self.view = FastView()


SHORT = 32768
_short = ctypes.c_size_t(SHORT)
_outs: list[_Out] = []
_rewrite = core["pdr_rewrite"]  # without argument types: what it gets is prepared, and what it cannot check is checked below
_byref = ctypes.byref


def rewrite(decision: Decision, prompt: Prompt, leg: int, body: Buffer) -> bytes:
    """The rewritten body in one piece."""
    if not isinstance(decision, Decision) or not isinstance(prompt, Prompt):
        raise TypeError(f"a Decision and a Prompt are taken, not {type(decision).__name__} and {type(prompt).__name__}")
    try:
        out = _outs.pop()
    except IndexError:
        out = _Out()
    at = body if body.__class__ is bytes else pointer(body)
    if at is not None:
        raw: typing.Any = body
        out.size.value = raw.nbytes if raw.__class__ is memoryview else len(raw)
        code = _rewrite(_byref(decision), _byref(prompt), leg, at, out.size, out.ref, _short, out.need_ref)
    else:
        out.view.hold(body)
        try:
            code = _rewrite(_byref(decision), _byref(prompt), leg, out.view.at, out.view.length, out.ref, _short, out.need_ref)
        finally:
            out.view.release()
    need = out.need.value
    if not code:
        result = typing.cast(bytes, out.buffer[:need])
        _outs.append(out)
        return result
    _outs.append(out)
    if code != NOSPACE:
        check(code)
    long = bytearray(need)
    with View(body) as view:
        check(core.pdr_rewrite(decision, prompt, leg, view.address, view.size, start(long), need, ctypes.c_size_t()))
    return bytes(long)


def tenant_hash(config: Config, name: bytes, value: bytes) -> int:
    """`tenant` for route() and route_prompt() if `name` is config.tenant_header, else 0: call it for each header."""
    return int(core.pdr_tenant_hash(config, name, len(name), value, len(value)))


def header_owned(name: typing.Union[str, bytes]) -> bool:
    """Whether a client's header of this name must never reach a worker."""
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    return bool(core.pdr_header_owned(raw, len(raw)))
