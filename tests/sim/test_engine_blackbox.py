"""What an SGLang prefill/decode pair does, row by row, seen from outside.

Runs against the simulator; with SGLANG_PREFILL=http://127.0.0.1:31001 SGLANG_DECODE=http://127.0.0.1:31002
SGLANG_BOOTSTRAP=8998 against a real pair (started with SGLANG_ENABLE_REQUEST_HEADER_OVERRIDES=1), which is how the
simulator's behaviour is checked. What kills a real server runs there only with --allow-crash.
"""

import asyncio
import gzip
import json
import re
import time

import pytest

from engine_pair import connect

META = ["id", "finish_reason", "prompt_tokens", "weight_version", "num_retractions"]
META_PREFILL = META + ["storage_prefetch_wait", "storage_staging_wait", "forward_entry_time", "prefill_finished_time", "queue_time"]
META_DECODE = META + ["forward_entry_time", "queue_time"]
META_COUNTS = ["reasoning_tokens", "completion_tokens", "cached_tokens", "weight_versions", "cached_tokens_details", "dp_rank"]
META_END = ["e2e_latency", "request_received_ts", "first_token_latency", "api_server_dispatch_finish_ts", "request_finished_ts",
            "response_sent_to_client_ts"]
LOGPROBS = ["input_token_logprobs", "output_token_logprobs", "output_token_logprobs_length", "input_top_logprobs",
            "output_top_logprobs", "input_token_ids_logprobs", "output_token_ids_logprobs"]


@pytest.fixture(scope="module")
def pair():
    pair, stop = connect()
    assert pair.alive()
    yield pair
    stop()


@pytest.fixture
def timed_pair():
    """A pair whose forward passes take time."""
    pair, stop = connect(speed=1.0)
    assert pair.alive()
    yield pair
    stop()


@pytest.fixture
def ranks_pair():
    """A pair whose prefill server has two data parallel ranks: simulated, or a real one that was started so (PREFILL_ARGS="--dp-size 2")."""
    pair, stop = connect(timers=0.02, dp_size=2)
    if pair.get("prefill", "/server_info").json["dp_size"] != 2:
        stop()
        pytest.skip("the real prefill server has one data parallel rank; PREFILL_ARGS='--dp-size 2'")
    yield pair
    stop()


@pytest.fixture
def crash_pair(request):
    """A pair of its own, which the test may kill."""
    pair, stop = connect(timers=0.02, **getattr(request, "param", {}))
    if pair.real and not request.config.getoption("--allow-crash", False):
        pytest.skip("kills a real server; --allow-crash")
    assert pair.alive()
    yield pair
    stop()


async def until(client, leg, condition):
    """Waits until the worker's loads are so."""
    end = time.monotonic() + 30
    while not condition(load := (await client.send("GET", getattr(client.pair, leg) + "/v1/loads", None)).json["loads"][0]):
        assert time.monotonic() < end, load
        await asyncio.sleep(0.02)


async def arrived(client, leg, n=1):
    """Waits until that many requests wait for their other leg there."""
    await until(client, leg, lambda load: load["disaggregation"]["prefill_bootstrap_queue_reqs" if leg == "prefill" else "decode_transfer_queue_reqs"] == n)


def ok(*answers):
    assert [a.status for a in answers] == [200] * len(answers), [(a.status, a.body[:300], a.error) for a in answers]


def openai_error(answer, status, message):
    assert answer.status == status
    body = answer.json
    assert list(body) == ["object", "message", "type", "param", "code"] and body["object"] == "error" and body["code"] == status
    assert re.search(message, body["message"], re.S), body["message"]


# --- answers -----------------------------------------------------------------------------------------------------------

def test_generate(pair):
    p, d = pair.both("/generate", pair.generate(6))
    ok(p, d)
    assert list(p.json) == list(d.json) == ["text", "output_ids", "meta_info"]
    assert sorted(p.json["meta_info"]) == sorted(META_PREFILL + META_COUNTS + META_END)
    assert set(d.json["meta_info"]) - {"decode_throughput"} == set(META_DECODE + META_COUNTS + META_END)
    # The prefill answers with the first token only, which is the decode's first too.
    assert len(p.json["output_ids"]) == 1 and len(d.json["output_ids"]) == 6 and p.json["output_ids"][0] == d.json["output_ids"][0]
    assert p.json["meta_info"]["finish_reason"] == {"type": "length", "length": 0}
    assert d.json["meta_info"]["finish_reason"] == {"type": "length", "length": 6}
    assert p.json["meta_info"]["completion_tokens"] == 1 and d.json["meta_info"]["completion_tokens"] == 6
    assert d.json["meta_info"]["weight_versions"] == [{"version": "default", "start": 0, "end": 6}]
    assert p.json["meta_info"]["prompt_tokens"] == d.json["meta_info"]["prompt_tokens"] > 1
    for answer in (p, d):
        headers = {k.lower(): v for k, v in answer.headers.items()}
        assert headers["server"] == "uvicorn" and headers["vary"] == "Origin" and headers["content-type"] == "application/json"
        assert set(headers) == {"date", "server", "vary", "content-type", "content-length"}


def test_generate_stream(pair):
    p, d = pair.both("/generate", pair.generate(5, stream=True))
    ok(p, d)
    assert d.headers.get("Content-Type", d.headers.get("content-type")) == "text/event-stream; charset=utf-8"
    assert p.events[-1] == d.events[-1] == "[DONE]" and len(p.events) == 2
    chunks = d.events[:-1]
    # Text and ids are cumulative.
    for before, after in zip(chunks, chunks[1:]):
        assert after["output_ids"][:len(before["output_ids"])] == before["output_ids"]
    assert all(c["meta_info"]["finish_reason"] is None for c in chunks[:-1])
    assert "weight_versions" not in chunks[0]["meta_info"] and "e2e_latency" not in chunks[0]["meta_info"]
    assert chunks[-1]["meta_info"]["finish_reason"]["type"] == "length" and len(chunks[-1]["output_ids"]) == 5
    assert p.events[0]["meta_info"]["finish_reason"] == {"type": "length", "length": 0}


def test_chat(pair):
    p, d = pair.both("/v1/chat/completions", pair.chat(6))
    ok(p, d)
    for answer, tokens in ((p, 1), (d, 6)):
        body = answer.json
        assert list(body) == ["id", "object", "created", "model", "choices", "usage", "metadata"]
        assert body["object"] == "chat.completion" and body["model"] == "tiny" and len(body["choices"]) == 1
        choice = body["choices"][0]
        assert list(choice) == ["index", "message", "logprobs", "finish_reason", "matched_stop"]
        assert list(choice["message"]) == ["role", "content", "reasoning_content"] and choice["finish_reason"] == "length"
        usage = body["usage"]
        assert list(usage) == ["prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "reasoning_tokens",
                               "completion_tokens_details"]
        assert usage["completion_tokens"] == tokens and usage["total_tokens"] == usage["prompt_tokens"] + tokens
        assert body["metadata"]["weight_versions"] == [{"version": "default", "start": 0, "end": tokens}]


