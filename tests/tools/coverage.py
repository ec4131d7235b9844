#!/usr/bin/env python3
"""Coverage of lib/ by the unit tests, kept fuzz corpora and dying processes, held against tests/data/coverage.txt.

    coverage.py BUILD            BUILD was compiled by clang with -fprofile-instr-generate -fcoverage-mapping and its tests ran with
                                 LLVM_PROFILE_FILE=BUILD/profiles/%p-%m.profraw, those that have threads BUILD/profiles/threads/%p-%m.profraw
    coverage.py BUILD --accept   writes today's figures into the list, keeping its reasons
    coverage.py BUILD --show FILE   the lines and branches of one file that nothing reaches

The list is closed: a file of lib/ may miss as many lines and branches as it says there and for the reason it says there; one that is not
listed may miss none. Besides, lib/ as a whole needs 98.5 % of its lines and 92.5 % of its branches. Where a race or the machine decides what is reached, the
list leaves a few more, and its reason says so. Branches are those of the source as
clang counts them (each condition both ways), not jumps of the machine code.

Counters are not atomic, and how often a condition was false is told by a difference: what threads lose of millions can make a branch that was taken once look as if it
never was (atomic ones make two tests twenty times slower). So a file misses the less of what all tests together miss, and those without threads alone.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
LIST = TOP / "tests/data/coverage.txt"
LINES, BRANCHES = 98.5, 92.5


def tool(name):
    for candidate in (f"{name}-14", name, *sorted(glob.glob(f"/usr/bin/{name}-*"))):
        if shutil.which(candidate):
            return candidate
    sys.exit(f"{name} is missing (Debian package llvm)")


def programs(build):
    for root in ("tests", "fuzz"):
        for path in sorted((build / root).iterdir()):
            if path.is_file() and os.access(path, os.X_OK) and path.open("rb").read(4) == b"\x7fELF":
                yield str(path)


def cov(build, *command):
    first, *more = programs(build)
    objects = [x for p in more for x in ("-object", p)]
    done = subprocess.run([tool("llvm-cov"), command[0], first, *objects, "-instr-profile", str(build / "all.profdata"), *command[1:]],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout


def merge(build, threads):
    profiles = glob.glob(str(build / "profiles/*.profraw")) + (glob.glob(str(build / "profiles/threads/*.profraw")) if threads else [])
    if not profiles:
        sys.exit(f"no profiles in {build}/profiles: run the tests with LLVM_PROFILE_FILE first")
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", "-o", str(build / "all.profdata"), *profiles], check=True)


def measure(build):
    files = {}
    for threads in (False, True):
        merge(build, threads)
        for entry in json.loads(cov(build, "export", "-skip-functions", "-summary-only"))["data"][0]["files"]:
            name = os.path.relpath(entry["filename"], TOP)
            if re.match(r"lib/[^/]*\.[ch]$|lib/host/[^/]*\.[ch]$", name):
                s = entry["summary"]
                lines, branches = s["lines"]["count"], s["branches"]["count"]
                was = files.get(name, (0, lines, 0, branches))
                files[name] = (lines, min(was[1], lines - s["lines"]["covered"]), branches, min(was[3], branches - s["branches"]["covered"]))
    return files


def read_list():
    listed = {}
    for line in LIST.read_text().splitlines() if LIST.exists() else []:
        if line and not line.startswith("#"):
            name, lines, branches, *reason = line.split(None, 3)
            listed[name] = (int(lines), int(branches), reason[0] if reason else "")
    return listed


def show(build, name):
    """Branches, with the source line; a line that is never run is missed in both its branches or follows from one."""
    text = (TOP / name).read_text().splitlines()
    for entry in json.loads(cov(build, "export", "-skip-functions"))["data"][0]["files"]:
        if os.path.relpath(entry["filename"], TOP) != name:
            continue
        for line, column, _, end, true, false, *_ in entry["branches"]:
            if not true or not false:
                never = "both ways" if not true and not false else "true" if not true else "false"
                print(f"{name}:{line}:{column}: never {never}: {text[line - 1].strip()}")
        for line, _, count, has, *_ in entry["segments"]:
            if has and not count:
                print(f"{name}:{line}: never run: {text[line - 1].strip()}")


def main():
    build = Path(sys.argv[1]).resolve()
    files = measure(build)
    if sys.argv[2:3] == ["--show"]:
        return show(build, sys.argv[3])
    listed = read_list()
    if sys.argv[2:3] == ["--accept"]:
        head = [l for l in LIST.read_text().splitlines() if l.startswith("#")] if LIST.exists() else []
        rows = [f"{n} {f[1]} {f[3]} {listed.get(n, (0, 0, ''))[2]}".rstrip() for n, f in sorted(files.items()) if f[1] or f[3]]
        LIST.write_text("\n".join([*head, *rows]) + "\n")
        return
    passed = failed = 0
    for name, (lines, lines_missed, branches, branches_missed) in sorted(files.items()):
        may = listed.pop(name, (0, 0, "-"))
        good = lines_missed <= may[0] and branches_missed <= may[1] and may[2]
        passed, failed = passed + bool(good), failed + (not good)
        if not good:
            print(f"FAIL {name}: {lines_missed} lines and {branches_missed} branches are not reached, {may[0]} and {may[1]} may be"
                  if may[2] else f"FAIL {name}: the list gives no reason")
    for name in listed:
        failed += 1
        print(f"FAIL {name}: in the list, but there is no such file")
    total = [sum(column) for column in zip(*files.values())]
    for what, count, missed, least in (("lines", total[0], total[1], LINES), ("branches", total[2], total[3], BRANCHES)):
        share = 100 * (count - missed) / count
        good = share >= least
        passed, failed = passed + good, failed + (not good)
        print(f"{'ok' if good else 'FAIL'} {what} of lib/: {share:.2f} % of {count} (at least {least:.1f})")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    sys.exit(failed != 0)


main()
