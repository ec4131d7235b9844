"""The policies of other gateways and the reference, driven through the laboratory on made-up traces."""
import json
import subprocess

import pytest

PEERS = ["random", "power_of_two", "least_requests", "least_tokens", "sglang", "dynamo", "dynamo-queue", "llmd-blend", "llmd-sticky", "lmetric", "aibrix", "mooncake",
         "reference-immediate", "reference-held"]
# policies whose cost is what they minimise over prefill workers, whatever else they look at
GREEDY = ["least_requests", "least_tokens", "dynamo", "dynamo:credit=2", "llmd-blend", "lmetric", "mooncake", "mooncake:price=1", "reference-immediate", "dynamo-queue"]


@pytest.fixture(scope="module")
def simulate(bin_dir, tmp_path_factory):
    """Runs and remembers: (policies, options) -> (results by policy, decisions by policy)."""
    known = {}
    if not (bin_dir / "simulate").exists():
        pytest.skip("simulate is not built")

    def go(*policies, trace="synthetic:chat,n=1500,rate=6", prefill=3, decode=3, **options):
        key = (policies, trace, prefill, decode, tuple(sorted(options.items())))
        if key not in known:
            folder = tmp_path_factory.mktemp("run")
            arguments = [bin_dir / "simulate", "--trace", trace, "--prefill", str(prefill), "--decode", str(decode), "--quiet", "--json", folder / "r.json",
                         "--decisions", folder / "d"]
            for p in policies:
                arguments += ["--policy", p]
            for k, v in options.items():
                arguments += [f"--{k.replace('_', '-')}", str(v)]
            subprocess.run(arguments, check=True)
            runs = {r["policy"] + (":" + r["settings"] if r["settings"] else ""): r for r in json.loads((folder / "r.json").read_text())["runs"]}
            logs = {p: [json.loads(line) for line in (folder / f"d.{p}.1.jsonl").open()] for p in policies}
            known[key] = runs, logs
        return known[key]
    return go


@pytest.fixture(scope="module")
def everybody(simulate):
    return simulate(*PEERS)


@pytest.mark.parametrize("policy", PEERS)
def test_every_request_is_served_once(everybody, policy):
    runs, logs = everybody
    assert (runs[policy]["finished"], runs[policy]["refused"]) == (1500, 0)
    assert sorted(d["id"] for d in logs[policy]) == list(range(1500))


@pytest.mark.parametrize("policy", PEERS)
def test_every_candidate_is_recorded_and_one_of_each_side_chosen(everybody, policy):
    for d in everybody[1][policy]:
        assert [c["worker"] for c in d["candidates"]] == list(range(6))
        chosen = [(c["role"], c["worker"]) for c in d["candidates"] if c["chosen"]]
        assert chosen == [("prefill", d["prefill"]), ("decode", d["decode"])]


@pytest.mark.parametrize("policy", GREEDY)
def test_the_chosen_prefill_costs_least(simulate, policy):
    for d in simulate(policy)[1][policy]:
        cost = {c["worker"]: c["cost"] for c in d["candidates"] if c["role"] == "prefill"}
        assert cost[d["prefill"]] == min(cost.values())


@pytest.mark.parametrize("policy", PEERS)
def test_decode_has_the_fewest_booked_tokens(everybody, policy):
    for d in everybody[1][policy]:
        cost = {c["worker"]: c["cost"] for c in d["candidates"] if c["role"] == "decode"}
        assert cost[d["decode"]] == min(cost.values())


def term(d, worker, name):
    return next(c["terms"][name] for c in d["candidates"] if c["worker"] == worker)


def test_costs_follow_from_the_terms_shown(simulate):
    formula = {
        "dynamo:credit=1.5": lambda d, w: max(term(d, w, "pending tokens") + d["in"] - 1.5 * term(d, w, "matched tokens"), 0),
        "lmetric": lambda d, w: (term(d, w, "pending tokens") + term(d, w, "uncached tokens")) * (term(d, w, "requests") + 1),
        "mooncake": lambda d, w: term(d, w, "wait s") + term(d, w, "work s"),
    }
    for policy, f in formula.items():
        for d in simulate(policy)[1][policy]:
            for c in d["candidates"]:
                if c["role"] == "prefill":
                    assert c["cost"] == pytest.approx(f(d, c["worker"]), rel=1e-6, abs=1e-6)


