"""The one command of the example."""

import json
import os
import re
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_run(free_port):
    built = os.environ.get("PDROUTE_EXTPROC")  # all the library would be built once more
    environment = {**os.environ, **({"PDROUTE_EXTPROC_DIR": str(Path(built).resolve().parents[1])} if built else {})}
    done = subprocess.run([TOP / "examples/ext_proc/run", "--port", str(free_port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    answer = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id"'))
    assert answer["usage"]["completion_tokens"] == 50
    assert done.stdout.count("data: [DONE]") == 1
    routed = re.findall(r"status=200 prefill=(127\.0\.0\.3[12]:\d+) decode=(127\.0\.0\.3[34]:\d+) room=(\d+) hit=\S+ attempts=1 why=.*cost=", done.stdout)
    assert len(routed) == 2 and routed[0][2] != routed[1][2]


def test_wrong_option():
    done = subprocess.run([TOP / "examples/ext_proc/run", "--ports"], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "--help" in done.stderr
