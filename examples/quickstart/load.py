"""A client for the quickstart: one conversation step by step, many at once, or requests of every kind. Debian's python3-aiohttp."""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time

import aiohttp

SYSTEM = ("You are the assistant of a company that runs large language models for others. Answer briefly, in the language of the question, and "
          "say so when you do not know. ") + " ".join(f"Rule {i}: keep what was agreed in point {i} of the handbook in mind." for i in range(1, 60))
WORDS = "cache prefill decode token queue batch room pair worker prompt latency stream model answer request".split()


def sentence(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


async def chat(session, url, body):
    """(seconds to first byte, seconds in all, text, usage); raises on anything that is not a whole good answer."""
    began = time.monotonic()
    async with session.post(f"{url}/v1/chat/completions", json=body) as reply:
        if reply.status != 200:
            raise RuntimeError(f"HTTP {reply.status}: {(await reply.text())[:200]}")
        if not body.get("stream"):
            data = await reply.json()
            now = time.monotonic() - began
            return now, now, data["choices"][0]["message"]["content"], data["usage"]
        first, text, usage, done = None, "", None, False
        async for line in reply.content:
            if not line.startswith(b"data:"):
                continue
            first = first or time.monotonic() - began
            payload = line[5:].strip()
            if payload == b"[DONE]":
                done = True
                continue
            event = json.loads(payload)
            if "error" in event:
                raise RuntimeError(f"error event: {payload[:200]!r}")
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                text += (choice.get("delta") or {}).get("content") or ""
        if not done:
            raise RuntimeError("the stream ended without [DONE]")
        return first, time.monotonic() - began, text, usage


def cached(usage):
    return ((usage or {}).get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def last_decision():
    out = subprocess.run([*os.environ["PDROUTE_CTL"].split(), "log", "-n", "1", "--json"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return json.loads(out.splitlines()[-1])


async def turns(args):
    messages = [{"role": "system", "content": SYSTEM}]
    async with aiohttp.ClientSession() as session:
        for turn, question in enumerate(["What is a bootstrap room?", "And who writes it into the request?", "Thank you. Sum it up."], 1):
            messages.append({"role": "user", "content": question})
            body = {"model": args.model, "messages": messages, "max_tokens": 24}
            if turn == 3:
                body.update(stream=True, stream_options={"include_usage": True})
            first, whole, text, usage = await chat(session, args.url, body)
            messages.append({"role": "assistant", "content": text})
            d = last_decision()
            hit, expected = cached(usage) / max(1, usage["prompt_tokens"]), d["matched_tokens"] / max(1, d["prompt_tokens"])
            print(f"  turn {turn}  {d['prefill']} + {d['decode']}  {usage['prompt_tokens']:>5} tokens, {hit:4.0%} cached "
                  f"({expected:.0%} expected), {'first token' if turn == 3 else 'answer'} after {first * 1000:.0f} ms")


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


class Progress:
    def __init__(self, total):
        self.total, self.done, self.failed, self.began, self.tty = total, 0, 0, time.monotonic(), sys.stdout.isatty()

    def step(self, ok=True):
        self.done += 1
        self.failed += not ok
        if self.tty:
            width = 40 * self.done // self.total
            print(f"\r  [{'#' * width}{'.' * (40 - width)}] {self.done}/{self.total}  {time.monotonic() - self.began:.1f} s ", end="", flush=True)

    def end(self):
        if self.tty:
            print("\r" + " " * 72 + "\r", end="")


async def status(session, url):
    async with session.get(f"{url}/pdroute") as reply:
        return await reply.json()


async def conversations(args):
    rng = random.Random(1)
    firsts, wholes, errors, hits, prompt = [], [], [], 0, 0
    gate = asyncio.Semaphore(args.concurrency)
    progress = Progress(args.requests * 3)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300)) as session:
        before = await status(session, args.url)

        async def converse(seed):
            nonlocal hits, prompt
            own = random.Random(seed)
            messages = [{"role": "system", "content": SYSTEM if own.random() < 0.5 else sentence(own, 120)}]
            for turn in range(3):
                messages.append({"role": "user", "content": sentence(own, own.choice((10, 40, 300)))})
                body = {"model": args.model, "messages": messages, "max_tokens": own.choice((8, 16, 32)), "stream": True,
                        "stream_options": {"include_usage": True}}
                try:
                    async with gate:
                        first, whole, text, usage = await chat(session, args.url, body)
                except Exception as error:  # noqa: BLE001: whatever it is, it is counted and shown
                    errors.append(f"{type(error).__name__}: {error}")
                    for _ in range(turn, 3):
                        progress.step(False)
                    return
                firsts.append(first)
                wholes.append(whole)
                hits += cached(usage)
                prompt += usage["prompt_tokens"]
                messages.append({"role": "assistant", "content": text})
                progress.step()

        await asyncio.gather(*(converse(rng.random()) for _ in range(args.requests)))
        progress.end()
        after = await status(session, args.url)
    took = time.monotonic() - progress.began
    print(f"  {len(firsts)} answers, {len(errors)} errors in {took:.1f} s ({len(firsts) / took:.0f} requests/s)")
    print(f"  prompt tokens {prompt:,}, of which the engines had cached {100 * hits / max(1, prompt):.0f} %; "
          f"{after['held'] - before['held']} requests were held for a while, {after['retried'] - before['retried']} retried")
    print("  first token  " + "   ".join(f"p{int(q * 100)} {quantile(firsts, q) * 1000:,.0f} ms" for q in (.5, .9, .99)) +
          "      whole answer  " + "   ".join(f"p{int(q * 100)} {quantile(wholes, q) * 1000:,.0f} ms" for q in (.5, .9, .99)))
    old = {t["id"]: t for t in before["targets_detail"]}
    for t in after["targets_detail"]:
        n = t["requests_total"] - old.get(t["id"], {}).get("requests_total", 0)
        print(f"  {t['role']:<8}{t['name']:<26}{n:>6} requests  {'#' * (40 * n // max(1, len(firsts)))}")
    for e in sorted(set(errors))[:5]:
        print("  error:", e)
    return 1 if errors else 0


def mixed_request(rng, model, i):
    """(path, body) of one of every kind that clients send."""
    text = sentence(rng, rng.choice((5, 30, 200)))
    tokens = rng.choice((1, 4, 8))
    kind = i % 8
    if kind < 3:
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens}
        return "/v1/chat/completions", body if kind else {**body, "stream": True}
    if kind < 5:
        body = {"model": model, "prompt": text if kind == 3 else [text, text + " more"], "max_tokens": tokens}
        return "/v1/completions", body
    if kind == 5:
        return "/generate", {"text": text, "sampling_params": {"max_new_tokens": tokens}}
    if kind == 6:
        return "/generate", {"input_ids": [rng.randrange(3, 400) for _ in range(60)], "sampling_params": {"max_new_tokens": tokens}}
    return "/generate", {"text": text, "sampling_params": {"max_new_tokens": tokens}, "stream": True}


async def mixed(args):
    rng, errors, kinds = random.Random(2), [], {}
    gate = asyncio.Semaphore(args.concurrency)
    progress = Progress(args.requests)

    async def one(session, i):
        path, body = mixed_request(rng, args.model, i)
        try:
            async with gate, session.post(args.url + path, json=body) as reply:
                data = await reply.read()
                ok = reply.status == 200 and (b"[DONE]" in data if body.get("stream") else bool(json.loads(data)))
                if not ok:
                    errors.append(f"{path}: HTTP {reply.status} {data[:160]!r}")
        except Exception as error:  # noqa: BLE001
            ok = False
            errors.append(f"{path}: {type(error).__name__} {error}")
        kinds[path] = kinds.get(path, 0) + ok
        progress.step(ok)

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        await asyncio.gather(*(one(session, i) for i in range(args.requests)))
    progress.end()
    took = time.monotonic() - progress.began
    print(f"  {args.requests - len(errors)} of {args.requests} answered in {took:.1f} s: " + ", ".join(f"{n} {p}" for p, n in sorted(kinds.items())))
    for e in sorted(set(errors))[:5]:
        print("  lost:", e)
    return 1 if errors else 0


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("what", choices=("turns", "conversations", "mixed"))
    p.add_argument("--url", default="http://127.0.0.1:8080")
    p.add_argument("--model", default="/models/Qwen3-32B")
    p.add_argument("--requests", type=int, default=200)
    p.add_argument("--concurrency", type=int, default=200)
    args = p.parse_args()
    try:
        sys.exit(asyncio.run({"turns": turns, "conversations": conversations, "mixed": mixed}[args.what](args)))
    except KeyboardInterrupt:
        sys.exit(130)
    except (RuntimeError, aiohttp.ClientError, asyncio.TimeoutError) as error:
        sys.exit(f"quickstart: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
