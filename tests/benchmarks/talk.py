"""Clients as processes of their own that are told what to do by lines and answer with a line of JSON each."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import ROOT, STOP_SECONDS, SideError, environment

ANSWER_SECONDS = 150.0


class Client:
    """One such process."""

    def __init__(self, process: subprocess.Popen[bytes], name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log
        self._rest = b""

    def tell(self, line: str) -> None:
        """Send one line. Raises SideError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise self._failure("has ended") from error

    def answer(self) -> dict[str, Any]:
        """Its next line. Raises SideError when none comes in time."""
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(ANSWER_SECONDS):
                    raise self._failure("does not answer")
                read = stdout.read1(1 << 20)  # type: ignore[attr-defined] # of a buffered pipe
                if not read:
                    raise self._failure("has ended")
                self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _failure(self, what: str) -> SideError:
        return SideError(f"{self._name} {what}: {self._log.read_text(encoding='utf-8', errors='replace')[-600:]}")


@contextmanager
def talking(name: str, log: Path, *arguments: str) -> Iterator[Client]:
    """`python -m tests.benchmarks.sides.NAME ARGUMENTS...`, ended with its input."""
    command = [sys.executable, "-m", f"tests.benchmarks.sides.{name}", *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, env=environment()
        )
    with process:
        try:
            yield Client(process, name, log)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