def test_sglang_goes_to_the_match_unless_out_of_balance(simulate):
    policy = "sglang:threshold=.3,abs=4,rel=1.2"
    matched = balanced = 0
    for d in simulate(policy)[1][policy]:
        n = [term(d, w, "requests") for w in range(3)]
        m = [term(d, w, "matched tokens") for w in range(3)]
        if max(n) - min(n) > 4 and max(n) > 1.2 * min(n):
            assert n[d["prefill"]] == min(n)
            balanced += 1
        elif max(m) > .3 * d["in"]:
            assert m[d["prefill"]] == max(m)
            matched += 1
        else:
            assert n[d["prefill"]] == min(n)
    assert matched > 100 and balanced > 10  # both happened


def test_sticky_stays_within_tau_and_leaves_beyond(simulate):
    policy = "llmd-sticky:tau=20000"
    stayed = left = 0
    for d in simulate(policy)[1][policy]:
        load = [term(d, w, "pending tokens") + term(d, w, "uncached tokens") for w in range(3)]
        near = [w for w in range(3) if term(d, w, "matched tokens") >= .8 * d["in"]]
        if near and min(load[w] for w in near) - min(load) <= 20000:
            assert d["prefill"] in near
            stayed += 1
        else:
            assert load[d["prefill"]] == min(load)
            left += bool(near)
    assert stayed > 100 and left > 0


def test_dynamos_queue_parks_only_when_all_are_busy(simulate):
    policy = "dynamo-queue:threshold=.5,order=wspt"
    log = simulate(policy)[1][policy]
    parked = [d for d in log if d["held"] > 0]
    assert len(parked) > 100
    for d in log:  # at its sending some worker is at most at the threshold
        assert min(term(d, w, "pending tokens") for w in range(3)) <= .5 * 8192


def test_wspt_sends_the_shortest_first_and_fcfs_the_oldest(simulate):
    for order in ("fcfs", "wspt"):
        policy = f"dynamo-queue:threshold=0,order={order}"
        log = sorted((d for d in simulate(policy)[1][policy] if d["held"] > 0), key=lambda d: d["t"] if "t" in d else 0)
        arrived = {d["id"]: d["id"] for d in log}
        swaps = sum(a["id"] > b["id"] for a, b in zip(log, log[1:])) / len(arrived)
        assert swaps == 0 if order == "fcfs" else swaps > .1


def test_decode_only_within_its_bound(simulate):
    policy = "dynamo:credit=2,local=1024"
    runs, logs = simulate(policy)
    alone = [d for d in logs[policy] if d["prefill"] is None]
    assert len(alone) == runs[policy]["decode_only"] > 50
    for d in alone:
        assert d["in"] - term(d, d["decode"], "matched tokens") <= 1024


def test_order_is_where_holding_gains(simulate):
    """At a load near saturation the reference gains by order, hardly by holding alone; at a low load nothing is lost."""
    runs, _ = simulate("reference-immediate", "reference-held", "reference-held:order=fcfs", rate=1.5)
    mean = {k: r["ttft"]["mean"] for k, r in runs.items()}
    assert mean["reference-held"] < .8 * mean["reference-immediate"]
    assert mean["reference-held:order=fcfs"] < 1.1 * mean["reference-immediate"]
    assert mean["reference-held"] < .85 * mean["reference-held:order=fcfs"]
    runs, _ = simulate("reference-immediate", "reference-held", rate=.25)
    assert runs["reference-held"]["ttft"]["mean"] < 1.03 * runs["reference-immediate"]["ttft"]["mean"]


def test_a_worker_that_stands_still_is_left_alone(simulate):
    """Waits do not drain while nothing is completed: few are sent to a worker that is stalled for 20 s."""
    _, logs = simulate("mooncake", stall="0,60,20")
    during = [d for d in logs["mooncake"] if 62 < d["t"] < 80]
    assert len(during) > 40
    assert sum(d["prefill"] == 0 for d in during) < .25 * len(during)


@pytest.mark.parametrize("policy, why", [("sglang:abc=1", "abc"), ("dynamo-queue:order=lifo", "lifo"), ("dynamo:view=oracle", "oracle"), ("reference-held:order=x", "x")])
def test_bad_settings_are_refused(simulate, bin_dir, policy, why):
    done = subprocess.run([bin_dir / "simulate", "--trace", "synthetic:chat,n=10", "--policy", policy, "--quiet"], capture_output=True, text=True)
    assert done.returncode != 0 and why in done.stderr


@pytest.mark.parametrize("gateways, books", [(8, "shared"), (8, "own")])
@pytest.mark.parametrize("policy", ["dynamo-queue", "reference-held", "llmd-sticky"])
def test_several_gateways(simulate, policy, gateways, books):
    runs, _ = simulate(policy, gateways=gateways, books=books)
    assert runs[policy]["finished"] == 1500
