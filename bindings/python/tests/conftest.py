"""The package as it lies in the tree, with the libraries of PDROUTE_LIBDIR (a build's `lib`), or else of build/lib."""
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[2]
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tools"), str(HERE.parent / "bench"), str(TOP / "examples")]
os.environ.setdefault("PDROUTE_LIBDIR", str(Path(os.environ["PDR_LIBRARY"]).parent if "PDR_LIBRARY" in os.environ else TOP / "build" / "lib"))
