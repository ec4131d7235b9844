"""What the HTTP front of the engine accepts: bodies in, `Call`s out, or the engine's own refusals.

Error bodies have the engine's four shapes:
  {"object":"error","message",…}   validation, and everything on the OpenAI paths
  {"error":{"message"}}            refusals by the tokenizer manager on /generate
  {"error":"text"}                 refusals by the typed decoder of /generate
  plain text                       unhandled exceptions (500), after which the engine closes the connection
"""

import json
import re
import sys
import uuid
from dataclasses import dataclass, field

from . import tokenizer

MAX_DEPTH = 1024
INT64_MIN, UINT64_MAX = -2**63, 2**64 - 1
BOOTSTRAP_FIELDS = ("bootstrap_host", "bootstrap_port", "bootstrap_room")
LINES = {"/generate": ("generate_request", 928), "/v1/chat/completions": ("openai_v1_chat_completions", 1870),
         "/v1/completions": ("openai_v1_completions", 1845)}
ROLES = ("system", "user", "assistant", "tool", "function", "developer", "latest_reminder")

sys.setrecursionlimit(max(sys.getrecursionlimit(), 4 * MAX_DEPTH))      # Python's JSON reader recurses


class Refused(Exception):
    """The request ends here with this status and body (an object is sent as JSON, a string as plain text)."""

    def __init__(self, status, body):
        super().__init__(status)
        self.status, self.body = status, body


class Crash(Exception):
    """Input that the scheduler does not survive."""


def openai_error(status, message, kind="BadRequestError"):
    return Refused(status, {"object": "error", "message": message, "type": kind, "param": None, "code": status})


def manager_error(message, status=400):
    return Refused(status, {"error": {"message": message}})


def decoder_error(message):
    return Refused(400, {"error": message})


def unhandled():
    return Refused(500, "Internal Server Error")


def validation_error(path, details):
    """pydantic's list of complaints, as FastAPI's handler in the engine prints it (input and source paths included)."""
    n = len(details)
    text = f"{n} validation error{'s' if n > 1 else ''}:\n" + "".join(f"  {d!r}\n" for d in details)
    if path in LINES:
        function, line = LINES[path]
        text += (f'\n  File "/sgl-workspace/sglang/python/sglang/srt/entrypoints/http_server.py", line {line}, in '
                 f"{function}\n    POST {path} {details!r}")
    else:
        text = text.rstrip("\n") + f" {details!r}"
    return Refused(400, {"object": "error", "message": text, "type": "Bad Request", "param": None, "code": 400})


@dataclass
class Prompt:
    tokens: bytes
    host: object
    port: object
    room: object
    max_new: object              # None: as much as the context holds
    natural: object              # length after which the model stops by itself, or None
    stops: tuple = ()


@dataclass
class Call:
    """One accepted request: its prompts and how its answer looks."""

    kind: str                    # generate, chat, completion
    rid: str
    prompts: list
    batch: bool
    stream: bool = False
    model: str = ""
    rank: object = None
    prefill_rank: object = None
    logprob: object = None
    echo: object = None          # texts to put before the answers
    usage: bool = False
    usage_every_chunk: bool = False
    n: int = 1
    rids: list = field(default_factory=list)


