"""A real broker in a process of its own, for tests of start, refusal and stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT = 30.0  # seconds: a start takes one, a loaded machine a few
# Nothing listens on port 1: the backend is unreachable, and no server has to be started for these tests.
CATALOG = """\
providers:
  main:
    kind: postgresql
    config: {server: {host: 127.0.0.1, port: 1, sslmode: disable, password: {env: PATH}}}
services:
  - id: s1
    name: database
    description: A database.
    bindable: true
    plans:
      - {id: p1, name: small, description: Small., provider: main, settings: {kind: shared}}
"""


class Site:
    """A folder with settings and catalog for one broker."""

    def __init__(self, folder: Path, settings: str = "", catalog: str = CATALOG) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.config = folder / "purveyor.toml"
        self.catalog = folder / "catalog.yaml"
        self.config.write_text(f'catalog = "catalog.yaml"\ndata_dir = "data"\n{settings}')
        self.catalog.write_text(catalog)

    @property
    def socket(self) -> str:
        """Address of the broker unless it is told to listen elsewhere."""
        return f"unix:{self.data / 'broker.sock'}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command that is expected to end by itself."""
        return subprocess.run(
            _command(arguments or ("serve", "--config", str(self.config))),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env=_environment(),
        )

    def refused(self, code: int) -> str:
        """Start the broker, which must refuse with `code` and one message; returns the message."""
        ended = self.run()
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr[ended.stderr.index("purveyor: ") :]


class Process:
    """A broker that was started and answered; a context that kills it at the end whatever happened."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.events: list[dict[str, Any]] = []
        self._seen = threading.Condition()
        self._process = subprocess.Popen(
            _command(("serve", "--config", str(site.config))), stderr=subprocess.PIPE, text=True, env=_environment()
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        self.wait_for("started")
        return self

    def __exit__(self, *_details: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._seen:
                self.events.append(json.loads(line) if line.startswith("{") else {"event": line})
                self._seen.notify_all()
        with self._seen:
            self.events.append({"event": "end of log"})
            self._seen.notify_all()

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first log line with this event."""
        with self._seen:
            found = self._seen.wait_for(lambda: self._find(event) or self._find("end of log"), TIMEOUT)
            line = self._find(event)
        assert found, f"no {event!r} within {TIMEOUT} s: {self.events}"
        assert line, f"the broker ended without {event!r}: {self.events}"
        return line

    def wait_for_next(self, event: str, seen: int) -> dict[str, Any]:
        """The first log line with this event behind the first `seen` lines."""
        with self._seen:
            found = self._seen.wait_for(lambda: self._find(event, seen) or self._find("end of log"), TIMEOUT)
            line = self._find(event, seen)
        assert found, f"no further {event!r} within {TIMEOUT} s: {self.events}"
        assert line, f"the broker ended without {event!r}: {self.events}"
        return line

    def _find(self, event: str, seen: int = 0) -> dict[str, Any] | None:
        return next((line for line in self.events[seen:] if line["event"] == event), None)

    def send(self, number: signal.Signals) -> int:
        """Send a signal; returns the exit code, negative when the signal killed it."""
        self._process.send_signal(number)
        return self._process.wait(TIMEOUT)

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(TIMEOUT)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid


def serving(address: str) -> bool:
    """Whether the health service at `address` says SERVING."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT, wait_for_ready=True)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "purveyor_server", *arguments]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PURVEYOR_")}
