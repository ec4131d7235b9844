"""Deciding, rewriting, waiting, seeing: the core from Python."""
import ctypes
import gc
import json
import threading
import time
from array import array

import pdroute
import pytest
from pdroute import (Api, Barred, Config, Endpoint, Leg, Outcome, Policy, Report, RequestFlag, Role, Router, State, config_from_json, hash_tokens, rewrite_pieces,
                     rewrite_tail, room, scan)

CHAT = '{"model": "/models/Qwen3-32B", "bootstrap_room": 5, "messages": [{"role": "user", "content": "你好,这是一个测试"}], "max_tokens": 50 }'.encode()
LONG = json.dumps({"messages": [{"role": "user", "content": "word " * 4000}]}).encode()


def make(prefills=2, decodes=1, **config):
    router = Router.create(Config(max_endpoints=16, max_bookings=256, index_entries=4096, seed=7, **config))
    for i in range(prefills + decodes):
        router.put(Endpoint(role=Role.PREFILL if i < prefills else Role.DECODE, port=8000, name=f"s{i}", host=f"10.0.0.{i + 1}"))
    return router


@pytest.fixture
def router():
    with make() as made:
        yield made
        made.check()


@pytest.fixture
def lease(router):
    with router.lease("test") as made:
        yield made


KINDS = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview, "writable view": lambda b: memoryview(bytearray(b)),
         "part of a view": lambda b: memoryview(b"xx" + b + b"yy")[2:-2], "array": lambda b: array("B", b)}


@pytest.mark.parametrize("kind", KINDS)
def test_route_and_rewrite(kind, router, lease):
    body = KINDS[kind](CHAT)
    with router.route(body, Api.CHAT, lease=lease) as routed:
        assert not routed.held and routed.decode == "10.0.0.3:8000" and routed.prefill in ("10.0.0.1:8000", "10.0.0.2:8000")
        assert router.stats().bookings == 1
        for leg in Leg:
            sent = json.loads(routed.rewrite(leg))
            assert sent.pop("bootstrap_room") == routed.decision.room == room(routed.decision)
            assert sent.pop("bootstrap_host") == routed.decision.bootstrap_host and sent.pop("bootstrap_port") == 8998
            original = json.loads(CHAT)
            original.pop("bootstrap_room")
            assert sent == original
            assert b"".join(routed.pieces(leg)) == routed.rewrite(leg)
    assert router.stats().bookings == 0


def test_pieces_are_not_copies(router, lease):
    body = bytearray(CHAT)
    with router.route(body, lease=lease) as routed:
        pieces = routed.pieces(Leg.DECODE)
        at = next(i for i, piece in enumerate(pieces) if b"Qwen3" in piece.tobytes())
        body[body.index(b"Qwen3"):][:5]
        body[body.index(b"Qwen3")] = ord("q")
        assert b"qwen3" in pieces[at].tobytes()