def test_chat_stream(pair):
    p, d = pair.both("/v1/chat/completions", pair.chat(6, stream=True, stream_options={"include_usage": True}))
    ok(p, d)
    for answer, tokens in ((p, 1), (d, 6)):
        *chunks, usage, done = answer.events
        assert done == "[DONE]" and usage["choices"] == [] and usage["usage"]["completion_tokens"] == tokens
        assert chunks[0]["choices"][0]["delta"] == {"reasoning_content": None, "role": "assistant", "content": ""}
        assert list(chunks[0]) == ["id", "object", "created", "model", "choices"]
        assert chunks[-1]["choices"][0]["delta"] == {"reasoning_content": None}
        assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["length"]
        assert {c["object"] for c in chunks} == {"chat.completion.chunk"} and len({c["id"] for c in chunks}) == 1


def test_completion(pair):
    p, d = pair.both("/v1/completions", pair.completion(4, prompt=[5, 6, 7]))
    ok(p, d)
    assert list(d.json) == ["id", "object", "created", "model", "choices", "usage", "metadata"]
    assert list(d.json["choices"][0]) == ["index", "text", "logprobs", "finish_reason", "matched_stop"]
    assert d.json["object"] == "text_completion" and d.json["usage"]["prompt_tokens"] == 3
    assert d.json["usage"]["completion_tokens"] == 4 and p.json["usage"]["completion_tokens"] == 1


def test_completion_stream(pair):
    p, d = pair.both("/v1/completions", pair.completion(3, prompt=["a", "b"], stream=True, stream_options={"include_usage": True}))
    ok(p, d)
    *chunks, usage, done = d.events
    assert done == "[DONE]" and usage["usage"]["completion_tokens"] == 6
    assert "completion_tokens_details" not in usage["usage"]
    assert all(c["usage"] is None for c in chunks)
    for index in (0, 1):
        own = [c for c in chunks if c["choices"][0]["index"] == index]
        assert [c["choices"][0]["finish_reason"] for c in own] == [None] * (len(own) - 1) + ["length"]
        assert len({c["id"] for c in own}) == 1
    assert len({c["id"] for c in chunks}) == 2


def test_a_body_without_limit_stops_at_128_tokens(pair):
    body = pair.generate()
    body["sampling_params"] = {"temperature": 0, "ignore_eos": True}
    p, d = pair.both("/generate", body)
    ok(p, d)
    assert d.json["meta_info"]["completion_tokens"] == 128
    body = pair.completion()
    del body["max_tokens"]
    assert pair.both("/v1/completions", body)[1].json["usage"]["completion_tokens"] == 16


def test_no_new_tokens(pair):
    p, d = pair.both("/generate", pair.generate(0))
    ok(p, d)
    assert p.json["meta_info"]["completion_tokens"] == 1 and d.json["meta_info"]["completion_tokens"] == 0
    assert pair.each("/generate", pair.generate(-1))[1].json == {"error": {"message": "max_new_tokens must be at least 0, got -1."}}