def _depth(text):
    """Deepest nesting of arrays and objects, strings left out."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


class _NotAllowed(ValueError):
    """Something that Python's reader takes and the engine's does not."""

    def __init__(self, text, why):
        super().__init__(text)
        self.why = why


def _no_constant(name):
    raise _NotAllowed(name, "unexpected character, expected a JSON value")


def _finite(digits):
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _NotAllowed(digits, "number is infinity when parsed as double")
    return value


def _reason(error, text):
    if error.msg.startswith("Invalid control character"):
        return "unexpected control character in string"
    if error.msg == "Extra data":
        return "unexpected content after document"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return "unexpected end of data"
    return "unexpected character, expected a JSON value"


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _lone_surrogate(value):
    if isinstance(value, str):
        return _SURROGATE.search(value) is not None
    if isinstance(value, dict):
        return any(_lone_surrogate(k) or _lone_surrogate(v) for k, v in value.items())
    if isinstance(value, list):
        return any(_lone_surrogate(v) for v in value)
    return False


def parse_json(path, body):
    """A body as the engine's JSON reader (orjson) takes it: strict, last of equal keys wins, at most 1,024 deep."""
    def invalid(position, why):
        return validation_error(path, [{"type": "json_invalid", "loc": ("body", position), "msg": "JSON decode error",
                                        "input": {}, "ctx": {"error": why}}])

    if not body:
        raise validation_error(path, [{"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}])
    if body.startswith(b"\xef\xbb\xbf"):
        raise invalid(0, "UTF-8 byte order mark (BOM) is not supported")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(0, "str is not valid UTF-8: surrogates not allowed") from None
    if (text.count("[") + text.count("{") > MAX_DEPTH) and _depth(text) > MAX_DEPTH:
        raise invalid(0, "depth limit exceeded")
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=_big_int, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise invalid(error.pos, _reason(error, text)) from None
    except _NotAllowed as error:
        raise invalid(max(0, text.find(str(error))), error.why) from None
    if "\\u" in text and _lone_surrogate(value):
        raise invalid(0, "no low surrogate in string")
    return value


def _big_int(digits):
    """Integers beyond 64 bits become floats, as in orjson."""
    value = int(digits) if len(digits) < 25 else None
    return value if value is not None and INT64_MIN <= value <= UINT64_MAX else float(digits)


def _complaint(kind, loc, msg, value):
    return {"type": kind, "loc": ("body", *loc), "msg": msg, "input": value}


# --- bootstrap fields -------------------------------------------------------------------------------------------------

def _strict_scalar(name, value):
    """/generate does not coerce. Raises what its two decoders raise, in their order."""
    path = "/generate"
    if name == "bootstrap_host":
        if not isinstance(value, str):
            raise validation_error(path, [
                _complaint("list_type", (name, "list[nullable[str]]"), "Input should be a valid list", value),
                _complaint("string_type", (name, "str"), "Input should be a valid string", value)])
        return
    if isinstance(value, int) and not isinstance(value, bool):
        return
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    if isinstance(value, (str, bool)) and _coerced(value) is not None or whole:
        shown = {str: f'string "{value}"', bool: f"boolean `{str(value).lower()}`"}.get(type(value), f"floating point `{value}`")
        raise decoder_error(f"invalid type: {shown}, expected a value or an array of values for OptionalInt64OrList")
    raise validation_error(path, [
        _complaint("list_type", (name, "list[nullable[int]]"), "Input should be a valid list", value),
        _complaint(*_int_complaint(name, value), value)])


def _coerced(value):
    """pydantic's lax integer, or None."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else None
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", value):
        return int(float(value)) if "." in value else int(value)
    return None


def _int_complaint(name, value):
    loc = (name, "int")
    if isinstance(value, float) and not value.is_integer():
        return "int_from_float", loc, "Input should be a valid integer, got a number with a fractional part"
    if isinstance(value, float):
        return "int_parsing_size", loc, "Unable to parse input string as an integer, exceeded maximum size"
    if isinstance(value, str):
        return "int_parsing", loc, "Input should be a valid integer, unable to parse string as an integer"
    return "int_type", loc, "Input should be a valid integer"


def bootstrap_values(path, obj):
    """{name: scalar, list or None}, checked and, on the OpenAI paths, coerced."""
    values = {}
    for name in BOOTSTRAP_FIELDS:
        value = obj.get(name)
        if value is None:
            values[name] = None
        elif path == "/generate":
            if isinstance(value, list):
                for item in value:
                    if item is not None and name != "bootstrap_host" and (isinstance(item, bool) or not isinstance(item, int)):
                        shown = f'string "{item}"' if isinstance(item, str) else repr(item)
                        raise decoder_error(f"invalid type: {shown}, expected i64")
            else:
                _strict_scalar(name, value)
            values[name] = value
        else:
            values[name] = _lax(path, name, value)
    return values


def _lax(path, name, value):
    items = value if isinstance(value, list) else [value]
    if name == "bootstrap_host":
        if not all(isinstance(item, str) or item is None for item in items):
            raise validation_error(path, [
                _complaint("list_type", (name, "list[str]"), "Input should be a valid list", value),
                _complaint("string_type", (name, "str"), "Input should be a valid string", value)])
        return value
    coerced = [None if item is None else _coerced(item) for item in items]
    if any(c is None and item is not None for c, item in zip(coerced, items)):
        raise validation_error(path, [
            _complaint("list_type", (name, "list[int]"), "Input should be a valid list", value),
            _complaint(*_int_complaint(name, value), value)])
    return coerced if isinstance(value, list) else coerced[0]


def spread(values, size, batch, default_port):
    """Bootstrap fields of each of `size` prompts: scalars are shared, a scalar room counts up, lists are taken in order.

    A list for a single prompt reaches the scheduler as it is, which dies of it; a list that is too short is an index
    error in the front (500); what is too much is ignored.
    """
    if not batch:
        if any(isinstance(v, list) for v in values.values()):
            raise Crash("a list for a single prompt")
    elif any(isinstance(v, list) and len(v) < size for v in values.values()):
        raise unhandled()
    host, port, room = (values[name] for name in BOOTSTRAP_FIELDS)
    rows = []
    for i in range(size):
        own_port = port[i] if isinstance(port, list) else port
        if isinstance(room, list):
            own_room = room[i]
        else:
            own_room = None if room is None else room + i
        rows.append((host[i] if isinstance(host, list) else host, default_port if own_port is None else own_port, own_room))
    return rows


# --- ranks and headers ------------------------------------------------------------------------------------------------

def ranks(obj, headers, openai, dp_size):
    """(routed rank, rank hint of the prefill), from body and header; a rank that does not exist is refused."""
    rank = obj.get("routed_dp_rank")
    if rank is None:
        rank = obj.get("data_parallel_rank")
    text = headers.get("X-Data-Parallel-Rank") if openai else None
    if text is not None:
        try:
            rank = int(text)
        except ValueError:
            raise openai_error(400, f"Invalid X-Data-Parallel-Rank header: must be an integer, got '{text}'", "400") from None
    if rank is not None and not 0 <= rank < dp_size:
        message = f"routed_dp_rank={rank} out of range [0, {dp_size})"
        raise openai_error(400, message) if openai else manager_error(message)
    return rank, obj.get("disagg_prefill_dp_rank")


def apply_header_overrides(obj, headers):
    """x-override-*: scalars that win over the body."""
    for header, name, is_int in (("rid", "rid", False), ("bootstrap-host", "bootstrap_host", False),
                                 ("bootstrap-port", "bootstrap_port", True), ("bootstrap-room", "bootstrap_room", True),
                                 ("routed-dp-rank", "routed_dp_rank", True), ("priority", "priority", True),
                                 ("disagg-prefill-dp-rank", "disagg_prefill_dp_rank", True)):
        text = headers.get(f"x-override-{header}")
        if text is None:
            continue
        if is_int:
            try:
                obj[name] = int(text)
            except ValueError as error:
                raise openai_error(400, f"invalid x-override-{header} header '{text}': {error}", "400") from None
        else:
            obj[name] = text


def check_content_type(path, headers):
    kind = headers.get("Content-Type", "").split(";")[0].strip().lower()
    if path != "/generate" and kind != "application/json":      # /generate takes such a body for bytes, see Reader.read
        detail = {"loc": ["header", "content-type"], "msg": "Unsupported Media Type: Only 'application/json' is allowed",
                  "type": "value_error"}
        text = f"1 validation error:\n  {detail!r} {[detail]!r}"
        raise Refused(400, {"object": "error", "message": text, "type": "Bad Request", "param": None, "code": 400})
    return kind


# --- the three request kinds ------------------------------------------------------------------------------------------

class Reader:
    """Turns bodies into calls for one worker."""

    def __init__(self, options, mode):
        self.options = options
        self.mode = mode

    def read(self, path, body, headers):
        kind = check_content_type(path, headers)
        obj = parse_json(path, body) if kind == "application/json" else body
        if path == "/generate":
            if not isinstance(obj, dict):
                raise validation_error(path, [{
                    "type": "dataclass_type", "loc": ("body",), "msg": "Input should be a dictionary or an instance of "
                    "GenerateReqInput", "input": obj, "ctx": {"class_name": "GenerateReqInput"}}])
            reader = self._generate
        else:
            if not isinstance(obj, dict):
                raise validation_error(path, [_complaint("model_attributes_type", (), "Input should be a valid dictionary or "
                                                         "object to extract fields from", obj)])
            reader = self._chat if path == "/v1/chat/completions" else self._completion
        if self.options.header_overrides:
            apply_header_overrides(obj, headers)
        values = bootstrap_values(path, obj)
        if self.mode == "unified":
            values = dict.fromkeys(values)
        rank, prefill_rank = ranks(obj, headers, path != "/generate", self.options.dp_size)
        call = reader(obj, values)
        call.rank, call.prefill_rank = rank, prefill_rank
        self._check_lengths(call, path)
        return call

    def _prompts(self, token_lists, values, batch, limits):
        rows = spread(values, len(token_lists), batch, self.options.default_bootstrap_port)
        return [Prompt(tokens, host, port, room, *limit)
                for tokens, (host, port, room), limit in zip(token_lists, rows, limits)]

    def _check_lengths(self, call, path):
        context = self.options.context
        for prompt in call.prompts:
            n = tokenizer.count(prompt.tokens)
            message = None
            if n >= context:
                message = f"The input ({n} tokens) is longer than the model's context length ({context} tokens)."
            elif prompt.max_new is not None and n + prompt.max_new > context:
                message = (f"Requested token count exceeds the model's maximum context length of {context} tokens. You "
                           f"requested a total of {n + prompt.max_new} tokens: {n} tokens from the input messages and "
                           f"{prompt.max_new} tokens for the completion. Please reduce the number of tokens in the input "
                           "messages or the completion to fit within the limit.")
            elif prompt.max_new is not None and prompt.max_new < 0:
                message = f"max_new_tokens must be at least 0, got {prompt.max_new}."
            if message:
                raise manager_error(message) if path == "/generate" else openai_error(400, message)
            if prompt.max_new is None:
                prompt.max_new = context - n - 1

    def _generate(self, obj, values):
        text, ids = obj.get("text"), obj.get("input_ids")
        if text is None and ids is None:
            raise manager_error("Either text, input_ids or input_embeds should be provided.")
        if ids is not None:
            token_lists, batch = self._ids(ids)
            if text is not None and isinstance(text, list) != batch:
                raise unhandled()
        elif isinstance(text, list):
            token_lists, batch = [tokenizer.encode(t) for t in self._texts(text)], True
        else:
            token_lists, batch = [tokenizer.encode(self._texts(text))], False
        params = obj.get("sampling_params") or {}
        each = params if isinstance(params, list) else [params] * len(token_lists)
        n = self._samples(each)
        for p in each:
            temperature = p.get("temperature")
            if isinstance(temperature, (int, float)) and temperature < 0:
                raise manager_error(f"temperature must be a non-negative finite number, got {temperature}.")
        limits = [(*self._limits(p, 128), self._stops(p)) for p in each]
        rids = obj.get("rid")
        return Call("generate", rids if isinstance(rids, str) else uuid.uuid4().hex,
                    self._prompts(token_lists, values, batch, limits), batch, bool(obj.get("stream")), n=n,
                    logprob=self._logprob(obj), rids=rids if isinstance(rids, list) else [])

    @staticmethod
    def _texts(text):
        """A string or a list of strings, or pydantic's complaint."""
        if isinstance(text, str):
            return text
        first = _complaint("string_type", ("text", "str"), "Input should be a valid string", text)
        if not isinstance(text, list):
            raise validation_error("/generate", [first, _complaint("list_type", ("text", "list[str]"),
                                                                   "Input should be a valid list", text)])
        bad = [_complaint("string_type", ("text", "list[str]", i), "Input should be a valid string", t)
               for i, t in enumerate(text) if not isinstance(t, str)]
        if bad:
            raise validation_error("/generate", [first, *bad])
        return text

    def _ids(self, ids):
        """(packed token lists, is it a batch) of input_ids or a token prompt."""
        nested = bool(ids) and isinstance(ids[0], list)
        lists = ids if nested else [ids]
        for row in lists:
            for item in row:
                if isinstance(item, bool) or not isinstance(item, (int, list)):
                    raise validation_error("/generate", [{
                        **_complaint("value_error", ("input_ids",), "Value error, elements must be int or list; got "
                                     f"{type(item).__name__}", ids),
                        "ctx": {"error": ValueError(f"elements must be int or list; got {type(item).__name__}")}}])
        if any(item < 0 or item >= self.options.vocabulary for row in lists for item in row if isinstance(item, int)):
            raise Crash("a token id out of the vocabulary")  # nothing checks it in front of the embedding (seen)
        return [tokenizer.from_ids(row) for row in lists], nested

    @staticmethod
    def _samples(each):
        samples = {p.get("n", 1) if isinstance(p, dict) else 1 for p in each}
        if not samples:
            return 1
        if len(samples) > 1 or None in samples:
            raise unhandled()
        return samples.pop()

    def _limits(self, params, default):
        """(max new tokens, natural length or None)."""
        limit = params.get("max_new_tokens", default)
        if limit is None:
            return None, self.options.natural_tokens
        return limit, None

    @staticmethod
    def _stops(params):
        stop = params.get("stop")
        return (stop,) if isinstance(stop, str) else tuple(stop or ())

    @staticmethod
    def _logprob(obj):
        if not obj.get("return_logprob"):
            return None
        start = obj.get("logprob_start_len")
        return {"start": -1 if start is None else start, "top": obj.get("top_logprobs_num") or 0,
                "ids": obj.get("token_ids_logprob"), "text": bool(obj.get("return_text_in_logprobs"))}

    def _openai_common(self, obj, path, field_name):
        if field_name not in obj:
            raise validation_error(path, [_complaint("missing", (field_name,), "Field required",
                                                     {**obj, "tool_choice": "none"} if field_name == "messages" else obj)])
        limit, name = None, None
        for key in ("max_completion_tokens", "max_tokens"):
            if obj.get(key) is not None:
                limit, name = _coerced(obj[key]), key
                break
        if name and limit is None:
            raise validation_error(path, [_complaint("int_parsing", (name,), "Input should be a valid integer, unable to "
                                                     "parse string as an integer", obj[name])])
        temperature = obj.get("temperature")
        if isinstance(temperature, (int, float)) and temperature < 0:
            raise openai_error(400, f"temperature must be a non-negative finite number, got {float(temperature)}.")
        options = obj.get("stream_options") or {}
        return limit, dict(stream=bool(obj.get("stream")), model=obj.get("model") or "default",
                           usage=bool(options.get("include_usage")),
                           usage_every_chunk=bool(options.get("continuous_usage_stats")), n=obj.get("n") or 1)

    def _chat(self, obj, values):
        path = "/v1/chat/completions"
        limit, common = self._openai_common(obj, path, "messages")
        messages = obj["messages"]
        if not isinstance(messages, list):
            raise validation_error(path, [_complaint("list_type", ("messages",), "Input should be a valid list", messages)])
        if not messages:
            raise openai_error(400, "Messages cannot be empty.")
        for i, message in enumerate(messages):
            if not isinstance(message, dict) or message.get("role") not in ROLES:
                raise validation_error(path, [_complaint("literal_error", ("messages", i, "role"), "Input should be a known "
                                                         "role", message)])
        natural = None
        if limit is None:
            natural = self.options.natural_tokens
        logprob = None
        if obj.get("logprobs"):
            logprob = {"start": -1, "top": obj.get("top_logprobs") or 0, "ids": None, "text": True}
        prompts = self._prompts([tokenizer.chat(messages)], values, False, [(limit, natural, self._stops(obj))])
        return Call("chat", self._rid(obj), prompts, False, logprob=logprob, **common)

    def _completion(self, obj, values):
        path = "/v1/completions"
        limit, common = self._openai_common(obj, path, "prompt")
        prompt = obj["prompt"]
        if prompt == []:
            raise openai_error(400, "Prompt cannot be empty")
        if isinstance(prompt, str):
            token_lists, batch = [tokenizer.encode(prompt)], False
        elif isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            token_lists, batch = [tokenizer.encode(p) for p in prompt], True
        elif isinstance(prompt, list):
            token_lists, batch = self._ids(prompt)
        else:
            raise validation_error(path, [_complaint("string_type", ("prompt", "str"), "Input should be a valid string", prompt)])
        limits = [(16 if limit is None else limit, None, self._stops(obj))] * len(token_lists)
        logprob = None
        if obj.get("logprobs") is not None:
            logprob = {"start": 0 if obj.get("echo") else -1, "top": obj["logprobs"], "ids": None, "text": True}
        prompts = self._prompts(token_lists, values, batch, limits)
        echo = [tokenizer.decode(t) for t in token_lists] if obj.get("echo") else None
        return Call("completion", self._rid(obj), prompts, batch, logprob=logprob, echo=echo, **common)

    @staticmethod
    def _rid(obj):
        return obj["rid"] if isinstance(obj.get("rid"), str) else uuid.uuid4().hex
