"""One client process of test_kills.py: threads that send requests one after the other and write down how each ended, until the process is killed.

    kills_client.py PORT FILE NUMBER THREADS

FILE gets two lines for a request, each in one write: `NUMBER.THREAD.I begin TIME` and `NUMBER.THREAD.I end TIME HOW WHAT`, in the time of CLOCK_MONOTONIC. HOW is
`answer` (200, whole), `error` (the gateway's error of that status and code, also within a stream), `refused` (no connection), `closed` (reset, or ended
too early), `left` (by the client itself, on purpose), or `wrong`.
"""

import http.client
import json
import os
import random
import sys
import threading
import time

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]

from traffic import PATHS, answer_text, body, events_of  # noqa: E402

APIS = ("chat", "generate", "completions")


def error_in(text):
    """Status and code of an error of the gateway, None if it is none."""
    try:
        error = json.loads(text)["error"]
        return f"{error['code']}" if error["message"] and error["type"] else None
    except (ValueError, KeyError, TypeError):
        return None


def judge(api, stream, status, text, cut):
    if status != 200:
        code = error_in(text)
        return ("closed", "in an error") if cut else ("error", f"{status} {code}") if code else ("wrong", f"{status} {text[:200]}")
    if not stream:
        if cut:
            return "closed", "in the answer"
        return ("answer", "") if answer_text(api, json.loads(text)) else ("wrong", text[:200])
    events = events_of(text)
    codes = [code for code in map(error_in, events) if code]
    if codes or any('"abort"' in e for e in events):
        return "error", f"stream {codes[0] if codes else 'abort'}"
    if events[-1:] == ["[DONE]"] and not cut:
        return "answer", ""
    return ("closed", "in the stream") if cut else ("wrong", text[-200:])


def ask(port, rng, name, i):
    """(how, what)"""
    api, stream, leaves = APIS[i % 3], rng.random() < 0.5, rng.random() < 0.08
    size = rng.choice((40, 40, 2000, 12000))
    b = body(api, text=f"{name} " + "it was said again " * (size // 18), stream=stream, tokens=rng.choice((1, 4, 16)))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        try:
            connection.connect()
        except ConnectionRefusedError:
            return "refused", ""
        connection.request("POST", PATHS[api], json.dumps(b), {"Content-Type": "application/json", "Connection": "close"})
        if leaves and rng.random() < 0.5:
            return "left", "before the answer"
        answer = connection.getresponse()
        if leaves:
            answer.read(1)
            return "left", "in the answer"
        text, cut = b"", False
        try:
            while piece := answer.read1(65536):
                text += piece
            cut = bool(answer.length)
        except (http.client.IncompleteRead, ConnectionError) as error:
            text += getattr(error, "partial", b"")
            cut = True
        return judge(api, stream, answer.status, text.decode(errors="replace"), cut)
    except (ConnectionError, http.client.HTTPException) as error:
        return "closed", type(error).__name__
    except Exception as error:  # noqa: BLE001 - whatever it is, it is none of the ends that may be
        return "wrong", repr(error)
    finally:
        connection.close()


def run(port, file, number, thread):
    rng = random.Random(f"{number} {thread}")
    for i in range(1 << 30):
        name = f"{number}.{thread}.{i}"
        os.write(file, f"{name} begin {time.monotonic():.6f}\n".encode())
        how, what = ask(port, rng, name, i)
        os.write(file, f"{name} end {time.monotonic():.6f} {how} {what}\n".encode())
        if how != "answer":
            time.sleep(0.02)


def main():
    port, path, number, threads = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for thread in range(threads):
        threading.Thread(target=run, args=(port, file, number, thread)).start()


if __name__ == "__main__":
    main()
