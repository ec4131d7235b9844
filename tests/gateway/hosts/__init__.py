"""Which gateway the suite runs against: tests/gateway/README.md.

`find(NAME)` is the class `Gateway` of hosts/NAME.py, or of the file NAME if that is a path to one; `command` takes any start command.
"""

import importlib
import importlib.util
from pathlib import Path


def find(name):
    if name.endswith(".py"):
        spec = importlib.util.spec_from_file_location("given_gateway", name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Gateway
    if not (Path(__file__).parent / f"{name}.py").exists():
        known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in ("__init__", "host"))
        raise SystemExit(f"no gateway {name!r} in tests/gateway/hosts, there are: {', '.join(known)}")
    return importlib.import_module(f"hosts.{name}").Gateway
