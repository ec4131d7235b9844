"""What a worker tells about itself: /metrics, /v1/loads, /server_info, /model_info, in the engine's layouts.

`layout/` holds the layouts as a real SGLang 0.5.23 had them (see layout/capture.py); this module fills in what the
simulated engine knows and leaves the rest at what an idle engine shows.
"""

import json
import time
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

VERSION = "0.5.23"
LAYOUT = Path(__file__).parent / "layout"
SECTIONS = {"core", "memory", "spec", "lora", "disagg", "queues", "all"}


@lru_cache
def layout(name):
    return json.loads((LAYOUT / f"{name}.json").read_text())


# --- /metrics ----------------------------------------------------------------------------------------------------------

def ratio(part, whole):
    return part / whole if whole else 0.0


# gauge name -> value from one published entry of Engine.loads()
GAUGES = {
    "num_running_reqs": lambda e: e["running"],
    "num_queue_reqs": lambda e: e["waiting"],
    "num_used_tokens": lambda e: e["used"],
    "kv_used_tokens": lambda e: e["used"],
    "kv_available_tokens": lambda e: e["available"],
    "kv_evictable_tokens": lambda e: e["evictable"],
    "token_usage": lambda e: ratio(e["used"], e["capacity"]),
    "full_token_usage": lambda e: ratio(e["used"], e["capacity"]),
    "gen_throughput": lambda e: e["throughput"],
    "cache_hit_rate": lambda e: e["hit_rate"],
    "decode_sum_seq_lens": lambda e: e["sum_seq_lens"],
    "max_total_num_tokens": lambda e: e["capacity"],
    "num_pages": lambda e: e["capacity"],
    "num_prefill_bootstrap_queue_reqs": lambda e: e["bootstrap"],
    "num_prefill_inflight_queue_reqs": lambda e: e["inflight"],
    "num_decode_prealloc_queue_reqs": lambda e: e["prealloc"],
    "num_decode_transfer_queue_reqs": lambda e: e["transfer"],
    "num_retracted_reqs": lambda e: e["retracted"],
    "pending_prealloc_token_usage": lambda e: ratio(e["pending_tokens"], e["capacity"]),
    "utilization": lambda e: e["utilization"],
}
# counters that a worker has only once something has been counted
EVENTS = {
    "num_aborted_requests_total": ("Number of requests aborted.", "tokenizer"),
    "num_bootstrap_failed_reqs_total": ("The number of bootstrap failed requests.", "scheduler"),
    "num_transfer_failed_reqs_total": ("The number of transfer failed requests.", "scheduler"),
    "num_retracted_requests_total": ("Total number of retracted requests.", "scheduler"),
}
HTTP = {"http_requests_total", "http_responses_total", "http_requests_active"}


def number(value):
    return "NaN" if value == "NaN" else repr(float(value))


def labels_text(labels):
    return "{" + ",".join(f'{k}="{labels[k]}"' for k in sorted(labels)) + "}" if labels else ""


@lru_cache
def bounds(name):
    """Upper bounds of the buckets of a histogram, +Inf left out."""
    for family in layout("metrics"):
        if family["name"] == f"sglang:{name}":
            return [float(b) for b in family["buckets"] if b != "+Inf"]
    return []


def histogram(name, labels, buckets, counts, total):
    """Lines of one histogram; `counts` are per bucket, not cumulative."""
    lines, below = [], 0
    for bound, count in zip(buckets, counts):
        below += count
        lines.append(f"{name}_bucket{labels_text({**labels, 'le': bound})} {float(below)}")
    lines.append(f"{name}_count{labels_text(labels)} {float(below)}")
    lines.append(f"{name}_sum{labels_text(labels)} {float(total)}")
    return lines


