"""
How late this machine is. A bound that a test keeps to the wall clock holds on a machine that has a processor free when one is wanted; beside other work each process that
has to do something comes later, and the bound says nothing of the program. So what is added to a bound is measured in the same moment: another process is asked every
20 ms for a byte, and how much later than at once it comes is remembered. late(since) is the worst of it since then, usual(since) the middle: with them for whom the worst
of many counts, and the middle. Two processes have to run for a byte; a bound within which more must run adds it more than once.
"""

import functools
import statistics
import subprocess
import sys
import threading
import time
from collections import deque

ECHO = "import os\nwhile b := os.read(0, 1): os.write(1, b)"
EVERY = 0.02


class Yardstick:
    def __init__(self):
        self.child = subprocess.Popen([sys.executable, "-ISc", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.seen = deque(maxlen=int(900 / EVERY))  # (when it was asked, seconds)
        self.asked = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            self.asked = time.monotonic()
            time.sleep(EVERY)
            self.child.stdin.write(b".")
            if not self.child.stdout.read(1):
                return
            self.seen.append((self.asked, time.monotonic() - self.asked - EVERY))

    def between(self, since, until):
        """Of each byte that was waited for between the two (time.monotonic()) the seconds it came too late, of the one that has not come yet included."""
        now = time.monotonic()
        seen = [*list(self.seen), (self.asked, now - self.asked - EVERY)]
        return [late for asked, late in seen if late > 0 and asked + EVERY + late >= since and asked + EVERY <= until] or [0]


@functools.cache
def yardstick():
    return Yardstick()


def late(since, until=float("inf")):
    return max(yardstick().between(since, until))


def usual(since, until=float("inf")):
    return statistics.median(yardstick().between(since, until))


yardstick()  # who asks how late it was must have measured before
