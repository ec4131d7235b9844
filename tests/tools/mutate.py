#!/usr/bin/env python3
"""Mutation testing: one small change in the code at a time (an operator, a constant, a condition, a statement left out); a test has to fail.

    mutate.py BUILD [MODULE…] [--sample N] [--seed S] [--all] [--jobs N] [--results FILE] [--quick]

BUILD is a build directory with tests and fuzz drivers (cmake -DPDR_BUILD_TESTS=ON -DPDR_BUILD_FUZZ=ON). MODULE: scan, prompt, rewrite, room, exchange; all of them without one. Or a file of one of them, lib/json_scan.h, or some
lines of it, lib/exchange.c:82,440-460. --sample: so many mutants of each module, drawn by --seed [40, 1]; --all: every one. --jobs: so many at a time [2]. --results: each fate is written there as soon as it is known, and a mutant that stands
there as dead is not run again: so a run goes on where it was ended, and what survived is asked anew. It is right while the code stays as it is. For each the one file is compiled and linked before the library, and the tests that
concern the module run, the quickest first, until one fails (tests that include the header themselves come before all: they are compiled once with all mutants of its functions, of which a variable of the environment chooses; with --quick they are all that runs), or takes five times the processor time that it takes without a change; test_exchange explores less than elsewhere. What survives is held against tests/data/mutants.txt: mutants that mean the same, or that no
caller can tell apart, each with its reason; other survivors are printed, and the exit code is 1.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
KEPT = TOP / "tests/data/mutants.txt"
SCAN = ["replay_scan", "replay_rewrite", "test_rewrite", "test_prompt", "test_json"]
MODULES = {  # files, tests from the quickest on
    "scan": (["lib/json.c", "lib/json_scan.h", "lib/json_simd.h", "lib/json_avx2.h", "lib/json_portable.h"], SCAN),
    "prompt": (["lib/prompt.c", "lib/prompt_feed.h", "lib/prompt_take.h", "lib/prompt_walk.h", "lib/prompt_keys.h"], SCAN),
    "rewrite": (["lib/rewrite.c", "lib/engine_sglang.c", "lib/owned.c"], ["test_rewrite", "test_engine_sglang", "replay_rewrite", "test_arguments", "test_router"]),
    "room": (["lib/room.c"], ["test_router", "test_rewrite", "test_room"]),
    "exchange": (["lib/exchange.c"], ["test_failures", "test_arguments", "test_router", "test_blame", "replay_exchange", "test_exchange"]),
}
WITHIN = ["test_scan_portable", "test_scan_vector"]  # of scan: they include the headers themselves
SWAPS = [(r" == ", [" != "]), (r" != ", [" == "]), (r" <= ", [" < "]), (r" >= ", [" > "]), (r" < ", [" <= "]), (r" > ", [" >= "]), (r" && ", [" || "]), (r" \|\| ", [" && "]),
         (r" \+ ", [" - "]), (r" - ", [" + "]), (r" \* ", [" + "]), (r" / ", [" * "]), (r" % ", [" * "]), (r" << ", [" >> "]), (r" >> ", [" << "]), (r" & ", [" | "]), (r" \| ", [" & "]),
         (r" \+= ", [" -= ", " = "]), (r" -= ", [" += "]), (r" \|= ", [" = "]), (r" &= ", [" = "]), (r"\+\+", ["--"]), (r"(?<![\w'.#\"\\])\d+(?![\w'.xX])", ["+1"]),
         (r"\bif \((?!.*\bif \()", ["if (!"]), (r"^ +[\w>.*\[\]+-]+ = [^;{]*;$", [";"]), (r"^ +[a-z_]+\([^;{]*\);$", [";"]), (r"\bcontinue;", [";"]), (r"\breturn 0;", ["return 1;"]), (r"\breturn 1;", ["return 0;"])]


def blank_out(text):
    """Comments, strings and preprocessor lines become blanks: nothing is changed there."""
    blank = lambda m: re.sub(r"[^\n]", "\x01", m.group())  # noqa: E731
    text = re.sub(r"/\*.*?\*/|//[^\n]*", blank, text, flags=re.S)
    text = re.sub(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', blank, text)
    text = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)
    return re.sub(r"_Static_assert\([^;]*;|^(?:typedef )?(?:struct|enum)\b[^{;()]*\{[^}]*\}[^;]*;", blank, text, flags=re.M | re.S)


def mutants_of(name):
    text = (TOP / name).read_text()
    code = blank_out(text)
    for pattern, replacements in SWAPS:
        for m in re.finditer(pattern, code, re.M):
            if "\x01" in m.group():
                continue
            for new in replacements:
                if new == "+1":
                    new = str(int(m.group()) + 1)
                begin, end = m.span()
                if new == "if (!":  # the whole condition
                    depth, i = 1, end
                    while depth and i < len(code):
                        depth += {"(": 1, ")": -1}.get(code[i], 0)
                        i += 1
                    mutated = text[:begin] + "if (!(" + text[end:i - 1] + "))" + text[i:]
                elif new == ";":
                    lead = len(m.group()) - len(m.group().lstrip())
                    mutated = text[:begin + lead] + ";" + text[end:]
                else:
                    mutated = text[:begin] + new + text[end:]
                line = text.count("\n", 0, begin + (len(m.group()) - len(m.group().lstrip()))) + 1
                yield line, text.splitlines()[line - 1].strip(), mutated.splitlines()[line - 1].strip(), mutated


class Builder:
    def __init__(self, build):
        self.build = build
        self.work = Path(tempfile.mkdtemp(prefix="pdroute-mutants-"))
        shutil.copytree(TOP / "lib", self.work / "lib")
        self.commands, self.uses, self.numbers, self.broken, self.limits = {}, {}, {}, set(), {}
        for entry in json.loads((build / "compile_commands.json").read_text()):
            words = [w for w in shlex.split(entry["command"]) if not w.startswith("-W") and w not in ("ccache",)]
            self.commands.setdefault(str(Path(entry["file"]).relative_to(TOP)), words)
        self.libraries = ["-lcmocka", "-lcjson", "-lxxhash", "-lpthread", "-lm"]

    def words(self, source):
        """The command up to what it writes, with the copy's headers."""
        words = self.commands[source]
        return [w.replace(f"-I{TOP}/lib", f"-I{self.work}/lib") for w in words[:words.index("-o")] if not w.startswith("-fsanitize=fuzzer")]

    def compile(self, source, *more):
        out, place = self.work / (Path(source).name + ".o"), self.work if source.startswith("lib/") else TOP
        words = [*self.words(source), "-O1", "-g0", "-w", *more, "-o", str(out), "-c", str(place / source)]
        return out if subprocess.run(words, stderr=subprocess.DEVNULL).returncode == 0 else None

    def including(self, name):
        """The .c files of lib/, and the tests of WITHIN, into which that file comes here: what is for another instruction set's files is left out."""
        if name.endswith(".c"):
            return [name], []
        if not self.uses:
            for source in [s for s in self.commands if re.fullmatch(r"lib/\w+\.c", s)] + [f"tests/unit/{test}.c" for test in WITHIN]:
                if source in self.commands:
                    place = self.work if source.startswith("lib/") else TOP
                    listed = subprocess.run([*self.words(source), "-w", "-MM", str(place / source)], check=True, capture_output=True, text=True).stdout
                    self.uses[source] = {Path(w).name for w in listed.split() if w.startswith(str(self.work))}
        users = sorted(source for source, headers in self.uses.items() if Path(name).name in headers)
        return [u for u in users if u.startswith("lib/")], [Path(u).stem for u in users if u.startswith("tests/")]

    def bundle(self, tests):
        """All tests as one object, its main() choosing by its first argument: a mutant is linked once."""
        table = "".join(f"int main_{t}(int, char **);\n" for t in tests) + "#include <string.h>\nint main(int n, char **a) {\n"
        table += "".join(f'    if (!strcmp(a[1], "{t}")) return main_{t}(n - 1, a + 1);\n' for t in tests) + "    return 99;\n}\n"
        (self.work / "main.c").write_text(table)
        parts = [self.work / "main.o"]
        subprocess.run(["cc", "-O1", "-w", "-o", parts[0], "-c", self.work / "main.c"], check=True)
        for test in tests:
            objects = []
            for source in [f"fuzz/fuzz_{test[7:]}.c", "fuzz/driver.c"] if test.startswith("replay_") else [f"tests/unit/{test}.c"]:
                objects.append(self.work / f"{test}-{Path(source).name}.o")
                words = self.commands[source]
                subprocess.run([w for w in words[:words.index("-o")] if not w.startswith("-fsanitize=fuzzer")] +
                               ["-w", "-g0", "-DPDR_EXPLORE_LESS", "-o", objects[-1], "-c", TOP / source], check=True)
            parts.append(self.work / f"{test}.o")
            subprocess.run(["ld", "-r", "-o", parts[-1], *objects], check=True)
            subprocess.run(["objcopy", "--redefine-sym", f"main=main_{test}", parts[-1]], check=True)
            subprocess.run(["objcopy", f"--keep-global-symbol=main_{test}", parts[-1]], check=True)
        subprocess.run(["ld", "-r", "-o", self.work / "tests.o", *parts], check=True)

    def link(self, objects):
        return subprocess.run(["cc", "-o", self.work / "tests", self.work / "tests.o", *objects, self.build / "lib/libpdroute.a", *self.libraries], stderr=subprocess.DEVNULL).returncode == 0

    def run(self, test, limit, within=None, number=0):
        """Whether the test passes within so many seconds of processor time; and how many it took."""
        arguments = [str(TOP / "fuzz/corpus" / test[7:])] if test.startswith("replay_") else []
        program = [str(self.work / f"{test}-{within}")] if within else [str(self.work / "tests"), test, *arguments]
        child = subprocess.Popen(["prlimit", f"--cpu={limit}", f"--as={4 << 30}", *program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.work,
                                 env={**os.environ, "CMOCKA_TEST_ABORT": "1", "PDR_MUTANT": str(number)})  # the first that fails is enough
        timer = threading.Timer(60 + 20 * limit, child.kill)  # a test that sleeps for ever
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        return child.returncode == 0, usage.ru_utime + usage.ru_stime

    def within(self, test, name="plain"):
        """A test of WITHIN, compiled anew and linked; not optimized, which would take longer than it runs. None, or what the compiler says."""
        made, words = self.work / f"{test}.o", [*self.words(f"tests/unit/{test}.c"), "-O0", "-g0", "-w"]
        said = subprocess.run([*words, "-o", made, "-c", TOP / f"tests/unit/{test}.c"], stderr=subprocess.PIPE, text=True)
        return said.stderr if said.returncode else subprocess.run(["cc", "-o", self.work / f"{test}-{name}", made, self.work / "chosen.o", self.build / "lib/libpdroute.a", *self.libraries], check=True) and None

    def prepare(self, mutants):
        """The tests of WITHIN for the mutants of one header: each function stands there once for each of its mutants, and one that chooses. Those that do not compile leave it."""
        name = mutants[0][0]
        (self.work / "chosen.c").write_text("#include <stdlib.h>\nint pdr_mutant;\n__attribute__((constructor)) static void f(void) { const char *s = getenv(\"PDR_MUTANT\"); pdr_mutant = s ? atoi(s) : 0; }\n")
        subprocess.run(["cc", "-O1", "-o", self.work / "chosen.o", "-c", self.work / "chosen.c"], check=True)
        _, tests = self.including(name)
        for test in tests:
            while True:
                text, numbers = all_at_once(name, [m for m in mutants if m[:5] not in self.broken])
                (self.work / name).write_text(text)
                said = self.within(test, Path(name).name)
                (self.work / name).write_text((TOP / name).read_text())
                if not said:
                    break
                wrong = {int(n) for n in re.findall(r"^mutant(\d+):\d+:\d+: error", said, re.M)}
                assert wrong, said
                self.broken |= {m for m, number in numbers.items() if number in wrong}
            self.numbers[name] = numbers
            seconds = self.run(test, 600, Path(name).name, 0)[1]
            self.limits[test] = 2 + round(2 * seconds)

    def fate(self, mutant, tests, limits, quick):
        """What becomes of one mutant: the test that kills it, "does not compile" or "survived"."""
        name, mutated = mutant[0], mutant[-1]
        sources, within = self.including(name)
        if mutant[:5] in self.broken:
            return "does not compile"
        number = self.numbers.get(name, {}).get(mutant[:5])
        for test in within if number else []:
            if not self.run(test, self.limits[test], Path(name).name, number)[0]:
                return test
        (self.work / name).write_text(mutated)
        try:
            for test in [] if number else within:  # outside functions
                if self.within(test):
                    return "does not compile"
                if not self.run(test, self.limits.get(test, 30), "plain", 0)[0]:
                    return test
            if quick:
                return "survived"
            objects = [self.compile(source) for source in sources]
        finally:
            (self.work / name).write_text((TOP / name).read_text())
        if None in objects or not self.link(objects):
            return "does not compile"
        return next((test for test in tests if not self.run(test, limits[test])[0]), "survived")


FUNCTION = re.compile(r"^(?P<head>static [^;{}()#]*?(?:__attribute__\(\(\w+\)\) )?[^;{}()#]*?)(?P<name>\w+)\((?P<parameters>[^{};]*)\)\n\{\n.*?^\}\n", re.M | re.S)


def all_at_once(name, mutants):
    """The header with each function as often as it has mutants, and the number of each mutant there; what lies outside of functions has none."""
    text, out, at, numbers = (TOP / name).read_text(), ["extern int pdr_mutant;\n"], 0, {}
    changed = [(len(os.path.commonprefix([text, m[-1]])), m) for m in mutants]
    for f in FUNCTION.finditer(text):
        own = [m for place, m in changed if f.start() <= place < f.end()]
        if not own:
            continue
        called = ", ".join(re.search(r"(\w+)(?:\[[^]]*\])?$", part.strip())[1] for part in f["parameters"].split(",") if part.strip() != "void")
        head, function, out_of = f.group()[:f.group().index("\n{\n")], f["name"], "" if re.search(r"\bvoid $", f["head"]) else "return "
        copies, cases = [(0, f.group())], ""
        for m in own:
            numbers[m[:5]] = len(numbers) + 1
            copies.append((numbers[m[:5]], m[-1][f.start():f.end() + len(m[-1]) - len(text)]))
            cases += f"    case {numbers[m[:5]]}: {out_of}{function}_{numbers[m[:5]]}({called}); break;\n"
        out.append(text[at:f.start()])
        out += [f'#line 1 "mutant{number}"\n' + re.sub(rf"\b{function}\(", f"{function}_{number}(", copy, count=1) for number, copy in copies]
        out.append(f'#line 1 "chooses"\n{head}\n{{\n    switch (pdr_mutant) {{\n{cases}    default: {out_of}{function}_0({called});\n    }}\n}}\n')
        at = f.end()
    return "".join(out) + text[at:], numbers


def select(what):
    """The files, the tests and the mutants of a module, a file FILE or lines of it FILE:FIRST[-LAST][,…]; a mutant is (file, line, before, after, which of those alike, text)."""
    name, _, lines = what.partition(":")
    files, tests = MODULES[what] if what in MODULES else next(([name], tests) for files, tests in MODULES.values() if name in files)
    spans = [(int(span[0]), int(span[-1])) for span in (part.split("-") for part in lines.split(",") if lines)]
    mutants, alike = [], {}
    for file in files:
        for line, before, after, text in mutants_of(file):
            number = alike[file, before, after] = alike.get((file, before, after), 0) + 1
            if not lines or any(first <= line <= last for first, last in spans):
                mutants.append((file, line, before, after, number, text))
    return mutants, tests


class Results:
    """Fates by mutant, kept in a file of lines: file, line, before, after, which of those alike, fate."""

    def __init__(self, path):
        self.path, self.fates, self.lock = path, {}, threading.Lock()
        for row in path.read_text().splitlines() if path and path.exists() else []:
            name, _, before, after, number, fate = row.split("\t")
            self.fates[name, before, after, int(number)] = fate

    def dead(self, mutant):
        fate = self.fates.get((mutant[0], *mutant[2:5]), "survived")
        return None if fate == "survived" else fate

    def add(self, mutant, fate):
        with self.lock:
            if self.path:
                with self.path.open("a") as f:
                    f.write("\t".join(map(str, (*mutant[:5], fate))) + "\n")


def read_kept():
    kept = {}
    for line in KEPT.read_text().splitlines() if KEPT.exists() else []:
        if line and not line.startswith("#"):
            name, before, after, reason = line.split("\t")
            kept[name, before, after] = reason
    return kept


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build", type=Path)
    p.add_argument("modules", nargs="*")
    p.add_argument("--sample", type=int, default=40)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--all", action="store_true")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--results", type=Path)
    p.add_argument("--quick", action="store_true")
    args = p.parse_args()
    every_file = {file for files, _ in MODULES.values() for file in files}
    for module in args.modules:
        if module not in MODULES and not (module.partition(":")[0] in every_file and re.fullmatch(r"[^:]+(:\d+(-\d+)?(,\d+(-\d+)?)*)?", module)):
            p.error(f"{module} is no module, none of its files and no lines of one: {' '.join(MODULES)}")
    builders, free, kept, bad = [Builder(args.build.resolve()) for _ in range(args.jobs)], queue.SimpleQueue(), read_kept(), 0
    results = Results(args.results)
    for builder in builders:
        free.put(builder)

    def one(mutant):
        if fate := results.dead(mutant):
            return fate
        builder = free.get()
        try:
            fate = builder.fate(mutant, tests, limits, args.quick)
        finally:
            free.put(builder)
        results.add(mutant, fate)
        return fate

    for module in args.modules or MODULES:
        every, tests = select(module)
        limits = {}
        tests = [] if args.quick else tests
        for builder in builders:
            builder.bundle(tests)
        assert builders[0].link([]), "the tests cannot be linked"
        for test in tests:  # all pass without a change, and take so long
            passed, seconds = builders[0].run(test, 600)
            assert passed, f"{test} fails without any mutation"
            limits[test] = 2 + round(5 * seconds)
        chosen = every if args.all else sorted(every, key=lambda m: hashlib.sha256(f"{args.seed} {m[0]} {m[1]} {m[3]}".encode()).digest())[:args.sample]
        for builder in builders:
            for file in sorted({m[0] for m in chosen if m[0].endswith(".h") and builder.including(m[0])[1]}):
                builder.prepare([m for m in chosen if m[0] == file and not results.dead(m)] or [m for m in chosen if m[0] == file][:1])
        counts = {"killed": 0, "does not compile": 0, "kept": 0, "survived": 0}
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for (name, line, before, after, *_), fate in zip(chosen, pool.map(one, chosen)):
                if fate == "survived" and (name, before, after) in kept:
                    fate = "kept"
                counts[fate if fate in counts else "killed"] += 1
                if fate == "survived":
                    bad += 1
                    print(f"FAIL {name}:{line} survives\n    {before}\n    {after}", flush=True)
        print(f"{module}: {len(chosen)} of {len(every)} mutants: " + ", ".join(f"{n} {what}" for what, n in counts.items()), flush=True)
    for builder in builders:
        shutil.rmtree(builder.work)
    print(f"{'0' if bad else '1'} passed, {bad} failed, 0 skipped")
    sys.exit(bad != 0)


if __name__ == "__main__":
    main()
