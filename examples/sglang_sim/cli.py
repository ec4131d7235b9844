"""The command line."""

import argparse
import asyncio
import json
import signal
import sys

from . import cost
from .engine import Timers
from .fleet import build, serve
from .worker import Options

EPILOG = """
addresses: HOST:PORT, port 0 for a free one. A prefill may name its bootstrap server, HOST:PORT@BPORT or
HOST:PORT@BHOST:BPORT (default: a free port on its own host).

  python3 -m sglang_sim --prefill 127.0.0.2:31001@8998 --decode 127.0.0.3:31002
  python3 -m sglang_sim --speed 0 --prefill 127.0.0.2:0 --prefill 127.0.0.3:0 --decode 127.0.0.4:0 --control 127.0.0.1:0
"""


def address(text):
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def prefill_address(text):
    own, _, bootstrap = text.partition("@")
    host, port = address(own)
    if bootstrap.isdigit():
        return host, port, "", int(bootstrap)
    return (host, port, *(address(bootstrap) if bootstrap else ("", 0)))


def timer(text):
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SECONDS") from None


def parser():
    p = argparse.ArgumentParser(prog="sglang_sim", description="Simulated SGLang prefill/decode workers.", epilog=EPILOG,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--prefill", action="append", default=[], type=prefill_address, metavar="HOST:PORT[@BOOTSTRAP]")
    p.add_argument("--decode", action="append", default=[], type=address, metavar="HOST:PORT")
    p.add_argument("--unified", action="append", default=[], type=address, metavar="HOST:PORT", help="a worker without PD")
    p.add_argument("--control", type=address, metavar="HOST:PORT", help="control server for the whole fleet")
    p.add_argument("--speed", type=float, default=1.0, help="factor on all times of computing and transfer; 0: instant")
    p.add_argument("--timers", type=float, help="factor on the engine's own timers (default: the speed, but 0.05 at speed 0)")
    p.add_argument("--timer", action="append", default=[], type=timer, metavar="NAME=SECONDS",
                   help="set one timer: " + ", ".join([*Timers.DEFAULTS, *Timers.FIXED]))
    p.add_argument("--seed", type=int, default=0, help="changes what all answers say")
    p.add_argument("--model", default="tiny", help="served model name")
    p.add_argument("--capacity", type=int, default=270_000, help="KV cache tokens per rank")
    p.add_argument("--context", type=int, default=32_768, help="context length in tokens")
    p.add_argument("--vocabulary", type=int, default=2**32, help="token ids from this on kill prefill, as they kill the engine (default: the simulated tokenizer's own, 2^32)")
    p.add_argument("--dp-size", type=int, default=1, help="DP ranks of each prefill")
    p.add_argument("--bandwidth", type=float, default=cost.TRANSFER_BYTES_PER_SECOND, help="KV transfer, bytes per second")
    p.add_argument("--natural-tokens", type=int, default=128, help="length of answers to requests without a limit")
    p.add_argument("--default-bootstrap-port", type=int, default=8998, help="what a null bootstrap_port means")
    p.add_argument("--no-radix-cache", action="store_true")
    p.add_argument("--header-overrides", action="store_true", help="honour x-override-* (SGLANG_ENABLE_REQUEST_HEADER_OVERRIDES)")
    p.add_argument("--keep-alive", type=float, default=5.0, help="seconds after which an idle connection is closed")
    p.add_argument("--restart-after", type=float, help="seconds after which a crashed worker is back (default: never)")
    p.add_argument("--records", type=int, default=10_000, help="requests kept per worker for /sim/requests")
    return p


def make_options(args):
    scale = args.timers if args.timers is not None else args.speed or 0.05
    return Options(model=args.model, capacity=args.capacity, context=args.context, vocabulary=args.vocabulary, dp_size=args.dp_size,
                   radix=not args.no_radix_cache, natural_tokens=args.natural_tokens, header_overrides=args.header_overrides,
                   keep_alive=args.keep_alive, restart_after=args.restart_after, records=args.records, seed=args.seed,
                   default_bootstrap_port=args.default_bootstrap_port, cost=cost.Cost(args.speed, args.bandwidth),
                   timers=Timers(scale, **dict(args.timer)))


def main(argv=None):
    p = parser()
    args = p.parse_args(argv)
    specs = [("prefill", *a) for a in args.prefill] + [("decode", *a, "", 0) for a in args.decode]
    specs += [("unified", *a, "", 0) for a in args.unified]
    if not specs:
        p.error("no worker: give --prefill, --decode or --unified")
    try:
        asyncio.run(run(build(specs, lambda: make_options(args), args.control)))
    except ValueError as error:
        p.error(str(error))
    except OSError as error:
        sys.exit(f"sglang_sim: {error}")


async def run(fleet):
    """Until SIGINT or SIGTERM. The first line on standard output is a JSON object with every address."""
    loop = asyncio.get_running_loop()
    until = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: until.done() or until.set_result(None))
    await serve(fleet, lambda f: print(json.dumps(f.listing()), flush=True), until)