def test_cached_tokens_are_reported_on_both_legs(pair):
    text = f"a prompt that nobody has sent before {pair.room()} " * 3
    first = pair.both("/generate", pair.generate(1, text=text))
    again = pair.both("/generate", pair.generate(1, text=text))
    ok(*first, *again)
    for answer in again:
        meta = answer.json["meta_info"]
        assert meta["cached_tokens"] == meta["prompt_tokens"] - 1
        assert meta["cached_tokens_details"] == {"device": meta["cached_tokens"], "host": 0}
    assert all(a.json["meta_info"]["cached_tokens"] < a.json["meta_info"]["prompt_tokens"] // 2 for a in first)
    chat = pair.chat(1, messages=[{"role": "user", "content": text}])
    pair.both("/v1/chat/completions", chat)
    p, d = pair.both("/v1/chat/completions", {**chat, "bootstrap_room": pair.room()})
    for usage in (p.json["usage"], d.json["usage"]):
        assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


def test_a_cached_prompt_is_computed_again_for_its_logprobs(pair):
    body = pair.generate(2)
    ok(*pair.both("/generate", body))
    p, d = pair.both("/generate", {**body, "bootstrap_room": pair.room(), "return_logprob": True, "logprob_start_len": 0,
                                   "top_logprobs_num": 2, "token_ids_logprob": [5, 6]})
    ok(p, d)
    n = p.json["meta_info"]["prompt_tokens"]
    assert p.json["meta_info"]["cached_tokens"] == d.json["meta_info"]["cached_tokens"] == 0
    assert set(LOGPROBS) <= set(p.json["meta_info"]) and set(LOGPROBS) <= set(d.json["meta_info"])
    meta = p.json["meta_info"]
    # The prompt's are on the prefill only, and the first is null.
    assert len(meta["input_token_logprobs"]) == len(meta["input_top_logprobs"]) == len(meta["input_token_ids_logprobs"]) == n
    assert meta["input_token_logprobs"][0][0] is None and meta["input_top_logprobs"][0] is None
    assert len(meta["input_top_logprobs"][1]) == 2 and len(meta["output_token_logprobs"]) == 1
    meta = d.json["meta_info"]
    assert meta["input_token_logprobs"] == meta["input_top_logprobs"] == meta["input_token_ids_logprobs"] == []
    assert len(meta["output_token_logprobs"]) == 2 and meta["output_token_ids_logprobs"][0] is None
    assert meta["output_token_logprobs"][0] == p.json["meta_info"]["output_token_logprobs"][0]


def test_output_logprobs_alone(pair):
    p, d = pair.both("/generate", pair.generate(2, return_logprob=True))
    ok(p, d)
    assert p.json["meta_info"]["input_token_logprobs"] == [] and len(p.json["meta_info"]["output_token_logprobs"]) == 1
    assert "input_top_logprobs" not in p.json["meta_info"]


def test_chat_and_completion_logprobs(pair):
    p, d = pair.both("/v1/chat/completions", pair.chat(2, logprobs=True, top_logprobs=2))
    ok(p, d)
    content = d.json["choices"][0]["logprobs"]["content"]
    assert len(content) == 2 and list(content[0]) == ["token", "bytes", "logprob", "top_logprobs"]
    assert len(content[0]["top_logprobs"]) == 2
    p, d = pair.both("/v1/completions", pair.completion(3, prompt="the quick brown", echo=True, logprobs=1))
    ok(p, d)
    n = p.json["usage"]["prompt_tokens"]
    # Echo with logprobs: the prompt's part is on the prefill only.
    assert len(p.json["choices"][0]["logprobs"]["tokens"]) == n + 1 and len(d.json["choices"][0]["logprobs"]["tokens"]) == 3
    assert p.json["choices"][0]["logprobs"]["token_logprobs"][0] is None
    assert p.json["choices"][0]["text"].startswith("the quick brown") and d.json["choices"][0]["text"].startswith("the quick brown")


# --- rooms and batches -------------------------------------------------------------------------------------------------

def test_the_largest_room(pair):
    ok(*pair.both("/generate", {**pair.generate(1), "bootstrap_room": 2**63 - 1}))


def test_rooms_that_do_not_fit_in_64_bits_are_refused(pair):
    for path, body in (("/generate", pair.generate()), ("/v1/chat/completions", pair.chat()), ("/v1/completions", pair.completion())):
        for answer in pair.each(path, {**body, "bootstrap_room": 2**64}):
            openai_error(answer, 400, "2 validation errors.*exceeded maximum size")


def test_a_negative_room_breaks_the_decode_leg(pair):
    p, d = pair.both("/generate", {**pair.generate(1), "bootstrap_room": -5})
    ok(p)
    openai_error(d, 500, "Metadata corruption detected - bootstrap_room mismatch")


def test_room_0_leaves_decode_waiting(pair):
    async def run(client):
        body = {**pair.generate(1), "bootstrap_room": 0}
        return await asyncio.gather(client.prefill("/generate", body), client.decode("/generate", body, timeout=4))
    p, d = pair.script(run)
    ok(p)
    assert d.status is None
    assert pair.alive()


@pytest.mark.parametrize("room, shown", [("17", 'string "17"'), (17.0, "floating point `17.0`"), (True, "boolean `true`")])
def test_generate_does_not_coerce_rooms(pair, room, shown):
    for answer in pair.each("/generate", {**pair.generate(), "bootstrap_room": room}):
        assert answer.status == 400
        assert answer.json == {"error": f"invalid type: {shown}, expected a value or an array of values for OptionalInt64OrList"}


def test_openai_paths_coerce_rooms_and_ports(pair):
    for room in (str(pair.room()), float(2**40 + pair.room() % 2**40), True):
        ok(*pair.both("/v1/chat/completions", {**pair.chat(1), "bootstrap_room": room}))
    ok(*pair.both("/v1/completions", {**pair.completion(1), "bootstrap_port": str(pair.bootstrap_port)}))


@pytest.mark.parametrize("room, reason", [(17.5, "fractional part"), ({}, "Input should be a valid integer"), ("abc", "unable to parse")])
def test_rooms_of_other_types(pair, room, reason):
    for path, body in (("/generate", pair.generate()), ("/v1/chat/completions", pair.chat()), ("/v1/completions", pair.completion())):
        for answer in pair.each(path, {**body, "bootstrap_room": room}):
            openai_error(answer, 400, f"2 validation errors.*{reason}")


def batch_forms(pair):
    rooms = [pair.room(), pair.room()]
    host, port = pair.bootstrap_host, pair.bootstrap_port
    return {"scalars": (host, port, rooms[0]), "lists": ([host] * 2, [port] * 2, rooms), "room list": (host, port, rooms),
            "longer lists": ([host] * 3, port, rooms + [pair.room()])}


@pytest.mark.parametrize("form", ["scalars", "lists", "room list", "longer lists"])
def test_batches(pair, form):
    host, port, room = batch_forms(pair)[form]
    fields = {"bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": room}
    p, d = pair.both("/generate", {**pair.generate(2, text=["a b c", "the quick"]), **fields})
    ok(p, d)
    assert [len(x["output_ids"]) for x in p.json] == [1, 1] and [len(x["output_ids"]) for x in d.json] == [2, 2]
    host, port, room = batch_forms(pair)[form]
    fields = {"bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": room}
    p, d = pair.both("/v1/completions", {**pair.completion(2, prompt=["a b c", "the quick"]), **fields})
    ok(p, d)
    assert [c["index"] for c in d.json["choices"]] == [0, 1] and d.json["usage"]["completion_tokens"] == 4


def test_batches_of_token_ids(pair):
    p, d = pair.both("/generate", {**pair.generate(2), "text": None, "input_ids": [[5, 6, 7], [8, 9]],
                                   "bootstrap_room": [pair.room(), pair.room()]})
    ok(p, d)
    assert [x["meta_info"]["prompt_tokens"] for x in d.json] == [3, 2]


def test_a_batch_of_one_takes_scalars(pair):
    p, d = pair.both("/generate", pair.generate(1, text=["hello"]))
    ok(p, d)
    assert isinstance(p.json, list) and isinstance(d.json, list)
    p, d = pair.both("/v1/completions", pair.completion(1, prompt=["hello"]))
    ok(p, d)


def test_a_batch_stream_numbers_its_prompts(pair):
    p, d = pair.both("/generate", pair.generate(2, text=["a b c", "the quick"], stream=True))
    ok(p, d)
    assert {e["index"] for e in d.events[:-1]} == {0, 1} and {e["index"] for e in p.events[:-1]} == {0, 1}
    assert d.events[-1] == "[DONE]"


def test_lists_shorter_than_the_batch(pair):
    body = {**pair.generate(1, text=["a", "b"]), "bootstrap_room": [pair.room()]}
    for answer in pair.each("/generate", body):
        assert answer.status == 500 and answer.text == "Internal Server Error"


def test_after_a_plain_500_the_connection_is_closed_without_notice(pair):
    body = json.dumps({**pair.generate(1, text=["a", "b"]), "bootstrap_room": [pair.room()]}).encode()

    async def run(url):
        host, port = url.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = await asyncio.wait_for(reader.read(), 3)
        writer.close()
        return answer

    for url in (pair.prefill, pair.decode):
        answer = asyncio.run(run(url))
        assert answer.startswith(b"HTTP/1.1 500 ") and answer.endswith(b"\r\n\r\nInternal Server Error")
        assert b"connection:" not in answer.lower()


def test_a_null_port_means_the_workers_own(pair):
    if pair.bootstrap_port != 8998:
        pytest.skip("covered by test_sim_fleet.py: this pair's bootstrap port is not the default")
    ok(*pair.both("/generate", {**pair.generate(1), "bootstrap_port": None}))


def test_no_room(pair):
    message = "Invalid request: Disaggregated request received without bootstrap room id"
    body = pair.generate()
    del body["bootstrap_room"]
    for answer in pair.each("/generate", body):
        assert answer.status == 400 and answer.json["error"]["message"].startswith(message) and list(answer.json) == ["error"]
    for answer in pair.each("/generate", {**body, "stream": True}):
        ok(answer)
        reason = answer.events[0]["meta_info"]["finish_reason"]
        assert reason["type"] == "abort" and reason["status_code"] == 400 and reason["message"].startswith(message)
        assert reason["err_type"] is None and answer.events[1] == "[DONE]"
    chat = pair.chat()
    del chat["bootstrap_room"]
    for answer in pair.each("/v1/chat/completions", chat):
        openai_error(answer, 400, message)
        assert answer.json["type"] == "BadRequestError"
    for answer in pair.each("/v1/chat/completions", {**chat, "stream": True}):
        ok(answer)
        error = answer.events[0]["error"]
        assert error["type"] == "BAD_REQUEST" and error["code"] == 400 and error["message"].startswith(message)
        assert answer.events[1] == "[DONE]"


def test_the_same_room_twice_in_a_batch(pair):
    room = pair.room()

    async def run(client):
        body = {**pair.generate(1, text=["a b", "c d"]), "bootstrap_room": [room, room]}
        return await asyncio.gather(client.prefill("/generate", body), client.decode("/generate", body, timeout=4))
    p, d = pair.script(run)
    ok(p)
    assert d.status is None
    assert pair.alive()


def test_a_live_room_used_by_two_requests_leaks_tokens(pair):
    """Two decode legs with one room: the prefill of the first request answers the second one."""
    room = pair.room()
    one = {**pair.generate(3, text="the first of two requests"), "bootstrap_room": room}
    two = {**pair.generate(3, text="0123456789 another one, quite different"), "bootstrap_room": room}

    async def run(client):
        first = asyncio.ensure_future(client.decode("/generate", one, timeout=4))
        await arrived(client, "decode")
        second = asyncio.ensure_future(client.decode("/generate", two))
        await arrived(client, "decode", 2)
        return await client.prefill("/generate", one), await first, await second
    prefill, first, second = pair.script(run)
    ok(prefill, second)
    assert first.status is None
    assert second.json["output_ids"][0] == prefill.json["output_ids"][0]
    assert second.json["meta_info"]["prompt_tokens"] != prefill.json["meta_info"]["prompt_tokens"]
    assert pair.alive()


def test_n_2_leaves_decode_waiting(crash_pair):
    """Both samples use one room. A real decode hangs, and has been seen to die."""
    pair = crash_pair

    async def run(client):
        body = pair.generate(4)
        body["sampling_params"]["n"] = 2
        return await asyncio.gather(client.prefill("/generate", body, timeout=5), client.decode("/generate", body, timeout=5))
    assert pair.script(run)[1].status is None


# --- one leg late, gone, aborted ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("late", ["prefill", "decode"])
def test_one_leg_may_come_later(pair, late):
    async def run(client):
        first, second = (client.decode, client.prefill) if late == "prefill" else (client.prefill, client.decode)
        body = pair.generate(2)
        waiting = asyncio.ensure_future(first("/generate", body))
        await asyncio.sleep(1.5)
        assert not waiting.done()
        return await second("/generate", body), await waiting
    second, first = pair.script(run)
    ok(first, second)
    assert first.seconds >= 1.5 > second.seconds


def test_decode_waits_when_the_prefill_client_is_gone(pair):
    async def run(client):
        body = pair.generate(1)
        gone = await client.prefill("/generate", body, timeout=1)
        await arrived(client, "prefill", 0)           # until the engine has noticed
        return gone, await client.decode("/generate", body, timeout=4)
    gone, decode = pair.script(run)
    assert gone.status is None and decode.status is None
    assert pair.alive()


def test_prefill_fails_at_once_when_the_decode_client_is_gone(pair):
    async def run(client):
        body = pair.generate(1)
        gone = await client.decode("/generate", body, timeout=1)
        await arrived(client, "decode", 0)
        return gone, await client.prefill("/generate", body)
    gone, prefill = pair.script(run)
    assert gone.status is None
    openai_error(prefill, 500, r"Prefill bootstrap failed for request rank=0 req\.rid='\w+' req\.bootstrap_room=\d+ with exception "
                               r"KVTransferError\(bootstrap_room=\d+\): Failed due to an unknown reason from another rank")
    assert prefill.json["type"] == "500" and prefill.seconds < 1


@pytest.mark.parametrize("leg, what", [("prefill", "Prefill bootstrap"), ("decode", "Decode transfer")])
def test_abort_request_while_waiting(pair, leg, what):
    async def run(client):
        send = getattr(client, leg)
        answers = []
        for path, body in (("/generate", pair.generate()), ("/v1/chat/completions", pair.chat())):
            for stream in (False, True):
                rid = f"abort-{pair.room()}"
                waiting = asyncio.ensure_future(send(path, {**body, "rid": rid, "stream": stream, "bootstrap_room": pair.room()}))
                await arrived(client, leg)
                aborted = await send("/abort_request", {"rid": rid})
                assert aborted.status == 200 and aborted.body == b""
                answers.append(await waiting)
        return answers
    whole, stream, chat, chat_stream = pair.script(run)
    message = f"{what} failed for request rank=0 .*Aborted by AbortReq\\."
    openai_error(whole, 500, message)
    openai_error(chat, 500, message)
    assert whole.json["type"] == chat.json["type"] == "500"
    ok(stream, chat_stream)
    reason = stream.events[0]["meta_info"]["finish_reason"]
    assert reason["type"] == "abort" and reason["status_code"] == 500 and re.match(message, reason["message"])
    error = chat_stream.events[0]["error"]
    assert error["type"] == "INTERNAL_SERVER_ERROR" and error["code"] == 500 and chat_stream.events[1] == "[DONE]"


def test_an_abort_hits_every_rid_that_begins_with_a_known_one(pair):
    rid = f"prefix-{pair.room()}"

    async def run(client):
        waiting = [asyncio.ensure_future(client.decode("/generate", {**pair.generate(1), "rid": name}))
                   for name in (rid, rid + "-longer")]
        await arrived(client, "decode", 2)
        await client.decode("/abort_request", {"rid": rid[:-1]})        # not known itself: nothing happens
        await asyncio.sleep(0.5)
        assert not any(w.done() for w in waiting)
        await client.decode("/abort_request", {"rid": rid})
        return await asyncio.gather(*waiting)
    for answer in pair.script(run):
        openai_error(answer, 500, "Aborted by AbortReq")


def test_abort_of_a_running_request(timed_pair):
    """It is answered with what there is, status 200 and finish reason abort."""
    pair = timed_pair

    def long(path):
        if path == "/generate":
            return pair.generate(20_000)
        return pair.chat(20_000)

    async def run(client):
        answers = []
        for path in ("/generate", "/v1/chat/completions"):
            for stream in (False, True):
                rid = f"running-{pair.room()}"
                body = {**long(path), "rid": rid, "stream": stream}
                waiting = asyncio.ensure_future(client.decode(path, body))
                prefill = asyncio.ensure_future(client.prefill(path, {**body, "stream": False}))
                await until(client, "decode", lambda load: load["num_running_reqs"] == 1)
                await client.decode("/abort_request", {"rid": rid})
                answers.append(await waiting)
                ok(await prefill)
        return answers
    whole, stream, chat, chat_stream = answers = pair.script(run)
    ok(*answers)
    reason = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}
    assert whole.json["meta_info"]["finish_reason"] == stream.events[-2]["meta_info"]["finish_reason"] == reason
    assert 0 < whole.json["meta_info"]["completion_tokens"] < 20_000
    assert chat.json["choices"][0]["finish_reason"] == chat_stream.events[-2]["choices"][0]["finish_reason"] == "abort"
    assert chat.json["usage"]["completion_tokens"] < 20_000


