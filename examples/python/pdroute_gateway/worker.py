"""
For gunicorn: `gunicorn -k pdroute_gateway.worker.Worker -w 4 pdroute_gateway:app`. It starts workers anew that died, and reloads at SIGHUP.

Protocol is uvicorn's with three things put right, which its command line has no option for: trailers do not become headers of the request (a proxy in
front of us removes headers that clients may not set, and passes trailers; RFC 9110 section 6.5.1), and a malformed request is one line in the log
without a traceback.

A worker hears what its master says from its first moment on. gunicorn's has the master's handlers for its first 30 to 100 ms, which do nothing there: one that had just been started
would not end with the others, and the master would wait for it as long as graceful_timeout says. Here signals wait until the worker has handlers of its own. SIGUSR1 opens the logs
anew; uvicorn 0.17 lets it end the worker.
"""
from __future__ import annotations

import logging
import os
import signal
import typing

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # type: ignore[import]  # Debian's has no types
from uvicorn.workers import UvicornWorker  # type: ignore[import]


UNASKED = 1.0
FOR_WORKERS = {signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT, signal.SIGUSR1}  # what a master sends to its workers


def hear() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FOR_WORKERS)


os.register_at_fork(after_in_parent=hear)


class Protocol(HttpToolsProtocol):  # type: ignore[misc]
    headers: list[tuple[bytes, bytes]]
    leaving = False

    def on_headers_complete(self) -> None:
        self.headers = list(self.headers)  # the parser calls on_header() for trailers, too: those go to this one; the application gets scope's
        super().on_headers_complete()
        if self.leaving:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        if self.cycle is None:
            self.leaving = True
            self.loop.call_later(UNASKED, self.close_unasked)
        else:
            super().shutdown()

    def close_unasked(self) -> None:
        if self.cycle is None:
            self.transport.close()


def one_line(record: logging.LogRecord) -> bool:
    if record.exc_info and record.msg == "Invalid HTTP request received.":
        record.msg, record.exc_info = f"{record.msg} {record.exc_info[1]}", None
    return True


class Worker(UvicornWorker):  # type: ignore[misc]
    CONFIG_KWARGS: typing.ClassVar[dict[str, typing.Any]] = {"loop": "auto", "http": Protocol, "access_log": False}

    def __init__(self, *args: typing.Any, **kwargs: typing.Any) -> None:
        super().__init__(*args, **kwargs)  # in the master, which forks next
        signal.pthread_sigmask(signal.SIG_BLOCK, FOR_WORKERS)
        logging.getLogger("uvicorn.error").addFilter(one_line)

    def init_signals(self) -> None:
        super().init_signals()
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        hear()
