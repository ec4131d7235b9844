"""
libpdroute from Python: which prefill and which decode server gets a request, and the bytes to send to each.

    with Router.create(Config(bootstrap_port=34000)) as router:
        router.put(Endpoint(role=Role.PREFILL, host="10.0.0.1", port=8000))
        router.put(Endpoint(role=Role.DECODE, host="10.0.1.1", port=8000))
        with router.lease("me") as lease, router.route(body, Api.CHAT, lease=lease) as routed:
            send(routed.prefill, routed.rewrite(Leg.PREFILL))
            send(routed.decode, routed.rewrite(Leg.DECODE))

Pure ctypes, for CPython 3.9 and later. docs/python.md is the guide; names, units and promises are those of include/pdroute/pdroute.h.
"""
from . import errors
from ._abi import (ABI_VERSION, LOG_CANDIDATES, MAX_ACTIONS, MAX_EDITS, MAX_SLICES, NONE, ActionType, Api, Apply, ApplyReport, Barred, BlockState, Candidate,
                   Code, Config, Decision, Done, Endpoint, EndpointFlag, Engine, EventType, Fail, Head, Hold, HostFlag, HostInfo, Job, Leg, Limits, Load, LoadField,
                   LogRecord, Mode, Origin, Outcome, Place, Policy, ProbeEvent, ProbeEventType, ProbeFlag, ProbeOptions, ProbeStats, Prompt, PromptFlag, Reason,
                   ReplayChoice, ReplayFlag, ReplayKind, ReplayStep, Report, Request, RequestFlag, ResponseKind, Role, Seen, Slice, Span, State, Stats, TargetStatus)
from .errors import (AgainError, BlockBootError, BlockConfigError, BlockCorruptError, BlockError, BlockLayoutError, BlockMagicError, BusyError, Error,
                     ExistsError, ExpiredError, FullError, InvalidError, LeaseError, NoPairError, NoSpaceError, NotFoundError, ParseError, QueueFullError,
                     SystemCallError, TooDeepError, TooLargeError, UnsupportedError, VersionError, http_status, strerror)
from .exchange import Act, Exchange, Merge, error_body, error_event, error_mask, error_name, error_status, merge_wanted, reason_name, reason_text
from .host import Claim, Host, HostLease, Probe, boot, init_struct, now_ns, seed, version, version_number
from .prompt import (Scan, body_member, hash_tokens, header_owned, limits_of, rewrite, rewrite_pieces, rewrite_slices, rewrite_tail, room, scan,
                     tenant_hash)
from .record import Recording, Replay, record_header, record_trailer
from .response import Response
from .routed import Routed
from .router import ExplainedPair, Router, RouterLease, config_from_json, resolve

__version__ = "0.1.0"
__all__ = [
    "ABI_VERSION", "Act", "ActionType", "AgainError", "Api", "Apply", "ApplyReport", "Barred", "BlockBootError", "BlockConfigError",
    "BlockCorruptError", "BlockError", "BlockLayoutError", "BlockMagicError", "BlockState", "BusyError", "Candidate", "Claim", "Code", "Config",
    "Decision", "Done", "Endpoint", "EndpointFlag", "Engine", "Error", "EventType", "Exchange", "ExistsError", "ExpiredError", "ExplainedPair",
    "Fail", "FullError", "Head", "Hold", "Host", "HostFlag", "HostInfo", "HostLease", "InvalidError", "Job", "LOG_CANDIDATES", "LeaseError", "Leg", "Limits",
    "Load", "LoadField", "LogRecord", "MAX_ACTIONS", "MAX_EDITS", "MAX_SLICES", "Merge", "Mode", "NONE", "NoPairError", "NoSpaceError",
    "NotFoundError", "Origin", "Outcome", "ParseError", "Place", "Policy", "Probe", "ProbeEvent", "ProbeEventType", "ProbeFlag", "ProbeOptions", "ProbeStats",
    "Prompt", "PromptFlag", "QueueFullError", "Reason", "Recording", "Replay", "ReplayChoice", "ReplayFlag", "ReplayKind", "ReplayStep", "Report",
    "Request", "RequestFlag", "Response", "ResponseKind", "Role", "Routed", "Router", "RouterLease", "Scan", "Seen", "Slice", "Span", "State",
    "Stats", "SystemCallError", "TargetStatus", "TooDeepError", "TooLargeError", "UnsupportedError", "VersionError", "body_member", "boot", "config_from_json",
    "error_body", "error_event", "error_mask", "error_name", "error_status", "errors", "hash_tokens", "header_owned", "http_status",
    "init_struct", "limits_of",
    "merge_wanted", "now_ns", "reason_name", "reason_text", "record_header", "record_trailer", "resolve", "rewrite", "rewrite_pieces", "rewrite_slices",
    "rewrite_tail", "room", "scan", "seed", "strerror", "tenant_hash", "version", "version_number",
]
