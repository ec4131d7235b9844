"""
What the openai SDK returns and raises: the same through a gateway as from the server itself.

Two tokens are eight letters, which stand for the prompt; further ones name the servers that wrote them, so that only the first two are compared.
"""

import asyncio
import json
import time

import openai
import pytest

try:
    import httpx2 as http  # what newer versions of the SDK are built on
except ImportError:
    import httpx as http
from sglang_sim.harness import wait_for

MESSAGES = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "你好 — what is 2 + 2? 🙂"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 2}
COMPLETION = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 2}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather of a town", "parameters": {
    "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}}}]
VARY = {"id", "created", "request_id", "_request_id", "system_fingerprint", "metadata"}


def sdk(target, **options):
    return openai.OpenAI(base_url=target.url + "/v1", api_key="k", **{"max_retries": 0, "timeout": 20, **options})


def plain(value):
    """Without what differs from request to request."""
    if hasattr(value, "model_dump"):
        value = value.model_dump()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in VARY}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def error_of(error):
    return type(error).__name__, error.status_code, error.body if isinstance(error.body, dict) else None


def test_chat(target, same):
    answer = sdk(target).chat.completions.create(**CHAT)
    assert len(answer.choices[0].message.content) == 8 and answer.usage.completion_tokens == 2
    same(plain(answer))


def test_chat_long(target, same):
    answer = sdk(target).chat.completions.create(**{**CHAT, "max_tokens": 64, "temperature": 0.7, "seed": 5, "stop": ["\0never"]})
    text = answer.choices[0].message.content
    assert len(text) > 100
    same((text[:8], answer.choices[0].finish_reason, plain(answer.usage)))


def test_chat_stream(target, same):
    chunks = list(sdk(target).chat.completions.create(**CHAT, stream=True))
    assert len("".join(c.choices[0].delta.content or "" for c in chunks)) == 8 and chunks[-1].choices[0].finish_reason == "length"
    assert all(c.usage is None for c in chunks)
    same(plain(chunks))


