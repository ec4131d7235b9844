"""The report page: what is in it, and what its script makes of it (run by Node.js, without a browser)."""
import base64
import gzip
import json
import re
import shutil
import subprocess

import pytest

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'<!--"


def run(policy, seed, ttft, settings="", **more):
    quantiles = [ttft * (0.1 + i / 50) for i in range(101)]
    return {
        "policy": policy, "settings": settings, "seed": seed, "requests": 100, "finished": 100, "refused": 0, "decode_only": 0, "preempted": 0,
        "ttft": {"mean": ttft, "p50": ttft / 2, "p90": ttft * 2, "p99": ttft * 4, "max": ttft * 5}, "held": {"mean": 0.1, "max": 3.0},
        "tpot": {"mean": 20.0, "p50": 19.0, "p99": 30.0, "max": 40.0},
        "goodput": {"2s_50ms": 1 / (1 + ttft), "1s_25ms": 0.2, "5s_100ms": 0.9, "scaled_50ms": 0.8},
        "hit": {"fraction": 0.3, "of_ideal": 0.8}, "load": {"prefill_cov": 0.1, "prefill_busy": 0.8}, "bytes": {"transferred": 1e12, "reloaded": 1e11},
        "ttft_quantiles": quantiles, "tpot_quantiles": [20.0] * 101,
        "series": [{"t": i * 10.0, "arrived": 3, "ttft_mean": ttft, "held": 1, "prefill_queued": 2} for i in range(100)], **more}


def document(**more):
    runs = [run("default", s, 1.0 + s / 100) for s in (1, 2, 3)] + [run("dynamo", s, 2.0, "credit=1") for s in (1, 2, 3)]
    runs += [run("dynamo", s, 1.5, "credit=2") for s in (1, 2, 3)] + [run("round_robin", s, 30.0) for s in (1, 2, 3)]
    return {"schema": "pdroute.simulate/1", "arguments": {"prefill": 2, "decode": 1, "rate": 1.5}, "trace": {"name": "tiny", "requests": 100, "ideal_hit": 0.37},
            "runs": runs, **more}


def decision(i, held=0.0, name="work s"):
    candidates = [{"worker": w, "role": "prefill", "chosen": int(w == i % 2), "cost": 1.5 + w, "terms": {"matched tokens": 100 * w, "wait s": 0.25, name: 1.25}} for w in (0, 1)]
    candidates.append({"worker": 2, "role": "decode", "chosen": 1, "cost": 777, "terms": {"requests": 5}})
    return {"id": i, "t": i * 0.5, "in": 1000 + i, "held": held, "note": "", "prefill": i % 2, "decode": 2, "candidates": candidates}


# a line of `pdroutectl log --json`
LOGGED = {"number": 41, "time_ns": 12500000000, "outcome": "sent", "booking": 7, "room": 99, "lease": 1, "attempt": 1, "prefill": "p-0", "decode": "d-1", "prompt_tokens": 900,
          "matched_tokens": 512, "cost_us": 250000, "held_us": 40000, "candidates_total": 5, "candidates": [
              {"endpoint": 1, "name": "p-0", "role": "prefill", "chosen": True, "barred": None, "matched_tokens": 512, "uncached_tokens": 388, "wait_us": 100000, "work_us": 50000,
               "price_us": 25000, "transfer_us": 0, "cost_us": 175000},
              {"endpoint": 2, "name": "p-1", "rank": 3, "role": "prefill", "chosen": False, "barred": "down", "matched_tokens": 0, "uncached_tokens": 900, "wait_us": 0, "work_us": 90000,
               "price_us": 45000, "transfer_us": 0, "cost_us": 135000}]}


def lines(objects):
    return "".join(json.dumps(o) + "\n" for o in objects)


@pytest.fixture
def make(tmp_path, bin_dir):
    def go(doc=None, logs=()):
        arguments = [bin_dir / "simulate-report", "-o", tmp_path / "out.html"]
        for i, text in enumerate(logs):
            (tmp_path / f"log{i}.jsonl").write_text(text)
            arguments += ["--decisions", tmp_path / f"log{i}.jsonl"]
        if doc is not None:
            (tmp_path / "result.json").write_text(json.dumps(doc))
            arguments.append(tmp_path / "result.json")
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "out.html").read_text()
    return go


