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
                   Code, Config, Decision, Done, Endpoint, EndpointFlag, Engine, EventType, Fail, Hold, HostFlag, HostInfo, Job, Leg, Limits, Load, LoadField,
                   LogRecord, Mode, Origin, Outcome, Policy, ProbeEvent, ProbeEventType, ProbeFlag, ProbeOptions, ProbeStats, Prompt, PromptFlag, Reason,
                   Report, Request, RequestFlag, ResponseKind, Role, Seen, Slice, Span, State, Stats, TargetStatus)
from .errors import (AgainError, BlockBootError, BlockConfigError, BlockCorruptError, BlockError, BlockLayoutError, BlockMagicError, BusyError, Error,
                     ExistsError, ExpiredError, FullError, InvalidError, LeaseError, NoPairError, NoSpaceError, NotFoundError, ParseError, QueueFullError,
                     SystemCallError, TooDeepError, TooLargeError, UnsupportedError, VersionError, http_status, strerror)
from .exchange import Act, Exchange, error_body, reason_name
from .host import Claim, Host, HostLease, Probe, boot, init_struct, now_ns, seed, version, version_number
from .prompt import (Scan, hash_tokens, header_owned, limits_of, rewrite, rewrite_pieces, rewrite_slices, rewrite_tail, room, scan)
from .response import Response
from .routed import Routed
from .router import ExplainedPair, Router, RouterLease, config_from_json, resolve

__version__ = "0.1.0"
__all__ = [name for name in dir() if not name.startswith("_")]
