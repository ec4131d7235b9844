#!/usr/bin/env python3
"""Writes pdroute/_abi.py: constants, structs and prototypes, from what tests/abi/layout.txt says the C headers are.

    tools/generate.py            writes it
    tools/generate.py --check    exit 1 if it is not what would be written, or if the package never calls a public function
"""
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "pdroute"
LAYOUT = HERE.parents[2] / "tests" / "abi" / "layout.txt"

# (class, bit flags?, pattern of its constants; the group is the member's name). The first that fits takes a constant.
ENUMS = [
    ("Code", False, r"PDR_(?:E_(\w+)|(OK))"), ("Policy", False, r"PDR_POLICY_(\w+)"), ("Engine", False, r"PDR_ENGINE_(\w+)"),
    ("Hold", False, r"PDR_HOLD_(\w+)"), ("Role", False, r"PDR_ROLE_(\w+)"), ("EndpointFlag", True, r"PDR_ENDPOINT_(\w+)"),
    ("State", False, r"PDR_STATE_(\w+)"), ("Apply", True, r"PDR_APPLY_(\w+)"), ("Report", False, r"PDR_REPORT_(\w+)"),
    ("LoadField", True, r"PDR_LOAD_(\w+)"), ("Api", False, r"PDR_API_(\w+)"), ("PromptFlag", True, r"PDR_PROMPT_(\w+)"),
    ("RequestFlag", True, r"PDR_REQUEST_(\w+)"), ("Outcome", False, r"PDR_(SEND|HELD)"), ("Leg", False, r"PDR_LEG_(\w+)"),
    ("Mode", False, r"PDR_MODE_(\w+)"), ("ResponseKind", False, r"PDR_RESPONSE_(\w+)"), ("Seen", True, r"PDR_SEEN_(\w+)"),
    ("EventType", False, r"PDR_EV_(\w+)"), ("Fail", False, r"PDR_FAIL_(\w+)"), ("Head", False, r"PDR_HEAD_(\w+)"), ("ActionType", False, r"PDR_ACT_(\w+)"),
    ("Reason", False, r"PDR_ERR_(\w+)"), ("Done", True, r"PDR_DONE_(\w+)"), ("Barred", False, r"PDR_BARRED_(\w+)"),
    ("HostFlag", True, r"PDR_HOST_(CREATE|RECREATE|RESTORE|GUARD)"), ("Origin", False, r"PDR_HOST_(ATTACHED|CREATED|RECREATED|RESTORED)"),
    ("BlockState", False, r"PDR_HOST_(CURRENT|REPLACED|TRUNCATED)"), ("Job", False, r"PDR_HOST_JOB_(\w+)"),
    ("ReplayFlag", True, r"PDR_REPLAY_(PARTIAL)"), ("ReplayKind", False, r"PDR_REPLAY_(\w+)"),
    ("ProbeFlag", True, r"PDR_PROBE_((?:NO_|TLS_)\w+)"), ("ProbeEventType", False, r"PDR_PROBE_(\w+)"),
]
PLAIN = {"PDR_NONE", "PDR_MAX_EDITS", "PDR_MAX_SLICES", "PDR_MAX_ACTIONS", "PDR_LOG_CANDIDATES", "PDR_ABI_VERSION"}
# structs behind a class of the package, whose name the class has
RAW = {"pdr_error": "ErrorInfo", "pdr_response": "ResponseStruct", "pdr_exchange": "ExchangeStruct", "pdr_host_lease": "HostLeaseStruct", "pdr_merge": "MergeStruct"}
BASIC = {"uint32_t": "c_uint32", "int32_t": "c_int32", "uint64_t": "c_uint64", "int64_t": "c_int64", "char": "c_char",
         "const char *": "c_char_p", "void *": "c_void_p"}
RESULT = {"void": "None", "int": "c_int", "uint32_t": "c_uint32", "uint64_t": "c_uint64", "size_t": "c_size_t", "const char *": "c_char_p",
          "pdr_router *": "c_void_p"}


def class_of(struct):
    return RAW.get(struct) or "".join(word.capitalize() for word in struct.split("_")[1:])


def read(path):
    consts, structs, functions = {}, {}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        part = line.split(" ", 5)
        if part[0] == "const":
            consts[part[1]] = int(part[2])
        elif part[0] == "struct":
            structs[part[1]] = (int(part[2]), [])
        elif part[0] == "field":
            structs[part[1]][1].append((part[2], int(part[3]), int(part[4]), part[5]))
        elif part[0] == "function":
            functions[part[1]] = line.split(" ", 2)[2].rsplit("PDR_API ", 1)[-1]
    return consts, structs, functions


def enum_of(name):
    for cls, flags, pattern in ENUMS:
        found = re.fullmatch(pattern, name)
        if found and name not in PLAIN:
            return cls, next(g for g in found.groups() if g)
    return None, None


def write_enums(consts, out):
    members = {cls: [] for cls, _, _ in ENUMS}
    for name, value in consts.items():
        cls, member = enum_of(name)
        if cls:
            members[cls].append((member, value))
        elif name in PLAIN:
            out.append(f"{name[4:]} = {value}")
        else:
            raise SystemExit(f"{name} belongs to no class: tools/generate.py, ENUMS")
    for cls, flags, _ in ENUMS:
        out += ["", "", f"class {cls}(enum.{'IntFlag' if flags else 'IntEnum'}):"]
        out += [f"    {member} = {value}" for member, value in members[cls]]


