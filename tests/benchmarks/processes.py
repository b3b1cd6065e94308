"""Sides as processes of their own: started, listened for, stopped.

Guarantee: leaving the context leaves no process behind, and one that ended badly raises with the end of its log.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.0005  # between two tries to connect: the grain of the start row
TAIL = 600  # characters of a log


class SideError(Exception):
    """A side did not do what the measurement needs."""


class Server:
    """A running side that listens on a unix socket."""

    def __init__(self, process: subprocess.Popen[bytes], path: str, log: Path, ends: int = 0) -> None:
        self._process = process
        self._ends = ends
        self.path = path
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its threads so far, user and system."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def address(self) -> str:
        """As grpc takes it."""
        return f"unix:{self.path}"

    def listening(self) -> None:
        """Return as soon as the socket takes connections. Raises SideError."""
        until = time.monotonic() + READY_SECONDS
        while not _connects(self.path):
            if self._process.poll() is not None:
                raise SideError(f"the side ended with {self._process.returncode}: {self.tail()}")
            if time.monotonic() > until:
                raise SideError(f"nothing listens on {self.path}: {self.tail()}")
            time.sleep(LOOK_SECONDS)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-TAIL:]

    def stop(self) -> None:
        """SIGTERM; kill what does not end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SideError(f"the side did not stop: {self.tail()}") from None
        if code != self._ends:
            raise SideError(f"the side ended with {code}: {self.tail()}")

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)


@contextmanager
def socket_path() -> Iterator[str]:
    """Where a side may listen. Not in the row's folder: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield f"{folder}/s"


def free_port() -> int:
    """A port of this machine that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(command: Sequence[str], path: str, log: Path, python: str = sys.executable) -> Server:
    """Start `python -m COMMAND...` from the root of the repository."""
    return launch_program([python, "-m", *command], path, log)


def launch_program(command: Sequence[str], path: str, log: Path, folder: Path = ROOT, ends: int = 0) -> Server:
    """Start any program in `folder`; `ends` is its code after a SIGTERM."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment()
        )
    return Server(process, path, log, ends)


def environment() -> dict[str, str]:
    """Ours, without settings for a broker."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PURVEYOR_")}


@contextmanager
def running(command: Sequence[str], path: str, log: Path, python: str = sys.executable) -> Iterator[Server]:
    """A side that listens; stopped at the end."""
    with serving(launch(command, path, log, python)) as server:
        yield server


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """A started side once it listens; stopped at the end."""
    try:
        server.listening()
        yield server
        server.stop()
    finally:
        server.kill()


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
