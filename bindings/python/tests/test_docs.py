"""docs/python.md: its examples run."""
import doctest

from conftest import TOP


def test_documentation():
    result = doctest.testfile(str(TOP / "docs" / "python.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 20 and result.failed == 0
