"""Ordinary requests: every path, streamed or not, from clients of every kind."""

import json
import socket
import subprocess
import time
import urllib.parse

import httpx
import pytest
from conftest import block_stats
from hosts.host import endpoints_of, free_ports
from sglang_sim.harness import wait_for
from traffic import PATHS, all_received, answer_text, body, both_legs, error_of, events_of


def raw_post(gw, target, sent):
    """(status, answer); no client library has a say in how the target is written."""
    sent = json.dumps(sent).encode()
    with socket.create_connection(("127.0.0.1", gw.port), 10) as s:
        s.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
        answer = b"".join(iter(lambda: s.recv(65536), b""))
    return int(answer.split()[1]), answer


@pytest.mark.parametrize("api", PATHS)
def test_answer(api, gw, fleet, client):
    answer = client.post(PATHS[api], json=body(api))
    assert answer.status_code == 200, answer.text
    assert answer_text(api, answer.json())
    prefill, decode = both_legs(fleet, PATHS[api])
    assert prefill.json["bootstrap_room"] == decode.json["bootstrap_room"] > 0
    worker = next(w for w in fleet.prefills if prefill in w.requests(PATHS[api]))
    for leg in (prefill, decode):
        assert leg.json["bootstrap_host"] == worker.host and leg.json["bootstrap_port"] == worker.bootstrap_port
        assert leg.method == "POST" and leg.disconnected is None


@pytest.mark.parametrize("api", PATHS)
def test_stream(api, gw, client):
    answer = client.post(PATHS[api], json=body(api, stream=True, tokens=6))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert events[-1] == "[DONE]" and len(events) >= 6
    assert all(json.loads(e) for e in events[:-1])


def test_stream_comes_event_by_event(start_fleet, make_gateway):
    """Nothing is held back: the first event is there long before the last."""
    gw = make_gateway(start_fleet(prefill=1, decode=1, speed=1, timers=0.05))
    times = []
    with httpx.stream("POST", gw.url + PATHS["chat"], json=body("chat", stream=True, tokens=60), timeout=20) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                times.append(time.monotonic())
    assert len(times) > 30
    assert times[-1] - times[0] > 0.2
    gaps = sorted(b - a for a, b in zip(times, times[1:]))
    assert gaps[-1] < 0.5 * (times[-1] - times[0]), "the stream came in one piece"


@pytest.mark.needs("h2", "tls")
@pytest.mark.parametrize("flags", [["--http1.1"], ["--http2"], ["--http2-prior-knowledge"]])
@pytest.mark.parametrize("stream", [False, True])
def test_curl(flags, stream, gw):
    """HTTP/1.1 and HTTP/2 with TLS, HTTP/2 without."""
    plain = flags == ["--http2-prior-knowledge"]
    url = f"http://127.0.0.1:{gw.h2_port}" if plain else f"https://127.0.0.1:{gw.tls_port}"
    sent = json.dumps(body("chat", text="x" * 20000, stream=stream))
    done = subprocess.run(["curl", "-sk", "-m", "15", *flags, "-w", "\n%{http_code} %{http_version}", "-H", "Content-Type: application/json",
                           "--data-binary", "@-", url + PATHS["chat"]], input=sent, stdout=subprocess.PIPE, text=True)
    text, _, last = done.stdout.rpartition("\n")
    assert last == ("200 1.1" if flags == ["--http1.1"] else "200 2")
    if stream:
        assert events_of(text)[-1] == "[DONE]"
    else:
        assert answer_text("chat", json.loads(text))


OTHER = [("GET", "/v1/models", None, "data"), ("GET", "/get_model_info", None, "model_path"), ("GET", "/model_info", None, "model_path"),
         ("GET", "/server_info", None, "disaggregation_mode"), ("GET", "/get_server_info", None, "disaggregation_mode"),
         ("POST", "/tokenize", {"prompt": "some words", "bootstrap_room": 5}, "tokens")]


