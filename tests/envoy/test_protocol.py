"""The conversation itself, with a data plane that says what a test wants said."""

import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import pytest
from data_plane import FULL, NONE, Call, check
from hosts.ext_proc import binary
from hosts.host import TOP
from sglang_sim.harness import wait_for
from traffic import body, dumps, text_of

sys.path.insert(0, str(TOP / "tests/tools"))
from strict import lines  # noqa: E402

TAIL = re.compile(rb',"bootstrap_host":"[^"]*","bootstrap_port":\d+,"bootstrap_room":\d+')
DESTINATION = "x-gateway-destination-endpoint"


def decodes(fleet):
    return {w.name for w in fleet.decodes}


def ask(call, sent, pieces=1 << 20, **headers):
    call.headers(**headers)
    for i in range(0, len(sent), pieces):
        call.body(sent[i:i + pieces])
    call.body(b"", end=True)
    return call.request()


@pytest.mark.parametrize("pieces", [7, 1000, 62_000, 1 << 20], ids=str)
@pytest.mark.parametrize("size", [300, 5_000, 200_000, 3_000_000], ids=str)
def test_any_pieces(size, pieces, picker, fleet):
    if size // pieces > 20_000:
        pytest.skip("the same as fewer pieces")
    sent = dumps(body("chat", text=text_of(size)))
    with Call(picker.grpc_port) as call:
        set_, removed, got, lengths, ended = ask(call, sent, pieces)
        assert set_[DESTINATION] in decodes(fleet) and set_["x-pdroute-content-length"] == str(len(got))
        assert TAIL.sub(b"", got) == sent and len(TAIL.findall(got)) == 1
        assert max(lengths) <= 62_000 and ended
        assert call.messages[0].request_headers.response.clear_route_cache
        assert call.messages[0].dynamic_metadata["envoy.lb"][DESTINATION] == set_[DESTINATION]
        assert call.messages[0].dynamic_metadata["pdroute"]["decode"] == set_[DESTINATION]


def test_end_with_the_last_piece(picker):
    with Call(picker.grpc_port) as call:
        call.headers()
        call.body(dumps(body("chat")), end=True)
        assert call.request()[4]


def test_nothing_is_said_before_the_end(picker):
    with Call(picker.grpc_port) as call:
        call.headers()
        call.body(dumps(body("chat")))
        assert call.pump(0.5) >= 0 and not call.messages


def test_trailers_in_place_of_the_end(picker):
    """No piece has the end then: headers, body without end, and an answer to the trailers."""
    sent = dumps(body("chat"))
    with Call(picker.grpc_port) as call:
        call.headers()
        call.body(sent)
        call.send(request_trailers={"trailers": {"headers": [{"key": "x-checksum", "raw_value": b"1"}]}})
        set_, _, got, _, ended = call.request()
        assert not ended and TAIL.sub(b"", got) == sent
        assert call.kinds() == ["request_headers", "request_body", "request_trailers"]
        assert "x-pdroute-content-length" not in set_  # with trailers there must be chunks


def test_empty_body_and_none(picker, fleet):
    with Call(picker.grpc_port) as call:  # GET
        call.headers(path="/v1/models", method="GET", end=True)
        call.until(lambda c: c.messages)
        assert call.kinds() == ["request_headers"]
        assert call.messages[0].request_headers.response.header_mutation.set_headers[0].header.raw_value.decode() in decodes(fleet)
    with Call(picker.grpc_port) as call:  # a POST of nothing where that may be
        assert ask(call, b"", path="/tokenize")[2:] == (b"", [0], True)


def test_headers_that_stay(picker):
    with Call(picker.grpc_port) as call:
        removed = ask(call, dumps(body("chat")), x_data_parallel_rank="1", x_override_bootstrap_room="5", accept_encoding="gzip", x_prefiller_host_port="evil:1",
                      x_other="1")[1]
        assert sorted(removed) == ["accept-encoding", "x-data-parallel-rank", "x-override-bootstrap-room", "x-prefiller-host-port"]


@pytest.mark.parametrize("sent,status,code", [(b"{", 400, "bad_request"), (b"x" * 3_000_000, 413, "too_large")], ids=["JSON", "size"])
def test_refusals(sent, status, code, start_picker, fleet):
    picker = start_picker(fleet, config={"max_body": 2_000_000})
    with Call(picker.grpc_port) as call:
        call.headers()
        call.body(sent[:1 << 20])
        call.body(sent[1 << 20:], end=True)
        answer = call.immediate()
        assert answer.status.code == status and code in answer.body.decode() and answer.details == code


