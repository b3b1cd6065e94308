"""The garbage collector of a server, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import gc, weakref
from purveyor_server.kit.collector import YOUNG, calm

class Node: ...

def cycle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

before = gc.get_threshold()
calm()
assert gc.get_threshold()[0] == YOUNG > before[0], gc.get_threshold()
assert gc.get_freeze_count() > 1000, gc.get_freeze_count()
gone = cycle()
kept = [Node() for _ in range(YOUNG * 2)]
assert gone() is None
"""


def test_a_calm_collector_still_finds_cycles() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