def data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


def scripts(page):
    return re.search(r"</script>\n<script>\n(.*)</script>\n</body>", page, re.S).group(1)


def evaluate(page, expression):
    """The page's script, then an expression over `s`, the state at first with all logs unpacked; the value comes back."""
    node = shutil.which("node")
    if not node:
        pytest.skip("Node.js is not installed")
    d = data(page)
    for log in d["decisions"]:
        log["text"] = gzip.decompress(base64.b64decode(log["gz"])).decode()
    program = scripts(page) + """
        const d = JSON.parse(require("fs").readFileSync(0));
        const s = newState(d.results, d.decisions.map(x => Object.assign({name: x.name, result: x.result}, decisionsOf(x.text))));
        process.stdout.write(JSON.stringify(%s));""" % expression
    done = subprocess.run([node, "-e", program], input=json.dumps(d), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_is_whole_and_asks_for_nothing(make):
    page = make(document(), [lines(decision(i) for i in range(3))])
    assert data(page)["results"][0] == document()
    assert not re.findall(r"https?:|src=|href=|@import|url\(|fetch\(|XMLHttpRequest", page)


def test_logs_are_packed_without_loss(make):
    text = lines(decision(i) for i in range(500))
    packed = data(make(None, [text]))["decisions"][0]
    assert gzip.decompress(base64.b64decode(packed["gz"])).decode() == text
    assert packed["result"] == -1


def test_logs_that_a_result_names_come_along(make, tmp_path):
    (tmp_path / "first.jsonl").write_text(lines([decision(0)]))
    with gzip.open(tmp_path / "second.jsonl.gz", "wt") as f:
        f.write(lines([decision(1)]))
    doc = document()
    doc["runs"][0]["decisions"] = "first.jsonl"
    doc["runs"][3]["decisions"] = "second.jsonl.gz"
    logs = data(make(doc))["decisions"]
    assert [(x["name"], x["result"]) for x in logs] == [("default, seed 1", 0), ("dynamo credit=1, seed 1", 0)]
    assert json.loads(gzip.decompress(base64.b64decode(logs[1]["gz"])))["id"] == 1


def test_a_page_has_the_logs_of_the_library_and_of_the_best_others(make, tmp_path):
    doc = document()
    doc["runs"] = [run("pdroute", s, 9.0) for s in (1, 2)] + [run(f"peer{i}", s, 10.0 - i) for i in range(8) for s in (1, 2)]
    for i, r in enumerate(doc["runs"]):
        (tmp_path / f"d{i}.jsonl").write_text(lines([decision(0)]))
        r["decisions"] = f"d{i}.jsonl"
    names = [x["name"] for x in data(make(doc))["decisions"]]
    assert names == ["pdroute, seed 1"] + [f"peer{i}, seed 1" for i in (4, 5, 6, 7)]


def test_policies_are_ordered_and_compared(make):
    page = make(document())
    names = evaluate(page, "s.lists[0].map(p => [p.name, p.ttft.mean])")
    assert [n for n, _ in names] == ["default", "dynamo credit=2", "dynamo credit=1", "round_robin"]
    assert names[0][1] == pytest.approx(1.02)
    html = evaluate(page, "render(s)")
    assert "Mean TTFT 1.02 s, 32 % lower than the best other (dynamo credit=2: 1.50 s)." in html
    assert html.count("<svg") == 8
    assert "NaN" not in html and "undefined" not in html


def test_worse_than_a_peer_is_said(make):
    doc = document()
    for r in doc["runs"][:3]:
        r["ttft"]["mean"] = 3.0
    assert "100 % above the best other (dynamo credit=2: 1.50 s)" in evaluate(make(doc), "render(s)")


def test_interval_is_students(make):
    low, high = evaluate(make(document()), "[interval([1, 2, 3, 4, 5]).low, interval([1, 2, 3, 4, 5]).high]")
    assert (low, high) == pytest.approx((3 - 1.963, 3 + 1.963), abs=0.01)  # 2.776 * sqrt(2.5 / 5)


def with_tenants(doc, *names):
    for r in doc["runs"]:
        r["tenants"] = [{"name": name, "priority": i, "requests": 50, "finished": 49, "refused": 1, "ttft": {"mean": r["ttft"]["mean"] * (i + 1), "p50": 0.5, "p99": 8.0, "max": 9.0 + r["seed"]},
                         "wait": {"mean": 0.1, "max": 7.0 + r["seed"]}, "goodput": dict(r["goodput"]), "work": 0.25} for i, name in enumerate(names)]
    return doc


def test_tenants_have_a_table_where_there_are_any(make):
    assert "Tenants" not in evaluate(make(document()), "render(s)")
    page = make(with_tenants(document(), "flood", "quiet", ""), [lines([dict(decision(0), tenant="quiet", priority=2)])])
    html = evaluate(page, "(s.open = 0, render(s))")
    table = html[html.index("<h2>Tenants"):html.index('<h2 id="decisions"')]
    assert table.count("<tr") == 1 + 3 * 3  # ours and the best of the two others
    assert "flood" in table and "25.0 %" in table and "NaN" not in table and "undefined" not in table
    assert "Request 0</b> of quiet, priority 2" in html
    rows = evaluate(page, "s.lists[0][0].tenants.map(t => [t.name, t.ttft.mean, t.longest, t.wait])")
    assert rows[1] == ["quiet", pytest.approx(2.04), 12.0, 10.0]  # the mean of three seeds; the worst of them
    many = evaluate(make(with_tenants(document(), *(f"t{i}" for i in range(30)))), "render(s)")
    assert "6 more tenants are in the result" in many and ">t23<" in many and ">t24<" not in many


def test_hostile_text_stays_text(make):
    doc = document()
    doc["runs"][0]["policy"] = HOSTILE
    doc["runs"][1]["settings"] = HOSTILE
    doc["trace"]["name"] = HOSTILE
    with_tenants(doc, HOSTILE)
    doc["arguments"][HOSTILE] = HOSTILE
    page = make(doc, [lines([dict(decision(0, name=HOSTILE + " s"), note=HOSTILE, tenant=HOSTILE, priority=1), dict(LOGGED, prefill=HOSTILE)])])
    assert data(page)["results"][0] == doc
    assert page.count("</script") == 2 and "<img" not in page
    html = evaluate(page, "(s.open = 0, render(s))")
    assert "&lt;img" in html
    assert "<img" not in html and "<script" not in html and "<!--" not in html


def test_any_decision_opens_with_every_candidate_and_term(make):
    page = make(None, [lines(decision(i, held=i / 10) for i in range(100))])
    html = evaluate(page, "(s.open = 17, s.want.id = '17', render(s))")
    assert "Request 17" in html and "1 → 2, after 1.70 s in the router" in html
    for text in ("matched tokens", "wait s", "work s", "2.500", "1.500", "777", "above the least"):
        assert text in html
    assert html.count("▸") == 2  # the chosen pair


def test_the_routers_own_log_opens(make):
    page = make(None, [lines([LOGGED]) + "no json\n{}\n"])
    d = evaluate(page, "s.sources[0]")
    assert d["bad"] == 2 and len(d["list"]) == 1
    x = d["list"][0]
    assert (x["id"], x["t"], x["held"], x["cost"], x["more"]) == (41, 12.5, 0.04, 0.25, 3)
    html = evaluate(page, "(s.open = 41, render(s))")
    for text in ("p-0 → d-1", "p-1/3", "down", "attempt 2", "0.1750", "3 more candidates were not recorded", "price s"):
        assert text in html


def test_a_replayed_recording_opens(make):
    def choice(outcome, prefill, cost):
        return {"outcome": outcome, "prefill": prefill, "decode": "d-0", "prefill_us": cost - 3000, "transfer_us": 2000, "decode_us": 1000, "cost_us": cost}
    steps = [
        {"number": 1, "time_ns": 1000000000, "kind": "routed", "ticket": 5, "prompt_tokens": 700, "output_tokens": 300, "blocks": 3, "block_millitokens": 128000,
         "recorded": choice("held", "p-0", 250000), "replayed": choice("held", "p-0", 250000), "checked": True, "same": True},
        {"number": 2, "time_ns": 1500000000, "kind": "prefilled", "ticket": 4, "prefill_us": 5},
        {"number": 3, "time_ns": 3250000000, "kind": "released", "ticket": 5, "recorded": choice("sent", "p-1", 125000), "replayed": choice("sent", "p-2", 64000), "checked": True,
         "same": False}]
    page = make(None, [lines(steps)])
    source = evaluate(page, "s.sources[0]")
    assert source["bad"] == 0 and [d["id"] for d in source["list"]] == [1, 3]
    assert [d["held"] for d in source["list"]] == [0, 2.25] and source["list"][1]["tokens"] == 700
    html = evaluate(page, "(s.open = 3, render(s))")
    for text in ("p-1 → d-0, after 2.25 s in the router", "again: p-2 → d-0", "made again otherwise", "0.06400", "transfer s"):
        assert text in html


def test_selecting_and_sorting_decisions(make):
    page = make(None, [lines(decision(i, held=i % 3) for i in range(30))])
    ask = lambda want: evaluate(page, f"select(s.sources[0].list, Object.assign(s.want, {json.dumps(want)})).map(d => d.id)")
    assert ask({"id": "7"}) == [7]
    assert ask({"worker": "1"}) == list(range(1, 30, 2))
    assert ask({"held": True}) == [i for i in range(30) if i % 3]
    assert ask({"sort": "held", "down": True})[:3] == [2, 5, 8]
    assert ask({"sort": "tokens", "down": True})[:2] == [29, 28]


def test_the_same_request_under_another_policy(make, tmp_path):
    doc = document()
    for i, k in ((0, 0), (3, 1)):
        (tmp_path / f"d{i}.jsonl").write_text(lines(decision(j + k) | {"id": j} for j in range(5)))
        doc["runs"][i]["decisions"] = f"d{i}.jsonl"
    html = evaluate(make(doc), "(s.open = 2, render(s))")
    assert "The same request elsewhere: <b>dynamo credit=1, seed 1</b> 1 → 2" in html


def test_several_regimes_in_one_page(make, tmp_path, bin_dir):
    paths = []
    for name in ("low", "knee"):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(document(title=f"regime {name}")))
    subprocess.run([bin_dir / "simulate-report", "-o", tmp_path / "two.html", *paths], check=True)
    html = evaluate((tmp_path / "two.html").read_text(), "(s.result = 1, choosePolicies(s), render(s))")
    assert '<option value="1" selected>regime knee' in html and "<h1>regime knee" in html