def test_stream_with_usage(target, same):
    chunks = list(sdk(target).chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 2 and chunks[-1].usage.prompt_tokens > 5
    same(plain(chunks))


def test_stream_helper(target, same):
    """The accumulating helper: its events, its final message."""
    kinds = []
    with pytest.raises(openai.LengthFinishReasonError) as caught:
        with sdk(target).chat.completions.stream(**CHAT) as stream:
            for event in stream:
                kinds.append(event.type)
            stream.get_final_completion()
    same((kinds, plain(caught.value.completion)))


def test_leaving_a_stream(target):
    """close() in the middle: the server is told."""
    target.fault(kind="slow", factor=20)
    stream = sdk(target).chat.completions.create(**{**CHAT, "max_tokens": 4000}, stream=True)
    for _, _chunk in zip(range(3), stream):
        pass
    stream.close()
    assert wait_for(lambda: all(r.end or r.disconnected for w in target.fleet.workers for r in w.requests()), timeout=10)


def test_completion(target, same):
    same(plain(sdk(target).completions.create(**COMPLETION)))


def test_completion_stream(target, same):
    same(plain(list(sdk(target).completions.create(**COMPLETION, stream=True, stream_options={"include_usage": True}))))


def test_completion_batch(target, same):
    answer = sdk(target).completions.create(**{**COMPLETION, "prompt": ["one", "two", "three"]})
    assert [c.index for c in answer.choices] == [0, 1, 2] and len({c.text for c in answer.choices}) == 3
    same(plain(answer))


def test_completion_of_tokens(target, same):
    same(plain(sdk(target).completions.create(**{**COMPLETION, "prompt": [5, 6, 7, 8]})))


def test_logprobs(target, same):
    answer = sdk(target).chat.completions.create(**CHAT, logprobs=True, top_logprobs=3)
    assert len(answer.choices[0].logprobs.content) == 2 and len(answer.choices[0].logprobs.content[0].top_logprobs) == 3
    same(plain(answer))


def test_logprobs_stream(target, same):
    same(plain(list(sdk(target).chat.completions.create(**CHAT, logprobs=True, top_logprobs=2, stream=True))))


def test_completion_logprobs(target, same):
    same(plain(sdk(target).completions.create(**COMPLETION, logprobs=2)))


def test_completion_echo_logprobs(target, same):
    """Logprobs of the prompt: prefill's, in one answer with decode's."""
    answer = sdk(target).completions.create(**COMPLETION, logprobs=1, echo=True)
    assert len(answer.choices[0].logprobs.token_logprobs) > 2
    same(plain(answer))


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Zürich"}'}}


def test_tools(target, same):
    target.fault(kind="status", status=200, body={"id": "x", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
    answer = sdk(target).chat.completions.create(**CHAT, tools=TOOLS, tool_choice="auto", parallel_tool_calls=False)
    assert json.loads(answer.choices[0].message.tool_calls[0].function.arguments) == {"town": "Zürich"}
    for worker in target.fleet.workers:
        assert all(r.json["tools"] == TOOLS for r in worker.requests("/v1/chat/completions"))
    same(plain(answer))


def test_tools_stream(target, same):
    deltas = [{"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
              {"tool_calls": [{"index": 0, "function": {"arguments": '{"town":'}}]}, {"tool_calls": [{"index": 0, "function": {"arguments": ' "Zürich"}'}}]}, {}]
    events = [{"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": [
        {"index": 0, "delta": d, "finish_reason": None if d else "tool_calls"}]} for d in deltas]
    text = "".join(f"data: {json.dumps(e, ensure_ascii=False)}\n\n" for e in events) + "data: [DONE]\n\n"
    target.fault(kind="status", status=200, body=text, content_type="text/event-stream")
    with sdk(target).chat.completions.stream(**CHAT, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"town": "Zürich"}
    same((kinds, plain(final)))


def test_a_turn_with_tool_results(target, same):
    turns = MESSAGES + [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]
    same(plain(sdk(target).chat.completions.create(**{**CHAT, "messages": turns}, tools=TOOLS)))


def test_image_parts(target, same):
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]
    try:
        result = plain(sdk(target).chat.completions.create(**{**CHAT, "messages": [{"role": "user", "content": parts}]}))
    except openai.APIStatusError as error:
        result = error_of(error)
    same(result)


def test_models(target, same):
    same([plain(m) for m in sdk(target).models.list().data])


def test_extra_headers_and_body(target, same):
    answer = sdk(target).chat.completions.create(**CHAT, extra_headers={"X-Request-Id": "abc"}, extra_body={"top_k": 5}, user="somebody")
    for worker in target.fleet.workers:
        for received in worker.requests("/v1/chat/completions"):
            assert received.header("x-request-id") == "abc" and received.json["top_k"] == 5 and received.header("authorization") == "Bearer k"
    same(plain(answer))


def test_with_raw_response(target):
    raw = sdk(target).chat.completions.with_raw_response.create(**CHAT)
    assert raw.http_response.status_code == 200 and raw.headers["content-type"] == "application/json" and raw.parse().choices


# ---- errors

@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429])
def test_refusals(status, target, request):
    """A server's 4xx raises the SDK's exception for it, with the server's body."""
    said = {"error": {"message": "not today", "type": "BadRequestError", "param": None, "code": status}}
    target.fault(kind="status", status=status, body=said, retry_after=1 if status == 429 else None)
    with pytest.raises(openai.APIStatusError) as caught:
        sdk(target).chat.completions.create(**CHAT)
    expected = {400: openai.BadRequestError, 401: openai.AuthenticationError, 403: openai.PermissionDeniedError, 404: openai.NotFoundError,
                422: openai.UnprocessableEntityError, 429: openai.RateLimitError}[status]
    assert type(caught.value) is expected and caught.value.status_code == status and caught.value.body == said["error"]
    assert caught.value.response.headers.get("retry-after") == ("1" if status == 429 else None)


@pytest.mark.parametrize("status", [500, 503])
def test_failures(status, target):
    """All servers fail: InternalServerError in any case. The gateway has tried others, and says 502 in words of its own."""
    target.fault(kind="status", status=status)
    with pytest.raises(openai.InternalServerError) as caught:
        sdk(target).chat.completions.create(**CHAT)
    assert caught.value.status_code == status or target.name != "direct" and caught.value.status_code == 502 and caught.value.body["code"].endswith("_failed")


def test_malformed(target):
    """The same class of error; the words are the gateway's, which says where."""
    with pytest.raises(openai.BadRequestError) as caught:
        sdk(target).post("/chat/completions", cast_to=object, content=b'{"model": "tiny", "messages": [', options={"headers": {"Content-Type": "application/json"}})
    assert caught.value.status_code == 400
    if target.name != "direct":
        assert caught.value.body["code"] == "bad_request" and "byte offset" in caught.value.body["message"]


def test_unknown_path(target, same):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk(target).post("/no/such/path", cast_to=object, body={})
    same(error_of(caught.value)[:2])


# ---- timeouts and retries

def test_timeout(target):
    """The SDK gives up, and every server is told."""
    target.fault(kind="hang")
    began = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        sdk(target, timeout=0.7).chat.completions.create(**CHAT)
    assert time.monotonic() - began < 3
    assert wait_for(lambda: all(r.end or r.disconnected for w in target.fleet.workers for r in w.requests()), timeout=5)


def test_retry_after_429(target, same):
    """The SDK's own retries: a refusal, then the answer."""
    for worker in target.fleet.workers:
        if worker.role != "prefill":
            worker.fault(kind="status", status=429, retry_after=0, count=1, body={"error": {"message": "busy"}})
    same(plain(sdk(target, max_retries=4).chat.completions.create(**CHAT)))


def test_retry_after_500(target, same):
    """One failure: the server's client retries, the gateway's need not."""
    (target.fleet.decodes or target.fleet.workers)[0].fault(kind="status", status=500, count=1)
    same(plain(sdk(target, max_retries=2).chat.completions.create(**CHAT)))


def test_broken_stream(target):
    """A server that dies within a stream: an exception, not a short answer."""
    target.fault(kind="cut", events=1)
    with pytest.raises((openai.APIError, http.HTTPError)):
        list(sdk(target).chat.completions.create(**{**CHAT, "max_tokens": 50}, stream=True))


# ---- async

def test_async(target, same):
    async def run():
        async with openai.AsyncOpenAI(base_url=target.url + "/v1", api_key="k", max_retries=0, timeout=20) as client:
            answers = await asyncio.gather(*(client.chat.completions.create(**{**CHAT, "messages": [{"role": "user", "content": f"number {i}"}]}) for i in range(8)))
            chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
        return plain(answers), plain(chunks)

    answers, chunks = asyncio.run(run())
    assert len({a["choices"][0]["message"]["content"] for a in answers}) == 8, "somebody got another's answer"
    for answer in answers:
        del answer["usage"]["prompt_tokens_details"]  # cached tokens depend on who came first
    same((answers, chunks))


def test_async_cancelled(target):
    target.fault(kind="hang")

    async def run():
        async with openai.AsyncOpenAI(base_url=target.url + "/v1", api_key="k", max_retries=0) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.chat.completions.create(**CHAT), 0.5)

    asyncio.run(run())
    assert wait_for(lambda: all(r.end or r.disconnected for w in target.fleet.workers for r in w.requests()), timeout=5)


# ---- several samples

def test_samples(single, same):
    """n = 2 works where one server does all."""
    answer = sdk(single).chat.completions.create(**CHAT, n=2)
    assert [c.index for c in answer.choices] == [0, 1]
    same(plain(answer))


def test_samples_of_pairs(target):
    """Pairs of servers cannot: n > 1 ends SGLang's schedulers. Refused before it gets there."""
    if target.name == "direct":
        assert len(sdk(target).chat.completions.create(**CHAT, n=2).choices) == 2
        return
    with pytest.raises(openai.BadRequestError) as caught:
        sdk(target).chat.completions.create(**CHAT, n=2)
    assert "n" in caught.value.body["message"] and caught.value.body["code"] == "bad_request"
    assert not [r for w in target.fleet.workers for r in w.requests("/v1/chat/completions")]