def test_abort_of_an_unknown_rid(pair):
    for answer in pair.each("/abort_request", {"rid": "nobody"}):
        assert answer.status == 200 and answer.body == b""


def test_headers_of_a_waiting_stream(pair):
    """/generate sends them at once, the OpenAI paths with the first event."""
    async def run(client):
        early = {}
        for path, body in (("/generate", pair.generate(2, stream=True)), ("/v1/chat/completions", pair.chat(2, stream=True)),
                           ("/v1/completions", pair.completion(2, stream=True))):
            came = asyncio.Event()

            async def head():
                async with client.session.post(pair.decode + path, json=body) as response:
                    came.set()
                    await response.read()
            task = asyncio.ensure_future(head())
            await arrived(client, "decode")
            await asyncio.wait([asyncio.ensure_future(came.wait())], timeout=10 if path == "/generate" else 0.8)
            early[path] = came.is_set()
            ok(await client.prefill(path, body))
            await task
        return early
    assert pair.script(run) == {"/generate": True, "/v1/chat/completions": False, "/v1/completions": False}


def test_a_dead_bootstrap_port(pair):
    async def run(client):
        return await client.decode("/generate", {**pair.generate(1), "bootstrap_port": 9}, timeout=20)
    answer = pair.script(run)
    openai_error(answer, 500, "Decode handshake failed for request rank=0 .*Aborted by AbortReq")
    assert 13 * pair.scale <= answer.seconds < 16 * pair.scale + 2


