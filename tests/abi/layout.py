#!/usr/bin/env python3
"""The ABI that the public headers describe, as text: what tests/abi/layout.txt keeps.

    layout.py [CC]                  prints it for this machine (a C program made from the headers says sizes, offsets and values)
    layout.py --check FILE [CC]     compares with FILE; exit 1 and one FAIL line per difference
    layout.py --accept FILE [CC]    appends what is new; refuses if something that FILE names has changed

Lines:  const NAME VALUE | struct NAME SIZE ALIGN | field STRUCT NAME OFFSET SIZE TYPE | function NAME PROTOTYPE
"""
import os
import re
import shlex
import subprocess
import sys
import tempfile

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
HEADERS = ("pdroute/pdroute.h", "pdroute/host.h")
# Not part of the ABI: the release's number, the visibility attribute, include guards.
NOT_ABI = re.compile(r"PDR_VERSION_\w+|PDR_API|PDROUTE_\w+_H")
# Allocated by callers who do not say their size (in arrays, or before an init function fills them): may never grow.
FROZEN = {"pdr_span", "pdr_slice", "pdr_action", "pdr_candidate", "pdr_response", "pdr_host_lease"}


def headers():
    text = "".join(open(os.path.join(TOP, "include", h), encoding="utf-8").read() for h in HEADERS)
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def declarators(body):
    """(type, name, dimensions) of each field of a struct's body."""
    for declaration in filter(None, (d.strip() for d in body.split(";"))):
        pointer = re.fullmatch(r".*\(\*(\w+)\)\s*\(.*\)", declaration, re.S)
        if pointer:
            yield "void *", pointer.group(1), 0
            continue
        kind, rest = re.fullmatch(r"((?:const )?\w+(?: \*)?)\s*(.*)", declaration, re.S).groups()
        for one in rest.split(","):
            name = re.match(r"\s*(\**)\s*(\w+)", one)
            yield kind + (" " + name.group(1) if name.group(1) else ""), name.group(2), one.count("[")


def parse(text):
    structs = [(name, list(declarators(body)))
               for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\}\s*\w+;", text, re.S)]
    consts = [c for body in re.findall(r"\benum \{(.*?)\}", text, re.S) for c in re.findall(r"\b(PDR_\w+)\s*(?=[=,}]|$)", body)]
    consts += [c for c in re.findall(r"^#define (PDR_\w+)\s+\S", text, re.M) if not NOT_ABI.fullmatch(c)]
    functions = [(name, re.sub(r"\s+", " ", prototype))
                 for prototype, name in re.findall(r"PDR_API\s+([^;]*?\b(pdr_\w+)\([^;]*\));", text, re.S)]
    opaque = re.findall(r"typedef struct (\w+) \1;", text)
    return structs, consts, functions, opaque


def forgotten(text, structs, consts, functions, opaque):
    """Public names of the headers that the parse did not see."""
    known = {s for s, _ in structs} | set(consts) | {f for f, _ in functions} | set(opaque)
    fields = {f for _, l in structs for _, f, _ in l}
    for name in sorted(set(re.findall(r"\b(?:PDR|pdr)_\w+", text))):
        if name not in known and name not in fields and not NOT_ABI.fullmatch(name):
            yield name


def program(structs, consts):
    out = ["#include <stdio.h>"] + ['#include "%s"' % h for h in HEADERS] + ["int main(void)", "{"]
    out += ['    printf("const %s %%lld\\n", (long long)%s);' % (c, c) for c in consts]
    for s, fields in structs:
        out.append('    printf("struct %s %%zu %%zu\\n", sizeof(%s), _Alignof(%s));' % (s, s, s))
        for kind, f, dims in fields:
            at = "((%s *)0)->%s" % (s, f)
            sizes = ["sizeof(%s%s)" % (at, "[0]" * i) for i in range(dims + 1)]
            shape = "[%zu]" * dims
            args = "".join(", %s / %s" % (sizes[i], sizes[i + 1]) for i in range(dims))
            out.append('    printf("field %s %s %%zu %%zu %s%s\\n", offsetof(%s, %s), sizeof(%s)%s);'
                       % (s, f, kind, shape, s, f, at, args))
    return "\n".join(out + ["    return 0;", "}", ""])


def measure(cc):
    text = headers()
    structs, consts, functions, opaque = parse(text)
    missing = list(forgotten(text, structs, consts, functions, opaque))
    if missing:
        sys.exit("FAIL the headers have names that this script did not understand: " + ", ".join(missing))
    with tempfile.TemporaryDirectory() as d:
        source, binary = os.path.join(d, "layout.c"), os.path.join(d, "layout")
        open(source, "w", encoding="utf-8").write(program(structs, consts))
        subprocess.run(shlex.split(cc) + ["-std=c11", "-static", "-I", os.path.join(TOP, "include"), source, "-o", binary], check=True)
        run = shlex.split(os.environ.get("PDR_EMULATOR", "")) + [binary]
        lines = subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()
    return lines + ["function %s %s" % f for f in functions]


def holes(lines):
    """Padding between or behind fields; also proves that no field was forgotten."""
    structs = {l.split()[1]: int(l.split()[2]) for l in lines if l.startswith("struct ")}
    for name, size in structs.items():
        end = 0
        for l in lines:
            part = l.split(" ", 5)
            if part[0] == "field" and part[1] == name:
                if int(part[3]) != end:
                    yield "FAIL %s has a hole of %d bytes before %s" % (name, int(part[3]) - end, part[2])
                end = int(part[3]) + int(part[4])
        if end != size:
            yield "FAIL %s has a hole of %d bytes at its end" % (name, size - end)


def key(line):
    part = line.split()
    return tuple(part[:3]) if part[0] == "field" else tuple(part[:2])


def differences(golden, now):
    """What breaks programs built before, and what is new."""
    have = {key(l): l for l in now}
    old_size = {l.split()[1]: int(l.split()[2]) for l in golden if l.startswith("struct ")}
    broken, grown = [], set()
    for l in golden:
        found = have.get(key(l))
        if found is None:
            broken.append("FAIL gone: " + l)
        elif found != l:
            name, size = found.split()[1:3]
            if l.startswith("struct ") and int(size) > old_size[name] and name not in FROZEN and l.split()[3] == found.split()[3]:
                grown.add(name)
            else:
                broken.append("FAIL changed: %s   now: %s" % (l, found))
    names = {key(l) for l in golden}
    new = [l for l in now if key(l) not in names]
    for l in new:
        part = l.split()
        if part[0] == "field" and part[1] in old_size and int(part[3]) < old_size[part[1]]:
            broken.append("FAIL not at the end of its struct: " + l)
    return broken, new, grown


def main(argv):
    mode = argv.pop(1) if len(argv) > 1 and argv[1] in ("--check", "--accept") else None
    path = argv.pop(1) if mode else None
    now = measure(argv[1] if len(argv) > 1 else os.environ.get("CC", "cc"))
    if not mode:
        print("\n".join(now))
        return 0
    golden = open(path, encoding="utf-8").read().splitlines() if os.path.exists(path) else []
    broken, new, grown = differences(golden, now)
    broken += holes(now)
    if mode == "--accept" and not broken:
        open(path, "w", encoding="utf-8").write("\n".join(now) + "\n")
    elif mode == "--check":
        broken += ["FAIL new, not yet kept (tests/abi/layout.py --accept tests/abi/layout.txt): " + l for l in new]
        broken += ["FAIL grown, not yet kept: " + name for name in sorted(grown)]
    print("\n".join(broken or ["%d lines of the ABI agree" % len(now)]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
