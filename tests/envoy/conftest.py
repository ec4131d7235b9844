"""Fixtures for tests of Envoy with pdroute-extproc."""

import socket

import pytest


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]
