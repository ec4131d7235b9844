"""Links Envoy's module once more, with within.c in it: as its build directory links it, but with calls that can be made to fail."""

import re
import shlex
import subprocess
from pathlib import Path


def build(directory, module):
    """The module's counterpart, in `directory`. `module`: where Ninja built it, DIR/bin/libpdroute_envoy.so."""
    top, out, ours = Path(module).resolve().parents[1], Path(directory) / "libpdroute_envoy.so", Path(directory) / "within.o"
    line = subprocess.run(["ninja", "-C", top, "-t", "commands", "bin/libpdroute_envoy.so"], check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    words = shlex.split(line)
    words = words[next(i for i, w in enumerate(words) if re.search(r"(cc|gcc|clang)$", w)):]
    words = words[:words.index("&&")]
    sanitizers = [w for w in words if w.startswith("-fsanitize")]
    subprocess.run([words[0], "-std=c11", "-D_GNU_SOURCE", "-O1", "-g", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", *sanitizers, "-c", "-o", ours,
                    Path(__file__).with_name("within.c")], check=True)
    names = re.findall(r"__wrap_(\w+)", subprocess.run(["nm", "--defined-only", ours], check=True, capture_output=True, text=True).stdout)
    words[words.index("-o") + 1] = str(out)
    # what the module does not call is left out again, with the libraries that it would be in
    subprocess.run([*words, ours, "-Wl,--gc-sections", *(f"-Wl,--wrap={name}" for name in names)], cwd=top, check=True)
    return out