class Metrics:
    """The text of /metrics of one worker."""

    def __init__(self, engine, options):
        self.engine, self.options = engine, options
        self.role = engine.mode if engine.mode != "null" else "unified"

    def text(self):
        lines = []
        for family in layout("metrics"):
            if self.role in family["roles"]:
                samples = self._samples(family)
                if samples:
                    lines += [f"# HELP {family['name']} {family['help']}", f"# TYPE {family['name']} {family['type']}", *samples]
        for name, (text, base) in EVENTS.items():
            samples = self._counted(name, base)
            if samples:
                lines += [f"# HELP sglang:{name} {text}", f"# TYPE sglang:{name} counter", *samples]
        return "\n".join(lines) + "\n"

    def _tokenizer(self):
        return {"engine_type": self.role, "model_name": self.options.model}

    def _scheduler(self, rank):
        labels = {**self._tokenizer(), "moe_ep_rank": "0", "pp_rank": "0", "tp_rank": "0"}
        if self.options.dp_size > 1:
            labels["dp_rank"] = str(rank)
        return labels

    def _bases(self, base):
        """(rank, label set) of each series that a family has."""
        if base == "scheduler":
            return [(rank, self._scheduler(rank)) for rank in range(len(self.engine.published))]
        return [(None, self._tokenizer() if base == "tokenizer" else {})]

    def _samples(self, family):
        name = family["name"].removeprefix("sglang:")
        if name in HTTP:
            return self._counted(name, "none")
        if family["type"] == "counter":
            counted = self._counted(name, family["base"])
            if counted:
                return counted
        lines = []
        for rank, base in self._bases(family["base"]):
            for extra in family["labels"] or [{}]:
                if family["type"] == "histogram":
                    observed = self.engine.stats.histograms.get((name, tuple(sorted(extra.items()))))
                    if observed or not extra:
                        counts = observed.counts if observed else [0] * len(family["buckets"])
                        lines += histogram(family["name"], {**base, **extra}, family["buckets"], counts,
                                           observed.sum if observed else 0.0)
                    continue
                value = family["value"] if family["type"] == "gauge" else 0.0
                if name in GAUGES:
                    value = GAUGES[name](self.engine.published[rank or 0])
                if name in ("num_retracted_reqs", "num_paused_reqs"):
                    extra = {**extra, "pid": str(self.options.pid)}
                lines.append(f"{family['name']}{labels_text({**base, **extra})} {number(value)}")
        return lines

    def _counted(self, name, base):
        lines = []
        for (key, labels), value in self.engine.stats.counters.items():
            if key == name:
                own = dict(labels)
                common = {}
                if base == "scheduler":
                    common = self._scheduler(own.pop("rank", 0))
                elif base == "tokenizer":
                    common = self._tokenizer()
                lines.append(f"sglang:{name}{labels_text({**common, **own})} {number(value)}")
        return lines


# --- /v1/loads ---------------------------------------------------------------------------------------------------------

def load_entry(entry, options, mode, include):
    """One rank of /v1/loads, fresh. `include`: set of sections or None for all."""
    everything = include is None or "all" in include
    usage = ratio(entry["used"], entry["capacity"])
    moments = None if mode == "prefill" else [float(entry["steps"]), float(entry["generated"]), 0.0, float(entry["generated"]),
                                              0.0, float(entry["generated"])]
    out = {"timestamp": time.time(), "dp_rank": entry["dp_rank"], "num_running_reqs": entry["running"],
           "num_waiting_reqs": entry["waiting"], "num_waiting_uncached_tokens": entry["waiting_uncached"],
           "num_used_tokens": entry["used"], "num_total_tokens": entry["total"], "num_active_tokens": entry["active"],
           "num_prealloc_ready_tokens": 0, "max_total_num_tokens": entry["capacity"], "max_running_requests": 2048,
           "token_usage": round(usage, 4), "gen_throughput": round(entry["throughput"], 2),
           "cache_hit_rate": round(entry["hit_rate"], 4), "utilization": entry["utilization"],
           "total_prefill_uncached_tokens": entry["uncached_total"], "total_prefill_busy_us": entry["busy_us"],
           "decode_moments": moments}
    if everything or "memory" in include:
        out["memory"] = {"weight_gb": 65.6, "kv_cache_gb": round(entry["capacity"] * options.kv_bytes / 2**30, 3),
                         "graph_gb": 0.0, "token_capacity": entry["capacity"]}
    if everything or "disagg" in include:
        out["disaggregation"] = {
            "mode": mode, "prefill_bootstrap_queue_reqs": entry["bootstrap"], "prefill_inflight_queue_reqs": entry["inflight"],
            "decode_prealloc_queue_reqs": entry["prealloc"], "decode_transfer_queue_reqs": entry["transfer"],
            "decode_retracted_queue_reqs": entry["retracted"], "kv_transfer_speed_gb_s": entry["speed_gb_s"],
            "kv_transfer_latency_ms": entry["latency_ms"]}
    if everything or "queues" in include:
        out["queues"] = {"waiting": entry["waiting"], "grammar": 0, "paused": 0, "retracted": entry["retracted"],
                         "prealloc_ready": 0}
    return out


