"""Every command: what it prints, what it changes, its exit code."""

import json
import re
import subprocess
import time

import pytest

from conftest import CTL, QUICKSTART, SMALL
from router import Router

BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"' + b"a long enough prompt " * 200 + b'"}]}'


def names(ctl):
    return [e["name"] for e in json.loads(ctl("list", "--json"))]


def endpoint(ctl, name):
    return next(e for e in json.loads(ctl("list", "--json")) if e["name"] == name)


# ---------------------------------------------------------------------------------------------------------- usage and help

def run(*args):
    done = subprocess.run([CTL, *args], capture_output=True, env={"PATH": "/usr/bin"})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


COMMANDS = "create apply put drain undrain remove list probe top log explain record replay check stats".split()


def test_help_names_every_command():
    code, out, err = run("--help")
    assert code == 0 and not err
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", out, re.M)
    assert run("help") == run("--help") == run("-h")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name):
    code, out, err = run(name, "--help")
    assert code == 0 and not err and out.startswith(f"usage: pdroutectl [--block PATH] {name}")
    assert run("help", name) == (0, out, "")


@pytest.mark.parametrize("args", [[], ["nope"], ["--nope"], ["list", "--nope"], ["list", "extra"], ["create", "x"], ["apply"], ["apply", "x.yaml"],
                                  ["put"], ["put", "a", "b"], ["put", "a"], ["drain"], ["undrain"], ["remove"], ["explain"], ["top", "-i", "0"], ["log", "-n", "x"],
                                  ["probe", "--interval", "0"], ["probe", "--timeout", "x"], ["stats", "--json", "--status"], ["record"], ["record", "a", "b"], ["record", "a", "--seconds", "0"], ["replay"], ["replay", "a", "--policy", "best"], ["check", "x"], ["list"]])
def test_wrong_usage_is_2_and_points_at_help(args):
    code, out, err = run(*args)
    assert code == 2 and not out and ("--help" in err or "usage:" in err)


def test_version():
    assert re.fullmatch(r"pdroutectl \d+\.\d+\.\d+\n", run("--version")[1])


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("create", "replay")])
def test_without_a_block_each_command_says_the_path(bare, name):
    extra = {"apply": ["-f", bare.file("a.yaml", "a: 1")], "put": ["n", "--role", "decode", "--host", "h", "--port", "1"], "drain": ["x"],
             "undrain": ["x"], "remove": ["x"], "explain": [bare.file("b.json", BODY)], "record": ["f"]}.get(name, [])
    assert str(bare.block) in bare(name, *extra, code=1)


def test_block_option_wins_and_goes_anywhere(ctl):
    assert "no endpoints" in ctl("list", "--block", ctl.block, env={"PDROUTE_BLOCK": "/nope"})
    assert "no endpoints" in ctl("--block", ctl.block, "list", env={"PDROUTE_BLOCK": "/nope"})
    assert "no endpoints" in ctl("-b", ctl.block, "list", env={"PDROUTE_BLOCK": "/nope"})
    assert "/nope" in ctl("list", code=1, env={"PDROUTE_BLOCK": "/nope"})


