"""The bars' program, on a small trace made here: what it says, writes, and how it ends."""
import json
import random
import subprocess

import pytest


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Conversations of several turns in the format of Mooncake's trace: enough load that who chooses badly is seen."""
    folder, rng, lines, block = tmp_path_factory.mktemp("traces"), random.Random(7), [], 0
    talks = []
    for i in range(300):
        if talks and rng.random() < 0.6:
            talk = rng.choice(talks[-30:])
        else:
            talks.append(talk := [])
        talk.extend(range(block, block := block + rng.randint(2, 24)))
        lines.append({"timestamp": i * 450, "input_length": len(talk) * 512 - rng.randint(0, 500), "output_length": rng.randint(20, 300), "hash_ids": list(talk)})
        if len(talk) > 120:
            talks.remove(talk)
    (folder / "conversation_trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(bin_dir, traces, *options):
    return subprocess.run([bin_dir / "simulate-bars", "--traces", traces, "--quick", "--seeds", "1", "--quiet", *options], capture_output=True, text=True)


def rows(file):
    lines = file.read_text().splitlines()
    assert lines[0].startswith("| missed bar | value | at most | no policy below | ours | best peer |") and lines[1] == "|---|---|---|---|---|---|---|"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_missed_bars_are_set_beside_the_best_peer_and_the_bound(bin_dir, traces, tmp_path):
    done = run(bin_dir, traces, "--only", "6P5D", "--ours", "round_robin", "--json", tmp_path / "bars.json", "--missed", tmp_path / "missed.md")
    assert done.returncode == 1, done.stdout + done.stderr
    bars = json.loads((tmp_path / "bars.json").read_text())
    missed = [bar for bar in bars if not bar["held"]]
    table = rows(tmp_path / "missed.md")
    assert len(missed) >= 3 and [row[0] for row in table] == [bar["bar"] for bar in missed]
    with_peer = 0
    for bar, (_, value, limit, bound, ours, other, peer) in zip(missed, table):
        assert float(value) == pytest.approx(bar["value"], abs=6e-4) and float(limit) == pytest.approx(bar["limit"], abs=6e-4)
        if bar["bound"] is not None:
            assert float(bound) <= float(value) + 1e-3  # what we are at is no less than what anybody could be at
        if peer == "–":
            continue
        with_peer += 1
        assert peer.strip("`").split(":")[0] in ("sglang", "dynamo", "dynamo-queue", "llmd-sticky", "llmd-blend", "lmetric", "aibrix", "mooncake", "least_requests", "least_tokens",
                                                 "power_of_two", "random", "round_robin")
        ratio = float(other) - float(ours) if "behind" in bar["bar"] else float(ours) / float(other)
        assert ratio == pytest.approx(float(value), rel=0.02, abs=2e-3)
    assert with_peer >= 3
    assert any("8 gateways, 8 blocks" in bar["bar"] for bar in bars)
    assert f"{len(bars) - len(missed)} of {len(bars)} bars hold" in done.stdout


def test_the_library_holds_more_than_chance(bin_dir, traces, tmp_path):
    held = {}
    for name in ("pdroute", "random"):
        done = run(bin_dir, traces, "--only", "6P3D", "--ours", name, "--json", tmp_path / "bars.json", "--missed", tmp_path / "missed.md")
        bars = json.loads((tmp_path / "bars.json").read_text())
        held[name] = sum(bar["held"] for bar in bars)
        assert done.returncode == (held[name] < len(bars)), done.stderr
        assert len(rows(tmp_path / "missed.md")) == len(bars) - held[name]
    assert held["pdroute"] > held["random"]


def test_what_cannot_run_is_said(bin_dir, traces, tmp_path):
    done = run(bin_dir, tmp_path, "--only", "6P5D")
    assert done.returncode == 2 and "conversation_trace.jsonl" in done.stderr
    done = run(bin_dir, traces, "--only", "6P3D", "--missed", tmp_path / "nowhere" / "missed.md")
    assert done.returncode == 2 and "missed bars" in done.stderr
    assert run(bin_dir, traces, "--only", "6P3D", "--ours", "nobody").returncode == 2
