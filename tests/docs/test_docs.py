"""The documentation is part of the program: its C programs compile and say what is written below them, its shell blocks run, its nginx
configuration serves, and what it names exists.

Fences: ```c with a main() is a program, run and compared with the ```text block that follows it directly, if one does; ```c fragment is a piece
of a function; ```sh run blocks of one document are run in order, in one shell; ```nginx and ```json of README.md are the files of examples/nginx.
"""

import fcntl
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "examples"), str(TOP / "tests/gateway")]
from hosts.host import free_ports  # noqa: E402
from sglang_sim import harness  # noqa: E402

LISTED = subprocess.run(["git", "-C", TOP, "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], stdout=subprocess.PIPE, text=True).stdout.split()
DOCUMENTS = sorted({TOP / p for p in LISTED if (TOP / p).exists()}) or [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
BUILD = Path(os.environ.get("PDR_BUILD_DIR", TOP / "build")).resolve()


def blocks(path):
    """(info string, text, line) of every fenced block."""
    found, fence = [], None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if fence is None and line.startswith("```"):
            fence = (line[3:].strip(), [], number)
        elif fence is not None and line.startswith("```"):
            found.append((fence[0], "\n".join(fence[1]) + "\n", fence[2]))
            fence = None
        elif fence is not None:
            fence[1].append(line)
    assert fence is None, f"{path}: the fence of line {fence[2]} is not closed"
    return found


def named(path, line):
    return f"{path.relative_to(TOP)}:{line}"


ALL = [(named(path, line), path, info, text) for path in DOCUMENTS for info, text, line in blocks(path)]


def outputs(path):
    """Line of a program → the text block after it."""
    found = blocks(path)
    return {a[2]: b[1] for a, b in zip(found, found[1:]) if b[0] == "text" and b[2] == a[2] + a[1].count("\n") + 3}


def compile_c(tmp_path, text, *more):
    source = tmp_path / "example.c"
    source.write_text(text)
    done = subprocess.run(["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-I", TOP / "include", source, *more],
                          stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


PROGRAMS = [(where, path, text) for where, path, info, text in ALL if info == "c" and "int main(" in text]
FRAGMENTS = [(where, text) for where, path, info, text in ALL if info == "c fragment"]


def test_there_is_something_to_test():
    assert any(path.name == "README.md" for _, path, _ in PROGRAMS)
    assert FRAGMENTS and any(info == "sh run" for _, _, info, _ in ALL)


def test_every_c_block_is_tested():
    assert [where for where, _, info, text in ALL if info.split(" ")[0] in ("c", "C") and info != "c fragment" and "int main(" not in text] == []


@pytest.mark.parametrize("where,path,text", PROGRAMS, ids=[p[0] for p in PROGRAMS])
def test_program(tmp_path, where, path, text):
    program = tmp_path / "example"
    libraries = ["-lpdroute"] + (["-lpdroute_host"] if "pdroute/host.h" in text else [])
    paths = {str(p.parent) for p in BUILD.rglob("libpdroute*.so")}
    compile_c(tmp_path, text, "-o", program, *[f"-L{p}" for p in paths], *[f"-Wl,-rpath,{p}" for p in paths], *libraries)
    done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    expected = outputs(path).get(int(where.rpartition(":")[2]))
    if expected is not None:
        assert done.stdout.replace(f"{tmp_path}/./", "./") == expected  # absolute paths are shortened in the text


# what a fragment may use without saying where it comes from
PREAMBLE = """
#include <pdroute/pdroute.h>
#include <pdroute/host.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int fragment(pdr_router *r, pdr_host *host, const char *body, size_t len, uint64_t now_ns, uint32_t lease, pdr_error *err);
void carry_out(pdr_exchange *x, const pdr_action *actions, size_t n);
void send_to(const char *address, unsigned port, const char *bytes, size_t n);
int fragment(pdr_router *r, pdr_host *host, const char *body, size_t len, uint64_t now_ns, uint32_t lease, pdr_error *err)
{
    (void)r, (void)host, (void)body, (void)len, (void)now_ns, (void)lease, (void)err;
#line 1 "%s"
%s
    return 0;
}
"""


@pytest.mark.parametrize("where,text", FRAGMENTS, ids=[f[0] for f in FRAGMENTS])
def test_fragment(tmp_path, where, text):
    compile_c(tmp_path, PREAMBLE % (where, text), "-c", "-o", tmp_path / "fragment.o", "-Wno-unused-variable")


SHELL = sorted({path for _, path, info, _ in ALL if info == "sh run"})


@pytest.mark.parametrize("path", SHELL, ids=[str(p.relative_to(TOP)) for p in SHELL])
def test_shell_blocks(tmp_path, path):
    """One shell for the whole document; the block's directory and the port are this test's, and what it starts ends with it."""
    script = "".join(f"# line {line}\n{text}" for info, text, line in blocks(path) if info == "sh run")
    port, = free_ports(1)
    script = script.replace("/dev/shm/pdroute/", f"{tmp_path}/").replace("/tmp/gateway", f"{tmp_path}/gateway").replace("8080", str(port))
    (tmp_path / "script").write_text("set -euo pipefail\n" + script)
    mark = f"docs-{os.getpid()}-{path.name}"
    with open(Path(tempfile.gettempdir()) / "pdroute-quickstart.lock", "a") as lock:  # the simulated pods' addresses
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (tmp_path / "said").open("w") as said:
            process = subprocess.Popen(["bash", tmp_path / "script"], cwd=TOP, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                       env={**os.environ, "PDROUTE_TEST_MARK": mark, "PATH": os.environ["PATH"] + ":/usr/sbin"}, start_new_session=True)
            try:
                code = process.wait(300)
            finally:
                for directory in Path("/proc").glob("[0-9]*"):
                    try:
                        # nginx writes its title over its environment, but that names our directory
                        if mark.encode() in (directory / "environ").read_bytes() or str(tmp_path).encode() in (directory / "cmdline").read_bytes():
                            os.kill(int(directory.name), 15)
                    except OSError:
                        pass
        output = (tmp_path / "said").read_text()
        assert code == 0, output
    for expected in re.findall(r"^\s*#=> (.*)$", script, re.M):  # a line of the document that says what must come out
        assert expected in output, output


def test_readme_nginx_configuration(tmp_path):
    """README's two files are those of examples/nginx, and nginx serves with them."""
    mine = {info: text for info, text, _ in blocks(TOP / "README.md")}
    conf = (TOP / "examples/nginx/nginx.conf.example").read_text()
    zone = (TOP / "examples/nginx/pdroute.json.example").read_text()
    assert mine["nginx"] == conf and mine["json"] == zone
    with harness.start(prefill=2, decode=1, speed=0.1) as fleet:
        for address, worker in zip(("10.0.0.1", "10.0.0.2", "10.0.1.1"), [*fleet.prefills, *fleet.decodes]):
            assert f'"host": "{address}", "port": 8000' in zone
            zone = zone.replace(f'"host": "{address}", "port": 8000', f'"host": "{worker.host}", "port": {worker.port}')
            if worker.role == "prefill":
                zone = zone.replace("34000", str(worker.bootstrap_port), 1)
        (tmp_path / "pdroute.json").write_text(zone)
        port, = free_ports(1)
        module = subprocess.run([TOP / "examples/nginx/build", TOP / "build/nginx"], check=True, stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin"}).stdout.split()[-1]
        replaced = {"/usr/lib/nginx/modules/ngx_http_pdroute_module.so": module, "/var/log/nginx/pdroute.log": f"{tmp_path}/pdroute.log",
                    "/dev/shm/pdroute/qwen": f"{tmp_path}/block", "/etc/nginx/pdroute.json": f"{tmp_path}/pdroute.json",
                    "listen 8080": f"listen 127.0.0.1:{port}", "events {}": f"{'user root; ' * (os.getuid() == 0)}pid {tmp_path}/pid; daemon off; events {{}}"}
        for a, b in replaced.items():
            assert conf.count(a) == 1, a
            conf = conf.replace(a, b)
        # paths of the distribution that only root may write to
        conf = conf.replace("http {", "http {" + "".join(f" {k}_temp_path {tmp_path}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")), 1)
        (tmp_path / "nginx.conf").write_text(conf)
        nginx = subprocess.Popen(["/usr/sbin/nginx", "-e", tmp_path / "error.log", "-c", tmp_path / "nginx.conf"])
        try:
            assert harness.wait_for(lambda: subprocess.run(["curl", "-fsS", f"http://127.0.0.1:{port}/readiness"], stdout=subprocess.DEVNULL,
                                                           stderr=subprocess.DEVNULL).returncode == 0, 20), (tmp_path / "error.log").read_text()
            body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4})
            answer = subprocess.run(["curl", "-fsS", f"http://127.0.0.1:{port}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body], check=True, stdout=subprocess.PIPE)
            assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 4
            line = harness.wait_for(lambda: [l for l in (tmp_path / "pdroute.log").read_text().splitlines() if "room=-" not in l], 5)[0]
            decode = fleet.decodes[0]
            prefill = next(w for w in fleet.prefills if w.requests("/v1/chat/completions"))
            room = decode.requests("/v1/chat/completions")[0].json["bootstrap_room"]
            assert re.match(rf'200 \S+ "{prefill.name}" "{decode.name}" room={room} cached=0/\d+ cost=\d+,', line), line
            status = subprocess.run(["curl", "-fsS", f"http://127.0.0.1:{port}/pdroute"], check=True, stdout=subprocess.PIPE).stdout
            assert json.loads(status)["finished"] == 1
        finally:
            nginx.terminate()
            nginx.wait(20)


ROOTS = ("lib/", "docs/", "tests/", "examples/", "include/", "fuzz/", ".ci/", "bindings/")
MENTION = re.compile(r"(?<![\w/.-])((?:\.ci|lib|docs|tests|examples|include|fuzz|bindings)/[\w./{},*-]*[\w}*/])")


def expand(path):
    brace = re.search(r"\{([^}]*)\}", path)
    if not brace:
        return [path]
    return [q for part in brace[1].split(",") for q in expand(path[:brace.start()] + part + path[brace.end():])]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(p.relative_to(TOP)) for p in DOCUMENTS])
def test_paths_exist(path):
    missing = []
    text = re.sub(r"https?://\S+", "", path.read_text())
    mentioned = set(MENTION.findall(text)) | {
        str((path.parent / link).resolve().relative_to(TOP)) for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)}
    for mention in mentioned:
        for candidate in expand(mention.rstrip("./")):
            near = [base for base in (TOP, path.parent) if list(base.glob(candidate)) or (base / candidate).exists()]
            if not near and not re.search(r"python/sglang|<|noun", candidate):
                missing.append(mention)
    assert missing == []


HEADERS = "".join(p.read_text() for d in ("include/pdroute", "lib", "lib/host") for p in sorted((TOP / d).glob("*.[ch]")))
NGINX = "".join(p.read_text() for p in sorted((TOP / "examples/nginx").glob("*.[ch]")))


@functools.cache
def settings():
    """What a build, a script or a test is told by: words of the CMake files and presets, and variables of the environment that something in the tree asks for."""
    asked = re.compile(r"""(?:#if(?:n?def)? (?:defined\()?|getenv\("|environ(?:\.get\(|\.setdefault\(|\[)["']|Getenv\("|\$\{?)(PDR_[A-Z0-9_]+)""")
    words = set()
    for path in subprocess.run(["git", "ls-files", "-z"], cwd=TOP, stdout=subprocess.PIPE, check=True, text=True).stdout.split("\0"):
        name = Path(path).name
        if name in ("CMakeLists.txt", "CMakePresets.json") or name.endswith(".cmake"):
            words.update(re.findall(r"\bPDR_[A-Z0-9_]+\b", (TOP / path).read_text()))
        elif path.startswith(("tests/", "examples/", "bindings/")) and "/data/" not in path and Path(path).suffix in ("", ".sh", ".c", ".h", ".py", ".go"):
            words.update(asked.findall((TOP / path).read_text(errors="replace")))
    return words


def test_settings_are_the_trees():
    found = settings()
    assert {"PDR_BUILD_TESTS", "PDR_WERROR", "PDR_SANITIZE", "PDR_EXPLORE_LESS", "PDR_TEST_KILLS"} <= found
    assert not {"PDR_BUILD_NOTHING", "PDR_TESTING"} & found  # what only begins like one


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(p.relative_to(TOP)) for p in DOCUMENTS])
def test_names_exist(path):
    """Functions, types, constants, directives, variables and configuration fields that a document names are in the tree."""
    text = path.read_text()
    known = set(re.findall(r"\w+", HEADERS)) | settings()
    missing = [n for n in set(re.findall(r"\b(?:pdr_[a-z0-9_]+[a-z0-9]|PDR_[A-Z0-9_]+[A-Z0-9])\b(?!_?\*|…|_…|_)", text))
               if n not in known and not any(k.startswith(n) for k in known)
               and n not in ("pdr_noun_verb", "pdr_noun", "PDR_NOUN_NAME", "PDR_E_X")]
    missing += [n for n in set(re.findall(r"\$pdroute_[a-z]+", text)) if f'"{n[1:]}"' not in NGINX]
    assert missing == []
