"""An environment of their own for yardsticks that this project does not depend on, made at first use under `build`.

Guarantee: what both sides use (grpcio, protobuf, aiosqlite, jsonschema-rs) has the same version on both.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version

from tests.benchmarks.processes import ROOT, SideError, environment

DBOS = "dbos==3.4.0"
ORM = "sqlalchemy==2.1.9"
SHARED = ("grpcio", "grpcio-status", "googleapis-common-protos", "protobuf", "aiosqlite", "jsonschema-rs")
INSTALL_SECONDS = 300


def yardstick_python() -> str:
    """The interpreter of that environment. Raises SideError."""
    wanted = [DBOS, ORM, *(f"{name}=={version(name)}" for name in SHARED)]
    folder = ROOT / "build" / "yardsticks"
    python = folder / "bin" / "python"
    marker = folder / "installed"
    if marker.exists() and marker.read_text() == " ".join(wanted):
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    finish([sys.executable, "-m", "venv", str(folder)], INSTALL_SECONDS)
    finish([str(python), "-m", "pip", "install", "--quiet", *wanted], INSTALL_SECONDS)
    marker.write_text(" ".join(wanted))
    return str(python)


def finish(command: Sequence[str], seconds: float) -> str:
    """Run a program to its end; what it printed. Raises SideError unless it ends well."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise SideError(f"{command[1:4]} ended with {done.returncode}: {done.stderr[-600:]}")
    return done.stdout
