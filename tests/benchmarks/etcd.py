"""etcd as a yardstick: the Debian package, as it is installed, one member, on a unix socket.

Guarantee: its write-ahead log is synced before a Put is answered (its default, there is no switch for it in 3.4), on the same
disk as our store.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.processes import Server, SideError, free_port, launch_program, serving

INSTALL = "etcd is missing: apt-get install etcd-server (Debian, Ubuntu)"
SOCKET = "s:1"  # its way to write the path of a unix socket


def program() -> str:
    """Where etcd is. Raises SideError with the way to install it."""
    found = shutil.which("etcd")
    if found is None:
        raise SideError(INSTALL)
    return found


def version() -> str:
    """Its own words."""
    said = subprocess.run([program(), "--version"], capture_output=True, text=True, timeout=30, check=True)
    return said.stdout.partition("\n")[0].replace(" Version:", "")


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A member with an empty data folder in `folder`."""
    folder.mkdir(parents=True)
    peer = f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        command = [
            program(), "--data-dir", str(folder.resolve() / "data"), "--logger", "zap", "--log-level", "warn",
            "--listen-client-urls", f"unix://{SOCKET}", "--advertise-client-urls", f"unix://{SOCKET}",
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        ]  # fmt: skip
        log = folder / "etcd.log"
        started = launch_program(command, f"{place}/{SOCKET}", log, Path(place), ends=-signal.SIGTERM)
        with serving(started) as server:
            yield server