# --- bodies ------------------------------------------------------------------------------------------------------------

def test_a_wrong_model_is_served(pair):
    p, d = pair.both("/v1/chat/completions", pair.chat(1, model="nope"))
    ok(p, d)
    assert d.json["model"] == "nope"


def test_unknown_fields_and_big_numbers_are_taken(pair):
    body = json.dumps(pair.generate(1))[:-1] + ', "zzz": {"a": [1]}, "big": 123456789012345678901234567890, "f": 0.70}'
    ok(*pair.both("/generate", body))


def test_the_last_of_equal_keys_wins(pair):
    room = pair.room()
    body = json.dumps({**pair.generate(1), "bootstrap_room": 1})
    ok(*pair.both("/generate", body[:-1] + f', "bootstrap\\u005froom": {room}}}', body[:-1] + f', "bootstrap_room": {room}}}'))


def with_member(pair, text):
    return json.dumps(pair.generate(1))[:-1].encode() + b', "x": ' + text + b"}"


@pytest.mark.parametrize("text, reason", [
    (b"NaN", "unexpected character"), (b'"\\ud800"', "no low surrogate in string"), (b'"a\nb"', "unexpected control character"),
    (b'"\xff"', "str is not valid UTF-8"), (b"1E400", "number is infinity"), (b"[" * 1024 + b"]" * 1024, "depth limit exceeded"),
    (b"1} x", "unexpected content after document"), (b"[", "unexpected")])
def test_bad_json(pair, text, reason):
    for answer in pair.each("/generate", with_member(pair, text)):
        openai_error(answer, 400, f"1 validation error.*json_invalid.*{reason}")
        assert answer.json["type"] == "Bad Request"


def test_depth_1024_is_taken(pair):
    ok(*pair.both("/generate", with_member(pair, b"[" * 1023 + b"]" * 1023)))


def test_a_byte_order_mark(pair):
    for path, body in (("/generate", pair.generate()), ("/v1/chat/completions", pair.chat())):
        for answer in pair.each(path, b"\xef\xbb\xbf" + json.dumps(body).encode()):
            openai_error(answer, 400, "UTF-8 byte order mark")


def test_bodies_that_are_no_request(pair):
    openai = [a for body in (b"", b'{"model":"tiny","messages":[', {"model": "tiny"}) for a in pair.each("/v1/chat/completions", body)]
    for answer, reason in zip(openai, ["'missing', 'loc': \\('body',\\)"] * 2 + ["unexpected end of data"] * 2 + ["'messages'"] * 2):
        openai_error(answer, 400, f"1 validation error.*{reason}")
    for body in (b"[1,2]", b"null"):
        for answer in pair.each("/generate", body):
            openai_error(answer, 400, "Input should be a dictionary or an instance of GenerateReqInput")
    for answer in pair.each("/v1/chat/completions", pair.chat(), headers={"Content-Type": "text/plain"}):
        openai_error(answer, 400, "Unsupported Media Type: Only 'application/json' is allowed")
    for answer in pair.each("/generate", pair.generate(), headers={"Content-Type": "text/plain"}):
        openai_error(answer, 400, "Input should be a dictionary or an instance of GenerateReqInput', 'input': b'")
    ok(*pair.both("/generate", pair.generate(1), headers={"Content-Type": "application/json; charset=utf-8"}))


def test_prompts_that_are_none(pair):
    body = pair.bootstrap(sampling_params={"max_new_tokens": 1})
    for answer in pair.each("/generate", body):
        assert answer.status == 400
        assert answer.json == {"error": {"message": "Either text, input_ids or input_embeds should be provided."}}
    for answer in pair.each("/generate", pair.generate(1, text=[])):
        assert answer.status == 200 and answer.json == []
    for text in (5, ["a", 5]):
        for answer in pair.each("/generate", pair.generate(1, text=text)):
            openai_error(answer, 400, "2 validation errors.*Input should be a valid string")
    for answer in pair.each("/v1/completions", pair.completion(1, prompt=[])):
        openai_error(answer, 400, "^Prompt cannot be empty$")
    for answer in pair.each("/v1/chat/completions", pair.chat(1, messages=[])):
        openai_error(answer, 400, "^Messages cannot be empty\\.$")


def test_text_and_ids_together(pair):
    p, d = pair.both("/generate", pair.generate(1, input_ids=[1, 2]))
    ok(p, d)
    assert d.json["meta_info"]["prompt_tokens"] == 2         # the ids win
    for answer in pair.each("/generate", pair.generate(1, input_ids=[[1, 2]])):
        assert answer.status == 500 and answer.text == "Internal Server Error"


def test_n_null(pair):
    body = pair.generate()
    body["sampling_params"]["n"] = None
    for answer in pair.each("/generate", body):
        assert answer.status == 500 and answer.text == "Internal Server Error"