def c_type(kind):
    base, dims = re.fullmatch(r"([^\[]+)((?:\[\d+\])*)", kind).groups()
    text = BASIC.get(base) or class_of(base)
    for n in reversed(re.findall(r"\d+", dims)):
        text += f" * {n}"
    return text, base, dims


def python_type(kind):
    text, base, dims = c_type(kind)
    if base == "char" and dims.count("[") == 1:
        return "str"
    if dims:
        return f"ctypes.Array[{text.split(' * ')[0]}]" if dims.count("[") == 1 else "typing.Any"
    return "int" if base.endswith("_t") else "typing.Any" if base in ("const char *", "void *") else class_of(base)


def order_of(structs):
    done = []

    def visit(name):
        for _, _, _, kind in structs[name][1]:
            base = c_type(kind)[1]
            if base in structs and base not in done:
                visit(base)
        if name not in done:
            done.append(name)

    for name in structs:
        visit(name)
    return done


def write_structs(structs, out):
    for name in order_of(structs):
        size, fields = structs[name]
        cls = class_of(name)
        out += ["", "", f"class {cls}(Struct):", f'    """{name}"""']
        out += [f"    {field}: {python_type(kind)}" for field, _, _, kind in fields]
        out.append("    _fields_ = [" + ", ".join(f'("{field}", {c_type(kind)[0]})' for field, _, _, kind in fields) + "]")
        given = [(field, python_type(kind)) for field, _, _, kind in fields if not field.startswith(("struct_size", "reserved"))]
        out += ["    if typing.TYPE_CHECKING:",
                "        def __init__(self, *, " + ", ".join(f"{f}: {t} = ..." for f, t in given) + ") -> None: ..."]
        texts = [field for field, _, _, kind in fields if re.fullmatch(r"char\[\d+\]", kind)]
        if texts:
            out += ["", "", f"texts({cls}, " + ", ".join(f'"{t}"' for t in texts) + ")"]


def argument(kind, following, structs):
    """A ctypes expression for one parameter; `following` is the next one's type."""
    if kind in ("const char *",):
        return "c_void_p" if following == "size_t" else "c_char_p"
    pointer = re.fullmatch(r"(const )?(?:volatile )?(\w+) \*(\*?)", kind)
    if pointer:
        const, base, second = pointer.groups()
        if second:
            return "POINTER(c_void_p)"
        if base in structs:
            return f"POINTER({class_of(base)})"
        if base in BASIC and base != "char" and not const:
            return f"POINTER({BASIC[base]})"
        if base == "size_t":
            return "POINTER(c_size_t)"
        if base == "int" and not const:
            return "POINTER(c_int)"
        return "c_void_p"
    return {"int": "c_int", "size_t": "c_size_t"}.get(kind) or BASIC[kind]


def prototype(name, text, structs):
    result, arguments = re.fullmatch(rf"(.*?)\s*\b{name}\((.*)\)", text).groups()
    kinds = []
    for one in [] if arguments == "void" else arguments.split(","):
        kinds.append(re.sub(r"\s*\b\w+$", "", one.strip()).replace("*", " *").replace("  ", " ").replace("* *", "**").strip())
    types = [argument(kind, kinds[i + 1] if i + 1 < len(kinds) else "", structs) for i, kind in enumerate(kinds)]
    return f'    "{name}": ({RESULT[result.strip()]}, [{", ".join(types)}]),'


HEAD = '''"""Constants, structs and prototypes of libpdroute. Made by tools/generate.py from tests/abi/layout.txt: do not edit."""
# ruff: noqa: E501
from __future__ import annotations

import ctypes
import enum
import typing
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

from ._struct import Struct, texts
'''


def generate():
    consts, structs, functions = read(LAYOUT)
    out = [HEAD]
    write_enums(consts, out)
    write_structs(structs, out)
    for which, title in ((False, "CORE"), (True, "HOST")):
        out += ["", "", f"# name: (result, arguments)\n{title}: dict[str, tuple[typing.Any, list[typing.Any]]] = {{"]
        out += [prototype(n, t, structs) for n, t in functions.items() if n.startswith(("pdr_host_", "pdr_probe_")) == which]
        out.append("}")
    return "\n".join(out) + "\n", functions


# A closed list: what makes sense in C only.
IN_C = {"pdr_router_lose": "for handlers of SIGBUS", "pdr_router_escape": "leaves a signal handler by a jump"}


def main(argv):
    text, functions = generate()
    path = PACKAGE / "_abi.py"
    if argv[1:] != ["--check"]:
        path.write_text(text, encoding="utf-8")
        return 0
    problems = []
    if path.read_text(encoding="utf-8") != text:
        problems.append("FAIL pdroute/_abi.py is not what the headers say: run bindings/python/tools/generate.py")
    source = "".join(p.read_text(encoding="utf-8") for p in sorted(PACKAGE.glob("*.py")) if p.name != "_abi.py")
    called = set(re.findall(r"\b(?:core|host)(?:\.|\[\")(pdr_\w+)", source))
    problems += [f"FAIL {name} is public in C, and the package never calls it" for name in functions if name not in called and name not in IN_C]
    problems += [f"FAIL {name} stands in IN_C, and is called or not there" for name in IN_C if name in called or name not in functions]
    problems += [f"FAIL the package calls {name}, which the headers do not have" for name in sorted(called - set(functions))]
    print("\n".join(problems or [f"{len(functions)} functions of the headers can be called from Python"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