def test_views_that_are_not_plain(router, lease):
    """What is cut, turned around or of several dimensions is what its bytes are, or is refused; never another part of the memory."""
    padded = CHAT + b" " * (-len(CHAT) % 8)
    plain = router.route(padded, lease=lease)
    for view in (memoryview(padded).cast("B", (2, len(padded) // 2)), memoryview(bytearray(padded)).cast("Q"), memoryview(b"x" + padded)[1:], memoryview(bytearray(b"x" + padded))[1:]):
        routed = router.route(view, lease=lease)
        assert routed.prompt.asdict() == plain.prompt.asdict()
        assert pdroute.rewrite(plain.decision, plain.prompt, Leg.DECODE, view) == plain.rewrite(Leg.DECODE)
        routed.done()
    plain.done()
    for view in (memoryview(padded)[::-1], memoryview(padded)[::2], memoryview(bytearray(padded))[::-1]):
        with pytest.raises(BufferError):
            router.route(view, lease=lease)
        with pytest.raises(BufferError):
            pdroute.rewrite(plain.decision, plain.prompt, Leg.DECODE, view)
    for empty in (b"", bytearray(), memoryview(b""), memoryview(bytearray()), memoryview(padded)[:0]):
        with pytest.raises(pdroute.ParseError):
            router.route(empty, lease=lease)
    with pytest.raises(TypeError):
        pdroute.rewrite(plain.prompt, plain.decision, Leg.DECODE, padded)
    gone = memoryview(padded)
    gone.release()
    with pytest.raises(ValueError):
        router.route(gone, lease=lease)
    assert router.stats().bookings == 0


def test_requests_differ_in_whose_they_are(router, lease):
    """What the last call left prepared is not taken for the next one's: lease, API, and what was given beside them."""
    with router.lease("other") as other:
        first = router.route(CHAT, lease=lease)
        second = router.route(CHAT, lease=other)
        third = router.route(b'{"text": "x"}', Api.GENERATE, lease=other)
        with pytest.raises(pdroute.Error):
            router.route(CHAT, lease=lease, exclude=list(router.endpoints()))
        fourth = router.route(CHAT, Api.CHAT, lease=lease)
        other.close()
        for routed in (second, third):
            with pytest.raises(LookupError):
                routed.done()
    first.done()
    fourth.done()
    assert router.stats().bookings == 0


def test_a_buffer_cannot_be_resized_while_it_is_used():
    """And is free again afterwards, also after an error."""
    body = bytearray(CHAT)
    with pdroute._buffer.View(body):
        with pytest.raises(BufferError):
            body.append(1)
    body.append(ord(" "))
    with pytest.raises(pdroute.ParseError):
        scan(bytearray(b"{"), Api.CHAT)
    with make() as router:
        for bad in (bytearray(b"{"), memoryview(b"{")):
            with pytest.raises(pdroute.ParseError):
                router.route(bad)
            if isinstance(bad, bytearray):
                bad.append(1)


def test_what_is_no_buffer(router):
    for wrong in ("text", None, 5, memoryview(CHAT)[::2]):
        with pytest.raises((TypeError, BufferError)):
            router.route(wrong)
    assert router.stats().bookings == 0


def test_errors_say_where(router, lease):
    with pytest.raises(pdroute.ParseError) as caught:
        router.route(b'{"messages":[{"role":"user","content":"x"}],\n"max_tokens": 01}', lease=lease)
    error = caught.value
    assert isinstance(error, pdroute.Error) and isinstance(error, ValueError)
    assert error.line == 2 and 58 <= error.offset <= 60 and error.message and error.http_status == 400
    assert f"byte offset {error.offset}, line 2" in str(error)
    assert not router.route(CHAT, lease=lease).held  # no text of the last error is left
    with pytest.raises(pdroute.UnsupportedError):
        router.route(b'{"text":"a","sampling_params":{"n":2}}', Api.GENERATE, lease=lease)
    with pytest.raises(pdroute.LeaseError):
        router.route(CHAT, lease=12345)
    with pytest.raises(pdroute.NoPairError) as caught:
        with make(prefills=0) as other, other.lease("x") as its:
            other.route(CHAT, lease=its)
    assert caught.value.http_status == 503
    with pytest.raises(TypeError):
        router.route(CHAT, lease=lease, colour=1)


def test_route_batch(router, lease):
    bodies = [CHAT, b"{", bytearray(CHAT), b'{"messages":1', memoryview(CHAT)]
    found = router.route_batch(bodies, lease=lease)
    assert [type(each).__name__ for each in found] == ["Routed", "ParseError", "Routed", "ParseError", "Routed"]
    first, second, third = found[0], found[2], found[4]
    assert third.held and not first.held and not second.held  # there are two prefill servers
    assert len({first.decision.room, second.decision.room}) == 2 and router.stats().bookings == 3
    with pytest.raises(pdroute.InvalidError):
        third.rewrite(Leg.PREFILL)  # it has no room yet
    for each in (first, second):
        assert json.loads(each.rewrite(Leg.PREFILL))["bootstrap_room"] == each.decision.room
        each.done()
    assert third.take() and json.loads(third.rewrite(Leg.DECODE))["bootstrap_room"] == third.decision.room > 0
    third.done()
    assert router.stats().bookings == 0


def test_members_of_a_body():
    body = b'{"messages":[],"sampling_params":{"n":3},"mess\\u0061ges":[{}]}'
    begin, end = pdroute.body_member(body, "messages")
    assert body[begin:end] == b"[{}]"
    begin, end = pdroute.body_member(body, "sampling_params")
    assert pdroute.body_member(body[begin:end], "n") == (5, 6)
    assert pdroute.body_member(body, "n") is None
    with pytest.raises(pdroute.ParseError):
        pdroute.body_member(b"[]", "n")


def test_scan_and_hashes(router, lease):
    scanned = scan(LONG, Api.CHAT)
    assert len(scanned.hashes) == scanned.prompt.blocks > 30
    ids = list(range(1, 3000))
    assert hash_tokens(ids) == hash_tokens(array("I", ids)) == scan(json.dumps({"input_ids": ids}).encode(), Api.GENERATE).hashes
    decision = router.route_prompt(scanned.prompt, scanned.hashes, lease=lease)
    router.booking_done(decision.booking)
    again = router.route_prompt(scanned.prompt, scanned.hashes, lease=lease, flags=RequestFlag.DRY)
    assert again.outcome == Outcome.SEND and again.room == 0  # nothing is booked, no room either
    with pytest.raises(pdroute.InvalidError):
        pdroute.rewrite(again, scanned.prompt, Leg.DECODE, LONG)
    assert again.prefill == decision.prefill and again.matched_tokens > 0
    other = router.route_prompt(scanned.prompt, scanned.hashes, lease=lease, flags=RequestFlag.DRY, exclude=[decision.prefill])
    assert other.prefill != decision.prefill
    with pytest.raises(ValueError):
        router.route_prompt(scanned.prompt, b"123", lease=lease)


def test_batches_and_long_tails(router, lease):
    body = json.dumps({"text": [f"prompt {i}" for i in range(200)], "sampling_params": {"max_new_tokens": 1}}).encode()
    routed = router.route(body, Api.GENERATE, lease=lease)
    rooms = [room(routed.decision, i) for i in range(200)]
    assert len(set(rooms)) == 200 and json.loads(routed.rewrite(Leg.DECODE))["bootstrap_room"] == rooms
    assert len(rewrite_tail(routed.decision, routed.prompt, Leg.DECODE)) > 2000
    assert b"".join(rewrite_pieces(routed.decision, routed.prompt, Leg.DECODE, body)) == routed.rewrite(Leg.DECODE)
    routed.done()
    single = router.route(CHAT, lease=lease)
    assert len(rewrite_tail(single.decision, single.prompt, 0, pad_to=400)) == 400
    with pytest.raises(pdroute.NoSpaceError):
        rewrite_tail(single.decision, single.prompt, 0, pad_to=5)
    single.done()


def test_a_body_of_megabytes(router, lease):
    body = b'{"prompt":"' + b"x" * (20 << 20) + b'"}'
    with router.route(body, Api.COMPLETIONS, lease=lease) as routed:
        assert len(routed.rewrite(Leg.PREFILL)) == len(body) + len(rewrite_tail(routed.decision, routed.prompt, 0))
    with pytest.raises(pdroute.TooLargeError):
        router.route(b'{"prompt":"' + b"x" * (33 << 20) + b'"}', Api.COMPLETIONS, lease=lease)


def test_held_requests():
    with make(1, 1, hold_window_tokens=1000) as router, router.lease("me") as lease:
        first = router.route(LONG, lease=lease)
        held = router.route(LONG.replace(b"word", b"talk"), lease=lease)
        assert not first.held and held.held and not held.take() and router.stats().held_now == 1
        assert held.prefill == held.decode == ""
        place = router.place(held.booking)
        assert (place.outcome, place.place, place.held) == (Outcome.HELD, 0, 1) and place.size_us > 0 and place.left_us > 0
        other = scan(LONG.replace(b"word", b"verb"), Api.CHAT)
        place = router.explain_place(other.prompt, other.hashes)
        assert (place.outcome, place.place, place.held) == (Outcome.HELD, 1, 1) and place.ahead_us > 0
        assert router.explain_place(other.prompt, other.hashes, priority=1).place == 0
        assert router.explain_place(other.prompt, other.hashes, flags=RequestFlag.NO_HOLD).outcome == Outcome.SEND
        first.done()
        assert router.wakeups() == [lease.id]
        assert router.released(lease) == [held.booking]
        assert router.released(lease) == []
        assert held.take() and not held.held and held.decode and held.decision.room != first.decision.room
        assert json.loads(held.rewrite(Leg.DECODE))["bootstrap_room"] == held.decision.room
        with pytest.raises(pdroute.NotFoundError):
            router.take(held.booking)
        with pytest.raises(pdroute.NotFoundError, match="held no more"):
            router.place(held.booking)
        with router.route(LONG.replace(b"word", b"sing"), lease=lease) as third:
            assert third.held
        assert router.stats().held_now == 0  # left: its place was given up
        held.done()


def test_endpoints(router):
    assert [e.name for e in router.endpoints().values()] == ["s0", "s1", "s2"]
    assert router.find("s1") == 1 and router.endpoint("s1").host == "10.0.0.2" and router.state("s1") == State.READY
    router.drain("s1")
    assert router.state(1) == State.DRAINING
    router.drain("s1", False)
    router.health("s1", False)
    assert router.state("s1") == State.DOWN
    router.health("s1", True)
    assert router.put(Endpoint(role=Role.PREFILL, port=8001, name="s1", host="10.0.0.9", labels="a=b\nc=d")) == 1
    assert router.endpoint("s1").labels == "a=b\nc=d"
    with pytest.raises(pdroute.ExistsError):
        router.put(Endpoint(role=Role.PREFILL, port=8001, name="other", host="10.0.0.9"))
    router.remove("s1")
    with pytest.raises(pdroute.NotFoundError, match="s1"):
        router.find("s1")
    report = router.apply({"endpoints": [{"role": "decode", "url": "http://10.1.0.1:8000", "name": "d9"}]}, prune=True)
    assert report.added == 1 and report.removed == 2 and list(e.name for e in router.endpoints().values()) == ["d9"]
    with pytest.raises(pdroute.ParseError):
        router.apply("{")


def test_reports_and_loads(router):
    assert router.report("s2", Report.PROMETHEUS, "sglang:num_running_reqs 3\nsglang:num_queue_reqs 1\n") == 0
    assert (router.target("s2").reported_running, router.target("s2").reported_waiting) == (3, 1)
    router.load("s2", running=9, kv_capacity=5000, usage_permille=300)
    assert (router.target("s2").reported_running, router.target("s2").reported_waiting, router.target("s2").kv_capacity) == (9, 1, 5000)
    with pytest.raises(pdroute.ParseError):
        router.report("s2", Report.LOADS, "no JSON")
    with pytest.raises(KeyError):
        router.load("s2", struct_size=1)


def test_prefixes(router):
    hashes = scan(LONG, Api.CHAT).hashes
    router.prefix_store("s0", hashes[:20])
    assert router.prefix_match("s0", hashes) == 20 and router.prefix_match("s1", hashes) == 0
    router.prefix_remove("s0", hashes[10:20])
    assert router.prefix_match("s0", hashes) == 10
    router.prefix_clear("s0")
    assert router.prefix_match("s0", hashes) == 0


def test_seeing(router, lease):
    router.drain("s0")
    with router.route_scanned(CHAT, lease=lease) as routed:
        explained = router.explain(routed.prompt, routed.hashes)
        barred = {c.endpoint: c.barred for c in explained.candidates}
        assert barred == {0: Barred.DRAINING, 1: Barred.BUSY, 2: Barred.NO} and explained.decision.prefill == 1
        (cursor, record), = router.log()
        assert record.room == routed.decision.room and record.prefill == 1 and list(router.log(cursor)) == []
    assert router.stats().routed == 1 and router.status()["routed"] == 1
    assert b"pdroute_" in router.status_prometheus() and json.loads(router.status_json())
    assert router.ready()
    router.drain("s1")
    assert not router.ready()


def test_numbers_that_a_field_cannot_hold():
    """ctypes would take their low bits: a port of 2^32 + 80 were 80."""
    for make, name, value in ((Endpoint, "port", 2**32 + 80), (Endpoint, "port", -1), (Config, "max_endpoints", 2**32 + 5), (Config, "seed", 2**64)):
        with pytest.raises(OverflowError, match=name):
            make(**{name: value})
    assert Endpoint(port=65535).port == 65535 and Config(seed=2**64 - 1).seed == 2**64 - 1


def test_configuration():
    config = config_from_json('{"policy": "random", "bootstrap_port": 34000, "endpoints": []}')
    assert config.policy == Policy.RANDOM and config.bootstrap_port == 34000 and config.max_endpoints == 0
    assert pdroute.resolve(config).max_endpoints == 1024
    with pytest.raises(pdroute.ParseError) as caught:
        config_from_json('{\n"policy": "x"}')
    assert caught.value.line == 2
    with pytest.raises(pdroute.InvalidError, match="block_bytes"):
        Router.create(Config(block_bytes=3))
    with pytest.raises(TypeError, match="colour"):
        Config(colour=1)
    assert Router.size(Config()) > Router.size(Config(max_endpoints=4, max_bookings=16))


def test_tenants():
    """Two that were held: the one whose tenant had less goes first."""
    config = pdroute.resolve(config_from_json('{"tenant_header": "X-Team"}'))
    assert config.tenant_header == "x-team"
    greedy, modest = (pdroute.tenant_hash(config, b"x-team", name) for name in (b"greedy", b"modest"))
    assert 0 != greedy != modest != 0 and greedy == pdroute.tenant_hash(config, b"X-Team", b" greedy ")
    assert pdroute.tenant_hash(config, b"x-teams", b"greedy") == 0 == pdroute.tenant_hash(Config(), b"x-team", b"greedy")
    with make(1, 1, hold_window_tokens=1000) as router, router.lease("me") as lease:
        running = router.route(LONG, lease=lease, tenant=greedy)
        held = [router.route(LONG.replace(b"word", word), lease=lease, tenant=who) for word, who in ((b"talk", greedy), (b"sing", modest))]
        assert all(each.held for each in held)
        running.done()
        assert router.released(lease) == [held[1].booking]
        for each in held:
            each.cancel()


def test_attach_and_restore():
    with make() as router:
        with Router.attach(router.memory) as again:
            assert again.find("s1") == 1 and again.config().max_endpoints == 16
        with pytest.raises(pdroute.BlockConfigError):
            Router.attach(router.memory, Config(max_endpoints=17))
        with pytest.raises(pdroute.BlockBootError) as caught:
            Router.attach(router.memory, boot=2)
        assert isinstance(caught.value, pdroute.BlockError)
        with Router.restore(router.memory, boot=2, seed=9) as restored:
            assert restored.find("s2") == 2


def test_closed():
    router = make()
    lease = router.lease("x")
    router.close()
    for call in (router.stats, lambda: router.route(CHAT, lease=lease), lambda: router.put(Endpoint())):
        with pytest.raises(ctypes.ArgumentError):
            call()


def test_text():
    e = Endpoint(name="ü" * 60)
    assert e.name == "ü" * 60
    with pytest.raises(ValueError):
        e.name = "ü" * 64  # 128 bytes and no NUL
    with pytest.raises(ValueError):
        e.name = "a\0b"
    e.name = b"\xff".decode("utf-8", "surrogateescape")
    assert e.name.encode("utf-8", "surrogateescape") == b"\xff"
    assert "name=" in repr(e) and e.copy().asdict() == e.asdict()


def test_threads():
    with make(4, 2) as router, router.lease("threads") as lease:
        rooms, failures = [], []

        def work(k):
            try:
                for i in range(300):
                    body = json.dumps({"messages": [{"role": "user", "content": f"thread {k} says {i}"}]}).encode()
                    routed = router.route(body if i % 2 else bytearray(body), lease=lease, flags=RequestFlag.NO_HOLD)
                    rooms.append(routed.decision.room)
                    assert json.loads(routed.rewrite(i % 2))["messages"][0]["content"] == f"thread {k} says {i}"
                    routed.done()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not failures and len(set(rooms)) == 1800 and router.stats().bookings == 0
        router.check()


def test_others_run_while_it_decides(router, lease):
    body = b'{"prompt":"' + b"x" * (30 << 20) + b'"}'
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.0002)

    other = threading.Thread(target=tick)
    other.start()
    inside = 0
    for _ in range(10):
        began = time.monotonic()
        router.route(body, Api.COMPLETIONS, lease=lease).done()
        ended = time.monotonic()
        inside += sum(began < t < ended for t in ticks)
    done.set()
    other.join()
    assert inside > 0


def test_memory_is_flat(router, lease):
    def rounds(n):
        for i in range(n):
            with router.route(bytearray(CHAT) if i % 2 else CHAT, lease=lease) as routed:
                routed.rewrite(i % 2)
                routed.pieces(i % 2)
            with pytest.raises(pdroute.ParseError):
                router.route(b"{" * (i % 50 + 1), lease=lease)
        gc.collect()
        return int(open("/proc/self/statm").read().split()[1])

    # What leaks leaks every time; what the allocator takes once (other tests have left it threads' arenas) it does not take again.
    pages = [rounds(2000) for _ in range(5)]
    grown = [after - before for before, after in zip(pages, pages[1:])]
    assert min(grown) < 16, grown  # less than 17 bytes a call