def test_limits_of_the_context(pair):
    words = "a b c d e f " * 15_000
    for answer in pair.each("/generate", pair.generate(1, text=words)):
        assert answer.status == 400
        assert re.fullmatch(r"The input \(\d+ tokens\) is longer than the model's context length \(32768 tokens\)\.",
                            answer.json["error"]["message"])
    for answer in pair.each("/v1/chat/completions", pair.chat(1, messages=[{"role": "user", "content": words}])):
        openai_error(answer, 400, "longer than the model's context length")
    for answer in pair.each("/v1/chat/completions", pair.chat(10**7)):
        openai_error(answer, 400, "^Requested token count exceeds the model's maximum context length of 32768 tokens")
    for answer in pair.each("/generate", pair.generate(1, sampling_params={"temperature": -1})):
        assert "temperature must be a non-negative" in answer.json["error"]["message"]


def test_the_rid_is_the_id(pair):
    rid = f"mine-{pair.room()}"
    p, d = pair.both("/generate", pair.generate(1, rid=rid))
    assert p.json["meta_info"]["id"] == d.json["meta_info"]["id"] == rid
    p, d = pair.both("/v1/chat/completions", pair.chat(1, rid=rid + "c"))
    assert p.json["id"] == d.json["id"] == rid + "c"


# --- ranks and headers -------------------------------------------------------------------------------------------------

def test_ranks(pair):
    ok(*pair.both("/generate", pair.generate(1, routed_dp_rank=0, disagg_prefill_dp_rank=0)))
    for answer in pair.each("/generate", pair.generate(1, routed_dp_rank=3)):
        assert answer.status == 400 and answer.json == {"error": {"message": "routed_dp_rank=3 out of range [0, 1)"}}
    for answer in pair.each("/v1/chat/completions", pair.chat(1, routed_dp_rank=3)):
        openai_error(answer, 400, r"^routed_dp_rank=3 out of range \[0, 1\)$")


def test_two_ranks_of_prefill(ranks_pair):
    pair, wait = ranks_pair, 5 if ranks_pair.real else 1
    even, odd = 2 * (pair.room() // 2), 2 * (pair.room() // 2) + 1

    def outcome(prefill, decode, **options):
        async def run(client):
            return await asyncio.gather(client.prefill("/generate", prefill, timeout=wait, **options),
                                        client.decode("/generate", decode, timeout=wait))
        p, d = pair.script(run)
        rank = p.json["meta_info"]["dp_rank"] if p.status == 200 else None
        return p.status, d.status, rank

    body = pair.generate(1)
    assert outcome({**body, "bootstrap_room": even}, {**body, "bootstrap_room": even}) == (200, 200, 0)
    # Every odd room fails on the prefill, whatever its rank; decode is not told.
    assert outcome({**body, "bootstrap_room": odd}, {**body, "bootstrap_room": odd}) == (500, None, None)
    assert outcome({**body, "bootstrap_room": odd + 2, "routed_dp_rank": 1},
                   {**body, "bootstrap_room": odd + 2, "disagg_prefill_dp_rank": 1})[:2] == (500, None)
    # The way that works.
    assert outcome({**body, "bootstrap_room": even + 2, "routed_dp_rank": 1},
                   {**body, "bootstrap_room": even + 2, "disagg_prefill_dp_rank": 1}) == (200, 200, 1)
    # Without the hint decode asks the wrong rank: both wait.
    assert outcome({**body, "bootstrap_room": even + 4, "routed_dp_rank": 1}, {**body, "bootstrap_room": even + 4}) == (None, None, None)
    # The check is skipped if the prefill body carries the hint as well.
    assert outcome({**body, "bootstrap_room": odd + 6, "routed_dp_rank": 1, "disagg_prefill_dp_rank": 1},
                   {**body, "bootstrap_room": odd + 6, "disagg_prefill_dp_rank": 1}) == (200, 200, 1)
    assert outcome({**body, "bootstrap_room": even + 8}, {**body, "bootstrap_room": even + 8},
                   headers={"X-Data-Parallel-Rank": "1"}) == (200, 200, 0)
    answer = pair.script(lambda c: c.prefill("/generate", {**body, "bootstrap_room": odd + 10}))
    assert f"follow_bootstrap_room conflict: dispatched to dp_rank 0 but bootstrap_room {odd + 10} implies dp_rank 1" in answer.json["message"]
    assert [e["dp_rank"] for e in pair.get("prefill", "/v1/loads").json["loads"]] == [0, 1]
    assert 'sglang:num_running_reqs{dp_rank="1",engine_type="prefill"' in pair.get("prefill", "/metrics").text


def test_x_data_parallel_rank(pair):
    for value in ("5", "abc"):
        ok(*pair.both("/generate", pair.generate(1), headers={"X-Data-Parallel-Rank": value}))       # not looked at
    for answer in pair.each("/v1/chat/completions", pair.chat(1), headers={"X-Data-Parallel-Rank": "abc"}):
        openai_error(answer, 400, "^Invalid X-Data-Parallel-Rank header: must be an integer, got 'abc'$")
        assert answer.json["type"] == "400"
    for answer in pair.each("/v1/completions", pair.completion(1), headers={"X-Data-Parallel-Rank": "5"}):
        openai_error(answer, 400, "routed_dp_rank=5 out of range")
    ok(*pair.both("/v1/chat/completions", pair.chat(1), headers={"X-Data-Parallel-Rank": "0"}))


def test_override_headers(pair):
    for path, body in (("/generate", pair.generate(1)), ("/v1/chat/completions", pair.chat(1))):
        for name in ("bootstrap_host", "bootstrap_port", "bootstrap_room"):
            del body[name]
        headers = {"x-override-bootstrap-host": pair.bootstrap_host, "x-override-bootstrap-port": str(pair.bootstrap_port),
                   "x-override-bootstrap-room": str(pair.room())}
        ok(*pair.both(path, body, headers=headers))
    for answer in pair.each("/generate", body, headers={"x-override-bootstrap-room": "abc"}):
        openai_error(answer, 400, "^invalid x-override-bootstrap-room header 'abc': invalid literal for int")
        assert answer.json["type"] == "400"


def test_the_fake_host_needs_no_partner(pair):
    for answer in pair.each("/generate", {**pair.generate(1), "bootstrap_host": "2.2.2.2", "bootstrap_room": 0}):
        ok(answer)


# --- what workers tell -------------------------------------------------------------------------------------------------

LABELS = ["engine_type", "model_name", "moe_ep_rank", "pp_rank", "tp_rank"]
PD_QUEUES = ["num_prefill_bootstrap_queue_reqs", "num_prefill_inflight_queue_reqs", "num_decode_prealloc_queue_reqs",
             "num_decode_transfer_queue_reqs"]


def metrics(pair, role):
    """{name: [(labels, value)]} of a worker, and the types."""
    answer = pair.get(role, "/metrics")
    ok(answer)
    series, types = {}, {}
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            types[line.split()[2]] = line.split()[3]
        elif line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r"([^{ ]+)(?:\{(.*)\})? (\S+)", line).groups()
            series.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', labels or "")), float(value)))
    return series, types


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_metrics_layout(pair, role):
    ok(*pair.both("/generate", pair.generate(2)))
    series, types = metrics(pair, role)
    for name in ["num_running_reqs", "num_queue_reqs", "token_usage", "max_total_num_tokens", "kv_available_tokens", "cache_hit_rate",
                 "kv_used_tokens", "gen_throughput", "pending_prealloc_token_usage", *PD_QUEUES]:
        labels, value = series[f"sglang:{name}"][0]
        assert sorted(labels) == LABELS and labels["engine_type"] == role and labels["model_name"] == "tiny"
        assert types[f"sglang:{name}"] == "gauge"
    assert sorted(series["sglang:num_requests_total"][0][0]) == ["engine_type", "is_streaming", "model_name"]
    occupancy = series["sglang:fwd_occupancy"][0][1]
    assert occupancy != occupancy
    assert ("sglang:kv_transfer_total_mb_count" in series) == (role == "prefill")
    assert ("sglang:time_to_first_token_seconds_count" in series) == (role == "decode")
    assert "pid" in series["sglang:num_retracted_reqs"][0][0]
    buckets = [v for labels, v in series["sglang:e2e_request_latency_seconds_bucket"] if labels["is_streaming"] == "false"]
    assert buckets == sorted(buckets)


