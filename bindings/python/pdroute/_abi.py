"""Constants, structs and prototypes of libpdroute. Made by tools/generate.py from tests/abi/layout.txt: do not edit."""
# ruff: noqa: E501
from __future__ import annotations

import ctypes
import enum
import typing
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

from ._struct import Struct, texts

ABI_VERSION = 1
NONE = 4294967295
MAX_EDITS = 32
MAX_SLICES = 35
MAX_ACTIONS = 8
LOG_CANDIDATES = 12


class Code(enum.IntEnum):
    OK = 0
    INVALID = -1
    VERSION = -2
    NOSPACE = -3
    PARSE = -4
    TOO_LARGE = -5
    TOO_DEEP = -6
    UNSUPPORTED = -7
    NO_PAIR = -8
    QUEUE_FULL = -9
    NOT_FOUND = -10
    EXISTS = -11
    FULL = -12
    BUSY = -13
    LEASE = -14
    AGAIN = -15
    EXPIRED = -16
    BLOCK_MAGIC = -17
    BLOCK_LAYOUT = -18
    BLOCK_CONFIG = -19
    BLOCK_BOOT = -20
    BLOCK_CORRUPT = -21
    SYSTEM = -22


class Policy(enum.IntEnum):
    DEFAULT = 0
    ROUND_ROBIN = 1
    RANDOM = 2
    LEAST_TOKENS = 3
    POWER_OF_TWO = 4


class Engine(enum.IntEnum):
    SGLANG = 0


class Hold(enum.IntEnum):
    DEFAULT = 0
    ON = 1
    OFF = 2


class Role(enum.IntEnum):
    PREFILL = 1
    DECODE = 2
    BOTH = 3


class EndpointFlag(enum.IntFlag):
    TLS = 1
    NULL_BOOTSTRAP_PORT = 2
    ALONE = 4
    TOLD_PORT = 8
    TOLD_DP = 16
    TOLD_PREFILL = 32
    TOLD_DECODE = 64


class State(enum.IntEnum):
    READY = 0
    DRAINING = 1
    DOWN = 2
    REMOVED = 3


class Apply(enum.IntFlag):
    PRUNE = 1


class Report(enum.IntEnum):
    PROMETHEUS = 1
    LOADS = 2
    SERVER_INFO = 3


class LoadField(enum.IntFlag):
    RUNNING = 1
    WAITING = 2
    KV_USED = 4
    KV_CAPACITY = 8
    USAGE = 16
    PREFILL_BOOTSTRAP = 32
    PREFILL_INFLIGHT = 64
    DECODE_PREALLOC = 128
    DECODE_TRANSFER = 256
    WAITING_TOKENS = 512
    MAX_RUNNING = 1024
    RETRACTED = 2048
    PENDING_USAGE = 4096
    PREFILL_SPEED = 8192


class Api(enum.IntEnum):
    GENERATE = 1
    CHAT = 2
    COMPLETIONS = 3
    OTHER = 4


class PromptFlag(enum.IntFlag):
    STREAM = 1
    RETURN_LOGPROB = 2
    MEDIA = 4
    TOKENS = 8
    BATCH = 16
    TRUNCATED = 32
    USAGE = 64


class RequestFlag(enum.IntFlag):
    NO_HOLD = 1
    DRY = 2


class Outcome(enum.IntEnum):
    SEND = 1
    HELD = 2


class Leg(enum.IntEnum):
    PREFILL = 0
    DECODE = 1


class Mode(enum.IntEnum):
    PD = 0
    SINGLE = 1


class ResponseKind(enum.IntEnum):
    JSON = 1
    SSE = 2


class Seen(enum.IntFlag):
    FIRST_TOKEN = 1
    DONE = 2
    USAGE = 4
    ERROR = 8
    CACHED = 16


class EventType(enum.IntEnum):
    HEAD = 1
    BODY = 2
    END = 3
    FAILED = 4
    CLIENT_GONE = 5
    SENT = 6
    TICK = 7
    SERVED = 8


class Fail(enum.IntEnum):
    CONNECT = 1
    STALE = 2
    RESET = 3
    TIMEOUT = 4
    PROTOCOL = 5


class Head(enum.IntEnum):
    MERGED = 1


class ActionType(enum.IntEnum):
    SEND = 1
    CANCEL = 2
    DRAIN = 3
    RELAY = 4
    RESPOND = 5
    ROUTE = 6
    ABORT = 7
    FINISH = 8


class Reason(enum.IntEnum):
    PREFILL_FAILED = 1
    DECODE_FAILED = 2
    PREFILL_TIMEOUT = 3
    DECODE_TIMEOUT = 4
    NO_PAIR = 5
    QUEUE_FULL = 6
    BAD_REQUEST = 7
    TOO_LARGE = 8
    HELD_TIMEOUT = 9


class Done(enum.IntFlag):
    PREFILL = 1
    ALL = 2


class Barred(enum.IntEnum):
    NO = 0
    DOWN = 1
    DRAINING = 2
    EXCLUDED = 3
    BREAKER = 4
    KV_FULL = 5
    BUSY = 6


class HostFlag(enum.IntFlag):
    CREATE = 1
    RECREATE = 2
    RESTORE = 4
    GUARD = 8


class Origin(enum.IntEnum):
    ATTACHED = 1
    CREATED = 2
    RECREATED = 3
    RESTORED = 4


class BlockState(enum.IntEnum):
    CURRENT = 0
    REPLACED = 1
    TRUNCATED = 2


class Job(enum.IntEnum):
    PROBE = 1
    DISCOVERY = 2


class ReplayFlag(enum.IntFlag):
    PARTIAL = 1


class ReplayKind(enum.IntEnum):
    ROUTED = 1
    RELEASED = 2
    REFUSED = 3
    PREFILLED = 4
    USAGE = 5
    LOST = 6
    GONE = 7


class ProbeFlag(enum.IntFlag):
    NO_HEALTH = 1
    NO_LOADS = 2
    NO_INFO = 4
    TLS_INSECURE = 8


class ProbeEventType(enum.IntEnum):
    UP = 1
    DOWN = 2
    REPORTS_LOST = 3
    REPORTS_BACK = 4
    NOTE = 5


class ErrorInfo(Struct):
    """pdr_error"""
    struct_size: int
    code: int
    offset: int
    line: int
    reserved: int
    message: str
    _fields_ = [("struct_size", c_uint32), ("code", c_int32), ("offset", c_uint64), ("line", c_uint32), ("reserved", c_uint32), ("message", c_char * 232)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, code: int = ..., offset: int = ..., line: int = ..., message: str = ...) -> None: ...


texts(ErrorInfo, "message")


