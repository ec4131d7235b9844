import os
import pathlib

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def bin_dir():
    """Where the programs of the build are: PDR_BUILD_DIR, else build/."""
    path = pathlib.Path(os.environ.get("PDR_BUILD_DIR", TOP / "build")) / "bin"
    assert path.is_dir(), f"{path} is not there: build first, with -DPDR_BUILD_EXAMPLES=ON"
    return path