def test_counters_of_aborts_begin_with_the_first(timed_pair):
    """Of a worker that has aborted nothing yet there is no such series, not even one of zero."""
    pair = timed_pair

    def known():
        return "sglang:num_aborted_requests_total" in pair.get("decode", "/metrics").text
    if pair.real and known():
        pytest.skip("the real decode server has aborted something already: only a fresh one shows it")
    assert not known()

    async def run(client):
        await asyncio.gather(client.decode("/generate", pair.generate(4), timeout=1))  # nobody comes, and the client leaves
    pair.script(run)
    deadline = time.monotonic() + 15
    while not known() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert known()


def test_metrics_are_gzipped_if_offered(pair):
    answer = pair.get("prefill", "/metrics", headers={"Accept-Encoding": "gzip"})
    assert {k.lower(): v for k, v in answer.headers.items()}["content-encoding"] == "gzip"
    assert b"sglang:num_running_reqs" in gzip.decompress(answer.body)


@pytest.mark.parametrize("leg, section", [("prefill", "prefill_bootstrap_queue_reqs"), ("decode", "decode_transfer_queue_reqs")])
def test_pd_queues_are_fresh_in_loads_and_stale_in_metrics(pair, leg, section):
    async def run(client):
        other = client.decode if leg == "prefill" else client.prefill
        bodies = [pair.generate(1) for _ in range(6)]
        waiting = [asyncio.ensure_future(getattr(client, leg)("/generate", body)) for body in bodies]
        await arrived(client, leg, len(bodies))
        loads = await client.send("GET", getattr(pair, leg) + "/v1/loads", None)
        text = (await client.send("GET", getattr(pair, leg) + "/metrics", None)).text
        ok(*await asyncio.gather(*[other("/generate", body) for body in bodies], *waiting))
        return loads, text
    loads, text = pair.script(run)
    assert loads.json["loads"][0]["disaggregation"][section] == 6
    for name in PD_QUEUES:
        assert re.search(rf"^sglang:{name}{{.*}} 0\.0$", text, re.M)


def test_loads(pair):
    for role in ("prefill", "decode"):
        body = pair.get(role, "/v1/loads").json
        assert list(body) == ["timestamp", "version", "accelerator", "num_accelerators", "loads"] and body["version"] == "0.5.23"
        entry = body["loads"][0]
        assert list(entry) == ["timestamp", "dp_rank", "num_running_reqs", "num_waiting_reqs", "num_waiting_uncached_tokens",
                               "num_used_tokens", "num_total_tokens", "num_active_tokens", "num_prealloc_ready_tokens",
                               "max_total_num_tokens", "max_running_requests", "token_usage", "gen_throughput", "cache_hit_rate",
                               "utilization", "total_prefill_uncached_tokens", "total_prefill_busy_us", "decode_moments", "memory",
                               "disaggregation", "queues"]
        assert list(entry["disaggregation"]) == ["mode", "prefill_bootstrap_queue_reqs", "prefill_inflight_queue_reqs",
                                                 "decode_prealloc_queue_reqs", "decode_transfer_queue_reqs",
                                                 "decode_retracted_queue_reqs", "kv_transfer_speed_gb_s", "kv_transfer_latency_ms"]
        assert entry["disaggregation"]["mode"] == role and entry["dp_rank"] == 0
        assert (entry["decode_moments"] is None) == (role == "prefill") and (entry["utilization"] == -1) == (role == "prefill")
        assert "memory" not in pair.get(role, "/v1/loads?include=disagg,queues").json["loads"][0]
        assert list(pair.get(role, "/v1/loads?include=memory").json["loads"][0])[-1] == "memory"
        assert pair.get(role, "/v1/loads?include=core").json["loads"][0]["decode_moments"] is None or role == "decode"
        assert pair.get(role, "/v1/loads?dp_rank=3").json["loads"] == []
        openai_error(pair.get(role, "/v1/loads?dp_rank=x"), 400, "'loc': \\('query', 'dp_rank'\\)")
        unknown = pair.get(role, "/v1/loads?include=nope")
        assert unknown.status == 500 and unknown.text == "Internal Server Error"
        text = pair.get(role, "/v1/loads?format=prometheus").text
        assert '# TYPE sglang_disagg_prefill_bootstrap_queue_reqs gauge\nsglang_disagg_prefill_bootstrap_queue_reqs{dp_rank="0"} 0\n' in text
        assert "sglang_queues_waiting" in text and "sglang_memory_token_capacity" in text


def test_prefill_work_shows_in_loads(pair):
    before = pair.get("prefill", "/v1/loads").json["loads"][0]["total_prefill_uncached_tokens"]
    p, _ = pair.both("/generate", pair.generate(1, text=f"{pair.room()} some words that are new here"))
    computed = p.json["meta_info"]["prompt_tokens"] - p.json["meta_info"]["cached_tokens"]
    pair.script(until, "prefill", lambda load: load["total_prefill_uncached_tokens"] == before + computed)


def test_server_and_model_info(pair):
    for role, method in (("prefill", "follow_bootstrap_room"), ("decode", "round_robin")):
        info = pair.get(role, "/server_info").json
        assert info["disaggregation_mode"] == role and info["load_balance_method"] == method and info["dp_size"] == 1
        assert info["max_total_num_tokens"] > 0 and info["max_running_requests"] is None and info["served_model_name"] == "tiny"
        assert info["version"] == "0.5.23" and info["internal_states"][0]["effective_max_running_requests_per_dp"] == 2048
        assert info["port"] == int(getattr(pair, role).rsplit(":", 1)[1]) and len(info) > 500
        assert list(pair.get(role, "/get_server_info").json) == list(info)
        model = pair.get(role, "/model_info").json
        assert model["disaggregation_mode"] == role and model["served_model_name"] == "tiny" and model["is_generation"] is True
        assert pair.get(role, "/get_model_info").json == model
        models = pair.get(role, "/v1/models").json
        assert list(models["data"][0]) == ["id", "object", "created", "owned_by", "root", "parent", "max_model_len"]
        assert models["data"][0]["id"] == "tiny" and models["object"] == "list"
    assert pair.get("prefill", "/server_info").json["disaggregation_bootstrap_port"] == pair.bootstrap_port


