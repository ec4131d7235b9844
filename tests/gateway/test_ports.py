"""free_ports() of hosts/host.py: what runs beside each other, in threads or in processes, is never given the same port."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hosts.host import BLOCK, free_ports

pytestmark = pytest.mark.only("nginx")
# one block after the other, and lives until it is told to end, as a label does
ASK = f"import sys; from hosts.host import free_ports; print(*free_ports({20 * BLOCK}), flush=True); sys.stdin.read()"


def test_no_port_twice():
    others = [subprocess.Popen([sys.executable, "-c", ASK], cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
              for _ in range(8)]  # a quarter of all there are
    try:
        with ThreadPoolExecutor(4) as lanes:
            ports = [port for found in lanes.map(free_ports, [3] * 100) for port in found]
        for other in others:
            ports += map(int, other.stdout.readline().split())
        assert len(ports) == 300 + 8 * 20 * BLOCK
        assert len(set(ports)) == len(ports)
    finally:
        for other in others:
            other.communicate()


def test_ports_of_the_dead_are_free_again():
    for _ in range(40):  # all of them together are given more than there are
        done = subprocess.run([sys.executable, "-c", ASK], cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=60)
        assert len(done.stdout.split()) == 20 * BLOCK