@pytest.mark.parametrize("value, text", [(0, "0"), (1.2345, "1.23"), (0.0001234, "0.000123"), (12345.6, "12\u202f346"), (-3.0, "-3.00"), (None, "–"), (99.96, "100.0")])
def test_numbers(make, value, text):
    assert evaluate(make(document()), f"num({json.dumps(value)})") == text


def test_ticks_are_round(make):
    page = make(document())
    assert evaluate(page, "ticks(0, 1)") == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert evaluate(page, "ticks(0.9, 60, true)") == pytest.approx([1, 2, 5, 10, 20, 50])
    assert evaluate(page, "ticks(-3, 47)") == pytest.approx([0, 10, 20, 30, 40])
    assert evaluate(page, "extent([0.1, 0.1 + 2e-17])") == pytest.approx([0.075, 0.125])  # equal but for rounding
    assert len(evaluate(page, "ticks(0.1, 0.1 + 2e-17)")) < 20


def test_errors_are_said(bin_dir, tmp_path):
    def go(*a):
        return subprocess.run([bin_dir / "simulate-report", *a], capture_output=True, text=True, cwd=tmp_path)
    assert go().returncode == 2
    bad = go("missing.json")
    assert bad.returncode == 1 and "missing.json: No such file" in bad.stderr
    (tmp_path / "x.json").write_text("[]")
    bad = go("x.json")
    assert bad.returncode == 1 and "not a result of the laboratory" in bad.stderr
    assert not (tmp_path / "report.html").exists()
    (tmp_path / "y.json").write_text(json.dumps({"runs": [{"policy": "a", "decisions": "gone.jsonl"}]}))
    bad = go("y.json")
    assert bad.returncode == 1 and "gone.jsonl" in bad.stderr
    (tmp_path / "z.json").write_text(json.dumps({"runs": []}))
    assert "/no/such/out" in go("-o", "/no/such/out", "z.json").stderr
