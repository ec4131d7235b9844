"""Answers in the engine's layouts: /generate, chat and completions, whole and as events of a stream."""

import json
import time

from . import tokenizer


def dumps(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def event(value):
    return b"data: " + dumps(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def text_of(seq, produced=None):
    """Text of the tokens produced so far (a stop string and what follows are not in `output`)."""
    return seq.output[:(seq.produced if produced is None else produced) * tokenizer.BYTES].decode("utf-8", "replace")


def ids_of(seq, produced):
    raw = seq.output[:produced * tokenizer.BYTES]
    return tokenizer.to_ids(raw + b"\0" * (-len(raw) % tokenizer.BYTES))


# --- log probabilities: numbers that depend on the token alone ---------------------------------------------------------

def logprob_of(token_id, salt=0):
    return -5.0 - ((token_id * 2654435761 + salt * 40503) % 2**32) / 2**32 * 1.5


def _entry(token_id, with_text, salt=0):
    return [logprob_of(token_id, salt), token_id, tokenizer.decode_one(token_id) if with_text else None]


def _top(token_id, n, with_text):
    return [_entry((token_id + i * 7919) % 2**24 if i else token_id, with_text) for i in range(n)]


def logprob_fields(call, seq, produced, prefill):
    """The arrays of meta_info. A decode worker has no prompt, so its `input_*` arrays are empty."""
    spec = call.logprob
    if spec is None:
        return {}
    with_text = spec["text"]
    output = ids_of(seq, produced)
    prompt = []
    if prefill and spec["start"] >= 0:
        prompt = tokenizer.to_ids(seq.tokens)[spec["start"]:]
    fields = {"input_token_logprobs": [[None, prompt[0], tokenizer.decode_one(prompt[0]) if with_text else None]]
              + [_entry(t, with_text) for t in prompt[1:]] if prompt else [],
              "output_token_logprobs": [_entry(t, with_text) for t in output],
              "output_token_logprobs_length": produced}
    if spec["top"]:
        fields["input_top_logprobs"] = [None] + [_top(t, spec["top"], with_text) for t in prompt[1:]] if prompt else []
        fields["output_top_logprobs"] = [_top(t, spec["top"], with_text) for t in output]
    if spec["ids"]:
        def chosen(_):
            return [_entry(t, with_text, 1) for t in spec["ids"]]
        fields["input_token_ids_logprobs"] = [None] + [chosen(t) for t in prompt[1:]] if prompt else []
        first = [chosen(output[0])] if prefill or not output else [None]
        fields["output_token_ids_logprobs"] = first + [chosen(t) for t in output[1:]]
    return fields


# --- /generate ---------------------------------------------------------------------------------------------------------

def generate(call, seq, produced, mode, final, dp_rank=None, index=None):
    """One object of /generate: the whole answer, or what a stream has so far."""
    finish = seq.finish if final else None
    now = time.time()
    prefill = mode != "decode"
    meta = {"id": seq.rid, "finish_reason": finish, "prompt_tokens": seq.n, "weight_version": "default",
            "num_retractions": seq.retractions}
    if mode == "prefill" and "forward" in seq.times:
        meta.update(storage_prefetch_wait=0.0, storage_staging_wait=0.0)
    started = seq.times.get("forward") or seq.times.get("running")
    if started:
        meta["forward_entry_time"] = started
        if "prefilled" in seq.times:
            meta["prefill_finished_time"] = seq.times["prefilled"]
    meta["queue_time"] = max(0.0, started - seq.born) if started else 0.0
    meta.update(logprob_fields(call, seq, produced, prefill))
    meta.update(reasoning_tokens=0, completion_tokens=produced, cached_tokens=seq.cached)
    if final:
        meta["weight_versions"] = [{"version": "default", "start": 0, "end": produced}]
    meta["cached_tokens_details"] = {"device": seq.cached, "host": 0} if seq.cached else None
    meta["dp_rank"] = dp_rank
    if final:
        meta.update(e2e_latency=now - seq.born, request_received_ts=seq.born, first_token_latency=now - seq.born,
                    api_server_dispatch_finish_ts=seq.born, request_finished_ts=now, response_sent_to_client_ts=now)
    answer = {"text": text_of(seq, produced), "output_ids": ids_of(seq, produced), "meta_info": meta}
    if index is not None:
        answer["index"] = index
    return answer


# --- the OpenAI paths --------------------------------------------------------------------------------------------------

def usage(seqs):
    prompt, completion = sum(s.n for s in seqs), sum(s.produced for s in seqs)
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": sum(s.cached for s in seqs)}, "reasoning_tokens": 0,
            "completion_tokens_details": None}


def _finish(seq):
    return seq.finish["type"], seq.finish.get("matched")


def _chat_logprobs(call, seq, first, last):
    if call.logprob is None:
        return None
    content = []
    for token_id in ids_of(seq, last)[first:]:
        text = tokenizer.decode_one(token_id)
        item = {"token": text, "bytes": list(text.encode()), "logprob": logprob_of(token_id)}
        item["top_logprobs"] = [{"token": t, "bytes": list(t.encode()), "logprob": lp}
                                for lp, _, t in _top(token_id, call.logprob["top"], True)]
        content.append(item)
    return {"content": content}


def _completion_logprobs(call, seq, first, last, mode):
    if call.logprob is None:
        return None
    ids = ids_of(seq, last)[first:]
    prompt = tokenizer.to_ids(seq.tokens) if call.echo is not None and mode != "decode" and first == 0 else []
    names = [tokenizer.decode_one(t) for t in prompt + ids]
    values = [None if prompt and i == 0 else logprob_of(t) for i, t in enumerate(prompt + ids)]
    top = [None if prompt and i == 0 else {n: lp for lp, _, n in _top(t, call.logprob["top"], True)}
           for i, t in enumerate(prompt + ids)]
    return {"text_offset": [-1] * len(names), "token_logprobs": values, "tokens": names, "top_logprobs": top}


def _metadata(seqs):
    return {"weight_version": "default",
            "weight_versions": [{"version": "default", "start": 0, "end": seqs[0].produced}]}


def chat(call, seqs, mode):
    choices = []
    for i, seq in enumerate(seqs):
        reason, matched = _finish(seq)
        choices.append({"index": i, "message": {"role": "assistant", "content": text_of(seq), "reasoning_content": None},
                        "logprobs": _chat_logprobs(call, seq, 0, seq.produced), "finish_reason": reason,
                        "matched_stop": matched})
    return {"id": call.rid, "object": "chat.completion", "created": int(time.time()), "model": call.model,
            "choices": choices, "usage": usage(seqs), "metadata": _metadata(seqs)}


def completion(call, seqs, mode):
    choices = []
    for i, seq in enumerate(seqs):
        reason, matched = _finish(seq)
        echo = call.echo[i // call.n] if call.echo is not None else ""
        choices.append({"index": i, "text": echo + text_of(seq), "finish_reason": reason, "matched_stop": matched,
                        "logprobs": _completion_logprobs(call, seq, 0, seq.produced, mode)})
        choices[-1] = {k: choices[-1][k] for k in ("index", "text", "logprobs", "finish_reason", "matched_stop")}
    return {"id": call.rid, "object": "text_completion", "created": int(time.time()), "model": call.model,
            "choices": choices, "usage": usage(seqs), "metadata": _metadata(seqs)}


class Stream:
    """Events of one streamed answer on an OpenAI path. `sent` counts the tokens already sent, per sequence."""

    def __init__(self, call, seqs, mode):
        self.call, self.seqs, self.mode = call, seqs, mode
        self.created = int(time.time())
        self.sent = [0] * len(seqs)
        self.object = "chat.completion.chunk" if call.kind == "chat" else "text_completion"

    def _chunk(self, choice, with_usage=None):
        rid = self.seqs[choice["index"]].rid if choice and self.call.batch else self.call.rid
        chunk = {"id": rid, "object": self.object, "created": self.created, "model": self.call.model,
                 "choices": [choice] if choice is not None else []}
        if with_usage:
            chunk["usage"] = usage(with_usage)
            if self.call.kind == "completion":
                del chunk["usage"]["completion_tokens_details"]
        elif self.call.kind == "completion":
            chunk["usage"] = None
        return event(chunk)

    def tokens(self, i, produced, final):
        """Events with what sequence `i` has produced since the last call."""
        seq, call = self.seqs[i], self.call
        first, self.sent[i] = self.sent[i], produced
        if not seq.output and seq.finish and seq.finish["type"] == "abort":
            return []
        raw = seq.output[first * tokenizer.BYTES:produced * tokenizer.BYTES].decode("utf-8", "replace")
        counted = [seq] if call.usage_every_chunk else None
        if call.kind == "completion":
            text = (call.echo[i // call.n] if call.echo is not None and first == 0 else "") + raw
            reason, matched = _finish(seq) if final else (None, None)
            return [self._chunk({"index": i, "text": text, "logprobs": _completion_logprobs(call, seq, first, produced, self.mode),
                                 "finish_reason": reason, "matched_stop": matched}, counted)]
        out = []
        if first == 0:
            out = [self._chunk({"index": i, "delta": {"reasoning_content": None, "role": "assistant", "content": ""},
                                "logprobs": None, "finish_reason": None, "matched_stop": None}, None)]
        if raw:
            out.append(self._chunk({"index": i, "delta": {"reasoning_content": None, "content": raw},
                                    "logprobs": _chat_logprobs(call, seq, first, produced), "finish_reason": None,
                                    "matched_stop": None}, counted))
        return out

    def end_of(self, i):
        """Chat has an event of its own for the finish reason; completions had it with the last token."""
        if self.call.kind == "completion":
            return []
        seq = self.seqs[i]
        reason, matched = _finish(seq)
        return [self._chunk({"index": i, "delta": {"reasoning_content": None}, "logprobs": None, "finish_reason": reason,
                             "matched_stop": matched}, [seq] if self.call.usage_every_chunk else None)]

    def usage(self):
        return self._chunk(None, self.seqs)


def stream_error(seq):
    """An abort inside a stream on an OpenAI path: HTTP status and headers are gone already."""
    status = seq.finish["status_code"] or 500
    names = {400: "BAD_REQUEST", 500: "INTERNAL_SERVER_ERROR", 503: "SERVICE_UNAVAILABLE"}
    error = {"object": "error", "message": seq.finish["message"], "type": names.get(status, str(status)), "param": None,
             "code": status}
    return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
