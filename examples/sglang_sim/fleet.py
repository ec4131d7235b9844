"""Several workers in one process, and a control server for all of them."""

import asyncio
import json

from aiohttp import web

from .rendezvous import join
from .worker import HEADERS, Worker


class Fleet:
    def __init__(self, workers, control=None):
        self.workers = workers
        self.control = control       # (host, port) or None
        self.runner = None
        self.control_url = None

    async def start(self):
        """Prefills first: decode workers fetch what they need on their first request anyway."""
        for worker in sorted(self.workers, key=lambda w: w.role != "prefill"):
            await worker.start()
        if self.control:
            host, port = self.control
            server = web.Server(self.handle, access_log=None)
            self.runner = web.ServerRunner(server)
            await self.runner.setup()
            site = web.TCPSite(self.runner, host, port, shutdown_timeout=0.1)
            await site.start()
            self.control_url = f"http://{join(host, self.runner.addresses[0][1])}"

    async def stop(self):
        for worker in self.workers:
            await worker.stop()
        if self.runner:
            await self.runner.cleanup()

    def listing(self):
        return {"control": self.control_url,
                "workers": [{"name": w.options.name, "role": w.role, "url": f"http://{w.options.name}",
                             "bootstrap_host": w.options.bootstrap_host if w.role == "prefill" else None,
                             "bootstrap_port": w.options.bootstrap_port if w.role == "prefill" else None}
                            for w in self.workers]}

    async def handle(self, request):
        """GET /sim/fleet, or any /sim/… path of a worker with ?worker=HOST:PORT (all of them without)."""
        if request.path == "/sim/fleet":
            return web.json_response(self.listing())
        name = request.query.get("worker")
        chosen = [w for w in self.workers if name in (None, w.options.name)]
        if not chosen:
            return web.json_response({"error": f"no worker {name}"}, status=404)
        body = await request.read()
        replies = [await w.control(request.method, request.path, body, request.query) for w in chosen]
        if name is not None:
            return replies[0]
        worst = max(reply.status for reply in replies)
        merged = {w.options.name: json.loads(reply.body) for w, reply in zip(chosen, replies)}
        return web.json_response(merged, status=worst, headers=HEADERS)


def build(specs, make_options, control=None):
    """Workers from [(role, host, port, bootstrap host, bootstrap port)]."""
    workers = []
    for role, host, port, bootstrap_host, bootstrap_port in specs:
        options = make_options()
        options.host, options.port = host, port
        options.bootstrap_host, options.bootstrap_port = bootstrap_host, bootstrap_port
        if role != "prefill":
            options.dp_size = 1
        workers.append(Worker(role, options))
    return Fleet(workers, control)


async def serve(fleet, on_ready, until):
    await fleet.start()
    on_ready(fleet)
    try:
        await until
    finally:
        await fleet.stop()
        await asyncio.sleep(0)