def loads(engine, options, query):
    """(content type, text) of /v1/loads, or None for an unknown section (the engine answers 500)."""
    include = {s.strip() for s in query["include"].split(",")} if query.get("include") else None
    if include is not None and not include <= SECTIONS:
        return None
    rank = query.get("dp_rank")
    entries = [load_entry(e, options, engine.mode, include) for e in engine.loads() if rank is None or e["dp_rank"] == int(rank)]
    if query.get("format") == "prometheus":
        return "text/plain; version=0.0.4; charset=utf-8", prometheus(entries)
    answer = {"timestamp": datetime.now(timezone.utc).isoformat(), "version": VERSION, "accelerator": None,
              "num_accelerators": 1, "loads": entries}
    return "application/json", json.dumps(answer, separators=(",", ":"))


def prometheus(entries):
    samples = {}
    for entry in entries:
        rank = entry["dp_rank"]
        for key, value in entry.items():
            if key == "dp_rank":
                continue
            if isinstance(value, dict):
                prefix = {"disaggregation": "disagg"}.get(key, key)
                for name, inner in value.items():
                    if isinstance(inner, (int, float)):
                        samples.setdefault(f"sglang_{prefix}_{name}", []).append((rank, inner))
            elif isinstance(value, (int, float)):
                samples.setdefault(f"sglang_{key}", []).append((rank, value))
    lines = []
    for name, series in samples.items():
        lines.append(f"# TYPE {name} gauge")
        lines += [f'{name}{{dp_rank="{rank}"}} {value}' for rank, value in series]
    return "\n".join(lines) + "\n"


# --- /server_info, /model_info, /v1/models -----------------------------------------------------------------------------

def server_info(engine, options):
    role = engine.mode if engine.mode != "null" else "unified"
    known = layout("server_info")
    own = known["roles"][role]
    capacity = options.capacity
    info = {"model_path": options.model, "tokenizer_path": options.model, **known["common"], **own["outer"]}
    info.update(host=options.host, port=options.port, random_seed=options.seed, served_model_name=options.model,
                dp_size=options.dp_size, disaggregation_mode=engine.mode, max_total_tokens=capacity,
                disaggregation_bootstrap_port=options.bootstrap_port if engine.mode == "prefill"
                else options.default_bootstrap_port)
    state = {k: v for k, v in info.items() if k not in own["only_outer"]}
    state.update(own["inner"])
    state["last_gen_throughput"] = engine.loads()[0]["throughput"]
    state["memory_usage"] = {**state["memory_usage"], "token_capacity": capacity}
    info.update(launch_command=f"sglang_sim --{role} {options.name}", max_total_num_tokens=capacity,
                max_req_input_len=options.context - 6, internal_states=[state] * options.dp_size,
                startup_time={"scheduler_e2e": 0.0}, version=VERSION)
    return info


def model_info(engine, options):
    role = engine.mode if engine.mode != "null" else "unified"
    return {**layout("model_info")[role], "model_path": options.model, "tokenizer_path": options.model,
            "served_model_name": options.model}


def models(options):
    return {"object": "list", "data": [model_card(options)]}


def model_card(options):
    return {"id": options.model, "object": "model", "created": int(time.time()), "owned_by": "sglang", "root": options.model,
            "parent": None, "max_model_len": options.context}
