"""The one command of the example."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hosts.ext_proc import binary

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


@pytest.mark.parametrize("options, sentence", [(["--grpc-port=70000"], "'70000' is not a value for --grpc-port"), (["--threads", "0"], "'0' is not a value for --threads"),
                                               (["--pool-name", "../../x"], "'../../x' is not a value for --pool-name"), (["--pool-namespace="], "'' is not a value for --pool-namespace"),
                                               (["--secure-serving"], "gRPC is without TLS"), (["--secure-serving=true"], "--secure-serving=false"), (["x"], "what is 'x'?")])
def test_wrong_options_of_the_picker(options, sentence):
    done = subprocess.run([binary("build", "PDROUTE_EXTPROC"), *options], stderr=subprocess.PIPE, text=True, timeout=10)
    assert done.returncode == 2 and sentence in done.stderr


def test_options_of_other_pickers(tmp_path):
    """As charts for the Gateway API Inference Extension give them."""
    (tmp_path / "pdroute.json").write_text("{}")
    done = subprocess.run([binary("build", "PDROUTE_EXTPROC"), "--pool-name", "qwen", "--pool-namespace", "llm", "--pool-group", "inference.networking.k8s.io", "--zap-encoder", "json",
                           "-v", "1", "--v=4", "--secure-serving=false", "--tracing=false", "--health-checking=true", "--enable-pprof=false", "--grpc-port", "9002", "--grpc-health-port", "9003", "--metrics-port", "9090", "--check", "--config", tmp_path / "pdroute.json",
                           "--block", tmp_path / "block"], stderr=subprocess.PIPE, text=True, timeout=10)
    assert done.returncode == 0, done.stderr


def test_wrong_option():
    done = subprocess.run([TOP / "examples/ext_proc/run", "--ports"], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2 and "--help" in done.stderr
