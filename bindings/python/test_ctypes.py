"""libpdroute through ctypes alone: no glue code, structs from tests/abi/layout.txt.

    PDR_LIBRARY=build/lib/libpdroute.so python3 -m pytest bindings/python/test_ctypes.py
"""
import ctypes
import json
import os
import re
import threading
import time
import unittest

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SECOND = 10**9
CHAT = '{"model": "/models/Qwen3-32B", "bootstrap_room": 5, "messages": [{"role": "user", "content": "你好,这是一个测试"}], "max_tokens": 50 }'.encode()


def read_layout():
    """Constants, and a ctypes.Structure for each public struct."""
    basic = {"uint32_t": ctypes.c_uint32, "int32_t": ctypes.c_int32, "uint64_t": ctypes.c_uint64, "int64_t": ctypes.c_int64,
             "char": ctypes.c_char, "const char *": ctypes.c_char_p, "void *": ctypes.c_void_p}
    consts, structs, sizes, fields = {}, dict(basic), {}, {}
    for line in open(os.path.join(TOP, "tests", "abi", "layout.txt"), encoding="utf-8"):
        part = line.rstrip("\n").split(" ", 5)
        if part[0] == "const":
            consts[part[1]] = int(part[2])
        elif part[0] == "struct":
            sizes[part[1]], fields[part[1]] = int(part[2]), []
        elif part[0] == "field":
            fields[part[1]].append((part[2], part[5]))
    def build(name):
        if name in structs:
            return structs[name]
        members = []
        for field, kind in fields[name]:
            base, dims = re.fullmatch(r"([^\[]+)((?:\[\d+\])*)", kind).groups()
            member = build(base)
            for n in reversed(re.findall(r"\d+", dims)):
                member = member * int(n)
            members.append((field, member))
        structs[name] = type(name, (ctypes.Structure,), {"_fields_": members})
        assert ctypes.sizeof(structs[name]) == sizes[name], name
        return structs[name]
    return consts, {name: build(name) for name in fields}


C, S = read_layout()
PDR = ctypes.CDLL(os.environ.get("PDR_LIBRARY", os.path.join(TOP, "build", "lib", "libpdroute.so")))
PDR.pdr_router_size.restype = ctypes.c_size_t
PDR.pdr_strerror.restype = PDR.pdr_version_string.restype = ctypes.c_char_p
PDR.pdr_decision_room.restype = PDR.pdr_exchange_deadline.restype = ctypes.c_uint64
u64, ref = ctypes.c_uint64, ctypes.byref


def new(kind, **values):
    s = S[kind]()
    s.struct_size = ctypes.sizeof(s)
    for field, value in values.items():
        setattr(s, field, value)
    return s


class Fleet:
    """A router in memory of its own, with servers p0…, d0…"""

    def __init__(self, prefills=2, decodes=1, **config):
        self.config = new("pdr_config", max_endpoints=16, max_bookings=256, index_entries=4096, seed=7, **config)
        size = PDR.pdr_router_size(ref(self.config))
        self.memory = ctypes.create_string_buffer(size + 64)
        self.router, self.now = ctypes.c_void_p(), 1000 * SECOND
        at = (ctypes.addressof(self.memory) + 63) & ~63
        self.call(PDR.pdr_router_init, ctypes.c_void_p(at), ctypes.c_size_t(size), ref(self.config), u64(1), ref(self.router))
        for i in range(prefills + decodes):
            role = C["PDR_ROLE_PREFILL"] if i < prefills else C["PDR_ROLE_DECODE"]
            e = new("pdr_endpoint", role=role, port=8000, name=b"s%d" % i, host=b"10.0.0.%d" % (i + 1))
            self.call(PDR.pdr_endpoint_put, self.router, ref(e), u64(self.now), None)
        lease = ctypes.c_uint32()
        self.call(PDR.pdr_lease_open, self.router, b"python", u64(self.now), ref(lease))
        self.lease = lease.value

    def call(self, function, *args):
        err = new("pdr_error")
        code = function(*args, ref(err))
        if code:
            raise OSError(code, err.message.decode())

    def request(self, **values):
        return new("pdr_request", api=C["PDR_API_CHAT"], lease=self.lease, now_ns=self.now, **values)

    def route(self, body, **values):
        prompt, decision = new("pdr_prompt"), new("pdr_decision")
        self.call(PDR.pdr_route, self.router, body, ctypes.c_size_t(len(body)), ref(self.request(**values)), ref(prompt), ref(decision))
        return prompt, decision

    def stats(self):
        s = new("pdr_stats")
        assert PDR.pdr_stats_get(self.router, ref(s)) == 0
        return s


