"""Tenants and priorities in the laboratory: who they are (of the trace, or dealt), what is said of them, and what the library's queue does for them."""
import json
import subprocess

import pytest

CHAT = ("--trace", "synthetic:chat,n=1500,seed=3", "--prefill", 2, "--decode", 4)


@pytest.fixture
def simulate(bin_dir):
    def run(*options, ok=True, json_out=True):
        done = subprocess.run([bin_dir / "simulate", *(["--quiet", "--json", "-"] if json_out else []), *map(str, options)], capture_output=True, text=True)
        assert (done.returncode == 0) == ok, done.stderr
        return (json.loads(done.stdout) if json_out else done.stdout) if ok else done.stderr
    return run


def tenants(run):
    return {t["name"]: t for t in run["tenants"]}


# ---- who they are

def test_without_tenants_nothing_is_said_of_them(simulate):
    doc = simulate(*CHAT, "--policy", "pdroute")
    assert "tenants" not in doc["runs"][0] and "tenants" not in doc["summary"][0] and "tenants" not in doc["arguments"]
    assert "tenant" not in simulate(*CHAT, "--policy", "pdroute", json_out=False)


def test_shares_are_dealt_by_seed(simulate):
    options = (*CHAT, "--tenants", "heavy=8,light=1,third", "--policy", "pdroute", "--policy", "dynamo", "--seeds", 2)
    doc = simulate(*options)
    assert doc == simulate(*options, "--threads", 1)
    runs = doc["runs"]
    assert [list(tenants(r)) for r in runs] == [["heavy", "light", "third"]] * 4
    requests = [[t["requests"] for t in r["tenants"]] for r in runs]
    assert requests[0] == requests[2] and requests[1] == requests[3]  # whatever the policy
    assert requests[0] != requests[1]  # seeds differ
    for r in runs:
        assert sum(t["requests"] for t in r["tenants"]) == r["requests"]
        assert r["tenants"][0]["requests"] == pytest.approx(.8 * r["requests"], rel=.1)
        assert sum(t["work"] for t in r["tenants"]) == pytest.approx(1)
        assert sum(t["ttft"]["mean"] * t["finished"] for t in r["tenants"]) / r["finished"] == pytest.approx(r["ttft"]["mean"])
        assert sum(t["goodput"]["2s_50ms"] * t["requests"] for t in r["tenants"]) / r["requests"] == pytest.approx(r["goodput"]["2s_50ms"])
        assert all(t["wait"]["max"] <= t["ttft"]["max"] <= r["ttft"]["max"] for t in r["tenants"])
    of = doc["summary"][0]["tenants"][0]
    assert of["name"] == "heavy" and of["requests"]["mean"] == (requests[0][0] + requests[1][0]) / 2 and of["ttft_mean"]["low"] < of["ttft_mean"]["mean"]


def test_so_many_equal_ones(simulate):
    one = simulate(*CHAT, "--tenants", 4, "--policy", "random")["runs"][0]
    assert list(tenants(one)) == ["t1", "t2", "t3", "t4"]
    assert all(t["requests"] == pytest.approx(375, rel=.35) for t in one["tenants"])


def mooncake(path, *rows):
    """Requests of 1,024 tokens every second: (ids, more members)."""
    path.write_text("".join(json.dumps({"timestamp": 1000 * i, "input_length": 512 * len(ids), "output_length": 1, "hash_ids": ids, **more}) + "\n" for i, (ids, more) in enumerate(rows)))
    return path


def test_a_conversation_has_one_tenant(simulate, tmp_path):
    """Also where the trace names no sessions: a prompt that goes on from another's belongs to it."""
    rows = [([1000 * c + i for i in range(2 + turn)], {}) for turn in range(4) for c in range(1, 61)]
    simulate("--trace", mooncake(tmp_path / "t", *rows), "--tenants", 5, "--policy", "random", "--decisions", tmp_path / "d")
    dealt = {d["id"]: d["tenant"] for d in map(json.loads, next(tmp_path.glob("d.*")).open())}
    assert len(dealt) == 240 and all(dealt[i] == dealt[i % 60] for i in dealt)
    assert len(set(dealt.values())) == 5