SPELT = ["/v1%2fchat/completions", "/v1%2Fchat%2fcompletions", "/%76%31/chat/completion%73", "//v1/chat/completions", "/v1//chat///completions", "/v1/./chat/completions",
         "/v1/models/../chat/completions", "/x/%2e%2e/v1/chat/completions", "/v1/chat/%2E/completions", "/x/y%2f..%2f../v1/chat/completions"]


def read_by_engine(target):
    """uvicorn decodes escapes, and nothing else."""
    return urllib.parse.unquote(target.partition("?")[0])


@pytest.mark.parametrize("path", SPELT)
def test_path_spelt_otherwise(path, gw, fleet):
    """What an engine takes for the plain one is routed as that. Envoy's gateways send the plain one; nginx decides on it and, as proxy_pass does, sends what the
    client wrote; Python's and Go's know no more of slashes and dots than engines do."""
    status, _ = raw_post(gw, f"{path}?x=%2f..", body("chat", text="spelt"))
    received = all_received(fleet)
    if gw.name in ("ext_proc", "ext_proc_both", "envoy_module"):
        prefill, decode = both_legs(fleet, PATHS["chat"])
        assert (status, prefill.path, decode.path) == (200, *[PATHS["chat"] + "?x=%2f.."] * 2)
    for r in received:
        assert read_by_engine(r.path) != PATHS["chat"] or (r.json["bootstrap_room"] > 0 and len(received) == 2), (r.path, r.json)
    assert received or status in (301, 307, 308, 400, 404), status


@pytest.mark.parametrize("path", ["/v1/%zzchat", "/v1/chat/completions%0", "/v1%00/chat/completions", "/../v1/chat/completions", "/v1/%2e%2e/%2e%2e/generate"])
def test_path_that_is_none(path, gw, fleet):
    status, answer = raw_post(gw, path, body("chat"))
    assert status in ((301, 307, 308, 400, 404) if gw.name in ("go", "python") else (400,)), answer
    assert all("bootstrap_room" not in r.json for r in all_received(fleet))
    assert not [r for r in all_received(fleet) if read_by_engine(r.path) in PATHS.values()]


@pytest.mark.parametrize("path", ["/%70droute", "//readiness", "/x/../liveness"])
def test_own_path_spelt_otherwise(path, gw, fleet):
    """What the gateway answers itself under its plain name goes to no server under another."""
    raw_post(gw, path, body("chat"))
    assert not [r for r in all_received(fleet) if gw.name not in ("python", "go") or read_by_engine(r.path) in ("/pdroute", "/readiness", "/liveness")]


@pytest.mark.needs("other_paths")
@pytest.mark.parametrize("method,path,sent,member", OTHER, ids=[o[1] for o in OTHER])
def test_other_paths(method, path, sent, member, gw, fleet, client):
    answer = client.request(method, path, json=sent)
    assert answer.status_code == 200, answer.text
    assert member in answer.json()
    received = all_received(fleet, path)
    assert len(received) == 1
    if sent:
        assert "bootstrap_room" not in received[0].json


@pytest.mark.needs("other_paths")
def test_embeddings_go_to_one_server(gw, fleet, client):
    """What a PD server says to them is the client's business."""
    client.post("/v1/embeddings", json={"input": "x", "model": "tiny", "kv_transfer_params": {}})
    received = all_received(fleet, "/v1/embeddings")
    assert received and all("kv_transfer_params" not in r.json for r in received)


@pytest.mark.needs("other_paths")
def test_head(gw, client):
    answer = client.head("/v1/models")
    assert answer.status_code in (200, 405)
    assert client.get("/v1/models").status_code == 200  # on the same connection


@pytest.mark.parametrize("path", ["/health", "/readiness", "/liveness"])
def test_health(path, gw, fleet, client):
    assert client.get(path).status_code == 200
    assert client.head(path).status_code == 200
    assert not all_received(fleet), "the gateway answers itself"


def test_readiness_without_servers(make_gateway):
    gw = make_gateway([])
    for path, status in (("/health", 503), ("/readiness", 503), ("/liveness", 200)):
        assert httpx.get(gw.url + path).status_code == status
    answer = httpx.post(gw.url + PATHS["chat"], json=body("chat"))
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert error_of(answer)["code"] == "no_pair"


