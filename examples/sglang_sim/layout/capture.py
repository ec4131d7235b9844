"""Take the layout of /metrics, /server_info and /model_info from real workers, for the simulator to fill.

    python3 capture.py prefill=http://HOST:PORT decode=http://HOST:PORT [unified=http://HOST:PORT]

A value may be a directory instead of a URL, with metrics.txt, server_info.json and model_info.json in it. Writes
metrics.json (families, in the engine's order, with the roles that have them), server_info.json and model_info.json.
"""

import json
import re
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
OWN_LABELS = {"engine_type", "model_name", "moe_ep_rank", "pp_rank", "tp_rank", "dp_rank", "le", "pid"}
LOCAL = ("random_seed", "port", "host", "launch_command", "startup_time", "internal_states", "model_path", "tokenizer_path")


def read(source, name):
    if source.startswith("http"):
        with urllib.request.urlopen(f"{source}/{name}", timeout=30) as response:
            return response.read().decode()
    suffix = ".txt" if name == "metrics" else ".json"
    return (Path(source) / (name + suffix)).read_text()


def families(text):
    """[{name, type, help, base, labels, buckets, value}] of one exposition."""
    found, current = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, help_text = line.split(" ", 3)
            current = found.setdefault(name, {"name": name, "help": help_text, "labels": [], "buckets": [], "value": 0.0})
        elif line.startswith("# TYPE "):
            current["type"] = line.split(" ")[3]
        elif line and current is not None:
            match = re.fullmatch(r"([^{ ]+)(?:\{(.*)\})? (\S+)", line)
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            own = set(labels) & OWN_LABELS
            current["base"] = "scheduler" if "tp_rank" in own else "tokenizer" if "engine_type" in own else "none"
            extra = {k: v for k, v in labels.items() if k not in OWN_LABELS}
            if extra not in current["labels"]:
                current["labels"].append(extra)
            if "le" in labels and labels["le"] not in current["buckets"]:
                current["buckets"].append(labels["le"])
            if current["type"] == "gauge":
                current["value"] = float(match[3]) if match[3] != "NaN" else "NaN"
    return list(found.values())


def main(arguments):
    metrics, server_info, model_info = {}, {}, {}
    for argument in arguments:
        role, source = argument.split("=", 1)
        for family in families(read(source, "metrics")):
            if "base" not in family:
                continue
            known = metrics.setdefault(family["name"], {**family, "roles": []})
            known["roles"].append(role)
            known["labels"] += [label for label in family["labels"] if label not in known["labels"]]
        info = json.loads(read(source, "server_info"))
        inner = info.get("internal_states", [{}])[0]
        server_info[role] = {"outer": {k: v for k, v in info.items() if k not in LOCAL},
                             "inner": {k: v for k, v in inner.items() if k not in info or inner[k] != info[k]},
                             "only_outer": [k for k in info if k not in inner]}
        model_info[role] = json.loads(read(source, "model_info"))
    common = next(iter(server_info.values()))["outer"]
    for role, value in server_info.items():
        value["outer"] = {k: v for k, v in value["outer"].items() if v != common.get(k)}
        value["inner"] = {k: v for k, v in value["inner"].items() if k not in LOCAL}
    for name, value in (("metrics", list(metrics.values())), ("server_info", {"common": common, "roles": server_info}),
                        ("model_info", model_info)):
        (HERE / f"{name}.json").write_text(json.dumps(value, indent=1).replace("tiny-qwen3", "model") + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