class Config(Struct):
    """pdr_config"""
    struct_size: int
    policy: int
    engine: int
    max_endpoints: int
    max_targets: int
    max_bookings: int
    max_leases: int
    max_held: int
    index_entries: int
    block_bytes: int
    max_blocks: int
    max_body: int
    max_depth: int
    max_batch: int
    seed: int
    bootstrap_port: int
    log_entries: int
    prefill_base_us: int
    prefill_ns_per_token: int
    prefill_fs_per_token2: int
    decode_us_per_request: int
    decode_ps_per_token: int
    kv_bytes_per_token: int
    transfer_latency_us: int
    transfer_mbps_host: int
    transfer_mbps_rack: int
    transfer_mbps_zone: int
    transfer_mbps_far: int
    milli_tokens_per_byte: int
    hold: int
    hold_window_tokens: int
    hold_max_wait_ms: int
    hold_ageing_ms: int
    lease_ttl_ms: int
    metrics_stale_ms: int
    retry_max: int
    breaker_failures: int
    breaker_open_ms: int
    first_byte_timeout_ms: int
    total_timeout_ms: int
    reserved: int
    record_bytes: int
    first_byte_least_ms: int
    idle_timeout_ms: int
    idle_least_ms: int
    retry_budget_permille: int
    breaker_error_permille: int
    reserved2: int
    tenant_header: str
    _fields_ = [("struct_size", c_uint32), ("policy", c_uint32), ("engine", c_uint32), ("max_endpoints", c_uint32), ("max_targets", c_uint32), ("max_bookings", c_uint32), ("max_leases", c_uint32), ("max_held", c_uint32), ("index_entries", c_uint64), ("block_bytes", c_uint32), ("max_blocks", c_uint32), ("max_body", c_uint64), ("max_depth", c_uint32), ("max_batch", c_uint32), ("seed", c_uint64), ("bootstrap_port", c_uint32), ("log_entries", c_uint32), ("prefill_base_us", c_uint32), ("prefill_ns_per_token", c_uint32), ("prefill_fs_per_token2", c_uint32), ("decode_us_per_request", c_uint32), ("decode_ps_per_token", c_uint32), ("kv_bytes_per_token", c_uint32), ("transfer_latency_us", c_uint32), ("transfer_mbps_host", c_uint32), ("transfer_mbps_rack", c_uint32), ("transfer_mbps_zone", c_uint32), ("transfer_mbps_far", c_uint32), ("milli_tokens_per_byte", c_uint32), ("hold", c_uint32), ("hold_window_tokens", c_uint32), ("hold_max_wait_ms", c_uint32), ("hold_ageing_ms", c_uint32), ("lease_ttl_ms", c_uint32), ("metrics_stale_ms", c_uint32), ("retry_max", c_uint32), ("breaker_failures", c_uint32), ("breaker_open_ms", c_uint32), ("first_byte_timeout_ms", c_uint32), ("total_timeout_ms", c_uint32), ("reserved", c_uint32), ("record_bytes", c_uint64), ("first_byte_least_ms", c_uint32), ("idle_timeout_ms", c_uint32), ("idle_least_ms", c_uint32), ("retry_budget_permille", c_uint32), ("breaker_error_permille", c_uint32), ("reserved2", c_uint32), ("tenant_header", c_char * 64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, policy: int = ..., engine: int = ..., max_endpoints: int = ..., max_targets: int = ..., max_bookings: int = ..., max_leases: int = ..., max_held: int = ..., index_entries: int = ..., block_bytes: int = ..., max_blocks: int = ..., max_body: int = ..., max_depth: int = ..., max_batch: int = ..., seed: int = ..., bootstrap_port: int = ..., log_entries: int = ..., prefill_base_us: int = ..., prefill_ns_per_token: int = ..., prefill_fs_per_token2: int = ..., decode_us_per_request: int = ..., decode_ps_per_token: int = ..., kv_bytes_per_token: int = ..., transfer_latency_us: int = ..., transfer_mbps_host: int = ..., transfer_mbps_rack: int = ..., transfer_mbps_zone: int = ..., transfer_mbps_far: int = ..., milli_tokens_per_byte: int = ..., hold: int = ..., hold_window_tokens: int = ..., hold_max_wait_ms: int = ..., hold_ageing_ms: int = ..., lease_ttl_ms: int = ..., metrics_stale_ms: int = ..., retry_max: int = ..., breaker_failures: int = ..., breaker_open_ms: int = ..., first_byte_timeout_ms: int = ..., total_timeout_ms: int = ..., record_bytes: int = ..., first_byte_least_ms: int = ..., idle_timeout_ms: int = ..., idle_least_ms: int = ..., retry_budget_permille: int = ..., breaker_error_permille: int = ..., tenant_header: str = ...) -> None: ...


texts(Config, "tenant_header")


class Endpoint(Struct):
    """pdr_endpoint"""
    struct_size: int
    role: int
    flags: int
    port: int
    bootstrap_port: int
    dp_size: int
    max_running: int
    reserved: int
    kv_capacity: int
    name: str
    host: str
    bootstrap_host: str
    topology_host: str
    topology_rack: str
    topology_zone: str
    labels: str
    _fields_ = [("struct_size", c_uint32), ("role", c_uint32), ("flags", c_uint32), ("port", c_uint32), ("bootstrap_port", c_uint32), ("dp_size", c_uint32), ("max_running", c_uint32), ("reserved", c_uint32), ("kv_capacity", c_uint64), ("name", c_char * 128), ("host", c_char * 256), ("bootstrap_host", c_char * 256), ("topology_host", c_char * 64), ("topology_rack", c_char * 64), ("topology_zone", c_char * 64), ("labels", c_char * 512)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, role: int = ..., flags: int = ..., port: int = ..., bootstrap_port: int = ..., dp_size: int = ..., max_running: int = ..., kv_capacity: int = ..., name: str = ..., host: str = ..., bootstrap_host: str = ..., topology_host: str = ..., topology_rack: str = ..., topology_zone: str = ..., labels: str = ...) -> None: ...


texts(Endpoint, "name", "host", "bootstrap_host", "topology_host", "topology_rack", "topology_zone", "labels")


class TargetStatus(Struct):
    """pdr_target_status"""
    struct_size: int
    endpoint: int
    rank: int
    role: int
    state: int
    failures: int
    speed_permille: int
    report_age_ms: int
    prefill_requests: int
    prefill_tokens: int
    prefill_wait_us: int
    decode_requests: int
    decode_tokens: int
    prefix_blocks: int
    prefix_capacity: int
    reported_running: int
    reported_waiting: int
    reported_used_tokens: int
    kv_capacity: int
    requests_total: int
    failures_total: int
    cached_tokens_total: int
    prompt_tokens_total: int
    _fields_ = [("struct_size", c_uint32), ("endpoint", c_uint32), ("rank", c_uint32), ("role", c_uint32), ("state", c_uint32), ("failures", c_uint32), ("speed_permille", c_uint32), ("report_age_ms", c_uint32), ("prefill_requests", c_uint64), ("prefill_tokens", c_uint64), ("prefill_wait_us", c_uint64), ("decode_requests", c_uint64), ("decode_tokens", c_uint64), ("prefix_blocks", c_uint64), ("prefix_capacity", c_uint64), ("reported_running", c_uint64), ("reported_waiting", c_uint64), ("reported_used_tokens", c_uint64), ("kv_capacity", c_uint64), ("requests_total", c_uint64), ("failures_total", c_uint64), ("cached_tokens_total", c_uint64), ("prompt_tokens_total", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, endpoint: int = ..., rank: int = ..., role: int = ..., state: int = ..., failures: int = ..., speed_permille: int = ..., report_age_ms: int = ..., prefill_requests: int = ..., prefill_tokens: int = ..., prefill_wait_us: int = ..., decode_requests: int = ..., decode_tokens: int = ..., prefix_blocks: int = ..., prefix_capacity: int = ..., reported_running: int = ..., reported_waiting: int = ..., reported_used_tokens: int = ..., kv_capacity: int = ..., requests_total: int = ..., failures_total: int = ..., cached_tokens_total: int = ..., prompt_tokens_total: int = ...) -> None: ...


class ApplyReport(Struct):
    """pdr_apply_report"""
    struct_size: int
    added: int
    updated: int
    removed: int
    unchanged: int
    skipped: int
    warnings: int
    reserved: int
    warning: typing.Any
    _fields_ = [("struct_size", c_uint32), ("added", c_uint32), ("updated", c_uint32), ("removed", c_uint32), ("unchanged", c_uint32), ("skipped", c_uint32), ("warnings", c_uint32), ("reserved", c_uint32), ("warning", c_char * 160 * 8)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, added: int = ..., updated: int = ..., removed: int = ..., unchanged: int = ..., skipped: int = ..., warnings: int = ..., warning: typing.Any = ...) -> None: ...


class Load(Struct):
    """pdr_load"""
    struct_size: int
    have: int
    running: int
    waiting: int
    kv_used: int
    kv_capacity: int
    usage_permille: int
    pending_usage_permille: int
    prefill_bootstrap: int
    prefill_inflight: int
    decode_prealloc: int
    decode_transfer: int
    retracted: int
    max_running: int
    waiting_tokens: int
    prefill_uncached_total: int
    prefill_busy_us_total: int
    _fields_ = [("struct_size", c_uint32), ("have", c_uint32), ("running", c_uint64), ("waiting", c_uint64), ("kv_used", c_uint64), ("kv_capacity", c_uint64), ("usage_permille", c_uint32), ("pending_usage_permille", c_uint32), ("prefill_bootstrap", c_uint32), ("prefill_inflight", c_uint32), ("decode_prealloc", c_uint32), ("decode_transfer", c_uint32), ("retracted", c_uint32), ("max_running", c_uint32), ("waiting_tokens", c_uint64), ("prefill_uncached_total", c_uint64), ("prefill_busy_us_total", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, have: int = ..., running: int = ..., waiting: int = ..., kv_used: int = ..., kv_capacity: int = ..., usage_permille: int = ..., pending_usage_permille: int = ..., prefill_bootstrap: int = ..., prefill_inflight: int = ..., decode_prealloc: int = ..., decode_transfer: int = ..., retracted: int = ..., max_running: int = ..., waiting_tokens: int = ..., prefill_uncached_total: int = ..., prefill_busy_us_total: int = ...) -> None: ...


class Span(Struct):
    """pdr_span"""
    begin: int
    end: int
    _fields_ = [("begin", c_uint64), ("end", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, begin: int = ..., end: int = ...) -> None: ...


class Prompt(Struct):
    """pdr_prompt"""
    struct_size: int
    flags: int
    api: int
    blocks: int
    batch: int
    samples: int
    max_tokens: int
    priority: int
    prompt_bytes: int
    prompt_tokens: int
    session: int
    members: int
    edits: int
    object: Span
    model: Span
    edit: ctypes.Array[Span]
    insert_at: int
    samples_at: int
    samples_line: int
    reserved: int
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("api", c_uint32), ("blocks", c_uint32), ("batch", c_uint32), ("samples", c_uint32), ("max_tokens", c_uint64), ("priority", c_int64), ("prompt_bytes", c_uint64), ("prompt_tokens", c_uint64), ("session", c_uint64), ("members", c_uint32), ("edits", c_uint32), ("object", Span), ("model", Span), ("edit", Span * 32), ("insert_at", c_uint64), ("samples_at", c_uint64), ("samples_line", c_uint32), ("reserved", c_uint32)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, flags: int = ..., api: int = ..., blocks: int = ..., batch: int = ..., samples: int = ..., max_tokens: int = ..., priority: int = ..., prompt_bytes: int = ..., prompt_tokens: int = ..., session: int = ..., members: int = ..., edits: int = ..., object: Span = ..., model: Span = ..., edit: ctypes.Array[Span] = ..., insert_at: int = ..., samples_at: int = ..., samples_line: int = ...) -> None: ...


class Limits(Struct):
    """pdr_limits"""
    struct_size: int
    block_bytes: int
    max_blocks: int
    max_depth: int
    max_batch: int
    reserved: int
    max_body: int
    _fields_ = [("struct_size", c_uint32), ("block_bytes", c_uint32), ("max_blocks", c_uint32), ("max_depth", c_uint32), ("max_batch", c_uint32), ("reserved", c_uint32), ("max_body", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, block_bytes: int = ..., max_blocks: int = ..., max_depth: int = ..., max_batch: int = ..., max_body: int = ...) -> None: ...


class Request(Struct):
    """pdr_request"""
    struct_size: int
    flags: int
    api: int
    lease: int
    now_ns: int
    deadline_ns: int
    priority: int
    excluded: int
    exclude: ctypes.Array[c_uint32]
    session: int
    tenant: int
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("api", c_uint32), ("lease", c_uint32), ("now_ns", c_uint64), ("deadline_ns", c_uint64), ("priority", c_int32), ("excluded", c_uint32), ("exclude", c_uint32 * 8), ("session", c_uint64), ("tenant", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, flags: int = ..., api: int = ..., lease: int = ..., now_ns: int = ..., deadline_ns: int = ..., priority: int = ..., excluded: int = ..., exclude: ctypes.Array[c_uint32] = ..., session: int = ..., tenant: int = ...) -> None: ...


class Decision(Struct):
    """pdr_decision"""
    struct_size: int
    outcome: int
    booking: int
    mode: int
    batch: int
    prefill: int
    decode: int
    prefill_rank: int
    decode_rank: int
    prefill_dp_size: int
    prefill_port: int
    decode_port: int
    bootstrap_port: int
    prefill_flags: int
    decode_flags: int
    engine: int
    candidates: int
    room: int
    room_key: int
    room_counter: int
    prompt_tokens: int
    matched_tokens: int
    wait_us: int
    prefill_us: int
    transfer_us: int
    decode_us: int
    cost_us: int
    retry_after_ms: int
    prefill_host: str
    decode_host: str
    bootstrap_host: str
    first_byte_us: int
    answer_us: int
    idle_us: int
    _fields_ = [("struct_size", c_uint32), ("outcome", c_uint32), ("booking", c_uint64), ("mode", c_uint32), ("batch", c_uint32), ("prefill", c_uint32), ("decode", c_uint32), ("prefill_rank", c_uint32), ("decode_rank", c_uint32), ("prefill_dp_size", c_uint32), ("prefill_port", c_uint32), ("decode_port", c_uint32), ("bootstrap_port", c_uint32), ("prefill_flags", c_uint32), ("decode_flags", c_uint32), ("engine", c_uint32), ("candidates", c_uint32), ("room", c_uint64), ("room_key", c_uint64), ("room_counter", c_uint64), ("prompt_tokens", c_uint64), ("matched_tokens", c_uint64), ("wait_us", c_uint64), ("prefill_us", c_uint64), ("transfer_us", c_uint64), ("decode_us", c_uint64), ("cost_us", c_uint64), ("retry_after_ms", c_uint64), ("prefill_host", c_char * 256), ("decode_host", c_char * 256), ("bootstrap_host", c_char * 256), ("first_byte_us", c_uint64), ("answer_us", c_uint64), ("idle_us", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, outcome: int = ..., booking: int = ..., mode: int = ..., batch: int = ..., prefill: int = ..., decode: int = ..., prefill_rank: int = ..., decode_rank: int = ..., prefill_dp_size: int = ..., prefill_port: int = ..., decode_port: int = ..., bootstrap_port: int = ..., prefill_flags: int = ..., decode_flags: int = ..., engine: int = ..., candidates: int = ..., room: int = ..., room_key: int = ..., room_counter: int = ..., prompt_tokens: int = ..., matched_tokens: int = ..., wait_us: int = ..., prefill_us: int = ..., transfer_us: int = ..., decode_us: int = ..., cost_us: int = ..., retry_after_ms: int = ..., prefill_host: str = ..., decode_host: str = ..., bootstrap_host: str = ..., first_byte_us: int = ..., answer_us: int = ..., idle_us: int = ...) -> None: ...


texts(Decision, "prefill_host", "decode_host", "bootstrap_host")


class Slice(Struct):
    """pdr_slice"""
    source: int
    reserved: int
    offset: int
    length: int
    _fields_ = [("source", c_uint32), ("reserved", c_uint32), ("offset", c_uint64), ("length", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, source: int = ..., offset: int = ..., length: int = ...) -> None: ...


class ResponseStruct(Struct):
    """pdr_response"""
    struct_size: int
    kind: int
    events: int
    flags: int
    bytes: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    state: ctypes.Array[c_uint64]
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32), ("events", c_uint32), ("flags", c_uint32), ("bytes", c_uint64), ("prompt_tokens", c_uint64), ("cached_tokens", c_uint64), ("completion_tokens", c_uint64), ("state", c_uint64 * 40)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, kind: int = ..., events: int = ..., flags: int = ..., bytes: int = ..., prompt_tokens: int = ..., cached_tokens: int = ..., completion_tokens: int = ..., state: ctypes.Array[c_uint64] = ...) -> None: ...


class Event(Struct):
    """pdr_event"""
    struct_size: int
    type: int
    leg: int
    status: int
    detail: int
    attempt: int
    now_ns: int
    retry_after_ms: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    usage: int
    reserved: int
    last_byte_ns: int
    longest_gap_ms: int
    reserved2: int
    _fields_ = [("struct_size", c_uint32), ("type", c_uint32), ("leg", c_uint32), ("status", c_uint32), ("detail", c_uint32), ("attempt", c_uint32), ("now_ns", c_uint64), ("retry_after_ms", c_uint64), ("prompt_tokens", c_uint64), ("cached_tokens", c_uint64), ("completion_tokens", c_uint64), ("usage", c_uint32), ("reserved", c_uint32), ("last_byte_ns", c_uint64), ("longest_gap_ms", c_uint32), ("reserved2", c_uint32)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, type: int = ..., leg: int = ..., status: int = ..., detail: int = ..., attempt: int = ..., now_ns: int = ..., retry_after_ms: int = ..., prompt_tokens: int = ..., cached_tokens: int = ..., completion_tokens: int = ..., usage: int = ..., last_byte_ns: int = ..., longest_gap_ms: int = ...) -> None: ...


class Action(Struct):
    """pdr_action"""
    type: int
    leg: int
    status: int
    reason: int
    retry_after_ms: int
    _fields_ = [("type", c_uint32), ("leg", c_uint32), ("status", c_uint32), ("reason", c_uint32), ("retry_after_ms", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, type: int = ..., leg: int = ..., status: int = ..., reason: int = ..., retry_after_ms: int = ...) -> None: ...


class ExchangeStruct(Struct):
    """pdr_exchange"""
    struct_size: int
    phase: int
    attempt: int
    flags: int
    booking: int
    prefill: int
    decode: int
    leg_state: ctypes.Array[c_uint32]
    leg_status: ctypes.Array[c_uint32]
    excluded: int
    exclude: ctypes.Array[c_uint32]
    mode: int
    lease: int
    reserved: int
    started_ns: int
    sent_ns: int
    deadline_ns: int
    retry_after_ms: int
    prompt_tokens: int
    matched_tokens: int
    predicted_us: int
    state: ctypes.Array[c_uint64]
    _fields_ = [("struct_size", c_uint32), ("phase", c_uint32), ("attempt", c_uint32), ("flags", c_uint32), ("booking", c_uint64), ("prefill", c_uint32), ("decode", c_uint32), ("leg_state", c_uint32 * 2), ("leg_status", c_uint32 * 2), ("excluded", c_uint32), ("exclude", c_uint32 * 8), ("mode", c_uint32), ("lease", c_uint32), ("reserved", c_uint32), ("started_ns", c_uint64), ("sent_ns", c_uint64), ("deadline_ns", c_uint64), ("retry_after_ms", c_uint64), ("prompt_tokens", c_uint64), ("matched_tokens", c_uint64), ("predicted_us", c_uint64), ("state", c_uint64 * 8)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, phase: int = ..., attempt: int = ..., flags: int = ..., booking: int = ..., prefill: int = ..., decode: int = ..., leg_state: ctypes.Array[c_uint32] = ..., leg_status: ctypes.Array[c_uint32] = ..., excluded: int = ..., exclude: ctypes.Array[c_uint32] = ..., mode: int = ..., lease: int = ..., started_ns: int = ..., sent_ns: int = ..., deadline_ns: int = ..., retry_after_ms: int = ..., prompt_tokens: int = ..., matched_tokens: int = ..., predicted_us: int = ..., state: ctypes.Array[c_uint64] = ...) -> None: ...


class MergeStruct(Struct):
    """pdr_merge"""
    struct_size: int
    api: int
    kind: int
    reserved: int
    seen: ctypes.Array[c_uint64]
    _fields_ = [("struct_size", c_uint32), ("api", c_uint32), ("kind", c_uint32), ("reserved", c_uint32), ("seen", c_uint64 * 16)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, api: int = ..., kind: int = ..., seen: ctypes.Array[c_uint64] = ...) -> None: ...


class Candidate(Struct):
    """pdr_candidate"""
    endpoint: int
    rank: int
    role: int
    barred: int
    chosen: int
    reserved: int
    matched_tokens: int
    uncached_tokens: int
    wait_us: int
    work_us: int
    price_us: int
    transfer_us: int
    cost_us: int
    _fields_ = [("endpoint", c_uint32), ("rank", c_uint32), ("role", c_uint32), ("barred", c_uint32), ("chosen", c_uint32), ("reserved", c_uint32), ("matched_tokens", c_uint64), ("uncached_tokens", c_uint64), ("wait_us", c_uint64), ("work_us", c_uint64), ("price_us", c_uint64), ("transfer_us", c_uint64), ("cost_us", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, endpoint: int = ..., rank: int = ..., role: int = ..., barred: int = ..., chosen: int = ..., matched_tokens: int = ..., uncached_tokens: int = ..., wait_us: int = ..., work_us: int = ..., price_us: int = ..., transfer_us: int = ..., cost_us: int = ...) -> None: ...


class Place(Struct):
    """pdr_place"""
    struct_size: int
    outcome: int
    place: int
    held: int
    ahead_us: int
    size_us: int
    waited_us: int
    left_us: int
    priority: int
    retry_after_ms: int
    _fields_ = [("struct_size", c_uint32), ("outcome", c_int32), ("place", c_uint32), ("held", c_uint32), ("ahead_us", c_uint64), ("size_us", c_uint64), ("waited_us", c_uint64), ("left_us", c_uint64), ("priority", c_int64), ("retry_after_ms", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, outcome: int = ..., place: int = ..., held: int = ..., ahead_us: int = ..., size_us: int = ..., waited_us: int = ..., left_us: int = ..., priority: int = ..., retry_after_ms: int = ...) -> None: ...


class LogRecord(Struct):
    """pdr_log_record"""
    struct_size: int
    outcome: int
    number: int
    time_ns: int
    booking: int
    room: int
    lease: int
    attempt: int
    prefill: int
    decode: int
    prefill_rank: int
    decode_rank: int
    prompt_tokens: int
    matched_tokens: int
    cost_us: int
    held_us: int
    candidates: int
    candidates_total: int
    candidate: ctypes.Array[Candidate]
    _fields_ = [("struct_size", c_uint32), ("outcome", c_uint32), ("number", c_uint64), ("time_ns", c_uint64), ("booking", c_uint64), ("room", c_uint64), ("lease", c_uint32), ("attempt", c_uint32), ("prefill", c_uint32), ("decode", c_uint32), ("prefill_rank", c_uint32), ("decode_rank", c_uint32), ("prompt_tokens", c_uint64), ("matched_tokens", c_uint64), ("cost_us", c_uint64), ("held_us", c_uint64), ("candidates", c_uint32), ("candidates_total", c_uint32), ("candidate", Candidate * 12)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, outcome: int = ..., number: int = ..., time_ns: int = ..., booking: int = ..., room: int = ..., lease: int = ..., attempt: int = ..., prefill: int = ..., decode: int = ..., prefill_rank: int = ..., decode_rank: int = ..., prompt_tokens: int = ..., matched_tokens: int = ..., cost_us: int = ..., held_us: int = ..., candidates: int = ..., candidates_total: int = ..., candidate: ctypes.Array[Candidate] = ...) -> None: ...


class ReplayChoice(Struct):
    """pdr_replay_choice"""
    outcome: int
    mode: int
    prefill: int
    decode: int
    prefill_rank: int
    decode_rank: int
    prefill_us: int
    decode_us: int
    transfer_us: int
    cost_us: int
    _fields_ = [("outcome", c_int32), ("mode", c_uint32), ("prefill", c_uint32), ("decode", c_uint32), ("prefill_rank", c_uint32), ("decode_rank", c_uint32), ("prefill_us", c_uint64), ("decode_us", c_uint64), ("transfer_us", c_uint64), ("cost_us", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, outcome: int = ..., mode: int = ..., prefill: int = ..., decode: int = ..., prefill_rank: int = ..., decode_rank: int = ..., prefill_us: int = ..., decode_us: int = ..., transfer_us: int = ..., cost_us: int = ...) -> None: ...


class ReplayStep(Struct):
    """pdr_replay_step"""
    struct_size: int
    kind: int
    number: int
    time_ns: int
    ticket: int
    checked: int
    same: int
    recorded: ReplayChoice
    replayed: ReplayChoice
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    prefill_us: int
    block_millitokens: int
    blocks: int
    reserved: int
    tenant: int
    priority: int
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32), ("number", c_uint64), ("time_ns", c_uint64), ("ticket", c_uint64), ("checked", c_uint32), ("same", c_uint32), ("recorded", ReplayChoice), ("replayed", ReplayChoice), ("prompt_tokens", c_uint64), ("output_tokens", c_uint64), ("cached_tokens", c_uint64), ("prefill_us", c_uint64), ("block_millitokens", c_uint64), ("blocks", c_uint32), ("reserved", c_uint32), ("tenant", c_uint64), ("priority", c_int64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, kind: int = ..., number: int = ..., time_ns: int = ..., ticket: int = ..., checked: int = ..., same: int = ..., recorded: ReplayChoice = ..., replayed: ReplayChoice = ..., prompt_tokens: int = ..., output_tokens: int = ..., cached_tokens: int = ..., prefill_us: int = ..., block_millitokens: int = ..., blocks: int = ..., tenant: int = ..., priority: int = ...) -> None: ...


class Stats(Struct):
    """pdr_stats"""
    struct_size: int
    reserved: int
    routed: int
    held: int
    refused_no_pair: int
    refused_queue_full: int
    released: int
    expired: int
    cancelled: int
    retried: int
    finished: int
    failed: int
    bookings: int
    held_now: int
    leases: int
    rooms_live: int
    endpoints: int
    targets: int
    prefix_entries: int
    prefix_evictions: int
    prompt_tokens: int
    matched_tokens: int
    cached_tokens_reported: int
    prompt_tokens_reported: int
    lock_recoveries: int
    leases_expired: int
    reports: int
    reports_failed: int
    clock_backwards: int
    timeouts: int
    retries_refused: int
    breakers_opened: int
    held_longest_us: int
    held_oldest_us: int
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("routed", c_uint64), ("held", c_uint64), ("refused_no_pair", c_uint64), ("refused_queue_full", c_uint64), ("released", c_uint64), ("expired", c_uint64), ("cancelled", c_uint64), ("retried", c_uint64), ("finished", c_uint64), ("failed", c_uint64), ("bookings", c_uint64), ("held_now", c_uint64), ("leases", c_uint64), ("rooms_live", c_uint64), ("endpoints", c_uint64), ("targets", c_uint64), ("prefix_entries", c_uint64), ("prefix_evictions", c_uint64), ("prompt_tokens", c_uint64), ("matched_tokens", c_uint64), ("cached_tokens_reported", c_uint64), ("prompt_tokens_reported", c_uint64), ("lock_recoveries", c_uint64), ("leases_expired", c_uint64), ("reports", c_uint64), ("reports_failed", c_uint64), ("clock_backwards", c_uint64), ("timeouts", c_uint64), ("retries_refused", c_uint64), ("breakers_opened", c_uint64), ("held_longest_us", c_uint64), ("held_oldest_us", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, routed: int = ..., held: int = ..., refused_no_pair: int = ..., refused_queue_full: int = ..., released: int = ..., expired: int = ..., cancelled: int = ..., retried: int = ..., finished: int = ..., failed: int = ..., bookings: int = ..., held_now: int = ..., leases: int = ..., rooms_live: int = ..., endpoints: int = ..., targets: int = ..., prefix_entries: int = ..., prefix_evictions: int = ..., prompt_tokens: int = ..., matched_tokens: int = ..., cached_tokens_reported: int = ..., prompt_tokens_reported: int = ..., lock_recoveries: int = ..., leases_expired: int = ..., reports: int = ..., reports_failed: int = ..., clock_backwards: int = ..., timeouts: int = ..., retries_refused: int = ..., breakers_opened: int = ..., held_longest_us: int = ..., held_oldest_us: int = ...) -> None: ...


class HostInfo(Struct):
    """pdr_host_info"""
    struct_size: int
    origin: int
    size: int
    reason: int
    reserved: int
    message: str
    path: str
    _fields_ = [("struct_size", c_uint32), ("origin", c_uint32), ("size", c_uint64), ("reason", c_int32), ("reserved", c_uint32), ("message", c_char * 232), ("path", c_char * 1024)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, origin: int = ..., size: int = ..., reason: int = ..., message: str = ..., path: str = ...) -> None: ...


texts(HostInfo, "message", "path")


class HostLeaseStruct(Struct):
    """pdr_host_lease"""
    struct_size: int
    id: int
    wake_fd: int
    lock_fd: int
    renewed_ns: int
    name: str
    _fields_ = [("struct_size", c_uint32), ("id", c_uint32), ("wake_fd", c_int32), ("lock_fd", c_int32), ("renewed_ns", c_uint64), ("name", c_char * 64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, id: int = ..., wake_fd: int = ..., lock_fd: int = ..., renewed_ns: int = ..., name: str = ...) -> None: ...


texts(HostLeaseStruct, "name")


class ProbeEvent(Struct):
    """pdr_probe_event"""
    struct_size: int
    type: int
    endpoint: int
    status: int
    now_ns: int
    name: str
    message: str
    _fields_ = [("struct_size", c_uint32), ("type", c_uint32), ("endpoint", c_uint32), ("status", c_uint32), ("now_ns", c_uint64), ("name", c_char * 128), ("message", c_char * 256)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, type: int = ..., endpoint: int = ..., status: int = ..., now_ns: int = ..., name: str = ..., message: str = ...) -> None: ...


texts(ProbeEvent, "name", "message")


class ProbeOptions(Struct):
    """pdr_probe_options"""
    struct_size: int
    flags: int
    interval_ms: int
    health_interval_ms: int
    refresh_ms: int
    connect_timeout_ms: int
    timeout_ms: int
    health_timeout_ms: int
    retry_min_ms: int
    retry_max_ms: int
    down_after: int
    max_active: int
    max_answer_bytes: int
    authorization: typing.Any
    ca_file: typing.Any
    event: typing.Any
    context: typing.Any
    _fields_ = [("struct_size", c_uint32), ("flags", c_uint32), ("interval_ms", c_uint32), ("health_interval_ms", c_uint32), ("refresh_ms", c_uint32), ("connect_timeout_ms", c_uint32), ("timeout_ms", c_uint32), ("health_timeout_ms", c_uint32), ("retry_min_ms", c_uint32), ("retry_max_ms", c_uint32), ("down_after", c_uint32), ("max_active", c_uint32), ("max_answer_bytes", c_uint64), ("authorization", c_char_p), ("ca_file", c_char_p), ("event", c_void_p), ("context", c_void_p)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, flags: int = ..., interval_ms: int = ..., health_interval_ms: int = ..., refresh_ms: int = ..., connect_timeout_ms: int = ..., timeout_ms: int = ..., health_timeout_ms: int = ..., retry_min_ms: int = ..., retry_max_ms: int = ..., down_after: int = ..., max_active: int = ..., max_answer_bytes: int = ..., authorization: typing.Any = ..., ca_file: typing.Any = ..., event: typing.Any = ..., context: typing.Any = ...) -> None: ...


class ProbeStats(Struct):
    """pdr_probe_stats"""
    struct_size: int
    endpoints: int
    up: int
    down: int
    unknown: int
    active: int
    requests: int
    failures: int
    reports: int
    connections: int
    _fields_ = [("struct_size", c_uint32), ("endpoints", c_uint32), ("up", c_uint32), ("down", c_uint32), ("unknown", c_uint32), ("active", c_uint32), ("requests", c_uint64), ("failures", c_uint64), ("reports", c_uint64), ("connections", c_uint64)]
    if typing.TYPE_CHECKING:
        def __init__(self, *, endpoints: int = ..., up: int = ..., down: int = ..., unknown: int = ..., active: int = ..., requests: int = ..., failures: int = ..., reports: int = ..., connections: int = ...) -> None: ...


# name: (result, arguments)
CORE: dict[str, tuple[typing.Any, list[typing.Any]]] = {
    "pdr_version_number": (c_uint32, []),
    "pdr_version_string": (c_char_p, []),
    "pdr_abi_version": (c_uint32, []),
    "pdr_init_struct": (None, [c_void_p, c_size_t]),
    "pdr_strerror": (c_char_p, [c_int]),
    "pdr_http_status": (c_int, [c_int]),
    "pdr_config_resolve": (c_int, [POINTER(Config), POINTER(ErrorInfo)]),
    "pdr_config_from_json": (c_int, [c_void_p, c_size_t, POINTER(Config), POINTER(ErrorInfo)]),
    "pdr_router_size": (c_size_t, [POINTER(Config)]),
    "pdr_router_init": (c_int, [c_void_p, c_size_t, POINTER(Config), c_uint64, POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_router_attach": (c_int, [c_void_p, c_size_t, POINTER(Config), c_uint64, POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_router_restore": (c_int, [c_void_p, c_size_t, c_uint64, c_uint64, POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_router_lose": (c_int, [c_void_p]),
    "pdr_router_escape": (None, [c_void_p]),
    "pdr_router_config": (c_int, [c_void_p, POINTER(Config)]),
    "pdr_router_check": (c_int, [c_void_p, POINTER(ErrorInfo)]),
    "pdr_endpoint_put": (c_int, [c_void_p, POINTER(Endpoint), c_uint64, POINTER(c_uint32), POINTER(ErrorInfo)]),
    "pdr_endpoint_drain": (c_int, [c_void_p, c_uint32, c_int, POINTER(ErrorInfo)]),
    "pdr_endpoint_remove": (c_int, [c_void_p, c_uint32, POINTER(ErrorInfo)]),
    "pdr_endpoint_health": (c_int, [c_void_p, c_uint32, c_int, c_uint64, POINTER(ErrorInfo)]),
    "pdr_endpoint_find": (c_int, [c_void_p, c_char_p, POINTER(c_uint32)]),
    "pdr_endpoint_get": (c_int, [c_void_p, c_uint32, POINTER(Endpoint), POINTER(c_uint32)]),
    "pdr_endpoint_next": (c_int, [c_void_p, POINTER(c_uint32), POINTER(c_uint32)]),
    "pdr_target_get": (c_int, [c_void_p, c_uint32, c_uint32, c_uint64, POINTER(TargetStatus)]),
    "pdr_apply_json": (c_int, [c_void_p, c_void_p, c_size_t, c_uint32, c_uint64, POINTER(ApplyReport), POINTER(ErrorInfo)]),
    "pdr_report_put": (c_int, [c_void_p, c_uint32, c_uint32, c_void_p, c_size_t, c_uint64, POINTER(c_uint32), POINTER(ErrorInfo)]),
    "pdr_load_put": (c_int, [c_void_p, c_uint32, c_uint32, POINTER(Load), c_uint64, POINTER(ErrorInfo)]),
    "pdr_lease_open": (c_int, [c_void_p, c_char_p, c_uint64, POINTER(c_uint32), POINTER(ErrorInfo)]),
    "pdr_lease_renew": (c_int, [c_void_p, c_uint32, c_uint64]),
    "pdr_lease_break": (c_int, [c_void_p, c_uint32, c_uint64]),
    "pdr_tick": (c_int, [c_void_p, c_uint64]),
    "pdr_scan": (c_int, [c_void_p, c_size_t, c_uint32, POINTER(Limits), POINTER(Prompt), POINTER(c_uint64), c_size_t, POINTER(ErrorInfo)]),
    "pdr_body_member": (c_int, [c_void_p, c_size_t, c_void_p, c_size_t, POINTER(Span)]),
    "pdr_hash_tokens": (c_int, [c_void_p, c_size_t, c_uint64, POINTER(Limits), POINTER(c_uint64), c_size_t, POINTER(c_size_t)]),
    "pdr_tenant_hash": (c_uint64, [POINTER(Config), c_void_p, c_size_t, c_void_p, c_size_t]),
    "pdr_route": (c_int, [c_void_p, c_void_p, c_size_t, POINTER(Request), POINTER(Prompt), POINTER(Decision), POINTER(ErrorInfo)]),
    "pdr_route_prompt": (c_int, [c_void_p, POINTER(Prompt), c_void_p, c_size_t, POINTER(Request), POINTER(Decision), POINTER(ErrorInfo)]),
    "pdr_ticket_take": (c_int, [c_void_p, c_uint64, c_void_p, c_size_t, c_uint64, POINTER(Decision), POINTER(ErrorInfo)]),
    "pdr_ticket_cancel": (c_int, [c_void_p, c_uint64, c_uint64]),
    "pdr_released": (c_int, [c_void_p, c_uint32, POINTER(c_uint64), POINTER(c_size_t)]),
    "pdr_wakeups": (c_int, [c_void_p, POINTER(c_uint32), POINTER(c_size_t)]),
    "pdr_decision_room": (c_uint64, [POINTER(Decision), c_uint32]),
    "pdr_rewrite_tail": (c_int, [POINTER(Decision), POINTER(Prompt), c_int, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_rewrite_slices": (c_int, [POINTER(Prompt), c_size_t, c_size_t, POINTER(Slice), POINTER(c_size_t)]),
    "pdr_rewrite": (c_int, [POINTER(Decision), POINTER(Prompt), c_int, c_void_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_header_owned": (c_int, [c_void_p, c_size_t]),
    "pdr_response_init": (None, [POINTER(ResponseStruct), c_uint32]),
    "pdr_response_feed": (c_int, [POINTER(ResponseStruct), c_void_p, c_size_t]),
    "pdr_response_mask": (c_int, [POINTER(ResponseStruct), POINTER(Decision), c_void_p, c_size_t, c_int, POINTER(c_size_t)]),
    "pdr_exchange_begin": (c_int, [c_void_p, POINTER(ExchangeStruct), POINTER(Decision), c_uint32, c_uint64, POINTER(Action), POINTER(c_size_t)]),
    "pdr_exchange_event": (c_int, [c_void_p, POINTER(ExchangeStruct), POINTER(Event), POINTER(Action), POINTER(c_size_t)]),
    "pdr_exchange_rerouted": (c_int, [c_void_p, POINTER(ExchangeStruct), POINTER(Decision), c_int, c_uint64, POINTER(Action), POINTER(c_size_t)]),
    "pdr_exchange_deadline": (c_uint64, [POINTER(ExchangeStruct)]),
    "pdr_reason_name": (c_char_p, [c_uint32]),
    "pdr_reason_text": (c_char_p, [c_uint32]),
    "pdr_error_name": (c_char_p, [c_int]),
    "pdr_error_body": (c_int, [c_int, c_char_p, c_char_p, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_error_event": (c_int, [c_uint32, c_int, c_char_p, c_char_p, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_error_status": (c_int, [c_void_p, c_size_t]),
    "pdr_error_mask": (c_int, [POINTER(Decision), c_void_p, c_size_t]),
    "pdr_merge_wanted": (c_int, [POINTER(Decision), POINTER(Prompt)]),
    "pdr_merge_init": (None, [POINTER(MergeStruct), c_uint32, c_uint32]),
    "pdr_merge_slices": (c_int, [POINTER(MergeStruct), c_void_p, c_size_t, c_void_p, c_size_t, POINTER(Slice), POINTER(c_size_t)]),
    "pdr_merge_text": (c_int, [POINTER(MergeStruct), c_void_p, c_size_t, c_void_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_booking_done": (c_int, [c_void_p, c_uint64, c_uint32, c_uint64]),
    "pdr_prefix_store": (c_int, [c_void_p, c_uint32, c_uint32, c_void_p, c_size_t]),
    "pdr_prefix_remove": (c_int, [c_void_p, c_uint32, c_uint32, c_void_p, c_size_t]),
    "pdr_prefix_clear": (c_int, [c_void_p, c_uint32, c_uint32]),
    "pdr_prefix_match": (c_int, [c_void_p, c_uint32, c_uint32, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_explain": (c_int, [c_void_p, POINTER(Prompt), c_void_p, c_size_t, POINTER(Request), POINTER(Decision), POINTER(Candidate), POINTER(c_size_t), POINTER(ErrorInfo)]),
    "pdr_ticket_place": (c_int, [c_void_p, c_uint64, c_uint64, POINTER(Place), POINTER(ErrorInfo)]),
    "pdr_explain_place": (c_int, [c_void_p, POINTER(Prompt), c_void_p, c_size_t, POINTER(Request), POINTER(Place), POINTER(ErrorInfo)]),
    "pdr_log_read": (c_int, [c_void_p, POINTER(c_uint64), POINTER(LogRecord), POINTER(c_uint64)]),
    "pdr_record_header": (c_int, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_record_read": (c_int, [c_void_p, POINTER(c_uint64), c_uint64, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_uint64)]),
    "pdr_record_trailer": (c_int, [c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_replay_open": (c_int, [c_void_p, c_size_t, c_uint32, POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_replay_next": (c_int, [c_void_p, c_uint32, POINTER(ReplayStep), POINTER(ErrorInfo)]),
    "pdr_replay_hashes": (c_int, [c_void_p, POINTER(c_uint64), POINTER(c_size_t)]),
    "pdr_replay_explain": (c_int, [c_void_p, POINTER(Candidate), POINTER(c_size_t)]),
    "pdr_replay_endpoint": (c_int, [c_void_p, c_uint32, POINTER(Endpoint)]),
    "pdr_replay_config": (c_int, [c_void_p, POINTER(Config)]),
    "pdr_replay_close": (None, [c_void_p]),
    "pdr_stats_get": (c_int, [c_void_p, POINTER(Stats)]),
    "pdr_status_json": (c_int, [c_void_p, c_uint64, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_status_prometheus": (c_int, [c_void_p, c_uint64, c_void_p, c_size_t, POINTER(c_size_t)]),
    "pdr_ready": (c_int, [c_void_p, c_uint64]),
}


# name: (result, arguments)
HOST: dict[str, tuple[typing.Any, list[typing.Any]]] = {
    "pdr_host_now_ns": (c_uint64, []),
    "pdr_host_boot": (c_int, [POINTER(c_uint64), POINTER(ErrorInfo)]),
    "pdr_host_seed": (c_int, [POINTER(c_uint64), POINTER(ErrorInfo)]),
    "pdr_host_open": (c_int, [c_char_p, POINTER(Config), c_uint32, POINTER(c_void_p), POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_host_close": (None, [c_void_p]),
    "pdr_host_router": (c_void_p, [c_void_p]),
    "pdr_host_info_get": (c_int, [c_void_p, POINTER(HostInfo)]),
    "pdr_host_state": (c_int, [c_void_p, POINTER(c_uint32), POINTER(ErrorInfo)]),
    "pdr_host_follow": (c_int, [c_void_p, POINTER(Config), c_uint32, POINTER(c_void_p), POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_host_lease_open": (c_int, [c_void_p, c_char_p, c_uint64, POINTER(HostLeaseStruct), POINTER(ErrorInfo)]),
    "pdr_host_lease_renew": (c_int, [c_void_p, POINTER(HostLeaseStruct), c_uint64, POINTER(ErrorInfo)]),
    "pdr_host_lease_close": (None, [c_void_p, POINTER(HostLeaseStruct), c_uint64]),
    "pdr_host_reap": (c_int, [c_void_p, c_uint64, POINTER(c_uint32)]),
    "pdr_host_claim": (c_int, [c_void_p, c_uint32, POINTER(c_int), POINTER(ErrorInfo)]),
    "pdr_host_wake_open": (c_int, [c_void_p, c_uint32, POINTER(c_int), POINTER(ErrorInfo)]),
    "pdr_host_wake_drain": (None, [c_int]),
    "pdr_host_wake": (c_int, [c_void_p, c_uint32]),
    "pdr_host_wake_pending": (c_int, [c_void_p]),
    "pdr_host_tick": (c_int, [c_void_p, c_uint64]),
    "pdr_probe_new": (c_int, [c_void_p, POINTER(ProbeOptions), POINTER(c_void_p), POINTER(ErrorInfo)]),
    "pdr_probe_free": (None, [c_void_p]),
    "pdr_probe_run": (c_int, [c_void_p, c_uint32, POINTER(c_uint32), POINTER(ErrorInfo)]),
    "pdr_probe_loop": (c_int, [c_void_p, c_void_p, POINTER(ErrorInfo)]),
    "pdr_probe_fd": (c_int, [c_void_p]),
    "pdr_probe_pending": (c_uint32, [c_void_p]),
    "pdr_probe_stats_get": (c_int, [c_void_p, POINTER(ProbeStats)]),
}