def test_tenants_and_priorities_of_the_trace(simulate, tmp_path):
    rows = [([i * 2, i * 2 + 1], {"tenant": "b" if i % 4 else "a", **({"priority": -2} if i % 4 == 1 else {})}) for i in range(40)] + [([900, 901], {})]
    path = mooncake(tmp_path / "t", *rows)
    options = ("--trace", path, "--policy", "pdroute")
    rows = simulate(*options)["runs"][0]["tenants"]
    assert [(t["name"], t["priority"], t["requests"]) for t in rows] == [("a", 0, 10), ("b", -2, 10), ("b", 0, 20), ("", 0, 1)]
    rows = simulate(*options, "--priority", "b=3", "--priority", "a=-1")["runs"][0]["tenants"]
    assert [(t["name"], t["priority"], t["requests"]) for t in rows] == [("a", -1, 10), ("b", 3, 30), ("", 0, 1)]
    rows = simulate(*options, "--tenants", "x,y=3")["runs"][0]["tenants"]
    assert [t["name"] for t in rows] == ["x", "y"]
    azure = tmp_path / "azure.csv"
    azure.write_text("TIMESTAMP,ContextTokens,GeneratedTokens,Tenant,Priority\n" + "".join(f"2023-11-16 18:15:{s:02}.5000000,1000,10{more}\n" for s, more in enumerate(["", ",a", ",a,7", ",b,0"])))
    rows = simulate("--trace", azure, "--policy", "pdroute")["runs"][0]["tenants"]
    assert [(t["name"], t["priority"], t["requests"]) for t in rows] == [("a", 0, 1), ("a", 7, 1), ("b", 0, 1), ("", 0, 1)]
    weka = tmp_path / "weka.jsonl"
    request = {"in": 640, "out": 5, "think_time": 1, "runs": [0, 10]}
    weka.write_text("".join(json.dumps({"block_size": 64, "requests": [request, {**request, **more}], "tenant": name}) + "\n" for name, more in (("a", {}), ("b", {"priority": 2}))))
    rows = simulate("--trace", weka, "--policy", "pdroute")["runs"][0]["tenants"]
    assert [(t["name"], t["priority"], t["requests"]) for t in rows] == [("a", 0, 2), ("b", 0, 1), ("b", 2, 1)]


@pytest.mark.parametrize("members", [{"tenant": 5}, {"tenant": ["a"]}, {"priority": "high"}, {"priority": 1.5}, {"priority": 3e9}])
def test_bad_members_are_told_with_their_line(simulate, tmp_path, members):
    said = simulate("--trace", mooncake(tmp_path / "t", ([1, 2], {"tenant": "a"}), ([1, 2], members)), "--policy", "random", ok=False)
    assert "line 2" in said and ("tenant" in said or "priority" in said)


@pytest.mark.parametrize("rest", [",a,b", ",a,1x", ",a,3000000000", ",a,", "x"])
def test_bad_columns_are_told_with_their_line(simulate, tmp_path, rest):
    (tmp_path / "t").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5,10,1{rest}\n")
    assert "line 2" in simulate("--trace", tmp_path / "t", "--policy", "random", ok=False)


@pytest.mark.parametrize("options", [("--tenants", 0), ("--tenants", 1025), ("--tenants", "a=0"), ("--tenants", "a=-1"), ("--tenants", "a=x"), ("--tenants", "a=1x"), ("--tenants", ""), ("--tenants", "a,"),
                                     ("--tenants", "a=1,a=2"), ("--tenants", "a,b", "--priority", "c=1"), ("--tenants", "a,b", "--priority", "a"), ("--tenants", "a,b", "--priority", "a=x"),
                                     ("--tenants", "a,b", "--priority", "a=1.5"), ("--tenants", "a,b", "--priority", "a=3000000000"), ("--priority", "a=1")])
def test_bad_options_are_refused(simulate, options):
    assert options[-2] in simulate(*CHAT, "--policy", "random", *options, ok=False)


def test_the_table_has_them_and_no_name_steers_a_terminal(simulate, tmp_path):
    path = mooncake(tmp_path / "t", ([1, 2], {"tenant": "evil\x1b[2J\u009b1m"}), ([3, 4], {"tenant": "good", "priority": 4}))
    text = simulate("--trace", path, "--policy", "round_robin", json_out=False)
    assert "\x1b" not in text and "\u009b" not in text
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("  ")][1:] == [["evil?[2J?1m", "0", "1.0"], ["good", "4", "1.0"]]