@pytest.mark.needs("methods")
def test_kubernetes_objects_are_a_configuration(start_fleet, make_gateway):
    """As kubectl gives them, and pdr_config beside them."""
    port, = free_ports(1)
    fleet = start_fleet(prefill=[f"127.0.41.1:{port}"], decode=[f"127.0.41.2:{port}"], speed=0)
    pods = [{"metadata": {"name": w.role, "namespace": "llm", "labels": {"app": "x", "rbg.workloads.x-k8s.io/role-name": w.role},
                          "annotations": {"sglang.ai/bootstrap-port": str(w.bootstrap_port or "")}},
             "status": {"phase": "Running", "podIP": w.host, "conditions": [{"type": "Ready", "status": "True"}]}} for w in fleet.workers]
    gw = make_gateway([], start=False)
    gw.config = [{**gw.config, "tenant_header": "x-tenant"}, {"apiVersion": "v1", "kind": "PodList", "items": pods},
                 {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "x", "namespace": "llm"},
                  "spec": {"selector": {"matchLabels": {"app": "x"}}, "targetPorts": [{"number": port}], "endpointPickerRef": {"name": "e", "port": {"number": 9002}}}}]
    del gw.config[0]["endpoints"]
    gw.start()
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat"), timeout=10).status_code == 200
    both_legs(fleet, PATHS["chat"])


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_method(method, gw, client):
    answer = client.request(method, PATHS["chat"])
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"
    error_of(answer)


def test_put_generate(gw, client):
    """SGLang takes it."""
    assert client.put("/generate", json=body("generate")).status_code == 200


def test_batch(gw, fleet, client):
    answer = client.post("/generate", json={"text": ["a", "b", "c"], "sampling_params": {"max_new_tokens": 2}})
    assert answer.status_code == 200 and len(answer.json()) == 3
    prefill, decode = both_legs(fleet, "/generate")
    assert len(set(prefill.json["bootstrap_room"])) == 3 and prefill.json["bootstrap_room"] == decode.json["bootstrap_room"]


def test_unified_server(start_fleet, make_gateway):
    """One server that does all: no prefill leg, no room."""
    fleet = start_fleet(prefill=0, decode=0, unified=1, speed=0)
    gw = make_gateway(fleet)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200
    assert "bootstrap_room" not in fleet.unified[0].requests()[0].json


def test_data_parallel_ranks(start_fleet, make_gateway):
    fleet = start_fleet(prefill=1, decode=1, speed=0, dp_size=2)
    endpoints = endpoints_of(fleet)
    endpoints[0]["dp_size"] = 2
    gw = make_gateway(endpoints)
    ranks = set()
    for i in range(8):
        answer = httpx.post(gw.url + "/generate", json=body("generate", text=f"{i} words"), timeout=10)
        assert answer.status_code == 200, answer.text
        prefill, decode = both_legs(fleet, "/generate")
        ranks.add(prefill.json["bootstrap_room"] % 2)
    assert ranks


@pytest.mark.only("nginx", "python", "go", "envoy_module")  # who tries again when decode has failed with an answer
def test_a_retry_of_a_batch_with_data_parallel_ranks(start_fleet, make_gateway):
    """Each attempt has rooms of its own, one for each prompt, the same on both legs, and all of the rank that is named."""
    fleet = start_fleet(prefill=2, decode=2, speed=0, dp_size=2)
    endpoints = [{**each, "dp_size": 2} if each["role"] == "prefill" else each for each in endpoints_of(fleet)]
    gw = make_gateway(endpoints, config={"policy": "round_robin", "breaker_failures": 1000, "breaker_error_permille": 4294967295})
    fleet.decodes[0].fault(kind="status", status=500)
    for i in range(4):
        answer = httpx.post(gw.url + "/generate", json={**body("generate"), "text": [f"{i} {k} words" for k in range(3)]}, timeout=60)
        assert answer.status_code == 200 and len(answer.json()) == 3, answer.text
    legs = {side: [(each.json["bootstrap_room"], each.json["disagg_prefill_dp_rank"]) for worker in workers for each in worker.requests()]
            for side, workers in (("prefill", fleet.prefills), ("decode", fleet.decodes))}
    failed = fleet.decodes[0].requests()
    assert failed and len(legs["decode"]) == 4 + len(failed)
    assert all(len(rooms) == 3 and {room % 2 for room in rooms} == {rank} for side in legs.values() for rooms, rank in side), legs
    drawn = [room for rooms, _ in legs["decode"] for room in rooms]
    assert len(set(drawn)) == len(drawn)  # no attempt has a room of another
    assert {tuple(rooms) for rooms, _ in legs["decode"]} >= {tuple(rooms) for rooms, _ in legs["prefill"]}


