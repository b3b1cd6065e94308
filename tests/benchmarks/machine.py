"""The machine that was measured: a ratio travels, a rate does not."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from pathlib import Path

import grpc

SECONDS = 1.0
BLOCK = b"\0" * 4096


def fsync_rate(folder: Path, seconds: float = SECONDS) -> float:
    """How often in a second the disk under `folder` makes 4 KiB at the end of a file durable, one after the other."""
    path = folder / "fsync"
    count = 0
    with path.open("wb", buffering=0) as file:
        started = time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            file.write(BLOCK)
            os.fsync(file.fileno())
            count += 1
    path.unlink()
    return count / passed


def describe(folder: Path) -> str:
    """One line."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), load {load:.1f} at the start, Python {platform.python_version()}, "
        f"grpcio {grpc.__version__}, SQLite {sqlite3.sqlite_version}, {fsync_rate(folder):.0f} fsync/s on the data disk"
    )
