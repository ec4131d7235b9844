"""Requests that the tests send, and what to expect of them."""

import json
import random

PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "generate": "/generate"}


def body(api, text="The quick brown fox", stream=False, tokens=4, **more):
    if api == "chat":
        b = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
    elif api == "completions":
        b = {"model": "tiny", "prompt": text, "max_tokens": tokens}
    else:
        b = {"text": text, "sampling_params": {"max_new_tokens": tokens}}
    if stream:
        b["stream"] = True
    b.update(more)
    return b


def text_of(size, seed=0):
    rng = random.Random(seed)
    words = []
    have = 0
    while have < size:
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9)))
        words.append(word)
        have += len(word) + 1
    return " ".join(words)[:size]


def events_of(text):
    """The `data:` lines of a stream."""
    return [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]


def answer_text(api, answer):
    if api == "chat":
        return answer["choices"][0]["message"]["content"]
    if api == "completions":
        return answer["choices"][0]["text"]
    return answer["text"]


def error_of(answer):
    e = answer.json()["error"]
    assert set(e) >= {"message", "type", "code"}, e
    return e


def both_legs(fleet, path):
    """The last request of each role that came to `path`: (prefill's, decode's)."""
    found = []
    for workers in (fleet.prefills, fleet.decodes):
        received = [r for w in workers for r in w.requests(path)]
        assert received, "no leg arrived"
        found.append(max(received, key=lambda r: r.start))
    return found


def all_received(fleet, path=None):
    return [r for w in fleet.workers for r in w.requests(path)]


def dumps(value):
    return json.dumps(value).encode()