@pytest.mark.needs("log")
def test_second_turn_goes_where_the_prefix_is(start_fleet, make_gateway):
    """Prompts take a quarter of a second, a next turn a tenth of it: where answers cost nothing, what the gateway learns of prompts is the machine's noise, and no prefix is worth anything."""
    fleet = start_fleet(prefill=4, decode=2, speed=1)
    gw = make_gateway(fleet)
    with httpx.Client(base_url=gw.url, timeout=60) as client:
        for i in range(6):
            turns = [{"role": "user", "content": f"conversation {i}: " + "long ago and far away " * 800}]
            for turn in range(3):
                answer = client.post(PATHS["chat"], json={"model": "tiny", "messages": turns, "max_tokens": 4})
                assert answer.status_code == 200
                turns += [answer.json()["choices"][0]["message"], {"role": "user", "content": f"and then, {turn}?"}]
                # prefill's answer may come after decode's; until then its server counts as busy
                assert wait_for(lambda: block_stats(gw)["bookings"] == 0, timeout=30), block_stats(gw)
                turns[-2] = {k: turns[-2][k] for k in ("role", "content")}
    log = gw.logged(18, lambda entry: entry["uri"] == PATHS["chat"])
    for i in range(6):
        first, *later = log[3 * i:3 * i + 3]
        for entry in later:
            assert entry["prefill"] == first["prefill"]
            matched, total = map(int, entry["hit"].split("/"))
            assert matched > 0.8 * total


@pytest.mark.only("nginx")
def test_variables_in_the_log(gw, fleet, client):
    client.post(PATHS["chat"] + "?variables", json=body("chat"))
    client.get("/v1/models?variables")
    client.post(PATHS["chat"] + "?variables", content=b"{")
    chat, models, bad = gw.logged(3, lambda entry: entry["uri"].endswith("?variables"))
    prefill, decode = both_legs(fleet, PATHS["chat"])
    assert chat["status"] == 200 and chat["attempts"] == "1" and chat["room"] == str(prefill.json["bootstrap_room"])
    assert chat["prefill"] in {w.name for w in fleet.prefills} and chat["decode"] in {w.name for w in fleet.decodes}
    assert chat["upstream"] == chat["decode"] and chat["upstream_status"] == "200"
    assert "cost=" in chat["why"] and "pairs=4" in chat["why"] and "/" in chat["hit"]
    assert models["room"] == "" and models["decode"]
    assert bad["status"] == 400 and bad["why"] == "bad_request" and bad["prefill"] == ""


@pytest.mark.needs("status")
def test_status(gw, client):
    client.post(PATHS["chat"], json=body("chat"))
    status = client.get("/pdroute")
    assert status.headers["content-type"] == "application/json"
    assert status.json()["routed"] >= 1 and len(status.json()["leases"] if isinstance(status.json()["leases"], list) else [1]) == 1
    for answer in (client.get("/pdroute?format=prometheus"), client.get("/pdroute", headers={"Accept": "text/plain"})):
        assert answer.headers["content-type"].startswith("text/plain")
        assert "pdroute_" in answer.text and "# TYPE" in answer.text
    assert client.post("/pdroute").status_code == 405


def test_connections_are_kept(gw, fleet, client):
    for i in range(20):
        assert client.post(PATHS["chat"], json=body("chat", text=f"{i}")).status_code == 200
    for worker in fleet.workers:
        peers = {r.peer for r in worker.requests(PATHS["chat"])}
        assert len(peers) <= 1, f"{worker.name}: {len(peers)} connections"