def test_output_that_cannot_be_written_is_a_failure(pd):
    with open("/dev/full", "w") as full:
        done = subprocess.run([CTL, "--block", pd.block, "list"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"No space left" in done.stderr


# ------------------------------------------------------------------------------------------------------------------ create

def test_create(bare):
    assert "created: " in bare("create")
    assert "is there already" in bare("create")
    assert oct(bare.block.stat().st_mode & 0o777) == "0o660"
    yaml = bare.file("c.yaml", "policy: round_robin   # another one\nmax_endpoints: 16\n")
    said = bare("create", "-c", yaml, code=1)
    assert "another configuration" in said and "--force" in said
    assert "created anew" in bare("create", "-c", yaml, "--force")
    assert "up to 16 endpoints" in bare("create", "-c", yaml)


def test_create_says_what_is_wrong_with_a_configuration(bare):
    assert "c.json" in (said := bare("create", "-c", bare.file("c.json", '{"max_endpoint": 3}'), code=1)) and "max_endpoint" in said
    said = bare("create", "-c", bare.file("c.yaml", "# hello\nmax_held: 5\npolicy: best\n"), code=1)
    assert "c.yaml: document 1, line 3: " in said
    assert "one document, not 2" in bare("create", "-c", bare.file("d.yaml", "max_held: 5\n---\nmax_held: 6\n"), code=1)
    assert "line 2" in bare("create", "-c", bare.file("e.json", '{"max_held": 5,\n "max_bookings": }'), code=1)
    assert not bare.block.exists()


def test_create_replaces_damage_only_when_forced(bare):
    bare.block.write_bytes(b"something precious")
    assert "not a router block" in bare("create", code=1)
    assert "not a router block" in bare("create", "--restore", code=1)
    assert bare.block.read_bytes() == b"something precious"
    assert "created anew" in bare("create", "--force")


def test_create_where_nobody_may(bare):
    assert "/proc/nothing" in bare("--block", "/proc/nothing/block", "create", code=1)
    assert "directory" in bare("--block", str(bare.file("plain", "x")) + "/block", "create", code=1)


# ------------------------------------------------------------------------------------------------------ put, drain, remove

def test_put_by_name(ctl):
    assert ctl("put", "p0", "--role", "prefill", "--host", "::1", "--port", 8000, "--bootstrap-port", 9000, "--bootstrap-host", "10.1.1.1", "--dp-size", 2,
               "--max-running", 64, "--kv-capacity", 123456, "--topology", "h1,r1,z1", "--label", "app=x", "--label", "b=", "--tls") == "p0 added\n"
    e = endpoint(ctl, "p0")
    assert (e["role"], e["host"], e["port"], e["tls"], e["bootstrap_host"], e["bootstrap_port"]) == ("prefill", "::1", 8000, True, "10.1.1.1", 9000)
    assert (e["dp_size"], e["max_running"], e["kv_capacity"], e["labels"]) == (2, 64, 123456, "app=x\nb=\n")
    assert (e["topology_host"], e["topology_rack"], e["topology_zone"]) == ("h1", "r1", "z1")
    assert [t["rank"] for t in e["targets"]] == [0, 1]
    text = ctl("list")
    assert "https://[::1]:8000" in text and "10.1.1.1:9000" in text and "p0/1" in text
    assert ctl("put", "p0", "--role", "decode", "--host", "::1", "--port", 8000) == "p0 updated\n"
    assert endpoint(ctl, "p0")["role"] == "decode"


@pytest.mark.parametrize("url,expect", [
    ("http://10.0.0.1:30000", ("10.0.0.1", 30000, False, 0)),
    ("http://10.0.0.1:30000/", ("10.0.0.1", 30000, False, 0)),
    ("http://10.0.0.1:30000@34000", ("10.0.0.1", 30000, False, 34000)),
    ("http://10.0.0.1:30000/@34000", ("10.0.0.1", 30000, False, 34000)),
    ("https://worker.example", ("worker.example", 443, True, 0)),
    ("http://worker.example@none", ("worker.example", 80, False, None)),
    ("http://[fe80::1]:30000@34000", ("fe80::1", 30000, False, 34000)),
])
def test_put_by_url(ctl, url, expect):
    ctl("put", url, "--role", "prefill")
    e = json.loads(ctl("list", "--json"))[0]
    assert (e["host"], e["port"], e["tls"], e["bootstrap_port"]) == expect


@pytest.mark.parametrize("args", [
    ["http://:1", "--role", "decode"], ["http://h:0", "--role", "decode"], ["http://h:99999", "--role", "decode"], ["http://h:1/x", "--role", "decode"],
    ["http://h:1@0", "--role", "decode"], ["http://[::1:1", "--role", "decode"], ["ftp://h:1", "--role", "decode"], ["http://h:1"], ["http://h:", "--role", "both"],
    ["http://h:1", "--role", "both", "--host", "x"], ["n", "--role", "wrong", "--host", "h", "--port", "1"], ["n", "--role", "both", "--host", "h"],
    ["n", "--role", "both", "--host", "h", "--port", "-1"], ["n", "--role", "both", "--host", "h" * 300, "--port", "1"],
    ["n" * 200, "--role", "both", "--host", "h", "--port", "1"], ["n", "--role", "both", "--host", "h", "--port", "1", "--label", "x"],
    ["n", "--role", "both", "--host", "h", "--port", "1", "--topology", "a,b,c,d"], ["n", "--role", "both", "--host", "h", "--port", "1", "--dp-size", "0"],
    ["n", "--role", "both", "--host", "h", "--port", "1", "--dp-size", "1025"],
])
def test_put_refuses(ctl, args):
    ctl("put", *args, code=2)
    assert names(ctl) == []


def test_put_reports_the_routers_refusal(pd):
    said = pd("put", "other", "--role", "decode", "--host", "10.0.0.3", "--port", 8000, code=1)
    assert str(pd.block) in said and "d0" in said


def test_drain_and_remove(pd):
    assert pd("drain", "p0", "d0") == "p0 draining (0 under way)\nd0 draining (0 under way)\n"
    assert endpoint(pd, "p0")["state"] == "draining"
    assert pd("undrain", "p0") == "p0 ready (0 under way)\n"
    assert endpoint(pd, "p0")["state"] == "ready" and endpoint(pd, "d0")["state"] == "draining"
    assert "there is no endpoint 'px'" in pd("drain", "p1", "px", code=1)
    assert endpoint(pd, "p1")["state"] == "ready"  # a typing error changes nothing
    assert "there is no endpoint 'px'" in pd("remove", "p1", "px", code=1)
    assert pd("remove", "p1", "px", "--missing-ok") == "p1 removed\n"
    assert names(pd) == ["p0", "d0"]


def test_drain_waits_for_requests(pd):
    r = Router(pd.block)
    code, d = r.route(BODY)
    assert code == 0
    busy = pd("list", "--json")
    name = next(e["name"] for e in json.loads(busy) if e["role"] == "prefill" and e["targets"][0]["prefill_requests"])
    assert "1 request is still under way" in pd("drain", name, "--wait=1", code=1)
    waiting = pd.start("drain", name, "--wait")
    time.sleep(0.5)
    assert waiting.poll() is None
    r.done(d)
    assert waiting.wait(5) == 0
    r.close()


# ------------------------------------------------------------------------------------------------------------------- apply

def test_apply_the_guides_yaml(ctl):
    files = [f"-f{QUICKSTART / n}" for n in ("pods.yaml", "inferencepool.yaml", "inferencetrafficpolicy.yaml")]  # in any order
    assert "3 added, 0 updated, 0 removed, 0 unchanged" in ctl("apply", *files)
    assert sorted(names(ctl)) == ["sglang-pd-decode-0", "sglang-pd-prefill-0", "sglang-pd-prefill-1"]
    e = endpoint(ctl, "sglang-pd-prefill-0")
    assert (e["role"], e["host"], e["port"], e["topology_host"]) == ("prefill", "127.0.0.11", 8000, "node-a")
    assert "3 unchanged" in ctl("apply", *files)
    ctl("put", "http://10.9.9.9:1", "--role", "decode", "--name", "stray")
    assert "1 removed" in ctl("apply", "--prune", *files)
    assert "stray" not in names(ctl)
    assert ctl("check", "--ready").endswith("ready\n")


def test_apply_standard_input_and_own_form(ctl):
    own = 'endpoints:\n- {name: a, role: decode, url: "http://10.0.0.1:1"}\n- {name: b, role: prefill, host: 10.0.0.2, port: 2}\n'
    assert "2 added" in ctl("apply", "-f", "-", stdin=own.encode())
    assert sorted(names(ctl)) == ["a", "b"]


def test_apply_is_all_or_nothing_and_names_the_place(ctl):
    good = ctl.file("good.yaml", "endpoints:\n- {name: a, role: decode, url: 'http://10.0.0.1:1'}\n")
    bad = ctl.file("bad.yaml", "# comment\nendpoints:\n- name: b\n  role: decode\n  host: h\n  port: 1\n- name: c\n  role: judge\n  host: h\n  port: 2\n")
    said = ctl("apply", "-f", good, "-f", bad, code=1)
    assert re.search(r"bad\.yaml: document 1, line [78]: ", said), said
    assert names(ctl) == []
    said = ctl("apply", "-f", bad, "-f", good, code=1)
    assert re.search(r"bad\.yaml: document 1, line [78]: ", said), said
    js = ctl.file("bad.json", '{"endpoints": [\n {"name": "b",\n  "role": "judge", "host": "h", "port": 1}]}')
    said = ctl("apply", "-f", good, "-f", js, code=1)
    assert "bad.json: line 3: " in said or "bad.json: line 2: " in said, said


MANY = """endpoints:
- {{name: a, role: decode, host: 10.0.0.1, port: 1}}
---
# nothing
---
apiVersion: v1
kind: Service
metadata:
  name: waits
status:
  phase: Pending

---
{}"""
MISTAKES = {  # in document 4, which begins in line 14
    "kind: InferencePool\napiVersion: inference.networking.k8s.io/v1\n": (14, "InferencePool without a name: spec is missing"),
    "kind: InferencePool\nspec:\n  selector: {}\n": (16, "InferencePool without a name: spec.selector"),
    "some text\n": (14, "a string was found"),
    "- endpoints: []\n- 7\n": (15, "a number was found"),
    "other: 1\n": (14, 'neither "endpoints" nor "pool"'),
    "endpoints:\n- {role: decode, host: 10.0.0.2, port: 1}\n- {name: a, role: decode, host: 10.0.0.3, port: 1}\n": (16, 'two endpoints have the name "a"'),
    "endpoints:\n- {role: decode, host: 10.0.0.2, port: 1}\n- {name: b,\n  role: decode, host: 10.0.0.1, port: 1}\n": (16, "have the same address 10.0.0.1 port 1"),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_apply_counts_documents_and_lines_as_the_file_does(ctl, text):
    """Empty documents count, numbers begin at 1, and no message has a number of its own that says otherwise."""
    line, message = MISTAKES[text]
    many = ctl.file("many.yaml", MANY.format(text))
    first = ctl.file("first.yaml", "# a file before\n\nendpoints:\n- {name: x, role: prefill, host: 10.0.9.9, port: 1}\n")
    for files in (("-f", many), ("-f", first, "-f", many), ("-f", many, "-f", first)):
        said = ctl("apply", *files, code=1)
        assert re.search(rf"many\.yaml: document 4, line {line}: ", said) and message in said, said
        assert not re.search(r"document \d", said.split(": ", 3)[3]), said


def test_apply_warns_about_what_it_does_not_know(ctl):
    pool = (QUICKSTART / "inferencepool.yaml").read_text() + "  sidecar: true\n"
    done = subprocess.run([CTL, "--block", ctl.block, "apply", "-f", "-"], input=pool.encode(), capture_output=True)
    assert done.returncode == 0 and b"warning: " in done.stderr and b"sidecar" in done.stderr


# ----------------------------------------------------------------------------------------- explain, log, top, stats, check

def test_explain(pd):
    body = pd.file("body.json", BODY)
    text = pd("explain", body)
    assert "chat" in text and "streamed" in text and re.search(r"decision  p[01] -> d0", text)
    for word in ("PREFILL", "DECODE", "p0", "p1", "d0", "CACHED", "UNCACHED", "WAIT", "WORK", "PRICE", "TRANSFER", "COST"):
        assert word in text
    assert len(re.findall(r"^\*", text, re.M)) == 2  # the chosen pair
    j = json.loads(pd("explain", "--json", body))
    assert j["outcome"] == "send" and j["prefill"] in ("p0", "p1") and j["decode"] == "d0"
    assert sum(k["chosen"] for k in j["candidates"]) == 2 and len(j["candidates"]) == 3
    assert json.loads(pd("stats", "--json"))["routed"] == 0  # nothing was decided
    assert json.loads(pd("explain", "--json", "-", stdin=BODY))["prefill"] == j["prefill"]


def test_explain_shows_the_prefix(pd):
    r = Router(pd.block)
    code, d = r.route(BODY)
    r.done(d)
    j = json.loads(pd("explain", "--json", pd.file("b.json", BODY)))
    assert j["matched_tokens"] > 0 and "(0%)" not in pd("explain", pd.file("b.json", BODY))
    r.close()


def test_explain_shows_the_place_in_the_queue(pd):
    r, body = Router(pd.block), pd.file("b.json", BODY)
    assert "queue" not in pd("explain", body) and "queue" not in json.loads(pd("explain", "--json", body))
    held = []
    for i in range(5):  # two prefill servers
        code, d = r.route(b'{"messages":[{"role":"user","content":"%s"}]}' % (b"%d " % i * 20000))
        assert code == 0
        held += [d.booking] if d.outcome == 2 else []
    assert len(held) == 3
    assert "it would wait: place 1 of 4" in pd("explain", body)  # it is the shortest
    assert json.loads(pd("explain", "--json", body))["queue"]["held"] == 3
    places = [json.loads(pd("explain", "--ticket", str(t), "--json")) for t in held]
    assert sorted(p["place"] for p in places) == [0, 1, 2] and all(p["held"] == 3 and p["left_us"] > 0 for p in places)
    assert re.search(r"held .* so far, at most .* more\nqueue +place [123] of 3, ", pd("explain", "--ticket", str(held[0])))
    assert "no such ticket" in pd("explain", "--ticket", "12345", code=1)
    pd("explain", "--ticket", "x", code=2)
    pd("explain", "--ticket", str(held[0]), body, code=2)
    r.close()


def test_explain_shows_who_would_serve_alone(pd):
    assert "alone" in pd("put", "d1", "--role", "prefill", "--alone", "--host", "127.0.0.9", "--port", 8000, code=1)  # only decode servers may
    pd("put", "d1", "--role", "decode", "--alone", "--host", "127.0.0.9", "--port", 8000)
    assert endpoint(pd, "d1")["alone"] is True
    body = pd.file("b.json", BODY)
    j = json.loads(pd("explain", "--json", body))
    k = [c for c in j["candidates"] if c["role"] == "both"]
    assert [c["name"] for c in k] == ["d1"] and len(j["candidates"]) == 5
    assert k[0]["cost_us"] == k[0]["wait_us"] + k[0]["work_us"] + k[0]["price_us"] and k[0]["transfer_us"] == 0
    assert k[0]["chosen"] and j["prefill"] is None and j["decode"] == "d1"  # nobody decodes there: no transfer, no harm
    assert sum(c["chosen"] for c in j["candidates"]) == 1
    assert re.search(r"^ +ALONE +CACHED", pd("explain", body), re.M) and len(re.findall(r"^\*", pd("explain", body), re.M)) == 1


def test_explain_apis(pd):
    assert json.loads(pd("explain", "--json", pd.file("c.json", '{"prompt": "x"}')))["api"] == "completions"
    assert json.loads(pd("explain", "--json", pd.file("g.json", '{"text": "x"}')))["api"] == "generate"
    j = json.loads(pd("explain", "--json", pd.file("i.json", '{"input_ids": [1,2,3]}')))
    assert j["api"] == "generate" and j["prompt"]["exact"] and j["prompt"]["tokens"] == 3
    pd("explain", "--api", "wrong", "x", code=2)


def test_explain_refusals(pd):
    said = pd("explain", pd.file("bad.json", '{"messages": [}\n'), code=1)
    assert "bad.json: line 1, byte 14" in said and "400 to the client" in said
    assert "400" in pd("explain", pd.file("n.json", '{"messages": [{"role":"user","content":"x"}], "n": 2}'), code=1)
    pd("drain", "p0", "p1")
    done = subprocess.run([CTL, "--block", pd.block, "explain", pd.file("b.json", BODY)], capture_output=True)
    assert done.returncode == 1 and b"refused with 503" in done.stdout and b"draining" in done.stdout
    assert "No such file" in pd("explain", "nowhere.json", code=1)


def test_log(pd):
    assert pd("log").split() == ["NUMBER", "TIME", "OUTCOME", "PREFILL", "->", "DECODE", "PROMPT", "HIT", "COST", "HELD"]
    r = Router(pd.block)
    for i in range(3):
        code, d = r.route(BODY.replace(b"a long", b"%d long" % i))
        assert code == 0
        if d.outcome == 1:
            r.done(d)
    lines = pd("log").splitlines()
    assert len(lines) == 4 and re.search(r"^ *1 +\d\d:\d\d:\d\d\.\d{3} +sent +p[01] -> d0 +\d+ +0%", lines[1])
    assert len(pd("log", "-n", 1).splitlines()) == 2
    records = [json.loads(line) for line in pd("log", "--json").splitlines()]
    assert [x["number"] for x in records] == [1, 2, 3] and records[0]["decode"] == "d0" and len(records[0]["candidates"]) == 3
    assert [json.loads(x)["number"] for x in pd("log", "--json", "-n", 2).splitlines()] == [2, 3]
    assert "UNCACHED" in pd("log", "-v")
    pd("remove", "d0")
    assert "#" in pd("log")  # its name is gone
    r.close()


def test_log_follows_and_notices_a_new_block(pd):
    r = Router(pd.block)
    follow = pd.start("log", "--follow", "--json")
    time.sleep(0.3)
    code, d = r.route(BODY)
    first = json.loads(follow.stdout.readline())
    assert first["number"] == 1
    r.close()
    pd("create", "--force", "-c", pd.file("other.json", SMALL.replace('"max_held": 16', '"max_held": 8')))
    pd("remove", "p0", "p1", "d0")  # which the new block has from the old one
    pd("put", "http://10.0.0.1:8000", "--role", "prefill", "--name", "fresh-p")
    pd("put", "http://10.0.0.2:8000", "--role", "decode", "--name", "fresh-d")
    r = Router(pd.block)
    r.route(BODY)
    assert json.loads(follow.stdout.readline())["prefill"] == "fresh-p"
    follow.terminate()
    assert follow.wait(5) == 0
    r.close()


def test_log_says_what_was_lost(pd):
    r = Router(pd.block)
    for i in range(20):  # the ring keeps 8
        code, d = r.route(b'{"messages":[{"role":"user","content":"%d"}]}' % i)
        if d.outcome == 1:
            r.done(d)
    assert [json.loads(x)["number"] for x in pd("log", "--json").splitlines()] == list(range(13, 21))
    r.close()


def test_top_once(pd):
    r = Router(pd.block)
    r.route(BODY)
    text = pd("top", "--once")
    assert "\033" not in text and "requests 1" in text and "in flight 1" in text and "ready" in text and "p0" in text and "sent" in text
    r.close()


def test_top_needs_a_terminal(pd):
    assert "--once" in pd("top", code=1)


def test_top_live(pd):
    """In a pseudo terminal: draws, follows the window's size, ends on q and puts the terminal back."""
    import fcntl, os, pty, signal, struct, termios
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    before = termios.tcgetattr(slave)
    p = subprocess.Popen([CTL, "--block", pd.block, "top", "-i", "0.2"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)

    def read(seconds):
        import select
        data, end = b"", time.time() + seconds
        while time.time() < end and select.select([master], [], [], 0.05)[0] or time.time() < end:
            if select.select([master], [], [], 0.05)[0]:
                data += os.read(master, 65536)
        return data

    out = read(1)
    assert b"\033[?1049h" in out and b"p0" in out and b"requests" in out
    for frame in out.split(b"\033[H")[1:]:
        lines = re.sub(rb"\033\[[?0-9]*[A-Za-z]|\r", b"", frame).split(b"\n")
        assert len(lines) <= 12 and all(len(x) <= 60 for x in lines[3:]), lines
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 40, 0, 0))
    p.send_signal(signal.SIGWINCH)
    last = read(0.7).split(b"\033[H")[-1]
    assert len(last.split(b"\n")) <= 5
    os.write(master, b"q")
    assert p.wait(3) == 0
    assert b"\033[?1049l" in read(0.3)
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_stats(pd):
    r = Router(pd.block)
    r.route(BODY)
    s = json.loads(pd("stats", "--json"))
    assert s["routed"] == 1 and s["endpoints"] == 3 and s["leases"] == 1 and s["bookings"] == 1
    assert re.search(r"^routed +1  requests", pd("stats"), re.M)
    assert json.loads(pd("stats", "--status"))
    assert re.search(r"^pdroute_\w+", pd("stats", "--prometheus"), re.M)
    r.close()


def test_check(pd):
    assert pd("check").endswith(": every invariant holds\n")
    assert pd("check", "--ready").endswith(": ready\n")
    pd("remove", "d0")
    assert "no usable prefill/decode pair" in pd("check", "--ready", code=1)


def test_check_finds_damage(pd):
    data = bytearray(pd.block.read_bytes())
    zero = bytes(len(data) // 2)
    data[4096:4096 + len(zero)] = b"\xa5" * len(zero)
    pd.block.write_bytes(data)  # the same size and header, nonsense inside
    said = pd("check", code=1)
    assert str(pd.block) in said


@pytest.mark.parametrize("name", ["evil\033[2Jname", "two\nlines", "\x7f"])
def test_names_cannot_steer_the_terminal(ctl, name):
    done = subprocess.run([CTL, "--block", ctl.block, "put", name, "--role", "decode", "--host", "h", "--port", "1"], capture_output=True, text=True)
    assert done.returncode == 1 and "control character" in done.stderr and "\033" not in done.stderr
    assert names(ctl) == []


def test_list_without_endpoints(ctl):
    assert ctl("list") == "no endpoints\n"
    assert json.loads(ctl("list", "--json")) == []
