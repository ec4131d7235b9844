"""Shell lines of the documentation, followed to the letter as somebody new does: every indented command of every page is run here, or the test that runs it is
named here; so a new line needs one of both.
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from test_docs import DOCUMENTS, TOP, blocks
from hosts.host import free_ports
from sglang_sim import harness

COMMAND = re.compile(r"    ((?:[A-Z_]+=\S+ )*(?:apt-get|bindings/\S+|build/\S+|cd|cmake|curl|docker|examples/\S+|export|fuzz/run|gateway|go|kubectl|make|ninja|pair|pdroutectl|pip|"
                     r"python3?|/usr/bin/python3|tests/\S+|envoy|nginx|SGLANG_\w+=\S+)(?:\s.*)?)$|    ([A-Z_]+=.* go .*)$")
HERE = "here"
# a line (or how it begins) → HERE, or the test that runs it, by file and what must be in it; or why nobody does
RUN = [
    (r"examples/quickstart/run", "tests/quickstart", "run"),
    (r"examples/ext_proc/(run|build)", "tests/envoy/test_run.py", "examples/ext_proc"),
    (r"build/ext_proc/bin/pdroute-extproc --config", "tests/envoy/test_protocol.py", "test_defaults_are_those_of_endpoint_pickers"),
    (r"examples/envoy_module/build", "tests/labels/envoy", "examples/envoy_module/build"),
    (r"ENVOY_DYNAMIC_MODULES_SEARCH_PATH=\S+ envoy", "tests/gateway/hosts/envoy_module.py", "ENVOY_DYNAMIC_MODULES_SEARCH_PATH"),
    (r"examples/nginx/build", "tests/labels/gateway", "examples/nginx/build"),
    (r"bindings/go/build DIR", "tests/labels/go", "bindings/go/build"),
    (r"examples/sglang_sim/run", "tests/sim", "sglang_sim"),
    (r"examples/simulate/run --trace synthetic", "tests/simulate", "synthetic"),
    (r"fuzz/run", "minutes of fuzzing by hand; tests/labels/fuzz sends the kept inputs through the same targets"),
    (r"/usr/bin/python3 tests/tools/mutate.py", "hours of mutants by hand; their results are in tests/data/mutants.txt"),
    (r"/usr/bin/python3 -m pytest tests/gateway", "tests/labels/python", "tests/gateway"),
    (r"tests/bench/run --json", "minutes; tests/labels/bench runs its programs"),
    (r"export PDROUTE_BLOCK|pdroutectl ", "tests/ctl", "PDROUTE_BLOCK"),
    (r"PDROUTE_CONFIG=\S+ PDROUTE_BLOCK=\S+ python -m uvicorn", "tests/gateway/hosts/python.py", "uvicorn"),
    (r"tests/run", "it is what runs this"),
    (r"examples/simulate/(run --trace \S*(DIR|conversation|day)|traces|bars)", "recorded traces come from the net, and their bars take minutes: tests/labels/simulate has the parts without"),
    (r"SGLANG_|pair ", "needs a real SGLang: tests/gateway/test_real_pair.py where there is one"),
    (r"apt-get install", HERE),
    (r"python3 -m venv|pip (install|wheel)", "bindings/python/tests/test_wheel.py", "as the page says"),
    (r"cd examples/python", "tests/gateway/hosts/python.py", "examples/python"),
    (r"cmake -S . -B build -G Ninja && ninja -C build && cmake --install", "tests/abi/install.sh", "cmake --install"),
    (r"(go mod edit|export PKG_CONFIG_PATH|CGO_LDFLAGS=|gateway |curl )", HERE),
]


def lines(path):
    """Indented commands, without their comments; fenced blocks have their own tests."""
    fenced, found = False, []
    for line in path.read_text().splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and (command := COMMAND.match(line)):
            found.append(re.sub(r"\s+#.*", "", command[1] or command[2]))
    return found


ALL = [(path.relative_to(TOP), line) for path in DOCUMENTS for line in lines(path)]


def test_every_line_is_run_by_something():
    assert len(ALL) > 40
    for path, line in ALL:
        how = [entry for entry in RUN if re.match(entry[0], line)]
        assert how, f"{path}: {line}: run by no test; say in RUN which one does, or add it"
        if len(how[0]) == 3:
            there = TOP / how[0][1]
            text = "".join(p.read_text(errors="replace") for p in ([there] if there.is_file() else there.rglob("*") if there.is_dir() else []) if p.is_file() and p.suffix != ".pyc")
            assert how[0][2] in text, how[0]
    unused = [entry[0] for entry in RUN if not any(re.match(entry[0], line) for _, line in ALL)]
    assert unused == []


@pytest.mark.parametrize("path,line", [each for each in ALL if each[1].startswith("apt-get")], ids=lambda x: str(x)[:30])
def test_packages_exist(path, line):
    if subprocess.run(["apt-cache", "show", "gcc"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("apt has no lists here (apt-get update)")
    packages = set(line.split()[2:])
    said = subprocess.run(["apt-cache", "show", *packages], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    assert packages - set(re.findall(r"(?m)^Package: (\S+)$", said)) == set(), path


def of(page, *beginnings):
    """The lines of a page that begin so: each of them is there."""
    found = [line for path, line in ALL if str(path) == page]
    chosen = [line for line in found if line.startswith(beginnings)]
    assert len({b for b in beginnings for line in chosen if line.startswith(b)}) == len(beginnings), (page, beginnings, found)
    return chosen


def shell(script, cwd, timeout=280, **environment):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
                          env={**{k: v for k, v in os.environ.items() if k not in ("PDROUTE_LIBDIR", "PYTHONPATH", "CGO_CFLAGS", "CGO_LDFLAGS", "PKG_CONFIG_PATH", "LD_LIBRARY_PATH")},
                               "PATH": "/usr/bin:" + os.environ["PATH"] + ":/usr/local/go/bin", **environment})
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def go_build(tmp_path, program):
    """A module of one file is made and built as docs/go.md says, with the library where bindings/go/build has installed it. Its directory."""
    if not shutil.which("go", path=os.environ["PATH"] + ":/usr/local/go/bin"):
        pytest.skip("SKIP: there is no go command")
    prefix = TOP / "build/go/prefix"
    if not (prefix / "lib/pkgconfig").exists():
        pytest.skip("SKIP: tests/run go has not installed the library into build/go yet")
    (tmp_path / "pdroute").symlink_to(prefix)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "main.go").write_text(program)
    steps = "\n".join(of("docs/go.md", "go mod edit", "export PKG_CONFIG_PATH", "CGO_LDFLAGS=")).replace("/path/to/libpdroute", str(TOP))
    shell("go mod init gateway\n" + steps, mine, HOME=str(tmp_path), GOCACHE=os.environ.get("GOCACHE") or str(Path.home() / ".cache/go-build"), GOFLAGS="-mod=mod")
    return mine


# what a fragment in Go may use without saying where it comes from; run on a router of one pair
GO_FRAGMENT = """
package main

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"libpdroute.test/pdroute"
)

