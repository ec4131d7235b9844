"""The failure table (rows.py), one test per variant. They run side by side: what a test waits for is its own row's result."""

import os

import conftest
import pytest
import table
from rows import name_of, variants

VARIANTS = {name_of(v): v for v in variants(long=bool(os.environ.get("PDROUTE_LONG")))}


@pytest.fixture(scope="module")
def results(request):
    chosen = [item.callspec.params["name"] for item in request.session.items if item.module is request.module and not item.get_closest_marker("skip")]
    running = table.Table(conftest.Gateway, [VARIANTS[name] for name in chosen])
    yield running.results
    running.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_row(name, results):
    results[name].result()