# ---- what the library's queue does for them. Virtual time: the same figures on every machine.

OVERLOAD = ("--trace", "synthetic:chat,n=3000,seed=3", "--prefill", 3, "--decode", 4, "--rate", 2.6)


def mean(rows, *names):
    """Mean TTFT of these tenants' requests together."""
    return sum(rows[n]["ttft"]["mean"] * rows[n]["finished"] for n in names) / sum(rows[n]["finished"] for n in names)


def test_a_flood_does_not_drown_the_others(simulate):
    """One tenant sends eight times as much as each other, more than the fleet can do, for longer than anybody may wait: the others hardly feel it, and nobody waits for longer than he may."""
    policies = ("pdroute:wait=60", "pdroute:wait=60,tenants=0", "dynamo-queue", "sglang")
    fair, blind, queue, sglang = (tenants(r) for r in simulate(*OVERLOAD, "--tenants", "flood=8,a,b,c,d", *(x for p in policies for x in ("--policy", p)))["runs"])
    for name in "abcd":
        assert fair[name]["refused"] == 0 and fair[name]["ttft"]["mean"] < 1.5
        assert fair[name]["goodput"]["scaled_50ms"] > blind[name]["goodput"]["scaled_50ms"]
    assert mean(blind, *"abcd") > 1.5 * mean(fair, *"abcd")
    assert all(mean(other, *"abcd") > 4 * mean(fair, *"abcd") for other in (queue, sglang))
    assert fair["flood"]["wait"]["max"] < 62 and fair["flood"]["refused"] < .05 * fair["flood"]["requests"]


def test_a_flood_takes_nobody_elses_places(simulate):
    """So large a flood that requests are refused on arrival: its own are, of the others hardly any."""
    fair = tenants(simulate("--trace", "synthetic:lengths,n=4000,rate=16", "--prefill", 2, "--decode", 4, "--tenants", "flood=16,a,b", "--policy", "pdroute:wait=30")["runs"][0])
    assert fair["flood"]["refused"] > .2 * fair["flood"]["requests"]
    assert fair["a"]["refused"] + fair["b"]["refused"] < .04 * (fair["a"]["requests"] + fair["b"]["requests"])


def test_a_higher_priority_goes_first_and_nobody_waits_for_ever(simulate):
    policies = ("pdroute:wait=60,tenants=0", "pdroute:wait=60,tenants=0,priorities=0")
    told, alike = (tenants(r) for r in simulate(*OVERLOAD, "--tenants", "chat=1,batch=3", "--priority", "chat=1", *(x for p in policies for x in ("--policy", p)))["runs"])
    assert told["chat"]["ttft"]["mean"] < 1.2 < 1.5 < alike["chat"]["ttft"]["mean"]
    assert told["chat"]["refused"] == 0 and told["chat"]["wait"]["max"] < 15
    assert told["batch"]["ttft"]["mean"] > alike["batch"]["ttft"]["mean"]
    assert told["batch"]["wait"]["max"] < 62 and told["batch"]["refused"] < .04 * told["batch"]["requests"]
    one = tenants(simulate(*OVERLOAD, "--tenants", "chat=1,batch=3", "--priority", "chat=1,batch=1", "--policy", policies[0])["runs"][0])
    assert one["chat"]["ttft"] == alike["chat"]["ttft"]  # priorities that are alike are none


@pytest.mark.parametrize("trace, prefill, decode, rate", [("synthetic:chat,n=3000,seed=3", 3, 4, 2.6), ("synthetic:lengths,n=4000,seed=3,rate=12", 3, 8, 1)])
def test_an_overload_that_lasts_is_not_first_come_first_served(simulate, trace, prefill, decode, rate):
    """Longer than half of what anybody may wait, so that all who are held have waited for that: most are still served soon, and those who are not are refused in time."""
    run = simulate("--trace", trace, "--prefill", prefill, "--decode", decode, "--rate", rate, "--policy", "pdroute:wait=60")["runs"][0]
    assert run["goodput"]["2s_50ms"] > .7 and run["ttft"]["p50"] < 1
    assert run["refused"] < .12 * run["requests"] and run["held"]["max"] < 62