def test_no_server(start_picker):
    picker = start_picker([])
    with Call(picker.grpc_port) as call:
        call.headers()
        call.body(dumps(body("chat")), end=True)
        answer = call.immediate()
        assert answer.status.code == 503 and "retry-after" in {h.header.key for h in answer.headers.set_headers}
    assert check(picker.grpc_port) == (1, 0) and check(picker.health_port, "readiness") == (2, 0)


def test_health(picker):
    """On both ports, under the names that endpoint pickers answer to."""
    for port in (picker.grpc_port, picker.health_port):
        for name in ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"):
            assert check(port, name) == (1, 0)
        assert check(port, "somebody") == (None, 5)
    with Call(picker.grpc_port, "/grpc.health.v1.Health/Watch") as call:
        call.until(lambda c: c.trailers.get("grpc-status") == "12")


HINT = ("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset")


def test_subset_hint(picker, fleet):
    only, other = [w.name for w in fleet.decodes]
    for hint in ([only], f"{only}, 10.9.9.9:1", [only, fleet.prefills[0].name]):
        for i in range(6):
            with Call(picker.grpc_port) as call:
                assert ask(call, dumps(body("chat", text=f"{i} {hint}")), metadata=[(*HINT, hint)])[0][DESTINATION] == only
                if len(hint) == 2:
                    assert call.messages[0].dynamic_metadata["pdroute"]["prefill"] == fleet.prefills[0].name
    for hint in ([], ["10.9.9.9:1"]):
        with Call(picker.grpc_port) as call:
            call.headers(metadata=[(*HINT, hint)])
            call.body(dumps(body("chat")), end=True)
            assert call.immediate().status.code == 503


