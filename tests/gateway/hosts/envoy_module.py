"""Envoy with libpdroute inside: examples/envoy_module, with the example's own envoy.yaml."""

import os
import signal
import subprocess
from pathlib import Path

from hosts import ext_proc
from hosts.ext_proc import PROCESSES, binary
from hosts.host import FEATURES, TOP, Host

HERE = TOP / "examples/envoy_module"


class Gateway(ext_proc.Gateway):
    name = "envoy_module"
    can = frozenset(FEATURES) - {"reload", "config_check"}
    cannot = {"test_killed_worker_gives_back": PROCESSES, "test_kills_under_load": PROCESSES, "test_a_process_with_held_requests_is_lost*": PROCESSES,
              "test_head_that_is_not_http*X-A: a*rb*": "Envoy takes a bare CR in a header's value for text",
              "test_graceful_exit_finishes_a_stream": "Envoy alone ends at once: examples/ext_proc/serve drains it first"}
    instead = {}
    options = frozenset("keepalive body_file body_timeout".split())
    template = HERE / "envoy.yaml"

    def replacements(self):
        return [*super().replacements()[:2], ("/dev/stdout", str(self.access_log)), ("block=/dev/shm/pdroute/qwen config=/etc/pdroute.json",
                f"block={self.block} config={self.config_file}" + (f" body-timeout-ms={1000 * self.given['body_timeout']}" if "body_timeout" in self.given else ""))]

    def dialers(self):
        return [self.process.pid]

    def command(self):
        return [binary("get_envoy", "PDROUTE_ENVOY"), "-c", str(self.dir / "envoy.yaml"), "--disable-hot-restart", "--concurrency", str(self.workers),
                "-l", os.environ.get("PDROUTE_ENVOY_LOG", "warning")]

    def environment(self):
        module = os.environ.get("PDROUTE_ENVOY_MODULE") or subprocess.run([HERE / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1]
        preload = os.environ.get("PDROUTE_ENVOY_PRELOAD")  # the runtime of the sanitizers that the module was built with (tests/labels/adapters)
        return {**os.environ, **({"LD_PRELOAD": preload} if preload else {}), "ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(Path(module).parent)}