def rewrite(decision, prompt, leg, body):
    need = ctypes.c_size_t()
    PDR.pdr_rewrite(ref(decision), ref(prompt), leg, body, ctypes.c_size_t(len(body)), None, ctypes.c_size_t(0), ref(need))
    out = ctypes.create_string_buffer(need.value)
    assert PDR.pdr_rewrite(ref(decision), ref(prompt), leg, body, ctypes.c_size_t(len(body)), out, need, ref(need)) == 0
    return out.raw


class Ctypes(unittest.TestCase):
    def test_versions(self):
        self.assertEqual(PDR.pdr_abi_version(), C["PDR_ABI_VERSION"])
        self.assertRegex(PDR.pdr_version_string().decode(), r"^\d+\.\d+\.\d+$")
        self.assertEqual(PDR.pdr_http_status(C["PDR_E_QUEUE_FULL"]), 429)

    def test_route_and_rewrite(self):
        f = Fleet()
        prompt, d = f.route(CHAT)
        self.assertEqual(d.outcome, C["PDR_SEND"])
        self.assertEqual(d.decode_host, b"10.0.0.3")
        for leg in (C["PDR_LEG_PREFILL"], C["PDR_LEG_DECODE"]):
            body = json.loads(rewrite(d, prompt, leg, CHAT))
            self.assertEqual(body.pop("bootstrap_room"), d.room)
            self.assertEqual(body.pop("bootstrap_host"), d.prefill_host.decode())
            self.assertEqual(body.pop("bootstrap_port"), 8998)
            original = json.loads(CHAT)
            original.pop("bootstrap_room")
            self.assertEqual(body, original)

    def test_slices_and_any_buffer_without_copying(self):
        f = Fleet()
        body = bytearray(CHAT)  # what a server has read; a memoryview works as well
        raw = (ctypes.c_char * len(body)).from_buffer(body)
        prompt, d = f.route(raw)
        tail, need, n = ctypes.create_string_buffer(512), ctypes.c_size_t(), ctypes.c_size_t(C["PDR_MAX_SLICES"])
        self.assertEqual(PDR.pdr_rewrite_tail(ref(d), ref(prompt), 0, ctypes.c_size_t(0), tail, ctypes.c_size_t(512), ref(need)), 0)
        slices = (S["pdr_slice"] * C["PDR_MAX_SLICES"])()
        self.assertEqual(PDR.pdr_rewrite_slices(ref(prompt), ctypes.c_size_t(len(body)), need, slices, ref(n)), 0)
        sources = (memoryview(body), memoryview(tail)[:need.value].cast("B"))
        pieces = [sources[s.source][s.offset:s.offset + s.length] for s in slices[:n.value]]
        self.assertEqual(b"".join(pieces), rewrite(d, prompt, 0, bytes(body)))

    def test_errors_carry_a_sentence(self):
        f = Fleet()
        with self.assertRaises(OSError) as e:
            f.route(b'{"messages": [}')
        self.assertEqual(e.exception.errno, C["PDR_E_PARSE"])
        self.assertTrue(e.exception.strerror)

    def test_exchange(self):
        f = Fleet()
        _, d = f.route(CHAT)
        x, actions, n = new("pdr_exchange"), (S["pdr_action"] * C["PDR_MAX_ACTIONS"])(), ctypes.c_size_t(C["PDR_MAX_ACTIONS"])
        self.assertEqual(PDR.pdr_exchange_begin(f.router, ref(x), ref(d), f.lease, u64(f.now), actions, ref(n)), 0)
        self.assertEqual({(a.type, a.leg) for a in actions[:n.value]}, {(C["PDR_ACT_SEND"], 0), (C["PDR_ACT_SEND"], 1)})
        seen = []
        for event, leg in (("HEAD", 1), ("BODY", 1), ("SENT", 1), ("HEAD", 0), ("BODY", 0), ("END", 0), ("END", 1)):
            ev = new("pdr_event", type=C["PDR_EV_" + event], leg=leg, status=200, attempt=x.attempt, now_ns=f.now, usage=1, prompt_tokens=20, completion_tokens=9)
            n.value = C["PDR_MAX_ACTIONS"]
            self.assertEqual(PDR.pdr_exchange_event(f.router, ref(x), ref(ev), actions, ref(n)), 0)
            seen += [a.type for a in actions[:n.value]]
        self.assertIn(C["PDR_ACT_RELAY"], seen)
        self.assertEqual(seen[-1], C["PDR_ACT_FINISH"])
        self.assertEqual((f.stats().bookings, f.stats().finished, f.stats().rooms_live), (0, 1, 0))

    def test_tickets(self):
        f = Fleet(1, 1, hold_window_tokens=1000)
        long = json.dumps({"messages": [{"role": "user", "content": "word " * 4000}]}).encode()
        _, first = f.route(long)
        _, held = f.route(long.replace(b"word", b"talk"))
        self.assertEqual((first.outcome, held.outcome), (C["PDR_SEND"], C["PDR_HELD"]))
        taken = new("pdr_decision")
        def take():
            return PDR.pdr_ticket_take(f.router, u64(held.booking), None, ctypes.c_size_t(0), u64(f.now), ref(taken), None)
        self.assertEqual(take(), C["PDR_E_AGAIN"])
        self.assertEqual(PDR.pdr_booking_done(f.router, u64(first.booking), C["PDR_DONE_ALL"], u64(f.now)), 0)
        leases, n = (ctypes.c_uint32 * 4)(), ctypes.c_size_t(4)
        self.assertEqual(PDR.pdr_wakeups(f.router, leases, ref(n)), 0)
        self.assertEqual(leases[:n.value], [f.lease])
        tickets, n = (ctypes.c_uint64 * 4)(), ctypes.c_size_t(4)
        self.assertEqual(PDR.pdr_released(f.router, f.lease, tickets, ref(n)), 0)
        self.assertEqual(tickets[:n.value], [held.booking])
        self.assertEqual(take(), 0)
        self.assertEqual(taken.outcome, C["PDR_SEND"])
        self.assertNotEqual(taken.room, first.room)
        self.assertEqual(take(), C["PDR_E_NOT_FOUND"])

    def test_threads(self):
        f, rooms, failures = Fleet(4, 2), [], []
        def work(k):
            try:
                for i in range(300):
                    body = json.dumps({"messages": [{"role": "user", "content": "thread %d says %d" % (k, i)}]}).encode()
                    _, d = f.route(body, flags=C["PDR_REQUEST_NO_HOLD"])
                    rooms.append(d.room)
                    PDR.pdr_booking_done(f.router, u64(d.booking), C["PDR_DONE_ALL"], u64(f.now))
            except Exception as e:  # shown by the assertion below
                failures.append(e)
        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(failures, [])
        self.assertEqual(len(set(rooms)), 1800)
        self.assertEqual(f.stats().bookings, 0)
        f.call(PDR.pdr_router_check, f.router)

    def test_others_run_during_a_call(self):
        """Calls release Python's lock: another thread goes on while one long call is under way."""
        body = b'{"prompt":"' + b"x" * (30 << 20) + b'"}'
        prompt, ticks, done = new("pdr_prompt"), [], threading.Event()
        def tick():
            while not done.is_set():
                ticks.append(time.monotonic())
                time.sleep(0.0002)
        other = threading.Thread(target=tick)
        other.start()
        inside = 0
        for _ in range(20):
            began = time.monotonic()
            self.assertEqual(PDR.pdr_scan(body, ctypes.c_size_t(len(body)), C["PDR_API_COMPLETIONS"], None, ref(prompt), None, ctypes.c_size_t(0), None), 0)
            ended = time.monotonic()
            inside += sum(began < t < ended for t in ticks)
        done.set()
        other.join()
        self.assertGreater(inside, 0)


if __name__ == "__main__":
    unittest.main()