def test_response_passes_and_is_read(picker, fleet):
    """The head waits for the first byte; usage is fed back; what comes goes back as it is."""
    before = picker.stats()
    with Call(picker.grpc_port) as call:
        ask(call, dumps(body("chat", stream=True)))
        call.response(200, content_type="text/event-stream")
        assert call.pump(0.3) == 0 or "response_headers" not in call.kinds()
        call.send(response_body={"body": b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'})
        call.until(lambda c: "response_body" in c.kinds())
        assert call.kinds()[-2:] == ["response_headers", "response_body"]
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":64}}}\n\ndata: [DONE]\n\n'
        for i in range(0, len(usage), 11):
            call.send(response_body={"body": usage[i:i + 11]})
        call.send(response_body={"end_of_stream": True})
        call.until(lambda c: c.messages[-1].response_body.response.body_mutation.streamed_response.end_of_stream)
        pieces = [m.response_body.response.body_mutation.streamed_response.body for m in call.messages if m.HasField("response_body")]
        assert b"".join(pieces)[-len(usage):] == usage
        call.cancel()
    fleet.reset()  # prefill would wait for a decode that nobody sent
    assert wait_for(lambda: picker.stats()["cached_tokens_reported"] == before["cached_tokens_reported"] + 64, timeout=5)


@pytest.mark.parametrize("status", ["2000", "99", "", "20x", "+20"])
def test_a_status_that_is_none(status, start_picker, start_fleet):
    """Envoy passes on what servers say. No client could read it: it is the server's failure."""
    picker = start_picker(start_fleet(prefill=1, decode=1, speed=0), config={"retry_max": 2**32 - 1})
    with Call(picker.grpc_port) as call:
        ask(call, dumps(body("chat", stream=True)))
        call.send(response_headers={"headers": {"headers": [{"key": ":status", "raw_value": status.encode()}, {"key": "x-envoy-upstream-service-time", "raw_value": b"1"}]}})
        assert call.immediate().status.code == 502


def test_answer_to_a_head_that_was_not_shown(picker):
    """The data plane refused a request by itself: the conversation begins with its answer, and with how bodies are shown."""
    with Call(picker.grpc_port) as call:
        call.send(response_headers={"headers": {"headers": [{"key": ":status", "raw_value": b"408"}]}}, protocol_config={"request_body_mode": FULL, "response_body_mode": FULL})
        call.send(response_body={"body": b"too slow", "end_of_stream": True})
        call.until(lambda c: len(c.messages) == 2)
        assert call.kinds() == ["response_headers", "response_body"]
        piece = call.messages[1].response_body.response.body_mutation.streamed_response
        assert piece.body == b"too slow" and piece.end_of_stream


@pytest.mark.parametrize("gently", [True, False], ids=["END_STREAM", "RST_STREAM"])
def test_client_leaves(gently, picker, fleet):
    """Nothing is booked any more, prefill's leg is closed; no lease time to wait for."""
    for worker in fleet.prefills:
        worker.fault(kind="hang")
    with Call(picker.grpc_port) as call:
        ask(call, dumps(body("chat")))
        assert wait_for(lambda: any(w.requests() for w in fleet.prefills), timeout=5)
        left = time.time()
        (call.half_close if gently else call.cancel)()
        if gently:
            call.until(lambda c: c.trailers.get("grpc-status") == "0")
        leg = next(r for w in fleet.prefills for r in w.requests())
        assert wait_for(lambda: next(r for w in fleet.prefills for r in w.requests()).disconnected, timeout=3), leg
    assert next(r for w in fleet.prefills for r in w.requests()).disconnected - left < 0.5
    assert wait_for(lambda: picker.stats()["bookings"] == 0, timeout=2)


def test_connection_ends_with_all_its_calls(picker, fleet):
    for worker in fleet.workers:
        worker.fault(kind="hang")
    call = Call(picker.grpc_port)
    ask(call, dumps(body("chat")))
    call.close()
    assert wait_for(lambda: picker.stats()["bookings"] == 0, timeout=2)


def test_without_the_answers_body(picker, fleet):
    """response_body_mode NONE: the head passes at once, and the end of the conversation is the end of the answer."""
    with Call(picker.grpc_port) as call:
        ask(call, dumps(body("chat")), body_mode=NONE)
        call.response(200, content_type="application/json")
        call.until(lambda c: "response_headers" in c.kinds())
        assert picker.stats()["bookings"] == 1
        call.cancel()
    fleet.reset()
    assert wait_for(lambda: picker.stats()["bookings"] == 0, timeout=35)


def test_prefill_fails_after_the_request_was_sent(start_picker, start_fleet):
    """An immediate answer with the right status, and quickly."""
    fleet = start_fleet(prefill=1, decode=1, speed=0)
    fleet.prefills[0].fault(kind="status", status=500, delay=0.3)
    picker = start_picker(fleet)
    with Call(picker.grpc_port) as call:
        ask(call, dumps(body("chat", stream=True)))
        answer = call.immediate()
        assert answer.status.code == 502 and answer.details == "prefill_failed"


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x12\x05abc", b"\x22\xff\xff\xff\xff\x7f"], ids=repr)
def test_garbage(garbage, picker):
    """Ends the call, not the process."""
    with Call(picker.grpc_port) as call:
        call.send_bytes(b"\0" + len(garbage).to_bytes(4, "big") + garbage)
        call.until(lambda c: c.trailers.get("grpc-status") == "3")
    with Call(picker.grpc_port) as call:  # compressed: was not offered
        call.send_bytes(b"\1\0\0\0\0")
        call.until(lambda c: c.trailers.get("grpc-status") == "12")
    with Call(picker.grpc_port) as call:  # longer than anything that is taken
        call.send_bytes(b"\0\xff\xff\xff\xff")
        call.until(lambda c: c.trailers.get("grpc-status") == "8")
    assert check(picker.grpc_port) == (1, 0)


def test_metrics(picker):
    text = picker.metrics()
    for name in ("inference_pool_ready_pods", "inference_pool_average_queue_size", "inference_pool_average_kv_cache_utilization", "inference_pool_average_running_requests", "pdroute_extproc_requests_total",
                 "pdroute_extproc_served_elsewhere_total", "pdroute_extproc_calls"):
        assert re.search(rf"^{name}(\{{name=\"default\"\}})? [\d.]+$", text, re.M), name
    assert "inference_pool_ready_pods{name=\"default\"} 4" in text and "pdroute_routed_total" in text


def booked(picker):
    """Decode requests by server, where there are any."""
    lines = re.findall(r'pdroute_target_decode_requests\{[^}]*endpoint="([^"]+)"[^}]*\} (\d+)', picker.metrics())
    return {name: int(n) for name, n in lines if int(n)}


@pytest.mark.parametrize("where", ["as named", "elsewhere", "unknown"])
def test_served_endpoint(where, start_picker, start_fleet):
    """Where the data plane took another server than ours, that one is booked and judged; one that is not known is not, and ours is not in its place."""
    fleet = start_fleet(prefill=1, decode=2, speed=0)
    picker = start_picker(fleet, config={"breaker_failures": 1, "breaker_open_ms": 30000, "retry_max": 2**32 - 1})
    address = {w.name: f"127.0.0.1:{w.port}" if hasattr(w, "port") else w.name for w in fleet.decodes}
    with Call(picker.grpc_port) as call:
        named = ask(call, dumps(body("chat")))[0][DESTINATION]
        other = next(name for name in decodes(fleet) if name != named)
        used = {"as named": named, "elsewhere": other, "unknown": "192.0.2.1:1"}[where]
        assert len(booked(picker)) == 1
        before = booked(picker)
        call.response(200, served=used)
        call.until(lambda c: c.kinds()[-1] == "response_headers" or picker.stats()["bookings"] == 1 and c.pump(0.2) >= 0)
        if where == "elsewhere":
            assert wait_for(lambda: booked(picker).keys() != before.keys(), timeout=5), address
            assert sum(booked(picker).values()) == 1
        else:
            assert booked(picker) == before
        call.cancel()
    assert wait_for(lambda: picker.stats()["bookings"] == 0, timeout=5)
    with Call(picker.grpc_port) as call:
        named = ask(call, dumps(body("chat", text="another")))[0][DESTINATION]
        other = next(name for name in decodes(fleet) if name != named)
        used = {"as named": named, "elsewhere": other, "unknown": "192.0.2.1:1"}[where]
        call.response(503, end=True, served=used, details="upstream_reset_before_response_started{connection_failure}")
        call.until(lambda c: c.kinds()[-1] in ("immediate_response", "response_headers"))
        call.cancel()
    assert wait_for(lambda: picker.stats()["bookings"] == 0, timeout=5)
    assert f"pdroute_extproc_served_elsewhere_total {0 if where == 'as named' else 2}" in picker.metrics()
    opened = [int(line.split()[-1]) for line in picker.metrics().splitlines() if "breakers_opened_total" in line and line[0] != "#"]
    assert (opened[0] > 0) is (where != "unknown"), opened
    if where != "unknown":
        down = {name for name, state in re.findall(r'pdroute_target_state\{[^}]*endpoint="([^"]+)"[^}]*\} (\d+)', picker.metrics()) if state != "0"}
        assert not down or down == {used}, (down, used)


def test_a_data_plane_writes_no_lines_of_the_log(picker, fleet):
    """What it names as the server that it used is logged as one line, whatever it is."""
    evil = "10.0.0.1:1\n2026-01-01T00:00:00.000Z [emerg] evil\x1b[2J\x9b\u2028\x7fü"
    with Call(picker.grpc_port) as call:
        ask(call, dumps(body("chat")))
        call.response(200, served=evil)
        assert wait_for(lambda: "the data plane used 10.0.0.1:1?2026-01-01T00:00:00.000Z [emerg] evil?[2J" in picker.log(), timeout=5), picker.log()
        call.cancel()
    for line in picker.log().splitlines():
        lines(line)
    assert "ü" in picker.log() and not [line for line in picker.log().split("\n") if " [emerg] " in line and "notice" not in line]


def test_defaults_are_those_of_endpoint_pickers():
    """--grpc-port 9002, --grpc-health-port 9003, metrics on 9090: as the help says, and as it listens if the ports are free."""
    picker = binary("build", "PDROUTE_EXTPROC")
    text = subprocess.run([picker, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    for option, port in (("--grpc-port", 9002), ("--grpc-health-port", 9003), ("--metrics-port", 9090)):
        assert re.search(rf"^ *{option} .*\(default {port}\b", text, re.M), option
    for port in (9002, 9003, 9090):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"SKIP: port {port} is somebody else's")
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen([picker, "--host", "127.0.0.1", "--threads", "1", "--block", f"{directory}/block"], stderr=subprocess.PIPE, text=True)
        try:
            line = next(line for line in process.stderr if "ext_proc on port" in line)
            assert "ext_proc on port 9002, health 9003, metrics 9090" in line
            assert check(9003, "readiness") == (2, 0) == check(9002, "readiness")  # there is no server yet
            with urllib.request.urlopen("http://127.0.0.1:9090/metrics", timeout=5) as answer:
                assert b'inference_pool_ready_pods{name="default"} 0' in answer.read()
        finally:
            process.terminate()
            process.wait()
            process.stderr.close()