func fragment(router *pdroute.Router, lease uint32, body []byte, w http.ResponseWriter) (io.Reader, error) {
	var prompt pdroute.Prompt
	var decision pdroute.Decision
%s
	return leg, err
}

func main() {
	router, err := pdroute.NewRouter(&pdroute.Config{Seed: 1})
	check(err)
	_, err = router.Apply([]byte(`{"endpoints": [{"role": "prefill", "url": "http://10.0.0.1:8000"}, {"role": "decode", "url": "http://10.0.1.1:8000"}]}`), 0, pdroute.Now())
	check(err)
	lease, err := router.OpenLease("docs", pdroute.Now())
	check(err)
	leg, err := fragment(router, lease, []byte(`{"messages":[{"role":"user","content":"hi"}]}`), httptest.NewRecorder())
	check(err)
	text, err := io.ReadAll(leg)
	check(err)
	if !strings.Contains(string(text), `"bootstrap_room":`) {
		panic(string(text))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
"""


def test_go_fragments(tmp_path):
    fragments = [text for info, text, _ in blocks(TOP / "docs/go.md") if info == "go" and "func main()" not in text]
    assert len(fragments) == 1
    mine = go_build(tmp_path, GO_FRAGMENT % fragments[0])
    shell("./gateway", mine)


def test_every_go_block_is_run():
    assert [str(path) for path in DOCUMENTS for info, _, _ in blocks(path) if info == "go" and path != TOP / "docs/go.md"] == []


def test_bindings_page_knows_the_headers():
    """Every tag of a function, every callback, and whatever may not go away after a call that it was handed to."""
    page = (TOP / "docs/bindings.md").read_text()
    headers = "".join(p.read_text() for p in sorted((TOP / "include/pdroute").glob("*.h")))
    tags = set(re.findall(r"\[(\w+)\] since", headers))
    assert len(tags) > 3 and [tag for tag in tags if f"`[{tag}]`" not in page] == []
    assert len(re.findall(r"\(\*\w+\)\(", headers)) == 1, "but by the prober: docs/bindings.md"
    keeping = set(re.findall(r"PDR_API \w+ (\w+)\((?:void \*mem|const void \*file)", headers))
    assert keeping >= {"pdr_router_init", "pdr_replay_open"} and [name for name in keeping if f"`{name}`" not in page] == []


def test_go_page(tmp_path):
    """docs/go.md: its gateway is built as printed, started, and asked."""
    page = "docs/go.md"
    program, = [text for info, text, _ in blocks(TOP / page) if info == "go" and "func main()" in text]
    mine = go_build(tmp_path, program)
    start, = of(page, "gateway ")
    ask, = of(page, "curl ")
    with harness.start(prefill=1, decode=1, speed=0) as fleet:
        port, = free_ports(1)
        endpoints = ", ".join(f'{{"role": "{w.role}", "url": "http://{w.host}:{w.port}"' + (f', "bootstrap_port": {w.bootstrap_port}' if w.role == "prefill" else "") + "}"
                              for w in (*fleet.prefills, *fleet.decodes))
        (mine / "pdroute.json").write_text('{"endpoints": [' + endpoints + "]}")
        start, ask = (each.replace("8080", str(port)).replace("/dev/shm/pdroute/qwen", f"{tmp_path}/block") for each in (start, ask))
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(f"exec ./{start}", shell=True, cwd=mine, stdout=log, stderr=log)
        try:
            for _ in range(200):
                assert process.poll() is None, (tmp_path / "log").read_text()
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            assert '"choices"' in shell(ask, mine)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()
