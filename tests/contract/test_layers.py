"""The layers hold, and each contract of import-linter is shown to find a planted breach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINT_TIMEOUT_SECONDS = 90
# One breach per contract id; written into a copy of the tree as a module of its own.
PLANTED = {
    "layers": ("store", "import purveyor_server.engine"),
    "domain-is-pure": ("kit", "import grpc"),
    "domain-does-not-log": ("domain", "import structlog"),
    "telemetry-is-a-leaf": ("telemetry", "import purveyor_server.security"),
    "configuration-is-parsed-at-the-top": ("watch", "import purveyor_server.config"),
    "transport-only-in-rpc": ("lifecycle", "import purveyor.v1.operation_pb2"),
    "sqlite-only-in-its-backend": ("store", "import sqlite3"),
    "asyncpg-only-in-its-provider": ("engine", "import asyncpg"),
    "server-does-not-use-the-client": ("rpc", "import purveyor"),
}


def contracts() -> dict[str, str]:
    """Contract id to its name, as declared."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {contract["id"]: contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


def lint(root: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "server"), str(root / "clients/python")])}
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=LINT_TIMEOUT_SECONDS
    )
    return done.stdout + done.stderr


def copy_tree(target: Path) -> Path:
    for folder in ("server", "clients/python"):
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def test_every_contract_has_a_planted_breach() -> None:
    assert set(PLANTED) == set(contracts())


def test_the_tree_keeps_every_contract(tmp_path: Path) -> None:
    output = lint(copy_tree(tmp_path))

    assert f"Contracts: {len(contracts())} kept, 0 broken." in output, output


def test_every_planted_breach_is_found(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    server = tree / "server/purveyor_server"
    (server / "config.py").touch()
    for contract, (package, line) in PLANTED.items():
        (server / package / f"planted_{contract.replace('-', '_')}.py").write_text(f"{line}\n", encoding="utf-8")

    output = lint(tree)

    missed = [name for name in contracts().values() if f"{name} BROKEN" not in output]
    assert not missed, output
