"""For gunicorn: `gunicorn -k pdroute_gateway.worker.Worker -w 4 pdroute_gateway:app`. It starts workers anew that died, and reloads at SIGHUP."""
from __future__ import annotations

from uvicorn.workers import UvicornWorker  # type: ignore[import]  # Debian's has no types


class Worker(UvicornWorker):  # type: ignore[misc]
    CONFIG_KWARGS = {"loop": "auto", "http": "httptools", "access_log": False}