def test_health(pair):
    for role in ("prefill", "decode"):
        for path in ("/health", "/health_generate", "/ready", "/ping"):
            answer = pair.get(role, path)
            assert answer.status == 200 and answer.body == b""
        assert pair.get(role, "/").text == '"SGLang is running"'


def test_paths_that_are_not_there(pair):
    for path in ("/get_load", "/nope"):
        answer = pair.get("decode", path)
        assert answer.status == 404 and answer.json == {"detail": "Not Found"}
    answer = pair.get("decode", "/generate")
    assert answer.status == 405 and answer.json == {"detail": "Method Not Allowed"}
    for answer in pair.each("/v1/embeddings", {"model": "tiny", "input": "hi"}):
        openai_error(answer, 400, "^This model does not appear to be an embedding model by default")


def test_tokenize(pair):
    for answer in pair.each("/tokenize", {"model": "tiny", "prompt": "hello world"}):
        assert list(answer.json) == ["tokens", "count", "max_model_len"] and answer.json["count"] == len(answer.json["tokens"])
        tokens = answer.json["tokens"]
    assert pair.each("/detokenize", {"tokens": tokens})[0].json == {"text": "hello world"}
    many = pair.each("/tokenize", {"prompt": ["a", "b"]})[0].json
    assert many["count"] == [1, 1]
    # The tokens are what a prompt is made of.
    p, d = pair.both("/generate", {**pair.generate(2), "text": "hello world"})
    p2, d2 = pair.both("/generate", {**pair.generate(2), "text": None, "input_ids": tokens})
    ok(p, d, p2, d2)
    assert d.json["output_ids"] == d2.json["output_ids"] and d2.json["meta_info"]["cached_tokens"] == len(tokens) - 1


def test_flush_cache(pair):
    body = pair.generate(1)
    ok(*pair.both("/generate", body))
    for answer in pair.each("/flush_cache", None):
        assert answer.status == 200 and answer.text.startswith("Cache flushed.\n")
    p, _ = pair.both("/generate", {**body, "bootstrap_room": pair.room()})
    assert p.json["meta_info"]["cached_tokens"] == 0

    async def run(client):
        body = pair.generate(1)
        waiting = asyncio.ensure_future(client.decode("/generate", body))
        await arrived(client, "decode")
        flushed = await client.decode("/flush_cache", None)
        ok(await client.prefill("/generate", body), await waiting)
        return flushed
    flushed = pair.script(run)
    assert flushed.status == 400 and flushed.text == "Flush cache failed.\n"


def test_bootstrap_server(pair):
    assert pair.get_bootstrap("/health").text == "OK"
    assert (lambda a: (a.status, a.text))(pair.get_bootstrap("/route")) == (400, "Missing inputs for bootstrap server.")
    info = pair.get_bootstrap("/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&target_pp_rank=-1").json
    assert list(info) == ["attn_tp_size", "attn_cp_size", "dp_size", "pp_size", "page_size", "kv_cache_dtype", "follow_bootstrap_room",
                          "enable_dsa_cache_layer_split", "decode_allocation_policy", "enable_kv_cache_sharding", "prefill_http_port",
                          "target_tp_rank", "target_tp_ranks", "target_cp_ranks", "target_pp_ranks", "required_dst_info_num",
                          "required_prefill_response_num"]
    assert info["dp_size"] == 1 and info["follow_bootstrap_room"] is True
    assert info["prefill_http_port"] == int(pair.prefill.rsplit(":", 1)[1])
    rank = pair.get_bootstrap("/route?prefill_dp_rank=0&prefill_cp_rank=0&target_tp_rank=0&target_pp_rank=0").json
    assert list(rank) == ["rank_ip", "rank_port"]
    assert pair.get_bootstrap("/route?prefill_dp_rank=7&prefill_cp_rank=0&target_tp_rank=0&target_pp_rank=0").status == 404

    async def run(client):
        url = f"http://{pair.bootstrap_host}:{pair.bootstrap_port}/query_dp_ranks"
        return await client.send("POST", url, {"bootstrap_rooms": [1, 2]})
    assert pair.script(run).json == {}


def test_idle_connections_are_closed_after_five_seconds(pair):
    async def run():
        host, port = pair.decode.removeprefix("http://").rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        start = time.monotonic()
        assert await asyncio.wait_for(reader.read(), 8) == b""
        writer.close()
        return time.monotonic() - start
    assert 4.5 < asyncio.run(run()) < 6.5


# --- what kills a server -----------------------------------------------------------------------------------------------

def gone(pair, url):
    """Does a worker refuse connections?"""
    return pair.script(lambda client: client.send("GET", url + "/ready", None, timeout=3)).status is None


def dies(pair, role):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if gone(pair, getattr(pair, role)):
            return True
        time.sleep(0.1)
    return False


def test_room_2_63_kills_prefill(crash_pair):
    pair = crash_pair
    p, d = pair.both("/generate", {**pair.generate(1), "bootstrap_room": 2**63})
    assert p.status is None and dies(pair, "prefill")
    if d.status is not None:
        # Two missed heartbeats later the decode leg is told.
        openai_error(d, 500, r"Lost connection with prefill instance \(bootstrap_addr: ")


def test_lists_for_a_single_prompt_kill_both(crash_pair):
    pair = crash_pair
    body = pair.generate(1)
    for name in ("bootstrap_host", "bootstrap_port", "bootstrap_room"):
        body[name] = [body[name]]
    p, d = pair.both("/generate", body)
    assert p.status is None and d.status is None and dies(pair, "prefill") and dies(pair, "decode")


VOCABULARY = 512  # of the real pair's model


@pytest.mark.parametrize("crash_pair", [{"vocabulary": VOCABULARY}], indirect=True, ids=["small vocabulary"])
@pytest.mark.parametrize("fields", [{"text": ""}, {"text": None, "input_ids": [5, -1]}, {"text": None, "input_ids": [5, 2**33]},
                                    {"text": None, "input_ids": [5, VOCABULARY]}],
                         ids=["empty text", "negative id", "id beyond all vocabularies", "id just beyond the vocabulary"])
def test_prompts_that_kill_prefill(crash_pair, fields):
    pair = crash_pair
    p, _ = pair.both("/generate", pair.generate(1, **fields))
    assert p.status is None and dies(pair, "prefill")
