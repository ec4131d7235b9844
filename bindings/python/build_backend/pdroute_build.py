"""
PEP 517 backend of this package, with nothing but the standard library: the wheel is the Python files, and libpdroute and libpdroute_host
built with CMake. The same tree gives the same bytes, wherever it lies.

Needs cmake, a C compiler, pkg-config and the headers of xxHash (libxxhash-dev); with libcurl's headers the prober is in it.
`pip wheel --config-settings=cmake=-DPDR_WITH_CURL=OFF …` passes options to CMake.
"""
import base64
import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

NAME, VERSION = "pdroute", "0.1.0"
HERE = Path(__file__).resolve().parent.parent
SOURCES = ("CMakeLists.txt", "lib", "include")  # of the C libraries, in the tree and in an sdist (there in csource/)
METADATA = f"""Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: Routing brain of LLM gateways for prefill/decode disaggregation, through ctypes
Requires-Python: >=3.9
"""


def tree():
    """Where the C sources are."""
    for place in (HERE / "csource", HERE.parents[1]):
        if (place / "lib" / "libpdroute.map").exists():
            return place
    raise SystemExit("the C sources of libpdroute are not beside bindings/python: build from the whole tree, or from an sdist")


def when():
    """Every file's time: reproducible."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))


def platform():
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def build_libraries(where, options):
    """The two shared libraries, stripped: {name in the wheel: bytes}."""
    top = tree()
    flags = " ".join(shlex.quote(f) for f in ("-O2", "-g0", f"-ffile-prefix-map={top}=.", f"-ffile-prefix-map={where}=build"))
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    quiet = {"stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "-S", top, "-B", where, *generator, "-DCMAKE_BUILD_TYPE=None", f"-DCMAKE_C_FLAGS={flags}",
                    "-DCMAKE_SKIP_RPATH=ON", "-DCMAKE_SHARED_LINKER_FLAGS=-s", *options], check=True, **quiet)
    subprocess.run(["cmake", "--build", where, "--target", "pdroute", "pdroute_host", "--parallel", str(os.cpu_count() or 1)], check=True, **quiet)
    return {"pdroute/_lib/libpdroute.so.0": (where / "lib/libpdroute.so.0").read_bytes(),
            "pdroute/_lib/libpdroute_host.so.0": (where / "lib/host/libpdroute_host.so.0").read_bytes()}


def python_files():
    package = HERE / "pdroute"
    return {f"pdroute/{p.name}": p.read_bytes() for p in sorted(package.iterdir()) if p.suffix == ".py" or p.name == "py.typed"}


def write_zip(path, files):
    import time
    date = max(time.gmtime(when())[:6], (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for name in sorted(files, key=lambda n: (".dist-info/" in n, n.endswith("RECORD"), n)):
            info = zipfile.ZipInfo(name, date)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            info.external_attr = (0o100755 if ".so" in name else 0o100644) << 16
            out.writestr(info, files[name])


def record(files, info):
    lines = []
    for name in sorted(files):
        digest = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(files[name])}\n")
    return "".join([*lines, f"{info}/RECORD,,\n"]).encode()


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    given = (config_settings or {}).get("cmake", "")
    options = [o for each in (given if isinstance(given, list) else [given]) for o in shlex.split(each)]
    tag = f"py3-none-{platform()}"
    info = f"{NAME}-{VERSION}.dist-info"
    with tempfile.TemporaryDirectory(prefix="pdroute-build-") as where:
        files = {**python_files(), **build_libraries(Path(where), options)}
    files[f"{info}/METADATA"] = METADATA.encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: pdroute_build\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    files[f"{info}/RECORD"] = record(files, info)
    name = f"{NAME}-{VERSION}-{tag}.whl"
    write_zip(Path(wheel_directory) / name, files)
    return name


def build_sdist(sdist_directory, config_settings=None):
    base = f"{NAME}-{VERSION}"
    path = Path(sdist_directory) / f"{base}.tar.gz"
    files = {f"{base}/PKG-INFO": METADATA.encode()}
    for name in ("pyproject.toml", "build_backend/pdroute_build.py"):
        files[f"{base}/{name}"] = (HERE / name).read_bytes()
    files.update({f"{base}/{name}": data for name, data in python_files().items()})
    top = tree()
    for source in SOURCES:
        each = [top / source] if (top / source).is_file() else sorted(p for p in (top / source).rglob("*") if p.is_file())
        files.update({f"{base}/csource/{p.relative_to(top)}": p.read_bytes() for p in each})
    import gzip
    import io
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(files[name]), when()
            out.addfile(member, io.BytesIO(files[name]))
    with path.open("wb") as plain, gzip.GzipFile("", "wb", 9, plain, mtime=when()) as out:
        out.write(raw.getvalue())
    return path.name


def get_requires_for_build_wheel(config_settings=None):
    return []


def get_requires_for_build_sdist(config_settings=None):
    return []
